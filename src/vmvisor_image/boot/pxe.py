"""From a disk image to what a TFTP server needs to boot it: the recipe of 2008 in one call."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmvisor_image.boot.banks import BANK_CONFIGURATION, LARGEST_CONFIGURATION
from vmvisor_image.boot.boot_cfg import BootConfig, BootModule
from vmvisor_image.errors import CorruptImage, InvalidArgument, PathNotFound
from vmvisor_image.extraction import write_files
from vmvisor_image.files import File
from vmvisor_image.image import Image

BOOT_LABEL: Final = "Hypervisor0"
"""Label of the partition that holds the boot loader."""
BANK_LABEL: Final = "Hypervisor1"
"""Label of the boot bank."""
LOADER: Final = "mboot.c32"
"""The multiboot loader that PXELINUX starts."""
CONFIGURATION: Final = "pxelinux.cfg/default"
"""Where PXELINUX looks last for its configuration."""
ESX_35_MODULES: Final = ("vmkernel.gz", "binmod.tgz", "environ.tgz", "cim.tgz", "oem.tgz", "license.tgz")
"""Kernel and modules of ESX 3i 3.5 in load order (vinternals.blogspot.com/2008/01/pxe-boot-esx-3i.html)."""
_LABEL_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class PxeExport:
    """What an export wrote."""

    dest: Path
    """The TFTP folder."""
    files: tuple[Path, ...]
    """Every path written, the configuration last."""
    label: str
    """The PXELINUX label."""
    kernel: str
    """What PXELINUX loads."""
    append: str
    """What it passes on: the hypervisor's kernel and modules, in load order."""
    missing: tuple[str, ...]
    """Modules that boot.cfg names and the bank lacks; they are left out of `append`."""


def export_pxe(image: Image, dest: str | os.PathLike[str], *, label: str = "3i", overwrite: bool = False) -> PxeExport:
    """Write what a PXE server needs to boot `image`.

    That is ``mboot.c32`` from the partition Hypervisor0, every file of the root directory of Hypervisor1 under its
    own name and with its time, and ``pxelinux.cfg/default``. The order of the modules comes from the bank's
    ``boot.cfg``; where there is none, it is that of ESX 3i 3.5. Of a compressed image nothing is decoded past the
    last byte of these files.

    Args:
        image: The disk image.
        dest: The TFTP server's folder; made where it is missing.
        label: Label of the boot entry: letters, digits, dots, dashes and underscores.
        overwrite: Replace files that are already there.

    Raises:
        PartitionNotFound: One of the two partitions is not there.
        PathNotFound: ``mboot.c32`` or the kernel is not there. Only of a kernel that ``boot.cfg`` names this is known
            after the files were written: reading it first would decode most of the bank twice.
        UnsafeName: A file's name can't be written safely; nothing was written.
        DestinationExists: A file is already there; nothing was written.
        PartialExtraction: Some files are damaged; the others were written, the configuration was not.
        InvalidArgument: `label` holds anything else.
    """
    if not _LABEL_TEXT.fullmatch(label):
        raise InvalidArgument(f"label must be letters, digits, '.', '-' and '_', not {label!r}")
    loader = image.partitions[BOOT_LABEL].files[LOADER]
    bank = image.partitions[BANK_LABEL].files
    root_files = [entry for entry in bank.root if isinstance(entry, File)]
    order = functools.cache(lambda: _boot_order(root_files))
    if not any(file.name.casefold() == BANK_CONFIGURATION for file in root_files):
        order()  # what it complains of is known already

    def configuration() -> bytes:
        return f"default {label}\nlabel {label}\n  kernel {LOADER}\n  append {order().append}\n".encode()

    written = write_files(
        [(LOADER, loader), *((file.name, file) for file in root_files)],
        dest,
        texts=[(CONFIGURATION, configuration)],
        overwrite=overwrite,
    )
    return PxeExport(Path(dest), written, label, LOADER, order().append, order().missing)


@dataclass(frozen=True, slots=True)
class _BootOrder:
    """What is loaded; `append` and `missing` as in `PxeExport`."""

    append: str
    missing: tuple[str, ...]


def _boot_order(root_files: list[File]) -> _BootOrder:
    """Kernel and modules in load order, spelled as the files are."""
    by_name = {file.name.casefold(): file for file in reversed(root_files)}
    configuration = by_name.get(BANK_CONFIGURATION)
    named: list[BootModule] = []
    if configuration is not None:
        parsed = BootConfig.parse(configuration.read_at(0, min(configuration.size, LARGEST_CONFIGURATION)))
        if parsed.kernel is not None:
            named = [parsed.kernel, *parsed.modules]
    if not named:
        named = [BootModule(name) for name in ESX_35_MODULES]
    if named[0].name.lstrip("/").casefold() not in by_name:
        raise PathNotFound(f"the boot bank lacks its kernel {named[0].name!r}")
    found, missing = [], []
    for module in named:
        file = by_name.get(module.name.lstrip("/").casefold())
        if file is None:
            missing.append(module.name)
        else:
            found.append(" ".join(filter(None, (_checked(file.name), _checked(module.arguments)))))
    return _BootOrder(" --- ".join(found), tuple(missing))


def _checked(text: str) -> str:
    if not text.isprintable():
        raise CorruptImage("a name or argument holds control characters", structure="boot.cfg", found=repr(text))
    return text
