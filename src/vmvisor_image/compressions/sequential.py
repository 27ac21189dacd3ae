"""Random access to data that can only be decoded forward: gzip, one xz block, one zstd frame.

What is decoded is kept in pieces, the least recently used dropped first. Where a decoder can be copied, copies are
kept along the way (*checkpoints*), so that a read behind the furthest place starts at the one before it and not at the
beginning.
"""

from __future__ import annotations

import copy
import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, Self

from vmvisor_image.base.forking import ForkSafeLock, restart_in_child
from vmvisor_image.base.limits import Meter
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.source import Source, check_range, past_end

PIECE = 1 << 18
"""Decoded bytes that are kept or dropped together."""
_CACHE_BYTES = 16 << 20
_FIRST_SPACING = 16
"""Pieces between checkpoints at first: every 4 MiB."""
_MOST_CHECKPOINTS = 128
"""Past this many every second one is dropped and the spacing doubled: a gzip checkpoint takes about 50 kB."""


class Decoder(Protocol):
    """Decodes forward from where it is."""

    @property
    def position(self) -> int:
        """Compressed bytes passed, from the source's start."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found so far that is no part of the data."""
        ...

    def read(self, length: int) -> bytes:
        """The next bytes, at least one and at most `length`; none only at the end of the data.

        Raises:
            CorruptImage: The data is damaged; nothing more can be had of this decoder.
        """
        ...

    def copy(self) -> Self | None:
        """A decoder at the same place, or None where that can't be."""
        ...


