"""VHD files. Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0. All numbers are big-endian."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

FOOTER_MAGIC: Final = b"conectix"
HEADER_MAGIC: Final = b"cxsparse"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
"""Values of `VhdFooter.disk_type`."""
UNALLOCATED: Final = 0xFFFFFFFF
"""Entry of the block allocation table for a block that is not in the file."""
FOOTER_CHECKSUM, HEADER_CHECKSUM = slice(64, 68), slice(36, 40)
"""Places of the checksums, which are the ones' complement of the sum of all other bytes."""


@record
class VhdFooter(Record):
    """Last 512 bytes of the file, and also the first ones of a dynamic disk."""

    byte_order = "big"

    magic: Annotated[bytes, Bytes(8)]
    """`FOOTER_MAGIC`."""
    features: U32
    """Bits of features."""
    version: U32
    """0x10000."""
    data_offset: U64
    """Bytes from the file's start to the dynamic disk header."""
    timestamp: U32
    """Time of creation, in seconds since 2000 in UTC."""
    creator: Annotated[bytes, Bytes(4)]
    """Program that made the file."""
    creator_version: U32
    """Version of that program."""
    creator_system: Annotated[bytes, Bytes(4)]
    """System that the program ran on."""
    original_size: U64
    """Size of the disk when it was made, in bytes."""
    current_size: U64
    """Size of the disk, in bytes."""
    cylinders: U16
    """Cylinders of the geometry."""
    heads: U8
    """Heads of the geometry."""
    sectors_per_track: U8
    """Sectors in a track of the geometry."""
    disk_type: U32
    """`FIXED`, `DYNAMIC` or `DIFFERENCING`."""
    checksum: U32
    """See `FOOTER_CHECKSUM`."""
    unique_id: Annotated[bytes, Bytes(16)]
    """UUID of the disk."""
    saved_state: U8
    """1 while a machine is suspended."""


@record
class VhdDynamicHeader(Record):
    """Header of a dynamic disk, with the place of its block allocation table."""

    byte_order = "big"

    magic: Annotated[bytes, Bytes(8)]
    """`HEADER_MAGIC`."""
    data_offset: U64
    """Unused."""
    table_offset: U64
    """Bytes from the file's start to the block allocation table."""
    version: U32
    """0x10000."""
    entry_count: U32
    """Entries in that table."""
    block_size: U32
    """Bytes of data in a block, without its bitmap."""
    checksum: U32
    """See `HEADER_CHECKSUM`."""
