"""The allocation table of a FAT volume, and its chains of clusters."""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import check_deadline
from vmvisor_image.errors import CorruptImage
from vmvisor_image.streams.source import ReadAt

FIRST_CLUSTER: Final = 2
"""Number of the first data cluster."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Places of a volume's parts, in bytes from its start; checked to be within it."""

    bits: int
    """Bits in an entry of the FAT: 12, 16 or 32."""
    cluster_size: int
    """Bytes in a cluster."""
    cluster_count: int
    """Number of data clusters by the boot sector, at most as many as the FAT has entries for; numbered from 2."""
    present_count: int
    """Number of data clusters that are whole within the partition: all, unless the volume's end is missing."""
    fat_offset: int
    """First byte of the FAT in use."""
    fat_size: int
    """Bytes of the FAT in use that hold entries of existing clusters."""
    root_offset: int
    """First byte of the root directory (FAT12, FAT16)."""
    root_size: int
    """Bytes of the root directory; 0 on FAT32."""
    root_cluster: int
    """First cluster of the root directory; 0 on FAT12 and FAT16."""
    data_offset: int
    """First byte of cluster 2."""


class FileAllocationTable:
    """Chains of clusters, read from the FAT page by page so that of a huge one only the needed pages are read."""

    _PAGE: Final = 3 << 14
    """Bytes in a page; a multiple of 12, 16 and 32 bits."""
    _PAGES_KEPT: Final = 64

    def __init__(self, source: ReadAt, start: int, geometry: Geometry) -> None:
        self._source = source
        self._start = start
        self._geometry = geometry
        self._per_page = self._PAGE * 8 // geometry.bits
        bits = geometry.bits
        self._bad = (1 << min(bits, 28)) - 9
        """Entry of a cluster marked bad: ...F7."""
        self._pages: OrderedDict[int, array[int]] = OrderedDict()  # no LruCache: asked for each cluster, without a lock
        self._lock = ForkSafeLock()

    def runs(self, first: int, needed: int | None, entry_offset: int) -> Iterator[tuple[int, int]]:
        """First cluster and length, in clusters, of each run of consecutive clusters of a chain.

        Args:
            first: First cluster of the chain.
            needed: Number of clusters to follow; None to follow the chain to its end.
            entry_offset: Bytes from the start of the decoded disk to the directory entry with `first`, for the error.

        Raises:
            CorruptImage: The chain loops, ends early, or names a cluster that does not exist.
        """
        self._check(first, entry_offset, "first cluster")
        run_start = previous = first
        checkpoint, steps, power = first, 0, 1
        count = 1
        while needed is None or count < needed:
            try:
                following, at = self._next(previous)
                if following > self._bad:  # an end mark
                    if needed is not None:
                        raise self._broken(at, "the chain ends before the file does", f"{needed} clusters", f"{count}")
                    break
                self._check(following, at, "FAT entry")
                if following == checkpoint:  # Brent's cycle detection: constant memory, one comparison a step
                    raise self._broken(at, "the chain loops", "an end mark", f"cluster {following} again")
            except CorruptImage:
                yield run_start, previous + 1 - run_start  # the clusters before the damage can be read
                raise
            steps += 1
            if steps == power:
                checkpoint, steps, power = following, 0, power * 2
            count += 1
            if following != previous + 1:
                yield run_start, previous + 1 - run_start
                run_start = following
            previous = following
        yield run_start, previous + 1 - run_start

    def read_all(self) -> array[int]:
        """Entries of all clusters, from number 0 on, with 2 or 4 bytes of memory for each.

        Raises:
            CorruptImage: The table can't be read.
        """
        geometry = self._geometry
        found = array("I" if geometry.bits == 32 else "H")
        for offset in range(0, geometry.fat_size, self._PAGE):
            check_deadline()
            found += self._read(offset)
        return found[: geometry.cluster_count + FIRST_CLUSTER]

    def read_head(self) -> tuple[int, int]:
        """Entries 0 and 1, before those of the clusters.

        Raises:
            CorruptImage: They can't be read.
        """
        values = _unpack(self._source.read_at(self._geometry.fat_offset, 8), self._geometry.bits)
        return values[0], values[1]

    def _check(self, cluster: int, at: int, field: str) -> None:
        last, present = self._geometry.cluster_count + 1, self._geometry.present_count + 1
        if FIRST_CLUSTER <= cluster <= present:
            return
        what, expected = "a cluster that does not exist", f"2 to {last}"
        if cluster == self._bad:
            what = "a cluster marked bad"
        elif cluster == 0:
            what = "a free cluster"
        elif FIRST_CLUSTER <= cluster <= last:
            what, expected = "a cluster behind the partition's end, which is missing", f"2 to {present}"
        raise self._broken(at, f"{field}: the chain leads to {what}", expected, f"{cluster:#x}")

    @staticmethod
    def _broken(at: int, message: str, expected: str, found: str) -> CorruptImage:
        return CorruptImage(message, structure="FAT cluster chain", offset=at, expected=expected, found=found)

    def _next(self, cluster: int) -> tuple[int, int]:
        """Entry of `cluster`, and bytes from the start of the decoded disk to it."""
        page, index = divmod(cluster, self._per_page)
        values = self._pages.get(page)
        if values is None:
            values = self._read_page(page)
        return values[index], self._start + self._geometry.fat_offset + cluster * self._geometry.bits // 8

    def _read_page(self, page: int) -> array[int]:
        values = self._read(page * self._PAGE)
        with self._lock:
            self._pages[page] = values
            while len(self._pages) > self._PAGES_KEPT:
                self._pages.popitem(last=False)
        return values

    def _read(self, offset: int) -> array[int]:
        """Entries of the page at byte `offset` of the table."""
        length = min(self._PAGE, self._geometry.fat_size - offset)
        return _unpack(self._source.read_at(self._geometry.fat_offset + offset, length), self._geometry.bits)


def _unpack(raw: bytes, bits: int) -> array[int]:
    """FAT entries of `bits` bits each."""
    if bits == 12:  # three bytes hold two entries
        raw += bytes(-len(raw) % 3)
        values = array("H")
        for low, middle, high in zip(raw[::3], raw[1::3], raw[2::3], strict=True):
            values.append(low | (middle & 0x0F) << 8)
            values.append(middle >> 4 | high << 4)
        return values
    values = array("H" if bits == 16 else "I", raw)
    if sys.byteorder == "big":
        values.byteswap()
    # The upper four bits of a FAT32 entry are reserved.
    return values if bits == 16 else array("I", (value & 0x0FFFFFFF for value in values))
