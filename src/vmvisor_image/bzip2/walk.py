"""Walking the chain of blocks from a source's first, checking that each one follows the other.

A block's decoded size is known only once it is decoded, so an offset that was never reached is found by walking
up to it. The walk decodes a few blocks ahead of the one it waits for, at the candidates that the scanner found;
what the chain then shows to be no block is thrown away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from vmvisor_image.bzip2.decode import Block, DamagedBlock, locate_end, read_bits
from vmvisor_image.bzip2.index import BlockEntry
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, END_MAGIC, MAGIC_BITS, MagicScanner, find_magic
from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.streams import ReadAt, read_up_to

_HEADER_BYTES = 4
_CRC_BITS = 32
_BLOCK_UNIT = 100_000
_LARGEST_EXPANSION = 51
"""Run-length encoding stores 255 equal bytes in 5, so a block decodes to at most 51 times its level's size."""
_SPARSE_RATIO = 20
"""A block that is compressed more than this may be a long run; its decoded size can't be guessed."""
_LARGEST_BLOCK = 4 << 20
"""Compressed bytes in which any block ends: 900,000 symbols of at most 20 bits and their tables are 2.3 MB."""

Decode = Callable[[int, int, int], "Future[Block | None]"]
"""Start decoding the block from a bit to a bit at a level."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A block as the scanner sees it: from one candidate to the next."""

    start_bit: int
    end_bit: int
    level: int
    next_bit: int | None
    """Where the next block is taken to start: `end_bit`, or in the next stream; None after the last one."""
    next_level: int

    def expected_size(self) -> int:
        """Decoded bytes the block should at least have, as far as its compressed size tells."""
        full = self.level * _BLOCK_UNIT
        sparse = (self.end_bit - self.start_bit) * _SPARSE_RATIO < full * 8
        return full * _LARGEST_EXPANSION if sparse else full


