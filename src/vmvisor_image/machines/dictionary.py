"""VMware's dictionary files, such as VMX and VMSD: lines of the form ``key = "value"``.

Sources: public files of ESXi, Workstation and Fusion, which agree on the lines and escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.errors import Problem, ProblemList

LARGEST: Final = 1 << 20
"""Number of bytes of a file that are read; a VMX has a few thousand, one with all that can be set some tens of
thousands."""
_MOST_PROBLEMS: Final = 100
"""Largest number of problems reported for one file."""
_LONGEST_SHOWN: Final = 60
"""Characters of a damaged line that its problem shows."""
_ENCODING: Final = re.compile(
    rb"^[ \t]*\.encoding[ \t]*=[ \t]*\"?([\w.:-]{1,40})\"?[ \t]*\r?$", re.MULTILINE | re.IGNORECASE
)
_LINE: Final = re.compile(r'\s*([^\s="#][^\s="]*)\s*=\s*(?:"([^"]*)"|([^"]*))\s*')
_ESCAPES: Final = re.compile(r"(?:\|[0-9A-Fa-f]{2})+")
_UTF_8: Final = "utf-8"
_WITHOUT_NAME: Final = "cp1252"
"""Encoding of a file that names none and is not UTF-8."""
_ENCODINGS: Final = {
    **dict.fromkeys(("utf-8", "utf8"), _UTF_8),
    **dict.fromkeys(("us-ascii", "ascii"), "ascii"),
    **{f"windows-{number}": f"cp{number}" for number in (874, 932, 936, 949, 950, *range(1250, 1259))},
    **dict.fromkeys(("iso-8859-1", "latin1"), "latin-1"),
    **{f"iso-8859-{number}": f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15)},
    **dict.fromkeys(("gbk", "gb2312"), "gbk"),
    **{name: name for name in ("gb18030", "big5", "shift_jis", "euc-jp", "euc-kr", "koi8-r")},
}
"""Python's name for each encoding, by the name that a file has for it. No other codec is looked up
by a name from a file."""


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The settings of one file."""

    settings: Mapping[str, str]
    """Values by key; keys are in lower case, as VMware's programs compare them."""
    encoding: str
    """Encoding in which the file was read, by Python's name."""
    problems: tuple[Problem, ...] = ()
    """Lines that can't be read or are there twice, and doubts about the encoding."""

    def get(self, key: str) -> str | None:
        """Value of a key in lower case; None where there is none, or an empty one."""
        return self.settings.get(key) or None

    def flag(self, key: str) -> bool | None:
        """Whether a value is TRUE; None where it is neither TRUE nor FALSE."""
        return {"true": True, "false": False}.get((self.get(key) or "").strip().lower())

    def number(self, key: str) -> int | None:
        """Value as a decimal number, which may have a sign; None for anything else."""
        text = (self.get(key) or "").strip()
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else None


def parse_dictionary(data: bytes, structure: str) -> Dictionary:
    """Settings of a file; never raises.

    Of a key that is there twice the last value counts, which is a problem: VMware's programs refuse such a file.

    Args:
        data: The whole file, or as many bytes of it as are read.
        structure: Name of the file's format, for its problems.
    """
    problems = ProblemList(structure, _MOST_PROBLEMS)
    if len(data) > LARGEST:
        problems.note(structure, f"only the first {LARGEST} bytes are read", LARGEST)
        data = data[:LARGEST]
    data = data.removeprefix(b"\xef\xbb\xbf")
    encoding = _encoding_of(data, structure, problems)
    settings: dict[str, str] = {}
    seen: dict[str, int] = {}
    offset = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.decode(encoding, "replace").strip(" \t\r\0")
        place = f"line {number}"
        if "\ufffd" in line:
            problems.note(structure, f"{place} has bytes that are not {encoding}", offset)
        match = _LINE.fullmatch(line)
        if match is not None:
            key = match[1].lower()
            if key in seen:
                problems.note(
                    structure, f"{place}: {match[1]!r} is also in line {seen[key]}; the last one counts", offset
                )
            seen[key] = number
            settings[key] = _unescaped((match[2] if match[2] is not None else match[3]).strip("\0"), encoding)
        elif line and not line.startswith("#"):
            shown = printable(line[:_LONGEST_SHOWN]) + ("…" if len(line) > _LONGEST_SHOWN else "")
            problems.note(structure, f'{place} is not of the form key = "value": {shown}', offset)
        offset += len(raw) + 1
    return Dictionary(MappingProxyType(settings), encoding, problems.found)


def _encoding_of(data: bytes, structure: str, problems: ProblemList) -> str:
    """Python's name for the encoding that a file names, or is found to have."""
    match = _ENCODING.search(data)
    if match is not None:
        given = match[1].decode("ascii", "replace")
        if (key := given.lower()) in _ENCODINGS:
            return _ENCODINGS[key]
        problems.note(structure, f"its encoding {given!r} is not known; it is read as UTF-8", match.start())
        return _UTF_8
    try:
        data.decode(_UTF_8)
    except UnicodeDecodeError as error:
        if len(data) < LARGEST or error.start < len(data) - 4:  # a character may be cut off
            problems.note(structure, "it names no encoding and is not UTF-8; it is read as windows-1252", error.start)
            return _WITHOUT_NAME
    return _UTF_8


def _unescaped(text: str, encoding: str) -> str:
    """Value without its escapes: a vertical bar and the two hexadecimal digits of a byte."""

    def decoded(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("|", "")).decode(encoding, "replace")

    return _ESCAPES.sub(decoded, text)
