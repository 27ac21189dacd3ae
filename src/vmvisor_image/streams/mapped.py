"""Common base of the virtual disk formats: tables give the place of each run of the disk's bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Linked, Parent
from vmvisor_image.streams.reading import prefetch, read_up_to, skip_zeros
from vmvisor_image.streams.source import ReadAt, check_range, past_end

_PAGE: Final = 1 << 14
_MOST_PAGES: Final = 256
"""Pages of tables that are kept: 4 MiB."""
_CACHE_BYTES: Final = 16 << 20
"""Bytes of decoded clusters that are kept; the last cluster always is."""


@dataclass(frozen=True, slots=True)
class Run:
    """Place of consecutive bytes of a virtual disk."""

    length: int
    """Number of bytes, at least 1."""
    start: int | None = None
    """First byte in the source; None for compressed data, and for zeros."""
    packed: Packed | None = None
    """Compressed cluster that holds the bytes; None where they are not compressed."""
    is_hole: bool = False
    """Whether the disk does not hold the bytes: they are those of its parent, or zeros without one."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed cluster, and the place in it where a run begins."""

    start: int
    """First byte in the source, which identifies the cluster."""
    decode: Callable[[], bytes]
    skip: int
    """Bytes of the decoded cluster before the run."""


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
        self._source = as_source(source)
        self.size = size
        self.locate = locate
        """Function that gives the run beginning at an offset of the disk."""
        self._problems = problems
        self.parent = parent
        self.identity = identity
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
        if offset + length > self.size:
            raise past_end(f"{self._kind} disk", offset, length, self.size)
        found = []
        while length:
            run = self.locate(offset)
            count = min(run.length, length)
            if run.packed is not None:
                skip = run.packed.skip
                found.append(self._decode(run.packed)[skip : skip + count])
            elif run.start is None:
                found.append(self._hole(offset, count) if run.is_hole and self.parent is not None else bytes(count))
            else:
                found.append(self._source.read_at(run.start, count))
            offset += count
            length -= count
        return found[0] if len(found) == 1 else b"".join(found)

    def _hole(self, offset: int, length: int) -> bytes:
        """Bytes of the parent, and zeros past its end."""
        assert self.parent is not None
        source = self.parent.source
        there = min(length, max(0, source.size - offset))
        data = source.read_at(offset, there) if there else b""
        return data if there == length else data + bytes(length - there)

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
                skipped = skip_zeros(self._source, run.start, run.start + count) - run.start
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

    def zeros(self, offset: int) -> int:
        """Number of zero bytes from `offset` to the first that is not, or to the end of a page of the tables."""
        page, within = divmod(offset, _PAGE)
        rest = self._page(page)[within:]
        return len(rest) - len(rest.lstrip(b"\0"))

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            page = read_up_to(self._source, number * _PAGE, _PAGE)
            self._pages.put(number, page)
        return page
