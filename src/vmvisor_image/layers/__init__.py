"""What may wrap a disk image: one module each, which recognises its wrapping and opens what is inside.

Compressions (bzip2, gzip, xz, zstd), virtual disks (qcow2, VMDK, VHD, VHDX), and containers that hold other files, too
(ISO 9660, tar, zip), of which `vmvisor_image.layers.containers` picks the one that is the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from vmvisor_image.errors import CorruptImage, MemberNotFound, Problem
from vmvisor_image.files import File, FileTree
from vmvisor_image.limits import Meter, passed
from vmvisor_image.sequential import Decoder, SequentialReader
from vmvisor_image.signed import strip_signature
from vmvisor_image.streams import KeptBeside, ReadAt, knows_size, read_up_to

Progress = Callable[[int, int | None], None]
"""Called with the compressed bytes passed so far and in all (None where that is not known)."""

_HEAD = 512
_COMPRESSIONS = {"bzip2": ".bz2", "gzip": ".gz", "xz": ".xz", "zstd": ".zst"}
"""Suffix of each."""
_FIRST_OF_DMG = (b"BZh", b"\xfd7zXZ\0")
"""How compressed data of an Apple disk image may begin that is read as a compression by itself."""
_WAY_DIGITS = 16
"""Hexadecimal digits of the name by which a member of a container is kept."""
_SHORT_SUFFIXES = (".tgz", ".tbz2", ".txz")
"""Of compressed tar archives."""


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
    source: ReadAt = field(compare=False, repr=False)
    """What was inside, decoded as it is read."""
    files: FileTree | None = field(default=None, compare=False, repr=False)
    """All files of a container; None of anything else."""


def peel(source: ReadAt, name: str | None, options: LayerOptions) -> tuple[Layer, ...]:
    """The compressions around `source`, outermost first.

    Raises:
        CorruptImage: One is recognised and can't be opened.
    """
    return _peel(source, name, options, read_up_to(source, 0, _HEAD))


def _peel(source: ReadAt, name: str | None, options: LayerOptions, head: bytes) -> tuple[Layer, ...]:
    from vmvisor_image.layers import bzip2, gzip, xz, zstd

    kinds: tuple[_Kind, ...] = (bzip2, gzip, xz, zstd)
    layers: list[Layer] = []
    inner = source
    while True:
        kind = next((kind for kind in kinds if kind.probe(head)), None)
        if kind is None:
            break
        _check_depth(layers, options)
        if options.progress is not None:
            options = replace(options, total=inner.size if knows_size(inner) else None)
        if layers and layers[-1].kind == gzip.KIND:
            with contextlib.suppress(CorruptImage):  # what is before the damage can be read
                inner = strip_signature(inner)  # of a boot module that is compressed twice
        inner = kind.open_layer(inner, options)
        layers.append(Layer(kind.KIND, name, inner))
        name = inner_name_of(layers[-1])
        options = replace(options, progress=None)  # the outermost compression tells how far it is
        if kind is bzip2:
            options = replace(options, index=None, cache=None)
        head = read_up_to(inner, 0, _HEAD)
    return tuple(layers)


def unwrap(source: ReadAt, name: str | None, options: LayerOptions) -> tuple[Layer, ...]:
    """The layers around the disk in `source`, outermost first; empty for a bare disk.

    Raises:
        CorruptImage: A layer is recognised and can't be opened.
        NoDiskImage: A container holds no disk.
        SeveralImages: A container holds more than one.
        MemberNotFound: A container holds no file `options.member`, or there is no container.
    """
    from vmvisor_image.layers import containers, virtual

    layers: list[Layer] = []
    inner = source
    beside: str | None = getattr(source, "kept_beside", None)
    while True:
        try:
            head = read_up_to(inner, 0, _HEAD)
        except CorruptImage:
            if not layers or options.member is not None:
                raise
            break  # what is behind the damage can be read
        if head.startswith(_FIRST_OF_DMG):  # before it is taken for a compressed disk
            virtual.refuse_unread(inner, name, head)
        found = _peel(inner, name, options, head)
        if not found:
            found = virtual.open_disk(inner, name, options, head)
        is_named_cd = name is not None and name.casefold().endswith(".iso")
        if not found and (options.member is not None or is_named_cd or not _has_table(head)):
            # The end of what is decoded may cost much to read, and a disk without a table is a disk.
            found = containers.open_container(inner, name, options, looks_at_end=not layers)
        if not found:
            break
        layers += found
        _check_depth(layers[1:], options)
        inner, name = found[-1].source, inner_name_of(found[-1])
        kinds = {layer.kind for layer in found}
        if kinds & _COMPRESSIONS.keys():
            options = replace(options, progress=None)
        if "bzip2" in kinds:
            options = replace(options, index=None, cache=None)
        if isinstance(inner, File):
            name = inner.path
            options = replace(options, member=None, neighbour=neighbour_of(inner))
            # By all the way in: the container may hold others of that name, in other folders or archives.
            way = repr([(layer.kind, getattr(layer.source, "path", None)) for layer in layers])
            name_of_way = hashlib.sha256(way.encode("utf-8", "surrogatepass")).hexdigest()[:_WAY_DIGITS]
            path = None if beside is None else f"{beside}.{name_of_way}"
            inner = KeptBeside(inner, path, container=source, version=way)
    if options.member is not None:
        raise MemberNotFound(f"there is no container that could hold {options.member!r}")
    return tuple(layers)


def _check_depth(layers: list[Layer], options: LayerOptions) -> None:
    """Refuse to take off one more than so many layers.

    Raises:
        LimitExceeded: There are too many.
    """
    most = options.meter.limits.layers
    if len(layers) >= most:
        raise passed("layers", f"more than {most} layers: {', '.join(layer.kind for layer in layers)}, …")


def neighbour_of(file: File) -> Callable[[str], ReadAt] | None:
    """What opens files beside one of a volume or archive."""
    files: FileTree | None = getattr(file.home, "files", None)
    if files is None:
        return None
    folder = file.path.rpartition("/")[0]
    return lambda name: files[f"{folder}/{name}" if folder else name]


def _has_table(head: bytes) -> bool:
    """Whether a source begins as a partition table or boot sector does; so do CDs that also boot from a stick."""
    return head[510:512] == b"\x55\xaa"


def inner_name_of(layer: Layer) -> str | None:
    """What the file inside a compression would be called; None of anything else."""
    if layer.name is None or layer.kind not in _COMPRESSIONS:
        return None
    stem, dot, suffix = layer.name.rpartition(".")
    if f"{dot}{suffix}".casefold() in _SHORT_SUFFIXES:
        return f"{stem}.tar"
    return stem if f"{dot}{suffix}".casefold() == _COMPRESSIONS[layer.kind] else layer.name


class _Kind(Protocol):
    """What each module of a compression has."""

    @property
    def KIND(self) -> str: ...  # noqa: N802  # a module's constant
    def probe(self, head: bytes, /) -> bool: ...
    def open_layer(self, source: ReadAt, options: LayerOptions, /) -> ReadAt: ...
