"""VMDK: sparse and streamOptimized extents, descriptors that put extents together, and the disks that they rest on.

Source: VMware, Virtual Disk Format 5.0. Sparse extents of ESX have modules of their own: `cowd` and `sesparse`.
"""

from __future__ import annotations

import functools
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from vmvisor_image.base.names import last_part
from vmvisor_image.base.open_options import ParentChoice
from vmvisor_image.base.system_errors import in_words
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, Problem, ProblemList, UnsafeName
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers import cowd, sesparse
from vmvisor_image.layers.parents import Reference, find_parent, parent_without_descriptor, refuse_snapshot
from vmvisor_image.schemas.vmdk import (
    AT_END,
    COMPRESSED,
    DESCRIPTOR_MAGIC,
    GRAIN_TABLE_USES_REDUNDANT,
    MAGIC,
    ZEROED_GRAINS,
    GrainMarker,
    SparseExtentHeader,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.mapped import MappedDisk, Packed, Run
from vmvisor_image.streams.reading import prefetch, read_up_to
from vmvisor_image.streams.source import ReadAt, Source, past_end
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.tables import EntryTable, Tables, count_rising

NAME: Final = "VMDK"
KIND: Final = "vmdk"
SUFFIXES: Final = (".vmdk",)
MAGICS: Final = (Signature("vmdk", "VMware sparse disk extent (VMDK)", 0, b"KDMV", content="disk"),)
REFERENCES: Final = ("VMware, Virtual Disk Format 5.0",)
_SECTOR: Final = 512
_LARGEST_DESCRIPTOR: Final = 1 << 24
"""Largest descriptor in bytes: room for the largest number of extents, with names of 200 characters."""
_LARGEST_GRAIN: Final = 1 << 14
"""Largest grain in sectors: 8 MiB. The specification's default is 128 sectors."""
_ENTRIES: Final = 512
"""Number of entries in every grain table (Virtual Disk Format 5.0, "Hosted Sparse Extent Header")."""
_LAST_VERSION: Final = 3
_MOST_TABLES: Final = 1 << 22
"""Largest number of grain tables of an extent; a search for data in an empty extent passes each one."""
_MOST_EXTENTS: Final = 1 << 16
"""Largest number of extents of a disk: 128 TB in extents of 2 GB, as hosted products write them."""
_DESCRIPTOR: Final = "VMDK descriptor"
_MOST_PROBLEMS: Final = 100
"""Largest number of problems reported for one descriptor."""
_LOOKED_AHEAD: Final = 512
"""Bytes of a table in which the end of grains in a row is looked for; that of a hole in eight times as many."""
_CREATE_TYPES: Final = frozenset(
    (
        *("monolithicsparse", "monolithicflat", "twogbmaxextentsparse", "twogbmaxextentflat", "streamoptimized"),
        *("fulldevice", "partitioneddevice", "custom", "vmfs", "vmfssparse", "vmfsthin", "vmfspreallocated"),
        *("vmfseagerzeroedthick", "vmfsraw", "vmfsrdm", "vmfsrdmp", "vmfsrawdevicemap"),
        *("vmfspassthroughrawdevicemap", "sesparse", "vsansparse"),
    )
)
"""Values of `createType` in lower case (Virtual Disk Format 5.0, "The Header"), and those of later products."""
_STREAM_OPTIMIZED: Final = "streamoptimized"
_SPARSE: Final = ("SPARSE", "VMFSSPARSE", "SESPARSE")
"""Kinds of extents with a map of their own."""
_DEVICES: Final = {
    "VMFSRAW": "a whole device",
    "VMFSRDM": "a raw device mapping, in virtual mode",
    "VMFSRDMP": "a raw device mapping, in physical mode",
}
"""Kinds of extents whose data is on a device of the host; the file of a mapping says only which one."""
_DEVICE_TYPES: Final = ("fulldevice", "partitioneddevice")
"""Types of disks whose flat extents are devices of the host."""
_NO_PARENT: Final = 0xFFFFFFFF
_ACCESS: Final = re.compile(r"\s*(RW|RDONLY|NOACCESS)\b(?!\s*=)", re.IGNORECASE)
"""Start of a line that describes an extent."""
_EXTENT: Final = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,18})\s+(\w+)(?:\s+"([^"]*)")?(?:\s+(\d{1,18})(?:\s+[A-Za-z].*)?)?', re.ASCII
)
"""A whole line that describes an extent; for a physical disk, hosted products add its device after the offset."""
_EXTENT_BYTES: Final = re.compile(rb"(RW|RDONLY|NOACCESS)\s+\d", re.IGNORECASE)
_ENCODING: Final = re.compile(rb'^\s*encoding\s*=\s*"?([\w-]+)', re.IGNORECASE | re.MULTILINE)
_ENCODINGS: Final = {
    "windows-1252": "cp1252",
    "big5": "big5",
    "gbk": "gbk",
    "shift_jis": "shift_jis",
}
"""Codecs by the name in a descriptor (libvmdk, documentation, "Descriptor file"); all others are taken for UTF-8."""
_SETTING: Final = re.compile(r'\s*([\w.]+)\s*=\s*"?([^"]*)"?\s*')


