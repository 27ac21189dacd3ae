"""Deterministic VHD and VHDX files that rest on other ones, and VHDX files with a log that is not replayed yet.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from vmvisor_image.layers.crc32c import crc32c
from vmvisor_image.schemas import vhd, vhdx
from vmvisor_image.testing.forge import SparseImage

_SECTOR: Final = vhdx.LOG_SECTOR
_MIB: Final = 1 << 20


def vhd_delta(
    blocks: Mapping[int, bytes | Mapping[int, bytes]],
    size: int,
    paths: Mapping[bytes, str] | None = None,
    *,
    block_size: int = 1 << 21,
    unique_id: bytes = bytes(16),
    parent_id: bytes = bytes(16),
    parent_time: int = 0,
    parent_name: str = "",
) -> SparseImage:
    """A dynamic VHD, or one that rests on another disk.

    Vouched for by ``libvhdi``: ``tests/test_vhd_chains.py``.

    Args:
        blocks: Content of each block that the disk holds, by number: all of its bytes, or its sectors by their number
            in the block, where the others are the parent's.
        size: Bytes of the disk.
        paths: Paths of the parent by the code of their locator; None for a disk without a parent.
        block_size: Bytes in a block.
        unique_id: UUID of the disk.
        parent_id: UUID of the parent.
        parent_time: Time of the last write to the parent's file, in seconds since 2000.
        parent_name: Name of the parent's file.
    """
    count = -(-size // block_size)
    table_size = -(-4 * count // vhd.SECTOR) * vhd.SECTOR
    bitmap_size = -(-block_size // vhd.SECTOR // 8 // vhd.SECTOR) * vhd.SECTOR or vhd.SECTOR
    at = 3 * vhd.SECTOR + table_size
    pieces: list[tuple[int, bytes]] = []
    locators = []
    for code, text in (paths or {}).items():
        data = text.encode("utf-8" if code == vhd.FILE_URL else "utf-16-le")
        sectors = -(-len(data) // vhd.SECTOR)
        locators.append(vhd.VhdParentLocator(code, sectors, len(data), 0, at))
        pieces.append((at, data))
        at += sectors * vhd.SECTOR
    locators += [vhd.VhdParentLocator(bytes(4), 0, 0, 0, 0)] * (8 - len(locators))
    table = bytearray(b"\xff" * table_size)
    for number, block in sorted(blocks.items()):
        table[4 * number : 4 * number + 4] = (at // vhd.SECTOR).to_bytes(4, "big")
        sectors = block_size // vhd.SECTOR
        here = range(sectors) if isinstance(block, bytes) else block
        bits = sum(1 << (8 * bitmap_size - 1 - each) for each in here)
        pieces.append((at, bits.to_bytes(bitmap_size, "big")))
        at += bitmap_size
        pieces += [(at, block)] if isinstance(block, bytes) else [(at + vhd.SECTOR * n, d) for n, d in block.items()]
        at += block_size
    footer = vhd.VhdFooter(
        magic=vhd.FOOTER_MAGIC,
        features=2,
        version=0x10000,
        data_offset=vhd.SECTOR,
        timestamp=0,
        creator=b"win ",
        creator_version=0x60001,
        creator_system=b"Wi2k",
        original_size=size,
        current_size=size,
        cylinders=1,
        heads=1,
        sectors_per_track=1,
        disk_type=vhd.DYNAMIC if paths is None else vhd.DIFFERENCING,
        checksum=0,
        unique_id=unique_id,
        saved_state=0,
    )
    raw = footer.build().ljust(vhd.SECTOR, b"\0")
    raw = replace(footer, checksum=~sum(raw) & 0xFFFFFFFF).build().ljust(vhd.SECTOR, b"\0")
    header = vhd.VhdDynamicHeader(
        magic=vhd.HEADER_MAGIC,
        data_offset=0xFFFFFFFFFFFFFFFF,
        table_offset=3 * vhd.SECTOR,
        version=0x10000,
        entry_count=count,
        block_size=block_size,
        checksum=0,
    )
    name = parent_name.encode("utf-16-be").ljust(512, b"\0")
    parent = vhd.VhdParent(parent_id, parent_time, 0, name, tuple(locators))
    head = (header.build() + parent.build()).ljust(2 * vhd.SECTOR, b"\0")
    head = replace(header, checksum=~sum(head) & 0xFFFFFFFF).build() + head[vhd.VhdDynamicHeader.length() :]
    pieces += [(0, raw), (vhd.SECTOR, head), (3 * vhd.SECTOR, bytes(table)), (at, raw)]
    return SparseImage(at + vhd.SECTOR, pieces)


def vhdx_delta(
    blocks: Mapping[int, bytes | int | Mapping[int, bytes]],
    size: int,
    locator: Mapping[str, str] | None = None,
    *,
    block_size: int = 1 << 20,
    sector: int = 512,
    disk_id: bytes = bytes(range(16)),
    data_write_id: bytes = bytes(16),
) -> SparseImage:
    """A dynamic VHDX, or one that rests on another disk.

    Vouched for by ``dissect.hypervisor`` and ``libvhdi``: ``tests/test_vhd_chains.py``.

    Args:
        blocks: Content of each block that the disk holds, by number: all of its bytes; a state without data; or its
            sectors by their number in the block, where the others are the parent's.
        size: Bytes of the disk.
        locator: Keys and values of the parent locator; None for a disk without a parent.
        block_size: Bytes in a block.
        sector: Bytes in a sector of the disk.
        disk_id: GUID of the disk, as it is on disk.
        data_write_id: GUID of its content, as it is on disk.
    """
    ratio = (1 << 23) * sector // block_size
    count = -(-size // block_size)
    entries = bytearray(8 * (-(-count // ratio) * (ratio + 1)))
    table_size = max(1, -(-len(entries) // _MIB)) * _MIB
    at = 3 * _MIB + table_size
    pieces: list[tuple[int, bytes]] = []
    bitmaps: dict[int, bytearray] = {}
    for number, block in sorted(blocks.items()):
        chunk = number // ratio
        if isinstance(block, int):
            entry = block
        else:
            entry = at | (vhdx.FULLY_PRESENT if isinstance(block, bytes) else vhdx.PARTIALLY_PRESENT)
            pieces += [(at, block)] if isinstance(block, bytes) else [(at + sector * n, d) for n, d in block.items()]
            at += block_size
        if isinstance(block, Mapping):
            bitmap = bitmaps.setdefault(chunk, bytearray(_MIB))
            for each in block:
                bit = number % ratio * (block_size // sector) + each
                bitmap[bit // 8] |= 1 << bit % 8
        entries[8 * (number + chunk) : 8 * (number + chunk + 1)] = entry.to_bytes(8, "little")
    for chunk, bitmap in bitmaps.items():
        place = 8 * (chunk * (ratio + 1) + ratio)
        entries[place : place + 8] = (at | vhdx.FULLY_PRESENT).to_bytes(8, "little")
        pieces.append((at, bytes(bitmap)))
        at += _MIB
    items = [
        (
            vhdx.FILE_PARAMETERS,
            block_size.to_bytes(4, "little") + bytes([0 if locator is None else vhdx.HAS_PARENT, 0, 0, 0]),
        ),
        (vhdx.DISK_SIZE, size.to_bytes(8, "little")),
        (vhdx.SECTOR_SIZE, sector.to_bytes(4, "little")),
        (vhdx.PHYSICAL_SECTOR_SIZE, (4096).to_bytes(4, "little")),
        (vhdx.DISK_ID, disk_id),
    ]
    if locator is not None:
        items.append((vhdx.PARENT_LOCATOR, _locator(locator)))
    metadata = vhdx.MetadataTableHeader(vhdx.METADATA_MAGIC, 0, len(items), bytes(20)).build()
    values = b""
    for item_id, value in items:
        bits = 4 if item_id in (vhdx.FILE_PARAMETERS, vhdx.PARENT_LOCATOR) else 6  # required, and of the virtual disk
        metadata += vhdx.MetadataTableEntry(item_id, vhdx.TABLE_SIZE + len(values), len(value), bits, 0).build()
        values += value.ljust(-(-len(value) // 8) * 8, b"\0")
    regions = vhdx.RegionTableHeader(vhdx.REGION_MAGIC, 0, 2, 0).build()
    regions += vhdx.RegionTableEntry(vhdx.BAT_REGION, 3 * _MIB, table_size, 1).build()
    regions += vhdx.RegionTableEntry(vhdx.METADATA_REGION, 2 * _MIB, _MIB, 1).build()
    header = vhdx.VhdxHeader(
        magic=vhdx.HEADER_MAGIC,
        checksum=0,
        sequence_number=1,
        file_write_id=bytes(16),
        data_write_id=data_write_id,
        log_id=bytes(16),
        log_version=0,
        version=1,
        log_length=_MIB,
        log_offset=_MIB,
    )
    pieces += [
        (0, vhdx.FILE_MAGIC),
        *((at, sealed(header.build(), vhdx.HEADER_SIZE)) for at in vhdx.HEADERS),
        *((at, sealed(regions, vhdx.TABLE_SIZE)) for at in vhdx.REGION_TABLES),
        (2 * _MIB, metadata),
        (2 * _MIB + vhdx.TABLE_SIZE, values),
        (3 * _MIB, bytes(entries)),
    ]
    return SparseImage(at, pieces)


def _locator(values: Mapping[str, str]) -> bytes:
    """A parent locator with these keys and values."""
    at = vhdx.ParentLocatorHeader.length() + len(values) * vhdx.ParentLocatorEntry.length()
    found = vhdx.ParentLocatorHeader(vhdx.VHDX_LOCATOR, 0, len(values)).build()
    texts = b""
    for pair in values.items():
        key, value = (text.encode("utf-16-le") for text in pair)
        place = at + len(texts)
        found += vhdx.ParentLocatorEntry(place, place + len(key), len(key), len(value)).build()
        texts += key + value
    return found + texts


def sealed(data: bytes, size: int) -> bytes:
    """A structure of a VHDX with its CRC-32C, in `size` bytes."""
    plain = data[:4] + bytes(4) + data[8:].ljust(size - 8, b"\0")
    return plain[:4] + crc32c(plain).to_bytes(4, "little") + plain[8:]


def vhdx_log_entry(
    log_id: bytes,
    number: int,
    changes: Mapping[int, bytes | int],
    *,
    tail: int,
    flushed: int,
    last: int,
) -> bytes:
    """An entry of the log of a VHDX.

    Vouched for by ``qemu-img``: ``tests/test_vhdx_log.py``.

    Args:
        log_id: GUID of the log, as it is on disk.
        number: Sequence number of the entry.
        changes: Changes of the file by their first byte: a page of 4096 bytes, or a number of bytes that become zeros.
        tail: Bytes from the start of the log to the first entry that has to be replayed.
        flushed: Least size of the file, in bytes.
        last: Size of the file after the replay, in bytes.
    """
    descriptors, data = [], []
    for offset, change in changes.items():
        if isinstance(change, int):
            descriptors.append(vhdx.LogDescriptor(vhdx.ZERO_MAGIC, bytes(4), change, offset, number))
            continue
        leading, trailing = int.from_bytes(change[:8], "little"), change[-4:]
        descriptors.append(vhdx.LogDescriptor(vhdx.DATA_MAGIC, trailing, leading, offset, number))
        high, low = divmod(number, 1 << 32)
        head = vhdx.LogDataSector(vhdx.DATA_SECTOR_MAGIC, high)
        data.append(head.build() + change[8:-4] + low.to_bytes(4, "little"))
    places = b"".join(each.build() for each in descriptors)
    sectors = -(-(vhdx.LogEntryHeader.length() + len(places)) // _SECTOR)
    header = vhdx.LogEntryHeader(
        magic=vhdx.LOG_MAGIC,
        checksum=0,
        entry_length=(sectors + len(data)) * _SECTOR,
        tail=tail,
        sequence_number=number,
        descriptor_count=len(descriptors),
        reserved=0,
        log_id=log_id,
        flushed_file_offset=flushed,
        last_file_offset=last,
    )
    rest = places.ljust(sectors * _SECTOR - vhdx.LogEntryHeader.length(), b"\0") + b"".join(data)
    checksum = crc32c(header.build() + rest)
    return replace(header, checksum=checksum).build() + rest


def vhdx_with_log(disk: SparseImage, log_id: bytes, entries: Sequence[tuple[int, bytes]]) -> SparseImage:
    """A VHDX that was not closed, of one by `vmvisor_image.testing.forge_virtual.vhdx_disk`.

    Vouched for by ``qemu-img``: ``tests/test_vhdx_log.py``.

    Args:
        disk: The VHDX.
        log_id: GUID of its log, as it is on disk.
        entries: Content of the log: bytes from its start, and an entry, which goes on at its start where it does not
            fit; later ones replace earlier ones.
    """
    header = vhdx.VhdxHeader.parse(disk.read_at(vhdx.HEADERS[0], vhdx.HEADER_SIZE))
    log = bytearray(header.log_length)
    for start, entry in entries:
        for at in range(0, len(entry), _SECTOR):
            place = (start + at) % len(log)
            log[place : place + _SECTOR] = entry[at : at + _SECTOR]
    made = sealed(replace(header, log_id=log_id).build(), vhdx.HEADER_SIZE)
    kept = [piece for piece in disk.pieces if piece[0] not in (*vhdx.HEADERS, header.log_offset)]
    return SparseImage(disk.size, [*kept, *((at, made) for at in vhdx.HEADERS), (header.log_offset, bytes(log))])
