"""Names from images: comparison without regard to case, and display."""

from __future__ import annotations

import re
from typing import Final

_DRIVE: Final = re.compile(r"(?:[A-Za-z]:)+", re.ASCII)
_LAST_UNIT: Final = "\uffff"
_FINAL_SIGMA: Final = "\u03c2"
"""Second lower-case letter of the upper-case sigma; it is compared as the usual small sigma."""


def fold_name(name: str) -> str:
    """A name as FAT and NTFS compare it: each UTF-16 unit in lower case, where the two are a pair of cases.

    Not `str.casefold`, which makes ``straße`` and ``strasse``, ``ﬁ`` and ``fi``, K and the Kelvin sign equal
    (fatgen103, "Name Limits and Character Sets"; Windows' table maps one character to one).
    """
    return name.lower() if name.isascii() else "".join(map(_lower, name))


def printable(text: str) -> str:
    """Text from an image for display: characters that are not printable, such as controls, as Python's escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def last_part(path: str) -> str | None:
    """Last part of a path of any system in an image; None where it names no file of a directory.

    A drive of Windows is cut off like a directory: joined to a directory there, ``C:x`` would lead to another drive.
    """
    name = re.split(r"[/\\]", path)[-1]
    drive = _DRIVE.match(name)
    name = name if drive is None else name[drive.end() :]
    return name if name.strip() not in ("", ".", "..") and name.isprintable() else None


def _lower(character: str) -> str:
    if character == _FINAL_SIGMA:
        return "\u03c3"
    lower = character.lower()
    is_pair = len(lower) == 1 and character <= _LAST_UNIT and lower.upper() == character
    return lower if is_pair else character
