"""Partition tables that are damaged in one way each; their list is in docs/malformed-tables.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.test_gpt import forged, reseal
from tests.test_partitions import SECTOR, logical_disk

HEADER, ENTRIES = 512, 1024
BACKUP_HEADER, BACKUP_ENTRIES = 4095 * 512, (4095 - 32) * 512
RECORDS = [8192 * SECTOR, 2 * 8192 * SECTOR, 3 * 8192 * SECTOR]
"""Extended boot records of the disk that is damaged."""


@dataclass(frozen=True)
class Malformed:
    """One way to damage a table."""

    name: str
    build: Callable[[], bytes]
    readable: tuple[int, ...]
    """Partitions that are still there."""


def mbr(*changes: tuple[int, bytes], cut: int | None = None) -> Callable[[], bytes]:
    def build() -> bytes:
        disk = logical_disk()
        for at, value in changes:
            disk[at : at + len(value)] = value
        return bytes(disk[:cut])

    return build


def gpt(
    *changes: tuple[int, bytes], both: bool = False, seal: bool = False, cut: int | None = None
) -> Callable[[], bytes]:
    """Changes to the primary copy (or both); offsets count from the header or, from 512 on, from the entries."""

    def build() -> bytes:
        disk = bytearray(forged(512))
        copies = [(HEADER, ENTRIES)] + ([(BACKUP_HEADER, BACKUP_ENTRIES)] if both else [])
        for header, entries in copies:
            for at, value in changes:
                place = header + at if at < 512 else entries + at - 512
                disk[place : place + len(value)] = value
            if seal:
                reseal(disk, header, entries)
        return bytes(disk[:cut])

    return build


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


LINK = 446 + 16 + 8
"""Where the link of an extended boot record says the next one is."""
ENTRY_1, ENTRY_5 = 512, 512 + 4 * 128

CASES = (
    Malformed("MBR: 55 AA is missing", mbr((510, b"\0\0")), (1, 2, 5, 6, 7)),
    Malformed("MBR: the chain of logical partitions loops", mbr((RECORDS[1] + LINK, u32(8192))), (1, 2, 5, 6)),
    Malformed("MBR: a link past the end of the disk", mbr((RECORDS[1] + LINK, u32(1 << 30))), (1, 2, 5, 6)),
    Malformed("MBR: an extended boot record without 55 AA", mbr((RECORDS[1] + 510, b"\0\0")), (1, 2, 5, 6, 7)),
    Malformed("MBR: an extended boot record of noise", mbr((RECORDS[1], b"\xa5" * 512)), (1, 2, 5)),
    Malformed("MBR: a partition past the end of the disk", mbr((446 + 12, u32(1 << 31))), (1, 2, 5, 6, 7)),
    Malformed("MBR: a primary partition in the extended one", mbr((446 + 8, u32(16384 + 32))), (1, 2, 5, 6, 7)),
    Malformed("MBR: two partitions overlap", mbr((RECORDS[0] + 446 + 12, u32(9000))), (1, 2, 5, 6, 7)),
    Malformed("MBR: the disk ends within the chain", mbr(cut=RECORDS[1] + 100), (1, 2, 5)),
    Malformed("MBR: half a sector", mbr(cut=300), ()),
    Malformed("GPT: the primary header is gone", gpt((0, bytes(92))), (1, 5)),
    Malformed("GPT: a bad CRC of the primary header", gpt((40, u64(77))), (1, 5)),
    Malformed("GPT: a bad CRC of the primary entries", gpt((ENTRY_1 + 32, u64(65))), (1, 5)),
    Malformed("GPT: both headers have a bad CRC", gpt((40, u64(77)), both=True), (1, 5)),
    Malformed("GPT: both headers are gone", gpt((0, bytes(92)), both=True), (1,)),
    Malformed("GPT: 2³² - 1 entries", gpt((80, u32(0xFFFFFFFF)), seal=False), (1, 5)),
    Malformed("GPT: 2³² - 1 entries in both copies", gpt((80, u32(0xFFFFFFFF)), both=True), (1,)),
    Malformed("GPT: entries of 3 bytes", gpt((84, u32(3))), (1, 5)),
    Malformed("GPT: entries of 2³¹ bytes", gpt((84, u32(1 << 31))), (1, 5)),
    Malformed("GPT: a header of 2 GB", gpt((12, u32(0x7FFFFFFF))), (1, 5)),
    Malformed("GPT: entries past the end of the disk", gpt((72, u64(1 << 60)), both=True), ()),
    Malformed("GPT: the header says it is elsewhere", gpt((24, u64(9)), seal=True), (1, 5)),
    Malformed("GPT: a partition ends before it starts", gpt((ENTRY_1 + 40, u64(3)), both=True, seal=True), (5,)),
    Malformed(
        "GPT: a partition past the end of the disk", gpt((ENTRY_5 + 40, u64(1 << 50)), both=True, seal=True), (1, 5)
    ),
    Malformed("GPT: two partitions overlap", gpt((ENTRY_1 + 40, u64(1100)), both=True, seal=True), (1, 5)),
    Malformed("GPT: a partition in the table itself", gpt((ENTRY_1 + 32, u64(2)), both=True, seal=True), (1, 5)),
    Malformed("GPT: the copies differ", gpt((ENTRY_1 + 40, u64(300)), seal=True), (1, 5)),
    Malformed("GPT: the backup is cut off", gpt(cut=4000 * 512), (1, 5)),
    Malformed("GPT: half a primary header is all there is", gpt(cut=512 + 40), (1,)),
    Malformed("GPT: the protective record is gone", lambda: bytes(512) + forged(512)[512:], (1, 5)),
)
