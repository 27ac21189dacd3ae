"""Check of file names: whether they can be written safely, on every system and beside each other."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import UnsafeName

_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{name}{digit}" for name in ("com", "lpt") for digit in "123456789¹²³"]  # two kinds of names
)
"""Names that Windows treats as devices, with any extension."""
_FOLDS_FULLY = sys.platform == "darwin"
"""Whether the system's file systems treat ``straße`` and ``strasse`` as one name; those of Windows and FAT do not."""
_FORBIDDEN = frozenset('/\\:*?"<>|') | {chr(code) for code in range(32)} | {"\x7f"}


def check_name(path: str, name: str) -> None:
    """Refuse a path component that can't be written safely on every system.

    Args:
        path: The whole path, for the message.
        name: One component of it.

    Raises:
        UnsafeName: The name is empty, a dot name or a device name, ends in a dot or a space, is not valid Unicode, or
            holds a separator, a control character or one of ``: * ? " < > |``.
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


def check_names(paths: Sequence[str]) -> dict[int, UnsafeName]:
    """Unsafe names, and the second of each two that are the same on a case-insensitive or normalising file system.

    Returns:
        Error for each unsafe path, by its index in `paths`.
    """
    folders: dict[tuple[int, str], int] = {}
    """Number of each directory, by the number of its parent and its name."""
    spellings: dict[tuple[int, str], str] = {}
    """Spelling of each name, by the number of its directory and the name folded as such a file system does."""
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
    """Record the spelling of the path component before `depth`; refuse it if another spelling was recorded before."""
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
