"""A destination directory to which files are written one by one: each appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from vmvisor_image.base.destination import FULL, from_source, writing
from vmvisor_image.errors import CorruptImage, DestinationExists, DestinationFailed, UnsafeName
from vmvisor_image.streams.reading import chunks, prefetch
from vmvisor_image.streams.source import COPY_CHUNK, ReadAt

_HAS_DIRECTORY_DESCRIPTORS = {os.open, os.mkdir, os.link, os.rename, os.unlink} <= os.supports_dir_fd
"""Whether files can be opened relative to an open directory: on all systems except Windows."""
_HAS_UNNAMED_FILES = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")  # noqa: PTH112  # asked once
"""Whether unnamed files can be made, and named once they are complete: on Linux."""
_HAS_TIMES_OF_DESCRIPTORS = os.utime in os.supports_fd
"""Whether the time of an open file can be set by its descriptor: on all systems except Windows."""
_FOLDER_ONLY: int = getattr(os, "O_DIRECTORY", 0)
_NOT_A_LINK: int = getattr(os, "O_NOFOLLOW", 0)
"""Number of bytes compared at a time."""
_ZEROS = bytes(COPY_CHUNK)


class Placed(Protocol):
    """Something with a place on the disk: an extent."""

    @property
    def offset(self) -> int:
        """First byte, from the start of the decoded disk."""
        ...


class Extractable(ReadAt, Protocol):
    """A file that can be written to a destination."""

    @property
    def timestamp(self) -> float | None:
        """Time of the last modification, in seconds since 1970."""
        ...

    @property
    def extents(self) -> Sequence[Placed]:
        """Extents of the content on the disk."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The content, piece by piece."""
        ...


def is_written(target: Path, file: Extractable) -> bool:
    """Whether the file at `target` has the content of `file`; if so, its time is set.

    Size and time alone would not distinguish it from a file of another disk.
    """
    try:
        if not stat.S_ISREG(target.lstat().st_mode):
            return False
        written = io.FileIO(target, "rb", opener=_open_file)
    except OSError:
        return False
    with written:
        try:
            if not _has_content(written, file):
                return False
        except CorruptImage:
            return False
        if os.fstat(written.fileno()).st_mtime != file.timestamp:
            _set_time(written.fileno() if _HAS_TIMES_OF_DESCRIPTORS else str(target), file.timestamp)
    return True


def _open_file(path: str, flags: int) -> int:
    """Descriptor of a file, opened without following a link or waiting for the other end of a pipe."""
    return os.open(path, flags | _NOT_A_LINK | getattr(os, "O_NONBLOCK", 0))


def _has_content(written: io.FileIO, file: Extractable) -> bool:
    """Whether an open file has, from its position on, the content of the image's file.

    Raises:
        CorruptImage: The image's file is damaged.
        SourceError: The image's file can't be read.
    """
    if os.fstat(written.fileno()).st_size != file.size:
        return False
    prefetch(file, 0, file.size)
    for data in from_source(chunks(file)):
        view = memoryview(data)
        while view:
            try:
                found = written.read(len(view))
            except OSError:
                return False
            if not found or view[: len(found)] != found:
                return False
            view = view[len(found) :]
    return True


