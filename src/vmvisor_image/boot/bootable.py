"""Bootable parts of an image: the files of a boot bank or an installer CD, and the order in which they are loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vmvisor_image.archives import iso9660
from vmvisor_image.archives.archive import open_archive
from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.names import fold_name
from vmvisor_image.disk.banks import BANK_CONFIGURATION, read_configuration
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition, listed, named
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.paths import placed_or_labelled
from vmvisor_image.errors import CorruptImage, NotAFileSystem, PartitionNotFound, PathNotFound
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.schemas.boot_cfg import BootConfig, BootModule
from vmvisor_image.schemas.syslinux_cfg import BootEntry, SyslinuxConfig
from vmvisor_image.volumes.role import Role

BANK_LABELS: Final = ("Hypervisor1", "BOOTBANK1")
"""Labels of the first boot bank: up to ESXi 6, and from ESXi 7 on."""
BOOT_LABELS: Final = ("Hypervisor0", "BOOT")
"""Labels of the partition with the boot loader."""
ESX_35_MODULES: Final = ("vmkernel.gz", "binmod.tgz", "environ.tgz", "cim.tgz", "oem.tgz", "license.tgz")
"""Kernel and modules of ESX 3i 3.5 in load order (vinternals.blogspot.com/2008/01/pxe-boot-esx-3i.html)."""
_INSTALLER_ORDERS: Final = (
    ("vmkboot.gz", "vmkernel.gz", "sys.vgz", "cim.vgz", "ienviron.vgz", "install.vgz"),
    ("vmkboot.gz", "vmkernel.gz", "sys.vgz", "cim.vgz", "ienviron.tgz", "image.tgz", "install.tgz"),
    (
        *("vmkernel.gz", "binmod.tgz", "ienviron.tgz", "cim.tgz", "oem.tgz", "license.tgz"),
        "install.tgz",
    ),
)
"""Load orders of the installers of 4.1, 4.0 and 3.5, for a CD without isolinux.cfg; sources in docs/pxe.md."""
_ISOLINUX: Final = ("isolinux.cfg", "isolinux/isolinux.cfg")
_MODULE_OF_5: Final = re.compile(r".+\.[bvti][0-9]{2}", re.IGNORECASE)
"""Names that only ESXi 5 and later have: a letter for the kind, and two digits against collisions."""
_BUILD_BEFORE_5: Final = re.compile(r"[34]\.")


@dataclass(frozen=True)
class Bootable:
    """A boot bank or an installer CD."""

    files: FileTree
    """All files of the bank or CD."""
    home: Partition | None
    """The bank's partition; None for a CD around the disk."""
    is_installer: bool
    """Whether it is an installer CD."""
    words: str = ""
    """Words for it in messages; empty for those of a boot bank or CD."""

    @property
    def number(self) -> int | None:
        """Number of `home`."""
        return None if self.home is None else self.home.number

    @cached_property
    def root_files(self) -> tuple[File, ...]:
        """Files in the root directory."""
        return tuple(entry for entry in self.files.root if isinstance(entry, File))

    @property
    def boots(self) -> bool:
        """Whether it has anything to load: the alternate bank of a new host is empty."""
        if self.is_installer or self.loads_by_configuration or any(map(self.find, ESX_35_MODULES)):
            return True
        # Last: boot.cfg may be the last file, so that most of a compressed bank would be decoded for it.
        return self.configuration is not None and self.configuration.kernel is not None

    @property
    def loads_by_configuration(self) -> bool:
        """Whether the loader reads ``boot.cfg`` itself, as in ESXi 5 and later; by the names of files.

        Not where ``boot.cfg`` says that it is of an earlier build, whose modules may have such a name by chance. On a
        CD also by the names in ``boot.cfg``, since its ``prefix`` may be a directory.
        """
        if any(_MODULE_OF_5.fullmatch(file.name) for file in self.root_files):
            return not self._is_before_5
        if not self.is_installer or self.configuration is None:
            return False
        return any(_MODULE_OF_5.fullmatch(module.name) for module in self.configuration.modules)

    @property
    def _is_before_5(self) -> bool:
        """Whether ``boot.cfg`` can be read and has the build of an earlier version, such as 3.5.0-67921."""
        try:
            build = "" if self.configuration is None else self.configuration.values.get("build", "")
        except CorruptImage:
            return False
        return _BUILD_BEFORE_5.match(build) is not None

    @cached_property
    def configuration(self) -> BootConfig | None:
        """Content of its ``boot.cfg``; None without that file.

        Raises:
            CorruptImage: It can't be read.
        """
        file = self.find(BANK_CONFIGURATION)
        return None if file is None else BootConfig.parse(read_configuration(file))

    @cached_property
    def isolinux_entry(self) -> BootEntry | None:
        """Entry that the CD's boot loader loads; None where there is no such entry.

        Raises:
            CorruptImage: Its configuration can't be read.
        """
        for name in _ISOLINUX:
            if (file := self.find(name)) is not None:
                return SyslinuxConfig.parse(read_configuration(file)).multiboot_entry()
        return None

    @cached_property
    def order(self) -> tuple[BootModule, ...]:
        """Kernel and modules in load order, as spelled in ``boot.cfg`` or ``isolinux.cfg``, or else in a known order.

        Raises:
            CorruptImage: The configuration can't be read.
        """
        if self.is_installer and not self.loads_by_configuration:
            if (entry := self.isolinux_entry) is not None:
                return tuple(BootModule.parse(item) for item in entry.modules)
            known = next((names for names in _INSTALLER_ORDERS if all(map(self.find, names))), _INSTALLER_ORDERS[-1])
            return tuple(map(BootModule, known))
        if self.configuration is not None and self.configuration.kernel is not None:
            return (self.configuration.kernel, *self.configuration.modules)
        return tuple(map(BootModule, ESX_35_MODULES))

    def find(self, name: str) -> File | None:
        """File at a path, without regard to case or a leading slash; None where there is none."""
        wanted = fold_name(name.lstrip("/"))
        if "/" not in wanted:
            return self._by_name.get(wanted)
        try:
            return self.files[wanted]
        except PathNotFound:
            return next((file for file in self.files.values() if fold_name(file.path) == wanted), None)

    def find_module(self, name: str) -> File | None:
        """File of a module that the configuration names: below its ``prefix``, or else as by `find`."""
        file = None if self.configuration is None else self.find(self.configuration.resolve(name))
        return self.find(name) if file is None else file

    @cached_property
    def _by_name(self) -> dict[str, File]:
        return {fold_name(file.name): file for file in reversed(self.root_files)}


