"""Zip archives: offline bundles of ESXi, and images that were zipped for a download.

The standard library's zipfile reads the directory; this module reads the members, so that any part of a stored member
can be read directly, and of a deflated one from a checkpoint. bzip2, LZMA, xz and zstd are decoded forward by their
libraries.

Source: APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import functools
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final, Protocol, Self, cast

from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.base.limits import Meter
from vmvisor_image.compressions.sequential import SequentialReader
from vmvisor_image.compressions.zstd import ZstdDecoder
from vmvisor_image.errors import (
    CorruptImage,
    InvalidArgument,
    Problem,
    RemoteError,
    SourceChanged,
    SourceError,
    TruncatedImage,
)
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.files.file import Extent
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.reading import meter_of, read_healthy, read_up_to
from vmvisor_image.streams.source import ReadAt, Source, past_end
from vmvisor_image.streams.views import Slice

NAME: Final = "zip"
KIND: Final = "zip"
SUFFIXES: Final = (".zip",)
HOLDS_DISKS: Final = True
MAGICS: Final = (Signature("zip", "ZIP archive", 0, b"PK\x03\x04", content="data"),)
REFERENCES: Final = ("PKWARE, APPNOTE.TXT 6.3.10",)
_MAGIC: Final = b"PK\3\4"
_MAGIC_EMPTY: Final = b"PK\5\6"
_SPLIT_MARKS: Final = (b"PK00", b"PK\7\x08")
"""Marks before the first member, by writers that may split an archive (8.5.4, 8.5.5)."""
_ENTRY: Final = 46
"""Number of bytes of an entry of the directory, before its name."""
_ZIP64, _UNICODE_PATH, _NO_FIELD = 0x0001, 0x7075, 0xFFFF
"""Types of extra fields (APPNOTE, 4.5.3 and 4.6.9), and an unused one for fields to be ignored."""
_ENTRY_MAGIC: Final = b"PK\1\2"
_LOCATOR_MAGIC: Final = b"PK\6\7"
_LOCATOR: Final = 20
"""Number of bytes of the zip64 end record's locator, which lies before the end record (4.3.15)."""
_END: Final = struct.Struct("<4sHHHHIIH")
"""Magic, number of this disk, the directory's disk, entries on this disk, all entries, bytes of the directory, its
offset, bytes of the comment (4.3.16)."""
_LONGEST_COMMENT: Final = 0xFFFF
_IN_ZIP64: Final = 0xFFFF
"""Value of a 16-bit number that stands for the one in the zip64 end record."""
_LOCAL_HEADER: Final = 30
"""Number of bytes of a local file header before the name (4.3.7)."""
_FEED: Final = 1 << 16
_DOS, _UNIX = 0, 3
"""Systems in "version made by" (APPNOTE.TXT 4.4.2)."""
_IS_DOS_DIRECTORY: Final = 0x10
"""Bit of the external attributes' low byte (4.4.15)."""
_ENCRYPTED, _HAS_END_MARK, _IS_DESCRIBED_BEHIND, _UTF8 = 0x1, 0x2, 0x8, 0x800
"""Bits of the general purpose flags (4.4.4); the second one applies to LZMA."""
_LOCAL_FIELDS: Final = struct.Struct("<HHxxxxIII")
"""Flags, method, CRC-32 and both sizes of a local header, from byte 6 on (4.3.7)."""
_IN_EXTRA_FIELD: Final = 0xFFFFFFFF
"""Value of a size that stands for the one in the zip64 field."""
_BZIP2, _LZMA, _OLD_ZSTD, _ZSTD, _XZ = 12, 14, 20, 93, 95
"""Compression methods (4.4.5)."""
_LZMA_MEMORY: Final = 256 << 20
"""Largest memory of a decoder, in bytes."""
_IS_LINK: Final = 0o120000
_LONGEST_TARGET: Final = 4096
_LONGEST_CHARACTER: Final = 4
"""Largest number of bytes of a character in UTF-8."""
_LARGEST_DIRECTORY: Final = 64 << 20
"""Largest directory in bytes: some 600,000 members."""
_ESCAPES: Final = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, struct.error, EOFError),
    *(ValueError, OverflowError, RuntimeError, IndexError, KeyError),
)
"""Exceptions that zipfile raises on damaged directories."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a zip archive."""
    return head[:4] in (_MAGIC, _MAGIC_EMPTY) or (head[:4] in _SPLIT_MARKS and head[4:8] == _MAGIC)


