"""URLs as fsspec resolves them: file system, path, name and version of an object, and the meaning of its errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote

from vmvisor_image.base.system_errors import opening_error
from vmvisor_image.errors import DependencyMissing, InvalidArgument, RemoteError, VmvisorImageError

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
"""Keys under which file systems report values that differ when the content of an object does."""
_GONE: Final = (404, 410)


def is_url(text: str) -> bool:
    """Whether a text is a URL, chained or not, rather than a path."""
    return "://" in text


def resolve(url: str, options: Mapping[str, Any], neighbour: str | None) -> tuple[Any, str]:
    """File system of a URL and path in it, or of the object with the name `neighbour` beside it."""
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
        path = _beside(path, neighbour, is_http="http" in protocols(behind_cache(fs)))
    return fs, path


def neighbour_url(url: str, name: str) -> str:
    """URL of the object with the name `name` beside the one at `url`, in the same chain of file systems."""
    parts = url.split("::")
    at = next((number for number, part in enumerate(parts) if is_url(part)), 0)
    parts[at] = _beside(parts[at], name, is_http=parts[at].lower().startswith(("http://", "https://")))
    return "::".join(parts)


def _beside(path: str, name: str, *, is_http: bool) -> str:
    """Path or URL of an object beside another one; for HTTP without its query and fragment."""
    if is_http:
        path, name = re.split(r"[?#]", path)[0], quote(name, safe="")
    return f"{path.rpartition('/')[0]}/{name}"


def name_of(fs: Any, path: str) -> str:
    """Name of an object without its directory; for HTTP, without query and fragment and unquoted."""
    last = path.rstrip("/").rpartition("/")[2]
    return unquote(last.partition("?")[0].partition("#")[0]) if "http" in protocols(behind_cache(fs)) else last


def protocols(fs: Any) -> tuple[str, ...]:
    """Names of the protocols that a file system is registered for."""
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def behind_cache(fs: Any) -> Any:
    """File system behind one of fsspec's that caches blocks, which itself reports nothing about an object."""
    from fsspec.implementations.cached import CachingFileSystem

    return fs.fs if isinstance(fs, CachingFileSystem) else fs


def address_of(fs: Any, path: str) -> str:
    """URL of an object, for messages."""
    return path if is_url(path) else f"{protocols(fs)[0]}://{path}"


def version_of(info: Mapping[str, Any]) -> str | None:
    """Text of all values in `info` that differ when the object's content does; None where there are none."""
    found = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
    return "; ".join(found) or None


def failure_of(error: BaseException) -> str:
    """Reason of a failed request, in words."""
    status = getattr(error, "status", None)
    if status is None:
        return str(error) or type(error).__name__
    # aiohttp's errors have status 0 where there was no final answer, as when redirects form a loop.
    return f"the server answered {status} {getattr(error, 'message', '')}".rstrip() if status else type(error).__name__


def step_after(error: BaseException) -> str:
    """Next step for the user after a failed request."""
    refused = getattr(error, "status", None) in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return "check the URL and your credentials" if refused else "check the URL and the connection"


def reason_of(fs: Any, path: str, error: Exception) -> Exception:
    """Error that explains why a path can't be opened: fsspec's caches report every failure as a missing file."""
    if isinstance(error, FileNotFoundError):
        try:
            behind_cache(fs).info(path)
        except Exception as reason:  # noqa: BLE001  # each file system has errors of its own
            return reason
    return error


def refuse(url: str, error: Exception) -> NoReturn:
    """Raise the error for an object that can't be opened."""
    if isinstance(error, VmvisorImageError):
        raise error
    cause = error.__cause__
    # fsspec reports every failure of HTTP as a missing file; the cause of its error has the reason.
    if isinstance(error, FileNotFoundError) and (cause is None or getattr(cause, "status", None) in _GONE):
        raise opening_error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)) from error
    if isinstance(error, IsADirectoryError | PermissionError):
        raise opening_error(error, url) from error
    reason = cause or error
    raise RemoteError(f"{url}: it can't be opened: {failure_of(reason)}; {step_after(reason)}") from error
