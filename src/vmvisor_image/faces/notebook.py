"""Display of images, partitions, trees, records and hexdumps in a notebook: self-contained HTML and SVG, no script.

Everything that comes from an image is escaped, and invisible characters are shown by their codes. Colours
follow the notebook's theme, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.disk.explanation import Explanation
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.errors import Problem
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.examine.survey import Survey
from vmvisor_image.faces.machine_tables import DISKS, SNAPSHOTS, disk_rows, snapshot_rows, title_of
from vmvisor_image.faces.shared import (
    LARGEST_EXACT,
    MOST_ENTRIES,
    PARTITION_COLUMNS,
    ROLE_COLORS,
    Summary,
    blocks,
    files_of,
    map_end,
    more,
    sized,
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

_MARK_COLORS: Final = 6
_LINE: Final = 16
"""Bytes in a line of a hexdump."""
_STRIP_BLOCKS: Final = 128
_WIDTH: Final = 960
_RAMP: Final = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Colours of entropy 0 to 8, dark to bright, which can be distinguished without colour vision."""
_LIGHT: Final = (
    "--fg:#1b1b1b;--dim:#5f6368;--line:#d5d8dc;--head:#f3f4f6;--bad:#a50e0e;--free:#eceff1;"
    "--m0:#cfe3ff;--m1:#ffe2b8;--m2:#d3f2cf;--m3:#f6d0e6;--m4:#e3dafc;--m5:#cdeff0"
)
_DARK: Final = (
    "--fg:#e8eaed;--dim:#a2a7ad;--line:#45494e;--head:#2a2d31;--bad:#f28b82;--free:#33373b;"
    "--m0:#1f4a7a;--m1:#7a5213;--m2:#25603a;--m3:#7a2f5b;--m4:#4b3b8a;--m5:#17616a"
)
_STYLE: Final = f"""<style>
.vmvi{{{_LIGHT};color:var(--fg);font:13px/1.45 system-ui,sans-serif;max-width:960px}}
@media (prefers-color-scheme:dark){{.vmvi{{{_DARK}}}}}
[data-jp-theme-light="true"] .vmvi,.vscode-light .vmvi{{{_LIGHT}}}
[data-jp-theme-light="false"] .vmvi,.vscode-dark .vmvi{{{_DARK}}}
"""
_RULES: Final = """.vmvi table{border-collapse:collapse;margin:.5em 0;font-size:12px}
.vmvi th,.vmvi td{text-align:left!important;padding:2px 10px 2px 4px;border-bottom:1px solid var(--line)}
.vmvi th,.vmvi td{color:var(--fg);vertical-align:top}
.vmvi th{background:var(--head);font-weight:600}
.vmvi td.n{text-align:right!important;font-variant-numeric:tabular-nums}
.vmvi ul{margin:.1em 0 .5em;padding-left:1.4em}.vmvi .part{margin-top:.4em}.vmvi p{margin:.1em 0 .5em}
.vmvi .dim{color:var(--dim)}.vmvi .bad{color:var(--bad)}
.vmvi .key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.vmvi svg{display:block;width:100%;height:auto;margin:.4em 0}
.vmvi pre{font:12px/1.5 ui-monospace,monospace;margin:.4em 0;padding:0;overflow-x:auto;background:none;color:var(--fg)}
.vmvi pre span{border-radius:2px}
.vmvi .m0{background:var(--m0)}.vmvi .m1{background:var(--m1)}.vmvi .m2{background:var(--m2)}
.vmvi .m3{background:var(--m3)}.vmvi .m4{background:var(--m4)}.vmvi .m5{background:var(--m5)}
</style>"""


@singledispatch
def html(value: object) -> str:
    """HTML of a value by its type, or else of its repr."""
    return f"<pre>{_text(repr(value))}</pre>"


@html.register
def image_html(image: Image) -> str:
    """HTML of an image: its layers, a map of the disk to scale, its partitions, and its problems."""
    return _wrap(_summary(summary_of_image(image)))


