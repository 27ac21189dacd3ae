"""Headers of tar archives and of VMware's variant of it, vmtar.

Sources: IEEE Std 1003.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" (old GNU format and
its sparse files). For vmtar the descriptions that docs/modules.md names; nothing of VMware's describes it publicly.

Numbers are octal digits that end in a NUL or a space; GNU writes those that don't fit in base 256, big-endian, with the
highest bit of the first byte set.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U32, Bytes, Record, record

BLOCK: Final = 512
"""Bytes in a block: a header takes one, and data of a tar is padded to a multiple of it."""
POSIX_MAGIC: Final = b"ustar\x0000"
"""Magic and version of POSIX archives."""
GNU_MAGIC: Final = b"ustar  \0"
"""Magic and version of GNU's own format; its pax archives have POSIX's."""
VISOR_MAGIC: Final = b"visor  \0"
"""Magic and version of vmtar."""
CHECKSUM: Final = slice(0x94, 0x9C)
"""Where the checksum lies in a header; it is the sum of the header's bytes with spaces in this place."""


@record
class MemberHeader(Record):
    """The header of one member, as far as it is the same in both formats."""

    name: Annotated[bytes, Bytes(100)]
    """Path, or its last part; ends at the first NUL."""
    mode: Annotated[bytes, Bytes(8)]
    """Permissions."""
    owner: Annotated[bytes, Bytes(8)]
    """User id."""
    group: Annotated[bytes, Bytes(8)]
    """Group id."""
    size: Annotated[bytes, Bytes(12)]
    """Bytes of data."""
    modified: Annotated[bytes, Bytes(12)]
    """Seconds since 1970 in UTC."""
    checksum: Annotated[bytes, Bytes(8)]
    """Sum of the header's bytes."""
    type_flag: U8
    """What the member is, an ASCII character; see `vmvisor_image.archives.tar`."""
    target: Annotated[bytes, Bytes(100)]
    """What a link leads to."""
    magic: Annotated[bytes, Bytes(8)]
    """Magic and version."""
    owner_name: Annotated[bytes, Bytes(32)]
    """User name."""
    group_name: Annotated[bytes, Bytes(32)]
    """Group name."""
    device_major: Annotated[bytes, Bytes(8)]
    """Of a device."""
    device_minor: Annotated[bytes, Bytes(8)]
    """Of a device."""


@record
class TarTail(Record):
    """The rest of a tar header."""

    prefix: Annotated[bytes, Bytes(155)]
    """What comes before the name, with a slash between; of GNU's old format the table of a sparse file."""
    padding: Annotated[bytes, Bytes(12)]
    """Unused, but for the size of a sparse file of GNU's old format."""


@record
class VmtarTail(Record):
    """The rest of a vmtar header: a shorter prefix, and four numbers."""

    prefix: Annotated[bytes, Bytes(151)]
    """What comes before the name, with a slash between."""
    data_offset: U32
    """Where the data lies, in bytes from the archive's start; 0 for none, or for data that follows the header."""
    text_offset: U32
    """Where the text segment of a program lies that is executed in place."""
    text_size: U32
    """Size of that segment."""
    fixup_count: U32
    """Pages to be relocated."""
