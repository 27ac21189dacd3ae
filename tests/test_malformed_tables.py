"""Damaged partition tables: each is told of with its offset, and what is healthy stays. Tables in the docs are true."""

from __future__ import annotations

import pytest

from tests.doc_tables import PAGES, with_tables
from tests.malformed_tables import CASES, Malformed
from tests.support import REPOSITORY
from vmvisor_image import Image


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
