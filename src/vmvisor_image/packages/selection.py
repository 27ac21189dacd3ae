"""The packages of an installer: those of an image profile, with others added, and each payload's place and file name.

Sources: lists of modules in ``boot.cfg`` of installers of ESXi 6.7 to 9.1 that are public, against the ids of their
packages; file names of a CD of ESXi 6.7.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key
from types import MappingProxyType
from typing import Final, Protocol

from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import CorruptImage, InvalidArgument, Problem
from vmvisor_image.files.file import File
from vmvisor_image.packages.bundle import Bundle, BundledVib
from vmvisor_image.packages.descriptor import PayloadDescription, VibDescriptor
from vmvisor_image.packages.package_file import PackageFile
from vmvisor_image.packages.profile import ImageProfile
from vmvisor_image.packages.versions import compare_versions, is_met

STRUCTURE: Final = "image profile"
BASE: Final = "esx-base"
"""Name of the package with the kernel, whose version is that of the system."""
RESERVED: Final = frozenset(
    {
        *("boot.cfg", "mboot.c32", "mboot.efi", "crypto64.efi", "imgdb.tgz", "imgpayld.tgz", "state.tgz"),
        *("basemisc.tgz", "resvibs.tgz", "esxiodpt.tgz"),
    }
)
"""Names in a boot bank that are of no payload."""
_LETTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "boot": "b",
        "boot_com32_bios": "b",
        "boot_loader_efi": "b",
        "boot_iso_bios": "b",
        "vgz": "v",
        "vzstd": "v",
        "tgz": "t",
        "text": "t",
        "upgrade": "u",
        "eltorito_image_efi": "e",
    }
)
"""Letter of a file's name by the type of the payload."""
_OTHER_LETTER: Final = "i"
_LOADED: Final = ("boot", "vgz", "tgz", "vzstd")
"""Types of payloads that the boot loader loads."""
_USUAL_ORDER: Final = 250
"""Place of a payload that names none: after those of the base system (10 to 201), before the few that are last."""
_LEVELS: Final = ("certified", "accepted", "partner", "community")
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_.]")
_FILE_NAME: Final = re.compile(r"(?!.*---)[!-~]+", re.ASCII)
"""Names that a list of modules can hold."""
_LONGEST_BASE: Final = 8
_COUNTERS: Final = 100
_MOST_NAMED: Final = 10
"""Largest number of missing packages that an error names."""


class Package(Protocol):
    """A package, wherever its payloads are."""

    @property
    def id(self) -> str:
        """See `VibDescriptor.id`."""
        ...

    @property
    def descriptor(self) -> VibDescriptor:
        """Description of the package."""
        ...

    @property
    def described(self) -> bytes:
        """Content of its ``descriptor.xml``."""
        ...

    @property
    def signature(self) -> bytes:
        """Signature over that; empty where there is none."""
        ...

    def payload(self, description: PayloadDescription, path: str, place: int) -> File | None:
        """File of a payload; None where it is missing. See `PackageFile.payload`."""
        ...


@dataclass(frozen=True, slots=True)
class SelectedPayload:
    """A payload, and its file in a boot bank."""

    package: Package
    description: PayloadDescription
    file_name: str

    @property
    def is_loaded(self) -> bool:
        """Whether the boot loader loads it."""
        return _is_module(self.description)


@dataclass(frozen=True, slots=True)
class Selection:
    """The packages that an installer has."""

    profile: ImageProfile
    """Image profile of these packages, with the name of each payload's file."""
    packages: tuple[Package, ...]
    """Packages in the order of their ids."""
    payloads: tuple[SelectedPayload, ...]
    """Payloads of all packages, package by package."""
    added: tuple[str, ...]
    """Ids of the packages that were added."""
    removed: tuple[str, ...]
    """Ids of the packages of the profile that those replace."""
    problems: tuple[Problem, ...]
    """Packages that were not added, needs that no package meets, and conflicts."""

    @property
    def loaded(self) -> tuple[SelectedPayload, ...]:
        """Kernel and modules in load order: payloads of type ``boot`` first, then those with files.

        Both by their ``boot-order``, those with the same by the id of their package, and of one package in the order of
        its description.
        """
        loaded = [payload for payload in self.payloads if payload.is_loaded]  # in the order of each description
        return tuple(sorted(loaded, key=place_of))

    @property
    def version(self) -> str | None:
        """Version of the system, such as "8.0.0-1.0.20513097"; None without a package of that."""
        return next((each.descriptor.version for each in self.packages if each.descriptor.name == BASE), None)


def place_of(payload: SelectedPayload) -> tuple[bool, int, str]:
    """Key by which `Selection.loaded` is sorted."""
    order = payload.description.boot_order
    return payload.description.kind != "boot", _USUAL_ORDER if order is None else order, payload.package.id


