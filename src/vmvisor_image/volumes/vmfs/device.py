"""One device of a VMFS volume: its headers, even if some are lost, and the parts of the volume on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.record import Record
from vmvisor_image.schemas.vmfs import (
    EXTENT_BITMAP_LENGTH,
    EXTENT_BITMAP_OFFSET,
    EXTENT_SIZE,
    EXTENTS_PER_TABLE,
    FILE_SYSTEM_MAGICS,
    FILE_SYSTEM_OFFSET,
    LOCAL_FILE_SYSTEM_MAGICS,
    LVM_MAGIC,
    LVM_OFFSET,
    USUAL_DATA_OFFSET,
    VOLUME_TABLE_OFFSET,
    FileSystemDescriptor,
    LvmDevice,
    LvmExtendedMetadata,
    LvmVolume,
    PhysicalExtent,
    vmfs_uuid,
)
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.views import Slice
from vmvisor_image.volumes.vmfs.geometry import by_file_system, by_volume_manager
from vmvisor_image.volumes.vmfs.lvm import Segment
from vmvisor_image.volumes.vmfs.resources import Report

_Structure = TypeVar("_Structure", bound=Record)

MAGIC_BYTES: Final = LVM_MAGIC.to_bytes(4, "little")
_VERSIONED: Final = 8
"""Bytes of the file system's descriptor up to its version."""
_LVM_IS_LOCAL: Final = 1
_MOST_DEVICES: Final = 32
_LARGEST_DEVICE: Final = 64 << 40
"""Bytes in a device; both are vSphere's configuration maximums."""


def find_magic(
    disk: ReadAt, start: int, size: int | None = None, *, is_other: Callable[[], bool] | None = None
) -> tuple[int, bytes] | None:
    """Offset and bytes of the magic of a VMFS volume's device, or of a file system without the volume manager.

    Args:
        disk: The decoded disk.
        start: First byte of the partition.
        size: Bytes in the partition; None for those up to the disk's end.
        is_other: Function that tells whether another format begins at the start. Unless one does, the volume is also
            looked for 19 MiB after the start, its place on all known devices, as where the volume manager's header is
            lost.
    """

    def read(offset: int, length: int) -> bytes:
        return b"" if size is not None and size < offset + length else read_up_to(disk, start + offset, length)

    magic = read(LVM_OFFSET, LvmDevice.length())[: len(MAGIC_BYTES)]
    if magic == MAGIC_BYTES:
        return LVM_OFFSET, magic
    # As in libblkid, which takes the magic of VMFS 3; the version is also checked, as four bytes are few.
    magics = [value.to_bytes(4, "little") for value in FILE_SYSTEM_MAGICS + LOCAL_FILE_SYSTEM_MAGICS]
    for begin in (0,) if is_other is None else (0, USUAL_DATA_OFFSET):
        found = read(begin + FILE_SYSTEM_OFFSET, _VERSIONED)
        if found[:4] in magics and by_file_system(int.from_bytes(found[4:], "little")):
            # Another format that begins at the start may have any bytes 19 MiB after it.
            is_something_else = begin > 0 and is_other is not None and is_other()
            return None if is_something_else else (begin + FILE_SYSTEM_OFFSET, found[:4])
    return None


