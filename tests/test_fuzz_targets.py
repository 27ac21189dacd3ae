"""The targets of fuzz/ without atheris: their seeds and a few hundred mutations of them give no foreign error."""

from __future__ import annotations

import random

import pytest

from fuzz.dictionary import magics
from fuzz.harness import load, names

MUTATIONS = 200


def mutate(chance: random.Random, data: bytes, words: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                word = chance.choice(words)
                changed[at : at + len(word)] = word
            case 2:
                del changed[at:]
            case 3:
                start = chance.randrange(len(changed) + 1)
                length = chance.choice([1, 4, 16, 512])
                changed[at : at + length] = changed[start : start + length]
            case _:
                size = chance.choice([1, 2, 4, 8])
                changed[at : at + size] = chance.choice([b"\0", b"\xff", b"\x7f"]) * size
    return bytes(changed)


@pytest.mark.parametrize("name", names())
def test_a_target(name: str) -> None:
    target, chance, words = load(name), random.Random(name), sorted({*magics()})
    seeds = target.seeds()
    assert seeds
    for seed in (b"", *seeds):
        target.one_input(seed)
    for _ in range(MUTATIONS):
        target.one_input(mutate(chance, chance.choice(seeds), words))
