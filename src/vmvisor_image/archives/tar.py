"""Tar archives (V7, POSIX, GNU and pax) and vmtar, VMware's variant of it.

A vmtar has the same headers with another magic. In the usual variant all headers come first, each with the offset of
its data; in the other variant, used for payloads of VIBs, the data follows each header as in a tar.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.archives.member import ArchiveMember, MemberKind
from vmvisor_image.archives.tar_sparse import (
    MOST_ENTRIES,
    SparseMember,
    SparseTable,
    TableInData,
    pairs,
    read_number,
)
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.files.file import Extent
from vmvisor_image.schemas.tar import (
    BLOCK,
    CHECKSUM,
    GNU_MAGIC,
    POSIX_MAGIC,
    VISOR_MAGIC,
    MemberHeader,
    TarTail,
    VmtarTail,
)
from vmvisor_image.streams.reading import knows_size, read_healthy, read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "tar, vmtar"
KIND: Final = "tar"
SUFFIXES: Final = (".tgz", ".tar")
HOLDS_DISKS: Final = True
MAGICS: Final = (
    Signature("vmtar", "VMware vmtar archive", 257, b"visor  \0", content="data"),
    Signature("tar", "tar archive", 257, b"ustar", content="data"),
)
REFERENCES: Final = (
    "POSIX.1-2017, pax",
    "GNU tar, Basic Tar Format and Sparse Formats",
)
_MAGIC_AT: Final = slice(257, 265)
_LARGEST_EXTRA: Final = 16 << 20
"""Largest long name or pax header in bytes; pax headers may hold the table of a sparse file, or extended attributes."""
_LONG_NAME, _LONG_TARGET, _PAX, _PAX_GLOBAL, _GNU_SPARSE = b"L", b"K", b"x", b"g", b"S"
_PAX_OF_SOLARIS: Final = b"X"
_CONTINUED: Final = b"M"
_EXTRAS: Final = (_LONG_NAME, _LONG_TARGET, _PAX, _PAX_OF_SOLARIS, _PAX_GLOBAL)
_KINDS: Final[dict[bytes, MemberKind]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    _GNU_SPARSE: "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "device",
    b"4": "device",
    b"5": "directory",
    b"6": "fifo",
    b"D": "directory",  # GNU's dumpdir: its data is the list of the names in it
}
_WITHOUT_DATA: Final = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_NO_MEMBERS: Final = {
    b"V": None,  # GNU: the archive's label
    b"A": None,  # Solaris: the access control list of the next member
    b"N": "names that an old GNU tar shortened are listed here and not read: members have the short ones",
}
"""Types of headers with data that are not members, and the message to report for each; None for no message."""
_PAX_KEYS: Final = frozenset((b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid"))
_SPARSE_PREFIX: Final = "GNU.sparse."
_IN_TABLE: Final = ("GNU.sparse.offset", "GNU.sparse.numbytes")
"""Keywords of format 0.0, which alternate, both once for each piece."""
_EMPTY: Final = bytes(BLOCK)
_REST: Final = 1 << 16
_LARGEST_REST: Final = 16 << 20
"""Number of bytes examined behind the end mark, where writers leave at most a record of zeros."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OCTAL: Final = re.compile(rb"\0?[ \t]*([0-7]*)(?:[ \0].*)?", re.DOTALL)
_RECORD: Final = re.compile(rb"([0-9]{1,20}) ")
_SPARSE_TABLE: Final = 386 - 345
"""First byte of the table of a sparse file in GNU's old format, from the start of a header's tail."""
_REAL_SIZE: Final = slice(483 - 345, 495 - 345)
"""Bytes of the size of a sparse file in GNU's old format, from the start of a header's tail."""
_SPARSE_ENTRIES: Final = 4
_SPARSE_ENTRY: Final = 24
_MOST_SPARSE_BLOCKS: Final = 4096

