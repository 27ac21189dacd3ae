"""Small inputs that are built to do harm; what we and other programs say of each is in docs/gallery.md.

``GALLERY`` has the cases; ``said`` gives what we say of one.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import zstandard

from fuzz.exercise import Bounded
from tests.test_gpt import reseal
from tests.test_vmfs_files import descriptor_place, locate, patched, volume_of
from vmvisor_image import CorruptImage, FileTree, Image, LimitExceeded, NotAFileSystem, open_archive
from vmvisor_image.schemas.fat import BiosParameterBlock
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_modules import vmtar_archive
from vmvisor_image.testing.forge_virtual import qcow2_disk, vhd_disk, vmdk_disk
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import VmfsFile, vmfs_volume
from vmvisor_image.volumes.vmfs.volume import VmfsVolume

Form = Literal["fat", "disk", "archive", "iso", "vmfs"]
"""What it is, by which it is opened here and shown to other programs."""
SECTOR: Final = 512
_SHOWN: Final = 3


@dataclass(frozen=True)
class Case:
    """One hostile input."""

    name: str
    """In a few words."""
    form: Form
    build: Callable[[], bytes | SparseImage]
    says: str
    """What must be in what we say."""
    healthy: Mapping[str, bytes] = field(default_factory=dict)
    """Content by path of files that must stay readable; in a disk with partitions behind the partition's number."""


@dataclass
class Said:
    """What came out of reading everything."""

    read: dict[str, bytes | None] = field(default_factory=dict)
    """First bytes of each file by path; None where it could not be read."""
    messages: list[str] = field(default_factory=list)
    partitions: int = 0
    links: int = 0

    def text(self) -> str:
        """In one cell of a table."""
        good = sum(data is not None for data in self.read.values())
        parts = [f"{self.partitions} partition{'s' * (self.partitions != 1)}"] if self.partitions > 1 else []
        if self.read:
            parts.append(f"reads {good} of {len(self.read)} files")
        if self.links:
            parts.append(f"{self.links} link{'s' * (self.links != 1)}, not followed")
        unique = list(dict.fromkeys(self.messages))
        shown = [shorten(message) for message in unique[:_SHOWN]]
        if len(unique) > _SHOWN:
            shown.append(f"{len(unique) - _SHOWN} more")
        return "; ".join(parts + shown) or "nothing"


def shorten(message: str) -> str:
    """A message that fits a cell and has no character that a table or a terminal would take for its own."""
    plain = message.replace("|", "¦").encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    return plain if len(plain) <= 160 else plain[:150] + " [...]"


def said(case: Case) -> Said:
    """Read all that can be read of a case; an error that is not of the library comes out."""
    found = Said()
    source = Bounded(case.build())
    try:
        if case.form == "archive":
            archive = open_archive(source)
            _read_tree(archive, "", found)
            found.links = len(archive.links)
        else:
            with Image.open(source, threads=1) as image:
                _read_image(image, found)
    except (CorruptImage, LimitExceeded) as error:
        found.messages.append(str(error))
    return found


def _read_image(image: Image, found: Said) -> None:
    partitions = list(image.partitions)
    found.partitions = len(partitions)
    for partition in partitions:
        assert partition.explain()
        with contextlib.suppress(NotAFileSystem):
            _read_tree(partition.files, f"{partition.number}:" if len(partitions) > 1 else "", found)
        if isinstance(partition.volume, VmfsVolume):
            found.links += len(partition.volume.links)
    found.messages += map(str, image.problems)


def _read_tree(files: FileTree, prefix: str, found: Said) -> None:
    for file in itertools.islice(files.values(), 2000):
        try:
            _ = file.extents
            found.read[prefix + file.path] = file.read_at(0, min(file.size, 4096))
            file.read_at(max(0, file.size - 4096), min(file.size, 4096))
        except (CorruptImage, LimitExceeded) as error:
            found.read[prefix + file.path] = None
            found.messages.append(str(error))
    found.messages += map(str, files.problems)


# --- FAT


TREE: Final[dict[str, bytes]] = {
    "GOOD.TXT": b"healthy",
    "HURT.BIN": bytes(range(256)) * 10,
    "DIR/INNER.TXT": b"inner",
    "OTHER/LAST.TXT": b"last",
    "a long name to damage.txt": b"long",
}
GOOD: Final = {"GOOD.TXT": b"healthy", "DIR/INNER.TXT": b"inner", "OTHER/LAST.TXT": b"last"}
ALSO_BAD: Final = {**GOOD, "HURT.BIN": TREE["HURT.BIN"]}
_PARAMETERS: Final = {name: (part.offset, part.length) for part in BiosParameterBlock.layout() for name in [part.name]}


class Fat:
    """A small FAT12 volume, to be damaged."""

    def __init__(self, tree: Mapping[str, bytes] | None = None, **options: Any) -> None:
        volume = fat_volume(TREE if tree is None else tree, **{"sectors": 200, "root_entries": 64, **options})
        self.data = bytearray(volume.read_at(0, volume.size))
        block = BiosParameterBlock.parse(bytes(self.data))
        self.fat = SECTOR * block.reserved_sectors
        self.per_fat = SECTOR * block.sectors_per_fat_16
        self.root = self.fat + 2 * self.per_fat
        self.start = self.root + 32 * block.root_entries
        self.cluster_size = SECTOR * block.sectors_per_cluster

    def entry(self, name: bytes) -> int:
        """Where the entry with that raw short name lies."""
        return self.data.index(name.ljust(11), self.root)

    def cluster(self, name: bytes) -> int:
        return int.from_bytes(self.data[self.entry(name) + 26 : self.entry(name) + 28], "little")

    def place(self, name: bytes) -> int:
        """Where the first cluster of an entry lies."""
        return self.start + (self.cluster(name) - 2) * self.cluster_size

    def put(self, at: int, data: bytes) -> Fat:
        self.data[at : at + len(data)] = data
        return self

    def link(self, cluster: int, value: int) -> Fat:
        """Set the entry of a cluster in both FATs."""
        for copy in (self.fat, self.fat + self.per_fat):
            at = copy + cluster * 3 // 2
            pair = int.from_bytes(self.data[at : at + 2], "little")
            pair = pair & 0xF | value << 4 if cluster % 2 else pair & 0xF000 | value
            self.put(at, pair.to_bytes(2, "little"))
        return self

    def lead(self, name: bytes, cluster: int) -> Fat:
        """Set the first cluster of an entry."""
        return self.put(self.entry(name) + 26, cluster.to_bytes(2, "little"))

    def parameter(self, name: str, value: int) -> Fat:
        offset, length = _PARAMETERS[name]
        return self.put(offset, value.to_bytes(length, "little"))

    def long_name(self, name: bytes) -> Fat:
        """Write UTF-16 over the long name, which has two parts of 13 characters."""
        text = name if len(name) >= 52 else (name + b"\0\0").ljust(52, b"\xff")
        short = self.data.index(b"ALONGN~1TXT", self.root)
        for number in range(2):
            at, part = short - 32 * (number + 1), text[number * 26 : number * 26 + 26]
            self.put(at + 1, part[:10]).put(at + 14, part[10:22]).put(at + 28, part[22:])
        return self

    def done(self) -> bytes:
        return bytes(self.data)


