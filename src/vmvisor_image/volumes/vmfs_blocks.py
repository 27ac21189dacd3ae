"""Where the bytes of a VMFS file lie: file descriptors, block pointers, and the resource files that both lead through.

A resource file holds resources of one size in clusters: file descriptors, sub-blocks, blocks of pointers. An address or
pointer names its kind in its low three bits, and a cluster and a resource in it. All offsets here count from the
volume's start, in bytes.
"""

from __future__ import annotations

import contextlib
import math
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.layers.mapped import MappedDisk, Run
from vmvisor_image.limits import check_deadline
from vmvisor_image.lru_cache import LruCache
from vmvisor_image.schemas.vmfs import (
    DENSE_SUB_BLOCKS,
    DESCRIPTORS_OFFSET,
    DISK_BLOCK,
    MOST_POINTERS_6,
    RESOURCE_FILE_SIGNATURE,
    USUAL_ALIGNMENT,
    VMFS_6,
    ClusterMetadata,
    DiskLock,
    FileMetadata,
    FileMetadataExtension,
    FileSystemDescriptor,
    ResourceFileMetadata,
    descriptors_offset_6,
)
from vmvisor_image.volumes.vmfs_lvm import LogicalVolume

ROOT, FBB, FDC, PBC, SBC, PB2 = 0x4, 0x400004, 0x800004, 0xC00004, 0x1000004, 0x1800004
"""Addresses of the descriptors of the root directory and of the resource files (seen, but PB2)."""
_FILE_BLOCK, _SUB_BLOCK, _POINTER_BLOCK, _DESCRIPTOR, _POINTER_BLOCK_2, _LARGE_BLOCK = 1, 2, 3, 4, 5, 7
"""Low three bits of a pointer."""
_TO_BE_ZEROED: Final = 0x20
"""In a pointer to a file block of VMFS 3 and 5: the block was never written."""
_DOUBLE, _RESIDENT = 0x10D0, 0x10D1
"""`FileMetadata.pointer_type` of VMFS 5 and later, beside those above."""
_DIRECT: Final = frozenset({_FILE_BLOCK, _SUB_BLOCK, 0x10CD + _FILE_BLOCK, 0x10CD + _SUB_BLOCK})
"""`FileMetadata.pointer_type` of a file whose pointers lead to its data.

vmfs-tools and vmfs6-tools read the latter two as the first two; none of them was seen on a real volume.
"""
_INDIRECT: Final = {_POINTER_BLOCK: 1, _POINTER_BLOCK_2: 1, _DOUBLE: 2}
"""Levels of blocks of pointers by `FileMetadata.pointer_type`, as they usually are: see `VmfsBlocks._find_levels`."""
_FIRST_WITH_EXTENSION: Final = 14
"""`FileSystemDescriptor.major_version` of VMFS 5; before it `FileMetadataExtension` means nothing."""
_LARGEST_SHIFT: Final = 40
"""Of the bytes of a file that belong together: more than any volume has in one piece."""
_V3_POINTERS: Final = 256
_DESCRIPTORS_AT_ONCE: Final = 1 << 18
"""Bytes of descriptors that are read together, all of one cluster; real volumes of VMFS 5 have 400 KiB in one."""
_MOST_PARTS: Final = 64
"""How many of such parts are kept: 16 MiB."""
_MOST_IN_CLUSTER: Final = 0x2000
"""File blocks in a cluster of VMFS 6: as many as a pointer can tell."""
_MOST_TABLES: Final = 64
"""Blocks of pointers that are kept: 256 KiB, of VMFS 6 4 MiB."""
_SEARCHED: Final = 64
"""Blocks at the volume's start in which the descriptors are looked for, where they are not in their usual place."""
_DEEPEST: Final = 4
"""Resource files that one pointer may lead through."""

Report = Callable[[Problem], None]


