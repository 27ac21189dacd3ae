"""GUID partition tables; half of the inputs get right checksums, so that what is behind them is reached."""

from __future__ import annotations

import zlib
from dataclasses import replace
from uuid import UUID

from fuzz.exercise import Bounded, exercise_image
from vmvisor_image.schemas.gpt import SIGNATURE, GptHeader
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk, sealed


def seeds() -> list[bytes]:
    kind = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
    disk = gpt_disk([GptPartition(1, kind, 4, 4, "one"), GptPartition(7, kind, 8, 4, "seven")], sectors=100)
    table = disk.read_at(1024, 1024)
    header = replace(
        GptHeader.parse(disk.read_at(512, 512)),
        alternate_lba=14,
        first_usable_lba=4,
        last_usable_lba=11,
        entry_count=8,
        entries_crc=zlib.crc32(table),
    )
    backup = replace(header, my_lba=14, alternate_lba=1, entries_lba=12)
    primary = disk.read_at(0, 512) + sealed(header).ljust(512, b"\0") + table
    return [primary + bytes(8 * 512) + table + sealed(backup).ljust(512, b"\0")]


def one_input(data: bytes) -> None:
    exercise_image(Bounded(data))
    exercise_image(Bounded(_sealed(data)))


def _sealed(data: bytes) -> bytes:
    found = bytearray(data)
    for at in (512, len(data) - 512):
        if at >= 0 and data[at : at + 8] == SIGNATURE and at + 512 <= len(data):
            header = GptHeader.parse(data, at)
            start, length = header.entries_lba * 512, header.entry_count * header.entry_size
            if length < 1 << 20:
                found[at + 88 : at + 92] = zlib.crc32(data[start : start + length]).to_bytes(4, "little")
            size = min(header.header_size, 512)
            found[at + 16 : at + 20] = bytes(4)
            found[at + 16 : at + 20] = zlib.crc32(found[at : at + size]).to_bytes(4, "little")
    return bytes(found)
