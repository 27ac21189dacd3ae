"""The description of a virtual machine, as a file of any format gives it."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from vmvisor_image.errors import Problem

_BUSES: Final = ("ide", "scsi", "sata", "nvme", "nvdimm")
"""Kinds of controllers in the order of vSphere's keys for them: 200, 1000, 15000, 31000; persistent memory last."""
_SLOT: Final = re.compile(r"([a-z]+)([0-9]{1,9})?(?::([0-9]{1,9}))?(?![0-9])", re.ASCII)
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Backing:
    """Files that a disk rests on, as a description has them."""

    links: tuple[tuple[str | None, str | None], ...]
    """Path and format of each file, that of the disk's own parent first; None for what is not said, or not a file."""
    is_whole: bool
    """Whether the last one rests on nothing; otherwise the description leaves that open."""


@dataclass(frozen=True, slots=True)
class DiskDevice:
    """A disk of a virtual machine, as the machine's description has it."""

    slot: str
    """Controller and place on it, such as ``scsi0:0``; for libvirt the name in the guest, such as "vda"."""
    file_name: str | None
    """Path of the disk's file, as the description has it; None where the disk is not in a file, or is empty."""
    mode: str | None = None
    """Mode, such as "independent-persistent"; None where there is none, which is a persistent disk."""
    kind: str | None = None
    """Format that the description gives for the disk; None where it gives none."""
    capacity: int | None = None
    """Bytes of the disk, where the description says it."""
    note: str | None = None
    """Reason why the disk can't be opened, whatever its file; None without one."""
    part_size: int | None = None
    """Bytes of each part but the last, where the file is stored in parts whose names go on from its own."""
    file_size: int | None = None
    """Bytes of the file, or of all of its parts, where the description says it."""
    parent: DiskDevice | None = None
    """Disk that this one is the difference to, where the description says it, as that of an OVF can."""
    snapshot: str | None = None
    """Name of the snapshot inside the file that is meant; None for its present state."""
    backing: Backing | None = None
    """Files that it rests on by the description, as libvirt's can say it; the file itself says it, too, and counts."""
    redo: str | None = None
    """Path of its redo log, which has the changes of a disk that forgets them; None without one."""

    @property
    def is_independent(self) -> bool:
        """Whether snapshots leave the disk out."""
        return (self.mode or "").lower().startswith("independent")

    @property
    def order(self) -> tuple[int, str, int, int]:
        """Key by which slots are sorted: kind of controller, its number, and the place on it."""
        match = _SLOT.match(self.slot)
        if match is None:
            return (len(_BUSES), self.slot, 0, 0)
        bus, controller, unit = match.groups()
        return (_BUSES.index(bus) if bus in _BUSES else len(_BUSES), bus, int(controller or 0), int(unit or 0))


@dataclass(frozen=True, slots=True)
class DescribedSnapshot:
    """A snapshot, as the description has it."""

    uid: int
    """Number of the snapshot."""
    name: str
    """Name that its maker gave it; others may have the same."""
    description: str = ""
    created: datetime | None = None
    """Time at which it was taken, in UTC; None where that can't be read."""
    parent: int | None = None
    """Number of the snapshot that it was taken after; None for the first one."""
    devices: tuple[DiskDevice, ...] = ()
    """Disks as they stood then."""
    state: str | None = None
    """Path of the file with the state of the machine then, a .vmsn; None where none is named."""
    parent_name: str | None = None
    """Name of that snapshot, where the description gives no number for it."""


@dataclass(frozen=True, slots=True)
class Description:
    """All that the files of a virtual machine say of it."""

    kind: str
    """Format: "vmx", "ovf" or "libvirt"."""
    name: str | None = None
    """Name of the machine."""
    guest: str | None = None
    """Operating system of the guest, in the format's own words, such as "windows9-64"."""
    firmware: str | None = None
    """Firmware: "bios" or "efi"; None where the description does not say it."""
    devices: tuple[DiskDevice, ...] = ()
    """Disks, in the order of their controllers."""
    snapshots: tuple[DescribedSnapshot, ...] = ()
    """Snapshots, oldest first."""
    current: int | None = None
    """Number of the snapshot that the machine's present state goes on from."""
    is_encrypted: bool = False
    """Whether the description, or a part of it, is encrypted; its disks are then known only if they are listed."""
    settings: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Every setting of a VMX by its key in lower case; empty for other formats."""
    problems: tuple[Problem, ...] = ()
    """Damage of the description."""
    identifier: str | None = None
    """Identifier of the machine among several in one file."""


def distinct_slot(slot: str, line: int, taken: Container[str]) -> str:
    """Slot of a disk in a line of a description; with the number of the line where another disk has the same."""
    return f"{slot} (line {line})" if slot in taken else slot


def sorted_devices(devices: list[DiskDevice]) -> tuple[DiskDevice, ...]:
    """Devices in the order of their controllers."""
    return tuple(sorted(devices, key=lambda device: device.order))
