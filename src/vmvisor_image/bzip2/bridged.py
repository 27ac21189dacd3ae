"""Damaged bzip2 data of known total size, with the healthy blocks behind the damage in their place.

The decoded size of a damaged block is unknown. Where the end of the data is known by other means, the healthy blocks
that reach to the end are placed by counting back from it, and only the data between is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.limits import Meter
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.bzip2.choose import make_engine
from vmvisor_image.bzip2.decode import Block
from vmvisor_image.bzip2.reader import HEALTHY_BEHIND, Bzip2Reader
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


@dataclass(frozen=True, slots=True)
class Rest:
    """The healthy blocks behind damage in bzip2 data."""

    blocks: tuple[_PlacedBlock, ...]
    """Blocks that follow one another to the last one, with offsets from the first byte of the first of them."""
    size: int
    """Number of decoded bytes of `blocks`."""
    reaches_end: bool
    """Whether the source ends behind the last of them."""
    all_blocks: int
    """Number of all healthy blocks behind the damage, also those before further damage."""
    all_bytes: int
    """Number of their decoded bytes."""


def find_rest(reader: Bzip2Reader, examine: Callable[[int, bytes], None] | None = None) -> Rest:
    """The healthy blocks behind the damage, each decoded once.

    Args:
        reader: Reader of the damaged data.
        examine: Called with each block's place in `Rest.blocks` and its data. Place 0 begins anew: what was examined
            before it lies between two damaged places.
    """
    blocks: list[_PlacedBlock] = []
    at = end = number = total = 0
    for block in reader.salvage():
        if block.start_bit - end > _BETWEEN_STREAMS:
            blocks.clear()  # damaged again: the blocks before it have no known place
            at = 0
        blocks.append(_PlacedBlock(block.start_bit, at, len(block.data)))
        if examine is not None:
            examine(at, block.data)
        at += len(block.data)
        end = block.end_bit
        number, total = number + 1, total + len(block.data)
        reader.meter.add(len(block.data))
        reader.meter.check()
    reaches_end = bool(blocks) and reader.source.size - -(-end // 8) <= _BETWEEN_STREAMS // 8
    return Rest(tuple(blocks), at, reaches_end, number, total)


class BridgedReader(Source):
    """The decoded data as a `ReadAt`, in which reading the lost part is an error; any number of threads may read."""

    def __init__(
        self,
        reader: Bzip2Reader,
        source: ReadAt,
        size: int,
        *,
        rest: Rest | None = None,
        placed_by: str = "the size of the disk",
    ) -> None:
        """Place the healthy blocks behind the damage in data of `size` bytes, which decodes all of them once.

        Args:
            reader: Reader of the data before the damage.
            source: The compressed data of `reader`.
            size: Number of all decoded bytes.
            rest: Blocks behind the damage, where they were found before.
            placed_by: Evidence for `size`, for the message of the problem.

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
        self._placed_by = placed_by
        self._rest = rest = rest or find_rest(reader)
        at = size - rest.size
        before = reader.healthy_size
        if not rest.reaches_end or at < before:
            raise CorruptImage(
                "what is behind the damage can't be placed in a disk of that size",
                structure="bzip2 data",
                offset=rest.blocks[0].start_bit // 8 if rest.blocks else None,
                expected=f"at most {size - before} bytes that reach to the end",
                found=f"{rest.size}",
            )
        self.lost = (before, at)
        """First lost byte, and the exclusive end of the lost bytes."""
        self._blocks = [dataclasses.replace(block, start=at + block.start) for block in rest.blocks]
        self._starts = [block.start for block in self._blocks]
        self._kept: LruCache[int, Block] = LruCache(_KEPT)

    @property
    def size(self) -> int:
        """Number of all decoded bytes."""
        return self._size

    @property
    def index_path(self) -> str | None:
        """See `Bzip2Reader.index_path`; the index ends before the damage."""
        return self._reader.index_path

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
        message = (
            f"bytes {start:#x} to {end:#x} (exclusive) of the disk are lost; what is behind, {_counted(self._rest)}, is"
            f" placed by {self._placed_by}"
        )
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
                offset=start,
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

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """See `Source.check_blocks`."""
        known = (("blocks", self._reader.stats.blocks_known), ("streams", self._reader.streams_known))
        rest = self._rest
        return (*known, (HEALTHY_BEHIND, rest.all_blocks), ("bytes behind the damage", rest.all_bytes))

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


class ZeroFilled(Source):
    """The data of a `BridgedReader` with zeros in the place of the lost bytes."""

    def __init__(self, reader: BridgedReader) -> None:
        self._reader = reader

    @property
    def size(self) -> int:
        """Number of all decoded bytes."""
        return self._reader.size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        end = offset + length
        if end > self.size:
            raise past_end("bzip2 data", offset, length, self.size)
        first, last = (min(max(place, offset), end) for place in self._reader.lost)
        before = self._reader.read_at(offset, first - offset) if first > offset else b""
        behind = self._reader.read_at(last, end - last) if last < end else b""
        return b"".join((before, bytes(last - first), behind))

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        self._reader.prefetch(offset, length)


def _counted(rest: Rest) -> str:
    """Number of the healthy blocks that were placed, and of those that have no place."""
    left = rest.all_blocks - len(rest.blocks)
    blocks = f"{len(rest.blocks)} healthy block{'' if len(rest.blocks) == 1 else 's'}"
    return blocks if not left else f"{blocks} ({left} more before further damage have no known place)"
