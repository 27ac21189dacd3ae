"""`verify`: reading everything once and checking everything that can be checked.

The decoded disk is read from its start to its end; each partition's headers and directories are read when the pass
reaches it, and say which of the following bytes belong to which file.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Unpack

from vmvisor_image.base.limits import Meter
from vmvisor_image.base.open_options import Progress, ReadOptions, check_options
from vmvisor_image.boot.bootable import Bootable
from vmvisor_image.boot.module_end import ModuleEnd
from vmvisor_image.compressions.layer import Layer
from vmvisor_image.disk.banks import BANK_CONFIGURATION, CONFIGURATION
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.tables.table import GptCheck
from vmvisor_image.errors import CorruptImage, InvalidArgument, NotAFileSystem, Problem
from vmvisor_image.files.checksums import Checksum
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.reports.disk_pass import Damage, Digests, DiskPass, Feed, NonZero, NonZeroIn
from vmvisor_image.reports.origins import origins_or_problem
from vmvisor_image.reports.verification_report import (
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
from vmvisor_image.streams.linked import facts_of
from vmvisor_image.streams.opening import SourceLike
from vmvisor_image.streams.pipes import taking_pipes
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.volumes.magics import match_signature
from vmvisor_image.volumes.volume import Volume, VolumeCheck, complete, has_files

ALGORITHMS: Final = ("sha256", "sha1", "md5")
"""Names of the hash algorithms; those other than SHA-256 allow comparison with older lists."""
_CHUNK: Final = 1 << 20


def verify(
    source: SourceLike,
    *,
    algorithms: Sequence[str] = ("sha256",),
    hashing: Progress | None = None,
    certificates: Iterable[Certificate] = (),
    **options: Unpack[ReadOptions],
) -> VerificationReport:
    """Report of reading a whole image once and checking everything that can be checked.

    A saved index or cache is not used: everything is read from the image itself. Three things are read
    twice: the layers of a disk, to be hashed and to be decoded, files whose bytes are not on the disk in order or
    unchanged, and the modules of the system that it boots, where there is an image database or a certificate to compare
    them with (`VerificationReport.origins`).

    Args:
        source: See `Image.open`; also a pipe, see `vmvisor_image.streams.pipes.PipeSource`.
        algorithms: Hash algorithms: "sha256", which the manifest needs, "sha1", "md5".
        hashing: Called with the bytes hashed so far and in all of each thing that is read a second time for its hash:
            the files of a container, the source of a disk in layers. `progress` is of the first time.
        certificates: Certificates that you trust, from `open_certificates`, for the signatures of modules and packages.
        **options: `threads`, `progress`, `member`, `storage_options`, `limits` and `salvage` of `Image.open`; the
            report does not depend on `threads`.

    Raises:
        SourceError: The file can't be opened.
        CorruptImage: A layer is recognised and can't be opened.
        LimitExceeded: Reading the image exceeds one of `limits`.
        InvalidArgument: An algorithm is not one of these, or an option is not one of those named.
    """
    check_options("verify", options, ReadOptions.__optional_keys__)
    unknown = [name for name in algorithms if name not in ALGORITHMS]
    if unknown:
        raise InvalidArgument(f"algorithms are {', '.join(ALGORITHMS)}, not {', '.join(unknown)}")
    with (
        taking_pipes(source, options.get("limits")) as given,
        Image.open(given, **options) as image,
        image.limits.operation(),
    ):
        return _Verification(image, tuple(algorithms), hashing, tuple(certificates)).run()


class _FileSink:
    """Sink for a file's bytes."""

    def __init__(self, algorithms: Sequence[str], meter: Meter) -> None:
        self.digests = Digests(algorithms)
        self.end = ModuleEnd(meter)
        self.crc32: int | None = None
        """CRC-32 so far; None where it is not needed."""

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
    """A file that is to be checked."""

    file: File
    place: int
    """First byte on the disk; 0 for a file without bytes there."""
    sink: _FileSink | None
    """Sink for its bytes; None where it can't be read at all."""
    error: str | None = None
    reads_itself: bool = False
    """Whether it has to be read by itself: its bytes are not on the disk in order or unchanged."""