class SequentialReader(Source):
    """The decoded data as a `ReadAt`; any number of threads may read, in turns."""

    def __init__(
        self,
        structure: str,
        start: Callable[[], Decoder],
        *,
        cache_bytes: int = _CACHE_BYTES,
        meter: Meter | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        total: int | None = None,
    ) -> None:
        """Read with decoders that `start` makes.

        Args:
            structure: What is decoded, for messages.
            start: Makes a decoder at the beginning.
            cache_bytes: Memory for decoded pieces, at most; what is over its usual size is not used.
            meter: Counts what is decoded, and ends it where that is too much.
            progress: Called with the compressed bytes passed and `total` for each piece that is decoded for the
                first time.
            total: Compressed bytes in all, where that is known.
        """
        self._structure = structure
        self._start = start
        self._most_pieces = max(1, min(cache_bytes, _CACHE_BYTES) // PIECE)
        self._meter = meter or Meter()
        self._progress = progress
        self._total = total
        self._lock = ForkSafeLock()
        self._number = self._meter.pieces.new_reader()
        self._kept: OrderedDict[int, None] = OrderedDict()
        """Pieces that may be in the cache, the least used first: dropped there, too, so this is no `LruCache`."""
        self._checkpoints: list[tuple[int, Decoder]] = []
        """Number of the next piece, and a decoder that gives it, ascending."""
        self._spacing = _FIRST_SPACING
        self._live: tuple[int, Decoder] | None = None
        """As a checkpoint: where the last read ended."""
        self._furthest = 0
        """Pieces decoded at least once."""
        self._size: int | None = None
        self._failure: CorruptImage | None = None
        """What ended the data; it happens in the piece `_furthest`."""
        self._problems: tuple[Problem, ...] = ()
        self.pieces_decoded = 0
        """Pieces decoded so far, those decoded again included."""
        restart_in_child(self)

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._meter

    @property
    def size(self) -> int:
        """Decoded length in bytes; the first call decodes to the end.

        Raises:
            CorruptImage: The data is damaged.
        """
        with self._lock:
            while self._size is None:
                if self._failure is not None:
                    raise copy.copy(self._failure)
                self._piece(self._furthest)
            return self._size

    @property
    def size_is_known(self) -> bool:
        """Whether `size` needs no more decoding."""
        return self._size is not None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found so far that is no part of the data, and what ended it early."""
        return (*self._problems, *(() if self._failure is None else (Problem.of(self._failure),)))

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        data = self.read_up_to(offset, length)
        if len(data) < length:
            raise past_end(self._structure, offset, length, self.size)
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only at the end of the data."""
        check_range(offset, length)
        found = []
        with self._lock:
            while length > 0 and (self._size is None or offset < self._size):
                number, within = divmod(offset, PIECE)
                piece = b"" if self._failure is not None and number >= self._furthest else self._piece(number)
                part = piece[within : within + length]
                if not part:
                    if self._failure is not None:
                        raise copy.copy(self._failure)
                    break
                found.append(part)
                offset += len(part)
                length -= len(part)
        return found[0] if len(found) == 1 else b"".join(found)

    def open(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the decoded data."""
        return open_stream(self)

    def start_in_child(self) -> None:
        """See `vmvisor_image.base.forking`."""
        self._live = None

    def _piece(self, number: int) -> bytes:
        """A piece, whole unless the data ends in it; empty past the end."""
        piece = self._meter.pieces.get((self._number, number))
        if piece is not None:
            self._mark(number)
            return piece
        at, decoder = self._decoder_before(number)
        self._live = None  # where an exception ends this, the decoder is of no more use
        while True:
            self._meter.check()
            piece, failure = _next_piece(decoder)
            self._meter.add(len(piece))
            self.pieces_decoded += 1
            self._note(at, piece, failure, decoder)
            if len(piece) < PIECE:
                return piece if at == number else b""
            at += 1
            if at > number:
                self._live = (at, decoder)
                return piece

    def _decoder_before(self, number: int) -> tuple[int, Decoder]:
        """The decoder that is nearest before a piece, and the number of the piece that it gives next."""
        place = bisect_right(self._checkpoints, number, key=lambda checkpoint: checkpoint[0])
        checkpoint = self._checkpoints[place - 1] if place else None
        if self._live is not None and self._live[0] <= number and (checkpoint is None or self._live[0] > checkpoint[0]):
            return self._live
        if checkpoint is None:
            return 0, self._start()
        copied = checkpoint[1].copy()
        assert copied is not None, "what was kept is a copy"
        return checkpoint[0], copied

    def _note(self, number: int, piece: bytes, failure: CorruptImage | None, decoder: Decoder) -> None:
        """Keep what was decoded, and where the decoder is now.

        A piece is kept only when it is counted: one that is kept would not be decoded, and so not counted, again.
        """
        if number < self._furthest:
            self._keep(number, piece)
            return
        self._problems = decoder.problems
        size = number * PIECE + len(piece) if failure is None and len(piece) < PIECE else None
        # No call between these: whoever is interrupted, or forked, by another thread finds all of them or none.
        self._furthest, self._failure, self._size = number + 1, failure, size
        goes_on = failure is None and size is None
        if goes_on and (number + 1) % self._spacing == 0 and (checkpoint := decoder.copy()) is not None:
            self._checkpoints.append((number + 1, checkpoint))
            if len(self._checkpoints) > _MOST_CHECKPOINTS:
                self._checkpoints = self._checkpoints[1::2]
                self._spacing *= 2
        self._keep(number, piece)
        if self._progress is not None:
            self._progress(decoder.position, self._total)

    def _keep(self, number: int, piece: bytes) -> None:
        """Keep a piece, and drop those that were not used for long."""
        self._meter.pieces.put((self._number, number), piece)
        self._mark(number)
        while len(self._kept) > self._most_pieces:
            self._meter.pieces.drop((self._number, self._kept.popitem(last=False)[0]))

    def _mark(self, number: int) -> None:
        """Note that a piece was used; where an exception came before it was noted at first, that is done now."""
        self._kept[number] = None
        self._kept.move_to_end(number)


def _next_piece(decoder: Decoder) -> tuple[bytes, CorruptImage | None]:
    """A whole piece, or what there is before the end or before the damage."""
    parts: list[bytes] = []
    missing = PIECE
    while missing:
        try:
            part = decoder.read(missing)
        except CorruptImage as error:
            return b"".join(parts), copy.copy(error)  # without the traceback, which holds the data
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts), None
