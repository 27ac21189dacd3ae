"""VMDK extents and descriptors."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import vmdk
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_virtual import vmdk_disk


def _neighbour(name: str) -> ReadAt:
    return BytesSource(vmdk_disk(text(512)) if name.startswith("s") else text(4096))


def seeds() -> list[bytes]:
    descriptor = b'# Disk DescriptorFile\nCID=1234abcd\nparentCID=ffffffff\ncreateType="custom"\nRW 64 ZERO\n'
    return [
        vmdk_disk(text(9000)),
        vmdk_disk(text(9000), compressed=True),
        descriptor,
        descriptor + b'RW 8 FLAT "a" 0\n',
    ]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(vmdk.open_layer(Bounded(data), LayerOptions(neighbour=_neighbour)))
