"""Zip archives: offline bundles of ESXi, and images that were zipped for a download.

The standard library's zipfile reads the directory; members are read by us, so that any part of one can be had without
what is before it where it is stored, and with checkpoints where it is deflated.
"""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import IO, Final, Self, cast

from vmvisor_image.archives import ArchiveMember
from vmvisor_image.errors import CorruptImage, Problem, TruncatedImage
from vmvisor_image.files import Extent
from vmvisor_image.limits import meter_of
from vmvisor_image.sequential import SequentialReader
from vmvisor_image.streams import ReadAt, open_stream, past_end, read_healthy, read_up_to

KIND: Final = "zip"
_MAGIC: Final = b"PK\3\4"
_MAGIC_EMPTY: Final = b"PK\5\6"
_LOCAL_HEADER: Final = 30
"""Bytes of a local file header before the name (APPNOTE.TXT 6.3.10, 4.3.7)."""
_FEED: Final = 1 << 16
_ENCRYPTED: Final = 0x1
_IS_LINK: Final = 0o120000
_LONGEST_TARGET: Final = 4096
_LARGEST_DIRECTORY: Final = 64 << 20
"""Bytes: some 600,000 members."""
_ESCAPES: Final = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, struct.error, EOFError),
    *(ValueError, OverflowError, RuntimeError, IndexError, KeyError),
)
"""What zipfile raises on damaged directories."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a zip archive."""
    return head[:4] in (_MAGIC, _MAGIC_EMPTY)


def read_members(source: ReadAt, report: Callable[[Problem], None]) -> Iterator[ArchiveMember]:
    """The members, in the order of the directory at the archive's end.

    Raises:
        CorruptImage: The directory can't be read.
    """
    try:
        with zipfile.ZipFile(cast("IO[bytes]", _Bounded(open_stream(source)))) as archive:
            entries = archive.infolist()
    except CorruptImage:
        raise
    except _ESCAPES as error:
        raise CorruptImage(f"it can't be read ({error})", structure="zip directory") from error
    for entry in entries:
        path = "/".join(part for part in entry.filename.split("/") if part not in ("", "."))
        if not path:
            continue
        mode = entry.external_attr >> 16
        try:
            modified = datetime(*entry.date_time)  # noqa: DTZ001  # zip knows no zone
        except ValueError:
            modified = None
        if entry.is_dir():
            yield ArchiveMember(path, "directory", 0, modified, mode & 0o7777 or 0o755, offset=entry.header_offset)
            continue
        try:
            extents, content = _content(source, entry, report)
            target = None
            if mode & 0o170000 == _IS_LINK and entry.file_size <= _LONGEST_TARGET:
                raw = content if content is not None else source
                start = 0 if content is not None or not extents else extents[0].offset
                target = raw.read_at(start, entry.file_size).decode("utf-8", "surrogateescape")
        except CorruptImage as error:
            report(Problem.of(error))
            continue
        if target is not None:
            yield ArchiveMember(path, "symlink", 0, modified, mode & 0o7777, target=target, offset=entry.header_offset)
            continue
        yield ArchiveMember(
            path,
            "file",
            entry.file_size,
            modified,
            mode & 0o7777 or 0o644,
            offset=entry.header_offset,
            extents=extents,
            content=content,
            crc32=entry.CRC,
        )


def _content(
    source: ReadAt, entry: zipfile.ZipInfo, report: Callable[[Problem], None]
) -> tuple[tuple[Extent, ...], ReadAt | None]:
    """Where a stored member lies, or what inflates one."""
    at = entry.header_offset
    header = read_up_to(source, at, _LOCAL_HEADER) if at >= 0 else b""
    if len(header) < _LOCAL_HEADER or header[:4] != _MAGIC:
        raise CorruptImage(
            f"{entry.filename!r} has none here",
            structure="zip local header",
            offset=max(at, 0),
            expected=_MAGIC.hex(),
            found=header[:4].hex() or "the end",
        )
    if entry.flag_bits & _ENCRYPTED:
        raise CorruptImage(f"{entry.filename!r} is encrypted", structure="zip member", offset=at)
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    start = at + _LOCAL_HEADER + name_length + extra_length
    if entry.compress_type == zipfile.ZIP_STORED:
        _check_stored_sizes(entry, header, report)
        return ((Extent(start, entry.file_size),) if entry.file_size else ()), None
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        decoder = functools.partial(DeflateDecoder, source, start, entry.compress_size, entry.CRC, entry.file_size)
        return (), InflatedMember(SequentialReader("zip member", decoder, meter=meter_of(source)), entry.file_size)
    raise CorruptImage(
        f"{entry.filename!r} is compressed by method {entry.compress_type}, which is not read",
        structure="zip member",
        offset=at,
    )


