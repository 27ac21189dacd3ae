"""The modules of a system, and their files as the hypervisor would see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmvisor_image.archives.archive import Archive
from vmvisor_image.archives.member import ArchiveMember, MemberTree
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.names import fold_name
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.boot.state import LOCAL, STATE, open_state
from vmvisor_image.disk.explanation import counted
from vmvisor_image.errors import CorruptImage, PathNotFound, Problem, UsageError
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.tree import FileTree


@dataclass(frozen=True, slots=True)
class SystemModule:
    """One module that the boot loader loads; the first one is the kernel."""

    name: str
    """Name as spelled in the configuration."""
    arguments: str
    """Arguments that the loader passes to it."""
    file: File | None
    """File of the module; None where it is missing."""

    @property
    def size(self) -> int | None:
        """Bytes of its file, which is compressed; None where it is missing."""
        return None if self.file is None else self.file.size

    @property
    def missing(self) -> Problem:
        """Problem that its file is missing; only for a module without one."""
        return Problem("boot module", f"{self.name!r} is not there")

    def sha256(self) -> str | None:
        """SHA-256 of its file, in hexadecimal; None where it is missing. Reads it whole."""
        return None if self.file is None else self.file.sha256()

    def open(self) -> Module:
        """Opened module.

        Raises:
            PathNotFound: Its file is missing.
            CorruptImage: The compression can't be opened.
        """
        if self.file is None:
            raise PathNotFound(f"module {self.name!r} is not there")
        return Module(self.file)


class SystemTree(FileTree):
    """The files of all modules by path, overlaid in load order.

    Looking up a path reads the modules from the last one backwards until one has it; iterating reads them all.
    """

    _HOLDER = "system"

    def __init__(self, modules: tuple[SystemModule, ...]) -> None:
        """Made by `System`."""
        self._modules = modules
        self._lock = ForkSafeLock()
        self._opened: dict[int, Archive | None] = {}
        self._found: dict[Problem, None] = {}
        self._merged: tuple[MemberTree, dict[str, int]] | None = None
        super().__init__(
            Directory("", None, self._root_entries, fold_case=False),
            lambda: tuple(self._found),
            fold_case=False,
        )

    def __repr__(self) -> str:
        return f"<SystemTree of {counted(len(self._modules), 'module')}>"

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
        for number in reversed(range(len(self._modules))):
            archive = self._archive(number)
            if archive is not None and clean in archive.tree.by_path:
                try:
                    return archive[clean]
                except PathNotFound:
                    break
        return super().__getitem__(clean)

    def origin(self, path: str) -> str:
        """Name of the module that contains the file or link at `path`.

        Raises:
            PathNotFound: There is no such file or link.
        """
        tree, origins = self._merge()
        member = tree.get(path)
        if member is None or member.kind == "directory":
            raise PathNotFound(f"no file or link {path!r} in this system")
        return self._modules[origins[path]].name

    def overlaid(self, path: str) -> tuple[str, ...]:
        """Names of all modules that have an entry at `path`, in load order: the last one is used."""
        self._merge()
        return tuple(
            module.name
            for number, module in enumerate(self._modules)
            if (archive := self._archive(number)) is not None and path in archive.tree.by_path
        )

    def _root_entries(self) -> list[File | Directory]:
        return self._merge()[0].entries()

    def _merge(self) -> tuple[MemberTree, dict[str, int]]:
        with self._lock:
            if self._merged is None:
                origins: dict[str, int] = {}
                members: list[ArchiveMember] = []
                for number in range(len(self._modules)):
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
        """Archive in a module; None where it is not an archive, is missing or can't be opened."""
        with self._lock:
            if number not in self._opened:
                self._opened[number] = self._open(self._modules[number])
            return self._opened[number]

    def _open(self, module: SystemModule) -> Archive | None:
        if module.file is None:
            self._found.setdefault(module.missing)
            return None
        try:
            if fold_name(module.file.name) in (STATE, LOCAL):
                return open_state(module.file)
            opened = module.open()
            return None if opened.kind == "unknown" or opened.kind in WITHOUT_FILES else opened.open_archive()
        except (CorruptImage, UsageError) as error:
            self._found.setdefault(Problem("boot module", f"{module.name!r} can't be opened: {error}"))
            return None
