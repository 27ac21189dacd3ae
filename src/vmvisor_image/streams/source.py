"""`ReadAt`, the protocol that everything rests on; `Source`, the base of all that satisfies it here; and views.

A `ReadAt` has a size and gives exact byte ranges. It has no cursor, so any number of threads may read one.
A slice of a `ReadAt` is a `ReadAt`; so is a decoded bzip2 stream and a file inside a FAT volume.
All of these are a `Source`, which may know more than the two members of a `ReadAt` tell: where zeros are, what to
decode ahead, what tells it from another one. What others give is made one at the door, by `as_source`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import io
import operator
import os
import re
import stat
from abc import abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Protocol, Self, SupportsIndex, cast, runtime_checkable

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import Meter, check_deadline
from vmvisor_image.errors import (
    ClosedError,
    CorruptImage,
    InvalidArgument,
    Problem,
    RemoteError,
    SourceChanged,
    SourceError,
    TruncatedImage,
    VmvisorImageError,
)

_COPY_CHUNK = 1 << 20
_ZEROS = bytes(_COPY_CHUNK)
_ATTEMPTS = 3
_TRANSIENT = frozenset((errno.EIO, errno.EAGAIN, errno.ETIMEDOUT))
"""Errors of a read after which it is tried again: failing media often gives a sector at a later try."""
_PIPES = (stat.S_IFIFO, stat.S_IFSOCK)
_DESCRIPTOR = re.compile(r"/dev/stdin|/dev/fd/([0-9]{1,9})|/proc/self/fd/([0-9]{1,9})")
_NOT_OPENED = frozenset(getattr(errno, name) for name in ("ENXIO", "EOPNOTSUPP") if hasattr(errno, name))
"""What systems say when a socket is opened by its path."""
_BUFFER = 1 << 16
_FURTHEST = (1 << 63) - 1
"""The largest position, in bytes: what `io.BufferedReader` counts in."""
_LONGEST_CHARACTER = 8
"""Bytes of a character in any encoding, and more than that."""
_READ_AHEAD = 128 << 20
"""Bytes announced to a source that is read in order: as a source that decodes bounds its work by itself, in blocks of
which one may be 46 MB of zeros, this is only so that it need not stop at such ones."""


@runtime_checkable
class ReadAt(Protocol):
    """Random access to a run of bytes."""

    @property
    def size(self) -> int:
        """Number of bytes; finding it may cost a decode to the end."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, both in bytes, `offset` from this object's start.

        Raises:
            TruncatedImage: The range passes the end.
            InvalidArgument: A negative offset or length.
        """
        ...


class Source:
    """Random access to a run of bytes, and all that may be asked of what gives it; the base of every reader here.

    `size` and `read_at` are what a source has to have; the other members have defaults that suit bytes about which
    nothing else is known. A subclass that keeps one of them as an attribute of its own names it in its class body.
    """

    # Without ABCMeta, by which `isinstance` takes ten times as long; type checkers know abstract methods without it.
    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of bytes; finding it may cost a decode to the end, see `size_is_known`."""
        raise NotImplementedError

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        raise NotImplementedError

    @property
    def size_is_known(self) -> bool:
        """Whether `size` costs no decoding; True unless the size is found by decoding."""
        return True

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only where the source ends.

        By default that is `read_at` up to `size`. What finds its size by decoding has a way of its own.

        Raises:
            InvalidArgument: A negative offset or length.
        """
        size = self.size
        if 0 <= offset < size:
            return self.read_at(offset, min(length, size - offset))
        check_range(offset, length)
        return b""

    def prefetch(self, offset: int, length: int) -> None:
        """Take note that `length` bytes from `offset` will be read soon; may pass the end. Nothing by default."""

    def skip_zeros(self, offset: int, end: int) -> int:  # noqa: ARG002  # the default knows nothing
        """The first byte from `offset` up to `end` (exclusive) that may be anything but zero, found without reading.

        `end` where all of them are known to be zeros. By default `offset`: nothing is known.
        """
        return offset

    @property
    def meter(self) -> Meter | None:
        """Counter of the bytes decoded for the image that it belongs to; None where nothing counts."""
        return None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far in what it is read from; empty by default."""
        return ()

    @property
    def kept_beside(self) -> str | None:
        """Path or URL beside which is kept what was found out about it; None, by default, where there is no place."""
        return None

    @property
    def container(self) -> Source | None:
        """The source that it is a member of; None by default."""
        return None

    @property
    def version(self) -> str | None:
        """A text that differs when the bytes do; None, by default, where nothing tells."""
        return None

    @property
    def modified_ns(self) -> int | None:
        """Time of the last write in nanoseconds since 1970; None, by default, where there is none that tells."""
        return None

    @property
    def changed_ns(self) -> int | None:
        """Time of the last change of content, name or owner in nanoseconds since 1970; None by default."""
        return None

    def close(self) -> None:
        """Close what was opened for it, after which reads raise `ClosedError`. By default there is nothing to close."""


