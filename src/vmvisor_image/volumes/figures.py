"""Figures of a volume that its check counts, as a report of `verify` holds them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CrossLink:
    """Two chains that go on together."""

    path: str
    """The file or directory whose chain comes to the other one's."""
    other: str
    """The one that counts as the owner: directories before files, then in the order of the tree."""
    offset: int
    """First byte of the first cluster that both have, from the start of the decoded disk."""
    clusters: int
    """Clusters from there to the end of the chain."""


@dataclass(frozen=True, slots=True)
class WrongChain:
    """A chain that is not as long as its file, or that does not end as chains do."""

    path: str
    offset: int
    """The directory entry, from the start of the decoded disk."""
    clusters: int
    """Clusters in the chain."""
    needed: int | None
    """Clusters that the file's size takes; None for a directory."""
    end: str
    """How the chain ends: "end mark", "free cluster", "bad cluster", "no such cluster" or "loop"."""

    @property
    def is_long(self) -> bool:
        """Whether it is sound but for clusters behind the file's end."""
        return self.end == "end mark" and self.needed is not None and self.clusters > self.needed

    def __str__(self) -> str:
        length = f"the chain of {self.path or '/'!r} has {self.clusters} clusters"
        if self.needed is not None:
            length += f", its size takes {self.needed}"
        return length if self.end == "end mark" else f"{length}; it ends at: {self.end}"


@dataclass(frozen=True, slots=True)
class LostChain:
    """Clusters that are allocated and belong to no file or directory."""

    offset: int
    """First byte of the first cluster, from the start of the decoded disk."""
    clusters: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What one copy of the FAT says otherwise than the first."""

    number: int
    """Of the copy, from 1: the second one is 2."""
    offset: int
    """The first byte that differs, in that copy, from the start of the decoded disk."""
    bytes: int
    """Number of bytes that differ."""


@dataclass(frozen=True, slots=True)
class FreeSummary:
    """What FAT32's FSInfo sector says."""

    offset: int
    """The sector, from the start of the decoded disk."""
    is_valid: bool
    """Whether its signatures are right."""
    free_clusters: int | None
    """Free clusters; None where it does not know."""


@dataclass(frozen=True, slots=True)
class FatFigures:
    """What was counted in one FAT volume. Clusters are those of data, without the two that are none."""

    cluster_size: int
    """Bytes."""
    clusters: int
    """Data clusters."""
    used_clusters: int
    """Those that a file or directory has."""
    free_clusters: int
    bad_clusters: int
    """Those marked bad."""
    lost_clusters: int
    """Those that are allocated and no file or directory has."""
    lost_chains: int
    """Chains that these make."""
    lost: tuple[LostChain, ...]
    """The first of them, by place."""
    cross_links: tuple[CrossLink, ...]
    long_chains: tuple[WrongChain, ...]
    """Those that are longer than their file, in the order of the tree."""
    short_chains: tuple[WrongChain, ...]
    """Those that are shorter than their file or do not end with an end mark, in the order of the tree."""
    fat_copies: int
    fat_size: int
    """Bytes in each copy."""
    differences: tuple[Difference, ...]
    """The copies that differ from the first."""
    summary: FreeSummary | None
    """FAT32's FSInfo; None where there is none."""

    @property
    def summary_agrees(self) -> bool:
        """Whether FSInfo says nothing else than the table; True where it does not know."""
        known = None if self.summary is None else self.summary.free_clusters
        return (self.summary is None or self.summary.is_valid) and known in (None, self.free_clusters)


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
