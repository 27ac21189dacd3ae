"""Archives: what holds files without being a volume of a disk. One module each, which recognises and opens it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from vmvisor_image.errors import CorruptImage, NotAnArchive, Problem, ProblemList, or_more
from vmvisor_image.files import Directory, Extent, File, FileTree
from vmvisor_image.forking import ForkSafeLock, cached_property
from vmvisor_image.layers import LayerOptions, peel
from vmvisor_image.limits import Meter, meter_of
from vmvisor_image.schemas.module import ENVELOPE_MAGIC
from vmvisor_image.sources import Source, open_source
from vmvisor_image.streams import Closing, ReadAt, knows_size, read_up_to

MemberKind = Literal["file", "directory", "symlink", "hardlink", "device", "fifo"]
MOST_MEMBERS: Final = 1_000_000
"""Members past this many are not looked at: no module has 100,000, and each takes memory."""
LONGEST_PATH: Final = 4096
"""PATH_MAX of Linux."""
MOST_PATH_BYTES: Final = 256 << 20
"""Bytes of all paths, of those of the directories above them, and of what links lead to: what 700,000 members of a
usual system take."""
MOST_PROBLEMS: Final = 1000
"""Problems of one archive or CD that are kept; of more the number is told."""
_MOST_COUNTED: Final = 100_000
"""Members that are left out: counting them reads them."""
_MOST_LINKS: Final = 32
"""Hard links from one to the next: archivers write one."""
_PROGRAMS: Final = (b"MZ", b"\x7fELF", b"#!")
"""What programs begin with: Windows', Linux' and scripts; archives that extract themselves are such ones."""
HEAD: Final = 1024
"""Bytes from its start by which an archive is known, ISO 9660 apart."""


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One member of an archive, as its header says."""

    path: str
    """POSIX path, without a leading ``/`` or ``./``; anything else, ``..`` too, is as it is in the archive."""
    kind: MemberKind
    size: int
    """Bytes of a file; 0 for anything else."""
    modified: datetime | None
    """With its zone, where that is known."""
    mode: int = 0o644
    """Permissions."""
    owner: int = 0
    """User id."""
    group: int = 0
    """Group id."""
    target: str | None = None
    """What a link leads to, as it is written."""
    offset: int | None = None
    """Where its header lies, in bytes from the archive's start."""
    extents: tuple[Extent, ...] = ()
    """Where a file's data lies in the archive, for a file whose bytes lie there as they are."""
    content: ReadAt | None = None
    """A file's data, for one whose bytes do not."""
    crc32: int | None = None
    """CRC-32 of a file's data as the archive says; zip only."""


class Archive(FileTree, Closing):
    """The regular files of an archive by path; of two members with one path, the later one counts.

    Hard links are files with the content of what they lead to. Symbolic links are in `links`.
    """

    _SKIPS_UNSAFE = False

    def __init__(self, kind: str, home: ArchiveHome) -> None:
        """Made by `open_archive`."""
        self.kind = kind
        """"tar", "vmtar", "zip", "ar" or "iso9660"."""
        self._home = home
        super().__init__(Directory("", None, home.entries, fold_case=False), home.problems, fold_case=False)
        self.limits = home.meter.limits

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """Every member in archive order: directories, links and those that a later one replaces, too."""
        return self._home.members

    @property
    def tree(self) -> MemberTree:
        """The members by path."""
        return self._home.tree

    @property
    def links(self) -> Mapping[str, str]:
        """Where each symbolic link leads to, as it is written, by the link's path."""
        return self._home.tree.links

    @property
    def layers(self) -> tuple[str, ...]:
        """Kinds of the compressions around it, outermost first."""
        return self._home.layers

    def close(self) -> None:
        """Close what `open_archive` opened for it; what the caller opened stays open."""
        self._home.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Archive, (self.kind, self._home))

    def __repr__(self) -> str:
        return f"<Archive {self.kind}>"


