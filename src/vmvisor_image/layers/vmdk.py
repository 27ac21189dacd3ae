"""VMDK: sparse and streamOptimized extents, and descriptors that put extents together.

Source: VMware, Virtual Disk Format 5.0. Disks that have a parent, and sparse extents of ESX (COWD, SESPARSE), are
recognised and refused.
"""

from __future__ import annotations

import functools
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from vmvisor_image.base.system_errors import in_words
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, Problem, ProblemList, UnsafeName
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.schemas.vmdk import (
    AT_END,
    COMPRESSED,
    COWD_MAGIC,
    DESCRIPTOR_MAGIC,
    GRAIN_TABLE_USES_REDUNDANT,
    MAGIC,
    SESPARSE_MAGIC,
    ZEROED_GRAINS,
    GrainMarker,
    SparseExtentHeader,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.mapped import MappedDisk, Packed, Run, Tables
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import Pieced

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
_NOT_READ: Final = {
    COWD_MAGIC: "a sparse extent of ESX (COWD)",
    SESPARSE_MAGIC: "a space-efficient sparse extent of ESXi (seSparse)",
}
_MOST_EXTENTS: Final = 1 << 16
"""Largest number of extents of a disk: 128 TB in extents of 2 GB, as hosted products write them."""
_DESCRIPTOR: Final = "VMDK descriptor"
_MOST_PROBLEMS: Final = 100
"""Largest number of problems reported for one descriptor."""
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
_NO_PARENT: Final = 0xFFFFFFFF
_ACCESS: Final = re.compile(r"\s*(RW|RDONLY|NOACCESS)\b(?!\s*=)", re.IGNORECASE)
"""Start of a line that describes an extent."""
_EXTENT: Final = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,18})\s+(\w+)(?:\s+"([^"]*)")?(?:\s+(\d{1,18})(?:\s+[A-Za-z].*)?)?', re.ASCII
)
"""A whole line that describes an extent; for a physical disk, hosted products add its device after the offset."""
_EXTENT_BYTES: Final = re.compile(rb"(RW|RDONLY|NOACCESS)\s+\d", re.IGNORECASE)
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
    """Content id of the parent disk; None for a disk without a parent."""
    extents: tuple[DescribedExtent, ...]
    """Extents in the order of the disk."""
    unread: tuple[str, ...] = ()
    """Extent lines that can't be parsed: what they describe, and where it lies in the disk, is unknown."""
    problems: tuple[Problem, ...] = ()
    """Problems of other invalid lines, and of missing or unknown settings."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a sparse extent or a descriptor."""
    return head.startswith((MAGIC, DESCRIPTOR_MAGIC, *_NOT_READ))


def open_layer(source: ReadAt, options: LayerOptions) -> Source:
    """The disk in a VMDK.

    Raises:
        CorruptImage: The header or the descriptor is damaged, or needs features that are not supported.
        UnsafeName: The name of an extent would lead to another directory.
    """
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
        return join_extents(parse_descriptor(text), options.neighbour)
    return open_sparse(source)


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
    for line in re.split(r"[\r\n]+", data.partition(b"\0")[0].decode("utf-8", "replace")):
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
    )


def join_extents(descriptor: Descriptor, neighbour: Callable[[str], ReadAt] | None) -> Source:
    """The disk that a descriptor describes.

    Args:
        descriptor: The descriptor.
        neighbour: Opens a file in the directory of the descriptor by name; None where that is impossible.

    Raises:
        CorruptImage: The disk has a parent, an extent is of an unsupported kind or missing, or a line about an extent
            can't be parsed.
        UnsafeName: The name of an extent would lead to another directory.
    """
    if descriptor.parent_content_id is not None:
        raise _refused("the disk is the difference to another one, which is not read")
    if descriptor.unread:  # without them the disk would be another one
        raise _refused(f"a line about an extent can't be read: {descriptor.unread[0]!r:.200}")
    if not descriptor.extents:
        raise _refused("it names no extents")
    parts: list[tuple[int, ReadAt | None, int]] = []
    for extent in descriptor.extents:
        if extent.kind == "ZERO":
            parts.append((extent.sectors * _SECTOR, None, 0))
            continue
        if extent.kind not in ("FLAT", "VMFS", "SPARSE"):
            raise _refused(f"extents of kind {extent.kind} are not read")
        file = _open_extent(extent.name or "", neighbour)
        is_sparse = extent.kind == "SPARSE"
        parts.append((extent.sectors * _SECTOR, open_sparse(file) if is_sparse else file, extent.offset * _SECTOR))
    differing = ProblemList(_DESCRIPTOR, _MOST_PROBLEMS)
    for length, source, _ in parts:
        if isinstance(source, MappedDisk) and source.size != length:
            differing.note(_DESCRIPTOR, f"an extent has {length} bytes by it, {source.size} by its own header")
    return JoinedExtents(tuple(parts), descriptor.problems + differing.found)


