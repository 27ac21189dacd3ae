"""No command replaces a file that its image is read from, whatever the files in the image are named."""

from __future__ import annotations

import contextlib
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.media import module, small_disk
from tests.support import run
from vmvisor_image import DestinationExists, Image, convert, export_pxe
from vmvisor_image.archives.archive import open_archive
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.sources import FileSource
from vmvisor_image.streams.views import Slice
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk
from vmvisor_image.testing.forge_modules import tar_archive

KERNEL = "vmkernel.gz"
NAMES = ("disk.dd", "disk.vmdk", "disk-flat.vmdk", "disk.dd.bz2", "outer.dd")


def whole_disk(path: Path, files: dict[str, bytes]) -> Path:
    """A disk with one volume of these files, each in the root."""
    volume = fat_volume(files, sectors=6000, label="Hypervisor1")
    mbr_disk([ForgedPartition(1, 6, 64, 6000, content=volume)], sectors=8192).write_to(path)
    return path


@pytest.fixture
def files() -> dict[str, bytes]:
    return dict.fromkeys(NAMES, b"from the image")


def bare(folder: Path, files: dict[str, bytes]) -> Path:
    return whole_disk(folder / "disk.dd", files)


def compressed(folder: Path, files: dict[str, bytes]) -> Path:
    run("bzip2", whole_disk(folder / "disk.dd", files))
    return folder / "disk.dd.bz2"


def flat_extent(folder: Path, files: dict[str, bytes]) -> Path:
    """The extent is a layer's file: the descriptor is what was opened."""
    whole_disk(folder / "disk.dd", files)
    run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", folder / "disk.dd", folder / "disk.vmdk")
    (folder / "disk.dd").unlink()
    return folder / "disk.vmdk"


@pytest.mark.parametrize("make", [bare, compressed, flat_extent])
@pytest.mark.parametrize("way", ["command", "library", "file object", "link"])
def test_extraction(
    make: Callable[[Path, dict[str, bytes]], Path], way: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = make(tmp_path, files)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if way == "file object" and make is flat_extent:
        pytest.skip("a file object has no files beside it")
    if way == "command":
        assert main(["extract", str(source), "1", str(tmp_path), "--force"]) == 2
    elif way == "link":
        (tmp_path / "elsewhere").mkdir()
        for name in before:
            (tmp_path / "elsewhere" / name).symlink_to(tmp_path / name)
        with Image.open(tmp_path / "elsewhere" / source.name) as image, pytest.raises(DestinationExists):
            image.partitions[1].files.extract(tmp_path, overwrite=True)
        shutil.rmtree(tmp_path / "elsewhere")
    else:
        never = pytest.raises(DestinationExists, match="is the image itself, which is never written")
        with source.open("rb") as file, Image.open(source if way == "library" else file) as image, never:
            image.partitions[1].files.extract(tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_in_a_disk(files: dict[str, bytes], tmp_path: Path) -> None:
    """What is extracted lies in a file of an image, which is a file of the system."""
    inner = whole_disk(tmp_path / "inner", files).read_bytes()
    (tmp_path / "inner").unlink()
    volume = fat_volume({"guest.dd": inner}, sectors=20_000, label="A")
    mbr_disk([ForgedPartition(1, 6, 64, 20_000, content=volume)], sectors=24_000).write_to(tmp_path / "outer.dd")
    before = (tmp_path / "outer.dd").read_bytes()
    with Image.open(tmp_path / "outer.dd") as image, image.partitions[1].files["guest.dd"].open_image() as guest:
        assert guest.local_paths == (str(tmp_path / "outer.dd"),)
        with pytest.raises(DestinationExists):
            guest.partitions[1].files.extract(tmp_path, overwrite=True)
        (tmp_path / "link.zst").symlink_to("outer.dd")
        with pytest.raises(DestinationExists):
            convert(guest, tmp_path / "link.zst", overwrite=True)
    assert (tmp_path / "outer.dd").read_bytes() == before


def test_archives(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "disk.dd").write_bytes(tar_archive(files))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("inner.tar", tar_archive(files))
    (tmp_path / "outer.dd").write_bytes(packed.getvalue())
    for name in ("disk.dd", "outer.dd"):
        before = (tmp_path / name).read_bytes()
        with open_archive(tmp_path / name) as archive, pytest.raises(DestinationExists):
            (archive if name == "disk.dd" else archive["inner.tar"].open_archive()).extract(tmp_path, overwrite=True)
        assert (tmp_path / name).read_bytes() == before


def test_an_export(tmp_path: Path) -> None:
    bank = {name: module(name) for name in ("vmkernel.gz", "oem.tgz")}
    small_disk(bank).write_to(tmp_path / KERNEL)
    before = (tmp_path / KERNEL).read_bytes()
    with pytest.raises(DestinationExists):
        export_pxe(tmp_path / KERNEL, tmp_path, overwrite=True)
    assert main(["pxe", str(tmp_path / KERNEL), str(tmp_path), "--force"]) == 2
    assert (tmp_path / KERNEL).read_bytes() == before


def test_what_else_a_source_is_made_of(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = str(whole_disk(tmp_path / "disk.dd", files))
    with contextlib.closing(FileSource(path)) as source:
        assert Slice(source, 512, 512).local_paths == (path,)
    run("bzip2", path)
    with contextlib.closing(Bzip2Reader(f"{path}.bz2")) as reader, Image.open(reader) as image:
        assert image.local_paths == (f"{path}.bz2",)
    with Image.open(b"bytes") as image:
        assert image.local_paths == ()


def test_other_files_are_replaced(tmp_path: Path, files: dict[str, bytes]) -> None:
    whole_disk(tmp_path / "image.dd", files)
    (tmp_path / "disk.dd").write_bytes(b"another")
    assert main(["extract", str(tmp_path / "image.dd"), "1", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "disk.dd").read_bytes() == b"from the image"
