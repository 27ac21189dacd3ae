"""The cache that all readers keep things in, held against `functools.lru_cache`."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import in_child
from vmvisor_image.base.lru_cache import LruCache


@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=60))
def test_makes_what_the_standard_library_makes(limit: int, keys: list[int]) -> None:
    made: list[int] = []
    made_there: list[int] = []

    @functools.lru_cache(maxsize=limit)
    def value(key: int) -> str:
        made_there.append(key)
        return str(key)

    cache: LruCache[int, str] = LruCache(limit)
    for key in keys:

        def make(key: int = key) -> str:
            made.append(key)
            return str(key)

        assert cache.get_or_make(key, make) == value(key)
        assert key in cache
        assert cache.held == value.cache_info().currsize
    assert made == made_there


def test_asking_whether_a_value_is_kept_is_no_use_of_it() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" in cache
    cache.put("c", 3)
    assert "a" not in cache
    assert cache.get("b") == 2


def test_holds_up_to_a_weight_and_nothing_once_it_is_cleared() -> None:
    cache: LruCache[int, bytes] = LruCache(10, len)
    for number in range(5):
        cache.put(number, bytes(4))
    assert cache.held == 8
    cache.put(9, bytes(40))
    assert (cache.held, 9 in cache, 4 in cache) == (40, True, False)
    cache.clear()
    assert (cache.held, 9 in cache) == (0, False)


def test_threads_make_a_value_once() -> None:
    cache: LruCache[int, int] = LruCache(1)
    barrier = threading.Barrier(4)
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 7

    def ask(_: int) -> int:
        barrier.wait()
        return cache.get_or_make(1, make)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [7] * 4
    assert made == [1]


def test_what_can_not_be_made_is_not_kept() -> None:
    cache: LruCache[int, int] = LruCache(1)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_make(1, lambda: 1 // 0)
    assert cache.get_or_make(1, lambda: 7) == 7


def test_is_empty_in_a_forked_child() -> None:
    cache: LruCache[int, int] = LruCache(1)
    cache.put(1, 1)
    assert in_child(lambda: 1 not in cache and cache.held == 0)
    assert 1 in cache
