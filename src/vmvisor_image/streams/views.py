"""Views of other sources: a part of one, pieces of several, one with ranges replaced, or with further facts."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.open_options import Progress
from vmvisor_image.errors import (
    CorruptImage,
    Problem,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import prefetch, skip_zeros
from vmvisor_image.streams.source import ReadAt, Source, check_range, gathered, past_end, read_exactly_into

_STEP: Final = 1 << 18
"""Bytes that are read between two reports of progress."""


class View(Source):
    """Another source, or a part of it: maps offsets, and passes on the members of `Source`.

    A part does not pass on the version, times, container, problems and `kept_beside` of the whole: two parts of one
    source would share them and yet differ. `close` leaves the other source open.
    """

    def __init__(self, source: ReadAt, start: int = 0, size: int | None = None, structure: str = "view") -> None:
        """Show `source`.

        Args:
            source: The other source; it is not read yet.
            start: First byte that is shown.
            size: Number of bytes that are shown; whether `source` has them is found when they are read. None for all
                of `source`.
            structure: Name of the view, for messages.

        Raises:
            InvalidArgument: The start or the size is negative.
        """
        check_range(start, size or 0)
        self._source = as_source(source)
        self.start = start
        """First byte that is shown, from the start of the other source."""
        self._size = size
        self._structure = structure

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._source.size if self._size is None else self._size

    @property
    def size_is_known(self) -> bool:
        """See `Source.size_is_known`; the size of a part is given."""
        return self._size is not None or self._source.size_is_known

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        if self._size is None:
            return self._source.read_at(offset, length)
        check_range(offset, length)
        if offset + length > self._size:
            raise past_end(self._structure, offset, length, self._size)
        return self._source.read_at(self.start + offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`; a part that passes the end of the other source raises where it is read past it."""
        size = self._size
        if size is None:
            return self._source.read_up_to(offset, length)
        if 0 <= offset < size:
            return self.read_at(offset, min(length, size - offset))
        check_range(offset, length)
        return b""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`; a part that passes the end of the other source raises where it is read past it."""
        size = self._size
        if size is None:
            return self._source.read_into(offset, buffer)
        check_range(offset, 0)
        wanted = buffer[: max(0, size - offset)]
        read_exactly_into(self._source, self.start + offset, wanted)
        return len(wanted)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `Source.copy_range`."""
        if self._size is not None:
            length = max(0, min(length, self._size - offset))
        return self._source.copy_range(self.start + offset, length, descriptor, at)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        start = self.start
        if self._size is not None:
            end = min(end, self._size)
        return skip_zeros(self._source, start + offset, start + end) - start

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`; a range that passes the end of a part is cut there."""
        if self._size is not None:
            length = min(length, self._size - offset)
        prefetch(self._source, self.start + offset, length)

    @property
    def meter(self) -> Meter | None:
        """See `Source.meter`."""
        return self._source.meter

    @property
    def problems(self) -> tuple[Problem, ...]:
        """See `Source.problems`."""
        return self._source.problems if self._size is None else ()

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """See `Source.check_blocks`."""
        return self._source.check_blocks() if self._size is None else ()

    @property
    def kept_beside(self) -> str | None:
        """See `Source.kept_beside`."""
        return self._source.kept_beside if self._size is None else None

    @property
    def local_paths(self) -> tuple[str, ...]:
        """See `Source.local_paths`; those of the whole also for a part."""
        return self._source.local_paths

    @property
    def container(self) -> Source | None:
        """See `Source.container`."""
        return self._source.container if self._size is None else None

    @property
    def version(self) -> str | None:
        """See `Source.version`."""
        return self._source.version if self._size is None else None

    @property
    def modified_ns(self) -> int | None:
        """See `Source.modified_ns`."""
        return self._source.modified_ns if self._size is None else None

    @property
    def changed_ns(self) -> int | None:
        """See `Source.changed_ns`."""
        return self._source.changed_ns if self._size is None else None


class Slice(View):
    """A range of another `ReadAt`, itself a `ReadAt`; offsets count from the slice's start."""

    def __init__(self, source: ReadAt, start: int, size: int, structure: str = "slice") -> None:
        """Take `size` bytes of `source` from byte `start`; neither is checked against `source` until read."""
        super().__init__(source, start, size, structure)


class KeptBeside(View):
    """A source about which data may be kept, such as a member of a container: beside the container's path."""

    def __init__(
        self, source: ReadAt, path: str | None, *, container: Source | None = None, version: str | None = None
    ) -> None:
        """Take the source and a path, which need not exist.

        Args:
            source: The source.
            path: Path to which a suffix is added for the data that is kept; None where there is no such place.
            container: Container that the source is a member of.
            version: Text that distinguishes it from all other sources, or members of the container; None for no text.
        """
        super().__init__(source)
        self._path, self._container, self._version = path, container, version

    @property
    def kept_beside(self) -> str | None:
        """See `Source.kept_beside`."""
        return self._path

    @property
    def container(self) -> Source | None:
        """See `Source.container`."""
        return self._container

    @property
    def version(self) -> str | None:
        """Text that distinguishes it from all other sources, or members of its container; None for no text."""
        return self._version

    # Its times are those of a copy, or of the container, which gives them itself.
    @property
    def modified_ns(self) -> int | None:
        """None: the source has no time of its own."""
        return None

    @property
    def changed_ns(self) -> int | None:
        """None: the source has no time of its own."""
        return None


