"""One pass over a disk that gives every part of it to all consumers, so that no byte is read twice.

A consumer requests a part by a `Feed` before the pass reaches it; one byte may have several consumers.
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
"""Smallest number of bytes that are skipped at damage."""
_PARTS: Final = 256
"""Divisor of the bytes skipped so far that gives the next skip in long damage: a disk may claim any size."""
_AHEAD: Final = 128 << 20
"""Bytes that are announced to a source for decoding ahead."""
_ZEROS: Final = bytes(_CHUNK)


class Sink(Protocol):
    """Consumer of bytes in order."""

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        ...

    def miss(self, damage: int, count: int) -> None:
        """Skip the next `count` bytes, or all where it is 0, for the `Damage` of that number."""
        ...


@dataclass(frozen=True, slots=True)
class Feed:
    """A part of the disk and the sink that takes it."""

    start: int
    """First byte, from the start of the disk."""
    end: int
    """End of the part, exclusive, in bytes from the start of the disk."""
    sink: Sink


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the disk that can't be read."""

    offset: int
    """First byte, from the start of the disk; exact to 4096 bytes."""
    length: int | None
    """Bytes; None where the disk's end is not known."""
    message: str
    """Error message of its first bytes."""
    structure: str
    """Structure that could not be read."""


@dataclass(slots=True)
class Digests:
    """Hashes of the incoming bytes, by their names in hashlib."""

    algorithms: Sequence[str]
    received: int = 0
    """Bytes received so far."""
    missed: list[int] = field(default_factory=list)
    """Numbers of the damages in the incoming bytes."""
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
        """Name and value in hexadecimal of each; empty where bytes are missing."""
        if self.missed:
            return ()
        return tuple((name, each.hexdigest()) for name, each in zip(self.algorithms, self._hashes, strict=True))


@dataclass(slots=True)
class NonZero:
    """Counter of bytes, and of those that are not zero."""

    bytes: int = 0
    nonzero: int = 0

    def update(self, data: memoryview) -> None:
        """See `Sink`."""
        self.bytes += len(data)
        content = data.tobytes()  # two bytes objects are compared far faster than a memoryview
        if content != _ZEROS[: len(content)]:
            self.nonzero += len(content.translate(None, b"\0"))

    def miss(self, damage: int, count: int) -> None:
        """See `Sink`: unreadable bytes are not counted."""


class NonZeroIn(NonZero):
    """Counter of only those incoming bytes that lie in given runs."""

    def __init__(self, start: int, runs: Iterator[tuple[int, int]]) -> None:
        """A counter by the offset of the first incoming byte, and offset and bytes of each run, by place."""
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
    """Reader of a disk once from its start to its end."""

    def __init__(self, disk: ReadAt, everything: Sink) -> None:
        """A pass over `disk`; the sink `everything` gets all of it."""
        self._disk = disk
        self._everything = everything
        self.position = 0
        """End of the bytes read so far, exclusive, from the start of the disk."""
        self.damages: list[Damage] = []
        """Damage so far, by place."""
        self.has_ended = False
        """Whether the disk's end was reached, or damage that hides it."""
        self._announced = 0
        self._length = _CHUNK
        """Bytes to read next: fewer near damage."""

    def advance(self, end: int | None, feeds: Iterable[Feed] = ()) -> None:
        """Continue reading to byte `end` (exclusive; None for the disk's end), and give the feeds their parts.

        Parts of a feed before `position` are read again, which happens only where partitions overlap.
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
        """Give a piece of the disk from byte `at`, or the length of damage there, to the feeds that include it."""
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
        """Next bytes, empty at the end; or the number of damaged ones."""
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
        """Length of the damage at byte `at`, which is noted; it reaches to the end where the disk's end is not known.

        Adjacent places are merged, even if their messages differ: a disk may claim any size.
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
        """Number of bytes to skip from the damage at byte `at` on, with `before` damaged bytes before it.

        One unit, or in long damage a fraction of it; fewer, up to a readable unit, where the last unit is readable.
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
