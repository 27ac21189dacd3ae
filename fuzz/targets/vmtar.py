"""vmtar archives, headers first and headers between the data."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_archive
from fuzz.samples import TREE, summed
from vmvisor_image import open_archive
from vmvisor_image.testing.forge_modules import vmtar_archive


def seeds() -> list[bytes]:
    return [vmtar_archive(TREE, links={"link": "folder"}, inline=inline) for inline in (False, True)]


def one_input(data: bytes) -> None:
    for each in (data, summed(data)):
        with documented():
            exercise_archive(open_archive(Bounded(each)))
