"""Places of a VMFS file's bytes: its pointers, intermediate blocks of pointers, and the blocks with the data.

All offsets here count from the volume's start, in bytes.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from typing import Final

from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.vmfs import DISK_BLOCK
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.volumes.vmfs.addresses import (
    FILE_BLOCK,
    LARGE_BLOCK,
    PB2,
    PBC,
    POINTER_BLOCK,
    SBC,
    SECONDARY_POINTER_BLOCK,
    SUB_BLOCK,
    BlockAddress,
    ResourceAddress,
    kind_of,
    parse_pointer_5,
    parse_pointer_6,
)
from vmvisor_image.volumes.vmfs.geometry import Geometry
from vmvisor_image.volumes.vmfs.lvm import LogicalVolume
from vmvisor_image.volumes.vmfs.resources import Descriptor, Layout, Report, ResourceFiles, bad_pointer

_DOUBLE, _RESIDENT = 0x10D0, 0x10D1
"""Values of `FileMetadata.pointer_type` of VMFS 5 and later, in addition to the kinds of addresses."""
_DIRECT: Final = frozenset({FILE_BLOCK, SUB_BLOCK, 0x10CD + FILE_BLOCK, 0x10CD + SUB_BLOCK})
"""`FileMetadata.pointer_type` of a file whose pointers lead to its data.

