"""VMFS volumes: their headers, their parts on devices, their users and their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import check_deadline
from vmvisor_image.base.names import fold_name, printable
from vmvisor_image.errors import CorruptImage, NotAFileSystem, Problem, ProblemList
from vmvisor_image.files.file import Extent, File, FileHome
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.schemas.partition_types import MBR_VMFS, VMFS, VMFS_L
from vmvisor_image.schemas.vmfs import (
    LVM_OFFSET,
    PhysicalExtent,
    described_disk,
    vmfs_uuid,
)
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.figures import ActiveHeartbeat, HeldLock, VmfsFigures
from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.vmfs.blocks import VmfsBlocks
from vmvisor_image.volumes.vmfs.check import problems_of
from vmvisor_image.volumes.vmfs.device import VmfsDevice, find_magic
from vmvisor_image.volumes.vmfs.files import FileLock, RawDeviceMapping, VmfsTree, lock_in
from vmvisor_image.volumes.vmfs.geometry import Geometry, by_file_system, by_volume_manager
from vmvisor_image.volumes.vmfs.heartbeats import ActiveHost, read_hosts, text_of
from vmvisor_image.volumes.vmfs.lvm import LogicalVolume
from vmvisor_image.volumes.volume import BaseVolume, Hints, OtherEntry, VolumeCheck, VolumeEvidence, volume_repr

NAME: Final = "VMFS 3, 5, 6 and VMFS-L"
KIND: Final = "vmfs"
SUFFIXES: Final = ()
MAGICS: Final = ()
REFERENCES: Final = ("what vmfs-tools, libblkid and dissect.vmfs do: no specification was published",)
_PARTITION_TYPES: Final = (None, MBR_VMFS, VMFS, VMFS_L)
"""Types of partitions with VMFS; None for a disk without a table."""
_MOST_PROBLEMS: Final = 100_000
"""Most problems that are kept; further ones are only counted."""
_DISK_BLOCKS: Final = (512, 4096)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def probe(disk: ReadAt, start: int, size: int, hints: Hints, /) -> bool:
    """Whether the partition of `size` bytes from byte `start` of `disk` holds VMFS, or a part; see `find_magic`."""
    is_other = hints.is_other if hints.type_key in _PARTITION_TYPES else None
    return find_magic(disk, start, size, is_other=is_other) is not None


def join_devices(devices: Sequence[VmfsVolume], home: FileHome) -> VmfsVolume:
    """Volume of several devices, for `home`; without a device, only the data on it is missing.

    Raises:
        NotAFileSystem: None of the devices holds the file system's descriptor.
    """
    first = next((device for device in devices if device.file_system is not None), None)
    if first is None:
        raise NotAFileSystem("none of the devices holds the file system's descriptor, or it is damaged")
    return first.with_others([device for device in devices if device is not first], home)


class VmfsVolume(BaseVolume):
    """A VMFS volume by one of its devices; see `vmvisor_image.disk.datastore` for one with several."""

    def __init__(self, disk: ReadAt, start: int, size: int, home: FileHome, others: Sequence[VmfsVolume] = ()) -> None:
        """A volume by the headers of the partition of `size` bytes from byte `start` of `disk`.

        Args:
            disk: The decoded disk.
            start: First byte of the partition.
            size: Bytes in the partition.
            home: Container of its files: the partition, or the datastore where there are other devices.
            others: Other devices of the same volume.

        Raises:
            CorruptImage: The volume manager's header can't be read.
        """
        self._home = home
        self._others = tuple(others)
        self._lock = ForkSafeLock()
        self._problems = ProblemList("VMFS volume", _MOST_PROBLEMS)
        self._hosts: tuple[ActiveHost, ...] | None = None
        self._device = VmfsDevice(disk, start, size, self._problems.add)
        self.device = self._device.header
        """Header of the volume manager; without one zeros, except for the offset of the volume."""
        self.volume = self._device.volume
        """Entry of the volume table; None where there is none or it can't be read."""
        self.file_system = self._device.file_system
        """Descriptor of the file system; None on a device without the volume's start."""
        self._logical: LogicalVolume | None = None
        self._readers: tuple[VmfsBlocks, VmfsTree] | None = None
        self._files: FileTree | None = None

    def with_others(self, others: Sequence[VmfsVolume], home: FileHome) -> VmfsVolume:
        """The same volume with more of its devices, for `home`."""
        device = self._device
        return VmfsVolume(device.disk, device.start, device.size, home, others)

    @property
    def logical(self) -> LogicalVolume:
        """Bytes of the volume; those on missing devices can't be read."""
        if self._logical is None:
            devices = (self, *self._others)
            segments = [segment for device in devices for segment in device._device.segments()]
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
        """Files of the volume; directories are read when they are listed.

        Raises:
            NotAFileSystem: This device does not hold the file system's descriptor.
            CorruptImage: The descriptor is not valid.
        """
        _, tree = self._opened()
        with self._lock:
            if self._files is None:
                self._files = tree.files(self._home, lambda: self.problems)
            return self._files

    @property
    def links(self) -> Mapping[str, str]:
        """Targets of the symbolic links in the directories listed so far, by path."""
        return dict(self._opened()[1].links)

    @property
    def raw_devices(self) -> Mapping[str, RawDeviceMapping]:
        """Raw device mappings in the directories listed so far, by path."""
        return dict(self._opened()[1].raw_devices)

    @property
    def others(self) -> tuple[OtherEntry, ...]:
        """See `BaseVolume.others`: symbolic links and raw device mappings."""
        links = (OtherEntry("link", f"{path} -> {target}", path) for path, target in self.links.items())
        raw = (
            OtherEntry(str(found.size), f"{path}: raw device mapping, {found.disk}", path)
            for path, found in self.raw_devices.items()
        )
        return (*links, *raw)

    def lock_of(self, file: File) -> FileLock | None:
        """Lock that a host held on a file when the image was made; None where no host did.

        Raises:
            CorruptImage: The file's descriptor is damaged.
        """
        return self._opened()[1].lock_of(file.token)

    def evidence(self, name: str | None, /) -> VolumeEvidence:
        """See `BaseVolume.evidence`; a local volume is the locker by its label or the partition's `name`."""
        found = []
        if self.has_volume_manager:
            found.append(Evidence("the volume manager's magic 0xC001D00D", self.device.source_offset))
        if self.file_system is not None:
            magic, at = self.file_system.magic, self.file_system.source_offset
            found.append(Evidence(f"the file system's magic 0x{magic:X}, version {self.version}", at))
        role = Role.DATASTORE
        if self.kind == "vmfs-l":
            role = Role.STORE if "locker" in {fold_name(text or "") for text in (name, self.label)} else Role.OSDATA
        return VolumeEvidence(tuple(found), role)

    def check(self) -> VolumeCheck:
        """Result of comparing the bitmap of file blocks with the files; lists every directory.

        Raises:
            LimitExceeded: There are too many files.
        """
        try:
            figures = self._figures()
        except (CorruptImage, NotAFileSystem) as error:
            return VolumeCheck((Problem("VMFS volume", str(error), self._device.start),))
        not_checked = ["VMFS has no check sums of what is in files, and its journals are not read"]
        if figures.blocks is None:
            not_checked.append(f"the bitmap of file blocks of {self.kind}")
        return VolumeCheck(
            tuple(problems_of(figures, self._device.start)), not_checked=tuple(not_checked), vmfs=figures
        )

    def _figures(self) -> VmfsFigures:
        """Figures of `check`.

        Raises:
            NotAFileSystem: This device does not hold the file system's descriptor.
            CorruptImage: A structure of the file system can't be read.
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
                self._problems.add(Problem.of(error))
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

        For a volume of several devices the extents count from the volume's start.
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
        """Data of a file, with zeros in its holes; `token` is the address of its file descriptor, as in `locate`."""
        blocks, _ = self._opened()
        return blocks.content(blocks.resources.descriptor(token))

    def _opened(self) -> tuple[VmfsBlocks, VmfsTree]:
        """Readers of its blocks and of its tree of files.

        Raises:
            NotAFileSystem: This device does not hold the file system's descriptor.
            CorruptImage: The descriptor is not valid.
        """
        with self._lock:
            if self._readers is None:
                if self.file_system is None:
                    raise NotAFileSystem("the file system's descriptor is not on this device, or is damaged")
                blocks = VmfsBlocks(self.logical, Geometry.of(self.file_system), self._problems.add)
                self._readers = (blocks, VmfsTree(blocks, self._problems.add))
            return self._readers

    @property
    def kind(self) -> str:
        """Generation: "vmfs3", "vmfs5", "vmfs6", "vmfs-l", or "vmfs" for an unknown version."""
        return self._device.kind

    @property
    def has_volume_manager(self) -> bool:
        """Whether the volume manager's header exists; a file system may be in a partition or file without it."""
        return self._device.has_volume_manager

    @property
    def version(self) -> str | None:
        """Version of the file system as ESX shows it, such as "3.31"; None on a device without the volume's start."""
        found = self.file_system
        if found is None:
            return None
        generation = by_file_system(found.major_version)
        return f"{found.major_version if generation is None else generation.number}.{found.minor_version}"

    def __repr__(self) -> str:
        return volume_repr(self, self.label, self._device.start)

    @property
    def label(self) -> str | None:
        """Name of the datastore; None without one."""
        return None if self.file_system is None else text_of(self.file_system.label) or None

    @property
    def uuid(self) -> str | None:
        """UUID of the file system, as in ``/vmfs/volumes``; None on a device without the volume's start."""
        return None if self.file_system is None else vmfs_uuid(self.file_system.uuid)

    @property
    def volume_uuid(self) -> str | None:
        """UUID of the volume that the device belongs to; None without the volume manager's entry."""
        return None if self.volume is None else vmfs_uuid(self.volume.uuid)

    @property
    def block_size(self) -> int | None:
        """Bytes in a file block; None on a device without the volume's start."""
        return None if self.file_system is None else self.file_system.file_block_size

    @property
    def own_size(self) -> int | None:
        """See `BaseVolume.own_size`: of the device, by the volume manager; None where its header is lost."""
        device = self.device
        is_sound = by_volume_manager(device.major_version) is not None and device.disk_block_size in _DISK_BLOCKS
        return device.total_bytes if self.has_volume_manager and is_sound else None

    @property
    def capacity(self) -> int | None:
        """Bytes in the whole volume, on all its devices; None without the volume manager's entry."""
        return None if self.volume is None else self.volume.size

    @property
    def created(self) -> datetime | None:
        """Time at which the file system was made, in UTC; None on a device without the volume's start."""
        return None if self.file_system is None else _EPOCH + timedelta(seconds=self.file_system.created)

    @property
    def device_count(self) -> int | None:
        """Number of devices in the volume; None without the volume manager's entry."""
        return None if self.volume is None else self.volume.device_count

    @property
    def is_first_device(self) -> bool | None:
        """Whether this device holds the volume's start; None without the volume manager's entry."""
        return None if self.volume is None else self.volume.first_extent == 0

    @property
    def extents(self) -> tuple[PhysicalExtent, ...]:
        """Used physical extents of this device."""
        return self._device.extents

    @property
    def active_hosts(self) -> tuple[ActiveHost, ...]:
        """Hosts that used the volume when the image was made; reads 1 MiB, or usually 4 MiB for VMFS 6."""
        if self._hosts is None:
            self._hosts = read_hosts(self._device, self._problems.add)
        return self._hosts

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far, and the use of the volume by hosts; reads the heartbeats."""
        for host in self.active_hosts:
            journal = "" if host.journal is None else f", and has a journal at byte {host.journal:#x} of the volume"
            message = f"host {host} held the volume when the image was made{journal}: what it wrote may be half there"
            self._problems.note("VMFS heartbeat", message, host.offset)
        return self._problems.found

    @property
    def records(self) -> Mapping[str, Record]:
        """Headers as they are on disk, by their names."""
        found: dict[str, Record | None] = {
            "LVM device header": self.device if self.has_volume_manager else None,
            "LVM volume table entry": self.volume,
            "VMFS file system descriptor": self.file_system,
        }
        return {name: record for name, record in found.items() if record is not None}

    @property
    def facts(self) -> Mapping[str, str]:
        """Statements of the headers, in words, by name."""
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

    def _note(self, offset: int, structure: str, message: str) -> None:
        self._problems.note(structure, message, self._device.start + offset)


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome, /) -> VmfsVolume:
    """Volume in a partition; see `VmfsVolume` for the errors."""
    return VmfsVolume(disk, start, size, home)
