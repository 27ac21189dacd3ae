"""What the commands print is what the snapshots have, and fits the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import snapshots
from tests.snapshots import COMMANDS, FOLDER, IMAGE, WIDTHS, path_of, printed, write_images
from tests.support import build_once

UNCUT = ("VMware-viclient", "driver-with-a-long-name", "Hypervisor3", IMAGE)
"""Words to type: they are whole at every width, if they are there."""


@pytest.fixture(scope="module")
def folder(for_all_workers: Path) -> Path:
    """The folder of the images."""
    made = for_all_workers / "snapshots"
    build_once(made, write_images)
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_the_output_is_that_of_the_snapshot(name: str, folder: Path) -> None:
    for columns in WIDTHS:
        expected = path_of(name, columns).read_text(encoding="utf-8")
        assert printed(name, columns, folder) == expected, f"python -m {snapshots.__name__} writes it anew"


def test_there_is_no_snapshot_of_anything_else() -> None:
    assert {*FOLDER.iterdir()} == {path_of(name, columns) for name in COMMANDS for columns in WIDTHS}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_lines_fit_but_for_a_path_that_is_longer(name: str, columns: int) -> None:
    lines = path_of(name, columns).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > columns and not line.endswith("-258902.exe")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pipe_loses_nothing_that_a_terminal_has(name: str) -> None:
    """And each word of a wide terminal is in its line; what has to be typed is whole at every width."""
    whole = path_of(name, None).read_text(encoding="utf-8")
    for columns in (80, 120):
        text = path_of(name, columns).read_text(encoding="utf-8")
        shown = re.sub(r"\(no room for [^)]*\)", "", text)
        words = {word for word in shown.split() if "…" not in word}
        assert words <= set(whole.split())
        assert [word for word in UNCUT if whole.count(word) != text.count(word)] == []


def test_the_narrow_ones_say_what_they_leave_out() -> None:
    for name in ("info", "scan"):
        narrow, whole = (path_of(name, columns).read_text(encoding="utf-8") for columns in (80, None))
        headings = [
            next(line for line in text.splitlines() if "Path" in line or "Role" in line) for text in (narrow, whole)
        ]
        [note] = [line for line in narrow.splitlines() if "no room for" in line]
        for heading in headings[1].split():
            assert (heading in headings[0].split()) != (heading in note), heading
        assert "no room for" not in whole


def test_piped_output_does_not_depend_on_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = path_of("info", None).read_text(encoding="utf-8")
    for value in ("20", "500"):
        monkeypatch.setenv("COLUMNS", value)
        assert printed("info", None, folder, keep_columns=True) == expected