@dataclass(frozen=True, slots=True)
class DescribedExtent:
    """One line of a descriptor, which describes an extent of the disk."""

    access: str
    """Access to the extent: "RW", "RDONLY" or "NOACCESS"."""
    sectors: int
    """Length in sectors of 512 bytes."""
    kind: str
    """Type of the extent: "FLAT", "SPARSE", "ZERO", "VMFS" and others."""
    name: str | None
    """Name of the extent's file, in the directory of the descriptor."""
    offset: int
    """First sector of a flat extent in that file; 0 where the line has no offset."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A VMDK descriptor."""

    create_type: str | None
    """Type of the disk: "monolithicSparse", "vmfs" and others."""
    content_id: int | None
    """Content id, which changes with the content."""
    parent_content_id: int | None
    """Content id of the parent disk; None for a disk without a parent, or that does not say it."""
    extents: tuple[DescribedExtent, ...]
    """Extents in the order of the disk."""
    unread: tuple[str, ...] = ()
    """Extent lines that can't be parsed: what they describe, and where it lies in the disk, is unknown."""
    problems: tuple[Problem, ...] = ()
    """Problems of other invalid lines, and of missing or unknown settings."""
    parent_file_name: str | None = None
    """Path of the parent disk's descriptor; None where there is none."""
    says_no_parent: bool = False
    """Whether the content id of the parent is the one that stands for no parent."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a sparse extent or a descriptor."""
    return head.startswith((MAGIC, DESCRIPTOR_MAGIC))


def open_layer(source: ReadAt, options: LayerOptions) -> Source:
    """The disk in a VMDK.

    Raises:
        CorruptImage: The header or the descriptor is damaged, or needs features that are not supported; or an extent
            or the parent can't be opened.
        UnsafeName: The name of an extent would lead to another directory, or that of the parent does not name a file.
        MemberNotFound: A snapshot inside the file is asked for.
    """
    refuse_snapshot(NAME, options)
    head = read_up_to(source, 0, _SECTOR)
    if head.startswith(DESCRIPTOR_MAGIC):
        text, is_whole = _read_descriptor(source, 0, source.size)
        if not is_whole:
            raise _refused(f"it has more than the {_LARGEST_DESCRIPTOR} bytes that are read")
        rest = read_up_to(source, len(text), _LARGEST_DESCRIPTOR)
        padding = -len(text) % _SECTOR  # qemu-img leaves old memory contents here
        if rest[padding:].strip(b"\0") or _EXTENT_BYTES.search(
            rest[:padding]
        ):  # QEMU also stops there, but extents may follow
            raise _refused(f"its text goes on behind a NUL at byte {len(text):#x}")
        return join_extents(parse_descriptor(text), options)
    return open_sparse(source, options)


