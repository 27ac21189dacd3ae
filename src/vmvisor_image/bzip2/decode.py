"""Decoding one bzip2 block that starts at any bit, with the standard library's libbz2 and without shifting.

libbz2 reads a stream from its header on. To make it start at a block in the middle of a byte, it is first fed a
header and a tiny block of our own (a *primer*) whose length in bits leaves it exactly at the wanted alignment,
and then the compressed bytes as they are. libbz2 then checks the block's CRC and, because 48 bits past the
block's end are fed too, that another block or the end of the stream follows.
"""

from __future__ import annotations

import bz2
import contextlib
import mmap
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vmvisor_image.bzip2.scan import MAGIC_BITS

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_STEP = 4096


class DamagedBlock(Exception):
    """libbz2 rejected a block: its data is damaged, its CRC differs, or no magic follows it."""


Segment = bytes | mmap.mmap | int
"""Decoded bytes, or a number of zero bytes."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block's decoded bytes. Long runs of zeros are kept as their lengths: a block can hold 46 MB of them."""

    segments: tuple[Segment, ...]
    """Parts of the decoded data, in order."""
    size: int
    """Decoded length in bytes."""
    held: int
    """Number of bytes of memory that the segments take."""

    @property
    def is_zero(self) -> bool:
        """Whether all decoded bytes are known to be zeros."""
        return all(isinstance(segment, int) for segment in self.segments)

    def read(self, offset: int, length: int) -> list[bytes]:
        """The bytes from `offset`, at most `length`, in pieces."""
        # A slice of all of a segment copies a map, and is the bytes themselves where they are bytes.
        return [
            bytes(count) if isinstance(segment, int) else segment[first : first + count]
            for segment, first, count in self._parts(offset, length)
        ]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Number of bytes from `offset`, at most as many as `buffer` takes, that were copied into it."""
        done = 0
        for segment, first, count in self._parts(offset, len(buffer)):
            if isinstance(segment, int):
                for at in range(0, count, _CHUNK):
                    buffer[done + at : done + min(at + _CHUNK, count)] = _ZEROS[: min(_CHUNK, count - at)]
            else:
                buffer[done : done + count] = memoryview(segment)[first : first + count]
            done += count
        return done

    def _parts(self, offset: int, length: int) -> Iterator[tuple[Segment, int, int]]:
        """Segment, first byte in it, and number of bytes of each part of a range, as far as the block goes."""
        for segment in self.segments:
            if length <= 0:
                return
            size = segment if isinstance(segment, int) else len(segment)
            if offset < size:
                count = min(length, size - offset)
                yield segment, offset, count
                length -= count
                offset = 0
            else:
                offset -= size


def new_map(size: int) -> mmap.mmap:
    """Memory map of `size` bytes, apart from malloc's memory.

    Kept data that malloc places between the decoder's large, short-lived buffers prevents it from returning those to
    the system: with pieces of 400 kB and 900 kB, that wasted half of the size of all kept data.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    # All pages at once, and not shared with children: 0.22 ms for 900 kB, where one by one it is 0.36, and shared 0.5.
    at_once: int = getattr(mmap, "MAP_POPULATE", 0)  # Linux has it
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | at_once)


def read_bits(data: bytes, bit: int, count: int) -> int:
    """`count` bits of `data` from position `bit`, as an integer."""
    first, last = bit // 8, (bit + count + 7) // 8
    return (int.from_bytes(data[first:last], "big") >> (last * 8 - bit - count)) & ((1 << count) - 1)


_PRIMERS: tuple[tuple[bytes, int, bytes], ...] = (
    (b"", 0, b""),
    (bytes.fromhex("3141592653594f4ffeda000000010038002000219819844d"), 0x00, b"aabac"),
    (bytes.fromhex("314159265359e8caff13000002410040003000200021981983e5"), 0x80, b"aaaaba"),
    (bytes.fromhex("31415926535919939b6b000000010020002000211846"), 0x80, b"a"),
    (bytes.fromhex("314159265359e993fdcd000000010030002000210082"), 0xB0, b"ab"),
    (bytes.fromhex("3141592653591fe5dfce000001010020002000308c14"), 0x18, b"aaa"),
    (bytes.fromhex("31415926535912a6f917000000010030002000210082"), 0x8C, b"aab"),
    (bytes.fromhex("314159265359f37b571b00000001003800200021981984"), 0xCC, b"aabc"),
)
"""For each alignment 0-7 the primer block: its whole bytes, its bits in the byte that it shares with the block
to decode, and the text that it decodes to. Made with bzip2 from those texts; valid for every level."""


