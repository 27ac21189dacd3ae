"""Tests of the installed package: `make test` runs them on the built wheel.

What is done here comes before any of the library is imported, and so before its own hooks at a fork.
"""

from __future__ import annotations

import os
import threading

import coverage


def _renew_lock_of_coverage() -> None:
    """Where coverage is measured, each call takes a lock: one that another thread had stays taken in a child."""
    measuring = coverage.Coverage.current()
    collector = None if measuring is None else measuring._collector
    if collector is not None:
        collector.data_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_of_coverage)
