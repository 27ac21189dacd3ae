"""qcow2, QEMU's format of virtual disks, versions 2 and 3. Source: QEMU, docs/interop/qcow2.rst.

Backing files and external data files are found beside the image; encryption is recognised and refused.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, MemberNotFound, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers.parents import RAW, Reference, find_parent, open_beside
from vmvisor_image.schemas.qcow2 import (
    BACKING_FORMAT,
    COMPRESSION_TYPE,
    CORRUPT,
    DATA_FILE,
    DIRTY,
    EXTENDED_L2,
    EXTERNAL_DATA,
    MAGIC,
    Qcow2Compression,
    Qcow2Extension,
    Qcow2Header,
    Qcow2HeaderExtension,
    Qcow2Snapshot,
)
from vmvisor_image.streams.mapped import MappedDisk, Packed, Run
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.tables import EntryTable, Tables, count_rising

NAME: Final = "qcow2"
KIND: Final = "qcow2"
SUFFIXES: Final = (".qcow2",)
MAGICS: Final = (
    Signature("qcow2", "QEMU disk image (qcow2)", 0, b"QFI\xfb\0\0\0\2", content="disk"),
    Signature("qcow2", "QEMU disk image (qcow2)", 0, b"QFI\xfb\0\0\0\3", content="disk"),
)
REFERENCES: Final = ("QEMU, docs/interop/qcow2.rst",)
_KNOWN_FEATURES: Final = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2
_ADDRESS: Final = 0x00FF_FFFF_FFFF_FE00
"""Bits 9 to 55, the address, of an entry of either table."""
_COMPRESSED: Final = 1 << 62
_COPIED: Final = 1 << 63
"""Bit of an entry whose cluster has one reference; in an external data file, it is set for each cluster in use."""
_RESERVED_L1: Final = 0x7F00_0000_0000_01FF
_RESERVED_L2: Final = 0x3F00_0000_0000_01FE
"""Bits of an entry that must be 0: in the L1 table, and in the L2 table where the cluster is not compressed."""
_LEAST_HEADER: Final = 104
"""Smallest length of a version 3 header, in bytes."""
_ZERO: Final = 1
_SUBCLUSTERS: Final = 32
_LONGEST_NAME: Final = 1023
_MOST_SHOWN: Final = 20
_MOST_L1_ENTRIES: Final = 1 << 22
"""QEMU's limit of 32 MiB for the L1 table; a search for data in an empty disk passes each entry."""
_SECTOR: Final = 512
_DEFLATE, _ZSTD = 0, 1
_MOST_EXTENSIONS: Final = 100
_MOST_PER_PART: Final = 1 << 11
"""Entries of 8 bytes that are kept together: a page of the tables."""
_MOST_SNAPSHOTS: Final = 65_536
"""QEMU's limit (block/qcow2.h)."""
_KINDS: Final = {"raw": RAW, "qcow2": "qcow2", "vmdk": "vmdk", "vpc": "vhd", "vhdx": "vhdx", "file": RAW}
"""Formats of backing files by QEMU's name for them, of those that are read."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is qcow2."""
    return head[:4] == MAGIC and head[4:8] in (b"\0\0\0\2", b"\0\0\0\3")


def open_layer(source: ReadAt, options: LayerOptions) -> MappedDisk:
    """The disk in a qcow2 image, in its present state or at a snapshot.

    Raises:
        CorruptImage: The header is damaged, or needs features that are not supported; or the file that it rests on, or
            that its data is in, can't be opened.
        UnsafeName: The name of such a file does not name a file.
        MemberNotFound: There is no such snapshot.
    """
    reader = _Reader(source)
    extensions = dict(reader.extensions())
    data = source
    if reader.has_external_data:
        name = extensions.get(DATA_FILE)
        if not name:
            raise _refused("incompatible_features", "the data is in another file, whose name is not in it", 72)
        text = name.decode("utf-8", "replace")
        data = open_beside(Reference(text, "qcow2 header extension"), "the data is in", options)
    if options.snapshot is not None:
        reader.go_to(options.snapshot)
    parent = None
    reference = reader.backing(extensions.get(BACKING_FORMAT))
    if reference is not None:
        parent = find_parent(reference, options, reader.problems)
    disk = MappedDisk(KIND, data, reader.size, reader.locate, reader.problems, parent=parent)
    disk.entries = reader.entries
    disk.list_snapshots = reader.snapshot_names
    return disk


@dataclass(frozen=True, slots=True)
class _Snapshot:
    entry: Qcow2Snapshot
    at: int
    """Bytes from the file's start to the entry."""
    number: str
    name: str
    size: int | None
    """Bytes of the disk at the snapshot; None where the entry does not say it."""


