"""FAT volumes of all three kinds."""

from __future__ import annotations

from fuzz.exercise import Bounded, exercise_image
from fuzz.samples import TREE
from vmvisor_image.testing.forge import fat_volume


def seeds() -> list[bytes]:
    volumes = [
        fat_volume(TREE, sectors=64, label="SMALL", root_entries=32),
        fat_volume(TREE, sectors=90, fat_bits=32, reserved_sectors=8),
        fat_volume(TREE, sectors=4400, fat_bits=16, sectors_per_cluster=1, root_entries=32, marker=bytes(range(16))),
    ]
    return [volume.read_at(0, min(volume.size, 40_000)) for volume in volumes]


def one_input(data: bytes) -> None:
    exercise_image(Bounded(data))
