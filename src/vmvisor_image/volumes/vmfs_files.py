"""The files of a VMFS volume: file descriptors, block pointers, resource files, directories.

A file descriptor has an address of two numbers: a cluster and a resource in it, in the resource file of the descriptors
and blocks of pointers are resources of other resource files. All offsets here count from the start of the volume.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files import Directory, File, FileAttributes, FileHome, FileTree
from vmvisor_image.forking import restart_in_child
from vmvisor_image.layers.mapped import MappedDisk, Run
from vmvisor_image.schemas.vmfs import (
    DESCRIPTORS_OFFSET,
    DESCRIPTORS_OFFSET_6,
    DIRECTORY_BLOCK_ENTRIES,
    DIRECTORY_BLOCK_MAP,
    DIRECTORY_ENTRIES_OFFSET,
    DIRECTORY_VERSIONS,
    DISK_BLOCK,
    LOCK_IS_FREE,
    DirectoryBlockHeader,
    DirectoryHeader,
    DiskLock,
    FileMetadata,
    FileMetadataExtension,
    FileSystemDescriptor,
    HashedDirectoryEntry,
    ResourceFileMetadata,
    VmfsDirectoryEntry,
    vmfs_uuid,
)
from vmvisor_image.streams import ReadAt
from vmvisor_image.volumes.vmfs_lvm import LogicalVolume

ROOT, FBB, FDC, PBC, SBC, PB2 = 0x4, 0x400004, 0x800004, 0xC00004, 0x1000004, 0x1800004
"""Addresses of the descriptors of the root directory and of the resource files (seen, but PB2)."""
DIRECTORY, REGULAR, LINK, SYSTEM, RAW_DEVICE = 2, 3, 4, 5, 6
"""`FileMetadata.type`."""
_FILE_BLOCK, _SUB_BLOCK, _POINTER_BLOCK, _DESCRIPTOR, _POINTER_BLOCK_2, _LARGE_BLOCK = 1, 2, 3, 4, 5, 7
"""Low three bits of a pointer."""
_EXTENDED: Final = 0x10CD
"""`FileMetadata.pointer_type` of VMFS 5 and later, less one of these."""
_RESIDENT: Final = _EXTENDED + _DESCRIPTOR
_LEVELS: Final = {
    **dict.fromkeys((_FILE_BLOCK, _SUB_BLOCK, _LARGE_BLOCK, _EXTENDED + _FILE_BLOCK, _EXTENDED + _SUB_BLOCK), 0),
    _POINTER_BLOCK: 1,
    **dict.fromkeys((_POINTER_BLOCK_2, _EXTENDED + _POINTER_BLOCK, _EXTENDED + _POINTER_BLOCK_2), 2),
}
"""Blocks of pointers between a descriptor and a block of data, by `FileMetadata.pointer_type`."""
_V3_POINTERS, _V6_POINTERS = 256, 320
_MOST_CLUSTERS: Final = 64
"""Clusters of descriptors that are kept: 4 MiB, of VMFS 6 16 MiB."""
_SEARCHED: Final = 64
"""Blocks at the volume's start in which the descriptors are looked for, where they are not in their usual place."""
_LARGEST_DIRECTORY: Final = 256 << 20
_LONGEST_TARGET: Final = 4096
_DEEPEST: Final = 4
"""Resource files that one pointer may lead through."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Report = Callable[[Problem], None]


@dataclass(frozen=True, slots=True)
class RawDeviceMapping:
    """A file that stands for a disk of the storage, which is not in the volume."""

    path: str
    size: int
    """Bytes of that disk."""


@dataclass(frozen=True, slots=True)
class FileLock:
    """Who may change a file."""

    mode: int
    """0 is unlocked, 1 exclusive, 2 read-only, 3 by several writers."""
    owner: str
    """UUID of the host that holds it."""
    heartbeat: int
    """Where that host's heartbeat lies in the volume."""


