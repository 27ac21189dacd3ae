"""Sources over bytes, files and file objects, each opened read-only and read by position."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import check_deadline
from vmvisor_image.base.system_errors import opening_error
from vmvisor_image.errors import (
    ClosedError,
    InvalidArgument,
    SourceChanged,
    SourceError,
)
from vmvisor_image.streams.source import Source, check_range, past_end

_ATTEMPTS = 3
_TRANSIENT = frozenset((errno.EIO, errno.EAGAIN, errno.ETIMEDOUT))
"""Error numbers after which a read is retried: failing media often give a sector at a later attempt."""
_PIPES = (stat.S_IFIFO, stat.S_IFSOCK)
_DESCRIPTOR = re.compile(r"/dev/stdin|/dev/fd/([0-9]{1,9})|/proc/self/fd/([0-9]{1,9})")
_NOT_OPENED = frozenset(getattr(errno, name) for name in ("ENXIO", "EOPNOTSUPP") if hasattr(errno, name))
"""Error numbers that systems give when a socket is opened by its path."""


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
        """SHA-256 of the bytes, in hexadecimal digits."""
        return hashlib.sha256(self._data).hexdigest()

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        check_deadline()
        if offset + length > len(self._data):
            raise past_end("source", offset, length, len(self._data))
        return self._data[offset : offset + length]


def descriptor_of(source: object) -> int | None:
    """Open descriptor named by a path such as ``/dev/stdin`` or ``/dev/fd/3``; None for any other source."""
    if hasattr(source, "read_at") or not isinstance(source, str | os.PathLike):  # files of images have no path
        return None
    found = _DESCRIPTOR.fullmatch(os.fspath(source))
    return None if found is None else int(found[1] or found[2] or 0)


def has_folder(path: str) -> bool:
    """Whether a path is of a file whose folder may be looked in for files that an image names.

    Beside a device, and beside /dev/stdin, lie the devices of the machine, of which an image must choose none.
    """
    return descriptor_of(path) is None and Path(path).is_file()


def is_pipe(source: object) -> bool:
    """Whether a source is already open and gives each byte once: a file object without seek, or a pipe's descriptor."""
    number = descriptor_of(source)
    if number is not None:
        try:
            return stat.S_IFMT(os.fstat(number).st_mode) in _PIPES
        except OSError:  # it is not open, which reading it reports
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
    """Open a path without waiting for the other end, as the path may be a pipe."""
    number = descriptor_of(path)
    if number is None:
        try:
            return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno in _NOT_OPENED and stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116  # as open has it
                raise _no_positions(path, stat.S_IFSOCK) from error
            raise
    try:
        return os.dup(number)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _no_positions(path: str, kind: int) -> SourceError:
    if kind == stat.S_IFCHR:
        error = SourceError(
            f"{path}: a character device can't be read at any position; name the block device of a disk, such as"
            " /dev/sda, or a file"
        )
    else:
        error = SourceError(
            f"{path}: a pipe or socket can't be read at any position; write it to a file first, as"
            " `vmvisor-image convert - FILE.zst` does with its standard input (`verify`, `scan` and `archive` take"
            " `-`, too)"
        )
    error.errno = errno.ESPIPE
    return error


def _has_end(file: io.FileIO) -> bool:
    """Whether a character device has positions up to an end, as disks have on some systems."""
    try:
        return file.seek(0, os.SEEK_END) > 0
    except OSError:
        return False