class ArchiveHome:
    """Opens an archive when it is first used, and reads its headers when one is first asked for."""

    def __init__(self, given: ReadAt, own: Closing | None = None, *, looks_at_end: bool = True) -> None:
        """Take `given`, which may be compressed, and what is closed with it; for `looks_at_end` see `find_reader`."""
        self.given = given
        self._own = own
        self._looks_at_end = looks_at_end
        self.meter = meter_of(given)
        """Counts what is decoded; that of the image that it lies in."""
        self._lock = ForkSafeLock()
        self._opened: tuple[ReadAt, tuple[str, ...], str, Reader] | None = None
        self._read: tuple[tuple[ArchiveMember, ...], tuple[Problem, ...], MemberTree] | None = None

    @property
    def disk(self) -> ReadAt:
        """The archive without its compression; what extents count from."""
        return self._open()[0]

    @property
    def layers(self) -> tuple[str, ...]:
        """See `Archive.layers`."""
        return self._open()[1]

    @property
    def kind(self) -> str:
        """See `Archive.kind`."""
        return self._open()[2]

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """See `Archive.members`."""
        return self._load()[0]

    @property
    def tree(self) -> MemberTree:
        """The members by path."""
        return self._load()[2]

    @property
    def files(self) -> Archive:
        """The archive."""
        return Archive(self.kind, self)

    def problems(self) -> tuple[Problem, ...]:
        """What was found damaged so far."""
        return () if self._read is None else self._read[1]

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the extents."""
        found: tuple[Extent, ...] = token
        return found

    def entries(self) -> list[File | Directory]:
        """What the root directory holds."""
        return self.tree.entries()

    def _file(self, member: ArchiveMember) -> File | None:
        real = self.tree.real(member)
        if real is None or real.kind != "file":
            return None
        if real.content is not None:
            extents = (Extent(0, real.size),) if real.size else ()
            return File(MemberHome(self, member.path), member.path, real.size, member.modified, extents)
        return File(self, member.path, real.size, member.modified, real.extents)

    def _open(self) -> tuple[ReadAt, tuple[str, ...], str, Reader]:
        with self._lock:
            if self._opened is None:
                layers = peel(self.given, None, LayerOptions(meter=self.meter))
                inner = layers[-1].source if layers else self.given
                kind, reader = find_reader(inner, looks_at_end=self._looks_at_end)
                self._opened = (inner, tuple(layer.kind for layer in layers), kind, reader)
            return self._opened

    def _load(self) -> tuple[tuple[ArchiveMember, ...], tuple[Problem, ...], MemberTree]:
        with self._lock:
            if self._read is None:
                source, _, _, reader = self._open()
                members: list[ArchiveMember] = []
                problems = ProblemList("archive", MOST_PROBLEMS + 1)  # of a CD one tells of those left out
                last: list[Problem] = []
                path_bytes = left_out = 0
                most = min(MOST_MEMBERS, self.meter.limits.entries)
                try:
                    for member in reader(Metered(source, self.meter), problems.add):
                        if len(members) == most or path_bytes > MOST_PATH_BYTES:
                            left_out += 1
                            if left_out == _MOST_COUNTED:
                                break
                            continue
                        if len(member.path) > LONGEST_PATH:
                            message = f"a member whose path has {len(member.path)} characters is left out"
                            problems.add(Problem("archive", message, member.offset))
                            continue
                        members.append(member)  # what was read before damage is kept
                        path_bytes += len(member.path) * (member.path.count("/") + 1) + len(member.target or "")
                except CorruptImage as error:
                    last.append(Problem.of(error))
                if left_out:
                    message = f"{or_more(left_out, _MOST_COUNTED)} members after the first {len(members)} are left out"
                    last.append(Problem("archive", message))
                tree = MemberTree(members, self._file)
                for member in tree.by_path.values():
                    if (where := tree.fault_of_link(member)) is not None:
                        message = f"{member.path!r} leads {where}: {member.target!r}"
                        problems.add(Problem("hard link", message, member.offset))
                self._read = (tuple(members), tuple(dict.fromkeys((*problems.found, *last))), tree)
            return self._read

    def close(self) -> None:
        """See `Archive.close`."""
        if self._own is not None:
            self._own.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (functools.partial(ArchiveHome, looks_at_end=self._looks_at_end), (self.given, self._own))


class Metered:
    """A source whose readers count together, whatever it is."""

    def __init__(self, source: ReadAt, meter: Meter) -> None:
        self._source, self.meter = source, meter

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._source.size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        return self._source.read_at(offset, length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


Reader = Callable[[ReadAt, Callable[[Problem], None]], Iterable[ArchiveMember]]
"""Reads an archive's members, and is told whom to tell of damage."""


