"""xz streams."""

from __future__ import annotations

import lzma

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions import xz
from vmvisor_image.compressions.layer import LayerOptions


def seeds() -> list[bytes]:
    whole = lzma.compress(text(3000), preset=0)
    return [whole, whole + bytes(4) + whole, lzma.compress(b""), lzma.compress(text(900), check=lzma.CHECK_SHA256)]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(xz.open_layer(Bounded(data), LayerOptions()))
