"""What was exported boots: QEMU's network card, SYSLINUX's pxelinux and mboot, and a kernel that tells what it got."""

from __future__ import annotations

import functools
import gzip
import subprocess
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bundles import BASE, BASE_PROVIDES, VERSION, bundle_of, package, payload
from tests.media import BANK_35, BANK_41, INSTALL_35, INSTALL_40, INSTALL_41, ROCK_RIDGE, Media, module, small_disk
from tests.support import HANGS, REPOSITORY, require_tool, run, unavailable
from vmvisor_image import Image, export_pxe
from vmvisor_image.testing.forge_packages import ForgedPayload

MODULES = Path("/usr/lib/syslinux/modules/bios")
PXELINUX = Path("/usr/lib/PXELINUX/pxelinux.0")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The kernel, compressed as VMware's are."""
    folder = tmp_path_factory.mktemp("kernel")
    script = folder / "script"
    script.write_text("ENTRY(start) SECTIONS { . = 0x100000; .all : { *(.multiboot) *(.text*) *(.rodata*) *(.data*) }"
                      " .bss : { *(.bss*) } /DISCARD/ : { *(.note*) *(.comment*) *(.eh_frame*) } }")  # fmt: skip
    options = (
        "-m32 -march=i386 -ffreestanding -fno-pic -fno-pie -fno-stack-protector -nostdlib -static -O1 -Wall -Werror"
    )
    source = REPOSITORY / "tests/multiboot_kernel.c"
    run("gcc", *options.split(), "-Wl,--build-id=none", "-T", script, source, "-o", folder / "kernel")
    return gzip.compress((folder / "kernel").read_bytes(), mtime=0)


