"""Python's own streams over a source: with a cursor, buffered, and as text."""

from __future__ import annotations

import codecs
import io
import operator
import os
from typing import Any, NoReturn, SupportsIndex

from vmvisor_image.errors import (
    ClosedError,
    CorruptImage,
    InvalidArgument,
    SourceError,
    VmvisorImageError,
)
from vmvisor_image.streams.reading import prefetch, read_healthy, read_healthy_into
from vmvisor_image.streams.source import COPY_CHUNK, ReadAt

_BUFFER = 1 << 16
_FURTHEST = (1 << 63) - 1
"""Largest position, in bytes, that `io.BufferedReader` can count to."""
_LONGEST_CHARACTER = 8
"""Bytes that are enough for a character in any encoding."""
_READ_AHEAD = 128 << 20
"""Bytes announced to a source that is read in order: as a decoding source limits its work by itself, this need only be
large enough that it does not stop at a block of zeros, which may have 46 MB."""


class ReadAtStream(io.RawIOBase):
    """A read-only raw stream with a cursor over a `ReadAt`; closing it leaves the source open.

    Healthy bytes before damage are given first; the read that begins at the damage raises.
    """

    mode = "rb"

    def __init__(self, source: ReadAt, name: str | None = None) -> None:
        self._source = source
        if name is not None:
            self.name = name
        self._position = 0
        self._last_end = -1
        self._defers = False
        """Whether `readinto` gives 0 bytes instead of raising, for a `BufferedStream`, which checks `failure`."""
        self.failure: VmvisorImageError | None = None
        """Error that the last `readinto` did not raise; None where there was none."""

    def readable(self) -> bool:
        """True, while the stream is open."""
        self._check_open()
        return True

    def seekable(self) -> bool:
        """True, while the stream is open."""
        self._check_open()
        return True

    def writable(self) -> bool:
        """False, while the stream is open."""
        self._check_open()
        return False

    def write(self, data: object) -> NoReturn:  # noqa: ARG002  # io's signature
        """Raise, as any stream that is not open for writing."""
        self._check_open()
        raise io.UnsupportedOperation("write")

    def tell(self) -> int:
        """Position of the cursor, in bytes from the start."""
        self._check_open()
        return self._position

    def seek(self, offset: SupportsIndex, whence: SupportsIndex = os.SEEK_SET) -> int:
        """Move the cursor, also past the end, where there is nothing to read; `SEEK_END` needs the source's size.

        Raises:
            InvalidArgument: The position is negative, or has more than 63 bits; the cursor stays where it is.
        """
        self._check_open()
        offset, whence = operator.index(offset), operator.index(whence)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            if whence != os.SEEK_END:
                raise InvalidArgument(f"whence must be 0, 1 or 2, not {whence}")
            base = self._source.size
        if base + offset < 0:
            raise InvalidArgument(f"seek to negative position {base + offset}")
        if base + offset > _FURTHEST:
            raise InvalidArgument(f"seek to position {base + offset}, which is more than 63 bits count")
        self._position = base + offset
        return self._position

    def read(self, size: SupportsIndex | None = -1, /) -> bytes:
        """See `io.RawIOBase.read`; a size of None means all bytes up to the end, as with a file."""
        return super().read(-1 if size is None else operator.index(size)) or b""

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` up to the source's end or to damage; returns the number of bytes, 0 at the end.

        Raises:
            CorruptImage: The source is damaged at the cursor.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed hides the buffer protocol here
        if view.readonly:  # before the cursor moves
            raise TypeError("a buffer to read into must be writable")
        self.failure = None
        try:
            return self._read_into(view)
        except (CorruptImage, SourceError) as error:
            if not self._defers:
                raise
            self.failure = error.with_traceback(None)  # a traceback would keep the data in memory
            return 0

    def readall(self) -> bytes:
        """All bytes from the cursor to the end.

        Raises:
            CorruptImage: Some of them are damaged; the cursor stays where it is.
        """
        self._check_open()
        start = self._position
        try:
            return b"".join(iter(lambda: self._read(COPY_CHUNK), b""))
        except BaseException:
            self._position = start
            raise

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can't be pickled or copied; what it reads from can, if it has a path")

    def healthy_ahead(self, most: int) -> int | None:
        """Number of healthy bytes from the cursor to damage within `most` bytes of it; None without damage there."""
        count = 0
        try:
            count = len(read_healthy(self._source, self._position, most))
            if count < most:
                read_healthy(self._source, self._position + count, 1)
        except (CorruptImage, SourceError):
            return count
        return None

    def _read(self, length: int) -> bytes:
        self._work_ahead(length)
        data = read_healthy(self._source, self._position, length)
        self._pass(len(data))
        return data

    def _read_into(self, buffer: memoryview) -> int:
        self._work_ahead(len(buffer))
        count = read_healthy_into(self._source, self._position, buffer)
        self._pass(count)
        return count

    def _work_ahead(self, length: int) -> None:
        if self._position == self._last_end:  # the second read in a row: work ahead of the third
            prefetch(self._source, self._position, length + _READ_AHEAD)

    def _pass(self, count: int) -> None:
        self._position += count
        self._last_end = self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("I/O operation on a closed stream")


class BufferedStream(io.BufferedReader):
    """A buffered stream over a `ReadAt`: healthy bytes before damage come first, and the next read raises.

    A read without a size reads up to the end: it raises where any of that is damaged, and does not move the cursor.
    `io.BufferedReader` itself loses the bytes that it has read where a later part of the same read fails.
    """

    raw: ReadAtStream

    def __init__(self, source: ReadAt, name: str | None = None, buffer_size: int = _BUFFER) -> None:
        super().__init__(ReadAtStream(source, name), buffer_size)
        self.raw._defers = True

    def detach(self) -> ReadAtStream:
        """Raw stream, separated from this one, which can't be used any more."""
        raw = self.raw
        super().detach()
        raw._defers = False
        return raw

    def writable(self) -> bool:
        """False, while the stream is open, as with `io.BytesIO`; `io.BufferedReader` also gives it when closed."""
        return self.raw.writable()

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader.read`."""
        size = -1 if size is None else operator.index(size)
        if size < 0:
            position = self.tell()
            try:
                return super().read(size)
            except BaseException:
                self.seek(position)
                raise
        return super().read(size) or self._nothing(size)

    def read1(self, size: int = -1, /) -> bytes:
        """See `io.BufferedReader.read1`."""
        return super().read1(size) or self._nothing(size)

    def peek(self, size: int = 0, /) -> bytes:
        """See `io.BufferedReader.peek`."""
        return super().peek(size) or self._nothing(1)

    def readline(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader.readline`."""
        return super().readline(size) or self._nothing(size)

    def readinto(self, buffer: Any, /) -> int:
        """See `io.BufferedReader.readinto`."""
        return super().readinto(buffer) or len(self._nothing(memoryview(buffer).nbytes))

    def readinto1(self, buffer: Any, /) -> int:
        """See `io.BufferedReader.readinto1`."""
        return super().readinto1(buffer) or len(self._nothing(memoryview(buffer).nbytes))

    def _nothing(self, size: int | None) -> bytes:
        """No bytes at the source's end; raises the deferred error where there is damage instead."""
        failure = self.raw.failure
        if size == 0 or failure is None:
            return b""
        raise failure.with_traceback(None)


