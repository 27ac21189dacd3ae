"""`PartitionTable.search`: volumes on disks whose table, or whose first megabytes, are gone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import pickle
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.exercise import Bounded
from fuzz.samples import TREE
from tests.media import overwritten
from tests.support import Counting, require_tool, run
from vmvisor_image import (
    CorruptImage,
    File,
    FoundPartitions,
    Image,
    LimitExceeded,
    Limits,
    PartitionNotFound,
    PathNotFound,
    Role,
)
from vmvisor_image.disk import search
from vmvisor_image.disk.paths import path_name
from vmvisor_image.examine.survey import looks_even, survey
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.vmfs import EXTENT_SIZE, LVM_MAGIC
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.damage import damaged
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, esx40_disk, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, esx7_disk, gpt_disk
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET, VmfsKind
from vmvisor_image.testing.forge_vmfs_files import VmfsFile, vmfs_volume

MIB = 1 << 20
BASIC = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
KINDS: tuple[VmfsKind, ...] = ("vmfs3", "vmfs5", "vmfs6", "vmfs-l")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def on_disk(volume: SparseImage, *, first: int = 2048, type_code: int = 0xFB, after: int = 4096) -> SparseImage:
    sectors = volume.size // 512
    return mbr_disk([ForgedPartition(1, type_code, first, sectors, content=volume)], sectors=first + sectors + after)


@functools.cache
def datastore(kind: VmfsKind = "vmfs5") -> SparseImage:
    return vmfs_volume({"vm/a.txt": b"hello"}, kind, size=EXTENT_SIZE + DATA_OFFSET)[0]


def kept(image: SparseImage, path: Path) -> Path:
    image.write_to(path)
    return path


def blkid(path: Path, offset: int) -> dict[str, str]:
    """What libblkid finds at a byte of a file."""
    said = run("blkid", "-p", "-O", str(offset), "-o", "export", path)
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


class TestTableGone:
    @pytest.mark.parametrize("first", [63, 64, 128, 2048, 10240])
    def test_fat_where_tables_put_partitions(self, first: int, tmp_path: Path) -> None:
        volume = fat_volume(TREE, sectors=9000, label="RESCUED")
        path = kept(overwritten(on_disk(volume, first=first, type_code=6), bytes(512)), tmp_path / "disk.dd")
        with Image.open(path) as image:
            assert image.scheme == "none"
            [found] = image.partitions.search()
            assert (found.start, found.size, found.label) == (first * 512, volume.size, "RESCUED")
            assert found.finding is not None
            assert (found.finding.confidence, found.finding.inside) == ("high", None)
            assert found.kind == "fat" + blkid(path, found.start)["VERSION"][3:]
            assert blkid(path, found.start)["LABEL"] == found.label
            listed = re.findall(r"r/r \d+:\s+(.+)", run("fls", "-p", "-r", "-o", str(first), path))
            assert {*found.files} == {*TREE}
            assert {*TREE} <= {*listed}
            assert all(found.files[name].read_bytes() == TREE[name] for name in TREE)

    def test_the_banks_of_esxi_4(self) -> None:
        disk = esx40_disk(boot=TREE, bank=TREE)
        with Image.open(disk) as image, Image.open(overwritten(disk, noise(512))) as wiped:
            whole = {(p.start, p.size, p.kind, p.label) for p in image.partitions if p.kind.startswith("fat")}
            assert len(whole) == 4
            assert {(p.start, p.size, p.kind, p.label) for p in wiped.partitions.search()} == whole

    def test_iso_9660(self) -> None:
        volume = iso_volume(TREE)
        disk = SparseImage(len(volume) + 3 * MIB, [(MIB, volume)])
        with Image.open(disk) as image:
            [found] = image.partitions.search()
            assert (found.start, found.kind, found.size <= len(volume)) == (MIB, "iso9660", True)
            assert {*found.files} == {*TREE}

    @pytest.mark.parametrize(
        ("kind", "mebibytes", "make"),
        [
            ("ext4", 160, ["mke2fs", "-q", "-F", "-t", "ext4"]),
            ("ext2", 32, ["mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"]),
            ("ntfs", 32, ["mkntfs", "-q", "-F", "-f"]),
            ("xfs", 320, ["mkfs.xfs", "-q"]),
            ("exfat", 32, ["mkfs.exfat"]),
        ],
    )
    def test_other_file_systems_by_their_own_headers(
        self, kind: str, mebibytes: int, make: list[str], tmp_path: Path
    ) -> None:
        """Copies of their headers, which ext and XFS have in their groups of blocks, are not taken for volumes."""
        size = mebibytes * MIB
        volume = tmp_path / "volume"
        with volume.open("wb") as file:
            file.truncate(size)
        subprocess.run([require_tool(make[0]), *make[1:], volume], check=True, capture_output=True)
        disk = tmp_path / "disk"
        with volume.open("rb") as source, disk.open("wb") as file:
            for at in range(0, size, MIB):
                if any(piece := source.read(MIB)):
                    file.seek(MIB + at)
                    file.write(piece)
            file.truncate(size + 8 * MIB)
        with Image.open(disk) as image:
            [found] = image.partitions.search()
            assert (found.start, found.kind) == (MIB, kind)
            assert found.finding is not None
            assert found.finding.confidence == "medium"
            assert size - 64 * 1024 <= found.size <= size
            said = blkid(disk, MIB)
            assert said["TYPE"] == kind
            if "FSSIZE" in said and kind in ("ext4", "ext2"):
                assert int(said["FSLASTBLOCK"]) * int(said["FSBLOCKSIZE"]) == found.size


class TestFirstMegabytesGone:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("lost", [512, MIB, 16 * MIB])
    @pytest.mark.parametrize("fill", [noise, bytes])
    def test_vmfs(self, kind: VmfsKind, lost: int, fill: Callable[[int], bytes], tmp_path: Path) -> None:
        path = kept(overwritten(on_disk(datastore(kind)), fill(lost)), tmp_path / "disk.dd")
        with Image.open(path) as image:
            found = image.partitions.search()
            [partition] = found
            assert (partition.start, partition.kind, partition.label) == (MIB, kind, "datastore1")
            assert partition.files["vm/a.txt"].read_bytes() == b"hello"
            assert partition.finding is not None
            if lost < 16 * MIB:
                assert partition.finding.confidence == "high"
                assert partition.size == datastore(kind).size
                assert blkid(path, MIB)["TYPE"].startswith("VMFS")
            else:
                assert (partition.finding.confidence, partition.finding.size_is_known) == ("medium", False)
                assert "it is lost" in str(partition.problems)
            [suspect] = found.suspect_ranges
            assert suspect.offset == 0
            if fill is noise:
                assert suspect.size == lost
                assert "evenly spread" in suspect.statement

    def test_another_reader_lists_the_same_files(self, tmp_path: Path) -> None:
        path = kept(overwritten(on_disk(datastore()), noise(MIB)), tmp_path / "disk.dd")
        with Image.open(path) as image:
            [found] = image.partitions.search()
            with (tmp_path / "volume").open("wb") as file:
                file.write(found.read_at(0, found.size))
        assert "a.txt" in run("debugvmfs", tmp_path / "volume", "ls", "/vm")
        assert run("debugvmfs", tmp_path / "volume", "cat", "/vm/a.txt") == "hello"

    def test_vmfs_without_the_volume_manager(self) -> None:
        """As the dump of an LVM device: its file system begins where the volume manager's data do."""
        volume = datastore()
        bare = SparseImage(
            volume.size - DATA_OFFSET,
            [(at - DATA_OFFSET, data) for at, data in volume.pieces if at >= DATA_OFFSET],
        )
        with Image.open(SparseImage(bare.size + MIB, [(MIB + at, data) for at, data in bare.pieces])) as image:
            [found] = image.partitions.search()
            assert (found.start, found.kind) == (MIB, "vmfs5")
            assert found.files["vm/a.txt"].read_bytes() == b"hello"

    def test_vmfs_without_the_volume_manager_behind_another_partition(self) -> None:
        """Its magic would also do for a volume that began 17 MiB before, in the FAT volume."""
        fat = fat_volume(TREE, sectors=40 * 2048)
        volume = datastore()
        pieces = [(MIB + at, data) for at, data in fat.pieces]
        begin = MIB + fat.size
        pieces += [(begin + at - DATA_OFFSET, data) for at, data in volume.pieces if at >= DATA_OFFSET]
        with Image.open(SparseImage(begin + volume.size, pieces)) as image:
            assert [found.start for found in image.partitions.search()] == [MIB, begin]

    def test_a_backup_gpt_is_used_by_itself(self, tmp_path: Path) -> None:
        disk = esx7_disk(boot=TREE, bank=TREE)
        with Image.open(overwritten(disk, noise(16 * MIB))) as image:
            assert image.scheme == "gpt"
            mine = {(p.number, p.first_lba, p.first_lba + p.sectors - 1) for p in image.partitions}
            assert list(image.partitions.search()) == []
        # sgdisk takes the backup only behind a protective master boot record.
        path = kept(overwritten(disk, noise(16 * MIB - 512), 512), tmp_path / "disk.dd")
        found = subprocess.run([require_tool("sgdisk"), "-p", path], capture_output=True, text=True, check=False).stdout
        lines = re.findall(r"^\s+(\d+)\s+(\d+)\s+(\d+)\s", found, re.MULTILINE)
        assert {tuple(map(int, line)) for line in lines} == mine

    def test_a_backup_gpt_behind_another_table(self) -> None:
        volume = fat_volume(TREE, sectors=9000)
        parts = [GptPartition(1, BASIC, 2100, 9000, "first", content=volume), GptPartition(2, BASIC, 20000, 90, "two")]
        disk = gpt_disk(parts, sectors=40000)
        other = mbr_disk([ForgedPartition(1, 7, 30000, 50)], sectors=40000)
        with Image.open(overwritten(disk, other.read_at(0, 512) + bytes(33 * 512))) as image:
            assert image.scheme == "mbr"
            one, two = image.partitions.search()
            assert (one.start, one.size, one.name, one.label) == (2100 * 512, volume.size, "first", "first")
            assert {*one.files} == {*TREE}
            assert one.finding is not None
            assert two.finding is not None
            assert (one.finding.confidence, two.finding.confidence) == ("high", "medium")
            assert "entry 1 of the backup GPT" in str(one.finding.evidence[0])


