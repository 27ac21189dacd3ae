"""The tree of files of a VMFS volume: directories of both kinds, links, raw device mappings, locks."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files.file import Directory, File, FileAttributes, FileHome, PartialListing
from vmvisor_image.files.tree import FileTree
from vmvisor_image.schemas.vmfs import (
    DIRECTORY_BLOCK_ENTRIES,
    DIRECTORY_BLOCK_MAP,
    DIRECTORY_ENTRIES_OFFSET,
    DIRECTORY_VERSIONS,
    LOCK_IS_FREE,
    DirectoryBlockHeader,
    DirectoryHeader,
    FileMetadata,
    HashedDirectoryEntry,
    ScsiDiskId,
    VmfsDirectoryEntry,
    described_disk,
    vmfs_uuid,
)
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.vmfs.addresses import ROOT
from vmvisor_image.volumes.vmfs.blocks import VmfsBlocks
from vmvisor_image.volumes.vmfs.resources import Descriptor, Report

DIRECTORY, REGULAR, LINK, SYSTEM, RAW_DEVICE = 2, 3, 4, 5, 6
"""Values of `FileMetadata.type`."""
_LARGEST_DIRECTORY: Final = 256 << 20
"""Most bytes of a directory that are read: those of 1.9 million entries."""
_LONGEST_TARGET: Final = 4096
"""Most bytes of a symbolic link's target, which is a path: no host takes a longer one."""
_ENTRIES_AT_ONCE: Final = 1024
_BLOCKS_AT_ONCE: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RawDeviceMapping:
    """A file that stands for a disk of the storage: its content is on that disk, not in the volume."""

    path: str
    """POSIX path from the volume's root."""
    size: int
    """Bytes in that disk."""
    disk: str
    """Vendor, model and identifier of the disk as the host saw it, printable; empty where they are not given."""


@dataclass(frozen=True, slots=True)
class FileLock:
    """Lock of a file: the host that may change it."""

    mode: int
    """Lock mode: 1 exclusive, 2 read-only, 3 several writers."""
    owner: str
    """UUID of the host that holds it."""
    heartbeat: int
    """Bytes from the volume's start to that host's heartbeat."""


