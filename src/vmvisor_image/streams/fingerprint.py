"""Fingerprint of a source: whether it is still the one that something was derived from, without reading all of it."""

from __future__ import annotations

import hashlib

from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

_LOOKED_AT = 1 << 16


def fingerprint(source: ReadAt, *, exact: bool = False) -> bytes:
    """32 bytes that differ when the size, the first or last 64 KiB, the modification time or version of a source do.

    For a member of a container, they also differ when the fingerprint of the container does.

    Args:
        source: The source.
        exact: Whether they also differ for a file that was replaced by one of the same modification time. A copy, or
            the same file under another name, is then another source.
    """
    digest = hashlib.sha256()
    known = as_source(source)
    tail = max(0, source.size - _LOOKED_AT)
    digest.update(f"{source.size} {known.modified_ns}\n".encode())
    digest.update((known.version or "").encode("utf-8", "surrogatepass"))
    digest.update(read_up_to(source, 0, _LOOKED_AT))
    digest.update(read_up_to(source, tail, _LOOKED_AT))
    if exact:
        digest.update(f"{known.changed_ns}\n".encode())
    if known.container is not None:
        digest.update(fingerprint(known.container, exact=exact))
    return digest.digest()


def is_identified(source: ReadAt) -> bool:
    """Whether a source has a modification time or version; for a member of a container, whether the container has.

    Without them, the fingerprint stays the same when only the middle of the source changes.
    """
    source = as_source(source)
    known = source if source.container is None else source.container
    return known.modified_ns is not None or known.version is not None
