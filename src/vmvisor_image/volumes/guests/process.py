"""The process that reads a guest's file system, as its parent sees it: requests, answers, and bytes of the image."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from vmvisor_image.base.forking import ForkSafeLock, restart_in_child
from vmvisor_image.base.limits import check_deadline, seconds_left
from vmvisor_image.errors import ClosedError, CorruptImage, DependencyMissing, Problem, WorkerFailed
from vmvisor_image.streams.reading import read_healthy
from vmvisor_image.streams.source import Source, check_range, past_end
from vmvisor_image.volumes.guests import worker
from vmvisor_image.volumes.guests.kinds import EXTRA, library

MEMORY: Final = 2 << 30
"""Bytes of address space that the process may have; Unix only."""
SECONDS: Final = 60.0
"""Seconds that one request may take, without what it takes to read the image."""
_LARGEST_READ: Final = 64 << 20
_SECTOR: Final = 512
_NONSENSE: Final = "gave an answer that makes no sense, and was ended"
_LONGEST_MESSAGE: Final = 300
"""Characters of an error of The Sleuth Kit that are shown."""


class _Ended(Exception):
    """The process ended; or its answers make no sense, which the message then says."""


class _Running:
    """A process and its pipes, which belong to the process that started it."""

    def __init__(self) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise DependencyMissing("a guest's files are read by a process of Python, and no Python is known here")
        self._owner = os.getpid()
        self.process = subprocess.Popen(  # noqa: S603  # Python itself, with a program of this library
            [sys.executable, "-I", "-S", str(Path(worker.__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # without locks, which a fork could leave held
            env={**os.environ, "TZ": "UTC"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def send(self, message: Any, data: bytes = b"") -> None:
        pipe = self.process.stdin
        try:
            worker.send(pipe, message, data)  # type: ignore[arg-type]  # it is a pipe, and unbuffered
        except (OSError, ValueError) as error:
            raise _Ended from error

    def receive(self) -> tuple[dict[str, Any], bytes]:
        pipe = self.process.stdout
        try:
            message, data = worker.receive(pipe)  # type: ignore[arg-type]
        except (EOFError, OSError) as error:
            raise _Ended from error
        except (RecursionError, ValueError) as error:
            raise _Ended(_NONSENSE) from error
        if not isinstance(message, dict):
            raise _Ended(_NONSENSE)
        return message, data

    def end(self) -> int | None:
        """End the process, if it is still there; its status, or None in a forked child, whose process it is not."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._owner != os.getpid():
            self.process.returncode = 0  # so that nothing waits for it here
            return None
        try:
            return self.process.wait(0.2)  # it may end by itself, as its pipes are closed
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class GuestProcess:
    """A process that reads one guest's file system; started when it is first asked, and again after it failed.

    Any number of threads may ask; they are answered one after the other. A forked child starts a process of its own.
    """

    def __init__(self, source: Source, kind: str, where: str, start: int, report: Callable[[Problem], None]) -> None:
        """Start nothing yet.

        Args:
            source: Bytes of the volume.
            kind: Name of the file system's type in pytsk3.
            where: Name of the partition, for messages.
            start: Bytes from the start of the decoded disk to the volume, for messages.
            report: Called with damage of the image that the process could do without.
        """
        self._source = source
        self._kind = kind
        self._where = where
        self._start = start
        self._report = report
        self._lock = ForkSafeLock()
        self._running: _Running | None = None
        self._end: weakref.finalize[..., Any] | None = None
        self._facts: dict[str, int] = {}
        self._closed = False
        restart_in_child(self)

    @property
    def identifier(self) -> int | None:
        """Process id; None where no process runs."""
        running = self._running
        return None if running is None else running.process.pid

    def start_in_child(self) -> None:
        """See `Restartable`: the parent's process stays the parent's."""
        running, self._running, self._end = self._running, None, None
        if running is not None:
            running.end()

    def close(self) -> None:
        """End the process; it is not started again."""
        with self._lock:
            self._closed = True
            self._drop()

    def facts(self) -> dict[str, int]:
        """Number of the root directory ("root"), "block_size" in bytes and number of "blocks" of the file system.

        Raises:
            CorruptImage: The file system can't be opened.
        """
        with self._lock:
            if not self._facts:
                self._opened()
            return self._facts

    def ask(self, *request: Any) -> tuple[Any, bytes]:
        """Answer to a request.

        Raises:
            WorkerFailed: The process ended, or took too long.
            CorruptImage: What was asked for is damaged.
            ClosedError: The image was closed.
        """
        with self._lock:
            return self._exchange(self._opened(), request)

    def _opened(self) -> _Running:
        if self._closed:
            raise ClosedError("the image is closed")
        if self._running is None:
            module = library()
            if module is None:
                raise DependencyMissing(f"{self._where}: its files need a package that is not there any more: {EXTRA}")
            self._running = _Running()
            self._end = weakref.finalize(self, _Running.end, self._running)
            request = ("open", module, self._source.size, self._kind, MEMORY)
            answer, _ = self._exchange(self._running, request)
            numbers = answer if isinstance(answer, dict) else {}
            facts = {name: numbers.get(name) for name in ("root", "block_size", "blocks")}
            if not all(isinstance(value, int) and value >= 0 for value in facts.values()):
                self._drop()
                raise self._failed(_NONSENSE)
            self._facts = {name: int(value or 0) for name, value in facts.items()}
        return self._running

    def _exchange(self, running: _Running, request: tuple[Any, ...]) -> tuple[Any, bytes]:
        check_deadline()
        left = seconds_left()
        seconds = SECONDS if left is None else min(SECONDS, left)
        try:
            return self._wait_for_answer(running, {"ask": request, "seconds": seconds})
        except _Ended as ended:
            status = self._drop()
            check_deadline()  # it may be what ended it
            raise self._failed(str(ended) or _reason(status)) from None
        except CorruptImage:
            if request[0] == "open":
                self._drop()
            raise
        except BaseException:  # the process waits for what will not come
            self._drop()
            raise

    def _wait_for_answer(self, running: _Running, request: Any) -> tuple[Any, bytes]:
        running.send(request)
        damage: CorruptImage | None = None
        while True:
            message, data = running.receive()
            if "read" in message:
                found: bytes | None = None
                try:
                    found = self._read(message["read"])
                except CorruptImage as error:
                    damage = error
                if found is None:
                    running.send({"failed": True})
                else:
                    running.send({}, found)
            elif "error" in message:
                if damage is not None:
                    raise damage
                text = " ".join(str(message["error"]).split())[:_LONGEST_MESSAGE]
                raise self.bad(f"The Sleuth Kit can't read it: {text}")
            else:
                if damage is not None:
                    self._report(Problem.of(damage))
                return message.get("answer"), data

    def _read(self, wanted: Any) -> bytes:
        """Bytes that the process asks for, which are more than it needs; fewer before damage."""
        check_deadline()
        match wanted:
            case [int(offset), int(length)] if offset >= 0 and 0 <= length <= _LARGEST_READ:
                found = read_healthy(self._source, offset, length)
                # Of sectors the whole ones only: with a piece of one that is damaged it would do what can't be done.
                return found if len(found) == length else found[: len(found) - len(found) % _SECTOR]
        raise _Ended(_NONSENSE)

    def _drop(self) -> int | None:
        """End the process; its status, None where it had to be ended."""
        running, self._running = self._running, None
        if self._end is not None:
            self._end.detach()
            self._end = None
        return None if running is None else running.end()

    def bad(self, message: str) -> CorruptImage:
        """Error for what the process says, which makes no sense or tells of damage."""
        return CorruptImage(message, structure=self._where, offset=self._start)

    def _failed(self, reason: str) -> WorkerFailed:
        return WorkerFailed(f"the process that reads it {reason}", structure=self._where, offset=self._start)


def _reason(status: int | None) -> str:
    """End of a process, in words."""
    if status is None:
        return "did not end when it should"
    if status == 1:
        return f"was ended because a request took longer than {SECONDS:g} seconds, or could not start"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by the signal {signal.Signals(-status).name}"
    return f"ended by itself, with status {status}"


class ProcessContent(Source):
    """Data of a file as the process decodes it."""

    size: int = 0
    """Number of bytes."""

    def __init__(self, process: GuestProcess, token: tuple[int, int, int], size: int) -> None:
        """Read an attribute of `size` bytes; `token` is the number of its file, its type and its identifier."""
        self._process = process
        self._token = token
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        check_range(offset, length)
        if offset + length > self.size:
            raise past_end("file", offset, length, self.size)
        parts = []
        for at in range(offset, offset + length, _STEP):
            count = min(offset + length - at, _STEP)
            _, data = self._process.ask("read", *self._token, at, count)
            if len(data) != count:
                raise self._process.bad(f"{len(data)} bytes came where {count} were asked for")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


_STEP: Final = 4 << 20
"""Bytes of a file that are asked for at once."""
