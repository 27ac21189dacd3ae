"""Kinds of file systems of guests that are read, and whether the package that reads them is there."""

from __future__ import annotations

import importlib.util
from typing import Final

KINDS: Final = ("ext2", "ext3", "ext4", "ntfs", "exfat", "hfsplus", "ufs")
"""Kinds of file systems that are read, as `Partition.kind` has them."""
EXTRA: Final = "pip install 'vmvisor-image[guests]'"
_LIBRARY: Final = "pytsk3"


def library() -> str | None:
    """Path of pytsk3; None where it is not installed. It is not imported."""
    try:
        found = importlib.util.find_spec(_LIBRARY)
    except (ImportError, ValueError):
        return None
    return None if found is None else found.origin


def advice(kind: str) -> str:
    """Words on how the files of a partition of that kind can be read; empty where they can't, or already are."""
    if kind in KINDS and library() is None:
        return f"; with the extra for guests they can be: {EXTRA}"
    return ""
