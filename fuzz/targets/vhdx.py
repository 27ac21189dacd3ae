"""VHDX disks, as damage to a forged one: their structures lie at fixed places, megabytes apart."""

from __future__ import annotations

import functools

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.patches import patched
from fuzz.samples import text
from vmvisor_image.layers import LayerOptions, vhdx
from vmvisor_image.schemas.vhdx import HEADER_MAGIC, HEADER_SIZE, HEADERS, REGION_MAGIC, REGION_TABLES, TABLE_SIZE
from vmvisor_image.testing.damage import Change, DamagedSource
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_virtual import vhdx_disk

_SEALED = [(at, HEADER_MAGIC, HEADER_SIZE) for at in HEADERS] + [(at, REGION_MAGIC, TABLE_SIZE) for at in REGION_TABLES]


@functools.cache
def _base() -> SparseImage:
    return vhdx_disk(text(9000))


def seeds() -> list[bytes]:
    return [b"", bytes(8), bytes(range(64)), b"\0" + bytes(16)]


def one_input(data: bytes) -> None:
    reseals, rest = data[:1] > b"\x7f", data[1:]
    source = patched(_base(), rest)
    with documented():
        exercise_source(vhdx.open_layer(Bounded(_resealed(source) if reseals else source), LayerOptions()))


def _resealed(source: DamagedSource) -> DamagedSource:
    """With right checksums again, so that what is behind them is reached."""
    changes = []
    for at, magic, size in _SEALED:
        data = source.read_at(at, size)
        if data[:4] == magic:
            changes.append(Change(at + 4, vhdx.crc32c(data[:4] + bytes(4) + data[8:]).to_bytes(4, "little")))
    return DamagedSource(source, changes)
