"""Damaged and tricky bzip2 files, for the tests and for the table in the docs (`tools/tricky_table.py`)."""

from __future__ import annotations

import bz2
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.test_bzip2_forge import (
    EMPTY_STREAM,
    ForgedBlock,
    embedded,
    false_magics,
    real_block,
    stream,
    to_bits,
    to_bytes,
)


@dataclass(frozen=True)
class TrickyFile:
    name: str
    compressed: bytes
    data: bytes
    """What can be had of it."""
    is_whole: bool
    """Nothing is missing or damaged; garbage may follow."""


def _joined(blocks: list[ForgedBlock]) -> bytes:
    return b"".join(block.data for block in blocks)


def _flipped(compressed: bytes, bit: int) -> bytes:
    changed = bytearray(compressed)
    changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)


NOISE = random.Random(9)
BLOCKS = [real_block(NOISE.randbytes(2000)) for _ in range(3)]
WHOLE, DATA = stream(BLOCKS), _joined(BLOCKS)


def tricky_files() -> Iterator[TrickyFile]:
    for name, compressed, data in _whole_files():
        yield TrickyFile(name, compressed, data, True)
    for name, compressed, data in _damaged_files():
        yield TrickyFile(name, compressed, data, False)


def _whole_files() -> Iterator[tuple[str, bytes, bytes]]:
    one, two, _ = BLOCKS
    yield "three blocks", WHOLE, DATA
    yield "two streams", WHOLE + stream([one]), DATA + one.data
    yield "an empty stream", EMPTY_STREAM, b""
    yield "empty streams before, between and after", EMPTY_STREAM.join([b"", WHOLE, WHOLE, b""]), DATA * 2
    mixed = [random.Random(level).randbytes(150_000) for level in range(1, 10)]
    yield (
        "streams of levels 1 to 9",
        b"".join(bz2.compress(piece, level) for level, piece in enumerate(mixed, 1)),
        b"".join(mixed),
    )
    yield "a block of 46 MB of zeros", bz2.compress(bytes(45_900_000)), bytes(45_900_000)
    for kind in ("block", "end"):
        false = false_magics(kind, 3, 3)
        yield f"false {kind} magics in the first block", stream([false, one]), false.data + one.data
        yield f"false {kind} magics in the last block", stream([one, false]), one.data + false.data
        yield f"false {kind} magics in the only block", stream([false]), false.data
    inner = embedded(stream([real_block(b"false")]))
    yield "a whole file within a block", stream([inner, two]), inner.data + two.data
    yield "zeros after the end", WHOLE + bytes(5000), DATA
    yield "garbage after the end", WHOLE + b"garbage" * 20, DATA


def _damaged_files() -> Iterator[tuple[str, bytes, bytes]]:
    one, two, three = BLOCKS
    end = 32 + sum(len(block.bits) for block in BLOCKS)
    crc = int(to_bits(WHOLE)[end + 48 :][:32], 2)
    large = real_block(NOISE.randbytes(150_000), 2)
    yield "nothing", b"", b""
    yield "a bare header", b"BZh9", b""
    yield "not bzip2", b"this is a text and no bzip2 file", b""
    yield "a header, then something else", b"BZh9" + NOISE.randbytes(500), b""
    yield "cut in the first block", WHOLE[:500], b""
    yield "cut in the second block", WHOLE[: len(one.bits) // 8 + 500], one.data
    yield "cut before the footer", to_bytes(to_bits(WHOLE)[: end // 8 * 8]), one.data + two.data
    yield "cut in the footer", WHOLE[:-3], DATA
    yield "a second stream cut in its block", WHOLE + stream([one])[:500], DATA
    yield "a flipped bit in a block", _flipped(WHOLE, 32 + len(one.bits) + 5000), one.data
    yield "a wrong block CRC", _flipped(WHOLE, 32 + len(one.bits) + 60), one.data
    yield "a wrong stream CRC", stream(BLOCKS, crc=crc ^ 1), DATA
    yield "a block dropped", stream([one, three], crc=crc), one.data + three.data
    yield "two blocks swapped", stream([two, one, three], crc=crc), two.data + one.data + three.data
    yield "a block repeated", stream([one, one, two, three], crc=crc), one.data * 2 + two.data + three.data
    yield "a damaged end magic", _flipped(WHOLE, end + 20), DATA
    yield "a damaged block magic", _flipped(WHOLE, 32 + len(one.bits) + 20), one.data
    yield "a block larger than its level", stream([one, large], level=1), one.data
