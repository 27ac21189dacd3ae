"""Decoded blocks kept in memory: the least recently used are compressed where that pays, and finally dropped."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vmvisor_image.bzip2.decode import Block, Segment, new_map

Key = TypeVar("Key")

_OVERHEAD = 5000
"""Number of bytes an entry takes in addition to its block's: the objects themselves, and a key of up to 4 kB. Without
it, a cache of runs of zeros, which take no bytes, would grow without end."""
_COMPRESSION_LEVEL = 1
_PAYS = 0.75
"""Largest ratio of compressed to plain size at which a block is kept compressed."""
_WORTH_A_TRY = 1 << 16
"""Size in bytes below which a block is not compressed."""
_REMEMBERED = 1 << 14
"""Number of keys of dropped blocks that are remembered, to recognise blocks that come back."""
_WORTH_A_MAP = 1 << 16
"""Size in bytes below which data gets no memory map of its own."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """A block whose bytes are compressed with zstd."""

    segments: tuple[Segment, ...]
    """Segments as in `Block.segments`, but with zstd frames for the bytes."""
    size: int
    held: int
    """Number of bytes of memory that the frames take."""

    def unpack(self) -> Block:
        import zstandard

        decompressor = zstandard.ZstdDecompressor()
        return _convert(self.segments, self.size, lambda frame: decompressor.decompress(memoryview(frame)))


class BlockCache(Generic[Key]):
    """Blocks by key, up to a limit in bytes but at least one block. Not thread-safe.

    It is not an `LruCache`, because blocks not used recently are compressed and stay under the same limit.
    """

    def __init__(self, limit: int, *, decodes_quickly: bool = False) -> None:
        """Keep up to `limit` bytes.

        Args:
            limit: Bytes of memory.
            decodes_quickly: Whether decoding a block again costs little more than compressing it. If so, only blocks
                that were dropped and needed again are compressed, so that one pass over the data compresses none.
        """
        self.limit = limit
        self._decodes_quickly = decodes_quickly
        self._dropped: OrderedDict[Key, None] = OrderedDict()
        """Keys of blocks that are not here any more, the latest last."""
        self._returned: set[Key] = set()
        """Keys of blocks here that were dropped before."""
        self._plain: OrderedDict[Key, Block] = OrderedDict()
        """Uncompressed blocks, least recently used first."""
        self._aged: OrderedDict[Key, Block | _Packed] = OrderedDict()
        """Blocks compressed where that pays, least recently used first; all were last used before those in `_plain`."""
        self._plain_bytes = self._aged_bytes = 0

    def get(self, key: Key) -> Block | None:
        """The block with that key, which becomes the most recently used one; None if it is not kept."""
        if key in self._plain:
            self._plain.move_to_end(key)
            return self._plain[key]
        found = self._aged.pop(key, None)
        if found is None:
            return None
        self._aged_bytes -= found.held + _OVERHEAD
        block = found.unpack() if isinstance(found, _Packed) else found
        self.put(key, block)
        return block

    def put(self, key: Key, block: Block, beside: int = 0) -> None:
        """Keep a block; where room is needed, compress the least recently used blocks, and drop the oldest.

        Args:
            key: Key of the block.
            block: The block.
            beside: Number of bytes of other blocks that the caller has in memory, which count for the limit.
        """
        if key in self._plain or key in self._aged:
            return
        if key in self._dropped:
            del self._dropped[key]
            self._returned.add(key)
        self._plain[key] = _convert(block.segments, block.size, lambda data: data)
        self._plain_bytes += block.held + _OVERHEAD
        while self._plain_bytes + self._aged_bytes + beside > self.limit and len(self._plain) + len(self._aged) > 1:
            if len(self._plain) > 1 and (self._plain_bytes > self.limit // 2 or not self._aged):
                self._age()
            else:
                oldest, dropped = self._aged.popitem(last=False)
                self._aged_bytes -= dropped.held + _OVERHEAD
                self._drop(oldest)

    def clear(self) -> None:
        """Drop all blocks."""
        self._plain.clear()
        self._aged.clear()
        self._dropped.clear()
        self._returned.clear()
        self._plain_bytes = self._aged_bytes = 0

    def _age(self) -> None:
        key, block = self._plain.popitem(last=False)
        self._plain_bytes -= block.held + _OVERHEAD
        if self._decodes_quickly and key not in self._returned:
            self._drop(key)
            return
        aged = _pack(block)
        self._aged[key] = aged
        self._aged_bytes += aged.held + _OVERHEAD

    def _drop(self, key: Key) -> None:
        """Note that a block is not here any more."""
        self._returned.discard(key)
        self._dropped[key] = None
        if len(self._dropped) > _REMEMBERED:
            self._dropped.popitem(last=False)


def _pack(block: Block) -> Block | _Packed:
    """Compressed block, or the block itself where compression does not pay."""
    if block.held < _WORTH_A_TRY:
        return block
    import zstandard

    compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL)
    packed = _convert(block.segments, block.size, lambda data: compressor.compress(memoryview(data)))
    return block if packed.held > block.held * _PAYS else _Packed(packed.segments, packed.size, packed.held)


def _convert(
    segments: tuple[Segment, ...], size: int, convert: Callable[[bytes | mmap.mmap], bytes | mmap.mmap]
) -> Block:
    """Block with converted bytes, moved to memory maps of their own where they are large; see `new_map`."""
    made: dict[int, bytes | mmap.mmap] = {}
    for segment in segments:
        if not isinstance(segment, int) and id(segment) not in made:
            data = convert(segment)
            is_apart = isinstance(data, mmap.mmap) or len(data) < _WORTH_A_MAP
            made[id(segment)] = data if is_apart else _mapped(data)
    converted = (segment if isinstance(segment, int) else made[id(segment)] for segment in segments)
    return Block(tuple(converted), size, sum(map(len, made.values())))


def _mapped(data: bytes | mmap.mmap) -> mmap.mmap:
    memory = new_map(len(data))
    memory[:] = data
    return memory
