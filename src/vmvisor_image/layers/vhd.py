"""VHD, fixed and dynamic. Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0.

Differencing disks are recognised and refused.
"""

from __future__ import annotations

from typing import Final

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.schemas.vhd import (
    DYNAMIC,
    FIXED,
    FOOTER_CHECKSUM,
    FOOTER_MAGIC,
    HEADER_CHECKSUM,
    HEADER_MAGIC,
    UNALLOCATED,
    VhdDynamicHeader,
    VhdFooter,
)
from vmvisor_image.streams.mapped import MappedDisk, Run, Tables
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import Slice

NAME: Final = "VHD"
KIND: Final = "vhd"
SUFFIXES: Final = (".vhd",)
FIXED_SUFFIXES: Final = (".vhd", ".vpc")
"""Suffixes of files that may be fixed VHDs, which begin as any disk does."""
MAGICS: Final = (Signature("vhd", "Virtual PC disk image (VHD)", 0, b"conectix", content="disk"),)
REFERENCES: Final = ("Microsoft, Virtual Hard Disk Image Format Specification 1.0",)
FOOTER: Final = 512
_HEADER: Final = 1024
_SECTOR: Final = 512
_VERSION: Final = 0x10000
_LARGEST_BLOCK: Final = 256 << 20
_MOST_BLOCKS: Final = 1 << 22
"""Largest number of blocks, since a search for data passes each one; enough for 2,040 GB, the largest VHD, in the
smallest blocks in use."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a dynamic VHD, which begins with a copy of its footer."""
    return head[:8] == FOOTER_MAGIC


def probe_end(tail: bytes) -> bool:
    """Whether a source whose last 512 bytes are `tail` is a fixed VHD."""
    return (
        len(tail) == FOOTER
        and tail[:8] == FOOTER_MAGIC
        and VhdFooter.parse(tail).disk_type == FIXED
        and _sum(tail, FOOTER_CHECKSUM) == VhdFooter.parse(tail).checksum
    )


def open_layer(source: ReadAt, options: LayerOptions) -> Source:  # noqa: ARG001  # as every layer
    """The disk in a VHD.

    Raises:
        CorruptImage: Both footers, or the header, are damaged, or it is a differencing disk.
    """
    footer, problems = _read_footer(source)
    if footer.disk_type == FIXED:
        return FixedDisk(source, footer, problems)
    if footer.disk_type != DYNAMIC:
        raise CorruptImage(
            f"disks of type {footer.disk_type} are not read: 4 is the difference to another one",
            structure="VHD footer",
            offset=footer.source_offset,
            field="disk_type",
        )
    findings = ProblemList("VHD disk")
    for problem in problems:
        findings.add(problem)
    _check_copy(source, footer, findings)
    reader = _Reader(source, footer, findings)
    return MappedDisk(KIND, source, footer.current_size, reader.locate, findings)


def _check_copy(source: ReadAt, footer: VhdFooter, findings: ProblemList) -> None:
    """Compare the footer of a dynamic disk with its copy at the start."""
    if footer.source_offset:
        copy = read_up_to(source, 0, FOOTER)
        if copy != read_up_to(source, footer.source_offset, FOOTER):
            damage = "" if VhdFooter.parse(copy).checksum == _sum(copy, FOOTER_CHECKSUM) else "; its checksum is wrong"
            findings.note("VHD footer", f"its copy at the start differs from it{damage}", 0)


