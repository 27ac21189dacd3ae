"""bzip2 files made by hand, bit by bit, for the other `test_bzip2_*`; shown here to be what bzip2 takes them for.

Bits are strings of "0" and "1": slow, but plainly right, and nothing of the library is used to make them.
"""

from __future__ import annotations

import bz2
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest

from tests.support import require_tool

BLOCK = format(0x314159265359, "048b")
END = format(0x177245385090, "048b")
MAGICS = {"block": BLOCK, "end": END}


def to_bits(data: bytes) -> str:
    return format(int.from_bytes(b"\1" + data, "big"), "b")[1:]


def to_bytes(bits: str) -> bytes:
    """The bits, padded with zeros to a whole byte."""
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def occurrences(bits: str, wanted: str) -> list[int]:
    found, at = [], bits.find(wanted)
    while at >= 0:
        found.append(at)
        at = bits.find(wanted, at + 1)
    return found


@dataclass(frozen=True)
class ForgedBlock:
    bits: str
    """From its magic to its last bit."""
    data: bytes
    """What it decodes to."""

    @property
    def crc(self) -> int:
        return int(self.bits[48:80], 2)


def real_block(data: bytes, level: int = 9) -> ForgedBlock:
    """The one block that bzip2 makes of data."""
    bits = to_bits(bz2.compress(data, level))
    # Whatever the data holds, the last end magic is the real one: only 32 bits and the padding follow it.
    return ForgedBlock(bits[32 : bits.rindex(END)], data)


def crc32(data: bytes) -> int:
    """bzip2's CRC: most significant bit first."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc ^ 0xFFFFFFFF


def payload_block(payload: str) -> ForgedBlock:
    """A valid block whose Huffman data is `payload`, whatever bits it is, as they are.

    Of the 256 symbols of an alphabet of 254 byte values each has a code of 8 bits, so that any bits are a sequence
    of symbols. The end-of-block symbol is 255, which `payload` must not hold in one of its bytes.
    """
    used = range(254)
    payload += "01000010"[(len(payload) - 1) % 8 + 1 :]
    symbols = [int(payload[at : at + 8], 2) for at in range(0, len(payload), 8)]
    assert 255 not in symbols
    data = _decode_symbols(symbols, list(used))
    selectors = -(-(len(symbols) + 1) // 50)
    bits = [
        BLOCK,
        format(crc32(data), "032b"),
        "0",  # not randomised
        format(0, "024b"),  # the origin
        "1" * 16,  # byte values in use, by sixteens
        "1" * 254 + "00",
        format(2, "03b"),  # tables
        format(selectors, "015b"),
        "0" * selectors,  # the first table, always
        *[format(8, "05b") + "0" * 256] * 2,  # 8 bits for each symbol
        payload,
        "1" * 8,
    ]
    return ForgedBlock("".join(bits), data)


def longest_runs() -> ForgedBlock:
    """A full block of level 1 of the longest runs there are, 4 + 255 zeros each: the most that a block can decode to.

    Rotations of 0 0 0 0 255, again and again, sort into five classes: the last column is all the 255s, then all zeros.
    """
    runs = 20_000
    symbols = [2, *_zero_run(runs - 1), 2, *_zero_run(4 * runs - 1), 3]
    data = bytes(259 * runs)
    bits = [
        BLOCK,
        format(real_block(data).crc, "032b"),
        "0",
        format(0, "024b"),
        "1000000000000001",
        "1" + "0" * 15,
        "0" * 15 + "1",
        format(2, "03b"),
        format(1, "015b"),
        "0",
        *[format(2, "05b") + "0" * 4] * 2,
        *(format(symbol, "02b") for symbol in symbols),
    ]
    return ForgedBlock("".join(bits), data)


def _zero_run(length: int) -> list[int]:
    """A length in the symbols 0 and 1 of zero runs: digits 1 and 2, the least significant first."""
    digits = []
    while length:
        digits.append((length - 1) % 2)
        length = (length - 1) // 2
    return digits


def _decode_symbols(symbols: Sequence[int], recent: list[int]) -> bytes:
    """What a block of these symbols and origin 0 decodes to: zero runs, move-to-front, Burrows-Wheeler, runs."""
    last = bytearray()
    run, weight = 0, 1
    for symbol in [*symbols, 255]:
        if symbol < 2:
            run += weight << symbol
            weight <<= 1
            continue
        last += bytes([recent[0]]) * run
        run, weight = 0, 1
        if symbol < 255:
            recent.insert(0, recent.pop(symbol - 1))
            last.append(recent[0])
    order = sorted(range(len(last)), key=lambda place: last[place])
    text, place = bytearray(), order[0]
    for _ in last:
        text.append(last[place])
        place = order[place]
    data, repeated = bytearray(), 0
    for at, byte in enumerate(text):
        if repeated == 4:
            data += data[-1:] * byte
            repeated = 0
            continue
        repeated = repeated + 1 if repeated and byte == text[at - 1] else 1
        data.append(byte)
    return bytes(data)


def stream(blocks: Iterable[ForgedBlock], level: int = 9, crc: int | None = None) -> bytes:
    """A stream of blocks, with a combined CRC that is right unless another one is given."""
    bits, combined = to_bits(b"BZh%d" % level), 0
    for block in blocks:
        bits += block.bits
        combined = ((combined << 1 | combined >> 31) & 0xFFFFFFFF) ^ block.crc
    return to_bytes(bits + END + format(combined if crc is None else crc, "032b"))


EMPTY_STREAM = bz2.compress(b"")


def false_magics(kind: str, alignment: int, count: int = 1) -> ForgedBlock:
    """A block that holds false magics, `alignment` bits into a byte of its payload."""
    spacing = "01000010" * 3
    return payload_block((spacing + "01000010"[:alignment] + MAGICS[kind] + "01000010"[alignment:]) * count + spacing)


def embedded(inner: bytes) -> ForgedBlock:
    """A block in whose payload a whole bzip2 file lies."""
    return payload_block(to_bits(b"BBB" + inner + b"BBB"))


@pytest.mark.parametrize("kind", MAGICS)
@pytest.mark.parametrize("alignment", range(8))
def test_a_block_with_false_magics_is_valid(kind: str, alignment: int) -> None:
    block = false_magics(kind, alignment, 3)
    data = stream([block])
    bits = to_bits(data)
    assert len(occurrences(bits, MAGICS[kind])) == 4
    assert bz2.decompress(data) == block.data
    for tool in ("bzip2", "lbzip2"):
        done = subprocess.run([require_tool(tool), "-dc"], input=data, capture_output=True, check=True)
        assert done.stdout == block.data


def test_a_block_with_a_file_in_it_is_valid() -> None:
    inner = stream([real_block(b"false")])
    block = embedded(inner)
    assert to_bits(inner) in block.bits
    assert bz2.decompress(stream([block, real_block(b"true")])) == block.data + b"true"