class Descriptor:
    """One file descriptor."""

    __slots__ = ("address", "extension", "layout", "lock", "metadata", "raw", "start")

    def __init__(self, address: int, start: int, raw: bytes, metadata_at: int) -> None:
        """Take the bytes of the descriptor, which lies at `start` of the volume.

        Raises:
            CorruptImage: It is another one's, or none.
        """
        self.address = address
        self.start = start
        self.raw = raw
        self.layout: tuple[int, tuple[int, ...]] | None = None
        """What `VmfsBlocks` found: bytes of the file that each pointer stands for, and pointers in a block of them, for
        each level of these.
        """
        self.lock = DiskLock.parse(raw, base=start)
        self.metadata = FileMetadata.parse(raw, metadata_at, base=start)
        self.extension = FileMetadataExtension.parse(raw, metadata_at + FileMetadata.length(), base=start)
        if self.metadata.address != address:
            raise CorruptImage(
                "it is another one's, or none",
                structure="VMFS file descriptor",
                offset=start + metadata_at,
                field="address",
                expected=f"{address:#x}",
                found=f"{self.metadata.address:#x}",
            )

    def bad(self, message: str) -> CorruptImage:
        """The error for what it says."""
        return CorruptImage(message, structure="VMFS file descriptor", offset=self.metadata.source_offset)


