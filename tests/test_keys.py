"""What is kept, or half done, is keyed by all that it depends on, and belongs to one writer."""

from __future__ import annotations

import bz2
import errno
import hashlib
import io
import itertools
import os
import random
import subprocess
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.support import require_tool, run
from vmvisor_image import Image, convert
from vmvisor_image.base import destination
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.streams.fingerprint import fingerprint, is_identified
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource, FileSource

FRAME = 1 << 16
ENDS = 100_000
"""More than the 64 KiB at each end that are looked at."""


def stream_of(seed: int, size: int = ENDS) -> bytes:
    return bz2.compress(random.Random(seed).randbytes(size), 1)


def twins() -> tuple[bytes, bytes]:
    """Two bzip2 files of one length that differ in the middle only, in a stream of its own."""
    lengths: dict[int, int] = {}
    for seed in itertools.count(100):
        length = len(stream_of(seed))
        if length in lengths:
            first, second = stream_of(lengths[length]), stream_of(seed)
            return stream_of(1) + first + stream_of(2), stream_of(1) + second + stream_of(2)
        lengths[length] = seed
    raise AssertionError


ONE, OTHER = twins()
assert len(ONE) == len(OTHER)
assert (ONE[: 1 << 16], ONE[-1 << 16 :]) == (OTHER[: 1 << 16], OTHER[-1 << 16 :])
HALVES = [random.Random(seed).randbytes(3 << 20) for seed in (1, 2)]
"""Two disks that are alike for 1 MiB at each end."""
HALVES = [HALVES[0], HALVES[0][: 1 << 20] + HALVES[1][1 << 20 : 2 << 20] + HALVES[0][2 << 20 :]]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


def read(source: Any, expected: bytes, member: str | None = None, cache: Path | bool = True, **options: Any) -> int:
    """Read a whole disk with a cache; the number of blocks that were decoded."""
    with Image.open(source, member=member, cache=cache, storage_options=options or None) as image:
        assert sha256(image.read_at(0, len(expected))) == sha256(expected)
        reader = image.layers[-1].source
        assert isinstance(reader, Bzip2Reader)
        return reader.stats.blocks_decoded


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


WRITERS = pytest.mark.parametrize("write", [write_zip, write_tar])


class TestMembers:
    @WRITERS
    def test_of_one_name_in_several_folders(
        self, tmp_path: Path, write: Callable[[Path, dict[str, bytes]], None]
    ) -> None:
        """Members of one name and size, alike at both ends: each has an index and a cache of its own."""
        path = tmp_path / "both"
        disks = {"a/disk.dd.bz2": ONE, "b/disk.dd.bz2": OTHER}
        write(path, disks)
        for visit in range(2):
            for member, data in disks.items():
                assert (read(path, bz2.decompress(data), member) == 0) == (visit == 1), member
        kept = {entry.suffix for entry in tmp_path.iterdir()}
        assert kept == {"", ".vmvisor-cache", ".vmvisor-index"}
        assert len(list(tmp_path.glob("both.*.vmvisor-index"))) == 2

    def test_of_one_name_in_an_archive_of_the_container(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "inner", {"disk.dd.bz2": OTHER})
        inner = (tmp_path / "inner").read_bytes()
        write_zip(tmp_path / "outer.zip", {"disk.dd.bz2": ONE, "inner.tar": inner})
        members = {"disk.dd.bz2": ONE, "inner.tar/disk.dd.bz2": OTHER}
        for visit in range(2):
            for member, data in members.items():
                assert (read(tmp_path / "outer.zip", bz2.decompress(data), member) == 0) == (visit == 1)

    @WRITERS
    @pytest.mark.parametrize("is_named", [False, True])
    def test_of_a_container_that_changed(
        self, tmp_path: Path, write: Callable[[Path, dict[str, bytes]], None], is_named: bool
    ) -> None:
        path, cache = tmp_path / "one", tmp_path / "kept" if is_named else True
        for number, data in enumerate((ONE, OTHER)):
            write(path, {"disk.dd.bz2": data})
            os.utime(path, ns=(0, number))
            for visit in range(2):
                assert (read(path, bz2.decompress(data), cache=cache) == 0) == (visit == 1)

    def test_whose_names_can_t_be_those_of_files(self, tmp_path: Path) -> None:
        name = "x" * 250 + ".dd.bz2"
        write_tar(tmp_path / "one.tar", {name: ONE})
        assert read(tmp_path / "one.tar", bz2.decompress(ONE)) > 0
        assert read(tmp_path / "one.tar", bz2.decompress(ONE)) == 0


