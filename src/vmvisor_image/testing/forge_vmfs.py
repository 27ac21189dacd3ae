"""Headers of VMFS volumes, without files; see `vmvisor_image.testing.forge` for other images.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.record import Record
from vmvisor_image.schemas.vmfs import (
    DENSE_SUB_BLOCKS,
    EXTENT_BITMAP_LENGTH,
    EXTENT_BITMAP_OFFSET,
    EXTENT_SIZE,
    FILE_SYSTEM_MAGIC,
    FILE_SYSTEM_OFFSET,
    HEARTBEAT_ACTIVE,
    HEARTBEAT_FREE,
    HEARTBEAT_OFFSET,
    HEARTBEATS_6,
    LOCAL_FILE_SYSTEM_MAGIC,
    LVM_MAGIC,
    LVM_OFFSET,
    NAA_DISK_ID,
    USUAL_ALIGNMENT,
    USUAL_DATA_OFFSET,
    VMFS_6,
    VOLUME_TABLE_OFFSET,
    FileSystemDescriptor,
    Heartbeat,
    LvmDevice,
    LvmVolume,
    PhysicalExtent,
    ScsiDiskId,
    vmfs_uuid,
)
from vmvisor_image.testing.forge import SparseImage

VmfsKind = Literal["vmfs3", "vmfs5", "vmfs5-l", "vmfs6", "vmfs-l"]
"""The generation; "vmfs5-l" is VMFS-L as of VMFS 5, "vmfs-l" as of VMFS 6."""

_Told = TypeVar("_Told", LvmDevice, ScsiDiskId)

DEFAULT_CREATED: Final = datetime(2009, 4, 21, 16, 45, 56, tzinfo=UTC)
DATA_OFFSET: Final = USUAL_DATA_OFFSET
"""Bytes from the partition's start to the volume on a device."""
LOCAL_KINDS: Final = ("vmfs5-l", "vmfs-l")
_VERSIONS: Final = {
    "vmfs3": (3, 4, 31),
    "vmfs5": (5, 14, 81),
    "vmfs5-l": (5, 14, 81),
    "vmfs6": (6, 24, 82),
    "vmfs-l": (6, 24, 82),
}
"""Versions of the volume manager and of the file system."""
_LVM_MINOR_VERSIONS: Final = {3: 0x10, 5: 0x15}
"""Minor versions in real headers; that of LVM 6 is not known."""


@dataclass(frozen=True, slots=True)
class NaaDisk:
    """A disk of the storage that is known by an NAA identifier.

    Vouched for by the volume manager's headers of real volumes of VMFS 3.46 and of VMFS 5, of which the fields were
    read: vendor, model and revision are zeros, the identifier's type and length are 02 16.
    """

    naa: bytes
    """Identifier: 8 bytes, or 16 that begin with a 6."""
    model: bytes = b"COMSTA"
    """First letters of the model."""
    lun: int = 0
    """SCSI logical unit."""

    def put_into(self, record: _Told) -> _Told:
        """Same structure with the fields of this disk."""
        found = self.naa + self.model
        return replace(
            record,
            disk_id_type=NAA_DISK_ID,
            disk_id_length=len(found),
            lun=self.lun,
            vendor=bytes(8),
            model=bytes(16),
            revision=bytes(4),
            disk_id=found.ljust(44, b"\0"),
        )


