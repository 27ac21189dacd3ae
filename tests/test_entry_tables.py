"""Entries of several disks that are looked through at once, beside a look at each entry of each disk."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import require_tool
from vmvisor_image import Image
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.tables import EntryTable, count_rising, join_entries

UNIT = 4096
PER_PART = 16
PARTS = 3
SIZE = UNIT * PER_PART * PARTS


def table(entries: list[int], width: int, order: str) -> EntryTable:
    """A table of the entries; its part 1 is left out where all of that are holes, and read as none."""
    data = b"".join(entry.to_bytes(width, order) for entry in entries)  # type: ignore[arg-type]

    def read(number: int) -> bytes | None:
        found = data[number * PER_PART * width : (number + 1) * PER_PART * width]
        return found if any(found) else b""

    return EntryTable(PER_PART, UNIT, width, read)


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize(("width", "order"), [(4, "little"), (8, "big"), (16, "big")])
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_the_first_column_and_its_end_are_those_of_a_look_at_each(
    columns: int, width: int, order: str, density: float
) -> None:
    chance = random.Random(f"{columns} {width} {density}")
    rows = [
        [chance.randrange(1, 1 << 8 * width) if chance.random() < density else 0 for _ in range(PER_PART * PARTS)]
        for _ in range(columns)
    ]
    joined = join_entries([table(row, width, order) for row in rows])
    assert joined is not None
    assert joined.columns == columns

    def naive(unit: int) -> int:
        return next((column for column, row in enumerate(rows) if row[unit]), columns)

    for _ in range(400):
        offset = chance.randrange(SIZE)
        end = min(SIZE, offset + chance.choice([1, 4096, 9 * UNIT]))
        column, to = joined.first(offset, end)
        assert column == naive(offset // UNIT)
        assert to > offset
        assert to % UNIT == 0
        for unit in range(offset // UNIT, min(to, SIZE) // UNIT):
            assert naive(unit) >= column  # none of the columns before has anything up to there
        if to < end and to % (PER_PART * UNIT):  # it ends for a reason
            assert naive(to // UNIT) < column or column == columns


def test_what_is_not_known_is_no_hole() -> None:
    """A part that can't be read, and entries behind the end of the source, have to be looked at by themselves."""
    lost = EntryTable(PER_PART, UNIT, 8, lambda _: None)
    short = EntryTable(PER_PART, UNIT, 8, lambda _: bytes(5 * 8 + 3))
    empty = EntryTable(PER_PART, UNIT, 8, lambda _: b"")
    assert [each.is_known(0) for each in (lost, short, empty)] == [False, True, True]
    for first, column in ((lost, 1), (short, 1)):
        joined = join_entries([empty, first, empty])
        assert joined is not None
        assert joined.first(7 * UNIT + 5, 8 * UNIT) == (column, 8 * UNIT)
    joined = join_entries([short, empty])
    assert joined is not None
    assert joined.first(0, 16 * UNIT) == (2, 5 * UNIT)
    assert lost.first(3 * UNIT, 3 * UNIT + 1)[0] == 0
    assert short.first(6 * UNIT, 6 * UNIT + 1)[0] == 0
    assert empty.first(6 * UNIT, 6 * UNIT + 1) == (1, PER_PART * UNIT)
    assert join_entries([]) is None


def test_parts_are_kept_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmvisor_image.streams.tables._MOST_PART_BYTES", 3 * 8 * PER_PART)
    asked: list[int] = []

    def read(number: int) -> bytes:
        asked.append(number)
        return bytes(8 * PER_PART)

    entries = EntryTable(PER_PART, UNIT, 8, read)
    for number in (0, 1, 2, 0, 1, 2, 3, 0):
        entries.part(number)
    assert asked == [0, 1, 2, 3, 0]
    assert len(entries.parts) <= 3


@pytest.mark.parametrize(
    ("numbers", "step", "count"),
    [([5], 1, 1), ([5, 6, 7], 1, 3), ([5, 6, 8], 1, 2), ([5, 7], 1, 1), ([1, 1, 1, 2], 0, 3), ([9, 8], 1, 1)],
)
def test_numbers_that_rise(numbers: list[int], step: int, count: int) -> None:
    for width, code in ((4, "I"), (8, "Q")):
        assert count_rising(struct.pack(f"<{len(numbers)}{code}", *numbers), step, width, "little") == count  # type: ignore[arg-type]
        big = struct.pack(f">{len(numbers)}{code}", *numbers) + b"\0"  # cut behind a number
        assert count_rising(big, step, width, "big") == count  # type: ignore[arg-type]


def make_chain(kind: str, folder: Path, links: int) -> Path:
    """The last of some disks that rest on each other, of 8 MiB with one cluster of its own each."""
    require_tool("qemu-img")
    require_tool("qemu-io")
    below: list[str] = []
    for number in range(links):
        path = folder / f"{number}.{kind}"
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, *below, path, "8M"], check=True)
        write = f"write -q -P {number + 1} {number * 64}k 64k"
        subprocess.run(["qemu-io", "-f", kind, "-c", write, path], check=True)
        below = ["-b", f"{number}.{kind}", "-F", kind]
    return folder / f"{links - 1}.{kind}"


def disks_of(image: Image) -> Iterator[MappedDisk]:
    disk = image.layers[-1].source
    while isinstance(disk, MappedDisk):
        yield disk
        if disk.parent is None:
            return
        disk = disk.parent.source


def counted(disk: MappedDisk, counts: dict[int, int], number: int) -> None:
    locate: Callable[[int, int], object] = disk.locate

    def counting(offset: int, end: int) -> object:
        counts[number] = counts.get(number, 0) + 1
        return locate(offset, end)

    disk.locate = counting  # type: ignore[assignment]


@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
def test_only_the_disk_that_has_the_bytes_is_asked_for_them(kind: str, tmp_path: Path) -> None:
    counts: dict[int, int] = {}
    with Image.open(make_chain(kind, tmp_path, 6)) as image:
        disks = list(disks_of(image))
        for number, disk in enumerate(reversed(disks)):
            counted(disk, counts, number)
        for number in range(1, 6):  # the first bytes were read when it was opened
            assert disks[0].read_at(number * 65536 + 512, 3) == bytes([number + 1]) * 3
            assert counts.pop(number) == 1
            assert not counts
        assert disks[0].read_at(7 * 65536, 65536) == bytes(65536)
        assert counts == {0: 1}  # the lowest says that nothing is there