def probe_end(source: ReadAt, *, may_go_on: bool) -> bool:
    """Whether a source ends as a zip archive does, whatever it begins with, such as a self-extracting program.

    An end record counts only behind a directory or a zip64 locator. Bytes behind it, such as the signature of a
    program, are accepted only with `may_go_on`: a disk that happens to end within a zip archive is a disk.
    """
    try:
        found = _find_end(source)
        if found is None:
            return False
        at, (_, _, _, _, _, length, _, comment) = found
        is_at_end = at + _END.size + comment == source.size
        if not (is_at_end or (may_go_on and length)):
            return False
        if read_up_to(source, max(0, at - _LOCATOR), 4) == _LOCATOR_MAGIC:
            return True
        return length <= at and (not length or read_up_to(source, at - length, 4) == _ENTRY_MAGIC)
    except (RemoteError, SourceChanged):
        raise
    except (CorruptImage, SourceError):
        return False  # damage at the end is reported when it is read


def _find_end(source: ReadAt) -> tuple[int, tuple[bytes, int, int, int, int, int, int, int]] | None:
    """First byte of the end record, and its fields; the last one counts, as in zipfile. None where there is none."""
    size = source.size
    for length in (_END.size, _END.size + _LONGEST_COMMENT):
        start = max(0, size - length)
        tail = read_up_to(source, start, size - start)
        at = tail.rfind(_MAGIC_EMPTY, 0, len(tail) - _END.size + len(_MAGIC_EMPTY))
        if at >= 0:
            return start + at, _END.unpack_from(tail, at)
    return None


def kind_of(_source: ReadAt, head: bytes, /) -> str | None:
    """`KIND` if a source that begins with `head` is a zip archive, otherwise None."""
    return KIND if probe(head) else None


def read_members(source: ReadAt, report: Callable[[Problem], None]) -> Iterator[ArchiveMember]:
    """The members, in the order of the directory at the archive's end.

    Raises:
        CorruptImage: The directory can't be read.
    """
    try:
        with zipfile.ZipFile(cast("IO[bytes]", _Bounded(open_stream(source), report))) as archive:
            entries = archive.infolist()
    except CorruptImage:
        raise
    except _ESCAPES as error:
        raise CorruptImage(f"it can't be read ({error})", structure="zip directory") from error
    end = _find_end(source)
    disk = 0 if end is None or end[1][1] == _IN_ZIP64 else end[1][1]
    told = len(entries) if end is None else end[1][4]
    if told != _IN_ZIP64 and told != len(entries) & _IN_ZIP64:
        message = f"{len(entries)} members are in it, its end record counts {told}"
        report(Problem("zip directory", message, None if end is None else end[0]))
    if end is not None and end[0] + _END.size + end[1][7] > source.size:
        report(Problem("zip directory", "the comment in its end record passes the end of the archive", end[0] + 20))
    _report_overlap(source, (each for each in entries if each.volume == disk), report)
    is_split = False
    for entry in entries:
        entry.filename = _name(entry)
        if entry.create_system == _DOS and "/" not in entry.filename:  # some writers for DOS keep its separator
            entry.filename = entry.filename.replace("\\", "/")
        if disk and entry.volume != disk and not _has_own_header(source, entry):
            message = f"{entry.filename!r} is in part {entry.volume + 1} of {disk + 1} of a split archive"
            report(Problem("zip directory", f"{message} and is left out: join the parts first"))
            is_split = True
            continue
        try:
            member = _member(source, entry, report)
        except CorruptImage as error:
            report(Problem.of(error))
            continue
        if member is not None:
            yield member
    if disk and not is_split and end is not None:
        message = f"its end record says that this is part {disk + 1} of a split archive, and all members are here"
        report(Problem("zip directory", message, end[0]))


