"""Partitions: where they are, what they are for, and the way to what they hold."""

from __future__ import annotations

import enum
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vmvisor_image.errors import CorruptImage, NotAFileSystem, PartitionNotFound, Problem
from vmvisor_image.files import Extent, FileTree
from vmvisor_image.schemas.mbr import SECTOR
from vmvisor_image.streams import ReadAt, Slice, open_stream
from vmvisor_image.tables import Scheme, Table, TableEntry
from vmvisor_image.volumes import Volume, open_volume

if TYPE_CHECKING:
    import uuid


class Role(enum.Enum):
    """What a partition is for on a hypervisor's disk."""

    BOOT = "boot"
    """Boot loader."""
    BOOTBANK = "bootbank"
    """The hypervisor's modules."""
    ALT_BOOTBANK = "alternate bootbank"
    """The bank to fall back to after a failed upgrade."""
    COREDUMP = "coredump"
    """Where the vmkernel writes its memory when it crashes."""
    STORE = "store"
    """VMware Tools, the client installer; later called the locker."""
    SCRATCH = "scratch"
    """Logs and swap of a running host; made on first boot."""
    DATASTORE = "datastore"
    """VMFS for virtual machines."""
    OSDATA = "osdata"
    """ESXi 7 and later: scratch, locker and core dumps in one VMFS-L volume."""
    CONTAINER = "container"
    """An extended partition: it holds the logical ones."""
    UNKNOWN = "unknown"
    """Nothing says what it is for."""


@dataclass(frozen=True, slots=True)
class PartitionType:
    """A partition's type as its table gives it."""

    code: int | None
    """MBR type code, or None in a GPT."""
    guid: uuid.UUID | None
    """GPT type, or None in an MBR."""
    name: str
    """What the type is called."""

    def __str__(self) -> str:
        return f"{self.name} ({self.guid if self.code is None else f'{self.code:#04x}'})"


PARTITION_TYPES: dict[int, str] = {
    0x01: "FAT12",
    0x04: "FAT16 <32M",
    0x05: "Extended",
    0x06: "FAT16",
    0x07: "HPFS/NTFS/exFAT",
    0x0B: "W95 FAT32",
    0x0C: "W95 FAT32 (LBA)",
    0x0E: "W95 FAT16 (LBA)",
    0x0F: "W95 Ext'd (LBA)",
    0x82: "Linux swap / Solaris",
    0x83: "Linux",
    0x85: "Linux extended",
    0x8E: "Linux LVM",
    0xEE: "GPT",
    0xEF: "EFI (FAT-12/16/32)",
    0xFB: "VMware VMFS",
    0xFC: "VMware VMKCORE",
    0xFD: "Linux raid autodetect",
}
"""Names of MBR type codes, as util-linux gives them (include/pt-mbr-partnames.h)."""

_VMKCORE_TYPE = 0xFC
_VMFS_TYPE = 0xFB

_ROLE_BY_LABEL = {
    "hypervisor0": Role.BOOT,
    "hypervisor1": Role.BOOTBANK,
    "hypervisor2": Role.ALT_BOOTBANK,
    "hypervisor3": Role.STORE,
}
"""Labels of ESX 3i 3.5 to ESXi 4.1 (formats: the FAT labels of the dd image)."""

_PURPOSE = {
    Role.BOOT: "It holds the boot loader (syslinux and mboot.c32), which starts the hypervisor from a boot bank.",
    Role.BOOTBANK: "It is the boot bank: the hypervisor's kernel and modules, loaded into memory at boot.",
    Role.ALT_BOOTBANK: "It is the alternate boot bank: an upgrade is written here, and the boot loader falls back to"
    " the other bank when it fails.",
    Role.COREDUMP: "It is the diagnostic partition: when the vmkernel crashes it writes a compressed dump of its memory"
    " here. No VMFS is in the shipped image; installers and the first boot make that, and the scratch partition, on the"
    " space behind it. A fresh one is all zeros. Its format is not publicly described.",
    Role.STORE: "It is the store (later called locker): VMware Tools and the client for download.",
    Role.DATASTORE: "Its type says VMFS, the file system for virtual machines.",
    Role.CONTAINER: "It holds no data itself: the logical partitions lie in it, each behind an extended boot record.",
    Role.UNKNOWN: "Nothing in it tells what it is for.",
}


class PartitionOwner(Protocol):
    """What a partition needs of its image; kept instead of what it gives, so that a pickled handle stays small."""

    @property
    def disk(self) -> ReadAt:
        """The decoded disk."""
        ...


