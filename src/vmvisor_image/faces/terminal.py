"""How images, partitions, trees, records and hexdumps look in a terminal, with rich; imported only when rich asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vmvisor_image.base.names import printable
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.files.file import Directory
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.volumes.role import Role

_STYLES: Final = {
    Role.BOOT: "blue",
    Role.BOOTBANK: "green",
    Role.ALT_BOOTBANK: "bright_green",
    Role.COREDUMP: "red",
    Role.STORE: "magenta",
    Role.SCRATCH: "yellow",
    Role.DATASTORE: "cyan",
    Role.VSAN: "cyan",
    Role.MEMORY_TIER: "bright_yellow",
    Role.INSTALLER: "blue",
    Role.OSDATA: "bright_cyan",
}
_MAP_WIDTH: Final = 72
_MOST_ENTRIES: Final = 200
"""Files or fields in a table; a last row says how many more there are."""


def image_table(image: Image) -> RenderableType:
    """An image: a map of its disk, and its partitions."""
    around = "".join(f"{layer.kind} around " for layer in image.layers)
    return Group(_text(f"{image.path or 'image'}: {around}a disk"), partition_table(image.partitions))


def partition_table(table: PartitionTable) -> RenderableType:
    """A map of the disk, and a row for each partition."""
    partitions = list(table)
    shown = Table("#", "Label", "Start", "Size", "Type", "Kind", "Role")
    for partition in partitions:
        cells = (
            f"{partition.number}{'*' if partition.active else ''}",
            partition.label or "",
            f"{partition.start:#x}",
            f"{partition.size / (1 << 20):.1f} MiB",
            str(partition.type),
            partition.kind,
            partition.role.value,
        )
        shown.add_row(*map(_text, cells), style=_STYLES.get(partition.role))
    return Group(disk_map(partitions), shown)


def disk_map(partitions: Sequence[Partition]) -> Text:
    """The disk from left to right, to scale, one cell at least for each partition."""
    end = max((partition.start + partition.size for partition in partitions), default=1)
    cells = ["·"] * _MAP_WIDTH
    styles: list[str | None] = [None] * _MAP_WIDTH
    drawn = [partition for partition in partitions if not partition.is_container]
    for partition in sorted(drawn, key=lambda partition: -partition.size):  # so that the small ones are seen
        first = min(partition.start * _MAP_WIDTH // end, _MAP_WIDTH - 1)
        last = max(first + 1, (partition.start + partition.size) * _MAP_WIDTH // end)
        for at in range(first, min(last, _MAP_WIDTH)):
            cells[at], styles[at] = "█", _STYLES.get(partition.role)
        cells[first] = str(partition.number % 10)
    text = Text()
    for cell, style in zip(cells, styles, strict=True):
        text.append(cell, style)
    return text


def partition_text(partition: Partition) -> RenderableType:
    """What a partition is, and why."""
    return Group(
        _text(partition.explain()), *(record_table(record, name) for name, record in partition.records.items())
    )


def tree_table(tree: FileTree) -> Table:
    """What lies in a volume's root directory."""
    shown = Table("Name", "Bytes", "Modified")
    entries = list(tree.root)
    for entry in entries[:_MOST_ENTRIES]:
        modified = "" if entry.modified is None else entry.modified.isoformat(" ")
        if isinstance(entry, Directory):
            shown.add_row(_text(f"{entry.name}/"), "", modified)
        else:
            shown.add_row(_text(entry.name), str(entry.size), modified)
    return _with_more(shown, entries)


def record_table(record: Record, name: str | None = None) -> Table:
    """The fields of a structure."""
    at = "" if record.source_offset is None else f" at byte {record.source_offset:#x}"
    shown = Table("Offset", "Field", "Value", title=_text(f"{name or type(record).__name__}{at}"), title_justify="left")
    dump = Hexdump.of(record)
    for mark in dump.marks[:_MOST_ENTRIES]:
        shown.add_row(f"{mark.start - dump.offset:#x}", mark.field, _text(mark.value))
    return _with_more(shown, dump.marks)


def _with_more(shown: Table, rows: Sequence[object]) -> Table:
    """A table with a last row that says how many are not shown, where that are any."""
    if len(rows) > _MOST_ENTRIES:
        shown.add_row(f"… and {len(rows) - _MOST_ENTRIES:,} more")
    return shown


def hexdump_text(dump: Hexdump) -> Text:
    """Bytes, with the fields in them in turns of two colours."""
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
    """Text from an image: no markup, and no control characters."""
    return Text(printable(text))
