"""FAT12, FAT16 and FAT32 volumes.

pyfatfs decodes the directory entries (`vmvisor_image.volumes.fat.entries`); the disk is read only here, by a
geometry that is checked against the partition first: see docs/adr/0003.

Sources: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103); where practice differs (the kind of FAT by
`BPB_FATSz16`), the Linux kernel's fs/fat, as in mkfs.fat and mtools.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Final

from vmvisor_image.base.names import fold_name, printable
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.files.file import Directory, Extent, File, FileHome, PartialListing
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.schemas.fat import (
    SIGNATURE,
    VMWARE_MAGIC,
    BiosParameterBlock,
    DirectoryEntry,
    Fat16BootSector,
    Fat32BootSector,
    FileSystemInformation,
    VmwareMarker,
)
from vmvisor_image.schemas.vmfs import vmfs_uuid
from vmvisor_image.streams.reading import read_healthy
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.views import Slice
from vmvisor_image.volumes.fat.chains import FIRST_CLUSTER, FileAllocationTable, Geometry
from vmvisor_image.volumes.fat.check import MOST_CLUSTERS, ChainStart, ClusterMap, compare, problems_of
from vmvisor_image.volumes.fat.entries import EntryReader, ParsedEntry
from vmvisor_image.volumes.figures import Difference, FatFigures, FreeSummary
from vmvisor_image.volumes.role import Evidence
from vmvisor_image.volumes.volume import (
    Allocation,
    BaseVolume,
    BootMedium,
    Hints,
    VolumeCheck,
    VolumeEvidence,
    volume_repr,
)

NAME: Final = "FAT12, FAT16 and FAT32"
KIND: Final = "fat"
SUFFIXES: Final = ()
MAGICS: Final = ()
REFERENCES: Final = ("Microsoft, FAT32 File System Specification 1.03", "Linux, fs/fat")
BOOT_SECTOR: Final = 512
_FAT12_CLUSTERS: Final = 4085
"""Fewer clusters than this make FAT12 (fatgen103: "This is the one and only way that FAT type is determined")."""
_MOST_PROBLEMS: Final = 100_000
"""Most problems that are kept; further ones are only counted."""
_MOST_CLUSTERS: Final = {12: 4084, 16: 65524, 32: 0x0FFFFFF5}
"""Most clusters by bits of an entry: the last number is below the mark of bad clusters, ...F7."""
_LARGEST_DIRECTORY: Final = 65536 * 32
"""Most bytes of a directory: fatgen103 allows 65,536 entries."""
_TYPE_NAMES: Final = (54, 82)
"""Offsets of the text "FAT" in boot sectors of FAT12 and FAT16, and of FAT32; it does not decide the kind."""
_DIRTY: Final = 0x01
"""Bit in the boot sector's byte after the drive number: not unmounted (Linux's fs/fat, fsck.fat)."""
_CLEAN_FLAGS: Final = {16: (0x8000, 0x4000), 32: (0x08000000, 0x04000000)}
"""Bits in FAT[1], not in FAT12: cleanly unmounted, no disk error (fatgen103, "FAT Data Structure")."""
_PIECE: Final = 1 << 20
_UNKNOWN_FREE: Final = 0xFFFFFFFF
_NO_LABEL: Final = b"NO NAME    "


def is_boot_sector(sector: bytes) -> bool:
    """Whether 512 bytes are the boot sector of a FAT volume, by its parameter block, not by its signature."""
    if len(sector) < BOOT_SECTOR:
        return False
    block = BiosParameterBlock.parse(sector)
    return (
        block.jump[0] in (0xEB, 0xE9)
        and block.bytes_per_sector in (512, 1024, 2048, 4096)
        and block.sectors_per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
        and block.reserved_sectors > 0
        and block.fat_count in (1, 2)
        and is_media(block.media)
        and (block.total_sectors_16 > 0 or block.total_sectors_32 > 0)
        and (block.root_entries > 0) == (block.sectors_per_fat_16 > 0)
    )


def is_media(value: int) -> bool:
    """Whether a byte is a valid kind of media (fatgen103, ``BPB_Media``)."""
    return value == 0xF0 or value >= 0xF8


def is_named_fat(sector: bytes) -> bool:
    """Whether a sector has the name of FAT in the place of a boot sector, even if its fields are not valid."""
    return any(sector[at : at + 3] == b"FAT" for at in _TYPE_NAMES)


def probe(disk: ReadAt, start: int, size: int, _hints: Hints, /) -> bool:
    """Whether the partition of `size` bytes from byte `start` of `disk` holds a FAT volume.

    Raises:
        TruncatedImage: The disk ends before its boot sector does.
    """
    return size >= BOOT_SECTOR and is_boot_sector(disk.read_at(start, BOOT_SECTOR))


class FatVolume(BaseVolume):
    """A FAT volume in a partition."""

    boot_medium: BootMedium | None = "disk"

    def __init__(self, disk: ReadAt, start: int, size: int, home: FileHome) -> None:
        """A volume by its boot sector, which is read.

        Args:
            disk: The decoded disk.
            start: First byte of the partition.
            size: Bytes in the partition.
            home: Container of the volume's files, through which they are read.

        Raises:
            CorruptImage: The boot sector contradicts itself or the partition's size.
        """
        self._start = start
        self._source = Slice(disk, start, size, "FAT volume")
        self._home = home
        self._problems = ProblemList("FAT volume", _MOST_PROBLEMS)
        sector = self._source.read_at(0, BOOT_SECTOR)
        block = BiosParameterBlock.parse(sector, base=start)
        kind: type[Fat16BootSector | Fat32BootSector] = Fat16BootSector if block.sectors_per_fat_16 else Fat32BootSector
        self.boot_sector: Fat16BootSector | Fat32BootSector = kind.parse(sector, base=start)
        """Boot sector as it is on disk."""
        if self.boot_sector.signature != SIGNATURE:
            self._note(510, "signature: 55 AA is missing")
        self.geometry = self._checked_geometry(size)
        """Places of the volume's parts."""
        self._fat = FileAllocationTable(self._source, start, self.geometry)
        self._entries = EntryReader(fat32=self.geometry.bits == 32)
        self._claims: dict[int, str] = {}
        self._claimed_by: dict[str, int] = {}
        """Bytes from the start of the decoded disk to the entry of each listed directory, by its path."""
        self._dots: dict[str, dict[int, ParsedEntry]] = {}
        """Entries "." and ".." of each listed directory, by its path and bytes from the directory's start."""
        self._oddities = ProblemList("FAT volume", _MOST_PROBLEMS)
        """Faults in the listed directories that hide no data: only `check` reports them."""
        self._label: str | None = None
        self._label_read = False
        root_cluster = self.geometry.root_cluster
        self._claims[root_cluster] = ""
        root = Directory("", None, lambda: self._list("", root_cluster, start), fold_case=True)
        self.files = FileTree(root, lambda: self.problems, fold_case=True, home=home)
        """Files of the volume."""

    @property
    def kind(self) -> str:
        """Kind of FAT: "fat12", "fat16" or "fat32"."""
        return f"fat{self.geometry.bits}"

    def __repr__(self) -> str:
        return volume_repr(self, self._label, self._start)

    @property
    def own_size(self) -> int:
        """See `BaseVolume.own_size`: the boot sector's count of sectors."""
        boot = self.boot_sector
        return (boot.total_sectors_16 or boot.total_sectors_32) * boot.bytes_per_sector

    @property
    def label(self) -> str | None:
        """Label in the root directory, or None; see docs/partitions.md for the one in the boot sector."""
        if not self._label_read:
            next(self.files.root.iterdir(), None)
            self._label_read = True
        return self._label

    @property
    def boot_sector_label(self) -> str | None:
        """Copy of the label in the boot sector, which may be that of a removed or changed label; None without one."""
        raw = self.boot_sector.volume_label
        if self.boot_sector.extended_signature != 0x29 or raw == _NO_LABEL:  # see the schema
            return None
        return self._entries.decode(raw).rstrip(" \0") or None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return self._problems.found

    @property
    def marker(self) -> VmwareMarker | None:
        """VMware's marker, by which `safeboot` recognises a boot bank; None where it is missing or can't be read."""
        if self.boot_sector.reserved_sectors < 2:
            return None
        offset = self.boot_sector.bytes_per_sector
        try:
            data = self._source.read_at(offset, VmwareMarker.length())
        except CorruptImage as error:
            self._problems.add(Problem.of(error))
            return None
        found = VmwareMarker.parse(data, base=self._start + offset)
        return found if found.magic == VMWARE_MAGIC else None

    @property
    def records(self) -> Mapping[str, Record]:
        """The boot sector, and the marker where there is one."""
        marker = self.marker
        found: dict[str, Record] = {"FAT boot sector": self.boot_sector}
        return found if marker is None else {**found, "VMware marker": marker}

    @property
    def facts(self) -> Mapping[str, str]:
        """Statements of the boot sector and the marker, in words, by name."""
        found = {
            "cluster size": f"{self.geometry.cluster_size} bytes",
            "clusters": str(self.geometry.cluster_count),
        }
        boot = self.boot_sector
        if boot.extended_signature == 0x29:
            found["serial number"] = f"{boot.volume_id >> 16:04X}-{boot.volume_id & 0xFFFF:04X}"
        if self.boot_sector_label not in (None, self.label):
            found["label in the boot sector"] = printable(str(self.boot_sector_label))
        marker = self.marker
        return found if marker is None else {**found, "boot bank UUID": vmfs_uuid(marker.uuid)}

    def locate(self, token: tuple[int, int, int]) -> tuple[Extent, ...]:
        """Extents of a file on the disk, neighbouring clusters merged.

        Args:
            token: First cluster, size in bytes, and offset of the directory entry on the disk.

        Raises:
            CorruptImage: The chain is shorter than the file, loops, or leaves the volume.
        """
        first_cluster, size, entry_offset = token
        if size == 0:
            return ()
        geometry = self.geometry
        needed = -(-size // geometry.cluster_size)
        if needed > geometry.cluster_count:
            raise CorruptImage(
                "the file is larger than the volume",
                structure="FAT directory entry",
                field="file_size",
                offset=entry_offset,
                expected=f"at most {geometry.cluster_count * geometry.cluster_size}",
                found=size,
            )
        extents: list[Extent] = []
        left = size
        for cluster, count in self._fat.runs(first_cluster, needed, entry_offset):
            length = min(left, count * geometry.cluster_size)
            extents.append(Extent(self._start + self._cluster_offset(cluster), length))
            left -= length
        ordered = sorted(extents, key=lambda extent: extent.offset)
        for extent, following in itertools.pairwise(ordered):
            if following.offset < extent.offset + extent.length:
                raise CorruptImage(
                    f"the chain passes a cluster twice (its bytes start at {following.offset:#x})",
                    structure="FAT cluster chain",
                    offset=entry_offset,
                )
        return tuple(extents)

    @property
    def end(self) -> int:
        """Bytes from the start of the decoded disk to the end, exclusive, of the last cluster."""
        return self._start + self._cluster_offset(self.geometry.present_count + FIRST_CLUSTER)

    @property
    def boot_uuid(self) -> bytes | None:
        """UUID of VMware's marker, as in ``bootUUID=`` on the kernel's command line; None without a marker."""
        marker = self.marker
        return None if marker is None else marker.uuid

    def evidence(self, _name: str | None, /) -> VolumeEvidence:
        """See `BaseVolume.evidence`; only other parts of the disk determine its role."""
        label = self.label
        text = f"it holds a {self.kind} volume" + (f" with the label {label!r}" if label else "")
        found = [Evidence(text, self.boot_sector.source_offset)]
        marker = self.marker
        if marker is not None:
            found.append(Evidence("it has VMware's marker 'VMWARE FAT16'", marker.source_offset))
        return VolumeEvidence(tuple(found))

    def check(self) -> VolumeCheck:
        """Result of comparing the allocation table with the files and directories, and its copies with each other.

        Lists every directory, and reads every copy of the table.

        Raises:
            LimitExceeded: There are too many files.
        """
        try:
            figures, free_runs = self._figures()
        except CorruptImage as error:
            return VolumeCheck((Problem.of(error),))
        return VolumeCheck(
            tuple(problems_of(figures, self._start)),
            Allocation(figures.cluster_size, self.end, free_runs),
            fat=figures,
        )

    def _figures(self) -> tuple[FatFigures, Iterator[tuple[int, int]]]:
        """Figures of `check`, and the free clusters.

        Returns:
            The figures; and offset on the decoded disk and bytes of each run of free clusters, by place, as an
            iterator, as there may be millions.

        Raises:
            CorruptImage: A table can't be read, or there are more than `MOST_CLUSTERS` clusters.
            LimitExceeded: There are too many files.
        """
        geometry = self.geometry
        if geometry.cluster_count > MOST_CLUSTERS:
            raise CorruptImage(
                "its clusters are too many to be checked",
                structure="FAT",
                offset=self._start + geometry.fat_offset,
                expected=f"at most {MOST_CLUSTERS}",
                found=geometry.cluster_count,
            )
        files = list(self.files.all_files())  # this lists the directories
        self._check_flags()
        self._check_dots()
        for oddity in self._oddities.found:
            self._problems.add(oddity)
        starts = [
            ChainStart(path, cluster, None, self._claimed_by.get(path, self._start))
            for cluster, path in self._claims.items()
            if cluster
        ]
        for file in files:
            first, size, offset = file.token
            starts.append(ChainStart(file.path, first, -(-size // geometry.cluster_size), offset))
        table = self._fat.read_all()
        bad = (1 << min(geometry.bits, 28)) - 9
        clusters = ClusterMap(table, bad, self._start + self._cluster_offset(FIRST_CLUSTER), geometry.cluster_size)
        for start in starts:
            clusters.add(start)
        used, free, marked_bad = clusters.count()
        lost_chains, lost = clusters.lost()
        long_chains = [wrong for wrong in clusters.wrong if wrong.is_long]
        short_chains = [wrong for wrong in clusters.wrong if not wrong.is_long]
        sectors = self._sectors_per_fat
        figures = FatFigures(
            cluster_size=geometry.cluster_size,
            clusters=geometry.cluster_count,
            used_clusters=used,
            free_clusters=free,
            bad_clusters=marked_bad,
            lost_clusters=geometry.cluster_count - used - free - marked_bad,
            lost_chains=lost_chains,
            lost=lost,
            cross_links=tuple(clusters.cross_links),
            long_chains=tuple(long_chains),
            short_chains=tuple(short_chains),
            fat_copies=self.boot_sector.fat_count,
            fat_size=sectors * self.boot_sector.bytes_per_sector,
            differences=tuple(self._compare_copies()),
            summary=self._read_summary(),
        )
        return figures, clusters.free_runs()

    def _check_flags(self) -> None:
        """Report a volume that was not unmounted, and a wrong start of the table."""
        geometry, boot = self.geometry, self.boot_sector
        if boot.reserved & _DIRTY:
            self._note(65 if geometry.bits == 32 else 37, "the volume was not unmounted: its dirty bit is set")
        if isinstance(boot, Fat32BootSector) and boot.reserved_sectors <= boot.information_sector < 0xFFFF:
            self._note(48, f"information sector: {boot.information_sector} is not a reserved sector")
        at = self._start + geometry.fat_offset
        first, second = self._fat.read_head()
        ones = (1 << min(geometry.bits, 28)) - 1
        if first | 0xFF != ones or not is_media(first & 0xFF):
            self._note_at(at, "FAT", f"its first entry is {first:#x}, not the media byte with ones above it")
        clean, healthy = _CLEAN_FLAGS.get(geometry.bits, (0, 0))
        at += geometry.bits // 8
        if second & clean != clean:
            self._note_at(at, "FAT", "the volume was not unmounted: its second entry says so")
        if second & healthy != healthy:
            self._note_at(at, "FAT", "the disk had errors: its second entry says so")

    def _check_dots(self) -> None:
        """Report directories except the root that do not begin with "." and "..", and those entries elsewhere."""
        starts = {path: cluster for cluster, path in self._claims.items()}
        for path, offset in self._claimed_by.items():
            if not FIRST_CLUSTER <= starts.get(path, 0) <= self.geometry.present_count + 1:
                continue  # it has the clusters of another directory, or none that exist
            above = path.rpartition("/")[0]
            expected = (b".", starts[path]), (b"..", starts.get(above, 0) if above else 0)
            for position, (name, cluster) in enumerate(expected):
                entry = self._dots.get(path, {}).get(position * DirectoryEntry.length())
                where = f"directory {path!r}: its entry {name.decode()!r}"
                if entry is None or entry.short_name.rstrip() != name or not entry.is_directory:
                    self._note_at(offset, "FAT directory", f"{where} is missing")
                elif entry.first_cluster != cluster:
                    message = f"{where} leads to cluster {entry.first_cluster}, not {cluster}"
                    self._note_at(entry.offset, "FAT directory", message)
        for path, found in self._dots.items():
            for position, entry in found.items():
                if not path or position >= 2 * DirectoryEntry.length():
                    dots = entry.short_name.rstrip().decode()
                    where = f"directory {path!r}" if path else "the root directory"
                    self._note_at(entry.offset, "FAT directory", f"{where} has an entry {dots!r} where none belongs")

    @property
    def _sectors_per_fat(self) -> int:
        boot = self.boot_sector
        return boot.sectors_per_fat_32 if isinstance(boot, Fat32BootSector) else boot.sectors_per_fat_16

    def _compare_copies(self) -> Iterator[Difference]:
        """Copies of the table that differ from the first; empty where only one of them is in use."""
        boot = self.boot_sector
        if isinstance(boot, Fat32BootSector) and boot.extended_flags & 0x80:
            return
        size = self._sectors_per_fat * boot.bytes_per_sector
        first = boot.reserved_sectors * boot.bytes_per_sector
        for number in range(2, boot.fat_count + 1):
            at = first + (number - 1) * size
            found = compare(self._pieces(first, size), self._pieces(at, size))
            if found is not None:
                yield Difference(number, self._start + at + found[0], found[1])

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        for at in range(offset, offset + length, _PIECE):
            yield self._source.read_at(at, min(_PIECE, offset + length - at))

    def _read_summary(self) -> FreeSummary | None:
        boot = self.boot_sector
        if not isinstance(boot, Fat32BootSector) or not 0 < boot.information_sector < boot.reserved_sectors:
            return None
        offset = boot.information_sector * boot.bytes_per_sector
        found = FileSystemInformation.parse(self._source.read_at(offset, FileSystemInformation.length()))
        free = None if found.free_clusters == _UNKNOWN_FREE else found.free_clusters
        return FreeSummary(self._start + offset, found.is_valid, free)

    def _cluster_offset(self, cluster: int) -> int:
        return self.geometry.data_offset + (cluster - FIRST_CLUSTER) * self.geometry.cluster_size

    def _list(self, path: str, cluster: int, entry_offset: int) -> list[File | Directory]:
        """Entries of the directory at `path`, which starts at `cluster` (0: the fixed root directory)."""
        children: list[File | Directory] = []
        names: set[str] = set()
        short_names: set[bytes] = set()
        begin = self._start + self._cluster_offset(cluster)
        cut: list[CorruptImage] = []
        parts = self._directory_parts(path, cluster, entry_offset, cut)
        has_label = False
        for entry in self._entries.read(parts, self._note_at, self._note_oddity):
            if entry.is_label:
                if path or has_label:
                    place = f"in {path!r}" if path else "besides the first one"
                    self._note_oddity(entry.offset, "FAT directory entry", f"a label {place}, {entry.name!r}")
                elif self._label is None:
                    self._label = entry.name or None
                if entry.size or entry.first_cluster:
                    message = f"the label {entry.name!r} has a size, {entry.size}, or a cluster, {entry.first_cluster}"
                    self._note_oddity(entry.offset, "FAT directory entry", message)
                has_label = True
                continue
            if entry.is_dots:
                self._dots.setdefault(path, {})[entry.offset - begin] = entry
                continue
            if not entry.name:
                continue
            child_path = f"{path}/{entry.name}" if path else entry.name
            key = fold_name(entry.name)
            if key in names:
                self._note_at(entry.offset, "FAT directory entry", f"a second entry is named {child_path!r}")
            elif entry.short_name in short_names:
                message = f"{child_path!r} has the short name of another entry, {entry.short_name!r}"
                self._note_at(entry.offset, "FAT directory entry", message)
            names.add(key)
            short_names.add(entry.short_name)
            if entry.is_directory and entry.size:
                message = f"directory {child_path!r} has a size, {entry.size}"
                self._note_oddity(entry.offset, "FAT directory entry", message)
            children.append(self._child(child_path, entry))
        return PartialListing(children) if cut else children

    def _child(self, path: str, entry: ParsedEntry) -> File | Directory:
        if not entry.is_directory:
            return File(self._home, path, entry.size, entry.modified, (entry.first_cluster, entry.size, entry.offset))

        def entries() -> list[File | Directory]:
            owner = self._claims.setdefault(entry.first_cluster, path)
            self._claimed_by.setdefault(path, entry.offset)
            if owner != path:
                self._note_at(
                    entry.offset,
                    "FAT directory entry",
                    f"directory {path!r} has the clusters of {owner or '/'!r}; it is shown empty",
                )
                return PartialListing()
            return self._list(path, entry.first_cluster, entry.offset)

        return Directory(path, entry.modified, entries, fold_case=True)

    def _directory_parts(
        self, path: str, cluster: int, entry_offset: int, cut: list[CorruptImage]
    ) -> Iterator[tuple[int, bytes]]:
        """Disk offset and bytes of each contiguous part of a directory; at damage, added to `cut`, they end."""
        geometry = self.geometry
        left = _LARGEST_DIRECTORY // geometry.cluster_size
        passed: set[int] = set()
        try:
            if not path and geometry.bits != 32:  # FAT32's root is a chain like any other
                yield from self._healthy_part(geometry.root_offset, geometry.root_size)
                return
            for first, count in self._fat.runs(cluster, None, entry_offset):
                # A chain that loops returns to clusters already read, which `runs` detects some rounds later.
                run = range(first, first + min(count, left + 1))
                new = next((index for index, each in enumerate(run) if each in passed), len(run))
                passed.update(run[:new])
                offset = self._cluster_offset(first)
                if new and left:
                    yield from self._healthy_part(offset, min(new, left) * geometry.cluster_size)
                if new > left:
                    at = self._start + offset + left * geometry.cluster_size
                    self._note_at(at, "FAT directory", f"{path or '/'!r} goes on past 65,536 entries")
                    return
                left -= new
        except CorruptImage as error:
            self._problems.add(Problem.of(error))
            cut.append(error)

    def _healthy_part(self, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
        """Disk offset and bytes of the range at `offset` of the volume, up to damage, which is then raised.

        Raises:
            CorruptImage: A part of the range can't be read.
        """
        data = read_healthy(self._source, offset, length)
        yield self._start + offset, data
        if len(data) < length:
            self._source.read_at(offset + len(data), 1)

    def _checked_geometry(self, partition_size: int) -> Geometry:
        boot = self.boot_sector
        unit = boot.bytes_per_sector
        is_fat32 = isinstance(boot, Fat32BootSector)
        sectors = boot.total_sectors_16 or boot.total_sectors_32
        sectors_per_fat = self._sectors_per_fat
        root_sectors = -(-boot.root_entries * DirectoryEntry.length() // unit)
        data_sector = boot.reserved_sectors + boot.fat_count * sectors_per_fat + root_sectors
        if data_sector * unit > partition_size:
            raise self._bad_geometry(
                "its FATs and root directory pass the partition's end",
                f"at most {partition_size} bytes",
                f"{data_sector * unit}",
            )
        clusters = (sectors - data_sector) // boot.sectors_per_cluster
        if sectors_per_fat == 0 or clusters < 1:
            raise self._bad_geometry("it has no room for data", "at least one cluster", "none")
        if sectors * unit > partition_size:
            self._note(19, f"total sectors: the volume has {sectors * unit} bytes, its partition {partition_size}")
        # The boot sector's own count decides the kind, even if the volume's end is missing.
        held = (partition_size - data_sector * unit) // (boot.sectors_per_cluster * unit)
        bits = 32 if is_fat32 else _bits_of(clusters)
        entries = _entries(sectors_per_fat * unit, bits)
        if not is_fat32 and clusters + FIRST_CLUSTER > entries:  # a count that its FATs contradict decides nothing
            bits = _bits_of(min(clusters, held))
            entries = _entries(sectors_per_fat * unit, bits)
        if clusters + FIRST_CLUSTER > entries:
            self._note(22, f"sectors per FAT: {clusters} clusters, but the FAT has entries for {entries - 2}")
            clusters = entries - FIRST_CLUSTER
        active = 0
        if isinstance(boot, Fat32BootSector) and boot.extended_flags & 0x80:
            active = min(boot.extended_flags & 0x0F, boot.fat_count - 1)
        fat_offset = (boot.reserved_sectors + active * sectors_per_fat) * unit
        return Geometry(
            bits=bits,
            cluster_size=boot.sectors_per_cluster * unit,
            cluster_count=clusters,
            present_count=min(clusters, held),
            fat_offset=fat_offset,
            fat_size=-(-(clusters + FIRST_CLUSTER) * bits // 8),
            root_offset=(data_sector - root_sectors) * unit,
            root_size=boot.root_entries * DirectoryEntry.length(),
            root_cluster=boot.root_cluster if isinstance(boot, Fat32BootSector) else 0,
            data_offset=data_sector * unit,
        )

    def _bad_geometry(self, message: str, expected: str, found: str) -> CorruptImage:
        return CorruptImage(message, structure="FAT boot sector", offset=self._start, expected=expected, found=found)

    def _note(self, offset: int, message: str) -> None:
        self._note_at(self._start + offset, "FAT boot sector", message)

    def _note_oddity(self, offset: int, structure: str, message: str) -> None:
        self._oddities.note(structure, message, offset)

    def _note_at(self, offset: int, structure: str, message: str) -> None:
        self._problems.note(structure, message, offset)


def _bits_of(clusters: int) -> int:
    """Bits of an entry of a FAT that is not FAT32's."""
    return 12 if clusters < _FAT12_CLUSTERS else 16


def _entries(size: int, bits: int) -> int:
    """Number of entries that a table of `size` bytes may have."""
    return min(size * 8 // bits, _MOST_CLUSTERS[bits] + FIRST_CLUSTER)


def open_volume(disk: ReadAt, start: int, size: int, home: FileHome, /) -> FatVolume:
    """Volume in a partition; see `FatVolume` for the errors."""
    return FatVolume(disk, start, size, home)
