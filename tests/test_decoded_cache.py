"""Decoded data kept on disk: read back without decoding, and forgotten where it is damaged."""

from __future__ import annotations

import bz2
import dataclasses
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import in_child, run, run_to_file
from tests.test_bzip2_index import close_files, file_source  # noqa: F401  # a fixture
from vmvisor_image import Image
from vmvisor_image.bzip2 import Bzip2Reader, decoded_cache
from vmvisor_image.bzip2.decoded_cache import DecodedCache
from vmvisor_image.bzip2.index_file import CACHE_SUFFIX, default_paths, load_index, save_index
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.fingerprint import fingerprint

DATA = random.Random(7).randbytes(600_000) + bytes(3_000_000) + random.Random(8).randbytes(500_000)
COMPRESSED = bz2.compress(DATA, 1)
KEY = bytes(range(32))


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    path = tmp_path / "images" / "image.bz2"
    path.parent.mkdir()
    path.write_bytes(COMPRESSED)
    return path


@pytest.fixture
def folder(image: Path) -> Path:
    return default_paths(image, CACHE_SUFFIX)[0]


def read(image: Path, offset: int = 0, length: int = len(DATA), cache: Path | bool = True) -> int:
    """Read a range with a cache; the number of blocks that were decoded."""
    reader = Bzip2Reader(file_source(image), threads=2, cache=cache)
    assert reader.read_at(offset, length) == DATA[offset : offset + length]
    reader.close()
    return reader.stats.blocks_decoded


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.zst"))


class TestUse:
    def test_the_second_visit_decodes_nothing(self, image: Path, folder: Path) -> None:
        assert read(image) > 5
        assert len(segments(folder)) == 1
        assert read(image) == 0
        assert len(segments(folder)) == 1, "nothing new was kept"

    def test_what_was_read_is_kept_and_no_more(self, image: Path) -> None:
        first = read(image, 0, 250_000)
        assert read(image, 0, 250_000) == 0
        rest = read(image)
        assert rest > 0
        assert read(image) == 0
        assert first + rest <= read(image, cache=image.parent / "another")

    def test_a_part_in_the_middle(self, image: Path) -> None:
        """With an index only the blocks that are read are decoded, and only they are kept."""
        reader = Bzip2Reader(file_source(image), index="auto")
        assert reader.size == len(DATA)
        reader.close()
        assert read(image, 3_700_000, 10) == 1
        assert read(image, 3_700_000, 10) == 0
        assert read(image, 300_000, 10) == 1

    def test_any_ranges_in_any_order(self, image: Path) -> None:
        @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(0, 400_000)), max_size=4))
        def check(ranges: list[tuple[int, int]]) -> None:
            reader = Bzip2Reader(file_source(image), threads=2, cache=True)
            for offset, length in ranges:
                assert reader.read_up_to(offset, length) == DATA[offset : offset + length]
            reader.close()

        check()

    def test_it_is_plain_zstd(self, image: Path, folder: Path, tmp_path: Path) -> None:
        read(image)
        [segment] = segments(folder)
        run("zstd", "--test", segment)
        run_to_file(tmp_path / "decoded", "zstd", "-dc", segment)
        decoded = (tmp_path / "decoded").read_bytes()
        assert DATA[:600_000] in decoded
        assert DATA[-500_000:] in decoded
        assert len(decoded) < len(DATA), "long runs of zeros are told of in the map alone"

    def test_zeros_cost_nothing(self, image: Path, folder: Path) -> None:
        image.write_bytes(bz2.compress(bytes(200_000_000)))
        with Image.open(image, cache=True) as opened:
            assert opened.size == 200_000_000
        assert sum(path.stat().st_size for path in segments(folder)) < 10_000

    def test_a_named_folder_serves_many_images(self, image: Path, tmp_path: Path) -> None:
        other = image.with_name("other.bz2")
        other.write_bytes(bz2.compress(DATA[::-1], 1))
        shared = tmp_path / "shared"
        for _ in range(2):
            decoded = read(image, cache=shared)
            with Image.open(other, cache=shared) as opened:
                assert opened.read_at(0, len(DATA)) == DATA[::-1]
        assert decoded == 0

    def test_the_command(self, image: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["index", "--with-data", str(image)]) == 0
        assert "vmvisor-index" in capsys.readouterr().out
        assert read(image) == 0
        assert main(["index", "--cache", str(image.with_name("elsewhere")), str(image)]) == 0
        assert len(segments(image.with_name("elsewhere"))) == 1
        assert len(segments(folder)) == 1

    def test_the_user_s_cache_folder_when_there_is_no_room_beside(self, image: Path, folder: Path) -> None:
        folder.write_text("in the way")
        read(image)
        assert len(segments(default_paths(image, CACHE_SUFFIX)[1])) == 1
        assert read(image) == 0


