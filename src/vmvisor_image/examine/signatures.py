"""Signatures of file systems, virtual disks and other files, among them formats that this library does not read.

Offsets and magics are facts of the formats; kinds have the names that util-linux's blkid gives them. Sources: the
formats' own specifications and file(1)'s magic(5) database, read for the facts.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from vmvisor_image.errors import CorruptImage
from vmvisor_image.examine.survey import entropy
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt

Content = Literal["volume", "disk", "data"]
"""Sort of content: a volume, in a partition or on a whole disk; a virtual disk in a file; or any other file."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A magic, and the format that it stands for."""

    kind: str
    """Short name of the format, as `Partition.kind` gives it."""
    name: str
    """Name of the format in words."""
    offset: int
    """Offset of the magic, in bytes from the start of the content."""
    magic: bytes
    also: tuple[tuple[int, bytes], ...] = ()
    """Further bytes that must be there: offset from the content's start, and value."""
    refine: Callable[[bytes], tuple[str, str]] | None = None
    """Function that gives a more exact kind and name, from the `refine_length` bytes at `refine_offset`."""
    refine_offset: int = 0
    refine_length: int = 0
    content: Content = "volume"
    """Sort of content that has the format."""
    measure: Callable[[bytes], int | None] | None = None
    """Function that gives the bytes of the volume from its first 8 KiB; None where its header makes no sense."""


@dataclass(frozen=True, slots=True)
class Match:
    """A signature that was found."""

    kind: str
    name: str
    offset: int
    """Offset of the magic, in bytes from the start of the examined content."""
    magic: bytes
    content: Content
    size: int | None = None
    """Bytes in the content by its own header; None where it is not read, or makes no sense."""

    def statement(self) -> str:
        """The finding in words."""
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in self.magic)
        return f"{self.name}: its magic {self.magic.hex(' ')} ({text!r})"


def _ext(superblock: bytes) -> tuple[str, str]:
    """Kind and name of an ext file system, by the features that only later versions have (Linux, fs/ext4/ext4.h)."""
    compatible, incompatible, read_only = (int.from_bytes(superblock[at : at + 4], "little") for at in (92, 96, 100))
    has_journal, journal_device = compatible & 0x4, incompatible & 0x8
    if journal_device:
        return "jbd", "journal of an ext file system"
    if read_only & ~0x7 or incompatible & ~0x16:  # extents, 64-bit block numbers, huge files and the like
        return "ext4", "ext4 file system"
    return ("ext3", "ext3 file system") if has_journal else ("ext2", "ext2 file system")


def _measure_ext(head: bytes) -> int | None:
    """Bytes of an ext file system (Linux, fs/ext4/ext4.h); None also for a backup of the super block."""
    superblock = head[1024:2048]
    inodes, blocks, first, log_size = (int.from_bytes(superblock[at : at + 4], "little") for at in (0, 4, 20, 24))
    revision, group = int.from_bytes(superblock[76:80], "little"), int.from_bytes(superblock[90:92], "little")
    if int.from_bytes(superblock[96:100], "little") & _EXT_64BIT:
        blocks |= int.from_bytes(superblock[336:340], "little") << 32
    is_sound = inodes and blocks and first in (0, 1) and log_size <= _EXT_LARGEST_LOG and revision <= 1 and group == 0
    return blocks * (1024 << log_size) if is_sound else None


_EXT_64BIT: Final = 0x80
_EXT_LARGEST_LOG: Final = 6


def _measure_ntfs(head: bytes) -> int | None:
    """Bytes of an NTFS volume: its sectors and, as in the partition, the copy of the boot sector after them."""
    unit, sectors = int.from_bytes(head[11:13], "little"), int.from_bytes(head[40:48], "little")
    return (sectors + 1) * unit if unit in _SECTOR_SIZES and 0 < sectors < 1 << 55 else None


