"""The state of a host: ``state.tgz`` → ``local.tgz`` → ``etc/``, encrypted or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vmvisor_image.archives.archive import Archive, ArchiveHome, open_archive
from vmvisor_image.boot.envelope import decrypt, key_of
from vmvisor_image.errors import CorruptImage, KeyUnavailable, PathNotFound
from vmvisor_image.files.file import File
from vmvisor_image.streams.opening import SourceLike, path_of

STATE: Final = "state.tgz"
LOCAL: Final = "local.tgz"
ENCRYPTED: Final = "local.tgz.ve"
ENCRYPTION_INFO: Final = "encryption.info"
_LARGEST_INFO: Final = 1 << 16
"""Most bytes of an `ENCRYPTION_INFO` that are read; it has some hundred. A wrong key fails when decrypting."""


def open_state(
    file: SourceLike, *, key: bytes | None = None, storage_options: Mapping[str, Any] | None = None
) -> Archive:
    """Archive of the files of a host's configuration, below ``etc/``.

    One made from a path or URL is used as a context manager, or has to be closed.

    Args:
        file: ``state.tgz``, or the ``local.tgz`` that ESXi 4 and earlier have in the bank itself, as a `File` of an
            image or anything else that `Image.open` takes.
        key: Key of ``local.tgz.ve``, 32 bytes; None to derive it from ``encryption.info``.
        storage_options: See `Image.open`.

    Raises:
        KeyUnavailable: It is encrypted, and the key is not available.
        PathNotFound: It holds no configuration.
        CorruptImage: It is damaged.
    """
    outer = open_archive(file, storage_options=storage_options)
    try:
        return state_in(outer, file, key)
    except BaseException:
        outer.close()
        raise


def state_in(outer: Archive, given: SourceLike, key: bytes | None) -> Archive:
    """Archive of the files of a host's configuration that an open archive holds; see `open_state`."""
    if LOCAL in outer:
        home = ArchiveHome(outer[LOCAL], outer)
        return Archive(home.kind, home)
    if ENCRYPTED in outer:
        local = open_archive(decrypt(outer[ENCRYPTED], _find_key(outer) if key is None else key))
        outer.close()
        return local
    if any(path.startswith("etc/") for path in outer):
        return outer
    name = given.path if isinstance(given, File) else path_of(given)
    raise PathNotFound(f"{'it' if name is None else repr(name)} holds neither {LOCAL} nor {ENCRYPTED} nor etc/")


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
