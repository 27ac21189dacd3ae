"""Bytes to be looked at, with the fields of the structures in them marked and named."""

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
    """Its first byte, counted as the hexdump's offsets are."""
    end: int
    """Its end, exclusive."""
    record: str
    """The structure that it is a field of."""
    field: str
    """Its name; of a structure within another one with a dot, such as ``entries[0].first_lba``."""
    value: str
    """What it says."""


@dataclass(frozen=True, slots=True)
class HexLine:
    """A line of a hexdump; `str` of it is as hexdump -C prints it."""

    offset: int
    """Of its first byte."""
    data: bytes
    """Its bytes, 16 but for the last line."""

    @property
    def text(self) -> str:
        """Printable ASCII as it is, a dot for anything else."""
        return printable(self.data)

    def __str__(self) -> str:
        first, second = (half.hex(" ") for half in (self.data[:_HALF], self.data[_HALF:]))
        return f"{self.offset:08x}  {first:{_HALF * 3 - 1}}  {second:{_HALF * 3 - 1}}  |{self.text}|"


@dataclass(frozen=True, slots=True)
class Hexdump(Shown):
    """Some bytes; `str` of it is what hexdump -C prints, a notebook shows it with its fields marked and named."""

    data: bytes
    """The bytes."""
    offset: int
    """Of the first one, in bytes from the start of what they were read from."""
    marks: tuple[Mark, ...] = ()
    """The fields of structures in them, by their first byte."""

    @classmethod
    def of(cls, record: Record, name: str | None = None) -> Self:
        """A structure's bytes with its fields marked; `name` for what it is called, instead of its type's name."""
        start = record.source_offset or 0
        return cls(record.raw or record.build(), start, tuple(_marks(name or type(record).__name__, record, start)))

    def lines(self) -> Iterator[HexLine]:
        """Its lines, of 16 bytes from the first byte on."""
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
    """At most `length` bytes of `source` from byte `offset`, with what is in them marked.

    Args:
        source: What to show.
        offset: First byte.
        length: Number of bytes.
        records: Structures by their names; those that lie in the range are marked.
        base: Where `source` starts, in what the records' `source_offset` counts from.

    Raises:
        CorruptImage: The source is damaged there.
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
    """The fields of a structure that lies at `start`, those of structures within it one by one."""
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
    """A field's value, short enough for a table."""
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
