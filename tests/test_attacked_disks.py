"""Disks whose first bytes are gone: by MBR or GPT, with FAT, VMFS or ext4, every command reads what is left of them."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from tests.support import run
from vmvisor_image import Image
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk
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


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SparseImage]:
    @functools.cache
    def make(kind: str) -> SparseImage:
        if kind == "fat":
            return fat_volume({"vm/a.txt": CONTENT}, sectors=9000)
        if kind == "vmfs":
            return vmfs_volume({"vm/a.txt": CONTENT}, size=EXTENT_SIZE + DATA_OFFSET)[0]
        folder = tmp_path_factory.mktemp("ext4")
        (folder / "tree/vm").mkdir(parents=True)
        (folder / "tree/vm/a.txt").write_bytes(CONTENT)
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
    if has_table:
        return
    for line in (["ls", str(path), "1"], ["tree", str(path)], ["find", str(path), "*.txt"], ["info", str(path)]):
        assert main(line) == 1
        assert re.search(r"`vmvisor-image info \S*disk\.dd --search`", capfd.readouterr().err), line
    assert main(["info", str(path), "--search"]) == 1
    assert re.search(rf"(?m)^ +{PLACE} ", capfd.readouterr().out)
