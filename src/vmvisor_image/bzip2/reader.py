"""Random access to bzip2-compressed data, decoding only the blocks that are needed, each once, in parallel."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmvisor_image.base.cores import available_cores
from vmvisor_image.base.destination import check_cache
from vmvisor_image.base.forking import restart_in_child
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.open_options import Progress
from vmvisor_image.bzip2.cache import BlockCache
from vmvisor_image.bzip2.choose import make_engine
from vmvisor_image.bzip2.decode import Block, DamagedBlock, read_bits
from vmvisor_image.bzip2.engines import Decoded, EngineName
from vmvisor_image.bzip2.index import BlockEntry
from vmvisor_image.bzip2.index_file import (
    CACHE_SUFFIX,
    INDEX_SUFFIX,
    IndexRejected,
    SavedIndex,
    default_paths,
    load_index,
    save_index,
)
from vmvisor_image.bzip2.salvage import SalvagedBlock, salvage
from vmvisor_image.bzip2.scan import CRC_BITS, MAGIC_BITS, count_blocks
from vmvisor_image.bzip2.walk import BlockWalk, decode_slowly
from vmvisor_image.errors import ClosedError, CorruptImage, DestinationFailed, InvalidArgument, Problem
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.fingerprint import fingerprint, is_identified
from vmvisor_image.streams.opening import OpenedSource, SourceLike, open_source
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import Source, check_range, past_end

if TYPE_CHECKING:
    from vmvisor_image.bzip2.decoded_cache import DecodedCache

_CACHE_BYTES = 64_000_000
_REMEMBERED_BYTES = 4 << 20
_SHORT_BITS = 8 * 4096
"""Longest compressed block, in bits, that is remembered by its bits: a disk's empty space consists of equal blocks."""
_BLOCKS_AHEAD = 3
"""Number of blocks per thread that are being decoded or waiting: enough to keep every thread busy."""
_BLOCK_BYTES = 900_000
"""Usual number of decoded bytes of a block."""
_PATIENCE = 0.01
"""Seconds after which a waiting thread checks whether another thread has passed the block it needs."""
HEALTHY_BEHIND = "blocks behind the damage"
"""Name of the number of healthy blocks behind damage in `Bzip2Reader.check_blocks`."""
_ENDLESS = 1 << 63
"""Offset past the end of any data."""


@dataclass(frozen=True, slots=True)
class Bzip2Stats:
    """Statistics of a reader's work so far."""

    blocks_known: int
    """Number of blocks whose place in the decoded data is known: all up to the furthest byte that was needed."""
    blocks_decoded: int
    """Number of blocks that were decoded, including repeated decoding."""
    blocks_repeated: int
    """Number of short blocks not decoded, because one with the same bits was in memory."""


