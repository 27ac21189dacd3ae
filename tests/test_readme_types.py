"""The types of all that the README's Python says, by mypy and by pyright: precise, the same, and as they were."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.readme_types import LIST, as_list, by_mypy, by_pyright


@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
def test_types_are_as_listed(checker: Callable[[Path], dict[str, str]], tmp_path: Path) -> None:
    """`python -m tests.readme_types` writes the list anew where the README has changed."""
    types = checker(tmp_path)
    assert types
    vague = {source: kind for source, kind in types.items() if re.search(r"\b(Any|Unknown|object)\b", kind)}
    assert vague == {}
    assert as_list(types) == LIST.read_text(encoding="utf-8")