Report = Callable[[Problem], None]


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is a tar or vmtar, which begins with a header with the right checksum.

    V7 has no magic: a header without one must also have a name, and numbers in the numeric fields.
    """
    block = head[:BLOCK]
    if not _has_checksum(block):
        return False
    return block[_MAGIC_AT] == VISOR_MAGIC or block[_MAGIC_AT][:5] == POSIX_MAGIC[:5] or _has_numbers(block)


def probe_empty(head: bytes) -> bool:
    """Whether a source that begins with `head` is a tar without members, which begins with two blocks of zeros."""
    return len(head) >= 2 * BLOCK and not any(head)


def kind_of(_source: ReadAt, head: bytes, /) -> str | None:
    """Variant of a source that begins with `head`, "tar" or "vmtar"; None where it is neither."""
    if not probe(head):
        return None
    return "vmtar" if head[_MAGIC_AT] == VISOR_MAGIC else KIND


def read_members(source: ReadAt, report: Report) -> Iterator[ArchiveMember]:
    """The members, in archive order. After a damaged header, reading continues with the next intact one.

    Raises:
        CorruptImage: The source is damaged.
    """
    return _Reader(source, report).members()


@dataclass(slots=True)
class _Header:
    """A header of a tar or vmtar."""

    record: MemberHeader
    tail: TarTail | VmtarTail
    type_flag: bytes
    size: int
    start: int
    """First byte of the data, from the archive's start."""
    data_follows: bool
    """Whether the data lies between this header and the next one."""
    next: int
    """First byte of the next header, from the archive's start."""

    @classmethod
    def parse(cls, source: ReadAt, block: bytes, at: int) -> _Header:
        record = MemberHeader.parse(block, base=at)
        is_vmtar = record.magic == VISOR_MAGIC
        tail = (VmtarTail if is_vmtar else TarTail).parse(block, MemberHeader.length(), base=at)
        elsewhere = tail.data_offset if isinstance(tail, VmtarTail) else 0
        type_flag = bytes((record.type_flag,))
        size = 0 if type_flag in _WITHOUT_DATA else _number(record.size, at, "size")
        start, after = at + BLOCK, at + BLOCK
        if elsewhere:
            start = elsewhere
        else:
            if type_flag == _GNU_SPARSE:
                start = after = _after_sparse_table(source, block, at)
            after += _padded(size)
        return cls(record, tail, type_flag, size, start, not elsewhere, after)

    @property
    def at(self) -> int:
        """First byte of the header, from the archive's start."""
        return self.record.source_offset or 0

    @property
    def path(self) -> str:
        name = _text(self.record.name)
        magic = self.record.magic
        # In place of the prefix, GNU's old format has times and the table of a sparse file, and V7 has nothing.
        if magic == VISOR_MAGIC or (magic[:5] == POSIX_MAGIC[:5] and magic != GNU_MAGIC):
            prefix = _text(self.tail.prefix)
            return f"{prefix}/{name}" if prefix else name
        return name


class _Extra:
    """Attributes of a member from the extra headers that precede its own."""

    def __init__(self, everywhere: dict[str, bytes] | None = None) -> None:
        self.everywhere = everywhere or {}
        """Values that a global pax header sets for all members, by keyword."""
        self._own: dict[str, bytes] = {}
        self._sparse_table: list[tuple[str, bytes]] = []
        """Keyword and value of each offset and length of format 0.0, in order."""
        self.is_left_out = False
        """Whether one of the headers was not read, so that the member's name or size is unknown."""

    def take(self, header: _Header, data: bytes) -> None:
        """Take the data of an extra header.

        Raises:
            CorruptImage: The data is damaged; everything before the damage was taken.
        """
        if header.type_flag == _LONG_NAME:
            self._own["path"] = data.partition(b"\0")[0]
        elif header.type_flag == _LONG_TARGET:
            self._own["linkpath"] = data.partition(b"\0")[0]
        else:
            for key, value in _records(data, header.start):
                self._take_pax(key, value, is_global=header.type_flag == _PAX_GLOBAL)

    def _take_pax(self, key: bytes, value: bytes, *, is_global: bool) -> None:
        """Keep a value if it is used; the last value of a keyword counts, except in the table of format 0.0."""
        text = key.decode("utf-8", "surrogateescape")
        if key in _PAX_KEYS:
            (self.everywhere if is_global else self._own)[text] = value
        elif text.startswith(_SPARSE_PREFIX) and not is_global:
            if text in _IN_TABLE:
                self._sparse_table.append((text, value))
            self._own[text] = value

    def get(self, key: str) -> str | None:
        """Value of a pax keyword; None where it is absent or empty, since an empty value revokes an earlier one."""
        value = self._own.get(key, self.everywhere.get(key))
        return value.decode("utf-8", "surrogateescape") if value else None

    def number(self, key: str, at: int) -> int | None:
        """Value of a pax keyword that is a decimal number; None where it is absent or empty.

        Raises:
            CorruptImage: The value is not a number, or has 20 digits or more.
        """
        text = self.get(key)
        if text is None:
            return None
        digits = text.lstrip("0") or "0"
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            message = "it is out of range" if digits.isascii() and digits.isdigit() else "it is not a number"
            raise CorruptImage(
                message, structure="pax header", offset=at, field=key, expected="digits", found=repr(text[:40])
            )
        return int(digits)

    @property
    def is_sparse(self) -> bool:
        """Whether the member is a sparse file in one of GNU's pax formats."""
        return any(key.startswith(_SPARSE_PREFIX) for key in self._own)

    @property
    def has_table(self) -> bool:
        """Whether the table of a sparse file is in the pax header (formats 0.0 and 0.1), not in the data (1.0)."""
        return self.get("GNU.sparse.major") in (None, "0")

    def table(self) -> list[int]:
        """Offset and length of each piece of a sparse file, alternately, in bytes.

        Raises:
            CorruptImage: The table is damaged.
        """
        text = self._own.get("GNU.sparse.map")
        if text is not None:
            return [read_number(part) for part in text.split(b",")] if text else []
        if any(key != wanted for (key, _), wanted in zip(self._sparse_table, itertools.cycle(_IN_TABLE), strict=False)):
            raise CorruptImage("its table of a sparse file is not in order", structure="pax header")
        return [read_number(value) for _, value in self._sparse_table]


