"""A block index kept in a file, so that the blocks of a source need not be found again.

It is never trusted blindly: a file of another version, of another source or with a flipped bit is rejected as a whole,
and the reader drops the index if a block does not decode as the index describes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import stat
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from vmvisor_image.base.destination import check_replaceable, write_whole, writing
from vmvisor_image.bzip2.index import BlockEntry, Place, largest_size
from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.bzip2_index import MAGIC, VERSION, Bzip2IndexHeader

INDEX_SUFFIX = ".vmvisor-index"
CACHE_SUFFIX = ".vmvisor-cache"
"""Suffix of the directory for decoded data."""
_LEAST_BLOCK_BITS = 100
"""Lower bound of a block's length in bits: magic, CRC, origin and the map of symbols alone have 113 bits."""
_COLUMNS = 5
_ZERO_FLAG = 0x10
"""Flag added to the level of a block whose bytes are all zeros."""
_COMPRESSION_LEVEL = 9
_SLACK = 1 << 16
"""Largest growth in bytes of a table that can't be compressed."""


class IndexRejected(CorruptImage):
    """A saved index is damaged, of another version, or of another source.

    Attributes:
        is_foreign: Whether the file is not a saved index at all.
    """

    is_foreign = False


@dataclass(frozen=True, slots=True)
class SavedIndex:
    """Content of an index file."""

    entries: tuple[BlockEntry, ...]
    place: Place | None
    """Place where the chain continues; None where the index is complete."""
    garbage: int | None
    """First byte after the last stream that is not bzip2, from the source's start; None where there is none."""
    is_damaged: bool = False
    """Whether the source is damaged where the chain would continue, as found without a saved index."""


