"""Deterministic VHD and VHDX files that rest on other ones, and VHDX files with a log that is not replayed yet.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from vmvisor_image.layers.crc32c import crc32c
from vmvisor_image.schemas import vhdx
from vmvisor_image.testing.forge import SparseImage

_SECTOR: Final = vhdx.LOG_SECTOR


def vhdx_log_entry(
    log_id: bytes,
    number: int,
    changes: Mapping[int, bytes | int],
    *,
    tail: int,
    flushed: int,
    last: int,
) -> bytes:
    """An entry of the log of a VHDX.

    Vouched for by ``qemu-img``: ``tests/test_vhdx_log.py``.

    Args:
        log_id: GUID of the log, as it is on disk.
        number: Sequence number of the entry.
        changes: Changes of the file by their first byte: a page of 4096 bytes, or a number of bytes that become zeros.
        tail: Bytes from the start of the log to the first entry that has to be replayed.
        flushed: Least size of the file, in bytes.
        last: Size of the file after the replay, in bytes.
    """
    descriptors, data = [], []
    for offset, change in changes.items():
        if isinstance(change, int):
            descriptors.append(vhdx.LogDescriptor(vhdx.ZERO_MAGIC, bytes(4), change, offset, number))
            continue
        leading, trailing = int.from_bytes(change[:8], "little"), change[-4:]
        descriptors.append(vhdx.LogDescriptor(vhdx.DATA_MAGIC, trailing, leading, offset, number))
        high, low = divmod(number, 1 << 32)
        head = vhdx.LogDataSector(vhdx.DATA_SECTOR_MAGIC, high)
        data.append(head.build() + change[8:-4] + low.to_bytes(4, "little"))
    places = b"".join(each.build() for each in descriptors)
    sectors = -(-(vhdx.LogEntryHeader.length() + len(places)) // _SECTOR)
    header = vhdx.LogEntryHeader(
        magic=vhdx.LOG_MAGIC,
        checksum=0,
        entry_length=(sectors + len(data)) * _SECTOR,
        tail=tail,
        sequence_number=number,
        descriptor_count=len(descriptors),
        reserved=0,
        log_id=log_id,
        flushed_file_offset=flushed,
        last_file_offset=last,
    )
    rest = places.ljust(sectors * _SECTOR - vhdx.LogEntryHeader.length(), b"\0") + b"".join(data)
    checksum = crc32c(header.build() + rest)
    return replace(header, checksum=checksum).build() + rest


def vhdx_with_log(disk: SparseImage, log_id: bytes, entries: Sequence[tuple[int, bytes]]) -> SparseImage:
    """A VHDX that was not closed, of one by `vmvisor_image.testing.forge_virtual.vhdx_disk`.

    Vouched for by ``qemu-img``: ``tests/test_vhdx_log.py``.

    Args:
        disk: The VHDX.
        log_id: GUID of its log, as it is on disk.
        entries: Content of the log: bytes from its start, and an entry, which goes on at its start where it does not
            fit; later ones replace earlier ones.
    """
    header = vhdx.VhdxHeader.parse(disk.read_at(vhdx.HEADERS[0], vhdx.HEADER_SIZE))
    log = bytearray(header.log_length)
    for start, entry in entries:
        for at in range(0, len(entry), _SECTOR):
            place = (start + at) % len(log)
            log[place : place + _SECTOR] = entry[at : at + _SECTOR]
    plain = replace(header, checksum=0, log_id=log_id).build().ljust(vhdx.HEADER_SIZE, b"\0")
    sealed = plain[:4] + crc32c(plain).to_bytes(4, "little") + plain[8:]
    kept = [piece for piece in disk.pieces if piece[0] not in (*vhdx.HEADERS, header.log_offset)]
    return SparseImage(disk.size, [*kept, *((at, sealed) for at in vhdx.HEADERS), (header.log_offset, bytes(log))])
