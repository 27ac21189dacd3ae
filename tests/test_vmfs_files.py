"""Files of VMFS volumes: a real one beside vmfs-tools, forged ones of every generation beside three other readers."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import ClassVar, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import REPOSITORY, Counting, build_once, require_oracle, require_tool, run, unavailable
from tests.vmfs_image import expand
from vmvisor_image import (
    CorruptImage,
    Datastore,
    Extent,
    File,
    FileTree,
    Image,
    InvalidArgument,
    NotAFileSystem,
    PathNotFound,
    open_datastore,
)
from vmvisor_image.schemas.vmfs import EXTENT_SIZE, HEARTBEAT_OFFSET, LVM_OFFSET, FileMetadata, vmfs_uuid
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET, LOCAL_KINDS, NaaDisk, VmfsKind
from vmvisor_image.testing.forge_vmfs_files import (
    BLOCK,
    Content,
    Pointers,
    VmfsFile,
    VmfsLink,
    VmfsRawDevice,
    vmfs_volume,
)
from vmvisor_image.volumes.vmfs.addresses import FBB
from vmvisor_image.volumes.vmfs.files import FileLock
from vmvisor_image.volumes.vmfs.volume import VmfsVolume

EVERY = pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs5-l", "vmfs6", "vmfs-l"])
LATE = pytest.mark.parametrize("kind", ["vmfs5", "vmfs5-l", "vmfs6", "vmfs-l"])
HOST = bytes.fromhex("44f8ed490002000065cb0021280083cf")


def is_6(kind: VmfsKind) -> bool:
    return kind in ("vmfs6", "vmfs-l")


def data_of(name: str, length: int) -> bytes:
    return random.Random(name).randbytes(length)


def tree_of(kind: VmfsKind) -> dict[str, Content]:
    """Files with every kind of pointer that a generation has, every kind of object, and names that are not ASCII."""
    pieces = ((5 * BLOCK, data_of("a", 4096)), (500 * BLOCK + 100, data_of("b", 10_000)))
    tree: dict[str, Content] = {
        "small.txt": b"hello\n",
        "empty": b"",
        "a/b/c/deep.bin": data_of("deep", 5000),
        "empty folder/": b"",
        "sub-block.bin": data_of("sub", 7000),
        "blocks.bin": data_of("blocks", 3 * BLOCK + 777),
        "full-flat.vmdk": VmfsFile(data_of("full", 3 * BLOCK + 777), pointers="pointer blocks"),
        "sparse-flat.vmdk": VmfsFile(size=600 * BLOCK, pieces=pieces, pointers="pointer blocks"),
        "holes.bin": VmfsFile(
            size=20 * BLOCK + 5, pieces=((5 * BLOCK, b"x"),), to_zero=frozenset({7}), pointers="file blocks"
        ),
        "link": VmfsLink("a/b/c/deep.bin"),
        "raw.vmdk": VmfsRawDevice(1 << 34, disk_id="naa.6001405"),
        "Größe-日本.txt": VmfsFile(b"x" * 100, mode=0o640, owner=1000, group=100),
        "dated": VmfsFile(b"y", modified=datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)),
        **{f"many/{number:03}": b"%d" % number for number in range(80)},
        **{f"sub-blocks/{number:02}": data_of(str(number), 3700) for number in range(70)},
    }
    if kind != "vmfs3":
        tree["double.bin"] = VmfsFile(
            size=1100 * BLOCK, pieces=((5 * BLOCK, b"D" * 4096), (1090 * BLOCK + 5, b"E" * 10_000)), pointers="double"
        )
    if is_6(kind):
        tree["large.bin"] = VmfsFile(
            size=300 * BLOCK + 5,
            pieces=((5 * BLOCK, b"L" * 4096), (299 * BLOCK + 5, b"M" * 10_000)),
            pointers="large blocks",
        )
        tree["large and full.bin"] = VmfsFile(data_of("large", 2 * BLOCK), pointers="large blocks")
    return tree


SIZES = 12 * EXTENT_SIZE + DATA_OFFSET


@pytest.fixture(scope="module", params=["vmfs3", "vmfs5", "vmfs5-l", "vmfs6", "vmfs-l"])
def forged(request: pytest.FixtureRequest, for_all_workers: Path) -> tuple[VmfsKind, Path]:
    kind: VmfsKind = request.param

    def make(path: Path) -> None:
        (volume,) = vmfs_volume(tree_of(kind), kind, size=SIZES)
        volume.write_to(path)

    return kind, build_once(for_all_workers / f"{kind}.img", make)


@contextmanager
def opened(kind: VmfsKind, tree: dict[str, Content], **options: object) -> Iterator[tuple[VmfsVolume, FileTree]]:
    (device,) = vmfs_volume(tree, kind, **options)  # type: ignore[arg-type]  # names and values as the forge has them
    with Image.open(device) as image:
        yield volume_of(image), image.partitions[1].files


def volume_of(image: Image) -> VmfsVolume:
    volume = image.partitions[1].volume
    assert isinstance(volume, VmfsVolume)
    return volume


def expected(content: Content) -> bytes | bytearray:
    """What a file reads as."""
    if isinstance(content, bytes):
        return content
    assert isinstance(content, VmfsFile)
    data = bytearray(content.length)
    data[: len(content.data)] = content.data
    for offset, piece in content.pieces:
        data[offset : offset + len(piece)] = piece
    return data


class TestRealVolume:
    @pytest.fixture
    def path(self, shared_data: Path, tmp_path: Path) -> Path:
        path = tmp_path / "vmfs3.img"
        expand(shared_data / "vmfs3-real.vmfsimg").write_to(path)
        return path

    def test_the_same_as_debugvmfs_says(self, path: Path) -> None:
        listed = [line.split(maxsplit=7) for line in run("debugvmfs", path, "ls", "-l").splitlines()]
        sizes = {fields[7]: int(fields[4]) for fields in listed if fields[7] not in (".", "..")}
        with Image.open(path) as image:
            files = image.partitions[1].files
            assert {name: file.size for name, file in files.items()} == sizes
            for fields in listed:
                file = files.get(fields[7])
                if file is None:
                    continue
                assert file.attributes is not None
                assert f"{file.attributes.created:%Y-%m-%d %H:%M:%S}" == " ".join(fields[5:7])
                modes = "".join(
                    letter if file.attributes.mode >> bit & 1 else "-"
                    for bit, letter in zip(range(8, -1, -1), 3 * "rwx", strict=True)
                )
                assert f"-{modes}" == fields[0]
                command = [require_tool("debugvmfs"), str(path), "cat", file.path]
                shown = subprocess.run(command, capture_output=True, check=True).stdout
                assert file.sha256() == hashlib.sha256(shown).hexdigest(), file.path
            assert image.problems == ()

    def test_the_same_times_as_vmfs_fuse_says(self, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "mounted"
        folder.mkdir()
        mount = subprocess.run([require_tool("vmfs-fuse"), path, folder], capture_output=True, check=False)
        if mount.returncode:
            unavailable("nothing can be mounted here")
        try:
            found = {entry.name: entry.stat() for entry in folder.iterdir()}
        finally:
            subprocess.run(["umount", folder], check=True)
        with Image.open(path) as image:
            files = image.partitions[1].files
            assert set(files) == set(found)
            for name, file in files.items():
                status, attributes = found[name], file.attributes
                assert attributes is not None
                assert attributes.created is not None
                assert attributes.accessed is not None
                assert file.timestamp == status.st_mtime
                assert attributes.created.timestamp() == status.st_ctime
                assert attributes.accessed.timestamp() == status.st_atime
                assert (attributes.owner, attributes.group) == (status.st_uid, status.st_gid)
                assert attributes.mode == status.st_mode & 0o7777

    def test_descriptors_open_as_disks(self, path: Path) -> None:
        with Image.open(path) as image:
            files = image.partitions[1].files
            for name in ("thin", "thick", "zeroedthick", "eagerzeroedthick"):
                with files[f"{name}.vmdk"].open_image() as guest:
                    assert guest.size == files[f"{name}-flat.vmdk"].size == 200 * BLOCK

    def test_what_is_allocated_but_never_written_is_not_read(self, shared_data: Path) -> None:
        source = Counting(expand(shared_data / "vmfs3-real.vmfsimg"))
        with Image.open(source) as image:
            file = image.partitions[1].files["zeroedthick-flat.vmdk"]
            assert file.skip_zeros(0, file.size) == 0  # its first block was written
            source.reads.clear()
            assert file.skip_zeros(BLOCK, file.size) == file.size
            assert file.read_at(BLOCK, 50 * BLOCK) == bytes(50 * BLOCK)
            assert sum(length for _, length in source.reads) < 64 << 10
            assert sum(extent.length for extent in file.extents) == BLOCK


class TestForgedVolumes:
    def test_each_file_is_what_was_put_in(self, forged: tuple[VmfsKind, Path]) -> None:
        kind, path = forged
        tree = tree_of(kind)
        with Image.open(path) as image:
            files = image.partitions[1].files
            del tree["empty folder/"]
            plain = {name for name, content in tree.items() if isinstance(content, bytes | VmfsFile)}
            assert plain == {name for name in files if not name.startswith(".")}
            for name in plain:
                content = tree[name]
                if files[name].size < 64 * BLOCK:
                    assert files[name].read_bytes() == expected(content), name
                if isinstance(content, VmfsFile):
                    for offset, piece in content.pieces:
                        found = files[name].read_at(offset - 1, len(piece) + 2)
                        assert found == b"\0" + piece + b"\0"
                    attributes = files[name].attributes
                    assert attributes is not None
                    assert (attributes.mode, attributes.owner, attributes.group) == (
                        *(content.mode, content.owner, content.group),
                    )
                    assert files[name].timestamp == content.modified.timestamp()
            assert image.problems == ()
            assert list(files.root.get("empty folder") or [1]) == []  # type: ignore[arg-type]  # it is a directory

    def test_links_and_raw_devices(self, forged: tuple[VmfsKind, Path]) -> None:
        _, path = forged
        with Image.open(path) as image:
            volume = volume_of(image)
            assert "link" not in image.partitions[1].files
            list(image.partitions[1].files.root)
            assert volume.links == {"link": "a/b/c/deep.bin"}
            mapping = volume.raw_devices["raw.vmdk"]
            assert (mapping.size, mapping.disk) == (1 << 34, "FORGED LUN naa.6001405")

    @pytest.mark.parametrize("identifier", ["600144f0c01d00d08e2a4f1b7c9d0e31", "5000c500395c4dc7"])
    def test_raw_devices_by_naa_identifiers(self, forged: tuple[VmfsKind, Path], identifier: str) -> None:
        kind, _ = forged
        disk = NaaDisk(bytes.fromhex(identifier), b"OPEN-V", 3)
        (source,) = vmfs_volume({"raw.vmdk": VmfsRawDevice(1 << 30, disk=disk)}, kind)
        with Image.open(source) as image:
            list(image.partitions[1].files.root)
            assert volume_of(image).raw_devices["raw.vmdk"].disk == f"OPEN-V naa.{identifier}, LUN 3"

    def test_the_same_as_dissect_says(self, forged: tuple[VmfsKind, Path]) -> None:
        kind, path = forged
        if kind == "vmfs3":
            pytest.skip("dissect.vmfs 3.13 reads one block of a file of VMFS 3 only, of the real volume, too")
        command = [require_oracle(), REPOSITORY / "tests" / "dissect_listing.py", path]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        with Image.open(path) as image:
            files = image.partitions[1].files
            ours: dict[str, dict[str, object]] = {
                name: {
                    "size": file.size,
                    "modified": file.timestamp,
                    "mode": file.attributes and file.attributes.mode,
                    "owner": file.attributes and file.attributes.owner,
                    "group": file.attributes and file.attributes.group,
                    "sha256": file.sha256(),
                }
                for name, file in files.items()
            }
            volume = volume_of(image)
            ours |= {name: {"link": target} for name, target in volume.links.items()}
            ours |= {name: {"disk": mapping.disk.split()} for name, mapping in volume.raw_devices.items()}
        assert ours == found

    def test_the_same_as_vmfs_tools_say(self, forged: tuple[VmfsKind, Path]) -> None:
        kind, path = forged
        if kind == "vmfs5-l":
            pytest.skip("vmfs-tools know no VMFS-L")
        tool = "debugvmfs6" if is_6(kind) else "debugvmfs"
        # vmfs-tools 0.2.5 know one level of pointer blocks. vmfs6-tools 0.2.1 take all behind a hole for zeros, also of
        # a directory's blocks.
        names = ["small.txt", "a/b/c/deep.bin", "sub-block.bin", "blocks.bin", "full-flat.vmdk", "sub-blocks/69"]
        names += ["large and full.bin"] if is_6(kind) else ["sparse-flat.vmdk", "holes.bin"]
        banner = b"VMFS version: 6\n" if is_6(kind) else b""
        with Image.open(path) as image:
            files = image.partitions[1].files
            top = [name for name in run(tool, path, "ls", "/").removeprefix(banner.decode()).split("\n") if name]
            assert {name.partition("/")[0] for name in files} <= {name.strip() for name in top}
            inner = run(tool, path, "ls", "many").removeprefix(banner.decode()).split("\n")
            assert {name.strip() for name in inner if name} == {".", ".."} | {f"{number:03}" for number in range(80)}
            for name in names:
                command = [require_tool(tool), str(path), "cat", name]
                shown = subprocess.run(command, capture_output=True, check=True).stdout.removeprefix(banner)
                assert shown == files[name].read_bytes(), name


@EVERY
@pytest.mark.parametrize("pointers", get_args(Pointers))
def test_any_content_with_any_pointers(kind: VmfsKind, pointers: Pointers) -> None:
    if (kind == "vmfs3" and pointers in ("resident", "double")) or (not is_6(kind) and pointers == "large blocks"):
        pytest.skip("this generation has no such pointers")
    unit = 4096 if pointers == "sub-blocks" else BLOCK
    generator = random.Random(f"{kind}{pointers}")
    files: dict[str, Content] = {}
    for number in range(3):
        if pointers == "resident":
            files[f"f{number}"] = VmfsFile(generator.randbytes(generator.randrange(1, 900)), pointers=pointers)
            continue
        size = generator.randrange(1, 6 * unit)
        places = sorted(generator.sample(range(0, size, 64), min(4, -(-size // 64))))
        pieces = tuple((place, generator.randbytes(min(64, size - place))) for place in places)
        if pointers == "sub-blocks":
            size = min(size, 8192)
            pieces = tuple((place, piece[: size - place]) for place, piece in pieces if place < size)
        files[f"f{number}"] = VmfsFile(size=size, pieces=pieces, pointers=pointers)
    with opened(kind, files, size=8 * EXTENT_SIZE + DATA_OFFSET) as (_, found):
        for name, content in files.items():
            assert found[name].read_bytes() == expected(content)
            assert sum(extent.length for extent in found[name].extents) <= found[name].size


@EVERY
@given(data=st.data())
def test_any_range(kind: VmfsKind, data: st.DataObject) -> None:
    content = VmfsFile(
        size=5 * BLOCK, pieces=((100, b"a" * 5000), (3 * BLOCK - 7, b"b" * 20)), pointers="pointer blocks"
    )
    with Image.open(volume_with(kind, content)) as image:
        offset = data.draw(st.integers(0, 5 * BLOCK))
        length = data.draw(st.integers(0, 5 * BLOCK - offset))
        found = image.partitions[1].files["f"].read_at(offset, length)
        assert found == expected(content)[offset : offset + length]


@cache
def volume_with(kind: VmfsKind, content: VmfsFile) -> SparseImage:
    return vmfs_volume({"f": content}, kind)[0]


@pytest.mark.parametrize(("shift", "parts"), [(0, 8), (10, 8), (17, 8), (18, 4), (19, 2), (20, 1), (29, 1)])
def test_parts_of_a_block_that_are_to_be_zeroed(shift: int, parts: int) -> None:
    """VMFS 6: a bit of the pointer for each, of the size that is zeroed at once; dissect.vmfs takes one bit for all."""
    with opened("vmfs6", {"f": VmfsFile(data_of("f", BLOCK), pointers="file blocks")}) as (volume, files):
        token = files["f"].token
        blocks, _ = volume._opened()
        place = blocks.resources.descriptor(token).start + 8192 - 2560 + DATA_OFFSET
        descriptor = blocks.resources.descriptor(token).start + DATA_OFFSET
    (device,) = vmfs_volume({"f": VmfsFile(data_of("f", BLOCK), pointers="file blocks")}, "vmfs6")
    pointer = int.from_bytes(device.read_at(place, 8), "little") | (1 | 1 << parts - 1) << 7
    device = patched(device, descriptor + 4096 + 0x6C, shift.to_bytes(4, "little"))
    with Image.open(patched(device, place, pointer.to_bytes(8, "little"))) as image:
        part = BLOCK // parts
        middle = data_of("f", BLOCK)[part : (parts - 1) * part]
        found = image.partitions[1].files["f"].read_bytes()
        assert found == (bytes(part) + middle + bytes(part) if parts > 1 else bytes(BLOCK))


class TestState:
    @EVERY
    def test_locks_and_hosts(self, kind: VmfsKind) -> None:
        tree: dict[str, Content] = {"vm/vm-flat.vmdk": VmfsFile(b"x" * 5000, locked_by=HOST), "vm/vm.log": b"free"}
        with opened(kind, tree, hosts=("10.0.0.7",)) as (volume, files):
            assert volume.lock_of(files["vm/vm.log"]) is None
            assert volume.lock_of(files["vm/vm-flat.vmdk"]) == FileLock(1, vmfs_uuid(HOST), HEARTBEAT_OFFSET)
            (host,) = volume.active_hosts
            assert (host.uuid, host.address, host.journal) == (vmfs_uuid(HOST), "10.0.0.7", None)
            assert host.stamp_us == 1_000_000
            (problem,) = volume.problems
            assert "10.0.0.7" in problem.message
            assert "held the volume" in problem.message

    def test_a_volume_that_is_free_has_no_problems(self) -> None:
        with opened("vmfs6", {"f": b""}) as (volume, _):
            assert volume.problems == ()


def guest_disk() -> SparseImage:
    volume = fat_volume({"AUTOEXEC.BAT": b"echo hello\r\n"}, label="GUEST", sectors=8192, sectors_per_cluster=4)
    return mbr_disk([ForgedPartition(1, 6, 63, 8192, active=True, content=volume)], sectors=8255)


@EVERY
def test_the_disk_of_a_guest(kind: VmfsKind) -> None:
    disk = guest_disk()
    descriptor = (
        "# Disk DescriptorFile\nversion=1\nCID=dab8f8df\nparentCID=ffffffff\n"
        f'createType="vmfs"\n\nRW {disk.size // 512} VMFS "vm-flat.vmdk"\n'
    )
    flat = VmfsFile(size=disk.size, pieces=disk.pieces)
    tree: dict[str, Content] = {"vm/vm.vmdk": descriptor.encode(), "vm/vm-flat.vmdk": flat}
    with opened(kind, tree) as (_, files), files["vm/vm.vmdk"].open_image() as guest:
        assert [layer.kind for layer in guest.layers] == ["vmdk"]
        assert guest.partitions["GUEST"].files["autoexec.bat"].read_bytes() == b"echo hello\r\n"


SPANNED: dict[str, Content] = {
    "first.bin": b"on the first device" * 1000,
    "wide.bin": VmfsFile(
        size=600 * BLOCK, pieces=tuple((n * BLOCK, b"%6d" % n) for n in range(600)), pointers="pointer blocks"
    ),
    "last.bin": VmfsFile(data_of("last", 2 * BLOCK), pointers="file blocks"),
}


class TestSpannedVolumes:
    @pytest.fixture(params=["vmfs3", "vmfs5", "vmfs6", "vmfs-l"])
    def devices(self, request: pytest.FixtureRequest, for_all_workers: Path) -> list[Path]:
        def make(folder: Path) -> None:
            folder.mkdir()
            size = 2 * EXTENT_SIZE + DATA_OFFSET
            for number, device in enumerate(vmfs_volume(SPANNED, request.param, size=size, devices=2)):
                device.write_to(folder / f"{number}.img")

        folder = build_once(for_all_workers / f"spanned-{request.param}", make)
        return [folder / "0.img", folder / "1.img"]

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_all_devices_in_any_order(self, devices: list[Path], order: tuple[int, int]) -> None:
        with open_datastore(*(devices[number] for number in order)) as datastore:
            assert datastore.label == "datastore1"
            assert datastore.size == 4 * EXTENT_SIZE
            for name, content in SPANNED.items():
                assert datastore.files[name].read_bytes() == expected(content)
            assert datastore.problems == ()
            assert len(datastore.devices) == 2
            last = datastore.files["last.bin"]
            assert last.extents[0].offset >= 2 * EXTENT_SIZE
            assert datastore.disk.read_at(last.extents[0].offset, 16) == expected(SPANNED["last.bin"])[:16]

    def test_a_device_that_is_missing(self, devices: list[Path]) -> None:
        with open_datastore(devices[0]) as datastore:
            files = datastore.files
            assert set(SPANNED) <= set(files)
            assert files["first.bin"].read_bytes() == expected(SPANNED["first.bin"])
            assert files["wide.bin"].read_at(0, 6) == b"     0"
            with pytest.raises(CorruptImage, match="device"):
                files["last.bin"].read_bytes()
            assert any("1 of 2 devices" in problem.message for problem in datastore.problems)

    def test_one_partition_alone_says_what_is_missing(self, devices: list[Path]) -> None:
        with Image.open(devices[0]) as image:
            assert image.partitions[1].files["first.bin"].read_bytes() == expected(SPANNED["first.bin"])
            assert any("open_datastore" in problem.message for problem in image.problems)
        with Image.open(devices[1]) as image, pytest.raises(NotAFileSystem, match="not on this device"):
            _ = image.partitions[1].files

    def test_the_first_device_missing(self, devices: list[Path]) -> None:
        with pytest.raises(NotAFileSystem, match="descriptor"), open_datastore(devices[1]) as datastore:
            _ = datastore.files

    def test_pickled(self, devices: list[Path]) -> None:
        with open_datastore(*devices) as datastore:
            file: File = pickle.loads(pickle.dumps(datastore.files["last.bin"]))
        assert file.read_bytes() == expected(SPANNED["last.bin"])
        assert isinstance(file.home, Datastore)
        file.home.close()

    def test_images_and_partitions_as_sources(self, devices: list[Path]) -> None:
        with Image.open(devices[0]) as first, Image.open(devices[1]) as second:
            with open_datastore(first, second.partitions[1]) as datastore:
                assert datastore.files["last.bin"].read_bytes() == expected(SPANNED["last.bin"])
            assert first.read_at(LVM_OFFSET, 2) == b"\x0d\xd0"  # images of the caller's stay open


class TestSeveralVolumes:
    def test_which_one_is_meant(self) -> None:
        (one,) = vmfs_volume({"f": b"1"}, "vmfs5", label="one")
        (two,) = vmfs_volume({"f": b"2"}, "vmfs6", label="two")
        # The forge gives each volume the same UUIDs; another one for the second.
        alias = two.read_at(LVM_OFFSET + 4096 + 0x54, 16)
        two = patched(two, LVM_OFFSET + 4096 + 0x54, alias[:-1] + b"\x01")
        with pytest.raises(InvalidArgument, match="there are several volumes"):
            open_datastore(one, two)
        with open_datastore(one, two, volume="two") as datastore:
            assert datastore.files["f"].read_bytes() == b"2"
        with pytest.raises(NotAFileSystem, match="'three'"):
            open_datastore(one, two, volume="three")

    def test_no_volume_at_all(self) -> None:
        with pytest.raises(NotAFileSystem, match="no partition of these images holds VMFS"):
            open_datastore(bytes(1 << 20))
        with pytest.raises(InvalidArgument, match="at least one"):
            open_datastore()


def patched(device: SparseImage, offset: int, value: bytes) -> SparseImage:
    """The same volume with other bytes at one place."""
    pieces = []
    for start, data in device.pieces:
        first, last = max(offset, start), min(offset + len(value), start + len(data))
        if first < last:
            found = bytearray(data)
            found[first - start : last - start] = value[first - offset : last - offset]
            pieces.append((start, bytes(found)))
        else:
            pieces.append((start, data))
    result = SparseImage(device.size, pieces)
    assert result.read_at(offset, len(value)) == value
    return result


def descriptor_place(device: SparseImage, path: str) -> int:
    """Where the descriptor of a file or directory lies in a device."""
    with Image.open(device) as image:
        volume, files = volume_of(image), image.partitions[1].files
        blocks, _ = volume._opened()
        return blocks.resources.descriptor(files[path].token if path else 4).start + DATA_OFFSET


class TestOtherWaysToSayIt:
    """What a descriptor may say otherwise than the forge's do, and means the same."""

    DATA: ClassVar[bytes] = data_of("f", 3 * BLOCK + 5)

    def changed(self, kind: VmfsKind, pointers: Pointers, changes: dict[int, bytes], *, own: bool = False) -> None:
        """The file is the same after its descriptor's metadata were changed at those offsets; < 0 is before its end."""
        data = self.DATA[:5000] if pointers == "sub-blocks" else self.DATA
        (device,) = vmfs_volume({"f": VmfsFile(data, pointers=pointers)}, kind, own_pointer_blocks=own)
        place = descriptor_place(device, "f")
        for at, value in changes.items():
            end = 8192 if is_6(kind) else 2048
            device = patched(device, place + (end + at if at < 0 else at + (4096 if is_6(kind) else 512)), value)
        with Image.open(device) as image:
            assert image.partitions[1].files["f"].read_bytes() == data

    @EVERY
    @pytest.mark.parametrize(("pointers", "kind_of_pointers"), [("file blocks", 0x10CE), ("sub-blocks", 0x10CF)])
    def test_pointers_to_data(self, kind: VmfsKind, pointers: Pointers, kind_of_pointers: int) -> None:
        self.changed(kind, pointers, {0x44: kind_of_pointers.to_bytes(4, "little")})

    @LATE
    @pytest.mark.parametrize(("pointers", "levels"), [("pointer blocks", 0x10D0), ("double", 3), ("double", 5)])
    def test_levels_are_seen_in_what_the_blocks_lead_to(self, kind: VmfsKind, pointers: Pointers, levels: int) -> None:
        self.changed(kind, pointers, {0x44: levels.to_bytes(4, "little")})

    @LATE
    def test_a_shift_that_is_no_size_of_a_file_block(self, kind: VmfsKind) -> None:
        self.changed(kind, "file blocks", {0x89: b"\x0d"})
        self.changed(kind, "file blocks", {0x89: b"\xff"})

    @pytest.mark.parametrize("kind", ["vmfs5", "vmfs5-l"])
    def test_more_sub_blocks_in_a_cluster_than_four_bits_tell(self, kind: VmfsKind) -> None:
        files = {f"{number:02}": data_of(str(number), 3700) for number in range(70)}
        (device,) = vmfs_volume({**files}, kind)
        flags = device.read_at(DATA_OFFSET + 0x200019, 1)
        assert flags[0] & 4  # it says that there are two more bits
        with Image.open(patched(device, DATA_OFFSET + 0x200019, bytes([flags[0] & ~4]))) as image:
            assert {name: image.partitions[1].files[name].read_bytes() for name in files} == files

    def test_a_volume_that_is_cut_off_says_so(self) -> None:
        (device,) = vmfs_volume({"f": self.DATA}, "vmfs5")
        cut = SparseImage(1 << 30, [piece for piece in device.pieces if piece[0] + len(piece[1]) <= 1 << 30])
        with Image.open(cut) as image:
            assert image.partitions[1].files["f"].read_bytes() == self.DATA
            assert any("what is there of its devices ends before them" in str(problem) for problem in image.problems)

    def test_vmfs_3_has_no_shift(self) -> None:
        self.changed("vmfs3", "file blocks", {0x64: b"\x15" * 64})

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    def test_vmfs_6_without_pointer_blocks_of_their_own(self, kind: VmfsKind) -> None:
        with opened(kind, {"f": VmfsFile(self.DATA, pointers="pointer blocks")}) as (volume, files):
            blocks, _ = volume._opened()
            assert blocks.resources.descriptor(files["f"].token).raw[-2560] & 7 == 2  # to a sub-block
            assert files["f"].read_bytes() == self.DATA
        self.changed(kind, "pointer blocks", {-2560: b"\3"})  # to a pointer block, and there are none

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    @pytest.mark.parametrize("alignment", [8192, 16384])
    def test_vmfs_6_with_metadata_of_another_alignment(self, kind: VmfsKind, alignment: int, tmp_path: Path) -> None:
        tree = {
            name: content
            for name, content in tree_of(kind).items()
            if name.startswith(("small", "sub", "a", "b", "m", "full"))
        }
        size = 8 * EXTENT_SIZE + DATA_OFFSET
        (device,) = vmfs_volume(tree, kind, size=size, hosts=("10.0.0.1", "10.0.0.2"), alignment=alignment)
        path = tmp_path / "aligned.img"
        device.write_to(path)
        command = [require_oracle(), REPOSITORY / "tests" / "dissect_listing.py", path]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        with Image.open(path) as image:
            files = image.partitions[1].files
            assert {name: file.sha256() for name, file in files.items()} == {
                name: entry["sha256"] for name, entry in found.items()
            }
            for name, content in tree.items():
                assert files[name].read_bytes() == expected(content), name
            assert [host.address for host in volume_of(image).active_hosts] == ["10.0.0.1", "10.0.0.2"]

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    def test_entries_behind_the_end_of_a_directory(self, kind: VmfsKind) -> None:
        names = {f"f{number:03}" for number in range(60)}
        (device,) = vmfs_volume(dict.fromkeys(names, b""), kind)
        at = descriptor_place(device, "") + 4096 + 0x14
        size = int.from_bytes(device.read_at(at, 8), "little")
        with Image.open(patched(device, at, (size - 2 * 4096).to_bytes(8, "little"))) as image:
            assert names < set(image.partitions[1].files)
            assert any("2 of its blocks of entries lie behind its end" in str(problem) for problem in image.problems)

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    def test_sub_blocks_behind_a_block_of_pointers(self, kind: VmfsKind) -> None:
        data = data_of("f", 5 * 65536 + 7)

        def forge(table: bytes) -> tuple[SparseImage, int, bytes, bytes]:
            files: dict[str, Content] = {
                name: VmfsFile(content, pointers="sub-blocks") for name, content in (("f", data), ("table", table))
            }
            (device,) = vmfs_volume(files, kind)
            place = descriptor_place(device, "f")
            first = descriptor_place(device, "table") + 8192 - 2560
            return device, place, device.read_at(place + 8192 - 2560, 2560), device.read_at(first, 8)

        _, _, pointers, _ = forge(bytes(65536))
        device, place, again, pointer = forge(pointers.ljust(65536, b"\0"))
        assert again == pointers
        device = patched(device, place + 8192 - 2560, pointer.ljust(2560, b"\0"))
        with Image.open(patched(device, place + 4096 + 0x44, b"\3")) as image:
            assert image.partitions[1].files["f"].read_bytes() == data

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    @pytest.mark.parametrize("pointers", ["pointer blocks", "double"])
    def test_vmfs_6_with_pointer_blocks_of_their_own(self, kind: VmfsKind, pointers: Pointers) -> None:
        self.changed(kind, pointers, {}, own=True)


