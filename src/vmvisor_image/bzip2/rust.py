"""The fast engine: the Rust core, an extension that may not be there."""

from __future__ import annotations

from vmvisor_image.bzip2 import _core
from vmvisor_image.bzip2.decode import Block, DamagedBlock, new_map, read_bits
from vmvisor_image.bzip2.engines import Decoded, EngineName
from vmvisor_image.bzip2.libbz2 import Libbz2Engine
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, END_MAGIC, MAGIC_BITS


class RustEngine:
    """See `Engine`. Blocks of bzip2 0.9.0's randomised kind are handed on to libbz2."""

    name: EngineName = "rust"
    is_quick = True

    def __init__(self) -> None:
        self._decoder = _core.Decoder(new_map)
        self._libbz2 = Libbz2Engine()

    def decode(self, data: bytes, start_bit: int, end_bit: int, level: int) -> Decoded | None:
        """See `Engine.decode`; the block may end before `end_bit`."""
        try:
            found = self._decode(data, start_bit, level)
        except (_core.RandomisedBlock, _core.Failed):
            return self._libbz2.decode(data, start_bit, end_bit, level)
        return None if found is None or found.end_bit > end_bit else found

    def decode_open(self, data: bytes, start_bit: int, level: int) -> Decoded | None:
        """See `Engine.decode_open`."""
        try:
            return self._decode(data, start_bit, level)
        except (_core.RandomisedBlock, _core.Failed):
            return self._libbz2.decode_open(data, start_bit, level)

    def find_magic(self, data: bytes, magic: int, starts: int) -> list[int]:
        """See `Engine.find_magic`."""
        return _core.find_magic(data, magic, starts)

    def _decode(self, data: bytes, start_bit: int, level: int) -> Decoded | None:
        try:
            end, crc, size, held, segments = self._decoder.decode(data, start_bit, level)
        except _core.TruncatedBlock:
            return None
        except _core.DamagedBlock as error:
            raise DamagedBlock from error
        is_followed = end + MAGIC_BITS <= len(data) * 8 and read_bits(data, end, MAGIC_BITS) in (BLOCK_MAGIC, END_MAGIC)
        return Decoded(Block(tuple(segments), size, held), end if is_followed else -(-end // 8) * 8, crc, is_followed)