@html.register
def report_html(report: ImageReport) -> str:
    """HTML of the report of an image, as of the image."""
    return _wrap(_summary(summary_of_report(report)))


@html.register
def verification_html(report: VerificationReport) -> str:
    """HTML of the report of a verification: its lines."""
    return _wrap(f"<pre>{_text(chr(10).join(report.lines()))}</pre>")


@html.register
def table_html(table: PartitionTable) -> str:
    """HTML of a partition table: a map to scale, a row for each partition, and its problems."""
    return _wrap(_summary(summary_of_table(table)))


@html.register
def partition_html(partition: Partition) -> str:
    """HTML of a partition: its explanation, its entropy and its structures."""
    parts = [_explanation(partition.explained, partition.label)]
    if not partition.is_container:
        parts.append(survey_svg(partition.survey(blocks=_STRIP_BLOCKS, exact=partition.size <= LARGEST_EXACT)))
    parts += [_record_table(name, record) for name, record in partition.records.items()]
    return _wrap("".join(parts))


@html.register
def explanation_html(explained: Explanation) -> str:
    """HTML of an explanation: a block for each of its parts."""
    return _wrap(_explanation(explained, None))


@html.register
def volume_html(volume: BaseVolume) -> str:
    """HTML of a volume: its kind and label, its facts, its problems, and the entries of its root directory."""
    facts = _table(("Fact", "Value"), list(volume.facts.items())) if volume.facts else ""
    files = files_of(volume)
    entries = "" if files is None else _entries(files)
    return _wrap(f"<b>{_text(volume_title(volume))}</b>{facts}{_problems(volume.problems)}{entries}")


@html.register
def machine_html(machine: Machine) -> str:
    """HTML of a virtual machine: its disks, its snapshots as a tree, and its problems; opens no disk."""
    parts = [f"<b>{_text(title_of(machine))}</b>"]
    for header, rows in ((DISKS, disk_rows(machine)), (SNAPSHOTS, snapshot_rows(machine))):
        if rows:
            parts += [_table(header, rows[:MOST_ENTRIES]), _more(rows)]
    return _wrap("".join(parts) + _problems(machine.problems))


def _explanation(explained: Explanation, label: str | None) -> str:
    parts = [f"<b>{_text(explained.place)}</b> {_text(label or '')}"]
    for block in blocks(explained, "python"):
        items = "".join(f"<li>{_text(line)}</li>" for line in block.lines)
        body = f"<ul>{items}</ul>" if block.is_list else f"<p>{_text(' '.join(block.lines))}</p>"
        parts.append(f"<div class='part'><b>{block.heading}</b>{body}</div>")
    return "".join(parts)


@html.register
def tree_html(tree: FileTree) -> str:
    """HTML of the entries in a volume's root directory."""
    return _wrap(_entries(tree))


def _entries(tree: FileTree) -> str:
    rows = []
    entries = list(tree.root)
    for entry in entries[:MOST_ENTRIES]:
        is_directory = isinstance(entry, Directory)
        modified = "" if entry.modified is None else entry.modified.isoformat(" ")
        size = "" if isinstance(entry, Directory) else f"{entry.size:,}"
        rows.append((f"{entry.name}/" if is_directory else entry.name, size, modified))
    return _table(("Name", "Bytes", "Modified"), rows, numbers=(1,)) + _more(entries)


@html.register
def record_html(record: Record) -> str:
    """HTML of a structure: its fields, and its bytes with the fields marked."""
    return _wrap(_record_table(type(record).__name__, record) + _hexdump_body(Hexdump.of(record)))


@html.register
def hexdump_html(dump: Hexdump) -> str:
    """HTML of bytes with the fields in them marked and named."""
    return _wrap(_hexdump_body(dump))


