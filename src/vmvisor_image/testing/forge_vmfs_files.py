"""Small VMFS 3, 5, 6 and VMFS-L volumes with files in them, built from the records that the reader reads.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.schemas.vmfs import (
    DESCRIPTORS_OFFSET,
    DIRECTORY_BLOCK_ENTRIES,
    DIRECTORY_BLOCK_MAP,
    DIRECTORY_ENTRIES_OFFSET,
    DIRECTORY_VERSIONS,
    DISK_BLOCK,
    EXTENT_SIZE,
    MOST_POINTERS_6,
    RESOURCE_FILE_SIGNATURE,
    USUAL_ALIGNMENT,
    ClusterMetadata,
    DirectoryBlockHeader,
    DiskLock,
    FileMetadata,
    FileMetadataExtension,
    HashedDirectoryEntry,
    ResourceFileMetadata,
    ScsiDiskId,
    VmfsDirectoryEntry,
    descriptors_offset_6,
)
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET, DEFAULT_CREATED, NaaDisk, VmfsKind, vmfs_headers
from vmvisor_image.volumes.vmfs.files import DIRECTORY, LINK, RAW_DEVICE, REGULAR, SYSTEM

Pointers = Literal["resident", "sub-blocks", "file blocks", "pointer blocks", "double", "large blocks"]

BLOCK: Final = 1 << 20
"""Bytes in a file block."""
_PAGE: Final = 4096
_ZEROS: Final = bytes(_PAGE)
_CLUSTERS_PER_GROUP: Final = 32
_GROUP_OFFSET: Final = 0x10000
_JOURNAL_BLOCK: Final = 0x10000
_CHILD_METADATA: Final = 0x1000
_LARGE_BLOCK: Final = 512
"""File blocks in a large block."""
_ROOT, _FBB, _FDC, _PBC, _SBC, _VH, _PB2, _JBC = *range(7), 8
_SYSTEM_FILES: Final = {
    ".fbb.sf": _FBB,
    ".fdc.sf": _FDC,
    ".pbc.sf": _PBC,
    ".sbc.sf": _SBC,
    ".vh.sf": _VH,
    ".pb2.sf": _PB2,
    ".jbc.sf": _JBC,
}
_FIRST_FREE: Final = 16
"""Number of the first descriptor that is not for system files."""
_LOCKS: Final = {"fbb": 2, "sbc": 3, "pbc": 4, "fdc": 5, "pb2": 6, "jbc": 7}
"""Types of clusters' locks, besides `_LOCK`."""
_LOCK: Final = 0x10C00000
_DESCRIPTOR_LOCK: Final = _LOCK + 1
_TYPES: Final[dict[Pointers | Literal["secondary pointer blocks"], int]] = {
    "resident": 0x10D1,
    "sub-blocks": 2,
    "file blocks": 1,
    "pointer blocks": 3,
    "secondary pointer blocks": 5,
    "double": 0x10D0,
    "large blocks": 1,
}


@dataclass(frozen=True, slots=True)
class VmfsFile:
    """A file, which may have holes."""

    data: bytes = b""
    """Content, where that has no holes."""
    pieces: tuple[tuple[int, bytes], ...] = ()
    """Offset and bytes of each part that is not a hole; then `data` is empty and `size` is used."""
    size: int | None = None
    """Size in bytes; None for that of `data`."""
    pointers: Pointers | None = None
    """Kind of pointers to its blocks; None for the one that VMFS would choose."""
    to_zero: frozenset[int] = frozenset()
    """Blocks that are allocated and read as zeros."""
    modified: datetime = DEFAULT_CREATED
    mode: int = 0o600
    owner: int = 0
    group: int = 0
    locked_by: bytes = bytes(16)
    """UUID of the host that holds it, zeros for none."""

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.data) if self.size is None else self.size


@dataclass(frozen=True, slots=True)
class VmfsLink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class VmfsRawDevice:
    """A raw device mapping."""

    size: int
    """Bytes of the disk."""
    vendor: str = "FORGED"
    """Vendor, at most 8 letters."""
    model: str = "LUN"
    """Model, at most 16 letters."""
    disk_id: str = ""
    """Identifier, at most 44 letters."""
    disk: NaaDisk | None = None
    """Disk by its NAA identifier, instead of vendor, model and `disk_id`."""


