"""Roles of a hypervisor's partitions, and what says so."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.Enum):
    """What a partition is for on a hypervisor's disk."""

    BOOT = "boot"
    """Boot loader."""
    BOOTBANK = "bootbank"
    """The hypervisor's modules: of two banks the one that the boot loader starts."""
    ALT_BOOTBANK = "alternate bootbank"
    """The other bank, to fall back to after a failed upgrade."""
    COREDUMP = "coredump"
    """Where the vmkernel writes its memory when it crashes."""
    STORE = "store"
    """VMware Tools, the client installer; later called the locker."""
    SCRATCH = "scratch"
    """Logs and swap of a running host; made on first boot."""
    DATASTORE = "datastore"
    """VMFS for virtual machines."""
    OSDATA = "osdata"
    """ESXi 7 and later: scratch, locker and core dumps in one VMFS-L volume."""
    VSAN = "vsan"
    """A host's part of a vSAN datastore."""
    MEMORY_TIER = "memory tier"
    """ESXi 8.0 Update 3 and later: pages of virtual machines' memory that are not in the faster RAM."""
    INSTALLER = "installer"
    """A CD that installs the hypervisor."""
    CONTAINER = "container"
    """An extended partition: it holds the logical ones."""
    UNKNOWN = "unknown"
    """Nothing says what it is for."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing on the disk that says what a partition is."""

    statement: str
    """What was found."""
    offset: int | None
    """Where, in bytes from the start of the decoded disk."""

    def __str__(self) -> str:
        return self.statement if self.offset is None else f"{self.statement} (at byte {self.offset:#x})"
