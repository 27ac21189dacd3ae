"""The search for volumes on a disk whose table is gone."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_tree
from fuzz.samples import TREE
from vmvisor_image import Image, NotAFileSystem
from vmvisor_image.schemas.vmfs import (
    FILE_SYSTEM_MAGIC,
    FILE_SYSTEM_OFFSET,
    LVM_MAGIC,
    LVM_OFFSET,
    USUAL_DATA_OFFSET,
)
from vmvisor_image.testing.forge import SparseImage, fat_volume
from vmvisor_image.testing.forge_iso import iso_volume

_AT = 32 * 512
_FAR = (LVM_OFFSET, FILE_SYSTEM_OFFSET, USUAL_DATA_OFFSET + FILE_SYSTEM_OFFSET)
"""Places behind the input that also get its last bytes: those of VMFS, from the start of a volume."""


def seeds() -> list[bytes]:
    fat = fat_volume(TREE, sectors=64, root_entries=32)
    magics = [number.to_bytes(4, "little") + (5).to_bytes(4, "little") for number in (LVM_MAGIC, FILE_SYSTEM_MAGIC)]
    volumes = [fat.read_at(0, fat.size), iso_volume({"a": b"a"}), *(magic.ljust(512, b"\1") for magic in magics)]
    return [bytes(_AT) + volume for volume in volumes]


def one_input(data: bytes) -> None:
    search(Bounded(data))
    tail = data[_AT : _AT + 4096]
    search(Bounded(SparseImage(24 << 20, [(0, data[: 1 << 20]), *((at + (1 << 20), tail) for at in _FAR)])))


def search(source: Bounded) -> None:
    """Everything that can be asked of what a search finds."""
    with documented(), Image.open(source, threads=1) as image:
        found = image.partitions.search()
        for partition in found:
            assert partition.finding is not None
            assert 0 <= partition.start < partition.start + partition.size
            assert partition.explain()
            with documented():
                try:
                    exercise_tree(partition.files)
                except NotAFileSystem:
                    continue
        assert all(str(problem) for problem in found.problems)
        assert all(str(each) for each in found.suspect_ranges)
