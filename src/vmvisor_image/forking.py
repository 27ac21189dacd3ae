"""Readers go on in a forked child, whichever thread of the parent held which lock at that moment."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Restartable(Protocol):
    """What has locks or threads."""

    def start_in_child(self) -> None:
        """After a fork, before anything else runs in the child: take new locks, forget threads and unfinished work."""
        ...


_READERS: weakref.WeakSet[Restartable] = weakref.WeakSet()


def restart_in_child(reader: Restartable) -> None:
    """Call the reader's `start_in_child` in every child that is forked while it lives."""
    _READERS.add(reader)


def _start_in_child() -> None:
    for reader in list(_READERS):
        reader.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_in_child)
