"""Damage to a large forged image as an input of a few bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vmvisor_image import ReadAt
from vmvisor_image.streams.reading import skip_zeros
from vmvisor_image.testing.damage import Change, DamagedSource

_MOST_CHANGES: Final = 32
_HEAD: Final = 4
"""Two bytes for the line, one for the place in it, one for the length."""
_LINE: Final = 64


class Patches:
    """The lines of a large image that are worth damage: those that are read and are not all zeros.

    Most of a volume says nothing (free space, content, tables of resources that nothing refers to), and damage to it
    is the same input over and over.
    """

    def __init__(self, source: ReadAt, read: Callable[[ReadAt], None]) -> None:
        """Find the lines of `source` that `read` asks for."""
        self._source = _Remembered(source)
        read(self._source)
        self._lines = sorted(self._source.lines())

    def patched(self, program: bytes) -> DamagedSource:
        """The image with bytes changed as `program` says: line, place in it, length 1-16, the bytes; and so on."""
        changes: list[Change] = []
        while len(program) > _HEAD and len(changes) < _MOST_CHANGES:
            line = self._lines[int.from_bytes(program[:2], "little") % len(self._lines)]
            length = program[3] % 16 + 1
            changes.append(Change(line + program[2] % _LINE, program[_HEAD : _HEAD + length]))
            program = program[_HEAD + length :]
        return DamagedSource(self._source, changes)


class _Remembered:
    """A source that remembers what was read of it up to `lines`: every run reads most of it again."""

    def __init__(self, source: ReadAt) -> None:
        self._source = source
        self._seen: dict[tuple[int, int], bytes] = {}
        self._remembers = True
        self.size = source.size

    def read_at(self, offset: int, length: int) -> bytes:
        data = self._seen.get((offset, length))
        if data is None:
            data = self._source.read_at(offset, length)
            if self._remembers:
                self._seen[offset, length] = data
        return data

    def lines(self) -> set[int]:
        """Offsets of the lines that were read and are not all zeros."""
        self._remembers = False
        found = set()
        for (offset, _), data in self._seen.items():
            lead = offset % _LINE
            padded = bytes(lead) + data
            found |= {offset - lead + at for at in range(0, len(padded), _LINE) if any(padded[at : at + _LINE])}
        return found

    def skip_zeros(self, offset: int, end: int) -> int:
        return skip_zeros(self._source, offset, end)
