"""qcow2 disks."""

from __future__ import annotations

import contextlib

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import MemberNotFound
from vmvisor_image.layers import qcow2
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_virtual import qcow2_delta, qcow2_disk


def seeds() -> list[bytes]:
    disks = [qcow2_disk(text(4096)), qcow2_disk(b"")]
    for name, kind in (("raw", "raw"), ("disk", "qcow2"), ("me", "qcow2"), ("raw", None)):
        disks.append(qcow2_delta({0: text(512), 3: None}, 4096, name, kind, snapshot="one"))
    return disks


def one_input(data: bytes) -> None:
    def neighbour(name: str) -> ReadAt:
        return Bounded(data) if name == "me" else BytesSource(qcow2_disk(text(2048)) if name == "disk" else text(3000))

    with documented():
        exercise_source(qcow2.open_layer(Bounded(data), LayerOptions(parent=None)))
    for snapshot in (None, "one"):
        with documented(), contextlib.suppress(MemberNotFound):
            options = LayerOptions(neighbour=neighbour, snapshot=snapshot)
            for layer in open_disk(Bounded(data), "top", options, data[:512]):
                exercise_source(layer.source)
                if isinstance(layer.source, Linked) and layer.source.size < 1 << 30:
                    assert sum(length for _, length in layer.source.own_ranges()) <= layer.source.size
