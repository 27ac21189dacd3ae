"""An archive as a tree of files, and the detection of its format."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vmvisor_image.archives import tar, zip  # noqa: A004  # the format's name
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.archives.member import (
    LONGEST_PATH,
    MOST_MEMBERS,
    MOST_PATH_BYTES,
    MOST_PROBLEMS,
    ArchiveMember,
    MemberTree,
    Reader,
)
from vmvisor_image.base.forking import ForkSafeLock, cached_property
from vmvisor_image.base.limits import Meter
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.peel import peel
from vmvisor_image.errors import CorruptImage, NotAnArchive, Problem, ProblemList, or_more
from vmvisor_image.files.file import Directory, Extent, File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.schemas.module import ENVELOPE_MAGIC
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.opening import SourceLike, open_source
from vmvisor_image.streams.reading import knows_size, meter_of, read_up_to
from vmvisor_image.streams.source import Closing, ReadAt, Source
from vmvisor_image.streams.views import View

_MOST_COUNTED: Final = 100_000
"""Most members left out that are counted, since counting also reads them."""
_PROGRAMS: Final = (b"MZ", b"\x7fELF", b"#!")
"""First bytes of programs for Windows and Linux, and of scripts; self-extracting archives begin with these."""
HEAD: Final = 1024
"""Number of bytes at its start by which an archive is recognised, except for ISO 9660."""


class Archive(FileTree, Closing):
    """The regular files of an archive by path; of two members with the same path, the later one counts.

    Hard links are files with the content of their target. Symbolic links are in `links`.
    """

    _SKIPS_UNSAFE = False
    _HOLDER = "archive"

    def __init__(self, kind: str, home: ArchiveHome) -> None:
        """Constructor for `open_archive` and `ArchiveHome.files`."""
        self.kind = kind
        """Format of the archive: "tar", "vmtar", "zip", "ar" or "iso9660"."""
        self._home = home
        super().__init__(Directory("", None, home.entries, fold_case=False), home.problems, fold_case=False)
        self.limits = home.meter.limits

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """Every member in archive order, including directories, links and members that a later one replaces."""
        return self._home.members

    @property
    def tree(self) -> MemberTree:
        """The members by path."""
        return self._home.tree

    @property
    def links(self) -> Mapping[str, str]:
        """Target of each symbolic link, as recorded in the archive, by the link's path."""
        return self._home.tree.links

    @property
    def crc32s(self) -> Mapping[str, int | None]:
        """See `FileTree.crc32s`; None for each member of any archive other than a zip."""
        return {member.path: member.crc32 for member in self.members}

    @property
    def layers(self) -> tuple[str, ...]:
        """Kinds of the compressions around the archive, outermost first."""
        return self._home.layers

    def close(self) -> None:
        """Close the source if `open_archive` opened it; a source opened by the caller stays open."""
        self._home.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Archive, (self.kind, self._home))

    def __repr__(self) -> str:
        return f"<Archive {self.kind}>"


@dataclass(frozen=True, slots=True)
class _Opened:
    """An archive without its compressions."""

    inner: Source
    layers: tuple[str, ...]
    """Kinds of the compressions, outermost first."""
    kind: str
    reader: Reader


@dataclass(frozen=True, slots=True)
class _Contents:
    """Contents of an archive, read from its headers."""

    members: tuple[ArchiveMember, ...]
    problems: tuple[Problem, ...]
    tree: MemberTree


