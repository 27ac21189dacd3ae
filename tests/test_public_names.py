"""The names that a user finds: `dir`, completion, and modules that are there without an import of their own."""

from __future__ import annotations

import pydoc
import rlcompleter
import subprocess
import sys

import pytest

import vmvisor_image

MODULES = ("boot", "bzip2", "errors", "fleet", "record", "testing")


def test_dir() -> None:
    names = dir(vmvisor_image)
    assert {*vmvisor_image.__all__, *MODULES, "__version__"} == set(names)
    assert all(getattr(vmvisor_image, name) is not None for name in names)


def test_completion() -> None:
    completer = rlcompleter.Completer({"v": vmvisor_image})
    found = [completer.complete("v.open_", number) for number in range(4)]
    assert [name.rstrip("()") for name in found if name] == ["v.open_archive", "v.open_datastore", "v.open_machine"]


def test_help() -> None:
    text = pydoc.plain(pydoc.render_doc(vmvisor_image))
    for name in ("class Image(", "export_pxe(", "open_archive("):
        assert name in text


@pytest.mark.parametrize("module", MODULES)
def test_a_module_without_an_import_of_its_own(module: str) -> None:
    """Unlike `importlib.metadata`; and none is loaded before it is used."""
    code = (
        "import sys, vmvisor_image\n"
        f"early = 'vmvisor_image.{module}' in sys.modules\n"
        f"print(early, vmvisor_image.{module}.__name__)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    early, name = done.stdout.split()
    assert name == f"vmvisor_image.{module}"
    assert early == "False" or module == "errors"


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vmvisor_image.nothing  # noqa: B018
