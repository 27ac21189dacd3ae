"""Damage to a large forged image as an input of a few bytes."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

from vmvisor_image import ReadAt
from vmvisor_image.testing.damage import Change, DamagedSource
from vmvisor_image.testing.forge import SparseImage

_MOST_CHANGES: Final = 32
_HEAD: Final = 4
"""Three bytes for the place, one for the length."""


def patched(source: ReadAt, program: bytes) -> DamagedSource:
    """`source` with bytes changed as `program` says: place among the bytes that are no hole, length 1-16, the bytes."""
    pieces = source.pieces if isinstance(source, SparseImage) else ((0, bytes(source.size)),)
    ends = list(accumulate(len(data) for _, data in pieces))
    changes: list[Change] = []
    while len(program) > _HEAD and len(changes) < _MOST_CHANGES:
        place = int.from_bytes(program[:3], "little") % ends[-1]
        length = program[3] % 16 + 1
        number = bisect_right(ends, place)
        at = pieces[number][0] + place - (ends[number - 1] if number else 0)
        changes.append(Change(at, program[_HEAD : _HEAD + length]))
        program = program[_HEAD + length :]
    return DamagedSource(source, changes)
