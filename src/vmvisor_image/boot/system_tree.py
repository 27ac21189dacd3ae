"""The modules of a system, and their files as the hypervisor would see them."""

from __future__ import annotations

from dataclasses import dataclass

from vmvisor_image.archives.archive import Archive
from vmvisor_image.archives.overlaid import OverlaidTree
from vmvisor_image.base.names import fold_name
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.boot.state import LOCAL, STATE, open_state
from vmvisor_image.disk.explanation import counted
from vmvisor_image.errors import CorruptImage, PathNotFound, Problem, UsageError
from vmvisor_image.files.file import File


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
        return Module(self.needed())

    def needed(self) -> File:
        """Its file.

        Raises:
            PathNotFound: It is missing.
        """
        if self.file is None:
            raise PathNotFound(f"module {self.name!r} is not there")
        return self.file


class SystemTree(OverlaidTree):
    """The files of all modules by path, overlaid in load order.

    Looking up a path reads the modules from the last one backwards until one has it; iterating reads them all.
    """

    _HOLDER = "system"

    def __init__(self, modules: tuple[SystemModule, ...]) -> None:
        """Made by `System`."""
        self._modules = modules
        super().__init__([module.name for module in modules])

    def __repr__(self) -> str:
        return f"<SystemTree of {counted(len(self._modules), 'module')}>"

    def _open(self, number: int) -> Archive | None:
        module = self._modules[number]
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
