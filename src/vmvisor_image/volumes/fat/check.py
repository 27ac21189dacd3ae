"""Comparison of a FAT volume's allocation table with its files and directories: the figures of `verify`.

Everything is counted in one pass over the table: each cluster belongs to the first chain that reaches it, and a chain
that reaches a cluster of another chain joins it there.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.errors import Problem
from vmvisor_image.volumes.fat.chains import FIRST_CLUSTER
from vmvisor_image.volumes.figures import CrossLink, FatFigures, LostChain, WrongChain

MOST_CLUSTERS: Final = 1 << 24
"""Most clusters of a volume that is checked, for up to 14 bytes of memory each. FAT16 has at most 65,524."""
MOST_LISTED: Final = 1000
"""Most chains of each kind that are listed; all are counted."""
_DIFFERENCE_CHUNK: Final = 4096


@dataclass(frozen=True, slots=True)
class ChainStart:
    """Start of the chain of a file or directory."""

    path: str
    """POSIX path from the volume's root; empty for the root directory."""
    first_cluster: int
    """First cluster as in its directory entry; 0 for none."""
    needed: int | None
    """Clusters that its size takes; None for a directory, whose size is that of its chain."""
    offset: int
    """Bytes from the start of the decoded disk to its directory entry."""


class ClusterMap:
    """Owners of all clusters: the chain that each belongs to."""

    def __init__(self, table: array[int], bad: int, data_offset: int, cluster_size: int) -> None:
        """A map by the entries of all clusters, including numbers 0 and 1.

        Args:
            table: Entries, by number of the cluster.
            bad: Entry of a cluster that is marked bad; larger entries are end marks.
            data_offset: First byte of cluster 2, from the start of the decoded disk.
            cluster_size: Bytes in a cluster.
        """
        self._table, self._bad = table, bad
        self._data, self._size = data_offset, cluster_size
        self._owner = array("I", bytes(4 * len(table)))
        """Number of each cluster's chain, from 1; 0 for none."""
        self._position = array("I", bytes(4 * len(table)))
        """Position of each cluster in its chain, from 0."""
        self._lengths = [0]
        """Clusters in each chain to its end, including those of another one that it joined."""
        self._ends = [""]
        self._starts: list[ChainStart] = []
        self.cross_links: list[CrossLink] = []
        self.wrong: list[WrongChain] = []

    def add(self, start: ChainStart) -> None:
        """Follow the chain of a file or directory."""
        check_deadline()
        self._starts.append(start)
        own, length, end, joined = 0, 0, "end mark", 0
        if start.first_cluster or start.needed:
            own, length, end, joined = self._follow(start.first_cluster, len(self._starts))
        self._lengths.append(length)
        self._ends.append(end)
        if joined:
            other = self._starts[self._owner[joined] - 1].path
            self.cross_links.append(CrossLink(start.path, other, self._offset(joined), length - own))
        if end != "end mark" or (start.needed is not None and length != start.needed):
            self.wrong.append(WrongChain(start.path, start.offset, length, start.needed, end))

    def _follow(self, cluster: int, number: int) -> tuple[int, int, str, int]:
        """Own clusters of a chain, all its clusters, its end as in `WrongChain.end`, and the joined cluster, or 0.

        Every cluster is visited once for all chains, so that many chains that join each other take no longer than one.
        """
        count = 0
        table, owner, position = self._table, self._owner, self._position
        while FIRST_CLUSTER <= cluster < len(table):
            known = owner[cluster]
            if known == number:
                return count, count, "loop", 0
            if known:
                return count, count + self._lengths[known] - position[cluster], self._ends[known], cluster
            following = table[cluster]
            if following in (0, self._bad):  # the cluster itself is free, or bad
                return count, count, "bad cluster" if following else "free cluster", 0
            owner[cluster], position[cluster] = number, count
            count += 1
            cluster = following
        return count, count, "end mark" if count and cluster > self._bad else "no such cluster", 0

    def lost(self) -> tuple[int, tuple[LostChain, ...]]:
        """Number of lost chains, and the first of them by place."""
        table, owner, bad = self._table, self._owner, self._bad
        followed = bytearray(len(table))  # clusters that a lost one leads to
        taken = bytearray(len(table))
        for cluster in self._lost_clusters(taken):
            if FIRST_CLUSTER <= table[cluster] < len(table):
                followed[table[cluster]] = 1
        count, listed = 0, []
        # The heads, which no lost cluster leads to, come first; the remaining clusters are in loops.
        for not_first in (followed, taken):
            room = MOST_LISTED
            for first in self._lost_clusters(taken):
                if not_first[first]:
                    continue
                length, cluster = 0, first
                while FIRST_CLUSTER <= cluster < len(table) and not (taken[cluster] or owner[cluster]):
                    if table[cluster] in (0, bad):
                        break
                    taken[cluster] = 1
                    length, cluster = length + 1, table[cluster]
                count += 1
                if room:
                    room -= 1
                    listed.append(LostChain(self._offset(first), length))
        return count, tuple(sorted(listed, key=lambda chain: chain.offset)[:MOST_LISTED])

    def _lost_clusters(self, without: bytearray) -> Iterator[int]:
        """Clusters that are allocated and belong to no chain, except for those marked in `without`."""
        table, owner, bad = self._table, self._owner, self._bad
        for cluster in range(FIRST_CLUSTER, len(table)):
            if not cluster & 0xFFFF:
                check_deadline()
            if table[cluster] and not owner[cluster] and table[cluster] != bad and not without[cluster]:
                yield cluster

    def free_runs(self) -> Iterator[tuple[int, int]]:
        """Offset on the decoded disk and bytes of each run of free clusters, by place."""
        first = None
        for cluster in range(FIRST_CLUSTER, len(self._table) + 1):
            is_free = cluster < len(self._table) and not self._table[cluster]
            if is_free and first is None:
                first = cluster
            elif not is_free and first is not None:
                yield self._offset(first), (cluster - first) * self._size
                first = None

    def count(self) -> tuple[int, int, int]:
        """Numbers of clusters that are used, free, and marked bad."""
        data = self._table[FIRST_CLUSTER:]
        return len(self._owner) - self._owner.count(0), data.count(0), data.count(self._bad)

    def _offset(self, cluster: int) -> int:
        return self._data + (cluster - FIRST_CLUSTER) * self._size


