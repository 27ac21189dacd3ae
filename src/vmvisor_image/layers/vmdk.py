"""VMDK: sparse and streamOptimized extents, and descriptors that put extents together.

Source: VMware, Virtual Disk Format 5.0. Differences to other disks, and sparse extents of ESX (COWD, SESPARSE), are
known and refused.
"""

from __future__ import annotations

import functools
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

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
"""Bytes: as many extents as are read, with names of 200 characters."""
_LARGEST_GRAIN: Final = 1 << 14
"""Sectors: 8 MiB. The specification's default is 128."""
_ENTRIES: Final = 512
"""Entries of a grain table, always (Virtual Disk Format 5.0, "Hosted Sparse Extent Header")."""
_LAST_VERSION: Final = 3
_MOST_TABLES: Final = 1 << 22
"""Grain tables of an extent; looking for data in an empty one passes each."""
_NOT_READ: Final = {
    COWD_MAGIC: "a sparse extent of ESX (COWD)",
    SESPARSE_MAGIC: "a space-efficient sparse extent of ESXi (seSparse)",
}
_MOST_EXTENTS: Final = 1 << 16
"""Extents of 2 GB as hosted products write them are 128 TB then."""
_DESCRIPTOR: Final = "VMDK descriptor"
_MOST_PROBLEMS: Final = 100
"""Of one descriptor."""
_CREATE_TYPES: Final = frozenset(
    (
        *("monolithicsparse", "monolithicflat", "twogbmaxextentsparse", "twogbmaxextentflat", "streamoptimized"),
        *("fulldevice", "partitioneddevice", "custom", "vmfs", "vmfssparse", "vmfsthin", "vmfspreallocated"),
        *("vmfseagerzeroedthick", "vmfsraw", "vmfsrdm", "vmfsrdmp", "vmfsrawdevicemap"),
        *("vmfspassthroughrawdevicemap", "sesparse", "vsansparse"),
    )
)
"""`createType` in lower case (Virtual Disk Format 5.0, "The Header"), and those of later products."""
_STREAM_OPTIMIZED: Final = "streamoptimized"
_NO_PARENT: Final = 0xFFFFFFFF
_ACCESS: Final = re.compile(r"\s*(RW|RDONLY|NOACCESS)\b(?!\s*=)", re.IGNORECASE)
"""What a line about an extent begins with."""
_EXTENT: Final = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,18})\s+(\w+)(?:\s+"([^"]*)")?(?:\s+(\d{1,18})(?:\s+[A-Za-z].*)?)?', re.ASCII
)
"""All of such a line; behind the offset hosted products name the device of a disk that is one."""
_EXTENT_BYTES: Final = re.compile(rb"(RW|RDONLY|NOACCESS)\s+\d", re.IGNORECASE)
_SETTING: Final = re.compile(r'\s*([\w.]+)\s*=\s*"?([^"]*)"?\s*')


@dataclass(frozen=True, slots=True)
class DescribedExtent:
    """One line of a descriptor that says where a part of the disk is."""

    access: str
    """"RW", "RDONLY" or "NOACCESS"."""
    sectors: int
    """Sectors of 512 bytes."""
    kind: str
    """"FLAT", "SPARSE", "ZERO", "VMFS" and others."""
    name: str | None
    """File name, beside the descriptor."""
    offset: int
    """First sector in that file, of flat extents."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A VMDK descriptor."""

    create_type: str | None
    """"monolithicSparse", "vmfs" and others."""
    content_id: int | None
    """Changes with the content."""
    parent_content_id: int | None
    """Content id of the disk that this one is a difference to; None where it stands alone."""
    extents: tuple[DescribedExtent, ...]
    """In the order of the disk."""
    unread: tuple[str, ...] = ()
    """Lines about extents that make no sense: where they lie in the disk is not known."""
    problems: tuple[Problem, ...] = ()
    """Other lines that are none of a descriptor, and settings that are missing or not known."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a sparse extent or a descriptor."""
    return head.startswith((MAGIC, DESCRIPTOR_MAGIC, *_NOT_READ))


def open_layer(source: ReadAt, options: LayerOptions) -> Source:
    """The disk.

    Raises:
        CorruptImage: A header, a table or the descriptor is damaged, or asks for what this library does not read.
    """
    head = read_up_to(source, 0, _SECTOR)
    if head.startswith(DESCRIPTOR_MAGIC):
        text, is_whole = _read_descriptor(source, 0, source.size)
        if not is_whole:
            raise _refused(f"it has more than the {_LARGEST_DESCRIPTOR} bytes that are read")
        rest = read_up_to(source, len(text), _LARGEST_DESCRIPTOR)
        padding = -len(text) % _SECTOR  # in which qemu-img leaves what its memory held
        if rest[padding:].strip(b"\0") or _EXTENT_BYTES.search(
            rest[:padding]
        ):  # QEMU stops there, too; but extents may be behind it
            raise _refused(f"its text goes on behind a NUL at byte {len(text):#x}")
        return join_extents(parse_descriptor(text), options.neighbour)
    return open_sparse(source)