class _TextSource(BufferedStream):
    """Byte stream below a `TextStream`, to which damage looks like the end."""

    def __init__(self, source: ReadAt, name: str | None, encoding: str) -> None:
        super().__init__(source, name)
        self._encoding = encoding

    def read1(self, size: int = -1, /) -> bytes:
        """Next bytes; directly before damage, without a character that the damage cuts."""
        data = io.BufferedReader.read1(self, size)
        if data and self.tell() == self.raw.tell():
            ahead = self.raw.healthy_ahead(_LONGEST_CHARACTER)
            if ahead is not None:
                data += io.BufferedReader.read(self, ahead)
                decoder = codecs.getincrementaldecoder(self._encoding)("ignore")
                decoder.decode(data)
                data = data[: len(data) - len(decoder.getstate()[0])]
        return data


class TextStream(io.TextIOWrapper):
    """Text over a `ReadAt`: healthy text before damage comes first, and the next read raises; see `BufferedStream`."""

    mode = "r"

    def __init__(
        self, source: ReadAt, name: str | None, encoding: str, errors: str | None = None, newline: str | None = None
    ) -> None:
        self._bytes = _TextSource(source, name, encoding)
        super().__init__(self._bytes, encoding=encoding, errors=errors, newline=newline)

    def read(self, size: int | None = -1, /) -> str:
        """See `io.TextIOWrapper.read`."""
        return super().read(size) or self._nothing(size)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # typeshed names the argument
        """See `io.TextIOWrapper.readline`."""
        return super().readline(size) or self._nothing(size)

    def _nothing(self, size: int | None) -> str:
        self._bytes._nothing(size)
        return ""


def open_stream(source: ReadAt, name: str | None = None) -> BufferedStream:
    """A buffered, seekable, read-only binary stream over `source`, with its own cursor; `name` is the stream's name."""
    return BufferedStream(source, name)