def as_source(given: ReadAt) -> Source:
    """`given` where it is a `Source`, which is trusted; anything else in a `CheckedSource`."""
    return given if isinstance(given, Source) else CheckedSource(given)


def meter_of(source: object) -> Meter:
    """The meter of a source: that of the image it belongs to, else a new one with the usual limits."""
    found = as_source(cast("ReadAt", source)).meter if hasattr(source, "read_at") else None
    return Meter() if found is None else found


def check_range(offset: int, length: int) -> None:
    """Refuse a negative offset or length.

    Raises:
        InvalidArgument: Either of the two is negative.
    """
    if offset < 0 or length < 0:
        raise InvalidArgument(f"offset and length must not be negative (offset {offset}, length {length})")


def past_end(structure: str, offset: int, length: int, size: int) -> TruncatedImage:
    """The error for a range that passes the end of `structure`, which is `size` bytes long."""
    return TruncatedImage(
        f"{length} bytes wanted, but it ends at byte {size:#x}",
        structure=structure,
        offset=offset,
        expected=f"at least {offset + length} bytes",
        found=f"{size}",
    )


def prefetch(source: ReadAt, offset: int, length: int) -> None:
    """Announce to `source` that a range will be read soon; only a hint, and most sources ignore it.

    Layers that decode (bzip2) work ahead up to the end of the range and no further.
    """
    if length > 0:
        (source if isinstance(source, Source) else CheckedSource(source)).prefetch(offset, length)


def read_up_to(source: ReadAt, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer only where the source ends.

    Unlike `ReadAt.read_at` this needs no size beforehand, which a compressed source would have to decode to
    its end to find.
    """
    return (source if isinstance(source, Source) else CheckedSource(source)).read_up_to(offset, length)


def read_healthy(source: ReadAt, offset: int, length: int) -> bytes:
    """The bytes from `offset` up to damage, at most `length`; fewer only there, and where the source ends.

    Raises:
        CorruptImage: The source is damaged at `offset` itself.
        SourceError: It can't be read there.
    """
    try:
        return read_up_to(source, offset, length)
    except (RemoteError, SourceChanged):  # not a place in the data: nothing is asked again
        raise
    except (CorruptImage, SourceError):
        parts: list[bytes] = []
        while length > 1:  # the damage lies in so many bytes from `offset`
            half = length // 2
            try:
                parts.append(read_up_to(source, offset, half))
            except (CorruptImage, SourceError):
                length = half
            else:
                offset, length = offset + half, length - half
        if not parts:
            raise
        return b"".join(parts)


def skip_zeros(source: ReadAt, offset: int, end: int) -> int:
    """From where on `source` may hold anything but zeros: `offset`, or a later byte up to `end`, found without reading.

    Sparse files and bzip2 sources know where nothing but zeros is; of any other one it is `offset`.
    """
    if offset >= end:
        return offset
    found = (source if isinstance(source, Source) else CheckedSource(source)).skip_zeros(offset, end)
    if found <= offset:  # behind its own end a source may name an earlier byte
        return offset
    return min(found, end)


def find_data(source: ReadAt, offset: int, end: int) -> int | None:
    """The first byte from `offset` up to `end` (exclusive) that is not zero; None where all are.

    Raises:
        CorruptImage: The source is damaged there.
        TruncatedImage: The source ends before `end`.
    """
    while (offset := skip_zeros(source, offset, end)) < end:
        data = source.read_at(offset, min(_COPY_CHUNK, end - offset))
        if data != _ZEROS[: len(data)]:
            return offset + len(data) - len(data.lstrip(b"\0"))
        offset += len(data)
    return None


def knows_size(source: ReadAt) -> bool:
    """Whether the size of a source can be had without decoding it; see `Source.size_is_known`."""
    return as_source(source).size_is_known


class Closing:
    """What has a `close`, and is closed at the end of a ``with`` block."""

    __slots__ = ()

    def close(self) -> None:
        """Close what was opened for it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = bytes(data)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self._data)

    @property
    def version(self) -> str:
        """What differs when the bytes do: their SHA-256."""
        return hashlib.sha256(self._data).hexdigest()

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        check_deadline()
        if offset + length > len(self._data):
            raise past_end("source", offset, length, len(self._data))
        return self._data[offset : offset + length]


