"""File systems of guests as volumes: ext2 to ext4, NTFS, HFS+, UFS and exFAT, in the tree of files that all have.

The Sleuth Kit reads directories and metadata, in a process of its own (`GuestProcess`). Data that is in blocks as it is
is read without that process; what is compressed or lies in metadata, by it.
"""

from __future__ import annotations

import stat
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from vmvisor_image.base.forking import ForkSafeLock, cached_property
from vmvisor_image.base.limits import check_deadline, check_entries
from vmvisor_image.base.lru_cache import LruCache
from vmvisor_image.errors import CorruptImage, KeyUnavailable, Problem, ProblemList, WorkerFailed
from vmvisor_image.examine.signatures import Match
from vmvisor_image.files.file import Directory, Extent, File, FileAttributes, FileHome
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.views import Pieced, Slice
from vmvisor_image.volumes.guests.labels import label_of
from vmvisor_image.volumes.guests.process import GuestProcess, ProcessContent
from vmvisor_image.volumes.role import Evidence
from vmvisor_image.volumes.volume import BaseVolume, OtherEntry, VolumeCheck, VolumeEvidence, volume_repr


@dataclass(frozen=True, slots=True)
class _System:
    """A type of file systems."""

    kind: str
    """Name of the type in pytsk3."""
    fold_case: bool = False
    """Whether names that differ only in case are the same."""
    is_local_time: bool = False
    """Whether times are those of the writer's clock, without a zone."""


