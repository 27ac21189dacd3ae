"""Layers around a disk, taken off one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vmvisor_image.compressions.layer import Layer, LayerOptions, check_depth
from vmvisor_image.compressions.peel import BZIP2, HEAD, inner_name_of, is_compression, peel_from
from vmvisor_image.errors import CorruptImage, MemberNotFound
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.layers import containers, virtual
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import KeptBeside

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
    way = _Way(as_source(source), source, name, options)
    while found := way.next_layers():
        way.go_into(found)
    if way.options.member is not None:
        raise MemberNotFound(f"there is no container that could hold {way.options.member!r}")
    return tuple(way.layers)


@dataclass(slots=True)
class _Way:
    """The way to a disk, as far as it is known."""

    outermost: Source
    inner: ReadAt
    """Content of the innermost layer so far."""
    name: str | None
    """Its name."""
    options: LayerOptions
    """What may be used for the next layer."""
    layers: list[Layer] = field(default_factory=list)
    """Outermost first."""

    def next_layers(self) -> tuple[Layer, ...]:
        """The layers that `inner` begins with; of a container, those up to the file that is the disk."""
        inner, name, options = self.inner, self.name, self.options
        try:
            head = read_up_to(inner, 0, HEAD)
        except CorruptImage:
            if not self.layers or options.member is not None:
                raise
            return ()  # what is behind the damage can be read
        if head.startswith(_FIRST_OF_DMG):  # before it is taken for a compressed disk
            virtual.refuse_unread(inner, name, head)
        found = peel_from(inner, name, options, head) or virtual.open_disk(inner, name, options, head)
        is_named_cd = name is not None and name.casefold().endswith(containers.CD_SUFFIXES)
        if not found and (options.member is not None or is_named_cd or not _has_table(head)):
            # The end of what is decoded may cost much to read, and a disk without a table is a disk.
            return containers.open_container(inner, name, options, looks_at_end=not self.layers)
        return found

    def go_into(self, found: tuple[Layer, ...]) -> None:
        """Go on with what the last one of these layers holds; what was meant for them is used up."""
        self.layers += found
        check_depth(self.layers[1:], self.options)
        self.inner, self.name = found[-1].source, inner_name_of(found[-1])
        if any(is_compression(layer) for layer in found):
            self.options = replace(self.options, progress=None)
        if any(layer.kind == BZIP2 for layer in found):
            self.options = replace(self.options, index=None, cache=None)
        if isinstance(self.inner, File):
            self.name = self.inner.path
            self.options = replace(self.options, member=None, neighbour=neighbour_of(self.inner))
            self.inner = self._kept(self.inner)

    def _kept(self, member: File) -> KeptBeside:
        """A file of a container, kept beside the outermost source by all the way in.

        The container may hold others of that name, in other folders or archives.
        """
        sources = [(layer.kind, layer.source) for layer in self.layers]
        way = repr([(kind, source.path if isinstance(source, File) else None) for kind, source in sources])
        name_of_way = hashlib.sha256(way.encode("utf-8", "surrogatepass")).hexdigest()[:_WAY_DIGITS]
        beside = self.outermost.kept_beside
        path = None if beside is None else f"{beside}.{name_of_way}"
        return KeptBeside(member, path, container=self.outermost, version=way)


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