def descriptor_of(source: object) -> int | None:
    """The open descriptor that a path such as ``/dev/stdin`` or ``/dev/fd/3`` names; None of any other source."""
    if hasattr(source, "read_at") or not isinstance(source, str | os.PathLike):  # files of images have no path
        return None
    found = _DESCRIPTOR.fullmatch(os.fspath(source))
    return None if found is None else int(found[1] or found[2] or 0)


def is_pipe(source: object) -> bool:
    """Whether a source is open already and gives each byte once: a file object that can't seek, a pipe's descriptor."""
    number = descriptor_of(source)
    if number is not None:
        try:
            return stat.S_IFMT(os.fstat(number).st_mode) in _PIPES
        except OSError:  # it is not open: who reads it says so
            return False
    if hasattr(source, "read_at") or not isinstance(source, _Seekable) or source.closed:
        return False
    return source.readable() and not source.seekable()


@runtime_checkable
class _Seekable(Protocol):
    @property
    def closed(self) -> bool: ...
    def readable(self) -> bool: ...
    def seekable(self) -> bool: ...


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe, as which a path may turn out."""
    number = descriptor_of(path)
    if number is None:
        try:
            return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno in _NOT_OPENED and stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116  # as open has it
                raise _no_positions(path, "a pipe or socket") from error
            raise
    try:
        return os.dup(number)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _no_positions(path: str, what: str) -> SourceError:
    error = SourceError(
        f"{path}: {what} can't be read at any position; write it to a file first, as"
        " `vmvisor-image convert - FILE.zst` does (`verify`, `scan` and `archive` take `-`, too)"
    )
    error.errno = errno.ESPIPE
    return error


def _has_end(file: io.FileIO) -> bool:
    """Whether a character device has positions up to an end, as disks are on some systems."""
    try:
        return file.seek(0, os.SEEK_END) > 0
    except OSError:
        return False


class FileSource(Source):
    """A file or block device, opened read-only and read by position."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`.

        Raises:
            OSError: The file can't be opened.
            SourceError: It is a pipe, a socket, or a device without positions, such as a terminal.
        """
        self.path = os.fspath(path)
        # Unbuffered and never writable: nothing here can change what is being examined.
        self._file = io.FileIO(self.path, "rb", opener=_open_at_once)
        kind = stat.S_IFMT(os.fstat(self._file.fileno()).st_mode)
        if kind in _PIPES or (kind == stat.S_IFCHR and not _has_end(self._file)):
            self._file.close()
            raise _no_positions(self.path, "a character device" if kind == stat.S_IFCHR else "a pipe or socket")
        self._lock = ForkSafeLock()
        self._readers = 0
        """Reads that are going on, for which the descriptor has to stay what it is."""
        self._closed = False
        # A block device's stat says 0 bytes; the end of the file is right for both.
        self._size = self._file.seek(0, os.SEEK_END)
        self._state = self._find_state()

    @property
    def size(self) -> int:
        """Number of bytes, as it was when the file was opened."""
        return self._size

    @property
    def modified_ns(self) -> int | None:
        """When the file was last written, in nanoseconds since 1970; None of a device, whose time does not tell."""
        self._enter()
        try:
            return None if self._state is None else os.fstat(self._file.fileno()).st_mtime_ns
        finally:
            self._leave()

    @property
    def changed_ns(self) -> int:
        """When its content, name or owner last changed, in nanoseconds since 1970; on Windows, when it was made."""
        self._enter()
        try:
            return os.fstat(self._file.fileno()).st_ctime_ns
        finally:
            self._leave()

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            SourceError: The range can't be read.
            SourceChanged: The file was written to since it was opened.
        """
        check_range(offset, length)
        check_deadline()
        if offset + length > self._size:
            raise past_end(self.path, offset, length, self._size)
        self._enter()
        try:
            data = self._read(offset, length)
            if len(data) < length:
                data = self._read_rest(data, offset, length)
            if self._find_state() != self._state:
                raise SourceChanged(f"{self.path}: it was written to since it was opened")
        finally:
            self._leave()
        if len(data) < length:
            raise past_end(self.path, offset, length, offset + len(data))
        return data

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`: holes of a sparse file are zeros."""
        if not hasattr(os, "SEEK_DATA"):
            return offset
        self._enter()
        try:
            with self._lock:
                return min(end, self._file.seek(offset, os.SEEK_DATA))
        except OSError as error:
            # ENXIO: no data from there to the end; any other one: the file system does not say.
            return min(end, self._size) if error.errno == errno.ENXIO else offset
        finally:
            self._leave()

    def _enter(self) -> None:
        """Keep the descriptor open until `_leave`: once it is closed, another file may get its number."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.path}: read after close")
            self._readers += 1

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._closed and not self._readers:
                self._file.close()

    def _read_rest(self, data: bytes, offset: int, length: int) -> bytes:
        """What is read in several pieces, as far as the file goes."""
        parts, done = [data], len(data)
        while data and done < length:
            data = self._read(offset + done, length - done)
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def _read(self, offset: int, length: int) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                pread: Callable[[int, int, int], bytes] | None = getattr(os, "pread", None)
                if pread is not None:
                    return pread(self._file.fileno(), length, offset)
                with self._lock:  # Windows has no pread
                    self._file.seek(offset)
                    return self._file.read(length)
            except OSError as error:
                if error.errno in _TRANSIENT and attempt < _ATTEMPTS:
                    continue
                place = f"{self.path}: bytes {offset} to {offset + length} (exclusive)"
                failed = SourceError(f"{place} could not be read: {error.strerror}")
                failed.errno = error.errno
                raise failed from error
        raise AssertionError("the last attempt returns or raises")

    def _find_state(self) -> tuple[int, int] | None:
        """Size and time of a regular file, which tell whether it was written to; None of a device."""
        found = os.fstat(self._file.fileno())
        return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def close(self) -> None:
        """Close the file, when the reads that are going on are done; later ones raise `ClosedError`."""
        with self._lock:
            self._closed = True
            if not self._readers:
                self._file.close()

    @property
    def kept_beside(self) -> str:
        """Path of the file beside which is kept what was found out about it."""
        return self.path

    def __reduce__(self) -> tuple[type[FileSource], tuple[str]]:
        return (FileSource, (self.path,))


class FileObjectSource(Source):
    """A seekable binary file object of the caller's; reads take turns, the caller keeps and closes it."""

    def __init__(self, file: BinaryIO) -> None:
        """Take `file`, whose position this object moves from now on.

        Raises:
            InvalidArgument: The object can't be read or can't seek.
        """
        if not (file.readable() and file.seekable()):
            raise InvalidArgument(
                "a file object must be readable and seekable; of a pipe, make a vmvisor_image.streams.pipes.PipeSource"
            )
        self._file = file
        self._lock = ForkSafeLock()
        self._process = os.getpid() if _has_descriptor(file) else None
        """The process that its position is moved by; None where a forked child has a position of its own."""
        self._size = file.seek(0, os.SEEK_END)

    @property
    def size(self) -> int:
        """Number of bytes, as it was when the object was taken."""
        return self._size

    @property
    def modified_ns(self) -> int | None:
        """When its file was last written, in nanoseconds since 1970; None where it is no file."""
        try:
            found = os.fstat(self._file.fileno())
        except (AttributeError, OSError, TypeError, ValueError):
            return None
        return found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        check_deadline()
        if offset + length > self._size:
            raise past_end("file object", offset, length, self._size)
        parts, done = [], 0
        with self._lock:
            if self._file.closed:
                raise ClosedError("file object: read after close")
            if self._process not in (None, os.getpid()):
                raise ClosedError("file object: a forked process shares its position; open the image there by its path")
            self._file.seek(offset)
            while done < length:
                data = self._file.read(length - done)
                if not data:
                    raise past_end("file object", offset, length, offset + done)
                if not isinstance(data, bytes):
                    raise InvalidArgument("a file object must be binary: its read() gave no bytes")
                if len(data) > length - done:
                    raise InvalidArgument("a file object must be exact: its read() gave more than was asked for")
                parts.append(data)
                done += len(data)
        return b"".join(parts)

    def close(self) -> None:
        """Leave the file object open: it is the caller's."""


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (AttributeError, OSError):
        return False
    return True


class CheckedSource(Source):
    """A source of someone else's: what it gives is what was asked for, or an error.

    It need have only the two members of `ReadAt`; what else it has of `Source` is asked of it, and nothing but its
    bytes is needed.
    """

    def __init__(self, source: ReadAt) -> None:
        """Take the source, which stays open."""
        self._source = source

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._source.size

    @property
    def size_is_known(self) -> bool:
        """See `Source.size_is_known`."""
        return bool(self._told("size_is_known", True))

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            SourceError: It gives something else than so many bytes.
        """
        check_deadline()
        data: object = self._source.read_at(offset, length)
        if not isinstance(data, bytes) or len(data) != length:
            raise _other_bytes(data, offset, length)
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`.

        Raises:
            SourceError: It gives something else than bytes, or more of them.
        """
        reader = self._told("read_up_to")
        if reader is None:
            return super().read_up_to(offset, length)
        check_range(offset, length)
        check_deadline()
        data: object = reader(offset, length)
        if not isinstance(data, bytes) or len(data) > length:
            raise _other_bytes(data, offset, length)
        return data

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        hint = self._told("prefetch")
        if hint is not None:
            hint(offset, length)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        hint = self._told("skip_zeros")
        return offset if hint is None else int(hint(offset, end))

    @property
    def meter(self) -> Meter | None:
        """See `Source.meter`."""
        found = self._told("meter")
        return found if isinstance(found, Meter) else None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """See `Source.problems`."""
        return tuple(self._told("problems", ()))

    @property
    def kept_beside(self) -> str | None:
        """See `Source.kept_beside`."""
        found: str | None = self._told("kept_beside")
        return found

    @property
    def container(self) -> Source | None:
        """See `Source.container`."""
        found: ReadAt | None = self._told("container")
        return None if found is None else as_source(found)

    @property
    def version(self) -> str | None:
        """See `Source.version`."""
        found: str | None = self._told("version")
        return found

    @property
    def modified_ns(self) -> int | None:
        """See `Source.modified_ns`."""
        found: int | None = self._told("modified_ns")
        return found

    @property
    def changed_ns(self) -> int | None:
        """See `Source.changed_ns`."""
        found: int | None = self._told("changed_ns")
        return found

    def _told(self, name: str, default: Any = None) -> Any:
        """A member of `Source` that the source may have; this is the one place where it is looked for."""
        return getattr(self._source, name, default)

    def __reduce__(self) -> tuple[type[CheckedSource], tuple[ReadAt]]:
        return (CheckedSource, (self._source,))


def _other_bytes(data: object, offset: int, length: int) -> SourceError:
    what = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
    return SourceError(f"bytes {offset} to {offset + length} (exclusive) were asked for, and {what} came")


class View(Source):
    """Another source, or a part of it: offsets are mapped here, and what is asked is passed on here.

    Of a part, what tells the whole from others (`version`, the times), where things are kept about it, and its problems
    are not passed on: two parts of one source share them and differ. `close` leaves the other source open.
    """

    def __init__(self, source: ReadAt, start: int = 0, size: int | None = None, structure: str = "view") -> None:
        """Show `source`.

        Args:
            source: What is shown; not read yet.
            start: First byte that is shown.
            size: Bytes from there on, which `source` may turn out to lack when they are read; None for all of it.
            structure: What it is, for messages.

        Raises:
            InvalidArgument: A negative start or size.
        """
        check_range(start, size or 0)
        self._source = as_source(source)
        self.start = start
        """First byte that is shown, from the start of the other source."""
        self._size = size
        self._structure = structure

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._source.size if self._size is None else self._size

    @property
    def size_is_known(self) -> bool:
        """See `Source.size_is_known`; a part has the size that it was given."""
        return self._size is not None or self._source.size_is_known

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        if self._size is None:
            return self._source.read_at(offset, length)
        check_range(offset, length)
        if offset + length > self._size:
            raise past_end(self._structure, offset, length, self._size)
        return self._source.read_at(self.start + offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`; of a part that the other source does not have to its end, the rest is an error."""
        size = self._size
        if size is None:
            return self._source.read_up_to(offset, length)
        if 0 <= offset < size:
            return self.read_at(offset, min(length, size - offset))
        check_range(offset, length)
        return b""

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        start = self.start
        if self._size is not None:
            end = min(end, self._size)
        return skip_zeros(self._source, start + offset, start + end) - start

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`; a range that passes a part's end is cut there."""
        if self._size is not None:
            length = min(length, self._size - offset)
        prefetch(self._source, self.start + offset, length)

    @property
    def meter(self) -> Meter | None:
        """See `Source.meter`."""
        return self._source.meter

    @property
    def problems(self) -> tuple[Problem, ...]:
        """See `Source.problems`."""
        return self._source.problems if self._size is None else ()

    @property
    def kept_beside(self) -> str | None:
        """See `Source.kept_beside`."""
        return self._source.kept_beside if self._size is None else None

    @property
    def container(self) -> Source | None:
        """See `Source.container`."""
        return self._source.container if self._size is None else None

    @property
    def version(self) -> str | None:
        """See `Source.version`."""
        return self._source.version if self._size is None else None

    @property
    def modified_ns(self) -> int | None:
        """See `Source.modified_ns`."""
        return self._source.modified_ns if self._size is None else None

    @property
    def changed_ns(self) -> int | None:
        """See `Source.changed_ns`."""
        return self._source.changed_ns if self._size is None else None


class Slice(View):
    """A range of another `ReadAt`, itself a `ReadAt`; offsets count from the slice's start."""

    def __init__(self, source: ReadAt, start: int, size: int, structure: str = "slice") -> None:
        """Take `size` bytes of `source` from byte `start`; neither is checked against `source` until read."""
        super().__init__(source, start, size, structure)


class KeptBeside(View):
    """A source about which things may be kept: a member of a container, beside that where it has a path."""

    def __init__(
        self, source: ReadAt, path: str | None, *, container: Source | None = None, version: str | None = None
    ) -> None:
        """Take the source and a path, which need not exist.

        Args:
            source: The source.
            path: Where things may be kept, with a suffix behind it; None where there is no such place.
            container: What the source is a member of.
            version: What tells it from all others, in that container or at all; None where nothing does.
        """
        super().__init__(source)
        self._path, self._container, self._version = path, container, version

    @property
    def kept_beside(self) -> str | None:
        """See `Source.kept_beside`."""
        return self._path

    @property
    def container(self) -> Source | None:
        """See `Source.container`."""
        return self._container

    @property
    def version(self) -> str | None:
        """A text that tells it from all others; None where nothing does."""
        return self._version

    # Its times are those of a copy, or of the container, which tells them itself.
    @property
    def modified_ns(self) -> int | None:
        """None."""
        return None

    @property
    def changed_ns(self) -> int | None:
        """None."""
        return None


class Pieced(Source):
    """A source whose bytes lie in pieces in others, or nowhere, which is zeros."""

    __slots__ = ()

    @abstractmethod
    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """Source (None for zeros), first byte in it and number of bytes of each piece of a range, in order.

        The range is within the size.

        Raises:
            CorruptImage: A piece can't be found.
        """
        raise NotImplementedError

    @property
    def _structure(self) -> str:
        """What it is, for messages."""
        return "source"

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `offset`.

        Raises:
            TruncatedImage: The range passes the end, or a source that a piece lies in ends before that.
            CorruptImage: A piece can't be found, or is damaged.
            InvalidArgument: A negative offset or length.
        """
        if offset < 0 or length < 0:
            check_range(offset, length)
        size = self.size
        if offset + length > size:
            raise past_end(self._structure, offset, length, size)
        found = []
        for source, start, count in self.pieces(offset, length):
            piece = bytes(count) if source is None else source.read_at(start, count)
            if count == length:  # as of most reads
                return piece
            found.append(piece)
        return b"".join(found)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        try:
            for source, start, count in self.pieces(offset, max(0, min(end, self.size) - offset)):
                skipped = count if source is None else skip_zeros(source, start, start + count) - start
                offset += skipped
                if skipped < count:
                    break
        except CorruptImage:
            pass  # reading it says what is wrong
        return offset

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        with contextlib.suppress(CorruptImage):  # reading it says what is wrong
            for source, start, count in self.pieces(offset, max(0, min(length, self.size - offset))):
                if source is not None:
                    prefetch(source, start, count)


class ReadAtStream(io.RawIOBase):
    """A read-only raw stream with a cursor over a `ReadAt`; closing it leaves the source open.

    What is healthy before damage is given first; the read that begins at the damage raises.
    """

    mode = "rb"

    def __init__(self, source: ReadAt, name: str | None = None) -> None:
        self._source = source
        if name is not None:
            self.name = name
        self._position = 0
        self._last_end = -1
        self._defers = False
        """Whether `readinto` gives 0 bytes where it would raise, for a `BufferedStream`, which looks at `failure`."""
        self.failure: VmvisorImageError | None = None
        """What the last `readinto` did not raise."""

    def readable(self) -> bool:
        """True, while it is open."""
        self._check_open()
        return True

    def seekable(self) -> bool:
        """True, while it is open."""
        self._check_open()
        return True

    def writable(self) -> bool:
        """False, while it is open."""
        self._check_open()
        return False

    def write(self, data: object) -> NoReturn:  # noqa: ARG002  # io's signature
        """Refuse, as any stream that is not open for writing."""
        self._check_open()
        raise io.UnsupportedOperation("write")

    def tell(self) -> int:
        """Position in bytes from the start."""
        self._check_open()
        return self._position

    def seek(self, offset: SupportsIndex, whence: SupportsIndex = os.SEEK_SET) -> int:
        """Move the cursor, also past the end, where there is nothing to read; `SEEK_END` needs the source's size.

        Raises:
            InvalidArgument: The position is before the start, or past what 63 bits count; the cursor stays.
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
        """See `io.RawIOBase.read`; None is for all there is, as of a file."""
        return super().read(-1 if size is None else operator.index(size)) or b""

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` as far as the source goes, or up to damage; 0 at the source's end.

        Raises:
            CorruptImage: The source is damaged where the cursor is.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed hides the buffer protocol here
        if view.readonly:  # before the cursor moves
            raise TypeError("a buffer to read into must be writable")
        self.failure = None
        try:
            data = self._read(len(view))
        except (CorruptImage, SourceError) as error:
            if not self._defers:
                raise
            self.failure = error.with_traceback(None)  # which holds the data
            return 0
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Everything from the cursor to the end.

        Raises:
            CorruptImage: Some of it is damaged; the cursor stays where it is.
        """
        self._check_open()
        start = self._position
        try:
            return b"".join(iter(lambda: self._read(_COPY_CHUNK), b""))
        except BaseException:
            self._position = start
            raise

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can't be pickled or copied; what it reads from can, if it has a path")

    def healthy_ahead(self, most: int) -> int | None:
        """How many bytes are healthy before damage, where that is within `most` bytes of the cursor; else None."""
        count = 0
        try:
            count = len(read_healthy(self._source, self._position, most))
            if count < most:
                read_healthy(self._source, self._position + count, 1)
        except (CorruptImage, SourceError):
            return count
        return None

    def _read(self, length: int) -> bytes:
        if self._position == self._last_end:  # the second read in a row: work ahead of the third
            prefetch(self._source, self._position, length + _READ_AHEAD)
        data = read_healthy(self._source, self._position, length)
        self._position += len(data)
        self._last_end = self._position
        return data

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("I/O operation on a closed stream")


class BufferedStream(io.BufferedReader):
    """A buffered stream over a `ReadAt`: what is healthy before damage first, the error at the next read.

    A read without a size is for all there is: it raises where some of that is damaged, and moves nothing.
    `io.BufferedReader` itself forgets what it has read where a later part of the same read fails.
    """

    raw: ReadAtStream

    def __init__(self, source: ReadAt, name: str | None = None, buffer_size: int = _BUFFER) -> None:
        super().__init__(ReadAtStream(source, name), buffer_size)
        self.raw._defers = True

    def detach(self) -> ReadAtStream:
        """The raw stream, which this one is of no more use for."""
        raw = self.raw
        super().detach()
        raw._defers = False
        return raw

    def writable(self) -> bool:
        """False, while it is open, as of `io.BytesIO`; `io.BufferedReader` says it of a closed one, too."""
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
        """No bytes, where that is the end and not damage."""
        failure = self.raw.failure
        if size == 0 or failure is None:
            return b""
        raise failure.with_traceback(None)


class _TextSource(BufferedStream):
    """What a `TextStream` reads: damage looks like the end to it."""

    def __init__(self, source: ReadAt, name: str | None, encoding: str) -> None:
        super().__init__(source, name)
        self._encoding = encoding

    def read1(self, size: int = -1, /) -> bytes:
        """The next bytes; before damage without the part of a character that is cut there."""
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
    """Text over a `ReadAt`: what is healthy before damage first, the error at the next read, as `BufferedStream`."""

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
    """A buffered, seekable, read-only binary stream over `source`, with a cursor of its own; `name` is its own."""
    return BufferedStream(source, name)