class VmfsTree:
    """Tree of a volume's directories and files, by its blocks."""

    def __init__(self, blocks: VmfsBlocks, report: Report) -> None:
        """A tree of which nothing is read yet."""
        self._blocks = blocks
        self._report = report
        self._listed: dict[int, str] = {}
        self._lock = ForkSafeLock()
        self._no_files: set[int] = set()
        """Addresses of the descriptors of links and raw device mappings."""
        self.links: dict[str, str] = {}
        """Targets of the symbolic links in the directories listed so far, by path."""
        self.raw_devices: dict[str, RawDeviceMapping] = {}
        """Raw device mappings in the directories listed so far, by path."""

    def files(self, home: FileHome, problems: Callable[[], tuple[Problem, ...]]) -> FileTree:
        """All files of the volume, for `home`, their container."""
        root = Directory("", None, lambda: self._list("", ROOT, home), fold_case=False)
        return FileTree(root, problems, fold_case=False, home=home)

    @property
    def addresses(self) -> tuple[int, ...]:
        """Addresses of the descriptors of everything except files in the directories listed so far."""
        return (*self._listed, *sorted(self._no_files))

    def lock_of(self, address: int) -> FileLock | None:
        """Lock of the file whose descriptor has an address; None where no host holds it.

        Raises:
            CorruptImage: Its descriptor is damaged.
        """
        return lock_in(self._blocks.resources.descriptor(address))

    def _list(self, path: str, address: int, home: FileHome) -> list[File | Directory]:
        with self._lock:
            known = self._listed.setdefault(address, path)
        if known != path:
            self._report(Problem("VMFS directory", f"{path!r} is {known or '/'!r} again and is left out"))
            return PartialListing()
        found: list[File | Directory] = []
        is_partial = False
        try:
            for name, child in self._entries(path, address):
                try:
                    entry = self._child(f"{path}/{name}" if path else name, child, home)
                except CorruptImage as error:
                    problem = Problem.of(error)
                    where = f"{path}/{name}" if path else name
                    self._report(Problem(problem.structure, f"{where}: {problem.message}", problem.offset))
                    is_partial = True
                    continue
                if entry is not None:
                    found.append(entry)
        except CorruptImage as error:
            self._report(Problem.of(error))
            is_partial = True
        return PartialListing(found) if is_partial else found

    def _child(self, path: str, address: int, home: FileHome) -> File | Directory | None:
        descriptor = self._blocks.resources.descriptor(address)
        metadata = descriptor.metadata
        if metadata.type in (LINK, RAW_DEVICE):
            self._no_files.add(address)
        modified, attributes = _time(metadata.modified), _attributes(metadata)
        if _is_directory(metadata):

            def entries() -> list[File | Directory]:
                return self._list(path, address, home)

            return Directory(path, modified, entries, fold_case=False, attributes=attributes)
        if metadata.type == LINK:
            if metadata.size > _LONGEST_TARGET:
                message = f"a link's target has {metadata.size} bytes, more than the {_LONGEST_TARGET} that are read"
                raise descriptor.bad(message)
            target = self._blocks.content(descriptor).read_at(0, metadata.size)
            self.links[path] = target.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            return None
        if metadata.type == RAW_DEVICE:
            disk = ScsiDiskId.parse(descriptor.raw, self._blocks.geometry.data_at)
            self.raw_devices[path] = RawDeviceMapping(path, metadata.size, described_disk(disk))
            return None
        if metadata.type not in (REGULAR, SYSTEM):
            raise descriptor.bad(f"type {metadata.type} is not known")
        return File(home, path, metadata.size, modified, address, attributes)

    def _entries(self, path: str, address: int) -> Iterator[tuple[str, int]]:
        """Name of each entry of a directory, and the address of its descriptor."""
        descriptor = self._blocks.resources.descriptor(address)
        if not _is_directory(descriptor.metadata):
            raise descriptor.bad(f"{path!r} is not a directory")
        content = self._blocks.content(descriptor)
        size = min(content.size, _LARGEST_DIRECTORY)
        hashed = self._blocks.geometry.is_6 and size >= DIRECTORY_ENTRIES_OFFSET
        hashed = hashed and int.from_bytes(content.read_at(0, 4), "little") in DIRECTORY_VERSIONS
        if content.size > size:
            message = f"{path or '/'!r} has {content.size} bytes: only the first {size} are read"
            self._report(Problem("VMFS directory", message, descriptor.metadata.source_offset))
        if hashed:
            room = max(size, min(self._blocks.allocated(descriptor), _LARGEST_DIRECTORY))
            found = self._hashed_entries(self._blocks.content(descriptor, room), size)
        else:
            found = self._listed_entries(content, size)
        for name, child in found:
            text = name.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            if child and text not in ("", ".", ".."):
                yield text, child

    def _listed_entries(self, content: ReadAt, size: int) -> Iterator[tuple[bytes, int]]:
        """Names and addresses in a directory of VMFS 3 and 5, whose entries follow each other."""
        length = VmfsDirectoryEntry.length()
        end = size - size % length
        for at in range(0, end, _ENTRIES_AT_ONCE * length):
            data = content.read_at(at, min(_ENTRIES_AT_ONCE * length, end - at))
            for entry in VmfsDirectoryEntry.parse_all(data):
                yield entry.name, entry.address

    def _hashed_entries(self, content: MappedDisk, size: int) -> Iterator[tuple[bytes, int]]:
        """Names and addresses in a directory of VMFS 6, in blocks, each with a bitmap in which 1 is a free slot."""
        header, length = DirectoryBlockHeader.length(), HashedDirectoryEntry.length()
        for data in self._read_blocks(content, self._entry_blocks(content, size)):
            head = DirectoryBlockHeader.parse(data)
            if head.type != DIRECTORY_BLOCK_ENTRIES:
                continue
            free = int.from_bytes(head.free_slots, "little")
            for slot in range(min(head.slots, (len(data) - header) // length)):
                if not free >> slot & 1:
                    entry = HashedDirectoryEntry.parse(data, header + slot * length)
                    yield entry.name, entry.address

    def _read_blocks(self, content: ReadAt, numbers: Iterator[int]) -> Iterator[bytes]:
        """Blocks of a directory by their numbers; neighbours are read together, or one by one where that fails.

        Raises:
            CorruptImage: Some can't be read, after all the others were given; the last one is raised.
        """
        failed: CorruptImage | None = None
        block = self._blocks.geometry.alignment
        runs = itertools.groupby(enumerate(numbers), lambda item: (item[1] - item[0], item[0] // _BLOCKS_AT_ONCE))
        for run in ([number for _, number in group] for _, group in runs):
            start, length = DIRECTORY_ENTRIES_OFFSET + run[0] * block, len(run) * block
            try:
                data = content.read_at(start, length)
            except CorruptImage:
                for at in range(start, start + length, block):
                    try:
                        yield content.read_at(at, block)
                    except CorruptImage as error:
                        self._report(Problem.of(error))
                        failed = error
                continue
            yield from (data[at : at + block] for at in range(0, length, block))
        if failed is not None:
            raise failed

    def _entry_blocks(self, content: MappedDisk, size: int) -> Iterator[int]:
        """Numbers of a VMFS 6 directory's blocks with entries, by its maps, or of all blocks where a map is missing.

        According to VMkatz (MIT), on real volumes the maps may name blocks after the `size` of the directory, in the
        space that is allocated for it.
        """
        block, header = self._blocks.geometry.alignment, DirectoryBlockHeader.length()
        count, room = ((length - DIRECTORY_ENTRIES_OFFSET) // block for length in (size, content.size))
        head = DirectoryHeader.parse(content.read_at(0, DirectoryHeader.length()))
        per_map = 2 * (block - header)
        behind = lost = 0
        for first in range(0, room, per_map):
            if first >= count and first // per_map >= head.map_count:
                break
            types = self._block_map(content, head, first // per_map, room)
            if types is None:
                blocks = range(first, min(first + per_map, count))
                if blocks:
                    self._report(
                        Problem("VMFS directory", f"no map of its blocks {first} to {blocks[-1]}; all are read")
                    )
                    yield from blocks
                continue
            kinds = (kind & 3 for pair in types.rstrip(b"\0") for kind in (pair >> 4, pair))
            for at, kind in enumerate(kinds, first):
                if kind == DIRECTORY_BLOCK_ENTRIES and at >= room:
                    lost += 1
                elif kind == DIRECTORY_BLOCK_ENTRIES:
                    behind += at >= count
                    yield at
        if behind:
            self._report(
                Problem("VMFS directory", f"{behind} of its blocks of entries lie behind its end, and are read")
            )
        if lost:
            message = f"{lost} of its blocks of entries lie behind the {room} that it has or are read"
            self._report(Problem("VMFS directory", message))

    def _block_map(self, content: ReadAt, head: DirectoryHeader, number: int, count: int) -> bytes | None:
        """Map `number` of a directory of `count` blocks, four bits per block; None where it is missing or damaged."""
        block = self._blocks.geometry.alignment
        at = int.from_bytes(head.map_blocks[4 * number : 4 * number + 4], "little")
        if number >= head.map_count or at >= count:
            return None
        try:
            data = content.read_at(DIRECTORY_ENTRIES_OFFSET + at * block, block)
        except CorruptImage as error:
            self._report(Problem.of(error))
            return None
        is_map = DirectoryBlockHeader.parse(data).type == DIRECTORY_BLOCK_MAP
        return data[DirectoryBlockHeader.length() :] if is_map else None


def _attributes(metadata: FileMetadata) -> FileAttributes:
    """Attributes in a descriptor of a file or directory, with the bits of its type unchanged."""
    return FileAttributes(
        stat.S_IMODE(metadata.mode),
        metadata.user,
        metadata.group,
        _time(metadata.created),
        _time(metadata.accessed),
        stat.S_IFMT(metadata.mode),
        metadata.type,
    )


def _is_directory(metadata: FileMetadata) -> bool:
    """Whether it is a directory; for the system's own, such as ``.sdd.sf``, by the mode, as on Unix."""
    return metadata.type == DIRECTORY or (metadata.type == SYSTEM and stat.S_ISDIR(metadata.mode))


def lock_in(descriptor: Descriptor) -> FileLock | None:
    """Lock of the file of a descriptor; None where no host holds it."""
    lock = descriptor.lock
    if lock.mode == LOCK_IS_FREE:
        return None
    return FileLock(lock.mode, vmfs_uuid(lock.owner), lock.heartbeat_address)


def _time(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
