"""Files to read and directories to walk, as every volume and archive gives them."""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, Unpack, cast, overload

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import DEFAULT_LIMITS, Limits, Meter, check_deadline, check_depth, check_entries
from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import (
    CorruptImage,
    InvalidArgument,
    NoLocalPath,
    NotADirectory,
    NotAFile,
    PathNotFound,
    ReadOnly,
    UnsafeName,
    WorkerFailed,
)
from vmvisor_image.files.extraction import write_files
from vmvisor_image.files.patterns import Pattern
from vmvisor_image.streams.buffered import TextStream, open_stream
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import read_healthy
from vmvisor_image.streams.source import COPY_CHUNK, ReadAt, Source
from vmvisor_image.streams.views import Pieced

if TYPE_CHECKING:  # they rest on this module; its methods import them when they are called
    from importlib.resources.abc import Traversable

    from vmvisor_image.archives.archive import Archive
    from vmvisor_image.base.open_options import MachineOptions, OpenOptions, Progress
    from vmvisor_image.boot.modules import Module
    from vmvisor_image.disk.image import Image
    from vmvisor_image.machines.opening import Machine

_WRITING = frozenset("wax+")
"""Characters of a mode that asks for more than reading."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a file's bytes on the disk."""

    offset: int
    """First byte, from the start of the decoded disk."""
    length: int
    """Number of bytes; the extents of a file without holes add up to its size exactly."""


@dataclass(frozen=True, slots=True)
class FileAttributes:
    """Owner, permissions and times of a file or directory, as a file system of Unix's kind records them."""

    mode: int
    """Permissions, without the type."""
    owner: int
    """User id."""
    group: int
    """Group id."""
    created: datetime | None = None
    """Time of creation, in UTC."""
    accessed: datetime | None = None
    """Time of the last access, in UTC."""
    type_bits: int = 0
    """File type bits of the mode (`stat.S_IFMT`), such as 0o040000 for a directory and 0o100000 for a file; 0 where the
    mode has none, as for most system files of VMFS."""
    descriptor_type: int | None = None
    """Type in the file's VMFS descriptor: 2 for a directory, 3 for a file, 5 for a system file or directory; None for
    other file systems."""
    changed: datetime | None = None
    """Time of the last change of the file or of its attributes, in UTC; None where it is not recorded."""


@dataclass(slots=True)
class TreeRules:
    """Rules for walking and extracting all directories of one tree."""

    limits: Limits = DEFAULT_LIMITS
    """Limits of a walk, which are those of the image."""
    skips_unsafe: bool = True
    """Whether extraction skips only a file whose name can't be written, and does not refuse all files."""


class FileHome(Protocol):
    """The partition or archive that a file lies in, as far as the file needs it."""

    @property
    def disk(self) -> ReadAt:
        """The decoded disk that extents count from."""
        ...

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """Extents of the file to which the volume gave `token`.

        Raises:
            CorruptImage: They can't be found.
        """
        ...


class _Entry:
    """Common base of files and directories."""

    __slots__ = ("_modified", "_path")

    def __init__(self, path: str, modified: datetime | None) -> None:
        self._path = path
        self._modified = modified

    @property
    def path(self) -> str:
        """POSIX path from the volume's root, without a leading slash; empty for the root."""
        return self._path

    @property
    def modified(self) -> datetime | None:
        """Time of the last modification; None where the recorded value is not a date, and for the root.

        Always naive: for FAT in the local time of the writer, for everything else in UTC.
        """
        known = self._modified
        return known if known is None or known.tzinfo is None else known.astimezone(UTC).replace(tzinfo=None)

    @property
    def timestamp(self) -> float | None:
        """`modified` as seconds since 1970 in UTC; a time from FAT is taken as local time of this machine.

        None where `modified` is None, or a date that this system can't convert.
        """
        try:
            return None if self._modified is None else self._modified.timestamp()
        except (OverflowError, OSError, ValueError):
            return None

    @property
    def traversable(self) -> Traversable:
        """Itself, as the `importlib.resources.abc.Traversable` that it is at run time.

        For type checkers: they see that `File.open` gives bytes by default, and a `Traversable` text.
        """
        return cast("Traversable", self)

    if not TYPE_CHECKING:  # hidden, so that type checkers refuse a file where a path is wanted

        def __fspath__(self) -> NoReturn:
            """Refuse.

            Raises:
                NoLocalPath: Always; it is also a TypeError.
            """
            raise NoLocalPath(
                f"{self!r} lies in an image and has no path of the operating system: read it with .open() or"
                " .read_bytes(), write it out with .extract() of its file tree, or use importlib.resources.as_file()"
            )


