"""The house: which rooms there are, what each may import, and that the drawing of it in the docs is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import vmvisor_image
from tests.support import REPOSITORY

PACKAGE = Path(vmvisor_image.__file__).parent
MOST_ENTRIES = 24
_COLUMN = 17
"""Where the modules begin in a line of the drawing."""
DOORS = {
    ("files.file", "File.open_archive", "archives.archive"),
    ("files.file", "File.open_image", "disk.image"),
    ("files.file", "File.open_machine", "machines.opening"),
    ("files.file", "File.open_module", "boot.modules"),
    ("disk.image", "Image.system", "boot.system"),
}
"""Module, function, and what it opens: the imports that go up, as docs/adr/0025-the-house.md has them."""
LATE = {
    ("faces.cli.advice", "one_line", "vmvisor_image.packages.bundle"): 46,
    ("fleet", "scan", "vmvisor_image.base.dask_bag"): 0,
    ("streams.opening", "open_remote", "vmvisor_image.streams.remote"): 10,
    ("bzip2.reader", "Bzip2Reader._open_cache", "vmvisor_image.bzip2.decoded_cache"): 5,
    ("bzip2.choose", "make_engine", "vmvisor_image.bzip2.rust"): 1,
    ("errors", "NameNotFound.similar", "difflib"): 14,
    ("base.system_errors", "_hint", "difflib"): 14,
    ("faces.cli.live", "run_browse", "vmvisor_image.faces.browse"): 0,
    ("faces.cli.live", "run_mount", "vmvisor_image.fsspec.file_system"): 0,
    ("faces.cli.live", "run_mount", "vmvisor_image.fsspec.mount"): 0,
    ("volumes.plugins", "_load", "importlib.metadata"): 30,
    ("volumes.guests.plugin", "open_volume", "vmvisor_image.volumes.guests.volume"): 12,
}
"""Imports inside functions that go down, by module and function: milliseconds of CPU that everybody would pay else.

The module of dask's bag imports dask, that of the Rust engine an extension, and those of `faces.cli.live` what extras
bring: all are optional.
"""
LATE_PACKAGES = {"construct": 100, "pyfatfs": 6, "zstandard": 14}
"""Packages that are always there, and are imported inside functions wherever they are needed: milliseconds."""
OPTIONAL = {
    "cryptography",
    "distributed",
    "fcntl",
    "fsspec",
    "mfusepy",
    "msvcrt",
    "pyarrow",
    "pyasn1",
    "pyasn1_modules",
    "resource",
    "rich",
    "shtab",
    "textual",
}
"""Packages of the extras, and modules of one operating system: they are not there everywhere."""


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def _drawing() -> tuple[list[list[str]], set[str]]:
    """Rooms on each floor of the drawing, from the top; and the rooms and modules that are in it."""
    text = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(faces.*?)```", text, re.DOTALL)
    assert block is not None
    floors: list[list[str]] = []
    drawn: set[str] = set()
    room = ""
    for line in block[1].splitlines():
        head, names = line[:_COLUMN], line[_COLUMN:].split()
        if head.strip():  # otherwise the line before goes on
            room = head.strip(" |/")
            drawn.add(room)
            if head.startswith("|"):
                floors[-1].append(room)
            else:
                floors.append([room])
        drawn |= {f"{room}.{name}" for name in names}
    return floors, drawn


def _inner_imports(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
    """Imports inside functions, each with the function's name, behind that of its class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            for name, found in _inner_imports(node, ""):
                yield f"{node.name}.{name}", found
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _inner_imports(node, inside or node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom) and inside:
            yield inside, node
        else:
            yield from _inner_imports(node, inside)


def test_few_rooms() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_imports_go_down() -> None:
    """The contract is in pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_are_the_drawing() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    rooms, circles = settings["contracts"]
    assert (rooms["type"], circles["type"]) == ("layers", "acyclic_siblings")
    floors, _ = _drawing()
    assert rooms["layers"] == [" | ".join(f"vmvisor_image.{room}" for room in floor) for floor in floors]
    doors = {f"vmvisor_image.{door} -> vmvisor_image.{to}" for door, _, to in DOORS}
    assert set(rooms["ignore_imports"]) == set(circles["ignore_imports"]) == doors


def test_the_drawing_has_every_room_and_module() -> None:
    _, drawn = _drawing()
    there = set()
    for name, path in _modules():
        room, *inside = name.split(".")
        if path.name != "__init__.py" and room != "__main__":
            there |= {room, *([f"{room}.{inside[0]}{'/' if inside[1:] else ''}"] if inside else [])}
    assert drawn == there


def test_folders_hand_names_on_and_do_nothing_else() -> None:
    for name, path in _modules():
        if path.name == "__init__.py" and path.parent != PACKAGE:
            rest = [
                node
                for node in ast.parse(path.read_text(encoding="utf-8")).body
                if not isinstance(node, ast.ImportFrom | ast.Expr)
                and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
            ]
            assert not rest, name


def test_imports_inside_functions() -> None:
    """Only the doors, what may be missing, and what start-up time needs."""
    late, doors, packages = set(), set(), set()
    for name, path in _modules():
        for function, node in _inner_imports(ast.parse(path.read_text(encoding="utf-8"))):
            targets = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for target in targets:
                top = target.partition(".")[0]
                if (door := (name, function, target.removeprefix("vmvisor_image."))) in DOORS:
                    doors.add(door)
                elif top in LATE_PACKAGES:
                    packages.add(top)
                elif top not in OPTIONAL:
                    late.add((name, function, target))
    assert doors == DOORS
    assert packages == LATE_PACKAGES.keys()
    assert late == LATE.keys()
