"""Archives: what holds files without being a volume of a disk. One module each, which recognises and opens it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from vmvisor_image.errors import CorruptImage, NotAnArchive, Problem
from vmvisor_image.files import Directory, Extent, File, FileTree
from vmvisor_image.layers import LayerOptions, peel
from vmvisor_image.limits import meter_of
from vmvisor_image.streams import ReadAt, read_up_to

MemberKind = Literal["file", "directory", "symlink", "hardlink", "device", "fifo"]
MOST_MEMBERS: Final = 1_000_000
"""Members past this many are not looked at: no module has 100,000, and each takes memory."""
HEAD: Final = 1024
"""Bytes from its start by which an archive is known, ISO 9660 apart."""


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One member of an archive, as its header says."""

    path: str
    """POSIX path, without a leading ``/`` or ``./``; anything else, ``..`` too, is as it is in the archive."""
    kind: MemberKind
    size: int
    """Bytes of a file; 0 for anything else."""
    modified: datetime | None
    """With its zone, where that is known."""
    mode: int = 0o644
    """Permissions."""
    owner: int = 0
    """User id."""
    group: int = 0
    """Group id."""
    target: str | None = None
    """What a link leads to, as it is written."""
    offset: int | None = None
    """Where its header lies, in bytes from the archive's start."""
    extents: tuple[Extent, ...] = ()
    """Where a file's data lies in the archive, for a file whose bytes lie there as they are."""
    content: ReadAt | None = None
    """A file's data, for one whose bytes do not."""
    crc32: int | None = None
    """CRC-32 of a file's data as the archive says; zip only."""


class Archive(FileTree):
    """The regular files of an archive by path; of two members with one path, the later one counts.

    Hard links are files with the content of what they lead to. Symbolic links are in `links`.
    """

    def __init__(self, kind: str, home: ArchiveHome) -> None:
        """Made by `open_archive`."""
        self.kind = kind
        """"tar", "vmtar", "zip", "ar" or "iso9660"."""
        self._home = home
        super().__init__(Directory("", None, home.entries, fold_case=False), home.problems, fold_case=False)
        self.limits = home.meter.limits

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """Every member in archive order: directories, links and those that a later one replaces, too."""
        return self._home.members

    @property
    def tree(self) -> MemberTree:
        """The members by path."""
        return self._home.tree

    @property
    def links(self) -> Mapping[str, str]:
        """Where each symbolic link leads to, as it is written, by the link's path."""
        return self._home.tree.links

    @property
    def layers(self) -> tuple[str, ...]:
        """Kinds of the compressions around it, outermost first."""
        return self._home.layers

    def __reduce__(self) -> tuple[Any, ...]:
        return (open_archive, (self._home.given,))

    def __repr__(self) -> str:
        return f"<Archive {self.kind}>"


class ArchiveHome:
    """Opens an archive when it is first used, and reads its headers when one is first asked for."""

    def __init__(self, given: ReadAt) -> None:
        """Take `given`, which may be compressed."""
        self.given = given
        self.meter = meter_of(given)
        """Counts what is decoded; that of the image that it lies in."""
        self._lock = threading.RLock()
        self._opened: tuple[ReadAt, tuple[str, ...], str, Reader] | None = None
        self._read: tuple[tuple[ArchiveMember, ...], tuple[Problem, ...], MemberTree] | None = None

    @property
    def disk(self) -> ReadAt:
        """The archive without its compression; what extents count from."""
        return self._open()[0]

    @property
    def layers(self) -> tuple[str, ...]:
        """See `Archive.layers`."""
        return self._open()[1]

    @property
    def kind(self) -> str:
        """See `Archive.kind`."""
        return self._open()[2]

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """See `Archive.members`."""
        return self._load()[0]

    @property
    def tree(self) -> MemberTree:
        """The members by path."""
        return self._load()[2]

    @property
    def files(self) -> Archive:
        """The archive."""
        return Archive(self.kind, self)

    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        return () if self._read is None else self._read[1]

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the extents."""
        found: tuple[Extent, ...] = token
        return found

    def entries(self) -> list[File | Directory]:
        """What the root directory holds."""
        return self.tree.entries()

    def _file(self, member: ArchiveMember) -> File | None:
        real: ArchiveMember | None = member
        seen: set[str] = set()
        while real is not None and real.kind == "hardlink":
            if real.path in seen:
                return None
            seen.add(real.path)
            real = self.tree.by_path.get(real.target or "")
        if real is None or real.kind != "file":
            return None
        if real.content is not None:
            extents = (Extent(0, real.size),) if real.size else ()
            return File(MemberHome(real.content), member.path, real.size, member.modified, extents)
        return File(self, member.path, real.size, member.modified, real.extents)

    def _open(self) -> tuple[ReadAt, tuple[str, ...], str, Reader]:
        with self._lock:
            if self._opened is None:
                layers = peel(self.given, None, LayerOptions(meter=self.meter))
                inner = layers[-1].source if layers else self.given
                kind, reader = find_reader(inner)
                self._opened = (inner, tuple(layer.kind for layer in layers), kind, reader)
            return self._opened

    def _load(self) -> tuple[tuple[ArchiveMember, ...], tuple[Problem, ...], MemberTree]:
        with self._lock:
            if self._read is None:
                source, _, _, reader = self._open()
                members: list[ArchiveMember] = []
                problems: list[Problem] = []
                try:
                    for member in reader(source, problems.append):
                        members.append(member)  # what was read before damage is kept
                        most = min(MOST_MEMBERS, self.meter.limits.entries)
                        if len(members) == most:
                            problems.append(Problem("archive", f"members after the first {most} are left out"))
                            break
                except CorruptImage as error:
                    problems.append(Problem.of(error))
                self._read = (tuple(members), tuple(problems), MemberTree(members, self._file))
            return self._read

    def __reduce__(self) -> tuple[Any, ...]:
        return (ArchiveHome, (self.given,))


Reader = Callable[[ReadAt, Callable[[Problem], None]], Iterable[ArchiveMember]]
"""Reads an archive's members, and is told whom to tell of damage."""


