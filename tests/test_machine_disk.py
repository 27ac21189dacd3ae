"""Commands whose SRC is the description of a machine: its disk, by `--disk`, as it is or at a snapshot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import run
from tests.test_machine_packages import ova
from tests.test_machines import LATER, TAKEN, datastore, disk, flat, machine_files, write
from vmvisor_image.faces.cli import main
from vmvisor_image.testing.forge_machines import ForgedSnapshot, domain_xml, ovf_file, vmsd_file, vmx_file


def first_bytes(capsys: pytest.CaptureFixture[str], status: int, *given: str | Path) -> tuple[str, str]:
    """First four bytes by `hexdump`, and what is said on standard error."""
    assert main(["hexdump", "-n", "16", *map(str, given)]) == status
    captured = capsys.readouterr()
    return bytes.fromhex("".join(captured.out.split()[1:5])).decode(), captured.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine with two disks, and a snapshot before its first one was changed."""
    files = {**machine_files(), **flat("vm-000001", disk(b"changed"))}
    files["vm.vmx"] = vmx_file({"scsi0:0": "vm-000001.vmdk", "scsi0:1": "data.vmdk"})
    files["vm.vmsd"] = vmsd_file(
        [ForgedSnapshot(1, "before update", TAKEN, {"scsi0:0": "vm.vmdk", "scsi0:1": "data.vmdk"})]
    )
    return write(tmp_path / "vm", files)


def test_the_only_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {**flat("vm", disk(b"system")), "vm.vmx": vmx_file({"scsi0:0": "vm.vmdk"})})
    assert first_bytes(capsys, 0, tmp_path / "vm.vmx") == ("syst", "")
    assert first_bytes(capsys, 0, tmp_path / "vm.vmx", "--disk", "scsi0:0") == ("syst", "")


def test_several_disks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "vm.vmx"
    assert first_bytes(capsys, 0, path, "--disk", "scsi0:0") == ("chan", "")
    assert first_bytes(capsys, 0, path, "--disk", "scsi0:1") == ("data", "")
    found, said = first_bytes(capsys, 2, path)
    assert not found
    assert "has 2 disks, name one with --disk: scsi0:0 (vm-000001.vmdk), scsi0:1 (data.vmdk)" in said
    _, said = first_bytes(capsys, 2, path, "--disk", "scsi0:2")
    assert "no disk 'scsi0:2'; there are 'scsi0:0', 'scsi0:1'" in said


def test_at_a_snapshot(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[str | Path] = [folder / "vm.vmx", "--disk", "scsi0:0"]
    assert first_bytes(capsys, 0, *given, "--snapshot", "before update") == ("syst", "")
    _, said = first_bytes(capsys, 2, *given, "--snapshot", "befor update")
    assert "before update" in said


def test_in_a_datastore(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"web/{path.name}": path.read_bytes() for path in folder.iterdir()}
    datastore(files).write_to(tmp_path / "store.img")
    given: list[str | Path] = [tmp_path / "store.img", "--member", "datastore1/web/vm.vmx"]
    assert first_bytes(capsys, 0, *given, "--disk", "scsi0:1") == ("data", "")
    assert first_bytes(capsys, 0, *given, "--disk", "scsi0:0", "--snapshot", "before update") == ("syst", "")
    assert "name one with --disk" in first_bytes(capsys, 2, *given)[1]


def test_in_an_archive(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("tar", "-czf", tmp_path / "vm.tgz", "-C", tmp_path, folder.name)
    given: list[str | Path] = [tmp_path / "vm.tgz", "--member", "vm/vm.vmx", "--disk"]
    assert first_bytes(capsys, 0, *given, "scsi0:1") == ("data", "")


def test_of_an_ova_and_of_libvirt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"a.img": disk(b"system"), "b.img": disk(b"data")}
    slots = {"scsi0:0": ("a.img", 32768), "scsi0:1": ("b.img", 32768)}
    package = ova({"vm.ovf": ovf_file(slots), **files}, tmp_path / "vm.ova")
    assert first_bytes(capsys, 0, package, "--disk", "scsi0:1") == ("data", "")
    write(tmp_path, {"vm.xml": domain_xml({"vda": ("/srv/a.img", "raw"), "vdb": ("/srv/b.img", "raw")}), **files})
    assert first_bytes(capsys, 0, tmp_path / "vm.xml", "--disk", "vda") == ("syst", "")


def test_of_what_is_no_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.img").write_bytes(disk(b"system"))
    found, said = first_bytes(capsys, 2, tmp_path / "x.img", "--disk", "scsi0:0")
    assert not found
    assert "--disk is for the description of a machine (VMX, OVF, OVA, libvirt's XML), which" in said
    shutil.copy(tmp_path / "x.img", tmp_path / "y.img")
    assert main(["diff", str(tmp_path / "x.img"), str(tmp_path / "y.img"), "--disk", "scsi0:0"]) == 2
    assert "--disk is for the description of a machine" in capsys.readouterr().err


def test_what_is_missing_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk whose file is gone is an error; that of another disk is a problem that does not touch this one."""
    (folder / "data.vmdk").unlink()
    found, said = first_bytes(capsys, 1, folder / "vm.vmx", "--disk", "scsi0:0")
    assert found == "chan"
    assert "what was shown or written is whole; the image is damaged elsewhere" in said
    assert "data.vmdk" in said
    found, said = first_bytes(capsys, 1, folder / "vm.vmx", "--disk", "scsi0:1")
    assert not found
    assert "data.vmdk" in said


def test_a_file_of_the_guest_and_a_raw_disk_are_those_of_qemu_img(tmp_path: Path) -> None:
    """A disk with a FAT volume, in a snapshot of VMware's that qemu-img makes; the judge is qemu-img."""
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(4 << 20))
    run("mformat", "-i", raw, "-v", "GUEST", "-T", str((4 << 20) // 512), "-h", "64", "-s", "32", "::")
    (tmp_path / "a.txt").write_text("before")
    run("mcopy", "-i", raw, tmp_path / "a.txt", "::a.txt")
    run("qemu-img", "convert", "-O", "vmdk", raw, tmp_path / "vm.vmdk")
    run("qemu-img", "create", "-f", "vmdk", "-b", "vm.vmdk", "-F", "vmdk", tmp_path / "vm-000001.vmdk")
    run("qemu-io", "-f", "vmdk", "-c", "write -P 7 3M 64k", tmp_path / "vm-000001.vmdk")
    (tmp_path / "vm.vmx").write_bytes(vmx_file({"sata0:0": "vm-000001.vmdk"}))
    (tmp_path / "vm.vmsd").write_bytes(vmsd_file([ForgedSnapshot(1, "first", LATER, {"sata0:0": "vm.vmdk"})]))
    for number, options in enumerate(([], ["--snapshot", "first"])):
        out, judged = tmp_path / f"{number}.raw", tmp_path / f"{number}.judge"
        assert main(["convert", str(tmp_path / "vm.vmx"), str(out), *options]) == 0
        run("qemu-img", "convert", "-O", "raw", tmp_path / ("vm.vmdk" if options else "vm-000001.vmdk"), judged)
        assert out.read_bytes() == judged.read_bytes()
    assert main(["extract", str(tmp_path / "vm.vmx"), str(tmp_path / "files")]) == 0
    assert [path.read_text() for path in (tmp_path / "files").rglob("*.[tT][xX][tT]")] == ["before"]


@pytest.mark.parametrize("command", ["info", "ls", "tree", "sha256", "extract", "convert", "index", "system", "diff"])
def test_every_command_has_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--disk" in capsys.readouterr().out
