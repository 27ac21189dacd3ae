"""Disk labels of other systems, which are recognised by name and not read.

Source of magics and checksums: util-linux, libblkid and libfdisk (read for the facts): Sun, SGI, Apple, BSD, AIX.
"""

from __future__ import annotations

import struct
from typing import Final

from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.mbr import SECTOR, is_signed
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

_SUN: Final = b"\xda\xbe"
_SUN_AT: Final = 508
_SGI: Final = b"\x0b\xe5\xa9\x41"
_AIX: Final = b"\xc9\xc2\xd4\xc1"
_APPLE: Final = b"ER"
_APPLE_MAPS: Final = (b"PM", b"TS")
_BSD: Final = b"\x57\x45\x56\x82"
_BSD_PLACES: Final = (SECTOR, 0x40, 0x80)


def foreign_label(disk: ReadAt, sector: bytes) -> str | None:
    """Words for the label in a disk's first `sector`; None where there is none, or also a master boot record.

    Reads the second sector where the first has no 55 AA.
    """
    # A Sun label ends in its checksum, which may happen to be 55 AA; the exclusive or of all words is then zero.
    has_check_sum = not _parity(sector)
    is_mbr = is_signed(sector)
    if sector[_SUN_AT:].startswith(_SUN) and (has_check_sum or not is_mbr):
        return "a Sun disk label"
    if is_mbr:
        return None
    if sector.startswith(_SGI):
        return "an SGI disk label"
    if sector.startswith(_AIX):
        return "an AIX disk label"
    try:
        second = read_up_to(disk, SECTOR, SECTOR)
    except CorruptImage:
        second = b""
    if sector.startswith(_APPLE) and second.startswith(_APPLE_MAPS):
        return "an Apple partition map"
    if any((sector + second)[place:].startswith(_BSD) for place in _BSD_PLACES):
        return "a BSD disk label"
    return None


def _parity(sector: bytes) -> int:
    """Exclusive or of all big-endian 16-bit words."""
    found = 0
    for (word,) in struct.iter_unpack(">H", sector):
        found ^= word
    return found
