"""The state of a host: ``state.tgz`` → ``local.tgz`` → ``etc/``, encrypted or not."""

from __future__ import annotations

from typing import Final

from vmvisor_image.archives import Archive, open_archive
from vmvisor_image.boot.envelope import decrypt, key_of
from vmvisor_image.errors import CorruptImage, KeyUnavailable, PathNotFound
from vmvisor_image.files import File
from vmvisor_image.streams import BytesSource

STATE: Final = "state.tgz"
LOCAL: Final = "local.tgz"
ENCRYPTED: Final = "local.tgz.ve"
ENCRYPTION_INFO: Final = "encryption.info"
_LARGEST_INFO: Final = 1 << 16
"""Bytes of an `ENCRYPTION_INFO` that are read; it has some hundred. What is encrypted tells whether a key is right."""


def open_state(file: File, *, key: bytes | None = None) -> Archive:
    """The files of a host's configuration, below ``etc/``.

    Args:
        file: ``state.tgz``, or the ``local.tgz`` that ESXi 4 and earlier have in the bank itself.
        key: What ``local.tgz.ve`` is encrypted with, 32 bytes; None to derive it from ``encryption.info``.

    Raises:
        KeyUnavailable: It is encrypted, and the key is not at hand.
        PathNotFound: It holds no configuration.
        CorruptImage: It is damaged.
    """
    outer = open_archive(file)
    if LOCAL in outer:
        return outer[LOCAL].open_archive()
    if ENCRYPTED in outer:
        return open_archive(BytesSource(decrypt(outer[ENCRYPTED], _find_key(outer) if key is None else key)))
    if any(path.startswith("etc/") for path in outer):
        return outer
    raise PathNotFound(f"{file.path!r} holds neither {LOCAL} nor {ENCRYPTED} nor etc/")


def _find_key(outer: Archive) -> bytes:
    # A host that lost power while it saved its state leaves the file under the temporary name.
    for name in (ENCRYPTION_INFO, f".#{ENCRYPTION_INFO}"):
        if name in outer:
            file = outer[name]
            try:
                return key_of(file.read_at(0, min(file.size, _LARGEST_INFO)))
            except (CorruptImage, KeyUnavailable) as error:
                if file.size <= _LARGEST_INFO:
                    raise
                message = f"no key is in its first {_LARGEST_INFO} bytes, and no more are read"
                raise CorruptImage(message, structure=name) from error
    raise KeyUnavailable(f"{ENCRYPTED} is encrypted, and {ENCRYPTION_INFO} is not beside it: the key is in a TPM")
