"""Options of `Image.open`, for every function that passes them on."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypedDict

from vmvisor_image.base.limits import Limits

Progress = Callable[[int, int | None], None]
"""Function called with the number of compressed bytes passed so far, and in all (None where that is not known).

Of a disk that is not compressed it is called with the bytes of the disk."""


class ParentChoice(enum.Enum):
    """Ways to find the disk that a virtual disk rests on, other than to give it."""

    BESIDE = "beside"
    """The file of the name that the disk has for it, in the disk's own directory, archive or place on a server."""

    def __repr__(self) -> str:
        return self.name


BESIDE: Final = ParentChoice.BESIDE


class ReadOptions(TypedDict, total=False):
    """Options of `Image.open` that mean the same where neither a saved index nor a cache is used."""

    threads: int | None
    progress: Progress | None
    member: str | None
    storage_options: Mapping[str, Any] | None
    limits: Limits | None
    parent: Any
    snapshot: str | None
    allow_cid_mismatch: bool
    salvage: bool


class OpenOptions(ReadOptions, total=False):
    """Keyword arguments of `Image.open`, which documents their meanings and defaults."""

    index: str | os.PathLike[str] | None
    cache: str | os.PathLike[str] | bool | None


class MachineOptions(TypedDict, total=False):
    """Options of `open_machine`, and of the images of its disks; `Image.open` documents their meanings."""

    threads: int | None
    limits: Limits | None
    storage_options: Mapping[str, Any] | None
    allow_cid_mismatch: bool


def check_options(function: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse keyword arguments that a function does not have, as Python does for those of a signature.

    Raises:
        TypeError: One of `given` is not among `known`.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
