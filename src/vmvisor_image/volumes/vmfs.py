"""VMFS volumes: what they are, which part of them lies here, who uses them, and the way to their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.errors import CorruptImage, NotAFileSystem, Problem
from vmvisor_image.file_tree import FileTree
from vmvisor_image.files import Extent, File, FileHome
from vmvisor_image.forking import ForkSafeLock
from vmvisor_image.limits import check_deadline
from vmvisor_image.names import printable
from vmvisor_image.record import Record
from vmvisor_image.schemas.vmfs import (
    DISK_BLOCK,
    EXTENT_BITMAP_LENGTH,
    EXTENT_BITMAP_OFFSET,
    EXTENT_SIZE,
    EXTENTS_PER_TABLE,
    FILE_SYSTEM_MAGICS,
    FILE_SYSTEM_OFFSET,
    HEARTBEAT_ACTIVE,
    HEARTBEAT_OFFSET,
    HEARTBEATS_6,
    LOCAL_FILE_SYSTEM_MAGICS,
    LVM_MAGIC,
    LVM_OFFSET,
    USUAL_ALIGNMENT,
    USUAL_DATA_OFFSET,
    VMFS_6,
    VOLUME_TABLE_OFFSET,
    FileSystemDescriptor,
    Heartbeat,
    LvmDevice,
    LvmExtendedMetadata,
    LvmVolume,
    PhysicalExtent,
    described_disk,
    vmfs_uuid,
)
from vmvisor_image.signatures import match_signature
from vmvisor_image.streams import ReadAt, Slice, read_up_to
from vmvisor_image.volumes.vmfs_blocks import VmfsBlocks
from vmvisor_image.volumes.vmfs_check import ActiveHeartbeat, HeldLock, VmfsFigures
from vmvisor_image.volumes.vmfs_files import FileLock, RawDeviceMapping, VmfsTree, lock_in
from vmvisor_image.volumes.vmfs_geometry import Geometry
from vmvisor_image.volumes.vmfs_lvm import LogicalVolume, Segment

MAGIC_BYTES: Final = LVM_MAGIC.to_bytes(4, "little")
_GENERATIONS: Final = {4: "vmfs3", 14: "vmfs5", 24: "vmfs6"}
"""By `FileSystemDescriptor.major_version`."""
_LVM_GENERATIONS: Final = {3: "vmfs3", 5: "vmfs5", 6: "vmfs6"}
"""By `LvmDevice.major_version`, for a device that does not hold the file system's descriptor."""
_VERSIONED: Final = 8
"""Bytes of the file system's descriptor up to its version."""
_LVM_IS_LOCAL: Final = 1
_HEARTBEATS: Final = 2048
"""Slots of VMFS 3 and 5, of 512 bytes."""
_LARGEST_HEARTBEAT: Final = 1 << 16
_MOST_DEVICES: Final = 32
_LARGEST_DEVICE: Final = 64 << 40
"""Bytes; both are vSphere's configuration maximums."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def find_magic(
    disk: ReadAt, start: int, size: int | None = None, *, may_be_lost: bool = False
) -> tuple[int, bytes] | None:
    """Offset and bytes of what tells a device of a VMFS volume, or a file system without the volume manager.

    Args:
        disk: The decoded disk.
        start: First byte of the partition.
        size: Bytes in it; None for those up to the disk's end.
        may_be_lost: Look for the volume where all known devices have it, too, 19 MiB behind the start, as where the
            volume manager's header is lost.
    """

    def read(offset: int, length: int) -> bytes:
        return b"" if size is not None and size < offset + length else read_up_to(disk, start + offset, length)

    magic = read(LVM_OFFSET, LvmDevice.length())[: len(MAGIC_BYTES)]
    if magic == MAGIC_BYTES:
        return LVM_OFFSET, magic
    # As libblkid knows it, which takes the magic of VMFS 3; the version is asked for, too, as four bytes are few.
    magics = [value.to_bytes(4, "little") for value in FILE_SYSTEM_MAGICS + LOCAL_FILE_SYSTEM_MAGICS]
    for begin in (0, USUAL_DATA_OFFSET) if may_be_lost else (0,):
        found = read(begin + FILE_SYSTEM_OFFSET, _VERSIONED)
        if found[:4] in magics and int.from_bytes(found[4:], "little") in _GENERATIONS:
            # What is something else from its first bytes on may have anything 19 MiB behind them.
            is_other = begin > 0 and match_signature(disk, start, size) is not None
            return None if is_other else (begin + FILE_SYSTEM_OFFSET, found[:4])
    return None


def probe(disk: ReadAt, start: int, size: int, *, may_be_lost: bool) -> bool:
    """Whether the partition of `size` bytes from byte `start` of `disk` holds VMFS, or a part; see `find_magic`."""
    return find_magic(disk, start, size, may_be_lost=may_be_lost) is not None


@dataclass(frozen=True, slots=True)
class ActiveHost:
    """A host whose heartbeat says that it uses the volume.

    A host that is alive raises `stamp_us` every few seconds, and frees its slot when it lets the volume go. One image
    shows one moment: whether the host was alive then or had crashed before shows in a second image of the volume.
    """

    uuid: str
    """The host's UUID."""
    address: str | None
    """Its IP address, where it is given."""
    slot: int
    """Number of the heartbeat, from 0."""
    offset: int
    """Where the heartbeat lies, in bytes from the start of the decoded disk."""
    stamp_us: int
    """Microseconds since the host started, when it last showed that it was alive."""
    journal: int | None
    """Where the host's journal of what is not done yet lies, in bytes from the volume's start; None for none."""

    def __str__(self) -> str:
        return f"{self.uuid} ({self.address})" if self.address else self.uuid


