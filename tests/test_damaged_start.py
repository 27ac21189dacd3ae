"""A compressed disk whose start is damaged: what was there is said, and the healthy rest is read.

Disks are made by sfdisk, sgdisk, mformat and mcopy and compressed by bzip2, xz and zstd; what is behind the damage is
compared with the disk itself, and the number of healthy blocks with what bzip2recover finds.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import pickle
import random
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import REPOSITORY, require_tool, run
from vmvisor_image import CorruptImage, Image, PartitionNotFound, TruncatedImage, convert, inspect, verify
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.bridged import BridgedReader
from vmvisor_image.faces.cli import main
from vmvisor_image.fleet import scan_one
from vmvisor_image.testing.forge import esx40_disk

MIB = 1 << 20
SECTORS = {1: (64, 1984), 2: (2048, 2048), 3: (4096, 2048)}
"""First sector and number of sectors of each partition."""
SIZE = 3 * MIB
SIZES = {1: 500_000, 2: 800_000, 3: 800_001}
FILES = {number: random.Random(number).randbytes(size) for number, size in SIZES.items()}
"""Content of the file on each volume, which it nearly fills."""


def make_disk(path: Path, *, is_gpt: bool = False, hidden: dict[int, int] | None = None) -> bytes:
    """A disk of three FAT volumes, whose boot sectors have these hidden sectors, or the right ones."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    if is_gpt:
        starts = {1: (34, 1984), 2: SECTORS[2], 3: (4096, 2015)}
        arguments = [f"-n {number}:{start}:{start + count - 1}" for number, (start, count) in starts.items()]
        names = [f"-c {number}:PART{number}" for number in starts]
        run("sgdisk", "-a", "1", *(word for each in (*arguments, *names) for word in each.split()), path)
    else:
        starts = SECTORS
        lines = [f"{number} : start={start}, size={count}, type=6" for number, (start, count) in starts.items()]
        run("sfdisk", "--no-reread", "--no-tell-kernel", path, stdin="label: dos\n" + "\n".join(lines) + "\n")
    content = path.with_suffix(".file")
    for number, (start, count) in starts.items():
        at = f"{path}@@{start * 512}"
        known = start if hidden is None else hidden.get(number, 0)
        run(
            "mformat",
            "-i",
            at,
            "-T",
            str(count),
            "-h",
            "16",
            "-s",
            "63",
            "-H",
            str(known),
            "-v",
            f"VOLUME{number}",
            "::",
        )
        content.write_bytes(FILES[number])
        run("mcopy", "-i", at, content, "::FILE.BIN")
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def disk(folder: Path) -> bytes:
    return make_disk(folder / "mbr.dd")


@pytest.fixture(scope="module")
def gpt_disk(folder: Path) -> bytes:
    return make_disk(folder / "gpt.dd", is_gpt=True)


def damaged(data: bytes, at: int, length: int = 4) -> bytes:
    """Other bytes at a place."""
    return data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + length]) + data[at + length :]


