"""Sources behind a URL, read through fsspec: only the ranges that are needed, in few requests.

fsspec is optional and is imported when the first URL is opened. What fsspec has as a local file anyway (``file://``,
``simplecache::``, ``filecache::``) is read as one.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote

from vmvisor_image.errors import (
    ClosedError,
    DependencyMissing,
    InvalidArgument,
    RemoteError,
    SourceChanged,
    VmvisorImageError,
)
from vmvisor_image.forking import restart_in_child
from vmvisor_image.limits import check_deadline
from vmvisor_image.streams import FileSource, KeptBeside, check_range, past_end

CHUNK: Final = 1 << 16
"""Bytes that are requested, kept and dropped together; requests start and end at multiples of it."""
MOST_AHEAD: Final = 1 << 22
"""Bytes of a request past what is needed, at most."""
LARGEST_REQUEST: Final = 1 << 24
"""Bytes of one request: more are read by several, so that none takes so long that it times out."""
CACHE_BYTES: Final = 1 << 25
"""Bytes that are kept of one source."""
_VERSION_KEYS: Final = (
    "ETag",
    "etag",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "mtime",
    "generation",
    "md5Hash",
)
"""What file systems say of an object and that differs when its content does."""
_GONE: Final = (404, 410)
_PRECONDITION_FAILED: Final = 412
_SERVER_FAILED: Final = 500
_PAUSES: Final = (0.1, 0.4)
"""Seconds before a request that failed is made again."""
_NOTHING_AHEAD: Final = (0, 0)


def is_url(text: str) -> bool:
    """Whether a source is a URL, chained or not, and no path."""
    return "://" in text


class RemoteSource:
    """One object of an fsspec file system as a `ReadAt`; any number of threads may read.

    Chunks are kept, the least recently used dropped first. Where reading goes on at the end of what was requested last,
    more is requested than is needed: up to the end of what `prefetch` announced and no further, else twice as much each
    time; at most `MOST_AHEAD`.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, neighbour: str | None = None) -> None:
        """Ask for the object's size and version.

        Args:
            url: Any URL that fsspec takes, chained ones too.
            options: What `fsspec.open` takes beside it, such as credentials; ``protocol`` overrides the URL's own.
            neighbour: Name of an object beside the one that `url` leads to, which is meant instead.

        Raises:
            DependencyMissing: fsspec, or what it needs for this protocol, is not installed.
            InvalidArgument: The protocol is not known.
            FileNotFoundError: There is no such object.
            RemoteError: It can't be reached, or its size is not told.
        """
        self.url = url
        self._options = dict(options or {})
        self._neighbour = neighbour
        fs, self.path = _resolve(url, self._options, neighbour)
        self._opened_fs: Any = fs
        self._is_http = "http" in _protocols(fs)
        self._address = _address(fs, url if neighbour is None else self.path)
        info = self._info()
        size = info.get("size")
        if not isinstance(size, int) or size < 0:
            raise RemoteError(f"{self._address}: the server does not tell its size; {self._whole}")
        if info.get("partial") is False:
            raise self._without_ranges()
        self._size = size
        self.version: str | None = _version(info)
        """What the file system says that differs when the content does, such as an ETag; None where it says nothing."""
        etag = info.get("ETag")
        # RFC 9110, 13.1.1: If-Match compares strongly, so that a weak validator never matches.
        self._strong_etag = etag if self._is_http and isinstance(etag, str) and etag.startswith('"') else None
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._next = -1
        """Chunk behind the last request."""
        self._ahead = 0
        """Chunks that the last request asked for past what was needed."""
        self._announced = _NOTHING_AHEAD
        self._closed = False
        self._lock = threading.Lock()
        """Guards what is kept; held only for moments."""
        self._requesting = threading.Lock()
        """Held during a request, so that two threads do not request the same."""
        restart_in_child(self)

    @property
    def size(self) -> int:
        """Number of bytes, as it was when the source was opened."""
        return self._size

    @property
    def name(self) -> str:
        """The last component of its path."""
        return _name(self._fs, self.path)

    @property
    def kept_beside(self) -> str:
        """See `FileSource.kept_beside`; a URL, so that things are kept in the user's cache folder."""
        return self._address

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            RemoteError: The range could not be read.
            SourceChanged: The object is another one by now.
        """
        check_range(offset, length)
        if offset + length > self._size:
            raise past_end(self._address, offset, length, self._size)
        if not length:
            return b""
        if self._closed:
            raise ClosedError(f"{self._address}: read after close")
        first, last = offset // CHUNK, (offset + length - 1) // CHUNK
        found: list[bytes] = []
        while first <= last:
            kept = self._kept(first, last)
            if not kept:
                with self._requesting:
                    kept = self._kept(first, last) or self._request(first, last)
            found += kept
            first += -(-sum(map(len, kept)) // CHUNK)
        data = b"".join(found)
        return data[offset % CHUNK :][:length]

    def prefetch(self, offset: int, length: int) -> None:
        """Announce that a range will be read: requests in it reach ahead, up to its end and no further."""
        self._announced = (offset, offset + length)

    def close(self) -> None:
        """Drop what is kept; later reads raise `ClosedError`. Connections are fsspec's, which shares them."""
        with self._lock:
            self._closed = True
            self._chunks.clear()

    def start_in_child(self) -> None:
        """After a fork: connections and their thread are the parent's."""
        self._lock, self._requesting = threading.Lock(), threading.Lock()
        self._opened_fs = None  # made anew when it is needed: fsspec has its own work to do after a fork

    @property
    def _fs(self) -> Any:
        if self._opened_fs is None:
            self._opened_fs, _ = _resolve(self.url, self._options, self._neighbour)
        return self._opened_fs

    def _kept(self, first: int, last: int) -> list[bytes]:
        """The chunks from `first` on as far as they are kept without a gap."""
        found = []
        with self._lock:
            for number in range(first, last + 1):
                chunk = self._chunks.get(number)
                if chunk is None:
                    break
                self._chunks.move_to_end(number)
                found.append(chunk)
        return found

    def _request(self, first: int, last: int) -> list[bytes]:
        """The chunks from `first` to `last` as far as one request goes, which keeps them and those ahead."""
        check_deadline()
        with self._lock:
            gap = next((number for number in range(first, last + 1) if number in self._chunks), last + 1)
        needed = min(gap, first + LARGEST_REQUEST // CHUNK)
        end = needed
        if gap > last and needed == gap:
            end = min(max(needed, self._reach(first, needed)), -(-self._size // CHUNK))
        data = self._fetch(first * CHUNK, min(end * CHUNK, self._size))
        self._next, self._ahead = end, end - needed
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        with self._lock:
            for number, chunk in enumerate(chunks, first):
                self._chunks[number] = chunk
                self._chunks.move_to_end(number)
            while len(self._chunks) > CACHE_BYTES // CHUNK:
                self._chunks.popitem(last=False)
        return chunks[: needed - first]

    def _reach(self, first: int, needed: int) -> int:
        """The chunk up to which a request from `first` that has to reach `needed` should go."""
        start, stop = self._announced
        most = MOST_AHEAD // CHUNK
        is_next = first == self._next
        if start // CHUNK <= first and first * CHUNK < stop:
            return min(-(-stop // CHUNK), needed + most) if is_next or first == start // CHUNK else needed
        return needed + min(max(2 * self._ahead, needed - first), most) if is_next else needed

    def _fetch(self, start: int, end: int) -> bytes:
        """Exactly the bytes from `start` to `end` (exclusive), by one request or, where that fails, a few."""
        for pause in _PAUSES:
            try:
                return self._fetch_once(start, end)
            except RemoteError as error:
                cause = error.__cause__
                if isinstance(cause, _NoRanges) or getattr(cause, "status", _SERVER_FAILED) < _SERVER_FAILED:
                    raise  # the server has understood, and will say the same again
            time.sleep(pause)
            check_deadline()
        return self._fetch_once(start, end)

    def _fetch_once(self, start: int, end: int) -> bytes:
        place = f"{self._address}: bytes {start} to {end} (exclusive)"
        try:
            data = self._fetch_by_http(start, end) if self._is_http else self._fs.cat_file(self.path, start, end)
        except ValueError as error:
            if self._is_http and "range" in str(error):
                raise self._without_ranges() from _NoRanges(str(error))
            raise RemoteError(f"{place} could not be read: {error}") from error
        except Exception as error:  # each file system has errors of its own
            if getattr(error, "status", None) == _PRECONDITION_FAILED:
                raise self._changed() from error
            raise RemoteError(f"{place} could not be read: {_told(error)}") from error
        if self._strong_etag is None or len(data) != end - start:
            self._check_unchanged()
        if len(data) != end - start:
            raise RemoteError(f"{place} were asked for, and {len(data)} bytes came")
        return bytes(data)

    def _fetch_by_http(self, start: int, end: int) -> bytes:
        """By a file that keeps nothing: unlike `cat_file` it reads no whole body where the server ignores the range."""
        headers = {**self._fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if self._strong_etag is not None:
            headers["If-Match"] = self._strong_etag
        options = {"size": self._size, "cache_type": "none", "block_size": CHUNK, "headers": headers}
        with self._fs.open(self.path, "rb", **options) as file:
            file.seek(start)
            data: bytes = file.read(end - start)
        return data

    def _info(self) -> Mapping[str, Any]:
        try:
            info: Mapping[str, Any] = _behind_cache(self._fs).info(self.path)
        except Exception as error:  # noqa: BLE001  # each file system has errors of its own
            _refuse(self._address, error)
        return info

    def _check_unchanged(self) -> None:
        _behind_cache(self._fs).invalidate_cache(self.path)
        info = self._info()
        if info.get("size") != self._size or _version(info) != self.version:
            raise self._changed()

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self._address}: it is no longer what was opened: its size or version has changed")

    def _without_ranges(self) -> RemoteError:
        return RemoteError(f"{self._address}: the server gives no ranges of bytes; {self._whole}")

    @property
    def _whole(self) -> str:
        return f"simplecache::{self._address} reads it whole, once"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.url, self._options, self._neighbour))


class _NoRanges(Exception):
    """What fsspec says where a server ignores the range that was asked for."""


def open_url(
    url: str, options: Mapping[str, Any] | None = None, *, neighbour: str | None = None
) -> tuple[FileSource | RemoteSource | CachedSource, str]:
    """What a URL leads to, which the caller closes, and its name; see `RemoteSource` for the arguments and errors."""
    fs, path = _resolve(url, options or {}, neighbour)
    if not getattr(fs, "local_file", False):
        source = RemoteSource(url, options, neighbour=neighbour)
        return source, source.name
    try:
        with fs.open(path, "rb") as file:  # where that is a cache, this fills it
            local = FileSource(file.name)
    except Exception as error:  # noqa: BLE001  # each file system has errors of its own
        _refuse(url, _reason(fs, path, error))
    return (local if "file" in _protocols(fs) else CachedSource(local, _address(fs, url))), _name(fs, path)


class CachedSource(KeptBeside):
    """A local copy of a remote object: what is kept about it is kept by its URL."""

    def __init__(self, copy: FileSource, url: str) -> None:
        """Take the copy, which `close` closes, and the URL."""
        super().__init__(copy, url)
        self._copy = copy

    def close(self) -> None:
        """Close the copy; fsspec decides when it is removed."""
        self._copy.close()


def _reopen(url: str, options: Mapping[str, Any], neighbour: str | None) -> RemoteSource:
    return RemoteSource(url, options, neighbour=neighbour)


def _resolve(url: str, options: Mapping[str, Any], neighbour: str | None) -> tuple[Any, str]:
    """The file system and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DependencyMissing(
            f"{url}: URLs are read through fsspec, which is not installed: pip install 'vmvisor-image[fsspec]'"
        ) from error
    try:
        fs, path = url_to_fs(url, **options)
    except ImportError as error:
        hint = ": pip install 'vmvisor-image[fsspec]'" if getattr(error.__cause__, "name", None) == "aiohttp" else ""
        raise DependencyMissing(f"{url}: {error}{hint}") from error
    except ValueError as error:
        raise InvalidArgument(f"{url}: {error}") from error
    if neighbour is not None:
        is_http = "http" in _protocols(_behind_cache(fs))
        folder = (path.partition("?")[0] if is_http else path).rpartition("/")[0]
        path = f"{folder}/{quote(neighbour, safe='') if is_http else neighbour}"
    return fs, path


def _name(fs: Any, path: str) -> str:
    last = path.rstrip("/").rpartition("/")[2]
    return unquote(last.partition("?")[0].partition("#")[0]) if "http" in _protocols(_behind_cache(fs)) else last


def _protocols(fs: Any) -> tuple[str, ...]:
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _behind_cache(fs: Any) -> Any:
    """What a file system of fsspec's that caches blocks reads from: it tells nothing of an object itself."""
    from fsspec.implementations.cached import CachingFileSystem

    return fs.fs if isinstance(fs, CachingFileSystem) else fs


def _address(fs: Any, path: str) -> str:
    return path if is_url(path) else f"{_protocols(fs)[0]}://{path}"


def _version(info: Mapping[str, Any]) -> str | None:
    found = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
    return "; ".join(found) or None


def _told(error: BaseException) -> str:
    status = getattr(error, "status", None)
    if status is None:
        return str(error) or type(error).__name__
    # aiohttp's errors: 0 where it never came to an answer, as when redirects lead in a circle.
    return f"the server answered {status} {getattr(error, 'message', '')}".rstrip() if status else type(error).__name__


def _reason(fs: Any, path: str, error: Exception) -> Exception:
    """Why it can't be opened: fsspec's caches say of every failure that the file is not there."""
    if isinstance(error, FileNotFoundError):
        try:
            _behind_cache(fs).info(path)
        except Exception as reason:  # noqa: BLE001  # each file system has errors of its own
            return reason
    return error


def _refuse(url: str, error: Exception) -> NoReturn:
    """Raise what an object that can't be opened means."""
    if isinstance(error, VmvisorImageError):
        raise error
    cause = error.__cause__
    # fsspec says of every failure of HTTP that the file is not there, and what happened in the cause.
    if isinstance(error, FileNotFoundError) and (cause is None or getattr(cause, "status", None) in _GONE):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    if isinstance(error, IsADirectoryError | PermissionError):
        raise error
    raise RemoteError(f"{url}: it can't be opened: {_told(cause or error)}") from error
