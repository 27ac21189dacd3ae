"""Write the man page from the command line's own parser: ``tools/man_page.py FILE``, or to standard output."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vmvisor_image import __version__
from vmvisor_image.faces.cli.main import _parser


def escape(text: str) -> str:
    """Text as roff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^(?=[.'])", "\\&", text)


def page() -> str:
    parser = _parser()
    lines = [
        f'.TH VMVISOR\\-IMAGE 1 "" "vmvisor\\-image {__version__}" "User Commands"',
        ".SH NAME",
        "vmvisor\\-image \\- take hypervisor disk images apart",
        ".SH SYNOPSIS",
        ".B vmvisor\\-image",
        ".I COMMAND",
        "[options] arguments",
        ".SH DESCRIPTION",
        escape(parser.description or ""),
        "No file that is read is ever written to.",
        ".SH COMMANDS",
    ]
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {action.dest: action.help for action in commands._choices_actions}
    for name, command in commands.choices.items():
        lines += [f".SS {escape(name)}", escape(sentence(command.description or helps[name] or "")), ".PP"]
        lines += synopsis(name, command)
        for action in own_actions(command):
            lines += describe(action)
        shared = [action for group in command._action_groups[2:] for action in group._group_actions]
        if shared:
            lines.append(f".PP\n{escape(sentence(command._action_groups[2].title or ''))}")
        for action in shared:
            lines += describe(action)
        first, *examples = (command.epilog or "").splitlines() or [""]
        if examples:
            lines += [f".PP\n{escape(sentence(first.rstrip(':')))}", ".nf", *map(escape, examples), ".fi"]
    return "\n".join(
        [
            *lines,
            ".SH EXIT STATUS",
            ".TP\n0\ndone",
            ".TP\n1\nbad input: what is read is damaged, or none of the formats that are read",
            ".TP\n2\nmisuse: an argument, a name, a destination",
            ".PP\nAn error is one line on standard error.",
            ".SH EXAMPLES",
            ".nf",
            *map(
                escape,
                (
                    "vmvisor-image info VMware-VMvisor-big-3.5.0-67921.i386.dd.bz2",
                    "vmvisor-image pxe VMware-VMvisor-big-3.5.0-67921.i386.dd.bz2 /srv/tftp/3i",
                    "vmvisor-image scan 'images/**/*.bz2' --out report.parquet",
                ),
            ),
            ".fi",
            ".SH SEE ALSO",
            ".BR bzip2 (1),",
            ".BR sfdisk (8)",
            "",
        ]
    )


def own_actions(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """Arguments and options that are the command's own, in the order of its help."""
    own = [action for group in command._action_groups[:2] for action in group._group_actions]
    return [action for action in own if not isinstance(action, argparse._HelpAction)]


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def synopsis(name: str, command: argparse.ArgumentParser) -> list[str]:
    words = [f".B vmvisor\\-image {escape(name)}\n[options]"]
    for action in command._actions:
        if not action.option_strings:
            shown = f"\\fI{escape(str(action.metavar))}\\fR"
            many = " ..." if action.nargs in ("*", "+") else ""
            words.append(f"[{shown}{many}]" if action.nargs in ("?", "*") else f"{shown}{many}")
    return words


def describe(action: argparse.Action) -> Iterator[str]:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    if action.option_strings:
        names = ", ".join(f"\\fB{escape(name)}\\fR" for name in action.option_strings)
        title = f"{names} \\fI{escape(value)}\\fR" if value else names
    else:
        title = f"\\fI{escape(value)}\\fR"
    yield f".TP\n{title}\n{escape((action.help or '') % {**vars(action), 'prog': 'vmvisor-image'})}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
