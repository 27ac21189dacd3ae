"""A member of an archive, and the tree that members make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

from vmvisor_image.errors import Problem
from vmvisor_image.files.file import Directory, Extent, File
from vmvisor_image.streams.source import ReadAt, Source

MemberKind = Literal["file", "directory", "symlink", "hardlink", "device", "fifo"]
MOST_MEMBERS: Final = 1_000_000
"""Members past this many are not looked at: no module has 100,000, and each takes memory."""
LONGEST_PATH: Final = 4096
"""PATH_MAX of Linux."""
MOST_PATH_BYTES: Final = 256 << 20
"""Bytes of all paths, of those of the directories above them, and of what links lead to: what 700,000 members of a
usual system take."""
MOST_PROBLEMS: Final = 1000
"""Problems of one archive or CD that are kept; of more the number is told."""
_MOST_LINKS: Final = 32
"""Hard links from one to the next: archivers write one."""


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
    content: Source | None = None
    """A file's data, for one whose bytes do not."""
    crc32: int | None = None
    """CRC-32 of a file's data as the archive says; zip only."""


Reader = Callable[[ReadAt, Callable[[Problem], None]], Iterable[ArchiveMember]]
"""Reads an archive's members, and is told whom to tell of damage."""


class MemberTree:
    """Members by path, and the directories above them; of two with one path, the later one counts."""

    def __init__(self, members: Iterable[ArchiveMember], file_of: Callable[[ArchiveMember], File | None]) -> None:
        """Take members in order, and what makes a file of one; None for a member that is no regular file."""
        self.by_path: dict[str, ArchiveMember] = {}
        """The last member of each path."""
        self._file_of = file_of
        self._children: dict[str, dict[str, str | None]] = {"": {}}
        """Names in each directory, in archive order; the value is the path of a directory, None for anything else."""
        self._linked: dict[str, ArchiveMember] = {}
        """What the hard link at a path leads to: what was at its target when the link came."""
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

    def real(self, member: ArchiveMember) -> ArchiveMember | None:
        """What a hard link leads to, any other member itself; None where that is not there."""
        found: ArchiveMember | None = member
        for _ in range(_MOST_LINKS):
            if found is None or found.kind != "hardlink":
                return found
            is_last = self.by_path.get(found.path) is found
            linked = self._linked.get(found.path) if is_last else None
            found = self.by_path.get(found.target or "") if linked is None else linked
        return None

    def fault_of_link(self, member: ArchiveMember) -> str | None:
        """Where the hard link at a path leads, where that is no place for one to lead to."""
        if member.kind != "hardlink":
            return None
        real = self.real(member)
        if real is None or real.kind == "directory":
            return "nowhere" if real is None else "to a directory"
        return None if member.path in self._linked else "to what comes only behind it"

    @property
    def links(self) -> Mapping[str, str]:
        """Where each symbolic link leads to, by its path; a hard link to one is one, too."""
        return MappingProxyType(
            {
                path: real.target or ""
                for path, member in self.by_path.items()
                if (real := self.real(member)) is not None and real.kind == "symlink" and self.get(path) is member
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
        linked = None
        if member.kind == "hardlink":
            there = self.get(member.target or "")
            linked = None if there is None else self.real(there)
            if linked is not None and member.target == member.path:
                return  # GNU tar writes a file that is named twice so: it stays as it is
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
        if linked is not None:
            self._linked[member.path] = linked
        else:
            self._linked.pop(member.path, None)
