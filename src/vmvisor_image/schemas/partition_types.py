"""Names of partition types: MBR codes and GPT GUIDs, including those of every ESX and ESXi generation.

The names are util-linux's (include/pt-mbr-partnames.h, pt-gpt-partnames.h), or for types that it does not know those of
VMware's partedUtil. Sources of VMware's types: the ESXi installer's partition tables, partedUtil ``showGuids``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID

EFI_SYSTEM: Final = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BASIC_DATA: Final = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
VMFS: Final = UUID("aa31e02a-400f-11db-9590-000c2911d1b8")
VMFS_L: Final = UUID("4eb2ea39-7855-4790-a79e-fae495e21f8d")
VMKCORE: Final = UUID("9d275380-40ad-11db-bf97-000c2911d1b8")
VSAN: Final = UUID("381cfccc-7288-11e0-92ee-000c2911d0b2")
MEMORY_TIER: Final = UUID("b3676ddd-a38a-4cd6-b970-718d7f873811")
MBR_EFI_SYSTEM: Final = 0xEF
MBR_VMFS: Final = 0xFB
MBR_VMKCORE: Final = 0xFC
MBR_GPT: Final = 0xEE


@dataclass(frozen=True, slots=True)
class PartitionType:
    """Type of a partition, as its table gives it."""

    code: int | None
    """MBR type code, or None in a GPT."""
    guid: UUID | None
    """GPT type, or None in an MBR."""
    name: str
    """Name of the type; "Unknown" where it has none."""

    def __str__(self) -> str:
        return f"{self.name} ({self.guid if self.code is None else f'{self.code:#04x}'})"


PARTITION_TYPES: Final[Mapping[int | UUID, str]] = MappingProxyType(
    {
        0x01: "FAT12",
        0x04: "FAT16 <32M",
        0x05: "Extended",
        0x06: "FAT16",
        0x07: "HPFS/NTFS/exFAT",
        0x0B: "W95 FAT32",
        0x0C: "W95 FAT32 (LBA)",
        0x0E: "W95 FAT16 (LBA)",
        0x0F: "W95 Ext'd (LBA)",
        0x12: "Compaq diagnostics",
        0x27: "Hidden NTFS WinRE",
        0x42: "SFS",
        0x82: "Linux swap / Solaris",
        0x83: "Linux",
        0x85: "Linux extended",
        0x8E: "Linux LVM",
        0xA5: "FreeBSD",
        0xA6: "OpenBSD",
        0xA9: "NetBSD",
        0xAF: "HFS / HFS+",
        0xBF: "Solaris",
        0xDE: "Dell Utility",
        MBR_GPT: "GPT",
        MBR_EFI_SYSTEM: "EFI (FAT-12/16/32)",
        MBR_VMFS: "VMware VMFS",
        MBR_VMKCORE: "VMware VMKCORE",
        0xFD: "Linux raid autodetect",
        EFI_SYSTEM: "EFI System",
        BASIC_DATA: "Microsoft basic data",
        VMFS: "VMware VMFS",
        VMFS_L: "VMware VMFS-L",
        VMKCORE: "VMware Diagnostic",
        VSAN: "VMware Virtual SAN",
        UUID("77719a0c-a4a0-11e3-a47e-000c29745a24"): "VMware Virsto",
        UUID("9198effc-31c0-11db-8f78-000c2911d1b8"): "VMware Reserved",
        MEMORY_TIER: "VMware NVMe tiering",
        UUID("024dee41-33e7-11d3-9d69-0008c781f39f"): "MBR partition scheme",
        UUID("21686148-6449-6e6f-744e-656564454649"): "BIOS boot",
        UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae"): "Microsoft reserved",
        UUID("de94bba4-06d1-4d40-a16a-bfd50179d6ac"): "Windows recovery environment",
        UUID("af9b60a0-1431-4f62-bc68-3311714a69ad"): "Microsoft LDM data",
        UUID("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"): "Microsoft LDM metadata",
        UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"): "Linux swap",
        UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"): "Linux filesystem",
        UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "Linux RAID",
        UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "Linux LVM",
        UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"): "Linux extended boot",
        UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "Linux root (x86-64)",
        UUID("516e7cb4-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD data",
        UUID("516e7cba-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD ZFS",
        UUID("48465300-0000-11aa-aa11-00306543ecac"): "Apple HFS/HFS+",
        UUID("7c3457ef-0000-11aa-aa11-00306543ecac"): "Apple APFS",
    }
)
"""Name of each type, by MBR code (int) or GPT GUID."""


def partition_type(key: int | UUID) -> PartitionType:
    """Type with that MBR code or GPT GUID."""
    name = PARTITION_TYPES.get(key, "Unknown")
    return PartitionType(key, None, name) if isinstance(key, int) else PartitionType(None, key, name)
