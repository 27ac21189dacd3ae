"""Writing files of an image to a folder, safely: names are checked first, files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Protocol, Self

from vmvisor_image.destination import FULL, from_source, writing
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    DestinationFailed,
    PartialExtraction,
    UnsafeName,
)
from vmvisor_image.limits import passed
from vmvisor_image.names import fold_name
from vmvisor_image.streams import ReadAt, prefetch

_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{name}{digit}" for name in ("com", "lpt") for digit in "123456789¹²³"]  # two kinds of names
)
"""Names that Windows takes for devices, with any extension."""
_HAS_DIRECTORY_DESCRIPTORS = {os.open, os.mkdir, os.link, os.rename, os.unlink} <= os.supports_dir_fd
"""Whether files can be opened relative to a folder that is open: on all systems but Windows."""
_HAS_UNNAMED_FILES = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")  # noqa: PTH112  # asked once
"""Whether there may be files without a name that are given one when they are whole: on Linux."""
_HAS_TIMES_OF_DESCRIPTORS = os.utime in os.supports_fd
"""Whether the time of a file that is open can be set by its descriptor: on all systems but Windows."""
_FOLDER_ONLY: int = getattr(os, "O_DIRECTORY", 0)
_NOT_A_LINK: int = getattr(os, "O_NOFOLLOW", 0)
_FOLDS_FULLY = sys.platform == "darwin"
"""Whether the system's file systems take ``straße`` and ``strasse`` for one name, which Windows' and FAT do not."""
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_FORBIDDEN = frozenset('/\\:*?"<>|') | {chr(code) for code in range(32)} | {"\x7f"}


class Placed(Protocol):
    """Something with a place on the disk: an extent."""

    @property
    def offset(self) -> int:
        """First byte, from the start of the decoded disk."""
        ...


class Extractable(ReadAt, Protocol):
    """What this module needs of a file."""

    @property
    def timestamp(self) -> float | None:
        """When it was last written, in seconds since 1970."""
        ...

    @property
    def extents(self) -> Sequence[Placed]:
        """Where its bytes lie."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Its content, piece by piece."""
        ...


def check_name(path: str, name: str) -> None:
    """Refuse a path component that can't be written safely on every system.

    Args:
        path: The whole path, for the message.
        name: One component of it.

    Raises:
        UnsafeName: It is empty, a dot name, a device name, or holds a separator, a colon or a control character.
    """
    reason = None
    if name in ("", ".", ".."):
        reason = "would leave the destination"
    elif "\0" in name:
        reason = "holds a NUL character"
    elif set(name) & _FORBIDDEN:
        reason = 'holds a path separator, a control character or one of : * ? " < > |'
    elif name.split(".", maxsplit=1)[0].rstrip().casefold() in _DEVICE_NAMES:
        reason = "is a device name on Windows"
    elif name[-1] in ". ":
        reason = "ends in a dot or a space, which Windows drops"
    elif any(0xD800 <= ord(character) <= 0xDFFF for character in name):  # a lone surrogate
        reason = "is not valid Unicode"
    if reason is not None:
        raise UnsafeName(f"{path!r} {reason}", structure="file name")