def find_bootable(image: Image, bank: int | str | None = None) -> Bootable:
    """Boot bank or installer CD that an image boots.

    Args:
        image: The image.
        bank: Number or label of the bank's partition, or ``@`` and its first byte, or "active" for the one that the
            boot loader would start. None for the active bank of a disk with a GPT, for the first bank of any other
            disk, whose second bank is empty until the first update (finding the active one would decode more of a
            compressed image than its first bank), and for an installer CD's own files where there is no bank.

    Raises:
        PartitionNotFound: There is no such bank, or it is empty.
        CorruptImage: The image is damaged.
    """
    partitions = image.partitions
    if bank is None:
        found = _labelled(image, BANK_LABELS) if partitions.scheme != "gpt" else None
        found = found or _active(image) or _labelled(image, BANK_LABELS) or _of_role(image, Role.BOOTBANK)
    elif bank == "active":
        found = _started(image)
    else:
        found = placed_or_labelled(partitions, bank) if isinstance(bank, str) else partitions[bank]
    if found is None and bank is None and (cd := _installer_volume(image)) is not None:
        return cd
    if found is None:
        raise _no_bank(partitions)
    try:
        files = found.files
    except NotAFileSystem as error:
        if bank is not None:
            raise
        raise PartitionNotFound(f"no boot bank: {error}") from error
    bootable = Bootable(files, found, is_installer=found.kind == "iso9660")
    if not bootable.boots:
        for problem in found.files.problems:
            raise problem.error()
        others = [partitions[bank.number] for bank in partitions.banks if bank.number != found.number]
        raise PartitionNotFound(
            f"partition {named(found)} holds no boot bank: no boot.cfg that names a kernel, no module that is known;"
            + (f" name another one as the bank: {listed(others)}" if others else " no other partition holds one either")
        )
    return bootable


def _no_bank(partitions: PartitionTable) -> PartitionNotFound:
    """Error for a disk of which no bank starts: why each does not, or what the disk holds instead."""
    if banks := partitions.banks:
        reasons = "; ".join(f"partition {named(partitions[bank.number])}: {bank.obstacle}" for bank in banks)
        return PartitionNotFound(
            f"the boot loader starts no bank of this disk ({reasons}); name one of them as the bank"
        )
    stores = [partition for partition in partitions if partition.role is Role.DATASTORE]
    if stores:
        # What is asked for next is in the datastore.
        below = f"{stores[0].key}/" if len(stores) == 1 else ""
        return PartitionNotFound(
            f"this is a datastore without ESXi, from which nothing boots: partition {listed(stores)} holds files of"
            " virtual machines",
            below=below,
        )
    there = f" in any partition: there are {listed(partitions)}" if len(partitions) else ": there are no partitions"
    return PartitionNotFound(f"no boot bank{there}")


def find_installer(image: Image) -> Bootable | None:
    """Installer CD that the image is or that contains the disk; None where there is none."""
    for layer in image.layers:
        if layer.kind == "iso9660" and layer.files is not None:
            return Bootable(layer.files, None, is_installer=True)
    return _installer_volume(image)


def find_boot_partition(image: Image) -> Partition | None:
    """Partition with the boot loader; None where there is none."""
    return _labelled(image, BOOT_LABELS) or _of_role(image, Role.BOOT)


def _installer_volume(image: Image) -> Bootable | None:
    volume = next((partition for partition in image.partitions if partition.kind == "iso9660"), None)
    if volume is None and iso9660.probe(image.disk, 0):  # with a table that does not lead to it
        return Bootable(open_archive(image.disk), None, is_installer=True)
    return None if volume is None else Bootable(volume.files, volume, is_installer=True)


def _labelled(image: Image, labels: tuple[str, ...]) -> Partition | None:
    for label in labels:
        try:
            return image.partitions[label]
        except PartitionNotFound:
            continue
    return None


def _active(image: Image) -> Partition | None:
    bank = image.partitions.active_bank
    return None if bank is None else image.partitions[bank.number]


def _started(image: Image) -> Partition | None:
    """Bank that the boot loader starts, by its rule or, for ESX 3i 3.5, by its label."""
    if (found := _active(image)) is None and any(bank.is_chosen_by_label for bank in image.partitions.banks):
        return _of_role(image, Role.BOOTBANK)
    return found


def _of_role(image: Image, role: Role) -> Partition | None:
    return next((partition for partition in image.partitions if partition.role is role), None)
