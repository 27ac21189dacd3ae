"""Walk along the chain of blocks from a source's first, with a check that each block follows the one before.

A block's decoded size is known only once it is decoded, so an offset that was never reached is found by walking
up to it. The walk decodes a few blocks ahead of the one it waits for, at the candidates that the scanner found;
candidates that turn out not to be blocks are discarded.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from vmvisor_image.bzip2.decode import Block, DamagedBlock, read_bits
from vmvisor_image.bzip2.engines import Decoded, Engine
from vmvisor_image.bzip2.index import BLOCK_UNIT, BlockEntry, BlockIndex, Place, largest_size
from vmvisor_image.bzip2.index_file import SavedIndex
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, CRC_BITS, END_MAGIC, MAGIC_BITS, MagicScanner, find_magic_near
from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

_HEADER_BYTES = 4
_SPARSE_RATIO = 20
"""Compression ratio above which a block may be a long run, so that its decoded size can't be guessed."""
_LARGEST_BLOCK = 4 << 20
"""Upper bound of a block's compressed bytes: 900,000 symbols of at most 20 bits and their tables are 2.3 MB."""

_ALIKE = 32
"""Divisor: two blocks are alike when their lengths differ by less than the longer one divided by it."""
_LEAST_SLACK = 8 * 2048
"""Smallest number of bits searched on each side of a guessed end."""
_SHORT = 8 * 1024
"""Number of bits after a block's start that are searched before its end is guessed."""
_LEAST_GUESSED = 8 * 65536
"""Length in bits below which the end of a block is not guessed, because a search is quick."""

