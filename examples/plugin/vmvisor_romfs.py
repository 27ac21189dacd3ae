"""romfs volumes for vmvisor-image. The format: https://docs.kernel.org/filesystems/romfs.html."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from vmvisor_image import CorruptImage, Directory, Extent, File, FileTree, Problem, ReadAt, Record
from vmvisor_image.files.file import FileHome
from vmvisor_image.streams import read_up_to

MAGIC = b"-rom1fs-"
_ALIGNMENT = 16
"""Headers, names and data begin at multiples of this many bytes from the volume's start."""
_LONGEST_NAME = 256
_DIRECTORY, _REGULAR = 1, 2


def probe(disk: ReadAt, start: int, size: int) -> bool:
    """Whether a romfs volume begins at byte `start`."""
    return size >= _ALIGNMENT and read_up_to(disk, start, len(MAGIC)) == MAGIC


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome) -> RomfsVolume:
    """The volume that `probe` recognised."""
    return RomfsVolume(disk, start, size, home)


class RomfsVolume:
    """A romfs volume: its headers form a list for each directory; each file's data is one run behind its header."""

    kind = "romfs"

    def __init__(self, disk: ReadAt, start: int, size: int, home: FileHome) -> None:
        self._disk, self._start, self._home = disk, start, home
        (self._size,) = struct.unpack(">I", disk.read_at(start + len(MAGIC), 4))
        if not 32 <= self._size <= size:
            raise CorruptImage(
                "it does not fit the partition", structure="romfs superblock", offset=start, field="full size",
                expected=f"32 to {size}", found=self._size,
            )  # fmt: skip
        name, first = self._name(16)
        self.label: str | None = name or None
        self._problems: list[Problem] = []
        self._listed: set[int] = set()
        self.files = FileTree(
            Directory("", None, lambda: self._list("", first), fold_case=False), lambda: self.problems, fold_case=False
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        return tuple(self._problems)

    @property
    def records(self) -> Mapping[str, Record]:
        """None: the headers are two fields each."""
        return {}

    @property
    def facts(self) -> Mapping[str, str]:
        """What `Partition.explain` adds."""
        return {"volume name": self.label or "none", "size": f"{self._size} bytes"}

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """Where a file's data is; the token is its offset in the volume and its length."""
        offset, length = token
        return (Extent(self._start + offset, length),) if length else ()

    def _list(self, path: str, header: int) -> list[File | Directory]:
        """A directory's entries, from the header of its first one on."""
        entries: list[File | Directory] = []
        while header:
            try:
                entry, header = self._entry(path, header)
            except CorruptImage as error:
                self._problems.append(Problem.of(error))
                break
            if entry is not None:
                entries.append(entry)
        return entries

    def _entry(self, path: str, header: int) -> tuple[File | Directory | None, int]:
        """One entry, None where it is neither file nor directory, and the next one's header, 0 for none."""
        if header in self._listed:
            raise self._damage("its headers form a loop", header)
        self._listed.add(header)
        following, info, size = struct.unpack(">III", self._read(header, 12))
        name, data = self._name(header + 16)
        below = f"{path}/{name}" if path else name
        entry: File | Directory | None = None
        if name in (".", ".."):
            pass
        elif following & 7 == _DIRECTORY:
            entry = Directory(below, None, lambda: self._list(below, info & ~15), fold_case=False)
        elif following & 7 == _REGULAR:
            if data + size > self._size:
                raise self._damage(f"{below!r} ends past the volume's end", header)
            entry = File(self._home, below, size, None, (data, size))
        return entry, following & ~15

    def _name(self, offset: int) -> tuple[str, int]:
        """The name at `offset`, and where what follows it begins."""
        raw = self._read(offset, min(_LONGEST_NAME, self._size - offset))
        name, zero, _ = raw.partition(b"\0")
        if not zero:
            raise self._damage("a name does not end", offset)
        return name.decode("utf-8", "backslashreplace"), offset + (len(name) // _ALIGNMENT + 1) * _ALIGNMENT

    def _read(self, offset: int, length: int) -> bytes:
        if length < 1 or offset + length > self._size:
            raise self._damage("a header lies past the volume's end", offset)
        return self._disk.read_at(self._start + offset, length)

    def _damage(self, message: str, offset: int) -> CorruptImage:
        return CorruptImage(message, structure="romfs file header", offset=self._start + offset)
