"""New descriptors for flat extents whose own is lost, and what qemu-img says of them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.support import run
from vmvisor_image import (
    CorruptImage,
    DestinationExists,
    Image,
    InvalidArgument,
    UnsafeName,
    rebuild_descriptor,
)
from vmvisor_image.layers.vmdk import parse_descriptor
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_vmfs_files import VmfsFile, vmfs_volume

MIB = 1 << 20
DISK = random.Random(1).randbytes(MIB) + bytes(3 * MIB)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "vm-flat.vmdk").write_bytes(DISK)
    return folder / "vm-flat.vmdk"


def geometry(text: str) -> tuple[int, int, int]:
    lines = dict(line.split(" = ") for line in text.splitlines() if line.startswith("ddb.geometry"))
    cylinders, heads, sectors = (
        int(lines[f"ddb.geometry.{each}"].strip('"')) for each in ("cylinders", "heads", "sectors")
    )
    return cylinders, heads, sectors


def test_a_lone_extent_is_the_disk(tmp_path: Path) -> None:
    volume = fat_volume({"a.txt": b"a"}, sectors=4096)
    mbr_disk([ForgedPartition(1, 6, 63, 4096, content=volume)], sectors=4200).write_to(tmp_path / "vm-flat.vmdk")
    with Image.open(tmp_path / "vm-flat.vmdk") as image:
        assert image.layers == ()
        assert image.partitions[1].files["a.txt"].read_bytes() == b"a"
        assert image.problems == ()


def test_qemu_and_we_open_it(flat: Path, tmp_path: Path) -> None:
    made = rebuild_descriptor(flat, tmp_path / "vm.vmdk")
    assert made == tmp_path / "vm.vmdk"
    assert [*flat.parent.iterdir()] == [flat]
    (tmp_path / "vm-flat.vmdk").symlink_to(flat)
    told = json.loads(run("qemu-img", "info", "--output=json", made))
    assert (told["format"], told["virtual-size"]) == ("vmdk", len(DISK))
    assert told["format-specific"]["data"]["create-type"] == "vmfs"
    assert "identical" in run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", made, flat)
    with Image.open(made) as image:
        assert image.read_at(0, len(DISK)) == DISK
        assert image.layers[-1].source.problems == ()


@pytest.mark.parametrize(
    ("sectors", "expected"),
    [
        (4096, (2, 64, 32)),  # of a real descriptor
        (83886080, (5221, 255, 63)),  # of a published one
        (1 << 21, (1024, 64, 32)),
        ((1 << 21) + 1, (512, 128, 32)),
        (1 << 22, (1024, 128, 32)),
        ((1 << 22) + 1, (261, 255, 63)),
    ],
)
def test_geometry(tmp_path: Path, sectors: int, expected: tuple[int, int, int]) -> None:
    (tmp_path / "in").mkdir()
    SparseImage(sectors * 512, []).write_to(tmp_path / "in" / "x-flat.vmdk")
    text = rebuild_descriptor(tmp_path / "in" / "x-flat.vmdk", tmp_path / "x.vmdk").read_text()
    assert geometry(text) == expected
    found = parse_descriptor(text.encode())
    assert (found.extents[0].sectors, found.extents[0].name, found.problems) == (sectors, "x-flat.vmdk", ())
    assert (found.content_id, found.parent_content_id) == (0xFFFFFFFE, None)


def test_a_snapshot_of_qemu_opens_again(tmp_path: Path) -> None:
    """The content id is the one that the snapshot records: with another one QEMU refuses the chain."""
    folder = tmp_path / "evidence"
    folder.mkdir()
    run("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", folder / "vm.vmdk", "4M")
    (folder / "vm-flat.vmdk").write_bytes(DISK)
    run("qemu-img", "create", "-q", "-f", "vmdk", "-b", "vm.vmdk", "-F", "vmdk", folder / "vm-000001.vmdk")
    run("qemu-img", "convert", "-O", "raw", folder / "vm-000001.vmdk", tmp_path / "before.raw")
    (folder / "vm.vmdk").unlink()
    other = tmp_path / "other"
    other.mkdir()
    rebuild_descriptor(folder / "vm-flat.vmdk", other / "vm.vmdk")
    for path in folder.iterdir():
        shutil.copy(path, other)
    compared = run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", other / "vm-000001.vmdk", tmp_path / "before.raw")
    assert "identical" in compared


def delta(parent: str, content_id: str) -> bytes:
    return (
        f'# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID={content_id}\ncreateType="vmfsSparse"\n'
        f'parentFileNameHint="{parent}"\nRW 8 VMFSSPARSE "d-delta.vmdk"\n'
    ).encode()


def test_content_ids_of_descriptors_beside_it(flat: Path, tmp_path: Path) -> None:
    (flat.parent / "vm-000001.vmdk").write_bytes(delta("/vmfs/volumes/x/vm/vm.vmdk", "0badcafe"))
    (flat.parent / "vm-000002.vmdk").write_bytes(delta("vm-000001.vmdk", "99999999"))
    (flat.parent / "other.vmdk").write_bytes(b"KDMV and nothing more")
    found = parse_descriptor(rebuild_descriptor(flat, tmp_path / "vm.vmdk").read_bytes())
    assert found.content_id == 0x0BADCAFE
    (flat.parent / "vm-000003.vmdk").write_bytes(delta("vm.vmdk", "12345678"))
    with pytest.raises(InvalidArgument, match=r"0badcafe in 'vm-000001\.vmdk', 12345678 in 'vm-000003\.vmdk'"):
        rebuild_descriptor(flat, tmp_path / "second.vmdk")
    assert not (tmp_path / "second.vmdk").exists()
    made = rebuild_descriptor(flat, tmp_path / "third.vmdk", content_id=0x12345678)
    assert parse_descriptor(made.read_bytes()).content_id == 0x12345678


def test_of_a_datastore(tmp_path: Path) -> None:
    (volume,) = vmfs_volume(
        {
            "vm/vm-flat.vmdk": VmfsFile(size=len(DISK), pieces=((0, DISK[:MIB]),)),
            "vm/vm-000001.vmdk": delta("vm.vmdk", "0badcafe"),
        }
    )
    with Image.open(volume) as image:
        made = rebuild_descriptor(image.partitions[1].files["vm/vm-flat.vmdk"], tmp_path / "vm.vmdk")
    found = parse_descriptor(made.read_bytes())
    assert (found.content_id, found.extents[0].name) == (0x0BADCAFE, "vm-flat.vmdk")


class TestRefused:
    def test_beside_the_extent_and_over_anything(self, flat: Path, tmp_path: Path) -> None:
        with pytest.raises(DestinationExists, match="beside the extent; choose another folder"):
            rebuild_descriptor(flat, flat.parent / "vm.vmdk")
        assert [*flat.parent.iterdir()] == [flat]
        assert rebuild_descriptor(flat, flat.parent / "vm.vmdk", beside=True).exists()
        for taken in (flat.parent / "vm.vmdk", flat, tmp_path):
            before = flat.read_bytes()
            with pytest.raises(DestinationExists):
                rebuild_descriptor(flat, taken, beside=True)
            assert flat.read_bytes() == before

    @pytest.mark.parametrize("data", [b"", b"x" * 513, b"KDMV".ljust(512), b"# Disk DescriptorFile\n".ljust(512)])
    def test_what_is_no_extent(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "x-flat.vmdk").write_bytes(data)
        with pytest.raises(CorruptImage):
            rebuild_descriptor(tmp_path / "in" / "x-flat.vmdk", tmp_path / "x.vmdk")
        assert not (tmp_path / "x.vmdk").exists()

    def test_names_and_arguments(self, tmp_path: Path, flat: Path) -> None:
        strange = flat.with_name('a"b-flat.vmdk')
        strange.write_bytes(DISK)
        with pytest.raises(UnsafeName):
            rebuild_descriptor(strange, tmp_path / "x.vmdk")
        with pytest.raises(InvalidArgument, match="no name"):
            rebuild_descriptor(DISK, tmp_path / "x.vmdk")
        with pytest.raises(InvalidArgument, match="content_id"):
            rebuild_descriptor(flat, tmp_path / "x.vmdk", content_id=0xFFFFFFFF)
        with pytest.raises(InvalidArgument, match="adapter_type must be one of"):
            rebuild_descriptor(flat, tmp_path / "x.vmdk", adapter_type="none")  # type: ignore[arg-type]
