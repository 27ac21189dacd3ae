"""The place of what is behind damage in bzip2 data: found by the partition table, or by what the healthy rest says.

A block's decoded size is unknown when it is damaged, and so is the place on the disk of all that follows. Some
structures say where they lie themselves: the header of a GPT (UEFI Specification 2.10, 5.3.2, ``MyLBA``), and the boot
sector of a FAT volume (fatgen103, ``BPB_HiddSec``), though that is often 0, or counted from an extended boot record.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from vmvisor_image.bzip2.bridged import BridgedReader, Rest, find_rest
from vmvisor_image.bzip2.reader import Bzip2Reader
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.disk.tables.gpt import header_crc
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.schemas.fat import BiosParameterBlock
from vmvisor_image.schemas.gpt import SECTOR_SIZES, SIGNATURE, GptHeader
from vmvisor_image.schemas.mbr import SECTOR
from vmvisor_image.schemas.mbr import SIGNATURE as BOOT_SIGNATURE
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.fat.volume import is_boot_sector

_BOOT_SECTOR: Final = 512
_TAIL: Final = 4096
"""Bytes of a block that are looked at once more together with the next one."""
_MOST_CLAIMS: Final = 4096
_LONGEST: Final = 4 << 20
"""Most bytes of a GPT's entries that are read."""
_BY_TABLE: Final = "the end of the last partition"
_KINDS: Final = {"GPT": "a GPT header", "FAT": "the boot sectors of FAT volumes"}
"""Names of the structures, the most certain one first."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A structure that says where on the disk it lies."""

    place: int
    """Bytes from the first byte behind the damage to the structure."""
    start: int
    """Bytes from the start of the disk to it, as it says itself."""
    kind: Literal["GPT", "FAT"]
    """Kind of the structure: the header of a GPT, which has a checksum, or the boot sector of a FAT volume."""
    offset: int
    """Bytes from it to what belongs to it: the entries of a GPT, the first entry of a FAT."""
    length: int
    """Bytes of that."""
    crc32: int
    """CRC-32 of that."""

    @property
    def shift(self) -> int:
        """Bytes from the start of the disk to the first byte behind the damage."""
        return self.start - self.place


class _Claims:
    """Search for such structures in blocks as they are decoded."""

    def __init__(self) -> None:
        self.found: list[_Claim] = []
        self._seen: set[bytes] = set()
        """Boot sectors: FAT32 has a copy of its own, which does not lie where it says."""
        self._tail = b""

    def examine(self, place: int, data: bytes) -> None:
        """Look through a block at `place`; see `find_rest`."""
        if not place:
            self.found.clear()
            self._seen.clear()
            self._tail = b""
        whole = self._tail + data
        begin = place - len(self._tail)
        self._tail = whole[-_TAIL:]
        if len(self.found) > _MOST_CLAIMS:
            return
        at = whole.find(SIGNATURE)
        while at >= 0:
            self._add_gpt(begin + at, whole[at : at + max(SECTOR_SIZES)])
            at = whole.find(SIGNATURE, at + 1)
        at = whole.find(BOOT_SIGNATURE, _BOOT_SECTOR - len(BOOT_SIGNATURE))
        while at >= 0:
            first = at - (_BOOT_SECTOR - len(BOOT_SIGNATURE))
            self._add_fat(begin + first, whole[first : first + _BOOT_SECTOR])
            at = whole.find(BOOT_SIGNATURE, at + 1)

    def _add_gpt(self, place: int, raw: bytes) -> None:
        if len(raw) < GptHeader.length():
            return
        header = GptHeader.parse(raw)
        if header_crc(header, raw) != header.header_crc:
            return
        length = header.entry_count * header.entry_size
        for unit in SECTOR_SIZES:  # with the wrong one the entries are not there
            offset = (header.entries_lba - header.my_lba) * unit
            claim = _Claim(place, header.my_lba * unit, "GPT", offset, length, header.entries_crc)
            self.found.append(claim)

    def _add_fat(self, place: int, sector: bytes) -> None:
        if sector in self._seen or not is_boot_sector(sector):
            return
        self._seen.add(sector)
        block = BiosParameterBlock.parse(sector)
        offset, first = block.reserved_sectors * block.bytes_per_sector, bytes([block.media, 0xFF])
        claim = _Claim(place, block.hidden_sectors * SECTOR, "FAT", offset, len(first), zlib.crc32(first))
        self.found.append(claim)


def bridged(reader: Bzip2Reader) -> tuple[Bzip2Reader | BridgedReader, Problem | None]:
    """Reader with the data behind its damage in place; the same reader without damage, or where it has no known place.

    And the problem that it has none.
    """
    with contextlib.suppress(CorruptImage):
        _ = reader.size
        return reader, None
    claims = _Claims()
    rest = find_rest(reader, claims.examine)
    end, placed_by = _end_by_table(reader), _BY_TABLE
    if not end and rest.reaches_end:
        end, placed_by = _end_by_claims(reader, rest, claims.found)
    if end:
        with contextlib.suppress(CorruptImage):
            return BridgedReader(reader, reader.source, end, rest=rest, placed_by=placed_by), None
    return reader, None if not rest.all_blocks else _without_place(reader, rest)


def _end_by_table(reader: Bzip2Reader) -> int:
    """Bytes to the end of the last partition that the table has before the damage; 0 without one."""
    end = 0
    with contextlib.suppress(CorruptImage):  # an entry after the damage: the earlier ones also say where the disk ends
        for entry in find_table(reader).entries():
            end = max(end, entry.start + entry.size)
    return end


def _end_by_claims(reader: Bzip2Reader, rest: Rest, claims: list[_Claim]) -> tuple[int, str]:
    """Bytes to the disk's end by what lies behind the damage, and what says so; 0 where nothing does so clearly."""
    before = reader.healthy_size
    behind = BridgedReader(reader, reader.source, before + rest.size, rest=rest)  # as if nothing were lost
    sound = [claim for claim in claims if claim.shift > before and _is_whole(behind, before, claim)]
    for kind, what in _KINDS.items():
        votes = Counter(claim.shift for claim in sound if claim.kind == kind).most_common(2)
        if votes and (len(votes) == 1 or votes[0][1] > votes[1][1]):
            return votes[0][0] + rest.size, f"{what} behind the damage"
    return 0, ""


def _is_whole(behind: ReadAt, before: int, claim: _Claim) -> bool:
    """Whether what belongs to a structure is where it should be."""
    at = claim.place + claim.offset
    if at < 0 or claim.length > _LONGEST:
        return False
    try:
        return zlib.crc32(behind.read_at(before + at, claim.length)) == claim.crc32
    except CorruptImage:
        return False


def _without_place(reader: Bzip2Reader, rest: Rest) -> Problem:
    blocks = f"{rest.all_blocks} healthy block{'' if rest.all_blocks == 1 else 's'}"
    message = (
        f"{blocks} with {rest.all_bytes} bytes behind the damage have no known place on the disk, as neither the"
        " partition table nor anything in them says it; in Python, vmvisor_image.bzip2.Bzip2Reader.salvage() gives them"
    )
    return Problem("bzip2 data", message, reader.healthy_size)
