"""CPython's own tests of `bz2`, with `Bzip2Reader` where they read; what they write is still the standard library's.

What stays different is in `DIFFERENT`, with the reason; a test that is there and passes is an error.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import os
import sys
import types
import unittest
from typing import Any

import pytest

from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.streams.buffered import BufferedStream
from vmvisor_image.streams.sources import FileObjectSource, FileSource

cpython = pytest.importorskip("test.test_bz2", reason="this Python comes without its tests")

_LINES = "None is a size of a line, as of `io.BytesIO` and of a file"
_AT_ONCE = "what is no bzip2 is refused when it is opened, and is a CorruptImage, which is no OSError"
_CUT_AT_ONCE = "a header that is cut is an EOFError when it is opened, not at the first read"
_PAST_THE_END = "a position may be past the end, as of `io.BytesIO` and of a file"
_BEFORE_THE_START = "a negative position is a ValueError, as of `io.BytesIO`"
_NUMBER = "what reads the descriptor would get compressed bytes: there is none, as of `io.BytesIO`"
DIFFERENT: dict[str, str] = {
    "testDecompressBadData": _AT_ONCE,
    "testDecompressEmpty": "nothing is no bzip2 stream, as for `bz2.open` and for bzip2",
    "testDecompressIncomplete": "a stream that is cut is an EOFError, as for `bz2.open`, and no ValueError",
    "testDecompressLimited": "blocks are decoded whole, and it looks into an attribute that only `BZ2File` has",
    "testFileno": _NUMBER,
    "testReadBadFile": _AT_ONCE,
    "testReadLine": _LINES,
    "testReadLineMultiStream": _LINES,
    "testReadLines": _LINES,
    "testReadLinesMultiStream": _LINES,
    "testSeekPostEnd": _PAST_THE_END,
    "testSeekPostEndMultiStream": _PAST_THE_END,
    "testSeekPostEndTwice": _PAST_THE_END,
    "testSeekPostEndTwiceMultiStream": _PAST_THE_END,
    "testSeekPreStart": _BEFORE_THE_START,
    "testSeekPreStartMultiStream": _BEFORE_THE_START,
    "testSeekable": "a file object has to be seekable",
    "test_read_truncated": _CUT_AT_ONCE,
}
SINCE_3_13: dict[str, str] = {
    "testOpenFileWithIntName": _NUMBER,
    "testOpenFileWithName": _NUMBER,
    "testOpenFileWithoutName": "a closed stream has no name either, which is an AttributeError",
    "testOpenFilename": _NUMBER,
}


class _Reading(BufferedStream):
    """A bzip2 file that closes what it has opened, as `bz2.BZ2File`."""

    def __init__(self, file: Any) -> None:
        if not (is_path := isinstance(file, str | bytes | os.PathLike)) and not hasattr(file, "read"):
            raise TypeError("a path or a file object")
        with contextlib.ExitStack() as stack:
            source = FileSource(os.fsdecode(file)) if is_path else FileObjectSource(file)
            stack.callback(source.close)
            reader = Bzip2Reader(source, threads=1)
            stack.callback(reader.close)
            self._opened = stack.pop_all()
        super().__init__(reader, os.fspath(file) if is_path else None)

    def close(self) -> None:
        super().close()
        self._opened.close()


def _bz2_file(filename: Any, mode: str = "r", **options: Any) -> Any:
    if mode in ("", "r", "rb") and not options:
        return _Reading(filename)
    wrapped: Any = bz2.BZ2File  # its modes are literals to mypy
    return wrapped(filename, mode, **options)


def _open(filename: Any, mode: str = "rb", compresslevel: int = 9, **text: Any) -> Any:
    if mode in ("r", "rb") and not text:
        return _Reading(filename)
    if mode == "rt":
        return io.TextIOWrapper(_Reading(filename), **text)
    return bz2.open(filename, mode, compresslevel, **text)


def _decompress(data: bytes) -> bytes:
    with _Reading(io.BytesIO(data)) as stream:
        return stream.read()


def _cases() -> list[Any]:
    found = []
    for cls in (cpython.BZ2FileTest, cpython.OpenTest, cpython.CompressDecompressTest):
        for name in unittest.defaultTestLoader.getTestCaseNames(cls):
            reason = {**DIFFERENT, **SINCE_3_13}.get(name)
            marks = () if reason is None else pytest.mark.xfail(reason=reason, strict=True)
            found.append(pytest.param(cls, name, marks=marks, id=name))
    return found


@pytest.mark.parametrize(("cls", "name"), _cases())
def test_of_cpython(monkeypatch: pytest.MonkeyPatch, cls: type[unittest.TestCase], name: str) -> None:
    ours = types.SimpleNamespace(**{**vars(bz2), "open": _open, "BZ2File": _bz2_file, "decompress": _decompress})
    monkeypatch.setattr(cpython, "bz2", ours)
    monkeypatch.setattr(cpython, "BZ2File", _bz2_file)
    result = unittest.TestResult()
    cls(name).run(result)
    if result.skipped:
        pytest.skip(result.skipped[0][1])
    wrong = [trace for _, trace in (*result.failures, *result.errors)]
    assert not wrong, wrong[0]


def test_what_is_different_is_there() -> None:
    names = {parameters.id for parameters in _cases()}
    assert not DIFFERENT.keys() - names
    assert not SINCE_3_13.keys() - names or sys.version_info < (3, 13)
