"""What a partition may hold: one module each, which says whether it recognises the content and opens it."""

from __future__ import annotations

from typing import Any, Protocol

from vmvisor_image.errors import Problem
from vmvisor_image.files import Extent, FileHome, FileTree
from vmvisor_image.streams import ReadAt


class Volume(Protocol):
    """A partition's content that holds files."""

    @property
    def kind(self) -> str:
        """The file system's name in `Partition.kind`."""
        ...

    @property
    def label(self) -> str | None:
        """The volume's label, or None."""
        ...

    @property
    def files(self) -> FileTree:
        """Its files."""
        ...

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        ...


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome) -> Volume | None:
    """The volume in the partition of `size` bytes from byte `start` of `disk`, or None when none is recognised.

    Raises:
        CorruptImage: A volume is recognised and can't be opened.
        TruncatedImage: The disk ends before the partition's first bytes.
    """
    from vmvisor_image.volumes import fat

    return fat.FatVolume(disk, start, size, home) if fat.probe(disk, start, size) else None
