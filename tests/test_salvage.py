"""A damaged .dd.bz2 whose healthy blocks are put in their place: what is lost is what the damaged blocks held."""

from __future__ import annotations

import bz2
import functools
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from vmvisor_image import CorruptImage, Image, NotAFileSystem, PartitionNotFound, inspect
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.bridged import BridgedReader
from vmvisor_image.bzip2.index import BlockEntry
from vmvisor_image.errors import InvalidArgument
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

CHUNK = 900_000


def contents(number: int) -> dict[str, bytes]:
    generator = random.Random(number)
    return {f"file{n:02}": generator.randbytes(generator.randrange(1000, 120_000)) for n in range(25)}


VOLUMES = {f"VOLUME{number}": contents(number) for number in (1, 2, 3)}


@pytest.fixture(scope="module")
def disk() -> bytes:
    partitions = []
    for number, (label, files) in enumerate(VOLUMES.items()):
        volume = fat_volume(files, label=label, sectors=8192, sectors_per_cluster=4)
        partitions.append(ForgedPartition(number + 1, 6, 64 + number * 8192, 8192, content=volume))
    image = mbr_disk(partitions, sectors=64 + 3 * 8192)
    return image.read_at(0, image.size)


def several_streams(data: bytes) -> bytes:
    """As pbzip2 and lbzip2 write it."""
    return b"".join(bz2.compress(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))


def damage(compressed: bytes, at: int, length: int = 4) -> bytes:
    """Other bytes in the middle of a block."""
    return compressed[:at] + bytes(byte ^ 0xFF for byte in compressed[at : at + length]) + compressed[at + length :]


@functools.cache
def compressed_by(compress: Callable[[bytes], bytes], disk: bytes) -> bytes:
    """Once for all tests."""
    return compress(disk)


@functools.cache
def blocks_of(compressed: bytes) -> list[BlockEntry]:
    """The blocks of healthy data."""
    reader = Bzip2Reader(BytesSource(compressed))
    _ = reader.size
    index = reader._walk.index
    return [index[number] for number in range(len(index))]


def block_at(compressed: bytes, bit: int) -> tuple[int, int]:
    """First decoded byte, and the one behind, of the healthy block that has that bit of the compressed data."""
    entries = blocks_of(compressed)
    return next((entry.start, entry.start + entry.size) for entry in entries if entry.end_bit > bit)


def read_all(image: Image) -> tuple[set[str], set[str]]:
    """Files that are right and files that can't be read; a wrong one is an error."""
    right, lost = set(), set()
    for label, files in VOLUMES.items():
        for name, data in files.items():
            try:
                assert image.partitions[label].files[name].read_bytes() == data
                right.add(f"{label}/{name}")
            except (CorruptImage, PartitionNotFound, NotAFileSystem):  # or even its boot sector
                lost.add(f"{label}/{name}")
    return right, lost


@pytest.mark.parametrize("compress", [bz2.compress, several_streams])
@pytest.mark.parametrize("place", [0.3, 0.5, 0.62, 0.8])
def test_only_what_the_damaged_block_held_is_lost(
    disk: bytes, compress: Callable[[bytes], bytes], place: float
) -> None:
    compressed = compressed_by(compress, disk)
    damaged = damage(compressed, int(len(compressed) * place))
    with Image.open(damaged, salvage=True) as image:
        bridged = image.layers[0].source
        assert isinstance(bridged, BridgedReader)
        start, end = bridged.lost
        assert (start, end) == block_at(compressed, int(len(compressed) * place) * 8)
        assert image.size == len(disk)
        assert image.read_at(0, start) == disk[:start]
        assert image.read_at(end, len(disk) - end) == disk[end:]
        with pytest.raises(CorruptImage, match="are lost in damaged blocks"):
            image.read_at(start, 1)
        right, lost = read_all(image)
        expected = set()
        for number, (label, files) in enumerate(VOLUMES.items(), 1):
            try:
                tree = image.partitions[number].files
            except NotAFileSystem:  # its boot sector is lost
                expected |= {f"{label}/{name}" for name in files}
                continue
            expected |= {
                f"{label}/{file.path}"
                for file in tree.values()
                if any(extent.offset < end and extent.offset + extent.length > start for extent in file.extents)
            }
        assert lost == expected
        assert right | lost == {f"{label}/{name}" for label, files in VOLUMES.items() for name in files}
        assert any(f"{start:#x} to {end:#x} (exclusive) of the disk are lost" in str(p) for p in image.problems)
        assert pickle.loads(pickle.dumps(image)).size == len(disk)


