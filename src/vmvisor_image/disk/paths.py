"""Paths in an image, ``PARTITION/PATH``: one spelling for the library, the command line and ``vmvisor://``.

The first part is a partition's number or label, or ``@`` and its first byte; the rest is a POSIX path from the root of
its volume. A label that can't stand there, since it holds a slash, may be written as it is, or with percent escapes
(RFC 3986, section 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol
from urllib.parse import unquote

from vmvisor_image.base.names import fold_name
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.errors import CorruptImage, InvalidArgument, NotAFileSystem, PartitionNotFound, PathNotFound
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.patterns import has_wildcards, name_rule
from vmvisor_image.files.tree import FileTree
from vmvisor_image.volumes.volume import has_files

_PLACE: Final = re.compile(r"@(0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18})", re.ASCII)
"""First byte of a partition, from the start of the disk."""
_LONGEST_NUMBER: Final = 9
"""Digits of the longest text that is a number; a longer one is a label."""


class HasPartitions(Protocol):
    """An image, as far as paths in it need it."""

    @property
    def partitions(self) -> PartitionTable:
        """Its partition table."""
        ...


def resolve(image: HasPartitions, path: str) -> Partition | Directory | File:
    """Target of a path in an image; the disk is read no further than to that partition, and only along the path.

    Args:
        image: The image.
        path: Number or label of a partition, and the POSIX path in its volume, with a slash between, such as
            ``"Hypervisor1/boot.cfg"`` or ``"5/boot.cfg"``. Digits are a number where there is a partition of that
            number, otherwise a label. ``@`` and a number of bytes, as in ``"@0x100000/vm/a.txt"``, is the partition
            that begins there, also one that the table does not have, see `PartitionTable.at`.

    Returns:
        The partition where the path ends with its name; its root directory where only a slash follows; otherwise a
        file or directory of its volume.

    Raises:
        PartitionNotFound: There is no such partition.
        PathNotFound: The volume has no such file or directory.
        NotAFileSystem: A path follows the partition's name, and its files can't be read.
        CorruptImage: The partition table or the volume is damaged.
    """
    partition, rest = split_path(image, path)
    if rest is None:
        return partition
    return entry_at(partition.files, rest, path)


def entry_at(files: FileTree, rest: str, path: str) -> Directory | File:
    """File or directory of a volume.

    Args:
        files: Files of the volume.
        rest: Path from the volume's root.
        path: Whole path as it was given, which ends with `rest`, for the message.

    Raises:
        PathNotFound: The volume has no such file or directory.
    """
    try:
        return files.root.joinpath(rest)
    except PathNotFound:
        pass
    try:
        return files[rest]  # a damaged or hostile name can hold a slash
    except PathNotFound as error:
        raise error.restated(f"no {path!r} in this image", prefix=path.removesuffix(rest)) from error


def glob(image: HasPartitions, pattern: str) -> Iterator[File]:
    """Files of an image whose path ``PARTITION/PATH`` matches a pattern; `File.home` is the partition of each.

    Args:
        image: The image.
        pattern: Number or label of a partition, and a pattern for `Directory.glob`, with a slash between, such as
            ``"Hypervisor3/packages/**"``. The first part may be a pattern, too: ``"*/boot.cfg"`` looks in every
            partition whose files can be read, in disk order, ``"**/boot.cfg"`` at any depth of them, and ``"**"`` gives
            all files.

    Raises:
        PartitionNotFound: There is no such partition.
        NotAFileSystem: The files of the partition can't be read.
        InvalidArgument: Nothing follows the partition.
        CorruptImage: The partition table or the volume is damaged.
        LimitExceeded: There are too many files and directories, or directories are nested too deeply.
    """
    given = pattern.lstrip("/")
    name, _, rest = given.partition("/")
    try:
        partition, below = split_path(image, pattern)
    except PartitionNotFound:
        if not has_wildcards(name):
            raise
        below, trees = given if name == "**" else rest, _trees(image.partitions, name)
    else:
        trees = iter([partition.files]) if below else iter(())
    if not below:
        raise InvalidArgument(
            f"{pattern!r} is for partitions, and matches no file in them: {f'{name}/**'!r} matches all their files"
        )
    wanted = below
    return (file for tree in trees for file in tree.glob(wanted))


def _trees(partitions: PartitionTable, pattern: str) -> Iterator[FileTree]:
    """Files of each partition whose number or label matches, where they can be read."""
    rule = name_rule(pattern, fold_case=True)
    for partition in partitions:
        if any(rule(name) for name in (partition.key, partition.name, partition.label) if name):
            try:
                if has_files(partition.volume):  # unlike `Partition.files`, this does not determine the kind of others
                    yield partition.files
            except NotAFileSystem:  # such as the second device of a datastore
                continue
            except CorruptImage as error:  # the other partitions can be read
                partition._report(error)


def split_path(image: HasPartitions, path: str) -> tuple[Partition, str | None]:
    """Partition that a path begins with, and the rest of the path; None where not even a slash follows.

    Args:
        image: The image.
        path: Path as for `resolve`. What follows the partition need not exist, and may be a pattern.

    Raises:
        PartitionNotFound: There is no such partition.
        CorruptImage: The partition table is damaged.
    """
    given = path.lstrip("/")
    name, slash, rest = given.partition("/")
    if not name:
        raise PartitionNotFound(f"{path!r} names no partition: a path begins with the number or label of one")
    partitions = image.partitions
    if (placed := at_place(partitions, name)) is not None:
        return placed, rest if slash else None
    try:
        return _partition(partitions, name), rest if slash else None
    except PartitionNotFound:
        found = _labelled_with_slash(partitions, given)
        if found is None:
            raise
        return found


def at_place(partitions: PartitionTable, name: str) -> Partition | None:
    """Partition that ``@`` and its first byte name; None for any other name.

    Raises:
        PartitionNotFound: Nothing is recognised there.
        CorruptImage: The disk can't be read there.
    """
    place = _PLACE.fullmatch(name)
    return None if place is None else partitions.at(int(place[1], 0))


def placed_or_labelled(partitions: PartitionTable, name: str) -> Partition:
    """Partition that ``@`` and its first byte name, or that has the name for its label.

    Raises:
        PartitionNotFound: There is no such partition.
        CorruptImage: The partition table is damaged, or the disk can't be read there.
    """
    placed = at_place(partitions, name)
    return partitions[name] if placed is None else placed


def begins_with_place(path: str) -> bool:
    """Whether a path begins with a partition by its place, which needs no partition table."""
    return _PLACE.fullmatch(path.lstrip("/").partition("/")[0]) is not None


def path_name(partitions: PartitionTable, partition: Partition) -> str:
    """First part of the paths of a partition's files: its label, or its key where that is unfit or it was found.

    A label is unfit if it is ambiguous, empty, a number, a place, a dot or two, or holds a path separator or ``::``,
    which separates URLs.
    """
    label = partition.label or ""
    fits = is_component(label) and "::" not in label and not _is_number(label) and _PLACE.fullmatch(label) is None
    return label if partition.finding is None and fits and partitions[label] is partition else partition.key


def is_component(name: str) -> bool:
    """Whether a name from an image is one component of a path, on any system."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _partition(partitions: PartitionTable, name: str) -> Partition:
    if _is_number(name) and (found := partitions.get(int(name))) is not None:
        return found
    if "%" in name and partitions.get(name) is None:
        return partitions[unquote(name)]
    return partitions[name]


def _labelled_with_slash(partitions: PartitionTable, path: str) -> tuple[Partition, str | None] | None:
    """Partition with the longest label that holds a slash and begins the path, and the rest."""
    folded, longest, found = fold_name(path), 0, None
    for partition in partitions:
        for label in filter(None, (partition.name, partition.label)):
            size = len(label)
            if "/" in label and size > longest and f"{folded}/".startswith(f"{fold_name(label)}/"):
                longest, found = size, (partition, path[size + 1 :] if len(path) > size else None)
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= _LONGEST_NUMBER
