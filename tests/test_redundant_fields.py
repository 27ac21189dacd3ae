"""Fields that are told twice, or belong to nothing: `verify` tells where they differ, as other programs do."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.support import require_tool, run
from tools.judges.disks import repair_vhd, repair_vhdx
from vmvisor_image import CorruptImage, Image, VerificationReport, open_archive, verify
from vmvisor_image.streams.sources import BytesSource

ENTRY = 32
LONG_NAME = "A rather long name.text"


def fails(tool: str, *arguments: str | Path) -> bool:
    """Whether a program refuses what it is given, or says that something is wrong with it."""
    command = [require_tool(tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if "fsck.fat 4" not in line and " files, " not in line]
    return done.returncode != 0 or (tool == "fsck.fat" and bool(told))


def of_disk(report: VerificationReport) -> list[str]:
    """Problems of the layers, not of what is in the disk."""
    return [str(problem) for layer in report.layers for problem in layer.problems]


class TestFat:
    @pytest.fixture
    def volume(self, tmp_path: Path) -> bytearray:
        """A label and an empty file with a long name in the root directory."""
        path = tmp_path / "volume.img"
        run("mkfs.fat", "-F", "12", "-n", "LABEL", "-i", "12345678", "-C", path, "200")
        (tmp_path / LONG_NAME).touch()
        run("mcopy", "-i", path, tmp_path / LONG_NAME, "::")
        return bytearray(path.read_bytes())

    @staticmethod
    def root(volume: bytearray) -> int:
        unit, _, reserved, fats, _, _, _, per_fat = struct.unpack_from("<HBHBHHBH", volume, 11)
        return int(unit * (reserved + fats * per_fat))

    def check(self, volume: bytearray, tmp_path: Path, message: str, *, by_fsck: bool = True) -> None:
        path = tmp_path / "damaged.img"
        path.write_bytes(volume)
        report = verify(path)
        assert any(message in str(problem) for problem in report.problems), report.problems
        assert fails("fsck.fat", "-n", path) == by_fsck
        with Image.open(path) as image:
            assert list(image.partitions[1].files) is not None
            assert image.problems == ()  # nothing that is shown is less for it

    def test_a_sound_one(self, volume: bytearray, tmp_path: Path) -> None:
        path = tmp_path / "volume.img"
        assert verify(path).is_sound
        assert not fails("fsck.fat", "-n", path)
        assert volume[self.root(volume) + ENTRY + 11] == 0x0F

    @pytest.mark.parametrize("name", [b".", b".."])
    def test_an_entry_of_dots_where_none_belongs(self, volume: bytearray, tmp_path: Path, name: bytes) -> None:
        free = self.root(volume) + 4 * ENTRY  # behind the label, two parts of a long name and its short one
        assert not any(volume[free : free + ENTRY])
        volume[free : free + 12] = name.ljust(11) + b"\x10"
        self.check(volume, tmp_path, f"the root directory has an entry {name.decode()!r} where none belongs")

    @pytest.mark.parametrize(("field", "value"), [(12, 1), (26, 1), (11, 0x4F)])
    def test_fields_of_a_part(self, volume: bytearray, tmp_path: Path, field: int, value: int) -> None:
        volume[self.root(volume) + ENTRY + field] = value
        self.check(volume, tmp_path, "fields of a part that must be 0 are not 0")

    def test_parts_without_a_name(self, volume: bytearray, tmp_path: Path) -> None:
        volume[self.root(volume) + 3 * ENTRY] = 0xE5
        self.check(volume, tmp_path, "2 parts belong to no entry")

    def test_a_label_in_the_place_of_a_file(self, volume: bytearray, tmp_path: Path) -> None:
        volume[self.root(volume) + 3 * ENTRY + 11] = 0x08
        self.check(volume, tmp_path, "a label besides the first one", by_fsck=False)

    def test_a_label_with_a_size(self, volume: bytearray, tmp_path: Path) -> None:
        volume[self.root(volume) + 28] = 1
        self.check(volume, tmp_path, "the label 'LABEL' has a size, 1")

    def test_entries_behind_the_end(self, volume: bytearray, tmp_path: Path) -> None:
        at = self.root(volume) + ENTRY
        volume[at : at + ENTRY] = bytes(ENTRY)
        self.check(volume, tmp_path, "entries follow its end mark")

    def test_characters_behind_the_end_of_a_name(self, volume: bytearray, tmp_path: Path) -> None:
        at = self.root(volume) + 2 * ENTRY + 1  # the name's first character: of the part that is the last on disk
        volume[at + 2 : at + 4] = bytes(2)
        self.check(volume, tmp_path, "characters follow its end", by_fsck=False)


def xz_with_a_false_index() -> bytes:
    """One block of four bytes, which the index says has none."""
    data = bytearray(lzma.compress(b"data", check=lzma.CHECK_CRC32))
    at = len(data) - 12 - (int.from_bytes(data[-8:-4], "little") + 1) * 4
    assert data[at : at + 2] == b"\0\1"
    assert data[at + 3] == 4
    data[at + 3] = 0
    data[-16:-12] = zlib.crc32(data[at:-16]).to_bytes(4, "little")
    return bytes(data)


def zstd_with_a_false_size() -> bytes:
    """A frame whose header says that it has no bytes; one of its blocks has."""
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=False).compress(b"data"))
    assert frame[4:6] == b"\x20\x04"  # a segment, whose size is one byte (RFC 8878, 3.1.1.1)
    frame[5] = 0
    return bytes(frame)


@pytest.mark.parametrize(("tool", "data"), [("xz", xz_with_a_false_index()), ("zstd", zstd_with_a_false_size())])
def test_a_part_that_is_said_to_be_empty_and_is_not(tool: str, data: bytes, tmp_path: Path) -> None:
    behind = lzma.compress(b"-" * 600) if tool == "xz" else zstandard.compress(b"-" * 600)
    path = tmp_path / f"data.{'xz' if tool == 'xz' else 'zst'}"
    path.write_bytes(behind + data + behind)
    assert fails(tool, "-t", path)
    try:
        assert of_disk(verify(path))
    except CorruptImage as error:
        assert tool in str(error)  # noqa: PT017  # either way is right


def test_a_block_that_takes_its_index_for_data(tmp_path: Path) -> None:
    """The filter holds bytes back, so that nothing more comes out of the block."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
    data = bytearray(lzma.compress(b"-", check=lzma.CHECK_NONE, filters=filters))
    at = data.index(b"\1\0\0-")
    data[at + 2] = 0xFF  # the chunk has 256 bytes, and not one
    path = tmp_path / "data.xz"
    path.write_bytes(data)
    assert fails("xz", "-t", path)
    try:
        assert any("xz" in str(problem) for problem in verify(path).problems)
    except CorruptImage as error:
        assert "xz" in str(error)  # noqa: PT017  # either way is right


