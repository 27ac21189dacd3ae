"""Engines: decoders of single blocks.

There are two: the Rust core (`rust`) and the standard library's libbz2. Both take the same blocks and give the same
bytes. The core is several times as fast, and knows where a block ends; libbz2 also decodes what is handed on to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from vmvisor_image.bzip2.decode import Block

EngineName = Literal["rust", "libbz2"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded block and where it ends."""

    block: Block
    end_bit: int
    """The bit after its last one; rounded up to a byte where no magic follows."""
    crc: int
    """CRC of its bytes, which is what its header says."""
    is_followed: bool
    """Whether another block or the end of the stream follows."""


class Engine(Protocol):
    """A decoder of single blocks; any number of threads may use one."""

    name: EngineName
    is_quick: bool
    """Whether a block takes little more time to decode than to compress with zstd."""

    def decode(self, data: bytes, start_bit: int, end_bit: int, level: int) -> Decoded | None:
        """Decode the block from `start_bit` to what is taken for its end.

        Args:
            data: Compressed bytes that hold the block and the 48 bits after it.
            start_bit: Where its magic starts, in bits from the start of `data`.
            end_bit: Where the next magic starts.
            level: The stream's block size in units of 100,000 bytes, 1-9.

        Returns:
            The block; None when it ends behind `end_bit`, or before it and the engine can't tell where.

        Raises:
            DamagedBlock: The block is damaged.
        """
        ...

    def decode_open(self, data: bytes, start_bit: int, level: int) -> Decoded | None:
        """Decode the block at `start_bit`, wherever it ends; None when `data` ends within it.

        Raises:
            DamagedBlock: The block is damaged.
        """
        ...

    def find_magic(self, data: bytes, magic: int, starts: int) -> list[int]:
        """Bit positions, ascending, at which `magic` occurs in `data`, starting within its first `starts` bytes."""
        ...
