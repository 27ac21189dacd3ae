"""The PXE export of a CD whose disk image is damaged, and of a bank with a module that is named as those of ESXi 5."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media import BANK_35, INSTALL_35, INSTALL_40, INSTALL_41, ROCK_RIDGE, Media, module, small_disk
from vmvisor_image import Image, export_pxe
from vmvisor_image.faces.cli import main


@pytest.mark.parametrize(
    ("generation", "modules"),
    [("3.5", INSTALL_35), ("4.0", INSTALL_40), ("4.1", INSTALL_41)],
    ids=["3.5", "4.0", "4.1"],
)
def test_the_installer_is_exported_though_the_image_on_its_cd_is_damaged(
    generation: str, modules: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "healthy"
    work.mkdir()
    media = Media(work, "4.1", small_disk({name: module(name) for name in BANK_35}), ROCK_RIDGE)
    compressed = bytearray(media.read("imagedd.bz2"))
    middle = len(compressed) // 4
    compressed[middle : middle + 4] = bytes(byte ^ 0xFF for byte in compressed[middle : middle + 4])
    broken = tmp_path / "broken.bz2"
    broken.write_bytes(compressed)
    media = Media(tmp_path, generation, broken, ROCK_RIDGE)
    assert main(["pxe", "--install", str(media.iso), str(tmp_path / "tftp")]) == 1
    said = capsys.readouterr()
    assert "files written to" in said.out
    assert "partition table at byte 0x0: it can't be read" in said.err or "bzip2 block at byte 0x4" in said.err
    for name in modules:
        assert (tmp_path / "tftp" / name).read_bytes() == media.read(name)
    if generation == "4.1":
        assert (tmp_path / "tftp/imagedd.bz2").read_bytes() == bytes(compressed)
    assert main(["pxe", str(media.iso), str(tmp_path / "other")]) == 1
    assert "start of the disk is damaged" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("build", ["3.5.0-67921", "4.1.0-260247"])
def test_a_module_with_a_name_of_esxi_5_does_not_make_an_early_bank_one(build: str, tmp_path: Path) -> None:
    text = f"kernel=vmkernel.gz\nkernelopt=\nmodules=binmod.tgz --- k.b00\nbuild={build}\nupdated=1\nbootstate=0\n"
    bank = {"vmkernel.gz": module("vmkernel.gz"), "binmod.tgz": module("binmod.tgz"), "k.b00": module("k.b00")}
    disk = small_disk({**bank, "boot.cfg": text.encode()})
    with Image.open(disk.read_at(0, disk.size)) as image:
        export = export_pxe(image, tmp_path / "tftp")
    assert export.append == "vmkernel.gz --- binmod.tgz --- k.b00"
    assert "-c boot.cfg" not in (tmp_path / "tftp/pxelinux.cfg/default").read_text()


def test_without_an_early_build_such_a_name_does(tmp_path: Path) -> None:
    text = "kernel=k.b00\nmodules=s.v00\nbuild=5.0.0-469512\nupdated=1\nbootstate=0\n"
    disk = small_disk({"k.b00": module("k.b00"), "s.v00": module("s.v00"), "boot.cfg": text.encode()})
    with Image.open(disk.read_at(0, disk.size)) as image:
        assert export_pxe(image, tmp_path / "tftp").append == "-c boot.cfg"
