"""The diagnostic partition, to which the vmkernel writes its memory when it crashes.

No public description of the dump's format exists, so its content is opaque: only its presence, its amount and
whether it looks compressed can be determined. ESXi's installer writes zeros over the whole partition, so all zeros
means unused.
"""

from __future__ import annotations

from typing import Final

from vmvisor_image.examine.survey import entropy
from vmvisor_image.files.file import FileHome
from vmvisor_image.schemas.partition_types import MBR_VMKCORE, VMKCORE
from vmvisor_image.streams.reading import find_data
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.views import Slice
from vmvisor_image.volumes.volume import BaseVolume, CoreDumpUsage, Hints, volume_repr

NAME: Final = "diagnostic partition"
KIND: Final = "vmkcore"
SUFFIXES: Final = ()
MAGICS: Final = ()
REFERENCES: Final = ("none: its content is opaque, and only its partition's type tells it",)
_PARTITION_TYPES: Final = (MBR_VMKCORE, VMKCORE)
_BLOCK: Final = 1 << 16
"""Bytes in a block, the unit of entropy and of the used size."""
_COMPRESSED: Final = 7.5
"""Bits per byte above which a block looks compressed or encrypted; programs and text have 4 to 6.5."""


_UNUSED: Final = "It is all zeros, so no dump was ever written to it: there is nothing to read."
_USED: Final = (
    "To decode it, copy it out with partition.open() and run esxcfg-dumppart and vmkdump_extract on an ESXi host."
)


class DiagnosticPartition(BaseVolume):
    """A partition whose type says that core dumps are written to it."""

    kind = KIND

    def __init__(self, disk: ReadAt, start: int, size: int) -> None:
        self._start = start
        self._source = Slice(disk, start, size, "diagnostic partition")
        self._usage: CoreDumpUsage | None = None
        self._usage_is_known = False

    def __repr__(self) -> str:
        return volume_repr(self, None, self._start)

    @property
    def is_used(self) -> bool:
        """Whether any byte is not zero. Ranges that a sparse file or a bzip2 index knows to be zero are not read.

        Raises:
            CorruptImage: The image is damaged there.
        """
        return find_data(self._source, 0, self._source.size) is not None

    def usage(self) -> CoreDumpUsage | None:
        """Amount of the dump in it, or None where it is unused; reads everything that may not be zero, once.

        Raises:
            CorruptImage: The image is damaged there.
        """
        if not self._usage_is_known:
            self._usage = self._look()
            self._usage_is_known = True
        return self._usage

    def describe(self) -> tuple[str, ...]:
        """See `BaseVolume.describe`; reads everything that may not be zero."""
        usage = self.usage()
        if usage is None:
            return (_UNUSED,)
        nature = "looks compressed or encrypted" if usage.looks_compressed else "does not look compressed"
        place = f"from byte {self._start + usage.first:#x} to {self._start + usage.end:#x}"
        amount = f"It is used: {usage.used} bytes in blocks that are not zero, {place};"
        return (amount, f"the content {nature} ({usage.entropy:.2f} bits per byte).", _USED)

    def _look(self) -> CoreDumpUsage | None:
        source, size = self._source, self._source.size
        first = at = find_data(source, 0, size)
        if first is None:
            return None
        used = end = blocks = dense = 0
        total = 0.0
        while at is not None:
            at -= at % _BLOCK
            data = source.read_at(at, min(_BLOCK, size - at))
            found = entropy(data)
            end = at + len(data)
            used += len(data)
            blocks += 1
            total += found
            dense += found > _COMPRESSED
            at = find_data(source, end, size)
        return CoreDumpUsage(first, end, used, total / blocks, dense * 2 > blocks)


def probe(_disk: ReadAt, _start: int, _size: int, hints: Hints, /) -> bool:
    """Whether the partition's type is that of a diagnostic partition."""
    return hints.type_key in _PARTITION_TYPES


def open_volume(disk: ReadAt, start: int, size: int, _home: FileHome, /) -> DiagnosticPartition:
    """Diagnostic partition of `size` bytes from byte `start` of `disk`."""
    return DiagnosticPartition(disk, start, size)
