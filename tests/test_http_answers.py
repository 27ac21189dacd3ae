"""Answers of HTTP servers and proxies that are not what was asked for: other bytes are never taken for the range.

RFC 9110 says what is one: 8.8.3 (entity tags), 10.2.3 (Retry-After), 13.1.1 (If-Match), 14.4 and 15.3.7 (a 206 tells
which range it has, and the client compares), 15.3.1 (a 200 is the whole).
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem

from vmvisor_image import LimitExceeded, Limits, RemoteError, SourceChanged
from vmvisor_image.streams import retries
from vmvisor_image.streams.remote import CHUNK, RemoteSource

DATA = random.Random("answers").randbytes(20 * CHUNK + 77)
OTHER = bytes(byte ^ 0x55 for byte in DATA)
SIZE = len(DATA)
LATE = 4 * CHUNK
"""Requests from this byte on are answered wrongly."""


class Answer:
    """A right answer, which a fault changes."""

    def __init__(self, first: int, end: int, *, is_range: bool) -> None:
        self.first, self.end = first, end
        self.status = 206 if is_range else 200
        self.body = DATA[first:end]
        self.headers: dict[str, str | None] = {"ETag": '"1"', "Last-Modified": "Tue, 15 Jan 2008 12:00:00 GMT"}
        if is_range:
            self.headers["Content-Range"] = f"bytes {first}-{end - 1}/{SIZE}"
        self.cut = False
        """The connection is closed after half of the body."""
        self.chunked = False

    def be_whole(self) -> None:
        """Ignore the range."""
        self.status, self.body = 200, DATA
        self.headers.pop("Content-Range", None)


Fault = Callable[[Answer], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault: ClassVar[Fault | None] = None
    head: ClassVar[Fault | None] = None
    """What changes the answers to HEAD, and to a GET without a range."""
    asked: ClassVar[list[tuple[str, dict[str, str]]]]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        cls = type(self)
        cls.asked.append((self.command, dict(self.headers)))
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, end = (int(match[1]), min(SIZE, int(match[2]) + 1)) if match else (0, SIZE)
        answer = Answer(first, end, is_range=match is not None)
        if match is None and cls.head is not None:
            cls.head(answer)
        if match is not None and cls.fault is not None and first >= LATE and self.path != "/elsewhere":
            cls.fault(answer)
        self.send_response(answer.status)
        if answer.chunked:
            answer.headers["Transfer-Encoding"] = "chunked"
        else:
            answer.headers.setdefault("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body[: len(answer.body) // 2] if answer.cut else answer.body
        if answer.chunked:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.wfile.write(body)
        self.close_connection = self.close_connection or answer.cut

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has seen enough is no error."""


