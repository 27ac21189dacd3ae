"""Raw files: the bytes of a disk as they are, with holes where they are zeros.

Bytes that lie in a file as they are are copied by the system, if it can. Where that ends, a second thread begins, so
that one writes while the other reads or decodes.
"""

from __future__ import annotations

import contextvars
import mmap
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

from vmvisor_image.base.destination import reading_source, writing
from vmvisor_image.base.open_options import Progress
from vmvisor_image.errors import CorruptImage, SourceError
from vmvisor_image.streams.reading import prefetch
from vmvisor_image.streams.source import Source

SUFFIXES: Final = (".raw", ".img", ".dd")
"""Suffixes of raw disks."""
_CHUNK: Final = 1 << 21
"""Bytes that are read at once: with two threads, this much is held twice."""
_AHEAD: Final = 4 * _CHUNK
"""Bytes that may be decoded while others are written."""
_HOLE: Final = 1 << 16
"""Zeros of this many bytes, at a multiple of it, are not written."""
_ZEROS: Final = bytes(_HOLE)
_GLANCE: Final = _ZEROS[:64]


def write_raw(source: Source, file: BinaryIO, target: Path, progress: Progress | None = None) -> int:
    """Number of bytes of a source, all of which are written to a new, empty file.

    Args:
        source: The source; its size need not be known.
        file: The file, open for writing without a buffer.
        target: Name of the file in messages.
        progress: Called with the bytes done so far, and None.

    Raises:
        CorruptImage: The source is damaged; of several places, the error is of the first that was found.
        SourceError: The source can't be read.
        DestinationFull: There is no room left.
        DestinationFailed: The file can't be written for another reason.
    """
    return _Copy(source, file, target, progress).run()


class _Copy:
    """One run of `write_raw`."""

    def __init__(self, source: Source, file: BinaryIO, target: Path, progress: Progress | None) -> None:
        self._source = source
        self._file = file
        self._target = target
        self._progress = progress
        self._lock = threading.Lock()
        self._second: Future[None] | None = None
        """Work of the second thread; None until it is started."""
        self._at = 0
        """First byte that no thread has taken yet."""
        self._end: int | None = source.size if source.size_is_known else None
        """Size of the source, as soon as it is known."""
        self._done = 0
        self._is_ended = False
        self._failed: list[tuple[int, CorruptImage | SourceError]] = []
        """Errors of reading, each with the first byte of the chunk that it is of."""

    def run(self) -> int:
        """See `write_raw`."""
        if self._end is not None:
            with writing(self._target):
                self._file.truncate(self._end)  # a file that grows with each write costs twice as much
        with ThreadPoolExecutor(1, thread_name_prefix="raw") as self._pool:
            try:
                self._work()
                if self._second is not None:
                    self._second.result()
            finally:  # Ctrl-C, or an error of writing: the other thread ends with its chunk
                self._is_ended = True
        if self._failed:
            raise min(self._failed, key=lambda failed: failed[0])[1]
        assert self._end is not None, "no thread ends before the end is known"
        with writing(self._target):
            self._file.truncate(self._end)
        if self._progress is not None and self._done != self._end:
            self._progress(self._end, None)
        return self._end

    def _work(self) -> None:
        buffer = memoryview(mmap.mmap(-1, _CHUNK))  # at the start of a page: some processors copy 4 times as fast to it
        while (taken := self._take()) is not None:
            at, length = taken
            try:
                with reading_source():
                    copied = self._copy(at, length)
                    if copied == length:
                        self._finish(at, copied, length)
                        continue
                    self._start_second()
                    at, length = at + copied, length - copied
                    prefetch(self._source, at, _AHEAD)
                    count = self._source.read_into(at, buffer[:length])
            except (CorruptImage, SourceError) as error:
                self._failed.append((at, error))
                self._is_ended = True
                return
            with writing(self._target):
                self._write(at, buffer[:count])
            self._finish(at, count, length, copied)

    def _start_second(self) -> None:
        """Start the second thread: what the system copies is copied no faster by two, as the file has one lock."""
        with self._lock:
            if self._second is None:
                self._second = self._pool.submit(contextvars.copy_context().run, self._work)

    def _take(self) -> tuple[int, int] | None:
        """First byte and largest number of bytes of the next chunk with data; None after the last one."""
        with self._lock:
            if self._is_ended:
                return None
            if self._end is not None:
                before = self._at
                if before >= self._end:
                    return None
                found = self._source.skip_zeros(before, self._end)
                self._at = found if found >= self._end else max(before, found - found % _HOLE)
                self._done += self._at - before
                if self._at >= self._end:
                    return None
            at = self._at
            length = _CHUNK - at % _CHUNK
            self._at += length
            return at, length

    def _copy(self, at: int, length: int) -> int:
        """Number of bytes at the start of a chunk that the system has copied; the last chunk of the disk is read."""
        if self._end is None or at + length > self._end:
            return 0
        done = 0
        while done < length:
            count = self._source.copy_range(at + done, length - done, self._file.fileno(), at + done)
            if not count:
                break
            done += count
        return done

    def _finish(self, at: int, count: int, length: int, copied: int = 0) -> None:
        with self._lock:
            if count < length and (self._end is None or at + count < self._end):
                self._end = at + count
            self._done += copied + count
            if self._progress is not None:
                self._progress(self._done, None)

    def _write(self, at: int, data: memoryview) -> None:
        """Write what is not zeros, in as few pieces as there are."""
        first: int | None = None
        for start in range(0, len(data), _HOLE):
            block = data[start : start + _HOLE]
            is_zeros = block[: len(_GLANCE)] == _GLANCE[: len(block)] and bytes(block) == _ZEROS[: len(block)]
            if is_zeros and first is not None:
                self._write_piece(at + first, data[first:start])
                first = None
            elif not is_zeros and first is None:
                first = start
        if first is not None:
            self._write_piece(at + first, data[first:])

    def _write_piece(self, at: int, data: memoryview) -> None:
        if hasattr(os, "pwrite"):
            while data:
                count = os.pwrite(self._file.fileno(), data, at)
                at += count
                data = data[count:]
            return
        with self._lock:  # Windows has no pwrite
            self._file.seek(at)
            while data:
                data = data[self._file.write(data) :]