@html.register
def survey_html(found: Survey) -> str:
    """HTML of the entropy by block."""
    return _wrap(survey_svg(found))


def survey_svg(found: Survey) -> str:
    """SVG strip of entropy by block, dark where bytes repeat, bright where they are random or compressed."""
    count = max(1, len(found.entropies))
    width = _WIDTH / count
    cells = []
    for number, entropy in enumerate(found.entropies):
        shown = "can't be read" if entropy is None else f"{entropy:.2f} bits per byte"
        fill = "#d93025" if entropy is None else _ramp(entropy / 8)
        at = number * found.block_size
        cells.append(
            f"<rect x='{number * width:.2f}' y='0' width='{width + 0.3:.2f}' height='26' fill='{fill}'>"
            f"<title>from byte {at:#x}: {shown}</title></rect>"
        )
    note = _text(survey_note(found))
    return (
        f"<svg viewBox='0 0 {_WIDTH} 46' role='img' aria-label='{note}'>{''.join(cells)}"
        f"<text x='0' y='41' font-size='12' fill='currentColor'>{note}</text></svg>"
    )


def _summary(summary: Summary) -> str:
    title = "" if summary.title is None else f"<b>{_text(summary.title)}</b>"
    lines = "".join(f"<div class='dim'>{_text(line)}</div>" for line in summary.lines)
    colors = [ROLE_COLORS.get(partition.role) for partition in summary.partitions]
    keys = ["none" if color is None else color.css for color in colors]
    heading = [column.heading for column in PARTITION_COLUMNS]
    numbers = [at for at, column in enumerate(PARTITION_COLUMNS) if column.is_number]
    rows = _table(heading, summary.rows, keys=keys, numbers=numbers)
    return title + lines + _disk_map(summary) + rows + _problems(summary.problems)


def _disk_map(summary: Summary) -> str:
    """SVG map of the disk from left to right, to scale; partitions too small to be seen get two units."""
    end = map_end(summary.partitions, summary.size)
    if end == 0:
        return ""
    scale = _WIDTH / end
    shapes = [f"<rect x='0' y='0' width='{_WIDTH}' height='40' rx='3' style='fill:var(--free)'/>"]
    for partition, row in zip(summary.partitions, summary.rows, strict=True):
        x, width = partition.start * scale, max(2.0, partition.size * scale)
        label = "" if row[1] == "-" else row[1]
        what = (label or row[4], partition.role.value, sized(partition.size))
        title = f"<title>{_text(f'{partition.key}: ' + ', '.join(what))}</title>"
        if partition.role is Role.CONTAINER:
            shapes.append(
                f"<rect x='{x:.2f}' y='0.75' width='{width:.2f}' height='38.5' fill='none' stroke='currentColor'"
                f" stroke-dasharray='4 3' stroke-opacity='.6'>{title}</rect>"
            )
            continue
        color = ROLE_COLORS.get(partition.role, ROLE_COLORS[Role.UNKNOWN]).css
        shapes.append(
            f"<rect x='{x:.2f}' y='5' width='{max(1.5, width - 1):.2f}' height='30' rx='2'"
            f" fill='{color}'>{title}</rect>"
        )
        name = label or partition.role.value
        if width > 8 * len(name) + 26:
            shapes.append(
                f"<text x='{x + 6:.2f}' y='24' font-size='12' fill='#fff' pointer-events='none'>"
                f"{partition.key} {_text(name)}</text>"
            )
        elif width > 18:
            shapes.append(f"<text x='{x + 4:.2f}' y='24' font-size='12' fill='#fff'>{partition.key}</text>")
    return f"<svg viewBox='0 0 {_WIDTH} 40' role='img' aria-label='map of the disk'>{''.join(shapes)}</svg>"


