"""ISO 9660 volumes, such as installer CDs, with the names of Rock Ridge or Joliet where present.

Directories are read when they are first listed. A damaged record is lost, with all that follows it in its sector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, Literal

from vmvisor_image.archives.iso9660_values import short_time, text_of, whole_label
from vmvisor_image.archives.member import LONGEST_PATH, MOST_MEMBERS, MOST_PATH_BYTES, MOST_PROBLEMS, ArchiveMember
from vmvisor_image.archives.rock_ridge import RockRidge
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.names import printable
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.files.file import Directory, Extent, File, FileHome
from vmvisor_image.files.tree import FileTree
from vmvisor_image.record import Record
from vmvisor_image.schemas.iso9660 import (
    ASSOCIATED,
    BOOT_RECORD,
    DIRECTORY,
    EL_TORITO,
    FIRST_DESCRIPTOR,
    JOLIET_ESCAPES,
    MAGIC,
    MULTI_EXTENT,
    PRIMARY,
    SECTOR,
    SUPPLEMENTARY,
    TERMINATOR,
    BootRecord,
    ContinuationArea,
    DirectoryRecord,
    SystemUseEntry,
    VolumeDescriptor,
)
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.source import ReadAt

MAGIC_OFFSET: Final = FIRST_DESCRIPTOR * SECTOR + 1
"""First byte of the magic of the first descriptor, from the volume's start."""
NAME: Final = "ISO 9660"
KIND: Final = "iso9660"
SUFFIXES: Final = (".iso",)
HOLDS_DISKS: Final = False
MAGICS: Final = (Signature("iso9660", "ISO 9660 file system", MAGIC_OFFSET, MAGIC),)
REFERENCES: Final = (
    "ECMA-119",
    "IEEE P1281 and P1282 (SUSP and Rock Ridge)",
    "Joliet Specification",
    "El Torito 1.0",
)
_MOST_DESCRIPTORS: Final = 64
_LARGEST_DIRECTORY: Final = 64 << 20
_MOST_CONTINUATIONS: Final = 32
"""Largest number of continuations of one system use area; Linux follows as many."""
_HEAD: Final = DirectoryRecord.length()
_IS_LINK: Final = 0o120000
_PATH_RECORD: Final = 8
"""Number of bytes of a path table's record before the name."""
_TWICE: Final = ("block_count", "set_size", "sequence_number", "block_size", "path_table_size")
"""Fields of a volume descriptor that are recorded in both byte orders."""
_SELF, _PARENT = b"\0", b"\1"


