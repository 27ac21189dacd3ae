"""The log of a VHDX that was not closed, replayed in memory. Source: Microsoft, [MS-VHDX] 8.0, 2.3.

The file is never written: its changes are laid over its bytes as they are read.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.errors import CorruptImage, ProblemList, TruncatedImage
from vmvisor_image.schemas.vhdx import (
    DATA_MAGIC,
    DATA_SECTOR_MAGIC,
    LOG_MAGIC,
    LOG_SECTOR,
    ZERO_MAGIC,
    LogDataSector,
    LogDescriptor,
    LogEntryHeader,
    VhdxHeader,
)
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import Source
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.views import Pieced

_STRUCTURE: Final = "VHDX log"
_LARGEST_LOG: Final = 32 << 20
"""Largest log that is replayed, in bytes, since it is read whole; Hyper-V and QEMU make logs of 1 MiB."""
_MOST_CHANGES: Final = 1 << 16
"""Largest number of descriptors that are replayed; twice as many as fit in a log of 1 MiB."""
_LARGEST_FILE: Final = 1 << 62
"""Largest size of a file that a log may give, in bytes."""
_LEADING, _TRAILING = 8, 4
"""First and last bytes of a page that are in its descriptor, as there is a number in their place in its sector."""
_HEAD: Final = 2
"""Places of descriptors that the head of an entry takes in its first sector."""
_PER_SECTOR: Final = LOG_SECTOR // 32
"""Places of descriptors in a sector."""
_MIB: Final = 1 << 20
"""Number of bytes of which the size of a file is a multiple ([MS-VHDX] 2.3.1.1)."""
_PROTECTED: Final = 0x30000
"""Bytes at the start of the file, with the headers, that no log entry should change."""


def replay(
    source: Source, header: VhdxHeader, checksum_is_right: Callable[[bytes], bool], problems: ProblemList
) -> Replayed:
    """The file as it is once the log is replayed.

    Args:
        source: The file.
        header: Its current header.
        checksum_is_right: Function that checks the CRC-32C in bytes 4 to 7 of a structure.
        problems: List for what is wrong with the changes, and does not keep them from being made.

    Raises:
        CorruptImage: The log can't be replayed: it has no valid sequence of entries, or is too large.
        TruncatedImage: The file is shorter than it was when the log was written.
    """
    at = header.source_offset or 0
    if header.log_version:
        message = f"its version is {header.log_version}, and only 0 can be replayed"
        raise CorruptImage(message, structure=_STRUCTURE, offset=at + 64, field="log_version")
    if not LOG_SECTOR <= header.log_length <= _LARGEST_LOG:
        message = f"{header.log_length} bytes; logs of {LOG_SECTOR} to {_LARGEST_LOG} bytes are replayed"
        raise CorruptImage(message, structure=_STRUCTURE, offset=at + 68, field="log_length")
    log = _Log(source, header, checksum_is_right)
    return Replayed(source, header, log.active(), problems)


@dataclass(frozen=True, slots=True)
class _Entry:
    header: LogEntryHeader
    at: int
    """Bytes from the start of the log to the entry."""
    descriptors: tuple[LogDescriptor, ...]
    data: tuple[bytes, ...]
    """Data sector of each descriptor of data."""


class _Log:
    def __init__(self, source: Source, header: VhdxHeader, checksum_is_right: Callable[[bytes], bool]) -> None:
        self._start, self._id = header.log_offset, header.log_id
        self._checksum_is_right = checksum_is_right
        data = read_up_to(source, header.log_offset, header.log_length)
        self._data = data[: len(data) // LOG_SECTOR * LOG_SECTOR]
        self._entries: dict[int, _Entry | None] = {}
        self._passed_over: Counter[str] = Counter()

    def active(self) -> list[_Entry]:
        """Entries of the active sequence, in order ([MS-VHDX] 2.3.2).

        Raises:
            CorruptImage: There is none.
        """
        best: list[_Entry] = []
        at = 0
        incomplete = 0
        while at < len(self._data):
            found = self._sequence(at)
            if not found:
                at += LOG_SECTOR
                continue
            head = found[-1].header
            # Where its tail is not in it, neither is it in a shorter one that begins later and ends in the same place.
            at += sum(entry.header.entry_length for entry in found)
            first = next((number for number, entry in enumerate(found) if entry.at == head.tail), None)
            if first is None:
                incomplete += 1
            elif not best or head.sequence_number > best[-1].header.sequence_number:
                best = found[first:]
        if best:
            return best
        looked = [f"{number} {why}" for why, number in self._passed_over.items()]
        if incomplete:
            looked.append(f"{incomplete} the last of a sequence whose first is missing")
        raise CorruptImage(
            "the disk was not closed, and its last changes can't be replayed: "
            f"the {len(self._data) // LOG_SECTOR} sectors of its log hold no valid sequence of entries "
            f"({', '.join(looked) or 'none begins as an entry does'})",
            structure=_STRUCTURE,
            offset=self._start,
        )

    def _sequence(self, at: int) -> list[_Entry]:
        """Entries from byte `at` of the log, each with the number after that of the one before it."""
        found: list[_Entry] = []
        entry = self._entry(at)
        while entry is not None and (not found or entry.header.sequence_number == found[-1].header.sequence_number + 1):
            found.append(entry)
            at = (at + entry.header.entry_length) % len(self._data)
            entry = self._entry(at)
        return found

    def _entry(self, at: int) -> _Entry | None:
        """The valid entry at byte `at` of the log; None without one."""
        if at not in self._entries:
            self._entries[at] = self._check(at)
        return self._entries[at]

    def _check(self, at: int) -> _Entry | None:
        if self._data[at : at + 4] != LOG_MAGIC:
            return None
        header = LogEntryHeader.parse(self._data, at, base=self._start)
        if header.log_id != self._id:
            self._passed_over["of another log"] += 1
            return None
        sectors = self._sectors(header, at)
        entry = None if sectors is None else _parts(header, at, sectors)
        if entry is None or sectors is None:
            self._passed_over["not complete"] += 1
        elif not self._checksum_is_right(b"".join(sectors)):
            self._passed_over["with a wrong checksum"] += 1
        else:
            return entry
        return None

    def _sectors(self, header: LogEntryHeader, at: int) -> list[bytes] | None:
        """Sectors of an entry, which may go on at the start of the log; None where these can't be all its own."""
        length = header.entry_length
        if not length or length % LOG_SECTOR or length > len(self._data) or not header.sequence_number:
            return None
        found: list[bytes] = []
        for place in range(at, at + length, LOG_SECTOR):
            within = place % len(self._data)
            sector = self._data[within : within + LOG_SECTOR]
            if found and sector[:4] == LOG_MAGIC:  # so each sector is in one entry at most, and is read once
                return None
            found.append(sector)
        return found


