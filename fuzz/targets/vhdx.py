"""VHDX disks, as damage to a forged one: their structures lie at fixed places, megabytes apart."""

from __future__ import annotations

import functools
import zlib
from unittest import mock

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.patches import Patches
from fuzz.samples import text
from vmvisor_image import ReadAt
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import vhdx
from vmvisor_image.schemas.vhdx import HEADER_MAGIC, HEADER_SIZE, HEADERS, REGION_MAGIC, REGION_TABLES, TABLE_SIZE
from vmvisor_image.testing.damage import Change, DamagedSource
from vmvisor_image.testing.forge_virtual import vhdx_disk

_SEALED = [(at, HEADER_MAGIC, HEADER_SIZE) for at in HEADERS] + [(at, REGION_MAGIC, TABLE_SIZE) for at in REGION_TABLES]


@functools.cache
def _base() -> Patches:
    return Patches(_resealed(vhdx_disk(text(9000))), _exercise)


def _exercise(source: ReadAt) -> None:
    with documented():
        exercise_source(vhdx.open_layer(source, LayerOptions()))


def seeds() -> list[bytes]:
    return [b"", bytes(8), bytes(range(64)), b"\0" + bytes(16)]


def one_input(data: bytes) -> None:
    """The first byte says whether checksums are made right again."""
    # CRC-32C of 64 KiB in Python takes most of an execution; the CRC of zlib stands for it.
    with mock.patch.object(vhdx, "crc32c", zlib.crc32):
        source = _base().patched(data[1:])
        _exercise(Bounded(_resealed(source) if data[:1] > b"\x7f" else source))


def _resealed(source: ReadAt) -> DamagedSource:
    """With right checksums again, so that what is behind them is reached."""
    changes = []
    for at, magic, size in _SEALED:
        data = source.read_at(at, size)
        if data[:4] == magic:
            changes.append(Change(at + 4, vhdx.crc32c(data[:4] + bytes(4) + data[8:]).to_bytes(4, "little")))
    return DamagedSource(source, changes)
