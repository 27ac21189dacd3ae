"""Extraction: what is refused, that files appear whole or not at all, and that nothing else is touched."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partialmethod
from pathlib import Path
from unittest.mock import Mock

import pytest

from vmvisor_image import (
    CorruptImage,
    DestinationExists,
    Extent,
    Image,
    LimitExceeded,
    Limits,
    PartialExtraction,
    SourceError,
    UnsafeName,
)
from vmvisor_image.files import safe_names
from vmvisor_image.files.extraction import write_files
from vmvisor_image.files.folder_writer import _HAS_UNNAMED_FILES, Extractable
from vmvisor_image.testing.forge import ForgedFile, fat_volume


class Content:
    """A file of given bytes that can fail in the middle."""

    def __init__(self, data: bytes, *, fails: bool = False, place: int = 0) -> None:
        self.data = data
        self.fails = fails
        self.place = place
        self.timestamp = datetime(2001, 2, 3, 4, 5, 6).timestamp()

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def extents(self) -> Sequence[Extent]:
        return (Extent(self.place, self.size),)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def chunks(self) -> Iterator[bytes]:
        yield self.data[:3]
        if self.fails:
            raise CorruptImage("damaged", structure="test", offset=7)
        yield self.data[3:]


def write(dest: Path, *names: str, overwrite: bool = False) -> tuple[Path, ...]:
    files: list[tuple[str, Extractable]] = [(name, Content(b"content")) for name in names]
    return write_files(files, dest, overwrite=overwrite)


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        ".",
        "",
        "a\\b",
        "..\\x",
        "C:x",
        "nul\0",
        "new\nline",
        "bell\x07",
        "del\x7f",
        "CON",
        "con.txt",
        "aux .tar.gz",
        "LPT1",
        "COM¹.x",
        "dir/NUL",
        "dot.",
        "space ",
        'quo"te',
        "st*r",
        "lone\udc00",
    ],
)
def test_unsafe_names_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeName) as caught:
        write(tmp_path / "dest", "good", name)
    assert not (tmp_path / "dest").exists()
    assert "nothing was written" in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("README", "readme"),
        ("a/x", "A/x"),
        ("a", "a/x"),
        ("a/x", "A"),
        ("same", "same"),
        ("stra\u00dfe", "STRA\u00dfE"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_collisions_are_refused_before_anything_is_written(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UnsafeName, match="one name"):
        write(tmp_path / "dest", *names)
    assert not (tmp_path / "dest").exists()


def test_names_that_are_fine(tmp_path: Path) -> None:
    names = ("console", "nullify.txt", ".hidden", "a b", "grüße", "com10", "dir/sub/x", "dir/y", "-rf")
    assert write(tmp_path, *names) == tuple(tmp_path / name for name in names)
    assert all((tmp_path / name).read_bytes() == b"content" for name in names)
    assert {datetime.fromtimestamp((tmp_path / name).stat().st_mtime) for name in names} == {
        datetime(2001, 2, 3, 4, 5, 6)
    }


def test_names_longer_than_the_system_takes_cost_only_themselves(tmp_path: Path) -> None:
    """A name of more than 255 bytes, and a path of more than 4,095, ended the extraction with an `OSError`."""
    names = ("a" * 256, "\u00fc" * 200, "/".join(["d" * 99] * 50), "e" * 256 + "/below", "f" * 255, "last")
    for overwrite in (False, True):
        with pytest.raises(PartialExtraction) as caught:
            write(tmp_path / "dest", *names, overwrite=overwrite)
        assert [path for path, _ in caught.value.failed] == list(names[:4])
        assert all(isinstance(error, UnsafeName) for _, error in caught.value.failed)
        assert caught.value.written == (tmp_path / "dest" / names[4], tmp_path / "dest" / "last")
    assert everything(tmp_path / "dest") == {"f" * 255, "last"}


def test_a_directory_is_checked_once_however_deep_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand files 2,000 directories deep took minutes to be checked."""
    depth, files = 500, 20
    names = ["d/" * depth + str(number) for number in range(files)]
    lstat, check_name = Mock(side_effect=Path.lstat), Mock(side_effect=safe_names.check_name)
    monkeypatch.setattr(Path, "lstat", partialmethod(lstat))
    monkeypatch.setattr(safe_names, "check_name", check_name)
    write(tmp_path, *names)
    write(tmp_path, *names, overwrite=True)
    assert check_name.call_count == 2 * (depth + files)
    assert lstat.call_count == 1 + depth + files


