"""Functions that read any `ReadAt`: up to its end or up to damage, past zeros, and its meter and size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from vmvisor_image.base.limits import Meter
from vmvisor_image.errors import (
    CorruptImage,
    RemoteError,
    SourceChanged,
    SourceError,
)
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.source import COPY_CHUNK, ReadAt

_ZEROS = bytes(COPY_CHUNK)


def meter_of(source: object) -> Meter:
    """Meter of the image that a source belongs to, or a new one with the default limits."""
    found = as_source(cast("ReadAt", source)).meter if hasattr(source, "read_at") else None
    return Meter() if found is None else found


def prefetch(source: ReadAt, offset: int, length: int) -> None:
    """Announce to `source` that a range will be read soon; this is only a hint, and most sources ignore it.

    Layers that decode (bzip2) work ahead up to the end of the range and no further.
    """
    if length > 0:
        as_source(source).prefetch(offset, length)


def read_up_to(source: ReadAt, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer only where the source ends.

    Unlike `ReadAt.read_at`, this needs no size beforehand, which a compressed source finds only by decoding to its end.
    """
    return as_source(source).read_up_to(offset, length)


def read_healthy(source: ReadAt, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer only before damage, and where the source ends.

    Raises:
        CorruptImage: The source is damaged at `offset` itself.
        SourceError: The source can't be read at `offset`.
    """
    try:
        return read_up_to(source, offset, length)
    except (RemoteError, SourceChanged):  # not damage at one place: trying again does not help
        raise
    except (CorruptImage, SourceError):
        found = _up_to_damage(source, offset, length)
        if not found:
            raise
        return found


def read_healthy_into(source: ReadAt, offset: int, buffer: memoryview) -> int:
    """Number of bytes from `offset` that were read into `buffer`; see `read_healthy`.

    Raises:
        CorruptImage: The source is damaged at `offset` itself.
        SourceError: The source can't be read at `offset`.
    """
    try:
        return as_source(source).read_into(offset, buffer)
    except (RemoteError, SourceChanged):
        raise
    except (CorruptImage, SourceError):
        found = _up_to_damage(source, offset, len(buffer))
        if not found:
            raise
        buffer[: len(found)] = found
        return len(found)


def _up_to_damage(source: ReadAt, offset: int, length: int) -> bytes:
    """Bytes from `offset` up to the damage that lies within `length` bytes from there."""
    parts: list[bytes] = []
    while length > 1:
        half = length // 2
        try:
            parts.append(read_up_to(source, offset, half))
        except (CorruptImage, SourceError):
            length = half
        else:
            offset, length = offset + half, length - half
    return b"".join(parts)


def skip_zeros(source: ReadAt, offset: int, end: int) -> int:
    """Offset of the first byte from `offset` up to `end` that may not be zero, found without reading; `end` for none.

    Sparse files and bzip2 sources know their runs of zeros; for any other source it is `offset`.
    """
    if offset >= end:
        return offset
    found = as_source(source).skip_zeros(offset, end)
    if found <= offset:  # past its own end, a source may give an earlier byte
        return offset
    return min(found, end)


def find_data(source: ReadAt, offset: int, end: int) -> int | None:
    """Offset of the first byte from `offset` up to `end` (exclusive) that is not zero; None where all are zeros.

    Raises:
        CorruptImage: The source is damaged in that range.
        TruncatedImage: The source ends before `end`.
    """
    while (offset := skip_zeros(source, offset, end)) < end:
        data = source.read_at(offset, min(COPY_CHUNK, end - offset))
        if data != _ZEROS[: len(data)]:
            return offset + len(data) - len(data.lstrip(b"\0"))
        offset += len(data)
    return None


def chunks(source: ReadAt, end: int | None = None) -> Iterator[bytes]:
    """Bytes of a source up to `end` (exclusive; None for all of it), in order, in pieces of at most `COPY_CHUNK`.

    Raises:
        CorruptImage: The source is damaged; the pieces before it were given.
    """
    stop = source.size if end is None else end
    for at in range(0, stop, COPY_CHUNK):
        yield source.read_at(at, min(COPY_CHUNK, stop - at))


def knows_size(source: ReadAt) -> bool:
    """Whether the size of a source is known without decoding; see `Source.size_is_known`."""
    return as_source(source).size_is_known
