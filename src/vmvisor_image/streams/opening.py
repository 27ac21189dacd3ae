"""What a function may be given as a source, and the one way in which it is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeGuard, cast

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.remote import open_url
from vmvisor_image.streams.source import Closing, ReadAt, Source
from vmvisor_image.streams.sources import BytesSource, FileObjectSource, FileSource
from vmvisor_image.streams.urls import is_url

SourceLike = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | ReadAt
"""What every function takes that takes a source: a path or URL, the bytes themselves, a seekable binary file object, or
any `ReadAt`, such as a `File` of an image. What is opened for it is closed with what was made of it; what the caller
opened stays open."""


@dataclass(frozen=True, slots=True)
class OpenedSource(Closing):
    """A source that is open."""

    source: Source
    name: str | None = None
    """Its file's name, without the folder; None for what has none."""
    is_own: bool = False
    """Whether it was opened here, and is closed by `close`."""

    def close(self) -> None:
        """Close what was opened here."""
        if self.is_own:
            self.source.close()


def path_of(source: object) -> str | None:
    """The path or URL that a source is; None of anything else."""
    # Files of images are asked about first: they have an `__fspath__`, which refuses.
    if hasattr(source, "read_at") or not isinstance(source, str | os.PathLike):
        return None
    return os.fspath(source)


def is_source(given: object) -> TypeGuard[SourceLike]:
    """Whether something is one source, and not several."""
    if isinstance(given, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(given, "read_at"):
        return True
    return hasattr(given, "read")


def open_source(given: SourceLike, storage_options: Mapping[str, Any] | None = None) -> OpenedSource:
    """The bytes of a source as they are, with nothing taken off.

    Args:
        given: See `SourceLike`.
        storage_options: What `fsspec.open` takes beside a URL; a path with any is a URL.

    Raises:
        OSError: The file can't be opened.
        RemoteError: What the URL leads to can't be read.
        DependencyMissing: The source is a URL, and fsspec or what it needs for it is not installed.
        InvalidArgument: It is none of these.
    """
    path = path_of(given)
    if path is not None:
        if storage_options is not None or is_url(path):
            remote, name = open_url(path, storage_options)
            return OpenedSource(remote, name, is_own=True)
        return OpenedSource(FileSource(path), os.path.basename(path), is_own=True)  # noqa: PTH119  # a name, not a path, is wanted
    if isinstance(given, bytes | bytearray | memoryview):
        return OpenedSource(BytesSource(given))
    if hasattr(given, "read_at"):
        return OpenedSource(as_source(cast("ReadAt", given)))
    if hasattr(given, "read") and hasattr(given, "seek"):
        return OpenedSource(FileObjectSource(cast("BinaryIO", given)))
    raise InvalidArgument(f"an image is a path, a URL, bytes, a binary file object or a ReadAt, not {given!r}")
