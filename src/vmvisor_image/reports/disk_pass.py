"""One pass over a disk that gives every part of it to all who want it, so that no byte is read twice.

What wants a part says so by a `Feed` before the pass comes there; one byte may have several.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.errors import CorruptImage
from vmvisor_image.streams.reading import knows_size, prefetch, read_up_to, skip_zeros
from vmvisor_image.streams.source import ReadAt

_CHUNK: Final = 1 << 20
_UNIT: Final = 4096
"""Bytes of a damaged place that are given up at once."""
_PARTS: Final = 256
"""Of long damage this part of what was given up before is given up at once: a disk may claim any size."""
_AHEAD: Final = 128 << 20
"""Bytes that are announced to a source that decodes."""
_ZEROS: Final = bytes(_CHUNK)


class Sink(Protocol):
    """What takes bytes in order."""

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        ...

    def miss(self, damage: int, count: int) -> None:
        """Be told that the next `count` bytes, or all where it is 0, are left out, for the `Damage` of that number."""
        ...


@dataclass(frozen=True, slots=True)
class Feed:
    """A part of the disk that a sink wants."""

    start: int
    """First byte, from the start of the disk."""
    end: int
    """Exclusive."""
    sink: Sink


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the disk that can't be read."""

    offset: int
    """First byte, from the start of the disk; exact to 4096 bytes."""
    length: int | None
    """Bytes; None where it is not known how far the disk goes on."""
    message: str
    """What was said of its first bytes."""
    structure: str
    """What could not be read."""


@dataclass(slots=True)
class Digests:
    """Hashes of what comes in, by their names in hashlib."""

    algorithms: Sequence[str]
    received: int = 0
    """Bytes so far."""
    missed: list[int] = field(default_factory=list)
    """Numbers of the damages in it."""
    _hashes: tuple[hashlib._Hash, ...] = ()

    def __post_init__(self) -> None:
        self._hashes = tuple(hashlib.new(name, usedforsecurity=False) for name in self.algorithms)

    def update(self, data: memoryview) -> None:
        """See `Sink`."""
        self.received += len(data)
        for each in self._hashes:
            each.update(data)

    def miss(self, damage: int, count: int) -> None:  # noqa: ARG002  # a hash is of no use once a byte is missing
        """See `Sink`."""
        if damage not in self.missed[-1:]:
            self.missed.append(damage)

    @property
    def values(self) -> tuple[tuple[str, str], ...]:
        """Name and value in hexadecimal of each; none where something is missing."""
        if self.missed:
            return ()
        return tuple((name, each.hexdigest()) for name, each in zip(self.algorithms, self._hashes, strict=True))


@dataclass(slots=True)
class NonZero:
    """Counts bytes, and those that are not zero."""

    bytes: int = 0
    nonzero: int = 0

    def update(self, data: memoryview) -> None:
        """See `Sink`."""
        self.bytes += len(data)
        content = data.tobytes()  # two bytes objects are compared far faster than a memoryview
        if content != _ZEROS[: len(content)]:
            self.nonzero += len(content.translate(None, b"\0"))

    def miss(self, damage: int, count: int) -> None:
        """See `Sink`: what can't be read is not counted."""


class NonZeroIn(NonZero):
    """Counts only what lies in some of the runs of what comes in."""

    def __init__(self, start: int, runs: Iterator[tuple[int, int]]) -> None:
        """Take the place of the first byte that comes in, and offset and bytes of each run, by place."""
        super().__init__()
        self._at = start
        self._runs = runs
        self._run = next(runs, None)

    def update(self, data: memoryview) -> None:
        """See `Sink`."""
        end = self._at + len(data)
        while self._run is not None and self._run[0] < end:
            first, last = max(self._run[0], self._at), min(sum(self._run), end)
            if first < last:
                super().update(data[first - self._at : last - self._at])
            if sum(self._run) > end:
                break
            self._run = next(self._runs, None)
        self._at = end

    def miss(self, damage: int, count: int) -> None:  # noqa: ARG002  # as `Sink`
        """See `Sink`."""
        self._at += count


