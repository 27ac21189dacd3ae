"""Map of a segment of a decoded cache: the content of a skippable zstd frame before the seek table.

Source: this library's own format. A segment is a seekable zstd file whose frames hold parts of the decoded data in the
order in which they were decoded; the map gives the place of each part. A run of zeros is in the map only.
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U32, U64, Bytes, Record, record

MAGIC = b"VMVDATA\n"
VERSION = 1
MAP_FRAME_MAGIC = 0x184D2A5B
"""Magic of the skippable frame that holds the map; the header and the entries follow."""


@record
class DecodedMapHeader(Record):
    """Header at the start of a map."""

    magic: Annotated[bytes, Bytes(8)]
    """`MAGIC`."""
    version: U32
    """`VERSION`; any other version is refused."""
    entries: U32
    """Number of entries."""
    fingerprint: Annotated[bytes, Bytes(32)]
    """Fingerprint of the source whose decoded data is cached."""
    digest: Annotated[bytes, Bytes(32)]
    """SHA-256 of this header, with this field as zeros, and of the entries."""


@record
class DecodedMapEntry(Record):
    """Place of one frame, or of one run of zeros."""

    decoded_start: U64
    """Bytes from the start of the decoded data to this part."""
    size: U64
    """Decoded bytes in this part."""
    frame_start: U64
    """Bytes from the segment's start to the frame; 0 for zeros."""
    frame_length: U64
    """Bytes in the frame; 0 for zeros."""
