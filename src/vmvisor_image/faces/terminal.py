"""Display of images, partitions, trees, records and hexdumps in a terminal by rich; imported only when rich asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from vmvisor_image.base.names import printable
from vmvisor_image.disk.explanation import Explanation, counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.examine.survey import Survey
from vmvisor_image.faces.machine_tables import DISKS, SNAPSHOTS, disk_rows, snapshot_rows, title_of
from vmvisor_image.faces.shared import (
    LARGEST_EXACT,
    MAP_CELLS,
    MOST_ENTRIES,
    PARTITION_COLUMNS,
    ROLE_COLORS,
    Summary,
    blocks,
    cut,
    digit_of,
    entropy_strip,
    files_of,
    fit,
    map_cells,
    more,
    summary_of_image,
    summary_of_report,
    summary_of_table,
    survey_note,
    volume_title,
)
from vmvisor_image.files.file import Directory
from vmvisor_image.files.tree import FileTree
from vmvisor_image.machines.virtual_machine import Machine
from vmvisor_image.record import Record
from vmvisor_image.reports.inspection import ImageReport
from vmvisor_image.reports.verification_report import VerificationReport
from vmvisor_image.volumes.role import Role
from vmvisor_image.volumes.volume import BaseVolume


@singledispatch
def renderable(value: object) -> RenderableType:
    """Renderable of a value by its type, or else of its repr."""
    return Pretty(value)


@renderable.register
def image_table(image: Image) -> RenderableType:
    """Renderable of an image: its layers, a map of its disk, its partitions, and its problems."""
    return _summary(summary_of_image(image))


@renderable.register
def report_table(report: ImageReport) -> RenderableType:
    """Renderable of the report of an image, as of the image."""
    return _summary(summary_of_report(report))


@renderable.register
def verification_text(report: VerificationReport) -> RenderableType:
    """Renderable of the report of a verification: its lines."""
    return Group(*map(_text, report.lines()))


@renderable.register
def partition_table(table: PartitionTable) -> RenderableType:
    """Renderable of a partition table: a map of the disk, a row for each partition, and its problems."""
    return _summary(summary_of_table(table))


def _summary(summary: Summary) -> RenderableType:
    title = [] if summary.title is None else [_text(summary.title)]
    lines = [_item(line, "  ") for line in summary.lines]
    problems: list[RenderableType] = []
    if summary.problems:
        problems.append(Text(f"{counted(len(summary.problems), 'problem')}:"))
        problems += [_item(str(problem), "  ") for problem in summary.problems]
    return Group(*title, *lines, disk_map(summary), _PartitionRows(summary), *problems)


class _PartitionRows:
    """Table of partitions, without the columns for which there is no room."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [[printable(cell) for cell in row] for row in self._summary.rows]
        # A column has a space on either side and a line before it; the last line is that of the table.
        fitted = fit(PARTITION_COLUMNS, rows, options.max_width - 4, gap=3)
        shown = Table()
        for at, _ in fitted.kept:
            column = PARTITION_COLUMNS[at]
            justify: JustifyMethod = "right" if column.is_number else "left"
            shown.add_column(column.heading, justify=justify, overflow="fold")
        for row, partition in zip(rows, self._summary.partitions, strict=True):
            shown.add_row(*(Text(cut(row[at], width)) for at, width in fitted.kept), style=_style(partition.role))
        yield shown
        if fitted.left_out:
            yield Text(f"(no room for {', '.join(fitted.left_out)})")


def disk_map(summary: Summary) -> Text:
    """Map of the disk from left to right, to scale, at least one cell for each partition."""
    text = Text()
    for cell in map_cells(summary.partitions, summary.size):
        if cell is None:
            text.append("·")
        else:
            shown = digit_of(cell.partition) if cell.is_first else "█"
            text.append(shown, _style(cell.partition.role))
    return text


def _style(role: Role) -> str | None:
    color = ROLE_COLORS.get(role)
    return None if color is None else color.terminal


@renderable.register
def partition_text(partition: Partition) -> RenderableType:
    """Renderable of a partition: its explanation, its entropy, and its structures."""
    parts: list[RenderableType] = [explanation_text(partition.explained, partition.label)]
    if not partition.is_container:
        parts.append(survey_text(partition.survey(blocks=MAP_CELLS, exact=partition.size <= LARGEST_EXACT)))
    for name, record in partition.records.items():
        parts += [Text(), record_table(record, name)]
    return Group(*parts)


