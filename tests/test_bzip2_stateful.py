"""Any sequence of reads, seeks, hints, reopenings and threads gives the bytes that `bz2.decompress` does."""

from __future__ import annotations

import bz2
import io
import os
import pickle
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support import ENGINES
from vmvisor_image.bzip2 import Bzip2Reader, engine
from vmvisor_image.streams.sources import FileSource

_ENGINES = [name for name in ENGINES if name == "libbz2" or engine() == name]
"""Those that are there."""


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A bzip2 file of some streams of several levels, and what it decodes to."""
    compressed = data = b""
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from([0, 1, 100, 99_980, 100_001, 250_000]))
        kind = draw(st.sampled_from(["noise", "text", "zeros"]))
        piece = {
            "noise": random.Random(size).randbytes(size),
            "text": (b"some text, again and again; " * (size // 28 + 1))[:size],
            "zeros": bytes(size * 30),
        }[kind]
        compressed += bz2.compress(piece, draw(st.integers(1, 9)))
        data += piece
    return compressed + draw(st.sampled_from([b"", b"\0", b"garbage", bytes(2000)])), data


class Reading(RuleBasedStateMachine):
    """The reader's stream beside `io.BytesIO`."""

    @initialize(
        given=streams(),
        threads=st.integers(1, 3),
        cache_bytes=st.sampled_from([0, 300_000, 1 << 26]),
        keeps=st.booleans(),
        name=st.sampled_from(_ENGINES),
    )
    def open(self, given: tuple[bytes, bytes], threads: int, cache_bytes: int, keeps: bool, name: str) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("VMVISOR_BZIP2_ENGINE", name)
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "data.bz2"
        path.write_bytes(given[0])
        self.data = given[1]
        assert self.data == bz2.decompress(given[0])
        self.source = FileSource(path)
        self.reader = Bzip2Reader(
            self.source,
            threads=threads,
            cache_bytes=cache_bytes,
            index=Path(self.folder.name) / "index",
            cache=Path(self.folder.name) / "cache" if keeps else None,
        )
        self.stream, self.model = self.reader.open(), io.BytesIO(self.data)

    @rule(length=st.one_of(st.integers(0, 300), st.integers(0, 400_000)))
    def read(self, length: int) -> None:
        assert self.stream.read(length) == self.model.read(length)

    @rule()
    def read_line(self) -> None:
        assert self.stream.readline(1000) == self.model.readline(1000)

    @rule()
    def read_rest(self) -> None:
        assert self.stream.read() == self.model.read()

    @rule(offset=st.integers(-400_000, 400_000), whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]))
    def seek(self, offset: int, whence: int) -> None:
        base = (0, self.model.tell(), len(self.data))[whence]
        if base + offset >= 0:
            assert self.stream.seek(offset, whence) == self.model.seek(offset, whence)

    @precondition(lambda self: self.data)
    @rule(part=st.floats(0, 1), length=st.integers(0, 200_000))
    def read_at(self, part: float, length: int) -> None:
        offset = int(part * len(self.data))
        assert self.reader.read_up_to(offset, length) == self.data[offset : offset + length]

    @rule(part=st.floats(0, 1), length=st.integers(0, 1 << 30))
    def announce(self, part: float, length: int) -> None:
        self.reader.prefetch(int(part * len(self.data)), length)

    @rule()
    def size(self) -> None:
        assert self.reader.size == len(self.data)

    @rule(name=st.sampled_from(_ENGINES))
    def open_again(self, name: str) -> None:
        """With another engine, too: they share the index and the cache."""
        self.patch.setenv("VMVISOR_BZIP2_ENGINE", name)
        position = self.stream.tell()
        again = pickle.dumps(self.reader)
        self.reader.close()
        self.source.close()
        self.reader = pickle.loads(again)
        self.source = self.reader._source  # type: ignore[assignment]
        self.stream = self.reader.open()
        self.stream.seek(position)

    @invariant()
    def same_place(self) -> None:
        if hasattr(self, "stream"):
            assert self.stream.tell() == self.model.tell()

    def teardown(self) -> None:
        if hasattr(self, "reader"):
            self.reader.close()
            self.source.close()
            self.folder.cleanup()
            self.patch.undo()


Reading.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestReading = Reading.TestCase