class _BlockDecoder:
    """libbz2, standing at the first bit of a block."""

    def __init__(self, data: bytes | memoryview, start_bit: int, level: int) -> None:
        whole, shared, text = _PRIMERS[start_bit % 8]
        self._data = memoryview(data)
        self._bz2 = bz2.BZ2Decompressor()
        self._fed = start_bit // 8
        self._bz2.decompress(b"BZh%d" % level + whole)
        if start_bit % 8:
            byte = shared | self._data[self._fed] & 0xFF >> start_bit % 8
            primed = self._bz2.decompress(bytes((byte,)))
            assert primed == text, "the primer decodes to its text or libbz2 is broken"
            self._fed += 1

    def feed(self, end_byte: int, limit: int) -> bytes:
        """Decoded bytes, at most `limit`, after feeding the data up to `end_byte`."""
        piece = self._data[self._fed : end_byte]
        self._fed = max(self._fed, end_byte)
        return self._run(piece, limit)

    def drain(self, limit: int) -> bytes:
        """More decoded bytes of the data already fed; `needs_input` may be set even while output is still waiting."""
        return b"" if self._bz2.eof else self._run(b"", limit)

    def _run(self, piece: bytes | memoryview, limit: int) -> bytes:
        try:
            return self._bz2.decompress(piece, limit)
        except OSError as error:  # libbz2's only way to say that data is damaged; no input or output happens here
            raise DamagedBlock from error


def decode_block(data: bytes | memoryview, start_bit: int, end_bit: int, level: int) -> Block | None:
    """Decode the block from `start_bit` to `end_bit`.

    Args:
        data: Compressed bytes that hold the block and the 48 bits after it.
        start_bit: Where its magic starts, in bits from the start of `data`.
        end_bit: Where the next block's magic, or the end-of-stream magic, starts.
        level: The stream's block size in units of 100,000 bytes, 1-9.

    Returns:
        The block, or None when the block does not end at `end_bit`: that was no real magic.

    Raises:
        DamagedBlock: The block is damaged.
    """
    decoder = _BlockDecoder(data, start_bit, level)
    if decoder.feed((end_bit - 1) // 8, 1):
        return None  # it ended before, and libbz2 would go on to decode what follows it as well
    return _collect(decoder, decoder.feed((end_bit + MAGIC_BITS + 7) // 8, _CHUNK))


def decode_unfollowed(data: bytes | memoryview, start_bit: int, level: int) -> tuple[Block, int] | None:
    """Decode a block that no magic follows: the source ends behind it, or something else is there.

    Args:
        data: Compressed bytes that hold the block.
        start_bit: Where its magic starts, in bits from the start of `data`.
        level: The stream's block size in units of 100,000 bytes, 1-9.

    Returns:
        The block, whose CRC matched, and the byte of `data` after its last one; None when `data` ends within it.

    Raises:
        DamagedBlock: The block is damaged.
    """
    # Its first byte comes out when its last bit is in. That is found in steps, then byte by byte with a new decoder:
    # what is fed past the end would be taken for a magic, and what was decoded be lost with the error.
    decoder = _BlockDecoder(data, start_bit, level)
    end = start_bit // 8 + 1
    with contextlib.suppress(DamagedBlock):  # also behind a block of one byte, which comes out together with the error
        while not decoder.feed(end, 1):
            if end >= len(data):
                return None
            end = min(end + _STEP, len(data))
    decoder = _BlockDecoder(data, start_bit, level)
    end = max(start_bit // 8 + 1, end - _STEP)
    while not (first := decoder.feed(end, 1)):
        end += 1
        if end > len(data):
            raise DamagedBlock
    block = _collect(decoder, first)
    return None if block is None else (block, end)


def _collect(decoder: _BlockDecoder, piece: bytes) -> Block | None:
    """Block of all remaining output of a decoder, after `piece`; None if there is no output."""
    segments: list[bytes | int] = []
    size = held = 0
    while piece:
        size += len(piece)
        if _ZEROS.startswith(piece):
            if segments and isinstance(segments[-1], int):
                segments[-1] += len(piece)
            else:
                segments.append(len(piece))
        elif segments and piece == segments[-1]:
            segments.append(segments[-1])  # a long run of another byte: one copy serves
        else:
            segments.append(piece)
            held += len(piece)
        piece = decoder.drain(_CHUNK)
    return Block(tuple(segments), size, held) if size else None


def locate_end(data: bytes | memoryview, start_bit: int, level: int, candidates: Iterable[int]) -> int | None:
    """The one of `candidates` (bits, ascending) that is the end of the block at `start_bit`.

    The block's bytes are fed up to one candidate after the other; its first byte comes out exactly when its last
    bit is in, so one pass over the block is enough however many false candidates it holds.

    Returns:
        The candidate, or None when `data` ends before the block and the magic after it do.

    Raises:
        DamagedBlock: The block is damaged, or no magic follows it.
    """
    decoder = _BlockDecoder(data, start_bit, level)
    for end_bit in candidates:
        if decoder.feed((end_bit - 1) // 8, 1):
            raise DamagedBlock  # it ended before this candidate and after the last one
        if decoder.feed((end_bit + 7) // 8, 1):
            return end_bit
    if decoder.feed(len(data), 1):
        while decoder.drain(_CHUNK):
            pass  # what follows the block is no magic, or only the beginning of one: libbz2 knows which
    return None