class _Reader:
    """Reader of the headers of one archive, from its beginning."""

    def __init__(self, source: ReadAt, report: Report) -> None:
        self._source, self._report = source, report
        self._is_vmtar = read_up_to(source, 0, BLOCK)[_MAGIC_AT] == VISOR_MAGIC
        self._extra = _Extra()
        self._entries_left = MOST_ENTRIES
        self._data_start: int | None = None
        """Lowest data offset in the headers so far, of a vmtar whose headers come first; None for other archives."""

    def members(self) -> Iterator[ArchiveMember]:
        """The members, in archive order."""
        at = 0
        is_lost = False
        """Whether a damaged header was met and no intact one since."""
        while True:
            block = read_up_to(self._source, at, BLOCK)
            if len(block) < BLOCK:
                if not is_lost and (block or (knows_size(self._source) and at > self._source.size)):
                    self._report(Problem("tar archive", "it ends within a member", self._source.size))
                return
            if not _has_checksum(block) or (self._is_vmtar and block[_MAGIC_AT] != VISOR_MAGIC):
                if self._data_start is not None and at >= self._data_start:
                    return
                if not is_lost:
                    if block == _EMPTY:
                        self._look_behind(at)
                        return
                    is_lost = True
                    message = "its checksum is wrong; what follows is searched for the next one"
                    self._report(Problem("tar header", message, at))
                at += BLOCK
                continue
            try:
                header = _Header.parse(self._source, block, at)
            except CorruptImage as error:
                self._report(Problem.of(error))
                is_lost = True
                at += BLOCK
                continue
            is_lost = False
            at = header.next
            if not header.data_follows:
                self._data_start = min(header.start, self._data_start or header.start)
            if header.type_flag in _EXTRAS:
                self._take(header)
                continue
            size = self._size(header)
            if size != header.size and header.data_follows:
                at = header.start + _padded(size)
            member = self._member_or_problem(header, size)
            self._extra = _Extra(self._extra.everywhere)
            if member is not None:
                yield member

    def _look_behind(self, end: int) -> None:
        """Report members behind the end mark at `end`: an archive was appended, or headers were overwritten."""
        has_data_there = self._data_start is not None  # a vmtar, whose headers come first
        for start in range(end, end if has_data_there else end + _LARGEST_REST, _REST):
            try:
                data = read_healthy(self._source, start, _REST)
            except CorruptImage as error:
                self._report(Problem.of(error))
                return
            if data.strip(b"\0"):
                for at in range(0, len(data), BLOCK):
                    if probe(data[at : at + BLOCK]):
                        message = f"a member follows the end mark at byte {end:#x}; what is there is not listed"
                        self._report(Problem("tar archive", message, start + at))
                        return
            if len(data) < _REST:
                return

    def _take(self, header: _Header) -> None:
        """Read an extra header, which describes the next member, or all that follow."""
        if header.size > _LARGEST_EXTRA:
            message = f"a name or pax header of {header.size} bytes is left out"
            if header.type_flag != _PAX_GLOBAL:
                self._extra.is_left_out = True
                message += ", as is the member that it is of"
            self._report(Problem("tar header", message, header.at))
            return
        data = self._source.read_at(header.start, header.size)
        try:
            self._extra.take(header, data)
        except CorruptImage as error:
            self._report(_placed(error, header.at))

    def _size(self, header: _Header) -> int:
        """Number of bytes of a member's data in the archive."""
        return 0 if header.type_flag in _WITHOUT_DATA else self._number("size", header, header.size)

    def _number(self, key: str, header: _Header, otherwise: int) -> int:
        """Number from the pax header, for values too large for the member's own header; `otherwise` without one."""
        try:
            found = self._extra.number(key, header.at)
        except CorruptImage as error:
            self._report(Problem.of(error))
            found = None
        return otherwise if found is None else found

    def _member_or_problem(self, header: _Header, size: int) -> ArchiveMember | None:
        try:
            return self._member(header, size)
        except CorruptImage as error:
            self._report(_placed(error, header.at))
            return None

    def _member(self, header: _Header, size: int) -> ArchiveMember | None:
        record, at, extra = header.record, header.at, self._extra
        if extra.is_left_out:
            return None
        if header.type_flag in _NO_MEMBERS:
            remark = _NO_MEMBERS[header.type_flag]
            if remark is not None:
                self._report(Problem("tar header", remark, at))
            return None
        written = extra.get("GNU.sparse.name") or extra.get("path") or header.path
        path = _clean(written)
        found = _KINDS.get(header.type_flag, "file")
        if header.type_flag in (b"\0", b"0", b"7") and written.endswith("/"):
            found = "directory"  # as written by tar before POSIX
        if not path:
            if found != "directory":  # "./" is the root itself
                self._report(Problem("tar header", "a member has no name and is left out", at))
            return None
        if header.type_flag == _CONTINUED:
            message = f"{path!r} is the rest of a file whose beginning is in another volume, and is left out"
            raise CorruptImage(message, structure="tar header", offset=at)
        if header.type_flag not in _KINDS:
            message = f"{path!r} is of the unknown type {header.type_flag!r} and is read as a file"
            self._report(Problem("tar header", message, at))
        extents: tuple[Extent, ...] = ()
        content: SparseMember | None = None
        if found != "file":
            size = 0
        elif header.type_flag == _GNU_SPARSE or extra.is_sparse:
            content = self._sparse(header, size)
            size = content.size
        elif size:
            extents = (Extent(header.start, size),)
        return ArchiveMember(
            path,
            found,
            size,
            _time(extra.get("mtime"), record.modified, at),
            _number(record.mode, at, "mode") & 0o7777,
            self._number("uid", header, _number(record.owner, at, "owner")),
            self._number("gid", header, _number(record.group, at, "group")),
            _target(extra.get("linkpath") or _text(record.target), found),
            at,
            extents,
            content,
        )

    def _sparse(self, header: _Header, stored: int) -> SparseMember:
        """A sparse file whose data takes `stored` bytes in the archive, including its table in format 1.0."""
        extra, at, start = self._extra, header.at, header.start
        if header.type_flag == _GNU_SPARSE:
            size = _number(header.tail.raw[_REAL_SIZE], at, "real size")
            table = self._table(size, _old_table(self._source, header))
        else:
            real = extra.number("GNU.sparse.realsize", at)
            known = extra.number("GNU.sparse.size", at) if real is None else real
            if known is None:
                raise CorruptImage("the size of its sparse file is missing", structure="pax header", offset=at)
            if extra.has_table:
                table = self._table(known, extra.table())
                count = extra.number("GNU.sparse.numblocks", at)
                if count not in (None, table.entries):
                    message = f"its table of a sparse file has {table.entries} entries, and says {count}"
                    raise CorruptImage(message, structure="pax header", offset=at)
            elif (extra.get("GNU.sparse.major"), extra.get("GNU.sparse.minor")) == ("1", "0"):
                inside = TableInData(self._source, start, start + stored)
                table = self._table(known, inside.numbers())
                start = inside.pieces_start
            else:
                version = f"{extra.get('GNU.sparse.major')}.{extra.get('GNU.sparse.minor')}"
                message = f"its sparse file is of version {version}, which is not read"
                raise CorruptImage(message, structure="pax header", offset=at)
        if start + table.stored != header.start + stored:
            raise CorruptImage(
                "its table of a sparse file does not fit its data",
                structure="tar header",
                offset=at,
                expected=f"{header.start + stored - start} bytes",
                found=f"{table.stored}",
            )
        return SparseMember(self._source, start, table)

    def _table(self, size: int, numbers: Iterable[int]) -> SparseTable:
        table = SparseTable(size, pairs(numbers), most=self._entries_left)
        self._entries_left -= table.entries
        return table


