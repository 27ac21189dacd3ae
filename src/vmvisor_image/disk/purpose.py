"""Purpose of a partition of a hypervisor's disk, its generation, and the evidence for both.

Nothing is concluded from a partition's place alone: its type, its label, its name in the table or its content has to
say so. Sources: the ESXi installer's partition tables, real tables of 4.1 and 5.x, the heads of dd images that the
installer of 6.7 ships, VMware's documentation of 7 and of memory tiers; of ESX 3i 3.5 no table was found in writing,
see SUPPORTED.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from vmvisor_image.base.names import fold_name
from vmvisor_image.disk.banks import BankPartition, BootBank, active_bank
from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.partition_types import (
    BASIC_DATA,
    EFI_SYSTEM,
    MBR_EFI_SYSTEM,
    MBR_VMFS,
    MBR_VMKCORE,
    MEMORY_TIER,
    VMFS,
    VMFS_L,
    VMKCORE,
    VSAN,
    PartitionType,
)
from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.volume import FileVolume, complete, has_files


class Generation(enum.Enum):
    """A layout of the hypervisor's disk."""

    ESX_3I = "ESX 3i 3.5"
    ESXI_4 = "ESXi 4.x"
    ESXI_5_6 = "ESXi 5.x or 6.x"
    ESXI_7_8 = "ESXi 7 or 8"


@dataclass(frozen=True, slots=True)
class Purpose:
    """Role of a partition, and the evidence for it."""

    role: Role
    evidence: tuple[Evidence, ...]


class AssessedPartition(BankPartition, Protocol):
    """Properties of a partition that are assessed."""

    @property
    def kind(self) -> str:
        """Kind of the content, as in `Partition.kind`."""
        ...

    @property
    def first_lba(self) -> int:
        """First sector, in sectors from the start of the decoded disk."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    @property
    def is_container(self) -> bool:
        """Whether it is an extended partition."""
        ...

    @property
    def type(self) -> PartitionType:
        """Type in the partition table."""
        ...

    @property
    def label(self) -> str | None:
        """Label of the volume, or else the name in a GPT."""
        ...

    @property
    def name(self) -> str | None:
        """Name in the partition table."""
        ...

    @property
    def entry_offset(self) -> int | None:
        """Bytes from the start of the decoded disk to its entry in the partition table."""
        ...


_BANK = Role.BOOTBANK
_ROLE_BY_LABEL: Final[Mapping[str, tuple[Role, bool]]] = {
    "hypervisor0": (Role.BOOT, False),
    "hypervisor1": (_BANK, True),
    "hypervisor2": (_BANK, False),
    "hypervisor3": (Role.STORE, False),
    "boot": (Role.BOOT, False),
    "bootbank1": (_BANK, True),
    "bootbank2": (_BANK, False),
    "locker": (Role.STORE, False),
    "osdata": (Role.OSDATA, False),
}
"""Role by label in the shipped layouts, and whether the partition is the first of two banks."""

ROLE_BY_TYPE: Final[Mapping[int | UUID, Role]] = {
    MBR_VMFS: Role.DATASTORE,
    VMFS: Role.DATASTORE,
    VMFS_L: Role.OSDATA,
    MBR_VMKCORE: Role.COREDUMP,
    VMKCORE: Role.COREDUMP,
    VSAN: Role.VSAN,
    MEMORY_TIER: Role.MEMORY_TIER,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The partition table of a generation, as its image or its installer makes it."""

    generation: Generation
    required: Mapping[int, tuple[int | UUID, tuple[int, ...]]]
    """Type and possible first sectors of each partition, by number."""
    roles: Mapping[int, Role]
    """Role by number; valid only where the type is right and the content does not contradict it."""


