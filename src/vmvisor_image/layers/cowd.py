"""COWD, the sparse extents of ESX for snapshots (vmfsSparse). Source: libvmdk's documentation; QEMU, block/vmdk.c.

A VMDK descriptor puts such extents into a disk, and says what they rest on.
"""

from __future__ import annotations

from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers.extent import LOOKED_AHEAD, PER_TABLE, SECTOR, SparseExtent
from vmvisor_image.layers.parents import refuse_snapshot
from vmvisor_image.schemas.cowd import MAGIC, CowdHeader
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "VMDK extent, COWD"
KIND: Final = "cowd"
SUFFIXES: Final = ()
MAGICS: Final = (Signature(KIND, "VMware sparse extent of ESX (COWD)", 0, MAGIC + b"\1\0\0\0", content="disk"),)
REFERENCES: Final = ("libvmdk, documentation/VMWare Virtual Disk Format (VMDK).asciidoc", "QEMU, block/vmdk.c")
_LARGEST_GRAIN: Final = 1 << 14
"""Largest grain in sectors, as of hosted extents."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a COWD extent."""
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
        super().__init__(KIND, "COWD extent", source)
        self._header = header = CowdHeader.parse(read_up_to(source, 0, CowdHeader.length()))
        if header.version != 1:
            raise _bad("version", f"version {header.version} is not known, only 1", 4)
        if not 1 <= header.grain_size <= _LARGEST_GRAIN:
            raise _bad("grain_size", f"{header.grain_size} sectors are not a valid grain size", 16)
        tables = -(-header.capacity // (header.grain_size * PER_TABLE))
        if tables > header.directory_entries:
            message = f"{header.directory_entries}, which are too few for {header.capacity} sectors"
            raise _bad("directory_entries", message, 24)
        if header.unclean_shutdown:
            self.problems.note("COWD extent header", "the disk was in use when the image was made", 1648)
        self.capacity = header.capacity
        self.grain, self.entry = header.grain_size * SECTOR, 4

    def locate(self, offset: int, _: int) -> Run:
        """See `MappedDisk`."""
        number, within = divmod(offset, self.grain * PER_TABLE)
        table = self.table_at(number)
        if not table:
            absent = max(1, self._directory.zeros(self._directory_entry(number)) // 4)
            return Run(absent * self.grain * PER_TABLE - within, is_hole=True)
        index, within = divmod(within, self.grain)
        at = table + 4 * index
        sector = self._tables.number(at, 4, "grain table")
        if not sector:
            absent = min(self._tables.zeros(at, 8 * LOOKED_AHEAD) // 4, PER_TABLE - index)
            return Run(absent * self.grain - within, is_hole=True)
        most = min(LOOKED_AHEAD // 4, PER_TABLE - index)
        count = self._tables.rising(at, self._header.grain_size, most, 4)
        return Run(count * self.grain - within, sector * SECTOR + within)

    def table_at(self, number: int) -> int:
        """See `SparseExtent.table_at`."""
        return self._directory.number(self._directory_entry(number), 4, "grain directory") * SECTOR

    def _directory_entry(self, number: int) -> int:
        return self._header.directory * SECTOR + 4 * number


def _bad(field: str, message: str, at: int) -> CorruptImage:
    return CorruptImage(message, structure="COWD extent header", offset=at, field=field)
