"""A file compressed with zstd: frames one after the other, with or without a seek table at its end.

Without a seek table, the sizes of the frames are taken from their headers and those of their blocks; where the writer
left the decoded sizes out, the data is read forward.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from vmvisor_image.compressions.framed import Frame, FramedReader
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.sequential import SequentialReader
from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.schemas.zstd import (
    FRAME_MAGIC,
    HAS_CHECKSUMS,
    RESERVED_BITS,
    SEEK_TABLE_MAGIC,
    SEEKABLE_MAGIC,
    SKIPPABLE_MAGIC,
    CheckedSeekTableEntry,
    SeekTableEntry,
    SeekTableFooter,
    SkippableFrameHeader,
)
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.views import Slice

NAME: Final = "zstd"
KIND = "zstd"
SUFFIXES: Final = (".zst",)
TAR_SUFFIXES: Final = ()
MAGICS: Final = (Signature("zstd", "zstd data", 0, b"\x28\xb5\x2f\xfd", content="data"),)
REFERENCES: Final = (
    "RFC 8878",
    "zstd's seekable format",
)

_MAGIC_LENGTH = 4
_LZ4_MAGICS = (0x184D2204, 0x184C2102)
"""Magics of LZ4 frames, and of its legacy ones (lz4_Frame_format.md)."""
_LONGEST_HEADER = 18
"""Largest number of bytes of a frame header (RFC 8878, 3.1.1.1), including its magic."""
_BLOCK_HEADER = 3
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3
_CHECKSUM = 4
_UNKNOWN_SIZE = (1 << 64) - 1


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is zstd."""
    at = 0
    while len(head) >= at + _MAGIC_LENGTH:
        magic = int.from_bytes(head[at : at + _MAGIC_LENGTH], "little")
        if magic & ~0xF != SKIPPABLE_MAGIC:
            # LZ4 has the same skippable frames; any other magic behind one is damage.
            return magic == FRAME_MAGIC or (at > 0 and magic not in _LZ4_MAGICS)
        length = head[at + _MAGIC_LENGTH : at + SkippableFrameHeader.length()]
        at += SkippableFrameHeader.length() + int.from_bytes(length, "little")
    return at > 0


def open_layer(source: ReadAt, options: LayerOptions) -> FramedReader | SequentialReader:
    """The decoded data."""
    problems: tuple[Problem, ...] = ()
    frames: list[Frame] | None = None
    if knows_size(source):
        try:
            frames = read_seek_table(source)
        except CorruptImage as error:
            problems = (Problem.of(error),)
        if frames is None:
            frames = _frames_by_headers(source)
    if frames is not None:
        return FramedReader(
            "zstd data",
            frames,
            functools.partial(ZstdFrameDecoder, source),
            problems=problems,
            meter=options.meter,
            progress=options.progress,
            total=options.total,
        )
    start = functools.partial(ZstdDecoder, source)
    return options.sequential("zstd data", start)


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame of data as its headers describe it."""

    start: int
    """First byte of the frame, from the source's start."""
    length: int
    """Number of compressed bytes."""
    size: int | None
    """Number of decoded bytes; None where the frame's header does not give it."""


def walk_frames(source: ReadAt) -> Iterator[FoundFrame]:
    """The frames of data in a source, found by headers alone; skippable ones are left out.

    Raises:
        CorruptImage: There is no valid header where a frame or a block of it should begin.
        TruncatedImage: The source ends within a frame.
    """
    end = 0
    while (at := _pass_skippable(source, end)) is not None:
        found = _frame_at(source, at)
        yield found
        end = found.start + found.length


def _pass_skippable(source: ReadAt, at: int) -> int | None:
    """First byte of the next frame of data from byte `at` on; None at the source's end.

    Raises:
        CorruptImage: No frame begins there.
    """
    while head := read_up_to(source, at, SkippableFrameHeader.length()):
        magic = int.from_bytes(head[:_MAGIC_LENGTH], "little")
        if magic & ~0xF != SKIPPABLE_MAGIC:
            if magic != FRAME_MAGIC:
                raise CorruptImage("no frame begins here", structure="zstd source", offset=at, found=head[:4].hex())
            return at
        at += SkippableFrameHeader.length() + SkippableFrameHeader.parse(head, base=at).content_length
    return None


