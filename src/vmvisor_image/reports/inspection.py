"""`inspect`: the facts about an image that fit in a table, as plain frozen values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

from vmvisor_image.base.open_options import OpenOptions
from vmvisor_image.base.shown import Shown
from vmvisor_image.disk.explanation import Explanation, counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.purpose import Generation
from vmvisor_image.errors import CorruptImage, LimitExceeded, NotAFileSystem, Problem
from vmvisor_image.streams.linked import facts_of
from vmvisor_image.streams.opening import SourceLike
from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.volume import CoreDumpUsage, complete


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file."""

    path: str
    """POSIX path from its volume's root."""
    size: int
    """Bytes."""
    modified: datetime | None
    """Time of the last change, naive, in the writer's local time; None without one."""


@dataclass(frozen=True, slots=True, repr=False)
class PartitionReport:
    """One partition."""

    number: int
    key: str
    """Name that commands take: its number, or ``@`` and its first byte; see `Partition.key`."""
    label: str | None
    type_code: int | None
    type_guid: str | None
    type_name: str
    role: Role
    kind: str
    active: bool
    start: int
    """First byte, from the start of the decoded disk."""
    size: int
    """Bytes."""
    sector_size: int
    """Bytes in a sector, the unit in which the table counts."""
    name: str | None
    """Name in the table; None without one."""
    guid: str | None
    """Unique identifier in the table; GPT only."""
    evidence: tuple[Evidence, ...]
    """Statements of the disk about its content and its purpose."""
    facts: tuple[tuple[str, str], ...]
    """Statements of its volume's headers, by name."""
    core_dump: CoreDumpUsage | None
    """Amount of the dump in a used diagnostic partition; None for an unused one and for any other partition."""
    explanation: str
    """Text of `explained`."""
    explained: Explanation
    """Content, purpose, the evidence for both, and what can be done with it."""
    files: tuple[FileReport, ...]
    problems: tuple[Problem, ...]

    def __repr__(self) -> str:
        label = "" if self.label is None else f" {self.label!r}"
        found = f"{counted(len(self.files), 'file')}, {counted(len(self.problems), 'problem')}"
        return f"<PartitionReport {self.key}{label}: {self.kind}, {self.role.value}, {found}>"


@dataclass(frozen=True, slots=True, repr=False)
class ImageReport(Shown):
    """One image; frozen, picklable, and with `to_dict` JSON-able."""

    name: str | None
    """Path or URL of the image, or None for one without."""
    size: int | None
    """Bytes of the decoded disk, or None where damage hides its end."""
    layers: tuple[tuple[str, str | None], ...]
    """Kind and name of each layer, outermost first."""
    scheme: str
    """Kind of the partition table: "mbr", "gpt" or "none"."""
    layout: Generation | None
    """Generation whose layout its partition table matches exactly; None where it matches none."""
    generation: Generation | None
    """Generation of the disk, by its boot banks first; None where nothing says so."""
    active_bank: int | None
    """Number of the partition that the boot loader starts; None where it would start none."""
    partitions: tuple[PartitionReport, ...]
    problems: tuple[Problem, ...]
    """Problems of the whole image, including those of the partitions."""
    table_facts: tuple[tuple[str, str], ...] = ()
    """Remarks on the partition table that are not problems, by name."""
    chain: tuple[tuple[str, str | None], ...] = ()
    """Kind and name of each disk that the disk rests on, the nearest first; empty where it rests on none."""
    layer_facts: tuple[tuple[str, str], ...] = ()
    """Remarks on the layers, and on the disks that the disk rests on, that are not problems, by name."""

    def __repr__(self) -> str:
        who = "" if self.generation is None else f", {self.generation.value}"
        counts = f"{counted(len(self.partitions), 'partition')}, {counted(len(self.problems), 'problem')}"
        return f"<ImageReport of {'an image' if self.name is None else repr(self.name)}: {self.scheme}{who}, {counts}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers; times in ISO 8601."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Role() | Generation():
            return value.name.lower()
        case datetime():
            return value.isoformat()
        case _:
            return value


def inspect(source: SourceLike, **options: Unpack[OpenOptions]) -> ImageReport:
    """Report on an image by its tables, labels and directories, without its files' content.

    A core dump partition is read whole, except for known zeros, to find whether it holds a dump.

    Args:
        source: See `Image.open`.
        **options: See `Image.open`; of `limits`: a partition with too many files is a problem of the report.

    Raises:
        SourceError: The file can't be opened.
        CorruptImage: A layer is recognised and can't be opened.
        LimitExceeded: It took too long, or there was too much to decode.
    """
    with Image.open(source, **options) as image:
        return report(image)


def report(image: Image) -> ImageReport:
    """Report on an open image."""
    with image.limits.operation():
        return _report(image)


def _report(image: Image) -> ImageReport:
    try:
        partitions = tuple(_partition_report(partition) for partition in image.partitions)
        active, layout, generation = (
            image.partitions.active_bank,
            image.partitions.layout,
            image.partitions.generation,
        )
    except CorruptImage:  # the start of the disk is lost, and its table with it, as `image.problems` says
        partitions, active, layout, generation = (), None, None, None
    problems = tuple(dict.fromkeys([*image.problems, *(found for each in partitions for found in each.problems)]))
    return ImageReport(
        name=image.path,
        size=image.known_size,
        layers=tuple((layer.kind, layer.name) for layer in image.layers),
        scheme=image.scheme,
        layout=None if layout is None else layout.generation,
        generation=generation,
        active_bank=None if active is None else active.number,
        partitions=partitions,
        problems=problems,
        table_facts=tuple(image.partitions.facts.items()),
        chain=tuple((link.kind, link.name) for link in image.chain[1:]),
        layer_facts=tuple(fact for layer in image.layers for fact in facts_of(layer.source)),
    )


def _core_dump(partition: Partition) -> CoreDumpUsage | None:
    volume = partition.volume
    try:
        return None if volume is None else complete(volume).usage()
    except CorruptImage:
        return None  # `Partition.explain` says so, and keeps the problem


def _partition_report(partition: Partition) -> PartitionReport:
    files: tuple[FileReport, ...] = ()
    problems: tuple[Problem, ...] = ()
    volume = partition.volume
    try:
        if volume is None or not complete(volume).is_guest:
            files = tuple(FileReport(file.path, file.size, file.modified) for file in partition.files.values())
    except NotAFileSystem:
        pass  # its kind says what it is
    except CorruptImage as error:
        problems = (Problem.of(error),)
    except LimitExceeded as error:
        if error.limit not in ("entries", "depth"):
            raise
        problems = (Problem("file tree", f"its files are left out: {error}", partition.start),)
    explained = partition.explained
    return PartitionReport(
        number=partition.number,
        key=partition.key,
        label=partition.label,
        type_code=partition.type.code,
        type_guid=None if partition.type.guid is None else str(partition.type.guid),
        type_name=partition.type.name,
        role=partition.role,
        kind=partition.kind,
        active=partition.active,
        start=partition.start,
        size=partition.size,
        sector_size=partition.sector_size,
        name=partition.name,
        guid=None if partition.guid is None else str(partition.guid),
        evidence=partition.evidence,
        facts=() if partition.volume is None else tuple(partition.volume.facts.items()),
        core_dump=_core_dump(partition),
        explanation=str(explained),
        explained=explained,
        files=files,
        problems=problems + partition.problems,
    )
