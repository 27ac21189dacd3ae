"""Finding bzip2 blocks by the 48-bit magics that begin a block and end a stream, at any bit alignment.

Source of the format: bzip2 1.0.8, decompress.c and the reverse-engineered specification by J. Tsai, "BZIP2:
Format Specification" (2016). Positions are in bits from the start of the compressed source, most significant
bit of each byte first. A magic may also occur by chance within compressed data, so what is found here are
candidates; the decoder tells which are real.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

BLOCK_MAGIC = 0x314159265359
"""Magic at the start of each block: pi."""
END_MAGIC = 0x177245385090
"""Magic at the end of a stream: the square root of pi. The stream's combined CRC follows."""
MAGIC_BITS = 48
CRC_BITS = 32

FindMagic = Callable[[bytes, int, int], list[int]]
"""Finds a magic in data, starting within so many bytes; see `find_magic`."""

WINDOW = 1 << 18
"""Number of compressed bytes searched in one step, so that decoding threads do not wait long for the GIL."""
_TAIL = 6
"""Number of bytes past a window that a magic starting in its last byte may cover."""


@dataclass(frozen=True, slots=True)
class _Alignment:
    """Bytes of a magic that starts `shift` bits into a byte."""

    shift: int
    whole: bytes
    """Bytes that the magic fills entirely."""
    lead: int
    """Number of bytes before `whole` that the magic shares (0 or 1)."""
    head: int
    """The low ``8 - shift`` bits of the shared byte before `whole`."""
    tail: int
    """The high `shift` bits of the shared byte after `whole`."""


def _alignments(magic: int) -> tuple[_Alignment, ...]:
    found = [_Alignment(0, magic.to_bytes(6, "big"), 0, 0, 0)]
    for shift in range(1, 8):
        seven = (magic << (8 - shift)).to_bytes(7, "big")
        found.append(_Alignment(shift, seven[1:6], 1, seven[0], seven[6]))
    return tuple(found)


_ALIGNMENTS = {magic: _alignments(magic) for magic in (BLOCK_MAGIC, END_MAGIC)}


def find_magic(data: bytes, magic: int, starts: int) -> list[int]:
    """Bit positions, ascending, at which `magic` occurs in `data`, starting within its first `starts` bytes."""
    positions = []
    for alignment in _ALIGNMENTS[magic]:
        at = data.find(alignment.whole)
        while at >= 0:
            start = at - alignment.lead
            if 0 <= start < starts and _shared_bits_match(data, at, alignment):
                positions.append(start * 8 + alignment.shift)
            at = data.find(alignment.whole, at + 1)
    positions.sort()
    return positions


def _shared_bits_match(data: bytes, at: int, alignment: _Alignment) -> bool:
    if alignment.shift == 0:
        return True
    after = at + len(alignment.whole)
    low = 0xFF >> alignment.shift
    return after < len(data) and data[at - 1] & low == alignment.head and data[after] & ~low & 0xFF == alignment.tail


class MagicScanner:
    """Candidates of one magic in a source, found window by window on demand.

    Candidates are kept until `forget` is called. Not thread-safe.
    """

    def __init__(self, source: ReadAt, magic: int, start_bit: int = 0, find: FindMagic = find_magic) -> None:
        """Look for `magic` from `start_bit` on, with an engine's `find_magic`."""
        self._source = source
        self._find = find
        self._magic = magic
        self._from = self._kept_from = start_bit
        self._next_window = start_bit // 8
        self._found: list[int] = []
        self._at_end = False

    def covers(self, bit: int) -> bool:
        """Whether the data after `bit` was searched, or will be searched next."""
        return self._kept_from <= bit <= max(self._next_window * 8, self._from)

    def after(self, bit: int) -> int | None:
        """First candidate after `bit`; None when there is none up to the source's end."""
        while not self._found or self._found[-1] <= bit:
            if self._at_end:
                return None
            self._scan_window()
        return self._found[bisect_right(self._found, bit)]

    def between(self, first: int, last: int) -> int | None:
        """First candidate after bit `first` and before bit `last`, which also ends the search; None without one."""
        while not self._at_end and self._next_window * 8 < last and not (self._found and self._found[-1] > first):
            self._scan_window()
        place = bisect_right(self._found, first)
        return self._found[place] if place < len(self._found) and self._found[place] < last else None

    def forget(self, bit: int) -> None:
        """Drop the candidates up to `bit`, which are no longer needed."""
        del self._found[: bisect_right(self._found, bit)]
        self._kept_from = max(self._kept_from, bit)

    def _scan_window(self) -> None:
        data = read_up_to(self._source, self._next_window, WINDOW + _TAIL)
        base = self._next_window * 8
        # A window may come twice, where an exception kept the last time from being noted.
        least = max(self._from, self._found[-1] + 1 if self._found else 0)
        self._found += [base + bit for bit in self._find(data, self._magic, WINDOW) if base + bit >= least]
        self._next_window += WINDOW
        self._at_end = len(data) <= WINDOW


def find_magic_near(source: ReadAt, magic: int, first_bit: int, last_bit: int) -> int | None:
    """First candidate that starts at `first_bit` or later and before `last_bit`; None without one."""
    first = first_bit // 8
    data = read_up_to(source, first, (last_bit + MAGIC_BITS + 7) // 8 - first)
    positions = (first * 8 + bit for bit in find_magic(data, magic, len(data)))
    return next((bit for bit in positions if first_bit <= bit < last_bit), None)


def count_blocks(source: ReadAt, find: FindMagic = find_magic, after: int = -1) -> int:
    """Number of block magics in `source` after a bit, which is the number of its blocks, found without decoding any."""
    scanner = MagicScanner(source, BLOCK_MAGIC, max(after, 0), find=find)
    count, bit = 0, after
    while (found := scanner.after(bit)) is not None:
        count, bit = count + 1, found
        scanner.forget(bit)
    return count
