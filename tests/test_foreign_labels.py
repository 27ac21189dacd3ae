"""Disk labels of other systems: they are named, and no master boot record is made up of their bytes."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from tests.support import run
from vmvisor_image import Image
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.mbr import is_plausible
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

ENTRY = struct.pack("<B3xB3xII", 0x80, 6, 64, 4096)
"""A partition of a master boot record."""


def labelled(at: int, magic: bytes, further: dict[int, bytes] | None = None, *, signature: bytes = b"") -> bytes:
    """A disk whose bytes would be a table with one partition, but for a magic."""
    disk = bytearray(4 << 20)
    for place, data in {446: ENTRY, at: magic, **(further or {})}.items():
        disk[place : place + len(data)] = data
    disk[510 : 510 + len(signature)] = signature
    return bytes(disk)


def pttype(disk: bytes, path: Path) -> str:
    path.write_bytes(disk)
    return run("blkid", "-p", "-o", "value", "-s", "PTTYPE", path).strip()


@pytest.mark.parametrize("label", ["sun", "sgi"])
@pytest.mark.parametrize("megabytes", [30, 64])
def test_labels_that_sfdisk_makes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], label: str, megabytes: int
) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    run("sfdisk", "-q", path, stdin=f"label: {label}\n,5M\n,10M\n,8M\n")
    assert json.loads(run("sfdisk", "-J", path))["partitiontable"]["label"] == label
    with Image.open(path) as image:
        assert list(image.partitions) == []
        assert image.scheme == "none"
        assert any(f"{label} disk label" in problem.message.lower() for problem in image.problems)
    main(["info", str(path)])
    assert f"{label} disk label" in "".join(capsys.readouterr()).lower()


@pytest.mark.parametrize(
    ("at", "magic", "further", "name"),
    [
        (508, b"\xda\xbe", {}, "Sun"),
        (0, b"\x0b\xe5\xa9\x41", {}, "SGI"),
        (0, b"\xc9\xc2\xd4\xc1", {}, "AIX"),
        (0, b"ER\x02\x00", {512: b"PM"}, "Apple"),
        (0, b"ER\x02\x00", {512: b"TS"}, "Apple"),
        (512, b"\x57\x45\x56\x82", {}, "BSD"),
        (0x40, b"\x57\x45\x56\x82", {}, "BSD"),
    ],
)
def test_magics(at: int, magic: bytes, further: dict[int, bytes], name: str) -> None:
    disk = labelled(at, magic, further)
    assert is_plausible(disk[:512]), "the test itself is wrong"
    with Image.open(disk) as image:
        assert list(image.partitions) == []
        assert any(name in problem.message for problem in image.problems)
        assert not any("GPT" in problem.structure for problem in image.problems), "nobody said that there is one"
    if name != "Sun":  # its last bytes are where 55 AA is
        with Image.open(labelled(at, magic, further, signature=b"\x55\xaa")) as image:
            assert len(image.partitions) == 1, "a master boot record stays one, whatever is beside it"


@pytest.mark.parametrize(
    "magic",
    [b"MZ", b"\x7fELF\2\1\1", b"\x04\x22\x4d\x18", b"7z\xbc\xaf\x27\x1c"],
    ids=["DOS program", "ELF", "LZ4", "7-Zip"],
)
def test_a_file_whose_bytes_would_be_a_table_is_no_disk(magic: bytes) -> None:
    disk = labelled(0, magic)
    assert is_plausible(disk[:512]), "the test itself is wrong"
    with Image.open(disk) as image:
        assert image.scheme == "none"
        assert list(image.partitions) == []
    with Image.open(labelled(0, magic, signature=b"\x55\xaa")) as image:
        assert len(image.partitions) == 1, "with 55 AA it is one, whatever the boot code begins with"
    with Image.open(labelled(0, bytes(8))) as image:
        assert len(image.partitions) == 1, "a lost 55 AA costs no disk"


def test_a_sun_label_whose_check_sum_is_55_aa(tmp_path: Path) -> None:
    disk = bytearray(labelled(508, b"\xda\xbe", signature=b"\x55\xaa"))
    words = struct.unpack(">256H", disk[:512])
    parity = 0
    for word in words:
        parity ^= word
    disk[0:2] = struct.pack(">H", parity)
    with Image.open(bytes(disk)) as image:
        assert list(image.partitions) == []
    disk[2] ^= 1  # the check sum is wrong, and 55 AA is there
    with Image.open(bytes(disk)) as image:
        assert len(image.partitions) == 1
    assert pttype(bytes(disk), tmp_path / "disk") == "dos"


def test_random_sectors_with_a_plausible_table_are_as_before() -> None:
    chance = random.Random(1)
    for _ in range(50):
        disk = bytearray(labelled(446, ENTRY))
        disk[:440] = chance.randbytes(440)
        with Image.open(bytes(disk)) as image:
            assert len(image.partitions) == 1


@pytest.mark.parametrize("damaged", [None, 1, 2])
@pytest.mark.parametrize("unit", [512, 4096])
def test_the_sector_size_of_a_table_is_not_told_by_one_damaged_volume(unit: int, damaged: int | None) -> None:
    """A disk of 4096-byte sectors with three volumes, of which one has lost its boot sector."""
    starts = {1: 256, 2: 2048, 3: 4096}
    volume = fat_volume({"a.txt": b"a"}, sectors=300)
    disk = bytearray(4096 * unit + (1 << 20))
    entries = [ForgedPartition(number, 6, start, 100) for number, start in starts.items()]
    disk[:512] = mbr_disk(entries, sectors=5000).read_at(0, 512)
    for number, start in starts.items():
        data = volume.read_at(0, volume.size)
        disk[start * unit : start * unit + len(data)] = bytes(512) + data[512:] if number == damaged else data
    with Image.open(BytesSource(bytes(disk))) as image:
        assert [partition.start for partition in image.partitions] == [start * unit for start in starts.values()]
        assert [partition.kind for partition in image.partitions].count("fat12") == 3 - (damaged is not None)
