"""Display of images, partitions, trees, records and hexdumps in a terminal by rich; imported only when rich asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from rich.console import Group, RenderableType
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from vmvisor_image.base.names import printable
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.faces.shared import MOST_ENTRIES, PARTITION_COLUMNS, ROLE_COLORS, map_cells, more, partition_row
from vmvisor_image.files.file import Directory
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.volumes.role import Role


@singledispatch
def renderable(value: object) -> RenderableType:
    """Renderable of a value by its type, or else of its repr."""
    return Pretty(value)


@renderable.register
def image_table(image: Image) -> RenderableType:
    """Renderable of an image: a map of its disk, and its partitions."""
    around = "".join(f"{layer.kind} around " for layer in image.layers)
    return Group(_text(f"{image.path or 'image'}: {around}a disk"), partition_table(image.partitions))


@renderable.register
def partition_table(table: PartitionTable) -> RenderableType:
    """Renderable of a partition table: a map of the disk, and a row for each partition."""
    partitions = list(table)
    shown = Table(*PARTITION_COLUMNS)
    for partition in partitions:
        cells = partition_row(partition, f"{partition.size / (1 << 20):.1f} MiB")
        shown.add_row(*map(_text, cells), style=_style(partition.role))
    return Group(disk_map(partitions), shown)


def disk_map(partitions: Sequence[Partition]) -> Text:
    """Map of the disk from left to right, to scale, at least one cell for each partition."""
    text = Text()
    for cell in map_cells(partitions):
        if cell is None:
            text.append("·")
        else:
            shown = str(cell.partition.number % 10) if cell.is_first else "█"
            text.append(shown, _style(cell.partition.role))
    return text


def _style(role: Role) -> str | None:
    color = ROLE_COLORS.get(role)
    return None if color is None else color.terminal


@renderable.register
def partition_text(partition: Partition) -> RenderableType:
    """Renderable of a partition: its explanation and its structures."""
    return Group(
        _text(partition.explain()), *(record_table(record, name) for name, record in partition.records.items())
    )


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
