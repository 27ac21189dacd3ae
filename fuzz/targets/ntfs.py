"""Directories and records of NTFS, as the process that reads guests takes them apart."""

from __future__ import annotations

import struct

from vmvisor_image.volumes.guests import worker


def _block(magic: bytes, content: bytes) -> bytes:
    """A block of 1024 bytes with its fixups."""
    block = bytearray(struct.pack("<4sHH", magic, 40, 3).ljust(46, b"\0") + content).ljust(1024, b"\0")
    block[40:46] = b"\1\0" + block[510:512] + block[1022:1024]
    block[510:512] = block[1022:1024] = b"\1\0"
    return bytes(block)


def _entry(name: str) -> bytes:
    units = name.encode("utf-16-le")
    key = bytes(64) + bytes([len(name), 1]) + units
    return struct.pack("<QHHI", 5 << 48 | 40, 16 + len(key), len(key), 0) + key


def seeds() -> list[bytes]:
    entries = _entry("a") + _entry("a longer name") + struct.pack("<QHHI", 0, 16, 0, 2)
    attribute = struct.pack("<IIBBHHH", 0x80, 72, 1, 0, 64, 0, 0).ljust(72, b"\0")
    return [
        _block(b"INDX", entries),
        _block(b"FILE", attribute),
        struct.pack("<IHBBQQH", 0x80, 26, 0, 26, 0, 7, 0) * 2,
    ]


def one_input(data: bytes) -> None:
    for magic in (b"INDX", b"FILE"):
        for block in (data, worker._without_fixups(data, magic)):
            for name, reference in worker._index_entries(block, 24):
                assert len(name) < 256
                assert 0 <= reference < 1 << 64
            assert sum(map(len, worker._attributes(block, 0x80, b""))) <= len(block)
    assert all(0 <= number < 1 << 48 for number in worker._listed(data, 0x80, b""))