def vmfs_headers(  # each is one thing that the headers say
    kind: VmfsKind = "vmfs5",
    *,
    size: int = 2 * EXTENT_SIZE + DATA_OFFSET,
    label: str = "datastore1",
    created: datetime = DEFAULT_CREATED,
    device: int = 0,
    devices: int = 1,
    hosts: tuple[str, ...] = (),
    alignment: int = USUAL_ALIGNMENT,
    disk: NaaDisk | None = None,
) -> SparseImage:
    """The headers of one device of a VMFS volume, in a partition of `size` bytes.

    Vouched for by ``blkid``, and real headers of 3.31 that the same reader reads: ``tests/test_vmfs_headers.py``; by
    vmfs-tools of VMFS 3 and 5, and by the volume manager's header of a real volume of VMFS 5.

    Args:
        kind: The generation.
        size: Bytes in the partition; as many extents of 256 MiB as fit are in use.
        label: Name of the datastore.
        created: Time at which the file system was made, with its time zone.
        device: Number of this device in the volume, from 0; only the first one holds the file system's descriptor.
        devices: Number of devices in the volume, all of this size.
        hosts: IP addresses of hosts that use the volume.
        alignment: Bytes that metadata of VMFS 6 are aligned to.
        disk: The disk, by its NAA identifier instead of where it is attached.

    Raises:
        InvalidArgument: The partition has no room for the headers, or there is no such device.
    """
    count = (size - DATA_OFFSET) // EXTENT_SIZE
    if count < 1 or not 0 <= device < devices or len(label.encode()) > 127:
        raise InvalidArgument("a device needs room for an extent, and a label has at most 127 bytes")
    lvm_version, major, minor = _VERSIONS[kind]
    is_lvm6 = lvm_version == 6
    volume_uuid, device_uuid, system_uuid = (_uuid(created, number) for number in (1, 2 + device, 0x100))
    stamp = int(created.timestamp() * 1_000_000)
    table = LVM_OFFSET + (alignment if is_lvm6 else VOLUME_TABLE_OFFSET)
    header = _device(lvm_version, size, count, device_uuid, stamp, alignment, is_local=kind in LOCAL_KINDS)
    if disk is not None:
        header = disk.put_into(header)
    pieces: list[tuple[int, Record]] = [
        (LVM_OFFSET, header),
        (table, _volume(count, device, devices, volume_uuid, stamp)),
    ]
    extents = table + EXTENT_BITMAP_OFFSET + (alignment if is_lvm6 else EXTENT_BITMAP_LENGTH)
    pieces += [
        (extents + number * PhysicalExtent.length(), _extent(number, device * count + number))
        for number in range(count)
    ]
    if device == 0:
        descriptor = _descriptor(kind, major, minor, label, created, system_uuid, volume_uuid, alignment)
        pieces.append((DATA_OFFSET + FILE_SYSTEM_OFFSET, descriptor))
        slots, slot_size = (HEARTBEATS_6, alignment) if is_lvm6 else (2048, 512)
        for slot in range(slots):
            host = hosts[slot] if slot < len(hosts) else None
            at = HEARTBEAT_OFFSET + slot * slot_size
            pieces.append((DATA_OFFSET + at, _heartbeat(at, host, _uuid(created, 0x200 + slot))))
    return SparseImage(size, [(offset, record.build()) for offset, record in pieces])


def _uuid(created: datetime, number: int) -> bytes:
    seconds = int(created.timestamp()) & 0xFFFFFFFF
    return seconds.to_bytes(4, "little") + number.to_bytes(4, "little") + b"\x65\xcb" + bytes.fromhex("0021280083cf")


def _device(  # of one caller
    version: int, size: int, count: int, uuid: bytes, stamp: int, alignment: int, *, is_local: bool
) -> LvmDevice:
    is_lvm6 = version == 6
    return LvmDevice(
        magic=LVM_MAGIC,
        major_version=version,
        minor_version=_LVM_MINOR_VERSIONS.get(version, 0x10),
        disk_id_type=0,
        disk_id_length=15,
        lun=0,
        device_type=0,
        scsi_level=3,
        vendor=b"FORGED  ",
        model=b"DISK".ljust(16),
        revision=b"1.0 ",
        disk_id=b"vmhba0:C0:T0:L0".ljust(44, b"\0"),
        disk_block_size=512,
        total_bytes=size,
        volume_count=1,
        extent_count=count,
        last_extent=count - 1,
        generation=1,
        data_offset=DATA_OFFSET,
        device_uuid=uuid,
        created_us=stamp,
        modified_us=stamp,
        locked_by=bytes(16),
        locked_us=0,
        unknown=0,
        extent_map_count=1 if version > 3 else 0,
        extended_metadata_offset=0,
        metadata_alignment=alignment if is_lvm6 else 0,
        extent_count_6=count if is_lvm6 else 0,
        flags=int(is_local),
    )


