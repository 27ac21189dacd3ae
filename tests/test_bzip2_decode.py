"""Decoding one block at any bit, and keeping what it decodes to."""

from __future__ import annotations

import bz2
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_bzip2_forge import (
    BLOCK,
    END,
    MAGICS,
    ForgedBlock,
    false_magics,
    occurrences,
    real_block,
    stream,
    to_bits,
    to_bytes,
)
from vmvisor_image.bzip2.cache import BlockCache
from vmvisor_image.bzip2.decode import Block, DamagedBlock, decode_block, decode_unfollowed, locate_end, read_bits
from vmvisor_image.bzip2.index import BlockEntry, BlockIndex

TEXT = b"what a block of bzip2 holds " * 20


def content(block: Block | None) -> bytes:
    assert block is not None
    data = b"".join(block.read(0, block.size))
    assert len(data) == block.size
    return data


@given(st.binary(min_size=1, max_size=20), st.data())
def test_reads_bits(data: bytes, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, len(data) * 8))
    count = draw.draw(st.integers(0, len(data) * 8 - bit))
    assert read_bits(data, bit, count) == int("0" + to_bits(data)[bit : bit + count], 2)


@pytest.mark.parametrize("alignment", range(8))
@pytest.mark.parametrize("level", range(1, 10))
@pytest.mark.parametrize("follows", MAGICS)
def test_decodes_at_each_alignment(alignment: int, level: int, follows: str) -> None:
    block = real_block(TEXT, level)
    start = 24 + alignment
    data = to_bytes("1" * start + block.bits + MAGICS[follows] + "1" * 20)
    end = start + len(block.bits)
    assert content(decode_block(data, start, end, level)) == TEXT
    assert locate_end(data, start, level, [start + 48, end, end + 100]) == end


@pytest.mark.parametrize("alignment", range(8))
def test_a_block_ends_only_where_it_ends(alignment: int) -> None:
    """A magic before it is false; one after it would take the next blocks in."""
    blocks = [real_block(TEXT[each:]) for each in range(3)]
    bits = "1" * alignment + "".join(block.bits for block in blocks) + END + "1" * 99
    data = to_bytes(bits)
    starts = [alignment, *[alignment + sum(len(block.bits) for block in blocks[: each + 1]) for each in range(3)]]
    for (start, end), block in zip(pairwise(starts), blocks, strict=True):
        assert content(decode_block(data, start, end, 9)) == block.data
        for other in (start + 48, end - 60, *[later for later in starts if later > end]):
            assert decode_block(data, start, other, 9) is None


def test_false_magics_are_no_end() -> None:
    for kind in MAGICS:
        for alignment in range(8):
            block = false_magics(kind, alignment, 2)
            bits = "1" * 5 + block.bits + END + "1" * 40
            found = occurrences(bits, MAGICS[kind])
            end = 5 + len(block.bits)
            candidates = sorted({*found, end} - {5})
            assert len(candidates) == 3
            assert [decode_block(to_bytes(bits), 5, each, 9) is None for each in candidates] == [True, True, False]
            assert locate_end(to_bytes(bits), 5, 9, candidates) == end


def test_what_no_magic_follows_is_refused() -> None:
    block = real_block(TEXT)
    end = len(block.bits)
    for follows in (BLOCK[:-1] + "0", END[:-1] + "1", "0" * 48, "1" * 48):
        data = to_bytes(block.bits + follows + "1" * 48)
        with pytest.raises(DamagedBlock):
            decode_block(data, 0, end, 9)
        for candidates in ([], [end + 60]):
            with pytest.raises(DamagedBlock):
                locate_end(data, 0, 9, candidates)


def test_a_cut_off_block_has_no_end() -> None:
    block = real_block(TEXT)
    bits = block.bits + END
    for length in range(56, len(bits) - 8, 8):
        assert locate_end(to_bytes(bits[:length]), 0, 9, []) is None


