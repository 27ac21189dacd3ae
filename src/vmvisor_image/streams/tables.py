"""Tables of virtual disks: their numbers, and entries by which the holes of a whole chain are found at once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, Literal

from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

_PAGE: Final = 1 << 14
_MOST_PAGES: Final = 256
"""Pages of tables that are kept: 4 MiB."""
_BITMAP_STEP: Final = 512
"""Bytes of a bitmap in which the end of equal bits is looked for."""
_MOST_PART_BYTES: Final = 1 << 22
"""Bytes of entries that are kept; those of one disk are mostly the pages themselves."""
_NOT_KNOWN: Final = b"\0"
"""Part whose entries have to be looked at one by one: too short for any of them."""


class Tables:
    """Reader of numbers in tables of any size; it keeps the pages that were used last."""

    def __init__(self, kind: str, source: ReadAt, byte_order: Literal["little", "big"]) -> None:
        """Read numbers of `source`; `kind` is the format's name, for messages."""
        self._kind = kind
        self._source = source
        self._byte_order: Literal["little", "big"] = byte_order
        self._pages: LruCache[int, bytes] = LruCache(_MOST_PAGES)
        self._last: tuple[int, bytes] = (-1, b"")
        """Page that was used last, which is found without the lock of the cache."""

    def number(self, offset: int, width: int, table: str) -> int:
        """Number of `width` bytes at `offset`, which is a multiple of `width`.

        Raises:
            CorruptImage: The source ends before the end of the number.
        """
        page, within = divmod(offset, _PAGE)
        data = self._page(page)[within : within + width]
        if len(data) < width:
            raise CorruptImage(
                "it lies past the end of the source", structure=f"{self._kind} {table}", offset=offset, field="entry"
            )
        return int.from_bytes(data, self._byte_order)

    def rising(self, offset: int, step: int, most: int, width: Literal[4, 8] = 8) -> int:
        """Number of numbers of `width` bytes from `offset`, at most `most`, that rise by `step` from one to the next.

        The first one is there. Those behind the end of a page of the tables are not counted.
        """
        page, within = divmod(offset, _PAGE)
        return count_rising(self._page(page)[within : within + width * most], step, width, self._byte_order)

    def data(self, offset: int, length: int) -> bytes:
        """Bytes of tables from `offset`; fewer than `length` only where the source ends."""
        page, within = divmod(offset, _PAGE)
        found = self._page(page)[within : within + length]
        while len(found) < length and (more := self._page(page := page + 1)[: length - len(found)]):
            found += more
        return found

    def same_bits(self, offset: int, bit: int, most: int, table: str, *, high_first: bool) -> tuple[bool, int]:
        """A bit of a bitmap, and the number of bits from it that are like it, at most `most`.

        Bits behind the end of a page of the tables, or behind some hundred bytes, are not counted.

        Args:
            offset: Byte of the source that has the bit.
            bit: Number of the bit in that byte, from 0.
            most: Largest number of bits that are counted, at least 1.
            table: Name of the bitmap, for messages.
            high_first: Whether bit 0 of a byte is its highest bit.

        Raises:
            CorruptImage: The source ends before that byte.
        """
        self.number(offset, 1, table)
        page, within = divmod(offset, _PAGE)
        data = self._page(page)[within : within + min(-(-(bit + most) // 8), _BITMAP_STEP)]
        there = 8 * len(data) - bit
        if high_first:
            value = int.from_bytes(data, "big") & ((1 << there) - 1)
            is_set = bool(value >> there - 1)
            other = value ^ ((1 << there) - 1) if is_set else value
            count = there - other.bit_length()
        else:
            value = int.from_bytes(data, "little") >> bit
            is_set = bool(value & 1)
            other = value ^ ((1 << there) - 1) if is_set else value
            count = (other & -other).bit_length() - 1 if other else there
        return is_set, min(count, most)

    def zeros(self, offset: int, most: int = _PAGE) -> int:
        """Number of zero bytes from `offset` to the first that is not, at most `most` of them, in a page of tables."""
        page, within = divmod(offset, _PAGE)
        rest = self._page(page)[within : within + most]
        return len(rest) - len(rest.lstrip(b"\0"))

    def _page(self, number: int) -> bytes:
        last, page = self._last
        if last == number:
            return page
        kept = self._pages.get(number)
        if kept is not None:
            self._last = number, kept
            return kept
        page = read_up_to(self._source, number * _PAGE, _PAGE)
        self._pages.put(number, page)
        self._last = number, page
        return page


def count_rising(data: bytes, step: int, width: Literal[4, 8], byte_order: Literal["little", "big"]) -> int:
    """Number of numbers at the start of `data`, each of `width` bytes, that rise by `step`; at least 1."""
    count = len(data) // width
    if count < 2:
        return 1
    order, code = "<" if byte_order == "little" else ">", "I" if width == 4 else "Q"
    numbers = struct.unpack_from(f"{order}{count}{code}", data)
    first = numbers[0]
    if numbers[1] != first + step:
        return 1
    if not step:
        return next((at for at, number in enumerate(numbers) if number != first), count)
    if numbers[-1] == first + step * (count - 1) and numbers == tuple(range(first, numbers[-1] + 1, step)):
        return count
    return next(at for at, number in enumerate(numbers) if number != first + step * at)


class EntryTable:
    """Entries of a disk, one for each unit of its bytes, in parts of equal length; an entry of zeros is a hole.

    With several columns, each entry consists of those of several disks, the uppermost first: see `join_entries`.
    """

    __slots__ = ("_most", "_read", "columns", "parts", "shape")

    def __init__(
        self, per_part: int, unit: int, width: int, read: Callable[[int], bytes | None], columns: int = 1
    ) -> None:
        """Keep parts of the entries.

        Args:
            per_part: Number of entries of a part, at least 1.
            unit: Bytes of the disk for each entry.
            width: Bytes of an entry, with all its columns.
            read: Function that gives the entries of a part by its number; none where all of them are holes, and None
                where they can't be read, or have to be looked at one by one for another reason.
            columns: Number of columns.
        """
        self.shape = per_part, unit, width
        """Number of entries of a part, bytes of the disk for each of them, and bytes of an entry."""
        self.columns = columns
        """Number of disks whose entries they are."""
        self._read = read
        self.parts: dict[int, bytes] = {}
        """Parts that are kept, by number; see `part`."""
        self._most = max(1, _MOST_PART_BYTES // (per_part * width))

    def part(self, number: int) -> bytes:
        """Entries of a part; none where all of them are holes, and too few where they have to be looked at one by one.

        Where the source ends before the part does, they are those that are there as a whole.
        """
        data = self.parts.get(number)
        if data is None:
            data, width = self._read(number), self.shape[2]
            if data is None or 0 < len(data) < width:
                data = _NOT_KNOWN
            elif len(data) % width:  # a part of an entry would be another one
                data = data[: len(data) // width * width]
            if len(self.parts) >= self._most:
                self.parts.clear()
            self.parts[number] = data
        return data

    def is_known(self, number: int) -> bool:
        """Whether the entries of a part need not be looked at one by one."""
        return self.part(number) is not _NOT_KNOWN

    def first(self, offset: int, end: int) -> tuple[int, int]:
        """First column that has something for the byte at `offset`, and the byte up to which those before have not.

        Where no column has, that is the number of columns. What is looked at are the entries up to the byte `end`.
        """
        per_part, unit, width = self.shape
        number, index = divmod(offset // unit, per_part)
        data = self.parts.get(number)
        if data is None:
            data = self.part(number)
        if not data:
            return self.columns, (number + 1) * per_part * unit
        at, begin = index * width, offset - offset % unit
        there = data[at : at + -((begin - end) // unit) * width]
        zeros = len(there) - len(there.lstrip(b"\0"))
        if zeros >= width:
            return self.columns, begin + zeros // width * unit
        column = width // self.columns
        if zeros < column:
            return 0, begin - (begin - end) // unit * unit
        nothing, to = bytes(zeros // column * column), width
        while to < len(there) and there.startswith(nothing, to):
            to += width
        return zeros // column, begin + to // width * unit


def _as_numbers(data: bytes | bytearray, width: int) -> memoryview[int]:
    """Entries as numbers of 4 or 8 bytes, in any order of bytes; those of 16 bytes as two."""
    return memoryview(data).cast("I") if width == 4 else memoryview(data).cast("Q")


def join_entries(tables: Sequence[EntryTable]) -> EntryTable | None:
    """Entries of several tables of the same shape as one table with a column for each; None without a table.

    So one look shows which of them is the first that has something for a unit, however many there are.
    """
    if len(tables) < 2:
        return tables[0] if tables else None
    per_part, unit, width = tables[0].shape
    words = max(1, width // 8)

    def read(number: int) -> bytes | None:
        parts = [table.part(number) for table in tables]
        if not any(parts):
            return b""
        joined = bytearray(len(parts) * per_part * width)
        into = _as_numbers(joined, width)
        for place, part in enumerate(parts):
            if part:  # what is not there has to be looked at by itself, so it must not be zeros
                whole = _as_numbers(part[: len(part) // width * width].ljust(per_part * width, b"\xff"), width)
                for word in range(words):
                    into[place * words + word :: len(parts) * words] = whole[word::words]
        return bytes(joined)

    return EntryTable(per_part, unit, len(tables) * width, read, len(tables))
