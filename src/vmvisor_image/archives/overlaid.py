"""Several archives as one tree of files, each overlaid on those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vmvisor_image.archives.archive import Archive
from vmvisor_image.archives.member import ArchiveMember, MemberTree
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.errors import PathNotFound, Problem
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.tree import FileTree


class OverlaidTree(FileTree):
    """The files of several archives by path; of two with the same path, that of the later archive counts.

    Looking up a path reads the archives from the last one backwards until one has it; iterating reads them all.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names of the archives, in order; `_open` opens each when it is first needed."""
        self._names = names
        self._lock = ForkSafeLock()
        self._opened: dict[int, Archive | None] = {}
        self._found: dict[Problem, None] = {}
        """Problems so far; `_open` adds to them."""
        self._merged: tuple[MemberTree, dict[str, int]] | None = None
        super().__init__(
            Directory("", None, self._root_entries, fold_case=False),
            lambda: tuple(self._found),
            fold_case=False,
        )

    def _open(self, number: int) -> Archive | None:
        """Archive of that number, from 0; None where it is not an archive, is missing or can't be opened."""
        raise NotImplementedError

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """Files and links of all archives, without directories, each path once."""
        return tuple(member for member in self._merge()[0].by_path.values() if member.kind != "directory")

    @property
    def links(self) -> Mapping[str, str]:
        """Target of each symbolic link as it is written, by the link's path."""
        return self._merge()[0].links

    def __getitem__(self, path: str) -> File:
        """File at `path`.

        Raises:
            PathNotFound: There is no such file; also a KeyError.
        """
        clean = "/".join(part for part in str(path).split("/") if part not in ("", "."))
        for number in reversed(range(len(self._names))):
            archive = self._archive(number)
            if archive is not None and clean in archive.tree.by_path:
                try:
                    return archive[clean]
                except PathNotFound:
                    break
        return super().__getitem__(clean)

    def origin(self, path: str) -> str:
        """Name of the archive that contains the file or link at `path`.

        Raises:
            PathNotFound: There is no such file or link.
        """
        tree, origins = self._merge()
        member = tree.get(path)
        if member is None or member.kind == "directory":
            raise PathNotFound(f"no file or link {path!r} in this {self._HOLDER}")
        return self._names[origins[path]]

    def overlaid(self, path: str) -> tuple[str, ...]:
        """Names of all archives that have an entry at `path`, in order: the last one is used."""
        self._merge()
        return tuple(
            name
            for number, name in enumerate(self._names)
            if (archive := self._archive(number)) is not None and path in archive.tree.by_path
        )

    def _root_entries(self) -> list[File | Directory]:
        return self._merge()[0].entries()

    def _merge(self) -> tuple[MemberTree, dict[str, int]]:
        with self._lock:
            if self._merged is None:
                origins: dict[str, int] = {}
                members: list[ArchiveMember] = []
                for number in range(len(self._names)):
                    archive = self._archive(number)
                    for member in () if archive is None else archive.members:
                        members.append(member)
                        if member.kind != "directory":
                            origins[member.path] = number
                    for problem in () if archive is None else archive.problems:
                        self._found.setdefault(problem)
                self._merged = (MemberTree(members, lambda member: self._file(member, origins)), origins)
            return self._merged

    def _file(self, member: ArchiveMember, origins: dict[str, int]) -> File | None:
        archive = self._archive(origins[member.path])
        try:
            return None if archive is None else archive[member.path]
        except PathNotFound:
            return None  # a link

    def _archive(self, number: int) -> Archive | None:
        """Archive of that number, opened once; None as for `_open`."""
        with self._lock:
            if number not in self._opened:
                self._opened[number] = self._open(number)
            return self._opened[number]
