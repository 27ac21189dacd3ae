"""Dask bag of `vmvisor_image.fleet.scan`; imported only when a bag is made, as it needs dask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.threaded
from dask.bag import Bag
from dask.bag.core import from_sequence


class ThreadedBag(Bag):
    """A bag that prefers threads: decoding releases the GIL, and processes would need a main guard in the script."""

    __dask_scheduler__ = staticmethod(dask.threaded.get)


def make_bag(items: Sequence[Any], task: Callable[[Any], Any], items_per_task: int) -> Bag:
    """A bag of the results of `task` for each item."""
    bag = from_sequence(items, partition_size=items_per_task).map(task)
    return ThreadedBag(bag.dask, bag.name, bag.npartitions)
