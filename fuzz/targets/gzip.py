"""gzip members."""

from __future__ import annotations

import gzip as standard

from fuzz.exercise import Bounded, documented, exercise_source
from fuzz.samples import text
from vmvisor_image.compressions import gzip
from vmvisor_image.compressions.layer import LayerOptions


def seeds() -> list[bytes]:
    whole = standard.compress(text(3000), mtime=0)
    named = whole[:3] + b"\x1e" + whole[4:10] + b"\2\0xxname\0note\0\0\0" + whole[10:]
    return [whole, whole * 2, named, standard.compress(b"", mtime=0), whole + bytes(512)]


def one_input(data: bytes) -> None:
    with documented():
        exercise_source(gzip.open_layer(Bounded(data), LayerOptions()))
