"""The interface to a partition's content that every type of volume has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeGuard
from uuid import UUID

from vmvisor_image.base.shown import Shown
from vmvisor_image.errors import Problem
from vmvisor_image.examine.signatures import Format
from vmvisor_image.files.file import Extent, FileHome
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.figures import FatFigures, VmfsFigures
from vmvisor_image.volumes.role import Evidence, Role


class Volume(Protocol):
    """A partition's content."""

    @property
    def kind(self) -> str:
        """Name of the kind, as in `Partition.kind`."""
        ...

    @property
    def label(self) -> str | None:
        """Label of the volume; None without one."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """Headers of the volume as they are on disk, by their names."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """Statements of its headers, in words, by name."""
        ...


class FileVolume(Volume, Protocol):
    """A volume whose files this library reads."""

    @property
    def files(self) -> FileTree:
        """Files of the volume."""
        ...

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`."""
        ...


def volume_repr(volume: Volume, label: str | None, start: int) -> str:
    """Text for `repr`, of what is known without reading; `start` is in bytes from the start of the decoded disk."""
    shown = "" if label is None else f" {label!r}"
    return f"<{type(volume).__name__} {volume.kind}{shown} at byte {start:#x}>"


def has_files(volume: Volume | None) -> TypeGuard[FileVolume]:
    """Whether it is a `FileVolume`; uses none of its properties, some of which read much."""
    return hasattr(volume, "locate")


@dataclass(frozen=True, slots=True)
class VolumeEvidence:
    """A volume's own evidence of its content and role."""

    evidence: tuple[Evidence, ...] = ()
    """Findings in the volume that identify it."""
    role: Role | None = None
    """Role of the partition; None where other evidence decides it, `Role.UNKNOWN` where no other evidence may."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Bytes of a volume that belong to no file; `verify` counts how many of them are not zero."""

    unit: int
    """Bytes in a cluster, the unit in which files get their space."""
    end: int
    """End of the last cluster, exclusive, in bytes from the start of the decoded disk."""
    free: Iterable[tuple[int, int]]
    """Offset on the decoded disk and bytes of each run of free clusters, by place."""


@dataclass(frozen=True, slots=True)
class VolumeCheck:
    """Result of a volume's own check."""

    problems: tuple[Problem, ...] = ()
    """Problems of the volume's structures."""
    allocation: Allocation | None = None
    """Bytes that belong to no file; None for a volume that does not record them."""
    not_checked: tuple[str, ...] | None = None
    """Parts of the volume that the check leaves out, in words; None for a volume without checksums of its files."""
    fat: FatFigures | None = None
    """Figures of a FAT volume."""
    vmfs: VmfsFigures | None = None
    """Figures of a VMFS volume."""


@dataclass(frozen=True, slots=True)
class CoreDumpUsage:
    """Amount and nature of the data in a used diagnostic partition."""

    first: int
    """Bytes from the partition's start to the first byte that is not zero."""
    end: int
    """Bytes from the partition's start to the end, exclusive, of the last block of 64 KiB that is not all zeros."""
    used: int
    """Bytes in blocks of 64 KiB that are not all zeros."""
    entropy: float
    """Mean entropy of those blocks, in bits per byte."""
    looks_compressed: bool
    """Whether most of them have the entropy of compressed or encrypted data."""


@dataclass(frozen=True, slots=True)
class OtherEntry:
    """An entry of a directory that is neither a file nor a directory, as a list of files shows it."""

    column: str
    """Text for the column of sizes: the kind of the entry in one word, or its size in bytes."""
    text: str
    """POSIX path from the volume's root, and the entry's target."""
    path: str = ""
    """POSIX path from the volume's root; empty where only `text` has it."""


BootMedium = Literal["disk", "cd"]
"""Medium from which a boot loader starts."""


class BaseVolume(Shown):
    """A volume with default properties and methods; types of volumes inherit from it.

    A subclass defines `kind`, and `files` and `locate` where its files are read; the rest may stay as it is here.
    """

    boot_medium: BootMedium | None = None
    """Medium for a boot loader: "disk" for a volume of a disk that may be a boot bank, "cd" for a CD."""
    is_guest: bool = False
    """Whether it is a file system of a guest, whose files reports do not list unasked."""

    @property
    def kind(self) -> str:
        """Name of the kind, as in `Partition.kind`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind}>"

    @property
    def boot_uuid(self) -> bytes | None:
        """UUID by which a boot loader identifies the bank in the volume; None without one."""
        return None

    @property
    def label(self) -> str | None:
        """Label of the volume; None without one."""
        return None

    @property
    def own_size(self) -> int | None:
        """Bytes of the volume by its own headers, whatever the size of its partition; None where they don't say."""
        return None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return ()

    @property
    def records(self) -> Mapping[str, Record]:
        """Headers of the volume as they are on disk, by their names."""
        return MappingProxyType({})

    @property
    def facts(self) -> Mapping[str, str]:
        """Statements of its headers, in words, by name."""
        return MappingProxyType({})

    @property
    def others(self) -> tuple[OtherEntry, ...]:
        """Entries other than files and directories, such as links, of the directories that were listed so far."""
        return ()

    def evidence(self, name: str | None, /) -> VolumeEvidence:  # noqa: ARG002  # a subclass may need it
        """Evidence in the volume of its content and, where the volume determines it, of its role.

        Args:
            name: The partition's name in the partition table, where it has one.
        """
        return VolumeEvidence()

    def check(self) -> VolumeCheck:
        """Result of comparing its structures with each other; may list every directory, and reads no file's content.

        Raises:
            LimitExceeded: There are too many files.
        """
        return VolumeCheck()

    def describe(self) -> tuple[str, ...]:
        """Sentences about its content, for `Partition.explain`.

        Raises:
            CorruptImage: The image is damaged there.
        """
        if not self.facts:
            return ()
        return ("It says of itself: " + ", ".join(f"{name} {value}" for name, value in self.facts.items()) + ".",)

    def close(self) -> None:
        """End what the volume started, when its image is closed; by default there is nothing."""

    def usage(self) -> CoreDumpUsage | None:
        """Amount of a core dump in it; None for any other volume, and without a dump.

        Raises:
            CorruptImage: The image is damaged there.
        """
        return None


@dataclass(frozen=True, slots=True)
class Hints:
    """Facts about a partition that are not in its bytes."""

    type_key: int | UUID | None
    """MBR type code or GPT type; None for a disk without a table."""
    is_other: Callable[[], bool]
    """Whether it begins with the magic of any format; reads the disk."""


class VolumeFormat(Format, Protocol):
    """A module that reads a type of volumes."""

    def probe(self, disk: ReadAt, start: int, size: int, hints: Hints, /) -> bool:
        """Whether a volume of this type is in the partition of `size` bytes from byte `start` of `disk`."""
        ...

    def open_volume(self, disk: ReadAt, start: int, size: int, home: FileHome, /) -> Volume:
        """Volume in that partition.

        Raises:
            CorruptImage: It is damaged beyond opening.
        """
        ...


class _PlainVolume(BaseVolume):
    """A volume with only the properties of `Volume`."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @property
    def kind(self) -> str:
        return self._volume.kind

    @property
    def facts(self) -> Mapping[str, str]:
        return self._volume.facts


def complete(volume: Volume) -> BaseVolume:
    """The volume itself, if it is a `BaseVolume`; otherwise the volume with default properties and methods."""
    return volume if isinstance(volume, BaseVolume) else _PlainVolume(volume)