def _measure_exfat(head: bytes) -> int | None:
    """Bytes of an exFAT volume (Microsoft, exFAT file system specification, 3.1.5 and 3.1.14)."""
    sectors, shift = int.from_bytes(head[72:80], "little"), head[108]
    return sectors << shift if sectors and 1 << shift in _SECTOR_SIZES else None


def _measure_xfs(head: bytes) -> int | None:
    """Bytes of an XFS file system; the super block is big-endian (XFS Algorithms and Data Structures)."""
    unit, blocks = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:16], "big")
    return unit * blocks if 512 <= unit <= 1 << 16 and not unit & (unit - 1) and 0 < blocks < 1 << 55 else None


def _measure_squashfs(head: bytes) -> int | None:
    """Bytes of a squashfs file system of version 4 (Linux, fs/squashfs/squashfs_fs.h)."""
    size, major = int.from_bytes(head[40:48], "little"), int.from_bytes(head[28:30], "little")
    return size if major == _SQUASHFS and size > 96 else None


_SQUASHFS: Final = 4
_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)


def _elf(header: bytes) -> tuple[str, str]:
    bits = {1: "32-bit ", 2: "64-bit "}.get(header[4], "")
    machine = {3: "x86 ", 62: "x86-64 ", 183: "AArch64 "}.get(int.from_bytes(header[18:20], "little"), "")
    return "elf", f"{bits}{machine}ELF program"


_STATES: Final = (0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2, 0xBED0BED0, 0xBED2BED0)
"""Magics of .vmss and .vmsn files, little-endian; all but the last by the header that VMware gave to crash(8)
(vmware_vmss.h: usual, partial, restored, not restored, old), the first three and the last by the page "VMware Snapshot
File" of Volatility's documentation."""
_DATA: Final = (
    ("lz4", "LZ4 data", 0, b"\x04\x22\x4d\x18"),
    ("lzip", "lzip data", 0, b"LZIP\x01"),
    ("lzop", "lzop data", 0, b"\x89LZO\0\r\n\x1a\n"),
    ("7z", "7-Zip archive", 0, b"7z\xbc\xaf\x27\x1c"),
    ("rar", "RAR archive", 0, b"Rar!\x1a\x07"),
    ("cab", "cabinet archive", 0, b"MSCF\0\0\0\0"),
    ("wim", "Windows imaging file (WIM)", 0, b"MSWIM\0\0\0"),
    ("cpio", "cpio archive", 0, b"070701"),
    ("sqlite", "SQLite database", 0, b"SQLite format 3\0"),
    ("nvram", "VMware NVRAM file", 0, b"MRVN"),
    *(("vmss", "VMware suspended state or snapshot", 0, magic.to_bytes(4, "little")) for magic in _STATES),
    ("partclone", "partclone image", 0, b"partclone-image"),
    ("pdf", "PDF document", 0, b"%PDF-"),
    ("png", "PNG picture", 0, b"\x89PNG\r\n\x1a\n"),
    ("jpeg", "JPEG picture", 0, b"\xff\xd8\xff"),
)
"""Kind, name, offset and magic of files that are not disks; only magics that rarely occur by chance."""
_DISKS: Final = (
    ("qcow", "QEMU disk image of another version (qcow)", 0, b"QFI\xfb"),
    ("qed", "QEMU enhanced disk image (QED)", 0, b"QED\0"),
    ("vdi", "VirtualBox disk image (VDI)", 0x40, b"\x7f\x10\xda\xbe"),
    ("parallels", "Parallels disk image", 0, b"WithoutFreeSpace"),
    ("parallels", "Parallels disk image", 0, b"WithouFreSpacExt"),
    ("bochs", "Bochs disk image", 0, b"Bochs Virtual HD Image"),
    ("cloop", "compressed loop image (cloop)", 0, b"#!/bin/sh\n#V2.0 Format\n"),
    ("ewf", "EnCase evidence file (E01)", 0, b"EVF\x09\x0d\x0a\xff\0"),
    ("ewf2", "EnCase evidence file (Ex01)", 0, b"EVF2\x0d\x0a\x81\0"),
    ("lvf", "EnCase logical evidence file (L01)", 0, b"LVF\x09\x0d\x0a\xff\0"),
    ("aff", "Advanced Forensic Format image (AFF)", 0, b"AFF10\r\n\0"),
)
"""Kind, name, offset and magic of virtual disks and images in files."""
_END: Final = 512
_DMG: Final = b"koly\0\0\0\x04\0\0\x02\0"
"""Start of the last 512 bytes: the magic, version 4, and the trailer's own size."""

