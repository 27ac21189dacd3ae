"""The place of a machine's files: a directory, a datastore or archive, or somewhere on a server.

Only the machine's own directory is looked in, and of paths into a datastore that datastore: a file must not choose
which directories of the system are read.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from vmvisor_image.archives.archive import Archive
from vmvisor_image.base.names import fold_name, last_part
from vmvisor_image.errors import PathNotFound, UnsafeName
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.opening import SourceLike, open_source, path_of
from vmvisor_image.streams.sources import has_folder
from vmvisor_image.streams.urls import is_url, neighbour_url
from vmvisor_image.volumes.vmfs.volume import VmfsVolume

_IN_DATASTORE: Final = (re.compile(r"/?vmfs/volumes/([^/]+)/(.+)"), re.compile(r"\[([^\]]+)\]\s*(.+)"))
"""Paths into a datastore: by its UUID or label in the file system of a host, or as vSphere writes them."""


class Place(Protocol):
    """Directory of a machine's description."""

    def find(self, name: str) -> SourceLike:
        """The file of that name.

        Raises:
            OSError: There is none, or it can't be reached.
            KeyError: There is none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory of the system."""

    path: Path

    def find(self, name: str) -> SourceLike:
        """See `Place.find`."""
        found = self.path / name
        if found.name != name or not found.exists():  # "C:x" leads to another drive on Windows
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(found))
        return str(found)


@dataclass(frozen=True, slots=True)
class Address:
    """A place on a server."""

    url: str
    """URL of the machine's description."""
    storage_options: Mapping[str, Any] | None

    def find(self, name: str) -> SourceLike:
        """See `Place.find`; asks the server."""
        found = neighbour_url(self.url, name)
        open_source(found, self.storage_options).close()
        return found


@dataclass(frozen=True, slots=True)
class Beside:
    """The directory of a file in a volume or archive."""

    file: File

    def find(self, name: str) -> SourceLike:
        """See `Place.find`."""
        files = getattr(self.file.home, "files", None)
        if not isinstance(files, FileTree):
            raise PathNotFound(f"{self.file.path!r} lies in no directory that could be looked in")
        # Not by `files[…]`, which looks through the whole tree for what is not there: most machines have no snapshots.
        found = files.root.joinpath(self.file.path.rpartition("/")[0], name)
        if not isinstance(found, File):
            raise PathNotFound(f"{found.path!r} is a directory, not a file")
        return found


@dataclass(frozen=True, slots=True)
class InArchive:
    """The root of an archive, as of an OVA."""

    archive: Archive

    def find(self, name: str) -> SourceLike:
        """See `Place.find`."""
        return self.archive[name]


def place_of(source: SourceLike, storage_options: Mapping[str, Any] | None = None) -> Place | None:
    """Place of the files beside a source; None for a source without a directory, such as bytes or standard input."""
    if isinstance(source, File):
        return Beside(source)
    path = path_of(source)
    if path is None:
        return None
    if storage_options is not None or is_url(path):
        return Address(path, storage_options)
    return Folder(Path(path).parent) if has_folder(path) else None


def file_name_of(path: str, structure: str) -> str:
    """Last part of a path in a description.

    Raises:
        UnsafeName: It names no file.
    """
    inside = next((match[2] for rule in _IN_DATASTORE if (match := rule.fullmatch(path))), path)
    name = last_part(inside)
    if name is None:
        raise UnsafeName(f"its path names no file, {path!r}", structure=structure)
    return name


def is_elsewhere(path: str) -> bool:
    """Whether a path names another directory than that of the file that has it."""
    return bool(re.search(r"[/\\\]]", path))


def in_same_datastore(path: str, place: Place | None) -> File | None:
    """File at a path into a datastore, where that is the one that the machine lies in; None for any other path.

    Raises:
        PathNotFound: It would be in this datastore, and is not there.
    """
    if not isinstance(place, Beside):
        return None
    home = place.file.home
    volume, files = getattr(home, "volume", None), getattr(home, "files", None)
    if not isinstance(volume, VmfsVolume) or not isinstance(files, FileTree):
        return None
    names = {fold_name(name) for name in (volume.label, volume.uuid, volume.volume_uuid) if name}
    for rule in _IN_DATASTORE:
        match = rule.fullmatch(path)
        if match is not None and fold_name(match[1]) in names:
            return files[match[2]]
    return None
