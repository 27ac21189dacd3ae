"""Microcode of processors, which ESXi loads as modules (``uc_intel.b00``, ``uc_amd.b00``): what is in it, by header.

Checked beside iucode_tool (Intel) and the Python package amd-ucode-container (AMD), on forged updates only.
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
"""Bytes from its start by which it is known."""
_OLD_SIZE, _OLD_DATA = 2048, 2000
_LARGEST: Final = 1 << 24
"""Bytes of one update: the largest that are published have some hundred thousand."""
_MOST: Final = 4096
"""Updates that are looked at; a module has some dozens."""
_STRUCTURE: Final = "CPU microcode"


@dataclass(frozen=True, slots=True)
class MicrocodeUpdate:
    """One update."""

    vendor: Vendor
    """Whose processors it is for."""
    processor: int
    """Intel: what CPUID (leaf 1) says of the processor; AMD: the number that the container's table has for it."""
    revision: int
    """Higher is newer."""
    released: date | None
    """When it was made; None where that is no date."""
    offset: int
    """First byte of the update, in bytes from the module's start."""
    size: int
    """Bytes of it."""


def find_vendor(head: bytes) -> Vendor | None:
    """Whose microcode something is, by its first `HEAD` bytes; None where it is none."""
    if len(head) >= AmdContainer.length():
        container = AmdContainer.parse(head)
        if container.magic == AMD_MAGIC:
            is_table = container.section_type == AMD_TABLE and container.size % AMD_TABLE_ENTRY == 0
            return "AMD" if is_table and container.size else None
    if len(head) < IntelHeader.length():
        return None
    return None if _intel_size(IntelHeader.parse(head)) is None else "Intel"


def read_updates(source: ReadAt) -> tuple[MicrocodeUpdate, ...]:
    """The updates in a module, in order; of Intel's each is held against its checksum.

    Raises:
        CorruptImage: It is no microcode, or damaged.
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
                return tuple(found)  # what fills it up
            raise CorruptImage("neither Intel's nor AMD's", structure=_STRUCTURE, offset=at, found=head[:8].hex(" "))
        at = (_read_intel if vendor == "Intel" else _read_amd)(source, at, head, found)
    raise CorruptImage(f"more than {_MOST} updates", structure=_STRUCTURE, offset=at)


def _intel_size(header: IntelHeader) -> int | None:
    """Bytes of an update; None where the header is none."""
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
                "no size of an update", structure=_STRUCTURE, field="size", offset=at, found=section.size
            )
        start = at + AmdSection.length()
        patch = AmdPatch.parse(source.read_at(start, AmdPatch.length()), base=start)
        at = start + section.size
        source.read_at(at - 1, 1)  # it is all there
        found.append(MicrocodeUpdate("AMD", patch.processor, patch.revision, _date(patch.date), start, section.size))
    return at


def _date(number: int) -> date | None:
    digits = f"{number:08x}"
    try:
        return date(int(digits[4:]), int(digits[:2]), int(digits[2:4]))
    except ValueError:
        return None
