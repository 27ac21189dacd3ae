"""Detection of a disk's partition table."""

from __future__ import annotations

from typing import Final

from vmvisor_image.disk.tables import gpt, mbr
from vmvisor_image.disk.tables.foreign import foreign_label
from vmvisor_image.disk.tables.table import NoTable, Table, UnreadableTable, WholeDisk
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.examine.signatures import Format, likeness
from vmvisor_image.schemas.mbr import SECTOR, is_empty, is_plausible, is_signed, protects_gpt
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.fat import volume as fat
from vmvisor_image.volumes.find import recognise
from vmvisor_image.volumes.magics import is_file, match_signature

TABLES: Final[tuple[Format, ...]] = (mbr, gpt)
"""Partition tables that are read; `find_table` chooses between them and a volume without a table."""


def find_table(disk: ReadAt) -> Table:
    """Partition table of `disk`; reads no more than the primary copy where that is whole.

    Where the first sector can't be read it is the backup GPT, if the size of the disk is known and there is one;
    otherwise each use of the table's entries is an error that says so.
    """
    try:
        sector = read_up_to(disk, 0, SECTOR)
    except CorruptImage as error:
        backup = gpt.find_gpt(disk, None)[0] if knows_size(disk) else None
        return UnreadableTable(error) if backup is None else backup
    return _find_table(disk, sector)


def _find_table(disk: ReadAt, sector: bytes) -> Table:
    """Partition table of a disk with this first sector."""
    if len(sector) < SECTOR:
        what = likeness(disk, match_signature(disk))
        return NoTable(f"the disk has {len(sector)} bytes, less than one sector{_most_likely(what)}")
    # A FAT boot sector also ends in 55 AA; mkfs.fat even puts a table with one entry from sector 0 into it.
    label = foreign_label(disk, sector)
    is_mbr = label is None and is_plausible(sector)
    # Without 55 AA, the section table of a program, for example, is as plausible as a partition table.
    if is_mbr and not is_signed(sector) and not protects_gpt(sector) and is_file(disk):
        is_mbr = False
    if is_mbr and not protects_gpt(sector):
        return mbr.MbrTable(disk, sector, ())
    found = None if is_mbr else recognise(disk, 0, is_vmfs=True)
    if found is not None and found.content == "volume":
        return WholeDisk(disk)
    table, problems = gpt.find_gpt(disk, sector)
    if table is not None:
        return table
    if label is not None:
        damaged = tuple(problem for problem in problems if problem.message != gpt.MISSING)  # no GPT is no problem
        return NoTable(f"sector 0 holds {label}, whose partitions are not read", damaged)
    if is_mbr:
        return mbr.MbrTable(disk, sector, problems)
    if is_empty(sector):
        message = "its parameters are not valid, so no volume is read"
        damaged = (Problem("FAT boot sector", message, 0),) if fat.is_named_fat(sector) else ()
        return mbr.MbrTable(disk, sector, damaged)
    message = "sector 0 holds neither a partition table nor a volume that is recognised"
    return NoTable(f"{message}{_most_likely(likeness(disk, found))}")


def _most_likely(what: str | None) -> str:
    return "" if what is None else f"; it is most likely {what}"
