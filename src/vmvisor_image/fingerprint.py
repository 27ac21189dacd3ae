"""Telling whether a source is still the one that something was derived from, without reading all of it."""

from __future__ import annotations

import hashlib

from vmvisor_image.streams import ReadAt, read_up_to

_LOOKED_AT = 1 << 16


def fingerprint(source: ReadAt) -> bytes:
    """32 bytes that differ when the size, the first or last 64 KiB, the modification time or version of a source do."""
    digest = hashlib.sha256()
    modified: int | None = getattr(source, "modified_ns", None)
    version: str | None = getattr(source, "version", None)
    tail = max(0, source.size - _LOOKED_AT)
    digest.update(f"{source.size} {modified}\n".encode())
    digest.update((version or "").encode())
    digest.update(read_up_to(source, 0, _LOOKED_AT))
    digest.update(read_up_to(source, tail, _LOOKED_AT))
    return digest.digest()
