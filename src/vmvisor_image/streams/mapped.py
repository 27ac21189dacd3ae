"""Common base of the virtual disk formats: tables give the place of each run of the disk's bytes."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Linked, Parent
from vmvisor_image.streams.reading import prefetch, read_up_to, skip_zeros
from vmvisor_image.streams.source import ReadAt, Source, check_range, gathered, past_end, read_exactly_into

_PAGE: Final = 1 << 14
_MOST_PAGES: Final = 256
"""Pages of tables that are kept: 4 MiB."""
_BITMAP_STEP: Final = 512
"""Bytes of a bitmap in which the end of equal bits is looked for."""
_UNIT: Final = 1 << 12
"""Bytes of the disk for each of which one place is kept: the smallest usual cluster."""
_CLUSTER: Final = 1 << 16
"""Bytes at whose start the place of a byte is looked for first: the usual cluster of qcow2 and VMDK."""
_MOST_UNITS: Final = 1 << 17
"""Places that are kept, of 512 MiB: some 20 MB of memory."""
_MOST_UNITS_OF_A_PLACE: Final = 64
_LARGE_UNIT: Final = 1 << 20
"""Bytes of the disk for each of which a long place or hole is kept, too."""
_MOST_LARGE_UNITS: Final = 1 << 14
_MOST_LARGE_UNITS_OF_A_PLACE: Final = 64
_CACHE_BYTES: Final = 16 << 20
"""Bytes of decoded clusters that are kept; the last cluster always is."""


class Run(NamedTuple):  # one is made for each cluster that is read, and a dataclass takes three times as long
    """Place of consecutive bytes of a virtual disk."""

    length: int
    """Number of bytes, at least 1."""
    start: int | None = None
    """First byte in the source; None for compressed data, and for zeros."""
    packed: Packed | None = None
    """Compressed cluster that holds the bytes; None where they are not compressed."""
    is_hole: bool = False
    """Whether the disk does not hold the bytes: they are those of its parent, or zeros without one."""
    source: Source | None = None
    """Source that `start` counts in; None for the file that the disk was made of."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed cluster, and the place in it where a run begins."""

    start: int
    """First byte in the source, which identifies the cluster."""
    decode: Callable[[], bytes]
    skip: int
    """Bytes of the decoded cluster before the run."""


_NOTHING: Final = (0, 0, Run(1))


class Place(NamedTuple):
    """Place of consecutive bytes of a disk, in itself or in a disk that it rests on."""

    begin: int
    """First byte, from the start of the disk."""
    end: int
    """Byte after the last one."""
    disk: MappedDisk
    """Disk of the chain whose tables give the place."""
    source: Source | None = None
    """Source of the bytes; None for compressed data, and for zeros."""
    start: int = 0
    """First byte in the source."""
    packed: Packed | None = None
    """Compressed cluster that holds the bytes."""


