"""The help of the commands: its order, and its examples, each of which is run."""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import doc_examples
from tests.media import module
from tests.support import build_once
from vmvisor_image.faces.cli.examples import EXAMPLES
from vmvisor_image.faces.cli.main import _HOMES, _parser

DONE = 0
LASTING = {"mount", "browse"}
"""Commands that go on until somebody ends them, and need FUSE or a terminal; they have tests of their own."""
SHARED = {
    *("--threads", "--member", "--max-seconds", "--max-decoded", "--index", "--cache", "--salvage"),
    *("--snapshot", "--parent", "--no-parent", "--allow-cid-mismatch", "--disk"),
}


def commands() -> dict[str, argparse.ArgumentParser]:
    [found] = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


@pytest.mark.parametrize("name", commands())
@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_the_command_s_own_options_first_and_examples_last(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    command = commands()[name]
    lines = command.format_help().splitlines()
    assert max(map(len, lines)) <= columns
    options = [option for action in command._actions for option in action.option_strings if option.startswith("--")]
    shared = [option for option in options if option in SHARED]
    assert options == [option for option in options if option not in SHARED] + shared
    assert len(EXAMPLES[name]) == 2
    assert lines[-3:] == ["examples:", *(f"  {example}" for example in EXAMPLES[name])]
    assert all(f"vmvisor-image {name}" in example for example in EXAMPLES[name])


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in LASTING])
def test_examples_run(name: str, tmp_path: Path, for_all_workers: Path) -> None:
    images = for_all_workers / "images"
    images.mkdir(exist_ok=True)
    made = build_once(images / "hypervisor.bz2", doc_examples.IMAGES["image.dd.bz2"])
    for copy in ("esx.dd.bz2", "other.dd.bz2"):
        shutil.copy(made, tmp_path / copy)
    (tmp_path / "oem.tgz").write_bytes(module("oem.tgz"))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "vmvisor-image"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vmvisor_image "$@"\n')
    program.chmod(0o755)
    for example in EXAMPLES[name]:
        if "datastore.img" in example:
            shutil.copy(
                build_once(images / "machines.img", doc_examples.IMAGES["machines.img"]), tmp_path / "datastore.img"
            )
        if "installer.iso" in example:
            shutil.copy(build_once(images / "cd.iso", doc_examples.IMAGES["cd.iso"]), tmp_path / "installer.iso")
        done = subprocess.run(
            ["bash", "-c", f'PATH="$PWD/bin:$PATH"; {example}'], cwd=tmp_path, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (DONE, b""), example


@pytest.mark.parametrize("name", commands())
def test_each_command_is_in_the_module_that_the_start_looks_in(name: str) -> None:
    run = commands()[name].get_default("run")
    home = "main" if name == "completion" else _HOMES.get(name, name)
    module = importlib.import_module(f"vmvisor_image.faces.cli.{home}")
    assert callable(getattr(module, run.__name__))


def test_the_start_imports_no_command() -> None:
    code = (
        "import sys; from vmvisor_image.faces.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted({'.'.join(name.split('.')[:3]) for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.removeprefix("vmvisor_image.").partition(".")[0] for name in done.stdout.split() if "image." in name}
    assert "disk" in rooms
    assert not rooms & {"boot", "fleet", "fsspec", "machines", "packages", "reports", "testing"}
