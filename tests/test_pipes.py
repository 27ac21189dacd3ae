"""Images that come through a pipe: read where all of them is read anyway, else refused with what to do instead."""

from __future__ import annotations

import bz2
import contextlib
import errno
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.test_fsspec import FILES, disk
from vmvisor_image import (
    ClosedError,
    DestinationFull,
    Image,
    InvalidArgument,
    LimitExceeded,
    Limits,
    SourceError,
    convert,
    inspect,
    open_archive,
    verify,
)
from vmvisor_image.fleet import scan_one, stream
from vmvisor_image.streams.pipes import PipeSource, taking_pipes
from vmvisor_image.streams.sources import BytesSource, descriptor_of, is_pipe

DISK = disk("Hypervisor1")
COMPRESSED = bz2.compress(DISK)
FORWARD = {"verify": ("verify", "-"), "scan": ("scan", "-"), "archive": ("archive", "-")}
BY_POSITION = (
    ("info", "-"),
    ("ls", "-"),
    ("ls", "-", "1"),
    ("cat", "-", "1", "boot.cfg"),
    ("extract", "-", "1", "out"),
    ("pxe", "-", "out"),
    ("system", "-"),
    ("module", "-", "1", "boot.cfg"),
    ("hexdump", "-"),
    ("index", "-"),
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="/dev/stdin and pipes of POSIX")


def command(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "vmvisor_image", *map(str, arguments)]
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(line, capture_output=True, cwd=cwd, timeout=120, check=False, env=environment, **options)


