"""The header of a saved bzip2 index.

Source: this library's own format. After the header comes a zstd frame with the columns of the blocks, each a run of
little-endian 64-bit integers, one for each block: start bit, end bit, level (plus 16 where all of the
block's bytes are zeros), decoded size, CRC.
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U32, U64, Bytes, Record, record

MAGIC = b"VMVIBZ2\n"
VERSION = 2


@record
class Bzip2IndexHeader(Record):
    """What a saved index begins with."""

    magic: Annotated[bytes, Bytes(8)]
    """`MAGIC`."""
    version: U32
    """`VERSION`; any other one is refused."""
    next_level: U32
    """Block size of the stream in which the chain of blocks goes on, 1-9; 0 where the index is complete."""
    next_bit: U64
    """Where the next block's magic starts, in bits from the start of the compressed source."""
    next_crc: U32
    """Combined CRC of that stream's blocks before it."""
    is_damaged: U32
    """1 where the data ends, by damage, with the block that the chain would go on with; else 0."""
    garbage: U64
    """Where bytes that are not bzip2 follow the last stream, in bytes from the source's start; 0 for nowhere."""
    blocks: U64
    """Number of blocks."""
    payload: U64
    """Bytes of the zstd frame."""
    fingerprint: Annotated[bytes, Bytes(32)]
    """Of the source that the index was made of."""
    digest: Annotated[bytes, Bytes(32)]
    """SHA-256 of this header, with zeros here, and of the zstd frame."""
