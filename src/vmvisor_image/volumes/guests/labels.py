"""Labels of the file systems of guests, read from where each keeps it; no process is needed for them.

Sources: Linux, fs/ext4/ext4.h (``s_volume_name``); Microsoft, "exFAT file system specification", 3.1 and 7.3; Apple,
Technical Note 1150, "Volume Header", "B-Trees" and "Catalog File"; FreeBSD, sys/ufs/ffs/fs.h (``fs_volname``); the
Linux-NTFS documentation, "$Boot", "$Volume" and "$VOLUME_NAME".
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import Source

_EXT_LABEL: Final = (1024 + 120, 16)
"""Offset of the label in bytes from the start of the volume, and its number of bytes."""
_UFS_SUPERBLOCKS: Final = (65536, 8192)
"""Offsets of the superblock of UFS2, and of UFS1; some programs write that of UFS2 to the second one, too."""
_UFS_MAGICS: Final = (b"\x19\x01\x54\x19", b"\x19\x54\x01\x19", b"\x54\x19\x01\x00", b"\x00\x01\x19\x54")
"""Magics of UFS2 and UFS1, in either byte order."""
_UFS_MAGIC, _UFS_LABEL = 1372, (680, 32)
_NTFS_VOLUME: Final = 3
"""Number of the record of ``$Volume`` in the master file table."""
_NTFS_NAME, _NTFS_LAST = 0x60, 0xFFFFFFFF
_NTFS_SECTOR: Final = 512
"""Bytes between two fixups, whatever the size of the sectors."""
_LARGEST_RECORD: Final = 1 << 16
_EXFAT_LABEL: Final = 0x83
_EXFAT_MOST_READ: Final = 1 << 20
"""Bytes of a root directory in which the label is looked for; programs that format write it first."""
_HFS_HEADER, _HFS_CATALOG = 1024, 272
_HFS_EXTENTS: Final = 8
_HFS_ROOT_PARENT: Final = 1
"""Number of the made-up folder above the root directory, whose only entry has the name of the volume."""


def label_of(kind: str, disk: Source, start: int) -> str | None:
    """Label of a file system; None where it has none, or where its place makes no sense.

    Args:
        kind: Kind of the file system, such as "ext4".
        disk: The decoded disk, up to the end of the volume.
        start: Bytes from the start of the disk to the volume.

    Raises:
        CorruptImage: The disk can't be read there.
    """

    def read(offset: int, size: int) -> bytes:
        found = read_up_to(disk, start + offset, size)
        if len(found) < size:
            raise _Absent
        return found

    find = _LABELS.get(kind)
    try:
        return None if find is None else find(read) or None
    except (_Absent, struct.error):
        return None


class _Absent(Exception):
    """The label's place is outside of the volume."""


_Read = Callable[[int, int], bytes]


def _until_zero(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _ext(read: _Read) -> str:
    return _until_zero(read(*_EXT_LABEL))


def _ufs(read: _Read) -> str | None:
    for at in _UFS_SUPERBLOCKS:
        try:
            if read(at + _UFS_MAGIC, 4) in _UFS_MAGICS:
                return _until_zero(read(at + _UFS_LABEL[0], _UFS_LABEL[1]))
        except _Absent:
            continue
    return None


def _ntfs(read: _Read) -> str | None:
    boot = read(0, 512)
    sector, code = struct.unpack_from("<HB", boot, 11)
    cluster = sector * (code if code <= 0x80 else 1 << (256 - code))
    (table,) = struct.unpack_from("<Q", boot, 48)
    (per_record,) = struct.unpack_from("<b", boot, 64)
    size = per_record * cluster if per_record > 0 else 1 << -per_record
    if not _NTFS_SECTOR <= size <= _LARGEST_RECORD:
        return None
    record = bytearray(read(table * cluster + _NTFS_VOLUME * size, size))
    fixups, count = struct.unpack_from("<HH", record, 4)
    if record[:4] != b"FILE" or fixups + 2 * count > size:
        return None
    for number in range(1, min(count, size // _NTFS_SECTOR + 1)):  # the ends of sectors are kept in the fixups
        record[number * _NTFS_SECTOR - 2 : number * _NTFS_SECTOR] = record[
            fixups + 2 * number : fixups + 2 * number + 2
        ]
    (at,) = struct.unpack_from("<H", record, 20)
    while at + 24 <= size:
        kind, length, is_elsewhere = struct.unpack_from("<IIB", record, at)
        if kind == _NTFS_LAST or length < 24:
            return None
        if kind == _NTFS_NAME and not is_elsewhere:
            count, offset = struct.unpack_from("<IH", record, at + 16)
            return bytes(record[at + offset : at + offset + count]).decode("utf-16-le", "replace")
        at += length
    return None


def _exfat(read: _Read) -> str | None:
    boot = read(0, 512)
    fat, _, heap, count, cluster = struct.unpack_from("<5I", boot, 80)
    sector_shift, cluster_shift = boot[108], boot[109]
    if not 9 <= sector_shift <= 12 or cluster_shift > 25 - sector_shift:
        return None
    size = 1 << (sector_shift + cluster_shift)
    for _ in range(max(1, _EXFAT_MOST_READ // size)):
        if not 2 <= cluster < count + 2:
            return None
        data = read((heap << sector_shift) + (cluster - 2) * size, min(size, _EXFAT_MOST_READ))
        for at in range(0, len(data), 32):
            if not data[at]:  # no entry follows
                return None
            if data[at] == _EXFAT_LABEL:
                return data[at + 2 : at + 2 + 2 * min(data[at + 1], 11)].decode("utf-16-le", "replace")
        (cluster,) = struct.unpack("<I", read((fat << sector_shift) + 4 * cluster, 4))
    return None


def _hfsplus(read: _Read) -> str | None:
    header = read(_HFS_HEADER, 512)
    (block,) = struct.unpack_from(">I", header, 40)
    extents = struct.unpack_from(f">{2 * _HFS_EXTENTS}I", header, _HFS_CATALOG + 16)

    def read_catalog(offset: int, size: int) -> bytes:
        for first, count in zip(extents[::2], extents[1::2], strict=True):
            if offset + size <= count * block:
                return read(first * block + offset, size)
            offset -= count * block
            if offset < 0:
                break
        raise _Absent

    tree = read_catalog(0, 256)
    (first,) = struct.unpack_from(">I", tree, 24)
    (size,) = struct.unpack_from(">H", tree, 32)
    leaf = read_catalog(first * size, min(size, 1024))
    _, parent, length = struct.unpack_from(">HIH", leaf, 14)
    if parent != _HFS_ROOT_PARENT or length > 255:
        return None
    name = leaf[22 : 22 + 2 * length].decode("utf-16-be", "replace")
    return unicodedata.normalize("NFC", name)  # as the names of files


_LABELS: Final[Mapping[str, Callable[[_Read], str | None]]] = MappingProxyType(
    {
        "ext2": _ext,
        "ext3": _ext,
        "ext4": _ext,
        "ufs": _ufs,
        "hfsplus": _hfsplus,
        "ntfs": _ntfs,
        "exfat": _exfat,
    }
)