def spoil(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


class TestDistrust:
    def test_damage_is_decoded_again(self, image: Path, folder: Path) -> None:
        read(image)
        whole = segments(folder)[0].read_bytes()
        for at in [*range(0, len(whole), 40_000), *range(len(whole) - 700, len(whole), 13)]:
            for path in segments(folder):
                path.unlink()
            path.write_bytes(whole)
            spoil(path, at)
            read(image)

    def test_truncation_is_decoded_again(self, image: Path, folder: Path) -> None:
        read(image)
        [path] = segments(folder)
        whole = path.read_bytes()
        for length in (0, 1, 8, 17, 1000, len(whole) // 2, len(whole) - 1):
            for each in segments(folder):
                each.unlink()
            path.write_bytes(whole[:length])
            read(image)
            assert not path.exists(), "what is of no use is removed"

    def test_another_image_s_data_is_not_used(self, image: Path, folder: Path) -> None:
        read(image)
        image.write_bytes(bz2.compress(DATA[::-1], 1))
        with Image.open(image, cache=True) as opened:
            assert opened.read_at(0, len(DATA)) == DATA[::-1]
        assert len(segments(folder)) == 1, "what was kept of the image before is of no use"

    def test_a_segment_of_another_source_under_our_name_is_removed(self, tmp_path: Path) -> None:
        cache = DecodedCache(tmp_path, KEY)
        cache.add(0, (b"data",))
        cache.close()
        other = KEY[:8] + bytes(24)
        assert DecodedCache(tmp_path, other).read(0, 4) == b""
        assert segments(tmp_path) == []

    def test_what_a_wrong_index_placed_is_forgotten(self, image: Path, folder: Path) -> None:
        read(image)
        index, source = default_paths(image)[0], file_source(image)
        saved = load_index(index, fingerprint(source), source.size)
        entries = (dataclasses.replace(saved.entries[0], size=saved.entries[0].size - 5), *saved.entries[1:])
        save_index(index, dataclasses.replace(saved, entries=entries), fingerprint(source))
        for path in segments(folder):
            path.unlink()
        reader = Bzip2Reader(source, threads=2, cache=True)
        assert reader.read_at(500_000, 5) != b""  # misplaced: no block that was read shows it
        assert reader.read_at(0, len(DATA)) == DATA
        reader.close()
        assert read(image, 500_000, 1000) == 0


class TestWriters:
    def test_threads_and_readers_at_once(self, image: Path, folder: Path) -> None:
        def check(seed: int) -> None:
            offset = random.Random(seed).randrange(len(DATA) - 100_000)
            read(image, offset, 100_000)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(check, range(12)))
        assert list(folder.glob("*.part")) == []
        read(image)
        assert read(image) == 0

    def test_the_limit_holds(self, tmp_path: Path) -> None:
        cache = DecodedCache(tmp_path, KEY, limit=100_000)
        for number in range(10):
            cache.add(number * 50_000, (random.Random(number).randbytes(50_000),))
        assert 100_000 <= cache.size <= 150_000
        cache.close()
        cache = DecodedCache(tmp_path, KEY, limit=100_000)
        assert cache.size <= 150_000
        cache.add(10**9, (b"more",))
        assert not cache.has(10**9)
        cache.close()

    def test_a_full_disk_is_no_reason_not_to_read(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written = decoded_cache._SegmentWriter.write

        def write(self: object, data: bytes) -> tuple[int, int]:
            if len(self._frames) > 2:  # type: ignore[attr-defined]
                raise OSError(28, "No space left on device")
            return written(self, data)  # type: ignore[arg-type]

        monkeypatch.setattr(decoded_cache._SegmentWriter, "write", write)
        assert read(image) > 0
        assert read(image) > 0
        assert [path.name for path in image.parent.rglob("*.part")] == []

    def test_what_was_abandoned_long_ago_is_removed(self, tmp_path: Path) -> None:
        old, new, foreign = (tmp_path / f"{c * 16}-{c * 16}.part" for c in "abc")
        foreign = tmp_path / "notes.part"
        for path in (old, new, foreign):
            path.write_text("x")
        for path in (old, foreign):
            os.utime(path, (0, 0))
        DecodedCache(tmp_path, KEY).close()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([new.name, foreign.name])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_leaves_the_parent_s_segment_alone(self, image: Path, folder: Path) -> None:
        reader = Bzip2Reader(file_source(image), threads=2, cache=True)
        assert reader.read_at(0, 300_000) == DATA[:300_000]

        def read_and_close() -> bool:
            with closing(reader):
                return reader.read_at(0, len(DATA)) == DATA

        assert in_child(read_and_close)
        assert reader.read_at(0, len(DATA)) == DATA
        reader.close()
        assert len(segments(folder)) == 1
        assert read(image) == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.lists(st.one_of(st.binary(min_size=1, max_size=9), st.integers(1, 9)), min_size=1, max_size=3),
        ),
        max_size=6,
    ),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_gives_what_was_added(
    tmp_path_factory: pytest.TempPathFactory,
    added: list[tuple[int, list[bytes | int]]],
    offset: int,
    length: int,
) -> None:
    """Whatever was added in whatever order, now and after it was closed: right bytes, or none."""
    whole = random.Random(1).randbytes(100)
    folder = tmp_path_factory.mktemp("cache")
    cache = DecodedCache(folder, KEY)
    for start, shape in added:
        pieces: list[bytes | int] = []
        at = start
        for piece in shape:
            size = piece if isinstance(piece, int) else len(piece)
            pieces.append(whole[at : at + size])
            at += size
        cache.add(start, tuple(pieces))
    known: Callable[[int], bool] = cache.has
    covered = [known(at) for at in range(100)]
    for each in (cache, None):
        if each is None:
            cache.close()
            cache = DecodedCache(folder, KEY)
            assert [cache.has(at) for at in range(100)] == covered
        found = cache.read(offset, length)
        assert found == whole[offset : offset + len(found)]
        if length and not found:
            assert not cache.has(offset)
    cache.close()
