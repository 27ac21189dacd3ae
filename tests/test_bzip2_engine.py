"""The two engines: each decodes any block at any bit, both give the same bytes or refuse, and either can be forced."""

from __future__ import annotations

import bz2
import os
import random
import subprocess
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import ENGINES, needs_core
from tests.test_bzip2_decode import TEXT, content
from tests.test_bzip2_forge import (
    BLOCK,
    END,
    MAGICS,
    ForgedBlock,
    crc32,
    false_magics,
    occurrences,
    real_block,
    stream,
    to_bits,
    to_bytes,
)
from tests.tricky_bzip2 import tricky_files
from vmvisor_image import CorruptImage, DependencyMissing, InvalidArgument
from vmvisor_image.bzip2 import Bzip2Reader, engine
from vmvisor_image.bzip2.choose import VARIABLE, make_engine
from vmvisor_image.bzip2.decode import DamagedBlock, new_map
from vmvisor_image.bzip2.engines import Engine
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, END_MAGIC, MAGIC_BITS
from vmvisor_image.streams.sources import BytesSource

_RANDOMISED_BIT = 80
"""Bit of a block that says whether it is of the kind that bzip2 0.9.0 wrote."""


@pytest.fixture(params=ENGINES)
def each(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each engine in turn."""
    name: str = request.param
    monkeypatch.setenv(VARIABLE, name)
    if name == "rust":
        needs_core()
    found = make_engine()
    assert found.name == engine() == name
    return found


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, Engine]:
    """The Rust core and libbz2."""
    needs_core()
    made = []
    for name in ("rust", "libbz2"):
        monkeypatch.setenv(VARIABLE, name)
        made.append(make_engine())
    return made[0], made[1]


def flipped(bits: str, at: int) -> str:
    return bits[:at] + "10"[int(bits[at])] + bits[at + 1 :]


@pytest.mark.parametrize("alignment", range(8))
@pytest.mark.parametrize("follows", MAGICS)
def test_a_block_at_each_alignment(each: Engine, alignment: int, follows: str) -> None:
    for level in range(1, 10):
        block = real_block(TEXT, level)
        start = 24 + alignment
        data = to_bytes("1" * start + block.bits + MAGICS[follows] + "1" * 20)
        end = start + len(block.bits)
        for found in (each.decode(data, start, end, level), each.decode_open(data, start, level)):
            assert found is not None
            assert content(found.block) == TEXT
            assert (found.end_bit, found.crc, found.is_followed) == (end, crc32(TEXT), True)


@pytest.mark.parametrize("alignment", range(8))
def test_a_block_that_no_magic_follows(each: Engine, alignment: int) -> None:
    for size in (1, 1000, 30_000):
        block = real_block(random.Random(size).randbytes(size))
        bits = "1" * alignment + block.bits
        for follows in ("", "1" * 3, "0" * 200, "1" * 10_000, BLOCK[:-1] + "0", END[:40]):
            found = each.decode_open(to_bytes(bits + follows), alignment, 9)
            assert found is not None
            assert content(found.block) == block.data
            assert (found.end_bit, found.crc, found.is_followed) == (-(-len(bits) // 8) * 8, block.crc, False)
        cut = to_bytes(bits)[:-1]
        assert each.decode_open(cut, alignment, 9) is None
        with pytest.raises(DamagedBlock):
            each.decode_open(to_bytes(flipped(bits, alignment + 50)), alignment, 9)


def test_a_false_magic_is_no_end(each: Engine) -> None:
    for kind in MAGICS:
        for alignment in range(8):
            block = false_magics(kind, alignment, 2)
            bits = "1" * 5 + block.bits + END + "1" * 40
            end = 5 + len(block.bits)
            for candidate in sorted({*occurrences(bits[:end], MAGICS[kind])} - {5}):
                data = to_bytes(bits[: candidate + MAGIC_BITS])
                assert each.decode(data, 5, candidate, 9) is None
            found = each.decode_open(to_bytes(bits), 5, 9)
            assert found is not None
            assert (content(found.block), found.end_bit) == (block.data, end)


@pytest.mark.parametrize("level", [1, 2, 8])
def test_a_block_larger_than_its_level(each: Engine, level: int) -> None:
    """Without four equal bytes in a row a block holds exactly as many as its level says."""
    for more in (-1, 0, 1, 50, 100_000):
        data = (bytes(range(251)) * 4000)[: level * 100_000 + more]
        block = real_block(data, 9)
        whole = to_bytes(block.bits + END)
        if more > 0:
            with pytest.raises(DamagedBlock):
                each.decode_open(whole, 0, level)
        else:
            found = each.decode_open(whole, 0, level)
            assert found is not None
            assert content(found.block) == data


def test_long_runs_take_little_memory(each: Engine) -> None:
    """A block can decode to 46 MB."""
    size = 45_000_000
    for data, is_zero in ((bytes(size), True), (b"\xff" * size, False), (b"start" + bytes(size) + b"end", False)):
        block = real_block(data)
        found = each.decode_open(to_bytes(block.bits + END), 0, 9)
        assert found is not None
        assert (found.block.size, found.block.is_zero) == (len(data), is_zero)
        assert found.block.held <= 4 << 20
        assert content(found.block) == data


def test_zeros_are_known_as_such(each: Engine) -> None:
    for size in (1, 3, 4, 5, 259, 65_535, 65_536, 70_000, 1 << 20, 5 << 20):
        found = each.decode_open(to_bytes(real_block(bytes(size)).bits + END), 0, 9)
        assert found is not None
        assert (found.block.is_zero, found.block.held, content(found.block)) == (True, 0, bytes(size))


def test_a_randomised_block(each: Engine) -> None:
    """Of texts that are shorter than the first number of the sequence, nothing is changed but the bit that says so."""
    block = real_block(TEXT[:300])
    bits = flipped(block.bits, _RANDOMISED_BIT)
    assert bz2.decompress(stream([ForgedBlock(bits, block.data)])) == block.data
    data = to_bytes("11" + bits + END)
    for found in (each.decode_open(data, 2, 9), each.decode(data, 2, 2 + len(bits), 9)):
        assert found is not None
        assert (content(found.block), found.end_bit) == (block.data, 2 + len(bits))
    assert Bzip2Reader(BytesSource(stream([block, ForgedBlock(bits, block.data)]))).read_at(0, 600) == block.data * 2


@given(
    kind=st.sampled_from(sorted(MAGICS)),
    pieces=st.lists(st.one_of(st.sampled_from([BLOCK, END]), st.text("01", max_size=40)), max_size=12),
)
def test_both_find_each_magic(kind: str, pieces: list[str]) -> None:
    needs_core()
    from vmvisor_image.bzip2 import _core

    data = to_bytes("".join(pieces))
    number = {"block": BLOCK_MAGIC, "end": END_MAGIC}[kind]
    expected = occurrences(to_bits(data), MAGICS[kind])
    for starts in (len(data), len(data) // 2):
        assert _core.find_magic(data, number, starts) == [bit for bit in expected if bit < starts * 8]
    assert _core.find_magic(memoryview(bytearray(data)), number, len(data)) == expected
    with pytest.raises(ValueError, match="magics"):
        _core.find_magic(data, 1, 1)


@given(st.binary(max_size=400))
def test_the_crc(data: bytes) -> None:
    needs_core()
    from vmvisor_image.bzip2 import _core

    assert _core.crc(data) == crc32(data)


def outcome(decoder: Engine, data: bytes, start: int, level: int) -> tuple[bytes, int, bool] | str:
    """What an engine makes of a block."""
    try:
        found = decoder.decode_open(data, start, level)
    except DamagedBlock:
        return "damaged"
    return "cut off" if found is None else (content(found.block), found.end_bit, found.is_followed)


def sample(chance: random.Random) -> bytes:
    kind, size = chance.randrange(7), chance.choice((1, 2, 5, 50, 700, 3000, 30_000))
    if kind == 0:
        return chance.randbytes(size)
    if kind == 1:
        return bytes([chance.randrange(256)]) * size
    if kind == 2:
        return (chance.randbytes(chance.randrange(1, 9)) * size)[:size]
    if kind == 3:
        runs = chance.choices((1, 3, 4, 5, 255, 258, 259, 260), k=size // 20 + 1)
        return b"".join(bytes([chance.randrange(3)]) * run for run in runs)
    if kind == 4:
        return bytes(chance.choices(b"etaoin shrdlu", k=size))
    if kind == 5:
        return bytes(min(int(chance.expovariate(0.02)), 255) for _ in range(size))
    return bytes(size * 60) + chance.randbytes(9)


@pytest.mark.parametrize("seed", range(6))
def test_both_agree_on_whole_and_damaged_blocks_in_a_row(both: tuple[Engine, Engine], seed: int) -> None:
    """One decoder decodes them all, so that what it keeps of one block would be seen in the next."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    for _ in range(25):
        level = chance.randrange(1, 10)
        block = real_block(sample(chance), level)
        alignment = chance.randrange(8)
        bits = "1" * alignment + block.bits + chance.choice([BLOCK, END, ""])
        whole = to_bytes(bits)
        expected = (block.data, len(bits) - (48 if bits.endswith((BLOCK, END)) else 0))
        found = outcome(both[0], whole, alignment, level)
        assert not isinstance(found, str)
        assert found[:2] == (expected[0], expected[1] if found[2] else -(-expected[1] // 8) * 8)
        for _ in range(12):
            damaged = bytearray(whole)
            for _ in range(chance.choice((1, 1, 2, 20))):
                bit = chance.randrange(alignment + 48, min(len(bits), chance.choice((400, 2000, 1 << 30))))
                if bit != alignment + _RANDOMISED_BIT:
                    damaged[bit // 8] ^= 0x80 >> bit % 8
            del damaged[chance.choice((len(damaged), chance.randrange(7, len(damaged) + 1))) :]
            ours, theirs = (outcome(one, bytes(damaged), alignment, level) for one in both)
            # Which of the two ends a block that is both cut off and damaged is not defined.
            assert ours == theirs or (isinstance(ours, str) and isinstance(theirs, str))
            counts[ours if isinstance(ours, str) else "taken"] += 1
            assert outcome(both[0], whole, alignment, level) == found
    assert counts["damaged"] > 50
    assert counts["cut off"] > 20


def test_both_say_the_same_of_each_flipped_bit(both: tuple[Engine, Engine]) -> None:
    """Some bits do not matter, those of a Huffman table that no symbol uses."""
    block = real_block(b"a small one")
    harmless = 0
    for bit in range(48, len(block.bits)):
        data = to_bytes(flipped(block.bits, bit) + END)
        ours, theirs = (outcome(one, data, 0, 9) for one in both)
        assert ours == theirs
        harmless += not isinstance(ours, str)
    assert 0 < harmless < len(block.bits) // 4


def test_both_say_the_same_of_tricky_files(both: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    for file in tricky_files():
        said: list[object] = []
        for one in both:
            monkeypatch.setenv(VARIABLE, one.name)
            try:
                reader = Bzip2Reader(BytesSource(file.compressed))
            except CorruptImage as error:
                said.append(str(error))
                continue
            assert reader.engine == one.name
            salvaged = [(block.start_bit, block.end_bit, block.data) for block in reader.salvage()]
            problems = [(problem.structure, problem.offset, problem.message) for problem in reader.problems]
            index = reader._walk.index
            entries = [index[number] for number in range(len(index))]
            said.append(
                (salvaged, problems, entries, reader.read_up_to(0, 1 << 30 if file.is_whole else len(file.data)))
            )
        assert said[0] == said[1], file.name


def test_many_threads_use_one_engine(each: Engine) -> None:
    blocks = [real_block(sample(random.Random(seed))) for seed in range(12)]
    wrong = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(30):
            block = chance.choice(blocks)
            found = each.decode_open(to_bytes(block.bits + END), 0, 9)
            if found is None or content(found.block) != block.data:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_any_buffer_is_data() -> None:
    needs_core()
    from vmvisor_image.bzip2 import _core

    data = to_bytes(real_block(TEXT).bits + END)
    decoder = _core.Decoder(new_map)
    expected = decoder.decode(data, 0, 9)
    for buffer in (bytearray(data), memoryview(data), memoryview(b"ab" + data)[2:], memoryview(bytearray(data))):
        assert decoder.decode(buffer, 0, 9) == expected
    with pytest.raises((TypeError, BufferError)):
        decoder.decode("text", 0, 9)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        decoder.decode(data, -1, 9)
    with pytest.raises(_core.TruncatedBlock):
        decoder.decode(data, 1 << 62, 9)


class TestChoice:
    def test_the_core_is_used_where_it_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        needs_core()
        monkeypatch.delenv(VARIABLE, raising=False)
        assert engine() == "rust"

    def test_without_it_libbz2_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.delitem(sys.modules, "vmvisor_image.bzip2.rust", raising=False)
        monkeypatch.setitem(sys.modules, "vmvisor_image.bzip2._core", None)
        monkeypatch.delattr("vmvisor_image.bzip2._core", raising=False)
        assert engine() == "libbz2"
        assert Bzip2Reader(BytesSource(bz2.compress(TEXT))).read_at(0, len(TEXT)) == TEXT
        monkeypatch.setenv(VARIABLE, "rust")
        with pytest.raises(DependencyMissing, match="VMVISOR_BZIP2_ENGINE=rust: the Rust core is not there: this was"):
            Bzip2Reader(BytesSource(bz2.compress(TEXT)))

    def test_one_that_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "fast")
        with pytest.raises(InvalidArgument, match="must be rust or libbz2, not 'fast'"):
            engine()

    def test_the_command_line_says_which(self) -> None:
        for name in ("rust", "libbz2"):
            if name == "rust":
                needs_core()
            command = [sys.executable, "-m", "vmvisor_image", "--version"]
            said = subprocess.check_output(command, env={**os.environ, VARIABLE: name}, text=True)
            assert said.endswith(f" (bzip2: {name})\n")

    def test_importing_loads_no_extension(self) -> None:
        show = (
            "import sys, vmvisor_image.bzip2; print([name for name in sys.modules if name.endswith(('_core', 'rust'))])"
        )
        assert subprocess.check_output([sys.executable, "-c", show], text=True) == "[]\n"
