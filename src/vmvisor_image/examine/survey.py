"""Survey of bytes of unknown content: entropy by block, zeros, printable strings."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.shown import Shown
from vmvisor_image.errors import CorruptImage, InvalidArgument
from vmvisor_image.streams.reading import find_data, skip_zeros
from vmvisor_image.streams.source import ReadAt

_CHUNK: Final = 1 << 20
_PRINTABLE: Final = b"\t" + bytes(range(0x20, 0x7F))


@dataclass(frozen=True, slots=True, repr=False)
class Survey(Shown):
    """Entropy and zeros of a run of bytes, block by block."""

    size: int
    """Number of bytes."""
    block_size: int
    """Bytes in each block; the last one may be shorter."""
    entropies: tuple[float | None, ...]
    """Shannon entropy of the sample of each block, in bits per byte: 0 for one value repeated, 8 for random, compressed
    or encrypted data; None for a block that can't be read."""
    zero_blocks: int
    """Number of blocks of which all examined bytes are zeros."""
    sampled: int
    """Bytes in the sample of each block."""
    exact: bool = True
    """Whether each block was searched as a whole for bytes other than zero; otherwise `zero_blocks` may be too high."""

    @property
    def zero_ratio(self) -> float:
        """Share of the blocks that are all zeros, 0 to 1."""
        return self.zero_blocks / len(self.entropies) if self.entropies else 0.0

    @property
    def mean_entropy(self) -> float | None:
        """Mean entropy of the blocks that can be read, in bits per byte; None without any."""
        known = [entropy for entropy in self.entropies if entropy is not None]
        return sum(known) / len(known) if known else None

    def __repr__(self) -> str:
        read = [value for value in self.entropies if value is not None]
        blocks = f"{self.zero_blocks}/{len(self.entropies)} blocks of {self.block_size} are all zeros"
        text = f"{self.size} bytes: {blocks}"
        if len(read) < len(self.entropies):
            text += f", {len(self.entropies) - len(read)} can't be read"
        return f"<Survey of {text}, entropy {min(read):.1f} to {max(read):.1f}>" if read else f"<Survey of {text}>"

    @property
    def even_ranges(self) -> tuple[tuple[int, int], ...]:
        """Offset and bytes of each run of blocks whose samples are as even as random bytes.

        Encrypted and compressed data are, and noise; which of them it is can't be told. Only a sample is known of each
        block, and a run begins and ends in whole blocks.
        """
        return self._ranges(lambda value: value is not None and value > 8 - 2 * _RANDOM_DISTANCE / self.sampled)

    @property
    def unreadable_ranges(self) -> tuple[tuple[int, int], ...]:
        """Offset and bytes of each run of blocks that can't be read."""
        return self._ranges(lambda value: value is None)

    def _ranges(self, belongs: Callable[[float | None], bool]) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        for number, value in enumerate(self.entropies):
            if not belongs(value):
                continue
            start = number * self.block_size
            end = min(start + self.block_size, self.size)
            if found and sum(found[-1]) == start:
                start = found.pop()[0]
            found.append((start, end - start))
        return tuple(found)


def looks_even(data: bytes) -> bool:
    """Whether bytes are spread as evenly as random ones, as encrypted or compressed data are.

    Random bytes have an entropy of about 8 - 184 / n bits per byte in a sample of n; twice that distance is allowed.
    """
    return len(data) >= _LEAST_EVEN and entropy(data) > 8 - 2 * _RANDOM_DISTANCE / len(data)


_LEAST_EVEN: Final = 512
"""Bytes in the shortest sample that shows anything."""
_RANDOM_DISTANCE: Final = 184
"""255 / (2 ln 2): the mean loss of entropy of a sample of n bytes of 256 values, times n (Miller, 1955)."""


def entropy(data: bytes) -> float:
    """Shannon entropy in bits per byte, 0 to 8; 0 for no bytes."""
    total = len(data)
    if total == 0 or data.count(data[:1]) == total:
        return 0.0
    return -sum(count / total * math.log2(count / total) for count in Counter(data).values())


def survey(source: ReadAt, *, blocks: int = 256, sample: int | None = 4096, exact: bool = True) -> Survey:
    """Survey of `source` in at most `blocks` blocks of one size, a multiple of 512 bytes.

    Args:
        source: Source to examine.
        blocks: Largest number of blocks.
        sample: Bytes of each block to take the entropy of, from its first byte that is not zero; None for all of it.
        exact: Whether that byte is looked for in the whole block, so that a block counts as zeros only where all of it
            is. Otherwise only the sample, at the block's start, is read.

    Raises:
        InvalidArgument: `blocks` or `sample` is below 1.
    """
    if blocks < 1 or (sample is not None and sample < 1):
        raise InvalidArgument("blocks and sample must be at least 1")
    size = source.size
    block_size = max(512, -(-size // blocks // 512) * 512)
    entropies: list[float | None] = []
    zeros = 0
    for start in range(0, size, block_size):
        end = min(start + block_size, size)
        looked_at = end if exact or sample is None else min(start + sample, end)
        try:
            first = find_data(source, start, looked_at)
            if first is None:
                zeros += 1
                entropies.append(0.0)
                continue
            at = start if sample is None else min(first, max(start, end - sample))
            entropies.append(entropy(source.read_at(at, (end if sample is None else min(at + sample, end)) - at)))
        except CorruptImage:
            entropies.append(None)
    sampled = min(sample or block_size, block_size)
    return Survey(size, block_size, tuple(entropies), zeros, sampled, exact=exact or sample is None)


def find_strings(
    source: ReadAt, *, minimum: int = 6, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, str]]:
    """Runs of printable ASCII characters and tabs: offset of the run, in bytes from the source's start, and its text.

    A run that is longer than 1 MiB is given in pieces.

    Args:
        source: Source to search.
        minimum: Length of the shortest run to give, in characters.
        start: First byte to search.
        end: End of the search, exclusive; None for the end of the source.

    Raises:
        InvalidArgument: `minimum` is below 1.
        CorruptImage: The source is damaged in the searched range.
    """
    if minimum < 1:
        raise InvalidArgument("minimum must be at least 1")
    pattern = re.compile(rb"[\t\x20-\x7e]{%d,}" % minimum)
    end = source.size if end is None else end
    held = b""
    at = start
    while at < end:
        skipped = skip_zeros(source, at, end)
        if skipped > at:
            yield from _matches(pattern, held, at - len(held))
            held, at = b"", skipped
            continue
        data = held + source.read_at(at, min(_CHUNK, end - at))
        base = at - len(held)
        at = base + len(data)
        # A run that may go on in the next piece is kept for it.
        keep = len(data.rstrip(_PRINTABLE)) if at < end else len(data)
        if len(data) - keep >= _CHUNK:
            keep = len(data)
        yield from _matches(pattern, data[:keep], base)
        held = data[keep:]


def _matches(pattern: re.Pattern[bytes], data: bytes, base: int) -> Iterator[tuple[int, str]]:
    return ((base + match.start(), match.group().decode()) for match in pattern.finditer(data))
