"""A disk image compressed with bzip2, pbzip2 or lbzip2 (``*.dd.bz2``)."""

from __future__ import annotations

from typing import Final

from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.walk import stream_level
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.streams.source import ReadAt

NAME: Final = "bzip2"
KIND = "bzip2"
SUFFIXES: Final = (".bz2",)
TAR_SUFFIXES: Final = (".tbz2",)
MAGICS: Final = (Signature("bzip2", "bzip2 data", 0, b"BZh", ((4, b"1AY&SY"),), content="data"),)
REFERENCES: Final = ("Julian Seward's bzip2, decompress.c: no specification was published",)

_MAGICS = (b"1AY&SY", b"\x17rE8P\x90")
"""Magics that follow a stream header: that of a block, or of the end of an empty stream."""


def probe(head: bytes) -> bool:
    """Whether a source that begins with `head` is bzip2."""
    return stream_level(head[:4]) is not None and head[4:10] in _MAGICS


def open_layer(source: ReadAt, options: LayerOptions) -> Bzip2Reader:
    """The decoded data."""
    return Bzip2Reader(
        source,
        threads=options.threads,
        cache_bytes=options.meter.limits.cache_bytes,
        meter=options.meter,
        progress=options.progress,
        index=options.index,
        cache=options.cache,
    )
