"""Finding magics: every one at any bit, found once, wherever a window ends."""

from __future__ import annotations

import bz2
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_bzip2_forge import (
    BLOCK,
    EMPTY_STREAM,
    END,
    MAGICS,
    false_magics,
    occurrences,
    stream,
    to_bits,
    to_bytes,
)
from vmvisor_image.bzip2.scan import BLOCK_MAGIC, END_MAGIC, MAGIC_BITS, WINDOW, MagicScanner, count_blocks, find_magic
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource

NUMBERS = {"block": BLOCK_MAGIC, "end": END_MAGIC}


class FailsOnce:
    """A source that fails at one of its reads."""

    def __init__(self, source: ReadAt, fails_at: int) -> None:
        self.size = source.size
        self._source = source
        self._left = fails_at

    def read_at(self, offset: int, length: int) -> bytes:
        self._left -= 1
        if self._left == 0:
            raise OSError(5, "Input/output error")
        return self._source.read_at(offset, length)


def all_of(scanner: MagicScanner) -> list[int]:
    found, bit = [], -1
    while (position := scanner.after(bit)) is not None:
        found.append(position)
        bit = position
    return found


@given(
    kind=st.sampled_from(sorted(MAGICS)),
    pieces=st.lists(st.one_of(st.sampled_from([BLOCK, END]), st.text("01", max_size=40)), max_size=12),
)
def test_finds_each_magic(kind: str, pieces: list[str]) -> None:
    data = to_bytes("".join(pieces))
    expected = occurrences(to_bits(data), MAGICS[kind])
    assert find_magic(data, NUMBERS[kind], len(data)) == expected
    assert all_of(MagicScanner(BytesSource(data), NUMBERS[kind])) == expected


@pytest.mark.parametrize("kind", MAGICS)
def test_only_starts_within_the_range_count(kind: str) -> None:
    for bit in range(32):
        data = to_bytes("0" * bit + MAGICS[kind])
        for starts in range(6):
            assert find_magic(data, NUMBERS[kind], starts) == ([bit] if bit < starts * 8 else [])


@pytest.mark.parametrize("kind", MAGICS)
def test_cut_off_magics_are_none(kind: str) -> None:
    for bit in range(8):
        whole = to_bytes("1" * bit + MAGICS[kind])
        for shorter in range(len(whole)):
            assert find_magic(whole[:shorter], NUMBERS[kind], shorter) == []


@pytest.mark.parametrize("kind", MAGICS)
@pytest.mark.parametrize("windows", [1, 2])
def test_a_window_ends_anywhere_in_a_magic(kind: str, windows: int) -> None:
    border = windows * WINDOW
    filler = random.Random(windows).randbytes(border - 10)
    for bit in range(120):
        tail = to_bytes("0" * bit + MAGICS[kind])
        assert all_of(MagicScanner(BytesSource(filler + tail), NUMBERS[kind])) == [len(filler) * 8 + bit]


def test_two_magics_never_begin_in_the_same_byte() -> None:
    """The decoder tells candidates apart by the byte their block ends in."""
    for first in MAGICS.values():
        for second in MAGICS.values():
            assert not any(first[shift:] == second[: MAGIC_BITS - shift] for shift in range(1, 8))


@given(st.lists(st.integers(0, 3 * WINDOW * 8), max_size=8), st.integers(0, 3 * WINDOW * 8), st.data())
def test_scanner_answers_in_any_order(places: list[int], start: int, data: st.DataObject) -> None:
    spaced: list[int] = []
    for place in sorted(places):
        if not spaced or place >= spaced[-1] + MAGIC_BITS:
            spaced.append(place)
    content = bytearray(3 * WINDOW + 10)
    for place in spaced:
        value = BLOCK_MAGIC << (-(place + MAGIC_BITS) % 8)
        first, last = place // 8, (place + MAGIC_BITS + 7) // 8
        old = int.from_bytes(content[first:last], "big")
        content[first:last] = (old | value).to_bytes(last - first, "big")
    scanner = MagicScanner(BytesSource(content), BLOCK_MAGIC, start)
    known = [place for place in spaced if place >= start]
    forgotten = -1
    for _ in range(data.draw(st.integers(1, 6))):
        bit = data.draw(st.integers(forgotten, 3 * WINDOW * 8))
        match data.draw(st.sampled_from(["after", "between", "forget"])):
            case "after":
                assert scanner.after(bit) == next((place for place in known if place > bit), None)
            case "between":
                last = data.draw(st.integers(bit, 3 * WINDOW * 8))
                assert scanner.between(bit, last) == next((place for place in known if bit < place < last), None)
            case _:
                scanner.forget(bit)
                forgotten = max(bit, forgotten)


def test_between_reads_no_further_than_its_end() -> None:
    source = BytesSource(bytes(10 * WINDOW))
    reads: list[int] = []

    class Counted:
        size = source.size

        def read_at(self, offset: int, length: int) -> bytes:
            reads.append(offset)
            return source.read_at(offset, length)

    assert MagicScanner(Counted(), BLOCK_MAGIC).between(0, 2 * WINDOW * 8) is None
    assert reads == [0, WINDOW]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_failed_read_loses_nothing(fails_at: int) -> None:
    content = to_bytes((BLOCK + "0" * 13) * 3) + bytes(WINDOW) + to_bytes(BLOCK) + bytes(WINDOW) + to_bytes("0" + BLOCK)
    scanner = MagicScanner(FailsOnce(BytesSource(content), fails_at), BLOCK_MAGIC)
    with pytest.raises(OSError, match="Input/output"):
        all_of(scanner)
    assert all_of(scanner) == all_of(MagicScanner(BytesSource(content), BLOCK_MAGIC))


def test_counts_blocks() -> None:
    content = random.Random(1).randbytes(350_000)
    assert count_blocks(BytesSource(bz2.compress(content, 1))) == 4
    assert count_blocks(BytesSource(bz2.compress(content) + EMPTY_STREAM + bz2.compress(content, 2))) == 3
    assert count_blocks(BytesSource(EMPTY_STREAM)) == 0
    assert count_blocks(BytesSource(b"")) == 0
    assert count_blocks(BytesSource(stream([false_magics("block", 3, count=2)]))) == 3, "false ones are not told apart"
