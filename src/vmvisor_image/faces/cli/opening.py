"""What every command that reads an image begins with: its options, the opened image, and a partition by its name."""

from __future__ import annotations

import argparse
import contextlib
import glob
import itertools
from collections.abc import Iterator

from vmvisor_image.base.limits import Limits
from vmvisor_image.base.open_options import OpenOptions, Progress
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.paths import begins_with_place, path_name, placed_or_labelled
from vmvisor_image.errors import (
    CorruptImage,
    MemberNotFound,
    NameNotFound,
    NotAFileSystem,
    PartitionNotFound,
    PathNotFound,
)
from vmvisor_image.faces.cli.advice import command, located, no_disk, way_of
from vmvisor_image.faces.cli.damage import advised_error, advised_of_chain, step_past_damage
from vmvisor_image.faces.cli.machine_disk import disk_of, machine_at, machine_in_archive, refuse_disk
from vmvisor_image.faces.cli.progress import doing, showing_progress
from vmvisor_image.faces.cli.whole import elsewhere
from vmvisor_image.files.file import File

_MOST_ALIKE = 3
"""Most files that an error names."""


def bank_of(text: str | None) -> int | str | None:
    """Boot bank as ``--bank`` has it: a number, or a label."""
    return int(text) if text is not None and text.isdecimal() else text


def limits_of(options: argparse.Namespace) -> Limits:
    """Limits that the options set."""
    return Limits(seconds=options.max_seconds, decoded_bytes=options.max_decoded)


def open_options(options: argparse.Namespace, progress: Progress | None) -> OpenOptions:
    """Options for `Image.open`."""
    given: OpenOptions = {
        "threads": options.threads,
        "index": options.index,
        "cache": options.cache,
        "progress": progress,
        "member": options.member,
        "limits": limits_of(options),
        "salvage": options.salvage,
        "snapshot": options.snapshot,
        "allow_cid_mismatch": options.allow_cid_mismatch,
    }
    if options.no_parent or options.parent is not None:
        given["parent"] = options.parent
    return given


@contextlib.contextmanager
def image_of(
    options: argparse.Namespace, source: str, progress: Progress | None, *, is_only: bool = True
) -> Iterator[Image]:
    """The image at a path, or the disk of the machine described there; ``--member`` names one of several.

    With ``--member PARTITION/PATH`` it is the one in that file of a disk, or of the machine that the file describes.

    Args:
        options: Options of the command.
        source: The path.
        progress: Function to call with the progress of reading it.
        is_only: Whether the command opens no other one, so that ``--disk`` is for this one.

    Raises:
        MemberNotFound: The container has no such member, and the disk no such file.
        InvalidArgument: A machine has several disks, and none is named; or a disk is named of what is no machine.
    """
    given = open_options(options, progress)
    with contextlib.ExitStack() as stack:
        try:
            image = _image_at(options, source, given, stack)
        except CorruptImage as error:
            if (advised := advised_of_chain(error, options)) is not error:
                raise advised from error
            raise
        if is_only:
            refuse_disk(options)
        yield image


def _image_at(options: argparse.Namespace, source: str, given: OpenOptions, stack: contextlib.ExitStack) -> Image:
    not_there: MemberNotFound | None = None
    try:
        machine = machine_at(source, options, given, options.member)
    except MemberNotFound as error:  # a file of an OVA may be meant
        machine, not_there = None, error
    machine = machine or machine_in_archive(source, options, given, stack)
    if machine is not None:
        return stack.enter_context(disk_of(machine, options, given))
    try:
        return stack.enter_context(Image.open(source, **given))
    except MemberNotFound as error:
        if options.member is None:  # it is about a snapshot
            raise
        return _image_within(options, source, given, not_there or error, stack)


