"""File systems of guests: read as those who made them, and as fls, icat, debugfs and ntfs-3g read them."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import os
import pickle
import random
import re
import signal
import struct
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import http_server
from tests.support import Counting, Unreadable, in_child, run, run_to_file
from tests.test_unknown_content import in_partition
from vmvisor_image import (
    ClosedError,
    CorruptImage,
    Image,
    LimitExceeded,
    Limits,
    NotAFileSystem,
    PartialExtraction,
    WorkerFailed,
    inspect,
    verify,
)
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume
from vmvisor_image.volumes.guests import kinds, plugin, process, worker
from vmvisor_image.volumes.guests.kinds import KINDS
from vmvisor_image.volumes.guests.labels import label_of
from vmvisor_image.volumes.guests.volume import _SYSTEMS, GuestVolume

pytest.importorskip("pytsk3", reason="the extra 'guests' is not installed")

MIB = 1 << 20
START = 2048 * 512
TIME = 1_200_000_000
"""Modification time of every file that is put into a file system."""
CONTENT: dict[str, bytes] = {
    "etc/hostname": b"guest1\n",
    "etc/empty": b"",
    "var/log/big": random.Random(1).randbytes(300_001),
    "\u00fcn\u00ef \u00a9 long name of a file.txt": b"x" * 5000,
    **{f"many/file number {number}": b"%d\n" % number for number in range(150)},
}
SPARSE = (b"start", 6 * MIB, b"end")
"""Content of the sparse file: bytes at its start, length of the hole, bytes at its end."""


def make_tree(folder: Path) -> Path:
    """A folder with all of `CONTENT`, a sparse file, a hard link, symbolic links and a pipe."""
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with (folder / "var/sparse").open("wb") as file:
        file.write(SPARSE[0])
        file.seek(SPARSE[1], os.SEEK_CUR)
        file.write(SPARSE[2])
    (folder / "etc/again").hardlink_to(folder / "var/log/big")
    (folder / "etc/link").symlink_to("../var/log/big")
    (folder / "etc/nowhere").symlink_to("/no/such" + "/folder" * 20)
    for path in folder.rglob("*"):
        os.utime(path, (TIME - 50, TIME), follow_symlinks=False)
    return folder


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each regular file of a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def empty_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def make_ext(kind: str, tree: Path, path: Path, *options: str) -> Path:
    run("mke2fs", "-q", "-t", kind, *options, "-d", tree, empty_file(path, 16 * MIB))
    return path


def make_ntfs(tree: Path, path: Path) -> Path:
    """By wimlib, which writes into an NTFS volume with libntfs-3g and without the kernel."""
    wim = path.with_suffix(".wim")
    run("wimlib-imagex", "capture", tree, wim, "--compress=none", "--quiet")
    run("mkntfs", "-q", "-F", "-f", empty_file(path, 24 * MIB))
    run("wimlib-imagex", "apply", wim, "1", path, "--quiet")
    return path


def make_ufs(tree: Path, path: Path, *options: str) -> Path:
    run("makefs", "-t", "ffs", "-s", f"{16 * MIB}", *options, path, tree)
    return path


def make_hfs(tree: Path, path: Path, *options: str) -> Path:
    """The HFS+ volume that xorriso puts around the files of a CD."""
    disc = path.with_suffix(".iso")
    run("xorriso", "-as", "mkisofs", "-quiet", "-hfsplus", "-input-charset", "utf-8", *options, "-o", disc, tree)
    data = disc.read_bytes()
    headers = [found.start() for found in re.finditer(re.escape(b"H+\0\4"), data) if found.start() % 512 == 0]
    first, last = headers[0], headers[-1]  # the second one is 1024 bytes before the volume's end
    path.write_bytes(data[first - 1024 : last + 1024])
    return path


MAKERS: dict[str, tuple[str, Callable[[Path, Path], Path]]] = {
    "ext2": ("ext2", lambda tree, path: make_ext("ext2", tree, path)),
    "ext3": ("ext3", lambda tree, path: make_ext("ext3", tree, path)),
    "ext4": ("ext4", lambda tree, path: make_ext("ext4", tree, path)),
    "ext4 with 4 KiB blocks": ("ext4", lambda tree, path: make_ext("ext4", tree, path, "-b", "4096")),
    "ext4 with files in inodes": (
        "ext4",
        lambda tree, path: make_ext("ext4", tree, path, "-O", "inline_data", "-I", "256"),
    ),
    "NTFS": ("ntfs", make_ntfs),
    "UFS1": ("ufs", lambda tree, path: make_ufs(tree, path, "-B", "little")),
    "UFS1, big-endian": ("ufs", lambda tree, path: make_ufs(tree, path, "-B", "big")),
    "HFS+": ("hfsplus", make_hfs),
}


@pytest.fixture(scope="module")
def made(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a file system by its name in `MAKERS`, made once."""
    folder = tmp_path_factory.mktemp("made")
    found: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in found:
            found[name] = MAKERS[name][1](tree, folder / re.sub(r"\W", "-", name))
        return found[name]

    return make


def disk_of(path: Path) -> SparseImage:
    """A disk whose partition 1 holds a file system."""
    return in_partition(path.read_bytes())


def guest(image: Image, number: int = 1) -> GuestVolume:
    volume = image.partitions[number].volume
    assert isinstance(volume, GuestVolume)
    return volume


def sums(image: Image) -> dict[str, str]:
    return {path: file.sha256() for path, file in image.partitions[1].files.items()}


