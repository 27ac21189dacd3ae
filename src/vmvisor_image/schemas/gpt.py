"""GUID partition table: its header, of which a disk has two copies, and its entries.

Source: UEFI Specification 2.10, section 5.3, tables 5.5 (header), 5.6 (entry) and 5.8 (attributes).
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U32, U64, Bytes, Record, record

SIGNATURE = b"EFI PART"
"""First bytes of a header."""

REVISION = 0x00010000
"""Revision 1.0, the only one that exists."""

SECTOR_SIZES = (512, 4096)
"""Bytes in a logical sector, for the two kinds of disks that exist."""

SHIPPED_BACKUP_LBA = 34
"""Sector of the second header in the head of a dd image that the installer of ESXi 6.7 ships (seen): behind the one
array of entries, at sector 2, to which both headers point. The head ends where the first partition begins, and does not
depend on the disk that it will be written to."""

LEGACY_BOOTABLE = 1 << 2
"""Attribute bit 2: a BIOS may boot from this partition."""


@record
class GptHeader(Record):
    """Header, 92 bytes; the rest of its sector is zero."""

    signature: Annotated[bytes, Bytes(8)]
    """`SIGNATURE`."""
    revision: U32
    """`REVISION`."""
    header_size: U32
    """Bytes that `header_crc` covers: 92 or more, at most one sector."""
    header_crc: U32
    """CRC-32 of `header_size` bytes, with this field as zeros."""
    reserved: U32
    """0."""
    my_lba: U64
    """Sector of this header."""
    alternate_lba: U64
    """Sector of the other header."""
    first_usable_lba: U64
    """First sector that a partition may use."""
    last_usable_lba: U64
    """Last sector that a partition may use, inclusive."""
    disk_guid: Annotated[bytes, Bytes(16)]
    """Identifier of the disk; its first three parts are little-endian."""
    entries_lba: U64
    """First sector of the partition entries."""
    entry_count: U32
    """Number of entries, used or not; usually 128."""
    entry_size: U32
    """Bytes in an entry: 128 times a power of two."""
    entries_crc: U32
    """CRC-32 of ``entry_count * entry_size`` bytes."""


@record
class GptEntry(Record):
    """Partition entry, 128 bytes."""

    type_guid: Annotated[bytes, Bytes(16)]
    """Partition type; zeros mark an unused entry. See `vmvisor_image.schemas.partition_types`."""
    partition_guid: Annotated[bytes, Bytes(16)]
    """Identifier of this partition."""
    first_lba: U64
    """First sector."""
    last_lba: U64
    """Last sector, inclusive."""
    attributes: U64
    """Flags: bit 0, needed by the platform; bit 2, `LEGACY_BOOTABLE`; bits 48-63 are defined by the type."""
    name: Annotated[bytes, Bytes(72)]
    """Name of up to 36 UTF-16-LE code units, which ends before the first NUL. (partedUtil of ESXi 5 leaves FFFF after
    it.)"""
