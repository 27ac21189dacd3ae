"""VMFS volumes by their headers: what they are, which part of them lies here, who uses them. Files are not read yet."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.record import Record
from vmvisor_image.schemas.vmfs import (
    EXTENT_TABLE_OFFSET,
    EXTENTS_PER_TABLE,
    FILE_SYSTEM_MAGIC,
    FILE_SYSTEM_OFFSET,
    HEARTBEAT_ACTIVE,
    HEARTBEAT_OFFSET,
    LOCAL_FILE_SYSTEM_MAGIC,
    LVM_MAGIC,
    LVM_OFFSET,
    VOLUME_TABLE_OFFSET,
    FileSystemDescriptor,
    Heartbeat,
    LvmDevice,
    LvmVolume,
    PhysicalExtent,
    vmfs_uuid,
)
from vmvisor_image.streams import ReadAt, Slice, read_up_to

MAGIC_BYTES: Final = LVM_MAGIC.to_bytes(4, "little")
_GENERATIONS: Final = {4: "vmfs3", 14: "vmfs5", 24: "vmfs6"}
"""By `FileSystemDescriptor.major_version`."""
_LVM_GENERATIONS: Final = {3: "vmfs3", 5: "vmfs5", 6: "vmfs6"}
"""By `LvmDevice.major_version`, for a device that does not hold the file system's descriptor."""
_LVM_IS_LOCAL: Final = 1
_HEARTBEAT_SLOTS: Final = {"vmfs3": (2048, 512), "vmfs5": (2048, 512), "vmfs6": (1024, 4096)}
"""Number of slots and bytes in each."""
LARGEST_HEADER: Final = LVM_OFFSET + LvmDevice.length()
"""Bytes of a partition up to the end of the header by which a device is known."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def probe(disk: ReadAt, start: int, size: int) -> bool:
    """Whether the partition of `size` bytes from byte `start` of `disk` is a device of a VMFS volume."""
    if size < LARGEST_HEADER:
        return False
    return read_up_to(disk, start + LVM_OFFSET, len(MAGIC_BYTES)) == MAGIC_BYTES


@dataclass(frozen=True, slots=True)
class ActiveHost:
    """A host whose heartbeat says that it uses the volume."""

    uuid: str
    """The host's UUID."""
    address: str | None
    """Its IP address, where it is given."""
    slot: int
    """Number of the heartbeat, from 0."""
    offset: int
    """Where the heartbeat lies, in bytes from the start of the decoded disk."""