class TestSources:
    @pytest.mark.parametrize("is_member", [False, True])
    def test_a_file_that_was_replaced_by_one_of_its_time(self, tmp_path: Path, is_member: bool) -> None:
        path = tmp_path / "disk"
        for data in (ONE, OTHER):
            if is_member:  # with more before and behind it than is looked at
                ends = {name: bytes(1 << 17) for name in ("before", "behind")}
                write_tar(path, {"before": ends["before"], "disk.dd.bz2": data, "behind": ends["behind"]})
            else:
                path.write_bytes(data)
            os.utime(path, ns=(0, 0))
            assert read(path, bz2.decompress(data)) > 0
            assert read(path, bz2.decompress(data)) == 0

    def test_a_copy_of_an_object_that_changed(self, tmp_path: Path) -> None:
        """Each copy is made anew: its time says nothing, its bytes do."""
        memory, numbers = fsspec.filesystem("memory"), itertools.count()
        try:
            for data in (ONE, OTHER):
                memory.pipe("/disk.dd.bz2", data)
                for visit in range(2):
                    copies = {"cache_storage": str(tmp_path / f"copies{next(numbers)}")}
                    decoded = read("simplecache::memory://disk.dd.bz2", bz2.decompress(data), simplecache=copies)
                    assert (decoded == 0) == (visit == 1)
        finally:
            memory.rm("/disk.dd.bz2")

    def test_bytes_are_known_by_all_of_them(self, tmp_path: Path) -> None:
        for visit, data in itertools.product(range(2), (ONE, OTHER)):
            assert (read(data, bz2.decompress(data), cache=tmp_path / "kept") == 0) == (visit == 1)
        assert fingerprint(BytesSource(ONE)) != fingerprint(BytesSource(OTHER))

    def test_a_member_of_a_container_without_a_path(self, tmp_path: Path) -> None:
        for number, data in enumerate((ONE, OTHER)):
            path = tmp_path / "one.tar"
            write_tar(path, {"disk.dd.bz2": data})
            os.utime(path, ns=(0, number))
            for visit in range(2):
                expected = bz2.decompress(data)
                assert (read(path.read_bytes(), expected, cache=tmp_path / "kept") == 0) == (visit == 1)
                with path.open("rb") as file:
                    assert (read(file, expected, cache=tmp_path / "others") == 0) == (visit == 1)

    def test_a_file_object_is_known_by_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "disk"
        for number, data in enumerate((ONE, OTHER)):
            path.write_bytes(data)
            os.utime(path, ns=(0, number))
            for visit in range(2):
                with path.open("rb") as file:
                    assert (read(file, bz2.decompress(data), cache=tmp_path / "kept") == 0) == (visit == 1)

    def test_of_what_is_not_known_nothing_is_kept(self, tmp_path: Path) -> None:
        for data in (ONE, OTHER):
            assert read(io.BytesIO(data), bz2.decompress(data), cache=tmp_path / "kept") > 0
        assert not (tmp_path / "kept").exists()

    def test_the_time_of_a_device_says_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is written to a disk does not change the time of its file in /dev."""
        monkeypatch.setattr(FileSource, "_find_state", lambda _: None)  # as of a device
        (tmp_path / "disk").write_bytes(ONE)
        source = FileSource(tmp_path / "disk")
        assert source.modified_ns is None
        assert not is_identified(source)
        source.close()


class Interrupted(Exception):
    pass


def interrupt(source: Image | ReadAt, dest: Path, at: int = 2 << 20) -> None:
    """Begin a conversion, and end it."""

    def progress(done: int, total: int | None) -> None:
        if done >= at:
            raise Interrupted

    with pytest.raises(Interrupted):
        convert(source, dest, frame_size=FRAME, threads=1, progress=progress)


def decoded_by_zstd(path: Path) -> str:
    """SHA-256 of what zstd decodes."""
    return sha256(subprocess.run([require_tool("zstd"), "-dc", path], capture_output=True, check=True).stdout)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TestConversions:
    def test_of_a_disk_whose_extent_changed(self, tmp_path: Path) -> None:
        """The descriptor is as it was."""
        path, flat = tmp_path / "disk.vmdk", tmp_path / "disk-flat.vmdk"
        run("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, str(len(HALVES[0])))
        fingerprints = set()
        for number, data in enumerate(HALVES):
            flat.write_bytes(data)
            os.utime(flat, ns=(0, number))
            with Image.open(path) as image:
                fingerprints.add(image.fingerprint)
                if number == 0:
                    interrupt(image, tmp_path / "out.zst")
                    continue
                assert convert(image, tmp_path / "out.zst", frame_size=FRAME).resumed_at == 0
        assert len(fingerprints) == 2
        run("qemu-img", "convert", "-O", "raw", path, tmp_path / "raw")
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256((tmp_path / "raw").read_bytes()) == sha256(HALVES[1])

    def test_of_a_file_that_was_replaced_by_one_of_its_time(self, tmp_path: Path) -> None:
        """As tools do that set all times to one, so that they make the same files again."""
        path = tmp_path / "disk"
        for number, data in enumerate(HALVES):
            path.write_bytes(data)
            os.utime(path, ns=(0, 0))
            with Image.open(path) as image:
                if number == 0:
                    interrupt(image, tmp_path / "out.zst")
                else:
                    convert(image, tmp_path / "out.zst", frame_size=FRAME)
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256(HALVES[1])

    def test_of_the_same_file_goes_on(self, tmp_path: Path) -> None:
        (tmp_path / "disk").write_bytes(HALVES[0])
        for goes_on in (False, True):
            with Image.open(tmp_path / "disk") as image:
                if not goes_on:
                    interrupt(image, tmp_path / "out.zst")
                else:
                    assert convert(image, tmp_path / "out.zst", frame_size=FRAME).resumed_at >= 2 << 20
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256(HALVES[0])

    @pytest.mark.parametrize("wrap", [io.BytesIO, None], ids=["file object", "ReadAt"])
    def test_of_what_is_not_known_go_on_as_far_as_it_is_alike(
        self, tmp_path: Path, wrap: Callable[[bytes], io.BytesIO] | None
    ) -> None:
        class Own:
            def __init__(self, data: bytes) -> None:
                self.size = len(data)
                self.data = data

            def read_at(self, offset: int, length: int) -> bytes:
                return self.data[offset : offset + length]

        sources: list[ReadAt] = [Own(data) if wrap is None else Image(wrap(data)) for data in HALVES]
        interrupt(sources[0], tmp_path / "out.zst")
        assert convert(sources[1], tmp_path / "out.zst", frame_size=FRAME).resumed_at == 1 << 20
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256(HALVES[1])
        assert list(tmp_path.glob("*.part")) == []

    def test_of_a_member_of_a_nested_image(self, tmp_path: Path) -> None:
        """A file of an image is not known by a time: its bytes decide."""
        for number, data in enumerate(HALVES):
            write_tar(tmp_path / "outer.tar", {"disk.dd": data})
            with Image.open(tmp_path / "outer.tar") as image:
                inner = image.layers[-1].source
                assert not is_identified(inner)
                with Image.open(inner) as disk:
                    if number == 0:
                        interrupt(disk, tmp_path / "out.zst")
                    else:
                        convert(disk, tmp_path / "out.zst", frame_size=FRAME)
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256(HALVES[1])


_CONVERTS = """
import sys
from vmvisor_image import Image, convert
wait = sys.argv[3] == "wait"
def progress(done, total):
    global wait
    if wait and done >= 1 << 20:
        wait = False
        print("halfway", flush=True)
        sys.stdin.readline()
