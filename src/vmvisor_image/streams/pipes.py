"""Sources that are pipes: copied to a temporary file, and read from there like any file."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NoReturn, TypeVar, cast

from vmvisor_image.base.destination import FULL
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import DEFAULT_LIMITS, Limits, check_deadline, passed
from vmvisor_image.errors import ClosedError, DestinationFull, InvalidArgument, SourceError
from vmvisor_image.streams.source import Source
from vmvisor_image.streams.sources import FileObjectSource, descriptor_of, is_pipe

_Given = TypeVar("_Given")
_CHUNK: Final = 1 << 20
_PATIENCE: Final = 0.2
"""Seconds between checks of a pipe that gives nothing, so that limits and Ctrl-C take effect."""


class PipeSource(Source):
    """The data of a pipe, as a `ReadAt`: all of it is copied to a temporary file at the first access.

    An image is read at its beginning and at its end, and a pipe gives each byte once. The temporary file has no name,
    lies in Python's `tempfile.gettempdir`, and takes as much room as the data of the pipe, which is not decoded.
    """

    def __init__(self, pipe: str | os.PathLike[str] | BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        """Take a pipe, without reading from it yet.

        Args:
            pipe: A binary file object that is read to its end and left open, or the path of a descriptor that is open:
                ``/dev/stdin``, ``/dev/fd/3``.
            limits: Limits of which `decoded_bytes` is the most that is taken from the pipe.

        Raises:
            InvalidArgument: `pipe` is neither of these.
        """
        self._descriptor = descriptor_of(pipe)
        if self._descriptor is None and not hasattr(pipe, "read"):
            raise InvalidArgument(f"a pipe is a binary file object or the path of an open descriptor, not {pipe!r}")
        self._pipe = pipe
        self._limits = limits
        self._lock = ForkSafeLock()
        self._stack = contextlib.ExitStack()
        self._kept: FileObjectSource | None = None
        self._failure: Exception | None = None
        """Error that ended the copy: the bytes read until then are lost."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._copied().size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            SourceError: The pipe can't be read.
            DestinationFull: There is no room for the data of the pipe.
            LimitExceeded: The pipe gives too much, or takes too long.
        """
        return self._copied().read_at(offset, length)

    def close(self) -> None:
        """Remove the temporary file; the caller's file object stays open, later reads raise `ClosedError`."""
        with self._lock:
            self._failure = ClosedError("pipe: read after close")
            self._kept = None
            self._stack.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a pipe can't be pickled: another process would get what is left of it")

    def _copied(self) -> FileObjectSource:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._kept is None:
                try:
                    self._kept = self._copy()
                except BaseException as error:
                    self._stack.close()
                    kept = error if isinstance(error, Exception) else SourceError("pipe: its copy was interrupted")
                    self._failure = kept.with_traceback(None)
                    raise
            return self._kept

    def _copy(self) -> FileObjectSource:
        file = self._stack.enter_context(tempfile.TemporaryFile(prefix="vmvisor-image-"))  # noqa: SIM115  # it is one
        # Not for the caller's objects: their descriptor gives no sign of data in their buffer.
        waits = self._descriptor is not None and is_pipe(self._pipe) and sys.platform != "win32"
        with self._opened() as pipe:
            count = 0
            while data := _next(pipe, waits=waits):
                count += len(data)
                if count > self._limits.decoded_bytes:
                    raise passed("decoded_bytes", f"more than {self._limits.decoded_bytes} bytes come out of the pipe")
                _keep(file, data)
        return FileObjectSource(cast("BinaryIO", file))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._descriptor is None:
            yield cast("BinaryIO", self._pipe)
            return
        with io.FileIO(os.dup(self._descriptor), "rb") as pipe:
            yield cast("BinaryIO", pipe)


@contextlib.contextmanager
def taking_pipes(source: _Given, limits: Limits | None = None) -> Iterator[_Given | PipeSource]:
    """Block with a `PipeSource` where `source` is a pipe that is already open, and otherwise with `source` itself."""
    if not is_pipe(source):
        yield source
        return
    with contextlib.closing(PipeSource(cast("BinaryIO", source), limits or DEFAULT_LIMITS)) as pipe:
        yield pipe


def _next(pipe: BinaryIO, *, waits: bool) -> bytes:
    """Next bytes, none at the end; with `waits`, the operation's deadline is checked while the pipe gives nothing."""
    check_deadline()
    try:
        if waits:
            _wait(pipe)
        data: Any = pipe.read(_CHUNK)
        while data is None and waits:  # another process took the data
            _wait(pipe)
            data = pipe.read(_CHUNK)
    except OSError as error:
        failed = SourceError(f"what comes out of the pipe could not be read: {error.strerror or error}")
        failed.errno = error.errno
        raise failed from error
    if not isinstance(data, bytes):
        raise InvalidArgument(f"a pipe must be binary, and wait for what comes: its read() gave {type(data).__name__}")
    return data


def _wait(pipe: BinaryIO) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not selector.select(_PATIENCE):
            check_deadline()


def _keep(file: Any, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        if error.errno not in FULL:
            raise
        full = DestinationFull(
            f"no room in {tempfile.gettempdir()} for what comes out of the pipe: TMPDIR may name another folder"
        )
        full.errno = error.errno
        raise full from error
