"""Tar archives (POSIX, GNU and pax) and vmtar, VMware's variant of it.

A vmtar has the same headers with another magic. In the usual variant all headers come first and say where the data
is; in the other one, which payloads of VIBs have, the data follows each header as in a tar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.archives import ArchiveMember, MemberKind
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files import Extent
from vmvisor_image.schemas.tar import (
    BLOCK,
    CHECKSUM,
    POSIX_MAGIC,
    VISOR_MAGIC,
    MemberHeader,
    TarTail,
    VmtarTail,
)
from vmvisor_image.streams import ReadAt, check_range, knows_size, past_end, read_up_to

KIND: Final = "tar"
_MAGIC_AT: Final = slice(257, 265)
_LONGEST_NAME: Final = 1 << 16
"""Bytes of a long name or of a pax header: far over what any system takes for a path."""
_LONG_NAME, _LONG_TARGET, _PAX, _PAX_GLOBAL, _GNU_SPARSE = b"L", b"K", b"x", b"g", b"S"
_KINDS: Final[dict[bytes, MemberKind]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "device",
    b"4": "device",
    b"5": "directory",
    b"6": "fifo",
}
_EMPTY: Final = bytes(BLOCK)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPARSE_TABLE: Final = 386 - 345
"""Where GNU's old format has the table of a sparse file, in bytes from the start of a header's tail."""
_REAL_SIZE: Final = slice(483 - 345, 495 - 345)
"""Where it has the size of one."""
_SPARSE_ENTRIES: Final = 4
_SPARSE_ENTRY: Final = 24
_MOST_SPARSE_BLOCKS: Final = 4096

Report = Callable[[Problem], None]


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a tar or vmtar: a header with a magic and the right checksum."""
    magic = head[_MAGIC_AT]
    return (magic[:5] == b"ustar" or magic == VISOR_MAGIC) and _has_checksum(head[:BLOCK])


def probe_empty(head: bytes) -> bool:
    """Whether a source that begins with `head` is a tar without members, which is two blocks of zeros."""
    return len(head) >= 2 * BLOCK and not any(head)


def kind(head: bytes) -> str:
    """Name of the variant."""
    return "vmtar" if head[_MAGIC_AT] == VISOR_MAGIC else KIND


def read_members(source: ReadAt, report: Report) -> Iterator[ArchiveMember]:
    """The members, in archive order. A damaged header is passed over up to the next one that is whole.

    Raises:
        CorruptImage: The source is damaged.
    """
    is_vmtar = read_up_to(source, 0, BLOCK)[_MAGIC_AT] == VISOR_MAGIC
    at = 0
    extra = _Extra()
    lost: int | None = None
    """Where headers began to be damaged."""
    while True:
        block = read_up_to(source, at, BLOCK)
        if len(block) < BLOCK:
            if lost is None and (block or (knows_size(source) and at > source.size)):
                report(Problem("tar archive", "it ends within a member", source.size))
            return
        if not _has_checksum(block) or (is_vmtar and block[_MAGIC_AT] != VISOR_MAGIC):
            if lost is None:
                if block == _EMPTY or is_vmtar:
                    return
                lost = at
                report(Problem("tar header", "its checksum is wrong; what follows is searched for the next one", at))
            at += BLOCK
            continue
        lost = None
        try:
            header = _Header.parse(source, block, at)
        except CorruptImage as error:
            report(Problem.of(error))
            lost = at
            at += BLOCK
            continue
        at = header.next
        try:
            if header.type_flag in (_LONG_NAME, _LONG_TARGET, _PAX, _PAX_GLOBAL):
                extra.take(source, header, report)
                continue
            member = _member(source, header, extra, report)
        except CorruptImage as error:
            report(Problem.of(error))
            member = None
        if extra.size is not None and header.data_follows:
            at = header.start + _padded(extra.size)
        extra = _Extra(extra.everywhere)
        if member is not None:
            yield member


