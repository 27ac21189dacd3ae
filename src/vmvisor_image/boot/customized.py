"""An installer CD of ESXi 5 or later with packages added."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vmvisor_image.base.names import fold_name
from vmvisor_image.boot.bootable import Bootable
from vmvisor_image.boot.installer import (
    BundledInstaller,
    build_of,
    database_of,
    loaders_of,
    made_file,
    payload_files,
    tree_of,
)
from vmvisor_image.disk.banks import BANK_CONFIGURATION
from vmvisor_image.errors import CorruptImage, PathNotFound
from vmvisor_image.files.file import File
from vmvisor_image.packages.database import DATABASE, InstalledVib, open_image_database
from vmvisor_image.packages.descriptor import PayloadDescription, VibDescriptor
from vmvisor_image.packages.package_file import PackageFile
from vmvisor_image.packages.profile import ImageProfile
from vmvisor_image.packages.selection import STRUCTURE, SelectedPayload, Selection, place_of, select
from vmvisor_image.schemas.boot_cfg import BootModule


def customized_installer(cd: Bootable, added: Sequence[PackageFile]) -> BundledInstaller:
    """Installer of a CD with packages added.

    The CD's modules stay in their order. A new one takes the place of one with the same name, and any other the place
    that the order of `Selection.loaded` gives it among them.

    Args:
        cd: The CD.
        added: Packages to be added.

    Raises:
        PathNotFound: The CD has no image database, or no ``boot.cfg`` that names a kernel.
        CorruptImage: One of these can't be read, or nothing is left of the kernel.
    """
    file, configuration = cd.find_module(DATABASE), cd.configuration
    if file is None or configuration is None or configuration.kernel is None:
        raise PathNotFound(
            f"the installer CD has no {DATABASE} or no boot.cfg that names a kernel: what packages it has is not known,"
            " so that none can be added"
        )
    database = open_image_database(file)
    profile = database.profile
    if profile is None:
        raise CorruptImage(f"{DATABASE} of the installer CD has no image profile", structure=STRUCTURE)
    own = {fold_name(file.name) for file in cd.root_files} - set(_names(profile, profile.vib_ids))
    selection = select(profile, [_InstalledPackage(vib, cd) for vib in database.vibs.values()], added, own)
    new = [each for each in selection.loaded if _is_new(each)]
    kept = {each.id for each in selection.packages}
    gone = _names(profile, [vib_id for vib_id in profile.vib_ids if vib_id not in kept])
    there = [configuration.kernel.name, *map(str, configuration.modules)]
    kernel, *modules = _order(there, selection, new, gone)
    changes = {"kernel": kernel, "modules": " --- ".join(modules)}
    if configuration.build is not None and (build := build_of(selection)):
        changes["build"] = build
    changed = configuration.replace(changes).to_bytes()
    bootable = Bootable(
        tree_of(
            [*_files(cd, selection), made_file(BANK_CONFIGURATION, changed)], (*cd.files.problems, *database.problems)
        ),
        cd.home,
        is_installer=True,
    )
    return BundledInstaller(bootable, {DATABASE: database_of(selection)}, selection)


def _names(profile: ImageProfile, vib_ids: Sequence[str]) -> list[str]:
    """Names of the files of packages, folded."""
    files = profile.payload_files
    return [fold_name(name.lstrip("/")) for vib_id in vib_ids for name in files[vib_id].values()]


def _files(cd: Bootable, selection: Selection) -> list[File]:
    """Files of the CD and of the new packages, which take the place of any of the same name, boot loaders too."""
    new = {each: each.file_name for each in selection.loaded if _is_new(each)}
    new |= {each: path for path, each in loaders_of(selection).items() if _is_new(each)}
    replaced = {fold_name(BANK_CONFIGURATION), *map(fold_name, new.values())}
    files = [file for file in cd.files.values() if fold_name(file.path) not in replaced]
    return files + payload_files(selection, new)


def _is_new(payload: SelectedPayload) -> bool:
    return not isinstance(payload.package, _InstalledPackage)


def _order(
    there: Sequence[str], selection: Selection, new: Sequence[SelectedPayload], gone: Collection[str]
) -> list[str]:
    """Kernel and modules of a CD, with new ones in their places and without those of packages that are gone."""
    coming = {fold_name(each.file_name) for each in new}
    found = [item for item in there if (name := _name_of(item)) not in gone or name in coming]
    if not found or _name_of(found[0]) != _name_of(there[0]):
        raise CorruptImage("the package with the kernel is replaced by one that has none", structure=STRUCTURE)
    places = {fold_name(each.file_name): place_of(each) for each in selection.loaded}
    for payload in new:
        if fold_name(payload.file_name) not in map(_name_of, found):
            own = place_of(payload)
            known = [places.get(_name_of(item)) for item in found]
            before = [number for number, place in enumerate(known) if place is not None and place <= own]
            found.insert(max(before, default=0) + 1, f"/{payload.file_name}")
    return found


def _name_of(item: str) -> str:
    """Name of a module, folded, by its item in ``boot.cfg``."""
    return fold_name(BootModule.parse(item).name.lstrip("/"))


@dataclass(frozen=True, slots=True, eq=False)
class _InstalledPackage:
    """A package of a CD."""

    vib: InstalledVib
    cd: Bootable

    @property
    def id(self) -> str:
        return self.vib.id

    @property
    def descriptor(self) -> VibDescriptor:
        return self.vib.descriptor

    @property
    def described(self) -> bytes:
        return self.vib.written if self.vib.signed is None else self.vib.signed

    @property
    def signature(self) -> bytes:
        return self.vib.signature

    def payload(self, _description: PayloadDescription, path: str, _place: int) -> File | None:
        return self.cd.find_module(path)
