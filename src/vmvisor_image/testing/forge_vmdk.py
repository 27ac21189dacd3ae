"""Deterministic sparse extents of ESX, and descriptors that put extents into a disk and name what it rests on.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from vmvisor_image.schemas import cowd, sesparse
from vmvisor_image.testing.forge import SparseImage

_SECTOR: Final = 512
_GRAIN: Final = 4096
_PER_TABLE: Final = 4096
"""Entries of a grain table of either format."""
_TABLE_SECTORS: Final = 64
_NO_PARENT: Final = 0xFFFF_FFFF


def sesparse_extent(
    grains: Mapping[int, bytes | None],
    sectors: int,
    *,
    unmapped: Collection[int] = (),
    first_place: int = 0,
    replay_journal: int = 0,
) -> SparseImage:
    """An seSparse extent.

    Vouched for by ``qemu-img`` and dissect.hypervisor: ``tests/test_esx_extents.py``.

    Args:
        grains: Data of each grain of 4 KiB that the extent holds, by number; None for zeros. They are stored in this
            order.
        sectors: Capacity in sectors.
        unmapped: Numbers of further grains, which are marked as unmapped.
        first_place: Number of the place of the first stored grain; those before it are not used.
        replay_journal: Value of the field that says that the journal is to be replayed.
    """
    entries = dict.fromkeys(unmapped, 1 << 60)
    stored: list[tuple[int, int, bytes]] = []
    for number, data in grains.items():
        entries[number] = 2 << 60
        if data is not None:
            place = first_place + len(stored)
            entries[number] = 3 << 60 | (place & 0xFFF) << 48 | place >> 12
            stored.append((place, number, data))
    numbers = sorted({number // _PER_TABLE for number in entries})
    tables = -(-sectors * _SECTOR // (_GRAIN * _PER_TABLE))
    directory_at = 8
    directory_size = -(-tables * 8 // _SECTOR)
    tables_at = directory_at + directory_size
    bitmap_at = tables_at + _TABLE_SECTORS * max(1, len(numbers))
    places = first_place + len(stored)
    bitmap_size, backmap_size = -(-places // 8 // _SECTOR) + 1, -(-places * 8 // _SECTOR) + 1
    backmap_at = bitmap_at + bitmap_size
    grains_at = -(-(backmap_at + backmap_size) // 8) * 8
    header = sesparse.SeSparseHeader(
        magic=sesparse.MAGIC,
        version=sesparse.VERSION,
        capacity=sectors,
        grain_size=_GRAIN // _SECTOR,
        table_size=_TABLE_SECTORS,
        flags=0,
        reserved=bytes(32),
        volatile_offset=1,
        volatile_size=1,
        journal_header_offset=2,
        journal_header_size=2,
        journal_offset=4,
        journal_size=4,
        directory_offset=directory_at,
        directory_size=directory_size,
        tables_offset=tables_at,
        tables_size=bitmap_at - tables_at,
        bitmap_offset=bitmap_at,
        bitmap_size=bitmap_size,
        backmap_offset=backmap_at,
        backmap_size=backmap_size,
        grains_offset=grains_at,
        grains_size=sectors,
    )
    volatile = sesparse.SeSparseVolatileHeader(sesparse.VOLATILE_MAGIC, len(numbers), 0, replay_journal)
    pieces = [(0, header.build()), (_SECTOR, volatile.build())]
    for count, number in enumerate(numbers):
        entry = 0x1000_0000 << 32 | count
        pieces.append((directory_at * _SECTOR + 8 * number, entry.to_bytes(8, "little")))
        table = (entries.get(number * _PER_TABLE + index, 0).to_bytes(8, "little") for index in range(_PER_TABLE))
        pieces.append(((tables_at + _TABLE_SECTORS * count) * _SECTOR, b"".join(table)))
    used = bytearray(bitmap_size * _SECTOR)
    for place, number, data in stored:
        used[place // 8] |= 1 << place % 8
        rotated = 1 << 60 | (number & 0xFFF) << 48 | number >> 12
        pieces.append((backmap_at * _SECTOR + 8 * place, rotated.to_bytes(8, "little")))
        pieces.append((grains_at * _SECTOR + _GRAIN * place, data.ljust(_GRAIN, b"\0")))
    pieces.append((bitmap_at * _SECTOR, bytes(used)))
    return SparseImage(grains_at * _SECTOR + _GRAIN * places, pieces)


def cowd_extent(grains: Mapping[int, bytes], sectors: int, *, grain_sectors: int = 1) -> SparseImage:
    """A COWD extent.

    Vouched for by ``qemu-img`` and dissect.hypervisor: ``tests/test_esx_extents.py``.

    Args:
        grains: Data of each grain that the extent holds, by number, in the order in which they are stored.
        sectors: Capacity in sectors.
        grain_sectors: Sectors in a grain.
    """
    tables = -(-sectors // (grain_sectors * _PER_TABLE))
    directory_at = 4
    directory_size = -(-4 * tables // _SECTOR)
    numbers = sorted({number // _PER_TABLE for number in grains})
    at = directory_at + directory_size
    table_at = {number: at + 4 * _PER_TABLE // _SECTOR * count for count, number in enumerate(numbers)}
    at += 4 * _PER_TABLE // _SECTOR * len(numbers)
    places = {number: at + grain_sectors * count for count, number in enumerate(grains)}
    end = at + grain_sectors * len(grains)
    header = cowd.CowdHeader(
        magic=cowd.MAGIC,
        version=1,
        flags=3,
        capacity=sectors,
        grain_size=grain_sectors,
        directory=directory_at,
        directory_entries=tables,
        next_free=end,
        root_or_child=bytes(1028),
        generation=0,
        name=bytes(60),
        description=bytes(512),
        saved_generation=0,
        reserved=bytes(8),
        unclean_shutdown=0,
        padding=bytes(396),
    )
    pieces = [(0, header.build())]
    for number, sector in table_at.items():
        pieces.append((directory_at * _SECTOR + 4 * number, sector.to_bytes(4, "little")))
        table = (places.get(number * _PER_TABLE + index, 0).to_bytes(4, "little") for index in range(_PER_TABLE))
        pieces.append((sector * _SECTOR, b"".join(table)))
    size = grain_sectors * _SECTOR
    pieces += [(places[number] * _SECTOR, data.ljust(size, b"\0")) for number, data in grains.items()]
    return SparseImage(end * _SECTOR, pieces)


def vmdk_descriptor(
    extents: Iterable[str],
    create_type: str,
    *,
    content_id: int = 0x1234ABCD,
    parent: tuple[str, int] | None = None,
) -> bytes:
    """A VMDK descriptor, without empty lines, behind which QEMU would find an extent twice.

    Vouched for by ``qemu-img`` and dissect.hypervisor: ``tests/test_esx_extents.py``.

    Args:
        extents: Lines about the extents, such as ``RW 8 SESPARSE "a-sesparse.vmdk"``.
        create_type: Type of the disk, such as "seSparse".
        content_id: Content id.
        parent: Name and content id of the disk that it rests on; None for none.
    """
    name, parent_id = ("", _NO_PARENT) if parent is None else parent
    lines = ["# Disk DescriptorFile", "version=1", f"CID={content_id:08x}", f"parentCID={parent_id:08x}"]
    lines.append(f'createType="{create_type}"')
    if parent is not None:
        lines.append(f'parentFileNameHint="{name}"')
    return "\n".join((*lines, "# Extent description", *extents, 'ddb.adapterType = "lsilogic"', "")).encode()
