"""seSparse, the sparse extents of ESXi 5 and later for snapshots. Source: QEMU, block/vmdk.c, and real files.

A VMDK descriptor puts such extents into a disk, and says what they rest on. The journal is not replayed.
"""

from __future__ import annotations

from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers.extent import LOOKED_AHEAD, PER_TABLE, SECTOR, SparseExtent
from vmvisor_image.layers.parents import refuse_snapshot
from vmvisor_image.schemas.sesparse import MAGIC, VERSION, VOLATILE_MAGIC, SeSparseHeader, SeSparseVolatileHeader
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "VMDK extent, seSparse"
KIND: Final = "sesparse"
SUFFIXES: Final = ()
MAGICS: Final = (Signature(KIND, "VMware space-efficient sparse extent (seSparse)", 0, MAGIC, content="disk"),)
REFERENCES: Final = ("QEMU, block/vmdk.c",)
_GRAIN: Final = 8 * SECTOR
_MOST_TABLES: Final = 1 << 22
"""Largest number of grain tables of an extent, as of a hosted one: 64 TiB."""
_TABLE_IN_USE: Final = 0x1000_0000
"""Upper half of an entry of the grain directory that leads to a table."""
_ABSENT, _UNMAPPED, _ZERO, _STORED = range(4)
"""Upper four bits of an entry of a grain table."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is an seSparse extent."""
    return head.startswith(MAGIC)


def open_layer(source: ReadAt, options: LayerOptions) -> MappedDisk:
    """The data of an extent that is opened without its descriptor, on the parent that is given.

    Raises:
        CorruptImage: The header is damaged, or of another version.
        MemberNotFound: A snapshot inside the file is asked for.
    """
    refuse_snapshot(NAME, options)
    return _Reader(source).alone(options)


def open_extent(source: ReadAt) -> MappedDisk:
    """The data of an extent, which its descriptor puts into a disk.

    Raises:
        CorruptImage: The header is damaged, or of another version.
    """
    return _Reader(source).disk()


class _Reader(SparseExtent):
    def __init__(self, source: ReadAt) -> None:
        super().__init__(KIND, "seSparse extent", source)
        self._header = header = SeSparseHeader.parse(read_up_to(source, 0, SECTOR))
        self._check(header)
        self.capacity, self.grain, self.entry = header.capacity, _GRAIN, 8
        self._has_unmapped = False

    def _check(self, header: SeSparseHeader) -> None:
        if header.version != VERSION:
            found = f"{header.version >> 32}.{header.version & 0xFFFFFFFF}"
            raise _bad("version", f"version {found} is not known, only 2.1", 8)
        if header.grain_size * SECTOR != _GRAIN:
            raise _bad("grain_size", f"{header.grain_size} sectors, not 8", 24)
        if header.table_size * SECTOR != 8 * PER_TABLE:
            raise _bad("table_size", f"{header.table_size} sectors, not 64", 32)
        if header.flags:
            raise _bad("flags", f"{header.flags:#x}, which are not known", 40)
        tables = -(-header.capacity * SECTOR // (_GRAIN * PER_TABLE))
        if tables > min(header.directory_size * SECTOR // 8, _MOST_TABLES):
            message = f"{header.capacity} sectors need {tables} grain tables, more than the directory has or are read"
            raise _bad("capacity", message, 16)
        if not header.tables_offset:
            raise _bad("tables_offset", "the grain tables would begin in the header", 144)
        at = header.volatile_offset * SECTOR
        data = read_up_to(self._source, at, SeSparseVolatileHeader.length())
        volatile = None
        if len(data) == SeSparseVolatileHeader.length():
            volatile = SeSparseVolatileHeader.parse(data, base=at)
        if volatile is None or volatile.magic != VOLATILE_MAGIC:
            self.problems.note(
                "seSparse volatile header", "it is not there: whether the journal is needed is unknown", at
            )
        elif volatile.replay_journal:
            message = "its journal was to be replayed, which is not done: what was written last may be missing or wrong"
            self.problems.note("seSparse volatile header", message, at + 24)

    def locate(self, offset: int, _: int) -> Run:
        """See `MappedDisk`."""
        number, within = divmod(offset, _GRAIN * PER_TABLE)
        table = self.table_at(number)
        if not table:
            absent = max(1, self._directory.zeros(self._directory_entry(number)) // 8)
            return Run(absent * _GRAIN * PER_TABLE - within, is_hole=True)
        index, within = divmod(within, _GRAIN)
        at = table + 8 * index
        entry = self._tables.number(at, 8, "grain table")
        kind = entry >> 60
        most = min(LOOKED_AHEAD // 8, PER_TABLE - index)
        if kind == _STORED:  # the lower 12 bits of the grain's number are above the others
            low = entry >> 48 & 0xFFF
            grain = low | (entry & 0xFFFF_FFFF_FFFF) << 12
            count = self._tables.rising(at, 1 << 48, min(most, 0x1000 - low))
            start = self._header.grains_offset * SECTOR + grain * _GRAIN
            return Run(count * _GRAIN - within, start + within)
        if kind > _STORED or (kind == _ABSENT and entry):
            raise _damaged("grain table", at, entry)
        if kind == _UNMAPPED and not self._has_unmapped:
            self._has_unmapped = True
            message = "a grain was unmapped by the guest: it and others like it are read as zeros"
            self.problems.note("seSparse grain table", message, at)
        if kind == _ABSENT:
            absent = min(self._tables.zeros(at, 8 * LOOKED_AHEAD) // 8, PER_TABLE - index)
            return Run(absent * _GRAIN - within, is_hole=True)
        return Run(self._tables.rising(at, 0, most) * _GRAIN - within)

    def table_at(self, number: int) -> int:
        """See `SparseExtent.table_at`."""
        at = self._directory_entry(number)
        entry = self._directory.number(at, 8, "grain directory")
        if not entry:
            return 0
        table = entry & 0xFFFFFFFF
        if entry >> 32 != _TABLE_IN_USE or (table + 1) * self._header.table_size > self._header.tables_size:
            raise _damaged("grain directory", at, entry)
        return (self._header.tables_offset + table * self._header.table_size) * SECTOR

    def _directory_entry(self, number: int) -> int:
        return self._header.directory_offset * SECTOR + 8 * number


def _bad(field: str, message: str, at: int) -> CorruptImage:
    return CorruptImage(message, structure="seSparse header", offset=at, field=field)


def _damaged(table: str, at: int, found: int) -> CorruptImage:
    message = f"{found:#x} is not an entry that is known"
    return CorruptImage(message, structure=f"seSparse {table}", offset=at, field="entry")