def fat(change: Callable[[Fat], object], **options: Any) -> Callable[[], bytes]:
    def build() -> bytes:
        volume = Fat(**options)
        change(volume)
        return volume.done()

    return build


def cut(size: int) -> Callable[[], bytes]:
    return lambda: Fat().done()[:size]


def bad(step: int) -> Callable[[Fat], int]:
    return lambda volume: volume.cluster(b"HURT    BIN") + step


def long(name: str) -> Callable[[], bytes]:
    return fat(lambda v: v.long_name(name.encode("utf-16-le", "surrogatepass")))


def _copied_entry(volume: Fat, name: bytes, into: bytes) -> Fat:
    """An entry once more, as the third one in a directory."""
    at, to = volume.entry(name), volume.place(into) + 96
    return volume.put(to, bytes(volume.data[at : at + 32]))


def deep(depth: int) -> bytes:
    """Directories that have one entry each, the next one; a file is in the last."""
    volume = Fat({"GOOD.TXT": b"healthy", "D/F": b"deep"}, sectors=depth + 200)
    entry = bytearray(volume.data[volume.entry(b"D") :][:32])
    first, file = volume.cluster(b"D"), bytes(volume.data[volume.place(b"D") + 64 :][:32])
    for number in range(depth - 1):
        _set(entry, 26, (first + 1 + number).to_bytes(2, "little"))
        volume.link(first + number, 0xFFF).put(volume.start + (first + number - 2) * SECTOR + 64, bytes(entry))
    volume.put(volume.start + (first + depth - 3) * SECTOR + 64, file)
    return volume.link(first + depth - 1, 0xFFF).done()


def fat32(change: Callable[[bytearray], object]) -> Callable[[], bytes]:
    def build() -> bytes:
        volume = fat_volume(TREE, sectors=300, fat_bits=32)
        data = bytearray(volume.read_at(0, volume.size))
        change(data)
        return bytes(data)

    return build


def _set(data: bytearray, at: int, value: bytes) -> None:
    data[at : at + len(value)] = value


DIR, OTHER, GOOD_NAME, HURT_NAME = b"DIR", b"OTHER", b"GOOD    TXT", b"HURT    BIN"