def probe(disk: ReadAt, start: int) -> bool:
    """Whether an ISO 9660 volume begins at byte `start` of `disk`."""
    return read_up_to(disk, start + MAGIC_OFFSET, len(MAGIC)) == MAGIC


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file, directory or link."""

    name: str
    is_directory: bool
    pieces: tuple[tuple[int, int], ...]
    """First logical block, and length in bytes, of each extent."""
    modified: datetime | None
    mode: int
    owner: int
    group: int
    target: str | None
    """Target of a symbolic link; None for anything else."""
    offset: int
    """First byte of its record on the disk."""

    @property
    def size(self) -> int:
        return sum(length for _, length in self.pieces)


class IsoFileSystem:
    """The file system of an ISO 9660 volume."""

    def __init__(self, disk: ReadAt, start: int, home: FileHome) -> None:
        """Read the volume descriptors of the volume at byte `start` of `disk`.

        Raises:
            CorruptImage: There is no valid primary descriptor.
        """
        self._disk, self._start = disk, start
        self._lock = ForkSafeLock()
        self._problems = ProblemList("ISO 9660 volume", MOST_PROBLEMS)
        self._listed: dict[int, str] = {}
        """Path of each directory listed so far, by its first block."""
        self._entry_count = 0
        """Number of entries in all directories listed so far: overlapping directories can hold any number."""
        self._sector_count = self._path_bytes = 0
        """Number of sectors of all directories listed so far, and the characters of the paths in them."""
        self._most_sectors = min(MOST_MEMBERS, disk.size // SECTOR) if knows_size(disk) else MOST_MEMBERS
        """Largest number of sectors of all directories together: those of the disk, unless directories overlap."""
        self._unequal: dict[Problem, None] = {}
        """Problems of the directory records listed so far whose numbers differ from their big-endian copies."""
        self.primary: VolumeDescriptor
        """The primary volume descriptor."""
        self.joliet: VolumeDescriptor | None = None
        """The supplementary descriptor with names in Unicode; None where the volume has none."""
        self.boot_record: BootRecord | None = None
        """The boot record of El Torito; None where the volume has none."""
        self._read_descriptors()
        root = self._root(self.primary)
        self._rock_ridge_skip = self._find_rock_ridge(root)
        """Number of bytes to skip in each system use area; None without Rock Ridge."""
        self._names_joliet = self._rock_ridge_skip is None and self.joliet is not None
        if self._names_joliet and self.joliet is not None:
            root = self._root(self.joliet)
        self._root_entry = root
        self.files = FileTree(
            Directory("", None, lambda: self._list("", root, home), fold_case=self._folds_case),
            lambda: self.problems,
            fold_case=self._folds_case,
            home=home,
        )
        """The files of the volume; without Rock Ridge, names are case-insensitive."""

    @property
    def label(self) -> str | None:
        """The volume identifier: Joliet's, completed from the primary descriptor's where that is longer."""
        joliet = None if self.joliet is None else self.joliet.volume_identifier
        found = whole_label(self.primary.volume_identifier, joliet)
        return found.partition("\0")[0].rstrip() or None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return self._problems.found

    @property
    def names(self) -> str:
        """Standard of the names shown: "Rock Ridge", "Joliet" or "ISO 9660"."""
        return "Rock Ridge" if self._rock_ridge_skip is not None else "Joliet" if self._names_joliet else "ISO 9660"

    @property
    def records(self) -> Mapping[str, Record]:
        """The volume descriptors as recorded on the disk, by name."""
        found: dict[str, Record | None] = {
            "primary volume descriptor": self.primary,
            "Joliet volume descriptor": self.joliet,
            "El Torito boot record": self.boot_record,
        }
        return {name: record for name, record in found.items() if record is not None}

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts from the volume's descriptors, in words, by name."""
        found = {
            "label": self.label,
            "names": self.names,
            "size": f"{self.primary.block_count * self.primary.block_size} bytes",
            "application": text_of(self.primary.application),
            "boots": None if self.boot_record is None else "by El Torito",
        }
        return {name: printable(value) for name, value in found.items() if value}

    @property
    def _folds_case(self) -> bool:
        return self._rock_ridge_skip is None

    def locate(self, token: tuple[Extent, ...]) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the extents."""
        return token

    def differences(self) -> tuple[Problem, ...]:
        """Problems of numbers that differ from their big-endian copies, and of path tables that contradict directories.

        Every directory is listed. Files are read by the little-endian numbers and the directories alone.

        Raises:
            LimitExceeded: There are too many files.
        """
        for _ in self.files.all_files():
            pass  # the iteration lists the directories
        shown = self.joliet if self._names_joliet and self.joliet is not None else self.primary
        found = list(_unequal(shown, _TWICE, "volume descriptor"))
        at = shown.source_offset or 0
        try:
            little = self._path_table(shown, 0, "little")
            big = self._path_table(shown, 8, "big")
        except CorruptImage as error:
            return (*found, *self._unequal, Problem.of(error))
        if little != big:
            found.append(Problem("ISO 9660 path table", "the little-endian and the big-endian one differ", at))
        if missing := self._listed.keys() - little:
            found.append(Problem("ISO 9660 path table", f"{len(missing)} directories are not in it", at))
        # Relocated directories of Rock Ridge are listed in their original place, not where the table has them.
        if self._rock_ridge_skip is None and (unreached := little - self._listed.keys()):
            found.append(
                Problem(
                    "ISO 9660 path table", f"{len(unreached)} of its directories are not reached from any other", at
                )
            )
        return (*found, *self._unequal)

    def _path_table(self, descriptor: VolumeDescriptor, at: int, order: Literal["little", "big"]) -> set[int]:
        """First blocks of the directories in a path table, whose block number is byte `at` of `path_tables` (9.4).

        Raises:
            CorruptImage: The table is too large or passes the end of the disk.
        """
        block = int.from_bytes(descriptor.path_tables[at : at + 4], order)
        if descriptor.path_table_size > _LARGEST_DIRECTORY:
            raise CorruptImage(
                "more than is read",
                structure="ISO 9660 volume descriptor",
                offset=descriptor.source_offset,
                field="path_table_size",
                expected=f"at most {_LARGEST_DIRECTORY}",
                found=descriptor.path_table_size,
            )
        data = self._disk.read_at(self._start + block * descriptor.block_size, descriptor.path_table_size)
        found, place = set(), 0
        while place + _PATH_RECORD <= len(data) and data[place]:
            found.add(int.from_bytes(data[place + 2 : place + 6], order) + data[place + 1])
            place += _PATH_RECORD + data[place] + data[place] % 2
        return found

    def members(self) -> Iterator[ArchiveMember]:
        """Files, directories and links of the volume, each directory before its contents."""
        pending = [("", self._root_entry)]
        while pending:
            path, directory = pending.pop()
            for entry in self._entries(path, directory):
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.is_directory:
                    pending.append((below, entry))
                found = "directory" if entry.is_directory else "file" if entry.target is None else "symlink"
                yield ArchiveMember(
                    below,
                    found,  # type: ignore[arg-type]  # one of three of them
                    entry.size if found == "file" else 0,
                    entry.modified,
                    entry.mode & 0o7777,
                    entry.owner,
                    entry.group,
                    entry.target,
                    entry.offset,
                    self._extents(entry) if found == "file" else (),
                )

    def _read_descriptors(self) -> None:
        primary = None
        for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + _MOST_DESCRIPTORS):
            at = self._start + number * SECTOR
            data = read_up_to(self._disk, at, SECTOR)
            if len(data) < SECTOR or data[1:6] != MAGIC:
                self._note(at, "ISO 9660 volume descriptor", "the last one is missing")
                break
            if data[0] == TERMINATOR:
                break
            if data[0] == PRIMARY and primary is None:
                primary = VolumeDescriptor.parse(data, base=at)
            elif data[0] == SUPPLEMENTARY and self.joliet is None:
                found = VolumeDescriptor.parse(data, base=at)
                if found.escape_sequences[:3] in JOLIET_ESCAPES and found.block_size in (512, 1024, 2048):
                    self.joliet = found
            elif data[0] == BOOT_RECORD and self.boot_record is None:
                boot = BootRecord.parse(data, base=at)
                if boot.system_identifier.startswith(EL_TORITO):
                    self.boot_record = boot
        else:
            message = f"there is no last one among the first {_MOST_DESCRIPTORS}, and no more are read"
            self._note(at + SECTOR, "ISO 9660 volume descriptor", message)
        if primary is None:
            raise CorruptImage(
                "there is no primary descriptor",
                structure="ISO 9660 volume descriptor",
                offset=self._start + FIRST_DESCRIPTOR * SECTOR,
            )
        if primary.block_size not in (512, 1024, 2048):
            raise CorruptImage(
                "not a valid size of a logical block",
                structure="ISO 9660 volume descriptor",
                offset=primary.source_offset,
                field="block_size",
                expected="512, 1024 or 2048",
                found=primary.block_size,
            )
        self.primary = primary

    def _root(self, descriptor: VolumeDescriptor) -> _Entry:
        at = (descriptor.source_offset or 0) + 156
        record = DirectoryRecord.parse(descriptor.root_directory, base=at)
        if not record.flags & DIRECTORY:
            self._note(at, "ISO 9660 root directory record", "it is not a directory")
        return _Entry("", True, ((_first_block(record), record.data_length),), None, 0o755, 0, 0, None, at)

    def _find_rock_ridge(self, root: _Entry) -> int | None:
        """Bytes to skip in each system use area, from the root's own entry (SUSP, 5.3); None without Rock Ridge."""
        block, _ = root.pieces[0]
        at = self._start + block * self.primary.block_size
        try:
            sector = self._disk.read_at(at, SECTOR)
        except CorruptImage:
            return None  # reported when the root directory is listed
        if sector[0] < _HEAD + 1 or sector[32] != 1:
            return None
        area = sector[_HEAD + 1 : sector[0]]
        if area[:2] != b"SP" or area[4:6] != b"\xbe\xef":
            return None
        fields = self._system_use(area, 0, at)
        has_names = any(signature in (b"PX", b"RR", b"NM") for signature, _ in fields)
        return area[6] if has_names else None

    def _list(self, path: str, directory: _Entry, home: FileHome) -> list[File | Directory]:
        found: list[File | Directory] = []
        for entry in self._entries(path, directory):
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_directory:
                listing = partial(self._list, below, entry, home)
                found.append(Directory(below, entry.modified, listing, fold_case=self._folds_case))
            elif entry.target is None:
                found.append(File(home, below, entry.size, entry.modified, self._extents(entry)))
        return found

    def _extents(self, entry: _Entry) -> tuple[Extent, ...]:
        merged: list[Extent] = []
        for block, length in entry.pieces:
            at = self._start + block * self.primary.block_size
            if length and merged and merged[-1].offset + merged[-1].length == at:
                merged[-1] = Extent(merged[-1].offset, merged[-1].length + length)
            elif length:
                merged.append(Extent(at, length))
        return tuple(merged)

    def _entries(self, path: str, directory: _Entry) -> Iterator[_Entry]:
        """Entries of a directory: files of several extents joined, relocated directories in their original place."""
        first = directory.pieces[0][0]
        with self._lock:
            known = self._listed.setdefault(first, path)
        if known != path:
            self._note(directory.offset, "ISO 9660 directory", f"{path!r} is {known or '/'!r} again and is left out")
            return
        pieces: list[tuple[int, int]] = []
        for record, name, area, at in self._directory_records(path, directory):
            if name in (_SELF, _PARENT) or record.flags & ASSOCIATED:
                continue
            if record.unit_size:
                self._note(at, "ISO 9660 directory record", "interleaved files are not read")
                continue
            pieces.append((_first_block(record), record.data_length))
            if record.flags & MULTI_EXTENT and not record.flags & DIRECTORY:
                continue
            entry = self._entry(record, name, area, tuple(pieces), at)
            pieces = []
            self._entry_count += 1
            self._path_bytes += len(path)
            if self._entry_count > MOST_MEMBERS or self._path_bytes > MOST_PATH_BYTES:
                self._note_rest()
                return
            if entry is not None and len(path) + len(entry.name) >= LONGEST_PATH:
                message = f"a path of {len(path) + 1 + len(entry.name)} characters is left out: at most {LONGEST_PATH}"
                self._note(at, "ISO 9660 directory record", message)
            elif entry is not None:
                self._path_bytes += len(entry.name)
                yield entry
        if pieces:
            self._note(directory.offset, "ISO 9660 directory", f"{path or '/'!r} ends before its last file does")

    def _entry(
        self, record: DirectoryRecord, name: bytes, area: bytes, pieces: tuple[tuple[int, int], ...], at: int
    ) -> _Entry | None:
        is_directory = bool(record.flags & DIRECTORY)
        modified = short_time(record.recorded)
        if self._rock_ridge_skip is None:
            shown = name.decode("utf-16-be", "replace") if self._names_joliet else name.decode("latin-1")
            shown = shown.rpartition(";")[0] or shown  # the version number
            shown = shown if self._names_joliet else shown.removesuffix(".") or shown
            return _Entry(shown, is_directory, pieces, modified, 0o755 if is_directory else 0o644, 0, 0, None, at)
        ridge = RockRidge()
        for signature, data in self._system_use(area, self._rock_ridge_skip, at):
            ridge.take(signature, data)
        if ridge.is_cut:
            self._note(at, "Rock Ridge SL entry", "a part of the link's target is longer than the entry")
        if ridge.is_relocated:
            return None  # it is shown in its original place
        if ridge.is_compressed:
            self._note(at, "ISO 9660 directory record", f"{ridge.name!r} is compressed (zisofs), which is not read")
            return None
        if ridge.child is not None:
            child = self._child(ridge.child, at)
            if child is None:
                return None
            is_directory, pieces = True, child
        shown = ridge.name or name.decode("latin-1").rpartition(";")[0] or name.decode("latin-1")
        target = ridge.target if ridge.mode & 0o170000 == _IS_LINK else None
        mode = ridge.mode or (0o755 if is_directory else 0o644)
        return _Entry(
            shown, is_directory, pieces, ridge.modified or modified, mode, ridge.owner, ridge.group, target, at
        )

    def _child(self, block: int, at: int) -> tuple[tuple[int, int], ...] | None:
        """First block and length in bytes of a relocated directory, whose first record describes itself.

        None where the directory lies past the end of the disk, which is reported.
        """
        try:
            head = self._disk.read_at(self._start + block * self.primary.block_size, _HEAD)
        except CorruptImage:
            self._note(at, "Rock Ridge CL entry", f"it leads to block {block}, past the end")
            return None
        return ((block, DirectoryRecord.parse(head).data_length),)

    def _directory_records(self, path: str, directory: _Entry) -> Iterator[tuple[DirectoryRecord, bytes, bytes, int]]:
        """Record, name, system use area and first byte on the disk of each entry."""
        block, length = directory.pieces[0]
        start = self._start + block * self.primary.block_size
        if length > _LARGEST_DIRECTORY:
            message = f"{path or '/'!r} has {length} bytes: only the first {_LARGEST_DIRECTORY} are read"
            self._note(directory.offset, "ISO 9660 directory", message)
            length = _LARGEST_DIRECTORY
        for base in range(start, start + length, SECTOR):
            self._sector_count += 1
            if self._sector_count > self._most_sectors:
                self._note_rest()
                return
            try:
                sector = self._disk.read_at(base, min(SECTOR, start + length - base))
            except CorruptImage as error:
                self._problems.add(Problem.of(error))
                return
            at = 0
            while at < len(sector) and (size := sector[at]):
                name_length = sector[at + 32] if at + 32 < len(sector) else 0
                name_end = at + _HEAD + name_length
                if size < _HEAD + 1 or at + size > len(sector) or not name_length or name_end > at + size:
                    self._note(base + at, "ISO 9660 directory record", "its lengths are not valid")
                    break
                record = DirectoryRecord.parse(sector, at, base=base)
                self._unequal.update(dict.fromkeys(_unequal(record, ("extent", "data_length"), "directory record")))
                area_start = name_end + (1 - name_length % 2)
                yield record, sector[at + _HEAD : name_end], sector[area_start : at + size], base + at
                at += size

    def _system_use(self, area: bytes, skip: int, at: int) -> Iterator[tuple[bytes, bytes]]:
        """Signature and data of each entry of a system use area and of its continuations."""
        area = area[skip:]
        for continued in range(_MOST_CONTINUATIONS + 1):
            following = None
            while len(area) >= SystemUseEntry.length():
                head = SystemUseEntry.parse(area)
                if head.entry_length < SystemUseEntry.length() or head.entry_length > len(area):
                    if any(area):  # zeros are padding
                        self._note(at, "Rock Ridge system use area", "an entry's length is not valid")
                    break
                data = area[SystemUseEntry.length() : head.entry_length]
                area = area[head.entry_length :]
                if head.signature == b"CE" and len(data) >= ContinuationArea.length():
                    following = ContinuationArea.parse(data)
                elif head.signature == b"ST":
                    break
                else:
                    yield head.signature, data
            if following is None:
                return
            if continued == _MOST_CONTINUATIONS:
                break
            place = self._start + following.block * self.primary.block_size + following.offset
            if following.length_of_area > SECTOR:
                message = f"it goes on with {following.length_of_area} bytes, of which {SECTOR} are read"
                self._note(at, "Rock Ridge system use area", message)
            try:
                area = self._disk.read_at(place, min(following.length_of_area, SECTOR))
            except CorruptImage as error:
                self._problems.add(Problem.of(error))
                return
        self._note(at, "Rock Ridge system use area", f"it has more continuation areas than {_MOST_CONTINUATIONS}")

    def _note(self, offset: int, structure: str, message: str) -> None:
        self._problems.add(Problem(structure, message, offset))

    def _note_rest(self) -> None:
        message = (
            f"there are more files and directories than the disk has room for, more than {MOST_MEMBERS}, or more than"
            f" {MOST_PATH_BYTES} bytes of paths: the rest is left out"
        )
        self._note(self.primary.source_offset or 0, "ISO 9660 volume", message)


def kind_of(source: ReadAt, _head: bytes, /) -> str | None:
    """`KIND` if the source is an ISO 9660 volume, otherwise None."""
    return KIND if probe(source, 0) else None


def read_members(source: ReadAt, report: Callable[[Problem], None]) -> Iterator[ArchiveMember]:
    """Files, directories and links of the volume that begins at the source's first byte."""
    volume = IsoFileSystem(source, 0, _Nowhere(source))
    try:
        yield from volume.members()
    finally:  # also when the caller stops early
        for problem in volume.problems:
            report(problem)


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """Home of files that are never read."""

    disk: ReadAt

    def locate(self, token: tuple[Extent, ...]) -> tuple[Extent, ...]:
        return token


def _unequal(record: Record, names: tuple[str, ...], structure: str) -> Iterator[Problem]:
    """Problems of the fields that differ from their big-endian copies."""
    for name in names:
        said, copy = getattr(record, name), int.from_bytes(getattr(record, f"{name}_big"), "big")
        if said != copy:
            message = f"{name}: it is {said}, and {copy} in its big-endian copy"
            yield Problem(f"ISO 9660 {structure}", message, record.source_offset)


def _first_block(record: DirectoryRecord) -> int:
    return record.extent + record.attribute_length
