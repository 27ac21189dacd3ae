"""Entries of PXELINUX: their labels, several in one configuration, and options that mean nothing over the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media import BANK_6, BANK_35, BANK_41, BOOT_CFG_6, ROCK_RIDGE, Media, iso, module, small_disk
from vmvisor_image import DestinationExists, Image, export_pxe
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.boot_cfg import BootConfig
from vmvisor_image.schemas.syslinux_cfg import SyslinuxConfig, add_entry
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_gpt import esx5_disk
from vmvisor_image.testing.forge_modules import kernel_elf

BANK = {name: module(name) for name in BANK_35}


def disk_of_4(build: str = "4.1.0-260247") -> SparseImage:
    config = f"kernel={BANK_41[0]}\nmodules={' --- '.join(BANK_41[1:])}\nbuild={build}\n".encode()
    return small_disk({**{name: module(name) for name in BANK_41}, "boot.cfg": config})


def disk_of_6(config: str = BOOT_CFG_6, kernel: bytes = b"") -> SparseImage:
    bank = {name: module(name) for name in BANK_6} | {"b.b00": kernel or module("b.b00")}
    text = config.replace("updated=0", "updated=1").encode()
    return esx5_disk(boot={"mboot.c32": b"bios"}, bank={**bank, "boot.cfg": text})


def entries(root: Path) -> list[str]:
    return [entry.label for entry in SyslinuxConfig.parse((root / "pxelinux.cfg/default").read_bytes()).entries]


WITHOUT_BUILD = "".join(line for line in BOOT_CFG_6.splitlines(keepends=True) if not line.startswith("build"))


@pytest.mark.parametrize(
    ("disk", "label"),
    [
        (small_disk(BANK), "3i"),
        (small_disk({**BANK, "boot.cfg": b"kernel=vmkernel.gz\nmodules=oem.tgz\nbuild=3.5.0-67921\n"}), "3i"),
        (small_disk({**BANK, "boot.cfg": b"kernel=vmkernel.gz\nmodules=oem.tgz\n"}), "3i"),
        (disk_of_4(), "esxi-4.1.0"),
        (disk_of_4("8.0.0-1.0.20513097"), "esxi-8.0.0"),
        (disk_of_6(), "esxi-6.5.0"),
        (disk_of_6(WITHOUT_BUILD, kernel_elf(identity=("VMware ESXi", "6.7.0", "8169922"))), "esxi-6.7.0"),
        (disk_of_6(WITHOUT_BUILD, kernel_elf()), "esxi-9.9.9"),
    ],
    ids=["recipe", "3.5", "3.5 without a build", "4.1", "8.0", "6.5", "by a kernel", "by the second program"],
)
def test_the_label_is_product_and_version(disk: SparseImage, label: str, tmp_path: Path) -> None:
    with Image.open(disk) as image:
        export = export_pxe(image, tmp_path)
    assert (export.label, export.default) == (label, label)
    text = (tmp_path / "pxelinux.cfg/default").read_text()
    assert text.startswith(f"default {label}\nlabel {label}\n  kernel mboot.c32\n")


def test_a_label_where_nothing_says_a_version(tmp_path: Path) -> None:
    bank = {"b.b00": b"?", "boot.cfg": b"kernel=b.b00\nmodules=\nupdated=1\n"}
    with Image.open(esx5_disk(boot={"mboot.c32": b"bios"}, bank=bank)) as image:
        assert export_pxe(image, tmp_path).label == "esxi"


def test_a_second_export_adds_an_entry(tmp_path: Path) -> None:
    with Image.open(small_disk(BANK)) as first, Image.open(disk_of_4()) as second, Image.open(disk_of_6()) as third:
        export_pxe(first, tmp_path, prefix="3i")
        before = (tmp_path / "pxelinux.cfg/default").read_text()
        exports = [export_pxe(second, tmp_path, prefix="4"), export_pxe(third, tmp_path, prefix="6")]
    text = (tmp_path / "pxelinux.cfg/default").read_text()
    assert text.startswith(before)
    assert entries(tmp_path) == ["3i", "esxi-4.1.0", "esxi-6.5.0"]
    assert [export.default for export in exports] == ["3i", "3i"]
    assert text.count("default ") == 1
    assert text.endswith("label esxi-6.5.0\n  kernel 6/mboot.c32\n  append -c 6/boot.cfg\n  ipappend 2\n")
    assert (tmp_path / "3i/vmkernel.gz").read_bytes() == BANK["vmkernel.gz"]


@pytest.mark.parametrize("label", ["3i", "3I"])
def test_an_entry_is_replaced_only_when_asked(label: str, tmp_path: Path) -> None:
    with Image.open(small_disk(BANK)) as image, Image.open(disk_of_4()) as other:
        export_pxe(image, tmp_path, prefix="a")
        export_pxe(other, tmp_path, prefix="b")
        before = (tmp_path / "pxelinux.cfg/default").read_bytes()
        with pytest.raises(DestinationExists, match="an entry"):
            export_pxe(image, tmp_path, prefix="c", label=label)
        assert not (tmp_path / "c").exists()
        assert (tmp_path / "pxelinux.cfg/default").read_bytes() == before
        export_pxe(image, tmp_path, prefix="c", label=label, overwrite=True)
    assert entries(tmp_path) == [label, "esxi-4.1.0"]
    text = (tmp_path / "pxelinux.cfg/default").read_text()
    assert "kernel c/mboot.c32" in text
    assert "a/" not in text
    assert text.startswith("default 3i\n")


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    mine = b"# by hand\r\nUI menu.c32\r\nTIMEOUT 50\r\n\r\nLABEL local\r\n  LOCALBOOT 0"
    (tmp_path / "pxelinux.cfg").mkdir()
    (tmp_path / "pxelinux.cfg/default").write_bytes(mine)
    with Image.open(small_disk(BANK)) as image:
        export = export_pxe(image, tmp_path)
    assert (tmp_path / "pxelinux.cfg/default").read_bytes().startswith(mine + b"\nlabel 3i\n")
    assert (export.default, export.label) == (None, "3i")


def test_a_configuration_that_is_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "tftp/pxelinux.cfg").mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"default a\nlabel a\n  localboot 0\n")
    (tmp_path / "tftp/pxelinux.cfg/default").symlink_to(tmp_path / "mine")
    with Image.open(small_disk(BANK)) as image, pytest.raises(DestinationExists):
        export_pxe(image, tmp_path / "tftp")
    assert (tmp_path / "tftp/pxelinux.cfg/default").is_symlink()
    assert not (tmp_path / "tftp/vmkernel.gz").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"default b\nlabel b\n  kernel x\n"),
        (
            b"# mine\nDEFAULT gone\n\ntimeout 50",
            b"default b\n# mine\n\ntimeout 50\nlabel b\n  kernel x\n",
        ),
        (b"label a\n kernel y\n", b"label a\n kernel y\nlabel b\n  kernel x\n"),
        (b"label a\n kernel y", b"label a\n kernel y\nlabel b\n  kernel x\n"),
        (b"label b\nkernel y\nappend z\ntimeout 9\n", b"label b\n  kernel x\ntimeout 9\n"),
        (b"LABEL B\n\tkernel y\n\n\nlabel a\n", b"label b\n  kernel x\nlabel a\n"),
        (b"label b\nlabel a\nlabel b\n kernel y\n", b"label b\n  kernel x\nlabel a\n"),
        (b"label a\n menu label \xff\n", b"label a\n menu label \xff\nlabel b\n  kernel x\n"),
    ],
)
def test_adding_an_entry(before: bytes, after: bytes) -> None:
    assert add_entry(before, "b", ["kernel x"]) == after
    assert add_entry(after, "b", ["kernel x"]) == after


@pytest.mark.parametrize(
    ("options", "left", "left_out"),
    [
        ("runweasel cdromBoot", "runweasel", ("cdromBoot",)),
        ("cdromBoot runweasel", "runweasel", ("cdromBoot",)),
        ("cdromBoot", "", ("cdromBoot",)),
        ("runweasel  CDROMBOOT  debug", "runweasel  debug", ("CDROMBOOT",)),
        ("runweasel cdromBootx ks=cdromBoot", "runweasel cdromBootx ks=cdromBoot", ()),
    ],
)
def test_an_installer_is_not_told_that_it_was_started_from_a_cd(
    options: str, left: str, left_out: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media = Media(tmp_path, "6.5", None, ROCK_RIDGE)
    text = media.read("boot.cfg").decode().replace("runweasel cdromBoot", options)
    (media.folder / "boot.cfg").write_text(text)
    cd = iso(media.folder, tmp_path / "a.iso")
    with Image.open(cd) as image:
        export = export_pxe(image, tmp_path / "tftp", kernel_options=["ks=http://s/ks.cfg"])
    assert export.left_out == left_out
    expected = f"{left} ks=http://s/ks.cfg".strip()
    assert export.modules[0] == f"b.b00 {expected}"
    assert BootConfig.parse((tmp_path / "tftp/boot.cfg").read_bytes()).values["kernelopt"] == expected
    assert main(["pxe", str(cd), str(tmp_path / "again"), "--install"]) == 0
    said = capsys.readouterr().out
    assert BootConfig.parse((tmp_path / "again/boot.cfg").read_bytes()).values["kernelopt"] == left
    assert [f"left out of the kernel's options: {name}" in said for name in left_out] == [True] * len(left_out)
    assert ("left out" in said) == bool(left_out)


def test_what_the_command_says_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = {"a": small_disk(BANK), "b": disk_of_4()}
    for name, disk in sources.items():
        (tmp_path / name).write_bytes(disk.read_at(0, disk.size))
    said = []
    for name in sources:
        assert main(["pxe", str(tmp_path / name), str(tmp_path / "tftp"), "--prefix", name]) == 0
        said.append(capsys.readouterr().out.splitlines()[0])
    assert said[0].endswith("label 3i boots")
    assert said[1].endswith("label esxi-4.1.0 was added, 3i boots when nobody chooses")
    assert main(["pxe", str(tmp_path / "a"), str(tmp_path / "tftp"), "--prefix", "c"]) == 2
    assert "an entry '3i' already" in capsys.readouterr().err
