"""Containers around a disk (installer CDs, tar and zip archives), and the search for the disk among their files.

The installers of ESX 3i 3.5 and ESXi 4 keep the image in known places; see docs/media.md. In any other container, the
disk is the one file with the name of a disk image, or the only file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vmvisor_image.archives import iso9660
from vmvisor_image.archives.archive import HEAD, ArchiveHome
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.base.names import fold_name
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.compressions.layer import Layer, LayerOptions
from vmvisor_image.compressions.peel import inner_name_of, peel
from vmvisor_image.errors import CorruptImage, MemberNotFound, NoDiskImage, PathNotFound, Problem, SeveralImages
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.layers.known_files import recognise
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.streams.reading import meter_of, read_up_to
from vmvisor_image.streams.source import ReadAt


def _one_of(suffixes: Iterable[str]) -> str:
    """Pattern that matches any of the suffixes."""
    return f"({'|'.join(map(re.escape, suffixes))})"


COMPRESSED_SUFFIXES: Final = tuple(suffix for each in COMPRESSIONS for suffix in each.SUFFIXES)
"""Suffixes of compressed files."""
_COMPRESSED: Final = _one_of(COMPRESSED_SUFFIXES)

INSTALLER_IMAGES: Final = (
    re.compile(rf"usr/lib/vmware/installer/[^/]+\.dd{_COMPRESSED}?", re.IGNORECASE),
    re.compile(r"imagedd\.bz2", re.IGNORECASE),
)
"""Paths of the image of an installer: in ``install.tgz`` (3.5) or ``image.tgz`` (4.0), or in the CD's root (4.1)."""
INSTALLER_ARCHIVES: Final = ("image.tgz", "install.tgz")
"""Archives of an installer CD that hold the image; 4.0 has both, with the image in the first."""

CD_SUFFIXES: Final = iso9660.SUFFIXES
DISK_SUFFIXES: Final = (
    *(".dd", ".img", ".raw"),
    *(suffix for each in VIRTUAL_DISKS for suffix in each.SUFFIXES),
    *CD_SUFFIXES,
)
"""Suffixes of disk images and CDs, without those of compressions behind them."""
ARCHIVE_SUFFIXES: Final = (
    *(suffix for each in COMPRESSIONS for suffix in each.TAR_SUFFIXES),
    *(suffix for each in ARCHIVES if each.HOLDS_DISKS for suffix in each.SUFFIXES),
)
"""Suffixes of archives that may hold a disk."""
_DISK: Final = re.compile(rf"(?!.*(^|/)efiboot\.img$).*{_one_of(DISK_SUFFIXES)}{_COMPRESSED}?", re.IGNORECASE)
_ARCHIVE: Final = re.compile(rf".*({_one_of(ARCHIVE_SUFFIXES)}|\.tar{_COMPRESSED})", re.IGNORECASE)
_EXTENT: Final = re.compile(r"(.*)-(flat|delta|sesparse|[sf]\d{3,})\.vmdk", re.IGNORECASE)
"""Names of VMDK extents whose descriptor is a separate file; the first group is the descriptor's name."""
_MOST_ARCHIVES: Final = 8
"""Largest number of archives in a container that are searched."""
_DEEPEST: Final = 3
_MOST_NAMES: Final = 20
_MOST_REMARKS: Final = 3
"""Largest number of problems listed in an error."""

