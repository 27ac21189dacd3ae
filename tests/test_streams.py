"""Sources, slices and streams: exact ranges, clear errors, no shared cursor, never a write."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import pickle
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmvisor_image import Image
from vmvisor_image.errors import (
    ClosedError,
    CorruptImage,
    InvalidArgument,
    RemoteError,
    SourceChanged,
    SourceError,
    TruncatedImage,
)
from vmvisor_image.faces.cli import main
from vmvisor_image.fleet import scan_one
from vmvisor_image.streams.buffered import BufferedStream, ReadAtStream, TextStream, open_stream
from vmvisor_image.streams.checked import CheckedSource
from vmvisor_image.streams.reading import prefetch, read_up_to
from vmvisor_image.streams.source import ReadAt, check_range, past_end
from vmvisor_image.streams.sources import BytesSource, FileObjectSource, FileSource
from vmvisor_image.streams.views import Slice
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

DATA = random.Random(0).randbytes(10_000)

MakeSource = Callable[[Path, ExitStack], ReadAt]


def _file_source(path: Path, stack: ExitStack) -> ReadAt:
    source = FileSource(path)
    stack.callback(source.close)
    return source


def _file_object_source(path: Path, stack: ExitStack) -> ReadAt:
    return FileObjectSource(stack.enter_context(path.open("rb")))


def _slice(path: Path, stack: ExitStack) -> ReadAt:
    return Slice(BytesSource(b"before" + path.read_bytes() + b"after"), 6, len(DATA))


SOURCES: dict[str, MakeSource] = {
    "bytes": lambda path, stack: BytesSource(path.read_bytes()),
    "bytearray": lambda path, stack: BytesSource(bytearray(path.read_bytes())),
    "memoryview": lambda path, stack: BytesSource(memoryview(path.read_bytes())),
    "file": _file_source,
    "file object": _file_object_source,
    "BytesIO": lambda path, stack: FileObjectSource(io.BytesIO(path.read_bytes())),
    "slice": _slice,
}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams") / "data.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest, data_path: Path) -> Iterator[ReadAt]:
    """Each kind of source, holding DATA."""
    with ExitStack() as stack:
        yield SOURCES[request.param](data_path, stack)


class Recorder:
    """A source that writes down what was asked of it; its size is unknown, as a compressed source's is."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.prefetched: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        raise AssertionError("nobody needed to know the size")

    def read_at(self, offset: int, length: int) -> bytes:
        return BytesSource(self.data).read_at(offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def prefetch(self, offset: int, length: int) -> None:
        self.prefetched.append((offset, length))


class TestEverySource:
    def test_satisfies_the_protocol(self, source: ReadAt) -> None:
        assert isinstance(source, ReadAt)
        assert source.size == len(DATA)

    @given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
    def test_gives_exact_ranges(self, source: ReadAt, start: int, end: int) -> None:
        start, end = sorted((start, end))
        data = source.read_at(start, end - start)
        assert type(data) is bytes
        assert data == DATA[start:end]

    @given(st.integers(0, 2 * len(DATA)), st.integers(0, 1 << 70))
    def test_refuses_what_passes_the_end(self, source: ReadAt, offset: int, beyond: int) -> None:
        length = max(len(DATA) - offset, 0) + 1 + beyond
        with pytest.raises(TruncatedImage) as caught:
            source.read_at(offset, length)
        assert caught.value.offset == offset
        assert caught.value.found == str(len(DATA))

    def test_gives_nothing_at_the_end_but_not_after_it(self, source: ReadAt) -> None:
        assert source.read_at(len(DATA), 0) == b""
        with pytest.raises(TruncatedImage):
            source.read_at(len(DATA) + 1, 0)

    @pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (-1, -1), (len(DATA) + 5, -1)])
    def test_refuses_negative_ranges(self, source: ReadAt, offset: int, length: int) -> None:
        with pytest.raises(InvalidArgument, match="must not be negative"):
            source.read_at(offset, length)

    def test_reads_up_to_its_end(self, source: ReadAt) -> None:
        assert read_up_to(source, 0, 3) == DATA[:3]
        assert read_up_to(source, len(DATA) - 2, 100) == DATA[-2:]
        assert read_up_to(source, len(DATA), 1) == b""
        assert read_up_to(source, len(DATA) + 7, 1) == b""

    def test_serves_many_threads(self, source: ReadAt) -> None:
        numbers = random.Random(1)
        ranges = [(numbers.randrange(9_000), numbers.randrange(1_000)) for _ in range(500)]
        with ThreadPoolExecutor(8) as pool:
            read = pool.map(lambda place: source.read_at(*place), ranges)
        assert list(read) == [DATA[offset : offset + length] for offset, length in ranges]


