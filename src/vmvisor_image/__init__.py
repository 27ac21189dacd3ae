"""Take hypervisor disk images apart: partitions, files and PXE trees, lazily and without temporary files."""

from __future__ import annotations

# ruff: isort: skip_file
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import vmvisor_image.base.forking  # noqa: F401  # a fork is made safe from the first import on

if TYPE_CHECKING:
    from vmvisor_image import boot as boot, bzip2 as bzip2, errors as errors, fleet as fleet, record as record
    from vmvisor_image import testing as testing
    from vmvisor_image.archives.archive import Archive as Archive, open_archive as open_archive
    from vmvisor_image.archives.member import ArchiveMember as ArchiveMember
    from vmvisor_image.base.limits import Limits as Limits
    from vmvisor_image.boot.host import Host as Host, open_host as open_host
    from vmvisor_image.boot.provenance import (
        ModuleProvenance as ModuleProvenance,
        Provenance as Provenance,
        Verdict as Verdict,
        VibProvenance as VibProvenance,
    )
    from vmvisor_image.boot.pxe import PxeExport as PxeExport, export_pxe as export_pxe
    from vmvisor_image.compressions.layer import Layer as Layer
    from vmvisor_image.disk.convert import Conversion as Conversion, convert as convert
    from vmvisor_image.disk.datastore import Datastore as Datastore, open_datastore as open_datastore
    from vmvisor_image.disk.descriptor import rebuild_descriptor as rebuild_descriptor
    from vmvisor_image.disk.explanation import Explanation as Explanation, NextStep as NextStep
    from vmvisor_image.disk.image import Image as Image
    from vmvisor_image.disk.partition import Partition as Partition
    from vmvisor_image.disk.partition_table import (
        FoundPartitions as FoundPartitions,
        PartitionTable as PartitionTable,
    )
    from vmvisor_image.disk.purpose import Generation as Generation
    from vmvisor_image.disk.search import SuspectRange as SuspectRange
    from vmvisor_image.disk.tables.table import Finding as Finding
    from vmvisor_image.errors import (
        ClosedError as ClosedError,
        CorruptImage as CorruptImage,
        DependencyMissing as DependencyMissing,
        DestinationExists as DestinationExists,
        DestinationFailed as DestinationFailed,
        DestinationFull as DestinationFull,
        InvalidArgument as InvalidArgument,
        KeyUnavailable as KeyUnavailable,
        LimitExceeded as LimitExceeded,
        MemberNotFound as MemberNotFound,
        NoDiskImage as NoDiskImage,
        NoLocalPath as NoLocalPath,
        NotADirectory as NotADirectory,
        NotAHost as NotAHost,
        NotAMachine as NotAMachine,
        NotAFile as NotAFile,
        NotAFileSystem as NotAFileSystem,
        NotAnArchive as NotAnArchive,
        PartialExtraction as PartialExtraction,
        PartitionNotFound as PartitionNotFound,
        PathNotFound as PathNotFound,
        Problem as Problem,
        ReadOnly as ReadOnly,
        RemoteError as RemoteError,
        SeveralImages as SeveralImages,
        SourceChanged as SourceChanged,
        SourceError as SourceError,
        SourceIsDirectory as SourceIsDirectory,
        SourceNotDirectory as SourceNotDirectory,
        SourceNotFound as SourceNotFound,
        SourceNotPermitted as SourceNotPermitted,
        TruncatedImage as TruncatedImage,
        UnsafeName as UnsafeName,
        UsageError as UsageError,
        VmvisorImageError as VmvisorImageError,
        WorkerFailed as WorkerFailed,
    )
    from vmvisor_image.examine.hexdump import Hexdump as Hexdump
    from vmvisor_image.examine.survey import Survey as Survey
    from vmvisor_image.files.file import (
        Directory as Directory,
        Extent as Extent,
        File as File,
        FileAttributes as FileAttributes,
    )
    from vmvisor_image.files.tree import FileTree as FileTree
    from vmvisor_image.machines.machine import DiskDevice as DiskDevice
    from vmvisor_image.machines.opening import (
        FoundMachines as FoundMachines,
        find_machines as find_machines,
        open_machine as open_machine,
    )
    from vmvisor_image.machines.virtual_machine import (
        Machine as Machine,
        MachineDisks as MachineDisks,
        Snapshot as Snapshot,
    )
    from vmvisor_image.packages.bundle import Bundle as Bundle, open_bundle as open_bundle
    from vmvisor_image.packages.certificates import (
        Certificate as Certificate,
        open_certificates as open_certificates,
    )
    from vmvisor_image.packages.database import (
        ImageDatabase as ImageDatabase,
        open_image_database as open_image_database,
    )
    from vmvisor_image.packages.signatures import SignatureCheck as SignatureCheck, SignatureState as SignatureState
    from vmvisor_image.packages.vib import Vib as Vib, open_vib as open_vib
    from vmvisor_image.record import Record as Record
    from vmvisor_image.reports.inspection import (
        ImageReport as ImageReport,
        PartitionReport as PartitionReport,
        inspect as inspect,
    )
    from vmvisor_image.reports.verification import verify as verify
    from vmvisor_image.reports.verification_report import VerificationReport as VerificationReport
    from vmvisor_image.schemas.partition_types import PARTITION_TYPES as PARTITION_TYPES, PartitionType as PartitionType
    from vmvisor_image.streams.linked import Link as Link
    from vmvisor_image.streams.source import ReadAt as ReadAt
    from vmvisor_image.volumes.guests.volume import GuestVolume as GuestVolume
    from vmvisor_image.volumes.role import Evidence as Evidence, Role as Role
    from vmvisor_image.volumes.vmfs.files import FileLock as FileLock, RawDeviceMapping as RawDeviceMapping
    from vmvisor_image.volumes.vmfs.heartbeats import ActiveHost as ActiveHost
    from vmvisor_image.volumes.vmfs.volume import VmfsVolume as VmfsVolume

