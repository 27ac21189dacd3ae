"""``local.tgz.ve``: the configuration of ESXi 7.0 Update 2 and later, encrypted.

With a TPM the key is sealed in it and not on the disk. Without one (``mode = "NONE"``) the source of the key is beside
the file, in ``encryption.info``: VMware's own constant calls that obfuscation. Only this mode can be decrypted.

VMware has published no description of the format. The layout is that of a real file of ESXi 7.0; forged files are
decrypted by dissect.hypervisor: see docs/modules.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from vmvisor_image.errors import CorruptImage, InvalidArgument, KeyUnavailable, TruncatedImage
from vmvisor_image.schemas.module import (
    ENVELOPE_BLOCK,
    ENVELOPE_FOOTER_MAGIC,
    ENVELOPE_MAGIC,
    ENVELOPE_PADDING_MAGIC,
    EnvelopeFooter,
    EnvelopeHeader,
    EnvelopePadding,
)
from vmvisor_image.streams.opening import SourceLike, open_source
from vmvisor_image.streams.source import ReadAt

CIPHER: Final = "AES-256-GCM"
"""The only cipher that is known to be used."""
_ATTRIBUTES: Final = 0x200
_INVALID, _STRING, _BYTES = 0x00, 0x0B, 0x0C
_NUMBER_SIZES: Final = {1: 1, 2: 2, 3: 4, 4: 8, 5: 1, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8}
"""Bytes in an attribute by its type, for types that are numbers."""
_ADDITIONAL_DATA: Final = b"ESXConfiguration"
_DERIVED_WITH: Final = b"This is obfuscation, not encryption. If you want encryption, use TPM."
_ITERATIONS: Final = 100_000
_LARGEST: Final = 256 << 20
"""Most bytes of an envelope that is decrypted, in memory; a configuration has less than one MiB."""
_SETTING: Final = re.compile(r'^[ \t]*([.\w]+)[ \t]*=[ \t]*"([^"]*)"', re.MULTILINE)
"""A setting, one per line: without the anchor, a run of spaces would take the square of its length."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Header of an encrypted configuration."""

    attributes: Mapping[str, str | bytes]
    """Attributes by name; numbers as their bytes on disk."""
    size: int
    """Bytes of the whole file."""

    @property
    def key_id(self) -> str | None:
        """Identifier of the key; None where the header does not name it."""
        return _as_text(self.attributes.get("vmware.keyInfo"))

    @property
    def cipher(self) -> str | None:
        """Name of the cipher; None where the header does not name it."""
        return _as_text(self.attributes.get("vmware.cipherName"))

    def explain(self) -> str:
        """Sentences on its nature and on the key that is needed to read it."""
        return (
            f"It is the configuration of the host, encrypted with {self.cipher or 'an unknown cipher'} by key"
            f" {self.key_id or 'without a name'}. Without a TPM the key is derived from encryption.info, which lies"
            " beside it in state.tgz; with one it is sealed in the TPM of the host and can't be had from the disk."
        )


def read_envelope(source: SourceLike) -> Envelope:
    """Header of a ``local.tgz.ve``, which may be anything that `Image.open` takes.

    Raises:
        CorruptImage: It is not an envelope, or it is damaged.
    """
    with open_source(source) as opened:
        return _read_envelope(opened.source)


def _read_envelope(source: ReadAt) -> Envelope:
    data = source.read_at(0, min(ENVELOPE_BLOCK, source.size))
    header = EnvelopeHeader.parse(data)
    if header.magic != ENVELOPE_MAGIC:
        raise CorruptImage("it is none", structure="configuration envelope", offset=0, field="magic")
    attributes: dict[str, str | bytes] = {}
    at = _ATTRIBUTES
    while at < len(data) and data[at] != _INVALID:
        kind = data[at]
        name_end = data.find(b"\0", at + 4)
        if name_end < 0:
            raise _damaged(at, "a name has no end")
        name = data[at + 4 : name_end].decode("utf-8", "replace")
        at = name_end + 1
        if kind == _STRING:
            end = data.find(b"\0", at)
            if end < 0:
                raise _damaged(at, f"the text of {name!r} has no end")
            attributes[name] = data[at:end].decode("utf-8", "replace")
            at = end + 1
            continue
        if kind == _BYTES:
            length = int.from_bytes(data[at : at + 8], "little")
            at += 8
        elif kind in _NUMBER_SIZES:
            length = _NUMBER_SIZES[kind]
        else:
            raise _damaged(at, f"{name!r} has type {kind}, which is not known")
        if at + length > len(data):
            raise _damaged(at, f"{name!r} passes the end of the header")
        attributes[name] = data[at : at + length]
        at += length
    return Envelope(attributes, source.size)


