"""Damage to everything that the forge makes: a result, or an error that the call documents."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Mapping

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.exercise import Bounded, exercise_archive, exercise_image
from fuzz.samples import TREE
from vmvisor_image import (
    CorruptImage,
    Image,
    InvalidArgument,
    NotAFileSystem,
    ReadAt,
    Record,
    TruncatedImage,
    open_archive,
)
from vmvisor_image.schemas.fat import Fat16BootSector
from vmvisor_image.schemas.mbr import MasterBootRecord
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.damage import Change, DamagedSource, byte_changes, damaged, field_changes, splices
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, esx35_disk, esx40_disk, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import esx5_disk, esx7_disk
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_modules import tar_archive, vmtar_archive
from vmvisor_image.testing.forge_vhd import vhdx_log_entry, vhdx_with_log
from vmvisor_image.testing.forge_virtual import qcow2_disk, vhd_disk, vhdx_disk, vmdk_disk
from vmvisor_image.testing.forge_vmdk import cowd_extent, sesparse_extent
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume


@functools.cache
def small_disk() -> bytes:
    volume = fat_volume(TREE, sectors=64, root_entries=32)
    disk = mbr_disk([ForgedPartition(1, 6, 8, 64, content=volume)], sectors=80)
    return disk.read_at(0, disk.size)


def whole(image: SparseImage) -> bytes:
    return image.read_at(0, image.size)


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)  # at one time, so that a failure can be had again
    return made.getvalue()


def grains_of(disk: bytes, size: int) -> dict[int, bytes]:
    """The grains of `size` bytes of a disk that are not all zeros, by number."""
    pieces = ((at // size, disk[at : at + size]) for at in range(0, len(disk), size))
    return {number: piece for number, piece in pieces if any(piece)}


def vhdx_not_closed() -> ReadAt:
    """A VHDX whose table is in its log, and not yet in its place."""
    disk = vhdx_disk(small_disk())
    table = 2 << 20
    changes: dict[int, bytes | int] = {table: disk.read_at(table, 4096), 3 << 19: 4096}
    entry = vhdx_log_entry(bytes(range(16)), 1, changes, tail=4096, flushed=disk.size, last=disk.size)
    without = SparseImage(disk.size, [piece for piece in disk.pieces if piece[0] != table])
    return vhdx_with_log(without, bytes(range(16)), [(4096, entry)])


KINDS: dict[str, Callable[[], bytes | ReadAt]] = {
    "MBR": small_disk,
    "ESX 3.5": lambda: esx35_disk(boot=TREE, bank=TREE),
    "ESXi 4": lambda: esx40_disk(boot=TREE, bank=TREE),
    "ESXi 5": lambda: esx5_disk(boot=TREE, bank=TREE),
    "ESXi 7": lambda: esx7_disk(boot=TREE, bank=TREE),
    "FAT12": lambda: fat_volume(TREE, sectors=64, root_entries=32),
    "FAT16": lambda: fat_volume(TREE, sectors=5000, fat_bits=16, sectors_per_cluster=1),
    "FAT32": lambda: fat_volume(TREE, sectors=200, fat_bits=32),
    "VMFS 3": lambda: vmfs_volume(TREE, "vmfs3", size=EXTENT_SIZE + DATA_OFFSET)[0],
    "VMFS 5": lambda: vmfs_volume(TREE, "vmfs5", size=EXTENT_SIZE + DATA_OFFSET)[0],
    "VMFS 6": lambda: vmfs_volume(TREE, "vmfs6", size=EXTENT_SIZE + DATA_OFFSET)[0],
    "VMFS-L": lambda: vmfs_volume(TREE, "vmfs-l", size=EXTENT_SIZE + DATA_OFFSET)[0],
    "ISO 9660": lambda: iso_volume(TREE, links={"link": "../x"}),
    "bzip2": lambda: bz2.compress(small_disk()),
    "gzip": lambda: gzip.compress(small_disk(), mtime=0),
    "xz": lambda: lzma.compress(small_disk(), preset=0),
    "zstd": lambda: zstandard.compress(small_disk()),
    "qcow2": lambda: qcow2_disk(small_disk()),
    "VMDK": lambda: vmdk_disk(small_disk()),
    "VMDK deflated": lambda: vmdk_disk(small_disk(), compressed=True),
    "seSparse": lambda: sesparse_extent(grains_of(small_disk(), 4096), len(small_disk()) // 512),
    "COWD": lambda: cowd_extent(grains_of(small_disk(), 512), len(small_disk()) // 512),
    "VHD": lambda: vhd_disk(small_disk()),
    "VHDX": lambda: vhdx_disk(small_disk()),
    "VHDX with a log": vhdx_not_closed,
    "tar": lambda: tar_archive({"a.dd": small_disk(), **TREE}, links={"l": "/etc"}),
    "vmtar": lambda: vmtar_archive({"a.dd": small_disk(), **TREE}),
    "zip": lambda: zipped({"a.dd": small_disk(), **TREE}),
    "ar": lambda: b"!<arch>\n" + b"a.dd/".ljust(48) + b"%-10d`\n" % len(small_disk()) + small_disk(),
}


@functools.cache
def forged(name: str) -> bytes | ReadAt:
    """Made once: nothing writes to it."""
    return KINDS[name]()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_forged_is_whole(name: str) -> None:
    with Image.open(forged(name), threads=1) as image:
        found = 0
        for partition in image.partitions:
            with contextlib.suppress(NotAFileSystem):
                found += len(partition.files)
        assert found


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_any_damage(name: str, data: st.DataObject) -> None:
    source = Bounded(data.draw(damaged(forged(name))))
    exercise_image(source)
    try:
        archive = open_archive(source)
    except CorruptImage:
        return
    exercise_archive(archive)


@given(st.data())
def test_any_field(data: st.DataObject) -> None:
    disk = small_disk()
    records: list[Record] = [MasterBootRecord.parse(disk), Fat16BootSector.parse(disk, 8 * 512)]
    exercise_image(Bounded(data.draw(damaged(disk, records=records))))


@given(st.data())
def test_a_field_is_changed_as_it_is_written(data: st.DataObject) -> None:
    change = data.draw(field_changes(MasterBootRecord, at=1000))
    assert change.offset >= 1000
    assert change.offset + len(change.data) <= 1000 + MasterBootRecord.length()
    record = Fat16BootSector.parse(small_disk(), 8 * 512)
    assert 8 * 512 <= data.draw(field_changes(record)).offset < 9 * 512


@given(st.data())
def test_where_a_record_lies_must_be_known(data: st.DataObject) -> None:
    with pytest.raises(InvalidArgument, match="must be known"):
        data.draw(field_changes(MasterBootRecord))


@given(st.data())
def test_damage_lies_where_it_says(data: st.DataObject) -> None:
    valid = bytes(range(256)) * 8
    changes = data.draw(st.lists(byte_changes(valid) | splices(valid), max_size=4))
    size = data.draw(st.integers(0, len(valid)))
    source = DamagedSource(BytesSource(valid), changes, size)
    wanted = bytearray(valid)
    for change in changes:
        wanted[change.offset : change.offset + len(change.data)] = change.data
    assert read_up_to(source, 0, len(valid)) == bytes(wanted[:size])
    with pytest.raises(TruncatedImage):
        source.read_at(0, size + 1)


def test_zeros_are_skipped_up_to_the_damage() -> None:
    source = DamagedSource(SparseImage(1 << 40, [(0, b"x")]), [Change(1 << 30, b"y")])
    assert source.skip_zeros(1, 1 << 40) == 1 << 30
    assert source.skip_zeros((1 << 30) + 1, 1 << 40) == 1 << 40
    assert "DamagedSource" in repr(source)
    with pytest.raises(InvalidArgument, match="left of"):
        DamagedSource(BytesSource(b"x"), size=2)
