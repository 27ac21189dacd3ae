"""VHD files. Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0. All numbers are big-endian."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Array, Bytes, Record, record

SECTOR: Final = 512
"""Bytes in a sector."""
FOOTER_MAGIC: Final = b"conectix"
HEADER_MAGIC: Final = b"cxsparse"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
"""Values of `VhdFooter.disk_type`."""
UNALLOCATED: Final = 0xFFFFFFFF
"""Entry of the block allocation table for a block that is not in the file."""
PARENT_OFFSET: Final = 40
"""Bytes from the start of the dynamic disk header to `VhdParent`."""
RELATIVE_PATH, ABSOLUTE_PATH, FILE_URL = b"W2ru", b"W2ku", b"MacX"
"""Codes of locators: paths of Windows in UTF-16, little-endian, and a URL in UTF-8."""
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


@record
class VhdParentLocator(Record):
    """Place of a path of the parent."""

    byte_order = "big"

    code: Annotated[bytes, Bytes(4)]
    """Sort of the path, such as `RELATIVE_PATH`; zeros for an unused locator."""
    space: U32
    """Sectors for the path; some programs write bytes."""
    data_length: U32
    """Bytes of the path."""
    reserved: U32
    """0."""
    data_offset: U64
    """Bytes from the file's start to the path."""


@record
class VhdParent(Record):
    """Part of the header of a differencing disk that is about its parent, at `PARENT_OFFSET` of the header."""

    byte_order = "big"

    unique_id: Annotated[bytes, Bytes(16)]
    """UUID of the parent, as in its footer."""
    timestamp: U32
    """Time of the last write to the parent's file, in seconds since 2000 in UTC."""
    reserved: U32
    """0."""
    name: Annotated[bytes, Bytes(512)]
    """Name of the parent's file in UTF-16, big-endian, up to a NUL."""
    locators: Annotated[tuple[VhdParentLocator, ...], Array(8)]
    """Places of its paths."""
