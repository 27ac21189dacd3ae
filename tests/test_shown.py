"""Which face shows a value: found by name when it is asked, by the value's type; and what the faces share."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import vmvisor_image
from vmvisor_image import Archive, FileTree, Hexdump, Image, Partition, PartitionTable, Record, Survey
from vmvisor_image.base.shown import Shown
from vmvisor_image.faces.shared import MAP_CELLS, map_cells, map_end
from vmvisor_image.volumes.role import Role

FACES = ("vmvisor_image.faces.notebook", "vmvisor_image.faces.terminal", "rich")
SHOWN = (Archive, FileTree, Hexdump, Image, Partition, PartitionTable, Record, Survey)


class Own(Shown):
    """A type that no face knows."""

    def __repr__(self) -> str:
        return "<Own> & [red]\u202e"


@dataclasses.dataclass(frozen=True)
class Part:
    number: int
    start: int
    size: int
    role: Role = Role.UNKNOWN


def rich(value: object) -> str:
    file = io.StringIO()
    Console(file=file, width=100, force_terminal=False).print(value)
    return file.getvalue()


def test_the_package_loads_no_face() -> None:
    code = f"import sys, vmvisor_image; print(sorted({set(FACES)!r} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_no_module_but_a_face_imports_one() -> None:
    root = Path(vmvisor_image.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"^\s*(from|import) vmvisor_image\.faces", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {path for path in found if not path.startswith("faces/")} == {"__main__.py"}


@pytest.mark.parametrize("kind", SHOWN)
def test_both_methods_are_those_of_one_base(kind: type) -> None:
    assert issubclass(kind, Shown)
    declared = [each for each in kind.__mro__ if {"_repr_html_", "__rich__"} & vars(each).keys()]
    assert declared == [Shown]


def test_a_type_that_no_face_knows_is_its_repr() -> None:
    assert Own()._repr_html_() == "<pre>&lt;Own&gt; &amp; [red]\\u202e</pre>"
    assert "<Own>" in rich(Own())


def test_a_survey_in_a_terminal_is_its_repr() -> None:
    found = Survey(8192, 4096, (0.0, None), 1, 4096)
    assert rich(found) == rich(Own()).replace(repr(Own()), repr(found))


class TestMap:
    def test_is_to_scale_and_every_partition_has_a_cell(self) -> None:
        parts = [Part(1, 0, 1), Part(2, 1, 49), Part(3, 50, 50), Part(4, 60, 1), Part(5, 0, 100, Role.CONTAINER)]
        cells = map_cells(parts, 200)
        assert len(cells) == MAP_CELLS
        drawn = "".join("." if cell is None else str(cell.partition.number) for cell in cells)
        assert drawn == "1" + "2" * 17 + "3" * 3 + "4" + "3" * 14 + "." * 36
        firsts = [cell.partition.number for cell in cells if cell is not None and cell.is_first]
        assert firsts == [1, 3, 4]  # the second begins in the cell of the first, which is smaller

    def test_of_nothing_is_empty(self) -> None:
        assert map_end([], None) == 0
        assert map_cells([]) == [None] * MAP_CELLS
        assert [cell is not None for cell in map_cells([Part(1, 0, 0)])] == [True] + [False] * (MAP_CELLS - 1)
