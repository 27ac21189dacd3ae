"""What is in a partition that holds no hypervisor's volume: as blkid tells it, and what it looks like."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import math
import random
import re
import sqlite3
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Counting, run
from tests.test_partitions import Recorder
from vmvisor_image import CorruptImage, Image, InvalidArgument, NotAFileSystem, Role, inspect
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.examine.survey import entropy, find_strings, survey
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.reading import find_data, skip_zeros
from vmvisor_image.streams.sources import BytesSource, FileSource
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.testing.forge_machines import ForgedSnapshot, vmsd_file
from vmvisor_image.volumes.guests.kinds import KINDS, library
from vmvisor_image.volumes.magics import SIGNATURES, match_signature

MIB = 1 << 20


def in_partition(content: bytes | SparseImage, type_code: int = 0x83) -> SparseImage:
    """A disk whose partition 1 holds this."""
    forged = SparseImage(len(content), [(0, content)]) if isinstance(content, bytes) else content
    sectors = -(-forged.size // 512)
    return mbr_disk([ForgedPartition(1, type_code, 2048, sectors, content=forged)], sectors=sectors + 4096)


MAKERS: dict[str, tuple[int, list[str]]] = {
    "ext2": (8, ["mke2fs", "-q", "-t", "ext2"]),
    "ext3": (16, ["mke2fs", "-q", "-t", "ext3"]),
    "ext4": (16, ["mke2fs", "-q", "-t", "ext4"]),
    "ntfs": (8, ["mkntfs", "-q", "-F", "-f"]),
    "exfat": (8, ["mkfs.exfat"]),
    "xfs": (320, ["mkfs.xfs", "-q"]),
    "btrfs": (128, ["mkfs.btrfs", "-q"]),
    "swap": (1, ["mkswap"]),
    "crypto_LUKS": (
        32,
        ["cryptsetup", "luksFormat", "--batch-mode", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32"],
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_file_systems_as_blkid_names_them(tmp_path: Path, kind: str) -> None:
    size, command = MAKERS[kind]
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(size * MIB)
    run(*command, path, stdin="secret")
    [found] = re.findall(r' TYPE="([^"]*)"', run("blkid", "-p", path))
    with contextlib.closing(FileSource(path)) as source:
        match = match_signature(source)
        assert match is not None
        assert match.kind == found == kind
        assert source.read_at(match.offset, len(match.magic)) == match.magic
    with Image.open(path) as image:
        assert (image.scheme, image.partitions[1].kind) == ("none", kind)
    disk = tmp_path / "disk"
    head = in_partition(b"").read_at(0, MIB)
    with disk.open("wb") as file:
        entry = struct.pack("<BBHBBHII", 0, 0, 0, 0x83, 0, 0, 2048, size * 2048)
        file.write(head[:446] + entry + head[462:])
        file.write(path.read_bytes())
    with Image.open(disk) as image:
        partition = image.partitions[1]
        assert (partition.kind, partition.role) == (kind, Role.UNKNOWN)
        assert f"at byte {MIB + match.offset:#x}" in partition.explain()
        if kind in KINDS and library() is not None:
            assert [entry.name for entry in partition.files.root] == (["lost+found"] if "ext" in kind else [])
        else:
            with pytest.raises(NotAFileSystem, match=kind):
                _ = partition.files


def test_squashfs_and_iso(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("a")
    squashed, iso = tmp_path / "tree.sqfs", tmp_path / "tree.iso"
    run("mksquashfs", tree, squashed, "-quiet", "-no-progress")
    run("xorriso", "-as", "mkisofs", "-quiet", "-o", iso, tree)
    for path, kind in ((squashed, "squashfs"), (iso, "iso9660")):
        assert f'TYPE="{kind}"' in run("blkid", "-p", path)
        with Image.open(path) as image:
            assert image.partitions[1].kind == kind


def tar_of(path: Path) -> bytes:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return path.read_bytes()


CONTAINERS: dict[str, Callable[[Path], bytes]] = {
    "gzip": lambda path: gzip.compress(b"x"),
    "bzip2": lambda path: bz2.compress(b"x"),
    "xz": lambda path: lzma.compress(b"x"),
    "zstd": lambda path: zstandard.ZstdCompressor().compress(b"x"),
    "tar": tar_of,
    "elf": lambda path: Path("/proc/self/exe").read_bytes()[:4096],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers(tmp_path: Path, kind: str) -> None:
    with Image.open(in_partition(CONTAINERS[kind](tmp_path / "file"))) as image:
        assert image.partitions[1].kind == kind


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda signature: f"{signature.kind} at {signature.offset:#x}")
def test_each_magic_is_found_where_it_belongs_and_nowhere_else(signature: object) -> None:
    from vmvisor_image.examine.signatures import Signature

    assert isinstance(signature, Signature)
    content = bytearray(0x24000)
    for at, value in ((signature.offset, signature.magic), *signature.also):
        content[at : at + len(value)] = value
    found = match_signature(BytesSource(content))
    assert found is not None
    assert found.offset == signature.offset
    moved = match_signature(BytesSource(b"\x01" + bytes(content)))
    assert moved is None or moved.offset != signature.offset


def test_content_that_ends_before_a_magic() -> None:
    for size in (0, 1, 511, 0x438, 5000):
        assert match_signature(BytesSource(bytes(size))) is None


def database() -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (c)")
        return connection.serialize()


class TestNoDisk:
    """What is no disk is told as what it most likely is, by every command, and never read as one in silence."""

    @pytest.mark.parametrize("kind", ["vdi", "parallels", "qed", "qcow"])
    @pytest.mark.parametrize("command", ["info", "ls", "verify"])
    def test_virtual_disks_that_qemu_img_makes(
        self, tmp_path: Path, kind: str, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "disk"
        run("qemu-img", "create", "-q", "-f", kind, path, "4M")
        assert json.loads(run("qemu-img", "info", "--output", "json", path))["format"] == kind
        with pytest.raises(CorruptImage, match="is not read: make a raw disk of it") as raised:
            Image.open(path)
        assert kind in str(raised.value).lower()
        assert main([command, str(path)]) == 1
        assert "is not read" in capsys.readouterr().err

    @pytest.mark.parametrize("data", ["bzip2", "zlib", "raw"])
    def test_an_apple_disk_image_by_its_end(self, tmp_path: Path, data: str) -> None:
        content = {"bzip2": bz2.compress(bytes(MIB)), "zlib": zlib.compress(bytes(MIB)), "raw": bytes(MIB)}[data]
        trailer = (b"koly" + struct.pack(">II", 4, 512)).ljust(512, b"\0")
        path = tmp_path / "disk.dmg"
        path.write_bytes(content + trailer)
        with pytest.raises(CorruptImage, match=r"Apple disk image \(DMG\) is not read"):
            Image.open(path)

    @pytest.mark.parametrize(
        ("magic", "name", "tool"),
        [
            (b"EVF\x09\x0d\x0a\xff\0", "E01", "ewfexport"),
            (b"EVF2\x0d\x0a\x81\0", "Ex01", "ewfexport"),
            (b"AFF10\r\n\0", "AFF", "affconvert"),
        ],
    )
    def test_evidence_files(self, magic: bytes, name: str, tool: str) -> None:
        with pytest.raises(CorruptImage, match=rf"\({name}\) is not read.*{tool}"):
            Image.open(magic + bytes(4096))

    @pytest.mark.parametrize(
        ("content", "likeness", "by_file"),
        [
            (b"hello\n", "text", "ASCII text"),
            ("größer ".encode() * 2000, "text", "UTF-8"),
            ("größer".encode("utf-16"), "text", "UTF-16"),
            (b"%PDF-1.7\n" + bytes(range(256)) * 40, "PDF", "PDF"),
            (b"Rar!\x1a\x07\1\0" + bytes(600), "RAR", "RAR"),
            (b"MSCF\0\0\0\0" + bytes(600), "cabinet", "Cabinet"),
            (b"MSWIM\0\0\0" + bytes(600), "WIM", "WIM"),
            (database(), "SQLite", "SQLite"),
            (b"MRVN\1\0\0\0" + bytes(4096), "VMware NVRAM", "VMware nvram"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(600), "JPEG", "JPEG"),
            (bytes(4096), "zeros", "data"),
            (random.Random(1).randbytes(20_000), "noise", ""),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_other_files_as_file_names_them(
        self, tmp_path: Path, content: bytes, likeness: str, by_file: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(content)
        assert by_file in run("file", "-b", path)
        with Image.open(path) as image:
            assert list(image.partitions) == []
            [problem] = image.problems
            assert "most likely" in problem.message
            assert likeness in problem.message
        for command in ("info", "ls", "verify"):
            assert main([command, str(path)]) == 1
            assert likeness in "".join(capsys.readouterr())

    @pytest.mark.parametrize("magic", [0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2, 0xBED0BED0, 0xBED2BED0])
    def test_saved_states_of_machines(self, magic: int) -> None:
        """Numbers as crash(8)'s vmware_vmss.h and Volatility's documentation have them; file(1) knows none of them."""
        with Image.open(struct.pack("<III", magic, 8, 1) + b"cpu".ljust(80, b"\0") + bytes(4096)) as image:
            [problem] = image.problems
            assert "most likely VMware suspended state or snapshot" in problem.message

    def test_a_list_of_snapshots(self) -> None:
        taken = datetime(2024, 5, 6, tzinfo=UTC)
        with Image.open(vmsd_file([ForgedSnapshot(1, "x", taken)])) as image:
            [problem] = image.problems
            assert "most likely the list of a virtual machine's snapshots (.vmsd)" in problem.message

    def test_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", sys.executable]) == 1
        assert "ELF program" in capsys.readouterr().err

    def test_what_nothing_is_known_of(self) -> None:
        for content in (b"", b"\1\2\3", b"\1\2\3\xff" * 4096):
            with Image.open(content) as image:
                [problem] = image.problems
                assert "most likely" not in problem.message

    @pytest.mark.parametrize("label", ["dos", "gpt"])
    def test_an_empty_table_is_a_disk(self, tmp_path: Path, label: str, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk"
        with path.open("wb") as file:
            file.truncate(MIB)
        run("sfdisk", "-q", path, stdin=f"label: {label}\n")
        assert main(["info", str(path)]) == 0
        assert capsys.readouterr().err == ""

    def test_ls_names_partitions_without_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk"
        in_partition(b"LUKS\xba\xbe" + bytes(4096)).write_to(path)
        assert main(["ls", str(path)]) == 0
        assert capsys.readouterr().out == "Partition 1  (crypto_LUKS): no files that can be read\n"


class TestEmptyOrUnknown:
    def test_all_zeros_and_one_that_is_not(self) -> None:
        for content, kind in ((bytes(4 * MIB), "empty"), (bytes(3 * MIB) + b"\x01" + bytes(511), "unknown")):
            with Image.open(in_partition(content)) as image:
                partition = image.partitions[1]
                assert (partition.kind, partition.role) == (kind, Role.UNKNOWN)
                assert ("it is all zeros" in partition.explain()) == (kind == "empty")

    def test_noise_is_no_guess(self) -> None:
        with Image.open(in_partition(random.Random(5).randbytes(MIB))) as image:
            partition = image.partitions[1]
            assert partition.kind == "unknown"
            assert [item.statement for item in partition.evidence] == ["its entry has type Linux (0x83)"]


class TestZerosThatNeedNoReading:
    def test_holes_of_a_sparse_file_are_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse"
        with path.open("wb") as file:
            file.truncate(1 << 40)
            file.seek((1 << 39) + 5)
            file.write(b"x")
        with contextlib.closing(FileSource(path)) as source:
            assert find_data(source, 0, 1 << 40) == (1 << 39) + 5
            assert find_data(source, 0, 1 << 39) is None
            assert skip_zeros(source, (1 << 39) + MIB, 1 << 40) == 1 << 40
            assert source.read_at(0, 1) == b"\0"

    def test_a_partition_past_the_end_of_a_file_is_told(self, tmp_path: Path) -> None:
        disk = mbr_disk([ForgedPartition(1, 6, 8192, 6000)], sectors=16000)
        path = tmp_path / "cut.dd"
        path.write_bytes(disk.read_at(0, 80_000))
        report = inspect(path)
        assert [partition.kind for partition in report.partitions] == ["unknown"]
        assert any("past the end of the disk" in str(problem) for problem in report.problems)

    def test_what_the_bzip2_index_knows_is_not_decoded_again(self, tmp_path: Path) -> None:
        path, index = tmp_path / "disk.bz2", tmp_path / "index"
        noise = random.Random(1).randbytes(2 * MIB)
        path.write_bytes(bz2.compress(noise + bytes(200 * MIB) + noise))
        with contextlib.closing(FileSource(path)) as source:
            reader = Bzip2Reader(source, index=index)
            assert reader.size == 204 * MIB
            reader.close()
            again = Bzip2Reader(source, index=index)
            try:
                found = find_data(again, 4 * MIB, 200 * MIB)
                assert found is None
                # The one with the end of the noise, the next, into which the last read of it crosses, and the one in
                # which the zeros end; the others are known to be zeros.
                assert again.stats.blocks_decoded <= 3
                assert find_data(again, 4 * MIB, 204 * MIB) == 202 * MIB
            finally:
                again.close()

    def test_an_unused_core_dump_partition(self, tmp_path: Path) -> None:
        path, index = tmp_path / "disk.bz2", tmp_path / "index"
        disk = mbr_disk([ForgedPartition(1, 0xFC, 2048, 225248)], sectors=2048 + 225248)
        disk.write_bz2(path)
        with Image.open(path, index=index) as image:
            assert image.size == disk.size
        with Image.open(path, index=index) as image:
            partition = image.partitions[1]
            before = decoded(image)
            assert "all zeros" in partition.explain()
            assert decoded(image) - before <= 2
            assert (partition.kind, partition.role) == ("vmkcore", Role.COREDUMP)


def decoded(image: Image) -> int:
    reader = image.layers[0].source
    assert isinstance(reader, Bzip2Reader)
    return reader.stats.blocks_decoded


class TestCoreDumps:
    @pytest.mark.parametrize(
        ("content", "compressed"),
        [
            (gzip.compress(random.Random(2).randbytes(3 * MIB), mtime=0), True),
            (b"a page of memory, mostly text. " * 90000, False),
        ],
        ids=["compressed", "text"],
    )
    def test_a_used_one_tells_how_much_and_what_it_looks_like(self, content: bytes, compressed: bool) -> None:
        forged = SparseImage(16 * MIB, [(5 * MIB, content)])
        with Image.open(in_partition(forged, 0xFC)) as image:
            partition = image.partitions[1]
            usage = partition.volume.usage()  # type: ignore[union-attr]  # a diagnostic partition
            assert usage.first == 5 * MIB
            assert 5 * MIB + len(content) <= usage.end < 5 * MIB + len(content) + 65536
            assert usage.used == usage.end - usage.first
            assert usage.looks_compressed is compressed
            text = partition.explain()
            assert ("looks compressed" in text) is compressed
            assert f"{MIB + 5 * MIB:#x}" in text
            assert "not publicly described" in text

    @pytest.mark.parametrize("used", [True, False])
    def test_is_read_once(self, used: bool) -> None:
        forged = SparseImage(16 * MIB, [(5 * MIB, b"a page of memory")] if used else [])
        disk = Counting(in_partition(forged, 0xFC))
        report = inspect(disk)
        assert (report.partitions[0].core_dump is not None) == used
        assert sum(length for _, length in disk.reads) < 20 * MIB


def python_entropy(data: bytes) -> float:
    return -sum(p * math.log2(p) for p in (data.count(bytes((b,))) / len(data) for b in set(data))) if data else 0.0


class TestSurvey:
    @given(st.binary(max_size=2000))
    def test_entropy(self, data: bytes) -> None:
        assert entropy(data) == pytest.approx(python_entropy(data), abs=1e-9)

    def test_of_blocks(self) -> None:
        data = bytes(8192) + random.Random(3).randbytes(8192) + b"ab" * 4096
        found = survey(BytesSource(data), blocks=3, sample=None)
        assert found.block_size == 8192
        assert [round(value or 0, 1) for value in found.entropies] == [0.0, 8.0, 1.0]
        assert found.zero_blocks == 1
        assert found.zero_ratio == pytest.approx(1 / 3)

    def test_reads_no_more_than_the_samples(self) -> None:
        source = Recorder(random.Random(4).randbytes(MIB))
        found = survey(source, blocks=16, sample=512, exact=False)
        assert sum(length for _, length in source.reads) == 2 * 16 * 512
        assert len(found.entropies) == 16

    def test_what_cannot_be_read_is_none(self) -> None:
        """A partition that goes on past the end of the disk."""
        disk = in_partition(random.Random(6).randbytes(64 * 512))
        data = bytearray(disk.read_at(0, disk.size))
        data[446 + 12 : 446 + 16] = (1 << 20).to_bytes(4, "little")
        with Image.open(bytes(data)) as image:
            found = image.partitions[1].survey(blocks=8)
            assert found.entropies[-1] is None
            assert image.partitions[1]._repr_html_()

    @pytest.mark.parametrize(("blocks", "sample"), [(0, 1), (1, 0)])
    def test_misuse(self, blocks: int, sample: int) -> None:
        with pytest.raises(InvalidArgument):
            survey(BytesSource(b"x"), blocks=blocks, sample=sample)


class TestStrings:
    @given(st.lists(st.one_of(st.binary(max_size=20), st.text("ab \t~", max_size=20).map(str.encode)), max_size=30))
    def test_are_what_a_pattern_finds(self, parts: list[bytes]) -> None:
        data = b"".join(parts)
        expected = [(m.start(), m.group().decode()) for m in re.finditer(rb"[\t\x20-\x7e]{4,}", data)]
        assert list(find_strings(BytesSource(data), minimum=4)) == expected

    def test_over_the_border_of_two_reads(self) -> None:
        data = bytes(MIB - 3) + b"across the border" + bytes(50) + b"the end"
        assert list(find_strings(BytesSource(data))) == [(MIB - 3, "across the border"), (MIB + 64, "the end")]

    def test_a_run_longer_than_a_read_comes_in_pieces(self) -> None:
        found = list(find_strings(BytesSource(b"x" * (3 * MIB + 7))))
        assert "".join(text for _, text in found) == "x" * (3 * MIB + 7)
        assert [offset for offset, _ in found] == [sum(len(text) for _, text in found[:n]) for n in range(len(found))]

    def test_as_strings_of_binutils_gives_them(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        data = Path("/proc/self/exe").read_bytes()[: 4 * MIB]
        path.write_bytes(data)
        listed = run("strings", "-a", "-n", "6", "-t", "d", path).splitlines()
        expected = [(int(line[:7]), line[8:]) for line in listed]
        assert list(find_strings(BytesSource(data), minimum=6)) == expected

    def test_of_a_partition(self) -> None:
        with Image.open(in_partition(bytes(100) + b"printable" + bytes(2000))) as image:
            assert list(image.partitions[1].strings()) == [(100, "printable")]
