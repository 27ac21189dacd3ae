"""Deterministic disk images: the same input gives the same bytes, without clock or chance.

For example::

    disk = esx35_disk(boot=Path("boot"), bank={"vmkernel.gz": b"..."})
    disk.write_bz2(Path("image.dd.bz2"))

Everything on disk is made of the records that the library reads with (`vmvisor_image.schemas`). Images are sparse:
only data that is not zero takes memory.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

import bz2
import math
import random
import struct
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.schemas.fat import (
    SIGNATURE,
    VMWARE_MAGIC,
    BiosParameterBlock,
    DirectoryEntry,
    Fat16BootSector,
    Fat32BootSector,
    LongNameEntry,
    VmwareMarker,
)
from vmvisor_image.schemas.mbr import (
    EXTENDED_TYPES,
    SECTOR,
    ExtendedBootRecord,
    MasterBootRecord,
    PartitionEntry,
)
from vmvisor_image.schemas.tar import BLOCK
from vmvisor_image.streams.source import Source, check_range, past_end
from vmvisor_image.testing.forge_modules import kernel_elf, tar_archive

DEFAULT_TIME: Final = datetime(2008, 1, 15, 12, 0, 0)  # noqa: DTZ001  # FAT has no time zone
"""Time of writing for a file of plain bytes."""

_CLUSTERS: Final = {12: (1, 4084), 16: (4085, 65524), 32: (1, 0x0FFFFFF5)}
"""Fewest and most clusters of each kind of FAT (fatgen103); small FAT32 volumes are made, as mkfs.fat makes them."""
_CHUNK: Final = 1 << 20
_STORED, _STORED_HEAD = 0xFFFF, 5
"""Most bytes in a stored block of deflate, and bytes of the header before each."""
_GZIP_ENDS: Final = 12 + 8
"""Bytes of a gzip header with an extra field, and of a trailer."""
_EXTRA_FIELD: Final = 4
"""Bit for an extra field in the flags of a gzip header."""
_ENTRY: Final = 32
_HEADS, _SECTORS_PER_TRACK = 64, 32
_ARCHIVE, _DIRECTORY, _LABEL, _LONG_NAME = 0x20, 0x10, 0x08, 0x0F
_SHORT_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")


@dataclass(frozen=True, slots=True)
class ForgedFile:
    """A file to put on a volume."""

    data: bytes
    modified: datetime = DEFAULT_TIME
    """Time of the last change, naive; FAT keeps it to two seconds."""
    fragmented: bool = False
    """Whether to leave a free cluster between each two of its clusters."""


Tree = Mapping[str, "bytes | ForgedFile"] | Path
"""Files by POSIX path (a path that ends in "/" is an empty directory), or a directory to read them from."""


class SparseImage(Source):
    """An image of given pieces with zeros between them; a `ReadAt`."""

    def __init__(self, size: int, pieces: Sequence[tuple[int, bytes]] = ()) -> None:
        """An image of `size` zero bytes with `pieces` in it, each an offset from the start in bytes, and bytes.

        Raises:
            InvalidArgument: Pieces overlap or pass the end.
        """
        self._size = size
        self._pieces = sorted((offset, data) for offset, data in pieces if data)
        self._starts = [offset for offset, _ in self._pieces]
        end = 0
        for offset, data in self._pieces:
            if offset < end:
                raise InvalidArgument(f"the piece at byte {offset:#x} overlaps the one before it")
            end = offset + len(data)
        if end > size:
            raise InvalidArgument(f"the pieces end at byte {end:#x}, the image at {size:#x}")

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    @property
    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        """Offset and bytes of each piece, ascending by offset."""
        return tuple(self._pieces)

    def read_at(self, offset: int, length: int) -> bytes:
        """See `vmvisor_image.streams.source.ReadAt.read_at`."""
        check_range(offset, length)
        if offset + length > self._size:
            raise past_end("forged image", offset, length, self._size)
        number = max(0, bisect_right(self._starts, offset) - 1)
        if number < len(self._pieces):
            start, data = self._pieces[number]
            if start <= offset and offset + length <= start + len(data):
                return data[offset - start : offset - start + length]
        found = bytearray(length)
        while number < len(self._pieces) and self._starts[number] < offset + length:
            start, data = self._pieces[number]
            first, last = max(offset, start), min(offset + length, start + len(data))
            if first < last:
                found[first - offset : last - offset] = memoryview(data)[first - start : last - start]
            number += 1
        return bytes(found)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.source.Source.skip_zeros`."""
        number = max(0, bisect_right(self._starts, offset) - 1)
        while number < len(self._pieces):
            start, data = self._pieces[number]
            if offset < start + len(data):
                return min(max(offset, start), end)
            number += 1
        return end

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        """Whole content in pieces of `size` bytes."""
        zeros = bytes(size)
        for offset in range(0, self._size, size):
            length = min(size, self._size - offset)
            number = bisect_right(self._starts, offset + length - 1) - 1
            if number < 0 or self._starts[number] + len(self._pieces[number][1]) <= offset:
                yield zeros[:length] if length < size else zeros
            else:
                yield self.read_at(offset, length)

    def write_to(self, path: Path) -> None:
        """Write it as a sparse file."""
        with path.open("wb") as file:
            for offset, data in self._pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(self._size)

    def write_bz2(self, path: Path, level: int = 9) -> None:
        """Write it compressed with bzip2, as one stream."""
        with path.open("wb") as file:
            self._compress(file, level)

    def _compress(self, file: BinaryIO, level: int) -> None:
        compressor = bz2.BZ2Compressor(level)
        file.writelines(compressor.compress(chunk) for chunk in self.chunks())
        file.write(compressor.flush())