class TestBytesSource:
    def test_keeps_what_it_was_given(self) -> None:
        changing = bytearray(b"abc")
        source = BytesSource(changing)
        changing[:] = b"xyz"
        assert source.read_at(0, 3) == b"abc"

    def test_close_does_nothing(self) -> None:
        source = BytesSource(b"abc")
        source.close()
        assert source.read_at(1, 1) == b"b"


class TestFileSource:
    @pytest.fixture
    def file(self, data_path: Path) -> Iterator[FileSource]:
        source = FileSource(data_path)
        yield source
        source.close()

    def test_takes_a_path_or_its_name(self, data_path: Path, file: FileSource) -> None:
        named = FileSource(str(data_path))
        named.close()
        assert file.path == named.path == str(data_path)

    def test_says_what_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            FileSource(tmp_path / "none")

    def test_refuses_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError):
            FileSource(tmp_path)

    def test_reads_a_file_nobody_may_write(self, tmp_path: Path) -> None:
        path = tmp_path / "data"
        path.write_bytes(b"abc")
        path.chmod(0o400)
        source = FileSource(path)
        assert source.read_at(0, 3) == b"abc"
        source.close()

    def test_close_ends_reading(self, data_path: Path) -> None:
        source = FileSource(data_path)
        source.close()
        source.close()
        with pytest.raises(ClosedError, match=r"data\.bin: read after close"):
            source.read_at(0, 1)

    @pytest.mark.parametrize("change", ["shrinks", "grows", "is written to", "is touched"])
    def test_says_when_the_file_changed(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "changing"
        path.write_bytes(DATA)
        os.utime(path, (1e9, 1e9))
        source = FileSource(path)
        assert source.read_at(50, 100) == DATA[50:150]
        if change == "shrinks":
            os.truncate(path, 100)
        elif change == "grows":
            with path.open("ab") as file:
                file.write(b"x")
        elif change == "is written to":
            with path.open("r+b") as file:
                file.write(b"x")
        else:
            os.utime(path, (1e9, 1e9 + 1))
        with pytest.raises(SourceChanged, match="changing: it was written to since it was opened"):
            source.read_at(50, 100)
        source.close()

    def test_tries_again_what_may_pass(self, file: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
        pread, failing = os.pread, [errno.EIO, errno.EIO]

        def flaky(fd: int, length: int, offset: int) -> bytes:
            if failing:
                raise OSError(failing.pop(), "failing")
            return pread(fd, length, offset)

        monkeypatch.setattr(os, "pread", flaky)
        assert file.read_at(3, 1000) == DATA[3:1003]

    @pytest.mark.parametrize(("number", "tries"), [(errno.EIO, 3), (errno.EBADMSG, 1)])
    def test_says_which_range_can_t_be_read(
        self, file: FileSource, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
    ) -> None:
        tried = 0

        def failing(fd: int, length: int, offset: int) -> bytes:
            nonlocal tried
            tried += 1
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "pread", failing)
        with pytest.raises(SourceError, match=r"data\.bin: bytes 3 to 1003 \(exclusive\) could not be read") as caught:
            file.read_at(3, 1000)
        assert (caught.value.errno, tried) == (number, tries)

    def test_a_descriptor_is_never_another_file_s(self, tmp_path: Path) -> None:
        """Close while others read, and open other files at once, which get the numbers that become free."""
        (tmp_path / "right").write_bytes(b"r" * 4096)
        (tmp_path / "wrong").write_bytes(b"w" * 4096)
        wrong: list[bytes] = []
        given_up = rounds = 0
        while rounds < 200 or (not given_up and rounds < 10_000):  # on a busy machine they may be done before the close
            rounds += 1
            source = FileSource(tmp_path / "right")
            barrier = threading.Barrier(3)

            def read(source: FileSource = source, barrier: threading.Barrier = barrier) -> int:
                barrier.wait()
                for _ in range(50):
                    try:
                        data = source.read_at(0, 4096)
                    except ClosedError:
                        return 1
                    if data != b"r" * 4096:
                        wrong.append(data)
                return 0

            with ThreadPoolExecutor(2) as pool:
                readers = [pool.submit(read) for _ in range(2)]
                barrier.wait()
                source.close()
                with (tmp_path / "wrong").open("rb") as other:
                    other.read(1)
                    given_up += sum(reader.result() for reader in readers)
        assert not wrong
        assert given_up > 0

    def test_joins_short_reads(self, file: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))
        assert file.read_at(3, 1000) == DATA[3:1003]

    def test_reads_without_pread(self, file: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "pread")
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda offset: file.read_at(offset, 10), range(0, 9_000, 10)))
        assert b"".join(read) == DATA[:9_000]

    def test_pickles_as_its_path(self, file: FileSource) -> None:
        again = pickle.loads(pickle.dumps(file))
        assert again.read_at(5, 5) == file.read_at(5, 5)
        again.close()


