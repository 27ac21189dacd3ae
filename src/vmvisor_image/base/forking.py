"""Readers go on in a forked child, whichever thread of the parent held which lock at that moment."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # for the order of hooks, see below
import contextlib
import functools
import importlib
import logging  # noqa: F401  # so, too
import os
import pkgutil
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property  # noqa: PLC0414  # for other modules
else:

    class cached_property(functools.cached_property):  # noqa: N801  # the name of what it stands for
        """As that of later Pythons, without the lock which a forked child would wait for without end."""

        def __init__(self, func):
            """Called by the decorator."""
            super().__init__(func)
            self.lock = contextlib.nullcontext()


class ForkSafeLock:
    """A re-entrant lock which in a forked child is free, unless the thread that forked held it."""

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        """A free lock."""
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._enter_child()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _enter_child(self) -> None:
        """Take a new lock where a thread that is not here holds the old one."""
        with _RENEWING[0]:
            if self._process != os.getpid():
                if self._lock.acquire(blocking=False):
                    self._lock.release()
                else:
                    self._lock = threading.RLock()
                self._process = os.getpid()


_RENEWING = [threading.RLock()]
"""Held while a lock is renewed; itself renewed in each child."""


class Restartable(Protocol):
    """What has threads, or work of theirs that is not finished."""

    def start_in_child(self) -> None:
        """After a fork, before anything else runs in the child: take new locks, forget threads and unfinished work."""
        ...


_READERS: weakref.WeakSet[Restartable] = weakref.WeakSet()


def restart_in_child(reader: Restartable) -> None:
    """Call the reader's `start_in_child` in every child that is forked while it lives."""
    _READERS.add(reader)


def _start_in_child() -> None:
    _RENEWING[0] = threading.RLock()
    for reader in list(_READERS):
        reader.start_in_child()


_NEEDED_LATE: Final = (
    "construct",
    "encodings.cp437",  # by names of FAT
    "hashlib",
    "pyfatfs.EightDotThree",
    "pyfatfs.FATDirectoryEntry",
    "zstandard",
)
"""What readers import from elsewhere when they first need it, which may be in any thread."""
_NOT_READERS: Final = frozenset({"cli", "faces", "testing"})
"""Folders of this library that no reader imports from; some of their modules need packages that may not be there."""


@functools.cache
def _late_modules() -> tuple[str, ...]:
    """Names of all modules that a reader may still have to import: those above, and all in the folders of readers."""
    library = __name__.partition(".")[0]
    root = importlib.import_module(library)
    names = list(_NEEDED_LATE)
    for folder in pkgutil.iter_modules(root.__path__, f"{library}."):
        if folder.ispkg and folder.name.rpartition(".")[2] not in _NOT_READERS:
            within = importlib.import_module(folder.name)
            names += [found.name for found in pkgutil.walk_packages(within.__path__, f"{folder.name}.")]
    return tuple(names)


def _finish_imports() -> None:
    """Before a fork beside other threads, leave them nothing to import: in the child nobody would finish it.

    It is not enough to wait for imports that have begun: another may begin before the fork itself.
    """
    if threading.active_count() > 1:
        for name in _late_modules():
            with contextlib.suppress(ImportError):  # the Rust core of `bzip2` may not be there
                importlib.import_module(name)
    for name, module in list(sys.modules.items()):
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            with contextlib.suppress(Exception):  # how an import fails is a matter of whoever asked for it
                importlib.import_module(name)  # waits, but not where this thread is at it itself


# What is registered last is run first before a fork: so imports are waited for without the locks that `logging` and
# `concurrent.futures` hold over a fork, as what is imported may need them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish_imports, after_in_child=_start_in_child)
