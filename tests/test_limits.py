"""What reading may cost: small files that claim to be large, and operations that are given up in time."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import Counting
from vmvisor_image import Image, InvalidArgument, LimitExceeded, Limits, inspect, open_archive
from vmvisor_image.base.limits import Meter
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.compressions.sequential import PIECE, SequentialReader
from vmvisor_image.faces.cli import main
from vmvisor_image.fleet import scan_one
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

MIB = 1 << 20


def terabyte() -> bytes:
    """Under a kilobyte of bzip2 in bzip2 that decodes to a disk of a terabyte with one partition."""
    sectors = (1 << 40) // 512
    table = mbr_disk([ForgedPartition(1, 6, 2048, (1 << 31) - 1)], sectors=sectors).read_at(0, MIB)
    zeros = bz2.compress(bytes(45_000_000))
    return bz2.compress(bz2.compress(table) + zeros * ((1 << 40) // 45_000_000 + 1))


def disk_of(files: int, *, deep: int = 0) -> bytes:
    tree = {f"many/{n:05}": b"" for n in range(files)} | ({"/".join("d" * deep) + "/f": b""} if deep else {})
    volume = fat_volume(tree, sectors=16384, sectors_per_cluster=1)
    return mbr_disk([ForgedPartition(1, 6, 63, 16384, content=volume)], sectors=16447).read_at(0, 16447 * 512)


class TestATerabyteInAKilobyte:
    def test_its_partitions(self) -> None:
        data = terabyte()
        assert len(data) < 1000
        with Image.open(data) as image:
            (partition,) = image.partitions
            assert partition.size > 1 << 39
            inner = image.layers[1].source
            assert isinstance(inner, Bzip2Reader)
            assert inner.stats.blocks_decoded == 1
            assert image.meter.decoded_bytes < 3 * MIB

    def test_its_size_and_its_zeros_are_not_decoded_again_and_again(self) -> None:
        with Image.open(terabyte()) as image:
            assert image.size > 1 << 40
            assert image.partitions[1].kind == "empty"
            # The table, the block of zeros that all others repeat, and the compressed data around both.
            assert image.meter.decoded_bytes < 50 * MIB


class TestDecodedBytes:
    DATA = bytes(40 * MIB)

    @pytest.mark.parametrize("name", ["x.gz", "x.bz2", "x.xz", "x.zst"])
    def test_each_compression(self, name: str) -> None:
        import lzma

        import zstandard

        noise = b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "little") * 256 for n in range(8192))
        ways: dict[str, Callable[[bytes], bytes]] = {
            "x.gz": gzip.compress,
            "x.bz2": bz2.compress,
            "x.xz": lzma.compress,
            "x.zst": zstandard.ZstdCompressor().compress,
        }
        compress = ways[name]
        with Image.open(compress(noise), limits=Limits(decoded_bytes=2 * MIB)) as image:
            assert image.read_at(0, 4096) == noise[:4096]
            with pytest.raises(LimitExceeded, match="2097152 bytes") as caught:
                image.read_at(len(noise) - 10, 10)
            assert caught.value.limit == "decoded_bytes"
            assert image.meter.decoded_bytes < 6 * MIB

    def test_layers_share_what_is_left(self) -> None:
        noise = random.Random(1).randbytes(3 * MIB)
        with Image.open(gzip.compress(noise), limits=Limits(decoded_bytes=4 * MIB)) as image:
            assert image.size == 3 * MIB
        with Image.open(gzip.compress(gzip.compress(noise)), limits=Limits(decoded_bytes=4 * MIB)) as image:
            with pytest.raises(LimitExceeded):
                _ = image.size
            assert image.meter.decoded_bytes <= 4 * MIB + 2 * PIECE

    def test_archives_in_an_image_share_it_too(self) -> None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("zeros", bytes(30 * MIB))
        volume = fat_volume({"bomb.zip": archive.getvalue()}, sectors=8192, sectors_per_cluster=4)
        with Image.open(volume, limits=Limits(decoded_bytes=MIB)) as image:
            inner = image.partitions[1].files["bomb.zip"].open_archive()["zeros"]
            with pytest.raises(LimitExceeded):
                inner.sha256()
            assert image.meter.decoded_bytes <= MIB + 2 * PIECE

    def test_a_read_that_was_given_up_is_no_damage(self) -> None:
        meter = Meter(Limits(decoded_bytes=MIB))
        data = zlib.compress(bytes(4 * MIB))

        class Decoder:
            problems = ()

            def __init__(self) -> None:
                self.position = 0
                self._inflate = zlib.decompressobj()
                self._data = data

            def read(self, length: int) -> bytes:
                found = self._inflate.decompress(self._data, length)
                self._data = self._inflate.unconsumed_tail
                return found

            def copy(self) -> None:
                return None

        reader = SequentialReader("test", Decoder, meter=meter)
        with pytest.raises(LimitExceeded):
            _ = reader.size
        meter.limits = Limits()
        assert reader.size == 4 * MIB


class TestEntriesAndDepth:
    def test_entries(self) -> None:
        with Image.open(disk_of(3000), limits=Limits(entries=1000)) as image:
            files = image.partitions[1].files
            assert files["many/02999"].size == 0
            with pytest.raises(LimitExceeded, match="1000") as caught:
                list(files)
            assert caught.value.limit == "entries"

    def test_depth(self) -> None:
        with Image.open(disk_of(1, deep=60), limits=Limits(depth=50)) as image:
            files = image.partitions[1].files
            with pytest.raises(LimitExceeded, match="50 directories") as caught:
                len(files)
            assert caught.value.limit == "depth"

    def test_a_report_keeps_the_healthy_rest(self) -> None:
        small = fat_volume({"kept": b"x"}, sectors=8192, sectors_per_cluster=4)
        many = fat_volume({f"many/{n:05}": b"" for n in range(3000)}, sectors=16384, sectors_per_cluster=1)
        partitions = [ForgedPartition(1, 6, 63, 16384, content=many), ForgedPartition(2, 6, 16447, 8192, content=small)]
        disk = mbr_disk(partitions, sectors=24639)
        report = inspect(disk, limits=Limits(entries=1000))
        assert [len(partition.files) for partition in report.partitions] == [0, 1]
        assert any("more than 1000 files" in problem.message for problem in report.problems)

    def test_members_of_an_archive(self) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for number in range(50):
                tar.addfile(tarfile.TarInfo(f"{number}"))
        with Image.open(
            fat_volume({"a.tar": packed.getvalue()}, sectors=8192, sectors_per_cluster=4), limits=Limits(entries=10)
        ) as image:
            archive = image.partitions[1].files["a.tar"].open_archive()
            assert len(archive) == 10
            assert any("first 10" in problem.message for problem in archive.problems)
        assert len(open_archive(BytesSource(packed.getvalue()))) == 50


class TestLayers:
    @pytest.mark.parametrize("most", [1, 3, 8])
    def test_as_many_as_there_may_be_and_one_more(self, most: int) -> None:
        data = disk_of(1)
        for _ in range(most):
            data = gzip.compress(data)
        with Image.open(data, limits=Limits(layers=most)) as image:
            assert len(image.layers) == most
            assert len(image.partitions) == 1
        with pytest.raises(LimitExceeded, match=f"more than {most} layers: gzip"):
            Image.open(gzip.compress(data), limits=Limits(layers=most))


class Slow:
    """A source that takes its time for each read."""

    def __init__(self, source: BytesSource) -> None:
        self.source, self.size = source, source.size
        self.reads = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        time.sleep(0.002)
        return self.source.read_at(offset, length)


class TestSeconds:
    def test_an_operation_is_given_up(self) -> None:
        source = Slow(BytesSource(gzip.compress(bytes(400 * MIB))))
        with Image.open(source) as image:
            with pytest.raises(LimitExceeded, match=r"longer than 0\.05 seconds"), Limits(seconds=0.05).operation():
                _ = image.size
            decoded = image.meter.decoded_bytes
            assert decoded < 400 * MIB
            assert image.size == 400 * MIB  # it goes on where it was

    def test_inner_operations_do_not_extend_it(self) -> None:
        with Limits(seconds=0.01).operation():
            time.sleep(0.02)
            with Limits(seconds=60).operation(), pytest.raises(LimitExceeded):
                BytesSource(b"x").read_at(0, 1)

    def test_after_it_there_is_time_again(self) -> None:
        with Limits(seconds=0.01).operation():
            time.sleep(0.02)
        assert BytesSource(b"x").read_at(0, 1) == b"x"

    def test_inspect_and_a_scan(self, tmp_path: Path) -> None:
        path = tmp_path / "image.gz"
        path.write_bytes(gzip.compress(bytes(200 * MIB)))
        limits = Limits(seconds=1e-4)
        with pytest.raises(LimitExceeded):
            inspect(path, limits=limits)
        row = scan_one(path, limits=limits)
        assert (row["ok"], row["error"]) == (False, "LimitExceeded")

    def test_other_threads_have_their_own_time(self) -> None:
        ready, done = threading.Event(), threading.Event()

        def read() -> bytes:
            ready.set()
            done.wait()
            return BytesSource(b"x").read_at(0, 1)

        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(read)
            ready.wait()
            with Limits(seconds=1e-6).operation():
                done.set()
                assert found.result() == b"x"

    def test_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "image.gz"
        path.write_bytes(gzip.compress(bytes(200 * MIB)))
        assert main(["info", str(path), "--max-seconds", "1e-4"]) == 1
        assert "limit: seconds" in capsys.readouterr().err
        assert main(["info", str(path), "--max-decoded", "1000000"]) == 1
        assert "more than 1000000 bytes" in capsys.readouterr().err


class TestCacheBytes:
    def test_what_is_kept_follows_it(self) -> None:
        data = b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "little") * 64 for n in range(1 << 16))
        for limit, again in ((1, True), (64_000_000, False)):
            with Image.open(gzip.compress(data), limits=Limits(cache_bytes=limit)) as image:
                reader = image.layers[0].source
                assert isinstance(reader, SequentialReader)
                image.read_at(0, len(data))
                decoded = reader.pieces_decoded
                image.read_at(len(data) - 10 * PIECE, 10)
                assert (reader.pieces_decoded > decoded) == again


def test_limits_are_checked() -> None:
    for name in ("decoded_bytes", "entries", "depth", "layers", "seconds", "cache_bytes"):
        with pytest.raises(InvalidArgument, match=name):
            Limits(**{name: 0})


def test_limits_cost_no_reads() -> None:
    data = disk_of(100)
    counts = []
    for limits in (None, Limits(seconds=3600)):
        source = Counting(BytesSource(data))
        inspect(source, limits=limits)
        counts.append(len(source.reads))
    assert counts[0] == counts[1]