_SYSTEMS: Final = {
    "ext2": _System("TSK_FS_TYPE_EXT_DETECT"),
    "ext3": _System("TSK_FS_TYPE_EXT_DETECT"),
    "ext4": _System("TSK_FS_TYPE_EXT_DETECT"),
    "ufs": _System("TSK_FS_TYPE_FFS_DETECT"),
    "hfsplus": _System("TSK_FS_TYPE_HFS", fold_case=True),
    "ntfs": _System("TSK_FS_TYPE_NTFS", fold_case=True),
    "exfat": _System("TSK_FS_TYPE_EXFAT", fold_case=True, is_local_time=True),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_REASON: Final = 300
"""Characters of an error of The Sleuth Kit that are shown."""
_KNOWN: Final = 64
"""Files whose places are kept."""
_SUPERBLOCK: Final = 1024
"""Offset of the superblock of ext2 to ext4 (Linux, fs/ext4/ext4.h)."""
_NEEDS_RECOVERY, _ENCRYPT = 0x4, 0x10000
_NTFS_RESERVED: Final = 24
"""Number of the first record of NTFS's master file table that can be a user's."""
_HFS_FIRST: Final = 16
"""Number of the first file of HFS+ that is a user's (Apple, Technical Note 1150)."""
_HFS_PRIVATE: Final = ("HFS+ Private Data", ".HFS+ Private Directory Data\r")
_EXFAT_MADE_UP: Final = ("$ALLOC_BITMAP", "$UPCASE_TABLE", "$TEX_FAT", "$ACT_TABLE", "$VOLUME_GUID")
_EXFAT_LABEL: Final = " (Volume Label Entry)"


@dataclass(frozen=True, slots=True)
class _Place:
    """Size of a file's data, and the place of each part."""

    size: int
    runs: tuple[tuple[int, int | None, int], ...]
    """First byte in the file, first byte on the decoded disk (None for a hole), and number of bytes."""
    is_decoded: bool
    """Whether the process has to decode it."""


class GuestContent(Pieced):
    """Data of a file: pieces of the disk, and holes, which cost nothing."""

    size: int = 0
    """Number of bytes."""

    def __init__(self, place: _Place, disk: Source, where: str) -> None:
        """Read the parts that are no holes from `disk`; `where` is for messages."""
        self.size = place.size
        self._runs = place.runs
        self._starts = [start for start, _, _ in place.runs]
        self._disk = disk
        self._where = where

    @property
    def _structure(self) -> str:
        return self._where

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """See `Pieced.pieces`."""
        number = bisect_right(self._starts, offset) - 1
        while length > 0:
            start, at, size = self._runs[number] if 0 <= number < len(self._runs) else (0, None, 0)
            if offset < start + size:
                count = min(length, start + size - offset)
                if at is None:
                    yield None, 0, count
                else:
                    yield self._disk, at + offset - start, count
            else:  # between two runs, or behind the last one
                following = self._starts[number + 1] if number + 1 < len(self._starts) else self.size
                count = min(length, following - offset)
                if count:
                    yield None, 0, count
            offset += count
            length -= count
            number += 1


class GuestVolume(BaseVolume):
    """The file system of a guest. Nothing is started, and nothing is read, until its files are asked for."""

    is_guest = True

    def __init__(self, disk: ReadAt, start: int, size: int, home: FileHome, match: Match) -> None:
        """A volume of `size` bytes from byte `start` of `disk`, whose magic is `match`."""
        self._disk = Slice(disk, 0, start + size, "disk")
        self._start = start
        self._size = size
        self._home = home
        self._match = match
        self._system = _SYSTEMS[match.kind]
        self._fold_case = self._system.fold_case and match.name != "HFSX volume"
        number = getattr(home, "number", None)
        self._where = f"{match.kind} file system" if number is None else f"partition {number} ({match.kind})"
        self._problems = ProblemList(self._where)
        self._lock = ForkSafeLock()
        self._listed: dict[int, str] = {}
        self._others: dict[str, OtherEntry] = {}
        self._links: dict[str, str] = {}
        self._streams: dict[str, File] = {}
        self._system_files: dict[str, File] = {}
        self._places: LruCache[tuple[int, int, int], _Place] = LruCache(_KNOWN)
        volume = Slice(disk, start, size, self._where)
        self.process = GuestProcess(volume, self._system.kind, self._where, start, self._problems.add)
        """The process that reads it."""
        root = Directory("", None, self._list_root, fold_case=self._fold_case)
        self._files = FileTree(root, lambda: self.problems, fold_case=self._fold_case, home=home)

    def __repr__(self) -> str:
        return volume_repr(self, None, self._start)

    @property
    def kind(self) -> str:
        """See `Partition.kind`."""
        return self._match.kind

    @cached_property
    def label(self) -> str | None:
        """Label that the guest gave it; None without one, or where its place makes no sense.

        Raises:
            CorruptImage: The disk can't be read where the file system keeps it.
        """
        return label_of(self.kind, self._disk, self._start)

    @property
    def own_size(self) -> int | None:
        """See `BaseVolume.own_size`."""
        return self._match.size

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return self._problems.found

    @property
    def files(self) -> FileTree:
        """Files of the file system, as a system that mounts it would list them; starts the process that reads it.

        Raises:
            CorruptImage: The file system can't be opened.
            WorkerFailed: The process ended.
        """
        self.process.facts()
        return self._files

    @property
    def others(self) -> tuple[OtherEntry, ...]:
        """See `BaseVolume.others`: links, alternate streams, devices, pipes and sockets."""
        with self._lock:
            return tuple(self._others.values())

    @property
    def links(self) -> Mapping[str, str]:
        """Targets of the symbolic links and junctions in the directories listed so far, by path."""
        with self._lock:
            return MappingProxyType(dict(self._links))

    @property
    def streams(self) -> Mapping[str, File]:
        """Alternate streams of NTFS and resource forks of HFS+ in the directories listed so far, by ``file:stream``."""
        with self._lock:
            return MappingProxyType(dict(self._streams))

    @property
    def system_files(self) -> Mapping[str, File]:
        """The file system's own files, such as ``$MFT``, by name; lists the root directory.

        Raises:
            CorruptImage: It can't be read.
        """
        self.files.root.get("")
        with self._lock:
            return MappingProxyType(dict(self._system_files))

    def evidence(self, _name: str | None, /) -> VolumeEvidence:
        """See `BaseVolume.evidence`: its magic, which says nothing of a role."""
        return VolumeEvidence((Evidence(self._match.statement(), self._start + self._match.offset),))

    def check(self) -> VolumeCheck:
        """See `BaseVolume.check`: lists every directory; nothing is compared that only a check by fsck would."""
        found: list[Problem] = []
        try:
            for _ in self.files.all_files():
                pass
        except CorruptImage as error:
            found.append(Problem.of(error))
        return VolumeCheck(tuple(found), not_checked=(f"{self.kind}: only directories are read, as fsck is not run",))

    def close(self) -> None:
        """End the process that reads it."""
        self.process.close()

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`; nothing for data that lies in metadata, and less than the size for compressed data."""
        merged: list[Extent] = []
        for _, at, length in self._place(token).runs:
            if at is None:
                continue
            if merged and merged[-1].offset + merged[-1].length == at:
                merged[-1] = Extent(merged[-1].offset, merged[-1].length + length)
            else:
                merged.append(Extent(at, length))
        return tuple(merged)

    def open_content(self, token: Any) -> Source:
        """Data of the file to which `token` was given.

        Raises:
            KeyUnavailable: The guest encrypted it.
            CorruptImage: Its place can't be found, or is outside of the volume.
        """
        place = self._place(token)
        if place.is_decoded:
            return ProcessContent(self.process, _token(token), place.size)
        return GuestContent(place, self._disk, self._where)

    def _place(self, token: Any) -> _Place:
        key = _token(token)
        return self._places.get_or_make(key, lambda: self._find_place(key))

    def _find_place(self, token: tuple[int, int, int]) -> _Place:
        answer, _ = self.process.ask("content", *token)
        try:
            size, runs, written = int(answer["size"]), answer["runs"], answer["written"]
            if answer["encrypted"]:
                raise KeyUnavailable(f"{self._where}: the file is encrypted by the guest, and is not decrypted")
            if answer["not_here"]:
                raise self.process.bad(f"the file is {answer['not_here']}, which is not undone")
            is_decoded = bool(answer["resident"] or answer["compressed"] or written is None)
            facts = self.process.facts()
            end = size if written is None or is_decoded else int(written)
            found = self._runs(runs, end, facts["block_size"], facts["blocks"])
        except (KeyError, TypeError, ValueError) as error:
            raise self.process.bad(f"its place makes no sense: {error}") from None
        return _Place(size, tuple(found), is_decoded)

    def _runs(
        self, runs: list[list[int | None]], size: int, block: int, blocks: int
    ) -> Iterator[tuple[int, int | None, int]]:
        """Parts of a file, in order, up to `size`.

        Raises:
            CorruptImage: One of them is outside of the volume, or overlaps another one.
        """
        end = 0
        for first, count, at in runs:
            if first is None or count is None or first < 0 or count < 0 or first * block < end:
                raise self.process.bad("its blocks are out of order")
            start = first * block
            if start >= size:
                return
            if not count:
                continue
            length = min(count * block, size - start)
            if at is not None and not 0 <= at <= blocks - count:
                raise self.process.bad(
                    f"{count} blocks from block {at} on are outside of the {blocks} of the file system"
                )
            yield start, None if at is None else self._start + at * block, length
            end = start + count * block

    def _list_root(self) -> list[File | Directory]:
        self._note_state()
        return self._list("", self.process.facts()["root"])

    def _note_state(self) -> None:
        """Report what keeps the files from being as the guest would see them."""
        if not self.kind.startswith("ext"):
            return
        features = int.from_bytes(read_up_to(self._disk, self._start + _SUPERBLOCK + 96, 4), "little")
        if features & _NEEDS_RECOVERY:
            message = "the journal is not replayed: the guest did not unmount it, and its last changes may be missing"
            self._problems.note(self._where, message, self._start + _SUPERBLOCK)
        if features & _ENCRYPT:
            message = "it may have encrypted directories, whose names and files are shown as they are on the disk"
            self._problems.note(self._where, message, self._start + _SUPERBLOCK)

    def _list(self, path: str, number: int) -> list[File | Directory]:
        """Entries of the directory of that number."""
        with self._lock:
            known = self._listed.setdefault(number, path)
        if known != path:
            self._problems.note(self._where, f"{path!r} is {known or '/'!r} again and is left out", self._start)
            return []
        found: list[File | Directory] = []
        limits = self._files.limits
        is_more, seen = True, 0
        while is_more:
            check_deadline()
            try:
                answer, _ = self.process.ask("list", number, seen)
            except WorkerFailed:
                raise
            except CorruptImage as error:
                self._problems.note(self._where, f"{path or '/'!r} can't be listed: {error.message}", error.offset)
                break
            try:
                entries, is_more = answer["entries"], bool(answer["more"])
                for entry in entries:
                    found += self._child(path, entry)
                is_more = is_more and bool(entries)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise self.process.bad(f"the list of {path or '/'!r} makes no sense: {error}") from None
            seen += len(entries)
            check_entries(seen, limits)
        return found

    def _child(self, above: str, entry: list[Any]) -> Iterator[File | Directory]:
        """Entry of a directory as a file or directory; anything else is kept for `others`."""
        name, number, code = str(entry[0]), int(entry[1]), entry[2]
        if self.kind == "hfsplus":  # which keeps characters and their accents apart
            name = unicodedata.normalize("NFC", name)
        path = f"{above}/{name}" if above else name
        if code == "unreadable":
            what = repr(path) if name else f"an entry of {above or '/'!r}"
            reason = " ".join(str(entry[3]).split())[:_LONGEST_REASON]
            self._problems.note(self._where, f"{what} can't be read: {reason}", self._start)
            return
        size, times, owner, link, streams = entry[3:8]
        modified, attributes = self._times(times, owner, code)
        if self._is_system(above, name, number):
            if code == "file":
                with self._lock:
                    self._system_files[name] = File(self._home, name, int(size), modified, (number, 0, 0), attributes)
            return
        self._keep_streams(path, number, streams, modified, attributes)
        if code == "directory":

            def entries() -> list[File | Directory]:
                return self._list(path, number)

            yield Directory(path, modified, entries, fold_case=self._fold_case, attributes=attributes)
        elif code == "file":
            yield File(self._home, path, int(size), modified, (number, 0, 0), attributes)
        elif code == "link":
            with self._lock:
                self._links[path] = str(link)
                self._others[path] = OtherEntry("link", f"{path} -> {link}", path)
        else:
            with self._lock:
                self._others[path] = OtherEntry(str(code), path, path)

    def _keep_streams(
        self, path: str, number: int, streams: list[Any], modified: datetime | None, attributes: FileAttributes
    ) -> None:
        for name, kind, identifier, size in streams:
            where = f"{path}:{name}"
            token = (number, int(kind), int(identifier))
            with self._lock:
                self._streams[where] = File(self._home, where, int(size), modified, token, attributes)
                self._others[where] = OtherEntry("stream", f"{where}, {int(size)} bytes", where)

    def _is_system(self, above: str, name: str, number: int) -> bool:
        """Whether it is a file of the file system itself, which a system that mounts it does not show."""
        if above:
            return False
        if self.kind == "ntfs":
            return number < _NTFS_RESERVED and name.startswith("$")
        if self.kind == "hfsplus":
            return (number < _HFS_FIRST and name.startswith("$")) or name.lstrip("\0\u2400^").endswith(_HFS_PRIVATE)
        return self.kind == "exfat" and (name in _EXFAT_MADE_UP or name.endswith(_EXFAT_LABEL))

    def _times(self, times: list[Any], owner: list[Any], code: str) -> tuple[datetime | None, FileAttributes]:
        modified, accessed, changed, created = (
            _time(int(seconds), int(nanoseconds), is_local=self._system.is_local_time) for seconds, nanoseconds in times
        )
        mode, user, group, _ = map(int, owner)
        type_bits = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}.get(code, 0)
        attributes = FileAttributes(mode & 0o7777, user, group, created, accessed, type_bits, changed=changed)
        return modified, attributes


def _token(token: Any) -> tuple[int, int, int]:
    number, kind, name = token
    return int(number), int(kind), int(name)


def _time(seconds: int, nanoseconds: int, *, is_local: bool) -> datetime | None:
    """Time of that many seconds since 1970; None for 0, which stands for none, and for what is no date."""
    if not seconds:
        return None
    try:
        found = _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
    return found.replace(tzinfo=None) if is_local else found
