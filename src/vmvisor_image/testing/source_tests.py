"""Tests that every source passes, to be inherited: `SourceTests`, for those of this library and of plug-ins.

    class TestMyReader(SourceTests):
        reader = MyReader

        def open_source(self):
            return MyReader(BytesSource(PACKED)), UNPACKED

pytest collects the methods; nothing here imports it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

from vmvisor_image.errors import ClosedError, InvalidArgument, TruncatedImage, VmvisorImageError
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import prefetch, read_up_to, skip_zeros
from vmvisor_image.streams.source import ReadAt

_THREADS = 4
_READS = 50
"""Reads of each thread."""
_HANGS = 60
"""Seconds after which a forked process that waits for a lock is ended."""
_FAR = 1 << 64
"""Bytes from the start: after the end of every tested source, and more than a file position can hold."""
_LENGTHS = (0, 1, 2, 511, 512, 513, 4096)


class SourceTests:
    """Conformance of a source to `vmvisor_image.streams.source.Source`; a subclass says how one is made.

    A source with only the two members of `ReadAt` is tested as it is used: in a `CheckedSource`. An empty range after
    the end may be no bytes or an error, as a source that finds its size by decoding would have to decode for it.
    """

    reader: ClassVar[type[Any]] = object
    """Class of the sources that are tested."""
    after_close: ClassVar[Literal["refuses", "reads"]] = "reads"
    """Reading of a closed source: it refuses by `ClosedError`, or reads as it has nothing to close."""
    in_child: ClassVar[Literal["refuses", "reads"]] = "reads"
    """Reading in a forked process: it reads, or is refused by an error of this library."""

    cleanup: contextlib.ExitStack
    """Stack that is closed after each test, like the sources: for other things that `open_source` opens."""

    def open_source(self) -> tuple[ReadAt, bytes]:
        """New source, of which nothing was read yet, and the bytes that it gives: some hundred at least."""
        raise NotImplementedError

    def setup_method(self) -> None:
        """Called by pytest before each test."""
        self.cleanup = contextlib.ExitStack()

    def teardown_method(self) -> None:
        """Called by pytest after each test."""
        self.cleanup.close()

    def _open(self) -> tuple[ReadAt, bytes]:
        source, content = self.open_source()
        self.cleanup.callback(as_source(source).close)
        return source, content

    def test_it_is_what_is_tested(self) -> None:
        """The source is of the class that `reader` names."""
        source, _ = self._open()
        assert type(source) is self.reader, f"{type(self).__name__}.reader is {self.reader.__name__}"

    def test_size(self) -> None:
        """`size` is the number of bytes in the source."""
        source, content = self._open()
        assert source.size == len(content)

    def test_reads_are_exact(self) -> None:
        """A read gives the bytes of the range, and no others, also where it is empty or touches the end."""
        source, content = self._open()
        for offset in _borders(len(content)):
            for length in (*_LENGTHS, len(content) - offset):
                if offset + length <= len(content):
                    found = source.read_at(offset, length)
                    assert type(found) is bytes
                    assert found == content[offset : offset + length], f"{length} bytes from {offset}"

    def test_reads_backwards_are_exact(self) -> None:
        """A read before the place of the previous one also gives the right bytes."""
        source, content = self._open()
        for offset in reversed(range(0, len(content), max(1, len(content) // 16))):
            assert source.read_at(offset, 1) == content[offset : offset + 1]

    def test_what_passes_the_end_is_truncated(self) -> None:
        """A range that passes the end is `TruncatedImage`, and spoils nothing."""
        source, content = self._open()
        size = len(content)
        for offset, length in ((0, size + 1), (size - 1, 2), (size, 1), (size + 1, 1), (_FAR, 1), (0, _FAR)):
            _expect(TruncatedImage, source.read_at, offset, length)
        assert source.read_at(0, size) == content  # which the errors before do not change

    def test_negative_ranges_are_refused(self) -> None:
        """A negative offset or length is `InvalidArgument`, and never counted from the end."""
        source, content = self._open()
        for offset, length in ((-1, 1), (0, -1), (-1, -1), (-1, 0), (len(content), -1), (-len(content), len(content))):
            _expect(InvalidArgument, source.read_at, offset, length)
            _expect(InvalidArgument, read_up_to, source, offset, length)

    def test_read_up_to_ends_at_the_end(self) -> None:
        """`read_up_to` gives less where the source ends, and nothing at or after its end."""
        source, content = self._open()
        for offset in (*_borders(len(content)), len(content) + 1, _FAR):
            for length in (*_LENGTHS, _FAR if offset + 4096 >= len(content) else 0):
                assert read_up_to(source, offset, length) == content[offset : offset + length]

    def test_a_buffer_is_filled_up_to_the_end(self) -> None:
        """`read_into` writes the bytes that `read_up_to` gives, and nothing behind them."""
        given, content = self._open()
        source = as_source(given)
        for offset in (*_borders(len(content)), len(content) + 1, _FAR):
            for length in (*_LENGTHS, len(content) + 1):
                buffer = bytearray(b"\xa5" * length)
                count = source.read_into(offset, memoryview(buffer))
                assert buffer[:count] == content[offset : offset + length]
                assert not buffer[count:].strip(b"\xa5"), f"{length} bytes from {offset}: more is written"
        _expect(InvalidArgument, source.read_into, -1, memoryview(bytearray(1)))

    def test_what_is_copied_are_its_bytes(self) -> None:
        """`copy_range` copies the bytes that `read_at` gives, or nothing."""
        given, content = self._open()
        source = as_source(given)
        with tempfile.TemporaryFile(buffering=0) as file:
            for offset in _borders(len(content)):
                for length in _LENGTHS:
                    count = source.copy_range(offset, length, file.fileno(), 7)
                    file.seek(7)
                    assert 0 <= count <= length
                    assert file.read(count) == content[offset : offset + count]
            assert source.copy_range(len(content), 1, file.fileno(), 0) == 0

    def test_read_up_to_needs_no_size(self) -> None:
        """`read_up_to` is right before any other member was used."""
        source, content = self._open()
        assert read_up_to(source, 0, 1) == content[:1]

    def test_zeros_that_are_skipped_are_zeros(self) -> None:
        """`skip_zeros` never skips data."""
        source, content = self._open()
        for is_read in (False, True):  # after reading, more may be known
            if is_read:
                source.read_at(0, len(content))
            for offset in (*_borders(len(content)), len(content) + 1, _FAR):
                for length in (*_LENGTHS, len(content), _FAR):
                    found = skip_zeros(source, offset, offset + length)
                    assert offset <= found <= offset + length
                    assert not content[offset:found].strip(b"\0"), f"data between {offset} and {found} is skipped"

    def test_prefetch_is_only_a_hint(self) -> None:
        """`prefetch` takes any range, even past the end, and changes no byte."""
        source, content = self._open()
        size = len(content)
        for offset, length in ((0, size), (size // 2, 1), (0, 0), (size - 1, 100), (size, 1), (0, _FAR), (_FAR, 1)):
            prefetch(source, offset, length)
            at = min(offset, size - 1)
            assert source.read_at(at, 1) == content[at : at + 1]
        assert source.read_at(0, size) == content

    def test_many_threads_read_the_same(self) -> None:
        """Reads of several threads at once give the right bytes."""
        source, content = self._open()
        start = threading.Barrier(_THREADS)

        def read(seed: int) -> None:
            ranges = random.Random(seed)  # noqa: S311  # no secret
            start.wait()
            for _ in range(_READS):
                first, last = sorted(ranges.randrange(len(content) + 1) for _ in range(2))
                if ranges.randrange(4) == 0:
                    prefetch(source, first, last - first)
                assert source.read_at(first, last - first) == content[first:last]

        with ThreadPoolExecutor(_THREADS) as pool:
            for task in [pool.submit(read, seed) for seed in range(_THREADS)]:
                task.result()

    def test_asking_whether_the_size_is_known_decodes_nothing(self) -> None:
        """`size_is_known` decodes nothing, and where it is True, `size` decodes nothing either."""
        source = as_source(self._open()[0])
        meter = source.meter
        before = 0 if meter is None else meter.decoded_bytes
        is_known = source.size_is_known
        if meter is not None:
            assert meter.decoded_bytes == before
        assert source.size >= 0
        if is_known and meter is not None:
            assert meter.decoded_bytes == before, "its size is known, and decodes"
        assert source.size_is_known

    def test_what_else_is_told_of_it(self) -> None:
        """The other members have values of their types."""
        source = as_source(self._open()[0])
        assert isinstance(source.problems, tuple)
        assert all(isinstance(path, str) for path in source.local_paths)
        for text in (source.version, source.kept_beside):
            assert text is None or isinstance(text, str)
        for time in (source.modified_ns, source.changed_ns):
            assert time is None or isinstance(time, int)

    def test_a_stream_of_it_gives_all(self) -> None:
        """A file object over it reads and seeks like that of any file."""
        source, content = self._open()
        with open_stream(source) as stream:
            assert stream.read() == content
            stream.seek(len(content) // 2)
            assert stream.read() == content[len(content) // 2 :]

    def test_close(self) -> None:
        """A closed source refuses to be read, unless it has nothing to close; closing it twice is not an error."""
        given, content = self._open()
        source = as_source(given)
        assert source.read_at(0, 1) == content[:1]
        for _ in range(2):  # the second time there is nothing to do
            source.close()
            if self.after_close == "refuses":
                _expect(ClosedError, source.read_at, 0, 1)
                _expect(ClosedError, source.read_up_to, 0, 1)
            else:
                assert source.read_at(0, 1) == content[:1]

    def test_a_forked_process_reads_the_same(self) -> None:
        """A forked process reads the right bytes, or is refused, and the parent continues to read."""
        if not hasattr(os, "fork"):
            return
        source, content = self._open()
        half = len(content) // 2
        assert source.read_at(half, 1) == content[half : half + 1]
        if self.in_child == "refuses":
            assert _in_child(lambda: _raises(VmvisorImageError, source.read_at, 0, 1))
        else:
            assert _in_child(lambda: source.read_at(0, len(content)) == content)
        assert source.read_at(0, len(content)) == content


def _borders(size: int) -> list[int]:
    """Offsets at which a part may begin or end, up to `size`."""
    near = {at + step for at in (0, 512, 4096, size // 3, size // 2, size) for step in (-1, 0, 1)}
    return sorted(at for at in near if 0 <= at <= size)


def _raises(expected: type[Exception], call: Any, *arguments: Any) -> bool:
    try:
        call(*arguments)
    except expected:
        return True
    return False


def _expect(expected: type[Exception], call: Any, *arguments: Any) -> None:
    assert _raises(expected, call, *arguments), f"{expected.__name__} is not raised for {arguments[-2:]}"


def _in_child(work: Any) -> bool:
    """Whether `work` gives True in a forked process."""
    if sys.platform == "win32":
        raise NotImplementedError("there is no fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on a fork beside threads warns
        child = os.fork()
    if child == 0:
        signal.alarm(_HANGS)
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)  # whatever happened: the tests go on in the parent only
    return os.waitpid(child, 0)[1] == 0
