"""`ReadAt`, the protocol that everything rests on, and `Source`, the base of all that satisfies it here.

A `ReadAt` has a size and gives exact byte ranges. It has no cursor, so any number of threads may read one.
A slice of a `ReadAt` is a `ReadAt`; so is a decoded bzip2 stream and a file inside a FAT volume.
All of these are a `Source`, which may know more than the two members of a `ReadAt` tell: where zeros are, what to
decode ahead, what tells it from another one. What others give is made one at the door, by `as_source`.
"""

from __future__ import annotations

from abc import abstractmethod
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
        """Exactly `length` bytes from `offset`, both in bytes, `offset` from this object's start.

        Raises:
            TruncatedImage: The range passes the end.
            InvalidArgument: A negative offset or length.
        """
        ...


class Source:
    """Random access to a run of bytes, and all that may be asked of what gives it; the base of every reader here.

    `size` and `read_at` are what a source has to have; the other members have defaults that suit bytes about which
    nothing else is known. A subclass that keeps one of them as an attribute of its own names it in its class body.
    """

    # Without ABCMeta, by which `isinstance` takes ten times as long; type checkers know abstract methods without it.
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
        """Whether `size` costs no decoding; True unless the size is found by decoding."""
        return True

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only where the source ends.

        By default that is `read_at` up to `size`. What finds its size by decoding has a way of its own.

        Raises:
            InvalidArgument: A negative offset or length.
        """
        size = self.size
        if 0 <= offset < size:
            return self.read_at(offset, min(length, size - offset))
        check_range(offset, length)
        return b""

    def prefetch(self, offset: int, length: int) -> None:
        """Take note that `length` bytes from `offset` will be read soon; may pass the end. Nothing by default."""

    def skip_zeros(self, offset: int, end: int) -> int:  # noqa: ARG002  # the default knows nothing
        """The first byte from `offset` up to `end` (exclusive) that may be anything but zero, found without reading.

        `end` where all of them are known to be zeros. By default `offset`: nothing is known.
        """
        return offset

    @property
    def meter(self) -> Meter | None:
        """Counter of the bytes decoded for the image that it belongs to; None where nothing counts."""
        return None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far in what it is read from; empty by default."""
        return ()

    @property
    def kept_beside(self) -> str | None:
        """Path or URL beside which is kept what was found out about it; None, by default, where there is no place."""
        return None

    @property
    def container(self) -> Source | None:
        """The source that it is a member of; None by default."""
        return None

    @property
    def version(self) -> str | None:
        """A text that differs when the bytes do; None, by default, where nothing tells."""
        return None

    @property
    def modified_ns(self) -> int | None:
        """Time of the last write in nanoseconds since 1970; None, by default, where there is none that tells."""
        return None

    @property
    def changed_ns(self) -> int | None:
        """Time of the last change of content, name or owner in nanoseconds since 1970; None by default."""
        return None

    def close(self) -> None:
        """Close what was opened for it, after which reads raise `ClosedError`. By default there is nothing to close."""


def check_range(offset: int, length: int) -> None:
    """Refuse a negative offset or length.

    Raises:
        InvalidArgument: Either of the two is negative.
    """
    if offset < 0 or length < 0:
        raise InvalidArgument(f"offset and length must not be negative (offset {offset}, length {length})")


def past_end(structure: str, offset: int, length: int, size: int) -> TruncatedImage:
    """The error for a range that passes the end of `structure`, which is `size` bytes long."""
    return TruncatedImage(
        f"{length} bytes wanted, but it ends at byte {size:#x}",
        structure=structure,
        offset=offset,
        expected=f"at least {offset + length} bytes",
        found=f"{size}",
    )


class Closing:
    """What has a `close`, and is closed at the end of a ``with`` block."""

    __slots__ = ()

    def close(self) -> None:
        """Close what was opened for it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
