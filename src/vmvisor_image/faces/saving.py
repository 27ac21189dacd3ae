"""The browser's dialogue that writes a file, a directory or a partition to a path."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from vmvisor_image.base.limits import Meter
from vmvisor_image.base.names import printable
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import (
    DestinationExists,
    InvalidArgument,
    NotAFileSystem,
    PartialExtraction,
    VmvisorImageError,
)
from vmvisor_image.files.extraction import write_files
from vmvisor_image.files.file import Directory, Extent, File
from vmvisor_image.streams.source import Source

_MOST_FAILED = 10
"""Files that could not be written, of which each is listed."""


class _PathField(Input):
    """The field for the path, whose key is named at the bottom of the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "Save")]


class SaveScreen(ModalScreen[None]):
    """A dialogue that asks for a path, writes to it, and says what was written and what is damaged.

    What is there already is replaced only when the same path is confirmed a second time.
    """

    CSS = """
    SaveScreen { align: center middle; }
    SaveScreen > Vertical { width: 90%; max-width: 100; height: auto; max-height: 80%; padding: 0 1; }
    SaveScreen > Vertical { border: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close")]

    def __init__(self, place: Partition | Directory | File) -> None:
        """The dialogue for one place; it begins with a name in the working directory."""
        super().__init__()
        self._place = place
        self._taken: Path | None = None
        """Path at which something was found that would have to be replaced."""
        self._is_writing = False
        self._is_done = False

    def compose(self) -> ComposeResult:
        """Widgets of the dialogue."""
        with Vertical():
            yield Static(_title(self._place))
            yield _PathField(default_name(self._place))
            yield Static(id="outcome")
        yield Footer()

    def on_input_changed(self) -> None:
        """Forget the outcome for another path."""
        if not self._is_writing:
            self._taken, self._is_done = None, False
            self._say("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Write to the path; close the dialogue where that is done."""
        if self._is_done:
            self.dismiss()
        elif not self._is_writing and event.value.strip():
            path = Path(event.value.strip()).expanduser()
            self._is_writing = True
            self._say("writing …")
            self.run_worker(partial(self._write, path, overwrite=path == self._taken), thread=True)

    def action_close(self) -> None:
        """Close the dialogue, unless something is being written."""
        if not self._is_writing:
            self.dismiss()

    def _write(self, path: Path, *, overwrite: bool) -> None:
        taken, done = None, False
        try:
            written = save(self._place, path, overwrite=overwrite)
            outcome, done = Text(f"{_count(written)} written to {printable(str(path))}; enter closes this"), True
        except DestinationExists as error:
            again = "" if overwrite else "\nenter again: replace the files that are already there"
            outcome, taken = Text(f"! {printable(str(error))}{again}", "bold red"), None if overwrite else path
        except PartialExtraction as error:
            outcome, done = _partial(error), True
        except (VmvisorImageError, OSError) as error:
            outcome = Text(f"! {printable(str(error))}", "bold red")
        self.app.call_from_thread(self._finish, outcome, taken, done)

    def _finish(self, outcome: Text, taken: Path | None, done: bool) -> None:
        self._is_writing, self._taken, self._is_done = False, taken, done
        self._say(outcome)

    def _say(self, text: str | Text) -> None:
        self.query_one("#outcome", Static).update(text)


def save(place: Partition | Directory | File, path: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write a file, all files of a directory or partition, or the bytes of a partition without files.

    Args:
        place: What is written.
        path: Path of the file, or of the directory that files are written to. Into a directory that is there, a file is
            written under its own name.
        overwrite: Replace files that are already there.

    Returns:
        Paths of the files written.

    Raises:
        DestinationExists: A file is already there and `overwrite` is False, or something else is in the way.
        DestinationFailed: The destination can't be written.
        PartialExtraction: Some files are damaged; the others were written.
        LimitExceeded: The files are too large or too many.
    """
    file = _written(place)
    if isinstance(file, Directory):
        return file.extract(path, overwrite=overwrite)
    target = path / default_name(place) if path.is_dir() else path
    if target.name in ("", ".."):
        raise InvalidArgument(f"{path} is not the path of a file")
    meter = file.meter
    most = None if meter is None else meter.limits.extracted_bytes
    return write_files([(target.name, file)], target.parent, overwrite=overwrite, most_bytes=most)


def default_name(place: Partition | Directory | File) -> str:
    """Name to write to, without a path."""
    name = (place.label or f"partition-{place.key}") if isinstance(place, Partition) else place.name
    safe = printable(name).replace("/", "_").replace("\\", "_").strip(". ")
    return f"{safe}.img" if isinstance(place, Partition) and isinstance(_written(place), File) else safe or "saved"


class _Bytes:
    """Home of the one file that a partition without files is written as."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    @property
    def disk(self) -> Source:
        return self._partition.disk

    @property
    def meter(self) -> Meter:
        return self._partition.meter

    @property
    def local_paths(self) -> tuple[str, ...]:
        return self._partition.local_paths

    def locate(self, token: object) -> tuple[Extent, ...]:  # noqa: ARG002  # there is one file
        return (Extent(self._partition.start, self._partition.size),)


def _written(place: Partition | Directory | File) -> Directory | File:
    """Directory or file that is written: of a partition its root, or its bytes where it has no files."""
    if not isinstance(place, Partition):
        return place
    try:
        return place.files.root
    except NotAFileSystem:
        return File(_Bytes(place), place.label or "", place.size, None, None)


def _title(place: Partition | Directory | File) -> Text:
    written = _written(place)
    what = f"partition {place.key}" if isinstance(place, Partition) else printable(place.path or "/")
    if isinstance(written, Directory):
        return Text(f"Save the files of {what} in the directory:")
    return Text(f"Save {what} ({written.size:,} bytes) as the file:")


def _count(paths: tuple[Path, ...]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths):,} files"


def _partial(error: PartialExtraction) -> Text:
    """Words for an extraction of which files are missing: how many were written, and what the others suffer from."""
    lines = [f"{_count(error.written)} written; damaged, and not written:"]
    lines += [f"! {path}: {reason}" for path, reason in error.failed[:_MOST_FAILED]]
    if len(error.failed) > _MOST_FAILED:
        lines.append(f"! {len(error.failed) - _MOST_FAILED:,} more")
    return Text("\n".join(printable(line) for line in lines), "bold red")
