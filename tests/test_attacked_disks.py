"""Disks whose first bytes are gone: by MBR or GPT, with FAT, VMFS or ext4, every command reads what is left of them."""

from __future__ import annotations

import functools
import gzip
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from tests.media import overwritten, write_tree
from tests.support import run
from vmvisor_image import Image
from vmvisor_image.faces.cli import main
from vmvisor_image.reports.comparison import compare
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, esx40_disk, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, esx7_disk, gpt_disk
from vmvisor_image.testing.forge_machines import vmx_file
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume

MIB = 1 << 20
START = 80 * MIB
"""Start of the partition, behind all that is lost."""
PLACE = f"@{START:#x}"
TYPES = {
    "fat": (0x0E, UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")),
    "vmfs": (0xFB, UUID("aa31e02a-400f-11db-9590-000c2911d1b8")),
    "ext4": (0x83, UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")),
}
CONTENT = b"what is left"
FILES = {
    "vm/a.txt": CONTENT,
    "m/vm.vmx": vmx_file({"scsi0:0": "vm.vmdk"}, name="web"),
    "m/vm.vmdk": b'# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\ncreateType="vmfs"\n'
    b'RW 128 VMFS "vm-flat.vmdk"\n',
    "m/vm-flat.vmdk": bytes(128 * 512),
}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SparseImage]:
    @functools.cache
    def make(kind: str) -> SparseImage:
        if kind == "fat":
            return fat_volume(FILES, sectors=9000)
        if kind == "vmfs":
            return vmfs_volume(dict(FILES), size=EXTENT_SIZE + DATA_OFFSET)[0]
        folder = tmp_path_factory.mktemp("ext4")
        write_tree(folder / "tree", FILES)
        with (folder / "volume").open("wb") as file:
            file.truncate(16 * MIB)
        run("mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", folder / "volume")
        return SparseImage(16 * MIB, [(0, (folder / "volume").read_bytes())])

    return make


def disk_of(table: str, kind: str, volume: SparseImage) -> SparseImage:
    first, sectors = START // 512, volume.size // 512
    code, guid = TYPES[kind]
    if table == "mbr":
        return mbr_disk([ForgedPartition(1, code, first, sectors, content=volume)], sectors=first + sectors + 4096)
    return gpt_disk([GptPartition(1, guid, first, sectors, "one", content=volume)], sectors=first + sectors + 4096)


def assert_diff_and_machines(
    path: Path, whole: SparseImage, folder: Path, capfd: pytest.CaptureFixture[str], *, has_table: bool
) -> None:
    """The commands to which no partition is named find the volume all the same, and say of the table what is so."""
    healthy, changed = folder / "healthy.dd", folder / "changed.dd"
    whole.write_to(healthy)
    data = path.read_bytes()
    changed.write_bytes(data.replace(CONTENT, CONTENT.upper()))
    name = "1" if has_table else PLACE
    for first, second, wanted in ((path, healthy, False), (healthy, path, False), (path, changed, True)):
        assert main(["diff", str(first), str(second)]) == 1
        told = capfd.readouterr()
        key = "1" if first == healthy else name
        assert (f"~ {key}/vm/a.txt: other content" in told.out) == wanted, told
        assert not re.search(r"(?m)^[-+] |: (size|kind|label|type|start) ", told.out), told
        assert ("it has no partitions; those that a search finds are used" in told.err) != has_table
    assert main(["diff", "--json", str(path), str(healthy)]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["partitions"] == 1
    assert found["files"] >= len(FILES), "VMFS has some of its own"
    for options in ([], ["--json"]):
        assert main(["machines", *options, str(path)]) == 1
        told = capfd.readouterr()
        assert "web" in told.out, told
        assert has_table or not options or json.loads(told.out)["machines"][0]["path"] == f"{PLACE}/m/vm.vmx"
        assert ("it has no partitions; those that a search finds are used" in told.err) != has_table


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("table", ["mbr", "gpt"])
@pytest.mark.parametrize("lost", [512, MIB, 10 * MIB, 64 * MIB])
@pytest.mark.parametrize("is_noise", [False, True], ids=["zeros", "noise"])
def test_every_command(
    kind: str,
    table: str,
    lost: int,
    is_noise: bool,
    volume: Callable[[str], SparseImage],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if kind == "ext4":
        pytest.importorskip("pytsk3", reason="the extra 'guests' is not installed")
    path = tmp_path / "disk.dd"
    disk_of(table, kind, volume(kind)).write_to(path)
    with path.open("r+b") as file:
        file.write(random.Random(lost).randbytes(lost) if is_noise else bytes(lost))
    # A GPT is used by its copy at the disk's end, or by the first one where only the sector before it is lost.
    has_table = table == "gpt"
    with Image.open(path) as image:
        assert [each.start for each in image.partitions] == ([START] if has_table else [])
        placed = image.partitions.at(START)
        assert placed.files["vm/a.txt"].read_bytes() == CONTENT
    for name in [PLACE, *(["1"] if has_table else [])]:
        out = tmp_path / f"out-{name}"
        for line, wanted in (
            (["ls", str(path), f"{name}/vm"], "a.txt"),
            (["tree", str(path), f"{name}/vm"], "a.txt"),
            (["cat", str(path), f"{name}/vm/a.txt"], CONTENT.decode()),
            (["find", str(path), f"{name}/**/a.txt"], "vm/a.txt"),
            (["sha256", str(path), f"{name}/vm/a.txt"], "vm/a.txt"),
            (["info", str(path), name], f"{START:#x}"),
            (["hexdump", str(path), name, "--length", "16"], "0000"),
            (["extract", str(path), f"{name}/vm", str(out)], "1 file written"),
        ):
            main(line)
            told = capfd.readouterr()
            assert wanted in told.out, (line, told)
        assert (out / "vm/a.txt").read_bytes() == CONTENT
    assert_diff_and_machines(path, disk_of(table, kind, volume(kind)), tmp_path, capfd, has_table=has_table)
    if has_table:
        return
    for line in (["ls", str(path), "1"], ["tree", str(path)], ["find", str(path), "*.txt"], ["info", str(path)]):
        assert main(line) == 1
        assert re.search(r"`vmvisor-image info \S*disk\.dd --search`", capfd.readouterr().err), line
    assert main(["info", str(path), "--search"]) == 1
    assert re.search(rf"(?m)^ +{PLACE} ", capfd.readouterr().out)


class TestDiffByPlace:
    """Images of which one has no partitions any more, in Python."""

    def test_what_lies_in_a_datastore_is_no_partition_of_its_own(self) -> None:
        guest = mbr_disk(
            [ForgedPartition(1, 6, 2048, 9000, content=fat_volume({"a": b"a"}, sectors=9000))], sectors=12000
        )
        store = vmfs_volume({"vm-flat.vmdk": guest.read_at(0, guest.size)}, size=EXTENT_SIZE + DATA_OFFSET)[0]
        whole = mbr_disk([ForgedPartition(1, 0xFB, 2048, store.size // 512, content=store)], sectors=1 << 22)
        wiped = overwritten(whole, bytes(512))
        with Image.open(whole) as first, Image.open(wiped) as second:
            assert len(second.partitions.search()) == 2
            for one, other in ((first, second), (second, first)):
                found = compare(one, other)
                assert {each.place for each in found.differences} == {"disk"}, found
                assert (found.partitions, found.files > 0) == (1, True)
        with Image.open(wiped) as first, Image.open(wiped) as second:
            assert compare(first, second).is_same

    @pytest.mark.parametrize("changed", [False, True])
    def test_the_bytes_of_what_has_no_files_and_no_size(self, changed: bool) -> None:
        """Of a LUKS volume no header says the size: it reaches to the disk's end, and the table says less."""
        content = SparseImage(MIB, [(0, b"LUKS\xba\xbe\0\1"), (MIB - 1, b"x")])
        disk = mbr_disk([ForgedPartition(1, 0x83, 2048, 2048, content=content)], sectors=8192)
        behind = overwritten(overwritten(disk, bytes(512)), b"not of it", 3 * MIB)
        other = overwritten(behind, b"y", 2 * MIB - 1) if changed else behind
        with Image.open(disk) as first, Image.open(other) as second:
            found = compare(first, second)
            assert found.partitions == 1
            at = [(each.place, each.offset) for each in found.differences if each.what == "content"]
            assert at == ([("1", MIB - 1)] if changed else [])

    def test_what_begins_where_no_search_looks(self) -> None:
        disk = mbr_disk([ForgedPartition(1, 6, 3001, 9000, content=fat_volume({"a": b"a"}, sectors=9000)),
                         ForgedPartition(2, 6, 16384, 9000, content=fat_volume({"b": b"b"}, sectors=9000)),
                         ForgedPartition(3, 0xFC, 30000, 100)], sectors=40000)  # fmt: skip
        with Image.open(disk) as first, Image.open(overwritten(disk, bytes(512))) as second:
            assert [each.start // 512 for each in second.partitions.search()] == [16384]
            found = compare(first, second)
            assert (found.partitions, found.files) == (2, 2)
            assert [str(each) for each in found.differences if each.what == "partition"] == [
                "partition 3: only in the first image"
            ]

    def test_an_empty_table_is_searched_and_no_volume_is_no_disk(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        disk = mbr_disk(
            [ForgedPartition(1, 6, 2048, 9000, content=fat_volume({"a": b"a"}, sectors=9000))], sectors=20000
        )
        overwritten(disk, bytes(510)).write_to(tmp_path / "empty.dd")
        disk.write_to(tmp_path / "whole.dd")
        (tmp_path / "text").write_bytes(b"text" * 1000)
        assert main(["diff", str(tmp_path / "empty.dd"), str(tmp_path / "whole.dd")]) == 1
        told = capsys.readouterr()
        assert told.out == "no difference: 1 partition and 1 file compared\n"
        assert "it has no partitions; those that a search finds are used" in told.err
        assert main(["diff", str(tmp_path / "text"), str(tmp_path / "whole.dd")]) == 1
        assert "neither a partition table nor a volume" in capsys.readouterr().err


BANK = {
    "boot.cfg": b"kernel=vmk.gz\nmodules=a.gz\nbuild=4.1.0-260247\nupdated=2\nbootstate=0\n",
    "vmk.gz": gzip.compress(b"kernel"),
    "a.gz": gzip.compress(b"a"),
}


class TestHypervisor:
    """Disks of ESXi whose first bytes are gone."""

    @pytest.mark.parametrize("is_noise", [False, True], ids=["zeros", "noise"])
    def test_a_bank_by_its_place(self, is_noise: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk.dd"
        lost = random.Random(1).randbytes(MIB) if is_noise else bytes(MIB)
        overwritten(esx40_disk(boot={"mboot.c32": b"x", "syslinux.cfg": b"y"}, bank=BANK), lost).write_to(path)
        bank = "@0x404000"
        for line, wanted in (
            (["system", str(path), "--bank", bank], "vmk.gz"),
            (["system", str(path), "--json", "--bank", bank], '"name": "vmk.gz"'),
            (["host", str(path), "--bank", bank], "4.1.0 build 260247"),
        ):
            assert main(line) == 1, line
            told = capfd.readouterr()
            assert wanted in told.out, (line, told)
            assert "sector 0 holds neither a partition table nor a volume" in told.err, line
        for command in ("system", "host"):
            assert main([command, str(path)]) == 1
            assert f"`vmvisor-image info {path} --search` looks for volumes on it" in capfd.readouterr().err
        assert main(["system", str(path), "--bank", "@0xfe04000"]) == 1
        assert "partition @0xfe04000 (Hypervisor2) holds no boot bank" in capfd.readouterr().err

    @pytest.mark.parametrize(
        "line", [["ls", "SRC", "PART/"], ["tree", "SRC", "PART"], ["find", "SRC", "PART/**"], ["sha256", "SRC", "PART"]]
    )
    def test_what_is_whole_is_said_to_be(
        self, line: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "disk.dd"
        overwritten(esx40_disk(boot={"x": b"x"}, bank=BANK), bytes(512)).write_to(path)
        assert main([{"SRC": str(path), "PART": "@0x404000"}.get(a, a.replace("PART", "@0x404000")) for a in line]) == 1
        told = capfd.readouterr()
        assert "vmk.gz" in told.out
        assert "what was shown or written is whole; the image is damaged elsewhere: partition table" in told.err

    def test_it_can_be_converted(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path, dest = tmp_path / "disk.dd", tmp_path / "disk.dd.zst"
        data = overwritten(esx40_disk(boot={"x": b"x"}, bank=BANK), bytes(512))
        data.write_to(path)
        assert main(["convert", str(path), str(dest)]) == 1
        assert "it has no partitions; those that a search finds are used" in capfd.readouterr().err
        with Image.open(dest) as image:
            assert image.size == data.size
            assert image.partitions.at(0x404000).files["vmk.gz"].read_bytes() == BANK["vmk.gz"]
        for name, content in (("text", b"text" * 1000), ("zeros", bytes(4 * MIB))):
            (tmp_path / name).write_bytes(content)
            assert main(["convert", str(tmp_path / name), str(tmp_path / "no.zst")]) == 1
            assert not (tmp_path / "no.zst").exists()

    def test_host_says_that_the_disk_is_damaged(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk.dd"
        overwritten(esx7_disk(boot={"x": b"x"}, bank=BANK), bytes(512)).write_to(path)
        for options in ([], ["--json"]):
            assert main(["host", *options, str(path)]) == 1
            told = capfd.readouterr()
            assert "4.1.0" in told.out
            assert "master boot record at byte 0x0: it does not protect the GPT" in told.err

    def test_host_reads_the_image_as_its_options_say(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        disk = overwritten(mbr_disk([], sectors=2048), b"other")
        bank = fat_volume(BANK, sectors=9000, label="Hypervisor1")
        host = mbr_disk([ForgedPartition(1, 6, 2048, 9000, content=bank)], sectors=12000)
        with zipfile.ZipFile(tmp_path / "disks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("one.dd", disk.read_at(0, disk.size))
            archive.writestr("two.dd", host.read_at(0, host.size))
        main(["host", "--member", "two.dd", str(tmp_path / "disks.zip")])
        assert "4.1.0 build 260247" in capfd.readouterr().out
