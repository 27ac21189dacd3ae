"""`info --search`: partitions that no table has."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from vmvisor_image.base.names import printable
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition, place_name
from vmvisor_image.disk.partition_table import FoundPartitions
from vmvisor_image.errors import CorruptImage
from vmvisor_image.faces.cli.advice import command, way_of
from vmvisor_image.faces.cli.layout import left_out_lines, row_line, table_width, text_width, wrapped
from vmvisor_image.faces.shared import GAP, Column, fit
from vmvisor_image.volumes.volume import has_files

_COLUMNS: Final = (
    Column("Partition"),
    Column("Size", 2, is_number=True),
    Column("Kind"),
    Column("Label", 3, shortest=8),
    Column("Confidence", 4),
    Column("Inside", 1),
)


def print_search(image: Image, options: argparse.Namespace) -> None:
    """Print a row for each partition that a search finds, with its evidence, and what is at the disk's start."""
    found = image.partitions.search()
    try:
        suspect = [str(each) for each in found.suspect_ranges]
    except CorruptImage as error:
        suspect = [f"the disk's start can't be read: {error}"]
    if options.json:
        print(json.dumps(_described(image, found), indent=2))
        return
    for text in suspect:
        _print_text(text, "  ")
    partitions = list(found)
    if not partitions:
        _print_text("no partition was found that the disk's own table does not have", "  ")
        return
    rows = [*map(_row, partitions)]
    width = table_width()
    fitted = fit(_COLUMNS, rows, None if width is None else width - len(GAP))
    print(row_line(_COLUMNS, [column.heading for column in _COLUMNS], fitted))
    for row, partition in zip(rows, partitions, strict=True):
        print(row_line(_COLUMNS, row, fitted))
        for item in () if partition.finding is None else partition.finding.evidence:
            _print_text(str(item), "      ")
    if fitted.left_out:
        print("\n".join(left_out_lines(fitted, width)))
    readable = next((partition for partition in partitions if has_files(partition.volume)), None)
    if readable is not None:
        listing = command("ls", options.source, place_name(readable.start), *way_of(options, devices=False))
        _print_text(f"{listing} lists files; use these names wherever a command takes a partition", "  ")


def _row(partition: Partition) -> tuple[str, ...]:
    finding = partition.finding
    assert finding is not None, "it was found by the search"
    size = f"{partition.size / (1 << 20):.1f} MiB"
    return (
        place_name(partition.start),
        size if finding.size_is_known else f"up to {size}",
        partition.kind,
        printable(partition.label or "-"),
        finding.confidence,
        "-" if finding.inside is None else place_name(finding.inside),
    )


def _described(image: Image, found: FoundPartitions) -> dict[str, Any]:
    """Result of a search, of values that JSON has."""
    partitions = []
    for partition in found:
        finding = partition.finding
        assert finding is not None, "it was found by the search"
        partitions.append(
            {
                "number": partition.number,
                "path": place_name(partition.start),
                "start": partition.start,
                "size": partition.size,
                "size_is_known": finding.size_is_known,
                "kind": partition.kind,
                "label": partition.label,
                "confidence": finding.confidence,
                "inside": finding.inside,
                "evidence": [{"statement": item.statement, "offset": item.offset} for item in finding.evidence],
            }
        )
    try:
        ranges = [{"offset": r.offset, "size": r.size, "statement": r.statement} for r in found.suspect_ranges]
    except CorruptImage:  # reported with the problems of the search
        ranges = []
    problems = [{"structure": p.structure, "message": p.message, "offset": p.offset} for p in found.problems]
    return {
        "path": image.path,
        "scheme": image.scheme,
        "found": partitions,
        "suspect_ranges": ranges,
        "problems": problems,
    }


def _print_text(text: str, indent: str) -> None:
    print("\n".join(wrapped(text, indent, hanging=f"{indent}  ", width=text_width())))
