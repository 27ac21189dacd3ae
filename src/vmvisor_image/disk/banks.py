"""Boot banks, and the rule by which the boot loader chooses one.

Source of the rules: vmware/esx-boot, safeboot/bootbank.c and safeboot/vmfat.c, read for the facts. The loader takes
every FAT volume with VMware's marker and a ``boot.cfg``, at most three of them in the order of their partition
numbers. A bank can be started when its ``updated`` is above 0, its ``build`` is not empty, it was not for one quick
boot, and its ``bootstate`` is 0 (valid) or 1 (upgraded, and never started). Of these, the one with the highest
``updated`` is started, the first where several have it.

ESX 3i 3.5 is older than the marker: its banks do not have it, and their labels say which is the first.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import CorruptImage
from vmvisor_image.files.file import File
from vmvisor_image.schemas.boot_cfg import BootConfig
from vmvisor_image.volumes.volume import Volume, complete, has_files

BANK_CONFIGURATION: Final = "boot.cfg"
"""The file in the boot bank's root that names kernel and modules."""
LARGEST_CONFIGURATION: Final = 1 << 16
"""Most bytes of a boot loader's configuration that is read; real ones have a few hundred."""
CONFIGURATION: Final = "boot configuration"
"""Structure that an error about the configuration as a whole names."""
_MOST_BANKS: Final = 3
"""Most banks that the loader examines."""
_WITHOUT_MARKER: Final = "3."
"""Start of the version of banks without a marker."""


class BootState(enum.Enum):
    """``bootstate`` of a boot bank."""

    VALID = 0
    """It was started or installed successfully."""
    UPGRADING = 1
    """It was upgraded and waits for its first start."""
    DIRTY = 2
    """Its first start began and was not confirmed as successful: the loader no longer starts it."""
    INVALID = 3
    """It is empty, or the loader no longer starts it."""
    UNKNOWN = -1
    """``bootstate`` has another value."""


@dataclass(frozen=True, slots=True)
class BootBank:
    """A FAT volume with a ``boot.cfg``."""

    number: int
    """Number of its partition."""
    key: str
    """Name of its partition that commands take; see `vmvisor_image.disk.partition.Partition.key`."""
    uuid: bytes | None
    """UUID from VMware's marker, as in ``bootUUID=`` on the kernel's command line; None without a marker."""
    build: str | None
    """Version and build, such as "4.1.0-260247"."""
    updated: int | None
    """Counter of upgrades, higher in the newer bank; None where it is missing or not a number."""
    state: BootState
    """State by ``bootstate``; a missing one counts as 0, as it does for the loader."""
    configuration: BootConfig
    """Content of its ``boot.cfg``."""
    configuration_offset: int | None
    """Bytes from the start of the decoded disk to its ``boot.cfg``; None for an empty one."""

    @property
    def is_chosen_by_label(self) -> bool:
        """Whether it is a bank of ESX 3i 3.5, which has no marker: the label says which bank is the first."""
        return self.uuid is None and (self.build or "").startswith(_WITHOUT_MARKER)

    @property
    def obstacle(self) -> str | None:
        """Reason why the boot loader would not start it; None where it could, and where its rule is not known (3.5)."""
        if self.is_chosen_by_label:
            return None
        if self.uuid is None:
            return "it lacks VMware's marker"
        if self.updated is None:
            return "its 'updated' is missing, or no number"
        if self.updated <= 0:
            return f"its 'updated' is {self.updated}, and has to be above 0"
        if self.build is None:
            return "its 'build' is missing or empty"
        if self.configuration.number("quickboot"):
            return "it was for one quick boot only"
        if self.state not in (BootState.VALID, BootState.UPGRADING):
            return f"its 'bootstate' is {self.state.value} ({self.state.name.lower()})"
        return None


class BankPartition(Protocol):
    """Properties of a partition that reading its boot bank needs."""

    @property
    def number(self) -> int:
        """Number of the partition."""
        ...

    @property
    def key(self) -> str:
        """Name of the partition that commands take."""
        ...

    @property
    def volume(self) -> Volume | None:
        """Volume in the partition; None where it is not recognised."""
        ...


def read_configuration(file: File) -> bytes:
    """Bytes of a boot loader's configuration file.

    Raises:
        CorruptImage: It can't be read, or has more than `LARGEST_CONFIGURATION` bytes.
    """
    if file.size > LARGEST_CONFIGURATION:
        raise CorruptImage(
            f"{file.path!r} is larger than any boot loader's configuration",
            structure=CONFIGURATION,
            offset=file.extents[0].offset,
            expected=f"at most {LARGEST_CONFIGURATION} bytes",
            found=file.size,
        )
    return file.read_bytes()


def read_bank(partition: BankPartition) -> BootBank | None:
    """Boot bank in a partition; None where there is no FAT volume with a ``boot.cfg``.

    Raises:
        CorruptImage: The directory or its ``boot.cfg`` can't be read.
    """
    volume = partition.volume
    if not has_files(volume) or complete(volume).boot_medium != "disk":
        return None
    found = next((entry for entry in volume.files.root if fold_name(entry.name) == BANK_CONFIGURATION), None)
    if not isinstance(found, File):
        return None
    configuration = BootConfig.parse(read_configuration(found))
    extents = found.extents
    updated = configuration.number("updated")
    state = configuration.number("bootstate") if "bootstate" in configuration.values else 0
    return BootBank(
        number=partition.number,
        key=partition.key,
        uuid=complete(volume).boot_uuid,
        build=configuration.build,
        updated=updated,
        state=BootState(state) if state in range(4) else BootState.UNKNOWN,
        configuration=configuration,
        configuration_offset=extents[0].offset if extents else None,
    )


def active_bank(banks: Iterable[BootBank]) -> BootBank | None:
    """Bank that the boot loader starts; None where it would start none."""
    marked = [bank for bank in banks if bank.uuid is not None][:_MOST_BANKS]
    startable = [bank for bank in marked if bank.obstacle is None]
    return max(startable, key=lambda bank: bank.updated or 0, default=None)
