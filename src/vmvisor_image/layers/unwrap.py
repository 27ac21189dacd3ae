"""Removal of the layers around a disk, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vmvisor_image.base.open_options import BESIDE
from vmvisor_image.compressions.layer import Layer, LayerOptions, check_depth
from vmvisor_image.compressions.peel import BZIP2, HEAD, inner_name_of, is_compression, peel_from
from vmvisor_image.errors import CorruptImage, MemberNotFound
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.layers import containers, virtual
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import KeptBeside

_FIRST_OF_DMG = (b"BZh", b"\xfd7zXZ\0")
"""First bytes of Apple disk images that begin with compressed data, and would be read as only that."""
_WAY_DIGITS = 16
"""Number of hexadecimal digits in the name under which a member of a container is kept."""


def unwrap(source: ReadAt, name: str | None, options: LayerOptions) -> tuple[Layer, ...]:
    """The layers around the disk in `source`, outermost first; empty for a bare disk.

    Raises:
        CorruptImage: A layer is recognised but can't be opened.
        LimitExceeded: There are too many layers.
        NoDiskImage: A container holds no disk.
        SeveralImages: A container holds more than one disk.
        MemberNotFound: A container holds no file `options.member`, or there is no container.
    """
    way = _Way(as_source(source), source, name, options)
    while found := way.next_layers():
        way.go_into(found)
    if way.options.member is not None:
        raise MemberNotFound(
            f"there is no container that could hold {way.options.member!r}, only a disk: leave the member out (a disk"
            " in a file of a partition is opened by that File's open_image)"
        )
    return tuple(way.layers)


@dataclass(slots=True)
class _Way:
    """The path through the layers to a disk, as far as it is known."""

    outermost: Source
    inner: ReadAt
    """Content of the innermost layer found so far."""
    name: str | None
    """Name of that content, or None."""
    options: LayerOptions
    """Options for the next layer."""
    layers: list[Layer] = field(default_factory=list)
    """Layers found so far, outermost first."""

    def next_layers(self) -> tuple[Layer, ...]:
        """The next layers in `inner`, up to the disk for a container; empty where `inner` is the disk."""
        inner, name, options = self.inner, self.name, self.options
        try:
            head = read_up_to(inner, 0, HEAD)
        except CorruptImage:
            if options.member is not None:
                raise
            return ()  # the data behind the damage can be read
        if head.startswith(_FIRST_OF_DMG):  # otherwise it would be read as a compressed disk
            virtual.refuse_unread(inner, name, head)
        found = peel_from(inner, name, options, head) or virtual.open_disk(inner, name, options, head)
        is_named_cd = name is not None and name.casefold().endswith(containers.CD_SUFFIXES)
        if not found and (options.member is not None or is_named_cd or not _has_table(head)):
            # Reading the end of decoded data can be slow, and a disk without a table is still a disk.
            return containers.open_container(inner, name, options, looks_at_end=not self.layers)
        return found

    def go_into(self, found: tuple[Layer, ...]) -> None:
        """Continue with the content of the last of these layers, without the options that applied to them."""
        self.layers += found
        check_depth(self.layers[1:], self.options)
        self.inner, self.name = found[-1].source, inner_name_of(found[-1])
        if any(is_compression(layer) for layer in found):
            self.options = replace(self.options, progress=None)
        if any(layer.kind == BZIP2 for layer in found):
            self.options = replace(self.options, index=None, cache=None)
        if isinstance(self.inner, Linked):  # what a guest has written there must not choose files beside the disk
            parent = None if self.options.parent is None else BESIDE
            self.options = replace(self.options, neighbour=None, parent=parent, snapshot=None)
        if isinstance(self.inner, File):
            self.name = self.inner.path
            self.options = replace(self.options, member=None, neighbour=neighbour_of(self.inner))
            self.inner = self._kept(self.inner)

    def _kept(self, member: File) -> KeptBeside:
        """A file of a container, kept beside the outermost source under a name made from the whole path to the file.

        The container may hold other files with that name, in other directories or archives.
        """
        sources = [(layer.kind, layer.source) for layer in self.layers]
        way = repr([(kind, source.path if isinstance(source, File) else None) for kind, source in sources])
        name_of_way = hashlib.sha256(way.encode("utf-8", "surrogatepass")).hexdigest()[:_WAY_DIGITS]
        beside = self.outermost.kept_beside
        path = None if beside is None else f"{beside}.{name_of_way}"
        return KeptBeside(member, path, container=self.outermost, version=way)


def neighbour_of(file: File) -> Callable[[str], ReadAt] | None:
    """Function that opens a file in the same directory as `file` by name; None where its home has no file tree."""
    files: FileTree | None = getattr(file.home, "files", None)
    if files is None:
        return None
    folder = file.path.rpartition("/")[0]
    return lambda name: files[f"{folder}/{name}" if folder else name]


def _has_table(head: bytes) -> bool:
    """Whether a source begins as a partition table or boot sector does, as do CDs that also boot from a USB stick."""
    return head[510:512] == b"\x55\xaa"
