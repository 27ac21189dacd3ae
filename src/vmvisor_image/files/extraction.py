"""Safe extraction of files to a directory: names are checked first, files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from vmvisor_image.base.destination import check_apart, writing
from vmvisor_image.base.limits import passed
from vmvisor_image.base.open_options import Progress
from vmvisor_image.errors import CorruptImage, DestinationExists, PartialExtraction, UnsafeName
from vmvisor_image.files.folder_writer import DestinationFolder, Extractable, is_written
from vmvisor_image.files.safe_names import check_names
from vmvisor_image.streams.reading import prefetch


def write_files(  # noqa: PLR0913  # the options are independent of each other
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
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write files of an image, and generated files, below `dest`.

    Each file appears whole or not at all, even if the call is interrupted. Directories below `dest` are opened one
    within the other, and links in them are not followed. Runs of zeros become holes.

    Args:
        files: Relative POSIX path of each file of the image, and the file.
        dest: Directory to write to; created if it is missing.
        made: Relative POSIX path of each generated file, and a function that returns its content in pieces; generated
            and written last, so that they exist only beside whole files and may depend on what those files hold.
        overwrite: Replace files that are already there.
        replaced: Paths of files that are replaced in any case.
        resume: Leave files that are already there with the right content as they are, except for setting their times.
        most_bytes: Largest total size of `files`, in bytes; None for no limit.
        refused: Path and reason of each file that can't be written and is not among `files`.
        skip_unsafe: Skip only the file with an unsafe name, or the second of two that collide, unless no other file is
            left.
        progress: Called with the bytes of `files` written so far, and all that are to be written.

    Returns:
        The paths written, and those that were already there, in the order given.

    Raises:
        UnsafeName: A name can't be written safely, or two collide on a case-insensitive file system; nothing was
            written. With `skip_unsafe`, only if this holds for all files.
        DestinationExists: Something is in the way.
        DestinationFull: There is no room left.
        DestinationFailed: The destination can't be written for another reason.
        SourceError: A file can't be read.
        LimitExceeded: The files have more bytes than `most_bytes`; nothing was written.
        PartialExtraction: Some files are damaged, or have names that are longer than the system allows or, with
            `skip_unsafe`, unsafe; the others were written, but none of `made`.
    """
    root = Path(dest)
    paths = [path for path, _ in files] + [path for path, _ in made]
    unsafe = check_names(paths)
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
        free = [path for path in reachable if path not in done]
        _check_free(root, free, overwrite=overwrite, replaced=replaced, sources=_local_paths(files))
    ordered, failed = _in_disk_order([(path, file) for path, file in files if path not in done])
    for _, file in ordered:
        prefetch(file, 0, file.size)
    count = _Counter(progress, sum(file.size for _, file in ordered))
    with DestinationFolder(root, overwrite=overwrite, replaced=replaced) as destination:
        for path, file in ordered:
            try:
                destination.write(path, count.passing(file.chunks()), file.timestamp)
            except CorruptImage as error:
                failed.append((path, error))
        if failed or refused:
            broken = {path for path, _ in failed}
            _raise_partial(tuple(root / path for path, _ in files if path not in broken), [*refused, *failed])
        for path, content in made:
            destination.write(path, content(), None)
    return tuple(root / path for path in paths)


class _Counter:
    """Count of the bytes that are written."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._done = 0

    def passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, each counted once it was written."""
        for chunk in chunks:
            yield chunk
            self._done += len(chunk)
            if self._progress is not None:
                self._progress(self._done, self._total)


def _in_disk_order(
    files: Iterable[tuple[str, Extractable]],
) -> tuple[list[tuple[str, Extractable]], list[tuple[str, CorruptImage]]]:
    """Files in the order of their first bytes, so that a compressed image is decoded front to back; damaged files."""
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
    """Paths of the files that are already there with the right content."""
    return frozenset(path for path, file in _in_disk_order(files)[0] if is_written(root / path, file))


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


def _check_folders(root: Path, paths: Sequence[str]) -> list[str]:
    """Paths whose directory exists; anything in the way of a directory, such as a link, is refused."""
    if os.path.lexists(root) and not root.is_dir():
        raise DestinationExists(f"{root} is in the way: it is not a directory; choose another folder")
    folders: dict[tuple[int, str], int] = {}
    """Number of each directory, by the number of its parent and its name; 0 for a missing directory."""
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


def _local_paths(files: Iterable[tuple[str, Extractable]]) -> frozenset[str]:
    """Paths of the files of the system that the files are read from."""
    homes = {id(home): home for _, file in files if (home := getattr(file, "home", None)) is not None}
    return frozenset(path for home in homes.values() for path in getattr(home, "local_paths", ()))


def _check_free(
    root: Path, paths: Sequence[str], *, overwrite: bool, replaced: Collection[str], sources: Collection[str]
) -> None:
    """Refuse anything in the way of a file, and to replace a file of the system that the image is read from."""
    for path in paths:
        mode = _mode(root / path)
        if mode is not None and stat.S_ISDIR(mode):
            raise DestinationExists(f"{root / path} is in the way: it is a directory")
        if mode is not None and not overwrite and path not in replaced:
            raise DestinationExists(f"{root / path} is already there; nothing was written")
        if mode is not None:
            check_apart(root / path, *sources)


def _is_folder(root: Path, path: str) -> bool:
    mode = _mode(root / path)
    if mode is not None and stat.S_ISLNK(mode):
        raise DestinationExists(f"{root / path} is a symbolic link and could lead out of {root}")
    if mode is not None and not stat.S_ISDIR(mode):
        raise DestinationExists(f"{root / path} is in the way: it is not a directory")
    return mode is not None


def _mode(path: Path) -> int | None:
    """Mode of the file at `path`, links not followed; None where there is no file, or the path is too long."""
    try:
        return path.lstat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise
        return None