_BANKS_AND_STORE: Final = {4: Role.BOOT, 5: _BANK, 6: Role.ALT_BOOTBANK, 8: Role.STORE, 2: Role.SCRATCH}
_EFI_TYPES: Final = (MBR_EFI_SYSTEM, EFI_SYSTEM)
_FAT_TYPES: Final = (0x04, 0x06, 0x0E, BASIC_DATA, *_EFI_TYPES)

LAYOUTS: Final = (
    Layout(
        Generation.ESX_3I,
        {4: (0x04, (32,)), 5: (0x06, (8224,)), 6: (0x06, (106528,)), 7: (0xFC, (204832,)), 8: (0x06, (430112,))},
        _BANKS_AND_STORE,
    ),
    Layout(
        Generation.ESXI_4,
        {4: (0x04, (32,)), 5: (0x06, (8224,)), 6: (0x06, (520224,)), 7: (0xFC, (1032224,)), 8: (0x06, (1257504,))},
        _BANKS_AND_STORE,
    ),
    # The head of a dd image in MBR mode: as that of 4.x, but its boot partition also starts with UEFI.
    Layout(
        Generation.ESXI_5_6,
        {
            4: (MBR_EFI_SYSTEM, (32,)),
            5: (0x06, (8224,)),
            6: (0x06, (520224,)),
            7: (0xFC, (1032224,)),
            8: (0x06, (1257504,)),
        },
        _BANKS_AND_STORE,
    ),
    Layout(
        Generation.ESXI_5_6,
        {
            1: (EFI_SYSTEM, (64,)),
            5: (BASIC_DATA, (8224,)),
            6: (BASIC_DATA, (520224,)),
            7: (VMKCORE, (1032224,)),
            8: (BASIC_DATA, (1257504,)),
        },
        {**_BANKS_AND_STORE, 1: Role.BOOT},
    ),
    Layout(
        Generation.ESXI_7_8,
        {
            1: (EFI_SYSTEM, (64,)),
            5: (BASIC_DATA, (208896,)),
            6: (BASIC_DATA, (2308096, 8597504)),
            7: (VMFS_L, (4407296, 16986112)),
        },
        {1: Role.BOOT, 5: _BANK, 6: Role.ALT_BOOTBANK},
    ),
)
"""Known layouts; a disk has one of them when each required partition exists with its type and in its place."""

_LOADERS: Final = ("mboot.c32", "safeboot.c32", "ldlinux.sys", "efi")
"""Names in the root directory of a boot partition."""
_STORE_FOLDERS: Final = ("packages", "vmtools", "client", "vmupgrade")
_SCRATCH_FOLDERS: Final = ("log", "vmkdump", "core", "downloads", "uwswap", "vsantraces")
_SCRATCH_SIZE: Final = 8386560 * 512
"""Bytes of the scratch partition that the installer makes: 4 GiB less 1 MiB."""
_LARGEST_3I_BANK: Final = 100 << 20
"""Bytes that separate banks of 3.5, which have 48 MiB, from those of 4.0 and later, which have 250 MiB and more."""
_LARGEST_OLD_BANK: Final = 400 << 20
"""Bytes that separate banks of 4.0 to 6.x, which have 250 MiB, from those of 7 and 8, which have 500 MiB and more."""


def assess(
    partition: AssessedPartition, banks: Iterable[BootBank], generation: Generation | None, layout: Layout | None
) -> Purpose:
    """Purpose of a partition.

    Args:
        partition: The partition.
        banks: The boot banks of its disk.
        generation: Generation of its disk; None where it is not known.
        layout: Layout that its disk's table matches exactly; None where it matches none.
    """
    found = _assess_content(partition, tuple(banks), generation)
    if found.role is not Role.UNKNOWN or layout is None or _type_key(partition) not in _FAT_TYPES:
        return found
    role = layout.roles.get(partition.number, Role.UNKNOWN)
    if role is Role.UNKNOWN or (partition.volume is None and partition.kind not in ("empty", "unknown")):
        return found
    statement = f"the table is that of {layout.generation.value}, in which partition {partition.number} is this"
    return Purpose(role, (*found.evidence, Evidence(statement, partition.entry_offset)))