def _name(entry: zipfile.ZipInfo) -> str:
    """The name as its writer meant it, which may be UTF-8 without the flag for it.

    Info-ZIP's zip writes UTF-8 into an extra field, with the CRC of the plain name (APPNOTE.TXT 4.6.9), or, on Unix,
    the bytes of the system's name as they are, which unzip and libarchive read as UTF-8.
    """
    if entry.flag_bits & _UTF8 or entry.orig_filename.isascii():
        return entry.filename
    raw = entry.orig_filename.encode("cp437")  # zipfile decodes any bytes as this
    found = [raw] if entry.create_system == _UNIX else []
    for _, kind, data in _extra_fields(entry.extra, 0, len(entry.extra)):
        if kind == _UNICODE_PATH and data[:5] == b"\1" + zlib.crc32(raw).to_bytes(4, "little"):
            found.insert(0, data[5:])
    for each in found:
        with contextlib.suppress(UnicodeDecodeError):
            return each.decode().partition("\0")[0]
    return entry.filename


def _member(source: ReadAt, entry: zipfile.ZipInfo, report: Callable[[Problem], None]) -> ArchiveMember | None:
    path, at = "/".join(part for part in entry.filename.split("/") if part not in ("", ".")), entry.header_offset
    if not path:
        if not entry.filename.endswith("/"):  # is_dir of Python 3.11 raises where there is no name
            report(Problem("zip directory", "a member has no name and is left out", at))
        return None
    mode = entry.external_attr >> 16
    try:
        modified = datetime(*entry.date_time)  # noqa: DTZ001  # zip knows no zone
    except ValueError:
        modified = None
    if entry.is_dir() or (entry.create_system == _DOS and entry.external_attr & _IS_DOS_DIRECTORY):
        header, name = _local_header(source, entry)
        if header[:4] != _MAGIC or name != entry.orig_filename:
            report(
                Problem(
                    "zip local header",
                    f"directory {entry.filename!r} has no local header here, or one with another name",
                    at,
                )
            )
        return ArchiveMember(path, "directory", 0, modified, mode & 0o7777 or 0o755, offset=at)
    extents, content = _content(source, entry, report)
    if mode & 0o170000 == _IS_LINK and entry.file_size <= _LONGEST_TARGET:
        raw = content if content is not None else source
        start = 0 if content is not None or not extents else extents[0].offset
        target = raw.read_at(start, entry.file_size).decode("utf-8", "surrogateescape")
        if not target:
            report(Problem("zip member", f"{entry.filename!r} is a symbolic link to nothing", at))
        return ArchiveMember(path, "symlink", 0, modified, mode & 0o7777, target=target, offset=at)
    return ArchiveMember(
        path,
        "file",
        entry.file_size,
        modified,
        mode & 0o7777 or 0o644,
        offset=at,
        extents=extents,
        content=content,
        crc32=entry.CRC,
    )


