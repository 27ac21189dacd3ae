"""Errors of the operating system in words: without their number, with the path first, and with what can be done."""

from __future__ import annotations

import errno
import os
from itertools import islice
from pathlib import Path
from typing import Final

from vmvisor_image.errors import (
    SourceError,
    SourceIsDirectory,
    SourceNotDirectory,
    SourceNotFound,
    SourceNotPermitted,
    VmvisorImageError,
)

_WORDS: Final = {
    errno.ENOENT: "there is no such file: check its name and its folder",
    errno.EISDIR: "it is a folder, not a file: name a file in it",
    errno.ENOTDIR: "a part of its path is a file, not a folder: check the path",
    errno.EACCES: "permission denied: allow yourself to read it, or run this as a user who may (a disk needs root)",
    errno.EPERM: "the system does not permit it: run this as a user who may (a disk needs root)",
    errno.ELOOP: "its symbolic links lead in a circle: name the file itself",
    errno.ENAMETOOLONG: "its name is longer than the system takes: check the path",
    errno.ENXIO: "no device answers there: check that it is connected",
    errno.ENODEV: "no device answers there: check that it is connected",
    errno.ENOMEDIUM if hasattr(errno, "ENOMEDIUM") else errno.ENXIO: "the drive is empty: put a medium in",
    errno.EIO: "input/output error of the device: try another reader or port, and copy it with ddrescue",
}
_KINDS: Final[dict[type[OSError], type[SourceError]]] = {
    FileNotFoundError: SourceNotFound,
    IsADirectoryError: SourceIsDirectory,
    NotADirectoryError: SourceNotDirectory,
    PermissionError: SourceNotPermitted,
}
"""Error of this library for each of Python's where a source can't be opened."""
_MOST_NAMES: Final = 10_000
"""Most names of a folder among which one like a missing file's is looked for."""
_AT_URL: Final = {
    errno.ENOENT: "there is nothing at this address: check the URL",
    errno.EISDIR: "it is a folder, not a file: name a file in it",
    errno.EACCES: "access is denied: give credentials, or an address that anyone may read",
    errno.EPERM: "access is denied: give credentials, or an address that anyone may read",
}


def in_words(error: BaseException) -> str:
    """Message of an error; of one that the system raised, its file, the reason, and the next step, as far as known."""
    if isinstance(error, VmvisorImageError) or not isinstance(error, OSError) or error.errno is None:
        return str(error)
    name = error.filename if isinstance(error.filename, str) else ""
    reason = error.strerror or os.strerror(error.errno)
    is_url = "://" in name
    words = _AT_URL if is_url else _WORDS
    text = ": ".join(filter(None, (name, words.get(error.errno, f"{reason[:1].lower()}{reason[1:]}"))))
    return f"{text}{_hint(name)}" if name and not is_url and isinstance(error, FileNotFoundError) else text


def _hint(name: str) -> str:
    """Words on a file that is like a missing one, or on its folder where that can't be read; empty without either."""
    from difflib import get_close_matches

    path = Path(name)
    try:
        with os.scandir(path.parent) as entries:
            there = [entry.name for entry in islice(entries, _MOST_NAMES)]
    except OSError:
        return f"; {str(path.parent)!r} is not a folder that can be read"
    close = get_close_matches(path.name, there, 1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


def opening_error(error: OSError, name: str | None = None) -> SourceError:
    """Error of this library for the system's where a source can't be opened, with its message in words.

    Args:
        error: Error of the system.
        name: Path or URL of the source, where the error has none.
    """
    if isinstance(error, SourceError):
        return error
    if error.filename is None and name is not None:
        error.filename = name
    kind = next((ours for builtin, ours in _KINDS.items() if isinstance(error, builtin)), SourceError)
    found = kind(in_words(error))
    found.errno, found.filename = error.errno, error.filename
    return found
