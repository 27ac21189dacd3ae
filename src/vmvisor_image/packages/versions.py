"""Versions of packages: their order, and the comparisons of a package's relationships.

A version is ``[EPOCH:]VERSION-RELEASE``. The operators of the relationships (``<<``, ``<=``, ``=``, ``>=``, ``>>``) are
those of Debian Policy, section 7.1, and so is the order, section 5.6.12: digits are compared as numbers, everything
else letter by letter. VMware publishes no rule of its own; on versions of dots and numbers all rules agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from vmvisor_image.packages.descriptor import Constraint

_PIECES: Final = re.compile(r"([^0-9]*)([0-9]*)", re.ASCII)
_HOLDS: Final[Mapping[str, Callable[[int], bool]]] = MappingProxyType(
    {
        "<<": lambda order: order < 0,
        "<": lambda order: order < 0,
        "<=": lambda order: order <= 0,
        "=": lambda order: order == 0,
        "==": lambda order: order == 0,
        ">=": lambda order: order >= 0,
        ">": lambda order: order > 0,
        ">>": lambda order: order > 0,
    }
)


def compare_versions(left: str, right: str) -> int:
    """Order of two versions: less than 0 where `left` is the older one, 0 for equal ones, otherwise more than 0."""
    one, other = _parts(left), _parts(right)
    for a, b in zip(one, other, strict=True):
        if (order := _compare(a, b)) != 0:
            return order
    return 0


def is_met(constraint: Constraint, name: str, version: str | None) -> bool:
    """Whether a package or capability of this name and version is what a constraint names.

    Args:
        constraint: The constraint.
        name: Name of the package or capability.
        version: Its version; None for a capability without one, which meets a constraint on any version only.
    """
    if constraint.name != name:
        return False
    if not constraint.relation or constraint.version is None:
        return True
    holds = _HOLDS.get(constraint.relation)
    return version is not None and holds is not None and holds(compare_versions(version, constraint.version))


def _parts(version: str) -> tuple[str, str, str]:
    """Epoch, version and release."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    main, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return epoch, main, release


def _compare(left: str, right: str) -> int:
    """Order of two parts: text and number by turns, each number as long as there are digits."""
    for (text, digits), (other_text, other_digits) in _pairs(left, right):
        ours, theirs = [*map(_weight, text), 0], [*map(_weight, other_text), 0]
        if ours != theirs:
            return -1 if ours < theirs else 1
        number, other = digits.lstrip("0"), other_digits.lstrip("0")
        if number != other:
            return -1 if (len(number), number) < (len(other), other) else 1
    return 0


def _pairs(left: str, right: str) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    ours, theirs = _PIECES.findall(left), _PIECES.findall(right)
    most = max(len(ours), len(theirs))
    nothing = [("", "")]
    return list(zip(ours + nothing * (most - len(ours)), theirs + nothing * (most - len(theirs)), strict=True))


def _weight(character: str) -> int:
    """Place of a character: a tilde before the end (0), then letters, then everything else."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 0x110000