FAT_CASES: Final = (
    Case("a chain that loops", "fat", fat(lambda v: v.link(bad(3)(v), bad(1)(v))), "passes a cluster twice", GOOD),
    Case("a chain that leads to itself", "fat", fat(lambda v: v.link(bad(1)(v), bad(1)(v))), "loops", GOOD),
    Case("two files with one chain", "fat", fat(lambda v: v.lead(HURT_NAME, v.cluster(GOOD_NAME))), "chain ends", GOOD),
    Case("a chain that joins another", "fat", fat(lambda v: v.link(bad(0)(v), v.cluster(OTHER))), "chain ends", GOOD),
    Case("a chain that ends early", "fat", fat(lambda v: v.link(bad(1)(v), 0xFFF)), "chain ends before", GOOD),
    Case("a chain into a free cluster", "fat", fat(lambda v: v.link(bad(1)(v), 0)), "free cluster", GOOD),
    Case("a chain into a bad cluster", "fat", fat(lambda v: v.link(bad(1)(v), 0xFF7)), "marked bad", GOOD),
    Case("a chain out of the volume", "fat", fat(lambda v: v.link(bad(1)(v), 0xFE0)), "does not exist", GOOD),
    Case("a file that begins nowhere", "fat", fat(lambda v: v.lead(HURT_NAME, 0)), "free cluster", GOOD),
    Case("a file that begins in cluster 1", "fat", fat(lambda v: v.lead(HURT_NAME, 1)), "does not exist", GOOD),
    Case("a file behind the last cluster", "fat", fat(lambda v: v.lead(HURT_NAME, 0xFFEF)), "does not exist", GOOD),
    Case("a file of 4 GB", "fat", fat(lambda v: v.put(v.entry(HURT_NAME) + 28, b"\xff" * 4)), "larger than the", GOOD),
    Case("a directory in itself", "fat", fat(lambda v: _copied_entry(v, DIR, DIR)), "has the clusters of 'DIR'", GOOD),
    Case(
        "two directories in each other",
        "fat",
        fat(lambda v: (_copied_entry(v, DIR, OTHER), _copied_entry(v, OTHER, DIR))),
        "has the clusters of",
        {"GOOD.TXT": b"healthy", "DIR/INNER.TXT": b"inner"},
    ),
    Case(
        "a directory that is the root",
        "fat",
        fat(lambda v: v.lead(DIR, 0)),
        "has the clusters of '/'",
        {"GOOD.TXT": b"healthy", "OTHER/LAST.TXT": b"last"},
    ),
    Case(
        "two directories in one cluster",
        "fat",
        fat(lambda v: v.lead(OTHER, v.cluster(DIR))),
        "has the clusters of",
        {"GOOD.TXT": b"healthy", "DIR/INNER.TXT": b"inner"},
    ),
    Case(
        "a directory whose chain loops",
        "fat",
        fat(lambda v: v.put(v.place(DIR) + 96, b"\xe5" * 416).link(v.cluster(DIR), v.cluster(DIR))),
        "loops",
        GOOD,
    ),
    Case(
        "a directory in the data of a file",
        "fat",
        fat(lambda v: v.lead(DIR, bad(0)(v))),
        "",
        {"GOOD.TXT": b"healthy", "OTHER/LAST.TXT": b"last"},
    ),
    Case("1,500 directories in each other", "fat", lambda: deep(1500), "", {"GOOD.TXT": b"healthy"}),
    Case("a name of a lone surrogate", "fat", long("x\ud800y"), "not valid UTF-16", ALSO_BAD),
    Case("a name of the wrong half of a pair", "fat", long("\udc00\ud800"), "not valid UTF-16", ALSO_BAD),
    Case("a name that is ..", "fat", long(".."), "", {**ALSO_BAD, "..": b"long"}),
    Case("a name that leads out", "fat", long("../../etc/passwd"), "", {**ALSO_BAD, "../../etc/passwd": b"long"}),
    Case("an absolute name", "fat", long("/etc/passwd"), "", {**ALSO_BAD, "/etc/passwd": b"long"}),
    Case("a name with a drive", "fat", long("C:\\boot.ini"), "", {**ALSO_BAD, "C:\\boot.ini": b"long"}),
    Case("a name with NUL in it", "fat", long("x.txt\0.exe"), "", {**ALSO_BAD, "x.txt": b"long"}),
    Case("a name that is a device", "fat", long("NUL.txt"), "", {**ALSO_BAD, "NUL.txt": b"long"}),
    Case("a name that ends in a dot", "fat", long("x.txt. "), "", {**ALSO_BAD, "x.txt. ": b"long"}),
    Case("a name of control characters", "fat", long("\x1b[2J\n"), "", {**ALSO_BAD, "\x1b[2J\n": b"long"}),
    Case("a name that reads backwards", "fat", long("\u202egpj.exe"), "", {**ALSO_BAD, "\u202egpj.exe": b"long"}),
    Case("a name of nothing", "fat", fat(lambda v: v.put(v.entry(HURT_NAME), b" " * 11)), "", GOOD),
    Case(
        "parts of a long name out of order",
        "fat",
        fat(lambda v: v.put(v.data.index(b"ALONGN~1TXT", v.root) - 32, b"\x05")),
        "the short name is used",
        ALSO_BAD,
    ),
    Case(
        "two files of one name",
        "fat",
        fat(lambda v: v.put(v.entry(HURT_NAME), GOOD_NAME)),
        "second entry",
        GOOD,
    ),
    Case(
        "a file with the name of a directory",
        "fat",
        fat(lambda v: v.put(v.entry(HURT_NAME), DIR.ljust(11))),
        "second entry",
        {"GOOD.TXT": b"healthy", "DIR/INNER.TXT": b"inner", "OTHER/LAST.TXT": b"last"},
    ),
    Case("a label that leads out", "fat", fat(lambda v: v.put(43, b"../../../.."), label="LABEL"), "", ALSO_BAD),
    Case("zero sectors per cluster", "fat", fat(lambda v: v.parameter("sectors_per_cluster", 0)), "are not valid"),
    Case("three sectors per cluster", "fat", fat(lambda v: v.parameter("sectors_per_cluster", 3)), "are not valid"),
    Case("zero bytes per sector", "fat", fat(lambda v: v.parameter("bytes_per_sector", 0)), "are not valid"),
    Case("513 bytes per sector", "fat", fat(lambda v: v.parameter("bytes_per_sector", 513)), "are not valid"),
    Case("no FAT", "fat", fat(lambda v: v.parameter("fat_count", 0)), "are not valid"),
    Case("255 FATs", "fat", fat(lambda v: v.parameter("fat_count", 255)), "are not valid"),
    Case("no reserved sector", "fat", fat(lambda v: v.parameter("reserved_sectors", 0)), "are not valid"),
    Case("65,535 reserved sectors", "fat", fat(lambda v: v.parameter("reserved_sectors", 65535)), "pass the"),
    Case("no sectors", "fat", fat(lambda v: v.parameter("total_sectors_16", 0)), "are not valid"),
    Case(
        "2³² - 1 sectors",
        "fat",
        fat(lambda v: v.parameter("total_sectors_16", 0).parameter("total_sectors_32", 0xFFFFFFFF)),
        "the volume has",
    ),
    Case("a FAT of no sectors", "fat", fat(lambda v: v.parameter("sectors_per_fat_16", 0)), "are not valid"),
    Case("a FAT of 65,535 sectors", "fat", fat(lambda v: v.parameter("sectors_per_fat_16", 65535)), "pass the"),
    Case("a root of 65,535 entries", "fat", fat(lambda v: v.parameter("root_entries", 65535)), "pass the"),
    Case("a directory of FFs", "fat", fat(lambda v: v.put(v.root + 32, b"\xff" * 1024)), "", {"GOOD.TXT": b"healthy"}),
    Case("FAT32: no root directory", "fat", fat32(lambda d: _set(d, 44, bytes(4))), "free cluster"),
    Case("FAT32: the root is behind the end", "fat", fat32(lambda d: _set(d, 44, b"\xff" * 4)), "does not exist"),
    Case(
        "FAT32: the root's chain loops",
        "fat",
        fat32(lambda d: _set(d, 32 * 512 + 8, b"\2\0\0\0")),
        "",
        {"GOOD.TXT": b"healthy"},
    ),
    Case("cut in the boot sector", "fat", cut(300), "less than one sector"),
    Case("cut in the FAT", "fat", cut(700), "pass the"),
    Case("cut in the root directory", "fat", cut(1600), "pass the"),
    Case("cut in the data", "fat", cut(5200), "which is missing", {"GOOD.TXT": b"healthy"}),
)


# --- partition tables


def small_fat(number: int) -> SparseImage:
    return fat_volume({"GOOD.TXT": b"in %d" % number}, sectors=60, root_entries=16)


