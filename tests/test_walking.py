"""`Directory.walk`, `glob` and `extract`, of whole trees and of parts, beside what `pathlib` and `os.walk` do."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Counting, Unreadable
from vmvisor_image import (
    Directory,
    File,
    FileTree,
    Image,
    InvalidArgument,
    LimitExceeded,
    Limits,
    NotAFileSystem,
    PartialExtraction,
    PartitionNotFound,
    PathNotFound,
    UnsafeName,
    open_archive,
)
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

FILES = {
    "boot.cfg": b"kernel=vmkernel.gz\n",
    "a.tgz": b"a" * 700,
    "b.tgz": b"b",
    "packages/index.xml": b"<x/>",
    "packages/3.5.0/tools.iso": b"tools" * 300,
    "packages/3.5.0/deep/linux.iso": b"linux" * 300,
    "packages/4.0/tools.iso": b"tools 4",
    "other/tools.txt": b"",
}
PATTERNS = ["*", "*.tgz", "*/*", "packages/*.xml", "packages/*/*.iso", "**/*.iso", "packages/**/*.iso"]
PATTERNS += ["**/3*/**/*.iso", "[ab].tgz", "packages/?.?/tools.iso", "packages/3.5.0/tools.iso", "none", "**/none"]
PATTERNS += ["./packages//index.xml"]


def fat() -> FileTree:
    return Image.open(fat_volume(FILES, sectors=2000)).partitions[1].files


def zipped() -> FileTree:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for path, data in FILES.items():
            archive.writestr(path, data)
    return open_archive(whole.getvalue())


@pytest.fixture(params=[fat, zipped])
def files(request: pytest.FixtureRequest) -> FileTree:
    make: Callable[[], FileTree] = request.param
    return make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same files in a folder, written by `pathlib`."""
    for path, data in FILES.items():
        target = tmp_path / "folder" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return tmp_path / "folder"


def directory(files: FileTree, path: str) -> Directory:
    found = files.root / path
    assert isinstance(found, Directory)
    return found


def in_folder(folder: Path, pattern: str = "**/*") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())


class TestGlob:
    @pytest.mark.parametrize("pattern", PATTERNS)
    @pytest.mark.parametrize("below", ["", "packages", "packages/3.5.0"])
    def test_as_pathlib(self, files: FileTree, folder: Path, below: str, pattern: str) -> None:
        start = directory(files, below)
        found = [file.path for file in start.glob(pattern)]
        prefix = f"{below}/" if below else ""
        assert sorted(found) == [prefix + path for path in in_folder(folder / below, pattern)]
        assert below or found == [file.path for file in files.glob(pattern)]

    def test_two_stars_at_the_end_are_all_files_below(self, files: FileTree, folder: Path) -> None:
        assert sorted(file.path for file in files.glob("packages/**")) == [
            f"packages/{path}" for path in in_folder(folder / "packages")
        ]
        assert len(list(files.glob("**"))) == len(FILES)

    def test_empty(self, files: FileTree) -> None:
        for pattern in ("", "/", "./."):
            with pytest.raises(InvalidArgument, match="empty pattern"):
                files.root.glob(pattern)

    def test_reads_only_directories_that_can_match(self) -> None:
        volume = fat_volume(FILES, sectors=2000)
        source = Counting(volume)
        files = Image.open(source).partitions[1].files
        list(files.glob("other/*"))
        read = list(source.reads)
        assert list(files.glob("packages/*.xml"))
        cluster = (files["packages/3.5.0/tools.iso"].extents[0].offset) // 512 * 512
        assert not any(offset <= cluster < offset + length for offset, length in source.reads[len(read) :])


