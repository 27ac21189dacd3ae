"""A file compressed with xz: any number of streams, each of independently decodable blocks.

The index at the end of each stream lists its blocks (The .xz File Format, version 1.2.1, section 4). Where an index is
damaged or cut off, the data is read forward from its beginning up to the damage.
"""

from __future__ import annotations

import functools
import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.compressions.framed import Frame, FramedReader
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.sequential import SequentialReader
from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.streams.reading import knows_size, read_healthy, read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "xz"
KIND = "xz"
SUFFIXES: Final = (".xz",)
TAR_SUFFIXES: Final = (".txz",)
MAGICS: Final = (Signature("xz", "xz data", 0, b"\xfd7zXZ\0", content="data"),)
REFERENCES: Final = ("The .xz File Format 1.2.1",)

_MAGIC = b"\xfd7zXZ\0"
_FOOTER_MAGIC = b"YZ"
_HEADER = _FOOTER = 12
_FEED = 1 << 16
_MEMORY = 256 << 20
"""Largest memory of a decoder, in bytes: xz -9 needs 65 MB."""
_LARGEST_INDEX = 64 << 20
_SMALLEST_BLOCK = 5
"""Smallest size of a block without padding, in bytes (section 4.3)."""
_LARGEST_NUMBER = 9
"""Largest number of bytes of a variable-length integer (section 1.2)."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is xz."""
    return head[: len(_MAGIC)] == _MAGIC


def open_layer(source: ReadAt, options: LayerOptions) -> FramedReader | SequentialReader:
    """The decoded data.

    Raises:
        CorruptImage: The first stream's header is damaged.
    """
    _check_header(source, 0)
    if knows_size(source):
        try:
            frames = _find_blocks(source)
        except CorruptImage:
            pass  # reading forward reports the damage, and gives the data before it
        else:
            return FramedReader(
                "xz data",
                frames,
                functools.partial(XzBlockDecoder, source),
                problems=_unchecked({frame.stream: frame.check for frame in frames}),
                meter=options.meter,
                progress=options.progress,
                total=options.total,
            )
    start = functools.partial(XzDecoder, source)
    return options.sequential("xz data", start)


class _LzmaDecoder:
    """Common base of both decoders, which feeds the source to liblzma up to a given byte."""

    def __init__(self, source: ReadAt, start: int) -> None:
        self._source = source
        self.position = start
        self.problems: tuple[Problem, ...] = ()
        self._new_decoder()

    def copy(self) -> Self | None:
        """Always None, because liblzma can't copy its state."""
        return None

    def _new_decoder(self) -> None:
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def _decode(self, length: int, end: int | None) -> bytes:
        """The next bytes; empty when liblzma is at the stream's end, or has been fed everything up to `end`."""
        while not self._lzma.eof:
            data = b""
            if self._lzma.needs_input:
                most = _FEED if end is None else min(_FEED, end - self.position)
                data = read_healthy(self._source, self.position, most)
                if not data:
                    return b""
                self.position += len(data)
            found = self._run(data, length)
            if found:
                return found
        return b""

    def _run(self, data: bytes, length: int) -> bytes:
        try:
            return self._lzma.decompress(data, length)
        except (lzma.LZMAError, MemoryError) as error:  # MemoryError: the memory limit is exceeded
            message = str(error) or "out of memory"
            raise CorruptImage(
                f"its data is damaged ({message})", structure="xz stream", offset=self.position
            ) from None


