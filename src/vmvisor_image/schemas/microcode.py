"""Updates of processor microcode, as Intel and AMD publish them.

Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, "Microcode Update" (its table of the
header's fields); AMD's containers: Linux, arch/x86/kernel/cpu/microcode/amd.c, read for the facts.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, Bytes, Record, record

AMD_MAGIC: Final = 0x00414D44
"""First four bytes of a container: the letters "AMD" as a number."""
AMD_TABLE: Final = 0
"""Type of the first section, with the table of processors."""
AMD_PATCH: Final = 1
"""Type of a section with one update."""
AMD_TABLE_ENTRY: Final = 16
"""Bytes in the table's entry for one processor."""


@record
class IntelHeader(Record):
    """Header of each of Intel's updates, 48 bytes; the 32-bit numbers of the whole update add up to 0."""

    version: U32
    """1."""
    revision: U32
    """Revision of the update; higher is newer."""
    date: U32
    """Month, day and year as decimal digits: 0x01022018 is the second of January 2018."""
    processor: U32
    """Value of CPUID (leaf 1, EAX) on the processor."""
    checksum: U32
    """Number that makes the sum of all 32-bit numbers 0."""
    loader_revision: U32
    """1."""
    platforms: U32
    """Bits of the sockets and platforms that the update is for."""
    data_size: U32
    """Bytes of data behind the header; 0 means 2000."""
    total_size: U32
    """Bytes of the update, including this header; 0 means 2048."""
    reserved: Annotated[bytes, Bytes(12)]
    """Zeros, or later fields."""


@record
class AmdContainer(Record):
    """Start of AMD's container: its magic, and the head of the section with the table of processors."""

    magic: U32
    """`AMD_MAGIC`."""
    section_type: U32
    """`AMD_TABLE`."""
    size: U32
    """Bytes of the table."""


@record
class AmdSection(Record):
    """Head of one of the container's later sections."""

    section_type: U32
    """`AMD_PATCH`."""
    size: U32
    """Bytes of the update, which follows."""


@record
class AmdPatch(Record):
    """Start of one of AMD's updates, up to the number of its processors."""

    date: U32
    """Month, day and year, encoded as in `IntelHeader`."""
    revision: U32
    """Revision of the update; higher is newer."""
    data_id: U16
    """Kind of the update's data."""
    data_length: U8
    """Length of the update's data, in units of the processor."""
    initialisation: U8
    """Whether the update initialises the processor."""
    checksum: U32
    """Checksum of the update's data."""
    north_bridge: U32
    """Identifier of the north bridge that the update is for; 0 for any."""
    south_bridge: U32
    """Identifier of the south bridge that the update is for; 0 for any."""
    processor: U16
    """Number of the update's processors in the container's table."""
