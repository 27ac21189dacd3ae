"""`verify`: read everything once, and say of all that can be checked whether it is sound.

The decoded disk is passed from its start to its end; each partition's headers and directories are read when the pass
comes to it, and tell which bytes behind them belong to which file.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from vmvisor_image.archives.archive import Archive
from vmvisor_image.boot.banks import BANK_CONFIGURATION, CONFIGURATION
from vmvisor_image.boot.bootable import Bootable
from vmvisor_image.boot.module_end import ModuleEnd
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.checksums import Checksum
from vmvisor_image.disk_pass import Digests, DiskPass, Feed, NonZero, NonZeroIn
from vmvisor_image.errors import CorruptImage, InvalidArgument, NotAFileSystem, Problem
from vmvisor_image.file_tree import FileTree
from vmvisor_image.files import File
from vmvisor_image.framed import FramedReader
from vmvisor_image.image import Image
from vmvisor_image.layers.layer import Layer, Progress
from vmvisor_image.limits import Limits, Meter
from vmvisor_image.partition import Partition
from vmvisor_image.pipes import taking_pipes
from vmvisor_image.signatures import match_signature
from vmvisor_image.sources import SourceLike
from vmvisor_image.streams import read_up_to
from vmvisor_image.tables.gpt import GptCheck
from vmvisor_image.verification_report import (
    BadRange,
    FileCheck,
    Gap,
    Hashes,
    LayerCheck,
    PartitionCheck,
    SignatureTrailer,
    Unused,
    VerificationReport,
)
from vmvisor_image.volumes.fat import FatVolume
from vmvisor_image.volumes.fat_check import FatFigures
from vmvisor_image.volumes.iso9660 import IsoVolume
from vmvisor_image.volumes.vmfs import VmfsVolume
from vmvisor_image.volumes.vmfs_check import VmfsFigures

ALGORITHMS: Final = ("sha256", "sha1", "md5")
"""What files may be hashed with, beside SHA-256 to be found in older lists."""
_CHUNK: Final = 1 << 20


def verify(
    source: SourceLike,
    *,
    threads: int | None = None,
    algorithms: Sequence[str] = ("sha256",),
    progress: Progress | None = None,
    member: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> VerificationReport:
    """Read all of an image once, and check everything that can be checked.

    A saved index or cache is not used: all is read from the image itself. What wraps a disk is read twice: as it is, to
    be hashed, and to be decoded. So are files whose bytes do not lie on the disk in order, or not as they are.

    Args:
        source: See `Image.open`; also a pipe, see `vmvisor_image.pipes.PipeSource`.
        threads: See `Image.open`; the report does not depend on it.
        algorithms: What to hash with: "sha256", which the manifest needs, "sha1", "md5".
        progress: See `Image.open`.
        member: See `Image.open`.
        storage_options: See `Image.open`.
        limits: See `Image.open`.

    Raises:
        OSError: The file can't be opened.
        CorruptImage: A wrapping is recognised and can't be opened.
        LimitExceeded: It would cost too much.
        InvalidArgument: Another algorithm.
    """
    unknown = [name for name in algorithms if name not in ALGORITHMS]
    if unknown:
        raise InvalidArgument(f"algorithms are {', '.join(ALGORITHMS)}, not {', '.join(unknown)}")
    with (
        taking_pipes(source, limits) as given,
        Image.open(
            given,
            threads=threads,
            progress=progress,
            member=member,
            storage_options=storage_options,
            limits=limits,
        ) as image,
        image.limits.operation(),
    ):
        return _Verification(image, tuple(algorithms)).run()


class _FileSink:
    """Takes a file's bytes."""

    def __init__(self, algorithms: Sequence[str], meter: Meter) -> None:
        self.digests = Digests(algorithms)
        self.end = ModuleEnd(meter)
        self.crc32: int | None = None
        """CRC-32 so far; None where none is wanted."""

    def update(self, data: memoryview) -> None:
        if self.crc32 is not None:
            self.crc32 = zlib.crc32(data, self.crc32)
        self.digests.update(data)
        if not self.digests.missed:
            self.end.update(data)

    def miss(self, damage: int, count: int) -> None:
        self.digests.miss(damage, count)


@dataclass(slots=True)
class _PlannedFile:
    """A file, and what becomes known of it."""

    file: File
    place: int
    """First byte on the disk; 0 for one that has none."""
    sink: _FileSink | None
    """None where it can't be read at all."""
    error: str | None = None
    reads_itself: bool = False
    """Whether its bytes are not on the disk as they are, or not in order."""


