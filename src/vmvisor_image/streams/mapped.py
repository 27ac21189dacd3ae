"""Common base of the virtual disk formats: tables give the place of each run of the disk's bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from vmvisor_image.base.forking import ForkSafeLock, cached_property
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Linked, Parent
from vmvisor_image.streams.reading import prefetch, skip_zeros
from vmvisor_image.streams.source import ReadAt, Source, check_range, gathered, past_end, read_exactly_into
from vmvisor_image.streams.tables import EntryTable, join_entries

_UNIT: Final = 1 << 16
"""Bytes of the disk for each of which one place is kept: the usual cluster of qcow2 and VMDK."""
_MOST_PLACES: Final = 1 << 14
"""Places that are kept, of 1 GiB: some 4 MB of memory."""
_AHEAD: Final = 1 << 22
"""Bytes in which the end of a run is looked for where reads are in a row: each of them would look it up."""
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
    entries: EntryTable | None = None
    """Entries that show holes without `locate`; None, by default, for a format that has none of that kind."""

    def __init__(
        self,
        kind: str,
        source: ReadAt,
        size: int,
        locate: Callable[[int, int], Run],
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
                gets that offset, and the byte up to which the run is of use: where it costs something to know more, it
                may end there, or at the next cluster. It raises CorruptImage where a table is damaged.
            problems: Damage found when the disk was opened; `locate` may add to it.
            parent: Disk that holds what this one does not; None where that is zeros.
            identity: See `Linked.identity`.
        """
        self._kind = kind
        self.file = as_source(source)
        """File that the runs lie in."""
        self.size = size
        self.locate = locate
        """Function that gives the run beginning at an offset of the disk; see `__init__`."""
        self._problems = problems
        self.parent = parent
        self.identity = identity
        self._last = Place(0, 0, self)
        """Place of what was read last, where the next read often begins."""
        self._row: list[Place] = []
        """Places that were found last by a read that may need several, in order and without gaps."""
        self._run = _NOTHING
        """First byte of the run that was found last, the byte after it, and the run.

        Reads in a row pass it again and again, as the runs of the disks above it cut it into many places.
        """
        self._places: dict[int, Place] = {}
        """Place that was found last in each unit, through all disks of the chain."""
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
            run = self.locate(offset, self.size)
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
            place = self._last = self._place(offset, end)
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
            place = self._place(offset, offset + length)
        except CorruptImage:
            return 0  # reading it reports what is wrong
        if place.source is None:
            return 0
        count = min(place.end - offset, length)
        return place.source.copy_range(place.start + offset - place.begin, count, descriptor, at)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `offset`, which are all within the size."""
        first, end = offset, offset + len(buffer)
        while offset < end:
            row = self._row
            if not (row and row[0].begin <= offset < row[-1].end):
                row = self._row = self._find_row(offset, end)
            for number in range(bisect_left(row, (offset + 1,)) - 1, len(row)):
                begin, stop, disk, source, start, packed = row[number]
                stop = min(stop, end)
                part = buffer[offset - first : stop - first]
                skip = offset - begin
                if source is not None:
                    read_exactly_into(source, start + skip, part)
                elif packed is not None:
                    part[:] = disk._decoded_part(packed, skip, stop - offset)
                else:
                    part[:] = bytes(stop - offset)
                offset = stop
                if stop == end:
                    return

    def _find_row(self, offset: int, end: int) -> list[Place]:
        """Places of the bytes from `offset`, of which those up to `end` are wanted; of more where reads are in a row.

        Several are found before any is read: between large copies, nothing of what the look-ups need would be left in
        the caches of the processor.

        Raises:
            CorruptImage: The table of the first place is damaged; at another one, the row ends.
        """
        is_next = bool(self._row) and self._row[-1].end == offset
        to = min(offset + _AHEAD, self.size if is_next else end)
        row = [self._place(offset, to)]
        try:
            while row[-1].end < to:
                row.append(self.locate_through(row[-1].end, to))
        except CorruptImage:
            pass  # reading these bytes reports what is wrong
        return row

    def _place(self, offset: int, end: int) -> Place:
        """Place of the byte at `offset`, of use up to `end`; kept, so that it is looked up once for each unit."""
        unit = offset // _UNIT
        kept = self._places.get(unit)
        if kept is not None and kept.begin <= offset < kept.end:
            return kept
        row = self._row
        if row and row[0].begin <= offset < row[-1].end:
            return row[bisect_left(row, (offset + 1,)) - 1]
        begin = unit * _UNIT  # reads before this one's are served, too
        if offset == self._last.end:
            begin, end = offset, max(end, offset + _AHEAD)
        try:
            place = self.locate_through(begin, end)
        except CorruptImage:  # of bytes that nobody asked for, or it is raised again
            place = self.locate_through(offset, end)
        if place.end <= offset:
            place = self.locate_through(offset, end)
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[unit] = place
        return place

    def locate_through(self, offset: int, end: int) -> Place:
        """Place of the bytes from `offset`, in the disk or what it rests on; a loop, as a call for each is slow.

        Args:
            offset: First byte, from the start of the disk.
            end: Byte up to which the place is of use, see `__init__`; it may end there, or at any run of a disk before.

        Raises:
            CorruptImage: A table is damaged.
        """
        disk, most = self, self.size
        while True:
            has_hole = False
            if (above := disk._above) is not None:
                level, to = above.first(offset, end)
                most = min(most, to)
                has_hole = level == above.columns
                disk = disk._alike[level - has_hole]
            if not has_hole:
                begin, to, run = disk._run
                if not begin <= offset < to:
                    run = disk.locate(offset, end)
                    begin, to = offset, offset + run.length
                    disk._run = begin, to, run
                most = min(most, to)
                if run.start is not None:
                    return Place(offset, most, disk, run.source or disk.file, run.start + offset - begin)
                if (packed := run.packed) is not None:
                    if offset > begin:
                        packed = Packed(packed.start, packed.decode, packed.skip + offset - begin)
                    return Place(offset, most, disk, None, 0, packed)
                has_hole = run.is_hole
            source = None if disk.parent is None else disk.parent.source
            if source is None or not has_hole or offset >= source.size:
                return Place(offset, most, disk)
            most = min(most, source.size)
            if not isinstance(source, MappedDisk):
                return Place(offset, most, disk, source, offset)
            disk = source

    @cached_property
    def _alike(self) -> tuple[MappedDisk, ...]:
        """The disk and those that it rests on as long as their entries are of the same shape; empty without entries.

        Only disks that rest on another one are among them, as the others have no use for their entries.
        """
        if self.entries is None or self.parent is None:
            return ()
        below = self.parent.source
        if not isinstance(below, MappedDisk) or below.entries is None or below.size < self.size:
            return (self,)
        return (self, *below._alike) if below.entries.shape == self.entries.shape else (self,)

    @cached_property
    def _above(self) -> EntryTable | None:
        """Entries of these disks together, by which a chain of them is looked through at once; None without entries."""
        return join_entries([disk.entries for disk in self._alike if disk.entries is not None])

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
                run = self.locate(offset, min(end, offset + _AHEAD))
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
