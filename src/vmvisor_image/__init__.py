"""Take hypervisor disk images apart: partitions, files and PXE trees, lazily and without temporary files."""

from vmvisor_image.boot import PxeExport, export_pxe
from vmvisor_image.errors import (
    ClosedError,
    CorruptImage,
    DestinationExists,
    InvalidArgument,
    NotAFileSystem,
    PartialExtraction,
    PartitionNotFound,
    PathNotFound,
    Problem,
    TruncatedImage,
    UnsafeName,
    UsageError,
    VmvisorImageError,
)
from vmvisor_image.files import Directory, Extent, File, FileTree
from vmvisor_image.image import Image
from vmvisor_image.layers import Layer
from vmvisor_image.partition import PARTITION_TYPES, Partition, PartitionTable, PartitionType, Role
from vmvisor_image.report import ImageReport, PartitionReport, inspect
from vmvisor_image.seekable_zstd import Conversion, convert
from vmvisor_image.streams import ReadAt

__version__ = "0.1.0"

__all__ = [
    "PARTITION_TYPES",
    "ClosedError",
    "Conversion",
    "CorruptImage",
    "DestinationExists",
    "Directory",
    "Extent",
    "File",
    "FileTree",
    "Image",
    "ImageReport",
    "InvalidArgument",
    "Layer",
    "NotAFileSystem",
    "PartialExtraction",
    "Partition",
    "PartitionNotFound",
    "PartitionReport",
    "PartitionTable",
    "PartitionType",
    "PathNotFound",
    "Problem",
    "PxeExport",
    "ReadAt",
    "Role",
    "TruncatedImage",
    "UnsafeName",
    "UsageError",
    "VmvisorImageError",
    "convert",
    "export_pxe",
    "inspect",
]