class VmfsBlocks:
    """Descriptors and data of a volume whose file system descriptor is known; any number of threads may read."""

    def __init__(self, volume: LogicalVolume, descriptor: FileSystemDescriptor, report: Report) -> None:
        """Read nothing yet.

        Raises:
            CorruptImage: The file system descriptor makes no sense.
        """
        self._volume = volume
        self._report = report
        self.is_6 = descriptor.major_version >= VMFS_6
        """VMFS 6: pointers of 64 bits, metadata in larger blocks."""
        self._block = _power_of_two(descriptor, "file_block_size", descriptor.file_block_size, 1 << 30)
        self.alignment = DISK_BLOCK
        """Bytes of a lock, and of what follows it."""
        if self.is_6 and descriptor.metadata_alignment:
            self.alignment = _power_of_two(descriptor, "metadata_alignment", descriptor.metadata_alignment, 1 << 16)
        elif self.is_6:
            self.alignment = USUAL_ALIGNMENT
        self._header = 2 * self.alignment
        """Bytes of a cluster's lock and metadata, or of a file descriptor without its data."""
        self._descriptor_size = self._header if self.is_6 else 4 * DISK_BLOCK
        self.data_at = self.alignment + DISK_BLOCK if self.is_6 else self._header
        """Where data lies that is in the descriptor itself, in bytes from its start."""
        self._width, self._pointers = (8, MOST_POINTERS_6) if self.is_6 else (4, _V3_POINTERS)
        if self.alignment > USUAL_ALIGNMENT:
            self._pointers = self.alignment // 16
        self._sub_block = descriptor.sub_block_size
        self._zeroing_granularity = descriptor.zeroing_granularity
        self._is_3 = descriptor.major_version < _FIRST_WITH_EXTENSION
        tables = {_POINTER_BLOCK, _POINTER_BLOCK_2}
        self._table_kinds = frozenset({*tables, _SUB_BLOCK} if self.is_6 else tables)
        """Kinds of pointers to blocks of pointers."""
        self._is_dense = bool(descriptor.flags & DENSE_SUB_BLOCKS)
        shift = descriptor.large_block_shift
        self._large_block = self._block << (shift if 0 < shift < 20 else 9)
        self._parts: LruCache[tuple[int, int], tuple[tuple[int, int, bytes], ...]] = LruCache(_MOST_PARTS)
        self._tables: LruCache[tuple[int, int], bytes] = LruCache(_MOST_TABLES)
        self._resource_files: dict[int, tuple[ResourceFileMetadata, MappedDisk]] = {}
        self._descriptors: tuple[int, ResourceFileMetadata] | None = None
        self._per_cluster: int | None = None
        self._depth = threading.local()

    def descriptor(self, address: int) -> Descriptor:
        """A file descriptor by its address.

        Raises:
            CorruptImage: There is none.
        """
        if address & 7 != _DESCRIPTOR:
            raise _bad_pointer("VMFS file descriptor address", address, 0)
        start, raw = self._descriptor_bytes(address >> 6 & 0xFFFF, address >> 22)
        return Descriptor(address, start, raw, self.alignment)

    def content(self, descriptor: Descriptor, size: int | None = None) -> MappedDisk:
        """A file's data, with zeros where it has holes; as many bytes of its blocks as `size` says, else all of it."""
        if size is None:
            size = descriptor.metadata.size
        return MappedDisk("VMFS file", self._volume, size, lambda offset: self._locate(descriptor, offset))

    def allocated(self, descriptor: Descriptor) -> int:
        """Bytes that a file's blocks have room for, as its descriptor says, if it has no holes."""
        pointers = self._pointers_in(descriptor.raw[-self._pointers * self._width :])
        return descriptor.metadata.block_count * self._unit(descriptor, pointers)

    def extents(self, descriptor: Descriptor, *, allocated: bool = False) -> Iterator[tuple[int, int]]:
        """First byte and length of each run of a file that has data; holes are left out.

        Args:
            descriptor: Of the file.
            allocated: With blocks that the file has and that were never written, of VMFS 3 and 5.

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

    def used_blocks(self) -> bytearray | None:
        """For each file block 1 where the bitmap says that it is used, else 0; None of VMFS 6.

        Raises:
            CorruptImage: The bitmap can't be read.
        """
        if self.is_6:
            return None
        metadata, content = self._resource_file(FBB)
        per_cluster, per_group = metadata.resources_per_cluster, max(metadata.clusters_per_group, 1)
        count = min(metadata.resource_count | metadata.resource_count_high << 32, self._volume.size // self._block)
        if not 0 < per_cluster <= 8 * (self._header - self.alignment - ClusterMetadata.length()):
            raise _past_resources(metadata, 0)
        used = bytearray()
        for cluster in range(-(-count // per_cluster)):
            check_deadline()
            group, number = divmod(cluster, per_group)
            at = metadata.cluster_group_offset + group * metadata.cluster_group_size + number * self._header
            at += self.alignment + ClusterMetadata.length()
            if at + -(-per_cluster // 8) > content.size:
                raise _past_resources(metadata, at)
            free = int.from_bytes(content.read_at(at, -(-per_cluster // 8)), "little")
            used += bytes(1 - (free >> resource & 1) for resource in range(per_cluster))
        return used[:count]

    def _locate(self, descriptor: Descriptor, offset: int, *, allocated: bool = False) -> Run:
        """See `MappedDisk`."""
        metadata = descriptor.metadata
        kind = metadata.pointer_type
        if kind == _RESIDENT:
            if metadata.size > self._descriptor_size - self.data_at:
                raise descriptor.bad(f"{metadata.size} bytes do not fit into it")
            return Run(metadata.size - offset, descriptor.start + self.data_at + offset)
        table = descriptor.raw[-self._pointers * self._width :]
        if descriptor.layout is None:
            pointers = self._pointers_in(table)
            unit = self._unit(descriptor, pointers)
            descriptor.layout = (unit, self._find_levels(descriptor, pointers, unit))
        unit, sizes = descriptor.layout
        index, within = divmod(offset, unit)
        span = math.prod(sizes)
        entry, rest = divmod(index, span)
        if entry >= self._pointers:
            raise descriptor.bad(f"block {index} is more than its pointers reach")
        for entries in sizes:
            pointer = self._number(table, entry)
            if not pointer:
                return Run((span - rest) * unit - within)
            table = self._table(pointer, entries * self._width)
            span //= entries
            entry, rest = divmod(rest, span)
        pointer = self._number(table, entry)
        if not pointer:
            empty = len(table) - entry * self._width - len(table[entry * self._width :].lstrip(b"\0"))
            return Run(max(empty // self._width, 1) * unit - within)
        if allocated and not self.is_6:
            pointer &= ~_TO_BE_ZEROED
        return self._run(descriptor, pointer, unit, index, within)

    def _unit(self, descriptor: Descriptor, pointers: list[int]) -> int:
        """Bytes of a file that each of its pointers stands for."""
        sizes = [descriptor.metadata.block_size or self._block]
        if not self._is_3 and descriptor.extension.block_offset_shift:
            sizes.insert(0, 1 << descriptor.extension.block_offset_shift)
        is_direct = descriptor.metadata.pointer_type in _DIRECT
        is_small = is_direct and bool(pointers) and pointers[0] & 7 == _SUB_BLOCK
        least = DISK_BLOCK if is_small else self._block  # none stands for a part of a file block
        for size in sizes:
            if least <= size <= 1 << _LARGEST_SHIFT and not size & (size - 1):
                return size
            if self.is_6 and not is_direct and size == self._sub_block:
                return size  # sub-blocks behind blocks of pointers
        raise descriptor.bad(f"{sizes[-1]} bytes are no size of its blocks")

    def _number(self, table: bytes, entry: int) -> int:
        return int.from_bytes(table[entry * self._width : (entry + 1) * self._width], "little")

    def _pointers_in(self, table: bytes) -> list[int]:
        """All pointers of a block of them, or of a descriptor, but those of holes."""
        kind = "Q" if self.is_6 else "I"
        return [pointer for (pointer,) in struct.iter_unpack(f"<{kind}", table) if pointer]

    def _find_levels(self, descriptor: Descriptor, pointers: list[int], unit: int) -> tuple[int, ...]:
        """Pointers in a block of pointers, for each level of these.

        The descriptor says whether there are any. Whether there is a second level is seen in what the first block
        leads to, where all of that is of one kind: of type 0x10D0 vmfs-tools read one level and dissect.vmfs two, and
        type 5 is by its name two, where dissect.vmfs and vmfs6-tools read one.

        Raises:
            CorruptImage: The descriptor's type of pointers is not known.
        """
        if descriptor.metadata.pointer_type in _DIRECT:
            return ()
        levels = _INDIRECT.get(descriptor.metadata.pointer_type)
        if levels is None:
            raise descriptor.bad(f"pointers of type {descriptor.metadata.pointer_type:#x} are not known")
        entries, inner = self._first_table(pointers, with_pointers=True)
        kinds = {pointer & 7 for pointer in inner}
        if kinds and kinds <= {_FILE_BLOCK, _LARGE_BLOCK}:
            levels = 1
        elif kinds and kinds <= self._table_kinds and unit >= self._block:  # else these may be the file's sub-blocks
            levels = 2
        return (entries,) if levels == 1 else (entries, self._first_table(inner)[0])

    def _first_table(self, pointers: list[int], *, with_pointers: bool = False) -> tuple[int, list[int]]:
        """How many pointers are in the blocks of them that these lead to, and those of the first one that has any."""
        entries = (1 << 16 if self.is_6 else 1 << 12) // self._width  # what it is where nothing else is known
        for pointer in pointers:
            with contextlib.suppress(CorruptImage):  # reading it says what is wrong
                entries = self._table_entries(pointer)
                found = self._pointers_in(self._table(pointer, entries * self._width)) if with_pointers else []
                if found or not with_pointers:
                    return entries, found
        return entries, []

    def _table_file(self, pointer: int) -> int:
        """The descriptor's address of the resource file that holds a block of pointers.

        VMFS 6 has no pointer blocks of their own, but keeps them among the sub-blocks: of real volumes with files of
        many gigabytes ``vmkfstools -P -v 10`` shows "Ptr Blocks (max/free): 0/0". dissect.vmfs and vmfs6-tools read
        pointers to sub-blocks so; those to pointer blocks vmfs6-tools look for there, too, dissect.vmfs in ``.pbc.sf``.
        """
        kind = pointer & 7
        if kind == _POINTER_BLOCK_2:
            return PB2
        if kind == _SUB_BLOCK and self.is_6:
            return SBC
        if kind != _POINTER_BLOCK:
            raise _bad_pointer("VMFS pointer block address", pointer, 0)
        return PBC if not self.is_6 or self._has_pointer_blocks() else SBC

    def _has_pointer_blocks(self) -> bool:
        """Whether VMFS 6 has pointer blocks of their own."""
        try:
            metadata = self._resource_file(PBC)[0]
        except CorruptImage:
            return False
        return bool(metadata.resource_count or metadata.resource_count_high)

    def _table_entries(self, pointer: int) -> int:
        """Pointers in a block of them that a pointer leads to."""
        metadata = self._resource_file(self._table_file(pointer))[0]
        size = metadata.resource_size
        if not 64 <= size <= 1 << 20 or size % 8:
            raise CorruptImage(
                "no size of a block of pointers",
                structure="VMFS resource file",
                offset=metadata.source_offset,
                field="resource_size",
                found=size,
            )
        return size // self._width

    def _table(self, pointer: int, length: int) -> bytes:
        """A block of pointers."""
        known = self._tables.get((pointer, length))
        if known is not None:
            return known
        file, place = self._table_file(pointer), self._place(pointer)
        data = b""
        while len(data) < length:
            run = self._resource(file, *place, len(data))
            assert run.start is not None, "a resource is in no hole"
            data += self._volume.read_at(run.start, min(run.length, length - len(data)))
        self._tables.put((pointer, length), data)
        return data

    def _place(self, pointer: int) -> tuple[int, int]:
        """Cluster, and resource in it, that a pointer leads to.

        Sub-blocks of VMFS 3 and 5 have two more bits for the resource where the file system says so; vmfs-tools always
        read them. They are needed where a cluster has more resources than the other four bits can tell.
        """
        if self.is_6:
            return pointer >> 6 & 0xFFFFFFFFF, pointer >> 56
        resource = pointer >> 28
        if pointer & 7 == _SUB_BLOCK and (self._is_dense or self._resource_file(SBC)[0].resources_per_cluster > 1 << 4):
            resource |= (pointer >> 3 & 3) << 4
        return pointer >> 6 & 0x3FFFFF, resource

    def _run(self, descriptor: Descriptor, pointer: int, unit: int, index: int, within: int) -> Run:
        """Where the bytes from `within` on of the block that a pointer leads to lie."""
        kind = pointer & 7
        if kind == _FILE_BLOCK or (kind == _LARGE_BLOCK and self.is_6):
            return self._file_block(descriptor, pointer, unit, index, within)
        if kind != _SUB_BLOCK:
            raise _bad_pointer("VMFS block pointer", pointer, index)
        return self._resource(SBC, *self._place(pointer), within)

    def _file_block(self, descriptor: Descriptor, pointer: int, unit: int, index: int, within: int) -> Run:
        left = unit - within
        if not self.is_6:
            if pointer & _TO_BE_ZEROED:
                return Run(left)
            return Run(left, self._checked(pointer, (pointer >> 6) * self._block + within))
        block = pointer >> 15 & 0x7FFFFFFF
        if pointer & 7 == _LARGE_BLOCK:
            at = (index * unit + within) % self._large_block
            start = block * self._large_block + at
            left = min(left, self._large_block - at)
        else:
            start = (block * self._blocks_per_cluster() + (pointer >> 51)) * self._block + within
        start = self._checked(pointer, start)
        to_zero = pointer >> 7 & 0xFF  # a bit for each part
        if not to_zero:
            return Run(left, start)
        part = max(unit // 8, self._zeroed_at_once(descriptor))
        if part >= unit:
            return Run(left)
        length = min(part - within % part, left)
        return Run(length) if to_zero >> within // part & 1 else Run(length, start)

    def _zeroed_at_once(self, descriptor: Descriptor) -> int:
        """Bytes of a file of VMFS 6 that are zeroed together, as its descriptor or the file system says, else 1."""
        shift = descriptor.extension.zeroing_shift
        return 1 << shift if 0 < shift <= _LARGEST_SHIFT else self._zeroing_granularity or 1

    def _blocks_per_cluster(self) -> int:
        """File blocks in a cluster of VMFS 6, as their resource file says, which itself lies in such blocks."""
        if self._per_cluster is None:
            self._per_cluster = min(_MOST_IN_CLUSTER, 0x20000000 // self._block) or 1  # of all volumes that are known
            try:
                self._per_cluster = self._read_blocks_per_cluster(self._per_cluster)
            except CorruptImage as error:
                self._report(Problem.of(error))
        return self._per_cluster

    def _read_blocks_per_cluster(self, usual: int) -> int:
        metadata, content = self._resource_file(FBB)
        child = metadata.child_metadata_offset  # large blocks are the parent there, small ones their child
        if child:
            place = content.locate(child).start or 0
            metadata = ResourceFileMetadata.parse(content.read_at(child, ResourceFileMetadata.length()), base=place)
        count = metadata.resources_per_cluster
        if metadata.signature != RESOURCE_FILE_SIGNATURE or not 1 <= count <= _MOST_IN_CLUSTER:
            raise CorruptImage(
                f"how many file blocks a cluster has is not told, {usual} is taken",
                structure="VMFS resource file",
                offset=metadata.source_offset,
            )
        return count

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

    def _resource(self, address: int, cluster: int, resource: int, within: int) -> Run:
        """Where the bytes from `within` on of a resource lie."""
        metadata, content = self._resource_file(address)
        size = metadata.resource_size
        if resource >= max(metadata.resources_per_cluster, 1) or within >= size:
            raise CorruptImage(
                "a pointer leads to a resource that no cluster has",
                structure="VMFS resource file",
                offset=metadata.source_offset,
                expected=f"less than {metadata.resources_per_cluster}",
                found=resource,
            )
        at = self._resource_offset(metadata, cluster, resource) + within
        if at >= content.size:
            raise _past_resources(metadata, at)
        run = content.locate(at)
        if run.start is None:
            raise _past_resources(metadata, at)
        return Run(min(run.length, size - within), run.start)

    def _resource_offset(self, metadata: ResourceFileMetadata, cluster: int, resource: int) -> int:
        """Where a resource lies in its file."""
        group, number = divmod(cluster, max(metadata.clusters_per_group, 1))
        at = metadata.cluster_group_offset + group * metadata.cluster_group_size
        at += metadata.clusters_per_group * self._header
        return at + (number * metadata.resources_per_cluster + resource) * metadata.resource_size

    def _resource_file(self, address: int) -> tuple[ResourceFileMetadata, MappedDisk]:
        known = self._resource_files.get(address)
        if known is not None:
            return known
        depth = getattr(self._depth, "value", 0)
        if depth >= _DEEPEST:
            raise CorruptImage("it leads to itself", structure="VMFS resource file", found=f"{address:#x}")
        self._depth.value = depth + 1
        try:
            content = self.content(self.descriptor(address))
            head = content.read_at(0, ResourceFileMetadata.length())
            metadata = ResourceFileMetadata.parse(head, base=content.locate(0).start or 0)
        finally:
            self._depth.value = depth
        self._resource_files[address] = (metadata, content)
        return metadata, content

    def _descriptor_bytes(self, cluster: int, resource: int) -> tuple[int, bytes]:
        """Where a descriptor lies, and its bytes; many of a cluster are read at once and kept."""
        base, metadata = self._find_descriptors()
        if resource >= metadata.resources_per_cluster:
            raise CorruptImage(
                "no cluster has such a resource",
                structure="VMFS file descriptor address",
                expected=f"less than {metadata.resources_per_cluster}",
                found=resource,
            )
        size = self._descriptor_size
        offset = self._resource_offset(metadata, cluster, resource)
        if (cluster, resource) in _SYSTEM_PLACES:
            start = base + offset  # these are needed to find all others, and lie where the file begins
            return start, self._volume.read_at(start, size)
        at_once = max(_DESCRIPTORS_AT_ONCE // size, 1)
        part = resource // at_once
        for first, start, data in self._part(metadata, cluster, part, at_once):
            within = (resource - part * at_once) * size - first
            if 0 <= within <= len(data) - size:
                return start + within, data[within : within + size]
        run = self._resource_file(FDC)[1].locate(offset)  # what could not be read with its neighbours
        if run.start is None or run.length < size:
            raise _past_resources(metadata, offset)
        return run.start, self._volume.read_at(run.start, size)

    def _part(
        self, metadata: ResourceFileMetadata, cluster: int, part: int, at_once: int
    ) -> tuple[tuple[int, int, bytes], ...]:
        """A part of a cluster's descriptors: first byte in the part, first one in the volume, and bytes of each run."""
        first = part * at_once
        length = min(metadata.resources_per_cluster - first, at_once) * self._descriptor_size
        known = self._parts.get((cluster, part))
        if known is None:
            known = tuple(self._read_part(self._resource_offset(metadata, cluster, first), length))
            self._parts.put((cluster, part), known)
        return known

    def _read_part(self, offset: int, length: int) -> Iterator[tuple[int, int, bytes]]:
        content = self._resource_file(FDC)[1]
        if offset >= content.size:
            raise CorruptImage(
                "it lies past the end of the file of descriptors",
                structure="VMFS file descriptor address",
                expected=f"less than {content.size:#x}",
                found=f"{offset:#x}",
            )
        at, end = offset, min(offset + length, content.size)
        while at < end:
            run = content.locate(at)
            count = min(run.length, end - at)
            if run.start is not None:
                with contextlib.suppress(CorruptImage):  # each is read by itself then, and the damaged ones say so
                    yield at - offset, run.start, self._volume.read_at(run.start, count)
            at += count

    def _find_descriptors(self) -> tuple[int, ResourceFileMetadata]:
        """Where the file of descriptors begins, and its metadata."""
        if self._descriptors is None:
            usual = max(1, DESCRIPTORS_OFFSET // self._block) * self._block
            if self.is_6:
                usual = descriptors_offset_6(self.alignment)
            for place in (usual, *range(self._block, _SEARCHED * self._block, self._block)):
                metadata = self._descriptors_at(place)
                if metadata is not None:
                    self._descriptors = (place, metadata)
                    break
            else:
                raise CorruptImage(
                    "it is neither in its usual place nor near it", structure="VMFS file of descriptors", offset=usual
                )
        return self._descriptors

    def _descriptors_at(self, base: int) -> ResourceFileMetadata | None:
        """Its metadata where the file of descriptors begins here: it says so, and its own descriptor is in place."""
        try:
            metadata = ResourceFileMetadata.parse(self._volume.read_at(base, ResourceFileMetadata.length()), base=base)
            if metadata.resource_size != self._descriptor_size or not 1 <= metadata.clusters_per_group <= 1 << 16:
                return None
            start = base + self._resource_offset(metadata, 0, FDC >> 22)
            Descriptor(FDC, start, self._volume.read_at(start, self._descriptor_size), self.alignment)
        except CorruptImage:
            return None
        return metadata


_SYSTEM_PLACES: Final = {(address >> 6 & 0xFFFF, address >> 22) for address in (ROOT, FBB, FDC, PBC, SBC, PB2)}
"""Cluster and resource of the descriptors of the system's files."""


def _power_of_two(descriptor: FileSystemDescriptor, field: str, value: int, most: int) -> int:
    if not 512 <= value <= most or value & (value - 1):
        raise CorruptImage(
            "no power of two, or out of range",
            structure="VMFS file system descriptor",
            offset=descriptor.source_offset,
            field=field,
            expected=f"512 to {most}",
            found=value,
        )
    return value


def _past_resources(metadata: ResourceFileMetadata, offset: int) -> CorruptImage:
    """The error for a resource that its file does not hold."""
    return CorruptImage(
        "a pointer leads past its end, or into a hole",
        structure="VMFS resource file",
        offset=metadata.source_offset,
        found=f"{offset:#x}",
    )


def _bad_pointer(structure: str, pointer: int, index: int) -> CorruptImage:
    return CorruptImage(f"block {index}: a pointer of unknown kind", structure=structure, found=f"{pointer:#x}")
