"""The directive ``argparse-reference``: a command's reference, made from its `argparse.ArgumentParser`.

    .. argparse-reference:: vmvisor_image.faces.cli.main _parser

Each command is a section: what it does, how it is called, and a list of its arguments.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ArgparseReference(SphinxDirective):
    """Takes a module and the name of a function in it that makes the parser."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Parse the text that `_lines` makes."""
        module, function = self.arguments
        parser: argparse.ArgumentParser = getattr(importlib.import_module(module), function)()
        return self.parse_text_to_nodes("\n".join(_lines(parser)), allow_section_headings=True)


def _lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (_escaped(parser.description or ""), "", _escaped(parser.epilog or ""), "")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield from _command(name, command, helps.get(name, ""))


def _command(name: str, parser: argparse.ArgumentParser, text: str) -> Iterator[str]:
    yield from (f".. _cli-{name}:", "", name, "-" * len(name), "")
    description = parser.description or (text[:1].upper() + text[1:] + ".")
    yield from (_escaped(description), "", ".. code-block:: text", "")
    usage = parser.format_usage().removeprefix("usage: ").split()
    line = "   "
    for word in _grouped(usage):
        if len(line) + len(word) > 76:
            yield line
            line = "      "
        line += f" {word}"
    yield from (line.replace("    ", "   ", 1), "")
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            head = ", ".join(f"``{form}``" for form in _forms(action))
            yield from (head, f"   {_escaped(parser._get_formatter()._expand_help(action))}", "")


def _grouped(words: list[str]) -> Iterator[str]:
    """Words of a usage, those within one pair of brackets together."""
    held: list[str] = []
    for word in words:
        held.append(word)
        joined = " ".join(held)
        if joined.count("[") == joined.count("]"):
            yield joined
            held = []
    if held:
        yield " ".join(held)


def _forms(action: argparse.Action) -> list[str]:
    metavar: Any = action.metavar or action.dest.upper()
    if not action.option_strings:
        return [str(metavar)]
    return [f"{option} {metavar}" if action.nargs != 0 else option for option in action.option_strings]


def _escaped(text: str) -> str:
    for character in "\\*`|_":
        text = text.replace(character, f"\\{character}")
    return text.replace("://", ":\\//")  # an address in an example is no link


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("argparse-reference", ArgparseReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