Report = Callable[[Problem], None]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that may be the disk."""

    name: str
    """Path of the file; in an archive of the container, the archive's path followed by the file's."""
    layers: tuple[Layer, ...]
    """Layers from the container to the file."""


def open_container(
    source: ReadAt, name: str | None, options: LayerOptions, *, looks_at_end: bool = True
) -> tuple[Layer, ...]:
    """The layers of the container in `source` and of those nested in it, up to the disk; empty for anything else.

    An ISO 9660 volume that holds no disk does not count as a container: it is the disk itself. See
    `vmvisor_image.archives.archive.find_reader` for `looks_at_end`.

    Raises:
        NoDiskImage: An archive holds no disk, or is a known file of a host that never holds one.
        SeveralImages: The container holds more than one disk, and `options.member` is None.
        MemberNotFound: The container holds no file `options.member`.
    """
    opened = _open(source, looks_at_end=looks_at_end)
    if opened is None:
        return ()
    kind, files = opened
    if options.member is not None:
        return _named(kind, name, files, options.member)
    structure = f"{kind} {'volume' if kind == 'iso9660' else 'archive'}"
    if (known := recognise(kind, files)) is not None:
        known_one = NoDiskImage(
            f"it is {known.name}, not a disk image: `{known.command}` reads it{known.also}", structure=structure
        )
        known_one.members = tuple(list(files)[:_MOST_NAMES])
        raise known_one
    passed_over: dict[Problem, None] = {}
    found = list(_candidates(kind, name, files, 0, passed_over.setdefault))
    if options.report is not None and len(found) <= 1:
        for problem in passed_over:
            options.report(problem)
    if len(found) == 1:
        return found[0].layers
    if not found and kind == "iso9660":
        return ()
    if not found:
        hint = "; it is a boot module: `vmvisor-image module SRC` reads it" if kind == "vmtar" else ""
        damage = "".join(f"; it is damaged: {problem}" for problem in files.problems[:1])
        none = NoDiskImage(
            f"it holds nothing that looks like a disk image: {_listing(list(files))}{hint}{damage}"
            + _remarks((*files.problems[1:], *passed_over)),
            structure=structure,
        )
        none.members = tuple(list(files)[:_MOST_NAMES])
        raise none
    several = SeveralImages(
        "it holds several disk images, name one as member: "
        + _listing([candidate.name for candidate in found])
        + _remarks(passed_over),
        structure=structure,
    )
    several.members = tuple(candidate.name for candidate in found)
    raise several


def _open(source: ReadAt, *, looks_at_end: bool = True) -> tuple[str, FileTree] | None:
    try:
        archive = ArchiveHome(source, looks_at_end=looks_at_end).files
    except CorruptImage:
        return None  # the damage is reported when the source is read as a disk
    if archive.kind == "tar" and not any(read_up_to(source, 0, HEAD)):
        return None  # zeros are an empty disk here, but a tar without members where an archive is expected
    return archive.kind, archive


def _candidates(kind: str, name: str | None, files: FileTree, depth: int, report: Report) -> Iterator[_Candidate]:
    found = [file for file in files.values() if any(rule.fullmatch(file.path) for rule in INSTALLER_IMAGES)]
    if not found:
        for archive in INSTALLER_ARCHIVES:
            file = _get(files, archive)
            inside = [] if file is None or depth else list(_inside(kind, name, files, file, depth, report))
            if inside:
                yield from inside
                return
        if kind == "iso9660" and _get(files, "boot.cfg") is not None:
            return  # an installer of ESXi 5 or later, which creates the partitions from its modules
        found = _disks(files)
    if not found and kind != "iso9660":
        whole = list(files.values())
        if len(whole) == 1 and not _ARCHIVE.fullmatch(whole[0].path):
            found = whole
    for file in found:
        yield _Candidate(file.path, (Layer(kind, name, file, files),))
    if found:
        return
    archives = [file for file in files.values() if _ARCHIVE.fullmatch(file.path)]
    most = _MOST_ARCHIVES if depth < _DEEPEST else 0
    for file in archives[:most]:
        yield from _inside(kind, name, files, file, depth, report)
    if len(archives) > most:
        where = f"after the first {most}" if most else f"more than {_DEEPEST} deep in each other"
        report(Problem("container", f"archives {where} are not opened: {len(archives) - most}"))


def _disks(files: FileTree) -> list[File]:
    """Files with the name of a disk image, without the extents of a VMDK whose descriptor is also there."""
    found = [file for file in files.values() if is_disk_name(file.path)]
    parts = extents_among(file.path for file in found)
    return [file for file in found if file.path not in parts]


def is_disk_name(path: str) -> bool:
    """Whether a path has the suffix of a disk image or CD, maybe with that of a compression behind it."""
    return _DISK.fullmatch(path) is not None


def extents_among(paths: Iterable[str]) -> frozenset[str]:
    """Those of some paths that are extents of a VMDK whose descriptor is also among them."""
    given = tuple(paths)
    folded = {fold_name(path) for path in given}
    matches = ((path, _EXTENT.fullmatch(path)) for path in given)
    return frozenset(path for path, match in matches if match and fold_name(f"{match.group(1)}.vmdk") in folded)


def _inside(
    kind: str, name: str | None, files: FileTree, file: File, depth: int, report: Report
) -> Iterator[_Candidate]:
    """Candidates in an archive of the container; an archive that can't be opened is passed to `report`."""
    way = _way_into(kind, name, files, file)
    if way is None:
        report(Problem("container", f"{file.path!r} is not an archive that can be opened, and is skipped"))
        return
    layers, inner_kind, inner_name, inner = way

    def report_inside(problem: Problem) -> None:
        report(Problem(problem.structure, f"in {file.path!r}: {problem.message}", problem.offset))

    found = list(_candidates(inner_kind, inner_name, inner, depth + 1, report_inside))
    if not found:  # the layers of an archive that holds the disk report their own problems
        for problems in (*(layer.source.problems for layer in layers[1:]), inner.problems):
            for problem in problems:
                report_inside(problem)
    for candidate in found:
        yield _Candidate(f"{file.path}/{candidate.name}", (*layers, *candidate.layers))


