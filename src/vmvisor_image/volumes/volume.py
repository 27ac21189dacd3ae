"""A partition's content, as every type of volume offers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeGuard
from uuid import UUID

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
        """Its name in `Partition.kind`."""
        ...

    @property
    def label(self) -> str | None:
        """Its label, or None."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """Its headers as they are on disk, by their names."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What its headers say, in words."""
        ...


class FileVolume(Volume, Protocol):
    """A volume whose files this library reads."""

    @property
    def files(self) -> FileTree:
        """Its files."""
        ...

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`."""
        ...


def has_files(volume: Volume | None) -> TypeGuard[FileVolume]:
    """Whether it is a `FileVolume`; asks for none of its properties, some of which read much."""
    return hasattr(volume, "locate")


@dataclass(frozen=True, slots=True)
class VolumeEvidence:
    """A volume's own word on what it is."""

    evidence: tuple[Evidence, ...] = ()
    """Whatever in the volume says what it is."""
    role: Role | None = None
    """Its role; None where the volume alone does not tell it, `Role.UNKNOWN` where it rules out that others do."""


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
    """Everything that is wrong with the volume's structures."""
    allocation: Allocation | None = None
    """Bytes that belong to no file, for a volume that tells them."""
    not_checked: tuple[str, ...] | None = None
    """Parts of the volume that the check leaves out, in words; None for a volume without check sums of its files."""
    fat: FatFigures | None = None
    """Figures of a FAT volume."""
    vmfs: VmfsFigures | None = None
    """Figures of a VMFS volume."""


@dataclass(frozen=True, slots=True)
class CoreDumpUsage:
    """What a used diagnostic partition holds."""

    first: int
    """First byte that is not zero, from the partition's start."""
    end: int
    """End of the last block of 64 KiB that is not all zeros, exclusive."""
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
    """Its kind in one word, or its size in bytes: shown where a file has its size."""
    text: str
    """Its POSIX path from the volume's root, and what it leads to."""


BootMedium = Literal["disk", "cd"]
"""What a boot loader starts from."""


class BaseVolume:
    """A volume with the usual answers to all that is asked of one; types of volumes inherit from it.

    A subclass has a `kind`, and `files` and `locate` where its files are read; all else it may leave as it is here.
    """

    boot_medium: BootMedium | None = None
    """A boot loader's view of it: "disk" for a volume of a disk that may be a boot bank, "cd" for a CD."""

    @property
    def kind(self) -> str:
        """Its name in `Partition.kind`."""
        raise NotImplementedError

    @property
    def boot_uuid(self) -> bytes | None:
        """UUID by which a boot loader names the bank in it; None without one."""
        return None

    @property
    def label(self) -> str | None:
        """Its label, or None."""
        return None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return ()

    @property
    def records(self) -> Mapping[str, Record]:
        """Its headers as they are on disk, by their names."""
        return MappingProxyType({})

    @property
    def facts(self) -> Mapping[str, str]:
        """Statements of its headers, in words, by name."""
        return MappingProxyType({})

    @property
    def others(self) -> tuple[OtherEntry, ...]:
        """Entries beside files and directories, of the directories that were listed so far: links, for example."""
        return ()

    def evidence(self, name: str | None, /) -> VolumeEvidence:  # noqa: ARG002  # a subclass may need it
        """Its own word on what it is and, where it can tell, which role it has.

        Args:
            name: The partition's name in the partition table, where it has one.
        """
        return VolumeEvidence()

    def check(self) -> VolumeCheck:
        """Result of holding its structures against each other; may list every directory, and reads no file's content.

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

    def usage(self) -> CoreDumpUsage | None:
        """Amount of a core dump in it; None for any other volume, and without a dump.

        Raises:
            CorruptImage: The image is damaged there.
        """
        return None


@dataclass(frozen=True, slots=True)
class Hints:
    """Knowledge of a partition that is not in its bytes."""

    type_key: int | UUID | None
    """MBR type code or GPT type; None for a disk without a table."""
    is_other: Callable[[], bool]
    """Tells whether it begins with the magic of any format, by reading it."""


class VolumeFormat(Format, Protocol):
    """A module that reads a type of volumes."""

    def probe(self, disk: ReadAt, start: int, size: int, hints: Hints, /) -> bool:
        """Whether a volume of this type is in the partition of `size` bytes from byte `start` of `disk`."""
        ...

    def open_volume(self, disk: ReadAt, start: int, size: int, home: FileHome, /) -> Volume:
        """The volume there.

        Raises:
            CorruptImage: It is damaged beyond opening.
        """
        ...


class _PlainVolume(BaseVolume):
    """A volume that has no more than `Volume` asks for."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @property
    def kind(self) -> str:
        return self._volume.kind

    @property
    def facts(self) -> Mapping[str, str]:
        return self._volume.facts


def complete(volume: Volume) -> BaseVolume:
    """A volume itself, if it is a `BaseVolume`; for any other one, the usual answers."""
    return volume if isinstance(volume, BaseVolume) else _PlainVolume(volume)
