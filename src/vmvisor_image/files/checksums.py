"""Checksum files, as md5sum and sha256sum write them, and the files beside them that they describe."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import CorruptImage
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree

_ALGORITHMS: Final = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""Number of hexadecimal digits of each checksum, by suffix, which is also hashlib's name."""
_LARGEST: Final = 1 << 20
"""Largest checksum file that is read, in bytes: some ten thousand lines."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum from a checksum file, and the one computed from the file."""

    path: str
    """Path of the file."""
    listed_in: str
    """Path of the checksum file."""
    algorithm: str
    expected: str
    """Checksum from the checksum file, in lower-case hexadecimal."""
    found: str

    @property
    def is_right(self) -> bool:
        """Whether the file has the expected checksum."""
        return self.expected == self.found


def check_beside(file: File, files: FileTree) -> Iterator[Checksum]:
    """Checks of a file against the checksum files beside it, named after the file with or without its suffixes.

    A checksum file with a single line applies to the file beside it, whatever name the line has: ``imagedd.md5`` has
    the name of the image from before it was put on the CD.

    Raises:
        CorruptImage: A checksum file holds no checksum or is too large, or one of the files is damaged.
    """
    folder = file.path[: -len(file.name)]
    stem = file.name.partition(".")[0]
    for algorithm, digits in _ALGORITHMS.items():
        for name in dict.fromkeys((f"{file.name}.{algorithm}", f"{stem}.{algorithm}")):
            listed = next((f for f in files.values() if fold_name(f.path) == fold_name(f"{folder}{name}")), None)
            if listed is None:
                continue
            if listed.size > _LARGEST:
                raise CorruptImage(
                    f"{listed.path!r} is too large",
                    structure="checksum file",
                    expected=f"at most {_LARGEST} bytes",
                    found=listed.size,
                )
            lines = _lines(listed.read_bytes(), digits)
            if not lines:
                raise CorruptImage(f"{listed.path!r} holds no {algorithm} checksum", structure="checksum file")
            expected = _expected(lines, file.name)
            if expected is not None:
                digest = hashlib.new(algorithm, usedforsecurity=False)
                for chunk in file.chunks():
                    digest.update(chunk)
                yield Checksum(file.path, listed.path, algorithm, expected, digest.hexdigest())


def _lines(data: bytes, digits: int) -> list[re.Match[str]]:
    """Matches of the lines that hold a checksum, with or without a file name after it."""
    rule = re.compile(rf"\\?([0-9a-fA-F]{{{digits}}})(?:\s+\*?(.+))?")
    return [match for line in data.decode("utf-8", "replace").splitlines() if (match := rule.fullmatch(line.strip()))]


def _expected(lines: list[re.Match[str]], name: str) -> str | None:
    if len(lines) == 1:
        return lines[0].group(1).lower()
    return next((line.group(1).lower() for line in lines if line.group(2) == name), None)