def _way_into(
    kind: str, name: str | None, files: FileTree, file: File
) -> tuple[tuple[Layer, ...], str, str | None, FileTree] | None:
    """Layers up to the archive in `file`, with its kind, name and files; None where there is no readable archive."""
    try:
        compressions = peel(file, file.path, LayerOptions(meter=meter_of(file)))
        opened = _open(compressions[-1].source if compressions else file)
    except CorruptImage:
        return None  # another archive may be intact
    if opened is None:
        return None
    inner_kind, inner = opened
    inner_name = inner_name_of(compressions[-1]) if compressions else file.path
    return (Layer(kind, name, file, files), *compressions), inner_kind, inner_name, inner


def _named(kind: str, name: str | None, files: FileTree, member: str) -> tuple[Layer, ...]:
    """Layers up to the file `member`: its path, or an archive's path followed by the file's path within it.

    Raises:
        MemberNotFound: There is no such file.
    """
    found = _get(files, member)
    if found is not None:
        return (Layer(kind, name, found, files),)
    for archive in files.values():
        if fold_name(member).startswith(f"{fold_name(archive.path)}/"):
            way = _way_into(kind, name, files, archive)
            if way is not None:
                layers, inner_kind, inner_name, inner = way
                return (*layers, *_named(inner_kind, inner_name, inner, member[len(archive.path) + 1 :]))
    paths = list(files)
    raise MemberNotFound(f"no file {member!r} in it; there are {_listing(paths)}", wanted=member, names=paths)


def _get(files: FileTree, path: str) -> File | None:
    try:
        return files[path]
    except PathNotFound:
        wanted = fold_name(path)
        return next((file for file in files.values() if fold_name(file.path) == wanted), None)


def _remarks(problems: Iterable[Problem]) -> str:
    """Text about problems, to be appended to a message."""
    shown = [str(problem) for problem in problems]
    more = f"; and {len(shown) - _MOST_REMARKS} more problems" if len(shown) > _MOST_REMARKS else ""
    return "".join(f"; {remark}" for remark in shown[:_MOST_REMARKS]) + more


def _listing(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMES])) or "no files"
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"