def fat_volume(  # each is one field of the boot sector
    tree: Tree,
    *,
    sectors: int,
    label: str | None = None,
    fat_bits: int | None = None,
    sectors_per_cluster: int | None = None,
    bytes_per_sector: int = SECTOR,
    reserved_sectors: int | None = None,
    root_entries: int = 512,
    hidden_sectors: int = 0,
    marker: bytes | None = None,
) -> SparseImage:
    """A FAT12, FAT16 or FAT32 volume.

    Vouched for by ``fsck.fat`` and ``mcopy``: ``tests/test_forge.py``.

    Args:
        tree: Files and directories, placed in this order.
        sectors: Size in logical sectors.
        label: Label, at most 11 characters, written unchanged to the root directory and the boot sector.
        fat_bits: 12, 16 or 32; by default 12 where there are few enough clusters, otherwise 16.
        sectors_per_cluster: A power of two; by default the smallest that fits FAT16.
        bytes_per_sector: 512, 1024, 2048 or 4096.
        reserved_sectors: Logical sectors before the first FAT; by default 1, 2 with a marker, 32 on FAT32.
        root_entries: Entries of the root directory of FAT12 and FAT16.
        hidden_sectors: Number of 512-byte sectors before the volume, as in the boot sector.
        marker: A boot bank's 16-byte UUID, for VMware's marker in the second logical sector.

    Raises:
        InvalidArgument: The tree does not fit, a name is not valid in FAT, or the geometry is impossible.
    """
    if label is not None and not 0 < len(label.encode("ibm437", "replace")) <= 11:
        raise InvalidArgument(f"a label has 1 to 11 characters, not {label!r}")
    if sectors_per_cluster is None:
        sectors_per_cluster = 1 if fat_bits == 32 else next((1 << n for n in range(7) if sectors >> n < 65000), 128)
    if reserved_sectors is None:
        reserved_sectors = 32 if fat_bits == 32 else 1 if marker is None else 2
    if marker is not None and (len(marker) != 16 or reserved_sectors < 2):
        raise InvalidArgument("a marker is a UUID of 16 bytes and needs two reserved sectors")
    shape = _Shape(
        bits=fat_bits or 12,
        sector=bytes_per_sector,
        sectors=sectors,
        sectors_per_cluster=sectors_per_cluster,
        reserved=reserved_sectors,
        per_fat=1,
        root_entries=0 if fat_bits == 32 else root_entries,
    ).with_room_for_fat()
    if fat_bits is None and shape.clusters > _CLUSTERS[12][1]:
        shape = replace(shape, bits=16).with_room_for_fat()
    low, high = _CLUSTERS[shape.bits]
    if not low <= shape.clusters <= high:
        raise InvalidArgument(f"{shape.clusters} clusters, but FAT{shape.bits} has {low} to {high}")
    return _FatWriter(shape, label, hidden_sectors, marker).write(_read_tree(tree))


