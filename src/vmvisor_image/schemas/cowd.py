"""Header of a sparse extent of ESX (COWD, vmfsSparse). Source: libvmdk, documentation; QEMU, block/vmdk.c."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U32, Bytes, Record, record

MAGIC: Final = b"COWD"


@record
class CowdHeader(Record):
    """First four sectors of the extent."""

    magic: Annotated[bytes, Bytes(4)]
    """`MAGIC`."""
    version: U32
    """1."""
    flags: U32
    """3."""
    capacity: U32
    """Sectors of the disk in this extent."""
    grain_size: U32
    """Sectors in a grain, usually 1."""
    directory: U32
    """Sector of the grain directory, usually 4."""
    directory_entries: U32
    """Entries of the grain directory."""
    next_free: U32
    """Sector after the last one that is in use."""
    root_or_child: Annotated[bytes, Bytes(1028)]
    """Geometry, or the name of the parent and its generation; old products have the latter."""
    generation: U32
    """Number that changes with the content."""
    name: Annotated[bytes, Bytes(60)]
    """Name of the disk, usually unset."""
    description: Annotated[bytes, Bytes(512)]
    """Text about the disk, usually unset."""
    saved_generation: U32
    """Value of `generation` when the disk was closed."""
    reserved: Annotated[bytes, Bytes(8)]
    """Unused."""
    unclean_shutdown: U32
    """1 while the extent is in use."""
    padding: Annotated[bytes, Bytes(396)]
    """Unused."""