@contextlib.contextmanager
def served(
    fault: Fault | None = None, head: Fault | None = None, handler: type[Handler] = Handler
) -> Iterator[tuple[str, type[Handler]]]:
    """A URL whose ranges from `LATE` on are answered with a fault, and what answers."""
    handler = type("FaultyHandler", (handler,), {"asked": []})
    # As static methods: a function in a class would be given the handler, too.
    handler.fault = None if fault is None else staticmethod(fault)
    handler.head = None if head is None else staticmethod(head)
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/data", handler
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for, which they are not."""
    found: list[float] = []
    monkeypatch.setattr(retries, "wait", found.append)
    return found


def setting(**headers: str | None) -> Fault:
    names = {name: name.replace("_", "-") for name in headers}

    def fault(answer: Answer) -> None:
        answer.headers.update({names[name]: value for name, value in headers.items()})

    return fault


def shifted(answer: Answer) -> None:
    """The range before, told rightly."""
    answer.body = DATA[answer.first - CHUNK : answer.end - CHUNK]
    answer.headers["Content-Range"] = f"bytes {answer.first - CHUNK}-{answer.end - CHUNK - 1}/{SIZE}"


def of_no_range(answer: Answer) -> None:
    shifted(answer)
    answer.headers["Content-Range"] = None


def of_nonsense(answer: Answer) -> None:
    answer.headers["Content-Range"] = "bytes 5-4/" + "9" * 5000


def of_another_version(answer: Answer) -> None:
    answer.body = OTHER[answer.first : answer.end]
    answer.headers["ETag"] = '"2"'


def of_another_time(answer: Answer) -> None:
    answer.body = OTHER[answer.first : answer.end]
    answer.headers |= {"ETag": None, "Last-Modified": "Tue, 15 Jan 2008 12:00:01 GMT"}


def of_another_size(answer: Answer) -> None:
    answer.headers["Content-Range"] = f"bytes {answer.first}-{answer.end - 1}/{SIZE + 1}"


def as_long_as_the_range(answer: Answer) -> None:
    answer.be_whole()
    answer.body = DATA[: answer.end - answer.first]


def of_several_parts(answer: Answer) -> None:
    head = f"--x\r\nContent-Range: bytes {answer.first}-{answer.end - 1}/{SIZE}\r\n\r\n".encode()
    answer.body = (head + answer.body)[: len(answer.body)]
    answer.headers |= {"Content-Type": "multipart/byteranges; boundary=x", "Content-Range": None}


def encoded(answer: Answer) -> None:
    answer.headers["Content-Encoding"] = "x-other"


def shorter(answer: Answer) -> None:
    answer.body = answer.body[:-9]


def shorter_as_told(answer: Answer) -> None:
    answer.body = answer.body[:-9]
    answer.headers["Content-Range"] = f"bytes {answer.first}-{answer.end - 10}/{SIZE}"


def longer(answer: Answer) -> None:
    answer.body += b"more"


def much_longer(answer: Answer) -> None:
    answer.body, answer.chunked = answer.body + bytes(8 << 20), True


def shorter_in_chunks(answer: Answer) -> None:
    answer.body, answer.chunked = answer.body[:-1], True


def cut_off(answer: Answer) -> None:
    answer.cut = True


def of_status(status: int) -> Fault:
    def fault(answer: Answer) -> None:
        answer.status = status

    return fault


def redirected(to: str) -> Fault:
    def fault(answer: Answer) -> None:
        answer.status, answer.body = 302, b""
        answer.headers = {"Location": to}

    return fault


def of_a_page(answer: Answer) -> None:
    answer.status, answer.body = 200, b"<html>log in</html>"
    answer.headers = {"Content-Type": "text/html"}


@pytest.mark.usefixtures("pauses")
class TestOtherThanAsked:
    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (shifted, RemoteError),
            (of_no_range, RemoteError),
            (of_nonsense, RemoteError),
            (of_another_version, SourceChanged),
            (of_another_time, SourceChanged),
            (of_another_size, SourceChanged),
            (as_long_as_the_range, SourceChanged),
            (Answer.be_whole, RemoteError),
            (of_several_parts, RemoteError),
            (encoded, RemoteError),
            (shorter, RemoteError),
            (shorter_as_told, RemoteError),
            (shorter_in_chunks, RemoteError),
            (longer, RemoteError),
            (much_longer, RemoteError),
            (cut_off, RemoteError),
            (of_status(204), RemoteError),
            (of_status(203), RemoteError),
            (of_status(416), RemoteError),
            (redirected("/data"), RemoteError),
            (of_a_page, SourceChanged),
            (setting(ETag='"2"', Last_Modified=None), SourceChanged),
        ],
    )
    def test_is_an_error(self, fault: Fault, expected: type[Exception]) -> None:
        with served(fault) as (url, handler):
            source = RemoteSource(url)
            assert source.read_at(0, LATE) == DATA[:LATE]
            with pytest.raises(expected, match="/data"):
                source.read_at(LATE + CHUNK, 2 * CHUNK)
            handler.fault = None
            assert source.read_at(LATE + CHUNK, 2 * CHUNK) == DATA[LATE + CHUNK : LATE + 3 * CHUNK]

    def test_no_more_is_read_than_was_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that sends without end keeps nobody busy."""
        monkeypatch.setattr(retries, "_PAUSES", ())
        with served(much_longer) as (url, _), pytest.raises(RemoteError, match=f"more than {CHUNK} bytes came"):
            RemoteSource(url).read_at(LATE, CHUNK)

    @pytest.mark.parametrize("told", [SIZE - CHUNK, SIZE + CHUNK, SIZE - 1])
    def test_a_size_that_the_answers_contradict(self, told: int) -> None:
        with served(head=setting(Content_Length=str(told))) as (url, _):
            source = RemoteSource(url)
            assert source.size == told
            with pytest.raises(SourceChanged, match=f"{SIZE} bytes now"):
                source.read_at(0, 10)

    def test_a_contradiction_is_not_asked_for_again(self) -> None:
        with served(shifted) as (url, handler):
            source = RemoteSource(url)
            with pytest.raises(RemoteError):
                source.read_at(LATE, 10)
            assert [method for method, _ in handler.asked] == ["HEAD", "GET"]

    def test_what_is_no_answer_is_asked_for_again(self) -> None:
        """As bytes left over from an answer that should have had none, on a connection that is used again."""

        class Garbled(Handler):
            def answer(self) -> None:
                if self.command == "GET" and not any(method == "GET" for method, _ in self.asked):
                    self.asked.append((self.command, dict(self.headers)))
                    self.wfile.write(DATA[:100].replace(b"\n", b" ") + b"\r\n\r\n")
                    self.close_connection = True
                    return
                super().answer()

        with served(handler=Garbled) as (url, handler):
            assert RemoteSource(url).read_at(LATE, 10) == DATA[LATE : LATE + 10]
            assert [method for method, _ in handler.asked] == ["HEAD", "GET", "GET"]

    def test_what_the_first_answer_told_of_the_version_counts(self) -> None:
        """HEAD tells nothing, and of two answers to GET each tells another version."""
        with served(head=setting(ETag=None, Last_Modified=None)) as (url, handler):
            source = RemoteSource(url)
            assert source.read_at(0, CHUNK) == DATA[:CHUNK]
            handler.fault = staticmethod(of_another_version)
            for _ in range(2):
                with pytest.raises(SourceChanged):
                    source.read_at(LATE + CHUNK, 10)

    def test_an_answer_without_a_version_is_asked_about(self) -> None:
        with served(setting(ETag=None, Last_Modified=None)) as (url, handler):
            source = RemoteSource(url)
            assert source.read_at(LATE, 10) == DATA[LATE : LATE + 10]
            assert [method for method, _ in handler.asked] == ["HEAD", "GET", "HEAD"]
            handler.head = staticmethod(setting(ETag='"2"'))
            with pytest.raises(SourceChanged):
                source.read_at(LATE + 5 * CHUNK, 10)


