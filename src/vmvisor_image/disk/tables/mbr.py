"""The MBR partition table with its chain of logical partitions.

Numbering follows util-linux (libfdisk/src/dos.c, read for the rules): primary partitions 1-4 by slot; logical ones
from 5 in the order of the chain, which need not be the order on the disk; links without a partition get no number.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from typing import Final

from vmvisor_image.base.forking import cached_property
from vmvisor_image.disk.tables.gpt import find_unprotected
from vmvisor_image.disk.tables.table import Scheme, TableEntry, Unchecked
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.record import Record
from vmvisor_image.schemas.mbr import (
    _ACTIVE,
    EXTENDED_TYPES,
    PROTECTIVE_TYPE,
    SECTOR,
    SIGNATURE,
    ExtendedBootRecord,
    MasterBootRecord,
    PartitionEntry,
    entries_are_sound,
    is_used,
)
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.find import recognise

NAME: Final = "master boot record (MBR)"
KIND: Final = "mbr"
SUFFIXES: Final = ()
MAGICS: Final = ()
REFERENCES: Final = ("util-linux, libfdisk/src/dos.c", "UEFI Specification 2.10, 5.2")
_FIRST_LOGICAL: Final = 5
_LARGE_SECTOR: Final = 4096
_MOST_LOGICAL: Final = 1024
"""Most links of the chain that are read; a longer one, which no tool makes, is damage. Linux stops at 256."""
_MOST_PROBLEMS: Final = 8 * _MOST_LOGICAL
"""Most problems that are kept; further ones are only counted."""


class MbrTable(Unchecked):
    """The partitions of a disk with a master boot record."""

    scheme: Scheme = "mbr"

    def __init__(self, disk: ReadAt, sector: bytes, problems: tuple[Problem, ...]) -> None:
        """A table by the disk's first sector; extended boot records are read when `entries` reaches them.

        Args:
            disk: The decoded disk.
            sector: Its first 512 bytes.
            problems: Problems of the disk's tables that are already known.
        """
        self._disk = disk
        self.record = MasterBootRecord.parse(sector)
        """Sector 0 as it is on the disk."""
        self._problems = ProblemList("partition table", _MOST_PROBLEMS)
        for problem in problems:
            self._problems.add(problem)
        self._extended_at: set[int] = set()
        """Offsets of the extended boot records that were read, in bytes from the start of the decoded disk."""
        if self.record.signature != SIGNATURE:
            self._note(SECTOR - 2, "master boot record", "signature: 55 AA is missing")

    @cached_property
    def sector_size(self) -> int:
        """Bytes in a sector: 512, or 4096 where that leads to more known contents at the places in the table."""
        return _detect_sector_size(self._disk, self.record)

    @property
    def records(self) -> Mapping[str, Record]:
        """The master boot record."""
        return {"master boot record": self.record}

    @property
    def facts(self) -> Mapping[str, str]:
        """No remarks."""
        return {}

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """See `Table.check`: searches for a GPT that the record does not announce."""
        if not any(entry.type_code == PROTECTIVE_TYPE for entry in self.record.entries):
            yield from find_unprotected(self._disk)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return self._problems.found

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """See `Table.areas`."""
        return tuple((at, SECTOR) for at in sorted({0, *self._extended_at}))

    def entries(self) -> Iterator[TableEntry]:
        """See `Table.entries`."""
        # What comes next on the disk: partitions, and (None) the next extended boot record to read.
        ahead: list[tuple[int, int, TableEntry | None]] = []
        order = itertools.count()
        extended: TableEntry | None = None
        for number, entry in enumerate(self.record.entries, 1):
            if not is_used(entry):
                continue
            found = _table_entry(entry, number, 0, self.sector_size)
            heapq.heappush(ahead, (found.start, next(order), found))
            if found.is_container and extended is None:
                extended = found
                heapq.heappush(ahead, (found.start, next(order), None))
            elif found.is_container:
                self._note(found.source_offset, "partition table", "a second extended partition; its chain is not read")
        numbers = itertools.count(_FIRST_LOGICAL)
        seen: set[int] = set()
        while ahead:
            at, _, partition = heapq.heappop(ahead)
            if partition is not None:
                yield partition
            elif at in seen:
                self._note(at, "extended boot record", "the chain of logical partitions loops")
            elif len(seen) == _MOST_LOGICAL:
                self._note(at, "extended boot record", f"the chain goes on past {_MOST_LOGICAL} records")
            else:
                seen.add(at)
                data, link = self._read_extended(at)
                if data is not None:
                    logical = _table_entry(data, next(numbers), at, self.sector_size)
                    heapq.heappush(ahead, (logical.start, next(order), logical))
                if link is not None and extended is not None:
                    heapq.heappush(ahead, (extended.start + link.first_lba * self.sector_size, next(order), None))

    def _read_extended(self, at: int) -> tuple[PartitionEntry | None, PartitionEntry | None]:
        """The logical partition of the extended boot record at byte `at`, and the link to the next."""
        self._extended_at.add(at)
        try:
            sector = read_up_to(self._disk, at, SECTOR)
        except CorruptImage as error:
            self._note(at, "extended boot record", f"it can't be read: {error}")
            return None, None
        if len(sector) < SECTOR:
            self._note(at, "extended boot record", "it lies past the end of the disk")
            return None, None
        record = ExtendedBootRecord.parse(sector, base=at)
        if record.signature != SIGNATURE:
            self._note(at + SECTOR - 2, "extended boot record", "signature: 55 AA is missing")
            if not entries_are_sound(record.entries):
                return None, None
        used = [entry for entry in record.entries if is_used(entry)]
        links = [entry for entry in used if entry.type_code in EXTENDED_TYPES]
        data = [entry for entry in used if entry.type_code not in EXTENDED_TYPES]
        for entry in data[1:] + links[1:]:
            self._note(_offset(entry), "extended boot record", "a second entry of its kind; it is not used")
        return next(iter(data), None), next(iter(links), None)

    def _note(self, offset: int, structure: str, message: str) -> None:
        self._problems.note(structure, message, offset)


def _detect_sector_size(disk: ReadAt, record: MasterBootRecord) -> int:
    """Bytes in a sector, which an MBR does not say: 4096 only where that leads to known contents.

    512 without a check where the disk would have to be decoded: no compressed image of such a disk is known.
    """
    used = [entry for entry in record.entries if is_used(entry)]
    if not used or not knows_size(disk):
        return SECTOR
    # The content of one of them may be damaged, and one may by chance lead to the start of another one.
    for entry in sorted(used, key=lambda entry: entry.type_code not in EXTENDED_TYPES):
        if _is_something(disk, entry, SECTOR):
            return SECTOR
        if _is_something(disk, entry, _LARGE_SECTOR):
            small, large = (sum(_is_something(disk, each, unit) for each in used) for unit in (SECTOR, _LARGE_SECTOR))
            return _LARGE_SECTOR if large > small else SECTOR
    return SECTOR


def _is_something(disk: ReadAt, entry: PartitionEntry, unit: int) -> bool:
    at = entry.first_lba * unit
    if entry.type_code in EXTENDED_TYPES:
        return read_up_to(disk, at, SECTOR)[-len(SIGNATURE) :] == SIGNATURE
    return recognise(disk, at) is not None


def _offset(entry: PartitionEntry) -> int:
    return entry.source_offset or 0


def _table_entry(entry: PartitionEntry, number: int, base: int, sector_size: int) -> TableEntry:
    return TableEntry(
        number=number,
        type_key=entry.type_code,
        start=base + entry.first_lba * sector_size,
        size=entry.sectors * sector_size,
        active=entry.boot_flag == _ACTIVE,
        source_offset=_offset(entry),
        is_container=entry.type_code in EXTENDED_TYPES,
        sector_size=sector_size,
        record=entry,
    )