def _image_within(
    options: argparse.Namespace, source: str, given: OpenOptions, error: MemberNotFound, stack: contextlib.ExitStack
) -> Image:
    """Image in a file of a disk, or of the machine that the file describes, where no container has that member."""
    path = given.pop("member") or ""
    around: OpenOptions = {**given, "snapshot": None}  # they are of the disk in it
    if given.get("parent") is not None:
        del around["parent"]
    try:
        disk = stack.enter_context(Image.open(source, **around))
        partitions = len(disk.partitions)
    except CorruptImage:  # several images, or none: a member of the container was meant
        raise error from None
    try:
        found = disk.resolve(path)
    except (PartitionNotFound, PathNotFound, NotAFileSystem) as missing:
        if error.names or not partitions:
            raise error from None
        files = itertools.islice(disk.glob(f"*/{glob.escape(path)}"), _MOST_ALIKE)
        homes = [(file.home, file.path) for file in files]
        alike = [f"{path_name(disk.partitions, home)}/{below}" for home, below in homes if isinstance(home, Partition)]
        raise MemberNotFound(
            f"no disk {path!r} here: --member is a file of a CD or archive, or PARTITION/PATH of a disk in this one",
            elsewhere=[*alike, *(missing.similar if isinstance(missing, PathNotFound) else ())],
        ) from missing
    if not isinstance(found, File):
        raise error
    given["progress"] = None  # that of the disk around it goes on
    if (machine := machine_at(found, options, given)) is not None:
        return stack.enter_context(disk_of(machine, options, given))
    return stack.enter_context(found.open_image(**given))


@contextlib.contextmanager
def opened_image(options: argparse.Namespace, source: str | None = None) -> Iterator[Image]:
    """The image of a command, or of another source, whose damage becomes problems of the command."""
    given = options.source if source is None else source
    with (
        showing_progress(doing(options.run)) as progress,
        image_of(options, given, progress, is_only=source is None) as image,
        image.limits.operation(),
    ):
        options.progress = progress
        try:
            yield image
        except (PartitionNotFound, PathNotFound, NotAFileSystem) as error:  # damage may hide it
            check_needed_table(image, options, given, error)
            options.problems += image.known_problems
            if isinstance(error, NotAFileSystem) and not getattr(options, "device", None):
                step = f"{command('info', given, *way_of(options, devices=False))} shows what each partition holds"
                raise NotAFileSystem(f"{error}; {step}") from error
            if isinstance(error, NameNotFound):
                raise located(error, given, options) from error
            raise
        except CorruptImage as error:
            if (advised := advised_error(error, image, options)) is not error:
                raise advised from error
            options.step = step_past_damage(image, options)
            raise
        options.problems += image.known_problems
        if options.read is not None:
            options.apart += elsewhere(image, options.read)
        if image.known_problems:
            options.step = step_past_damage(image, options)


def check_needed_table(
    image: Image, options: argparse.Namespace, source: str | None = None, cause: Exception | None = None
) -> None:
    """As `check_partitions`, but where a command names a partition by its place, which needs no table."""
    given = vars(options)
    texts = [given.get(name) for name in ("target", "partition", "pattern", "bank")] + [*(given.get("targets") or ())]
    if not any(begins_with_place(text) for text in texts if text):
        check_partitions(image, options, source, cause)


def check_partitions(
    image: Image, options: argparse.Namespace, source: str | None = None, cause: Exception | None = None
) -> None:
    """Raise the first problem of the table where an image, of the command or of another source, has no partitions."""
    if not len(image.partitions):
        for problem in image.partitions.problems:
            way = way_of(options, devices=False)
            raise no_disk(problem, source or options.source, image.known_size, way=way) from cause


def is_part(options: argparse.Namespace) -> bool:
    """Whether a disk in SRC is meant: one that the options name, or that of the machine that SRC describes."""
    if options.member is not None or options.disk is not None:
        return True
    machine = machine_at(options.source, options, open_options(options, None))
    if machine is not None:
        machine.close()
    return machine is not None


def named_partition(image: Image, text: str) -> Partition:
    """Partition with a number or at a place, or else with a label."""
    if text.isdecimal() and int(text) in image.partitions:
        return image.partitions[int(text)]
    return placed_or_labelled(image.partitions, text)


@contextlib.contextmanager
def naming_a_bank(options: argparse.Namespace, image: Image) -> Iterator[None]:
    """Block in which it is an error with a next step that the boot loader starts no bank."""
    try:
        yield
    except PartitionNotFound as error:
        if options.bank != "active" or not image.partitions.banks:
            raise
        dest = getattr(options, "dest", None)
        given = [*(() if dest is None else (dest,)), "--bank", image.partitions.banks[0].key]
        name = "system" if dest is None else "pxe"
        raise error.restated(f"{error}: {command(name, options.source, *given, *way_of(options))}") from error
