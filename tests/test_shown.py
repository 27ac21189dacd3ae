"""Which face shows a value: found by name when it is asked, by the value's type; and what the faces share."""

from __future__ import annotations

import dataclasses
import io
import pickle
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import vmvisor_image
from tests.test_purpose import DISKS
from vmvisor_image import (
    Archive,
    FileTree,
    Hexdump,
    Image,
    ImageReport,
    Partition,
    PartitionTable,
    Record,
    Survey,
    VerificationReport,
    inspect,
    verify,
)
from vmvisor_image.base.shown import Shown
from vmvisor_image.disk.explanation import Explanation, next_steps
from vmvisor_image.faces.cli.layout import table_lines, wrapped
from vmvisor_image.faces.cli.main import _parser
from vmvisor_image.faces.shared import (
    MAP_CELLS,
    Column,
    blocks,
    columns_of,
    cut,
    fit,
    map_cells,
    map_end,
    padded,
    sized,
    summary_of_image,
    summary_of_report,
)
from vmvisor_image.reports.inspection import report as report_of
from vmvisor_image.volumes.role import Role
from vmvisor_image.volumes.volume import BaseVolume

FACES = ("vmvisor_image.faces.notebook", "vmvisor_image.faces.terminal", "rich")
SHOWN: tuple[type, ...] = (
    *(Archive, BaseVolume, Explanation, FileTree, Hexdump, Image, ImageReport, Partition, PartitionTable),
    *(Record, Survey, VerificationReport),
)


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

    @property
    def key(self) -> str:
        return str(self.number)


def rich(value: object, width: int = 100) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False).print(value)
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


def test_a_survey_is_a_strip_and_a_line_and_not_its_numbers() -> None:
    found = Survey(16384, 4096, (0.0, None, 8.0, 3.9), 1, 4096)
    assert rich(found).splitlines()[0] == "  [ ?@=]"
    assert "mean 3.97 of 8 bits per byte; 25% of the blocks are zeros" in rich(found)
    assert "mean 3.97 of 8 bits per byte; 25% of the blocks are zeros" in found._repr_html_()


