"""What development is pinned to: uv.lock, with a hash of every file, and the uv that reads it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import REPOSITORY


@cache
def _toml(name: str) -> Any:
    return tomllib.loads((REPOSITORY / name).read_text(encoding="utf-8"))


def _packages() -> list[Any]:
    """The packages of the lock, without the project itself."""
    return [package for package in _toml("uv.lock")["package"] if "registry" in package["source"]]


def _project() -> Any:
    """The project, as the lock has it."""
    [found] = [package for package in _toml("uv.lock")["package"] if package["source"] == {"editable": "."}]
    return found


def _as_locked(requirement: Requirement, extra: str = "") -> tuple[str, tuple[str, ...], SpecifierSet, str]:
    marker = str(requirement.marker or "")
    if extra:
        marker = f"({marker}) and extra == '{extra}'" if " or " in marker else f"{marker} and extra == '{extra}'"
    marker = marker.replace('"', "'").removeprefix(" and ")
    return canonicalize_name(requirement.name), tuple(sorted(requirement.extras)), requirement.specifier, marker


def _read(entries: Iterable[Any]) -> set[tuple[str, tuple[str, ...], SpecifierSet, str]]:
    """What the lock says was asked for."""
    return {
        (
            entry["name"],
            tuple(sorted(entry.get("extras", ()))),
            SpecifierSet(entry.get("specifier", "")),
            entry.get("marker", ""),
        )
        for entry in entries
    }


def _group(name: str) -> list[Requirement]:
    """A dependency group with those it includes."""
    found = []
    for entry in _toml("pyproject.toml")["dependency-groups"][name]:
        found += [Requirement(entry)] if isinstance(entry, str) else _group(entry["include-group"])
    return found


class TestTheLockIsOfWhatPyprojectSays:
    """Compared without the network: `uv lock --check` would ask the index."""

    def test_dependencies_and_extras(self) -> None:
        project = _toml("pyproject.toml")["project"]
        wanted = {_as_locked(Requirement(text)) for text in project["dependencies"]}
        for extra, texts in project["optional-dependencies"].items():
            wanted |= {_as_locked(Requirement(text), extra) for text in texts}
        assert _read(_project()["metadata"]["requires-dist"]) == wanted, "run make lock"

    @pytest.mark.parametrize("name", _toml("pyproject.toml")["dependency-groups"])
    def test_groups(self, name: str) -> None:
        locked = _read(_project()["metadata"]["requires-dev"][name])
        assert locked == {_as_locked(requirement) for requirement in _group(name)}, "run make lock"

    def test_pythons(self) -> None:
        assert _toml("uv.lock")["requires-python"] == _toml("pyproject.toml")["project"]["requires-python"]


def test_everything_is_of_the_public_index_with_hashes() -> None:
    for package in _packages():
        assert package["source"] == {"registry": "https://pypi.org/simple"}
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        for file in files:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"])
            assert file["url"].startswith("https://files.pythonhosted.org/"), (
                "the index of one machine got into the lock"
            )


def test_every_requirement_of_development_has_a_lower_bound() -> None:
    """Without one, the oldest release of all would be tried by `make test-lowest`."""
    groups = [requirement for name in _toml("pyproject.toml")["dependency-groups"] for requirement in _group(name)]
    project = _toml("pyproject.toml")["project"]
    texts = [*project["dependencies"], *(text for texts in project["optional-dependencies"].values() for text in texts)]
    for requirement in [*groups, *map(Requirement, texts)]:
        assert {each.operator for each in requirement.specifier} & {">=", "=="}, requirement


def test_uv_alone_is_pinned_for_pip() -> None:
    lines = (REPOSITORY / "requirements/uv.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith(("#", " "))]
    assert len(entries) == 1
    found = re.fullmatch(r"uv==(\S+) \\", entries[0])
    assert found is not None
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines if line.startswith(" "))
    assert SpecifierSet(_toml("pyproject.toml")["tool"]["uv"]["required-version"]).contains(Version(found[1]))