@dataclass(slots=True)
class _Header:
    """What both kinds of headers say."""

    record: MemberHeader
    tail: TarTail | VmtarTail
    type_flag: bytes
    size: int
    start: int
    """First byte of the data."""
    data_follows: bool
    """Whether the next header comes after the data, and not after this header."""
    next: int
    """The next header."""

    @classmethod
    def parse(cls, source: ReadAt, block: bytes, at: int) -> _Header:
        record = MemberHeader.parse(block, base=at)
        is_vmtar = record.magic == VISOR_MAGIC
        tail = (VmtarTail if is_vmtar else TarTail).parse(block, MemberHeader.length(), base=at)
        elsewhere = tail.data_offset if isinstance(tail, VmtarTail) else 0
        type_flag = bytes((record.type_flag,))
        size = _number(record.size, at, "size")
        if _KINDS.get(type_flag, "file") != "file":
            size = 0
        start, after = at + BLOCK, at + BLOCK
        if elsewhere:
            start = elsewhere
        else:
            if type_flag == _GNU_SPARSE:
                start = after = _after_sparse_table(source, block, at)
            after += _padded(size)
        return cls(record, tail, type_flag, size, start, not elsewhere, after)

    @property
    def path(self) -> str:
        name = _text(self.record.name)
        if self.record.magic in (VISOR_MAGIC, POSIX_MAGIC):
            prefix = _text(self.tail.prefix)
            return f"{prefix}/{name}" if prefix else name
        return name


class _Extra:
    """What headers before a member's own say of it."""

    def __init__(self, everywhere: dict[str, str] | None = None) -> None:
        self.everywhere = everywhere or {}
        """What a global pax header says of all members."""
        self._own: dict[str, str] = {}

    def take(self, source: ReadAt, header: _Header, report: Report) -> None:
        """Read the data of such a header."""
        at = header.record.source_offset
        if header.size > _LONGEST_NAME:
            report(Problem("tar header", f"a name or pax header of {header.size} bytes is left out", at))
            return
        data = source.read_at(header.start, header.size)
        if header.type_flag == _LONG_NAME:
            self._own["path"] = _text(data)
        elif header.type_flag == _LONG_TARGET:
            self._own["linkpath"] = _text(data)
        else:
            (self.everywhere if header.type_flag == _PAX_GLOBAL else self._own).update(_pax(data))

    def get(self, key: str) -> str | None:
        """The value of a pax keyword."""
        return self._own.get(key, self.everywhere.get(key))

    @property
    def size(self) -> int | None:
        """Bytes of data, where it is said."""
        text = self.get("size") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def is_sparse(self) -> bool:
        """Whether the data is GNU's pax variant of a sparse file."""
        return any(key.startswith("GNU.sparse") for key in self._own)


def _member(source: ReadAt, header: _Header, extra: _Extra, report: Report) -> ArchiveMember | None:
    record, at = header.record, header.record.source_offset or 0
    path = _clean(extra.get("path") or header.path)
    found = _KINDS.get(header.type_flag, "file")
    if header.type_flag == b"\0" and (extra.get("path") or header.path).endswith("/"):
        found = "directory"  # as tar before POSIX wrote them
    if not path:
        if found != "directory":  # "./" is the root itself
            report(Problem("tar header", "a member has no name and is left out", at))
        return None
    size = header.size if extra.size is None or found != "file" else extra.size
    extents: tuple[Extent, ...] = ()
    content: ReadAt | None = None
    if found == "file":
        if extra.is_sparse:
            report(Problem("tar header", f"{path!r} is a sparse file of pax format, which is not read", at))
            return None
        if header.type_flag == _GNU_SPARSE:
            content = _sparse(source, header)
            size = content.size
        elif size:
            extents = (Extent(header.start, size),)
    return ArchiveMember(
        path,
        found,
        size,
        _time(extra.get("mtime"), record.modified, at),
        _number(record.mode, at, "mode") & 0o7777,
        _number(record.owner, at, "owner"),
        _number(record.group, at, "group"),
        _target(extra.get("linkpath") or _text(record.target), found),
        at,
        extents,
        content,
    )


def _target(text: str, found: MemberKind) -> str | None:
    if found == "hardlink":
        return _clean(text)
    return text if found == "symlink" else None


