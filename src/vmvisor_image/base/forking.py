"""Locks and imports in forked children: readers work there whichever locks the parent's threads held at the fork."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # for the order of hooks, see below
import contextlib
import functools
import importlib
import logging  # noqa: F401  # for the same reason
import os
import pkgutil
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property  # noqa: PLC0414  # for other modules
else:

    class cached_property(functools.cached_property):  # noqa: N801  # the name of the class that it replaces
        """The `cached_property` of later Pythons, without the lock that a forked child would wait for forever."""

        def __init__(self, func):
            """Wrap a method, as a decorator."""
            super().__init__(func)
            self.lock = contextlib.nullcontext()


class ForkSafeLock:
    """A re-entrant lock that is free in a forked child, unless the thread that forked held it."""

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        """Make a free lock."""
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._enter_child()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _enter_child(self) -> None:
        """Replace the lock where a thread that does not exist in this process holds it."""
        with _RENEWING[0]:
            if self._process != os.getpid():
                if self._lock.acquire(blocking=False):
                    self._lock.release()
                else:
                    self._lock = threading.RLock()
                self._process = os.getpid()


_RENEWING = [threading.RLock()]
"""Lock that is held while another one is replaced; itself replaced in each child."""


class Restartable(Protocol):
    """An object with threads, or with unfinished work of threads."""

    def start_in_child(self) -> None:
        """Take new locks, forget threads and unfinished work; called in a child before anything else runs there."""
        ...


_READERS: weakref.WeakSet[Restartable] = weakref.WeakSet()


def restart_in_child(reader: Restartable) -> None:
    """Call the reader's `start_in_child` in every child that is forked while the reader exists."""
    _READERS.add(reader)


def _start_in_child() -> None:
    _RENEWING[0] = threading.RLock()
    with contextlib.ExitStack() as stack:  # one that fails keeps no other from starting
        for reader in list(_READERS):
            stack.callback(reader.start_in_child)


_NEEDED_LATE: Final = (
    "construct",
    "encodings.cp437",  # for names in FAT
    "hashlib",
    "pyfatfs.EightDotThree",
    "pyfatfs.FATDirectoryEntry",
    "zstandard",
)
"""Modules outside this library that readers import at first use, which may be in any thread."""
_NOT_READERS: Final = frozenset({"cli", "faces", "testing"})
"""Packages of this library that no reader imports from; some of their modules need packages that are optional."""


@functools.cache
def _late_modules() -> tuple[str, ...]:
    """Names of all modules that a reader may import late: `_NEEDED_LATE`, and all in the packages of readers."""
    library = __name__.partition(".")[0]
    root = importlib.import_module(library)
    names = list(_NEEDED_LATE)
    for folder in pkgutil.iter_modules(root.__path__, f"{library}."):
        if folder.ispkg and folder.name.rpartition(".")[2] not in _NOT_READERS:
            within = importlib.import_module(folder.name)
            names += [found.name for found in pkgutil.walk_packages(within.__path__, f"{folder.name}.")]
    return tuple(names)


def _finish_imports() -> None:
    """Finish all imports before a fork with other threads running: in the child nobody would finish theirs.

    It is not enough to wait for imports that have begun: another one may begin before the fork itself.
    """
    if threading.active_count() > 1:
        for name in _late_modules():
            with contextlib.suppress(ImportError):  # the Rust core of `bzip2` may not be there
                importlib.import_module(name)
    for name, module in list(sys.modules.items()):
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            with contextlib.suppress(Exception):  # a failed import is reported to whoever asked for it
                importlib.import_module(name)  # waits, unless this thread itself is importing the module


# Hooks before a fork run last registered first: so imports are waited for before `logging` and `concurrent.futures`
# take the locks that they hold over a fork, as the imported modules may need those.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish_imports, after_in_child=_start_in_child)
