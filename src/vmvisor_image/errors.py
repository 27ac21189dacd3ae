"""Errors and problems: one base, two families.

The families are *misuse by the caller* (`UsageError`) and *bad input* (`CorruptImage`). Two further errors are
`SourceError`, for input that can't be read at all, and `LimitExceeded`, for work that would cost too much.
All also subclass the builtin exception that a caller would expect, so that ``except KeyError`` or ``except
FileNotFoundError`` just works; those that are an OSError for one reason only have its `errno`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Self

_MOST_NAMES: Final = 500
"""Largest number of names among which similar ones are looked for."""
_LONGEST_NAME: Final = 255
"""Characters of the longest name that is looked at for that."""
_MOST_SIMILAR: Final = 3


class VmvisorImageError(Exception):
    """Base of every error this library raises on purpose."""

    def __new__(cls, *args: Any, **_given: Any) -> Self:
        """Object of the right layout, whichever builtin errors the class has as bases."""
        # Of two builtin bases the first one's `__new__` may not be the right one; tblib, which dask imports, calls it.
        base: Any = cls
        while base.__module__ != "builtins":
            base = base.__base__  # which decides how its objects lie in memory
        made: Self = base.__new__(cls, *args)
        return made

    def __str__(self) -> str:
        # KeyError.__str__ shows the repr of its argument; a message should read the same everywhere.
        return str(self.args[0]) if self.args else ""


class UsageError(VmvisorImageError):
    """The call is wrong: an argument, a name, a destination."""


class InvalidArgument(UsageError, ValueError):
    """An argument is outside what the call accepts."""


class ReadOnly(InvalidArgument, OSError):
    """Writing to an image was requested; images are never written."""

    errno = errno.EROFS


class ClosedError(UsageError, ValueError):
    """The image or stream was closed before it was read."""


class NameNotFound(UsageError, KeyError):
    """There is nothing of the name that was asked for; the text names what is similar.

    Similar names are looked for when the text is made, and only among the first few hundred that are there.
    """

    wanted: str = ""
    names: tuple[str, ...] = ()
    below: str = ""
    elsewhere: tuple[str, ...] = ()

    def __init__(
        self, *args: object, wanted: str = "", names: Iterable[str] = (), below: str = "", elsewhere: Iterable[str] = ()
    ) -> None:
        """Error with a message.

        Args:
            *args: The message.
            wanted: Name that was asked for.
            names: Names that are there.
            below: Path that each of `names` has in front, with its slash.
            elsewhere: Paths of what has the name, in other places.
        """
        super().__init__(*args)
        self.wanted = wanted[:_LONGEST_NAME]
        self.names = tuple(name for name in islice(names, _MOST_NAMES) if len(name) <= _LONGEST_NAME)
        self.below = below
        self.elsewhere = tuple(islice(elsewhere, _MOST_SIMILAR))

    @property
    def similar(self) -> tuple[str, ...]:
        """Names or paths that are there and like the one that was asked for, best first; at most three."""
        from difflib import get_close_matches

        names = {name.casefold(): name for name in reversed(self.names)}
        close = get_close_matches(self.wanted.casefold(), names, _MOST_SIMILAR)
        found = dict.fromkeys([*self.elsewhere, *(self.below + names[name] for name in close)])
        return tuple(found)[:_MOST_SIMILAR]

    def restated(self, message: str, *, prefix: str = "", elsewhere: Iterable[str] = ()) -> Self:
        """The same error with another message: of a path that has `prefix` in front."""
        found = (*self.elsewhere, *elsewhere)
        return type(self)(
            message,
            wanted=self.wanted,
            names=self.names,
            below=prefix + self.below,
            elsewhere=[prefix + path for path in found],
        )

    def __str__(self) -> str:
        text, similar = super().__str__(), self.similar
        if not similar:
            return text
        *others, last = map(repr, similar)
        return f"{text}; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


class PartitionNotFound(NameNotFound):
    """No partition has that number or label."""


class PathNotFound(NameNotFound, FileNotFoundError):
    """No file or directory of the volume has that path."""

    errno = errno.ENOENT


class NotAFileSystem(UsageError, NotADirectoryError):
    """Files were requested from a partition that holds no file system this library reads."""

    errno = errno.ENOTDIR


class MemberNotFound(NameNotFound):
    """The container holds no member of the requested name."""


class KeyUnavailable(UsageError):
    """Encrypted content can't be read: its key is not available, or the wrong one was given."""


