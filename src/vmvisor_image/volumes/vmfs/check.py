"""What a VMFS volume's bitmap of file blocks says, against what its files have: the figures of `verify`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmvisor_image.errors import Problem


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A file that a host held when the image was made."""

    path: str
    """POSIX path from the volume's root."""
    mode: int
    """1 exclusive, 2 read-only, 3 by several writers."""
    owner: str
    """UUID of the host."""


@dataclass(frozen=True, slots=True)
class ActiveHeartbeat:
    """A host that used the volume when the image was made."""

    uuid: str
    address: str | None
    """Its IP address, where it is given."""
    offset: int
    """Its heartbeat, from the start of the decoded disk."""


@dataclass(frozen=True, slots=True)
class VmfsFigures:
    """What was counted in one VMFS volume."""

    block_size: int
    """Bytes in a file block."""
    blocks: int | None
    """File blocks that the bitmap tells of and the volume has; None of VMFS 6 and VMFS-L, whose bitmap is not read."""
    used: int | None
    """Those that are marked used."""
    reached: int
    """Those that files, directories and the system's own files have."""
    lost: int | None
    """Those that are marked used and nothing has."""
    reached_free: int | None
    """Those that something has and that are marked free."""
    locks: tuple[HeldLock, ...]
    """By path."""
    hosts: tuple[ActiveHeartbeat, ...]
    """By slot."""


def problems_of(vmfs: VmfsFigures, start: int) -> Iterator[Problem]:
    """Everything that is wrong with a VMFS volume at byte `start` of the disk."""
    if vmfs.reached_free:
        yield Problem("VMFS file blocks", f"{vmfs.reached_free} blocks of files are marked free", start)
    if vmfs.lost:
        yield Problem("VMFS file blocks", f"{vmfs.lost} blocks are marked used and belong to no file", start)