class TestAsAsked:
    @pytest.mark.parametrize(
        "fault",
        [
            None,
            setting(ETag='W/"1"'),  # of a file that was written in this second
            setting(Last_Modified="Tue, 15 Jan 2008 12:00:05 GMT"),  # of another node of a cluster
            setting(Content_Encoding="identity"),
            redirected("/elsewhere"),
            lambda answer: setattr(answer, "chunked", True),
            lambda answer: answer.headers.update(
                {"Content-Range": f"Bytes {answer.first}-{answer.end - 1}/*", "Last-Modified": None}
            ),
        ],
    )
    def test_is_read(self, fault: Fault | None) -> None:
        with served(fault) as (url, handler):
            source = RemoteSource(url)
            assert source.read_at(0, SIZE) == DATA
            assert [method for method, _ in handler.asked if method == "HEAD"] == ["HEAD"]

    @pytest.mark.parametrize("length", [512, SIZE])
    def test_the_whole_where_that_begins_with_the_range(self, length: int) -> None:
        """A server without ranges."""

        class WithoutRanges(Handler):
            asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

            def answer(self) -> None:
                del self.headers["Range"]
                super().answer()

        with served(handler=WithoutRanges) as (url, _):
            assert RemoteSource(url).read_at(0, length) == DATA[:length]


class Busy:
    """A fault for so many requests: a status, and what it says of when to ask again."""

    def __init__(self, status: int, times: int, retry_after: str | None) -> None:
        self.status, self.left, self.retry_after = status, times, retry_after

    def __call__(self, answer: Answer) -> None:
        if self.left:
            self.left -= 1
            answer.status, answer.body = self.status, b""
            answer.headers = {"Retry-After": self.retry_after}


