"""Types that functions accept as a source, and the one function that opens them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeGuard, cast

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.source import Closing, ReadAt, Source
from vmvisor_image.streams.sources import BytesSource, FileObjectSource, FileSource
from vmvisor_image.streams.urls import is_url

SourceLike = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | ReadAt
"""A source as every function accepts it: a path or URL, the bytes themselves, a seekable binary file object, or any
`ReadAt`, such as a `File` of an image. A file that is opened for a path or URL is closed with the object made from it;
objects that the caller opened stay open."""


@dataclass(frozen=True, slots=True)
class OpenedSource(Closing):
    """A source that is open."""

    source: Source
    name: str | None = None
    """Name of the source's file, without its directory; None for a source without a name."""
    is_own: bool = False
    """Whether the source was opened here, so that `close` closes it."""

    def close(self) -> None:
        """Close the source, where it was opened here."""
        if self.is_own:
            self.source.close()


def path_of(source: object) -> str | None:
    """Path or URL that was given as a source; None for anything else."""
    # Files of images are checked for first: they have an `__fspath__`, which raises.
    if hasattr(source, "read_at") or not isinstance(source, str | os.PathLike):
        return None
    return os.fspath(source)


def is_source(given: object) -> TypeGuard[SourceLike]:
    """Whether an object is one source, rather than several of them."""
    if isinstance(given, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(given, "read_at"):
        return True
    return hasattr(given, "read")


def open_source(given: SourceLike, storage_options: Mapping[str, Any] | None = None) -> OpenedSource:
    """Source opened as it is, with no layer taken off.

    Args:
        given: See `SourceLike`.
        storage_options: Arguments of `fsspec.open` in addition to a URL; a path given with them is taken as a URL.

    Raises:
        SourceError: The file can't be opened; where there is none, or it is a folder or not permitted, the error is
            also Python's own for that, such as FileNotFoundError.
        RemoteError: The object at the URL can't be read.
        DependencyMissing: The source is a URL, and fsspec, or a package that fsspec needs for it, is not installed.
        InvalidArgument: `given` is not a source.
    """
    path = path_of(given)
    if path is not None:
        if storage_options is not None or is_url(path):
            remote, name = open_remote(path, storage_options)
            return OpenedSource(remote, name, is_own=True)
        return OpenedSource(FileSource(path), os.path.basename(path), is_own=True)  # noqa: PTH119  # a name, not a path, is wanted
    if isinstance(given, bytes | bytearray | memoryview):
        return OpenedSource(BytesSource(given))
    if hasattr(given, "read_at"):
        return OpenedSource(as_source(cast("ReadAt", given)))
    if hasattr(given, "read") and hasattr(given, "seek"):
        return OpenedSource(FileObjectSource(cast("BinaryIO", given)))
    raise InvalidArgument(f"an image is a path, a URL, bytes, a binary file object or a ReadAt, not {given!r}")


def open_remote(
    url: str, options: Mapping[str, Any] | None = None, *, neighbour: str | None = None
) -> tuple[Source, str]:
    """Source at a URL, which the caller closes, and its name; see `vmvisor_image.streams.remote.open_url`."""
    from vmvisor_image.streams.remote import open_url  # files need neither HTTP nor dates

    return open_url(url, options, neighbour=neighbour)
