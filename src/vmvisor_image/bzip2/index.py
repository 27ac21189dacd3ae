"""Index of the blocks: the bits of the compressed source, and the bytes to which they decode."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

BLOCK_UNIT: Final = 100_000
"""Number of symbols in a block of level 1 before its runs are expanded."""


def largest_size(level: int) -> int:
    """Largest number of bytes to which a block of that level decodes.

    Four equal bytes and a count of up to 255 more are a run: 259 bytes in 5 symbols. libbz2's compressor ends runs at
    255 bytes, 7-Zip's does not, and every decoder accepts both.
    """
    return level * BLOCK_UNIT // 5 * 259


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """One block whose place in the decoded data is known."""

    start_bit: int
    """First bit of its magic, from the start of the compressed source."""
    end_bit: int
    """Exclusive end of the block, which is the first bit of the next magic."""
    level: int
    """Block size of its stream, in units of 100,000 bytes."""
    start: int
    """First byte of the block, from the start of the decoded data."""
    size: int
    """Decoded length in bytes."""
    crc: int
    """CRC of the decoded bytes, from the block's header."""
    is_zero: bool = False
    """Whether all decoded bytes are zeros."""


@dataclass(frozen=True, slots=True)
class Place:
    """Place where the chain of blocks continues, with everything needed from the blocks before it."""

    bit: int
    """First bit of the next block's magic."""
    level: int
    """Block size of its stream, in units of 100,000 bytes."""
    start: int
    """Number of decoded bytes before that block."""
    crc: int
    """Combined CRC of the blocks before it in the same stream."""


class BlockIndex:
    """The blocks known so far, in order and without gaps from the decoded data's start.

    One thread may append while others look up: a block appears whole or not at all.
    """

    def __init__(self, entries: Iterable[BlockEntry] = ()) -> None:
        self._entries = list(entries)

    def append(self, entry: BlockEntry) -> None:
        """Add the next block, which must start at the end of the last one; a block that is already known is ignored."""
        if entry.start == self.end:
            self._entries.append(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> BlockEntry:
        return self._entries[number]

    @property
    def end(self) -> int:
        """Number of decoded bytes in the known blocks."""
        if not self._entries:
            return 0
        last = self._entries[-1]
        return last.start + last.size

    def find(self, offset: int) -> int:
        """Number of the block that holds decoded byte `offset`, which must be below `end`."""
        return bisect_right(self._entries, offset, key=lambda entry: entry.start) - 1