def find_profile(bundle: Bundle, name: str | None) -> ImageProfile:
    """Image profile of a bundle.

    Args:
        bundle: The bundle.
        name: Name of the profile, in upper or lower case; None for the only one.

    Raises:
        InvalidArgument: There is no such profile, none at all, or more than one and none was named.
    """
    profiles = bundle.profiles
    names = ", ".join(map(repr, profiles))
    if not profiles:
        raise InvalidArgument(
            "the bundle has no image profile, so it is no whole system, only packages: add it to a bundle that has one"
            " with add=, or pxe --add"
        )
    if name is None:
        if len(profiles) > 1:
            raise InvalidArgument(
                f"the bundle has {len(profiles)} image profiles; name one with profile=, or pxe --profile: {names}"
            )
        return next(iter(profiles.values()))
    found = profiles.get(name) or next(
        (each for key, each in profiles.items() if fold_name(key) == fold_name(name)), None
    )
    if found is None:
        raise InvalidArgument(f"the bundle has no image profile {name!r}, only {names}")
    return found


def package_of(listed: BundledVib) -> PackageFile:
    """Package that a bundle lists.

    Raises:
        PathNotFound: The bundle does not have it; also another OSError, from a folder or a server.
        CorruptImage: It can't be read, or is not what the metadata says: of another size or id, or with other payloads.
    """
    package = PackageFile(listed.source(), repr(listed.id))
    differences = {
        "id": (package.id, listed.id),
        "size": (package.source.size, package.source.size if listed.size is None else listed.size),
        "payloads": (True, listed.descriptor is None or listed.descriptor.payloads == package.descriptor.payloads),
    }
    for name, (found, wanted) in differences.items():
        if found != wanted:
            detail = "" if name == "payloads" else f": {found}, not {wanted}"
            raise CorruptImage(
                f"{listed.id!r} is not what the metadata says: other {name}{detail}", structure=STRUCTURE
            )
    return package


def packages_of(bundle: Bundle, profile: ImageProfile, others: Collection[str] = ()) -> tuple[PackageFile, ...]:
    """Packages of an image profile that a bundle has.

    Args:
        bundle: The bundle.
        profile: The image profile.
        others: Ids of packages that are had from elsewhere, so that the bundle may lack them.

    Raises:
        CorruptImage: The bundle lacks some of the packages, or one can't be read; the error names them.
        OSError: A file of a depot can't be read.
    """
    missing: list[str] = []
    found: list[PackageFile] = []
    for vib_id in profile.vib_ids:
        listed = bundle.vibs.get(vib_id)
        try:
            package = None if listed is None else package_of(listed)
        except FileNotFoundError:  # from a zip file as from a depot
            package = None
        if package is not None:
            found.append(package)
        elif vib_id not in others:
            missing.append(vib_id)
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        message = f"of the {len(profile.vib_ids)} packages of the image profile {profile.name!r}, {len(missing)}"
        message += " is" if len(missing) == 1 else " are"
        named = ", ".join(map(repr, missing[:_MOST_NAMED]))
        raise CorruptImage(
            f"{message} not in the bundle: {named}{more}; add what you have of it with add=, or pxe --add",
            structure=STRUCTURE,
        )
    return tuple(found)


def select(
    profile: ImageProfile, packages: Sequence[Package], added: Iterable[Package] = (), avoided: Container[str] = ()
) -> Selection:
    """Packages of a profile with others added.

    An added package takes the place of an older one of the same name, and of those that it says it replaces. One that
    is older than what the profile has is left out, which is a problem.

    Args:
        profile: The image profile.
        packages: Its packages.
        added: Packages to be added.
        avoided: Names, in lower case, that no file is given.
    """
    problems: list[Problem] = []
    by_name: dict[str, Package] = {}
    replacing: dict[str, list[Package]] = {}
    """Packages by each name that they replace."""
    for package in packages:
        if (twin := by_name.get(package.descriptor.name)) is not None:
            problems.append(Problem(STRUCTURE, f"{twin.id} is left out: the profile has {package.id}, too"))
        _put(package, by_name, replacing)
    new: dict[str, Package] = {}
    removed: list[str] = []
    for package in sorted(added, key=cmp_to_key(_by_version), reverse=True):
        there = by_name.get(package.descriptor.name)
        if there is not None and there.id == package.id:
            continue
        if (reason := _obstacle(package, there, by_name, replacing)) is not None:
            problems.append(Problem(STRUCTURE, f"{package.id} is not added: {reason}"))
            continue
        for each in _displaced(package, by_name):
            del by_name[each.descriptor.name]
            if new.pop(each.descriptor.name, None) is None:
                removed.append(each.id)
        _put(package, by_name, replacing)
        new[package.descriptor.name] = package
    chosen = tuple(sorted(by_name.values(), key=lambda each: each.id))
    problems += _unmet([each.descriptor for each in chosen])
    payloads = _named(chosen, profile, avoided, problems)
    made = profile
    if new:
        made = replace(profile, name=f"{profile.name}-customized")
    files: dict[str, dict[str, str]] = {each.id: {} for each in chosen}
    for payload in payloads:
        files[payload.package.id][payload.description.name] = payload.file_name
    made = replace(
        made,
        acceptance_level=_lowest(each.descriptor.acceptance_level for each in chosen) if new else made.acceptance_level,
        payload_files=MappingProxyType({key: MappingProxyType(each) for key, each in files.items()}),
    )
    return Selection(
        made, chosen, payloads, tuple(each.id for each in new.values()), tuple(removed), tuple(dict.fromkeys(problems))
    )


