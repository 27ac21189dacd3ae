"""The saved index: used where it is right, never believed where it is not."""

from __future__ import annotations

import bz2
import dataclasses
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import in_child
from tests.test_bzip2_forge import EMPTY_STREAM, longest_runs, stream
from vmvisor_image import CorruptImage, Image, InvalidArgument, TruncatedImage
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.index_file import IndexRejected, SavedIndex, default_paths, load_index, save_index
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.bzip2_index import Bzip2IndexHeader
from vmvisor_image.streams.fingerprint import fingerprint
from vmvisor_image.streams.sources import BytesSource, FileSource

BLOCKS = 12
DATA = random.Random(4).randbytes(BLOCKS * 99_000)
COMPRESSED = bz2.compress(DATA[:600_000], 1) + EMPTY_STREAM + bz2.compress(DATA[600_000:], 1)


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


OPENED: list[FileSource] = []


@pytest.fixture(autouse=True)
def close_files() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def file_source(path: Path) -> FileSource:
    OPENED.append(FileSource(path))
    return OPENED[-1]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "image.bz2"
    path.parent.mkdir()
    path.write_bytes(COMPRESSED)
    return path


@pytest.fixture
def sidecar(image: Path) -> Path:
    return default_paths(image)[0]


def read(image: Path, index: str | Path = "auto", offset: int = 0, length: int = len(DATA)) -> Bzip2Reader:
    """A closed reader that has read a range, which was right."""
    reader = Bzip2Reader(file_source(image), threads=2, index=index)
    assert reader.read_at(offset, length) == DATA[offset : offset + length]
    reader.close()
    return reader


def saved(path: Path, image: Path) -> SavedIndex:
    source = file_source(image)
    return load_index(path, fingerprint(source), source.size)


class TestUse:
    def test_the_end_costs_one_block(self, image: Path) -> None:
        first = read(image)
        assert first.index_rejection is None
        again = read(image, offset=len(DATA) - 10, length=10)
        assert again.stats.blocks_decoded == 1
        assert again.stats.blocks_known == first.stats.blocks_known == BLOCKS + 1

    def test_an_index_of_the_beginning_goes_on(self, image: Path, sidecar: Path) -> None:
        known = read(image, length=250_000).stats.blocks_known
        assert 0 < known < 4
        assert saved(sidecar, image).place is not None
        later = read(image, offset=300_000, length=10)
        assert later.stats.blocks_decoded == later.stats.blocks_known - known
        read(image)
        complete = saved(sidecar, image)
        assert complete.place is None
        assert len(complete.entries) == BLOCKS + 1

    def test_it_survives_its_source_s_name(self, image: Path, sidecar: Path) -> None:
        """An image that is moved takes its index along."""
        read(image)
        shutil.move(image, image.with_name("moved.bz2"))
        shutil.move(sidecar, sidecar.with_name("moved.bz2.vmvisor-index"))
        assert read(image.with_name("moved.bz2"), offset=len(DATA) - 10, length=10).stats.blocks_decoded == 1

    def test_a_block_of_the_longest_runs(self, tmp_path: Path) -> None:
        """7-Zip writes runs of 4 + 255 bytes, libbz2 none that are longer than 255: both are right."""
        compressed = stream([longest_runs(), longest_runs()], level=1)
        assert bz2.decompress(compressed) == bytes(2 * 5_180_000)
        path = tmp_path / "zeros.bz2"
        path.write_bytes(compressed)
        for blocks_decoded in (2, 0):
            reader = Bzip2Reader(file_source(path), index="auto")
            assert reader.size == 2 * 5_180_000
            reader.close()
            assert reader.index_rejection is None
            assert reader.stats.blocks_decoded + reader.stats.blocks_repeated == blocks_decoded

    def test_garbage_is_remembered(self, image: Path) -> None:
        image.write_bytes(COMPRESSED + b"garbage")
        problems = read(image, length=len(DATA)).problems
        reader = Bzip2Reader(file_source(image), index="auto")
        assert reader.size == len(DATA)
        assert (reader.problems, reader.stats.blocks_decoded) == (problems, 0)
        assert [problem.offset for problem in problems] == [len(COMPRESSED)]
        reader.close()

    def test_bytes_have_no_usual_place(self, tmp_path: Path) -> None:
        reader = Bzip2Reader(BytesSource(COMPRESSED), index="auto")
        assert reader.size == len(DATA)
        reader.close()
        assert list(tmp_path.iterdir()) == []

    def test_bytes_may_name_one(self, tmp_path: Path) -> None:
        for decoded in (range(BLOCKS + 1, BLOCKS + 3), range(1)):
            reader = Bzip2Reader(BytesSource(COMPRESSED), index=tmp_path / "deep" / "index")
            assert reader.size == len(DATA)
            reader.close()
            assert reader.stats.blocks_decoded in decoded

    def test_nothing_new_writes_nothing(self, image: Path, sidecar: Path) -> None:
        read(image)
        before = sidecar.stat()
        read(image)
        assert sidecar.stat().st_ino == before.st_ino

    def test_it_is_small(self, image: Path, sidecar: Path) -> None:
        read(image)
        assert sidecar.stat().st_size < 300 + (BLOCKS + 1) * 40

    def test_through_an_image_and_pickled(self, image: Path, sidecar: Path) -> None:
        with Image.open(image, index="auto") as opened:
            assert opened.read_at(0, 5) == DATA[:5]
            again = pickle.loads(pickle.dumps(opened))
        assert sidecar.exists()
        with again:
            assert again.size == len(DATA)
        assert saved(sidecar, image).place is None

    def test_the_command(self, image: Path, sidecar: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["index", str(image)]) == 0
        assert str(sidecar) in capsys.readouterr().out
        assert saved(sidecar, image).place is None
        assert main(["index", str(image), "--index", str(image.with_name("other"))]) == 0
        assert image.with_name("other").exists()
        image.write_bytes(DATA)
        assert main(["index", str(image)]) == 1
        assert "not compressed" in capsys.readouterr().err


