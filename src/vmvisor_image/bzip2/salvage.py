"""Recovery of the healthy blocks behind a damaged one, each by itself.

The decoded size of a damaged block is unknown, and so is the place of the blocks after it in the decoded data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmvisor_image.bzip2.decode import Block, DamagedBlock, decode_block
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, MAGIC_BITS, MagicScanner
from vmvisor_image.bzip2.walk import find_end, find_unfollowed
from vmvisor_image.errors import TruncatedImage
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

_LARGEST_LEVEL = 9
"""Level with which blocks of every level decode, since it only bounds their size."""


@dataclass(frozen=True, slots=True)
class SalvagedBlock:
    """A healthy block whose place in the decoded data is unknown."""

    start_bit: int
    """First bit of its magic, from the start of the compressed source."""
    end_bit: int
    """Exclusive end in bits; rounded up to a byte where no magic follows the block."""
    data: bytes
    """Decoded bytes, whose CRC matched; at most 46 MB."""


def salvage(source: ReadAt, bit: int) -> Iterator[SalvagedBlock]:
    """The healthy blocks whose magic starts after `bit`, in order."""
    scanner = MagicScanner(source, BLOCK_MAGIC, bit)
    while (start := scanner.after(bit)) is not None:
        bit = start
        scanner.forget(start)
        found = decode_at(source, start)
        if found is not None:
            block, end = found
            yield SalvagedBlock(start, end, b"".join(block.read(0, block.size)))
            bit = end - 1


def decode_at(source: ReadAt, start: int) -> tuple[Block, int] | None:
    """The block whose magic starts at bit `start`, and its exclusive end in bits; None where it is not healthy."""
    first = start // 8
    try:
        end = find_end(source, start, _LARGEST_LEVEL)
        data = read_up_to(source, first, (end + MAGIC_BITS + 7) // 8 - first)
        block = decode_block(data, start - first * 8, end - first * 8, _LARGEST_LEVEL)
        assert block is not None, "it was found to end there"
    except (DamagedBlock, TruncatedImage):
        return find_unfollowed(source, start, _LARGEST_LEVEL)
    return block, end
