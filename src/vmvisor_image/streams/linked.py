"""Virtual disks that rest on each other: what one does not hold is read from its parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.streams.source import Source

MOST_LINKS: Final = 64
"""Largest number of disks in a chain, the first one included; ESXi has 32 snapshots at most (VMware KB 1025279)."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The disk that another one rests on."""

    kind: str
    """Format: "qcow2", "vmdk", "vhd", "vhdx", or "raw" for the bytes of the file as they are."""
    name: str | None
    """Name of its file, without its directory; None for a disk that was given without a name."""
    source: Source
    """The disk."""

    def tell(self, problem: Problem) -> Problem:
        """A problem of the parent, as one of the disk that rests on it; its offset is that in the parent's file."""
        return Problem(problem.structure, f"in the parent {self.name!r}: {problem.message}", problem.offset)


class Linked(Source):
    """Base of virtual disks, which may rest on another disk."""

    parent: Parent | None = None
    """Disk that holds what this one does not; None where that is zeros."""
    identity: str | None = None
    """Identifier of the content that a child records of its parent, in the format's own notation; None for none."""

    facts: Mapping[str, str] = MappingProxyType({})
    """Remarks on the file that are not problems, by name, in words; empty where there are none."""

    list_snapshots: Callable[[], tuple[str, ...]] = tuple
    """Function that gives the names of the snapshots inside the file, oldest first; by default there are none."""

    def own_ranges(self) -> Iterator[tuple[int, int]]:
        """First byte and number of bytes of each range that the disk itself says something of, in order.

        Ranges that it says are zeros are its own, too. Reads the tables and no data.

        Raises:
            CorruptImage: A table is damaged.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Link:
    """One disk of a chain."""

    kind: str
    """Format: "qcow2", "vmdk", "vhd", "vhdx", or "raw" for bytes as they are."""
    name: str | None
    """Name of its file; None for a disk without a name."""
    source: Source = field(compare=False, repr=False)
    """The disk as it is with all that it rests on."""

    @property
    def size(self) -> int:
        """Bytes of the disk at this link; a snapshot may be larger than the disk that it rests on."""
        return self.source.size

    @property
    def own_bytes(self) -> int:
        """Bytes of the disk that this link holds itself, rather than what it rests on; reads its tables, no data.

        Raises:
            CorruptImage: A table is damaged.
        """
        if not isinstance(self.source, Linked):
            return self.source.size
        return sum(length for _, length in self.source.own_ranges())

    @property
    def snapshots(self) -> tuple[str, ...]:
        """Names of the snapshots inside the file, oldest first; `Image.open` reads one given as `snapshot`."""
        return self.source.list_snapshots() if isinstance(self.source, Linked) else ()


def facts_of(source: Source) -> Iterator[tuple[str, str]]:
    """Names and words of the remarks on a virtual disk, then of those on the disks that it rests on."""
    name = ""
    while isinstance(source, Linked):
        for about, text in source.facts.items():
            yield about, f"in the parent {name!r}: {text}" if name else text
        if source.parent is None:
            return
        name, source = source.parent.name or "without a name", source.parent.source


def refuse_loop(names: tuple[str | None, ...], name: str, structure: str) -> None:
    """Refuse a parent that is in the chain above it, or would make the chain too long.

    Args:
        names: Names of the disks above it, the first one of the chain first.
        name: Name of the parent.
        structure: Structure that names the parent, for the message.

    Raises:
        CorruptImage: The parent is refused.
    """
    if name in names:
        way = " on ".join(repr(each) for each in (*names[names.index(name) :], name))
        raise CorruptImage(f"it is in a loop, {way}", structure=structure)
    if len(names) >= MOST_LINKS:
        raise CorruptImage(f"more than {MOST_LINKS} disks rest on each other", structure=structure)
