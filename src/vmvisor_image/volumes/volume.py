"""A partition's content, as every type of volume offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

from vmvisor_image.errors import Problem
from vmvisor_image.file_tree import FileTree
from vmvisor_image.files import Extent
from vmvisor_image.record import Record


class Volume(Protocol):
    """A partition's content."""

    @property
    def kind(self) -> str:
        """Its name in `Partition.kind`."""
        ...

    @property
    def label(self) -> str | None:
        """Its label, or None."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """Its headers as they are on disk, by their names."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What its headers say, in words."""
        ...


class FileVolume(Volume, Protocol):
    """A volume whose files this library reads."""

    @property
    def files(self) -> FileTree:
        """Its files."""
        ...

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`."""
        ...


def has_files(volume: Volume | None) -> TypeGuard[FileVolume]:
    """Whether it is a `FileVolume`; asks for none of its properties, some of which read much."""
    return hasattr(volume, "locate")