def find_layout(partitions: Iterable[AssessedPartition]) -> Layout | None:
    """Layout that a table matches exactly, each required partition with its type and in its place; None without one."""
    by_number = {partition.number: partition for partition in partitions}
    for layout in LAYOUTS:
        if all(
            (found := by_number.get(number)) is not None and _type_key(found) == key and found.first_lba in places
            for number, (key, places) in layout.required.items()
        ):
            return layout
    return None


def _assess_content(
    partition: AssessedPartition, banks: tuple[BootBank, ...], generation: Generation | None
) -> Purpose:
    key = _type_key(partition)
    evidence = []
    if key is not None:
        evidence.append(Evidence(f"its entry has type {partition.type}", partition.entry_offset))
    if partition.is_container:
        return Purpose(Role.CONTAINER, tuple(evidence))
    if partition.name:
        evidence.append(Evidence(f"its entry has the name {partition.name!r}", partition.entry_offset))
    volume = partition.volume
    if volume is not None:
        said = complete(volume).evidence(partition.name)
        evidence += said.evidence
        if said.role is not None:
            return Purpose(said.role, tuple(evidence))
        if has_files(volume) and complete(volume).boot_medium == "disk":
            return _assess_boot_disk(partition, volume, banks, generation, evidence)
    role = ROLE_BY_TYPE.get(key, Role.UNKNOWN) if key is not None else Role.UNKNOWN
    if role is Role.UNKNOWN and partition.name and partition.kind in ("empty", "unknown"):
        role, is_first = _ROLE_BY_LABEL.get(fold_name(partition.name), (role, False))
        role = Role.ALT_BOOTBANK if role is _BANK and not is_first else role
    return Purpose(role, tuple(evidence))


def find_generation(
    partitions: Iterable[AssessedPartition], banks: Iterable[BootBank], layout: Layout | None
) -> tuple[Generation | None, tuple[Evidence, ...]]:
    """Generation of a disk by its boot banks, or else by types, places, labels and sizes; and the evidence for it."""
    banks = tuple(banks)
    chosen = active_bank(banks)
    for bank in (chosen, *banks) if chosen is not None else banks:
        found = _generation_of(bank.build)
        if found is not None:
            statement = f"boot.cfg of partition {bank.key} has build={bank.build}"
            return found, (Evidence(statement, bank.configuration_offset),)
    if layout is not None:
        numbers = ", ".join(map(str, sorted(layout.required)))
        return layout.generation, (Evidence(f"partitions {numbers} have its types, in its places", None),)
    partitions = tuple(partitions)
    for partition in partitions:
        key, label = _type_key(partition), fold_name(partition.label or "")
        if key == VMFS_L:
            return Generation.ESXI_7_8, (Evidence(f"a partition has type {partition.type}", partition.entry_offset),)
        if label in ("bootbank1", "bootbank2"):
            return Generation.ESXI_7_8, (Evidence(f"a partition has the label {partition.label!r}", None),)
    for partition in partitions:
        key, label = _type_key(partition), fold_name(partition.label or "")
        if label in ("hypervisor1", "hypervisor2"):
            what = f"the bank {partition.label!r} has {partition.size / (1 << 20):.0f} MiB"
            evidence = (Evidence(what, partition.entry_offset),)
            if isinstance(key, UUID):
                return (Generation.ESXI_5_6 if partition.size < _LARGEST_OLD_BANK else None), evidence
            return (Generation.ESX_3I if partition.size < _LARGEST_3I_BANK else Generation.ESXI_4), evidence
    return None, ()


