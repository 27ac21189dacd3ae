"""An ESX 3i 3.5 disk that only other people's tools had a hand in: no reader of ours is checked against our own
writer alone.

sfdisk writes the partition table, mkfs.fat the volumes, mtools the files, syslinux the boot code and bzip2
compresses the whole. What they put there is deterministic, so that a description of it can be had without them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from tests import support
from tests.support import require_tool, run, run_to_file, unavailable

SECTOR = 512
DISK_SECTORS = 1536000

PARTITION_TABLE = """\
label: dos
label-id: 0x49e2fd2f
unit: sectors
first-lba: 32

4 : start=32, size=8160, type=4, bootable
1 : start=8192, size=1527808, type=5
5 : start=8224, size=98272, type=6
6 : start=106528, size=98272, type=6
7 : start=204832, size=225248, type=fc
8 : start=430112, size=1105888, type=6
"""
"""The layout of an ESX 3i 3.5 image, for sfdisk. Its extended boot records stand where sfdisk puts them: the
first at 8192, each other one in the sector before its partition."""

BOOT_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
"""440 bytes of syslinux for the master boot record."""

BOOT_CFG = """\
kernel=vmkernel.gz
kernelopt=
modules=binmod.tgz --- environ.tgz --- cim.tgz --- oem.tgz --- license.tgz
build=3.5.0-67921
updated=1
bootstate=0
"""

FRAGMENTED = "fragmented.bin"
"""The file of Hypervisor1 that lies in several runs of clusters."""

DELETED = "deleted.bin"
"""The file of Hypervisor1 that was deleted: its entry and its bytes are still there."""


@dataclass(frozen=True, slots=True)
class ToolFile:
    """A file that mcopy copied to a volume."""

    path: str
    """POSIX path from the volume's root, in the case that the volume shows."""
    data: bytes
    modified: datetime
    """Naive, in even seconds, as FAT keeps it."""


@dataclass(frozen=True, slots=True)
class ToolVolume:
    """A FAT volume that mkfs.fat made."""

    number: int
    """Of its partition, as sfdisk numbers them."""
    label: str
    first_lba: int
    """First sector of its partition, in 512-byte sectors from the disk's start."""
    sectors: int
    fat_bits: int
    """12 or 16."""
    sectors_per_cluster: int
    files: Mapping[str, ToolFile]
    """By path. Files that syslinux installed are not among them."""
    directories: tuple[str, ...] = ()
    """Paths, parents before children."""

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return self.sectors_per_cluster * SECTOR


@dataclass(frozen=True, slots=True)
class ToolDisk:
    """The disk and what is in it."""

    image: Path
    """The disk, 786,432,000 bytes as a sparse file."""
    bz2: Path
    """The disk as `bzip2 -9` compressed it: a single stream."""
    volumes: Mapping[str, ToolVolume]
    """By label."""

    def mtools_image(self, label: str) -> str:
        """How mtools' -i names a volume: the disk's path and the volume's offset in bytes."""
        return f"{self.image}@@{self.volumes[label].first_lba * SECTOR}"

    def pbzip2(self) -> Path:
        """The disk as pbzip2 compresses it: many streams, each of 900,000 bytes of the disk."""
        return self._compressed_by("pbzip2")

    def lbzip2(self) -> Path:
        """The disk as lbzip2 compresses it: one stream whose blocks end elsewhere than bzip2's."""
        return self._compressed_by("lbzip2")

    def _compressed_by(self, tool: str) -> Path:
        path = self.image.with_suffix(f".{tool}.bz2")
        if not path.exists():
            # Under a name of this process's own, for another test process may want the same at the same time.
            unfinished = path.with_suffix(f".{os.getpid()}")
            run_to_file(unfinished, tool, "-9", "-c", self.image)
            unfinished.rename(path)
        return path


def build_once(folder: Path) -> ToolDisk:
    """The disk, built in `folder` by whichever test process comes first; the others wait for it."""
    for tool in ("sfdisk", "mkfs.fat", "mcopy", "mmd", "mdel", "mshowfat", "syslinux", "bzip2"):
        require_tool(tool)
    if not BOOT_CODE.exists():
        unavailable(f"{BOOT_CODE} is not installed")

    def make(unfinished: Path) -> None:
        unfinished.mkdir()
        _build(_describe(unfinished))

    return _describe(support.build_once(folder, make))


def _describe(folder: Path) -> ToolDisk:
    volumes = (
        _volume(
            4,
            "Hypervisor0",
            first_lba=32,
            sectors=8160,
            fat_bits=12,
            sectors_per_cluster=4,
            contents={"mboot.c32": 47_404, "syslinux.cfg": b"default mboot.c32\n"},
        ),
        _volume(
            5,
            "Hypervisor1",
            first_lba=8224,
            sectors=98272,
            fat_bits=16,
            sectors_per_cluster=4,
            contents=_bank_files(cluster_size=4 * SECTOR),
        ),
        _volume(
            6,
            "Hypervisor2",
            first_lba=106528,
            sectors=98272,
            fat_bits=16,
            sectors_per_cluster=4,
            # A directory of several clusters: an entry and its long name take 96 of a cluster's 2,048 bytes.
            contents={f"many/number {number:03}.txt": f"{number}\n".encode() for number in range(100)},
            directories=("many",),
        ),
        _volume(
            8,
            "Hypervisor3",
            first_lba=430112,
            sectors=1105888,
            fat_bits=16,
            sectors_per_cluster=32,
            contents={
                "downgrade.log": 33,
                "packages/tools.iso": 100_003,
                "packages/3.5.0/Long Name Of A Descriptor.xml": 777,
            },
            directories=("packages", "packages/3.5.0", "empty"),
        ),
    )
    image = folder / "VMware-VMvisor-big-3.5.0-67921.i386.dd"
    return ToolDisk(image, image.with_suffix(".dd.bz2"), {volume.label: volume for volume in volumes})