class _Verification:
    """One run of `verify`."""

    def __init__(
        self,
        image: Image,
        algorithms: tuple[str, ...],
        hashing: Progress | None = None,
        certificates: tuple[Certificate, ...] = (),
    ) -> None:
        self._certificates = certificates
        self._image = image
        self._hashing = hashing
        self._hashed, self._to_hash = 0, 0
        """Bytes hashed so far, and in all, of what is being read a second time."""
        self._algorithms = algorithms
        self._everything = Digests(algorithms)
        self._pass = DiskPass(image.disk, self._everything)
        self._gaps: list[tuple[int, NonZero]] = []
        self._touched: dict[int, list[str]] = {}
        """Paths of the files that each damage affects, by its number."""

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
            self._count_gap(self._pass.position, None)  # the bytes after the damage, as far as they can be read
        layers = tuple(self._check_layer(layer) for layer in self._image.layers)
        found = [*table_problems, *_bad_copies(gpt), *self._image.layer_problems]
        found += itertools.chain.from_iterable(each.problems for each in layers)
        found += itertools.chain.from_iterable(each.problems for each in partitions)
        checksums: tuple[Checksum, ...] = ()
        try:
            checksums = self._image.checksums()
        except CorruptImage as error:
            found.append(Problem.of(error))
        found += [
            Problem("checksum file", f"the checksum of {c.path} is not the one in {c.listed_in}")
            for c in checksums
            if not c.is_right
        ]
        origins, altered = origins_or_problem(self._image, self._certificates)
        found += altered
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
            gaps=tuple(Gap(_readable(at, damages), gap.bytes, gap.nonzero) for at, gap in self._gaps if gap.bytes),
            partitions=tuple(sorted(partitions, key=lambda each: (each.start, each.number))),
            bad_ranges=tuple(
                BadRange(damage.offset, damage.length, damage.message, tuple(self._touched.get(number, ())))
                for number, damage in enumerate(damages)
            ),
            problems=_in_order(self._without_folder(found)),
            table_facts=table_facts,
            layer_facts=tuple(fact for layer in self._image.layers for fact in facts_of(layer.source)),
            origins=origins,
        )

    def _check_layer(self, layer: Layer) -> LayerCheck:
        """Result of reading a layer to its end."""
        source = layer.source
        size: int | None
        try:
            size = source.size
        except CorruptImage:
            size = None  # and its problems say why
        counts = source.check_blocks()
        problems = source.problems
        files: tuple[FileCheck, ...] = ()
        if layer.files is not None:
            files = self._check_members(layer.files)
            problems += (*_file_problems(files), *layer.files.problems)
        found = _in_order(self._without_folder(problems))
        return LayerCheck(layer.kind, layer.name, size, counts, files, found)

    def _check_members(self, tree: FileTree) -> tuple[FileCheck, ...]:
        """Results for the files of a container; those of a zip are compared with the CRCs in its directory."""
        crcs = tree.crc32s
        self._hashed, self._to_hash = 0, sum(file.size for file in tree.values())
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
        self._to_hash = 0
        return tuple(found)

    def _note_hashed(self, length: int) -> None:
        self._hashed += length
        if self._hashing is not None and self._to_hash:
            self._hashing(min(self._hashed, self._to_hash), self._to_hash)

    def _without_folder(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Problems with the image's name in place of its path, so that they are the same in any directory."""
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
        self._hashed, self._to_hash = 0, source.size
        at = 0
        while data := read_up_to(source, at, _CHUNK):
            digests.update(memoryview(data))
            at += len(data)
            self._note_hashed(len(data))
        return digests.values

    def _pass_gap(self, end: int | None) -> None:
        """Read the gap before byte `end`, or after the last partition for None; tables in it are not counted as gap."""
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
        found = VolumeCheck() if volume is None else _check_volume(volume)
        unused = found.allocation
        if unused is not None:
            free = NonZeroIn(start, iter(unused.free))
            feeds.append(Feed(start, min(unused.end, end), free))
            feeds += _slack(planned, unused.unit, slack)
            if unused.end < end:
                feeds.append(Feed(unused.end, end, tail))
        is_known = bool(planned) or found.fat is not None or found.vmfs is not None or unused is not None
        if not is_known:
            feeds.append(Feed(start, end, content))
        self._pass.advance(end, feeds)
        files = tuple(self._finish(each, partial(self._touch, f"{partition.key}/{each.file.path}")) for each in planned)
        problems += [*_file_problems(files), *found.problems, *partition.problems]
        problems += self._missing_modules(partition)
        return PartitionCheck(
            number=partition.number,
            key=partition.key,
            label=partition.label,
            kind=self._kind(partition, content),
            start=start,
            size=partition.size,
            files=files,
            slack=None if unused is None else Unused(slack.bytes, slack.nonzero),
            free=None if unused is None else Unused(free.bytes, free.nonzero),
            tail=None if unused is None else Unused(tail.bytes, tail.nonzero),
            content=None if is_known else Unused(content.bytes, content.nonzero),
            fat=found.fat,
            vmfs=found.vmfs,
            problems=_in_order(self._without_folder(problems)),
            not_checked=found.not_checked,
        )

    def _missing_modules(self, partition: Partition) -> Iterator[Problem]:
        """Problems of missing modules that the boot configuration of a bank or CD names; the loader stops at each."""
        volume = partition.volume
        medium = complete(volume).boot_medium if has_files(volume) else None
        if medium is None:
            return
        bootable = Bootable(partition.files, partition, is_installer=medium == "cd")
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
            if error.structure == CONFIGURATION:  # otherwise it is reported for the file or directory
                yield Problem.of(error)

    def _kind(self, partition: Partition, content: NonZero) -> str:
        """Kind as in `Partition.kind`, without reading the partition again to find whether it is empty."""
        if partition.volume is not None:
            return partition.kind
        match = match_signature(self._image.disk, partition.start, partition.size)
        if match is not None:
            return match.kind
        return "unknown" if content.nonzero or content.bytes < partition.size else "empty"

    def _plan_files(self, partition: Partition) -> tuple[list[_PlannedFile], list[Problem]]:
        """Files of a partition by their places, and the problem that they can't be listed."""
        try:
            files = partition.files
        except NotAFileSystem:
            return [], []
        except CorruptImage as error:
            return [], [Problem.of(error)]
        try:
            return self._plan_tree(files), []
        except CorruptImage as error:
            return [], [Problem.of(error)]

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
        """Result for a file after its bytes were read; `note_damage` gets the number of each damage in it."""
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
        """Error message of hashing a file whose bytes are not on the disk in order or unchanged; None without an error.

        Raises:
            LimitExceeded: A sparse file, which may claim any size, has more bytes than may be decoded.
        """
        meter = self._image.meter
        try:
            file.read_at(max(file.size - 1, 0), min(file.size, 1))  # a size without data behind it fails at once
            for chunk in file.chunks():
                meter.add(len(chunk))
                meter.check()
                sink.update(memoryview(chunk))
                self._note_hashed(len(chunk))
        except CorruptImage as error:
            return str(error)
        return None


_ENDLESS: Final = 1 << 63


def _feeds(planned: _PlannedFile) -> Iterator[Feed]:
    if planned.sink is not None and not planned.reads_itself:
        for extent in planned.file.extents:
            yield Feed(extent.offset, extent.offset + extent.length, planned.sink)


def _slack(planned: Iterable[_PlannedFile], cluster_size: int, sink: NonZero) -> Iterator[Feed]:
    """Feeds of the bytes after each file's end in its last cluster, once for files that share a cluster."""
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


def _readable(at: int, damages: Sequence[Damage]) -> int:
    """First byte from `at` on that could be read; there is one."""
    for damage in damages:  # by place
        if damage.length is not None and damage.offset <= at < damage.offset + damage.length:
            at = damage.offset + damage.length
    return at


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems by place, each once, those without a place first."""
    return tuple(sorted(dict.fromkeys(problems), key=_place))


def _place(problem: Problem) -> tuple[int, str, str]:
    return (-1 if problem.offset is None else problem.offset, problem.structure, problem.message)


def _check_volume(volume: Volume) -> VolumeCheck:
    try:
        return complete(volume).check()
    except CorruptImage as error:
        return VolumeCheck((Problem.of(error),))
