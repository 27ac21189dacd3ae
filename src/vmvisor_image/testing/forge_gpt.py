"""Disks with a GUID partition table, of ESXi 5 to 8 among them; see `vmvisor_image.testing.forge` for the others.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID, uuid5

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.schemas.gpt import LEGACY_BOOTABLE, REVISION, SHIPPED_BACKUP_LBA, SIGNATURE, GptEntry, GptHeader
from vmvisor_image.schemas.mbr import SIGNATURE as MBR_SIGNATURE
from vmvisor_image.schemas.mbr import MasterBootRecord, PartitionEntry
from vmvisor_image.schemas.partition_types import BASIC_DATA, EFI_SYSTEM, MBR_GPT, VMFS, VMFS_L, VMKCORE
from vmvisor_image.testing.forge import SparseImage, Tree, fat_volume
from vmvisor_image.testing.forge_vmfs import vmfs_headers

_NAMESPACE: Final = UUID("6f1d2a6c-7c52-4f2e-9a1b-7d3a5e0c4b11")
"""Namespace of identifiers, which are made of it and a name, so that the same disk results each time."""
_ENTRIES: Final = 128
_SHIPPED_FIRST: Final = 64
"""First usable sector in shipped disk heads."""
_UNUSED: Final = PartitionEntry(0, bytes(3), 0, bytes(3), 0, 0)


@dataclass(frozen=True, slots=True)
class GptPartition:
    """A partition to put on a disk."""

    number: int
    """Number of its slot, from 1."""
    type_guid: UUID
    first_lba: int
    """First sector, in sectors of the disk."""
    sectors: int
    """Size in sectors of the disk."""
    name: str = ""
    attributes: int = 0
    content: SparseImage | None = field(default=None, compare=False)


def gpt_disk(
    partitions: Sequence[GptPartition],
    *,
    sectors: int,
    sector_size: int = 512,
    hybrid: Sequence[PartitionEntry] = (),
    as_shipped: bool = False,
) -> SparseImage:
    """A disk with a protective master boot record and both copies of the table, of 128 entries each.

    Vouched for by ``sgdisk`` and ``sfdisk``: ``tests/test_gpt.py``. Of `as_shipped` by the head of a dd image
    (``gptstart``) that the installer of ESXi 6.7 ships, whose fields were read and are in the schema; sgdisk reads
    the same partitions from it.

    Args:
        partitions: In any order.
        sectors: Size of the disk.
        sector_size: 512 or 4096 bytes.
        hybrid: Up to three further entries of the master boot record.
        as_shipped: Both headers in the head of the disk, with one array of entries, as in the dd images of ESXi's
            installers, which are made without their disk: the last 34 sectors have nothing of the table.

    Raises:
        InvalidArgument: A number is taken twice or above 128, or content does not fit its partition.
    """
    numbers = {partition.number for partition in partitions}
    if len(numbers) != len(partitions) or not all(1 <= number <= _ENTRIES for number in numbers) or len(hybrid) > 3:
        raise InvalidArgument(
            "partition numbers must differ and be 1 to 128, and a hybrid record has three free entries"
        )
    table = bytearray(_ENTRIES * GptEntry.length())
    for partition in partitions:
        at = (partition.number - 1) * GptEntry.length()
        table[at : at + GptEntry.length()] = _entry(partition).build()
    entry_sectors = -(-len(table) // sector_size)
    header = GptHeader(
        signature=SIGNATURE,
        revision=REVISION,
        header_size=GptHeader.length(),
        header_crc=0,
        reserved=0,
        my_lba=1,
        alternate_lba=sectors - 1,
        first_usable_lba=2 + entry_sectors,
        last_usable_lba=sectors - 2 - entry_sectors,
        disk_guid=uuid5(_NAMESPACE, "disk").bytes_le,
        entries_lba=2,
        entry_count=_ENTRIES,
        entry_size=GptEntry.length(),
        entries_crc=zlib.crc32(table),
    )
    backup = replace(header, my_lba=sectors - 1, alternate_lba=1, entries_lba=sectors - 1 - entry_sectors)
    if as_shipped:
        header = replace(
            header, alternate_lba=SHIPPED_BACKUP_LBA, first_usable_lba=_SHIPPED_FIRST, last_usable_lba=sectors - 1
        )
        backup = replace(header, my_lba=SHIPPED_BACKUP_LBA, alternate_lba=1)
    protective = PartitionEntry(0, b"\0\x02\0", MBR_GPT, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    record = MasterBootRecord(
        boot_code=bytes(440),
        disk_signature=0,
        reserved=0,
        entries=(protective, *hybrid, *[_UNUSED] * (3 - len(hybrid))),
        signature=MBR_SIGNATURE,
    )
    pieces = [
        (0, record.build()),
        (sector_size, sealed(header)),
        *((place * sector_size, bytes(table)) for place in {header.entries_lba, backup.entries_lba}),
        (backup.my_lba * sector_size, sealed(backup)),
    ]
    for partition in partitions:
        if partition.content is not None:
            if partition.content.size > partition.sectors * sector_size:
                raise InvalidArgument(f"the content of partition {partition.number} is larger than it")
            start = partition.first_lba * sector_size
            pieces += [(start + offset, data) for offset, data in partition.content.pieces]
    return SparseImage(sectors * sector_size, pieces)


def sealed(header: GptHeader) -> bytes:
    """A header's bytes, with its CRC."""
    return replace(header, header_crc=zlib.crc32(replace(header, header_crc=0).build())).build()


