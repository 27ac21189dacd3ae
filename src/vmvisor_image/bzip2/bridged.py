"""Damaged bzip2 data of known total size, with the healthy blocks behind the damage in their place.

The decoded size of a damaged block is unknown, but the end of the data is known: a disk ends with its last partition.
The healthy blocks that reach to the end are placed by counting back from it, and only the data between is lost.
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
"""Largest number of bits between successive blocks: the end of a stream (10 bytes), padding, and a header (4 bytes)."""
_KEPT: Final = 8
"""Number of decoded blocks that are kept."""


@dataclass(frozen=True, slots=True)
class _PlacedBlock:
    """A healthy block behind the damage."""

    start_bit: int
    """First bit of its magic, from the start of the compressed source."""
    start: int
    """First byte in the decoded data."""
    size: int
    """Number of decoded bytes."""


class BridgedReader(Source):
    """The decoded data as a `ReadAt`, in which reading the lost part is an error; any number of threads may read."""

    def __init__(self, reader: Bzip2Reader, source: ReadAt, size: int) -> None:
        """Place the healthy blocks behind the damage in data of `size` bytes, which decodes all of them once.

        Args:
            reader: Reader of the data before the damage.
            source: The compressed data of `reader`.
            size: Number of all decoded bytes.

        Raises:
            InvalidArgument: The data is not damaged.
            CorruptImage: No healthy blocks reach to the end, or they are larger than the space behind the damage.
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
                found.clear()  # damaged again: the blocks before it have no known place
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
        """First lost byte, and the exclusive end of the lost bytes."""
        self._blocks: list[_PlacedBlock] = []
        for start_bit, _, length in found:
            self._blocks.append(_PlacedBlock(start_bit, at, length))
            at += length
        self._starts = [block.start for block in self._blocks]
        self._kept: LruCache[int, Block] = LruCache(_KEPT)

    @property
    def size(self) -> int:
        """Number of all decoded bytes."""
        return self._size

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._reader.meter

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage in the data, and the range of bytes lost by it."""
        start, end = self.lost
        if start == end:
            return self._reader.problems
        message = f"bytes {start:#x} to {end:#x} (exclusive) of the disk are lost; what is behind is placed by its end"
        return (*self._reader.problems, Problem("bzip2 data", message, start))

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: The range overlaps the lost bytes.
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
        """See `Source.skip_zeros`; zeros behind the damage are not skipped."""
        return skip_zeros(self._reader, offset, min(end, self.lost[0]))

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        prefetch(self._reader, offset, min(length, self.lost[0] - offset))

    def close(self) -> None:
        """Close the reader of the data before the damage."""
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