class Partition:
    """One partition of a disk image; what it holds is read when it is first asked for."""

    def __init__(self, owner: PartitionOwner, entry: TableEntry, scheme: Scheme) -> None:
        """Made by `PartitionTable`."""
        self._owner = owner
        self._entry = entry
        self._scheme: Scheme = scheme
        self._lock = threading.Lock()
        self._opened = False
        self._volume: Volume | None = None
        self._problems: tuple[Problem, ...] = ()

    @property
    def number(self) -> int:
        """As fdisk and sfdisk number it; 1 for a volume without a partition table."""
        return self._entry.number

    @property
    def start(self) -> int:
        """First byte, from the start of the decoded disk."""
        return self._entry.start

    @property
    def size(self) -> int:
        """Bytes, as the partition table says."""
        return self._entry.size

    @property
    def first_lba(self) -> int:
        """First sector, in 512-byte sectors from the start of the decoded disk."""
        return self._entry.start // SECTOR

    @property
    def sectors(self) -> int:
        """Number of 512-byte sectors."""
        return self._entry.size // SECTOR

    @property
    def active(self) -> bool:
        """Marked for the BIOS to boot."""
        return self._entry.active

    @property
    def is_container(self) -> bool:
        """An extended partition, whose content is the logical partitions."""
        return self._entry.is_container

    @property
    def type(self) -> PartitionType:
        """Its type in the partition table."""
        if self._scheme == "none":
            return PartitionType(None, None, "whole disk")
        code = self._entry.type_code
        return PartitionType(code, None, PARTITION_TYPES.get(code, "Unknown"))

    @property
    def label(self) -> str | None:
        """The volume's label, or None where there is none or it can't be read."""
        volume = self._open_volume()
        if volume is None:
            return None
        try:
            return volume.label
        except CorruptImage as error:
            self._report(error)
            return None

    @property
    def kind(self) -> str:
        """What it holds: "fat12", "fat16", "fat32", "vmkcore" (by its type), "extended", or "unknown"."""
        if self.is_container:
            return "extended"
        volume = self._open_volume()
        if volume is not None:
            return volume.kind
        return "vmkcore" if self._entry.type_code == _VMKCORE_TYPE else "unknown"

    @property
    def role(self) -> Role:
        """What it is for, from its type and its label; never from its place alone."""
        if self.is_container:
            return Role.CONTAINER
        if self._entry.type_code == _VMKCORE_TYPE:
            return Role.COREDUMP
        if self._entry.type_code == _VMFS_TYPE:
            return Role.DATASTORE
        return _ROLE_BY_LABEL.get((self.label or "").casefold(), Role.UNKNOWN)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged in it so far."""
        self._open_volume()
        return self._problems + (() if self._volume is None else self._volume.problems)

    @property
    def files(self) -> FileTree:
        """Its files.

        Raises:
            NotAFileSystem: It holds none, or none that this library reads.
            CorruptImage: It holds one that can't be opened.
        """
        volume = self._open_volume()
        if volume is not None:
            return volume.files
        reason = f"; {self._problems[0]}" if self._problems else ""
        raise NotAFileSystem(f"partition {self.number} ({self.kind}) holds no file system that can be read{reason}")

    @property
    def disk(self) -> ReadAt:
        """The decoded disk that it is a part of."""
        return self._owner.disk

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """Extents of a file of its volume; for `File`."""
        volume = self._open_volume()
        if volume is None:
            raise NotAFileSystem(f"partition {self.number} holds no file system any more")
        return volume.locate(token)

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `offset` of the partition.

        Raises:
            TruncatedImage: The range passes the partition's end, or the image ends before it.
            CorruptImage: The image is damaged there.
        """
        return self._source.read_at(offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        """See `vmvisor_image.streams.prefetch`."""
        self._source.prefetch(offset, length)

    def open(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the partition."""
        return open_stream(self)

    def explain(self) -> str:
        """A paragraph: what this is, what it is for, and what says so, with offsets in bytes from the disk's start."""
        role, label = self.role, self.label
        place = f"bytes {self.start:#x} to {self.start + self.size:#x} (exclusive), {self.size / (1 << 20):.1f} MiB"
        if self._scheme == "none":
            evidence = "there is no partition table: the boot sector of the volume is at byte 0"
        else:
            evidence = f"its entry at byte {self._entry.source_offset:#x} of the disk has type {self.type}"
        if label is not None:
            evidence += f"; its volume, {self.kind}, has the label {label!r}"
        elif self._volume is not None:
            evidence += f"; it holds a {self.kind} volume without a label"
        problems = "".join(f" Problem: {problem}." for problem in self.problems)
        return f"Partition {self.number}: {place}. {_PURPOSE[role]} Evidence: {evidence}.{problems}"

    @property
    def _source(self) -> Slice:
        return Slice(self._owner.disk, self.start, self.size, f"partition {self.number}")

    def _open_volume(self) -> Volume | None:
        if not self._opened and not self.is_container:
            with self._lock:
                if not self._opened:
                    try:
                        self._volume = open_volume(self._owner.disk, self.start, self.size, self)
                    except CorruptImage as error:
                        self._report(error)
                    self._opened = True
        return self._volume

    def _report(self, error: CorruptImage) -> None:
        problem = Problem.of(error)
        if problem not in self._problems:
            self._problems += (problem,)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Partition, (self._owner, self._entry, self._scheme))

    def __repr__(self) -> str:
        return f"<Partition {self.number} {self.type} at {self.start:#x}, {self.size} bytes>"


class PartitionTable:
    """A disk's partitions, found one by one as they are asked for.

    Iterating gives them in disk order. ``table[5]`` finds one by its number and ``table["Hypervisor1"]`` by its
    label (without regard to case, the first one on the disk); both read the disk no further than they must.
    """

    def __init__(self, owner: PartitionOwner, table: Table) -> None:
        """Made by `Image`."""
        self._owner = owner
        self._table = table
        self._lock = threading.RLock()
        self._found: list[Partition] = []
        self._rest: Iterator[TableEntry] = table.entries()

    @property
    def scheme(self) -> Scheme:
        """Kind of the table: "mbr", "gpt", or "none"."""
        return self._table.scheme

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the table itself, and with how its partitions lie on the disk; reads all of it."""
        partitions = list(self)
        try:
            disk_size = self._owner.disk.size
        except CorruptImage:
            return self._table.problems + tuple(_overlaps(partitions))
        return self._table.problems + tuple(_outside(partitions, disk_size)) + tuple(_overlaps(partitions))

    def __getitem__(self, key: int | str) -> Partition:
        """The partition of that number or label.

        Raises:
            PartitionNotFound: There is none.
        """
        if isinstance(key, str):
            wanted = key.casefold()
            found = self._first(lambda partition: (partition.label or "").casefold() == wanted)
        else:
            found = self._first(lambda partition: partition.number == key)
        if found is None:
            known = ", ".join(f"{p.number}" + (f" ({p.label})" if p.label else "") for p in self)
            raise PartitionNotFound(f"no partition {key!r}; there are {known or 'none'}")
        return found

    def __contains__(self, key: object) -> bool:
        if isinstance(key, int | str):
            try:
                self[key]
            except PartitionNotFound:
                return False
            return True
        return any(partition is key for partition in self)

    def __iter__(self) -> Iterator[Partition]:
        self._first(lambda _: False)
        return iter(sorted(self._found, key=lambda partition: (partition.start, not partition.is_container)))

    def __len__(self) -> int:
        self._first(lambda _: False)
        return len(self._found)

    def _first(self, matches: Callable[[Partition], bool]) -> Partition | None:
        """The first partition that matches, finding more only while none of the known ones does."""
        position = 0
        while True:
            with self._lock:
                if position == len(self._found):
                    try:
                        entry = next(self._rest, None)
                    except BaseException:  # the source failed: go on from here when asked again
                        self._rest = itertools.islice(self._table.entries(), len(self._found), None)
                        raise
                    if entry is None:
                        return None
                    self._found.append(Partition(self._owner, entry, self.scheme))
                candidate = self._found[position]
            if matches(candidate):
                return candidate
            position += 1

    def __repr__(self) -> str:
        return f"<PartitionTable {self.scheme}, {len(self)} partitions>"


def _outside(partitions: list[Partition], disk_size: int) -> Iterator[Problem]:
    for partition in partitions:
        end = partition.start + partition.size
        if end > disk_size:
            yield Problem(
                f"partition {partition.number}",
                f"it ends at byte {end:#x}, past the end of the disk at {disk_size:#x}",
                partition.start,
            )


def _overlaps(partitions: list[Partition]) -> Iterator[Problem]:
    """Partitions that share bytes; an extended one and the logical ones in it do so by design."""
    extended = next((partition for partition in partitions if partition.is_container), None)
    previous: Partition | None = None
    for partition in partitions:
        if partition.is_container:
            continue
        if extended is not None:
            inside = extended.start <= partition.start < extended.start + extended.size
            whole = inside and partition.start + partition.size <= extended.start + extended.size
            logical = partition.number > 4  # primary partitions are 1-4
            if inside != logical or (logical and not whole):
                where = "reaches out of" if logical else "overlaps"
                yield Problem(
                    f"partition {partition.number}", f"it {where} extended partition {extended.number}", partition.start
                )
        if previous is not None and partition.start < previous.start + previous.size:
            yield Problem(f"partition {partition.number}", f"it overlaps partition {previous.number}", partition.start)
        if previous is None or partition.start + partition.size > previous.start + previous.size:
            previous = partition
