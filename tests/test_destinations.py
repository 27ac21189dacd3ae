"""Destinations that can't be written, and sources that can't be read at all: a clear error, and nothing half done."""

from __future__ import annotations

import bz2
import errno
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.support import run_to_file
from tests.test_keys import processes  # noqa: F401  # a fixture
from tests.tool_disk import ToolDisk
from vmvisor_image import (
    CorruptImage,
    DestinationExists,
    DestinationFailed,
    DestinationFull,
    Image,
    InvalidArgument,
    PathNotFound,
    SourceError,
    convert,
    fleet,
)
from vmvisor_image.base.destination import check_replaceable, write_whole
from vmvisor_image.boot.overlay import build_module
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.index_file import CACHE_SUFFIX, INDEX_SUFFIX, default_paths
from vmvisor_image.faces.cli import main
from vmvisor_image.files.extraction import write_files
from vmvisor_image.fleet import scan_one
from vmvisor_image.streams.sources import BytesSource, FileSource
from vmvisor_image.testing.forge import ForgedPartition, mbr_disk

DATA = random.Random(1).randbytes(1 << 20)
LIMITED = """
import resource, sys
from vmvisor_image.faces.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
raise SystemExit(main(sys.argv[2:]))
"""
"""The command with files of a few bytes at most, as on a disk that is full; Python ignores SIGXFSZ by itself."""
WRITING = {
    "convert": ["convert", "SRC", "DEST/disk.zst"],
    "extract": ["extract", "SRC", "Hypervisor1", "DEST"],
    "pxe": ["pxe", "SRC", "DEST"],
    "scan.jsonl": ["scan", "SRC", "--workers", "1", "--out", "DEST/rows.jsonl"],
    "scan.parquet": ["scan", "SRC", "--workers", "1", "--out", "DEST/rows.parquet"],
    "manifest": ["verify", "SRC", "--manifest", "DEST/manifest"],
    "index": ["index", "SRC", "--index", "DEST/index"],
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="it has no such files")

sysfs = pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="it has no folder that is closed to all")


def arguments_of(command: str, image: Path, dest: Path) -> list[str]:
    return [part.replace("SRC", str(image)).replace("DEST", str(dest)) for part in WRITING[command]]


def limited(*arguments: str, limit: int = 64) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *arguments], capture_output=True, text=True, check=False
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def check_line(error: str, what: str) -> None:
    lines = error.splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("vmvisor-image: ")
    assert what in lines[0]


