"""Hypothesis strategies: any record, any tree of files, any volume that holds one.

For example::

    @given(fat_volumes())
    def test_reads_every_file(forged): ...

Needs hypothesis, which is not among the dependencies: ``pip install hypothesis``.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st

from vmvisor_image.record import Array, Bytes, Integer, Record
from vmvisor_image.testing.forge import ForgedFile, SparseImage, fat_volume

R = TypeVar("R", bound=Record)

_FORBIDDEN = '"*/:<>?\\|'
"""Characters other than control characters that fatgen103 forbids in a long name."""
_MOST_CLUSTERS = 3900
_FIRST, _LAST = datetime(1980, 1, 1), datetime(2107, 12, 31, 23, 59, 58)  # noqa: DTZ001  # FAT has no time zone


def records(record_type: type[R]) -> st.SearchStrategy[R]:
    """Any value of a record type: every field holds any value that fits it, sensible or not."""

    def values(layout: Integer | Bytes | Array, element: type[Record] | None) -> st.SearchStrategy[Any]:
        match layout:
            case Integer(code):
                return st.integers(0, 256 ** struct.calcsize(f"<{code}") - 1)
            case Bytes(length):
                return st.binary(min_size=length, max_size=length)
            case Array(count):
                assert element is not None
                return st.tuples(*[records(element)] * count)

    return st.builds(
        record_type,
        **{field.name: values(field.layout, field.element) for field in record_type.layout()},
    )


def file_names() -> st.SearchStrategy[str]:
    """Names that a FAT volume can hold: from "A.B" to long ones of any script."""
    short = st.from_regex(r"[A-Za-z0-9_~-]{1,8}(\.[A-Za-z0-9_]{1,3})?", fullmatch=True)
    characters = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=_FORBIDDEN, max_codepoint=0xFFFF)
    long = st.text(characters, min_size=1, max_size=60).map(lambda text: text.rstrip(" .")).filter(_is_name)
    return st.one_of(short, long)


def _is_name(text: str) -> bool:
    return bool(text) and text.strip(" .") == text


@st.composite
def trees(draw: st.DrawFn, *, max_files: int = 8, max_bytes: int = 3000) -> dict[str, ForgedFile]:
    """Files by POSIX path in up to three directories, whose names differ in more than case."""
    folders = ["", *(f"{name}/" for name in draw(_distinct_names(3)))]
    names = draw(_distinct_names(max_files))
    taken = {folder.rstrip("/").casefold() for folder in folders}
    return {
        draw(st.sampled_from(folders)) + name: ForgedFile(
            draw(_contents(max_bytes)), draw(_times()), fragmented=draw(st.booleans())
        )
        for name in names
        if name.casefold() not in taken
    }


def _distinct_names(most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(file_names(), max_size=most, unique_by=str.casefold)


def _contents(most: int) -> st.SearchStrategy[bytes]:
    """Bytes of any length: drawn one by one they would be short ones only."""
    return st.builds(
        lambda size, seed: random.Random(seed).randbytes(size),  # noqa: S311  # no secret
        st.integers(0, most),
        st.integers(0, 255),
    )


def _times() -> st.SearchStrategy[datetime]:
    """Times that FAT can keep: even seconds."""
    span = (_LAST - _FIRST) // timedelta(seconds=2)
    return st.integers(0, span).map(lambda steps: _FIRST + timedelta(seconds=2 * steps))


@dataclass(frozen=True, slots=True)
class ForgedVolume:
    """A FAT volume and its known content."""

    image: SparseImage
    bits: int
    """Bits in an entry of the FAT: 12, 16 or 32."""
    label: str | None
    files: Mapping[str, ForgedFile]
    """Files by POSIX path from the volume's root."""


@st.composite
def fat_volumes(draw: st.DrawFn) -> ForgedVolume:
    """FAT12, FAT16 and FAT32 volumes of any tree, cluster size and sector size."""
    bits = draw(st.sampled_from([12, 16, 32]))
    label = draw(st.none() | st.from_regex(r"[A-Z][A-Za-z0-9 _-]{0,9}[A-Za-z0-9]", fullmatch=True))
    sector = draw(st.sampled_from([512, 512, 512, 1024, 2048, 4096]))
    per_cluster = draw(st.sampled_from([1, 2, 8]))
    files = draw(trees())
    clusters = {12: _MOST_CLUSTERS, 16: 5000, 32: _MOST_CLUSTERS}[bits]
    image = fat_volume(
        files,
        sectors=clusters * per_cluster + 100,
        label=label,
        fat_bits=bits,
        sectors_per_cluster=per_cluster,
        bytes_per_sector=sector,
    )
    return ForgedVolume(image, bits, label, files)
