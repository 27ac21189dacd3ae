"""Parts shared by the faces, so that each shows the same of an image: its summary, the columns of tables, explanations.

Everything here is text as it is in the image, or plain values: a face escapes it, lays it out and colours it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from vmvisor_image.disk.explanation import Explanation, described_generation
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.purpose import Generation
from vmvisor_image.disk.tables.table import is_lost
from vmvisor_image.errors import CorruptImage, LimitExceeded, NotAFileSystem, Problem
from vmvisor_image.examine.survey import Survey
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.linked import facts_of
from vmvisor_image.volumes.role import Role
from vmvisor_image.volumes.volume import BaseVolume, complete, has_files

if TYPE_CHECKING:
    from vmvisor_image.reports.inspection import ImageReport, PartitionReport

MAP_CELLS: Final = 72
"""Characters in a map, or in a strip of entropy, as text."""
MOST_ENTRIES: Final = 200
"""Most files or fields in a table."""
LARGEST_EXACT: Final = 8 << 30
"""Largest size in bytes of a partition that is read whole to be shown."""
GAP: Final = "  "
"""Space between the columns of a table as text."""
STRIP: Final = " .:-=+*%@"
"""Characters for an entropy of 0 to 8 bits per byte."""
Place = Literal["shell", "python"]
"""Place where an explanation is shown, which decides in which words it says what can be done."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and what becomes of it where the table is too wide."""

    heading: str
    expendable: int = 0
    """Order in which columns are left out, from 1; 0 for one that is always there."""
    shortest: int | None = None
    """Number of characters down to which it may be cut before it is left out; None where its text is never cut."""
    is_number: bool = False
    """Whether its text is aligned to the right."""


PARTITION_COLUMNS: Final = (
    Column("#"),
    Column("Label"),
    Column("Start", 3),
    Column("Size", 5, is_number=True),
    Column("Type", 1, shortest=14),
    Column("Kind", 4),
    Column("Role", 6),
    Column("Files", 2, is_number=True),
)
"""Columns of `Summary.rows`. A label is never cut, as it has to be typed; a type is, as the kind and role say more."""
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Fitted(NamedTuple):
    """A table that fits a width."""

    kept: tuple[tuple[int, int], ...]
    """Number, from 0, and width in characters of each column that is kept."""
    left_out: tuple[str, ...]
    """Headings of the columns that are left out."""


def fit(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None, gap: int = len(GAP)) -> Fitted:
    """Columns of a table that fit in `width` columns of a terminal; the least important ones are cut, or else left out.

    Args:
        columns: Columns of the table.
        rows: Cells of each row.
        width: Characters in a line; None for no end, where nothing is cut or left out.
        gap: Characters between two columns.
    """
    widths = {
        at: max(map(columns_of, cells)) for at, cells in enumerate(zip(*_with_heading(columns, rows), strict=True))
    }
    left_out: set[int] = set()
    if width is not None:
        expendable = sorted((at for at, column in enumerate(columns) if column.expendable), key=_order(columns))
        for at in expendable:
            excess = sum(widths.values()) + gap * (len(widths) - 1) - width
            if excess <= 0:
                break
            shortest = columns[at].shortest
            if shortest is not None and widths[at] - excess >= shortest:
                widths[at] -= excess
            else:
                del widths[at]
                left_out.add(at)
    return Fitted(tuple(widths.items()), tuple(columns[at].heading for at in sorted(left_out)))


def _with_heading(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    return [[column.heading for column in columns], *rows]


def _order(columns: Sequence[Column]) -> Callable[[int], int]:
    return lambda at: columns[at].expendable


def cut(text: str, width: int) -> str:
    """Text of at most `width` columns, with an ellipsis in place of what is cut off."""
    if columns_of(text) <= width:
        return text
    end = columns = 0
    for character in text:
        columns += columns_of(character)
        if columns >= width:
            break
        end += 1
    return f"{text[:end]}…"


def padded(text: str, width: int, *, to_the_right: bool = False) -> str:
    """Text with spaces up to `width` columns behind it, or, `to_the_right`, before it."""
    spaces = " " * (width - columns_of(text))
    return f"{spaces}{text}" if to_the_right else f"{text}{spaces}"


def columns_of(text: str) -> int:
    """Columns of a terminal that a text takes: two for wide characters, none for marks on the one before.

    Source: Unicode Standard Annex 11, "East Asian Width", of which W and F are wide.
    """
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if is_wide(character) else 1


def is_wide(character: str) -> bool:
    """Whether a character takes two columns of a terminal."""
    return unicodedata.east_asian_width(character) in ("W", "F")


def sized(size: int) -> str:
    """A number of bytes in the largest binary unit that gives at least 1, such as "48.0 MiB"."""
    if size < 1024:
        return f"{size} bytes"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / (1 << 10 * power):.1f} {_UNITS[power - 1]}"


class RoleColor(NamedTuple):
    """The colour of a role."""

    css: str
    terminal: str | None
    """Name of the colour in rich; None for the colour of other text."""


