"""What fuzzing and the gallery found, one test each, named after what went wrong."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import tracemalloc
import zipfile
from pathlib import Path
from uuid import UUID

import pytest

from tests.gallery import REG, SECTOR, Fat, fat, part, tar
from tests.support import Counting
from vmvisor_image import CorruptImage, Extent, File, Image, ReadAt, inspect, open_archive
from vmvisor_image.archives.member import LONGEST_PATH
from vmvisor_image.boot.state import open_state
from vmvisor_image.streams.reading import skip_zeros
from vmvisor_image.streams.sources import BytesSource, FileSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_modules import encrypt, encryption_info, tar_archive
from vmvisor_image.testing.forge_virtual import qcow2_disk, vhd_disk, vmdk_disk


def far_partition() -> bytes:
    """A disk with a partition that begins a terabyte behind its end."""
    disk = bytearray(SECTOR * 8)
    disk[446:462] = part(0, 0x83, 1 << 31, 1 << 20)
    disk[510:512] = b"\x55\xaa"
    return bytes(disk)


def test_a_partition_behind_the_end_of_a_virtual_disk_was_read_at_a_negative_offset() -> None:
    assert inspect(vmdk_disk(far_partition())).partitions[0].kind == "unknown"


def test_a_partition_behind_the_end_of_a_sparse_file_was_read_at_a_negative_offset(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(far_partition())
    assert inspect(path).partitions[0].kind == "unknown"
    source = FileSource(path)
    assert skip_zeros(source, 1 << 40, 2 << 40) == 1 << 40
    source.close()


@pytest.mark.parametrize("name", [b" " * 11, b".. . .   ..", b"DIR        "])
def test_a_file_that_is_listed_could_not_be_looked_up(name: bytes) -> None:
    """Its name was empty, of dots, or that of a directory before it; one without a name is none, and told of."""

    def rename(volume: Fat) -> None:
        at = volume.entry(b"HURT    BIN")
        directory = volume.entry(b"DIR")
        entry = bytes(volume.data[at : at + 32])
        volume.put(at, bytes(volume.data[directory : directory + 32])).put(directory, entry).put(directory, name)

    with Image.open(fat(rename)()) as image:
        files = image.partitions[1].files
        for path, file in files.items():
            assert file.path == file.path
            assert path in files
        assert len(files) == 5 - name.isspace()
        assert any("is blank" in problem.message for problem in files.problems) == name.isspace()


def test_a_damaged_link_of_a_zip_hid_all_behind_it() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "target" * 20, zipfile.ZIP_DEFLATED)
        archive.writestr("healthy", b"content")
    data = bytearray(file.getvalue())
    at = data.index(b"PK\1\2") + 16
    data[at : at + 4] = bytes(4)
    archive_read = open_archive(BytesSource(data))
    assert archive_read["healthy"].read_bytes() == b"content"
    assert [problem.structure for problem in archive_read.problems] == ["zip local header", "zip member"]


def test_a_field_of_a_tar_header_hid_all_behind_it() -> None:
    data = bytearray(tar(("x", REG, "", b"x"))())
    data[1024 + 100 : 1024 + 107] = b"zzzzzzz"
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    archive = open_archive(BytesSource(data))
    assert list(archive) == ["first", "last"]
    assert ["it is not a number" in problem.message for problem in archive.problems] == [True]


def test_one_path_of_a_tar_took_a_gigabyte() -> None:
    """Of 32,000 directories, each kept with the path of all above it."""
    archive = open_archive(BytesSource(tar(("d/" * 32_000 + "f", REG, "", b""), ("d/" * 2000 + "f", REG, "", b""))()))
    assert [len(path) for path in archive] == [5, 4001, 4]
    assert all(len(path) <= LONGEST_PATH for path in archive)
    assert ["is left out" in problem.message for problem in archive.problems] == [True]


@pytest.mark.parametrize("length", [1, 3])
def test_a_loop_in_a_directorys_chain_hid_what_was_before_it(length: int) -> None:
    volume = Fat()
    cluster, place = volume.cluster(b"DIR"), volume.place(b"DIR")
    entry = bytes(volume.data[place + 64 : place + 96])
    volume.put(place + 64, b"\xe5" * (SECTOR * length - 64))  # deleted entries, which are no end
    volume.put(place + SECTOR * (length - 1) + 64, entry)
    for step in range(length - 1):
        volume.link(cluster + step, cluster + step + 1)
    volume.link(cluster + length - 1, cluster + length // 2)
    with Image.open(volume.done()) as image:
        assert [entry.name for entry in (image.partitions[1].files.root / "DIR").iterdir()] == ["INNER.TXT"]
        assert any("the chain loops" in problem.message for problem in image.problems)


def test_a_boot_sector_of_nonsense_was_shown_as_an_empty_disk() -> None:
    with Image.open(fat(lambda volume: volume.parameter("sectors_per_cluster", 0))()) as image:
        assert len(image.partitions) == 0
        assert [problem.structure for problem in image.problems] == ["FAT boot sector"]


def test_the_extents_of_one_file_of_a_cd_took_time_in_their_square() -> None:
    data = bytearray(iso_volume({"X": b"1"}, rock_ridge=False))
    root = int.from_bytes(data[16 * 2048 + 158 : 16 * 2048 + 162], "little") * 2048
    at = root + 2 * 34  # behind the records of the directory itself and of the one above
    record = bytearray(data[at : at + data[at]])
    more = bytes(record[:25]) + b"\x80" + bytes(record[26:])
    per_sector = 2048 // len(record)
    start = len(data)
    data += (more * per_sector).ljust(2048, b"\0") * 10 + bytes(record).ljust(2048, b"\0")
    data[16 * 2048 + 158 : 16 * 2048 + 162] = (start // 2048).to_bytes(4, "little")
    data[16 * 2048 + 166 : 16 * 2048 + 170] = (11 * 2048).to_bytes(4, "little")
    with Image.open(data) as image:
        file = image.partitions[1].files["X"]
        assert file.size == 10 * per_sector + 1
        assert file.read_bytes() == b"1" * file.size


def test_the_directory_of_a_zip_was_read_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmvisor_image.archives.zip._LARGEST_DIRECTORY", 40)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"x")
    archive_read = open_archive(BytesSource(file.getvalue()))
    assert list(archive_read) == []
    assert [problem.structure for problem in archive_read.problems] == ["zip directory"]


def test_the_tables_of_an_empty_virtual_disk_were_walked_whatever_their_size() -> None:
    disk = far_partition()
    qcow2, vmdk, vhd = bytearray(qcow2_disk(disk)), bytearray(vmdk_disk(disk)), bytearray(vhd_disk(disk))
    qcow2[36:40] = ((1 << 22) + 1).to_bytes(4, "big")
    vmdk[12:20], vmdk[44:48] = (1 << 40).to_bytes(8, "little"), (1).to_bytes(4, "little")
    vhd[-512 + 48 : -512 + 56] = (1 << 40).to_bytes(8, "big")
    vhd[-512 + 64 : -512 + 68] = bytes(4)
    vhd[-512 + 64 : -512 + 68] = (~sum(vhd[-512:]) & 0xFFFFFFFF).to_bytes(4, "big")
    for damaged, field in ((qcow2, "l1_size"), (vmdk, "capacity"), (vhd, "current_size")):
        with pytest.raises(CorruptImage, match="more than") as caught:
            inspect(damaged)
        assert caught.value.field == field


def test_what_a_key_is_derived_from_was_read_whatever_its_size() -> None:
    info = encryption_info(b"1" * 32, b"2" * 32)
    sealed = encrypt(gzip.compress(tar_archive({"etc/hosts": b"x"})), info, initial=bytes(12))
    members = {"local.tgz.ve": sealed, "encryption.info": info + bytes(1 << 20)}
    source = Counting(BytesSource(tar_archive(members)))
    home = open_archive(source)
    state = open_state(File(_Home(source), "state.tgz", source.size, None, (Extent(0, source.size),)))
    assert state["etc/hosts"].read_bytes() == b"x"
    at = home["encryption.info"].extents[0].offset
    assert sum(length for offset, length in source.reads if offset == at) <= 1 << 16


class _Home:
    def __init__(self, disk: ReadAt) -> None:
        self.disk = disk

    def locate(self, token: tuple[Extent, ...]) -> tuple[Extent, ...]:
        return token


def test_the_forged_are_read() -> None:
    """Each kind that the forge makes for the gallery and the fuzzers, undamaged."""
    volume = fat_volume({"F": b"content"}, sectors=60, root_entries=16)
    disk = mbr_disk([ForgedPartition(1, 1, 8, 60, content=volume)], sectors=80)
    whole = disk.read_at(0, disk.size)
    kind = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
    guids = gpt_disk([GptPartition(1, kind, 64, 60, content=volume)], sectors=200)
    for image in (whole, guids, iso_volume({"F": b"content"}), iso_volume({"F": b"content"}, rock_ridge=False)):
        with Image.open(image) as opened:
            assert opened.partitions[1].files["F"].read_bytes() == b"content"
            assert opened.problems == ()


def test_what_was_decoded_of_a_damaged_block_was_kept_until_a_garbage_collection() -> None:
    """Forty megabytes by each of such files, in the traceback of what was raised for it."""
    zeros = bytearray(bz2.compress(bytes(40_000_000), 9))
    zeros[10] ^= 0xFF  # in the block's CRC, which is checked when all of it was decoded
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(3):
            with pytest.raises(CorruptImage), Image.open(bytes(zeros), threads=1) as image:
                len(image.partitions)
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()
        gc.enable()
