"""bzip2 streams."""

from __future__ import annotations

import bz2

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions import bzip2_layer as bzip2
from vmvisor_image.compressions.layer import LayerOptions


def seeds() -> list[bytes]:
    whole = bz2.compress(text(3000), 1)
    return [whole, whole * 2, bz2.compress(b""), bz2.compress(bytes(200_000)), whole + b"garbage"]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(bzip2.open_layer(Bounded(data), LayerOptions(threads=1)), to_end=len(data) < 4096)
