"""GUID partition tables, as sgdisk, sfdisk and fdisk make and see them."""

from __future__ import annotations

import json
import random
import re
import subprocess
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from tests.support import require_tool, run
from tests.test_partitions import Recorder
from vmvisor_image import PARTITION_TYPES, Image, Partition, Problem, inspect, verify
from vmvisor_image.disk.purpose import Layout, find_layout
from vmvisor_image.disk.tables.gpt import GptTable
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.gpt import GptEntry, GptHeader
from vmvisor_image.schemas.mbr import PartitionEntry
from vmvisor_image.schemas.partition_types import BASIC_DATA, EFI_SYSTEM, VMFS, VMKCORE
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_gpt import GptPartition, esx6_dd_image, esx7_disk, gpt_disk, sealed

TYPES = (BASIC_DATA, EFI_SYSTEM, VMFS, VMKCORE, UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"))
NAMES = ("", "BOOT", "BOOTBANK1", "größer & <i>", "名前", "x" * 36)


def empty_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


SEEDS = range(12)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A disk for each seed; side by side, for sgdisk sleeps a second after it wrote."""
    folder = tmp_path_factory.mktemp("gpt")
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        return list(pool.map(lambda seed: made_by_sgdisk(folder / f"{seed}.disk", seed), SEEDS))


def made_by_sgdisk(path: Path, seed: int) -> Path:
    """In any order of slots and places."""
    chance = random.Random(seed)
    empty_file(path, 64 << 20)
    places = chance.sample(range(15), chance.randrange(1, 9))
    numbers = chance.sample(range(1, 129), len(places))
    arguments: list[str] = []
    for number, place in zip(numbers, places, strict=True):
        start = 2048 + place * 8192
        guid, name = chance.choice(TYPES), chance.choice(NAMES)
        arguments += ["-n", f"{number}:{start}:{start + chance.randrange(1, 8000)}", "-t", f"{number}:{guid}"]
        if name:
            arguments += ["-c", f"{number}:{name}"]
        if chance.random() < 0.3:
            arguments += ["-A", f"{number}:set:2"]
    run("sgdisk", "-a", "1", *arguments, path)
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_places_types_and_names_are_sfdisks(made: list[Path], seed: int) -> None:
    """Made by sgdisk, in any order of slots and places."""
    path = made[seed]
    table = json.loads(run("sfdisk", "-J", path))["partitiontable"]
    expected = {
        int(row["node"].removeprefix(str(path))): (
            row["start"],
            row["size"],
            UUID(row["type"]),
            UUID(row["uuid"]),
            row.get("name"),
            "LegacyBIOSBootable" in row.get("attrs", ""),
        )
        for row in table["partitions"]
    }
    with Image.open(path) as image:
        found = {p.number: (p.first_lba, p.sectors, p.type.guid, p.guid, p.name, p.active) for p in image.partitions}
        assert found == expected
        assert image.problems == ()
        assert image.scheme == "gpt"
        assert [p.start for p in image.partitions] == sorted(p.start for p in image.partitions)
        for number in expected:
            shown = run("sgdisk", "-i", str(number), path)
            first, last, size = (
                int(re.search(pattern, shown).group(1))  # type: ignore[union-attr]
                for pattern in (r"First sector: (\d+)", r"Last sector: (\d+)", r"Partition size: (\d+) sectors")
            )
            partition = image.partitions[number]
            assert (partition.first_lba, partition.first_lba + partition.sectors - 1) == (first, last)
            assert partition.size == size * 512


def test_names_are_those_of_util_linux() -> None:
    """Each type that sfdisk knows by a name has that name here, where it is here at all."""
    for label, pattern in (("gpt", r"^([0-9A-F-]{36})  (.+)$"), ("dos", r"^ ?([0-9a-f]{1,2})  (.+)$")):
        listed = re.findall(pattern, run("sfdisk", "--list-types", "--label", label), re.MULTILINE | re.IGNORECASE)
        known = {UUID(key) if label == "gpt" else int(key, 16): name for key, name in listed}
        ours = {key: name for key, name in PARTITION_TYPES.items() if isinstance(key, int) == (label == "dos")}
        assert {key: name for key, name in ours.items() if key in known} == {
            key: known[key] for key in ours if key in known
        }
        assert len(known.keys() & ours.keys()) > 20


def test_sectors_of_4096_bytes_are_fdisks(tmp_path: Path) -> None:
    path = empty_file(tmp_path / "disk", 256 << 20)
    commands = "g\nn\n1\n256\n+8192\nn\n5\n16384\n30000\nt\n5\n20\nw\n"
    fdisk = [require_tool("fdisk"), "-b", "4096", "-W", "never", str(path)]
    subprocess.run(fdisk, input=commands, capture_output=True, text=True, check=False)
    listed = run("fdisk", "-b", "4096", "-o", "Device,Start,End,Sectors", "-l", path)
    expected = {
        int(number): (int(start), int(sectors))
        for number, start, sectors in re.findall(
            rf"^{re.escape(str(path))}(\d+) +(\d+) +\d+ +(\d+)$", listed, re.MULTILINE
        )
    }
    assert set(expected) == {1, 5}
    with Image.open(path) as image:
        assert image.partitions.sector_size == 4096
        assert {p.number: (p.first_lba, p.sectors) for p in image.partitions} == expected
        assert {p.number: (p.start, p.size) for p in image.partitions} == {
            number: (start * 4096, sectors * 4096) for number, (start, sectors) in expected.items()
        }
        assert image.problems == ()


def test_an_mbr_with_sectors_of_4096_bytes_is_fdisks(tmp_path: Path) -> None:
    """An MBR does not say its sector size: where the chain of logical partitions is does."""
    path = empty_file(tmp_path / "disk", 512 << 20)
    commands = "o\nn\np\n1\n256\n+8192\nn\ne\n2\n16384\n\nn\nl\n\n+4096\nn\nl\n\n+4096\nw\n"
    fdisk = [require_tool("fdisk"), "-b", "4096", "-W", "never", str(path)]
    subprocess.run(fdisk, input=commands, capture_output=True, text=True, check=False)
    listed = run("fdisk", "-b", "4096", "-o", "Device,Start,End,Sectors", "-l", path)
    expected = {
        int(number): (int(start), int(sectors))
        for number, start, sectors in re.findall(
            rf"^{re.escape(str(path))}(\d+) +(\d+) +\d+ +(\d+)$", listed, re.MULTILINE
        )
    }
    assert set(expected) == {1, 2, 5, 6}
    with Image.open(path) as image:
        assert image.partitions.sector_size == 4096
        assert {p.number: (p.first_lba, p.sectors) for p in image.partitions} == expected
        assert image.problems == ()


def test_an_mbr_without_logical_partitions_is_told_by_what_is_in_the_first(tmp_path: Path) -> None:
    path = empty_file(tmp_path / "disk", 64 << 20)
    commands = "o\nn\np\n1\n256\n+4096\nw\n"
    fdisk = [require_tool("fdisk"), "-b", "4096", "-W", "never", str(path)]
    subprocess.run(fdisk, input=commands, capture_output=True, text=True, check=False)
    with Image.open(path) as image:
        assert image.partitions.sector_size == 512  # nothing says otherwise
    volume = empty_file(tmp_path / "volume", 4096 * 4096)
    run("mkfs.fat", "-S", "4096", "-n", "BANK", volume)
    with path.open("r+b") as file:
        file.seek(256 * 4096)
        file.write(volume.read_bytes())
    with Image.open(path) as image:
        assert image.partitions.sector_size == 4096
        assert image.partitions["BANK"].start == 256 * 4096


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_damaged_primary_is_replaced_by_the_backup(sector_size: int) -> None:
    disk = bytearray(forged(sector_size))
    disk[sector_size : sector_size + 8] = bytes(8)
    with Image.open(bytes(disk)) as image:
        assert image.scheme == "gpt"
        assert [(p.number, p.name, p.sector_size) for p in image.partitions] == [
            (1, "BOOT", sector_size),
            (5, "BANK", sector_size),
        ]
        messages = [str(problem) for problem in image.problems]
        assert any("primary GPT header" in message and "missing" in message for message in messages)
        assert any("the backup is used" in message for message in messages)
        assert "backup GPT header" in image.partitions.records


def test_sgdisk_verifies_what_the_forge_makes(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(forged(512))
    assert "No problems found" in run("sgdisk", "-v", path)


def forged(sector_size: int) -> bytes:
    sectors = 4096
    partitions = (
        GptPartition(5, BASIC_DATA, 1024, 512, "BANK"),
        GptPartition(1, EFI_SYSTEM, 64, 256, "BOOT"),
    )
    disk = gpt_disk(partitions, sectors=sectors, sector_size=sector_size)
    return disk.read_at(0, disk.size)


def test_the_primary_is_enough_to_list_the_partitions() -> None:
    """A compressed image is not decoded to its end for the sake of the backup."""
    source = Recorder(forged(512))
    with Image.open(source) as image:
        assert [p.number for p in image.partitions] == [1, 5]
        assert max(offset + length for offset, length in source.reads) <= 34 * 512
        assert image.problems == ()
        assert max(offset + length for offset, length in source.reads) == 4096 * 512


class TestShippedHead:
    """The head of a dd image of ESXi 6.7: both headers before the partitions, with one array of entries."""

    def test_is_read_as_sfdisk_does_and_is_no_problem(self, tmp_path: Path) -> None:
        """sgdisk and ``sfdisk -V`` complain of the place of the backup header, and read the same partitions."""
        disk, path = esx6_dd_image(boot={"mboot.c32": b"x"}, bank={}), tmp_path / "disk"
        disk.write_to(path)
        rows = json.loads(run("sfdisk", "-J", path))["partitiontable"]["partitions"]
        expected = {int(r["node"].removeprefix(str(path))): (r["start"], r["size"], r["name"]) for r in rows}
        assert list(expected) == [1, 5, 6, 7, 8]
        done = subprocess.run([require_tool("sgdisk"), "-v", path], capture_output=True, text=True, check=False)
        assert "it doesn't reside\nat the end of the disk" in done.stdout
        assert "CRC" not in done.stdout
        with Image.open(path) as image:
            assert {p.number: (p.first_lba, p.sectors, p.name) for p in image.partitions} == expected
            assert image.problems == ()
            assert "as shipped: in sector 34" in image.partitions.facts["backup GPT header"]
        report = verify(path)
        assert report.is_sound
        assert [(copy.offset, copy.is_sound) for copy in report.gpt] == [(512, True), (34 * 512, True)]
        assert any("as shipped" in line for line in report.lines())
        assert report.table_facts == inspect(path).table_facts != ()

    def test_the_commands_say_so(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk"
        esx6_dd_image(boot={"mboot.c32": b"x"}, bank={}).write_to(path)
        for command in ("info", "verify"):
            assert main([command, str(path)]) == 0
            said = capsys.readouterr()
            assert "  backup GPT header: as shipped: in sector 34" in said.out
            assert said.err == ""
        assert main(["info", "--json", str(path)]) == 0
        [[name, value]] = json.loads(capsys.readouterr().out)["table_facts"]
        assert (name, value[:10]) == ("backup GPT header", "as shipped")

    def test_is_as_shipped_on_a_larger_disk(self) -> None:
        """As on the stick that the image was written to, before it was booted."""
        head = esx6_dd_image(boot={}, bank={})
        with Image.open(SparseImage(head.size + (1 << 30), head.pieces)) as image:
            assert image.problems == ()
            assert image.partitions.facts

    @pytest.mark.parametrize("at", [512, 512 + 16, 512 + 24, 512 + 72])
    def test_the_backup_is_found_when_the_primary_is_damaged(self, at: int) -> None:
        head = esx6_dd_image(boot={}, bank={})
        pieces = [(0, head.read_at(0, 64 * 512)), *(piece for piece in head.pieces if piece[0] >= 64 * 512)]
        data = bytearray(pieces[0][1])
        data[at : at + 8] = b"\xff" * 8
        with Image.open(SparseImage(head.size, [(0, bytes(data)), *pieces[1:]])) as image:
            assert [p.number for p in image.partitions] == [1, 5, 6, 7, 8]
            assert any("the backup is used" in str(problem) for problem in image.problems)
            assert image.partitions.facts == {}

    @pytest.mark.parametrize(("place", "entries"), [(35, 2), (48, 2), (4000, 2), (34, 4000), (4000, 3900)])
    def test_any_other_place_is_a_problem(self, place: int, entries: int) -> None:
        """Or its own entries, at that place."""
        disk = moved(place, entries)
        with Image.open(disk) as image:
            [problem] = image.problems
            assert "it is not in the disk's last sector" in problem.message
            assert image.partitions.facts == {}
        assert not verify(disk).is_sound

    def test_a_damaged_backup_is_a_problem(self) -> None:
        disk = bytearray(moved(34, 2))
        with Image.open(bytes(disk)) as image:
            assert image.problems == ()
        disk[34 * 512 + 16] ^= 1
        with Image.open(bytes(disk)) as image:
            assert any("header_crc" in str(problem) for problem in image.problems)
            assert image.partitions.facts == {}


def moved(place: int, entries: int) -> bytes:
    """A disk whose backup header is in that sector, and names entries in that one."""
    disk = gpt_disk([GptPartition(1, BASIC_DATA, 64, 256, "BOOT")], sectors=4200)
    data = bytearray(disk.read_at(0, disk.size))
    [header] = GptHeader.parse_all(bytes(data[512 : 512 + GptHeader.length()]))
    backup = replace(header, my_lba=place, alternate_lba=1, entries_lba=entries)
    data[entries * 512 : entries * 512 + 16384] = data[1024 : 1024 + 16384]
    data[512 : 512 + GptHeader.length()] = sealed(replace(header, alternate_lba=place))
    data[place * 512 : place * 512 + GptHeader.length()] = sealed(backup)
    return bytes(data)


def test_a_hybrid_record_that_agrees_is_no_problem(tmp_path: Path) -> None:
    path = empty_file(tmp_path / "disk", 64 << 20)
    run("sgdisk", "-n", "1:2048:+8M", "-n", "2:40960:+8M", "-h", "2", path)
    with Image.open(path) as image:
        assert image.scheme == "gpt"
        assert [p.number for p in image.partitions] == [1, 2]
        assert image.problems == ()


def test_a_hybrid_record_that_disagrees_is_told() -> None:
    entry = PartitionEntry(0, bytes(3), 0x06, bytes(3), 100, 200)
    disk = gpt_disk([GptPartition(1, BASIC_DATA, 64, 256)], sectors=4096, hybrid=[entry])
    with Image.open(disk.read_at(0, disk.size)) as image:
        assert [p.number for p in image.partitions] == [1]
        [problem] = image.problems
        assert problem.structure == "hybrid MBR"
        assert problem.offset == 446 + 16


def test_junk_behind_the_end_of_a_name_is_not_shown() -> None:
    """partedUtil of ESXi 5 writes 0000 and then FFFF into the name of an unnamed partition."""
    disk = gpt_disk([GptPartition(1, VMFS, 64, 256)], sectors=4096)
    data = bytearray(disk.read_at(0, disk.size))
    for header, entries in ((512, 1024), (4095 * 512, (4095 - 32) * 512)):
        data[entries + 58 : entries + 128] = b"\xff" * 70
        reseal(data, header, entries)
    with Image.open(bytes(data)) as image:
        assert image.partitions[1].name is None
        assert image.problems == ()


def reseal(data: bytearray, header: int, entries: int) -> None:
    """Make both CRCs of a copy right again."""
    import zlib

    data[header + 88 : header + 92] = zlib.crc32(data[entries : entries + 128 * 128]).to_bytes(4, "little")
    data[header + 16 : header + 20] = bytes(4)
    data[header + 16 : header + 20] = zlib.crc32(data[header : header + 92]).to_bytes(4, "little")


def test_the_shared_table_of_esxi_5(shared_data: Path) -> None:
    """A table that partedUtil printed on a real host."""
    rows = [line.split() for line in (shared_data / "esxi5-partedUtil.txt").read_text().splitlines()[1:]]
    partitions = [
        GptPartition(int(number), UUID(guid), int(first), int(last) - int(first) + 1)
        for number, first, last, guid, _, _ in rows
    ]
    disk = gpt_disk(partitions, sectors=4194304)
    with Image.open(disk) as image:
        assert image.partitions.layout is not None
        assert image.partitions.layout.generation.value == "ESXi 5.x or 6.x"
        roles = {p.number: p.role.value for p in image.partitions}
        assert roles == {1: "boot", 5: "bootbank", 6: "alternate bootbank", 7: "coredump", 8: "store"}


def test_records_are_those_on_disk() -> None:
    disk = forged(512)
    with Image.open(disk) as image:
        header = image.partitions.records["primary GPT header"]
        assert (header.source_offset, header.raw) == (512, disk[512 : 512 + 92])
        entry = image.partitions[5].records["partition entry"]
        assert (entry.source_offset, entry.raw) == (1024 + 4 * 128, disk[1024 + 4 * 128 :][:128])
        assert image.partitions[5].entry_offset == 1024 + 4 * 128


def test_a_table_knows_its_disk() -> None:
    with Image.open(forged(512)) as image:
        table = image.partitions._table
        assert isinstance(table, GptTable)
        assert table.disk_guid.version == 5


@pytest.mark.parametrize("sector_size", [512])
def test_damage_is_told_by_verify_where_sgdisk_tells_it(tmp_path: Path, sector_size: int) -> None:
    """A bit of the protective record, of either header or of its entries; sgdisk gives "Caution" or "Problem" then."""
    data, path = forged(sector_size), tmp_path / "disk"
    backup = len(data) - sector_size
    places = [510, 511, *range(446, 462), *range(512, 604, 3), *range(1024, 1152, 9)]
    places += [*range(backup, backup + 92, 3), *range(backup - 16384, backup - 16384 + 128, 9)]
    chance, told = random.Random(sector_size), 0
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        done = subprocess.run(
            [require_tool("sgdisk"), "-v", str(path)], capture_output=True, text=True, errors="replace", check=False
        )
        is_told = done.returncode != 0 or bool(re.search("Caution|Warning|Problem:|invalid|corrupt", done.stdout))
        ours = verify(bytes(damaged)).problems
        told += bool(ours)
        # Cylinders, heads and sectors of the protective record are nothing to either; the flag of an active partition
        # and its length are to us.
        assert not is_told or ours, f"byte {place:#x}: {done.stdout}"
        assert is_told or not ours or 446 <= place < 512, f"byte {place:#x}: {ours}"
    assert told > 80


def with_entries(count: int, slots: tuple[int, ...], *, claimed: int | None = None) -> bytes:
    """A disk of 24 MiB whose two tables have room for so many entries, with a partition of one sector in some slots."""
    sectors = 48 << 11
    held = -(-count * GptEntry.length() // 512)
    [header] = GptHeader.parse_all(gpt_disk([], sectors=sectors).read_at(512, GptHeader.length()))
    table = bytearray(held * 512)
    for slot in slots:
        at = 48 << 10
        entry = GptEntry(BASIC_DATA.bytes_le, UUID(int=slot).bytes_le, at + slot, at + slot, 0, bytes(72)).build()
        table[(slot - 1) * len(entry) : slot * len(entry)] = entry
    header = replace(
        header,
        entry_count=count if claimed is None else claimed,
        entries_crc=zlib.crc32(table[: count * GptEntry.length()]),
        first_usable_lba=2 + held,
        last_usable_lba=sectors - 2 - held,
    )
    backup = replace(header, my_lba=sectors - 1, alternate_lba=1, entries_lba=sectors - 1 - held)
    data = bytearray(gpt_disk([], sectors=sectors).read_at(0, sectors * 512))
    for at, part in (
        (512, sealed(header)),
        (1024, table),
        (backup.entries_lba * 512, table),
        (backup.my_lba * 512, sealed(backup)),
    ):
        data[at : at + len(part)] = part
    return bytes(data)


@pytest.mark.parametrize("count", [128, 4096, 32767, 32768])
def test_all_entries_of_a_large_table_are_read(count: int, tmp_path: Path) -> None:
    slots = (1, 2, count - 1, count)
    data = with_entries(count, slots)
    (tmp_path / "disk").write_bytes(data)
    listed = re.findall(r"^ *([0-9]+) ", run("sgdisk", "-p", tmp_path / "disk"), re.MULTILINE)
    with Image.open(data) as image:
        assert [partition.number for partition in image.partitions] == [int(number) for number in listed]
        assert [partition.number for partition in image.partitions] == list(slots)
        assert image.problems == ()


def test_of_more_entries_than_are_read_the_first_are_there() -> None:
    with Image.open(with_entries(32769, (1, 2, 32768, 32769))) as image:
        assert image.scheme == "gpt"
        assert [partition.number for partition in image.partitions] == [1, 2, 32768]
        message = "entry_count: 32769 entries of 128 bytes are more than the 4194304 read"
        assert Problem("primary GPT header", message, 512 + 80) in image.problems


def test_a_count_that_nothing_vouches_for_makes_no_partitions_of_data() -> None:
    """A damaged header's table is not read past what is its own; the other one's is."""
    data = bytearray(with_entries(128, (1, 2)))
    data[512 + 80 : 512 + 84] = b"\xff" * 4
    with Image.open(bytes(data)) as image:
        assert [partition.number for partition in image.partitions] == [1, 2]
        assert "more than the 4194304 read" in str(image.problems)
    data[-512 + 80 : -512 + 84] = b"\xff" * 4
    with Image.open(bytes(data)) as image:
        assert image.scheme == "mbr"
        assert "more than the 4194304 read" in str(image.problems)


def test_a_tables_layout_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many partitions are explained: looking for it goes through all of them."""
    calls = []

    def counted(partitions: Iterable[Partition]) -> Layout | None:
        calls.append(partitions)
        return find_layout(partitions)

    monkeypatch.setattr("vmvisor_image.disk.partition_table.find_layout", counted)
    with Image.open(with_entries(128, tuple(range(1, 129)))) as image:
        assert len([partition.explain() for partition in image.partitions]) == 128
        assert image.partitions.layout is None
    assert len(calls) == 1
    with Image.open(esx7_disk(boot={"a": b"x"}, bank={"b": b"x"})) as image:
        assert image.partitions.layout is image.partitions.layout is find_layout(image.partitions)
        assert image.partitions.layout is not None
