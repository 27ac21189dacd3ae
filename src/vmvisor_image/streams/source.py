"""`ReadAt`, the protocol that all reading is built on, and `Source`, the base of its implementations here.

A `ReadAt` has a size and gives exact byte ranges. It has no cursor, so any number of threads may read one.
A slice of a `ReadAt` is a `ReadAt`; so are a decoded bzip2 stream and a file inside a FAT volume.
All of these are a `Source`, which may have more than the two members of a `ReadAt`: where zeros are, what to decode
ahead, a version that identifies its content. Objects of other types become a `Source` by `as_source`.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from vmvisor_image.base.limits import Meter
from vmvisor_image.errors import (
    InvalidArgument,
    Problem,
    TruncatedImage,
)

COPY_CHUNK = 1 << 20


@runtime_checkable
class ReadAt(Protocol):
    """Random access to a run of bytes."""

    @property
    def size(self) -> int:
        """Number of bytes; finding it may cost a decode to the end."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, which counts in bytes from this object's start.

        Raises:
            TruncatedImage: The range passes the end.
            InvalidArgument: The offset or the length is negative.
        """
        ...


class Source:
    """Random access to a run of bytes, with optional facts about them; the base of every reader here.

    A source has to have `size` and `read_at`; the other members have defaults for bytes about which nothing else is
    known. A subclass that keeps one of these members as an attribute declares it in its class body.
    """

    # Without ABCMeta, which makes `isinstance` ten times slower; type checkers know abstract methods without it.
    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of bytes; finding it may cost a decode to the end, see `size_is_known`."""
        raise NotImplementedError

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        raise NotImplementedError

    @property
    def size_is_known(self) -> bool:
        """Whether `size` needs no decoding; True by default."""
        return True

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only where the source ends.

        By default that is `read_at` up to `size`; sources that find their size by decoding override this.

        Raises:
            InvalidArgument: The offset or the length is negative.
        """
        size = self.size
        if 0 <= offset < size:
            return self.read_at(offset, min(length, size - offset))
        check_range(offset, length)
        return b""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Number of bytes from `offset` that were read into `buffer`; fewer than it takes only where the source ends.

        By default what `read_up_to` gives is copied; sources that keep their bytes in pieces copy each of them once.
        Where this raises, the buffer may have been written to.

        Raises:
            InvalidArgument: The offset is negative.
        """
        data = self.read_up_to(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:  # noqa: ARG002  # as above
        """Number of bytes from `offset`, at most `length`, that the system has copied from the source's file to one.

        Faster than reading and writing them. 0 where the system can't: then they have to be read, which also says why.

        Args:
            offset: First byte.
            length: Largest number of bytes.
            descriptor: Descriptor of the file that is written.
            at: First byte in that file.
        """
        return 0

    def prefetch(self, offset: int, length: int) -> None:
        """Take a hint that `length` bytes from `offset` will be read soon; may pass the end. Ignored by default."""

    def skip_zeros(self, offset: int, end: int) -> int:  # noqa: ARG002  # the default knows nothing
        """Offset of the first byte from `offset` up to `end` (exclusive) that may not be zero, found without reading.

        `end` where all bytes are known to be zeros; by default `offset`, as nothing is known.
        """
        return offset

    @property
    def meter(self) -> Meter | None:
        """Counter of the bytes decoded for the image that the source belongs to; None, by default, for no counter."""
        return None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far in the data that the source is read from; empty by default."""
        return ()

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """Names and numbers of the parts that were checked when they were decoded; empty, by default, without any."""
        return ()

    @property
    def kept_beside(self) -> str | None:
        """Path or URL beside which data about the source, such as an index, may be kept; None, by default, for none."""
        return None

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files of the system that the bytes are read from, which must never be written; empty by default.

        Only of sources, views of them, images and what lies in images: a layer is not asked by itself.
        """
        return ()

    @property
    def container(self) -> Source | None:
        """Source of the container that this source is a member of; None by default."""
        return None

    @property
    def version(self) -> str | None:
        """Text that differs when the bytes do; None, by default, where no such text is known."""
        return None

    @property
    def modified_ns(self) -> int | None:
        """Time of the last write in nanoseconds since 1970; None, by default, where no reliable time is known."""
        return None

    @property
    def changed_ns(self) -> int | None:
        """Time of the last change of content, name or owner in nanoseconds since 1970; None by default."""
        return None

    def close(self) -> None:
        """Close the files that the source opened, after which reads raise `ClosedError`; by default there are none."""


def read_exactly_into(source: Source, offset: int, buffer: memoryview) -> None:
    """Fill a buffer with the bytes of a source from `offset`; the errors are those of `Source.read_at`."""
    if source.read_into(offset, buffer) < len(buffer):
        buffer[:] = source.read_at(offset, len(buffer))  # which says why


def gathered(length: int, fill: Callable[[memoryview], None]) -> bytes:
    """Bytes that a function writes into a buffer of zeros, which is not copied again.

    Pieces that are joined would be copied twice, and large ones, which the allocator gives back to the system, cost
    six times as much as that.
    """
    whole = io.BytesIO(bytes(length))
    with whole.getbuffer() as buffer:
        fill(buffer)
    return whole.getvalue()


def check_range(offset: int, length: int) -> None:
    """Refuse a negative offset or length.

    Raises:
        InvalidArgument: The offset or the length is negative.
    """
    if offset < 0 or length < 0:
        raise InvalidArgument(f"offset and length must not be negative (offset {offset}, length {length})")


def past_end(structure: str, offset: int, length: int, size: int) -> TruncatedImage:
    """Error for a range that passes the end of `structure`, which is `size` bytes long."""
    return TruncatedImage(
        f"{length} byte{'' if length == 1 else 's'} wanted, but it ends at byte {size:#x}",
        structure=structure,
        offset=offset,
        expected=f"at least {offset + length} bytes",
        found=f"{size}",
    )


class Closing:
    """Base of objects that have a `close`, which the end of a ``with`` block calls."""

    __slots__ = ()

    def close(self) -> None:
        """Close the files that the object opened."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
