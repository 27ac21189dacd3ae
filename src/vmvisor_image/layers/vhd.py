"""VHD: fixed, dynamic, and the difference to another disk, which is found beside it.

Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import unquote
from uuid import UUID

from vmvisor_image.base.open_options import ParentChoice
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.layers.parents import Reference, find_parent, first_there, refuse_snapshot
from vmvisor_image.schemas.vhd import (
    ABSOLUTE_PATH,
    DIFFERENCING,
    DYNAMIC,
    FILE_URL,
    FIXED,
    FOOTER_CHECKSUM,
    FOOTER_MAGIC,
    HEADER_CHECKSUM,
    HEADER_MAGIC,
    PARENT_OFFSET,
    RELATIVE_PATH,
    SECTOR,
    UNALLOCATED,
    VhdDynamicHeader,
    VhdFooter,
    VhdParent,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Linked, Parent
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.tables import Tables
from vmvisor_image.streams.views import Slice

NAME: Final = "VHD"
KIND: Final = "vhd"
SUFFIXES: Final = (".vhd", ".avhd")
FIXED_SUFFIXES: Final = (".vhd", ".vpc")
"""Suffixes of files that may be fixed VHDs, which begin as any disk does."""
MAGICS: Final = (Signature("vhd", "Virtual PC disk image (VHD)", 0, b"conectix", content="disk"),)
REFERENCES: Final = ("Microsoft, Virtual Hard Disk Image Format Specification 1.0",)
FOOTER: Final = 512
_HEADER: Final = 1024
_PARENT: Final = "VHD parent"
_LONGEST_PATH: Final = 1 << 16
"""Bytes of a path of the parent that are read; Windows has paths of 32,767 characters at most."""
_YEAR_2000: Final = 946_684_800
"""Seconds from 1970 to 2000."""
_SAME_SECONDS: Final = 2
"""Largest difference of two times that are the same; FAT keeps every other second."""
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


def open_layer(source: ReadAt, options: LayerOptions) -> Source:
    """The disk in a VHD.

    Raises:
        CorruptImage: Both footers, or the header, are damaged, or the disk is of an unknown type; or the disk that it
            rests on can't be opened or is another one.
        UnsafeName: The name of that disk does not name a file.
        MemberNotFound: A snapshot is asked for.
    """
    refuse_snapshot(NAME, options)
    footer, problems = _read_footer(source)
    if footer.disk_type == FIXED:
        return FixedDisk(source, footer, problems)
    if footer.disk_type not in (DYNAMIC, DIFFERENCING):
        raise CorruptImage(
            f"disks of type {footer.disk_type} are not known",
            structure="VHD footer",
            offset=footer.source_offset,
            field="disk_type",
        )
    findings = ProblemList("VHD disk")
    for problem in problems:
        findings.add(problem)
    _check_copy(source, footer, findings)
    reader = _Reader(source, footer, findings)
    parent = None
    if footer.disk_type == DIFFERENCING:
        references = reader.references(options)
        parent = find_parent(first_there(references, options), options, findings)
        if parent is not None:
            reader.compare(parent)
    identity = str(UUID(bytes=footer.unique_id))
    disk = VhdDisk(KIND, source, footer.current_size, reader.locate, findings, parent=parent, identity=identity)
    disk.times = _times(source, footer)
    return disk


class VhdDisk(MappedDisk):
    """A dynamic or differencing disk."""

    times: tuple[int, ...] = ()
    """See `_times`."""


def _times(source: ReadAt, footer: VhdFooter) -> tuple[int, ...]:
    """Times that a child may have of a disk: that of its footer, and that of its file where it has one; since 2000."""
    written = as_source(source).modified_ns
    return (footer.timestamp,) if written is None else (footer.timestamp, written // 10**9 - _YEAR_2000)


def _check_copy(source: ReadAt, footer: VhdFooter, findings: ProblemList) -> None:
    """Compare the footer of a dynamic disk with its copy at the start."""
    if footer.source_offset:
        copy = read_up_to(source, 0, FOOTER)
        if copy != read_up_to(source, footer.source_offset, FOOTER):
            damage = "" if VhdFooter.parse(copy).checksum == _sum(copy, FOOTER_CHECKSUM) else "; its checksum is wrong"
            findings.note("VHD footer", f"its copy at the start differs from it{damage}", 0)


class FixedDisk(Slice, Linked):
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
        self.identity = str(UUID(bytes=footer.unique_id))
        self.times = _times(source, footer)
        """See `_times`."""

    def own_ranges(self) -> Iterator[tuple[int, int]]:
        """See `Linked.own_ranges`: all of it."""
        yield 0, self.size

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
            found.append(Problem("VHD footer", "there is no footer here", at))
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
        self._source, self._size = source, footer.current_size
        at = footer.data_offset
        data = read_up_to(source, at, _HEADER)
        if len(data) < _HEADER or data[:8] != HEADER_MAGIC:
            raise CorruptImage("there is no such header here", structure="VHD dynamic header", offset=at, field="magic")
        header = VhdDynamicHeader.parse(data, base=at)
        self._parent = VhdParent.parse(data, PARENT_OFFSET, base=at)
        if header.checksum != _sum(data, HEADER_CHECKSUM):
            raise CorruptImage("its checksum is wrong", structure="VHD dynamic header", offset=at, field="checksum")
        size = header.block_size
        if not SECTOR <= size <= _LARGEST_BLOCK or size & (size - 1):
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
        self._bitmap = -(-size // SECTOR // 8 // SECTOR) * SECTOR or SECTOR
        self._tables = Tables(KIND, source, "big")

    def references(self, options: LayerOptions) -> list[Reference]:
        """References to the parent: its paths, then its name.

        Raises:
            CorruptImage: There are none, and the parent is to be found by them.
        """
        parent, at = self._parent, self._parent.source_offset
        if not any(parent.unique_id):
            self._findings.note(_PARENT, "it has no identifier of the parent, which can't be checked", at)
        identity = str(UUID(bytes=parent.unique_id)) if any(parent.unique_id) else None
        found = {}
        for each in parent.locators:
            if each.code not in (RELATIVE_PATH, ABSOLUTE_PATH, FILE_URL):
                continue
            if each.data_length > each.space * SECTOR:  # where the space is in bytes, it is larger still
                message = f"a path of {each.data_length} bytes is longer than its space of {each.space} sectors"
                self._findings.note(_PARENT, message, each.source_offset)
            data = read_up_to(self._source, each.data_offset, min(each.data_length, _LONGEST_PATH))
            is_url = each.code == FILE_URL
            found[each.code] = (
                unquote(data.decode("utf-8", "replace")) if is_url else data.decode("utf-16-le", "replace")
            )
        texts = [found.get(code, "") for code in (RELATIVE_PATH, ABSOLUTE_PATH, FILE_URL)]
        texts.append(parent.name.decode("utf-16-be", "replace"))
        names = [name for text in texts if (name := text.partition("\0")[0])]
        if not names and isinstance(options.parent, ParentChoice):
            raise CorruptImage("it has no path of the parent: give it as parent", structure=_PARENT, offset=at)
        return [Reference(name, _PARENT, at, KIND, identity) for name in names or [""]]

    def compare(self, parent: Parent) -> None:
        """Report a parent of another size, and one that was written at another time than the disk has for it."""
        at = self._parent.source_offset
        if parent.source.size != self._size:
            message = f"the parent {parent.name!r} has {parent.source.size} bytes, and the disk {self._size}"
            self._findings.note(_PARENT, message, at)
        wanted = self._parent.timestamp
        if not wanted or not isinstance(parent.source, VhdDisk | FixedDisk) or len(parent.source.times) < 2:
            return
        if all(abs(wanted - there) > _SAME_SECONDS for there in parent.source.times):
            written = parent.source.times[-1]
            message = (
                f"the file of the parent {parent.name!r} was written at another time than the disk has for it, "
                f"{_written(written)} and not {_written(wanted)}: it may have changed since, or be a copy"
            )
            self._findings.note(_PARENT, message, at)

    def locate(self, offset: int, _: int) -> Run:
        """See `MappedDisk`; in an allocated block, a bit for each sector says whether it was written."""
        number, within = divmod(offset, self._header.block_size)
        entry = self._tables.number(self._header.table_offset + 4 * number, 4, "block allocation table")
        if entry == UNALLOCATED:
            return Run(self._header.block_size - within, is_hole=True)
        block = entry * SECTOR
        if block + self._bitmap + self._header.block_size > self._end:
            at = self._header.table_offset + 4 * number
            self._findings.note("VHD block allocation table", f"block {number} passes the end of the source", at)
        if block < self._header.table_offset + 4 * (number + 1):
            at = self._header.table_offset + 4 * number
            self._findings.note("VHD block allocation table", f"block {number} lies in the headers or the table", at)
        sector, skip = divmod(within, SECTOR)
        most = self._header.block_size // SECTOR - sector
        is_here, count = self._tables.same_bits(block + sector // 8, sector % 8, most, "sector bitmap", high_first=True)
        length = count * SECTOR - skip
        return Run(length, block + self._bitmap + within) if is_here else Run(length, is_hole=True)


def _written(seconds: int) -> str:
    """A time in seconds since 2000 in words."""
    try:
        return f"{datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return f"{seconds} seconds after 2000"


def _sum(data: bytes, checksum: slice) -> int:
    return ~(sum(data) - sum(data[checksum])) & 0xFFFFFFFF