def blocks(compressed: bytes) -> list[tuple[int, int, int, int]]:
    """First and last compressed byte, first decoded byte and exclusive end of each block of healthy data."""
    reader = Bzip2Reader(compressed)
    _ = reader.size
    index = reader._walk.index
    entries = [index[number] for number in range(len(index))]
    return [(each.start_bit // 8, each.end_bit // 8, each.start, each.start + each.size) for each in entries]


def with_damaged_block(compressed: bytes, number: int) -> tuple[bytes, tuple[int, int]]:
    """Data with one block damaged in its middle, and the decoded bytes that it held."""
    first, last, start, end = blocks(compressed)[number]
    return damaged(compressed, (first + last) // 2), (start, end)


def by_bzip2(data: bytes) -> bytes:
    """One stream, of blocks of 100,000 bytes."""
    return bz2.compress(data, 1)


def by_pbzip2(data: bytes) -> bytes:
    """Streams of 100,000 bytes, each with blocks of its own."""
    done = subprocess.run([require_tool("pbzip2"), "-c", "-1", "-b1"], input=data, capture_output=True, check=True)
    return done.stdout


@pytest.mark.parametrize("compress", [by_bzip2, by_pbzip2])
def test_behind_a_lost_start_everything_is_placed_by_the_volumes(
    disk: bytes, compress: Callable[[bytes], bytes]
) -> None:
    broken, (start, end) = with_damaged_block(compress(disk), 0)
    with Image.open(broken, salvage=True) as image:
        reader = image.layers[0].source
        assert isinstance(reader, BridgedReader)
        assert reader.lost == (start, end)
        assert image.size == len(disk)
        assert image.read_at(end, len(disk) - end) == disk[end:]
        found = {partition.label: partition for partition in image.partitions}
        assert {label: partition.start // 512 for label, partition in found.items()} == {
            f"VOLUME{number}": SECTORS[number][0] for number in (2, 3)
        }
        for number in (2, 3):
            assert found[f"VOLUME{number}"].files["FILE.BIN"].read_bytes() == FILES[number]
        told = [str(problem) for problem in image.problems]
        assert any(f"bytes {start:#x} to {end:#x} (exclusive) of the disk are lost" in text for text in told)
        assert any("healthy blocks, is placed by the boot sectors of FAT volumes" in text for text in told)
        assert any(text.startswith("partition table at byte 0x0: it can't be read") for text in told)
        again = pickle.loads(pickle.dumps(found["VOLUME3"]))
        assert again.files["FILE.BIN"].read_bytes() == FILES[3]


@pytest.fixture(scope="module")
def logical_disk(folder: Path) -> bytes:
    """Two primary partitions, and three logical ones whose order in the chain is not that on the disk."""
    path = folder / "logical.dd"
    with path.open("wb") as file:
        file.truncate(SIZE)
    lines = [
        *("1 : start=64, size=900, type=6", "2 : start=1024, size=1000, type=6", "3 : start=2048, size=4000, type=5"),
        *("5 : start=4600, size=700, type=6", "6 : start=2200, size=700, type=6", "7 : start=3400, size=700, type=6"),
    ]
    run("sfdisk", "--no-reread", "--no-tell-kernel", path, stdin="label: dos\n" + "\n".join(lines) + "\n")
    for sector in (64, 1024, 4600, 2200, 3400):
        run("mformat", "-i", f"{path}@@{sector * 512}", "-T", "700", "-h", "16", "-s", "63", "-H", str(sector), "::")
    with path.open("r+b") as file:  # so that the disk has more than one block
        for sector in range(100, 6000, 100):
            file.seek(sector * 512 + 65 * 512 - 4096)
            file.write(random.Random(sector).randbytes(4096))
    return path.read_bytes()


@pytest.mark.parametrize("name", ["disk", "gpt_disk", "logical_disk"])
def test_a_number_means_the_same_partition_with_and_without_salvage(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Where the damage is in the table, in its backup, between partitions, or in the chain of logical partitions."""
    data: bytes = request.getfixturevalue(name)
    (tmp_path / "healthy.dd").write_bytes(data)
    table = json.loads(run("sfdisk", "--json", tmp_path / "healthy.dd"))["partitiontable"]["partitions"]
    starts = {int(each["node"].removeprefix(f"{tmp_path / 'healthy.dd'}")): each["start"] * 512 for each in table}
    compressed = by_bzip2(data)
    seen = set()
    count = len(blocks(compressed))
    for number in range(count) if name == "logical_disk" else (0, count // 2, count - 1):
        broken, _ = with_damaged_block(compressed, number)
        for salvage in (False, True):
            with Image.open(broken, salvage=salvage) as image:
                by_number = {}
                with contextlib.suppress(CorruptImage):  # nobody knows the partitions
                    by_number = {each: image.partitions.get(each) for each in starts}
                    assert all(each.key.startswith("@") != (each.number in starts) for each in image.partitions)
                assert {n: each.start for n, each in by_number.items() if each is not None}.items() <= starts.items()
                seen.add((salvage, sum(each is not None for each in by_number.values())))
    assert (True, len(starts)) in seen
    assert name != "logical_disk" or (True, 4) in seen, "the chain is broken behind its first link"


def test_with_salvage_what_was_found_is_named_by_its_place(
    disk: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.dd.bz2"
    path.write_bytes(with_damaged_block(by_bzip2(disk), 0)[0])
    for names, wanted in ((["2"], False), (["@0x100000", "VOLUME2"], True)):
        for name in names:
            assert main(["sha256", "--salvage", str(path), f"{name}/FILE.BIN"]) == 1
            said = capsys.readouterr()
            assert (hashlib.sha256(FILES[2]).hexdigest() in said.out) == wanted, name
            if not wanted:
                assert f"no partition '{name}' was found (numbers are those of a partition table)" in said.err
                assert "@0x100000 (VOLUME2), @0x200000 (VOLUME3)" in said.err
    assert main(["ls", "--salvage", str(path)]) == 1
    assert re.findall(r"(?m)^Partition (\S+) (\S+)", capsys.readouterr().out) == [
        ("@0x100000", "VOLUME2"),
        ("@0x200000", "VOLUME3"),
    ]
    for command in ("info", "verify"):
        assert main([command, "--salvage", str(path)]) == 1
        assert "@0x100000" in capsys.readouterr().out
    assert main(["extract", "--salvage", str(path), str(tmp_path / "out")]) == 1
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["@0x100000", "@0x200000"]
    assert (tmp_path / "out/@0x100000/FILE.BIN").read_bytes() == FILES[2]
    with Image.open(path, salvage=True) as image:
        assert image.partitions.keys() == (0x100000, 0x200000)
        assert image.partitions[0x200000] is image.partitions.at(0x200000)
        with pytest.raises(PartitionNotFound, match=r"no partition 2 was found .*; there are @0x100000, @0x200000"):
            _ = image.partitions[2]
        with pytest.raises(PartitionNotFound, match=r"no partition 'X' was found .one whose start is lost"):
            _ = image.partitions["X"]


def test_with_salvage_a_boot_bank_is_named_by_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found partitions by search have no numbers by which the layout of a generation could be taken for theirs."""
    text = "kernel=vmk.gz\nmodules=a.gz\nbuild=4.1.0-260247\nupdated=2\nbootstate=0\n"
    bank = {"boot.cfg": text.encode(), "vmk.gz": gzip.compress(b"k"), "a.gz": gzip.compress(b"a")}
    whole = esx40_disk(boot={"x": b"x"}, bank=bank)
    with Image.open(whole) as image:
        [start] = [each.start for each in image.partitions if each.label == "Hypervisor1"]
        assert image.partitions.layout is not None
    path = tmp_path / "attacked.dd"
    whole.write_to(path)
    with path.open("r+b") as file:
        file.write(bytes(512))
    name = f"@{start:#x}"
    with Image.open(path) as image:
        found = image.partitions.search()
        assert found.layout is None
        [one] = found.banks
        assert (one.number, one.key) == (start, name)
        assert image.system(name).home is image.partitions.at(start)
        assert f"image.system('{name}')" in found[start].explain()
    main(["system", str(path), "--bank", name])
    assert "vmk.gz" in capsys.readouterr().out


def test_verify_says_lost_as_info_does(disk: bytes) -> None:
    """What is called not zero without a partition begins where the disk can be read."""
    broken, (_, end) = with_damaged_block(by_bzip2(disk), 0)
    report = verify(broken, salvage=True)
    assert "partition table: lost" in "\n".join(report.lines())
    gap = report.gaps[0]
    assert end <= gap.offset < end + 4096
    assert gap.offset + gap.length == report.partitions[0].start
    healthy = verify(disk)
    assert "partition table: mbr" in "\n".join(healthy.lines())


def test_without_salvage_the_error_says_what_is_lost(disk: bytes) -> None:
    broken, _ = with_damaged_block(by_bzip2(disk), 0)
    with Image.open(broken) as image:
        for use in (list, len, lambda table: table[1], lambda table: table["VOLUME1"], lambda table: 1 in table):
            with pytest.raises(CorruptImage, match="start of the disk is damaged: bzip2 block at byte 0x4"):
                use(image.partitions)
        assert image.scheme == "none"
        assert str(image.problems[0]).startswith("partition table at byte 0x0: it can't be read")
        assert list(image.partitions.search()) == []
        assert "start of the disk is damaged" in str(image.partitions.search().problems[0])
        assert "lost" in image._repr_html_()
    report = inspect(broken)
    assert (report.partitions, report.size, report.scheme) == ((), None, "none")
    assert report.problems


def test_a_source_that_ends_in_its_first_block_is_truncated(disk: bytes) -> None:
    with Image.open(by_bzip2(disk)[:1000]) as image, pytest.raises(TruncatedImage, match="can't be read"):
        list(image.partitions)


@pytest.mark.parametrize("hidden", [{}, {2: 20, 3: 30}, {2: 1 << 31, 3: 7000}])
def test_where_nothing_says_clearly_it_is_counted_and_not_placed(tmp_path: Path, hidden: dict[int, int]) -> None:
    """Hidden sectors of 0, of the wrong place, and of places that contradict each other."""
    data = make_disk(tmp_path / "disk.dd", hidden=hidden)
    broken, (_, end) = with_damaged_block(by_bzip2(data), 0)
    with Image.open(broken, salvage=True) as image:
        assert isinstance(image.layers[0].source, Bzip2Reader)
        [told] = [str(problem) for problem in image.problems if "healthy block" in str(problem)]
        assert f"{len(blocks(by_bzip2(data))) - 1} healthy blocks with {len(data) - end} bytes" in told
        assert "no known place" in told
        with pytest.raises(CorruptImage):
            list(image.partitions)
    assert b"".join(block.data for block in Bzip2Reader(broken).salvage()) == data[end:]


def test_a_wrong_place_of_one_volume_is_outvoted(tmp_path: Path) -> None:
    data = make_disk(tmp_path / "disk.dd", hidden={1: 64, 2: 2048, 3: 4096})
    at = 5000 * 512  # the copy of a boot sector in a file, say, with what follows it
    copied = bytearray(data[2048 * 512 : 2048 * 512 + 1024])
    copied[28:32] = struct.pack("<I", 9000)
    data = data[:at] + copied + data[at + 1024 :]
    broken, lost = with_damaged_block(by_bzip2(data), 0)
    with Image.open(broken, salvage=True) as image:
        reader = image.layers[0].source
        assert isinstance(reader, BridgedReader)
        assert reader.lost == lost


def xz_blocks(data: bytes, tmp_path: Path) -> bytes:
    (tmp_path / "disk").write_bytes(data)
    run("xz", "--keep", "--block-size=256KiB", tmp_path / "disk")
    return (tmp_path / "disk.xz").read_bytes()


def seekable_zstd(data: bytes, tmp_path: Path) -> bytes:
    convert(data, tmp_path / "disk.zst", frame_size=MIB // 4)
    return (tmp_path / "disk.zst").read_bytes()


@pytest.mark.parametrize("compress", [xz_blocks, seekable_zstd])
def test_what_has_its_sizes_stored_needs_no_salvage(
    disk: bytes, gpt_disk: bytes, compress: Callable[[bytes, Path], bytes], tmp_path: Path
) -> None:
    """A lost MBR leaves a search, a lost primary GPT the backup."""
    with Image.open(damaged(compress(disk, tmp_path), 12, 100)) as image:
        with pytest.raises(CorruptImage, match="start of the disk is damaged"):
            list(image.partitions)
        found = {partition.label: partition.start // 512 for partition in image.partitions.search()}
        assert found == {"VOLUME2": 2048, "VOLUME3": 4096}
    (tmp_path / "gpt").mkdir()
    check_gpt(damaged(compress(gpt_disk, tmp_path / "gpt"), 12, 100), gpt_disk, salvage=False)


def check_gpt(broken: bytes, whole: bytes, *, salvage: bool) -> None:
    with Image.open(broken, salvage=salvage) as image, Image.open(whole) as healthy:
        assert image.scheme == "gpt"
        places = [(each.number, each.name, each.start, each.size) for each in healthy.partitions]
        assert [(each.number, each.name, each.start, each.size) for each in image.partitions] == places
        assert image.partitions["PART3"].files["FILE.BIN"].read_bytes() == FILES[3]
        told = [str(problem) for problem in image.problems]
        assert "master boot record at byte 0x0: it can't be read" in told
        assert any("the backup is used" in text for text in told)
        assert "protective MBR" not in image.partitions.records


@pytest.mark.parametrize("compress", [by_bzip2, by_pbzip2])
def test_the_backup_of_a_gpt_places_the_rest(gpt_disk: bytes, compress: Callable[[bytes], bytes]) -> None:
    """Also where no volume says its place."""
    for number in (2, 3):
        at = {2: 2048, 3: 4096}[number] * 512 + 28
        gpt_disk = gpt_disk[:at] + struct.pack("<I", 0) + gpt_disk[at + 4 :]
    broken, lost = with_damaged_block(compress(gpt_disk), 0)
    check_gpt(broken, gpt_disk, salvage=True)
    with Image.open(broken, salvage=True) as image:
        reader = image.layers[0].source
        assert isinstance(reader, BridgedReader)
        assert reader.lost == lost
        assert any("placed by a GPT header" in str(problem) for problem in image.problems)


def recovered_by_bzip2recover(broken: bytes, folder: Path) -> int:
    """Number of blocks that bzip2recover writes to files of their own and bzip2 finds healthy."""
    (folder / "broken.bz2").write_bytes(broken)
    subprocess.run([require_tool("bzip2recover"), "broken.bz2"], cwd=folder, check=True, capture_output=True)
    pieces = sorted(folder.glob("rec*broken.bz2"))
    return sum(
        subprocess.run(["bzip2", "-t", piece], check=False, capture_output=True).returncode == 0 for piece in pieces
    )


@pytest.mark.parametrize("number", [0, 1, -1])
def test_verify_counts_the_healthy_blocks_behind_the_damage(
    disk: bytes, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compressed = by_bzip2(disk)
    broken, (_, end) = with_damaged_block(compressed, number)
    counts = dict(verify(broken).layers[0].counts)
    healthy = recovered_by_bzip2recover(broken, tmp_path)
    assert healthy == len(blocks(compressed)) - 1
    assert counts["blocks"] + counts["blocks behind the damage"] == healthy
    assert counts["bytes behind the damage"] == len(disk) - end
    path = tmp_path / "broken.bz2"
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr()
    behind = counts["blocks behind the damage"]
    assert f"{behind} blocks behind the damage, {len(disk) - end} bytes behind the damage" in said.out
    step = f"`vmvisor-image verify --salvage {path}` also reads the {behind} healthy block"
    assert (step in said.err) == (behind > 0)
    salvaged = dict(verify(broken, salvage=True).layers[0].counts)
    assert salvaged == counts


PLACES = {"first": 0, "middle": 3, "last": -1}


def broken_in(name: str, place: str, data: bytes, folder: Path) -> bytes:
    """The disk compressed in a format, with its first, a middle or its last block or piece damaged."""
    if name == "bz2":
        return with_damaged_block(by_bzip2(data), PLACES[place])[0]
    compressed = gzip.compress(data) if name == "gz" else {"xz": xz_blocks, "zst": seekable_zstd}[name](data, folder)
    at = {"first": 12, "middle": len(compressed) // 2, "last": len(compressed) - 100_000}[place]
    return damaged(compressed, at, 70_000 if name == "gz" else 100)  # deflate stores up to 65,535 bytes as they are


COMMANDS = [
    ["info", "SRC"],
    ["info", "--json", "SRC"],
    ["info", "--search", "SRC"],
    ["ls", "SRC"],
    ["tree", "SRC"],
    ["find", "SRC", "*.BIN"],
    ["sha256", "SRC"],
    ["cat", "SRC", "3/FILE.BIN"],
    ["hexdump", "-n", str(SIZE), "SRC"],
    ["extract", "SRC", "OUT"],
    ["convert", "SRC", "OUT.zst"],
    ["verify", "SRC"],
    ["scan", "SRC"],
]
READS_ALL = ("sha256", "hexdump", "extract", "convert", "verify")
KNOWS_SIZE_BY_READING = ("info", "scan")
"""Commands that read bzip2 and gzip to the end, but not what stores its sizes."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["bz2", "gz", "xz", "zst"])
def test_no_command_is_silent_about_damage(
    name: str, place: str, disk: bytes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / f"broken.dd.{name}"
    path.write_bytes(broken_in(name, place, disk, tmp_path))
    for number, arguments in enumerate(COMMANDS):
        out = str(tmp_path / f"out{number}")
        status = main([text.replace("SRC", str(path)).replace("OUT", out) for text in arguments])
        said = capfdbinary.readouterr()
        lines = said.err.decode().splitlines()
        reads_damage = place == "first" or arguments[0] in READS_ALL
        reads_damage |= name in ("bz2", "gz") and arguments[0] in KNOWS_SIZE_BY_READING
        if status == 0:
            assert not reads_damage, (arguments, said)
            continue
        assert status == 1, arguments
        assert lines or arguments[0] in ("verify", "scan"), arguments
        assert all(line.startswith("vmvisor-image: ") for line in lines), (arguments, lines)
        shown = said.out.decode(errors="replace") + "\n".join(lines)
        assert " at byte 0x" in shown, arguments
        if name == "bz2" and place != "last" and reads_damage:
            assert "--salvage" in shown, arguments


@pytest.mark.parametrize("place", PLACES)
def test_with_salvage_each_command_gives_all_but_the_damaged_block(
    place: str, disk: bytes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "broken.dd.bz2"
    path.write_bytes(broken_in("bz2", place, disk, tmp_path))
    lost = blocks(by_bzip2(disk))[PLACES[place]][2:]
    for number, arguments in enumerate(COMMANDS):
        out = str(tmp_path / f"out{number}")
        given = [text.replace("SRC", str(path)).replace("OUT", out) for text in arguments]
        if place == "first" and arguments[0] == "cat":
            given[-1] = "VOLUME3/FILE.BIN"
        status = main([*given, "--salvage"])
        said = capfdbinary.readouterr()
        assert status == 1, (arguments, said)
        assert b"--salvage`" not in said.err, "it was given"
        if place == "first" and arguments[0] in ("verify", "extract", "ls", "info"):
            assert b"which files were in the lost bytes can't be known" in said.err, arguments
        if arguments[0] == "cat" and place != "last":
            assert said.out == FILES[3]
    if place == "last":  # nothing reaches to the end of the data
        return
    decoded = subprocess.run(["zstd", "-dc", tmp_path / "out10.zst"], check=True, capture_output=True).stdout
    assert decoded == disk[: lost[0]] + bytes(lost[1] - lost[0]) + disk[lost[1] :]
    row = scan_one(path, salvage=True)
    assert row["partitions"] == (2 if place == "first" else 3)
    assert not row["ok"]


def test_what_is_compressed_twice_is_salvaged_too(disk: bytes) -> None:
    broken, _ = with_damaged_block(by_bzip2(disk), 0)
    for data in (gzip.compress(broken), lzma.compress(broken)):
        with Image.open(data, salvage=True) as image:
            assert image.read_at(len(disk) - MIB, MIB) == disk[-MIB:]


def test_an_unknown_option_names_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scan", "x.dd", "--savage"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(
        "unknown argument: --savage; did you mean '--salvage'? See vmvisor-image scan --help\n"
    )


def test_the_python_of_the_page_runs(disk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, (_, end) = with_damaged_block(by_bzip2(disk), 0)
    (tmp_path / "damaged.dd.bz2").write_bytes(broken)
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs/salvage.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(compile(example.replace("786_432_000", str(SIZE)), "docs/salvage.md", "exec"), {})
    assert (tmp_path / "behind-the-damage.bin").read_bytes() == disk[end:]
