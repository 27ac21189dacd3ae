"""Common base of the sparse extents of ESX and ESXi, which a VMDK descriptor puts into a disk."""

from __future__ import annotations

from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, ProblemList
from vmvisor_image.layers.parents import parent_without_descriptor
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.tables import EntryTable, Tables

SECTOR: Final = 512
PER_TABLE: Final = 4096
"""Number of entries of a grain table."""
LOOKED_AHEAD: Final = 512
"""Bytes of a table in which the end of grains in a row is looked for; that of a hole in eight times as many."""


class SparseExtent:
    """An extent whose grains are found by a directory and tables."""

    capacity: int
    """Size of the extent, in sectors; set by the format's reader."""
    grain: int
    """Bytes of a grain; set by the format's reader."""
    entry: int
    """Bytes of an entry of a grain table, 4 or 8; set by the format's reader."""

    def __init__(self, kind: str, structure: str, source: ReadAt) -> None:
        """Read an extent of a format; `structure` is its name for messages."""
        self._kind = kind
        self._structure = structure
        self._source = source
        self.problems = ProblemList(structure)
        """Damage found so far."""
        self._directory = Tables(kind, source, "little")
        self._tables = Tables(kind, source, "little")

    def locate(self, offset: int, _: int) -> Run:
        """See `MappedDisk`."""
        raise NotImplementedError

    def table_at(self, number: int) -> int:
        """First byte of a grain table in the source; 0 where all its grains are holes.

        Raises:
            CorruptImage: The entry of the grain directory is damaged.
        """
        raise NotImplementedError

    def _read_entries(self, number: int) -> bytes | None:
        """See `EntryTable`."""
        try:
            at = self.table_at(number)
        except CorruptImage:
            return None
        return self._tables.data(at, PER_TABLE * self.entry) or None if at else b""

    def disk(self, parent: Parent | None = None) -> MappedDisk:
        """The data of the extent, on what it rests on; None where its descriptor says that."""
        size = self.capacity * SECTOR
        disk = MappedDisk(self._kind, self._source, size, self.locate, self.problems, parent=parent)
        disk.entries = EntryTable(PER_TABLE, self.grain, self.entry, self._read_entries)
        return disk

    def alone(self, options: LayerOptions) -> MappedDisk:
        """The data of the extent, opened without its descriptor, on the parent that is given."""
        return self.disk(parent_without_descriptor(self._structure, options, self.problems))
