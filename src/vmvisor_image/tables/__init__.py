"""Partition tables: one module each, which finds the partitions of a disk without reading their content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from vmvisor_image.errors import Problem
from vmvisor_image.schemas.mbr import SECTOR
from vmvisor_image.streams import ReadAt, read_up_to

Scheme = Literal["mbr", "gpt", "none"]


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One partition as its table describes it."""

    number: int
    """As fdisk and sfdisk number it."""
    type_code: int
    """MBR type code."""
    start: int
    """First byte, from the start of the decoded disk."""
    size: int
    """Bytes."""
    active: bool
    """Marked for the BIOS to boot."""
    source_offset: int
    """Where its entry lies, in bytes from the start of the decoded disk."""
    is_container: bool = False
    """An extended partition: what it holds are other partitions."""


class Table(Protocol):
    """A disk's partition table."""

    @property
    def scheme(self) -> Scheme:
        """Its kind."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        ...

    def entries(self) -> Iterator[TableEntry]:
        """The partitions, in the order in which they can be found by reading the disk from its start.

        Nothing is read before it is needed, so that a caller who stops early costs a compressed image little.
        """
        ...


class WholeDisk:
    """A disk without a partition table that is one volume from its first byte on."""

    scheme: Scheme = "none"
    problems: tuple[Problem, ...] = ()

    def __init__(self, disk: ReadAt) -> None:
        self._disk = disk

    def entries(self) -> Iterator[TableEntry]:
        """The one volume, numbered 1."""
        yield TableEntry(1, 0, 0, self._disk.size, active=False, source_offset=0)


class NoTable:
    """A disk whose first sector is neither a partition table nor a volume."""

    scheme: Scheme = "none"

    def __init__(self, message: str) -> None:
        self.problems = (Problem("partition table", message, 0),)

    def entries(self) -> Iterator[TableEntry]:
        """None."""
        return iter(())


def find_table(disk: ReadAt) -> Table:
    """The partition table of `disk`; reads its first sector only."""
    from vmvisor_image.tables import mbr
    from vmvisor_image.volumes import fat

    sector = read_up_to(disk, 0, SECTOR)
    if len(sector) < SECTOR:
        return NoTable(f"the disk has {len(sector)} bytes, less than one sector")
    # A FAT boot sector ends in 55 AA too; mkfs.fat even puts a table with one entry from sector 0 into it.
    if mbr.is_plausible(sector):
        return mbr.MbrTable(disk, sector)
    if fat.is_boot_sector(sector):
        return WholeDisk(disk)
    if mbr.is_empty(sector):
        return mbr.MbrTable(disk, sector)
    return NoTable("sector 0 holds neither a partition table nor a FAT boot sector")
