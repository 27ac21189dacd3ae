"""Heartbeats of a VMFS volume: which hosts used it when the image was made."""

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


def read_hosts(device: VmfsDevice, report: Report) -> tuple[ActiveHost, ...]:
    """The hosts whose heartbeats say that they use the volume that begins on a device; reads 1 MiB, or 4 of VMFS 6."""
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
