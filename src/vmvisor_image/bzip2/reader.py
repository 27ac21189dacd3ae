"""Random access to bzip2-compressed data, decoding only the blocks that are needed, each once, in parallel."""

from __future__ import annotations

import copy
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from vmvisor_image.bzip2.cache import BlockCache
from vmvisor_image.bzip2.decode import Block, DamagedBlock, decode_block, read_bits
from vmvisor_image.bzip2.index import BlockIndex
from vmvisor_image.bzip2.scan import MAGIC_BITS, count_blocks
from vmvisor_image.bzip2.walk import BlockWalk
from vmvisor_image.errors import ClosedError, CorruptImage, InvalidArgument, Problem
from vmvisor_image.streams import ReadAt, check_range, open_stream, past_end, read_up_to

Progress = Callable[[int, int | None], None]
"""Called with the compressed bytes passed so far and in all (None where that is not known)."""

_CACHE_BYTES = 32 << 20
_REMEMBERED_BYTES = 4 << 20
_SHORT_BITS = 8 * 4096
"""Blocks up to this compressed length are remembered by their bits: a disk's empty space is made of equal ones."""
_BLOCKS_AHEAD = 3
"""Blocks in work or waiting, per thread: enough that no thread idles while one block is consumed."""
_BLOCK_BYTES = 900_000
"""What a block usually decodes to."""
_PATIENCE = 0.01
"""Seconds after which a thread looks whether the block it waits for has been passed by another one."""
_ENDLESS = 1 << 63
"""Past the end of any data."""


@dataclass(frozen=True, slots=True)
class Bzip2Stats:
    """What a reader has done so far."""

    blocks_known: int
    """Blocks whose place in the decoded data is known: every block up to the furthest byte that was needed."""
    blocks_decoded: int
    """Blocks that libbz2 decoded, those decoded again included."""
    blocks_repeated: int
    """Blocks that were not decoded because a short block with the same bits had been."""