class BlockWalk:
    """An iterator over a source's blocks with read-ahead. Not thread-safe."""

    def __init__(self, source: ReadAt, decode: Decode) -> None:
        """Start at the first stream's header.

        Raises:
            CorruptImage: The source is not bzip2.
            TruncatedImage: It ends within the first header.
        """
        self._source = source
        self._decode = decode
        self._blocks = MagicScanner(source, BLOCK_MAGIC)
        self._pending: deque[tuple[_Span, Future[Block | None]]] = deque()
        self._combined_crc = 0
        self.failure: CorruptImage | None = None
        """What ended the walk before the source's end."""
        self.problems: list[Problem] = []
        """What was found after the last stream's end."""
        first = self._enter_stream(0)
        self._next: tuple[int, int] | None = first
        """Bit and level of the next block of the chain; None at the end."""
        self._planned: tuple[int, int] | None = first
        """Bit and level of the next block to decode ahead; None where nothing more is known."""

    @property
    def finished(self) -> bool:
        """Nothing more can be had: the end was reached, or `failure`."""
        return self._next is None or self.failure is not None

    def plan(self, known_end: int, goal: int, depth: int) -> None:
        """Start decoding ahead, as far as decoded byte `goal` is expected to need, at most `depth` blocks.

        `known_end` is the number of decoded bytes before the block that `advance` gives next.
        """
        expected = known_end + sum(span.expected_size() for span, _ in self._pending)
        while len(self._pending) < depth and expected < goal and self._planned is not None:
            span = self._span(*self._planned)
            if span is None:
                self._planned = None
                return
            self._pending.append((span, self._decode(span.start_bit, span.end_bit, span.level)))
            self._planned = None if span.next_bit is None else (span.next_bit, span.next_level)
            expected += span.expected_size()

    def advance(self, start: int) -> tuple[BlockEntry, Block]:
        """The next block; ask `finished` first.

        Args:
            start: Decoded bytes before it.

        Raises:
            CorruptImage: The block is damaged; `failure` from now on.
            TruncatedImage: The source ends within it; `failure` from now on.
        """
        assert self._next is not None, "finished was asked first"
        bit, level = self._next
        if not self._pending:
            self._planned = self._next
            self.plan(start, start + 1, 1)
        try:
            end_bit, block = self._settle(bit, level)
        except CorruptImage as error:
            self.failure = error
            raise
        entry = BlockEntry(bit, end_bit, level, start, block.size)
        self._blocks.forget(bit)
        try:
            self._next = self._following(entry)
        except CorruptImage as error:
            self.failure = error  # this block itself is good
            self._next = None
        if self._pending and (self._pending[0][0].start_bit, self._pending[0][0].level) != self._next:
            self._forget_plans()
        if not self._pending:
            self._planned = self._next
        return entry, block

    def _settle(self, bit: int, level: int) -> tuple[int, Block]:
        """The real end of the block at `bit`, and its content."""
        block: Block | None = None
        if self._pending:
            span, future = self._pending[0]
            try:
                block = future.result()
            except DamagedBlock:
                block = None
            except BaseException:
                self._forget_plans()  # the source failed: a later try reads it again
                raise
            if block is not None:
                self._pending.popleft()
                return span.end_bit, block
        # A false magic within the block, an end of stream that garbage follows, damage or truncation.
        self._forget_plans()
        base = bit // 8 * 8
        data = read_up_to(self._source, base // 8, _LARGEST_BLOCK)
        try:
            end_bit = locate_end(data, bit - base, level, _magics_past(data, bit - base))
            block = None if end_bit is None else self._decode(bit, base + end_bit, level).result()
        except DamagedBlock as error:
            raise CorruptImage(
                f"its data is damaged, or its CRC does not match (the block starts at bit {bit})",
                structure="bzip2 block",
                offset=bit // 8,
            ) from error
        if end_bit is None or block is None:
            raise TruncatedImage(
                f"the source ends within it (the block starts at bit {bit})",
                structure="bzip2 block",
                offset=bit // 8,
                expected="a block or end-of-stream magic after it",
                found="none",
            )
        return base + end_bit, block

    def _following(self, entry: BlockEntry) -> tuple[int, int] | None:
        """Bit and level of the block after a good one, in the next stream where it was its stream's last."""
        crc = self._bits(entry.start_bit + MAGIC_BITS, _CRC_BITS)
        self._combined_crc = ((self._combined_crc << 1 | self._combined_crc >> 31) & 0xFFFFFFFF) ^ crc
        if self._bits(entry.end_bit, MAGIC_BITS) == BLOCK_MAGIC:
            return entry.end_bit, entry.level
        footer = entry.end_bit + MAGIC_BITS
        found = self._bits(footer, _CRC_BITS)
        if found != self._combined_crc:
            raise CorruptImage(
                "the combined CRC does not match: a block is missing, repeated or out of order",
                structure="bzip2 stream",
                offset=footer // 8,
                expected=f"{self._combined_crc:#010x}",
                found=f"{found:#010x}",
            )
        byte = (footer + _CRC_BITS + 7) // 8
        try:
            return self._enter_stream(byte)
        except TruncatedImage:
            raise
        except CorruptImage:
            self.problems.append(Problem("bzip2 source", "bytes follow the last stream and are not bzip2", byte))
            return None

    def _enter_stream(self, byte: int) -> tuple[int, int] | None:
        """Bit and level of the first block from the stream header at `byte` on; empty streams are passed."""
        while True:
            self._combined_crc = 0
            header = read_up_to(self._source, byte, _HEADER_BYTES)
            if not header and byte:
                return None
            level = stream_level(header)
            if level is None:
                raise CorruptImage(
                    "not bzip2", structure="bzip2 stream", offset=byte, expected="'BZh1' to 'BZh9'", found=repr(header)
                )
            first_bit = (byte + _HEADER_BYTES) * 8
            magic = self._bits(first_bit, MAGIC_BITS)
            if magic == BLOCK_MAGIC:
                return first_bit, level
            if magic != END_MAGIC or self._bits(first_bit + MAGIC_BITS, _CRC_BITS) != 0:
                raise CorruptImage(
                    "neither a block nor an empty stream's end follows the header",
                    structure="bzip2 stream",
                    offset=byte + _HEADER_BYTES,
                    expected=f"{BLOCK_MAGIC:012x}",
                    found=f"{magic:012x}",
                )
            byte += _HEADER_BYTES + (MAGIC_BITS + _CRC_BITS) // 8

    def _span(self, bit: int, level: int) -> _Span | None:
        """The block at `bit` as far as the candidates tell; None when nothing ends it."""
        following = self._blocks.after(bit)
        if following is None:
            end_bit = MagicScanner(self._source, END_MAGIC, bit).between(bit, bit + _LARGEST_BLOCK * 8)
            return None if end_bit is None else _Span(bit, end_bit, level, None, level)
        boundary = self._stream_boundary(bit, following)
        if boundary is None:
            return _Span(bit, following, level, following, level)
        end_bit, next_level = boundary
        return _Span(bit, end_bit, level, following, next_level)

    def _stream_boundary(self, bit: int, following: int) -> tuple[int, int] | None:
        """End of the stream and level of the next when a stream header stands before `following`."""
        if following % 8:
            return None
        header = following // 8 - _HEADER_BYTES
        level = stream_level(self._source.read_at(header, _HEADER_BYTES))
        if level is None:
            return None
        while True:
            end_bit = self._footer_before(header)
            if end_bit is None or end_bit <= bit:
                return None
            empty = end_bit // 8 - _HEADER_BYTES
            if end_bit % 8 or empty * 8 <= bit or stream_level(self._source.read_at(empty, _HEADER_BYTES)) is None:
                return end_bit, level
            header = empty

    def _footer_before(self, byte: int) -> int | None:
        """Bit of the end-of-stream magic whose footer ends at `byte`, after up to seven bits of padding."""
        latest = byte * 8 - MAGIC_BITS - _CRC_BITS
        return next(
            (end for end in range(latest, latest - 8, -1) if end >= 0 and self._bits(end, MAGIC_BITS) == END_MAGIC),
            None,
        )

    def _forget_plans(self) -> None:
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()
        self._planned = None

    def _bits(self, bit: int, count: int) -> int:
        first = bit // 8
        data = read_up_to(self._source, first, (bit + count + 7) // 8 - first)
        if len(data) * 8 < bit % 8 + count:
            raise TruncatedImage("the source ends within it", structure="bzip2 stream", offset=first + len(data))
        return read_bits(data, bit % 8, count)


def stream_level(header: bytes) -> int | None:
    """The block size (1-9, in 100,000 bytes) that a stream header names, or None when it is not one."""
    if len(header) == _HEADER_BYTES and header[:3] == b"BZh" and header[3:4] in b"123456789":
        return header[3] - ord("0")
    return None


def _magics_past(data: bytes, bit: int) -> list[int]:
    """Every magic of either kind in `data` past `bit`, ascending."""
    found = find_magic(data, BLOCK_MAGIC, len(data)) + find_magic(data, END_MAGIC, len(data))
    return sorted(position for position in found if position > bit)