@pytest.mark.parametrize("name", MAKERS)
class TestEachFileSystem:
    def test_every_file_is_as_it_was_put_in(self, name: str, made: Callable[[str], Path], tree: Path) -> None:
        kind, _ = MAKERS[name]
        wanted = files_of(tree)
        if name == "ext4 with files in inodes":  # e2fsprogs 1.47 cuts a sparse file short there
            del wanted["var/sparse"]
        with Image.open(disk_of(made(name))) as image:
            partition = image.partitions[1]
            assert partition.kind == kind
            found = sums(image)
            assert {path: found[path] for path in wanted} == wanted
            assert found.keys() - wanted.keys() <= {"var/sparse"}
            assert partition.files["etc/hostname"].read_bytes() == b"guest1\n"
            assert {partition.files[path].modified for path in wanted} == {
                datetime.fromtimestamp(TIME, UTC).replace(tzinfo=None)
            }
            assert guest(image).links["etc/link"].replace("\\", "/") == "../var/log/big"
            assert guest(image).links["etc/nowhere"].replace("\\", "/").endswith("/no/such" + "/folder" * 20)
            assert partition.files["etc/again"].extents == partition.files["var/log/big"].extents
            assert partition.problems == ()

    def test_fls_lists_the_same(self, name: str, made: Callable[[str], Path]) -> None:
        listed = run("fls", "-r", "-p", "-u", made(name)).splitlines()
        theirs = {unicodedata.normalize("NFC", line.partition(":\t")[2]) for line in listed if line.startswith("r/r")}
        with Image.open(disk_of(made(name))) as image:
            volume = guest(image)
            ours = set(image.partitions[1].files) | volume.streams.keys() | volume.system_files.keys()
            ours |= volume.links.keys() if name == "NTFS" else set()  # for fls they are files
        own = {path for path in theirs if path.startswith("$")}
        assert ours - {path for path in ours if path.startswith("$")} == theirs - own
        if name == "NTFS":
            assert {path for path in own if ":" not in path and "/" not in path} <= ours

    def test_icat_reads_the_same(self, name: str, made: Callable[[str], Path], tmp_path: Path) -> None:
        with Image.open(disk_of(made(name))) as image:
            for path in ("etc/hostname", "var/log/big", "many/file number 77"):
                file = image.partitions[1].files[path]
                run_to_file(tmp_path / "content", "icat", made(name), str(file.token[0]))
                assert (tmp_path / "content").read_bytes() == file.read_bytes()

    def test_extents_are_where_it_lies(self, name: str, made: Callable[[str], Path]) -> None:
        disk = disk_of(made(name))
        with Image.open(disk) as image:
            file = image.partitions[1].files["var/log/big"]
            data = b"".join(disk.read_at(extent.offset, extent.length) for extent in file.extents)
            assert data == CONTENT["var/log/big"]
            assert all(extent.offset >= START for extent in file.extents)

    def test_it_can_be_extracted(self, name: str, made: Callable[[str], Path], tmp_path: Path) -> None:
        with Image.open(disk_of(made(name))) as image:
            image.partitions[1].files.extract(tmp_path / "out", "etc/**", "many/**")
        for path, data in CONTENT.items():
            if path.startswith(("etc/", "many/")):
                assert (tmp_path / "out" / path).read_bytes() == data

    def test_any_damage_ends_in_files_or_an_error(self, name: str, made: Callable[[str], Path]) -> None:
        """Bytes of the metadata are changed; what comes out is files, problems, or an error of this library."""
        whole = made(name).read_bytes()
        chance = random.Random(name)
        places = [at for at in range(0, len(whole), 512) if any(whole[at : at + 512])]
        places = places[: len(places) // 3]  # where the metadata is, mostly
        for _ in range(4):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 40)):
                at = chance.choice(places) + chance.randrange(512)
                damaged[at] = chance.choice([0, 0xFF, chance.randrange(256)])
            with Image.open(in_partition(bytes(damaged))) as image:
                partition = image.partitions[1]
                if partition.kind != MAKERS[name][0]:
                    continue
                with contextlib.suppress(CorruptImage):
                    for file in list(partition.files.values())[:20]:
                        with contextlib.suppress(CorruptImage):
                            file.read_at(0, min(file.size, MIB))
                _ = partition.problems


class TestExt:
    def test_holes_cost_nothing(self, made: Callable[[str], Path]) -> None:
        source = Counting(disk_of(made("ext4")))
        with Image.open(source) as image:
            file = image.partitions[1].files["var/sparse"]
            assert file.size == len(SPARSE[0]) + SPARSE[1] + len(SPARSE[2])
            assert file.read_at(0, 10) == b"start" + bytes(5)
            end = file.skip_zeros(8192, file.size)
            assert file.size - end <= 4096
            source.reads.clear()
            assert file.read_at(MIB, 4 * MIB) == bytes(4 * MIB)
            assert source.reads == []
            assert sum(extent.length for extent in file.extents) < 64 << 10

    def test_blocks_that_were_never_written_are_zeros(self, tree: Path, tmp_path: Path) -> None:
        """debugfs reserves blocks; what is in them is not the file's."""
        path = tmp_path / "volume"
        path.write_bytes(b"\xee" * (16 * MIB))
        run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard", path)
        commands = "write /dev/null reserved\nfallocate reserved 0 63\nset_inode_field reserved size 65536\n"
        run("debugfs", "-w", "-f", "-", path, stdin=commands)
        with Image.open(in_partition(path.read_bytes())) as image:
            assert image.partitions[1].files["reserved"].read_bytes() == bytes(65536)

    def test_names_that_are_not_text(self, tmp_path: Path) -> None:
        folder = tmp_path / "tree"
        folder.mkdir()
        for name in (b"\xff\xfe", b"new\nline", b"back\\slash", b"colon:name", b"con"):
            (folder / os.fsdecode(name)).write_bytes(name)
        path = make_ext("ext4", folder, tmp_path / "volume")
        with Image.open(in_partition(path.read_bytes())) as image:
            files = image.partitions[1].files
            assert {file.read_bytes(): os.fsencode(file.name) for file in files.values()} == {
                name: name for name in (b"\xff\xfe", b"new\nline", b"back\\slash", b"colon:name", b"con")
            }

    def test_deleted_files_are_not_listed(self, tree: Path, tmp_path: Path) -> None:
        path = make_ext("ext4", tree, tmp_path / "volume")
        run("debugfs", "-w", "-R", "rm /etc/hostname", path)
        with Image.open(in_partition(path.read_bytes())) as image:
            assert "etc/hostname" not in image.partitions[1].files
            assert image.partitions[1].files["etc/empty"].size == 0
            assert image.partitions[1].problems == ()

    def test_times_and_owners_as_debugfs_sets_them(self, tree: Path, tmp_path: Path) -> None:
        path = make_ext("ext4", tree, tmp_path / "volume")
        times = {
            "mtime": "20400101123456",
            "atime": "19990102030405",
            "ctime": "20200102030405",
            "crtime": "20100102030405",
        }
        commands = [f"set_inode_field /etc/hostname {name} {value}" for name, value in times.items()]
        commands += [f"set_inode_field /etc/hostname {name} {value}" for name, value in (("uid", 1000), ("gid", 65534))]
        run("debugfs", "-w", "-f", "-", path, stdin="\n".join([*commands, "sif /etc/hostname mode 0104751"]))
        with Image.open(in_partition(path.read_bytes())) as image:
            file = image.partitions[1].files["etc/hostname"]
            assert file.modified == datetime(2040, 1, 1, 12, 34, 56)
            found = file.attributes
            assert found is not None
            assert (found.accessed, found.changed, found.created) == (
                datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC),
                datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
                datetime(2010, 1, 2, 3, 4, 5, tzinfo=UTC),
            )
            assert (found.mode, found.owner, found.group, found.type_bits) == (0o4751, 1000, 65534, 0o100000)

    def test_what_is_neither_file_nor_link(self, tree: Path, tmp_path: Path) -> None:
        path = make_ext("ext4", tree, tmp_path / "volume")
        run("debugfs", "-w", "-f", "-", path, stdin="mknod pipe p\nmknod null c 1 3\nmknod sda b 8 0\n")
        with Image.open(in_partition(path.read_bytes())) as image:
            list(image.partitions[1].files.root)
            found = [(other.column, other.path) for other in guest(image).others]
            assert sorted(found) == [("device", "null"), ("device", "sda"), ("pipe", "pipe")]

    def test_a_journal_that_was_not_replayed_is_told(self, tree: Path, tmp_path: Path) -> None:
        path = make_ext("ext4", tree, tmp_path / "volume")
        run("debugfs", "-w", "-R", "feature needs_recovery", path)
        with Image.open(in_partition(path.read_bytes())) as image:
            assert image.partitions[1].files["etc/hostname"].size == 7
            [problem] = image.partitions[1].problems
            assert str(problem) == (
                f"partition 1 (ext4) at byte {START + 1024:#x}: the journal is not replayed: the guest did not unmount"
                " it, and its last changes may be missing"
            )

    def test_a_directory_in_itself_is_left_out(self, tree: Path, tmp_path: Path) -> None:
        path = make_ext("ext4", tree, tmp_path / "volume")
        run("debugfs", "-w", "-R", "link /var /var/log/up", path)
        with Image.open(in_partition(path.read_bytes())) as image:
            assert "var/log/big" in image.partitions[1].files
            assert len(image.partitions[1].files) == len(CONTENT) + 2
            [problem] = image.partitions[1].problems
            assert "'var/log/up' is 'var' again and is left out" in problem.message

    def test_blocks_outside_of_the_file_system(self, tree: Path, tmp_path: Path) -> None:
        path = make_ext("ext2", tree, tmp_path / "volume")
        run("debugfs", "-w", "-R", "set_inode_field /etc/hostname block[0] 99999999", path)
        with Image.open(in_partition(path.read_bytes())) as image:
            files = image.partitions[1].files
            with pytest.raises(CorruptImage, match=r"partition 1 \(ext2\)"):
                files["etc/hostname"].read_bytes()
            assert files["var/log/big"].read_bytes() == CONTENT["var/log/big"]


