"""Which volume a partition holds: the built-in types, in the order in which they are asked."""

from __future__ import annotations

from vmvisor_image.errors import CorruptImage
from vmvisor_image.files import FileHome
from vmvisor_image.signatures import Match, match_signature
from vmvisor_image.streams import ReadAt, read_up_to
from vmvisor_image.volumes.volume import Volume


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome, *, is_vmfs: bool = False) -> Volume | None:
    """The volume in the partition of `size` bytes from byte `start` of `disk`, or None when none is recognised.

    Reads its first sector and, where that is no boot sector of FAT, a few bytes 32 KiB, 1 MiB and 2 MiB behind it.

    Args:
        disk: The decoded disk.
        start: First byte of the partition.
        size: Bytes in it.
        home: What its files lie in.
        is_vmfs: Whether its type may be VMFS: then VMFS whose first headers are lost is looked for, 19 MiB behind it.

    Raises:
        CorruptImage: A volume is recognised and can't be opened.
        TruncatedImage: The disk ends before the partition's first bytes.
    """
    from vmvisor_image.volumes import fat, iso9660, vmfs

    if fat.probe(disk, start, size):
        return fat.FatVolume(disk, start, size, home)
    if size > iso9660.MAGIC_OFFSET and iso9660.probe(disk, start):
        return iso9660.IsoVolume(disk, start, home)
    if vmfs.probe(disk, start, size, may_be_lost=is_vmfs):
        return vmfs.VmfsVolume(disk, start, size, home)
    return None


def recognise(disk: ReadAt, start: int, *, is_vmfs: bool = False) -> Match | None:
    """What begins at byte `start` of `disk`, by its magic; None where nothing is recognised.

    Opens nothing; tells FAT and VMFS without the detail that opening them gives. See `open_volume` for `is_vmfs`.
    """
    from vmvisor_image.volumes import fat, vmfs_device

    try:
        head = read_up_to(disk, start, fat.BOOT_SECTOR)
        if fat.is_boot_sector(head):
            return Match("fat", "FAT volume", 0, head[:3], "volume")
        found = vmfs_device.find_magic(disk, start, may_be_lost=is_vmfs)
        if found is not None:
            return Match("vmfs", "VMFS volume", *found, "volume")
    except CorruptImage:
        return match_signature(disk, start)
    return match_signature(disk, start)
