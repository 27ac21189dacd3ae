"""Header of a sparse VMDK extent. Source: VMware, Virtual Disk Format 5.0, "Hosted Sparse Extents"."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

MAGIC: Final = b"KDMV"
DESCRIPTOR_MAGIC: Final = b"# Disk DescriptorFile"
GRAIN_TABLE_USES_REDUNDANT, ZEROED_GRAINS, COMPRESSED, MARKERS = 0x2, 0x4, 0x10000, 0x20000
"""Bits of `SparseExtentHeader.flags`."""
AT_END: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Value for the place of the grain directory in a streamOptimized extent, whose footer has the real one."""


@record
class SparseExtentHeader(Record):
    """First sector of a hosted sparse extent, and its footer; sectors have 512 bytes."""

    magic: Annotated[bytes, Bytes(4)]
    """`MAGIC`."""
    version: U32
    """1 to 3."""
    flags: U32
    """`COMPRESSED` and others."""
    capacity: U64
    """Sectors of the disk in this extent."""
    grain_size: U64
    """Sectors in a grain, a power of two."""
    descriptor_offset: U64
    """Sector of the embedded descriptor; 0 for none."""
    descriptor_size: U64
    """Sectors of the embedded descriptor."""
    entries_per_table: U32
    """Entries in a grain table: 512."""
    redundant_directory: U64
    """Sector of the second grain directory."""
    directory: U64
    """Sector of the grain directory, or `AT_END`."""
    overhead: U64
    """Sectors before the first grain."""
    unclean_shutdown: U8
    """1 while the extent is in use."""
    line_ends: Annotated[bytes, Bytes(4)]
    """Line feed, space, carriage return and line feed, which show whether the file was transferred as text."""
    compression: U16
    """Compression of grains: 1 for deflate."""


@record
class GrainMarker(Record):
    """Marker before each grain of a compressed extent."""

    sector: U64
    """First sector of the disk that the grain holds."""
    size: U32
    """Bytes of compressed data, which follow."""
