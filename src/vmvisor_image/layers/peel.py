"""Compressions, taken off one after the other."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Protocol

from vmvisor_image.errors import CorruptImage
from vmvisor_image.layers.layer import Layer, LayerOptions, check_depth, inner_name_of
from vmvisor_image.signed import strip_signature
from vmvisor_image.streams import ReadAt, Source, knows_size, read_up_to

HEAD = 512
"""Bytes from its start by which a compression or virtual disk is known."""


def peel(source: ReadAt, name: str | None, options: LayerOptions) -> tuple[Layer, ...]:
    """The compressions around `source`, outermost first.

    Raises:
        CorruptImage: One is recognised and can't be opened.
    """
    return peel_from(source, name, options, read_up_to(source, 0, HEAD))


def peel_from(source: ReadAt, name: str | None, options: LayerOptions, head: bytes) -> tuple[Layer, ...]:
    """The compressions around `source`, which begins with the `HEAD` bytes `head`; else as `peel`."""
    from vmvisor_image.layers import bzip2, gzip, xz, zstd

    kinds: tuple[_Kind, ...] = (bzip2, gzip, xz, zstd)
    layers: list[Layer] = []
    inner = source
    while True:
        kind = next((kind for kind in kinds if kind.probe(head)), None)
        if kind is None:
            break
        check_depth(layers, options)
        if options.progress is not None:
            options = replace(options, total=inner.size if knows_size(inner) else None)
        if layers and layers[-1].kind == gzip.KIND:
            with contextlib.suppress(CorruptImage):  # what is before the damage can be read
                inner = strip_signature(inner)  # of a boot module that is compressed twice
        inner = kind.open_layer(inner, options)
        layers.append(Layer(kind.KIND, name, inner))
        name = inner_name_of(layers[-1])
        options = replace(options, progress=None)  # the outermost compression tells how far it is
        if kind is bzip2:
            options = replace(options, index=None, cache=None)
        head = read_up_to(inner, 0, HEAD)
    return tuple(layers)


class _Kind(Protocol):
    """What each module of a compression has."""

    @property
    def KIND(self) -> str: ...  # noqa: N802  # a module's constant
    def probe(self, head: bytes, /) -> bool: ...
    def open_layer(self, source: ReadAt, options: LayerOptions, /) -> Source: ...