def open_archive(source: Source) -> Archive:
    """The archive in `source`, taken out of its compression (gzip, xz, zstd, bzip2) and its signature.

    Its headers are read when a file is first asked for. Of a path or URL it is a context manager, or has to be closed.

    Args:
        source: A `File` of an image, or anything else that `Image.open` takes.

    Raises:
        OSError: The file can't be opened.
        NotAnArchive: It is none.
        CorruptImage: Its compression can't be opened.
        InvalidArgument: It is no source.
    """
    opened = open_source(source)
    home = ArchiveHome(opened.source, opened)
    try:
        return Archive(home.kind, home)
    except BaseException:
        opened.close()
        raise


def find_reader(source: ReadAt, *, looks_at_end: bool = True) -> tuple[str, Reader]:
    """Kind of the archive that `source` is, and what reads it.

    Args:
        source: What may be one.
        looks_at_end: Whether it may be a zip archive behind anything, which costs a read at its end; where that is
            known only after decoding, and where this is False, it may be one behind a program only.

    Raises:
        NotAnArchive: It is none.
    """
    from vmvisor_image.archives import ar, tar, zip  # noqa: A004  # the format's name
    from vmvisor_image.volumes import iso9660

    head = read_up_to(source, 0, HEAD)
    if tar.probe(head):
        return tar.kind(head), tar.read_members
    for module in (zip, ar):
        if module.probe(head):
            return module.KIND, module.read_members
    if iso9660.probe(source, 0):
        return iso9660.KIND, iso9660.read_members
    is_program = head.startswith(_PROGRAMS)
    if (is_program or (looks_at_end and knows_size(source))) and zip.probe_end(source, may_go_on=is_program):
        return zip.KIND, zip.read_members
    if tar.probe_empty(head):
        return tar.KIND, tar.read_members
    if head.startswith(ENVELOPE_MAGIC):
        raise NotAnArchive(
            "it is an encrypted configuration (local.tgz.ve): open the state.tgz that it is from with"
            " vmvisor_image.boot.state",
            structure="archive",
            offset=0,
        )
    raise NotAnArchive(
        "neither tar, vmtar, zip, ar nor ISO 9660", structure="archive", offset=0, found=head[:8].hex(" ")
    )


