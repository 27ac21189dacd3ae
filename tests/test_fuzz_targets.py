"""The targets of fuzz/ without atheris: their seeds and a few hundred mutations of them give no foreign error."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.dictionary import magics
from fuzz.harness import load, names, with_seeds
from fuzz.patches import Patches
from tests.support import REPOSITORY
from vmvisor_image import ReadAt
from vmvisor_image.testing.forge import SparseImage

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


def test_a_crash_is_tried_again_by_itself(tmp_path: Path) -> None:
    """libFuzzer refuses a file beside a folder of seeds."""
    crash = tmp_path / "crash"
    crash.write_bytes(b"")
    assert with_seeds(["-runs=1", str(crash)], tmp_path) == ["-runs=1", str(crash)]
    assert with_seeds(["-runs=1"], tmp_path) == ["-runs=1", str(tmp_path)]
    assert with_seeds([str(tmp_path)], tmp_path / "seeds") == [str(tmp_path), str(tmp_path / "seeds")]


def test_damage_is_done_where_something_is_read_and_is_not_zero() -> None:
    def read(source: ReadAt) -> None:
        source.read_at(100, 1 << 16)

    image = SparseImage(1 << 30, [(0, b"unread"), (128, b"read"), (1 << 16, b"read, too"), (1 << 20, b"unread")])
    patches = Patches(image, read)
    damaged = [patches.patched(bytes((number, 0, 0, 0, 0xFF))) for number in range(4)]
    assert [change.offset for source in damaged for change in source.changes] == [128, 1 << 16, 128, 1 << 16]
    assert {source.read_at(128, 4) for source in damaged} == {b"read", b"\xffead"}


def test_the_input_of_a_table_may_be_shorter_than_a_sector() -> None:
    load("gpt").one_input(bytes(360) + b"EFI PART" + bytes(20))


def test_targets_need_only_what_is_installed_for_them() -> None:
    """fuzz/oss-fuzz/build.sh installs the library, cryptography and hypothesis."""
    hidden = "sys.modules.update(dict.fromkeys(['pytest', 'rich', 'fsspec']))"
    code = f"import sys; {hidden}; from fuzz.harness import load, names; [load(name).seeds() for name in names()]"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
