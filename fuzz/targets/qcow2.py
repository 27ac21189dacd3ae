"""qcow2 disks."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import qcow2
from vmvisor_image.testing.forge_virtual import qcow2_disk


def seeds() -> list[bytes]:
    return [qcow2_disk(text(4096)), qcow2_disk(b"")]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(qcow2.open_layer(Bounded(data), LayerOptions()))
