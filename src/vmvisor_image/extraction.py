"""Writing files of an image to a folder, safely: names are checked first, files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from vmvisor_image.errors import CorruptImage, DestinationExists, PartialExtraction, UnsafeName
from vmvisor_image.streams import ReadAt, prefetch

_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{name}{digit}" for name in ("com", "lpt") for digit in "123456789¹²³"]  # two kinds of names
)
"""Names that Windows takes for devices, with any extension."""
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
        raise UnsafeName(f"{path!r} {reason}; nothing was written", structure="file name")


def write_files(
    files: Sequence[tuple[str, Extractable]],
    dest: str | os.PathLike[str],
    *,
    made: Sequence[tuple[str, Callable[[], Iterable[bytes]]]] = (),
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write files of an image, and content of our own, below `dest`.

    Args:
        files: Relative POSIX path and file of each.
        dest: Directory to write to; made where it is missing.
        made: Relative POSIX path of more files, and what makes the content of each, piece by piece; made and written
            last, so that they stand only beside whole files and may depend on what the files hold.
        overwrite: Replace files that are already there.

    Returns:
        The paths written, in the order given.

    Raises:
        UnsafeName: A name can't be written safely, or two collide on a case-insensitive file system.
        DestinationExists: Something is in the way.
        PartialExtraction: Some files are damaged; the others, and none of `made`, were written.
    """
    root = Path(dest)
    paths = [path for path, _ in files] + [path for path, _ in made]
    _check_names(paths)
    _check_destination(root, paths, overwrite=overwrite)
    failed: list[tuple[str, CorruptImage]] = []
    readable: list[tuple[int, int]] = []
    for number, (path, file) in enumerate(files):
        try:
            extents = file.extents
        except CorruptImage as error:
            failed.append((path, error))
            continue
        readable.append((extents[0].offset if extents else 0, number))
        prefetch(file, 0, file.size)
    for _, number in sorted(readable):  # in disk order: a compressed image is decoded once, front to back
        path, file = files[number]
        try:
            _write(root / path, file.chunks(), file.timestamp, overwrite=overwrite)
        except CorruptImage as error:
            failed.append((path, error))
    if failed:
        broken = {path for path, _ in failed}
        _raise_partial(tuple(root / path for path, _ in files if path not in broken), failed)
    for path, content in made:
        _write(root / path, content(), None, overwrite=overwrite)
    return tuple(root / path for path in paths)


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


def _check_names(paths: Sequence[str]) -> None:
    """Refuse unsafe names, and two that a case-insensitive or normalising file system takes for one."""
    spellings: dict[str, tuple[str, bool]] = {}
    for path in paths:
        parts = path.split("/")
        for depth, part in enumerate(parts, 1):
            check_name(path, part)
            prefix, is_file = "/".join(parts[:depth]), depth == len(parts)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", prefix).casefold())
            if key in spellings and (is_file or spellings[key] != (prefix, False)):
                raise UnsafeName(
                    f"{prefix!r} and {spellings[key][0]!r} are one name on a case-insensitive file system;"
                    " nothing was written",
                    structure="file name",
                )
            spellings[key] = (prefix, is_file)


def _check_destination(root: Path, paths: Sequence[str], *, overwrite: bool) -> None:
    if os.path.lexists(root) and not root.is_dir():
        raise DestinationExists(f"{root} is in the way: it is no directory")
    for path in paths:
        for parent in (root / part for part in list(PurePosixPath(path).parents)[:-1]):
            if parent.is_symlink():
                raise DestinationExists(f"{parent} is a symbolic link and could lead out of {root}")
            if parent.exists() and not parent.is_dir():
                raise DestinationExists(f"{parent} is in the way: it is no directory")
        target = root / path
        if target.is_dir() and not target.is_symlink():
            raise DestinationExists(f"{target} is in the way: it is a directory")
        if not overwrite and os.path.lexists(target):
            raise DestinationExists(f"{target} is already there; nothing was written")


def _write(target: Path, chunks: Iterable[bytes], timestamp: float | None, *, overwrite: bool) -> None:
    """Write one file under a temporary name beside its own, then rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with temporary.open("xb") as output:
            for chunk in chunks:
                output.write(chunk)
        if timestamp is not None:
            with contextlib.suppress(OverflowError, OSError, ValueError):  # a date the file system can't hold
                os.utime(temporary, (timestamp, timestamp))
        if overwrite:
            temporary.replace(target)
        else:
            _rename_without_replacing(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _rename_without_replacing(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)  # fails where the target exists, unlike a rename
    except FileExistsError:
        raise DestinationExists(f"{target} appeared while it was being written; it was left as it is") from None
    except (OSError, NotImplementedError):  # a file system without links
        temporary.rename(target)
