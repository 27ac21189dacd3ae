"""`vmvisor://`: an image as an fsspec file system, beside what fsspec's own archives do with the same files."""

from __future__ import annotations

import doctest
import gc
import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pytest
from packaging.version import Version

from tests.http_server import Server
from tests.support import REPOSITORY, in_child, run
from tests.tool_disk import ToolDisk
from vmvisor_image import (
    ClosedError,
    CorruptImage,
    Extent,
    Image,
    InvalidArgument,
    NotAFile,
    PathNotFound,
    ReadOnly,
    SourceChanged,
)
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.fsspec import VmvisorFileSystem
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume

FILES = {
    "vmkernel.gz": bytes(range(256)) * 500,
    "boot.cfg": b"kernel=vmkernel.gz\nmodules=a.tgz\n",
    "a.tgz": b"1",
    "packages/tools/linux.iso": b"linux" * 1000,
    "packages/tools/windows.iso": b"windows" * 1000,
    "packages/x.xml": b"<x/>",
    "empty.txt": b"",
}


def disk(*labels: str | None, kind: int = 6) -> bytes:
    """A disk with a volume of that label in each partition, and the same files in each."""
    partitions = [
        ForgedPartition(
            number, kind, 1 + (number - 1) * 6000, 6000, content=fat_volume(FILES, sectors=6000, label=label)
        )
        for number, label in enumerate(labels, 1)
    ]
    return b"".join(mbr_disk(partitions, sectors=6000 * len(labels) + 1).chunks())


