"""qcow2, QEMU's format of virtual disks, versions 2 and 3. Source: QEMU, docs/interop/qcow2.rst.

Backing files, external data files and encryption are recognised and refused.
"""

from __future__ import annotations

import functools
import zlib
from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.schemas.qcow2 import (
    COMPRESSION_TYPE,
    CORRUPT,
    DIRTY,
    EXTENDED_L2,
    EXTERNAL_DATA,
    MAGIC,
    Qcow2Compression,
    Qcow2Extension,
    Qcow2Header,
)
from vmvisor_image.streams.mapped import MappedDisk, Packed, Run, Tables
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "qcow2"
KIND: Final = "qcow2"
SUFFIXES: Final = (".qcow2",)
MAGICS: Final = (
    Signature("qcow2", "QEMU disk image (qcow2)", 0, b"QFI\xfb\0\0\0\2", content="disk"),
    Signature("qcow2", "QEMU disk image (qcow2)", 0, b"QFI\xfb\0\0\0\3", content="disk"),
)
REFERENCES: Final = ("QEMU, docs/interop/qcow2.rst",)
_KNOWN_FEATURES: Final = DIRTY | CORRUPT | COMPRESSION_TYPE | EXTENDED_L2
_ADDRESS: Final = 0x00FF_FFFF_FFFF_FE00
"""Bits 9 to 55, the address, of an entry of either table."""
_COMPRESSED: Final = 1 << 62
_RESERVED_L1: Final = 0x7F00_0000_0000_01FF
_RESERVED_L2: Final = 0x3F00_0000_0000_01FE
"""Bits of an entry that must be 0: in the L1 table, and in the L2 table where the cluster is not compressed."""
_LEAST_HEADER: Final = 104
"""Smallest length of a version 3 header, in bytes."""
_ZERO: Final = 1
_SUBCLUSTERS: Final = 32
_LONGEST_NAME: Final = 1023
_MOST_L1_ENTRIES: Final = 1 << 22
"""QEMU's limit of 32 MiB for the L1 table; a search for data in an empty disk passes each entry."""
_SECTOR: Final = 512
_DEFLATE, _ZSTD = 0, 1


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is qcow2."""
    return head[:4] == MAGIC and head[4:8] in (b"\0\0\0\2", b"\0\0\0\3")


def open_layer(source: ReadAt, options: LayerOptions) -> MappedDisk:  # noqa: ARG001  # as every layer
    """The disk in a qcow2 image.

    Raises:
        CorruptImage: The header is damaged, or needs features that are not supported.
    """
    reader = _Reader(source)
    return MappedDisk(KIND, source, reader.header.size, reader.locate, reader.problems)


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
        self._tables = Tables(KIND, source, "big")

    def _check(self, features: int) -> None:
        header = self.header
        if not 9 <= header.cluster_bits <= 21:
            raise _refused("cluster_bits", f"{header.cluster_bits}, not 9 to 21", 20)
        if header.encryption:
            raise _refused("encryption", "the disk is encrypted, which is not read", 32)
        if header.backing_file_offset > 1 << header.cluster_bits:
            raise _refused("backing_file_offset", "the name that it leads to is not in the first cluster", 8)
        if header.backing_file_offset and header.backing_file_size:  # for QEMU also, an empty name means no file
            length = min(header.backing_file_size, _LONGEST_NAME)
            name = read_up_to(self._source, header.backing_file_offset, length).decode("utf-8", "replace")
            raise _refused("backing_file_offset", f"the disk rests on another file, {name!r}, which is not read", 8)
        if features & EXTERNAL_DATA:
            raise _refused("incompatible_features", "the data is in another file, which is not read", 72)
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

    def locate(self, offset: int) -> Run:
        """See `MappedDisk`."""
        cluster, within = divmod(offset, self._cluster)
        number, index = divmod(cluster, self._per_table)
        at = self.header.l1_table_offset + 8 * number
        entry = self._tables.number(at, 8, "L1 table")
        if entry & _RESERVED_L1:
            self.problems.note("qcow2 L1 table", f"entry {entry:#x} has reserved bits set", at)
        table = entry & _ADDRESS
        if not table:
            return Run((self._per_table - index) * self._cluster - within)
        at = table + index * self._entry
        if table % self._cluster:
            raise _damaged("L1 table", self.header.l1_table_offset + 8 * number, table)
        entry = self._tables.number(at, 8, "L2 table")
        left = self._cluster - within
        if entry & _COMPRESSED:
            return Run(left, packed=self._packed(entry, within))
        if entry & _RESERVED_L2:
            self.problems.note("qcow2 L2 table", f"entry {entry:#x} has reserved bits set", at)
        start = entry & _ADDRESS
        if start % self._cluster:
            raise _damaged("L2 table", at, start)
        if self._extended:
            return self._locate_subcluster(start, within, at)
        if entry & _ZERO and self.header.version == 2:
            message = "a cluster of zeros, which version 2 does not have"
            raise CorruptImage(message, structure="qcow2 L2 table", offset=at, field="entry", found=f"{entry:#x}")
        if entry & _ZERO or not start:
            return Run(left)
        return Run(left, start + within)

    def _locate_subcluster(self, start: int, within: int, at: int) -> Run:
        """See `MappedDisk`; with extended entries, a bit for each 32nd of a cluster says whether it is allocated."""
        bitmap = self._tables.number(at + 8, 8, "L2 table")
        size = self._cluster // _SUBCLUSTERS
        number, skip = divmod(within, size)
        there, zeros = bitmap & 0xFFFFFFFF, bitmap >> 32
        if there & zeros or (there and not start):
            message = "subclusters are allocated and also zeros, or allocated without a cluster"
            raise CorruptImage(message, structure="qcow2 L2 table", offset=at + 8, field="bitmap", found=f"{bitmap:#x}")
        return Run(size - skip, start + within if there >> number & 1 else None)

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
