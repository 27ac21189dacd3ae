"""VHD disks."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import vhd
from vmvisor_image.testing.forge_virtual import vhd_disk


def seeds() -> list[bytes]:
    return [vhd_disk(text(9000)), vhd_disk(text(1024), fixed=True)]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(vhd.open_layer(Bounded(data), LayerOptions()))