def _record_table(name: str, record: Record) -> str:
    at = "" if record.source_offset is None else f" at byte {record.source_offset:#x}"
    dump = Hexdump.of(record)
    rows = [(f"{mark.start - dump.offset:#x}", mark.field, mark.value) for mark in dump.marks[:MOST_ENTRIES]]
    return (
        f"<details open><summary><b>{_text(name)}</b> <span class='dim'>{type(record).__name__}{at}</span></summary>"
        f"{_table(('Offset', 'Field', 'Value'), rows, numbers=(0,))}{_more(dump.marks)}</details>"
    )


def _more(rows: Sequence[object]) -> str:
    """Line with the number of rows that are not shown; empty where all are shown."""
    text = more(rows)
    return f"<p class='dim'>{text}</p>" if text else ""


def _hexdump_body(dump: Hexdump) -> str:
    covering: list[int | None] = [None] * len(dump.data)
    for number, mark in enumerate(dump.marks):
        for at in range(max(0, mark.start - dump.offset), min(len(dump.data), mark.end - dump.offset)):
            covering[at] = number
    lines = []
    for line in dump.lines():
        start = line.offset - dump.offset
        numbers = covering[start : start + len(line.data)]
        spaced = [f"{byte:02x}{'  ' if at == _LINE // 2 - 1 else ' '}" for at, byte in enumerate(line.data)]
        missing = " " * (3 * (_LINE - len(line.data)) + (1 if len(line.data) < _LINE // 2 else 0))
        octets, text = _runs(dump, numbers, spaced), _runs(dump, numbers, list(line.text))
        lines.append(f"<span class='dim'>{line.offset:08x}</span>  {octets}{missing} |{text}|")
    rows = [
        (f"{mark.start:#x}", str(mark.end - mark.start), mark.record, mark.field, mark.value)
        for mark in dump.marks[:MOST_ENTRIES]
    ]
    keys = [f"var(--m{number % _MARK_COLORS})" for number in range(len(rows))]
    legend = _table(("Offset", "Bytes", "Structure", "Field", "Value"), rows, keys=keys, numbers=(0, 1)) if rows else ""
    return f"<pre>{chr(10).join(lines)}</pre>{legend}{_more(dump.marks)}"


def _runs(dump: Hexdump, numbers: Sequence[int | None], cells: Sequence[str]) -> str:
    """HTML of the cells of one line; neighbours of one field share their mark."""
    out = []
    at = 0
    while at < len(cells):
        end = at
        while end < len(cells) and numbers[end] == numbers[at]:
            end += 1
        text = "".join(cells[at:end])
        number = numbers[at]
        if number is None:
            out.append(escape(text))
        else:
            body = text.rstrip(" ") if text.strip() else text
            mark = dump.marks[number]
            title = _text(f"{mark.field} = {mark.value}")
            out.append(
                f"<span class='m{number % _MARK_COLORS}' title='{title}'>{escape(body)}</span>{text[len(body) :]}"
            )
        at = end
    return "".join(out)


def _problems(problems: Iterable[Problem]) -> str:
    items = "".join(f"<li>{_text(str(problem))}</li>" for problem in problems)
    return f"<div class='bad'>Problems:<ul>{items}</ul></div>" if items else ""


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, keys: Sequence[str] = (), numbers: Sequence[int] = ()
) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = []
    for number, row in enumerate(rows):
        key = f"<span class='key' style='background:{keys[number]}'></span>" if keys else ""
        cells = "".join(
            f"<td{' class=n' if at in numbers else ''}>{key if at == 0 else ''}{_text(cell)}</td>"
            for at, cell in enumerate(row)
        )
        body.append(f"<tr>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _wrap(body: str) -> str:
    return f"{_STYLE}{_RULES}<div class='vmvi'>{body}</div>"


def _text(text: str) -> str:
    """Text from an image, escaped, with invisible characters shown by their codes."""
    shown = "\n".join(map(printable, text.split("\n")))
    return escape(shown, quote=True)


def _ramp(part: float) -> str:
    """Colour of the ramp at `part`, from 0 to 1."""
    place = min(max(part, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
