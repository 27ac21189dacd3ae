"""Addresses of VMFS: what the numbers in pointers and directory entries name, field by field.

The low three bits of each say what it leads to; how the other bits are shared out differs between the generations. A
resource (a sub-block, a block of pointers, a file descriptor) is named by a cluster of its resource file and a place in
that cluster. vmfs-tools, vmfs6-tools and dissect.vmfs read them so.
"""

from __future__ import annotations

from dataclasses import dataclass

FILE_BLOCK, SUB_BLOCK, POINTER_BLOCK, DESCRIPTOR, SECONDARY_POINTER_BLOCK, LARGE_BLOCK = 1, 2, 3, 4, 5, 7
"""Low three bits of an address: what it leads to."""
ROOT, FBB, FDC, PBC, SBC, PB2 = 0x4, 0x400004, 0x800004, 0xC00004, 0x1000004, 0x1800004
"""Addresses of the file descriptors of the root directory and of the resource files of file blocks, file descriptors,
pointer blocks, sub-blocks and secondary pointer blocks (seen, but the last)."""


@dataclass(frozen=True, slots=True)
class BlockAddress:
    """A file block, or a large one of VMFS 6."""

    number: int
    """Of VMFS 3 and 5 the block, from 0 at the volume's start. Of VMFS 6 the cluster, or the large block likewise."""
    resource: int
    """Of VMFS 6 the block in the cluster, from 0; else 0."""
    to_zero: int
    """Parts that were never written and read as zeros: a bit for each of VMFS 6, the first lowest, else one for all."""
    is_large: bool


@dataclass(frozen=True, slots=True)
class ResourceAddress:
    """A resource; or a number of a kind that is not known, which names nothing."""

    kind: int
    """What it is: `SUB_BLOCK`, `POINTER_BLOCK`, `DESCRIPTOR`, `SECONDARY_POINTER_BLOCK`, or what is not known."""
    cluster: int
    """From 0, in the resource file."""
    resource: int
    """From 0, in the cluster."""
    dense: int
    """Two bits above those of `resource`, of sub-blocks of VMFS 3 and 5; they count only where the volume has them."""


Address = BlockAddress | ResourceAddress


def kind_of(pointer: int) -> int:
    """What a pointer of any generation leads to, without the rest of it."""
    return pointer & 0x7


def parse_descriptor(address: int) -> ResourceAddress:
    """The address of a file descriptor, of any generation: 32 bits, of which bits 6 to 21 are the cluster."""
    return ResourceAddress(address & 0x7, address >> 6 & 0xFFFF, address >> 22, 0)


def parse_pointer_5(pointer: int) -> Address:
    """A pointer of VMFS 3 and 5: 32 bits.

    Of a file block bit 5 says that it was never written, and bits 6 to 31 are its number. Of a resource bits 3 and 4
    are the dense ones, bits 6 to 27 the cluster, and bits 28 to 31 the place in it.
    """
    kind = pointer & 0x7
    if kind == FILE_BLOCK:
        return BlockAddress(pointer >> 6, 0, pointer >> 5 & 0x1, is_large=False)
    return ResourceAddress(kind, pointer >> 6 & 0x3FFFFF, pointer >> 28, pointer >> 3 & 0x3)


def parse_pointer_6(pointer: int) -> Address:
    """A pointer of VMFS 6: 64 bits.

    Of a file block bits 7 to 14 say which parts of it were never written, bits 15 to 45 are the cluster, and of a small
    one bits 51 to 63 the place in it. Of a resource bits 6 to 41 are the cluster and bits 56 to 63 the place in it.
    """
    kind = pointer & 0x7
    if kind == FILE_BLOCK:
        return BlockAddress(pointer >> 15 & 0x7FFFFFFF, pointer >> 51, pointer >> 7 & 0xFF, is_large=False)
    if kind == LARGE_BLOCK:
        return BlockAddress(pointer >> 15 & 0x7FFFFFFF, 0, pointer >> 7 & 0xFF, is_large=True)
    return ResourceAddress(kind, pointer >> 6 & 0xFFFFFFFFF, pointer >> 56, 0)
