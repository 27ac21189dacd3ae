"""Forged boot modules: tar and vmtar archives, kernels, signed modules, microcode, encrypted configurations.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

from vmvisor_image.boot.envelope import CIPHER, key_of
from vmvisor_image.errors import InvalidArgument
from vmvisor_image.schemas.microcode import (
    AMD_MAGIC,
    AMD_PATCH,
    AMD_TABLE,
    AMD_TABLE_ENTRY,
    AmdContainer,
    AmdPatch,
    AmdSection,
    IntelHeader,
)
from vmvisor_image.schemas.module import (
    ENVELOPE_ATTRIBUTES,
    ENVELOPE_BLOCK,
    ENVELOPE_FOOTER_MAGIC,
    ENVELOPE_MAGIC,
    ENVELOPE_PADDING_MAGIC,
    MULTIBOOT_MAGIC,
    SIGNATURE_MAGIC,
    Elf32ProgramHeader,
    Elf32Rest,
    ElfIdentification,
    EnvelopeFooter,
    EnvelopeHeader,
    EnvelopePadding,
    MultibootHeader,
    SignatureTail,
)
from vmvisor_image.schemas.tar import BLOCK, CHECKSUM, POSIX_MAGIC, VISOR_MAGIC, MemberHeader, TarTail, VmtarTail

_FILE, _LINK, _DIRECTORY = b"0", b"2", b"5"
_PAGE: Final = 4096


def tar_archive(
    files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None, modified: int = 1_200_000_000
) -> bytes:
    """A POSIX tar of files and symbolic links, with the directories above them.

    Vouched for by GNU ``tar``: ``tests/test_vouchers.py``.

    Args:
        files: Content by path.
        links: Targets by path.
        modified: Time of all members, in seconds since 1970.
    """
    members = _members(files, links or {})
    parts = []
    for path, kind, data, target in members:
        parts.append(_tar_header(path, kind, len(data), target, modified))
        parts.append(data + bytes(-len(data) % BLOCK))
    return b"".join((*parts, bytes(2 * BLOCK)))


def vmtar_archive(
    files: Mapping[str, bytes],
    *,
    links: Mapping[str, str] | None = None,
    modified: int = 1_200_000_000,
    inline: bool = False,
) -> bytes:
    """A vmtar of files and symbolic links, with the directories above them.

    Vouched for by dissect.hypervisor (``dissect_vmtar.py``), and payloads of real VIBs, which the same reader reads:
    ``tests/test_vouchers.py``.

    Args:
        files: Content by path.
        links: Targets by path.
        modified: Time of all members, in seconds since 1970.
        inline: Whether the data follows each header as in a tar, instead of page by page after all headers.
    """
    members = _members(files, links or {})
    if inline:
        parts = []
        for path, kind, data, target in members:
            parts.append(_vmtar_header(path, kind, len(data), target, modified, 0))
            parts.append(data + bytes(-len(data) % BLOCK))
        return b"".join((*parts, bytes(2 * BLOCK)))
    headers, content = [], []
    at = _up((len(members) + 1) * BLOCK)
    for path, kind, data, target in members:
        headers.append(_vmtar_header(path, kind, len(data), target, modified, at if data else 0))
        content.append(data.ljust(_up(len(data)), b"\0"))
        at += len(content[-1])
    head = b"".join(headers)
    return head.ljust(_up(len(head) + BLOCK), b"\0") + b"".join(content)


def _up(size: int, unit: int = _PAGE) -> int:
    return -(-size // unit) * unit


def _members(files: Mapping[str, bytes], links: Mapping[str, str]) -> list[tuple[str, bytes, bytes, str]]:
    found: dict[str, tuple[str, bytes, bytes, str]] = {}
    for path in (*files, *links):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            found.setdefault(above, (f"{above}/", _DIRECTORY, b"", ""))
        found[path] = (path, _FILE, files[path], "") if path in files else (path, _LINK, b"", links[path])
    return list(found.values())


def _split(path: str, longest: int) -> tuple[bytes, bytes]:
    """Prefix and name of a path."""
    raw = path.encode()
    if len(raw) <= 100:
        return b"", raw
    at = raw.find(b"/", len(raw) - 101)
    if not 0 < at <= longest:
        raise InvalidArgument(f"{path!r} is too long for a header of this format")
    return raw[:at], raw[at + 1 :]


def _head(name: bytes, kind: bytes, size: int, target: str, modified: int, magic: bytes) -> bytes:
    return MemberHeader(
        name=name.ljust(100, b"\0"),
        mode=b"%07o\0" % (0o755 if kind == _DIRECTORY else 0o644),
        owner=b"%07o\0" % 201,
        group=b"%07o\0" % 201,
        size=b"%011o\0" % size,
        modified=b"%011o\0" % modified,
        checksum=b" " * 8,
        type_flag=kind[0],
        target=target.encode().ljust(100, b"\0"),
        magic=magic,
        owner_name=bytes(32),
        group_name=bytes(32),
        device_major=bytes(8),
        device_minor=bytes(8),
    ).build()


def _summed(block: bytes) -> bytes:
    return block[: CHECKSUM.start] + b"%06o\0 " % sum(block) + block[CHECKSUM.stop :]


def _tar_header(path: str, kind: bytes, size: int, target: str, modified: int) -> bytes:
    prefix, name = _split(path, 155)
    head = _head(name, kind, size, target, modified, POSIX_MAGIC)
    return _summed(head + TarTail(prefix.ljust(155, b"\0"), bytes(12)).build())


def _vmtar_header(path: str, kind: bytes, size: int, target: str, modified: int, data_offset: int) -> bytes:
    prefix, name = _split(path, 151)
    head = _head(name, kind, size, target, modified, VISOR_MAGIC)
    return _summed(head + VmtarTail(prefix.ljust(151, b"\0"), data_offset, 0, 0, 0).build())


def kernel_elf(text: bytes = b"", *, multiboot: bool = True, identity: tuple[str, str, str] | None = None) -> bytes:
    """A program of 32 bits for x86 that a boot loader takes for a kernel, with some text in it; it does nothing.

    Vouched for by ``readelf``: ``tests/test_modules.py``; for the way in which the identity is written by the decoded
    kernel of ESXi 6.7.0 build 8169922: three strings apart from each other, which stand together once.

    Args:
        text: Text in it.
        multiboot: With a Multiboot header.
        identity: Product, version and build, written as ESXi 6.7 has them, such as "VMware ESXi", "6.7.0", "8169922".
    """
    if identity is not None:
        product, version, build = identity
        head = f"{version}\0{product}\0".encode()
        together = head.ljust(_up(len(head), 32), b"\0") + f"Releasebuild-{build}\0".encode()
        text = b"\0Release\0release\0" + text + bytes(16) + together
    rest = Elf32Rest(1, 0x100000, 52, 0, 0, 52, 32, 1)
    header = ElfIdentification(b"\x7fELF", 1, 1, 1, bytes(9), 2, 3).build() + rest.build() + bytes(6)
    flags = 0x3
    magic = (
        MultibootHeader(MULTIBOOT_MAGIC, flags, -(MULTIBOOT_MAGIC + flags) % (1 << 32)).build() if multiboot else b""
    )
    body = magic.ljust(16, b"\xf4") + text
    offset = 0x1000
    segment = Elf32ProgramHeader(1, offset, 0x100000, 0x100000, len(body), len(body), 5, 0x1000).build()
    return (header + segment).ljust(offset, b"\0") + body


def intel_microcode(processor: int, revision: int, *, released: int = 0x01022018, size: int = 2048) -> bytes:
    """One of Intel's updates of a processor's microcode, whose code is noise.

    Vouched for by ``iucode_tool``, run by hand, and the sum that Intel's manual asks for: ``tests/test_modules.py``.

    Args:
        processor: What CPUID says of the processor, such as 0x506E3.
        revision: Of the update.
        released: Its date, as `IntelHeader` has it.
        size: Bytes of it, a multiple of 1024.
    """
    noise = hashlib.shake_256(processor.to_bytes(4, "little")).digest(size - IntelHeader.length())

    def build(checksum: int) -> bytes:
        header = IntelHeader(1, revision, released, processor, checksum, 1, 1, len(noise), size, bytes(12))
        return header.build() + noise

    return build(-sum(number for (number,) in struct.iter_unpack("<I", build(0))) % (1 << 32))


def amd_microcode(
    updates: Mapping[int, int], *, released: int = 0x01022018, size: int = 960, vendor_table: int = 0x00800F12
) -> bytes:
    """A container with AMD's updates of processors' microcode.

    Vouched for by ``amd-ucode-container``, run by hand; what our reader makes of it: ``tests/test_modules.py``.

    Args:
        updates: Revision of each update by the number of its processor in the table.
        released: Their date, as `AmdPatch` has it.
        size: Bytes of each update.
        vendor_table: What CPUID says of the first processor; that of each other one is one more.
    """
    entries = [
        struct.pack("<IIIHH", vendor_table + number, 0, 0, processor, 0) for number, processor in enumerate(updates)
    ]
    table = b"".join((*entries, bytes(AMD_TABLE_ENTRY)))
    parts = [AmdContainer(AMD_MAGIC, AMD_TABLE, len(table)).build(), table]
    for processor, revision in updates.items():
        patch = AmdPatch(released, revision, 0x8004, 0, 0, 0, 0, 0, processor).build()
        parts += [AmdSection(AMD_PATCH, size).build(), patch.ljust(size, b"\xa5")]
    return b"".join(parts)


def sign(
    data: bytes,
    *,
    key_id: bytes = b"a forged key id.",
    schema: int = 2,
    make: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """A module's data with the trailer of a signed one.

    Vouched for by the trailers of five modules of ESXi 6.7, which have this layout and are not at hand, and for the
    signature by ``openssl``, which makes it; no program that reads a trailer is at hand (``find_signature`` is ours):
    ``tests/test_modules.py`` and ``tests/test_packages.py``.

    Args:
        data: Content without the compression.
        key_id: 16 bytes.
        schema: Of the signature.
        make: Function that makes the signature of the bytes that it covers; None for one that no key gives.
    """
    covered = data + schema.to_bytes(4, "little")
    signature = key_id + (hashlib.sha256(data).digest() * 8 if make is None else make(covered))
    return covered + signature + SignatureTail(len(signature), SIGNATURE_MAGIC).build()


def encryption_info(first: bytes, second: bytes, *, mode: str = "NONE") -> bytes:
    """An ``encryption.info`` with the data that the key is derived from.

    Vouched for by dissect.hypervisor (``dissect_envelope.py``): ``tests/test_modules.py``.
    """
    values = {"keyId": bytes(range(16)), "data1": first, "data2": second}
    data = ":".join(f"{name}={quote(base64.b64encode(value), safe='')}" for name, value in values.items())
    text = f'.encoding = "UTF-8"\nincludeKeyCache = "FALSE"\nmode = "{mode}"\nConfigEncData = "{data}:version=1"\n'
    return text.encode()


def encrypt(data: bytes, info: bytes, *, initial: bytes | None = None) -> bytes:
    """A ``local.tgz.ve`` with `data`, encrypted with the key of an ``encryption.info``. Needs the extra ``crypto``.

    Vouched for by dissect.hypervisor (``dissect_envelope.py``): ``tests/test_modules.py``.

    Args:
        data: A ``local.tgz``.
        info: The ``encryption.info``.
        initial: The initialisation vector, 12 bytes; None for random ones.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = key_of(info)
    vector = os.urandom(12) if initial is None else initial
    header = EnvelopeHeader(ENVELOPE_MAGIC, bytes(483), ENVELOPE_ATTRIBUTES, 2).build()
    header += _bytes_attribute("vmware.iv", vector)
    header += _text_attribute("vmware.keyInfo", "00010203-0405-0607-0809-0a0b0c0d0e0f")
    header += _text_attribute("vmware.cipherName", CIPHER)
    header += _bytes_attribute("vmware.keyHash", hashlib.sha256(CIPHER.encode() + key).digest())
    header = header.ljust(ENVELOPE_BLOCK, b"\0")
    padding = -len(data) % ENVELOPE_BLOCK
    end = EnvelopePadding(ENVELOPE_PADDING_MAGIC, bytes(479), padding, 2).build()
    filler = hashlib.shake_256(data).digest(padding + ENVELOPE_BLOCK - len(end))
    encrypted = AESGCM(key).encrypt(vector, data + filler + end, header + b"ESXConfiguration")
    tag = encrypted[-16:]
    footer = EnvelopeFooter(ENVELOPE_FOOTER_MAGIC, bytes(9), tag).build().ljust(ENVELOPE_BLOCK - 8, b"\0")
    return header + encrypted[:-16] + footer + struct.pack("<II", len(tag), 1)


def _text_attribute(name: str, value: str) -> bytes:
    return b"\x0b\0\0\0" + name.encode() + b"\0" + value.encode() + b"\0"


def _bytes_attribute(name: str, value: bytes) -> bytes:
    return b"\x0c\0\0\0" + name.encode() + b"\0" + len(value).to_bytes(8, "little") + value
