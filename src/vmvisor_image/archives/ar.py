"""``ar`` archives: a VIB, the package of ESXi 5 and later, is one: ``descriptor.xml``, ``sig.pkcs7`` and payloads.

Source: ar(5) of FreeBSD: an 8-byte magic, then for each member a header of 60 bytes of text and its data, padded to an
even length. Long names as GNU (``//`` and ``/offset``) and BSD (``#1/length``) write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.files.file import Extent
from vmvisor_image.schemas.ar import MAGIC, MEMBER_END, MemberHeader
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt

NAME: Final = "ar (VIB)"
KIND: Final = "ar"
SUFFIXES: Final = (".vib",)
HOLDS_DISKS: Final = False
MAGICS: Final = (Signature("ar", "ar archive", 0, b"!<arch>\n", content="data"),)
REFERENCES: Final = ("FreeBSD, ar(5)",)
_LONGEST_NAME: Final = 1 << 16
_LARGEST_TABLE: Final = 16 << 20
"""Bytes of the table of long names."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is an ar archive."""
    return head[: len(MAGIC)] == MAGIC


def kind_of(_source: ReadAt, head: bytes, /) -> str | None:
    """`KIND` if a source that begins with `head` is an ar archive, otherwise None."""
    return KIND if probe(head) else None


def read_members(source: ReadAt, report: Callable[[Problem], None]) -> Iterator[ArchiveMember]:
    """The members, in archive order.

    Raises:
        CorruptImage: A header is damaged, so that the place of the next one is unknown.
    """
    at = len(MAGIC)
    names = b""
    while data := read_up_to(source, at, MemberHeader.length()):
        header = MemberHeader.parse(data, base=at)
        if header.end != MEMBER_END:
            raise CorruptImage(
                "it is none",
                structure="ar header",
                offset=at,
                field="end",
                expected=MEMBER_END.hex(),
                found=header.end.hex(),
            )
        size = _number(header.size, at, "size")
        start = at + MemberHeader.length()
        following = start + size + size % 2
        name = header.name.rstrip(b" ")
        if name == b"//":
            if size > _LARGEST_TABLE:
                message = f"of {size} bytes of long names the first {_LARGEST_TABLE} are read"
                report(Problem("ar header", message, at))
            names = read_up_to(source, start, min(size, _LARGEST_TABLE))
        elif name.startswith(b"#1/"):
            length = _number(name[3:], at, "name")
            if length > min(size, _LONGEST_NAME):
                raise CorruptImage("its name is longer than its data", structure="ar header", offset=at, field="name")
            name = source.read_at(start, length).rstrip(b"\0")
            start, size = start + length, size - length
        elif name[:1] == b"/" and name[1:].isdigit():
            name = names[int(name[1:]) :].partition(b"\n")[0]
        if name not in (b"/", b"//", b"/SYM64/"):
            member = _member(header, name, start, size)
            if member is None:
                report(Problem("ar header", f"the member {header.name!r} has no name and is left out", at))
            else:
                yield member
        at = following
        if knows_size(source) and start + size > source.size:
            report(Problem("ar archive", "it ends within a member", source.size))


def _member(header: MemberHeader, name: bytes, start: int, size: int) -> ArchiveMember | None:
    at = header.source_offset or 0
    parts = name.decode("utf-8", "surrogateescape").removesuffix("/").split("/")
    path = "/".join(part for part in parts if part not in ("", "."))
    if not path:
        return None
    seconds, mode = _leading_digits(header.modified, 10), _leading_digits(header.mode, 8)
    try:
        modified = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        modified = None
    extents = (Extent(start, size),) if size else ()
    return ArchiveMember(path, "file", size, modified, (mode or 0) & 0o7777, offset=at, extents=extents)


def _number(raw: bytes, at: int, field: str) -> int:
    found = _leading_digits(raw, 10)
    if found is None:
        raise CorruptImage("it is not a number", structure="ar header", offset=at, field=field, found=repr(raw))
    return found


def _leading_digits(raw: bytes, base: int) -> int | None:
    """A number as binutils reads one: the leading digits, 0 for a blank field; None where no digits lead.

    An octal number may have Python's prefix ``0o``, as in VIBs of ESXi 8 and 9.
    """
    text = raw.strip(b" \0")
    if base == 8:
        text = text.removeprefix(b"0o")
    digits = re.match(rb"[0-7]*" if base == 8 else rb"[0-9]*", text)
    assert digits is not None, "no digits are a match, too"
    if digits[0]:
        return int(digits[0], base)
    return None if text else 0
