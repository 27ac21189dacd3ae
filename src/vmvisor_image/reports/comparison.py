"""`compare`: what differs between two images: the disk, the system it boots, its partitions, and files by content."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import FoundPartitions
from vmvisor_image.errors import CorruptImage, PartitionNotFound, Problem, UsageError
from vmvisor_image.files.file import File
from vmvisor_image.streams.source import Source
from vmvisor_image.volumes.volume import complete, has_files

_Partitions = dict[int, Partition]
Side = Literal["first", "second", "both"]
"""Image that has something: one of them, or both, with different values."""
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two images."""

    place: str
    """"disk", "system", a partition as commands name it (its number, or ``@`` and its first byte), or that, a slash and
    the path of a file."""
    what: str
    """Property that differs, such as "version", "label", "size" or "content"; "partition", "file" or "link" where one
    image has it and the other does not."""
    side: Side
    """Image that has it; "both" where the values differ."""
    first: str | int | bool | None = None
    """Value in the first image."""
    second: str | int | bool | None = None
    """Value in the second image."""
    offset: int | None = None
    """Bytes from the start of the file, or of the partition, to the first byte that differs; for "content" only."""

    def __str__(self) -> str:
        is_partition = self.place.isdecimal() or (self.place.startswith("@") and "/" not in self.place)
        place = f"partition {self.place}" if is_partition else self.place
        if self.side != "both":
            return f"{place}: only in the {self.side} image"
        if self.offset is not None:
            return f"{place}: other content, from byte {self.offset:#x}"
        return f"{place}: {self.what} {_text(self.first)} -> {_text(self.second)}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of `compare`."""

    differences: tuple[Difference, ...]
    """Differences in the order of the first image: disk, system, then each partition with its files."""
    partitions: int
    """Number of partitions that both images have."""
    files: int
    """Number of files that both images have, at the same path of the same partition."""
    problems: tuple[Problem, ...]
    """Damage that kept something from being compared."""

    @property
    def is_same(self) -> bool:
        """Whether nothing differs, as far as it could be compared."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        found = dataclasses.asdict(self)
        return {"is_same": self.is_same, **{key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}}


def compare(first: Image, second: Image) -> Comparison:
    """Differences between two images.

    Partitions are compared by number and files by path, with their content. The times of files are not compared, nor
    is what lies outside of partitions and, in a partition whose files are read, outside of files; a partition without
    files that can be read is compared byte by byte. Layers around the disk do not count.

    Where an image has no partition table any more, its partitions are those of `PartitionTable.or_found`. They are
    compared with those of the other image that begin at the same byte, without what only a table says; of two that
    differ in size, the bytes that both have are compared.

    Args:
        first: Image.
        second: Image to compare it with.

    Raises:
        LimitExceeded: A limit of one of the images was passed.
    """
    return _Comparing(first, second).result()


class _Comparing:
    """One comparison, with what it found so far."""

    def __init__(self, first: Image, second: Image) -> None:
        self._images = first, second
        self._tables = first.partitions.or_found(), second.partitions.or_found()
        self._is_by_place = any(isinstance(table, FoundPartitions) for table in self._tables)
        self._problems: list[Problem] = []
        self._found: list[Difference] = []
        self._partitions = self._files = 0

    def result(self) -> Comparison:
        first, second = self._images
        self._compare_values("disk", {"table": first.scheme}, {"table": second.scheme})
        self._compare_values("disk", self._size_of(first), self._size_of(second))
        self._compare_values("system", self._system_of(first), self._system_of(second))
        ours, theirs = self._by_place() if self._is_by_place else self._by_number()
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if key in ours and key in theirs:
                self._partitions += 1
                self._compare_partitions(ours[key], theirs[key])
            else:
                side: Side = "first" if key in ours else "second"
                self._found.append(Difference((ours if key in ours else theirs)[key].key, "partition", side))
        return Comparison(tuple(self._found), self._partitions, self._files, tuple(dict.fromkeys(self._problems)))

    def _by_number(self) -> tuple[_Partitions, _Partitions]:
        first, second = ({each.number: each for each in table} for table in self._tables)
        return first, second

    def _by_place(self) -> tuple[_Partitions, _Partitions]:
        """Partitions of both images by their first bytes; what a table has is looked for at its place in the other."""
        first, second = ({each.start: each for each in table if not each.is_container} for table in self._tables)
        for known, others, table in ((first, second, self._tables[1]), (second, first, self._tables[0])):
            for start in known.keys() - others.keys():
                try:
                    others[start] = table.at(start)
                except PartitionNotFound:
                    continue
                except CorruptImage as error:
                    self._note(known[start].key, error)
        # A search also finds what is in the disk of a virtual machine, say.
        spans = [(p.start, p.start + p.size) for each in (first, second) for p in each.values() if p.finding is None]

        def own(each: _Partitions) -> _Partitions:
            return {
                start: each[start]
                for start in sorted(each)
                if each[start].finding is None or not any(at < start < end for at, end in spans)
            }

        return own(first), own(second)

    def _compare_values(self, place: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        """Compare the values that both have, by name."""
        for what in first:
            if what in second and first[what] != second[what]:
                self._found.append(Difference(place, what, "both", first[what], second[what]))

    def _size_of(self, image: Image) -> dict[str, int]:
        try:
            return {"size": image.size}
        except CorruptImage as error:
            self._problems.append(Problem.of(error))
            return {}

    def _system_of(self, image: Image) -> dict[str, Any]:
        """Version of the system, and the bank that is started."""
        found: dict[str, Any] = {"product": None, "version": None, "build": None, "active bank": None}
        try:
            active = image.partitions.active_bank
            found["active bank"] = None if active is None else active.number
            found["product"], found["version"], found["build"] = image.system().identity
        except (PartitionNotFound, UsageError):  # it boots nothing
            pass
        except CorruptImage as error:
            self._problems.append(Problem.of(error))
        return found

    def _compare_partitions(self, first: Partition, second: Partition) -> None:
        place = first.key
        self._compare_values(place, self._facts_of(first), self._facts_of(second))
        if first.is_container or second.is_container:
            return
        try:
            volumes = first.volume, second.volume
            with_files = [has_files(volume) for volume in volumes]
            if all(with_files):
                self._compare_trees(first, second)
            elif not any(with_files):
                self._compare_content(place, "content", first, second)
        except CorruptImage as error:
            self._note(place, error)

    def _facts_of(self, partition: Partition) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            if self._is_by_place:
                volume = partition.volume
                return {"label": None if volume is None else volume.label, "kind": partition.kind}
            found = {
                "start": partition.start,
                "size": partition.size,
                "type": partition.type.name,
                "name": partition.name,
                "GUID": None if partition.guid is None else str(partition.guid),
                "active": partition.active,
            }
            found |= {"label": partition.label, "kind": partition.kind, "role": partition.role.value}
        except CorruptImage as error:
            self._note(partition.key, error)
        return found

    def _compare_trees(self, first: Partition, second: Partition) -> None:
        number = first.key
        ours, theirs = dict(first.files.items()), dict(second.files.items())
        for path, file in ours.items():
            other = theirs.get(path)
            if other is None:
                self._found.append(Difference(f"{number}/{path}", "file", "first", file.size))
                continue
            self._files += 1
            try:
                self._compare_content(f"{number}/{path}", "content", file, other)
            except CorruptImage as error:
                self._note(f"{number}/{path}", error)
        for path, file in theirs.items():
            if path not in ours:
                self._found.append(Difference(f"{number}/{path}", "file", "second", None, file.size))
        self._compare_others(first, second)

    def _compare_others(self, first: Partition, second: Partition) -> None:
        """Compare links and whatever else is in directories."""
        ours, theirs = (dict(_others(each)) for each in (first, second))
        for path in [*ours, *(path for path in theirs if path not in ours)]:
            place = f"{first.key}/{path}"
            if path in ours and path in theirs:
                self._compare_values(place, {"link": ours[path]}, {"link": theirs[path]})
            else:
                side: Side = "first" if path in ours else "second"
                self._found.append(Difference(place, "link", side, ours.get(path), theirs.get(path)))

    def _compare_content(self, place: str, what: str, first: File | Partition, second: File | Partition) -> None:
        if first.size != second.size and not (self._is_by_place and isinstance(first, Partition)):
            if isinstance(first, File):  # a partition's size is compared already
                self._found.append(Difference(place, "size", "both", first.size, second.size))
            return
        offset = _first_difference(first, second)
        if offset is not None:
            self._found.append(Difference(place, what, "both", offset=offset))

    def _note(self, place: str, error: CorruptImage) -> None:
        problem = Problem.of(error)
        self._problems.append(Problem(f"{place}: {problem.structure}", problem.message, problem.offset))


def _others(partition: Partition) -> Iterator[tuple[str, str]]:
    volume = partition.volume
    for each in () if volume is None else complete(volume).others:
        yield each.path or each.text, each.text


def _first_difference(first: Source, second: Source) -> int | None:
    """Offset of the first byte that differs between two sources, as far as both go; None where none does."""
    offset, end = 0, min(first.size, second.size)
    first.prefetch(0, end)
    second.prefetch(0, end)
    while offset < end:
        check_deadline()
        offset = min(first.skip_zeros(offset, end), second.skip_zeros(offset, end))
        length = min(_CHUNK, end - offset)
        ours, theirs = first.read_at(offset, length), second.read_at(offset, length)
        if ours != theirs:
            return offset + next(at for at, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
        offset += length
    return None


def _text(value: object) -> str:
    return "none" if value is None else repr(value) if isinstance(value, str) else str(value)