class Bzip2Reader:
    """The decoded data of a bzip2 source as a `ReadAt`; any number of threads may read.

    The first access to an offset decodes every block up to it, because a block's decoded size can't be known
    otherwise; after that each block is decoded by itself. What `prefetch` announces is decoded ahead in a pool
    of threads, and nothing is decoded past it.
    """

    def __init__(
        self,
        source: ReadAt,
        *,
        threads: int | None = None,
        cache_bytes: int = _CACHE_BYTES,
        progress: Progress | None = None,
    ) -> None:
        """Read the first stream's header.

        Args:
            source: The compressed bytes. The reader does not close it.
            threads: Threads that decode; None for one a core.
            cache_bytes: Memory for decoded blocks.
            progress: Told of each block that is passed for the first time.

        Raises:
            CorruptImage: The source is not bzip2.
            InvalidArgument: `threads` is below 1.
        """
        if threads is not None and threads < 1:
            raise InvalidArgument(f"threads must be at least 1, not {threads}")
        self._source = source
        self._threads = threads or available_cores()
        self._progress = progress
        # A bzip2 source would have to be decoded to its end to know its size.
        self._total = None if isinstance(source, Bzip2Reader) else source.size
        self._index = BlockIndex()
        self._announced = (0, 0)
        self._walk_lock = threading.RLock()
        """Held while a block is passed; reentrant, so that `progress` may read."""
        self._walk = BlockWalk(source, self._index, self._start)
        self._lock = threading.RLock()
        """Guards what follows; held only for moments, and nothing is waited for while it is."""
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._cache: BlockCache[int] = BlockCache(cache_bytes)
        self._loading: dict[int, Future[Block | None]] = {}
        self._repeats: BlockCache[tuple[int, int, int]] = BlockCache(_REMEMBERED_BYTES)
        self._decoded = self._repeated = 0

    @property
    def size(self) -> int:
        """Decoded length in bytes; the first call decodes to the end.

        Raises:
            CorruptImage: A block or a stream is damaged.
        """
        self._walk_past(_ENDLESS, _ENDLESS)
        self._raise_failure()
        return self._index.end

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found so far that is no part of the data: bytes after the last stream, a failed check."""
        failure, trailing = self._walk.failure, self._walk.trailing
        found = (trailing, None if failure is None else Problem.of(failure))
        return tuple(problem for problem in found if problem is not None)

    @property
    def stats(self) -> Bzip2Stats:
        """What was done so far."""
        with self._lock:
            return Bzip2Stats(len(self._index), self._decoded, self._repeated)

    def count_blocks(self) -> int:
        """How many blocks the source holds, found by their magic without decoding; reads all of it."""
        return count_blocks(self._source)

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: A block up to the range's end is damaged.
            TruncatedImage: The range passes the end of the data, or the source is cut off.
        """
        data = self.read_up_to(offset, length)
        if len(data) < length:
            raise past_end("bzip2 data", offset, length, self._index.end)
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only at the end of the data."""
        check_range(offset, length)
        self._check_open()
        end = offset + length
        pieces: list[bytes] = []
        while offset < end:
            if offset >= self._index.end:
                self._walk_past(offset, end)
                if offset >= self._index.end:
                    self._raise_failure()
                    break
            number = self._index.find(offset)
            entry = self._index[number]
            found = self._block(number, end).read(offset - entry.start, end - offset)
            pieces += found
            offset += sum(map(len, found))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, offset: int, length: int) -> None:
        """Announce that a range will be read: blocks are decoded ahead up to its end and no further."""
        check_range(offset, length)
        end = offset + length
        self._announced = (offset, end)
        # Where another thread walks, it sees the announcement itself.
        if end > self._index.end and self._walk_lock.acquire(blocking=False):
            try:
                self._walk.plan(end, self._depth)
            finally:
                self._walk_lock.release()

    def open(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the decoded data."""
        return open_stream(self)

    def close(self) -> None:
        """Stop the threads; later reads raise `ClosedError`. The source stays open."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            self._cache.clear()
            self._repeats.clear()
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    @property
    def _depth(self) -> int:
        return self._threads * _BLOCKS_AHEAD if self._threads > 1 else 1

    def _walk_past(self, offset: int, goal: int) -> None:
        """Pass blocks until the one with decoded byte `offset` is known, or as far as the source goes.

        Blocks up to decoded byte `goal` are decoded ahead.
        """
        while self._index.end <= offset and not self._walk.finished:
            if not self._walk_lock.acquire(timeout=_PATIENCE):
                continue  # another thread walks and may have come past the offset
            try:
                if self._index.end <= offset and not self._walk.finished:
                    self._step(goal)
            finally:
                self._walk_lock.release()

    def _step(self, goal: int) -> None:
        """Pass one block; the walk's lock is held."""
        self._walk.plan(max(goal, self._announced[1]), self._depth)
        try:
            entry, block = self._walk.advance()
        except CancelledError:
            raise ClosedError("bzip2 data: closed while it was read") from None
        self._keep(self._index.find(entry.start), block)
        self._walk.plan(max(goal, self._announced[1]), self._depth)
        if self._progress is not None:
            self._progress(entry.end_bit // 8, self._total)

    def _raise_failure(self) -> None:
        if self._walk.failure is not None:
            raise copy.copy(self._walk.failure)

    def _block(self, number: int, end: int) -> Block:
        """A known block, from memory or decoded now, with those after it up to `end` started."""
        first, last = self._announced
        entry = self._index[number]
        goal = max(end, last) if first <= entry.start < last else end
        # More than half of the cache decoded ahead would push each other out before they are read.
        most = min(self._depth, self._cache.limit // 2 // _BLOCK_BYTES)
        found = self._load(number)
        for each in range(number + 1, min(number + most, len(self._index))):
            if self._index[each].start >= goal:
                break
            self._load(each)
        try:
            block = found if isinstance(found, Block) else found.result()
        except CancelledError:
            raise ClosedError("bzip2 data: closed while it was read") from None
        except DamagedBlock:
            block = None
        if block is None or block.size != entry.size:
            raise CorruptImage(
                "it is not what it was when it was first read", structure="bzip2 block", offset=entry.start_bit // 8
            )
        return block

    def _load(self, number: int) -> Block | Future[Block | None]:
        with self._lock:
            found = self._cache.get(number) or self._loading.get(number)
            if found is not None:
                return found
            entry = self._index[number]
            future = self._submit(entry.start_bit, entry.end_bit, entry.level)
            self._loading[number] = future
            future.add_done_callback(lambda done: self._loaded(number, done))
            return future

    def _loaded(self, number: int, future: Future[Block | None]) -> None:
        block = None if future.cancelled() or future.exception() else future.result()
        with self._lock:
            if block is not None:
                self._keep(number, block)
            self._loading.pop(number, None)

    def _keep(self, number: int, block: Block) -> None:
        with self._lock:
            if not self._closed:
                self._cache.put(number, block)

    def _start(self, start_bit: int, end_bit: int, level: int) -> Future[Block | None]:
        """Start decoding a block that the walk comes to; a short one is decoded at once.

        Short blocks are a disk's empty space, mostly remembered ones, or the 19 bytes that end each stream of
        pbzip2. What they decode to can't be guessed and decides what needs to be decoded ahead after them.
        """
        if end_bit - start_bit > _SHORT_BITS:
            return self._submit(start_bit, end_bit, level)
        future: Future[Block | None] = Future()
        try:
            self._check_open()
            future.set_result(self._decode(start_bit, end_bit, level))
        except Exception as error:  # noqa: BLE001  # it is raised where the result is asked for, as in a pool
            future.set_exception(error)
        return future

    def _submit(self, start_bit: int, end_bit: int, level: int) -> Future[Block | None]:
        with self._lock:
            self._check_open()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bzip2")
            return self._pool.submit(self._decode, start_bit, end_bit, level)

    def _decode(self, start_bit: int, end_bit: int, level: int) -> Block | None:
        first = start_bit // 8
        data = read_up_to(self._source, first, (end_bit + MAGIC_BITS + 7) // 8 - first)
        start, end = start_bit - first * 8, end_bit - first * 8
        if len(data) * 8 < end:
            return None  # the source has shrunk
        key = None
        if end - start <= _SHORT_BITS:
            key = (level, end - start, read_bits(data, start, end - start))
            with self._lock:
                block = self._repeats.get(key)
                if block is not None:
                    self._repeated += 1
                    return block
        block = decode_block(data, start, end, level)
        with self._lock:
            self._decoded += 1
            if key is not None and block is not None and block.held < self._repeats.limit:
                self._repeats.put(key, block)
        return block

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("bzip2 data: read after close")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
