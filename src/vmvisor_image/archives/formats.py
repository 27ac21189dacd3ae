"""The registry of archives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from vmvisor_image.archives import ar, iso9660, tar, zip  # noqa: A004  # the format's name
from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.errors import Problem
from vmvisor_image.examine.signatures import Format
from vmvisor_image.streams.source import ReadAt


class ArchiveFormat(Format, Protocol):
    """A module that reads a format of archives."""

    @property
    def HOLDS_DISKS(self) -> bool:  # noqa: N802  # a module's constant
        """Whether a file in a container with one of the format's suffixes is searched for a disk."""
        ...

    def kind_of(self, source: ReadAt, head: bytes, /) -> str | None:
        """Kind of the archive in `source`, whose first `HEAD` bytes are `head`; None where it is not of this format."""
        ...

    def read_members(self, source: ReadAt, report: Callable[[Problem], None], /) -> Iterable[ArchiveMember]:
        """The members, in archive order; `report` is called with each damage found.

        Raises:
            CorruptImage: The archive is damaged, and nothing behind the damage can be read.
        """
        ...


ARCHIVES: Final[tuple[ArchiveFormat, ...]] = (tar, zip, ar, iso9660)
"""The supported formats of archives, in the order in which they are tried."""