@contextlib.contextmanager
def pipe_of(data: bytes) -> Iterator[BinaryIO]:
    """The end of a pipe out of which that comes, however much it is."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as file:  # noqa: PTH123
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with open(reading, "rb") as pipe:  # noqa: PTH123
            yield pipe
    finally:
        thread.join()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made: nothing may be left there."""
    folder = tmp_path / "kept"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class TestCommands:
    def test_verify(self, tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(COMPRESSED)
        expected = json.loads(command("verify", "image", "--json", cwd=tmp_path).stdout)
        for name in ("-", "/dev/stdin", "/dev/fd/0"):
            done = command("verify", name, "--json", cwd=tmp_path, input=COMPRESSED)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            assert found["name"] is None
            assert found["source_hashes"] == expected["source_hashes"]
            for report in (found, expected):
                report["name"] = report["layers"][0]["name"] = None
            assert found == expected

    def test_verify_of_process_substitution(self, tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(COMPRESSED)
        line = f"{sys.executable} -m vmvisor_image verify <(cat image)"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_scan(self, tmp_path: Path) -> None:
        """Beside images that other processes read."""
        for name in "abc":
            (tmp_path / name).write_bytes(DISK)
        done = command("scan", "a", "-", "b", "c", "--out", "rows.jsonl", cwd=tmp_path, input=COMPRESSED)
        assert done.returncode == 0, done.stderr
        rows = {row["path"]: row for row in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())}
        assert rows.keys() == {"/dev/stdin", *(str(tmp_path / name) for name in "abc")}
        assert all(row["ok"] and row["files"] == len(FILES) for row in rows.values())
        assert rows["/dev/stdin"]["layers"] == "bzip2"

    def test_scan_of_standard_input_that_is_a_file(self, tmp_path: Path) -> None:
        """Workers have another one."""
        for name in "abc":
            (tmp_path / name).write_bytes(DISK)
        with (tmp_path / "a").open("rb") as file:
            done = command("scan", "-", "b", "c", "--workers", "2", cwd=tmp_path, stdin=file)
        assert (done.returncode, done.stdout.count(b"\nok ")) == (0, 3), done.stdout

    def test_scan_of_nothing_is_a_row(self, tmp_path: Path) -> None:
        done = command("scan", "-", "-", cwd=tmp_path, input=COMPRESSED)
        assert (done.returncode, done.stdout.count(b"\nok "), done.stdout.count(b"\nBAD")) == (1, 1, 1), done.stdout

    def test_convert(self, tmp_path: Path) -> None:
        done = command("convert", "-", "image.zst", cwd=tmp_path, input=COMPRESSED)
        assert done.returncode == 0, done.stderr
        assert subprocess.run(["zstd", "-dc", tmp_path / "image.zst"], capture_output=True, check=True).stdout == DISK
        assert [path.name for path in tmp_path.iterdir()] == ["image.zst"]
        assert command("ls", "image.zst", "1", cwd=tmp_path).stdout.count(b"\n") == len(FILES)

    @pytest.mark.parametrize("kind", ["tar", "zip"])
    def test_archive(self, tmp_path: Path, kind: str) -> None:
        file = io.BytesIO()
        if kind == "tar":
            with tarfile.open(fileobj=file, mode="w:gz") as tar:
                member = tarfile.TarInfo("a/b")
                member.size = len(DISK)
                tar.addfile(member, io.BytesIO(DISK))
        else:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a/b", DISK)
        assert b"a/b" in command("archive", "-", cwd=tmp_path, input=file.getvalue()).stdout
        assert command("archive", "/dev/stdin", "a/b", cwd=tmp_path, input=file.getvalue()).stdout == DISK

    @pytest.mark.parametrize("arguments", BY_POSITION, ids=" ".join)
    def test_others_say_what_to_do(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        done = command(*arguments, cwd=tmp_path, input=COMPRESSED)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"vmvisor-image: /dev/stdin: a pipe")
        assert b"write it to a file first" in done.stderr
        assert b"vmvisor-image convert - FILE.zst" in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize("arguments", [*FORWARD.values(), *BY_POSITION[1:4]], ids=" ".join)
    def test_standard_input_that_is_a_file_is_read_as_one(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        (tmp_path / "image").write_bytes(b"".join(_tar("x", DISK)) if arguments[0] == "archive" else COMPRESSED)
        named = [str(tmp_path / "image") if word == "-" else word for word in arguments]
        with (tmp_path / "image").open("rb") as file:
            done = command(*arguments, cwd=tmp_path, stdin=file)
        assert done.returncode == 0, done.stderr
        path = b"image" if arguments[0] == "scan" else str(tmp_path / "image").encode()  # scan's paths are relative
        shown = done.stdout.replace(b"/dev/stdin", path).replace(b"stdin", b"image")
        assert shown == command(*named, cwd=tmp_path).stdout

    @pytest.mark.parametrize("name", ["verify", "scan", "archive", "convert"])
    def test_a_fifo_is_an_error_at_once(self, tmp_path: Path, name: str) -> None:
        """It would be waited for, for ever where nobody writes."""
        os.mkfifo(tmp_path / "fifo")
        done = command(name, "fifo", *(["out"] if name == "convert" else []), cwd=tmp_path)
        assert done.returncode == 1
        assert b"write it to a file first" in done.stderr + done.stdout

    @pytest.mark.parametrize("given", [["*"], ["fifo", "image"], ["**"]], ids=" ".join)
    def test_a_fifo_among_images_is_a_row(self, tmp_path: Path, given: list[str]) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "image").write_bytes(DISK)
        (tmp_path / "folder").mkdir()
        rows = {row["path"]: row["error"] for row in stream([tmp_path / name for name in given], workers=1)}
        assert rows == {str(tmp_path / "image"): None, str(tmp_path / "fifo"): "SourceError"}

    @pytest.mark.parametrize("name", ["verify", "scan", "convert"])
    def test_time_is_looked_at_while_nothing_comes(self, tmp_path: Path, name: str) -> None:
        reading, writing = os.pipe()
        try:
            arguments = (name, "-", *(["out"] if name == "convert" else []), "--max-seconds", "0.5")
            done = command(*arguments, cwd=tmp_path, stdin=reading)
        finally:
            os.close(reading)
            os.close(writing)
        assert done.returncode == 1
        assert b"longer than 0.5 seconds" in done.stderr + done.stdout

    def test_a_destination_that_is_there_is_told_before_anything_comes(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_bytes(b"x")
        reading, writing = os.pipe()
        try:
            done = command("convert", "-", "out", cwd=tmp_path, stdin=reading)
        finally:
            os.close(reading)
            os.close(writing)
        assert (done.returncode, done.stderr) == (2, b"vmvisor-image: out is already there; --force replaces it\n")

    def test_too_much(self, tmp_path: Path) -> None:
        with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes:
            done = command("verify", "-", "--max-decoded", "3000000", cwd=tmp_path, stdin=yes.stdout)
            yes.kill()
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"more than 3000000 bytes come out of the pipe (limit: decoded_bytes)" in done.stderr

    def test_no_standard_input(self, tmp_path: Path) -> None:
        line = f"{sys.executable} -m vmvisor_image verify - <&-"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"/dev/stdin" in done.stderr


def _tar(name: str, data: bytes) -> Iterator[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    yield file.getvalue()


class TestLibrary:
    def test_verify(self, kept: Path) -> None:
        with pipe_of(COMPRESSED) as pipe:
            report = verify(pipe)
            assert not pipe.closed
        assert report.is_sound
        assert report == verify(COMPRESSED)
        assert not [*kept.iterdir()]

    def test_scan(self, kept: Path) -> None:
        with pipe_of(COMPRESSED) as pipe:
            row = scan_one(pipe)
        assert (row["ok"], row["size"], row["files"]) == (True, len(DISK), len(FILES))
        with pipe_of(COMPRESSED) as one, pipe_of(DISK) as other:
            assert [row["layers"] for row in stream([one, other], workers=2)] == ["bzip2", ""]
        assert not [*kept.iterdir()]

    def test_path_of_a_descriptor(self) -> None:
        with pipe_of(COMPRESSED) as pipe:
            assert verify(f"/dev/fd/{pipe.fileno()}").is_sound
        with pipe_of(COMPRESSED) as pipe, pytest.raises(SourceError, match="write it to a file first") as caught:
            Image.open(f"/dev/fd/{pipe.fileno()}")
        assert caught.value.errno == errno.ESPIPE

    def test_anything_else_by_a_pipe_source(self, tmp_path: Path, kept: Path) -> None:
        with pipe_of(COMPRESSED) as pipe, contextlib.closing(PipeSource(pipe)) as source, Image.open(source) as image:
            assert image.partitions["Hypervisor1"].files["boot.cfg"].read_bytes() == FILES["boot.cfg"]
            assert convert(image, tmp_path / "image.zst").size == len(DISK)
        with pipe_of(COMPRESSED) as pipe, contextlib.closing(PipeSource(pipe)) as source:
            assert inspect(source).layers == inspect(COMPRESSED).layers
        with pipe_of(b"".join(_tar("a", b"b" * 100_000))) as pipe, contextlib.closing(PipeSource(pipe)) as source:
            assert open_archive(source)["a"].read_bytes() == b"b" * 100_000
        assert not [*kept.iterdir()]

    def test_an_image_of_a_pipe_says_what_to_do(self) -> None:
        with (
            pipe_of(COMPRESSED) as pipe,
            pytest.raises(InvalidArgument, match=r"seekable; of a pipe, make a .*PipeSource"),
        ):
            Image.open(pipe)


class TestPipeSource:
    def test_reads_nothing_before_it_has_to(self) -> None:
        file = io.BytesIO(b"abc")
        source = PipeSource(file)
        assert file.tell() == 0
        assert (source.read_at(1, 1), source.size, file.tell()) == (b"b", 3, 3)
        source.close()

    def test_of_many_threads(self) -> None:
        data = os.urandom(300_000)
        with pipe_of(data) as pipe, contextlib.closing(PipeSource(pipe)) as source:
            found: dict[int, bytes] = {}
            threads = [
                threading.Thread(target=lambda at=at: found.update({at: source.read_at(at, 1000)}))
                for at in range(0, 300_000, 30_000)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert found == {at: data[at : at + 1000] for at in range(0, 300_000, 30_000)}

    def test_closed(self, kept: Path) -> None:
        source = PipeSource(io.BytesIO(b"abc"))
        assert source.size == 3
        source.close()
        source.close()
        with pytest.raises(ClosedError):
            source.read_at(0, 1)
        assert not [*kept.iterdir()]

    def test_is_not_pickled(self) -> None:
        with pytest.raises(TypeError, match="another process"):
            pickle.dumps(PipeSource(io.BytesIO(b"abc")))

    @pytest.mark.parametrize(
        ("read", "error", "says"),
        [
            (lambda size: "text", InvalidArgument, "gave str"),
            (lambda size: None, InvalidArgument, "gave NoneType"),
            (lambda size: os.read(-1, size), SourceError, "could not be read: Bad file descriptor"),
        ],
        ids=["text", "would have to wait", "fails"],
    )
    def test_what_is_wrong_stays_wrong(
        self, kept: Path, read: Callable[[int], Any], error: type[Exception], says: str
    ) -> None:
        class Wrong(io.RawIOBase):
            def read(self, size: int = -1, /) -> Any:
                return read(size)

        source = PipeSource(Wrong())  # type: ignore[arg-type]  # of BinaryIO it has what counts
        for _ in range(2):
            with pytest.raises(error, match=says):
                _ = source.size
        assert not [*kept.iterdir()]

    def test_no_room(self, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(io.BytesIO):
            def write(self, data: Any, /) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
        source = PipeSource(io.BytesIO(b"abc"))
        with pytest.raises(DestinationFull, match=f"no room in {kept} .* TMPDIR") as caught:
            _ = source.size
        assert caught.value.errno == errno.ENOSPC

    def test_limits(self) -> None:
        with contextlib.closing(PipeSource(io.BytesIO(b"abc"), Limits(decoded_bytes=3))) as source:
            assert source.size == 3
        with pytest.raises(LimitExceeded, match="more than 2 bytes"):
            _ = PipeSource(io.BytesIO(b"abc"), Limits(decoded_bytes=2)).size
        limits = Limits(seconds=0.01)
        with limits.operation():
            time.sleep(0.02)
            with pytest.raises(LimitExceeded, match=r"longer than 0\.01 seconds"):
                _ = PipeSource(io.BytesIO(b"abc"), limits).size

    @pytest.mark.parametrize("wrong", ["image.dd", Path("/dev/null"), b"bytes", BytesSource(b"")])
    def test_of_what_is_no_pipe(self, wrong: Any) -> None:
        with pytest.raises(InvalidArgument, match="a pipe is"):
            PipeSource(wrong)


def test_what_is_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    with pipe_of(b"") as pipe, (tmp_path / "file").open("rb") as file:
        assert is_pipe(pipe)
        assert is_pipe(f"/dev/fd/{pipe.fileno()}")
        assert is_pipe(Path(f"/proc/self/fd/{pipe.fileno()}"))
        others = (file, f"/dev/fd/{file.fileno()}", "/dev/fd/99999", tmp_path / "fifo", tmp_path / "file", b"", DISK)
        for other in (*others, io.BytesIO(), BytesSource(b""), Image(DISK), "-"):
            assert not is_pipe(other)
            with taking_pipes(other) as same:
                assert same is other
    assert not is_pipe(pipe), "it is closed"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/dev/stdin", 0),
        ("/dev/fd/63", 63),
        ("/proc/self/fd/7", 7),
        ("/dev/fd/", None),
        ("/dev/fd/x", None),
        ("0", None),
    ],
)
def test_descriptors(path: str, number: int | None) -> None:
    assert descriptor_of(path) == descriptor_of(Path(path)) == number
