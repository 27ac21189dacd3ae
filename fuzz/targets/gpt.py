"""GUID partition tables; half of the inputs get right checksums, so that what is behind them is reached."""

from __future__ import annotations

import zlib
from uuid import UUID

from fuzz.exercise import Bounded, exercise_image
from vmvisor_image.schemas.gpt import SIGNATURE, GptHeader
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk


def seeds() -> list[bytes]:
    kind = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
    disk = gpt_disk([GptPartition(1, kind, 40, 8, "one"), GptPartition(7, kind, 48, 8, "seven")], sectors=100)
    return [disk.read_at(0, disk.size)]


def one_input(data: bytes) -> None:
    exercise_image(Bounded(data))
    exercise_image(Bounded(_sealed(data)))


def _sealed(data: bytes) -> bytes:
    found = bytearray(data)
    for at in (512, len(data) - 512):
        if data[at : at + 8] == SIGNATURE and at + 512 <= len(data):
            header = GptHeader.parse(data, at)
            start, length = header.entries_lba * 512, header.entry_count * header.entry_size
            if length < 1 << 20:
                found[at + 88 : at + 92] = zlib.crc32(data[start : start + length]).to_bytes(4, "little")
            size = min(header.header_size, 512)
            found[at + 16 : at + 20] = bytes(4)
            found[at + 16 : at + 20] = zlib.crc32(found[at : at + size]).to_bytes(4, "little")
    return bytes(found)
