"""What every command that reads an image begins with: its options, the opened image, and a partition by its name."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from vmvisor_image.base.limits import Limits
from vmvisor_image.base.open_options import OpenOptions, Progress
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import CorruptImage, NotAFileSystem, PartitionNotFound, PathNotFound
from vmvisor_image.faces.cli.advice import command, no_disk
from vmvisor_image.faces.cli.damage import advised_error, step_past_damage
from vmvisor_image.faces.cli.progress import doing, showing_progress

DONE = 0
"""Exit status of a successful command."""
BAD_INPUT = 1
"""Exit status where the input is damaged or unsuitable."""
MISUSE = 2
"""Exit status of a command that can't be carried out as given."""


def limits_of(options: argparse.Namespace) -> Limits:
    """Limits that the options set."""
    return Limits(seconds=options.max_seconds, decoded_bytes=options.max_decoded)


def open_options(options: argparse.Namespace, progress: Progress | None) -> OpenOptions:
    """Options for `Image.open`."""
    return {
        "threads": options.threads,
        "index": options.index,
        "cache": options.cache,
        "progress": progress,
        "member": options.member,
        "limits": limits_of(options),
        "salvage": options.salvage,
    }


@contextlib.contextmanager
def opened_image(options: argparse.Namespace, source: str | None = None) -> Iterator[Image]:
    """The image of a command, or of another source, whose damage becomes problems of the command."""
    given = options.source if source is None else source
    with (
        showing_progress(doing(options.run)) as progress,
        Image.open(given, **open_options(options, progress)) as image,
        image.limits.operation(),
    ):
        try:
            yield image
        except (PartitionNotFound, PathNotFound, NotAFileSystem) as error:  # damage may hide it
            check_partitions(image, given, error)
            options.problems += image.known_problems
            if isinstance(error, NotAFileSystem) and not getattr(options, "device", None):
                raise NotAFileSystem(f"{error}; {command('info', given)} shows what each partition holds") from error
            raise
        except CorruptImage as error:
            if (advised := advised_error(error, image, options)) is not error:
                raise advised from error
            options.step = step_past_damage(image, options)
            raise
        options.problems += image.known_problems
        if image.known_problems:
            options.step = step_past_damage(image, options)


def check_partitions(image: Image, source: str, cause: Exception | None = None) -> None:
    """Raise the first problem of the table where an image has no partitions."""
    if not len(image.partitions):
        for problem in image.partitions.problems:
            raise no_disk(problem, source, image.known_size) from cause


def named_partition(image: Image, text: str) -> Partition:
    """Partition with a number, or else with a label."""
    if text.isdecimal() and int(text) in image.partitions:
        return image.partitions[int(text)]
    return image.partitions[text]
