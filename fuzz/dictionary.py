"""The dictionary: every magic that a schema or the list of signatures names, and numbers that formats trip over."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import vmvisor_image.schemas
from vmvisor_image.volumes.magics import SIGNATURES

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63)
_TEXT = (
    b"../",
    b"/",
    b"\\",
    b"NUL",
    b"@LongLink",
    b"path=",
    b"size=",
    b"linkpath=",
    b"GNU.sparse.size=",
    b"#1/",
    b"//",
)


def magics() -> Iterator[bytes]:
    """Constants of bytes in the schemas, and the magics of the signatures."""
    for module in pkgutil.iter_modules(vmvisor_image.schemas.__path__):
        for value in vars(importlib.import_module(f"vmvisor_image.schemas.{module.name}")).values():
            for word in value if isinstance(value, tuple | frozenset) else (value,):
                if isinstance(word, bytes) and 2 <= len(word) <= 64:
                    yield word
    yield from (signature.magic for signature in SIGNATURES)


def dictionary() -> str:
    """The words in libFuzzer's format, in a fixed order."""
    words = {*magics(), *_TEXT}
    for number in _NUMBERS:
        for size in (2, 4, 8):
            if number < 1 << 8 * size:
                words |= {number.to_bytes(size, "little"), number.to_bytes(size, "big")}
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words))
    return "".join(f'"{word}"\n' for word in escaped)
