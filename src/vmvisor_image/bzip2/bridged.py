"""Damaged bzip2 data with what is behind the damage in its place, where the size of the whole is known otherwise.

The decoded size of a damaged block is not known, but where the data should end is: a disk ends with its last partition.
Counted back from there, the healthy blocks that reach to the end have their place, and only what is between is lost.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.limits import Meter
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.bzip2.choose import make_engine
from vmvisor_image.bzip2.decode import Block
from vmvisor_image.bzip2.reader import Bzip2Reader
from vmvisor_image.bzip2.salvage import decode_at
from vmvisor_image.errors import CorruptImage, InvalidArgument, Problem
from vmvisor_image.streams.reading import prefetch, skip_zeros
from vmvisor_image.streams.source import ReadAt, Source, check_range, past_end

_BETWEEN_STREAMS: Final = 8 * 14 + 7
"""Bits between two blocks that follow each other, at most: the end of a stream (10 bytes), padding, a header (4)."""
_KEPT: Final = 8
"""Decoded blocks that are kept."""


@dataclass(frozen=True, slots=True)
class _PlacedBlock:
    """A healthy block behind the damage."""

    start_bit: int
    """Where its magic starts, in bits from the start of the compressed source."""
    start: int
    """First byte in the decoded data."""
    size: int
    """Decoded bytes."""


class BridgedReader(Source):
    """The decoded data as a `ReadAt`, in which the lost part is an error; any number of threads may read."""

    def __init__(self, reader: Bzip2Reader, source: ReadAt, size: int) -> None:
        """Place what is behind the damage in data of `size` bytes; decodes all of it once.

        Args:
            reader: Reads the data before the damage.
            source: The compressed data that it reads.
            size: Decoded bytes in all.

        Raises:
            InvalidArgument: The data is not damaged.
            CorruptImage: Nothing healthy reaches to the end, or there is more than fits behind what is before.
        """
        with contextlib.suppress(CorruptImage):
            _ = reader.size
            raise InvalidArgument("the data is not damaged")
        self._reader, self._source = reader, source
        self._engine = make_engine()
        self._size = size
        found: list[tuple[int, int, int]] = []
        end = 0
        for block in reader.salvage():
            if block.start_bit - end > _BETWEEN_STREAMS:
                found.clear()  # damaged again: what was before has no place
            found.append((block.start_bit, block.end_bit, len(block.data)))
            end = block.end_bit
            self.meter.add(len(block.data))
            self.meter.check()
        at = size - sum(length for _, _, length in found)
        before = reader.healthy_size
        if not found or at < before or source.size - -(-end // 8) > _BETWEEN_STREAMS // 8:
            raise CorruptImage(
                "what is behind the damage can't be placed in a disk of that size",
                structure="bzip2 data",
                offset=found[0][0] // 8 if found else None,
                expected=f"at most {size - before} bytes that reach to the end",
                found=f"{size - at}",
            )
        self.lost = (before, at)
        """First byte that is lost, and the first one behind."""
        self._blocks: list[_PlacedBlock] = []
        for start_bit, _, length in found:
            self._blocks.append(_PlacedBlock(start_bit, at, length))
            at += length
        self._starts = [block.start for block in self._blocks]
        self._kept: LruCache[int, Block] = LruCache(_KEPT)

    @property
    def size(self) -> int:
        """Decoded bytes in all."""
        return self._size

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._reader.meter

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is damaged, and what is lost by it."""
        start, end = self.lost
        if start == end:
            return self._reader.problems
        message = f"bytes {start:#x} to {end:#x} (exclusive) of the disk are lost; what is behind is placed by its end"
        return (*self._reader.problems, Problem("bzip2 data", message, start))

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: The range touches what is lost.
        """
        check_range(offset, length)
        if offset + length > self._size:
            raise past_end("bzip2 data", offset, length, self._size)
        start, end = self.lost
        if max(offset, start) < min(offset + length, end):
            raise CorruptImage(
                f"bytes {start:#x} to {end:#x} (exclusive) are lost in damaged blocks",
                structure="bzip2 data",
                offset=max(offset, start),
            )
        found = []
        if offset < start:
            found.append(self._reader.read_at(offset, min(length, start - offset)))
            offset, length = offset + len(found[0]), length - len(found[0])
        number = bisect_right(self._starts, offset) - 1
        while length:
            placed = self._blocks[number]
            pieces = self._block(number).read(offset - placed.start, length)
            found += pieces
            taken = sum(map(len, pieces))
            offset, length, number = offset + taken, length - taken, number + 1
        return found[0] if len(found) == 1 else b"".join(found)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`; behind the damage nothing is known."""
        return skip_zeros(self._reader, offset, min(end, self.lost[0]))

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        prefetch(self._reader, offset, min(length, self.lost[0] - offset))

    def close(self) -> None:
        """Close the reader of what is before."""
        self._reader.close()

    def _block(self, number: int) -> Block:
        known = self._kept.get(number)
        if known is not None:
            return known
        self.meter.check()
        placed = self._blocks[number]
        found = decode_at(self._engine, self._source, placed.start_bit)
        if found is None or found.block.size != placed.size:
            raise CorruptImage(
                "it is not what it was when it was first read", structure="bzip2 block", offset=placed.start_bit // 8
            )
        self.meter.add(placed.size)
        self._kept.put(number, found.block)
        return found.block
