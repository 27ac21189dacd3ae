"""Damaged partition tables: each is told of with its offset, and what is healthy stays. Tables in the docs are true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doc_tables import PAGES, with_tables
from tests.malformed_tables import CASES, RECORDS, Malformed, mbr
from tests.support import REPOSITORY
from vmvisor_image import Image, Problem, ReadAt, inspect
from vmvisor_image.streams.reading import skip_zeros
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_gpt import esx7_disk
from vmvisor_image.testing.forge_vmfs import vmfs_headers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_told_and_the_rest_stays(case: Malformed) -> None:
    with Image.open(case.build()) as image:
        assert sorted(partition.number for partition in image.partitions) == sorted(case.readable)
        problems = image.problems
        assert problems
        assert all(problem.offset is not None for problem in problems)
        for partition in image.partitions:
            assert partition.explain()
            assert partition.kind


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_true(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert with_tables(text, PAGES[page]) == text, "python -m tests.doc_tables makes it so"


HEADERS: list[tuple[SparseImage, list[tuple[int, int]]]] = [
    (esx7_disk(boot={"a": b"x"}, bank={"boot.cfg": b"build=8.0.0-1\nupdated=1\n"}), [(0, 2048), (0x86900000, 0x1200)]),
    (vmfs_headers("vmfs5"), [(0x100000, 0x400), (0x180600, 0x200), (0x1300000, 0x200), (0x1400000, 0x400)]),
    (vmfs_headers("vmfs6"), [(0x100000, 0x1200), (0x1300000, 0x200), (0x1400000, 0x400)]),
]


@given(st.data())
def test_whatever_the_headers_say_there_is_a_report(data: st.DataObject) -> None:
    disk, areas = data.draw(st.sampled_from(HEADERS))
    damaged: ReadAt = disk
    for _ in range(data.draw(st.integers(1, 4))):
        start, length = data.draw(st.sampled_from(areas))
        at = start + data.draw(st.integers(0, length - 8))
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8)])))
        damaged = Overlay(damaged, at, value)
    report = inspect(damaged)
    assert report.to_dict()
    with Image.open(damaged) as image:
        assert image._repr_html_()


class Overlay:
    """A disk with some bytes changed."""

    def __init__(self, disk: ReadAt, at: int, value: bytes) -> None:
        self._disk, self._at, self._value = disk, at, value
        self.size = disk.size

    def read_at(self, offset: int, length: int) -> bytes:
        data = self._disk.read_at(offset, length)
        first, last = max(offset, self._at), min(offset + length, self._at + len(self._value))
        if first >= last:
            return data
        changed = self._value[first - self._at : last - self._at]
        return data[: first - offset] + changed + data[last - offset :]

    def skip_zeros(self, offset: int, end: int) -> int:
        return min(skip_zeros(self._disk, offset, end), self._at if offset < self._at else end)


def test_problems_past_a_number_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = mbr(*((at + 510, bytes(2)) for at in RECORDS))()
    with Image.open(disk) as image:
        every = image.partitions.problems
    assert len(every) == len(RECORDS)
    monkeypatch.setattr("vmvisor_image.disk.tables.mbr._MOST_PROBLEMS", 1)
    with Image.open(disk) as image:
        first, last = image.partitions.problems
    assert first == every[0]
    assert last == Problem("partition table", f"{len(every) - 1} more problems are left out")