class Descriptor:
    """One file descriptor."""

    __slots__ = ("address", "extension", "lock", "metadata", "raw", "start")

    def __init__(self, address: int, start: int, raw: bytes, metadata_at: int) -> None:
        """Take the bytes of the descriptor, which lies at `start` of the volume.

        Raises:
            CorruptImage: It is another one's, or none.
        """
        self.address = address
        self.start = start
        self.raw = raw
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

    @property
    def modified(self) -> datetime:
        """When the content was last written."""
        return _EPOCH + timedelta(seconds=self.metadata.modified)


class VmfsFileSystem:
    """Files of a volume whose descriptor is known."""

    def __init__(self, volume: LogicalVolume, descriptor: FileSystemDescriptor, report: Report) -> None:
        """Read nothing yet."""
        self._volume = volume
        self._report = report
        self._is_6 = descriptor.major_version >= 24
        self._block = descriptor.file_block_size
        self._alignment = (descriptor.metadata_alignment or 4096) if self._is_6 else DISK_BLOCK
        self._header = 2 * self._alignment
        """Bytes of a lock and the metadata of a cluster, or of a file descriptor without its data."""
        self._descriptor_size = self._header if self._is_6 else 4 * DISK_BLOCK
        shift = descriptor.large_block_shift
        self._large_block = self._block << (shift if 0 < shift < 20 else 9)
        self._clusters: OrderedDict[int, tuple[int, bytes] | None] = OrderedDict()
        self._resource_files: dict[int, tuple[ResourceFileMetadata, MappedDisk]] = {}
        self._listed: dict[int, str] = {}
        self._lock = threading.RLock()
        self._depth = threading.local()
        self._base: int | None = None
        self._per_cluster: int | None = None
        if not 512 <= self._block <= 1 << 30 or self._block & (self._block - 1):
            raise CorruptImage(
                "no size of a file block",
                structure="VMFS file system descriptor",
                offset=descriptor.source_offset,
                field="file_block_size",
                found=self._block,
            )
        if self._is_6 and (not 512 <= self._alignment <= 65536 or self._alignment & (self._alignment - 1)):
            raise CorruptImage(
                "no alignment",
                structure="VMFS file system descriptor",
                offset=descriptor.source_offset,
                field="metadata_alignment",
                found=self._alignment,
            )
        self.links: dict[str, str] = {}
        """Targets of the symbolic links in the directories listed so far."""
        self.raw_devices: dict[str, RawDeviceMapping] = {}
        """Raw device mappings in the directories listed so far."""
        restart_in_child(self)

    def start_in_child(self) -> None:
        """See `vmvisor_image.forking`."""
        self._lock = threading.RLock()

    def tree(self, home: FileHome, problems: Callable[[], tuple[Problem, ...]]) -> FileTree:
        """All its files."""
        return FileTree(
            Directory("", None, lambda: self._list("", ROOT, home), fold_case=False), problems, fold_case=False
        )

    def descriptor(self, address: int) -> Descriptor:
        """A file descriptor by its address.

        Raises:
            CorruptImage: There is none.
        """
        cluster, resource = address >> 6 & 0xFFFF, address >> 22
        if address & 7 != _DESCRIPTOR:
            raise _bad_pointer("file descriptor address", address, 0)
        start, raw = self._descriptor_bytes(cluster, resource)
        return Descriptor(address, start, raw, self._alignment)

    def content(self, descriptor: Descriptor) -> ReadAt:
        """A file's data."""
        metadata = descriptor.metadata
        return MappedDisk("vmfs", self._volume, metadata.size, lambda offset: self._locate(descriptor, offset))

    def extents(self, descriptor: Descriptor) -> Iterator[tuple[int, int]]:
        """First byte in the volume and length of each run of a file that has data; holes are left out."""
        size, at = descriptor.metadata.size, 0
        while at < size:
            run = self._locate(descriptor, at)
            length = min(run.length, size - at)
            if run.start is not None:
                yield run.start, length
            at += length

    def file_lock(self, descriptor: Descriptor) -> FileLock | None:
        """Who holds a file; None where nobody does."""
        lock = descriptor.lock
        if lock.mode == LOCK_IS_FREE:
            return None
        return FileLock(lock.mode, vmfs_uuid(lock.owner), lock.heartbeat_address)

    def _list(self, path: str, address: int, home: FileHome) -> list[File | Directory]:
        with self._lock:
            known = self._listed.setdefault(address, path)
        if known != path:
            self._report(Problem("VMFS directory", f"{path!r} is {known or '/'!r} again and is left out"))
            return []
        found: list[File | Directory] = []
        try:
            for name, child in self._entries(path, address):
                try:
                    entry = self._child(f"{path}/{name}" if path else name, child, home)
                except CorruptImage as error:
                    problem = Problem.of(error)
                    self._report(Problem(problem.structure, f"{path}/{name}: {problem.message}", problem.offset))
                    continue
                if entry is not None:
                    found.append(entry)
        except CorruptImage as error:
            self._report(Problem.of(error))
        return found

    def _child(self, path: str, address: int, home: FileHome) -> File | Directory | None:
        descriptor = self.descriptor(address)
        metadata = descriptor.metadata
        if metadata.type == DIRECTORY:
            return Directory(path, descriptor.modified, lambda: self._list(path, address, home), fold_case=False)
        if metadata.type == LINK:
            length = min(metadata.size, _LONGEST_TARGET)
            self.links[path] = (
                self.content(descriptor).read_at(0, length).decode("utf-8", "surrogateescape").rstrip("\0")
            )
            return None
        if metadata.type == RAW_DEVICE:
            self.raw_devices[path] = RawDeviceMapping(path, metadata.size)
            return None
        if metadata.type not in (REGULAR, SYSTEM):
            raise CorruptImage(
                f"type {metadata.type} is not known", structure="VMFS file descriptor", offset=metadata.source_offset
            )
        attributes = FileAttributes(metadata.mode & 0o7777, metadata.user, metadata.group)
        return File(home, path, metadata.size, descriptor.modified, address, attributes)

    def _entries(self, path: str, address: int) -> Iterator[tuple[str, int]]:
        """Name and descriptor's address of everything in a directory."""
        descriptor = self.descriptor(address)
        if descriptor.metadata.type != DIRECTORY:
            raise CorruptImage(
                f"{path!r} is no directory", structure="VMFS file descriptor", offset=descriptor.metadata.source_offset
            )
        size = min(descriptor.metadata.size, _LARGEST_DIRECTORY)
        content = self.content(descriptor)
        hashed = self._is_6 and size >= DIRECTORY_ENTRIES_OFFSET
        if hashed and int.from_bytes(content.read_at(0, 4), "little") in DIRECTORY_VERSIONS:
            found = self._hashed_entries(content, size)
        else:
            found = self._listed_entries(content, size)
        for name, child in found:
            text = name.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            if child and text not in ("", ".", ".."):
                yield text, child

    def _listed_entries(self, content: ReadAt, size: int) -> Iterator[tuple[bytes, int]]:
        """The entries of VMFS 3 and 5: one after the other."""
        length = VmfsDirectoryEntry.length()
        step = length * 1024
        for at in range(0, size - size % length, step):
            data = content.read_at(at, min(step, size - size % length - at))
            for entry in VmfsDirectoryEntry.parse_all(data):
                yield entry.name, entry.address

    def _hashed_entries(self, content: ReadAt, size: int) -> Iterator[tuple[bytes, int]]:
        """The entries of VMFS 6: in blocks, each with a bitmap in which 1 is a free slot."""
        block = self._alignment
        header, length = DirectoryBlockHeader.length(), HashedDirectoryEntry.length()
        for number in self._entry_blocks(content, size):
            try:
                data = content.read_at(DIRECTORY_ENTRIES_OFFSET + number * block, block)
            except CorruptImage as error:
                self._report(Problem.of(error))
                continue
            head = DirectoryBlockHeader.parse(data)
            if head.type != DIRECTORY_BLOCK_ENTRIES:
                continue
            free = int.from_bytes(head.free_slots, "little")
            for slot in range(min(head.slots, (block - header) // length)):
                if not free >> slot & 1:
                    entry = HashedDirectoryEntry.parse(data, header + slot * length)
                    yield entry.name, entry.address

    def _entry_blocks(self, content: ReadAt, size: int) -> Iterator[int]:
        """Numbers of the blocks of a directory of VMFS 6 that hold entries as its maps say, of all where they don't."""
        block, header = self._alignment, DirectoryBlockHeader.length()
        count = (size - DIRECTORY_ENTRIES_OFFSET) // block
        head = DirectoryHeader.parse(content.read_at(0, DirectoryHeader.length()))
        per_map = 2 * (block - header)
        for first in range(0, count, per_map):
            number = int.from_bytes(head.map_blocks[first // per_map * 4 :][:4], "little")
            blocks = range(first, min(first + per_map, count))
            is_known = first // per_map < head.map_count and number < count
            data = content.read_at(DIRECTORY_ENTRIES_OFFSET + number * block, block) if is_known else b""
            if not data or DirectoryBlockHeader.parse(data).type != DIRECTORY_BLOCK_MAP:
                self._report(Problem("VMFS directory", f"no map of its blocks {first} to {blocks[-1]}; all are read"))
                yield from blocks
                continue
            for at in blocks:
                pair = data[header + (at - first) // 2]
                if (pair & 0xF if at & 1 else pair >> 4) & 3 == DIRECTORY_BLOCK_ENTRIES:
                    yield at

    def _locate(self, descriptor: Descriptor, offset: int) -> Run:
        """See `MappedDisk`."""
        metadata = descriptor.metadata
        kind = metadata.pointer_type
        data_at = self._alignment + DISK_BLOCK if self._is_6 else 2 * DISK_BLOCK
        if kind == _RESIDENT:
            if metadata.size > self._descriptor_size - data_at:
                raise self._bad_file(descriptor, f"{metadata.size} bytes do not fit into it")
            return Run(metadata.size - offset, descriptor.start + data_at + offset)
        level = _LEVELS.get(kind)
        if level is None:
            raise self._bad_file(descriptor, f"pointers of type {kind:#x} are not known")
        unit = self._unit(descriptor)
        index, within = divmod(offset, unit)
        pointer = self._pointer(descriptor, index, level)
        if pointer is None:
            return Run(unit - within)
        return self._run(pointer, unit, index, within)

    def _unit(self, descriptor: Descriptor) -> int:
        """Bytes of a file that each of its pointers stands for."""
        shift = descriptor.extension.block_offset_shift  # 0 in VMFS 3
        unit = 1 << shift if shift else descriptor.metadata.block_size or self._block
        if not 512 <= unit <= 1 << 40 or unit & (unit - 1):
            raise self._bad_file(descriptor, f"{unit} bytes are no size of its blocks")
        return unit

    def _pointer(self, descriptor: Descriptor, index: int, level: int) -> int | None:
        """The pointer to a file's block of that number, through `level` blocks of pointers; None for a hole."""
        width = 8 if self._is_6 else 4
        count = _V6_POINTERS if self._is_6 else _V3_POINTERS
        table = descriptor.raw[-count * width :]
        own = index
        per_block = []
        for depth in range(level):
            size = self._pointer_block_size(PB2 if level - depth == 2 else PBC)
            per_block.append(size // width)
        for entries in reversed(per_block):
            own //= entries
        if own >= count:
            raise self._bad_file(descriptor, f"block {index} is more than its pointers reach")
        pointer = int.from_bytes(table[own * width : (own + 1) * width], "little")
        rest = index
        for depth in range(level):
            span = 1
            for entries in per_block[depth + 1 :]:
                span *= entries
            if not pointer:
                return None
            within = rest // span % per_block[depth]
            data = self._read_resource_part(pointer, within * width, width)
            pointer = int.from_bytes(data, "little")
        return pointer or None

    def _pointer_block_size(self, address: int) -> int:
        try:
            size = self._resource_file(address)[0].resource_size
        except CorruptImage:
            if address != PB2:
                raise
            size = self._resource_file(PBC)[0].resource_size  # volumes without .pb2.sf have both in one file
        if not 64 <= size <= 1 << 20 or size % 8:
            raise CorruptImage("no size of a block of pointers", structure="VMFS resource file", found=size)
        return size

    def _read_resource_part(self, pointer: int, offset: int, length: int) -> bytes:
        """Some bytes of a block of pointers."""
        run = self._run(pointer, offset + length, 0, offset)
        if run.start is None or run.length < length:
            raise _bad_pointer("VMFS pointer block address", pointer, 0)
        return self._volume.read_at(run.start, length)

    def _run(self, pointer: int, unit: int, index: int, within: int) -> Run:
        """Where the bytes from `within` on of the block that a pointer leads to lie."""
        kind = pointer & 7
        if kind == _FILE_BLOCK or (kind == _LARGE_BLOCK and self._is_6):
            return self._file_block(pointer, unit, index, within)
        files = {_SUB_BLOCK: SBC, _POINTER_BLOCK: PBC, _POINTER_BLOCK_2: PB2}
        if kind not in files:
            raise _bad_pointer("VMFS block pointer", pointer, index)
        if self._is_6:
            cluster, resource = pointer >> 6 & 0xFFFFFFFFF, pointer >> 56
        else:
            cluster, resource = pointer >> 6 & 0x3FFFFF, pointer >> 28
        return self._resource(files[kind], cluster, resource, within)

    def _file_block(self, pointer: int, unit: int, index: int, within: int) -> Run:
        left = unit - within
        if not self._is_6:
            if pointer & 0x20:  # to be zeroed
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
        to_zero = pointer >> 7 & 0xFF  # a bit for each eighth
        if not to_zero:
            return Run(left, start)
        eighth = max(unit // 8, 1)
        length = min(eighth - within % eighth, left)
        return Run(length) if to_zero >> within // eighth & 1 else Run(length, start)

    def _blocks_per_cluster(self) -> int:
        """File blocks in a cluster of VMFS 6, as their resource file says, which itself lies in such blocks."""
        if self._per_cluster is None:
            self._per_cluster = min(0x2000, 0x20000000 // self._block) or 1  # what it is where nothing is wrong
            try:
                metadata, content = self._resource_file(FBB)
                child = metadata.child_metadata_offset  # large blocks are the parent there, small ones their child
                if child:
                    metadata = ResourceFileMetadata.parse(content.read_at(child, ResourceFileMetadata.length()))
            except CorruptImage as error:
                self._report(Problem.of(error))
            else:
                self._per_cluster = metadata.resources_per_cluster or self._per_cluster
        return self._per_cluster

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
            raise past_resources(metadata, at)
        run = content.locate(at)
        if run.start is None:
            raise past_resources(metadata, at)
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
            descriptor = self.descriptor(address)
            content = MappedDisk(
                "vmfs", self._volume, descriptor.metadata.size, lambda offset: self._locate(descriptor, offset)
            )
            metadata = ResourceFileMetadata.parse(content.read_at(0, ResourceFileMetadata.length()))
        finally:
            self._depth.value = depth
        self._resource_files[address] = (metadata, content)
        return metadata, content

    def _descriptor_bytes(self, cluster: int, resource: int) -> tuple[int, bytes]:
        """Where a descriptor lies, and its bytes; whole clusters are read and kept."""
        base, metadata = self._descriptors()
        if resource >= metadata.resources_per_cluster:
            raise CorruptImage(
                "no cluster has such a resource",
                structure="VMFS file descriptor address",
                expected=f"less than {metadata.resources_per_cluster}",
                found=resource,
            )
        size = self._descriptor_size
        offset = self._resource_offset(metadata, cluster, resource)
        if cluster < metadata.clusters_per_group and (resource, cluster) in _SYSTEM_PLACES:
            start = base + offset  # these are needed to find all others, and lie where the file begins
            return start, self._volume.read_at(start, size)
        length = metadata.resources_per_cluster * size
        with self._lock:
            if cluster in self._clusters:
                self._clusters.move_to_end(cluster)
            else:
                first = self._resource_offset(metadata, cluster, 0)
                self._clusters[cluster] = self._read_contiguous(first, length)
                if len(self._clusters) > _MOST_CLUSTERS:
                    self._clusters.popitem(last=False)
            kept = self._clusters[cluster]
        if kept is not None:
            start, data = kept
            return start + resource * size, data[resource * size : (resource + 1) * size]
        run = self._resource_file(FDC)[1].locate(offset)  # a cluster in two blocks
        if run.start is None or run.length < size:
            raise past_resources(metadata, offset)
        return run.start, self._volume.read_at(run.start, size)

    def _read_contiguous(self, offset: int, length: int) -> tuple[int, bytes] | None:
        """Where a range of the descriptors' file lies, and its bytes; None where it is not in one piece."""
        content = self._resource_file(FDC)[1]
        if offset >= content.size:
            raise CorruptImage(
                "it lies past the end of the file of descriptors",
                structure="VMFS file descriptor address",
                expected=f"less than {content.size:#x}",
                found=f"{offset:#x}",
            )
        run = content.locate(offset)
        if run.start is None or run.length < length or offset + length > content.size:
            return None
        try:
            return run.start, self._volume.read_at(run.start, length)
        except CorruptImage:
            return None

    def _descriptors(self) -> tuple[int, ResourceFileMetadata]:
        """Where the file of descriptors begins, and its metadata."""
        if self._base is None:
            usual = max(1, (DESCRIPTORS_OFFSET_6 if self._is_6 else DESCRIPTORS_OFFSET) // self._block)
            for block in (usual, *range(1, _SEARCHED)):
                if self._is_descriptors(block * self._block):
                    self._base = block * self._block
                    break
            else:
                raise CorruptImage(
                    "it is neither in its usual place nor near it",
                    structure="VMFS file of descriptors",
                    offset=usual * self._block,
                )
        data = self._volume.read_at(self._base, ResourceFileMetadata.length())
        return self._base, ResourceFileMetadata.parse(data, base=self._base)

    def _is_descriptors(self, base: int) -> bool:
        """Whether the file of descriptors begins here: it says so, and has its own descriptor in its place."""
        try:
            metadata = ResourceFileMetadata.parse(self._volume.read_at(base, ResourceFileMetadata.length()), base=base)
            if metadata.resource_size != self._descriptor_size or not 1 <= metadata.clusters_per_group <= 1 << 16:
                return False
            start = base + self._resource_offset(metadata, 0, FDC >> 22)
            Descriptor(FDC, start, self._volume.read_at(start, self._descriptor_size), self._alignment)
        except CorruptImage:
            return False
        return True

    @staticmethod
    def _bad_file(descriptor: Descriptor, message: str) -> CorruptImage:
        return CorruptImage(message, structure="VMFS file descriptor", offset=descriptor.metadata.source_offset)


_SYSTEM_PLACES: Final = {(address >> 22, address >> 6 & 0xFFFF) for address in (ROOT, FBB, FDC, PBC, SBC, PB2)}


def past_resources(metadata: ResourceFileMetadata, offset: int) -> CorruptImage:
    """The error for a resource that its file does not hold."""
    return CorruptImage(
        "a pointer leads past its end, or into a hole",
        structure="VMFS resource file",
        offset=metadata.source_offset,
        found=f"{offset:#x}",
    )


def _bad_pointer(structure: str, pointer: int, index: int) -> CorruptImage:
    return CorruptImage(f"block {index}: a pointer of unknown kind", structure=structure, found=f"{pointer:#x}")
