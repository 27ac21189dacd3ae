"""Exports of ESXi 4 to 8 from disks and CDs, with prefix, options, scripts for iPXE, and overlays."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from tests.media import (
    BANK_6,
    BANK_35,
    BOOT_CFG_6,
    INSTALL_35,
    INSTALL_40,
    INSTALL_41,
    JOLIET,
    PLAIN,
    ROCK_RIDGE,
    Media,
    iso,
    module,
    small_disk,
    tgz,
    write_tree,
)
from tests.support import run, run_to_file
from vmvisor_image import Image, InvalidArgument, PathNotFound, UnsafeName, export_pxe, open_archive
from vmvisor_image.boot.overlay import build_module
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.boot_cfg import BootConfig
from vmvisor_image.schemas.syslinux_cfg import SyslinuxConfig
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_gpt import esx5_disk, esx7_disk
from vmvisor_image.testing.forge_modules import tar_archive, vmtar_archive

BANK = {name: module(name) for name in BANK_6}
UEFI_ONLY = {"EFI/VMware/mboot64.efi": b"MZ uefi", "EFI/VMware/crypto64.efi": b"MZ crypto"}
EFI = {**UEFI_ONLY, "mboot.c32": b"bios"}


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("generation", "modules"),
    [("3.5", INSTALL_35), ("4.0", INSTALL_40), ("4.1", INSTALL_41)],
    ids=["3.5", "4.0", "4.1"],
)
@pytest.mark.parametrize("names", [ROCK_RIDGE, JOLIET, PLAIN], ids=["Rock Ridge", "Joliet", "plain"])
@pytest.mark.parametrize("has_config", [True, False])
def test_installers(
    generation: str, modules: tuple[str, ...], names: tuple[str, ...], has_config: bool, tmp_path: Path
) -> None:
    media = Media(tmp_path, generation, small_disk({name: module(name) for name in BANK_35}), names)
    if not has_config:
        (media.folder / "isolinux.cfg").unlink()
        run("xorriso", "-as", "mkisofs", "-quiet", *names, "-o", media.iso, media.folder)
    with Image.open(media.iso) as image:
        export = export_pxe(image, tmp_path / "tftp", mode="install")
    assert export.mode == "install"
    assert export.append.casefold() == " --- ".join(modules)
    found = {name.casefold(): data for name, data in written(tmp_path / "tftp").items()}
    with_image = {"imagedd.bz2", "imagedd.md5"} if generation == "4.1" else set()
    assert set(found) == {*modules, "mboot.c32", "pxelinux.cfg/default", *with_image}
    for name in found.keys() - {"pxelinux.cfg/default"}:
        assert found[name] == media.read(name), name


@pytest.mark.parametrize(("generation", "archive"), [("3.5", "install.tgz"), ("4.0", "image.tgz"), ("4.1", "")])
def test_the_export_is_what_other_tools_take_out(generation: str, archive: str, tmp_path: Path) -> None:
    """By hand: out of the CD by xorriso, the archive by tar, the compression by bzip2, the volumes by mtools."""
    disk = small_disk({name: module(name) for name in BANK_35})
    media = Media(tmp_path, generation, disk, ROCK_RIDGE)
    run("xorriso", "-indev", media.iso, "-osirrox", "on", "-extract", "/", tmp_path / "cd_theirs")
    compressed = tmp_path / "cd_theirs" / "imagedd.bz2"
    if archive:
        run("tar", "-xzf", tmp_path / "cd_theirs" / archive, "-C", tmp_path / "cd_theirs")
        compressed = tmp_path / "cd_theirs" / media.disk_name
    run_to_file(tmp_path / "disk", "bzip2", "-dc", compressed)
    theirs = tmp_path / "bank_theirs"
    theirs.mkdir()
    for sector, name in ((32, "mboot.c32"), (8192, "*")):
        run("mcopy", "-i", f"{tmp_path / 'disk'}@@{sector * 512}", f"::{name}", theirs)
    with Image.open(media.iso) as image:
        export_pxe(image, tmp_path / "run")
        export_pxe(image, tmp_path / "install", mode="install")
    ours = written(tmp_path / "run")
    del ours["pxelinux.cfg/default"]
    assert ours == written(theirs)
    installer = written(tmp_path / "install")
    del installer["pxelinux.cfg/default"]
    assert installer.items() <= written(tmp_path / "cd_theirs").items()


@pytest.mark.parametrize("way", [("--protective-msdos-label",), ("-partition_offset", "16")])
def test_a_cd_that_boots_from_a_stick(way: tuple[str, ...], tmp_path: Path) -> None:
    disk = small_disk({name: module(name) for name in BANK_35})
    for generation, kernel in (("4.1", "vmkernel.gz"), ("6.5", "b.b00")):
        media = Media(tmp_path / generation, generation, disk, ROCK_RIDGE)
        with Image.open(iso(media.folder, tmp_path / f"{generation}.ISO", (*ROCK_RIDGE, *way))) as image:
            assert image.read_at(510, 2) == b"\x55\xaa"
            assert image.system().modules[0].name.lstrip("/") == kernel
            export_pxe(image, tmp_path / "run" / generation)
            export_pxe(image, tmp_path / "install" / generation, mode="install")
        assert (tmp_path / "install" / generation / "mboot.c32").read_bytes() == media.read("mboot.c32")
    assert (tmp_path / "run/4.1/oem.tgz").read_bytes() == module("oem.tgz")


def test_a_cd_whose_boot_cfg_has_a_prefix(tmp_path: Path) -> None:
    media = Media(tmp_path, "6.5", None, ROCK_RIDGE)
    (media.folder / "esx").mkdir()
    for name in BANK_6:
        (media.folder / name).rename(media.folder / "esx" / name)
    text = media.read("boot.cfg").decode().replace("prefix=", "prefix=/esx").replace("=/b", "=b").replace(" /", " ")
    (media.folder / "boot.cfg").write_text(text.replace("modules=/", "modules="))
    with Image.open(iso(media.folder, tmp_path / "a.iso")) as image:
        assert [module.size for module in image.system().modules] == [len(BANK[name]) for name in BANK_6]
        export = export_pxe(image, tmp_path / "tftp", overlay={"tools.t00": media.folder / "efi"}, keep_overlaid=True)
    assert export.missing == ()
    found = written(tmp_path / "tftp")
    for name in set(BANK_6) - {"tools.t00"}:
        assert found[name] == BANK[name]
    tools = open_archive(BytesSource(found["tools.t00"]))
    assert sorted(tools) == ["boot/bootx64.efi", "etc/shared.conf", "etc/vmware/tools.t00.txt"]
    assert b"\nprefix=\n" in found["boot.cfg"]


def test_files_are_spelled_as_they_are_asked_for(tmp_path: Path) -> None:
    """By the loader, or by the installer of 4.1; on a CD with names of ISO 9660 alone they are in upper case."""
    (tmp_path / "own").mkdir()
    with Image.open(Media(tmp_path / "6", "6.5", None, PLAIN).iso) as image:
        export_pxe(image, tmp_path / "run", overlay={"TOOLS.T00": tmp_path / "own"})
    assert {*BANK_6} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert not (tmp_path / "run/TOOLS.T00").exists()
    disk = small_disk({name: module(name) for name in BANK_35})
    with Image.open(Media(tmp_path / "4", "4.1", disk, PLAIN).iso) as image:
        export_pxe(image, tmp_path / "install", mode="install")
    assert {"imagedd.bz2", "imagedd.md5"} <= {path.name for path in (tmp_path / "install").iterdir()}


@pytest.mark.parametrize("prefix", ["", "esx/6.5"])
@pytest.mark.parametrize("names", [ROCK_RIDGE, PLAIN], ids=["Rock Ridge", "plain"])
def test_the_cd_of_esxi_6(prefix: str, names: tuple[str, ...], tmp_path: Path) -> None:
    media = Media(tmp_path, "6.5", None, names)
    with Image.open(media.iso) as image:
        export = export_pxe(image, tmp_path / "tftp", prefix=prefix, kernel_options=["ks=http://s/ks.cfg"], label="e6")
    at = f"{prefix}/" if prefix else ""
    found = written(tmp_path / "tftp")
    assert set(found) == {
        *(f"{at}{name}" for name in (*BANK_6, "boot.cfg", "mboot.c32", "mboot.efi")),
        "pxelinux.cfg/default",
    }  # spelled as boot.cfg has them, though the CD may have them in capitals
    for name in (*BANK_6, "mboot.c32"):
        assert found[at + name] == media.read(name)
    assert found[f"{at}mboot.efi"] == media.read("efi/boot/bootx64.efi")
    config = BootConfig.parse(found[f"{at}boot.cfg"])
    assert config.values["prefix"] == prefix
    assert str(config.kernel) == "b.b00 runweasel ks=http://s/ks.cfg"
    assert [module.name for module in config.modules] == list(BANK_6[1:])
    assert (config.title, config.build) == ("Loading VMware ESXi", "6.5.0-4564106")
    assert found["pxelinux.cfg/default"].decode() == (
        f"default e6\nlabel e6\n  kernel {at}mboot.c32\n  append -c {at}boot.cfg\n  ipappend 2\n"
    )
    assert (export.mode, export.missing) == ("install", ())
    unchanged = [line for line in BOOT_CFG_6.splitlines() if not line.startswith(("prefix", "kernel", "modules"))]
    assert [line for line in found[f"{at}boot.cfg"].decode().splitlines() if line in unchanged] == unchanged


@pytest.mark.parametrize("make", [esx5_disk, esx7_disk], ids=["5", "7"])
def test_a_disk_with_a_gpt(make: object, tmp_path: Path) -> None:
    config = BOOT_CFG_6.replace("updated=0", "updated=1").encode()
    disk = make(boot=EFI, bank={**BANK, "boot.cfg": config, "other.txt": b"x"})  # type: ignore[operator]
    with Image.open(disk) as image:
        export = export_pxe(image, tmp_path / "tftp")
    found = written(tmp_path / "tftp")
    assert set(found) == {*BANK_6, "boot.cfg", "mboot.c32", "mboot.efi", "crypto64.efi", "pxelinux.cfg/default"}
    assert found["crypto64.efi"] == b"MZ crypto"
    assert {name: found[name] for name in BANK} == BANK
    assert export.mode == "run"
    assert export.modules[0] == "b.b00 runweasel cdromBoot"


def test_a_disk_without_a_loader_for_bios(tmp_path: Path) -> None:
    config = BOOT_CFG_6.replace("updated=0", "updated=1").encode()
    with Image.open(esx7_disk(boot=UEFI_ONLY, bank={**BANK, "boot.cfg": config})) as image:
        export = export_pxe(image, tmp_path / "tftp", ipxe=True)
    assert export.kernel == "mboot.efi"
    assert (tmp_path / "tftp/mboot.efi").read_bytes() == b"MZ uefi"
    assert (tmp_path / "tftp/boot.ipxe").read_text() == "#!ipxe\nkernel mboot.efi -c boot.cfg\nboot\n"
    assert not (tmp_path / "tftp/pxelinux.cfg").exists()  # it would name a loader that is not there
    bare = esx7_disk(boot={"x": b""}, bank={**BANK, "boot.cfg": config})
    with Image.open(bare) as image, pytest.raises(PathNotFound, match="mboot"):
        export_pxe(image, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_ipxe(tmp_path: Path) -> None:
    with Image.open(small_disk({name: module(name) for name in BANK_35})) as image:
        export_pxe(image, tmp_path, ipxe=True, prefix="a")
    modules = " --- ".join(f"a/{name}" for name in BANK_35)
    assert (tmp_path / "boot.ipxe").read_text() == f"#!ipxe\nkernel a/mboot.c32 {modules}\nboot\n"


def test_names_that_lead_elsewhere(tmp_path: Path) -> None:
    config = BOOT_CFG_6.replace("/s.v00", "../../etc/passwd").encode()
    disk = esx7_disk(boot=EFI, bank={**BANK, "boot.cfg": config.replace(b"updated=0", b"updated=1")})
    with Image.open(disk) as image:
        export = export_pxe(image, tmp_path / "tftp")
    assert export.missing == ("../../etc/passwd",)
    assert b".." not in (tmp_path / "tftp/boot.cfg").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        {"prefix": "/a"},
        {"prefix": "a/"},
        {"prefix": "a/../b"},
        {"prefix": "a b"},
        {"kernel_options": ["a --- b"]},
        {"kernel_options": ["a\nb"]},
        {"mode": "install"},
        {"overlay": {"../x.tgz": "."}},
        {"overlay": {"oem.tgz": "/nowhere"}},
        {"overlay": {"oem.exe": "."}},
    ],
)
def test_misuse(arguments: dict[str, object], tmp_path: Path) -> None:
    with Image.open(small_disk({name: module(name) for name in BANK_35})) as image, pytest.raises(InvalidArgument):
        export_pxe(image, tmp_path / "tftp", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "tftp").exists()


def test_a_cd_of_esxi_5_and_later_does_not_run(tmp_path: Path) -> None:
    media = Media(tmp_path, "6.5", None, ROCK_RIDGE)
    with Image.open(media.iso) as image, pytest.raises(InvalidArgument, match="only its installer"):
        export_pxe(image, tmp_path / "tftp", mode="run")


class TestOverlay:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "own"
        (folder / "etc/vmware").mkdir(parents=True)
        (folder / "etc/vmware/oem.tgz.txt").write_bytes(b"mine")
        (folder / "usr").mkdir()
        (folder / "usr/driver.o").write_bytes(os.urandom(3000))
        (folder / "usr/link").symlink_to("driver.o")
        (folder / "usr/driver.o").chmod(0o755)
        (folder / "usr" / ("long" * 30)).write_bytes(b"a long name")
        return folder

    @pytest.mark.parametrize("name", ["oem.tgz", "x.t00"])
    def test_tar_reads_the_module(self, name: str, folder: Path, tmp_path: Path) -> None:
        data = b"".join(build_module(folder, name))
        assert data == b"".join(build_module(folder, name))
        (tmp_path / "module").write_bytes(data)
        (tmp_path / "out").mkdir()
        run("tar", "-xzpf", tmp_path / "module", "-C", tmp_path / "out")
        assert written(tmp_path / "out") == written(folder)
        assert (tmp_path / "out/usr/link").readlink() == Path("driver.o")
        assert (tmp_path / "out/usr/driver.o").stat().st_mode == (folder / "usr/driver.o").stat().st_mode
        with tarfile.open(tmp_path / "module") as theirs:
            assert {(info.uid, info.gid) for info in theirs} == {(0, 0)}

    def test_a_vmtar(self, folder: Path) -> None:
        archive = open_archive(BytesSource(b"".join(build_module(folder, "x.v00"))))
        assert archive.kind == "vmtar"
        ours = {file.path: file.read_bytes() for file in archive.values()}
        wanted = {path: data for path, data in written(folder).items() if path != "usr/link"}
        assert ours == wanted
        assert archive.links == {"usr/link": "driver.o"}

    def test_in_its_place(self, folder: Path, tmp_path: Path) -> None:
        disk = small_disk({name: module(name) for name in BANK_35})
        before = disk.read_at(0, disk.size)
        with Image.open(disk) as image:
            export = export_pxe(image, tmp_path / "tftp", overlay={"oem.tgz": folder})
        assert export.append == " --- ".join(BANK_35)
        archive = open_archive(BytesSource((tmp_path / "tftp/oem.tgz").read_bytes()))
        assert sorted(archive) == sorted(path for path in written(folder) if path != "usr/link")
        assert disk.read_at(0, disk.size) == before
        for name in set(BANK_35) - {"oem.tgz"}:
            assert (tmp_path / "tftp" / name).read_bytes() == module(name)

    def test_on_what_was_there(self, folder: Path, tmp_path: Path) -> None:
        with Image.open(small_disk({name: module(name) for name in BANK_35})) as image:
            export_pxe(image, tmp_path / "tftp", overlay={"oem.tgz": folder}, keep_overlaid=True)
        archive = open_archive(BytesSource((tmp_path / "tftp/oem.tgz").read_bytes()))
        assert archive["etc/shared.conf"].read_bytes() == b"by oem.tgz"
        assert archive["etc/vmware/oem.tgz.txt"].read_bytes() == b"mine"

    def test_a_new_module_is_loaded_last(self, folder: Path, tmp_path: Path) -> None:
        with Image.open(small_disk({name: module(name) for name in BANK_35})) as image:
            export = export_pxe(image, tmp_path / "a", overlay={"mine.tgz": folder})
        assert export.append == " --- ".join((*BANK_35, "mine.tgz"))
        media = Media(tmp_path / "media", "6.5", None, ROCK_RIDGE)
        with Image.open(media.iso) as image:
            export_pxe(image, tmp_path / "b", overlay={"mine.tgz": folder, "s.v00": folder})
        config = BootConfig.parse((tmp_path / "b/boot.cfg").read_bytes())
        assert [module.name for module in config.modules] == [*BANK_6[1:], "mine.tgz"]
        assert open_archive(BytesSource((tmp_path / "b/s.v00").read_bytes())).kind == "vmtar"

    def test_what_no_module_can_hold(self, folder: Path, tmp_path: Path) -> None:
        os.mkfifo(folder / "fifo")
        disk = small_disk({name: module(name) for name in BANK_35})
        with Image.open(disk) as image, pytest.raises(InvalidArgument, match="fifo"):
            export_pxe(image, tmp_path / "tftp", overlay={"oem.tgz": folder})
        assert not (tmp_path / "tftp").exists()

    def test_not_into_itself(self, folder: Path) -> None:
        disk = small_disk({name: module(name) for name in BANK_35})
        with Image.open(disk) as image, pytest.raises(InvalidArgument, match="part of the overlay"):
            export_pxe(image, folder / "tftp", overlay={"oem.tgz": folder})
        assert not (folder / "tftp").exists()

    @pytest.mark.parametrize("kind", [tar_archive, vmtar_archive])
    def test_keeping_members_of_every_kind(self, kind: object, folder: Path) -> None:
        data = kind({"a": b"1", "usr/driver.o": b"old"}, links={"b": "a"})  # type: ignore[operator]
        base = open_archive(BytesSource(gzip.compress(data)))
        archive = open_archive(BytesSource(b"".join(build_module(folder, "oem.tgz", base=base))))
        assert archive["a"].read_bytes() == b"1"
        assert archive.links["b"] == "a"
        assert archive["usr/driver.o"].read_bytes() == (folder / "usr/driver.o").read_bytes()


def test_a_name_that_is_unsafe_in_the_prefix(tmp_path: Path) -> None:
    with Image.open(small_disk({name: module(name) for name in BANK_35})) as image, pytest.raises(UnsafeName):
        export_pxe(image, tmp_path / "tftp", prefix="con")


class TestSyslinux:
    def test_what_is_needed_of_it(self) -> None:
        text = b"""
