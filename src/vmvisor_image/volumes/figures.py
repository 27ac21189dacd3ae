"""Figures from the check of a volume, as in a report of `verify`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CrossLink:
    """Two chains that share their clusters from some point on."""

    path: str
    """Path of the file or directory whose chain joins the other one's."""
    other: str
    """Path of the one that counts as the owner: directories before files, then in the order of the tree."""
    offset: int
    """Bytes from the start of the decoded disk to the first cluster that both have."""
    clusters: int
    """Clusters from there to the end of the chain."""


@dataclass(frozen=True, slots=True)
class WrongChain:
    """A chain that is not as long as its file, or that does not end with an end mark."""

    path: str
    offset: int
    """Bytes from the start of the decoded disk to the directory entry."""
    clusters: int
    """Clusters in the chain."""
    needed: int | None
    """Clusters that the file's size takes; None for a directory."""
    end: str
    """End of the chain: "end mark", "free cluster", "bad cluster", "no such cluster" or "loop"."""

    @property
    def is_long(self) -> bool:
        """Whether it is sound except for clusters after the file's end."""
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
    """Bytes from the start of the decoded disk to the first cluster."""
    clusters: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Differences of one copy of the FAT from the first."""

    number: int
    """Number of the copy, from 1: the second one is 2."""
    offset: int
    """Bytes from the start of the decoded disk to the first byte that differs, in that copy."""
    bytes: int
    """Number of bytes that differ."""


@dataclass(frozen=True, slots=True)
class FreeSummary:
    """Content of FAT32's FSInfo sector."""

    offset: int
    """Bytes from the start of the decoded disk to the sector."""
    is_valid: bool
    """Whether its signatures are right."""
    free_clusters: int | None
    """Number of free clusters; None where the sector leaves it open."""


@dataclass(frozen=True, slots=True)
class FatFigures:
    """Counts of one FAT volume. Clusters are data clusters, without the two reserved numbers 0 and 1."""

    cluster_size: int
    """Bytes in a cluster."""
    clusters: int
    """Number of data clusters."""
    used_clusters: int
    """Clusters of files and directories."""
    free_clusters: int
    bad_clusters: int
    """Clusters marked bad."""
    lost_clusters: int
    """Clusters that are allocated and belong to no file or directory."""
    lost_chains: int
    """Number of chains that the lost clusters form."""
    lost: tuple[LostChain, ...]
    """The first of the lost chains, by place."""
    cross_links: tuple[CrossLink, ...]
    long_chains: tuple[WrongChain, ...]
    """Chains that are longer than their file, in the order of the tree."""
    short_chains: tuple[WrongChain, ...]
    """Chains that are shorter than their file or do not end with an end mark, in the order of the tree."""
    fat_copies: int
    fat_size: int
    """Bytes in each copy."""
    differences: tuple[Difference, ...]
    """Copies that differ from the first."""
    summary: FreeSummary | None
    """Content of FAT32's FSInfo; None without one."""

    @property
    def summary_agrees(self) -> bool:
        """Whether FSInfo does not contradict the table; True where it leaves the number open."""
        known = None if self.summary is None else self.summary.free_clusters
        return (self.summary is None or self.summary.is_valid) and known in (None, self.free_clusters)


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A file that a host held when the image was made."""

    path: str
    """POSIX path from the volume's root."""
    mode: int
    """Lock mode: 1 exclusive, 2 read-only, 3 several writers."""
    owner: str
    """UUID of the host."""


@dataclass(frozen=True, slots=True)
class ActiveHeartbeat:
    """A host that used the volume when the image was made."""

    uuid: str
    address: str | None
    """IP address of the host; None where it is not given."""
    offset: int
    """Bytes from the start of the decoded disk to its heartbeat."""


@dataclass(frozen=True, slots=True)
class VmfsFigures:
    """Counts of one VMFS volume."""

    block_size: int
    """Bytes in a file block."""
    blocks: int | None
    """File blocks in the bitmap and in the volume; None for VMFS 6 and VMFS-L, whose bitmap is not read."""
    used: int | None
    """Blocks that are marked used."""
    reached: int
    """Blocks of files, directories and the file system's own files."""
    lost: int | None
    """Blocks that are marked used and belong to nothing."""
    reached_free: int | None
    """Blocks that belong to a file or directory and are marked free."""
    locks: tuple[HeldLock, ...]
    """Held locks, by path."""
    hosts: tuple[ActiveHeartbeat, ...]
    """Active heartbeats, by slot."""