@pytest.mark.parametrize("alignment", range(8))
@pytest.mark.parametrize("size", [1, 1000, 30_000, 99_000])
def test_a_block_that_no_magic_follows(alignment: int, size: int) -> None:
    block = real_block(random.Random(size).randbytes(size))
    bits = "1" * alignment + block.bits
    end = (len(bits) + 7) // 8
    for follows in ("", "1" * 3, "0" * 200, "1" * 100_000, BLOCK[:-1] + "0", END[:40]):
        found = decode_unfollowed(to_bytes(bits + follows), alignment, 9)
        assert found is not None
        assert (content(found[0]), found[1]) == (block.data, end)
    assert decode_unfollowed(to_bytes(bits)[: end - 1], alignment, 9) is None
    crc_flipped = bits[: alignment + 50] + "10"[int(bits[alignment + 50])] + bits[alignment + 51 :]
    with pytest.raises(DamagedBlock):
        decode_unfollowed(to_bytes(crc_flipped), alignment, 9)


def test_each_flipped_bit_is_damage_or_changes_nothing() -> None:
    """Some bits do not matter, those of a Huffman table that no symbol uses: libbz2 on the whole stream agrees."""
    block = real_block(b"a small one")
    data = to_bytes(block.bits + END)
    harmless = 0
    for bit in range(48, len(block.bits)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        try:
            found = decode_block(bytes(flipped), 0, len(block.bits), 9)
        except DamagedBlock:
            found = None
        bits = block.bits[:bit] + "10"[int(block.bits[bit])] + block.bits[bit + 1 :]
        try:
            expected = bz2.decompress(stream([ForgedBlock(bits, block.data)]))
        except (OSError, ValueError):
            expected = None
        assert (None if found is None else content(found)) == expected
        harmless += expected is not None
    assert 0 < harmless < len(block.bits) // 4


@pytest.mark.parametrize(("level", "fits"), [(1, False), (2, True), (9, True)])
def test_a_block_larger_than_its_level_is_damage(level: int, fits: bool) -> None:
    content_of_two = random.Random(2).randbytes(150_000)
    block = real_block(content_of_two, 2)
    data = to_bytes(block.bits + END)
    if fits:
        assert content(decode_block(data, 0, len(block.bits), level)) == content_of_two
    else:
        with pytest.raises(DamagedBlock):
            decode_block(data, 0, len(block.bits), level)


def test_long_runs_take_little_memory() -> None:
    """A block can decode to 46 MB."""
    size = 45_000_000
    for data in (
        bytes(size),
        b"\xff" * size,
        b"start" + bytes(size) + b"end",
        bytes(size // 2) + b"\xff" * (size // 2),
    ):
        block = real_block(data)
        decoded = decode_block(to_bytes(block.bits + END), 0, len(block.bits), 9)
        assert decoded is not None
        assert decoded.size == len(data)
        assert decoded.held <= 4 << 20
        for offset, length in (
            (0, 10),
            (size // 2 - 5, 10),
            (len(data) - 10, 10),
            (len(data) - 10, 100),
            (len(data), 5),
        ):
            assert b"".join(decoded.read(offset, length)) == data[offset : offset + length]
    assert content(decoded) == data


@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=5), st.integers(1, 5)), max_size=6),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_a_block_reads_as_its_bytes_do(segments: list[bytes | int], offset: int, length: int) -> None:
    data = b"".join(bytes(each) if isinstance(each, int) else each for each in segments)
    block = Block(tuple(segments), len(data), len(data))
    assert b"".join(block.read(offset, length)) == data[offset : offset + length]


class TestIndex:
    def entry(self, start: int, size: int) -> BlockEntry:
        return BlockEntry(start * 8, (start + size) * 8, 9, start, size, 0)

    def test_finds_the_block_of_each_byte(self) -> None:
        index = BlockIndex()
        assert (len(index), index.end) == (0, 0)
        sizes = [3, 1, 5]
        for size in sizes:
            index.append(self.entry(index.end, size))
        assert (len(index), index.end) == (3, 9)
        assert [index.find(offset) for offset in range(9)] == [0, 0, 0, 1, 2, 2, 2, 2, 2]

    def test_a_block_counts_once(self) -> None:
        index = BlockIndex()
        index.append(self.entry(0, 3))
        index.append(self.entry(0, 3))
        assert (len(index), index.end) == (1, 3)