def _volume(count: int, device: int, devices: int, uuid: bytes, stamp: int) -> LvmVolume:
    return LvmVolume(
        size=count * devices * EXTENT_SIZE,
        generation=1,
        state=1,
        name=vmfs_uuid(uuid).encode().ljust(64, b"\0"),
        uuid=uuid,
        snapshot_id=1,
        created_us=stamp,
        volume_id=0,
        extent_count=count,
        first_extent=device * count,
        last_extent=(device + 1) * count - 1,
        modified_us=stamp,
        device_count=devices,
        unknown=bytes(124),
        consumed_extents=count,
        rest=bytes(236),
    )


def _extent(number: int, logical: int) -> PhysicalExtent:
    return PhysicalExtent(
        is_used=1,
        number=number,
        volume_id=0,
        physical_offset=DATA_OFFSET + number * EXTENT_SIZE,
        logical_offset=logical * EXTENT_SIZE,
        size=EXTENT_SIZE,
        version=1,
        rest=bytes(91),
    )


def _descriptor(  # of one caller
    kind: VmfsKind,
    major: int,
    minor: int,
    label: str,
    created: datetime,
    uuid: bytes,
    volume_uuid: bytes,
    alignment: int,
) -> FileSystemDescriptor:
    zeros = {field.name: 0 for field in FileSystemDescriptor.layout()}
    blanks = {
        field.name: bytes(field.length)
        for field in FileSystemDescriptor.layout()
        if field.name.startswith("unknown") or field.name in ("checksum", "mac", "volume_rest")
    }
    values: dict[str, object] = {
        **zeros,
        **blanks,
        "magic": LOCAL_FILE_SYSTEM_MAGIC if kind in LOCAL_KINDS else FILE_SYSTEM_MAGIC,
        "major_version": major,
        "minor_version": minor,
        "uuid": uuid,
        "flags": (0x900 if kind in LOCAL_KINDS else 2) | (DENSE_SUB_BLOCKS if major == 14 else 0),
        "label": label.encode().ljust(128, b"\0"),
        "disk_block_size": 512,
        "file_block_size": 1 << 20,
        "created": int(created.timestamp()),
        "snapshot_id": 1,
        "volume_uuid": volume_uuid,
        "volume_snapshot_id": 1,
        "descriptor_group_offset": 0x10000,
        "clusters_per_group": 32,
        "sub_block_size": 8192 if major == 14 else 0x10000,
        "pb2_volume_address": {4: 0, 14: 0x41B000, 24: 0x75C000}[major],
        "pb2_descriptor": 0x1800004 if major > 4 else 0,
        "metadata_alignment": alignment if major == VMFS_6 else 0,
        "large_block_shift": 9 if major == 24 else 0,
        "pointer_block_shift": 13 if major == 24 else 0,
    }
    return FileSystemDescriptor(**values)  # type: ignore[arg-type]  # each field has its value above


def _heartbeat(at: int, host: str | None, uuid: bytes) -> Heartbeat:
    return Heartbeat(
        state=HEARTBEAT_FREE if host is None else HEARTBEAT_ACTIVE,
        volume_address=at,
        generation=0 if host is None else 1,
        stamp_us=0 if host is None else 1_000_000,
        owner=bytes(16) if host is None else uuid,
        journal_block=0,
        driver_major=0,
        driver_minor=0,
        lock_method=0,
        address=(host or "").encode().ljust(46, b"\0"),
        journal_volume_address=0,
    )
