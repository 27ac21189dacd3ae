"""A wrapping that was taken off, and what may be used to take one off."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from vmvisor_image.base.limits import Meter, passed
from vmvisor_image.base.open_options import Progress
from vmvisor_image.compressions.sequential import Decoder, SequentialReader
from vmvisor_image.errors import Problem
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.source import ReadAt, Source


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What a layer may use to decode."""

    threads: int | None = None
    """Threads that decode; None for one a core."""
    progress: Progress | None = None
    """Told how far decoding is."""
    total: int | None = None
    """Compressed bytes in all, for `progress`."""
    index: str | os.PathLike[str] | None = None
    """Where to keep an index of what is where in the outermost compression; "auto" for the usual places."""
    cache: str | os.PathLike[str] | bool | None = None
    """Where to keep the decoded data of the outermost compression; True for the usual places."""
    member: str | None = None
    """Which file of a container is the disk; None where there is but one that can be."""
    report: Callable[[Problem], None] | None = None
    """Told what of a container was passed over because it is damaged."""
    neighbour: Callable[[str], ReadAt] | None = None
    """Opens a file beside the source by its name, for virtual disks in several files."""
    meter: Meter = field(default_factory=Meter)
    """Counts what is decoded, and has the limits."""

    def sequential(self, structure: str, start: Callable[[], Decoder]) -> SequentialReader:
        """A reader of a compression that decodes forward only; see there for the arguments."""
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
    """One wrapping that was taken off."""

    kind: str
    """Its format: "bzip2", "gzip", "xz", "zstd", "qcow2", "vmdk", "vhd", "vhdx", "iso9660", "tar", "zip" …"""
    name: str | None
    """Name of the wrapped file, with its path where it lies in a container; None for bytes without one."""
    source: Source = field(compare=False, repr=False)
    """Bytes inside the wrapping, decoded as they are read; `Image.source` is the outer end of all layers."""
    files: FileTree | None = field(default=None, compare=False, repr=False)
    """All files of a container; None of anything else."""


def check_depth(layers: list[Layer], options: LayerOptions) -> None:
    """Refuse to take off one more than so many layers.

    Raises:
        LimitExceeded: There are too many.
    """
    most = options.meter.limits.layers
    if len(layers) >= most:
        raise passed("layers", f"more than {most} layers: {', '.join(layer.kind for layer in layers)}, …")
