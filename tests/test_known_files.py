"""Files of hosts and installers that are no disks: what each is, and which command reads it.

They are packed by ar, zip and tar; what is in them is laid out as published ones are.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.media import BANK_35, module, small_disk, write_tree
from tests.support import run
from vmvisor_image import Image, NoDiskImage, inspect
from vmvisor_image.faces.cli import main
from vmvisor_image.testing.forge_modules import tar_archive, vmtar_archive

DESCRIPTOR = b'<vib version="5.0"><type>bootbank</type><name>net-x</name></vib>'
LOCAL = {"etc/vmware/esx.conf": b"/system/uuid", "etc/hosts": b"127.0.0.1"}
MANIFEST = b"RELEASELEVEL=6.7.0\nUUID=5c1d\nKERNELOPTS=\nUSEROPTS=\n"
SUPPORT = {
    "esx-h-2026-01-01--10.00/commands/vmware_-vl.txt": b"VMware ESXi 6.7.0",
    "esx-h-2026-01-01--10.00/etc/vmware/esx.conf": b"x",
}
VMX = '.encoding = "UTF-8"\nconfig.version = "8"\nvirtualHW.version = "19"\nscsi0:0.fileName = "%s"\n'


def gz(files: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tar_archive(files), mtime=0)


def packed(folder: Path, name: str, files: Mapping[str, bytes], *command: str) -> Path:
    """A file that a program makes of others."""
    inside = folder / f"in {name}"
    write_tree(inside, files)
    target = folder / name
    match command[0]:
        case "ar":
            run("ar", "rcS", target, *(inside / path for path in files))
        case "zip":
            run("sh", "-c", 'cd "$1" && zip -qr "$2" .', "sh", inside, target)
        case _:
            run("tar", "-C", inside, "-czf", target, *sorted({path.partition("/")[0] for path in files}))
    return target


def bundle(folder: Path) -> Path:
    vib = packed(folder, "in.vib", {"descriptor.xml": DESCRIPTOR, "sig.pkcs7": b"", "net-x": b"x"}, "ar").read_bytes()
    metadata = packed(folder, "metadata.zip", {"vmware.xml": b"<metadataResponse/>"}, "zip").read_bytes()
    files = {
        "index.xml": b'<?xml version="1.0"?>\n<vendorList><vendor><name>VMware</name></vendor></vendorList>',
        "vendor-index.xml": b"<metaList/>",
        "metadata.zip": metadata,
        "vib20/net-x/x.vib": vib,
    }
    return packed(folder, "bundle.zip", files, "zip")


def configuration(folder: Path, manifest: bytes = MANIFEST) -> Path:
    state = gz({"local.tgz": gz(LOCAL)})
    return packed(folder, "configBundle-h.tgz", {"Manifest.txt": manifest, "state.tgz": state}, "tar")


MADE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a VIB": (
        lambda folder: packed(folder, "a", {"descriptor.xml": DESCRIPTOR, "sig.pkcs7": b"", "net-x": b"x"}, "ar"),
        "archive SRC",
    ),
    "an offline bundle": (bundle, "archive SRC"),
    "(configBundle)": (configuration, "archive SRC state.tgz local.tgz --list"),
    "(state.tgz)": (
        lambda folder: packed(folder, "a", {"local.tgz": gz(LOCAL)}, "tar"),
        "archive SRC local.tgz --list",
    ),
    "saved state of a host": (
        lambda folder: packed(folder, "a", {"local.tgz.ve": b"x", "encryption.info": b"y"}, "tar"),
        "archive SRC",
    ),
    "(local.tgz)": (lambda folder: packed(folder, "a", LOCAL, "tar"), "archive SRC"),
    "(vm-support)": (lambda folder: packed(folder, "a", SUPPORT, "tar"), "archive SRC"),
}


@pytest.mark.parametrize("name", MADE)
def test_what_it_is_and_what_reads_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, command = MADE[name]
    source = make(tmp_path).rename(tmp_path / "whatever")  # names say nothing
    assert main(["info", str(source)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    assert f"`vmvisor-image {command}` reads it" in said
    with pytest.raises(NoDiskImage) as found:
        Image.open(source)
    assert found.value.members
    words = command.replace("SRC", str(source)).split()
    assert main(words) == 0  # it does
    assert capsys.readouterr().out


@pytest.mark.parametrize("end", [b"", b'displayName = "x"\n' * 500, b'displayName = "\xe4\xff"\n'])
def test_the_settings_of_a_virtual_machine(end: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes((VMX % "my disk.vmdk").replace("config.", "CONFIG.").encode() + end)
    assert main(["verify", str(tmp_path / "a")]) == 1
    said = capsys.readouterr().err
    assert "the settings of a virtual machine (.vmx), and its disks are in 'my disk.vmdk'" in said
    assert "`vmvisor-image info` reads a disk" in said
    assert [problem.message in said for problem in inspect(tmp_path / "a").problems] == [True]


def test_a_name_with_control_characters_does_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text(VMX % "\x1b[31m.vmdk")
    assert main(["info", str(tmp_path / "a")]) == 1
    assert "\x1b" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"descriptor.xml": b"<other/>", "b": b"x"}, "ar"),
        ({"index.xml": b"<html/>", "metadata.zip": b"x"}, "zip"),
        ({"Manifest.txt": b"no settings", "state.tgz": b"x"}, "tar"),
        ({"a/commands/b": b"text", "a/c": b"x"}, "tar"),
        ({"a/commands/b": b"text", "a/var/log/c": b"x", "d/e": b"x"}, "tar"),
        ({"etc/vmware/a": b"x", "usr/b": b"x"}, "tar"),
    ],
)
def test_names_alone_say_nothing(files: Mapping[str, bytes], command: str, tmp_path: Path) -> None:
    with pytest.raises(NoDiskImage, match="nothing that looks like a disk"):
        Image.open(packed(tmp_path, "x.vib", files, command))


def test_a_disk_in_one_is_had_by_its_name(tmp_path: Path) -> None:
    disk = small_disk({name: module(name) for name in BANK_35})
    files = {"descriptor.xml": DESCRIPTOR, "a.dd": disk.read_at(0, disk.size)}
    with Image.open(packed(tmp_path, "a", files, "ar"), member="a.dd") as image:
        assert len(image.partitions) == 2


def test_a_vmtar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(vmtar_archive({"a": b"1", "b": b"2"})))
    assert main(["info", str(tmp_path / "a")]) == 1
    assert "`vmvisor-image module SRC` reads it" in capsys.readouterr().err
    assert main(["module", str(tmp_path / "a")]) == 0