class TestFileObjectSource:
    def test_leaves_the_file_open(self) -> None:
        file = io.BytesIO(DATA)
        FileObjectSource(file).close()
        assert not file.closed

    def test_does_not_mind_where_the_cursor_is(self) -> None:
        file = io.BytesIO(DATA)
        file.seek(77)
        source = FileObjectSource(file)
        file.seek(99)
        assert source.read_at(0, 10) == DATA[:10]

    def test_joins_short_reads(self) -> None:
        class OneByteAtATime(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(1)

        assert FileObjectSource(OneByteAtATime(DATA)).read_at(20, 50) == DATA[20:70]

    def test_says_when_the_file_shrank(self) -> None:
        file = io.BytesIO(DATA)
        source = FileObjectSource(file)
        file.truncate(30)
        with pytest.raises(TruncatedImage) as caught:
            source.read_at(20, 50)
        assert caught.value.found == "30"

    def test_refuses_an_object_that_gives_too_much(self) -> None:
        class Generous(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read() if size else b""

        with pytest.raises(InvalidArgument, match="exact"):
            FileObjectSource(Generous(DATA)).read_at(0, 10)

    def test_refuses_a_pipe(self) -> None:
        reader, writer = os.pipe()
        os.close(writer)
        with open(reader, "rb") as pipe, pytest.raises(InvalidArgument, match="seekable"):  # noqa: PTH123  # no path
            FileObjectSource(pipe)

    def test_refuses_a_file_open_for_writing(self, tmp_path: Path) -> None:
        with (tmp_path / "out").open("wb") as file, pytest.raises(InvalidArgument, match="readable"):
            FileObjectSource(file)

    def test_refuses_text(self) -> None:
        text: BinaryIO = io.StringIO("text")  # type: ignore[assignment]  # what the test is about
        with pytest.raises(InvalidArgument, match="binary"):
            FileObjectSource(text).read_at(0, 1)


class TestCheckedSource:
    """Sources of the caller's own classes."""

    class Given:
        size = 4096

        def __init__(self, answer: object) -> None:
            self.answer = answer

        def read_at(self, offset: int, length: int) -> bytes:
            return self.answer  # type: ignore[return-value]  # what is wrong with it

    @pytest.mark.parametrize(
        ("answer", "says"), [(b"short", "5 bytes came"), (bytes(5000), "5000 bytes came"), (None, "NoneType came")]
    )
    def test_what_was_not_asked_for(self, answer: object, says: str) -> None:
        with pytest.raises(SourceError, match=rf"bytes 0 to 512 \(exclusive\) were asked for, and {says}"):
            Image.open(self.Given(answer))

    def test_hints_are_passed_on(self) -> None:
        recorder = Recorder()
        source = CheckedSource(recorder)
        prefetch(source, 1, 2)
        assert recorder.prefetched == [(1, 2)]
        assert source.read_at(0, 10) == recorder.read_at(0, 10)


class TestSlice:
    def test_counts_from_its_start(self) -> None:
        part = Slice(BytesSource(DATA), 100, 50)
        assert (part.start, part.size) == (100, 50)
        assert part.read_at(10, 5) == DATA[110:115]

    @given(st.data())
    def test_of_a_slice(self, data: st.DataObject) -> None:
        whole: ReadAt = BytesSource(DATA)
        expected = DATA
        for _ in range(data.draw(st.integers(0, 5))):
            start = data.draw(st.integers(0, len(expected)))
            size = data.draw(st.integers(0, len(expected) - start))
            whole, expected = Slice(whole, start, size), expected[start : start + size]
        assert whole.read_at(0, whole.size) == expected

    def test_names_itself(self) -> None:
        with pytest.raises(TruncatedImage, match="partition 5 at byte 0x8"):
            Slice(BytesSource(DATA), 0, 10, "partition 5").read_at(8, 3)

    def test_may_pass_the_end_of_its_source_until_read(self) -> None:
        part = Slice(BytesSource(DATA), len(DATA) - 5, 100)
        assert part.size == 100
        assert part.read_at(0, 5) == DATA[-5:]
        with pytest.raises(TruncatedImage):
            part.read_at(0, 6)

    @pytest.mark.parametrize(("start", "size"), [(-1, 1), (1, -1)])
    def test_refuses_negative_bounds(self, start: int, size: int) -> None:
        with pytest.raises(InvalidArgument):
            Slice(BytesSource(DATA), start, size)

    def test_passes_hints_on(self) -> None:
        source = Recorder()
        Slice(source, 1000, 100).prefetch(10, 20)
        assert source.prefetched == [(1010, 20)]

    @pytest.mark.parametrize(("offset", "passed"), [(90, [(1090, 10)]), (100, []), (1 << 40, [])])
    def test_cuts_hints_at_its_end(self, offset: int, passed: list[tuple[int, int]]) -> None:
        source = Recorder()
        Slice(source, 1000, 100).prefetch(offset, 1 << 30)
        assert source.prefetched == passed


class TestHelpers:
    @pytest.mark.parametrize(("offset", "length"), [(0, 0), (1, 0), (0, 1), (1 << 80, 1 << 80)])
    def test_check_range_takes_anything_else(self, offset: int, length: int) -> None:
        check_range(offset, length)

    def test_past_end_says_all(self) -> None:
        error = past_end("volume", 0x10, 8, 0x14)
        assert str(error) == (
            "volume at byte 0x10: 8 bytes wanted, but it ends at byte 0x14 (expected at least 24 bytes, found 20)"
        )

    def test_prefetch_is_only_a_hint(self) -> None:
        prefetch(BytesSource(DATA), 0, 10)

    def test_prefetch_of_nothing_is_dropped(self) -> None:
        source = Recorder()
        prefetch(source, 5, 0)
        prefetch(source, 5, -3)
        prefetch(source, 5, 3)
        assert source.prefetched == [(5, 3)]

    def test_read_up_to_asks_no_size_of_a_source_that_can_do_without(self) -> None:
        assert read_up_to(Recorder(), len(DATA) - 1, 10) == DATA[-1:]

    @pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
    def test_read_up_to_refuses_negative_ranges(self, offset: int, length: int) -> None:
        with pytest.raises(InvalidArgument):
            read_up_to(BytesSource(DATA), offset, length)


_SMALL = st.integers(-5, 300)
_STEPS = st.one_of(
    st.tuples(st.sampled_from(["read", "readline"]), st.one_of(st.none(), st.integers(-1, 300))),
    st.tuples(st.sampled_from(["read1", "readinto", "readinto1"]), st.integers(0, 300)),
    st.tuples(st.sampled_from(["from start", "from here", "from end"]), _SMALL),
)


def _step(stream: BinaryIO, name: str, amount: int | None) -> object:
    """What one step gives: its value and the position after it."""
    if name.startswith("readinto"):
        buffer = bytearray(amount or 0)
        count = getattr(stream, name)(buffer)
        return bytes(buffer[:count]), stream.tell()
    if name.startswith("from "):
        assert amount is not None
        whence = {"from start": os.SEEK_SET, "from here": os.SEEK_CUR, "from end": os.SEEK_END}[name]
        if whence != os.SEEK_END and amount + (stream.tell() if whence else 0) < 0:
            with pytest.raises((ValueError, OSError)):  # the two say it differently
                stream.seek(amount, whence)
            return "refused"
        return stream.seek(amount, whence)
    return getattr(stream, name)(amount), stream.tell()


class TestStream:
    @given(st.binary(min_size=5, max_size=200), st.lists(_STEPS, max_size=20))
    def test_behaves_as_a_file(self, data: bytes, steps: list[tuple[str, int | None]]) -> None:
        with tempfile.TemporaryFile() as model:
            model.write(data)
            model.seek(0)
            stream = open_stream(BytesSource(data))
            for name, amount in steps:
                assert _step(stream, name, amount) == _step(model, name, amount)

    @given(st.binary(max_size=200), st.integers(0, 250), st.integers(0, 250))
    def test_raw_reads_are_exact(self, data: bytes, position: int, length: int) -> None:
        stream, buffer = ReadAtStream(BytesSource(data)), bytearray(length)
        stream.seek(position)
        count = stream.readinto(buffer)
        assert bytes(buffer[:count]) == data[position : position + length]
        assert stream.tell() == position + count
        assert stream.readall() == data[position + count :]

    def test_is_read_only(self) -> None:
        source = BytesSource(DATA)
        stream = open_stream(source)
        for either in (stream, ReadAtStream(source)):
            assert (either.readable(), either.seekable(), either.writable()) == (True, True, False)
        with pytest.raises(io.UnsupportedOperation):
            stream.write(b"x")
        with pytest.raises(io.UnsupportedOperation):
            stream.truncate(0)

    def test_reads_into_any_buffer(self) -> None:
        import array

        numbers = array.array("I", [0] * 4)
        assert ReadAtStream(BytesSource(bytes(range(16)))).readinto(numbers) == 16
        assert numbers.tobytes() == bytes(range(16))

    def test_iterates_over_lines(self) -> None:
        assert list(open_stream(BytesSource(b"a\nbc\n\nd"))) == [b"a\n", b"bc\n", b"\n", b"d"]

    def test_streams_of_one_source_have_cursors_of_their_own(self) -> None:
        source = BytesSource(DATA)
        first, second = open_stream(source), open_stream(source)
        first.seek(500)
        assert second.read(5) == DATA[:5]
        assert first.read(5) == DATA[500:505]

    def test_closing_leaves_the_source_open(self, data_path: Path) -> None:
        source = FileSource(data_path)
        with open_stream(source) as stream:
            stream.read(1)
        assert source.read_at(0, 1) == DATA[:1]
        source.close()

    @pytest.mark.parametrize(
        "use",
        [
            lambda stream: stream.seek(0),
            lambda stream: stream.readinto(bytearray(1)),
            lambda stream: stream.readall(),
            lambda stream: stream.read(1),
        ],
        ids=["seek", "readinto", "readall", "read"],
    )
    def test_says_that_it_is_closed(self, use: Callable[[ReadAtStream], object]) -> None:
        stream = ReadAtStream(BytesSource(DATA))
        stream.close()
        with pytest.raises(ClosedError):
            use(stream)

    @pytest.mark.parametrize(("offset", "whence"), [(-1, os.SEEK_SET), (-1, os.SEEK_CUR), (-20_000, os.SEEK_END)])
    def test_refuses_positions_before_the_start(self, offset: int, whence: int) -> None:
        stream = ReadAtStream(BytesSource(DATA))
        with pytest.raises(InvalidArgument, match="negative position"):
            stream.seek(offset, whence)
        assert stream.tell() == 0

    def test_refuses_an_unknown_whence(self) -> None:
        with pytest.raises(InvalidArgument, match="whence"):
            ReadAtStream(BytesSource(DATA)).seek(0, 3)

    def test_needs_no_size_to_read_to_the_end(self) -> None:
        assert open_stream(Recorder()).read() == DATA

    def test_passes_damage_on(self) -> None:
        stream = open_stream(Slice(BytesSource(DATA), len(DATA) - 5, 100))
        with pytest.raises(TruncatedImage):
            stream.read()

    def test_works_ahead_of_reads_in_a_row_only(self) -> None:
        source = Recorder()
        stream, buffer = ReadAtStream(source), bytearray(10)
        stream.readinto(buffer)
        stream.seek(500)
        stream.readinto(buffer)
        assert source.prefetched == []
        stream.readinto(buffer)
        assert [offset for offset, _ in source.prefetched] == [510]
        assert source.prefetched[0][1] > len(buffer)


class Damaged:
    """DATA, or other bytes, of which one can't be read."""

    def __init__(self, data: bytes, at: int, error: type[Exception] = CorruptImage) -> None:
        self.data, self.at, self.size = data, at, len(data)
        self.error = error("bad", structure="test", offset=at) if error is CorruptImage else error("bad")
        self.failed = 0

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise past_end("test", offset, length, self.size)
        if offset <= self.at < offset + length:
            self.failed += 1
            raise self.error
        return self.data[offset : offset + length]


def _until_damage(read: Callable[[], Any]) -> list[Any]:
    """All that reads give until one raises."""
    found = []
    with contextlib.suppress(CorruptImage):
        while part := read():
            found.append(part)
        pytest.fail("damage is not the end")
    return found


def _readinto(stream: BinaryIO, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: stream.readinto(buffer)])  # type: ignore[attr-defined]  # of every buffered stream


def _readinto1(stream: BinaryIO, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: stream.readinto1(buffer)])  # type: ignore[attr-defined]