class Bzip2Reader(Source):
    """The decoded data of a bzip2 source as a `ReadAt`; any number of threads may read.

    The first access to an offset decodes every block up to it, because a block's decoded size can't be known
    otherwise; after that each block is decoded by itself. Ranges announced by `prefetch` are decoded ahead in a pool
    of threads, and nothing is decoded past them.
    """

    def __init__(
        self,
        source: SourceLike,
        *,
        threads: int | None = None,
        cache_bytes: int = _CACHE_BYTES,
        meter: Meter | None = None,
        progress: Progress | None = None,
        index: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | bool | None = None,
    ) -> None:
        """Read the first stream's header, and the index where there is one.

        Args:
            source: The compressed bytes: any `ReadAt`, or anything else that `Image.open` takes. A source opened by the
                reader is closed with it; one opened by the caller stays open.
            threads: Number of decoding threads; None for one per core.
            cache_bytes: Memory for decoded blocks, in bytes.
            meter: Counter of decoded bytes, which ends decoding at its limit.
            progress: Called for each block that is passed for the first time.
            index: File for the block index, which is used if it exists, and written by `close` when more is known.
                "auto" for the usual places of a source that is a file: beside it, otherwise in the user's cache
                directory; it is then no error if none of them can be written. An index that is damaged or belongs to
                another source is rejected and made anew; see `index_rejection`.
            cache: Directory for decoded data, kept as zstd for later readers; True for the usual places of a source
                that is a file, as with `index`. An index is also kept, in that directory or in the places of "auto".
                Nothing is kept of a source with neither a time nor a version, which can't be distinguished from others.

        Raises:
            OSError: The source is a path, and its file can't be opened.
            CorruptImage: The source is not bzip2.
            InvalidArgument: `threads` is below 1, `index` is an existing file that is not an index, or `cache` is a
                file.
            DestinationFailed: The file `index` can't be read.
        """
        if threads is not None and threads < 1:
            raise InvalidArgument(f"threads must be at least 1, not {threads}")
        check_cache(cache)
        opened = open_source(source)
        try:
            self._begin(opened, threads, cache_bytes, meter, progress, index, cache)
        except BaseException:
            opened.close()
            raise

    def _begin(
        self,
        opened: OpenedSource,
        threads: int | None,
        cache_bytes: int,
        meter: Meter | None,
        progress: Progress | None,
        index: str | os.PathLike[str] | None,
        cache: str | os.PathLike[str] | bool | None,
    ) -> None:
        self._opened = opened
        self._source = source = opened.source
        self._engine = make_engine()
        self._given_threads, self._given_index, self._given_cache = threads, index, cache
        cache = cache if cache and is_identified(source) else None
        self._fingerprint = fingerprint(source) if index is not None or cache else None
        if cache and index is None:
            name = f"{(self._fingerprint or b'').hex()[:16]}{INDEX_SUFFIX}"
            index = "auto" if cache is True else os.path.join(cache, name)  # noqa: PTH118  # may be any PathLike
        self._threads = threads or available_cores()
        self._meter = meter or Meter()
        self._progress = progress
        self._total = source.size if progress is not None and knows_size(source) else None
        self._announced = (0, 0)
        self._index_paths: tuple[str | os.PathLike[str], ...] = ()
        self._index_is_optional = index == "auto" or self._given_index is None
        if index == "auto":
            path = source.kept_beside
            self._index_paths = () if path is None else default_paths(path)
        elif index is not None:
            self._index_paths = (index,)
        self._kept = self._open_cache(cache)
        self.index_rejection: IndexRejected | None = None
        """Error for which a saved index was not used; None without one."""
        self.index_path: str | None = None
        """Path of the file that the index was read from, or was last written to by `close`."""
        self._walk_lock = threading.RLock()
        """Lock held while a block is passed; reentrant, so that `progress` may read."""
        self._walk = BlockWalk(source, self._engine, self._start, self._decode_slowly, self._load_index())
        self._lock = threading.RLock()
        """Lock of the attributes that follow; held only briefly, and never while waiting."""
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._cache: BlockCache[BlockEntry] = self._new_cache(cache_bytes)
        self._loading: dict[BlockEntry, Future[Decoded | None]] = {}
        self._repeats: BlockCache[tuple[int, int, int]] = BlockCache(_REMEMBERED_BYTES)
        self._decoded = self._repeated = 0
        restart_in_child(self)

    @property
    def size(self) -> int:
        """Decoded length in bytes; the first call decodes to the end.

        Raises:
            CorruptImage: A block or a stream is damaged.
        """
        self._walk_past(_ENDLESS, _ENDLESS)
        self._raise_failure()
        return self._walk.index.end

    @property
    def size_is_known(self) -> bool:
        """Whether `size` needs no more decoding."""
        return self._walk.finished

    @property
    def healthy_size(self) -> int:
        """Number of decoded bytes up to the end of the furthest block that was passed."""
        return self._walk.index.end

    @property
    def engine(self) -> EngineName:
        """Name of the engine that decodes: see `vmvisor_image.bzip2.engine`."""
        return self._engine.name

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._meter

    @property
    def source(self) -> Source:
        """The compressed data."""
        return self._source

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems found so far: bytes after the last stream, and damage that ended the data."""
        failure, trailing = self._walk.failure, self._walk.trailing
        found = (trailing, None if failure is None else Problem.of(failure))
        return tuple(problem for problem in found if problem is not None)

    @property
    def damage(self) -> CorruptImage | None:
        """Error that ended the data before the source's end, as far as it was read; None without one."""
        return copy.copy(self._walk.failure)

    @property
    def stats(self) -> Bzip2Stats:
        """Statistics of the work so far."""
        with self._lock:
            return Bzip2Stats(len(self._walk.index), self._decoded, self._repeated)

    @property
    def streams_known(self) -> int:
        """Number of streams that hold the blocks known so far; a stream without blocks is not counted."""
        index = self._walk.index
        # Blocks of the same stream are adjacent.
        joints = sum(index[number].start_bit != index[number - 1].end_bit for number in range(1, len(index)))
        return joints + 1 if len(index) else 0

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """Numbers of the blocks and streams with the right checksums, by name, after decoding all of them.

        If the data is damaged, the healthy blocks behind the damage, and their bytes, are also counted.
        """
        counts: tuple[tuple[str, int], ...] = (("blocks", self.stats.blocks_known), ("streams", self.streams_known))
        try:
            _ = self.size
        except CorruptImage:
            behind = [len(block.data) for block in self.salvage()]
            counts += ((HEALTHY_BEHIND, len(behind)), ("bytes behind the damage", sum(behind)))
        return counts

    def count_blocks(self) -> int:
        """Number of blocks in the source, found by their magic without decoding; reads the whole source."""
        return count_blocks(self._source, self._engine.find_magic)

    def count_blocks_behind_damage(self) -> int:
        """Number of blocks behind the damage that was found, healthy or not; reads the source from there on.

        They are found by their magic, without decoding any; 0 where no damage was found.
        """
        walk = self._walk
        return 0 if walk.failure is None else count_blocks(self._source, self._engine.find_magic, walk.behind_failure)

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: A block up to the range's end is damaged.
            TruncatedImage: The range passes the end of the data, or the source is cut off.
        """
        data = self.read_up_to(offset, length)
        if len(data) < length:
            raise past_end("bzip2 data", offset, length, self._walk.index.end)
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only at the end of the data.

        Raises:
            CorruptImage: A block up to the range's end is damaged.
        """
        pieces: list[bytes] = []
        for at, block, first in self._blocks(offset, length):
            if at == offset:
                pieces.clear()
            pieces += block.read(first, offset + length - at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`.

        Raises:
            CorruptImage: A block up to the end of what `buffer` takes is damaged.
        """
        count = 0
        for at, block, first in self._blocks(offset, len(buffer)):
            count = at - offset + block.read_into(first, buffer[at - offset :])
        return count

    def _blocks(self, offset: int, length: int) -> Iterator[tuple[int, Block, int]]:
        """Offset, the block that has it, and the byte in that block, for each block of a range up to the data's end.

        They start again at `offset`, with an empty block, where the index turns out to be wrong.
        """
        check_range(offset, length)
        self._check_open()
        start, end = offset, offset + length
        while offset < end:
            if self._kept is not None and (piece := self._kept.read(offset, end - offset)):
                yield offset, Block((piece,), len(piece), len(piece)), 0
                offset += len(piece)
                continue
            walk = self._walk
            if offset >= walk.index.end:
                self._walk_past(offset, end)
                if offset >= self._walk.index.end:
                    self._raise_failure()
                    break
                continue
            number = walk.index.find(offset)
            entry = walk.index[number]
            block = self._block(walk, number, end)
            if block is None:
                # The index is wrong here, and may also have misplaced the data read so far.
                if not self._drop_index(walk):
                    raise _changed(entry)
                offset = start
                yield offset, Block((), 0, 0), 0
                continue
            yield offset, block, offset - entry.start
            offset = entry.start + entry.size

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.reading.skip_zeros`; the index records blocks that are all zeros."""
        index = self._walk.index
        while offset < min(end, index.end):
            entry = index[index.find(offset)]
            if not entry.is_zero:
                break
            offset = entry.start + entry.size
        return min(offset, end)

    def prefetch(self, offset: int, length: int) -> None:
        """Announce that a range will be read: blocks are decoded ahead up to its end, but not past it."""
        check_range(offset, length)
        end = offset + length
        self._announced = (offset, end)
        # Where another thread walks, it sees the announcement itself.
        if end > self._walk.index.end and self._walk_lock.acquire(blocking=False):
            try:
                self._walk.plan(end, *self._ahead)
            finally:
                self._walk_lock.release()

    def salvage(self) -> Iterator[SalvagedBlock]:
        """The healthy blocks behind the damage that ended the data; empty without damage.

        Reads up to the damage first. The place of these blocks in the decoded data is unknown.
        """
        with contextlib.suppress(CorruptImage):
            self._walk_past(_ENDLESS, _ENDLESS)
        walk = self._walk
        return iter(()) if walk.failure is None else salvage(self._engine, self._source, walk.behind_failure)

    def open(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the decoded data."""
        return open_stream(self)

    def save_index(self, path: str | os.PathLike[str]) -> None:
        """Write an index of the blocks known so far; the file appears whole or not at all.

        Raises:
            DestinationFailed: The file can't be written.
        """
        with self._walk_lock:
            saved = self._walk.snapshot()
        save_index(path, saved, self._fingerprint or fingerprint(self._source))

    @property
    def local_paths(self) -> tuple[str, ...]:
        """See `Source.local_paths`."""
        return self._source.local_paths

    def close(self) -> None:
        """Stop the threads and write the index, where one is kept; later reads raise `ClosedError`.

        A source opened by the caller stays open.

        Raises:
            DestinationFailed: The index can't be written.
        """
        with self._lock:
            was_closed, self._closed = self._closed, True
            pool, self._pool = self._pool, None
            self._cache.clear()
            self._repeats.clear()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        if not was_closed:
            try:
                if self._kept is not None:
                    self._kept.close()
                self._keep_index()
            finally:
                self._opened.close()

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self._opened, self._given_threads, self._cache.limit, self._given_index, self._given_cache)
        return (_reopen, given)

    def start_in_child(self) -> None:
        """Leave the threads, and the work that they were doing, to the parent, after a fork."""
        if not self._lock.acquire(blocking=False):  # a thread of the parent was changing what it guards
            self._cache, self._repeats = self._new_cache(self._cache.limit), BlockCache(self._repeats.limit)
        self._walk_lock, self._lock = threading.RLock(), threading.RLock()
        self._pool = None
        self._loading = {}
        self._walk.forget_plans()
        if self._kept is not None:
            self._kept.start_in_child()

    def _new_cache(self, limit: int) -> BlockCache[BlockEntry]:
        return BlockCache(limit, decodes_quickly=self._engine.is_quick)

    def _open_cache(self, cache: str | os.PathLike[str] | bool | None) -> DecodedCache | None:
        if cache is None or cache is False:
            return None
        from vmvisor_image.bzip2.decoded_cache import DecodedCache

        key = fingerprint(self._source, exact=True)  # unlike the index, it is not held against the source
        if cache is not True:
            return DecodedCache(cache, key)
        path = self._source.kept_beside
        if path is None:
            return None
        for folder in default_paths(path, CACHE_SUFFIX):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                if os.access(folder, os.W_OK):
                    return DecodedCache(folder, key, exclusive=True)
        return None

    def _load_index(self) -> SavedIndex | None:
        for path in self._index_paths:
            try:
                saved = load_index(path, self._fingerprint or fingerprint(self._source), self._source.size)
            except FileNotFoundError:
                continue
            except IndexRejected as error:
                if error.is_foreign and not self._index_is_optional:
                    raise InvalidArgument(f"{os.fspath(path)} is not an index, and would be overwritten") from error
                self.index_rejection = copy.copy(error)
            except OSError as error:
                if not self._index_is_optional:
                    failed = DestinationFailed(f"{os.fspath(path)}: the index can't be read ({error.strerror})")
                    failed.errno = error.errno
                    raise failed from error
            else:
                self.index_path = os.fspath(path)
                return saved
        return None

    def _keep_index(self) -> None:
        """Write the index to the first of its paths that can be written, if it has more blocks than the saved one."""
        known = len(self._walk.index)
        if known <= self._walk.saved_blocks:
            return
        if self.index_rejection is None:
            written = self._load_index()
            if written is not None and len(written.entries) >= known:
                return  # another process came as far
        failed: OSError | None = None
        for path in self._index_paths:
            try:
                self.save_index(path)
                self.index_path = os.fspath(path)
                return
            except OSError as error:
                failed = error
        if failed is not None and not self._index_is_optional:
            raise failed

    @property
    def _depth(self) -> int:
        """Number of blocks that are decoded ahead, at most."""
        return self._threads * _BLOCKS_AHEAD if self._threads > 1 else 1

    @property
    def _ahead(self) -> tuple[int, int]:
        """Number of blocks that are decoded ahead, and number of bytes of memory that they take, at most."""
        return self._depth, self._cache.limit // 2

    def _walk_past(self, offset: int, goal: int) -> None:
        """Pass blocks until the one with decoded byte `offset` is known, or the data ends.

        Blocks up to decoded byte `goal` are decoded ahead.
        """
        while not self._has_passed(offset):
            if not self._walk_lock.acquire(timeout=_PATIENCE):
                continue  # another thread walks and may have come past the offset
            try:
                if not self._has_passed(offset):
                    self._step(goal)
            finally:
                self._walk_lock.release()

    def _has_passed(self, offset: int) -> bool:
        walk = self._walk
        return walk.index.end > offset or walk.finished

    def _step(self, goal: int) -> None:
        """Pass one block, while the caller holds the walk's lock."""
        self._meter.check()
        walk = self._walk
        walk.plan(max(goal, self._announced[1]), *self._ahead)
        try:
            entry, block = walk.advance()
        except CancelledError:
            raise ClosedError("bzip2 data: closed while it was read") from None
        except CorruptImage:
            if not walk.damage_is_known and self._drop_index(walk):
                return  # the index may be wrong, not the data
            raise
        if walk.failure is not None and not walk.damage_is_known and self._drop_index(walk):
            return  # the block is good, but the stream that it ends seems damaged
        self._keep(entry, block, walk.held_ahead)
        if self._kept is not None:
            self._kept.add(entry.start, block.segments)
        walk.plan(max(goal, self._announced[1]), *self._ahead)
        if self._progress is not None:
            is_end = walk.finished and walk.failure is None
            self._progress(self._total if is_end and self._total is not None else entry.end_bit // 8, self._total)

    def _drop_index(self, walk: BlockWalk) -> bool:
        """Whether the walk was started again without the saved index of `walk`, by this call or another thread."""
        with self._walk_lock:
            if self._walk is not walk:
                return True
            if not walk.saved_blocks:
                return False
            self.index_rejection = IndexRejected("its blocks are not where it says", structure="bzip2 index file")
            with self._lock:
                self._cache.clear()
            if self._kept is not None:
                self._kept.forget()  # it was placed by that index
            self._walk = BlockWalk(self._source, self._engine, self._start, self._decode_slowly)
            return True

    def _raise_failure(self) -> None:
        if self._walk.failure is not None:
            raise copy.copy(self._walk.failure)

    def _block(self, walk: BlockWalk, number: int, end: int) -> Block | None:
        """A known block, from memory or decoded now; decoding of the blocks after it, up to byte `end`, is started.

        None if the block does not decode as the index describes it.
        """
        self._meter.check()
        first, last = self._announced
        entry = walk.index[number]
        goal = max(end, last) if first <= entry.start < last else end
        # More than half of the cache decoded ahead would push each other out before they are read.
        most = min(self._depth, self._cache.limit // 2 // _BLOCK_BYTES)
        found = self._load(entry)
        for each in range(number + 1, min(number + most, len(walk.index))):
            if walk.index[each].start >= goal:
                break
            if self._kept is None or not self._kept.has(walk.index[each].start):
                self._load(walk.index[each])
        try:
            block = found if isinstance(found, Block) else _block_of(found.result())
        except CancelledError:
            raise ClosedError("bzip2 data: closed while it was read") from None
        if block is None or block.size != entry.size:
            return None
        if self._kept is not None:
            self._kept.add(entry.start, block.segments)
        return block

    def _load(self, entry: BlockEntry) -> Block | Future[Decoded | None]:
        with self._lock:
            found = self._cache.get(entry) or self._loading.get(entry)
            if found is not None:
                return found
            future = self._submit(entry.start_bit, entry.end_bit, entry.level, entry.crc)
            self._loading[entry] = future
            future.add_done_callback(lambda done: self._loaded(entry, done))
            return future

    def _loaded(self, entry: BlockEntry, future: Future[Decoded | None]) -> None:
        block = None if future.cancelled() or future.exception() else _block_of(future.result())
        with self._lock:
            if block is not None:
                self._keep(entry, block)
            self._loading.pop(entry, None)

    def _keep(self, entry: BlockEntry, block: Block, held_ahead: int = 0) -> None:
        with self._lock:
            if not self._closed:
                self._cache.put(entry, block, held_ahead)

    def _start(self, start_bit: int, end_bit: int, level: int) -> Future[Decoded | None]:
        """Start decoding a block on the way of the walk; a short one is decoded immediately.

        Short blocks are a disk's empty space, mostly remembered, or the 19 bytes that end each stream of pbzip2. Their
        decoded size can't be guessed, but determines which blocks after them need to be decoded ahead.
        """
        if end_bit - start_bit > _SHORT_BITS:
            return self._submit(start_bit, end_bit, level)
        future: Future[Decoded | None] = Future()
        try:
            self._check_open()
            future.set_result(self._decode(start_bit, end_bit, level))
        except Exception as error:  # noqa: BLE001  # it is raised where the result is asked for, as in a pool
            future.set_exception(error)
        return future

    def _submit(self, start_bit: int, end_bit: int, level: int, crc: int | None = None) -> Future[Decoded | None]:
        with self._lock:
            self._check_open()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bzip2")
            return self._pool.submit(self._decode, start_bit, end_bit, level, crc)

    def _decode(self, start_bit: int, end_bit: int, level: int, crc: int | None = None) -> Decoded | None:
        """Decoded block; None if its header has another CRC than the given one, it ends elsewhere, or it is damaged.

        A block that is not known yet, for which no CRC is given, may end before `end_bit`.

        Damage raises no exception here, because the future would keep the data decoded so far with the exception's
        traceback, until the garbage collector runs.
        """
        first = start_bit // 8
        data = read_up_to(self._source, first, (end_bit + MAGIC_BITS + 7) // 8 - first)
        start, end = start_bit - first * 8, end_bit - first * 8
        if len(data) * 8 < end:
            return None  # the source has shrunk
        if crc is not None and read_bits(data, start + MAGIC_BITS, CRC_BITS) != crc:
            return None  # or changed
        key = None
        if end - start <= _SHORT_BITS:
            key = (level, end - start, read_bits(data, start, end - start))
            with self._lock:
                block = self._repeats.get(key)
                if block is not None:
                    self._repeated += 1
                    stored = read_bits(data, start + MAGIC_BITS, CRC_BITS)
                    return Decoded(block, end_bit, stored, is_followed=True)
        found = self._decode_whole(data, start, end, level, is_known=crc is not None)
        if found is not None:
            self._meter.add(found.block.size)
        with self._lock:
            self._decoded += 1
            if found is None:
                return None
            if (
                key is not None
                and found.end_bit == end
                and found.is_followed
                and found.block.held < self._repeats.limit
            ):
                self._repeats.put(key, found.block)
        return dataclasses.replace(found, end_bit=first * 8 + found.end_bit)

    def _decode_whole(self, data: bytes, start: int, end: int, level: int, *, is_known: bool) -> Decoded | None:
        """Decoded block of `data`, or None; a known block may be one that no magic follows, but has to end at `end`."""
        found = None
        try:
            found = self._engine.decode(data, start, end, level)
        except DamagedBlock:
            if is_known:
                with contextlib.suppress(DamagedBlock):
                    found = self._engine.decode_open(data, start, level)
        return found if found is None or not is_known or found.end_bit == end else None

    def _decode_slowly(self, start_bit: int, level: int) -> Decoded:
        """Decode the block that the walk is at, wherever it ends; see `decode_slowly`."""
        found = decode_slowly(self._engine, self._source, start_bit, level)
        self._meter.add(found.block.size)
        with self._lock:
            self._decoded += 1
        return found

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("bzip2 data: read after close")


def _reopen(
    opened: OpenedSource,
    threads: int | None,
    cache_bytes: int,
    index: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str] | bool | None,
) -> Bzip2Reader:
    reader = Bzip2Reader(opened.source, threads=threads, cache_bytes=cache_bytes, index=index, cache=cache)
    reader._opened = opened
    return reader


def _block_of(decoded: Decoded | None) -> Block | None:
    return None if decoded is None else decoded.block


def _changed(entry: BlockEntry) -> CorruptImage:
    return CorruptImage(
        "it is not what it was when it was first read", structure="bzip2 block", offset=entry.start_bit // 8
    )