def key_of(encryption_info: bytes) -> bytes:
    """Key that ``encryption.info`` of a host without a TPM gives.

    Raises:
        KeyUnavailable: The mode is not "NONE": the key is not on the disk.
        CorruptImage: The file is damaged.
    """
    settings = dict(_SETTING.findall(encryption_info.decode("utf-8", "replace")))
    mode = settings.get("mode")
    if mode != "NONE":
        raise KeyUnavailable(f"encryption.info has mode {mode!r}: only of mode 'NONE' is the key on the disk")
    parts = dict(part.partition("=")[::2] for part in settings.get("ConfigEncData", "").split(":"))
    try:
        first, second = (base64.b64decode(unquote(parts[name]), validate=True) for name in ("data1", "data2"))
    except (KeyError, binascii.Error, ValueError) as error:
        raise CorruptImage(
            "it does not have what the key is derived from", structure="encryption.info", field="ConfigEncData"
        ) from error
    return hashlib.pbkdf2_hmac("sha256", first + _DERIVED_WITH, second, _ITERATIONS)


def decrypt(source: SourceLike, key: bytes) -> bytes:
    """Decrypted content of a ``local.tgz.ve``: a ``local.tgz``. Needs the extra ``crypto``.

    Args:
        source: The file, as anything that `Image.open` takes.
        key: 32 bytes; see `key_of`.

    Raises:
        KeyUnavailable: It is encrypted with another key.
        CorruptImage: It is damaged.
        InvalidArgument: The package that decrypts is not installed.
    """
    with open_source(source) as opened:
        return _decrypt(opened.source, key)


def _decrypt(source: ReadAt, key: bytes) -> bytes:
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise InvalidArgument("decrypting needs 'cryptography': pip install 'vmvisor-image[crypto]'") from error
    envelope = _read_envelope(source)
    if envelope.cipher != CIPHER:
        raise _damaged(_ATTRIBUTES, f"cipher {envelope.cipher!r} is not known")
    found = hashlib.sha256(CIPHER.encode() + key).digest()
    if envelope.attributes.get("vmware.keyHash", found) != found or len(key) != 32:
        raise KeyUnavailable(f"the configuration is encrypted with another key: {envelope.key_id}")
    if source.size < 3 * ENVELOPE_BLOCK:
        raise TruncatedImage(
            f"{source.size} bytes are not a valid size of one", structure="configuration envelope", offset=0
        )
    if source.size > _LARGEST:
        raise _damaged(0, f"{source.size} bytes are more than the {_LARGEST} that are decrypted")
    initial = envelope.attributes.get("vmware.iv", b"")
    if not isinstance(initial, bytes) or not 8 <= len(initial) <= 128:
        raise _damaged(_ATTRIBUTES, "it has no initialisation vector")
    data = source.read_at(0, source.size)
    footer_at = len(data) - ENVELOPE_BLOCK
    footer = EnvelopeFooter.parse(data, footer_at)
    if footer.magic != ENVELOPE_FOOTER_MAGIC:
        raise _damaged(footer_at, "it has no footer")
    encrypted = data[ENVELOPE_BLOCK:footer_at] + footer.digest
    try:
        plain = AESGCM(key).decrypt(initial, encrypted, data[:ENVELOPE_BLOCK] + _ADDITIONAL_DATA)
    except InvalidTag as error:
        raise _damaged(ENVELOPE_BLOCK, "its content is not what was encrypted") from error
    last_block = len(plain) - ENVELOPE_BLOCK
    record_at = len(plain) - EnvelopePadding.length()
    end = EnvelopePadding.parse(plain, record_at, base=ENVELOPE_BLOCK)
    if end.magic != ENVELOPE_PADDING_MAGIC or end.padding > last_block:
        raise _damaged(ENVELOPE_BLOCK + record_at, "its last block does not say how long the content is")
    return plain[: last_block - end.padding]


def _as_text(value: str | bytes | None) -> str | None:
    return value if isinstance(value, str) else None


def _damaged(at: int, message: str) -> CorruptImage:
    return CorruptImage(message, structure="configuration envelope", offset=at)