class FileSource(Source):
    """A file or block device, opened read-only and read by position."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`.

        Raises:
            SourceNotFound: There is no such file; it is also a FileNotFoundError.
            SourceIsDirectory: It is a folder; it is also an IsADirectoryError.
            SourceNotPermitted: The system does not permit to read it; it is also a PermissionError.
            SourceError: It can't be opened for another reason, or is a pipe, a socket, or a device without positions,
                such as a terminal; it is also an OSError.
        """
        self.path = os.fspath(path)
        # Unbuffered and never writable: nothing here can change what is being examined.
        try:
            self._file = io.FileIO(self.path, "rb", opener=_open_at_once)
        except OSError as error:
            raise opening_error(error, self.path) from error
        kind = stat.S_IFMT(os.fstat(self._file.fileno()).st_mode)
        if kind in _PIPES or (kind == stat.S_IFCHR and not _has_end(self._file)):
            self._file.close()
            raise _no_positions(self.path, kind)
        self._lock = ForkSafeLock()
        self._readers: list[None] = []
        """An item for each read in progress, during which the descriptor has to stay open; a list needs no lock."""
        self._closed = False
        # A block device's stat reports 0 bytes; the end of the file is right for both.
        self._size = self._file.seek(0, os.SEEK_END)
        self._state = self._find_state()

    @property
    def size(self) -> int:
        """Number of bytes, as it was when the file was opened."""
        return self._size

    @property
    def modified_ns(self) -> int | None:
        """Time of the file's last write, in nanoseconds since 1970; None for a device, whose time means nothing."""
        self._enter()
        try:
            return None if self._state is None else os.fstat(self._file.fileno()).st_mtime_ns
        finally:
            self._leave()

    @property
    def changed_ns(self) -> int:
        """Time of the last change of content, name or owner (on Windows: of creation), in nanoseconds since 1970."""
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

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`; the system reads straight into the buffer, where it can.

        Raises:
            SourceError: The range can't be read.
            SourceChanged: The file was written to since it was opened.
        """
        length = min(len(buffer), self._size - offset)
        if offset >= 0 and length > 0 and hasattr(os, "preadv"):
            check_deadline()
            self._enter()
            try:
                done = os.preadv(self._file.fileno(), [buffer[:length]], offset)
                if done == length and self._find_state() == self._state:
                    return length
            except OSError:
                pass  # the other way tries again, and reports
            finally:
                self._leave()
        return super().read_into(offset, buffer)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `Source.copy_range`; by copy_file_range of Linux."""
        length = min(length, self._size - offset)
        if offset >= 0 and length > 0 and hasattr(os, "copy_file_range"):
            check_deadline()
            self._enter()
            try:
                with contextlib.suppress(OSError):  # reading it, or writing, reports what is wrong
                    count = os.copy_file_range(self._file.fileno(), descriptor, length, offset, at)
                    return count if self._find_state() == self._state else 0
            finally:
                self._leave()
        return 0

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`; holes of a sparse file are zeros."""
        if not hasattr(os, "SEEK_DATA") or offset >= self._size:  # past the end, the system may refuse a position
            return offset
        self._enter()
        try:
            with self._lock:
                return min(end, self._file.seek(offset, os.SEEK_DATA))
        except OSError as error:
            # ENXIO: there is no data up to the end; any other error: the file system can't say.
            return min(end, self._size) if error.errno == errno.ENXIO else offset
        finally:
            self._leave()

    def _enter(self) -> None:
        """Keep the descriptor open until `_leave`: after closing it, another file may get its number."""
        self._readers.append(None)  # before the other is asked, as `close` does in the other order
        if self._closed:
            self._leave()
            raise ClosedError(f"{self.path}: read after close")

    def _leave(self) -> None:
        self._readers.pop()
        if self._closed and not self._readers:
            self._file.close()

    def _read_rest(self, data: bytes, offset: int, length: int) -> bytes:
        """`data` with the bytes that follow it, read in pieces up to `length` or the end of the file."""
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
        """Size and modification time of a regular file, which show whether it was written to; None for a device."""
        found = os.fstat(self._file.fileno())
        return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def close(self) -> None:
        """Close the file once the reads in progress are done; later reads raise `ClosedError`."""
        self._closed = True
        if not self._readers:
            self._file.close()

    @property
    def kept_beside(self) -> str:
        """Path of the file; see `Source.kept_beside`."""
        return self.path

    @property
    def local_paths(self) -> tuple[str, ...]:
        """See `Source.local_paths`."""
        return (self.path,)

    def __reduce__(self) -> tuple[type[FileSource], tuple[str]]:
        return (FileSource, (self.path,))


class FileObjectSource(Source):
    """A seekable binary file object of the caller, who also closes it; reads take turns."""

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
        """Id of the process that may move the position; None where a forked child has its own position."""
        self._size = file.seek(0, os.SEEK_END)

    @property
    def size(self) -> int:
        """Number of bytes, as it was when the object was taken."""
        return self._size

    @property
    def modified_ns(self) -> int | None:
        """Time of the last write to its file, in nanoseconds since 1970; None where there is no regular file."""
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

    @property
    def local_paths(self) -> tuple[str, ...]:
        """See `Source.local_paths`; the name of a file object that has one."""
        name = getattr(self._file, "name", None)
        return (os.path.abspath(name),) if isinstance(name, str) else ()  # noqa: PTH100  # links are kept

    def close(self) -> None:
        """Leave the file object open, as it belongs to the caller."""


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (AttributeError, OSError):
        return False
    return True