@pytest.mark.parametrize(("padding", "is_sound"), [(bytes(1), True), (bytes(70_000), True), (b"\0\0x", False)])
def test_gzip_may_end_in_zeros(padding: bytes, is_sound: bool, tmp_path: Path) -> None:
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(b"-" * 600, mtime=0) + padding)
    assert fails("gzip", "-t", path) != is_sound
    assert (not of_disk(verify(path))) == is_sound


@pytest.mark.parametrize("option", ["-1", "-X", "-fd"])
def test_names_of_a_zip_in_utf_8_that_does_not_say_so(option: str, tmp_path: Path) -> None:
    names = ["a", "größe.txt", "日本語"]
    for each in names:
        (tmp_path / each).write_text(each)
    subprocess.run(
        [require_tool("zip"), "-q", option, "a.zip", *names],
        cwd=tmp_path,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
        check=True,
    )
    archive = open_archive(BytesSource((tmp_path / "a.zip").read_bytes()))
    assert list(archive) == names
    assert archive.problems == ()
    listed = subprocess.run(
        [require_tool("zipinfo"), "-1", tmp_path / "a.zip"], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True
    )
    assert listed.stdout.decode().split() == names


def test_the_local_header_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    subprocess.run([require_tool("zip"), "-q", "-r", "a.zip", "folder"], cwd=tmp_path, check=True)
    path = tmp_path / "a.zip"
    data = bytearray(path.read_bytes())
    assert open_archive(BytesSource(bytes(data))).problems == ()
    data[30] = ord("g")
    path.write_bytes(data)
    archive = open_archive(BytesSource(bytes(data)))
    assert [member.path for member in archive.members] == ["folder"]
    assert ["one with another name" in problem.message for problem in archive.problems] == [True]
    assert fails("unzip", "-tqq", path)


def test_a_zip_directory_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for each in "abc":
            archive.writestr(each, each)
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\1\2")
    data[first + 32 : first + 34] = b"\xff\xff"  # the length of the first one's comment
    path.write_bytes(data)
    found = open_archive(BytesSource(bytes(data)))
    assert [member.path for member in found.members] == ["a"]
    assert "1 members are in it, its end record counts 3" in str(found.problems)
    assert fails("zipinfo", path)


def test_a_zip_whose_comment_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "a")
        archive.comment = b"comment"
    assert open_archive(BytesSource(path.read_bytes())).problems == ()
    path.write_bytes(path.read_bytes()[:-3])
    found = open_archive(BytesSource(path.read_bytes()))
    assert [member.path for member in found.members] == ["a"]
    assert "the comment in its end record passes the end" in str(found.problems)