def _check_stored_sizes(entry: zipfile.ZipInfo, header: bytes, report: Callable[[Problem], None]) -> None:
    """Report two sizes of a stored member that differ (APPNOTE.TXT 4.4.8, 4.4.9), and keep the one that is its own.

    That is the size that its local header says, else, where that is in a data descriptor, its compressed one.
    """
    if entry.file_size == entry.compress_size:
        return
    local = struct.unpack_from("<II", header, 18)
    said = f"{entry.file_size} bytes, {entry.compress_size} compressed, and {local[1]} in its local header"
    report(Problem("zip directory", f"{entry.filename!r} is stored and has {said}", entry.header_offset))
    is_size = entry.file_size in local and entry.compress_size not in local
    entry.file_size = entry.file_size if is_size else entry.compress_size


class _Bounded:
    """A stream that refuses to read very much at once: zipfile reads a directory of any claimed size into memory."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close
        self._stream = stream

    def read(self, length: int = -1) -> bytes:
        if length > _LARGEST_DIRECTORY:
            raise CorruptImage(f"it has {length} bytes, which is not read", structure="zip directory")
        return self._stream.read(length)


class InflatedMember:
    """A deflated member, of the size that the directory says."""

    def __init__(self, data: SequentialReader, size: int) -> None:
        """Take what inflates it."""
        self._data = data
        self.meter = data.meter
        """Counts what is decoded."""
        self.size = size
        """Bytes, known without inflating it."""

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        if offset + length > self.size:
            raise past_end("zip member", offset, length, self.size)
        data = self._data.read_at(offset, length)
        if offset + length == self.size:
            _ = self._data.size  # which is known after the last byte, and an error where the CRC is wrong
        return data


class DeflateDecoder:
    """Inflates one member and checks its CRC and its size."""

    def __init__(self, source: ReadAt, start: int, length: int, crc: int, size: int) -> None:
        """Read `length` bytes from byte `start` of `source`; `crc` and `size` are of the data."""
        self._source = source
        self.position = start
        self._end = start + length
        self._expected = (crc, size)
        self._crc = self._size = 0
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self.problems: tuple[Problem, ...] = ()

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        while not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._next_input()
            try:
                found = self._inflate.decompress(data, length)
            except zlib.error as error:
                message = f"its data is damaged ({error})"
                raise CorruptImage(message, structure="zip member", offset=self.position) from error
            if found:
                self._crc = zlib.crc32(found, self._crc)
                self._size += len(found)
                if self._size > self._expected[1]:
                    raise self._mismatch()
                return found
            if not data and not self._inflate.eof:  # it may have held output when its input ended
                raise TruncatedImage("its data has no end", structure="zip member", offset=self.position)
        if (self._crc, self._size) != self._expected:
            raise self._mismatch()
        return b""

    def copy(self) -> Self:
        """See `Decoder.copy`."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._inflate = self._inflate.copy()
        return made

    def _next_input(self) -> bytes:
        data = read_healthy(self._source, self.position, min(_FEED, self._end - self.position))
        self.position += len(data)
        return data

    def _mismatch(self) -> CorruptImage:
        return CorruptImage(
            "its data is not what the directory says",
            structure="zip member",
            offset=self.position,
            expected=f"CRC {self._expected[0]:#010x} and {self._expected[1]} bytes",
            found=f"{self._crc:#010x} and {self._size}",
        )
