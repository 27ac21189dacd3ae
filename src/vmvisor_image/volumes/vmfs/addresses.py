"""Addresses of VMFS: the fields of the numbers in pointers and directory entries.

The low three bits of each are the kind of its target; the meaning of the other bits differs between the generations. A
resource (a sub-block, a block of pointers, a file descriptor) is addressed by a cluster of its resource file and its
place in that cluster. Source: vmfs-tools, vmfs6-tools and dissect.vmfs, which read them so.
"""

from __future__ import annotations

from dataclasses import dataclass

FILE_BLOCK, SUB_BLOCK, POINTER_BLOCK, DESCRIPTOR, SECONDARY_POINTER_BLOCK, LARGE_BLOCK = 1, 2, 3, 4, 5, 7
"""Low three bits of an address: the kind of its target."""
ROOT, FBB, FDC, PBC, SBC, PB2 = 0x4, 0x400004, 0x800004, 0xC00004, 0x1000004, 0x1800004
"""Addresses of the file descriptors of the root directory and of the resource files of file blocks, file descriptors,
pointer blocks, sub-blocks and secondary pointer blocks (seen, but the last)."""


@dataclass(frozen=True, slots=True)
class BlockAddress:
    """A file block, or a large one of VMFS 6."""

    number: int
    """VMFS 3 and 5: number of the block, from 0 at the volume's start. VMFS 6: that of the cluster or large block."""
    resource: int
    """VMFS 6: number of the block in the cluster, from 0; otherwise 0."""
    to_zero: int
    """Bits of parts never written, read as zeros: one for each in VMFS 6, the first lowest, otherwise one for all."""
    is_large: bool


@dataclass(frozen=True, slots=True)
class ResourceAddress:
    """Address of a resource, or a number of an unknown kind, which has no target."""

    kind: int
    """Kind: `SUB_BLOCK`, `POINTER_BLOCK`, `DESCRIPTOR`, `SECONDARY_POINTER_BLOCK`, or an unknown number."""
    cluster: int
    """Number of the cluster in the resource file, from 0."""
    resource: int
    """Number of the resource in the cluster, from 0."""
    dense: int
    """Two bits above those of `resource`, in sub-blocks of VMFS 3 and 5; only valid where the volume has them."""


Address = BlockAddress | ResourceAddress


def kind_of(pointer: int) -> int:
    """Kind of the target of a pointer of any generation."""
    return pointer & 0x7


def parse_descriptor(address: int) -> ResourceAddress:
    """Address of a file descriptor of any generation: 32 bits, 6 to 21 the cluster, 22 to 31 the place in it."""
    return ResourceAddress(address & 0x7, address >> 6 & 0xFFFF, address >> 22, 0)


def parse_pointer_5(pointer: int) -> Address:
    """Address in a pointer of VMFS 3 and 5: 32 bits.

    For a file block, bit 5 says that it was never written, and bits 6 to 31 are its number. For a resource, bits 3 and
    4 are the dense ones, bits 6 to 27 the cluster, and bits 28 to 31 the place in it.
    """
    kind = pointer & 0x7
    if kind == FILE_BLOCK:
        return BlockAddress(pointer >> 6, 0, pointer >> 5 & 0x1, is_large=False)
    return ResourceAddress(kind, pointer >> 6 & 0x3FFFFF, pointer >> 28, pointer >> 3 & 0x3)


def parse_pointer_6(pointer: int) -> Address:
    """Address in a pointer of VMFS 6: 64 bits.

    For a file block, bits 7 to 14 say which parts of it were never written, bits 15 to 45 are the cluster (or a large
    block), and 51 to 63 the place in it. For a resource, bits 6 to 41 are the cluster and 56 to 63 the place in it.
    """
    kind = pointer & 0x7
    if kind == FILE_BLOCK:
        return BlockAddress(pointer >> 15 & 0x7FFFFFFF, pointer >> 51, pointer >> 7 & 0xFF, is_large=False)
    if kind == LARGE_BLOCK:
        return BlockAddress(pointer >> 15 & 0x7FFFFFFF, 0, pointer >> 7 & 0xFF, is_large=True)
    return ResourceAddress(kind, pointer >> 6 & 0xFFFFFFFFF, pointer >> 56, 0)
