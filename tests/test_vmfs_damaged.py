"""VMFS whose volume manager is damaged, contradicts itself or is not there; its system's directories; its one tree."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.support import Counting, run
from tests.vmfs_image import expand
from vmvisor_image import Directory, Image, LimitExceeded, Limits, Role, inspect, open_datastore, verify
from vmvisor_image.record import Record
from vmvisor_image.schemas.partition_types import BASIC_DATA, VMFS
from vmvisor_image.schemas.vmfs import EXTENT_SIZE, LvmVolume
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import VmfsDirectory, VmfsFile, VmfsLink, vmfs_volume
from vmvisor_image.volumes.vmfs.volume import VmfsVolume

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
        assert any("it is not valid" in problem.message for problem in image.problems), image.problems
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


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs5-l", "vmfs6", "vmfs-l"])
@pytest.mark.parametrize("in_table", [True, False])
def test_all_files_without_the_volume_manager(kind: str, *, in_table: bool, tmp_path: Path) -> None:
    """Of all kinds, with links and locks, alone or in a partition: the same as with it."""
    tree = {
        **{f"vm/{number}.vmdk": VmfsFile(random.Random(number).randbytes(700_000 * number)) for number in range(5)},
        "link": VmfsLink("vm/1.vmdk"),
        "holes": VmfsFile(pieces=((5 << 20, b"middle"),), size=9 << 20),
        "empty/": b"",
    }
    (whole,) = vmfs_volume(tree, kind, hosts=("10.0.0.1",))  # type: ignore[arg-type]
    path = tmp_path / "volume"
    without_volume_manager(whole, path)
    source: object = path
    if in_table:
        bare = SparseImage(whole.size - DATA_OFFSET, [(at - DATA_OFFSET, data) for at, data in after(whole)])
        source = gpt_disk(
            [GptPartition(1, VMFS, 2048, bare.size // 512, content=bare)], sectors=bare.size // 512 + 4096
        )
    with Image.open(whole) as image:
        expected = {name: (file.sha256(), file.attributes) for name, file in image.partitions[1].files.items()}
        links, hosts = volume_of(image).links, volume_of(image).active_hosts
    with Image.open(source) as image:  # type: ignore[arg-type]  # each is one
        files = image.partitions[1].files
        assert {name: (file.sha256(), file.attributes) for name, file in files.items()} == expected
        assert volume_of(image).links == links
        assert [host.address for host in volume_of(image).active_hosts] == [host.address for host in hosts]
        assert [problem.structure for problem in image.partitions[1].problems] == ["VMFS heartbeat"]
        assert len(expected) > 10
    report = verify(source)  # type: ignore[arg-type]  # each is one
    assert {file.path for file in report.partitions[0].files} == set(expected)


def after(volume: SparseImage) -> list[tuple[int, bytes]]:
    return [(at, data) for at, data in volume.pieces if at >= DATA_OFFSET]


def test_a_real_volume_without_the_volume_manager(shared_data: Path, tmp_path: Path) -> None:
    real = expand(shared_data / "vmfs3-real.vmfsimg")
    bare = SparseImage(real.size - DATA_OFFSET, [(at - DATA_OFFSET, data) for at, data in after(real)])
    lost = SparseImage(real.size, after(real))
    with Image.open(real) as image:
        expected = {name: (file.size, file.attributes) for name, file in image.partitions[1].files.items()}
        small = {file.path: file.sha256() for file in image.partitions[1].files.values() if file.size < 1 << 20}
    for source in (bare, lost):
        with Image.open(source) as image:
            files = image.partitions[1].files
            assert {name: (file.size, file.attributes) for name, file in files.items()} == expected
            assert {path: files[path].sha256() for path in small} == small
            assert len(small) > 4
    path = tmp_path / "bare"
    bare.write_to(path)
    assert 'UUID="49edf844-ebfc28f3-65cb-0021280083cf" LABEL="toto"' in run("blkid", "-p", path)


@pytest.mark.parametrize("kind", TABLES)
def test_a_volume_whose_volume_manager_is_lost_is_read_from_its_usual_place(kind: str) -> None:
    """Everything before the volume is overwritten; it is a problem, and costs no file."""
    volume = forged(kind)
    for head in ([], [(0, random.Random(3).randbytes(DATA_OFFSET))]):
        source = SparseImage(volume.size, [*head, *after(volume)])
        with Image.open(source) as image:
            [partition] = image.partitions
            assert (partition.kind, partition.label, partition.role) == (kind, "store-1", Role.DATASTORE)
            assert partition.files["a.txt"].read_bytes() == b"a" * 5000
            extent = partition.files["dir/b.txt"].extents[0]
            assert image.read_at(extent.offset, 1) == b"b"
            [problem] = image.problems
            assert (problem.structure, problem.offset) == ("LVM device header", 0x100000)


@pytest.mark.parametrize("kind", TABLES)
def test_a_lost_volume_is_looked_for_in_partitions_of_its_type(kind: str) -> None:
    """In others it costs no reading."""
    volume = forged(kind)
    content = SparseImage(volume.size, after(volume))
    sectors = volume.size // 512
    for disk, is_found in (
        (gpt_disk([GptPartition(1, VMFS, 2048, sectors, content=content)], sectors=sectors + 4096), True),
        (mbr_disk([ForgedPartition(1, 0xFB, 128, sectors, content=content)], sectors=sectors + 4096), True),
        (gpt_disk([GptPartition(1, BASIC_DATA, 2048, sectors, content=content)], sectors=sectors + 4096), False),
    ):
        with Image.open(disk) as image:
            assert isinstance(image.partitions[1].volume, VmfsVolume) is is_found
            if is_found:
                assert image.partitions[1].files["a.txt"].read_bytes() == b"a" * 5000


@pytest.mark.parametrize("magic", [(1080, b"\x53\xef"), (4086, b"SWAPSPACE2")])
def test_what_is_something_else_is_no_lost_volume(magic: tuple[int, bytes]) -> None:
    """A file system in which an image of such a volume may lie."""
    source = SparseImage(1 << 30, [magic, *after(forged("vmfs5"))])
    with Image.open(source) as image:
        assert not any(isinstance(partition.volume, VmfsVolume) for partition in image.partitions)


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs6", "vmfs-l"])
def test_type_bits_are_kept(kind: str, tmp_path: Path) -> None:
    """The mode's and the descriptor's: they tell a directory of the system's from a user's, and from a file."""
    tree = {
        ".sdd.sf/": VmfsDirectory(0o40700, is_system=True),
        ".dfd.sf/": VmfsDirectory(0o40700, is_system=True),
        "own/": VmfsDirectory(0o40750),
        "plain/": b"",
        "a.txt": VmfsFile(b"hello", mode=0o100640),
        "b.txt": VmfsFile(b"hello", mode=0o640),
    }
    (volume,) = vmfs_volume(tree, kind)  # type: ignore[arg-type]
    with Image.open(volume) as image:
        found = {}
        for entry in image.partitions[1].files.root:
            assert entry.attributes is not None
            told = (entry.attributes.mode, entry.attributes.type_bits, entry.attributes.descriptor_type)
            found[entry.name] = (isinstance(entry, Directory), *told)
        assert image.problems == ()
    assert found[".fdc.sf"] == (False, 0o400, 0, 5)
    assert {name: told for name, told in found.items() if f"{name}/" in tree or name in tree} == {
        ".sdd.sf": (True, 0o700, 0o040000, 5),
        ".dfd.sf": (True, 0o700, 0o040000, 5),
        "own": (True, 0o750, 0o040000, 2),
        "plain": (True, 0o755, 0, 2),
        "a.txt": (False, 0o640, 0o100000, 3),
        "b.txt": (False, 0o640, 0, 3),
    }
    if kind in ("vmfs3", "vmfs5"):
        path = tmp_path / "volume"
        volume.write_to(path)
        listed = {line.split()[-1]: line[:10] for line in run("debugvmfs", path, "ls", "-l", "/").splitlines()}
        assert (listed[".sdd.sf"], listed["own"], listed["a.txt"]) == ("drwx------", "drwxr-x---", "-rw-r-----")


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
    from vmvisor_image.volumes.fat.volume import FatVolume

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
    monkeypatch.setattr("vmvisor_image.volumes.vmfs.files._LARGEST_DIRECTORY", size - over * step)
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