class Watched(View):
    """A source that reports how much of it was read, as `Image.open` does of a disk that is not compressed."""

    def __init__(self, source: ReadAt, progress: Progress) -> None:
        """Show `source`.

        Args:
            source: The source.
            progress: Called with the bytes that were read so far, or are known to be zeros and were passed over, but
                at most the size; and with the size, or None as long as that is not known.
        """
        super().__init__(source)
        self._progress = progress
        self._lock = ForkSafeLock()
        self._done = 0
        self._reported = -1

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        data = super().read_at(offset, length)
        self._count(len(data))
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`."""
        data = super().read_up_to(offset, length)
        self._count(len(data))
        return data

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`."""
        length = self._source.read_into(offset, buffer)
        self._count(length)
        return length

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `Source.copy_range`."""
        count = self._source.copy_range(offset, length, descriptor, at)
        if count:
            self._count(count)
        return count

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        found = super().skip_zeros(offset, end)
        if found > offset:
            self._count(found - offset)
        return found

    def _count(self, length: int) -> None:
        total = self.size if self.size_is_known else None
        with self._lock:
            self._done += length
            done = self._done if total is None else min(self._done, total)
            if self._reported >= 0 and done - self._reported < _STEP and (done != total or done == self._reported):
                return
            self._reported = done
        self._progress(done, total)


class Overlaid(View):
    """A source with some ranges replaced by those of other sources, such as a lost header by its copy; never written.

    What is replaced is not read.
    """

    def __init__(self, source: ReadAt, patches: Iterable[tuple[int, int, ReadAt, int]]) -> None:
        """Show `source` with patches over it.

        Args:
            source: The source.
            patches: First byte and number of bytes of each range, which do not overlap and lie within the source; and
                the source of the bytes that are shown there, with the first byte in it.
        """
        super().__init__(source)
        self._patches = sorted(
            ((at, length, as_source(other), first) for at, length, other, first in patches), key=lambda patch: patch[:2]
        )

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        end, found = offset + length, []
        for at, count, other, first in self._patches:
            if at >= end or at + count <= offset:
                continue
            if at > offset:
                found.append(self._source.read_at(offset, at - offset))
                offset = at
            stop = min(at + count, end)
            found.append(other.read_at(first + offset - at, stop - offset))
            offset = stop
        if offset < end or not found:
            found.append(self._source.read_at(offset, end - offset))
        return b"".join(found)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`."""
        if not self._touches(offset, length):
            return self._source.read_up_to(offset, length)
        check_range(offset, length)
        last = max(at + count for at, count, _, _ in self._patches)
        within = min(length, max(0, last - offset))
        return self.read_at(offset, within) + self._source.read_up_to(offset + within, length - within)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`."""
        if self._touches(offset, len(buffer)):
            return Source.read_into(self, offset, buffer)
        return self._source.read_into(offset, buffer)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `Source.copy_range`; nothing where something is replaced."""
        return 0 if self._touches(offset, length) else super().copy_range(offset, length, descriptor, at)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`; it ends where something is replaced."""
        for at, count, _, _ in self._patches:
            if at + count > offset:
                end = min(end, at)
        return offset if end <= offset else super().skip_zeros(offset, end)

    def _touches(self, offset: int, length: int) -> bool:
        return any(at < offset + length and offset < at + count for at, count, _, _ in self._patches)


class Pieced(Source):
    """A source whose bytes are pieces of other sources, or zeros that are stored nowhere."""

    __slots__ = ()

    @abstractmethod
    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """Source (None for zeros), first byte in it and number of bytes of each piece of a range, in order.

        The range lies within the size.

        Raises:
            CorruptImage: A piece can't be found.
        """
        raise NotImplementedError

    @property
    def _structure(self) -> str:
        """Name of the source, for messages."""
        return "source"

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `offset`.

        Raises:
            TruncatedImage: The range passes the end, or the source of a piece ends before the piece does.
            CorruptImage: A piece can't be found, or is damaged.
            InvalidArgument: The offset or the length is negative.
        """
        if offset < 0 or length < 0:
            check_range(offset, length)
        size = self.size
        if offset + length > size:
            raise past_end(self._structure, offset, length, size)
        for source, start, count in self.pieces(offset, length):
            if count < length:
                return gathered(length, partial(self._fill, offset))
            return bytes(count) if source is None else source.read_at(start, count)  # as in most reads
        return b""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `Source.read_into`."""
        check_range(offset, 0)
        wanted = buffer[: max(0, self.size - offset)]
        self._fill(offset, wanted)
        return len(wanted)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `Source.copy_range`; at most one piece."""
        with contextlib.suppress(CorruptImage):  # reading it reports what is wrong
            for source, start, count in self.pieces(offset, max(0, min(length, self.size - offset))):
                return 0 if source is None else source.copy_range(start, count, descriptor, at)
        return 0

    def _fill(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `offset`, which are all within the size."""
        at = 0
        for source, start, count in self.pieces(offset, len(buffer)):
            part = buffer[at : at + count]
            if source is None:
                part[:] = bytes(count)
            else:
                read_exactly_into(source, start, part)
            at += count

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        try:
            for source, start, count in self.pieces(offset, max(0, min(end, self.size) - offset)):
                skipped = count if source is None else skip_zeros(source, start, start + count) - start
                offset += skipped
                if skipped < count:
                    break
        except CorruptImage:
            pass  # reading it reports what is wrong
        return offset

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        with contextlib.suppress(CorruptImage):  # reading it reports what is wrong
            for source, start, count in self.pieces(offset, max(0, min(length, self.size - offset))):
                if source is not None:
                    prefetch(source, start, count)
