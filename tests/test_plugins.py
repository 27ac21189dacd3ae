"""Volume types of other packages: the example is installed and used; broken ones hide nothing."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.media import small_disk, write_tree
from tests.support import REPOSITORY, run
from vmvisor_image import CorruptImage, Image
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.volumes import plugins

FILES = {"etc/hosts": b"127.0.0.1 esx\n", "bin/empty": b"", "long name of a file.bin": bytes(range(256)) * 20}
START = 2048 * 512


@pytest.fixture(scope="module")
def romfs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A volume by genromfs."""
    folder = tmp_path_factory.mktemp("romfs")
    run("genromfs", "-f", folder / "volume", "-d", write_tree(folder / "tree", FILES), "-V", "BOOTMEDIA")
    return (folder / "volume").read_bytes()


def disk(volume: bytes) -> SparseImage:
    """A disk with that volume as partition 1, beside a FAT volume."""
    fat = small_disk({"boot.cfg": b"build=1\n"})
    place = ForgedPartition(1, 0x83, START // 512, 512, content=SparseImage(512 * 512, [(0, volume)]))
    other = ForgedPartition(
        2, 6, 8192, 6000, content=SparseImage(6000 * 512, [(0, fat.read_at(8192 * 512, 6000 * 512))])
    )
    return mbr_disk([place, other], sectors=16000)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, as an installer unpacks its wheel."""
    folder = tmp_path_factory.mktemp("installed")
    build: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist"]
    subprocess.run([*build, REPOSITORY / "examples/plugin"], check=True, capture_output=True)
    [wheel] = (folder / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Adds a folder to where packages are found, with no plug-in loaded before or kept after."""

    def add(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)
        plugins._load.cache_clear()

    yield add
    plugins._load.cache_clear()
    sys.modules.pop("vmvisor_romfs", None)


@pytest.fixture
def example(installed: Path, search: Callable[[Path], None]) -> None:
    search(installed)


@pytest.mark.usefixtures("example")
class TestTheExample:
    def test_reads_what_genromfs_wrote(self, romfs: bytes) -> None:
        with Image.open(disk(romfs)) as image:
            partition = image.partitions["bootmedia"]
            assert (partition.number, partition.kind, partition.label) == (1, "romfs", "BOOTMEDIA")
            assert {path: file.read_bytes() for path, file in partition.files.items()} == FILES
            assert "volume name BOOTMEDIA" in partition.explain()
            extents = partition.files["etc/hosts"].extents
            assert image.read_at(extents[0].offset, extents[0].length) == FILES["etc/hosts"]
            assert image.partitions[2].files["boot.cfg"].read_bytes() == b"build=1\n"
            assert image.problems == ()

    def test_any_damage_ends_in_files_or_a_problem(self, romfs: bytes) -> None:
        for offset in range(0, 512, 3):
            for value in (0, 0x7F, 0xFF):
                damaged = romfs[:offset] + bytes([value]) + romfs[offset + 1 :]
                with Image.open(disk(damaged)) as image:
                    if image.partitions[1].kind != "romfs":
                        continue
                    for file in image.partitions[1].files.values():
                        file.read_bytes()

    def test_a_loop_ends(self, romfs: bytes) -> None:
        first = 16 + len("BOOTMEDIA") // 16 * 16 + 16
        looped = bytearray(romfs)
        struct.pack_into(">I", looped, first, first | 9)
        with Image.open(disk(bytes(looped))) as image:
            assert list(image.partitions[1].files) == []
            [problem] = image.partitions[1].problems
            assert "form a loop" in problem.message


def test_the_command_line_uses_it(installed: Path, romfs: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk.dd"
    disk(romfs).write_to(path)
    command = [sys.executable, "-m", "vmvisor_image"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    shown = subprocess.check_output([*command, "ls", path, "1"], env=environment, text=True)
    assert {line.split("  ")[-1] for line in shown.splitlines()} == FILES.keys()
    without = subprocess.check_output([*command, "info", path, "--json"], text=True)
    assert json.loads(without)["partitions"][0]["kind"] == "unknown"


def test_none_is_loaded_where_none_is_needed(installed: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk.dd"
    small_disk({"boot.cfg": b"build=1\n"}).write_to(path)
    code = "import sys, vmvisor_image; vmvisor_image.inspect(sys.argv[1]); print('vmvisor_romfs' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    assert subprocess.check_output([sys.executable, "-c", code, path], env=environment, text=True) == "False\n"


class FailsToProbe:
    """Has no idea of volumes."""

    @staticmethod
    def probe(disk: Any, start: int, size: int) -> bool:
        raise ZeroDivisionError("a bug")


class FailsToOpen:
    """Recognises everything and opens nothing."""

    @staticmethod
    def probe(disk: Any, start: int, size: int) -> bool:
        return True

    @staticmethod
    def open_volume(disk: Any, start: int, size: int, home: Any) -> Any:
        raise CorruptImage("not today", structure="superblock", offset=start)


def register(folder: Path, **entries: str) -> None:
    """A package that is nothing but entry points."""
    about = folder / "broken-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines]))


@pytest.mark.usefixtures("example")
def test_broken_ones_are_problems_and_hide_nothing(
    romfs: bytes, tmp_path: Path, search: Callable[[Path], None]
) -> None:
    here = "tests.test_plugins"
    register(tmp_path, absent="no_such_module", buggy=f"{here}:FailsToProbe", eager=f"{here}:FailsToOpen")
    search(tmp_path)
    with Image.open(disk(romfs)) as image:
        partition = image.partitions[1]
        assert partition.files["etc/hosts"].read_bytes() == FILES["etc/hosts"]
        assert [str(problem) for problem in partition.problems] == [
            "volume plug-in absent: it failed: ModuleNotFoundError: No module named 'no_such_module'",
            f"volume plug-in buggy at byte {START:#x}: it failed: ZeroDivisionError: a bug",
            f"superblock at byte {START:#x}: not today",
        ]
        assert image.partitions[2].kind == "fat16"
        assert image.partitions[2].problems == ()
    with Image.open(disk(b"unknown content")) as image:
        assert image.partitions[1].kind == "unknown"
