"""Search for volumes on a disk without asking its partition table: `PartitionTable.search`.

Places are examined in ascending order: the starts of partitions in the layouts of hypervisors and in a backup GPT, the
sectors where partitioning programs put the first partition, and every multiple of 1 MiB. What begins there is asked of
the registry of volumes and of the magics of other formats; nothing is listed here again. A volume whose header is lost
is found by the copy of it, which may be behind its start, and so comes later than its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.disk.partition import Partition, PartitionOwner
from vmvisor_image.disk.purpose import LAYOUTS
from vmvisor_image.disk.tables.gpt import GptTable, find_gpt
from vmvisor_image.disk.tables.table import Confidence, Finding, Scheme, TableEntry, Unchecked
from vmvisor_image.errors import CorruptImage, NotAFileSystem, Problem, ProblemList
from vmvisor_image.examine.signatures import Match
from vmvisor_image.examine.survey import entropy, looks_even
from vmvisor_image.record import Record
from vmvisor_image.schemas.mbr import SECTOR
from vmvisor_image.schemas.vmfs import FILE_SYSTEM_OFFSET, USUAL_DATA_OFFSET
from vmvisor_image.streams.reading import find_data, read_up_to, skip_zeros
from vmvisor_image.streams.source import Source
from vmvisor_image.volumes.copies import HeaderCopy, copies_at, copies_in_end, find_copy, find_end
from vmvisor_image.volumes.find import recognise
from vmvisor_image.volumes.magics import SIGNATURES, match_signature
from vmvisor_image.volumes.role import Evidence
from vmvisor_image.volumes.volume import complete

STEP: Final = 1 << 20
"""Bytes from one examined place to the next, besides the special ones."""
_USUAL_SECTORS: Final = (32, 63, 64, 128, 2048)
"""First sectors of the first partition: of ESXi 4 and dd images, DOS, ESXi 5 and later, VMFS 3, all of today."""
_REACH: Final = max(
    USUAL_DATA_OFFSET + FILE_SYSTEM_OFFSET + SECTOR,
    *(each.offset + len(each.magic) for each in SIGNATURES if each.content == "volume"),
)
"""Bytes from a volume's start to the end of the last magic that is looked for; VMFS without its first header."""
_MOST_FOUND: Final = 10_000
_MOST_PLACES: Final = 1 << 24
"""Most places that are examined, without those that are known to be zeros: 16 TiB of data."""
_SHORT_MAGIC: Final = 4
"""Shorter magics occur by chance, so the size in the header also has to make sense."""
_OF_OTHER_COPY: Final = ("master boot record", "primary GPT header", "primary GPT entries", "primary GPT")
"""Structures whose damage says nothing against a backup GPT."""
_SAMPLE: Final = 4096
_HEAD_STEP: Final = 1 << 16
_LONGEST_HEAD: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class SuspectRange:
    """A range at the disk's start that holds no partition table, and a description of its bytes."""

    offset: int
    """First byte, from the start of the decoded disk."""
    size: int
    """Bytes, a multiple of 512."""
    statement: str
    """Description of what was seen; the cause is not known."""

    def __str__(self) -> str:
        return f"bytes {self.offset:#x} to {self.offset + self.size:#x} (exclusive): {self.statement}"


