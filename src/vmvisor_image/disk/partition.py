"""Partitions: their place, their purpose and their content."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol
from uuid import UUID

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.shown import Shown
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.explanation import GENERATION_NOTES, PURPOSES, Explanation, next_steps
from vmvisor_image.disk.purpose import Generation, Layout, Purpose, assess
from vmvisor_image.disk.tables.table import Finding, Scheme, TableEntry
from vmvisor_image.errors import CorruptImage, NotAFileSystem, Problem, ProblemList
from vmvisor_image.examine.hexdump import Hexdump, hexdump
from vmvisor_image.examine.signatures import Match
from vmvisor_image.examine.survey import Survey, find_strings, survey
from vmvisor_image.files.file import Extent
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.schemas.partition_types import PartitionType, partition_type
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.reading import find_data
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import Slice
from vmvisor_image.volumes.copies import HeaderCopy, find_copy
from vmvisor_image.volumes.find import open_volume
from vmvisor_image.volumes.guests.kinds import advice
from vmvisor_image.volumes.magics import match_signature
from vmvisor_image.volumes.plugins import open_plugin_volume
from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.volume import Volume, complete, has_files

_WHOLE_DISK = PartitionType(None, None, "whole disk")
_FOUND = PartitionType(None, None, "found by search")


class Surroundings(Protocol):
    """All partitions of a disk, which together say what each is for."""

    @property
    def banks(self) -> tuple[BootBank, ...]:
        """The boot banks, by partition number."""
        ...

    @property
    def layout(self) -> Layout | None:
        """The generation's layout that the table has exactly; None where it has none."""
        ...

    @property
    def generation(self) -> Generation | None:
        """Generation of the hypervisor that the disk is from; None where nothing says so."""
        ...

    def identify(self) -> tuple[Generation | None, tuple[Evidence, ...]]:
        """`generation`, and the evidence for it."""
        ...


