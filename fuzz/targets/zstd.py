"""zstd frames, seekable and not."""

from __future__ import annotations

import zstandard

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions import zstd
from vmvisor_image.compressions.layer import LayerOptions


def seeds() -> list[bytes]:
    compress = zstandard.ZstdCompressor(write_checksum=True).compress
    whole = compress(text(3000))
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    frames = [compress(text(500)) for _ in range(3)]
    entries = b"".join(len(frame).to_bytes(4, "little") + (500).to_bytes(4, "little") for frame in frames)
    table = entries + b"\3\0\0\0\0\xb1\xea\x92\x8f"
    seekable = b"".join(frames) + b"\x5e\x2a\x4d\x18" + len(table).to_bytes(4, "little") + table
    return [whole, skippable + whole, whole + whole, seekable, compress(b"")]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(zstd.open_layer(Bounded(data), LayerOptions()))