class MappedDisk(Linked):
    """A virtual disk as a `ReadAt`; any number of threads may read."""

    size: int = 0
    """Size of the disk, in bytes."""

    def __init__(
        self,
        kind: str,
        source: ReadAt,
        size: int,
        locate: Callable[[int], Run],
        problems: ProblemList | None = None,
        *,
        parent: Parent | None = None,
        identity: str | None = None,
    ) -> None:
        """Read runs that `locate` finds.

        Args:
            kind: The format's name, for messages.
            source: The file that the runs lie in.
            size: Size of the disk, in bytes.
            locate: Function that gives the run beginning at an offset of the disk, which may pass the disk's end. It
                raises CorruptImage where a table is damaged.
            problems: Damage found when the disk was opened; `locate` may add to it.
            parent: Disk that holds what this one does not; None where that is zeros.
            identity: See `Linked.identity`.
        """
        self._kind = kind
        self.file = as_source(source)
        """File that the runs lie in."""
        self.size = size
        self.locate = locate
        """Function that gives the run beginning at an offset of the disk."""
        self._problems = problems
        self.parent = parent
        self.identity = identity
        self._last = Place(0, 0, self)
        """Place of what was read last, where the next read often begins."""
        self._run = _NOTHING
        """First byte of the run that was found last, the byte after it, and the run.

        Reads in a row pass it again and again, as the runs of the disks above it cut it into many places.
        """
        self._places: dict[int, Place] = {}
        """Places by the number of the unit that they hold bytes of, through all disks of the chain."""
        self._long_places: dict[int, Place] = {}
        """Places by the number of the large unit that they hold all of."""
        self._holes: dict[int, tuple[int, int, Run]] = {}
        """As `_run`, for holes, by the number of the large unit that they have bytes of."""
        self._decoded: LruCache[int, bytes] = LruCache(_CACHE_BYTES, len)
        self._lock = ForkSafeLock()
        self.clusters_decoded = 0
        """Compressed clusters decoded so far, including those decoded again."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found when the disk was opened, and in the tables that were read since; that of its parent, too."""
        own = () if self._problems is None else self._problems.found
        parent = self.parent
        return own if parent is None else (*own, *map(parent.tell, parent.source.problems))

    def own_ranges(self) -> Iterator[tuple[int, int]]:
        """See `Linked.own_ranges`."""
        offset = 0
        while offset < self.size:
            run = self.locate(offset)
            length = min(run.length, self.size - offset)
            if not run.is_hole:
                yield offset, length
            offset += length

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: A table or a compressed cluster that the range needs is damaged.
        """
        check_range(offset, length)
        end = offset + length
        if end > self.size:
            raise past_end(f"{self._kind} disk", offset, length, self.size)
        if not length:
            return b""
        place = self._last
        if not place.begin <= offset < place.end:
            place = self._last = self._place(offset)
        if end > place.end:
            return gathered(length, partial(self._fill, offset))
        skip = offset - place.begin
        if place.packed is not None:
            return place.disk._decoded_part(place.packed, skip, length)
        return bytes(length) if place.source is None else place.source.read_at(place.start + skip, length)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`.

        Raises:
            CorruptImage: A table or a compressed cluster that the range needs is damaged.
        """
        check_range(offset, 0)
        wanted = buffer[: max(0, self.size - offset)]
        self._fill(offset, wanted)
        return len(wanted)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `Source.copy_range`; at most one run."""
        if not 0 <= offset < self.size:
            return 0
        try:
            place = self._place(offset)
        except CorruptImage:
            return 0  # reading it reports what is wrong
        if place.source is None:
            return 0
        count = min(place.end - offset, length)
        return place.source.copy_range(place.start + offset - place.begin, count, descriptor, at)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `offset`, which are all within the size."""
        at, length = 0, len(buffer)
        while at < length:
            place = self._last
            if not place.begin <= offset < place.end:
                place = self._last = self._place(offset)
            count = min(place.end - offset, length - at)
            part = buffer[at : at + count]
            skip = offset - place.begin
            if place.packed is not None:
                part[:] = place.disk._decoded_part(place.packed, skip, count)
            elif place.source is None:
                part[:] = bytes(count)
            else:
                read_exactly_into(place.source, place.start + skip, part)
            offset += count
            at += count

    def _place(self, offset: int) -> Place:
        """Place of the byte at `offset`, which is kept, so that the depth of the chain counts once for each place."""
        if (long := self._long_places.get(offset // _LARGE_UNIT)) is not None:
            return long
        kept = self._places.get(offset // _UNIT)
        if kept is not None and kept.begin <= offset < kept.end:
            return kept
        for size in (_LARGE_UNIT, _CLUSTER, _UNIT):  # reads before this one's are served, too
            begin = offset - offset % size
            if begin // _UNIT not in self._places:
                with contextlib.suppress(CorruptImage):  # of bytes that nobody asked for
                    if (place := self._keep(self.locate_through(begin))).end > offset:
                        return place
        return self._keep(self.locate_through(offset))

    def _keep(self, place: Place) -> Place:
        if len(self._places) >= _MOST_UNITS:
            self._places.clear()
        first = place.begin // _UNIT
        for unit in range(first, min(-(-place.end // _UNIT), first + _MOST_UNITS_OF_A_PLACE)):
            self._places[unit] = place
        if place.end - place.begin >= _LARGE_UNIT:
            if len(self._long_places) >= _MOST_LARGE_UNITS:
                self._long_places.clear()
            first = -(-place.begin // _LARGE_UNIT)
            for unit in range(first, min(place.end // _LARGE_UNIT, first + _MOST_LARGE_UNITS_OF_A_PLACE)):
                self._long_places[unit] = place
        return place

    def _keep_run(self, begin: int, end: int, run: Run) -> None:
        self._run = begin, end, run
        if run.is_hole and end - begin >= _LARGE_UNIT:
            if len(self._holes) >= _MOST_LARGE_UNITS:
                self._holes.clear()
            first = begin // _LARGE_UNIT
            for unit in range(first, min(-(-end // _LARGE_UNIT), first + _MOST_LARGE_UNITS_OF_A_PLACE)):
                self._holes[unit] = self._run

    def locate_through(self, offset: int) -> Place:
        """Place of the bytes from `offset`, in the disk or what it rests on; a loop, as a call for each is slow.

        Raises:
            CorruptImage: A table is damaged.
        """
        disk, end = self, self.size
        while True:
            begin, to, run = disk._run
            if not begin <= offset < to:
                begin, to, run = disk._holes.get(offset // _LARGE_UNIT, _NOTHING)
            if not begin <= offset < to:
                run = disk.locate(offset)
                begin, to = offset, offset + run.length
                disk._keep_run(begin, to, run)
            end = min(end, to)
            if run.start is not None:
                return Place(offset, end, disk, run.source or disk.file, run.start + offset - begin)
            if (packed := run.packed) is not None:
                if offset > begin:
                    packed = Packed(packed.start, packed.decode, packed.skip + offset - begin)
                return Place(offset, end, disk, packed=packed)
            if not run.is_hole:
                return Place(offset, end, disk)
            if disk.parent is None:
                return Place(offset, end, disk)
            source = disk.parent.source
            if offset >= source.size:
                return Place(offset, end, disk)
            end = min(end, source.size)
            if not isinstance(source, MappedDisk):
                return Place(offset, end, disk, source, offset)
            disk = source

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`; the hint is for the parent, which may be compressed.

        The place of runs in the disk's own file is known only by reading tables, which a hint should not do.
        """
        if self.parent is not None:
            prefetch(self.parent.source, offset, length)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`: ranges without data in the tables, and the zeros of the source itself."""
        end = min(end, self.size)
        while offset < end:
            try:
                run = self.locate(offset)
            except CorruptImage:
                return offset  # reading it reports what is wrong
            if run.packed is not None:
                return offset
            count = min(run.length, end - offset)
            skipped = count
            if run.is_hole and self.parent is not None:
                skipped = self._skip_hole(offset, count)
            elif run.start is not None:
                skipped = skip_zeros(run.source or self.file, run.start, run.start + count) - run.start
            offset += skipped
            if skipped < count:
                return offset
        return end

    def _skip_hole(self, offset: int, length: int) -> int:
        """Number of bytes of a hole that are known to be zeros."""
        assert self.parent is not None
        source = self.parent.source
        end = min(offset + length, source.size)
        to = skip_zeros(source, offset, end) if offset < end else end
        return length if to >= end else to - offset

    def _decoded_part(self, packed: Packed, skip: int, length: int) -> bytes:
        """Bytes of a compressed cluster, `skip` bytes behind the start of the run that it is of."""
        skip += packed.skip
        return self._decode(packed)[skip : skip + length]

    def _decode(self, packed: Packed) -> bytes:
        known = self._decoded.get(packed.start)
        if known is not None:
            return known
        data = packed.decode()
        with self._lock:
            self.clusters_decoded += 1
        self._decoded.put(packed.start, data)
        return data


class Tables:
    """Reader of numbers in tables of any size; it keeps the pages that were used last."""

    def __init__(self, kind: str, source: ReadAt, byte_order: Literal["little", "big"]) -> None:
        """Read numbers of `source`; `kind` is the format's name, for messages."""
        self._kind = kind
        self._source = source
        self._byte_order: Literal["little", "big"] = byte_order
        self._pages: LruCache[int, bytes] = LruCache(_MOST_PAGES)
        self._last: tuple[int, bytes] = (-1, b"")
        """Page that was used last, which is found without the lock of the cache."""

    def number(self, offset: int, width: int, table: str) -> int:
        """Number of `width` bytes at `offset`, which is a multiple of `width`.

        Raises:
            CorruptImage: The source ends before the end of the number.
        """
        page, within = divmod(offset, _PAGE)
        data = self._page(page)[within : within + width]
        if len(data) < width:
            raise CorruptImage(
                "it lies past the end of the source", structure=f"{self._kind} {table}", offset=offset, field="entry"
            )
        return int.from_bytes(data, self._byte_order)

    def rising(self, offset: int, step: int, most: int, width: Literal[4, 8] = 8) -> int:
        """Number of numbers of `width` bytes from `offset`, at most `most`, that rise by `step` from one to the next.

        The first one is there. Those behind the end of a page of the tables are not counted.
        """
        page, within = divmod(offset, _PAGE)
        data = self._page(page)[within : within + width * most]
        order = "<" if self._byte_order == "little" else ">"
        numbers = struct.unpack_from(f"{order}{len(data) // width}{'Q' if width == 8 else 'I'}", data)
        first = numbers[0]
        if numbers[1:2] != (first + step,):
            return 1
        if not step:
            return next((count for count, number in enumerate(numbers) if number != first), len(numbers))
        if numbers[-1] == first + step * (len(numbers) - 1) and numbers == tuple(range(first, numbers[-1] + 1, step)):
            return len(numbers)
        return next(count for count, number in enumerate(numbers) if number != first + step * count)

    def data(self, offset: int, length: int) -> bytes:
        """Bytes of tables from `offset`; fewer than `length` only where the source ends."""
        page, within = divmod(offset, _PAGE)
        found = self._page(page)[within : within + length]
        while len(found) < length and (more := self._page(page := page + 1)[: length - len(found)]):
            found += more
        return found

    def same_bits(self, offset: int, bit: int, most: int, table: str, *, high_first: bool) -> tuple[bool, int]:
        """A bit of a bitmap, and the number of bits from it that are like it, at most `most`.

        Bits behind the end of a page of the tables, or behind some hundred bytes, are not counted.

        Args:
            offset: Byte of the source that has the bit.
            bit: Number of the bit in that byte, from 0.
            most: Largest number of bits that are counted, at least 1.
            table: Name of the bitmap, for messages.
            high_first: Whether bit 0 of a byte is its highest bit.

        Raises:
            CorruptImage: The source ends before that byte.
        """
        self.number(offset, 1, table)
        page, within = divmod(offset, _PAGE)
        data = self._page(page)[within : within + min(-(-(bit + most) // 8), _BITMAP_STEP)]
        there = 8 * len(data) - bit
        if high_first:
            value = int.from_bytes(data, "big") & ((1 << there) - 1)
            is_set = bool(value >> there - 1)
            other = value ^ ((1 << there) - 1) if is_set else value
            count = there - other.bit_length()
        else:
            value = int.from_bytes(data, "little") >> bit
            is_set = bool(value & 1)
            other = value ^ ((1 << there) - 1) if is_set else value
            count = (other & -other).bit_length() - 1 if other else there
        return is_set, min(count, most)

    def zeros(self, offset: int, most: int = _PAGE) -> int:
        """Number of zero bytes from `offset` to the first that is not, at most `most` of them, in a page of tables."""
        page, within = divmod(offset, _PAGE)
        rest = self._page(page)[within : within + most]
        return len(rest) - len(rest.lstrip(b"\0"))

    def _page(self, number: int) -> bytes:
        last, page = self._last
        if last == number:
            return page
        kept = self._pages.get(number)
        if kept is not None:
            self._last = number, kept
            return kept
        page = read_up_to(self._source, number * _PAGE, _PAGE)
        self._pages.put(number, page)
        self._last = number, page
        return page
