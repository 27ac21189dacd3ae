"""What is done where a system lacks something that Linux has, taken on Linux: what is lacking is taken away."""

from __future__ import annotations

import bz2
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.media import BANK_35, module, small_disk
from vmvisor_image import CorruptImage, DestinationExists, Image, PartialExtraction
from vmvisor_image.base.cores import available_cores
from vmvisor_image.bzip2 import index_file
from vmvisor_image.files import extraction, folder_writer
from vmvisor_image.streams.sources import BytesSource, FileSource


class TestFilesWithoutPositionedReads:
    """Windows has no pread: threads take turns at one cursor."""

    def test_threads_get_what_they_asked_for(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delattr(os, "pread")
        content = b"".join(number.to_bytes(4, "big") for number in range(50_000))
        (tmp_path / "disk").write_bytes(content)
        source = FileSource(tmp_path / "disk")
        start = threading.Barrier(8)

        def read(first: int) -> bool:
            start.wait()
            places = range(first, 190_000, 1777)
            return all(source.read_at(place, 1000) == content[place : place + 1000] for place in places)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(8)))
        source.close()

    def test_holes_are_read_where_they_cannot_be_looked_for(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with (tmp_path / "disk").open("wb") as file:
            file.seek(8 << 20)
            file.write(b"end")
        source = FileSource(tmp_path / "disk")
        assert source.skip_zeros(0, 1 << 20) == 1 << 20
        monkeypatch.delattr(os, "SEEK_DATA")
        assert source.skip_zeros(0, 1 << 20) == 0, "not known to be zeros"
        assert source.read_at((8 << 20) - 2, 5) == b"\0\0end"
        source.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk of 8 MB with the files of a boot bank."""
    path = tmp_path / "disk.dd"
    small_disk({name: module(name) for name in BANK_35} | {"boot.cfg": b"build=1\n", "d/e/f.txt": b"f" * 9}).write_to(
        path
    )
    return path


class TestExtractionByPath:
    """Windows opens nothing relative to a folder that is open, has no files without a name, and sets times by path."""

    @pytest.fixture(autouse=True)
    def lacking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folder_writer, "_HAS_DIRECTORY_DESCRIPTORS", False)
        monkeypatch.setattr(folder_writer, "_HAS_UNNAMED_FILES", False)
        monkeypatch.setattr(folder_writer, "_HAS_TIMES_OF_DESCRIPTORS", False)
        # What this system can do all the same would hide that it was asked for.
        monkeypatch.setattr(extraction, "os", WithoutDescriptors())
        monkeypatch.setattr(folder_writer, "os", WithoutDescriptors())

    def test_whole_files_with_their_times(self, image: Path, tmp_path: Path) -> None:
        with Image.open(image) as opened:
            files = opened.partitions["Hypervisor1"].files
            written = files.extract(tmp_path / "out")
            assert len(written) == len(files)
            for path, file in files.items():
                target = tmp_path / "out" / path
                assert target.read_bytes() == file.read_bytes()
                assert target.stat().st_mtime == file.timestamp
        assert not list((tmp_path / "out").rglob("*.part"))

    def test_goes_on(self, image: Path, tmp_path: Path) -> None:
        with Image.open(image) as opened:
            files = opened.partitions["Hypervisor1"].files
            files.extract(tmp_path / "out")
            kept = (tmp_path / "out/boot.cfg").stat().st_ino
            (tmp_path / "out/d/e/f.txt").unlink()
            files.extract(tmp_path / "out", resume=True)
        assert (tmp_path / "out/d/e/f.txt").read_bytes() == b"f" * 9
        assert (tmp_path / "out/boot.cfg").stat().st_ino == kept, "what is there was not written again"

    def test_replaces_only_when_told_to(self, image: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/boot.cfg").write_bytes(b"mine")
        with Image.open(image) as opened:
            files = opened.partitions["Hypervisor1"].files
            with pytest.raises(DestinationExists):
                files.extract(tmp_path / "out")
            assert (tmp_path / "out/boot.cfg").read_bytes() == b"mine"
            files.extract(tmp_path / "out", overwrite=True)
        assert (tmp_path / "out/boot.cfg").read_bytes() == b"build=1\n"

    def test_a_link_that_leads_out_is_refused(self, image: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out/d").symlink_to(tmp_path / "elsewhere")
        with Image.open(image) as opened, pytest.raises(DestinationExists, match="symbolic link"):
            opened.partitions["Hypervisor1"].files.extract(tmp_path / "out")
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_a_file_that_cannot_be_read_leaves_nothing(self, tmp_path: Path) -> None:
        class Damaged(BytesSource):
            timestamp = None
            extents = ()

            def chunks(self) -> Iterator[bytes]:
                yield b"begun"
                raise CorruptImage("damaged", structure="file")

        with pytest.raises(PartialExtraction):
            extraction.write_files([("a", Damaged(bytes(20)))], tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


class WithoutDescriptors:
    """The module `os` where folders are known by their paths only."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in ("open", "mkdir", "link", "replace", "unlink", "rename", "utime"):
            return found

        def function(*arguments: object, **options: object) -> object:
            assert not any(value is not None for option, value in options.items() if option.endswith("dir_fd")), name
            return found(*arguments, **options)

        return function


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("win32", "LOCALAPPDATA", "{value}/vmvisor-image"),
        ("win32", "", "{home}/AppData/Local/vmvisor-image"),
        ("darwin", "", "{home}/Library/Caches/vmvisor-image"),
        ("linux", "XDG_CACHE_HOME", "{value}/vmvisor-image"),
        ("linux", "", "{home}/.cache/vmvisor-image"),
    ],
)
def test_caches_lie_where_the_system_has_them(
    platform: str, variable: str, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "value"))
    expected = folder.format(home=tmp_path, value=tmp_path / "value")
    assert index_file.cache_folder() == Path(expected)


