"""Single zstd frames with checksums, and the seek table that follows them in a file."""

from __future__ import annotations

from collections.abc import Sequence

from vmvisor_image.schemas.zstd import (
    SEEK_TABLE_MAGIC,
    SEEKABLE_MAGIC,
    SeekTableEntry,
    SeekTableFooter,
    SkippableFrameHeader,
)


def compress_frame(data: bytes, level: int) -> bytes:
    """Frame of compressed `data`, with the decoded size and a checksum."""
    import zstandard

    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)


def decode_frame(frame: bytes, size: int) -> bytes | None:
    """Decoded content of a frame made by `compress_frame`; None where that is not `size` undamaged bytes."""
    import zstandard

    try:
        # libzstd would allocate any size that a damaged header gives.
        if zstandard.get_frame_parameters(frame).content_size != size:
            return None
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError:
        return None


def seek_table(entries: Sequence[SeekTableEntry]) -> bytes:
    """Skippable frame that ends a seekable file, with one entry for each frame before it."""
    table = b"".join(entry.build() for entry in entries) + SeekTableFooter(len(entries), 0, SEEKABLE_MAGIC).build()
    return SkippableFrameHeader(SEEK_TABLE_MAGIC, len(table)).build() + table
