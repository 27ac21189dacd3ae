"""A file compressed with gzip (RFC 1952): any number of members, one after the other.

Random access uses checkpoints, because zlib can copy the state of its decoder.
"""

from __future__ import annotations

import functools
import zlib
from typing import Final, Self

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.sequential import SequentialReader
from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.streams.reading import read_healthy, read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "gzip"
KIND = "gzip"
SUFFIXES: Final = (".gz",)
TAR_SUFFIXES: Final = (".tgz",)
MAGICS: Final = (Signature("gzip", "gzip data", 0, b"\x1f\x8b\x08", content="data"),)
REFERENCES: Final = ("RFC 1952",)

_MAGIC = b"\x1f\x8b\x08"
"""ID1, ID2 and the only defined method, deflate (RFC 1952, 2.3.1)."""
_FEED = 1 << 16
_HEADER = 10
_TRAILER = 8
_HEADER_CRC, _EXTRA, _NAME, _COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
_LONGEST_TEXT = 1 << 16
"""Longest name or comment that is read, in bytes: not a limit of the format, but no real file has more."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is gzip."""
    return head[:3] == _MAGIC and len(head) > 3 and not head[3] & _RESERVED


def open_layer(source: ReadAt, options: LayerOptions) -> SequentialReader:
    """The decoded data.

    Raises:
        CorruptImage: The first member's header is damaged.
    """
    GzipDecoder(source)
    return options.sequential("gzip data", functools.partial(GzipDecoder, source))


class GzipDecoder:
    """Forward decoder of gzip, which checks each member's CRC and length."""

    def __init__(self, source: ReadAt) -> None:
        """Read the first member's header.

        Raises:
            CorruptImage: The source does not begin with a gzip header, or the header is damaged.
            TruncatedImage: The source ends within the header.
        """
        self._source = source
        self.problems: tuple[Problem, ...] = ()
        self.position = 0
        self._finished = False
        self._crc: int
        self._size: int
        self._enter_member()

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        while not self._finished:
            if self._inflate.eof:
                self._leave_member()
                continue
            data = self._inflate.unconsumed_tail or self._next_input()
            try:
                found = self._inflate.decompress(data, length)
            except zlib.error as error:
                raise CorruptImage(
                    f"its data is damaged ({error})", structure="gzip member", offset=self.position
                ) from error
            if found:
                self._crc = zlib.crc32(found, self._crc)
                self._size += len(found)
                return found
            if not data and not self._inflate.eof:  # it may have held output when its input ended
                raise TruncatedImage("the source ends within its data", structure="gzip member", offset=self.position)
        return b""

    def copy(self) -> Self:
        """See `Decoder.copy`."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._inflate = self._inflate.copy()
        return made

    def _enter_member(self) -> None:
        start = self.position
        self.position = _after_header(self._source, start)
        if not self.problems and not _header_is_right(self._source, start, self.position):
            self.problems = (Problem("gzip member", "its header is not what its CRC says", start),)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._crc = self._size = 0

    def _leave_member(self) -> None:
        at = self.position - len(self._inflate.unused_data)
        trailer = read_up_to(self._source, at, _TRAILER)
        if len(trailer) < _TRAILER:
            raise TruncatedImage("the source ends within its trailer", structure="gzip member", offset=at)
        crc, size = int.from_bytes(trailer[:4], "little"), int.from_bytes(trailer[4:], "little")
        if (crc, size) != (self._crc, self._size & 0xFFFFFFFF):
            raise CorruptImage(
                "its data is not what its trailer says",
                structure="gzip member",
                offset=at,
                expected=f"CRC {crc:#010x} and {size} bytes",
                found=f"{self._crc:#010x} and {self._size & 0xFFFFFFFF}",
            )
        self.position = at + _TRAILER
        head = read_up_to(self._source, self.position, len(_MAGIC))
        if head == _MAGIC:
            self._enter_member()
            return
        self._finished = True
        while not any(head) and head:  # padding, which gzip also skips
            self.position += len(head)
            head = read_up_to(self._source, self.position, _FEED)
        if head:
            self.problems += (Problem("gzip source", "bytes follow the last member and are not gzip", self.position),)

    def _next_input(self) -> bytes:
        data = read_healthy(self._source, self.position, _FEED)
        self.position += len(data)
        return data


def _header_is_right(source: ReadAt, start: int, end: int) -> bool:
    """Whether the header from byte `start` to `end` (exclusive) matches its CRC, or has none."""
    header = read_up_to(source, start, end - start)
    if not header[3] & _HEADER_CRC or len(header) < end - start:  # a cut-off header is reported with the data
        return True
    return zlib.crc32(header[:-2]) & 0xFFFF == int.from_bytes(header[-2:], "little")


def _after_header(source: ReadAt, start: int) -> int:
    """First byte of a member's data, from the source's start.

    Raises:
        CorruptImage: The header is damaged.
        TruncatedImage: The source ends within the header.
    """
    header = read_up_to(source, start, _HEADER)
    if len(header) < _HEADER:
        raise TruncatedImage("the source ends within its header", structure="gzip member", offset=start)
    flags = header[3]
    if header[:3] != _MAGIC or flags & _RESERVED:
        raise CorruptImage(
            "not gzip", structure="gzip member", offset=start, expected=f"{_MAGIC.hex()}", found=header[:4].hex()
        )
    at = start + _HEADER
    if flags & _EXTRA:
        at += 2 + int.from_bytes(read_up_to(source, at, 2), "little")
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            text = read_up_to(source, at, _LONGEST_TEXT)
            end = text.find(b"\0")
            if end < 0 and len(text) == _LONGEST_TEXT:
                message = f"a name or comment has no end in the first {_LONGEST_TEXT} bytes, and no more are read"
                raise CorruptImage(message, structure="gzip member", offset=at)
            if end < 0:
                raise TruncatedImage("a name or comment has no end", structure="gzip member", offset=at)
            at += end + 1
    return at + (2 if flags & _HEADER_CRC else 0)