class TestNoPartitions:
    def test_random_bytes(self) -> None:
        with Image.open(noise(48 * MIB)) as image:
            found = image.partitions.search()
            assert list(found) == []
            [suspect] = found.suspect_ranges
            assert suspect.size == 48 * MIB

    def test_short_magics_at_every_place(self) -> None:
        """The two bytes of ext alone are no file system."""
        disk = SparseImage(64 * MIB, [(at * MIB + 0x400, noise(0x38, at) + b"\x53\xef") for at in range(64)])
        with Image.open(disk) as image:
            assert list(image.partitions.search()) == []

    def test_a_healthy_disk(self) -> None:
        for disk in (esx40_disk(boot=TREE, bank=TREE), esx7_disk(boot=TREE, bank=TREE), on_disk(datastore())):
            with Image.open(disk) as image:
                assert list(image.partitions.search()) == []
                assert image.partitions.search().suspect_ranges == ()

    def test_short_and_empty_disks(self) -> None:
        for size in (0, 1, 511, 512, 4096, MIB, MIB + 1):
            with Image.open(bytes(size)) as image:
                assert list(image.partitions.search()) == []
                assert image.partitions.search().problems == ()

    def test_an_image_in_a_file_of_a_datastore_is_inside(self) -> None:
        guest = on_disk(fat_volume({"in.txt": b"in"}, sectors=9000), type_code=6)
        volume = vmfs_volume(
            {"vm/vm-flat.vmdk": VmfsFile(size=guest.size, pieces=guest.pieces)}, size=EXTENT_SIZE + DATA_OFFSET
        )[0]
        disk = on_disk(volume)
        with Image.open(disk) as image:  # the table has the outer one
            [inner] = image.partitions.search()
            assert inner.finding is not None
            assert inner.finding.inside == MIB
            assert [*inner.files] == ["in.txt"]
        for lost in (MIB, 16 * MIB):
            with Image.open(overwritten(disk, noise(lost))) as image:
                outer, inner = image.partitions.search()
                assert outer.finding is not None
                assert inner.finding is not None
                assert (outer.finding.inside, inner.finding.inside) == (None, MIB)


