"""The engine that is always there: the standard library's libbz2."""

from __future__ import annotations

import contextlib

from vmvisor_image.bzip2.decode import DamagedBlock, decode_block, decode_unfollowed, locate_end, read_bits
from vmvisor_image.bzip2.engines import Decoded, EngineName
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, CRC_BITS, END_MAGIC, MAGIC_BITS, find_magic


class Libbz2Engine:
    """See `Engine`. A block's end is not known to it: it is fed up to a candidate, and says whether that was it."""

    name: EngineName = "libbz2"
    is_quick = False

    def decode(self, data: bytes, start_bit: int, end_bit: int, level: int) -> Decoded | None:
        """See `Engine.decode`."""
        block = decode_block(data, start_bit, end_bit, level)
        return None if block is None else Decoded(block, end_bit, _stored_crc(data, start_bit), is_followed=True)

    def decode_open(self, data: bytes, start_bit: int, level: int) -> Decoded | None:
        """See `Engine.decode_open`."""
        is_damaged = False
        try:
            end = locate_end(data, start_bit, level, _magics_past(data, start_bit))
            if end is not None and (found := self.decode(data, start_bit, end, level)) is not None:
                return found
        except DamagedBlock:
            is_damaged = True
        with contextlib.suppress(DamagedBlock):
            unfollowed = decode_unfollowed(data, start_bit, level)
            if unfollowed is not None:
                block, end_byte = unfollowed
                return Decoded(block, end_byte * 8, _stored_crc(data, start_bit), is_followed=False)
        if is_damaged:
            raise DamagedBlock
        return None

    def find_magic(self, data: bytes, magic: int, starts: int) -> list[int]:
        """See `Engine.find_magic`."""
        return find_magic(data, magic, starts)


def _stored_crc(data: bytes, start_bit: int) -> int:
    return read_bits(data, start_bit + MAGIC_BITS, CRC_BITS)


def _magics_past(data: bytes, bit: int) -> list[int]:
    """Every magic of either kind in `data` past `bit`, ascending."""
    found = find_magic(data, BLOCK_MAGIC, len(data)) + find_magic(data, END_MAGIC, len(data))
    return sorted(position for position in found if position > bit)
