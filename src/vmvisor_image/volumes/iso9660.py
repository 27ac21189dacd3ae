"""ISO 9660 as the volume of a disk or of a partition: installer CDs, and USB sticks written from them."""

from __future__ import annotations

from typing import Final

from vmvisor_image.archives import iso9660
from vmvisor_image.base.names import fold_name
from vmvisor_image.files.file import File, FileHome
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.volume import BaseVolume, BootMedium, Hints, VolumeCheck, VolumeEvidence, volume_repr

NAME: Final = iso9660.NAME
KIND: Final = iso9660.KIND
SUFFIXES: Final = iso9660.SUFFIXES
MAGICS: Final = iso9660.MAGICS
REFERENCES: Final = iso9660.REFERENCES
_INSTALLER_FILES: Final = ("boot.cfg", "imagedd.bz2", "image.tgz", "install.tgz", "isolinux.cfg")
"""Files in the root directory of installer CDs, the most certain first."""


class IsoVolume(iso9660.IsoFileSystem, BaseVolume):
    """An ISO 9660 volume."""

    kind = KIND
    boot_medium: BootMedium | None = "cd"

    def __repr__(self) -> str:
        return volume_repr(self, self.label, self._start)

    @property
    def own_size(self) -> int:
        """See `BaseVolume.own_size`: the primary descriptor's count of blocks."""
        return self.primary.block_count * self.primary.block_size

    def evidence(self, _name: str | None, /) -> VolumeEvidence:
        """See `BaseVolume.evidence`; its files show whether it is an installer, and its role is otherwise unknown."""
        said = [Evidence("it holds an ISO 9660 volume: the magic 'CD001'", self.primary.source_offset)]
        names = {fold_name(entry.name): entry for entry in self.files.root if isinstance(entry, File)}
        found = next((names[name] for name in _INSTALLER_FILES if name in names), None)
        if found is None:
            return VolumeEvidence(tuple(said), Role.UNKNOWN)
        at = found.extents[0].offset if found.extents else None
        said.append(Evidence(f"its root directory has {found.name}", at))
        return VolumeEvidence(tuple(said), Role.INSTALLER)

    def check(self) -> VolumeCheck:
        """See `BaseVolume.check`: compares everything that is on it twice; lists every directory."""
        return VolumeCheck(self.differences())


def probe(disk: ReadAt, start: int, size: int, _hints: Hints, /) -> bool:
    """Whether an ISO 9660 volume is in the partition of `size` bytes from byte `start` of `disk`."""
    return size > iso9660.MAGIC_OFFSET and iso9660.probe(disk, start)


def open_volume(disk: ReadAt, start: int, _size: int, home: FileHome, /) -> IsoVolume:
    """Volume at byte `start` of `disk`; see `IsoVolume` for the errors."""
    return IsoVolume(disk, start, home)