def _bank_files(cluster_size: int) -> dict[str, int | bytes]:
    return {
        FRAGMENTED: 10 * cluster_size - 5,
        "vmkernel.gz": 1_500_001,
        "binmod.tgz": 2_000_003,
        "environ.tgz": 300_007,
        "cim.tgz": 700_001,
        "oem.tgz": 40_961,
        "license.tgz": 1_235,
        "boot.cfg": BOOT_CFG.encode(),
        "empty.tgz": 0,
        "one.tgz": 1,
        "cluster.tgz": cluster_size,
        "cluster1.tgz": cluster_size + 1,
        "UPPER.TGZ": 100,
        "lower.TGZ": 200,
        "MixedCase.Tgz": 300,
        "a rather long file name, with two.dots.tar.gz": 5_000,
    }


def _volume(
    number: int,
    label: str,
    *,
    first_lba: int,
    sectors: int,
    fat_bits: int,
    sectors_per_cluster: int,
    contents: Mapping[str, int | bytes],
    directories: tuple[str, ...] = (),
) -> ToolVolume:
    """A volume of files whose contents are given, or only their sizes: those are filled with incompressible bytes."""
    files = {}
    for index, (path, content) in enumerate(contents.items()):
        data = random.Random(f"{label}/{path}").randbytes(content) if isinstance(content, int) else content
        modified = datetime(2007, 12, number, 23, 59, 58) - index * timedelta(days=1, hours=1, minutes=1, seconds=2)
        files[path] = ToolFile(path, data, modified)
    return ToolVolume(number, label, first_lba, sectors, fat_bits, sectors_per_cluster, files, directories)


def _build(disk: ToolDisk) -> None:
    with disk.image.open("wb") as file:
        file.truncate(DISK_SECTORS * SECTOR)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk.image, stdin=PARTITION_TABLE)
    with disk.image.open("r+b") as sectors:
        sectors.write(BOOT_CODE.read_bytes()[:440])

    for volume in disk.volumes.values():
        run(
            "mkfs.fat",
            *("--invariant", "-F", str(volume.fat_bits), "-s", str(volume.sectors_per_cluster)),
            *("-n", volume.label, "-h", str(volume.first_lba), "--offset", str(volume.first_lba)),
            *(disk.image, str(volume.sectors * SECTOR // 1024)),
        )
    run("syslinux", "--install", "--offset", str(disk.volumes["Hypervisor0"].first_lba * SECTOR), disk.image)

    staging = disk.image.parent / "staging"
    for volume in disk.volumes.values():
        image = disk.mtools_image(volume.label)
        for directory in volume.directories:
            run("mmd", "-i", image, f"::/{directory}")
        files = list(volume.files.values())
        if volume.label == "Hypervisor1":
            _copy_fragmented(image, files.pop(0), volume.cluster_size, staging)
        for folder in sorted({str(PurePosixPath(file.path).parent) for file in files}):
            _copy(image, [file for file in files if str(PurePosixPath(file.path).parent) == folder], folder, staging)

    bank = disk.volumes["Hypervisor1"]
    image = disk.mtools_image(bank.label)
    _copy(image, [ToolFile(DELETED, b"deleted" * 1000, datetime(2007, 1, 1))], ".", staging)
    run("mdel", "-i", image, f"::/{DELETED}")

    run("bzip2", "-9", "--keep", "--force", disk.image)


def _copy(image: str, files: list[ToolFile], directory: str, staging: Path) -> None:
    """Copy files to one directory, with their times (-m)."""
    staging.mkdir(exist_ok=True)
    paths = []
    for file in files:
        path = staging / Path(file.path).name
        path.write_bytes(file.data)
        seconds = file.modified.replace(tzinfo=UTC).timestamp()
        os.utime(path, (seconds, seconds))
        paths.append(path)
    run("mcopy", "-m", "-i", image, *paths, f"::/{directory}")


def _copy_fragmented(image: str, file: ToolFile, cluster_size: int, staging: Path) -> None:
    """Copy a file to a volume that is empty but for two holes of three clusters, which it fills first."""
    hole = bytes(3 * cluster_size)
    made = [
        ToolFile(name, data, datetime(2007, 1, 1))
        for name, data in (("hole1", hole), ("wall1", b"1"), ("hole2", hole), ("wall2", b"2"))
    ]
    _copy(image, made, ".", staging)
    run("mdel", "-i", image, "::/hole1", "::/hole2")
    _copy(image, [file], ".", staging)
    run("mdel", "-i", image, "::/wall1", "::/wall2")
    assert run("mshowfat", "-i", image, f"::/{file.path}").count("<") == 3
