"""What a program and the library make of one input, and where they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

RULES: Final = {
    "crash": "an exception that is not the library's own, or no end",
    "other bytes": "the library gives other bytes, and no problem",
    "lost": "the judge reads it, the library neither gives it nor tells of a problem",
    "extra": "the library gives what the judge does not, and tells of no problem",
    "called sound": "the judge refuses it, the library finds nothing wrong",
    "called unsound": "the judge finds nothing wrong, the library does",
}
"""Kinds of difference."""
LISTED: Final = "listed"
"""In the place of a file's SHA-256: the judge names it, and was not asked for its bytes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one program makes of an input."""

    files: Mapping[str, str | None]
    """SHA-256 of each file by its path, None where it can't be read; a disk or stream is one file without a name."""
    complaint: str = ""
    """What it finds wrong; empty where it finds nothing."""
    warning: str = ""
    """What it says beside that."""
    start: bytes | None = None
    """Of a stream that can't be read as a whole, what is before the damage."""
    checks: bool = True
    """Whether its finding nothing says that all is well; False of a program that only reads."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A valid input."""

    path: Path
    """The file that is opened; of several, those beside it belong to it."""
    places: tuple[tuple[int, int], ...] = ()
    """Start and end of each range of the file that says something, where damage tells most."""
    truth: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file by its path, as it was given to the writer."""
    writer: str = ""
    """The program that wrote it, with what it was told."""
    repair: Callable[[bytearray], None] | None = None
    """Puts check sums right after damage, so that it is met behind them."""


@dataclass(frozen=True, slots=True)
class Case:
    """One input, and what was made of it."""

    kind: str
    seed: int
    variant: int
    """0 for the valid input, from 1 for its damaged ones."""
    how: str
    """How it was written, or damaged."""
    data: bytes
    valid: bytes
    judge: str
    said: Reading
    """The judge."""
    ours: Reading


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two see differently."""

    rule: str
    path: str
    """Of the file that it is about; empty for the whole."""
    detail: str
    """What both say; of what is called unsound, one problem that the library tells of."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A class of differences, and why they are right."""

    name: str
    rules: tuple[str, ...]
    applies: Callable[[Case, Difference], bool]
    reason: str


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def differences(case: Case) -> Iterator[Difference]:
    """Where the library differs from the judge."""
    said, ours = case.said, case.ours
    about = f"judge: {said.complaint[:400] or 'nothing wrong'}; we: {ours.complaint[:400] or 'nothing wrong'}"
    if not ours.complaint:
        for rule, path in _silent_differences(said, ours):
            yield Difference(rule, path, about)
    if said.start is not None and ours.start is not None:
        length = min(len(said.start), len(ours.start))
        if said.start[:length] != ours.start[:length]:
            yield Difference("other bytes", "", f"before the damage; {about}")
    if ours.complaint and said.checks and not said.complaint:
        for problem in ours.complaint.split(" | "):
            yield Difference("called unsound", "", problem)


def _silent_differences(said: Reading, ours: Reading) -> Iterator[tuple[str, str]]:
    """Rule and path of each difference where the library tells of no problem."""
    for path, theirs in said.files.items():
        if theirs is None:
            continue
        if ours.files.get(path) is None:
            yield "lost", path
        elif theirs not in (ours.files[path], LISTED):
            yield "other bytes", path
    if said.files and not said.complaint:
        for path, own in ours.files.items():
            if own is not None and path not in said.files:
                yield "extra", path
    if said.complaint:
        yield "called sound", ""
