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
"""Bytes of the longest trailer that is one."""
_KEY_ID: Final = 16
_SCHEMAS_WITH_KEY_ID: Final = range(1, 5)


@dataclass(frozen=True, slots=True)
class ModuleSignature:
    """What stands at the end of a signed module. It is shown, not verified: that needs VMware's keys."""

    schema: int
    """How it was made."""
    signature: bytes
    """The signature, the key's id included."""
    offset: int
    """First byte of the trailer, which is the number of bytes before it."""
    length: int
    """Bytes of the whole trailer."""

    @property
    def key_id(self) -> str | None:
        """Which key it was made with; None for a schema that does not say it."""
        if self.schema not in _SCHEMAS_WITH_KEY_ID or len(self.signature) < _KEY_ID:
            return None
        return self.signature[:_KEY_ID].decode("ascii", "backslashreplace").rstrip("\0")


def find_signature(source: ReadAt) -> ModuleSignature | None:
    """The trailer of what has no compression around it any more; of decoded data this decodes to the end.

    Raises:
        CorruptImage: The source is damaged, or the trailer's length makes no sense.
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
    """`source` without its trailer; itself where it has none."""
    found = find_signature(source)
    return source if found is None else Slice(source, 0, found.offset, "signed module")
