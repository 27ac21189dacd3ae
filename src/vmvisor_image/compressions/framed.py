"""Random access to data compressed in frames that decode on their own and whose decoded sizes are known beforehand."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmvisor_image.base.limits import Meter
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.compressions.sequential import Decoder, SequentialReader
from vmvisor_image.errors import Problem
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.source import Source, check_range, past_end

_CACHE_BYTES = 16 << 20
_OPEN_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a zstd frame, an xz block."""

    start: int
    """Its first compressed byte, from the source's start."""
    length: int
    """Compressed bytes."""
    decoded_start: int
    """Its first byte in the decoded data."""
    size: int
    """Decoded bytes."""


class FramedReader(Source):
    """The decoded data as a `ReadAt`; any number of threads may read."""

    def __init__(
        self,
        structure: str,
        frames: Sequence[Frame],
        start: Callable[[Frame], Decoder],
        *,
        problems: tuple[Problem, ...] = (),
        meter: Meter | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        total: int | None = None,
    ) -> None:
        """Read frames with decoders that `start` makes; the other arguments are those of `SequentialReader`.

        Args:
            structure: What is decoded, for messages.
            frames: In order and without gaps from the decoded data's start; empty ones left out.
            start: Makes a decoder at the beginning of a frame. It has to give as many bytes as the frame has.
            problems: What was found when the frames were looked for.
            meter: Counts what is decoded, and bounds what is kept.
            progress: Called with the compressed bytes up to the furthest piece decoded, and `total`.
            total: Compressed bytes in all.
        """
        self._structure = structure
        self._frames = tuple(frames)
        self._start = start
        self._problems = problems
        self._meter = meter or Meter()
        self._progress = progress
        self._total = total
        self._open: LruCache[int, SequentialReader] = LruCache(_OPEN_FRAMES)
        """By the number of their frame."""

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._meter

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is no part of the data."""
        return self._problems

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames, in order."""
        return self._frames

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """Number of the frames, by name."""
        return (("frames", len(self._frames)),)

    @property
    def size(self) -> int:
        """Decoded length in bytes."""
        return self._frames[-1].decoded_start + self._frames[-1].size if self._frames else 0

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: A frame that the range touches is damaged.
            TruncatedImage: The range passes the end of the data.
        """
        check_range(offset, length)
        if offset + length > self.size:
            raise past_end(self._structure, offset, length, self.size)
        found = []
        number = bisect_right(self._frames, offset, key=lambda frame: frame.decoded_start) - 1
        while length > 0:
            frame = self._frames[number]
            within = offset - frame.decoded_start
            part = self._reader(number).read_at(within, min(length, frame.size - within))
            found.append(part)
            offset += len(part)
            length -= len(part)
            number += 1
        return found[0] if len(found) == 1 else b"".join(found)

    def open(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the decoded data."""
        return open_stream(self)

    def _reader(self, number: int) -> SequentialReader:
        frame = self._frames[number]
        return self._open.get_or_make(
            number,
            lambda: SequentialReader(
                self._structure,
                lambda: self._start(frame),
                cache_bytes=min(_CACHE_BYTES, self.meter.limits.cache_bytes) // _OPEN_FRAMES,
                meter=self.meter,
                progress=self._progress,
                total=self._total,
            ),
        )
