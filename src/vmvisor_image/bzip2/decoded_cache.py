"""Cache of decoded data on disk, compressed with zstd, so that reading it again costs only zstd's time.

A cache is a directory of *segments*, seekable zstd files that are written under a temporary name and never changed
afterwards, so that any number of processes may use it. Each segment records its source. Every frame has a checksum; a
damaged frame is dropped, and its data decoded again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import mmap
import os
import re
import time
from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmvisor_image.base.destination import lock
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.decoded_cache import MAGIC, MAP_FRAME_MAGIC, VERSION, DecodedMapEntry, DecodedMapHeader
from vmvisor_image.schemas.zstd import SEEKABLE_MAGIC, SeekTableEntry, SeekTableFooter, SkippableFrameHeader
from vmvisor_image.streams.sources import FileSource
from vmvisor_image.streams.zstd_frames import compress_frame, decode_frame, seek_table

LIMIT: Final = 4 << 30
"""Default limit of the size of all segments together, in bytes."""
_FRAME_SIZE: Final = 1 << 18
_LEVEL: Final = 1
_SEGMENT = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.zst")
_PART = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.part")
_ABANDONED: Final = 86_400
"""Seconds after which an unfinished segment that no process holds is considered abandoned."""
_FRAMES_IN_MEMORY: Final = 16
_LARGEST_MAP: Final = 1 << 28


@dataclass(frozen=True, slots=True, order=True)
class _Stretch:
    """A range of the decoded data that is kept."""

    start: int
    size: int
    frame_start: int
    frame_length: int
    segment: int
    """Index of its segment; -1 for the segment that is being written."""


class DecodedCache:
    """The kept part of a source's decoded data; any number of threads may read and add."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fingerprint: bytes,
        *,
        limit: int = LIMIT,
        exclusive: bool = False,
    ) -> None:
        """Open a cache; the directory is created when there is something to keep.

        Args:
            folder: Directory of the segments.
            fingerprint: Fingerprint of the source.
            limit: Largest size of all the source's segments together, in bytes; data past it is not kept.
            exclusive: Whether the directory is for one source, so that segments of other sources are removed.
        """
        self.folder = Path(folder)
        self._fingerprint = fingerprint
        self._prefix = fingerprint.hex()[:16]
        self._limit = limit
        self._exclusive = exclusive
        self._lock = ForkSafeLock()
        self._segments: list[FileSource] = []
        self._stretches: list[_Stretch] = []
        """Stretches in ascending order of their starts."""
        self._frames: LruCache[_Stretch, bytes] = LruCache(_FRAMES_IN_MEMORY)
        self._writer: _SegmentWriter | None = None
        self._may_write = True
        self._taken = 0
        self.hits = 0
        """Number of reads answered from the cache."""
        self._load()

    @property
    def size(self) -> int:
        """Number of decoded bytes that are kept."""
        return sum(stretch.size for stretch in self._stretches)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` up to the first gap in the kept data, at most `length`."""
        found: list[bytes] = []
        with self._lock:
            while length > 0:
                piece = self._read_one(offset, length)
                if not piece:
                    break
                found.append(piece)
                offset += len(piece)
                length -= len(piece)
            self.hits += bool(found)
        return found[0] if len(found) == 1 else b"".join(found)

    def has(self, offset: int) -> bool:
        """Whether the byte at `offset` is kept."""
        with self._lock:
            return self._find(offset) is not None

    def add(self, start: int, segments: tuple[bytes | mmap.mmap | int, ...]) -> None:
        """Keep decoded data from byte `start` on, given as bytes or numbers of zeros, where it is not yet kept."""
        with self._lock:
            try:
                for at, size, data in _stretches_of(start, segments):
                    if self._may_write and self._taken < self._limit and self._find(at) is None:
                        self._add_one(at, size, data)
            except OSError:  # the disk is full, or the directory can't be written: reading goes on
                self._give_up_writing()

    def close(self) -> None:
        """Finish the segment that is being written, if any, and close the others."""
        with self._lock:
            writer, self._writer, self._may_write = self._writer, None, False
            if writer is not None:
                with contextlib.suppress(OSError):  # what can't be kept is decoded again the next time
                    writer.finish(self._fingerprint)
            for segment in self._segments:
                segment.close()
            self._segments.clear()
            self._stretches.clear()
            self._frames.clear()

    def forget(self) -> None:
        """Remove all kept data, which may be misplaced."""
        with self._lock:
            if self._writer is not None:
                self._writer.abandon()
                self._writer = None
            for segment in self._segments:
                segment.close()
                with contextlib.suppress(OSError):
                    os.unlink(segment.path)  # noqa: PTH108  # a path as the source has it
            self._segments.clear()
            self._stretches.clear()
            self._frames.clear()
            self._taken = 0

    def start_in_child(self) -> None:
        """Leave the segment that is being written to the parent, after a fork."""
        self._writer = None
        self._may_write = False
        self._stretches = [stretch for stretch in self._stretches if stretch.segment >= 0]

    def _load(self) -> None:
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder))
        except OSError:
            return
        for name in names:
            path = self.folder / name
            found, part = _SEGMENT.fullmatch(name), _PART.fullmatch(name)
            with contextlib.suppress(OSError):
                if part is not None:
                    useless = time.time() - path.stat().st_mtime > _ABANDONED and not _is_being_written(path)
                elif found is not None and found[1] == self._prefix:
                    useless = not self._load_segment(path)
                else:
                    useless = found is not None and self._exclusive
                if useless:
                    path.unlink()
        self._stretches.sort()

    def _load_segment(self, path: Path) -> bool:
        """Whether a segment belongs to the source and is intact; its stretches are then added."""
        segment = FileSource(path)
        try:
            entries = _read_map(segment, self._fingerprint)
        except CorruptImage:
            segment.close()
            return False
        number = len(self._segments)
        self._segments.append(segment)
        self._taken += segment.size
        self._stretches += [
            _Stretch(entry.decoded_start, entry.size, entry.frame_start, entry.frame_length, number)
            for entry in entries
        ]
        return True

    def _find(self, offset: int) -> _Stretch | None:
        place = bisect_right(self._stretches, offset, key=lambda stretch: stretch.start)
        # Two processes may have kept overlapping stretches; of those that start before it the nearest is enough,
        # for all are cut at the same places.
        if place and (stretch := self._stretches[place - 1]).start + stretch.size > offset:
            return stretch
        return None

    def _read_one(self, offset: int, length: int) -> bytes:
        """Bytes of one stretch from `offset`, at most `length`; empty where no stretch holds `offset`."""
        while (stretch := self._find(offset)) is not None:
            within = offset - stretch.start
            if not stretch.frame_length:
                return bytes(min(length, stretch.size - within))
            data = self._frame(stretch)
            if data is not None:
                return data[within : within + length]
            self._stretches.remove(stretch)  # damaged: as if it had never been kept
        return b""

    def _frame(self, stretch: _Stretch) -> bytes | None:
        data = self._frames.get(stretch)
        if data is None:
            data = self._decode(stretch)
            if data is None:
                return None
            self._frames.put(stretch, data)
        return data

    def _decode(self, stretch: _Stretch) -> bytes | None:
        try:
            if stretch.segment >= 0:
                frame = self._segments[stretch.segment].read_at(stretch.frame_start, stretch.frame_length)
            else:
                assert self._writer is not None, "its stretches are forgotten with it"
                frame = self._writer.read(stretch.frame_start, stretch.frame_length)
        except (OSError, CorruptImage):
            return None
        return decode_frame(frame, stretch.size)

    def _add_one(self, start: int, size: int, data: bytes | None) -> None:
        if self._writer is None:
            self._writer = _SegmentWriter(self.folder, self._prefix)
        at, length = (0, 0) if data is None else self._writer.write(data)
        self._writer.entries.append(DecodedMapEntry(start, size, at, length))
        self._taken += length + DecodedMapEntry.length()
        insort(self._stretches, _Stretch(start, size, at, length, -1))

    def _give_up_writing(self) -> None:
        self._may_write = False
        self._stretches = [stretch for stretch in self._stretches if stretch.segment >= 0]
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


class _SegmentWriter:
    """A segment that is being written."""

    def __init__(self, folder: Path, prefix: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{prefix}-{os.urandom(8).hex()}.part"
        self._file = self._path.open("x+b", buffering=0)
        lock(self._file)
        self._end = 0
        self._frames: list[SeekTableEntry] = []
        self.entries: list[DecodedMapEntry] = []

    def write(self, data: bytes) -> tuple[int, int]:
        """Write a frame, and return its first byte in the file and its length in bytes."""
        frame = compress_frame(data, _LEVEL)
        start = self._end
        self._write(frame)
        self._frames.append(SeekTableEntry(len(frame), len(data)))
        return start, len(frame)

    def read(self, start: int, length: int) -> bytes:
        """Bytes of a frame, read back from the file."""
        self._file.seek(start)
        return self._file.read(length) or b""

    def finish(self, fingerprint: bytes) -> None:
        """Add the map and the seek table, and give the file its name."""
        try:
            table = b"".join(entry.build() for entry in self.entries)
            header = DecodedMapHeader(MAGIC, VERSION, len(self.entries), fingerprint, bytes(32))
            header = dataclasses.replace(header, digest=_digest(header, table))
            content = header.build() + table
            self._write(SkippableFrameHeader(MAP_FRAME_MAGIC, len(content)).build() + content)
            self._frames.append(SeekTableEntry(SkippableFrameHeader.length() + len(content), 0))
            self._write(seek_table(self._frames))
            self._file.truncate(self._end)  # an interrupted write may have left more
            self._file.close()
            self._path.replace(self._path.with_suffix(".zst"))
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Remove the file."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._end += len(data)


def _stretches_of(start: int, segments: tuple[bytes | mmap.mmap | int, ...]) -> Iterator[tuple[int, int, bytes | None]]:
    """First decoded byte, size and bytes of each stretch; None instead of the bytes for zeros."""
    for segment in segments:
        if isinstance(segment, int):
            yield start, segment, None
            start += segment
            continue
        for at in range(0, len(segment), _FRAME_SIZE):
            data = segment[at : at + _FRAME_SIZE]
            yield start, len(data), data
            start += len(data)


def _is_being_written(part: Path) -> bool:
    """Whether the process that began a segment still holds it, even if its last write was long ago."""
    with part.open("r+b", buffering=0) as file:
        return lock(file) is False


def _digest(header: DecodedMapHeader, table: bytes) -> bytes:
    return hashlib.sha256(dataclasses.replace(header, digest=bytes(32)).build() + table).digest()


def _read_map(segment: FileSource, fingerprint: bytes) -> list[DecodedMapEntry]:
    """Entries of a segment's map.

    Raises:
        CorruptImage: The segment has no map, a damaged one, or one for another source.
    """

    def refuse(reason: str) -> CorruptImage:
        return CorruptImage(reason, structure="decoded cache")

    def read(start: int, length: int) -> bytes:
        if start < 0 or length > _LARGEST_MAP:
            raise refuse("its tables do not fit it")
        return segment.read_at(start, length)

    table_end = segment.size - SeekTableFooter.length()
    footer = SeekTableFooter.parse(read(table_end, SeekTableFooter.length()))
    if footer.magic != SEEKABLE_MAGIC or not footer.frames:
        raise refuse("it has no seek table")
    table_start = table_end - footer.frames * SeekTableEntry.length()
    last = SeekTableEntry.parse(read(table_end - SeekTableEntry.length(), SeekTableEntry.length()))
    map_start = table_start - SkippableFrameHeader.length() - last.compressed
    content = read(map_start, last.compressed)[SkippableFrameHeader.length() :]
    if len(content) < DecodedMapHeader.length():
        raise refuse("its map is too short")
    header = DecodedMapHeader.parse(content)
    table = content[DecodedMapHeader.length() :]
    if header.magic != MAGIC or header.version != VERSION or header.digest != _digest(header, table):
        raise refuse("its map is damaged, or of another version")
    if header.fingerprint != fingerprint:
        raise refuse("it was made of another source, or the source has changed since")
    return list(DecodedMapEntry.parse_all(table))