class TestPlaces:
    def test_the_cache_folder_when_the_image_s_own_can_t_be_written(self, image: Path, cache_home: Path) -> None:
        beside, cached = default_paths(image)
        beside.mkdir()  # in the way, for root too
        assert read(image).index_path == str(cached)
        assert cached.parent.parent == cache_home
        assert read(image, offset=len(DATA) - 10, length=10).stats.blocks_decoded == 1

    def test_no_place_at_all_is_no_error(self, image: Path) -> None:
        for path in default_paths(image):
            path.mkdir(parents=True)
        assert read(image).index_path is None

    def test_a_named_place_that_can_t_be_written_is_one(self, image: Path) -> None:
        folder = image.parent / "folder"
        reader = Bzip2Reader(file_source(image), index=folder / "index")
        assert reader.read_at(0, 5) == DATA[:5]
        folder.write_text("a file is in the way")
        with pytest.raises(OSError, match="folder"):
            reader.close()
        with pytest.raises(OSError, match="folder"):
            Bzip2Reader(file_source(image), index=folder / "index")

    def test_a_file_that_is_no_index_is_not_replaced(self, image: Path) -> None:
        precious = image.with_name("letter.txt")
        precious.write_text("Dear reader, " * 50)
        with pytest.raises(InvalidArgument, match="not an index"):
            Bzip2Reader(file_source(image), index=precious)
        assert precious.read_text().startswith("Dear reader")