class TestNtfs:
    def test_streams_and_system_files(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        path = tmp_path / "volume"
        path.write_bytes(made("NTFS").read_bytes())
        (tmp_path / "stream").write_bytes(b"[ZoneTransfer]\r\n" * 300)
        run("ntfscp", "-N", "Zone.Identifier", path, tmp_path / "stream", "etc/hostname")
        with Image.open(in_partition(path.read_bytes())) as image:
            partition, volume = image.partitions[1], guest(image)
            assert partition.files["ETC/HostName"].read_bytes() == b"guest1\n"
            assert volume.streams["etc/hostname:Zone.Identifier"].read_bytes() == b"[ZoneTransfer]\r\n" * 300
            assert "etc/hostname:Zone.Identifier, 4800 bytes" in [other.text for other in volume.others]
            assert not [path for path in partition.files if path.startswith("$") or ":" in path]
            run_to_file(tmp_path / "mft", "icat", path, "0")
            assert volume.system_files["$MFT"].read_bytes() == (tmp_path / "mft").read_bytes()

    def test_ntfs_3g_lists_the_same(self, made: Callable[[str], Path]) -> None:
        listed = run("ntfsls", "-p", "/many", made("NTFS")).splitlines()
        with Image.open(disk_of(made("NTFS"))) as image:
            many = image.partitions[1].files.root / "many"
            assert {entry.name for entry in many.iterdir()} == set(listed) - {".", ".."}

    def test_one_directory_does_not_cost_the_whole_table(self, tmp_path: Path) -> None:
        folder = tmp_path / "tree"
        (folder / "few").mkdir(parents=True)
        (folder / "few/one").write_bytes(b"1")
        (folder / "many").mkdir()
        for number in range(3000):
            (folder / f"many/{number}").write_bytes(b"")
        source = Counting(in_partition(make_ntfs(folder, tmp_path / "volume").read_bytes()))
        with Image.open(source) as image:
            files = image.partitions[1].files
            assert files["few/one"].read_bytes() == b"1"
            assert sum(length for _, length in source.reads) < MIB
            assert len(list((files.root / "many").iterdir())) == 3000
            assert sum(length for _, length in source.reads) > 3 * MIB

    def test_a_torn_block_of_an_index(self) -> None:
        block = bytearray(4096)
        struct.pack_into("<4sHH", block, 0, b"INDX", 40, 9)
        struct.pack_into("<18s", block, 40, bytes([7, 0] + [1] * 16))
        for end in range(512, 4097, 512):
            block[end - 2 : end] = b"\7\0"
        mended = worker._without_fixups(bytes(block), b"INDX")
        assert [mended[end - 2 : end] for end in range(512, 4097, 512)] == [b"\1\1"] * 8
        block[1022] = 9
        assert worker._without_fixups(bytes(block), b"INDX") == b""
        assert worker._without_fixups(b"none", b"INDX") == b""
        assert list(worker._index_entries(b"", 24)) == list(worker._index_entries(bytes(4096), 24)) == [worker._TORN]

    def test_what_was_never_written_is_zeros(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        """Windows makes files longer without writing them; ntfscat reads such a file, too."""
        path = tmp_path / "volume"
        data = bytearray(made("NTFS").read_bytes())
        with Image.open(made("NTFS")) as image:
            number = image.partitions[1].files["var/log/big"].token[0]
            [table] = guest(image).system_files["$MFT"].extents[:1]
        record = table.offset + number * 1024
        at = record + int.from_bytes(data[record + 20 : record + 22], "little")
        while int.from_bytes(data[at : at + 4], "little") != 0x80:
            at += int.from_bytes(data[at + 4 : at + 8], "little")
        assert int.from_bytes(data[at + 56 : at + 64], "little") == len(CONTENT["var/log/big"])
        data[at + 56 : at + 64] = (100_000).to_bytes(8, "little")
        path.write_bytes(data)
        wanted = CONTENT["var/log/big"][:100_000] + bytes(len(CONTENT["var/log/big"]) - 100_000)
        run_to_file(tmp_path / "content", "ntfscat", path, "var/log/big")
        assert (tmp_path / "content").read_bytes() == wanted
        with Image.open(path) as image:
            assert image.partitions[1].files["var/log/big"].read_bytes() == wanted
        found = {file.path: dict(file.hashes)["sha256"] for file in verify(path).partitions[0].files}
        assert found["var/log/big"] == hashlib.sha256(wanted).hexdigest()

    def test_more_streams_than_a_record_has_room_for(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        path = tmp_path / "volume"
        path.write_bytes(made("NTFS").read_bytes())
        streams = {f"stream {number}": random.Random(number).randbytes(200 * number) for number in range(1, 25)}
        for name, content in streams.items():
            (tmp_path / "stream").write_bytes(content)
            run("ntfscp", "-N", name, path, tmp_path / "stream", "var/log/big")
        with Image.open(path) as image:
            assert image.partitions[1].files["var/log/big"].read_bytes() == CONTENT["var/log/big"]
            found = guest(image).streams
            assert {name: found[f"var/log/big:{name}"].read_bytes() for name in streams} == streams


def exfat_entries(name: str, first: int, size: int, valid: int) -> bytes:
    """The directory entries of a file in one run of clusters (Microsoft, exFAT specification, 7.4 to 7.7)."""
    units = name.encode("utf-16-le")
    name_sum = 0
    for byte in name.upper().encode("utf-16-le"):
        name_sum = ((name_sum >> 1 | (name_sum & 1) << 15) + byte) & 0xFFFF
    flags, length = 3 if size else 1, len(units) // 2
    stream = struct.pack("<BBBBHHQIIQ", 0xC0, flags, 0, length, name_sum, 0, valid, 0, first, size)
    names = [b"\xc1\0" + units[at : at + 30].ljust(30, b"\0") for at in range(0, len(units), 30)]
    stamp = (2024 - 1980) << 25 | 5 << 21 | 1 << 16 | 12 << 11
    head = struct.pack("<BBHHHIIIBBBBB7x", 0x85, 1 + len(names), 0, 0x20, 0, stamp, stamp, stamp, 0, 0, 0, 0, 0)
    entries = bytearray(head + stream + b"".join(names))
    check = 0
    for place, byte in enumerate(entries):
        if place not in (2, 3):
            check = ((check >> 1 | (check & 1) << 15) + byte) & 0xFFFF
    entries[2:4] = check.to_bytes(2, "little")
    return bytes(entries)


def with_exfat_files(volume: bytes, files: dict[str, tuple[bytes, int]]) -> bytes:
    """An empty exFAT volume with files: the bytes of their clusters, and how many of these count as written."""
    made = bytearray(volume)
    heap, _, root = struct.unpack_from("<III", made, 88)
    sector, cluster = 1 << made[108], 1 << made[108] + made[109]

    def place(number: int) -> int:
        return int(heap) * sector + (number - 2) * cluster

    at = place(root)
    start = 0
    while made[at]:
        if made[at] == 0x81:  # the bitmap of clusters
            start = place(int.from_bytes(made[at + 20 : at + 24], "little"))
        at += 32
    free = root + 1
    for name, (content, valid) in files.items():
        count = -(-len(content) // cluster)
        made[place(free) : place(free) + len(content)] = content
        for number in range(free - 2, free - 2 + count):
            made[start + number // 8] |= 1 << number % 8
        entries = exfat_entries(name, free if content else 0, len(content), valid)
        made[at : at + len(entries)] = entries
        at, free = at + len(entries), free + count
    return bytes(made)


class TestExfat:
    @pytest.fixture
    def empty(self, tmp_path: Path) -> bytes:
        path = empty_file(tmp_path / "empty", 8 * MIB)
        run("mkfs.exfat", "-L", "DATA", path)
        return path.read_bytes()

    def test_an_empty_one_has_no_files(self, empty: bytes) -> None:
        with Image.open(in_partition(empty, 7)) as image:
            assert list(image.partitions[1].files) == []
            assert image.partitions[1].kind == "exfat"
            assert {"$ALLOC_BITMAP", "$UPCASE_TABLE"} <= guest(image).system_files.keys()

    def test_files_up_to_what_was_written(self, empty: bytes, tmp_path: Path) -> None:
        """fsck.exfat vouches for what is forged; fls and icat read it, but show what is not the file's."""
        noise = random.Random(1).randbytes(20_000)
        files = {"Hello world, a long name.txt": (b"hello\n", 6), "reserved": (noise, 5000), "empty": (b"", 0)}
        volume = with_exfat_files(empty, files)
        (tmp_path / "volume").write_bytes(volume)
        assert "volume: clean" in run("fsck.exfat", "-n", tmp_path / "volume")
        with Image.open(in_partition(volume, 7)) as image:
            found = image.partitions[1].files
            assert set(found) == files.keys()
            assert found["hello WORLD, a long name.TXT"].read_bytes() == b"hello\n"
            assert found["hello world, a long name.txt"].modified == datetime(2024, 5, 1, 12)
            assert found["reserved"].read_bytes() == noise[:5000] + bytes(15_000)
            assert found["empty"].read_bytes() == b""
            assert [extent.length for extent in found["reserved"].extents] == [5000]


def make_labelled(kind: str, label: str, tree: Path, path: Path) -> Path:
    """A file system with a label, "" for none."""
    if kind.startswith("ext"):
        return make_ext(kind, tree, path, "-L", label)
    if kind == "ntfs":
        run("mkntfs", "-q", "-F", "-f", "-L", label, empty_file(path, 8 * MIB))
    elif kind == "exfat":
        run("mkfs.exfat", *(("-L", label) if label else ()), empty_file(path, 8 * MIB))
    else:
        at = 8192 + 680  # makefs writes no label, and both superblocks to the place of that of UFS1
        data = make_ufs(tree, path, "-o", f"version={kind[-1]}").read_bytes()
        path.write_bytes(data[:at] + label.encode().ljust(32, b"\0") + data[at + 32 :])
    return path


LABELS = [
    *((kind, label) for kind in ("ext2", "ext4") for label in ("rootfs", "sixteen-letters-", "Größe", "")),
    *(("ntfs", label) for label in ("DATA", "Größe 日本", "")),
    *(("exfat", label) for label in ("DATA", "elevenchars", "")),
]


@pytest.mark.parametrize(("kind", "label"), LABELS)
def test_the_label_is_the_one_that_blkid_has(kind: str, label: str, tree: Path, tmp_path: Path) -> None:
    path = make_labelled(kind, label, tree, tmp_path / "made")
    told = run("blkid", "-p", "-o", "value", "-s", "LABEL", path).removesuffix("\n")
    assert told == label
    with Image.open(disk_of(path)) as image:
        assert guest(image).label == (label or None)
        assert image.partitions[1].label == (label or None)
        if label:
            assert image.partitions[label].number == 1


def test_the_label_of_ufs1(tree: Path, tmp_path: Path) -> None:
    """Which blkid does not read."""
    with Image.open(disk_of(make_labelled("ufs1", "rootfs", tree, tmp_path / "made"))) as image:
        assert guest(image).label == "rootfs"


def test_the_label_of_ufs2(tree: Path, tmp_path: Path) -> None:
    """The Sleuth Kit looks for its superblock elsewhere, so that no volume is made of it."""
    path = make_labelled("ufs2", "rootfs", tree, tmp_path / "made")
    told = run("blkid", "-p", "-o", "value", "-s", "LABEL", path).removesuffix("\n")
    superblock = path.read_bytes()[8192:16384]
    for data in (path.read_bytes(), bytes(65536) + superblock):
        assert label_of("ufs", BytesSource(data), 0) == told == "rootfs"


def test_the_label_of_hfs_plus(tree: Path, tmp_path: Path) -> None:
    path = make_hfs(tree, tmp_path / "made", "-V", "Größe")
    told = run("blkid", "-p", "-o", "value", "-s", "LABEL", path).removesuffix("\n")
    with Image.open(disk_of(path)) as image:
        assert guest(image).label == unicodedata.normalize("NFC", told) == "Größe"


@pytest.mark.parametrize("kind", ["ext4", "ntfs", "exfat", "ufs2", "hfsplus"])
def test_a_damaged_place_of_the_label_is_no_label(kind: str, tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "made"
    data = (make_hfs(tree, path) if kind == "hfsplus" else make_labelled(kind, "DATA", tree, path)).read_bytes()
    start = {"ext4": 1024, "hfsplus": 1024, "ufs2": 8192}.get(kind, 0)
    for at in range(start, start + 512, 4):
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\x80\x01\x02"):
            damaged = BytesSource(data[:at] + value + data[at + 4 :])
            found = label_of("ufs" if kind == "ufs2" else kind, damaged, 0)
            assert found is None or isinstance(found, str)
    for end in (0, 1, 513, 1500, 4097, 70000):
        assert label_of("ufs" if kind == "ufs2" else kind, BytesSource(data[:end]), 0) in (None, "DATA", "ISOIMAGE")


def test_a_whole_disk_without_a_table(made: Callable[[str], Path], tree: Path) -> None:
    with Image.open(made("ext3")) as image:
        assert image.scheme == "none"
        assert sums(image) == files_of(tree)


def test_a_datastore_with_a_machine(made: Callable[[str], Path]) -> None:
    """The disk of a virtual machine in a datastore, all the way to a file of the guest."""
    disk = disk_of(made("ext4"))
    store, *_ = vmfs_volume({"vm/vm-flat.vmdk": disk.read_at(0, disk.size)}, "vmfs5", size=EXTENT_SIZE + DATA_OFFSET)
    with Image.open(store) as datastore:
        file = datastore.partitions[1].files["vm/vm-flat.vmdk"]
        with file.open_image() as image:
            assert image.partitions[1].files["etc/hostname"].read_bytes() == b"guest1\n"


def test_behind_a_compression_and_a_url(made: Callable[[str], Path], tmp_path: Path) -> None:
    disk = disk_of(made("ext4"))
    path = tmp_path / "disk.dd.bz2"
    path.write_bytes(bz2.compress(disk.read_at(0, disk.size)))
    with Image.open(path) as image:
        assert image.partitions[1].files["etc/hostname"].read_bytes() == b"guest1\n"
    with http_server() as server:
        server.serve("disk.dd.bz2", path)
        with Image.open(f"{server.url}/disk.dd.bz2") as image:
            assert image.partitions[1].files["etc/hostname"].read_bytes() == b"guest1\n"


class TestTheProcess:
    def test_it_is_started_for_files_alone(self, made: Callable[[str], Path]) -> None:
        disk = disk_of(made("ext4"))
        with Image.open(disk) as image:
            partition = image.partitions[1]
            assert partition.role.value == "unknown"
            assert "at byte 0x100438" in partition.explain()
            assert repr(partition.volume) == "<GuestVolume ext4 at byte 0x100000>"
            _ = (
                partition.label,
                partition.problems,
                partition.evidence,
                partition.records,
                image.problems,
                repr(image),
            )
            assert guest(image).process.identifier is None
            _ = partition.files
            assert guest(image).process.identifier is not None
        report = inspect(disk)
        assert (report.partitions[0].kind, report.partitions[0].files) == ("ext4", ())

    def test_a_directory_costs_little(self, made: Callable[[str], Path]) -> None:
        source = Counting(disk_of(made("ext4")))
        with Image.open(source) as image:
            files = image.partitions[1].files
            source.reads.clear()
            assert len(list(files.root)) == 5
            assert sum(length for _, length in source.reads) <= 512 << 10

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of Unix")
    def test_killed_it_is_an_error_that_names_the_partition(self, made: Callable[[str], Path], tree: Path) -> None:
        with Image.open(disk_of(made("ext4"))) as image:
            files, volume = image.partitions[1].files, guest(image)
            hostname = files["etc/hostname"]
            first = volume.process.identifier
            assert first is not None
            os.kill(first, signal.SIGKILL)
            with pytest.raises(WorkerFailed, match=r"partition 1 \(ext4\) .*was ended by the signal SIGKILL") as caught:
                list((files.root / "many").iterdir())
            assert caught.value.offset == START
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            assert hostname.read_bytes() == b"guest1\n"  # by another process
            assert sums(image) == files_of(tree)
            assert volume.process.identifier not in (None, first)

    def test_it_ends_with_the_image(self, made: Callable[[str], Path]) -> None:
        with Image.open(disk_of(made("ext4"))) as image:
            files, volume = image.partitions[1].files, guest(image)
            list(files.root)
            running = volume.process._running
            assert running is not None
        assert running.process.returncode is not None
        assert volume.process.identifier is None
        with pytest.raises(ClosedError):
            files["etc/hostname"]

    def test_it_ends_when_nobody_has_the_image(self, made: Callable[[str], Path]) -> None:
        image = Image.open(disk_of(made("ext4")))
        list(image.partitions[1].files.root)
        running = guest(image).process._running
        assert running is not None
        del image
        import gc

        gc.collect()
        assert running.process.returncode is not None

    def test_any_number_of_threads(self, made: Callable[[str], Path], tree: Path) -> None:
        wanted = files_of(tree)
        with Image.open(disk_of(made("NTFS"))) as image, ThreadPoolExecutor(8) as pool:
            files = image.partitions[1].files
            found = pool.map(lambda path: (path, files[path].sha256()), [*wanted] * 3)
            assert dict(found) == wanted

    def test_a_forked_child_has_one_of_its_own(self, made: Callable[[str], Path], tree: Path) -> None:
        with Image.open(disk_of(made("NTFS"))) as image:
            files, volume = image.partitions[1].files, guest(image)
            assert files["etc/hostname"].size == 7
            first = volume.process.identifier

            def read() -> bool:
                is_right = volume.process.identifier is None and sums(image) == files_of(tree)
                return is_right and volume.process.identifier not in (None, first)

            assert in_child(read)
            assert volume.process.identifier == first
            assert files["var/log/big"].read_bytes() == CONTENT["var/log/big"]

    def test_files_can_be_sent_to_another_process(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        path = tmp_path / "disk"
        disk_of(made("ext4")).write_to(path)
        with Image.open(path) as image:
            file = pickle.loads(pickle.dumps(image.partitions[1].files["var/log/big"]))
            with contextlib.closing(file.home._owner):
                assert file.read_bytes() == CONTENT["var/log/big"]

    def test_damage_of_the_image_is_reported_as_such(self, made: Callable[[str], Path]) -> None:
        disk = disk_of(made("ext4"))
        with Image.open(disk) as image:
            [extent] = image.partitions[1].files["var/log/big"].extents
        with Image.open(Unreadable(disk, extent.offset + 5, extent.offset + 6)) as image:
            files = image.partitions[1].files
            with pytest.raises(CorruptImage, match=f"test at byte {extent.offset + 5:#x}: it can't be read"):
                files["var/log/big"].read_bytes()
            assert files["etc/empty"].read_bytes() == b""
        with Image.open(disk_of(made("NTFS"))) as image:
            [extent] = image.partitions[1].files["var/log/big"].extents
            at = extent.offset + 9000
        with Image.open(Unreadable(disk_of(made("NTFS")), at, at + 512)) as image:
            files = image.partitions[1].files
            with pytest.raises(CorruptImage, match=r"test at byte .* it can't be read"):
                files["var/log/big"].read_bytes()
            assert files["var/log/big"].read_at(0, 4096) == CONTENT["var/log/big"][:4096]

    def test_an_error_of_the_source_comes_through(self, made: Callable[[str], Path]) -> None:
        class Failing:
            size = 0
            fails = False

            def __init__(self, disk: SparseImage) -> None:
                self.disk, self.size = disk, disk.size

            def read_at(self, offset: int, length: int) -> bytes:
                if self.fails:
                    raise ConnectionResetError("gone")
                return self.disk.read_at(offset, length)

        source = Failing(disk_of(made("NTFS")))
        with Image.open(source) as image:
            files = image.partitions[1].files
            list(files.root)
            source.fails = True
            with pytest.raises(OSError, match="gone"):
                list((files.root / "many").iterdir())
            source.fails = False
            assert files["many/file number 9"].read_bytes() == b"9\n"


FAKE = """
import mmap, time
TSK_IMG_TYPE_EXTERNAL = TSK_FS_TYPE_EXT_DETECT = 0
class Img_Info:
    def __init__(self, url, type):
        pass
class FS_Info:
    def __init__(self, image, offset, type):
        class info:
            root_inum, block_size, block_count = 2, 1024, 100
        self.info, self.image = info, image
    def open_dir(self, inode):
        DIRECTORY
"""


@pytest.mark.parametrize("name", ["ext4", "NTFS"])
def test_sectors_that_can_not_be_read_cost_only_what_is_in_them(name: str, made: Callable[[str], Path]) -> None:
    """The Sleuth Kit reads 64 KiB where it needs a sector; what it does not need may be damaged."""
    disk = disk_of(made(name))
    source = Counting(disk)
    with Image.open(source) as image:
        wanted = sums(image)
    needed = {at for offset, length in source.reads for at in range(offset // 512, -(-(offset + length) // 512))}
    chance = random.Random(1)
    places = sorted(at * 512 for at in needed if START <= at * 512 < START + 4 * MIB)
    costs: list[int] = []
    for at in chance.sample(places, 25):
        with Image.open(Unreadable(disk, at, at + 512)) as image:
            partition = image.partitions[1]
            if partition.kind != MAKERS[name][0]:
                continue
            found, raised = {}, 0
            try:
                files = partition.files
            except CorruptImage:
                continue
            for path, file in files.items():
                try:
                    found[path] = file.sha256()
                except CorruptImage:
                    raised += 1
            assert found.items() <= wanted.items()
            assert len(found) + raised == len(wanted) or partition.problems
            costs.append(len(wanted) - len(found))
    assert sorted(costs)[len(costs) // 2] <= 4  # most sectors cost few files


def test_a_damaged_sector_beside_what_is_needed(made: Callable[[str], Path]) -> None:
    disk = disk_of(made("NTFS"))
    at = START + (12 << 10)  # behind the code that starts the system, and before the master file table
    with Image.open(disk) as image:
        wanted = sums(image)
    with Image.open(Unreadable(disk, at, at + 512)) as image:
        assert sums(image) == wanted
        assert image.partitions[1].problems == ()


class TestLimits:
    @pytest.fixture
    def fake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Puts a library in the place of pytsk3 whose directories do something."""

        def install(code: str) -> None:
            path = tmp_path / "pytsk3.py"
            path.write_text(FAKE.replace("DIRECTORY", code), encoding="utf-8")
            monkeypatch.setattr(process, "library", lambda: str(path))

        return install

    def test_of_time(
        self, fake: Callable[[str], None], made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake("while True: pass")
        monkeypatch.setattr(process, "SECONDS", 0.3)
        with Image.open(disk_of(made("ext4"))) as image:
            with pytest.raises(WorkerFailed, match=r"took longer than 0\.3 seconds"):
                list(image.partitions[1].files.root)
            assert guest(image).process.identifier is None

    def test_of_time_while_it_reads_for_ever(
        self, fake: Callable[[str], None], made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake("while True: self.image.read(0, 512)")
        monkeypatch.setattr(process, "SECONDS", 0.3)
        with (
            Image.open(disk_of(made("ext4"))) as image,
            pytest.raises(WorkerFailed, match="took longer than"),
        ):
            list(image.partitions[1].files.root)

    def test_of_the_operation(self, fake: Callable[[str], None], made: Callable[[str], Path]) -> None:
        fake("while True: pass")
        limits = Limits(seconds=0.5)
        with (
            Image.open(disk_of(made("ext4")), limits=limits) as image,
            pytest.raises(LimitExceeded, match=r"longer than 0\.5 seconds"),
            limits.operation(),
        ):
            list(image.partitions[1].files.root)

    @pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
    def test_of_memory(self, fake: Callable[[str], None], made: Callable[[str], Path]) -> None:
        fake("self.kept = bytearray(3 << 30)")
        with Image.open(disk_of(made("ext4"))) as image:
            assert list(image.partitions[1].files.root) == []
            [problem] = image.partitions[1].problems
            assert "MemoryError" in problem.message

    @pytest.mark.skipif(sys.platform != "linux", reason="limits of Unix")
    def test_it_opens_and_writes_nothing(
        self, fake: Callable[[str], None], made: Callable[[str], Path], tmp_path: Path
    ) -> None:
        fake(f"open({str(tmp_path / 'written')!r}, 'w')")
        with Image.open(disk_of(made("ext4"))) as image:
            assert list(image.partitions[1].files.root) == []
            [problem] = image.partitions[1].problems
            assert "Too many open files" in problem.message
        assert not (tmp_path / "written").exists()

    def test_what_it_prints_is_no_answer(self, fake: Callable[[str], None], made: Callable[[str], Path]) -> None:
        fake("import os; os.write(1, b'x' * 100); print('y' * 100, flush=True); return []")
        with Image.open(disk_of(made("ext4"))) as image:
            assert list(image.partitions[1].files.root) == []

    @pytest.mark.parametrize(
        "code",
        [
            "import os; os._exit(9)",
            "raise SystemExit",
            "self.image.read.__closure__[0].cell_contents(-5, 1 << 40)",
        ],
    )
    def test_whatever_it_does_is_one_error(
        self, fake: Callable[[str], None], made: Callable[[str], Path], code: str
    ) -> None:
        fake(code)
        with Image.open(disk_of(made("ext4"))) as image:
            for _ in range(2):
                with pytest.raises(WorkerFailed, match=r"partition 1 \(ext4\)"):
                    list(image.partitions[1].files.root)


class TestWhatCanNotBeRead:
    """One file system, or one directory, costs nothing else."""

    def broken(self, made: Callable[[str], Path]) -> SparseImage:
        """A file system that can't be opened as partition 1, and a sound one as partition 2."""
        sound = made("ext4").read_bytes()
        damaged = bytearray(sound)
        damaged[1024 + 24 : 1024 + 28] = b"\xff" * 4  # the size of its blocks
        parts = [
            ForgedPartition(
                number, 0x83, 2048 + (number - 1) * 32768, 32768, content=SparseImage(16 * MIB, [(0, bytes(data))])
            )
            for number, data in ((1, damaged), (2, sound))
        ]
        return mbr_disk(parts, sectors=2048 + 2 * 32768)

    def test_one_that_can_not_be_opened(
        self, made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Image.open(self.broken(made)) as image:
            with pytest.raises(CorruptImage, match=r"partition 1 \(ext4\).*The Sleuth Kit can't read it"):
                _ = image.partitions[1].files
            assert image.partitions[2].files["etc/hostname"].read_bytes() == b"guest1\n"
            assert [file.home for file in image.glob("*/etc/hostname")] == [image.partitions[2]]
        self.broken(made).write_to(tmp_path / "disk")
        assert main(["ls", str(tmp_path / "disk")]) == 1
        shown = capsys.readouterr()
        assert "etc/hostname" in shown.out
        assert "The Sleuth Kit can't read it" in " ".join(shown.err.split())
        assert main(["extract", str(tmp_path / "disk"), str(tmp_path / "out")]) == 1
        assert (tmp_path / "out/2/etc/hostname").read_bytes() == b"guest1\n"
        assert verify(tmp_path / "disk").partitions[1].files

    def test_a_directory_that_can_not_be_listed(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        path = tmp_path / "volume"
        path.write_bytes(made("ext2").read_bytes())
        run("debugfs", "-w", "-R", "set_inode_field /many block[0] 99999999", path)
        with Image.open(in_partition(path.read_bytes())) as image:
            partition = image.partitions[1]
            assert len(list(partition.files)) < len(CONTENT)
            assert partition.files["etc/hostname"].read_bytes() == b"guest1\n"
            assert any("many" in problem.message for problem in partition.problems)

    def test_what_was_found_before_the_process_ended_is_extracted(
        self, made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Image.open(disk_of(made("ext4"))) as image:
            list((image.partitions[1].files.root / "many").iterdir())
            [number] = [number for number, path in guest(image)._listed.items() if path == "many"]
        with Image.open(disk_of(made("ext4"))) as image:
            files, ask = image.partitions[1].files, guest(image).process.ask

            def failing(*request: Any) -> tuple[Any, bytes]:
                if request[:2] == ("list", number):
                    raise WorkerFailed("it ended", structure="partition 1 (ext4)", offset=START)
                return ask(*request)

            monkeypatch.setattr(guest(image).process, "ask", failing)
            with pytest.raises(PartialExtraction) as caught:
                files.extract(tmp_path / "out")
            assert [error for _, error in caught.value.failed if isinstance(error, WorkerFailed)]
            assert (tmp_path / "out/etc/hostname").read_bytes() == b"guest1\n"


class TestWithoutTheExtra:
    @pytest.fixture(autouse=True)
    def without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (kinds, plugin):
            monkeypatch.setattr(module, "library", lambda: None)

    def test_the_error_names_it(self, made: Callable[[str], Path]) -> None:
        with Image.open(disk_of(made("ext4"))) as image:
            partition = image.partitions[1]
            assert (partition.kind, partition.volume) == ("ext4", None)
            with pytest.raises(NotAFileSystem) as caught:
                _ = partition.files
        assert str(caught.value) == (
            "partition 1 (ext4) holds no file system that can be read; with the extra for guests they can be:"
            " pip install 'vmvisor-image[guests]'"
        )

    def test_the_command_line_names_it(
        self, made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        disk_of(made("ext4")).write_to(tmp_path / "disk")
        for command in (["ls", "1/"], ["cat", "1/etc/hostname"], ["extract", "1", str(tmp_path / "out")]):
            assert main([command[0], str(tmp_path / "disk"), *command[1:]]) != 0
            assert "pip install 'vmvisor-image[guests]'" in " ".join(capsys.readouterr().err.split())

    @pytest.mark.parametrize(
        ("at", "magic", "said"),
        [
            (0x10040, b"_BHRfS_M", "btrfs"),
            (0, b"XFSB", "xfs"),
            (0, b"LUKS\xba\xbe", "crypto_LUKS: LUKS encrypted volume"),
            (3, b"-FVE-FS-", "BitLocker"),
            (512, b"LABELONE" + bytes(16) + b"LVM2 001", "LVM2_member: physical volume of Linux LVM"),
            (4086, b"SWAPSPACE2", "swap"),
            (0x20000, b"\x0c\xb1\xba\0\0\0\0\0", "zfs_member: member of a ZFS pool"),
        ],
    )
    def test_what_it_does_not_read_is_named(self, at: int, magic: bytes, said: str) -> None:
        content = SparseImage(4 * MIB, [(at, magic)])
        with Image.open(in_partition(content)) as image, pytest.raises(NotAFileSystem) as caught:
            _ = image.partitions[1].files
        assert str(caught.value) == f"partition 1 ({said}) holds no file system that can be read"


def test_verify_reads_the_files(made: Callable[[str], Path], tree: Path) -> None:
    for name in ("ext4", "NTFS"):
        report = verify(disk_of(made(name)))
        wanted = files_of(tree)
        found = {file.path: dict(file.hashes)["sha256"] for file in report.partitions[0].files}
        assert found == wanted
        assert report.is_sound


def test_the_command_line(
    made: Callable[[str], Path], tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    disk_of(made("ext4")).write_to(tmp_path / "disk")
    assert main(["cat", str(tmp_path / "disk"), "1/etc/hostname"]) == 0
    assert capsysbinary.readouterr().out == b"guest1\n"
    assert main(["ls", str(tmp_path / "disk"), "1/etc"]) == 0
    assert b"again\n" in capsysbinary.readouterr().out
    assert main(["info", str(tmp_path / "disk")]) == 0
    assert b"ext4" in capsysbinary.readouterr().out


@pytest.mark.parametrize(
    "answers",
    [
        {"entries": [["a", 1]], "more": False},
        {"entries": 7, "more": False},
        {"entries": [["a", "b", "file", 1, [], [], "", []]], "more": False},
        {},
        None,
        [1],
    ],
)
def test_answers_that_make_no_sense(answers: Any, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hostile input has taken over can say what it likes."""
    with Image.open(disk_of(made("ext4"))) as image:
        volume = guest(image)
        monkeypatch.setattr(volume.process, "ask", lambda *request: (answers, b""))
        with pytest.raises(CorruptImage, match="makes no sense"):
            list(image.partitions[1].files.root)


class _Endless(worker.Budget):
    """No limit: the watchdog would end the tests."""

    def begin(self, seconds: float) -> None:
        """Do nothing."""

    def pause(self) -> None:
        """Do nothing."""

    def go_on(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("name", ["ext4", "NTFS"])
def test_the_program_of_the_process(name: str, made: Callable[[str], Path]) -> None:
    """Served in a thread of this process, with the whole volume as the image."""
    data = made(name).read_bytes()
    pipes = [os.pipe() for _ in range(2)]
    (theirs, ours), (answers, to_us) = (
        (os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)) for reading, writing in pipes
    )
    limits: list[int] = []
    served = threading.Thread(target=worker.serve, args=(theirs, to_us, _Endless()), kwargs={"limit": limits.append})
    served.start()

    def ask(*request: Any) -> tuple[Any, bytes]:
        worker.send(ours, {"ask": request, "seconds": 1})
        while True:
            message, found = worker.receive(answers)
            if "read" not in message:
                return message, found
            offset, length = message["read"]
            worker.send(ours, {}, data[offset : offset + length])

    try:
        kind = "TSK_FS_TYPE_NTFS" if name == "NTFS" else "TSK_FS_TYPE_EXT_DETECT"
        root = ask("open", kinds.library(), len(data), kind, 5)[0]["answer"]["root"]
        assert limits == [5]
        listed = {entry[0]: entry for entry in ask("list", root, 0)[0]["answer"]["entries"]}
        assert {"etc", "many", "var"} <= listed.keys()
        etc = {entry[0]: entry for entry in ask("list", listed["etc"][1], 0)[0]["answer"]["entries"]}
        assert etc["link"][2] == "link"
        content = ask("content", etc["hostname"][1], 0, 0)[0]["answer"]
        assert content["size"] == content["written"] == 7
        assert ask("read", etc["hostname"][1], 0, 0, 0, 7)[1] == b"guest1\n"
        assert "error" in ask("list", 1 << 40, 0)[0]
        assert len(ask("list", listed["many"][1], 0)[0]["answer"]["entries"]) == 150
    finally:
        ours.close()
        served.join()
        for pipe in (theirs, answers, to_us):
            pipe.close()


def test_every_kind_is_a_signature() -> None:
    from vmvisor_image.examine.signatures import FOREIGN

    names = {signature.kind for signature in FOREIGN} | {"ext2", "ext3"}
    assert set(KINDS) == _SYSTEMS.keys() <= names
