"""Virtual disks around a disk: detection of their format; unsupported formats are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from vmvisor_image.compressions.layer import Layer, LayerOptions
from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.signatures import Format, in_order, match_disk
from vmvisor_image.layers import cowd, qcow2, sesparse, vhd, vhdx, vmdk
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt, Source


class VirtualDisk(Format, Protocol):
    """A module that reads a format of virtual disks."""

    def probe(self, head: bytes, /) -> bool:
        """Whether a source that begins with the 512 bytes `head` is a virtual disk of this format."""
        ...

    def open_layer(self, source: ReadAt, options: LayerOptions, /) -> Source:
        """The disk in the virtual disk.

        Raises:
            CorruptImage: The virtual disk can't be opened.
        """
        ...


VIRTUAL_DISKS: Final[tuple[VirtualDisk, ...]] = (vmdk, sesparse, cowd, qcow2, vhd, vhdx)
"""The supported formats of virtual disks."""
_MAGICS: Final = in_order(VIRTUAL_DISKS)
_DMG_SUFFIXES: Final = (".dmg", ".cdr", ".img")
_WRITERS: Final = {"ewf": "ewfexport", "ewf2": "ewfexport", "lvf": "ewfexport", "aff": "affconvert"}
"""Programs that convert evidence files to raw disks, by kind; qemu-img converts all other formats."""


def open_disk(source: ReadAt, name: str | None, options: LayerOptions, head: bytes) -> tuple[Layer, ...]:
    """The layer of the virtual disk in `source`, which begins with `head`; empty where it is not a virtual disk.

    A fixed VHD is recognised by its end, which is examined only where that needs no decoding.

    Raises:
        CorruptImage: It is a virtual disk, but can't be opened.
    """
    options = replace(options, above=(*options.above, name), open_disk=open_disk)
    for each in VIRTUAL_DISKS:
        if each.probe(head):
            return (Layer(each.KIND, name, each.open_layer(source, options)),)
    if knows_size(source) and source.size >= vhd.FOOTER and _may_be_fixed(source, name):
        return (Layer(vhd.KIND, name, vhd.open_layer(source, replace(options, neighbour=None))),)
    refuse_unread(source, name, head)
    return ()


def refuse_unread(source: ReadAt, name: str | None, head: bytes) -> None:
    """Refuse a virtual disk or evidence file of an unsupported format, since its bytes are not those of the disk.

    The end is examined only where that needs no decoding and the name may be that of an Apple disk image.

    Raises:
        CorruptImage: The source is of such a format.
    """

    def read_end(length: int) -> bytes:
        try:
            return read_up_to(source, max(0, source.size - length), length)
        except CorruptImage:
            return b""  # unreadable bytes match no format

    has_end = (name or "").casefold().endswith(_DMG_SUFFIXES) and knows_size(source)
    found = match_disk(_MAGICS, head, read_end if has_end else None)
    if found is not None and not any(each.probe(head) for each in VIRTUAL_DISKS):
        raise CorruptImage(
            f"{found.name} is not read: make a raw disk of it, such as with {_WRITERS.get(found.kind, 'qemu-img')}",
            structure="virtual disk",
            offset=found.offset,
        )


def _may_be_fixed(source: ReadAt, name: str | None) -> bool:
    return (name or "").casefold().endswith(vhd.FIXED_SUFFIXES) and vhd.probe_end(
        read_up_to(source, source.size - vhd.FOOTER, vhd.FOOTER)
    )
