"""The interface of a disk's partition table, and its stand-ins for a disk without one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from uuid import UUID

from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.record import Record
from vmvisor_image.schemas.mbr import SECTOR
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.role import Evidence

Scheme = Literal["mbr", "gpt", "none"]
CopyName = Literal["primary", "backup"]
Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Reasons for a partition that a search found."""

    confidence: Confidence
    """Confidence in it.

    "high" where the volume opens without a problem, and its own header gives a size that fits on the disk; "medium"
    where its files can be reached, or only the size fits; "low" for a magic alone, or for a size that passes the disk's
    end. Of a partition in a backup GPT: "high" where a volume also begins there, "medium" where none does, "low" where
    the table is damaged.
    """
    evidence: tuple[Evidence, ...]
    """Findings on the disk, with their offsets."""
    inside: int | None
    """First byte, from the start of the decoded disk, of the partition that holds all of it, such as one with a disk
    image in a file, or of an earlier one of unknown size that may hold it; None for a partition of the disk itself."""
    size_is_known: bool
    """Whether a header or a table gives the size; otherwise the partition is taken to reach to the disk's end."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One partition as its table describes it."""

    number: int
    """Number of the partition, as in fdisk and sfdisk; its first byte for one that a search found."""
    type_key: int | UUID | None
    """MBR type code or GPT type; None for a volume without a partition table."""
    start: int
    """First byte, from the start of the decoded disk."""
    size: int
    """Size in bytes."""
    active: bool
    """Whether it is marked for the BIOS to boot."""
    source_offset: int
    """Bytes from the start of the decoded disk to its entry."""
    is_container: bool = False
    """Whether it is an extended partition, whose content is other partitions."""
    sector_size: int = SECTOR
    """Bytes in a sector of its table."""
    name: str | None = None
    """Name in the table; GPT only."""
    guid: UUID | None = None
    """Unique identifier of the partition; GPT only."""
    attributes: int = 0
    """Attribute bits; GPT only."""
    record: Record | None = None
    """Entry as it is on disk."""
    finding: Finding | None = None
    """Reasons for a partition that a search found; None for one of the disk's own table."""


@dataclass(frozen=True, slots=True)
class GptCheck:
    """The two CRCs of one copy of a GUID partition table."""

    which: CopyName
    offset: int
    """Bytes from the start of the decoded disk to its header."""
    header_crc: int | None
    """CRC of the header, as the header says; None where there is no header."""
    header_crc_found: int | None
    """CRC of the header, computed; None where its size is not valid."""
    entries_crc: int | None
    """CRC of the entries, as the header says; None where there is no header."""
    entries_crc_found: int | None
    """CRC of the entries, computed; None where they can't be read."""

    @property
    def is_sound(self) -> bool:
        """Whether both CRCs are right."""
        known = None not in (self.header_crc, self.entries_crc)
        return known and (self.header_crc, self.entries_crc) == (self.header_crc_found, self.entries_crc_found)


class Table(Protocol):
    """A disk's partition table."""

    @property
    def scheme(self) -> Scheme:
        """Kind of the table."""
        ...

    @property
    def sector_size(self) -> int:
        """Bytes in a sector, the unit in which the table counts."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """The structures of the table itself, by their names, as they are on disk."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """Remarks on the table itself that are not problems, in words, by name."""
        ...

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """Offset and bytes of each structure of the table itself that was found so far."""
        ...

    def entries(self) -> Iterator[TableEntry]:
        """The partitions, in the order in which they can be found by reading the disk from its start.

        Nothing is read before it is needed, so that of a compressed image little is decoded where a caller stops early.
        """
        ...

    def check(self, disk_size: int) -> Iterator[Problem]:
        """Problems that are found only by reading to the disk's end, which is at byte `disk_size`."""
        ...

    def check_copies(self) -> tuple[GptCheck, ...]:
        """The checksums of each copy of the table, the primary one first; empty for a table without checksums."""
        ...


class Unchecked:
    """A table without checksums and without a second copy."""

    def check_copies(self) -> tuple[GptCheck, ...]:
        """An empty tuple."""
        return ()


class WholeDisk(Unchecked):
    """A disk without a partition table, which is one volume from its first byte on."""

    scheme: Scheme = "none"
    sector_size = SECTOR
    problems: tuple[Problem, ...] = ()
    areas: tuple[tuple[int, int], ...] = ()

    def __init__(self, disk: ReadAt) -> None:
        self._disk = disk
        self.records: Mapping[str, Record] = {}
        self.facts: Mapping[str, str] = {}

    def entries(self) -> Iterator[TableEntry]:
        """The volume, with number 1."""
        yield TableEntry(1, None, 0, self._disk.size, active=False, source_offset=0)

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """No problems."""
        return iter(())


STRUCTURE: Final = "partition table"
"""Structure of the problem that a disk is none."""


_LOST: Final = "it can't be read, as the start of the disk is damaged"


def is_lost(problems: Iterable[Problem]) -> bool:
    """Whether a disk's problems say that nobody knows whether it has a partition table."""
    return any(problem.structure == STRUCTURE and problem.message.startswith(_LOST) for problem in problems)


class UnreadableTable(Unchecked):
    """A disk whose first sector can't be read, so that nobody knows what partitions it has."""

    scheme: Scheme = "none"
    sector_size = SECTOR
    areas: tuple[tuple[int, int], ...] = ()

    def __init__(self, cause: CorruptImage) -> None:
        """A table for the error of reading the first sector."""
        kind = TruncatedImage if isinstance(cause, TruncatedImage) else CorruptImage
        self.error = kind(f"{_LOST}: {cause}", structure=STRUCTURE, offset=0)
        """Error of every use of the partitions."""
        self.problems = (Problem.of(self.error),)
        self.records: Mapping[str, Record] = {}
        self.facts: Mapping[str, str] = {}

    def entries(self) -> Iterator[TableEntry]:
        """No partitions, but an error at the first one.

        Raises:
            CorruptImage: Always.
        """
        yield from ()
        raise copy.copy(self.error)

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """No further problems."""
        return iter(())


class NoTable(Unchecked):
    """A disk whose first sector is neither a partition table nor a volume."""

    scheme: Scheme = "none"
    sector_size = SECTOR
    areas: tuple[tuple[int, int], ...] = ()

    def __init__(self, message: str, further: tuple[Problem, ...] = ()) -> None:
        self.problems = (Problem(STRUCTURE, message, 0), *further)
        self.records: Mapping[str, Record] = {}
        self.facts: Mapping[str, str] = {}

    def entries(self) -> Iterator[TableEntry]:
        """No partitions."""
        return iter(())

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """No problems."""
        return iter(())
