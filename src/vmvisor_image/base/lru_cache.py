"""What was read or decoded last, kept in memory up to a limit."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from vmvisor_image.base.forking import ForkSafeLock, restart_in_child

Key = TypeVar("Key")
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Values by key, the least recently used dropped first. Thread-safe; empty in a forked child."""

    def __init__(self, limit: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        """Keep values that `weigh` up to `limit` together, and the last one in any case; without it, `limit` values."""
        self._limit = limit
        self._weigh = weigh
        self._lock = ForkSafeLock()
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._held = 0
        restart_in_child(self)

    @property
    def held(self) -> int:
        """Weight of all values that are kept."""
        return self._held

    def get(self, key: Key) -> Value | None:
        """A value, which is from now on the most recently used one; None where it is not kept."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, in the place of another one with that key."""
        with self._lock:
            self._drop(key)
            self._values[key] = value
            self._held += self._weigh(value)
            while self._held > self._limit and len(self._values) > 1:
                self._held -= self._weigh(self._values.popitem(last=False)[1])

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """A value as of `get`, made where it is not kept; other threads wait for that."""
        with self._lock:
            value = self.get(key)
            if value is None:
                value = make()
                self.put(key, value)
            return value

    def __contains__(self, key: Key) -> bool:
        """Whether a value is kept; that is no use of it."""
        return key in self._values

    def drop(self, key: Key) -> None:
        """Forget a value, if it is kept."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self._held = 0

    def start_in_child(self) -> None:
        """See `vmvisor_image.base.forking`; what another thread was changing is not whole."""
        self._values.clear()
        self._held = 0

    def _drop(self, key: Key) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._held -= self._weigh(value)


class PieceCache(LruCache[tuple[int, int], bytes]):
    """Decoded pieces of the readers of one image, by reader and number.

    Shared, so that many small members of an archive don't each keep some. Pieces of readers that are gone are
    dropped as all others.
    """

    def __init__(self, limit: int) -> None:
        """Keep up to `limit` bytes, and the last piece in any case."""
        super().__init__(limit, len)
        self._readers = itertools.count()

    def new_reader(self) -> int:
        """A number that no other reader has."""
        return next(self._readers)