class TestCost:
    def test_a_thin_disk_of_2_tib(self) -> None:
        """Zeros that the source knows of cost nothing, wherever the data are."""
        volume = fat_volume(TREE, sectors=9000)
        at = (1 << 40) + 5 * MIB
        source = Bounded(SparseImage(2 << 40, [(at + offset, data) for offset, data in volume.pieces]))
        with Image.open(source) as image:
            [found] = image.partitions.search()
            assert found.start == at
        assert source.reads < 2000
        assert source.bytes < 8 * MIB

    def test_what_is_read_of_each_mebibyte(self) -> None:
        source = Bounded(noise(64 * MIB))
        with Image.open(source) as image:
            assert list(image.partitions.search()) == []
        assert source.reads / 64 < 32
        assert source.bytes / 64 < 32 * 1024

    def test_the_first_one_is_found_without_the_rest(self) -> None:
        volume = fat_volume(TREE, sectors=9000)
        pieces = [(MIB + at, data) for at, data in volume.pieces] + [(20 * MIB, noise(512 * MIB // 8))]
        source = Bounded(SparseImage(256 * MIB, pieces))
        with Image.open(source) as image:
            first = next(image.partitions.search().find())
            assert first.start == MIB
            few = source.reads
            assert len(image.partitions.search()) == 1
            assert source.reads > 3 * few


class TestLimits:
    @staticmethod
    def _magics(count: int) -> SparseImage:
        """The magic of VMFS's volume manager, and nothing else of it."""
        magic = LVM_MAGIC.to_bytes(4, "little")
        return SparseImage((count + 24) * MIB, [((at + 2) * MIB, magic) for at in range(count)])

    def test_a_magic_alone(self) -> None:
        with Image.open(self._magics(5)) as image:
            found = [partition.finding for partition in image.partitions.search()]
            assert [finding.confidence for finding in found if finding is not None] == ["low"] * 5
            assert all(finding is not None and finding.inside is None for finding in found)

    def test_findings_have_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(search, "_MOST_FOUND", 3)
        with Image.open(self._magics(5)) as image:
            found = image.partitions.search()
            assert len(found) == 3
            assert "it ends here, after 3 findings" in str(found.problems[-1])

    def test_places_have_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(search, "_MOST_PLACES", 12)
        with Image.open(self._magics(50)) as image:
            assert "it ends here, after 12 places" in str(image.partitions.search().problems[-1])

    def test_so_has_the_time(self) -> None:
        with Image.open(self._magics(5), limits=Limits(seconds=1e-9)) as image:
            table = image.partitions
            with pytest.raises(LimitExceeded):
                list(table.search())


def test_damage_hides_only_what_it_covers() -> None:
    volume = fat_volume(TREE, sectors=9000)

    class Holed(BytesSource):
        def read_at(self, offset: int, length: int) -> bytes:
            if offset < 2 * MIB and offset + length > 512 * 100:
                raise CorruptImage("a hole", structure="test", offset=512 * 100)
            return super().read_at(offset, length)

        def read_up_to(self, offset: int, length: int) -> bytes:
            return self.read_at(offset, min(length, max(0, self.size - offset)))

    pieces = [(at + offset, data) for at in (MIB, 8 * MIB) for offset, data in volume.pieces]
    disk = SparseImage(16 * MIB, pieces)
    with Image.open(Holed(disk.read_at(0, disk.size))) as image:
        found = image.partitions.search()
        assert [partition.start for partition in found] == [8 * MIB]


def test_handles_can_be_sent_to_another_process(tmp_path: Path) -> None:
    path = kept(overwritten(on_disk(datastore()), noise(MIB)), tmp_path / "disk.dd")
    with Image.open(path) as image:
        [found] = image.partitions.search()
        copy = pickle.loads(pickle.dumps(found))
        with copy._owner._owner:
            assert copy.files["vm/a.txt"].read_bytes() == b"hello"
            assert (copy.role, copy.finding) == (Role.DATASTORE, found.finding)
        assert isinstance(image.partitions.search(), FoundPartitions)
        assert "found" not in found.explain().split("Evidence")[0]
        assert "there is no partition table: the volume starts at byte 0" not in found.explain()


def search_everything(source: Bounded) -> None:
    with Image.open(source, threads=1) as image:
        found = image.partitions.search()
        for partition in found:
            assert partition.explain()
            assert partition.finding is not None
            assert 0 <= partition.start < partition.start + partition.size
        assert all(str(problem) for problem in found.problems)
        assert all(str(each) for each in found.suspect_ranges)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_any_damage(data: st.DataObject) -> None:
    disk = data.draw(st.sampled_from([on_disk(datastore()), esx7_disk(boot=TREE, bank=TREE)]))
    wiped = overwritten(disk, bytes(512) if data.draw(st.booleans()) else noise(MIB))
    with contextlib.suppress(CorruptImage):
        search_everything(Bounded(data.draw(damaged(wiped))))


class TestSurvey:
    def test_runs_of_even_blocks(self) -> None:
        data = noise(256 * 1024) + b"text " * 20000 + bytes(100_000)
        found = survey(BytesSource(data), blocks=64)
        [(start, length)] = found.even_ranges
        assert start == 0
        assert 256 * 1024 - found.block_size <= length <= 256 * 1024 + found.block_size
        assert found.unreadable_ranges == ()

    def test_what_is_even(self) -> None:
        assert all(looks_even(noise(size, seed)) for size in (512, 4096, 8192) for seed in range(50))
        assert not looks_even(b"some text " * 500)
        assert not looks_even(b"")


class TestCommand:
    def test_rows_with_evidence(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = kept(overwritten(on_disk(datastore()), noise(MIB)), tmp_path / "disk.dd")
        assert main(["info", str(path), "--search"]) == 1  # the table is a problem
        shown = capsys.readouterr()
        assert re.search(r"^  @0x100000  273\.0 MiB  vmfs5  datastore1  high        -$", shown.out, re.MULTILINE)
        assert "(at byte 0x200000)" in shown.out
        assert "evenly spread" in shown.out
        assert f"`vmvisor-image ls {path} @0x100000` lists files" in " ".join(shown.out.split())
        assert max(map(len, shown.out.splitlines())) <= 80
        assert "sector 0 holds neither" in shown.err

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = kept(overwritten(on_disk(datastore()), noise(MIB)), tmp_path / "disk.dd")
        main(["info", str(path), "--search", "--json"])
        told = json.loads(capsys.readouterr().out)
        [found] = told["found"]
        assert (found["start"], found["kind"], found["confidence"]) == (MIB, "vmfs5", "high")
        assert found["path"] == "@0x100000"
        assert found["evidence"][0]["offset"] == 2 * MIB
        assert told["suspect_ranges"][0]["size"] == MIB

    def test_nothing_found(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = kept(esx40_disk(boot=TREE, bank=TREE), tmp_path / "disk.dd")
        assert main(["info", str(path), "--search"]) == 0
        assert "no partition was found" in capsys.readouterr().out
        assert main(["info", str(path), "5", "--search"]) == 2


class TestByPlace:
    """A partition by its first byte, which needs neither a table nor a search of the whole disk."""

    @pytest.fixture
    def attacked(self, tmp_path: Path) -> Path:
        return kept(overwritten(on_disk(datastore()), noise(MIB)), tmp_path / "disk.dd")

    @pytest.mark.parametrize("name", ["@0x100000", "@1048576", "@0x0100000"])
    def test_files(self, name: str, attacked: Path) -> None:
        with Image.open(attacked) as image:
            file = image.resolve(f"{name}/vm/a.txt")
            assert isinstance(file, File)
            assert file.read_bytes() == b"hello"
            assert [each.path for each in image.glob(f"{name}/vm/*")] == ["vm/a.txt"]
            assert image.partitions.at(MIB) is image.resolve(name)

    def test_what_it_is_called(self, attacked: Path) -> None:
        with Image.open(attacked) as image:
            found = image.partitions.at(MIB)
            assert (found.number, found.key, found.label) == (MIB, "@0x100000", "datastore1")
            assert path_name(image.partitions, found) == "@0x100000"
            assert repr(found).startswith("<Partition @0x100000 ")
            assert found.finding is not None
            with pytest.raises(PathNotFound):
                image.resolve("@0x100000/vm/b.txt")

    def test_the_same_as_the_search_finds(self, attacked: Path) -> None:
        with Image.open(attacked.read_bytes()) as image:
            [searched] = image.partitions.search()
            placed = image.partitions.at(searched.start)
            assert (placed.number, placed.key) == (searched.number, searched.key)
            assert (placed.size, placed.kind, placed.finding) == (searched.size, searched.kind, searched.finding)
            assert pickle.loads(pickle.dumps(placed)).files["vm/a.txt"].read_bytes() == b"hello"

    @pytest.mark.parametrize("start", [0, 512, 2 * MIB, 1 << 50])
    def test_nothing_there(self, start: int, attacked: Path) -> None:
        with Image.open(attacked) as image, pytest.raises(PartitionNotFound, match=f"no partition @{start:#x}"):
            image.partitions.at(start)

    def test_one_of_the_table_is_that_one(self, tmp_path: Path) -> None:
        path = kept(on_disk(datastore()), tmp_path / "disk.dd")
        with Image.open(path) as image:
            assert image.partitions.at(MIB) is image.partitions[1]
            assert image.resolve("@0x100000/vm/a.txt") == image.partitions[1].files["vm/a.txt"]
            assert path_name(image.partitions, image.partitions.at(MIB)) == "datastore1"

    def test_reads_no_more_than_that_place(self, attacked: Path) -> None:
        source = Counting(BytesSource(attacked.read_bytes()))
        with Image.open(source) as image:
            assert image.partitions.at(MIB).files["vm/a.txt"].size == 5
            at_one_place = len(source.reads)
            assert len(image.partitions.search()) == 1
            assert at_one_place < (len(source.reads) - at_one_place) / 10

    @pytest.mark.parametrize("text", ["@", "@0x", "@-1", "@1e3", "@0x1g", "@ 1", "@01", "@\u0661", "@0x" + "1" * 17])
    def test_anything_else_is_a_label(self, text: str, tmp_path: Path) -> None:
        path = kept(on_disk(datastore()), tmp_path / "disk.dd")
        with Image.open(path) as image, pytest.raises(PartitionNotFound, match="there are 1"):
            image.resolve(text)

    def test_a_label_that_looks_like_a_place(self, tmp_path: Path) -> None:
        disk = mbr_disk(
            [ForgedPartition(1, 0x06, 2048, 8192, content=fat_volume(TREE, sectors=8192, label="@0x10"))], sectors=16384
        )
        with Image.open(kept(disk, tmp_path / "disk.dd")) as image:
            assert path_name(image.partitions, image.partitions[1]) == "1"
            assert image.resolve("%400x10") is image.partitions[1]
            with pytest.raises(PartitionNotFound, match="@0x10"):
                image.resolve("@0x10")

    @pytest.mark.parametrize(
        ("line", "out"),
        [
            (["ls", "IMG", "@0x100000/vm"], "a.txt\n"),
            (["cat", "IMG", "@0x100000/vm/a.txt"], "hello"),
            (["cat", "IMG", "@0x100000", "vm/a.txt"], "hello"),
            (["sha256", "IMG", "@0x100000/vm/a.txt"], hashlib.sha256(b"hello").hexdigest()),
            (["find", "IMG", "@0x100000/**/*.txt"], "@0x100000/vm/a.txt\n"),
            (["tree", "IMG", "@1048576/vm"], "a.txt"),
            (["info", "IMG", "@0x100000"], "Partition @0x100000: bytes 0x100000 to"),
            (["hexdump", "IMG", "@0x100000", "--length", "16"], "00000000"),
            (["extract", "IMG", "@0x100000/vm", "OUT"], "1 file written"),
        ],
        ids=lambda given: given[0] + str(len(given)) if isinstance(given, list) else "",
    )
    def test_every_command_takes_it(
        self, line: list[str], out: str, attacked: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        """Status 1 and a word on the table, as the disk is damaged."""
        given = {"IMG": str(attacked), "OUT": str(tmp_path / "out")}
        assert main([given.get(each, each) for each in line]) == 1
        captured = capfdbinary.readouterr()
        assert out in captured.out.decode()
        assert b"sector 0 holds neither" in captured.err
        if line[0] == "extract":
            assert (tmp_path / "out" / "vm" / "a.txt").read_bytes() == b"hello"

    @pytest.mark.parametrize("text", ["@0x200000", "@0x100000/none", "@0x100000/vm/none.txt"])
    def test_the_message_leads_on(self, text: str, attacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ls", str(attacked), text]) == 1
        wanted = r"`vmvisor-image (info --search|ls) .*` (looks for|lists) what|did you mean '@0x100000/vm/a\.txt'"
        assert re.search(wanted, capsys.readouterr().err)

    def test_two_places_go_to_folders_of_their_own(self, tmp_path: Path) -> None:
        small = fat_volume(TREE, sectors=8192)
        disk = mbr_disk(
            [ForgedPartition(n, 0x06, 2048 * (4 * n - 3), 8192, content=small) for n in (1, 2)], sectors=32768
        )
        path = kept(overwritten(disk, bytes(512)), tmp_path / "disk.dd")
        assert main(["extract", str(path), "@0x100000", "@0x500000", str(tmp_path / "out")]) == 1
        assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["@0x100000", "@0x500000"]
