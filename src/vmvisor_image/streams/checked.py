"""Sources made by others: any object with the two members of `ReadAt`, whose results are checked."""

from __future__ import annotations

from typing import Any

from vmvisor_image.base.limits import Meter, check_deadline
from vmvisor_image.errors import (
    Problem,
    SourceError,
)
from vmvisor_image.streams.source import ReadAt, Source, check_range


def as_source(given: ReadAt) -> Source:
    """`given` itself where it is a `Source`, which is trusted; any other object in a `CheckedSource`."""
    return given if isinstance(given, Source) else CheckedSource(given)


class CheckedSource(Source):
    """A source made by others, which gives exactly the requested bytes or an error.

    It needs only the two members of `ReadAt`; other members of `Source` are used where it has them.
    """

    def __init__(self, source: ReadAt) -> None:
        """Take the source, which `close` leaves open."""
        self._source = source

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._source.size

    @property
    def size_is_known(self) -> bool:
        """See `Source.size_is_known`."""
        return bool(self._told("size_is_known", True))

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            SourceError: The source gives something other than that many bytes.
        """
        check_deadline()
        data: object = self._source.read_at(offset, length)
        if not isinstance(data, bytes) or len(data) != length:
            raise _other_bytes(data, offset, length)
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`.

        Raises:
            SourceError: The source gives something other than bytes, or more of them than requested.
        """
        reader = self._told("read_up_to")
        if reader is None:
            return super().read_up_to(offset, length)
        check_range(offset, length)
        check_deadline()
        data: object = reader(offset, length)
        if not isinstance(data, bytes) or len(data) > length:
            raise _other_bytes(data, offset, length)
        return data

    def prefetch(self, offset: int, length: int) -> None:
        """See `Source.prefetch`."""
        hint = self._told("prefetch")
        if hint is not None:
            hint(offset, length)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `Source.skip_zeros`."""
        hint = self._told("skip_zeros")
        return offset if hint is None else int(hint(offset, end))

    @property
    def meter(self) -> Meter | None:
        """See `Source.meter`."""
        found = self._told("meter")
        return found if isinstance(found, Meter) else None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """See `Source.problems`."""
        return tuple(self._told("problems", ()))

    def check_blocks(self) -> tuple[tuple[str, int], ...]:
        """See `Source.check_blocks`."""
        check = self._told("check_blocks")
        return () if check is None else tuple(check())

    @property
    def kept_beside(self) -> str | None:
        """See `Source.kept_beside`."""
        found: str | None = self._told("kept_beside")
        return found

    @property
    def local_paths(self) -> tuple[str, ...]:
        """See `Source.local_paths`."""
        return tuple(self._told("local_paths", ()))

    @property
    def container(self) -> Source | None:
        """See `Source.container`."""
        found: ReadAt | None = self._told("container")
        return None if found is None else as_source(found)

    @property
    def version(self) -> str | None:
        """See `Source.version`."""
        found: str | None = self._told("version")
        return found

    @property
    def modified_ns(self) -> int | None:
        """See `Source.modified_ns`."""
        found: int | None = self._told("modified_ns")
        return found

    @property
    def changed_ns(self) -> int | None:
        """See `Source.changed_ns`."""
        found: int | None = self._told("changed_ns")
        return found

    def _told(self, name: str, default: Any = None) -> Any:
        """Member of `Source` that the source may have; all of them are looked up here."""
        return getattr(self._source, name, default)

    def __reduce__(self) -> tuple[type[CheckedSource], tuple[ReadAt]]:
        return (CheckedSource, (self._source,))


def _other_bytes(data: object, offset: int, length: int) -> SourceError:
    what = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
    return SourceError(f"bytes {offset} to {offset + length} (exclusive) were asked for, and {what} came")
