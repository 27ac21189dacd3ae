"""Partition tables as sfdisk sees them, damaged ones, and disks without a table; images as handles."""

from __future__ import annotations

import bz2
import errno
import io
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import run
from tests.tool_disk import ToolDisk
from vmvisor_image import (
    ClosedError,
    CorruptImage,
    Extent,
    File,
    Image,
    InvalidArgument,
    NotAFileSystem,
    PartitionNotFound,
    Problem,
    Role,
    SourceError,
    SourceIsDirectory,
    SourceNotDirectory,
    SourceNotFound,
    TruncatedImage,
    inspect,
)
from vmvisor_image.faces.cli.advice import one_line
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing import forge
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk

SECTOR = 512
BANK = fat_volume({"a.txt": b"content"}, sectors=4000, label="BANK")


class Recorder(BytesSource):
    """Bytes that remember which ranges were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().read_at(offset, length)


def flat(image: SparseImage) -> bytearray:
    return bytearray(image.read_at(0, image.size))


def logical_disk() -> bytearray:
    """Partitions 1 (FAT), 2 (extended), 5, 6 and 7 (FAT)."""
    return flat(
        mbr_disk(
            [
                ForgedPartition(1, 0x06, 64, 4000, content=BANK),
                ForgedPartition(2, 0x05, 8192, 24576),
                *(ForgedPartition(5 + n, 0x06, 8192 * (1 + n) + 32, 4000, content=BANK) for n in range(3)),
            ],
            sectors=40000,
        )
    )


def readable(image: Image) -> set[int]:
    """Numbers of the partitions whose file can be read."""
    found = set()
    for partition in image.partitions:
        try:
            if partition.files["a.txt"].read_bytes() == b"content":
                found.add(partition.number)
        except (CorruptImage, NotAFileSystem):
            continue
    return found


@pytest.mark.parametrize("seed", range(25))
def test_numbers_and_places_are_sfdisks(tmp_path: Path, seed: int) -> None:
    """Random tables: slots in any order, logical partitions made in any order and some deleted again."""
    chance = random.Random(seed)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    extended = chance.choice((1, 2, 3, 4))
    script = ["label: dos", "unit: sectors"]
    primary_places = [2048, 8192, 16384]
    chance.shuffle(primary_places)
    numbers = chance.sample([n for n in (1, 2, 3, 4) if n != extended], chance.randrange(4))
    script += [f"{n} : start={primary_places.pop()}, size={chance.randrange(1, 2000)}, type=6" for n in numbers]
    script.append(f"{extended} : start=32768, size=98304, type={chance.choice(('5', 'f', '85'))}")
    places = chance.sample(range(20), chance.randrange(1, 8))
    script += [f"start={32768 + 2048 + place * 4096}, size={chance.randrange(1, 2000)}, type=83" for place in places]
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path, stdin="\n".join(script))
    if len(places) > 2 and chance.random() < 0.6:
        run(
            "sfdisk",
            "--quiet",
            "--no-reread",
            "--no-tell-kernel",
            "--delete",
            path,
            str(chance.randrange(5, 5 + len(places))),
        )
    table = json.loads(run("sfdisk", "-J", path))["partitiontable"]["partitions"]
    expected = {
        int(row["node"].removeprefix(str(path))): (row["start"], row["size"], int(row["type"], 16)) for row in table
    }
    with Image.open(path) as image:
        found = {p.number: (p.first_lba, p.sectors, p.type.code) for p in image.partitions}
        assert found == expected
        assert {number: image.partitions[number].start for number in expected} == {
            number: start * SECTOR for number, (start, _, _) in expected.items()
        }
        starts = [p.start for p in image.partitions]
        assert starts == sorted(starts)
        assert len(image.partitions) == len(expected)
        assert image.problems == ()


def damage_loop(disk: bytearray) -> str:
    record = 2 * 8192 * SECTOR  # the record of partition 6 links to itself
    disk[record + 462 + 8 : record + 462 + 12] = (8192).to_bytes(4, "little")
    return "loops"


def damage_link_past_end(disk: bytearray) -> str:
    record = 2 * 8192 * SECTOR
    disk[record + 462 + 8 : record + 462 + 12] = (1 << 30).to_bytes(4, "little")
    return "past the end of the disk"


def damage_mbr_signature(disk: bytearray) -> str:
    disk[510:512] = b"\0\0"
    return "55 AA is missing"


def damage_record_signature(disk: bytearray) -> str:
    record = 2 * 8192 * SECTOR
    disk[record + 510 : record + 512] = b"\0\0"
    return "55 AA is missing"


def damage_overlap(disk: bytearray) -> str:
    disk[446 + 12 : 446 + 16] = (9000).to_bytes(4, "little")  # partition 1 reaches into 5
    return "overlaps"


def damage_past_end(disk: bytearray) -> str:
    record = 3 * 8192 * SECTOR
    disk[record + 446 + 12 : record + 446 + 16] = (1 << 20).to_bytes(4, "little")
    return "past the end of the disk"


@pytest.mark.parametrize(
    ("damage", "healthy"),
    [
        (damage_loop, {1, 5, 6}),
        (damage_link_past_end, {1, 5, 6}),
        (damage_mbr_signature, {1, 5, 6, 7}),
        (damage_record_signature, {1, 5, 6, 7}),
        (damage_overlap, {1, 5, 6, 7}),
        (damage_past_end, {1, 5, 6, 7}),
    ],
)
def test_damage_is_a_problem_and_the_rest_is_read(damage: Callable[[bytearray], str], healthy: set[int]) -> None:
    disk = logical_disk()
    message = damage(disk)
    with Image.open(bytes(disk)) as image:
        assert readable(image) == healthy
        assert any(message in problem.message for problem in image.problems), image.problems
        assert all(problem.offset is not None for problem in image.problems)


def test_an_undamaged_one_has_no_problems() -> None:
    with Image.open(bytes(logical_disk())) as image:
        assert readable(image) == {1, 5, 6, 7}
        assert image.problems == ()


def test_a_damaged_record_ends_the_chain() -> None:
    disk = logical_disk()
    disk[2 * 8192 * SECTOR : 2 * 8192 * SECTOR + 512] = random.Random(1).randbytes(512)
    with Image.open(bytes(disk)) as image:
        assert readable(image) == {1, 5}
        assert any("extended boot record" in problem.structure for problem in image.problems)


@pytest.mark.parametrize("options", [[], ["--mbr=y"], ["-F", "12"], ["-F", "32", "--mbr=y"]], ids=str)
def test_a_volume_without_a_table(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "floppy"
    with path.open("wb") as file:
        file.truncate(40 << 20)
    cluster = ["-s", "32"] if "12" in options else []
    run("mkfs.fat", *options, *cluster, "-n", "FLOPPY", path)
    (tmp_path / "hello.txt").write_bytes(b"hello")
    run("mcopy", "-i", path, tmp_path / "hello.txt", "::/")
    with Image.open(path) as image:
        assert image.scheme == "none"
        [partition] = image.partitions
        assert (partition.number, partition.start, partition.size, partition.label) == (1, 0, 40 << 20, "FLOPPY")
        assert partition.type.code is None
        assert image.partitions["floppy"].files["hello.txt"].read_bytes() == b"hello"
        assert image.problems == ()
        assert "no partition table" in partition.explain()


@pytest.mark.parametrize("content", [b"", b"x" * 511, bytes(4096), random.Random(0).randbytes(4096)], ids=len)
def test_neither_table_nor_volume(content: bytes) -> None:
    with Image.open(content) as image:
        assert image.scheme == "none"
        assert len(image.partitions) == 0
        [problem] = image.problems
        assert problem.offset == 0
        with pytest.raises(PartitionNotFound, match="none"):
            image.partitions[1]


def test_an_empty_table() -> None:
    with Image.open(bytes(mbr_disk([], sectors=100).read_at(0, 51200))) as image:
        assert image.scheme == "mbr"
        assert list(image.partitions) == []
        assert image.problems == ()


def test_by_number_nothing_but_the_table_is_read() -> None:
    source = Recorder(bytes(logical_disk()))
    with Image.open(source) as image:
        source.reads.clear()
        assert image.partitions[6].first_lba == 2 * 8192 + 32
        assert {offset for offset, _ in source.reads} == {0, 8192 * SECTOR, 2 * 8192 * SECTOR}


def test_by_label_nothing_past_the_match_is_read() -> None:
    disk = forge.mbr_disk(
        [ForgedPartition(n, 6, 8192 * n, 4000, content=fat_volume({}, sectors=4000, label=f"L{n}")) for n in (1, 2, 3)],
        sectors=40000,
    )
    source = Recorder(bytes(flat(disk)))
    with Image.open(source) as image:
        assert image.partitions["L2"].number == 2
        assert max(offset + length for offset, length in source.reads) < 3 * 8192 * SECTOR
        assert len(source.reads) < 10
        opened = len(source.reads)
        assert image.partitions["l2"].number == 2
        assert len(source.reads) == opened


def test_roles_kinds_and_explanations() -> None:
    disk = forge.esx35_disk(boot={"mboot.c32": b""}, bank={"a": b""})
    with Image.open(disk) as image:
        roles = {p.number: (p.role, p.kind) for p in image.partitions}
        assert roles == {
            4: (Role.BOOT, "fat16"),
            1: (Role.CONTAINER, "extended"),
            5: (Role.BOOTBANK, "fat16"),
            6: (Role.ALT_BOOTBANK, "fat16"),
            7: (Role.COREDUMP, "vmkcore"),
            8: (Role.STORE, "fat16"),
        }
        assert image.partitions[4].active
        assert "diagnostic partition" in image.partitions[7].explain()
        assert "0x6404000" in image.partitions[7].explain()
        with pytest.raises(NotAFileSystem):
            _ = image.partitions[7].files
        assert str(image.partitions[7].type) == "VMware VMKCORE (0xfc)"
        assert "Hypervisor1" in image.partitions
        assert 9 not in image.partitions
        assert "" not in image.partitions  # which is not the name of those that have none
        assert [p.number for p in reversed(image.partitions)] == [8, 7, 6, 5, 1, 4]
        assert image.partitions[5] in image.partitions
        assert "6 partitions" in repr(image.partitions)
        assert "Partition 7" in repr(image.partitions[7])


def test_a_partition_reads_its_own_bytes() -> None:
    disk = logical_disk()
    with Image.open(bytes(disk)) as image:
        partition = image.partitions[6]
        assert partition.read_at(3, 100) == disk[partition.start + 3 : partition.start + 103]
        stream = partition.open()
        assert stream.read() == disk[partition.start : partition.start + partition.size]
        with pytest.raises(TruncatedImage):
            partition.read_at(partition.size - 1, 2)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, io.BytesIO, BytesSource])
def test_sources(form: Callable[[bytes], object]) -> None:
    with Image.open(form(bytes(logical_disk()))) as image:  # type: ignore[arg-type]  # one of a table
        assert readable(image) == {1, 5, 6, 7}
        assert image.size == 40000 * SECTOR
        assert image.layers == ()
        assert image.open().read(512) == image.read_at(0, 512)


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Image.open(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        Image.open(tmp_path)
    for taken in ("disk.dd", "file"):
        (tmp_path / taken).write_bytes(b"")
    table: dict[Path, tuple[type[SourceError], type[OSError], int, str]] = {
        tmp_path / "disc.dd": (
            SourceNotFound,
            FileNotFoundError,
            errno.ENOENT,
            f"; did you mean '{tmp_path}/disk.dd'?",
        ),
        tmp_path / "no" / "x": (SourceNotFound, FileNotFoundError, errno.ENOENT, "is not a folder that can be read"),
        tmp_path: (SourceIsDirectory, IsADirectoryError, errno.EISDIR, "it is a folder, not a file: name a file in it"),
        tmp_path / "file" / "x": (SourceNotDirectory, NotADirectoryError, errno.ENOTDIR, "is a file, not a folder"),
    }
    for path, (ours, builtin, number, said) in table.items():
        with pytest.raises(builtin) as caught:
            Image.open(path)
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
            assert type(error) is ours
            assert (error.errno, error.filename) == (number, str(path))
            assert str(error).startswith(f"{path}: ")
            assert said in str(error)
            assert "[Errno" not in str(error)
            assert one_line(error).startswith(str(error))  # the command line has the same words
    for wrong in (None, 5, "no-such-protocol://x.dd"):
        with pytest.raises(InvalidArgument):
            Image.open(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="threads"):
        Image.open(b"", threads=0)


def test_closing(tool_built_disk: ToolDisk) -> None:
    image = Image.open(tool_built_disk.bz2)
    partition = image.partitions["Hypervisor1"]
    image.close()
    image.close()
    with pytest.raises(ClosedError):
        image.read_at(0, 1)
    with pytest.raises(ClosedError):
        partition.files["boot.cfg"].read_bytes()
    file = io.BytesIO(bytes(logical_disk()))
    Image.open(file).close()
    assert not file.closed


def test_handles_are_pickled_and_reopen_in_another_process(tool_built_disk: ToolDisk) -> None:
    with Image.open(tool_built_disk.bz2) as image:
        partition = image.partitions["Hypervisor1"]
        file = partition.files["boot.cfg"]
        pickled = pickle.dumps((image, partition, file))
        expected = file.sha256()
    code = (
        "import pickle, sys; image, partition, file = pickle.load(sys.stdin.buffer); "
        "print(file.sha256(), partition.label, image.partitions['Hypervisor1'].files['BOOT.CFG'].sha256())"
    )
    output = subprocess.run([sys.executable, "-c", code], input=pickled, stdout=subprocess.PIPE, check=True).stdout
    assert output.decode().split() == [expected, "Hypervisor1", expected]


def test_what_can_not_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Image.open(io.BytesIO(bytes(1024))))
    image = pickle.loads(pickle.dumps(Image.open(bytes(logical_disk()))))
    assert readable(image) == {1, 5, 6, 7}


def test_progress(tool_built_disk: ToolDisk) -> None:
    calls: list[tuple[int, int | None]] = []
    with Image.open(tool_built_disk.bz2, progress=lambda done, total: calls.append((done, total))) as image:
        size = tool_built_disk.bz2.stat().st_size
        assert image.size == tool_built_disk.image.stat().st_size
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {size}
    assert calls[-1] == (size, size)


def test_a_bz2_that_is_cut_off(tool_built_disk: ToolDisk) -> None:
    """What lies before the cut is read, the rest is reported."""
    data = tool_built_disk.bz2.read_bytes()
    with Image.open(data[: len(data) - 20_000]) as image:
        assert image.partitions["Hypervisor1"].files["boot.cfg"].read_bytes()
        problems = image.problems
        assert any("bzip2" in problem.structure for problem in problems)
    report = inspect(data[: len(data) - 20_000])
    assert report.size is None
    assert json.loads(json.dumps(report.to_dict()))["problems"]
    assert pickle.loads(pickle.dumps(report)) == report


def test_the_report(tool_built_disk: ToolDisk) -> None:
    report = inspect(tool_built_disk.bz2)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["scheme"] == "mbr"
    assert plain["layers"] == [["bzip2", tool_built_disk.bz2.name]]
    assert [partition["number"] for partition in plain["partitions"]] == [4, 1, 5, 6, 7, 8]
    bank = plain["partitions"][2]
    assert (bank["label"], bank["role"], bank["kind"]) == ("Hypervisor1", "bootbank", "fat16")
    files = tool_built_disk.volumes["Hypervisor1"].files
    assert {(file["path"], file["size"], file["modified"]) for file in bank["files"]} == {
        (file.path, len(file.data), file.modified.isoformat()) for file in files.values()
    }
    assert report.problems == ()


def test_a_file_asks_its_volume_for_holes_once() -> None:
    class Home:
        disk = BytesSource(b"abcdef")
        asked = 0

        def locate(self, token: object) -> tuple[Extent, ...]:
            return (Extent(0, 6),)

        def open_content(self, token: object) -> None:
            self.asked += 1

    home = Home()
    file = File(home, "f", 6, None, 0)
    assert [file.read_at(at, 1) for at in range(3)] == [b"a", b"b", b"c"]
    assert home.asked == 1


@pytest.mark.parametrize("count", [1023, 1024, 1025, 1100])
def test_a_chain_of_logical_partitions_is_read_up_to_the_most(count: int) -> None:
    """One of more records than are read is told of where it goes on; what is before that is there."""

    def record(*entries: tuple[int, int, int]) -> bytes:
        table = b"".join(
            bytes((0, 0, 0, 0, kind, 0, 0, 0)) + first.to_bytes(4, "little") + sectors.to_bytes(4, "little")
            for kind, first, sectors in entries
        )
        return (bytes(446) + table).ljust(510, b"\0") + b"\x55\xaa"

    disk = record((5, 1, 2 * count))
    for number in range(count):
        link = [(5, 2 * (number + 1), 2)] if number < count - 1 else []
        disk += record((0x83, 1, 1), *link) + bytes(512)
    with Image.open(disk) as image:
        assert [partition.number for partition in image.partitions] == [1, *range(5, 5 + min(count, 1024))]
        found = [problem for problem in image.problems if problem.structure == "extended boot record"]
        told = Problem("extended boot record", "the chain goes on past 1024 records", 512 + 1024 * 1024)
        assert found == ([told] if count > 1024 else [])


class TestQuickProblems:
    def test_decodes_no_further_than_the_table(self) -> None:
        disk = logical_disk()
        damage_overlap(disk)
        tail = random.Random(5).randbytes(3_000_000)
        with Image.open(bz2.compress(bytes(disk) + tail, 1), threads=1) as image:
            assert image.known_problems == ()
            quick = image.quick_problems
            assert any("overlaps" in problem.message for problem in quick)
            assert image.meter.decoded_bytes < len(disk) + 1_000_000
            thorough = image.problems
            assert image.meter.decoded_bytes >= len(tail)
            assert set(quick) <= set(thorough)
            assert set(quick) <= set(image.quick_problems) <= set(thorough)

    @pytest.mark.parametrize(
        "damage", [damage_loop, damage_link_past_end, damage_mbr_signature, damage_record_signature, damage_overlap]
    )
    def test_of_the_table(self, damage: Callable[[bytearray], str]) -> None:
        disk = logical_disk()
        message = damage(disk)
        assert any(message in str(problem) for problem in Image.open(bytes(disk)).quick_problems)

    def test_none(self) -> None:
        assert Image.open(bytes(logical_disk())).quick_problems == ()

    def test_of_what_is_no_disk(self) -> None:
        image = Image.open(b"x" * 100)
        assert image.quick_problems == image.problems != ()


def test_a_stream_of_the_disk_by_either_name() -> None:
    disk = bytes(logical_disk())
    with Image.open(disk) as image, image.open() as stream, image.open_stream() as same:
        assert type(stream) is type(same)
        assert stream.read() == same.read() == disk
        assert image.open.__doc__ == Image.open_stream.__doc__ != Image.open.__doc__
