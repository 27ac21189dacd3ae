"""Master boot records and chains of logical partitions."""

from __future__ import annotations

from fuzz.exercise import Bounded, exercise_image
from vmvisor_image.testing.forge import ForgedPartition, mbr_disk


def seeds() -> list[bytes]:
    parts = [
        ForgedPartition(1, 0x06, 1, 1, active=True),
        ForgedPartition(2, 0x05, 2, 7),
        ForgedPartition(5, 0x06, 3, 1),
        ForgedPartition(6, 0xFC, 5, 1),
        ForgedPartition(7, 0xFB, 7, 2),
    ]
    disk = mbr_disk(parts, sectors=9, ebr_gap=1)
    return [disk.read_at(0, disk.size)]


def one_input(data: bytes) -> None:
    exercise_image(Bounded(data))