def table(*changes: tuple[int, bytes], size: int | None = None) -> Callable[[], bytes]:
    """A disk with partition 1, extended partition 2, and 5 to 7 in it, changed and cut."""

    def build() -> bytes:
        places = {1: 64, 5: 256, 6: 384, 7: 512}
        parts = [ForgedPartition(n, 1, at, 60, content=small_fat(n)) for n, at in places.items()]
        disk = mbr_disk([*parts, ForgedPartition(2, 5, 224, 400)], sectors=640)
        data = bytearray(disk.read_at(0, disk.size))
        for at, value in changes:
            _set(data, at, value)
        return bytes(data[:size])

    return build


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def part(boot: int, kind: int, first: int, sectors: int) -> bytes:
    return bytes((boot, 0, 0, 0, kind, 0, 0, 0)) + u32(first) + u32(sectors)


def inside(*numbers: int) -> dict[str, bytes]:
    return {f"{number}:GOOD.TXT": b"in %d" % number for number in numbers}


EBR: Final = {5: 224 * SECTOR, 6: 352 * SECTOR, 7: 480 * SECTOR}
LINK: Final = 446 + 16
_BASIC: Final = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"


def endless_chain() -> bytes:
    """An extended boot record in each of 1,100 sectors, without an end."""
    sectors = [part(0, 5, 1, 1199).rjust(446 + 16, b"\0").ljust(510, b"\0") + b"\x55\xaa"]
    for number in range(1199):
        entries = part(0, 1, 1, 1) + part(0, 5, number + 1, 1)
        sectors.append((bytes(446) + entries).ljust(510, b"\0") + b"\x55\xaa")
    return b"".join(sectors)


def guid_table(
    *changes: tuple[int, bytes], both: bool = True, seal: bool = True, size: int | None = None
) -> Callable[[], bytes]:
    """Partitions 1 and 2, changed (offsets below 512 in the header, else in the entries), sealed again, and cut."""

    def build() -> bytes:
        from uuid import UUID

        kinds = UUID(_BASIC)
        parts = [GptPartition(n, kinds, at, 60, f"p{n}", content=small_fat(n)) for n, at in ((1, 64), (2, 128))]
        disk = gpt_disk(parts, sectors=300)
        data = bytearray(disk.read_at(0, disk.size))
        for header, entries in [(512, 1024), (299 * 512, 267 * 512)][: 2 if both else 1]:
            for at, value in changes:
                _set(data, header + at if at < 512 else entries + at - 512, value)
            if seal:
                reseal(data, header, entries)
        return bytes(data[:size])

    return build


def _many_entries() -> bytes:
    data = bytearray(guid_table()())
    for header, entries in ((512, 1024), (299 * 512, 267 * 512)):
        _set(data, entries, bytes(data[entries : entries + 128]) * 128)
        reseal(data, header, entries)
    return bytes(data)


TABLE_CASES: Final = (
    Case("EBR: the chain leads to itself", "disk", table((EBR[6] + LINK + 8, u32(128))), "loops", inside(1, 5, 6)),
    Case("EBR: the chain leads to its start", "disk", table((EBR[6] + LINK + 8, u32(0))), "loops", inside(1, 5, 6)),
    Case("EBR: a chain of 1,200 records", "disk", endless_chain, "goes on past 1024"),
    Case("EBR: a link behind the end", "disk", table((EBR[5] + LINK + 8, u32(1 << 31))), "past the end", inside(1, 5)),
    Case("EBR: a record of noise", "disk", table((EBR[6], b"\xa5" * 512)), "55 AA is missing", inside(1, 5)),
    Case(
        "EBR: four links in one record",
        "disk",
        table((EBR[5] + LINK + 16, part(0, 5, 1, 9) + part(0, 5, 2, 9))),
        "a second entry",
        inside(1, 5, 6, 7),
    ),
    Case(
        "EBR: a partition over the record",
        "disk",
        table((EBR[5] + 446 + 8, u32(0))),
        "",
        inside(1, 6, 7),
    ),
    Case("EBR: cut in the chain", "disk", table(size=EBR[6] + 100), "past the end", inside(1, 5)),
    Case(
        "MBR: two partitions overlap",
        "disk",
        table((446 + 32, part(0, 1, 80, 60))),
        "overlaps partition 1",
        inside(1, 5, 6, 7),
    ),
    Case("MBR: two extended partitions", "disk", table((446 + 32, part(0, 5, 480, 60))), "second ext", inside(1, 5)),
    Case("MBR: a partition of 2³² - 1 sectors", "disk", table((446 + 12, u32(0xFFFFFFFF))), "past the", inside(1, 5)),
    Case(
        "MBR: a partition behind the end", "disk", table((446 + 32, part(0, 6, 1 << 30, 99))), "past the", inside(1, 5)
    ),
    Case("MBR: an extended partition behind the end", "disk", table((446 + 24, u32(1 << 31))), "past the", inside(1)),
    Case("MBR: a GPT that is not there", "disk", table((446 + 4, b"\xee")), "EFI PART"),
    Case("GPT: 2³² - 1 entries", "disk", guid_table((80, u32(0xFFFFFFFF)), seal=False), "entries of 128 bytes are"),
    Case("GPT: entries of 2³¹ bytes", "disk", guid_table((84, u32(1 << 31)), seal=False), "a power of two"),
    Case("GPT: entries of 0 bytes", "disk", guid_table((84, u32(0)), seal=False), "a power of two"),
    Case("GPT: no entries", "disk", guid_table((80, u32(0)), seal=False), "entries_crc"),
    Case("GPT: entries at sector 2⁶³", "disk", guid_table((72, u64(1 << 63)), seal=False), "the disk ends"),
    Case("GPT: a header of 4 GB", "disk", guid_table((12, u32(0xFFFFFFFF)), both=False, seal=False), "header_size"),
    Case(
        "GPT: the backup is the primary", "disk", guid_table((32, u64(1)), both=False, size=150_000), "", inside(1, 2)
    ),
    Case("GPT: the backup is at sector 2⁶⁴ - 1", "disk", guid_table((32, b"\xff" * 8), both=False), "", inside(1, 2)),
    Case("GPT: a partition that ends before it starts", "disk", guid_table((552, u64(3))), "before its start"),
    Case("GPT: a partition of 2⁶⁴ sectors", "disk", guid_table((552, b"\xff" * 8)), "usable", inside(2)),
    Case("GPT: two partitions overlap", "disk", guid_table((552, u64(140))), "overlaps", inside(1, 2)),
    Case("GPT: 128 times the same partition", "disk", _many_entries, "overlaps"),
    Case("GPT: a name of lone surrogates", "disk", guid_table((568, b"\0\xd8\0\xdc\0\xdc")), "", inside(1, 2)),
)


