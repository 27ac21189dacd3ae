"""The programs in examples/, run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import notebook_page
from tests.media import small_disk
from tests.support import HANGS, REPOSITORY
from vmvisor_image import Image

EXAMPLES = REPOSITORY / "examples"


def run(name: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of an example."""
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    return done.returncode, done.stdout, done.stderr


def disk(path: Path, build: int, **changed: bytes) -> Path:
    configuration = f"kernel=b.z\nmodules=k.z\nbuild=4.1.0-{build}\nupdated=1\nbootstate=0\n".encode()
    files = {"boot.cfg": configuration, "b.z": b"kernel", "k.z": b"module", **changed}
    small_disk(files).write_to(path)
    return path


class TestTftpRoot:
    def test_builds_one_menu_of_all(self, tmp_path: Path) -> None:
        images = [disk(tmp_path / f"esx {build}.dd", build) for build in (1, 2)]
        root = tmp_path / "tftp"
        status, out, err = run("tftp_root.py", root, *images)
        assert (status, err) == (0, "")
        assert out.splitlines() == ["esx-1: 5 files, run", "esx-2: 5 files, run"]
        menu = (root / "pxelinux.cfg/default").read_text()
        assert menu.startswith("default esx-1\n")
        for label in ("esx-1", "esx-2"):
            assert f"label {label}\n  kernel {label}/mboot.c32\n" in menu
            assert f"append {label}/b.z --- {label}/k.z" in menu
            assert (root / label / "b.z").read_bytes() == b"kernel"

    def test_leaves_out_what_is_bad(self, tmp_path: Path) -> None:
        (tmp_path / "junk.dd").write_bytes(b"junk" * 1000)
        root = tmp_path / "tftp"
        good = disk(tmp_path / "good.dd", 1)
        status, out, err = run("tftp_root.py", root, tmp_path / "junk.dd", good, good)
        assert status == 1
        assert out == "good: 5 files, run\n"
        assert [line.split(": ")[1] for line in err.splitlines()] == ["left out", "left out"]

    def test_replaces_nothing(self, tmp_path: Path) -> None:
        assert run("tftp_root.py", tmp_path, "x.dd")[0] == 2


class TestTriage:
    def test_hashes_every_file_of_every_bank(self, tmp_path: Path) -> None:
        path = disk(tmp_path / "disk.dd", 1)
        status, out, err = run("triage.py", path)
        assert (status, err) == (0, "")
        with Image.open(path) as image:
            files = image.partitions[1].files
            assert out.splitlines() == [f"{file.sha256()}  '1/{name}'" for name, file in files.items()]

    def test_compares(self, tmp_path: Path) -> None:
        before = disk(tmp_path / "before.dd", 1)
        after = disk(tmp_path / "after.dd", 1, **{"k.z": b"another", "oem.tgz": b"implant"})
        assert run("triage.py", before, before) == (0, "", "")
        assert run("triage.py", before, after) == (1, "! 1/k.z\n+ 1/oem.tgz\n", "")
        assert run("triage.py", after, before) == (1, "! 1/k.z\n- 1/oem.tgz\n", "")

    def test_trouble(self, tmp_path: Path) -> None:
        assert run("triage.py", tmp_path / "none.dd")[0] == 2
        assert run("triage.py", "a", "b", "c")[0] == 2


@pytest.fixture(scope="module")
def executed() -> Any:
    return notebook_page.execute(EXAMPLES / "fleet.ipynb")


def test_the_notebook(executed: Any) -> None:
    shown = notebook_page.page(executed)
    for part in ("host-damaged.dd.bz2", "host-260247.dd.bz2", "4.1.0", "164009"):
        assert part in shown


def test_the_notebook_of_a_host() -> None:
    pytest.importorskip("cryptography")
    shown = notebook_page.page(notebook_page.execute(EXAMPLES / "host.ipynb"))
    for part in (
        "help: uid 0, password none",
        "base.v00    altered",
        "driver.v00  verified",
        "tool.v00    belongs",
        "extra.tgz   unsigned",
        "('bin/door', 'bin/miner')",
        "bin/door: None was shipped",
        "etc/rc.local: b'# nothing",
    ):
        assert part in shown, part


def test_the_notebook_of_guests() -> None:
    shown = notebook_page.page(notebook_page.execute(EXAMPLES / "guests.ipynb"))
    for part in ("lab-guest", "Accepted publickey", "../usr/share/zoneinfo/UTC", "etc/os-release", "ext4 file system"):
        assert part in shown
