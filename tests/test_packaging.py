"""What the installed package brings along, and what it leaves out until it is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import vmvisor_image
from tests.support import REPOSITORY, require_uv, unavailable
from tests.tool_disk import ToolDisk


def _modules_after(code: str, *arguments: str) -> set[str]:
    """Names of the modules that a new Python has imported once it has run `code`."""
    show = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.check_output([sys.executable, "-c", f"{code}\n{show}", *arguments], text=True)
    return set(json.loads(output))


@pytest.mark.parametrize("package", ["construct", "fs", "fsspec", "hypothesis", "pyfatfs", "rich"])
def test_import_leaves_out(package: str) -> None:
    assert package not in _modules_after("import vmvisor_image")


def test_reading_fat_leaves_out_fs(tool_built_disk: ToolDisk) -> None:
    # `fs` can't be imported beside setuptools 82 or newer.
    code = """
import sys
from vmvisor_image import Image

with Image.open(sys.argv[1]) as image:
    assert image.partitions["Hypervisor1"].files["boot.cfg"].read_bytes()
"""
    modules = _modules_after(code, str(tool_built_disk.image))
    assert "fs" not in modules
    assert "pyfatfs" in modules


def test_ships_its_types() -> None:
    assert resources.files("vmvisor_image").joinpath("py.typed").is_file()


def test_ships_its_licence() -> None:
    about = metadata.metadata("vmvisor-image")
    assert about["License-Expression"] == "Apache-2.0"
    licence = metadata.distribution("vmvisor-image").read_text("licenses/LICENSE")
    assert licence is not None
    assert "Apache License" in licence


def test_installs_the_command() -> None:
    [command] = metadata.entry_points(group="console_scripts", name="vmvisor-image")
    assert command.value == "vmvisor_image.faces.cli:main"


def test_needs_three_packages() -> None:
    needed = metadata.requires("vmvisor-image")
    assert needed is not None
    names = [re.split(r"[<>=]", requirement)[0] for requirement in needed if "extra ==" not in requirement]
    assert sorted(names) == ["construct", "pyfatfs", "zstandard"]


def test_tells_its_version() -> None:
    assert vmvisor_image.__version__ == metadata.version("vmvisor-image")


def _distribution(pattern: str) -> Path:
    """What ``make`` built in dist/."""
    found = sorted((REPOSITORY / "dist").glob(pattern))
    if len(found) != 1:
        unavailable(f"there is not one {pattern} in dist/, which make setup fills")
    return found[0]


_CORE = re.compile(r"vmvisor_image/bzip2/_core\.(abi3\.so|pyd)$")
"""The Rust core, where it was built."""


def _sources() -> set[str]:
    """Paths of the package's own files."""
    root = REPOSITORY / "src"
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not _CORE.match(path.relative_to(root).as_posix())
    }


class TestWheel:
    def test_holds_the_package_its_man_page_and_nothing_else(self) -> None:
        with zipfile.ZipFile(_distribution("*.whl")) as wheel:
            names = {name for name in wheel.namelist() if ".dist-info/" not in name}
            assert wheel.testzip() is None
        version = vmvisor_image.__version__
        man = f"vmvisor_image-{version}.data/data/share/man/man1/vmvisor-image.1"
        assert {name for name in names if not _CORE.match(name)} == _sources() | {man}

    def test_its_metadata_is_valid(self) -> None:
        with zipfile.ZipFile(_distribution("*.whl")) as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            found = Metadata.from_email(wheel.read(name), validate=True)
        assert str(found.version) == vmvisor_image.__version__
        assert str(found.requires_python) == ">=3.11"
        assert {"cli", "crypto", "dask", "parquet"} <= set(found.provides_extra or ())
        assert found.description_content_type == "text/markdown"
        assert (found.description or "").startswith("# vmvisor-image")

    def test_says_what_it_fits(self) -> None:
        """Every Python and platform, or with the core every CPython from 3.11 on of this one."""
        _check_tag(_distribution("*.whl"))


def _check_tag(wheel: Path) -> bool:
    """Check that a wheel's name says whether it has the core; whether it has."""
    with zipfile.ZipFile(wheel) as opened:
        has_core = any(_CORE.match(name) for name in opened.namelist())
        [name] = [name for name in opened.namelist() if name.endswith(".dist-info/WHEEL")]
        about = opened.read(name).decode()
    tag = wheel.stem.split("-", 2)[2]
    if has_core:
        assert tag.startswith("cp311-abi3-")
        assert not tag.endswith("-any")
    else:
        assert tag == "py3-none-any"
    assert f"Tag: {tag}\n" in about
    assert f"Root-Is-Purelib: {'false' if has_core else 'true'}\n" in about
    return has_core


