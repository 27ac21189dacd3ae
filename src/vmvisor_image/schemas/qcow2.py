"""Header and table of snapshots of a qcow2 file. Source: QEMU, docs/interop/qcow2.rst. All numbers are big-endian."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

MAGIC: Final = b"QFI\xfb"

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 0x01, 0x02, 0x04, 0x08, 0x10
"""Bits of `Qcow2Extension.incompatible_features`."""

BACKING_FORMAT, DATA_FILE = 0xE2792ACA, 0x44415441
"""Types of header extensions: the format of the backing file, and the name of the external data file."""


@record
class Qcow2Header(Record):
    """Header of version 2, which is also the start of the header of version 3."""

    byte_order = "big"

    magic: Annotated[bytes, Bytes(4)]
    """`MAGIC`."""
    version: U32
    """2 or 3."""
    backing_file_offset: U64
    """Bytes from the file's start to the name of the backing file; 0 for none."""
    backing_file_size: U32
    """Bytes in that name."""
    cluster_bits: U32
    """Binary logarithm of the bytes in a cluster."""
    size: U64
    """Size of the disk, in bytes."""
    encryption: U32
    """Method of encryption; 0 for none."""
    l1_size: U32
    """Entries in the first-level table."""
    l1_table_offset: U64
    """Bytes from the file's start to the first-level table."""
    refcount_table_offset: U64
    """Bytes from the file's start to the table of reference counts, which a reader does not need."""
    refcount_table_clusters: U32
    """Clusters of the table of reference counts."""
    snapshot_count: U32
    """Number of snapshots in the file."""
    snapshots_offset: U64
    """Bytes from the file's start to the table of snapshots."""


@record
class Qcow2Extension(Record):
    """Fields that version 3 adds to the header."""

    byte_order = "big"

    incompatible_features: U64
    """Bits that a reader has to know, such as `EXTENDED_L2`."""
    compatible_features: U64
    """Bits that a reader need not know."""
    autoclear_features: U64
    """Bits that a writer which does not know them clears."""
    refcount_order: U32
    """Binary logarithm of the bits in a reference count."""
    header_length: U32
    """Bytes in the header."""


@record
class Qcow2Compression(Record):
    """Field that follows in headers whose features include `COMPRESSION_TYPE`."""

    byte_order = "big"

    compression_type: U8
    """Compression of clusters: 0 for deflate, 1 for zstd."""


@record
class Qcow2HeaderExtension(Record):
    """Start of a header extension, before its data, which is padded to a multiple of 8 bytes."""

    byte_order = "big"

    type: U32
    """`BACKING_FORMAT` and others; 0 after the last one."""
    size: U32
    """Bytes of data."""


@record
class Qcow2Snapshot(Record):
    """Start of an entry in the table of snapshots; extra data, number, name and padding to 8 bytes follow."""

    byte_order = "big"

    l1_table_offset: U64
    """Bytes from the file's start to the first-level table of the snapshot."""
    l1_size: U32
    """Entries in that table."""
    id_size: U16
    """Bytes in its number, which is text."""
    name_size: U16
    """Bytes in its name."""
    seconds: U32
    """Time when it was taken, in seconds since 1970."""
    nanoseconds: U32
    """Rest of that time."""
    clock: U64
    """Nanoseconds that the guest had run."""
    state_size: U32
    """Bytes of the saved state of the machine; 0 without one."""
    extra_size: U32
    """Bytes of extra data: the size of the saved state, the size of the disk, and others, 8 bytes each."""
