"""What may wrap a disk image: one module each, which recognises its wrapping and opens what is inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vmvisor_image.streams import ReadAt, read_up_to

Progress = Callable[[int, int | None], None]
"""Called with the compressed bytes passed so far and in all (None where that is not known)."""

_HEAD = 512
_MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What a layer may use to decode."""

    threads: int | None = None
    """Threads that decode; None for one a core."""
    progress: Progress | None = None
    """Told how far decoding is."""
    index: str | os.PathLike[str] | None = None
    """Where to keep an index of what is where in the outermost layer; "auto" for the usual places."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One wrapping that was taken off."""

    kind: str
    """Its format: "bzip2"."""
    name: str | None
    """Name of the wrapped file, or None for bytes without one."""
    source: ReadAt = field(compare=False, repr=False)
    """What was inside, decoded as it is read."""


def unwrap(source: ReadAt, name: str | None, options: LayerOptions) -> tuple[Layer, ...]:
    """The layers around the disk in `source`, outermost first; empty for a bare disk.

    Raises:
        CorruptImage: A layer is recognised and can't be opened.
    """
    from vmvisor_image.layers import bzip2

    layers: list[Layer] = []
    inner = source
    while len(layers) < _MOST_LAYERS and bzip2.probe(read_up_to(inner, 0, _HEAD)):
        inner = bzip2.open_layer(inner, options)
        layers.append(Layer(bzip2.KIND, name, inner))
        options = replace(options, index=None)
        name = None if name is None else name.removesuffix(".bz2")
    return tuple(layers)
