"""What reading a chain costs, in look-ups of tables, reads of files and copies of bytes; and thin disks of 2 TB."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import require_tool
from vmvisor_image import Image, SourceChanged
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.mapped import MappedDisk, Packed, Run
from vmvisor_image.streams.sources import BytesSource, FileSource

CLUSTER = 1 << 16
SIZE = 64 * CLUSTER
TERABYTE = 1 << 40


class Counting(FileSource):
    """A file that counts its reads and the bytes that they gave."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads = self.bytes_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        data = super().read_at(offset, length)
        self.reads += 1
        self.bytes_read += length
        return data


class Link:
    """One disk of a chain: all of it in one run for the lowest, every few clusters for those above."""

    def __init__(self, number: int, parent: MappedDisk | None) -> None:
        self.data = random.Random(number).randbytes(SIZE)
        self.number = number
        self.located = 0
        under = None if parent is None else Parent("qcow2", "below", parent)
        self.disk = MappedDisk("test", BytesSource(self.data), SIZE, self._locate, parent=under)

    def _locate(self, offset: int, _: int) -> Run:
        self.located += 1
        if not self.number:
            return Run(SIZE - offset, offset)
        cluster, within = divmod(offset, CLUSTER)
        left = CLUSTER - within
        match (cluster + self.number) % 12:
            case 0:
                return Run(left, offset)
            case 1:
                return Run(left)
            case 2:
                first = cluster * CLUSTER
                return Run(left, packed=Packed(first, lambda: self.data[first : first + CLUSTER], within))
        return Run(left, is_hole=True)

    def expected(self, cluster: int, below: bytes) -> bytes:
        match (cluster + self.number) % 12:
            case 0 | 2:
                return self.data[cluster * CLUSTER : (cluster + 1) * CLUSTER]
            case 1:
                return bytes(CLUSTER)
        return below


def chain() -> tuple[list[Link], bytes]:
    links: list[Link] = []
    for number in range(5):
        links.append(Link(number, links[-1].disk if links else None))
    content = bytearray()
    for cluster in range(SIZE // CLUSTER):
        data = links[0].data[cluster * CLUSTER : (cluster + 1) * CLUSTER]
        for link in links[1:]:
            data = link.expected(cluster, data)
        content += data
    return links, bytes(content)


@pytest.mark.parametrize("step", [4096, CLUSTER, 1 << 20])
def test_a_run_is_looked_up_once_however_the_disks_above_cut_it(step: int) -> None:
    links, content = chain()
    disk = links[-1].disk
    assert b"".join(disk.read_at(at, step) for at in range(0, SIZE, step)) == content
    assert links[0].located == 1
    assert all(link.located <= SIZE // CLUSTER for link in links)


@pytest.mark.parametrize("seed", range(8))
def test_both_ways_of_reading_agree(seed: int) -> None:
    links, content = chain()
    disk = links[-1].disk
    chance = random.Random(seed)
    for _ in range(60):
        offset = chance.randrange(SIZE + CLUSTER)
        length = chance.choice([0, 1, 511, 4096, CLUSTER + 1, 9 * CLUSTER])
        buffer = bytearray(b"\xff" * length)
        count = disk.read_into(offset, memoryview(buffer))
        assert buffer == content[offset : offset + length].ljust(length, b"\xff")
        assert count == len(content[offset : offset + length])
        assert disk.read_at(min(offset, SIZE), count) == content[offset : offset + count]


def test_a_read_through_many_runs_is_held_in_memory_once() -> None:
    disk = chain()[0][-1].disk
    disk.read_at(0, SIZE)
    tracemalloc.start()
    try:
        data = disk.read_at(0, SIZE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) == SIZE
    assert peak < SIZE + 4 * CLUSTER


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="the system has no preadv")
def test_the_file_is_read_into_the_buffer_and_its_failures_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_bytes(b"abcdefgh")
    source = Counting(tmp_path / "data")
    buffer = bytearray(b"........")
    assert source.read_into(2, memoryview(buffer)) == 6
    assert buffer == b"cdefgh.."
    assert source.read_into(8, memoryview(buffer)) == 0
    assert source.reads == 0

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        assert source.read_into(0, memoryview(buffer)) == 8
    assert buffer == b"abcdefgh"
    assert source.reads == 1
    (tmp_path / "data").write_bytes(b"other text")
    with pytest.raises(SourceChanged):
        source.read_into(0, memoryview(buffer))
    source.close()


def thin_by_qemu(kind: str, options: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"thin.{kind}"
        require_tool("qemu-img")
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, *options.split(), path, "2T"], check=True)
        return path

    return make


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(thin_by_qemu("qcow2", ""), id="qcow2"),
        pytest.param(thin_by_qemu("vmdk", ""), id="vmdk"),
        pytest.param(thin_by_qemu("vhdx", "-o subformat=dynamic"), id="vhdx"),
    ],
)
def test_a_thin_disk_of_2_tb_opens_with_few_reads_and_little_memory(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    with Image.open(path) as image:  # what is imported late is not what is measured
        image.read_at(0, 512)
    source = Counting(path)
    tracemalloc.start()
    try:
        with Image.open(source) as image:
            assert image.size == 2 * TERABYTE
            assert image.read_at(TERABYTE, 4096) == bytes(4096)
            assert image.read_at(2 * TERABYTE - 512, 512) == bytes(512)
            assert image.scheme == "none"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        source.close()
    assert source.reads < 60
    assert source.bytes_read < 2 << 20
    assert peak < 4 << 20
