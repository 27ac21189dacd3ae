"""Offline bundles and depots: packages, with the metadata that lists them.

Source: 23 public bundles for ESXi 5.1 to 9.0. Whole releases of ESXi have more kinds of metadata: of these, base images
and add-ons are read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from vmvisor_image.archives.archive import Archive, open_archive
from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.xml_tree import LARGEST, Element, parse_xml
from vmvisor_image.errors import CorruptImage, InvalidArgument, NotAnArchive, Problem, ProblemList, VmvisorImageError
from vmvisor_image.files.file import File
from vmvisor_image.files.safe_names import check_name
from vmvisor_image.packages.descriptor import VibDescriptor, parse_descriptor, parse_time
from vmvisor_image.packages.profile import ImageProfile, parse_profile
from vmvisor_image.packages.release_unit import FOLDERS, Kind, ReleaseUnit, parse_release_unit
from vmvisor_image.packages.vib import Vib, open_vib
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.opening import SourceLike, open_remote, open_source, path_of
from vmvisor_image.streams.reading import chunks, read_up_to
from vmvisor_image.streams.source import Closing, ReadAt, Source
from vmvisor_image.streams.sources import FileSource
from vmvisor_image.streams.urls import is_url

INDEX: Final = "index.xml"
VENDOR_INDEX: Final = "vendor-index.xml"
_STRUCTURE: Final = "bundle"
ZIP: Final = b"PK\3\4"
"""First bytes of a zip file with a file in it."""
_MOST_ARCHIVES: Final = 1000
"""Most metadata archives that are opened; the depot of all of VMware's releases has some hundreds."""


@dataclass(frozen=True, slots=True)
class BundledVib:
    """A package as a bundle's metadata lists it; `open` opens the package itself."""

    id: str
    """Id of the package, as `VibDescriptor.id`."""
    path: str | None
    """Path of the package in the bundle; None where the metadata does not say it."""
    size: int | None
    """Number of bytes of the package by the metadata; None where that is not said."""
    sha256: str | None
    """SHA-256 of the package by the metadata, in hexadecimal; None where that is not said."""
    descriptor: VibDescriptor | None
    """Description in the metadata; None without one. That in the package itself is the one that is signed."""
    _open: Callable[[str], ReadAt]

    def open(self) -> Vib:
        """The package.

        Raises:
            PathNotFound: The bundle does not have it; also another OSError, from a folder or a server.
            NotAnArchive: It is no VIB.
            CorruptImage: It can't be read, or the metadata does not say where it is.
        """
        return open_vib(self.source())

    def source(self) -> ReadAt:
        """Bytes of the package.

        Raises:
            PathNotFound: The bundle does not have it; also another OSError, from a folder or a server.
            CorruptImage: The metadata does not say where it is.
        """
        if self.path is None:
            raise CorruptImage(f"the metadata does not say where {self.id!r} is", structure=_STRUCTURE)
        return self._open(self.path)


@dataclass(frozen=True, slots=True)
class Bulletin:
    """A patch, an extension or, from ESXi 7 on, a component: packages that are released together."""

    id: str
    vendor: str | None
    summary: str | None
    severity: str | None
    released: datetime | None
    vib_ids: tuple[str, ...]
    component: str | None
    """Name of the component; None for a bulletin that is none."""
    version: str | None
    """Version of the component; None for a bulletin that is none."""


@dataclass(frozen=True, slots=True)
class _Metadata:
    vibs: Mapping[str, BundledVib]
    bulletins: Mapping[str, Bulletin]
    profiles: Mapping[str, ImageProfile]
    units: Mapping[str, ReleaseUnit]
    unread: tuple[str, ...]
    problems: tuple[Problem, ...]