with Image.open(sys.argv[1]) as image:
    print(convert(image, sys.argv[2], overwrite=True, frame_size=1 << 16, threads=1, progress=progress).resumed_at)
"""


@pytest.fixture
def processes() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process, and ends it at last."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


class TestTwoProcesses:
    @pytest.mark.parametrize("ends", ["killed", "done"])
    def test_convert_to_one_destination(
        self, tmp_path: Path, processes: Callable[..., subprocess.Popen[str]], ends: str
    ) -> None:
        source, out = tmp_path / "disk", tmp_path / "out.zst"
        source.write_bytes(HALVES[0])
        first = processes(_CONVERTS, source, out, "wait")
        assert first.stdout is not None
        assert first.stdout.readline() == "halfway\n"
        second = processes(_CONVERTS, source, out, "go")
        assert second.communicate()[0] == "0\n"
        assert decoded_by_zstd(out) == sha256(HALVES[0])
        if ends == "killed":
            first.kill()
            first.wait()
            assert decoded_by_zstd(out) == sha256(HALVES[0])
            third = processes(_CONVERTS, source, out, "go")
            assert int(third.communicate()[0]) >= 1 << 20, "what the first left is used by the next one"
        else:
            first.communicate("go on\n")
        assert decoded_by_zstd(out) == sha256(HALVES[0])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out.zst"]


_KEEPS = """
import sys
from vmvisor_image import Image
with Image.open(sys.argv[1], cache=True) as image:
    image.read_at(0, 100_000)
    print("read", flush=True)
    sys.stdin.readline()
