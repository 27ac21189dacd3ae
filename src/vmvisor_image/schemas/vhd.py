"""VHD files. Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0. All numbers are big-endian."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

FOOTER_MAGIC: Final = b"conectix"
HEADER_MAGIC: Final = b"cxsparse"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
"""Types of disks."""
UNALLOCATED: Final = 0xFFFFFFFF
"""Entry of a block that is not in the file."""
FOOTER_CHECKSUM, HEADER_CHECKSUM = slice(64, 68), slice(36, 40)
"""Where the checksums are: the ones' complement of the sum of all other bytes."""


@record
class VhdFooter(Record):
    """The last 512 bytes of the file; of a dynamic disk the first ones, too."""

    byte_order = "big"

    magic: Annotated[bytes, Bytes(8)]
    """`FOOTER_MAGIC`."""
    features: U32
    """Bits."""
    version: U32
    """0x10000."""
    data_offset: U64
    """Where the dynamic disk header lies, in bytes from the file's start."""
    timestamp: U32
    """Seconds since 2000 in UTC."""
    creator: Annotated[bytes, Bytes(4)]
    """Program that made it."""
    creator_version: U32
    """Its version."""
    creator_system: Annotated[bytes, Bytes(4)]
    """System that it ran on."""
    original_size: U64
    """Bytes of the disk when it was made."""
    current_size: U64
    """Bytes of the disk."""
    cylinders: U16
    """Geometry."""
    heads: U8
    """Geometry."""
    sectors_per_track: U8
    """Geometry."""
    disk_type: U32
    """`FIXED`, `DYNAMIC` or `DIFFERENCING`."""
    checksum: U32
    """See `FOOTER_CHECKSUM`."""
    unique_id: Annotated[bytes, Bytes(16)]
    """UUID."""
    saved_state: U8
    """1 while a machine is suspended."""


@record
class VhdDynamicHeader(Record):
    """Where the blocks of a dynamic disk are."""

    byte_order = "big"

    magic: Annotated[bytes, Bytes(8)]
    """`HEADER_MAGIC`."""
    data_offset: U64
    """Unused."""
    table_offset: U64
    """Where the block allocation table lies, in bytes from the file's start."""
    version: U32
    """0x10000."""
    entry_count: U32
    """Entries of that table."""
    block_size: U32
    """Bytes of data in a block, without its bitmap."""
    checksum: U32
    """See `HEADER_CHECKSUM`."""
