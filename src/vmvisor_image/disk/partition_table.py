"""A disk's partition table: its partitions as they are found, its boot banks, and its problems."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast, overload

from vmvisor_image.base.forking import ForkSafeLock, cached_property, restart_in_child
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.names import fold_name
from vmvisor_image.base.shown import Shown
from vmvisor_image.disk.banks import BootBank, active_bank, read_bank
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.partition import Partition, PartitionOwner, listed, place_name
from vmvisor_image.disk.purpose import Generation, Layout, find_generation, find_layout
from vmvisor_image.disk.search import SearchTable, SuspectRange, suspect_ranges
from vmvisor_image.disk.tables.table import STRUCTURE, GptCheck, Scheme, Table, TableEntry, UnreadableTable
from vmvisor_image.errors import CorruptImage, PartitionNotFound, Problem, VmvisorImageError
from vmvisor_image.record import Record
from vmvisor_image.streams.reading import knows_size
from vmvisor_image.streams.source import Source
from vmvisor_image.volumes.role import Evidence
from vmvisor_image.volumes.volume import has_files

_Default = TypeVar("_Default")
_MOST_SHOWN: Final = 16
"""Largest number of partitions whose numbers `repr` shows."""


class PartitionTable(Shown):
    """A disk's partitions, found one by one when they are needed.

    Iterating gives the partitions in disk order, and ``in`` takes a number, a label or a partition. ``table[5]`` finds
    one by its number and ``table["Hypervisor1"]`` by its label (without regard to case, the first one on the disk);
    both read the disk no further than they must.
    """

    def __init__(self, owner: PartitionOwner, table: Table) -> None:
        """Made by `Image`."""
        self._owner = owner
        self._table = table
        self._lock = ForkSafeLock()
        self._found: list[Partition] = []
        self._searches: list[weakref.ref[FoundPartitions]] = []
        self._instead: FoundPartitions | None = None
        """Search in place of a table without partitions."""
        self._placed: dict[int, FoundPartitions] = {}
        """Search of each place that was asked for."""
        self._rest: Iterator[TableEntry] = table.entries()
        self._banks: tuple[BootBank, ...] | None = None
        self._identity: tuple[Generation | None, tuple[Evidence, ...]] | None = None
        restart_in_child(self)

    def start_in_child(self) -> None:
        """Restart after a fork: a thread that was searching the next entry continues in the parent only."""
        self._look_again()

    def _look_again(self) -> None:
        """Find the entries that are not known yet by reading the table again from its start."""
        self._rest = itertools.islice(self._table.entries(), len(self._found), None)

    @property
    def scheme(self) -> Scheme:
        """Kind of the table: "mbr", "gpt", or "none"."""
        return self._table.scheme

    @property
    def sector_size(self) -> int:
        """Bytes in a sector, the unit in which the table counts: 512 or 4096."""
        return self._table.sector_size

    @property
    def records(self) -> Mapping[str, Record]:
        """The structures of the table itself, by their names, as they are on disk."""
        return self._table.records

    @property
    def facts(self) -> Mapping[str, str]:
        """Remarks on the table itself that are not problems, in words, by name.

        For example, that the backup header of a GPT is where the dd images of ESXi's installers have it.
        """
        return self._table.facts

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """Offset and bytes of each structure of the table itself that was found so far."""
        return self._table.areas

    def check_copies(self) -> tuple[GptCheck, ...]:
        """The CRCs of both copies of a GPT, the primary one first; none of any other table. Reads the backup copy."""
        return self._table.check_copies()

    def find(self) -> Iterator[Partition]:
        """Partitions one by one, as they are found: the disk is read no further than to the current one."""
        position = 0
        while True:
            while position < len(self._found):  # it only grows
                yield self._found[position]
                position += 1
            if self._at(position) is None:
                return

    def found_before_damage(self) -> tuple[Partition, ...]:
        """Partitions in disk order, as far as the table can be read: up to damage in it, which is no error here."""
        with contextlib.suppress(CorruptImage):
            return tuple(self)
        return tuple(sorted(self._found, key=_by_place))

    def search(self) -> FoundPartitions:
        """Partitions by what looks like a volume where this table has none; nothing is read before they are needed.

        Their starts are looked for where hypervisors and partitioning programs put partitions, in a backup GPT, and at
        every multiple of 1 MiB. Runs of zeros that the source knows of are not read; of anything else some 17 reads of
        together about 16 KiB are made for each MiB.
        """
        return self._search()

    def _search(self, *problems: Problem) -> FoundPartitions:
        found = FoundPartitions(_FoundOwner(self._owner), self, problems)
        self._searches.append(weakref.ref(found))
        return found

    def or_found(self) -> PartitionTable:
        """These partitions, or where there are none, or the table can't be read, those that a search finds.

        For what is about all that a disk holds: of a disk whose table is lost, see `search`, nothing is passed over.

        Raises:
            CorruptImage: The table can't be read, and the search finds nothing.
        """
        error: CorruptImage | None = None
        try:
            if len(self):
                return self
        except CorruptImage as caught:
            error = caught
        with self._lock:
            if self._instead is None:
                self._instead = self._search(
                    Problem(STRUCTURE, "it has no partitions; those that a search finds are used", 0)
                )
            found = self._instead
        if error is not None and not len(found):
            raise error
        return found if len(found) else self

    def at(self, start: int) -> Partition:
        """Partition that begins at byte `start` of the disk: one of the table, or a volume that is not in it.

        Paths name it ``@`` and this byte, as in ``@0x100000/vm/a.txt``. Of the disk, the table and what the headers of
        the volume need are read, and the backup of a GPT; a search of the whole disk, see `search`, finds the same.
        Where no header is recognised there, a copy of one is looked for in the rest of the disk.

        Raises:
            PartitionNotFound: Nothing is recognised there.
            CorruptImage: The disk can't be read there.
        """
        with contextlib.suppress(CorruptImage):  # of a damaged table: what begins there can be read nevertheless
            for partition in self.find():
                if partition.start == start and not partition.is_container:
                    return partition
        with self._lock:
            if start not in self._placed:
                self._placed[start] = FoundPartitions(_FoundOwner(self._owner), self, only=start)
        for partition in self._placed[start].find():
            return partition
        name = place_name(start)
        raise PartitionNotFound(f"no partition {name}: nothing known begins at this byte of the disk", wanted=name)

    @property
    def banks(self) -> tuple[BootBank, ...]:
        """The boot banks, by partition number; reads the root directory of each FAT volume and each ``boot.cfg``."""
        with self._lock:
            if self._banks is None:
                found = []
                for partition in sorted(self, key=lambda partition: partition.number):
                    try:
                        found.append(read_bank(partition))
                    except CorruptImage as error:
                        partition._report(error)
                self._banks = tuple(bank for bank in found if bank is not None)
            return self._banks

    @property
    def active_bank(self) -> BootBank | None:
        """The bank that the boot loader starts, by its own rule; None where it would start none."""
        return active_bank(self.banks)

    @cached_property
    def layout(self) -> Layout | None:
        """Layout of a generation that the table matches exactly; None where it matches none. Reads only the table."""
        return find_layout(self)

    @property
    def generation(self) -> Generation | None:
        """Generation of the disk's hypervisor: ESX 3i 3.5, ESXi 4, 5/6 or 7/8; None where nothing says so."""
        return self.identify()[0]

    def identify(self) -> tuple[Generation | None, tuple[Evidence, ...]]:
        """`generation`, and the evidence for it."""
        with self._lock:
            if self._identity is None:
                self._identity = find_generation(self, self.banks, self.layout)
            return self._identity

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems of the table itself and of its partitions' places on the disk; reads the whole table."""
        partitions = list(self)
        found = list(_overlaps(partitions))
        try:
            disk_size = self._owner.disk.size
        except CorruptImage:
            return (*self._table.problems, *found)
        found[:0] = [*self._table.check(disk_size), *_outside(partitions, disk_size)]
        return (*self._table.problems, *found)

    @property
    def quick_problems(self) -> tuple[Problem, ...]:
        """`known_problems` after reading all entries of the table; see `Image.quick_problems`."""
        overlaps = _overlaps(list(self))
        return (*self.known_problems, *overlaps)

    @property
    def known_problems(self) -> tuple[Problem, ...]:
        """Damage found so far in the table and in the partitions that were examined; reads nothing."""
        found = list(self._table.problems)
        with contextlib.suppress(CorruptImage):  # damage hides the size: the layer reports it
            if knows_size(self._owner.disk):
                found += _outside(self._found, self._owner.disk.size)
        for partition in self._found:
            found += partition.known_problems
        for placed in filter(None, (*self._placed.values(), self._instead)):
            found += placed.known_problems
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """End what the volumes of the partitions started, as `Image.close` does."""
        for partition in self._found:
            partition.close()
        for each in self._searches:
            if (search := each()) is not None:
                search.close()
        for placed in self._placed.values():
            placed.close()

    def __getitem__(self, key: int | str) -> Partition:
        """Partition with that number or label.

        Raises:
            PartitionNotFound: There is no such partition.
        """
        found = self._lookup(key)
        if found is not None:
            return found
        if not isinstance(key, str):  # the labels would have to be read
            known = ", ".join(partition.key for partition in self)
            raise PartitionNotFound(f"no partition {key!r}{self._may_be_lost(key)}; there are {known or 'none'}")
        known = f"there are {listed(self)}{_with_files(self)}"
        if key.isdecimal() and int(key) in self.keys():
            raise PartitionNotFound(f"no partition has the label {key!r}; {key} without quotes is a number; {known}")
        raise PartitionNotFound(
            f"no partition {key!r}{self._may_be_lost(key)}; {known}", wanted=key, names=self._alike()
        )

    def _may_be_lost(self, key: int | str) -> str:  # noqa: ARG002  # for what does not know all
        """Words on a partition that is not there, where it may be on the disk nevertheless."""
        return ""

    def _alike(self) -> dict[str, None]:
        """Names that one which is not there may be a misspelling of."""
        return {name: None for partition in self for name in _names(partition) if name}

    @overload
    def get(self, key: int | str) -> Partition | None: ...
    @overload
    def get(self, key: int | str, default: _Default) -> Partition | _Default: ...
    def get(self, key: int | str, default: _Default | None = None) -> Partition | _Default | None:
        """Partition with that number or label, or `default`; reads the disk no further than it must."""
        found = self._lookup(key)
        return default if found is None else found

    def keys(self) -> tuple[int, ...]:
        """Numbers of the partitions, in disk order; numbers since every partition has one, and each its own.

        Reads the whole partition table, and nothing of the partitions. ``dict(table)`` has these keys.
        """
        return tuple(partition.number for partition in self)

    def values(self) -> tuple[Partition, ...]:
        """The partitions, in disk order, as iteration gives them."""
        return tuple(self)

    def items(self) -> tuple[tuple[int, Partition], ...]:
        """Number of each partition, and the partition, in disk order."""
        return tuple((partition.number, partition) for partition in self)

    def __contains__(self, key: object) -> bool:
        if isinstance(key, int | str):
            return self._lookup(key) is not None
        return any(partition is key for partition in self)

    def _lookup(self, key: int | str) -> Partition | None:
        """Partition with that number or label; None where there is none."""
        if isinstance(key, str):
            wanted = fold_name(key)
            return self._first(lambda partition: any(wanted == fold_name(text) for text in _names(partition) if text))
        return self._first(lambda partition: partition.number == key)

    def __iter__(self) -> Iterator[Partition]:
        self._first(lambda _: False)
        return iter(sorted(self._found, key=_by_place))

    def __reversed__(self) -> Iterator[Partition]:
        return reversed(list(self))

    def __len__(self) -> int:
        self._first(lambda _: False)
        return len(self._found)

    def _first(self, matches: Callable[[Partition], bool]) -> Partition | None:
        """The first partition that matches, finding more only while none of the known ones does."""
        return next((partition for partition in self.find() if matches(partition)), None)

    def _at(self, position: int) -> Partition | None:
        """Partition that is found after `position` others; None where there are no more."""
        with self._lock:
            if position == len(self._found):
                try:
                    entry = next(self._rest, None)
                    if entry is None:
                        return None
                    self._found.append(Partition(self._owner, entry, self.scheme))
                except BaseException:  # the source failed, or Ctrl-C came: the next call continues from here
                    self._look_again()
                    raise
            return self._found[position]

    def __repr__(self) -> str:
        try:
            numbers, more = self.keys(), ""
        except (VmvisorImageError, OSError):  # the rest can't be read, or the image is closed
            numbers, more = tuple(partition.number for partition in self._found), " found so far"
        count = f"{counted(len(numbers), 'partition')}{more}"
        shown = ", ".join(map(str, numbers[:_MOST_SHOWN])) + (", …" if len(numbers) > _MOST_SHOWN else "")
        return f"<PartitionTable {self.scheme}, {count}{f': {shown}' if shown else ''}>"


