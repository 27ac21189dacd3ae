"""What is where: which bits of the compressed source decode to which bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

BLOCK_UNIT: Final = 100_000
"""Symbols that a block of level 1 holds before its runs are expanded."""


def largest_size(level: int) -> int:
    """Bytes that a block of that level decodes to at most.

    Four equal bytes and a count of up to 255 more are a run: 259 bytes in 5 symbols. libbz2's compressor ends runs at
    255 bytes, 7-Zip's does not, and every decoder takes both.
    """
    return level * BLOCK_UNIT // 5 * 259


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """One block whose place in the decoded data is known."""

    start_bit: int
    """Where its magic starts, in bits from the start of the compressed source."""
    end_bit: int
    """Where the next magic starts, exclusive end of the block."""
    level: int
    """Block size of its stream, in units of 100,000 bytes."""
    start: int
    """Its first byte, in bytes from the start of the decoded data."""
    size: int
    """Its decoded length in bytes."""
    crc: int
    """CRC of its decoded bytes, as its header has it."""
    is_zero: bool = False
    """Whether all its bytes are zeros."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the chain of blocks goes on: all that needs to be known of what was passed."""

    bit: int
    """Where the next block's magic starts."""
    level: int
    """Block size of its stream, in units of 100,000 bytes."""
    start: int
    """Decoded bytes before that block."""
    crc: int
    """Combined CRC of its stream's blocks before it."""


class BlockIndex:
    """The blocks known so far, in order and without gaps from the decoded data's start.

    One thread may append while others look up: a block appears whole or not at all.
    """

    def __init__(self, entries: Iterable[BlockEntry] = ()) -> None:
        self._entries = list(entries)

    def append(self, entry: BlockEntry) -> None:
        """Add the next block, which starts where the last one ended; one that is known already changes nothing."""
        if entry.start == self.end:
            self._entries.append(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> BlockEntry:
        return self._entries[number]

    @property
    def end(self) -> int:
        """Decoded bytes that the known blocks cover."""
        if not self._entries:
            return 0
        last = self._entries[-1]
        return last.start + last.size

    def find(self, offset: int) -> int:
        """Number of the block that holds decoded byte `offset`, which must be below `end`."""
        return bisect_right(self._entries, offset, key=lambda entry: entry.start) - 1