class TestCore:
    """The wheel from the sdist, with and without cargo."""

    def build(self, folder: Path, **environment: str) -> tuple[bool, str]:
        """Whether the wheel has the core, and what was said."""
        with tarfile.open(_distribution("*.tar.gz")) as sdist:
            sdist.extractall(folder, filter="data")
        [source] = folder.iterdir()
        command = [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(folder / "built"),
            str(source),
        ]
        cached = {"CARGO_TARGET_DIR": str(REPOSITORY / "build/cargo")}
        done = subprocess.run(
            command, env={**os.environ, **cached, **environment}, capture_output=True, text=True, check=False
        )
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("vmvisor-image: ")]
        if done.returncode:
            return False, done.stdout + done.stderr
        [wheel] = (folder / "built").glob("*.whl")
        [line] = said
        if has_core := _check_tag(wheel):
            self.check_core(wheel, folder / "unpacked")
        return has_core, line

    def check_core(self, wheel: Path, folder: Path) -> None:
        """Check that the core of a wheel can be loaded, and is used."""
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(folder)
        show = "from vmvisor_image.bzip2 import engine, _core; print(engine(), _core.__file__)"
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        environment.pop("VMVISOR_BZIP2_ENGINE", None)
        said = subprocess.check_output([sys.executable, "-c", show], cwd=folder, env=environment, text=True)
        assert said.startswith(f"rust {folder}")

    def test_with_cargo(self, tmp_path: Path) -> None:
        if shutil.which("cargo") is None:
            pytest.skip("cargo is not on PATH")
        found = self.build(tmp_path / "work", VMVISOR_BUILD_CORE="yes")
        assert found == (True, "vmvisor-image: built with the Rust core")

    def test_a_core_of_another_source_is_not_taken_for_fresh(self, tmp_path: Path) -> None:
        """All files out of an sdist have the same date, and what cargo built before is kept."""
        if shutil.which("cargo") is None:
            pytest.skip("cargo is not on PATH")
        versions = []
        for number in range(2):
            folder = tmp_path / str(number)
            with tarfile.open(_distribution("*.tar.gz")) as sdist:
                sdist.extractall(folder, filter="data")
            [source] = folder.iterdir()
            binding = source / "core/src/python.rs"
            date = binding.stat().st_mtime
            text = binding.read_text().replace('env!("CARGO_PKG_VERSION")', f'"changed {number}"')
            binding.write_text(text)
            os.utime(binding, (date, date))
            command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
            cached = {"CARGO_TARGET_DIR": str(REPOSITORY / "build/cargo"), "VMVISOR_BUILD_CORE": "yes"}
            subprocess.run(command, env={**os.environ, **cached}, capture_output=True, check=True)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                [core] = [name for name in wheel.namelist() if _CORE.match(name)]
                versions.append(re.findall(rb"changed \d", wheel.read(core)))
        assert versions == [[b"changed 0"], [b"changed 1"]]

    def test_without_cargo(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        found = self.build(tmp_path / "work", PATH=str(tmp_path / "empty"))
        reason = "vmvisor-image: built without the Rust core (cargo is not on PATH); libbz2 decodes bzip2"
        assert found == (False, reason)

    def test_with_a_cargo_that_fails(self, tmp_path: Path) -> None:
        program = tmp_path / "bin/cargo"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho noise >&2\necho 'error: rustc 1.63.0 is not supported' >&2\nexit 101\n")
        program.chmod(0o755)
        found = self.build(tmp_path / "work", PATH=f"{program.parent}:/usr/bin:/bin")
        said = "built without the Rust core (cargo: error: rustc 1.63.0 is not supported); libbz2 decodes bzip2"
        assert found == (False, f"vmvisor-image: {said}")
        has_core, said = self.build(
            tmp_path / "again", PATH=f"{program.parent}:/usr/bin:/bin", VMVISOR_BUILD_CORE="yes"
        )
        assert not has_core
        assert "the Rust core can't be built: cargo: error: rustc 1.63.0 is not supported" in said

    def test_switched_off(self, tmp_path: Path) -> None:
        reason = "vmvisor-image: built without the Rust core (VMVISOR_BUILD_CORE=no); libbz2 decodes bzip2"
        assert self.build(tmp_path, VMVISOR_BUILD_CORE="no") == (False, reason)


def test_the_sdist_holds_all_that_a_build_and_the_tests_need() -> None:
    with tarfile.open(_distribution("*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in _sources()} <= names
    assert {"hatch_build.py", "core/Cargo.lock", "core/src/lib.rs", "core/.cargo/config.toml"} <= names
    needed = {"pyproject.toml", "Makefile", "LICENSE", ".ci/run", "docs/man/vmvisor-image.1", "tools/man_page.py"}
    assert needed | {"tests/test_packaging.py", "examples/plugin/pyproject.toml", "benchmarks/fleet.py"} <= names
    unwanted = re.compile(r"(^|/)(\.venv|build|dist|target|__pycache__|\.git)(/|$)|\.dd(\.bz2)?$")
    assert [name for name in names if unwanted.search(name)] == []


AFTER_INSTALL = """
import sys
from importlib import metadata
import vmvisor_image
from vmvisor_image import Image, fleet
from vmvisor_image.testing.forge import fat_volume

with Image.open(fat_volume({"boot.cfg": b"build=1"}, sectors=6000)) as image:
    assert image.partitions[1].files["boot.cfg"].read_bytes() == b"build=1"
assert fleet.scan_one(sys.argv[1])["error"] == "FileNotFoundError"
assert not {"fs", "pkg_resources"} & sys.modules.keys(), "old setuptools' modules were imported"
assert int(metadata.version("setuptools").split(".")[0]) >= 82
if "dask" in sys.argv[2]:
    assert fleet.scan(sys.argv[1]).compute()[0]["ok"] is False
    fleet.write([fleet.scan_one(sys.argv[1])], sys.argv[1] + ".parquet")
else:
    try:
        fleet.scan(sys.argv[1])
    except vmvisor_image.UsageError as error:
        assert "vmvisor-image[dask]" in str(error)
    else:
        raise AssertionError("dask was installed")
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock as constraints for an installer, so that no release of tomorrow is installed."""
    path = tmp_path_factory.mktemp("locked") / "constraints.txt"
    export = [require_uv(), "export", "--quiet", "--frozen", "--all-extras", "--all-groups", "--no-group", "oracle"]
    subprocess.run([*export, "--no-hashes", "--no-emit-project", "--output-file", path], cwd=REPOSITORY, check=True)
    return path


@pytest.mark.parametrize("extras", ["", "[cli,crypto,dask]"])
def test_installs_into_an_empty_environment_beside_a_new_setuptools(extras: str, locked: Path, tmp_path: Path) -> None:
    wheel = _distribution("*.whl")
    environment = tmp_path / "venv"
    uv = require_uv()
    python = environment / "bin/python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", locked]
    subprocess.run([*install, "setuptools", f"{wheel}{extras}"], check=True)
    subprocess.run([uv, "pip", "check", "--quiet", "--python", python], check=True)
    code: list[str | Path] = [python, "-W", "error", "-c", AFTER_INSTALL, str(tmp_path / "none.dd"), extras]
    subprocess.run(code, check=True)
    version = subprocess.check_output([environment / "bin/vmvisor-image", "--version"], text=True)
    assert re.fullmatch(rf"vmvisor-image {re.escape(vmvisor_image.__version__)} \(bzip2: (rust|libbz2)\)\n", version)
    assert (environment / "share/man/man1/vmvisor-image.1").is_file()


class TestTypes:
    """A downstream program is checked against the installed package, from a folder that knows nothing of the source."""

    MISTAKE = "\nassert_type(report.size, str)\n"

    @pytest.fixture(params=["", MISTAKE], ids=["right", "mistaken"])
    def mistakes(self, request: pytest.FixtureRequest, tmp_path: Path) -> int:
        """How many mistakes the program in the test's folder has."""
        text = (REPOSITORY / "tests/typing_example.py").read_text() + request.param
        (tmp_path / "example.py").write_text(text)
        return int(bool(request.param))

    def test_mypy(self, mistakes: int, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache", "example.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.stdout.count("error:") == mistakes, done.stdout
        assert (done.returncode, done.stderr) == (mistakes, "")

    def test_pyright(self, mistakes: int, tmp_path: Path) -> None:
        (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        found = json.loads(done.stdout)
        assert found["summary"]["filesAnalyzed"] == 1
        assert len(found["generalDiagnostics"]) == mistakes, found["generalDiagnostics"]
