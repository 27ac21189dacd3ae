"""Headers of tar archives and of vmtar, VMware's variant.

Sources: IEEE Std 1003.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" (old GNU format and
its sparse files). For vmtar, the descriptions that docs/modules.md names; VMware has published none.

Numbers are octal digits that end in a NUL or a space; GNU tar writes numbers that don't fit in base 256, big-endian,
with the highest bit of the first byte set.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U32, Bytes, Record, record

BLOCK: Final = 512
"""Bytes in a block: a header takes one block, and data of a tar is padded to whole blocks."""
POSIX_MAGIC: Final = b"ustar\x0000"
"""Magic and version of POSIX archives."""
GNU_MAGIC: Final = b"ustar  \0"
"""Magic and version of GNU's own format; pax archives of GNU tar have those of POSIX."""
VISOR_MAGIC: Final = b"visor  \0"
"""Magic and version of vmtar."""
CHECKSUM: Final = slice(0x94, 0x9C)
"""Place of the checksum in a header; it is the sum of the header's bytes, with spaces in this place."""


@record
class MemberHeader(Record):
    """Header of a member, as far as it is the same in both formats."""

    name: Annotated[bytes, Bytes(100)]
    """Path, or its last part, up to the first NUL."""
    mode: Annotated[bytes, Bytes(8)]
    """Permissions."""
    owner: Annotated[bytes, Bytes(8)]
    """User id."""
    group: Annotated[bytes, Bytes(8)]
    """Group id."""
    size: Annotated[bytes, Bytes(12)]
    """Bytes of data."""
    modified: Annotated[bytes, Bytes(12)]
    """Time of the last write, in seconds since 1970 in UTC."""
    checksum: Annotated[bytes, Bytes(8)]
    """Sum of the header's bytes."""
    type_flag: U8
    """Type of the member, an ASCII character; see `vmvisor_image.archives.tar`."""
    target: Annotated[bytes, Bytes(100)]
    """Target of a link."""
    magic: Annotated[bytes, Bytes(8)]
    """Magic and version."""
    owner_name: Annotated[bytes, Bytes(32)]
    """User name."""
    group_name: Annotated[bytes, Bytes(32)]
    """Group name."""
    device_major: Annotated[bytes, Bytes(8)]
    """Major number of a device."""
    device_minor: Annotated[bytes, Bytes(8)]
    """Minor number of a device."""


@record
class TarTail(Record):
    """Rest of a tar header."""

    prefix: Annotated[bytes, Bytes(155)]
    """First part of the path, before a slash and the name; in GNU's old format, times and a sparse file's table."""
    padding: Annotated[bytes, Bytes(12)]
    """Unused, except for the size of a sparse file in GNU's old format."""


@record
class VmtarTail(Record):
    """Rest of a vmtar header: a shorter prefix, and four numbers."""

    prefix: Annotated[bytes, Bytes(151)]
    """First part of the path, before a slash and the name."""
    data_offset: U32
    """Bytes from the archive's start to the data; 0 for no data, or for data that follows the header."""
    text_offset: U32
    """Place of the text segment of a program that is executed in place."""
    text_size: U32
    """Size of that segment."""
    fixup_count: U32
    """Pages to be relocated."""
