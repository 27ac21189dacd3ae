"""File systems of guests as a plug-in of this library's own: recognised by their magic, read where pytsk3 is there."""

from __future__ import annotations

from typing import Final

from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.signatures import FOREIGN, Match, first_match
from vmvisor_image.files.file import FileHome
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.guests.kinds import KINDS, library
from vmvisor_image.volumes.magics import match_signature
from vmvisor_image.volumes.volume import Volume

_SIGNATURES: Final = tuple(each for each in FOREIGN if each.kind in KINDS)


def probe(disk: ReadAt, start: int, size: int, /) -> bool:
    """Whether pytsk3 is there, and reads what is in the partition of `size` bytes from byte `start` of `disk`."""
    return library() is not None and _match(disk, start, size) is not None


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome, /) -> Volume:
    """Volume in that partition, which `probe` recognised; it is not read.

    Raises:
        CorruptImage: The magic is not there any more.
    """
    from vmvisor_image.volumes.guests.volume import GuestVolume

    match = _match(disk, start, size)
    if match is None:
        raise CorruptImage("its magic is gone", structure="guest's file system", offset=start)
    return GuestVolume(disk, start, size, home, match)


def _match(disk: ReadAt, start: int, size: int) -> Match | None:
    """Magic of a file system that is read, where it is the first of all that is there."""
    if first_match(_SIGNATURES, disk, start, size) is None:
        return None
    match = match_signature(disk, start, size)
    return match if match is not None and match.kind in KINDS else None
