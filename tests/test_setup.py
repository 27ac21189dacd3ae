"""The set-up of a fresh clone: the same packages, whatever pip is there and whatever was released since the lock."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import REPOSITORY, require_tool, unavailable

PIPS = {
    "22.0": "6cb1ea2bd7fda0668e26ae8c3e45188f301a7ef17ff22efe1f70f3643e56a822",
    "26.3": "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",
}
"""The oldest pip that has to do and a new one, with the hashes of their wheels."""

if sys.version_info >= (3, 12):  # on which pip 22 does not run
    PIPS = {"23.2": "78e5353a9dda374b462f2054f83a7b63f3f065c98236a68361845c1b0ee7e35f", "26.3": PIPS["26.3"]}

UV_VERSION = re.findall(r"^uv==(\S+)", (REPOSITORY / "requirements/uv.txt").read_text(), re.MULTILINE)[0]

_NOT_CLONED = shutil.ignore_patterns(
    ".git", ".*_cache", ".venv", ".fuzz", ".hypothesis", "build", "dist", "target", "__pycache__"
)


def fake_wheel(path: Path, name: str, version: str) -> Path:
    """A package with a valid wheel and nothing in it."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: fake\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{folder}/RECORD", "")
    return path


class MovedIndex:
    """A package index on which everything has a newer release, and only uv its pinned one, too."""

    def __init__(self, folder: Path, uv: Path) -> None:
        self.asked: set[str] = set()
        """Names of packages that were looked up."""
        self._folder = folder
        self._uv = uv
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _page(self, name: str) -> bytes:
        files = [fake_wheel(self._folder / f"{name.replace('-', '_')}-9999.0-py3-none-any.whl", name, "9999.0")]
        files += [self._uv] if name == "uv" else []
        links = (
            f'<a href="/files/{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">{file.name}</a>'
            for file in files
        )
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, name = re.sub("[?#].*", "", self.path).strip("/").split("/", 1)
                if kind == "simple":
                    index.asked.add(name)
                    body, content_type = index._page(name), "text/html"
                else:
                    place = index._uv if name == index._uv.name else index._folder / name
                    body, content_type = place.read_bytes(), "application/octet-stream"
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Print nothing."""

        return Handler


@pytest.fixture(scope="module")
def pinned_uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the pinned uv for this machine, from the index that this machine has."""
    folder = tmp_path_factory.mktemp("uv")
    python = venv(folder / "venv")
    command: list[str | Path] = [python, "-m", "pip", "--quiet", "download", "--require-hashes", "--no-deps"]
    command += ["--dest", folder / "wheels", "--requirement", REPOSITORY / "requirements/uv.txt"]
    subprocess.run(command, check=True)
    [wheel] = (folder / "wheels").iterdir()
    return wheel


@pytest.fixture
def moved_index(tmp_path: Path, pinned_uv: Path) -> Iterator[MovedIndex]:
    folder = tmp_path / "index"
    folder.mkdir()
    index = MovedIndex(folder, pinned_uv)
    yield index
    index.close()