class _FoundOwner:
    """An image, as the owner of what is found on it."""

    def __init__(self, owner: PartitionOwner) -> None:
        self._owner = owner
        self._found: FoundPartitions | None = None

    @property
    def disk(self) -> Source:
        return self._owner.disk

    @property
    def meter(self) -> Meter:
        return self._owner.meter

    @property
    def local_paths(self) -> tuple[str, ...]:
        return self._owner.local_paths

    @property
    def partitions(self) -> FoundPartitions:
        if self._found is None:  # in another process
            table = cast("PartitionTable", self._owner.partitions)
            self._found = table if isinstance(table, FoundPartitions) else FoundPartitions(self, table)
        return self._found

    def __reduce__(self) -> tuple[Any, ...]:
        return (_FoundOwner, (self._owner,))


class FoundPartitions(PartitionTable):
    """Partitions that were found by a search; never written to the disk.

    Their numbers are their first bytes, so ``found[0x100000]`` is what commands call ``@0x100000``.

    `Partition.finding` gives the confidence and the evidence of each, and whether it is inside another one. `find`
    gives them as they are found; iterating, and all that needs all of them, searches the whole disk.
    """

    def __init__(
        self, owner: _FoundOwner, table: PartitionTable, problems: tuple[Problem, ...] = (), *, only: int | None = None
    ) -> None:
        """Made by `PartitionTable.search`, and by `PartitionTable.at` for `only` one place."""
        lost = table._table.problems if isinstance(table._table, UnreadableTable) else problems
        super().__init__(owner, SearchTable(owner, table.found_before_damage, lost, only=only))
        owner._found = self

    @cached_property
    def suspect_ranges(self) -> tuple[SuspectRange, ...]:
        """Range at the disk's start that is all zeros or evenly spread where a partition table is expected.

        At most the first 256 MiB are examined, 4 KiB of each 64 KiB.

        Raises:
            CorruptImage: The disk can't be read there.
        """
        return suspect_ranges(self._owner.disk)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Ranges that could not be searched, and limits that ended the search; searches the whole disk."""
        _ = len(self)
        return self._table.problems

    def _at(self, position: int) -> Partition | None:
        with self._owner.meter.limits.operation():
            return super()._at(position)

    def search(self) -> FoundPartitions:
        """The same partitions."""
        return self

    def or_found(self) -> FoundPartitions:
        """The same partitions."""
        return self

    def _may_be_lost(self, key: int | str) -> str:
        if isinstance(key, int) or key.isdecimal():
            return " was found (numbers are those of a partition table)"
        return " was found (one whose start is lost or overwritten can't be)"

    def _alike(self) -> dict[str, None]:
        return {}  # it may be lost, and not misspelt

    def __repr__(self) -> str:
        return "<FoundPartitions>"


def _by_place(partition: Partition) -> tuple[int, bool]:
    return partition.start, not partition.is_container


def _names(partition: Partition) -> Iterator[str | None]:
    """Names of a partition, the one that costs nothing first."""
    yield partition.name
    yield partition.label


def _with_files(partitions: PartitionTable) -> str:
    """Words that say which partitions have files, for a message that lists all of them."""
    numbers = []
    for partition in partitions:
        with contextlib.suppress(CorruptImage):  # its own problem
            if has_files(partition.volume):
                numbers.append(partition.key)
    if not numbers:
        return ", without files that can be read" if len(partitions) else ""
    return f", with files in {', '.join(numbers)}" if len(numbers) < len(partitions) else ""


def _outside(partitions: list[Partition], disk_size: int) -> Iterator[Problem]:
    for partition in partitions:
        end = partition.start + partition.size
        if end > disk_size:
            yield Problem(
                f"partition {partition.key}",
                f"it ends at byte {end:#x}, past the end of the disk at {disk_size:#x}",
                partition.start,
            )


def _overlaps(partitions: list[Partition]) -> Iterator[Problem]:
    """Partitions that share bytes; an extended one and the logical ones in it do so by design."""
    extended = next((partition for partition in partitions if partition.is_container), None)
    previous: Partition | None = None
    for partition in partitions:
        if partition.is_container:
            continue
        if extended is not None:
            inside = extended.start <= partition.start < extended.start + extended.size
            whole = inside and partition.start + partition.size <= extended.start + extended.size
            logical = partition.number > 4  # primary partitions are 1-4
            if inside != logical or (logical and not whole):
                where = "reaches out of" if logical else "overlaps"
                yield Problem(
                    f"partition {partition.key}", f"it {where} extended partition {extended.number}", partition.start
                )
        if previous is not None and partition.start < previous.start + previous.size:
            yield Problem(f"partition {partition.key}", f"it overlaps partition {previous.key}", partition.start)
        if previous is None or partition.start + partition.size > previous.start + previous.size:
            previous = partition
