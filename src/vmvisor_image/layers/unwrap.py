"""Layers around a disk, taken off one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from vmvisor_image.errors import CorruptImage, MemberNotFound
from vmvisor_image.file_tree import FileTree
from vmvisor_image.files import File
from vmvisor_image.layers.layer import COMPRESSIONS, Layer, LayerOptions, check_depth, inner_name_of
from vmvisor_image.layers.peel import HEAD, peel_from
from vmvisor_image.streams import KeptBeside, ReadAt, as_source, read_up_to

_FIRST_OF_DMG = (b"BZh", b"\xfd7zXZ\0")
"""How compressed data of an Apple disk image may begin that is read as a compression by itself."""
_WAY_DIGITS = 16
"""Hexadecimal digits of the name by which a member of a container is kept."""


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
    source = as_source(source)
    beside = source.kept_beside
    while True:
        try:
            head = read_up_to(inner, 0, HEAD)
        except CorruptImage:
            if not layers or options.member is not None:
                raise
            break  # what is behind the damage can be read
        if head.startswith(_FIRST_OF_DMG):  # before it is taken for a compressed disk
            virtual.refuse_unread(inner, name, head)
        found = peel_from(inner, name, options, head)
        if not found:
            found = virtual.open_disk(inner, name, options, head)
        is_named_cd = name is not None and name.casefold().endswith(".iso")
        if not found and (options.member is not None or is_named_cd or not _has_table(head)):
            # The end of what is decoded may cost much to read, and a disk without a table is a disk.
            found = containers.open_container(inner, name, options, looks_at_end=not layers)
        if not found:
            break
        layers += found
        check_depth(layers[1:], options)
        inner, name = found[-1].source, inner_name_of(found[-1])
        kinds = {layer.kind for layer in found}
        if kinds & COMPRESSIONS.keys():
            options = replace(options, progress=None)
        if "bzip2" in kinds:
            options = replace(options, index=None, cache=None)
        if isinstance(inner, File):
            name = inner.path
            options = replace(options, member=None, neighbour=neighbour_of(inner))
            # By all the way in: the container may hold others of that name, in other folders or archives.
            way = repr(
                [(layer.kind, layer.source.path if isinstance(layer.source, File) else None) for layer in layers]
            )
            name_of_way = hashlib.sha256(way.encode("utf-8", "surrogatepass")).hexdigest()[:_WAY_DIGITS]
            path = None if beside is None else f"{beside}.{name_of_way}"
            inner = KeptBeside(inner, path, container=source, version=way)
    if options.member is not None:
        raise MemberNotFound(f"there is no container that could hold {options.member!r}")
    return tuple(layers)


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
