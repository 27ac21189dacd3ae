"""The gallery: whatever is built, what comes out is ours, what is healthy is read, and nothing lands outside."""

from __future__ import annotations

import bz2
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.exercise import Bounded
from tests.doc_tables import gallery_rows
from tests.gallery import (
    GALLERY,
    Case,
    Form,
    bz2_bomb,
    fat,
    guid_table,
    gzip_bomb,
    iso,
    said,
    table,
    tar,
    zipped,
    zstd_bomb,
)
from tests.support import REPOSITORY
from vmvisor_image import CorruptImage, DestinationExists, FileTree, Image, LimitExceeded, NotAFileSystem, open_archive
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.compressions import gzip, zstd
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.sequential import PIECE, SequentialReader
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_virtual import qcow2_disk

MOST_READS, MOST_BYTES = 20_000, 300 << 20
"""Requests to a case, and bytes read of it: of small inputs, so most of these bytes are read more than once."""

EVERY = pytest.mark.parametrize("case", GALLERY, ids=lambda case: case.name)


def test_there_are_enough() -> None:
    assert len(GALLERY) >= 80
    assert len({case.name for case in GALLERY}) == len(GALLERY)


@EVERY
def test_it_is_told_and_the_healthy_is_read(case: Case) -> None:
    found = said(case)
    assert any(case.says in message for message in found.messages) or not case.says
    assert {path: found.read.get(path) for path in case.healthy} == case.healthy


def trees(case: Case, image: Image | None, source: Bounded) -> list[FileTree]:
    if image is None:
        return [open_archive(source)]
    found = []
    for partition in image.partitions:
        with contextlib.suppress(NotAFileSystem):
            found.append(partition.files)
    return found


@EVERY
def test_extraction_stays_inside_and_reads_are_bounded(case: Case, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    sentinel.write_bytes(b"untouched")
    inside = tmp_path / "a" / "b"
    source = Bounded(case.build())
    with contextlib.suppress(CorruptImage, LimitExceeded), contextlib.ExitStack() as stack:
        image = None if case.form == "archive" else stack.enter_context(Image.open(source, threads=1))
        for number, tree in enumerate(trees(case, image, source)):
            if sum(file.size for file in tree.values()) > 64 << 20:
                continue  # a quota is the caller's, and disks of tests are small
            with contextlib.suppress(CorruptImage, DestinationExists):
                written = tree.extract(inside / str(number))
                assert all(path.is_file() and not path.is_symlink() for path in written)
    assert source.reads < MOST_READS
    assert source.bytes < MOST_BYTES
    assert sentinel.read_bytes() == b"untouched"
    assert {path.name for path in tmp_path.iterdir()} <= {"sentinel", "a"}
    assert {path.name for path in (tmp_path / "a").glob("*")} <= {"b"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


WHOLE: dict[str, tuple[Form, Callable[[], bytes]]] = {
    "MBR": ("disk", table()),
    "GPT": ("disk", guid_table()),
    "FAT": ("fat", fat(lambda volume: None)),
    "bzip2": ("disk", lambda: bz2.compress(table()())),
    "qcow2": ("disk", lambda: qcow2_disk(table()())),
    "tar": ("archive", tar()),
    "zip": ("archive", zipped()),
    "ISO": ("iso", iso(lambda data: None)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_everywhere(name: str) -> None:
    form, build = WHOLE[name]
    data = build()
    whole = said(Case(name, form, lambda: data, ""))
    assert whole.read
    assert None not in whole.read.values()
    for size in sorted({*range(0, len(data), max(1, len(data) // 60)), *range(505, 520), len(data) - 1}):
        found = said(Case(name, form, lambda size=size: data[:size], ""))  # type: ignore[misc]  # mypy knows no defaults
        assert all(content in (None, whole.read[path]) for path, content in found.read.items() if path in whole.read)


def test_bombs_are_decoded_no_further_than_is_asked() -> None:
    """The tables and files at the front of a disk cost what they are, whatever is behind them."""
    bombs = (
        gzip.open_layer(BytesSource(gzip_bomb()), LayerOptions()),
        zstd.open_layer(BytesSource(zstd_bomb()), LayerOptions()),
        Bzip2Reader(BytesSource(bz2_bomb()), threads=1),
    )
    for reader in bombs:
        with Image.open(reader) as image:
            for number in (1, 5, 6, 7):
                assert image.partitions[number].files["GOOD.TXT"].read_bytes() == b"in %d" % number
        match reader:
            case SequentialReader():
                assert reader.pieces_decoded * PIECE <= 1 << 20
            case Bzip2Reader():
                assert reader.stats.blocks_decoded <= 2


def test_the_page_is_true() -> None:
    """Its first columns: what other programs say is of the day when tools/gallery_page.py was run."""
    text = (REPOSITORY / "docs" / "gallery.md").read_text(encoding="utf-8")
    found = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")][1:]
    assert found == [row.split(" | ")[:2] for row in gallery_rows()], "python -m tools.gallery_page makes it so"
