"""What the installed package brings along, and what it leaves out until it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata, resources

import pytest

import vmvisor_image
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
    assert command.value == "vmvisor_image.cli:main"


def test_needs_three_packages() -> None:
    needed = metadata.requires("vmvisor-image")
    assert needed is not None
    names = [re.split(r"[<>=]", requirement)[0] for requirement in needed if "extra ==" not in requirement]
    assert sorted(names) == ["construct", "pyfatfs", "zstandard"]


def test_tells_its_version() -> None:
    assert vmvisor_image.__version__ == metadata.version("vmvisor-image")
