"""Output of the commands: reports, maps, rows, lists of files, problems, and progress."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from vmvisor_image.archives.archive import Archive
from vmvisor_image.base.names import printable
from vmvisor_image.disk.datastore import Datastore
from vmvisor_image.disk.explanation import Explanation, counted
from vmvisor_image.disk.partition import Partition
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.faces.cli.advice import advised
from vmvisor_image.faces.cli.layout import (
    complain,
    left_out_lines,
    print_blocks,
    print_item,
    row_line,
    table_lines,
    table_width,
    text_width,
    wrapped,
)
from vmvisor_image.faces.shared import (
    GAP,
    MAP_CELLS,
    PARTITION_COLUMNS,
    STRIP,
    Column,
    blocks,
    columns_of,
    digit_of,
    entropy_strip,
    fit,
    map_cells,
    summary_of_report,
    survey_note,
)
from vmvisor_image.files.tree import FileTree
from vmvisor_image.reports.inspection import ImageReport
from vmvisor_image.reports.verification_report import VerificationReport
from vmvisor_image.volumes.volume import complete

if TYPE_CHECKING:  # what `scan` alone needs is imported by it: the other commands start sooner
    from vmvisor_image.fleet import Row


def print_report(report: ImageReport, *, explain: bool) -> None:
    """Print the report of an image: layers, a map, a row for each partition, problems."""
    summary = summary_of_report(report)
    print(printable(summary.title or ""))
    for line in summary.lines:
        print_item(line, GAP, hanging="    ")
    cells = map_cells(summary.partitions, summary.size)
    drawn = "".join("." if cell is None else digit_of(cell.partition) for cell in cells)
    print(f"\n  [{drawn}]\n")
    for line in table_lines(PARTITION_COLUMNS, summary.rows, table_width()):
        print(line)
    if explain:
        for partition in report.partitions:
            print()
            print_explanation(partition.explained, partition.label)
    if summary.problems:
        print(f"\n{counted(len(summary.problems), 'problem')}:")
        for problem in summary.problems:
            print_item(str(problem), GAP, hanging="    ")


def print_explanation(explained: Explanation, label: str | None) -> None:
    """Print the explanation of a partition in blocks, with the commands that go on from there."""
    name = f" ({label})" if label else ""
    print("\n".join(wrapped(f"{explained.place}{name}", hanging="  ", width=text_width())))
    print_blocks(blocks(explained, "shell"))


def print_partition(partition: Partition, *, fields: bool = False) -> None:
    """Print the explanation of a partition, a strip of its entropy, and with `fields` all those of its records."""
    print_explanation(partition.explained, partition.label)
    if partition.is_container:
        return
    found = partition.survey(blocks=MAP_CELLS)
    print(f"\n  [{entropy_strip(found)}]")
    scale = f"from {STRIP[0]!r} for zeros to {STRIP[-1]!r} for random bytes"
    print("\n".join(wrapped(f"{survey_note(found)}; {scale}", GAP, width=text_width())))
    if partition.records and not fields:
        print(f"\n  Every field of its headers: vmvisor-image info SRC {partition.key} --fields")
        return
    for name, record in partition.records.items():
        dump = Hexdump.of(record)
        print(f"\n{name} at byte {dump.offset:#x}")
        for mark in dump.marks:
            print_item(mark.value, f"  {mark.start - dump.offset:#05x}  {mark.field:24}  ")


def print_verification(report: VerificationReport) -> None:
    """Print the report of a verification; on a terminal with the hashes of files as long as there is room for."""
    width = table_width()
    digits = _HASH_DIGITS
    if width is not None:
        files = [file for layer in report.layers for file in layer.files]
        files += [file for partition in report.partitions for file in partition.files]
        longest = max((columns_of(printable(file.path)) for file in files), default=0)
        digits = min(digits, max(_FEWEST_DIGITS, width - longest - _BESIDE_HASH))
    for line in report.lines(hash_digits=digits):
        if _ROW.match(line):  # a path is in one piece, whatever its length
            print(printable(line))
            continue
        text = line.lstrip(" ")
        indent = line[: len(line) - len(text)]
        print_item(text, indent, hanging=f"{indent}    ")


def list_others(holder: Partition | Datastore) -> None:
    """Print the entries of a volume other than files and directories, and the problems of a datastore."""
    volume = holder.volume
    for entry in () if volume is None else complete(volume).others:
        print(f"{entry.column:>12}  {'':19}  {printable(entry.text)}")
    if isinstance(holder, Datastore):
        complain(holder.problems)


def list_files(files: FileTree) -> None:
    """Print a row for each file: bytes, time, path."""
    for file in files.values():
        modified = "-" if file.modified is None else file.modified.isoformat(" ")
        print(f"{file.size:>12}  {modified:19}  {printable(file.path)}")


def list_archive(archive: Archive, *, as_json: bool = False) -> None:
    """Print a row for each file and link of an archive, or all of them as JSON."""
    if as_json:
        entries: list[dict[str, object]] = [
            {
                "path": file.path,
                "type": "file",
                "size": file.size,
                "modified": None if file.modified is None else file.modified.isoformat(),
            }
            for file in archive.values()
        ]
        entries += [{"path": path, "type": "link", "target": target} for path, target in archive.links.items()]
        problems = [dataclasses.asdict(problem) for problem in archive.problems]
        print(json.dumps({"entries": entries, "problems": problems}, indent=2))
        return
    list_files(archive)
    for path, target in archive.links.items():
        print(f"{'link':>12}  {'':19}  {printable(path)} -> {printable(target)}")


_HASH_DIGITS: Final = 64
"""Digits of SHA-256."""
_FEWEST_DIGITS: Final = 16
"""Digits of a hash that are shown at least, and still distinguish files."""
_ROW: Final = re.compile(r"  \S+ +\d+  ")
"""Start of the line of a file in the report of a verification: hash, size."""
_BESIDE_HASH: Final = len("  ") * 3 + 12
"""Characters in the line of a file other than its hash and its path."""
SCAN_COLUMNS: Final = (
    Column("State"),
    Column("Bytes", 3, is_number=True),
    Column("Version", 6),
    Column("Partitions", 2, is_number=True),
    Column("Files", 1, is_number=True),
    Column("Problems", 5, is_number=True),
    Column("Layers", 4, shortest=12),
    Column("Path"),
)
"""Columns of `print_rows`; a path is never cut, as it has to be typed."""
_SCAN_WIDTHS: Final = ("BAD", 14, "8.0.3-24022510", 10, 6, 8, "iso9660/gzip/tar/bzip2")
"""A usual text, or the width, of each column but the last: rows are printed before the next ones are known."""


def print_rows(rows: Iterator[Row], sources: Sequence[object], *, is_salvaging: bool = False) -> int:
    """Number of rows that are not ok; prints each row as it comes.

    Args:
        rows: Rows.
        sources: Sources of the rows, by whose paths the width of the last column is known beforehand.
        is_salvaging: Whether what is behind damage was read, too.
    """
    width = table_width()
    usual = [text if isinstance(text, str) else " " * text for text in _SCAN_WIDTHS]
    shown = [[*usual, relative(str(source))] for source in sources]
    columns = SCAN_COLUMNS if width else [dataclasses.replace(column, shortest=None) for column in SCAN_COLUMNS]
    fitted = fit(columns, shown, width)
    print(row_line(columns, [column.heading for column in columns], fitted, indent=""), flush=True)
    bad = 0
    for row in rows:
        bad += not row["ok"]
        version = "-".join(filter(None, (row["version"], row["build"])))
        cells = (row["size"], version, row["partitions"], row["files"], row["problems"], row["layers"])
        texts = ["-" if cell in (None, "") else printable(str(cell)) for cell in cells]
        cells_of_row = ["ok" if row["ok"] else "BAD", *texts, printable(relative(row["path"]))]
        print(row_line(columns, cells_of_row, fitted, indent=""), flush=True)
        if row["message"] is not None:
            print_item(advised(row, is_salvaging=is_salvaging), " " * 7)
            sys.stdout.flush()
    if fitted.left_out:
        print("\n".join(left_out_lines(fitted, width, indent="")))
    return bad


def print_rows_as_json(rows: Iterator[Row]) -> int:
    """Number of rows that are not ok; prints each as a JSON object on a line of its own, as it comes."""
    bad = 0
    for row in rows:
        bad += not row["ok"]
        print(json.dumps(row), flush=True)
    return bad


def relative(path: str) -> str:
    """Path from the current directory, where that is shorter; otherwise, and for a URL, the path as it is."""
    if not os.path.isabs(path):  # noqa: PTH117  # it may be a URL
        return path
    with contextlib.suppress(ValueError, OSError):  # on another drive; without a current directory
        found = os.path.relpath(path)
        return min(path, found, key=len)
    return path
