"""Random access to data that can only be decoded forward: gzip, one xz block, one zstd frame.

Decoded data is kept in pieces, the least recently used of which are dropped first. Where a decoder can be copied,
copies are kept at intervals (*checkpoints*), so that a later read starts at the nearest checkpoint before it and not at
the beginning.
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
from vmvisor_image.base.open_options import Progress
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.source import Source, check_range, past_end

PIECE = 1 << 18
"""Number of decoded bytes that are kept or dropped together."""
_CACHE_BYTES = 16 << 20
_FIRST_SPACING = 16
"""Initial number of pieces between checkpoints: one every 4 MiB."""
_MOST_CHECKPOINTS = 128
"""Largest number of checkpoints, each about 50 kB for gzip; past it, every second one is dropped and the spacing
doubled."""


class Decoder(Protocol):
    """A decoder that goes forward from its position."""

    @property
    def position(self) -> int:
        """Number of compressed bytes consumed, from the source's start."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems found so far, such as bytes that are not part of the data."""
        ...

    def read(self, length: int) -> bytes:
        """The next bytes, at least one and at most `length`; empty only at the end of the data.

        Raises:
            CorruptImage: The data is damaged; this decoder gives nothing more.
        """
        ...

    def copy(self) -> Self | None:
        """A decoder at the same position; None where decoders can't be copied."""
        ...


class SequentialReader(Source):
    """The decoded data as a `ReadAt`; any number of threads may read, one at a time."""

    def __init__(
        self,
        structure: str,
        start: Callable[[], Decoder],
        *,
        cache_bytes: int = _CACHE_BYTES,
        meter: Meter | None = None,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> None:
        """Read with decoders made by `start`.

        Args:
            structure: Name of the decoded structure, for messages.
            start: Makes a decoder at the beginning of the data.
            cache_bytes: Largest memory for decoded pieces, in bytes; more than the default is not used.
            meter: Counter of decoded bytes, which ends decoding at its limit.
            progress: Called with the number of compressed bytes consumed and `total` for each piece that is decoded
                for the first time.
            total: Number of all compressed bytes, where that is known.
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
        """Numbers of the pieces that may be in the cache, least recently used first; not an `LruCache`, because the
        cache also drops pieces."""
        self._checkpoints: list[tuple[int, Decoder]] = []
        """Checkpoints in ascending order: number of the next piece, and a decoder positioned at it."""
        self._spacing = _FIRST_SPACING
        self._live: tuple[int, Decoder] | None = None
        """Checkpoint at the end of the last read."""
        self._furthest = 0
        """Number of pieces decoded at least once."""
        self._size: int | None = None
        self._failure: CorruptImage | None = None
        """Error that ended the data, in piece number `_furthest` - 1."""
        self._problems: tuple[Problem, ...] = ()
        self.pieces_decoded = 0
        """Number of pieces decoded so far, including repeated decoding."""
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
        """Problems found so far, such as bytes that are not part of the data, and damage that ended it early."""
        return (*self._problems, *(() if self._failure is None else (Problem.of(self._failure),)))

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        data = self.read_up_to(offset, length)
        if len(data) < length:
            raise past_end(self._structure, offset, length, self.size)
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only at the end of the data or before damage.

        Raises:
            CorruptImage: There is damage at the first byte that is missing.
        """
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
        """Bytes of a piece: complete unless the data ends within it, and empty past the end."""
        piece = self._meter.pieces.get((self._number, number))
        if piece is not None:
            self._mark(number)
            return piece
        at, decoder = self._decoder_before(number)
        self._live = None  # after an exception, the decoder is no longer usable
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
        """Number of the next piece of the nearest decoder before a piece, and that decoder."""
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
        """Keep a decoded piece, and the position of the decoder.

        A piece is kept only after it was counted, because a kept piece is not decoded, and so not counted, again.
        """
        if number < self._furthest:
            self._keep(number, piece)
            return
        self._problems = decoder.problems
        size = number * PIECE + len(piece) if failure is None and len(piece) < PIECE else None
        # No call between these: after an interruption or a fork, either all of them are set or none.
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
        """Keep a piece, and drop the least recently used ones beyond the limit."""
        self._meter.pieces.put((self._number, number), piece)
        self._mark(number)
        while len(self._kept) > self._most_pieces:
            self._meter.pieces.drop((self._number, self._kept.popitem(last=False)[0]))

    def _mark(self, number: int) -> None:
        """Record the use of a piece, also if an exception prevented its first record."""
        self._kept[number] = None
        self._kept.move_to_end(number)


def _next_piece(decoder: Decoder) -> tuple[bytes, CorruptImage | None]:
    """A complete piece, or the bytes before the end or before damage; and the error, if there was damage."""
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
