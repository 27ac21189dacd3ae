"""Updates of a processor's microcode, as Intel and AMD publish them.

Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A, "Microcode Update" (its table of the
header's fields); AMD's containers: Linux, arch/x86/kernel/cpu/microcode/amd.c, read for the facts.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, Bytes, Record, record

AMD_MAGIC: Final = 0x00414D44
"""First four bytes of a container, the letters "AMD" as a number."""
AMD_TABLE: Final = 0
"""Type of the section with the table of processors, which comes first."""
AMD_PATCH: Final = 1
"""Type of a section with one update."""
AMD_TABLE_ENTRY: Final = 16
"""Bytes of one processor in the table."""


@record
class IntelHeader(Record):
    """The 48 bytes before each of Intel's updates; the 32-bit numbers of the whole update add up to 0."""

    version: U32
    """1."""
    revision: U32
    """Of the update; higher is newer."""
    date: U32
    """As decimal digits, month, day, year: 0x01022018 is the second of January 2018."""
    processor: U32
    """What CPUID (leaf 1, EAX) says of the processor."""
    checksum: U32
    """What makes the sum of all 32-bit numbers 0."""
    loader_revision: U32
    """1."""
    platforms: U32
    """Bits for the sockets and platforms that it is for."""
    data_size: U32
    """Bytes of data behind the header; 0 for 2000."""
    total_size: U32
    """Bytes of the update, this header included; 0 for 2048."""
    reserved: Annotated[bytes, Bytes(12)]
    """Zeros, or later fields."""


@record
class AmdContainer(Record):
    """The start of AMD's container: its magic, and the head of the section with the table of processors."""

    magic: U32
    """`AMD_MAGIC`."""
    section_type: U32
    """`AMD_TABLE`."""
    size: U32
    """Bytes of the table."""


@record
class AmdSection(Record):
    """The head of one of the container's later sections."""

    section_type: U32
    """`AMD_PATCH`."""
    size: U32
    """Bytes of the update, which follows."""


@record
class AmdPatch(Record):
    """The start of one of AMD's updates, up to what says which processor it is for."""

    date: U32
    """As Intel's."""
    revision: U32
    """Of the update; higher is newer."""
    data_id: U16
    """Kind of its data."""
    data_length: U8
    """Length of its data, in units of the processor."""
    initialisation: U8
    """Whether the processor is to be initialised by it."""
    checksum: U32
    """Of its data."""
    north_bridge: U32
    """Identifier of the chip that it is for; 0 for any."""
    south_bridge: U32
    """Identifier of the chip that it is for; 0 for any."""
    processor: U16
    """Number that the container's table has for its processors."""
