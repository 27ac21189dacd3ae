"""All files of a volume or archive, by path."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any, ClassVar, Final

from vmvisor_image.base.limits import DEFAULT_LIMITS, Limits, Meter
from vmvisor_image.base.names import fold_name
from vmvisor_image.base.shown import Shown
from vmvisor_image.errors import PathNotFound, Problem
from vmvisor_image.files.file import Directory, File, FileHome, TreeRules

_MOST_ELSEWHERE: Final = 3
"""Largest number of files of the same name in other directories that an error names."""


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
    _HOLDER: ClassVar[str] = "volume"
    """What holds the files, for messages."""

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
        root._rules = TreeRules(DEFAULT_LIMITS if meter is None else meter.limits, skips_unsafe=self._SKIPS_UNSAFE)
        self._number: int | None = getattr(home, "number", None) or None
        self._problems = problems
        self._fold_case = fold_case

    @property
    def limits(self) -> Limits:
        """Limits of a walk, which are those of the image."""
        return self.root._rules.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.root._rules.limits = limits

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
        missing: PathNotFound | None = None
        try:
            found: File | Directory | None = self.root.joinpath(path)
        except PathNotFound as error:
            found, missing = None, error
        if isinstance(found, File):
            return found
        # A damaged or hostile name can also hold a slash, be empty or a dot, or equal that of a directory beside it.
        key, folded = self._key(path), None
        name = key.rpartition("/")[2]
        elsewhere: list[str] = []
        for file in self.values():
            if file.path == path:
                return file
            other = self._key(file.path)
            if folded is None and other == key:
                folded = file
            is_named_so = other.endswith(name) and other.rpartition("/")[2] == name
            if is_named_so and missing is not None and len(elsewhere) < _MOST_ELSEWHERE:
                elsewhere.append(file.path)
        if folded is not None:
            return folded
        if missing is None:
            raise PathNotFound(f"{path!r} is a directory of this {self._HOLDER}, not a file")
        raise missing.restated(f"no file {path!r} in this {self._HOLDER}", elsewhere=elsewhere) from missing

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
        return (file for file, _ in self.root._visit())

    def values(self) -> ValuesView[File]:
        """The files, in the order of the directories."""
        return _Files(self)

    def items(self) -> ItemsView[str, File]:
        """Paths and files, in the order of the directories."""
        return _PathsAndFiles(self)

    def glob(self, pattern: str) -> Iterator[File]:
        """Files whose path matches `pattern`; see `Directory.glob`.

        Raises:
            InvalidArgument: The pattern is empty.
        """
        return self.root.glob(pattern)

    def extract(
        self, dest: str | os.PathLike[str], *patterns: str, overwrite: bool = False, resume: bool = False
    ) -> tuple[Path, ...]:
        """Write every file, or those that match, below `dest`; see `Directory.extract`."""
        return self.root.extract(dest, *patterns, overwrite=overwrite, resume=resume)

    def _key(self, path: str) -> str:
        return fold_name(path) if self._fold_case else path

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("the files of an image can't be pickled as one: pickle their partition, or each of them")

    def __repr__(self) -> str:
        where = "" if self._number is None else f" of partition {self._number}"
        return f"<{type(self).__name__}{where}, {self.root!r}>"
