"""A layer around a disk, and the options for decoding one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from vmvisor_image.base.limits import Meter, passed
from vmvisor_image.base.open_options import BESIDE, ParentChoice, Progress
from vmvisor_image.compressions.sequential import Decoder, SequentialReader
from vmvisor_image.errors import Problem
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.source import ReadAt, Source


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """Options for decoding a layer."""

    threads: int | None = None
    """Number of decoding threads; None for one per core."""
    progress: Progress | None = None
    """Function called with the progress of decoding."""
    total: int | None = None
    """Number of all compressed bytes, for `progress`; None where it is unknown."""
    index: str | os.PathLike[str] | None = None
    """File for the block index of the outermost compression; "auto" for the usual places."""
    cache: str | os.PathLike[str] | bool | None = None
    """Directory for the decoded data of the outermost compression; True for the usual places."""
    member: str | None = None
    """Path of the disk within a container; None to use the only candidate."""
    report: Callable[[Problem], None] | None = None
    """Function called with a problem for each part of a container that was skipped."""
    neighbour: Callable[[str], ReadAt] | None = None
    """Function that opens a file in the directory of the source by name, for virtual disks in several files."""
    parent: Parent | ParentChoice | None = BESIDE
    """Disk that a virtual disk rests on, where it rests on any; None to read it without that disk."""
    snapshot: str | None = None
    """Name or number of a snapshot inside the virtual disk; None for its present state."""
    allow_cid_mismatch: bool = False
    """Whether a disk is read with a parent whose content has changed since."""
    above: tuple[str | None, ...] = ()
    """Names of the disks of a chain down to the one that is opened, which is the last."""
    open_disk: Callable[[ReadAt, str, LayerOptions, bytes], tuple[Layer, ...]] | None = None
    """Function that opens a parent which is a virtual disk itself; see `layers.virtual.open_disk`."""
    meter: Meter = field(default_factory=Meter)
    """Counter of decoded bytes, with the limits."""

    def sequential(self, structure: str, start: Callable[[], Decoder]) -> SequentialReader:
        """A reader of a compression that decodes forward only; see `SequentialReader` for the arguments."""
        return SequentialReader(
            structure,
            start,
            cache_bytes=self.meter.limits.cache_bytes,
            meter=self.meter,
            progress=self.progress,
            total=self.total,
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer around a disk."""

    kind: str
    """Format of the layer: "bzip2", "gzip", "xz", "zstd", "qcow2", "vmdk", "vhd", "vhdx", "iso9660", "tar", "zip" …"""
    name: str | None
    """Name of the file that the layer is read from, or its path in a container; None for bytes without a name."""
    source: Source = field(compare=False, repr=False)
    """Content of the layer, decoded as it is read; `Image.source` is the data outside all layers."""
    files: FileTree | None = field(default=None, compare=False, repr=False)
    """All files of a container; None for any other layer."""


def check_depth(layers: list[Layer], options: LayerOptions) -> None:
    """Refuse another layer once the limit is reached.

    Raises:
        LimitExceeded: There are already as many `layers` as the limits allow.
    """
    most = options.meter.limits.layers
    if len(layers) >= most:
        raise passed("layers", f"more than {most} layers: {', '.join(layer.kind for layer in layers)}, …")
