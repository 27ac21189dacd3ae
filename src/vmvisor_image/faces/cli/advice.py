"""Next steps behind messages, in the words of the command line."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vmvisor_image.base.system_errors import in_words
from vmvisor_image.disk.paths import begins_with_place
from vmvisor_image.disk.tables.table import STRUCTURE, is_lost
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    NameNotFound,
    PathNotFound,
    Problem,
    SourceError,
)
from vmvisor_image.examine.signatures import PAGE
from vmvisor_image.streams.sources import descriptor_of
from vmvisor_image.streams.urls import is_url

if TYPE_CHECKING:
    from vmvisor_image.fleet import Row

_Error = TypeVar("_Error", bound=CorruptImage)
_SMALLEST_DISK = 1 << 20
"""Bytes from which on a source may be a disk with a volume on it."""
AGAIN = "it is empty: copy or download it again"
"""Next step for a source without a byte."""


def one_line(error: Exception) -> str:
    """Message of an error, with the next step on the command line."""
    text = in_words(error)
    if isinstance(error, DestinationExists) and " already" in text:
        return f"{text}; --force replaces it"
    if isinstance(error, IsADirectoryError) and (isinstance(error, SourceError) or type(error) is IsADirectoryError):
        from vmvisor_image.packages.bundle import INDEX

        if error.filename is not None and Path(error.filename, INDEX).is_file():
            return f"{error.filename}: it is a depot of packages: {command('pxe', error.filename, 'DEST')} exports it"
        return f"{text}, or read all that is in it with {command('scan', error.filename or 'FOLDER')}"
    return text


def command(name: str, source: str, *more: str) -> str:
    """A command to try with the same source; what standard input gives has to be saved for it."""
    given = "FILE" if descriptor_of(source) is not None else shlex.quote(source)
    return f"`{' '.join(['vmvisor-image', name, given, *map(shlex.quote, more)])}`"


def way_of(options: argparse.Namespace, *, devices: bool = True) -> list[str]:
    """Options given that decide which disk of the source is read, for a `command` of the same one."""
    member = getattr(options, "member", None)
    way = [] if member is None else ["--member", member]
    for device in getattr(options, "device", None) or () if devices else ():
        way += ["--device", device]
    if getattr(options, "salvage", False):
        way.append("--salvage")
    for name in ("disk", "snapshot", "parent"):
        if (given := getattr(options, name, None)) is not None:
            way += [f"--{name}", given]
    for name in ("no_parent", "allow_cid_mismatch"):
        if getattr(options, name, False):
            way.append(f"--{name.replace('_', '-')}")
    return way


def located(error: NameNotFound, source: str, options: argparse.Namespace) -> NameNotFound:
    """The same error with the command behind its message that lists what is there, unless that names something."""
    if "`vmvisor-image" in str(error) or error.similar:
        return error
    if error.below:
        step = f"{command('ls', source, error.below, *way_of(options))} lists what is there"
    elif begins_with_place(error.wanted) and not isinstance(error, PathNotFound):
        step = f"{command('info --search', source, *way_of(options, devices=False))} looks for what there is"
    elif isinstance(error, PathNotFound):
        step = f"{command('tree', source, *way_of(options))} shows all files"
    else:
        step = f"{command('info', source, *way_of(options, devices=False))} shows what each partition holds"
    return error.restated(f"{error}; {step}")


def with_step(error: _Error, step: str, message: str | None = None) -> _Error:
    """The same error with a next step behind its message, or behind another message."""
    return type(error)(
        f"{message or error.message}; {step}",
        structure=error.structure,
        offset=error.offset,
        field=error.field,
        expected=error.expected,
        found=error.found,
    )


def no_disk(
    problem: Problem, source: str, size: int | None, step: str | None = None, way: Sequence[str] = ()
) -> CorruptImage:
    """Error for an image without partitions, by its first problem, with the next step given or by `step_of`."""
    step = step or step_of(problem, source, size, way)
    return problem.error() if step is None else with_step(problem.error(), step)


def step_of(problem: Problem, source: str, size: int | None, way: Sequence[str] = ()) -> str | None:
    """Next step where a source is not a disk that is recognised; None for any other problem.

    `way` has the options that decide which disk of the source is read, see `way_of`.
    """
    if problem.structure != STRUCTURE or "`vmvisor-image" in problem.message or is_lost([problem]):
        return None
    if size == 0:
        return AGAIN
    if PAGE in problem.message:
        link = "open the address in a browser, and take the link" if is_url(source) else "look in it for the link"
        return f"{link} to the image itself"
    is_like_nothing = "most likely" not in problem.message and (size or 0) >= _SMALLEST_DISK
    if "an empty disk" in problem.message or "evenly spread" in problem.message or is_like_nothing:
        # Its start may be what is lost.
        return f"{command('info', source, '--search', *way)} looks for volumes on it"
    return f"{command('hexdump', source, *way)} shows its first bytes"


def advised(row: Row, *, is_salvaging: bool = False) -> str:
    """Message of a row, with the next step where the image is not a disk, or where more of it may be readable."""
    message = row["message"] or ""
    is_cut = "the source ends within it" in message  # nothing is behind that
    if "bzip2 block at byte" in message and not is_cut and not is_salvaging:
        return f"{message}; {command('info --salvage', row['path'])} also reads what is behind the damage"
    table, _, rest = message.partition(f"{STRUCTURE} at byte 0x0: ")
    if row["error"] != "Problem" or row["partitions"] or table:
        return message
    step = step_of(Problem(STRUCTURE, rest), row["path"], row["size"])
    return message if step is None else f"{message}; {step}"


@contextlib.contextmanager
def listed_by(listing: str) -> Iterator[None]:
    """Block in which a path that is not there is an error with the command that lists what is there."""
    try:
        yield
    except PathNotFound as error:
        if error.similar:
            raise
        raise error.restated(f"{error}; {listing} lists what is there") from error