def _placed(error: CorruptImage, at: int) -> Problem:
    """Problem for an error, at byte `at` unless the error has its own offset."""
    problem = Problem.of(error)
    return problem if problem.offset is not None else Problem(problem.structure, problem.message, at)


def _target(text: str, found: MemberKind) -> str | None:
    if found == "hardlink":
        return _clean(text)
    return text if found == "symlink" else None


def _clean(path: str) -> str:
    """A path without empty and ``.`` components, so without leading, trailing and doubled slashes."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _has_checksum(block: bytes) -> bool:
    if len(block) < BLOCK:
        return False
    match = _OCTAL.fullmatch(block[CHECKSUM])
    if match is None or not match[1]:
        return False
    value = int(match[1], 8)
    rest = block[: CHECKSUM.start] + b" " * 8 + block[CHECKSUM.stop :]
    # Some old programs added up signed characters.
    return value == sum(rest) or value == sum(byte - 256 if byte > 127 else byte for byte in rest)


def _has_numbers(block: bytes) -> bool:
    """Whether a block has a name, and a header's numbers; a volume label of GNU tar has only a time."""
    record = MemberHeader.parse(block)
    numbers = (record.mode, record.owner, record.group, record.size, record.modified)
    try:
        for raw in numbers:
            _number(raw, 0, "number")
    except CorruptImage:
        return False
    return record.name[0] != 0 and any(b"".join(numbers).strip(b" \0"))