class _Reader:
    def __init__(self, source: ReadAt) -> None:
        self._source = source
        data = read_up_to(source, 0, 512)
        self.header = header = Qcow2Header.parse(data)
        extension = None
        if header.version == 3:
            extension = Qcow2Extension.parse(data, Qcow2Header.length())
        features = 0 if extension is None else extension.incompatible_features
        self.problems = ProblemList("qcow2 disk")
        self._check(features)
        if extension is not None and not _LEAST_HEADER <= extension.header_length <= 1 << self.header.cluster_bits:
            self.problems.note("qcow2 header", f"it says that it has {extension.header_length} bytes", 100)
        self._compression = _DEFLATE
        if features & COMPRESSION_TYPE:
            at = Qcow2Header.length() + Qcow2Extension.length()
            self._compression = Qcow2Compression.parse(data, at).compression_type
            if self._compression not in (_DEFLATE, _ZSTD):
                raise _refused("compression_type", f"{self._compression}, which is not known", at)
        elif extension is not None and extension.header_length > _LEAST_HEADER and data[_LEAST_HEADER]:
            message = "it has a type of compression, and no feature that says so"
            self.problems.note("qcow2 header", message, _LEAST_HEADER)
        self._extended = bool(features & EXTENDED_L2)
        self._cluster = 1 << header.cluster_bits
        self._entry = 16 if self._extended else 8
        self._per_table = self._cluster // self._entry
        self._first = Tables(KIND, source, "big")
        self._tables = Tables(KIND, source, "big")
        self.has_external_data = bool(features & EXTERNAL_DATA)
        self._is_special = self._extended or self.has_external_data
        """Whether the place of a cluster is not all that its entry says."""
        self._per_part = min(self._per_table, _MOST_PER_PART)
        self.entries = EntryTable(self._per_part, self._cluster, self._entry, self._read_entries)
        self.size = header.size
        """Size of the disk in the state that is read, in bytes."""
        self._l1, self._l1_size = header.l1_table_offset, header.l1_size
        self._extensions_at = Qcow2Header.length() if extension is None else extension.header_length

    def extensions(self) -> Iterator[tuple[int, bytes]]:
        """Type and data of each header extension, up to the first that is invalid; long data is cut."""
        at = self._extensions_at
        for _ in range(_MOST_EXTENSIONS):
            data = read_up_to(self._source, at, Qcow2HeaderExtension.length())
            if len(data) < Qcow2HeaderExtension.length() or at >= self._cluster:
                return
            found = Qcow2HeaderExtension.parse(data, base=at)
            at += Qcow2HeaderExtension.length()
            if not found.type:
                return
            if found.size > self._cluster - at:
                self.problems.note("qcow2 header extension", f"its {found.size} bytes pass the first cluster", at - 4)
                return
            yield found.type, read_up_to(self._source, at, min(found.size, _LONGEST_NAME))
            at += -(-found.size // 8) * 8
        self.problems.note("qcow2 header extension", f"those after the first {_MOST_EXTENSIONS} are not read", at)

    def backing(self, kind: bytes | None) -> Reference | None:
        """Reference to the backing file, of the format that an extension says; None without a backing file."""
        header = self.header
        if not header.backing_file_offset or not header.backing_file_size:
            return None  # for QEMU also, an empty name means no file
        length = min(header.backing_file_size, _LONGEST_NAME)
        name = read_up_to(self._source, header.backing_file_offset, length).decode("utf-8", "replace")
        text = None if kind is None else kind.decode("utf-8", "replace")
        known = None if text is None else _KINDS.get(text)
        if text is not None and known is None:
            message = f"its backing file {name!r} is of the format {text!r}, which is not read"
            raise CorruptImage(message, structure="qcow2 header extension", field="backing file format")
        return Reference(name, "qcow2 header", 8, known)

    def go_to(self, snapshot: str) -> None:
        """Read the state at a snapshot, given by its name or else by its number.

        Raises:
            MemberNotFound: There is none, or there are several of that name.
            CorruptImage: The table of snapshots is damaged.
        """
        there = list(self._snapshots())
        found = [each for each in there if each.name == snapshot] or [each for each in there if each.number == snapshot]
        if len(found) != 1:
            what = f"{len(found)} snapshots have the name" if found else "there is no snapshot"
            listed = ", ".join(f"{each.name!r} (number {each.number})" for each in there[:_MOST_SHOWN])
            more = f" and {len(there) - _MOST_SHOWN} more" if len(there) > _MOST_SHOWN else ""
            raise MemberNotFound(f"{what} {snapshot!r}; there are {listed or 'none'}{more}")
        [chosen] = found
        self._l1, self._l1_size = chosen.entry.l1_table_offset, chosen.entry.l1_size
        self.size = self.header.size if chosen.size is None else chosen.size
        self._check_l1("qcow2 snapshot", chosen.at)

    def snapshot_names(self) -> tuple[str, ...]:
        """See `Linked.snapshots`."""
        try:
            return tuple(each.name for each in self._snapshots())
        except CorruptImage as error:
            self.problems.note(error.structure, error.message, error.offset)
            return ()

    def _snapshots(self) -> Iterator[_Snapshot]:
        """Entries of the table of snapshots (qcow2.rst, "Snapshots").

        Raises:
            CorruptImage: The table ends early, or has more entries than QEMU allows.
        """
        at = self.header.snapshots_offset
        if self.header.snapshot_count > _MOST_SNAPSHOTS:
            raise _refused("nb_snapshots", f"{self.header.snapshot_count}, more than {_MOST_SNAPSHOTS}", 60)
        for _ in range(self.header.snapshot_count):
            entry = Qcow2Snapshot.parse(read_up_to(self._source, at, Qcow2Snapshot.length()), base=at)
            rest = Qcow2Snapshot.length() + entry.extra_size
            extra = read_up_to(self._source, at + Qcow2Snapshot.length(), min(entry.extra_size, 16))
            names = read_up_to(self._source, at + rest, entry.id_size + entry.name_size)
            number, name = names[: entry.id_size], names[entry.id_size :]
            size = int.from_bytes(extra[8:16], "big") if len(extra) >= 16 else None
            yield _Snapshot(entry, at, number.decode("utf-8", "replace"), name.decode("utf-8", "replace"), size)
            at += -(-(rest + entry.id_size + entry.name_size) // 8) * 8

    def _check_l1(self, structure: str, at: int) -> None:
        """Refuse an L1 table that is too small for the disk, too large, or out of place."""
        needed = -(-self.size // (self._cluster * self._per_table))
        if not needed <= self._l1_size <= _MOST_L1_ENTRIES:
            message = f"{self._l1_size} entries, not {needed} to {_MOST_L1_ENTRIES}, for {self.size} bytes"
            raise CorruptImage(message, structure=structure, offset=at, field="l1_size")
        if self._l1 % self._cluster:
            message = f"{self._l1:#x} is not a multiple of the cluster size"
            raise CorruptImage(message, structure=structure, offset=at, field="l1_table_offset")

    def _check(self, features: int) -> None:
        header = self.header
        if not 9 <= header.cluster_bits <= 21:
            raise _refused("cluster_bits", f"{header.cluster_bits}, not 9 to 21", 20)
        if header.encryption:
            raise _refused("encryption", "the disk is encrypted, which is not read", 32)
        if header.backing_file_offset > 1 << header.cluster_bits:
            raise _refused("backing_file_offset", "the name that it leads to is not in the first cluster", 8)
        if features & ~_KNOWN_FEATURES:
            raise _refused("incompatible_features", f"{features:#x} has unknown bits set", 72)
        if header.l1_size > _MOST_L1_ENTRIES:
            raise _refused(
                "l1_size", f"{header.l1_size} entries, more than the {_MOST_L1_ENTRIES} that QEMU allows", 36
            )
        needed = -(-header.size // ((1 << header.cluster_bits) * ((1 << header.cluster_bits) // 8)))
        if header.l1_size < (needed if not features & EXTENDED_L2 else needed * 2 - 1) and header.size:
            raise _refused("l1_size", f"{header.l1_size} entries, which is too few for {header.size} bytes", 36)
        if features & DIRTY:
            self.problems.note("qcow2 header", "the disk was in use: reference counts may be wrong", 72)
        if features & CORRUPT:
            self.problems.note("qcow2 header", "QEMU found the file damaged and marked it so", 72)
        if header.l1_table_offset % (1 << header.cluster_bits):
            message = f"{header.l1_table_offset:#x} is not a multiple of the cluster size"
            self.problems.note("qcow2 header", f"l1_table_offset: {message}", 40)

    def locate(self, offset: int, end: int) -> Run:
        """See `MappedDisk`."""
        cluster, within = divmod(offset, self._cluster)
        number, index = divmod(cluster, self._per_part)
        part, at = self.entries.part(number), index * self._entry
        entry = int.from_bytes(part[at : at + 8], "big")
        start = entry & _ADDRESS
        if not start or entry & ~(_ADDRESS | _COPIED) or start & self._cluster - 1 or self._is_special:
            return self._locate_special(offset)
        wanted = -(-(end - offset + within) // self._cluster)
        count = count_rising(part[at : at + 8 * wanted], self._cluster, 8, "big")
        return Run(count * self._cluster - within, start + within)

    def _read_entries(self, number: int) -> bytes | None:
        """See `EntryTable`."""
        table, index = divmod(number * self._per_part, self._per_table)
        try:
            entry = self._first.number(self._l1 + 8 * table, 8, "L1 table")
        except CorruptImage:
            return None
        start = entry & _ADDRESS
        if entry & _RESERVED_L1 or start % self._cluster:
            return None
        if not start:
            return b""
        return self._tables.data(start + index * self._entry, self._per_part * self._entry) or None

    def _locate_special(self, offset: int) -> Run:
        """See `MappedDisk`; of any cluster, with all checks."""
        cluster, within = divmod(offset, self._cluster)
        number, index = divmod(cluster, self._per_table)
        at = self._l1 + 8 * number
        entry = self._first.number(at, 8, "L1 table")
        if entry & _RESERVED_L1:
            self.problems.note("qcow2 L1 table", f"entry {entry:#x} has reserved bits set", at)
        table = entry & _ADDRESS
        if not table:
            absent = max(1, self._first.zeros(at) // 8)
            return Run((absent * self._per_table - index) * self._cluster - within, is_hole=True)
        at = table + index * self._entry
        if table % self._cluster:
            raise _damaged("L1 table", self._l1 + 8 * number, table)
        entry = self._tables.number(at, 8, "L2 table")
        left = self._cluster - within
        if entry & _COMPRESSED:
            return Run(left, packed=self._packed(entry, within))
        if entry & _RESERVED_L2:
            self.problems.note("qcow2 L2 table", f"entry {entry:#x} has reserved bits set", at)
        start = entry & _ADDRESS
        if start % self._cluster:
            raise _damaged("L2 table", at, start)
        is_there = bool(start) or (self.has_external_data and bool(entry & _COPIED))
        if self.has_external_data and is_there and start != cluster * self._cluster:
            message = f"cluster {cluster} is at another place in the data file, {start:#x}"
            self.problems.note("qcow2 L2 table", message, at)
        if self._extended:
            return self._locate_subcluster(start if is_there else None, within, at)
        if entry & _ZERO and self.header.version == 2:
            message = "a cluster of zeros, which version 2 does not have"
            raise CorruptImage(message, structure="qcow2 L2 table", offset=at, field="entry", found=f"{entry:#x}")
        if entry & _ZERO:
            return Run(left)
        if not is_there:
            absent = min(max(1, self._tables.zeros(at) // 8), self._per_table - index)
            return Run(absent * self._cluster - within, is_hole=True)
        return Run(left, start + within)

    def _locate_subcluster(self, start: int | None, within: int, at: int) -> Run:
        """See `MappedDisk`; with extended entries, two bits say of each 32nd of a cluster: allocated, zeros."""
        bitmap = self._tables.number(at + 8, 8, "L2 table")
        size = self._cluster // _SUBCLUSTERS
        number, skip = divmod(within, size)
        there, zeros = bitmap & 0xFFFFFFFF, bitmap >> 32
        if there & zeros or (there and start is None):
            message = "subclusters are allocated and also zeros, or allocated without a cluster"
            raise CorruptImage(message, structure="qcow2 L2 table", offset=at + 8, field="bitmap", found=f"{bitmap:#x}")
        if start is not None and there >> number & 1:
            return Run(size - skip, start + within)
        return Run(size - skip, is_hole=not zeros >> number & 1)

    def _packed(self, entry: int, within: int) -> Packed:
        bits = 62 - (self.header.cluster_bits - 8)
        start = entry & ((1 << bits) - 1)
        sectors = (entry >> bits & ((1 << (62 - bits)) - 1)) + 1
        length = sectors * _SECTOR - start % _SECTOR
        return Packed(start, functools.partial(self._decode, start, length), within)

    def _decode(self, start: int, length: int) -> bytes:
        data = read_up_to(self._source, start, length)
        decompress = _decompress_zstd if self._compression == _ZSTD else _decompress_deflate
        try:
            found = decompress(data, self._cluster)
        except (zlib.error, ValueError) as error:
            raise CorruptImage(f"it is damaged ({error})", structure="qcow2 cluster", offset=start) from error
        if len(found) != self._cluster:
            raise CorruptImage(
                "it decodes to another size", structure="qcow2 cluster", offset=start, expected=self._cluster,
                found=len(found),
            )  # fmt: skip
        return found


def _refused(field: str, message: str, at: int) -> CorruptImage:
    return CorruptImage(message, structure="qcow2 header", offset=at, field=field)


def _damaged(table: str, at: int, found: int) -> CorruptImage:
    return CorruptImage(
        "it is not a multiple of the cluster size",
        structure=f"qcow2 {table}",
        offset=at,
        field="entry",
        found=f"{found:#x}",
    )


def _decompress_deflate(data: bytes, size: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)


def _decompress_zstd(data: bytes, size: int) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().stream_reader(data).read(size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