class _Verification:
    """One run."""

    def __init__(self, image: Image, algorithms: tuple[str, ...]) -> None:
        self._image = image
        self._algorithms = algorithms
        self._everything = Digests(algorithms)
        self._pass = DiskPass(image.disk, self._everything)
        self._gaps: list[tuple[int, NonZero]] = []
        self._touched: dict[int, list[str]] = {}
        """Files that each damage touches."""

    def run(self) -> VerificationReport:
        table_problems: tuple[Problem, ...] = ()
        partitions: list[PartitionCheck] = []
        gpt: tuple[GptCheck, ...] = ()
        table_facts: tuple[tuple[str, str], ...] = ()
        scheme = "none"
        try:
            table = self._image.partitions
            scheme = table.scheme
            for partition in table.find():
                if not partition.is_container:
                    self._pass_gap(partition.start)
                    partitions.append(self._check(partition))
            self._pass_gap(None)
            gpt = table.check_copies()
            table_problems = table.problems
            table_facts = tuple(table.facts.items())
        except CorruptImage as error:
            table_problems = (Problem.of(error),)
            self._count_gap(self._pass.position, None)  # what is behind the damage, as far as it can be read
        layers = tuple(self._check_layer(layer) for layer in self._image.layers)
        found = [*table_problems, *_bad_copies(gpt)]
        found += itertools.chain.from_iterable(each.problems for each in layers)
        found += itertools.chain.from_iterable(each.problems for each in partitions)
        checksums: tuple[Checksum, ...] = ()
        try:
            checksums = self._image.checksums()
        except CorruptImage as error:
            found.append(Problem.of(error))
        found += [
            Problem("checksum file", f"{c.path} is not what {c.listed_in} says") for c in checksums if not c.is_right
        ]
        damages = self._pass.damages
        found += [Problem("disk", f"it can't be read: {damage.message}", damage.offset) for damage in damages]
        name = self._image.path
        return VerificationReport(
            name=None if name is None else os.path.basename(name),  # noqa: PTH119  # it may be a URL
            source_size=self._image.source.size,
            source_hashes=self._hash_source(),
            layers=layers,
            checksums=checksums,
            size=self._image.known_size,
            hashes=self._everything.values,
            scheme=scheme,
            gpt=gpt,
            gaps=tuple(Gap(at, gap.bytes, gap.nonzero) for at, gap in self._gaps if gap.bytes),
            partitions=tuple(sorted(partitions, key=lambda each: (each.start, each.number))),
            bad_ranges=tuple(
                BadRange(damage.offset, damage.length, damage.message, tuple(self._touched.get(number, ())))
                for number, damage in enumerate(damages)
            ),
            problems=_in_order(self._without_folder(found)),
            table_facts=table_facts,
        )

    def _check_layer(self, layer: Layer) -> LayerCheck:
        """A layer, read to its end."""
        source = layer.source
        size: int | None
        try:
            size = source.size
        except CorruptImage:
            size = None  # and its problems say why
        counts: list[tuple[str, int]] = []
        if isinstance(source, Bzip2Reader):
            counts = [("blocks", source.stats.blocks_known), ("streams", source.streams_known)]
            if size is None:
                behind = [len(block.data) for block in source.salvage()]
                counts += [("blocks behind the damage", len(behind)), ("bytes behind the damage", sum(behind))]
        elif isinstance(source, FramedReader):
            counts = [("frames", len(source.frames))]
        problems = source.problems
        files: tuple[FileCheck, ...] = ()
        if layer.files is not None:
            files = self._check_members(layer.files)
            problems += (*_file_problems(files), *layer.files.problems)
        found = _in_order(self._without_folder(problems))
        return LayerCheck(layer.kind, layer.name, size, tuple(counts), files, found)

    def _check_members(self, tree: FileTree) -> tuple[FileCheck, ...]:
        """The files of a container; those of a zip are held against the CRCs of its directory."""
        crcs = {member.path: member.crc32 for member in tree.members} if isinstance(tree, Archive) else {}
        found = []
        for planned in self._plan_tree(tree):
            planned.reads_itself = True
            if planned.sink is not None:
                planned.sink.crc32 = 0 if crcs.get(planned.file.path) is not None else None
            check = self._finish(planned, lambda _: None)
            wanted = crcs.get(check.path)
            has_crc = planned.sink is not None and planned.sink.crc32 == wanted
            if wanted is not None and check.error is None and not has_crc:
                check = dataclasses.replace(check, hashes=(), error=f"its CRC is not {wanted:#010x}")
            found.append(check)
        return tuple(found)

    def _without_folder(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """The problems, with the image's name in the place of its path: the same wherever it lies."""
        path = self._image.path
        name = None if path is None else os.path.basename(path)  # noqa: PTH119  # it may be a URL
        for each in problems:
            if path is None or name is None:
                yield each
            else:
                yield Problem(each.structure.replace(path, name), each.message.replace(path, name), each.offset)

    def _hash_source(self) -> Hashes:
        source = self._image.source
        if not self._image.layers:
            return self._everything.values  # it is the disk
        digests = Digests(self._algorithms)
        at = 0
        while data := read_up_to(source, at, _CHUNK):
            digests.update(memoryview(data))
            at += len(data)
        return digests.values

    def _pass_gap(self, end: int | None) -> None:
        """Pass over what lies before a partition, or behind the last one; the tables in it are no part of it."""
        at = self._pass.position
        for start, length in sorted(self._image.partitions.areas):
            if start + length <= at or (end is not None and start >= end):
                continue
            self._count_gap(at, start)
            at = max(at, start + length)
            self._pass.advance(at if end is None else min(at, end))
        self._count_gap(at, end)

    def _count_gap(self, start: int, end: int | None) -> None:
        if end is not None and end <= start:
            return
        gap = NonZero()
        self._gaps.append((start, gap))
        self._pass.advance(end, [Feed(start, _ENDLESS if end is None else end, gap)])

    def _check(self, partition: Partition) -> PartitionCheck:
        start, end = partition.start, partition.start + partition.size
        volume = partition.volume
        planned, problems = self._plan_files(partition)
        feeds = [feed for each in planned for feed in _feeds(each)]
        slack, free, tail, content = NonZero(), NonZero(), NonZero(), NonZero()
        fat: FatFigures | None = None
        if isinstance(volume, FatVolume):
            try:
                fat, free_runs = volume.check()
            except CorruptImage as error:
                problems.append(Problem.of(error))
            else:
                free = NonZeroIn(start, free_runs)
                feeds.append(Feed(start, min(volume.end, end), free))
                feeds += _slack(planned, fat.cluster_size, slack)
                if volume.end < end:
                    feeds.append(Feed(volume.end, end, tail))
        vmfs: VmfsFigures | None = None
        if isinstance(volume, VmfsVolume):
            try:
                vmfs = volume.check()
            except (CorruptImage, NotAFileSystem) as error:
                problems.append(Problem("VMFS volume", str(error), start))
        if isinstance(volume, IsoVolume):
            problems += volume.check()
        has_files = bool(planned) or fat is not None or vmfs is not None
        if not has_files:
            feeds.append(Feed(start, end, content))
        self._pass.advance(end, feeds)
        files = tuple(
            self._finish(each, partial(self._touch, f"{partition.number}/{each.file.path}")) for each in planned
        )
        problems += _file_problems(files)
        problems += [*_fat_problems(start, fat), *_vmfs_problems(start, vmfs), *partition.problems]
        problems += self._missing_modules(partition)
        return PartitionCheck(
            number=partition.number,
            label=partition.label,
            kind=self._kind(partition, content),
            start=start,
            size=partition.size,
            files=files,
            slack=None if fat is None else Unused(slack.bytes, slack.nonzero),
            free=None if fat is None else Unused(free.bytes, free.nonzero),
            tail=None if fat is None else Unused(tail.bytes, tail.nonzero),
            content=None if has_files else Unused(content.bytes, content.nonzero),
            fat=fat,
            vmfs=vmfs,
            problems=_in_order(self._without_folder(problems)),
        )

    def _missing_modules(self, partition: Partition) -> Iterator[Problem]:
        """What the boot configuration of a bank, or of a CD, names and is not there; the boot loader stops at each."""
        if not isinstance(partition.volume, FatVolume | IsoVolume):
            return
        bootable = Bootable(partition.files, partition.number, is_installer=isinstance(partition.volume, IsoVolume))
        try:
            configuration = bootable.find(BANK_CONFIGURATION)
            if configuration is None or bootable.configuration is None:
                return
            kernel, extents = bootable.configuration.kernel, configuration.extents
            offset = extents[0].offset if extents else None
            for module in (*(() if kernel is None else (kernel,)), *bootable.configuration.modules):
                if bootable.find_module(module.name) is None:
                    yield Problem(BANK_CONFIGURATION, f"{module.name!r}, which it names, is not there", offset)
        except CorruptImage as error:
            if error.structure == CONFIGURATION:  # else it is told of its file, or of its directory
                yield Problem.of(error)

    def _kind(self, partition: Partition, content: NonZero) -> str:
        """`Partition.kind`, without reading the partition once more to tell whether it is empty."""
        if partition.volume is not None:
            return partition.kind
        match = match_signature(self._image.disk, partition.start, partition.size)
        if match is not None:
            return match.kind
        return "unknown" if content.nonzero or content.bytes < partition.size else "empty"

    def _plan_files(self, partition: Partition) -> tuple[list[_PlannedFile], list[Problem]]:
        """The files of a partition by their places."""
        try:
            files = partition.files
        except NotAFileSystem:
            return [], []
        except CorruptImage as error:
            return [], [Problem.of(error)]
        return self._plan_tree(files), []

    def _plan_tree(self, files: FileTree) -> list[_PlannedFile]:
        planned = []
        for file in files.values():
            sink = _FileSink(self._algorithms, self._image.meter)
            try:
                extents = file.extents
            except CorruptImage as error:
                planned.append(_PlannedFile(file, 0, None, str(error)))
                continue
            ordered = all(one.offset + one.length <= other.offset for one, other in itertools.pairwise(extents))
            reads_itself = not ordered or sum(extent.length for extent in extents) != file.size
            planned.append(_PlannedFile(file, extents[0].offset if extents else 0, sink, reads_itself=reads_itself))
        return sorted(planned, key=lambda each: each.place)

    def _finish(self, planned: _PlannedFile, note_damage: Callable[[int], None]) -> FileCheck:
        """What is known of a file when its bytes have passed; `note_damage` is told of each damage it touches."""
        file, sink = planned.file, planned.sink
        offset = None if sink is None or not file.size else planned.place or None
        if sink is None:
            return FileCheck(file.path, file.size, offset, (), False, None, planned.error)
        error = None
        if planned.reads_itself:
            error = self._read_by_itself(file, sink)
        digests = sink.digests
        for damage in digests.missed:
            note_damage(damage)
        if error is None and digests.missed:
            error = f"can't be read: {self._pass.damages[digests.missed[0]].message}"
        elif error is None and digests.received < file.size:
            error = f"only {digests.received} of its {file.size} bytes are on the disk"
        if error is not None:
            return FileCheck(file.path, file.size, offset, (), sink.end.is_gzip, None, error)
        signature = None
        sink.end.finish()
        try:
            found = sink.end.signature()
            signature = None if found is None else SignatureTrailer.of(found)
        except CorruptImage as damaged:
            error = str(damaged)
        if sink.end.failure is not None:
            error = f"its gzip data is damaged: {sink.end.failure}"
        return FileCheck(file.path, file.size, offset, digests.values, sink.end.is_gzip, signature, error)

    def _touch(self, path: str, damage: int) -> None:
        self._touched.setdefault(damage, []).append(path)

    def _read_by_itself(self, file: File, sink: _FileSink) -> str | None:
        """Hash a file whose bytes are not on the disk in order; gives what is wrong.

        Raises:
            LimitExceeded: A sparse file, which may claim any size, has more bytes than may be decoded.
        """
        meter = self._image.meter
        try:
            file.read_at(max(file.size - 1, 0), min(file.size, 1))  # a size that nothing leads to fails at once
            for chunk in file.chunks():
                meter.add(len(chunk))
                meter.check()
                sink.update(memoryview(chunk))
        except CorruptImage as error:
            return str(error)
        return None


_ENDLESS: Final = 1 << 63


def _feeds(planned: _PlannedFile) -> Iterator[Feed]:
    if planned.sink is not None and not planned.reads_itself:
        for extent in planned.file.extents:
            yield Feed(extent.offset, extent.offset + extent.length, planned.sink)


def _slack(planned: Iterable[_PlannedFile], cluster_size: int, sink: NonZero) -> Iterator[Feed]:
    """What lies behind each file's end in its last cluster; of files that share a cluster, once."""
    ends = {
        (last.offset + last.length, -planned.file.size % cluster_size)
        for planned in planned
        if planned.sink is not None and planned.file.size
        for last in planned.file.extents[-1:]
    }
    for end, length in sorted(ends):
        if length:
            yield Feed(end, end + length, sink)


def _bad_copies(copies: Iterable[GptCheck]) -> Iterator[Problem]:
    for copy in copies:
        if not copy.is_sound:
            yield Problem(f"{copy.which} GPT", "its CRCs are not right, or it is missing", copy.offset)


def _file_problems(files: Iterable[FileCheck]) -> Iterator[Problem]:
    for file in files:
        if file.error is not None:
            yield Problem("file", f"{file.path}: {file.error}", file.offset)


def _fat_problems(start: int, fat: FatFigures | None) -> Iterator[Problem]:
    """What is wrong with a FAT volume; slack and free space never are."""
    if fat is None:
        return
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


def _vmfs_problems(start: int, vmfs: VmfsFigures | None) -> Iterator[Problem]:
    if vmfs is None:
        return
    if vmfs.reached_free:
        yield Problem("VMFS file blocks", f"{vmfs.reached_free} blocks of files are marked free", start)
    if vmfs.lost:
        yield Problem("VMFS file blocks", f"{vmfs.lost} blocks are marked used and belong to no file", start)


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once, by place; those without one first."""
    return tuple(sorted(dict.fromkeys(problems), key=_place))


def _place(problem: Problem) -> tuple[int, str, str]:
    return (-1 if problem.offset is None else problem.offset, problem.structure, problem.message)
