"""What `repr` says: one short line, without reading, and never an error."""

from __future__ import annotations

import bz2
import re
from pathlib import Path

import pytest

from tests.support import Counting, Unreadable
from tests.tool_disk import ToolDisk
from vmvisor_image import Image, Problem, inspect, verify
from vmvisor_image.examine.survey import survey
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

LONGEST = 160
"""Characters of a line that two lines of a terminal hold."""


def two_volumes() -> bytes:
    files = {"boot.cfg": b"kernel=k\nbuild=4.1.0-260247\n", "k": b"kernel", "sub/x": b""}
    partitions = [
        ForgedPartition(1, 6, 1, 2000, content=fat_volume(files, sectors=2000, label="Hypervisor1")),
        ForgedPartition(2, 5, 2010, 1900),
        ForgedPartition(5, 6, 2042, 300),
        ForgedPartition(6, 0xFC, 2400, 100),
    ]
    return b"".join(mbr_disk(partitions, sectors=4000).chunks())


def test_of_a_disk(tool_built_disk: ToolDisk) -> None:
    with Image.open(tool_built_disk.image) as image:
        partition = image.partitions["Hypervisor1"]
        system = image.system()
        values: list[object] = [
            image,
            image.partitions,
            partition,
            partition.volume,
            partition.files,
            partition.files.root,
        ]
        values += [partition.files["boot.cfg"], partition.survey(), partition.hexdump(), system]
        values += [system.files, image.partitions[7].volume, inspect(image), verify(image), *image.problems]
        shown = [repr(value) for value in values]
    for text in shown:
        assert re.fullmatch(r"<[A-Z]\w+ .+>", text), text
        assert len(text) <= LONGEST, text
        assert " object at 0x" not in text


def test_words() -> None:
    image = Image.open(two_volumes())
    first = image.partitions[1]
    assert repr(image.partitions) == "<PartitionTable mbr, 4 partitions: 1, 2, 5, 6>"
    assert repr(first.volume) == "<FatVolume fat12 at byte 0x200>"
    assert first.label == "Hypervisor1"
    assert repr(first.volume) == "<FatVolume fat12 'Hypervisor1' at byte 0x200>"
    assert repr(image.partitions[6].volume) == "<DiagnosticPartition vmkcore at byte 0x12c000>"
    assert repr(first.files) == "<FileTree of partition 1, <Directory '/', 3 entries>>"
    below = first.files.root / "sub"
    assert repr(below) == "<Directory 'sub'>"
    assert list(below.iterdir())
    assert repr(below) == "<Directory 'sub', 1 entry>"
    system = image.system()
    assert repr(system) == "<System of partition 1>"
    assert system.build == "260247"
    assert repr(system) == "<System of partition 1: VMware ESXi 4.1.0 build 260247>"
    assert repr(system.files) == "<SystemTree of 1 module>"
    assert repr(inspect(two_volumes())) == "<ImageReport of an image: mbr, ESXi 4.x, 4 partitions, 0 problems>"
    assert repr(verify(fat_volume({}, sectors=100))) == "<VerificationReport of an image: none, 1 partition, sound>"
    assert repr(Problem("a", "it\nis", 16)) == r"<Problem 'a at byte 0x10: it\nis'>"


def test_of_a_survey() -> None:
    data = bytes(1 << 16) + bytes(range(256)) * 256
    source = Unreadable(BytesSource(data), 0x18000, 0x18001)
    assert repr(survey(source)) == (
        "<Survey of 131072 bytes: 128/256 blocks of 512 are all zeros, 1 can't be read, entropy 0.0 to 8.0>"
    )
    assert repr(survey(BytesSource(b""))) == "<Survey of 0 bytes: 0/0 blocks of 512 are all zeros>"


def test_reads_nothing() -> None:
    """But for a partition table, of which nothing could be said."""
    source = Counting(BytesSource(two_volumes()))
    image = Image.open(source)
    partitions = list(image.partitions)
    system = image.system()
    values = [partitions[0].volume, partitions[0].files, partitions[0].files.root, system, system.files]
    read = len(source.reads)
    for value in [*partitions, *values]:
        repr(value)
    assert len(source.reads) == read


class TestNeverAnError:
    def test_of_a_closed_image(self, tmp_path: Path) -> None:
        path = tmp_path / "x.dd"
        path.write_bytes(two_volumes())
        with Image.open(path) as image:
            partitions = image.partitions
            first = partitions[1]
            tree = first.files
        assert repr(image) == f"<Image {str(path)!r}>"
        assert repr(partitions) == "<PartitionTable mbr, 2 partitions found so far: 1, 2>"
        assert repr(tree) == "<FileTree of partition 1, <Directory '/'>>"
        assert "Partition 1" in repr(first)

    @pytest.mark.parametrize("size", [400, 600, 5000])
    def test_of_a_damaged_one(self, size: int) -> None:
        packed = bz2.compress(two_volumes())
        image = Image.open(packed[:size])
        assert repr(image)
        try:
            table = image.partitions
        except Exception:  # noqa: BLE001  # there is no table to show
            return
        assert repr(table).startswith("<PartitionTable ")


def test_of_many_partitions() -> None:
    partitions = [ForgedPartition(1, 5, 1, 5000)]
    partitions += [ForgedPartition(number, 6, 40 * (number - 4), 4) for number in range(5, 55)]
    assert repr(Image.open(mbr_disk(partitions, sectors=6000)).partitions) == (
        "<PartitionTable mbr, 51 partitions: 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, …>"
    )