class TestWalk:
    def test_as_os_walk(self, files: FileTree, folder: Path) -> None:
        ours = [
            (here.path, sorted(entry.name for entry in directories), sorted(file.name for file in below))
            for here, directories, below in files.root.walk()
        ]
        theirs = [
            (Path(here).relative_to(folder).as_posix().removeprefix("."), sorted(directories), sorted(below))
            for here, directories, below in os.walk(folder)
        ]
        assert sorted(ours) == sorted(theirs)
        seen: set[str] = set()
        for path, _, _ in ours:  # top-down
            assert not path or path.rpartition("/")[0] in seen
            seen.add(path)

    def test_what_is_removed_is_not_walked(self, files: FileTree) -> None:
        found = []
        for here, directories, _ in directory(files, "packages").walk():
            found.append(here.path)
            directories[:] = [entry for entry in directories if entry.name != "3.5.0"]
        assert found == ["packages", "packages/4.0"]

    def test_entries_can_be_used(self, files: FileTree) -> None:
        for here, directories, below in files.root.walk():
            entries: list[Directory | File] = [*directories, *below]
            for entry in entries:
                assert here / entry.name is entry
            for file in below:
                assert isinstance(file, File)
                assert file.read_bytes() == FILES[file.path]


class TestLimits:
    @pytest.mark.parametrize("walk", [lambda root: root.walk(), lambda root: root.glob("**/none")])
    def test_of_the_image(self, walk: Callable[[Directory], object]) -> None:
        for limits, name in ((Limits(entries=12), "entries"), (Limits(depth=2), "depth")):
            image = Image.open(fat_volume(FILES, sectors=2000), limits=limits)
            with pytest.raises(LimitExceeded) as caught:
                list(walk(image.partitions[1].files.root))  # type: ignore[call-overload]
            assert caught.value.limit == name
        image = Image.open(fat_volume(FILES, sectors=2000), limits=Limits(entries=13, depth=3))
        list(walk(image.partitions[1].files.root))  # type: ignore[call-overload]

    def test_of_a_directory(self) -> None:
        """The limits of the image hold for what is below, too."""
        image = Image.open(fat_volume(FILES, sectors=2000), limits=Limits(entries=4, extracted_bytes=10))
        packages = directory(image.partitions[1].files, "packages")
        with pytest.raises(LimitExceeded, match="more than 4 files"):
            list(packages.walk())
        with pytest.raises(LimitExceeded, match="more than 10"):
            directory(image.partitions[1].files, "packages/3.5.0").extract("never-made")
        assert not Path("never-made").exists()


class TestExtract:
    def test_patterns(self, files: FileTree, folder: Path, tmp_path: Path) -> None:
        patterns = ("*.tgz", "packages/*/*.iso", "a.*")
        written = files.extract(tmp_path / "out", *patterns)
        expected = {path for pattern in patterns for path in in_folder(folder, pattern)}
        assert in_folder(tmp_path / "out") == sorted(expected)
        assert sorted(written) == sorted(tmp_path / "out" / path for path in expected)
        for path in expected:
            assert (tmp_path / "out" / path).read_bytes() == FILES[path]

    def test_a_directory(self, files: FileTree, folder: Path, tmp_path: Path) -> None:
        """Paths are those from the directory, as `cp -r packages/. out` has them."""
        directory(files, "packages").extract(tmp_path / "out")
        assert in_folder(tmp_path / "out") == in_folder(folder / "packages")
        directory(files, "packages").extract(tmp_path / "some", "**/tools.iso")
        assert in_folder(tmp_path / "some") == in_folder(folder / "packages", "**/tools.iso")
        for path in in_folder(tmp_path / "out"):
            assert (tmp_path / "out" / path).read_bytes() == FILES[f"packages/{path}"]

    def test_what_matches_nothing(self, files: FileTree, tmp_path: Path) -> None:
        with pytest.raises(PathNotFound, match=r"no file matches '\*\.zip'; nothing was written"):
            files.extract(tmp_path / "out", "*.tgz", "*.zip")
        with pytest.raises(PathNotFound, match=r"'packages', which is a directory: 'packages/\*\*' matches"):
            files.extract(tmp_path / "out", "packages")
        with pytest.raises(InvalidArgument, match="empty pattern"):
            files.extract(tmp_path / "out", "*.tgz", "")
        for given in (["*.tgz"], True):
            with pytest.raises(InvalidArgument, match="a pattern is a string, not"):
                files.extract(tmp_path / "out", given)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

    def test_overwrite_and_resume(self, files: FileTree, tmp_path: Path) -> None:
        files.extract(tmp_path, "*.tgz")
        (tmp_path / "a.tgz").write_bytes(b"changed")
        files.extract(tmp_path, "*.tgz", overwrite=True, resume=True)
        assert (tmp_path / "a.tgz").read_bytes() == FILES["a.tgz"]

    def test_damage_is_of_the_part(self, tmp_path: Path) -> None:
        """A damaged file is an error only of what it is in."""
        volume = fat_volume(FILES, sectors=2000)
        files = Image.open(volume).partitions[1].files
        [extent] = files["packages/4.0/tools.iso"].extents
        damaged = Image.open(Unreadable(volume, extent.offset, extent.offset + 1)).partitions[1].files
        directory(damaged, "packages/3.5.0").extract(tmp_path / "whole")
        with pytest.raises(PartialExtraction) as caught:
            directory(damaged, "packages").extract(tmp_path / "part")
        assert [path for path, _ in caught.value.failed] == ["4.0/tools.iso"]
        assert in_folder(tmp_path / "part") == ["3.5.0/deep/linux.iso", "3.5.0/tools.iso", "index.xml"]

    def test_unsafe_names_are_those_of_the_part(self, tmp_path: Path) -> None:
        """An archive refuses what a pattern or directory takes of it, and nothing for a name elsewhere."""
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr("good/a", b"a")
            archive.writestr("bad/nul", b"b")
        files = open_archive(whole.getvalue())
        files.extract(tmp_path / "good", "good/*")
        assert in_folder(tmp_path / "good") == ["good/a"]
        with pytest.raises(UnsafeName):
            directory(files, "bad").extract(tmp_path / "bad")
        with pytest.raises(UnsafeName):
            files.extract(tmp_path / "bad", "**")