# --- compressions and virtual disks


def bz2_bomb() -> bytes:
    """A disk and 920 MB of zeros behind it: blocks of 46 MB each, of which one is made."""
    one = bz2.compress(bytes(45_899_235), 9)
    return bz2.compress(DISK()) + one * 20


def gzip_bomb() -> bytes:
    """A disk and 64 MB of zeros behind it."""
    return gzip.compress(DISK() + bytes(1 << 26), mtime=0)


def zstd_bomb() -> bytes:
    """A disk and 1 GB of zeros behind it, in blocks that repeat one byte 131,072 times."""
    block = (1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\0"
    last = (1 | 1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\0"
    return zstandard.compress(DISK()) + b"\x28\xb5\x2f\xfd\x00\x38" + block * 8191 + last


def nested(compress: Callable[[bytes], bytes], times: int) -> bytes:
    data = bytes(1 << 16)
    for _ in range(times):
        data = compress(data)
    return data


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 0xFF,)) + data[at + 1 :]


DISK: Final = table()
EVERY_PART: Final = inside(1, 5, 6, 7)


def _xz_index() -> bytes:
    whole = lzma.compress(b"x" * 100)
    index = b"\0" + b"\xff" * 8 + b"\x7f" + bytes(2)
    index += zlib.crc32(index).to_bytes(4, "little")
    body = (len(index) // 4 - 1).to_bytes(4, "little") + whole[6:8]
    return whole[:-28] + index + zlib.crc32(body).to_bytes(4, "little") + body + b"YZ"


def _seek_table() -> bytes:
    frame = zstandard.compress(b"x" * 1000)
    tail = b"\xff\xff\xff\xff\0\xb1\xea\x92\x8f"
    return frame + b"\x5e\x2a\x4d\x18" + len(tail).to_bytes(4, "little") + tail


def _changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _qcow2(at: int, value: bytes) -> bytes:
    return _changed(qcow2_disk(DISK()), at, value)


def _backed() -> bytes:
    return _changed(_qcow2(8, (400).to_bytes(8, "big") + (11).to_bytes(4, "big")), 400, b"/etc/passwd")


def _vmdk(at: int, value: bytes) -> bytes:
    return _changed(vmdk_disk(DISK()), at, value)


def _small_tables() -> bytes:
    """The fields from the capacity on, to the entries in a table."""
    return u64(1 << 49) + u64(8) + bytes(16) + u32(1)


def _vhd(at: int, value: bytes) -> bytes:
    data = bytearray(_changed(vhd_disk(DISK()), at, value))
    _set(data, len(data) - 512, bytes(data[:512]))
    for start, length, place in ((0, 512, 64), (512, 1024, 36), (len(data) - 512, 512, 64)):
        _set(data, start + place, bytes(4))
        _set(data, start + place, (~sum(data[start : start + length]) & 0xFFFFFFFF).to_bytes(4, "big"))
    return bytes(data)


LAYER_CASES: Final = (
    Case("bzip2: a disk that goes on for 918 MB", "disk", bz2_bomb, "", EVERY_PART),
    Case("bzip2: in itself twelve times", "disk", lambda: nested(bz2.compress, 12), ""),
    Case("bzip2: a wrong checksum", "disk", lambda: flipped(bz2.compress(DISK()), 12), "CRC"),
    Case("bzip2: cut", "disk", lambda: bz2.compress(DISK())[:-20], ""),
    Case("bzip2: only a header", "disk", lambda: b"BZh91AY&SY", ""),
    Case("gzip: a disk that goes on for 64 MB", "disk", gzip_bomb, "", EVERY_PART),
    Case("gzip: a wrong checksum", "disk", lambda: flipped(gzip.compress(DISK(), mtime=0), -6), "", EVERY_PART),
    Case("gzip: a name without an end", "disk", lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * (1 << 20), ""),
    Case("gzip: in itself twelve times", "disk", lambda: nested(lambda d: gzip.compress(d, mtime=0), 12), ""),
    Case(
        "xz: a disk that goes on for 64 MB",
        "disk",
        lambda: lzma.compress(DISK() + bytes(1 << 26), preset=0),
        "",
        EVERY_PART,
    ),
    Case("xz: an index of 2⁶³ - 1 blocks", "disk", _xz_index, ""),
    Case("zstd: a disk that goes on for 1 GB", "disk", zstd_bomb, "", EVERY_PART),
    Case("zstd: a window of 2 TB", "disk", lambda: b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(64), ""),
    Case("zstd: a frame that says 2⁶⁴ - 1 bytes", "disk", lambda: b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + bytes(9), ""),
    Case("zstd: a seek table of 2³² frames", "disk", _seek_table, ""),
    Case("qcow2: 2⁶³ bytes", "disk", lambda: _qcow2(24, (1 << 63).to_bytes(8, "big")), "too few"),
    Case("qcow2: a table of 2³² - 1 entries", "disk", lambda: _qcow2(36, b"\xff" * 4), "more than the"),
    Case("qcow2: a table that is itself", "disk", lambda: _qcow2(512, (512).to_bytes(8, "big")), ""),
    Case("qcow2: clusters of 2³¹ bytes", "disk", lambda: _qcow2(20, (31).to_bytes(4, "big")), "cluster_bits"),
    Case("qcow2: it rests on /etc/passwd", "disk", _backed, "rests on another file"),
    Case("VMDK: 2⁶⁴ - 1 sectors", "disk", lambda: _vmdk(12, b"\xff" * 8), "capacity"),
    Case("VMDK: 2⁴⁹ sectors in tables of one", "disk", lambda: _vmdk(12, _small_tables()), "more than 4194304"),
    Case("VMDK: grains of no sectors", "disk", lambda: _vmdk(20, bytes(8)), "grain_size"),
    Case("VMDK: a directory behind the end", "disk", lambda: _vmdk(48, b"\xff\xff\xff\x7f" * 4), ""),
    Case(
        "VMDK: an extent that is /etc/passwd",
        "disk",
        lambda: b'# Disk DescriptorFile\nRW 64 FLAT "../../../etc/passwd" 0\n',
        "would lie elsewhere",
    ),
    Case("VMDK: 10¹⁸ sectors of zeros", "disk", lambda: b"# Disk DescriptorFile\nRW 999999999999999999 ZERO\n", ""),
    Case("VHD: blocks of no bytes", "disk", lambda: _vhd(512 + 32, bytes(4)), "not a valid block size"),
    Case("VHD: 2⁶⁴ - 1 bytes", "disk", lambda: _vhd(48, b"\xff" * 8), "blocks"),
)


# --- archives


def tar(*members: tuple[str, bytes, str, bytes], kind: int = tarfile.GNU_FORMAT) -> Callable[[], bytes]:
    """Members of a name, a type, a target and content, with a healthy one before and after."""

    def build() -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for name, flag, target, data in (
                ("first", tarfile.REGTYPE, "", b"healthy"),
                *members,
                ("last", tarfile.REGTYPE, "", b"healthy"),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.size = flag, target, len(data)
                archive.addfile(info, io.BytesIO(data))
        return file.getvalue()

    return build


def resummed(data: bytes, at: int, offset: int, value: bytes) -> bytes:
    """A tar with a field of the header at `at` changed, and the checksum right again."""
    block = bytearray(data[at : at + 512])
    _set(block, offset, value)
    _set(block, 148, b" " * 8)
    _set(block, 148, b"%06o\0 " % sum(block))
    return data[:at] + bytes(block) + data[at + 512 :]


def zipped(*members: tuple[str, int, bytes], way: int = zipfile.ZIP_DEFLATED) -> Callable[[], bytes]:
    """Members of a name, a mode and content, with a healthy one before and after."""

    def build() -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, mode, data in (("first", 0o100644, b"healthy"), *members, ("last", 0o100644, b"healthy")):
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, mode << 16
                archive.writestr(info, data, way)
        return file.getvalue()

    return build


def overlapping_zip() -> bytes:
    """A directory of a hundred entries, all of one member of 2 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("bomb00"), bytes(2_000_000), zipfile.ZIP_DEFLATED)
    data = file.getvalue()
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entries = b"".join(data[start:end].replace(b"bomb00", b"bomb%02d" % n) for n in range(100))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 100, 100, len(entries), start, 0)
    return data[:start] + entries + tail


BOTH: Final = {"first": b"healthy", "last": b"healthy"}
FILE_MODE, LINK_MODE = 0o100644, 0o120777
REG, SYM, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def _pax_size() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("first", {}), ("x", {"size": "9999999999999999999"})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 7, headers
            archive.addfile(info, io.BytesIO(b"healthy"))
    return file.getvalue()


def _sparse() -> bytes:
    data = resummed(tar(("x", REG, "", b"x" * 512))(), 1024, 156, b"S")
    entry = b"77777777000\0" + b"00000001000\0"
    data = resummed(data, 1024, 386, entry)
    return resummed(data, 1024, 483, b"77777777777\0")


def _vmtar() -> bytes:
    return vmtar_archive({"first": b"healthy", "second": b"healthy"})


def _damaged_link() -> bytes:
    data = bytearray(zipped(("out", LINK_MODE, b"/a/rather/long/target"), way=zipfile.ZIP_DEFLATED)())
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    _set(data, at + 16, b"\xde\xad\xbe\xef")
    return bytes(data)


def _zip_size(size: int) -> bytes:
    data = bytearray(zipped(("x", FILE_MODE, bytes(10_000_000)))())
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    _set(data, at + 24, u32(size))
    return bytes(data)


def _zip_count() -> bytes:
    data = bytearray(zipped()())
    _set(data, data.index(b"PK\5\6") + 8, b"\xff\xff\xff\xff")
    return bytes(data)


def _directory_bomb() -> bytes:
    """Zeros that end as a zip with a directory of 300 MB."""
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 9, 9, 300_000_000, 4, 0)
    pack = zlib.compressobj(wbits=31)
    parts = [pack.compress(b"PK\3\4")] + [pack.compress(bytes(1_000_000)) for _ in range(300)]
    return b"".join([*parts, pack.compress(tail), pack.flush()])


def _encrypted() -> bytes:
    data = bytearray(zipped(("x", FILE_MODE, b"secret"))())
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[at + 8] |= 1
    return bytes(data)


def _ar(name: bytes, size: bytes) -> bytes:
    head = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8) + size.ljust(10) + b"`\n"
    return b"!<arch>\n" + head + b"data"


ARCHIVE_CASES: Final = (
    Case("tar: a name that leads out", "archive", tar(("../../x", REG, "", b"x")), "", BOTH),
    Case("tar: an absolute name", "archive", tar(("/etc/passwd", REG, "", b"x")), "", BOTH),
    Case(
        "tar: a link out, and a file through it",
        "archive",
        tar(("out", SYM, "/tmp", b""), ("out/evil", REG, "", b"x")),
        "",
        BOTH,
    ),
    Case("tar: a link to ..", "archive", tar(("out", SYM, "../..", b"")), "", BOTH),
    Case("tar: a hard link to /etc/passwd", "archive", tar(("out", HARD, "/etc/passwd", b"")), "", BOTH),
    Case("tar: a hard link to itself", "archive", tar(("me", HARD, "me", b"")), "", BOTH),
    Case("tar: two hard links to each other", "archive", tar(("a", HARD, "b", b""), ("b", HARD, "a", b"")), "", BOTH),
    Case(
        "tar: a file in the place of a directory",
        "archive",
        tar(("d/x", REG, "", b"1"), ("d", REG, "", b"2")),
        "",
        BOTH,
    ),
    Case("tar: a device", "archive", tar(("sda", tarfile.BLKTYPE, "", b"")), "", BOTH),
    Case("tar: a name of 65,000 characters", "archive", tar(("d/" * 32_500 + "f", REG, "", b"x")), "", BOTH),
    Case(
        "tar: a size of 8 GB",
        "archive",
        lambda: resummed(tar(("x", REG, "", b"x"))(), 1024, 124, b"77777777777\0"),
        "ends within",
        {"first": b"healthy"},
    ),
    Case(
        "tar: a size below zero",
        "archive",
        lambda: resummed(tar(("x", REG, "", b"x"))(), 1024, 124, b"\xff" * 12),
        "negative",
        BOTH,
    ),
    Case(
        "tar: a size that is not a number",
        "archive",
        lambda: resummed(tar(("x", REG, "", b"x"))(), 1024, 124, b"9" * 12),
        "not a number",
        BOTH,
    ),
    Case(
        "tar: a mode that is not a number",
        "archive",
        lambda: resummed(tar(("x", REG, "", b"x"))(), 1024, 100, b"zzzzzzz\0"),
        "not a number",
        BOTH,
    ),
    Case("tar: a pax header that says 10¹⁹ bytes", "archive", _pax_size, "", {"first": b"healthy"}),
    Case("tar: a sparse file of 8 GB", "archive", _sparse, "", {"first": b"healthy"}),
    Case(
        "vmtar: data behind the end",
        "archive",
        lambda: resummed(_vmtar(), 0, 496, u32(0x7FFFFFFF)),
        "",
        {"second": b"healthy"},
    ),
    Case("vmtar: data that is the headers", "archive", lambda: resummed(_vmtar(), 0, 496, u32(0)), ""),
    Case("zip: a name that leads out", "archive", zipped(("../../x", FILE_MODE, b"x")), "", BOTH),
    Case("zip: an absolute name", "archive", zipped(("/etc/passwd", FILE_MODE, b"x")), "", BOTH),
    Case("zip: a name with backslashes", "archive", zipped(("..\\..\\x", FILE_MODE, b"x")), "", BOTH),
    Case(
        "zip: a link out, and a file through it",
        "archive",
        zipped(("out", LINK_MODE, b"/tmp"), ("out/evil", FILE_MODE, b"x")),
        "",
        BOTH,
    ),
    Case("zip: a damaged link", "archive", _damaged_link, "not what the directory", BOTH),
    Case("zip: 2 MB a hundred times", "archive", overlapping_zip, ""),
    Case("zip: 10 MB that say 4 GB", "archive", lambda: _zip_size(0xFFFFFFF0), "", BOTH),
    Case("zip: 10 MB that say 10 bytes", "archive", lambda: _zip_size(10), "not what the directory", BOTH),
    Case("zip: 65,535 members, three there", "archive", _zip_count, ""),
    Case("zip: a directory of 4 GB in a bomb", "archive", _directory_bomb, "which is not read"),
    Case("zip: an encrypted member", "archive", _encrypted, "encrypted", BOTH),
    Case("zip: cut in the directory", "archive", lambda: zipped()()[:-30], ""),
    Case("ar: a member of 10 GB", "archive", lambda: _ar(b"x", b"9999999999"), ""),
    Case("ar: a name longer than its data", "archive", lambda: _ar(b"#1/60000", b"4"), "longer than its data"),
    Case("ar: a size that is not a number", "archive", lambda: _ar(b"x", b"-5"), "not a number"),
)


# --- ISO 9660


def iso(change: Callable[[bytearray], object], *, rock_ridge: bool = True, **links: str) -> Callable[[], bytes]:
    def build() -> bytes:
        files = {"GOOD.TXT": b"healthy", "DIR/INNER.TXT": b"inner", "DIR/SUB/DEEP.TXT": b"deep"}
        data = bytearray(iso_volume(files, links=links, rock_ridge=rock_ridge))
        change(data)
        return bytes(data)

    return build


PRIMARY, ROOT = 16 * 2048, 18 * 2048


def _iso_extent(data: bytearray, name: bytes, block: int) -> None:
    at = data.index(b"NM" + bytes((5 + len(name), 1, 0)) + name)
    start = next(s for s in range(at - 33, at - 50, -1) if s + 33 + data[s + 32] + (1 - data[s + 32] % 2) == at)
    _set(data, start + 2, u32(block) + block.to_bytes(4, "big"))


def _many_extents(data: bytearray) -> None:
    """A root directory of records that each go on with the next one."""
    at, count = len(data), 60_000
    record = bytearray(bytes((34, 0)) + u32(18) + bytes(4) + u32(1) + bytes(4) + bytes(7) + b"\x80\0\0\1\0\0\1\1X")
    record[32:34] = b"\1X"
    sector = (bytes(record) * (2048 // 34)).ljust(2048, b"\0")
    data += sector * (count // (2048 // 34))
    _set(data, PRIMARY + 158, u32(at // 2048))
    _set(data, PRIMARY + 166, u32(len(data) - at))


def _endless_continuation(data: bytearray) -> None:
    """A system use area that goes on with itself."""
    at = data.index(b"NM\x0d\x01\x00GOOD.TXT")
    body = b"".join(n.to_bytes(4, "little") + n.to_bytes(4, "big") for n in (ROOT // 2048, at - ROOT, 28))
    _set(data, at, b"CE" + bytes((28, 1)) + body)


ISO_GOOD: Final = {"GOOD.TXT": b"healthy"}


def _iso_dir(data: bytearray) -> int:
    """The block of DIR."""
    at = data.index(b"NM\x08\x01\x00DIR")
    start = next(s for s in range(at - 33, at - 50, -1) if s + 33 + data[s + 32] + (1 - data[s + 32] % 2) == at)
    return int.from_bytes(data[start + 2 : start + 6], "little")


ISO_CASES: Final = (
    Case(
        "ISO: a directory in itself",
        "iso",
        iso(lambda d: _iso_extent(d, b"SUB", _iso_dir(d))),
        "again and is left",
        ISO_GOOD,
    ),
    Case(
        "ISO: a directory that is the root", "iso", iso(lambda d: _iso_extent(d, b"DIR", 18)), "again and is", ISO_GOOD
    ),
    Case("ISO: a directory behind the end", "iso", iso(lambda d: _iso_extent(d, b"DIR", 1 << 31)), "it ends", ISO_GOOD),
    Case("ISO: a root of 4 GB", "iso", iso(lambda d: _set(d, PRIMARY + 166, b"\xff" * 4)), "only the first", ISO_GOOD),
    Case("ISO: a root behind the end", "iso", iso(lambda d: _set(d, PRIMARY + 158, b"\xff" * 4)), "it ends"),
    Case("ISO: blocks of no bytes", "iso", iso(lambda d: _set(d, PRIMARY + 128, bytes(2))), "block_size"),
    Case("ISO: a path table of no bytes", "iso", iso(lambda d: _set(d, PRIMARY + 132, bytes(8))), "", ISO_GOOD),
    Case("ISO: no descriptor", "iso", iso(lambda d: _set(d, PRIMARY, b"\xff")), "no primary"),
    Case(
        "ISO: 64 descriptors and no end",
        "iso",
        iso(lambda d: _set(d, PRIMARY + 2048, bytes(d[PRIMARY : ROOT - 2048]))),
        "",
        ISO_GOOD,
    ),
    Case("ISO: a marker of Rock Ridge cut short", "iso", iso(lambda d: _set(d, ROOT, b"\x28")), ""),
    Case("ISO: a record of FFs", "iso", iso(lambda d: _set(d, ROOT + 500, b"\xff" * 100)), ""),
    Case("ISO: system use that goes on in itself", "iso", iso(_endless_continuation), "more continuation areas than"),
    Case("ISO: one file of 60,000 extents", "iso", iso(_many_extents), ""),
    Case("ISO: a link out", "iso", iso(lambda d: None, out="../../../etc/passwd"), "", ISO_GOOD),
    Case(
        "ISO: a name that leads out",
        "iso",
        iso(lambda d: _set(d, d.index(b"GOOD.TXT"), b"../../xx")),
        "",
        {"../../xx": b"healthy"},
    ),
    Case("ISO: cut in a directory", "iso", lambda: iso(lambda d: None)()[: ROOT + 100], ""),
)


# --- VMFS


VMFS_TREE: Final[dict[str, Any]] = {
    "good": b"healthy",
    "bad": VmfsFile(size=3 << 20, pieces=((0, b"1"), (1 << 20, b"2")), pointers="pointer blocks"),
    "folder/inner": b"inner",
}
VMFS_GOOD: Final = {"good": b"healthy"}


def vmfs(change: Callable[[SparseImage], SparseImage]) -> Callable[[], SparseImage]:
    return lambda: change(vmfs_volume(VMFS_TREE, "vmfs5", size=EXTENT_SIZE + DATA_OFFSET)[0])


def _descriptor(at: int, value: bytes) -> Callable[[SparseImage], SparseImage]:
    return lambda device: patched(device, descriptor_place(device, "bad") + at, value)


def _vmfs_entry(address: int, name: bytes = b"folder\0") -> Callable[[SparseImage], SparseImage]:
    def change(device: SparseImage) -> SparseImage:
        with Image.open(device) as image:
            (extent,) = locate(volume_of(image), 4)
        at = device.read_at(extent.offset, extent.length).index(name) - 12
        return patched(device, extent.offset + at + 4, u32(address))

    return change


def _pointer_table(device: SparseImage) -> tuple[int, bytes]:
    """Where the block of pointers of the file lies, and the pointer to it."""
    pointer = device.read_at(descriptor_place(device, "bad") + 1024, 4)
    with Image.open(device) as image:
        blocks, _ = volume_of(image)._opened()
        number = int.from_bytes(pointer, "little")
        run = blocks.locate_table(number)
    assert run.start is not None
    return run.start + DATA_OFFSET, pointer


def _pointer_cycle(device: SparseImage) -> SparseImage:
    at, pointer = _pointer_table(device)
    return patched(device, at, pointer * 2)


def _one_pointer(device: SparseImage) -> SparseImage:
    at = descriptor_place(device, "bad") + 1024
    return patched(device, at, device.read_at(at, 4) * 256)


def _vmfs_name(device: SparseImage) -> SparseImage:
    with Image.open(device) as image:
        (extent,) = locate(volume_of(image), 4)
    at = device.read_at(extent.offset, extent.length).index(b"bad\0")
    return patched(device, extent.offset + at, b"../../x\0")


VMFS_CASES: Final = (
    Case("VMFS: a directory that is the root", "vmfs", vmfs(_vmfs_entry(4)), "again and is left out", VMFS_GOOD),
    Case("VMFS: pointers that lead to themselves", "vmfs", vmfs(_pointer_cycle), "", VMFS_GOOD),
    Case("VMFS: all pointers are one", "vmfs", vmfs(_one_pointer), "", VMFS_GOOD),
    Case("VMFS: a pointer behind the end", "vmfs", vmfs(_descriptor(1024, b"\xff\xff\xff\xff")), "", VMFS_GOOD),
    Case("VMFS: a file of 2⁶² bytes", "vmfs", vmfs(_descriptor(512 + 20, u64(1 << 62))), "", VMFS_GOOD),
    Case("VMFS: a descriptor of another file", "vmfs", vmfs(_descriptor(512, b"\xff" * 4)), "bad: ", VMFS_GOOD),
    Case(
        "VMFS: the descriptors are gone",
        "vmfs",
        vmfs(lambda d: patched(d, 0x400000 + DATA_OFFSET, bytes(32))),
        "neither in",
    ),
    Case("VMFS: a name that leads out", "vmfs", vmfs(_vmfs_name), "", VMFS_GOOD),
)


GALLERY: Final = (*TABLE_CASES, *FAT_CASES, *LAYER_CASES, *ARCHIVE_CASES, *ISO_CASES, *VMFS_CASES)
