"""What wraps a disk: gzip, xz and zstd, made by their own tools, whole and damaged."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import pickle
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.support import in_child, require_tool
from vmvisor_image import CorruptImage, Image, TruncatedImage
from vmvisor_image.compressions import gzip as gzip_layer
from vmvisor_image.compressions import xz, zstd
from vmvisor_image.compressions.framed import FramedReader
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.sequential import PIECE, SequentialReader
from vmvisor_image.layers.unwrap import unwrap
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.sources import BytesSource

NOISE = random.Random(5)
DATA = b"".join(NOISE.randbytes(9000) + b"and some text that compresses " * 700 for _ in range(100))
"""3 MB: twelve pieces."""

Reader = FramedReader | SequentialReader


def open_bytes(compressed: bytes) -> Reader:
    [layer] = unwrap(BytesSource(compressed), None, LayerOptions())
    assert isinstance(layer.source, FramedReader | SequentialReader)
    return layer.source


def tool(*command: str) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        program = [require_tool(command[0]), *command[1:]]
        return subprocess.run(program, input=data, capture_output=True, check=True).stdout

    return compress


def in_parts(compress: Callable[[bytes], bytes], joint: bytes = b"") -> Callable[[bytes], bytes]:
    return lambda data: joint.join(compress(data[at : at + 700_000]) for at in range(0, len(data), 700_000))


def seekable(data: bytes, size: int = 100_000, *, checksums: bool = False) -> bytes:
    """As the format's description has it."""
    frames = [zstandard.ZstdCompressor().compress(data[at : at + size]) for at in range(0, len(data), size)]
    entries = b"".join(
        struct.pack("<II", len(frame), min(size, len(data) - number * size)) + (bytes(4) if checksums else b"")
        for number, frame in enumerate(frames)
    )
    footer = struct.pack("<IBI", len(frames), 0x80 if checksums else 0, 0x8F92EAB1)
    return b"".join(frames) + struct.pack("<II", 0x184D2A5E, len(entries) + 9) + entries + footer


_NAMED = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\3\0abcname\0comment\0"
"""A header of gzip that says everything it can."""
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": tool("gzip", "-c"),
    "gzip members": in_parts(gzip.compress),
    "gzip with a name": lambda data: _NAMED + (zlib.crc32(_NAMED) & 0xFFFF).to_bytes(2, "little") + _deflated(data),
    "xz": tool("xz", "-c"),
    "xz -T2": tool("xz", "-c", "-T2", "--block-size=500000"),
    "xz streams": in_parts(lzma.compress, bytes(8)),
    "xz without checks": lambda data: lzma.compress(data, check=lzma.CHECK_NONE),
    "xz SHA-256": lambda data: lzma.compress(data, check=lzma.CHECK_SHA256),
    "zstd": tool("zstd", "-c"),
    "zstd of unknown size": tool("zstd", "-c", "--no-check"),
    "zstd frames": in_parts(zstandard.ZstdCompressor(write_checksum=True).compress),
    "zstd with skippable frames": in_parts(zstandard.compress, b"\x53\x2a\x4d\x18\3\0\0\0abc"),
    "zstd seekable": seekable,
    "zstd seekable with checksums": lambda data: seekable(data, checksums=True),
}


