"""The program that holds the library against others: it finds what differs, and nothing does in a small run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, require_tool
from tools.judges.comparison import LISTED, Case, Reading, differences

PROGRAMS = {"fat": ("mkfs.fat", "mcopy", "fsck.fat"), "tar": ("tar", "bsdtar")}


@pytest.mark.parametrize("kind", ["fat", "tar", "xz", "gzip", "bzip2", "qcow2", "vmdk", "vhd", "vhdx"])
def test_a_small_run(kind: str) -> None:
    for program in PROGRAMS.get(kind, (kind if kind in ("xz", "gzip", "bzip2") else "qemu-img",)):
        require_tool(program)
    command = [sys.executable, "-m", "tools.judges", "--kind", kind, "--count", "4", "--variants", "3", "--seed", "1"]
    done = subprocess.run([*command, "--jobs", "1"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seeds 1 to 4" in done.stdout


def rules(said: Reading, ours: Reading) -> set[str]:
    return {each.rule for each in differences(Case("kind", 1, 0, "", b"", b"", "judge", said, ours))}


def test_what_differs_is_told() -> None:
    good = Reading({"a": "1"})
    assert rules(good, good) == set()
    assert rules(good, Reading({"a": "2"})) == {"other bytes"}
    assert rules(good, Reading({"a": None})) == {"lost"}
    assert rules(good, Reading({})) == {"lost"}
    assert rules(good, Reading({"a": "1", "b": "1"})) == {"extra"}
    assert rules(good, Reading({"a": "1"}, "damaged")) == {"called unsound"}
    assert rules(Reading({"a": "1"}, "damaged"), good) == {"called sound"}
    assert rules(Reading({"a": LISTED}), good) == set()
    assert rules(Reading({}, "damaged", start=b"ab"), Reading({}, "damaged", start=b"a")) == set()
    assert rules(Reading({}, "damaged", start=b"ab"), Reading({}, "damaged", start=b"b")) == {"other bytes"}
    assert rules(Reading({"a": "1"}, checks=False), Reading({"a": "1"}, "damaged")) == set()


def test_inputs_come_of_their_seeds(tmp_path: Path) -> None:
    require_tool("xz")
    command = [sys.executable, "-m", "tools.judges", "--kind", "xz", "--count", "2", "--jobs", "1", "--keep"]
    for folder in ("one", "other"):
        subprocess.run([*command, tmp_path / folder], capture_output=True, cwd=REPOSITORY, check=True)
    for path in (tmp_path / "one").glob("*/*"):
        assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "one")).read_bytes()
