"""Heartbeats of a VMFS volume, by the hosts that used it when the image was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.schemas.vmfs import (
    DISK_BLOCK,
    HEARTBEAT_ACTIVE,
    HEARTBEAT_OFFSET,
    USUAL_ALIGNMENT,
    Heartbeat,
    vmfs_uuid,
)
from vmvisor_image.volumes.vmfs.device import VmfsDevice
from vmvisor_image.volumes.vmfs.geometry import read_as
from vmvisor_image.volumes.vmfs.resources import Report

_LARGEST_HEARTBEAT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class ActiveHost:
    """A host whose heartbeat says that it uses the volume.

    A host that is alive raises `stamp_us` every few seconds, and frees its slot when it releases the volume. One image
    shows one moment: only a second image of the volume shows whether the host was alive or had crashed before.
    """

    uuid: str
    """UUID of the host."""
    address: str | None
    """IP address of the host; None where it is not given."""
    slot: int
    """Number of the heartbeat, from 0."""
    offset: int
    """Bytes from the start of the decoded disk to the heartbeat."""
    stamp_us: int
    """Time of its last sign of life, in microseconds since the host started."""
    journal: int | None
    """Bytes from the volume's start to the host's journal of unfinished changes; None without one."""

    def __str__(self) -> str:
        return f"{self.uuid} ({self.address})" if self.address else self.uuid


def read_hosts(device: VmfsDevice, report: Report) -> tuple[ActiveHost, ...]:
    """Hosts with active heartbeats on a device with the volume's start; reads 1 MiB, or usually 4 MiB for VMFS 6."""
    if device.file_system is None:
        return ()
    generation, slot_size = read_as(device.file_system.major_version), DISK_BLOCK
    if generation.number == 6:
        slot_size = device.file_system.metadata_alignment
        if not Heartbeat.length() <= slot_size <= _LARGEST_HEARTBEAT:
            slot_size = USUAL_ALIGNMENT
    offset = device.header.data_offset + HEARTBEAT_OFFSET
    try:
        data = device.source.read_at(offset, generation.heartbeats * slot_size)
    except CorruptImage as error:
        report(Problem.of(error))
        return ()
    active = HEARTBEAT_ACTIVE.to_bytes(4, "little")
    found = []
    at = data.find(active)
    while at >= 0:
        slot, within = divmod(at, slot_size)
        if not within:
            beat = Heartbeat.parse(data, at, base=device.start + offset)
            host = ActiveHost(
                vmfs_uuid(beat.owner),
                printable(text_of(beat.address)) or None,
                slot,
                device.start + offset + at,
                beat.stamp_us,
                beat.journal_volume_address or None,
            )
            found.append(host)
        at = data.find(active, (slot + 1) * slot_size)
    return tuple(found)


def text_of(raw: bytes) -> str:
    """Text that ends at its first NUL, or is padded with spaces."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
