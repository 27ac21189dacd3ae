"""Real volumes in the run-length form of vmfs-tools' test data (described in ../shared/data/README.md)."""

from __future__ import annotations

import zlib
from pathlib import Path

from vmvisor_image.testing.forge import SparseImage

_BLOCK = 512


def expand(path: Path) -> SparseImage:
    """The volume, with its checksum verified."""
    data = path.read_bytes()
    assert data[:8] == b"VMFSIMG\x02", "another form"
    at, offset, checksum = 8, 0, 1
    pieces: list[tuple[int, bytes]] = []
    while at < len(data):
        tag = data[at]
        at += 1
        if tag == 0x7F:
            assert checksum == int.from_bytes(data[at : at + 4], "little")
            at += 4
            continue
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if tag == 0:
            block = data[at : at + 4 * number].ljust(_BLOCK, b"\0")
            at += 4 * number
            pieces.append((offset, block))
            offset += _BLOCK
            checksum = zlib.adler32(block, checksum)
        else:
            assert tag == 1, f"tag {tag:#x}"
            length = (number + 1) * _BLOCK
            offset += length
            while length:
                zeros = bytes(min(length, 1 << 20))
                checksum = zlib.adler32(zeros, checksum)
                length -= len(zeros)
    return SparseImage(offset, pieces)
