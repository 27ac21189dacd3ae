"""Fixtures and settings of every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import tool_disk
from tests.http_server import Server, http_server
from tests.support import ENGINES, REPOSITORY, needs_core

# No deadlines, and examples may take long to make: a busy machine is no bug.
# CI tries the same examples each time, so that a red run means a change.
_ANY_MACHINE: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.differing_executors]}
settings.register_profile("dev", **_ANY_MACHINE)
settings.register_profile("ci", **_ANY_MACHINE, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


_ON_BOTH_ENGINES = {
    "test_bzip2_index",
    "test_bzip2_reader",
    "test_cpython_bz2",
    "test_interrupts",
    "test_salvage",
    "test_tricky_bzip2",
}
"""Modules whose tests run once with each of the engines that decode bzip2 blocks."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with each engine."""
    if metafunc.module.__name__.rpartition(".")[2] in _ON_BOTH_ENGINES:
        metafunc.parametrize("bzip2_engine", ENGINES, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def bzip2_engine(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Force the engine that decodes bzip2 blocks, where the module's tests run with each."""
    name: str | None = getattr(request, "param", None)
    if name == "rust":
        needs_core()
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            patch.setenv("VMVISOR_BZIP2_ENGINE", name)
        yield name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real bytes that lies beside the repository, where it does; see its README.md."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server on this machine that counts requests and bytes."""
    with http_server() as running:
        yield running


@pytest.fixture(scope="session")
def for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the run share; see `tests.support.build_once`."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "for-all-workers"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tool_built_disk(for_all_workers: Path) -> tool_disk.ToolDisk:
    """An ESX 3i 3.5 disk built by sfdisk, mkfs.fat, mtools, syslinux and bzip2; see `tests.tool_disk`."""
    return tool_disk.build_once(for_all_workers / "tool-built-disk")