def _parts(header: LogEntryHeader, at: int, sectors: list[bytes]) -> _Entry | None:
    """An entry with its descriptors and data; None where they are not complete, or not of this entry."""
    count = -(-(_HEAD + header.descriptor_count) // _PER_SECTOR)
    if count > len(sectors):
        return None
    places = b"".join(sectors[:count])[LogEntryHeader.length() :]
    descriptors = tuple(LogDescriptor.parse_all(places[: header.descriptor_count * LogDescriptor.length()]))
    number = header.sequence_number
    data = sectors[count:]
    wanted = 0
    for each in descriptors:
        if each.magic not in (ZERO_MAGIC, DATA_MAGIC) or each.sequence_number != number:
            return None
        wanted += each.magic == DATA_MAGIC
    if wanted > len(data):
        return None
    for sector in data[:wanted]:
        parsed = LogDataSector.parse(sector)
        low = int.from_bytes(sector[-_TRAILING:], "little")
        if parsed.magic != DATA_SECTOR_MAGIC or parsed.sequence_high << 32 | low != number:
            return None
    return _Entry(header, at, descriptors, tuple(data[:wanted]))


class Replayed(Pieced):
    """A VHDX file as it is once its log is replayed."""

    def __init__(self, source: Source, header: VhdxHeader, entries: list[_Entry], problems: ProblemList) -> None:
        """Lay the changes of `entries` over `source`; see `replay`."""
        self._source = source
        self._header, self._problems = header, problems
        head = entries[-1].header
        if source.size < head.flushed_file_offset:
            raise TruncatedImage(
                "the file is shorter than when its log was written",
                structure=_STRUCTURE,
                offset=header.log_offset + entries[-1].at + 48,
                expected=f"at least {head.flushed_file_offset} bytes",
                found=f"{source.size}",
            )
        self._ends: list[int] = []
        self._changes: list[tuple[int, int, int | None]] = []
        """First byte, byte after the last, and place in `_pages` (None for zeros) of each change, in order."""
        pages: list[bytes] = []
        size = max(source.size, *(entry.header.last_file_offset for entry in entries))
        number = zeros = 0
        for entry in entries:
            data = iter(entry.data)
            for each in entry.descriptors:
                number += 1
                length, place = each.leading, None
                if each.magic == DATA_MAGIC:
                    length, place = LOG_SECTOR, len(pages) * LOG_SECTOR
                    middle = next(data)[_LEADING:-_TRAILING]
                    pages.append(each.leading.to_bytes(_LEADING, "little") + middle + each.trailing)
                else:
                    zeros += 1
                end = each.file_offset + length
                self._check_change(each, end, number, entry)
                size = max(size, end if place is not None else 0)
                self._change(each.file_offset, end, place)
        if size > _LARGEST_FILE:
            message = f"the file would have {size} bytes, more than {_LARGEST_FILE}"
            raise CorruptImage(message, structure=_STRUCTURE, offset=header.log_offset + entries[-1].at)
        if size > source.size:
            size = -(-size // _MIB) * _MIB
        self._size = size
        self._pages = BytesSource(b"".join(pages))
        first, last = entries[0].header.sequence_number, head.sequence_number
        self.fact = (
            f"replayed in memory, since the disk was not closed: entries {first} to {last}; "
            f"pages of data: {len(pages)}, ranges of zeros: {zeros}"
        )
        """Description of the replay in words."""

    @property
    def size(self) -> int:
        """Bytes of the file after the replay."""
        return self._size

    @property
    def _structure(self) -> str:
        return "VHDX file"

    def _check_change(self, change: LogDescriptor, end: int, number: int, entry: _Entry) -> None:
        """Refuse or report a change that a log has no reason for."""
        at = self._header.log_offset + entry.at
        if number > _MOST_CHANGES:
            raise CorruptImage(f"it has more than {_MOST_CHANGES} changes", structure=_STRUCTURE, offset=at)
        log = self._header.log_offset, self._header.log_offset + self._header.log_length
        if change.file_offset % LOG_SECTOR or end % LOG_SECTOR:
            message = f"a change at byte {change.file_offset:#x} of the file is not of whole pages"
            self._problems.note(_STRUCTURE, message, at)
        elif change.file_offset < _PROTECTED or (change.file_offset < log[1] and log[0] < end):
            message = f"a change at byte {change.file_offset:#x} of the file is in its headers or its log"
            self._problems.note(_STRUCTURE, message, at)

    def _change(self, start: int, end: int, place: int | None) -> None:
        """Lay a change over those made so far."""
        if start >= end:
            return
        changes = self._changes
        first = bisect.bisect_right(self._ends, start)
        last = first
        kept: list[tuple[int, int, int | None]] = [(start, end, place)]
        while last < len(changes) and changes[last][0] < end:
            was_start, was_end, was = changes[last]
            if was_start < start:
                kept.insert(0, (was_start, start, was))
            if was_end > end:
                kept.append((end, was_end, None if was is None else was + end - was_start))
            last += 1
        changes[first:last] = kept
        self._ends[first:last] = [each[1] for each in kept]

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """See `Pieced.pieces`."""
        stop = offset + length
        number = bisect.bisect_right(self._ends, offset)
        while offset < stop:
            start, end, place = self._changes[number] if number < len(self._changes) else (stop, stop, None)
            if offset < start:
                yield from self._unchanged(offset, min(start, stop))
            start, end = max(start, offset), min(end, stop)
            if start < end:
                skip = start - self._changes[number][0]
                yield (None, 0, end - start) if place is None else (self._pages, place + skip, end - start)
            offset = max(offset, end)
            number += 1

    def _unchanged(self, offset: int, end: int) -> Iterator[tuple[Source | None, int, int]]:
        """Pieces of a range that the log does not change: bytes of the file, and zeros behind its end."""
        there = min(end, self._source.size)
        if offset < there:
            yield self._source, offset, there - offset
        if there < end:
            yield None, 0, end - max(offset, there)
