"""The boot sectors and directory entries of FAT12, FAT16 and FAT32, and VMware's marker sector.

Sources: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103), field names in its order;
for the marker, vmware/esx-boot safeboot/vmfat.c (read for the fact, nothing copied) and u-root pkg/boot/esxi.
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U8, U16, U32, Bytes, Record, record

SIGNATURE = b"\x55\xaa"
"""The last two bytes of a boot sector's first 512."""

VMWARE_MAGIC = b"VMWARE FAT16    "
"""The start of VMware's marker: the second logical sector of a boot bank."""


@record
class BiosParameterBlock(Record):
    """The first 36 bytes of a FAT boot sector, the same for FAT12, FAT16 and FAT32."""

    jump: Annotated[bytes, Bytes(3)]
    """EB xx 90 or E9 xx xx: a jump over the parameter block."""
    oem_name: Annotated[bytes, Bytes(8)]
    """The formatting program."""
    bytes_per_sector: U16
    """Bytes in a logical sector: 512, 1024, 2048 or 4096."""
    sectors_per_cluster: U8
    """A power of two."""
    reserved_sectors: U16
    """Logical sectors before the first FAT, this one included; at least 1."""
    fat_count: U8
    """Copies of the FAT, usually 2."""
    root_entries: U16
    """32-byte entries in the root directory; 0 on FAT32."""
    total_sectors_16: U16
    """Logical sectors in the volume, or 0 when `total_sectors_32` holds it."""
    media: U8
    """0xF8 for a fixed disk."""
    sectors_per_fat_16: U16
    """Logical sectors in one FAT; 0 on FAT32."""
    sectors_per_track: U16
    """Geometry for the BIOS."""
    heads: U16
    """Geometry for the BIOS."""
    hidden_sectors: U32
    """512-byte sectors before the volume on its disk; often 0 or wrong."""
    total_sectors_32: U32
    """Logical sectors in the volume when `total_sectors_16` is 0."""


@record
class Fat16BootSector(BiosParameterBlock):
    """The 512-byte boot sector of FAT12 and FAT16."""

    drive_number: U8
    """BIOS drive number."""
    reserved: U8
    """Bit 0: the volume was not unmounted cleanly."""
    extended_signature: U8
    """0x29 when the next three fields are there."""
    volume_id: U32
    """Serial number."""
    volume_label: Annotated[bytes, Bytes(11)]
    """Label, padded with spaces; "NO NAME    " for none. The root directory's label entry goes before it."""
    file_system_type: Annotated[bytes, Bytes(8)]
    """Informational; the cluster count decides the FAT's kind."""
    boot_code: Annotated[bytes, Bytes(448)]
    """Boot code."""
    signature: Annotated[bytes, Bytes(2)]
    """55 AA."""


@record
class Fat32BootSector(BiosParameterBlock):
    """The 512-byte boot sector of FAT32."""

    sectors_per_fat_32: U32
    """Logical sectors in one FAT."""
    extended_flags: U16
    """Bit 7: only the FAT numbered in bits 0-3 is in use."""
    version: U16
    """0."""
    root_cluster: U32
    """First cluster of the root directory."""
    information_sector: U16
    """Logical sector of the FSInfo structure."""
    backup_boot_sector: U16
    """Logical sector of the boot sector's copy."""
    reserved_12: Annotated[bytes, Bytes(12)]
    """Zero."""
    drive_number: U8
    """BIOS drive number."""
    reserved: U8
    """Bit 0: the volume was not unmounted cleanly."""
    extended_signature: U8
    """0x29 when the next three fields are there."""
    volume_id: U32
    """Serial number."""
    volume_label: Annotated[bytes, Bytes(11)]
    """Label, padded with spaces; "NO NAME    " for none."""
    file_system_type: Annotated[bytes, Bytes(8)]
    """Informational."""
    boot_code: Annotated[bytes, Bytes(420)]
    """Boot code."""
    signature: Annotated[bytes, Bytes(2)]
    """55 AA."""


@record
class FileSystemInformation(Record):
    """FSInfo of FAT32: 512 bytes in the boot sector's `information_sector` (fatgen103, "FAT32 FSInfo Sector")."""

    lead_signature: U32
    """0x41615252."""
    reserved_1: Annotated[bytes, Bytes(480)]
    """Zeros."""
    structure_signature: U32
    """0x61417272."""
    free_clusters: U32
    """As last known; 0xFFFFFFFF where it is not."""
    next_free: U32
    """Where to look for a free cluster; 0xFFFFFFFF where it is not known."""
    reserved_2: Annotated[bytes, Bytes(12)]
    """Zeros."""
    trail_signature: U32
    """0xAA550000."""

    @property
    def is_valid(self) -> bool:
        """Whether its signatures are right."""
        return (self.lead_signature, self.structure_signature) == (0x41615252, 0x61417272) and (
            self.trail_signature == 0xAA550000
        )


@record
class DirectoryEntry(Record):
    """One 32-byte entry of a directory."""

    short_name: Annotated[bytes, Bytes(11)]
    """Base name (8) and extension (3), padded with spaces, in the OEM code page. First byte: 00 ends the
    directory, E5 marks a deleted entry, 05 stands for E5."""
    attributes: U8
    """01 read-only, 02 hidden, 04 system, 08 volume label, 10 directory, 20 archive; 0F a long-name part."""
    case_flags: U8
    """Windows NT: 08 the base name is lower case, 10 the extension is."""
    created_centiseconds: U8
    """Hundredths of a second to add to `created_time`, 0-199."""
    created_time: U16
    """Hours (5 bits), minutes (6), seconds / 2 (5)."""
    created_date: U16
    """Years since 1980 (7 bits), month (4), day (5)."""
    accessed_date: U16
    """As `created_date`."""
    first_cluster_high: U16
    """Upper half of the first cluster's number; FAT32 only."""
    modified_time: U16
    """As `created_time`."""
    modified_date: U16
    """As `created_date`."""
    first_cluster_low: U16
    """Lower half of the first cluster's number; 0 for an empty file."""
    file_size: U32
    """Bytes; 0 for a directory."""


@record
class LongNameEntry(Record):
    """One 32-byte part of a long name; the parts stand, last first, before their `DirectoryEntry`."""

    ordinal: U8
    """1-based number of the part; 0x40 is added to the last one, which comes first on disk."""
    characters_1: Annotated[bytes, Bytes(10)]
    """UTF-16-LE code units 1-5."""
    attributes: U8
    """0x0F."""
    kind: U8
    """0."""
    checksum: U8
    """Checksum of the short name that the long name belongs to."""
    characters_2: Annotated[bytes, Bytes(12)]
    """UTF-16-LE code units 6-11."""
    first_cluster_low: U16
    """0."""
    characters_3: Annotated[bytes, Bytes(4)]
    """UTF-16-LE code units 12-13. A shorter name ends with 0000 and is padded with FFFF."""


@record
class VmwareMarker(Record):
    """VMware's marker in the second logical sector of a boot bank; `safeboot` finds banks by it.

    Its text says nothing of the kind of FAT: the boot partition for disks of 4096-byte sectors is FAT12 (seen: 6.7).
    """

    magic: Annotated[bytes, Bytes(16)]
    """"VMWARE FAT16    "."""
    uuid: Annotated[bytes, Bytes(16)]
    """The bank's UUID, as in bootUUID= on the kernel's command line."""