class TestCache:
    @staticmethod
    def noise(seed: int) -> Block:
        return Block((random.Random(seed).randbytes(100_000),), 100_000, 100_000)

    def test_drops_the_least_recently_used(self) -> None:
        cache: BlockCache[int] = BlockCache(350_000)
        blocks = [self.noise(seed) for seed in range(4)]
        for number in range(3):
            cache.put(number, blocks[number])
        assert content(cache.get(0)) == content(blocks[0])
        cache.put(3, blocks[3])
        assert [cache.get(number) is not None for number in range(4)] == [True, False, True, True]
        cache.put(3, blocks[0])
        assert content(cache.get(3)) == content(blocks[3])
        cache.clear()
        assert [cache.get(number) for number in range(4)] == [None] * 4

    def test_compresses_what_was_not_used_for_long(self) -> None:
        """Of what compresses well far more is kept than the limit has room for."""
        cache: BlockCache[int] = BlockCache(1 << 20)
        tail = random.Random(1).randbytes(100)
        for number in range(50):
            data = (b"%05d" % number) * 40_000 + tail
            cache.put(number, Block((data, 1000, data, tail), len(data) * 2 + 1100, len(data) + 100))
        for number in range(50):
            block = cache.get(number)
            data = (b"%05d" % number) * 40_000 + tail
            assert content(block) == data + bytes(1000) + data + tail
            assert block is not None
            assert block.held == len(data) + 100

    def test_where_decoding_is_quick_only_what_comes_back_is_compressed(self) -> None:
        cache: BlockCache[int] = BlockCache(1 << 20, decodes_quickly=True)
        blocks = [Block((b"%05d" % number * 40_000,), 200_000, 200_000) for number in range(20)]

        def kept() -> list[int]:
            return [number for number in range(20) if cache.get(number) is not None]

        for number in range(20):
            cache.put(number, blocks[number])
        assert kept() == [15, 16, 17, 18, 19], "one pass keeps what fits as it is"
        for number in range(20):
            cache.put(number, blocks[number])
        assert kept() == list(range(20)), "the next one has come back"
        for number in range(20):
            assert content(cache.get(number)) == content(blocks[number])
        cache.clear()
        assert kept() == []

    def test_zero_runs_cost_something(self) -> None:
        """Else a source of zero runs would be kept block by block without end."""
        cache: BlockCache[int] = BlockCache(1 << 20)
        empty = Block((1000,), 1000, 0)
        for number in range(10_000):
            cache.put(number, empty)
        assert sum(cache.get(number) is not None for number in range(10_000)) < 1000

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30), st.integers(0, 500_000))
    def test_gives_what_was_put(self, steps: list[tuple[bool, int]], limit: int) -> None:
        blocks = [self.noise(seed) for seed in range(3)]
        blocks += [Block((bytes([seed]) * 100_000,), 100_000, 100_000) for seed in range(3)]
        cache: BlockCache[int] = BlockCache(limit)
        for puts, number in steps:
            if puts:
                cache.put(number, blocks[number])
                assert cache.get(number) is not None
            elif (found := cache.get(number)) is not None:
                assert content(found) == content(blocks[number])

    def test_one_block_is_always_kept(self) -> None:
        cache: BlockCache[int] = BlockCache(0)
        large = self.noise(1)
        cache.put(1, large)
        assert content(cache.get(1)) == content(large)


def test_the_standard_library_agrees() -> None:
    """The files made here are what they are said to be."""
    for level in (1, 9):
        assert bz2.decompress(stream([real_block(TEXT, level), real_block(TEXT[1:], level)], level)) == TEXT + TEXT[1:]
