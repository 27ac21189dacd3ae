"""Header of a saved bzip2 index.

Source: this library's own format. After the header comes a zstd frame with five columns, each of which has a
little-endian 64-bit integer for each block: start bit, end bit, level (plus 16 where all of the block's bytes are
zeros), decoded size, CRC.
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U32, U64, Bytes, Record, record

MAGIC = b"VMVIBZ2\n"
VERSION = 2


@record
class Bzip2IndexHeader(Record):
    """Header at the start of a saved index."""

    magic: Annotated[bytes, Bytes(8)]
    """`MAGIC`."""
    version: U32
    """`VERSION`; any other version is refused."""
    next_level: U32
    """Level, 1-9, of the stream in which the chain of blocks continues; 0 where the index is complete."""
    next_bit: U64
    """Bits from the start of the compressed source to the next block's magic."""
    next_crc: U32
    """Combined CRC of that stream's blocks before the next one."""
    is_damaged: U32
    """1 where the data ends early because the next block of the chain is damaged, otherwise 0."""
    garbage: U64
    """Bytes from the source's start to data after the last stream that is not bzip2; 0 for no such data."""
    blocks: U64
    """Number of blocks."""
    payload: U64
    """Bytes of the zstd frame."""
    fingerprint: Annotated[bytes, Bytes(32)]
    """Fingerprint of the source that the index belongs to."""
    digest: Annotated[bytes, Bytes(32)]
    """SHA-256 of this header, with this field as zeros, and of the zstd frame."""
