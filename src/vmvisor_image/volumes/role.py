"""Roles of a hypervisor's partitions, and the evidence for them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.Enum):
    """Purpose of a partition on a hypervisor's disk."""

    BOOT = "boot"
    """Boot loader."""
    BOOTBANK = "bootbank"
    """The hypervisor's modules: the one of two banks that the boot loader starts."""
    ALT_BOOTBANK = "alternate bootbank"
    """The other bank, to fall back to after a failed upgrade."""
    COREDUMP = "coredump"
    """Dumps of the vmkernel's memory after a crash."""
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
    """An extended partition, which contains the logical ones."""
    UNKNOWN = "unknown"
    """No evidence of a purpose."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finding on the disk about a partition's content or purpose."""

    statement: str
    """Finding in words."""
    offset: int | None
    """Bytes from the start of the decoded disk to the finding; None where it has no single place."""

    def __str__(self) -> str:
        return self.statement if self.offset is None else f"{self.statement} (at byte {self.offset:#x})"
