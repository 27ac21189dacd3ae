"""Detection of the volume in a partition by the built-in types, and of other content by its magic."""

from __future__ import annotations

import functools
from uuid import UUID

from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.signatures import Match
from vmvisor_image.files.file import FileHome
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.fat import volume as fat
from vmvisor_image.volumes.formats import VOLUMES
from vmvisor_image.volumes.magics import match_signature
from vmvisor_image.volumes.vmfs import device as vmfs_device
from vmvisor_image.volumes.volume import Hints, Volume


def open_volume(
    disk: ReadAt, start: int, size: int, home: FileHome, *, type_key: int | UUID | None = None
) -> Volume | None:
    """Volume in the partition of `size` bytes from byte `start` of `disk`, or None when none is recognised.

    Reads its first sector and, where that is not a FAT boot sector, a few bytes 32 KiB, 1 MiB and 2 MiB after it.

    Args:
        disk: The decoded disk.
        start: First byte of the partition.
        size: Bytes in the partition.
        home: Container of its files, usually the partition.
        type_key: MBR type code or GPT type of the partition; None for a disk without a table.

    Raises:
        CorruptImage: A volume is recognised and can't be opened; or none is recognised, and one may be where the disk
            can't be read.
        TruncatedImage: The disk ends before the partition's first bytes.
    """
    hints = Hints(type_key, functools.partial(_is_known, disk, start, size))
    damage: CorruptImage | None = None
    for each in VOLUMES:
        try:
            is_it = each.probe(disk, start, size, hints)
        except CorruptImage as error:  # where another type has its magic, this one may not
            damage = damage or error
            continue
        if is_it:
            return each.open_volume(disk, start, size, home)
    if damage is not None:
        raise damage
    return None


def _is_known(disk: ReadAt, start: int, size: int | None) -> bool:
    return match_signature(disk, start, size) is not None


def recognise(disk: ReadAt, start: int, *, is_vmfs: bool = False) -> Match | None:
    """Format of the content from byte `start` of `disk`, by its magic; None where nothing is recognised.

    Opens nothing, so that FAT and VMFS are recognised without their version. With `is_vmfs`, VMFS whose first
    headers are lost is also recognised, 19 MiB after the start.
    """
    try:
        head = read_up_to(disk, start, fat.BOOT_SECTOR)
        if fat.is_boot_sector(head):
            return Match("fat", "FAT volume", 0, head[:3], "volume")
        found = vmfs_device.find_magic(
            disk, start, is_other=functools.partial(_is_known, disk, start, None) if is_vmfs else None
        )
        if found is not None:
            return Match("vmfs", "VMFS volume", *found, "volume")
    except CorruptImage:
        return match_signature(disk, start)
    return match_signature(disk, start)