def _peeked(stream: BinaryIO, size: int) -> bytes:
    data: bytes = stream.peek()[:size]  # type: ignore[attr-defined]
    assert stream.read(len(data)) == data
    return data


_READS: dict[str, Callable[[BinaryIO, int], bytes]] = {
    "read": lambda stream, size: stream.read(size),
    "read1": lambda stream, size: stream.read1(size),  # type: ignore[attr-defined]
    "readline": lambda stream, size: stream.readline(size),
    "lines": lambda stream, size: next(stream, b""),
    "readinto": _readinto,
    "readinto1": _readinto1,
    "peek": _peeked,
}


class TestStreamOverDamage:
    """What is healthy before the damage comes first, the error at the next read."""

    @pytest.mark.parametrize("at", [0, 1, 999, 1000, 65_535, 65_536, 65_537, 100_000, 199_999])
    @pytest.mark.parametrize("size", [1, 1000, 65_536, 150_000])
    @pytest.mark.parametrize("read", _READS)
    def test_all_that_is_healthy_then_the_error(self, read: str, size: int, at: int) -> None:
        data = random.Random(at).randbytes(200_000)
        at = min(at, 5000) if size == 1 else at
        stream = open_stream(Damaged(data, at))
        assert b"".join(_until_damage(lambda: _READS[read](stream, size))) == data[:at]
        assert stream.tell() == at
        with pytest.raises(CorruptImage, match="bad"):
            _READS[read](stream, size)
        stream.seek(at + 1)
        assert stream.read() == data[at + 1 :]
        assert stream.read(1) == b"", "the end is no damage"

    @given(st.integers(0, 299), st.lists(st.tuples(st.sampled_from(sorted(_READS)), st.integers(1, 80)), max_size=30))
    def test_in_any_order(self, at: int, steps: list[tuple[str, int]]) -> None:
        data = random.Random(at).randbytes(300)
        stream = BufferedStream(Damaged(data, at), buffer_size=16)
        done = 0
        for name, size in steps:
            if done == at:
                with pytest.raises(CorruptImage):
                    _READS[name](stream, size)
                continue
            part = _READS[name](stream, size)
            assert part
            assert part == data[done : done + len(part)]
            done += len(part)
            assert done <= at

    def test_reading_all_is_all_or_an_error(self) -> None:
        stream = open_stream(Damaged(DATA, 7000))
        assert stream.read(10) == DATA[:10]
        for size in (-1, None):
            with pytest.raises(CorruptImage):
                stream.read(size)
            assert stream.tell() == 10
        assert stream.read(8000) == DATA[10:7000], "nothing was lost"

    def test_the_raw_stream_gives_what_is_healthy_first_too(self) -> None:
        for raw in (ReadAtStream(Damaged(DATA, 7000)), open_stream(Damaged(DATA, 7000)).detach()):
            buffer = bytearray(9000)
            assert raw.readinto(buffer) == 7000
            with pytest.raises(CorruptImage):
                raw.readinto(buffer)

    def test_nothing_is_asked_for_is_no_error(self) -> None:
        stream = open_stream(Damaged(DATA, 0))
        with pytest.raises(CorruptImage):
            stream.read(1)
        assert (stream.read(0), stream.readinto(bytearray()), stream.readline(0)) == (b"", 0, b"")

    def test_a_place_that_can_t_be_read_is_damage_and_a_server_is_not(self) -> None:
        stream = open_stream(Damaged(DATA, 5000, SourceError))
        assert stream.read(9000) == DATA[:5000]
        with pytest.raises(SourceError):
            stream.read(1)
        for error in (RemoteError, SourceChanged):
            source = Damaged(DATA, 5000, error)
            with pytest.raises(error):
                open_stream(source).read(9000)
            assert source.failed == 1, "it is asked once"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "latin-1"])
    @pytest.mark.parametrize("at", [*range(100, 116), 8191, 8192, 8193, 65_535, 65_536, 65_537, 65_538])
    @pytest.mark.parametrize("read", ["lines", "read"])
    def test_text(self, read: str, at: int, encoding: str) -> None:
        data = (
            "".join(f"{number} äöü\n" if encoding == "latin-1" else f"{number} ä€😀\n" for number in range(9000))
        ).encode(encoding)
        stream = TextStream(Damaged(data, at), None, encoding)
        found = _until_damage(stream.readline if read == "lines" else lambda: stream.read(1000))
        assert "".join(found) == data[:at].decode(encoding, "ignore")
        with pytest.raises(CorruptImage):
            stream.read(1)
        with pytest.raises(CorruptImage):
            next(stream)

    def test_text_that_ends_within_a_character_is_an_error_of_its_own(self) -> None:
        with pytest.raises(UnicodeDecodeError):
            TextStream(BytesSource("€".encode()[:2]), None, "utf-8").read(5)

    def test_all_of_a_text_or_an_error(self) -> None:
        with pytest.raises(CorruptImage):
            TextStream(Damaged(b"a\n" * 100, 150), None, "utf-8").read()
        with pytest.raises(CorruptImage):
            list(TextStream(Damaged(b"a\n" * 100, 150), None, "utf-8"))

    def test_everywhere_a_stream_is_made(self) -> None:
        """A disk whose file is damaged in the middle: through the disk, the partition, the file and fsspec."""
        from vmvisor_image.fsspec import VmvisorFileSystem

        text = b"0123456789abcde\n" * 20_000
        raw = mbr_disk(
            [ForgedPartition(1, 6, 64, 6000, content=fat_volume({"A.TXT": text}, sectors=6000))], sectors=6064
        )
        data = raw.read_at(0, raw.size)
        at = data.index(text) + 200_003
        with Image.open(CheckedSource(Damaged(data, at))) as image:
            partition = image.partitions[1]
            (file,) = [partition.files[name] for name in partition.files]
            fs = VmvisorFileSystem(image)
            streams: dict[str, tuple[Any, int]] = {
                "image": (image.open(), at),
                "partition": (partition.open(), at - partition.start),
                "file": (file.open(), 200_003),
                "text": (file.open("r"), 200_003),
                "fsspec": (fs.open("1/A.TXT"), 200_003),
            }
            pieces = file.chunks(150_000)
            assert [len(piece) for piece in _until_damage(lambda: next(pieces, b""))] == [150_000, 50_003]
            for name, (stream, healthy) in streams.items():
                assert sum(map(len, _until_damage(functools.partial(stream.read, 1000)))) == healthy, name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_an_error_at_once(tmp_path: Path) -> None:
    """Opening one waits for whoever writes to it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe") as caught:
        FileSource(tmp_path / "pipe")
    assert caught.value.errno == errno.ESPIPE
    with pytest.raises(SourceError), Image.open(tmp_path / "pipe") as image:
        _ = image.size
    assert main(["info", str(tmp_path / "pipe")]) == 1
    row = scan_one(str(tmp_path / "pipe"))
    assert (row["ok"], row["error"]) == (False, "SourceError")
