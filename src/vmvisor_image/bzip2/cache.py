"""Decoded blocks kept in memory, the least recently used dropped first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from vmvisor_image.bzip2.decode import Block

Key = TypeVar("Key")

_OVERHEAD = 5000
"""Bytes an entry takes beside its block's: the objects themselves, and a key of up to 4 kB. Without it a cache
of zero runs, which hold nothing, would have no end."""


class BlockCache(Generic[Key]):
    """Blocks by key, up to a number of bytes but at least one block. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        """Keep up to `limit` bytes."""
        self.limit = limit
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._taken = 0

    def get(self, key: Key) -> Block | None:
        """The block, which is from now on the most recently used one; None when it is not here."""
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: Key, block: Block) -> None:
        """Keep a block, and drop old ones where it needs their room."""
        if key in self._blocks:
            return
        self._blocks[key] = block
        self._taken += block.held + _OVERHEAD
        while self._taken > self.limit and len(self._blocks) > 1:
            _, dropped = self._blocks.popitem(last=False)
            self._taken -= dropped.held + _OVERHEAD

    def clear(self) -> None:
        """Drop all."""
        self._blocks.clear()
        self._taken = 0
