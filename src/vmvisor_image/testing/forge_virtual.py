"""Deterministic qcow2, VMDK, VHD and VHDX files of a small disk; every block of the disk is stored.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from uuid import UUID

from vmvisor_image.layers.crc32c import crc32c
from vmvisor_image.schemas import qcow2, vhd, vhdx, vmdk
from vmvisor_image.testing.forge import SparseImage

_SECTOR: Final = 512
_CLUSTER_BITS: Final = 9
_CLUSTER: Final = 1 << _CLUSTER_BITS
_COPIED: Final = 1 << 63
"""Bit of an entry whose target has no other reference."""
_GRAIN: Final = 8
"""Sectors in a grain."""
_MIB: Final = 1 << 20
_PHYSICAL_SECTOR_SIZE: Final = UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
_PAGE_83: Final = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
"""Items that a VHDX has to have (MS-VHDX, 2.6.2), and that are not read."""


def _blocks(disk: bytes, size: int) -> list[bytes]:
    return [disk[at : at + size].ljust(size, b"\0") for at in range(0, len(disk), size)]


def qcow2_disk(disk: bytes) -> bytes:
    """A qcow2 of version 2 with clusters of 512 bytes.

    Vouched for by ``qemu-img``: ``tests/test_vouchers.py``.
    """
    clusters = _blocks(disk, _CLUSTER)
    per_table = _CLUSTER // 8
    tables = -(-len(clusters) // per_table)
    l1_clusters = -(-tables * 8 // _CLUSTER)
    first_table = 1 + l1_clusters
    first_data = first_table + tables
    used = first_data + len(clusters)
    table_clusters, counted = _refcounts(used)
    header = qcow2.Qcow2Header(
        magic=qcow2.MAGIC,
        version=2,
        backing_file_offset=0,
        backing_file_size=0,
        cluster_bits=_CLUSTER_BITS,
        size=len(disk),
        encryption=0,
        l1_size=tables,
        l1_table_offset=_CLUSTER,
        refcount_table_offset=used * _CLUSTER,
        refcount_table_clusters=table_clusters,
        snapshot_count=0,
        snapshots_offset=0,
    )
    l1 = b"".join((_COPIED | _CLUSTER * (first_table + number)).to_bytes(8, "big") for number in range(tables))
    l2 = b"".join((_COPIED | _CLUSTER * (first_data + number)).to_bytes(8, "big") for number in range(len(clusters)))
    return b"".join(
        (
            header.build().ljust(_CLUSTER, b"\0"),
            l1.ljust(l1_clusters * _CLUSTER, b"\0"),
            l2.ljust(tables * _CLUSTER, b"\0"),
            *clusters,
            counted,
        )
    )


def qcow2_delta(
    clusters: Mapping[int, bytes | None],
    size: int,
    parent: str,
    kind: str | None = "raw",
    *,
    snapshot: str | None = None,
) -> bytes:
    """A qcow2 of version 3 with clusters of 512 bytes that rests on another disk.

    Vouched for by ``qemu-img``: ``tests/test_chains.py``.

    Args:
        clusters: Data of each cluster that the disk holds, by number; None for zeros.
        size: Bytes of the disk.
        parent: Name of the file that it rests on.
        kind: QEMU's name for the format of that file; None not to say it.
        snapshot: Name of a snapshot, of the same clusters; None for no snapshot.
    """
    per_table = _CLUSTER // 8
    tables = -(-size // _CLUSTER // per_table)
    l1_clusters = -(-tables * 8 // _CLUSTER)
    first_table = 1 + l1_clusters
    stored = {number: data for number, data in sorted(clusters.items()) if data is not None}
    first_data = first_table + tables
    places = {number: first_data + count for count, number in enumerate(stored)}
    table_at = first_data + len(stored)
    used = table_at + (snapshot is not None)
    table_clusters, counted = _refcounts(used)
    copied = 0 if snapshot is not None else _COPIED
    header = qcow2.Qcow2Header(
        magic=qcow2.MAGIC,
        version=3,
        backing_file_offset=256,
        backing_file_size=len(parent.encode()),
        cluster_bits=_CLUSTER_BITS,
        size=size,
        encryption=0,
        l1_size=tables,
        l1_table_offset=_CLUSTER,
        refcount_table_offset=used * _CLUSTER,
        refcount_table_clusters=table_clusters,
        snapshot_count=int(snapshot is not None),
        snapshots_offset=0 if snapshot is None else table_at * _CLUSTER,
    )
    head = header.build() + qcow2.Qcow2Extension(0, 0, 0, 4, 104).build()
    if kind is not None:
        head += qcow2.Qcow2HeaderExtension(qcow2.BACKING_FORMAT, len(kind)).build() + kind.encode().ljust(8, b"\0")
    l1 = b"".join((copied | _CLUSTER * (first_table + number)).to_bytes(8, "big") for number in range(tables))
    entries = [0] * (tables * per_table)
    for number, data in clusters.items():
        entries[number] = 1 if data is None else copied | _CLUSTER * places[number]
    l2 = b"".join(entry.to_bytes(8, "big") for entry in entries)
    taken = b""
    if snapshot is not None:
        name = snapshot.encode()
        taken = qcow2.Qcow2Snapshot(_CLUSTER, tables, 1, len(name), 0, 0, 0, 0, 16).build()
        taken = (taken + bytes(8) + size.to_bytes(8, "big") + b"1" + name).ljust(_CLUSTER, b"\0")
        counts = bytearray(counted)  # the snapshot shares all but the header and its table
        block = table_clusters * _CLUSTER
        for number in range(1, table_at):
            counts[block + 2 * number + 1] = 2
        counted = bytes(counts)
    return b"".join(
        (
            head.ljust(256, b"\0") + parent.encode().ljust(_CLUSTER - 256, b"\0"),
            l1.ljust(l1_clusters * _CLUSTER, b"\0"),
            l2,
            *(data.ljust(_CLUSTER, b"\0") for data in stored.values()),
            taken,
            counted,
        )
    )


def _refcounts(used: int) -> tuple[int, bytes]:
    """Clusters in the table of reference counts, and the table and its blocks, after `used` clusters: 1 each."""
    per_block, per_table = _CLUSTER // 2, _CLUSTER // 8
    blocks = tables = 0
    while blocks * per_block < used + tables + blocks:
        blocks += 1
        tables = -(-blocks // per_table)
    count = used + tables + blocks
    table = b"".join(((used + tables + number) * _CLUSTER).to_bytes(8, "big") for number in range(blocks))
    return tables, table.ljust(tables * _CLUSTER, b"\0") + (b"\0\1" * count).ljust(blocks * _CLUSTER, b"\0")


def vmdk_disk(disk: bytes, *, compressed: bool = False) -> bytes:
    """A hosted sparse extent with grains of 4 KiB, or one with compressed grains.

    Vouched for by ``qemu-img``: ``tests/test_vouchers.py``.

    Args:
        disk: The disk.
        compressed: Whether to deflate each grain, after its marker.
    """
    grains = _blocks(disk, _GRAIN * _SECTOR)
    tables = -(-len(grains) // 512)
    sectors = -(-len(disk) // _SECTOR)
    descriptor = (
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        f'createType="{"streamOptimized" if compressed else "monolithicSparse"}"\nRW {sectors} SPARSE "disk.vmdk"\n'
    ).encode()
    descriptor_at, directory_at, table_at = 1, 2, 3
    at = table_at + 4 * tables
    data, entries = [], []
    for number, grain in enumerate(grains):
        if compressed:
            packed = zlib.compress(grain)
            grain = vmdk.GrainMarker(number * _GRAIN, len(packed)).build() + packed  # noqa: PLW2901  # as it is stored
        data.append(grain.ljust(-(-len(grain) // _SECTOR) * _SECTOR, b"\0"))
        entries.append(at)
        at += len(data[-1]) // _SECTOR
    header = vmdk.SparseExtentHeader(
        magic=vmdk.MAGIC,
        version=3 if compressed else 1,
        flags=3 | (vmdk.COMPRESSED | vmdk.MARKERS if compressed else 0),
        capacity=sectors,
        grain_size=_GRAIN,
        descriptor_offset=descriptor_at,
        descriptor_size=1,
        entries_per_table=512,
        redundant_directory=directory_at,
        directory=directory_at,
        overhead=table_at + 4 * tables,
        unclean_shutdown=0,
        line_ends=b"\n \r\n",
        compression=int(compressed),
    )
    directory = b"".join((table_at + 4 * number).to_bytes(4, "little") for number in range(tables))
    table = b"".join(entry.to_bytes(4, "little") for entry in entries)
    return b"".join(
        (
            header.build().ljust(_SECTOR, b"\0"),
            descriptor.ljust(_SECTOR, b"\0"),
            directory.ljust(_SECTOR, b"\0"),
            table.ljust(4 * tables * _SECTOR, b"\0"),
            *data,
        )
    )


def vhd_disk(disk: bytes, *, fixed: bool = False) -> bytes:
    """A VHD, dynamic with blocks of 4 KiB or fixed.

    Vouched for by ``qemu-img``: ``tests/test_vouchers.py``.

    Args:
        disk: The disk.
        fixed: Whether to store the data unchanged, with a footer after it.
    """
    footer = vhd.VhdFooter(
        magic=vhd.FOOTER_MAGIC,
        features=2,
        version=0x10000,
        data_offset=0xFFFFFFFFFFFFFFFF if fixed else _SECTOR,
        timestamp=0,
        creator=b"forg",
        creator_version=0,
        creator_system=b"Wi2k",
        original_size=len(disk),
        current_size=len(disk),
        cylinders=1,
        heads=1,
        sectors_per_track=1,
        disk_type=vhd.FIXED if fixed else vhd.DYNAMIC,
        checksum=0,
        unique_id=bytes(16),
        saved_state=0,
    )
    raw = footer.build().ljust(_SECTOR, b"\0")
    raw = replace(footer, checksum=~sum(raw) & 0xFFFFFFFF).build().ljust(_SECTOR, b"\0")
    if fixed:
        return disk + raw
    size = 8 * _SECTOR
    blocks = _blocks(disk, size)
    header = vhd.VhdDynamicHeader(
        magic=vhd.HEADER_MAGIC,
        data_offset=0xFFFFFFFFFFFFFFFF,
        table_offset=3 * _SECTOR,
        version=0x10000,
        entry_count=len(blocks),
        block_size=size,
        checksum=0,
    )
    head = header.build().ljust(2 * _SECTOR, b"\0")
    head = replace(header, checksum=~sum(head) & 0xFFFFFFFF).build().ljust(2 * _SECTOR, b"\0")
    table_sectors = -(-4 * len(blocks) // _SECTOR)
    first = 3 + table_sectors
    table = b"".join((first + 9 * number).to_bytes(4, "big") for number in range(len(blocks)))
    bitmap = b"\xff".ljust(_SECTOR, b"\0")
    return b"".join((raw, head, table.ljust(table_sectors * _SECTOR, b"\xff"), *(bitmap + b for b in blocks), raw))


def vhdx_disk(disk: bytes) -> SparseImage:
    """A dynamic VHDX with blocks of 1 MiB.

    Vouched for by ``qemu-img``: ``tests/test_vouchers.py``.
    """
    blocks = _blocks(disk, _MIB)
    table_at, metadata_at, first = 2 * _MIB, 3 * _MIB, 4
    header = vhdx.VhdxHeader(
        vhdx.HEADER_MAGIC,
        0,
        1,
        bytes(16),
        bytes(16),
        bytes(16),
        log_version=0,
        version=1,
        log_length=_MIB,
        log_offset=_MIB,
    )
    regions = vhdx.RegionTableHeader(vhdx.REGION_MAGIC, 0, 2, 0).build()
    regions += vhdx.RegionTableEntry(vhdx.BAT_REGION, table_at, _MIB, 1).build()
    regions += vhdx.RegionTableEntry(vhdx.METADATA_REGION, metadata_at, _MIB, 1).build()
    items = (
        (vhdx.FILE_PARAMETERS, _MIB.to_bytes(4, "little") + bytes(4)),
        (vhdx.DISK_SIZE, len(disk).to_bytes(8, "little")),
        (vhdx.SECTOR_SIZE, (512).to_bytes(4, "little")),
        (_PHYSICAL_SECTOR_SIZE, (512).to_bytes(4, "little")),
        (_PAGE_83, b"forged page 83 id"[:16]),
    )
    metadata = vhdx.MetadataTableHeader(vhdx.METADATA_MAGIC, 0, len(items), bytes(20)).build()
    for number, (item_id, value) in enumerate(items):
        metadata += vhdx.MetadataTableEntry(item_id, 0x10000 + 16 * number, len(value), 0, 0).build()
    metadata = metadata.ljust(0x10000, b"\0") + b"".join(value.ljust(16, b"\0") for _, value in items)
    table = b"".join(((first + n) << 20 | vhdx.FULLY_PRESENT).to_bytes(8, "little") for n in range(len(blocks)))
    sealed = [(at, _sealed(header.build(), vhdx.HEADER_SIZE)) for at in vhdx.HEADERS]
    sealed += [(at, _sealed(regions, vhdx.TABLE_SIZE)) for at in vhdx.REGION_TABLES]
    data = [((first + number) * _MIB, block) for number, block in enumerate(blocks)]
    pieces = [(0, vhdx.FILE_MAGIC), *sealed, (table_at, table), (metadata_at, metadata), *data]
    return SparseImage((first + len(blocks)) * _MIB, pieces)


def _sealed(data: bytes, size: int) -> bytes:
    """A structure with its CRC-32C, in `size` bytes."""
    whole = data.ljust(size, b"\0")
    return whole[:4] + crc32c(whole).to_bytes(4, "little") + whole[8:]
