"""Decoding of single blocks by one of two engines: the Rust core where it is there, else libbz2.

Both take the same blocks and give the same bytes. The core is several times as fast, and knows where a block ends;
libbz2, which comes with Python, decodes what is handed on to it as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from vmvisor_image.bzip2.decode import Block
from vmvisor_image.errors import DependencyMissing, InvalidArgument

EngineName = Literal["rust", "libbz2"]

VARIABLE: Final = "VMVISOR_BZIP2_ENGINE"
"""The environment variable that forces an engine, by its name."""


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


def make_engine() -> Engine:
    """An engine with memory of its own: the Rust core where it is there, or what the environment says.

    Raises:
        DependencyMissing: The environment says "rust", and the core is not there.
        InvalidArgument: The environment names no engine.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", "rust", "libbz2"):
        raise InvalidArgument(f"{VARIABLE} must be rust or libbz2, not {forced!r}")
    if forced != "libbz2":
        try:
            from vmvisor_image.bzip2.rust import RustEngine
        except ImportError as error:
            if forced:
                raise DependencyMissing(f"{VARIABLE}=rust: the Rust core can't be loaded ({error})") from error
        else:
            return RustEngine()
    from vmvisor_image.bzip2.libbz2 import Libbz2Engine

    return Libbz2Engine()


def engine() -> EngineName:
    """Name of the engine that decodes what is opened now: "rust" or "libbz2".

    The environment variable `VMVISOR_BZIP2_ENGINE` forces either.

    Raises:
        DependencyMissing: The environment says "rust", and the core is not there.
        InvalidArgument: The environment names no engine.
    """
    return make_engine().name
