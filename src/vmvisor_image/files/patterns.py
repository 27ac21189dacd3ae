"""Patterns of paths: each component by the rules of a shell, and ``**`` for any number of directories."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import InvalidArgument

States = frozenset[int]
"""Numbers of the components that may match the next name of a path."""


class Pattern:
    """A pattern that is matched name by name on the way down, so that only directories that can match are read."""

    def __init__(self, pattern: str, *, fold_case: bool) -> None:
        """Compile a pattern; with `fold_case`, names that differ only in case match, too.

        Raises:
            InvalidArgument: The pattern is empty.
        """
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if not parts:
            raise InvalidArgument("an empty pattern matches nothing")
        self._rules = tuple(None if part == "**" else name_rule(part, fold_case=fold_case) for part in parts)
        self.start = self._reachable({0})
        """States at the directory that the pattern is relative to."""

    def step(self, states: States, name: str) -> tuple[bool, States]:
        """Whether a file of that name matches, and the states below a directory of that name: none where none can."""
        rules = self._rules
        matched = {state + 1 for state in states if (rule := self._rule(state)) is not None and rule(name)}
        stay = {state for state in states if state < len(rules) and rules[state] is None}
        is_match = len(rules) in matched or (rules[-1] is None and len(rules) - 1 in states)
        return is_match, frozenset(state for state in self._reachable(matched | stay) if state < len(rules))

    def _rule(self, state: int) -> Callable[[str], bool] | None:
        return self._rules[state] if state < len(self._rules) else None

    def _reachable(self, states: set[int]) -> States:
        """`states`, and those reached when ``**`` matches no directory."""
        closed = set(states)
        for state, rule in enumerate(self._rules):
            if state in closed and rule is None:
                closed.add(state + 1)
        return frozenset(closed)


def name_rule(part: str, *, fold_case: bool) -> Callable[[str], bool]:
    """Predicate that tells whether a name matches one component of a pattern."""
    exact = re.compile(fnmatch.translate(part))
    if not fold_case:
        return lambda name: exact.match(name) is not None
    folded = re.compile(fnmatch.translate(fold_name(part)))
    return lambda name: exact.match(name) is not None or folded.match(fold_name(name)) is not None


def has_wildcards(part: str) -> bool:
    """Whether a component of a pattern can match other names than itself."""
    return not set(part).isdisjoint("*?[")
