"""ISO 9660 volumes, plain and with Rock Ridge: opened as an archive and as a disk."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_archive, exercise_image
from fuzz.samples import TREE
from vmvisor_image import open_archive
from vmvisor_image.testing.forge_iso import iso_volume

_SYSTEM_AREA = 16 * 2048
"""Bytes before the first descriptor, which are zeros and not worth fuzzing."""


def seeds() -> list[bytes]:
    links = {"link": "../../outside", "folder/l": "/x"}
    made = [iso_volume(TREE, links=links), iso_volume({"A.TXT": b"x", "D/B": b"y"}, rock_ridge=False)]
    return [volume[_SYSTEM_AREA:] for volume in made]


def one_input(data: bytes) -> None:
    volume = bytes(_SYSTEM_AREA) + data
    with documented():
        exercise_archive(open_archive(Bounded(volume)))
    exercise_image(Bounded(volume))