class TestImageGlob:
    @pytest.fixture
    def image(self) -> Image:
        partitions = [
            ForgedPartition(1, 6, 1, 2000, content=fat_volume(FILES, sectors=2000, label="Hypervisor1")),
            ForgedPartition(2, 5, 2100, 6000),
            ForgedPartition(5, 6, 2132, 2000, content=fat_volume(FILES, sectors=2000, label="Hypervisor2")),
            ForgedPartition(6, 0xFC, 5000, 10),
        ]
        return Image.open(mbr_disk(partitions, sectors=9000))

    @pytest.mark.parametrize("name", ["Hypervisor2", "5", "HYPERVISOR2"])
    def test_of_a_partition(self, image: Image, name: str) -> None:
        for pattern in PATTERNS:
            assert list(image.glob(f"{name}/{pattern}")) == list(image.partitions[5].files.glob(pattern))

    def test_of_several(self, image: Image) -> None:
        def found(pattern: str) -> list[tuple[object, str]]:
            return [(file.home, file.path) for file in image.glob(pattern)]

        one, five = image.partitions[1], image.partitions[5]
        assert found("*/boot.cfg") == [(one, "boot.cfg"), (five, "boot.cfg")]
        assert found("hyper*2/*.tgz") == [(five, "a.tgz"), (five, "b.tgz")]
        assert found("[2-5]/boot.cfg") == [(five, "boot.cfg")]
        assert len(found("**/*.iso")) == 6
        assert len(found("**")) == 2 * len(FILES)
        assert found("none*/*") == []

    def test_errors(self, image: Image) -> None:
        with pytest.raises(PartitionNotFound):
            image.glob("Hypervisor3/*")
        with pytest.raises(NotAFileSystem):
            image.glob("6/*")
        for pattern in ("Hypervisor1", "Hypervisor1/", "*"):
            with pytest.raises(InvalidArgument, match="matches all their files"):
                image.glob(pattern)
        with pytest.raises(PartitionNotFound):
            image.glob("")

    def test_resolve(self, image: Image) -> None:
        assert image.resolve("5/boot.cfg") is image.partitions[5].files["boot.cfg"]
        assert image.resolve("Hypervisor1") is image.partitions[1]
