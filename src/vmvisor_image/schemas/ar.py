"""Header of a member of an ar archive. Source: ar(5) of FreeBSD."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import Bytes, Record, record

MAGIC: Final = b"!<arch>\n"
"""First bytes of the archive."""
MEMBER_END: Final = b"`\n"
"""Last bytes of each header."""


@record
class MemberHeader(Record):
    """Header of a member; all fields are text, padded with spaces."""

    name: Annotated[bytes, Bytes(16)]
    """Name; GNU ends it with a slash."""
    modified: Annotated[bytes, Bytes(12)]
    """Time of the last write, in seconds since 1970, decimal."""
    owner: Annotated[bytes, Bytes(6)]
    """User id, decimal."""
    group: Annotated[bytes, Bytes(6)]
    """Group id, decimal."""
    mode: Annotated[bytes, Bytes(8)]
    """Type and permissions, octal."""
    size: Annotated[bytes, Bytes(10)]
    """Bytes of data, decimal."""
    end: Annotated[bytes, Bytes(2)]
    """A grave accent and a line feed."""
