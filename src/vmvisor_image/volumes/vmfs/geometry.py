"""The generations of VMFS, each once, and the sizes of a volume's layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.vmfs import (
    DENSE_SUB_BLOCKS,
    DISK_BLOCK,
    HEARTBEATS_6,
    MOST_POINTERS_6,
    USUAL_ALIGNMENT,
    VMFS_6,
    FileSystemDescriptor,
)


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation of VMFS. VMFS-L is a generation with another magic."""

    number: int
    """Part before the dot of the version that hosts show: 3 in 3.31."""
    kind: str
    """Value of `VmfsVolume.kind`."""
    file_system_version: int
    """Value of `FileSystemDescriptor.major_version`."""
    lvm_version: int
    """Value of `LvmDevice.major_version`."""
    pointer_width: int
    """Bytes in a pointer."""
    pointers: int
    """Smallest number of pointers in a file descriptor."""
    heartbeats: int
    """Number of slots in which hosts show that they are alive."""
    has_extension: bool
    """Whether its descriptors have a `FileMetadataExtension`."""


GENERATIONS: Final = (
    Generation(3, "vmfs3", 4, 3, pointer_width=4, pointers=256, heartbeats=2048, has_extension=False),
    Generation(5, "vmfs5", 14, 5, pointer_width=4, pointers=256, heartbeats=2048, has_extension=True),
    Generation(
        6, "vmfs6", VMFS_6, 6, pointer_width=8, pointers=MOST_POINTERS_6, heartbeats=HEARTBEATS_6, has_extension=True
    ),
)
"""Known generations, oldest first."""


def by_file_system(version: int) -> Generation | None:
    """Generation whose file systems have exactly this `FileSystemDescriptor.major_version`; None for an unknown one."""
    return next((found for found in GENERATIONS if found.file_system_version == version), None)


def by_volume_manager(version: int) -> Generation | None:
    """Generation whose devices have exactly this `LvmDevice.major_version`; None for an unknown one."""
    return next((found for found in GENERATIONS if found.lvm_version == version), None)


def read_as(version: int) -> Generation:
    """Newest generation up to a `FileSystemDescriptor.major_version`, which may be unknown; otherwise the oldest."""
    return next((found for found in reversed(GENERATIONS) if found.file_system_version <= version), GENERATIONS[0])


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of one volume, in bytes."""

    generation: Generation
    """Generation as which it is read."""
    is_6: bool
    """Whether it is VMFS 6, with pointers of 64 bits and metadata in larger blocks."""
    block: int
    """Bytes in a file block."""
    large_block: int
    """Bytes in a large file block of VMFS 6."""
    sub_block: int
    """Bytes in a sub-block, as the file system descriptor says."""
    alignment: int
    """Bytes in a lock, and in the metadata that follows it."""
    header: int
    """Bytes in a cluster's lock and metadata, or in a file descriptor without its data."""
    descriptor: int
    """Bytes in a file descriptor."""
    data_at: int
    """Bytes from a descriptor's start to the data in it."""
    pointers_length: int
    """Bytes in the pointers at the end of a file descriptor."""
    zeroing_granularity: int
    """Bytes that are zeroed at once in VMFS 6; 0 where the descriptor does not say."""
    has_dense_sub_blocks: bool
    """Whether an address of a sub-block has two more bits for the resource, in VMFS 3 and 5."""

    @classmethod
    def of(cls, descriptor: FileSystemDescriptor) -> Geometry:
        """Sizes by a file system descriptor.

        Raises:
            CorruptImage: The descriptor's sizes are not valid.
        """
        generation = read_as(descriptor.major_version)
        block = _power_of_two(descriptor, "file_block_size", descriptor.file_block_size, 1 << 30)
        alignment, pointers = DISK_BLOCK, generation.pointers
        is_6 = generation.number == 6
        if is_6:
            alignment = USUAL_ALIGNMENT
            if descriptor.metadata_alignment:
                alignment = _power_of_two(descriptor, "metadata_alignment", descriptor.metadata_alignment, 1 << 16)
        if alignment > USUAL_ALIGNMENT:
            pointers = alignment // 16
        shift = descriptor.large_block_shift
        return cls(
            generation=generation,
            is_6=is_6,
            block=block,
            large_block=block << (shift if 0 < shift < 20 else 9),
            sub_block=descriptor.sub_block_size,
            alignment=alignment,
            header=2 * alignment,
            descriptor=2 * alignment if is_6 else 4 * DISK_BLOCK,
            data_at=alignment + DISK_BLOCK if is_6 else 2 * alignment,
            pointers_length=pointers * generation.pointer_width,
            zeroing_granularity=descriptor.zeroing_granularity,
            has_dense_sub_blocks=bool(descriptor.flags & DENSE_SUB_BLOCKS),
        )


def _power_of_two(descriptor: FileSystemDescriptor, field: str, value: int, most: int) -> int:
    if not 512 <= value <= most or value & (value - 1):
        raise CorruptImage(
            "not a power of two, or out of range",
            structure="VMFS file system descriptor",
            offset=descriptor.source_offset,
            field=field,
            expected=f"512 to {most}",
            found=value,
        )
    return value
