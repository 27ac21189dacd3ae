"""Wording of counts and generations, and of a partition's purpose and uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmvisor_image.disk.purpose import Generation
from vmvisor_image.volumes.role import Role


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as "1 file" or "2 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def described_generation(layout: Generation | None, generation: Generation | None) -> str | None:
    """A few words on the layout of a disk's table and its generation by other evidence; None where neither is known."""
    if layout is None:
        return None if generation is None else f"disk of {generation.value}, in no layout that is known"
    if generation is None or generation is layout:
        return f"layout of {layout.value}"
    return f"layout of {layout.value}, but disk of {generation.value} by what else it says"


PURPOSES: Final[Mapping[Role, str]] = {
    Role.BOOT: (
        "It holds the boot loader (syslinux and mboot.c32, from 5.0 on also one for UEFI), which starts the"
        " hypervisor from a boot bank."
    ),
    Role.BOOTBANK: "It is the boot bank: the hypervisor's kernel and modules, loaded into memory at boot.",
    Role.ALT_BOOTBANK: (
        "It is the alternate boot bank: an upgrade is written here, and the boot loader falls back to the other"
        " bank when it fails. On a fresh disk it is empty or a copy."
    ),
    Role.COREDUMP: (
        "It is the diagnostic partition: when the vmkernel crashes it writes a dump of its memory here. Its"
        " format is not publicly described."
    ),
    Role.STORE: "It is the store, later called locker: VMware Tools and, before 5.0, the client for download.",
    Role.SCRATCH: (
        "It is the scratch partition: logs, core files and the swap of the host's own programs. Installers and"
        " the first boot make it; no shipped image has one."
    ),
    Role.DATASTORE: (
        "It is a datastore: VMFS, the file system for virtual machines. Installers and administrators make it; no"
        " shipped image has one."
    ),
    Role.OSDATA: "It is OSDATA: what were scratch, locker and core dumps before ESXi 7, in one VMFS-L volume.",
    Role.VSAN: "It is a part of a vSAN datastore, which lies on the disks of several hosts; its format is not read.",
    Role.MEMORY_TIER: (
        "It is a memory tier: from ESXi 8.0 Update 3 on a host may keep pages of its virtual machines' memory here, on"
        " an NVMe device, that are not used enough for its RAM. An administrator makes it. No file system is in it."
    ),
    Role.INSTALLER: "It is an installer CD: a boot loader, the hypervisor's kernel and modules, and the installer.",
    Role.CONTAINER: "It holds no data itself: the logical partitions lie in it, each behind an extended boot record.",
    Role.UNKNOWN: "Nothing on the disk says what it is for.",
}

GENERATION_NOTES: Final[Mapping[tuple[Generation, Role], str]] = {
    (Generation.ESX_3I, Role.COREDUMP): (
        "This is the small partition that the recipe of 2008 took for VMFS. It is not VMFS: VMFS has type 0xFB, and"
        " this one has 0xFC, VMKCORE, which the tools of that time did not know. There is no VMFS in the shipped"
        " image. The datastore (type 0xFB) and the scratch partition (4 GiB of FAT) are made by the installer or on"
        " the first boot, on the disk behind this image (on ESXi 4 in slots 3 and 2); the host's swap file lies on"
        " scratch. Where there is no scratch, logs are kept in memory and are gone after a reboot, and the host"
        " has no swap. The swap of a virtual machine lies beside it on its datastore."
    ),
    (Generation.ESXI_4, Role.COREDUMP): (
        "Scratch (slot 2, 4 GiB of FAT) and the datastore (slot 3, type 0xFB) are made behind the image by the"
        " installer or on the first boot."
    ),
    (Generation.ESXI_5_6, Role.COREDUMP): (
        "The installer makes one of 110 MB (partition 7) and, from 6.0 on where there is room, one of 2.5 GB"
        " (partition 9), which is then used instead."
    ),
    (
        Generation.ESXI_7_8,
        Role.COREDUMP,
    ): "ESXi 7 and later write dumps to a file on OSDATA; this one is left from an upgrade.",
    (Generation.ESXI_5_6, Role.STORE): "From 5.0 on it is /locker, with packages/ and var/.",
    (Generation.ESXI_7_8, Role.STORE): "On SD cards and USB sticks ESXi 7 and later name OSDATA so.",
    (Generation.ESXI_7_8, Role.BOOTBANK): "Its settings are in state.tgz, from 7.0 on encrypted.",
}

ACTIONS: Final[Mapping[Role, str]] = {
    Role.BOOT: (
        "partition.files lists it; mboot.c32 from here and the files of the boot bank are what a PXE server needs"
        " (vmvisor-image pxe)."
    ),
    Role.BOOTBANK: "partition.files reads it, partition.files.extract(folder) copies it, vmvisor-image pxe exports it.",
    Role.ALT_BOOTBANK: "partition.files reads it as it does the other bank.",
    Role.STORE: "partition.files reads it where it is FAT.",
    Role.SCRATCH: "partition.files reads it: look in log/ and core/ when you examine a host.",
    Role.DATASTORE: (
        "partition.files reads it; file.open_image() on the .vmdk of a virtual machine opens the guest's disk, and"
        " partition.volume tells which hosts used it, who locked a file, and what links and raw device mappings name."
    ),
    Role.OSDATA: "partition.files reads it.",
    Role.VSAN: "partition.survey() and partition.strings() show what it looks like, partition.hexdump() its bytes.",
    Role.MEMORY_TIER: (
        "What is left in it is memory of virtual machines: partition.survey() tells how much is not zeros,"
        " partition.strings() what text there is."
    ),
    Role.INSTALLER: "partition.files reads it, image.system() tells what it boots, vmvisor-image pxe exports it.",
    Role.CONTAINER: "Look at the logical partitions, numbers 5 and up.",
    Role.UNKNOWN: "partition.survey() and partition.strings() show what it looks like, partition.hexdump() its bytes.",
}
