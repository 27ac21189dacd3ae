"""The registry of compressions."""

from __future__ import annotations

from typing import Final, Protocol

from vmvisor_image.compressions import bzip2_layer as bzip2
from vmvisor_image.compressions import gzip, xz, zstd
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.examine.signatures import Format
from vmvisor_image.streams.source import ReadAt, Source


class Compression(Format, Protocol):
    """A module that reads a compression."""

    @property
    def TAR_SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802  # a module's constant
        """Suffixes of tar archives that are compressed with it, such as ".tgz"."""
        ...

    def probe(self, head: bytes, /) -> bool:
        """Whether a source that begins with the `HEAD` bytes `head` has this compression."""
        ...

    def open_layer(self, source: ReadAt, options: LayerOptions, /) -> Source:
        """The decoded data.

        Raises:
            CorruptImage: The compression can't be opened.
        """
        ...


COMPRESSIONS: Final[tuple[Compression, ...]] = (bzip2, gzip, xz, zstd)
"""The supported compressions."""