class ArchiveHome:
    """Home of an archive's files, which opens the archive on first use and reads its headers when first needed."""

    def __init__(self, given: ReadAt, own: Closing | None = None, *, looks_at_end: bool = True) -> None:
        """Take `given`, which may be compressed, and `own`, closed by `close`; see `find_reader` for `looks_at_end`."""
        self.given = as_source(given)
        self._own = own
        self._looks_at_end = looks_at_end
        self.meter = meter_of(given)
        """Counter of decoded bytes; that of the image that the archive lies in."""
        self._lock = ForkSafeLock()
        self._opened: _Opened | None = None
        self._read: _Contents | None = None

    @property
    def disk(self) -> Source:
        """The archive without its compressions; extents count from its first byte."""
        return self._open().inner

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files that the archive is read from."""
        return self.given.local_paths

    @property
    def layers(self) -> tuple[str, ...]:
        """See `Archive.layers`."""
        return self._open().layers

    @property
    def kind(self) -> str:
        """See `Archive.kind`."""
        return self._open().kind

    @property
    def members(self) -> tuple[ArchiveMember, ...]:
        """See `Archive.members`."""
        return self._load().members

    @property
    def tree(self) -> MemberTree:
        """The members by path."""
        return self._load().tree

    @property
    def files(self) -> Archive:
        """The archive."""
        return Archive(self.kind, self)

    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far."""
        return () if self._read is None else self._read.problems

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """See `FileHome.locate`; the token is the extents."""
        found: tuple[Extent, ...] = token
        return found

    def entries(self) -> list[File | Directory]:
        """Files and directories in the root directory."""
        return self.tree.entries()

    def _file(self, member: ArchiveMember) -> File | None:
        real = self.tree.real(member)
        if real is None or real.kind != "file":
            return None
        if real.content is not None:
            extents = (Extent(0, real.size),) if real.size else ()
            return File(MemberHome(self, member.path), member.path, real.size, member.modified, extents)
        return File(self, member.path, real.size, member.modified, real.extents)

    def _open(self) -> _Opened:
        with self._lock:
            if self._opened is None:
                layers = peel(self.given, None, LayerOptions(meter=self.meter))
                inner = layers[-1].source if layers else self.given
                kind, reader = find_reader(inner, looks_at_end=self._looks_at_end)
                self._opened = _Opened(inner, tuple(layer.kind for layer in layers), kind, reader)
            return self._opened

    def _load(self) -> _Contents:
        with self._lock:
            if self._read is None:
                opened = self._open()
                members: list[ArchiveMember] = []
                problems = ProblemList("archive", MOST_PROBLEMS + 1)  # a CD's last one reports those left out
                last: list[Problem] = []
                path_bytes = left_out = 0
                most = min(MOST_MEMBERS, self.meter.limits.entries)
                try:
                    for member in opened.reader(Metered(opened.inner, self.meter), problems.add):
                        if len(members) == most or path_bytes > MOST_PATH_BYTES:
                            left_out += 1
                            if left_out == _MOST_COUNTED:
                                break
                            continue
                        if len(member.path) > LONGEST_PATH:
                            message = f"a member whose path has {len(member.path)} characters is left out"
                            problems.add(Problem("archive", message, member.offset))
                            continue
                        members.append(member)  # members read before damage are kept
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
                self._read = _Contents(tuple(members), tuple(dict.fromkeys((*problems.found, *last))), tree)
            return self._read

    def close(self) -> None:
        """See `Archive.close`."""
        if self._own is not None:
            self._own.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (functools.partial(ArchiveHome, looks_at_end=self._looks_at_end), (self.given, self._own))


class Metered(View):
    """A view of any source, whose readers share one counter."""

    def __init__(self, source: ReadAt, meter: Meter) -> None:
        super().__init__(source)
        self._meter = meter

    @property
    def meter(self) -> Meter:
        """See `Source.meter`."""
        return self._meter


def open_archive(source: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> Archive:
    """The archive in `source`, without its compressions (gzip, xz, zstd, bzip2) and its signature.

    Its headers are read when a file is first requested. If opened from a path or URL, use it as a context manager or
    close it.

    Args:
        source: A `File` of an image, or anything else that `Image.open` takes.
        storage_options: See `Image.open`.

    Raises:
        SourceError: The file can't be opened.
        NotAnArchive: The source is not an archive.
        CorruptImage: Its compression can't be opened.
        InvalidArgument: `source` can't be used as a source.
    """
    opened = open_source(source, storage_options)
    home = ArchiveHome(opened.source, opened)
    try:
        return Archive(home.kind, home)
    except BaseException:
        opened.close()
        raise


def find_reader(source: ReadAt, *, looks_at_end: bool = True) -> tuple[str, Reader]:
    """Kind of the archive in `source`, and the function that reads its members.

    Args:
        source: The data to examine.
        looks_at_end: Whether to look for a zip archive behind any data, which costs a read at the end of the source;
            if False, or if the size is known only after decoding, it is looked for only behind a program.

    Raises:
        NotAnArchive: The source is not an archive.
    """
    head = read_up_to(source, 0, HEAD)
    for each in ARCHIVES:
        if (kind := each.kind_of(source, head)) is not None:
            return kind, each.read_members
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
    names = [each.NAME.partition(" (")[0] for each in ARCHIVES]
    message = f"neither {', '.join(names[:-1])} nor {names[-1]}"
    raise NotAnArchive(message, structure="archive", offset=0, found=head[:8].hex(" "))


class MemberHome:
    """Home of a file whose bytes are not stored in the archive as they are: its decoded content."""

    def __init__(self, archive: ArchiveHome, path: str) -> None:
        """Take the archive, and the path of the member within it."""
        self._archive = archive
        self._path = path

    @cached_property
    def disk(self) -> Source:
        """The content.

        Raises:
            CorruptImage: The archive was opened again and no longer holds the file.
        """
        tree = self._archive.tree
        member = tree.by_path.get(self._path)
        real = None if member is None else tree.real(member)
        if real is None or real.content is None:
            raise CorruptImage(f"{self._path!r} is not in it any more", structure="archive")
        return real.content

    @property
    def meter(self) -> Meter:
        """Counter of decoded bytes."""
        return self._archive.meter

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files that the archive is read from."""
        return self._archive.local_paths

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