class File(_Entry, Pieced):
    """A regular file of a volume, itself a `ReadAt` and an `importlib.resources.abc.Traversable`."""

    __slots__ = ("_content", "_ends", "_extents", "_home", "_is_asked", "_size", "_token", "attributes")

    def __init__(
        self,
        home: FileHome,
        path: str,
        size: int,
        modified: datetime | None,
        token: Any,
        attributes: FileAttributes | None = None,
    ) -> None:
        """Constructor for volumes and archives.

        Args:
            home: Partition or archive that the file lies in.
            path: POSIX path from the root.
            size: Length in bytes.
            modified: Time of the last modification; naive where the writer's time zone is unknown, otherwise aware.
            token: Picklable value by which `home` finds the file's extents.
            attributes: Owner and permissions, where the volume has them.
        """
        super().__init__(path, modified)
        self._home = home
        self._size = size
        self._token = token
        self.attributes = attributes
        """Owner and permissions; None where the volume has none."""
        self._extents: tuple[Extent, ...] | None = None
        self._ends: list[int] = []
        self._content: Source | None = None
        self._is_asked = False
        """Whether its home was asked for `_content`."""

    @property
    def name(self) -> str:
        """The last component of the path, with the case that the volume shows."""
        return self._path.rpartition("/")[2]

    @property
    def size(self) -> int:
        """Length in bytes, as its directory entry says."""
        return self._size

    @property
    def home(self) -> FileHome:
        """The partition or archive that the file lies in: a `Partition` for a file of a disk image.

        For example, ``file.home.number`` is the partition's number for each file of `Image.glob`.
        """
        return self._home

    @property
    def local_paths(self) -> tuple[str, ...]:
        """See `Source.local_paths`; those of the partition or archive."""
        return tuple(getattr(self._home, "local_paths", ()))

    @property
    def meter(self) -> Meter | None:
        """Counter of the bytes decoded for the image that the file lies in; None where nothing is counted."""
        found: Meter | None = getattr(self._home, "meter", None)
        return found

    @property
    def token(self) -> Any:
        """Value by which `home` finds the file."""
        return self._token

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Extents of the file on the decoded disk, in file order, adjacent ones merged; holes of sparse files left out.

        Raises:
            CorruptImage: The structures that list the extents are damaged.
        """
        if self._extents is None:
            extents = self._home.locate(self._token)
            end, ends = 0, []
            for extent in extents:
                end += extent.length
                ends.append(end)
            self._ends = ends
            self._extents = extents
        return self._extents

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """Source, first byte in it and number of bytes of each piece of a range of the file; see `Pieced.pieces`.

        Raises:
            CorruptImage: The structures that list the file's extents are damaged.
        """
        content = self._content if self._is_asked else self._sparse_content()
        if content is not None:
            yield content, offset, length
            return
        disk, extents = self._home.disk, self.extents
        if not isinstance(disk, Source):
            disk = as_source(disk)
        number = bisect_right(self._ends, offset)
        while length > 0:
            extent = extents[number]
            skip = offset - (self._ends[number] - extent.length)
            count = min(length, extent.length - skip)
            yield disk, extent.offset + skip, count
            offset += count
            length -= count
            number += 1

    @property
    def _structure(self) -> str:
        return f"file {self._path!r}"

    def read_bytes(self) -> bytes:
        """The whole content."""
        self.prefetch(0, self._size)
        return self.read_at(0, self._size)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The whole content as text: decoded strictly from UTF-8 by default; line ends stay as they are."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def chunks(self, size: int = COPY_CHUNK) -> Iterator[bytes]:
        """The content in pieces of at most `size` bytes, read one at a time; everything before damage is given first.

        Raises:
            CorruptImage: The next piece begins with damage.
            InvalidArgument: `size` is less than 1.
        """
        if size < 1:
            raise InvalidArgument(f"size must be at least 1, not {size}")
        self.prefetch(0, self._size)
        offset = 0
        while offset < self._size:
            piece = read_healthy(self, offset, min(size, self._size - offset))
            yield piece
            offset += len(piece)

    @overload
    def open(
        self, mode: Literal["rb"] = "rb", *, encoding: None = None, errors: None = None, newline: None = None
    ) -> io.BufferedReader: ...
    @overload
    def open(
        self,
        mode: Literal["r", "rt"],
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(
        self, mode: str, *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> io.BufferedReader | io.TextIOWrapper: ...
    def open(
        self, mode: str = "rb", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> io.BufferedReader | io.TextIOWrapper:
        """A seekable, read-only stream, whose `name` is the path.

        Args:
            mode: "rb" for bytes, "r" or "rt" for text.
            encoding: Encoding of text; None for UTF-8.
            errors: Handling of bytes that can't be decoded, as for the builtin `open`; None for "strict".
            newline: Line ends of text, as for the builtin `open`; "" leaves them as they are, for `csv`.

        Raises:
            InvalidArgument: Any other mode; or `encoding`, `errors` or `newline` in mode "rb".
            ReadOnly: A mode for writing; it is also an OSError.
        """
        if mode not in ("rb", "r", "rt"):
            error = ReadOnly if set(mode) & _WRITING else InvalidArgument
            raise error(f"files of an image open as 'rb', 'r' or 'rt' only, not {mode!r}")
        if mode != "rb":
            return TextStream(self, self.path, encoding or "utf-8", errors, newline)
        if (encoding, errors, newline) != (None, None, None):
            raise InvalidArgument("bytes have no encoding and no lines: open as 'r' for text")
        return open_stream(self, self.path)

    def sha256(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def open_archive(self) -> Archive:
        """The archive that the file is: tar, vmtar, zip, ar (VIB) or ISO 9660, with any supported compression.

        Raises:
            NotAnArchive: The file is not an archive.
            CorruptImage: Its compression can't be opened.
        """
        from vmvisor_image.archives.archive import open_archive

        return open_archive(self)

    def open_module(self) -> Module:
        """The file as a boot module: its compression, its signature, and the kernel or archive inside.

        Raises:
            CorruptImage: Its compression can't be opened.
        """
        from vmvisor_image.boot.modules import Module

        return Module(self)

    def open_image(self, **options: Unpack[OpenOptions]) -> Image:
        """The disk image in the file, inside any layers that `Image.open` supports; see `Image.open` for the options.

        Decoded bytes count towards the limits of the image that the file lies in. The extents that a VMDK descriptor
        names are looked up beside the file.
        """
        from vmvisor_image.disk.image import Image

        return Image.open(self, **options)

    def open_machine(self, *, member: str | None = None, **options: Unpack[MachineOptions]) -> Machine:
        """The virtual machine that the file describes, whose disks are looked for beside it; see `open_machine`.

        Raises:
            NotAMachine: The file describes no virtual machine.
            CorruptImage: The file is damaged.
        """
        from vmvisor_image.machines.opening import open_machine

        return open_machine(self, member=member, **options)

    def is_file(self) -> bool:
        """True."""
        return True

    def is_dir(self) -> bool:
        """False."""
        return False

    def iterdir(self) -> NoReturn:
        """Refuse.

        Raises:
            NotADirectory: Always.
        """
        raise NotADirectory(f"file {self._path!r} is not a directory")

    def joinpath(self, *parts: str | os.PathLike[str]) -> File:
        """The file itself.

        Raises:
            PathNotFound: Any part is given; a file has nothing below it.
        """
        if any(_components(parts)):
            raise PathNotFound(f"nothing is below file {self._path!r}")
        return self

    def __truediv__(self, part: str | os.PathLike[str]) -> File:
        return self.joinpath(part)

    def _sparse_content(self) -> Source | None:
        """Content from the volume's `open_content`, as files with holes need it; None where extents are enough."""
        opener = getattr(self._home, "open_content", None)
        content: ReadAt | None = None if opener is None else opener(self._token)
        self._content = None if content is None else as_source(content)  # a plug-in may give any ReadAt
        self._is_asked = True
        return self._content

    def __reduce__(self) -> tuple[Any, ...]:
        return (File, (self._home, self._path, self._size, self._modified, self._token, self.attributes))

    def __repr__(self) -> str:
        return f"<File {self._path!r} {self._size} bytes>"