def _put(package: Package, by_name: dict[str, Package], replacing: dict[str, list[Package]]) -> None:
    by_name[package.descriptor.name] = package
    for constraint in package.descriptor.replaces:
        replacing.setdefault(constraint.name, []).append(package)


def _obstacle(
    package: Package,
    there: Package | None,
    by_name: Mapping[str, Package],
    replacing: Mapping[str, Sequence[Package]],
) -> str | None:
    """Reason why a package is not added, in words; None where it is."""
    if there is not None and compare_versions(there.descriptor.version, package.descriptor.version) >= 0:
        return f"{there.id} is there, which is not older"
    for other in replacing.get(package.descriptor.name, ()):
        if by_name.get(other.descriptor.name) is other and _replaces(other.descriptor, package.descriptor):
            return f"{other.id} says that it replaces it"
    return None


def _displaced(package: Package, by_name: Mapping[str, Package]) -> list[Package]:
    """Packages that an added one takes the place of."""
    own = package.descriptor
    names = dict.fromkeys((own.name, *(constraint.name for constraint in own.replaces)))
    found = [by_name[name] for name in names if name in by_name]
    return [each for each in found if each.descriptor.name == own.name or _replaces(own, each.descriptor)]


def _by_version(left: Package, right: Package) -> int:
    if left.descriptor.name != right.descriptor.name:
        return -1 if left.descriptor.name > right.descriptor.name else 1  # in order when reversed
    return compare_versions(left.descriptor.version, right.descriptor.version)


def _replaces(package: VibDescriptor, other: VibDescriptor) -> bool:
    return package.name != other.name and any(is_met(each, other.name, other.version) for each in package.replaces)


def _unmet(packages: Sequence[VibDescriptor]) -> Iterable[Problem]:
    """Needs that no package meets, and conflicts."""
    provided: dict[str, list[tuple[str | None, VibDescriptor]]] = {}
    for package in packages:
        provided.setdefault(package.name, []).append((package.version, package))
        for each in package.provides:
            provided.setdefault(each.name, []).append((each.version, package))
    for package in packages:
        for need in package.depends:
            if not any(is_met(need, need.name, version) for version, _ in provided.get(need.name, ())):
                yield Problem(STRUCTURE, f"{package.id} needs {need}, which no package is or provides")
        for conflict in package.conflicts:
            for version, other in provided.get(conflict.name, ()):
                if other is not package and is_met(conflict, conflict.name, version):
                    yield Problem(STRUCTURE, f"{package.id} can't be together with {other.id} ({conflict})")


def _named(
    packages: Sequence[Package], profile: ImageProfile, avoided: Container[str], problems: list[Problem]
) -> tuple[SelectedPayload, ...]:
    """Payloads with the names of their files: those of the profile or else of the packages first, then made ones."""
    names: dict[tuple[str, str], str] = {}
    taken = set(RESERVED)
    waiting: list[tuple[Package, PayloadDescription]] = []
    for package in packages:
        known = profile.payload_files.get(package.id, {})
        for payload in package.descriptor.payloads:
            name = (known.get(payload.name) or payload.file_name or "").lstrip("/")
            if name and _is_module(payload) and (reason := _reason(name, taken)) is not None:
                problems.append(Problem(STRUCTURE, f"{payload.name!r} of {package.id} has the name {name!r}, {reason}"))
                name = ""
            if name:
                names[package.id, payload.name] = name
                taken.add(fold_name(name))
            else:
                waiting.append((package, payload))
    for package, payload in waiting:
        name = _free_name(payload, taken, avoided)
        names[package.id, payload.name] = name
        taken.add(name)
    return tuple(
        SelectedPayload(package, payload, names[package.id, payload.name])
        for package in packages
        for payload in package.descriptor.payloads
    )


def _reason(name: str, taken: Container[str]) -> str | None:
    """Reason why a module can't have a name, in words; None where it can."""
    if not _FILE_NAME.fullmatch(name):
        return "which boot.cfg can't name"
    return "as another file has" if fold_name(name) in taken else None


def _is_module(payload: PayloadDescription) -> bool:
    return payload.kind in _LOADED


def _free_name(payload: PayloadDescription, taken: Container[str], avoided: Container[str]) -> str:
    """Name of 8 and 3 characters for a payload: its own, a letter for its type, and a number against collisions.

    Raises:
        CorruptImage: All numbers are taken.
    """
    base = _NOT_IN_A_NAME.sub("_", payload.name.lower())[:_LONGEST_BASE]
    letter = _LETTERS.get(payload.kind, _OTHER_LETTER)
    for number in range(_COUNTERS):
        name = f"{base}.{letter}{number:02}"
        if name not in taken and name not in avoided:
            return name
    raise CorruptImage(f"more than {_COUNTERS} payloads would have the name {base!r}", structure=STRUCTURE)


def _lowest(levels: Iterable[str | None]) -> str | None:
    found = [_LEVELS.index(level) for level in levels if level in _LEVELS]
    return _LEVELS[max(found)] if found else None