def _content(
    source: ReadAt, entry: zipfile.ZipInfo, report: Callable[[Problem], None]
) -> tuple[tuple[Extent, ...], Source | None]:
    """Extents of a stored member, or a source that decompresses any other.

    Raises:
        CorruptImage: The member is damaged or encrypted, or its compression method is not supported.
    """
    at = entry.header_offset
    header, name = _local_header(source, entry)
    if len(header) < _LOCAL_HEADER or header[:4] != _MAGIC:
        raise CorruptImage(
            f"{entry.filename!r} has no local header here",
            structure="zip local header",
            offset=max(at, 0),
            expected=_MAGIC.hex(),
            found=header[:4].hex() or "the end",
        )
    if entry.flag_bits & _ENCRYPTED:
        raise CorruptImage(f"{entry.filename!r} is encrypted", structure="zip member", offset=at)
    if name != entry.orig_filename:
        message = f"{entry.filename!r} has another name in its local header: {name!r}"
        report(Problem("zip local header", message, at))
    start = at + _LOCAL_HEADER + sum(struct.unpack_from("<HH", header, 26))
    _check_local_fields(entry, header, report)
    if entry.compress_type == zipfile.ZIP_STORED:
        _check_stored_sizes(entry, header, report)
    if not entry.file_size and entry.CRC:  # nothing of it would be read, and so its CRC not checked
        message = f"{entry.filename!r} has no bytes, and the CRC {entry.CRC:#010x}"
        raise CorruptImage(message, structure="zip directory", offset=at)
    if entry.compress_type == zipfile.ZIP_STORED:
        return ((Extent(start, entry.file_size),) if entry.file_size else ()), None
    make = _DECODERS.get(entry.compress_type)
    if make is not None:
        member = _Packed(source, start, entry.compress_size, entry.CRC, entry.file_size, entry.flag_bits)
        reader = SequentialReader("zip member", functools.partial(make, member), meter=meter_of(source))
        return (), DecompressedMember(reader, entry.file_size)
    raise CorruptImage(
        f"{entry.filename!r} is compressed by method {entry.compress_type}, which is not read",
        structure="zip member",
        offset=at,
    )


def _report_overlap(source: ReadAt, entries: Iterable[zipfile.ZipInfo], report: Callable[[Problem], None]) -> None:
    """Report the first two members that have bytes in common, as no writer of zip makes them (4.3.6).

    Sizes and names that are others in the local header are reported by themselves, and explain an overlap.
    """
    before: zipfile.ZipInfo | None = None
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if before is not None and entry.header_offset < before.header_offset + _LOCAL_HEADER + before.compress_size:
            headers = [(each, *_local_header(source, each)) for each in (before, entry)]
            if all(_is_as_listed(*each) for each in headers):
                message = f"{entry.orig_filename!r} begins within {before.orig_filename!r}: their bytes overlap"
                report(Problem("zip directory", message, entry.header_offset))
                return
        before = entry


def _is_as_listed(entry: zipfile.ZipInfo, header: bytes, name: str) -> bool:
    """Whether a local header has the name and the compressed size that the directory has, or none of its own."""
    if header[:4] != _MAGIC or len(header) < _LOCAL_HEADER or name != entry.orig_filename:
        return False
    flags, _, _, size, _ = _LOCAL_FIELDS.unpack_from(header, 6)
    return bool(flags & _IS_DESCRIBED_BEHIND) or size in (entry.compress_size, _IN_EXTRA_FIELD)


def _local_header(source: ReadAt, entry: zipfile.ZipInfo) -> tuple[bytes, str]:
    """Bytes where a member's local header should be, as far as they can be read, and the name in them."""
    if entry.header_offset < 0:
        return b"", ""
    longest_name = len(entry.orig_filename) * _LONGEST_CHARACTER
    header = read_healthy(source, entry.header_offset, _LOCAL_HEADER + longest_name)
    if len(header) < _LOCAL_HEADER:
        return header, ""
    flags, length = *struct.unpack_from("<H", header, 6), *struct.unpack_from("<H", header, 26)
    raw = header[_LOCAL_HEADER : _LOCAL_HEADER + length]
    names = [
        raw.decode("utf-8", "replace") if each & _UTF8 else raw.decode("cp437") for each in (flags, entry.flag_bits)
    ]
    return header, entry.orig_filename if entry.orig_filename in names else names[0]


def _has_own_header(source: ReadAt, entry: zipfile.ZipInfo) -> bool:
    """Whether a member's local header is in its place in this source, whatever disk the directory gives."""
    try:
        header, name = _local_header(source, entry)
    except (CorruptImage, SourceError):
        return False
    return header[:4] == _MAGIC and name == entry.orig_filename