def disk(tmp_path: Path, form: str, suffix: str, *options: str) -> bytearray:
    raw = tmp_path / "raw"
    raw.write_bytes(b"-" * (1 << 20))
    path = tmp_path / f"disk.{suffix}"
    run("qemu-img", "convert", "-f", "raw", "-O", form, *options, raw, path)
    assert not of_disk(verify(path))
    return bytearray(path.read_bytes())


def told_of(tmp_path: Path, suffix: str, data: bytearray) -> str:
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(data)
    try:
        report = verify(path)
        return " | ".join([*of_disk(report), *(bad.message for bad in report.bad_ranges)])
    except CorruptImage as error:
        return str(error)


def flip(at: int, mask: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        data[at] ^= mask

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip(40 + 7, 1), "l1_table_offset"),
        (flip(100 + 1, 0xFF), "it says that it has"),
        (flip(0x30007, 1), "L1 table at byte 0x30000: entry 0x8000000000040001 has reserved bits set"),
        (flip(0x40007, 2), "L2 table at byte 0x40000: entry 0x8000000000050002 has reserved bits set"),
    ],
)
def test_qcow2(damage: Callable[[bytearray], None], message: str, tmp_path: Path) -> None:
    data = disk(tmp_path, "qcow2", "qcow2")
    damage(data)
    assert message in told_of(tmp_path, "qcow2", data)
    assert fails("qemu-img", "check", "-f", "qcow2", tmp_path / "damaged.qcow2")


def test_qcow2_of_version_2_has_no_clusters_of_zeros(tmp_path: Path) -> None:
    data = disk(tmp_path, "qcow2", "qcow2", "-o", "compat=0.10")
    data[0x40007] |= 1
    assert "version 2 does not have" in told_of(tmp_path, "qcow2", data)
    assert fails("qemu-img", "convert", "-O", "raw", tmp_path / "damaged.qcow2", tmp_path / "out")


def test_qcow2_with_subclusters_that_are_there_and_zeros(tmp_path: Path) -> None:
    data = disk(tmp_path, "qcow2", "qcow2", "-o", "extended_l2=on")
    data[0x40008:0x40010] = b"\xff" * 8
    assert "subclusters are allocated and also zeros" in told_of(tmp_path, "qcow2", data)
    assert fails("qemu-img", "convert", "-O", "raw", tmp_path / "damaged.qcow2", tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message", "by_qemu"),
    [
        (None, "it has no CID", False),  # qemu-img takes that of the parent
        (flip(4, 4), "version 5 is not known", True),
        (flip(65, 0xFF), "its grains begin past the end of the source", True),
    ],
)
def test_vmdk(damage: Callable[[bytearray], None] | None, message: str, by_qemu: bool, tmp_path: Path) -> None:
    data = disk(tmp_path, "vmdk", "vmdk")
    if damage is None:
        at = data.index(b"CID=")
        data[at : at + 3] = b"XYZ"
    else:
        damage(data)
    assert message in told_of(tmp_path, "vmdk", data)
    assert fails("qemu-img", "info", "-f", "vmdk", tmp_path / "damaged.vmdk") == by_qemu


def test_what_qemu_leaves_behind_a_descriptor(tmp_path: Path) -> None:
    disk(tmp_path, "vmdk", "vmdk", "-o", "subformat=monolithicFlat")
    path = tmp_path / "disk.vmdk"
    text = path.read_bytes().rstrip(b"\0")
    path.write_bytes(text + b"\0\0heap".ljust(-len(text) % 512, b"\1"))
    assert not of_disk(verify(path))
    path.write_bytes((text + b"\0\nRW 8 ZERO").ljust(512, b"\0"))
    with pytest.raises(CorruptImage, match="goes on behind a NUL"):
        Image.open(path)


