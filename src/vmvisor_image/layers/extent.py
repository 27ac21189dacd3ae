"""Common base of the sparse extents of ESX and ESXi, which a VMDK descriptor puts into a disk."""

from __future__ import annotations

from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import ProblemList
from vmvisor_image.layers.parents import parent_without_descriptor
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.mapped import MappedDisk, Run, Tables
from vmvisor_image.streams.source import ReadAt

SECTOR: Final = 512
PER_TABLE: Final = 4096
"""Number of entries of a grain table."""
LOOKED_AHEAD: Final = 512
"""Bytes of a table in which the end of grains in a row is looked for; that of a hole in eight times as many."""


class SparseExtent:
    """An extent whose grains are found by a directory and tables."""

    capacity: int
    """Size of the extent, in sectors; set by the format's reader."""

    def __init__(self, kind: str, structure: str, source: ReadAt) -> None:
        """Read an extent of a format; `structure` is its name for messages."""
        self._kind = kind
        self._structure = structure
        self._source = source
        self.problems = ProblemList(structure)
        """Damage found so far."""
        self._directory = Tables(kind, source, "little")
        self._tables = Tables(kind, source, "little")

    def locate(self, offset: int) -> Run:
        """See `MappedDisk`."""
        raise NotImplementedError

    def disk(self, parent: Parent | None = None) -> MappedDisk:
        """The data of the extent, on what it rests on; None where its descriptor says that."""
        size = self.capacity * SECTOR
        return MappedDisk(self._kind, self._source, size, self.locate, self.problems, parent=parent)

    def alone(self, options: LayerOptions) -> MappedDisk:
        """The data of the extent, opened without its descriptor, on the parent that is given."""
        return self.disk(parent_without_descriptor(self._structure, options, self.problems))
