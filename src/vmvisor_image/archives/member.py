"""A member of an archive, and the tree of an archive's members."""

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
"""Largest number of members that are listed: no module has 100,000, and each takes memory."""
LONGEST_PATH: Final = 4096
"""Longest path of a member, in characters: PATH_MAX of Linux."""
MOST_PATH_BYTES: Final = 256 << 20
"""Largest total size in bytes of all paths, the paths of the directories above them and the targets of links: that of
700,000 members of a usual system."""
MOST_PROBLEMS: Final = 1000
"""Largest number of problems kept for one archive or CD; of any more, only the number is reported."""
_MOST_LINKS: Final = 32
"""Longest chain of hard links that is followed; archivers write chains of one."""


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One member of an archive, as its header describes it."""

    path: str
    """POSIX path, without a leading ``/`` or ``./``; otherwise, including any ``..``, as recorded in the archive."""
    kind: MemberKind
    size: int
    """Length of a file in bytes; 0 for anything else."""
    modified: datetime | None
    """Time of the last modification, with its time zone where that is known."""
    mode: int = 0o644
    """Permissions."""
    owner: int = 0
    """User id."""
    group: int = 0
    """Group id."""
    target: str | None = None
    """Target of a link, as recorded in the archive."""
    offset: int | None = None
    """First byte of the member's header, from the archive's start."""
    extents: tuple[Extent, ...] = ()
    """Extents of a file's data in the archive, for a file whose bytes are stored as they are."""
    content: Source | None = None
    """Data of a file whose bytes are not stored as they are, otherwise None."""
    crc32: int | None = None
    """CRC-32 of a file's data as recorded in the archive; zip only."""


Reader = Callable[[ReadAt, Callable[[Problem], None]], Iterable[ArchiveMember]]
"""Function that reads an archive's members and reports damage to its second argument."""


class MemberTree:
    """Members by path, and the directories above them; of two members with the same path, the later one counts."""

    def __init__(self, members: Iterable[ArchiveMember], file_of: Callable[[ArchiveMember], File | None]) -> None:
        """Take members in order, and a function that makes a member's file, or None if it is not a regular file."""
        self.by_path: dict[str, ArchiveMember] = {}
        """The last member with each path."""
        self._file_of = file_of
        self._children: dict[str, dict[str, str | None]] = {"": {}}
        """Names in each directory, in archive order; the value is the path of a directory, None for anything else."""
        self._linked: dict[str, ArchiveMember] = {}
        """Member at the target of each hard link when the link was read, by the path of the link."""
        for member in members:
            self._add(member)

    def get(self, path: str) -> ArchiveMember | None:
        """The member with that path, unless it or a directory above it was replaced."""
        member = self.by_path.get(path)
        above, _, name = path.rpartition("/")
        if member is None or name not in self._children.get(above, ()):
            return None
        is_directory = self._children[above][name] is not None
        return member if is_directory == (member.kind == "directory") and self._is_reached(above) else None

    def real(self, member: ArchiveMember) -> ArchiveMember | None:
        """The target of a hard link, or the member itself if it is not one; None where the target does not exist."""
        found: ArchiveMember | None = member
        for _ in range(_MOST_LINKS):
            if found is None or found.kind != "hardlink":
                return found
            is_last = self.by_path.get(found.path) is found
            linked = self._linked.get(found.path) if is_last else None
            found = self.by_path.get(found.target or "") if linked is None else linked
        return None

    def fault_of_link(self, member: ArchiveMember) -> str | None:
        """Invalid destination of a hard link, in words; None for a valid hard link and any other member."""
        if member.kind != "hardlink":
            return None
        real = self.real(member)
        if real is None or real.kind == "directory":
            return "nowhere" if real is None else "to a directory"
        return None if member.path in self._linked else "to what comes only behind it"

    @property
    def links(self) -> Mapping[str, str]:
        """Target of each symbolic link, by its path; a hard link to a symbolic link counts as one."""
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
        """Whether a directory and all those above it are still directories."""
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
                return  # as GNU tar writes a file that was named twice: the file stays as it is
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
