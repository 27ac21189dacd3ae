"""The job this library was born for, on a disk that only other people's tools had a hand in."""

from __future__ import annotations

import bz2
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import run
from tests.tool_disk import DELETED, SECTOR, ToolDisk
from vmvisor_image import Image, export_pxe
from vmvisor_image.bzip2 import Bzip2Reader

ENTRY = """\
default 3i
label 3i
  kernel mboot.c32
  append vmkernel.gz --- binmod.tgz --- environ.tgz --- cim.tgz --- oem.tgz --- license.tgz
"""

Compressed = Callable[[ToolDisk], Path]
BZIP2: Compressed = lambda disk: disk.bz2  # noqa: E731  # one of a table of three
COMPRESSED: list[Compressed] = [BZIP2, ToolDisk.pbzip2, ToolDisk.lbzip2]
FORMS_COMPRESSED = pytest.mark.parametrize("form", COMPRESSED, ids=["bzip2", "pbzip2", "lbzip2"])
FORMS = pytest.mark.parametrize(
    "form", [*COMPRESSED, lambda disk: disk.image], ids=["bzip2", "pbzip2", "lbzip2", "bare"]
)


def mcopy_root(disk: ToolDisk, label: str, dest: Path) -> dict[str, Path]:
    """The files of a volume's root directory as mcopy writes them, times included."""
    dest.mkdir()
    run("mcopy", "-m", "-n", "-i", disk.mtools_image(label), "::/*", dest)
    return {path.name: path for path in dest.iterdir() if path.is_file()}


def fls_root(disk: ToolDisk, label: str) -> dict[str, tuple[int, datetime]]:
    """Size and time of each file of a volume's root directory as fls lists them, deleted ones left out."""
    volume = disk.volumes[label]
    kind = f"fat{volume.fat_bits}"
    found = {}
    for line in run("fls", "-z", "UTC", "-l", "-o", str(volume.first_lba), "-f", kind, disk.image).splitlines():
        meta, name, modified, _, _, _, size, *_ = line.split("\t")
        if meta.startswith("r/r") and " * " not in meta and not name.endswith("(Volume Label Entry)"):
            found[name] = (int(size), datetime.fromisoformat(modified.removesuffix(" (UTC)")))
    return found


def local_time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime)


@FORMS
def test_exports_what_mcopy_and_fls_say(tool_built_disk: ToolDisk, tmp_path: Path, form: Compressed) -> None:
    with Image.open(form(tool_built_disk)) as image:
        export = export_pxe(image, tmp_path / "tftp")

    expected = mcopy_root(tool_built_disk, "Hypervisor1", tmp_path / "bank")
    expected["mboot.c32"] = mcopy_root(tool_built_disk, "Hypervisor0", tmp_path / "boot")["mboot.c32"]
    listed = fls_root(tool_built_disk, "Hypervisor1")
    listed["mboot.c32"] = fls_root(tool_built_disk, "Hypervisor0")["mboot.c32"]
    exported = {path.name: path for path in (tmp_path / "tftp").iterdir() if path.is_file()}

    assert sorted(exported) == sorted(expected) == sorted(listed)
    assert DELETED not in exported
    for name, path in exported.items():
        assert path.read_bytes() == expected[name].read_bytes(), name
        size, modified = listed[name]
        assert path.stat().st_size == size, name
        mcopied = datetime.fromtimestamp(expected[name].stat().st_mtime, UTC).replace(tzinfo=None)
        assert local_time(path) == modified == mcopied, name
    assert (tmp_path / "tftp/pxelinux.cfg/default").read_text() == ENTRY
    assert sorted(export.files) == sorted(path for path in (tmp_path / "tftp").rglob("*") if path.is_file())
    assert export.missing == ()


def test_what_it_puts_there_is_what_was_put_in(tool_built_disk: ToolDisk, tmp_path: Path) -> None:
    with Image.open(tool_built_disk.bz2) as image:
        export_pxe(image, tmp_path)
    for file in tool_built_disk.volumes["Hypervisor1"].files.values():
        assert (tmp_path / file.path).read_bytes() == file.data
        assert local_time(tmp_path / file.path) == file.modified


def decoded_ends(path: Path, folder: Path) -> list[int]:
    """Where each block of a bzip2 file ends in the decoded data, as bzip2recover and the standard library say."""
    folder.mkdir()
    copy = folder / "disk.bz2"
    copy.symlink_to(path)
    run("bzip2recover", copy)
    return list(itertools.accumulate(len(bz2.decompress(part.read_bytes())) for part in sorted(folder.glob("rec*"))))


@FORMS_COMPRESSED
def test_decodes_nothing_past_the_last_byte_needed(tool_built_disk: ToolDisk, tmp_path: Path, form: Compressed) -> None:
    path = form(tool_built_disk)
    ends = decoded_ends(path, tmp_path / "blocks")
    with Image.open(path) as image:
        export_pxe(image, tmp_path / "tftp")
        bank = image.partitions["Hypervisor1"].files
        files = [image.partitions["Hypervisor0"].files["mboot.c32"], *bank.values()]
        last = max(extent.offset + extent.length for file in files for extent in file.extents)
        reader = image.layers[0].source
        assert isinstance(reader, Bzip2Reader)
        needed = sum(end < last for end in ends) + 1
        assert reader.stats.blocks_known == needed
        assert reader.stats.blocks_decoded + reader.stats.blocks_repeated == needed
        assert needed < reader.count_blocks() == len(ends)


def test_volumes_lie_where_the_tools_put_them(tool_built_disk: ToolDisk) -> None:
    with Image.open(tool_built_disk.bz2) as image:
        for volume in tool_built_disk.volumes.values():
            partition = image.partitions[volume.label]
            assert partition.number == volume.number
            assert partition.start == volume.first_lba * SECTOR
            assert partition.sectors == volume.sectors
            assert partition.kind == f"fat{volume.fat_bits}"