def write_files(  # each is one thing that is asked for
    files: Sequence[tuple[str, Extractable]],
    dest: str | os.PathLike[str],
    *,
    made: Sequence[tuple[str, Callable[[], Iterable[bytes]]]] = (),
    overwrite: bool = False,
    replaced: Collection[str] = (),
    resume: bool = False,
    most_bytes: int | None = None,
    refused: Sequence[tuple[str, CorruptImage]] = (),
    skip_unsafe: bool = False,
) -> tuple[Path, ...]:
    """Write files of an image, and content of our own, below `dest`.

    Each file appears whole or not at all, whenever this is ended. Directories below `dest` are opened one in the other,
    and links in them are not followed. Runs of zeros become holes.

    Args:
        files: Relative POSIX path and file of each.
        dest: Directory to write to; made where it is missing.
        made: Relative POSIX path of more files, and what makes the content of each, piece by piece; made and written
            last, so that they stand only beside whole files and may depend on what the files hold.
        overwrite: Replace files that are already there.
        replaced: Paths of files that are replaced in any case.
        resume: Leave files as they are that are already there with the content of those to be written, and set their
            times.
        most_bytes: Bytes that all `files` may have together; None for any number.
        refused: Path and reason of each file that can't be written and is not among `files`.
        skip_unsafe: An unsafe name, or the second of two that collide, costs only its own file, unless there is no
            other file.

    Returns:
        The paths written, and those that were there, in the order given.

    Raises:
        UnsafeName: A name can't be written safely, or two collide on a case-insensitive file system; nothing was
            written. With `skip_unsafe` only where that is so of all files.
        DestinationExists: Something is in the way.
        DestinationFull: There is no room left.
        DestinationFailed: The destination can't be written for another reason.
        SourceError: A file can't be read.
        LimitExceeded: The files have more bytes than `most_bytes`; nothing was written.
        PartialExtraction: Some files are damaged, or their names longer than the system takes, or with `skip_unsafe`
            unsafe; the others, and none of `made`, were written.
    """
    root = Path(dest)
    paths = [path for path, _ in files] + [path for path, _ in made]
    unsafe = _check_names(paths)
    refused = [*refused, *((paths[number], error) for number, error in unsafe.items())]
    if unsafe and not (skip_unsafe and len(unsafe) < len(paths)):
        first = next(iter(unsafe.values()))
        raise UnsafeName(f"{first.message}; nothing was written", structure="file name") from first
    files = [file for number, file in enumerate(files) if number not in unsafe]
    paths = [path for number, path in enumerate(paths) if number not in unsafe]
    total = sum(file.size for _, file in files)
    if most_bytes is not None and total > most_bytes:
        raise passed("extracted_bytes", f"{total} bytes are to be written, more than {most_bytes}")
    with writing(root):
        reachable = _check_folders(root, paths)
    done = _written(root, files) if resume else frozenset()
    with writing(root):
        _check_free(root, [path for path in reachable if path not in done], overwrite=overwrite, replaced=replaced)
    ordered, failed = _in_disk_order([(path, file) for path, file in files if path not in done])
    for _, file in ordered:
        prefetch(file, 0, file.size)
    with _Destination(root, overwrite=overwrite, replaced=replaced) as destination:
        for path, file in ordered:
            try:
                destination.write(path, file.chunks(), file.timestamp)
            except CorruptImage as error:
                failed.append((path, error))
        if failed or refused:
            broken = {path for path, _ in failed}
            _raise_partial(tuple(root / path for path, _ in files if path not in broken), [*refused, *failed])
        for path, content in made:
            destination.write(path, content(), None)
    return tuple(root / path for path in paths)


def _in_disk_order(
    files: Iterable[tuple[str, Extractable]],
) -> tuple[list[tuple[str, Extractable]], list[tuple[str, CorruptImage]]]:
    """The files by where they begin, so that a compressed image is decoded front to back; and the damaged ones."""
    found: list[tuple[int, int, tuple[str, Extractable]]] = []
    failed: list[tuple[str, CorruptImage]] = []
    for number, (path, file) in enumerate(files):
        try:
            extents = file.extents
        except CorruptImage as error:
            failed.append((path, error))
        else:
            found.append((extents[0].offset if extents else 0, number, (path, file)))
    return [file for _, _, file in sorted(found, key=lambda place: place[:2])], failed


def _written(root: Path, files: Iterable[tuple[str, Extractable]]) -> frozenset[str]:
    """The paths of those files that are there."""
    return frozenset(path for path, file in _in_disk_order(files)[0] if _is_written(root / path, file))