def venv(folder: Path) -> Path:
    """The Python of a new environment with the pip that its Python comes with."""
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    if subprocess.run([base, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode:
        unavailable(f"{base} has no ensurepip")
    subprocess.run([base, "-m", "venv", folder], check=True)
    return folder / "bin/python"


def clean_environment(home: Path, python: Path, index: str) -> dict[str, str]:
    """Of a user with nothing set up but a Python whose index is another one."""
    kept = {name: value for name, value in os.environ.items() if not re.match("PIP_|UV_|PYTHON|VIRTUAL_ENV|MAKE", name)}
    certificates = {name: os.environ[name] for name in ("PIP_CERT",) if name in os.environ}
    cache = subprocess.check_output([REPOSITORY / "build/uv", "cache", "dir"], text=True).strip()
    return {
        **kept,
        **certificates,
        "HOME": str(home),
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "PIP_INDEX_URL": index,
        "UV_DEFAULT_INDEX": index,
        "UV_CACHE_DIR": cache,  # what was downloaded is not downloaded again
    }


def installed(uv: Path, environment: Path) -> Mapping[str, str]:
    """Versions by name."""
    listed = subprocess.check_output(
        [uv, "pip", "list", "--quiet", "--python", environment, "--format", "json"], text=True
    )
    return {package["name"]: package["version"] for package in json.loads(listed)}


def clone_with_pip(pip: str, index: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the checkout and the environment of a user whose Python has this pip."""
    if not (REPOSITORY / "build/uv").is_file():
        unavailable("build/uv is not there: make setup")
    clone = folder / "a clone"
    shutil.copytree(REPOSITORY, clone, ignore=_NOT_CLONED)
    python = venv(folder / "venv")
    (folder / "pip.txt").write_text(f"pip=={pip} --hash=sha256:{PIPS[pip]}\n")
    subprocess.run([python, "-m", "pip", "--quiet", "install", "--requirement", folder / "pip.txt"], check=True)
    version = subprocess.check_output([python, "-m", "pip", "--version"], text=True)
    assert version.startswith(f"pip {pip} ")
    return clone, clean_environment(folder, python, index)


def make(clone: Path, environment: Mapping[str, str], target: str) -> None:
    command = [require_tool("make"), target]
    done = subprocess.run(command, cwd=clone, env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("pip", PIPS)
def test_any_pip_installs_the_pinned_uv(pip: str, moved_index: MovedIndex, tmp_path: Path) -> None:
    clone, environment = clone_with_pip(pip, moved_index.url, tmp_path)
    make(clone, environment, "build/uv")
    assert subprocess.check_output([clone / "build/uv", "--version"], text=True).startswith(f"uv {UV_VERSION}")
    assert moved_index.asked == {"uv"}


def test_a_moved_index_changes_nothing(moved_index: MovedIndex, tmp_path: Path) -> None:
    clone, environment = clone_with_pip(next(iter(PIPS)), moved_index.url, tmp_path)
    make(clone, environment, "setup")
    locked: dict[str, set[str]] = {}
    for package in tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]:
        locked.setdefault(package["name"], set()).add(package.get("version", ""))
    for name, needed in {"oldest": {"pytest", "ruff", "construct", "sphinx"}, "build": {"build", "hatchling"}}.items():
        found = dict(installed(clone / "build/uv", clone / "build/venv" / name))
        assert found.keys() >= needed
        found.pop("vmvisor-image", None)
        assert {name: version for name, version in found.items() if version not in locked[name]} == {}
    assert moved_index.asked == {"uv"}, "the lock says where everything else lies"


def program(path: Path, said: str) -> None:
    """A program that prints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'end'\n{said}\nend\n")
    path.chmod(0o755)


class TestFindUv:
    def found(self, home: Path, path: str) -> str:
        """The uv that the script calls which `tools/find_uv.py` writes; pip finds no index."""
        environment = {"HOME": str(home), "PATH": path, "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "0"}
        script = home / "build/uv"
        command: list[str | Path] = [sys.executable, REPOSITORY / "tools/find_uv.py", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said: str = done.stderr.splitlines()[-1]
        else:
            said = subprocess.check_output([script, "--version"], text=True).strip()
        return said

    def test_one_on_path_is_used(self, tmp_path: Path) -> None:
        program(tmp_path / "a b/uv", "uv 99.1.2 (abc 2030-01-01)")
        assert self.found(tmp_path, f"{tmp_path}/a b:/usr/bin:/bin").startswith("uv 99.1.2")

    def test_the_first_that_is_new_enough_and_runs(self, tmp_path: Path) -> None:
        program(tmp_path / "old/uv", "uv 0.2.3")
        program(tmp_path / "shim/uv", "pyenv: uv: command not found")
        program(tmp_path / ".local/bin/uv", "uv 98.0.0")
        assert self.found(tmp_path, f"{tmp_path}/old:{tmp_path}/shim:/usr/bin:/bin") == "uv 98.0.0"

    def test_else_pip_installs_it_or_says_why_not(self, tmp_path: Path) -> None:
        program(tmp_path / "old/uv", "uv 0.2.3")
        said = self.found(tmp_path, f"{tmp_path}/old:/usr/bin:/bin")
        assert said == "error: pip could not install uv, see above; a uv on PATH is used where it is new enough"


class TestFindPythons:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        """Of a home with Pythons on PATH, of pyenv and of uv."""
        for place, said in {
            "bin/python3.12": "CPython final 3 12 1",
            "bin/python3.13": "PyPy final 3 13 0",
            ".pyenv/versions/3.10.13/bin/python3.10": "CPython final 3 10 13",
            ".pyenv/versions/3.11.7/bin/python3.11": "CPython final 3 11 7",
            ".pyenv/versions/3.11.9/bin/python3.11": "CPython final 3 11 9",
            ".pyenv/versions/3.15.0/bin/python3.15": "CPython alpha 3 15 0",
            ".local/share/uv/python/cpython-3.14.0-linux/bin/python3.14": "CPython final 3 14 0",
        }.items():
            program(tmp_path / place, f"{said}\n{tmp_path / place}")
        return {"HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}

    def found(self, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [sys.executable, REPOSITORY / "tools/find_pythons.py", *arguments]
        return subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)

    def test_everywhere_the_latest_of_each(self, environment: dict[str, str], tmp_path: Path) -> None:
        lines = dict(line.split(" ", 1) for line in self.found(environment).stdout.splitlines())
        assert lines["3.11"] == str(tmp_path / ".pyenv/versions/3.11.9/bin/python3.11")
        assert lines["3.14"] == str(tmp_path / ".local/share/uv/python/cpython-3.14.0-linux/bin/python3.14")
        assert {"3.11", "3.12", "3.14"} <= lines.keys()
        assert not {"3.10", "3.15"} & lines.keys(), "too old, and not released"
        assert str(tmp_path / "bin/python3.13") not in lines.values(), "not CPython"
        assert list(lines) == sorted(lines, key=lambda version: int(version.split(".")[1]))

    def test_by_name(self, environment: dict[str, str], tmp_path: Path) -> None:
        lines = self.found(environment).stdout.splitlines()
        assert self.found(environment, "newest").stdout == lines[-1].split(" ", 1)[1] + "\n"
        assert self.found(environment, "oldest").stdout.strip().endswith("3.11.9/bin/python3.11")
        assert self.found(environment, "3.12").stdout == f"{tmp_path}/bin/python3.12\n"

    def test_one_that_is_not_there(self, environment: dict[str, str]) -> None:
        done = self.found(environment, "3.10")
        assert done.returncode == 1
        assert done.stderr.startswith("error: no usable Python 3.10 was found, only 3.11")
