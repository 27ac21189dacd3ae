"""Decoded pieces of the readers of one image: shared, so that many small members of an archive don't each keep some."""

from __future__ import annotations

import itertools
from collections import OrderedDict

from vmvisor_image.forking import ForkSafeLock, restart_in_child


class PieceCache:
    """Pieces by reader and number, those of readers that are gone too, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        """Keep up to `limit` bytes, and the last piece in any case."""
        self._limit = limit
        self._lock = ForkSafeLock()
        self._pieces: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._held = 0
        self._readers = itertools.count()
        restart_in_child(self)

    def new_reader(self) -> int:
        """A number that no other reader has."""
        return next(self._readers)

    def get(self, reader: int, number: int) -> bytes | None:
        """A piece of a reader; None where it was dropped."""
        with self._lock:
            piece = self._pieces.get((reader, number))
            if piece is not None:
                self._pieces.move_to_end((reader, number))
            return piece

    def put(self, reader: int, number: int, piece: bytes) -> None:
        """Keep a piece."""
        with self._lock:
            self._held += len(piece) - len(self._pieces.pop((reader, number), b""))
            self._pieces[reader, number] = piece
            while self._held > self._limit and len(self._pieces) > 1:
                self._held -= len(self._pieces.popitem(last=False)[1])

    def drop(self, reader: int, number: int) -> None:
        """Forget a piece."""
        with self._lock:
            self._held -= len(self._pieces.pop((reader, number), b""))

    def start_in_child(self) -> None:
        """See `vmvisor_image.forking`; what another thread was changing is not whole."""
        self._pieces.clear()
        self._held = 0