class TestDamage:
    TREE: ClassVar[dict[str, Content]] = {
        "good.bin": data_of("good", 5000),
        "bad.bin": VmfsFile(size=3 * BLOCK, pieces=((0, b"1"), (BLOCK, b"2")), pointers="pointer blocks"),
        "folder/inner": b"inner",
    }

    def check(self, device: SparseImage, *, says: str, lost: tuple[str, ...] = ("bad.bin",)) -> None:
        """One file is lost, with a report or an error that says why; every other one is as it was."""
        said: list[str] = []
        with Image.open(device) as image:
            files = image.partitions[1].files
            for name, content in self.TREE.items():
                try:
                    found = files[name].read_bytes()
                    _ = files[name].extents
                except (CorruptImage, PathNotFound) as error:
                    said.append(str(error))
                    found = b"lost"
                assert found == expected(content) or name in lost, said
            said += map(str, image.problems)
        assert any(says in text for text in said), said

    @EVERY
    def test_a_descriptor_of_another_file(self, kind: VmfsKind) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        at = descriptor_place(device, "bad.bin") + (4096 if is_6(kind) else 512)
        self.check(patched(device, at, b"\xff" * 4), says="bad.bin: address")

    @EVERY
    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [
            ("type", 9, "type 9 is not known"),
            ("pointer_type", 0x77, "pointers of type 0x77 are not known"),
            ("size", 1 << 62, "more than its pointers reach"),
        ],
    )
    def test_a_field_of_a_descriptor(self, kind: VmfsKind, field: str, value: int, says: str) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        at = descriptor_place(device, "bad.bin") + (4096 if is_6(kind) else 512)
        metadata = FileMetadata.parse(device.read_at(at, FileMetadata.length()))
        changed = replace(metadata, **{field: value})  # type: ignore[arg-type]  # all three are numbers
        damaged = patched(device, at, changed.build())
        if field == "size":
            with Image.open(damaged) as image:
                file = image.partitions[1].files["bad.bin"]
                assert file.size == value
                with pytest.raises(CorruptImage, match=says):
                    file.read_at(value - 1, 1)
                with pytest.raises(CorruptImage, match=says):
                    _ = file.extents
            return
        self.check(damaged, says=says)

    @EVERY
    @pytest.mark.parametrize("pointer", [0x3FFFFFC1, 0xFFFFFFFF, 0x06, 0xFFFFFFC3])
    def test_a_pointer(self, kind: VmfsKind, pointer: int) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        at = descriptor_place(device, "bad.bin") + (8192 - 2560 if is_6(kind) else 1024)
        width = 8 if is_6(kind) else 4
        value = pointer | (0x7FFFFFF << 32 if is_6(kind) else 0)
        self.check(patched(device, at, value.to_bytes(width, "little")), says="VMFS")

    @EVERY
    def test_a_directory_in_itself(self, kind: VmfsKind) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        with Image.open(device) as image:
            root = image.partitions[1].files.root
            ((first, length),) = [(e.offset, e.length) for e in locate(volume_of(image), 4)]
            assert root.get("folder") is not None
        data = device.read_at(first, length)
        entry = data.index(b"folder\0") - (24 if is_6(kind) else 12)
        damaged = patched(device, first + entry + 4, (4).to_bytes(4, "little"))
        self.check(damaged, says="'folder' is '/' again", lost=("folder/inner",))

    @EVERY
    def test_a_file_of_more_data_than_the_volume(self, kind: VmfsKind) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        place = descriptor_place(device, "bad.bin")
        at, width, count = (place + 8192 - 2560, 8, 320) if is_6(kind) else (place + 1024, 4, 256)
        pointer = device.read_at(at, width)
        with Image.open(device) as image:  # all its blocks of pointers are the first one, which is full of one block
            volume = volume_of(image)
            blocks, _ = volume._opened()
            number = int.from_bytes(pointer, "little")
            run_ = blocks.locate_table(number)
            assert run_.start is not None
            table = run_.start + DATA_OFFSET
        size = 65536 if is_6(kind) else 4096
        full = device.read_at(table, width) * (size // width)
        damaged = SparseImage(
            device.size, [*((o, d) for o, d in device.pieces if not table <= o < table + size), (table, full)]
        )
        metadata_at = place + (4096 if is_6(kind) else 512)
        metadata = FileMetadata.parse(device.read_at(metadata_at, FileMetadata.length()))
        huge = replace(metadata, size=count * (size // width) * BLOCK)
        damaged = patched(patched(damaged, at, pointer * count), metadata_at, huge.build())
        with Image.open(damaged) as image, pytest.raises(CorruptImage, match="more data than the volume"):
            _ = image.partitions[1].files["bad.bin"].extents

    @EVERY
    def test_the_file_of_descriptors_is_gone(self, kind: VmfsKind) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        at = (0x700000 if is_6(kind) else 0x400000) + DATA_OFFSET
        with Image.open(patched(device, at, bytes(32))) as image:
            assert len(image.partitions[1].files) == 0
            assert any("neither in its usual place" in problem.message for problem in image.problems)

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    def test_a_directory_without_its_map(self, kind: VmfsKind) -> None:
        (device,) = vmfs_volume({**self.TREE, **{f"f{number:03}": b"" for number in range(60)}}, kind)
        with Image.open(device) as image:
            (extent,) = locate(volume_of(image), 4)
        damaged = patched(device, extent.offset + 0x10000, bytes(64))
        with Image.open(damaged) as image:
            assert len([name for name in image.partitions[1].files if name.startswith("f0")]) == 60
            assert any("no map of its blocks" in problem.message for problem in image.problems)

    @pytest.mark.parametrize("kind", ["vmfs6", "vmfs-l"])
    @pytest.mark.parametrize(("field", "value"), [(0, 0), (0, 0x2001), (0x20, 0)])
    def test_the_size_of_clusters_is_gone(self, kind: VmfsKind, field: int, value: int) -> None:
        (device,) = vmfs_volume(self.TREE, kind)
        with Image.open(device) as image:
            ((first, _),) = [(e.offset, e.length) for e in locate(volume_of(image), FBB)]
        child = int.from_bytes(device.read_at(first + 0x34, 4), "little")
        damaged = patched(device, first + child + field, value.to_bytes(4, "little"))
        self.check(damaged, says="512 is taken", lost=())

    @EVERY
    @given(data=st.data())
    def test_any_damage_to_metadata(self, kind: VmfsKind, data: st.DataObject) -> None:
        """A result or `CorruptImage`, whatever is in headers, resource files, descriptors and directories."""
        device = small_volume(kind)
        damaged = device
        for _ in range(data.draw(st.integers(1, 4))):
            start, piece = data.draw(st.sampled_from(device.pieces))
            offset = data.draw(st.integers(0, len(piece) - 1))
            value = data.draw(st.binary(min_size=1, max_size=8))[: len(piece) - offset]
            damaged = patched(damaged, start + offset, value)
        read_all(damaged)

    @EVERY
    @given(data=st.data())
    def test_cut_anywhere(self, kind: VmfsKind, data: st.DataObject) -> None:
        device = small_volume(kind)
        size = data.draw(st.integers(0, device.size))
        kept = [(start, piece[: size - start]) for start, piece in device.pieces if start < size]
        read_all(SparseImage(size, kept))


@cache
def small_volume(kind: VmfsKind) -> SparseImage:
    tree: dict[str, Content] = {**TestDamage.TREE, "link": VmfsLink("good.bin"), "raw": VmfsRawDevice(5)}
    return vmfs_volume(tree, kind, size=EXTENT_SIZE + DATA_OFFSET)[0]


def read_all(device: SparseImage) -> None:
    """Read what there is; only errors of the library may come out."""
    with Image.open(device) as image:
        try:
            for partition in image.partitions:
                for file in partition.files.values():
                    try:
                        file.read_at(0, min(file.size, 4 * BLOCK))
                        _ = file.extents
                    except CorruptImage:
                        continue
                volume = partition.volume
                if isinstance(volume, VmfsVolume):
                    assert isinstance(volume.links, dict)
                partition.explain()
        except (CorruptImage, NotAFileSystem):
            pass
        _ = image.problems


def locate(volume: VmfsVolume, address: int) -> tuple[Extent, ...]:
    return volume.locate(address)


@EVERY
def test_ten_thousand_files_are_listed_with_few_reads(kind: VmfsKind) -> None:
    tree: dict[str, Content] = {f"{n // 1000}/{n:05}.log": b"" for n in range(10_000)}
    (device,) = vmfs_volume(tree, kind, size=4 * EXTENT_SIZE + DATA_OFFSET)
    source = Counting(device)
    with Image.open(source) as image:
        files = image.partitions[1].files
        source.reads.clear()
        assert sum(1 for name in files if name.endswith(".log")) == 10_000
        # Descriptors come in parts of clusters, directories in blocks of entries.
        assert len(source.reads) < 10_000 / 32 + 1500
        source.reads.clear()
        assert files["7/07123.log"].size == 0
        assert len(source.reads) == 0


def test_one_file_reads_only_the_directories_on_the_way() -> None:
    tree: dict[str, Content] = {f"{n // 100}/{n:04}.log": b"%d" % n for n in range(3000)}
    (device,) = vmfs_volume(tree, "vmfs6")
    source = Counting(device)
    with Image.open(source) as image:
        files = image.partitions[1].files
        source.reads.clear()
        assert files["7/0777.log"].read_bytes() == b"777"
        assert len(source.reads) < 70
        assert sum(length for _, length in source.reads) < 10 << 20


def test_many_threads_read_one_volume() -> None:
    tree = {f"f{n}": VmfsFile(data_of(str(n), 70_000), pointers="file blocks") for n in range(40)}
    with opened("vmfs6", dict(tree)) as (_, files), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: files[f"f{n % 40}"].read_bytes() == data_of(str(n % 40), 70_000), range(400)))
    assert found == [True] * 400


def test_extraction(tmp_path: Path) -> None:
    tree: dict[str, Content] = {"vm/vm.log": b"log", "vm/sparse": VmfsFile(size=50 * BLOCK, pieces=((7, b"x"),))}
    with opened("vmfs6", tree) as (_, files):
        written = files.extract(tmp_path / "out")
    assert {path.relative_to(tmp_path / "out").as_posix() for path in written} >= {"vm/vm.log", "vm/sparse"}
    sparse = tmp_path / "out" / "vm" / "sparse"
    assert sparse.stat().st_size == 50 * BLOCK
    with sparse.open("rb") as file:
        assert file.read(10) == b"\0\0\0\0\0\0\0x\0\0"


def test_local_kinds_are_local() -> None:
    for kind in LOCAL_KINDS:
        with opened(kind, {"f": b"x"}) as (volume, files):
            assert volume.kind == "vmfs-l"
            assert files["f"].read_bytes() == b"x"