def _deflated(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush() + struct.pack("<II", zlib.crc32(data), len(data))


EVERY_WAY = pytest.mark.parametrize("way", WAYS)
_MADE: dict[str, bytes] = {}


def made(way: str) -> bytes:
    if way not in _MADE:
        _MADE[way] = WAYS[way](DATA)
    return _MADE[way]


def xz_made_of(blocks: bytes, index: bytes, check: int) -> bytes:
    """A stream with that type of checks, whose index holds those records, in front of its padding and CRC."""
    flags = bytes((0, check))
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + flags
    head = b"\xfd7zXZ\0" + flags + zlib.crc32(flags).to_bytes(4, "little")
    return head + blocks + index + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"


def xz_says(data: bytes) -> int:
    return subprocess.run([require_tool("xz"), "-t"], input=data, capture_output=True, check=False).returncode


@pytest.mark.parametrize("unpadded", [0, 4])
def test_an_xz_index_of_a_block_that_is_too_small_to_be_one(unpadded: int) -> None:
    data = xz_made_of(bytes(unpadded), b"\0\1" + bytes((unpadded, 0)), 1)
    assert xz_says(data) == 1
    assert xz_says(xz_made_of(b"", b"\0\0", 1)) == 0, "the test itself is wrong"
    with pytest.raises(CorruptImage, match="damaged"):
        open_bytes(data).size  # noqa: B018  # asked for, not used


@pytest.mark.parametrize("known_size", [True, False])
def test_xz_checks_of_a_type_that_is_not_known_are_told_of(*, known_size: bool) -> None:
    """As xz does, whose exit status is 2 then: it decodes the data and can't verify it."""
    made = lzma.compress(b"some data" * 99, check=lzma.CHECK_CRC32)
    size = (int.from_bytes(made[-8:-4], "little") + 1) * 4
    data = xz_made_of(made[12 : -12 - size], made[-12 - size : -12 - 4], 2)
    assert xz_says(data) == 2
    if known_size:
        reader: Reader = open_bytes(lzma.compress(b"before") + data)
    else:
        source = BytesSource(lzma.compress(b"before") + data)
        reader = LayerOptions().sequential("xz data", lambda: xz.XzDecoder(source))
    assert reader.read_at(0, 6 + 891) == b"before" + b"some data" * 99
    assert reader.size == 6 + 891
    [problem] = reader.problems
    assert "not checked" in problem.message
    assert problem.offset == len(lzma.compress(b"before"))


def test_skippable_frames_of_lz4_are_not_taken_for_zstd() -> None:
    skippable = b"\x50\x2a\x4d\x18\3\0\0\0abc"
    compressed = tool("lz4", "-c")(DATA)
    for data in (skippable + compressed, skippable * 3 + compressed, skippable + b"\x02\x21\x4c\x18" + bytes(9)):
        assert unwrap(BytesSource(data), None, LayerOptions()) == ()
    for data in (skippable, skippable + zstandard.compress(DATA), skippable + b"damaged"):
        assert zstd.probe(data)


@EVERY_WAY
class TestReads:
    def test_everything(self, way: str) -> None:
        reader = open_bytes(made(way))
        assert reader.size == len(DATA)
        assert reader.read_at(0, len(DATA)) == DATA
        assert reader.problems == ()

    @given(data=st.data())
    def test_any_ranges_in_any_order(self, way: str, data: st.DataObject) -> None:
        reader = open_bytes(made(way))
        for _ in range(data.draw(st.integers(1, 4))):
            offset = data.draw(st.integers(0, len(DATA)))
            length = data.draw(st.integers(0, min(600_000, len(DATA) - offset)))
            assert reader.read_at(offset, length) == DATA[offset : offset + length]

    def test_threads(self, way: str) -> None:
        reader = open_bytes(made(way))

        def check(seed: int) -> None:
            chosen = random.Random(seed)
            for _ in range(10):
                offset = chosen.randrange(len(DATA) - 1000)
                assert reader.read_at(offset, 1000) == DATA[offset : offset + 1000]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(check, range(4)))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_survives_a_fork_while_it_is_read(self, way: str) -> None:
        reader = open_bytes(made(way))
        with ThreadPoolExecutor(2) as pool:
            for offset in (0, 1_000_000, 2_000_000):
                started = [pool.submit(reader.read_at, other, 900_000) for other in (0, 2_000_000)]
                expected = DATA[offset : offset + 500_000]
                assert in_child(lambda at=offset, data=expected: reader.read_at(at, 500_000) == data)  # type: ignore[misc]
                assert [future.result() for future in started] == [DATA[:900_000], DATA[2_000_000:2_900_000]]

    def test_refuses_ranges_past_the_end(self, way: str) -> None:
        reader = open_bytes(made(way))
        with pytest.raises(TruncatedImage):
            reader.read_at(len(DATA) - 1, 2)
        with pytest.raises(TruncatedImage):
            reader.read_at(len(DATA) + 5, 1)
        with reader.open() as stream:
            stream.seek(-5, 2)
            assert stream.read() == DATA[-5:]

    def test_cut_off_anywhere(self, way: str) -> None:
        """What was before the cut is there, and then an error that names it."""
        whole = made(way)
        for length in range(6, len(whole), len(whole) // 37):
            try:
                reader = open_bytes(whole[:length])
            except CorruptImage:
                assert length < 50_000, "a block of it was whole"
                continue
            readable = _readable(reader)
            assert readable <= len(DATA)
            if readable < len(DATA):
                with pytest.raises(CorruptImage):
                    _ = reader.size if isinstance(reader, SequentialReader) else reader.read_at(0, reader.size)

    def test_flipped_bits(self, way: str) -> None:
        """Right bytes, or an error; without a check in the file wrong ones can't be told."""
        unchecked = ("xz without checks", "zstd of unknown size", "zstd with skippable frames")
        checked = way not in unchecked and "seekable" not in way
        whole = made(way)
        for at in range(0, len(whole), len(whole) // 61):
            damaged = bytearray(whole)
            damaged[at] ^= 0x10
            layers = None
            with contextlib.suppress(CorruptImage):
                layers = unwrap(BytesSource(damaged), None, LayerOptions())
            if not layers:
                assert layers is None or at < 6, "the wrapping is no longer recognised"
                continue
            reader = layers[0].source
            try:
                found = reader.read_at(0, min(reader.size, 2 * len(DATA)))
            except CorruptImage:
                continue
            assert not checked or found == DATA or bool(getattr(reader, "problems", False))


def _readable(reader: Reader) -> int:
    """How much of `DATA` can be read, which is checked to be right."""
    good = 0
    for offset in range(0, len(DATA), 50_000):
        try:
            found = reader.read_at(offset, min(50_000, len(DATA) - offset))
        except CorruptImage:
            break
        assert found == DATA[offset : offset + 50_000]
        good += len(found)
    return good


class TestWork:
    """What is decoded, counted in pieces."""

    def test_gzip_starts_at_a_checkpoint(self) -> None:
        data = DATA * 12
        reader = open_bytes(gzip.compress(data, 1))
        assert isinstance(reader, SequentialReader)
        pieces = -(-len(data) // PIECE)
        assert reader.size == len(data)
        assert reader.pieces_decoded == pieces
        for offset in (len(data) * 3 // 4, len(data) // 2, 10):
            before = reader.pieces_decoded
            assert reader.read_at(offset, 10) == data[offset : offset + 10]
            assert reader.pieces_decoded - before <= 17

    def test_a_step_forward_goes_on(self) -> None:
        reader = open_bytes(made("xz"))
        offsets = range(0, len(DATA), 1000)
        assert b"".join(reader.read_at(at, min(1000, len(DATA) - at)) for at in offsets) == DATA

    @pytest.mark.parametrize(
        "way", ["xz -T2", "xz streams", "zstd frames", "zstd seekable", "zstd with skippable frames"]
    )
    def test_the_end_costs_its_frame_only(self, way: str) -> None:
        reader = open_bytes(made(way))
        assert isinstance(reader, FramedReader)
        assert len(reader.frames) >= 5
        assert all(one.decoded_start + one.size == other.decoded_start for one, other in pairwise(reader.frames))
        passed: list[int] = []
        counted = unwrap(BytesSource(made(way)), None, LayerOptions(progress=lambda done, total: passed.append(done)))[
            0
        ].source
        assert counted.read_at(len(DATA) - 10, 10) == DATA[-10:]
        assert len(passed) <= 3

    def test_checkpoints_are_bounded(self) -> None:
        data = bytes(300 << 20)
        reader = open_bytes(zlib_gzip(data))
        assert isinstance(reader, SequentialReader)
        assert reader.size == len(data)
        assert reader.read_at(200 << 20, 5) == bytes(5)
        assert len(reader._checkpoints) <= 128


def zlib_gzip(data: bytes) -> bytes:
    made = zlib.compressobj(1, wbits=31)
    return made.compress(data) + made.flush()


class _Unreadable:
    """Bytes that can be read up to a place only, though it is not known that they end there."""

    def __init__(self, data: bytes, end: int) -> None:
        self.data, self.end, self.size = data, end, len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > self.end:
            raise CorruptImage("it can't be read", structure="test", offset=self.end)
        return self.data[offset : offset + length]


class TestDamage:
    @pytest.mark.parametrize("way", ["gzip", "xz", "xz -T2", "zstd frames"])
    @pytest.mark.parametrize("garbage", [b"garbage", b"\x01" * 5000])
    def test_what_follows_is_a_problem(self, way: str, garbage: bytes) -> None:
        reader = open_bytes(made(way) + garbage)
        assert reader.size == len(DATA)
        assert reader.read_at(0, len(DATA)) == DATA
        [problem] = reader.problems
        assert problem.offset == len(made(way))

    @pytest.mark.parametrize("more", [-1, 0, 1, 64, 128])
    def test_a_cut_off_trailer_costs_no_data_that_the_decoder_holds(self, more: int) -> None:
        data = bytes(2 * PIECE + more)
        reader = open_bytes(gzip.compress(data, mtime=0)[:-8])
        assert reader.read_at(0, len(data)) == data
        with pytest.raises(TruncatedImage, match="trailer"):
            _ = reader.size

    @pytest.mark.parametrize("part", [0.3, 0.71, 0.999])
    @pytest.mark.parametrize("way", ["gzip", "xz", "zstd", "zstd frames"])
    def test_a_stream_over_what_is_cut_or_can_t_be_read_gives_as_much_as_the_tool(self, way: str, part: float) -> None:
        cut = made(way)[: int(len(made(way)) * part)]
        program = [require_tool(way.split(maxsplit=1)[0]), "-dc"]
        whole = subprocess.run(program, input=cut, capture_output=True, check=False).stdout
        assert DATA.startswith(whole)
        unreadable = _Unreadable(made(way), len(cut))
        for source in (BytesSource(cut), unreadable):
            [layer] = unwrap(source, None, LayerOptions())
            stream, found = open_stream(layer.source), bytearray()
            with contextlib.suppress(CorruptImage):
                while piece := stream.read(1000):
                    found += piece
                pytest.fail("damage is not the end")
            assert found == DATA[: len(found)]
            assert len(found) >= len(whole)

    def test_a_header_that_is_not_what_its_crc_says(self) -> None:
        reader = open_bytes(_NAMED + b"\0\0" + _deflated(b"x") + b"garbage")
        assert reader.read_at(0, 1) == b"x"
        assert reader.size == 1
        assert [(problem.structure, problem.offset) for problem in reader.problems] == [
            ("gzip member", 0),
            ("gzip source", len(_NAMED) + 2 + len(_deflated(b"x"))),
        ]

    def test_a_wrong_crc_is_found_when_all_was_read(self) -> None:
        data = bytearray(gzip.compress(b"content" * 100))
        data[-8] ^= 1
        reader = open_bytes(bytes(data))
        with pytest.raises(CorruptImage, match="trailer"):
            reader.read_at(0, 701)
        assert reader.read_at(0, 700) == b"content" * 100
        assert "trailer" in reader.problems[0].message

    def test_a_wrong_seek_table_is_a_problem_and_not_used(self) -> None:
        whole = made("zstd seekable")
        for at in (-13, -9, -17, -200):
            damaged = bytearray(whole)
            damaged[at] ^= 0xFF
            reader = open_bytes(bytes(damaged))
            assert reader.read_at(0, len(DATA)) == DATA
            assert "seek table" in reader.problems[0].structure

    def test_a_bomb_costs_what_is_read(self) -> None:
        """A gigabyte of zeros in some kilobytes, of each kind."""
        zeros = bytes(1 << 20)
        one = zstandard.ZstdCompressor().compressobj()
        bomb = b"".join(one.compress(zeros) for _ in range(1024)) + one.flush()
        reader = open_bytes(bomb)
        assert isinstance(reader, SequentialReader)
        assert reader.read_at(0, 10) == bytes(10)
        assert reader.pieces_decoded == 1


def xz_number(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def xz_stream(data: bytes, *, unpadded: int = 0, size: int = 0, padding: int = 0, blocks: int = 1) -> bytes:
    """A stream of one block by liblzma, whose index says other than what is there (.xz format 1.2, section 4)."""
    whole = lzma.compress(data, check=lzma.CHECK_CRC32)
    index_length = (int.from_bytes(whole[-8:-4], "little") + 1) * 4
    record = whole[-12 - index_length + 2 : -12]
    real, shift, at = 0, 0, 0
    while True:
        real |= (record[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not record[at - 1] & 0x80:
            break
    index = b"\0" + xz_number(blocks) + xz_number(real + unpadded) + xz_number(len(data) + size)
    index += bytes((padding,)) * (-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + whole[6:8]
    end = zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"
    return whole[: -12 - index_length] + index + end


class TestXzAgainstItsIndex:
    """What `xz -t` refuses is a problem or an error here, and what it takes is neither."""

    # Lengths whose block has padding, and whose index has: else there is nothing to contradict.
    LENGTHS = (100_001, 100_002, 100_003, 700_000)
    KINDS: Mapping[str, Callable[[bytes], bytes]] = {
        "nothing wrong": xz_stream,
        "one byte more unpadded": lambda data: xz_stream(data, unpadded=1),
        "one byte less unpadded": lambda data: xz_stream(data, unpadded=-1),
        "four bytes more unpadded": lambda data: xz_stream(data, unpadded=4),
        "a byte more decoded": lambda data: xz_stream(data, size=1),
        "a byte less decoded": lambda data: xz_stream(data, size=-1),
        "two blocks": lambda data: xz_stream(data, blocks=2),
        "no block": lambda data: xz_stream(data, blocks=0),
        "padding of ones": lambda data: xz_stream(data, padding=1),
        "stream padding of 1": lambda data: xz_stream(data) + bytes(1),
        "stream padding of 4": lambda data: xz_stream(data) + bytes(4),
        "stream padding of 5": lambda data: xz_stream(data) + bytes(5),
        "stream padding of 6 between two": lambda data: xz_stream(data) + bytes(6) + xz_stream(data),
        "stream padding of 8 between two": lambda data: xz_stream(data) + bytes(8) + xz_stream(data),
    }

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("length", LENGTHS)
    def test_as_xz_says(self, length: int, kind: str) -> None:
        compressed = self.KINDS[kind](DATA[:length])
        program = [require_tool("xz"), "-t"]
        is_sound = subprocess.run(program, input=compressed, capture_output=True, check=False).returncode == 0
        reader: Reader | None = None
        try:
            reader = open_bytes(compressed)
            data = reader.read_at(0, reader.size)
            ours = not reader.problems
        except CorruptImage:
            ours = False
        else:
            assert data[:length] == DATA[:length]
        assert ours == is_sound
        if isinstance(reader, FramedReader):  # liblzma keeps to itself what it decoded in the call that fails
            count = min(length, reader.size) - 1
            assert reader.read_at(0, count) == DATA[:count], "what is before it is not lost"


def test_an_image_within_layers(tmp_path: Path) -> None:
    disk = NOISE.randbytes(5000)
    wrapped = zstandard.compress(lzma.compress(gzip.compress(bz2.compress(disk))))
    path = tmp_path / "disk.dd.bz2.gz.xz.zst"
    path.write_bytes(wrapped)
    with Image.open(path) as image:
        assert [layer.kind for layer in image.layers] == ["zstd", "xz", "gzip", "bzip2"]
        assert [layer.name for layer in image.layers] == [
            "disk.dd.bz2.gz.xz.zst",
            "disk.dd.bz2.gz.xz",
            "disk.dd.bz2.gz",
            "disk.dd.bz2",
        ]
        assert image.read_at(0, 5000) == disk
        with pickle.loads(pickle.dumps(image)) as again:
            assert again.size == 5000


def test_kinds_are_told_apart() -> None:
    heads = {way: made(way)[:512] for way in WAYS}
    for way, head in heads.items():
        found = [kind.KIND for kind in (gzip_layer, xz, zstd) if kind.probe(head)]
        assert found == [way.split()[0]]
        for length in range(3):
            assert not any(kind.probe(head[:length]) for kind in (gzip_layer, xz, zstd))


@pytest.mark.parametrize("flag", [8, 16])
@pytest.mark.parametrize("length", [1, 65535, 65536])
def test_a_name_of_gzip_is_read_up_to_the_longest(flag: int, length: int) -> None:
    """A longer name or comment, which gzip itself passes over, is an error that says so."""
    plain = bytearray(gzip.compress(b"content", mtime=0))
    plain[3] |= flag
    data = bytes(plain[:10]) + b"n" * length + b"\0" + bytes(plain[10:])
    judged = subprocess.run([require_tool("gzip"), "-dc"], input=data, capture_output=True, check=True).stdout
    assert judged == b"content"
    if length < 65536:
        assert gzip_layer.open_layer(BytesSource(data), LayerOptions()).read_at(0, 7) == b"content"
    else:
        with pytest.raises(CorruptImage, match="no end in the first 65536 bytes"):
            gzip_layer.open_layer(BytesSource(data), LayerOptions()).read_at(0, 7)


@pytest.mark.parametrize("over", [0, 4])
def test_an_index_of_xz_past_the_largest_costs_nothing(over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data is decoded to its end then."""
    data = lzma.compress(b"content")
    length = (int.from_bytes(data[-8:-4], "little") + 1) * 4
    monkeypatch.setattr(xz, "_LARGEST_INDEX", length - over)
    layer = xz.open_layer(BytesSource(data), LayerOptions())
    assert (layer.read_at(0, 7), layer.size) == (b"content", 7)
    assert layer.problems == ()
