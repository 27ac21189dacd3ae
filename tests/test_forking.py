"""Locks in a forked child, whichever thread of the parent holds them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from vmvisor_image.forking import ForkSafeLock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # What is tested here: from Python 3.12 on a fork beside threads warns.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` gives in a forked child; a child that hangs is ended and counts as False."""
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    waiter = threading.Timer(20, os.kill, (child, 9))
    waiter.start()
    _, status = os.waitpid(child, 0)
    waiter.cancel()
    return status == 0


def test_a_lock_that_another_thread_holds_is_free_in_the_child() -> None:
    lock = ForkSafeLock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def work() -> bool:
        with lock, lock:
            return True

    try:
        assert in_child(work)
    finally:
        done.set()
        thread.join()
    with lock:
        pass


def test_a_lock_that_the_forking_thread_holds_stays_held() -> None:
    lock = ForkSafeLock()

    def work() -> bool:
        taken: list[bool] = []
        other = threading.Thread(target=lambda: taken.append(lock._lock.acquire(blocking=False)))
        with lock:  # again, as it is re-entrant
            other.start()
            other.join()
        return taken == [False]

    with lock:
        assert in_child(work)


def test_only_one_thread_of_a_child_renews_a_lock() -> None:
    lock = ForkSafeLock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def work() -> bool:
        inside, most, barrier = 0, 0, threading.Barrier(8)

        def enter() -> None:
            nonlocal inside, most
            barrier.wait()
            for _ in range(200):
                with lock:
                    inside += 1
                    most = max(most, inside)
                    inside -= 1

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return most == 1

    try:
        assert in_child(work)
    finally:
        done.set()
        thread.join()
