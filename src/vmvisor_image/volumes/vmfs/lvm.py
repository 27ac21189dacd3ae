"""The volume below a VMFS file system, on one device or in parts on several."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vmvisor_image.errors import CorruptImage
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.source import ReadAt, Source, check_range, past_end
from vmvisor_image.streams.views import Pieced


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of the volume on one device."""

    start: int
    """First byte in the volume."""
    length: int
    """Bytes."""
    source: ReadAt
    """Disk that contains the device."""
    offset: int
    """First byte on that disk."""


class LogicalVolume(Pieced):
    """The volume as a `ReadAt`; reading a part on a missing device is an error."""

    size: int = 0
    """Bytes in the whole volume."""
    _structure = "VMFS volume"

    def __init__(self, size: int, segments: Sequence[Segment]) -> None:
        """A volume by segments in any order; of overlapping ones the first is used."""
        self.size = size
        self._segments: list[Segment] = []
        for segment in sorted(segments, key=lambda segment: segment.start):
            last = self._segments[-1] if self._segments else None
            if last is None or last.start + last.length <= segment.start:
                self._segments.append(segment)
        self._starts = [segment.start for segment in self._segments]
        self._sources = [as_source(segment.source) for segment in self._segments]

    @property
    def missing(self) -> int:
        """Bytes of the volume that are on no available device."""
        return self.size - sum(min(segment.length, self.size - segment.start) for segment in self._segments)

    def place(self, offset: int, length: int) -> list[tuple[Source, int, int]]:
        """Disk, first byte on it and length of each part of a range.

        Raises:
            TruncatedImage: The range passes the end of the volume.
            CorruptImage: A part of the range is on a missing device.
        """
        check_range(offset, length)
        if offset + length > self.size:
            raise past_end("VMFS volume", offset, length, self.size)
        return list(self.pieces(offset, length))

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source, int, int]]:
        """See `Pieced.pieces`.

        Raises:
            CorruptImage: A part of the range is on a missing device.
        """
        while length > 0:
            number = bisect_right(self._starts, offset) - 1
            segment = self._segments[number] if number >= 0 else None
            if segment is None or offset >= segment.start + segment.length:
                raise CorruptImage(
                    "it lies on a device of the volume that is not there, or ends before it",
                    structure="VMFS volume",
                    offset=offset,
                )
            within = offset - segment.start
            count = min(length, segment.length - within)
            yield self._sources[number], segment.offset + within, count
            offset += count
            length -= count
