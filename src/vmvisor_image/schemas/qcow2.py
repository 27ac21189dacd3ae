"""The header of a qcow2 file. Source: QEMU, docs/interop/qcow2.rst. All numbers are big-endian."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U32, U64, Bytes, Record, record

MAGIC: Final = b"QFI\xfb"

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 0x01, 0x02, 0x04, 0x08, 0x10
"""Incompatible features."""


@record
class Qcow2Header(Record):
    """The header of version 2, with which that of version 3 begins."""

    byte_order = "big"

    magic: Annotated[bytes, Bytes(4)]
    """`MAGIC`."""
    version: U32
    """2 or 3."""
    backing_file_offset: U64
    """Where the name of the backing file lies; 0 for none."""
    backing_file_size: U32
    """Bytes of that name."""
    cluster_bits: U32
    """Binary logarithm of the bytes in a cluster."""
    size: U64
    """Bytes of the disk."""
    encryption: U32
    """0 for none."""
    l1_size: U32
    """Entries of the first table."""
    l1_table_offset: U64
    """Where it lies, in bytes from the file's start."""
    refcount_table_offset: U64
    """Where the reference counts are, which a reader does not need."""
    refcount_table_clusters: U32
    """Clusters of that table."""
    snapshot_count: U32
    """Snapshots in the file; this library reads the present state."""
    snapshots_offset: U64
    """Where their table lies."""


@record
class Qcow2Extension(Record):
    """What version 3 adds to the header."""

    byte_order = "big"

    incompatible_features: U64
    """Bits that a reader has to know, such as `EXTENDED_L2`."""
    compatible_features: U64
    """Bits that it need not know."""
    autoclear_features: U64
    """Bits that a writer which does not know them clears."""
    refcount_order: U32
    """Binary logarithm of the bits in a reference count."""
    header_length: U32
    """Bytes in the header."""


@record
class Qcow2Compression(Record):
    """What follows in headers that say `COMPRESSION_TYPE`."""

    byte_order = "big"

    compression_type: U8
    """0 for deflate, 1 for zstd."""