def _check_local_fields(entry: zipfile.ZipInfo, header: bytes, report: Callable[[Problem], None]) -> None:
    """Report fields of a local header that differ from the directory, by which members are read (4.3.7, 4.3.12)."""
    flags, method, crc, compressed, size = _LOCAL_FIELDS.unpack_from(header, 6)
    pairs = [("method", method, entry.compress_type), ("encryption", flags & _ENCRYPTED, entry.flag_bits & _ENCRYPTED)]
    if not flags & _IS_DESCRIBED_BEHIND:
        pairs.append(("CRC", crc, entry.CRC))
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size == entry.compress_size:  # reported elsewhere
            sizes = (("compressed size", compressed, entry.compress_size), ("size", size, entry.file_size))
            pairs += [pair for pair in sizes if pair[1] != _IN_EXTRA_FIELD]
    told = [f"{field} {local:#x}, not {expected:#x}" for field, local, expected in pairs if local != expected]
    if told:
        message = f"{entry.filename!r} has other values in its local header: {', '.join(told)}"
        report(Problem("zip local header", message, entry.header_offset))


def _check_stored_sizes(entry: zipfile.ZipInfo, header: bytes, report: Callable[[Problem], None]) -> None:
    """Report that the two sizes of a stored member differ (APPNOTE.TXT 4.4.8, 4.4.9), and keep the right one.

    That is the uncompressed size if only that one is in the local header, otherwise the compressed one.
    """
    if entry.file_size == entry.compress_size:
        return
    local = struct.unpack_from("<II", header, 18)
    said = f"{entry.file_size} bytes, {entry.compress_size} compressed, and {local[1]} in its local header"
    report(Problem("zip directory", f"{entry.filename!r} is stored and has {said}", entry.header_offset))
    is_size = entry.file_size in local and entry.compress_size not in local
    entry.file_size = entry.file_size if is_size else entry.compress_size


class _Bounded:
    """A stream that refuses large reads, because zipfile reads a directory of any claimed size into memory."""

    def __init__(self, stream: io.BufferedReader, report: Callable[[Problem], None]) -> None:
        self.tell, self.close = stream.tell, stream.close
        self._stream = stream
        self._report = report

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._stream.seek(offset, whence)
        except InvalidArgument as error:  # zipfile seeks to before the start of a small archive, and expects an OSError
            raise OSError(errno.EINVAL, str(error)) from None

    def read(self, length: int = -1) -> bytes:
        if length > _LARGEST_DIRECTORY:
            raise CorruptImage(f"it has {length} bytes, which is not read", structure="zip directory")
        at = self._stream.tell()
        data = self._stream.read(length)
        return _with_sound_extra_fields(data, at, self._report) if data.startswith(_ENTRY_MAGIC) else data


def _with_sound_extra_fields(directory: bytes, start: int, report: Callable[[Problem], None]) -> bytes:
    """A directory, read at `start`, without damaged extra fields, for one of which zipfile would reject all members.

    A damaged field gets a type that is ignored, and the length that is left.
    """
    sound = bytearray(directory)
    at = 0
    while directory.startswith(_ENTRY_MAGIC, at) and at + _ENTRY <= len(directory):
        *sizes, name, extra, comment = struct.unpack_from("<2L3H", directory, at + 20)
        (place,) = struct.unpack_from("<L", directory, at + 42)
        wanted = 8 * (*sizes, place).count(0xFFFFFFFF)
        field, end = at + _ENTRY + name, min(at + _ENTRY + name + extra, len(directory))
        for at_field, kind, data in _extra_fields(directory, field, end):
            (length,) = struct.unpack_from("<H", directory, at_field + 2)
            is_whole = len(data) == length
            if not is_whole or (kind == _ZIP64 and length < wanted) or (kind == _UNICODE_PATH and not _is_name(data)):
                struct.pack_into("<2H", sound, at_field, _NO_FIELD, len(data))
                message = f"an extra field of type {kind:#06x} is not valid and is left out"
                report(Problem("zip directory", message, start + at_field))
        at += _ENTRY + name + extra + comment
    return bytes(sound)


