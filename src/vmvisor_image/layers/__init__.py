"""What may wrap a disk image: one module each, which recognises its wrapping and opens what is inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

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
    total: int | None = None
    """Compressed bytes in all, for `progress`."""
    index: str | os.PathLike[str] | None = None
    """Where to keep an index of what is where in the outermost layer; "auto" for the usual places."""
    cache: str | os.PathLike[str] | bool | None = None
    """Where to keep the decoded data of the outermost layer; True for the usual places."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One wrapping that was taken off."""

    kind: str
    """Its format: "bzip2", "gzip", "xz" or "zstd"."""
    name: str | None
    """Name of the wrapped file, or None for bytes without one."""
    source: ReadAt = field(compare=False, repr=False)
    """What was inside, decoded as it is read."""


def unwrap(source: ReadAt, name: str | None, options: LayerOptions) -> tuple[Layer, ...]:
    """The layers around the disk in `source`, outermost first; empty for a bare disk.

    Raises:
        CorruptImage: A layer is recognised and can't be opened.
    """
    from vmvisor_image.layers import bzip2, gzip, xz, zstd

    kinds: tuple[_Kind, ...] = (bzip2, gzip, xz, zstd)
    layers: list[Layer] = []
    inner = source
    options = replace(options, total=source.size if options.progress is not None else None)
    while len(layers) < _MOST_LAYERS:
        head = read_up_to(inner, 0, _HEAD)
        kind = next((kind for kind in kinds if kind.probe(head)), None)
        if kind is None:
            break
        inner = kind.open_layer(inner, options)
        layers.append(Layer(kind.KIND, name, inner))
        name = None if name is None else name.removesuffix(kind.SUFFIX)
        options = replace(options, index=None, cache=None, progress=None)  # they are about the outermost layer
    return tuple(layers)


class _Kind(Protocol):
    """What each module of this folder has."""

    @property
    def KIND(self) -> str: ...  # noqa: N802  # a module's constant
    @property
    def SUFFIX(self) -> str: ...  # noqa: N802  # a module's constant
    def probe(self, head: bytes, /) -> bool: ...
    def open_layer(self, source: ReadAt, options: LayerOptions, /) -> ReadAt: ...
