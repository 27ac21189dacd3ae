"""Recovery of the healthy blocks behind a damaged one, each by itself.

The decoded size of a damaged block is unknown, and so is the place of the blocks after it in the decoded data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmvisor_image.bzip2.decode import DamagedBlock
from vmvisor_image.bzip2.engines import Decoded, Engine
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, MagicScanner
from vmvisor_image.bzip2.walk import decode_slowly
from vmvisor_image.errors import TruncatedImage
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


def salvage(engine: Engine, source: ReadAt, bit: int) -> Iterator[SalvagedBlock]:
    """Healthy blocks whose magic starts after `bit`, in order."""
    scanner = MagicScanner(source, BLOCK_MAGIC, bit, engine.find_magic)
    while (start := scanner.after(bit)) is not None:
        bit = start
        scanner.forget(start)
        found = decode_at(engine, source, start)
        if found is not None:
            data = b"".join(found.block.read(0, found.block.size))
            yield SalvagedBlock(start, found.end_bit, data)
            bit = found.end_bit - 1


def decode_at(engine: Engine, source: ReadAt, start: int) -> Decoded | None:
    """Block whose magic starts at bit `start`; None if it is not healthy."""
    try:
        return decode_slowly(engine, source, start, _LARGEST_LEVEL)
    except (DamagedBlock, TruncatedImage):
        return None
