"""Ctrl-C at any moment of a read: what is read afterwards is right, and has an end."""

from __future__ import annotations

import bz2
import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pytest
import zstandard

import vmvisor_image
from fuzz.samples import text
from fuzz.targets import gpt, mbr
from vmvisor_image import Image
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.sequential import PIECE
from vmvisor_image.layers.unwrap import unwrap
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource

LIBRARY = str(Path(vmvisor_image.__file__).parent)
DATA = text(5000) * (2 * PIECE // 5000 + 1)
Result = TypeVar("Result")


class Interrupt(BaseException):
    """As a `KeyboardInterrupt`."""


def steps(work: Callable[[], Result], most: int | None = None) -> tuple[Result | None, int]:
    """What `work` gives, and its steps: calls in this library, and returns to it, where Python looks for signals.

    After `most` of them it is interrupted.
    """
    count = 0

    def step(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(LIBRARY):
            count += 1
            if count == most:
                sys.setprofile(None)
                raise Interrupt

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        return work(), count
    except Interrupt:
        return None, count
    finally:
        sys.setprofile(before)


def read(compressed: bytes) -> Callable[[], Callable[[], object]]:
    def begin() -> Callable[[], object]:
        [layer] = unwrap(BytesSource(compressed), None, LayerOptions(threads=1))
        source: ReadAt = layer.source
        return lambda: (source.read_at(PIECE, 1000), source.size, source.read_at(0, source.size) == DATA)

    return begin


def partitions(disk: bytes) -> Callable[[], Callable[[], object]]:
    def begin() -> Callable[[], object]:
        image = Image.open(disk)
        return lambda: [(partition.number, partition.start) for partition in image.partitions]

    return begin


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(read(gzip.compress(DATA, mtime=0)), id="gzip"),
        pytest.param(read(zstandard.compress(DATA)), id="zstd"),
        pytest.param(read(bz2.compress(DATA, 1)), id="bzip2"),
        pytest.param(partitions(mbr.seeds()[0]), id="mbr"),
        pytest.param(partitions(gpt.seeds()[0]), id="gpt"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a generator that is closed
def test_an_interrupted_read_is_done_again(begin: Callable[[], Callable[[], object]]) -> None:
    """A piece was kept and not counted (`KeyError`, or no end); a partition was taken from the table and lost."""
    begin()()  # imports
    expected, most = steps(begin())
    for at in range(1, most + 1):
        work = begin()
        steps(work, at)
        assert steps(work, 3 * most)[0] == expected, f"interrupted at step {at}"