def _read_descriptor(source: ReadAt, offset: int, length: int) -> tuple[bytes, bool]:
    """Text from byte `offset` on, ending after `length` bytes or before the first NUL, and whether it is complete."""
    text = read_up_to(source, offset, min(length, _LARGEST_DESCRIPTOR)).partition(b"\0")[0]
    return text, len(text) < _LARGEST_DESCRIPTOR or length <= _LARGEST_DESCRIPTOR


def parse_descriptor(data: bytes) -> Descriptor:
    """Parsed text of a descriptor; unknown lines are skipped and reported in its `problems`.

    Raises:
        CorruptImage: The descriptor has more extents than are read.
    """
    settings: dict[str, str] = {}
    extents = []
    unread = []
    problems = ProblemList(_DESCRIPTOR, _MOST_PROBLEMS)
    if not data.startswith(DESCRIPTOR_MAGIC):
        problems.note(_DESCRIPTOR, "it does not begin as one")
    for line in re.split(r"[\r\n]+", _text(data.partition(b"\0")[0])):
        if match := _EXTENT.fullmatch(line.strip()):
            access, sectors, kind, name, offset = match.groups()
            extents.append(DescribedExtent(access, int(sectors), kind.upper(), name, int(offset or 0)))
            if kind.upper() == "FLAT" and offset is None:
                problems.note(_DESCRIPTOR, f"the extent {name!r} has no offset")
        elif _ACCESS.match(line):
            unread.append(line.strip())
        elif line.startswith("#") or not line.strip():
            continue
        elif match := _SETTING.fullmatch(line):
            settings[match.group(1).casefold()] = match.group(2)
        else:
            problems.note(_DESCRIPTOR, f"a line that does not belong in a descriptor, {line[:80]!r}")
    absent = [name for name in ("version", "createType") if name.casefold() not in settings]
    absent += [name for name in ("CID", "parentCID") if _hexadecimal(settings.get(name.casefold())) is None]
    if absent:
        problems.note(_DESCRIPTOR, f"it has no {', '.join(absent)}")
    if settings.get("createtype", _STREAM_OPTIMIZED).casefold() not in _CREATE_TYPES:
        problems.note(_DESCRIPTOR, f"its type is not known, {settings['createtype']!r}")
    if len(extents) > _MOST_EXTENTS:
        raise _refused(f"it has {len(extents)} extents, more than the {_MOST_EXTENTS} that are read")
    parent = _hexadecimal(settings.get("parentcid"))
    return Descriptor(
        settings.get("createtype"),
        _hexadecimal(settings.get("cid")),
        None if parent == _NO_PARENT else parent,
        tuple(extents),
        tuple(unread),
        problems.found,
        settings.get("parentfilenamehint") or None,
        parent == _NO_PARENT,
    )


def _text(data: bytes) -> str:
    """Text of a descriptor in the encoding that it names, in UTF-8 where it names none that descriptors have."""
    named = _ENCODING.search(data)
    encoding = _ENCODINGS.get("" if named is None else named.group(1).decode("ascii").casefold(), "utf-8")
    return data.decode(encoding, "replace")