@dataclass(frozen=True, slots=True)
class _Shape:
    """A volume's geometry, in logical sectors unless said otherwise."""

    bits: int
    sector: int
    """Bytes."""
    sectors: int
    sectors_per_cluster: int
    reserved: int
    per_fat: int
    root_entries: int

    @property
    def root_sectors(self) -> int:
        return -(-self.root_entries * _ENTRY // self.sector)

    @property
    def data(self) -> int:
        return self.reserved + 2 * self.per_fat + self.root_sectors

    @property
    def clusters(self) -> int:
        return (self.sectors - self.data) // self.sectors_per_cluster

    @property
    def cluster_size(self) -> int:
        """Bytes."""
        return self.sectors_per_cluster * self.sector

    def with_room_for_fat(self) -> _Shape:
        """Same geometry with FATs that have an entry for each cluster."""
        shape = self
        while (needed := -(-(shape.clusters + 2) * shape.bits // (8 * shape.sector))) > shape.per_fat:
            shape = replace(shape, per_fat=needed)
        return shape


@dataclass(slots=True)
class _Node:
    """A directory of the tree to write."""

    files: dict[str, ForgedFile] = field(default_factory=dict)
    directories: dict[str, _Node] = field(default_factory=dict)
    first_cluster: int = 0


def _read_tree(tree: Tree) -> _Node:
    root = _Node()
    if isinstance(tree, Path):
        files: dict[str, bytes | ForgedFile] = {}
        for path in sorted(tree.rglob("*")):
            name = path.relative_to(tree).as_posix()
            if path.is_dir():
                files[f"{name}/"] = b""
            else:
                modified = datetime.fromtimestamp(path.stat().st_mtime)  # noqa: DTZ006  # FAT keeps local time
                files[name] = ForgedFile(path.read_bytes(), modified)
        tree = files
    for path_text, content in tree.items():
        parts = PurePosixPath(path_text).parts
        node = root
        for part in parts if path_text.endswith("/") else parts[:-1]:
            node = node.directories.setdefault(part, _Node())
        if not path_text.endswith("/"):
            node.files[parts[-1]] = content if isinstance(content, ForgedFile) else ForgedFile(content)
    return root


class _FatWriter:
    """Writer of a tree to a volume."""

    def __init__(self, shape: _Shape, label: str | None, hidden_sectors: int, marker: bytes | None) -> None:
        self._shape = shape
        self._label = label
        self._hidden_sectors = hidden_sectors
        self._marker = marker
        self._fat = array("I", bytes(4 * (shape.clusters + 2)))
        self._end = (1 << min(shape.bits, 28)) - 1
        self._fat[0], self._fat[1] = self._end - 7, self._end
        self._next = 2
        self._pieces: list[tuple[int, bytes]] = []

    def write(self, root: _Node) -> SparseImage:
        """Volume with the tree of `root`."""
        shape = self._shape
        content = self._directory(root, root, parent=0)
        if shape.bits != 32:
            if len(content) > shape.root_entries * _ENTRY:
                raise InvalidArgument(f"the root directory has room for {shape.root_entries} entries")
            self._pieces.append(((shape.data - shape.root_sectors) * shape.sector, content))
        boot = self._boot_sector(root.first_cluster)
        fat = self._fat_bytes()
        pieces = [(0, boot), *self._pieces]
        pieces += [((shape.reserved + copy * shape.per_fat) * shape.sector, fat) for copy in (0, 1)]
        if self._marker is not None:
            pieces.append((shape.sector, VmwareMarker(VMWARE_MAGIC, self._marker).build()))
        if shape.bits == 32:
            information = self._information_sector()
            pieces += [(6 * shape.sector, boot), (shape.sector, information), (7 * shape.sector, information)]
        return SparseImage(shape.sectors * shape.sector, pieces)

    def _directory(self, node: _Node, root: _Node, parent: int) -> bytes:
        """Bytes of a directory, after its content was placed; written unless it is a fixed root."""
        is_root = node is root
        if not is_root or self._shape.bits == 32:
            count = max(1, -(-self._entry_count(node, is_root=is_root) * _ENTRY // self._shape.cluster_size))
            clusters = self._allocate(count, fragmented=False)
            node.first_cluster = clusters[0]
        entries: list[bytes] = []
        if is_root and self._label is not None:
            entries.append(_entry(self._label.encode("ibm437", "replace").ljust(11), _LABEL, DEFAULT_TIME))
        elif not is_root:
            entries.append(_entry(b".".ljust(11), _DIRECTORY, DEFAULT_TIME, node.first_cluster))
            entries.append(_entry(b"..".ljust(11), _DIRECTORY, DEFAULT_TIME, parent))
        names = _Names()
        for name, file in node.files.items():
            first = self._file(file)
            entries += names.entries(name, _ARCHIVE, file.modified, first, len(file.data))
        # ".." of a directory in the root says 0, wherever the root is.
        here = 0 if is_root else node.first_cluster
        for name, below in node.directories.items():
            self._directory(below, root, here)
            entries += names.entries(name, _DIRECTORY, DEFAULT_TIME, below.first_cluster, 0)
        content = b"".join(entries)
        if node.first_cluster:
            self._place(clusters, content)
        return content

    @staticmethod
    def _entry_count(node: _Node, *, is_root: bool) -> int:
        names = _Names()
        parts = [names.entries(name, 0, DEFAULT_TIME, 0, 0) for name in (*node.files, *node.directories)]
        return sum(map(len, parts)) + (1 if is_root else 2)

    def _file(self, file: ForgedFile) -> int:
        if not file.data:
            return 0
        clusters = self._allocate(-(-len(file.data) // self._shape.cluster_size), fragmented=file.fragmented)
        self._place(clusters, file.data)
        return clusters[0]

    def _allocate(self, count: int, *, fragmented: bool) -> range:
        step = 2 if fragmented else 1
        clusters = range(self._next, self._next + count * step, step)
        if clusters[-1] >= len(self._fat):
            raise InvalidArgument(f"the volume has {self._shape.clusters} clusters, which is too few for the tree")
        for cluster in clusters[:-1]:
            self._fat[cluster] = cluster + step
        self._fat[clusters[-1]] = self._end
        self._next = clusters[-1] + step
        return clusters

    def _place(self, clusters: range, data: bytes) -> None:
        size, start = self._shape.cluster_size, self._shape.data * self._shape.sector
        if clusters.step == 1:
            self._pieces.append((start + (clusters[0] - 2) * size, data))
            return
        for number, cluster in enumerate(clusters):
            self._pieces.append((start + (cluster - 2) * size, data[number * size : (number + 1) * size]))

    def _fat_bytes(self) -> bytes:
        if self._shape.bits == 12:
            values = [*self._fat, 0] if len(self._fat) % 2 else self._fat
            pairs = zip(values[::2], values[1::2], strict=True)
            return b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)
        packed = array("H", self._fat) if self._shape.bits == 16 else array("I", self._fat)
        if sys.byteorder == "big":
            packed.byteswap()
        return packed.tobytes()

    def _boot_sector(self, root_cluster: int) -> bytes:
        shape = self._shape
        wide = shape.sectors > 0xFFFF or shape.bits == 32
        block = BiosParameterBlock(
            jump=b"\xeb\x58\x90" if shape.bits == 32 else b"\xeb\x3c\x90",
            oem_name=b"MSDOS5.0",
            bytes_per_sector=shape.sector,
            sectors_per_cluster=shape.sectors_per_cluster,
            reserved_sectors=shape.reserved,
            fat_count=2,
            root_entries=shape.root_entries,
            total_sectors_16=0 if wide else shape.sectors,
            media=0xF8,
            sectors_per_fat_16=0 if shape.bits == 32 else shape.per_fat,
            sectors_per_track=_SECTORS_PER_TRACK,
            heads=_HEADS,
            hidden_sectors=self._hidden_sectors,
            total_sectors_32=shape.sectors if wide else 0,
        )
        common: dict[str, Any] = {name: getattr(block, name) for name in BiosParameterBlock.__match_args__}
        tail: dict[str, Any] = {
            "drive_number": 0x80,
            "reserved": 0,
            "extended_signature": 0x29,
            "volume_id": 0x3535_0000 | shape.bits,
            "volume_label": (self._label or "NO NAME").encode("ibm437", "replace").ljust(11),
            "file_system_type": b"FAT%d   " % shape.bits,
            "signature": SIGNATURE,
        }
        if shape.bits != 32:
            return Fat16BootSector(**common, **tail, boot_code=bytes(448)).build()
        return Fat32BootSector(
            **common,
            **tail,
            sectors_per_fat_32=shape.per_fat,
            extended_flags=0,
            version=0,
            root_cluster=root_cluster,
            information_sector=1,
            backup_boot_sector=6,
            reserved_12=bytes(12),
            boot_code=bytes(420),
        ).build()

    def _information_sector(self) -> bytes:
        """FSInfo (fatgen103): number of free clusters, and the cluster at which to look for the next one."""
        free = sum(value == 0 for value in self._fat[2:])
        counts = free.to_bytes(4, "little") + self._next.to_bytes(4, "little")
        return b"RRaA" + bytes(480) + b"rrAa" + counts + bytes(14) + SIGNATURE


class _Names:
    """Names of one directory, which gives each its entries."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def entries(self, name: str, attributes: int, modified: datetime, cluster: int, size: int) -> list[bytes]:
        """Parts of the long name, where the name needs one, and the entry itself."""
        base, dot, extension = name.rpartition(".")
        if not dot or not base:
            base, extension = name, ""
        case = (0x08 if base == base.lower() != base.upper() else 0) | (
            0x10 if extension == extension.lower() != extension.upper() else 0
        )
        plain = (
            name.isascii()  # "\u0131" is not a letter of a short name, but its capital is
            and 0 < len(base) <= 8
            and len(extension) <= 3
            and set(base.upper() + extension.upper()) <= _SHORT_CHARACTERS
            and base in (base.lower(), base.upper())
            and extension in (extension.lower(), extension.upper())
        )
        short = (base.upper().ljust(8) + extension.upper().ljust(3)).encode("ascii") if plain else b""
        if plain and short not in self._taken:
            self._taken.add(short)
            return [_entry(short, attributes, modified, cluster, size, case)]
        short = self._short(base, extension)
        return [*_long_name(name, short), _entry(short, attributes, modified, cluster, size)]

    def _short(self, base: str, extension: str) -> bytes:
        """A short name with a tail of ~1, ~2 ... that no other entry has."""
        stem = "".join(c for c in base.upper() if c in _SHORT_CHARACTERS) or "_"
        suffix = "".join(c for c in extension.upper() if c in _SHORT_CHARACTERS)[:3].ljust(3)
        number = 1
        while True:
            tail = f"~{number}"
            short = ((stem[: 8 - len(tail)] + tail).ljust(8) + suffix).encode("ascii")
            if short not in self._taken:
                self._taken.add(short)
                return short
            number += 1


def _entry(short: bytes, attributes: int, modified: datetime, cluster: int = 0, size: int = 0, case: int = 0) -> bytes:
    date = (modified.year - 1980) << 9 | modified.month << 5 | modified.day
    time = modified.hour << 11 | modified.minute << 5 | modified.second // 2
    return DirectoryEntry(
        short_name=short,
        attributes=attributes,
        case_flags=case,
        created_centiseconds=0,
        created_time=time,
        created_date=date,
        accessed_date=date,
        first_cluster_high=cluster >> 16,
        modified_time=time,
        modified_date=date,
        first_cluster_low=cluster & 0xFFFF,
        file_size=size,
    ).build()


def _long_name(name: str, short: bytes) -> list[bytes]:
    if not 0 < len(name) <= 255 or set(name) & set('"*/:<>?\\|\0') or name in (".", ".."):
        raise InvalidArgument(f"FAT has no such name: {name!r}")
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    text = name.encode("utf-16-le")
    count = math.ceil(len(text) / 26)
    if len(text) % 26:
        text = (text + b"\0\0").ljust(count * 26, b"\xff")
    parts = []
    for number in range(count, 0, -1):
        part = text[(number - 1) * 26 : number * 26]
        parts.append(
            LongNameEntry(
                ordinal=number | (0x40 if number == count else 0),
                characters_1=part[:10],
                attributes=_LONG_NAME,
                kind=0,
                checksum=checksum,
                characters_2=part[10:22],
                first_cluster_low=0,
                characters_3=part[22:],
            ).build()
        )
    return parts


@dataclass(frozen=True, slots=True)
class ForgedPartition:
    """A partition to put on a disk."""

    number: int
    """Number: 1-4 by slot of the table; logical ones from 5 in the order of the chain."""
    type_code: int
    first_lba: int
    """First sector, in 512-byte sectors from the disk's start."""
    sectors: int
    """Size in 512-byte sectors."""
    active: bool = False
    content: SparseImage | None = None


def mbr_disk(
    partitions: Sequence[ForgedPartition],
    *,
    sectors: int,
    disk_signature: int = 0x49E2FD2F,
    boot_code: bytes = b"",
    ebr_gap: int = 32,
) -> SparseImage:
    """A disk of 512-byte sectors with a master boot record.

    Vouched for by ``sfdisk``: ``tests/test_forge.py``.

    Args:
        partitions: Partitions in any order; logical ones need an extended one among them.
        sectors: Size of the disk.
        disk_signature: Identifier that fdisk prints.
        boot_code: Boot code, at most 440 bytes.
        ebr_gap: Sectors between an extended boot record and its partition; the first one is at the extended
            partition's start.

    Raises:
        InvalidArgument: A number is used twice, or content does not fit its partition.
    """
    by_number = {partition.number: partition for partition in partitions}
    if len(by_number) != len(partitions) or len(boot_code) > 440:
        raise InvalidArgument("partition numbers must differ, and boot code has at most 440 bytes")
    unused = PartitionEntry(0, bytes(3), 0, bytes(3), 0, 0)
    primary = tuple(_table_entry(by_number[n], 0) if n in by_number else unused for n in range(1, 5))
    record = MasterBootRecord(
        boot_code=boot_code.ljust(440, b"\0"),
        disk_signature=disk_signature,
        reserved=0,
        entries=primary,
        signature=SIGNATURE,
    )
    pieces = [(0, record.build())]
    logical = [by_number[number] for number in sorted(by_number) if number > 4]
    extended = next((p for p in partitions if p.number <= 4 and p.type_code in EXTENDED_TYPES), None)
    if logical and extended is None:
        raise InvalidArgument("logical partitions need an extended one")
    for index, partition in enumerate(logical):
        assert extended is not None
        at = extended.first_lba if index == 0 else partition.first_lba - ebr_gap
        link = unused
        if index + 1 < len(logical):
            following = logical[index + 1]
            span = ForgedPartition(0, 0x05, following.first_lba - ebr_gap, following.sectors + ebr_gap)
            link = _table_entry(span, extended.first_lba)
        extended_record = ExtendedBootRecord(
            boot_code=bytes(446), entries=(_table_entry(partition, at), link, unused, unused), signature=SIGNATURE
        )
        pieces.append((at * SECTOR, extended_record.build()))
    for partition in partitions:
        if partition.content is not None:
            if partition.content.size > partition.sectors * SECTOR:
                raise InvalidArgument(f"the content of partition {partition.number} is larger than it")
            pieces += [(partition.first_lba * SECTOR + offset, data) for offset, data in partition.content.pieces]
    return SparseImage(sectors * SECTOR, pieces)


def _table_entry(partition: ForgedPartition, base: int) -> PartitionEntry:
    return PartitionEntry(
        boot_flag=0x80 if partition.active else 0,
        first_chs=_chs(partition.first_lba),
        type_code=partition.type_code,
        last_chs=_chs(partition.first_lba + partition.sectors - 1),
        first_lba=partition.first_lba - base,
        sectors=partition.sectors,
    )


def _chs(lba: int) -> bytes:
    """Cylinder, head and sector of a sector, for 64 heads and 32 sectors a track; the last one that fits past it."""
    cylinder, rest = divmod(lba, _HEADS * _SECTORS_PER_TRACK)
    head, sector = divmod(rest, _SECTORS_PER_TRACK)
    if cylinder > 1023:
        cylinder, head, sector = 1023, _HEADS - 1, _SECTORS_PER_TRACK - 1
    return bytes((head, sector + 1 | cylinder >> 8 << 6, cylinder & 0xFF))


@dataclass(frozen=True, slots=True)
class Layout:
    """Partition table of a generation: first sector and number of 512-byte sectors of each partition."""

    sectors: int
    extended: tuple[int, int]
    boot: tuple[int, int]
    bank: tuple[int, int]
    alternate_bank: tuple[int, int]
    coredump: tuple[int, int]
    store: tuple[int, int]
    boot_type: int = 0x04
    """Type of the boot partition."""


ESX_35 = Layout(
    1536000, (8192, 1527808), (32, 8160), (8224, 98272), (106528, 98272), (204832, 225248), (430112, 1105888)
)
"""ESX 3i 3.5: 750 MiB. From memory and in agreement with 4.x; no verbatim source was found."""

ESX_40 = Layout(
    1843200, (8192, 1835008), (32, 8160), (8224, 511968), (520224, 511968), (1032224, 225248), (1257504, 585696)
)
"""ESXi 4.0 and 4.1: 900 MiB, as in the installer's constants and a real fdisk listing."""


ESX_50_MBR = replace(ESX_40, boot_type=0xEF)
"""ESXi 5 and 6 in MBR mode: as 4.x except for the type of the boot partition.

Vouched for by the head of a dd image (``ddpartimg``, ``extpart1`` to ``4``) that the installer of ESXi 6.7 ships.
"""


def esx_disk(
    layout: Layout,
    *,
    boot: Tree,
    bank: Tree,
    alternate_bank: Tree | None = None,
    store: Tree | None = None,
    marker: bytes | None = None,
) -> SparseImage:
    """A disk of one of the MBR generations, with FAT16 volumes Hypervisor0 to Hypervisor3.

    Vouched for by ``sfdisk`` and ``mdir``: ``tests/test_forge.py``.

    Args:
        layout: `ESX_35`, `ESX_40` or `ESX_50_MBR`.
        boot: Content of Hypervisor0 (partition 4).
        bank: Content of Hypervisor1 (partition 5).
        alternate_bank: Content of Hypervisor2 (partition 6).
        store: Content of Hypervisor3 (partition 8).
        marker: UUID for VMware's marker in the boot bank; its last byte is counted up for the alternate one.
    """

    def volume(place: tuple[int, int], tree: Tree | None, label: str, uuid: bytes | None = None) -> SparseImage:
        return fat_volume(tree or {}, sectors=place[1], label=label, fat_bits=16, hidden_sectors=place[0], marker=uuid)

    alternate = None if marker is None else marker[:-1] + bytes(((marker[-1] + 1) % 256,))
    boot_volume = volume(layout.boot, boot, "Hypervisor0")
    bank_volume = volume(layout.bank, bank, "Hypervisor1", marker)
    alternate_volume = volume(layout.alternate_bank, alternate_bank, "Hypervisor2", alternate)
    store_volume = volume(layout.store, store, "Hypervisor3")
    return mbr_disk(
        (
            ForgedPartition(1, 0x05, *layout.extended),
            ForgedPartition(4, layout.boot_type, *layout.boot, active=True, content=boot_volume),
            ForgedPartition(5, 0x06, *layout.bank, content=bank_volume),
            ForgedPartition(6, 0x06, *layout.alternate_bank, content=alternate_volume),
            ForgedPartition(7, 0xFC, *layout.coredump),
            ForgedPartition(8, 0x06, *layout.store, content=store_volume),
        ),
        sectors=layout.sectors,
    )


def esx67_boot_partition(tree: Tree, *, sector_size: int = SECTOR) -> SparseImage:
    """The boot partition that the installer of ESXi 6.7 writes, of 4 MiB; on a disk of 4096-byte sectors it is FAT12.

    Vouched for by ``fsck.fat``, ``blkid`` and ``mtype``: ``tests/test_purpose.py``. Sizes, sectors, kinds of FAT and
    markers (of their UUIDs the first four bytes) are those of that installer's bootpart and bootpart4kn, and of the
    first one also label, reserved and hidden sectors; the marker says FAT16 in both.

    Args:
        tree: Files and directories in it.
        sector_size: 512 or 4096 bytes.
    """
    sectors, bits, uuid = (8128, 16, "5db638ec") if sector_size == SECTOR else (1016, 12, "5e06d82b")
    marker = bytes.fromhex(uuid).ljust(16, b"\x01")
    return fat_volume(
        tree,
        sectors=sectors,
        label="ESXi",
        fat_bits=bits,
        bytes_per_sector=sector_size,
        reserved_sectors=2,
        marker=marker,
    )


def incompressible(name: str, size: int) -> bytes:
    """A stand-in for a program or a CD: bytes that depend on `name` only."""
    return random.Random(name).randbytes(size)  # noqa: S311  # no secret


def module(name: str, size: int, text: bytes = b"") -> bytes:
    """A stand-in for a boot module: gzip of `size` bytes in total, most of them incompressible.

    Vouched for by ``gzip``: ``tests/test_vouchers.py``.

    It contains a kernel where its name begins with "vmkernel", otherwise a tar with one file, or without files where
    there is no room for one. Nothing is deflated, as not every zlib gives the same bytes.

    Args:
        name: File name of the module.
        size: Size in bytes, at least 1,100; at least 4,300 for a kernel.
        text: Further text in the kernel.

    Raises:
        InvalidArgument: `size` is smaller than that.
    """
    is_kernel = name.startswith("vmkernel")
    room = size - _GZIP_ENDS - (size // _STORED + 1) * _STORED_HEAD
    frame = len(kernel_elf(text)) if is_kernel else len(tar_archive({name: b""})) + BLOCK
    content = incompressible(name, max(room - frame, 0))
    if is_kernel:
        plain = kernel_elf(text + content)
    else:
        plain = tar_archive({f"{name.partition('.')[0]}.bin": content} if content else {})
    blocks = []
    for at in range(0, len(plain), _STORED):
        part = plain[at : at + _STORED]
        is_last = at + _STORED >= len(plain)
        blocks.append(struct.pack("<BHH", is_last, len(part), len(part) ^ 0xFFFF) + part)
    padding = size - _GZIP_ENDS - sum(map(len, blocks))
    if padding < 0:
        raise InvalidArgument(f"{size} bytes are too few for a module")
    header = struct.pack("<2sBBIBBH", b"\x1f\x8b", 8, _EXTRA_FIELD, 0, 0, 3, padding) + bytes(padding)
    return b"".join((header, *blocks, struct.pack("<II", zlib.crc32(plain), len(plain))))


def esx35_boot_files() -> dict[str, ForgedFile]:
    """Stand-ins for the files of Hypervisor0 of ESX 3i 3.5, in realistic sizes."""
    return {
        "ldlinux.sys": ForgedFile(incompressible("ldlinux.sys", 11_873)),
        "syslinux.cfg": ForgedFile(b"default safeboot.c32\n"),
        "safeboot.c32": ForgedFile(incompressible("safeboot.c32", 49_012)),
        "mboot.c32": ForgedFile(incompressible("mboot.c32", 47_404)),
    }


def esx35_bank_files(payload: int = 45_000_000) -> dict[str, ForgedFile]:
    """Stand-ins for the files of Hypervisor1 of ESX 3i 3.5, about `payload` bytes in total; boot.cfg is a real one."""
    shares = {"vmkernel.gz": 6, "binmod.tgz": 40, "environ.tgz": 18, "cim.tgz": 36}
    text = b"VMware ESX Server 3i 3.5.0 build-67921"
    files = {name: ForgedFile(module(name, payload * share // 100, text)) for name, share in shares.items()}
    modules = "binmod.tgz --- environ.tgz --- cim.tgz --- oem.tgz --- license.tgz"
    configuration = f"kernel=vmkernel.gz\nkernelopt=\nmodules={modules}\nbuild=3.5.0-67921\nupdated=1\nbootstate=0\n"
    return {
        **files,
        "oem.tgz": ForgedFile(module("oem.tgz", 1_203)),
        "license.tgz": ForgedFile(module("license.tgz", 1_877)),
        "boot.cfg": ForgedFile(configuration.encode()),
    }


def esx35_store_files(payload: int = 110_000_000) -> dict[str, ForgedFile]:
    """Stand-ins for VMware Tools and the client's installer in Hypervisor3, about `payload` bytes in total.

    ESXi 4.1's compressed image has 212 MB, its modules about 100: the rest is in the store.
    """
    shares = {"vmtools/linux.iso": 45, "vmtools/windows.iso": 20, "client/VMware-viclient.exe": 35}
    return {name: ForgedFile(incompressible(name, payload * share // 100)) for name, share in shares.items()}


def esx35_disk(*, boot: Tree, bank: Tree, alternate_bank: Tree | None = None, store: Tree | None = None) -> SparseImage:
    """A disk of ESX 3i 3.5; see `esx_disk`.

    Vouched for by ``sfdisk`` and ``mdir``: ``tests/test_forge.py``.
    """
    return esx_disk(ESX_35, boot=boot, bank=bank, alternate_bank=alternate_bank, store=store)


def esx40_disk(
    *,
    boot: Tree,
    bank: Tree,
    alternate_bank: Tree | None = None,
    store: Tree | None = None,
    marker: bytes = bytes.fromhex("7f4d2f1c0a5b4c3d8e9f101112131415"),
) -> SparseImage:
    """A disk of ESXi 4.0 or 4.1; see `esx_disk`.

    Vouched for by ``sfdisk`` and ``mdir``: ``tests/test_forge.py``.
    """
    return esx_disk(ESX_40, boot=boot, bank=bank, alternate_bank=alternate_bank, store=store, marker=marker)