class DependencyMissing(UsageError, ImportError):
    """The call needs a package that is not installed; the message names the extra that brings it."""


class NotADirectory(UsageError, NotADirectoryError):
    """A file was used as a directory."""

    errno = errno.ENOTDIR


class NotAFile(UsageError, IsADirectoryError):
    """A directory was used as a file."""

    errno = errno.EISDIR


class NoLocalPath(UsageError, TypeError):
    """A file or directory of an image was used as a path of the operating system, which it is not."""


class DestinationExists(UsageError, FileExistsError):
    """Writing would replace something that is already there."""

    errno = errno.EEXIST


class DestinationFailed(UsageError, OSError):
    """A destination can't be written: its directory is gone or read-only, or the system fails; see its `errno`."""


class DestinationFull(DestinationFailed):
    """The destination has no room left; files written before are whole."""


class SourceError(VmvisorImageError, OSError):
    """Bytes of a source could not be read, whose range the message names, or a source could not be opened."""

    filename: Any = None  # unlike OSError's own, it survives pickling


class SourceNotFound(SourceError, FileNotFoundError):
    """There is no file at the path, or no object at the URL, of a source; the message names a similar file.

    This error and those of a source that is a folder, lies below a file, or is not permitted have the `errno` and
    `filename` of the system's own.
    """

    errno = errno.ENOENT


class SourceIsDirectory(SourceError, IsADirectoryError):
    """A source is a folder; only `vmvisor_image.fleet` reads all images in one."""

    errno = errno.EISDIR


class SourceNotDirectory(SourceError, NotADirectoryError):
    """A part of the path of a source is a file and not a folder."""

    errno = errno.ENOTDIR


class SourceNotPermitted(SourceError, PermissionError):
    """The system, or a server, does not permit to read a source."""

    errno = errno.EACCES


class RemoteError(SourceError):
    """The object at a URL could not be read: the connection, the server or its answer failed."""


class SourceChanged(SourceError):
    """A file, or the object at a URL, has changed since it was opened."""


class LimitExceeded(VmvisorImageError):
    """The operation would cost more than `vmvisor_image.Limits` allow.

    Attributes:
        limit: Name of the limit, a field of `Limits`.
    """

    def __init__(self, *args: object, limit: str = "") -> None:
        super().__init__(*args)
        self.limit = limit