__version__ = "0.1.0"

_HOMES: Final = {
    "archives.archive": "Archive open_archive",
    "archives.member": "ArchiveMember",
    "base.limits": "Limits",
    "boot.host": "Host open_host",
    "boot.provenance": "ModuleProvenance Provenance Verdict VibProvenance",
    "boot.pxe": "PxeExport export_pxe",
    "compressions.layer": "Layer",
    "disk.convert": "Conversion convert",
    "disk.datastore": "Datastore open_datastore",
    "disk.descriptor": "rebuild_descriptor",
    "disk.explanation": "Explanation NextStep",
    "disk.image": "Image",
    "disk.partition": "Partition",
    "disk.partition_table": "FoundPartitions PartitionTable",
    "disk.purpose": "Generation",
    "disk.search": "SuspectRange",
    "disk.tables.table": "Finding",
    "errors": (
        "ClosedError CorruptImage DependencyMissing DestinationExists DestinationFailed DestinationFull "
        "InvalidArgument KeyUnavailable LimitExceeded MemberNotFound NoDiskImage NoLocalPath "
        "NotADirectory NotAFile NotAFileSystem NotAHost NotAMachine NotAnArchive PartialExtraction PartitionNotFound "
        "PathNotFound Problem ReadOnly RemoteError SeveralImages SourceChanged SourceError "
        "SourceIsDirectory SourceNotDirectory SourceNotFound SourceNotPermitted TruncatedImage UnsafeName UsageError "
        "VmvisorImageError WorkerFailed"
    ),
    "examine.hexdump": "Hexdump",
    "examine.survey": "Survey",
    "files.file": "Directory Extent File FileAttributes",
    "files.tree": "FileTree",
    "machines.machine": "DiskDevice",
    "machines.opening": "FoundMachines find_machines open_machine",
    "machines.virtual_machine": "Machine MachineDisks Snapshot",
    "packages.bundle": "Bundle open_bundle",
    "packages.certificates": "Certificate open_certificates",
    "packages.database": "ImageDatabase open_image_database",
    "packages.signatures": "SignatureCheck SignatureState",
    "packages.vib": "Vib open_vib",
    "record": "Record",
    "reports.inspection": "ImageReport PartitionReport inspect",
    "reports.verification": "verify",
    "reports.verification_report": "VerificationReport",
    "schemas.partition_types": "PARTITION_TYPES PartitionType",
    "streams.linked": "Link",
    "streams.source": "ReadAt",
    "volumes.guests.volume": "GuestVolume",
    "volumes.role": "Evidence Role",
    "volumes.vmfs.files": "FileLock RawDeviceMapping",
    "volumes.vmfs.heartbeats": "ActiveHost",
    "volumes.vmfs.volume": "VmfsVolume",
}
"""The public names by the module in which they live, which is imported when one of them is first used."""

_MODULES: Final = ("boot", "bzip2", "errors", "fleet", "record", "testing")
"""The public modules that need no extra; each is imported when it is first used."""

__all__ = sorted(name for names in _HOMES.values() for name in names.split())  # noqa: PLE0605  # type checkers read the imports above


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    for module, names in _HOMES.items():
        if name in names.split():
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "__version__"]
