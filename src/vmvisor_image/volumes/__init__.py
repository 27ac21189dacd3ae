"""What a partition may hold: one module each, which says whether it recognises the content and opens it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files import Extent, FileHome, FileTree
from vmvisor_image.record import Record
from vmvisor_image.signatures import Match, match_signature
from vmvisor_image.streams import ReadAt, read_up_to


class Volume(Protocol):
    """A partition's content."""

    @property
    def kind(self) -> str:
        """Its name in `Partition.kind`."""
        ...

    @property
    def label(self) -> str | None:
        """Its label, or None."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """Its headers as they are on disk, by their names."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What its headers say, in words."""
        ...


class FileVolume(Volume, Protocol):
    """A volume whose files this library reads."""

    @property
    def files(self) -> FileTree:
        """Its files."""
        ...

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`."""
        ...


def has_files(volume: Volume | None) -> TypeGuard[FileVolume]:
    """Whether it is a `FileVolume`; asks for none of its properties, some of which read much."""
    return hasattr(volume, "locate")


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
    from vmvisor_image.volumes import fat, vmfs

    try:
        head = read_up_to(disk, start, fat.BOOT_SECTOR)
        if fat.is_boot_sector(head):
            return Match("fat", "FAT volume", 0, head[:3], "volume")
        found = vmfs.find_magic(disk, start, may_be_lost=is_vmfs)
        if found is not None:
            return Match("vmfs", "VMFS volume", *found, "volume")
    except CorruptImage:
        return match_signature(disk, start)
    return match_signature(disk, start)
