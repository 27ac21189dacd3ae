"""What boot modules have around and in them: a signature's trailer, ELF, Multiboot, the envelope of a configuration.

Sources: vmware/esx-boot, include/ and mboot/secure.c, read for the facts (trailer, ESXBootInfo); System V ABI, gABI 4,
"ELF Header" and "Program Header"; Multiboot Specification 0.6.96, 3.1. The envelope is described nowhere by VMware:
docs/modules.md says where its facts are from.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

SIGNATURE_MAGIC: Final = 0x1ABE11ED
"""Last four bytes of a signed module."""
ELF_MAGIC: Final = b"\x7fELF"
MULTIBOOT_MAGIC: Final = 0x1BADB002
"""Magic of a Multiboot header, which lies in the first 8192 bytes of the file at a multiple of 4."""
ESX_BOOT_INFO_MAGIC: Final = 0x1BADB005
"""Magic of an ESXBootInfo header, in the first 8192 bytes of the lowest segment at a multiple of 8."""
HEADER_SEARCH: Final = 8192
"""Bytes in which these headers are looked for."""
ENVELOPE_MAGIC: Final = b"DataTransformEnvelope"
ENVELOPE_FOOTER_MAGIC: Final = b"DataTransformAeadFooter"
ENVELOPE_PADDING_MAGIC: Final = b"DataTransformCryptoFooter"
ENVELOPE_BLOCK: Final = 4096
ENVELOPE_ATTRIBUTES: Final = ENVELOPE_BLOCK - 512
"""Bytes of the header that attributes may take."""
"""Bytes of the envelope's header, and of its footer."""


@record
class SignatureTail(Record):
    """The end of a signed module; before it comes the signature, and before that its schema, a 32-bit number."""

    signature_length: U32
    """Bytes of the signature."""
    magic: U32
    """`SIGNATURE_MAGIC`."""


@record
class ElfIdentification(Record):
    """The first 20 bytes of an ELF file, the same for 32 and 64 bits."""

    magic: Annotated[bytes, Bytes(4)]
    """`ELF_MAGIC`."""
    bits: U8
    """1 for 32 bits, 2 for 64."""
    data_encoding: U8
    """1 for little-endian."""
    version: U8
    """1."""
    padding: Annotated[bytes, Bytes(9)]
    """System and unused."""
    object_type: U16
    """2 for a program, 3 for a shared object."""
    machine: U16
    """3 for x86, 62 for x86-64, 183 for AArch64."""


@record
class Elf32Rest(Record):
    """The rest of an ELF header of 32 bits."""

    version: U32
    """1."""
    entry: U32
    """Address at which the program starts."""
    program_headers: U32
    """Where the program headers lie, in bytes from the file's start."""
    section_headers: U32
    """Where the section headers lie."""
    flags: U32
    """Of the processor."""
    header_size: U16
    """Bytes in the ELF header."""
    program_header_size: U16
    """Bytes in a program header."""
    program_header_count: U16
    """Number of them."""


@record
class Elf64Rest(Record):
    """The rest of an ELF header of 64 bits."""

    version: U32
    """1."""
    entry: U64
    """Address at which the program starts."""
    program_headers: U64
    """Where the program headers lie, in bytes from the file's start."""
    section_headers: U64
    """Where the section headers lie."""
    flags: U32
    """Of the processor."""
    header_size: U16
    """Bytes in the ELF header."""
    program_header_size: U16
    """Bytes in a program header."""
    program_header_count: U16
    """Number of them."""


@record
class Elf32ProgramHeader(Record):
    """A segment of a program of 32 bits."""

    segment_type: U32
    """1 for one that is loaded."""
    offset: U32
    """First byte in the file."""
    virtual_address: U32
    """Where it is mapped."""
    physical_address: U32
    """Where it is loaded."""
    file_size: U32
    """Bytes in the file."""
    memory_size: U32
    """Bytes in memory."""
    flags: U32
    """Permissions."""
    alignment: U32
    """Of its addresses."""


@record
class Elf64ProgramHeader(Record):
    """A segment of a program of 64 bits."""

    segment_type: U32
    """1 for one that is loaded."""
    flags: U32
    """Permissions."""
    offset: U64
    """First byte in the file."""
    virtual_address: U64
    """Where it is mapped."""
    physical_address: U64
    """Where it is loaded."""
    file_size: U64
    """Bytes in the file."""
    memory_size: U64
    """Bytes in memory."""
    alignment: U64
    """Of its addresses."""


@record
class MultibootHeader(Record):
    """By which a boot loader knows a kernel; the three numbers add up to 0 modulo 2^32."""

    magic: U32
    """`MULTIBOOT_MAGIC`."""
    flags: U32
    """What the kernel asks for."""
    checksum: U32
    """Makes the sum 0."""


@record
class EnvelopeHeader(Record):
    """The beginning of an encrypted ``local.tgz.ve``; attributes follow."""

    magic: Annotated[bytes, Bytes(21)]
    """`ENVELOPE_MAGIC`."""
    padding: Annotated[bytes, Bytes(483)]
    """Zeros."""
    size: U32
    """Bytes of the area of attributes, which follows: `ENVELOPE_ATTRIBUTES`."""
    version: U32
    """2."""


@record
class EnvelopeFooter(Record):
    """The beginning of the last 4096 bytes of the envelope, which end in the tag's length, 16, and version 1."""

    magic: Annotated[bytes, Bytes(23)]
    """`ENVELOPE_FOOTER_MAGIC`."""
    padding: Annotated[bytes, Bytes(9)]
    """Zeros."""
    digest: Annotated[bytes, Bytes(16)]
    """The tag of the encryption."""


@record
class EnvelopePadding(Record):
    """The last 512 bytes of the decrypted data; what is before it in the last block is random."""

    magic: Annotated[bytes, Bytes(25)]
    """`ENVELOPE_PADDING_MAGIC`."""
    unused: Annotated[bytes, Bytes(479)]
    """Zeros."""
    padding: U32
    """Bytes between the content and the last block."""
    version: U32
    """2."""
