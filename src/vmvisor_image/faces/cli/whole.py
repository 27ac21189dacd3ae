"""What is said of damage in an image: whether it touches what a command has shown or written, or lies elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import Problem
from vmvisor_image.faces.cli.layout import complain

_BEYOND = ("bzip2 data", "bzip2 source", "gzip source", "xz source", "zstd source")
"""Structures of layers whose problems leave what could be read as it is: bytes behind the end, lost blocks."""


def elsewhere(image: Image, read: Sequence[Partition]) -> tuple[Problem, ...]:
    """Damage found in an image that does not touch content read from some partitions without an error.

    Content itself is either read or an error, so what remains is damage in the partition's volume, such as a directory
    with entries that can't be read, in its place on the disk, and in layers whose checks are for all data at once.
    """
    touching = {problem for partition in read for problem in partition.known_problems}
    names = {f"partition {partition.key}" for partition in read}
    for layer in image.layers:
        touching.update(problem for problem in layer.source.problems if problem.structure not in _BEYOND)
    return tuple(
        problem for problem in image.known_problems if problem not in touching and problem.structure not in names
    )


def complain_of_damage(problems: Sequence[Problem], apart: Sequence[Problem]) -> None:
    """Print damage to standard error, each place once; `apart` is what does not touch what was shown or written."""
    found = [*dict.fromkeys(problems)]
    touching = [problem for problem in found if problem not in apart]
    complain(touching, "what was shown or written may be incomplete: ")
    whole = "" if touching else "what was shown or written is whole; "
    complain([problem for problem in found if problem in apart], f"{whole}the image is damaged elsewhere: ")
