"""Whole disks of the three generations, with anything around them, as damage to forged ones."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma

from fuzz.exercise import Bounded, exercise_image
from fuzz.patches import Patches
from fuzz.samples import TREE
from vmvisor_image.testing.forge import ForgedPartition, esx35_disk, esx40_disk, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import esx5_disk, esx7_disk
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_modules import tar_archive
from vmvisor_image.testing.forge_virtual import qcow2_disk, vhd_disk, vmdk_disk

_BANK = {**TREE, "boot.cfg": b"kernel=k\nmodules=a --- b\nbuild=8.0.0-1\nupdated=1\nbootstate=0\n"}


@functools.cache
def _base(number: int) -> Patches:
    make = (esx35_disk, esx40_disk, esx5_disk, esx7_disk)[number]
    return Patches(make(boot=TREE, bank=_BANK), exercise_image)


def _disk() -> bytes:
    volume = fat_volume(TREE, sectors=16, root_entries=16)
    disk = mbr_disk([ForgedPartition(1, 6, 1, 16, content=volume)], sectors=17)
    return disk.read_at(0, disk.size)


def seeds() -> list[bytes]:
    disk = _disk()
    wrapped = [bz2.compress(disk), gzip.compress(disk, mtime=0), lzma.compress(disk), qcow2_disk(disk), vmdk_disk(disk)]
    wrapped += [vhd_disk(disk), iso_volume({"imagedd.bz2": bz2.compress(disk)}), tar_archive({"a.dd": disk}), disk]
    return [b"\xff" + each for each in wrapped] + [bytes((number, *bytes(32))) for number in range(4)]


def one_input(data: bytes) -> None:
    """The first byte says whether the rest is an image, or damage to which of the forged ones."""
    if data[:1] > b"\x7f":
        exercise_image(Bounded(data[1:]))
    elif data:
        exercise_image(Bounded(_base(data[0] % 4).patched(data[1:])))
