"""`info --search`: partitions that no table has."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import Any

from vmvisor_image.base.names import printable
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import FoundPartitions
from vmvisor_image.errors import CorruptImage

_HEADINGS = ("#", "Start", "Size", "Kind", "Label", "Confidence", "Inside")


def print_search(image: Image, *, as_json: bool) -> None:
    """Print a row for each partition that a search finds, with its evidence, and what is at the disk's start."""
    found = image.partitions.search()
    try:
        suspect = [str(each) for each in found.suspect_ranges]
    except CorruptImage as error:
        suspect = [f"the disk's start can't be read: {error}"]
    if as_json:
        print(json.dumps(_described(image, found), indent=2))
        return
    for text in suspect:
        _print_wrapped(text, "  ")
    rows = [_HEADINGS, *map(_row, found)]
    if len(rows) == 1:
        _print_wrapped("no partition was found that the disk's own table does not have", "  ")
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    evidence = [(), *(partition.finding.evidence for partition in found if partition.finding is not None)]
    for row, items in zip(rows, evidence, strict=True):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for item in items:
            _print_wrapped(printable(str(item)), "      ")


def _row(partition: Partition) -> tuple[str, ...]:
    finding = partition.finding
    assert finding is not None, "it was found by the search"
    size = f"{partition.size / (1 << 20):.1f} MiB"
    return (
        str(partition.number),
        f"{partition.start:#x}",
        size if finding.size_is_known else f"up to {size}",
        partition.kind,
        printable(partition.label or "-"),
        finding.confidence,
        "-" if finding.inside is None else f"{finding.inside:#x}",
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


def _print_wrapped(text: str, indent: str) -> None:
    width = shutil.get_terminal_size().columns
    print(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent + "  "))
