"""Structures in and around boot modules: trailer of a signature, ELF, Multiboot, envelope of a configuration.

Sources: vmware/esx-boot, include/ and mboot/secure.c, read for the facts (trailer, ESXBootInfo); System V ABI, gABI 4,
"ELF Header" and "Program Header"; Multiboot Specification 0.6.96, 3.1. VMware documents the envelope nowhere;
docs/modules.md names the sources of its facts.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

SIGNATURE_MAGIC: Final = 0x1ABE11ED
"""Last four bytes of a signed module."""
ELF_MAGIC: Final = b"\x7fELF"
MULTIBOOT_MAGIC: Final = 0x1BADB002
"""Magic of a Multiboot header, which lies in the first 8192 bytes of the file at a multiple of 4 bytes."""
ESX_BOOT_INFO_MAGIC: Final = 0x1BADB005
"""Magic of an ESXBootInfo header, in the first 8192 bytes of the lowest segment at a multiple of 8 bytes."""
HEADER_SEARCH: Final = 8192
"""Bytes that are searched for these headers."""
ENVELOPE_MAGIC: Final = b"DataTransformEnvelope"
ENVELOPE_FOOTER_MAGIC: Final = b"DataTransformAeadFooter"
ENVELOPE_PADDING_MAGIC: Final = b"DataTransformCryptoFooter"
ENVELOPE_BLOCK: Final = 4096
"""Bytes in the envelope's header, and in its footer."""
ENVELOPE_ATTRIBUTES: Final = ENVELOPE_BLOCK - 512
"""Bytes of the header that attributes may take."""


@record
class SignatureTail(Record):
    """End of a signed module; before it comes the signature, and before that its schema, a 32-bit number."""

    signature_length: U32
    """Bytes in the signature."""
    magic: U32
    """`SIGNATURE_MAGIC`."""


@record
class ElfIdentification(Record):
    """First 20 bytes of an ELF file, the same for 32 and 64 bits."""

    magic: Annotated[bytes, Bytes(4)]
    """`ELF_MAGIC`."""
    bits: U8
    """Class of the file: 1 for 32 bits, 2 for 64."""
    data_encoding: U8
    """Byte order: 1 for little-endian."""
    version: U8
    """1."""
    padding: Annotated[bytes, Bytes(9)]
    """Identification of the operating system, and unused bytes."""
    object_type: U16
    """Type of the file: 2 for a program, 3 for a shared object."""
    machine: U16
    """Processor: 3 for x86, 62 for x86-64, 183 for AArch64."""


@record
class Elf32Rest(Record):
    """Rest of an ELF header of 32 bits."""

    version: U32
    """1."""
    entry: U32
    """Address at which the program starts."""
    program_headers: U32
    """Bytes from the file's start to the program headers."""
    section_headers: U32
    """Bytes from the file's start to the section headers."""
    flags: U32
    """Flags of the processor."""
    header_size: U16
    """Bytes in the ELF header."""
    program_header_size: U16
    """Bytes in a program header."""
    program_header_count: U16
    """Number of program headers."""


@record
class Elf64Rest(Record):
    """Rest of an ELF header of 64 bits."""

    version: U32
    """1."""
    entry: U64
    """Address at which the program starts."""
    program_headers: U64
    """Bytes from the file's start to the program headers."""
    section_headers: U64
    """Bytes from the file's start to the section headers."""
    flags: U32
    """Flags of the processor."""
    header_size: U16
    """Bytes in the ELF header."""
    program_header_size: U16
    """Bytes in a program header."""
    program_header_count: U16
    """Number of program headers."""


@record
class Elf32ProgramHeader(Record):
    """Header of a segment of a program of 32 bits."""

    segment_type: U32
    """Type of the segment: 1 for one that is loaded."""
    offset: U32
    """First byte of the segment in the file."""
    virtual_address: U32
    """Virtual address of the segment."""
    physical_address: U32
    """Physical address at which the segment is loaded."""
    file_size: U32
    """Bytes in the file."""
    memory_size: U32
    """Bytes in memory."""
    flags: U32
    """Permissions."""
    alignment: U32
    """Alignment of the segment's addresses."""


@record
class Elf64ProgramHeader(Record):
    """Header of a segment of a program of 64 bits."""

    segment_type: U32
    """Type of the segment: 1 for one that is loaded."""
    flags: U32
    """Permissions."""
    offset: U64
    """First byte of the segment in the file."""
    virtual_address: U64
    """Virtual address of the segment."""
    physical_address: U64
    """Physical address at which the segment is loaded."""
    file_size: U64
    """Bytes in the file."""
    memory_size: U64
    """Bytes in memory."""
    alignment: U64
    """Alignment of the segment's addresses."""


@record
class MultibootHeader(Record):
    """Header by which a boot loader recognises a kernel; its three numbers add up to 0 modulo 2^32."""

    magic: U32
    """`MULTIBOOT_MAGIC`."""
    flags: U32
    """Bits of the services that the kernel asks for."""
    checksum: U32
    """Number that makes the sum 0."""


@record
class EnvelopeHeader(Record):
    """Beginning of an encrypted ``local.tgz.ve``; attributes follow."""

    magic: Annotated[bytes, Bytes(21)]
    """`ENVELOPE_MAGIC`."""
    padding: Annotated[bytes, Bytes(483)]
    """Zeros."""
    size: U32
    """Bytes in the area of attributes, which follows: `ENVELOPE_ATTRIBUTES`."""
    version: U32
    """2."""


@record
class EnvelopeFooter(Record):
    """Beginning of the last 4096 bytes of the envelope, which end in the tag's length, 16, and version 1."""

    magic: Annotated[bytes, Bytes(23)]
    """`ENVELOPE_FOOTER_MAGIC`."""
    padding: Annotated[bytes, Bytes(9)]
    """Zeros."""
    digest: Annotated[bytes, Bytes(16)]
    """Tag of the encryption."""


@record
class EnvelopePadding(Record):
    """Last 512 bytes of the decrypted data; the bytes before it in the last block are random."""

    magic: Annotated[bytes, Bytes(25)]
    """`ENVELOPE_PADDING_MAGIC`."""
    unused: Annotated[bytes, Bytes(479)]
    """Zeros."""
    padding: U32
    """Bytes between the content and the last block."""
    version: U32
    """2."""
