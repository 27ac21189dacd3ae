"""Sparse files in tar archives, stored without holes: GNU's old format, and 0.0, 0.1 and 1.0 of GNU's pax formats.

Source: GNU tar manual, "Storing Sparse Files", and "Basic Tar Format" for the old format. In all of them a table lists
the pieces of the file, which the archive stores one after the other.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.tar import BLOCK
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import read_healthy
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import Pieced

MOST_ENTRIES: Final = 1 << 20
"""Largest number of entries in the tables of all sparse files of an archive together."""
_MOST_BYTES: Final = (1 << 63) - 1
"""Largest size of a file in bytes: POSIX's off_t."""
_FEED: Final = 1 << 16
_NUMBER: Final = re.compile(rb"[0-9]{1,20}")


class SparseTable:
    """The pieces of a sparse file, each of which takes 24 bytes of memory."""

    def __init__(self, size: int, pieces: Iterable[tuple[int, int]], *, most: int) -> None:
        """Take the pieces of a file of `size` bytes.

        Args:
            size: Size of the file, in bytes.
            pieces: Offset in the file and length of each piece, in bytes, in order.
            most: Largest number of entries that are read.

        Raises:
            CorruptImage: The pieces are not in order, pass the file's end, or are too many.
        """
        self.size = size
        """Bytes of the file."""
        self.offsets, self.places, self.lengths = array("Q"), array("Q"), array("Q")
        self.stored = 0
        """Number of bytes of all pieces together; `places` has each piece's first byte within these."""
        self.entries = 0
        """Number of pieces, including empty ones."""
        end = 0
        for offset, length in pieces:
            self.entries += 1
            if self.entries > most:
                message = f"the tables of sparse files have more than {MOST_ENTRIES} entries, and it is left out"
                raise CorruptImage(message, structure="tar header")
            if not length:
                continue
            if offset < end:
                raise CorruptImage("its table of a sparse file is not in order", structure="tar header")
            end = offset + length
            if end > min(size, _MOST_BYTES):
                raise CorruptImage("its table of a sparse file passes its end", structure="tar header")
            self.offsets.append(offset)
            self.places.append(self.stored)
            self.lengths.append(length)
            self.stored += length

    def first_behind(self, offset: int) -> int:
        """Index of the first piece that ends behind byte `offset` of the file."""
        number = max(0, bisect_right(self.offsets, offset) - 1)
        is_before = number < len(self.offsets) and self.offsets[number] + self.lengths[number] <= offset
        return number + 1 if is_before else number


class SparseMember(Pieced):
    """A sparse file in a tar, whose holes are not stored in the archive."""

    size: int = 0
    """Bytes of the file."""
    _structure = "sparse member"

    def __init__(self, source: ReadAt, start: int, table: SparseTable) -> None:
        """Take the pieces, which are stored one after the other from byte `start` of `source` on."""
        self._source = as_source(source)
        self._start = start
        self._table = table
        self.size = table.size

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """See `Pieced.pieces`."""
        table, end = self._table, offset + length
        number = table.first_behind(offset)
        while offset < end:
            at = table.offsets[number] if number < len(table.offsets) else end
            if offset < at:
                hole = min(at, end) - offset
                yield None, 0, hole
                offset += hole
            else:
                count = min(at + table.lengths[number], end) - offset
                yield self._source, self._start + table.places[number] + offset - at, count
                offset += count
                number += 1


def pairs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Offset and length of each piece, from numbers in which they alternate.

    Raises:
        CorruptImage: The last length is missing.
    """
    each = iter(numbers)
    for offset in each:
        length = next(each, None)
        if length is None:
            raise CorruptImage("its table of a sparse file ends within an entry", structure="tar header")
        yield offset, length


def read_number(raw: bytes) -> int:
    """A decimal number in a table.

    Raises:
        CorruptImage: `raw` is not a decimal number of at most 20 digits.
    """
    if not _NUMBER.fullmatch(raw):
        raise CorruptImage(f"its table of a sparse file has {raw[:24]!r} for a number", structure="tar header")
    return int(raw)


class TableInData:
    """Table of format 1.0, in the data before the first piece: one number in each line, the number of pieces first."""

    def __init__(self, source: ReadAt, start: int, end: int) -> None:
        """Take the first byte of the data, and its exclusive end, from the archive's start."""
        self._source = source
        self._start, self._end = start, end
        self._length = 0
        """Number of bytes of the table read so far."""

    def numbers(self) -> Iterator[int]:
        """Offset and length of each piece, alternately.

        Raises:
            CorruptImage: The table is damaged.
        """
        lines = self._lines()
        for _ in range(2 * read_number(next(lines))):
            yield read_number(next(lines))

    @property
    def pieces_start(self) -> int:
        """First byte of the first piece, known once all numbers were read: the table is padded to whole blocks."""
        return self._start + -(-self._length // BLOCK) * BLOCK

    def _lines(self) -> Iterator[bytes]:
        at, rest = self._start, b""
        while data := read_healthy(self._source, at, min(_FEED, self._end - at)):
            at += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._length += len(line) + 1
                yield line
            if len(rest) > _FEED:
                break
        raise CorruptImage("its table of a sparse file has no end", structure="tar header", offset=self._start)
