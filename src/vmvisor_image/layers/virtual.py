"""Virtual disks around a disk: which of the formats one has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vmvisor_image.layers import Layer, LayerOptions, qcow2, vhd, vhdx, vmdk
from vmvisor_image.streams import ReadAt, knows_size, read_up_to

_FORMATS: Final[tuple[tuple[str, Callable[[bytes], bool], Callable[[ReadAt, LayerOptions], ReadAt]], ...]] = (
    (qcow2.KIND, qcow2.probe, qcow2.open_layer),
    (vmdk.KIND, vmdk.probe, vmdk.open_layer),
    (vhd.KIND, vhd.probe, vhd.open_layer),
    (vhdx.KIND, vhdx.probe, vhdx.open_layer),
)


def open_disk(source: ReadAt, name: str | None, options: LayerOptions, head: bytes) -> tuple[Layer, ...]:
    """The virtual disk that `source` is, which begins with `head`; empty where it is none.

    A fixed VHD is told by its end. It is looked for only where that needs no decoding.

    Raises:
        CorruptImage: It is one, and can't be opened.
    """
    for kind, probe, open_layer in _FORMATS:
        if probe(head):
            return (Layer(kind, name, open_layer(source, options)),)
    if knows_size(source) and source.size >= vhd.FOOTER and _may_be_fixed(source, name):
        return (Layer(vhd.KIND, name, vhd.open_layer(source, replace(options, neighbour=None))),)
    return ()


def _may_be_fixed(source: ReadAt, name: str | None) -> bool:
    return (name or "").casefold().endswith((".vhd", ".vpc")) and vhd.probe_end(
        read_up_to(source, source.size - vhd.FOOTER, vhd.FOOTER)
    )
