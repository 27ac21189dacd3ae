"""Files and directories as `importlib.resources.abc.Traversable`s, and their streams in other people's hands."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pathlib
import pickle
import shutil
import sys
import tarfile
import zipfile
from collections.abc import ItemsView, ValuesView
from importlib.resources import as_file
from importlib.resources.abc import Traversable
from pathlib import Path

import pandas
import pytest

from tests.support import run
from tests.tool_disk import ToolDisk
from vmvisor_image import (
    Directory,
    File,
    FileTree,
    Image,
    InvalidArgument,
    NoLocalPath,
    NotADirectory,
    NotAFile,
    PathNotFound,
    open_archive,
)
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import fat_volume
from vmvisor_image.testing.forge_modules import tar_archive

CSV = "name;größe\nvmkernel;1500001\nbinmod;2000003\n"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", "in a zip")
    return buffer.getvalue()


CONTENT = {
    "sizes.csv": CSV.encode("cp1252"),
    "lines.txt": "eins\r\nzwei\r\ngrüße\n".encode(),
    "x.zip": zipped(),
    "sub/x.tgz": gzip.compress(tar_archive({"etc/passwd": b"root:x:0:0"})),
    "sub/deeper/vmkernel": bytes(range(256)) * 1000,
}


@pytest.fixture(scope="module")
def files() -> FileTree:
    return Image(b"".join(fat_volume(CONTENT, sectors=8000, label="x").chunks())).partitions[1].files


def static(entry: File | Directory) -> Traversable:
    """What a type checker has to accept."""
    return entry


def tree_of(root: Traversable, prefix: str = "") -> dict[str, bytes | None]:
    """Path and content of all below, by nothing but the protocol; None for a directory."""
    found: dict[str, bytes | None] = {}
    for entry in root.iterdir():
        path = prefix + entry.name
        assert entry.is_file() != entry.is_dir()
        if entry.is_dir():
            found |= {path: None, **tree_of(root / entry.name, f"{path}/")}
        else:
            with root.joinpath(entry.name).open("rb") as stream:
                found[path] = stream.read()
            assert entry.read_bytes() == found[path]
    return found


class TestProtocol:
    def test_is_one(self, files: FileTree) -> None:
        assert isinstance(files["x.zip"], Traversable)
        assert isinstance(files.root, Traversable)
        assert static(files.root).joinpath("sub", "x.tgz").name == "x.tgz"

    def test_walks_as_a_folder_that_mcopy_wrote(self, tool_built_disk: ToolDisk, tmp_path: Path) -> None:
        run("mcopy", "-s", "-n", "-i", tool_built_disk.mtools_image("Hypervisor3"), "::/*", tmp_path)
        with Image.open(tool_built_disk.image) as image:
            assert tree_of(image.partitions["Hypervisor3"].files.root) == tree_of(tmp_path)

    def test_of_an_archive(self) -> None:
        archive = open_archive(BytesSource(tar_archive({"etc/a": b"1", "etc/b/c": b"2"})))
        assert tree_of(archive.root) == {"etc": None, "etc/a": b"1", "etc/b": None, "etc/b/c": b"2"}

    @pytest.mark.parametrize("parts", [("sub", "x.tgz"), ("sub/x.tgz",), (pathlib.PurePosixPath("sub/x.tgz"),)])
    def test_joinpath(self, files: FileTree, parts: tuple[str, ...]) -> None:
        found = files.root.joinpath(*parts)
        assert isinstance(found, File)
        assert found.read_bytes() == CONTENT["sub/x.tgz"]
        assert found.joinpath() is found

    def test_a_file_is_no_directory(self, files: FileTree) -> None:
        file = files["x.zip"]
        with pytest.raises(NotADirectory, match=r"x\.zip"):
            file.iterdir()
        with pytest.raises(FileNotFoundError, match=r"below file 'x\.zip'"):
            _ = file / "a"
        with pytest.raises(PathNotFound, match=r"sub/x\.tgz/a"):
            files.root.joinpath("sub", "x.tgz", "a")

    def test_did_you_mean(self, files: FileTree) -> None:
        for path, similar in {
            "x.zpi": ("x.zip",),
            "sub/x.tgs": ("sub/x.tgz",),
            "sbu/x.tgz": ("sub",),
            "vmkernel": (),
            "sub/deeper/vmkernl": ("sub/deeper/vmkernel",),
        }.items():
            with pytest.raises(PathNotFound) as caught:
                files.root / path
            assert caught.value.similar == similar
            if similar:
                assert str(caught.value).endswith(f"; did you mean {similar[0]!r}?")
        below = files.root / "sub"
        with pytest.raises(PathNotFound, match=r"did you mean 'deeper/vmkernel'\?"):
            _ = below / "deeper/vmkernle"  # from where it was asked

    def test_did_you_mean_the_same_name_elsewhere(self, files: FileTree) -> None:
        for path in ("VMKERNEL", "deeper/vmkernel", "none/vmkernel"):
            with pytest.raises(PathNotFound) as caught:
                files[path]
            assert caught.value.similar[0] == "sub/deeper/vmkernel"

    def test_did_you_mean_looks_at_few_of_many(self) -> None:
        """Of a folder of thousands, a few hundred names are kept; nothing is compared before the text is asked for."""
        many = {"d/readme.md": b"", **{f"d/{number:05}.txt": b"" for number in range(3000)}}
        files = Image(b"".join(fat_volume(many, sectors=8000).chunks())).partitions[1].files
        with pytest.raises(PathNotFound) as caught:
            files["d/1500"]
        assert len(caught.value.names) == 500
        assert len(pickle.dumps(caught.value)) < 20_000
        with pytest.raises(PathNotFound, match=r"did you mean 'd/readme\.md'\?"):
            files["d/readm.md"]

    def test_a_directory_is_no_file(self, files: FileTree) -> None:
        directory = files.root / "sub"
        assert isinstance(directory, Directory)
        for read in (directory.open, directory.read_bytes, directory.read_text):
            with pytest.raises(NotAFile, match="'sub' is a directory"):
                read()

    def test_as_file(self, files: FileTree) -> None:
        with as_file(static(files["sub/deeper/vmkernel"])) as path:
            assert path.read_bytes() == CONTENT["sub/deeper/vmkernel"]
            assert path.name.endswith("vmkernel")
        assert not path.exists()

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="directories since Python 3.12")
    def test_a_directory_as_file(self, files: FileTree) -> None:
        with as_file(static(files.root / "sub")) as path:
            assert tree_of(path) == {
                "x.tgz": CONTENT["sub/x.tgz"],
                "deeper": None,
                "deeper/vmkernel": CONTENT["sub/deeper/vmkernel"],
            }
        with as_file(static(files.root)) as path:
            assert tree_of(path) == tree_of(files.root)

    def test_what_is_in_a_directory(self, files: FileTree) -> None:
        assert "x.zip" in files.root
        assert "X.ZIP" in files.root  # as FAT has it
        assert "missing" not in files.root
        assert files["x.zip"] in files.root
        below = files.root / "sub"
        assert isinstance(below, Directory)
        assert files["x.zip"] not in below

    def test_a_tree_is_a_mapping(self, files: FileTree) -> None:
        assert isinstance(files.values(), ValuesView)
        assert isinstance(files.items(), ItemsView)
        assert {path: file.read_bytes() for path, file in files.items()} == CONTENT
        assert [file.path for file in files.values()] == list(files.keys()) == list(files)
        assert len(files.values()) == len(files.items()) == len(CONTENT)
        assert files["x.zip"] in files.values()
        assert ("X.ZIP", files["x.zip"]) in files.items()

    def test_a_tree_is_not_pickled(self, files: FileTree) -> None:
        for value in (files, files.root):
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(value)


class TestText:
    def test_bytes_unless_told_otherwise(self, files: FileTree) -> None:
        with files["lines.txt"].open() as stream:
            assert isinstance(stream, io.BufferedReader)
            assert stream.read() == CONTENT["lines.txt"]

    def test_as_pathlib_reads_it(self, files: FileTree, tmp_path: Path) -> None:
        path = tmp_path / "lines.txt"
        path.write_bytes(CONTENT["lines.txt"])
        with files["lines.txt"].open("r") as stream, path.open("r", encoding="utf-8") as model:
            assert list(stream) == list(model)
        with (
            files["lines.txt"].open("rt", newline="") as stream,
            path.open("rt", encoding="utf-8", newline="") as model,
        ):
            assert list(stream) == list(model)  # as csv wants it
        with files["lines.txt"].open("r", encoding="ascii", errors="replace") as stream:
            assert stream.read() == path.read_text("ascii", "replace")
        with files["sizes.csv"].open("r", encoding="cp1252") as stream:
            assert stream.read() == CSV

    def test_read_text(self, files: FileTree) -> None:
        assert files["lines.txt"].read_text() == "eins\r\nzwei\r\ngrüße\n"
        assert static(files["sizes.csv"]).read_text("cp1252") == CSV
        assert files["sizes.csv"].read_text("ascii", "ignore") == CSV.encode("ascii", "ignore").decode()
        with pytest.raises(UnicodeDecodeError):
            files["sizes.csv"].read_text()

    @pytest.mark.parametrize(
        ("mode", "encoding"), [("w", None), ("rb+", None), ("b", None), ("", None), ("rb", "utf-8")]
    )
    def test_what_is_refused(self, files: FileTree, mode: str, encoding: str | None) -> None:
        with pytest.raises(InvalidArgument) as caught:
            files["lines.txt"].open(mode, encoding=encoding)
        assert isinstance(caught.value, OSError) == (mode in ("w", "rb+"))

    def test_a_stream_tells_what_it_is_of(self, files: FileTree) -> None:
        with files["sub/x.tgz"].open() as stream:
            assert (stream.name, stream.mode) == ("sub/x.tgz", "rb")
            assert repr(stream) == "<BufferedStream name='sub/x.tgz'>"


class TestNoPath:
    def test_is_refused_in_words(self, files: FileTree, tmp_path: Path) -> None:
        for entry in (files["x.zip"], files.root / "sub"):
            with pytest.raises(NoLocalPath, match=r"\.open\(\) .*\.extract\(\)"):
                os.fspath(entry)  # type: ignore[call-overload]  # as type checkers say, too
            with pytest.raises(TypeError):  # Python 3.12 and later put it in their own words
                Path(entry)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="lies in an image"):
                shutil.copyfile(entry, tmp_path / "copy")  # type: ignore[arg-type]

    def test_still_opens_as_an_image(self) -> None:
        inner = b"".join(fat_volume({"a": b"data"}, sectors=4000).chunks())
        outer = b"".join(fat_volume({"disk.dd": inner}, sectors=8000).chunks())
        with Image.open(outer) as image, Image.open(image.partitions[1].files["disk.dd"]) as disk:
            assert disk.partitions[1].files["a"].read_bytes() == b"data"
            assert disk.path is None
            assert "File" in repr(disk)


class TestStreams:
    def test_copyfileobj(self, files: FileTree) -> None:
        buffer = io.BytesIO()
        with files["sub/deeper/vmkernel"].open() as stream:
            shutil.copyfileobj(stream, buffer)
        assert buffer.getvalue() == CONTENT["sub/deeper/vmkernel"]

    def test_zipfile(self, files: FileTree) -> None:
        with files["x.zip"].open() as stream, zipfile.ZipFile(stream) as archive:
            assert archive.read("a/b.txt") == b"in a zip"

    @pytest.mark.parametrize("mode", ["r:gz", "r|*"])
    def test_tarfile(self, files: FileTree, mode: str) -> None:
        with (
            files["sub/x.tgz"].open() as stream,
            tarfile.open(fileobj=stream, mode=mode) as archive,  # type: ignore[call-overload]  # one of a table
        ):
            found = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
        assert found == {"etc/passwd": b"root:x:0:0"}

    def test_file_digest(self, files: FileTree) -> None:
        file = files["sub/deeper/vmkernel"]
        with file.open() as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256()

    def test_pandas(self, files: FileTree) -> None:
        with files["sizes.csv"].open() as stream:
            table = pandas.read_csv(stream, sep=";", encoding="cp1252")
        with files["sizes.csv"].open("r", encoding="cp1252") as text:
            again = pandas.read_csv(text, sep=";")
        assert table.to_dict("list") == {"name": ["vmkernel", "binmod"], "größe": [1500001, 2000003]}
        assert again.equals(table)