class XzBlockDecoder(_LzmaDecoder):
    """Decoder of one block. It first feeds liblzma the header of the block's stream, so that it verifies the check."""

    def __init__(self, source: ReadAt, block: Frame) -> None:
        """Start at a block, after the header of its stream."""
        assert isinstance(block, XzBlock)
        super().__init__(source, block.start)
        self._block = block
        self._left = block.size
        header = read_up_to(source, block.stream, _HEADER)
        self._stream_flags = header[6:8]
        self._run(header, 0)
        self._is_checked = False

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        end = self._block.start + self._block.length
        # The last byte is read separately: an error is found with it, when all bytes before it were given.
        found = self._decode(min(length, max(1, self._left - 1)), end) if self._left else b""
        self._left -= len(found)
        if not found and self._left:
            raise CorruptImage(
                "it ends before the bytes that its index records",
                structure="xz block",
                offset=self._block.start,
                expected=f"{self._block.size} bytes",
                found=f"{self._block.size - self._left}",
            )
        if not self._left and not self._is_checked:
            if self._decode(1, end):
                raise CorruptImage(
                    "it has more bytes than its index lists", structure="xz block", offset=self._block.start
                )
            self._check_index()
            self._is_checked = True
        return found

    def _check_index(self) -> None:
        """Have liblzma compare the block with its record in the index, by feeding it an index of this block alone.

        Raises:
            CorruptImage: The two differ.
        """
        index = b"\0\1" + _as_number(self._block.unpadded) + _as_number(self._block.size)
        index += bytes(-len(index) % 4)
        index += zlib.crc32(index).to_bytes(4, "little")
        footer = (len(index) // 4 - 1).to_bytes(4, "little") + self._stream_flags
        try:
            more = self._lzma.decompress(index + zlib.crc32(footer).to_bytes(4, "little") + footer + _FOOTER_MAGIC)
            is_right = self._lzma.eof and not more  # otherwise it read the index as data, which a filter may hold back
        except lzma.LZMAError:
            is_right = False
        if not is_right:
            raise CorruptImage(
                f"it does not have the {self._block.unpadded} bytes that its index records",
                structure="xz block",
                offset=self._block.start,
            )


class XzDecoder(_LzmaDecoder):
    """Forward decoder of streams, from one to the next."""

    def __init__(self, source: ReadAt) -> None:
        """Start at the first stream."""
        super().__init__(source, 0)
        self._note_check()

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        while True:
            found = self._decode(length, None)
            if found:
                return found
            if not self._lzma.eof:
                raise TruncatedImage("the source ends within it", structure="xz stream", offset=self.position)
            end = after = self.position - len(self._lzma.unused_data)
            while not any(padding := read_up_to(self._source, after, _FEED)) and padding:
                after += len(padding)
            after += len(padding) - len(padding.lstrip(b"\0"))
            if (after - end) % 4:
                count = after - end
                self.problems += (
                    Problem("xz source", f"{count} bytes of stream padding are not a multiple of 4", end),
                )
            head = read_up_to(self._source, after, len(_MAGIC))
            if head != _MAGIC:
                if head:
                    self.problems += (Problem("xz source", "bytes follow the last stream and are not xz", after),)
                return b""
            self.position = after
            self._new_decoder()
            self._note_check()

    def _note_check(self) -> None:
        header = read_healthy(self._source, self.position, _HEADER)
        if len(header) == _HEADER:
            self.problems += _unchecked({self.position: header[7]})


@dataclass(frozen=True, slots=True)
class XzBlock(Frame):
    """One block of a stream."""

    stream: int
    """First byte of the header of the block's stream, from the source's start."""
    unpadded: int
    """Number of bytes of the block without padding, from the stream's index."""
    check: int
    """Type of the checks in the block's stream."""


def _unchecked(streams: Mapping[int, int]) -> tuple[Problem, ...]:
    """Problems of the streams, given as check types by first byte, whose checks liblzma does not know and skips."""
    return tuple(
        Problem("xz stream", f"its checks are of type {check}, which is not known: its data is not checked", at)
        for at, check in streams.items()
        if not lzma.is_check_supported(check & 0xF)
    )


def _check_header(source: ReadAt, at: int) -> bytes:
    """The two bytes of stream flags in the stream header at byte `at`.

    Raises:
        CorruptImage: The header is damaged.
        TruncatedImage: The source ends within the header.
    """
    header = read_up_to(source, at, _HEADER)
    if len(header) < _HEADER:
        raise TruncatedImage("the source ends within its header", structure="xz stream", offset=at)
    if header[:6] != _MAGIC or zlib.crc32(header[6:8]) != int.from_bytes(header[8:], "little"):
        raise CorruptImage("its header is damaged", structure="xz stream", offset=at)
    return header[6:8]


def _find_blocks(source: ReadAt) -> list[XzBlock]:
    """The blocks of all streams that hold data, found backwards from the last stream's footer.

    Raises:
        CorruptImage: A header, footer or index is damaged, or a block without data.
    """
    streams: list[list[tuple[int, int, int, int, int]]] = []
    end = source.size
    while end > 0:
        end = _without_padding(source, end)
        start, blocks = _read_stream(source, end)
        streams.append(blocks)
        end = start
    frames: list[XzBlock] = []
    decoded = 0
    for blocks in reversed(streams):
        for start, unpadded, size, stream, check in blocks:
            block = XzBlock(start, _padded(unpadded), decoded, size, stream, unpadded, check)
            if size:
                frames.append(block)
            else:  # it is never read, so whether it really is empty and intact is checked here
                check_deadline()
                XzBlockDecoder(source, block).read(1)
            decoded += size
    return frames


def _without_padding(source: ReadAt, end: int) -> int:
    """Exclusive end of the stream before padding that ends at `end`: a multiple of four zeros (section 2.2)."""
    while end >= 4 and not any(source.read_at(end - 4, 4)):
        end -= 4
    return end


def _read_stream(source: ReadAt, end: int) -> tuple[int, list[tuple[int, int, int, int, int]]]:
    """First byte of the stream that ends at `end`; and first byte, both sizes, stream and check type of each block.

    The sizes are the unpadded and the decoded one, in bytes.

    Raises:
        CorruptImage: The header, the footer or the index is damaged.
        TruncatedImage: There is no room for a stream.
    """
    if end < _HEADER + _FOOTER:
        raise TruncatedImage("there is no room for a stream", structure="xz stream footer", offset=end)
    footer = source.read_at(end - _FOOTER, _FOOTER)
    if footer[10:] != _FOOTER_MAGIC or zlib.crc32(footer[4:10]) != int.from_bytes(footer[:4], "little"):
        raise CorruptImage("it is damaged", structure="xz stream footer", offset=end - _FOOTER)
    index_length = (int.from_bytes(footer[4:8], "little") + 1) * 4
    index_start = end - _FOOTER - index_length
    if index_length > _LARGEST_INDEX:
        message = f"its index has {index_length} bytes, more than the {_LARGEST_INDEX} that are read"
        raise CorruptImage(message, structure="xz stream footer", offset=end - _FOOTER)
    if index_start < _HEADER:
        raise CorruptImage("its index is longer than the stream", structure="xz stream footer", offset=end - _FOOTER)
    records = _parse_index(source.read_at(index_start, index_length), index_start)
    start = index_start - sum(_padded(unpadded) for unpadded, _ in records) - _HEADER
    if start < 0:
        raise CorruptImage("its blocks are longer than the stream", structure="xz index", offset=index_start)
    if _check_header(source, start) != footer[8:10]:
        raise CorruptImage("it differs from its stream's header", structure="xz stream footer", offset=end - _FOOTER)
    blocks = []
    at = start + _HEADER
    for unpadded, size in records:
        blocks.append((at, unpadded, size, start, footer[9]))
        at += _padded(unpadded)
    return start, blocks


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4


def _parse_index(index: bytes, offset: int) -> list[tuple[int, int]]:
    """Unpadded and decoded size of each block, in bytes (section 4)."""
    if index[0] != 0 or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise CorruptImage("it is damaged", structure="xz index", offset=offset)
    count, at = _number(index, 1)
    if count > len(index) // 2:
        raise CorruptImage("it has more blocks than room for them", structure="xz index", offset=offset)
    records: list[tuple[int, int]] = []
    for _ in range(count):
        unpadded, at = _number(index, at)
        size, at = _number(index, at)
        if unpadded < _SMALLEST_BLOCK:
            message = f"its block {len(records)} has {unpadded} bytes, fewer than any"
            raise CorruptImage(message, structure="xz index", offset=offset)
        records.append((unpadded, size))
    if any(index[at:-4]) or len(index) - 4 - at > 3:
        raise CorruptImage("its padding is not up to three zeros", structure="xz index", offset=offset + at)
    return records


def _as_number(value: int) -> bytes:
    """Encoded variable-length integer (section 1.2)."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer at byte `at`, and its exclusive end (section 1.2)."""
    value = 0
    for count in range(_LARGEST_NUMBER):
        byte = data[at + count] if at + count < len(data) else 0x80
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, at + count + 1
    raise CorruptImage("a number in it has no end", structure="xz index", offset=at)
