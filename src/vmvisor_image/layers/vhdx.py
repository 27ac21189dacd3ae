"""VHDX, fixed and dynamic. Source: Microsoft, [MS-VHDX] 8.0.

Differencing disks are recognised and refused. The log of a disk that was not closed is replayed in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers.crc32c import crc32c
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
    PARENT_LOCATOR,
    PARTIALLY_PRESENT,
    PHYSICAL_SECTOR_SIZE,
    REGION_MAGIC,
    REGION_TABLES,
    SECTOR_SIZE,
    TABLE_SIZE,
    MetadataTableEntry,
    MetadataTableHeader,
    RegionTableEntry,
    RegionTableHeader,
    VhdxHeader,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.mapped import MappedDisk, Run, Tables
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source

NAME: Final = "VHDX"
KIND: Final = "vhdx"
SUFFIXES: Final = (".vhdx",)
MAGICS: Final = (Signature("vhdx", "Hyper-V disk image (VHDX)", 0, b"vhdxfile", content="disk"),)
REFERENCES: Final = ("Microsoft, [MS-VHDX] 8.0",)
_MIB: Final = 1 << 20
_MOST_ENTRIES: Final = 2047
"""Largest number of entries in a region table or a metadata table ([MS-VHDX], 2.2.3.1 and 2.6.1.1)."""
_LARGEST_DISK: Final = 64 << 40
"""Largest size of a disk in bytes ([MS-VHDX] 2.6.2.2)."""
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


def open_layer(source: ReadAt, options: LayerOptions) -> MappedDisk:  # noqa: ARG001  # as every layer
    """The disk in a VHDX.

    Raises:
        CorruptImage: Both headers, both region tables or the metadata are damaged, or it is a differencing disk.
    """
    reader = _Reader(source)
    disk = MappedDisk(KIND, reader.source, reader.size, reader.locate, reader.problems)
    disk.facts = reader.facts
    return disk


class _Reader:
    def __init__(self, source: ReadAt) -> None:
        self.source: Source = as_source(source)
        """The file as it is once its log is replayed."""
        self.problems = ProblemList("VHDX disk")
        header = self._read_header()
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
        if int.from_bytes(parameters[4:], "little") & HAS_PARENT:
            raise self._bad("it is the difference to another disk, which is not read")
        self.size = int.from_bytes(self._item(items, DISK_SIZE, 8), "little")
        sector = int.from_bytes(self._item(items, SECTOR_SIZE, 4), "little")
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
        if blocks and blocks + (blocks - 1) // self._ratio > self._table_entries:
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
        if not TABLE_SIZE <= entry.offset <= self._metadata_size - length:  # [MS-VHDX] 2.6.1.2
            raise self._bad(f"an item at byte {entry.offset:#x} of it is not in its region, or in its table")
        if entry.item_length != length:
            message = f"an item has {entry.item_length} bytes, not {length}"
            self.problems.note("VHDX metadata", message, entry.source_offset or self._metadata)
        return self.source.read_at(self._metadata + entry.offset, length)

    def _bad(self, message: str) -> CorruptImage:
        return CorruptImage(message, structure="VHDX metadata", offset=self._metadata)

    def locate(self, offset: int) -> Run:
        """See `MappedDisk`."""
        block, within = divmod(offset, self._block)
        entry = self._tables.number(self._table + 8 * (block + block // self._ratio), 8, "block allocation table")
        state = entry & _STATE
        if state in _RESERVED_STATES:
            raise CorruptImage(
                f"its state is {state}, which is not defined", structure="VHDX block allocation table", offset=offset
            )
        if state == PARTIALLY_PRESENT:
            raise CorruptImage(
                "a part of it is on another disk, which is not read", structure="VHDX block", offset=offset
            )
        left = self._block - within
        return Run(left, (entry >> 20) * _MIB + within) if state == FULLY_PRESENT else Run(left)


def _checksum_is_right(data: bytes) -> bool:
    return crc32c(data[:4] + bytes(4) + data[8:]) == int.from_bytes(data[4:8], "little")
