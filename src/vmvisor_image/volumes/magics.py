"""Magics of all formats, including those that are not read."""

from __future__ import annotations

from typing import Final

from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.examine.signatures import DOS_PROGRAM, Match, first_match, in_order
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.formats import VOLUMES

SIGNATURES: Final = in_order((*COMPRESSIONS, *ARCHIVES, *VIRTUAL_DISKS, *VOLUMES))
"""All known magics, each once, in the order in which they are tried."""


def match_signature(source: ReadAt, start: int = 0, size: int | None = None) -> Match | None:
    """First of the magics that the content has, or None; see `vmvisor_image.examine.signatures.first_match`."""
    return first_match(SIGNATURES, source, start, size)


def is_file(source: ReadAt) -> bool:
    """Whether a source begins like a file that is not a disk: an archive, a program, a picture."""
    match = match_signature(source)
    if match is None:
        return read_up_to(source, 0, len(DOS_PROGRAM)) == DOS_PROGRAM
    return match.content != "volume"
