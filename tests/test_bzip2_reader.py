"""Random access to bzip2 data: the standard library's bytes, each block decoded once and only where needed."""

from __future__ import annotations

import bz2
import random
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import require_tool
from tests.test_bzip2_forge import (
    EMPTY_STREAM,
    MAGICS,
    ForgedBlock,
    embedded,
    false_magics,
    occurrences,
    real_block,
    stream,
    to_bits,
    to_bytes,
)
from vmvisor_image import ClosedError, CorruptImage, InvalidArgument, TruncatedImage
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.scan import WINDOW
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource, FileSource

MANY = 20
"""Blocks of `DATA`: level 1 makes them of 100,000 bytes less a few."""
DATA = random.Random(3).randbytes(MANY * 99_000)
COMPRESSED = bz2.compress(DATA, 1)

MIXED_DATA = [random.Random(level).randbytes(level * 30_000) for level in range(1, 10)]
MIXED = EMPTY_STREAM + EMPTY_STREAM.join(bz2.compress(data, level) for level, data in enumerate(MIXED_DATA, 1))


@pytest.fixture
def reader() -> Iterator[Bzip2Reader]:
    """A reader of `DATA` with two threads, whatever the machine has."""
    made = Bzip2Reader(BytesSource(COMPRESSED), threads=2)
    yield made
    made.close()


def read_all(compressed: bytes, threads: int = 2) -> bytes:
    reader = Bzip2Reader(BytesSource(compressed), threads=threads)
    try:
        return reader.read_at(0, reader.size)
    finally:
        reader.close()


class Counting:
    """A source that counts what is read of it."""

    def __init__(self, source: ReadAt) -> None:
        self.size = source.size
        self.bytes_read = 0
        self._source = source

    def read_at(self, offset: int, length: int) -> bytes:
        self.bytes_read += length
        return self._source.read_at(offset, length)