def load_index(path: str | os.PathLike[str], fingerprint: bytes, source_size: int) -> SavedIndex:
    """Content of an index file.

    Args:
        path: Path of the file.
        fingerprint: Fingerprint of the source that the index must belong to.
        source_size: Number of compressed bytes of that source.

    Raises:
        OSError: The file can't be read.
        IndexRejected: The file is not an index of that source.
    """
    data = _read(path, Bzip2IndexHeader.length() + source_size * 8 // _LEAST_BLOCK_BITS * _COLUMNS * 8 + _SLACK)
    if len(data) < Bzip2IndexHeader.length() or data[: len(MAGIC)] != MAGIC:
        error = _rejected("it is not an index")
        error.is_foreign = True
        raise error
    header = Bzip2IndexHeader.parse(data)
    if header.version != VERSION:
        raise _rejected(f"it is of version {header.version}, not {VERSION}")
    payload = data[Bzip2IndexHeader.length() :]
    if len(payload) != header.payload or _digest(header, payload) != header.digest:
        raise _rejected("it is damaged")
    if header.fingerprint != fingerprint:
        raise _rejected("it was made of another source, or the source has changed since")
    if header.blocks > source_size * 8 // _LEAST_BLOCK_BITS:
        raise _rejected("it has more blocks than the source has room for")
    entries = _unpack(payload, header.blocks)
    end = entries[-1].start + entries[-1].size if entries else 0
    place = Place(header.next_bit, header.next_level, end, header.next_crc) if header.next_level else None
    _check(entries, place, source_size * 8)
    return SavedIndex(entries, place, header.garbage or None, bool(header.is_damaged))


def save_index(path: str | os.PathLike[str], index: SavedIndex, fingerprint: bytes) -> None:
    """Write an index file; it appears whole or not at all, even if two processes write at the same time.

    Raises:
        DestinationExists: Something other than a file is at `path`.
        DestinationFull: There is no room left.
        DestinationFailed: The file can't be written for another reason.
    """
    payload = _pack(index.entries)
    place = index.place
    header = Bzip2IndexHeader(
        magic=MAGIC,
        version=VERSION,
        next_level=0 if place is None else place.level,
        next_bit=0 if place is None else place.bit,
        next_crc=0 if place is None else place.crc,
        is_damaged=index.is_damaged,
        garbage=index.garbage or 0,
        blocks=len(index.entries),
        payload=len(payload),
        fingerprint=fingerprint,
        digest=bytes(32),
    )
    header = dataclasses.replace(header, digest=_digest(header, payload))
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_replaceable(target, overwrite=True)
    write_whole(target, header.build() + payload)


def _read(path: str | os.PathLike[str], most: int) -> bytes:
    """Content of a regular file of at most `most` bytes; empty for anything else, which can't be an index."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with io.FileIO(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        return file.readall() if stat.S_ISREG(found.st_mode) and found.st_size <= most else b""


def default_paths(source_path: str | os.PathLike[str], suffix: str = INDEX_SUFFIX) -> tuple[Path, ...]:
    """Default paths for the index of a file, in order: beside the file, then in the user's cache directory.

    For a URL there is only the one in the cache directory, which is left out where the user has no home directory.
    """
    text = os.fspath(source_path)
    beside: tuple[Path, ...] = ()
    if "://" not in text:
        path = Path(os.path.abspath(text))  # noqa: PTH100  # links are kept: the index lies beside the name used
        beside, text = (path.with_name(path.name + suffix),), os.fspath(path)
    try:
        folder = cache_folder()
    except RuntimeError:
        return beside
    return (*beside, folder / (hashlib.sha256(os.fsencode(text)).hexdigest()[:32] + suffix))


def cache_folder() -> Path:
    """Directory of this library among the user's caches.

    Raises:
        RuntimeError: The user has no home directory.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vmvisor-image"


def _rejected(reason: str) -> IndexRejected:
    return IndexRejected(reason, structure="bzip2 index file")


def _digest(header: Bzip2IndexHeader, payload: bytes) -> bytes:
    return hashlib.sha256(dataclasses.replace(header, digest=bytes(32)).build() + payload).digest()


def _pack(entries: Sequence[BlockEntry]) -> bytes:
    import zstandard

    columns = array("Q", (entry.start_bit for entry in entries))
    columns.extend(entry.end_bit for entry in entries)
    columns.extend(entry.level | (_ZERO_FLAG if entry.is_zero else 0) for entry in entries)
    columns.extend(entry.size for entry in entries)
    columns.extend(entry.crc for entry in entries)
    if sys.byteorder == "big":
        columns.byteswap()
    return zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(columns.tobytes())


def _unpack(payload: bytes, count: int) -> tuple[BlockEntry, ...]:
    import zstandard

    wanted = count * _COLUMNS * 8
    columns = array("Q")
    with contextlib.suppress(zstandard.ZstdError), zstandard.ZstdDecompressor().stream_reader(payload) as reader:
        columns.frombytes(reader.read(wanted))
    if len(columns) != count * _COLUMNS:
        raise _rejected("its table is damaged")
    if sys.byteorder == "big":
        columns.byteswap()
    starts, ends, levels, sizes, crcs = (columns[count * number :][:count] for number in range(_COLUMNS))
    places = accumulate(sizes, initial=0)
    zeros = [bool(level & _ZERO_FLAG) for level in levels]
    levels = array("Q", (level & ~_ZERO_FLAG for level in levels))
    return tuple(map(BlockEntry, starts, ends, levels, places, sizes, crcs, zeros))


def _check(entries: Sequence[BlockEntry], place: Place | None, source_bits: int) -> None:
    """Refuse entries and a place that no source could have.

    Raises:
        IndexRejected: The index has such an entry or place.
    """
    bit = 0
    for entry in entries:
        if not (
            bit <= entry.start_bit < entry.end_bit <= source_bits
            and 1 <= entry.level <= 9
            and 0 < entry.size <= largest_size(entry.level)
            and entry.crc >> 32 == 0
        ):
            raise _rejected(f"its block at bit {entry.start_bit} is not possible")
        bit = entry.end_bit
    if place is not None and not (bit <= place.bit <= source_bits and place.level <= 9):
        raise _rejected(f"its chain can't go on at bit {place.bit}")