ROLE_COLORS: Final = MappingProxyType(
    {
        Role.BOOT: RoleColor("#3b6ea5", "blue"),
        Role.BOOTBANK: RoleColor("#2e7d32", "green"),
        Role.ALT_BOOTBANK: RoleColor("#558b57", "bright_green"),
        Role.COREDUMP: RoleColor("#c62828", "red"),
        Role.STORE: RoleColor("#8e5a8a", "magenta"),
        Role.SCRATCH: RoleColor("#a86400", "yellow"),
        Role.DATASTORE: RoleColor("#00838f", "cyan"),
        Role.INSTALLER: RoleColor("#3949ab", "blue"),
        Role.OSDATA: RoleColor("#0b5c66", "bright_cyan"),
        Role.VSAN: RoleColor("#00695c", "cyan"),
        Role.MEMORY_TIER: RoleColor("#6d4c41", "bright_yellow"),
        Role.UNKNOWN: RoleColor("#757575", None),
    }
)
"""Colour of each role whose partitions are drawn."""


class Drawn(Protocol):
    """A partition, or the report of one."""

    @property
    def key(self) -> str:
        """Name of the partition that commands take."""
        ...

    @property
    def start(self) -> int:
        """First byte, from the start of the disk."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    @property
    def role(self) -> Role:
        """Purpose of the partition."""
        ...


D = TypeVar("D", bound=Drawn)


def digit_of(partition: Drawn) -> str:
    """Character that stands for a partition on a map: the last digit of its number, or ``@`` where it was found."""
    return "@" if partition.key.startswith("@") else partition.key[-1]


@dataclass(frozen=True, slots=True)
class Cell(Generic[D]):
    """A cell of the map that a partition occupies."""

    partition: D
    is_first: bool
    """Whether it is the partition's first cell."""


def map_end(partitions: Sequence[Drawn], disk_size: int | None) -> int:
    """Bytes from the start of the disk to the end of its map; 0 where there is nothing to draw."""
    return max([disk_size or 0, *(partition.start + partition.size for partition in partitions)])


