"""Headers of a space-efficient sparse extent of ESXi (seSparse). Source: QEMU, block/vmdk.c; real files."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U64, Bytes, Record, record

MAGIC: Final = b"\xbe\xba\xfe\xca\0\0\0\0"
"""0xCAFEBABE in 64 bits."""
VOLATILE_MAGIC: Final = 0xCAFECAFE
VERSION: Final = 0x2_0000_0001
"""Version 2.1, the only one that is known."""


@record
class SeSparseHeader(Record):
    """First sector of the extent, which does not change; offsets and sizes are in sectors of 512 bytes."""

    magic: Annotated[bytes, Bytes(8)]
    """`MAGIC`."""
    version: U64
    """`VERSION`: the major version in the upper half, the minor one in the lower half."""
    capacity: U64
    """Sectors of the disk in this extent."""
    grain_size: U64
    """Sectors in a grain: 8."""
    table_size: U64
    """Sectors of a grain table: 64."""
    flags: U64
    """0."""
    reserved: Annotated[bytes, Bytes(32)]
    """Zeros."""
    volatile_offset: U64
    """Sector of the volatile header."""
    volatile_size: U64
    """Its sectors."""
    journal_header_offset: U64
    """First sector of the header of the journal."""
    journal_header_size: U64
    """Its sectors."""
    journal_offset: U64
    """First sector of the journal."""
    journal_size: U64
    """Its sectors."""
    directory_offset: U64
    """First sector of the grain directory."""
    directory_size: U64
    """Its sectors."""
    tables_offset: U64
    """First sector of the grain tables."""
    tables_size: U64
    """Their sectors."""
    bitmap_offset: U64
    """First sector of the bitmap of used grains."""
    bitmap_size: U64
    """Its sectors."""
    backmap_offset: U64
    """First sector of the table from stored grains to those of the disk."""
    backmap_size: U64
    """Its sectors."""
    grains_offset: U64
    """First sector of the grains."""
    grains_size: U64
    """Their sectors, when all are in use."""


@record
class SeSparseVolatileHeader(Record):
    """Header that changes while the disk is in use."""

    magic: U64
    """`VOLATILE_MAGIC`."""
    free_table: U64
    """Number of the first grain table that is not in use."""
    next_transaction: U64
    """Number of the next entry of the journal."""
    replay_journal: U64
    """Other than 0 where the journal has changes that are not in the tables yet."""