class FixedDisk(Slice):
    """A fixed disk: the data, followed by the footer."""

    def __init__(self, source: ReadAt, footer: VhdFooter, problems: tuple[Problem, ...]) -> None:
        """Take the data before the footer."""
        at = source.size - FOOTER
        super().__init__(source, 0, min(footer.current_size, at), "vhd disk")
        if footer.current_size > at:
            message = f"the disk has {footer.current_size} bytes, of which {at} are there"
            problems = (*problems, Problem("VHD footer", message, at + 48))
        elif footer.current_size < at:
            message = f"the disk has {footer.current_size} bytes; {at - footer.current_size} more are before the footer"
            problems = (*problems, Problem("VHD footer", message, at + 48))
        self._problems = problems

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found when the disk was opened."""
        return self._problems


def _read_footer(source: ReadAt) -> tuple[VhdFooter, tuple[Problem, ...]]:
    """The footer at the end, or its copy at the start if that is damaged, and the problems found.

    Raises:
        CorruptImage: Both are damaged.
    """
    found = []
    for at in (max(source.size - FOOTER, 0), 0):
        data = read_up_to(source, at, FOOTER)
        if len(data) < FOOTER or data[:8] != FOOTER_MAGIC:
            found.append(Problem("VHD footer", "it is none", at))
            continue
        footer = VhdFooter.parse(data, base=at)
        if footer.checksum == _sum(data, FOOTER_CHECKSUM):
            return footer, tuple(found)
        found.append(Problem("VHD footer", "its checksum is wrong", at))
    first = found[0]
    raise CorruptImage(first.message, structure=first.structure, offset=first.offset)


class _Reader:
    def __init__(self, source: ReadAt, footer: VhdFooter, findings: ProblemList) -> None:
        self._findings, self._end = findings, source.size
        at = footer.data_offset
        data = read_up_to(source, at, _HEADER)
        if len(data) < _HEADER or data[:8] != HEADER_MAGIC:
            raise CorruptImage("it is none", structure="VHD dynamic header", offset=at, field="magic")
        header = VhdDynamicHeader.parse(data, base=at)
        if header.checksum != _sum(data, HEADER_CHECKSUM):
            raise CorruptImage("its checksum is wrong", structure="VHD dynamic header", offset=at, field="checksum")
        size = header.block_size
        if not _SECTOR <= size <= _LARGEST_BLOCK or size & (size - 1):
            raise CorruptImage(
                f"{size} bytes are not a valid block size",
                structure="VHD dynamic header",
                offset=at,
                field="block_size",
            )
        if footer.current_size > _MOST_BLOCKS * size:
            raise CorruptImage(
                f"{footer.current_size} bytes are more than {_MOST_BLOCKS} blocks",
                structure="VHD footer",
                offset=footer.source_offset,
                field="current_size",
            )
        if header.entry_count * size < footer.current_size:
            raise CorruptImage(
                f"{header.entry_count} are too few for {footer.current_size} bytes",
                structure="VHD dynamic header",
                offset=at,
                field="entry_count",
            )
        if header.table_offset + 4 * header.entry_count > source.size:
            findings.note("VHD dynamic header", f"its table of {header.entry_count} entries passes the end", at + 28)
        if header.version != _VERSION or footer.version != _VERSION:
            findings.note("VHD dynamic header", "the versions of header and footer are not both 1.0", at + 24)
        self._header = header
        self._bitmap = -(-size // _SECTOR // 8 // _SECTOR) * _SECTOR or _SECTOR
        self._tables = Tables(KIND, source, "big")

    def locate(self, offset: int) -> Run:
        """See `MappedDisk`; in an allocated block, a bit for each sector says whether it was written."""
        number, within = divmod(offset, self._header.block_size)
        entry = self._tables.number(self._header.table_offset + 4 * number, 4, "block allocation table")
        if entry == UNALLOCATED:
            return Run(self._header.block_size - within)
        block = entry * _SECTOR
        if block + self._bitmap + self._header.block_size > self._end:
            at = self._header.table_offset + 4 * number
            self._findings.note("VHD block allocation table", f"block {number} passes the end of the source", at)
        if block < self._header.table_offset + 4 * (number + 1):
            at = self._header.table_offset + 4 * number
            self._findings.note("VHD block allocation table", f"block {number} lies in the headers or the table", at)
        sector, skip = divmod(within, _SECTOR)
        first = self._bit(block, sector)
        last = self._header.block_size // _SECTOR
        end = sector + 1
        while end < last and end % 8 and self._bit(block, end) == first:
            end += 1
        while end % 8 == 0 and end < last and self._byte(block, end) == (0xFF if first else 0):
            end += 8
        length = (end - sector) * _SECTOR - skip
        return Run(length, block + self._bitmap + within if first else None)

    def _bit(self, block: int, sector: int) -> bool:
        return bool(self._byte(block, sector) & 0x80 >> sector % 8)

    def _byte(self, block: int, sector: int) -> int:
        return self._tables.number(block + sector // 8, 1, "sector bitmap")


def _sum(data: bytes, checksum: slice) -> int:
    return ~(sum(data) - sum(data[checksum])) & 0xFFFFFFFF
