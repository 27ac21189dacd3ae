"""Options of commands for virtual disks that rest on others, with disks that qemu-img makes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import run
from vmvisor_image import CorruptImage, Image
from vmvisor_image.faces.cli import main


def qemu_io(path: Path, *commands: str) -> None:
    run("qemu-io", "-f", path.suffix[1:], *[part for command in commands for part in ("-c", command)], path)


@pytest.fixture(params=["qcow2", "vmdk"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A disk with threes in its second cluster, on one with twos in both."""
    kind = str(request.param)
    below, top = tmp_path / f"below.{kind}", tmp_path / f"top.{kind}"
    run("qemu-img", "create", "-f", kind, below, "4M")
    qemu_io(below, "write -P 2 0 128k")
    run("qemu-img", "create", "-f", kind, "-b", below, "-F", kind, top)
    qemu_io(top, "write -P 3 64k 64k")
    return top


def shown(capsys: pytest.CaptureFixture[str], status: int, *given: str | Path) -> tuple[str, str]:
    """First byte of both clusters by `hexdump`, and what is said on standard error."""
    found = said = ""
    for at in ("0", "65536"):
        assert main(["hexdump", "-s", at, "-n", "16", *map(str, given)]) == status
        captured = capsys.readouterr()
        found += captured.out.split()[1]
        said = captured.err
    return found, said


def test_as_it_is(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, 0, chain) == ("0203", "")


def test_alone(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, said = shown(capsys, 1, chain, "--no-parent")
    assert found == "0003"
    assert "read without its parent" in said


def test_a_parent_that_is_missing(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the option; the one that is elsewhere can be given."""
    below = chain.with_name(f"below{chain.suffix}")
    elsewhere = below.rename(chain.with_name(f"elsewhere{chain.suffix}"))
    assert main(["hexdump", "-n", "16", str(chain)]) == 1
    step = re.search(r"`vmvisor-image (hexdump --no-parent [^`]*)`", capsys.readouterr().err)
    assert step is not None
    assert main(shlex.split(step[1])) == 1
    assert "00 00 00" in capsys.readouterr().out
    assert shown(capsys, 0, chain, "--parent", elsewhere) == ("0203", "")


def test_a_parent_that_has_changed(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qemu_io(chain.with_name(f"below{chain.suffix}"), "write -P 7 0 64k")
    if chain.suffix == ".qcow2":  # which records nothing of its parent's content
        assert shown(capsys, 0, chain) == ("0703", "")
        return
    assert main(["hexdump", str(chain)]) == 1
    assert re.search(r"`vmvisor-image hexdump --allow-cid-mismatch [^`]*`", capsys.readouterr().err)
    found, said = shown(capsys, 1, chain, "--allow-cid-mismatch")
    assert found == "0703"
    assert "has changed since" in said


def test_a_snapshot_inside(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if chain.suffix == ".qcow2":
        run("qemu-img", "snapshot", "-c", "before", chain)
        qemu_io(chain, "write -P 9 0 64k")
        assert shown(capsys, 0, chain)[0] == "0903"
        assert shown(capsys, 0, chain, "--snapshot", "before")[0] == "0203"
    assert main(["hexdump", str(chain), "--snapshot", "none"]) == 2
    assert "there is no snapshot 'none'" in capsys.readouterr().err


def test_both_parents_are_refused(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["info", str(chain), "--no-parent", "--parent", "x"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "ls", "tree", "sha256", "extract", "convert", "index"])
def test_every_command_has_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert all(option in told for option in ("--snapshot", "--parent", "--no-parent", "--allow-cid-mismatch"))


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="there are no such devices")
@pytest.mark.parametrize("name", ["null", "/dev/null", "../dev/null"])
def test_a_disk_on_standard_input_chooses_no_device(name: str, tmp_path: Path) -> None:
    """Beside /dev/stdin lie the devices of the machine; the same holds for a disk that is on a device."""
    path = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-u", "-b", name, "-F", "raw", path, "4M")
    code = "import sys; from vmvisor_image.faces.cli import main; sys.exit(main(['info', '-']))"
    with path.open("rb") as given:
        done = subprocess.run([sys.executable, "-c", code], stdin=given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "its own directory is not known" in done.stderr


def test_a_device_has_no_files_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device is a path that is not of a file."""
    below, top = tmp_path / "below", tmp_path / "top"
    run("qemu-img", "create", "-f", "qcow2", below, "4M")
    run("qemu-img", "create", "-f", "qcow2", "-b", below, "-F", "qcow2", top)
    with Image.open(top) as image:
        assert len(image.chain) == 2
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    with pytest.raises(CorruptImage, match="its own directory is not known"), Image.open(top) as image:
        len(image.chain)