@renderable.register
def explanation_text(explained: Explanation, label: str | None = None) -> RenderableType:
    """Renderable of an explanation: a block for each of its parts."""
    parts: list[RenderableType] = [_text(f"{explained.place}{f' ({label})' if label else ''}")]
    for block in blocks(explained, "python"):
        parts += [Text(), Text(f"  {block.heading}", "bold")]
        if block.is_list:
            parts += [_item(line, "    - ") for line in block.lines]
        else:
            parts.append(Padding(_text(" ".join(block.lines)), (0, 0, 0, 4)))
    return Group(*parts, Text())


@renderable.register
def survey_text(found: Survey) -> RenderableType:
    """Renderable of the entropy by block: a strip of characters, and the figures."""
    return Group(Text(f"  [{entropy_strip(found)}]"), _item(survey_note(found), "  "))


@renderable.register
def volume_text(volume: BaseVolume) -> RenderableType:
    """Renderable of a volume: its kind and label, its facts, its problems, and the entries of its root directory."""
    parts: list[RenderableType] = [_text(volume_title(volume))]
    parts += [_item(f"{name}: {value}", "  ") for name, value in volume.facts.items()]
    parts += [_item(f"problem: {problem}", "  ") for problem in volume.problems]
    files = files_of(volume)
    return Group(*parts, *([] if files is None else [tree_table(files)]))


@renderable.register
def machine_text(machine: Machine) -> RenderableType:
    """A virtual machine: its disks, its snapshots as a tree, and its problems; opens no disk."""
    parts: list[RenderableType] = [_text(title_of(machine))]
    for header, rows in ((DISKS, disk_rows(machine)), (SNAPSHOTS, snapshot_rows(machine))):
        shown = Table(*header)
        for row in rows[:MOST_ENTRIES]:
            shown.add_row(*map(_text, row))
        if rows:
            parts.append(_with_more(shown, rows))
    return Group(*parts, *(_item(str(problem), "  ") for problem in machine.problems))


def _item(text: str, indent: str) -> Table:
    """Text behind an indent, whose further lines are indented, too."""
    shown = Table.grid()
    shown.add_row(Text(indent), _text(text))
    return shown


@renderable.register
def tree_table(tree: FileTree) -> Table:
    """Table of the entries in a volume's root directory."""
    shown = Table("Name", "Bytes", "Modified")
    entries = list(tree.root)
    for entry in entries[:MOST_ENTRIES]:
        modified = "" if entry.modified is None else entry.modified.isoformat(" ")
        if isinstance(entry, Directory):
            shown.add_row(_text(f"{entry.name}/"), "", modified)
        else:
            shown.add_row(_text(entry.name), str(entry.size), modified)
    return _with_more(shown, entries)


@renderable.register
def record_table(record: Record, name: str | None = None) -> Table:
    """Table of the fields of a structure."""
    at = "" if record.source_offset is None else f" at byte {record.source_offset:#x}"
    shown = Table("Offset", "Field", "Value", title=_text(f"{name or type(record).__name__}{at}"), title_justify="left")
    dump = Hexdump.of(record)
    for mark in dump.marks[:MOST_ENTRIES]:
        shown.add_row(f"{mark.start - dump.offset:#x}", mark.field, _text(mark.value))
    return _with_more(shown, dump.marks)


def _with_more(shown: Table, rows: Sequence[object]) -> Table:
    """Table with a last row for the number of rows that are not shown, if there are any."""
    if text := more(rows):
        shown.add_row(text)
    return shown


@renderable.register
def hexdump_text(dump: Hexdump) -> Text:
    """Hexdump with the fields in it in two alternating colours."""
    text = Text()
    for line in dump.lines():
        shown = Text(f"{line}\n")
        end = line.offset + len(line.data)
        for number, mark in enumerate(dump.marks):
            for at in range(max(mark.start, line.offset), min(mark.end, end)):
                column = 10 + (at - line.offset) * 3 + (1 if at - line.offset > 7 else 0)
                shown.stylize("black on cyan" if number % 2 else "black on yellow", column, column + 2)
        text.append_text(shown)
    return text


def _text(text: str) -> Text:
    """Text from an image, without markup or control characters."""
    return Text(printable(text))