def _partition(files: dict[str, bytes]) -> ForgedPartition:
    return ForgedPartition(1, 6, 1, 6000, content=fat_volume(files, sectors=6000, label="Hypervisor1"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.dd"
    path.write_bytes(disk("Hypervisor1"))
    return path


@pytest.fixture
def fs(path: Path) -> Iterator[Any]:
    made = fsspec.filesystem("vmvisor", fo=str(path))
    yield made
    made.close()


@pytest.fixture
def zip_fs(tmp_path: Path) -> Iterator[Any]:
    """The same files in a zip, below a folder that is called as the partition is."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in FILES.items():
            archive.writestr(f"Hypervisor1/{name}", data)
    made = fsspec.filesystem("zip", fo=str(tmp_path / "x.zip"))
    yield made
    made.close()


def test_is_registered() -> None:
    [entry] = metadata.entry_points(group="fsspec.specs", name="vmvisor")
    assert entry.load() is VmvisorFileSystem
    assert fsspec.get_filesystem_class("vmvisor") is VmvisorFileSystem


@pytest.mark.skipif(
    Version(fsspec.__version__) < Version("2026.9"), reason="zip file systems of older releases behave differently"
)
class TestBesideZip:
    """fsspec's zip is the model."""

    @pytest.mark.parametrize("asked", ["", "/", "Hypervisor1", "Hypervisor1/packages/", "Hypervisor1/boot.cfg"])
    def test_ls(self, fs: Any, zip_fs: Any, asked: str) -> None:
        def shown(entries: list[Any]) -> list[Any]:
            return sorted((entry["name"], entry["type"], entry["size"]) for entry in entries)

        assert shown(fs.ls(asked)) == shown(zip_fs.ls(asked))
        assert sorted(fs.ls(asked, detail=False)) == sorted(zip_fs.ls(asked, detail=False))

    @pytest.mark.parametrize("asked", ["", "Hypervisor1/packages", "Hypervisor1/vmkernel.gz", "vmvisor://Hypervisor1/"])
    def test_info(self, fs: Any, zip_fs: Any, asked: str) -> None:
        about, model = fs.info(asked), zip_fs.info(asked.removeprefix("vmvisor://"))
        assert {key: about[key] for key in ("name", "type", "size")} == {
            key: model[key] for key in ("name", "type", "size")
        }
        assert fs.isdir(asked) == zip_fs.isdir(asked.removeprefix("vmvisor://"))

    @pytest.mark.parametrize(
        "options", [{}, {"maxdepth": 2}, {"withdirs": True}, {"withdirs": True, "maxdepth": 2}, {"detail": True}]
    )
    def test_find(self, fs: Any, zip_fs: Any, options: dict[str, Any]) -> None:
        assert sorted(fs.find("Hypervisor1", **options)) in (
            sorted(zip_fs.find("Hypervisor1", **options)),
            # fsspec's own `find` counts the directory itself among those below it, that of zip does not.
            sorted([*zip_fs.find("Hypervisor1", **options), "Hypervisor1"]),
        )

    @pytest.mark.parametrize("pattern", ["*", "*/*.tgz", "Hypervisor1/**", "**/*.iso", "Hypervisor1/pack*/*"])
    def test_glob(self, fs: Any, zip_fs: Any, pattern: str) -> None:
        assert sorted(fs.glob(pattern)) == sorted(zip_fs.glob(pattern))

    def test_walk(self, fs: Any, zip_fs: Any) -> None:
        def walked(file_system: Any) -> list[Any]:
            return sorted((path, sorted(dirs), sorted(files)) for path, dirs, files in file_system.walk(""))

        assert walked(fs) == walked(zip_fs)
        assert fs.du("") == zip_fs.du("")

    @pytest.mark.parametrize("limits", [(None, None), (3, None), (3, 9), (None, -4), (-4, None), (-10, -3), (5, 10**9)])
    def test_cat_file(self, fs: Any, zip_fs: Any, limits: tuple[int | None, int | None]) -> None:
        path = "Hypervisor1/vmkernel.gz"
        assert fs.cat_file(path, *limits) == zip_fs.cat_file(path, *limits) == FILES["vmkernel.gz"][slice(*limits)]

    def test_cat(self, fs: Any, zip_fs: Any) -> None:
        both = [file_system.cat("Hypervisor1", recursive=True, on_error="omit") for file_system in (fs, zip_fs)]
        assert both == [{f"Hypervisor1/{name}": data for name, data in FILES.items()}] * 2
        ranges = (["Hypervisor1/boot.cfg", "Hypervisor1/a.tgz"], [0, 0], [6, 1])
        assert fs.cat_ranges(*ranges) == zip_fs.cat_ranges(*ranges) == [b"kernel", b"1"]
        assert fs.head("Hypervisor1/boot.cfg", 6) == b"kernel"
        assert fs.tail("Hypervisor1/boot.cfg", 6) == FILES["boot.cfg"][-6:]

    def test_get(self, fs: Any, zip_fs: Any, tmp_path: Path) -> None:
        for file_system, name in ((fs, "ours"), (zip_fs, "model")):
            file_system.get("Hypervisor1/", f"{tmp_path / name}/", recursive=True)
        found, model = (
            {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
            for name in ("ours", "model")
        )
        assert found == model == FILES

    @pytest.mark.parametrize("asked", ["missing", "Hypervisor1/missing", "Hypervisor1/boot.cfg/x", "9/boot.cfg"])
    def test_what_is_not_there(self, fs: Any, zip_fs: Any, asked: str) -> None:
        for file_system in (fs, zip_fs):
            assert not file_system.exists(asked)
            for read in (file_system.info, file_system.cat_file, file_system.open, file_system.ls):
                with pytest.raises(FileNotFoundError):
                    read(asked)

    def test_text(self, fs: Any, zip_fs: Any) -> None:
        for file_system in (fs, zip_fs):
            assert file_system.read_text("Hypervisor1/boot.cfg") == FILES["boot.cfg"].decode()
            with file_system.open("Hypervisor1/boot.cfg", "r") as stream:
                assert stream.readline() == "kernel=vmkernel.gz\n"


class TestNames:
    def test_by_label_or_number_in_any_case(self, fs: Any) -> None:
        for name in ("Hypervisor1", "hypervisor1", "1"):
            assert fs.cat_file(f"{name}/BOOT.CFG") == FILES["boot.cfg"]
            assert fs.info(f"{name}/BOOT.CFG")["name"] == f"{name}/BOOT.CFG"
            assert fs.ls(f"{name}/PACKAGES/tools", detail=False)[0] == f"{name}/PACKAGES/tools/linux.iso"

    def test_each_leads_to_its_partition(self) -> None:
        labels = ("same", "SAME", "3", "7", None, "a b", "..", "a\\b")
        # Eight partitions are more than an MBR's four: two disks.
        for part in (labels[:4], labels[4:]):
            fs = VmvisorFileSystem(disk(*part))
            numbers = [fs._partition(name)[0].number for name in fs.ls("", detail=False)]
            assert numbers == [1, 2, 3, 4]
            for entry in fs.ls(""):
                assert fs.cat_file(f"{entry['name']}/a.tgz") == b"1"
        assert fs.ls("", detail=False) == ["1", "a b", "3", "4"]

    def test_of_a_real_layout(self, tool_built_disk: ToolDisk) -> None:
        fs = VmvisorFileSystem(tool_built_disk.image)
        assert fs.ls("", detail=False) == ["Hypervisor0", "Hypervisor1", "Hypervisor2", "7", "Hypervisor3"]
        assert fs.info("7")["type"] == "file"  # the diagnostic partition holds no file system
        with Image.open(tool_built_disk.image) as image:
            assert fs.info("7")["size"] == image.partitions[7].size
            assert fs.cat_file("7", 0, 512) == image.partitions[7].read_at(0, 512)
        with fs.open("7") as stream:
            assert stream.read(10) == bytes(10)
        for missing in ("7/x", "1", "1/x"):  # 1 is the extended partition
            with pytest.raises(PathNotFound):
                fs.info(missing)
        volume = tool_built_disk.volumes["Hypervisor3"]
        assert set(fs.find("8")) == {f"8/{name}" for name in volume.files}
        assert fs.isdir("Hypervisor3/empty")
        assert fs.ls("Hypervisor3/empty") == []

    def test_as_mcopy_has_it(self, tool_built_disk: ToolDisk, tmp_path: Path) -> None:
        run("mcopy", "-s", "-n", "-i", tool_built_disk.mtools_image("Hypervisor3"), "::/*", tmp_path)
        fs = VmvisorFileSystem(tool_built_disk.bz2)
        fs.get("Hypervisor3/", f"{tmp_path}-ours/", recursive=True)
        found, model = (
            {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
            for root in (Path(f"{tmp_path}-ours"), tmp_path)
        )
        assert found == model

    @pytest.mark.parametrize("wrong", ["a/..", r"a\.."])
    def test_a_name_that_leads_elsewhere_is_not_shown(self, tmp_path: Path, wrong: str) -> None:
        volume = b"".join(fat_volume({"abcd": b"evil", "good.txt": b"good", "Ab d": b""}, sectors=4000).chunks())
        volume = volume.replace("Ab d".encode("utf-16-le"), wrong.encode("utf-16-le"))
        with Image.open(volume) as image:
            assert wrong in [entry.path for entry in image.partitions[1].files.root]
        fs = VmvisorFileSystem(volume)
        assert fs.find("") == ["1/abcd", "1/good.txt"]
        fs.get("1/", f"{tmp_path}/a/b/c/", recursive=True)
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["abcd", "good.txt"]


class TestInfo:
    def test_of_a_file(self, tool_built_disk: ToolDisk) -> None:
        fs = VmvisorFileSystem(tool_built_disk.image)
        file = tool_built_disk.volumes["Hypervisor1"].files["vmkernel.gz"]
        about = fs.info("Hypervisor1/vmkernel.gz")
        assert about["size"] == len(file.data)
        assert about["modified"] == fs.modified("Hypervisor1/vmkernel.gz") == file.modified
        assert all(isinstance(extent, Extent) for extent in about["extents"])
        with tool_built_disk.image.open("rb") as disk:
            found = [os.pread(disk.fileno(), extent.length, extent.offset) for extent in about["extents"]]
        assert b"".join(found) == file.data
        assert datetime.fromtimestamp(about["mtime"]) == file.modified  # local, as FAT's times are
        assert "mtime" not in fs.info("Hypervisor1")
        with pytest.raises(NotImplementedError):
            fs.modified("Hypervisor1")

    def test_of_a_damaged_file(self) -> None:
        volume = bytearray(b"".join(fat_volume({"a": b"a" * 5000, "b": b"b"}, sectors=6000).chunks()))
        first = volume.index(b"A          ") + 26
        volume[first : first + 2] = b"\xff\xee"
        fs = VmvisorFileSystem(bytes(volume))
        assert fs.info("1/a")["extents"] is None
        assert fs.ls("1", detail=False) == ["1/a", "1/b"]
        with pytest.raises(CorruptImage):
            fs.cat_file("1/a")
        assert fs.cat_file("1/b") == b"b"

    def test_keys_differ(self, path: Path, fs: Any) -> None:
        other = VmvisorFileSystem(disk("Hypervisor1"))
        keys = {fs.ukey("Hypervisor1/a.tgz"), fs.ukey("Hypervisor1/boot.cfg"), other.ukey("Hypervisor1/a.tgz")}
        assert len(keys) == 3
        assert VmvisorFileSystem(fo=str(path)).ukey("1/a.tgz") == fs.ukey("1/a.tgz")


class TestChains:
    def test_of_a_file(self, path: Path) -> None:
        with fsspec.open(f"vmvisor://Hypervisor1/vmkernel.gz::file://{path}") as stream:
            assert stream.read() == FILES["vmkernel.gz"]
            assert stream.size == len(FILES["vmkernel.gz"])
        with fsspec.open(f"vmvisor://1/boot.cfg::{path}", "r") as stream:
            assert stream.readline() == "kernel=vmkernel.gz\n"

    def test_a_pattern(self, path: Path) -> None:
        files = fsspec.open_files(f"vmvisor://Hypervisor1/packages/tools/*.iso::file://{path}")
        with files as streams:
            assert [stream.read(5) for stream in streams] == [b"linux", b"windo"]

    def test_of_a_zip(self, path: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.write(path, "images/x.dd")
        with fsspec.open(f"vmvisor://1/boot.cfg::zip://images/x.dd::file://{tmp_path}/x.zip") as stream:
            assert stream.read() == FILES["boot.cfg"]

    def test_into_an_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            archive.writestr("etc/passwd", "root")
        volume = fat_volume({"m.zip": (tmp_path / "m.zip").read_bytes()}, sectors=4000)
        volume.write_to(tmp_path / "x.dd")
        with fsspec.open(f"zip://etc/passwd::vmvisor://1/m.zip::file://{tmp_path}/x.dd") as stream:
            assert stream.read() == b"root"

    def test_options(self, server: Server) -> None:
        served = server.serve("x.dd", BytesSource(disk("Hypervisor1")))
        served.password = "secret"
        url = f"vmvisor://Hypervisor1/a.tgz::{server.url}/x.dd"
        with fsspec.open(url, http={"headers": {"Authorization": "secret"}}, vmvisor={"threads": 1}) as stream:
            assert stream.read() == b"1"
        with pytest.raises(OSError, match="401"), fsspec.open(url):
            pass

    def test_pandas(self, path: Path) -> None:
        url = f"vmvisor://Hypervisor1/boot.cfg::file://{path}"
        assert pandas.read_csv(url, sep="=", header=None)[1].to_list() == ["vmkernel.gz", "a.tgz"]

    @pytest.mark.parametrize("kind", ["path", "bytes", "file object", "open file", "ReadAt"])
    def test_what_is_taken(self, path: Path, kind: str) -> None:
        with path.open("rb") as file:
            fo: Any = {
                "path": path,
                "bytes": path.read_bytes(),
                "file object": file,
                "open file": fsspec.open(str(path)),
                "ReadAt": BytesSource(path.read_bytes()),
            }[kind]
            fs = fsspec.filesystem("vmvisor", fo=fo)
            assert fs.cat_file("Hypervisor1/a.tgz") == b"1"
            fs.close()

    def test_what_is_not(self, path: Path, fs: Any) -> None:
        with pytest.raises(InvalidArgument, match="needs an image"):
            fsspec.filesystem("vmvisor")
        with pytest.raises(ReadOnly, match="mode 'w'"):
            fsspec.filesystem("vmvisor", fo=str(path), mode="w")
        for directory in ("", "Hypervisor1", "Hypervisor1/packages"):
            with pytest.raises(NotAFile):
                fs.open(directory)
            with pytest.raises(IsADirectoryError):
                fs.cat_file(directory)

    @pytest.mark.parametrize(
        "write",
        [
            lambda fs, _: fs.open("Hypervisor1/a.tgz", "wb"),
            lambda fs, _: fs.open("Hypervisor1/new", "a"),
            lambda fs, _: fs.mkdir("Hypervisor1/new"),
            lambda fs, _: fs.makedirs("Hypervisor1/new/er", exist_ok=True),
            lambda fs, _: fs.mkdirs("new"),
            lambda fs, _: fs.rmdir("Hypervisor1/packages"),
            lambda fs, _: fs.rm("Hypervisor1", recursive=True),
            lambda fs, _: fs.delete("Hypervisor1/a.tgz"),
            lambda fs, _: fs.cp("Hypervisor1/a.tgz", "Hypervisor1/b.tgz"),
            lambda fs, _: fs.mv("Hypervisor1/a.tgz", "Hypervisor1/b.tgz"),
            lambda fs, _: fs.touch("Hypervisor1/a.tgz", truncate=False),
            lambda fs, _: fs.pipe("Hypervisor1/new", b"x"),
            lambda fs, path: fs.put(str(path), "Hypervisor1/new"),
        ],
    )
    def test_nothing_is_written(self, path: Path, fs: Any, write: Callable[[Any, Path], None]) -> None:
        with pytest.raises(ReadOnly) as caught:
            write(fs, path)
        assert isinstance(caught.value, OSError)

    def test_an_error_names_the_path_that_was_asked_for(self, fs: Any) -> None:
        with pytest.raises(FileNotFoundError, match="'Hypervisor1/packages/missing'"):
            fs.info("Hypervisor1/packages/missing")

    def test_a_stream_tells_what_it_is_of(self, fs: Any) -> None:
        with fs.open("Hypervisor1/a.tgz") as stream:
            assert (stream.name, stream.path, stream.mode, stream.size) == (*["Hypervisor1/a.tgz"] * 2, "rb", 1)


def test_what_is_damaged_is_known_without_reading(tmp_path: Path) -> None:
    data = disk("Hypervisor1", "Hypervisor2")
    path = tmp_path / "cut.dd"
    path.write_bytes(data[: 6000 * 512])
    fs = fsspec.filesystem("vmvisor", fo=str(path))
    assert fs.problems == ()  # nothing was looked at yet
    assert fs.ls("", detail=False) == ["Hypervisor1", "2"]
    assert any("partition 2" in str(problem) for problem in fs.problems)
    assert fs.problems == fs.image.known_problems
    fs.close()


class TestCosts:
    @pytest.mark.parametrize("link", ["", "simplecache::"])
    def test_of_listing_and_one_file(self, server: Server, tool_built_disk: ToolDisk, link: str) -> None:
        served = server.serve("x.dd.bz2", tool_built_disk.bz2)
        expected = tool_built_disk.volumes["Hypervisor0"].files["mboot.c32"].data
        fs, path = fsspec.url_to_fs(f"vmvisor://Hypervisor0/mboot.c32::{link}{server.url}/x.dd.bz2")
        assert "Hypervisor0/mboot.c32" in fs.ls("Hypervisor0", detail=False)
        with fs.open(path) as stream:
            assert stream.read() == expected
        assert len(served.requests) <= 4
        if link:
            served.reset()
            with fsspec.open(f"vmvisor://Hypervisor0/mboot.c32::{link}{server.url}/x.dd.bz2") as stream:
                assert stream.read() == expected
            assert served.gets == 0
        else:
            assert served.bytes < 2_000_000 < tool_built_disk.bz2.stat().st_size
        fs.close()

    def test_a_directory_needs_no_other_one(self, server: Server, tool_built_disk: ToolDisk) -> None:
        served = server.serve("x.dd", tool_built_disk.image)
        fs = VmvisorFileSystem(f"{server.url}/x.dd")
        fs.ls("Hypervisor1")
        last = tool_built_disk.volumes["Hypervisor2"].first_lba * 512
        assert max(end for method, _, end in served.requests if method == "GET") < last
        fs.ls("Hypervisor2")
        served.reset()
        assert len(fs.ls("Hypervisor2/many")) == 100
        assert served.gets <= 1
        assert served.bytes <= 6 << 16

    def test_decodes_no_further_than_it_must(self, tool_built_disk: ToolDisk) -> None:
        fs = VmvisorFileSystem(tool_built_disk.bz2)
        fs.ls("Hypervisor0")
        reader = fs.image.layers[0].source
        assert isinstance(reader, Bzip2Reader)
        assert reader.stats.blocks_known == 1


class TestLife:
    def test_pickling(self, path: Path, fs: Any) -> None:
        _ = fs.ls("")
        again = pickle.loads(pickle.dumps(fs))
        assert again == fs
        assert again is not fs
        assert again.cat_file("Hypervisor1/a.tgz") == b"1"
        opened = fsspec.open(f"vmvisor://Hypervisor1/a.tgz::file://{path}")
        with pickle.loads(pickle.dumps(opened)) as stream:
            assert stream.read() == b"1"

    def test_pickling_of_a_url(self, server: Server) -> None:
        server.serve("x.dd", BytesSource(disk("Hypervisor1")))
        fs, path = fsspec.url_to_fs(f"vmvisor://Hypervisor1/a.tgz::simplecache::{server.url}/x.dd")
        again = pickle.loads(pickle.dumps(fs))
        assert again.cat_file(path) == b"1"

    @pytest.mark.parametrize("position", [0, 3, 70_000, len(FILES["vmkernel.gz"]), 1 << 20])
    @pytest.mark.parametrize("link", ["file://", ""])
    def test_pickling_of_an_open_stream(self, path: Path, position: int, link: str) -> None:
        """As of fsspec's own files, also where a part of what was buffered was not read yet."""
        opened = fsspec.open(f"vmvisor://Hypervisor1/vmkernel.gz::{link}{path}").open()
        with opened as stream, fsspec.open(f"file://{path}") as model:
            for each in (stream, model):
                each.seek(max(0, position - 2))
                each.read(min(2, position))
            again = pickle.loads(pickle.dumps(stream))
            assert again.tell() == (end := stream.tell())
            assert pickle.loads(pickle.dumps(model)).tell() == model.tell()
            assert (again.name, again.mode, again.size) == (stream.name, stream.mode, stream.size)
            assert hashlib.sha256(again.read()).digest() == hashlib.sha256(FILES["vmkernel.gz"][position:]).digest()
            stream.read()
            again.seek(1)
            assert stream.tell() == max(end, len(FILES["vmkernel.gz"]))  # two cursors
            again.close()
            assert again.fs is not stream.fs

    def test_pickling_of_a_stream_of_a_url(self, server: Server) -> None:
        server.serve("x.dd", BytesSource(disk("Hypervisor1")))
        with fsspec.open(f"vmvisor://Hypervisor1/boot.cfg::{server.url}/x.dd") as stream:
            stream.read(7)
            with pickle.loads(pickle.dumps(stream)) as again:
                assert again.readline() == b"vmkernel.gz\n"

    @pytest.mark.parametrize("kind", ["bytes", "open file", "fsspec's open file", "bytes in memory", "path object"])
    def test_pickling_of_what_can_be_opened_again(self, path: Path, kind: str) -> None:
        with fsspec.open(str(path)) as opened:
            fo: Any = {
                "bytes": path.read_bytes(),
                "open file": fsspec.open(str(path)),
                "fsspec's open file": opened,
                "bytes in memory": io.BytesIO(path.read_bytes()),
                "path object": path,
            }[kind]
            with VmvisorFileSystem(fo).open("Hypervisor1/boot.cfg") as stream:
                stream.read(7)
                again = pickle.loads(pickle.dumps(stream))
                assert again.read(8) == b"vmkernel"
                again.close()
                again.fs.close()

    def test_pickling_of_what_can_not(self, path: Path) -> None:
        with path.open("rb") as file:
            fs = VmvisorFileSystem(file)
            for kept in (fs, fs.open("Hypervisor1/boot.cfg")):
                with pytest.raises(TypeError, match=r"given as a BufferedReader.* give its path, a URL, or bytes"):
                    pickle.dumps(kept)
        stream = VmvisorFileSystem(str(path)).open("Hypervisor1/boot.cfg")
        stream.close()
        with pytest.raises(ClosedError):
            pickle.dumps(stream)

    @pytest.mark.parametrize("options", [{}, {"target_protocol": "file"}])
    def test_pickling_of_a_relative_path(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        monkeypatch.chdir(path.parent)
        pickled = pickle.dumps(VmvisorFileSystem(path.name, **options).open("Hypervisor1/boot.cfg"))
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        with pickle.loads(pickled) as stream:
            assert stream.read() == FILES["boot.cfg"]

    def test_a_file_that_changed_since_it_was_pickled(self, path: Path) -> None:
        with VmvisorFileSystem(str(path)).open("Hypervisor1/boot.cfg") as stream:
            pickled = pickle.dumps(stream)
        path.write_bytes(b"".join(mbr_disk([_partition({"boot.cfg": b"x"})], sectors=6001).chunks()))
        with pytest.raises(SourceChanged, match="it has 1 bytes"):
            pickle.loads(pickled)

    def test_closing(self, path: Path) -> None:
        fs = VmvisorFileSystem(str(path))
        stream = fs.open("Hypervisor1/vmkernel.gz", "rb")
        fs.close()
        for read in (stream.read, lambda: fs.cat_file("Hypervisor1/a.tgz")):
            with pytest.raises(ClosedError):
                read()

    def test_a_stream_keeps_it_open(self, path: Path) -> None:
        fs = VmvisorFileSystem(str(path))
        stream = fs.open("Hypervisor1/vmkernel.gz", "rb")
        del fs
        gc.collect()
        assert stream.read() == FILES["vmkernel.gz"]
        del stream
        gc.collect()  # the image's file is closed with it: else pytest would see a ResourceWarning

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_survives_a_fork(self, server: Server) -> None:
        server.serve("x.dd", BytesSource(disk("Hypervisor1")))
        fs = VmvisorFileSystem(f"{server.url}/x.dd")
        assert fs.cat_file("Hypervisor1/a.tgz") == b"1"
        assert in_child(lambda: fs.cat_file("Hypervisor1/vmkernel.gz") == FILES["vmkernel.gz"])
        assert fs.cat_file("Hypervisor1/vmkernel.gz") == FILES["vmkernel.gz"]


def test_the_documentation(
    server: Server, tool_built_disk: ToolDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    server.serve("image.dd.bz2", tool_built_disk.bz2)
    Path("image.dd.bz2").symlink_to(tool_built_disk.bz2)
    text = (REPOSITORY / "docs/fsspec.md").read_text().replace("https://images.example", server.url)
    examples = doctest.DocTestParser().get_doctest(text, {}, "fsspec.md", "docs/fsspec.md", 0)
    assert len(examples.examples) >= 15
    found: list[str] = []
    result = doctest.DocTestRunner().run(examples, out=found.append, clear_globs=False)
    examples.globs["fs"].close()
    assert result.failed == 0, "".join(found)


@pytest.mark.parametrize("damaged", [False, True], ids=["second device", "damaged descriptor"])
def test_a_partition_that_cannot_be_read_alone_is_a_file_among_the_others(damaged: bool, tmp_path: Path) -> None:
    device = vmfs_volume({"a": b"1"}, devices=1 if damaged else 2)[-1]
    fat = fat_volume(FILES, sectors=6000, label="Hypervisor1")
    whole = mbr_disk(
        [
            ForgedPartition(1, 6, 32, 6000, content=fat),
            ForgedPartition(2, 0xFB, 8192, device.size // 512, content=device),
        ],
        sectors=8192 + device.size // 512,
    )
    whole.write_to(tmp_path / "disk.dd")
    if damaged:
        with (tmp_path / "disk.dd").open("r+b") as file:
            file.seek(8192 * 512 + DATA_OFFSET + 0x200000)  # its descriptor
            file.write(b"\xff" * 512)
    fs = VmvisorFileSystem(str(tmp_path / "disk.dd"))
    assert {f"Hypervisor1/{name}" for name in FILES} <= set(fs.find(""))
    assert [entry["type"] for entry in fs.ls("")] == ["directory", "file"]
    other = fs.ls("")[1]
    assert other["size"] == device.size
    assert fs.cat_file(other["name"], 0, 512) == whole.read_at(8192 * 512, 512)
    fs.close()
