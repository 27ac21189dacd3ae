"""Names from images: how they are compared where case is not told, and how they are shown."""

from __future__ import annotations

from typing import Final

_LAST_UNIT: Final = "\uffff"
_FINAL_SIGMA: Final = "\u03c2"
"""The one lower-case letter of two with one upper case that is compared as the other."""


def fold_name(name: str) -> str:
    """A name as FAT and NTFS compare it: each UTF-16 unit in lower case, where one is the other's upper case.

    Not `str.casefold`, which takes ``straße`` and ``strasse``, ``ﬁ`` and ``fi``, K and the Kelvin sign for one
    (fatgen103, "Name Limits and Character Sets"; Windows' table goes from one character to one).
    """
    return name.lower() if name.isascii() else "".join(map(_lower, name))


def printable(text: str) -> str:
    """Text from an image, to be shown: what can't be seen, control characters among it, by its code as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _lower(character: str) -> str:
    if character == _FINAL_SIGMA:
        return "\u03c3"
    lower = character.lower()
    is_pair = len(lower) == 1 and character <= _LAST_UNIT and lower.upper() == character
    return lower if is_pair else character
