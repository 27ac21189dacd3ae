"""What development is pinned to: everything, with hashes, in versions that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import REPOSITORY

_LOCKS = REPOSITORY / "requirements"


def _pinned(lock: Path) -> dict[str, list[str]]:
    """Versions by name, and that each has a hash; a name may have one for each range of Pythons."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", lock.read_text()):
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", block)
        if match is not None:
            assert "--hash=sha256:" in block, match[0]
            found.setdefault(canonicalize_name(match[1]), []).append(match[2])
    return found


def _wanted(extras: Sequence[str]) -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    texts = [*project["project"]["dependencies"]]
    for extra in extras:
        texts += project["project"]["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(("name", "extras"), [("runtime", ()), ("dev", ("cli", "dev", "test"))])
def test_the_lock_is_of_what_pyproject_says(name: str, extras: Sequence[str]) -> None:
    pinned = _pinned(_LOCKS / f"{name}.txt")
    stale = [
        str(wanted)
        for wanted in _wanted(extras)
        if not any(wanted.specifier.contains(version) for version in pinned.get(canonicalize_name(wanted.name), []))
    ]
    assert stale == [], "run make lock"


@pytest.mark.parametrize("name", ["build", "tools"])
def test_the_lock_has_the_tools(name: str) -> None:
    lines = (_LOCKS / f"{name}.in").read_text().splitlines()
    pinned = _pinned(_LOCKS / {"build": "dev.txt", "tools": "tools.txt"}[name])
    wanted = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [each.name for each in wanted if canonicalize_name(each.name) not in pinned] == []


def test_releases_need_what_they_declare_and_no_more() -> None:
    assert set(_pinned(_LOCKS / "runtime.txt")) >= {"construct", "pyfatfs", "zstandard"}
    assert set(_pinned(_LOCKS / "runtime.txt")) <= set(_pinned(_LOCKS / "dev.txt"))
