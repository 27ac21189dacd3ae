"""VHDX files. Source: Microsoft, [MS-VHDX] 8.0: Virtual Hard Disk v2 File Format."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from vmvisor_image.record import U16, U32, U64, Bytes, Record, record

FILE_MAGIC: Final = b"vhdxfile"
HEADER_MAGIC: Final = b"head"
REGION_MAGIC: Final = b"regi"
METADATA_MAGIC: Final = b"metadata"
LOG_MAGIC: Final = b"loge"
ZERO_MAGIC: Final = b"zero"
DATA_MAGIC: Final = b"desc"
DATA_SECTOR_MAGIC: Final = b"data"
LOG_SECTOR: Final = 4096
"""Bytes in a sector of the log, and in a page of the file that a log entry changes."""
HEADERS: Final = (0x10000, 0x20000)
"""Offsets of the two headers, in bytes from the file's start."""
REGION_TABLES: Final = (0x30000, 0x40000)
"""Offsets of the two region tables, in bytes from the file's start."""
HEADER_SIZE: Final = 0x1000
"""Bytes that a header's checksum covers."""
TABLE_SIZE: Final = 0x10000
"""Bytes in a region table, and in the metadata table."""
BAT_REGION: Final = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
METADATA_REGION: Final = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
FILE_PARAMETERS: Final = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
DISK_SIZE: Final = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
SECTOR_SIZE: Final = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
PHYSICAL_SECTOR_SIZE: Final = UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
DISK_ID: Final = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
PARENT_LOCATOR: Final = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
HAS_PARENT: Final = 0x2
"""Flag of the file parameters for a disk with a parent."""
VHDX_LOCATOR: Final = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le
"""Type of the parent locators of VHDX, the only one there is."""
NOT_PRESENT: Final = 0
"""State of a block that is not in the file: with a parent, it is the parent's."""
FULLY_PRESENT, PARTIALLY_PRESENT = 6, 7
"""States of blocks with data in the file; blocks in other states have none."""


@record
class VhdxHeader(Record):
    """One of the two headers, of which the one with the higher sequence number counts."""

    magic: Annotated[bytes, Bytes(4)]
    """`HEADER_MAGIC`."""
    checksum: U32
    """CRC-32C of the header with this field as zeros."""
    sequence_number: U64
    """Number that grows with each update."""
    file_write_id: Annotated[bytes, Bytes(16)]
    """GUID of the file's content."""
    data_write_id: Annotated[bytes, Bytes(16)]
    """GUID of the disk's content."""
    log_id: Annotated[bytes, Bytes(16)]
    """GUID of the log; zeros where the log is empty."""
    log_version: U16
    """0."""
    version: U16
    """1."""
    log_length: U32
    """Bytes in the log."""
    log_offset: U64
    """Bytes from the file's start to the log."""


@record
class RegionTableHeader(Record):
    """Head of a region table."""

    magic: Annotated[bytes, Bytes(4)]
    """`REGION_MAGIC`."""
    checksum: U32
    """CRC-32C of the table with this field as zeros."""
    entry_count: U32
    """Number of entries that follow."""
    reserved: U32
    """0."""


@record
class RegionTableEntry(Record):
    """Entry of a region table: place of a region."""

    region_id: Annotated[bytes, Bytes(16)]
    """GUID of the region, as it is on disk: `BAT_REGION` or `METADATA_REGION`."""
    offset: U64
    """Bytes from the file's start to the region."""
    region_length: U32
    """Bytes in the region."""
    required: U32
    """1 where a reader has to know the region."""


@record
class MetadataTableHeader(Record):
    """Head of the metadata table, at the start of its region."""

    magic: Annotated[bytes, Bytes(8)]
    """`METADATA_MAGIC`."""
    reserved: U16
    """0."""
    entry_count: U16
    """Number of entries that follow."""
    unused: Annotated[bytes, Bytes(20)]
    """Zeros."""


@record
class MetadataTableEntry(Record):
    """Entry of the metadata table: place of an item."""

    item_id: Annotated[bytes, Bytes(16)]
    """GUID of the item, as it is on disk."""
    offset: U32
    """Bytes from the start of the region to the item."""
    item_length: U32
    """Bytes in the item."""
    flags: U32
    """Flags of the item."""
    reserved: U32
    """0."""


@record
class ParentLocatorHeader(Record):
    """Head of a parent locator ([MS-VHDX] 2.6.2.6.1)."""

    locator_type: Annotated[bytes, Bytes(16)]
    """GUID of its type, as it is on disk: `VHDX_LOCATOR`."""
    reserved: U16
    """0."""
    count: U16
    """Number of entries that follow."""


@record
class ParentLocatorEntry(Record):
    """Entry of a parent locator ([MS-VHDX] 2.6.2.6.2): a key and its value, both in UTF-16."""

    key_offset: U32
    """Bytes from the start of the locator to the key."""
    value_offset: U32
    """Bytes from the start of the locator to the value."""
    key_length: U16
    """Bytes in the key."""
    value_length: U16
    """Bytes in the value."""


@record
class LogEntryHeader(Record):
    """Head of a log entry ([MS-VHDX] 2.3.1.1), which begins at a multiple of `LOG_SECTOR` in the log."""

    magic: Annotated[bytes, Bytes(4)]
    """`LOG_MAGIC`."""
    checksum: U32
    """CRC-32C of the whole entry with this field as zeros."""
    entry_length: U32
    """Bytes in the entry, a multiple of `LOG_SECTOR`."""
    tail: U32
    """Bytes from the start of the log to the first entry that has to be replayed with this one."""
    sequence_number: U64
    """Number of the entry, one more than that of the entry before it; never 0."""
    descriptor_count: U32
    """Descriptors, which follow this head and fill whole sectors."""
    reserved: U32
    """0."""
    log_id: Annotated[bytes, Bytes(16)]
    """GUID of the log that the entry belongs to."""
    flushed_file_offset: U64
    """Least size of the file, in bytes, when the entry was written: a shorter one was cut."""
    last_file_offset: U64
    """Size that the file must have after the replay, in bytes."""


@record
class LogDescriptor(Record):
    """Descriptor of a change of the file ([MS-VHDX] 2.3.1.2 and 2.3.1.3)."""

    magic: Annotated[bytes, Bytes(4)]
    """`ZERO_MAGIC` or `DATA_MAGIC`."""
    trailing: Annotated[bytes, Bytes(4)]
    """Data: last 4 bytes of the page. Zeros: reserved."""
    leading: U64
    """Data: first 8 bytes of the page, as a number. Zeros: bytes that become zeros, a multiple of `LOG_SECTOR`."""
    file_offset: U64
    """Bytes from the file's start to the change, a multiple of `LOG_SECTOR`."""
    sequence_number: U64
    """Number of the entry."""


@record
class LogDataSector(Record):
    """Head of a sector of data in a log entry ([MS-VHDX] 2.3.1.4).

    Behind it are bytes 8 to 4091 of a page, and the lower half of the entry's number in 4 bytes.
    """

    magic: Annotated[bytes, Bytes(4)]
    """`DATA_SECTOR_MAGIC`."""
    sequence_high: U32
    """Higher half of the entry's number."""
