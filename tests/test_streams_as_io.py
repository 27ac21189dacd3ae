"""Our streams beside `open` of a file with the same bytes: the same calls, the same results and kinds of errors."""

from __future__ import annotations

import array
import bz2
import contextlib
import copy
import functools
import gzip
import io
import itertools
import lzma
import operator
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from vmvisor_image import Image, InvalidArgument
from vmvisor_image.fsspec import VmvisorFileSystem
from vmvisor_image.streams.buffered import ReadAtStream
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk

_LINES = "".join(f"{number:x} häuser ✓ {'x' * (number % 90)}\n" for number in range(4000)).encode()
DATA = _LINES[: 400 * 512 - 3] + b"end"
"""More than three buffers, whole sectors, and no line's end at its end."""
_BUFFER = 1 << 16
_FURTHEST = (1 << 63) - 1
_PAST = 10**7

Open = Callable[..., Any]
Call = Callable[[Any], Any]


def _partition() -> Open:
    content = SparseImage(len(DATA), [(0, DATA)])
    disk = mbr_disk([ForgedPartition(1, 6, 1, 400, content=content)], sectors=401)
    return Image.open(b"".join(disk.chunks())).partitions[1].open


def _volume() -> bytes:
    return b"".join(fat_volume({"a.txt": DATA}, sectors=6000).chunks())


def _file() -> Open:
    return Image.open(_volume()).partitions[1].files["a.txt"].open


BINARY: dict[str, Callable[[], Open]] = {
    "image": lambda: Image.open(DATA).open,
    "partition": _partition,
    "file": _file,
    "fsspec": lambda: functools.partial(VmvisorFileSystem(_volume()).open, "1/a.txt"),
    "bzip2": lambda: Image.open(bz2.compress(DATA)).open,
    "gzip": lambda: Image.open(gzip.compress(DATA)).open,
    "xz": lambda: Image.open(lzma.compress(DATA)).open,
    "zstd": lambda: Image.open(zstandard.ZstdCompressor().compress(DATA)).open,
}
TEXT: dict[str, Callable[[], Open]] = {
    "file": lambda: functools.partial(_file(), "r"),
    "fsspec": lambda: functools.partial(VmvisorFileSystem(_volume()).open, "1/a.txt", "r", encoding="utf-8"),
}


class _Index:
    """What is no int and counts as one."""

    def __index__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "index"


def _calls(names: str, *given: Sequence[Any]) -> dict[str, Call]:
    """A call of each of these methods with each of these tuples of arguments."""
    return {
        f"{name}({', '.join(map(repr, arguments))})": operator.methodcaller(name, *arguments)
        for name in names.split()
        for arguments in given
    }


def _into(name: str, buffer: Any) -> Call:
    """A read into a buffer, which gives what is in it then, too."""

    def read(stream: Any) -> Any:
        mine = copy.copy(buffer)
        return getattr(stream, name)(mine), bytes(mine)

    return read


def _with(stream: Any) -> Any:
    with stream as entered:
        assert entered is stream
        data = stream.read(3)
    return data, stream.closed


def _copied(stream: Any, copied: Any) -> Any:
    shutil.copyfileobj(stream, copied, 777)
    return copied.getvalue()


