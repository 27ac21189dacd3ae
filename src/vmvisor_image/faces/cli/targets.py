"""What a command is about, ``PARTITION/PATH``: found in an image, or in a datastore on several disks."""

from __future__ import annotations

import argparse
import contextlib
import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from vmvisor_image.disk.datastore import Datastore, open_datastore
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.paths import entry_at, path_name, split_path
from vmvisor_image.errors import (
    CorruptImage,
    InvalidArgument,
    NotAFileSystem,
    PartitionNotFound,
    PathNotFound,
    Problem,
)
from vmvisor_image.faces.cli.opening import check_needed_table, named_partition, opened_image
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.patterns import has_wildcards, name_rule
from vmvisor_image.files.tree import FileTree


@dataclass(frozen=True, slots=True)
class Target:
    """A partition or datastore, and a path or pattern in it."""

    holder: Partition | Datastore
    """Partition or datastore."""
    name: str
    """First part of the paths of its files, as in ``vmvisor://``."""
    rest: str | None
    """Path from its root, or a pattern; None where only the partition is named."""
    given: str
    """The whole as it was given."""

    @property
    def number(self) -> int | None:
        """Number of the partition; None for a datastore."""
        return self.holder.number if isinstance(self.holder, Partition) else None

    @property
    def folder(self) -> str:
        """Folder that its files are extracted to where there are several."""
        return self.holder.key if isinstance(self.holder, Partition) else self.name

    def entry(self) -> Directory | File:
        """File or directory at the path.

        Raises:
            PathNotFound: There is none.
            NotAFileSystem: The files of the partition can't be read.
        """
        return entry_at(self.holder.files, self.rest or "", self.given)

    def patterns(self) -> tuple[str, ...]:
        """Patterns for the files meant: that file, those in that directory, or those that match; none for all.

        Raises:
            PathNotFound: There is no such file or directory, and no file matches the path as a pattern.
            NotAFileSystem: The files of the partition can't be read.
        """
        if not (self.rest or "").strip("/"):
            return ()
        try:
            found = self.entry()
        except PathNotFound:
            rest = self.rest or ""
            if not has_wildcards(rest):
                raise
            if not any(True for _ in self.holder.files.glob(rest)):
                raise no_match(self.given, self._matches) from None
            return (rest,)
        path = glob.escape(found.path)
        return (path if isinstance(found, File) else f"{path}/**",)

    def _matches(self, deeper: str) -> bool:
        """Whether a pattern with the same beginning as the one given matches a file."""
        rest = deeper[len(self.given) - len(self.rest or "") :]
        return any(True for _ in self.holder.files.glob(rest))


@dataclass(frozen=True, slots=True)
class Selection:
    """Files of one partition or datastore."""

    target: Target
    patterns: tuple[str, ...]
    """Patterns of which each file matches one; none for all files."""
    above: str
    """Folder that the files are extracted to, with a slash, or nothing for the destination itself."""

    @property
    def files(self) -> FileTree:
        """All files of the partition or datastore."""
        return self.target.holder.files

    def matching(self) -> Iterator[File]:
        """The files that are selected, each once."""
        if not self.patterns:
            yield from self.files.values()
            return
        seen: set[str] = set()
        for pattern in self.patterns:
            for file in self.files.glob(pattern):
                if file.path not in seen:
                    seen.add(file.path)
                    yield file


@dataclass(frozen=True, slots=True)
class Selected:
    """All that a command selects."""

    parts: tuple[Selection, ...]
    unread: tuple[Partition, ...] = ()
    """Partitions without files that can be read, where all partitions are meant."""


def partition_target(image: Image, partition: Partition) -> Target:
    """Target for a whole partition."""
    name = path_name(image.partitions, partition)
    return Target(partition, name, None, name)


def target_in(image: Image, text: str) -> Target:
    """Target that a text names."""
    partition, rest = split_path(image, text)
    return Target(partition, path_name(image.partitions, partition), rest, text)


@contextlib.contextmanager
def opened_target(options: argparse.Namespace, *, is_whole: bool = False) -> Iterator[Target]:
    """Target of a command with one PARTITION/PATH, in ``options.target``; ``is_whole``: it is a partition, no path."""
    with opened_image(options) as image:
        text = options.target
        if options.device:
            with _datastore(options, image, [text] if text else [], is_whole=is_whole) as [target]:
                yield target
        else:
            target = partition_target(image, named_partition(image, text)) if is_whole else target_in(image, text)
            options.read = [target.holder]
            yield target


@contextlib.contextmanager
def _datastore(
    options: argparse.Namespace, image: Image, texts: Sequence[str], *, is_whole: bool
) -> Iterator[list[Target]]:
    """Targets in the datastore that the image is a device of; ``is_whole``: each text is a label, and no path."""
    parts = [(text, "", "") if is_whole else text.partition("/") for text in texts]
    labels = {unquote(label) for label, _, _ in parts}
    if len(labels) > 1:
        raise InvalidArgument(f"the disks given with --device are one datastore, not {' and '.join(sorted(labels))}")
    with open_datastore(image, *options.device, volume=next(iter(labels), None)) as store:
        rests = [(text, rest if slash else None) for text, (_, slash, rest) in zip(texts, parts, strict=True)]
        yield [Target(store, store.label or "", rest, text) for text, rest in rests or [("", None)]]


