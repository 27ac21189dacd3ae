"""``descriptor.xml`` of a VIB: what the package is, needs and holds.

Source: descriptors of 23 public VIBs for ESXi 5.1 to 9.0, whose payloads all have the checksums that are in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from vmvisor_image.base.xml_tree import Element, parse_xml
from vmvisor_image.errors import CorruptImage

DESCRIPTOR: Final = "descriptor.xml"
STRUCTURE: Final = "VIB descriptor"
_ALGORITHMS: Final = {"sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}
"""Names of `hashlib` by those in descriptors."""
_FIRST_LAYER: Final = "gunzip1"
"""Process of a checksum of the bytes after the first compression alone, as ESXi 9 has it."""


@dataclass(frozen=True, slots=True)
class PayloadChecksum:
    """A checksum of a payload."""

    algorithm: str
    """Name of the algorithm, as `hashlib` has it; as in the descriptor where that is not known."""
    process: str | None
    """Form of the payload that it is over: None for the bytes as they are stored, "gunzip" for the fully decoded ones,
    "gunzip1" for those without the first compression; others, such as "txt-mle", are not known."""
    value: str
    """The checksum in hexadecimal, lower case."""


@dataclass(frozen=True, slots=True)
class PayloadDescription:
    """A payload as the descriptor has it."""

    name: str
    """Name of its member of the VIB."""
    kind: str
    """Type: "boot", "tgz", "vgz", "vzstd", "text" and others."""
    size: int
    """Number of bytes as stored."""
    checksums: tuple[PayloadChecksum, ...]
    decoded_size: int | None
    """Number of bytes when fully decoded; None in packages before ESXi 8.0 Update 3."""
    boot_order: int | None
    """Place among the modules that are loaded, lowest first; None for a payload without one."""
    file_name: str | None
    """Name of its file in a boot bank (``vfat-name``); None where the installer makes one."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A package or capability that a VIB depends on, conflicts with, replaces, provides or is compatible with."""

    name: str
    relation: str | None
    """Comparison with `version`: "<<", "<=", "=", ">=" or ">>"; None for any version."""
    version: str | None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.relation, self.version)))


@dataclass(frozen=True, slots=True)
class VibDescriptor:
    """Description of a package."""

    kind: str
    """Type: "bootbank", "locker" or "meta"."""
    name: str
    version: str
    vendor: str
    """Short name of the vendor, which is part of the id."""
    summary: str | None
    description: str | None
    released: datetime | None
    """Time of the release, with its time zone; one without is UTC."""
    acceptance_level: str | None
    """Level that the package claims: "certified", "accepted", "partner" or "community"; no signature proves it."""
    depends: tuple[Constraint, ...]
    conflicts: tuple[Constraint, ...]
    replaces: tuple[Constraint, ...]
    provides: tuple[Constraint, ...]
    platforms: tuple[str, ...]
    """Versions of the products that it is for, such as "embeddedEsx 8.0"."""
    maintenance_mode: bool | None
    """Whether the host has to be in maintenance mode for its installation; None where that is not said."""
    tags: tuple[str, ...]
    files: tuple[str, ...]
    """Paths of the files that it installs, without a leading slash."""
    payloads: tuple[PayloadDescription, ...]

    @property
    def id(self) -> str:
        """Id of the package: vendor, type, name and version, with underscores between them."""
        return f"{self.vendor}_{self.kind}_{self.name}_{self.version}"


def parse_descriptor(data: bytes) -> VibDescriptor:
    """Description of a package by its ``descriptor.xml``.

    Raises:
        CorruptImage: It is not XML, not the description of a package, or lacks what an id is made of.
    """
    root = parse_xml(data, STRUCTURE)
    if root.name != "vib":
        raise CorruptImage("it is no description of a package", structure=STRUCTURE, expected="vib", found=root.name)
    system = root.get("system-requires")
    return VibDescriptor(
        kind=_needed(root, "type"),
        name=_needed(root, "name"),
        version=_needed(root, "version"),
        vendor=_needed(root, "vendor"),
        summary=root.text_of("summary"),
        description=root.text_of("description"),
        released=parse_time(root.text_of("release-date")),
        acceptance_level=root.text_of("acceptance-level"),
        depends=_constraints(root, "depends"),
        conflicts=_constraints(root, "conflicts"),
        replaces=_constraints(root, "replaces"),
        provides=_constraints(root, "provides"),
        platforms=tuple(
            " ".join(filter(None, (platform.attributes.get("productLineID"), platform.attributes.get("version"))))
            for platform in root.all("system-requires", "softwarePlatform")
        ),
        maintenance_mode=None if system is None else _boolean(system.text_of("maintenance-mode")),
        tags=tuple(tag.text for tag in root.all("software-tags", "tag") if tag.text),
        files=tuple(file.text.lstrip("/") for file in root.all("file-list", "file")),
        payloads=tuple(_payload(payload) for payload in root.all("payloads", "payload")),
    )


def parse_time(text: str | None) -> datetime | None:
    """Time as packages have it, ISO 8601; one without a time zone is UTC. None for text that is not one."""
    try:
        found = datetime.fromisoformat((text or "").removesuffix("Z"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _needed(root: Element, name: str) -> str:
    found = root.text_of(name)
    if found is None:
        raise CorruptImage("it is missing or empty", structure=STRUCTURE, field=name)
    return found


def _constraints(root: Element, relationship: str) -> tuple[Constraint, ...]:
    return tuple(
        Constraint(each.attributes.get("name", ""), each.attributes.get("relation"), each.attributes.get("version"))
        for each in root.all("relationships", relationship, "constraint")
    )


def _boolean(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").lower())


def _payload(element: Element) -> PayloadDescription:
    name = element.attributes.get("name")
    if not name:
        raise CorruptImage("a payload has no name", structure=STRUCTURE, field="payload")
    return PayloadDescription(
        name=name,
        kind=element.attributes.get("type", ""),
        size=_number(element, "size") or 0,
        checksums=tuple(_checksum(each) for each in element.all("checksum")),
        decoded_size=_number(element, "uncompressed-size"),
        boot_order=_number(element, "boot-order"),
        file_name=element.attributes.get("vfat-name") or None,
    )


def _number(element: Element, name: str) -> int | None:
    text = element.attributes.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CorruptImage("it is not a number", structure=STRUCTURE, field=name, found=repr(text))
    return int(text)


def _checksum(element: Element) -> PayloadChecksum:
    kind, process = element.attributes.get("checksum-type", ""), element.attributes.get("verify-process")
    if process is None and kind.endswith(f"-{_FIRST_LAYER}"):
        kind, process = kind.removesuffix(f"-{_FIRST_LAYER}"), _FIRST_LAYER
    return PayloadChecksum(_ALGORITHMS.get(kind, kind), process, element.text.lower())
