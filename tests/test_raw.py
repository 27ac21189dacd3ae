"""Writing raw disks: what qemu-img makes of the same source, with holes, whole or not at all."""

from __future__ import annotations

import bz2
import os
import random
import re
from pathlib import Path

import pytest

from tests.support import run
from vmvisor_image import (
    CorruptImage,
    DestinationExists,
    DestinationFailed,
    Image,
    LimitExceeded,
    Limits,
    SourceChanged,
    SourceError,
    convert,
)
from vmvisor_image.disk import raw
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.source import Source
from vmvisor_image.streams.sources import BytesSource

KIB, MIB = 1 << 10, 1 << 20


def qemu_io(path: Path, kind: str, *commands: str) -> None:
    given = [part for command in commands for part in ("-c", command)]
    run("qemu-io", "-f", kind, *given, path)


@pytest.fixture(params=["qcow2", "vmdk"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Three disks that rest on each other, with random writes, zeros and holes in each."""
    kind, chosen = str(request.param), random.Random(3)
    size = 24 * MIB + 512
    for number in range(3):
        path = tmp_path / f"{number}.{kind}"
        under = ("-b", tmp_path / f"{number - 1}.{kind}", "-F", kind)
        run("qemu-img", "create", "-f", kind, *(under if number else ()), path, str(size))
        writes = []
        for _ in range(20):
            at, what = 512 * chosen.randrange(size // 512 - 1024), chosen.choice([f"-P {number + 1}", "-z"])
            writes.append(f"write {what} {at} {chosen.choice([512, 64 * KIB, 200 * KIB])}")
        qemu_io(path, kind, *writes)
    return path


class Failing(Source):
    """A source with an error of its own from some byte on."""

    size = 8 * MIB

    def __init__(self, first: int, error: Exception) -> None:
        self._first = first
        self._error = error

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > self._first:
            raise self._error
        return b"x" * length


class Endless(BytesSource):
    """Bytes whose number is known only once they were read."""

    @property
    def size_is_known(self) -> bool:
        return False


def test_a_chain_as_qemu_converts_it(chain: Path, tmp_path: Path) -> None:
    dest = tmp_path / "ours.raw"
    done = convert(chain, dest)
    run("qemu-img", "convert", "-O", "raw", chain, tmp_path / "theirs.raw")
    assert dest.read_bytes() == (tmp_path / "theirs.raw").read_bytes()
    assert (done.path, done.size, done.compressed, done.resumed_at) == (dest, dest.stat().st_size, done.size, 0)
    assert "identical" in run("qemu-img", "compare", "-F", "raw", chain, dest)
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("size", [0, 1, 511, 64 * KIB, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB + 7])
@pytest.mark.parametrize("kind", [BytesSource, Endless])
def test_every_length(size: int, kind: type[BytesSource], tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    assert convert(kind(data), tmp_path / "x.img").size == size
    assert (tmp_path / "x.img").read_bytes() == data


@pytest.mark.parametrize("name", ["x.raw", "x.img", "x.dd", "X.RAW"])
def test_the_name_decides(name: str, tmp_path: Path) -> None:
    convert(BytesSource(b"abc" * 1000), tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"abc" * 1000


def test_zeros_are_holes(tmp_path: Path) -> None:
    """Also those that are found only by reading; data in between is written as it is."""
    data = bytes(3 * MIB) + b"a" + bytes(MIB - 1) + b"b" * 100_000 + bytes(MIB)
    dest = tmp_path / "x.raw"
    convert(BytesSource(data), dest)
    assert dest.read_bytes() == data
    assert dest.stat().st_blocks * 512 <= 64 * KIB + 100_000 + 3 * 64 * KIB


def test_holes_of_the_source_are_not_read(tmp_path: Path) -> None:
    disk = tmp_path / "thin.qcow2"
    run("qemu-img", "create", "-f", "qcow2", disk, "2T")
    qemu_io(disk, "qcow2", "write -P 7 1T 64k", "write -P 8 2199023190016 64k")
    done = []
    convert(disk, tmp_path / "thin.raw", progress=lambda size, _: done.append(size))
    assert (tmp_path / "thin.raw").stat().st_size == 2 << 40
    assert len(done) <= 4
    with (tmp_path / "thin.raw").open("rb") as file:
        assert os.pread(file.fileno(), 64 * KIB, 1 << 40) == b"\7" * 64 * KIB
        assert os.pread(file.fileno(), 64 * KIB, 2199023190016) == b"\10" * 64 * KIB


def test_the_system_copies_what_lies_in_files(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't, the bytes are read."""
    copied: list[int] = []
    copy = os.copy_file_range

    def counted(*given: int) -> int:
        copied.append(copy(*given))
        return copied[-1]

    def fail(*_: int) -> int:
        raise OSError(18, "Invalid cross-device link")

    for name, way in (("copied", counted), ("refused", fail)):
        monkeypatch.setattr(os, "copy_file_range", way)
        convert(chain, tmp_path / f"{name}.raw")
    monkeypatch.delattr(os, "copy_file_range")
    convert(chain, tmp_path / "read.raw")
    contents = {(tmp_path / f"{name}.raw").read_bytes() for name in ("copied", "refused", "read")}
    assert len(contents) == 1
    with Image.open(chain) as image:
        disk, own = image.layers[-1].source, 0
        assert isinstance(disk, MappedDisk)
        at = 0
        while at < disk.size:
            place = disk.locate_through(at, disk.size)
            own += 0 if place.source is None else place.end - at
            at = place.end
    assert 0 < sum(copied) <= own


def test_a_file_that_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5 * MIB)
    with Image.open(path) as image:
        path.write_bytes(b"y" * 6 * MIB)
        with pytest.raises(SourceChanged):
            convert(image, tmp_path / "x.raw")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_a_compressed_image(tmp_path: Path) -> None:
    data = random.Random(9).randbytes(3 * MIB) + bytes(MIB)
    (tmp_path / "x.bz2").write_bytes(bz2.compress(data))
    seen: list[int] = []
    with Image.open(tmp_path / "x.bz2") as image:
        convert(image, tmp_path / "x.raw", progress=lambda size, _: seen.append(size))
    assert (tmp_path / "x.raw").read_bytes() == data
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


@pytest.mark.parametrize("error", [CorruptImage("it is bad", structure="test", offset=3 * MIB), OSError(5, "I/O")])
def test_a_damaged_source_leaves_no_file(error: Exception, tmp_path: Path) -> None:
    expected = CorruptImage if isinstance(error, CorruptImage) else SourceError
    with pytest.raises(expected):
        convert(Failing(3 * MIB, error), tmp_path / "x.raw")
    assert list(tmp_path.iterdir()) == []


def test_the_error_is_of_the_first_place(tmp_path: Path) -> None:
    class Bad(Failing):
        def read_at(self, offset: int, length: int) -> bytes:
            if offset >= 2 * MIB:
                raise CorruptImage("it is bad", structure="test", offset=offset)
            return b"x" * length

    for _ in range(20):
        with pytest.raises(CorruptImage) as caught:
            convert(Bad(0, OSError()), tmp_path / "x.raw")
        assert caught.value.offset == 2 * MIB


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(DestinationFailed, match=r"x\.raw: there is no room left"):
        convert(BytesSource(b"x" * 5 * MIB), tmp_path / "x.raw")
    assert list(tmp_path.iterdir()) == []


def test_without_pwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows; two threads take turns."""
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.delattr(os, "preadv")
    data = random.Random(2).randbytes(9 * MIB)
    (tmp_path / "x").write_bytes(data)
    convert(tmp_path / "x", tmp_path / "x.raw")
    assert (tmp_path / "x.raw").read_bytes() == data


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, _: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(BytesSource(b"x" * 9 * MIB), tmp_path / "x.raw", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_limits_hold_in_the_threads(tmp_path: Path) -> None:
    (tmp_path / "x.bz2").write_bytes(bz2.compress(random.Random(1).randbytes(8 * MIB)))
    limits = Limits(decoded_bytes=3 * MIB)
    with Image.open(tmp_path / "x.bz2", limits=limits) as image, pytest.raises(LimitExceeded):
        convert(image, tmp_path / "x.raw")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bz2"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    dest = tmp_path / "x.raw"
    dest.write_bytes(b"old")
    with pytest.raises(DestinationExists):
        convert(BytesSource(b"new"), dest)
    with pytest.raises(DestinationExists, match="the image itself"):
        convert(dest, dest, overwrite=True)
    convert(BytesSource(b"new"), dest, overwrite=True)
    assert dest.read_bytes() == b"new"


def test_no_more_is_held_than_two_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    class Watched(BytesSource):
        def read_into(self, offset: int, buffer: memoryview) -> int:
            lengths.append(len(buffer))
            return super().read_into(offset, buffer)

    monkeypatch.setattr(raw, "_CHUNK", 64 * KIB)
    convert(Watched(b"x" * MIB), tmp_path / "x.raw")
    assert set(lengths) == {64 * KIB}
    assert len(lengths) == 16


def test_the_command(chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "out.raw"
    qemu_io(chain, chain.suffix[1:], "write -P 0x55 510 1", "write -P 0xaa 511 1")  # an empty partition table
    assert main(["convert", str(chain), str(dest)]) == 0
    assert re.fullmatch(rf"{re.escape(str(dest))}: {dest.stat().st_size} bytes\n", capsys.readouterr().out)
    assert main(["convert", str(chain), str(dest)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
