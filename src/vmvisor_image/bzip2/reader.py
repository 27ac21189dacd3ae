"""Random access to bzip2-compressed data, decoding only the blocks that are needed, each once, in parallel."""

from __future__ import annotations

import copy
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from vmvisor_image.bzip2.decode import Block, decode_block
from vmvisor_image.bzip2.index import BlockIndex
from vmvisor_image.bzip2.scan import MAGIC_BITS, count_blocks
from vmvisor_image.bzip2.walk import BlockWalk
from vmvisor_image.errors import ClosedError, InvalidArgument, Problem
from vmvisor_image.streams import ReadAt, check_range, open_stream, past_end

Progress = Callable[[int, int | None], None]
"""Called with the compressed bytes passed so far and in all (None where that is not known)."""

_CACHE_BYTES = 32 << 20
_REMEMBERED_BITS = 8 * 4096
_REMEMBERED_BLOCKS = 64
_REMEMBERED_SIZE = 1 << 20
_BLOCKS_AHEAD = 3
"""Blocks in work or waiting, per thread: enough that no thread idles while one block is consumed."""


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
        self._index = BlockIndex()
        self._walk_lock = threading.RLock()
        self._walk = BlockWalk(source, self._submit)
        self._goal = 0
        self._lock = threading.Lock()
        """Guards what follows; held only for moments."""
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._cache: OrderedDict[int, Block] = OrderedDict()
        self._cache_limit = cache_bytes
        self._cached_bytes = 0
        self._loading: dict[int, Future[Block | None]] = {}
        self._announced = (0, 0)
        self._repeats: OrderedDict[tuple[int, int, int], Block] = OrderedDict()
        self._decoded = self._repeated = 0

    @property
    def size(self) -> int:
        """Decoded length in bytes; the first call decodes to the end.

        Raises:
            CorruptImage: A block or a stream is damaged.
        """
        while not self._walk.finished:
            self._walk_to(self._index.end + 1)
        self._raise_failure()
        return self._index.end

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found so far that is no part of the data: bytes after the last stream, a failed check."""
        failure = self._walk.failure
        return (*self._walk.problems, *(() if failure is None else (Problem.of(failure),)))

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
        if self._closed:
            raise ClosedError("bzip2 data: read after close")
        end = offset + length
        pieces: list[bytes] = []
        while offset < end:
            if offset >= self._index.end:
                self._walk_to(end)
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
        end = offset + length
        self._announced = (offset, end)
        self._goal = max(self._goal, end)
        if end > self._index.end and self._walk_lock.acquire(blocking=False):
            try:
                self._plan()
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
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    @property
    def _depth(self) -> int:
        return self._threads * _BLOCKS_AHEAD if self._threads > 1 else 1

    def _plan(self) -> None:
        if not self._walk.finished:
            self._walk.plan(self._index.end, self._goal, self._depth)

    def _walk_to(self, end: int) -> None:
        """Pass blocks until decoded byte `end` is covered, or as far as the source goes."""
        with self._walk_lock:
            self._goal = max(self._goal, end)
            while self._index.end < end and not self._walk.finished:
                self._plan()
                entry, block = self._walk.advance(self._index.end)
                self._keep(len(self._index), block)
                self._index.append(entry)
                self._plan()
                if self._progress is not None:
                    self._progress(entry.end_bit // 8, self._source.size)

    def _raise_failure(self) -> None:
        if self._walk.failure is not None:
            raise copy.copy(self._walk.failure)

    def _block(self, number: int, end: int) -> Block:
        """A known block, from memory or decoded now, with those after it up to `end` started."""
        first, last = self._announced
        start = self._index[number].start
        goal = max(end, last) if first <= start < last else end
        ahead = [number]
        while len(ahead) < self._depth and ahead[-1] + 1 < len(self._index) and self._index[ahead[-1] + 1].start < goal:
            ahead.append(ahead[-1] + 1)
        futures = [self._load(each) for each in ahead]
        block = futures[0] if isinstance(futures[0], Block) else futures[0].result()
        assert block is not None, "a block of the index was decoded before"
        return block

    def _load(self, number: int) -> Block | Future[Block | None]:
        with self._lock:
            block = self._cache.get(number)
            if block is not None:
                self._cache.move_to_end(number)
                return block
            future = self._loading.get(number)
            if future is not None:
                return future
        entry = self._index[number]
        future = self._submit(entry.start_bit, entry.end_bit, entry.level)
        with self._lock:
            self._loading[number] = future
        future.add_done_callback(lambda done: self._loaded(number, done))
        return future

    def _loaded(self, number: int, future: Future[Block | None]) -> None:
        block = None if future.cancelled() or future.exception() else future.result()
        if block is not None:
            self._keep(number, block)
        with self._lock:
            self._loading.pop(number, None)

    def _keep(self, number: int, block: Block) -> None:
        with self._lock:
            if number in self._cache or self._closed:
                return
            self._cache[number] = block
            self._cached_bytes += block.held
            while self._cached_bytes > self._cache_limit and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.held

    def _submit(self, start_bit: int, end_bit: int, level: int) -> Future[Block | None]:
        if self._threads == 1:
            future: Future[Block | None] = Future()
            try:
                future.set_result(self._decode(start_bit, end_bit, level))
            except Exception as error:  # noqa: BLE001  # it is raised where the result is asked for, as in a pool
                future.set_exception(error)
            return future
        with self._lock:
            if self._closed:
                raise ClosedError("bzip2 data: read after close")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bzip2")
            return self._pool.submit(self._decode, start_bit, end_bit, level)

    def _decode(self, start_bit: int, end_bit: int, level: int) -> Block | None:
        first = start_bit // 8
        data = self._source.read_at(first, min((end_bit + MAGIC_BITS + 7) // 8, self._source.size) - first)
        key = None
        if end_bit - start_bit <= _REMEMBERED_BITS:
            bits = int.from_bytes(data, "big") >> (len(data) * 8 - (end_bit - first * 8))
            key = (level, end_bit - start_bit, bits & (1 << end_bit - start_bit) - 1)
            with self._lock:
                block = self._repeats.get(key)
                if block is not None:
                    self._repeats.move_to_end(key)
                    self._repeated += 1
                    return block
        block = decode_block(data, start_bit - first * 8, end_bit - first * 8, level)
        with self._lock:
            self._decoded += 1
            if key is not None and block is not None and block.held <= _REMEMBERED_SIZE:
                self._repeats[key] = block
                if len(self._repeats) > _REMEMBERED_BLOCKS:
                    self._repeats.popitem(last=False)
        return block


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
