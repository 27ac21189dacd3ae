"""Output of the commands: reports, maps, rows, lists of files, problems, and progress."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmvisor_image.archives.archive import Archive
from vmvisor_image.base.names import printable
from vmvisor_image.base.open_options import Progress
from vmvisor_image.disk.datastore import Datastore
from vmvisor_image.disk.explanation import counted, described_generation
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import Problem
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.faces.cli.advice import advised
from vmvisor_image.faces.shared import MAP_CELLS, map_cells
from vmvisor_image.files.tree import FileTree
from vmvisor_image.reports.inspection import ImageReport, PartitionReport
from vmvisor_image.volumes.volume import complete

if TYPE_CHECKING:  # what `scan` alone needs is imported by it: the other commands start sooner
    from vmvisor_image.fleet import Row

_STRIP = " .:-=+*%@"
"""Characters for an entropy of 0 to 8 bits per byte."""


@contextlib.contextmanager
def showing_progress(doing: str = "decoding", unit: str = "bytes") -> Iterator[Progress | None]:
    """Progress display while standard error is a terminal: with rich where it is installed."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
    except ImportError:
        with _plain_progress(doing, unit) as progress:
            yield progress
        return
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(doing), BarColumn(), amount, TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def _plain_progress(doing: str, unit: str) -> Iterator[Progress]:
    shown = ""
    scale, unit = (1e6, "MB") if unit == "bytes" else (1, unit)

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        text = f"{doing} {done / scale:.0f}" + (f" of {total / scale:.0f}" if total else "") + f" {unit}"
        if text != shown:
            shown = text
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write("\r" + " " * len(shown) + "\r")
            sys.stderr.flush()


def print_report(report: ImageReport, *, explain: bool) -> None:
    """Print the report of an image: layers, a map, a row for each partition, problems."""
    print(printable(report.name or "image"))
    for kind, name in report.layers:
        print(f"  {kind} around {printable(name or 'the disk')}")
    size = "unknown size" if report.size is None else f"{report.size} bytes ({report.size / (1 << 20):.1f} MiB)"
    print(f"  disk of {size}, partition table: {report.scheme}")
    if (described := described_generation(report.layout, report.generation)) is not None:
        print(f"  {described}")
    for name, value in report.table_facts:
        print(f"  {name}: {value}")
    if report.active_bank is not None:
        print(f"  the boot loader starts partition {report.active_bank}")
    print(f"\n  [{_map(report)}]\n")
    rows = [("#", "Label", "Start", "Size", "Type", "Kind", "Role", "Files"), *map(_row, report.partitions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if explain:
        for partition in report.partitions:
            print(f"\n{printable(partition.explanation)}")
    if report.problems:
        print(f"\n{counted(len(report.problems), 'problem')}:")
        for problem in report.problems:
            print(f"  {printable(str(problem))}")


def _map(report: ImageReport) -> str:
    """Map of the disk from left to right, to scale: a partition's number in each of its cells, at least one."""
    cells = map_cells(report.partitions, report.size)
    return "".join("." if cell is None else str(cell.partition.number % 10) for cell in cells)


def print_partition(partition: Partition) -> None:
    """Print the explanation of a partition, a strip of its entropy, and the fields of its records."""
    print(printable(partition.explain()))
    if partition.is_container:
        return
    found = partition.survey(blocks=MAP_CELLS)
    strip = "".join("?" if entropy is None else _STRIP[math.ceil(entropy)] for entropy in found.entropies)
    print(f"\n  [{strip}]")
    sampled = f" ({found.sampled} of each)" if found.sampled < found.block_size else ""
    scale = f"from {_STRIP[0]!r} for zeros to {_STRIP[-1]!r} for random bytes"
    print(f"  entropy by {found.block_size} bytes{sampled}, {scale}")
    for name, record in partition.records.items():
        dump = Hexdump.of(record)
        print(f"\n{name} at byte {dump.offset:#x}")
        for mark in dump.marks:
            print(f"  {mark.start - dump.offset:#05x}  {mark.field:24}  {printable(mark.value)}")


def _row(partition: PartitionReport) -> tuple[str, ...]:
    return (
        f"{partition.number}{'*' if partition.active else ''}",
        printable(partition.label or "-"),
        f"{partition.start:#x}",
        f"{partition.size / (1 << 20):.1f} MiB",
        ("" if partition.type_code is None else f"{partition.type_code:02x} ") + partition.type_name,
        partition.kind,
        partition.role.value,
        str(len(partition.files)) if partition.files else "-",
    )


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


def list_archive(archive: Archive) -> None:
    """Print a row for each file and link of an archive."""
    list_files(archive)
    for path, target in archive.links.items():
        print(f"{'link':>12}  {'':19}  {printable(path)} -> {printable(target)}")


def complain(problems: Sequence[Problem], what: str = "") -> None:
    """Print each problem to standard error."""
    for problem in problems:
        print(f"vmvisor-image: {what}{printable(str(problem))}", file=sys.stderr)


def print_rows(rows: Iterator[Row]) -> int:
    """Number of rows that are not ok; prints each row as it comes."""
    layout = "{:8}  {:>14}  {:16}  {:>10}  {:>6}  {:>8}  {:12}  {}"
    print(layout.format("State", "Bytes", "Version", "Partitions", "Files", "Problems", "Layers", "Path"))
    bad = 0
    for row in rows:
        bad += not row["ok"]
        version = "-".join(filter(None, (row["version"], row["build"])))
        cells = (row["size"], version, row["partitions"], row["files"], row["problems"], row["layers"], row["path"])
        shown = ["-" if cell in (None, "") else printable(str(cell)) for cell in cells]
        print(layout.format("ok" if row["ok"] else "BAD", *shown), flush=True)
        if row["message"] is not None:
            print(f"{'':10}{printable(advised(row))}", flush=True)
    return bad