def _clean(path: str) -> str:
    """A path without what stands for the place where it is: leading slashes, dots and doubled slashes."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _has_checksum(block: bytes) -> bool:
    if len(block) < BLOCK:
        return False
    raw = block[CHECKSUM].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,7}", raw):
        return False
    value = int(raw, 8)
    rest = block[: CHECKSUM.start] + b" " * 8 + block[CHECKSUM.stop :]
    # Some old programs summed signed characters.
    return value == sum(rest) or value == sum(byte - 256 if byte > 127 else byte for byte in rest)


def _number(raw: bytes, at: int, field: str) -> int:
    """A number of a header: octal digits, or base 256."""
    if raw[0] & 0x80:
        value = int.from_bytes(bytes((raw[0] & 0x7F,)) + raw[1:], "big")
        if raw[0] == 0xFF or value >> 63:
            raise CorruptImage("it is negative or out of range", structure="tar header", offset=at, field=field)
        return value
    digits = raw.partition(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise CorruptImage(
            "it is no number", structure="tar header", offset=at, field=field, expected="octal digits", found=repr(raw)
        )
    return int(digits or b"0", 8)


def _time(precise: str | None, raw: bytes, at: int) -> datetime | None:
    try:
        seconds = float(precise) if precise is not None else _number(raw, at, "modified")
        return _EPOCH + timedelta(seconds=seconds)
    except (ValueError, OverflowError, CorruptImage):
        return None


def _pax(data: bytes) -> dict[str, str]:
    """Keywords and values of a pax header: lines of a length, a space, and ``keyword=value``."""
    found = {}
    at = 0
    while match := re.compile(rb"([0-9]{1,6}) ").match(data, at):
        end = at + int(match.group(1))
        if end <= match.end() or end > len(data):
            break
        key, separator, value = data[match.end() : end - 1].partition(b"=")
        if separator:
            found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return found


def _after_sparse_table(source: ReadAt, block: bytes, at: int) -> int:
    """Where the data of a sparse file of GNU's old format starts: behind the blocks that go on with its table."""
    after = at + BLOCK
    goes_on = block[482]
    while goes_on:
        if after - at > _MOST_SPARSE_BLOCKS * BLOCK:
            raise CorruptImage("its table of a sparse file has no end", structure="tar header", offset=at)
        goes_on = source.read_at(after, BLOCK)[504]
        after += BLOCK
    return after


def _sparse(source: ReadAt, header: _Header) -> SparseMember:
    at = header.record.source_offset or 0
    first = header.tail.raw
    table = first[_SPARSE_TABLE : _SPARSE_TABLE + _SPARSE_ENTRIES * _SPARSE_ENTRY]
    for block in range(at + BLOCK, header.start, BLOCK):
        table += source.read_at(block, 21 * _SPARSE_ENTRY)
    pieces = []
    start, end = header.start, 0
    for place in range(0, len(table), _SPARSE_ENTRY):
        offset, length = (_number(table[p : p + 12], at, "sparse table") for p in (place, place + 12))
        if length == 0:
            continue
        if offset < end:
            raise CorruptImage("its table of a sparse file is not in order", structure="tar header", offset=at)
        pieces.append((offset, start, length))
        start, end = start + length, offset + length
    size = _number(first[_REAL_SIZE], at, "real size")
    if end > size or start > header.start + header.size:
        raise CorruptImage("its table of a sparse file passes its end", structure="tar header", offset=at)
    return SparseMember(source, size, tuple(pieces))


class SparseMember:
    """A sparse file in a tar of GNU's old format: its holes are not in the archive."""

    def __init__(self, source: ReadAt, size: int, pieces: tuple[tuple[int, int, int], ...]) -> None:
        """Take the pieces that are there: offset in the file, offset in the archive, and length of each, in order."""
        self._source = source
        self.size = size
        """Bytes of the file."""
        self._pieces = pieces

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        if offset + length > self.size:
            raise past_end("sparse member", offset, length, self.size)
        found = bytearray(length)
        for at, place, count in self._pieces:
            first, last = max(at, offset), min(at + count, offset + length)
            if first < last:
                found[first - offset : last - offset] = self._source.read_at(place + first - at, last - first)
        return bytes(found)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.skip_zeros`."""
        following = (max(at, offset) for at, _, count in self._pieces if at + count > offset)
        return min(next(following, end), end)
