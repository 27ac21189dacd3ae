"""The system view: the booted system, its version, and the files as the hypervisor would see them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any, Final

from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.names import printable
from vmvisor_image.boot.bootable import Bootable, find_bootable
from vmvisor_image.boot.provenance import Provenance
from vmvisor_image.boot.system_tree import SystemModule, SystemTree
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.database import DATABASE, open_image_database
from vmvisor_image.schemas.boot_cfg import BootConfig

_BUILD: Final = re.compile(r"([0-9]+(?:\.[0-9]+)*)-(?:.*\.)?([0-9]+)")
"""Version and build, ``4.1.0-260247``; from ESXi 7 on ``8.0.0-1.0.20513097``, where the build is the last number."""

PRODUCT_OF_3: Final = "VMware ESX Server 3i"
_MOST_ASKED: Final = 8
"""Modules that are searched for the version: the kernel proper follows its starter and three empty modules."""


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
    def home(self) -> Partition | None:
        """Partition that contains the system; None for a CD around the disk."""
        return self._bootable.home

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

    def provenance(self, certificates: Iterable[Certificate] = ()) -> Provenance:
        """Origin of the modules and of the installed packages, by their signatures and the image database.

        Args:
            certificates: Certificates that the user trusts, from `open_certificates`; without any, signatures show who
                claims to have signed, and nothing is verified.

        Raises:
            CorruptImage: The image database can't be opened.
        """
        file = self._bootable.find_module(DATABASE)
        database = None if file is None else open_image_database(file)
        return Provenance(self.modules, self.files, database, certificates)

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
        where = "a CD" if self.home is None else f"partition {self.home.key}"
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
