"""The volume below a VMFS file system: one device, or several of which each holds a part."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from vmvisor_image.errors import CorruptImage
from vmvisor_image.streams import ReadAt, check_range, past_end, prefetch, skip_zeros


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of the volume that lies on one device."""

    start: int
    """First byte in the volume."""
    length: int
    """Bytes."""
    source: ReadAt
    """The disk that the device is on."""
    offset: int
    """First byte on that disk."""


class LogicalVolume:
    """The volume as a `ReadAt`; what lies on a device that is not there is an error when it is read."""

    def __init__(self, size: int, segments: Sequence[Segment]) -> None:
        """Take segments in any order; of two for one place the first counts."""
        self.size = size
        """Bytes in the whole volume."""
        self._segments: list[Segment] = []
        for segment in sorted(segments, key=lambda segment: segment.start):
            last = self._segments[-1] if self._segments else None
            if last is None or last.start + last.length <= segment.start:
                self._segments.append(segment)
        self._starts = [segment.start for segment in self._segments]

    @property
    def missing(self) -> int:
        """Bytes that lie on no device that is there."""
        return self.size - sum(min(segment.length, self.size - segment.start) for segment in self._segments)

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            CorruptImage: A part of the range is on a device that is not there.
        """
        found = []
        for segment, start, count in self._parts(offset, length):
            found.append(segment.source.read_at(start, count))
        return found[0] if len(found) == 1 else b"".join(found)

    def place(self, offset: int, length: int) -> list[tuple[ReadAt, int, int]]:
        """Disk, first byte on it and length of each part of a range."""
        return [(segment.source, start, count) for segment, start, count in self._parts(offset, length)]

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.skip_zeros`."""
        try:
            for segment, start, count in self._parts(offset, min(end, self.size) - offset):
                skipped = skip_zeros(segment.source, start, start + count) - start
                offset += skipped
                if skipped < count:
                    break
        except CorruptImage:
            return offset  # reading it says what is wrong
        return offset

    def prefetch(self, offset: int, length: int) -> None:
        """See `vmvisor_image.streams.prefetch`."""
        try:
            parts = self._parts(offset, min(length, self.size - offset))
        except CorruptImage:
            return  # reading it says what is wrong
        for segment, start, count in parts:
            prefetch(segment.source, start, count)

    def _parts(self, offset: int, length: int) -> list[tuple[Segment, int, int]]:
        check_range(offset, max(length, 0))
        if offset + length > self.size:
            raise past_end("VMFS volume", offset, length, self.size)
        found = []
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
            found.append((segment, segment.offset + within, count))
            offset += count
            length -= count
        return found
