"""Sources at a URL, read through fsspec: only the ranges that are needed, in few requests.

fsspec is optional and is imported when the first URL is opened. An object that fsspec has as a local file anyway
(``file://``, ``simplecache::``, ``filecache::``) is read as one.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import threading
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from vmvisor_image.base.forking import restart_in_child
from vmvisor_image.base.limits import check_deadline
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.base.system_errors import opening_error
from vmvisor_image.errors import ClosedError, RemoteError, SourceChanged, SourceError
from vmvisor_image.streams.retries import NUMBER, WrongAnswer, asks_to_wait, may_pass, tried, wrong_answer
from vmvisor_image.streams.source import Source, check_range, past_end
from vmvisor_image.streams.sources import FileSource
from vmvisor_image.streams.urls import (
    address_of,
    behind_cache,
    failure_of,
    name_of,
    protocols,
    reason_of,
    refuse,
    resolve,
    step_after,
    version_of,
)
from vmvisor_image.streams.views import KeptBeside

CHUNK: Final = 1 << 16
"""Bytes that are requested, kept and dropped together; requests start and end at multiples of it."""
MOST_AHEAD: Final = 1 << 22
"""Most bytes of a request past the needed ones."""
LARGEST_REQUEST: Final = 1 << 24
"""Most bytes of one request: longer ranges take several, so that none takes so long that it times out."""
CACHE_BYTES: Final = 1 << 25
"""Bytes that are kept for each source."""
_VALIDATORS: Final = ("ETag", "Last-Modified")
"""Headers that distinguish versions of an object, the more reliable one first (RFC 9110, 8.8)."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:([0-9]{1,19})|\*)", re.IGNORECASE)
"""Value of the header Content-Range (RFC 9110, 14.4)."""
_NOTHING_AHEAD: Final = (0, 0)
_HASHED: Final = 1 << 20


