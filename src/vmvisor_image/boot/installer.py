"""An installer made from packages: what a CD of an image profile has, as far as a PXE server needs it.

Sources: ``boot.cfg`` of installers of ESXi 6.7 to 9.1 that are public; a CD of ESXi 6.7.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vmvisor_image.base.names import fold_name
from vmvisor_image.boot.bootable import Bootable
from vmvisor_image.disk.banks import BANK_CONFIGURATION
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files.file import Directory, Extent, File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.packages.bundle import ZIP, Bundle, find_bundle, open_bundle
from vmvisor_image.packages.database import DATABASE, build_image_database
from vmvisor_image.packages.package_file import PackageFile
from vmvisor_image.packages.selection import (
    STRUCTURE,
    SelectedPayload,
    Selection,
    find_profile,
    package_of,
    packages_of,
    select,
)
from vmvisor_image.streams.opening import SourceLike, open_source, path_of
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import BytesSource

_LOADERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "mboot.c32": ("boot_com32_bios", ("mboot.c32",)),
    "EFI/BOOT/BOOTX64.EFI": ("boot_loader_efi", ("bootx64.efi", "mboot64.efi", "mboot.efi")),
    "EFI/BOOT/CRYPTO64.EFI": ("boot_loader_efi", ("crypto64.efi",)),
}
"""Path on a CD of each boot loader, and the type and the names of its payload."""
_TITLE: Final = "Loading ESXi installer"
_BUILD_SINCE: Final = 7
"""First version whose installer has a build in its ``boot.cfg``."""
_VERSION: Final = re.compile(r"([0-9]+)((?:\.[0-9]+)*)-[0-9A-Za-z.]+")


@dataclass(frozen=True, slots=True)
class BundledInstaller:
    """An installer made from packages."""

    bootable: Bootable
    """Its files: the loaders, ``boot.cfg``, and the modules that are payloads."""
    made: Mapping[str, Callable[[], Iterable[bytes]]]
    """Function that makes each module that is no payload, by its name: the image database."""
    selection: Selection

    @property
    def label(self) -> str:
        """Label of a boot entry: product and version, such as "esxi-8.0.0"."""
        version = _VERSION.fullmatch(self.selection.version or "")
        return "esxi" if version is None else f"esxi-{version[1]}{version[2]}"


@contextlib.contextmanager
def opened_packages(added: Sequence[SourceLike | Bundle]) -> Iterator[tuple[PackageFile, ...]]:
    """Block with the packages of VIBs and bundles, which are closed behind it where they are opened here.

    Raises:
        OSError: A file can't be opened.
        NotAnArchive: One is neither a VIB nor a bundle.
        CorruptImage: One can't be read.
    """
    with contextlib.ExitStack() as opened:
        found: list[PackageFile] = []
        for source in added:
            bundle = source if isinstance(source, Bundle) else find_bundle(source)
            if bundle is not None:
                if bundle is not source:
                    opened.enter_context(bundle)
                found += map(package_of, bundle.vibs.values())
            elif not isinstance(source, Bundle):
                name = path_of(source)
                given = opened.enter_context(open_source(source)).source
                if read_up_to(given, 0, len(ZIP)) == ZIP:
                    opened.enter_context(open_bundle(source))  # which says what a zip file is that is none
                found.append(PackageFile(given, None if name is None else repr(name)))
        yield tuple(found)


def bundled_installer(
    bundle: Bundle, profile: str | None = None, added: Sequence[PackageFile] = ()
) -> BundledInstaller:
    """Installer of an image profile.

    Args:
        bundle: A bundle or depot.
        profile: Name of the image profile; None for the only one.
        added: Packages to be added.

    Raises:
        InvalidArgument: There is no such profile, or there are several and none was named.
        CorruptImage: Packages of the profile are missing or damaged, or no package has a kernel.
        OSError: A file of a depot can't be read.
    """
    chosen = find_profile(bundle, profile)
    return _installer(select(chosen, packages_of(bundle, chosen, {each.id for each in added}), added))


def _installer(selection: Selection) -> BundledInstaller:
    loaded = selection.loaded
    if not loaded or loaded[0].description.kind != "boot":
        raise CorruptImage(
            f"no package of the image profile {selection.profile.name!r} has a kernel", structure=STRUCTURE
        )
    paths = {payload: payload.file_name for payload in loaded}
    paths |= {payload: path for path, payload in loaders_of(selection).items()}
    files = payload_files(selection, paths)
    files.append(made_file(BANK_CONFIGURATION, _configuration(selection, loaded)))
    place_in_words = f"the image profile {selection.profile.name!r}"
    bootable = Bootable(tree_of(files, selection.problems), None, is_installer=True, words=place_in_words)
    return BundledInstaller(bootable, {DATABASE: database_of(selection)}, selection)


def payload_files(selection: Selection, paths: Mapping[SelectedPayload, str]) -> list[File]:
    """Files of the payloads that have a path here and are there, in the order of the packages."""
    files: list[File] = []
    place = 0
    for payload in selection.payloads:
        path = paths.get(payload)
        if path is not None and (file := payload.package.payload(payload.description, path, place)) is not None:
            files.append(file)
        place += payload.description.size
    return files


def database_of(selection: Selection) -> Callable[[], Iterable[bytes]]:
    """Function that makes the image database of the packages."""

    def content() -> Iterable[bytes]:
        described = [(each.descriptor, each.described, each.signature) for each in selection.packages]
        yield build_image_database(selection.profile, described)

    return content


def made_file(path: str, content: bytes) -> File:
    """File with a content that was made here."""
    return File(_Made(BytesSource(content)), path, len(content), None, (Extent(0, len(content)),))


def loaders_of(selection: Selection) -> dict[str, SelectedPayload]:
    """Payloads that are boot loaders, by their paths on a CD."""
    found: dict[str, SelectedPayload] = {}
    for path, (kind, names) in _LOADERS.items():
        there = {fold_name(each.description.name): each for each in selection.payloads if each.description.kind == kind}
        payload = next((there[name] for name in names if name in there), None)
        if payload is not None:
            found[path] = payload
    return found


def _configuration(selection: Selection, loaded: Sequence[SelectedPayload]) -> bytes:
    """``boot.cfg`` as on a CD, without the option that says that it is one."""
    kernel, *modules = [f"/{payload.file_name}" for payload in loaded]
    settings = {
        "bootstate": "0",
        "title": _TITLE,
        "timeout": "5",
        "prefix": "",
        "kernel": kernel,
        "kernelopt": "runweasel",
        "modules": " --- ".join([*modules, f"/{DATABASE}"]),
        "build": build_of(selection),
        "updated": "0",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items()).encode("utf-8", "surrogateescape")


def build_of(selection: Selection) -> str:
    """Build for the ``boot.cfg`` of an installer: the version of the system, and nothing before ESXi 7."""
    version = _VERSION.fullmatch(selection.version or "")
    return version[0] if version is not None and int(version[1]) >= _BUILD_SINCE else ""


class _Made:
    """Home of a file that was made here."""

    def __init__(self, disk: ReadAt) -> None:
        self.disk = disk

    def locate(self, token: tuple[Extent, ...]) -> tuple[Extent, ...]:
        return token


def tree_of(files: Sequence[File], problems: tuple[Problem, ...]) -> FileTree:
    """Tree of files, with the directories of their paths."""
    return FileTree(_directory("", files), lambda: problems, fold_case=True)


def _directory(path: str, files: Sequence[File]) -> Directory:
    below = f"{path}/" if path else ""
    inside = [file for file in files if file.path.startswith(below)]
    entries: list[File | Directory] = [file for file in inside if "/" not in file.path[len(below) :]]
    folders = dict.fromkeys(file.path[len(below) :].split("/")[0] for file in inside if "/" in file.path[len(below) :])
    entries += [_directory(f"{below}{name}", inside) for name in folders]
    return Directory(path, None, lambda: entries, fold_case=True)