def test_vmdk_has_two_tables_that_agree(tmp_path: Path) -> None:
    data = disk(tmp_path, "vmdk", "vmdk")
    second, first = struct.unpack_from("<QQ", data, 48)
    for directory in (first, second):
        damaged = bytearray(data)
        table = int.from_bytes(data[directory * 512 : directory * 512 + 4], "little")
        damaged[table * 512] ^= 0x80
        assert "second copy of table 0 differs" in told_of(tmp_path, "vmdk", damaged)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip(40, 1), "its copy at the start differs from it"),
        (flip(512 + 24 + 1, 1), "versions of header and footer"),
        (flip(512 + 28, 1), "table of 16777217 entries passes the end"),
        (flip(1536, 1), "passes the end"),
        (flip(1536 + 3, 4), "lies in the headers or the table"),
    ],
)
def test_vhd(damage: Callable[[bytearray], None], message: str, tmp_path: Path) -> None:
    data = disk(tmp_path, "vpc", "vhd", "-o", "force_size=on")
    damage(data)
    if 512 <= data.index(b"cxsparse") < 1536:
        repair_vhd(data)
    assert message in told_of(tmp_path, "vhd", data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip(0x20000 + 66, 2), "versions 3 and 0, not 1 and 0"),
        (flip(0x30000 + 16 + 27, 0xFF), "it overlaps another one, passes the end, or is not a whole number of MiB"),
        (flip(0x300000 + 32, 1), "an item that a reader has to know is not known"),
    ],
)
def test_vhdx(damage: Callable[[bytearray], None], message: str, tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    newest = max((0x10000, 0x20000), key=lambda at: int.from_bytes(data[at + 8 : at + 16], "little"))
    if newest == 0x10000:
        data[0x10000:0x11000], data[0x20000:0x21000] = data[0x20000:0x21000], data[0x10000:0x11000]
    start = int.from_bytes(data[0x30010 + 16 : 0x30010 + 24], "little")
    metadata = next(
        at
        for at in (start, int.from_bytes(data[0x30030 + 16 : 0x30030 + 24], "little"))
        if data[at : at + 8] == b"metadata"
    )
    if "item" in message:
        data[metadata + 32] ^= 1
    else:
        damage(data)
    repair_vhdx(data)
    assert message in told_of(tmp_path, "vhdx", data)
    if "versions" not in message:  # which qemu-img does not look at
        assert fails("qemu-img", "info", "-f", "vhdx", tmp_path / "damaged.vhdx")


@pytest.mark.parametrize("place", [0, 0xFFF8, 0x410008, 0xFFFFFFF8])
def test_a_vhdx_item_that_lies_elsewhere(place: int, tmp_path: Path) -> None:
    """The size of the disk would be taken from any bytes."""
    data = disk(tmp_path, "vhdx", "vhdx")
    size = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
    data[data.index(size) + 16 : data.index(size) + 20] = place.to_bytes(4, "little")
    assert "is not in its region" in told_of(tmp_path, "vhdx", data)
    assert fails("qemu-img", "info", "-f", "vhdx", tmp_path / "damaged.vhdx")


def test_a_vhdx_without_an_item_that_every_disk_has(tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    identifier = bytes.fromhex("ab12cabee6b2234593efc309e000c746")
    at = data.index(identifier)
    data[at : at + 32] = bytes(32)
    assert "the item of the disk's identifier is missing" in told_of(tmp_path, "vhdx", data)
    assert fails("qemu-img", "info", "-f", "vhdx", tmp_path / "damaged.vhdx")


def test_a_vhdx_item_with_reserved_bits(tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    data[data.index(bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")) + 29] = 0x80
    assert "bits of an item that must be 0 are not 0" in told_of(tmp_path, "vhdx", data)


def test_a_vhdx_item_of_another_length(tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    data[data.index(bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")) + 22] = 0x20
    assert f"an item has {8 + (0x20 << 16)} bytes, not 8" in told_of(tmp_path, "vhdx", data)
    with Image.open(bytes(data)) as image:
        assert image.size == 1 << 20


def test_a_vhdx_of_no_bytes(tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    size = data.index((1 << 20).to_bytes(8, "little"), data.index(b"metadata") + 65536 + 8)
    data[size : size + 8] = bytes(8)
    assert "the disk has no bytes" in told_of(tmp_path, "vhdx", data)
    assert fails("qemu-img", "info", "-f", "vhdx", tmp_path / "damaged.vhdx")


def test_a_vhdx_of_more_than_64_tib(tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    metadata = data.index(b"metadata")
    size = data.index((1 << 20).to_bytes(8, "little"), metadata + 65536)
    data[size + 7] = 2
    assert "larger than the largest allowed" in told_of(tmp_path, "vhdx", data)


def test_a_vhdx_block_of_no_known_state(tmp_path: Path) -> None:
    data = disk(tmp_path, "vhdx", "vhdx")
    region = next(at for at in (0x30010, 0x30030) if data[at : at + 4] == bytes.fromhex("6677c22d"))
    table = int.from_bytes(data[region + 16 : region + 24], "little")
    assert data[table] & 7 == 6
    data[table] ^= 2
    assert "its state is 4" in told_of(tmp_path, "vhdx", data)
    assert fails("qemu-img", "convert", "-f", "vhdx", "-O", "raw", tmp_path / "damaged.vhdx", tmp_path / "out")