_MAGIC_BYTES = tuple(magic.to_bytes(MAGIC_BITS // 8, "big") for magic in (BLOCK_MAGIC, END_MAGIC))
_HEADS = tuple(b"BZh%d" % level + magic for level in range(1, 10) for magic in _MAGIC_BYTES)
"""All possible first bytes of a stream: its header and the first magic."""

Decode = Callable[[int, int, int], "Future[Decoded | None]"]
"""Function that starts decoding the block from a bit to a bit (exclusive) at a level; the result is None where there is
no block, or a damaged one."""
DecodeSlowly = Callable[[int, int], Decoded]
"""Function that decodes the block at a bit at a level, wherever it ends; see `decode_slowly`."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A block as the scanner sees it: from one candidate to the next."""

    start_bit: int
    end_bit: int
    level: int
    next_bit: int | None
    """Expected first bit of the next block: `end_bit`, or a bit in the next stream; None after the last block."""
    next_level: int

    def expected_size(self) -> int:
        """Expected number of decoded bytes, judging by the compressed size."""
        full = self.level * BLOCK_UNIT
        sparse = (self.end_bit - self.start_bit) * _SPARSE_RATIO < full * 8
        return largest_size(self.level) if sparse else full


class BlockWalk:
    """A walk over a source's blocks with read-ahead, which puts each block that it passes into an index.

    Not thread-safe, but it may be interrupted by any exception at any moment, including `KeyboardInterrupt`, and then
    continues where it was.
    """

    def __init__(
        self,
        source: ReadAt,
        engine: Engine,
        decode: Decode,
        decode_slowly: DecodeSlowly,
        saved: SavedIndex | None = None,
    ) -> None:
        """Start at the first stream's header, or where a saved index ends.

        Raises:
            CorruptImage: The source is not bzip2.
            TruncatedImage: The source ends within the first header.
        """
        self._source = source
        self._engine = engine
        self.index = BlockIndex(() if saved is None else saved.entries)
        """Blocks passed so far, after those of a saved index."""
        self.saved_blocks = len(self.index)
        """Number of blocks in `index` from a saved index, which are trusted only if they decode as recorded."""
        self.damage_is_known = saved is not None and saved.is_damaged
        """Whether the saved index ends at known damage, which is then no reason to doubt the index."""
        self._decode, self._decode_slowly = decode, decode_slowly
        self._blocks = MagicScanner(source, BLOCK_MAGIC, find=engine.find_magic)
        self._last_length = 0
        """Number of bits from the latest block's start to the next one's."""
        self._usual_lengths = (0, 0)
        """Lengths in bits of the last two successive blocks that were alike, the shorter one first."""
        self._pending: deque[tuple[_Span, Future[Decoded | None]]] = deque()
        self._set_aside: dict[tuple[int, int, int], Future[Decoded | None]] = {}
        """Blocks being decoded for discarded plans, by start bit, end bit and level; most will be planned again."""
        self._last_held = 0
        """Number of bytes of memory that the latest block takes."""
        self.failure: CorruptImage | None = None
        """Error that ended the walk before the source's end; None without one."""
        self._before_failure: Place | None = None
        """Place of the good block behind which `failure` was found; a saved index ends before it, so that a later walk
        finds the failure again."""
        self.trailing: Problem | None = None
        """Problem of bytes found after the last stream's end; None without any."""
        self._place = self._enter_stream(0, 0)
        """Place of the next block; None at the end."""
        if saved is not None:
            self._place = saved.place
            self.trailing = None if saved.garbage is None else _garbage(saved.garbage)
        self._planned: tuple[int, int] | None = None
        """Bit and level of the next block to decode ahead; None where nothing more is known."""

    @property
    def finished(self) -> bool:
        """Whether the walk has reached the end of the data, or `failure`."""
        return self._place is None or self.failure is not None

    @property
    def behind_failure(self) -> int:
        """Bit behind which the source was not examined because of `failure`."""
        last = self.index[len(self.index) - 1].end_bit if len(self.index) else 0
        return last if self._place is None else max(last, self._place.bit)

    def snapshot(self) -> SavedIndex:
        """Index of all known blocks, to be saved; not to be called while another thread advances."""
        place = self._before_failure or self._place
        known = (self.index[number] for number in range(len(self.index)))
        # Where an exception came between the two, the index has one block more than was passed.
        entries = tuple(entry for entry in known if place is None or entry.start < place.start)
        is_damaged = self.failure is not None and (not self.saved_blocks or self.damage_is_known)
        return SavedIndex(entries, place, None if self.trailing is None else self.trailing.offset, is_damaged)

    @property
    def held_ahead(self) -> int:
        """Number of bytes of memory that the blocks decoded ahead take; one that is being decoded counts as usual."""
        return sum(self._held_of(span, future) for span, future in self._pending)

    def plan(self, goal: int, depth: int, memory: int) -> None:
        """Start decoding ahead up to the block expected to hold decoded byte `goal`.

        Args:
            goal: Bytes from the start of the decoded data.
            depth: Number of blocks ahead, at most.
            memory: Number of bytes of memory that they may take; the first one may take any.
        """
        place = self._place
        if place is None or self.failure is not None:
            return
        if self._pending and (self._pending[0][0].start_bit, self._pending[0][0].level) != (place.bit, place.level):
            self._set_plans_aside()  # the chain did not continue at the expected candidate
        if not self._pending:
            self._planned = (place.bit, place.level)
        expected = place.start + sum(_size_of(span, future) for span, future in self._pending)
        held = self.held_ahead
        while len(self._pending) < depth and expected < goal and held <= memory and self._planned is not None:
            span = self._span(*self._planned)
            if span is None:
                self._planned = None
                return
            key = (span.start_bit, span.end_bit, span.level)
            future = self._set_aside.pop(key, None) or self._decode(*key)
            self._pending.append((span, future))
            self._planned = None if span.next_bit is None else (span.next_bit, span.next_level)
            expected += _size_of(span, future)
            held += self._held_of(span, future)

    def advance(self) -> tuple[BlockEntry, Block]:
        """Pass the next block, and return it; only allowed while `finished` is False.

        Raises:
            CorruptImage: The block is damaged; the error is also stored as `failure`.
            TruncatedImage: The source ends within the block; the error is also stored as `failure`.
        """
        place = self._place
        assert place is not None, "finished was asked first"
        self.plan(place.start + 1, 1, 0)
        failure: CorruptImage | None = None
        try:
            decoded = self._settle(place)
        except CorruptImage as error:
            self.failure = copy.copy(error)  # without the traceback, which holds the block's data
            raise
        if not decoded.is_followed:
            failure = self._nothing_follows(decoded.end_bit)
        block = decoded.block
        entry = BlockEntry(place.bit, decoded.end_bit, place.level, place.start, block.size, decoded.crc, block.is_zero)
        following = None
        try:
            if failure is None:
                following = self._following(entry, place.crc)
        except CorruptImage as error:
            failure = copy.copy(error)  # this block itself is good
        # Where an exception comes between these, the block is passed once more, and the index has it already.
        self.index.append(entry)
        self._last_held = block.held
        self._before_failure = None if failure is None else place
        self.failure = failure
        self._place = following
        self._blocks.forget(place.bit)
        if self._set_aside:
            self._set_aside = {key: future for key, future in self._set_aside.items() if key[0] > place.bit}
        return entry, block

    def _settle(self, place: Place) -> Decoded:
        """The block at `place`.

        Raises:
            CorruptImage: It is damaged.
            TruncatedImage: The source ends within it.
        """
        if self._pending:
            _, future = self._pending[0]
            try:
                decoded = future.result()
            except BaseException:
                self._give_up_plans()  # the source failed: a later try reads it again
                raise
            if decoded is not None:
                self._pending.popleft()
                return decoded
        # A false magic within the block, an end of stream that garbage follows, damage or truncation.
        self._set_plans_aside()
        with contextlib.suppress(DamagedBlock):
            return self._decode_slowly(place.bit, place.level)
        raise CorruptImage(
            f"its data is damaged, or its CRC does not match (bit {place.bit}, decoded byte {place.start})",
            structure="bzip2 block",
            offset=place.bit // 8,
        )

    def _nothing_follows(self, end_bit: int) -> CorruptImage:
        """Error for a good block that no magic follows."""
        if len(found := read_up_to(self._source, end_bit // 8, MAGIC_BITS // 8)) < MAGIC_BITS // 8:
            return TruncatedImage(
                "the source ends before the end of the stream",
                structure="bzip2 stream",
                offset=end_bit // 8 + len(found),
            )
        return CorruptImage(
            "neither a block nor the end of the stream follows the block before it",
            structure="bzip2 stream",
            offset=end_bit // 8,
        )

    def _following(self, entry: BlockEntry, crc: int) -> Place | None:
        """The place after a good block, in the next stream if it was the last of its stream; None at the end.

        Args:
            entry: The block.
            crc: Combined CRC of the blocks before it in the same stream.

        Raises:
            CorruptImage: The stream's combined CRC does not match, or the next stream is damaged.
        """
        crc = ((crc << 1 | crc >> 31) & 0xFFFFFFFF) ^ entry.crc
        start = entry.start + entry.size
        if self._bits(entry.end_bit, MAGIC_BITS) == BLOCK_MAGIC:
            return Place(entry.end_bit, entry.level, start, crc)
        footer = entry.end_bit + MAGIC_BITS
        found = self._bits(footer, CRC_BITS)
        if found != crc:
            raise CorruptImage(
                "the combined CRC does not match: a block is missing, repeated or out of order",
                structure="bzip2 stream",
                offset=footer // 8,
                expected=f"{crc:#010x}",
                found=f"{found:#010x}",
            )
        return self._enter_stream((footer + CRC_BITS + 7) // 8, start)

    def _enter_stream(self, byte: int, start: int) -> Place | None:
        """Place of the first block from the stream header at `byte` on, empty streams skipped; None at the end.

        Bytes that follow a stream and are not a header are garbage, as for bzip2. But a good header without a magic
        after it, or a magic without a good header before it, is a damaged stream.
        """
        while True:
            head = read_up_to(self._source, byte, _HEADER_BYTES + MAGIC_BITS // 8)
            if byte and not head:
                return None
            level = stream_level(head[:_HEADER_BYTES])
            magic = int.from_bytes(head[_HEADER_BYTES:], "big")
            if level is not None and magic == BLOCK_MAGIC:
                return Place((byte + _HEADER_BYTES) * 8, level, start, 0)
            crc_bit = (byte + len(head)) * 8
            if level is None or magic != END_MAGIC or self._bits(crc_bit, CRC_BITS) != 0:
                self.trailing = self._check_garbage(byte, head)
                return None
            byte = crc_bit // 8 + CRC_BITS // 8

    def _check_garbage(self, byte: int, head: bytes) -> Problem:
        """Problem for `head`, found where a stream may start, as garbage after the last stream.

        Raises:
            CorruptImage: It is a damaged stream.
            TruncatedImage: It is the beginning of a stream.
        """
        if len(head) < len(_HEADS[0]) and any(each.startswith(head) for each in _HEADS):
            raise TruncatedImage("the source ends within its header", structure="bzip2 stream", offset=byte + len(head))
        header, magic = head[:_HEADER_BYTES], head[_HEADER_BYTES:]
        if stream_level(header) is not None:
            raise CorruptImage(
                "neither a block nor an empty stream's end follows the header",
                structure="bzip2 stream",
                offset=byte + _HEADER_BYTES,
                expected=f"{BLOCK_MAGIC:012x}",
                found=magic.hex(),
            )
        if byte == 0 or magic in _MAGIC_BYTES:
            raise CorruptImage(
                "not bzip2", structure="bzip2 stream", offset=byte, expected="'BZh1' to 'BZh9'", found=repr(header)
            )
        return _garbage(byte)

    def _span(self, bit: int, level: int) -> _Span | None:
        """The block at `bit` according to the candidates; None when no candidate ends it."""
        latest = bit + _LARGEST_BLOCK * 8  # a whole disk of zeros may follow the last block
        following = self._guess_following(bit) or self._scan_following(bit, latest)
        if following is None:
            end_bit = MagicScanner(self._source, END_MAGIC, bit, self._engine.find_magic).between(bit, latest)
            return None if end_bit is None else _Span(bit, end_bit, level, None, level)
        self._note_length(following - bit)
        boundary = self._stream_boundary(bit, following)
        if boundary is None:
            return _Span(bit, following, level, following, level)
        end_bit, next_level = boundary
        return _Span(bit, end_bit, level, following, next_level)

    def _scan_following(self, bit: int, latest: int) -> int | None:
        if not self._blocks.covers(bit):
            self._blocks = MagicScanner(self._source, BLOCK_MAGIC, bit, self._engine.find_magic)
        return self._blocks.between(bit, latest)

    def _guess_following(self, bit: int) -> int | None:
        """Candidate where the next block should start if this one is as long as those before it; None without a guess.

        Blocks of uniform data, above all of compressed files, have nearly the same length, so most of them need not be
        searched. A guess that misses a block's end is found out when the block is decoded.
        """
        shortest, longest = self._usual_lengths
        if shortest < _LEAST_GUESSED:
            return None
        # pbzip2 ends each stream with a block of 19 bytes: a guess would leave them all out.
        soon = find_magic_near(self._source, BLOCK_MAGIC, bit + 1, bit + _SHORT)
        if soon is not None:
            return soon
        slack = max(2 * (longest - shortest), _LEAST_SLACK)
        return find_magic_near(self._source, BLOCK_MAGIC, bit + shortest - slack, bit + longest + slack)

    def _note_length(self, length: int) -> None:
        shorter, longer = sorted((length, self._last_length))
        if longer - shorter < longer // _ALIKE:
            self._usual_lengths = (shorter, longer)
        self._last_length = length

    def _stream_boundary(self, bit: int, following: int) -> tuple[int, int] | None:
        """End in bits of the stream, and level of the next one; None if no stream header precedes `following`."""
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
        """First bit of the end-of-stream magic whose footer, with up to seven bits of padding, ends at `byte`."""
        latest = byte * 8 - MAGIC_BITS - CRC_BITS
        return next(
            (end for end in range(latest, latest - 8, -1) if end >= 0 and self._bits(end, MAGIC_BITS) == END_MAGIC),
            None,
        )

    def _held_of(self, span: _Span, future: Future[Decoded | None]) -> int:
        decoded = _decoded_by(future)
        return max(span.level * BLOCK_UNIT, self._last_held) if decoded is None else decoded.block.held

    def _give_up_plans(self) -> None:
        """Cancel all decoding that was started ahead."""
        for future in (*(future for _, future in self._pending), *self._set_aside.values()):
            future.cancel()
        self.forget_plans()

    def forget_plans(self) -> None:
        """Discard all plans without touching their futures: in a forked child, nobody may ever release their locks."""
        self._pending.clear()
        self._set_aside.clear()
        self._planned = None

    def _set_plans_aside(self) -> None:
        self._set_aside |= {(span.start_bit, span.end_bit, span.level): future for span, future in self._pending}
        self._pending.clear()
        self._planned = None

    def _bits(self, bit: int, count: int) -> int:
        first = bit // 8
        data = read_up_to(self._source, first, (bit + count + 7) // 8 - first)
        if len(data) * 8 < bit % 8 + count:
            raise TruncatedImage("the source ends within it", structure="bzip2 stream", offset=first + len(data))
        return read_bits(data, bit % 8, count)


def stream_level(header: bytes) -> int | None:
    """Block size (1-9, in units of 100,000 bytes) in a stream header; None when `header` is not one."""
    if len(header) == _HEADER_BYTES and header[:3] == b"BZh" and header[3:4] in b"123456789":
        return header[3] - ord("0")
    return None


def decode_slowly(engine: Engine, source: ReadAt, bit: int, level: int) -> Decoded:
    """The block at `bit`, wherever it ends.

    Raises:
        DamagedBlock: The block's data is damaged.
        TruncatedImage: The source ends within the block.
    """
    first = bit // 8
    data = read_up_to(source, first, _LARGEST_BLOCK)
    found = engine.decode_open(data, bit - first * 8, level)
    if found is not None:
        return dataclasses.replace(found, end_bit=first * 8 + found.end_bit)
    if len(data) == _LARGEST_BLOCK:
        raise DamagedBlock
    raise TruncatedImage(
        f"the source ends within it (the block starts at bit {bit})",
        structure="bzip2 block",
        offset=first,
        expected="a block or end-of-stream magic after it",
        found="none",
    )


def _garbage(byte: int) -> Problem:
    return Problem("bzip2 source", "bytes follow the last stream and are not bzip2", byte)


def _size_of(span: _Span, future: Future[Decoded | None]) -> int:
    """Number of decoded bytes of a planned block: the real one if it is already decoded, otherwise an expected one."""
    decoded = _decoded_by(future)
    return span.expected_size() if decoded is None else decoded.block.size


def _decoded_by(future: Future[Decoded | None]) -> Decoded | None:
    """Block that a future has decoded; None where it has none, or none yet."""
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    return None
