"""Explanation of a partition; wording of counts and generations, and of a partition's purpose and uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.base.shown import Shown
from vmvisor_image.disk.purpose import Generation
from vmvisor_image.errors import Problem
from vmvisor_image.volumes.role import Evidence, Role


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something that can be done with a partition, in Python and in a shell."""

    aim: str
    """Aim, as a verb and its object, such as "list its files"."""
    python: str
    """Expression in which ``partition`` is the partition and ``image`` its image."""
    command: str | None
    """Command line in which ``SRC`` is the image; None where no command does it."""


@dataclass(frozen=True, slots=True)
class Explanation(Shown):
    """Explanation of a partition in parts; its text is one paragraph, as by `Partition.explain`.

    The parts are as they are on the disk, including control characters, which the text shows by their codes.
    """

    place: str
    """Number, range of bytes on the decoded disk, and size of the partition."""
    what: tuple[str, ...]
    """Sentences on its content, its purpose, and the disk that it belongs to."""
    evidence: tuple[Evidence, ...]
    """Findings on the disk that say so, with their offsets."""
    problems: tuple[Problem, ...]
    """Damage found in it."""
    next_steps: tuple[NextStep, ...]
    """Things that can be done with it, the most useful first."""

    def __str__(self) -> str:
        parts = [f"{self.place}.", *self.what]
        if self.evidence:
            parts.append(f"Evidence: {'; '.join(map(str, self.evidence))}.")
        parts += [f"Problem: {problem}." for problem in self.problems]
        if self.next_steps:
            parts.append(f"You can {'; '.join(f'{step.aim}: {step.python}' for step in self.next_steps)}.")
        return printable(" ".join(parts))


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


def next_steps(key: str, role: Role, *, has_files: bool, boots: bool = True) -> tuple[NextStep, ...]:
    """Things that can be done with a partition.

    Args:
        key: Number of the partition, or what else commands take for it.
        role: Its role.
        has_files: Whether its files can be read.
        boots: Whether it has a kernel to load, if it is a boot bank: the alternate bank of a new host is empty.
    """
    return tuple(_next_steps(key, role, has_files=has_files, boots=boots))


def _next_steps(key: str, role: Role, *, has_files: bool, boots: bool) -> Iterator[NextStep]:
    if role is Role.CONTAINER:
        yield NextStep("look at the logical partitions, numbers 5 and up", "image.partitions", "vmvisor-image info SRC")
        return
    if not has_files:
        random = "see which parts are zeros, text, or random or compressed data"
        yield NextStep(random, "partition.survey()", f"vmvisor-image info SRC {key}")
        yield NextStep("search it for printable text", "partition.strings()", None)
        yield NextStep("see its bytes", "partition.hexdump()", f"vmvisor-image hexdump SRC {key}")
        return
    hint = ", first those in log/ and core/" if role is Role.SCRATCH else ""
    yield NextStep(f"list its files{hint}", "partition.files", f"vmvisor-image ls SRC {key}")
    copying = f"vmvisor-image extract SRC {key} DEST"
    yield NextStep("copy its files to a folder", 'partition.files.extract("dest")', copying)
    if role in (Role.BOOTBANK, Role.ALT_BOOTBANK):
        if not boots:
            return
        system = f"vmvisor-image system SRC --bank {key}"
        bank = key if key.isdecimal() else repr(key)
        yield NextStep("see which modules it boots", f"image.system({bank})", system)
        pxe = f"vmvisor-image pxe SRC DEST --bank {key}"
        yield NextStep("export it to a PXE server", f'export_pxe(image, "dest", bank={bank})', pxe)
    elif role is Role.INSTALLER:
        yield NextStep("see which modules it boots", "image.system()", "vmvisor-image system SRC")
        yield NextStep("export it to a PXE server", 'export_pxe(image, "dest")', "vmvisor-image pxe SRC DEST")
    elif role is Role.BOOT:
        what = "export its mboot.c32 and the boot bank to a PXE server"
        yield NextStep(what, 'export_pxe(image, "dest")', "vmvisor-image pxe SRC DEST")
    elif role is Role.DATASTORE:
        machines = "list its virtual machines, and open their disks"
        yield NextStep(machines, "find_machines(image)", "vmvisor-image machines SRC")
        hosts = "see which hosts use it and who locks a file"
        yield NextStep(hosts, "partition.volume", "vmvisor-image verify SRC")
        others = "see what its links and raw device mappings name"
        yield NextStep(others, "partition.volume.others", f"vmvisor-image ls SRC {key}")