def join_extents(descriptor: Descriptor, options: LayerOptions) -> JoinedExtents:
    """The disk that a descriptor describes, with the one that it rests on.

    Args:
        descriptor: The descriptor.
        options: Options of the disk, whose `neighbour` opens the files of the extents.

    Raises:
        CorruptImage: An extent is of an unsupported kind or missing, a line about an extent can't be parsed, or the
            parent can't be opened.
        UnsafeName: The name of an extent would lead to another directory, or that of the parent does not name a file.
    """
    if descriptor.unread:  # without them the disk would be another one
        raise _refused(f"a line about an extent can't be read: {descriptor.unread[0]!r:.200}")
    if not descriptor.extents:
        raise _refused("it names no extents")
    is_device = (descriptor.create_type or "").casefold() in _DEVICE_TYPES
    found = ProblemList(_DESCRIPTOR, _MOST_PROBLEMS)
    parts: list[tuple[int, ReadAt | None, int]] = []
    for extent in descriptor.extents:
        if extent.kind == "ZERO":
            parts.append((extent.sectors * _SECTOR, None, 0))
            continue
        if extent.kind in _DEVICES or (is_device and extent.kind == "FLAT" and _is_elsewhere(extent.name or "")):
            what = _DEVICES.get(extent.kind, "a device of the host")
            raise _refused(
                f"its extent {extent.name!r} is {what} ({extent.kind}, {descriptor.create_type}): "
                "the data is on that device, not in the image"
            )
        if extent.kind not in ("FLAT", "VMFS", *_SPARSE):
            raise _refused(f"extents of kind {extent.kind} are not read")
        file = _open_extent(extent.name or "", options.neighbour)
        data: ReadAt = file if extent.kind not in _SPARSE else _open_mapped(extent, file, found)
        parts.append((extent.sectors * _SECTOR, data, extent.offset * _SECTOR))
    for length, source, _ in parts:
        if isinstance(source, MappedDisk) and source.size != length:
            found.note(_DESCRIPTOR, f"an extent has {length} bytes by it, {source.size} by its own header")
    parent = _find_parent(descriptor, options, found)
    return JoinedExtents(
        tuple(parts), descriptor.problems + found.found, parent=parent, identity=_identity(descriptor.content_id)
    )


def _find_parent(
    descriptor: Descriptor, options: LayerOptions, problems: ProblemList, at: int | None = None
) -> Parent | None:
    """The disk that the one of a descriptor, at byte `at` of its file, rests on; None for none."""
    name, identity = descriptor.parent_file_name, _identity(descriptor.parent_content_id)
    if identity is None and (name is None or descriptor.says_no_parent):
        if name is not None:
            message = f"it names a parent, {name!r}, and its parentCID says that it has none: it is read without one"
            problems.note(_DESCRIPTOR, message, at)
        return None
    if name is None:
        if isinstance(options.parent, ParentChoice):
            message = f"it rests on a disk whose CID is {identity}, and does not name its file: give that one as parent"
            raise CorruptImage(message, structure=_DESCRIPTOR, offset=at)
        name = f"CID {identity}"
    return find_parent(Reference(name, _DESCRIPTOR, at, KIND, identity), options, problems)


def _open_mapped(extent: DescribedExtent, file: ReadAt, problems: ProblemList) -> MappedDisk:
    """The data of a sparse extent, of the kind that its file begins with."""
    head = read_up_to(file, 0, _SECTOR)
    kind, opener = "SPARSE", open_sparse
    for name, each in (("VMFSSPARSE", cowd), ("SESPARSE", sesparse)):
        if each.probe(head):
            kind, opener = name, each.open_extent
    if kind != extent.kind:
        problems.note(_DESCRIPTOR, f"the extent {extent.name!r} is {extent.kind} by it, and {kind} by its own header")
    return opener(file)


def _is_elsewhere(name: str) -> bool:
    """Whether a name does not name a file in the directory of the descriptor."""
    return last_part(name) != name


def _open_extent(name: str, neighbour: Callable[[str], ReadAt] | None) -> ReadAt:
    if _is_elsewhere(name):
        raise UnsafeName(f"the extent {name!r} would lie elsewhere", structure=_DESCRIPTOR)
    if neighbour is None:
        raise _refused(
            f"its extent {name!r} is another file, whose folder is not known: open the descriptor by its path"
        )
    try:
        return neighbour(name)
    except (OSError, KeyError) as error:
        raise _refused(f"its extent {name!r} can't be opened: {in_words(error)}") from error