def _extra_fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """First byte, type and available content of each extra field from `start` to `end` (exclusive; 4.5.1)."""
    while start + 4 <= end:
        kind, length = struct.unpack_from("<2H", data, start)
        yield start, kind, data[start + 4 : min(start + 4 + length, end)]
        start += 4 + length


def _is_name(data: bytes) -> bool:
    """Whether the data of a Unicode path field holds a path (APPNOTE, 4.6.9)."""
    try:
        return len(data[5:].decode("utf-8")) > 0
    except UnicodeDecodeError:
        return False


class DecompressedMember(Source):
    """A compressed member, of the size that the directory gives."""

    def __init__(self, data: SequentialReader, size: int) -> None:
        """Take the reader that decompresses the member, and its size in bytes."""
        self._data = data
        self._size = size

    @property
    def size(self) -> int:
        """Number of bytes, known without decompressing it."""
        return self._size

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._data.meter

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        if offset + length > self._size:
            raise past_end("zip member", offset, length, self._size)
        data = self._data.read_at(offset, length)
        if offset + length == self._size:
            _ = self._data.size  # known after the last byte; raises if the CRC is wrong
        return data


@dataclass(frozen=True, slots=True)
class _Packed:
    """The compressed data of a member."""

    source: ReadAt
    start: int
    """First byte of the compressed data, from the archive's start."""
    length: int
    """Number of compressed bytes."""
    crc: int
    """CRC-32 of the decompressed data, from the directory."""
    size: int
    """Number of decompressed bytes, from the directory."""
    flags: int
    """General purpose flags (APPNOTE.TXT, 4.4.4)."""


class _MemberDecoder:
    """Forward decoder of one member, which checks its CRC and its size."""

    def __init__(self, member: _Packed) -> None:
        self._member = member
        self.position = member.start
        self._crc = self._size = 0
        self.problems: tuple[Problem, ...] = ()

    def read(self, length: int) -> bytes:
        """See `Decoder.read`."""
        found = self._decode(length)
        if found:
            self._crc = zlib.crc32(found, self._crc)
            self._size += len(found)
        if self._size > self._member.size or (not found and (self._crc, self._size) != self._expected):
            raise CorruptImage(
                "its data is not what the directory says",
                structure="zip member",
                offset=self.position,
                expected=f"CRC {self._member.crc:#010x} and {self._member.size} bytes",
                found=f"{self._crc:#010x} and {self._size}",
            )
        return found

    def copy(self) -> Self | None:
        """Always None here, because most libraries can't copy their state."""
        return None

    @property
    def _expected(self) -> tuple[int, int]:
        return self._member.crc, self._member.size

    def _decode(self, length: int) -> bytes:
        """At most `length` of the next bytes; empty only at the end.

        Raises:
            CorruptImage: The data is damaged.
        """
        raise NotImplementedError

    def _next_input(self) -> bytes:
        most = self._member.start + self._member.length - self.position
        data = read_healthy(self._member.source, self.position, min(_FEED, most))
        self.position += len(data)
        return data

    def _no_end(self) -> TruncatedImage:
        return TruncatedImage("its data has no end", structure="zip member", offset=self.position)

    def _damaged(self, error: Exception) -> CorruptImage:
        message = f"its data is damaged ({str(error) or 'out of memory'})"
        return CorruptImage(message, structure="zip member", offset=self.position)


