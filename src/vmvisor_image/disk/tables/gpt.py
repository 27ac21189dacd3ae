"""The GUID partition table: two copies, of which the one with fewer faults is used.

Numbers are those of gdisk and sfdisk: the slot of the entry, from 1. Source of the rules: UEFI Specification 2.10,
section 5.3.2 ("GPT Header"): a copy is valid when its signature, its CRC and its own place are right and the CRC of
its entries is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from vmvisor_image.base.forking import cached_property
from vmvisor_image.disk.tables.table import CopyName, GptCheck, Scheme, TableEntry
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.record import Record
from vmvisor_image.schemas.gpt import (
    LEGACY_BOOTABLE,
    SECTOR_SIZES,
    SHIPPED_BACKUP_LBA,
    SIGNATURE,
    GptEntry,
    GptHeader,
)
from vmvisor_image.schemas.mbr import PROTECTIVE_TYPE, MasterBootRecord, is_plausible, is_used, protects_gpt
from vmvisor_image.schemas.mbr import SIGNATURE as RECORD_SIGNATURE
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "GUID partition table (GPT)"
KIND: Final = "gpt"
SUFFIXES: Final = ()
MAGICS: Final = ()
REFERENCES: Final = ("UEFI Specification 2.10, 5.3",)
MISSING: Final = "it is missing: there is no 'EFI PART'"
"""Message of the problem of a missing copy."""
_UNUSED: Final = bytes(16)
_LARGEST_ENTRIES: Final = 4 << 20
"""Most bytes of partition entries that are read; the usual 128 entries take 16,384."""
_LARGEST_ENTRY: Final = 4096
_SHIPPED_ENTRIES_LBA: Final = 2
"""First sector of the entries in both headers of a disk head as ESXi's installers ship it."""
_CRC: Final = slice(16, 20)
"""Bytes of a header that hold its own CRC."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One of the two copies, as far as it can be used."""

    which: CopyName
    header: GptHeader
    sector_size: int
    entries: bytes
    """Entries as they are on disk; shorter where the disk ends or they can't be read."""
    problems: tuple[Problem, ...]

    @property
    def is_whole(self) -> bool:
        return not self.problems