def compare(first: Iterable[bytes], second: Iterable[bytes]) -> tuple[int, int] | None:
    """Offset of the first difference of two runs of equal length, and number of differing bytes; None if equal."""
    at = count = 0
    place = None
    for one, other in zip(first, second, strict=True):
        if one != other:
            for start in range(0, len(one), _DIFFERENCE_CHUNK):
                pair = (one[start : start + _DIFFERENCE_CHUNK], other[start : start + _DIFFERENCE_CHUNK])
                if pair[0] == pair[1]:
                    continue
                differing = [index for index, (a, b) in enumerate(zip(*pair, strict=True)) if a != b]
                place = at + start + differing[0] if place is None else place
                count += len(differing)
        at += len(one)
    return None if place is None else (place, count)


def problems_of(fat: FatFigures, start: int) -> Iterator[Problem]:
    """Problems of a FAT volume at byte `start` of the disk; slack and free space are never problems."""
    for link in fat.cross_links:
        message = f"{link.path or '/'!r} shares {link.clusters} clusters with {link.other or '/'!r}"
        yield Problem("FAT cross-link", message, link.offset)
    for chain in (*fat.long_chains, *fat.short_chains):
        yield Problem("FAT cluster chain", str(chain), chain.offset)
    if fat.lost_clusters:
        message = f"{fat.lost_clusters} lost clusters in {fat.lost_chains} chains"
        yield Problem("FAT", message, fat.lost[0].offset if fat.lost else start)
    for difference in fat.differences:
        message = f"copy {difference.number} differs from the first one in {difference.bytes} bytes"
        yield Problem("FAT", message, difference.offset)
    if fat.summary is not None and not fat.summary_agrees:
        known = fat.summary.free_clusters
        message = f"it says that {known} clusters are free, the table {fat.free_clusters}"
        yield Problem("FAT FSInfo", message if fat.summary.is_valid else "its signatures are wrong", fat.summary.offset)
