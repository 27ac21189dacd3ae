"""Volumes whose header is lost and has a copy, compared with the disk before the damage and with other readers."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import require_tool, run
from tests.test_guests import make_ext, make_ntfs, make_tree
from vmvisor_image import Image, Partition
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.views import Overlaid
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.volumes.copies import find_copy

MIB = 1 << 20


def make_fat(tree: Path, path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(40 * MIB)
    run("mkfs.fat", "-F", "32", "-s", "1", "-n", "RESCUED", path)
    for name in ("etc", "many"):
        run("mcopy", "-s", "-i", path, tree / name, "::/")
    return path


def make_large_ext(tree: Path, path: Path) -> Path:
    """With 4 KiB blocks, so that its first copy is 128 MiB after its start."""
    with path.open("wb") as file:
        file.truncate(144 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, path)
    return path


def make_exfat(_: Path, path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    run("mkfs.exfat", path)
    return path


MAKERS: dict[str, tuple[int, Callable[[Path, Path], Path]]] = {
    "fat32": (0x0C, make_fat),
    "ext2": (0x83, lambda tree, path: make_ext("ext2", tree, path)),
    "ext4": (0x83, lambda tree, path: make_ext("ext4", tree, path)),
    "large ext4": (0x83, make_large_ext),
    "ntfs": (0x07, make_ntfs),
    "exfat": (0x07, make_exfat),
}
"""Type of a partition, and maker of the volume in it."""
LOST = [
    ("fat32", 512),
    ("fat32", 1024),
    ("ext2", 2048),
    ("ext2", 4096),
    ("ext4", 2048),
    ("ext4", 4096),
    ("large ext4", 2048),
    ("large ext4", 8192),
    ("ntfs", 512),
    ("ntfs", 8192),
    ("exfat", 512),
    ("exfat", 12 * 512),
]
"""Bytes of a volume that are lost: its header, and what follows it up to the first bytes without a copy."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tree(tmp_path_factory.mktemp("tree"))
    for name in ("etc/again", "etc/link", "etc/nowhere"):
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module")
def made(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a volume by its name in `MAKERS`, made once."""
    folder = tmp_path_factory.mktemp("made")
    found: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in found:
            found[name] = MAKERS[name][1](tree, folder / name.replace(" ", "-"))
        return found[name]

    return make


def pieces_of(path: Path) -> Iterable[tuple[int, bytes]]:
    with path.open("rb") as file:
        for at in range(0, path.stat().st_size, MIB):
            if any(piece := file.read(MIB)):
                yield at, piece


def disk_of(path: Path, type_code: int, *, first: int = 2048, after: int = 2048) -> SparseImage:
    size = path.stat().st_size
    volume = SparseImage(size, [*pieces_of(path)])
    return mbr_disk(
        [ForgedPartition(1, type_code, first, size // 512, content=volume)], sectors=first + size // 512 + after
    )


def written(disk: SparseImage, path: Path, lost: Iterable[tuple[int, int]], fill: Callable[[int], bytes]) -> Path:
    disk.write_to(path)
    with path.open("r+b") as file:
        for at, size in lost:
            file.seek(at)
            file.write(fill(size))
    return path


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def files_of(partition: Partition) -> dict[str, str]:
    return {path: file.sha256() for path, file in partition.files.items()}


@pytest.mark.parametrize("fill", [bytes, noise])
@pytest.mark.parametrize(("name", "size"), LOST)
class TestLostHeader:
    def test_in_a_partition_of_the_table(
        self, name: str, size: int, fill: Callable[[int], bytes], made: Callable[[str], Path], tmp_path: Path
    ) -> None:
        type_code, _ = MAKERS[name]
        disk = disk_of(made(name), type_code)
        path = written(disk, tmp_path / "disk", [(MIB, size)], fill)
        before = path.read_bytes()
        with Image.open(disk) as whole, Image.open(path) as image:
            [partition] = image.partitions
            healthy = whole.partitions[1]
            assert (partition.kind, partition.label) == (healthy.kind, healthy.label)
            assert files_of(partition) == files_of(healthy)
            [problem] = partition.problems
            assert "its copy at byte" in problem.message
            assert healthy.problems == ()
            assert healthy.header_copy is None
            assert partition.read_at(0, size) == fill(size)  # its bytes are as they are
        assert path.read_bytes() == before

    @pytest.mark.parametrize("after", [0, 2048])
    def test_without_a_table(
        self,
        name: str,
        size: int,
        after: int,
        fill: Callable[[int], bytes],
        made: Callable[[str], Path],
        tmp_path: Path,
    ) -> None:
        disk = disk_of(made(name), MAKERS[name][0], after=after)
        path = written(disk, tmp_path / "disk", [(0, 512), (MIB, size)], fill)
        with Image.open(disk) as whole, Image.open(path) as image:
            [found] = image.partitions.search()
            healthy = whole.partitions[1]
            assert (found.start, found.kind) == (MIB, healthy.kind)
            assert found.finding is not None
            assert found.finding.size_is_known
            assert healthy.size - 64 * 1024 <= found.size <= healthy.size
            assert found.finding.confidence == "medium"
            assert "a copy is here" in str(found.finding.evidence[0])
            assert files_of(found) == files_of(healthy)
            placed = image.partitions.at(MIB)
            assert (placed.start, placed.size, placed.kind) == (found.start, found.size, found.kind)


@pytest.mark.parametrize("name", ["fat32", "ext4", "ntfs"])
def test_every_command_reads_it(
    name: str, made: Callable[[str], Path], tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(
        disk_of(made(name), 0x83), tmp_path / "disk", [(0, 512), (MIB, 512 if name != "ext4" else 2048)], noise
    )
    file = max((each for each in (tree / "etc").iterdir()), key=lambda each: each.stat().st_size)
    inside = f"@0x100000/etc/{file.name}"
    assert main(["info", str(path), "--search"]) == 1
    assert "@0x100000" in capfd.readouterr().out
    for line in (["ls", str(path), "@0x100000/etc"], ["tree", str(path), "@0x100000"]):
        assert main(line) == 1
        told = capfd.readouterr()
        assert file.name in told.out
        assert "its copy at byte" in told.err
    for line in (
        ["sha256", str(path), inside],
        ["find", str(path), f"@0x100000/**/{file.name}"],
        ["cat", str(path), inside],
    ):
        assert main(line) == 1
        assert capfd.readouterr().out
    assert main(["extract", str(path), "@0x100000/etc", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "etc" / file.name).read_bytes() == file.read_bytes()


class TestOtherReaders:
    def test_debugfs_with_the_same_copy(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        path = written(disk_of(made("ext4"), 0x83), tmp_path / "disk", [(MIB, 4096)], noise)
        volume = tmp_path / "volume"
        volume.write_bytes(path.read_bytes()[MIB : MIB + made("ext4").stat().st_size])
        said = run("debugfs", "-c", "-s", "8193", "-b", "1024", "-R", "ls -p /many", volume)
        names = {line.split("/")[5] for line in said.splitlines() if line.startswith("/")} - {".", "..", ""}
        with Image.open(path) as image:
            assert {file.name for file in image.glob("1/many/*")} == names
            copy = image.partitions[1].header_copy
            assert copy is not None
            assert copy.offset == MIB + 8193 * 1024

    def test_fsck_fat_restores_the_same_sector(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        original = made("fat32").read_bytes()
        with Image.open(disk_of(made("fat32"), 0x0C)) as whole:
            listed = run("mdir", "-b", "-/", "-i", made("fat32"), "::")
            names = {line.removeprefix("::/") for line in listed.split("\n") if line and not line.endswith("/")}
            assert {*whole.partitions[1].files} == names
        with Image.open(written(disk_of(made("fat32"), 0x0C), tmp_path / "disk", [(MIB, 512)], noise)) as image:
            copy = image.partitions[1].header_copy
            assert copy is not None
            assert copy.over(image).read_at(MIB, len(original)) == original
            (tmp_path / "volume").write_bytes(copy.over(image).read_at(MIB, len(original)))
        subprocess.run([require_tool("fsck.fat"), "-n", tmp_path / "volume"], check=True, capture_output=True)

    def test_the_restored_ntfs_volume_is_the_original(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        original = made("ntfs").read_bytes()
        with Image.open(written(disk_of(made("ntfs"), 7), tmp_path / "disk", [(MIB, 512)], bytes)) as image:
            copy = image.partitions[1].header_copy
            assert copy is not None
            assert copy.over(image).read_at(MIB, len(original)) == original


class TestNothingIsMadeUp:
    def test_a_healthy_one_among_its_copies(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        for name in MAKERS:
            path = written(disk_of(made(name), MAKERS[name][0]), tmp_path / "disk", [(0, 512)], noise)
            with Image.open(path) as image:
                [found] = image.partitions.search()
                assert found.header_copy is None
                assert found.problems == ()

    def test_a_partition_that_ends_before_the_copy(self, made: Callable[[str], Path]) -> None:
        disk = disk_of(made("ext4"), 0x83)
        assert find_copy(disk, MIB, 8 * MIB) is None
        assert find_copy(disk, MIB, 16 * MIB) is not None

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_any_damage_of_a_copy_is_no_error_of_another_kind(
        self, made: Callable[[str], Path], data: st.DataObject
    ) -> None:
        name = data.draw(st.sampled_from(["fat32", "ext4", "ntfs", "exfat"]))
        at = {"fat32": 6 * 512, "ext4": 8193 * 1024, "exfat": 12 * 512}.get(name, made(name).stat().st_size - 512)
        raw = bytearray(made(name).read_bytes()[at : at + 512])
        for place in data.draw(st.lists(st.integers(0, 127), max_size=6)):
            raw[place] = data.draw(st.integers(0, 255))
        disk = disk_of(made(name), MAKERS[name][0])
        patched = Overlaid(
            disk, [(MIB + at, 512, BytesSource(bytes(raw)), 0), (MIB, 2048, BytesSource(bytes(2048)), 0)]
        )
        with Image.open(patched) as image:
            partition = image.partitions[1]
            _ = partition.kind
            assert all(re.search(r"\S", str(problem)) for problem in partition.problems)


def test_a_copy_behind_damage_is_used_without_reading_the_header() -> None:
    """What is replaced is never read, and what is not replaced is not changed."""
    whole = os.urandom(9000)
    source = BytesSource(whole)
    shown = Overlaid(source, [(100, 50, BytesSource(bytes(range(50))), 0), (8990, 10, source, 20)])
    wanted = whole[:100] + bytes(range(50)) + whole[150:8990] + whole[20:30]
    for offset in (0, 99, 100, 120, 149, 150, 8980, 8999, 9000):
        for length in (0, 1, 49, 60, 9000):
            assert shown.read_up_to(offset, length) == wanted[offset : offset + length]
            if offset + length <= 9000:
                assert shown.read_at(offset, length) == wanted[offset : offset + length]