def _entry(partition: GptPartition) -> GptEntry:
    name = partition.name.encode("utf-16-le")
    if len(name) > 72:
        raise InvalidArgument(f"a name has at most 36 characters, not {partition.name!r}")
    return GptEntry(
        type_guid=partition.type_guid.bytes_le,
        partition_guid=uuid5(_NAMESPACE, str(partition.number)).bytes_le,
        first_lba=partition.first_lba,
        last_lba=partition.first_lba + partition.sectors - 1,
        attributes=partition.attributes,
        name=name.ljust(72, b"\0"),
    )


MARKER: Final = bytes.fromhex("7f4d2f1c0a5b4c3d8e9f101112131415")
"""UUID of the first boot bank."""


def esx5_disk(
    *, boot: Tree, bank: Tree, alternate_bank: Tree | None = None, store: Tree | None = None, with_scratch: bool = False
) -> SparseImage:
    """A disk as the installer of ESXi 5 and 6 makes it; without scratch, 1 GB as on a USB stick.

    Vouched for by ``sgdisk``: ``tests/test_gpt.py``.

    Args:
        boot: Content of partition 1.
        bank: Content of partition 5.
        alternate_bank: Content of partition 6.
        store: Content of partition 8.
        with_scratch: Add the second core dump partition (9), scratch (2) and a datastore (3), on a disk of 10 GiB.
    """

    def fat(first: int, sectors: int, tree: Tree | None, marker: int | None = None) -> SparseImage:
        uuid = None if marker is None else MARKER[:-1] + bytes((marker,))
        return fat_volume(tree or {}, sectors=sectors, fat_bits=16, hidden_sectors=first, marker=uuid)

    partitions = [
        GptPartition(1, EFI_SYSTEM, 64, 8128, attributes=LEGACY_BOOTABLE, content=fat(64, 8128, boot)),
        GptPartition(5, BASIC_DATA, 8224, 511968, content=fat(8224, 511968, bank, 5)),
        GptPartition(6, BASIC_DATA, 520224, 511968, content=fat(520224, 511968, alternate_bank, 6)),
        GptPartition(7, VMKCORE, 1032224, 225248),
        GptPartition(8, BASIC_DATA, 1257504, 585696, content=fat(1257504, 585696, store)),
    ]
    sectors = 2097152
    if with_scratch:
        sectors = 20971520
        scratch = fat_volume({}, sectors=8386560, fat_bits=16, hidden_sectors=7086080)
        room = sectors - 34 - 15472640
        partitions += [
            GptPartition(9, VMKCORE, 1843200, 5242880),
            GptPartition(2, BASIC_DATA, 7086080, 8386560, content=scratch),
            GptPartition(3, VMFS, 15472640, room, content=vmfs_headers("vmfs5", size=room * 512)),
        ]
    return gpt_disk(partitions, sectors=sectors)


def esx6_dd_image(*, boot: Tree, bank: Tree) -> SparseImage:
    """A dd image of ESXi 6.x in GPT mode: its disk ends with the last partition, its banks but the first are empty.

    Vouched for by ``sgdisk`` and ``sfdisk``, which read the same partitions: ``tests/test_gpt.py``. Numbers, names,
    places and headers are those of gptstart of the installer of ESXi 6.7; that the rest is FAT16 is by bootpart,
    beside it.

    Args:
        boot: Content of partition 1.
        bank: Content of partition 5.
    """

    def fat(first: int, sectors: int, tree: Tree) -> SparseImage:
        return fat_volume(tree, sectors=sectors, fat_bits=16, hidden_sectors=first, marker=MARKER[:-1] + b"\5")

    partitions = (
        GptPartition(1, EFI_SYSTEM, 64, 8128, "BOOT", LEGACY_BOOTABLE, fat(64, 8128, boot)),
        GptPartition(5, BASIC_DATA, 8224, 511968, "BANK1", content=fat(8224, 511968, bank) if bank else None),
        GptPartition(6, BASIC_DATA, 520224, 511968, "BANK2"),
        GptPartition(7, VMKCORE, 1032224, 225248, "DUMP"),
        GptPartition(8, BASIC_DATA, 1257504, 585696, "STORE"),
    )
    return gpt_disk(partitions, sectors=1843200, as_shipped=True)


def esx7_disk(*, boot: Tree, bank: Tree, alternate_bank: Tree | None = None) -> SparseImage:
    """A disk as the installer of ESXi 7 and 8 makes it on small media, 8 GiB: BOOT, two banks, OSDATA.

    Vouched for by ``sgdisk``: ``tests/test_gpt.py``.

    Args:
        boot: Content of partition 1.
        bank: Content of partition 5.
        alternate_bank: Content of partition 6.
    """

    def fat(place: tuple[int, int], tree: Tree | None, label: str, marker: int | None = None) -> SparseImage:
        uuid = None if marker is None else MARKER[:-1] + bytes((marker,))
        return fat_volume(tree or {}, sectors=place[1], label=label, fat_bits=16, hidden_sectors=place[0], marker=uuid)

    places: Mapping[int, tuple[int, int]] = {1: (64, 204800), 5: (208896, 2097152), 6: (2308096, 2097152)}
    osdata = 16777216 - 34 - 4407296
    return gpt_disk(
        (
            GptPartition(1, EFI_SYSTEM, *places[1], "BOOT", LEGACY_BOOTABLE, fat(places[1], boot, "BOOT")),
            GptPartition(5, BASIC_DATA, *places[5], "BOOTBANK1", content=fat(places[5], bank, "BOOTBANK1", 5)),
            GptPartition(
                6, BASIC_DATA, *places[6], "BOOTBANK2", content=fat(places[6], alternate_bank, "BOOTBANK2", 6)
            ),
            GptPartition(
                7, VMFS_L, 4407296, osdata, "OSDATA", content=vmfs_headers("vmfs-l", size=osdata * 512, label="OSDATA")
            ),
        ),
        sectors=16777216,
    )