class RemoteSource(Source):
    """One object of an fsspec file system as a `ReadAt`; any number of threads may read.

    Chunks are kept, and the least recently used dropped first. Where reading continues at the end of the last request,
    the next one asks for more than is needed: up to the end of the range announced by `prefetch` and no further, or
    without one twice as much each time; at most `MOST_AHEAD`.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, neighbour: str | None = None) -> None:
        """Ask for the object's size and version.

        Args:
            url: Any URL that fsspec takes, including chained ones.
            options: Further arguments of `fsspec.open`, such as credentials; ``protocol`` overrides the URL's own.
            neighbour: Name of an object beside the one at `url`, to be opened instead of it.

        Raises:
            DependencyMissing: fsspec, or a package that it needs for this protocol, is not installed.
            InvalidArgument: The protocol is not known.
            SourceNotFound: There is no such object.
            SourceIsDirectory: The object is a directory.
            RemoteError: The object can't be reached, or its size is not reported.
        """
        self.url = url
        self._options = dict(options or {})
        self._neighbour = neighbour
        fs, self.path = resolve(url, self._options, neighbour)
        self._opened_fs: Any = fs
        # fsspec's own client for browsers has no sessions, and is read like any other file system.
        self._is_http = "http" in protocols(fs) and hasattr(fs, "set_session")
        self._address = address_of(fs, url if neighbour is None else self.path)
        info = tried(self._info, asks_to_wait)
        if info.get("type") == "directory":
            raise opening_error(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._address))
        size = info.get("size")
        if not isinstance(size, int) or size < 0:
            raise RemoteError(f"{self._address}: the server does not report its size; {self._whole}")
        if info.get("partial") is False:
            raise self._without_ranges()
        self._size = size
        self._version = version_of(info)
        etag = info.get("ETag")
        # RFC 9110, 13.1.1: If-Match compares strongly, so that a weak validator never matches.
        self._strong_etag = etag if self._is_http and isinstance(etag, str) and etag.startswith('"') else None
        self._validators = _validators(info)
        """Version of the object as the server reported it, by header; each answer is compared with it."""
        self._chunks: LruCache[int, bytes] = LruCache(CACHE_BYTES, len)
        self._next = -1
        """Number of the chunk behind the last request."""
        self._ahead = 0
        """Chunks that the last request asked for past the needed ones."""
        self._announced = _NOTHING_AHEAD
        self._closed = False
        self._requesting = threading.Lock()
        """Lock held during a request, so that two threads do not request the same."""
        restart_in_child(self)

    @property
    def size(self) -> int:
        """Number of bytes, as it was when the source was opened."""
        return self._size

    @property
    def name(self) -> str:
        """Last component of the object's path."""
        return name_of(self._fs, self.path)

    @property
    def version(self) -> str | None:
        """Text from the file system that differs when the content does, such as an ETag; None where there is none."""
        return self._version

    @property
    def kept_beside(self) -> str:
        """See `Source.kept_beside`; a URL, so that data is kept in the user's cache directory."""
        return self._address

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`.

        Raises:
            RemoteError: The range could not be read.
            SourceChanged: The object has changed since it was opened.
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
        """Drop the kept chunks; later reads raise `ClosedError`. Connections belong to fsspec, which shares them."""
        self._closed = True
        self._chunks.clear()

    def start_in_child(self) -> None:
        """Forget connections after a fork: they and their thread belong to the parent."""
        self._requesting = threading.Lock()
        self._opened_fs = None  # made again when it is needed: fsspec does its own work after a fork

    @property
    def _fs(self) -> Any:
        if self._opened_fs is None:
            self._opened_fs, _ = resolve(self.url, self._options, self._neighbour)
        return self._opened_fs

    def _kept(self, first: int, last: int) -> list[bytes]:
        """Chunks from `first` on that are kept without a gap, up to `last`."""
        found = []
        for number in range(first, last + 1):
            chunk = self._chunks.get(number)
            if chunk is None:
                break
            found.append(chunk)
        return found

    def _request(self, first: int, last: int) -> list[bytes]:
        """Chunks from `first` to `last` that one request can give; it keeps these and the ones ahead of them."""
        check_deadline()
        gap = next((number for number in range(first, last + 1) if number in self._chunks), last + 1)
        needed = min(gap, first + LARGEST_REQUEST // CHUNK)
        end = needed
        if gap > last and needed == gap:
            end = min(max(needed, self._reach(first, needed)), -(-self._size // CHUNK))
        data = self._fetch(first * CHUNK, min(end * CHUNK, self._size))
        self._next, self._ahead = end, end - needed
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        for number, chunk in enumerate(chunks, first):
            self._chunks.put(number, chunk)
        return chunks[: needed - first]

    def _reach(self, first: int, needed: int) -> int:
        """Number of the chunk up to which (exclusive) a request from `first` should go; at least `needed`."""
        start, stop = self._announced
        most = MOST_AHEAD // CHUNK
        is_next = first == self._next
        if start // CHUNK <= first and first * CHUNK < stop:
            return min(-(-stop // CHUNK), needed + most) if is_next or first == start // CHUNK else needed
        return needed + min(max(2 * self._ahead, needed - first), most) if is_next else needed

    def _fetch(self, start: int, end: int) -> bytes:
        """Exactly the bytes from `start` to `end` (exclusive), by one request, retried a few times where it fails."""
        return tried(lambda: self._fetch_once(start, end), may_pass)

    def _fetch_once(self, start: int, end: int) -> bytes:
        place = f"{self._address}: bytes {start} to {end} (exclusive)"
        data: bytes
        told: Mapping[str, str] = {}
        is_certain = False
        try:
            if self._is_http:
                from fsspec.asyn import sync

                data, told, is_certain = sync(self._fs.loop, self._fetch_by_http, start, end)
            else:
                data = bytes(memoryview(self._fs.cat_file(self.path, start, end)))
        except SourceError:
            raise
        except Exception as error:  # each file system has errors of its own
            status = getattr(error, "status", None)
            if status == HTTPStatus.PRECONDITION_FAILED:
                raise self._changed("its version has changed") from error
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._check_unchanged()
            raise RemoteError(f"{place} could not be read: {failure_of(error)}; {step_after(error)}") from error
        if not is_certain or len(data) != end - start:
            self._check_unchanged()
        if len(data) != end - start:
            raise RemoteError(f"{place} were asked for, and {_counted(len(data), end - start)} came")
        self._validators = {**told, **self._validators}
        return data

    async def _fetch_by_http(self, start: int, end: int) -> tuple[bytes, Mapping[str, str], bool]:
        """Bytes received for a range, at most one too many; the answer's validators, and whether they are enough.

        fsspec's own files take any answer with status 206, or no longer than the range, as the range.
        """
        options = dict(self._fs.kwargs)
        headers = {**options.pop("headers", {}), "Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        if self._strong_etag is not None:
            headers["If-Match"] = self._strong_etag
        session = await self._fs.set_session()
        async with session.get(self._fs.encode_url(self.path), headers=headers, **options) as response:
            response.raise_for_status()
            is_certain = self._check_answer(response.status, response.headers, start, end)
            # The beginning of an answer with the whole object is enough.
            left = end - start + (response.status == HTTPStatus.PARTIAL_CONTENT or end == self._size)
            found = []
            while left and (piece := await response.content.read(left)):
                found.append(piece)
                left -= len(piece)
            return b"".join(found), _validators(response.headers), is_certain

    def _check_answer(self, status: int, headers: Any, start: int, end: int) -> bool:
        """Compare an answer with its request; returns whether it surely comes from the object that was opened.

        Raises:
            RemoteError: The answer is not the requested range.
            SourceChanged: The answer comes from another object or version.
        """
        place = f"{self._address}: bytes {start} to {end} (exclusive) were asked for"
        if status == HTTPStatus.PARTIAL_CONTENT:
            ranges = headers.getall("Content-Range", [])
            match = _CONTENT_RANGE.fullmatch(ranges[0].strip()) if len(ranges) == 1 else None
            if match is None:  # such as for several ranges in one body (RFC 9110, 15.3.7.2)
                raise wrong_answer(f"{place}, and the answer does not say which bytes it has")
            first, last = int(match[1]), int(match[2])
            total = match[3]
        elif status == HTTPStatus.OK:  # the whole object (RFC 9110, 15.3.1), which may begin with the requested range
            first, last = 0, end - 1
            length = NUMBER.fullmatch(headers.get("Content-Length", ""))
            total = None if length is None else length[0]
        else:
            raise wrong_answer(f"{place}, and the server answered {status}")
        if total is not None and int(total) != self._size:
            raise self._changed(f"it has {total} bytes now, and not {self._size}")
        told, certain = _validators(headers), total is not None
        for name in _VALIDATORS:
            known, new = self._validators.get(name), told.get(name)
            if known and new and known != new:
                raise self._changed("its version has changed")
            if known and new:
                certain = certain or name == "ETag"
                break
            if known or new:
                certain = False
        if status == HTTPStatus.OK and start:
            raise self._without_ranges() from WrongAnswer
        if (first, last) != (start, end - 1):
            raise wrong_answer(f"{place}, and the server answered with bytes {first} to {last + 1} (exclusive)")
        coding = headers.get("Content-Encoding", "").strip()
        if coding.lower() not in ("", "identity"):
            raise wrong_answer(f"{place}, and the server answered with an encoding of them ({coding})")
        return certain

    def _info(self) -> Mapping[str, Any]:
        try:
            info: Mapping[str, Any] = behind_cache(self._fs).info(self.path)
        except Exception as error:  # noqa: BLE001  # each file system has errors of its own
            refuse(self._address, error)
        return info

    def _check_unchanged(self) -> None:
        behind_cache(self._fs).invalidate_cache(self.path)
        info = self._info()
        if info.get("size") != self._size or version_of(info) != self.version:
            raise self._changed("its size or version has changed")

    def _changed(self, how: str) -> SourceChanged:
        return SourceChanged(f"{self._address}: it is no longer what was opened: {how}")

    def _without_ranges(self) -> RemoteError:
        return RemoteError(f"{self._address}: the server does not serve byte ranges; {self._whole}")

    @property
    def _whole(self) -> str:
        return f"simplecache::{self._address} reads it whole, once"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.url, self._options, self._neighbour))


def _validators(headers: Mapping[str, Any]) -> dict[str, str]:
    """Validators in headers; of an ETag the part that is compared, whether it is weak or not (RFC 9110, 8.8.3.2).

    Servers give a weak ETag for a file written in the last second, and later a strong one with the same text.
    """
    return {name: str(headers[name]).removeprefix("W/") for name in _VALIDATORS if headers.get(name)}


def _counted(found: int, wanted: int) -> str:
    return f"more than {wanted} bytes" if found > wanted else f"{found} bytes"


def open_url(
    url: str, options: Mapping[str, Any] | None = None, *, neighbour: str | None = None
) -> tuple[FileSource | RemoteSource | CachedSource, str]:
    """Source at a URL, which the caller closes, and its name; see `RemoteSource` for the arguments and errors."""
    fs, path = resolve(url, options or {}, neighbour)
    if not getattr(fs, "local_file", False):
        source = RemoteSource(url, options, neighbour=neighbour)
        return source, source.name
    try:
        with fs.open(path, "rb") as file:  # where that is a cache, this fills it
            local = FileSource(file.name)
    except Exception as error:  # noqa: BLE001  # each file system has errors of its own
        refuse(url, reason_of(fs, path, error))
    return (local if "file" in protocols(fs) else CachedSource(local, address_of(fs, url))), name_of(fs, path)


class CachedSource(KeptBeside):
    """A local copy of a remote object, about which data is kept under the object's URL."""

    def __init__(self, copy: FileSource, url: str) -> None:
        """Take the copy, which `close` closes, and the object's URL."""
        super().__init__(copy, url)
        self._copy = copy

    @functools.cached_property
    def version(self) -> str:
        """SHA-256 of the copy, in hexadecimal digits. The copy's time is only that of the copying."""
        digest = hashlib.sha256()
        for offset in range(0, self.size, _HASHED):
            digest.update(self.read_at(offset, min(_HASHED, self.size - offset)))
        return digest.hexdigest()

    def close(self) -> None:
        """Close the copy; fsspec decides when it is removed."""
        self._copy.close()


def _reopen(url: str, options: Mapping[str, Any], neighbour: str | None) -> RemoteSource:
    return RemoteSource(url, options, neighbour=neighbour)