class JoinedExtents(MappedDisk):
    """A disk of several extents, one after the other."""

    def __init__(
        self,
        parts: tuple[tuple[int, ReadAt | None, int], ...],
        problems: tuple[Problem, ...] = (),
        *,
        parent: Parent | None = None,
        identity: str | None = None,
    ) -> None:
        """Join the extents.

        Args:
            parts: Length in bytes, source (None for zeros) and first byte in it, of each extent.
            problems: Problems found before.
            parent: Disk that holds what the extents do not; None where that is zeros.
            identity: Content id of the disk, see `Linked.identity`.
        """
        self._extents = _Extents(parts)
        self._found_before = problems
        size = self._extents.starts[-1]
        super().__init__(KIND, BytesSource(b""), size, self._extents.locate, parent=parent, identity=identity)
        self.entries = self._extents.entries

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found in the descriptor, and in the extents and the parent as far as they were read."""
        of_extents = (problem for source, _ in self._extents.parts if source is not None for problem in source.problems)
        return tuple(dict.fromkeys([*self._found_before, *of_extents, *super().problems]))

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`; the hint is for each extent and the parent."""
        super().prefetch(offset, length)
        extents = self._extents
        end = min(offset + length, self.size)
        for number in range(max(0, bisect_right(extents.starts, offset) - 1), len(extents.parts)):
            source, first = extents.parts[number]
            begin, to = max(offset, extents.starts[number]), min(end, extents.starts[number + 1])
            if begin >= end:
                return
            if source is not None and begin < to:
                prefetch(source, first + begin - extents.starts[number], to - begin)


class _Extents:
    """Map of a disk of several extents."""

    def __init__(self, parts: tuple[tuple[int, ReadAt | None, int], ...]) -> None:
        self.parts = [(None if source is None else as_source(source), first) for _, source, first in parts]
        """Source of each extent, None for zeros, and its first byte in it."""
        self.starts = [0]
        """First byte of each extent, from the start of the disk; and the end of the disk."""
        for length, _, _ in parts:
            self.starts.append(self.starts[-1] + length)

    @property
    def entries(self) -> EntryTable | None:
        """See `MappedDisk`; those of the only extent, where that has the whole disk from its start."""
        if len(self.parts) != 1:
            return None
        source, first = self.parts[0]
        if first or not isinstance(source, MappedDisk) or source.size < self.starts[-1]:
            return None  # what lies behind its end is an error, and no hole
        return source.entries

    def locate(self, offset: int, end: int) -> Run:
        """See `MappedDisk`."""
        number = bisect_right(self.starts, offset) - 1  # an empty extent is passed over
        source, first = self.parts[number]
        left = self.starts[number + 1] - offset
        if source is None:
            return Run(left)
        at = first + offset - self.starts[number]
        if not isinstance(source, MappedDisk):
            return Run(left, at, source=source)
        if at >= source.size:
            raise past_end("vmdk extent", at, left, source.size)
        run = source.locate(at, at + end - offset)
        length = min(run.length, left, source.size - at)
        if run.packed is not None:  # the extents are told apart in what identifies a grain
            packed = Packed(run.packed.start | number << 64, run.packed.decode, run.packed.skip)
            return Run(length, packed=packed)
        return Run(length, run.start, None, run.is_hole, None if run.start is None else source.file)


def open_sparse(source: ReadAt, options: LayerOptions | None = None) -> MappedDisk:
    """The data of a sparse or streamOptimized extent.

    Args:
        source: The file.
        options: Options of the disk, for the parent that the descriptor in the extent names; None for an extent of a
            descriptor of its own, which says what the disk rests on.

    Raises:
        CorruptImage: The header is damaged, or needs features that are not supported; or the parent can't be opened.
        UnsafeName: The name of the parent does not name a file.
    """
    reader = _SparseReader(source)
    embedded = reader.embedded
    parent = None
    at = reader.header.descriptor_offset * _SECTOR
    if embedded is None:
        if options is not None:
            parent = parent_without_descriptor("VMDK extent", options, reader.problems)
    elif options is not None:
        parent = _find_parent(embedded, options, reader.problems, at)
    elif embedded.parent_content_id is not None:
        message = "by it the extent rests on another disk, which the descriptor of the whole disk decides"
        reader.problems.note(_DESCRIPTOR, message, at)
    disk = MappedDisk(
        KIND,
        source,
        reader.header.capacity * _SECTOR,
        reader.locate,
        reader.problems,
        parent=parent,
        identity=None if embedded is None else _identity(embedded.content_id),
    )
    disk.entries = reader.entries
    return disk