class VmfsVolume:
    """One device of a VMFS volume, by its headers."""

    def __init__(self, disk: ReadAt, start: int, size: int) -> None:
        """Read the headers of the partition of `size` bytes from byte `start` of `disk`.

        Raises:
            CorruptImage: The volume manager's header can't be read.
        """
        self._start, self._size = start, size
        self._source = Slice(disk, start, size, "VMFS partition")
        self._lock = threading.Lock()
        self._problems: dict[Problem, None] = {}
        self._hosts: tuple[ActiveHost, ...] | None = None
        self._extents: tuple[PhysicalExtent, ...] | None = None
        self.device = self._read(LvmDevice, LVM_OFFSET)
        """The volume manager's header."""
        self.volume = self._read_volume()
        """Its entry of the volume table; None where it can't be read."""
        self.file_system = self._read_file_system()
        """The file system's descriptor; None on a device that does not hold the volume's start."""
        self._check()

    @property
    def kind(self) -> str:
        """Its generation: "vmfs3", "vmfs5", "vmfs6", "vmfs-l", or "vmfs" where the version is none of these."""
        if self.file_system is not None:
            if self.file_system.magic == LOCAL_FILE_SYSTEM_MAGIC:
                return "vmfs-l"
            return _GENERATIONS.get(self.file_system.major_version, "vmfs")
        if self.device.flags & _LVM_IS_LOCAL and self.device.major_version == 6:
            return "vmfs-l"
        return _LVM_GENERATIONS.get(self.device.major_version, "vmfs")

    @property
    def version(self) -> str | None:
        """The file system's version as ESX shows it, such as "3.31"; None where this device does not hold it."""
        found = self.file_system
        if found is None:
            return None
        generation = {4: 3, 14: 5, 24: 6}.get(found.major_version, found.major_version)
        return f"{generation}.{found.minor_version}"

    @property
    def label(self) -> str | None:
        """The datastore's name."""
        return None if self.file_system is None else _text(self.file_system.label) or None

    @property
    def uuid(self) -> str | None:
        """The file system's UUID, as in ``/vmfs/volumes``."""
        return None if self.file_system is None else vmfs_uuid(self.file_system.uuid)

    @property
    def volume_uuid(self) -> str | None:
        """The UUID of the volume that the device belongs to."""
        return None if self.volume is None else vmfs_uuid(self.volume.uuid)

    @property
    def block_size(self) -> int | None:
        """Bytes in a file block."""
        return None if self.file_system is None else self.file_system.file_block_size

    @property
    def capacity(self) -> int | None:
        """Bytes in the whole volume, over all its devices."""
        return None if self.volume is None else self.volume.size

    @property
    def created(self) -> datetime | None:
        """When the file system was made, in UTC."""
        return None if self.file_system is None else _EPOCH + timedelta(seconds=self.file_system.created)

    @property
    def device_count(self) -> int | None:
        """How many devices make up the volume."""
        return None if self.volume is None else self.volume.device_count

    @property
    def is_first_device(self) -> bool | None:
        """Whether this device holds the volume's start, where the file system is."""
        return None if self.volume is None else self.volume.first_extent == 0

    @property
    def extents(self) -> tuple[PhysicalExtent, ...]:
        """The used physical extents of this device; of LVM 3 and 5, () of LVM 6, whose table is not documented."""
        if self._extents is None:
            self._extents = self._read_extents()
        return self._extents

    @property
    def active_hosts(self) -> tuple[ActiveHost, ...]:
        """The hosts that used the volume when the image was made; reads 1 MiB, or 4 MiB of VMFS 6."""
        if self._hosts is None:
            self._hosts = self._read_heartbeats()
        return self._hosts

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        return tuple(self._problems)

    @property
    def records(self) -> Mapping[str, Record]:
        """The headers as they are on disk, by their names."""
        found: dict[str, Record | None] = {
            "LVM device header": self.device,
            "LVM volume table entry": self.volume,
            "VMFS file system descriptor": self.file_system,
        }
        return {name: record for name, record in found.items() if record is not None}

    @property
    def facts(self) -> Mapping[str, str]:
        """What the headers say, in words."""
        device, volume = self.device, self.volume
        found: dict[str, object] = {
            "version": self.version,
            "label": self.label,
            "file system UUID": self.uuid,
            "created": None if self.created is None else self.created.isoformat(" "),
            "block size": None if self.block_size is None else f"{self.block_size} bytes",
            "volume UUID": self.volume_uuid,
            "capacity": None if self.capacity is None else f"{self.capacity} bytes",
            "devices": self.device_count,
            "device UUID": vmfs_uuid(device.device_uuid),
            "made on": " ".join(filter(None, map(_text, (device.vendor, device.model, device.disk_id)))) or None,
        }
        if volume is not None and volume.device_count > 1:
            found["this device"] = f"extents {volume.first_extent} to {volume.last_extent} of the volume"
        return {name: str(value) for name, value in found.items() if value is not None}

    def _read(self, kind: type[LvmDevice], offset: int) -> LvmDevice:
        return kind.parse(self._source.read_at(offset, kind.length()), base=self._start + offset)

    def _read_volume(self) -> LvmVolume | None:
        device = self.device
        behind = VOLUME_TABLE_OFFSET if device.major_version < 6 else device.metadata_alignment
        offset = LVM_OFFSET + max(behind, VOLUME_TABLE_OFFSET)
        try:
            data = self._source.read_at(offset, LvmVolume.length())
        except CorruptImage as error:
            self._problems.setdefault(Problem.of(error))
            return None
        found = LvmVolume.parse(data, base=self._start + offset)
        if not any(data):
            self._note(offset, "LVM volume table", "it has no volume")
            return None
        return found

    def _read_file_system(self) -> FileSystemDescriptor | None:
        if self.volume is not None and self.volume.first_extent != 0:
            return None  # the volume begins on another device
        offset = self.device.data_offset + FILE_SYSTEM_OFFSET
        try:
            data = self._source.read_at(offset, FileSystemDescriptor.length())
        except CorruptImage as error:
            self._problems.setdefault(Problem.of(error))
            return None
        found = FileSystemDescriptor.parse(data, base=self._start + offset)
        if found.magic not in (FILE_SYSTEM_MAGIC, LOCAL_FILE_SYSTEM_MAGIC):
            message = f"magic: expected {FILE_SYSTEM_MAGIC:#x} or {LOCAL_FILE_SYSTEM_MAGIC:#x}, found {found.magic:#x}"
            self._note(offset, "VMFS file system descriptor", message)
            return None
        return found

    def _check(self) -> None:
        device, volume, file_system = self.device, self.volume, self.file_system
        if device.major_version not in _LVM_GENERATIONS:
            self._note(LVM_OFFSET + 4, "LVM device header", f"version {device.major_version} is not known")
        if device.total_bytes > self._size:
            message = f"the device has {device.total_bytes} bytes, its partition {self._size}"
            self._note(LVM_OFFSET + 0x5E, "LVM device header", message)
        if volume is not None and file_system is not None and file_system.volume_uuid != volume.uuid:
            message = (
                f"it was made on volume {vmfs_uuid(file_system.volume_uuid)} and is on {vmfs_uuid(volume.uuid)}:"
                " a copy or a snapshot"
            )
            self._note(device.data_offset + FILE_SYSTEM_OFFSET + 0xB1, "VMFS file system descriptor", message)

    def _read_extents(self) -> tuple[PhysicalExtent, ...]:
        device = self.device
        if device.major_version >= 6:
            return ()
        offset = LVM_OFFSET + EXTENT_TABLE_OFFSET
        count = min(device.extent_count, EXTENTS_PER_TABLE)
        try:
            data = self._source.read_at(offset, count * PhysicalExtent.length())
        except CorruptImage as error:
            self._problems.setdefault(Problem.of(error))
            return ()
        if device.extent_count > EXTENTS_PER_TABLE:
            message = f"{device.extent_count} extents, but its table has room for {EXTENTS_PER_TABLE}"
            self._note(LVM_OFFSET + 0x6A, "LVM device header", message)
        return tuple(entry for entry in PhysicalExtent.parse_all(data, base=self._start + offset) if entry.is_used)

    def _read_heartbeats(self) -> tuple[ActiveHost, ...]:
        if self.file_system is None:
            return ()
        generation = _GENERATIONS.get(self.file_system.major_version, "vmfs6")
        slots, slot_size = _HEARTBEAT_SLOTS[generation]
        offset = self.device.data_offset + HEARTBEAT_OFFSET
        try:
            data = self._source.read_at(offset, slots * slot_size)
        except CorruptImage as error:
            self._problems.setdefault(Problem.of(error))
            return ()
        active = HEARTBEAT_ACTIVE.to_bytes(4, "little")
        found = []
        for slot in range(slots):
            at = slot * slot_size
            if data[at : at + 4] == active:
                beat = Heartbeat.parse(data, at, base=self._start + offset)
                found.append(
                    ActiveHost(vmfs_uuid(beat.owner), _text(beat.address) or None, slot, self._start + offset + at)
                )
        return tuple(found)

    def _note(self, offset: int, structure: str, message: str) -> None:
        self._problems.setdefault(Problem(structure, message, self._start + offset))


def _text(raw: bytes) -> str:
    """Text that ends at its first NUL, or is padded with spaces."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
