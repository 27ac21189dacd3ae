"""Small content that the seeds of several targets are made of."""

from __future__ import annotations

import random
from typing import Final

from vmvisor_image.schemas.tar import BLOCK, CHECKSUM, POSIX_MAGIC, VISOR_MAGIC

TREE: Final = {"a.txt": b"content", "a rather long name.bin": b"x" * 1500, "folder/inner/file": b"y", "folder/z": b""}


def text(size: int) -> bytes:
    """Bytes that compress to about a half, always the same."""
    noise = random.Random(size)
    return b"".join(noise.choice((b"alpha ", b"beta ", b"\0\0\0\0", noise.randbytes(6))) for _ in range(size))[:size]


def summed(data: bytes) -> bytes:
    """A tar with right checksums in the blocks that have a magic."""
    found = bytearray(data)
    for at in range(0, len(found) - BLOCK + 1, BLOCK):
        block = found[at : at + BLOCK]
        if bytes(block[257:265]) in (POSIX_MAGIC, VISOR_MAGIC, b"ustar  \0"):
            block[CHECKSUM] = b" " * 8
            found[at + CHECKSUM.start : at + CHECKSUM.stop] = b"%06o\0 " % sum(block)
    return bytes(found)
