"""The trailer of a signed boot module: ``… data | schema | signature | length of the signature | magic``.

Source: vmware/esx-boot, mboot/secure.c, read for the facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmvisor_image.errors import CorruptImage
from vmvisor_image.schemas.module import SIGNATURE_MAGIC, SignatureTail
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.views import Slice

_SCHEMA: Final = 4
_LONGEST_SIGNATURE: Final = 1 << 16
LONGEST_TRAILER: Final = _SCHEMA + _LONGEST_SIGNATURE + SignatureTail.length()
"""Number of bytes of the longest valid trailer."""
_KEY_ID: Final = 16
_SCHEMAS_WITH_KEY_ID: Final = range(1, 5)


@dataclass(frozen=True, slots=True)
class ModuleSignature:
    """Trailer of a signed module; `vmvisor_image.packages.signatures.check_module` checks it."""

    schema: int
    """Number of the signature schema."""
    signature: bytes
    """The signature, including the id of the key."""
    offset: int
    """First byte of the trailer, which is the number of bytes before it."""
    length: int
    """Number of bytes of the whole trailer."""

    @property
    def key_id(self) -> str | None:
        """Id of the key that made the signature; None for a schema without key ids."""
        if self.schema not in _SCHEMAS_WITH_KEY_ID or len(self.signature) < _KEY_ID:
            return None
        return self.signature[:_KEY_ID].decode("ascii", "backslashreplace").rstrip("\0")


def find_signature(source: ReadAt) -> ModuleSignature | None:
    """Trailer of a module without its compression, or None; decoded data is decoded to its end for this.

    Raises:
        CorruptImage: The source is damaged, or the trailer's length is invalid.
    """
    tail_at = source.size - SignatureTail.length()
    if tail_at < _SCHEMA:
        return None
    tail = SignatureTail.parse(source.read_at(tail_at, SignatureTail.length()), base=tail_at)
    if tail.magic != SIGNATURE_MAGIC:
        return None
    start = tail_at - tail.signature_length - _SCHEMA
    if tail.signature_length > _LONGEST_SIGNATURE or start < 0:
        raise CorruptImage(
            "it is longer than the module or than any signature",
            structure="module signature",
            offset=tail_at,
            field="signature_length",
            expected=f"at most {min(_LONGEST_SIGNATURE, tail_at - _SCHEMA)}",
            found=tail.signature_length,
        )
    data = source.read_at(start, _SCHEMA + tail.signature_length)
    schema = int.from_bytes(data[:_SCHEMA], "little")
    return ModuleSignature(schema, data[_SCHEMA:], start, source.size - start)


def strip_signature(source: ReadAt) -> ReadAt:
    """`source` without its trailer; `source` itself where it has no trailer."""
    found = find_signature(source)
    return source if found is None else Slice(source, 0, found.offset, "signed module")
