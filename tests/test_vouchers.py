"""Each forge has somebody else who vouches for what it makes; those that no other test asks are asked here."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

import pytest

from tests.support import REPOSITORY, require_oracle, run
from vmvisor_image import open_archive, testing
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing import forge, forge_iso, forge_modules, forge_virtual

VOUCHED = re.compile(r"Vouched for by ((?:(?!Vouched)[^:])+): ((?:``tests/\w+\.py``(?: and )?)+)")
NO_FORMATS = {"incompressible", "esx35_boot_files", "esx35_bank_files", "esx35_store_files", "sealed"}
"""What makes names and bytes for a forge, and no format of its own."""
FILES = {
    "etc/empty": b"",
    "etc/small": b"a few bytes\n",
    "usr/lib/page": random.Random(1).randbytes(4096),
    "usr/lib/more": random.Random(2).randbytes(9001),
}
LINKS = {"bin/sh": "busybox"}
DISK = random.Random(3).randbytes(300_000) + bytes(700_000) + b"the end".ljust(48_576, b".")


def forges() -> Iterator[tuple[str, str]]:
    """Name and docstring of each module of forges, and of each public function in it."""
    for found in pkgutil.iter_modules(testing.__path__):
        if found.name.startswith("forge"):
            module = importlib.import_module(f"{testing.__name__}.{found.name}")
            for name, value in vars(module).items():
                is_own = isinstance(value, FunctionType) and value.__module__ == module.__name__
                if is_own and not name.startswith("_") and name not in NO_FORMATS:
                    yield f"{found.name}.{name}", inspect.getdoc(value) or ""


@pytest.mark.parametrize(("name", "text"), list(forges()), ids=[name for name, _ in forges()])
def test_a_forge_names_who_vouches_for_it(name: str, text: str) -> None:
    found = VOUCHED.search(" ".join(text.split()))
    assert found is not None, f"{name} does not say who vouches for what it makes, and in which test"
    tests = [REPOSITORY / path for path in re.findall(r"tests/\w+\.py", found[2])]
    said = "".join(path.read_text(encoding="utf-8") for path in tests)
    programs = re.findall(r"``([^`]+)``", found[1])
    assert programs, f"{name} names no program, and no real bytes"
    assert all(program in said for program in programs), f"{name}: {programs} are not run by its tests"


def test_modules_of_forges_say_it_is_told() -> None:
    for found in pkgutil.iter_modules(testing.__path__):
        if found.name.startswith("forge"):
            text = importlib.import_module(f"{testing.__name__}.{found.name}").__doc__ or ""
            assert "What vouches for" in text, f"{found.name} does not say that its functions name who vouches for them"


def test_each_supported_format_says_what_it_was_checked_against() -> None:
    text = (REPOSITORY / "SUPPORTED.md").read_text(encoding="utf-8")
    table = text[text.index("| format | checked against |") :].split("\n\n")[0].splitlines()[2:]
    found = {cells[1].strip(): cells[2].strip() for cells in (line.split("|") for line in table)}
    assert set(found.values()) == {"real bytes", "an independent program", "nothing but our forge"}
    named = " ".join(found)
    for name in (
        "bzip2",
        "gzip",
        "xz",
        "zstd",
        "qcow2",
        "VMDK",
        "VHD",
        "VHDX",
        "MBR",
        "GPT",
        "FAT32",
        "ISO 9660",
        "VMFS 6",
    ):
        assert name in named
    for name in ("tar", "vmtar", "zip", "VIB", "boot.cfg", "local.tgz.ve", "vmkcore", "PXE"):
        assert name in named


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("qcow2", forge_virtual.qcow2_disk),
        ("vmdk", forge_virtual.vmdk_disk),
        ("vmdk", lambda disk: forge_virtual.vmdk_disk(disk, compressed=True)),
        ("vpc", forge_virtual.vhd_disk),
        ("vpc", lambda disk: forge_virtual.vhd_disk(disk, fixed=True)),
        ("vhdx", forge_virtual.vhdx_disk),
    ],
    ids=["qcow2", "VMDK", "VMDK deflated", "VHD", "VHD fixed", "VHDX"],
)
def test_virtual_disks_are_what_qemu_reads(
    kind: str, make: Callable[[bytes], bytes | forge.SparseImage], tmp_path: Path
) -> None:
    made = make(DISK)
    (tmp_path / "disk").write_bytes(made if isinstance(made, bytes) else made.read_at(0, made.size))
    options = f"driver={kind},file.filename={tmp_path / 'disk'}"
    if kind == "vpc":  # of a creator that it does not know it believes the geometry, which can't say every size
        options += ",force_size_calc=current_size"
    run("qemu-img", "convert", "--image-opts", options, "-O", "raw", tmp_path / "raw")
    if kind in ("qcow2", "vhdx"):
        run("qemu-img", "check", "-f", kind, tmp_path / "disk")
    read = (tmp_path / "raw").read_bytes()
    assert read[: len(DISK)] == DISK
    assert not any(read[len(DISK) :])


@pytest.mark.parametrize("rock_ridge", [True, False])
def test_a_cd_is_what_xorriso_and_bsdtar_read(tmp_path: Path, *, rock_ridge: bool) -> None:
    links = LINKS if rock_ridge else {}
    files = FILES if rock_ridge else {path.upper() + ".BIN": data for path, data in FILES.items()}
    (tmp_path / "cd.iso").write_bytes(forge_iso.iso_volume(files, links=links, rock_ridge=rock_ridge, label="LABEL"))
    for folder in ("xorriso", "bsdtar"):
        (tmp_path / folder).mkdir()
    run("xorriso", "-indev", tmp_path / "cd.iso", "-osirrox", "on", "-extract", "/", tmp_path / "xorriso")
    run("bsdtar", "-xf", tmp_path / "cd.iso", "-C", tmp_path / "bsdtar")
    run("chmod", "-R", "u+rwX", tmp_path)
    for folder in ("xorriso", "bsdtar"):
        read = {path.relative_to(tmp_path / folder).as_posix(): path for path in (tmp_path / folder).rglob("*")}
        assert {name: path.read_bytes() for name, path in read.items() if path.is_file()} == files
        assert {name: str(path.readlink()) for name, path in read.items() if path.is_symlink()} == links
    assert 'LABEL="LABEL"' in run("blkid", "-p", tmp_path / "cd.iso")


def test_a_tar_is_what_gnu_tar_reads(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(forge_modules.tar_archive(FILES, links=LINKS))
    (tmp_path / "out").mkdir()
    run("tar", "-xf", tmp_path / "a.tar", "-C", tmp_path / "out")
    assert {path: (tmp_path / "out" / path).read_bytes() for path in FILES} == FILES
    assert str((tmp_path / "out/bin/sh").readlink()) == "busybox"


@pytest.mark.parametrize("inline", [False, True])
def test_a_vmtar_is_what_dissect_reads(tmp_path: Path, *, inline: bool) -> None:
    (tmp_path / "a.vmtar").write_bytes(forge_modules.vmtar_archive(FILES, links=LINKS, inline=inline))
    found = json.loads(run(str(require_oracle()), REPOSITORY / "tests/dissect_vmtar.py", tmp_path / "a.vmtar"))
    read = {path: content for path, content in found.items() if content is not None}
    assert read == {**{path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}, **LINKS}


def test_a_module_is_what_gzip_reads(tmp_path: Path) -> None:
    (tmp_path / "module.gz").write_bytes(forge.module("vmkernel", 50_000, b"some text"))
    run("gzip", "-t", tmp_path / "module.gz")


@pytest.mark.parametrize("end", ["exact", "of 512 bytes", "of a page"])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_vmtar_as_builders_of_vibs_wrote_it(end: str, *, is_signed: bool) -> None:
    """Measured on payloads of VIBs: the end is exact up to 8.0, of 512 bytes since; sums are of either sort; type 7."""
    files = {"usr/lib/vmware/vmkmod/driver": FILES["usr/lib/more"], "last": FILES["usr/lib/more"][:5000]}
    data = bytearray(forge_modules.vmtar_archive(files))
    if end != "of a page":
        del data[data.rindex(files["last"]) + 5000 :]
        data += bytes(-len(data) % 512 if end == "of 512 bytes" else 0)
    for at in range(0, 4096, 512):
        header = data[at : at + 512]
        if header[257:262] == b"visor":
            header[156:157] = b"7" if header[156:157] == b"0" else header[156:157]
            header[329:332] = b"\xe9\xff\x80"  # of a field that is not read, so that the sums differ
            header[148:156] = b" " * 8
            total = sum(header) - 256 * is_signed * sum(byte >= 0x80 for byte in header)
            header[148:156] = b"%06o\0 " % total
            data[at : at + 512] = header
    archive = open_archive(BytesSource(bytes(data)))
    assert {path: file.read_bytes() for path, file in archive.items()} == files
    assert archive.problems == ()
