"""VMDK extents and descriptors."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_virtual import vmdk_disk

_PARENT = b'# Disk DescriptorFile\nCID=0000abcd\nparentCID=ffffffff\ncreateType="custom"\nRW 8 FLAT "a" 0\nRW 5 ZERO\n'


def seeds() -> list[bytes]:
    descriptor = b'# Disk DescriptorFile\nCID=1234abcd\nparentCID=ffffffff\ncreateType="custom"\nRW 64 ZERO\n'
    return [
        vmdk_disk(text(9000)),
        vmdk_disk(text(9000), compressed=True),
        descriptor,
        descriptor + b'RW 8 FLAT "a" 0\n',
        descriptor.replace(b"f" * 8, b"abcd") + b'RW 24 SPARSE "s"\nparentFileNameHint="p.vmdk"\n',
        descriptor.replace(b"f" * 8, b"abcd") + b'RW 24 SPARSE "s"\nparentFileNameHint="me.vmdk"\n',
        vmdk_disk(text(9000)).replace(b"parentCID=ffffffff\n", b"parentCID=0000abcd\nparentFileNameHint=p\n"),
    ]


def one_input(data: bytes) -> None:
    def neighbour(name: str) -> ReadAt:
        if name == "me.vmdk":
            return Bounded(data)
        if name.startswith("p"):
            return BytesSource(_PARENT)
        return BytesSource(vmdk_disk(text(512)) if name.startswith("s") else text(4096))

    for options in (LayerOptions(neighbour=neighbour), LayerOptions(neighbour=neighbour, parent=None)):
        with documented():
            for layer in open_disk(Bounded(data), "top.vmdk", options, data[:512]):
                exercise_source(layer.source)
