"""ISO 9660 volumes: volume descriptors, directory records, and entries of Rock Ridge.

Sources: ECMA-119, 4th edition (identical with ISO 9660), sections 8 and 9; "El Torito" Bootable CD-ROM Format 1.0,
figure 7; IEEE P1281 (SUSP 1.12) and P1282 (Rock Ridge 1.12); Joliet Specification, 22 May 1995. Numbers that the
standard writes in both byte orders are two fields each, of which the first is read.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, Bytes, Record, record

SECTOR: Final = 2048
"""Bytes in a logical sector, in which volume descriptors are counted."""
FIRST_DESCRIPTOR: Final = 16
"""Sector of the first volume descriptor."""
MAGIC: Final = b"CD001"
"""Standard identifier of every volume descriptor."""
BOOT_RECORD, PRIMARY, SUPPLEMENTARY, TERMINATOR = 0, 1, 2, 255
"""Types of volume descriptors (8.1.1)."""
JOLIET_ESCAPES: Final = (b"%/@", b"%/C", b"%/E")
"""Escape sequences of a supplementary descriptor whose names are in UCS-2."""
EL_TORITO: Final = b"EL TORITO SPECIFICATION"
"""System identifier of a boot record of El Torito."""

HIDDEN, DIRECTORY, ASSOCIATED, MULTI_EXTENT = 0x01, 0x02, 0x04, 0x80
"""File flags (9.1.6)."""


@record
class VolumeDescriptor(Record):
    """A primary or supplementary volume descriptor, up to its dates (8.4, 8.5)."""

    type_code: U8
    """`PRIMARY` or `SUPPLEMENTARY`."""
    magic: Annotated[bytes, Bytes(5)]
    """`MAGIC`."""
    version: U8
    """1."""
    flags: U8
    """Flags of a supplementary descriptor."""
    system_identifier: Annotated[bytes, Bytes(32)]
    """Name of the system that can use the first 16 sectors."""
    volume_identifier: Annotated[bytes, Bytes(32)]
    """Label of the volume."""
    unused: Annotated[bytes, Bytes(8)]
    """Zeros."""
    block_count: U32
    """Logical blocks in the volume."""
    block_count_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
    escape_sequences: Annotated[bytes, Bytes(32)]
    """Character set of a supplementary descriptor; see `JOLIET_ESCAPES`."""
    set_size: U16
    """Volumes in the set."""
    set_size_big: Annotated[bytes, Bytes(2)]
    """The same, big-endian."""
    sequence_number: U16
    """Number of this volume in the set, from 1."""
    sequence_number_big: Annotated[bytes, Bytes(2)]
    """The same, big-endian."""
    block_size: U16
    """Bytes in a logical block."""
    block_size_big: Annotated[bytes, Bytes(2)]
    """The same, big-endian."""
    path_table_size: U32
    """Bytes in the path table."""
    path_table_size_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
    path_tables: Annotated[bytes, Bytes(16)]
    """Logical blocks of four path tables, which this library does not use."""
    root_directory: Annotated[bytes, Bytes(34)]
    """Directory record of the root."""
    volume_set_identifier: Annotated[bytes, Bytes(128)]
    """Name of the set."""
    publisher: Annotated[bytes, Bytes(128)]
    """Name of the publisher."""
    preparer: Annotated[bytes, Bytes(128)]
    """Name of the person or program that prepared the data."""
    application: Annotated[bytes, Bytes(128)]
    """Name of the program that made the volume."""
    identifier_files: Annotated[bytes, Bytes(111)]
    """Names of files with the copyright, an abstract and a bibliography."""
    created: Annotated[bytes, Bytes(17)]
    """Time of creation of the volume: 16 digits, and the zone in quarters of an hour."""


@record
class BootRecord(Record):
    """Boot record of El Torito."""

    type_code: U8
    """`BOOT_RECORD`."""
    magic: Annotated[bytes, Bytes(5)]
    """`MAGIC`."""
    version: U8
    """1."""
    system_identifier: Annotated[bytes, Bytes(32)]
    """`EL_TORITO`, padded with zeros."""
    unused: Annotated[bytes, Bytes(32)]
    """Zeros."""
    catalog: U32
    """Sector of the boot catalog."""


@record
class DirectoryRecord(Record):
    """First part of a directory record; the name and the system use area follow (9.1)."""

    record_length: U8
    """Bytes in the whole record; 0 where no further record begins in this sector."""
    attribute_length: U8
    """Logical blocks of an extended attribute record, before the data."""
    extent: U32
    """First logical block of the data, or of the extended attribute record where there is one."""
    extent_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
    data_length: U32
    """Bytes of data."""
    data_length_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
    recorded: Annotated[bytes, Bytes(7)]
    """Time of recording: years since 1900, month, day, hour, minute, second, zone in quarters of an hour."""
    flags: U8
    """File flags: `DIRECTORY` and others."""
    unit_size: U8
    """Logical blocks in a unit of an interleaved file, otherwise 0."""
    gap_size: U8
    """Logical blocks between such units."""
    sequence_number: U16
    """Number of the volume that holds the data in the set."""
    sequence_number_big: Annotated[bytes, Bytes(2)]
    """The same, big-endian."""
    name_length: U8
    """Bytes in the name."""


@record
class SystemUseEntry(Record):
    """Head of an entry of a system use area (SUSP, 4.1)."""

    signature: Annotated[bytes, Bytes(2)]
    """Kind of the entry, two letters."""
    entry_length: U8
    """Bytes in the whole entry."""
    version: U8
    """1."""


@record
class ContinuationArea(Record):
    """Data of a CE entry: place of the continuation of a system use area (SUSP, 5.1)."""

    block: U32
    """Logical block of the continuation."""
    block_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
    offset: U32
    """First byte of the continuation in the block."""
    offset_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
    length_of_area: U32
    """Bytes in the continuation."""
    length_of_area_big: Annotated[bytes, Bytes(4)]
    """The same, big-endian."""
