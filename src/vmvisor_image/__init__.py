"""Take hypervisor disk images apart: partitions, files and PXE trees, lazily and without temporary files."""

from vmvisor_image.archives.archive import Archive, open_archive
from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.base.limits import Limits
from vmvisor_image.boot.pxe import PxeExport, export_pxe
from vmvisor_image.compressions.layer import Layer
from vmvisor_image.disk.convert import Conversion, convert
from vmvisor_image.disk.datastore import Datastore, open_datastore
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.purpose import Generation
from vmvisor_image.errors import (
    ClosedError,
    CorruptImage,
    DependencyMissing,
    DestinationExists,
    DestinationFailed,
    DestinationFull,
    InvalidArgument,
    KeyUnavailable,
    LimitExceeded,
    MemberNotFound,
    NoDiskImage,
    NoLocalPath,
    NotADirectory,
    NotAFile,
    NotAFileSystem,
    NotAnArchive,
    PartialExtraction,
    PartitionNotFound,
    PathNotFound,
    Problem,
    ReadOnly,
    RemoteError,
    SeveralImages,
    SourceChanged,
    SourceError,
    TruncatedImage,
    UnsafeName,
    UsageError,
    VmvisorImageError,
)
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.examine.survey import Survey
from vmvisor_image.files.file import Directory, Extent, File, FileAttributes
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.reports.inspection import ImageReport, PartitionReport, inspect
from vmvisor_image.reports.verification import verify
from vmvisor_image.reports.verification_report import VerificationReport
from vmvisor_image.schemas.partition_types import PARTITION_TYPES, PartitionType
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.vmfs.files import FileLock, RawDeviceMapping
from vmvisor_image.volumes.vmfs.heartbeats import ActiveHost
from vmvisor_image.volumes.vmfs.volume import VmfsVolume

__version__ = "0.1.0"

__all__ = [
    "PARTITION_TYPES",
    "ActiveHost",
    "Archive",
    "ArchiveMember",
    "ClosedError",
    "Conversion",
    "CorruptImage",
    "Datastore",
    "DependencyMissing",
    "DestinationExists",
    "DestinationFailed",
    "DestinationFull",
    "Directory",
    "Evidence",
    "Extent",
    "File",
    "FileAttributes",
    "FileLock",
    "FileTree",
    "Generation",
    "Hexdump",
    "Image",
    "ImageReport",
    "InvalidArgument",
    "KeyUnavailable",
    "Layer",
    "LimitExceeded",
    "Limits",
    "MemberNotFound",
    "NoDiskImage",
    "NoLocalPath",
    "NotADirectory",
    "NotAFile",
    "NotAFileSystem",
    "NotAnArchive",
    "PartialExtraction",
    "Partition",
    "PartitionNotFound",
    "PartitionReport",
    "PartitionTable",
    "PartitionType",
    "PathNotFound",
    "Problem",
    "PxeExport",
    "RawDeviceMapping",
    "ReadAt",
    "ReadOnly",
    "Record",
    "RemoteError",
    "Role",
    "SeveralImages",
    "SourceChanged",
    "SourceError",
    "Survey",
    "TruncatedImage",
    "UnsafeName",
    "UsageError",
    "VerificationReport",
    "VmfsVolume",
    "VmvisorImageError",
    "convert",
    "export_pxe",
    "inspect",
    "open_archive",
    "open_datastore",
    "verify",
]
