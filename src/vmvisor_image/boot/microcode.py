"""Headers of microcode for processors, which ESXi loads as modules (``uc_intel.b00``, ``uc_amd.b00``).

Checked against iucode_tool (Intel) and the Python package amd-ucode-container (AMD), on forged updates only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.microcode import (
    AMD_MAGIC,
    AMD_PATCH,
    AMD_TABLE,
    AMD_TABLE_ENTRY,
    AmdContainer,
    AmdPatch,
    AmdSection,
    IntelHeader,
)
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

Vendor = Literal["Intel", "AMD"]

HEAD: Final = IntelHeader.length()
"""Bytes at the start that identify microcode."""
_OLD_SIZE, _OLD_DATA = 2048, 2000
_LARGEST: Final = 1 << 24
"""Most bytes of one update: the largest published ones have some hundred thousand."""
_MOST: Final = 4096
"""Most updates in a module that are read; real modules have some dozens."""
_STRUCTURE: Final = "CPU microcode"


@dataclass(frozen=True, slots=True)
class MicrocodeUpdate:
    """One microcode update."""

    vendor: Vendor
    """Vendor of the processors that it is for."""
    processor: int
    """Processor that it is for. Intel: signature by CPUID (leaf 1); AMD: its number in the container's table."""
    revision: int
    """Revision of the update, higher in newer ones."""
    released: date | None
    """Date of the update; None where its field is not a valid date."""
    offset: int
    """Bytes from the module's start to the update."""
    size: int
    """Bytes in the update."""


def find_vendor(head: bytes) -> Vendor | None:
    """Vendor of microcode, by its first `HEAD` bytes; None for anything else."""
    if len(head) >= AmdContainer.length():
        container = AmdContainer.parse(head)
        if container.magic == AMD_MAGIC:
            is_table = container.section_type == AMD_TABLE and container.size % AMD_TABLE_ENTRY == 0
            return "AMD" if is_table and container.size else None
    if len(head) < IntelHeader.length():
        return None
    return None if _intel_size(IntelHeader.parse(head)) is None else "Intel"


def read_updates(source: ReadAt) -> tuple[MicrocodeUpdate, ...]:
    """Updates in a module, in order; Intel's are checked against their checksums.

    Raises:
        CorruptImage: It is not microcode, or it is damaged.
    """
    found: list[MicrocodeUpdate] = []
    at = 0
    for _ in range(_MOST):
        head = read_up_to(source, at, HEAD)
        if not head:
            return tuple(found)
        vendor = find_vendor(head)
        if vendor is None:
            if found and not head.strip(b"\0"):
                return tuple(found)  # padding
            raise CorruptImage("neither Intel's nor AMD's", structure=_STRUCTURE, offset=at, found=head[:8].hex(" "))
        at = (_read_intel if vendor == "Intel" else _read_amd)(source, at, head, found)
    raise CorruptImage(f"more than {_MOST} updates", structure=_STRUCTURE, offset=at)


def _intel_size(header: IntelHeader) -> int | None:
    """Bytes in an update; None where the header is not that of an update."""
    size = header.total_size if header.data_size else _OLD_SIZE
    data = header.data_size or _OLD_DATA
    is_one = (
        (header.version, header.loader_revision) == (1, 1)
        and size % 4 == data % 4 == 0
        and HEAD + data <= size <= _LARGEST
        and _date(header.date) is not None
    )
    return size if is_one else None


def _read_intel(source: ReadAt, at: int, head: bytes, found: list[MicrocodeUpdate]) -> int:
    header = IntelHeader.parse(head, base=at)
    size = _intel_size(header) or HEAD
    data = source.read_at(at, size)
    total = sum(number for (number,) in struct.iter_unpack("<I", data)) % (1 << 32)
    if total:
        raise CorruptImage("its numbers do not add up to 0", structure=_STRUCTURE, offset=at, found=f"{total:#x}")
    found.append(MicrocodeUpdate("Intel", header.processor, header.revision, _date(header.date), at, size))
    return at + size


def _read_amd(source: ReadAt, at: int, head: bytes, found: list[MicrocodeUpdate]) -> int:
    at += AmdContainer.length() + AmdContainer.parse(head, base=at).size
    while len(data := read_up_to(source, at, AmdSection.length())) == AmdSection.length():
        section = AmdSection.parse(data, base=at)
        if section.section_type != AMD_PATCH:
            break  # another container follows
        if len(found) == _MOST:
            raise CorruptImage(f"more than {_MOST} updates", structure=_STRUCTURE, offset=at)
        if not AmdPatch.length() <= section.size <= _LARGEST:
            raise CorruptImage(
                "not a valid size of an update", structure=_STRUCTURE, field="size", offset=at, found=section.size
            )
        start = at + AmdSection.length()
        patch = AmdPatch.parse(source.read_at(start, AmdPatch.length()), base=start)
        at = start + section.size
        source.read_at(at - 1, 1)  # the whole update exists
        found.append(MicrocodeUpdate("AMD", patch.processor, patch.revision, _date(patch.date), start, section.size))
    return at


def _date(number: int) -> date | None:
    digits = f"{number:08x}"
    try:
        return date(int(digits[4:]), int(digits[:2]), int(digits[2:4]))
    except ValueError:
        return None
