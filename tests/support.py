"""What tests share: other programs, whose word is compared with ours, and data that the project does not hold."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from vmvisor_image import CorruptImage, ReadAt

REPOSITORY = Path(__file__).resolve().parents[1]
"""The root of the checkout."""

HANGS = 900
"""Seconds after which something is taken to hang; no test waits so long on any machine but for that."""

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

_ENVIRONMENT = {
    **os.environ,
    "PATH": _SEARCH_PATH,
    "LC_ALL": "C",
    "TZ": "UTC",
    "SOURCE_DATE_EPOCH": "1200000000",  # what mtools writes as the present: images come out the same each time
}


def unavailable(reason: str) -> NoReturn:
    """Skip the running test for want of a tool; fail it where VMVISOR_REQUIRE_TOOLS=1 says that all are there."""
    if os.environ.get("VMVISOR_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{reason}, and VMVISOR_REQUIRE_TOOLS=1", pytrace=False)
    pytest.skip(reason)


ENGINES = tuple(filter(None, [os.environ.get("VMVISOR_BZIP2_ENGINE")])) or ("rust", "libbz2")
"""Those that decode bzip2 blocks; where the environment forces one, it alone."""


def needs_core() -> None:
    """Skip the running test where the Rust core is not there; fail it where `make` built it, and it can't be loaded."""
    if "rust" not in ENGINES:
        pytest.skip("VMVISOR_BZIP2_ENGINE forces libbz2")
    try:
        from vmvisor_image.bzip2 import _core  # noqa: F401
    except ImportError as error:
        reason = f"the Rust core is not there ({error})"
        if any((REPOSITORY / "dist").glob("*-abi3-*.whl")):
            pytest.fail(reason)
        pytest.skip(reason)


def require_tool(name: str) -> str:
    """The path of a program, also of one that only root has on PATH; see `unavailable` for a missing one."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        unavailable(f"{name} is not installed")
    return path


def require_python_tool(name: str) -> str:
    """The path of a program that came with a Python package, beside the Python that runs; see `unavailable`."""
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        unavailable(f"{name} is not installed beside {sys.executable}")
    return path


def run(tool: str, *arguments: str | Path, stdin: str = "") -> str:
    """What a program prints; the test fails with what it complains of when its exit status is not 0."""
    command = [require_tool(tool), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` gives in a forked child; a child that hangs says where, is ended and counts as False."""
    if not hasattr(os, "fork"):
        unavailable("there is no fork here")
    faulthandler.register(signal.SIGUSR1, file=2)
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = work()
        except BaseException:  # noqa: BLE001  # the parent's test fails, and shows what is printed
            traceback.print_exc()
        finally:
            os._exit(0 if right else 1)  # whatever happened: the tests go on in the parent only
    ways_to_end = ((HANGS, signal.SIGUSR1), (HANGS + 5, signal.SIGKILL))
    waiters = [threading.Timer(seconds, os.kill, (child, number)) for seconds, number in ways_to_end]
    for waiter in waiters:
        waiter.start()
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for waiter in waiters:
            waiter.cancel()
            waiter.join()  # so that none of them is there in a later test
    return status == 0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait for what another process or thread does; the test fails when that hangs."""
    end = time.monotonic() + HANGS
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {HANGS} seconds")
        time.sleep(0.01)


def end_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that was started in a session of its own, and all that it started, whatever became of them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def require_oracle() -> Path:
    """The Python that has other readers (dissect's, which are AGPL) in an environment of its own; see the Makefile."""
    python = REPOSITORY / "build/venv/oracle/bin/python"
    if not python.is_file():
        unavailable(f"{python} is not there: make setup")
    return python


def require_uv() -> str:
    """The uv that `make` uses, or one on PATH."""
    found = REPOSITORY / "build/uv"
    return str(found) if found.is_file() else require_tool("uv")


def build_once(path: Path, make: Callable[[Path], None]) -> Path:
    """The file or folder `path`, made by whichever test process comes first; the others wait for it."""
    import fcntl  # of Unix only, as are the tools

    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"unfinished-{path.name}")
            make(unfinished)
            unfinished.rename(path)
    return path


def run_to_file(output: Path, tool: str, *arguments: str | Path) -> None:
    """Write what a program prints, which need not be text, to a file."""
    with output.open("wb") as file:
        subprocess.run([require_tool(tool), *map(str, arguments)], stdout=file, env=_ENVIRONMENT, check=True)


class Unreadable:
    """A source of which the bytes from `first` up to `end` can't be read."""

    def __init__(self, source: ReadAt, first: int, end: int) -> None:
        self.source, self.first, self.end, self.size = source, first, end, source.size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < self.end and offset + length > self.first:
            raise CorruptImage("it can't be read", structure="test", offset=max(offset, self.first))
        return self.source.read_at(offset, length)


class Counting:
    """A source that counts what is read of it."""

    def __init__(self, source: ReadAt) -> None:
        self.source = source
        self.size = source.size
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.source.read_at(offset, length)
