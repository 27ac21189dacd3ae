"""What lies around the data of a zstd file.

Sources: RFC 8878, section 3.1 (frames, skippable frames); "Zstandard Seekable Format" in zstd's own repository,
contrib/seekable_format/zstd_seekable_compression_format.md, version 0.1.0 (the seek table).
"""

from __future__ import annotations

from vmvisor_image.record import U8, U32, Record, record

FRAME_MAGIC = 0xFD2FB528
"""Begins each frame of data."""
SKIPPABLE_MAGIC = 0x184D2A50
"""Begins a skippable frame; its last four bits may be anything."""
SEEK_TABLE_MAGIC = 0x184D2A5E
"""Begins the skippable frame of a seek table, the last one of a file."""
SEEKABLE_MAGIC = 0x8F92EAB1
"""Ends a seek table."""
HAS_CHECKSUMS = 0x80
"""In the seek table's descriptor: each entry has a checksum of its decoded data."""
RESERVED_BITS = 0x7C
"""In the seek table's descriptor: must be zero."""


@record
class SkippableFrameHeader(Record):
    """What a skippable frame begins with."""

    magic: U32
    """`SKIPPABLE_MAGIC` to `SKIPPABLE_MAGIC` + 15."""
    content_length: U32
    """Bytes that follow."""


@record
class SeekTableEntry(Record):
    """One frame's sizes."""

    compressed: U32
    """Bytes of the frame."""
    decompressed: U32
    """Decoded bytes; 0 for a skippable frame."""


@record
class CheckedSeekTableEntry(SeekTableEntry):
    """One frame's sizes and checksum."""

    checksum: U32
    """The lower half of the decoded data's XXH64."""


@record
class SeekTableFooter(Record):
    """What a seek table ends with."""

    frames: U32
    """Number of entries before this."""
    descriptor: U8
    """`HAS_CHECKSUMS` or 0; two bits are unused."""
    magic: U32
    """`SEEKABLE_MAGIC`."""