DEFAULT menu.c32
APPEND for all
# label none
LABEL one
  MENU LABEL ^One
  KERNEL mboot.c32
  APPEND vmkernel.gz a=1 --- x.tgz ---  y.tgz b
Label Two
  kernel other
LABEL three
  com32 mboot.c32
  append -
"""
        config = SyslinuxConfig.parse(text)
        assert config.default == "menu.c32"
        assert [(entry.label, entry.kernel, entry.append) for entry in config.entries] == [
            ("one", "mboot.c32", "vmkernel.gz a=1 --- x.tgz ---  y.tgz b"),
            ("Two", "other", "for all"),
            ("three", "mboot.c32", ""),
        ]
        found = config.multiboot_entry()
        assert found is not None
        assert found.modules == ("vmkernel.gz a=1", "x.tgz", "y.tgz b")

    def test_the_default_is_taken_where_it_can_be(self) -> None:
        text = b"default two\nlabel one\nkernel mboot.c32\nappend a\nlabel two\nkernel mboot.c32\nappend b\n"
        entry = SyslinuxConfig.parse(text).multiboot_entry()
        assert entry is not None
        assert entry.append == "b"

    @pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"default", b"append x\nkernel y\n" * 1000])
    def test_nothing_to_boot(self, text: bytes) -> None:
        assert SyslinuxConfig.parse(text).multiboot_entry() is None


@pytest.mark.parametrize(("generation", "name"), [("3.5", "install.tgz"), ("4.0", "image.tgz"), ("4.1", "imagedd.bz2")])
@pytest.mark.parametrize("damage", ["its start", "its middle", "its end"])
def test_a_cd_whose_inner_image_is_damaged(
    generation: str, name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media = Media(tmp_path, generation, small_disk({name: module(name) for name in BANK_35}), ROCK_RIDGE)
    data = bytearray(media.read(name))
    if damage == "its end":
        del data[len(data) // 2 :]
    else:
        at = 0 if damage == "its start" else len(data) // 2
        data[at : at + 64] = bytes(64)
    (media.folder / name).write_bytes(data)
    cd = iso(media.folder, tmp_path / "damaged.iso", ROCK_RIDGE)
    assert main(["pxe", str(cd), str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "only installs" not in said
    if damage == "its start" and generation != "4.1":
        assert f"{name!r} is not an archive that can be opened" in said
        assert "only its installer exported" in said
        assert main(["pxe", str(cd), str(tmp_path / "install"), "--install"]) == 1  # it holds something damaged
        assert (tmp_path / "install" / "mboot.c32").read_bytes() == media.read("mboot.c32")


def test_a_cd_without_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is no damage."""
    media = Media(tmp_path, "3.5", small_disk({name: module(name) for name in BANK_35}), ROCK_RIDGE)
    inside = write_tree(tmp_path / "inside", {"sbin/installer.sh": b"#!/bin/sh\n", "etc/hosts": b"127.0.0.1\n"})
    tgz(inside, media.folder / "install.tgz", "sbin", "etc")
    cd = iso(media.folder, tmp_path / "without.iso", ROCK_RIDGE)
    assert main(["pxe", str(cd), str(tmp_path / "run")]) == 2
    assert "holds no image of an installed system, only its installer" in capsys.readouterr().err
