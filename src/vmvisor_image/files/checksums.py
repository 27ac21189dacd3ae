"""Checksum files, as md5sum and sha256sum write them, beside what they are of."""

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
"""Suffixes, which are hashlib's names, and hexadecimal digits of each."""
_LARGEST: Final = 1 << 20
"""Bytes of a checksum file that is read: some ten thousand lines."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a checksum file says of a file, and what the file has."""

    path: str
    """The file."""
    listed_in: str
    """The checksum file."""
    algorithm: str
    expected: str
    """In hexadecimal, lower case."""
    found: str

    @property
    def is_right(self) -> bool:
        """Whether the file is what it should be."""
        return self.expected == self.found


def check_beside(file: File, files: FileTree) -> Iterator[Checksum]:
    """Check a file against the checksum files beside it: those of its name, or its name without suffixes.

    A checksum file with one line is about the file that it lies beside, whatever name it gives: ``imagedd.md5`` names
    the image as it was called before it was put on the CD.

    Raises:
        CorruptImage: A checksum file holds no checksum or is too large, or what is to be read is damaged.
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
    """The lines that are a checksum and a name."""
    rule = re.compile(rf"\\?([0-9a-fA-F]{{{digits}}})(?:\s+\*?(.+))?")
    return [match for line in data.decode("utf-8", "replace").splitlines() if (match := rule.fullmatch(line.strip()))]


def _expected(lines: list[re.Match[str]], name: str) -> str | None:
    if len(lines) == 1:
        return lines[0].group(1).lower()
    return next((line.group(1).lower() for line in lines if line.group(2) == name), None)