def _frame_at(source: ReadAt, at: int) -> FoundFrame:
    import zstandard

    head = read_up_to(source, at, _LONGEST_HEADER)
    try:
        parameters = zstandard.get_frame_parameters(head)
        header_length = zstandard.frame_header_size(head)
    except zstandard.ZstdError as error:
        raise CorruptImage(f"its header is damaged ({error})", structure="zstd frame", offset=at) from error
    end = _end_of_blocks(source, at + header_length) + (_CHECKSUM if parameters.has_checksum else 0)
    if not read_up_to(source, end - 1, 1):
        raise TruncatedImage("the source ends within it", structure="zstd frame", offset=at)
    size = parameters.content_size
    return FoundFrame(at, end - at, None if size == _UNKNOWN_SIZE else size)


def _end_of_blocks(source: ReadAt, at: int) -> int:
    """Exclusive end of the blocks that begin at byte `at` (RFC 8878, 3.1.1.2).

    Raises:
        CorruptImage: The type of a block is reserved.
        TruncatedImage: The source ends before the last block.
    """
    while True:
        header = read_up_to(source, at, _BLOCK_HEADER)
        if len(header) < _BLOCK_HEADER:
            raise TruncatedImage("the source ends before it", structure="zstd block", offset=at)
        value = int.from_bytes(header, "little")
        kind, size = value >> 1 & 3, value >> 3
        if kind == _RESERVED_BLOCK:
            raise CorruptImage("its type is reserved", structure="zstd block", offset=at)
        at += _BLOCK_HEADER + (1 if kind == _RLE_BLOCK else size)
        if value & 1:
            return at


def read_seek_table(source: ReadAt) -> list[Frame] | None:
    """The frames listed in a seek table at the source's end; None where there is no seek table.

    Raises:
        CorruptImage: The seek table does not fit the source.
    """
    at = source.size - SeekTableFooter.length()
    if at < 0:
        return None
    footer = SeekTableFooter.parse(source.read_at(at, SeekTableFooter.length()), base=at)
    if footer.magic != SEEKABLE_MAGIC:
        return None
    entry_type = CheckedSeekTableEntry if footer.descriptor & HAS_CHECKSUMS else SeekTableEntry
    table_start = at - footer.frames * entry_type.length()
    start = table_start - SkippableFrameHeader.length()
    if footer.descriptor & RESERVED_BITS or start < 0:
        raise CorruptImage("its footer is damaged", structure="zstd seek table", offset=at)
    header = SkippableFrameHeader.parse(source.read_at(start, SkippableFrameHeader.length()), base=start)
    if header.magic != SEEK_TABLE_MAGIC or header.content_length != source.size - table_start:
        raise CorruptImage("its header is damaged", structure="zstd seek table", offset=start)
    frames: list[Frame] = []
    compressed = decoded = 0
    for entry in entry_type.parse_all(source.read_at(table_start, at - table_start), base=table_start):
        if entry.decompressed:
            frames.append(Frame(compressed, entry.compressed, decoded, entry.decompressed))
        compressed += entry.compressed
        decoded += entry.decompressed
    if compressed != start:
        raise CorruptImage(
            "its frames do not end where it begins",
            structure="zstd seek table",
            offset=start,
            expected=f"{start} bytes",
            found=f"{compressed}",
        )
    for frame in frames:
        _check_header(source, frame)
    return frames


def _check_header(source: ReadAt, frame: Frame) -> None:
    """Refuse a seek table that contradicts a frame's own header, since all data behind it would be misplaced."""
    import zstandard

    head = read_up_to(source, frame.start, _LONGEST_HEADER)
    try:
        size = zstandard.get_frame_parameters(head).content_size
    except zstandard.ZstdError as error:
        raise CorruptImage(
            f"it lists a frame where there is none ({error})", structure="zstd seek table", offset=frame.start
        ) from error
    if size not in (frame.size, _UNKNOWN_SIZE):
        raise CorruptImage(
            "it gives another size than a frame's header",
            structure="zstd seek table",
            offset=frame.start,
            expected=f"{size} bytes",
            found=f"{frame.size}",
        )


