"""Boot sectors and directory entries of FAT12, FAT16 and FAT32, and VMware's marker sector.

Sources: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103), field names in its order;
for the marker, vmware/esx-boot safeboot/vmfat.c (read for the fact, nothing copied) and u-root pkg/boot/esxi.
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U8, U16, U32, Bytes, Record, record

SIGNATURE = b"\x55\xaa"
"""Last two of the first 512 bytes of a boot sector."""

VMWARE_MAGIC = b"VMWARE FAT16    "
"""First bytes of VMware's marker, which is the second logical sector of a boot bank."""


@record
class BiosParameterBlock(Record):
    """First 36 bytes of a FAT boot sector, the same for FAT12, FAT16 and FAT32."""

    jump: Annotated[bytes, Bytes(3)]
    """Jump over the parameter block: EB xx 90 or E9 xx xx."""
    oem_name: Annotated[bytes, Bytes(8)]
    """Name of the formatting program."""
    bytes_per_sector: U16
    """Bytes in a logical sector: 512, 1024, 2048 or 4096."""
    sectors_per_cluster: U8
    """Logical sectors in a cluster, a power of two."""
    reserved_sectors: U16
    """Logical sectors before the first FAT, including this one; at least 1."""
    fat_count: U8
    """Copies of the FAT, usually 2."""
    root_entries: U16
    """32-byte entries in the root directory; 0 on FAT32."""
    total_sectors_16: U16
    """Logical sectors in the volume, or 0 when `total_sectors_32` holds the number."""
    media: U8
    """Type of the medium; 0xF8 for a fixed disk."""
    sectors_per_fat_16: U16
    """Logical sectors in one FAT; 0 on FAT32."""
    sectors_per_track: U16
    """Sectors in a track, for the BIOS."""
    heads: U16
    """Heads, for the BIOS."""
    hidden_sectors: U32
    """512-byte sectors before the volume on its disk; often 0 or wrong."""
    total_sectors_32: U32
    """Logical sectors in the volume when `total_sectors_16` is 0."""


@record
class Fat16BootSector(BiosParameterBlock):
    """Boot sector of FAT12 and FAT16, 512 bytes."""

    drive_number: U8
    """BIOS drive number."""
    reserved: U8
    """Flags; bit 0: the volume was not unmounted cleanly."""
    extended_signature: U8
    """0x29 when the next three fields are there."""
    volume_id: U32
    """Serial number."""
    volume_label: Annotated[bytes, Bytes(11)]
    """Label, padded with spaces; "NO NAME    " for none. A label entry in the root directory takes precedence."""
    file_system_type: Annotated[bytes, Bytes(8)]
    """Name of the file system, for information only; the number of clusters decides the kind of FAT."""
    boot_code: Annotated[bytes, Bytes(448)]
    """Boot code."""
    signature: Annotated[bytes, Bytes(2)]
    """55 AA."""


@record
class Fat32BootSector(BiosParameterBlock):
    """Boot sector of FAT32, 512 bytes."""

    sectors_per_fat_32: U32
    """Logical sectors in one FAT."""
    extended_flags: U16
    """Flags; bit 7: only the FAT whose number is in bits 0-3 is in use."""
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
    """Flags; bit 0: the volume was not unmounted cleanly."""
    extended_signature: U8
    """0x29 when the next three fields are there."""
    volume_id: U32
    """Serial number."""
    volume_label: Annotated[bytes, Bytes(11)]
    """Label, padded with spaces; "NO NAME    " for none."""
    file_system_type: Annotated[bytes, Bytes(8)]
    """Name of the file system, for information only."""
    boot_code: Annotated[bytes, Bytes(420)]
    """Boot code."""
    signature: Annotated[bytes, Bytes(2)]
    """55 AA."""


@record
class FileSystemInformation(Record):
    """FSInfo of FAT32: 512 bytes in the sector `information_sector` (fatgen103, "FAT32 FSInfo Sector")."""

    lead_signature: U32
    """0x41615252."""
    reserved_1: Annotated[bytes, Bytes(480)]
    """Zeros."""
    structure_signature: U32
    """0x61417272."""
    free_clusters: U32
    """Last known number of free clusters; 0xFFFFFFFF where it is not known."""
    next_free: U32
    """Number of the cluster at which to look for a free one; 0xFFFFFFFF where it is not known."""
    reserved_2: Annotated[bytes, Bytes(12)]
    """Zeros."""
    trail_signature: U32
    """0xAA550000."""

    @property
    def is_valid(self) -> bool:
        """Whether its three signatures are right."""
        return (self.lead_signature, self.structure_signature) == (0x41615252, 0x61417272) and (
            self.trail_signature == 0xAA550000
        )


@record
class DirectoryEntry(Record):
    """Entry of a directory, 32 bytes."""

    short_name: Annotated[bytes, Bytes(11)]
    """Base name (8) and extension (3), padded with spaces, in the OEM code page. First byte: 00 ends the
    directory, E5 marks a deleted entry, 05 stands for E5."""
    attributes: U8
    """Flags: 01 read-only, 02 hidden, 04 system, 08 volume label, 10 directory, 20 archive; 0F for a long-name part."""
    case_flags: U8
    """Flags of Windows NT: 08 for a base name in lower case, 10 for an extension in lower case."""
    created_centiseconds: U8
    """Hundredths of a second to add to `created_time`, 0-199."""
    created_time: U16
    """Time of creation: hours (5 bits), minutes (6), seconds / 2 (5)."""
    created_date: U16
    """Date of creation: years since 1980 (7 bits), month (4), day (5)."""
    accessed_date: U16
    """Date of the last access, encoded as `created_date`."""
    first_cluster_high: U16
    """Upper half of the first cluster's number; FAT32 only."""
    modified_time: U16
    """Time of the last write, encoded as `created_time`."""
    modified_date: U16
    """Date of the last write, encoded as `created_date`."""
    first_cluster_low: U16
    """Lower half of the first cluster's number; 0 for an empty file."""
    file_size: U32
    """Size of the file, in bytes; 0 for a directory."""


@record
class LongNameEntry(Record):
    """Part of a long name, 32 bytes; the parts come before their `DirectoryEntry`, the last part first."""

    ordinal: U8
    """Number of the part, from 1; 0x40 is added to that of the last part, which comes first on disk."""
    characters_1: Annotated[bytes, Bytes(10)]
    """UTF-16-LE code units 1-5."""
    attributes: U8
    """0x0F."""
    kind: U8
    """0."""
    checksum: U8
    """Checksum of the short name to which the long name belongs."""
    characters_2: Annotated[bytes, Bytes(12)]
    """UTF-16-LE code units 6-11."""
    first_cluster_low: U16
    """0."""
    characters_3: Annotated[bytes, Bytes(4)]
    """UTF-16-LE code units 12-13. A shorter name ends with 0000 and is padded with FFFF."""


@record
class VmwareMarker(Record):
    """VMware's marker in the second logical sector of a boot bank, by which `safeboot` finds banks.

    Its text does not give the kind of FAT: the boot partition for disks of 4096-byte sectors is FAT12 (seen: 6.7).
    """

    magic: Annotated[bytes, Bytes(16)]
    """"VMWARE FAT16    "."""
    uuid: Annotated[bytes, Bytes(16)]
    """UUID of the bank, as in bootUUID= on the kernel's command line."""