def map_cells(partitions: Sequence[D], disk_size: int | None = None) -> list[Cell[D] | None]:
    """Cells of the disk from left to right, to scale, at least one for each partition; None outside of partitions."""
    end = max(1, map_end(partitions, disk_size))
    cells: list[Cell[D] | None] = [None] * MAP_CELLS
    drawn = [partition for partition in partitions if partition.role is not Role.CONTAINER]
    # The large ones first, so that small ones with a single cell stay visible.
    for partition in sorted(drawn, key=lambda partition: -partition.size):
        first = min(partition.start * MAP_CELLS // end, MAP_CELLS - 1)
        last = max(first + 1, (partition.start + partition.size) * MAP_CELLS // end)
        cells[first:last] = [Cell(partition, at == first) for at in range(first, last)]
    return cells


@dataclass(frozen=True, slots=True)
class Summary:
    """What each face shows of an image or a partition table."""

    title: str | None
    """Path or URL of the image; "image" without one, None for a partition table."""
    lines: tuple[str, ...]
    """Layers, size, kind of the partition table, layout, facts and active bank, in words."""
    partitions: tuple[Drawn, ...]
    """Partitions on the map."""
    size: int | None
    """Bytes of the decoded disk; None where that is not known."""
    rows: tuple[tuple[str, ...], ...]
    """Cells of each partition's row, for `PARTITION_COLUMNS`."""
    problems: tuple[Problem, ...]
    """Damage found so far."""


def summary_of_report(report: ImageReport) -> Summary:
    """Summary of the report of an image."""
    partitions = report.partitions
    size = "unknown size" if report.size is None else f"{report.size} bytes ({sized(report.size)})"
    sector_size = partitions[0].sector_size if partitions else None
    scheme = "lost" if is_lost(report.problems) else report.scheme
    active = next((each.key for each in partitions if each.number == report.active_bank), None)
    lines = _table_lines(scheme, sector_size, report.layout, report.generation, active)
    return Summary(
        title=report.name or "image",
        lines=(
            *_layer_lines(report.layers),
            *_chain_lines(report.chain),
            *_facts(report.layer_facts),
            f"disk of {size}",
            *lines,
            *_facts(report.table_facts),
        ),
        partitions=partitions,
        size=report.size,
        rows=tuple(_row(partition, partition.type_name, len(partition.files)) for partition in partitions),
        problems=report.problems,
    )


def summary_of_image(image: Image) -> Summary:
    """Summary of an open image; lists the files of its partitions, and decodes it to its end as `problems` does."""
    try:
        of_table = summary_of_table(image.partitions)
    except CorruptImage:  # its problems say why
        of_table = Summary(None, tuple(_table_lines("lost", None, None, None, None)), (), None, (), image.problems)
    known = image.known_size
    size = "unknown size" if known is None else f"{known} bytes ({sized(known)})"
    layers = _layer_lines((layer.kind, layer.name) for layer in image.layers)
    chain = _chain_lines((link.kind, link.name) for link in image.chain[1:])
    facts = _facts(fact for layer in image.layers for fact in facts_of(layer.source))
    return Summary(
        title=image.path or "image",
        lines=(*layers, *chain, *facts, f"disk of {size}", *of_table.lines),
        partitions=of_table.partitions,
        size=known,
        rows=of_table.rows,
        problems=tuple(dict.fromkeys([*of_table.problems, *image.known_problems])),
    )


def summary_of_table(table: PartitionTable) -> Summary:
    """Summary of a partition table; lists the files of its partitions."""
    partitions = tuple(table)
    layout, active = table.layout, table.active_bank
    rows = tuple(_row(partition, partition.type.name, _count_files(partition)) for partition in partitions)
    lines = _table_lines(
        table.scheme,
        table.sector_size,
        None if layout is None else layout.generation,
        table.generation,
        None if active is None else active.key,
    )
    return Summary(
        title=None,
        lines=(*lines, *_facts(table.facts.items())),
        partitions=partitions,
        size=None,
        rows=rows,
        problems=tuple(dict.fromkeys([*table.problems, *table.known_problems])),
    )


def _layer_lines(layers: Iterable[tuple[str, str | None]]) -> list[str]:
    return [f"{kind} around {name or 'the disk'}" for kind, name in layers]


def _chain_lines(parents: Iterable[tuple[str, str | None]]) -> list[str]:
    return [f"resting on {kind} {name or 'without a name'}" for kind, name in parents]


def _table_lines(
    scheme: str, sector_size: int | None, layout: Generation | None, generation: Generation | None, active: str | None
) -> list[str]:
    sectors = "" if sector_size is None else f", sectors of {sector_size} bytes"
    lines = [f"partition table: {scheme}{sectors}"]
    if (described := described_generation(layout, generation)) is not None:
        lines.append(described)
    if active is not None:
        lines.append(f"the boot loader starts partition {active}")
    return lines


def _facts(facts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{name}: {value}" for name, value in facts]


def _count_files(partition: Partition) -> int:
    try:
        volume = partition.volume
        return 0 if volume is not None and complete(volume).is_guest else len(partition.files)
    except (CorruptImage, LimitExceeded, NotAFileSystem):  # its problems or its kind say why
        return 0


def _row(partition: Partition | PartitionReport, type_name: str, files: int) -> tuple[str, ...]:
    code = partition.type.code if isinstance(partition, Partition) else partition.type_code
    return (
        f"{partition.key}{'*' if partition.active else ''}",
        partition.label or "-",
        f"{partition.start:#x}",
        sized(partition.size),
        f"{'' if code is None else f'{code:02x} '}{type_name}",
        partition.kind,
        partition.role.value,
        str(files) if files else "-",
    )


class Block(NamedTuple):
    """A part of an explanation, under a heading of its own."""

    heading: str
    lines: tuple[str, ...]
    """Paragraphs, or items of a list."""
    is_list: bool
    """Whether the lines are items of a list."""


def blocks(explained: Explanation, place: Place) -> tuple[Block, ...]:
    """Blocks of an explanation: what it is, why we think so, what is wrong, and what can be done where it is shown."""
    codes = [(step.aim, step.python if place == "python" else step.command) for step in explained.next_steps]
    steps = tuple(f"{aim}: {code}" for aim, code in codes if code is not None)
    found = (
        Block("What it is", explained.what, is_list=False),
        Block("Why we think so", tuple(map(str, explained.evidence)), is_list=True),
        Block("What is wrong with it", tuple(map(str, explained.problems)), is_list=True),
        Block("What you can do", steps, is_list=True),
    )
    return tuple(block for block in found if block.lines)


def entropy_strip(found: Survey) -> str:
    """A character of `STRIP` for each block, "?" for one that can't be read."""
    return "".join("?" if entropy is None else STRIP[math.ceil(entropy)] for entropy in found.entropies)


def survey_note(found: Survey) -> str:
    """Figures of a survey in words."""
    sampled = f" ({found.sampled:,} of each)" if found.sampled < found.block_size else ""
    looked_at = "" if found.exact else ", as far as they were looked at"
    mean = found.mean_entropy
    told = "none of them can be read" if mean is None else f"mean {mean:.2f} of 8 bits per byte"
    return (
        f"entropy of {len(found.entropies)} blocks of {found.block_size:,} bytes{sampled}, {told};"
        f" {found.zero_ratio:.0%} of the blocks are zeros{looked_at}"
    )


def volume_title(volume: BaseVolume) -> str:
    """Kind and label of a volume."""
    return f"{volume.kind} volume{f' {volume.label!r}' if volume.label else ', without a label'}"


def files_of(volume: BaseVolume) -> FileTree | None:
    """Files of a volume; None where it has none that can be read."""
    if not has_files(volume):
        return None
    try:
        return volume.files
    except (CorruptImage, NotAFileSystem):  # its problems say why
        return None


def more(rows: Sequence[object]) -> str:
    """Text in place of the rows that a table leaves out; empty where it has all."""
    return f"… and {len(rows) - MOST_ENTRIES:,} more" if len(rows) > MOST_ENTRIES else ""
