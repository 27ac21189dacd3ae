"""Common ground of all code that writes files: errors of the source and of the destination, locks, replacement."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from vmvisor_image.base.system_errors import in_words
from vmvisor_image.errors import (
    DestinationExists,
    DestinationFailed,
    DestinationFull,
    InvalidArgument,
    SourceError,
    VmvisorImageError,
)

_T = TypeVar("_T")
FULL: Final = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
"""Error numbers of the system for a full disk, a spent quota and a file of the largest size."""
_STEPS: Final = {
    errno.ENOENT: ", make its folder first",
    errno.ENOTDIR: ", a part of its path is a file: choose another folder",
    errno.EACCES: ", choose a folder that you may write to",
    errno.EPERM: ", choose a folder that you may write to",
    errno.EROFS: ", choose a folder on another file system",
    errno.EISDIR: ", it is a folder: choose a name in it",
}
"""Next steps by the system's error number."""
_TAKEN: Final = frozenset((errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK))
"""Error numbers for a lock that somebody else holds; any other number means a file system without locks."""
_IS_WINDOWS: Final = sys.platform == "win32"
_LOCKED_BYTE: Final = 0x7FFF_FFFF
"""Offset of the byte that is locked on Windows, where a lock keeps others from its byte: nobody reads this one."""


@contextlib.contextmanager
def writing(dest: str | os.PathLike[str], state: str = "") -> Iterator[None]:
    """Block in which errors of the system become errors of writing `dest`; this library's errors stay as they are.

    Args:
        dest: Path of the file or directory that is written.
        state: Text to add to the message behind the reason.

    Raises:
        DestinationFull: There is no room left.
        DestinationFailed: `dest` can't be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, VmvisorImageError):
            raise
        reason = f"({error if error.errno is None else os.strerror(error.errno)})"
        if error.errno in FULL:
            failed: DestinationFailed = DestinationFull(f"{os.fspath(dest)}: there is no room left {reason}{state}")
        else:
            step = _STEPS.get(error.errno or 0, "")
            failed = DestinationFailed(f"{os.fspath(dest)}: it can't be written {reason}{step}{state}")
        failed.errno = error.errno
        raise failed from error


def from_source(chunks: Iterable[_T]) -> Iterator[_T]:
    """Pieces of a source, in order; errors of the system become errors of the source, not of the destination.

    Raises:
        SourceError: The source can't be read.
    """
    with reading_source():
        yield from chunks


@contextlib.contextmanager
def reading_source() -> Iterator[None]:
    """Block in which errors of the system become errors of the source, not of the destination.

    Raises:
        SourceError: The source can't be read.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, VmvisorImageError):
            raise
        failed = SourceError(f"what was to be written could not be read: {in_words(error)}")
        failed.errno = error.errno
        raise failed from error


def check_replaceable(dest: Path, *, overwrite: bool) -> None:
    """Refuse a destination that exists, unless it is a file, or a link to one, and may be replaced.

    Raises:
        DestinationExists: The destination exists.
        DestinationFailed: Whether it exists can't be found out.
    """
    with writing(dest):
        try:
            is_link = stat.S_ISLNK(dest.lstat().st_mode)
        except FileNotFoundError:
            return
    if not overwrite:
        raise DestinationExists(f"{dest} is already there")
    with writing(dest):
        try:
            is_file = stat.S_ISREG(dest.stat().st_mode)
        except FileNotFoundError:  # a link that leads nowhere
            is_file = is_link
    if not is_file:
        raise DestinationExists(f"{dest} is in the way: it is not a file that could be replaced")


def check_apart(dest: Path, *sources: str | os.PathLike[str]) -> None:
    """Refuse a destination that is the image itself, which is never written, even where files may be replaced.

    Args:
        dest: Path of the destination.
        sources: Paths of the image, and of further files that hold parts of it.

    Raises:
        DestinationExists: The destination is one of them.
    """
    for source in sources:
        try:
            is_same = dest.samefile(source)
        except OSError:  # one of the two does not exist
            continue
        if is_same:
            raise DestinationExists(f"{dest} is the image itself, which is never written; choose another destination")


def check_cache(cache: str | os.PathLike[str] | bool | None) -> None:
    """Refuse the path of a cache that can't become a directory; whether it can be written to is found out later.

    Raises:
        InvalidArgument: It, or what should be a directory above it, is something else.
    """
    if cache is None or isinstance(cache, bool):
        return
    folder = Path(cache)
    for path in (folder, *folder.parents):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError:  # not there yet
            continue
        if not is_folder:
            raise InvalidArgument(f"{path} is a file, and decoded data is kept in a folder: choose another cache")
        return


def lock(file: BinaryIO) -> bool | None:
    """Whether this handle alone holds the lock of a file, until it is closed; None where the file system has no locks.

    Nothing except this function respects the lock. Moves the file's position.
    """
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
    return lock_descriptor(file.fileno())


def lock_descriptor(descriptor: int) -> bool | None:
    """See `lock`, for a descriptor, on Windows at its position."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # a system without locks, such as WebAssembly's
        return None
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


@contextlib.contextmanager
def holding_folder(dest: str | os.PathLike[str]) -> Iterator[None]:
    """Block in which no other one of this kind holds the directory `dest`, which is made where it is missing.

    Directories are locked by the system itself, so that no file is left; Windows and some file systems can't.

    Raises:
        DestinationExists: Another run holds it.
        DestinationFailed: It can't be made.
    """
    root = Path(dest)
    made = [path for path in (root, *root.parents) if not os.path.lexists(path)]
    if _IS_WINDOWS or (not made and not root.is_dir()):  # writing to it says what is in the way
        yield
        return
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        held = os.open(root, os.O_RDONLY)
    try:
        if lock_descriptor(held) is False:
            raise DestinationExists(f"{root} is being written by another run; wait for it, or choose another folder")
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # what was written stays
                for path in made:
                    path.rmdir()
            raise
    finally:
        os.close(held)


def is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def publish(file: BinaryIO, part: Path, target: Path) -> None:
    """Give its final name to a file that is whole and that nobody else may write.

    Raises:
        DestinationExists: Another run took the file over; only on Windows, where an open file can't be renamed.
    """
    with writing(target):
        if not _IS_WINDOWS:
            part.replace(target)
            return
        size = os.fstat(file.fileno()).st_size
        file.close()
        own = part.with_name(f"{part.stem}-{os.urandom(8).hex()}.part")
        part.rename(own)
        if own.stat().st_size != size:
            raise DestinationExists(f"{part} was taken over by another run; {target} was not written")
        own.replace(target)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def write_whole(dest: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; a link, or something other than a file, is written in place.

    Raises:
        DestinationFull: There is no room left.
        DestinationFailed: `dest` can't be written for another reason.
    """
    with writing(dest):
        if dest.is_symlink() or (dest.exists() and not dest.is_file()):
            with dest.open("wb") as output:
                output.write(data)
            return
        temporary = dest.with_name(f".{os.urandom(8).hex()}.part")
        try:
            with temporary.open("xb") as output:
                output.write(data)
            temporary.replace(dest)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