FOREIGN: Final = (
    Signature("crypto_LUKS", "LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    Signature("BitLocker", "BitLocker encrypted volume", 3, b"-FVE-FS-"),
    Signature("ntfs", "NTFS volume", 3, b"NTFS    ", ((510, b"\x55\xaa"),), measure=_measure_ntfs),
    Signature("exfat", "exFAT volume", 3, b"EXFAT   ", ((510, b"\x55\xaa"),), measure=_measure_exfat),
    Signature("ReFS", "ReFS volume", 3, b"ReFS\0\0\0\0"),
    Signature("xfs", "XFS file system", 0, b"XFSB", measure=_measure_xfs),
    Signature("squashfs", "squashfs file system", 0, b"hsqs", measure=_measure_squashfs),
    Signature("cramfs", "cramfs file system", 0, b"\x45\x3d\xcd\x28"),
    Signature("LVM2_member", "physical volume of Linux LVM", 512, b"LABELONE", ((512 + 24, b"LVM2 001"),)),
    Signature("ext4", "ext file system", 0x438, b"\x53\xef", (), _ext, 0x400, 104, measure=_measure_ext),
    Signature("hfsplus", "HFS+ volume", 0x400, b"H+\0\x04"),
    Signature("hfsplus", "HFSX volume", 0x400, b"HX\0\x05"),
    *(
        Signature("ufs", f"UFS{version} file system", offset + 0x55C, magic)
        for version, offset, magics in (
            (1, 0x2000, (b"\x54\x19\x01\x00", b"\x00\x01\x19\x54")),
            (2, 0x10000, (b"\x19\x01\x54\x19", b"\x19\x54\x01\x19")),
        )
        for magic in magics
    ),
    Signature("apfs", "APFS container", 32, b"NXSB"),
    Signature("f2fs", "F2FS file system", 0x400, b"\x10\x20\xf5\xf2"),
    Signature("linux_raid_member", "member of a Linux RAID (metadata 1.2)", 4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    Signature("linux_raid_member", "member of a Linux RAID (metadata 1.1)", 0, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    *(
        Signature("swap", f"Linux swap space, pages of {page} bytes", page - 10, magic)
        for page in (4096, 8192, 16384, 65536)
        for magic in (b"SWAPSPACE2", b"SWAP-SPACE")
    ),
    Signature("btrfs", "Btrfs file system", 0x10040, b"_BHRfS_M"),
    Signature("zfs_member", "member of a ZFS pool", 0x20000, b"\x0c\xb1\xba\0\0\0\0\0"),
    Signature("zfs_member", "member of a ZFS pool", 0x20000, b"\0\0\0\0\0\xba\xb1\x0c"),
    Signature("udf", "UDF file system", 0x8001, b"BEA01"),
    Signature("elf", "ELF program", 0, b"\x7fELF", (), _elf, 0, 20, "data"),
    *(Signature(kind, name, offset, magic, content="data") for kind, name, offset, magic in _DATA),
    *(Signature(kind, name, offset, magic, content="disk") for kind, name, offset, magic in _DISKS),
)
"""Signatures of formats that this library does not read, in the order in which they are tried: near offsets first."""


class Format(Protocol):
    """Declarations of a module that reads a format."""

    @property
    def NAME(self) -> str:  # noqa: N802  # a module's constant, as those that follow
        """Name of the format in words."""
        ...

    @property
    def KIND(self) -> str:  # noqa: N802
        """Name in `Partition.kind`, `Layer.kind` or `Archive.kind`; for several kinds, their common part."""
        ...

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """Suffixes of the files' names, in lower case and with the dot, the most usual one first."""
        ...

    @property
    def MAGICS(self) -> tuple[Signature, ...]:  # noqa: N802
        """Signatures that identify the format by themselves; empty for a format that needs further checks."""
        ...

    @property
    def REFERENCES(self) -> tuple[str, ...]:  # noqa: N802
        """Sources of the facts about the format."""
        ...


def in_order(formats: Iterable[Format]) -> tuple[Signature, ...]:
    """Signatures of `formats`, which are read, and of `FOREIGN` ones, in the order in which they are tried."""
    declared = tuple(dict.fromkeys(signature for each in formats for signature in each.MAGICS))
    volumes = [each for each in (*FOREIGN, *declared) if each.content == "volume"]
    data = [each for each in (*declared, *FOREIGN) if each.content == "data"]
    disks = [each for each in (*declared, *FOREIGN) if each.content == "disk"]
    return (*volumes, *sorted(data, key=_offset), *sorted(disks, key=_offset))


def _offset(signature: Signature) -> int:
    return signature.offset


def first_match(
    signatures: Iterable[Signature], source: ReadAt, start: int = 0, size: int | None = None
) -> Match | None:
    """Match of the first signature that the content has, or None.

    A magic that passes the end of the source, or that is damaged, is not matched.

    Args:
        signatures: Signatures to look for, in this order.
        source: Source that holds the content.
        start: Bytes from the start of `source` to the content.
        size: Bytes in the content; None for up to the source's end.
    """

    @functools.cache
    def read(offset: int, length: int) -> bytes:
        if size is not None:
            length = min(length, max(0, size - offset))
        try:
            return read_up_to(source, start + offset, length)
        except CorruptImage:
            return b""

    head = read(0, _HEAD)
    for signature in signatures:

        def there(offset: int, expected: bytes) -> bool:
            end = offset + len(expected)
            return (head[offset:end] if end <= _HEAD else read(offset, len(expected))) == expected

        if there(signature.offset, signature.magic) and all(there(at, value) for at, value in signature.also):
            kind, name = signature.kind, signature.name
            if signature.refine is not None:
                part = read(signature.refine_offset, signature.refine_length)
                if len(part) == signature.refine_length:
                    kind, name = signature.refine(part)
            size = None if signature.measure is None else signature.measure(head)
            return Match(kind, name, signature.offset, signature.magic, signature.content, size)
    return None


def match_disk(signatures: Iterable[Signature], head: bytes, read_end: Callable[[int], bytes] | None) -> Match | None:
    """Match of the format of a source that is a virtual disk in a file; None where it is not one.

    Args:
        signatures: Signatures in the order in which they are tried; only those of disks count.
        head: First 512 bytes of the source, or fewer where it is shorter.
        read_end: Function that gives that many of its last bytes; None where they can't be had without decoding.
    """
    for signature in signatures:
        if signature.content == "disk" and head[signature.offset :].startswith(signature.magic):
            return Match(signature.kind, signature.name, signature.offset, signature.magic, "disk")
    # An Apple disk image begins with its data, compressed or not, and has its magic at the end.
    if read_end is not None and (end := read_end(_END)).startswith(_DMG):
        return Match("dmg", "Apple disk image (DMG)", 0, end[: len(_DMG)], "disk")
    return None


def likeness(source: ReadAt, match: Match | None) -> str | None:
    """Description of the likely content of a source that holds no volume; None where there is no sign of it.

    Args:
        source: The source, of which the first 8 KiB are examined.
        match: Match that `vmvisor_image.volumes.magics.match_signature` found in it, or None.
    """
    if match is not None:
        return match.name
    try:
        head = read_up_to(source, 0, _HEAD)
    except CorruptImage:
        head = b""
    if not any(head):
        what = "an empty disk, or one whose start was overwritten"
        return f"{what}: its first {len(head)} bytes are zeros" if head else None
    if (machine := _machine(head)) is not None:
        return machine
    if _is_text(head):
        return PAGE if _PAGE.match(head.removeprefix(codecs.BOM_UTF8)) else "text"
    if head.startswith(DOS_PROGRAM):
        return "a program for DOS or Windows"
    if len(head) == _HEAD and entropy(head) > _EVEN:
        return "encrypted or compressed data, or noise: its bytes are evenly spread"
    return None


def _machine(head: bytes) -> str | None:
    """Words for a file that describes a virtual machine, with the names of its disks; None for any other content."""
    if (match := _XML_MACHINE.match(head.removeprefix(codecs.BOM_UTF8))) is not None:
        if match[1] == b"domainsnapshot":
            step = "`vmvisor-image machines` shows it, `vmvisor-image info --snapshot NAME` reads a disk"
            return f"the description of a virtual machine's snapshot (libvirt's XML): {step}"
        kind = "OVF" if match[1] == b"Envelope" else "libvirt's domain XML"
        return f"the description of a virtual machine ({kind}): `vmvisor-image machines` lists its disks"
    found = {key.lower(): value for key, value in _SETTING.findall(head)}
    if b"snapshot.lastuid" in found and b"config.version" not in found:
        step = "`vmvisor-image machines` of the .vmx beside it shows them"
        return f"the list of a virtual machine's snapshots (.vmsd): {step}"
    if not {b"config.version", b"virtualhw.version"} <= found.keys():
        return None
    names = [value.decode("utf-8", "replace") for value in found.values() if value.lower().endswith(b".vmdk")]
    disks = f"its disks are in {', '.join(map(repr, names[:_MOST_DISKS]))}" if names else "it names no .vmdk"
    step = "`vmvisor-image machines` lists them, `vmvisor-image info` reads a disk"
    return f"the settings of a virtual machine (.vmx), and {disks}: {step}"


_SETTING: Final = re.compile(rb'^[ \t]*([.:\w]+)[ \t]*=[ \t]*"([^"\r\n]*)"', re.MULTILINE)
"""Line of a .vmx file: a key without regard to case, and a value in quotes."""
_XML_MACHINE: Final = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,1000}?-->\s*){0,3}<(?:[\w-]+:)?(Envelope|domain|domainsnapshot)[\s>]",
    re.DOTALL,
)
"""Start of the description of a virtual machine in XML: its root element, maybe behind comments."""
_MOST_DISKS: Final = 4
PAGE: Final = "a web page (HTML)"
"""Likeness of a page that was downloaded, or is read, instead of the image that it leads to."""
_PAGE: Final = re.compile(rb"\s*(<!--.{0,1000}?-->\s*)?<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
"""Start of a web page: a doctype or the root element (HTML Living Standard, 13.1), maybe behind a comment."""


def _is_text(head: bytes) -> bool:
    """Whether bytes decode as UTF-8, or as UTF-16 with a byte order mark, to printable characters and white space."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head.decode("utf-16", "replace")
    else:
        decoder = codecs.getincrementaldecoder("utf-8")()  # the last character may be cut
        try:
            text = decoder.decode(head.removeprefix(codecs.BOM_UTF8))
        except UnicodeDecodeError:
            return False
    return all(character.isprintable() or character in "\t\n\f\r" for character in text)


DOS_PROGRAM: Final = b"MZ"
_EVEN: Final = 7.9
"""Entropy in bits per byte above which bytes are evenly spread; 8 KiB of random bytes have 7.97."""
_HEAD: Final = 8192
"""Bytes that are read at once from the start; most magics are in them."""