class CorruptImage(VmvisorImageError):
    """The input breaks its format.

    Attributes:
        structure: Name of the structure that was being read, in the field's own words ("FAT boot sector",
            "bzip2 block 3").
        offset: Bytes to the structure from the start of the decoded disk, for partition tables and volumes, or of the
            compressed source, for bzip2 structures. None where no place can be named.
        field: Name of the structure's field, or None.
        expected: Value that the format requires, or None.
        found: Value that is there instead, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        structure: str,
        offset: int | None = None,
        field: str | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        place = structure if field is None else f"{structure}, {field}"
        where = "" if offset is None else f" at byte {offset:#x}"
        detail = "" if expected is None else f" (expected {expected}, found {found})"
        super().__init__(f"{place}{where}: {message}{detail}")
        self.message = message
        self.structure = structure
        self.offset = offset
        self.field = field
        self.expected = expected
        self.found = found

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in ("structure", "offset", "field", "expected", "found")}
        return (_rebuild, (type(self), self.message, fields), {k: v for k, v in vars(self).items() if k not in fields})


def _rebuild(kind: type[CorruptImage], message: str, fields: dict[str, Any]) -> CorruptImage:
    error = kind.__new__(kind)
    CorruptImage.__init__(error, message, **fields)
    return error


class TruncatedImage(CorruptImage, EOFError):
    """The input ends before the bytes that were asked for."""


class WorkerFailed(CorruptImage):
    """The process that reads a guest's file system ended, or took too long.

    What it was asked for is not known; the next request starts another process.
    """


class NotAnArchive(CorruptImage):
    """A file opened as an archive is not of a kind that this library reads."""


class NotAMachine(CorruptImage):
    """A file opened as the description of a virtual machine is not one."""


class NotAHost(CorruptImage):
    """A source opened as a host is neither its disk, nor its saved configuration, nor a support bundle."""


class NoDiskImage(CorruptImage):
    """A container holds nothing that looks like a disk image.

    Attributes:
        members: Names of some of its members.
    """

    members: tuple[str, ...] = ()


class SeveralImages(CorruptImage):
    """A container holds more than one disk image; ``Image.open(..., member=…)`` picks one.

    Attributes:
        members: Name of each disk image, as `member` takes it.
    """

    members: tuple[str, ...] = ()


class UnsafeName(CorruptImage):
    """A name in the image can't be written to a destination safely."""


class PartialExtraction(CorruptImage):
    """Some files were damaged; every healthy one was written.

    Attributes:
        written: Paths of the files that were written, each of them whole.
        failed: Path in the volume, and error, of each file that could not be read.
    """

    written: tuple[Any, ...] = ()
    failed: tuple[tuple[str, CorruptImage], ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged place that did not keep the rest from being read."""

    structure: str
    """Name of the damaged structure, in the field's own words."""
    message: str
    """Description of the damage."""
    offset: int | None = None
    """Bytes to the damage from the start of the decoded disk, or, for a layer, of its compressed source."""

    @classmethod
    def of(cls, error: CorruptImage) -> Problem:
        """Problem that an error describes."""
        detail = "" if error.expected is None else f" (expected {error.expected}, found {error.found})"
        field = "" if error.field is None else f"{error.field}: "
        return cls(error.structure, f"{field}{error.message}{detail}", error.offset)

    def error(self) -> CorruptImage:
        """Error to raise where the problem can't be worked around."""
        return CorruptImage(self.message, structure=self.structure, offset=self.offset)

    def __str__(self) -> str:
        where = "" if self.offset is None else f" at byte {self.offset:#x}"
        return f"{self.structure}{where}: {self.message}"

    def __repr__(self) -> str:
        return f"<Problem {str(self)!r}>"  # names from an image may hold control characters


class ProblemList:
    """Distinct problems up to a number; beyond it, the last problem gives the number of those left out."""

    def __init__(self, structure: str, most: int = 1000) -> None:
        """Keep at most `most` problems; the one that counts those left out names `structure`."""
        self._structure, self._most = structure, most
        self._kept: dict[Problem, None] = {}
        self._left_out: set[int] = set()

    def add(self, problem: Problem) -> None:
        """Keep a problem that is new, or count it where there is no room."""
        if problem in self._kept:
            return
        if len(self._kept) < self._most:
            self._kept[problem] = None
        elif len(self._left_out) < _MOST_COUNTED:
            self._left_out.add(hash(problem))

    def note(self, structure: str, message: str, offset: int | None = None) -> None:
        """Add a problem of this structure, message and offset."""
        self.add(Problem(structure, message, offset))

    @property
    def found(self) -> tuple[Problem, ...]:
        """Problems in the order in which they were added."""
        if not self._left_out:
            return tuple(self._kept)
        number = or_more(len(self._left_out), _MOST_COUNTED)
        return (*self._kept, Problem(self._structure, f"{number} more problems are left out"))


def or_more(number: int, most: int) -> str:
    """Text of a number, followed by "or more" where counting stopped at `most`."""
    return f"{number} or more" if number >= most else f"{number}"


_MOST_COUNTED: Final = 100_000
"""Largest number of left-out problems that are counted."""
