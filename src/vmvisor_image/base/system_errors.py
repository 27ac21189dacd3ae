"""Errors of the operating system in words: without their number, with the path first, and with what can be done."""

from __future__ import annotations

import errno
import os
from typing import Final

from vmvisor_image.errors import VmvisorImageError

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
    words = _AT_URL if "://" in name else _WORDS
    return ": ".join(filter(None, (name, words.get(error.errno, f"{reason[:1].lower()}{reason[1:]}"))))
