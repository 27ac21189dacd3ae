"""Display of progress on standard error, where that is a terminal: what is done, how much, how fast, how long yet.

Where rich is installed it draws a bar. What a command prints to the same terminal meanwhile is put above the display;
what it prints to a pipe or a file never passes through it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, TextIO, cast

from vmvisor_image.base.open_options import Progress
from vmvisor_image.faces.shared import cut

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_DOING: Final = {
    "convert": "converting",
    "extract": "extracting",
    "index": "indexing",
    "pxe": "exporting",
    "sha256": "hashing",
    "verify": "verifying",
}
"""Word for what a command does, by its name; all others decode."""
_WIDE: Final = 100
"""Columns of a terminal from which a bar is drawn at its full length."""
_RESTORED_AFTER: Final = 0.1
"""Seconds between two restorations of the display below something that was printed."""
_MEMORY: Final = 30
"""Seconds over which the rate is measured."""


def doing(run: object) -> str:
    """Word for what a command does, by the name of its function."""
    return _DOING.get(getattr(run, "__name__", "").removeprefix("run_"), "decoding")


class Display(Protocol):
    """A display of progress, called as `Progress` is."""

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` was done; None where the total is not known."""
        ...

    def phase(self, doing: str, *, for_good: bool = False) -> Progress:
        """Progress of another part of the work, which is shown in place of this one once it is called.

        Args:
            doing: Word for what is done.
            for_good: Whether this one is not shown again.
        """
        ...


@contextlib.contextmanager
def showing_progress(doing: str = "decoding", unit: str = "bytes") -> Iterator[Display | None]:
    """Display of progress; None where standard error is no terminal.

    Args:
        doing: Word for what is done.
        unit: Unit in which it is counted: "bytes", or a plural.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with contextlib.ExitStack() as stack:
        display: _Display
        try:
            display = stack.enter_context(_bar(doing, unit))
        except ImportError:
            display = _Line(doing, unit)
        stack.callback(display.end)
        if sys.stdout.isatty():
            stack.enter_context(contextlib.redirect_stdout(cast("TextIO", _Above(sys.stdout, display))))
        yield display


class _Display:
    """A display, and what is common to the two sorts of it: what is printed meanwhile stands above it."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._restored = 0.0
        """Time at which the display was last drawn below something that was printed."""
        self._has_ended = False
        self._is_replaced = False
        """Whether another part of the work is shown in place of this one for good."""

    def __call__(self, done: int, total: int | None) -> None:
        if not self._is_replaced:
            self._update(self._doing, done, total)

    def phase(self, doing: str, *, for_good: bool = False) -> Progress:
        def show(done: int, total: int | None) -> None:
            self._is_replaced = self._is_replaced or for_good
            self._update(doing, done, total)

        return show

    def _update(self, doing: str, done: int, total: int | None) -> None:
        if not self._has_ended:
            self.show(doing, done, total)

    def restore(self) -> None:
        """Draw it again below what was printed, but not below each of many lines."""
        now = time.monotonic()
        if now - self._restored >= _RESTORED_AFTER and not self._has_ended:
            self._restored = now
            self.draw()

    def end(self) -> None:
        """Remove it for good."""
        self._has_ended = True
        self.erase()

    def show(self, doing: str, done: int, total: int | None) -> None:
        """Draw it with these figures."""
        raise NotImplementedError

    def draw(self) -> None:
        """Draw it with the last figures, if there are any."""
        raise NotImplementedError

    def erase(self) -> None:
        """Remove it, until it is drawn again."""
        raise NotImplementedError


class _Bar(_Display):
    """A display by rich."""

    def __init__(self, bar: Bar, doing: str) -> None:
        super().__init__(doing)
        self._bar = bar
        self._task = bar.add_task(doing, total=None)
        self._lock = threading.Lock()

    def show(self, doing: str, done: int, total: int | None) -> None:
        """See `_Display.show`."""
        [task] = self._bar.tasks
        if task.description != doing or done < task.completed:
            self._bar.reset(self._task, description=doing)
        self._bar.update(self._task, completed=done, total=total)
        self.draw()

    def draw(self) -> None:
        """See `_Display.draw`."""
        with self._lock:
            if not self._bar.live.is_started:
                self._bar.start()

    def erase(self) -> None:
        """See `_Display.erase`."""
        with self._lock:
            if self._bar.live.is_started:
                self._bar.stop()


@contextlib.contextmanager
def _bar(doing: str, unit: str) -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    amount: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), TextColumn(unit))
    if unit == "bytes":
        amount = (DownloadColumn(), TransferSpeedColumn())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(40 if console.width >= _WIDE else 16),
        *amount,
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    # Standard output is not rich's to redirect: it would write to standard error what is meant for a pipe.
    with Bar(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        yield _Bar(bar, doing)


class _Line(_Display):
    """A display of one line, without control sequences."""

    def __init__(self, doing: str, unit: str) -> None:
        super().__init__(doing)
        self._scale: float = 1e6 if unit == "bytes" else 1
        self._unit = "MB" if unit == "bytes" else unit
        self._text = self._shown = ""
        """The last figures, and what of them is on the terminal."""
        self._samples: deque[tuple[float, int]] = deque()
        """Time in seconds, and what was done by then."""

    def show(self, doing: str, done: int, total: int | None) -> None:
        """See `_Display.show`."""
        of = f" of {total / self._scale:.0f}" if total else ""
        self._text = f"{doing} {done / self._scale:.0f}{of} {self._unit}{self._rate(done, total)}"
        self.draw()

    def draw(self) -> None:
        """See `_Display.draw`."""
        text = cut(self._text, shutil.get_terminal_size().columns - 1)
        if text != self._shown:
            self._write(f"\r{text}{' ' * (len(self._shown) - len(text))}", text)

    def erase(self) -> None:
        """See `_Display.erase`."""
        if self._shown:
            self._write(f"\r{' ' * len(self._shown)}\r", "")

    def _write(self, text: str, shown: str) -> None:
        self._shown = shown
        sys.stderr.write(text)
        sys.stderr.flush()

    def _rate(self, done: int, total: int | None) -> str:
        """Rate, and the time that is left by it; empty until there is one."""
        now = time.monotonic()
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()  # it is another part of the work
        samples.append((now, done))
        while now - samples[0][0] > _MEMORY:
            samples.popleft()
        seconds, amount = now - samples[0][0], done - samples[0][1]
        if seconds < 1 or amount <= 0:
            return ""
        left = "" if not total else f", {_minutes((total - done) * seconds / amount)} left"
        return f", {amount / seconds / self._scale:.1f} {self._unit}/s{left}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class _Above:
    """Standard output on the terminal of the display, which is removed while something is printed."""

    def __init__(self, stream: TextIO, display: _Display) -> None:
        self._stream, self._display = stream, display

    def write(self, text: str) -> int:
        """Number of characters written."""
        self._display.erase()
        written = self._stream.write(text)
        if text.endswith("\n"):
            self._stream.flush()
            self._display.restore()
        return written

    @property
    def buffer(self) -> BinaryIO:
        """The stream of bytes, which ends the display: bytes may be anything, and nothing is put between them."""
        self._display.end()
        return self._stream.buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
