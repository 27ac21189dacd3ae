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
        """Whether a file in a container that has one of its suffixes is looked into for a disk."""
        ...

    def kind_of(self, source: ReadAt, head: bytes, /) -> str | None:
        """Kind of the archive that `source` is, which begins with the `HEAD` bytes `head`; None where it is not one."""
        ...

    def read_members(self, source: ReadAt, report: Callable[[Problem], None], /) -> Iterable[ArchiveMember]:
        """The members, in archive order; `report` is called with each damage found.

        Raises:
            CorruptImage: It is damaged, and nothing behind the damage can be read.
        """
        ...


ARCHIVES: Final[tuple[ArchiveFormat, ...]] = (tar, zip, ar, iso9660)
"""The formats of archives that are read, in the order in which they are asked."""