SIZES = [(size,) for size in (None, -2, -1, 0, 1, 10, 5000, _BUFFER, _BUFFER + 1, 10**6, True, _Index(), 1.5, "1")]
BUFFERS = {
    "bytearray": bytearray(1000),
    "more than a buffer": bytearray(_BUFFER + 5),
    "more than there is": bytearray(10**6),
    "nothing": bytearray(),
    "array": array.array("I", [0] * 9),
    "bytes": bytes(10),
}
EITHER: dict[str, Call] = {
    **_calls("read readline readlines", (), *SIZES),
    **_calls("__next__ tell seek readable seekable writable isatty flush close __enter__", ()),
    "list": list,
    "iter": lambda stream: iter(stream) is stream,
    "first lines": lambda stream: list(itertools.islice(stream, 3)),
    **_calls("seek", *itertools.product((0,), (0, 1, 2, 5, -1, 100, None, 1.0, "0"))),
    **_calls("seek", *[(place,) for place in (5, True, _Index(), len(DATA), _PAST, -1, -_PAST, 1.5, "5", None)]),
    **_calls("truncate", (), (0,), (_PAST,)),
    **{f".{name}": operator.attrgetter(name) for name in ("closed", "mode")},
    "pickled": pickle.dumps,
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "with": _with,
}
COPIED = {"pickled", "copied", "copied deeply"}
"""What fsspec's streams can do and a file can't."""
UNBUFFERED: dict[str, Call] = {
    **EITHER,
    **{f"readinto {kind}": _into("readinto", buffer) for kind, buffer in BUFFERS.items()},
    **_calls("readinto", ("text",), (None,), (5,), (memoryview(bytearray(9))[::2],)),
    **_calls("seek", *itertools.product((5, -1, -len(DATA), -len(DATA) - 1, _PAST, -_PAST, 1.5, _Index()), (1, 2))),
    **_calls("seek", *itertools.product((_FURTHEST + 1, 1 << 70, -_FURTHEST - 1, -(1 << 70)), (0, 1, 2))),
    **_calls("seek", (_FURTHEST, 2)),
    **_calls("write", (b"x",)),
    **_calls("writelines", ([b"x"],)),
    "copied to a file": lambda stream: _copied(stream, io.BytesIO()),
}
BUFFERED: dict[str, Call] = {
    **UNBUFFERED,
    **_calls("read1 peek", (), *SIZES),
    **{f"readinto1 {kind}": _into("readinto1", buffer) for kind, buffer in BUFFERS.items()},
    **_calls("readinto1", ("text",), (None,), (5,), (memoryview(bytearray(9))[::2],)),
    "text around it": lambda stream: io.TextIOWrapper(stream, encoding="utf-8").read(9),
    "detached": lambda stream: stream.detach().read(3),
    "detached twice": lambda stream: (stream.detach() and None, stream.detach()),
    "raw": lambda stream: (stream.raw.read(5), stream.raw.tell()),
}
CHARACTERS: dict[str, Call] = {
    **EITHER,
    "next and tell": lambda stream: (next(stream), stream.tell()),
    "next, read and tell": lambda stream: (next(stream), stream.read(3), stream.tell()),
    "all lines and tell": lambda stream: (list(stream), stream.tell()),
    "back": lambda stream: (
        stream.read(10),
        place := stream.tell(),
        stream.read(5),
        stream.seek(place),
        stream.read(5),
    ),
    **_calls("seek", *itertools.product((5, 31, len(DATA), 1.5), (1, 2))),
    **_calls("write", ("x",)),
    **_calls("writelines", (["x"],)),
    **{f".{name}": operator.attrgetter(name) for name in ("errors", "newlines", "line_buffering", "write_through")},
    ".encoding": lambda stream: stream.encoding.lower(),
    "bytes": lambda stream: (stream.buffer.read(5), stream.buffer.tell()),
    "detached": lambda stream: stream.detach().read(3),
    "other encoding": lambda stream: (stream.reconfigure(encoding="latin-1"), stream.read(9)),
    "other errors": lambda stream: (stream.reconfigure(errors="replace"), stream.read(9)),
    "other lines": lambda stream: (stream.reconfigure(newline="\r"), stream.readline(1000)),
    "copied to a file": lambda stream: _copied(stream, io.StringIO()),
    **_calls("peek read1 readinto", (1,)),
}
STATES: dict[str, Call] = {
    "new": lambda stream: None,
    "read from": lambda stream: stream.read(100),
    "after lines": lambda stream: (stream.readline(), stream.readline()),
    "in a later buffer": lambda stream: stream.read(70_000),
    "after a seek": lambda stream: stream.seek(70_000),
    "at the end": lambda stream: stream.read(),
    "past the end": lambda stream: stream.seek(_PAST),
    "closed": lambda stream: stream.close(),
}
MORE_STATES: dict[str, Call] = {**STATES, "iterated over": next, "detached": lambda stream: stream.detach()}
CLOSING = (MORE_STATES["closed"], MORE_STATES["detached"])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "a.txt"
    path.write_bytes(DATA)
    return path


