"""Caches of the values that were read or decoded last, in memory and up to a limit."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from vmvisor_image.base.forking import ForkSafeLock, restart_in_child

Key = TypeVar("Key")
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Cache of values by key; the least recently used is dropped first. Thread-safe; empty in a forked child."""

    def __init__(self, limit: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        """Keep values up to a total weight of `limit`, and always the last one; by default each value weighs 1."""
        self._limit = limit
        self._weigh = weigh
        self._lock = ForkSafeLock()
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._held = 0
        restart_in_child(self)

    @property
    def held(self) -> int:
        """Total weight of the values that are kept."""
        return self._held

    def get(self, key: Key) -> Value | None:
        """Value of a key, which becomes the most recently used one; None where it is not kept."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, instead of any other one with that key."""
        with self._lock:
            self._drop(key)
            self._values[key] = value
            self._held += self._weigh(value)
            while self._held > self._limit and len(self._values) > 1:
                self._held -= self._weigh(self._values.popitem(last=False)[1])

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """Value of a key as from `get`, made where it is not kept; other threads wait until it is made."""
        with self._lock:
            value = self.get(key)
            if value is None:
                value = make()
                self.put(key, value)
            return value

    def __contains__(self, key: Key) -> bool:
        """Whether a value is kept; asking does not make it the most recently used one."""
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
        """Forget all values, as one that another thread was changing may be incomplete; see `base.forking`."""
        self._values.clear()
        self._held = 0

    def _drop(self, key: Key) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._held -= self._weigh(value)


class PieceCache(LruCache[tuple[int, int], bytes]):
    """Cache of decoded pieces of the readers of one image, by reader and piece number.

    It is shared, so that many small members of an archive don't each have a cache. Pieces of readers that are gone
    are dropped like all others.
    """

    def __init__(self, limit: int) -> None:
        """Keep up to `limit` bytes, and always the last piece."""
        super().__init__(limit, len)
        self._readers = itertools.count()

    def new_reader(self) -> int:
        """Number that no other reader has."""
        return next(self._readers)