@dataclass(frozen=True, slots=True)
class Searched:
    """What `find` looks in: an image, or one datastore."""

    image: Image
    store: Target | None
    """The datastore; None for the partitions of the image."""
    is_named: bool
    """Whether the pattern begins with the datastore's own name."""

    def matching(self, pattern: str) -> Iterator[tuple[Target, File]]:
        """Files that match, each with its partition or datastore; a pattern without a slash is that of a name.

        Raises:
            PartitionNotFound: There is no such partition.
            NotAFileSystem: The files of the partition can't be read.
        """
        given = pattern if "/" in pattern else f"**/{pattern}"
        if self.store is None:
            targets: dict[int, Target] = {}
            for file in self.image.glob(given):
                home = file.home
                assert isinstance(home, Partition), "a file of an image is in a partition"
                yield targets.setdefault(home.start, partition_target(self.image, home)), file
            return
        name, _, rest = given.lstrip("/").partition("/")
        if name == "**":
            rest = given
        elif not (self.is_named or name_rule(unquote(name), fold_case=True)(self.store.name)):
            return
        for file in self.store.holder.files.glob(rest):
            yield self.store, file

    def has(self, pattern: str) -> bool:
        """Whether any file matches."""
        return any(True for _ in self.matching(pattern))

    @property
    def problems(self) -> Sequence[Problem]:
        """Damage found so far."""
        return self.image.known_problems if self.store is None else self.store.holder.problems


@contextlib.contextmanager
def opened_search(options: argparse.Namespace) -> Iterator[Searched]:
    """What a command with a pattern looks in, in ``options.pattern``."""
    with opened_image(options) as image:
        if not options.device:
            check_needed_table(image, options)
            yield Searched(image, None, is_named=False)
            if "/" in options.pattern:
                with contextlib.suppress(PartitionNotFound):  # a pattern for partitions, too
                    options.read = [split_path(image, options.pattern)[0]]
            return
        name, slash, _ = options.pattern.partition("/")
        is_named = bool(slash) and not has_wildcards(name)
        with _datastore(options, image, [options.pattern] if is_named else [], is_whole=False) as [store]:
            yield Searched(image, store, is_named)


@contextlib.contextmanager
def opened_selection(options: argparse.Namespace, texts: Sequence[str]) -> Iterator[tuple[Image, Selected]]:
    """Files that a command with any number of PARTITION/PATH is about; without any, those of all partitions."""
    with opened_image(options) as image:
        if options.device:
            with _datastore(options, image, texts, is_whole=False) as targets:
                yield image, Selected(tuple(_merged(targets, lambda _: "")))
            return
        check_needed_table(image, options)
        selected = _selected(options, image, texts) if texts else _all(options, image)
        if texts:
            options.read = [part.target.holder for part in selected.parts]
        yield image, selected


def _all(options: argparse.Namespace, image: Image) -> Selected:
    parts, unread = [], []
    for partition in image.partitions:
        if partition.is_container:
            continue
        try:
            _ = partition.files
        except NotAFileSystem:
            unread.append(partition)
        except CorruptImage as error:  # the other partitions can be read
            options.problems.append(Problem.of(error))
        else:
            parts.append(Selection(partition_target(image, partition), (), f"{partition.key}/"))
    if not parts:
        raise NotAFileSystem("no partition of this image has files that can be read")
    return Selected(tuple(parts), tuple(unread))


def _selected(options: argparse.Namespace, image: Image, texts: Sequence[str]) -> Selected:
    targets: list[Target] = []
    is_pattern = False
    for text in texts:
        try:
            targets.append(target_in(image, text))
        except PartitionNotFound:
            if not has_wildcards(text.lstrip("/").partition("/")[0]):
                raise
            is_pattern = True
            targets += _matching_partitions(options, image, text)
    is_one = not is_pattern and len({target.folder for target in targets}) == 1
    return Selected(tuple(_merged(targets, lambda target: "" if is_one else f"{target.folder}/")))


def _matching_partitions(options: argparse.Namespace, image: Image, text: str) -> list[Target]:
    """Targets for a pattern whose first part is one, too."""
    given = text.lstrip("/")
    name, _, rest = given.partition("/")
    if name == "**":
        rest = given
    rule = name_rule(name, fold_case=True)
    found = []
    for part in _all(options, image).parts:
        partition = part.target.holder
        assert isinstance(partition, Partition)
        names = (partition.key, partition.name, partition.label)
        if any(rule(each) for each in names if each) and (not rest or any(True for _ in partition.files.glob(rest))):
            found.append(Target(partition, part.target.name, rest or None, text))
    if not found:
        raise no_match(text, lambda pattern: any(True for _ in image.glob(pattern)))
    return found


def no_match(pattern: str, matches: Callable[[str], bool], names: Iterable[str] = ()) -> PathNotFound:
    """Error for a pattern that matches no file; it names the one for directories below, where that matches.

    Args:
        pattern: Pattern as it was given.
        matches: Whether another pattern matches a file.
        names: Names of files that the pattern may have meant, if it is a name.
    """
    above, slash, last = pattern.rpartition("/")
    deeper = f"{above}{slash}**/{last}"
    is_deeper = "**" not in pattern and last != "" and matches(deeper)
    elsewhere = [deeper] if is_deeper else ()
    return PathNotFound(f"no file matches {pattern!r}", wanted=pattern, names=names, elsewhere=elsewhere)


def _merged(targets: Sequence[Target], above: Callable[[Target], str]) -> Iterator[Selection]:
    """Selections of the targets, one for each partition, in the order given."""
    patterns: dict[int, list[tuple[str, ...]]] = {}
    first: dict[int, Target] = {}
    for target in targets:
        key = id(target.holder)
        first.setdefault(key, target)
        patterns.setdefault(key, []).append(target.patterns())
    for key, target in first.items():
        every = patterns[key]
        yield Selection(target, () if () in every else tuple(each for found in every for each in found), above(target))