@dataclass(frozen=True, slots=True)
class VmfsDirectory:
    """An empty directory, for a path that ends in a slash."""

    mode: int = 0o755
    """Mode, with or without the bits of the type."""
    is_system: bool = False
    """Whether its descriptor says that it is the system's own, as that of ``.sdd.sf`` does on VMFS 5 and later: only
    the mode then says that it is a directory. Vouched for by debugvmfs, which lists it as one."""


Content = bytes | VmfsFile | VmfsLink | VmfsRawDevice | VmfsDirectory


def vmfs_volume(
    tree: Mapping[str, Content],
    kind: VmfsKind = "vmfs5",
    *,
    size: int = 4 * EXTENT_SIZE + DATA_OFFSET,
    label: str = "datastore1",
    hosts: tuple[str, ...] = (),
    devices: int = 1,
    own_pointer_blocks: bool = False,
    alignment: int = USUAL_ALIGNMENT,
) -> tuple[SparseImage, ...]:
    """The devices of a volume with files, each as a partition of `size` bytes.

    Vouched for by ``debugvmfs`` (VMFS 3 and 5) and dissect.vmfs (``dissect_listing.py``; 5, 6, VMFS-L):
    ``tests/test_vmfs_files.py``. VMFS 3 is laid out as a real volume of 3.31.

    Args:
        tree: Content by path; a path that ends in a slash is an empty directory, of `VmfsDirectory` or of anything.
        kind: The generation.
        size: Bytes in each partition.
        label: Name of the datastore.
        hosts: IP addresses of hosts that use it.
        devices: Number of devices in the volume; the files are laid out over all of them.
        own_pointer_blocks: Of VMFS 6: keep blocks of pointers in ``.pbc.sf``, as dissect.vmfs knows to read them, and
            not among the sub-blocks, where real volumes have them.
        alignment: Bytes that metadata of VMFS 6 are aligned to: 4096 of all volumes that are known, or more.

    Raises:
        InvalidArgument: The files do not fit, or one can't be laid out as requested.
    """
    heads = [
        vmfs_headers(
            kind,
            size=size,
            label=label,
            hosts=hosts if number == 0 else (),
            device=number,
            devices=devices,
            alignment=alignment,
        )
        for number in range(devices)
    ]
    room = (size - DATA_OFFSET) // EXTENT_SIZE * EXTENT_SIZE
    writer = _Writer(kind, tree, room * devices // BLOCK, alignment=alignment, own_pointer_blocks=own_pointer_blocks)
    pages = writer.write()
    images = []
    for number, head in enumerate(heads):
        first = number * room
        own = [
            (page * _PAGE - first + DATA_OFFSET, bytes(data))
            for page, data in pages.items()
            if first <= page * _PAGE < first + room
        ]
        images.append(SparseImage(size, [*head.pieces, *own]))
    return tuple(images)


@dataclass(slots=True)
class _Node:
    """A file or directory before it is laid out."""

    number: int
    content: Content | None = None
    """Content of a file; for a directory its further properties, or None."""
    children: dict[str, _Node] = field(default_factory=dict)


@dataclass(slots=True)
class _Resources:
    """One resource file."""

    name: str
    metadata: ResourceFileMetadata
    base: int
    """First byte in the volume; it is in one piece."""
    size: int
    used: int = 0


class _Writer:
    def __init__(
        self, kind: VmfsKind, tree: Mapping[str, Content], blocks: int, *, alignment: int, own_pointer_blocks: bool
    ) -> None:
        self._is_6 = kind in ("vmfs6", "vmfs-l")
        self._own_pointer_blocks = own_pointer_blocks or not self._is_6
        self._is_3 = kind == "vmfs3"
        self._alignment = alignment if self._is_6 else DISK_BLOCK
        self._header = 2 * self._alignment
        self._descriptor_size = self._header if self._is_6 else 2048
        self._descriptors_in_cluster = 32 if self._is_3 else 128 if self._is_6 else 200
        """Number as on real volumes of VMFS 3 and 5; for VMFS 6 too many for a reader to read at once."""
        self._width, self._pointers = (8, MOST_POINTERS_6) if self._is_6 else (4, 256)
        if self._alignment > USUAL_ALIGNMENT:
            self._pointers = self._alignment // 16
        self._is_5 = not self._is_3 and not self._is_6
        self._sub_block = 8192 if self._is_5 else 0x10000
        self._sub_blocks = 64 if self._is_5 else 16
        """Sub-blocks in a cluster; in VMFS 5 enough that pointers need the two bits of dense ones."""
        self._pointer_block = 0x10000 if self._is_6 else 4096
        self._resident = 0 if self._is_3 else 1024
        if self._is_6:
            self._resident = self._alignment - DISK_BLOCK - 8 * self._pointers  # which follow it
        self._blocks = blocks
        self._pages: dict[int, bytearray] = {}
        self._large: dict[tuple[int, int], int] = {}
        self._tables: dict[int, int] = {}
        """Place of each block of pointers, by the pointer to it."""
        self._next = DESCRIPTORS_OFFSET // BLOCK
        if self._is_6:
            self._next = descriptors_offset_6(self._alignment) // BLOCK
        self._count = _FIRST_FREE
        self._root = _Node(0)
        for path, content in tree.items():
            self._add(path, content)

    def write(self) -> dict[int, bytearray]:
        """Pages of the volume, by their number."""
        clusters = -(-self._count // self._descriptors_in_cluster)
        self._fdc = self._resource_file("fdc", clusters, self._descriptors_in_cluster, self._descriptor_size)
        per_cluster = _LARGE_BLOCK if self._is_6 else 200
        self._fbb = self._resource_file("fbb", -(-self._blocks // per_cluster), per_cluster, 0)
        clusters = 2 * _CLUSTERS_PER_GROUP if self._own_pointer_blocks else 0
        self._pbc = self._resource_file("pbc", clusters, 16, self._pointer_block)
        clusters = self._count // self._sub_blocks + _CLUSTERS_PER_GROUP
        self._sbc = self._resource_file("sbc", clusters, self._sub_blocks, self._sub_block)
        self._resource_files = {_FBB: self._fbb, _FDC: self._fdc, _PBC: self._pbc, _SBC: self._sbc}
        if not self._is_3:
            self._pb2 = self._resource_file("pb2", _CLUSTERS_PER_GROUP, 16, self._pointer_block)
            self._resource_files[_PB2] = self._pb2
        if self._is_6:
            self._resource_files[_JBC] = self._resource_file("jbc", _CLUSTERS_PER_GROUP, 16, _JOURNAL_BLOCK)
        self._tables_in = self._pbc if self._own_pointer_blocks else self._sbc
        self._system_files()
        self._lay_out(self._root, 0)
        for resources in self._resource_files.values():
            self._write_resource_file(resources)
        if self._next > self._blocks:
            raise InvalidArgument(f"the files take {self._next} blocks of 1 MiB, the volume has {self._blocks}")
        return self._pages

    def _add(self, path: str, content: Content) -> None:
        parts = [part for part in path.split("/") if part]
        here = self._root
        for part in parts[:-1] if not path.endswith("/") else parts:
            if part not in here.children:
                here.children[part] = _Node(self._new())
            here = here.children[part]
        if path.endswith("/") and isinstance(content, VmfsDirectory):
            here.content = content
        if not path.endswith("/"):
            here.children[parts[-1]] = _Node(self._new(), content)

    def _address(self, number: int) -> int:
        cluster, resource = divmod(number, self._descriptors_in_cluster)
        return 4 | cluster << 6 | resource << 22

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _resource_file(self, name: str, clusters: int, per_cluster: int, resource_size: int) -> _Resources:
        groups = -(-clusters // _CLUSTERS_PER_GROUP)
        group_size = _CLUSTERS_PER_GROUP * (self._header + per_cluster * resource_size)
        metadata = ResourceFileMetadata(
            resources_per_cluster=per_cluster,
            clusters_per_group=_CLUSTERS_PER_GROUP,
            cluster_group_offset=_GROUP_OFFSET,
            resource_size=resource_size,
            cluster_group_size=group_size,
            resource_count=groups * _CLUSTERS_PER_GROUP * per_cluster,
            group_count=groups,
            resource_count_high=0,
            signature=RESOURCE_FILE_SIGNATURE if self._is_6 else 0,
            version=1 if self._is_6 else 0,
            flags=0,
            unknown=bytes(8),
            child_metadata_offset=0,
            parent_resources_per_cluster=0,
            parent_clusters_per_group=0,
            parent_cluster_group_offset=0,
        )
        size = _GROUP_OFFSET + groups * group_size
        return _Resources(name, metadata, self._take(-(-size // BLOCK)) * BLOCK, size)

    def _write_resource_file(self, resources: _Resources) -> None:
        """Write the metadata, and a lock and a bitmap for each cluster."""
        metadata = resources.metadata
        self._put(resources.base, metadata.build())
        if self._is_6 and resources is self._fbb:
            # Large blocks come first there, and say where the metadata of the small ones is.
            self._put(resources.base + _CHILD_METADATA, metadata.build())
            parent = replace(metadata, resources_per_cluster=1, child_metadata_offset=_CHILD_METADATA)
            self._put(resources.base, parent.build())
        per_cluster = metadata.resources_per_cluster
        used = {"fdc": self._count, "fbb": self._next}.get(resources.name, resources.used)
        for cluster in range(metadata.group_count * _CLUSTERS_PER_GROUP):
            group, number = divmod(cluster, _CLUSTERS_PER_GROUP)
            at = resources.base + metadata.cluster_group_offset + group * metadata.cluster_group_size
            at += number * self._header
            taken = min(max(used - cluster * per_cluster, 0), per_cluster)
            bitmap = ((1 << per_cluster) - (1 << taken)).to_bytes(-(-per_cluster // 8), "little")
            head = ClusterMetadata(cluster, per_cluster, per_cluster - taken, taken % per_cluster).build()
            self._put(at, self._lock(_LOCK + _LOCKS[resources.name], at))
            self._put(at + self._alignment, head + bitmap)

    @staticmethod
    def _lock(kind: int, at: int, owner: bytes = bytes(16)) -> bytes:
        mode = int(any(owner))
        return DiskLock(kind, at, 0x300000 if mode else 0, mode, 0, mode, owner, 0).build()

    def _take(self, count: int) -> int:
        """Number of the first of `count` new file blocks."""
        self._next += count
        return self._next - count

    def _put(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            page, within = divmod(offset, _PAGE)
            count = min(_PAGE - within, len(view))
            self._pages.setdefault(page, bytearray(_PAGE))[within : within + count] = view[:count]
            view = view[count:]
            offset += count

    def _resource_place(self, resources: _Resources, number: int) -> int:
        """Bytes from the volume's start to a resource."""
        metadata = resources.metadata
        cluster, resource = divmod(number, metadata.resources_per_cluster)
        group, own = divmod(cluster, _CLUSTERS_PER_GROUP)
        at = resources.base + metadata.cluster_group_offset + group * metadata.cluster_group_size
        at += _CLUSTERS_PER_GROUP * self._header
        return at + (own * metadata.resources_per_cluster + resource) * metadata.resource_size

    def _new_resource(self, resources: _Resources) -> int:
        metadata = resources.metadata
        if resources.used >= metadata.group_count * _CLUSTERS_PER_GROUP * metadata.resources_per_cluster:
            raise InvalidArgument(f"no more room in .{resources.name}.sf")
        resources.used += 1
        return resources.used - 1

    def _system_files(self) -> None:
        for number, resources in self._resource_files.items():
            first = resources.base // BLOCK
            pointers = [self._file_block(block) for block in range(first, first - (-resources.size // BLOCK))]
            chosen: Pointers | Literal["secondary pointer blocks"] = "file blocks"
            if self._is_6 and resources is self._sbc:  # too large for its own pointers on each real volume
                chosen = "secondary pointer blocks"
                pointers = list(self._pointer_blocks(dict(enumerate(pointers)), self._pb2).values())
            elif len(pointers) > self._pointers:
                chosen = "pointer blocks"
                pointers = list(self._pointer_blocks(dict(enumerate(pointers)), self._pbc).values())
            self._descriptor(number, SYSTEM, resources.size, pointers, VmfsFile(mode=0o400), chosen)
        header = self._fdc.base
        pointers = [self._file_block(block) for block in range(header // BLOCK)]
        self._descriptor(_VH, SYSTEM, header, pointers, VmfsFile(mode=0o400))
        own = {
            name: _Node(number, VmfsFile())
            for name, number in _SYSTEM_FILES.items()
            if number == _VH or number in self._resource_files
        }
        self._root.children = {**own, **self._root.children}

    def _lay_out(self, node: _Node, parent: int) -> None:
        """Write a directory, then its content, so that the upper ones are on the first device."""
        entries = [(".", node.number, DIRECTORY), ("..", parent, DIRECTORY)]
        entries += [(name, child.number, self._kind(child)) for name, child in node.children.items()]
        data = self._hashed(entries) if self._is_6 else self._listed(entries)
        # The root has to be in file blocks: readers need it to find the files of sub-blocks and pointer blocks.
        pointers: Pointers | None = "file blocks" if node is self._root else None
        told = node.content if isinstance(node.content, VmfsDirectory) else VmfsDirectory()
        self._file(node.number, self._kind(node), VmfsFile(data, mode=told.mode, pointers=pointers))
        for child in node.children.values():
            if child.number < _FIRST_FREE:
                continue  # a system file
            match child.content:
                case None | VmfsDirectory():
                    self._lay_out(child, node.number)
                case VmfsLink(target):
                    self._file(child.number, LINK, VmfsFile(target.encode(), mode=0o777))
                case VmfsRawDevice():
                    self._raw_device(child.number, child.content)
                case VmfsFile():
                    self._file(child.number, REGULAR, child.content)
                case data:
                    self._file(child.number, REGULAR, VmfsFile(data))

    def _raw_device(self, number: int, content: VmfsRawDevice) -> None:
        disk_id = content.disk_id.encode()
        disk = ScsiDiskId(
            disk_id_type=0,
            disk_id_length=len(disk_id),
            lun=0,
            device_type=0,
            scsi_level=5,
            vendor=content.vendor.encode().ljust(8),
            model=content.model.encode().ljust(16),
            revision=b"1.0 ",
            disk_id=disk_id.ljust(44, b"\0"),
        )
        if content.disk is not None:
            disk = content.disk.put_into(disk)
        self._descriptor(number, RAW_DEVICE, content.size, [], VmfsFile(), resident=disk.build())

    @staticmethod
    def _kind(node: _Node) -> int:
        if node.content is None:
            return DIRECTORY
        if isinstance(node.content, VmfsDirectory):
            return SYSTEM if node.content.is_system else DIRECTORY
        if node.number < _FIRST_FREE:
            return SYSTEM
        if isinstance(node.content, VmfsLink):
            return LINK
        return RAW_DEVICE if isinstance(node.content, VmfsRawDevice) else REGULAR

    def _listed(self, entries: Iterable[tuple[str, int, int]]) -> bytes:
        return b"".join(
            VmfsDirectoryEntry(kind, self._address(number), 1, name.encode().ljust(128, b"\0")).build()
            for name, number, kind in entries
        )

    def _hashed(self, entries: list[tuple[str, int, int]]) -> bytes:
        """A directory of VMFS 6; the table of hashes is left empty."""
        own, parent = (self._hashed_entry(*entry, 0) for entry in entries[:2])
        slots = (self._alignment - DirectoryBlockHeader.length()) // HashedDirectoryEntry.length()
        blocks = [b""]  # the first one is the map of those in use
        rest = entries[2:]
        for first in range(0, len(rest), slots):
            part = rest[first : first + slots]
            free = ((1 << slots) - (1 << len(part))).to_bytes(56, "little")
            head = DirectoryBlockHeader(1, DIRECTORY_BLOCK_ENTRIES, slots, slots - len(part), free).build()
            at = DIRECTORY_ENTRIES_OFFSET + len(blocks) * self._alignment + len(head)
            body = b"".join(
                self._hashed_entry(*entry, at + slot * HashedDirectoryEntry.length()) for slot, entry in enumerate(part)
            )
            blocks.append((head + body).ljust(self._alignment, b"\0"))
        types = bytes([DIRECTORY_BLOCK_MAP << 4 | (DIRECTORY_BLOCK_ENTRIES if rest else 0)])
        for first in range(2, len(blocks), 2):
            types += bytes([DIRECTORY_BLOCK_ENTRIES << 4 | (DIRECTORY_BLOCK_ENTRIES if first + 1 < len(blocks) else 0)])
        room = 2 * (self._alignment - DirectoryBlockHeader.length())
        if len(blocks) > room:
            raise InvalidArgument(f"{len(rest)} entries are too many for a directory of the forge")
        blocks[0] = DirectoryBlockHeader(1, DIRECTORY_BLOCK_MAP, room, room - len(blocks), bytes(56)).build() + types
        blocks[0] = blocks[0].ljust(self._alignment, b"\0")
        header = bytearray(DIRECTORY_ENTRIES_OFFSET)
        counts = (DIRECTORY_VERSIONS[0], len(entries), len(blocks), 1)
        header[0:16] = b"".join(number.to_bytes(4, "little") for number in counts)
        header[0x3B8 : 0x3B8 + len(own)] = own
        header[0x4D8 : 0x4D8 + len(parent)] = parent
        return bytes(header) + b"".join(blocks)

    def _hashed_entry(self, name: str, number: int, kind: int, at: int) -> bytes:
        encoded = name.encode().ljust(256, b"\0")
        return HashedDirectoryEntry(kind, self._address(number), 1, 0, 0, at, encoded, bytes(8)).build()

    def _file(self, number: int, kind: int, content: VmfsFile) -> None:
        size = content.length
        chosen = content.pointers or self._usual(content)
        if chosen == "resident":
            if size > self._resident:
                raise InvalidArgument(f"{size} bytes are too many to be resident")
            self._descriptor(number, kind, size, [], content, chosen, resident=content.data)
            return
        unit = self._sub_block if chosen == "sub-blocks" else BLOCK
        blocks: dict[int, list[tuple[int, bytes]]] = {}
        for offset, data in content.pieces or ((0, content.data),):
            for index in range(offset // unit, -(-(offset + len(data)) // unit)):
                first, last = max(offset, index * unit), min(offset + len(data), (index + 1) * unit)
                blocks.setdefault(index, []).append((first - index * unit, data[first - offset : last - offset]))
        pointers = {index: self._block(chosen, parts, index, content) for index, parts in sorted(blocks.items())}
        for index in content.to_zero:
            pointers[index] = self._file_block(self._take(1), to_zero=True)
        count = -(-size // unit)
        if chosen in ("pointer blocks", "double"):
            for resources in (self._tables_in,) if chosen == "pointer blocks" else (self._tables_in, self._pb2):
                pointers = self._pointer_blocks(pointers, resources)
            per = self._pointer_block // self._width
            count = -(-count // (per if chosen == "pointer blocks" else per * per))
        if count > self._pointers:
            raise InvalidArgument(f"{size} bytes are too many for {chosen}")
        own = [pointers.get(index, 0) for index in range(count)]
        self._descriptor(number, kind, size, own, content, chosen, unit=unit)

    def _usual(self, content: VmfsFile) -> Pointers:
        size = content.length
        if not content.pieces and size <= self._resident:
            return "resident"
        if size <= self._sub_block and not content.to_zero:
            return "sub-blocks"
        return "file blocks" if size <= self._pointers * BLOCK else "pointer blocks"

    def _block(self, chosen: Pointers, parts: list[tuple[int, bytes]], index: int, content: VmfsFile) -> int:
        """Pointer to a block that is written with its parts, each at its offset there."""
        if chosen == "sub-blocks":
            number = self._new_resource(self._sbc)
            self._put_sparse(self._resource_place(self._sbc, number), parts)
            return self._resource_pointer(2, number, self._sub_blocks)
        if chosen == "large blocks":
            large = index // _LARGE_BLOCK
            if self._large.setdefault((id(content), large), -1) < 0:
                self._next = -(-self._next // _LARGE_BLOCK) * _LARGE_BLOCK
                self._large[id(content), large] = self._take(_LARGE_BLOCK)
            first = self._large[id(content), large]
            self._put_sparse((first + index % _LARGE_BLOCK) * BLOCK, parts)
            return 7 | first // _LARGE_BLOCK << 15
        block = self._take(1)
        self._put_sparse(block * BLOCK, parts)
        return self._file_block(block)

    def _put_sparse(self, offset: int, parts: list[tuple[int, bytes]]) -> None:
        """Write without pages of zeros."""
        for within, data in parts:
            at, rest = offset + within, memoryview(data)
            while rest:
                piece = rest[: _PAGE - at % _PAGE]
                if at // _PAGE in self._pages or piece != _ZEROS[: len(piece)]:
                    self._put(at, piece)
                at, rest = at + len(piece), rest[len(piece) :]

    def _pointer_blocks(self, pointers: Mapping[int, int], resources: _Resources) -> dict[int, int]:
        """Pointers to blocks of pointers, which are written."""
        per = self._pointer_block // self._width
        found: dict[int, int] = {}
        for index, pointer in pointers.items():
            if index // per not in found:
                number = self._new_resource(resources)
                kind = {"sbc": 2, "pbc": 3, "pb2": 5}[resources.name]
                found[index // per] = self._resource_pointer(kind, number, resources.metadata.resources_per_cluster)
                self._tables[found[index // per]] = self._resource_place(resources, number)
            at = self._tables[found[index // per]] + index % per * self._width
            self._put(at, pointer.to_bytes(self._width, "little"))
        return found

    def _resource_pointer(self, kind: int, number: int, per_cluster: int) -> int:
        cluster, resource = divmod(number, per_cluster)
        if self._is_6:
            return kind | cluster << 6 | resource << 56
        return kind | cluster << 6 | (resource & 0xF) << 28 | (resource >> 4) << 3

    def _file_block(self, block: int, *, to_zero: bool = False) -> int:
        if self._is_6:
            cluster, resource = divmod(block, _LARGE_BLOCK)
            return 1 | cluster << 15 | resource << 51 | (0xFF << 7 if to_zero else 0)
        return 1 | block << 6 | (0x20 if to_zero else 0)

    def _descriptor(  # each is a part of it
        self,
        number: int,
        kind: int,
        size: int,
        pointers: list[int],
        content: VmfsFile,
        chosen: Pointers | Literal["secondary pointer blocks"] = "file blocks",
        *,
        unit: int = BLOCK,
        resident: bytes = b"",
    ) -> None:
        at = self._resource_place(self._fdc, number)
        stamp = int(content.modified.timestamp())
        metadata = FileMetadata(
            address=self._address(number),
            generation=1,
            links=1,
            type=kind,
            flags=0,
            size=size,
            block_size=unit,
            block_count=sum(map(bool, pointers)),
            modified=stamp,
            created=stamp,
            accessed=stamp,
            user=content.owner,
            group=content.group,
            mode=content.mode,
            pointer_type=_TYPES[chosen],
            blocks_to_zero=len(content.to_zero),
            copied_on_write=0,
        ).build()
        extension = FileMetadataExtension(
            unknown_1=bytes(12),
            pointer_block_count=0,
            unknown_2=bytes(4),
            signature=0x66646D64 if self._is_6 else 0,
            affinity=0,
            zeroing_shift=0,
            parent=0,
            last_small_block_cluster=0,
            unknown_3=bytes(17),
            block_offset_shift=0 if self._is_3 else unit.bit_length() - 1,
            unknown_4=0,
            large_block_count=0,
        ).build()
        self._put(at, self._lock(_DESCRIPTOR_LOCK, at, content.locked_by))
        self._put(at + self._alignment, metadata + extension)
        table = b"".join(pointer.to_bytes(self._width, "little") for pointer in pointers)
        data_at = self._alignment + DISK_BLOCK if self._is_6 else 2 * DISK_BLOCK
        if resident:
            self._put(at + data_at, resident)
        elif table:
            self._put(at + self._descriptor_size - self._pointers * self._width, table)
