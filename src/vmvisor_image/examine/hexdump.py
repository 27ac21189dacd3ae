"""Hexdumps, with the fields of the structures in them marked and named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from vmvisor_image.base.shown import Shown
from vmvisor_image.record import Record
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

LINE: Final = 16
"""Bytes in a line."""
_HALF: Final = LINE // 2
_LONGEST_VALUE: Final = 40


@dataclass(frozen=True, slots=True)
class Mark:
    """A field in a hexdump."""

    start: int
    """First byte of the field, counted as the hexdump's offsets are."""
    end: int
    """End of the field, exclusive."""
    record: str
    """Name of the structure that has the field."""
    field: str
    """Name of the field; within a nested structure it has a dot, such as ``entries[0].first_lba``."""
    value: str
    """Value of the field as text, shortened where it is long."""


@dataclass(frozen=True, slots=True)
class HexLine:
    """A line of a hexdump; `str` of it is the line as hexdump -C prints it."""

    offset: int
    """Offset of the line's first byte, counted as the hexdump's offsets are."""
    data: bytes
    """Bytes of the line: 16, except in the last one."""

    @property
    def text(self) -> str:
        """Printable ASCII as it is, a dot for anything else."""
        return printable(self.data)

    def __str__(self) -> str:
        first, second = (half.hex(" ") for half in (self.data[:_HALF], self.data[_HALF:]))
        return f"{self.offset:08x}  {first:{_HALF * 3 - 1}}  {second:{_HALF * 3 - 1}}  |{self.text}|"


@dataclass(frozen=True, slots=True, repr=False)
class Hexdump(Shown):
    """Hexdump of some bytes; `str` of it is the output of hexdump -C, and notebooks also show its fields."""

    data: bytes
    """The bytes."""
    offset: int
    """Offset of the first one, in bytes from the start of the source."""
    marks: tuple[Mark, ...] = ()
    """Fields of the structures in the bytes, in the order of their first bytes."""

    @classmethod
    def of(cls, record: Record, name: str | None = None) -> Self:
        """Hexdump of a structure, with its fields marked; `name` replaces the name of its type."""
        start = record.source_offset or 0
        return cls(record.raw or record.build(), start, tuple(_marks(name or type(record).__name__, record, start)))

    def __repr__(self) -> str:
        return f"<Hexdump of {len(self.data)} bytes from byte {self.offset:#x}, {len(self.marks)} fields>"

    def lines(self) -> Iterator[HexLine]:
        """Lines of the hexdump, of 16 bytes from the first byte on."""
        for at in range(0, len(self.data), LINE):
            yield HexLine(self.offset + at, self.data[at : at + LINE])

    def __str__(self) -> str:
        repeated, starred = b"", False
        shown = []
        for line in self.lines():
            if line.data != repeated:
                shown.append(str(line))
            elif not starred:
                shown.append("*")
            starred = line.data == repeated
            repeated = line.data
        return "\n".join((*shown, f"{self.offset + len(self.data):08x}"))


def printable(data: bytes) -> str:
    """Printable ASCII as it is, a dot for anything else."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)


def hexdump(
    source: ReadAt, offset: int, length: int, *, records: Mapping[str, Record] | None = None, base: int = 0
) -> Hexdump:
    """Hexdump of at most `length` bytes of `source` from byte `offset`, with the structures in them marked.

    Args:
        source: Source to show.
        offset: First byte.
        length: Number of bytes.
        records: Structures by their names; the fields that lie in the range are marked.
        base: Offset of the start of `source`, counted as the `source_offset` of the records is.

    Raises:
        CorruptImage: The source is damaged in that range.
    """
    data = read_up_to(source, offset, length)
    marks = [
        mark
        for name, record in (records or {}).items()
        if record.source_offset is not None
        for mark in _marks(name, record, record.source_offset - base)
        if mark.start < offset + len(data) and mark.end > offset
    ]
    return Hexdump(data, offset, tuple(sorted(marks, key=lambda mark: (mark.start, -mark.end))))


def _marks(name: str, record: Record, start: int, prefix: str = "") -> Iterator[Mark]:
    """Marks of the fields of a structure at `start`, with nested structures field by field."""
    for field in record.layout():
        at = start + field.offset
        value = getattr(record, field.name)
        if field.element is None:
            yield Mark(at, at + field.length, name, f"{prefix}{field.name}", _show(value))
            continue
        for number, element in enumerate(value):
            element_at = at + number * field.element.length()
            yield from _marks(name, element, element_at, f"{prefix}{field.name}[{number}].")


def _show(value: object) -> str:
    """Text of a field's value, short enough for a table."""
    if isinstance(value, int):
        return f"{value} ({value:#x})" if value > 9 else str(value)
    if isinstance(value, bytes):
        if not any(value):
            return f"{len(value)} zero bytes"
        text = value.rstrip(b"\0")
        if len(text) > 1 and all(0x20 <= byte < 0x7F for byte in text):
            shown = repr(text.decode("ascii"))
        else:
            shown = value.hex(" ")
        return shown if len(shown) <= _LONGEST_VALUE else f"{shown[: _LONGEST_VALUE - 1]}…"
    return f"{len(value)} records" if isinstance(value, tuple) else repr(value)
