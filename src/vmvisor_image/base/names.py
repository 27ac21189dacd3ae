"""Names from images: comparison without regard to case, and display."""

from __future__ import annotations

from typing import Final

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


def _lower(character: str) -> str:
    if character == _FINAL_SIGMA:
        return "\u03c3"
    lower = character.lower()
    is_pair = len(lower) == 1 and character <= _LAST_UNIT and lower.upper() == character
    return lower if is_pair else character
