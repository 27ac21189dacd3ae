"""A disk's partition table, as every scheme offers it, and what stands in the place of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from vmvisor_image.errors import Problem
from vmvisor_image.record import Record
from vmvisor_image.schemas.mbr import SECTOR
from vmvisor_image.streams.source import ReadAt

Scheme = Literal["mbr", "gpt", "none"]
CopyName = Literal["primary", "backup"]


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One partition as its table describes it."""

    number: int
    """As fdisk and sfdisk number it."""
    type_key: int | UUID | None
    """MBR type code or GPT type; None for a volume without a partition table."""
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
    sector_size: int = SECTOR
    """Bytes in a sector of its table."""
    name: str | None = None
    """Name in the table; GPT only."""
    guid: UUID | None = None
    """This partition's own identifier; GPT only."""
    attributes: int = 0
    """Attribute bits; GPT only."""
    record: Record | None = None
    """Its entry as it is on disk."""


@dataclass(frozen=True, slots=True)
class GptCheck:
    """The two CRCs of one copy of a GUID partition table."""

    which: CopyName
    offset: int
    """Its header, in bytes from the start of the decoded disk."""
    header_crc: int | None
    """As the header says; None where there is none."""
    header_crc_found: int | None
    """Of the header as it is; None where its size makes no sense."""
    entries_crc: int | None
    """As the header says."""
    entries_crc_found: int | None
    """Of the entries as they are; None where they can't be read."""

    @property
    def is_sound(self) -> bool:
        """Whether both are right."""
        known = None not in (self.header_crc, self.entries_crc)
        return known and (self.header_crc, self.entries_crc) == (self.header_crc_found, self.entries_crc_found)


class Table(Protocol):
    """A disk's partition table."""

    @property
    def scheme(self) -> Scheme:
        """Its kind."""
        ...

    @property
    def sector_size(self) -> int:
        """Bytes in a sector, in which the table counts."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """The structures of the table itself, by their names, as they are on disk."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What is to be told of the table itself that is nothing wrong, by name, in words."""
        ...

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """Offset and bytes of each structure of the table itself that was found so far."""
        ...

    def entries(self) -> Iterator[TableEntry]:
        """The partitions, in the order in which they can be found by reading the disk from its start.

        Nothing is read before it is needed, so that a caller who stops early costs a compressed image little.
        """
        ...

    def check(self, disk_size: int) -> Iterator[Problem]:
        """What can be found wrong only by reading to the disk's end, which is at byte `disk_size`."""
        ...

    def check_copies(self) -> tuple[GptCheck, ...]:
        """The check sums of each copy of the table, the primary one first; none for a table without any."""
        ...


class Unchecked:
    """A table without check sums and without a second copy."""

    def check_copies(self) -> tuple[GptCheck, ...]:
        """None."""
        return ()


class WholeDisk(Unchecked):
    """A disk without a partition table that is one volume from its first byte on."""

    scheme: Scheme = "none"
    sector_size = SECTOR
    problems: tuple[Problem, ...] = ()
    areas: tuple[tuple[int, int], ...] = ()

    def __init__(self, disk: ReadAt) -> None:
        self._disk = disk
        self.records: Mapping[str, Record] = {}
        self.facts: Mapping[str, str] = {}

    def entries(self) -> Iterator[TableEntry]:
        """The one volume, numbered 1."""
        yield TableEntry(1, None, 0, self._disk.size, active=False, source_offset=0)

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """Nothing."""
        return iter(())


class NoTable(Unchecked):
    """A disk whose first sector is neither a partition table nor a volume."""

    scheme: Scheme = "none"
    sector_size = SECTOR
    areas: tuple[tuple[int, int], ...] = ()

    def __init__(self, message: str, further: tuple[Problem, ...] = ()) -> None:
        self.problems = (Problem("partition table", message, 0), *further)
        self.records: Mapping[str, Record] = {}
        self.facts: Mapping[str, str] = {}

    def entries(self) -> Iterator[TableEntry]:
        """None."""
        return iter(())

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """Nothing."""
        return iter(())
