"""Removal of compressions, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vmvisor_image.compressions import bzip2_layer, gzip
from vmvisor_image.compressions.formats import COMPRESSIONS, Compression
from vmvisor_image.compressions.layer import Layer, LayerOptions, check_depth
from vmvisor_image.compressions.signed import strip_signature
from vmvisor_image.errors import CorruptImage
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt, Source

BZIP2: Final = bzip2_layer.KIND
HEAD: Final = 512
"""Number of bytes at its start by which a compression or virtual disk is recognised."""


def peel(
    source: ReadAt, name: str | None, options: LayerOptions, tapped: Callable[[Source], Source] | None = None
) -> tuple[Layer, ...]:
    """Layers of the compressions around `source`, outermost first.

    Args:
        source: The compressed data.
        name: Name of the file; None without one.
        options: See `LayerOptions`.
        tapped: Gives what is shown in place of each layer's decoded data, as it is opened; None for the data itself.

    Raises:
        CorruptImage: A compression is recognised but can't be opened.
        LimitExceeded: There are too many layers.
    """
    return peel_from(source, name, options, read_up_to(source, 0, HEAD), tapped)


def peel_from(
    source: ReadAt,
    name: str | None,
    options: LayerOptions,
    head: bytes,
    tapped: Callable[[Source], Source] | None = None,
) -> tuple[Layer, ...]:
    """Layers of the compressions around `source`, as `peel`, whose first `HEAD` bytes `head` were already read."""
    layers: list[Layer] = []
    inner = source
    while True:
        kind = next((kind for kind in COMPRESSIONS if kind.probe(head)), None)
        if kind is None:
            break
        check_depth(layers, options)
        if options.progress is not None:
            options = replace(options, total=inner.size if knows_size(inner) else None)
        if layers and layers[-1].kind == gzip.KIND:
            with contextlib.suppress(CorruptImage):  # the data before the damage can be read
                inner = strip_signature(inner)  # a boot module compressed twice is signed in between
        inner = kind.open_layer(inner, options)
        if tapped is not None:
            inner = tapped(inner)
        layers.append(Layer(kind.KIND, name, inner))
        name = inner_name_of(layers[-1])
        options = replace(options, progress=None)  # the outermost compression reports the progress
        if kind.KIND == BZIP2:
            options = replace(options, index=None, cache=None)
        try:
            head = read_up_to(inner, 0, HEAD)
        except CorruptImage:  # what is behind the damage can be read, and its start says what is lost
            break
    return tuple(layers)


def inner_name_of(layer: Layer) -> str | None:
    """Name of the file inside a compression; None for any other layer, or where the compressed file has no name."""
    compression = _compression_of(layer)
    if layer.name is None or compression is None:
        return None
    stem, dot, last = layer.name.rpartition(".")
    suffix = f"{dot}{last}".casefold()
    if any(suffix in each.TAR_SUFFIXES for each in COMPRESSIONS):
        return f"{stem}.tar"
    return stem if suffix in compression.SUFFIXES else layer.name


def is_compression(layer: Layer) -> bool:
    """Whether a layer is a compression, not a container or virtual disk."""
    return _compression_of(layer) is not None


def _compression_of(layer: Layer) -> Compression | None:
    return next((each for each in COMPRESSIONS if layer.kind == each.KIND), None)