def test_without_salvage_all_behind_is_lost(disk: bytes) -> None:
    compressed = compressed_by(bz2.compress, disk)
    with Image.open(damage(compressed, len(compressed) // 2)) as image:
        assert image.partitions["VOLUME1"].files["file00"].read_bytes() == VOLUMES["VOLUME1"]["file00"]
        with pytest.raises(CorruptImage):
            image.read_at(len(disk) - 512, 512)


def test_two_damaged_places(disk: bytes) -> None:
    """What is between them has no place; before the first and behind the second all is right."""
    compressed = compressed_by(bz2.compress, disk)
    damaged = damage(damage(compressed, len(compressed) // 4), len(compressed) * 3 // 5)
    with Image.open(damaged, salvage=True) as image:
        bridged = image.layers[0].source
        assert isinstance(bridged, BridgedReader)
        start, end = bridged.lost
        assert image.read_at(0, start) == disk[:start]
        assert image.read_at(end, len(disk) - end) == disk[end:]
        right, _ = read_all(image)
        assert "VOLUME3" in {name.partition("/")[0] for name in right}


def test_healthy_data_is_read_as_ever(disk: bytes) -> None:
    with Image.open(compressed_by(bz2.compress, disk), salvage=True) as image:
        assert isinstance(image.layers[0].source, Bzip2Reader)
        assert image.problems == ()
    source = BytesSource(compressed_by(bz2.compress, disk))
    with pytest.raises(InvalidArgument, match="not damaged"):
        BridgedReader(Bzip2Reader(source), source, len(disk))


@pytest.mark.parametrize("size", [0, 3_000_000, 1 << 50])
def test_a_size_that_can_t_be_right(disk: bytes, size: int) -> None:
    compressed = compressed_by(bz2.compress, disk)
    source = BytesSource(damage(compressed, len(compressed) // 2))
    if size == 1 << 50:  # nothing tells that this is wrong but the disk; what is lost is then as large
        assert BridgedReader(Bzip2Reader(source), source, size).lost[1] > 1 << 49
        return
    with pytest.raises(CorruptImage, match="can't be placed"):
        BridgedReader(Bzip2Reader(source), source, size)


def test_a_source_cut_off(disk: bytes) -> None:
    compressed = compressed_by(bz2.compress, disk)
    with Image.open(compressed[: len(compressed) * 2 // 3], salvage=True) as image:
        assert isinstance(image.layers[0].source, Bzip2Reader)  # nothing reaches to the end
        assert image.read_at(0, 1 << 20) == disk[: 1 << 20]


def test_the_command_line_and_the_report(disk: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compressed = compressed_by(bz2.compress, disk)
    path = tmp_path / "image.dd.bz2"
    path.write_bytes(damage(compressed, len(compressed) // 2))
    report = inspect(path, salvage=True)
    assert [len(partition.files) for partition in report.partitions] == [25, 25, 25]
    assert main(["info", str(path), "--salvage"]) == 1
    said = capsys.readouterr()
    assert "of the disk are lost" in said.out
    assert "of the disk are lost" in said.err, "damage that is known is told, too"
    out = tmp_path / "out"
    assert main(["extract", str(path), "3", str(out)]) != 0
    assert main(["extract", str(path), "3", str(out), "--salvage"]) == 1  # the image is damaged, if elsewhere
    assert {item.name: item.read_bytes() for item in out.iterdir()} == VOLUMES["VOLUME3"]
