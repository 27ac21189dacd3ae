"""Master boot records and chains of logical partitions."""

from __future__ import annotations

from fuzz.exercise import Bounded, exercise_image
from vmvisor_image.testing.forge import ForgedPartition, mbr_disk


def seeds() -> list[bytes]:
    parts = [
        ForgedPartition(1, 0x06, 8, 8, active=True),
        ForgedPartition(2, 0x05, 16, 48),
        ForgedPartition(5, 0x06, 20, 4),
        ForgedPartition(6, 0xFC, 28, 4),
        ForgedPartition(7, 0xFB, 36, 4),
    ]
    disk = mbr_disk(parts, sectors=64, ebr_gap=4)
    return [disk.read_at(0, disk.size)]


def one_input(data: bytes) -> None:
    exercise_image(Bounded(data))