def join_devices(devices: Sequence[VmfsVolume], home: FileHome) -> VmfsVolume:
    """A volume of several devices, for `home`; one that is missing costs only what lies on it.

    Raises:
        NotAFileSystem: None of them holds the file system's descriptor.
    """
    first = next((device for device in devices if device.file_system is not None), None)
    if first is None:
        raise NotAFileSystem("none of the devices holds the file system's descriptor, or it is damaged")
    return first.with_others([device for device in devices if device is not first], home)


class VmfsVolume:
    """A VMFS volume by one of its devices; see `vmvisor_image.datastore` for one with several."""

    def __init__(self, disk: ReadAt, start: int, size: int, home: FileHome, others: Sequence[VmfsVolume] = ()) -> None:
        """Read the headers of the partition of `size` bytes from byte `start` of `disk`.

        Args:
            disk: The disk.
            start: First byte of the partition.
            size: Bytes in it.
            home: What its files lie in: the partition, or the datastore where there are others.
            others: Other devices of the same volume.

        Raises:
            CorruptImage: The volume manager's header can't be read.
        """
        self._disk = disk
        self._home = home
        self._others = tuple(others)
        self._start, self._size = start, size
        self._source = Slice(disk, start, size, "VMFS partition")
        self._lock = ForkSafeLock()
        self._problems: dict[Problem, None] = {}
        self._hosts: tuple[ActiveHost, ...] | None = None
        self._extents: tuple[PhysicalExtent, ...] | None = None
        self.device = self._read_device()
        """The volume manager's header; where there is none zeros, but for where the volume begins."""
        self.volume = self._read_volume()
        """Its entry of the volume table; None where it can't be read."""
        self.file_system = self._read_file_system()
        """The file system's descriptor; None on a device that does not hold the volume's start."""
        self._check()
        self._logical: LogicalVolume | None = None
        self._readers: tuple[VmfsBlocks, VmfsTree] | None = None
        self._files: FileTree | None = None

    def with_others(self, others: Sequence[VmfsVolume], home: FileHome) -> VmfsVolume:
        """The same volume with more of its devices, for `home`."""
        return VmfsVolume(self._disk, self._start, self._size, home, others)

    @property
    def logical(self) -> LogicalVolume:
        """The volume, of which the parts are readable whose devices are there."""
        if self._logical is None:
            devices = (self, *self._others)
            segments = [segment for device in devices for segment in device.segments()]
            sizes = [device.volume.size for device in devices if device.volume is not None]
            size = sizes[0] if sizes else sum(segment.length for segment in segments)
            found = LogicalVolume(size, segments)
            if found.missing and self.volume is not None:
                why = f"{len(devices)} of {self.volume.device_count} devices are there (see open_datastore)"
                if len(devices) >= self.volume.device_count:
                    why = "what is there of its devices ends before them"
                message = f"{found.missing} of {found.size} bytes are missing; {why}"
                self._note(LVM_OFFSET, "VMFS volume", message)
            self._logical = found
        return self._logical

    @property
    def files(self) -> FileTree:
        """Its files; directories are read when they are listed.

        Raises:
            NotAFileSystem: This device does not hold the file system's descriptor.
            CorruptImage: The descriptor makes no sense.
        """
        _, tree = self._opened()
        with self._lock:
            if self._files is None:
                self._files = tree.files(self._home, lambda: self.problems)
            return self._files

    @property
    def links(self) -> Mapping[str, str]:
        """Targets of the symbolic links, by path, in the directories listed so far."""
        return dict(self._opened()[1].links)

    @property
    def raw_devices(self) -> Mapping[str, RawDeviceMapping]:
        """Raw device mappings, by path, in the directories listed so far."""
        return dict(self._opened()[1].raw_devices)

    def lock_of(self, file: File) -> FileLock | None:
        """Who held a file when the image was made; None where nobody did.

        Raises:
            CorruptImage: Its descriptor is damaged.
        """
        return self._opened()[1].lock_of(file.token)

    def check(self) -> VmfsFigures:
        """Hold the bitmap of file blocks against the files; lists every directory.

        Raises:
            NotAFileSystem: This device does not hold the file system's descriptor.
            CorruptImage: A structure of the system's can't be read.
            LimitExceeded: There are too many files.
        """
        blocks, tree = self._opened()
        files = list(self.files.all_files())
        block_size = self.block_size or 1
        used = blocks.resources.used_blocks()
        reached = bytearray(self.logical.size // block_size + 1)
        names: dict[int, list[str]] = {address: [] for address in tree.addresses}
        for file in files:
            names.setdefault(file.token, []).append(file.path)
        locks: list[HeldLock] = []
        for address, paths in names.items():
            check_deadline()
            try:
                descriptor = blocks.resources.descriptor(address)
                lock = lock_in(descriptor)
                if lock is not None:
                    locks += [HeldLock(path, lock.mode, lock.owner) for path in paths]
                for start, length in blocks.extents(descriptor, allocated=True):
                    first, last = start // block_size, (start + length - 1) // block_size
                    reached[first : last + 1] = b"\1" * (last + 1 - first)
            except CorruptImage as error:
                self._report(Problem.of(error))
        pairs = None if used is None else Counter(zip(used, reached, strict=False))
        return VmfsFigures(
            block_size=block_size,
            blocks=None if used is None else len(used),
            used=None if used is None else sum(used),
            reached=sum(reached),
            lost=None if pairs is None else pairs[1, 0],
            reached_free=None if pairs is None else pairs[0, 1],
            locks=tuple(sorted(locks, key=lambda held: held.path)),
            hosts=tuple(ActiveHeartbeat(host.uuid, host.address, host.offset) for host in self.active_hosts),
        )

    def locate(self, token: int) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the address of a file descriptor.

        Of a volume of several devices the extents count from its own start.
        """
        blocks, _ = self._opened()
        merged: list[Extent] = []
        for start, length in blocks.extents(blocks.resources.descriptor(token)):
            places = [(start, length)] if self._others else [(p, n) for _, p, n in self.logical.place(start, length)]
            for offset, count in places:
                if merged and merged[-1].offset + merged[-1].length == offset:
                    merged[-1] = Extent(merged[-1].offset, merged[-1].length + count)
                else:
                    merged.append(Extent(offset, count))
        return tuple(merged)

    def open_content(self, token: int) -> ReadAt:
        """A file's data, with its holes; see `locate` for the token."""
        blocks, _ = self._opened()
        return blocks.content(blocks.resources.descriptor(token))

    def _opened(self) -> tuple[VmfsBlocks, VmfsTree]:
        """What reads its files.

        Raises:
            NotAFileSystem: This device does not hold the file system's descriptor.
            CorruptImage: The descriptor makes no sense.
        """
        with self._lock:
            if self._readers is None:
                if self.file_system is None:
                    raise NotAFileSystem("the file system's descriptor is not on this device, or is damaged")
                blocks = VmfsBlocks(self.logical, Geometry.of(self.file_system), self._report)
                self._readers = (blocks, VmfsTree(blocks, self._report))
            return self._readers

    def segments(self) -> list[Segment]:
        """The parts of the volume that lie on this device, one after the other unless its table says otherwise."""
        volume, begin = self.volume, self.device.data_offset
        if volume is None:  # without the volume manager, or its table: this device has all
            length = max(self._size - begin, 0) if self.file_system is not None else 0
            return [Segment(0, length, self._disk, self._start + begin)] if length else []
        first = volume.first_extent * EXTENT_SIZE
        table = [extent for extent in self.extents if extent.size]
        if any(extent.physical_offset - begin != extent.logical_offset - first for extent in table):
            return [
                Segment(extent.logical_offset, extent.size, self._disk, self._start + extent.physical_offset)
                for extent in table
            ]
        length = min((volume.last_extent - volume.first_extent + 1) * EXTENT_SIZE, max(self._size - begin, 0))
        return [Segment(first, length, self._disk, self._start + begin)] if length else []

    @property
    def kind(self) -> str:
        """Its generation: "vmfs3", "vmfs5", "vmfs6", "vmfs-l", or "vmfs" where the version is none of these."""
        if self.file_system is not None:
            if self.file_system.magic in LOCAL_FILE_SYSTEM_MAGICS:
                return "vmfs-l"
            return _GENERATIONS.get(self.file_system.major_version, "vmfs")
        device = self.device
        if device.flags & _LVM_IS_LOCAL and device.major_version == 6:
            return "vmfs-l"
        return _LVM_GENERATIONS.get(device.major_version, "vmfs")

    @property
    def has_volume_manager(self) -> bool:
        """Whether the volume manager's header is there; a file system may lie in a partition or file without it."""
        return self.device.magic == LVM_MAGIC

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
        """The used physical extents of this device."""
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
        """What was found damaged so far, and whether the volume was in use; reads the heartbeats."""
        for host in self.active_hosts:
            journal = "" if host.journal is None else f", and has a journal at byte {host.journal:#x} of the volume"
            message = f"host {host} held the volume when the image was made{journal}: what it wrote may be half there"
            self._problems.setdefault(Problem("VMFS heartbeat", message, host.offset))
        return tuple(self._problems)

    @property
    def records(self) -> Mapping[str, Record]:
        """The headers as they are on disk, by their names."""
        found: dict[str, Record | None] = {
            "LVM device header": self.device if self.has_volume_manager else None,
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
            "device UUID": vmfs_uuid(device.device_uuid) if self.has_volume_manager else None,
            "in use by": ", ".join(map(str, self.active_hosts)) or None,
            "made on": described_disk(device) or None,
        }
        if volume is not None and volume.device_count > 1:
            found["this device"] = f"extents {volume.first_extent} to {volume.last_extent} of the volume"
        return {name: printable(str(value)) for name, value in found.items() if value is not None}

    def _read_device(self) -> LvmDevice:
        found = LvmDevice.parse(self._source.read_at(LVM_OFFSET, LvmDevice.length()), base=self._start + LVM_OFFSET)
        if found.magic == LVM_MAGIC:
            return found
        at = find_magic(self._disk, self._start, self._size, may_be_lost=True)
        begin = FILE_SYSTEM_OFFSET if at is None else at[0]
        zeros = LvmDevice.parse(bytes(LvmDevice.length()), base=self._start)
        return replace(zeros, data_offset=begin - FILE_SYSTEM_OFFSET)

    def _read_volume(self) -> LvmVolume | None:
        device = self.device
        if not self.has_volume_manager:
            return None
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
        wrong = _contradiction(device, found)
        if wrong is not None:
            read = "what is here is read as a volume of this device alone, if the file system starts on it"
            self._note(offset, "LVM volume table", f"it makes no sense: {wrong}; {read}")
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
        magics = FILE_SYSTEM_MAGICS + LOCAL_FILE_SYSTEM_MAGICS
        if found.magic not in magics:
            message = f"magic: expected {' or '.join(map(hex, magics))}, found {found.magic:#x}"
            self._note(offset, "VMFS file system descriptor", message)
            return None
        return found

    def _check(self) -> None:
        device, volume, file_system = self.device, self.volume, self.file_system
        if self.has_volume_manager and device.major_version not in _LVM_GENERATIONS:
            self._note(LVM_OFFSET + 4, "LVM device header", f"version {device.major_version} is not known")
        if not self.has_volume_manager and device.data_offset:
            message = f"it is lost; a volume of this device alone is read from byte {device.data_offset:#x} on"
            self._note(LVM_OFFSET, "LVM device header", message)
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
        count = total = max(self.device.extent_count, self.device.extent_count_6)
        found: list[PhysicalExtent] = []
        for offset in self._extent_tables():
            if count <= 0:
                break
            length = min(count, EXTENTS_PER_TABLE) * PhysicalExtent.length()
            count -= EXTENTS_PER_TABLE
            try:
                data = self._source.read_at(offset, length)
            except CorruptImage as error:
                self._report(Problem.of(error))
                continue
            found += [entry for entry in PhysicalExtent.parse_all(data, base=self._start + offset) if entry.is_used]
        if count > 0:
            self._note(
                LVM_OFFSET + 0x6A, "LVM device header", f"its tables have no room for {count} of {total} extents"
            )
        return tuple(found)

    def _extent_tables(self) -> Iterator[int]:
        """Where each table of extents lies in the partition."""
        device = self.device
        if device.major_version < 6:
            yield LVM_OFFSET + VOLUME_TABLE_OFFSET + EXTENT_BITMAP_OFFSET + EXTENT_BITMAP_LENGTH
            return
        bitmap = max(device.metadata_alignment, EXTENT_BITMAP_LENGTH)
        base, maps, following = LVM_OFFSET, device.extent_map_count, device.extended_metadata_offset
        seen = {base}
        while True:
            table = base + max(device.metadata_alignment, VOLUME_TABLE_OFFSET) + EXTENT_BITMAP_OFFSET + bitmap
            step = bitmap + EXTENTS_PER_TABLE * PhysicalExtent.length()
            yield from range(table, min(table + maps * step, self._size), step)
            if not following or following in seen:
                return
            base = following
            seen.add(base)
            try:
                data = self._source.read_at(base, LvmExtendedMetadata.length())
            except CorruptImage as error:
                self._report(Problem.of(error))
                return
            more = LvmExtendedMetadata.parse(data, base=self._start + base)
            if more.magic != LVM_MAGIC:
                self._note(base, "LVM extended metadata", f"magic: expected {LVM_MAGIC:#x}, found {more.magic:#x}")
                return
            maps, following = more.extent_map_count, more.next_offset

    def _read_heartbeats(self) -> tuple[ActiveHost, ...]:
        if self.file_system is None:
            return ()
        slots, slot_size = _HEARTBEATS, DISK_BLOCK
        if self.file_system.major_version >= VMFS_6:
            slots, slot_size = HEARTBEATS_6, self.file_system.metadata_alignment
            if not Heartbeat.length() <= slot_size <= _LARGEST_HEARTBEAT:
                slot_size = USUAL_ALIGNMENT
        offset = self.device.data_offset + HEARTBEAT_OFFSET
        try:
            data = self._source.read_at(offset, slots * slot_size)
        except CorruptImage as error:
            self._problems.setdefault(Problem.of(error))
            return ()
        active = HEARTBEAT_ACTIVE.to_bytes(4, "little")
        found = []
        at = data.find(active)
        while at >= 0:
            slot, within = divmod(at, slot_size)
            if not within:
                beat = Heartbeat.parse(data, at, base=self._start + offset)
                host = ActiveHost(
                    vmfs_uuid(beat.owner),
                    printable(_text(beat.address)) or None,
                    slot,
                    self._start + offset + at,
                    beat.stamp_us,
                    beat.journal_volume_address or None,
                )
                found.append(host)
            at = data.find(active, (slot + 1) * slot_size)
        return tuple(found)

    def _report(self, problem: Problem) -> None:
        self._problems.setdefault(problem)

    def _note(self, offset: int, structure: str, message: str) -> None:
        self._problems.setdefault(Problem(structure, message, self._start + offset))


def _contradiction(device: LvmDevice, volume: LvmVolume) -> str | None:
    """What an entry of the volume table says that can't be, or that its device's own header contradicts."""
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


def _text(raw: bytes) -> str:
    """Text that ends at its first NUL, or is padded with spaces."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