@pytest.mark.parametrize("command", WRITING)
class TestCommands:
    def test_a_full_disk(self, tmp_path: Path, tool_built_disk: ToolDisk, command: str) -> None:
        out = tmp_path / "out"
        out.mkdir()
        arguments = arguments_of(command, tool_built_disk.bz2, out)
        done = limited(*arguments)
        assert done.returncode == 1
        check_line(done.stderr, "there is no room left (File too large)")
        left = {name for name in files(out) if (out / name).stat().st_size}
        assert {Path(name).suffix for name in left} <= ({".part"} if command == "convert" else set())
        assert command == "scan.jsonl" or not (out / WRITING[command][-1].rpartition("/")[2]).is_file()
        force = [] if command == "index" else ["--force"]
        assert main([*arguments, *force]) in (0, 1)
        assert files(out)
        assert not any(name.endswith(".part") for name in files(out))

    @sysfs
    def test_a_folder_that_can_t_be_written(
        self, tool_built_disk: ToolDisk, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No one may make anything in there, not even root."""
        assert main(arguments_of(command, tool_built_disk.bz2, Path("/sys/kernel/none"))) == 1
        check_line(capsys.readouterr().err, "it can't be written (")

    @sysfs
    def test_a_file_that_can_t_be_made(
        self, tool_built_disk: ToolDisk, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments_of(command, tool_built_disk.bz2, Path("/sys/kernel"))) == 1
        check_line(capsys.readouterr().err, "it can't be written (")

    def test_a_file_in_the_place_of_the_folder(
        self, tmp_path: Path, tool_built_disk: ToolDisk, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("mine")
        status = main(arguments_of(command, tool_built_disk.bz2, tmp_path / "file" / "out"))
        assert status == 1
        check_line(capsys.readouterr().err, "file")
        assert (tmp_path / "file").read_text() == "mine"


_AT_EACH_SIZE = """
import bz2, json, random, resource, shutil, sys
from pathlib import Path
import pyarrow.parquet
from vmvisor_image import DestinationFull, Image, convert, fleet
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import fat_volume

folder = Path(sys.argv[1])
data = random.Random(1).randbytes(60_000) + bytes(50_000) + random.Random(2).randbytes(30_000)
contents = {"A": data[:20_000], "B": data[:90_000], "C": data[-3:]}
volume = fat_volume(contents, sectors=8192, sectors_per_cluster=4)
disk = Image.open(volume.read_at(0, volume.size))
(folder / "image").write_bytes(data)
row = fleet.scan_one(folder / "image", detail=True)
compressed = folder / "image.bz2"
compressed.write_bytes(bz2.compress(data, 1))
(folder / "out").mkdir()
out = folder / "out" / "x"

def converts():
    try:
        convert(BytesSource(data), out, frame_size=4096, threads=1)
    finally:
        for part in out.parent.glob("*.part"):
            part.unlink()  # another run could go on with it

def is_converted():
    with Image.open(out) as image:
        return image.read_at(0, len(data)) == data

def extracts():
    disk.partitions[1].files.extract(out)

def is_extracted():
    return {path.name: path.read_bytes() for path in out.iterdir()}.items() <= contents.items()

def writes(suffix):
    return lambda: fleet.write(iter([row] * 40), out.with_suffix(suffix), rows_per_group=7)

def is_parquet():
    return pyarrow.parquet.read_table(out.with_suffix(".parquet")).num_rows == 40

def is_json():
    text = out.with_suffix(".jsonl").read_text()
    return all(json.loads(line) == row for line in text.splitlines()) and text[-1:] in ("", "\\n")

def keeps():
    with Image.open(compressed, cache=out) as image:
        assert image.read_at(0, len(data)) == data

def is_kept():
    keeps()
    return not list(out.glob("*.part"))

full = whole = 0
for write, check in ((converts, is_converted), (extracts, is_extracted), (writes(".parquet"), is_parquet),
                     (writes(".jsonl"), is_json), (keeps, is_kept)):
    for limit in [*range(0, 100, 20), *range(100, 120_000, 4_000), 1 << 30]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write()
        except DestinationFull:
            full += 1
        else:
            whole += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        made = list(out.parent.iterdir())
        assert len(made) <= 1, made
        if made:
            assert check(), (write, limit)
            shutil.rmtree(made[0]) if made[0].is_dir() else made[0].unlink()
print(full, whole)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limits")
def test_room_that_ends_at_any_size(tmp_path: Path) -> None:
    """What has its name is whole: of rows and files those that are there; what can't be kept is decoded again."""
    done = subprocess.run([sys.executable, "-c", _AT_EACH_SIZE, tmp_path], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    full, whole = map(int, done.stdout.split())
    assert full + whole == 5 * 36
    assert full > 80
    assert whole > 36 + 4


class TestWhatIsWrittenMeanwhile:
    def rows(self, path: Path, count: int) -> Iterator[fleet.Row]:
        row = scan_one(path)
        for _ in range(count):
            yield row

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        path = tmp_path / "image"
        path.write_bytes(DATA)
        return path

    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    def test_rows_into_a_folder_that_is_removed(self, tmp_path: Path, image: Path, suffix: str) -> None:
        out = tmp_path / "out"
        out.mkdir()

        def rows() -> Iterator[fleet.Row]:
            yield from self.rows(image, 1)
            shutil.rmtree(out)
            yield from self.rows(image, 1)

        with pytest.raises(DestinationFailed, match="No such file or directory") as caught:
            fleet.write(rows(), out / f"rows{suffix}")
        assert caught.value.errno == errno.ENOENT

    def test_rows_that_fit_are_whole(self, tmp_path: Path, image: Path) -> None:
        paths = [str(image)] * 9
        done = limited("scan", *paths, "--workers", "1", "--out", str(tmp_path / "rows.jsonl"), limit=1000)
        assert done.returncode == 1
        check_line(done.stderr, "there is no room left")
        text = (tmp_path / "rows.jsonl").read_text()
        assert text.endswith("\n")
        assert 0 < len([json.loads(line) for line in text.splitlines()]) < 9

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_parquet_is_there_only_whole(self, tmp_path: Path, image: Path, overwrite: bool) -> None:
        """Neither while it grows nor when it can't be written is there a part of it; what was there before stays."""
        path = tmp_path / "rows.parquet"
        if overwrite:
            fleet.write(self.rows(image, 3), path)
        before = path.read_bytes() if overwrite else None

        def rows() -> Iterator[fleet.Row]:
            for row in self.rows(image, 5):
                assert (path.read_bytes() if path.exists() else None) == before
                yield row

        fleet.write(rows(), path, overwrite=overwrite, rows_per_group=1)
        assert pyarrow.parquet.read_table(path).num_rows == 5
        before = path.read_bytes()
        done = limited("scan", str(image), "--out", str(path), "--force", "--workers", "1")
        assert done.returncode == 1
        assert path.read_bytes() == before
        assert files(tmp_path) == {"image", "rows.parquet"}

    def test_a_conversion_into_a_folder_that_is_removed(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        with pytest.raises(DestinationFailed, match="No such file or directory"):
            convert(BytesSource(DATA), out / "x.zst", progress=lambda *_: shutil.rmtree(out, ignore_errors=True))

    def test_an_extraction_into_a_folder_that_is_removed(self, tmp_path: Path, tool_built_disk: ToolDisk) -> None:
        out = tmp_path / "out"

        class Removing:
            size, timestamp, extents = 1, None, ()

            def read_at(self, offset: int, length: int) -> bytes:
                raise AssertionError

            def chunks(self) -> Iterator[bytes]:
                yield b"x"
                shutil.rmtree(out)

        with pytest.raises(DestinationFailed, match="nothing was written"):
            write_files([("a", Removing()), ("b", Removing())], out)

    def test_a_conversion_on_a_full_disk_goes_on_later(self, tmp_path: Path) -> None:
        table = mbr_disk([ForgedPartition(1, 0xDA, 64, 1024)], sectors=2048).read_at(0, 512)
        data = table + DATA[512:]  # what is no disk is not converted
        image = tmp_path / "disk.dd"
        image.write_bytes(data)
        with Image.open(image) as opened:
            arguments = ["convert", str(image), str(tmp_path / "x.zst")]
            assert limited(*arguments, limit=600_000).returncode == 1
            assert convert(opened, tmp_path / "x.zst").resumed_at == 2 << 18
        run_to_file(tmp_path / "decoded", "zstd", "-dc", tmp_path / "x.zst")
        assert (tmp_path / "decoded").read_bytes() == data

    def test_a_source_that_fails_is_no_destination_that_does(self, tmp_path: Path) -> None:
        class Failing:
            size = len(DATA)

            def read_at(self, offset: int, length: int) -> bytes:
                if length == len(DATA):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return DATA[offset : offset + length]

        with pytest.raises(SourceError, match="could not be read") as caught:
            convert(Failing(), tmp_path / "x.zst")
        assert not isinstance(caught.value, DestinationFailed)


_WRITES_ROWS = """
import sys
from vmvisor_image import fleet
def rows():
    row = fleet.scan_one(sys.argv[1])
    yield row
    print("begun", flush=True)
    if sys.stdin.readline() == "end\\n":
        yield row
try:
    print(fleet.write(rows(), sys.argv[2], overwrite=len(sys.argv) > 3).images)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


class TestTwoProcesses:
    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    @pytest.mark.parametrize("overwrite", [[], ["overwrite"]])
    def test_rows_to_one_file(
        self,
        tmp_path: Path,
        processes: Callable[..., subprocess.Popen[str]],  # noqa: F811
        suffix: str,
        overwrite: list[str],
    ) -> None:
        (tmp_path / "image").write_bytes(DATA)
        out = tmp_path / f"rows{suffix}"
        first = processes(_WRITES_ROWS, tmp_path / "image", out, *overwrite)
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        second = processes(_WRITES_ROWS, tmp_path / "image", out, *overwrite)
        told = second.communicate("end\n")[0]
        assert told.startswith("DestinationExists: ")
        assert ("is being written by another run" if overwrite or suffix == ".parquet" else "already there") in told
        assert first.communicate("end\n")[0] == "2\n"
        count = pyarrow.parquet.read_table(out).num_rows if suffix == ".parquet" else len(out.read_text().splitlines())
        assert count == 2
        assert files(tmp_path) == {"image", out.name}

    def test_what_a_killed_one_left_is_no_obstacle(
        self,
        tmp_path: Path,
        processes: Callable[..., subprocess.Popen[str]],  # noqa: F811
    ) -> None:
        (tmp_path / "image").write_bytes(DATA)
        out = tmp_path / "rows.parquet"
        first = processes(_WRITES_ROWS, tmp_path / "image", out)
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        first.kill()
        first.wait()
        assert files(tmp_path) == {"image", "rows.parquet.part"}
        second = processes(_WRITES_ROWS, tmp_path / "image", out)
        assert second.communicate("end\n")[0] == "begun\n2\n"
        assert pyarrow.parquet.read_table(out).num_rows == 2
        assert files(tmp_path) == {"image", "rows.parquet"}


class TestKeptThings:
    """An index or cache that can't be written, or read, is no reason not to read the image."""

    @pytest.fixture(autouse=True)
    def image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        path = tmp_path / "image.bz2"
        path.write_bytes(bz2.compress(DATA, 1))
        return path

    def read(self, image: Path) -> int:
        with Image.open(image, index="auto", cache=True) as opened:
            assert opened.read_at(0, len(DATA)) == DATA
            reader = opened.layers[0].source
            assert isinstance(reader, Bzip2Reader)
            return reader.stats.blocks_decoded

    def test_on_a_full_disk(self, tmp_path: Path, tool_built_disk: ToolDisk) -> None:
        image = tmp_path / "disk.dd.bz2"
        image.symlink_to(tool_built_disk.bz2)
        done = limited("ls", "--index", "auto", "--cache", "auto", str(image), "Hypervisor1")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
        assert not [name for name in files(tmp_path) if name not in ("disk.dd.bz2", "image.bz2")]

    def test_where_the_user_has_no_home(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", fail)
        assert default_paths(image) == (image.with_name(f"image.bz2{INDEX_SUFFIX}"),)
        assert default_paths("https://example.com/x") == ()
        assert self.read(image) > 0
        assert self.read(image) == 0

    @pytest.mark.parametrize("suffix", [INDEX_SUFFIX, CACHE_SUFFIX])
    def test_a_pipe_in_its_place_is_not_waited_for(self, image: Path, suffix: str) -> None:
        beside, _ = default_paths(image, suffix)
        os.mkfifo(beside)
        assert self.read(image) > 0
        assert self.read(image) == 0

    def test_a_pipe_in_the_place_of_a_segment(self, image: Path) -> None:
        self.read(image)
        [segment] = default_paths(image, CACHE_SUFFIX)[0].glob("*.zst")
        segment.unlink()
        os.mkfifo(segment)
        assert self.read(image) > 0

    @linux
    def test_a_device_without_end_in_its_place(self, image: Path) -> None:
        default_paths(image)[0].symlink_to("/dev/zero")
        assert self.read(image) > 0
        assert self.read(image) == 0

    def test_a_file_too_large_for_an_index_is_not_read(self, image: Path) -> None:
        with default_paths(image)[0].open("wb") as file:
            file.truncate(1 << 40)
        assert self.read(image) > 0

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_a_cache_folder_that_can_t_be_made(self, image: Path, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InvalidArgument, match="is a file"), Image.open(image, cache=tmp_path / place) as opened:
            opened.read_at(0, len(DATA))
        assert (tmp_path / "file").read_text() == "mine"

    def test_what_went_wrong_first_is_told(self, image: Path, tmp_path: Path) -> None:
        opened = Image.open(image, index=tmp_path / "folder" / "index")
        opened.read_at(0, 5)
        (tmp_path / "folder").write_text("in the way")
        with pytest.raises(PathNotFound, match="no such thing"), opened:
            raise PathNotFound("no such thing")

    def test_all_is_closed_where_the_index_can_t_be_written(self, image: Path, tmp_path: Path) -> None:
        opened = Image.open(image, index=tmp_path / "folder" / "index")
        opened.read_at(0, 5)
        (tmp_path / "folder").write_text("in the way")
        source = opened.source
        with pytest.raises(DestinationFailed, match="folder"):
            opened.close()
        with pytest.raises(ValueError, match="closed"):
            source.read_at(0, 1)


class TestSources:
    """What has no bytes at positions is an error at once, and a row of a scan."""

    @pytest.fixture
    def strange(self, tmp_path: Path) -> Iterator[dict[str, Path]]:
        found = {name: tmp_path / name for name in ("fifo", "socket", "folder", "dangling", "loop")}
        os.mkfifo(found["fifo"])
        found["folder"].mkdir()
        found["dangling"].symlink_to("nowhere")
        found["loop"].symlink_to("loop")
        with socket.socket(socket.AF_UNIX) as listening:
            before = Path.cwd()
            os.chdir(tmp_path)  # a socket's path may be no longer than some hundred bytes
            try:
                listening.bind("socket")
            finally:
                os.chdir(before)
            yield found

    @pytest.mark.parametrize(
        ("name", "error", "number"),
        [
            ("fifo", SourceError, errno.ESPIPE),
            ("socket", SourceError, errno.ESPIPE),
            ("folder", IsADirectoryError, errno.EISDIR),
            ("dangling", FileNotFoundError, errno.ENOENT),
            ("loop", OSError, errno.ELOOP),
        ],
    )
    def test_strange_files(
        self, strange: dict[str, Path], name: str, error: type[OSError], number: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(error) as caught:
            Image.open(strange[name])
        assert caught.value.errno == number
        row = scan_one(strange[name])
        assert not row["ok"]
        assert row["error"] in {kind.__name__ for kind in type(caught.value).__mro__}  # Python's own where there is one
        assert main(["info", str(strange[name])]) in (1, 2)
        check_line(capsys.readouterr().err, name)

    @linux
    @pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"])
    def test_character_devices(self, path: str, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="a character device can't be read at any position"):
            FileSource(path)
        (tmp_path / "link").symlink_to(path)
        assert scan_one(tmp_path / "link")["error"] == "SourceError"

    def test_all_have_rows_whatever_way_they_are_named(self, strange: dict[str, Path], tmp_path: Path) -> None:
        names = sorted(str(path) for name, path in strange.items() if name != "folder")
        assert list(map(str, fleet.expand(tmp_path / "*"))) == names, "folders are passed over, as shells' users expect"
        rows = list(fleet.stream([tmp_path / "*", strange["folder"]], workers=1))
        assert sorted(row["path"] for row in rows) == names, "the folder holds no image, and the others have their rows"
        assert not any(row["ok"] for row in rows)

    def test_as_the_extent_of_a_disk(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "disk-flat.vmdk")
        descriptor = '# Disk DescriptorFile\nversion=1\nRW 2048 FLAT "disk-flat.vmdk" 0\n'
        (tmp_path / "disk.vmdk").write_text(descriptor)
        with pytest.raises(CorruptImage, match="a pipe or socket"):
            Image.open(tmp_path / "disk.vmdk")


class TestWhatMayBeReplaced:
    def test_only_files(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.zst")
        with pytest.raises(DestinationExists, match="not a file that could be replaced"):
            convert(BytesSource(DATA), tmp_path / "x.zst", overwrite=True)
        (tmp_path / "rows.parquet").mkdir()
        with pytest.raises(DestinationExists, match="not a file that could be replaced"):
            fleet.write([], tmp_path / "rows.parquet", overwrite=True)
        (tmp_path / "link").symlink_to("x.zst")
        with pytest.raises(DestinationExists):
            check_replaceable(tmp_path / "link", overwrite=True)
        (tmp_path / "nowhere").symlink_to("missing")
        check_replaceable(tmp_path / "nowhere", overwrite=True)

    @pytest.mark.parametrize("arguments", [["convert", "SRC", "DEST"], ["verify", "SRC", "--manifest", "DEST"]])
    @pytest.mark.parametrize("link", [False, True])
    def test_never_the_image(
        self, tmp_path: Path, arguments: list[str], link: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image, dest = tmp_path / "image", tmp_path / "link" if link else tmp_path / "image"
        content = mbr_disk([ForgedPartition(1, 0xDA, 64, 1024)], sectors=2048).read_at(0, 512) + DATA[512:]
        image.write_bytes(content)
        if link:
            dest.symlink_to("image")
        named = [part.replace("SRC", str(image)).replace("DEST", str(dest)) for part in arguments]
        assert main([*named, "--force"]) == 2
        check_line(capsys.readouterr().err, "is the image itself")
        assert image.read_bytes() == content

    def test_a_link_is_written_through(self, tmp_path: Path) -> None:
        """Such as /dev/stdout, which is one to a file where the shell sends it there."""
        (tmp_path / "file").write_bytes(b"before")
        (tmp_path / "link").symlink_to("file")
        write_whole(tmp_path / "link", b"after")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_bytes() == b"after"


@linux
@pytest.mark.parametrize("command", ["ls", "scan"])
def test_standard_output_on_a_full_disk(tool_built_disk: ToolDisk, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vmvisor_image", command, tool_built_disk.bz2],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    check_line(done.stderr, "standard output: there is no room left")


def test_an_overlay_that_can_t_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"a")
    pieces = build_module(tmp_path / "folder", "oem.tgz")
    (tmp_path / "folder" / "a").unlink()
    with pytest.raises(SourceError, match="there is no such file"):
        list(pieces)

    def fail(_: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(SourceError, match="permission denied"):
        build_module(tmp_path / "folder", "oem.tgz")


def test_room_that_ends_is_told_apart(tmp_path: Path) -> None:
    class Full:
        size, timestamp, extents = 1, None, ()

        def read_at(self, offset: int, length: int) -> bytes:
            raise AssertionError

        def chunks(self) -> Iterator[bytes]:
            raise OSError(errno.ENOSPC, "No space left on device")
            yield b""

    with pytest.raises(SourceError):  # the source's disk
        write_files([("a", Full())], tmp_path)
    assert issubclass(DestinationFull, DestinationFailed)
