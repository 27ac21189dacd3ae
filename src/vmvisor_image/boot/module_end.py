"""The end of a boot module, found while its bytes are read: its gzip check, and the trailer of a signed one."""

from __future__ import annotations

import zlib
from typing import Final

from vmvisor_image.base.limits import Meter
from vmvisor_image.compressions.signed import LONGEST_TRAILER, ModuleSignature, find_signature
from vmvisor_image.streams.sources import BytesSource

_MAGIC: Final = b"\x1f\x8b\x08"
_GZIP: Final = 16 + zlib.MAX_WBITS
_PIECE: Final = 1 << 20


class ModuleEnd:
    """Sink for a file's bytes in order that decodes gzip and keeps the last bytes."""

    def __init__(self, meter: Meter) -> None:
        """A sink before the first byte; `meter` counts the decoded bytes."""
        self._meter = meter
        self._head: bytes | None = b""
        """First bytes, until there are enough to recognise gzip; None from then on."""
        self._inflate: zlib._Decompress | None = None
        self._tail = b""
        self._size = 0
        """Decoded bytes so far."""
        self.is_gzip = False
        self.failure: str | None = None
        """Message of the damage in the gzip data; None without damage."""

    def update(self, data: memoryview) -> None:
        """Take the next bytes.

        Raises:
            LimitExceeded: There was too much to decode.
        """
        if self._head is None:
            self._take(data)
            return
        self._head += data
        if len(self._head) >= len(_MAGIC):
            self._begin()

    def finish(self) -> None:
        """End the input."""
        if self._head is not None:
            self._begin()
        if self.is_gzip and self.failure is None and self._inflate is not None and not self._inflate.eof:
            self.failure = "the file ends within its gzip data"

    def signature(self) -> ModuleSignature | None:
        """Trailer of a signed module, in the decoded data of gzip; None where there is none, or the gzip is damaged.

        Raises:
            CorruptImage: Its length is not valid.
        """
        if self.failure is not None:
            return None
        found = find_signature(BytesSource(self._tail))
        if found is None:
            return None
        return ModuleSignature(found.schema, found.signature, self._size - found.length, found.length)

    def _begin(self) -> None:
        head, self._head = self._head or b"", None
        if head.startswith(_MAGIC):
            self.is_gzip = True
            self._inflate = zlib.decompressobj(_GZIP)
        self._take(memoryview(head))

    def _take(self, data: memoryview | bytes) -> None:
        if not self.is_gzip:
            self._keep(bytes(data[-LONGEST_TRAILER:]), len(data))
            return
        while len(data) and self._inflate is not None and self.failure is None:
            if self._inflate.eof:  # another member follows, or padding
                self._inflate = zlib.decompressobj(_GZIP) if data[:1] == _MAGIC[:1] else None
                continue
            self._decode(self._inflate, data)
            data = self._inflate.unused_data

    def _decode(self, inflate: zlib._Decompress, data: memoryview | bytes) -> None:
        """Decode all of `data` that belongs to this member; zlib checks its CRC and length at its end."""
        while True:
            try:
                found = inflate.decompress(data, _PIECE)
            except zlib.error as error:
                self.failure = str(error)
                return
            self._meter.add(len(found))
            self._meter.check()
            self._keep(found[-LONGEST_TRAILER:], len(found))
            data = inflate.unconsumed_tail
            if inflate.eof or (not data and len(found) < _PIECE):
                return

    def _keep(self, end: bytes, count: int) -> None:
        self._size += count
        self._tail = end if len(end) == LONGEST_TRAILER else (self._tail + end)[-LONGEST_TRAILER:]
