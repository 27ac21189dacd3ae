"""Resource files of VMFS, and the places of their resources, file descriptors above all.

A resource file holds resources of one size in clusters: file descriptors, sub-blocks, blocks of pointers. It is itself
a file, with a descriptor and blocks. All offsets here count from the volume's start, in bytes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.schemas.vmfs import (
    DESCRIPTORS_OFFSET,
    RESOURCE_FILE_SIGNATURE,
    ClusterMetadata,
    DiskLock,
    FileMetadata,
    FileMetadataExtension,
    ResourceFileMetadata,
    descriptors_offset_6,
)
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.volumes.vmfs.addresses import (
    DESCRIPTOR,
    FBB,
    FDC,
    PB2,
    PBC,
    ROOT,
    SBC,
    SUB_BLOCK,
    ResourceAddress,
    parse_descriptor,
)
from vmvisor_image.volumes.vmfs.geometry import Geometry
from vmvisor_image.volumes.vmfs.lvm import LogicalVolume

_DESCRIPTORS_AT_ONCE: Final = 1 << 18
"""Bytes of descriptors that are read together, all of one cluster; real volumes of VMFS 5 have 400 KiB in one."""
_MOST_PARTS: Final = 64
"""Number of parts that are kept: 16 MiB."""
_MOST_IN_CLUSTER: Final = 0x2000
"""Most file blocks in a cluster of VMFS 6: as many as a pointer can number."""
_SEARCHED: Final = 64
"""Blocks at the volume's start that are searched for the descriptors where these are not in their usual place."""
_DEEPEST: Final = 4
"""Most resource files that one pointer may lead through."""
_SYSTEM_PLACES: Final = {
    (place.cluster, place.resource) for place in map(parse_descriptor, (ROOT, FBB, FDC, PBC, SBC, PB2))
}
"""Cluster and resource of the descriptors of the system's files."""

Report = Callable[[Problem], None]


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrangement of the pointers of a file."""

    unit: int
    """Bytes of the file behind each pointer to data."""
    levels: tuple[int, ...]
    """Number of pointers in a block of pointers, for each level of such blocks."""
    span: int
    """Number of pointers to data behind each pointer of the descriptor."""
    table: bytes
    """Bytes of the descriptor's pointers."""


class Descriptor:
    """One file descriptor."""

    __slots__ = ("address", "extension", "layout", "lock", "metadata", "raw", "start")

    def __init__(self, address: int, start: int, raw: bytes, metadata_at: int) -> None:
        """A descriptor by its bytes, from byte `start` of the volume.

        Raises:
            CorruptImage: It is not a descriptor, or is another one's.
        """
        self.address = address
        self.start = start
        self.raw = raw
        self.layout: Layout | None = None
        """Layout that `VmfsBlocks` found; None before it was needed."""
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
        """Error with a message about the descriptor."""
        return CorruptImage(message, structure="VMFS file descriptor", offset=self.metadata.source_offset)


@dataclass(frozen=True, slots=True)
class ResourceFile:
    """One resource file."""

    metadata: ResourceFileMetadata
    content: MappedDisk
    header: int
    """Bytes of a cluster's lock and metadata."""

    def locate(self, cluster: int, resource: int, within: int) -> Run:
        """Run of a resource from byte `within` on.

        Raises:
            CorruptImage: There is no such resource.
        """
        size = self.metadata.resource_size
        if resource >= max(self.metadata.resources_per_cluster, 1) or within >= size:
            raise CorruptImage(
                "a pointer leads to a resource that no cluster has",
                structure="VMFS resource file",
                offset=self.metadata.source_offset,
                expected=f"less than {self.metadata.resources_per_cluster}",
                found=resource,
            )
        at = _place(self.metadata, self.header, cluster, resource) + within
        if at >= self.content.size:
            raise _past_end(self.metadata, at)
        run = self.content.locate(at, at + 1)
        if run.start is None:
            raise _past_end(self.metadata, at)
        return Run(min(run.length, size - within), run.start)


