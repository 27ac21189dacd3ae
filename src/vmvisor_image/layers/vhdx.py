"""VHDX: fixed, dynamic, and the difference to another disk. Source: Microsoft, [MS-VHDX] 8.0.

The parent is found beside the disk. The log of a disk that was not closed is replayed in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from uuid import UUID

from vmvisor_image.base.open_options import ParentChoice
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers.crc32c import crc32c
from vmvisor_image.layers.parents import Reference, find_parent, first_there, refuse_snapshot
from vmvisor_image.layers.vhdx_log import replay
from vmvisor_image.schemas.vhdx import (
    BAT_REGION,
    DISK_ID,
    DISK_SIZE,
    FILE_MAGIC,
    FILE_PARAMETERS,
    FULLY_PRESENT,
    HAS_PARENT,
    HEADER_MAGIC,
    HEADER_SIZE,
    HEADERS,
    METADATA_MAGIC,
    METADATA_REGION,
    NOT_PRESENT,
    PARENT_LOCATOR,
    PARTIALLY_PRESENT,
    PHYSICAL_SECTOR_SIZE,
    REGION_MAGIC,
    REGION_TABLES,
    SECTOR_SIZE,
    TABLE_SIZE,
    VHDX_LOCATOR,
    MetadataTableEntry,
    MetadataTableHeader,
    ParentLocatorEntry,
    ParentLocatorHeader,
    RegionTableEntry,
    RegionTableHeader,
    VhdxHeader,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.tables import Tables

NAME: Final = "VHDX"
KIND: Final = "vhdx"
SUFFIXES: Final = (".vhdx", ".avhdx")
MAGICS: Final = (Signature("vhdx", "Hyper-V disk image (VHDX)", 0, b"vhdxfile", content="disk"),)
REFERENCES: Final = ("Microsoft, [MS-VHDX] 8.0",)
_LOCATOR: Final = "VHDX parent locator"
_PATHS: Final = ("relative_path", "volume_path", "absolute_win32_path")
"""Keys of the parent's paths in a locator, in the order in which they count ([MS-VHDX] 2.6.2.6.3)."""
_LARGEST_LOCATOR: Final = 1 << 20
"""Bytes of a parent locator that are read; all items together have no more ([MS-VHDX] 2.6.1.2)."""
_MIB: Final = 1 << 20
_MOST_ENTRIES: Final = 2047
"""Largest number of entries in a region table or a metadata table ([MS-VHDX], 2.2.3.1 and 2.6.1.1)."""
_LARGEST_DISK: Final = 64 << 40
"""Largest size of a disk in bytes ([MS-VHDX] 2.6.2.2)."""
_LOOKED_AHEAD: Final = 64
"""Entries of the block allocation table in which the end of a hole, or of blocks in a row, is looked for."""
_STATE: Final = 0x7
_RESERVED_STATES: Final = (4, 5)
"""Reserved states of a payload block ([MS-VHDX] 2.5.1.1)."""
_IS_REQUIRED: Final = 0x4
"""Flag of a required metadata item ([MS-VHDX] 2.6.1.2)."""
_KNOWN_ITEMS: Final = (FILE_PARAMETERS, DISK_SIZE, SECTOR_SIZE, PHYSICAL_SECTOR_SIZE, DISK_ID, PARENT_LOCATOR)
_BITMAP_BITS: Final = 1 << 23
"""Number of sectors that one block of a sector bitmap covers."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is VHDX."""
    return head[:8] == FILE_MAGIC


def open_layer(source: ReadAt, options: LayerOptions) -> MappedDisk:
    """The disk in a VHDX.

    Raises:
        CorruptImage: Both headers, both region tables or the metadata are damaged, or the log can't be replayed; or the
            disk that it rests on can't be opened or is another one.
        UnsafeName: The name of that disk does not name a file.
        MemberNotFound: A snapshot is asked for.
    """
    refuse_snapshot(NAME, options)
    reader = _Reader(source)
    parent = None
    if reader.has_parent:
        parent = find_parent(first_there(reader.references(options), options), options, reader.problems)
    if parent is not None:
        reader.compare(parent)
    return VhdxDisk(reader, parent)


class VhdxDisk(MappedDisk):
    """A disk, with what must be the same along a chain."""

    def __init__(self, reader: _Reader, parent: Parent | None) -> None:
        identity = _braced(reader.data_write_id)
        super().__init__(
            KIND, reader.source, reader.size, reader.locate, reader.problems, parent=parent, identity=identity
        )
        self.disk_id, self.sector = reader.disk_id, reader.sector
        self.facts = reader.facts