def _outcome(stream: Any, call: Call) -> Any:
    try:
        found = call(stream)
    except Exception as error:  # noqa: BLE001  # it is what is compared
        return error
    return "itself" if found is stream else found


def _agree(ours: Any, model: Any, closed: bool = False) -> bool:
    """Whether two outcomes are the same: of errors, whether who expects the model's catches ours."""
    if not isinstance(model, Exception):
        return type(ours) is type(model) and bool(ours == model)
    # A position that can't be is a ValueError to BytesIO, and EINVAL or an OverflowError to a file.
    if isinstance(model, OverflowError) or (isinstance(model, OSError) and model.errno is not None):
        return isinstance(ours, ValueError)
    if closed and isinstance(model, TypeError):  # which of the two is found wrong first
        return isinstance(ours, TypeError | ValueError)
    return isinstance(ours, type(model))


def _differences(opens: Open, opens_model: Open, state: Call, calls: dict[str, Call]) -> list[str]:
    found = []
    for name, call in calls.items():
        if name == "writable()" and state in CLOSING:
            continue  # `io.BufferedReader` says False there; see below
        ours, model = opens(), opens_model()
        for stream in (ours, model):
            state(stream)
        closed = _outcome(model, operator.attrgetter("closed")) is not False
        for step, made in ((name, call), (f"{name}, then tell", operator.methodcaller("tell"))):
            result, expected = _outcome(ours, made), _outcome(model, made)
            if not _agree(result, expected, closed):
                found.append(f"{step}: {result!r:.80}, and of a file {expected!r:.80}")
        for stream in (ours, model):
            with contextlib.suppress(ValueError):  # it was detached
                stream.close()
    return found


@pytest.mark.parametrize("state", MORE_STATES)
@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of models that were detached
def test_bytes(path: Path, kind: str, state: str) -> None:
    calls = {name: call for name, call in BUFFERED.items() if kind != "fsspec" or name not in COPIED}
    found = _differences(BINARY[kind](), lambda: path.open("rb", buffering=_BUFFER), MORE_STATES[state], calls)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("state", STATES)
def test_bytes_without_a_buffer(path: Path, state: str) -> None:
    opens = BINARY["file"]()
    # Lines come byte by byte: some are enough.
    calls = {name: call for name, call in UNBUFFERED.items() if name != "list" and not name.startswith("readlines")}
    found = _differences(lambda: opens().detach(), lambda: path.open("rb", buffering=0), STATES[state], calls)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("state", MORE_STATES)
@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of models that were detached
def test_text(path: Path, kind: str, state: str) -> None:
    def opens_model() -> Any:
        return path.open("r", encoding="utf-8", buffering=_BUFFER)

    calls = {
        name: call for name, call in CHARACTERS.items() if (kind, name) != ("fsspec", ".mode")
    }  # it has none there
    found = _differences(TEXT[kind](), opens_model, MORE_STATES[state], calls)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("mode", ["rb", "r"])
def test_what_only_a_file_of_the_system_has(mode: str) -> None:
    """As of `io.BytesIO`."""
    stream = Image.open(_volume()).partitions[1].files["a.txt"].open(mode)
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()
    assert stream.name == "a.txt"
    assert not stream.writable()
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.writable()


def test_the_furthest_position() -> None:
    """As of `io.BytesIO`; what comes after it is refused before the cursor moves there."""
    stream, model = Image.open(DATA).open(), io.BytesIO(DATA)
    for each in (stream, model):
        assert each.seek(_FURTHEST) == each.tell() == _FURTHEST
        assert each.read(10) == b""
    for offset, whence in ((1, io.SEEK_CUR), (_FURTHEST, io.SEEK_END), (_FURTHEST, io.SEEK_CUR)):
        with pytest.raises(InvalidArgument, match="63 bits"):
            stream.seek(offset, whence)
        assert stream.tell() == _FURTHEST
    assert stream.seek(0) == 0
    assert stream.read() == DATA


def test_a_buffer_that_can_t_be_written_costs_nothing() -> None:
    stream = ReadAtStream(Image.open(DATA))
    with pytest.raises(TypeError):
        stream.readinto(b"constant")
    assert stream.read(5) == DATA[:5]
