"""The check of folders of real files, on forged ones: what it says, what it does not say, and its exit status."""

from __future__ import annotations

import binascii
import gzip
import hashlib
import io
import runpy
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from vmvisor_image.testing.forge import esx35_boot_files, fat_volume
from vmvisor_image.testing.forge_machines import ForgedSnapshot, domain_xml, ovf_file, vmsd_file, vmx_file
from vmvisor_image.testing.forge_modules import sign, vmtar_archive

Main = Callable[[list[str]], int]
SECRET = b"what is in other people's files is not printed"
DESCRIPTOR = (
    "<vib><type>bootbank</type><name>driver</name><version>1</version><vendor>VMW</vendor><payloads>"
    '<payload name="driver" size="{}"><checksum checksum-type="sha-256">{}</checksum>'
    '<checksum checksum-type="sha-1" verify-process="gunzip">{}</checksum></payload></payloads></vib>'
)


@pytest.fixture(scope="module")
def main() -> Main:
    return cast("Main", runpy.run_path(str(Path(__file__).parents[1] / "tools/check_real.py"))["main"])


def vib(payload: bytes, inner: bytes) -> bytes:
    descriptor = DESCRIPTOR.format(len(payload), hashlib.sha256(payload).hexdigest(), hashlib.sha1(inner).hexdigest())
    archive = b"!<arch>\n"
    for name, data in {"descriptor.xml": descriptor.encode(), "sig.pkcs7": b"", "driver": payload}.items():
        archive += f"{name:16}{0:<12}{0:<6}{0:<6}{'0o0':8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return archive


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def uuencoded(data: bytes) -> bytes:
    lines = [binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45)]
    return b"begin 644 file\n" + b"".join(lines) + b"`\nend\n"


def xxd(data: bytes) -> bytes:
    rows = [(at, data[at : at + 16]) for at in range(0, len(data), 16)]
    return b"".join(b"%08x: %s  ....\n" % (at, row.hex(" ", -2).encode()) for at, row in rows if any(row))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = sign(vmtar_archive({"usr/lib/driver": SECRET}))
    volume = fat_volume(esx35_boot_files(), sectors=8192)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(SECRET)
        archive.addfile(info, io.BytesIO(SECRET))
    files = {
        "bundle.zip": zipped({"vib20/driver.vib": vib(gzip.compress(inner), inner)}),
        "some.tar.gz": tarred.getvalue(),
        "more/some.tar.gz.uu": uuencoded(tarred.getvalue()),
        "more/volume.xxd": xxd(volume.read_at(0, volume.size)),
        "vm/vm.vmx": vmx_file({"scsi0:0": "a.vmdk"}, name=SECRET.decode()),
        "vm/vm.vmsd": vmsd_file(
            [ForgedSnapshot(1, SECRET.decode(), datetime(2024, 5, 6, tzinfo=UTC), {"ide0:0": "a"})]
        ),
        "vm/vm.ovf": ovf_file({"scsi0:0": ("a.vmdk", 512)}),
        "vm/vm.xml": domain_xml({"vda": ("a.img", "raw"), "vdb": ("b.img", "raw")}),
        "notes.txt": SECRET,
        "large.vmdk": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "empty": b"",
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "link").symlink_to("elsewhere")
    return tmp_path


def test_what_is_read(main: Main, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert "1 inside: ar" in lines["bundle.zip"]
    assert "1 inside: gzip+vmtar" in lines["bundle.zip"]
    assert "2 payload sums right" in lines["bundle.zip"]
    assert "1 signatures" in lines["bundle.zip"]
    assert "gzip+tar  read  1 files" in lines["more/some.tar.gz.uu"]
    assert "fat" in lines["more/volume.xxd"]
    assert "vmx  read  1 disks, 1 machines" in lines["vm/vm.vmx"]
    assert "vmsd  read  1 disks, 1 snapshots" in lines["vm/vm.vmsd"]
    assert "ovf  read  1 disks, 1 machines" in lines["vm/vm.ovf"]
    assert "libvirt  read  2 disks, 1 machines" in lines["vm/vm.xml"]
    assert "1 pointers" in printed
    assert SECRET.decode() not in printed


def test_what_is_not(main: Main, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = bytearray((folder / "bundle.zip").read_bytes())
    bad[len(bad) // 2] ^= 0xFF
    (folder / "bad.zip").write_bytes(bad)
    payload = gzip.compress(SECRET)
    (folder / "other.vib").write_bytes(vib(payload, SECRET + b"!"))
    assert main([str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "zip  FAILED" in next(line for line in printed.splitlines() if line.startswith("bad.zip"))
    assert "another sum" in next(line for line in printed.splitlines() if line.startswith("other.vib"))
    assert main([str(folder), "--damaged", "bad*", "--damaged", "*.vib", "--summary"]) == 0
    assert main([str(folder), "--damaged", "*"]) == 1, "what was made damaged is to be complained of"


def test_the_summary_names_no_file(main: Main, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--summary"]) == 0
    printed = capsys.readouterr().out
    assert "| zip | 1 |" in printed
    assert "| ar |" in printed
    assert "bundle" not in printed