class Bundle(Closing):
    """An offline bundle or depot. One made from a path or URL is used as a context manager, or has to be closed."""

    def __init__(self, name: str | None, open_path: Callable[[str], ReadAt], close: Callable[[], None]) -> None:
        """Made by `open_bundle`."""
        self.name = name
        """Path or URL of the bundle; None for one without."""
        self._open_path = open_path
        self._close = close

    @property
    def vibs(self) -> Mapping[str, BundledVib]:
        """Packages that the metadata lists, by id."""
        return self._metadata.vibs

    @property
    def bulletins(self) -> Mapping[str, Bulletin]:
        """Patches, extensions and components by id."""
        return self._metadata.bulletins

    @property
    def components(self) -> Mapping[str, Bulletin]:
        """Components, from ESXi 7 on, by id: the bulletins that name one."""
        found = {key: each for key, each in self.bulletins.items() if each.component is not None}
        return MappingProxyType(found)

    @property
    def profiles(self) -> Mapping[str, ImageProfile]:
        """Image profiles by name; bundles of single packages have none."""
        return self._metadata.profiles

    @property
    def base_images(self) -> Mapping[str, ReleaseUnit]:
        """Base images, from ESXi 7 on, by id; bundles of single packages have none."""
        return self._units("base image")

    @property
    def add_ons(self) -> Mapping[str, ReleaseUnit]:
        """Add-ons of vendors, from ESXi 7 on, by id."""
        return self._units("add-on")

    @property
    def unread(self) -> tuple[str, ...]:
        """Paths of documents in the metadata that are of no kind that is read, each behind that of its archive."""
        return self._metadata.unread

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage of the metadata; `check` looks at the packages."""
        return self._metadata.problems

    def check(self) -> tuple[Problem, ...]:
        """Problems of the bundle and of all its packages, which are read and decoded whole.

        Each package is compared with the size, the SHA-256 and the id that the metadata has for it.
        """
        found = list(self.problems)
        for listed in self.vibs.values():
            try:
                found += _check(listed)
            except (OSError, KeyError, VmvisorImageError) as error:
                found.append(Problem(_STRUCTURE, f"package {listed.id!r} can't be read: {error}"))
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Close what was opened for the bundle."""
        self._close()

    @cached_property
    def _metadata(self) -> _Metadata:
        return _Reader(self._open_path).read()

    def _units(self, kind: Kind) -> Mapping[str, ReleaseUnit]:
        return MappingProxyType({key: each for key, each in self._metadata.units.items() if each.kind == kind})

    def __repr__(self) -> str:
        return f"<Bundle {os.path.basename((self.name or '').rstrip('/'))!r}>"  # noqa: PTH119  # it may be a URL