class ResourceFiles:
    """The resource files of a volume; any number of threads may read."""

    def __init__(
        self,
        volume: LogicalVolume,
        geometry: Geometry,
        content: Callable[[Descriptor], MappedDisk],
        report: Report,
    ) -> None:
        """Resource files, not read yet; `content` gives the data of the file of a descriptor."""
        self._volume = volume
        self._geometry = geometry
        self._content = content
        self._report = report
        self._files: dict[int, ResourceFile] = {}
        self._parts: LruCache[tuple[int, int], tuple[tuple[int, int, bytes], ...]] = LruCache(_MOST_PARTS)
        self._descriptors: tuple[int, ResourceFileMetadata] | None = None
        self._per_cluster: int | None = None
        self._depth = threading.local()

    def file(self, address: int) -> ResourceFile:
        """A resource file by its descriptor's address.

        Raises:
            CorruptImage: The resource file is damaged.
        """
        known = self._files.get(address)
        if known is not None:
            return known
        depth = getattr(self._depth, "value", 0)
        if depth >= _DEEPEST:
            raise CorruptImage("it leads to itself", structure="VMFS resource file", found=f"{address:#x}")
        self._depth.value = depth + 1
        try:
            content = self._content(self.descriptor(address))
            head = content.read_at(0, ResourceFileMetadata.length())
            metadata = ResourceFileMetadata.parse(head, base=content.locate(0, 1).start or 0)
        finally:
            self._depth.value = depth
        found = self._files[address] = ResourceFile(metadata, content, self._geometry.header)
        return found

    def locate(self, address: int, place: ResourceAddress, within: int) -> Run:
        """Run, from byte `within` on, of a resource in the file whose descriptor has an address.

        Addresses of sub-blocks of VMFS 3 and 5 have two more bits for the resource where the file system says so;
        vmfs-tools always read them. They are needed where a cluster has more resources than four bits can number.

        Raises:
            CorruptImage: There is no such resource.
        """
        resource = place.resource
        if place.dense and place.kind == SUB_BLOCK:
            is_dense = self._geometry.has_dense_sub_blocks or self.file(SBC).metadata.resources_per_cluster > 1 << 4
            resource |= place.dense << 4 if is_dense else 0
        return self.file(address).locate(place.cluster, resource, within)

    @property
    def has_pointer_blocks(self) -> bool:
        """Whether the volume of VMFS 6 has separate pointer blocks."""
        try:
            metadata = self.file(PBC).metadata
        except CorruptImage:
            return False
        return bool(metadata.resource_count or metadata.resource_count_high)

    def descriptor(self, address: int) -> Descriptor:
        """A file descriptor by its address.

        Raises:
            CorruptImage: There is no such descriptor.
        """
        place = parse_descriptor(address)
        if place.kind != DESCRIPTOR:
            raise bad_pointer("VMFS file descriptor address", address, 0)
        start, raw = self._descriptor_bytes(place.cluster, place.resource)
        return Descriptor(address, start, raw, self._geometry.alignment)

    def used_blocks(self) -> bytearray | None:
        """Use of each file block by the bitmap: 1 for used, otherwise 0; None for VMFS 6.

        Raises:
            CorruptImage: The bitmap can't be read.
        """
        geometry = self._geometry
        if geometry.is_6:
            return None
        blocks = self.file(FBB)
        metadata, content = blocks.metadata, blocks.content
        per_cluster, per_group = metadata.resources_per_cluster, max(metadata.clusters_per_group, 1)
        count = min(metadata.resource_count | metadata.resource_count_high << 32, self._volume.size // geometry.block)
        if not 0 < per_cluster <= 8 * (geometry.header - geometry.alignment - ClusterMetadata.length()):
            raise _past_end(metadata, 0)
        used = bytearray()
        for cluster in range(-(-count // per_cluster)):
            check_deadline()
            group, number = divmod(cluster, per_group)
            at = metadata.cluster_group_offset + group * metadata.cluster_group_size + number * geometry.header
            at += geometry.alignment + ClusterMetadata.length()
            if at + -(-per_cluster // 8) > content.size:
                raise _past_end(metadata, at)
            free = int.from_bytes(content.read_at(at, -(-per_cluster // 8)), "little")
            used += bytes(1 - (free >> resource & 1) for resource in range(per_cluster))
        return used[:count]

    @property
    def blocks_per_cluster(self) -> int:
        """Number of file blocks in a cluster of VMFS 6, as in their resource file, which itself is in such blocks."""
        if self._per_cluster is None:
            # As on all known volumes.
            self._per_cluster = min(_MOST_IN_CLUSTER, 0x20000000 // self._geometry.block) or 1
            try:
                self._per_cluster = self._read_blocks_per_cluster(self._per_cluster)
            except CorruptImage as error:
                self._report(Problem.of(error))
        return self._per_cluster

    def _read_blocks_per_cluster(self, usual: int) -> int:
        blocks = self.file(FBB)
        metadata, content = blocks.metadata, blocks.content
        child = metadata.child_metadata_offset  # large blocks are the parent there, small ones their child
        if child:
            place = content.locate(child, child + 1).start or 0
            metadata = ResourceFileMetadata.parse(content.read_at(child, ResourceFileMetadata.length()), base=place)
        count = metadata.resources_per_cluster
        if metadata.signature != RESOURCE_FILE_SIGNATURE or not 1 <= count <= _MOST_IN_CLUSTER:
            raise CorruptImage(
                f"the number of file blocks in a cluster is not recorded, {usual} is taken",
                structure="VMFS resource file",
                offset=metadata.source_offset,
            )
        return count

    def _descriptor_bytes(self, cluster: int, resource: int) -> tuple[int, bytes]:
        """Offset of a descriptor in the volume, and its bytes; many of a cluster are read at once and kept."""
        base, metadata = self._find_descriptors()
        if resource >= metadata.resources_per_cluster:
            raise CorruptImage(
                "no cluster has such a resource",
                structure="VMFS file descriptor address",
                expected=f"less than {metadata.resources_per_cluster}",
                found=resource,
            )
        size = self._geometry.descriptor
        if (cluster, resource) in _SYSTEM_PLACES:
            # These are needed to find all others, and are at the start of the file.
            start = base + _place(metadata, self._geometry.header, cluster, resource)
            return start, self._volume.read_at(start, size)
        at_once = max(_DESCRIPTORS_AT_ONCE // size, 1)
        part = resource // at_once
        for first, start, data in self._part(metadata, cluster, part, at_once):
            within = (resource - part * at_once) * size - first
            if 0 <= within <= len(data) - size:
                return start + within, data[within : within + size]
        offset = _place(metadata, self._geometry.header, cluster, resource)
        run = self.file(FDC).content.locate(offset, offset + 1)  # one that could not be read with its neighbours
        if run.start is None or run.length < size:
            raise _past_end(metadata, offset)
        return run.start, self._volume.read_at(run.start, size)

    def _part(
        self, metadata: ResourceFileMetadata, cluster: int, part: int, at_once: int
    ) -> tuple[tuple[int, int, bytes], ...]:
        """Runs of a part of a cluster's descriptors: first byte in the part, first byte in the volume, and bytes."""
        known = self._parts.get((cluster, part))
        if known is None:
            first = part * at_once
            length = min(metadata.resources_per_cluster - first, at_once) * self._geometry.descriptor
            known = tuple(self._read_part(_place(metadata, self._geometry.header, cluster, first), length))
            self._parts.put((cluster, part), known)
        return known

    def _read_part(self, offset: int, length: int) -> Iterator[tuple[int, int, bytes]]:
        content = self.file(FDC).content
        if offset >= content.size:
            raise CorruptImage(
                "it lies past the end of the file of descriptors",
                structure="VMFS file descriptor address",
                expected=f"less than {content.size:#x}",
                found=f"{offset:#x}",
            )
        at, end = offset, min(offset + length, content.size)
        while at < end:
            run = content.locate(at, at + 1)
            count = min(run.length, end - at)
            if run.start is not None:
                with contextlib.suppress(CorruptImage):  # each is then read by itself, and the damaged ones reported
                    yield at - offset, run.start, self._volume.read_at(run.start, count)
            at += count

    def _find_descriptors(self) -> tuple[int, ResourceFileMetadata]:
        """Bytes from the volume's start to the file of descriptors, and its metadata."""
        if self._descriptors is None:
            usual = max(1, DESCRIPTORS_OFFSET // self._geometry.block) * self._geometry.block
            if self._geometry.is_6:
                usual = descriptors_offset_6(self._geometry.alignment)
            for place in (usual, *range(self._geometry.block, _SEARCHED * self._geometry.block, self._geometry.block)):
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
        """Metadata of the file of descriptors at byte `base`; None where it or its own descriptor is not there."""
        try:
            metadata = ResourceFileMetadata.parse(self._volume.read_at(base, ResourceFileMetadata.length()), base=base)
            if metadata.resource_size != self._geometry.descriptor or not 1 <= metadata.clusters_per_group <= 1 << 16:
                return None
            start = base + _place(metadata, self._geometry.header, 0, parse_descriptor(FDC).resource)
            Descriptor(FDC, start, self._volume.read_at(start, self._geometry.descriptor), self._geometry.alignment)
        except CorruptImage:
            return None
        return metadata


def _place(metadata: ResourceFileMetadata, header: int, cluster: int, resource: int) -> int:
    """Bytes from the start of a resource file to a resource."""
    group, number = divmod(cluster, max(metadata.clusters_per_group, 1))
    at = metadata.cluster_group_offset + group * metadata.cluster_group_size
    at += metadata.clusters_per_group * header
    return at + (number * metadata.resources_per_cluster + resource) * metadata.resource_size


def _past_end(metadata: ResourceFileMetadata, offset: int) -> CorruptImage:
    """Error for a resource that its file does not contain."""
    return CorruptImage(
        "a pointer leads past its end, or into a hole",
        structure="VMFS resource file",
        offset=metadata.source_offset,
        found=f"{offset:#x}",
    )


def bad_pointer(structure: str, pointer: int, index: int) -> CorruptImage:
    """Error for a pointer of an unknown kind, which is that of a file's block `index`."""
    return CorruptImage(f"block {index}: a pointer of unknown kind", structure=structure, found=f"{pointer:#x}")