class TestFit:
    COLUMNS = (
        Column("#"),
        Column("Label"),
        Column("Size", 3, is_number=True),
        Column("Type", 1, shortest=6),
        Column("Kind", 2),
    )
    ROWS = (("1", "Hypervisor1", "48.0 MiB", "06 FAT16 of old", "fat16"), ("2", "-", "8 bytes", "fc", "vmkcore"))
    WHOLE = 1 + 11 + 8 + 15 + 7 + 4 * 2

    def test_all_of_it_where_there_is_room_or_no_end(self) -> None:
        for width in (None, self.WHOLE, 200):
            assert fit(self.COLUMNS, self.ROWS, width) == (((0, 1), (1, 11), (2, 8), (3, 15), (4, 7)), ())

    def test_the_least_important_is_cut_then_left_out(self) -> None:
        assert fit(self.COLUMNS, self.ROWS, self.WHOLE - 9).kept[3] == (3, 6)
        assert fit(self.COLUMNS, self.ROWS, self.WHOLE - 10) == (((0, 1), (1, 11), (2, 8), (4, 7)), ("Type",))
        assert fit(self.COLUMNS, self.ROWS, 25).left_out == ("Type", "Kind")

    @given(st.integers(0, 80))
    def test_what_is_kept_fits_or_is_never_left_out(self, width: int) -> None:
        kept, left_out = fit(self.COLUMNS, self.ROWS, width)
        assert {at for at, _ in kept} >= {0, 1}
        assert dict(kept)[1] == len("Hypervisor1")
        assert sum(each for _, each in kept) + 2 * (len(kept) - 1) <= width or left_out == ("Size", "Type", "Kind")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (48 << 20, "48.0 MiB"),
        (1000 << 20, "1000.0 MiB"),
        (5 << 29, "2.5 GiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert sized(size) == text


def test_every_face_says_the_same_of_an_image() -> None:
    disk = DISKS["6.0 with scratch"][0]
    with Image.open(disk) as image:
        report = report_of(image)
        summary = summary_of_report(report)
        of_image = summary_of_image(image)
        assert dataclasses.replace(summary, partitions=()) == dataclasses.replace(of_image, partitions=())
        shown = [rich(image, 200), re.sub(r"<[^>]*>", "", image._repr_html_())]
    assert summary.problems
    for text in shown:
        words = " ".join(text.split())
        for line in (*summary.lines, *map(str, summary.problems)):
            assert unescape(line) in unescape(words), line
        for row in summary.rows:
            for cell in row:
                assert cell in words, cell


def test_what_can_be_done_is_said_in_the_words_of_the_place() -> None:
    with Image.open(DISKS["5.5"][0]) as image:
        explained = image.partitions[5].explained
        shown = (rich(image.partitions[5]), unescape(image.partitions[5]._repr_html_()))
    [last] = [block for block in blocks(explained, "shell") if block.heading == "What you can do"]
    assert all("vmvisor-image " in line for line in last.lines)
    for text in (*shown, str(explained)):
        assert "partition.files" in text
        assert "vmvisor-image" not in text


@pytest.mark.parametrize("role", Role)
def test_each_role_has_steps(role: Role) -> None:
    for has_files in (True, False):
        steps = next_steps("5", role, has_files=has_files)
        assert steps
        assert any(step.command is not None for step in steps)
        for step in steps:
            compile(step.python, "step", "eval")
            if step.command is not None:
                _parser().parse_args(shlex.split(step.command)[1:])


def test_reprs_are_one_line_whatever_they_hold() -> None:
    disk = DISKS["3.5"][0]
    report = inspect(disk)
    assert repr(report) == "<ImageReport of an image: mbr, ESX 3i 3.5, 6 partitions, 0 problems>"
    assert repr(report.partitions[2]) == "<PartitionReport 5 'Hypervisor1': fat16, bootbank, 7 files, 0 problems>"
    assert pickle.loads(pickle.dumps(report)) == report
    checked = verify(disk)
    assert repr(checked) == "<VerificationReport of an image: mbr, 5 partitions, sound>"
    for text in (rich(checked, 200), unescape(checked._repr_html_())):
        assert all(line.strip() in text for line in checked.lines())
    with Image.open(disk) as image:
        assert rich(report) == rich(image)
        assert report._repr_html_() == image._repr_html_()
        assert repr(image.partitions[5].hexdump(0, 64)) == "<Hexdump of 64 bytes from byte 0x0, 21 fields>"


def test_a_volume_is_its_facts_and_its_files() -> None:
    with Image.open(DISKS["3.5"][0]) as image:
        volume = image.partitions[5].volume
        assert isinstance(volume, BaseVolume)
        for text in (rich(volume), unescape(volume._repr_html_())):
            assert "fat16 volume 'Hypervisor1'" in text
            assert "vmkernel.gz" in text
            assert all(name in text and value in text for name, value in volume.facts.items())


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


class TestWideCharacters:
    """Columns of a terminal, against those that rich counts."""

    texts = st.text("ab …é漢字仮名ハングル한글ＡＢ💾\u0301\u0308\u3099", max_size=30)

    @given(texts)
    def test_are_two_columns_and_marks_none(self, text: str) -> None:
        assert columns_of(text) == cell_len(text)

    @given(texts, st.integers(1, 20))
    def test_cut(self, text: str, width: int) -> None:
        shown = cut(text, width)
        assert cell_len(shown) <= width
        assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]) and cell_len(text) > width)
        assert cell_len(padded(shown, width)) == cell_len(padded(shown, width, to_the_right=True)) == width

    @given(texts, st.integers(10, 40))
    def test_wrapped(self, text: str, width: int) -> None:
        lines = wrapped(text, "  ", width=width)
        assert " ".join(lines).split() == text.split()
        longest = max((cell_len(word) for word in text.split()), default=0)
        assert all(cell_len(line) <= max(width, longest + 2) for line in lines)

    @pytest.mark.parametrize("width", [24, 40, None])
    def test_a_table_is_aligned(self, width: int | None) -> None:
        columns = (Column("#"), Column("Label"), Column("Size", is_number=True), Column("Type", 1, shortest=5))
        rows = [("1", "データ", "12", "型" * 9), ("2", "plain", "3 MiB", "x"), ("3", "e\u0301t", "4", "ｗｉｄｅ")]
        lines = [*table_lines(columns, rows, width)][:4]
        for line, row in zip(lines[1:], rows, strict=True):
            assert cell_len(line[: line.index(row[1])]) == cell_len(lines[0][: lines[0].index("Label")])
            end = line.index(row[2], line.index(row[1]) + len(row[1])) + len(row[2])
            assert cell_len(line[:end]) == lines[0].index("Size") + len("Size")
            assert width is None or cell_len(line) <= width
