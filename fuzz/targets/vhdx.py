"""VHDX disks, as damage to a forged one: their structures lie at fixed places, megabytes apart."""

from __future__ import annotations

import functools
import zlib
from unittest import mock
from uuid import UUID

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.patches import Patches
from fuzz.samples import text
from vmvisor_image import ReadAt
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers import crc32c, vhdx
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.schemas.vhdx import (
    HEADER_MAGIC,
    HEADER_SIZE,
    HEADERS,
    LOG_MAGIC,
    LOG_SECTOR,
    REGION_MAGIC,
    REGION_TABLES,
    TABLE_SIZE,
    LogEntryHeader,
)
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.testing.damage import Change, DamagedSource
from vmvisor_image.testing.forge_vhd import vhdx_delta, vhdx_log_entry, vhdx_with_log
from vmvisor_image.testing.forge_virtual import vhdx_disk

_LOG = 1 << 20
_SEALED = [(at, HEADER_MAGIC, HEADER_SIZE) for at in HEADERS] + [(at, REGION_MAGIC, TABLE_SIZE) for at in REGION_TABLES]


@functools.cache
def _bases() -> tuple[Patches, ...]:
    """A disk, one with a log, one that rests on another, and one that rests on itself."""
    disk = vhdx_disk(text(9000))
    log_id, number = bytes(range(16)), (1 << 32) + 1
    first: dict[int, bytes | int] = {4 << 20: text(4096), (4 << 20) + 4096: 8192}
    entries, at = [], 0
    for changes in (first, {2 << 20: disk.read_at(2 << 20, 4096)}):
        entry = vhdx_log_entry(log_id, number, changes, tail=0, flushed=disk.size, last=disk.size + 4096)
        entries.append((at, entry))
        at += len(entry)
        number += 1
    found = [disk, vhdx_with_log(disk, log_id, entries)]
    for name in ("base", "me"):
        locator = {"parent_linkage": f"{{{UUID(int=0)}}}", "relative_path": f".\\{name}", "volume_path": f"C:\\{name}"}
        found.append(vhdx_delta({0: {1: text(512), 6: text(512)}, 2: 3}, 4 << 20, locator))
    return tuple(Patches(_resealed(each), _exercise) for each in found)


def _exercise(source: ReadAt) -> None:
    def neighbour(name: str) -> ReadAt:
        return source if name == "me" else vhdx_disk(text(9000))

    with documented():
        for layer in open_disk(source, "top", LayerOptions(neighbour=neighbour), read_up_to(source, 0, 512)):
            exercise_source(layer.source)
            if isinstance(layer.source, Linked) and layer.source.size < 1 << 34:
                assert sum(length for _, length in layer.source.own_ranges()) <= layer.source.size


def seeds() -> list[bytes]:
    return [
        b"",
        bytes(8),
        bytes(range(64)),
        b"\0" + bytes(16),
        b"\1",
        b"\x81" + bytes(16),
        b"\x81" + bytes(range(64)),
        b"\2",
        b"\x82" + bytes(16),
        b"\3",
    ]


def one_input(data: bytes) -> None:
    """The first byte says which disk it is, and whether checksums are made right again."""
    # CRC-32C of 64 KiB in Python takes most of an execution; the CRC of zlib stands for it.
    with mock.patch.object(vhdx, "crc32c", zlib.crc32), mock.patch.object(crc32c, "crc32c", zlib.crc32):
        source = _bases()[data[0] % 4 if data else 0].patched(data[1:])
        _exercise(Bounded(_resealed(source) if data[:1] > b"\x7f" else source))


def _resealed(source: ReadAt) -> DamagedSource:
    """With right checksums again, so that what is behind them is reached."""
    changes = []
    for at, magic, size in _SEALED:
        data = source.read_at(at, size)
        if data[:4] == magic:
            changes.append(Change(at + 4, crc32c.crc32c(data[:4] + bytes(4) + data[8:]).to_bytes(4, "little")))
    for at in range(_LOG, _LOG + 4 * LOG_SECTOR, LOG_SECTOR):
        data = source.read_at(at, LOG_SECTOR)
        if data[:4] == LOG_MAGIC:
            length = min(LogEntryHeader.parse(data).entry_length, 8 * LOG_SECTOR)
            data = source.read_at(at, length)
            changes.append(Change(at + 4, crc32c.crc32c(data[:4] + bytes(4) + data[8:]).to_bytes(4, "little")))
    return DamagedSource(source, changes)