def test_the_index_of_a_url_is_kept_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    [place] = index_file.default_paths("https://host/disk.dd.bz2")
    assert place.parent == tmp_path / "vmvisor-image"


@pytest.mark.parametrize("count", [3, None])
def test_cores_where_a_process_cannot_ask_for_its_own(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert available_cores() == (count or 1)


BARE = """
import os, sys
LACKING = ("pread preadv pwrite fork forkpty register_at_fork sched_getaffinity O_TMPFILE O_NOFOLLOW O_DIRECTORY"
           " SEEK_DATA SEEK_HOLE posix_fadvise copy_file_range sendfile getuid geteuid mkfifo killpg openpty statvfs"
           ).split()
for name in LACKING:
    if hasattr(os, name):
        delattr(os, name)
for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
    known.clear()
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
"""
"""Takes away what Windows lacks, before anything of the library is imported."""

JOBS = """
import json, sys
from pathlib import Path
from vmvisor_image import Image, export_pxe, inspect, verify
from vmvisor_image.bzip2 import Bzip2Reader

source, out = sys.argv[1], Path(sys.argv[2])
with Image.open(source, index="auto", threads=2) as image:
    names = [partition.label for partition in image.partitions]
    written = [path.relative_to(out).as_posix() for path in image.partitions["Hypervisor1"].files.extract(out / "bank")]
    exported = [path.relative_to(out).as_posix() for path in export_pxe(image, out / "tftp").files]
with Image.open(source, index="auto", threads=2) as image:
    image.read_at(image.size - 512, 512)
report = inspect(source).to_dict()
print(json.dumps([names, written, exported, report, verify(source).to_dict()], default=str))
"""


def test_the_main_jobs_where_all_of_it_is_lacking(image: Path, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    compressed = tmp_path / "given/disk.dd.bz2"
    compressed.write_bytes(bz2.compress(image.read_bytes()))
    done = []
    for kind, prelude in (("whole", ""), ("bare", BARE)):
        command = [sys.executable, "-c", prelude + JOBS, str(compressed), str(tmp_path / kind)]
        done.append(json.loads(subprocess.check_output(command, text=True)))
    assert done[0] == done[1]
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    paths = sorted(path.relative_to(whole) for path in whole.rglob("*"))
    assert paths == sorted(path.relative_to(bare) for path in bare.rglob("*"))
    for path in paths:
        if (whole / path).is_file():
            assert (bare / path).read_bytes() == (whole / path).read_bytes()
    exported = {path.name: path.stat().st_mtime for path in (whole / "bank").iterdir() if path.is_file()}
    assert exported == {path.name: path.stat().st_mtime for path in (bare / "bank").iterdir() if path.is_file()}