def damage(path: Path, at: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def rewrite(path: Path, image: Path, change: Callable[[SavedIndex], SavedIndex]) -> None:
    """A well-formed index with false content."""
    save_index(path, change(saved(path, image)), fingerprint(file_source(image)))


def entries_changed(number: int, **changes: Any) -> Callable[[SavedIndex], SavedIndex]:
    def change(index: SavedIndex) -> SavedIndex:
        entries = list(index.entries)
        entries[number] = dataclasses.replace(entries[number], **changes)
        return dataclasses.replace(index, entries=tuple(entries))

    return change


class TestDistrust:
    def test_each_damaged_byte_is_found(self, image: Path, sidecar: Path) -> None:
        read(image)
        whole = sidecar.read_bytes()
        for at in range(len(whole)):
            sidecar.write_bytes(whole[:at] + bytes((whole[at] ^ 0x40,)) + whole[at + 1 :])
            with pytest.raises(IndexRejected):
                saved(sidecar, image)

    def test_each_truncation_is_found(self, image: Path, sidecar: Path) -> None:
        read(image)
        whole = sidecar.read_bytes()
        for length in range(len(whole)):
            sidecar.write_bytes(whole[:length])
            with pytest.raises(IndexRejected):
                saved(sidecar, image)

    def test_a_damaged_one_is_made_anew(self, image: Path, sidecar: Path) -> None:
        read(image)
        damage(sidecar, -1)
        reader = read(image)
        assert reader.index_rejection is not None
        assert "damaged" in reader.index_rejection.message
        assert read(image, offset=len(DATA) - 10, length=10).stats.blocks_decoded == 1

    @pytest.mark.parametrize("change", ["first byte", "last byte", "size", "time"])
    def test_one_of_an_image_that_changed_is_rejected(self, image: Path, sidecar: Path, change: str) -> None:
        read(image)
        before = image.stat()
        if change == "first byte":
            image.write_bytes(b"X" + COMPRESSED[1:])
        elif change == "last byte":
            image.write_bytes(COMPRESSED[:-1] + b"X")
        elif change == "size":
            image.write_bytes(COMPRESSED + b"X")
        if change != "time":
            os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(IndexRejected, match="another source"):
            saved(sidecar, image)

    def test_another_version_is_rejected(self, image: Path, sidecar: Path) -> None:
        read(image)
        data = sidecar.read_bytes()
        header = dataclasses.replace(Bzip2IndexHeader.parse(data), version=3)
        sidecar.write_bytes(header.build() + data[header.length() :])
        with pytest.raises(IndexRejected, match="version 3"):
            saved(sidecar, image)

    @pytest.mark.parametrize(
        "change",
        [
            entries_changed(5, start_bit=1 << 40),
            entries_changed(5, end_bit=0),
            entries_changed(5, level=0),
            entries_changed(5, level=10),
            entries_changed(5, size=0),
            entries_changed(5, size=1 << 40),
            entries_changed(5, size=5_180_001),
            entries_changed(5, crc=1 << 32),
            lambda index: dataclasses.replace(index, entries=(*index.entries, index.entries[0])),
            lambda index: dataclasses.replace(index, entries=index.entries * 100_000),
        ],
        ids=["start", "end", "level 0", "level 10", "empty", "huge", "larger than level 1", "crc", "order", "count"],
    )
    def test_what_no_source_has_is_rejected(
        self, image: Path, sidecar: Path, change: Callable[[SavedIndex], SavedIndex]
    ) -> None:
        read(image)
        rewrite(sidecar, image, change)
        with pytest.raises(IndexRejected):
            saved(sidecar, image)

    @pytest.mark.parametrize(
        "change",
        [
            entries_changed(5, size=99_000),
            entries_changed(5, size=1),
            entries_changed(0, size=99_000),
            entries_changed(5, crc=1),
            entries_changed(5, level=9),
            entries_changed(BLOCKS, size=50),
        ],
        ids=["size", "small", "first", "crc", "level", "last"],
    )
    def test_one_that_tells_of_other_blocks_is_dropped(
        self, image: Path, sidecar: Path, change: Callable[[SavedIndex], SavedIndex]
    ) -> None:
        read(image)
        honest = sidecar.read_bytes()
        rewrite(sidecar, image, change)
        reader = read(image)
        if reader.index_rejection is not None:
            assert "not where it says" in reader.index_rejection.message
            assert sidecar.read_bytes() == honest

    def test_a_place_to_go_on_that_is_none_is_dropped(self, image: Path, sidecar: Path) -> None:
        read(image, length=250_000)
        partial = saved(sidecar, image)
        assert partial.place is not None
        for false in (
            dataclasses.replace(partial.place, bit=partial.place.bit + 1),
            dataclasses.replace(partial.place, crc=partial.place.crc ^ 1),
        ):
            save_index(sidecar, dataclasses.replace(partial, place=false), fingerprint(file_source(image)))
            reader = Bzip2Reader(file_source(image), threads=2, index="auto")
            assert reader.size == len(DATA)
            assert reader.read_at(0, len(DATA)) == DATA
            assert reader.index_rejection is not None
            reader.close()

    @pytest.mark.parametrize("cut", [-4, -8, -11, -20, -150_000])
    def test_an_index_of_a_cut_off_image_is_not_complete(self, image: Path, cut: int) -> None:
        """Nor is it dropped each time that the end is met."""
        image.write_bytes(COMPRESSED[:cut])
        decoded = []
        for _ in range(3):
            reader = Bzip2Reader(file_source(image), threads=2, index="auto")
            with pytest.raises(TruncatedImage):
                _ = reader.size
            reader.close()
            assert reader.index_rejection is None
            decoded.append(reader.stats.blocks_decoded)
        assert decoded[0] > 9
        assert max(decoded[1:]) <= 2

    def test_an_index_of_a_wrong_stream_is_not_complete(self, image: Path) -> None:
        damaged = bytearray(COMPRESSED)
        damaged[-3] ^= 0x20
        image.write_bytes(damaged)
        for _ in range(3):
            reader = Bzip2Reader(file_source(image), threads=2, index="auto")
            assert reader.read_at(len(DATA) - 5, 5) == DATA[-5:]
            with pytest.raises(CorruptImage, match="combined CRC"):
                _ = reader.size
            reader.close()

    def test_real_damage_is_not_taken_for_a_wrong_index(self, image: Path) -> None:
        read(image)
        before = image.stat()
        damage(image, len(COMPRESSED) // 2)
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        reader = Bzip2Reader(file_source(image), threads=2, index="auto")
        with pytest.raises(CorruptImage, match="damaged"):
            reader.read_at(0, len(DATA))
        assert reader.read_at(0, 400_000) == DATA[:400_000]
        reader.close()


class TestWriters:
    def test_two_at_once(self, image: Path, sidecar: Path) -> None:
        def check(seed: int) -> None:
            length = random.Random(seed).randrange(1, len(DATA))
            read(image, length=length)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(check, range(12)))
        assert {path.name for path in sidecar.parent.iterdir()} == {"image.bz2", sidecar.name}
        assert saved(sidecar, image).entries

    def test_the_one_that_came_further_stays(self, image: Path, sidecar: Path) -> None:
        slow = Bzip2Reader(file_source(image), threads=2, index="auto")
        assert slow.read_at(0, 5) == DATA[:5]
        read(image)
        slow.close()
        assert saved(sidecar, image).place is None


@pytest.fixture
def reader(image: Path) -> Iterator[Bzip2Reader]:
    made = Bzip2Reader(file_source(image), threads=2)
    yield made
    made.close()


class TestProcesses:
    def test_pickles_when_its_source_does(self, reader: Bzip2Reader) -> None:
        assert reader.read_at(5, 5) == DATA[5:10]
        again = pickle.loads(pickle.dumps(reader))
        OPENED.append(again._source)
        assert again.read_at(700_000, 50) == DATA[700_000:700_050]
        again.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_survives_a_fork_while_it_is_read(self, reader: Bzip2Reader) -> None:
        with ThreadPoolExecutor(3) as pool:
            for attempt in range(10):
                started = [pool.submit(reader.read_at, offset, 300_000) for offset in (0, 300_000, 600_000)]
                at = attempt * 100_000
                assert in_child(lambda at=at: reader.read_at(at, 150_000) == DATA[at : at + 150_000])  # type: ignore[misc]
                for offset, future in zip((0, 300_000, 600_000), started, strict=True):
                    assert future.result() == DATA[offset : offset + 300_000]
