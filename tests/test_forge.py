"""What the forge makes is accepted, and read alike, by other people's tools."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import run
from vmvisor_image import Image, InvalidArgument
from vmvisor_image.testing import forge
from vmvisor_image.testing.forge import ESX_35, ESX_40, ForgedFile, Layout, SparseImage, Tree, fat_volume

TREE: dict[str, bytes | ForgedFile] = {
    "vmkernel.gz": b"kernel" * 1000,
    "README.TXT": b"upper",
    "lower.TXT": b"half",
    "MixedCase.txt": b"mixed",
    "a rather long name, with two.dots.tar.gz": b"long" * 2000,
    "thirteenchars": b"13",
    "twenty-six characters long": b"26",
    "empty": b"",
    "late.bin": ForgedFile(b"x" * 5000, datetime(2099, 12, 31, 23, 59, 58)),
    "pieces.bin": ForgedFile(bytes(range(256)) * 100, fragmented=True),
    "sub/dir/deep file.txt": b"deep",
    "sub/other.txt": b"other",
    "bare/": b"",
}
VOLUMES = pytest.mark.parametrize(
    ("bits", "sectors", "per_cluster"), [(12, 4000, 1), (12, 8000, 4), (16, 8160, 1), (16, 98272, None), (32, 80000, 1)]
)


def contents(tree: Tree) -> dict[str, ForgedFile]:
    assert not isinstance(tree, Path)
    return {
        path: item if isinstance(item, ForgedFile) else ForgedFile(item)
        for path, item in tree.items()
        if not path.endswith("/")
    }


def written(image: SparseImage, path: Path) -> Path:
    image.write_to(path)
    return path


@VOLUMES
def test_fsck_and_mtools_accept_a_volume(tmp_path: Path, bits: int, sectors: int, per_cluster: int | None) -> None:
    volume = fat_volume(TREE, sectors=sectors, label="Hypervisor1", fat_bits=bits, sectors_per_cluster=per_cluster)
    path = written(volume, tmp_path / "volume")
    run("fsck.fat", "-n", path)
    run("mcopy", "-s", "-m", "-i", path, "::/*", tmp_path)
    for name, file in contents(TREE).items():
        assert (tmp_path / name).read_bytes() == file.data, name
        modified = datetime.fromtimestamp((tmp_path / name).stat().st_mtime, UTC).replace(tzinfo=None)
        assert modified == file.modified, name
    assert (tmp_path / "bare").is_dir()
    assert "Hypervisor1" in run("mdir", "-i", path, "::/")


@VOLUMES
def test_our_reader_reads_a_volume(bits: int, sectors: int, per_cluster: int | None) -> None:
    volume = fat_volume(TREE, sectors=sectors, label="Hypervisor1", fat_bits=bits, sectors_per_cluster=per_cluster)
    with Image.open(volume) as image:
        partition = image.partitions[1]
        assert (image.scheme, partition.kind, partition.label) == ("none", f"fat{bits}", "Hypervisor1")
        assert {path: file.read_bytes() for path, file in partition.files.items()} == {
            path: file.data for path, file in contents(TREE).items()
        }
        pieces = partition.files["pieces.bin"]
        assert len(pieces.extents) == -(-pieces.size // (partition.files["pieces.bin"].extents[0].length))
        assert image.problems == ()


@pytest.mark.parametrize("layout", [ESX_35, ESX_40], ids=["3.5", "4.x"])
def test_sfdisk_and_fsck_accept_a_disk(tmp_path: Path, layout: Layout) -> None:
    disk = forge.esx_disk(layout, boot=forge.esx35_boot_files(), bank=TREE, store=TREE, marker=bytes(range(16)))
    path = written(disk, tmp_path / "disk")
    table = json.loads(run("sfdisk", "-J", path))["partitiontable"]
    expected = {
        1: (layout.extended, "5"),
        4: (layout.boot, "4"),
        5: (layout.bank, "6"),
        6: (layout.alternate_bank, "6"),
        7: (layout.coredump, "fc"),
        8: (layout.store, "6"),
    }
    found = {
        int(row["node"].removeprefix(str(path))): ((row["start"], row["size"]), row["type"])
        for row in table["partitions"]
    }
    assert found == expected
    assert run("sfdisk", "--verify", path)
    with Image.open(path) as image:
        for number, ((start, sectors), code) in expected.items():
            partition = image.partitions[number]
            assert partition.type.code is not None
            assert (partition.first_lba, partition.sectors) == (start, sectors)
            assert partition.type.code == int(code, 16)
            if partition.kind == "fat16":
                volume = tmp_path / f"volume{number}"
                volume.write_bytes(partition.read_at(0, partition.size))
                run("fsck.fat", "-n", volume)
        assert image.problems == ()
        bank = image.partitions["Hypervisor1"]
        assert bank.read_at(512, 32) == b"VMWARE FAT16    " + bytes(range(16))
    assert "vmkernel.gz" in run("mdir", "-b", "-i", f"{path}@@{layout.bank[0] * 512}", "::/")


def test_builds_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_bytes(b"a")
    os.utime(tmp_path / "sub/a.txt", (1_200_000_000, 1_200_000_000))
    with Image.open(fat_volume(tmp_path, sectors=4000)) as image:
        file = image.partitions[1].files["sub/a.txt"]
        assert file.read_bytes() == b"a"
        assert file.modified == datetime.fromtimestamp(1_200_000_000)
        assert image.partitions[1].label is None


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        disk = forge.esx35_disk(boot=forge.esx35_boot_files(), bank=forge.esx35_bank_files(1_000_000))
        disk.write_bz2(tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1, "so what holds for one holds for both"
    disk.write_to(tmp_path / "raw")
    run("bzip2", "--test", written_as_bz2(tmp_path / "a"))
    with Image.open(tmp_path / "a") as packed, (tmp_path / "raw").open("rb") as raw:
        assert hashlib.file_digest(raw, "sha256").digest() == hashlib.file_digest(packed.open(), "sha256").digest()


def written_as_bz2(path: Path) -> Path:
    link = path.with_suffix(".bz2")
    link.symlink_to(path)
    return link


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(InvalidArgument, match="too few"):
        fat_volume({"big": bytes(3_000_000)}, sectors=4100)
    with pytest.raises(InvalidArgument, match="entries"):
        fat_volume({f"{n}.txt": b"" for n in range(20)}, sectors=4000, root_entries=16)
    with pytest.raises(InvalidArgument, match="be a name in FAT"):
        fat_volume({"a:b": b""}, sectors=4000)
    with pytest.raises(InvalidArgument, match="label"):
        fat_volume({}, sectors=4000, label="twelve chars")
    with pytest.raises(InvalidArgument, match="clusters"):
        fat_volume({}, sectors=4000, fat_bits=16)
    with pytest.raises(InvalidArgument, match="marker"):
        fat_volume({}, sectors=4000, marker=b"short")
    with pytest.raises(InvalidArgument, match="overlaps"):
        SparseImage(10, [(0, b"abc"), (2, b"d")])
    with pytest.raises(InvalidArgument, match="end"):
        SparseImage(10, [(9, b"abc")])
    with pytest.raises(InvalidArgument, match="extended"):
        forge.mbr_disk([forge.ForgedPartition(5, 6, 64, 64)], sectors=1000)
    with pytest.raises(InvalidArgument, match="larger"):
        forge.mbr_disk([forge.ForgedPartition(1, 6, 64, 1, content=SparseImage(1024, [(0, b"x")]))], sectors=1000)
    with pytest.raises(InvalidArgument, match="differ"):
        forge.mbr_disk([forge.ForgedPartition(1, 6, 64, 1), forge.ForgedPartition(1, 6, 65, 1)], sectors=1000)
