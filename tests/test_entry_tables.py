"""Entries of several disks that are looked through at once, beside a look at each entry of each disk."""

from __future__ import annotations

import hashlib
import random
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import require_tool, run
from vmvisor_image import CorruptImage, Image, TruncatedImage
from vmvisor_image.layers import qcow2, vmdk
from vmvisor_image.streams import tables
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.tables import EntryTable, count_rising, join_entries

UNIT = 4096
PER_PART = 16
PARTS = 3
SIZE = UNIT * PER_PART * PARTS
SEEDS = 12


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


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_entries_that_are_there_in_part_are_left_out(cut: int) -> None:
    whole = bytes(range(1, 1 + 5 * 8))
    entries = EntryTable(PER_PART, UNIT, 8, lambda _: whole[: len(whole) - cut])
    assert entries.part(0) == whole[: 32 if cut else 40]
    assert EntryTable(PER_PART, UNIT, 8, lambda _: whole[:7]).is_known(0) is False


def test_grains_of_a_table_whose_copies_differ(tmp_path: Path) -> None:
    """The first grain of such a table, and the others, are those of the first copy, as qemu-img has them."""
    require_tool("qemu-img")
    content = random.Random(1).randbytes(1 << 20)
    (tmp_path / "raw").write_bytes(content)
    path = tmp_path / "disk.vmdk"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", tmp_path / "raw", path], check=True)
    data = bytearray(path.read_bytes())
    redundant = int.from_bytes(data[48:56], "little") * 512  # the first of both directories in the header
    table = int.from_bytes(data[redundant : redundant + 4], "little") * 512
    data[table] ^= 0x80
    path.write_bytes(data)
    with Image.open(path) as image:
        assert image.read_at(0, len(content)) == content
        assert any("the second copy of table 0 differs" in problem.message for problem in image.known_problems)


def test_an_extent_that_is_too_short_has_no_hole_behind_its_end(tmp_path: Path) -> None:
    """Its descriptor says that it is longer: what is missing is not read from the parent."""
    run("qemu-img", "create", "-f", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "below.vmdk", "64M")
    run("qemu-img", "create", "-f", "vmdk", "-o", "subformat=monolithicSparse", tmp_path / "top-1.vmdk", "32M")
    identity = re.search(r"^CID=(\w+)", (tmp_path / "below.vmdk").read_text(), re.MULTILINE)
    assert identity is not None
    (tmp_path / "top.vmdk").write_text(
        f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID={identity[1]}\ncreateType="vmfsSparse"\n'
        'parentFileNameHint="below.vmdk"\nRW 131072 SPARSE "top-1.vmdk"\n'
    )
    with Image.open(tmp_path / "top.vmdk") as image:
        assert image.read_at(0, 65536) == bytes(65536)
        for at in (32 << 20, (33 << 20) + 512, (64 << 20) - 65536):
            with pytest.raises(TruncatedImage, match="vmdk extent"):
                image.read_at(at, 65536)


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


def outcomes(path: Path) -> list[str]:
    """What reading each 64 KiB of a disk gives: the bytes' hash, or the error; and last, the problems found."""
    found: list[str] = []
    try:
        with Image.open(path) as image:
            for at in range(0, image.size, 65536):
                try:
                    found.append(hashlib.sha256(image.read_at(at, min(65536, image.size - at))).hexdigest())
                except TruncatedImage:  # it names what was read at once: one run, or one cluster
                    found.append("the file ends before that")
                except CorruptImage as error:
                    found.append(str(error))
            found += sorted(map(str, image.known_problems))
    except CorruptImage as error:
        return [str(error)]
    return found


@pytest.fixture(scope="module", params=["qcow2", "qcow2 in clusters of 512", "vmdk"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of three disks of 8 MiB, each with some writes; the last one is "2"."""
    require_tool("qemu-img")
    require_tool("qemu-io")
    folder = tmp_path_factory.mktemp("chain")
    chance = random.Random(request.param)
    kind, _, more = str(request.param).partition(" ")
    options = ["-o", "cluster_size=512"] if more else []
    below: list[str] = []
    for number in range(3):
        path = folder / str(number)
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, *options, *below, path, "8M"], check=True)
        writes = [f"write -q -P {chance.randrange(1, 256)} {chance.randrange(120)}k 64k" for _ in range(2)]
        writes += [f"write -q -P {chance.randrange(1, 256)} {chance.randrange(120) * 64}k 64k" for _ in range(12)]
        commands = [word for write in writes for word in ("-c", write)]
        subprocess.run(["qemu-io", "-f", kind, *commands, path], check=True)
        below = ["-b", path.name, "-F", kind]
    return folder


@pytest.mark.parametrize("seed", range(SEEDS))
def test_damaged_tables_are_read_as_they_are_entry_by_entry(
    made: Path, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is the road of each format for entries that are not plain, with all checks, taken for every entry."""
    chance = random.Random(seed)
    for path in made.iterdir():
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice([0, 2, 12])):
            at = chance.randrange(512, min(len(data), 6 << 16)) & ~3
            old = data[at : at + 4]
            data[at : at + 4] = chance.choice([bytes(4), b"\0\1\0\0", old[::-1], chance.randbytes(4)])
        if chance.random() < 0.3:
            del data[chance.randrange(len(data) // 2, len(data)) :]
        (tmp_path / path.name).write_bytes(data)
    quick = outcomes(tmp_path / "2")
    for reader in (qcow2._Reader, vmdk._SparseReader):
        monkeypatch.setattr(reader, "locate", lambda self, offset, _: self._locate_special(offset))
    monkeypatch.setattr(EntryTable, "part", lambda *_: tables._NOT_KNOWN)
    assert quick == outcomes(tmp_path / "2")
