"""Random access to data compressed in frames that decode independently and have known decoded sizes."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmvisor_image.base.limits import Meter
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.base.open_options import Progress
from vmvisor_image.compressions.sequential import Decoder, SequentialReader
from vmvisor_image.errors import Problem
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.source import Source, check_range, past_end

_CACHE_BYTES = 16 << 20
_OPEN_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One independently decodable part of the data: a zstd frame or an xz block."""

    start: int
    """First compressed byte, from the source's start."""
    length: int
    """Number of compressed bytes."""
    decoded_start: int
    """First byte in the decoded data."""
    size: int
    """Number of decoded bytes."""


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
        progress: Progress | None = None,
        total: int | None = None,
    ) -> None:
        """Read frames with decoders made by `start`.

        Args:
            structure: Name of the decoded structure, for messages.
            frames: Frames in order, without gaps from the start of the decoded data, and without empty ones.
            start: Makes a decoder at the beginning of a frame, which must give exactly the frame's decoded bytes.
            problems: Problems found during the search for the frames.
            meter: Counter of decoded bytes, with the limit of the memory for them.
            progress: Called with the number of compressed bytes up to the furthest piece decoded, and `total`.
            total: Number of all compressed bytes, where that is known.
        """
        self._structure = structure
        self._frames = tuple(frames)
        self._start = start
        self._problems = problems
        self._meter = meter or Meter()
        self._progress = progress
        self._total = total
        self._open: LruCache[int, SequentialReader] = LruCache(_OPEN_FRAMES)
        """Open readers of frames, by the number of the frame."""

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._meter

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems found during the search for the frames."""
        return self._problems

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames, in order."""
        return self._frames

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """Name and number of the parts with checks, which are the frames."""
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
