"""An HTTP server that counts: requests and bytes of each object it serves."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from vmvisor_image import ReadAt
from vmvisor_image.streams.sources import FileSource

_CHUNK = 1 << 20


@dataclass
class Served:
    """One object, and what was asked of it."""

    source: ReadAt
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: Literal["yes", "ignored", "none"] = "yes"
    """Ranges are honoured, ignored without a word, or said not to be honoured."""
    tells_size: bool = True
    short_by: int = 0
    """Bytes by which an answer to a range is too short."""
    status: HTTPStatus | None = None
    """What each GET gets instead."""
    failures: int = 0
    """How many GETs are answered with `status`; 0 for all."""
    password: str | None = None
    """What the header Authorization has to hold."""
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    """Method, first byte and last byte (exclusive) of each request."""
    bytes: int = 0
    """Of all bodies, as far as they were sent."""

    @property
    def gets(self) -> int:
        return sum(method == "GET" for method, _, _ in self.requests)

    def reset(self) -> None:
        """Count anew."""
        self.requests.clear()
        self.bytes = 0


class Server:
    """Objects by name, below `url`."""

    def __init__(self, url: str, objects: dict[str, Served]) -> None:
        self.url = url
        self.objects = objects
        self.opened: list[FileSource] = []

    def serve(self, name: str, source: ReadAt | Path) -> Served:
        if isinstance(source, Path):
            source = FileSource(source)
            self.opened.append(source)
        self.objects[name] = served = Served(source)
        return served


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        assert isinstance(self.server, _CountingServer)
        served = self.server.objects.get(unquote(self.path.lstrip("/").partition("?")[0]))
        if served is None or (with_body and served.status is not None):
            status = HTTPStatus.NOT_FOUND if served is None or served.status is None else served.status
            if served is not None and served.failures:
                served.failures -= 1
                served.status = served.status if served.failures else None
            self._head(status, {"Content-Length": "0"})
            return
        if served.password is not None and served.password != self.headers.get("Authorization"):
            self._head(HTTPStatus.UNAUTHORIZED, {"Content-Length": "0"})
            return
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != served.etag:
            self._head(HTTPStatus.PRECONDITION_FAILED, {"Content-Length": "0"})
            return
        size = served.source.size
        start, end, status = 0, size, HTTPStatus.OK
        headers = {"Content-Type": "application/octet-stream", "ETag": served.etag, "Last-Modified": served.modified}
        if served.ranges == "none":
            headers["Accept-Ranges"] = "none"
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is not None and served.ranges == "yes":
            start, end = int(match[1]), min(size, int(match[2]) + 1)
            if start >= size:
                self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            end -= served.short_by
            status = HTTPStatus.PARTIAL_CONTENT
        if served.tells_size or match is not None:
            headers["Content-Length"] = str(end - start)
        served.requests.append((self.command, start, end))
        self._head(status, headers)
        if with_body:
            for at in range(start, end, _CHUNK):
                data = served.source.read_at(at, min(_CHUNK, end - at))
                served.bytes += len(data)  # before the client can have them, and look
                self.wfile.write(data)

    def _head(self, status: HTTPStatus, headers: dict[str, str] | dict[str, str | None]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


class _CountingServer(ThreadingHTTPServer):
    daemon_threads = True
    objects: dict[str, Served]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has seen enough is no error."""


@contextlib.contextmanager
def http_server() -> Iterator[Server]:
    """A server on a free port of this machine."""
    with _CountingServer(("127.0.0.1", 0), _Handler) as server:
        server.objects = {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running = Server(f"http://127.0.0.1:{server.server_port}", server.objects)
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
            for source in running.opened:
                source.close()