class VmfsDevice:
    """A device: a partition with a VMFS volume or a part of one."""

    def __init__(self, disk: ReadAt, start: int, size: int, report: Report) -> None:
        """A device by the headers of the partition of `size` bytes from byte `start` of `disk`.

        Raises:
            CorruptImage: The volume manager's header can't be read.
        """
        self.disk = disk
        """Disk that contains the device."""
        self.start = start
        """First byte of the partition."""
        self.size = size
        """Bytes in the partition."""
        self.source = Slice(disk, start, size, "VMFS partition")
        """Bytes of the partition."""
        self._report = report
        self._extents: tuple[PhysicalExtent, ...] | None = None
        self.header = self._read_header()
        """Header of the volume manager; without one zeros, except for the offset of the volume."""
        self.volume = self._read_volume()
        """Entry of the volume table; None where there is none or it can't be read."""
        self.file_system = self._read_file_system()
        """Descriptor of the file system; None on a device without the volume's start."""
        self._check()

    @property
    def kind(self) -> str:
        """Generation: "vmfs3", "vmfs5", "vmfs6", "vmfs-l", or "vmfs" for an unknown version."""
        if self.file_system is not None:
            if self.file_system.magic in LOCAL_FILE_SYSTEM_MAGICS:
                return "vmfs-l"
            generation = by_file_system(self.file_system.major_version)
        else:
            generation = by_volume_manager(self.header.major_version)
            if self.header.flags & _LVM_IS_LOCAL and self.header.major_version == 6:
                return "vmfs-l"
        return "vmfs" if generation is None else generation.kind

    @property
    def has_volume_manager(self) -> bool:
        """Whether the volume manager's header exists; a file system may be in a partition or file without it."""
        return self.header.magic == LVM_MAGIC

    @property
    def extents(self) -> tuple[PhysicalExtent, ...]:
        """Used physical extents of this device."""
        if self._extents is None:
            self._extents = self._read_extents()
        return self._extents

    def segments(self) -> list[Segment]:
        """Parts of the volume on this device, one after the other unless its table says otherwise."""
        volume, begin = self.volume, self.header.data_offset
        if volume is None:  # without the volume manager, or its table: this device has all
            length = max(self.size - begin, 0) if self.file_system is not None else 0
            return [Segment(0, length, self.disk, self.start + begin)] if length else []
        first = volume.first_extent * EXTENT_SIZE
        table = [extent for extent in self.extents if extent.size]
        if any(extent.physical_offset - begin != extent.logical_offset - first for extent in table):
            return [
                Segment(extent.logical_offset, extent.size, self.disk, self.start + extent.physical_offset)
                for extent in table
            ]
        length = min((volume.last_extent - volume.first_extent + 1) * EXTENT_SIZE, max(self.size - begin, 0))
        return [Segment(first, length, self.disk, self.start + begin)] if length else []

    def _read_header(self) -> LvmDevice:
        found = LvmDevice.parse(self.source.read_at(LVM_OFFSET, LvmDevice.length()), base=self.start + LVM_OFFSET)
        if found.magic == LVM_MAGIC:
            return found
        at = find_magic(self.disk, self.start, self.size, is_other=lambda: False)
        begin = FILE_SYSTEM_OFFSET if at is None else at[0]
        zeros = LvmDevice.parse(bytes(LvmDevice.length()), base=self.start)
        return replace(zeros, data_offset=begin - FILE_SYSTEM_OFFSET)

    def _read_volume(self) -> LvmVolume | None:
        device = self.header
        if not self.has_volume_manager:
            return None
        behind = VOLUME_TABLE_OFFSET if device.major_version < 6 else device.metadata_alignment
        offset = LVM_OFFSET + max(behind, VOLUME_TABLE_OFFSET)
        found = self._record(LvmVolume, offset)
        if found is None:
            return None
        if not any(found.raw):
            self._note(offset, "LVM volume table", "it has no volume")
            return None
        wrong = _contradiction(device, found)
        if wrong is not None:
            read = "what is here is read as a volume of this device alone, if the file system starts on it"
            self._note(offset, "LVM volume table", f"it is not valid: {wrong}; {read}")
            return None
        return found

    def _read_file_system(self) -> FileSystemDescriptor | None:
        if self.volume is not None and self.volume.first_extent != 0:
            return None  # the volume begins on another device
        offset = self.header.data_offset + FILE_SYSTEM_OFFSET
        found = self._record(FileSystemDescriptor, offset)
        if found is None:
            return None
        magics = FILE_SYSTEM_MAGICS + LOCAL_FILE_SYSTEM_MAGICS
        if found.magic not in magics:
            message = f"magic: expected {' or '.join(map(hex, magics))}, found {found.magic:#x}"
            self._note(offset, "VMFS file system descriptor", message)
            return None
        return found

    def _check(self) -> None:
        device, volume, file_system = self.header, self.volume, self.file_system
        if self.has_volume_manager and by_volume_manager(device.major_version) is None:
            self._note(LVM_OFFSET + 4, "LVM device header", f"version {device.major_version} is not known")
        if not self.has_volume_manager and device.data_offset:
            message = f"it is lost; a volume of this device alone is read from byte {device.data_offset:#x} on"
            self._note(LVM_OFFSET, "LVM device header", message)
        if device.total_bytes > self.size:
            message = f"the device has {device.total_bytes} bytes, its partition {self.size}"
            self._note(LVM_OFFSET + 0x5E, "LVM device header", message)
        if volume is not None and file_system is not None and file_system.volume_uuid != volume.uuid:
            message = (
                f"it was made on volume {vmfs_uuid(file_system.volume_uuid)} and is on {vmfs_uuid(volume.uuid)}:"
                " a copy or a snapshot"
            )
            self._note(device.data_offset + FILE_SYSTEM_OFFSET + 0xB1, "VMFS file system descriptor", message)

    def _read_extents(self) -> tuple[PhysicalExtent, ...]:
        count = total = max(self.header.extent_count, self.header.extent_count_6)
        found: list[PhysicalExtent] = []
        for offset in self._extent_tables():
            if count <= 0:
                break
            length = min(count, EXTENTS_PER_TABLE) * PhysicalExtent.length()
            count -= EXTENTS_PER_TABLE
            try:
                data = self.source.read_at(offset, length)
            except CorruptImage as error:
                self._report(Problem.of(error))
                continue
            found += [entry for entry in PhysicalExtent.parse_all(data, base=self.start + offset) if entry.is_used]
        if count > 0:
            self._note(
                LVM_OFFSET + 0x6A, "LVM device header", f"its tables have no room for {count} of {total} extents"
            )
        return tuple(found)

    def _extent_tables(self) -> Iterator[int]:
        """Bytes from the partition's start to each table of extents."""
        device = self.header
        if device.major_version < 6:
            yield LVM_OFFSET + VOLUME_TABLE_OFFSET + EXTENT_BITMAP_OFFSET + EXTENT_BITMAP_LENGTH
            return
        bitmap = max(device.metadata_alignment, EXTENT_BITMAP_LENGTH)
        base, maps, following = LVM_OFFSET, device.extent_map_count, device.extended_metadata_offset
        seen = {base}
        while True:
            table = base + max(device.metadata_alignment, VOLUME_TABLE_OFFSET) + EXTENT_BITMAP_OFFSET + bitmap
            step = bitmap + EXTENTS_PER_TABLE * PhysicalExtent.length()
            yield from range(table, min(table + maps * step, self.size), step)
            if not following or following in seen:
                return
            base = following
            seen.add(base)
            more = self._record(LvmExtendedMetadata, base)
            if more is None:
                return
            if more.magic != LVM_MAGIC:
                self._note(base, "LVM extended metadata", f"magic: expected {LVM_MAGIC:#x}, found {more.magic:#x}")
                return
            maps, following = more.extent_map_count, more.next_offset

    def _record(self, kind: type[_Structure], offset: int) -> _Structure | None:
        """Record at byte `offset` of the device; None, and a problem, where the image is damaged there."""
        try:
            data = self.source.read_at(offset, kind.length())
        except CorruptImage as error:
            self._report(Problem.of(error))
            return None
        return kind.parse(data, base=self.start + offset)

    def _note(self, offset: int, structure: str, message: str) -> None:
        self._report(Problem(structure, message, self.start + offset))


def _contradiction(device: LvmDevice, volume: LvmVolume) -> str | None:
    """Impossible statement of a volume table's entry, alone or with its device's header, in words; None without one."""
    extents = volume.last_extent + 1 - volume.first_extent
    if not 0 < volume.device_count <= _MOST_DEVICES:
        return f"{volume.device_count} devices"
    if extents <= 0 or extents * EXTENT_SIZE > device.total_bytes:
        return f"extents {volume.first_extent} to {volume.last_extent} on a device of {device.total_bytes} bytes"
    if not extents * EXTENT_SIZE <= volume.size <= volume.device_count * _LARGEST_DEVICE:
        return f"{volume.size} bytes on {volume.device_count} devices, of which this one has {extents} extents"
    if volume.device_count == 1 and volume.size > device.total_bytes:
        return f"{volume.size} bytes on a device of {device.total_bytes}"
    return None