"""


class TestSegments:
    def test_one_that_is_still_written_is_not_removed(
        self, tmp_path: Path, processes: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """Also where its process has not read for days."""
        path = tmp_path / "disk.bz2"
        path.write_bytes(ONE)
        keeping = processes(_KEEPS, path)
        assert keeping.stdout is not None
        assert keeping.stdout.readline() == "read\n"
        [part] = tmp_path.glob("*.vmvisor-cache/*.part")
        os.utime(part, (0, 0))
        assert read(path, bz2.decompress(ONE)) > 0
        assert part.exists()
        keeping.communicate("\n")
        assert len(list(tmp_path.glob("*.vmvisor-cache/*.zst"))) == 2
        part.write_bytes(b"")  # one that nobody has
        os.utime(part, (0, 0))
        read(path, bz2.decompress(ONE))
        assert not part.exists()


class TestLocks:
    def test_one_handle_has_it(self, tmp_path: Path) -> None:
        with (tmp_path / "x").open("w+b") as first:
            assert destination.lock(first)
            with (tmp_path / "x").open("r+b") as second:
                assert destination.lock(second) is False
        with (tmp_path / "x").open("r+b") as third:
            assert destination.lock(third)

    def test_a_file_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fcntl

        def fail(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", fail)
        with (tmp_path / "x").open("w+b") as file:
            assert destination.lock(file) is None
        convert(BytesSource(HALVES[0]), tmp_path / "out.zst")
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256(HALVES[0])

    def test_windows_locks_a_byte_behind_the_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its locks keep others from reading what is locked."""
        taken: list[int] = []

        def locking(descriptor: int, mode: int, length: int) -> None:
            assert (mode, length) == (2, 1)
            if taken:
                raise PermissionError(errno.EACCES, "Permission denied")
            taken.append(os.lseek(descriptor, 0, os.SEEK_CUR))

        monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
        monkeypatch.setattr(destination, "sys", types.SimpleNamespace(platform="win32"))
        with (tmp_path / "x").open("w+b") as file:
            assert destination.lock(file)
            assert destination.lock(file) is False
        assert taken == [0x7FFF_FFFF]

    def test_windows_publishes_what_nobody_took_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(destination, "_IS_WINDOWS", True)
        convert(BytesSource(HALVES[0]), tmp_path / "out.zst")
        assert decoded_by_zstd(tmp_path / "out.zst") == sha256(HALVES[0])
        assert list(tmp_path.iterdir()) == [tmp_path / "out.zst"]


def test_an_index_beside_a_file_is_of_that_file(tmp_path: Path) -> None:
    """The file's own time, size and ends, as they were before members had theirs."""
    (tmp_path / "disk.bz2").write_bytes(ONE)
    source = FileSource(tmp_path / "disk.bz2")
    assert is_identified(source)
    assert fingerprint(source) != fingerprint(source, exact=True)
    source.close()
