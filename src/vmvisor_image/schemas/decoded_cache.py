"""The map of a decoded cache's segment: the content of a skippable zstd frame before the seek table.

Source: this library's own format. A segment is a seekable zstd file whose frames hold parts of the decoded data in the
order in which they were decoded; the map tells where each belongs. A run of zeros is in the map alone.
"""

from __future__ import annotations

from typing import Annotated

from vmvisor_image.record import U32, U64, Bytes, Record, record

MAGIC = b"VMVDATA\n"
VERSION = 1
MAP_FRAME_MAGIC = 0x184D2A5B
"""Begins the skippable frame that holds the map; the header and the entries follow."""


@record
class DecodedMapHeader(Record):
    """What a map begins with."""

    magic: Annotated[bytes, Bytes(8)]
    """`MAGIC`."""
    version: U32
    """`VERSION`; any other one is refused."""
    entries: U32
    """Number of entries."""
    fingerprint: Annotated[bytes, Bytes(32)]
    """Of the source whose decoded data this is."""
    digest: Annotated[bytes, Bytes(32)]
    """SHA-256 of this header, with zeros here, and of the entries."""


@record
class DecodedMapEntry(Record):
    """One frame, or one run of zeros."""

    decoded_start: U64
    """Where it belongs, in bytes from the start of the decoded data."""
    size: U64
    """Decoded bytes."""
    frame_start: U64
    """Where its frame is, in bytes from the segment's start; 0 for zeros."""
    frame_length: U64
    """Bytes of its frame; 0 for zeros."""
