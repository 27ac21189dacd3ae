"""VMFS whose volume manager is damaged, contradicts itself or is not there; its system's directories; its one tree."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.support import Counting, run
from vmvisor_image import Directory, Image, LimitExceeded, Limits, inspect, open_datastore
from vmvisor_image.record import Record
from vmvisor_image.schemas.vmfs import EXTENT_SIZE, LvmVolume
from vmvisor_image.streams import ReadAt
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import VmfsLink, vmfs_volume
from vmvisor_image.volumes.vmfs import VmfsVolume

TABLES = {"vmfs3": 0x100200, "vmfs5": 0x100200, "vmfs6": 0x101000}
"""Where the entry of the volume table lies."""


class Patched:
    """A source with other bytes at some places."""

    def __init__(self, source: ReadAt, patches: dict[int, bytes]) -> None:
        self.source, self.patches, self.size = source, patches, source.size

    def read_at(self, offset: int, length: int) -> bytes:
        data = bytearray(self.source.read_at(offset, length))
        for at, new in self.patches.items():
            first, last = max(offset, at), min(offset + length, at + len(new))
            if first < last:
                data[first - offset : last - offset] = new[first - at : last - at]
        return bytes(data)


def volume_of(image: Image) -> VmfsVolume:
    volume = image.partitions[1].volume
    assert isinstance(volume, VmfsVolume)
    return volume


def forged(kind: str) -> SparseImage:
    (volume,) = vmfs_volume({"a.txt": b"a" * 5000, "dir/b.txt": b"b"}, kind, label="store-1")  # type: ignore[arg-type]
    return volume


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "content",
    [b"\xff" * 512, bytes(512), random.Random(1).randbytes(512), random.Random(2).randbytes(512), "header"],
    ids=["ones", "zeros", "random", "more random", "device's header"],
)
def test_a_table_that_makes_no_sense_is_told_and_the_files_are_read(kind: str, content: bytes | str) -> None:
    volume = forged(kind)
    data = volume.read_at(0x100000, 512) if isinstance(content, str) else content
    source = Patched(volume, {TABLES[kind]: data})
    assert any("LVM volume table" in str(problem) for problem in inspect(source).problems)
    with Image.open(source) as image:
        found = volume_of(image)
        assert any(problem.structure == "LVM volume table" for problem in image.problems)
        assert not any("devices are there" in problem.message for problem in image.problems)
        assert (found.capacity, found.device_count, found.label) == (None, None, "store-1")
        assert image.partitions[1].files["a.txt"].read_bytes() == b"a" * 5000
        assert image.partitions[1].files["dir/b.txt"].read_bytes() == b"b"


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    ("at", "value", "size"),
    [
        ("size", 1 << 58, 8),
        ("size", (1 << 64) - 1, 8),
        ("size", 0, 8),
        ("size", EXTENT_SIZE * 1000, 8),
        ("device_count", 0, 4),
        ("device_count", 32769, 4),
        ("last_extent", 1 << 40, 8),
        ("first_extent", 7, 8),
    ],
)
def test_each_field_is_held_against_the_device(kind: str, at: str, value: int, size: int) -> None:
    volume = forged(kind)
    offset = TABLES[kind] + place_of(LvmVolume, at)
    assert volume.read_at(offset, size) != value.to_bytes(size, "little")
    with Image.open(Patched(volume, {offset: value.to_bytes(size, "little")})) as image:
        assert any("it makes no sense" in problem.message for problem in image.problems), image.problems
        assert image.partitions[1].files["a.txt"].read_bytes() == b"a" * 5000


def place_of(record: type[Record], name: str) -> int:
    """Offset of a field: where a record of ones in it alone differs from zeros."""
    empty = record.parse(bytes(record.length()))
    width = {"size": 8, "first_extent": 8, "last_extent": 8}.get(name, 4)
    for at in range(record.length() - width + 1):
        data = bytearray(record.length())
        data[at : at + width] = b"\xff" * width
        if getattr(record.parse(bytes(data)), name) == (1 << 8 * width) - 1:
            return at
    raise AssertionError(f"{empty} has no {name}")


@pytest.mark.parametrize("kind", TABLES)
def test_healthy_volumes_of_one_and_several_devices_have_no_problem(kind: str) -> None:
    with Image.open(forged(kind)) as image:
        assert image.problems == ()
    devices = vmfs_volume({"a.txt": b"a"}, kind, devices=3)  # type: ignore[arg-type]
    with open_datastore(*devices) as store:
        assert store.files["a.txt"].read_bytes() == b"a"
        assert store.problems == ()
        assert store.volume.device_count == 3


def without_volume_manager(volume: SparseImage, path: Path) -> None:
    with path.open("wb") as file:
        for at, data in volume.pieces:
            if at >= DATA_OFFSET:
                file.seek(at - DATA_OFFSET)
                file.write(data)
        file.truncate(volume.size - DATA_OFFSET)


@pytest.mark.parametrize("kind", TABLES)
def test_a_file_system_without_the_volume_manager(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "volume"
    without_volume_manager(forged(kind), path)
    with Image.open(path) as image:
        [partition] = image.partitions
        assert (image.scheme, partition.kind, partition.label) == ("none", kind, "store-1")
        assert partition.files["a.txt"].read_bytes() == b"a" * 5000
        assert image.problems == ()
        assert partition.explain()
        assert "LVM device header" not in partition.records
        assert "device UUID" not in volume_of(image).facts
        extent = partition.files["dir/b.txt"].extents[0]
        assert image.read_at(extent.offset, 1) == b"b"
    if kind == "vmfs3":  # libblkid knows the magic of VMFS 3 to 5 there
        said = run("blkid", "-p", "-o", "export", path)
        assert "TYPE=VMFS\n" in said
        assert "LABEL=store-1\n" in said


@pytest.mark.parametrize("kind", ["vmfs5", "vmfs6"])
def test_directories_of_the_system(kind: str) -> None:
    (volume,) = vmfs_volume({".sdd.sf/": b"", "a.txt": b"hello"}, kind)  # type: ignore[arg-type]
    patches: dict[int, bytes] = {}
    for at, data in volume.pieces:
        for offset in range(0, len(data) - 72, 512):
            address, generation, _, type_ = struct.unpack_from("<4I", data, offset)
            mode = data[offset + 64 : offset + 68]
            if (generation, type_, mode) == (1, 2, struct.pack("<I", 0o755)) and address not in (0, 4):
                patches |= {at + offset + 12: struct.pack("<I", 5), at + offset + 64: struct.pack("<I", 0o40700)}
    assert len(patches) == 2
    with Image.open(Patched(volume, patches)) as image:
        files = image.partitions[1].files
        kinds = {entry.name: isinstance(entry, Directory) for entry in files.root}
        assert kinds[".sdd.sf"]
        assert not kinds[".fdc.sf"]
        directory = files.root / ".sdd.sf"
        assert isinstance(directory, Directory)
        assert list(directory) == []
        assert files["a.txt"].read_bytes() == b"hello"
        assert image.problems == ()


def test_the_tree_is_one_and_has_the_caller_s_limits() -> None:
    """Each access made a new tree that read all directories again, without the limits where it was asked first."""
    volume = forged("vmfs5")
    source = Counting(Patched(volume, {}))
    with Image.open(source, limits=Limits(entries=3)) as image:
        found = volume_of(image)
        assert found.files is found.files is image.partitions[1].files
        assert found.files.limits.entries == 3
        with pytest.raises(LimitExceeded):
            list(found.files)
    with Image.open(source) as image:
        assert volume_of(image).files["a.txt"].size == 5000
        reads = len(source.reads)
        for _ in range(50):
            assert volume_of(image).files["a.txt"].size == 5000
        assert len(source.reads) == reads
    with open_datastore(Patched(volume, {})) as tree:
        assert tree.files is tree.files


def test_a_fat_tree_has_the_caller_s_limits_whoever_asks_first() -> None:
    from vmvisor_image.testing.forge import fat_volume
    from vmvisor_image.volumes.fat import FatVolume

    with Image.open(fat_volume({"a": b"", "b": b"", "c": b""}, sectors=4000), limits=Limits(entries=2)) as image:
        volume = image.partitions[1].volume
        assert isinstance(volume, FatVolume)
        with pytest.raises(LimitExceeded):
            list(volume.files)


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs6"])
@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, 70_000])
def test_a_link_is_read_up_to_its_longest_target(kind: str, length: int) -> None:
    """A longer one is left out, not cut; what lies beside it is there."""
    (source,) = vmfs_volume({"before": b"1", "link": VmfsLink("x" * length), "behind": b"2"}, kind)  # type: ignore[arg-type]
    with Image.open(source) as image:
        assert [path for path in image.partitions[1].files if path[0] != "."] == ["before", "behind"]
        assert volume_of(image).links == ({"link": "x" * length} if length <= 4096 else {})
        messages = [problem.message for problem in image.problems]
    if length <= 4096:
        assert messages == []
    else:
        assert messages == [f"link: a link's target has {length} bytes, more than the 4096 that are read"]


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs6"])
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_directory_is_read_up_to_its_largest_size(kind: str, over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is set to what it has, less or more an entry of 140 bytes, or one of the blocks that VMFS 6 has of them."""
    names = [f"{number:02}" for number in range(40)]
    (source,) = vmfs_volume({f"dir/{name}": b"" for name in names}, kind)  # type: ignore[arg-type]
    step = 4096 if kind == "vmfs6" else 140
    size = 0x14000 if kind == "vmfs6" else (len(names) + 2) * step
    monkeypatch.setattr("vmvisor_image.volumes.vmfs_files._LARGEST_DIRECTORY", size - over * step)
    with Image.open(source) as image:
        found = [file.name for path, file in image.partitions[1].files.items() if path.startswith("dir/")]
        messages = [problem.message for problem in image.problems]
    if over <= 0:
        assert (found, messages) == (names, [])
        return
    assert found == names[: len(found)]
    assert len(names) - 14 <= len(found) < len(names)  # one entry, or one block
    lost = ["1 of its blocks of entries lie behind the 3 that it has or are read"] if kind == "vmfs6" else []
    assert messages == [f"'dir' has {size} bytes: only the first {size - step} are read", *lost]
