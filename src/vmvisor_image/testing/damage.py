"""Hypothesis strategies that damage valid data: bytes, fields, truncation and splices.

    @given(damaged(esx7_disk(boot={}, bank={})))
    def test_is_read_or_refused(source): ...

Damage is laid over the source as it is read, so an image of a terabyte is damaged as cheaply as one of a kilobyte.
Where the source lists its data (`SparseImage.pieces`), only bytes in it are damaged. Needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.record import ByteOrder, Integer, Record
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.views import View
from vmvisor_image.testing.forge import SparseImage

_MOST_CHANGES = 4
_LONGEST = 64
"""Most bytes in one change."""


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes that replace others."""

    offset: int
    """First byte, from the start of the source."""
    data: bytes


class DamagedSource(View):
    """A source with some bytes changed, or cut short; a `ReadAt`."""

    def __init__(self, source: ReadAt, changes: Sequence[Change] = (), size: int | None = None) -> None:
        """A source with `changes`, of which the later one counts where two overlap.

        Args:
            source: Source that is damaged.
            changes: Changes to its bytes; parts after its end are ignored.
            size: Bytes of it that remain; None for all.

        Raises:
            InvalidArgument: `size` is more than the source has.
        """
        if size is not None and size > source.size:
            raise InvalidArgument(f"{size} bytes can't be left of {source.size}")
        super().__init__(source, 0, source.size if size is None else size, "damaged source")
        self.changes = tuple(changes)
        """Changes to its bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """See `vmvisor_image.streams.source.ReadAt.read_at`."""
        data = super().read_at(offset, length)
        end = offset + length
        hits = [each for each in self.changes if each.offset < end and offset < each.offset + len(each.data)]
        if not hits:
            return data
        found = bytearray(data)
        for change in hits:
            first, last = max(offset, change.offset), min(end, change.offset + len(change.data))
            found[first - offset : last - offset] = change.data[first - change.offset : last - change.offset]
        return bytes(found)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `vmvisor_image.streams.source.Source.read_into`."""
        return Source.read_into(self, offset, buffer)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `vmvisor_image.streams.source.Source.copy_range`: nothing, as the file has other bytes."""
        return Source.copy_range(self, offset, length, descriptor, at)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.source.Source.skip_zeros`."""
        ahead = [max(offset, each.offset) for each in self.changes if each.offset + len(each.data) > offset]
        return min([super().skip_zeros(offset, end), end, *ahead])

    def __repr__(self) -> str:
        return f"DamagedSource({self._source!r}, {self.changes!r}, {self.size})"


def _source_of(valid: bytes | ReadAt) -> ReadAt:
    return BytesSource(valid) if isinstance(valid, bytes | bytearray) else valid


def _places(source: ReadAt) -> st.SearchStrategy[int]:
    """Offsets of bytes to damage: for a sparse image, those that are not in a hole."""
    if isinstance(source, SparseImage) and source.pieces:
        starts = [range(offset, offset + len(data)) for offset, data in source.pieces]
        return st.sampled_from(starts).flatmap(lambda piece: st.integers(piece.start, piece.stop - 1))
    return st.integers(0, max(0, source.size - 1))


@st.composite
def byte_changes(draw: st.DrawFn, valid: bytes | ReadAt) -> Change:
    """A bit flipped, or up to eight bytes overwritten."""
    source = _source_of(valid)
    at = draw(_places(source))
    if source.size and draw(st.booleans()):
        return Change(at, bytes((source.read_at(at, 1)[0] ^ 1 << draw(st.integers(0, 7)),)))
    return Change(at, draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8)])))


@st.composite
def field_changes(draw: st.DrawFn, record: Record | type[Record], at: int | None = None) -> Change:
    """A field of a record set to an extreme: 0, 1, its maximum and its neighbour, half of that, or its own place.

    Args:
        draw: Given by hypothesis.
        record: A record, or the type of one.
        at: Bytes from the start of the source to it; None for the place where the record was read.

    Raises:
        InvalidArgument: Neither `at` nor the record gives its place.
    """
    kind = record if isinstance(record, type) else type(record)
    base = record.source_offset if at is None and isinstance(record, Record) else at
    if base is None:
        raise InvalidArgument("where the record lies must be known")
    place, size, order = draw(st.sampled_from(list(_leaves(kind, base))))
    if order is None:
        return Change(place, draw(st.sampled_from([bytes(size), b"\xff" * size, b"A" * size, (b"../" * size)[:size]])))
    most = (1 << 8 * size) - 1
    value = draw(st.sampled_from([0, 1, most, most - 1, most // 2, most // 2 + 1, place & most]))
    return Change(place, value.to_bytes(size, order))


def _leaves(record: type[Record], base: int) -> Iterator[tuple[int, int, ByteOrder | None]]:
    """Place, bytes and byte order (None if it is not a number) of each field, including those of inner records."""
    for field in record.layout():
        at = base + field.offset
        if field.element is not None:
            for start in range(at, at + field.length, field.element.length()):
                yield from _leaves(field.element, start)
        else:
            yield at, field.length, record.byte_order if isinstance(field.layout, Integer) else None


@st.composite
def splices(draw: st.DrawFn, valid: bytes | ReadAt) -> Change:
    """A range copied over another one."""
    source = _source_of(valid)
    origin, at = draw(_places(source)), draw(_places(source))
    length = draw(st.sampled_from([1, 4, 16, 32, 128, 512, 2048]))
    return Change(at, source.read_at(origin, max(0, min(length, source.size - origin))))


@st.composite
def damaged(
    draw: st.DrawFn, valid: bytes | ReadAt, *, records: Sequence[Record] = (), truncate: bool = True
) -> DamagedSource:
    """A valid source with up to four changes, sometimes cut short.

    Args:
        draw: Given by hypothesis.
        valid: Bytes or source to be damaged.
        records: Records read from it, whose fields are set to extremes; each knows its place.
        truncate: Whether to cut it also.
    """
    source = _source_of(valid)
    kinds = [byte_changes(source), splices(source), *map(field_changes, records)]
    changes = draw(st.lists(st.one_of(kinds), max_size=_MOST_CHANGES))
    size = None
    if truncate and draw(st.integers(0, 3)) == 0:
        size = draw(st.integers(0, source.size) | _places(source))
    return DamagedSource(source, changes, size)
