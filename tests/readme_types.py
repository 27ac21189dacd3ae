"""Types that mypy and pyright see in the README's Python; ``python -m tests.readme_types`` writes the list anew.

Each expression of the examples is put into ``reveal_type``, in a program that knows nothing of the source tree.
"""

from __future__ import annotations

import ast
import doctest
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.doc_examples import Example, examples
from tests.support import REPOSITORY

PAGE: Final = "README.md"
LIST: Final = REPOSITORY / "tests" / "readme_types.txt"
_REVEAL: Final = "reveal_type"
_MYPY: Final = re.compile(r'^program\.py:(\d+):(\d+): note: Revealed type is "(.*)"$', re.MULTILINE)
_PYRIGHT: Final = re.compile(r'^Type of "(?:.*)" is "(.*)"$', re.DOTALL)
_MODULE: Final = re.compile(r"\b(?:\w+\.)+(?=\w)")
_SHOWN: Final = (ast.Call, ast.Attribute, ast.Subscript)


class _Revealing(ast.NodeTransformer):
    """Puts each call, attribute and item into ``reveal_type``; a method is shown by what its call gives."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node.func.value = self.visit(node.func.value)  # type: ignore[assignment]  # an expression stays one
            node.args = [self.visit(each) for each in node.args]  # type: ignore[misc]  # as above
            for keyword in node.keywords:
                keyword.value = self.visit(keyword.value)  # type: ignore[assignment]  # as above
            changed: ast.AST = node
        elif isinstance(node, ast.ImportFrom | ast.Import):
            return node
        else:
            changed = self.generic_visit(node)
        if isinstance(changed, _SHOWN) and isinstance(getattr(changed, "ctx", ast.Load()), ast.Load):
            return ast.Call(ast.Name(_REVEAL, ast.Load()), [changed], [])
        return changed


class _Hiding(ast.NodeTransformer):
    """Takes ``reveal_type`` away again."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return node.args[0] if isinstance(node.func, ast.Name) and node.func.id == _REVEAL else node


def _code(example: Example) -> str:
    """Python of an example; none of a console."""
    if example.language == "pycon":
        return "".join(each.source for each in doctest.DocTestParser().get_examples(example.text))
    return example.text if example.language == "python" else ""


def program() -> str:
    """The README's Python, with ``reveal_type`` around its expressions."""
    tree = ast.parse("\n".join(f"{each.before}\n{_code(each)}" for each in examples(PAGE)))
    text = ast.unparse(ast.fix_missing_locations(_Revealing().visit(tree)))
    return text.replace(f"{_REVEAL}(", f"{_REVEAL}(\n") + "\n"  # mypy says the same of one line only once


def _collect(text: str, found: Mapping[tuple[int, int], str]) -> dict[str, str]:
    """Type of each expression, of those by line, from 1, and column, from 0; an expression has one type everywhere."""
    shown: dict[str, str] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == _REVEAL:
            inner = node.args[0]
            source = ast.unparse(_Hiding().visit(ast.parse(ast.unparse(inner))))
            kind = _MODULE.sub("", found[inner.lineno, inner.col_offset])
            assert shown.setdefault(source, kind) == kind, f"{source} is {shown[source]} and {kind}"
    return dict(sorted(shown.items()))


def by_mypy(folder: Path) -> dict[str, str]:
    """Type of each expression, as mypy has it in strict mode; any error fails."""
    text = program()
    (folder / "program.py").write_text(text, encoding="utf-8")
    options = ["--strict", "--config-file=", "--cache-dir=cache", "--show-column-numbers", "--no-pretty"]
    command = [sys.executable, "-m", "mypy", *options, "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(int(line), int(column) - 1): kind for line, column, kind in _MYPY.findall(done.stdout)}
    return _collect(text, found)


def by_pyright(folder: Path) -> dict[str, str]:
    """Type of each expression, as pyright has it in strict mode; any error fails."""
    text = program()
    (folder / "program.py").write_text(text, encoding="utf-8")
    settings = {"typeCheckingMode": "strict", "reportUnusedExpression": False, "reportDuplicateImport": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found: dict[tuple[int, int], str] = {}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        revealed = _PYRIGHT.match(each["message"])
        assert revealed is not None, each
        start = each["range"]["start"]
        found[start["line"] + 1, start["character"]] = revealed[1]
    return _collect(text, found)


def as_list(types: Mapping[str, str]) -> str:
    """The list as it is kept: a line for each expression, in the order of the alphabet."""
    return "".join(f"{source}: {kind}\n" for source, kind in types.items())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        LIST.write_text(as_list(by_mypy(Path(name))), encoding="utf-8")
