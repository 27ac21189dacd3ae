"""fsspec's own abstract tests, as far as they read: `get`, and what `open` and `pipe` do before they write.

What they would write into the file system was forged before; what stays different is in `DIFFERENT`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract

from vmvisor_image.fsspec import VmvisorFileSystem
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

DIFFERENT = {
    "test_open_exclusive": "an image is never written",
    "test_pipe_exclusive": "an image is never written",
}


class _Forged(VmvisorFileSystem):
    """An image that holds already what the tests make."""

    def _is_there(self, path: str, **_: Any) -> None:
        assert self.exists(path)

    mkdir = makedirs = touch = rm = _is_there  # type: ignore[assignment]


def _join(*parts: str) -> str:
    return "/".join(parts)


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A disk with a folder for each scenario, in which fsspec's own functions have written it."""
    folder, local = tmp_path_factory.mktemp("scenarios"), LocalFileSystem(auto_mkdir=True)
    fixtures = abstract.BaseAbstractFixtures()
    for scenario in ("_bulk_operations_scenario_0", "_glob_edge_cases_files", "_10_files_with_hashed_names"):
        getattr(fixtures, scenario)(local, _join, str(folder / scenario))
    fixtures._dir_and_file_with_same_name_prefix(local, _join, str(folder / "_dir_and_file_with_same_name_prefix"))
    local.touch(str(folder / "src/file"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    volume = fat_volume(files, sectors=6000, label="Hypervisor1")
    return b"".join(mbr_disk([ForgedPartition(1, 6, 1, 6000, content=volume)], sectors=6001).chunks())


class _Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    @pytest.fixture(autouse=True)
    def listed(self, request: pytest.FixtureRequest) -> None:
        reason = DIFFERENT.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def fs(self, forged: bytes) -> Iterator[VmvisorFileSystem]:
        made = _Forged(forged)
        yield made
        made.close()

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return _join

    @pytest.fixture
    def fs_path(self) -> str:
        return "Hypervisor1"

    @pytest.fixture
    def local_path(self, tmp_path: Path) -> str:
        return str(tmp_path)

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return "Hypervisor1/_bulk_operations_scenario_0/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return "Hypervisor1/_glob_edge_cases_files/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return "Hypervisor1/_dir_and_file_with_same_name_prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return "Hypervisor1/_10_files_with_hashed_names/source"


class TestGet(_Fixtures, abstract.AbstractGetTests):  # type: ignore[misc]
    pass


class TestOpen(_Fixtures, abstract.AbstractOpenTests):  # type: ignore[misc]
    pass


class TestPipe(_Fixtures, abstract.AbstractPipeTests):  # type: ignore[misc]
    pass