def _read_descriptor(source: ReadAt, offset: int, length: int) -> tuple[bytes, bool]:
    """The text there, which ends after `length` bytes or before the first NUL, and whether that is all of it."""
    text = read_up_to(source, offset, min(length, _LARGEST_DESCRIPTOR)).partition(b"\0")[0]
    return text, len(text) < _LARGEST_DESCRIPTOR or length <= _LARGEST_DESCRIPTOR


def parse_descriptor(data: bytes) -> Descriptor:
    """Read the text of a descriptor; lines that are not known are passed over.

    Raises:
        CorruptImage: It has more extents than are read.
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
            problems.note(_DESCRIPTOR, f"a line that is none of a descriptor, {line[:80]!r}")
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
        neighbour: Opens a file beside it; None where that can't be.

    Raises:
        CorruptImage: An extent is of a kind that is not read, or is not there, or a line about one makes no sense.
        UnsafeName: An extent's name would lead elsewhere.
    """
    if descriptor.parent_content_id is not None:
        raise _refused("the disk is the difference to another one, which is not read")
    if descriptor.unread:  # without them the disk would be another one
        raise _refused(f"a line about an extent makes no sense: {descriptor.unread[0]!r:.200}")
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
        raise _refused(f"its extent {name!r} is another file, and where that is is not known: open it by its path")
    try:
        return neighbour(name)
    except (OSError, KeyError) as error:
        raise _refused(f"its extent {name!r} can't be opened: {error}") from error


class JoinedExtents(Pieced):
    """A disk of several extents, one after the other."""

    _structure = "vmdk disk"

    def __init__(self, parts: tuple[tuple[int, ReadAt | None, int], ...], problems: tuple[Problem, ...] = ()) -> None:
        """Take bytes, source (None for zeros) and first byte in the source of each extent; and what else is wrong."""
        self._parts = [(None if source is None else as_source(source), first) for _, source, first in parts]
        self._problems = problems
        self._starts = [0]
        for length, _, _ in parts:
            self._starts.append(self._starts[-1] + length)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged in the descriptor, and in the extents as far as they were read."""
        of_extents = (problem for source, _ in self._parts if source is not None for problem in source.problems)
        return tuple(dict.fromkeys([*self._problems, *of_extents]))

    @property
    def size(self) -> int:
        """Bytes of the disk."""
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
    """A sparse or streamOptimized extent.

    Raises:
        CorruptImage: Its header is damaged, or asks for what this library does not read.
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
        """The directory that the one in use is held against."""

    def _read_header(self) -> SparseExtentHeader:
        head = read_up_to(self._source, 0, _SECTOR)
        other = next((name for magic, name in _NOT_READ.items() if head.startswith(magic)), None)
        if other is not None:
            raise _bad("magic", f"{other}, which is not read", 0)
        header = SparseExtentHeader.parse(head)
        if header.magic != MAGIC:
            raise _bad("magic", "it is none", 0)
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
            raise _bad("grain_size", f"{grain} sectors are no size of a grain", at + 20)
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
        """Tell of fields that can't be right; the header lies at `at`."""
        if not 1 <= header.version <= _LAST_VERSION:
            self.problems.note("VMDK extent header", f"version {header.version} is not known", at + 4)
        if header.entries_per_table != _ENTRIES:
            self.problems.note("VMDK extent header", f"{header.entries_per_table} entries in a table, not 512", at + 44)
        if header.overhead * _SECTOR > self._source.size:
            self.problems.note("VMDK extent header", "its grains begin past the end of the source", at + 64)
        if header.descriptor_offset and header.descriptor_size:
            self._check_embedded(header, header.descriptor_offset * _SECTOR)

    def _check_embedded(self, header: SparseExtentHeader, at: int) -> None:
        """Whether the descriptor in the extent says that it is all of a disk, and the same of it as the header."""
        text, is_whole = _read_descriptor(self._source, at, header.descriptor_size * _SECTOR)
        if not text:
            if any(read_up_to(self._source, at, min(header.descriptor_size * _SECTOR, _SECTOR))):
                self.problems.note(_DESCRIPTOR, "it does not begin as one", at)
            return  # room for one, in one extent of several
        if not is_whole:
            self.problems.note(_DESCRIPTOR, f"only the first {_LARGEST_DESCRIPTOR} bytes of it are read", at)
        embedded = parse_descriptor(text)
        if embedded.parent_content_id is not None:
            raise _refused("the disk is the difference to another one, which is not read")
        for problem in embedded.problems:
            self.problems.note(problem.structure, problem.message, at)
        if embedded.unread:
            self.problems.note(_DESCRIPTOR, f"a line that makes no sense, {embedded.unread[0]!r:.200}", at)
        if (embedded.create_type or "").casefold() == _STREAM_OPTIMIZED and not header.flags & COMPRESSED:
            self.problems.note("VMDK extent header", "its grains are not compressed, by the descriptor they are", 8)
        sectors = sum(extent.sectors for extent in embedded.extents)
        if embedded.extents and sectors != header.capacity:
            message = f"its {len(embedded.extents)} extents have {sectors} sectors, this one {header.capacity}"
            self.problems.note(_DESCRIPTOR, message, at)

    def _usable_directory(self) -> int:
        """Sector of the grain directory: the first one's, or that of the second where the first leads nowhere."""
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
        """An entry of the directory or table at a sector; None where the source ends before it."""
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
        """Hold an entry against that of the second directory's table; where that can't be read, it can't be used."""
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
