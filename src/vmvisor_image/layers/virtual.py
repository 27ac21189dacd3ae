"""Virtual disks around a disk: which of the formats one has; those that are not read are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from vmvisor_image.compressions.layer import Layer, LayerOptions
from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.signatures import Format, in_order, match_disk
from vmvisor_image.layers import qcow2, vhd, vhdx, vmdk
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt, Source


class VirtualDisk(Format, Protocol):
    """A module that reads a format of virtual disks."""

    def probe(self, head: bytes, /) -> bool:
        """Whether a source that begins with the 512 bytes `head` is one."""
        ...

    def open_layer(self, source: ReadAt, options: LayerOptions, /) -> Source:
        """The disk in it.

        Raises:
            CorruptImage: It can't be opened.
        """
        ...


VIRTUAL_DISKS: Final[tuple[VirtualDisk, ...]] = (vmdk, qcow2, vhd, vhdx)
"""The formats of virtual disks that are read."""
_MAGICS: Final = in_order(VIRTUAL_DISKS)
_DMG_SUFFIXES: Final = (".dmg", ".cdr", ".img")
_WRITERS: Final = {"ewf": "ewfexport", "ewf2": "ewfexport", "lvf": "ewfexport", "aff": "affconvert"}
"""Programs that make raw disks of evidence files; qemu-img does of all others."""


def open_disk(source: ReadAt, name: str | None, options: LayerOptions, head: bytes) -> tuple[Layer, ...]:
    """The virtual disk that `source` is, which begins with `head`; empty where it is none.

    A fixed VHD is told by its end. It is looked for only where that needs no decoding.

    Raises:
        CorruptImage: It is one, and can't be opened.
    """
    for each in VIRTUAL_DISKS:
        if each.probe(head):
            return (Layer(each.KIND, name, each.open_layer(source, options)),)
    if knows_size(source) and source.size >= vhd.FOOTER and _may_be_fixed(source, name):
        return (Layer(vhd.KIND, name, vhd.open_layer(source, replace(options, neighbour=None))),)
    refuse_unread(source, name, head)
    return ()


def refuse_unread(source: ReadAt, name: str | None, head: bytes) -> None:
    """Refuse a virtual disk or evidence file of a format that is not read: its bytes are not those of the disk.

    The end is looked at only where that needs no decoding and the name may be that of an Apple disk image.

    Raises:
        CorruptImage: It is one.
    """

    def read_end(length: int) -> bytes:
        try:
            return read_up_to(source, max(0, source.size - length), length)
        except CorruptImage:
            return b""  # what can't be read says nothing

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
