"""Copies of the headers of volumes, for a volume whose first header is lost: they are put in its place in memory.

Sources: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103), ``BPB_BkBootSec``; Microsoft, "exFAT file system
specification", 2 (backup boot region, sector 12) and 3.1; for NTFS, the documentation of Linux-NTFS, "$Boot" (the copy
is in the partition's last sector); for ext, the kernel's Documentation/filesystems/ext4, "Layout" (copies of the
superblock and of the group descriptors in groups 1 and powers of 3, 5 and 7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.examine.signatures import Match
from vmvisor_image.schemas.fat import SIGNATURE as BOOT_SIGNATURE
from vmvisor_image.schemas.fat import Fat32BootSector
from vmvisor_image.streams.reading import read_up_to, skip_zeros
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.views import Overlaid
from vmvisor_image.volumes.fat.volume import is_boot_sector
from vmvisor_image.volumes.role import Evidence

_FAT: Final = "FAT boot sector"
_SECTOR: Final = 512
_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
_DISK_SECTORS: Final = (512, 4096)
"""Bytes of a sector on disks."""
_FAT_COPY: Final = 6
"""Sector of the copy of FAT32's boot sector (fatgen103: "No value other than 6 is recommended")."""
_INFORMATION: Final = b"RRaA"
"""First bytes of FAT32's FSInfo sector."""
_EXFAT_COPY: Final = 12
_EXFAT: Final = b"EXFAT   "
_NTFS: Final = b"NTFS    "
_SUPERBLOCK: Final = 1024
"""Bytes of ext's superblock, and its offset in the volume."""
_EXT_MAGIC: Final = b"\x53\xef"
_EXT_64_BIT, _EXT_META_GROUPS = 0x80, 0x10
"""Incompatible features: descriptors of more than 32 bytes; descriptors that are not behind the superblock."""
_EXT_COPIES: Final = (1, 3, 5, 7, 9, 25, 27, 49)
"""Groups of blocks with a copy that are looked at (feature ``sparse_super``)."""
_EXT_PLACES: Final = tuple(
    group * 8 * size * size + (1024 if size == 1024 else 0) for group in _EXT_COPIES for size in (1024, 2048, 4096)
)
"""Offsets of copies in a volume whose groups have as many blocks as a block has bits, which is usual."""
_LARGEST_DESCRIPTORS: Final = 64 << 20
_STEP: Final = 1 << 20
_END: Final = 1 << 16
"""Last bytes of a disk of which every sector is looked at: a partition ends there, or at a whole MiB before."""
_MOST_LOOKS: Final = 1 << 20
"""Most places where the end of one volume is looked for: of 1 TiB that is no zeros."""
_FAR: Final = frozenset(
    {None, 0x07, 0x83, UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")}
)
"""Types of partitions that may hold NTFS or ext, whose copies are far from the start; None for any type."""


@dataclass(frozen=True, slots=True)
class HeaderCopy:
    """Copy of the header of a volume."""

    name: str
    """Name of the header."""
    offset: int
    """First byte of the copy, from the start of the disk."""
    start: int
    """First byte of the volume, from the start of the disk."""
    size: int
    """Bytes in the volume, as the copy says."""
    patches: tuple[tuple[int, int, ReadAt, int], ...]
    """What is put over the disk; see `Overlaid`."""

    def over(self, disk: ReadAt) -> Overlaid:
        """The disk with the copy in place of the header; nothing is written."""
        return Overlaid(disk, self.patches)

    @property
    def is_fat(self) -> bool:
        """Whether it is of a FAT volume, which has no magic."""
        return self.name == _FAT

    def evidence(self, match: Match) -> Evidence:
        """Statement of what the copy is, by its magic where it has one."""
        return Evidence(f"{match.name}: its {self.name} is lost, and a copy is here", self.offset)

    def problem(self) -> Problem:
        """Statement that the copy is used."""
        return Problem(self.name, f"it is lost or damaged: its copy at byte {self.offset:#x} is used", self.start)


def find_copy(disk: ReadAt, start: int, size: int, type_key: int | UUID | None = None) -> HeaderCopy | None:
    """Copy of the header of the volume in the partition of `size` bytes from byte `start`; None where there is none.

    Some sectors of its first 48 KiB are read, and the places of copies that are further away where the type of the
    partition admits NTFS or ext. What can't be read has none.
    """
    found = (copy for copy in _candidates(disk, start, size, type_key) if copy is not None)
    return next((copy for copy in found if copy.start == start and copy.offset < start + size), None)


def _candidates(disk: ReadAt, start: int, size: int, type_key: int | UUID | None) -> Iterator[HeaderCopy | None]:
    yield from _near(disk, start, start + size)
    if type_key in _FAR:
        yield _ntfs_at(disk, start + size - _SECTOR)
        yield from _exts(disk, start, size)


def copies_at(disk: ReadAt, place: int) -> Iterator[HeaderCopy]:
    """Copies of volumes that begin before `place`: of one that ends there, and of one with a group of blocks there."""
    before = min(place, _SECTOR)
    try:
        data = read_up_to(disk, place - before, before + 2 * _SUPERBLOCK)
    except CorruptImage:
        return
    if before and data[3:11] == _NTFS and (copy := _ntfs_at(disk, place - before)) is not None:
        yield copy
    for at in (0, _SUPERBLOCK):
        if data[before + at + 56 :].startswith(_EXT_MAGIC) and (copy := _ext_at(disk, place + at)) is not None:
            yield copy


def copies_in_end(disk: Source) -> Iterator[HeaderCopy]:
    """Copies of volumes that end in the last 64 KiB of a disk, at any sector."""
    end = disk.size - disk.size % _SECTOR
    first = max(0, end - _END)
    with contextlib.suppress(CorruptImage):
        data = read_up_to(disk, first, end - first)
        at = data.find(_NTFS)
        while at >= 0:
            if at % _SECTOR == 3 and (copy := _ntfs_at(disk, first + at - 3)) is not None:
                yield copy
            at = data.find(_NTFS, at + 1)


def find_end(disk: Source, start: int) -> HeaderCopy | None:
    """Copy of the NTFS volume that begins at `start` and ends where one is looked for; None where there is none."""
    for each in copies_in_end(disk):
        if each.start == start:
            return each
    place = start + _STEP
    for _ in range(_MOST_LOOKS):
        near = skip_zeros(disk, place - _SECTOR, disk.size)
        place = max(place, place + (near - place) // _STEP * _STEP)
        if place >= disk.size:
            break
        copy = _ntfs_at(disk, place - _SECTOR)
        if copy is not None and copy.start == start:
            return copy
        place += _STEP
    return None


def _read(disk: ReadAt, offset: int, length: int = _SECTOR) -> bytes:
    """Bytes at an offset; none where they are not all there, or can't be read."""
    data = _read_some(disk, offset, length)
    return data if len(data) == length else b""


def _read_some(disk: ReadAt, offset: int, length: int) -> bytes:
    """Bytes at an offset, fewer where the disk ends; none where they can't be read."""
    if offset < 0:
        return b""
    try:
        return read_up_to(disk, offset, length)
    except CorruptImage:
        return b""


def _number(data: bytes, offset: int, length: int) -> int:
    return int.from_bytes(data[offset : offset + length], "little")


def _near(disk: ReadAt, start: int, end: int) -> Iterator[HeaderCopy]:
    """Copies that FAT32 and exFAT have near the start of a volume; one read where the two are near each other."""
    for unit in _DISK_SECTORS:
        at = start + _FAT_COPY * unit
        if at >= end:
            return
        between = (_EXFAT_COPY - _FAT_COPY) * unit
        both = _read_some(disk, at, between + _SECTOR if unit == _SECTOR else _SECTOR)
        sector = both[:_SECTOR]
        if is_boot_sector(sector) and sector[510:] == BOOT_SIGNATURE:
            boot = Fat32BootSector.parse(sector)
            if not boot.sectors_per_fat_16 and (boot.bytes_per_sector, boot.backup_boot_sector) == (unit, _FAT_COPY):
                yield HeaderCopy(_FAT, at, start, boot.total_sectors_32 * unit, _fat_patches(disk, start, sector, boot))
        at = start + _EXFAT_COPY * unit
        sector = both[between:] if unit == _SECTOR else _read(disk, at)
        if sector[3:11] == _EXFAT and sector[510:] == BOOT_SIGNATURE and 1 << (sector[108] & 31) == unit:
            size = _number(sector, 72, 8) * unit
            region = (start, _EXFAT_COPY * unit, disk, at)
            yield HeaderCopy("exFAT boot region", at, start, size, (region,))


def _fat_patches(
    disk: ReadAt, start: int, sector: bytes, boot: Fat32BootSector
) -> tuple[tuple[int, int, ReadAt, int], ...]:
    """The boot sector; and the sector with the free clusters, where that is lost, too, and has a copy."""
    patches: list[tuple[int, int, ReadAt, int]] = [(start, _SECTOR, BytesSource(sector), 0)]
    unit = boot.bytes_per_sector
    at, copy = (start + number * unit for number in (boot.information_sector, _FAT_COPY + boot.information_sector))
    is_there = 0 < boot.information_sector < _FAT_COPY
    if is_there and _read(disk, at)[:4] != _INFORMATION and _read(disk, copy)[:4] == _INFORMATION:
        patches.append((at, _SECTOR, disk, copy))
    return tuple(patches)


def _ntfs_at(disk: ReadAt, at: int) -> HeaderCopy | None:
    sector = _read(disk, at)
    unit = _number(sector, 11, 2)
    if sector[3:11] != _NTFS or sector[510:] != BOOT_SIGNATURE or unit not in _SECTOR_SIZES:
        return None
    sectors = _number(sector, 40, 8)
    start = at - sectors * unit
    if not sectors or start < 0:
        return None
    return HeaderCopy("NTFS boot sector", at, start, (sectors + 1) * unit, ((start, _SECTOR, BytesSource(sector), 0),))


def _exts(disk: ReadAt, start: int, size: int) -> Iterator[HeaderCopy | None]:
    return (_ext_at(disk, start + place) for place in _EXT_PLACES if place < size)


def _ext_at(disk: ReadAt, at: int) -> HeaderCopy | None:
    """Copy of an ext superblock, which is at the start of a group of blocks other than the first one."""
    if _read(disk, at + 56, 2) != _EXT_MAGIC:  # most places end here
        return None
    block = _read(disk, at, _SUPERBLOCK)
    inodes, first, log_size, per_group = (_number(block, offset, 4) for offset in (0, 20, 24, 32))
    group, features = _number(block, 90, 2), _number(block, 96, 4)
    if not (block and inodes and first in (0, 1) and log_size <= 6 and per_group and group):
        return None
    size = 1024 << log_size
    is_long = bool(features & _EXT_64_BIT)
    blocks = _number(block, 4, 4) | (_number(block, 0x150, 4) << 32 if is_long else 0)
    start = at - (first + group * per_group) * size
    if start < 0 or per_group > 8 * size or first + group * per_group >= blocks:
        return None
    patches: list[tuple[int, int, ReadAt, int]] = [(start + _SUPERBLOCK, _SUPERBLOCK, BytesSource(block), 0)]
    groups = -(-(blocks - first) // per_group)
    length = groups * (_number(block, 254, 2) if is_long else 32)
    own, copy = start + (first + 1) * size, at + size
    if not features & _EXT_META_GROUPS and 0 < length <= _LARGEST_DESCRIPTORS:
        known = _read(disk, copy, 12)  # places of the bitmaps and inodes of the first group, which stay
        if any(known) and known != _read(disk, own, 12):
            patches.append((own, length, disk, copy))
    return HeaderCopy("ext superblock", at, start, blocks * size, tuple(patches))
