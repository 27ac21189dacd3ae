"""The header of a member of an ar archive. Source: ar(5) of FreeBSD."""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import Bytes, Record, record

MAGIC: Final = b"!<arch>\n"
"""What the archive begins with."""
MEMBER_END: Final = b"`\n"
"""What each header ends with."""


@record
class MemberHeader(Record):
    """The header of a member; all fields are text, padded with spaces."""

    name: Annotated[bytes, Bytes(16)]
    """Name; GNU ends it with a slash."""
    modified: Annotated[bytes, Bytes(12)]
    """Seconds since 1970, decimal."""
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
