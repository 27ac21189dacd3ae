"""Structures around the data of a zstd file.

Sources: RFC 8878, section 3.1 (frames, skippable frames); "Zstandard Seekable Format" in zstd's own repository,
contrib/seekable_format/zstd_seekable_compression_format.md, version 0.1.0 (the seek table).
"""

from __future__ import annotations

from vmvisor_image.record import U8, U32, Record, record

FRAME_MAGIC = 0xFD2FB528
"""Magic at the start of each frame of data."""
SKIPPABLE_MAGIC = 0x184D2A50
"""Magic at the start of a skippable frame; its lowest four bits may have any value."""
SEEK_TABLE_MAGIC = 0x184D2A5E
"""Magic of the skippable frame with a seek table, the last frame of a file."""
SEEKABLE_MAGIC = 0x8F92EAB1
"""Magic at the end of a seek table."""
HAS_CHECKSUMS = 0x80
"""Bit of the seek table's descriptor: each entry has a checksum of its decoded data."""
RESERVED_BITS = 0x7C
"""Bits of the seek table's descriptor that must be zero."""


@record
class SkippableFrameHeader(Record):
    """Header at the start of a skippable frame."""

    magic: U32
    """`SKIPPABLE_MAGIC` to `SKIPPABLE_MAGIC` + 15."""
    content_length: U32
    """Bytes that follow."""


@record
class SeekTableEntry(Record):
    """Sizes of one frame."""

    compressed: U32
    """Bytes of the frame."""
    decompressed: U32
    """Decoded bytes; 0 for a skippable frame."""


@record
class CheckedSeekTableEntry(SeekTableEntry):
    """Sizes and checksum of one frame."""

    checksum: U32
    """Lower half of the decoded data's XXH64."""


@record
class SeekTableFooter(Record):
    """Footer at the end of a seek table."""

    frames: U32
    """Number of entries before the footer."""
    descriptor: U8
    """`HAS_CHECKSUMS` or 0; two further bits are unused."""
    magic: U32
    """`SEEKABLE_MAGIC`."""
