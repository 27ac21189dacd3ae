"""VHD disks."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import vhd
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.schemas.vhd import ABSOLUTE_PATH, FILE_URL, FOOTER_CHECKSUM, HEADER_CHECKSUM, RELATIVE_PATH, SECTOR
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_vhd import vhd_delta
from vmvisor_image.testing.forge_virtual import vhd_disk


def seeds() -> list[bytes]:
    disks = [vhd_disk(text(9000)), vhd_disk(text(1024), fixed=True)]
    for name in ("base", "me"):
        paths = {RELATIVE_PATH: f".\\{name}", ABSOLUTE_PATH: f"C:\\{name}", FILE_URL: f"file:///{name}"}
        made = vhd_delta({0: text(4096), 2: {1: text(512), 6: text(512)}}, 16_384, paths, block_size=4096)
        disks.append(made.read_at(0, made.size))
    return disks


def one_input(data: bytes) -> None:
    """As it is, and with the right checksums, so that what is behind them is reached."""
    for each in dict.fromkeys((data, _resealed(data))):
        _exercise(each)


def _resealed(data: bytes) -> bytes:
    """With the checksums of both footers, and of the header behind the first, made right."""
    found = bytearray(data)
    footer, header = (SECTOR, FOOTER_CHECKSUM), (1024, HEADER_CHECKSUM)
    for at, (length, place) in ((0, footer), (SECTOR, header), (len(data) - SECTOR, footer)):
        if 0 <= at <= len(data) - length:
            structure = found[at : at + length]
            structure[place] = bytes(4)
            found[at + place.start : at + place.stop] = (~sum(structure) & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(found)


def _exercise(data: bytes) -> None:
    def neighbour(name: str) -> ReadAt:
        return Bounded(data) if name == "me" else BytesSource(vhd_disk(text(16_384)))

    with documented():
        exercise_source(vhd.open_layer(Bounded(data), LayerOptions(parent=None)))
    with documented():
        for layer in open_disk(Bounded(data), "top.vhd", LayerOptions(neighbour=neighbour), data[:512]):
            exercise_source(layer.source)
            if isinstance(layer.source, Linked) and layer.source.size < 1 << 24:
                assert sum(length for _, length in layer.source.own_ranges()) <= layer.source.size
