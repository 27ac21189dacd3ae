"""Limits on the cost of reading an image, for input that nobody vouches for.

Decoding, listing and reading are lazy and cost no more than the request needs; a `Limits` bounds the request itself,
as a small file can claim to be a large one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any, Final

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.lru_cache import PieceCache
from vmvisor_image.errors import InvalidArgument, LimitExceeded


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for one image and for everything opened in it; exceeding one raises `LimitExceeded`.

    The defaults are far above the needs of an installer or a host's disk.
    """

    decoded_bytes: int = 1 << 44
    """Bytes that may be decoded from all compressions around a disk and in its files, including bytes decoded again:
    16 TiB. Runs of zeros that are known without decoding do not count."""
    entries: int = 5_000_000
    """Files and directories in one walk of a file tree, or members of one archive."""
    depth: int = 4096
    """Levels of nested directories."""
    layers: int = 8
    """Layers around a disk: compressions, virtual disks, containers."""
    extracted_bytes: int = 1 << 44
    """Bytes that one extraction may write, including the holes of sparse files: 16 TiB."""
    seconds: float | None = None
    """Seconds that one operation may take: opening, searching for the next partition, `inspect`, `Image.problems`, a
    walk of a file tree, an extraction, an export, or the block of `operation`. None for no limit."""
    cache_bytes: int = 64_000_000
    """Bytes of decoded data that each reader of a compression keeps in memory; it always keeps one block."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value <= 0:
                raise InvalidArgument(f"{field.name} must be more than 0, not {value}")

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """Allow this thread `seconds` until the end of the block; nested operations don't extend that time.

        Raises:
            LimitExceeded: The block took longer, and something was still to be read or decoded.
        """
        if self.seconds is None or _DEADLINE.get() is not None:
            yield
            return
        token = _DEADLINE.set((time.monotonic() + self.seconds, self.seconds))
        try:
            yield
        finally:
            _DEADLINE.reset(token)


DEFAULT_LIMITS: Final = Limits()

_PIECES_BYTES: Final = 32 << 20
"""Most bytes that all forward readers of an image keep together: an archive has one reader for each member."""
_DEADLINE: ContextVar[tuple[float, float] | None] = ContextVar("_DEADLINE", default=None)
"""Deadline of this thread's operation, in seconds of `time.monotonic`, and the seconds allowed for it."""


def passed(limit: str, message: str) -> LimitExceeded:
    """Error for an exceeded limit, with the name of that field of `Limits`."""
    return LimitExceeded(f"{message} (limit: {limit})", limit=limit)


def check_entries(count: int, limits: Limits) -> None:
    """Stop a walk that came to more files and directories than `limits` allow.

    Raises:
        LimitExceeded: `count` is too many.
    """
    if count > limits.entries:
        raise passed("entries", f"more than {limits.entries} files and directories")


def check_depth(depth: int, limits: Limits) -> None:
    """Stop a walk before a directory that has `depth` - 1 others between it and where the walk began.

    Raises:
        LimitExceeded: `depth` is more than `limits` allow.
    """
    if depth > limits.depth:
        raise passed("depth", f"more than {limits.depth} directories in each other")


def check_deadline() -> None:
    """Stop where the operation's time is over.

    Raises:
        LimitExceeded: The time is over.
    """
    deadline = _DEADLINE.get()
    if deadline is not None and time.monotonic() > deadline[0]:
        raise passed("seconds", f"the operation took longer than {deadline[1]:g} seconds")


def seconds_left() -> float | None:
    """Seconds until this thread's operation has to end, at least 0; None without a limit."""
    deadline = _DEADLINE.get()
    return None if deadline is None else max(0.0, deadline[0] - time.monotonic())


def wait(seconds: float) -> None:
    """Wait, unless the operation's time would be over before the end.

    Raises:
        LimitExceeded: The wait would pass the operation's deadline.
    """
    deadline = _DEADLINE.get()
    if deadline is not None and time.monotonic() + seconds > deadline[0]:
        raise passed("seconds", f"the operation would take longer than {deadline[1]:g} seconds")
    time.sleep(seconds)


class Meter:
    """Counter of the bytes decoded for an image, shared by all its decoders."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Start at zero."""
        self.limits = limits
        self.decoded_bytes = 0
        """Bytes decoded so far, including bytes decoded again."""
        self.pieces = PieceCache(min(limits.cache_bytes, _PIECES_BYTES))
        """Pieces kept by readers that decode forward only."""
        self._lock = ForkSafeLock()

    def add(self, count: int) -> None:
        """Count decoded bytes; `check` raises when there are too many."""
        with self._lock:
            self.decoded_bytes += count

    def check(self) -> None:
        """Stop where the limit of decoded bytes or of time is exceeded.

        Raises:
            LimitExceeded: One of them is.
        """
        check_deadline()
        most = self.limits.decoded_bytes
        if self.decoded_bytes > most:
            raise passed("decoded_bytes", f"more than {most} bytes were decoded")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Meter, (self.limits,))