def _is_written(target: Path, file: Extractable) -> bool:
    """Whether what is at `target` has the file's content; its time is set then.

    Size and time would not tell it from a file of another disk.
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
    """Open without following a link, or waiting for the other end of a pipe."""
    return os.open(path, flags | _NOT_A_LINK | getattr(os, "O_NONBLOCK", 0))


def _has_content(written: io.FileIO, file: Extractable) -> bool:
    """Whether the rest of a file that is open is what the image's has.

    Raises:
        CorruptImage: The image's file is damaged.
        SourceError: It can't be read.
    """
    if os.fstat(written.fileno()).st_size != file.size:
        return False
    prefetch(file, 0, file.size)
    starts = range(0, file.size, _CHUNK)
    for data in from_source(file.read_at(at, min(_CHUNK, file.size - at)) for at in starts):
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


def _raise_partial(written: tuple[Path, ...], failed: list[tuple[str, CorruptImage]]) -> NoReturn:
    first = failed[0][1]
    error = PartialExtraction(
        f"{len(failed)} of {len(failed) + len(written)} files could not be read and were not written"
        f" (first: {failed[0][0]!r}: {first})",
        structure="extraction",
        offset=first.offset,
    )
    error.written, error.failed = written, tuple(failed)
    raise error from first


def _check_names(paths: Sequence[str]) -> dict[int, UnsafeName]:
    """Unsafe names, and each second of two that a case-insensitive or normalising file system takes for one.

    Returns:
        What is wrong with each of `paths` that is not safe, by its place among them.
    """
    folders: dict[tuple[int, str], int] = {}
    """Numbers of the directories, by the number of the one they are in and their names."""
    spellings: dict[tuple[int, str], str] = {}
    """Names as they are spelled, by the number of the directory they are in and how such a file system takes them."""
    unsafe: dict[int, UnsafeName] = {}
    for place, path in enumerate(paths):
        parts = path.split("/")
        folder = 0
        try:
            for depth, part in enumerate(parts, 1):
                number = folders.get((folder, part)) if depth < len(parts) else None
                if number is None:
                    check_name(path, part)
                    _claim_name(spellings, folder, parts, depth)
                    if depth < len(parts):
                        number = folders[folder, part] = len(folders) + 1
                folder = number or 0
        except UnsafeName as error:
            unsafe[place] = error
    return unsafe


def _claim_name(spellings: dict[tuple[int, str], str], folder: int, parts: list[str], depth: int) -> None:
    """Note the spelling of the path component before `depth`; refuse one that another spelling has taken."""
    part = parts[depth - 1]
    folded = unicodedata.normalize("NFC", part).casefold() if _FOLDS_FULLY else fold_name(part)
    key = folder, unicodedata.normalize("NFC", folded)
    if key in spellings:
        first, second = ("/".join([*parts[: depth - 1], name]) for name in (part, spellings[key]))
        raise UnsafeName(
            f"{first!r} and {second!r} are one name on a case-insensitive file system",
            structure="file name",
        )
    spellings[key] = part


def _check_folders(root: Path, paths: Sequence[str]) -> list[str]:
    """Refuse what is in the way of a folder, such as a link; gives the paths whose folder is there."""
    if os.path.lexists(root) and not root.is_dir():
        raise DestinationExists(f"{root} is in the way: it is no directory")
    folders: dict[tuple[int, str], int] = {}
    """Numbers of the directories, by the number of the one they are in and their names; 0 of those that are missing."""
    reachable: list[str] = []
    for path in paths:
        folder, start, end = 0, 0, path.find("/")
        while end >= 0:
            key = folder, path[start:end]
            if key not in folders:
                folders[key] = len(folders) + 1 if _is_folder(root, path[:end]) else 0
            if not folders[key]:
                break
            folder, start, end = folders[key], end + 1, path.find("/", end + 1)
        if end < 0:
            reachable.append(path)
    return reachable


def _check_free(root: Path, paths: Sequence[str], *, overwrite: bool, replaced: Collection[str]) -> None:
    """Refuse what is in the way of a file."""
    for path in paths:
        mode = _mode(root / path)
        if mode is not None and stat.S_ISDIR(mode):
            raise DestinationExists(f"{root / path} is in the way: it is a directory")
        if mode is not None and not overwrite and path not in replaced:
            raise DestinationExists(f"{root / path} is already there; nothing was written")


def _is_folder(root: Path, path: str) -> bool:
    mode = _mode(root / path)
    if mode is not None and stat.S_ISLNK(mode):
        raise DestinationExists(f"{root / path} is a symbolic link and could lead out of {root}")
    if mode is not None and not stat.S_ISDIR(mode):
        raise DestinationExists(f"{root / path} is in the way: it is no directory")
    return mode is not None


def _mode(path: Path) -> int | None:
    """What is at `path`, links not followed; None where nothing is, or the path is too long to tell."""
    try:
        return path.lstat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise
        return None


class _Destination:
    """A folder that is open, in which files are made one by one."""

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
        """Write one file under no name, or a temporary one beside its own, then give it its own.

        Raises:
            DestinationExists: Something is in the way.
            DestinationFull: There is no room left.
            DestinationFailed: It can't be written for another reason.
            SourceError: The content can't be read.
            UnsafeName: The name, or the path, is longer than the system takes.
        """
        try:
            with writing(self._root / path, f"; the {self._written} files written before are whole"):
                self._check_length(path)
                with self._folder(path) as folder:
                    folder.write(from_source(chunks), timestamp, overwrite=self._overwrite or path in self._replaced)
        except DestinationFailed as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UnsafeName(f"{path!r} is longer than the system takes", structure="file name") from error
            raise
        self._written += 1

    def _check_length(self, path: str) -> None:
        """Refuse what could be written from folder to folder, but not be opened by its path afterwards."""
        try:
            os.lstat(self._root / path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[_Folder]:
        """The folder that a file belongs in, made where it is missing."""
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
        """Open a folder in the one that is open as `fd`, which is closed; links are not followed."""
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            below = os.open(part, os.O_RDONLY | _FOLDER_ONLY | _NOT_A_LINK, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise DestinationExists(f"{self._root / path}: {part!r} is in the way: it is no directory") from error
        os.close(fd)
        return below


class _Folder:
    """Where one file is made: a folder that is open, or on systems without such descriptors the path."""

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
        """A file without a name, which is gone when this ends before it has one; None where there is no such thing."""
        if self._fd is None or not _HAS_UNNAMED_FILES:
            return None
        try:
            return os.open(".", getattr(os, "O_TMPFILE", 0) | os.O_WRONLY, 0o666, dir_fd=self._fd)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            return None  # this file system has none

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
        """Give a file its own name, which fails where that exists, unlike a rename."""
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
    """Write the content, zeros as holes."""
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
    """Set when a file, by descriptor or path, was written last; a date that the file system can't hold is left out."""
    if timestamp is not None:
        with contextlib.suppress(OverflowError, OSError, ValueError):
            os.utime(file, (timestamp, timestamp), dir_fd=folder)