class TestReads:
    """The same bytes as the standard library's, from wherever they are asked for."""

    @pytest.mark.parametrize("threads", [1, 2, 5, None])
    def test_everything(self, threads: int | None) -> None:
        reader = Bzip2Reader(BytesSource(MIXED), threads=threads)
        assert reader.read_up_to(0, 1 << 30) == bz2.decompress(MIXED) == b"".join(MIXED_DATA)
        assert reader.size == sum(map(len, MIXED_DATA))
        assert reader.problems == ()
        reader.close()

    @given(st.data())
    def test_any_ranges_in_any_order(self, data: st.DataObject) -> None:
        reader = Bzip2Reader(BytesSource(MIXED), threads=2, cache_bytes=data.draw(st.sampled_from([0, 1 << 20])))
        whole = b"".join(MIXED_DATA)
        for _ in range(data.draw(st.integers(1, 4))):
            offset = data.draw(st.integers(0, len(whole)))
            length = data.draw(st.integers(0, len(whole) - offset))
            if data.draw(st.booleans()):
                reader.prefetch(data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole))))
            assert reader.read_at(offset, length) == whole[offset : offset + length]
        reader.close()

    @pytest.mark.parametrize("kind", MAGICS)
    @pytest.mark.parametrize("alignment", range(8))
    @pytest.mark.parametrize("place", ["first", "middle", "last", "only", "next to another"])
    def test_false_magics_split_no_block(self, kind: str, alignment: int, place: str) -> None:
        plain, false = real_block(b"a plain block"), false_magics(kind, alignment, 3)
        blocks = {
            "first": [false, plain],
            "middle": [plain, false, plain],
            "last": [plain, false],
            "only": [false],
            "next to another": [plain, false, false, plain],
        }[place]
        data = b"".join(block.data for block in blocks)
        assert read_all(stream(blocks)) == data
        assert read_all(stream(blocks) * 2) == data * 2

    @pytest.mark.parametrize("inner", [[], [real_block(b"false")], [real_block(b"false"), real_block(b"too")]])
    def test_a_file_within_a_block_splits_it_not(self, inner: list[ForgedBlock]) -> None:
        blocks = [real_block(b"before"), embedded(stream(inner)), real_block(b"after")]
        assert read_all(stream(blocks)) == b"".join(block.data for block in blocks)

    @given(
        st.lists(
            st.tuples(
                st.integers(1, 9),
                st.lists(
                    st.one_of(
                        st.binary(min_size=1, max_size=50).map(real_block),
                        st.builds(false_magics, st.sampled_from(sorted(MAGICS)), st.integers(0, 7), st.integers(1, 2)),
                    ),
                    max_size=4,
                ),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_any_streams_of_any_blocks(self, streams: list[tuple[int, list[ForgedBlock]]]) -> None:
        compressed = b"".join(stream(blocks, level) for level, blocks in streams)
        assert read_all(compressed) == bz2.decompress(compressed)

    def test_streams_without_data(self) -> None:
        for count in (1, 3):
            assert read_all(EMPTY_STREAM * count) == b""

    @pytest.mark.parametrize("tool", ["bzip2", "pbzip2", "lbzip2"])
    @pytest.mark.parametrize("level", [1, 9])
    def test_what_other_programs_write(self, tool: str, level: int, tmp_path: Path) -> None:
        data = DATA[:700_000] + bytes(30_000_000) + DATA[700_000:]
        (tmp_path / "data").write_bytes(data)
        subprocess.run([require_tool(tool), f"-{level}", tmp_path / "data"], check=True)
        source = FileSource(tmp_path / "data.bz2")
        reader = Bzip2Reader(source)
        assert reader.read_at(len(data) - 5, 5) == data[-5:]
        assert reader.read_at(0, len(data)) == data
        reader.close()
        source.close()

    def test_bzip2_within_bzip2(self) -> None:
        inner = Bzip2Reader(BytesSource(bz2.compress(COMPRESSED)), threads=2)
        reader = Bzip2Reader(inner, threads=2)
        assert reader.read_at(1_000_000, 50) == DATA[1_000_000:1_000_050]
        reader.close()
        inner.close()

    def test_as_a_stream(self, reader: Bzip2Reader) -> None:
        with reader.open() as file:
            assert file.read(10) == DATA[:10]
            file.seek(-7, 2)
            assert file.read() == DATA[-7:]

    def test_refuses_ranges_past_the_end(self, reader: Bzip2Reader) -> None:
        with pytest.raises(TruncatedImage, match="ends at byte"):
            reader.read_at(len(DATA) - 1, 2)
        assert reader.read_up_to(len(DATA) - 1, 2) == DATA[-1:]
        assert reader.read_up_to(len(DATA) + 5, 2) == b""

    def test_refuses_negative_ranges_and_no_threads(self, reader: Bzip2Reader) -> None:
        for use in (reader.read_at, reader.read_up_to, reader.prefetch):
            for offset, length in ((-1, 1), (1, -1)):
                with pytest.raises(InvalidArgument):
                    use(offset, length)
        with pytest.raises(InvalidArgument, match="threads"):
            Bzip2Reader(BytesSource(COMPRESSED), threads=0)


class TestWork:
    """What is decoded, counted."""

    def test_a_first_read_decodes_its_blocks_only(self, reader: Bzip2Reader) -> None:
        reader.read_at(0, 10)
        assert reader.stats.blocks_decoded == 1
        reader.read_at(5 * 99_000, 10)
        assert reader.stats.blocks_decoded == 5
        assert reader.stats.blocks_known == 5

    def test_blocks_are_decoded_once_while_they_are_kept(self, reader: Bzip2Reader) -> None:
        for _ in range(3):
            reader.read_at(0, len(DATA))
        assert reader.stats.blocks_decoded == MANY == reader.count_blocks()

    def test_a_known_block_is_decoded_by_itself(self) -> None:
        reader = Bzip2Reader(BytesSource(COMPRESSED), threads=2, cache_bytes=0)
        assert reader.size == len(DATA)
        before = reader.stats.blocks_decoded
        reader.read_at(10 * 99_000, 10)
        assert reader.stats.blocks_decoded == before + 1
        reader.close()

    @pytest.mark.parametrize("threads", [1, 2])
    def test_nothing_is_decoded_past_what_is_announced(self, threads: int) -> None:
        reader = Bzip2Reader(BytesSource(COMPRESSED), threads=threads)
        end = 6 * 99_000
        reader.prefetch(0, end)
        for offset in range(0, end, 1000):
            reader.read_at(offset, 1000)
        reader.close()  # after which nothing is at work any more
        assert reader.stats.blocks_decoded == 6

    def test_what_is_announced_is_decoded_ahead(self, reader: Bzip2Reader) -> None:
        reader.prefetch(0, 6 * 99_000)
        deadline = threading.Event()
        while reader.stats.blocks_decoded < 6:
            assert not deadline.wait(0.01)
        assert reader.stats.blocks_known == 0, "nothing was passed: no read has asked"
        reader.read_at(0, 6 * 99_000)
        assert reader.stats.blocks_decoded == 6

    def test_read_ahead_is_bounded(self) -> None:
        reader = Bzip2Reader(BytesSource(COMPRESSED), threads=2)
        reader.prefetch(0, len(DATA))
        reader.read_at(0, 1)
        reader.close()
        assert reader.stats.blocks_decoded <= 1 + 2 * 3

    def test_read_ahead_is_bounded_in_bytes(self) -> None:
        """Runs of 250 bytes are not kept as lengths: each of these blocks has five million bytes."""
        content = b"".join(bytes((number % 255 + 1,)) * 250 for number in range(200_000))
        reader = Bzip2Reader(BytesSource(bz2.compress(content, 1)), threads=2, cache_bytes=8_000_000)
        reader.prefetch(0, len(content))
        for offset in range(0, len(content), 1_000_000):
            assert reader.read_at(offset, 1) == content[offset : offset + 1]
            if reader.stats.blocks_known >= 6:  # the size of the first ones was not known
                assert reader.stats.blocks_decoded - reader.stats.blocks_known <= 1
        assert reader.stats.blocks_known == 10
        reader.close()

    def test_each_pass_decodes_once_what_is_not_kept(self) -> None:
        data = DATA * 4
        reader = Bzip2Reader(BytesSource(bz2.compress(data, 1)), threads=2, cache_bytes=5 << 20)
        blocks = reader.count_blocks()
        for count in (1, 2, 3):
            reader.prefetch(0, len(data))
            for offset in range(0, len(data), 10_000):
                assert reader.read_at(offset, 10_000) == data[offset : offset + 10_000]
            assert reader.stats.blocks_decoded == blocks * count
        reader.close()

    def test_blocks_alike_are_hardly_looked_through(self) -> None:
        """To find where a block ends costs a read of its end, not of all of it."""
        source = Counting(BytesSource(COMPRESSED))
        reader = Bzip2Reader(source, threads=2)
        assert reader.read_at(0, len(DATA)) == DATA
        reader.close()
        assert source.bytes_read < len(COMPRESSED) * 1.5 + 2 * WINDOW

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("parts", [(50_000, 50_000), (33_000, 33_000, 34_000), (10, 99_990), (99_990, 10)])
    def test_blocks_that_are_left_out_by_a_guess_are_found(self, threads: int, parts: tuple[int, ...]) -> None:
        """Together they are as long as each of those before them."""
        pieces = [random.Random(number).randbytes(size) for number, size in enumerate([100_000] * 6 + [*parts] * 3)]
        compressed = b"".join(bz2.compress(piece, 2) for piece in pieces)
        reader = Bzip2Reader(BytesSource(compressed), threads=threads)
        data = b"".join(pieces)
        assert reader.read_at(0, len(data)) == data
        assert reader.stats.blocks_known == len(pieces)
        assert reader.problems == ()
        reader.close()

    def test_equal_short_blocks_are_decoded_once(self) -> None:
        """The 13 blocks of 600 MB of zeros are 40 bytes each, but for the last."""
        data = bz2.compress(bytes(600_000_000))
        tracemalloc.start()
        reader = Bzip2Reader(BytesSource(data), threads=2)
        assert reader.read_at(500_000_000, 5) == bytes(5)
        assert reader.size == 600_000_000
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert reader.stats.blocks_known > 10
        assert reader.stats.blocks_decoded <= 2
        assert reader.stats.blocks_repeated == reader.stats.blocks_known - reader.stats.blocks_decoded
        assert held < 1 << 20
        assert peak < 8 << 20
        reader.close()

    def test_the_cache_is_bounded(self) -> None:
        tracemalloc.start()
        reader = Bzip2Reader(BytesSource(COMPRESSED), threads=1, cache_bytes=500_000)
        assert reader.size == len(DATA)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 700_000
        reader.close()

    def test_progress_tells_compressed_bytes(self) -> None:
        calls: list[tuple[int, int | None]] = []
        reader = Bzip2Reader(
            BytesSource(COMPRESSED), threads=2, progress=lambda done, total: calls.append((done, total))
        )
        reader.read_at(0, len(DATA))
        reader.read_at(0, len(DATA))
        assert len(calls) == MANY
        assert calls == sorted(calls)
        assert {total for _, total in calls} == {len(COMPRESSED)}
        assert calls[-1][0] in range(len(COMPRESSED) - 12, len(COMPRESSED) + 1)
        reader.close()

    def test_progress_may_read_and_may_fail(self) -> None:
        class Stop(BaseException):
            """As a KeyboardInterrupt: no handler of Exception sees it."""

        fails = iter([False, True, False, True])

        def progress(done: int, total: int | None) -> None:
            assert counted.read_at(0, 3) == DATA[:3]
            if next(fails, False):
                raise Stop

        counted = Bzip2Reader(BytesSource(COMPRESSED), threads=2, progress=progress)
        for _ in range(2):
            with pytest.raises(Stop):
                counted.read_at(0, len(DATA))
        assert counted.read_at(0, len(DATA)) == DATA
        assert counted.stats.blocks_decoded == MANY
        counted.close()


class TestThreads:
    """Any number of threads may read."""

    @pytest.mark.parametrize("cache_bytes", [0, 32 << 20])
    def test_right_bytes(self, cache_bytes: int) -> None:
        reader = Bzip2Reader(BytesSource(COMPRESSED), threads=2, cache_bytes=cache_bytes)

        def check(seed: int) -> None:
            chosen = random.Random(seed)
            for _ in range(20):
                offset = chosen.randrange(len(DATA))
                length = chosen.randrange(min(300_000, len(DATA) - offset))
                if chosen.random() < 0.2:
                    reader.prefetch(offset, length)
                assert reader.read_at(offset, length) == DATA[offset : offset + length]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(check, range(8)))
        if cache_bytes:
            assert reader.stats.blocks_decoded <= MANY + reader.stats.blocks_known // 2
        reader.close()

    def test_close_ends_reading(self, reader: Bzip2Reader) -> None:
        reader.read_at(0, 5)
        reader.close()
        with pytest.raises(ClosedError):
            reader.read_at(0, 5)
        reader.close()

    def test_close_leaves_the_source_open(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(COMPRESSED)
        source = FileSource(tmp_path / "file")
        Bzip2Reader(source).close()
        assert source.read_at(0, 4) == COMPRESSED[:4]
        source.close()

    def test_close_while_reading_gives_right_bytes_or_a_clear_error(self) -> None:
        for attempt in range(20):
            reader = Bzip2Reader(BytesSource(COMPRESSED), threads=2)
            started = threading.Barrier(4)

            def read(reader: Bzip2Reader = reader, started: threading.Barrier = started) -> bytes | None:
                started.wait()
                try:
                    return reader.read_at(0, len(DATA))
                except ClosedError:
                    return None

            with ThreadPoolExecutor(3) as pool:
                results = [pool.submit(read) for _ in range(3)]
                started.wait()
                threading.Event().wait(attempt * 0.005)
                reader.close()
                assert {result.result() for result in results} <= {None, DATA}


def whole_blocks(compressed: bytes, blocks: list[ForgedBlock]) -> bytes:
    """What decodes from a stream that was cut off: the blocks that are there to their last bit."""
    bit, data = 32, b""
    for block in blocks:
        bit += len(block.bits)
        if bit <= len(compressed) * 8:
            data += block.data
    return data


def outcome(compressed: bytes) -> bytes | None:
    """All that the data decodes to by the standard library, None where it finds a fault."""
    try:
        return bz2.decompress(compressed)
    except (OSError, ValueError):
        return None


class TestDamage:
    """What is before the damage stays readable; what is wrong is said, and where."""

    BLOCKS = (real_block(b"the first of them"), false_magics("block", 3), real_block(b"the last"))

    def test_cut_off_anywhere(self) -> None:
        blocks = list(self.BLOCKS)
        whole = stream(blocks)
        for length in range(len(whole)):
            cut = whole[:length]
            if length < 10:
                with pytest.raises(TruncatedImage):
                    Bzip2Reader(BytesSource(cut))
                continue
            reader = Bzip2Reader(BytesSource(cut), threads=1)
            data = whole_blocks(cut, blocks)
            assert reader.read_at(0, len(data)) == data
            for _ in range(2):
                with pytest.raises(TruncatedImage) as caught:
                    reader.read_at(0, len(data) + 1)
                assert caught.value.offset is not None
                assert caught.value.offset <= length
            with pytest.raises(TruncatedImage):
                _ = reader.size
            assert [problem.offset for problem in reader.problems] == [caught.value.offset]
            again = Bzip2Reader(BytesSource(cut), threads=1, cache_bytes=0)
            for _ in range(2):
                assert [again.read_at(at, 1) for at in range(0, len(data), 7)] == [
                    data[at : at + 1] for at in range(0, len(data), 7)
                ]
            again.close()
            reader.close()

    def test_each_flipped_bit(self) -> None:
        """Ours and the standard library's agree on which damage matters."""
        whole = stream([real_block(b"one"), real_block(b"two")]) + stream([real_block(b"three")], 3)
        for bit in range(len(whole) * 8):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 0x80 >> bit % 8
            expected = outcome(bytes(damaged))
            try:
                found = read_all(bytes(damaged), threads=1)
            except CorruptImage:
                # A second stream without a good header is garbage to the standard library, which says nothing of it.
                assert expected in (None, b"onetwo")
            else:
                assert found == expected

    @pytest.mark.parametrize("level", [1, 9])
    def test_a_damaged_block_hides_none_before_it(self, level: int) -> None:
        data = DATA if level == 1 else DATA * 2
        damaged = bytearray(bz2.compress(data, level))
        damaged[len(damaged) * 3 // 4] ^= 0x10
        reader = Bzip2Reader(BytesSource(damaged), threads=2)
        with pytest.raises(CorruptImage, match="damaged") as caught:
            reader.read_at(0, len(data))
        assert caught.value.structure == "bzip2 block"
        assert caught.value.offset is not None
        assert len(damaged) // 2 < caught.value.offset <= len(damaged) * 3 // 4
        assert reader.read_at(0, len(data) // 2) == data[: len(data) // 2]
        assert len(reader.problems) == 1
        reader.close()

    @settings(max_examples=20)
    @given(st.sets(st.integers(0, MANY - 1), max_size=4), st.integers(0, 7))
    def test_every_healthy_block_can_be_salvaged(self, damaged: set[int], bit: int) -> None:
        bits = to_bits(COMPRESSED)
        starts = [at for at in occurrences(bits, MAGICS["block"]) if at]
        compressed = bytearray(COMPRESSED)
        for number in damaged:
            compressed[(starts[number] + 300_000) // 8] ^= 1 << bit
        reader = Bzip2Reader(BytesSource(compressed), threads=2)
        salvaged = list(reader.salvage())
        first = min(damaged, default=MANY)
        assert [starts.index(block.start_bit) for block in salvaged] == [
            number for number in range(first, MANY) if number not in damaged
        ]
        assert all(block.data in DATA for block in salvaged)
        known = sum(len(block.data) for block in salvaged)
        assert known + reader.stats.blocks_known * 100_000 >= len(DATA) - 100_000 * len(damaged) - 100_000
        reader.close()

    def test_there_is_nothing_to_salvage_of_good_data(self, reader: Bzip2Reader) -> None:
        assert list(reader.salvage()) == []

    @pytest.mark.parametrize(
        ("blocks", "crc"),
        [
            ([BLOCKS[2], BLOCKS[0]], [BLOCKS[0], BLOCKS[2]]),
            ([BLOCKS[0]], [BLOCKS[0], BLOCKS[2]]),
            ([BLOCKS[0], BLOCKS[0]], [BLOCKS[0]]),
        ],
        ids=["swapped", "missing", "repeated"],
    )
    def test_whole_blocks_in_a_wrong_stream(self, blocks: list[ForgedBlock], crc: list[ForgedBlock]) -> None:
        right = to_bits(stream(crc))
        compressed = stream(blocks, crc=int(right[right.rindex(MAGICS["end"]) + 48 :][:32], 2))
        assert outcome(compressed) is None
        data = b"".join(block.data for block in blocks)
        reader = Bzip2Reader(BytesSource(compressed), threads=1)
        assert reader.read_at(0, len(data)) == data
        with pytest.raises(CorruptImage, match="combined CRC"):
            _ = reader.size
        assert "combined CRC" in reader.problems[0].message
        reader.close()

    @pytest.mark.parametrize("trailing", [b"\0", bytes(100_000), b"garbage", b"BZ is no header", b"\xff" * 1000])
    def test_what_follows_the_last_stream_is_a_problem(self, trailing: bytes) -> None:
        compressed = bz2.compress(b"data") + EMPTY_STREAM
        reader = Bzip2Reader(BytesSource(compressed + trailing))
        assert reader.size == 4
        assert reader.read_at(0, 4) == b"data"
        [problem] = reader.problems
        assert problem.offset == len(compressed)
        reader.close()

    def test_a_long_hole_after_the_last_stream_is_not_read(self) -> None:
        """An image may be followed by the rest of the disk that it was written to."""

        class Disk:
            size = 1 << 40
            furthest = 0

            def read_at(self, offset: int, length: int) -> bytes:
                self.furthest = max(self.furthest, offset + length)
                return COMPRESSED[offset : offset + length].ljust(length, b"\0")

        disk = Disk()
        reader = Bzip2Reader(disk, threads=2)
        assert reader.read_at(0, len(DATA)) == DATA
        assert reader.size == len(DATA)
        assert disk.furthest < len(COMPRESSED) + (5 << 20)
        reader.close()

    @pytest.mark.parametrize(
        "data", [b"not bzip2 at all", b"BZh0" + bytes(20), b"BZh9" + bytes(20), b"BZi9" + COMPRESSED[4:]]
    )
    def test_what_is_no_bzip2(self, data: bytes) -> None:
        with pytest.raises(CorruptImage) as caught:
            Bzip2Reader(BytesSource(data))
        assert not isinstance(caught.value, TruncatedImage)

    @pytest.mark.parametrize("data", [b"", b"B", b"BZh9", COMPRESSED[:9]])
    def test_a_header_that_is_cut_off(self, data: bytes) -> None:
        with pytest.raises(TruncatedImage):
            Bzip2Reader(BytesSource(data))

    def test_a_second_stream_that_is_damaged_is_no_garbage(self) -> None:
        first = bz2.compress(b"first")
        for second in (b"BZh9" + bytes(6) + bytes(50), b"XZh9" + bz2.compress(b"second")[4:]):
            reader = Bzip2Reader(BytesSource(first + second), threads=1)
            assert reader.read_at(0, 5) == b"first"
            with pytest.raises(CorruptImage):
                _ = reader.size
            reader.close()

    def test_random_bytes_are_refused_or_decode(self) -> None:
        chosen = random.Random(8)
        blocks = [real_block(b"some"), false_magics("end", 1), real_block(b"more")]
        bits = to_bits(stream(blocks))
        for _ in range(300):
            first, last = sorted(chosen.randrange(32, len(bits)) for _ in range(2))
            spliced = to_bytes(bits[:first] + bits[last:] if chosen.random() < 0.5 else bits[:last] + bits[first:])
            expected = outcome(spliced)
            reader = None
            try:
                reader = Bzip2Reader(BytesSource(spliced), threads=1)
                assert reader.read_at(0, reader.size) == expected
            except CorruptImage:
                assert expected is None
            finally:
                if reader is not None:
                    reader.close()


class Failing:
    """A source that fails while it is told to."""

    def __init__(self, source: ReadAt) -> None:
        self.size = source.size
        self.fails = False
        self._source = source

    def read_at(self, offset: int, length: int) -> bytes:
        if self.fails:
            raise OSError(5, "Input/output error")
        return self._source.read_at(offset, length)


class TestSources:
    """Sources that fail, shrink or change."""

    def test_a_failed_read_may_be_tried_again(self) -> None:
        source = Failing(BytesSource(COMPRESSED))
        reader = Bzip2Reader(source, threads=2, cache_bytes=0)
        assert reader.read_at(0, 500_000) == DATA[:500_000]
        for _ in range(2):
            source.fails = True
            with pytest.raises(OSError, match="Input/output"):
                reader.read_at(0, len(DATA))
            source.fails = False
        assert reader.problems == ()
        assert reader.read_at(0, len(DATA)) == DATA
        reader.close()

    @pytest.mark.parametrize(
        "change", [lambda data: bytes(len(data)), lambda data: data[: len(data) // 2]], ids=["changed", "shrunk"]
    )
    def test_a_source_that_changes_is_noticed(self, change: Callable[[bytes], bytes]) -> None:
        """Also one that, unlike a file, does not notice it itself."""

        class Changing:
            size = len(COMPRESSED)
            data = COMPRESSED

            def read_at(self, offset: int, length: int) -> bytes:
                return BytesSource(self.data).read_at(offset, length)

            def read_up_to(self, offset: int, length: int) -> bytes:
                return self.data[offset : offset + length]

        source = Changing()
        reader = Bzip2Reader(source, threads=2, cache_bytes=0)
        assert reader.size == len(DATA)
        source.data = change(COMPRESSED)
        with pytest.raises(CorruptImage):
            reader.read_at(len(DATA) * 3 // 4, 10)
        reader.close()
