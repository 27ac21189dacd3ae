"""What reading an image may cost: bounds for input that nobody vouches for.

Decoding, listing and reading are lazy and bounded by what is asked for; a `Limits` bounds what is asked for in turn,
where a small file can claim to be a large one.
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
    """Bounds of one image and of what is opened in it; passing one raises `LimitExceeded`.

    The defaults are far over what an installer or a host's disk needs.
    """

    decoded_bytes: int = 1 << 44
    """Bytes that all compressions around a disk, and in its files, may decode to, those decoded again included: 16 TiB.
    Runs of zeros that are known without being decoded are free."""
    entries: int = 5_000_000
    """Files and directories in one walk of a file tree, or members of one archive."""
    depth: int = 4096
    """Directories in each other."""
    layers: int = 8
    """Wrappings around a disk: compressions, virtual disks, containers."""
    extracted_bytes: int = 1 << 44
    """Bytes that one extraction may write, holes of sparse files included: 16 TiB."""
    seconds: float | None = None
    """Seconds that one operation may take: opening, `inspect`, `Image.problems`, a walk of a file tree, an extraction,
    an export, or whatever is done in `operation`. None for any time."""
    cache_bytes: int = 64_000_000
    """Bytes of decoded data that each reader of a compression keeps in memory; it keeps one block in any case."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value <= 0:
                raise InvalidArgument(f"{field.name} must be more than 0, not {value}")

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """Let what is done in this thread until the end of the block take `seconds`; inner operations don't extend it.

        Raises:
            LimitExceeded: It took longer, and something was still to be read or decoded.
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
"""Bytes that the forward readers of an image keep together, at most: an archive has one for each member."""
_DEADLINE: ContextVar[tuple[float, float] | None] = ContextVar("_DEADLINE", default=None)
"""When the operation of this thread has to be done, and the seconds it had."""


def passed(limit: str, message: str) -> LimitExceeded:
    """The error for a limit that is passed: a field of `Limits`."""
    return LimitExceeded(f"{message} (limit: {limit})", limit=limit)


def check_deadline() -> None:
    """Refuse to go on where the operation's time is over.

    Raises:
        LimitExceeded: It is.
    """
    deadline = _DEADLINE.get()
    if deadline is not None and time.monotonic() > deadline[0]:
        raise passed("seconds", f"the operation took longer than {deadline[1]:g} seconds")


def wait(seconds: float) -> None:
    """Wait, unless the operation's time is over before that.

    Raises:
        LimitExceeded: It is.
    """
    deadline = _DEADLINE.get()
    if deadline is not None and time.monotonic() + seconds > deadline[0]:
        raise passed("seconds", f"the operation would take longer than {deadline[1]:g} seconds")
    time.sleep(seconds)


class Meter:
    """Counts what an image has cost; shared by all that decodes for it."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Count from zero."""
        self.limits = limits
        self.decoded_bytes = 0
        """Bytes decoded so far, those decoded again included."""
        self.pieces = PieceCache(min(limits.cache_bytes, _PIECES_BYTES))
        """What readers that decode forward only keep."""
        self._lock = ForkSafeLock()

    def add(self, count: int) -> None:
        """Count decoded bytes; `check` tells when it is too many."""
        with self._lock:
            self.decoded_bytes += count

    def check(self) -> None:
        """Refuse to decode more where that would pass a limit.

        Raises:
            LimitExceeded: It would.
        """
        check_deadline()
        most = self.limits.decoded_bytes
        if self.decoded_bytes > most:
            raise passed("decoded_bytes", f"more than {most} bytes were decoded")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Meter, (self.limits,))
