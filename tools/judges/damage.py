"""Damage from a seed: bits, bytes, ranges and ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Place = tuple[int, int]


def damage(
    rng: random.Random, valid: bytes, places: Sequence[Place], repair: Callable[[bytearray], None] | None = None
) -> tuple[str, bytes]:
    """A damaged copy, and what was done to it.

    Args:
        rng: Where all choices come from.
        valid: What is damaged.
        places: Ranges that are hit more often than the rest.
        repair: Puts check sums right again, half of the times.
    """
    data = bytearray(valid)
    told = [rng.choice(_WAYS)(rng, data, places) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
    if repair is not None and rng.random() < 0.5:
        repair(data)
        told.append("check sums put right")
    return ", ".join(told), bytes(data)


def _at(rng: random.Random, data: bytearray, places: Sequence[Place]) -> int:
    if places and rng.random() < 0.8:
        start, end = rng.choice(places)
        return min(rng.randrange(start, max(end, start + 1)), max(len(data) - 1, 0))
    return rng.randrange(max(len(data), 1))


def _flip(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:
    at, bit = _at(rng, data, places), rng.randrange(8)
    data[at : at + 1] = bytes(byte ^ 1 << bit for byte in data[at : at + 1])
    return f"bit {bit} of byte {at:#x} flipped"


def _overwrite(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:
    at = _at(rng, data, places)
    count = rng.choice((1, 1, 1, 2, 2, 4, 4, 8))
    if rng.random() < 0.5:
        at -= at % count
    new = rng.choice((rng.randbytes(count), bytes(count), b"\xff" * count, rng.randrange(5).to_bytes(count, "little")))
    new = new[: max(len(data) - at, 0)]
    data[at : at + len(new)] = new
    return f"{new.hex()} at byte {at:#x}"


def _erase(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:
    at = _at(rng, data, places)
    count = min(rng.choice((4, 16, 32, 512, 512, 4096)), len(data) - at)
    at -= at % (count or 1) if rng.random() < 0.5 else 0
    data[at : at + count] = bytes(count)
    return f"{count} zeros at byte {at:#x}"


def _swap(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:
    count = rng.choice((4, 16, 32, 64, 512))
    one, other = sorted((_at(rng, data, places) // count * count, _at(rng, data, places) // count * count))
    if other + count > len(data) or one == other:
        return "nothing"
    data[one : one + count], data[other : other + count] = data[other : other + count], data[one : one + count]
    return f"{count} bytes at {one:#x} and {other:#x} swapped"


def _copy(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:
    count = rng.choice((2, 4, 16, 32, 64, 512))
    origin, at = (_at(rng, data, places) // count * count for _ in range(2))
    piece = bytes(data[origin : origin + count])[: max(len(data) - at, 0)]
    data[at : at + len(piece)] = piece
    return f"{len(piece)} bytes at {origin:#x} copied to {at:#x}"


def _cut(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:
    at = _at(rng, data, places) if rng.random() < 0.5 else len(data) - rng.randrange(min(len(data), 600) + 1)
    at -= at % rng.choice((1, 512))
    del data[at:]
    return f"cut to {at} bytes"


def _append(rng: random.Random, data: bytearray, places: Sequence[Place]) -> str:  # noqa: ARG001  # as every way
    count = rng.choice((1, 2, 3, 4, 5, 8, 12, 100, 512, 1024))
    data += rng.choice((bytes(count), rng.randbytes(count), bytes(data[:count])))
    return f"{count} bytes appended"


_WAYS = (*[_flip] * 3, *[_overwrite] * 4, _erase, _swap, *[_copy] * 2, _cut, _append)