def _frames_by_headers(source: ReadAt) -> list[Frame] | None:
    """The frames that hold data; None where a size is missing or there is damage, which reading forward reports."""
    frames: list[Frame] = []
    decoded = 0
    try:
        for found in walk_frames(source):
            if found.size is None:
                return None
            frame = Frame(found.start, found.length, decoded, found.size)
            if found.size:
                frames.append(frame)
            elif found.length and ZstdFrameDecoder(source, frame).read(1):
                return None  # it is never read, so whether it really is empty and intact is checked here
            decoded += found.size
    except CorruptImage:
        return None
    return frames


class _ZstdDecoder:
    """Common base of both decoders, which reads one frame forward."""

    def __init__(self, source: ReadAt) -> None:
        self._source = source
        self._input_start, self._input = 0, open_stream(source)
        self.problems: tuple[Problem, ...] = ()

    @property
    def position(self) -> int:
        """See `Decoder.position`."""
        return self._input_start + self._input.tell()

    def copy(self) -> Self | None:
        """Always None, because libzstd can't copy its state."""
        return None

    def _enter_frame(self, start: int, length: int | None) -> None:
        """Continue with the frame of `length` bytes at byte `start`; None for a frame whose end is unknown."""
        import zstandard

        self._frame_start = start
        if length is None:
            self._input_start = 0
            self._input = open_stream(self._source)
            self._input.seek(start)
        else:  # libzstd would read past the frame's end
            self._input_start = start
            self._input = open_stream(Slice(self._source, start, length, "zstd frame"))
        self._frame = zstandard.ZstdDecompressor().stream_reader(self._input, closefd=False)

    def _read_frame(self, length: int) -> bytes:
        import zstandard

        try:
            return self._frame.read1(length)
        except zstandard.ZstdError as error:
            raise CorruptImage(f"it is damaged ({error})", structure="zstd frame", offset=self._frame_start) from error


class ZstdFrameDecoder(_ZstdDecoder):
    """Decoder of one frame whose decoded size is known."""

    def __init__(self, source: ReadAt, frame: Frame) -> None:
        """Start at a frame."""
        super().__init__(source)
        self._size = self._left = frame.size
        self._enter_frame(frame.start, frame.length)

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        # The last byte is read separately: an error is found with it, when all bytes before it were given.
        found = self._read_frame(min(length, max(1, self._left - 1)))
        self._left -= len(found)
        if self._left < 0 or (self._left and not found):
            raise CorruptImage(
                "its size is not what was said before",
                structure="zstd frame",
                offset=self._frame_start,
                expected=f"{self._size} bytes",
                found=f"{self._size - self._left}" + (" or more" if self._left < 0 else ""),
            )
        if not self._left and self._read_frame(1):  # this read also verifies the frame's checksum
            raise CorruptImage(
                "it has more bytes than was said before", structure="zstd frame", offset=self._frame_start
            )
        return found


class ZstdDecoder(_ZstdDecoder):
    """Forward decoder of frames, from one to the next."""

    def __init__(self, source: ReadAt) -> None:
        """Start at the source's beginning."""
        super().__init__(source)
        self._finished = False
        self._failure: CorruptImage | None = None
        """Error in the current frame, raised once all readable data before it was given."""
        self._next_frame(0)

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        while not self._finished:
            found = self._read_frame(length)
            if found:
                return found
            if self._failure is not None:
                raise self._failure
            self._next_frame(self._frame_end)
        return b""

    def _next_frame(self, after: int) -> None:
        try:
            at = _pass_skippable(self._source, after)
        except CorruptImage as error:
            if not after:
                raise
            self.problems = (Problem("zstd source", "bytes follow the last frame and are not zstd", error.offset),)
            at = None
        if at is None:
            self._finished = True
            return
        length = None
        try:
            length = _frame_at(self._source, at).length
            self._frame_end = at + length
        except CorruptImage as error:
            self._failure = error
        self._enter_frame(at, length)
