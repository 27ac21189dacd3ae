"""VMFS 3, 5, 6 and VMFS-L with files, as damage to forged volumes: one takes 256 MiB and more."""

from __future__ import annotations

import functools
from typing import Final

from fuzz.exercise import Bounded, exercise_image, exercise_partitions, exercise_report
from fuzz.patches import Patches
from fuzz.samples import TREE
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET, VmfsKind
from vmvisor_image.testing.forge_vmfs_files import Content, VmfsFile, VmfsLink, VmfsRawDevice, vmfs_volume

_KINDS: Final[tuple[VmfsKind, ...]] = ("vmfs3", "vmfs5", "vmfs6", "vmfs-l")


@functools.cache
def _base(kind: VmfsKind) -> Patches:
    pieces = ((0, b"1"), (1 << 20, b"2"))
    tree: dict[str, Content] = {
        **TREE,
        "sparse": VmfsFile(size=3 << 20, pieces=pieces, pointers="pointer blocks"),
        "blocks": VmfsFile(b"x" * 70_000, pointers="file blocks"),
        "link": VmfsLink("../outside"),
        "raw": VmfsRawDevice(5),
    }
    return Patches(vmfs_volume(tree, kind, size=EXTENT_SIZE + DATA_OFFSET)[0], exercise_image)


def seeds() -> list[bytes]:
    return [bytes((number,)) + damage for number in range(8) for damage in (b"", bytes(8), bytes(range(64)))]


def one_input(data: bytes) -> None:
    """The first byte says what is damaged, and what is asked of it."""
    first = data[0] if data else 0
    source = Bounded(_base(_KINDS[first % 4]).patched(data[1:]))
    if first & 4:
        exercise_report(source)
    else:
        exercise_partitions(source)