def open_archive(source: ReadAt) -> Archive:
    """The archive in `source`, taken out of its compression (gzip, xz, zstd, bzip2) and its signature.

    Its headers are read when a file is first asked for.

    Args:
        source: A `File` of an image, or any other `ReadAt`.

    Raises:
        NotAnArchive: It is none.
        CorruptImage: Its compression can't be opened.
    """
    home = ArchiveHome(source)
    return Archive(home.kind, home)


def find_reader(source: ReadAt) -> tuple[str, Reader]:
    """Kind of the archive that `source` is, and what reads it.

    Raises:
        NotAnArchive: It is none.
    """
    from vmvisor_image.archives import ar, tar, zip  # noqa: A004  # the format's name
    from vmvisor_image.volumes import iso9660

    head = read_up_to(source, 0, HEAD)
    if tar.probe(head):
        return tar.kind(head), tar.read_members
    for module in (zip, ar):
        if module.probe(head):
            return module.KIND, module.read_members
    if iso9660.probe(source, 0):
        return iso9660.KIND, iso9660.read_members
    if tar.probe_empty(head):
        return tar.KIND, tar.read_members
    raise NotAnArchive(
        "neither tar, vmtar, zip, ar nor ISO 9660", structure="archive", offset=0, found=head[:8].hex(" ")
    )


class MemberTree:
    """Members by path, and the directories above them; of two with one path, the later one counts."""

    def __init__(self, members: Iterable[ArchiveMember], file_of: Callable[[ArchiveMember], File | None]) -> None:
        """Take members in order, and what makes a file of one; None for a member that is no regular file."""
        self.by_path: dict[str, ArchiveMember] = {}
        """The last member of each path."""
        self._file_of = file_of
        self._children: dict[str, dict[str, str | None]] = {"": {}}
        """Names in each directory, in archive order; the value is the path of a directory, None for anything else."""
        for member in members:
            self._add(member)

    def get(self, path: str) -> ArchiveMember | None:
        """The member of that path, unless it or a directory above it was replaced."""
        member = self.by_path.get(path)
        above, _, name = path.rpartition("/")
        if member is None or name not in self._children.get(above, ()):
            return None
        is_directory = self._children[above][name] is not None
        return member if is_directory == (member.kind == "directory") and self._is_reached(above) else None

    @property
    def links(self) -> Mapping[str, str]:
        """Where each symbolic link leads to, by its path."""
        return MappingProxyType(
            {
                path: member.target or ""
                for path, member in self.by_path.items()
                if member.kind == "symlink" and self.get(path) is member
            }
        )

    def entries(self, path: str = "") -> list[File | Directory]:
        """Files and directories in the directory at `path`."""
        found: list[File | Directory] = []
        for name, below in self._children.get(path, {}).items():
            whole = f"{path}/{name}" if path else name
            member = self.by_path.get(whole)
            if below is not None:
                modified = member.modified if member is not None and member.kind == "directory" else None
                found.append(Directory(whole, modified, functools.partial(self.entries, whole), fold_case=False))
            elif member is not None and (file := self._file_of(member)) is not None:
                found.append(file)
        return found

    def _is_reached(self, directory: str) -> bool:
        """Whether a directory and those above it are still directories."""
        while directory:
            above, _, name = directory.rpartition("/")
            if self._children.get(above, {}).get(name) is None:
                return False
            directory = above
        return True

    def _add(self, member: ArchiveMember) -> None:
        parts = member.path.split("/")
        above = ""
        for part in parts[:-1]:
            here = f"{above}/{part}" if above else part
            self._children.setdefault(above, {})[part] = here
            above = here
        siblings = self._children.setdefault(above, {})
        if member.kind == "directory":
            siblings[parts[-1]] = member.path
        else:
            siblings[parts[-1]] = None  # also in the place of a directory
            self._children.pop(member.path, None)
        self.by_path[member.path] = member


class MemberHome:
    """Where a file lies whose bytes are not in the archive as they are: its own content."""

    def __init__(self, content: ReadAt) -> None:
        """Take the content."""
        self.disk = content
        self.meter = meter_of(content)
        """Counts what is decoded."""

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the extents."""
        found: tuple[Extent, ...] = token
        return found
