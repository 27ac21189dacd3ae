"""`verify`: its figures against those of fsck.fat, the sleuthkit, sgdisk and sha256sum, and that they never change."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.media import ROCK_RIDGE, iso, write_tree
from tests.support import Counting, require_tool, run
from tests.tool_disk import DELETED, SECTOR, ToolDisk
from tests.vmfs_image import expand
from vmvisor_image import CorruptImage, Image, InvalidArgument, LimitExceeded, Limits, VerificationReport, verify
from vmvisor_image.base.limits import Meter
from vmvisor_image.boot.module_end import ModuleEnd
from vmvisor_image.faces.cli import main
from vmvisor_image.reports.verification_report import FileCheck, PartitionCheck
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import esx5_disk
from vmvisor_image.testing.forge_modules import sign
from vmvisor_image.testing.forge_vmfs_files import VmfsFile, vmfs_volume

DONE, BAD_INPUT, MISUSE = 0, 1, 2


def only(report: VerificationReport) -> PartitionCheck:
    [partition] = report.partitions
    return partition


def by_path(partition: PartitionCheck) -> dict[str, FileCheck]:
    return {file.path: file for file in partition.files}


def _fat(number: int, first_lba: int, sectors: int, tree: dict[str, bytes]) -> ForgedPartition:
    return ForgedPartition(number, 6, first_lba, sectors, content=fat_volume(tree, sectors=sectors))


def small_disk() -> bytes:
    """A disk with one FAT volume."""
    disk = mbr_disk([_fat(1, 100, 3000, {"a.txt": b"a" * 3000})], sectors=3100)
    return disk.read_at(0, disk.size)


class Volume:
    """A FAT volume that mkfs.fat and mtools made, and whose allocation table can be written to."""

    def __init__(self, path: Path, bits: int) -> None:
        kilobytes, per_cluster = {12: (2000, 2), 16: (20000, 2), 32: (40000, 1)}[bits]
        run("mkfs.fat", "-F", str(bits), "-s", str(per_cluster), "-C", path, str(kilobytes))
        source = path.with_suffix(".bin")
        for number, name in enumerate("abcd"):
            source.write_bytes(random.Random(number).randbytes(5000 + 731 * number))
            run("mcopy", "-i", path, source, f"::{name}.bin")
        run("mmd", "-i", path, "::sub")
        run("mcopy", "-i", path, source, "::sub/deep.bin")
        self.path, self.bits = path, bits
        self.data = bytearray(path.read_bytes())
        with Image.open(path) as image:
            volume = image.partitions[1].volume
            self.geometry = volume.geometry  # type: ignore[union-attr]  # it is FAT
            self.fat_size = volume.check().fat.fat_size  # type: ignore[union-attr]  # as above
            self.first = {path: file.token[0] for path, file in image.partitions[1].files.items()}
        self.end = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}[bits]
        self.last = self.geometry.cluster_count + 1

    def put(self, cluster: int, value: int, copies: tuple[int, ...] = (0, 1)) -> None:
        for copy in copies:
            at = self.geometry.fat_offset + copy * self.fat_size
            if self.bits == 12:
                at += cluster * 3 // 2
                word = int.from_bytes(self.data[at : at + 2], "little")
                word = word & 0x000F | value << 4 if cluster % 2 else word & 0xF000 | value
                self.data[at : at + 2] = word.to_bytes(2, "little")
            else:
                width = self.bits // 8
                self.data[at + cluster * width : at + (cluster + 1) * width] = value.to_bytes(width, "little")

    def fsck(self) -> str:
        self.path.write_bytes(self.data)
        command = [require_tool("fsck.fat"), "-n", str(self.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def verify(self) -> VerificationReport:
        return verify(bytes(self.data))


@pytest.fixture(params=[12, 16, 32])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume", request.param)


class TestFatAgainstOtherTools:
    def test_a_sound_volume(self, volume: Volume) -> None:
        report = volume.verify()
        fat = only(report).fat
        assert report.is_sound
        assert fat is not None
        assert f"{fat.used_clusters}/{fat.clusters} clusters" in volume.fsck()
        assert fat.free_clusters == fat.clusters - fat.used_clusters

    def test_slack_and_free_space(self, volume: Volume) -> None:
        with Image.open(bytes(volume.data)) as image:
            for number, file in enumerate(image.partitions[1].files.values()):
                end = file.extents[-1].offset + file.extents[-1].length
                volume.data[end : end + number] = b"s" * number
            free = volume.geometry.data_offset + (volume.last - 2) * volume.geometry.cluster_size
        volume.data[free : free + 5] = b"trace"
        found = only(volume.verify())
        volume.path.write_bytes(volume.data)
        slack = subprocess.check_output([require_tool("blkls"), "-s", volume.path])
        unallocated = subprocess.check_output([require_tool("blkls"), volume.path])
        assert found.slack is not None
        assert found.free is not None
        assert found.slack.nonzero == 0 + 1 + 2 + 3 + 4 == len(slack.replace(b"\0", b""))
        # The sleuthkit gives whole sectors, with what is the file's as zeros.
        size = volume.geometry.cluster_size
        sectors = sum(-(-(-file.size % size) // SECTOR) for file in found.files)
        assert sectors * SECTOR == len(slack)
        assert found.slack.bytes == sum(-file.size % size for file in found.files)
        assert found.free.nonzero == 5 == len(unallocated.replace(b"\0", b""))
        # It takes what is behind the last cluster for unallocated, too.
        assert found.tail is not None
        assert len(unallocated) - found.free.bytes in (0, found.tail.bytes)

    def test_a_cross_link(self, volume: Volume) -> None:
        volume.put(volume.first["a.bin"] + 1, volume.first["b.bin"] + 2)
        report = volume.verify()
        fat = only(report).fat
        assert fat is not None
        [link] = fat.cross_links
        assert (link.path, link.other) == ("b.bin", "a.bin")
        at = volume.geometry.data_offset + volume.first["b.bin"] * volume.geometry.cluster_size
        assert link.offset == at
        assert link.clusters == -(-5731 // volume.geometry.cluster_size) - 2
        printed = volume.fsck()
        assert re.search(r"/A.BIN  and\n/B.BIN\n  share clusters", printed)
        assert f"Reclaimed {fat.lost_clusters} unused clusters" in printed

    def test_lost_chains(self, volume: Volume) -> None:
        first = volume.last - 10
        for cluster, following in ((first, first + 1), (first + 1, first + 2), (first + 2, volume.end)):
            volume.put(cluster, following)
        volume.put(first + 5, volume.end)
        volume.put(first + 7, first + 8)  # one that loops
        volume.put(first + 8, first + 7)
        report = volume.verify()
        fat = only(report).fat
        assert fat is not None
        assert (fat.lost_clusters, fat.lost_chains) == (6, 3)
        assert [chain.clusters for chain in fat.lost] == [3, 1, 2]
        place = volume.geometry.data_offset + (first - 2) * volume.geometry.cluster_size
        assert fat.lost[0].offset == place
        assert f"Reclaimed 6 unused clusters ({6 * fat.cluster_size} bytes)" in volume.fsck()
        assert not report.is_sound

    def test_a_chain_that_is_too_short(self, volume: Volume) -> None:
        volume.put(volume.first["c.bin"] + 2, volume.end)
        found = only(volume.verify())
        assert found.fat is not None
        [chain] = found.fat.short_chains
        assert (chain.path, chain.clusters, chain.end) == ("c.bin", 3, "end mark")
        assert f"cluster chain length is {3 * found.fat.cluster_size} bytes" in volume.fsck()
        assert "chain ends before the file does" in (by_path(found)["c.bin"].error or "")
        assert [file.path for file in found.files if file.error] == ["c.bin"]

    def test_a_chain_that_is_too_long(self, volume: Volume) -> None:
        size = volume.geometry.cluster_size
        last = volume.first["d.bin"] + -(-7193 // size) - 1
        volume.put(last, volume.last - 1)
        volume.put(volume.last - 1, volume.end)
        found = only(volume.verify())
        assert found.fat is not None
        [chain] = found.fat.long_chains
        assert (chain.path, chain.clusters, chain.needed) == ("d.bin", -(-7193 // size) + 1, -(-7193 // size))
        assert found.fat.lost_clusters == 0
        assert by_path(found)["d.bin"].hashes, "the file itself is whole"
        assert f"cluster chain length is > {-(-7193 // size) * size} bytes" in volume.fsck()

    def test_copies_that_differ(self, volume: Volume) -> None:
        volume.put(volume.last - 1, volume.end, copies=(1,))
        report = volume.verify()
        fat = only(report).fat
        assert fat is not None
        [difference] = fat.differences
        one = volume.data[volume.geometry.fat_offset :][: volume.fat_size]
        other = volume.data[volume.geometry.fat_offset + volume.fat_size :][: volume.fat_size]
        places = [at for at in range(volume.fat_size) if one[at] != other[at]]
        assert (difference.number, difference.bytes) == (2, len(places))
        assert difference.offset == volume.geometry.fat_offset + volume.fat_size + places[0]
        assert "FATs differ but appear to be intact" in volume.fsck()

    def test_bad_clusters_are_counted_and_no_problem(self, volume: Volume) -> None:
        volume.put(volume.last - 3, volume.end - 8)
        report = volume.verify()
        fat = only(report).fat
        assert fat is not None
        assert fat.bad_clusters == 1
        assert [problem for problem in report.problems if problem.structure != "FAT FSInfo"] == []

    def test_deleted_files_are_no_orphans(self, tool_built_disk: ToolDisk) -> None:
        listed = run("fls", "-r", "-o", str(tool_built_disk.volumes["Hypervisor1"].first_lba), tool_built_disk.image)
        assert DELETED[1:] in listed
        found = next(each for each in verify(tool_built_disk.image).partitions if each.label == "Hypervisor1")
        assert found.free is not None
        assert found.free.nonzero > 0
        assert DELETED not in by_path(found)


def test_free_summary_of_fat32(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume", 32)
    at = volume.data.index(b"rrAa") + 4
    said = int.from_bytes(volume.data[at : at + 4], "little")
    volume.data[at : at + 4] = (said - 7).to_bytes(4, "little")
    report = volume.verify()
    fat = only(report).fat
    assert fat is not None
    assert fat.summary is not None
    assert (fat.summary.free_clusters, fat.summary_agrees, fat.free_clusters) == (said - 7, False, said)
    assert f"Free cluster summary wrong ({said - 7} vs. really {said})" in volume.fsck()
    volume.data[at : at + 4] = b"\xff" * 4
    assert volume.verify().is_sound, "it need not know"


def test_many_files_on_one_chain_cost_no_more_than_one() -> None:
    image = fat_volume({f"f{number}": b"x" * 512 for number in range(400)}, sectors=40000, sectors_per_cluster=1)
    data = bytearray(image.read_at(0, image.size))
    with Image.open(bytes(data)) as opened:
        volume = opened.partitions[1].volume
        geometry = volume.geometry  # type: ignore[union-attr]  # it is FAT
        firsts = [file.token[0] for file in opened.partitions[1].files.values()]
    free = max(firsts) + 1
    table = dict.fromkeys(firsts, free)
    table |= {cluster: cluster + 1 for cluster in range(free, geometry.cluster_count + 1)}
    table[geometry.cluster_count + 1] = 0xFFFF
    for cluster, value in table.items():
        at = geometry.fat_offset + 2 * cluster
        data[at : at + 2] = value.to_bytes(2, "little")
    fat = only(verify(bytes(data))).fat
    assert fat is not None
    assert len(fat.cross_links) == 399
    assert {link.clusters for link in fat.cross_links} == {geometry.cluster_count + 2 - free}
    assert fat.lost_clusters == 0


def test_no_more_than_a_thousand_lost_chains_are_listed() -> None:
    image = fat_volume({"a": b"a"}, sectors=40000, sectors_per_cluster=1)
    data = bytearray(image.read_at(0, image.size))
    with Image.open(bytes(data)) as opened:
        geometry = opened.partitions[1].volume.geometry  # type: ignore[union-attr]  # it is FAT
    for cluster in range(10, 5010, 2):
        at = geometry.fat_offset + 2 * cluster
        data[at : at + 2] = b"\xff\xff"
    data[geometry.data_offset + 9 * 512] = data[geometry.data_offset + 8 * 512] = 1  # clusters 11, free, and 10, lost
    report = verify(bytes(data))
    found = only(report)
    assert found.fat is not None
    assert (found.fat.lost_clusters, found.fat.lost_chains, len(found.fat.lost)) == (2500, 2500, 1000)
    assert "    and 1500 lost chains more, which are not listed" in list(report.lines())
    assert found.fat.lost[0].offset == geometry.data_offset + 8 * 512
    assert found.free is not None
    assert (found.free.bytes, found.free.nonzero) == (found.fat.free_clusters * 512, 1)


class TestGpt:
    """Against `sgdisk -v`."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Path:
        path = tmp_path / "disk"
        esx5_disk(boot={"a": b"a"}, bank={"boot.cfg": b"build=5"}).write_to(path)
        return path

    def sgdisk(self, path: Path) -> str:
        command = [require_tool("sgdisk"), "-v", str(path)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout

    def test_a_sound_table(self, disk: Path) -> None:
        report = verify(disk)
        assert [copy.is_sound for copy in report.gpt] == [True, True]
        assert "No problems found" in self.sgdisk(disk)
        assert sum(gap.length for gap in report.gaps) < report.partitions[-1].start + report.partitions[-1].size
        assert all(gap.nonzero == 0 for gap in report.gaps), "both copies of the table are no gap"

    @pytest.mark.parametrize(
        ("where", "which", "says"),
        [
            (SECTOR + 60, 0, "invalid main GPT header"),
            (2 * SECTOR + 100, 0, "CRC for the main partition table is invalid"),
            (-SECTOR + 60, 1, "invalid backup GPT header"),
            (-33 * SECTOR + 100, 1, "CRC for the backup partition table is invalid"),
        ],
    )
    def test_a_wrong_crc(self, disk: Path, where: int, which: int, says: str) -> None:
        with disk.open("r+b") as file:
            file.seek(where, os.SEEK_SET if where >= 0 else os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        report = verify(disk)
        assert [copy.is_sound for copy in report.gpt] == [which != 0, which != 1]
        assert not report.is_sound
        assert says in self.sgdisk(disk)


def test_vmfs_bitmap_of_a_real_volume(shared_data: Path) -> None:
    found = only(verify(expand(shared_data / "vmfs3-real.vmfsimg")))
    assert found.vmfs is not None
    assert (found.vmfs.used, found.vmfs.reached) == (674, 674)
    assert (found.vmfs.lost, found.vmfs.reached_free) == (0, 0)


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5"])
def test_vmfs_bitmap_against_the_files(kind: str) -> None:
    [image] = vmfs_volume({"a": VmfsFile(b"x" * 3_000_000), "d/s": VmfsFile(b"abc")}, kind)  # type: ignore[arg-type]
    report = verify(image)
    found = only(report)
    assert report.is_sound
    assert found.vmfs is not None
    assert found.vmfs.used == found.vmfs.reached > 0
    assert dict(by_path(found)["a"].hashes)["sha256"] == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_sparse_file_is_bounded_by_what_may_be_decoded() -> None:
    [image] = vmfs_volume({"thin": VmfsFile(b"x", size=200 << 20)}, "vmfs5")
    assert only(verify(image)).files
    with pytest.raises(LimitExceeded):
        verify(image, limits=Limits(decoded_bytes=100 << 20))


def test_a_disk_that_claims_any_size_is_passed_over() -> None:
    """A zip of 2 kB had a disk of 2 GB, in steps of 4 KiB and each of them kept; of a petabyte there was no end."""

    healthy = 123 * 4096 + 500

    class Claimed:
        size = 1 << 60
        reads = 0

        def read_at(self, offset: int, length: int) -> bytes:
            self.reads += 1
            if offset < self.size - healthy and offset + length > 1 << 20:
                raise CorruptImage(f"nothing is at byte {offset}", structure="test", offset=offset)
            return bytes(length)

    source = Claimed()
    report = verify(source)
    [bad] = report.bad_ranges
    assert bad.offset == 1 << 20
    assert bad.length is not None
    assert healthy - 4096 <= source.size - bad.offset - bad.length <= healthy
    assert source.reads < 20_000


class TestDamagedBzip2:
    def test_says_which_files_are_touched(self, tool_built_disk: ToolDisk) -> None:
        data = bytearray(tool_built_disk.bz2.read_bytes())
        data[len(data) * 3 // 4] ^= 0x55
        sound = verify(tool_built_disk.bz2)
        report = verify(bytes(data))
        assert not report.is_sound
        [bad] = report.bad_ranges
        assert bad.length is None
        assert bad.files
        [layer] = report.layers
        assert layer.size is None
        assert layer.problems
        whole = {(p.number, file.path): file.hashes for p in sound.partitions for file in p.files}
        read = {(p.number, file.path): file.hashes for p in report.partitions for file in p.files if not file.error}
        assert read
        assert all(whole[key] == value for key, value in read.items())
        touched = {f"{p.number}/{file.path}" for p in report.partitions for file in p.files if file.error}
        assert set(bad.files) <= touched
        with Image.open(bytes(data)) as image, pytest.raises(CorruptImage):
            image.read_at(bad.offset, 4096)

    def test_agrees_with_bzip2(self, tool_built_disk: ToolDisk) -> None:
        run("bzip2", "-t", tool_built_disk.bz2)
        [layer] = verify(tool_built_disk.bz2).layers
        assert layer.problems == ()
        assert dict(layer.counts)["streams"] == 1
        assert layer.size == tool_built_disk.image.stat().st_size


@pytest.mark.parametrize("flip", [-5, -1, -100_000], ids=["CRC", "length", "data"])
def test_a_gzip_layer_agrees_with_gzip(tmp_path: Path, flip: int) -> None:
    content = _fat(1, 100, 3000, {"a.txt": random.Random(1).randbytes(300_000)})
    disk = mbr_disk([content], sectors=3100)
    whole = gzip.compress(disk.read_at(0, disk.size), mtime=0)
    damaged = bytearray(whole)
    damaged[flip] ^= 0xFF
    for data, is_sound in ((whole, True), (bytes(damaged), False)):
        path = tmp_path / "disk.gz"
        path.write_bytes(data)
        done = subprocess.run([require_tool("gzip"), "-t", path], capture_output=True, check=False)
        assert (done.returncode == 0) is is_sound
        assert (verify(path).layers[0].problems == ()) is is_sound


class TestContainers:
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_zip_members(self, method: int) -> None:
        readme = b"read me first " * 100
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", method) as archive:
            archive.writestr("readme.txt", readme)
            archive.writestr("disk.dd", small_disk())
        report = verify(made.getvalue())
        assert report.is_sound
        files = {file.path: dict(file.hashes)["sha256"] for file in report.layers[0].files}
        assert files["readme.txt"] == hashlib.sha256(readme).hexdigest()
        assert files["disk.dd"] == dict(report.hashes)["sha256"]
        damaged = bytearray(made.getvalue())
        damaged[60] ^= 1
        [bad] = [file for file in verify(bytes(damaged)).layers[0].files if file.error]
        assert bad.path == "readme.txt"

    def test_the_files_of_a_cd(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "cd", {"imagedd.dd": small_disk(), "a/b/readme.txt": b"text"})
        path = iso(folder, tmp_path / "cd.iso")
        report = verify(path, member="imagedd.dd")
        assert report.is_sound
        assert {file.path for file in report.layers[0].files} == {"imagedd.dd", "a/b/readme.txt"}

    @pytest.mark.parametrize("names", [ROCK_RIDGE, (), ("-J",)], ids=["Rock Ridge", "plain", "Joliet"])
    def test_a_cd_as_the_disk(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        folder = write_tree(tmp_path / "cd", {"a/b/readme.txt": b"text", "c/d.txt": b"more"})
        path = iso(folder, tmp_path / "cd.iso", names)
        report = verify(path)
        assert report.is_sound, report.problems
        assert {dict(file.hashes)["sha256"] for file in only(report).files} >= {hashlib.sha256(b"text").hexdigest()}
        data = bytearray(path.read_bytes())
        data[16 * 2048 + 84] ^= 1  # block count, big-endian
        data[17 * 2048 + 84] ^= 1  # of the supplementary descriptor, where that is one
        [problem] = verify(bytes(data)).problems
        assert "block_count" in problem.message

    def test_path_tables_that_differ(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "cd", {"a/b/readme.txt": b"text"})
        data = bytearray(iso(folder, tmp_path / "cd.iso").read_bytes())
        block = int.from_bytes(data[16 * 2048 + 148 : 16 * 2048 + 152], "big")
        data[block * 2048 + 5] ^= 1
        [problem] = verify(bytes(data)).problems
        assert problem.message == "the little-endian and the big-endian one differ"


class TestReading:
    def test_a_bare_disk_is_read_once(self, tool_built_disk: ToolDisk) -> None:
        with tool_built_disk.image.open("rb") as file:
            counting = Counting(BytesSource(file.read()))
        report = verify(counting)
        assert report.is_sound
        read = sum(length for _, length in counting.reads)
        # Beside the disk: headers, directories, and each FAT twice.
        assert counting.size <= read <= counting.size + (2 << 20)

    def test_a_compressed_disk_is_decoded_once(self, tool_built_disk: ToolDisk) -> None:
        with Image.open(tool_built_disk.bz2) as image:
            from vmvisor_image.reports.verification import _Verification

            report = _Verification(image, ("sha256",)).run()
            stats = image.layers[0].source.stats  # type: ignore[attr-defined]  # it is a Bzip2Reader
        assert report.is_sound
        assert stats.blocks_decoded + stats.blocks_repeated == dict(report.layers[0].counts)["blocks"]

    def test_partitions_that_overlap_are_each_hashed(self) -> None:
        inner = fat_volume({"a.txt": b"inner" * 1000}, sectors=3000)
        outer = _fat(1, 100, 8000, {"b.txt": b"outer" * 1000})
        disk = bytearray(mbr_disk([outer, ForgedPartition(2, 6, 4000, 3000)], sectors=9000).read_at(0, 9000 * SECTOR))
        data = inner.read_at(0, inner.size)
        disk[4000 * SECTOR : 4000 * SECTOR + len(data)] = data
        report = verify(bytes(disk))
        hashes = {file.path: dict(file.hashes)["sha256"] for p in report.partitions for file in p.files}
        assert hashes["a.txt"] == hashlib.sha256(b"inner" * 1000).hexdigest()
        assert hashes["b.txt"] == hashlib.sha256(b"outer" * 1000).hexdigest()
        assert any("overlaps" in problem.message for problem in report.problems)

    def test_a_fragmented_file_out_of_order(self, tmp_path: Path) -> None:
        volume = Volume(tmp_path / "volume", 16)
        size, first = volume.geometry.cluster_size, volume.first["a.bin"]
        data = volume.geometry.data_offset + (first - 2) * size
        one, two = (
            bytes(volume.data[data + size : data + 2 * size]),
            bytes(volume.data[data + 2 * size : data + 3 * size]),
        )
        volume.data[data + size : data + 3 * size] = two + one
        for cluster, following in ((first, first + 2), (first + 2, first + 1), (first + 1, first + 3)):
            volume.put(cluster, following)
        found = by_path(only(volume.verify()))["a.bin"]
        assert dict(found.hashes)["sha256"] == hashlib.sha256(random.Random(0).randbytes(5000)).hexdigest()

    def test_gaps(self) -> None:
        disk = mbr_disk([_fat(1, 100, 3000, {"a.txt": b"a"})], sectors=3100)
        data = bytearray(disk.read_at(0, disk.size)) + bytes(SECTOR)
        data[700:705] = b"trace"
        data[-3:] = b"end"
        report = verify(bytes(data))
        assert [(gap.offset, gap.nonzero) for gap in report.gaps] == [(SECTOR, 5), (3100 * SECTOR, 3)]
        assert report.is_sound

    def test_limits_hold(self) -> None:
        data = bz2.compress(small_disk())
        with pytest.raises(LimitExceeded):
            verify(data, limits=Limits(decoded_bytes=1000))

    def test_other_hashes(self) -> None:
        content = b"hello" * 1000
        disk = fat_volume({"a.txt": content}, sectors=3000)
        found = by_path(only(verify(disk, algorithms=("sha256", "md5", "sha1"))))["a.txt"]
        assert found.hashes == tuple(
            (name, hashlib.new(name, content).hexdigest()) for name in ("sha256", "md5", "sha1")
        )
        with pytest.raises(InvalidArgument):
            verify(disk, algorithms=("crc32",))


class TestModules:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 4096, 1 << 20])
    def test_its_end_in_pieces_of_any_size(self, size: int) -> None:
        module = gzip.compress(sign(b"kernel" * 50_000), mtime=0)
        end = ModuleEnd(Meter())
        for at in range(0, len(module), size):
            end.update(memoryview(module)[at : at + size])
        end.finish()
        found = end.signature()
        assert end.failure is None
        assert found is not None
        assert found.offset == len(b"kernel" * 50_000)

    def test_a_signature_is_shown(self) -> None:
        module = gzip.compress(sign(b"kernel" * 50_000), mtime=0)
        disk = fat_volume({"k.b00": module, "plain.txt": b"text"}, sectors=3000)
        report = verify(disk)
        found = by_path(only(report))["k.b00"]
        assert found.is_gzip
        assert found.signature is not None
        assert any("NOT verified" in line for line in report.lines())

    def test_two_gzip_members_and_padding(self) -> None:
        module = gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0) + bytes(100)
        assert verify(fat_volume({"m.tgz": module}, sectors=3000)).is_sound

    @pytest.mark.parametrize("cut", [1, 8, 20])
    def test_gzip_that_is_cut_off(self, cut: int) -> None:
        module = gzip.compress(os.urandom(5000), mtime=0)[:-cut]
        report = verify(fat_volume({"m.tgz": module}, sectors=3000))
        assert "gzip" in (by_path(only(report))["m.tgz"].error or "")
        assert not report.is_sound

    def test_a_gzip_bomb_is_bounded(self) -> None:
        bomb = gzip.compress(bytes(50_000_000), mtime=0)
        with pytest.raises(LimitExceeded):
            verify(fat_volume({"m.tgz": bomb}, sectors=3000), limits=Limits(decoded_bytes=10_000_000))


class TestManifest:
    def test_sha256sum_checks_an_extraction(self, tool_built_disk: ToolDisk, tmp_path: Path) -> None:
        manifest = tmp_path / "manifest"
        assert main(["verify", str(tool_built_disk.bz2), "--manifest", str(manifest)]) == DONE
        for partition in ("4", "5", "6", "8"):
            assert main(["extract", str(tool_built_disk.image), partition, str(tmp_path / "out" / partition)]) == DONE
        command = [require_tool("sha256sum"), "--check", "--strict", str(manifest)]
        done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        extracted = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert done.stdout.count(": OK\n") == len(extracted) == manifest.read_text().count("\n")

    def test_odd_names_as_sha256sum_writes_them(self, tmp_path: Path) -> None:
        names = ["plain.txt", "back\\slash.txt", "new\nline.txt", "caf\u00e9.txt", "two  spaces.txt"]
        report = verify(fat_volume({"a.txt": b"content"}, sectors=3000))
        [file] = only(report).files
        odd = replace(only(report), files=tuple(replace(file, path=name) for name in names))
        lines = replace(report, partitions=(odd,)).manifest()
        (tmp_path / "1").mkdir()
        for name in names:
            (tmp_path / "1" / name).write_bytes(b"content")
        command = [require_tool("sha256sum"), *(f"1/{name}" for name in names)]
        assert subprocess.check_output(command, cwd=tmp_path) == lines
        check = [require_tool("sha256sum"), "--check", "--strict", "--quiet", "-"]
        assert subprocess.run(check, input=lines, cwd=tmp_path, check=False).returncode == 0

    def test_damaged_files_are_left_out(self, tmp_path: Path) -> None:
        volume = Volume(tmp_path / "volume", 16)
        volume.put(volume.first["c.bin"] + 2, volume.end)
        paths = [line.split("  ")[1] for line in volume.verify().manifest().decode().splitlines()]
        assert paths == ["1/a.bin", "1/b.bin", "1/d.bin", "1/sub/deep.bin"]

    def test_is_not_replaced(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        image, manifest = tmp_path / "disk", tmp_path / "manifest"
        image.write_bytes(small_disk())
        manifest.write_text("mine")
        assert main(["verify", str(image), "--manifest", str(manifest)]) == MISUSE
        assert manifest.read_text() == "mine"
        assert main(["verify", str(image), "--manifest", str(manifest), "--force"]) == DONE
        capsys.readouterr()


class TestEvidence:
    def test_the_same_bytes_wherever_and_however(self, tool_built_disk: ToolDisk, tmp_path: Path) -> None:
        """Another folder, another name of it, other threads and another hash seed change nothing."""
        damaged = bytearray(tool_built_disk.bz2.read_bytes())
        damaged[len(damaged) // 2] ^= 0x55
        outputs = set()
        for number, (folder, threads, seed) in enumerate((("a", "1", "0"), ("b/c", "2", "1"), ("b/c", "4", "77"))):
            place = tmp_path / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / "disk.dd.bz2").write_bytes(damaged)
            given = "disk.dd.bz2" if number != 1 else str(place / "disk.dd.bz2")
            manifest = tmp_path / f"manifest{number}"
            command = [sys.executable, "-m", "vmvisor_image", "verify", given, "--threads", threads]
            command += ["--manifest", str(manifest)]
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            for more in ([], ["--json"]):
                done = subprocess.run(
                    [*command, "--force", *more], cwd=place, env=environment, capture_output=True, check=False
                )
                assert done.returncode == BAD_INPUT, done.stderr
                assert done.stderr.count(b"\n") <= 1
                assert done.stderr == b"" or b"healthy blocks behind the damage" in done.stderr
                outputs.add((bool(more), done.stdout, manifest.read_bytes()))
        assert len(outputs) == 2, "one as text, one as JSON"

    def test_a_truncated_disk_names_no_folder(self, tmp_path: Path) -> None:
        disk = mbr_disk([_fat(1, 100, 4000, {"a": b"a" * 900_000})], sectors=4100)
        path = tmp_path / "disk.dd"
        path.write_bytes(disk.read_at(0, 1_000_000))
        report = verify(path)
        assert not report.is_sound
        assert str(tmp_path) not in json.dumps(report.to_dict())

    def test_pickles_and_becomes_json(self, tool_built_disk: ToolDisk) -> None:
        report = verify(tool_built_disk.image)
        assert pickle.loads(pickle.dumps(report)) == report
        assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


class TestCommandLine:
    def test_sound(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk.dd"
        path.write_bytes(small_disk())
        assert main(["verify", str(path)]) == DONE
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("no problem in what was checked: ")

    @pytest.mark.parametrize("kind", ["bzip2", "gpt", "blank"])
    def test_the_last_line_says_what_was_checked(self, kind: str, tmp_path: Path) -> None:
        """Not that the image is sound: what is listed as not checked stands right above."""
        tree = {"a": b"a", "b.gz": gzip.compress(b"b"), "c.gz": gzip.compress(b"c")}
        disk = mbr_disk([_fat(1, 100, 3000, tree)], sectors=3100)
        data = bz2.compress(disk.read_at(0, disk.size))
        expected = {
            "bzip2": "bzip2, decoded to the end, the master boot record, the structures of 1 partition, 3 files read"
            " whole, the CRC of 2 gzip files",
            "gpt": "both copies of the GPT, the structures of 5 partitions, 1 file read whole",
            "blank": "the master boot record",
        }
        sources: dict[str, Any] = {
            "bzip2": data,
            "gpt": esx5_disk(boot={}, bank={"a": b"a"}),
            "blank": bytes(510) + b"\x55\xaa",
        }
        report = verify(sources[kind])
        *_, last = report.lines()
        assert last == f"no problem in what was checked: {expected[kind]}"
        assert "sound" not in last

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "disk.dd"
        path.write_bytes(small_disk())
        assert main(["verify", str(path), "--json", "--hash", "md5"]) == DONE
        assert json.loads(capsys.readouterr().out) == verify(path, algorithms=("sha256", "md5")).to_dict()


class TestFatFlagsAndNames:
    """What costs no byte of a file and is wrong all the same, as fsck.fat tells it."""

    def entry(self, volume: Volume, name: bytes) -> int:
        return volume.data.index(name.ljust(11))

    def first_entries(self, volume: Volume, number: int, value: int) -> None:
        """Write FAT[0] or FAT[1] of both copies."""
        for copy in range(2):
            at = volume.geometry.fat_offset + copy * volume.fat_size
            if volume.bits == 12:
                pair = int.from_bytes(volume.data[at : at + 3], "little")
                pair = pair & ~(0xFFF << 12 * number) | value << 12 * number
                volume.data[at : at + 3] = pair.to_bytes(3, "little")
            else:
                width = volume.bits // 8
                volume.data[at + number * width : at + (number + 1) * width] = value.to_bytes(width, "little")

    def is_refused(self, volume: Volume) -> bool:
        """Whether fsck.fat finds anything wrong."""
        volume.path.write_bytes(volume.data)
        return self.is_file_refused(volume)

    def is_file_refused(self, volume: Volume) -> bool:
        """The same of the volume's file as it is."""
        command = [require_tool("fsck.fat"), "-n", str(volume.path)]
        self.printed = subprocess.run(command, capture_output=True, check=False).stdout.decode(errors="replace")
        return f"{volume.path}:" not in self.printed or len(self.printed.splitlines()) > 2

    def said(self, volume: Volume) -> list[str]:
        return self.said_of(volume.verify())

    def said_of(self, report: VerificationReport) -> list[str]:
        assert report.is_sound == (not report.problems)
        return [problem.message for problem in report.problems]

    def test_the_first_entry(self, volume: Volume) -> None:
        self.first_entries(volume, 0, 0)
        assert any("its first entry is 0x0" in message for message in self.said(volume))
        assert self.is_refused(volume)

    def test_it_was_not_unmounted(self, volume: Volume) -> None:
        at = 65 if volume.bits == 32 else 37
        volume.data[at] |= 1
        assert any("not unmounted: its dirty bit" in message for message in self.said(volume))
        assert "Dirty bit is set" in volume.fsck()
        volume.data[at] &= 0xFE
        assert self.said(volume) == []
        ones = (1 << min(volume.bits, 28)) - 1
        self.first_entries(volume, 1, ones & ~{12: 0, 16: 0x8000, 32: 0x08000000}[volume.bits])
        is_told = any("not unmounted: its second entry" in message for message in self.said(volume))
        assert is_told == (volume.bits > 12) == ("Dirty bit is set" in volume.fsck())
        self.first_entries(volume, 1, ones & ~{12: 0, 16: 0x4000, 32: 0x04000000}[volume.bits])
        assert any("the disk had errors" in message for message in self.said(volume)) == (volume.bits > 12)

    @pytest.mark.parametrize(
        ("slot", "at", "value", "said"),
        [
            (0, 26, b"\x63", "'.' leads to cluster 99"),
            (1, 26, b"\x63", "'..' leads to cluster 99"),
            (0, 0, b"\xe5", "'.' is missing"),
            (1, 0, b"\xe5", "'..' is missing"),
            (0, 11, b"\0", "'.' is missing"),
            (1, 0, b"FOO", "'..' is missing"),
        ],
    )
    def test_dots(self, volume: Volume, slot: int, at: int, value: bytes, said: str) -> None:
        place = self.entry(volume, b".") + slot * 32 + at
        volume.data[place : place + len(value)] = value
        assert any(said in message for message in self.said(volume))
        assert re.search(r"(Invalid|Expected a valid) '\.\.?' entry", volume.fsck())

    def test_a_directory_with_a_size(self, volume: Volume) -> None:
        volume.data[self.entry(volume, b"SUB") + 28] = 5
        assert any("directory 'sub' has a size, 5" in message for message in self.said(volume))
        assert "Directory has non-zero size" in volume.fsck()

    def test_short_names_that_are_twice(self, volume: Volume) -> None:
        at = self.entry(volume, b"B       BIN")
        volume.data[at] = ord("A")
        assert any("a second entry is named 'a.bin'" in message for message in self.said(volume))
        assert "Duplicate directory entry" in volume.fsck()

    def test_damage_of_any_kind_is_sound_for_both_or_for_neither(self, volume: Volume) -> None:
        """Single bytes of the table, of directories and of the boot sector; each difference has a reason below."""
        geometry, good = volume.geometry, bytes(volume.data)
        disk = os.open(volume.path, os.O_RDWR)  # written to byte by byte: the file stays sparse
        places = [geometry.fat_offset + at for at in range(24)]
        for name in (b"A       BIN", b"SUB        "):
            places += [good.index(name.ljust(11)) + at for at in (0, 1, 9, 11, 20, 21, 26, 27, 28, 29)]
        dots = good.index(b".          ")
        places += [dots + at for at in (0, 1, 11, 26, 27, 32, 33, 43, 58, 59)]
        chance = random.Random(volume.bits)
        compared, differences = 0, []
        for place in places:
            for value in (0, 0xFF, good[place] ^ 1 << chance.randrange(8)):
                if value == good[place]:
                    continue
                os.pwrite(disk, bytes((value,)), place)
                messages = self.said_of(verify(volume.path))
                is_refused = self.is_file_refused(volume)
                os.pwrite(disk, good[place : place + 1], place)
                compared += 1
                told = any(word in message for message in messages for word in TOLD_BY_US_ALONE)
                if value == 0xFF and place in (dots + 11, dots + 43):
                    told = True  # attributes of a label: fsck.fat takes it for a directory all the same
                if is_refused != bool(messages) and not told:
                    differences.append(f"byte {place:#x}: {good[place]:#x} -> {value:#x}: {messages}\n{self.printed}")
        os.close(disk)
        assert differences == []
        assert compared > 100


TOLD_BY_US_ALONE = ("the disk had errors",)
"""What fsck.fat does not look at."""


CONFIGURATION = b"kernel=%s\nkernelopt=\nmodules=%s\nbuild=3.5.0-67921\nupdated=1\nbootstate=0\n"


@pytest.mark.parametrize("spelled", ["{}", "/{}", "/{}".upper()])
@pytest.mark.parametrize("missing", [(), ("b.tgz",), ("a.tgz", "b.tgz"), ("vmk.gz",)])
def test_files_that_the_boot_configuration_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spelled: str, missing: tuple[str, ...]
) -> None:
    kernel, *modules = (spelled.format(name).encode() for name in ("vmk.gz", "a.tgz", "b.tgz"))
    tree = {name: gzip.compress(name.encode()) for name in ("vmk.gz", "a.tgz", "b.tgz") if name not in missing}
    tree["boot.cfg"] = CONFIGURATION % (kernel, b" --- ".join(modules))
    disk = mbr_disk([_fat(1, 100, 3000, tree)], sectors=3100)
    path = tmp_path / "disk.dd"
    disk.write_to(path)
    report = verify(path)
    found = [problem for problem in report.problems if problem.structure == "boot.cfg"]
    assert [any(name in problem.message.lower() for problem in found) for name in missing] == [True] * len(missing)
    assert len(found) == len(missing) == len(report.problems)
    with Image.open(path) as image:
        assert {problem.offset for problem in found} <= {image.partitions[1].files["boot.cfg"].extents[0].offset}
    assert main(["verify", str(path)]) == (BAD_INPUT if missing else DONE)
    assert ("no problem in what was checked: " in capsys.readouterr().out) == (not missing)


def test_what_was_not_checked_is_told() -> None:
    report = verify(small_disk())
    assert report.not_checked == ("partition 1: fat12 has no check sums of what is in files; only gzip ones have",)
    assert list(report.not_checked) == report.to_dict()["not_checked"]
    assert f"not checked: {report.not_checked[0]}" in list(report.lines())
    (volume,) = vmfs_volume({"a.txt": b"a"}, "vmfs6")
    told = verify(volume).not_checked
    assert any("check sums" in text for text in told)
    assert any("bitmap of file blocks of vmfs6" in text for text in told)