class GptTable:
    """The partitions of a disk with a GUID partition table."""

    scheme: Scheme = "gpt"

    def __init__(self, disk: ReadAt, copy: _Copy, sector: bytes | None, problems: tuple[Problem, ...]) -> None:
        """Made by `find_gpt`."""
        self._disk = disk
        self._copy = copy
        self._mbr = None if sector is None else MasterBootRecord.parse(sector)
        self._first_problems = problems
        self.sector_size = copy.sector_size
        """Bytes in a logical sector."""
        self._entries, self._entry_problems = _read_entries(copy)

    @property
    def header(self) -> GptHeader:
        """Header of the copy that is used, as it is on disk."""
        return self._copy.header

    @property
    def disk_guid(self) -> UUID:
        """The disk's identifier."""
        return UUID(bytes_le=self.header.disk_guid)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return self._first_problems + self._entry_problems + tuple(self._hybrid_problems())

    @property
    def records(self) -> Mapping[str, Record]:
        """The master boot record that protects the table, and the header that is used."""
        header = {f"{self._copy.which} GPT header": self._copy.header}
        return header if self._mbr is None else {"protective MBR": self._mbr, **header}

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """See `Table.areas`: the backup's entries are assumed to be before its header, where all tools put them."""
        header, unit = self.header, self.sector_size
        length = min(header.entry_count * header.entry_size, _LARGEST_ENTRIES)
        length = -(-length // unit) * unit
        backup = self._places()[1][1]
        primary = header.entries_lba * unit if self._copy.which == "primary" else 2 * unit
        return ((0, unit), (unit, unit), (primary, length), (max(backup - length, 0), min(length, backup) + unit))

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """See `Table.facts`: whether the head is as ESXi's installers ship it; reads both headers, which are in it."""
        if SHIPPED_BACKUP_LBA not in (self.header.alternate_lba, self.header.my_lba):
            return {}
        copies = [_read_copy(self._disk, at, self.sector_size, which) for which, at in self._places()]
        if not all(isinstance(copy, _Copy) and _is_as_shipped(copy) for copy in copies):
            return {}
        return {
            "backup GPT header": f"as shipped: in sector {SHIPPED_BACKUP_LBA}, as in dd images of ESXi's installers,"
            " with the entries of the primary one, so that there is no second copy of them"
        }

    def check_copies(self) -> tuple[GptCheck, GptCheck]:
        """The CRCs of both copies, the primary one first; reads them, and so a compressed disk to its end."""
        primary, backup = (_check_copy(self._disk, at, self.sector_size, which) for which, at in self._places())
        return primary, backup

    def _places(self) -> tuple[tuple[CopyName, int], tuple[CopyName, int]]:
        """Name of each copy, and bytes from the start of the decoded disk to its header."""
        backup = self.header.alternate_lba if self._copy.which == "primary" else self.header.my_lba
        return ("primary", self.sector_size), ("backup", backup * self.sector_size)

    def entries(self) -> Iterator[TableEntry]:
        """See `Table.entries`."""
        return iter(sorted(self._entries, key=lambda entry: (entry.start, entry.number)))

    def check(self, disk_size: int) -> Iterator[Problem]:
        """See `Table.check`: compares the backup copy with the primary one."""
        if self._copy.which == "backup":
            return
        at = self.header.alternate_lba * self.sector_size
        last = disk_size // self.sector_size * self.sector_size - self.sector_size
        backup = _read_copy(self._disk, at, self.sector_size, "backup")
        if isinstance(backup, Problem):
            yield backup
            return
        yield from backup.problems
        if backup.is_whole and backup.entries != self._copy.entries:
            yield Problem("backup GPT", "its entries are not those of the primary GPT, which are used", at)
        if at != last and not self.facts:
            yield Problem("backup GPT header", f"it is not in the disk's last sector, at byte {last:#x}", at)

    def _hybrid_problems(self) -> Iterator[Problem]:
        """Problems of partitions in a hybrid MBR that the GPT does not have."""
        known = {(entry.start, entry.size) for entry in self._entries}
        for entry in () if self._mbr is None else self._mbr.entries:
            if is_used(entry) and entry.type_code != PROTECTIVE_TYPE:
                place = (entry.first_lba * self.sector_size, entry.sectors * self.sector_size)
                if place not in known:
                    yield Problem(
                        "hybrid MBR",
                        f"its partition at sector {entry.first_lba} of {entry.sectors} sectors is not one of the GPT's",
                        entry.source_offset,
                    )


def find_unprotected(disk: ReadAt) -> Iterator[Problem]:
    """Problem of a whole primary copy that the master boot record does not announce."""
    for sector_size in SECTOR_SIZES:
        copy = _read_copy(disk, sector_size, sector_size, "primary")
        if isinstance(copy, _Copy) and copy.is_whole:
            message = "there is a GPT, but the master boot record does not protect it; its own partitions are used"
            yield Problem("primary GPT header", message, sector_size)


def find_gpt(disk: ReadAt, sector: bytes | None) -> tuple[GptTable | None, tuple[Problem, ...]]:
    """The table, or None; and the problems of its copies.

    Args:
        disk: The decoded disk. Its end is read only where the primary copy is not whole.
        sector: Its first 512 bytes; None where they can't be read.
    """
    is_protected = sector is not None and is_plausible(sector) and protects_gpt(sector)
    message = "it can't be read" if sector is None else "it does not protect the GPT behind it"
    unprotected = () if is_protected else (Problem("master boot record", message, 0),)
    if sector is not None and is_protected and sector[-len(RECORD_SIGNATURE) :] != RECORD_SIGNATURE:
        at = len(sector) - len(RECORD_SIGNATURE)
        unprotected = (Problem("master boot record", "signature: 55 AA is missing", at),)
    primary: _Copy | Problem | None = None
    for sector_size in SECTOR_SIZES:
        found = _read_copy(disk, sector_size, sector_size, "primary")
        if isinstance(found, _Copy) and (found.is_whole or not isinstance(primary, _Copy)):
            primary = found
            if found.is_whole:
                return GptTable(disk, found, sector, unprotected), ()
        elif primary is None:
            primary = found
    assert primary is not None, "there are sector sizes"
    problems = primary.problems if isinstance(primary, _Copy) else (primary,)
    best = primary if isinstance(primary, _Copy) else None
    for backup in _backups(disk, best):
        if isinstance(backup, Problem):
            problems += (backup,)
        elif backup.is_whole:
            used = Problem("primary GPT", "it is damaged; the backup is used", backup.sector_size)
            return GptTable(disk, backup, sector, (*unprotected, *problems, used)), problems
        else:
            problems += backup.problems
            best = best or backup
    problems = tuple(dict.fromkeys(problems))
    return (None if best is None else GptTable(disk, best, sector, (*unprotected, *problems))), problems


def _backups(disk: ReadAt, primary: _Copy | None) -> Iterator[_Copy | Problem]:
    """Backup copies at the place in the primary, at the disk's end, and where ESXi's shipped heads have them."""
    places = []
    if primary is not None:
        places.append((primary.header.alternate_lba * primary.sector_size, primary.sector_size))
    try:
        size = disk.size
    except CorruptImage as error:
        yield Problem.of(error)
    else:
        places += [(size // unit * unit - unit, unit) for unit in SECTOR_SIZES if size >= 2 * unit]
    shipped = (SHIPPED_BACKUP_LBA * SECTOR_SIZES[0], SECTOR_SIZES[0])
    missing: Problem | None = None
    found = False
    for at, sector_size in dict.fromkeys((*places, shipped)):
        copy = _read_copy(disk, at, sector_size, "backup")
        if (at, sector_size) not in places and not (isinstance(copy, _Copy) and _is_as_shipped(copy)):
            continue  # most disks have other data there
        if isinstance(copy, _Copy):
            yield copy
            if copy.is_whole:
                return  # otherwise the place in a damaged primary may be wrong: the disk's end is also examined
            found = True
        missing = missing or (copy if isinstance(copy, Problem) else None)
    if missing is not None and not found:
        yield missing


def _read_copy(disk: ReadAt, at: int, sector_size: int, which: CopyName) -> _Copy | Problem:
    """The copy whose header is at byte `at`, or the problem that it can't be used."""
    structure = f"{which} GPT header"
    try:
        raw = read_up_to(disk, at, sector_size)
    except CorruptImage as error:
        return Problem(structure, f"it can't be read: {error}", at)
    if len(raw) < GptHeader.length():
        return Problem(structure, f"the disk ends after {len(raw)} of its {GptHeader.length()} bytes", at)
    header = GptHeader.parse(raw, base=at)
    if header.signature != SIGNATURE:
        return Problem(structure, MISSING, at)
    problems: list[Problem] = []

    def note(field: str, message: str) -> None:
        problems.append(_of_field(header, structure, field, message))

    found = header_crc(header, raw)
    if found is None:
        note("header_size", f"{header.header_size} bytes, but it has {GptHeader.length()} to {sector_size}")
    elif found != header.header_crc:
        note("header_crc", f"it should be {found:#010x} and is {header.header_crc:#010x}")
    if header.my_lba * sector_size != at:
        note("my_lba", f"it says sector {header.my_lba}, and is in sector {at // sector_size}")
    size = header.entry_size
    if size < GptEntry.length() or size > _LARGEST_ENTRY or size & (size - 1):
        note("entry_size", f"{size} bytes, but it is {GptEntry.length()} to {_LARGEST_ENTRY}, a power of two")
        return problems[-1] if len(problems) == 1 else Problem(structure, _join(problems), at)
    length = header.entry_count * size
    if length > _LARGEST_ENTRIES:
        is_sound = not problems
        note("entry_count", f"{header.entry_count} entries of {size} bytes are more than the {_LARGEST_ENTRIES} read")
        if not is_sound:  # the count is as untrustworthy as the rest: partitions would be read from data
            return Problem(structure, _join(problems), at)
    entries, damage = _read_raw(disk, header, sector_size, which)
    return _Copy(which, header, sector_size, entries, (*problems, *damage))


def _is_as_shipped(copy: _Copy) -> bool:
    """Whether a whole copy is one of the two in a head that ESXi's installers ship; see `SHIPPED_BACKUP_LBA`."""
    header = copy.header
    headers = {header.my_lba, header.alternate_lba}
    is_there = copy.sector_size == SECTOR_SIZES[0] and headers == {1, SHIPPED_BACKUP_LBA}
    return is_there and header.entries_lba == _SHIPPED_ENTRIES_LBA and copy.is_whole


def _read_raw(disk: ReadAt, header: GptHeader, unit: int, which: CopyName) -> tuple[bytes, tuple[Problem, ...]]:
    """Bytes of the entries, as far as they exist and are read, and the problems with them."""
    at, whole = header.entries_lba * unit, header.entry_count * header.entry_size
    length = min(whole, _LARGEST_ENTRIES)
    try:
        entries = read_up_to(disk, at, length)
    except CorruptImage as error:
        return b"", (Problem(f"{which} GPT entries", f"they can't be read: {error}", at),)
    if len(entries) < length:
        message = f"the disk ends after {len(entries)} of their {length} bytes"
        return entries, (Problem(f"{which} GPT entries", message, at),)
    found = zlib.crc32(entries)
    if length == whole and found != header.entries_crc:
        message = f"it should be {found:#010x} and is {header.entries_crc:#010x}"
        return entries, (_of_field(header, f"{which} GPT header", "entries_crc", message),)
    return entries, ()


def _of_field(header: GptHeader, structure: str, field: str, message: str) -> Problem:
    offset = next(part.offset for part in GptHeader.layout() if part.name == field)
    return Problem(structure, f"{field}: {message}", (header.source_offset or 0) + offset)


def _check_copy(disk: ReadAt, at: int, unit: int, which: CopyName) -> GptCheck:
    """The CRCs of the copy whose header is at byte `at`."""
    try:
        raw = read_up_to(disk, at, unit)
    except CorruptImage:
        raw = b""
    if len(raw) < GptHeader.length() or (header := GptHeader.parse(raw, base=at)).signature != SIGNATURE:
        return GptCheck(which, at, None, None, None, None)
    length = header.entry_count * header.entry_size
    try:
        entries = read_up_to(disk, header.entries_lba * unit, length) if length <= _LARGEST_ENTRIES else b""
    except CorruptImage:
        entries = b""
    entries_crc = zlib.crc32(entries) if len(entries) == length else None
    return GptCheck(which, at, header.header_crc, header_crc(header, raw), header.entries_crc, entries_crc)


def _join(problems: list[Problem]) -> str:
    return "; ".join(problem.message for problem in problems)


def header_crc(header: GptHeader, raw: bytes) -> int | None:
    """Computed CRC of the header at the start of `raw`; None where its size is not valid."""
    if not GptHeader.length() <= header.header_size <= len(raw):
        return None
    cleared = bytearray(raw[: header.header_size])
    cleared[_CRC] = bytes(4)
    return zlib.crc32(cleared)


def _read_entries(copy: _Copy) -> tuple[tuple[TableEntry, ...], tuple[Problem, ...]]:
    """Partitions in slot order, and their problems."""
    header, unit = copy.header, copy.sector_size
    found: list[TableEntry] = []
    problems: list[Problem] = []
    base = header.entries_lba * unit
    for number, at in enumerate(range(0, len(copy.entries) - GptEntry.length() + 1, header.entry_size), 1):
        if copy.entries[at : at + 16] == _UNUSED:
            continue
        entry = GptEntry.parse(copy.entries, at, base=base)
        structure = f"GPT entry {number}"
        if entry.last_lba < entry.first_lba:
            message = f"it ends at sector {entry.last_lba}, before its start at {entry.first_lba}; it is left out"
            problems.append(Problem(structure, message, base + at))
            continue
        if entry.first_lba < header.first_usable_lba or entry.last_lba > header.last_usable_lba:
            message = (
                f"sectors {entry.first_lba} to {entry.last_lba} are outside the usable ones,"
                f" {header.first_usable_lba} to {header.last_usable_lba}"
            )
            problems.append(Problem(structure, message, base + at))
        found.append(
            TableEntry(
                number=number,
                type_key=UUID(bytes_le=entry.type_guid),
                start=entry.first_lba * unit,
                size=(entry.last_lba - entry.first_lba + 1) * unit,
                active=bool(entry.attributes & LEGACY_BOOTABLE),
                source_offset=base + at,
                sector_size=unit,
                name=_name(entry.name),
                guid=UUID(bytes_le=entry.partition_guid),
                attributes=entry.attributes,
                record=entry,
            )
        )
    return tuple(found), tuple(problems)


def _name(raw: bytes) -> str | None:
    """Name up to its first NUL, after which partedUtil leaves FFFF; None for an empty one."""
    for at in range(0, len(raw), 2):
        if raw[at : at + 2] == b"\0\0":
            raw = raw[:at]
            break
    return raw.decode("utf-16-le", "replace") or None