class SearchTable(Unchecked):
    """The partitions that a search finds, as a partition table; see `vmvisor_image.disk.tables.table.Table`."""

    scheme: Scheme = "none"
    sector_size = SECTOR
    areas: tuple[tuple[int, int], ...] = ()

    def __init__(
        self,
        owner: PartitionOwner,
        known: Callable[[], Sequence[Partition]],
        lost: tuple[Problem, ...] = (),
        *,
        only: int | None = None,
    ) -> None:
        """Nothing is searched yet.

        Args:
            owner: The image, with the found partitions as its partitions.
            known: Function that gives the partitions of the disk's own table, which are left out.
            lost: Problems of that table, where it can't be read or has no partitions.
            only: The one place to examine, in bytes from the start of the disk; None for a search of the whole disk.
        """
        self._owner = owner
        self._known = known
        self._only = only
        self._problems = ProblemList("search for partitions")
        for problem in lost:
            self._problems.add(problem)
        self.records: Mapping[str, Record] = {}
        self.facts: Mapping[str, str] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Ranges that could not be read so far, and limits that ended the search."""
        return self._problems.found

    def check(self, disk_size: int) -> Iterator[Problem]:  # noqa: ARG002  # as `Table.check`
        """No problems."""
        return iter(())

    def entries(self) -> Iterator[TableEntry]:
        """Found partitions; the disk is read no further than to the current one, or to the copy of its header."""
        search = _Search(self._owner, self._known(), self._problems)  # begun by the first request, not here
        yield from search.run() if self._only is None else search.run_at(self._only)


class _Search:
    """One run of a search."""

    def __init__(self, owner: PartitionOwner, known: Sequence[Partition], problems: ProblemList) -> None:
        self._owner = owner
        self._disk: Source = owner.disk
        self._known = [partition for partition in known if not partition.is_container]
        self._problems = problems
        self._size = self._measure_disk()
        self._listed = self._read_backup()
        self._headers: set[int] = set()
        """Places of headers that belong to something found: VMFS without its first header fits two places."""
        self._found: list[TableEntry] = []
        self._endless: int | None = None
        """Start of the first volume that opens and whose size no header says."""
        self._recognised: set[int] = set()
        """Starts of what was recognised, so that a copy of its header says nothing new."""
        self._measured: list[tuple[int, tuple[str, int]]] = []
        """Start, and kind and own size, of everything that was recognised, also of what the disk's own table has."""

    def run(self) -> Iterator[TableEntry]:
        own = {partition.start for partition in self._known}
        for start in self._places():
            for entry in (self._looked_at(start), *map(self._looked_at_copy, copies_at(self._disk, start))):
                if entry is None or entry.start in own:
                    continue
                if len(self._found) == _MOST_FOUND:
                    self._problems.note("search for partitions", f"it ends here, after {_MOST_FOUND} findings", start)
                    return
                self._found.append(entry)
                yield entry
        for copy in copies_in_end(self._disk) if self._size else ():
            if (entry := self._looked_at_copy(copy)) is not None and entry.start not in own:
                self._found.append(entry)
                yield entry

    def run_at(self, start: int) -> Iterator[TableEntry]:
        """What begins at one place; nothing where nothing is recognised there."""
        if start >= self._size:
            return
        entry = self._examine(start)
        if entry is None:
            copy = find_copy(self._disk, start, self._size - start) or find_end(self._disk, start)
            entry = None if copy is None else self._from_copy(copy)
        if entry is not None:
            yield entry

    def _looked_at(self, start: int) -> TableEntry | None:
        try:
            return self._examine(start)
        except CorruptImage as error:
            self._problems.add(Problem.of(error))
            return None

    def _looked_at_copy(self, copy: HeaderCopy) -> TableEntry | None:
        """Volume by a copy of its header; nothing where the header itself is there, or the volume is known."""
        try:
            is_there = copy.start in self._recognised or match_signature(self._disk, copy.start) is not None
            return None if is_there else self._from_copy(copy)
        except CorruptImage as error:
            self._problems.add(Problem.of(error))
            return None

    def _from_copy(self, copy: HeaderCopy) -> TableEntry | None:
        match = match_signature(copy.over(self._disk), copy.start)
        if match is None and copy.is_fat:
            match = Match("fat", "FAT volume", 0, read_up_to(self._disk, copy.offset, 3), "volume")
        if match is None:
            return None
        self._recognised.add(copy.start)
        return self._from_content(copy.start, match, copy)

    def _measure_disk(self) -> int:
        try:
            return self._disk.size
        except CorruptImage as error:  # the end is hidden: what the table knows of is searched
            self._problems.add(Problem.of(error))
            return max((partition.start + partition.size for partition in self._known), default=0)

    def _read_backup(self) -> dict[int, tuple[TableEntry, GptTable]]:
        """Entries of a GPT by their starts, if the disk's own table is another one."""
        try:
            table, _ = find_gpt(self._disk, bytes(SECTOR))
        except CorruptImage as error:
            self._problems.add(Problem.of(error))
            return {}
        found = [] if table is None else [(entry, table) for entry in table.entries()]
        return {entry.start: (entry, table) for entry, table in found if entry.start < self._size}

    def _places(self) -> Iterator[int]:
        """Starts to examine, ascending; those before a long run of zeros are left out."""
        sectors = {*_USUAL_SECTORS}
        for layout in LAYOUTS:
            for _, starts in layout.required.values():
                sectors.update(starts)
        own = {partition.start for partition in self._known}
        special = sorted({sector * SECTOR for sector in sectors} | own | {*self._listed})
        special = [*(place for place in special if place < self._size), self._size]
        index = at = examined = 0
        while (place := min(at, special[index])) < self._size:
            check_deadline()
            if place not in self._listed:
                before = max(0, place - SECTOR)  # where a volume that ends here has the copy of its header
                near = skip_zeros(self._disk, before, self._size) - _REACH
                if near > place:  # no magic of a volume that begins here, or before there, can be anything but zeros
                    at = max(at, -(-near // STEP) * STEP)
                    while special[index] < near and special[index] not in self._listed and index < len(special) - 1:
                        index += 1
                    continue
            examined += 1
            if examined > _MOST_PLACES:
                self._problems.note("search for partitions", f"it ends here, after {_MOST_PLACES} places", place)
                return
            yield place
            if place == at:
                at += STEP
            if place == special[index]:
                index += 1

    def _examine(self, start: int) -> TableEntry | None:
        listed = self._listed.get(start)
        match = recognise(self._disk, start, is_vmfs=True)
        if match is not None and match.content != "volume":
            match = None
        if match is not None:
            self._recognised.add(start)
        if listed is not None:
            return self._from_table(*listed, match)
        if match is not None:
            return self._from_content(start, match)
        copy = find_copy(self._disk, start, self._size - start, None if start % STEP else 0)
        return None if copy is None else self._from_copy(copy)

    def _from_table(self, entry: TableEntry, table: GptTable, match: Match | None) -> TableEntry:
        which = "backup" if table.header.my_lba > 1 else "primary"
        evidence = [Evidence(f"entry {entry.number} of the {which} GPT", entry.source_offset)]
        is_sound = all(problem.structure in _OF_OTHER_COPY for problem in table.problems)
        confidence: Confidence = "medium"
        if match is not None:
            evidence.append(_evidence(entry.start, match))
            self._claim(Partition(self._owner, entry, "none"))
            confidence = "high"
        if not is_sound:
            confidence = "low"
        inside = self._container(entry.start, entry.size)
        finding = Finding(confidence, tuple(evidence), inside, size_is_known=True)
        return replace(entry, number=entry.start, finding=finding)

    def _from_content(self, start: int, match: Match, copy: HeaderCopy | None = None) -> TableEntry | None:
        room = self._size - start
        length = room if copy is None else min(room, copy.size)
        entry = TableEntry(start, None, start, length, active=False, source_offset=start)
        partition = Partition(self._owner, entry, "none")
        if self._straddles(start, start + match.offset) or not self._claim(partition):
            return None
        volume, problems = partition.volume, partition.known_problems
        if copy is not None:
            problems = tuple(problem for problem in problems if problem != copy.problem())
        if volume is not None and complete(volume).is_guest:  # of which no more than the magic was looked at
            volume = None
        size = match.size if volume is None else complete(volume).own_size
        size = copy.size if size is None and copy is not None else size
        if volume is None and not problems and size is None and len(match.magic) < _SHORT_MAGIC:
            return None
        if size is not None and self._is_copy(start, partition.kind if volume is not None else match.kind, size):
            return None
        fits = size is not None and 0 < size <= room
        confidence: Confidence = "medium" if fits or (volume is not None and _has_files(partition)) else "low"
        if fits and volume is not None and not problems and copy is None:
            confidence = "high"
        evidence = [_evidence(start, match)] if copy is None else [copy.evidence(match)]
        if volume is None and problems:  # the magic is there, and what follows it makes no sense
            evidence.append(Evidence(f"it can't be opened: {problems[0].message}", problems[0].offset))
        evidence += _size_evidence(start, room, size)
        length = size if size is not None and fits else room
        inside = self._container(start, length)
        if inside is None and self._endless is not None:
            inside = self._endless
            evidence.append(Evidence("the end of the volume that may hold it is not known", inside))
        if confidence == "medium" and size is None and self._endless is None:
            self._endless = start
        return replace(entry, size=length, finding=Finding(confidence, tuple(evidence), inside, size_is_known=fits))

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Start and size of each partition, of the disk's own table or found, whose size is known."""
        for partition in self._known:
            yield partition.start, partition.size
        for entry in self._found:
            if entry.finding is not None and entry.finding.size_is_known:
                yield entry.start, entry.size

    def _straddles(self, start: int, magic: int) -> bool:
        """Whether a partition ends between a start in it and the magic by which a volume is assumed to begin there."""
        return any(at < start < at + size <= magic for at, size in self._spans())

    def _claim(self, partition: Partition) -> bool:
        """Whether the headers of a volume belong to nothing that was found before; they belong to it from now on."""
        volume = partition.volume
        if volume is None:
            return True
        headers = {record.source_offset for record in volume.records.values() if record.source_offset is not None}
        if headers & self._headers:
            return False
        self._headers |= headers
        return True

    def _container(self, start: int, size: int) -> int | None:
        """Start of the smallest partition, of the disk's own table or found, that holds a whole range."""
        holding = [
            (length, at)
            for at, length in self._spans()
            if at <= start and start + size <= at + length and length > size
        ]
        return min(holding)[1] if holding else None

    def _is_copy(self, start: int, kind: str, size: int) -> bool:
        """Whether it repeats the header of a volume that it is in, as XFS does in each of its groups."""
        if any(at < start < at + size and known == (kind, size) for at, known in self._measured):
            return True
        self._measured.append((start, (kind, size)))
        return False


def _has_files(partition: Partition) -> bool:
    """Whether there is a tree of files; none of its directories is read."""
    try:
        _ = partition.files
    except (CorruptImage, NotAFileSystem):
        return False
    return True


def _size_evidence(start: int, room: int, size: int | None) -> Iterator[Evidence]:
    """Evidence that the size of a volume is not known, or passes the disk's end, `room` bytes after its start."""
    if size is None:
        yield Evidence("no header says its size: it is taken to reach to the disk's end", None)
    elif size > room:
        yield Evidence(f"its header says {size} bytes, and the disk has {room} from there on", start)


def _evidence(start: int, match: Match) -> Evidence:
    return Evidence(f"{match.name}: its magic {match.magic.hex(' ')}", start + match.offset)


def suspect_ranges(disk: Source) -> tuple[SuspectRange, ...]:
    """Range from the disk's start on whose bytes are all zeros or evenly spread; empty where neither is so.

    At most the first 256 MiB are examined: 4 KiB of each 64 KiB, and the last of these to its end.

    Raises:
        CorruptImage: The disk can't be read there.
    """
    end = min(disk.size, _LONGEST_HEAD)
    first = read_up_to(disk, 0, min(SECTOR, end))
    if not first:
        return ()
    if not any(first):
        found = find_data(disk, 0, end)
        size = end if found is None else found - found % SECTOR
        more = "" if found is not None or end == disk.size else "at least "
        return (SuspectRange(0, size, f"{more}{size} bytes of zeros, where a partition table is expected"),)
    if not looks_even(first):
        return ()
    at = 0
    for step, sample in ((_HEAD_STEP, _SAMPLE), (_SAMPLE, _SAMPLE), (SECTOR, SECTOR)):
        while at + step <= end and looks_even(read_up_to(disk, at, sample)):
            at += step
        # The last step may have passed the end of the even bytes within what was not read.
        at = max(0, at - step) if step > sample and at > 0 else at
    size = at
    shown = entropy(read_up_to(disk, 0, min(_SAMPLE, size)))
    statement = (
        f"its bytes are evenly spread ({shown:.2f} bits per byte), as encrypted or compressed data or noise are,"
        " where a partition table is expected"
    )
    if size == end < disk.size:
        statement += "; it may go on"
    return (SuspectRange(0, size, statement),)
