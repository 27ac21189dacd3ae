"""Installer media of each generation, built by xorriso, GNU tar, bzip2 and gzip around small disks and modules."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.support import run, run_to_file
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_modules import kernel_elf, tar_archive, vmtar_archive

ROCK_RIDGE, JOLIET, PLAIN = ("-R",), ("--norock", "-J"), ("--norock",)
"""xorriso writes Rock Ridge unless it is told not to."""
BOTH = ("-R", "-J")
BANK_35 = ("vmkernel.gz", "binmod.tgz", "environ.tgz", "cim.tgz", "oem.tgz", "license.tgz")
BANK_41 = ("b.z", "k.z", "s.z", "c.z", "oem.tgz", "license.tgz", "m.z", "state.tgz")
INSTALL_35 = ("vmkernel.gz", "binmod.tgz", "ienviron.tgz", "cim.tgz", "oem.tgz", "license.tgz", "install.tgz")
INSTALL_40 = ("vmkboot.gz", "vmkernel.gz", "sys.vgz", "cim.vgz", "ienviron.tgz", "image.tgz", "install.tgz")
INSTALL_41 = ("vmkboot.gz", "vmkernel.gz", "sys.vgz", "cim.vgz", "ienviron.vgz", "install.vgz")
BANK_6 = ("b.b00", "jumpstrt.gz", "useropts.gz", "k.b00", "s.v00", "tools.t00", "state.tgz")
BOOT_CFG_6 = (
    "bootstate=0\ntitle=Loading VMware ESXi\ntimeout=5\nprefix=\nkernel=/b.b00\n"
    "kernelopt=runweasel cdromBoot\n"
    "modules=/jumpstrt.gz --- /useropts.gz --- /k.b00 --- /s.v00 --- /tools.t00 --- /state.tgz\n"
    "build=6.5.0-4564106\nupdated=0\n"
)


def module(name: str) -> bytes:
    """A small module that is what its name says."""
    files = {f"etc/vmware/{name}.txt": f"from {name}".encode(), "etc/shared.conf": f"by {name}".encode()}
    if name == "state.tgz":
        local = gzip.compress(tar_archive({"etc/hosts": b"127.0.0.1 esx", "etc/shared.conf": b"by the state"}), mtime=0)
        return gzip.compress(tar_archive({"local.tgz": local}), mtime=0)
    if name.startswith(("vmk", "b.", "k.")):
        return gzip.compress(kernel_elf(f"VMware ESXi 9.9.9 build-123456 ({name})".encode()), mtime=0)
    if name.endswith((".tgz", ".t00")):
        return gzip.compress(tar_archive(files), mtime=0)
    if name.endswith((".vgz", ".v00", ".z")):
        return gzip.compress(vmtar_archive(files, inline=name.startswith("c")), mtime=0)
    return gzip.compress(b"options\n", mtime=0)


def small_disk(bank: Mapping[str, bytes], boot: Mapping[str, bytes] | None = None) -> SparseImage:
    """An 8 MB disk with a boot partition and one boot bank."""
    trees = ({"mboot.c32": b"the loader"} if boot is None else boot, bank)
    volumes = [fat_volume(tree, sectors=6000, label=f"Hypervisor{n}") for n, tree in enumerate(trees)]
    return mbr_disk(
        [
            ForgedPartition(number, 6, start, 6000, content=volume)
            for number, start, volume in zip((4, 1), (32, 8192), volumes, strict=True)
        ],
        sectors=16000,
    )


def overwritten(image: SparseImage, data: bytes, at: int = 0) -> SparseImage:
    """The image with some bytes replaced."""
    end, pieces = at + len(data), [(at, data)]
    for offset, piece in image.pieces:
        if offset < at:
            pieces.append((offset, piece[: at - offset]))
        if offset + len(piece) > end:
            first = max(end, offset)
            pieces.append((first, piece[first - offset :]))
    return SparseImage(image.size, pieces)


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def iso(folder: Path, path: Path, names: tuple[str, ...] = ROCK_RIDGE) -> Path:
    """A CD with a folder's files, as mkisofs' options say."""
    run("xorriso", "-as", "mkisofs", "-quiet", "-V", "ESXI", "-input-charset", "utf-8", *names, "-o", path, folder)
    return path


def compressed_disk(disk: SparseImage, path: Path) -> Path:
    """``path`` with ``.bz2``, by bzip2."""
    disk.write_to(path)
    run_to_file(path.with_name(path.name + ".bz2"), "bzip2", "-c", path)
    path.unlink()
    return path.with_name(path.name + ".bz2")


def tgz(folder: Path, path: Path, *names: str) -> Path:
    run("tar", "-czf", path, "-C", folder, "--owner=201", "--group=201", *names)
    return path


def isolinux_cfg(modules: tuple[str, ...]) -> bytes:
    text = "default menu.c32\nmenu title ThinESX Installer\ntimeout 80\nlabel ThinESX Installer\n"
    text += f"menu label ThinESX Installer\nkernel mboot.c32\nappend {' --- '.join(modules)}\n"
    text += "label local\nmenu label ^Boot from local disk\nlocalboot 0x80\n"
    return text.encode()


class Media:
    """One CD, and the folder that it was made of."""

    def __init__(self, folder: Path, generation: str, disk: SparseImage | Path | None, names: tuple[str, ...]) -> None:
        self.folder = folder / "cd"
        self.generation = generation
        self.disk_name = ""
        self._work = folder
        self._disk = disk
        getattr(self, f"_fill_{generation.replace('.', '')}")()
        self.iso = iso(self.folder, folder / f"VMware-VMvisor-{generation}.iso", names)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _fill_35(self) -> None:
        names = [name for name in INSTALL_35 if name != "install.tgz"]
        write_tree(self.folder, self._boot_files(INSTALL_35) | {name: module(name) for name in names})
        self._archive("install.tgz", "VMware-VMvisor-big-3.5.0-67921.i386.dd", "sbin/installer.sh")

    def _fill_40(self) -> None:
        names = [name for name in INSTALL_40 if name != "image.tgz"]
        write_tree(self.folder, self._boot_files(INSTALL_40) | {name: module(name) for name in names})
        self._archive("image.tgz", "VMware-VMvisor-big-164009-x86_64.dd")

    def _fill_41(self) -> None:
        write_tree(self.folder, self._boot_files(INSTALL_41) | {name: module(name) for name in INSTALL_41})
        self.disk_name = "imagedd.bz2"
        data = self._bz2("imagedd").read_bytes()
        (self.folder / "imagedd.bz2").write_bytes(data)
        line = f"{hashlib.md5(data).hexdigest()}  VMware-VMvisor-big-260247-x86_64.dd.bz2\n"
        (self.folder / "imagedd.md5").write_text(line)

    def _fill_65(self) -> None:
        files = {name: module(name) for name in BANK_6} | {"boot.cfg": BOOT_CFG_6.encode()}
        files |= {"mboot.c32": b"bios loader", "efi/boot/bootx64.efi": b"MZ uefi loader", "efiboot.img": bytes(4096)}
        write_tree(self.folder, files | {"isolinux.bin": bytes(100), "isolinux.cfg": b"default menu.c32\n"})

    def _boot_files(self, modules: tuple[str, ...]) -> dict[str, bytes]:
        files = {"mboot.c32": b"the loader on the CD", "menu.c32": b"menu", "isolinux.bin": bytes(100)}
        return files | {"isolinux.cfg": isolinux_cfg(modules)}

    def _bz2(self, name: str) -> Path:
        if isinstance(self._disk, Path):
            return self._disk
        assert self._disk is not None
        return compressed_disk(self._disk, self._work / name)

    def _archive(self, name: str, disk_name: str, *others: str) -> None:
        inside = self._work / "inside"
        self.disk_name = f"usr/lib/vmware/installer/{disk_name}.bz2"
        place = inside / self.disk_name
        place.parent.mkdir(parents=True)
        place.hardlink_to(self._bz2(disk_name))
        write_tree(inside, dict.fromkeys(others, b"#!/bin/sh\n"))
        tgz(inside, self.folder / name, *(["sbin"] if others else []), "usr")