def _number(raw: bytes, at: int, field: str) -> int:
    """Number in a field of a header: octal digits up to a space or NUL, or base 256.

    Raises:
        CorruptImage: The field is not a number, or is negative or 2**63 or more.
    """
    if raw[0] & 0x80:
        value = int.from_bytes(bytes((raw[0] & 0x7F,)) + raw[1:], "big")
        if raw[0] & 0x40 or value >> 63:
            raise CorruptImage("it is negative or out of range", structure="tar header", offset=at, field=field)
        return value
    match = _OCTAL.fullmatch(raw)
    if match is None:
        raise CorruptImage(
            "it is not a number",
            structure="tar header",
            offset=at,
            field=field,
            expected="octal digits",
            found=repr(raw),
        )
    return int(match[1] or b"0", 8)


def _time(precise: str | None, raw: bytes, at: int) -> datetime | None:
    if precise is not None:
        try:
            return _EPOCH + timedelta(seconds=float(precise))
        except (ValueError, OverflowError):
            pass  # the header has the time to the second
    try:
        # Before 1970 it is negative, in base 256.
        seconds = int.from_bytes(raw, "big", signed=True) if raw[0] == 0xFF else _number(raw, at, "modified")
        return _EPOCH + timedelta(seconds=seconds)
    except (OverflowError, CorruptImage):
        return None


def _records(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Keywords and values of a pax header, whose lines are a length, a space, and ``keyword=value``.

    Raises:
        CorruptImage: A line is damaged; the lines before it are given first.
    """
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        match = _RECORD.match(data, at)
        following = 0 if match is None else at + int(match[1])
        if match is None or not match.end() < following <= len(data) or data[following - 1] != 0x0A:
            raise CorruptImage(
                "its length is wrong; it and what follows is left out", structure="pax header", offset=start + at
            )
        key, separator, value = data[match.end() : following - 1].partition(b"=")
        if not separator:
            raise CorruptImage("it has no '='; what follows is left out", structure="pax header", offset=start + at)
        yield key, value
        at = following


def _after_sparse_table(source: ReadAt, block: bytes, at: int) -> int:
    """First byte of the data of a sparse file in GNU's old format, behind the blocks that continue its table.

    Raises:
        CorruptImage: The table has no end.
    """
    after = at + BLOCK
    goes_on = block[482]
    while goes_on:
        if after - at > _MOST_SPARSE_BLOCKS * BLOCK:
            raise CorruptImage("its table of a sparse file has no end", structure="tar header", offset=at)
        goes_on = source.read_at(after, BLOCK)[504]
        after += BLOCK
    return after


def _old_table(source: ReadAt, header: _Header) -> Iterator[int]:
    """Offset and length of each piece of a sparse file in GNU's old format, alternately, in bytes."""
    table = header.tail.raw[_SPARSE_TABLE : _SPARSE_TABLE + _SPARSE_ENTRIES * _SPARSE_ENTRY]
    at = header.at + BLOCK
    while True:
        for place in range(0, len(table), 12):
            yield _number(table[place : place + 12], header.at, "sparse table")
        if at >= header.start:
            return
        table = source.read_at(at, 21 * _SPARSE_ENTRY)
        at += BLOCK
