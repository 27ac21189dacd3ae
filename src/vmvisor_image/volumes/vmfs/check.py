"""Comparison of a VMFS volume's bitmap of file blocks with its files: the problems in the figures of `verify`."""

from __future__ import annotations

from collections.abc import Iterator

from vmvisor_image.errors import Problem
from vmvisor_image.volumes.figures import VmfsFigures


def problems_of(vmfs: VmfsFigures, start: int) -> Iterator[Problem]:
    """Problems of a VMFS volume at byte `start` of the disk."""
    if vmfs.reached_free:
        yield Problem("VMFS file blocks", f"{vmfs.reached_free} blocks of files are marked free", start)
    if vmfs.lost:
        yield Problem("VMFS file blocks", f"{vmfs.lost} blocks are marked used and belong to no file", start)