def open_bundle(source: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> Bundle:
    """The bundle in `source`. If opened from a path or URL, use it as a context manager or close it.

    Args:
        source: A zip file, in any form that `Image.open` takes; or a depot: the path of its folder, or the path or URL
            of its ``index.xml``.
        storage_options: See `Image.open`.

    Raises:
        OSError: The file can't be opened.
        NotAnArchive: It is neither an archive with an ``index.xml`` nor a depot.
        CorruptImage: The archive can't be read.
    """
    path = path_of(source)
    opened = contextlib.ExitStack()
    if path is not None and (is_url(path) or storage_options is not None) and path.endswith(INDEX):
        return Bundle(path, functools.partial(_open_url, path, storage_options, opened), opened.close)
    if path is not None and not is_url(path) and storage_options is None:
        folder = Path(path).parent if Path(path).name == INDEX else Path(path)
        if folder.is_dir():
            if not (folder / INDEX).is_file():
                raise NotAnArchive(f"the folder is no depot: it has no {INDEX}", structure=_STRUCTURE)
            return Bundle(path, functools.partial(_open_local, folder, opened), opened.close)
    archive = open_archive(source, storage_options=storage_options)
    if archive.kind != "zip" or INDEX not in archive:
        inner = next((repr(path) for path in archive if path.endswith(".zip")), None)
        hint = "" if inner is None else f"; it holds {inner}, which may be one: extract that first"
        archive.close()
        raise NotAnArchive(f"it is no bundle: a zip file with {INDEX!r}{hint}", structure=_STRUCTURE, offset=0)
    return Bundle(path, functools.partial(_open_member, archive), archive.close)


def find_bundle(source: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> Bundle | None:
    """The bundle in `source`, as by `open_bundle`; None where it is something else, such as a disk image.

    Only the first bytes of a file that is no zip file are read. A pipe is not read.

    Raises:
        OSError: The file can't be opened.
        CorruptImage: It is a zip file that can't be read.
    """
    path = path_of(source)
    if path is not None:
        is_file = is_url(path) or storage_options is not None
        if (is_file and path.endswith(f"/{INDEX}")) or (not is_file and Path(path).name == INDEX):
            return open_bundle(source, storage_options=storage_options)
        if not is_file and Path(path).is_dir():
            return open_bundle(source) if (Path(path) / INDEX).is_file() else None
        if not is_file and not Path(path).is_file():
            return None
    with open_source(source, storage_options) as opened:
        if read_up_to(opened.source, 0, len(ZIP)) != ZIP:
            return None
    try:
        return open_bundle(source, storage_options=storage_options)
    except NotAnArchive:
        return None


def _open_member(archive: Archive, path: str) -> File:
    return archive[path]


def _open_local(folder: Path, opened: contextlib.ExitStack, path: str) -> Source:
    found = FileSource(folder.joinpath(*path.split("/")))
    opened.callback(found.close)
    return found


def _open_url(url: str, options: Mapping[str, Any] | None, opened: contextlib.ExitStack, path: str) -> Source:
    found, _ = open_remote(url, options, neighbour=path)
    opened.callback(found.close)
    return found


def _check(listed: BundledVib) -> Iterator[Problem]:
    source = as_source(listed.source())
    if listed.size is not None and source.size != listed.size:
        message = f"package {listed.id!r} has {source.size} bytes, and {listed.size} by the metadata"
        yield Problem(_STRUCTURE, message)
    if listed.sha256 is not None:
        digest = hashlib.sha256()
        for data in chunks(source):
            digest.update(data)
        if digest.hexdigest() != listed.sha256:
            message = f"package {listed.id!r} has the SHA-256 {digest.hexdigest()}, not that of the metadata"
            yield Problem(_STRUCTURE, f"{message}, {listed.sha256}")
    vib = open_vib(source)
    if vib.id != listed.id:
        yield Problem(_STRUCTURE, f"the package listed as {listed.id!r} is {vib.id!r}")
    for problem in vib.problems:
        yield Problem(problem.structure, f"{vib.id}: {problem.message}", problem.offset)


class _Reader:
    """Reader of a bundle's metadata; damage to one document loses that document."""

    def __init__(self, open_path: Callable[[str], ReadAt]) -> None:
        self._open_path = open_path
        self._problems = ProblemList(_STRUCTURE)
        self._descriptors: dict[str, VibDescriptor] = {}
        self._files: dict[str, tuple[str | None, int | None, str | None]] = {}
        """Path, size and SHA-256 of each package by id."""
        self._bulletins: dict[str, Bulletin] = {}
        self._profiles: dict[str, ImageProfile] = {}
        self._units: dict[str, ReleaseUnit] = {}
        self._unread: dict[str, None] = {}

    def read(self) -> _Metadata:
        """The metadata.

        Raises:
            CorruptImage: ``index.xml`` can't be parsed.
            OSError: ``index.xml`` can't be read.
        """
        count = 0
        for folder, name in self._vendor_indexes():
            for url in self._metadata_names(_join(folder, name)):
                count += 1
                if count > _MOST_ARCHIVES:
                    self._problems.note(_STRUCTURE, f"metadata after the first {_MOST_ARCHIVES} archives is left out")
                    return self._found()
                with self._guarded(url):
                    self._read_archive(folder, url)
        return self._found()

    def _found(self) -> _Metadata:
        ids = dict.fromkeys((*self._files, *self._descriptors))
        for bulletin in self._bulletins.values():
            for missing in [each for each in bulletin.vib_ids if each not in ids]:
                message = f"the bulletin {bulletin.id!r} names {missing!r}, which the metadata does not have"
                self._problems.note(_STRUCTURE, message)
        vibs = {
            each: BundledVib(
                each, *self._files.get(each, (None, None, None)), self._descriptors.get(each), self._open_path
            )
            for each in ids
        }
        return _Metadata(
            MappingProxyType(vibs),
            MappingProxyType(self._bulletins),
            MappingProxyType(self._profiles),
            MappingProxyType(self._units),
            tuple(self._unread),
            self._problems.found,
        )

    def _vendor_indexes(self) -> Iterator[tuple[str, str]]:
        root = self._document(INDEX)
        for vendor in root.all("vendor"):
            yield (vendor.text_of("relativePath") or "").strip("/"), vendor.text_of("indexfile") or VENDOR_INDEX

    def _metadata_names(self, path: str) -> list[str]:
        found: list[str] = []
        with self._guarded(path):
            found.extend(filter(None, (each.text_of("url") for each in self._document(path).all("metadata"))))
        return list(dict.fromkeys(found))

    def _read_archive(self, folder: str, url: str) -> None:
        archive = open_archive(self._open(_join(folder, url)))
        for problem in archive.problems:
            self._problems.note(problem.structure, f"{url}: {problem.message}", problem.offset)
        readers = {
            "": self._read_response,
            "bulletins": self._read_bulletin,
            "vibs": self._read_vib,
            "profiles": self._read_profile,
        }
        for path, file in archive.items():
            if path == VENDOR_INDEX:
                continue
            kind, suffix = path.rpartition("/")[0].rpartition("/")[2], path.rpartition(".")[2]
            reader = readers.get(kind) if suffix == "xml" else None
            with self._guarded(f"{url}: {path}"):
                if reader is not None:
                    reader(_content(file), folder)
                elif suffix == "json" and (unit := FOLDERS.get(kind.lower())) is not None:
                    self._read_unit(_content(file), unit, file.name.removesuffix(".json"))
                else:
                    self._unread.setdefault(f"{url}: {path}")

    def _read_response(self, data: bytes, folder: str) -> None:
        for bulletin in parse_xml(data, "bundle metadata").all("bulletin"):
            self._add_bulletin(bulletin)
            for vib in bulletin.all("vibList", "vib"):
                if (vib_id := vib.text_of("vibID")) is not None:
                    self._files.setdefault(vib_id, _place(vib, folder))

    def _read_bulletin(self, data: bytes, _folder: str) -> None:
        self._add_bulletin(parse_xml(data, "bulletin"))

    def _read_vib(self, data: bytes, _folder: str) -> None:
        descriptor = parse_descriptor(data)
        self._descriptors.setdefault(descriptor.id, descriptor)

    def _read_profile(self, data: bytes, _folder: str) -> None:
        profile = parse_profile(data)
        self._profiles.setdefault(profile.name, profile)

    def _read_unit(self, data: bytes, kind: Kind, name: str) -> None:
        unit = parse_release_unit(data, kind, name)
        self._units.setdefault(unit.id, unit)

    def _add_bulletin(self, root: Element) -> None:
        bulletin_id = root.text_of("id")
        if bulletin_id is None:
            raise CorruptImage("a bulletin has no id", structure="bulletin", field="id")
        ids = [each.text_of("vibID") or each.text for each in root.all("vibList", "vib")]
        ids += [each.text for each in root.all("vibList", "vibID")]
        name, version = root.get("componentNameSpec"), root.get("componentVersionSpec")
        bulletin = Bulletin(
            bulletin_id,
            root.text_of("vendor"),
            root.text_of("summary"),
            root.text_of("severity"),
            parse_time(root.text_of("releaseDate")),
            tuple(filter(None, ids)),
            None if name is None else name.attributes.get("name"),
            None if version is None else version.attributes.get("version"),
        )
        self._bulletins.setdefault(bulletin_id, bulletin)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Block that reads a document; what it can't read is a problem, and everything else stays readable."""
        try:
            yield
        except CorruptImage as error:
            self._problems.add(Problem(error.structure, f"{name}: {error.message}", error.offset))
        except (OSError, KeyError, VmvisorImageError) as error:
            self._problems.note(_STRUCTURE, f"{name} can't be read: {error}")

    def _document(self, path: str) -> Element:
        return parse_xml(_content(self._open(path)), path)

    def _open(self, path: str) -> ReadAt:
        _check_path(path)
        return self._open_path(path)


def _content(file: ReadAt) -> bytes:
    size = as_source(file).size
    if size > LARGEST:
        raise CorruptImage(f"it has {size} bytes, more than any document that is read", structure="bundle metadata")
    return file.read_at(0, size) if size else b""


def _place(vib: Element, folder: str) -> tuple[str | None, int | None, str | None]:
    """Path, size and SHA-256 of a package, by its entry in the metadata."""
    file = vib.get("vibFile")
    if file is None:
        return None, None, None
    path, size = file.text_of("relativePath"), file.text_of("packedSize") or ""
    checksum = next(
        (each.text_of("checksum") for each in file.all("checksum") if each.text_of("checksumType") == "sha-256"),
        None,
    )
    if path is not None:
        path = _join(folder, path)
        _check_path(path)
    number = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None
    return path, number, None if checksum is None else checksum.lower()


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _check_path(path: str) -> None:
    """Refuse a path that could lead out of the bundle.

    Raises:
        UnsafeName: It is absolute, has ``..`` in it, or a part that is not a plain name.
    """
    if not path:
        raise InvalidArgument("a path in the bundle's metadata is empty")
    for part in path.split("/"):
        check_name(path, part)