class _Reader:
    def __init__(self, source: ReadAt) -> None:
        self.source: Source = as_source(source)
        """The file as it is once its log is replayed."""
        self.problems = ProblemList("VHDX disk")
        header = self._read_header()
        self.data_write_id = header.data_write_id
        """GUID of the disk's content, which a child has as that of its parent."""
        self.facts: Mapping[str, str] = {}
        if any(header.log_id):  # it was not closed
            self.source = replayed = replay(self.source, header, _checksum_is_right, self.problems)
            self.facts = {"VHDX log": replayed.fact}
        regions = self._read_regions()
        for region_id, name in ((BAT_REGION, "block allocation table"), (METADATA_REGION, "metadata")):
            if region_id not in regions:
                raise CorruptImage(f"it has no {name}", structure="VHDX region table", offset=REGION_TABLES[0])
        self._check_places(header, regions)
        self._table = regions[BAT_REGION].offset
        self._table_entries = regions[BAT_REGION].region_length // 8
        self._metadata = regions[METADATA_REGION].offset
        self._metadata_size = regions[METADATA_REGION].region_length
        self._read_metadata()
        self._tables = Tables(KIND, self.source, "little")

    def _read_metadata(self) -> None:
        items = self._read_items()
        parameters = self._item(items, FILE_PARAMETERS, 8)
        self._block = int.from_bytes(parameters[:4], "little")
        self.has_parent = bool(int.from_bytes(parameters[4:], "little") & HAS_PARENT)
        self._locator = items.get(PARENT_LOCATOR)
        if self._locator is not None and not self.has_parent:
            message = "it has a parent locator, and its parameters say that it has no parent"
            self.problems.note("VHDX metadata", message, self._locator.source_offset or self._metadata)
        self.disk_id = self._item(items, DISK_ID, 16) if DISK_ID in items else None
        """GUID of the disk, which is that of its parent; None where it is missing."""
        self.size = int.from_bytes(self._item(items, DISK_SIZE, 8), "little")
        self.sector = sector = int.from_bytes(self._item(items, SECTOR_SIZE, 4), "little")
        """Bytes in a sector of the disk."""
        if not _MIB <= self._block <= 256 * _MIB or self._block & (self._block - 1):
            raise self._bad(f"{self._block} bytes are not a valid block size")
        if sector not in (512, 4096):
            raise self._bad(f"{sector} bytes are not a valid sector size")
        if self.size > _LARGEST_DISK:
            raise self._bad(f"a disk of {self.size} bytes is larger than the largest allowed, {_LARGEST_DISK}")
        for item_id, name in ((DISK_ID, "identifier"), (PHYSICAL_SECTOR_SIZE, "physical sectors")):
            if item_id not in items:
                self.problems.note("VHDX metadata", f"the item of the disk's {name} is missing", self._metadata)
        if not self.size:
            self.problems.note("VHDX metadata", "the disk has no bytes", self._metadata)
        if self.size % sector:
            self.problems.note("VHDX metadata", f"the disk's {self.size} bytes are not whole sectors", self._metadata)
        self._ratio = _BITMAP_BITS * sector // self._block
        """Number of payload blocks before each sector bitmap block in the block allocation table."""
        blocks = -(-self.size // self._block)
        needed = blocks + (blocks - 1) // self._ratio
        if self.has_parent:
            needed = -(-blocks // self._ratio) * (self._ratio + 1)
        if blocks and needed > self._table_entries:
            raise self._bad(f"the block allocation table is too short for {self.size} bytes")

    def _read_header(self) -> VhdxHeader:
        found = []
        for at in HEADERS:
            data = read_up_to(self.source, at, HEADER_SIZE)
            if len(data) == HEADER_SIZE and data[:4] == HEADER_MAGIC and _checksum_is_right(data):
                found.append(VhdxHeader.parse(data, base=at))
            else:
                self.problems.note("VHDX header", "it is damaged", at)
        if not found:
            raise CorruptImage("both headers are damaged", structure="VHDX header", offset=HEADERS[0])
        if found[0].sequence_number == found[-1].sequence_number and found[0].raw != found[-1].raw:
            self.problems.note("VHDX header", "both have the same sequence number, but differ", HEADERS[1])
        return max(found, key=lambda header: header.sequence_number)

    def _check_places(self, header: VhdxHeader, regions: dict[bytes, RegionTableEntry]) -> None:
        """Report unknown versions ([MS-VHDX] 2.2.2), and regions and a log that are misplaced or overlap (2.2.3)."""
        at = header.source_offset or 0
        if header.version != 1 or header.log_version:
            self.problems.note(
                "VHDX header", f"versions {header.version} and {header.log_version}, not 1 and 0", at + 64
            )
        places = [(0, _MIB, 0), (header.log_offset, header.log_length, at + 68)]
        places += [(entry.offset, entry.region_length, entry.source_offset or 0) for entry in regions.values()]
        end = 0
        for start, length, told_at in sorted(places):
            if start < end or start % _MIB or length % _MIB or start + length > self.source.size:
                self.problems.note(
                    "VHDX region", "it overlaps another one, passes the end, or is not a whole number of MiB", told_at
                )
            end = max(end, start + length)

    def _read_regions(self) -> dict[bytes, RegionTableEntry]:
        for at in REGION_TABLES:
            data = read_up_to(self.source, at, TABLE_SIZE)
            if len(data) == TABLE_SIZE and data[:4] == REGION_MAGIC and _checksum_is_right(data):
                header = RegionTableHeader.parse(data, base=at)
                if header.entry_count > _MOST_ENTRIES:
                    message = f"it has {header.entry_count} entries, and there is room for {_MOST_ENTRIES}"
                    self.problems.note("VHDX region table", message, at)
                    continue
                entries = data[RegionTableHeader.length() :][: header.entry_count * RegionTableEntry.length()]
                found = tuple(RegionTableEntry.parse_all(entries, base=at + RegionTableHeader.length()))
                for entry in found:
                    if entry.required & 1 and entry.region_id not in (BAT_REGION, METADATA_REGION):
                        raise CorruptImage(
                            "a region that a reader has to know is not known",
                            structure="VHDX region table",
                            offset=entry.source_offset,
                        )
                return {entry.region_id: entry for entry in found}
            self.problems.note("VHDX region table", "it is damaged", at)
        raise CorruptImage("both region tables are damaged", structure="VHDX region table", offset=REGION_TABLES[0])

    def _read_items(self) -> dict[bytes, MetadataTableEntry]:
        data = read_up_to(self.source, self._metadata, TABLE_SIZE)
        if data[:8] != METADATA_MAGIC:
            raise self._bad("there is no such structure here")
        header = MetadataTableHeader.parse(data, base=self._metadata)
        if header.entry_count > _MOST_ENTRIES:
            raise self._bad(f"it has {header.entry_count} entries, and there is room for {_MOST_ENTRIES}")
        start = MetadataTableHeader.length()
        entries = data[start:][: header.entry_count * MetadataTableEntry.length()]
        found = tuple(MetadataTableEntry.parse_all(entries, base=self._metadata + start))
        for entry in found:
            if entry.flags & _IS_REQUIRED and entry.item_id not in _KNOWN_ITEMS:
                raise self._bad("an item that a reader has to know is not known")
            if entry.reserved:
                at = entry.source_offset or self._metadata
                self.problems.note("VHDX metadata", "bits of an item that must be 0 are not 0", at)
        return {entry.item_id: entry for entry in found}

    def _item(self, items: dict[bytes, MetadataTableEntry], item_id: bytes, length: int) -> bytes:
        entry = items.get(item_id)
        if entry is None or entry.item_length < length:
            raise self._bad(f"an item of {length} bytes is missing")
        if entry.item_length != length:
            message = f"an item has {entry.item_length} bytes, not {length}"
            self.problems.note("VHDX metadata", message, entry.source_offset or self._metadata)
        return self._value(entry, length)

    def _value(self, entry: MetadataTableEntry, length: int) -> bytes:
        """The first `length` bytes of an item."""
        if not TABLE_SIZE <= entry.offset <= self._metadata_size - length:  # [MS-VHDX] 2.6.1.2
            raise self._bad(f"an item at byte {entry.offset:#x} of it is not in its region, or in its table")
        return self.source.read_at(self._metadata + entry.offset, length)

    def _bad(self, message: str) -> CorruptImage:
        return CorruptImage(message, structure="VHDX metadata", offset=self._metadata)

    def references(self, options: LayerOptions) -> list[Reference]:
        """References to the parent, in the order in which they count ([MS-VHDX] 2.6.2.6.3).

        Raises:
            CorruptImage: There are none, and the parent is to be found by them.
        """
        values: dict[str, str] = {}
        at = self._metadata
        try:
            values = dict(self._locator_values())
        except CorruptImage as error:
            if isinstance(options.parent, ParentChoice):
                raise
            self.problems.note(error.structure, error.message, error.offset)
        if self._locator is not None:
            at += self._locator.offset
        linkage = _guid(values.get("parent_linkage"))
        if linkage is None and values:
            self.problems.note(_LOCATOR, "it has no parent_linkage, so that the parent can't be checked", at)
        other = _guid(values.get("parent_linkage2"))
        names = [values[key] for key in _PATHS if values.get(key)]
        if not names and isinstance(options.parent, ParentChoice):
            raise CorruptImage("it has no path of the parent: give it as parent", structure=_LOCATOR, offset=at)
        return [Reference(name, _LOCATOR, at, KIND, linkage, other) for name in names or [""]]

    def _locator_values(self) -> Iterator[tuple[str, str]]:
        """Keys and values of the parent locator ([MS-VHDX] 2.6.2.6).

        Raises:
            CorruptImage: It is missing or damaged, or of an unknown type.
        """
        item = self._locator
        if item is None:
            raise CorruptImage("it is missing", structure=_LOCATOR, offset=self._metadata)
        at = self._metadata + item.offset
        data = self._value(item, min(item.item_length, _LARGEST_LOCATOR))
        header = ParentLocatorHeader.parse(data, base=at)
        if header.locator_type != VHDX_LOCATOR:
            message = f"it is of type {_braced(header.locator_type)}, which is not known"
            raise CorruptImage(message, structure=_LOCATOR, offset=at)
        start, size = ParentLocatorHeader.length(), ParentLocatorEntry.length()
        for each in ParentLocatorEntry.parse_all(data[start : start + header.count * size], base=at + start):
            key = data[each.key_offset : each.key_offset + each.key_length]
            value = data[each.value_offset : each.value_offset + each.value_length]
            if len(key) < each.key_length or len(value) < each.value_length:
                raise CorruptImage("an entry passes its end", structure=_LOCATOR, offset=each.source_offset)
            yield key.decode("utf-16-le", "replace"), value.decode("utf-16-le", "replace")

    def compare(self, parent: Parent) -> None:
        """Report what differs from the parent, and must not ([MS-VHDX] 2.6.2)."""
        differs = []
        if parent.source.size != self.size:
            differs.append(f"it has {parent.source.size} bytes, and the disk {self.size}")
        if isinstance(parent.source, VhdxDisk):
            if parent.source.sector != self.sector:
                differs.append(f"its sectors have {parent.source.sector} bytes, and those of the disk {self.sector}")
            there, here = parent.source.disk_id, self.disk_id
            if there is not None and here is not None and there != here:
                differs.append(f"it is of the disk {_braced(there)}, and not of {_braced(here)}")
        for each in differs:
            self.problems.note("VHDX metadata", f"the parent {parent.name!r} differs: {each}", self._metadata)

    def locate(self, offset: int, _: int) -> Run:
        """See `MappedDisk`."""
        block, within = divmod(offset, self._block)
        chunk, number = divmod(block, self._ratio)
        at = self._table + 8 * (block + chunk)
        entry = self._tables.number(at, 8, "block allocation table")
        state = entry & _STATE
        if state in _RESERVED_STATES:
            raise CorruptImage(
                f"its state is {state}, which is not defined", structure="VHDX block allocation table", offset=offset
            )
        left = self._block - within
        start = (entry >> 20) * _MIB + within
        if state == FULLY_PRESENT:
            # An entry is the block's first byte in the file and its state: those of blocks in a row rise by a block.
            count = min(self._tables.rising(at, self._block, _LOOKED_AHEAD), self._ratio - number)
            return Run(count * self._block - within, start)
        if state == NOT_PRESENT:
            absent = min(max(1, self._tables.zeros(at, 8 * _LOOKED_AHEAD) // 8), self._ratio - number)
            return Run(absent * self._block - within, is_hole=True)
        if state != PARTIALLY_PRESENT:
            return Run(left)
        if not self.has_parent:
            raise CorruptImage(
                "a part of it is in the parent, and it has none", structure="VHDX block allocation table", offset=at
            )
        return self._locate_sectors(chunk, number, within, start)

    def _locate_sectors(self, chunk: int, number: int, within: int, start: int) -> Run:
        """See `MappedDisk`; in a block that is there in part, a bit for each sector says whether it is."""
        at = self._table + 8 * (chunk * (self._ratio + 1) + self._ratio)
        entry = self._tables.number(at, 8, "block allocation table")
        if entry & _STATE != FULLY_PRESENT:
            message = f"the sector bitmap of a block that is there in part has the state {entry & _STATE}"
            raise CorruptImage(message, structure="VHDX block allocation table", offset=at, expected=FULLY_PRESENT)
        sector, skip = divmod(within, self.sector)
        byte, bit = divmod(number * (self._block // self.sector) + sector, 8)
        most = self._block // self.sector - sector
        place = (entry >> 20) * _MIB + byte
        is_here, count = self._tables.same_bits(place, bit, most, "sector bitmap", high_first=False)
        length = count * self.sector - skip
        return Run(length, start) if is_here else Run(length, is_hole=True)


def _braced(guid: bytes) -> str:
    """A GUID as a parent locator has it."""
    return f"{{{UUID(bytes_le=guid)}}}"


def _guid(text: str | None) -> str | None:
    """A GUID in braces, in lower case; None for zeros, and for anything else."""
    try:
        found = UUID((text or "").strip("{} \0"))
    except ValueError:
        return None
    return f"{{{found}}}" if found.int else None


def _checksum_is_right(data: bytes) -> bool:
    return crc32c(data[:4] + bytes(4) + data[8:]) == int.from_bytes(data[4:8], "little")