def _open_extent(name: str, neighbour: Callable[[str], ReadAt] | None) -> ReadAt:
    if not name or "/" in name or "\\" in name or name in (".", "..") or not name.isprintable():
        raise UnsafeName(f"the extent {name!r} would lie elsewhere", structure=_DESCRIPTOR)
    if neighbour is None:
        raise _refused(
            f"its extent {name!r} is another file, whose folder is not known: open the descriptor by its path"
        )
    try:
        return neighbour(name)
    except (OSError, KeyError) as error:
        raise _refused(f"its extent {name!r} can't be opened: {in_words(error)}") from error


class JoinedExtents(Pieced):
    """A disk of several extents, one after the other."""

    _structure = "vmdk disk"

    def __init__(self, parts: tuple[tuple[int, ReadAt | None, int], ...], problems: tuple[Problem, ...] = ()) -> None:
        """Take length in bytes, source (None for zeros) and first byte in it of each extent; and earlier problems."""
        self._parts = [(None if source is None else as_source(source), first) for _, source, first in parts]
        self._problems = problems
        self._starts = [0]
        for length, _, _ in parts:
            self._starts.append(self._starts[-1] + length)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found in the descriptor, and in the extents as far as they were read."""
        of_extents = (problem for source, _ in self._parts if source is not None for problem in source.problems)
        return tuple(dict.fromkeys([*self._problems, *of_extents]))

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self._starts[-1]

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """See `Pieced.pieces`."""
        end = offset + length
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            source, first = self._parts[number]
            number += 1
            count = min(end, self._starts[number]) - offset
            if count:  # an extent may be empty
                yield source, first + offset - self._starts[number - 1], count
            offset += count


def open_sparse(source: ReadAt) -> MappedDisk:
    """The data of a sparse or streamOptimized extent.

    Raises:
        CorruptImage: The header is damaged, or needs features that are not supported.
    """
    reader = _SparseReader(source)
    return MappedDisk(KIND, source, reader.header.capacity * _SECTOR, reader.locate, reader.problems)


class _SparseReader:
    def __init__(self, source: ReadAt) -> None:
        self._source = source
        self._tables = Tables(KIND, source, "little")
        self.problems = ProblemList("VMDK extent")
        self.header = self._read_header()
        self._grain = self.header.grain_size * _SECTOR
        self._directory = self._usable_directory()
        first, second = self.header.directory, self.header.redundant_directory
        is_twice = self.header.flags & GRAIN_TABLE_USES_REDUNDANT and second and second != first
        self._other = second if is_twice and self._directory == first else None
        """Sector of the redundant directory to compare with the one in use; None where there is nothing to compare."""

    def _read_header(self) -> SparseExtentHeader:
        head = read_up_to(self._source, 0, _SECTOR)
        other = next((name for magic, name in _NOT_READ.items() if head.startswith(magic)), None)
        if other is not None:
            raise _bad("magic", f"{other}, which is not read", 0)
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
            CorruptImage: The disk has a parent, or the descriptor has more extents than are read.
        """
        text, is_whole = _read_descriptor(self._source, at, header.descriptor_size * _SECTOR)
        if not text:
            if any(read_up_to(self._source, at, min(header.descriptor_size * _SECTOR, _SECTOR))):
                self.problems.note(_DESCRIPTOR, "it does not begin as one", at)
            return  # empty, in one of several extents
        if not is_whole:
            self.problems.note(_DESCRIPTOR, f"only the first {_LARGEST_DESCRIPTOR} bytes of it are read", at)
        embedded = parse_descriptor(text)
        if embedded.parent_content_id is not None:
            raise _refused("the disk is the difference to another one, which is not read")
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

    def locate(self, offset: int) -> Run:
        """See `MappedDisk`."""
        grain, within = divmod(offset, self._grain)
        number, index = divmod(grain, self.header.entries_per_table)
        if self._other is not None:
            self._compare(number, index)
        table = self._tables.number(self._directory * _SECTOR + 4 * number, 4, "grain directory")
        if not table:
            return Run((self.header.entries_per_table - index) * self._grain - within)
        entry = self._tables.number(table * _SECTOR + 4 * index, 4, "grain table")
        left = self._grain - within
        if not entry or (entry == 1 and self.header.flags & ZEROED_GRAINS):
            return Run(left)
        start = entry * _SECTOR
        if entry < self.header.overhead:
            self.problems.note(
                "VMDK grain table", f"grain {grain} lies before the first one", table * _SECTOR + 4 * index
            )
        if self.header.flags & COMPRESSED:
            decode = functools.partial(self._decode, start, grain * self.header.grain_size)
            return Run(left, packed=Packed(start, decode, within))
        return Run(left, start + within)

    def _compare(self, number: int, index: int) -> None:
        """Report a difference between an entry of both directories' tables; a second one that can't be read differs."""
        found = []
        for directory in (self._directory, self._other or 0):
            table = self._entry_of(directory, number)
            found.append(self._entry_of(table, index) if table else table)
        if found[0] is not None and found[0] != found[1]:
            at = (self._other or 0) * _SECTOR + 4 * number
            self.problems.note("VMDK grain table", f"the second copy of table {number} differs from the first", at)

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


def _refused(message: str) -> CorruptImage:
    return CorruptImage(message, structure=_DESCRIPTOR)


def _bad(field: str, message: str, at: int) -> CorruptImage:
    return CorruptImage(message, structure="VMDK extent header", offset=at, field=field)