class DestinationFolder:
    """An open directory, in which files are made one by one."""

    def __init__(self, root: Path, *, overwrite: bool, replaced: Collection[str]) -> None:
        self._root = root
        self._replaced = replaced
        self._overwrite = overwrite
        self._written = 0
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(root, os.O_RDONLY | _FOLDER_ONLY) if _HAS_DIRECTORY_DESCRIPTORS else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def write(self, path: str, chunks: Iterable[bytes], timestamp: float | None) -> None:
        """Write one file without a name, or with a temporary one in the same directory, then give it its own name.

        Raises:
            DestinationExists: Something is in the way.
            DestinationFull: There is no room left.
            DestinationFailed: The file can't be written for another reason.
            SourceError: The content can't be read.
            UnsafeName: The name, or the path, is longer than the system allows.
        """
        try:
            with writing(self._root / path, self._so_far()):
                self._check_length(path)
                with self._folder(path) as folder:
                    folder.write(from_source(chunks), timestamp, overwrite=self._overwrite or path in self._replaced)
        except DestinationFailed as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UnsafeName(f"{path!r} is longer than the system takes", structure="file name") from error
            raise
        self._written += 1

    def _so_far(self) -> str:
        """End of a message about a file that could not be written."""
        if self._written == 0:
            return "; nothing was written"
        files = "the file written before is" if self._written == 1 else f"the {self._written} files written before are"
        return f"; {files} whole"

    def _check_length(self, path: str) -> None:
        """Refuse a path that could be written directory by directory, but not be opened as a whole afterwards."""
        try:
            os.lstat(self._root / path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[_Folder]:
        """The directory that a file belongs in, created if it is missing."""
        *above, name = path.split("/")
        if self._fd is None:
            target = self._root.joinpath(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            yield _Folder(target, str(target), None)
            return
        fd = os.dup(self._fd)
        try:
            for part in above:
                fd = self._step(fd, part, path)
            yield _Folder(self._root / path, name, fd)
        finally:
            os.close(fd)

    def _step(self, fd: int, part: str, path: str) -> int:
        """Descriptor of the directory `part` of the one open as `fd`, which is closed; links are not followed."""
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            below = os.open(part, os.O_RDONLY | _FOLDER_ONLY | _NOT_A_LINK, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise DestinationExists(f"{self._root / path}: {part!r} is in the way: it is not a directory") from error
        os.close(fd)
        return below


class _Folder:
    """Destination of one file: a name in an open directory, or a path on systems without directory descriptors."""

    def __init__(self, target: Path, name: str, fd: int | None) -> None:
        self._target, self._name, self._fd = target, name, fd

    def write(self, chunks: Iterable[bytes], timestamp: float | None, *, overwrite: bool) -> None:
        unnamed = self._open_unnamed()
        if unnamed is not None:
            with io.FileIO(unnamed, "wb") as output:
                _fill(output, chunks)
                _set_time(output.fileno(), timestamp)
                source = f"/proc/self/fd/{output.fileno()}"
                if not overwrite:
                    self._link(source)
                    return
                temporary = self._temporary()
                os.link(source, temporary, dst_dir_fd=self._fd, follow_symlinks=True)
                self._replace(temporary)
            return
        temporary = self._temporary()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOT_A_LINK | getattr(os, "O_BINARY", 0)
        try:
            with io.FileIO(os.open(temporary, flags, 0o666, dir_fd=self._fd), "wb") as output:
                _fill(output, chunks)
                if _HAS_TIMES_OF_DESCRIPTORS:
                    _set_time(output.fileno(), timestamp)
            if not _HAS_TIMES_OF_DESCRIPTORS:
                _set_time(temporary, timestamp, self._fd)
            if overwrite:
                self._replace(temporary)
            else:
                self._link(temporary)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)

    def _open_unnamed(self) -> int | None:
        """Descriptor of an unnamed file, which vanishes unless it is named; None where such files are not available."""
        if self._fd is None or not _HAS_UNNAMED_FILES:
            return None
        try:
            return os.open(".", getattr(os, "O_TMPFILE", 0) | os.O_WRONLY, 0o666, dir_fd=self._fd)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            return None  # this file system has no unnamed files

    def _temporary(self) -> str:
        return os.path.join(os.path.dirname(self._name), f".{os.urandom(8).hex()}.part")  # noqa: PTH118, PTH120  # a name

    def _replace(self, temporary: str) -> None:
        try:
            os.replace(temporary, self._name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)
            raise

    def _link(self, source: str) -> None:
        """Give a file its own name; unlike a rename, this fails if the name exists."""
        is_unnamed = source.startswith("/proc/")
        try:
            if self._fd is None:
                os.link(source, self._name)
            else:
                directory = None if is_unnamed else self._fd
                os.link(source, self._name, src_dir_fd=directory, dst_dir_fd=self._fd, follow_symlinks=is_unnamed)
        except FileExistsError:
            message = f"{self._target} appeared while it was being written; it was left as it is"
            raise DestinationExists(message) from None
        except (OSError, NotImplementedError) as error:  # a file system without links
            if is_unnamed or (isinstance(error, OSError) and error.errno in FULL):
                raise
            os.rename(source, self._name, src_dir_fd=self._fd, dst_dir_fd=self._fd)


def _fill(output: io.FileIO, chunks: Iterable[bytes]) -> None:
    """Write the content, with chunks of zeros as holes."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if chunk == _ZEROS[: len(chunk)]:
            output.seek(size)
            continue
        view = memoryview(chunk)
        while view:
            view = view[output.write(view) :]
    output.truncate(size)


def _set_time(file: int | str, timestamp: float | None, folder: int | None = None) -> None:
    """Set the modification time of a file, by descriptor or path; dates that the file system can't hold are skipped."""
    if timestamp is not None:
        with contextlib.suppress(OverflowError, OSError, ValueError):
            os.utime(file, (timestamp, timestamp), dir_fd=folder)