vmfs-tools and vmfs6-tools read the latter two as the first two; none of them was seen on a real volume.
"""
_INDIRECT: Final = {POINTER_BLOCK: 1, SECONDARY_POINTER_BLOCK: 1, _DOUBLE: 2}
"""Usual levels of blocks of pointers by `FileMetadata.pointer_type`; see `VmfsBlocks._find_levels`."""
_LARGEST_SHIFT: Final = 40
"""Largest shift of a unit of a file in bytes: more than any volume has in one piece."""
_MOST_TABLES: Final = 64
"""Blocks of pointers that are kept: 256 KiB, or 4 MiB for VMFS 6."""


class VmfsBlocks:
    """Data of the files of a volume; any number of threads may read."""

    def __init__(self, volume: LogicalVolume, geometry: Geometry, report: Report) -> None:
        """Blocks of a volume, none of which is read yet."""
        self._volume = volume
        self.geometry = geometry
        """Sizes of the volume's layout."""
        self.resources = ResourceFiles(volume, geometry, self.content, report)
        """Resource files, with the file descriptors in one of them."""
        self._is_6 = geometry.is_6
        self._parse = parse_pointer_6 if geometry.is_6 else parse_pointer_5
        self._width = geometry.generation.pointer_width
        self._pointer = struct.Struct("<Q" if geometry.is_6 else "<I")
        tables = {POINTER_BLOCK, SECONDARY_POINTER_BLOCK}
        self._table_kinds = frozenset({*tables, SUB_BLOCK} if geometry.is_6 else tables)
        """Kinds of pointers to blocks of pointers."""
        self._tables: LruCache[tuple[int, int], bytes] = LruCache(_MOST_TABLES)

    def content(self, descriptor: Descriptor, size: int | None = None) -> MappedDisk:
        """Data of a file, with zeros in its holes; `size` bytes of its blocks, or the whole file for None."""
        if size is None:
            size = descriptor.metadata.size
        return MappedDisk("VMFS file", self._volume, size, lambda offset, _: self._locate(descriptor, offset))

    def allocated(self, descriptor: Descriptor) -> int:
        """Bytes for which a file's blocks have room, as its descriptor says, if it has no holes."""
        return descriptor.metadata.block_count * self._unit(descriptor, self._pointers_in(self._own_table(descriptor)))

    def extents(self, descriptor: Descriptor, *, allocated: bool = False) -> Iterator[tuple[int, int]]:
        """First byte and length of each run of a file's data; holes are left out.

        Args:
            descriptor: Descriptor of the file.
            allocated: Whether to include allocated blocks that were never written, in VMFS 3 and 5.

        Raises:
            CorruptImage: A pointer is damaged, or there is more data than the volume has room for.
        """
        size, at, room = descriptor.metadata.size, 0, self._volume.size
        while at < size:
            run = self._locate(descriptor, at, allocated=allocated)
            length = min(run.length, size - at)
            if run.start is not None:
                room -= length
                if room < 0:
                    raise descriptor.bad(f"its pointers lead to more data than the volume's {self._volume.size} bytes")
                yield run.start, length
            at += length

    def locate_table(self, pointer: int, within: int = 0) -> Run:
        """Run of the bytes from `within` on of the block of pointers that a pointer leads to.

        VMFS 6 has no separate pointer blocks, but keeps them among the sub-blocks: for real volumes with files of many
        gigabytes ``vmkfstools -P -v 10`` shows "Ptr Blocks (max/free): 0/0". dissect.vmfs and vmfs6-tools read pointers
        to sub-blocks so; for pointers to pointer blocks, vmfs6-tools also read sub-blocks, dissect.vmfs ``.pbc.sf``.

        Raises:
            CorruptImage: It does not lead to a block of pointers.
        """
        file, address = self._table_file(pointer), self._parse(pointer)
        assert isinstance(address, ResourceAddress), "its kind is that of a table"
        return self.resources.locate(file, address, within)

    def _locate(self, descriptor: Descriptor, offset: int, *, allocated: bool = False) -> Run:
        """See `MappedDisk`."""
        layout = descriptor.layout
        if layout is None:
            if descriptor.metadata.pointer_type == _RESIDENT:
                return self._resident(descriptor, offset)
            layout = descriptor.layout = self._find_layout(descriptor)
        unit, span, table = layout.unit, layout.span, layout.table
        index, within = divmod(offset, unit)
        entry, rest = divmod(index, span)
        if entry * self._width >= len(table):
            raise descriptor.bad(f"block {index} is more than its pointers reach")
        for entries in layout.levels:
            (pointer,) = self._pointer.unpack_from(table, entry * self._width)
            if not pointer:
                return Run((span - rest) * unit - within)
            table = self._table(pointer, entries * self._width)
            span //= entries
            entry, rest = divmod(rest, span)
        (pointer,) = self._pointer.unpack_from(table, entry * self._width)
        if not pointer:
            empty = len(table) - entry * self._width - len(table[entry * self._width :].lstrip(b"\0"))
            return Run(max(empty // self._width, 1) * unit - within)
        address = self._parse(pointer)
        if isinstance(address, BlockAddress):
            if self._is_6:
                return self._file_block_6(descriptor, layout, pointer, address, offset)
            if address.to_zero and not allocated:
                return Run(unit - within)
            return Run(unit - within, self._checked(pointer, address.number * self.geometry.block + within))
        if address.kind != SUB_BLOCK:
            raise bad_pointer("VMFS block pointer", pointer, index)
        return self.resources.locate(SBC, address, within)

    def _own_table(self, descriptor: Descriptor) -> bytes:
        return descriptor.raw[-self.geometry.pointers_length :]

    def _pointers_in(self, table: bytes) -> list[int]:
        """Pointers of a block of pointers or of a descriptor, except for those of holes."""
        return [pointer for (pointer,) in self._pointer.iter_unpack(table) if pointer]

    def _resident(self, descriptor: Descriptor, offset: int) -> Run:
        """Run of data in the descriptor itself."""
        size, data_at = descriptor.metadata.size, self.geometry.data_at
        if size > self.geometry.descriptor - data_at:
            raise descriptor.bad(f"{size} bytes do not fit into it")
        return Run(size - offset, descriptor.start + data_at + offset)

    def _find_layout(self, descriptor: Descriptor) -> Layout:
        table = self._own_table(descriptor)
        pointers = self._pointers_in(table)
        unit = self._unit(descriptor, pointers)
        levels = self._find_levels(descriptor, pointers, unit)
        return Layout(unit, levels, math.prod(levels), table)

    def _unit(self, descriptor: Descriptor, pointers: list[int]) -> int:
        """Bytes of a file behind each of its pointers."""
        geometry = self.geometry
        sizes = [descriptor.metadata.block_size or geometry.block]
        if geometry.generation.has_extension and descriptor.extension.block_offset_shift:
            sizes.insert(0, 1 << descriptor.extension.block_offset_shift)
        is_direct = descriptor.metadata.pointer_type in _DIRECT
        is_small = is_direct and bool(pointers) and kind_of(pointers[0]) == SUB_BLOCK
        least = DISK_BLOCK if is_small else geometry.block  # none stands for a part of a file block
        for size in sizes:
            if least <= size <= 1 << _LARGEST_SHIFT and not size & (size - 1):
                return size
            if geometry.is_6 and not is_direct and size == geometry.sub_block:
                return size  # sub-blocks behind blocks of pointers
        raise descriptor.bad(f"{sizes[-1]} bytes are not a valid size of its blocks")

    def _find_levels(self, descriptor: Descriptor, pointers: list[int], unit: int) -> tuple[int, ...]:
        """Number of pointers in a block of pointers, for each level of such blocks.

        The descriptor says whether there are any. The targets of the first block show whether there is a second level,
        where all are of one kind: for type 0x10D0 vmfs-tools read one level and dissect.vmfs two, and type 5 has two
        by its name, where dissect.vmfs and vmfs6-tools read one.

        Raises:
            CorruptImage: The descriptor's type of pointers is not known.
        """
        if descriptor.metadata.pointer_type in _DIRECT:
            return ()
        levels = _INDIRECT.get(descriptor.metadata.pointer_type)
        if levels is None:
            raise descriptor.bad(f"pointers of type {descriptor.metadata.pointer_type:#x} are not known")
        entries, inner = self._first_table(pointers, with_pointers=True)
        kinds = set(map(kind_of, inner))
        if kinds and kinds <= {FILE_BLOCK, LARGE_BLOCK}:
            levels = 1
        elif kinds and kinds <= self._table_kinds and unit >= self.geometry.block:  # or they may be its sub-blocks
            levels = 2
        return (entries,) if levels == 1 else (entries, self._first_table(inner)[0])

    def _first_table(self, pointers: list[int], *, with_pointers: bool = False) -> tuple[int, list[int]]:
        """Number of pointers in each block of pointers behind `pointers`, and those of the first block that has any."""
        usual = 1 << 16 if self.geometry.is_6 else 1 << 12  # bytes, where nothing else is known
        entries = usual // self._width
        for pointer in pointers:
            with contextlib.suppress(CorruptImage):  # reading it reports the damage
                entries = self._table_entries(pointer)
                found = self._pointers_in(self._table(pointer, entries * self._width)) if with_pointers else []
                if found or not with_pointers:
                    return entries, found
        return entries, []

    def _table_file(self, pointer: int) -> int:
        """Address of the descriptor of the resource file that holds a block of pointers; see `locate_table`."""
        kind = kind_of(pointer)
        if kind == SECONDARY_POINTER_BLOCK:
            return PB2
        if kind == SUB_BLOCK and self.geometry.is_6:
            return SBC
        if kind != POINTER_BLOCK:
            raise bad_pointer("VMFS pointer block address", pointer, 0)
        return PBC if not self.geometry.is_6 or self.resources.has_pointer_blocks else SBC

    def _table_entries(self, pointer: int) -> int:
        """Number of pointers in the block of pointers that a pointer leads to."""
        metadata = self.resources.file(self._table_file(pointer)).metadata
        size = metadata.resource_size
        if not 64 <= size <= 1 << 20 or size % 8:
            raise CorruptImage(
                "not a valid size of a block of pointers",
                structure="VMFS resource file",
                offset=metadata.source_offset,
                field="resource_size",
                found=size,
            )
        return size // self._width

    def _table(self, pointer: int, length: int) -> bytes:
        """Bytes of the block of pointers that a pointer leads to."""
        known = self._tables.get((pointer, length))
        if known is not None:
            return known
        data = b""
        while len(data) < length:
            run = self.locate_table(pointer, len(data))
            assert run.start is not None, "a resource is in no hole"
            data += self._volume.read_at(run.start, min(run.length, length - len(data)))
        self._tables.put((pointer, length), data)
        return data

    def _file_block_6(
        self, descriptor: Descriptor, layout: Layout, pointer: int, address: BlockAddress, offset: int
    ) -> Run:
        """Run of a file of VMFS 6 from `offset` on, in the file block or large block of an address."""
        unit = layout.unit
        within = offset % unit
        left = unit - within
        if address.is_large:
            at = offset % self.geometry.large_block
            start = address.number * self.geometry.large_block + at
            left = min(left, self.geometry.large_block - at)
        else:
            block = address.number * self.resources.blocks_per_cluster + address.resource
            start = block * self.geometry.block + within
        start = self._checked(pointer, start)
        if not address.to_zero:
            return Run(left, start)
        part = max(unit // 8, self._zeroed_at_once(descriptor))
        if part >= unit:
            return Run(left)
        length = min(part - within % part, left)
        return Run(length) if address.to_zero >> within // part & 1 else Run(length, start)

    def _zeroed_at_once(self, descriptor: Descriptor) -> int:
        """Bytes of a file of VMFS 6 that are zeroed together, by its descriptor or the file system, or else 1."""
        shift = descriptor.extension.zeroing_shift
        return 1 << shift if 0 < shift <= _LARGEST_SHIFT else self.geometry.zeroing_granularity or 1

    def _checked(self, pointer: int, start: int) -> int:
        if start >= self._volume.size:
            raise CorruptImage(
                "it leads past the volume's end",
                structure="VMFS block pointer",
                offset=start,
                expected=f"less than {self._volume.size:#x}",
                found=f"{pointer:#x}",
            )
        return start
