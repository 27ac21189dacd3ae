"""``esx.conf``: the settings of a host, one path and value a line.

Source: public files of ESXi 4 to 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from vmvisor_image.errors import ProblemList

NAME: Final = "esx.conf"
PATH: Final = "etc/vmware/esx.conf"
LARGEST: Final = 1 << 23
"""Bytes that are read of one."""
_MOST_SETTINGS: Final = 100_000
_LINE: Final = re.compile(r'\s*(/\S*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*')
_ESCAPE: Final = re.compile(r"\\(.)")
_CHILD: Final = re.compile(r"child\[([0-9]{1,8})\]", re.ASCII)


def parse_esx_conf(data: bytes, problems: ProblemList) -> dict[str, str]:
    """Settings by their paths; lines that are none are problems."""
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problems.note(NAME, f"line {number} is no setting: {line[:80]!r}")
        elif len(found) >= _MOST_SETTINGS:
            problems.note(NAME, f"settings after the first {_MOST_SETTINGS} are left out")
            break
        else:
            found[match[1]] = _ESCAPE.sub(r"\1", match[2])
    return found


def children(settings: Mapping[str, str], above: str) -> Iterator[dict[str, str]]:
    """Settings of each ``child[N]`` below a path, by the rest of their paths, in the order of the numbers."""
    found: dict[int, dict[str, str]] = {}
    prefix = f"{above}/child["
    for path, value in settings.items():
        if path.startswith(prefix) and (match := _CHILD.match(path, len(above) + 1)) is not None:
            found.setdefault(int(match[1]), {})[path[match.end() :].lstrip("/")] = value
    for number in sorted(found):
        yield {f"/{path}": value for path, value in found[number].items()}


def named_children(settings: Mapping[str, str], above: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and settings of each child below a path that has a name instead of a number, in the order of the file."""
    found: dict[str, dict[str, str]] = {}
    for path, value in settings.items():
        if path.startswith(f"{above}/"):
            name, slash, rest = path[len(above) + 1 :].partition("/")
            if slash:
                found.setdefault(name, {})[rest] = value
    yield from found.items()
