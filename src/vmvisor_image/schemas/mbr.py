"""Master boot record, and extended boot records of logical partitions.

Sources: UEFI Specification 2.10, section 5.2.1, table 5.1 (legacy MBR) and table 5.2 (partition record); for
extended boot records, A. E. Brouwer, "Partition types" and "Properties of partition tables" (win.tue.nl).
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, Array, Bytes, Record, record

SECTOR = 512
"""Bytes in a sector of an MBR disk; all sector numbers of an MBR count such sectors."""

SIGNATURE = b"\x55\xaa"
"""Last two bytes of a master or extended boot record."""

EXTENDED_TYPES = frozenset({0x05, 0x0F, 0x85})
"""Type codes of partitions that hold a chain of extended boot records (CHS, LBA, Linux)."""
PROTECTIVE_TYPE: Final = 0xEE
"""Type of the partition that covers a GPT disk, so that programs without GPT support do not take it for empty."""
_ACTIVE: Final = 0x80


@record
class PartitionEntry(Record):
    """Entry of a partition table, 16 bytes."""

    boot_flag: U8
    """0x80 for the active partition, otherwise 0x00."""
    first_chs: Annotated[bytes, Bytes(3)]
    """First sector as cylinder, head and sector; ignored by all systems since 1996."""
    type_code: U8
    """Partition type; 0 marks an unused entry. See `vmvisor_image.schemas.partition_types.PARTITION_TYPES`."""
    last_chs: Annotated[bytes, Bytes(3)]
    """Last sector, inclusive, as cylinder, head and sector."""
    first_lba: U32
    """First sector, in 512-byte sectors: in the MBR from the disk's start; in an extended boot record from that
    record (first entry) or from the start of the extended partition (second entry, the link)."""
    sectors: U32
    """Number of 512-byte sectors."""


@record
class MasterBootRecord(Record):
    """Sector 0 of an MBR disk: 446 bytes of boot code (with the disk signature at their end), the table, 55 AA."""

    boot_code: Annotated[bytes, Bytes(440)]
    """Code that the BIOS starts."""
    disk_signature: U32
    """Disk identifier, as fdisk prints it."""
    reserved: U16
    """0x0000, or 0x5A5A where the disk is marked read-only."""
    entries: Annotated[tuple[PartitionEntry, ...], Array(4)]
    """Four primary entries, in table order, which need not be disk order."""
    signature: Annotated[bytes, Bytes(2)]
    """55 AA."""


@record
class ExtendedBootRecord(Record):
    """Sector before each logical partition; such records form a linked list by their second entries."""

    boot_code: Annotated[bytes, Bytes(446)]
    """Unused."""
    entries: Annotated[tuple[PartitionEntry, ...], Array(4)]
    """Entry of the logical partition, link to the next record, and two unused entries."""
    signature: Annotated[bytes, Bytes(2)]
    """55 AA."""


def is_plausible(sector: bytes) -> bool:
    """Whether a sector holds a partition table with at least one partition, with or without 55 AA."""
    entries = MasterBootRecord.parse(sector).entries
    return entries_are_sound(entries) and any(is_used(entry) for entry in entries)


def is_signed(sector: bytes) -> bool:
    """Whether a sector ends in 55 AA."""
    return sector[SECTOR - len(SIGNATURE) : SECTOR] == SIGNATURE


def protects_gpt(sector: bytes) -> bool:
    """Whether one of the partitions of a master boot record covers a GPT disk."""
    return any(
        entry.type_code == PROTECTIVE_TYPE and is_used(entry) for entry in MasterBootRecord.parse(sector).entries
    )


def is_empty(sector: bytes) -> bool:
    """Whether a sector is a master boot record whose table has no partition."""
    record = MasterBootRecord.parse(sector)
    return record.signature == SIGNATURE and not any(any(entry.raw) for entry in record.entries)


def is_used(entry: PartitionEntry) -> bool:
    """Whether an entry describes a partition."""
    return entry.type_code != 0 and entry.sectors > 0


def entries_are_sound(entries: tuple[PartitionEntry, ...]) -> bool:
    """Whether all entries are possible: boot flags have one of two values, and no partition begins at sector 0."""
    return all(entry.boot_flag in (0, _ACTIVE) and (entry.first_lba > 0 or not is_used(entry)) for entry in entries)
