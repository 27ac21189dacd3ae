"""Errors and problems: one base, two families.

*Your misuse* (`UsageError`) and *bad input* (`CorruptImage`); beside them stand `SourceError`, for what
keeps the input from being read at all, and `LimitExceeded`, for what would cost too much.
All also subclass the builtin exception that a caller would expect, so ``except KeyError`` or ``except
FileNotFoundError`` just work; those that are an OSError for one reason only have its `errno`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, Final


class VmvisorImageError(Exception):
    """Base of every error this library raises on purpose."""

    def __str__(self) -> str:
        # KeyError.__str__ shows the repr of its argument; a message should read the same everywhere.
        return str(self.args[0]) if self.args else ""


class UsageError(VmvisorImageError):
    """The call is wrong: an argument, a name, a destination."""


class InvalidArgument(UsageError, ValueError):
    """An argument is outside what the call accepts."""


class ReadOnly(InvalidArgument, OSError):
    """Writing was asked of an image, which is never written."""

    errno = errno.EROFS


class ClosedError(UsageError, ValueError):
    """The image or stream was closed before it was read."""


class PartitionNotFound(UsageError, KeyError):
    """No partition has that number or label."""


class PathNotFound(UsageError, KeyError, FileNotFoundError):
    """No file or directory of the volume has that path."""

    errno = errno.ENOENT


class NotAFileSystem(UsageError, NotADirectoryError):
    """Files were asked of a partition that holds no file system this library reads."""

    errno = errno.ENOTDIR


class MemberNotFound(UsageError, KeyError):
    """The container holds no member of the name that was asked for."""


class KeyUnavailable(UsageError):
    """What is encrypted can't be read: its key is not at hand, or it is another one."""


class DependencyMissing(UsageError, ImportError):
    """What was asked for needs a package that is not installed; the message names the extra that brings it."""


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
    """What was to be written can't be: its folder is gone or read-only, or the system fails; see its `errno`."""


class DestinationFull(DestinationFailed):
    """There is no room to write to; what was written before is whole."""


class SourceError(VmvisorImageError, OSError):
    """Bytes of a source could not be read; the message names the range."""


class RemoteError(SourceError):
    """What a URL leads to could not be read: the connection, the server or its answer failed."""


class SourceChanged(SourceError):
    """A file, or what a URL leads to, is no longer what was opened."""


class LimitExceeded(VmvisorImageError):
    """Going on would cost more than `vmvisor_image.Limits` allow.

    Attributes:
        limit: Name of the limit, a field of `Limits`.
    """

    def __init__(self, *args: object, limit: str = "") -> None:
        super().__init__(*args)
        self.limit = limit


class CorruptImage(VmvisorImageError):
    """The input breaks its format.

    Attributes:
        structure: What was being read, in the field's own words ("FAT boot sector", "bzip2 block 3").
        offset: Where it is, in bytes from the start of what holds it: the decoded disk for partition tables
            and volumes, the compressed source for bzip2 structures. None where no place can be named.
        field: The field of the structure, or None.
        expected: What the format asks for, or None.
        found: What is there instead, or None.
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


class NotAnArchive(CorruptImage):
    """What was opened as an archive is none of the kinds that this library reads."""


class NoDiskImage(CorruptImage):
    """A container holds nothing that looks like a disk image.

    Attributes:
        members: Some of what it holds.
    """

    members: tuple[str, ...] = ()


class SeveralImages(CorruptImage):
    """A container holds more than one disk image; ``Image.open(..., member=…)`` picks one.

    Attributes:
        members: The name of each, as `member` takes it.
    """

    members: tuple[str, ...] = ()


class UnsafeName(CorruptImage):
    """A name in the image can't be written to a destination safely."""


class PartialExtraction(CorruptImage):
    """Some files were damaged; every healthy one was written.

    Attributes:
        written: The paths that were written, each of them whole.
        failed: Path in the volume and error of each file that could not be read.
    """

    written: tuple[Any, ...] = ()
    failed: tuple[tuple[str, CorruptImage], ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged place that did not keep the rest from being read."""

    structure: str
    """What is damaged, in the field's own words."""
    message: str
    """What is wrong with it."""
    offset: int | None = None
    """Where: bytes from the start of the decoded disk, or of the compressed source for its layers."""

    @classmethod
    def of(cls, error: CorruptImage) -> Problem:
        """The problem that an error describes."""
        detail = "" if error.expected is None else f" (expected {error.expected}, found {error.found})"
        field = "" if error.field is None else f"{error.field}: "
        return cls(error.structure, f"{field}{error.message}{detail}", error.offset)

    def error(self) -> CorruptImage:
        """The error that it is where nothing can be done for it."""
        return CorruptImage(self.message, structure=self.structure, offset=self.offset)

    def __str__(self) -> str:
        where = "" if self.offset is None else f" at byte {self.offset:#x}"
        return f"{self.structure}{where}: {self.message}"


class ProblemList:
    """Different problems up to a number; how many more there were is the last one."""

    def __init__(self, structure: str, most: int = 1000) -> None:
        """Keep `most` problems; that of those left out is one of `structure`."""
        self._structure, self._most = structure, most
        self._kept: dict[Problem, None] = {}
        self._left_out: set[int] = set()

    def add(self, problem: Problem) -> None:
        """Keep a problem, or count it."""
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
        """The problems, in the order in which they came."""
        if not self._left_out:
            return tuple(self._kept)
        number = or_more(len(self._left_out), _MOST_COUNTED)
        return (*self._kept, Problem(self._structure, f"{number} more problems are left out"))


def or_more(number: int, most: int) -> str:
    """A number, or at least `most`, up to which was counted."""
    return f"{number} or more" if number >= most else f"{number}"


_MOST_COUNTED: Final = 100_000
"""Problems that are left out and counted."""