class PartitionOwner(Protocol):
    """Properties of its image that a partition needs; keeping only the image makes a pickled handle small."""

    @property
    def disk(self) -> Source:
        """The decoded disk."""
        ...

    @property
    def meter(self) -> Meter:
        """Counter of the decoded bytes, with the limits."""
        ...

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files that the image is read from."""
        ...

    @property
    def partitions(self) -> Surroundings:
        """All partitions of the disk."""
        ...


class Partition(Shown, Source):
    """One partition of a disk image; its content is read when it is first needed."""

    def __init__(self, owner: PartitionOwner, entry: TableEntry, scheme: Scheme) -> None:
        """Made by `PartitionTable`."""
        self._owner = owner
        self._entry = entry
        self._scheme: Scheme = scheme
        self._lock = ForkSafeLock()
        self._opened = False
        self._volume: Volume | None = None
        self._copy: HeaderCopy | None = None
        self._problems = ProblemList(f"partition {self.key}")
        self._content: tuple[Match | None, bool] | None = None
        self._assessed: Purpose | None = None

    @property
    def number(self) -> int:
        """Number of the partition, as in fdisk and sfdisk.

        1 for a volume without a partition table. One that was found, by `PartitionTable.search` or by its place, has
        its first byte for its number, so that no number of a lost table means another partition.
        """
        return self._entry.number

    @property
    def key(self) -> str:
        """Name that commands take: its number; ``@`` and its first byte where it was found, see `PartitionTable.at`."""
        return str(self.number) if self.finding is None else place_name(self.start)

    @property
    def start(self) -> int:
        """First byte, from the start of the decoded disk."""
        return self._entry.start

    @property
    def size(self) -> int:
        """Size in bytes, as the partition table says."""
        return self._entry.size

    @property
    def first_lba(self) -> int:
        """First sector, in sectors of `sector_size` bytes from the start of the decoded disk."""
        return self._entry.start // self.sector_size

    @property
    def sectors(self) -> int:
        """Number of sectors of `sector_size` bytes."""
        return self._entry.size // self.sector_size

    @property
    def sector_size(self) -> int:
        """Bytes in a sector, as the partition table counts them: 512 or 4096."""
        return self._entry.sector_size

    @property
    def name(self) -> str | None:
        """Name in the partition table; None without one, as always in an MBR."""
        return self._entry.name

    @property
    def guid(self) -> UUID | None:
        """Unique identifier of the partition; GPT only."""
        return self._entry.guid

    @property
    def attributes(self) -> int:
        """Attribute bits; GPT only."""
        return self._entry.attributes

    @property
    def entry_offset(self) -> int | None:
        """Bytes from the start of the decoded disk to its entry in the partition table; None without a table."""
        return None if self._scheme == "none" else self._entry.source_offset

    @property
    def finding(self) -> Finding | None:
        """Confidence and evidence of a partition that `PartitionTable.search` found; None for any other."""
        return self._entry.finding

    @property
    def active(self) -> bool:
        """Whether it is marked for the BIOS to boot."""
        return self._entry.active

    @property
    def is_container(self) -> bool:
        """Whether it is an extended partition, whose content is the logical partitions."""
        return self._entry.is_container

    @property
    def type(self) -> PartitionType:
        """Type in the partition table."""
        key = self._entry.type_key
        if key is None:
            return _WHOLE_DISK if self.finding is None else _FOUND
        return partition_type(key)

    @property
    def label(self) -> str | None:
        """Label of the volume, or else the name in a GPT; None where there is neither or it can't be read."""
        volume = self.volume
        try:
            label = None if volume is None else volume.label
        except CorruptImage as error:
            self._report(error)
            label = None
        return label or self.name

    @property
    def volume(self) -> Volume | None:
        """Volume in the partition, if this library reads its headers; None for any other content."""
        return self._open_volume()

    @property
    def header_copy(self) -> HeaderCopy | None:
        """Copy of the header of its volume, which is used since the header is lost; None where it is not."""
        self._open_volume()
        return self._copy

    @property
    def kind(self) -> str:
        """Kind of the content.

        "fat12", "fat16", "fat32", "vmfs3", "vmfs5", "vmfs6", "vmfs-l", "vmkcore" (by its type, as its content is
        opaque), "extended"; content that is known by its magic alone has the name that blkid gives it, such as "ext4"
        or "swap"; "empty" is all zeros, "unknown" anything else. To distinguish these two, it is read to its first
        byte that is not zero, except for ranges that a sparse file or a bzip2 index knows to be zero.
        """
        if self.is_container:
            return "extended"
        volume = self.volume
        if volume is not None:
            return volume.kind
        match, is_empty = self._recognised()
        return match.kind if match is not None else "empty" if is_empty else "unknown"

    @property
    def role(self) -> Role:
        """Purpose of the partition; never from its place alone. See `evidence` for the reasons.

        Which bank is `Role.BOOTBANK` and which `Role.ALT_BOOTBANK` is decided as the boot loader does, by reading the
        ``boot.cfg`` of each.
        """
        return self._purpose().role

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Statements of the disk about its content and its purpose."""
        found = self._purpose().evidence
        if self.finding is not None:
            found = tuple(dict.fromkeys((*self.finding.evidence, *found)))
        match, is_empty = (None, False) if self.volume is not None or self.is_container else self._recognised()
        if match is not None:
            found += (Evidence(match.statement(), self.start + match.offset),)
        elif is_empty:
            found += (Evidence("it is all zeros", self.start),)
        return found

    @property
    def records(self) -> Mapping[str, Record]:
        """Entry in the partition table and headers of the volume, by their names, as they are on disk."""
        entry = {} if self._entry.record is None else {"partition entry": self._entry.record}
        return entry if self.volume is None else {**entry, **self.volume.records}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found in it so far; opens its volume."""
        self._open_volume()
        return self.known_problems

    @property
    def known_problems(self) -> tuple[Problem, ...]:
        """Damage found in it so far; reads nothing."""
        return self._problems.found + (() if self._volume is None else self._volume.problems)

    @property
    def files(self) -> FileTree:
        """Files of its volume.

        Raises:
            NotAFileSystem: It holds no file system that this library can open.
            CorruptImage: The file system is damaged.
        """
        volume = self.volume
        if has_files(volume):
            files = volume.files
            files.limits = self.meter.limits
            return files
        reason = "".join(f"; {problem}" for problem in self._problems.found[:1])
        kind, match = self.kind, None if volume is not None or self.is_container else self._recognised()[0]
        found = "" if match is None or kind.casefold() in match.name.casefold() else f": {match.name}"
        what = f"partition {self.key} ({kind}{found}) holds no file system that can be read{reason}"
        raise NotAFileSystem(f"{what}{advice(kind)}")

    @property
    def disk(self) -> Source:
        """Decoded disk that contains it."""
        return self._owner.disk

    @property
    def meter(self) -> Meter:
        """Counter of the bytes decoded of its image."""
        return self._owner.meter

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files that its image is read from."""
        return self._owner.local_paths

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """Extents of a file of its volume; for `File`."""
        volume = self.volume
        if not has_files(volume):
            raise NotAFileSystem(f"partition {self.key} holds no file system any more")
        return volume.locate(token)

    def open_content(self, token: Any) -> ReadAt | None:
        """Content of a file of its volume that its extents alone don't give, for `File`; None if the extents do."""
        opener = getattr(self.volume, "open_content", None)
        content: ReadAt | None = None if opener is None else opener(token)
        return content

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `offset` of the partition.

        Raises:
            TruncatedImage: The range passes the partition's end, or the image ends before it.
            CorruptImage: The image is damaged there.
        """
        return self._source.read_at(offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        """See `vmvisor_image.streams.source.Source.prefetch`."""
        self._source.prefetch(offset, length)

    def open(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the partition."""
        return open_stream(self)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from byte `offset` of the partition; fewer only at its end.

        Raises:
            CorruptImage: The image is damaged there.
        """
        return self._source.read_up_to(offset, length)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.source.Source.skip_zeros`."""
        return self._source.skip_zeros(offset, end)

    def survey(self, *, blocks: int = 256, sample: int | None = 4096, exact: bool = True) -> Survey:
        """Entropy by block and the amount of zeros; see `vmvisor_image.examine.survey.survey`."""
        return survey(self._source, blocks=blocks, sample=sample, exact=exact)

    def strings(self, *, minimum: int = 6) -> Iterator[tuple[int, str]]:
        """Printable strings and their offsets in the partition; see `vmvisor_image.examine.survey.find_strings`."""
        return find_strings(self._source, minimum=minimum)

    def hexdump(self, offset: int = 0, length: int = 512) -> Hexdump:
        """Hexdump of at most `length` bytes from byte `offset` of the partition, with its records marked."""
        return hexdump(self, offset, length, records=self.records, base=self.start)

    def explain(self) -> str:
        """A paragraph on its content, its purpose, the evidence for both, and what can be done with it.

        Offsets are bytes from the disk's start. Control characters from the disk are shown by their codes.
        """
        return str(self.explained)

    @property
    def explained(self) -> Explanation:
        """Content, purpose, the evidence for both, and what can be done with it; its text is that of `explain`."""
        purpose = self._purpose()
        generation, generation_evidence = self._owner.partitions.identify()
        place = f"bytes {self.start:#x} to {self.start + self.size:#x} (exclusive), {self.size / (1 << 20):.1f} MiB"
        what = [PURPOSES[purpose.role], *self._describe_generation(purpose.role, generation)]
        what += self._describe_content()
        evidence = list(self.evidence)
        if self._scheme == "none" and self.finding is None:
            evidence.insert(0, Evidence("there is no partition table: the volume starts at byte 0", None))
        told = {item.offset for item in evidence}
        evidence += [item for item in generation_evidence if item.offset is None or item.offset not in told]
        return Explanation(
            f"Partition {self.key}: {place}",
            tuple(filter(None, what)),
            tuple(dict.fromkeys(evidence)),
            self.problems,
            next_steps(self.key, purpose.role, has_files=has_files(self.volume), boots=self._boots(purpose.role)),
        )

    def _boots(self, role: Role) -> bool:
        """Whether a boot bank has anything to load; a bank of ESX 3i 3.5 may have no ``boot.cfg``."""
        if role not in (Role.BOOTBANK, Role.ALT_BOOTBANK):
            return True
        for bank in self._owner.partitions.banks:
            if bank.number == self.number:
                return bank.configuration.kernel is not None
        return has_files(self.volume) and next(self.volume.files.root.iterdir(), None) is not None

    def _describe_generation(self, role: Role, generation: Generation | None) -> list[str]:
        """Sentences on the table's layout and the generation by other evidence, without notes that the type refutes."""
        table = self._owner.partitions.layout
        layout = None if table is None else table.generation
        parts = [] if layout is None else [f"The disk has the layout of {layout.value}."]
        if generation is not None and generation is not layout:
            parts.append(f"It is a disk of {generation.value} by what else it says.")
            if layout is not None:
                parts.append("The two disagree.")
        told = generation if layout is None else layout
        is_old = told in (Generation.ESX_3I, Generation.ESXI_4)
        if told is not None and not (is_old and self.type.code is None):  # their notes speak of types of an MBR
            parts.append(GENERATION_NOTES.get((told, role), ""))
        return parts

    def _describe_content(self) -> list[str]:
        volume = self.volume
        try:
            return [] if volume is None else list(complete(volume).describe())
        except CorruptImage as error:
            self._report(error)
            return ["It can't be read whole."]

    def _purpose(self) -> Purpose:
        """Purpose, found once: the heading, the rows and the explanations of a report name the same one."""
        if self._assessed is None:
            table = self._owner.partitions
            self._assessed = assess(self, table.banks, table.generation, table.layout)
        return self._assessed

    def _recognised(self) -> tuple[Match | None, bool]:
        """Format recognised by its magic, and whether the partition is all zeros."""
        if self._content is None:
            self._open_volume()
            disk = self._owner.disk if self._copy is None else self._copy.over(self._owner.disk)
            match = match_signature(disk, self.start, self.size)
            is_empty = False
            if match is None:
                try:
                    is_empty = find_data(self._source, 0, self.size) is None
                except CorruptImage as error:
                    self._report(error)
            self._content = (match, is_empty)
        return self._content

    @property
    def _source(self) -> Slice:
        return Slice(self._owner.disk, self.start, self.size, f"partition {self.key}")

    def close(self) -> None:
        """End what its volume started, as `Image.close` does; a volume that was not opened stays so."""
        if self._volume is not None:
            complete(self._volume).close()

    def _open_volume(self) -> Volume | None:
        if not self._opened and not self.is_container:
            with self._lock:
                if not self._opened:
                    self._volume = self._open_in(self._owner.disk)
                    if self._volume is None:
                        self._open_by_copy()
                    self._opened = True
        return self._volume

    def _open_in(self, disk: ReadAt) -> Volume | None:
        volume = None
        try:
            volume = open_volume(disk, self.start, self.size, self, type_key=self._entry.type_key)
        except CorruptImage as error:
            self._report(error)
        if volume is None:
            volume, faults = open_plugin_volume(disk, self.start, self.size, self)
            for fault in faults:
                self._problems.add(fault)
        return volume

    def _open_by_copy(self) -> None:
        """Open a volume whose header is lost by its copy, which is shown in its place and never written."""
        disk = self._owner.disk
        copy = find_copy(disk, self.start, self.size, self._entry.type_key)
        if copy is not None and match_signature(disk, self.start, self.size) is None:
            self._copy = copy
            self._problems.add(copy.problem())
            self._volume = self._open_in(copy.over(disk))

    def _report(self, error: CorruptImage) -> None:
        self._problems.add(Problem.of(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Partition, (self._owner, self._entry, self._scheme))

    def __repr__(self) -> str:
        return f"<Partition {self.key} {self.type} at {self.start:#x}, {self.size} bytes>"


def place_name(start: int) -> str:
    """Name that commands take for the partition that begins at a byte of the disk."""
    return f"@{start:#x}"


def listed(partitions: Iterable[Partition]) -> str:
    """Numbers and labels of partitions, as text."""
    return ", ".join(map(named, partitions)) or "none"


def named(partition: Partition) -> str:
    """Number and label of a partition, as text."""
    return partition.key + (f" ({partition.label})" if partition.label else "")