class MemberTree:
    """Members by path, and the directories above them; of two with one path, the later one counts."""

    def __init__(self, members: Iterable[ArchiveMember], file_of: Callable[[ArchiveMember], File | None]) -> None:
        """Take members in order, and what makes a file of one; None for a member that is no regular file."""
        self.by_path: dict[str, ArchiveMember] = {}
        """The last member of each path."""
        self._file_of = file_of
        self._children: dict[str, dict[str, str | None]] = {"": {}}
        """Names in each directory, in archive order; the value is the path of a directory, None for anything else."""
        self._linked: dict[str, ArchiveMember] = {}
        """What the hard link at a path leads to: what was at its target when the link came."""
        for member in members:
            self._add(member)

    def get(self, path: str) -> ArchiveMember | None:
        """The member of that path, unless it or a directory above it was replaced."""
        member = self.by_path.get(path)
        above, _, name = path.rpartition("/")
        if member is None or name not in self._children.get(above, ()):
            return None
        is_directory = self._children[above][name] is not None
        return member if is_directory == (member.kind == "directory") and self._is_reached(above) else None

    def real(self, member: ArchiveMember) -> ArchiveMember | None:
        """What a hard link leads to, any other member itself; None where that is not there."""
        found: ArchiveMember | None = member
        for _ in range(_MOST_LINKS):
            if found is None or found.kind != "hardlink":
                return found
            is_last = self.by_path.get(found.path) is found
            linked = self._linked.get(found.path) if is_last else None
            found = self.by_path.get(found.target or "") if linked is None else linked
        return None

    def fault_of_link(self, member: ArchiveMember) -> str | None:
        """Where the hard link at a path leads, where that is no place for one to lead to."""
        if member.kind != "hardlink":
            return None
        real = self.real(member)
        if real is None or real.kind == "directory":
            return "nowhere" if real is None else "to a directory"
        return None if member.path in self._linked else "to what comes only behind it"

    @property
    def links(self) -> Mapping[str, str]:
        """Where each symbolic link leads to, by its path; a hard link to one is one, too."""
        return MappingProxyType(
            {
                path: real.target or ""
                for path, member in self.by_path.items()
                if (real := self.real(member)) is not None and real.kind == "symlink" and self.get(path) is member
            }
        )

    def entries(self, path: str = "") -> list[File | Directory]:
        """Files and directories in the directory at `path`."""
        found: list[File | Directory] = []
        for name, below in self._children.get(path, {}).items():
            whole = f"{path}/{name}" if path else name
            member = self.by_path.get(whole)
            if below is not None:
                modified = member.modified if member is not None and member.kind == "directory" else None
                found.append(Directory(whole, modified, functools.partial(self.entries, whole), fold_case=False))
            elif member is not None and (file := self._file_of(member)) is not None:
                found.append(file)
        return found

    def _is_reached(self, directory: str) -> bool:
        """Whether a directory and those above it are still directories."""
        while directory:
            above, _, name = directory.rpartition("/")
            if self._children.get(above, {}).get(name) is None:
                return False
            directory = above
        return True

    def _add(self, member: ArchiveMember) -> None:
        linked = None
        if member.kind == "hardlink":
            there = self.get(member.target or "")
            linked = None if there is None else self.real(there)
            if linked is not None and member.target == member.path:
                return  # GNU tar writes a file that is named twice so: it stays as it is
        parts = member.path.split("/")
        above = ""
        for part in parts[:-1]:
            here = f"{above}/{part}" if above else part
            self._children.setdefault(above, {})[part] = here
            above = here
        siblings = self._children.setdefault(above, {})
        if member.kind == "directory":
            siblings[parts[-1]] = member.path
        else:
            siblings[parts[-1]] = None  # also in the place of a directory
            self._children.pop(member.path, None)
        self.by_path[member.path] = member
        if linked is not None:
            self._linked[member.path] = linked
        else:
            self._linked.pop(member.path, None)


class MemberHome:
    """Where a file lies whose bytes are not in the archive as they are: its own content."""

    def __init__(self, archive: ArchiveHome, path: str) -> None:
        """Take the archive, and the path of the member in it."""
        self._archive = archive
        self._path = path

    @cached_property
    def disk(self) -> ReadAt:
        """The content.

        Raises:
            CorruptImage: The archive was opened again, and is another one.
        """
        tree = self._archive.tree
        member = tree.by_path.get(self._path)
        real = None if member is None else tree.real(member)
        if real is None or real.content is None:
            raise CorruptImage(f"{self._path!r} is not in it any more", structure="archive")
        return real.content

    @property
    def meter(self) -> Meter:
        """Counts what is decoded."""
        return self._archive.meter

    @property
    def files(self) -> Archive:
        """The archive, for files beside this one."""
        return self._archive.files

    def __reduce__(self) -> tuple[Any, ...]:
        return (MemberHome, (self._archive, self._path))

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the extents."""
        found: tuple[Extent, ...] = token
        return found
