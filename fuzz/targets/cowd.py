"""COWD extents."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import cowd
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_vmdk import cowd_extent


def seeds() -> list[bytes]:
    made = [
        cowd_extent({5: text(512), 0: b"x", 6: text(512)}, 64),
        cowd_extent({4095: text(4096), 4096: text(4096)}, 40_000, grain_sectors=8),
    ]
    return [each.read_at(0, each.size) for each in made]


def one_input(data: bytes) -> None:
    for parent in (None, Parent("raw", "raw", BytesSource(text(9000)))):
        with documented():
            disk = cowd.open_layer(Bounded(data), LayerOptions(parent=parent))
            exercise_source(disk)
            if disk.size < 1 << 30:
                assert sum(length for _, length in disk.own_ranges()) <= disk.size