class TestAskedAgain:
    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("retry_after", "expected"),
        [(None, [0.1, 0.4]), ("7", [7.0, 7.0]), ("0", [0.1, 0.4]), ("soon", [0.1, 0.4]), ("-1", [0.1, 0.4])],
    )
    def test_after_as_long_as_the_server_says(
        self, pauses: list[float], status: int, retry_after: str | None, expected: list[float]
    ) -> None:
        with served(Busy(status, 2, retry_after)) as (url, _):
            source = RemoteSource(url)
            assert source.read_at(LATE, 10) == DATA[LATE : LATE + 10]
        assert pauses == expected

    def test_at_a_date(self, pauses: list[float]) -> None:
        with served(Busy(429, 1, email.utils.formatdate(time.time() + 20, usegmt=True))) as (url, _):
            assert RemoteSource(url).read_at(LATE, 10) == DATA[LATE : LATE + 10]
        assert len(pauses) == 1
        assert 1 < pauses[0] <= 20

    @pytest.mark.parametrize("status", [429, 503])
    def test_when_it_is_opened(self, pauses: list[float], status: int) -> None:
        # fsspec asks by HEAD, then by GET, before it says that there is nothing.
        with served(head=Busy(status, 4, "3")) as (url, _):
            assert RemoteSource(url).size == SIZE
        assert pauses == [3, 3]

    @pytest.mark.parametrize("status", [429, 503])
    def test_but_not_for_ever(self, pauses: list[float], status: int) -> None:
        with served(Busy(status, 99, None)) as (url, _):
            source = RemoteSource(url)
            with pytest.raises(RemoteError, match=str(status)):
                source.read_at(LATE, 10)
        assert pauses == [0.1, 0.4]

    def test_not_after_a_very_long_time(self, pauses: list[float]) -> None:
        for retry_after in ("3600", "9" * 18):
            with served(Busy(429, 99, retry_after)) as (url, _):
                source = RemoteSource(url)
                with pytest.raises(RemoteError, match="429"):
                    source.read_at(LATE, 10)
        assert pauses == []

    def test_not_past_the_time_of_the_operation(self) -> None:
        with served(Busy(429, 99, "29")) as (url, _):
            source = RemoteSource(url)
            with Limits(seconds=20).operation(), pytest.raises(LimitExceeded):
                source.read_at(LATE, 10)


class OddFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system whose answers are not what was asked for."""

    protocol = "odd"
    answer: ClassVar[Callable[[int, int], Any]]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:  # fsspec's signature
        return {"name": path, "size": SIZE, "type": "directory" if path.endswith("folder") else "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        return type(self).answer(start or 0, SIZE if end is None else end)


@pytest.mark.usefixtures("pauses")
class TestOfOtherFileSystems:
    @pytest.fixture(autouse=True)
    def _registered(self) -> None:
        fsspec.register_implementation("odd", OddFileSystem, clobber=True)

    @pytest.mark.parametrize(
        "answer",
        [
            lambda start, end: DATA[start : end - 1],
            lambda start, end: DATA[start : end + 1],
            lambda _start, _end: b"",
            lambda _start, _end: DATA,
            lambda _start, _end: None,
            lambda start, end: end - start,
            lambda start, end: "x" * (end - start),
        ],
    )
    def test_another_length_is_an_error(self, answer: Callable[[int, int], Any]) -> None:
        OddFileSystem.answer = staticmethod(answer)
        with pytest.raises(RemoteError, match="odd://data"):
            RemoteSource("odd://data").read_at(CHUNK, 10)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_of_any_type_are_read(self, kind: Callable[[bytes], Any]) -> None:
        OddFileSystem.answer = staticmethod(lambda start, end: kind(DATA[start:end]))
        assert RemoteSource("odd://data").read_at(CHUNK, 10) == DATA[CHUNK : CHUNK + 10]

    def test_a_folder_is_no_image(self) -> None:
        with pytest.raises(IsADirectoryError, match="odd://a/folder"):
            RemoteSource("odd://a/folder")
