"""All files of a volume or archive, by path."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any, ClassVar

from vmvisor_image.base.limits import DEFAULT_LIMITS, Meter, check_deadline, passed
from vmvisor_image.base.names import fold_name
from vmvisor_image.base.shown import Shown
from vmvisor_image.errors import CorruptImage, InvalidArgument, PathNotFound, Problem, UnsafeName
from vmvisor_image.files.extraction import write_files
from vmvisor_image.files.file import Directory, File, FileHome


class _Files(ValuesView[File]):
    """Files of a tree, which is walked once at the start of each iteration."""

    _mapping: FileTree

    def __iter__(self) -> Iterator[File]:
        with self._mapping.limits.operation():
            return iter(tuple(self._mapping._walk()))

    def __contains__(self, file: object) -> bool:
        return isinstance(file, File) and self._mapping.get(file.path) is file


class _PathsAndFiles(ItemsView[str, File]):
    """Paths and files of a tree, as `_Files`."""

    _mapping: FileTree

    def __iter__(self) -> Iterator[tuple[str, File]]:
        return ((file.path, file) for file in self._mapping.values())


class FileTree(Shown, Mapping[str, File]):
    """Every regular file of a volume by its POSIX path from the root, such as ``"packages/tools.iso"``.

    Looking up a path reads only the directories along it; iterating reads all directories.
    """

    _SKIPS_UNSAFE: ClassVar[bool] = True
    """Whether extraction skips only the file whose name can't be written, and does not refuse all files."""

    def __init__(
        self,
        root: Directory,
        problems: Callable[[], tuple[Problem, ...]],
        *,
        fold_case: bool,
        home: FileHome | None = None,
    ) -> None:
        """Constructor for volumes and archives.

        Args:
            root: The root directory.
            problems: Returns the damage found so far.
            fold_case: Whether names are case-insensitive, as on FAT.
            home: Partition or archive that the volume lies in, for its limits.
        """
        self.root = root
        """The root directory."""
        meter: Meter | None = getattr(home, "meter", None)
        self.limits = DEFAULT_LIMITS if meter is None else meter.limits
        """Limits of a walk, which are those of the image."""
        self._problems = problems
        self._fold_case = fold_case

    @property
    def crc32s(self) -> Mapping[str, int | None]:
        """CRC-32 of each file's content as its container records it, by path; empty for containers without CRCs."""
        return {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage in the directories read so far."""
        return self._problems()

    def __getitem__(self, path: str) -> File:
        """The file at `path`.

        Raises:
            PathNotFound: There is no such file; it is also a KeyError.
        """
        if not isinstance(path, str):
            raise PathNotFound(f"paths are strings, not {path!r}")
        try:
            found: File | Directory | None = self.root.joinpath(path)
        except PathNotFound:
            found = None
        if isinstance(found, File):
            return found
        # A damaged or hostile name can also hold a slash, be empty or a dot, or equal that of a directory beside it.
        key, folded = self._key(path), None
        for file in self.values():
            if file.path == path:
                return file
            if folded is None and self._key(file.path) == key:
                folded = file
        if folded is not None:
            return folded
        if found is not None:
            raise PathNotFound(f"{path!r} is a directory of this volume, not a file")
        raise PathNotFound(f"no file {path!r} in this volume")

    def __iter__(self) -> Iterator[str]:
        for file in self._walk():
            yield file.path

    def __len__(self) -> int:
        with self.limits.operation():
            return sum(1 for _ in self._walk())

    def _walk(self) -> Iterator[File]:
        """Files with distinct paths: of two files with the same name in a directory, only the first."""
        seen: set[str] = set()
        for file in self.all_files():
            if file.path not in seen:
                seen.add(file.path)
                yield file

    def all_files(self) -> Iterator[File]:
        """Every file, in the order of the directories, including those hidden by another one with the same path.

        Raises:
            LimitExceeded: There are too many files and directories, or directories are nested too deeply.
        """
        return (file for file, _ in self._walk_all())

    def _walk_all(self) -> Iterator[tuple[File, bool]]:
        """Files as in `all_files`, each with whether no name in its path holds a slash."""
        pending = [("", True, iter(self.root))]
        count, limits = 0, self.limits
        while pending:
            check_deadline()
            above, is_whole, entries = pending[-1]
            for entry in entries:
                count += 1
                if count > limits.entries:
                    raise passed("entries", f"more than {limits.entries} files and directories")
                named = is_whole and "/" not in entry.path[len(above) + 1 if above else 0 :]
                if isinstance(entry, Directory):
                    if len(pending) > limits.depth:
                        raise passed("depth", f"more than {limits.depth} directories in each other")
                    pending.append((entry.path, named, iter(entry)))
                    break
                yield entry, named
            else:
                pending.pop()

    def values(self) -> ValuesView[File]:
        """The files, in the order of the directories."""
        return _Files(self)

    def items(self) -> ItemsView[str, File]:
        """Paths and files, in the order of the directories."""
        return _PathsAndFiles(self)

    def glob(self, pattern: str) -> Iterator[File]:
        """Files whose path matches `pattern`, each component by shell rules; ``**`` matches any number of directories.

        Only directories that can match are read.

        Raises:
            InvalidArgument: The pattern is empty.
        """
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if not parts:
            raise InvalidArgument("an empty pattern matches nothing")
        rules = tuple(None if part == "**" else self._rule(part) for part in parts)
        return self._glob(rules)

    def _rule(self, part: str) -> Callable[[str], bool]:
        """Predicate that tells whether a name matches one component of a pattern."""
        exact = re.compile(fnmatch.translate(part))
        if not self._fold_case:
            return lambda name: exact.match(name) is not None
        folded = re.compile(fnmatch.translate(fold_name(part)))
        return lambda name: exact.match(name) is not None or folded.match(fold_name(name)) is not None

    def _glob(self, rules: tuple[Callable[[str], bool] | None, ...]) -> Iterator[File]:
        # Each directory carries the set of rules that may come next in it, so that no directory is listed twice.
        pending: list[tuple[Directory, frozenset[int]]] = [(self.root, self._reachable(rules, {0}))]
        while pending:
            directory, states = pending.pop()
            below = []
            for entry in directory:
                matched = {
                    state + 1
                    for state in states
                    if state < len(rules) and (rule := rules[state]) is not None and rule(entry.name)
                }
                if isinstance(entry, Directory):
                    stay = {state for state in states if state < len(rules) and rules[state] is None}
                    following = self._reachable(rules, matched | stay)
                    if any(state < len(rules) for state in following):
                        below.append((entry, following))
                elif len(rules) in matched or (rules[-1] is None and len(rules) - 1 in states):
                    yield entry
            pending.extend(reversed(below))

    @staticmethod
    def _reachable(rules: tuple[Callable[[str], bool] | None, ...], states: set[int]) -> frozenset[int]:
        """`states`, and those reached when ``**`` matches no directory."""
        closed = set(states)
        for state in range(len(rules)):
            if state in closed and rules[state] is None:
                closed.add(state + 1)
        return frozenset(closed)

    def extract(
        self, dest: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False
    ) -> tuple[Path, ...]:
        """Write every file below `dest`, with its name and time, and return the paths written.

        All names are checked before anything is written; files appear whole or not at all. In a volume, only the files
        with unsafe names are skipped: a name that can't be written safely, or the second of two that are the same on a
        case-insensitive file system. In an archive, whose names are chosen freely, one such name refuses all files.

        Args:
            dest: Directory to write to; created if it is missing.
            overwrite: Replace files that are already there.
            resume: Continue an interrupted extraction: files that are already there with the right content are left as
                they are. Both they and the image are read to compare; size and time would not distinguish disks.

        Raises:
            UnsafeName: A name would leave `dest`, is a device name, or collides with another one: every name for a
                volume, any name for an archive.
            DestinationExists: A file is already there and `overwrite` is False.
            DestinationFull: There is no room left; what was written is whole.
            DestinationFailed: The destination can't be written for another reason; what was written is whole.
            PartialExtraction: Some files are damaged, or have unsafe names; the others were written.
            LimitExceeded: The files are too large or too many; anything written before is whole.
        """
        with self.limits.operation():
            files: list[tuple[str, File]] = []
            refused: list[tuple[str, CorruptImage]] = []
            for file, is_whole in self._walk_all():
                if is_whole or not self._SKIPS_UNSAFE:
                    files.append((file.path, file))
                else:
                    error = UnsafeName(f"a name in {file.path!r} holds a path separator", structure="file name")
                    refused.append((file.path, error))
            return write_files(
                files,
                dest,
                overwrite=overwrite,
                resume=resume,
                most_bytes=self.limits.extracted_bytes,
                refused=refused,
                skip_unsafe=self._SKIPS_UNSAFE,
            )

    def _key(self, path: str) -> str:
        return fold_name(path) if self._fold_case else path

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("the files of an image can't be pickled as one: pickle their partition, or each of them")

    def __repr__(self) -> str:
        return f"<FileTree of {self.root!r}>"
