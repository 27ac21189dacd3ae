"""The GUID partition table: its header, twice on a disk, and its entries.

Source: UEFI Specification 2.10, section 5.3, tables 5.5 (header), 5.6 (entry) and 5.8 (attributes).
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U32, U64, Bytes, Record, record

SIGNATURE = b"EFI PART"
"""What a header begins with."""

REVISION = 0x00010000
"""The only revision there is, 1.0."""

SECTOR_SIZES = (512, 4096)
"""Bytes in a logical sector of the disks there are."""

SHIPPED_BACKUP_LBA = 34
"""Sector of the second header in the head of a dd image that the installer of ESXi 6.7 ships (seen): behind the one
array of entries, at sector 2, which both headers name. The head is as long as what is before the first partition, and
knows nothing of the disk that it will be written to."""

LEGACY_BOOTABLE = 1 << 2
"""Attribute bit 2: a BIOS may boot from this partition."""


@record
class GptHeader(Record):
    """The 92 bytes of a header; the rest of its sector is zero."""

    signature: Annotated[bytes, Bytes(8)]
    """`SIGNATURE`."""
    revision: U32
    """`REVISION`."""
    header_size: U32
    """Bytes that `header_crc` covers: 92 or more, at most one sector."""
    header_crc: U32
    """CRC-32 of `header_size` bytes, with zeros in this field."""
    reserved: U32
    """0."""
    my_lba: U64
    """The sector that this header is in."""
    alternate_lba: U64
    """The sector that the other header is in."""
    first_usable_lba: U64
    """First sector that a partition may use."""
    last_usable_lba: U64
    """Last sector that a partition may use, inclusive."""
    disk_guid: Annotated[bytes, Bytes(16)]
    """The disk's identifier; its first three parts are little-endian."""
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
    """The 128 bytes of a partition entry."""

    type_guid: Annotated[bytes, Bytes(16)]
    """Partition type; zeros mark an unused entry. See `vmvisor_image.schemas.partition_types`."""
    partition_guid: Annotated[bytes, Bytes(16)]
    """This partition's own identifier."""
    first_lba: U64
    """First sector."""
    last_lba: U64
    """Last sector, inclusive."""
    attributes: U64
    """Bit 0: needed by the platform; bit 2: `LEGACY_BOOTABLE`; bits 48-63 belong to the type."""
    name: Annotated[bytes, Bytes(72)]
    """Up to 36 UTF-16-LE code units; what follows the first NUL is no part of it. (partedUtil of ESXi 5 leaves FFFF
    there.)"""