def _generation_of(build: str | None) -> Generation | None:
    major = (build or "").split(".")[0]
    generations = {3: Generation.ESX_3I, 4: Generation.ESXI_4, 5: Generation.ESXI_5_6, 6: Generation.ESXI_5_6}
    generations |= {7: Generation.ESXI_7_8, 8: Generation.ESXI_7_8}
    return generations.get(int(major)) if major.isascii() and major.isdigit() and len(major) < 3 else None


def _type_key(partition: AssessedPartition) -> int | UUID | None:
    return partition.type.guid if partition.type.code is None else partition.type.code


def _assess_boot_disk(
    partition: AssessedPartition,
    volume: FileVolume,
    banks: tuple[BootBank, ...],
    generation: Generation | None,
    evidence: list[Evidence],
) -> Purpose:
    role, is_first = _ROLE_BY_LABEL.get(fold_name(volume.label or partition.name or ""), (None, False))
    try:
        names = {fold_name(entry.name) for entry in volume.files.root}
    except CorruptImage:
        names = set()
    own = next((bank for bank in banks if bank.number == partition.number), None)
    # Whatever its label, a volume that the loader starts is a bank.
    if role is _BANK or (own is not None and (role is None or own is active_bank(banks))):
        return _assess_bank(partition, own, banks, evidence, is_first=is_first or role is None)
    if role is not None:
        return Purpose(role, tuple(evidence))
    for found, known in ((Role.BOOT, _LOADERS), (Role.STORE, _STORE_FOLDERS)):
        there = [name for name in known if name in names]
        if there:
            evidence.append(Evidence(f"its root directory has {', '.join(there)}", None))
            return Purpose(found, tuple(evidence))
    if _type_key(partition) in _EFI_TYPES:
        return Purpose(Role.BOOT, tuple(evidence))
    there = [name for name in _SCRATCH_FOLDERS if name in names]
    if len(there) > 1:
        evidence.append(Evidence(f"its root directory has {', '.join(there)}", None))
        return Purpose(Role.SCRATCH, tuple(evidence))
    if generation is not None and not names and partition.size == _SCRATCH_SIZE:
        evidence.append(Evidence("it is empty and has the 4 GiB less 1 MiB that the installer gives to scratch", None))
        return Purpose(Role.SCRATCH, tuple(evidence))
    return Purpose(Role.UNKNOWN, tuple(evidence))


def _assess_bank(
    partition: AssessedPartition,
    own: BootBank | None,
    banks: tuple[BootBank, ...],
    evidence: list[Evidence],
    *,
    is_first: bool,
) -> Purpose:
    chosen = active_bank(banks)
    if own is not None:
        values = ", ".join(f"{key}={own.configuration.values.get(key)}" for key in ("build", "updated", "bootstate"))
        evidence.append(Evidence(f"its boot.cfg has {values}", own.configuration_offset))
    else:
        evidence.append(Evidence("it has no boot.cfg that can be read", None))
    if chosen is None:
        role = Role.BOOTBANK if is_first else Role.ALT_BOOTBANK
        if any(bank.is_chosen_by_label for bank in banks):
            evidence.append(Evidence("banks of ESX 3i 3.5 have no marker: the label says which is the first", None))
            return Purpose(role, tuple(evidence))
        reason = "" if own is None or own.obstacle is None else f" (not this one, because {own.obstacle})"
        told = "its label" if partition.label else "its place on the disk"
        message = f"the boot loader's rule finds no bank to start{reason}; {told} says which of the two it is"
        evidence.append(Evidence(message, None))
        return Purpose(role, tuple(evidence))
    if chosen.number == partition.number:
        evidence.append(Evidence("the boot loader starts this bank: no other valid one has a higher 'updated'", None))
        return Purpose(Role.BOOTBANK, tuple(evidence))
    reason = "" if own is None or own.obstacle is None else f"; it does not start this one, because {own.obstacle}"
    evidence.append(Evidence(f"the boot loader starts the bank of partition {chosen.key}{reason}", None))
    return Purpose(Role.ALT_BOOTBANK, tuple(evidence))
