"""File systems of guests as a plug-in of this library's own: recognised by their magic, read where pytsk3 is there."""

from __future__ import annotations

from vmvisor_image.errors import CorruptImage
from vmvisor_image.files.file import FileHome
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.guests.kinds import KINDS, library
from vmvisor_image.volumes.magics import match_signature
from vmvisor_image.volumes.volume import Volume


def probe(disk: ReadAt, start: int, size: int, /) -> bool:
    """Whether pytsk3 is there, and reads what is in the partition of `size` bytes from byte `start` of `disk`."""
    match = match_signature(disk, start, size)
    return match is not None and match.kind in KINDS and library() is not None


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome, /) -> Volume:
    """Volume in that partition, which `probe` recognised; it is not read.

    Raises:
        CorruptImage: The magic is not there any more.
    """
    from vmvisor_image.volumes.guests.volume import GuestVolume

    match = match_signature(disk, start, size)
    if match is None or match.kind not in KINDS:
        raise CorruptImage("its magic is gone", structure="guest's file system", offset=start)
    return GuestVolume(disk, start, size, home, match)