class DiskPass:
    """Reads a disk from its start to its end once."""

    def __init__(self, disk: ReadAt, everything: Sink) -> None:
        """Take the disk, and what is to get all of it."""
        self._disk = disk
        self._everything = everything
        self.position = 0
        """Up to where it was read."""
        self.damages: list[Damage] = []
        """What could not be read, by place."""
        self.has_ended = False
        """The disk's end was reached, or damage that hides it."""
        self._announced = 0
        self._length = _CHUNK
        """Bytes to try next: fewer while in a damaged place."""

    def advance(self, end: int | None, feeds: Iterable[Feed] = ()) -> None:
        """Read on up to byte `end` (exclusive; None for the disk's end), and give the feeds their parts.

        What a feed wants of the disk before `position` is read again: only of partitions that overlap.
        """
        ahead = []
        for feed in feeds:
            if feed.start < self.position:
                self._again(replace(feed, end=min(feed.end, self.position)))
            if feed.end > self.position:
                ahead.append(replace(feed, start=max(feed.start, self.position)))
        waiting = deque(sorted(ahead, key=lambda feed: feed.start))
        active: list[Feed] = []
        if end is None and knows_size(self._disk):
            end = self._size()
        while not self.has_ended and (end is None or self.position < end):
            check_deadline()
            at = self.position
            piece = self._next(at, end)
            stop = at + (piece if isinstance(piece, int) else len(piece))
            while waiting and waiting[0].start < stop:
                active.append(waiting.popleft())
            self._give(piece, at, [*active, Feed(at, stop, self._everything)])
            active = [feed for feed in active if feed.end > stop]
            self.position = stop
        if self.damages and self.damages[-1].length is None:
            for feed in (*active, *waiting):
                feed.sink.miss(len(self.damages) - 1, 0)

    def _give(self, piece: memoryview | int, at: int, feeds: Iterable[Feed]) -> None:
        """Give a piece of the disk that begins at byte `at`, or the word that it is damaged, to all who want it."""
        for feed in feeds:
            if isinstance(piece, int):
                feed.sink.miss(len(self.damages) - 1, min(feed.end, at + piece) - max(feed.start, at))
            elif (first := max(feed.start, at)) < (last := min(feed.end, at + len(piece))):
                feed.sink.update(piece[first - at : last - at])

    def _again(self, feed: Feed) -> None:
        for at in range(feed.start, feed.end, _CHUNK):
            try:
                data = read_up_to(self._disk, at, min(_CHUNK, feed.end - at))
            except CorruptImage as error:
                self.damages.append(Damage(at, min(_CHUNK, feed.end - at), str(error), error.structure))
                feed.sink.miss(len(self.damages) - 1, min(_CHUNK, feed.end - at))
            else:
                feed.sink.update(memoryview(data))

    def _next(self, at: int, end: int | None) -> memoryview | int:
        """The next bytes, empty at the end; or how many are damaged."""
        most = _CHUNK if end is None else min(_CHUNK, end - at)
        known_zeros = skip_zeros(self._disk, at, at + most) - at
        if known_zeros:
            return memoryview(_ZEROS)[:known_zeros]
        if at + _AHEAD // 2 > self._announced:
            self._announced = at + _AHEAD
            prefetch(self._disk, at, _AHEAD if end is None else min(_AHEAD, max(end - at, most)))
        while True:
            length = min(self._length, most)
            try:
                data = read_up_to(self._disk, at, length)
            except CorruptImage as error:
                if length <= _UNIT:
                    return self._give_up(at, end, error)
                self._length = max(length // 2, _UNIT)
                continue
            self._length = min(self._length * 2, _CHUNK)
            self.has_ended = len(data) < length
            return memoryview(data)

    def _size(self) -> int | None:
        """Bytes of the disk; None where damage hides its end."""
        try:
            return self._disk.size
        except CorruptImage:
            return None

    def _give_up(self, at: int, end: int | None, error: CorruptImage) -> int:
        """Note a damaged place, and tell its length; it goes to the end where nobody knows how far the disk goes on.

        Places that follow each other are one, although each may be told of in other words: a disk may claim any size.
        """
        size = self._size()
        self.has_ended = size is None
        last = self.damages[-1] if self.damages else None
        if last is not None and (last.structure != error.structure or last.offset + (last.length or 0) != at):
            last = None
        before = 0 if last is None else last.length or 0
        length = _UNIT if size is None else self._find_damaged(at, min(size, end or size), before)
        known = None if size is None else before + length
        if last is None:
            self.damages.append(Damage(at, known, str(error), error.structure))
        else:
            self.damages[-1] = replace(last, length=known)
        return length

    def _find_damaged(self, at: int, end: int, before: int) -> int:
        """How many bytes from the damaged ones at byte `at` on to give up, with `before` damaged bytes before them.

        A unit; of long damage a part of it, where its last unit can't be read either, else up to one that can.
        """
        length = min(max(_UNIT, before // _PARTS // _UNIT * _UNIT), end - at)
        bad, good = 0, (length - 1) // _UNIT
        if good == 0 or not self._is_readable(at + good * _UNIT, at + length):
            return length
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._is_readable(at + middle * _UNIT, at + (middle + 1) * _UNIT):
                good = middle
            else:
                bad = middle
        return good * _UNIT

    def _is_readable(self, start: int, end: int) -> bool:
        check_deadline()
        try:
            read_up_to(self._disk, start, end - start)
        except CorruptImage:
            return False
        return True