def test_the_umask_is_respected(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path, "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_existing_files_stay_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(DestinationExists):
        write(tmp_path, "a", "b")
    assert everything(tmp_path) == {"b"}
    write(tmp_path, "a", "b", overwrite=True)
    assert (tmp_path / "b").read_bytes() == b"content"


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, dest = tmp_path / "outside", tmp_path / "dest"
    outside.mkdir()
    dest.mkdir()
    (dest / "dir").symlink_to(outside)
    (dest / "file").symlink_to(outside / "target")
    for overwrite in (False, True):
        with pytest.raises(DestinationExists):
            write(dest, "dir/x", overwrite=overwrite)
    with pytest.raises(DestinationExists):
        write(dest, "file")
    write(dest, "file", overwrite=True)
    assert not (dest / "file").is_symlink()
    assert everything(outside) == set()


def test_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("dir", "file/x"):
        with pytest.raises(DestinationExists):
            write(tmp_path, name, overwrite=True)
    with pytest.raises(DestinationExists, match="is not a directory"):
        write(tmp_path / "file", "x")


def test_a_destination_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", "x")
    assert everything(tmp_path / "real") == {"x"}


def test_damaged_files_are_left_out_and_listed(tmp_path: Path) -> None:
    files: list[tuple[str, Extractable]] = [
        ("bad", Content(b"content", fails=True)),
        ("good", Content(b"content")),
        ("dir/bad", Content(b"content", fails=True)),
    ]
    with pytest.raises(PartialExtraction) as caught:
        write_files(files, tmp_path, made=[("config", lambda: [b"text"])])
    assert caught.value.written == (tmp_path / "good",)
    assert sorted(path for path, _ in caught.value.failed) == ["bad", "dir/bad"]
    assert caught.value.offset == 7
    assert {name for name in everything(tmp_path) if (tmp_path / name).is_file()} == {"good"}


def test_a_failing_source_leaves_no_part(tmp_path: Path) -> None:
    class Broken(Content):
        def chunks(self) -> Iterator[bytes]:
            yield b"part"
            raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        write_files([("x", Broken(b"content"))], tmp_path)
    assert everything(tmp_path) == set()


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watching(Content):
        def chunks(self) -> Iterator[bytes]:
            yield b"part"
            seen.append((tmp_path / "x").exists())
            yield b"rest"

    write_files([("x", Watching(b"partrest"))], tmp_path)
    assert seen == [False]
    assert (tmp_path / "x").read_bytes() == b"partrest"


def test_one_that_appears_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    class Racing(Content):
        def chunks(self) -> Iterator[bytes]:
            (tmp_path / "x").write_bytes(b"theirs")
            yield self.data

    with pytest.raises(DestinationExists, match="appeared"):
        write_files([("x", Racing(b"ours"))], tmp_path)
    assert (tmp_path / "x").read_bytes() == b"theirs"
    assert everything(tmp_path) == {"x"}


def test_files_are_read_in_disk_order(tmp_path: Path) -> None:
    order: list[int] = []

    class Ordered(Content):
        def chunks(self) -> Iterator[bytes]:
            order.append(self.place)
            yield self.data

    places = (500, 100, 300)
    files: list[tuple[str, Extractable]] = [(str(place), Ordered(b"x", place=place)) for place in places]
    assert write_files(files, tmp_path) == tuple(tmp_path / str(place) for place in places)
    assert order == sorted(places)


def test_a_whole_volume(tmp_path: Path) -> None:
    tree: dict[str, bytes | ForgedFile] = {"a": b"1", "sub/dir/b": b"2" * 5000, "c": b""}
    with Image.open(fat_volume(tree, sectors=4000)) as image:
        written = image.partitions[1].files.extract(tmp_path / "new" / "dest")
    assert {path.relative_to(tmp_path / "new/dest").as_posix(): path.read_bytes() for path in written} == tree


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    """Both may write, and one of them wins each file; none is ever half of either."""
    tree: dict[str, bytes | ForgedFile] = {f"f{n}": bytes([n]) * 3000 for n in range(30)}
    with Image.open(fat_volume(tree, sectors=4000)) as image:
        files = image.partitions[1].files
        threads = [
            threading.Thread(target=files.extract, args=(tmp_path,), kwargs={"overwrite": True}) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == tree


class Swapping(Content):
    """A file that, while it is read, has something done."""

    def __init__(self, data: bytes, action: Callable[[], object]) -> None:
        super().__init__(data)
        self.action = action

    def chunks(self) -> Iterator[bytes]:
        yield self.data[:3]
        self.action()
        yield self.data[3:]


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    dest, outside = tmp_path / "dest", tmp_path / "outside"
    outside.mkdir()

    def swap() -> None:
        (dest / "a").rename(dest / "moved")
        (dest / "a").symlink_to(outside)

    files: list[tuple[str, Extractable]] = [("a/one", Swapping(b"content", swap)), ("a/two", Content(b"x", place=9))]
    with pytest.raises(DestinationExists, match="'a' is in the way"):
        write_files(files, dest)
    assert everything(outside) == set()
    assert (dest / "moved" / "one").read_bytes() == b"content"  # the folder that was open, wherever it is now


def test_zeros_become_holes(tmp_path: Path) -> None:
    class Sparse(Content):
        def chunks(self) -> Iterator[bytes]:
            yield bytes(1 << 20)
            yield b"x" * 4096
            yield bytes((1 << 20) - 4096)

    data = bytes(1 << 20) + b"x" * 4096 + bytes((1 << 20) - 4096)
    (path,) = write_files([("sparse", Sparse(data))], tmp_path)
    assert path.read_bytes() == data
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_resumed_extraction_writes_what_is_missing(tmp_path: Path) -> None:
    reads: list[str] = []

    class Noted(Content):
        def __init__(self, name: str) -> None:
            super().__init__(name.encode() * 100)
            self.name = name

        def chunks(self) -> Iterator[bytes]:
            reads.append(self.name)
            yield self.data

    files: list[tuple[str, Extractable]] = [(f"d/{name}", Noted(name)) for name in "abc"]
    write_files(files[:2], tmp_path)
    with pytest.raises(DestinationExists):
        write_files(files, tmp_path)
    reads.clear()
    paths = write_files(files, tmp_path, resume=True)
    assert reads == ["c"]
    assert [path.read_bytes()[:1] for path in paths] == [b"a", b"b", b"c"]
    (tmp_path / "d" / "a").write_bytes(b"other")
    with pytest.raises(DestinationExists):
        write_files(files, tmp_path, resume=True)


def test_more_than_may_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    volume = fat_volume({"a": b"x" * 600, "b": b"y" * 600}, sectors=8192, sectors_per_cluster=4)
    with Image.open(volume, limits=Limits(extracted_bytes=1000)) as image:
        with pytest.raises(LimitExceeded, match="1200 bytes are to be written, more than 1000") as caught:
            image.partitions[1].files.extract(tmp_path / "out")
        assert caught.value.limit == "extracted_bytes"
    assert not (tmp_path / "out").exists()


_IN_A_PROCESS = """
import resource, signal, sys
from vmvisor_image import DestinationFull, Image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
print("started", flush=True)
try:
    Image.open(sys.argv[1]).partitions[1].files.extract(sys.argv[2])
except DestinationFull as error:
    sys.exit(f"DestinationFull: {error}")
"""


@pytest.fixture
def volume_of_files(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    generator = random.Random(8)
    files = {f"{n % 7}/file{n:03}": generator.randbytes(generator.randrange(1, 60_000)) for n in range(300)}
    files["large"] = generator.randbytes(3_000_000)
    path = tmp_path / "volume.img"
    fat_volume(files, sectors=65536, sectors_per_cluster=4).write_to(path)
    return path, files


def test_a_full_disk_is_a_clear_error(tmp_path: Path, volume_of_files: tuple[Path, dict[str, bytes]]) -> None:
    path, files = volume_of_files
    out = tmp_path / "out"
    command = [sys.executable, "-c", _IN_A_PROCESS, str(path), str(out), "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(
        r"DestinationFull: .*large: there is no room left \(File too large\); (?:the \d+ files|nothing)", done.stderr
    )
    written = {name: out / name for name in files if (out / name).exists()}
    assert {name: path.read_bytes() for name, path in written.items()} == {name: files[name] for name in written}
    assert everything(out) == set(written) | {str(n) for n in range(7) if (out / str(n)).exists()}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_any_moment_it_leaves_only_whole_files(
    tmp_path: Path, volume_of_files: tuple[Path, dict[str, bytes]]
) -> None:
    path, files = volume_of_files
    generator = random.Random(9)
    interrupted = number = 0
    while number < 12 or (interrupted <= 3 and number < 200):  # on a busy machine it may be done before it is killed
        number += 1
        out = tmp_path / f"out{number}"
        process = subprocess.Popen(
            [sys.executable, "-c", _IN_A_PROCESS, str(path), str(out), "0"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        until = generator.randrange(len(files))
        while process.poll() is None and sum(1 for _ in out.rglob("*")) < until:
            pass
        process.kill()
        process.wait()
        process.stdout.close()
        found = {item.relative_to(out).as_posix(): item for item in out.rglob("*") if item.is_file()}
        parts = {name for name in found if name.endswith(".part")}
        assert not parts or not _HAS_UNNAMED_FILES
        for name in found.keys() - parts:
            assert found[name].read_bytes() == files[name], name
        interrupted += len(found) < len(files)
        with Image.open(path) as image:  # and what is missing can be had
            image.partitions[1].files.extract(out, resume=True)
        assert all((out / name).read_bytes() == data for name, data in files.items())
    assert interrupted > 3


def test_a_resumed_extraction_knows_files_without_a_date_by_their_content(tmp_path: Path) -> None:
    class Undated(Content):
        timestamp = None  # type: ignore[assignment]  # the others have one

    files: list[tuple[str, Extractable]] = [(name, Undated(name.encode() * 100)) for name in "abc"]
    write_files(files[:2], tmp_path)
    kept = (tmp_path / "a").stat().st_ino
    assert len(write_files(files, tmp_path, resume=True)) == 3
    assert (tmp_path / "a").stat().st_ino == kept
    assert (tmp_path / "c").read_bytes() == b"c" * 100
    (tmp_path / "b").write_bytes(b"x" * 100)
    with pytest.raises(DestinationExists):
        write_files(files, tmp_path, resume=True)


class TestResumed:
    """What is there counts as written where it has the content, whatever else is alike."""

    def volumes(self) -> list[bytes]:
        """Two volumes whose files have the same names, sizes and times, and one of which is the same file."""
        made = []
        for letter in "xy":
            files = {"OTHER": letter.encode() * 70_000, "SAME": b"s" * 70_000}
            volume = fat_volume(files, sectors=8192, sectors_per_cluster=4)
            made.append(volume.read_at(0, volume.size))
        return made

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_files_of_another_disk(self, tmp_path: Path, overwrite: bool) -> None:
        first, second = self.volumes()
        with Image.open(first) as image:
            image.partitions[1].files.extract(tmp_path)
        before = {path.name: path.stat() for path in tmp_path.iterdir()}
        with Image.open(second) as image:
            files = image.partitions[1].files
            assert {name: file.timestamp for name, file in files.items()} == {
                name: found.st_mtime for name, found in before.items()
            }
            if not overwrite:
                with pytest.raises(DestinationExists, match="OTHER is already there"):
                    files.extract(tmp_path, resume=True)
                return
            paths = files.extract(tmp_path, resume=True, overwrite=True)
        assert {path.name: path.read_bytes()[:1] for path in paths} == {"OTHER": b"y", "SAME": b"s"}
        assert (tmp_path / "SAME").stat().st_ino == before["SAME"].st_ino
        assert (tmp_path / "OTHER").stat().st_ino != before["OTHER"].st_ino

    def test_a_time_that_is_missing_is_set(self, tmp_path: Path) -> None:
        files: list[tuple[str, Extractable]] = [("a", Content(b"content"))]
        (tmp_path / "a").write_bytes(b"content")
        write_files(files, tmp_path, resume=True)
        assert (tmp_path / "a").stat().st_mtime == files[0][1].timestamp

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").write_bytes(b"content")
        os.utime(tmp_path / "elsewhere", (5, 5))
        out = tmp_path / "out"
        out.mkdir()
        (out / "a").symlink_to(tmp_path / "elsewhere")
        files: list[tuple[str, Extractable]] = [("a", Content(b"content"))]
        with pytest.raises(DestinationExists):
            write_files(files, out, resume=True)
        assert (tmp_path / "elsewhere").stat().st_mtime == 5
        (out / "folder").symlink_to(tmp_path)
        with pytest.raises(DestinationExists, match="link"):
            write_files([("folder/elsewhere", Content(b"content"))], out, resume=True)

    def test_what_is_no_file_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a")
        with pytest.raises(DestinationExists):
            write_files([("a", Content(b""))], tmp_path, resume=True)

    def test_files_are_compared_in_disk_order(self, tmp_path: Path) -> None:
        reads: list[int] = []

        class Noted(Content):
            def read_at(self, offset: int, length: int) -> bytes:
                reads.append(self.place)
                return super().read_at(offset, length)

        files: list[tuple[str, Extractable]] = [(str(place), Noted(b"content", place=place)) for place in (3, 1, 2)]
        write_files(files, tmp_path)
        reads.clear()
        assert [path.name for path in write_files(files, tmp_path, resume=True)] == ["3", "1", "2"]
        assert reads == [1, 2, 3]

    def test_a_source_that_fails_is_no_other_file(self, tmp_path: Path) -> None:
        class Failing(Content):
            def read_at(self, offset: int, length: int) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

        (tmp_path / "a").write_bytes(b"content")
        with pytest.raises(SourceError, match="input/output error") as caught:
            write_files([("a", Failing(b"content"))], tmp_path, resume=True)
        assert caught.value.errno == errno.EIO