class PartialListing(list["File | Directory"]):
    """Entries of a directory of which others are hidden by damage, as its `list_entries` gives them."""


class Directory(_Entry):
    """A directory of a volume, an `importlib.resources.abc.Traversable`; its entries are read on first use.

    Iterating gives the entries; ``in`` accepts an entry or a name.
    """

    __slots__ = ("_entries", "_fold_case", "_folded", "_is_partial", "_list", "_lock", "_names", "_rules", "attributes")

    def __init__(
        self,
        path: str,
        modified: datetime | None,
        list_entries: Callable[[], Sequence[File | Directory]],
        *,
        fold_case: bool,
        attributes: FileAttributes | None = None,
    ) -> None:
        """Constructor for volumes and archives.

        Args:
            path: See `path`.
            modified: See `modified`.
            list_entries: Gives the entries, as a `PartialListing` where damage hides others; called once.
            fold_case: Whether names are case-insensitive.
            attributes: See `attributes`.
        """
        super().__init__(path, modified)
        self.attributes = attributes
        """Owner and permissions; None where the volume has none or they are not read, and for the root."""
        self._list = list_entries
        self._fold_case = fold_case
        self._rules = TreeRules()
        self._lock = ForkSafeLock()
        self._entries: tuple[File | Directory, ...] | None = None
        self._is_partial = False
        self._names: dict[str, File | Directory] = {}
        self._folded: dict[str, File | Directory] = {}

    @property
    def name(self) -> str:
        """The last component of the path; "root" for the root, so that `importlib.resources.as_file` takes it."""
        return self._path.rpartition("/")[2] or "root"

    def is_file(self) -> bool:
        """False."""
        return False

    def is_dir(self) -> bool:
        """True."""
        return True

    def iterdir(self) -> Iterator[File | Directory]:
        """The entries, in the order of the directory.

        Entries of a damaged directory that can't be read are left out and reported as a `Problem` of the tree.
        """
        return iter(self._load())

    __iter__ = iterdir

    def __contains__(self, entry: object) -> bool:
        if isinstance(entry, str):
            return self.get(entry) is not None
        return any(each is entry for each in self)

    def get(self, name: str) -> File | Directory | None:
        """The entry of that name, or None; the first one where two have the same name.

        On a case-insensitive volume an exact match comes first, then one that differs only in case.
        """
        self._load()
        found = self._names.get(name)
        return self._folded.get(fold_name(name)) if found is None and self._fold_case else found

    def open(
        self,
        mode: str = "rb",  # noqa: ARG002  # as a file's
        *,
        encoding: str | None = None,  # noqa: ARG002
        errors: str | None = None,  # noqa: ARG002
        newline: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse.

        Raises:
            NotAFile: Always.
        """
        raise NotAFile(f"{self._path or '/'!r} is a directory")

    def read_bytes(self) -> NoReturn:
        """Refuse, as `open`."""
        self.open()

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> NoReturn:  # noqa: ARG002  # as a file's
        """Refuse, as `open`."""
        self.open()

    def joinpath(self, *parts: str | os.PathLike[str]) -> File | Directory:
        """The file or directory at a path relative to this directory.

        Raises:
            PathNotFound: There is no such file or directory.
        """
        here: File | Directory = self
        for part in _components(parts):
            found = here.get(part) if isinstance(here, Directory) else None
            if found is None:
                raise self._missing("/".join(os.fspath(part) for part in parts), here, part)
            here = found
        return here

    def _missing(self, path: str, here: File | Directory, part: str) -> PathNotFound:
        """Error for a path from this directory that leads to `here`, where there is no `part`."""
        text, place = f"no file or directory {path!r} in {self._path or '/'!r}", self._below(here)
        if isinstance(here, File):
            return PathNotFound(f"{text}: {place!r} is a file, not a directory")
        return PathNotFound(text, wanted=part, names=(entry.name for entry in here), below=f"{place}/" if place else "")

    def __truediv__(self, part: str | os.PathLike[str]) -> File | Directory:
        return self.joinpath(part)

    def walk(self) -> Iterator[tuple[Directory, list[Directory], list[File]]]:
        """Each directory from this one down, with the directories and the files in it, as ``os.walk`` top-down.

        A directory comes before those in it, which are read afterwards: what is removed from the list of directories is
        not read.

        Raises:
            LimitExceeded: There are too many files and directories, or directories are nested too deeply.
        """
        pending: list[tuple[Directory, int]] = [(self, 0)]
        count, limits = 0, self._rules.limits
        while pending:
            check_deadline()
            here, depth = pending.pop()
            directories: list[Directory] = []
            files: list[File] = []
            for entry in here:
                count += 1
                check_entries(count, limits)
                if isinstance(entry, Directory):
                    directories.append(entry)
                else:
                    files.append(entry)
            yield here, directories, files
            if directories:
                check_depth(depth + 1, limits)
            pending.extend((directory, depth + 1) for directory in reversed(directories))

    def glob(self, pattern: str) -> Iterator[File]:
        """Files below this directory whose path from here matches `pattern`, in the order of the directories.

        Only directories that can match are read.

        Args:
            pattern: Relative path, each component by the rules of a shell (``*``, ``?``, ``[a-z]``); ``**`` matches any
                number of directories, and at the end every file below.

        Raises:
            InvalidArgument: The pattern is empty.
            LimitExceeded: There are too many files and directories, or directories are nested too deeply.
        """
        return (file for file, _ in self._visit(self._pattern(pattern)))

    def extract(
        self, dest: str | os.PathLike[str], *patterns: str, overwrite: bool = False, resume: bool = False
    ) -> tuple[Path, ...]:
        """Write every file below this directory to `dest`, with its name and time, and return the paths written.

        All names are checked before anything is written; files appear whole or not at all. In a volume, only the files
        with unsafe names are skipped: a name that can't be written safely, or the second of two that are the same on a
        case-insensitive file system. In an archive, whose names are chosen freely, one such name refuses all files.

        Args:
            dest: Directory to write to; created if it is missing. Paths below it are those from this directory.
            *patterns: Only the files that match one of these; see `glob`. Without any, all files.
            overwrite: Replace files that are already there.
            resume: Continue an interrupted extraction: files that are already there with the right content are left as
                they are. Both they and the image are read to compare; size and time would not distinguish disks.

        Raises:
            PathNotFound: No file matches one of `patterns`; nothing was written.
            InvalidArgument: A pattern is empty.
            UnsafeName: A name would leave `dest`, is a device name, or collides with another one: every name for a
                volume, any name for an archive.
            DestinationExists: A file is already there and `overwrite` is False.
            DestinationFull: There is no room left; what was written is whole.
            DestinationFailed: The destination can't be written for another reason; what was written is whole.
            PartialExtraction: Some files are damaged, or have unsafe names; the others were written.
            LimitExceeded: The files are too large or too many; anything written before is whole.
        """
        return extract_all([(self, "", patterns)], dest, overwrite=overwrite, resume=resume)

    def _matching(self, patterns: Sequence[str]) -> Iterable[tuple[File, bool]]:
        """Files that match any of the patterns, each once, as `_visit` gives them."""
        found: dict[int, tuple[File, bool]] = {}
        for pattern in patterns:
            matches = {id(file): (file, whole) for file, whole in self._visit(self._pattern(pattern))}
            if not matches:
                raise PathNotFound(f"no file matches {pattern!r}{self._hint(pattern)}; nothing was written")
            found |= matches
        return found.values()

    def _hint(self, pattern: str) -> str:
        """Words for a pattern that is the path of a directory."""
        try:
            is_directory = self.joinpath(pattern).is_dir()
        except PathNotFound:
            is_directory = False
        path = "/".join(_components([pattern]))
        return f", which is a directory: {f'{path}/**'!r} matches the files in it" if is_directory else ""

    def _pattern(self, pattern: str) -> Pattern:
        return Pattern(pattern, fold_case=self._fold_case)

    def _below(self, entry: File | Directory) -> str:
        """Path of an entry from this directory."""
        return entry.path[len(self._path) + 1 :] if self._path else entry.path

    def _visit(self, pattern: Pattern | None = None) -> Iterator[tuple[File, bool]]:
        """Files below that match, in the order of the directories, each with whether no name in its path has a slash.

        Raises:
            LimitExceeded: There are too many files and directories, or directories are nested too deeply.
        """
        pending = [(self._path, True, frozenset[int]() if pattern is None else pattern.start, self.iterdir())]
        count, limits = 0, self._rules.limits
        while pending:
            check_deadline()
            above, is_whole, states, entries = pending[-1]
            for entry in entries:
                count += 1
                check_entries(count, limits)
                is_match, below = (True, states) if pattern is None else pattern.step(states, entry.name)
                named = is_whole and "/" not in entry.path[len(above) + 1 if above else 0 :]
                if isinstance(entry, File):
                    if is_match:
                        yield entry, named
                elif pattern is None or below:
                    check_depth(len(pending), limits)
                    pending.append((entry.path, named, below, entry.iterdir()))
                    break
            else:
                pending.pop()

    def partial(self) -> Iterator[Directory]:
        """Directories from this one down, of those read so far, some of whose entries damage hides; reads nothing."""
        pending = [self]
        while pending:
            here = pending.pop()
            if here._is_partial:
                yield here
            pending += [entry for entry in reversed(here._entries or ()) if isinstance(entry, Directory)]

    def _load(self) -> tuple[File | Directory, ...]:
        if self._entries is None:
            with self._lock:
                if self._entries is None:
                    found = self._list()
                    self._is_partial = isinstance(found, PartialListing)
                    entries = tuple(found)
                    for entry in entries:
                        if isinstance(entry, Directory):
                            entry._rules = self._rules
                        self._names.setdefault(entry.name, entry)
                        if self._fold_case:
                            self._folded.setdefault(fold_name(entry.name), entry)
                    self._entries = entries
        return self._entries

    def __reduce__(self) -> NoReturn:
        raise TypeError("a directory of an image can't be pickled: pickle its partition, or its files")

    def __repr__(self) -> str:
        count = None if self._entries is None else len(self._entries)
        listed = "" if count is None else f", {count} {'entry' if count == 1 else 'entries'}"
        return f"<Directory {self._path or '/'!r}{listed}>"


def extract_all(
    parts: Sequence[tuple[Directory, str, Sequence[str]]],
    dest: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write files below several directories in one go, and return the paths written; see `Directory.extract`.

    All names are checked before anything is written, and files are written in the order of the disk.

    Args:
        parts: Directories with the same limits; for each, the path below `dest` that its files are written to, ending
            with a slash, or empty for `dest` itself, and the patterns that its files have to match, if any.
        dest: See `Directory.extract`.
        overwrite: See `Directory.extract`.
        resume: See `Directory.extract`.
        progress: Called with the bytes written so far, and all that are to be written.

    Raises:
        InvalidArgument: There are no parts.
    """
    if not parts:
        raise InvalidArgument("there is nothing to extract")
    rules = parts[0][0]._rules
    with rules.limits.operation():
        files: list[tuple[str, File]] = []
        refused: list[tuple[str, CorruptImage]] = []
        for directory, above, patterns in parts:
            try:
                for file, is_whole in directory._matching(patterns) if patterns else directory._visit():
                    path = f"{above}{directory._below(file)}"
                    if is_whole or not rules.skips_unsafe:
                        files.append((path, file))
                    else:
                        error = UnsafeName(f"a name in {path!r} holds a path separator", structure="file name")
                        refused.append((path, error))
            except WorkerFailed as ended:  # what was found until then is written
                if not files:
                    raise
                refused.append((f"{above}{directory.path}" or "/", ended))
        return write_files(
            files,
            dest,
            overwrite=overwrite,
            resume=resume,
            most_bytes=rules.limits.extracted_bytes,
            refused=refused,
            skip_unsafe=rules.skips_unsafe,
            progress=progress,
        )


def _components(parts: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    """The names in a path given in parts."""
    for part in parts:
        yield from (name for name in os.fspath(part).split("/") if name not in ("", "."))