class DeflateDecoder(_MemberDecoder):
    """Decoder of one member of method 8, Deflate."""

    def __init__(self, member: _Packed) -> None:
        super().__init__(member)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    def copy(self) -> Self:
        """See `Decoder.copy`."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._inflate = self._inflate.copy()
        return made

    def _decode(self, length: int) -> bytes:
        while not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._next_input()
            try:
                found = self._inflate.decompress(data, length)
            except zlib.error as error:
                raise self._damaged(error) from error
            if found:
                return found
            if not data and not self._inflate.eof:  # it may have held output when its input ended
                raise self._no_end()
        return b""


class _Library(Protocol):
    """Decompressor as `bz2` and `lzma` provide it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _LibraryDecoder(_MemberDecoder):
    """Decoder of one member, by a library that holds the input it was given."""

    _library: _Library

    def _decode(self, length: int) -> bytes:
        while not self._library.eof:
            needs_input = self._library.needs_input
            data = self._next_input() if needs_input else b""
            found = self._decompress(data, length)
            if found:
                return found
            if needs_input and not data and not self._library.eof:  # it may have held output when its input ended
                raise self._no_end()
        return b""

    def _decompress(self, data: bytes, length: int) -> bytes:
        try:
            return self._library.decompress(data, length)
        except (OSError, ValueError, lzma.LZMAError, MemoryError) as error:  # the last: the memory limit is exceeded
            raise self._damaged(error) from None


class Bzip2Decoder(_LibraryDecoder):
    """Decoder of one member of method 12, bzip2."""

    def __init__(self, member: _Packed) -> None:
        super().__init__(member)
        self._library = bz2.BZ2Decompressor()


class XzDecoder(_LibraryDecoder):
    """Decoder of one member of method 95, xz."""

    def __init__(self, member: _Packed) -> None:
        super().__init__(member)
        self._library = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)


class LzmaDecoder(_LibraryDecoder):
    """Decoder of one member of method 14, LZMA: four bytes with the length of the properties, then these (5.8.8).

    The properties, followed by the size of the data, are the header of an ``.lzma`` file, so liblzma is given one.
    """

    def __init__(self, member: _Packed) -> None:
        super().__init__(member)
        head = read_up_to(member.source, member.start, min(9, member.length))
        if len(head) < 9 or head[2:4] != b"\5\0":
            raise CorruptImage("its LZMA header is not valid", structure="zip member", offset=member.start)
        # No distance is longer than the data: a larger dictionary would take memory for nothing.
        dictionary = min(int.from_bytes(head[5:], "little"), max(member.size, 1 << 12))
        size = (1 << 64) - 1 if member.flags & _HAS_END_MARK else member.size
        self._library = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
        self._decompress(head[4:5] + dictionary.to_bytes(4, "little") + size.to_bytes(8, "little"), 0)
        self.position += len(head)


class ZstdMemberDecoder(_MemberDecoder):
    """Decoder of one member of method 93, zstd, which was 20 before APPNOTE.TXT 6.3.8."""

    def __init__(self, member: _Packed) -> None:
        super().__init__(member)
        try:
            self._frames = ZstdDecoder(Slice(member.source, member.start, member.length, "zip member"))
        except CorruptImage as error:
            raise self._in_archive(error) from error

    def _decode(self, length: int) -> bytes:
        try:
            found = self._frames.read(length)
        except CorruptImage as error:
            raise self._in_archive(error) from error
        self.position = self._member.start + self._frames.position
        return found

    def _in_archive(self, error: CorruptImage) -> CorruptImage:
        """The error with its place in the archive."""
        at = self._member.start + (error.offset or 0)
        return type(error)(
            f"its data is damaged ({error.structure}: {error.message})", structure="zip member", offset=at
        )


_DECODERS: Final[dict[int, Callable[[_Packed], _MemberDecoder]]] = {
    zipfile.ZIP_DEFLATED: DeflateDecoder,
    _BZIP2: Bzip2Decoder,
    _LZMA: LzmaDecoder,
    _ZSTD: ZstdMemberDecoder,
    _OLD_ZSTD: ZstdMemberDecoder,
    _XZ: XzDecoder,
}
