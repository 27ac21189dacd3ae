"""The system view: the booted system, its version, and the files as the hypervisor would see them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vmvisor_image.archives.archive import Archive
from vmvisor_image.archives.member import ArchiveMember, MemberTree
from vmvisor_image.base.forking import ForkSafeLock, cached_property
from vmvisor_image.base.names import fold_name, printable
from vmvisor_image.boot.bootable import Bootable, find_bootable
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.boot.state import LOCAL, STATE, open_state
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import CorruptImage, PathNotFound, Problem, UsageError
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.schemas.boot_cfg import BootConfig

_BUILD: Final = re.compile(r"([0-9]+(?:\.[0-9]+)*)-(?:.*\.)?([0-9]+)")
"""Version and build, ``4.1.0-260247``; from ESXi 7 on ``8.0.0-1.0.20513097``, where the build is the last number."""

PRODUCT_OF_3: Final = "VMware ESX Server 3i"
_MOST_ASKED: Final = 8
"""Modules that are searched for the version: the kernel proper follows its starter and three empty modules."""


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


class System:
    """The system that an image boots. Its parts are read when they are first needed."""

    def __init__(self, image: Image, bank: int | str | None = None) -> None:
        """The system of a boot bank or CD; arguments and errors of `find_bootable`."""
        self._image = image
        self._bootable: Bootable = find_bootable(image, bank)

    @property
    def partition(self) -> int | None:
        """Number of the partition that contains the system; None for a CD around the disk."""
        return self._bootable.number

    @property
    def banks(self) -> tuple[BootBank, ...]:
        """All boot banks of the disk, each with its state."""
        return self._image.partitions.banks

    @property
    def active_bank(self) -> BootBank | None:
        """Bank that the boot loader starts; None where it would start none."""
        return self._image.partitions.active_bank

    @property
    def configuration(self) -> BootConfig | None:
        """Content of ``boot.cfg``; None without that file."""
        return self._bootable.configuration

    @cached_property
    def modules(self) -> tuple[SystemModule, ...]:
        """Kernel and modules in load order.

        Raises:
            CorruptImage: The configuration can't be read.
        """
        return _modules(self._bootable)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """A problem for each module whose file is missing.

        Raises:
            CorruptImage: The configuration can't be read.
        """
        return tuple(module.missing for module in self.modules if module.file is None)

    @cached_property
    def identity(self) -> tuple[str | None, str | None, str | None]:
        """Product, version and build by ``boot.cfg``, or else by the text in the first modules that are programs."""
        return identify(self._bootable)

    @property
    def product(self) -> str | None:
        """Name of the product, such as "VMware ESXi"."""
        return self.identity[0]

    @property
    def version(self) -> str | None:
        """Version, such as "4.1.0"."""
        return self.identity[1]

    @property
    def build(self) -> str | None:
        """Build, such as "260247"."""
        return self.identity[2]

    @cached_property
    def files(self) -> SystemTree:
        """Files of all modules, each overlaid on those before it, as the hypervisor would see them."""
        return SystemTree(self.modules)

    def to_dict(self, *, hashes: bool = False) -> dict[str, Any]:
        """Version, boot banks and modules as plain values that `json.dumps` takes.

        Args:
            hashes: Whether to include the hash of each module, for which all are read.
        """
        active = self.active_bank
        return {
            "product": self.product,
            "version": self.version,
            "build": self.build,
            "partition": self.partition,
            "active_bank": None if active is None else active.number,
            "banks": [
                {
                    "partition": bank.number,
                    "build": bank.build,
                    "updated": bank.updated,
                    "state": bank.state.name.lower(),
                    "obstacle": bank.obstacle,
                    "chosen_by_label": bank.is_chosen_by_label,
                }
                for bank in self.banks
            ],
            "modules": [
                {
                    "name": module.name,
                    "arguments": module.arguments,
                    "size": module.size,
                    **({"sha256": module.sha256()} if hashes else {}),
                }
                for module in self.modules
            ],
        }

    def __repr__(self) -> str:
        where = "a CD" if self.partition is None else f"partition {self.partition}"
        product, version, build = vars(self).get("identity", (None, None, None))  # as far as it was read
        named = " ".join(filter(None, (product, version, build and f"build {build}")))
        return f"<System of {where}: {printable(named)}>" if named else f"<System of {where}>"


def identify(bootable: Bootable) -> tuple[str | None, str | None, str | None]:
    """Product, version and build; see `System.identity`."""
    product = version = build = None
    configuration = bootable.configuration
    if configuration is not None and (match := _BUILD.fullmatch(configuration.build or "")):
        version, build = match.groups()
    else:
        product, version, build = _identity_of_kernel(_modules(bootable))
    if product is None and version is not None:
        product = PRODUCT_OF_3 if version.startswith("3.") else "VMware ESXi"
    return product, version, build


def _modules(bootable: Bootable) -> tuple[SystemModule, ...]:
    return tuple(
        SystemModule(module.name, module.arguments, bootable.find_module(module.name)) for module in bootable.order
    )


def _identity_of_kernel(modules: Iterable[SystemModule]) -> tuple[str | None, str | None, str | None]:
    found: tuple[str | None, str | None, str | None] = (None, None, None)
    for module in itertools.islice(modules, _MOST_ASKED):
        if module.file is None:
            continue
        try:
            opened = module.open()
            if opened.kind == "elf":
                found = max(found, opened.version, key=lambda known: sum(text is not None for text in known))
        except CorruptImage:
            continue  # reading the module itself reports it
        if found[1] is not None and found[2] is not None:
            break
    return found


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