def boot(folder: Path) -> list[str]:
    """What the kernel says when a machine boots from a TFTP server with this folder."""
    for name in ("ldlinux.c32", "libcom32.c32"):
        if not (MODULES / name).exists():
            unavailable("syslinux-common is not installed")
        (folder / name).write_bytes((MODULES / name).read_bytes())
    if not PXELINUX.exists():
        unavailable("pxelinux is not installed")
    (folder / "pxelinux.0").write_bytes(PXELINUX.read_bytes())
    serial = folder.parent / "serial"
    command = [
        require_tool("qemu-system-x86_64"),
        "-m",
        "256",
        "-display",
        "none",
        "-serial",
        f"file:{serial}",
        "-boot",
        "n",
    ]
    command += ["-netdev", f"user,id=net,tftp={folder},bootfile=pxelinux.0", "-device", "e1000,netdev=net"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-no-reboot", "-machine", "pc,accel=tcg"]
    # Its clock follows the instructions, 128 ns each: the card's waits for answers pass at once, on any machine.
    command += ["-icount", "shift=7,sleep=off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
    said = serial.read_text(errors="replace").replace("\r", "")
    assert done.returncode == 1, f"{done.stderr}\n{said}"  # what the kernel writes to the debug port
    return [line for line in said.splitlines() if line.startswith(("KERNEL", "MODULE"))]


def check(said: list[str], modules: Mapping[str, bytes], options: str = "") -> None:
    """The kernel, and each module in order, decompressed, byte for byte as its length and CRC show."""
    names = list(modules)
    assert said[0] == f"KERNEL 1 {names[0]}{options}"
    assert len(said) == len(names)
    for line, name in zip(said[1:], names[1:], strict=True):
        data = gzip.decompress(modules[name])
        assert line.rstrip() == f"MODULE {len(data)} {zlib.crc32(data)} {name}"


@functools.cache
def loader() -> bytes:
    return (MODULES / "mboot.c32").read_bytes()


def bank_of(names: tuple[str, ...], kernel: bytes) -> dict[str, bytes]:
    return {name: kernel if number == 0 else module(name) for number, name in enumerate(names)}


@pytest.mark.parametrize("prefix", ["", "esx/3.5"])
def test_esx_3i(prefix: str, kernel: bytes, tmp_path: Path) -> None:
    bank = bank_of(BANK_35, kernel)
    with Image.open(small_disk(bank, {"mboot.c32": loader()})) as image:
        export_pxe(image, tmp_path / "tftp", prefix=prefix)
    at = f"{prefix}/" if prefix else ""
    check(boot(tmp_path / "tftp"), {f"{at}{name}": data for name, data in bank.items()})


def test_of_two_entries_each_boots(kernel: bytes, tmp_path: Path) -> None:
    """PXELINUX reads the configuration that a second export added to."""
    first, second = bank_of(BANK_35, kernel), bank_of(BANK_41, kernel)
    config = f"kernel={BANK_41[0]}\nmodules={' --- '.join(BANK_41[1:])}\nbuild=4.1.0-260247\n".encode()
    for bank, prefix in ((first, "a"), ({**second, "boot.cfg": config}, "b")):
        with Image.open(small_disk(bank, {"mboot.c32": loader()})) as image:
            export_pxe(image, tmp_path / "tftp", prefix=prefix)
    check(boot(tmp_path / "tftp"), {f"a/{name}": data for name, data in first.items()})
    written = tmp_path / "tftp/pxelinux.cfg/default"
    written.write_text(written.read_text().replace("default 3i\n", "default esxi-4.1.0\n"))
    check(boot(tmp_path / "tftp"), {f"b/{name}": data for name, data in second.items()})


def test_the_order_of_boot_cfg_and_options(kernel: bytes, tmp_path: Path) -> None:
    bank = bank_of(BANK_41, kernel)
    order = (BANK_41[0], *reversed(BANK_41[1:]))
    config = f"kernel={order[0]}\nkernelopt=\nmodules={' --- '.join(order[1:])}\nbuild=4.1.0-260247\n".encode()
    with Image.open(small_disk({**bank, "boot.cfg": config}, {"mboot.c32": loader()})) as image:
        export_pxe(image, tmp_path / "tftp", kernel_options=["ks=http://server/ks.cfg", "debug"])
    check(boot(tmp_path / "tftp"), {name: bank[name] for name in order}, " ks=http://server/ks.cfg debug")


@pytest.mark.parametrize(("generation", "modules"), [("3.5", INSTALL_35), ("4.0", INSTALL_40), ("4.1", INSTALL_41)])
def test_installers(generation: str, modules: tuple[str, ...], kernel: bytes, tmp_path: Path) -> None:
    media = Media(tmp_path / "media", generation, small_disk({}), ROCK_RIDGE)
    (media.folder / modules[0]).write_bytes(kernel)
    (media.folder / "mboot.c32").write_bytes(loader())
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", tmp_path / "cd.iso", media.folder)
    with Image.open(tmp_path / "cd.iso") as image:
        export_pxe(image, tmp_path / "tftp", mode="install")
    check(boot(tmp_path / "tftp"), {name: media.read(name) for name in modules})


def test_an_overlay_is_loaded_in_its_place(kernel: bytes, tmp_path: Path) -> None:
    bank = bank_of(BANK_35, kernel)
    own = tmp_path / "own"
    own.mkdir()
    (own / "driver").write_bytes(b"a driver of mine" * 1000)
    with Image.open(small_disk(bank, {"mboot.c32": loader()})) as image:
        export_pxe(image, tmp_path / "tftp", overlay={"oem.tgz": own})
    bank["oem.tgz"] = (tmp_path / "tftp/oem.tgz").read_bytes()
    assert bank["oem.tgz"] != module("oem.tgz")
    check(boot(tmp_path / "tftp"), bank)


def test_a_bundle_with_a_package_added(kernel: bytes, tmp_path: Path) -> None:
    """Its mboot.c32 has no ``-c``, so that the modules of ``boot.cfg`` are passed to it in the order that is there."""
    own = {
        "b": ForgedPayload("b", kernel, gzip.decompress(kernel), "boot", (), 10),
        "mboot.c32": ForgedPayload("mboot.c32", loader(), loader(), "boot_com32_bios"),
    }
    base = package(
        "esx-base",
        *(own.get(each.name, each) for each in BASE),
        version=VERSION,
        vendor="VMware",
        relationships=BASE_PROVIDES,
    )
    more = package("driver", payload("driver"))
    tftp = tmp_path / "tftp"
    export = export_pxe(bundle_of((base, package("atlantic", payload("atlantic")))), tftp, add=[more[1]])
    written = tftp / "pxelinux.cfg/default"
    text = written.read_text()
    assert "append -c boot.cfg\n" in text
    written.write_text(text.replace("-c boot.cfg", " --- ".join(export.modules)).replace("ipappend 2\n", ""))
    names = [name.partition(" ")[0] for name in export.modules]
    assert names[:4] == ["b.b00", "jumpstrt.gz", "k.b00", "procfs.b00"]
    assert names[-4:] == ["atlantic.v00", "driver.v00", "btldr.v00", "imgdb.tgz"]
    check(boot(tftp), {name: (tftp / name).read_bytes() for name in names}, " runweasel")