class _SparseReader:
    def __init__(self, source: ReadAt) -> None:
        self._source = source
        self._tables = Tables(KIND, source, "little")
        self.problems = ProblemList("VMDK extent")
        self.embedded: Descriptor | None = None
        """Descriptor in the extent; None where there is none."""
        self.header = self._read_header()
        self._grain = self.header.grain_size * _SECTOR
        self._directory = self._usable_directory()
        first, second = self.header.directory, self.header.redundant_directory
        is_twice = self.header.flags & GRAIN_TABLE_USES_REDUNDANT and second and second != first
        self._other = second if is_twice and self._directory == first else None
        """Sector of the redundant directory to compare with the one in use; None where there is nothing to compare."""
        self._is_packed = bool(self.header.flags & COMPRESSED)
        self._first_grain = max(self.header.overhead, 2)
        """Least entry that leads to a grain: 0 is a hole, and 1 can be zeros."""
        self.entries = EntryTable(self.header.entries_per_table, self._grain, 4, self._read_entries)

    def _read_header(self) -> SparseExtentHeader:
        head = read_up_to(self._source, 0, _SECTOR)
        header = SparseExtentHeader.parse(head)
        if header.magic != MAGIC:
            raise _bad("magic", "it is not a sparse extent", 0)
        at = 0
        if header.directory == AT_END:
            at = self._source.size - 2 * _SECTOR  # the footer, before the marker of the end
            footer = read_up_to(self._source, max(at, 0), _SECTOR)
            if at < 0 or footer[:4] != MAGIC:
                raise CorruptImage("the footer is missing", structure="VMDK extent", offset=max(at, 0))
            first, header = header, SparseExtentHeader.parse(footer, base=at)
            if replace(first, directory=header.directory) != header:
                self.problems.note("VMDK extent", "the header and the footer differ in more than the directory", at)
        grain = header.grain_size
        if not 1 <= grain <= _LARGEST_GRAIN or grain & (grain - 1):
            raise _bad("grain_size", f"{grain} sectors are not a valid grain size", at + 20)
        if not 1 <= header.entries_per_table <= 1 << 16:
            raise _bad("entries_per_table", f"{header.entries_per_table} are too few or too many", at + 44)
        if header.flags & COMPRESSED and header.compression != 1:
            raise _bad("compression", f"{header.compression}, which is not known", at + 77)
        if header.capacity >> 50:
            raise _bad("capacity", f"{header.capacity} sectors are more than any disk has", at + 12)
        if header.capacity > _MOST_TABLES * header.entries_per_table * grain:
            raise _bad("capacity", f"{header.capacity} sectors need more than {_MOST_TABLES} grain tables", at + 12)
        if header.unclean_shutdown:
            self.problems.note("VMDK extent header", "the disk was in use when the image was made", at + 72)
        self._check_header(header, at)
        return header

    def _check_header(self, header: SparseExtentHeader, at: int) -> None:
        """Report invalid fields of the header at byte `at`."""
        if not 1 <= header.version <= _LAST_VERSION:
            self.problems.note("VMDK extent header", f"version {header.version} is not known", at + 4)
        if header.entries_per_table != _ENTRIES:
            self.problems.note("VMDK extent header", f"{header.entries_per_table} entries in a table, not 512", at + 44)
        if header.overhead * _SECTOR > self._source.size:
            self.problems.note("VMDK extent header", "its grains begin past the end of the source", at + 64)
        if header.descriptor_offset and header.descriptor_size:
            self._check_embedded(header, header.descriptor_offset * _SECTOR)

    def _check_embedded(self, header: SparseExtentHeader, at: int) -> None:
        """Report contradictions between the header and the embedded descriptor at byte `at`.

        Raises:
            CorruptImage: The descriptor has more extents than are read.
        """
        text, is_whole = _read_descriptor(self._source, at, header.descriptor_size * _SECTOR)
        if not text:
            if any(read_up_to(self._source, at, min(header.descriptor_size * _SECTOR, _SECTOR))):
                self.problems.note(_DESCRIPTOR, "it does not begin as one", at)
            return  # empty, in one of several extents
        if not is_whole:
            self.problems.note(_DESCRIPTOR, f"only the first {_LARGEST_DESCRIPTOR} bytes of it are read", at)
        self.embedded = embedded = parse_descriptor(text)
        for problem in embedded.problems:
            self.problems.note(problem.structure, problem.message, at)
        if embedded.unread:
            self.problems.note(_DESCRIPTOR, f"a line that can't be read, {embedded.unread[0]!r:.200}", at)
        if (embedded.create_type or "").casefold() == _STREAM_OPTIMIZED and not header.flags & COMPRESSED:
            self.problems.note("VMDK extent header", "its grains are not compressed, but by the descriptor they are", 8)
        sectors = sum(extent.sectors for extent in embedded.extents)
        if embedded.extents and sectors != header.capacity:
            message = f"its {len(embedded.extents)} extents have {sectors} sectors, this one {header.capacity}"
            self.problems.note(_DESCRIPTOR, message, at)

    def _usable_directory(self) -> int:
        """Sector of the first grain directory, or of the second one where only that is usable."""
        first, second = self.header.directory, self.header.redundant_directory
        for sector in (first, second):
            table = self._entry_of(sector, 0) if sector else None
            if table is not None and table * _SECTOR < self._source.size:
                if sector != first:
                    message = "the first grain directory leads nowhere; the second one is used"
                    self.problems.note("VMDK extent header", message, first * _SECTOR)
                return sector
        return first

    def _entry_of(self, table: int, index: int) -> int | None:
        """Entry of the directory or table at sector `table`; None where the source ends before it."""
        try:
            return self._tables.number(table * _SECTOR + 4 * index, 4, "grain directory")
        except CorruptImage:
            return None

    def locate(self, offset: int, end: int) -> Run:
        """See `MappedDisk`."""
        grain, within = divmod(offset, self._grain)
        number, index = divmod(grain, self.header.entries_per_table)
        part = self.entries.part(number)
        entry = int.from_bytes(part[4 * index : 4 * index + 4], "little")
        if entry < self._first_grain or self._is_packed:
            return self._locate_special(offset)
        wanted = -(-(end - offset + within) // self._grain)
        count = count_rising(part[4 * index : 4 * (index + wanted)], self.header.grain_size, 4, "little")
        return Run(count * self._grain - within, entry * _SECTOR + within)

    def _read_entries(self, number: int) -> bytes | None:
        """See `EntryTable`; None where the second copy of the table is another one."""
        try:
            table = self._tables.number(self._directory * _SECTOR + 4 * number, 4, "grain directory")
        except CorruptImage:
            return None
        if not table:
            has_other = self._other is not None and any(self._tables.data(self._other * _SECTOR + 4 * number, 4))
            return None if has_other else b""
        found = self._table_of(self._directory, number)
        if self._other is not None and found != self._table_of(self._other, number):
            return None
        return found or None

    def _locate_special(self, offset: int) -> Run:
        """See `MappedDisk`; of any grain, with all checks."""
        grain, within = divmod(offset, self._grain)
        number, index = divmod(grain, self.header.entries_per_table)
        at = self._directory * _SECTOR + 4 * number
        table = self._tables.number(at, 4, "grain directory")
        if not table:
            absent = max(1, self._tables.zeros(at, _LOOKED_AHEAD) // 4)
            self._compare(number, None, absent)
            return Run((absent * self.header.entries_per_table - index) * self._grain - within, is_hole=True)
        at = table * _SECTOR + 4 * index
        entry = self._tables.number(at, 4, "grain table")
        if not entry:
            absent = min(self._tables.zeros(at, 8 * _LOOKED_AHEAD) // 4, self.header.entries_per_table - index)
            self._compare(number, index, absent)
            return Run(absent * self._grain - within, is_hole=True)
        is_zeros = entry == 1 and bool(self.header.flags & ZEROED_GRAINS)
        is_packed = self._is_packed and not is_zeros
        step = 0 if is_zeros else self.header.grain_size
        most = min(1 if is_packed else _LOOKED_AHEAD // 4, self.header.entries_per_table - index)
        count = self._tables.rising(at, step, most, 4)
        self._compare(number, index, count)
        left = count * self._grain - within
        if is_zeros:
            return Run(left)
        start = entry * _SECTOR
        if entry < self.header.overhead:
            self.problems.note("VMDK grain table", f"grain {grain} lies before the first one", at)
        if is_packed:
            decode = functools.partial(self._decode, start, grain * self.header.grain_size)
            return Run(left, packed=Packed(start, decode, within))
        return Run(left, start + within)

    def _compare(self, number: int, index: int | None, count: int) -> None:
        """Report a difference between `count` entries of both directories' tables.

        These are the entries from `index` of table `number`, or of the directories from `number` where it is None. A
        second table that can't be read differs.
        """
        if self._other is None or (index is not None and self.entries.is_known(number)):
            return
        if index is None:
            found = [self._tables.data(at * _SECTOR + 4 * number, 4 * count) for at in (self._directory, self._other)]
        else:
            tables = [self._table_of(directory, number) for directory in (self._directory, self._other)]
            found = [table[4 * index : 4 * (index + count)] for table in tables]
        if found[0] != found[1]:
            if index is None:
                pairs = zip(range(0, 4 * count, 4), range(4, 4 * count + 4, 4), strict=True)
                number += next(n for n, (a, b) in enumerate(pairs) if found[0][a:b] != found[1][a:b])
            at = self._other * _SECTOR + 4 * number
            self.problems.note("VMDK grain table", f"the second copy of table {number} differs from the first", at)

    def _table_of(self, directory: int, number: int) -> bytes:
        """Grain table of a directory; empty where there is none."""
        table = int.from_bytes(self._tables.data(directory * _SECTOR + 4 * number, 4), "little")
        return self._tables.data(table * _SECTOR, 4 * self.header.entries_per_table) if table else b""

    def _decode(self, start: int, sector: int) -> bytes:
        marker = GrainMarker.parse(self._source.read_at(start, GrainMarker.length()), base=start)
        if marker.sector != sector or marker.size > 2 * self._grain + 1024:
            raise CorruptImage(
                "its marker is of another grain",
                structure="VMDK grain",
                offset=start,
                expected=f"sector {sector}",
                found=f"sector {marker.sector}, {marker.size} bytes",
            )
        data = self._source.read_at(start + GrainMarker.length(), marker.size)
        try:
            found = zlib.decompressobj().decompress(data, self._grain + 1)
        except zlib.error as error:
            raise CorruptImage(f"it is damaged ({error})", structure="VMDK grain", offset=start) from error
        last = self.header.capacity - sector
        if len(found) < min(self._grain, last * _SECTOR):
            raise CorruptImage("it decodes to too little", structure="VMDK grain", offset=start)
        if len(found) > self._grain:
            raise CorruptImage("it decodes to more than a grain", structure="VMDK grain", offset=start)
        return found


def _hexadecimal(text: str | None) -> int | None:
    return int(text, 16) if text is not None and re.fullmatch(r"[0-9a-fA-F]{1,8}", text) else None


def _identity(content_id: int | None) -> str | None:
    """Content id as it is in a descriptor."""
    return None if content_id is None else f"{content_id:08x}"


def _refused(message: str) -> CorruptImage:
    return CorruptImage(message, structure=_DESCRIPTOR)


def _bad(field: str, message: str, at: int) -> CorruptImage:
    return CorruptImage(message, structure="VMDK extent header", offset=at, field=field)
