"""OVF: the description of one or several virtual machines that are passed on, and the manifest beside it.

Sources: DMTF DSP0243, "Open Virtualization Format Specification" 1.1 (5.1 manifest, 7 files and their parts, 8.1
hardware, 9.1 disks and their parents, 9.8 configurations) and 2.1; DMTF CIM_ResourceAllocationSettingData for the
numbers of resource types; the descriptions among govmomi's tests, also of version 0.9, which has ``Content`` and
``Section`` in place of elements of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from vmvisor_image.base import xml_tree
from vmvisor_image.base.xml_tree import Element, looks_like_xml, parse_xml
from vmvisor_image.errors import Problem, ProblemList
from vmvisor_image.machines.machine import Description, DiskDevice, distinct_slot, sorted_devices
from vmvisor_image.streams.linked import MOST_LINKS

NAME: Final = "OVF"
KIND: Final = "ovf"
SUFFIXES: Final = (".ovf",)
ARCHIVE_SUFFIX: Final = ".ova"
"""Suffix of a tar archive with the description as its first member (DSP0243, 5.3)."""
MANIFEST_SUFFIX: Final = ".mf"
REFERENCES: Final = ("DMTF DSP0243",)
LARGEST: Final = xml_tree.LARGEST
LARGEST_MANIFEST: Final = 1 << 20
"""Number of bytes of a manifest that are read."""
_MANIFEST: Final = "manifest"
_CONTROLLERS: Final = {5: "ide", 6: "scsi"}
"""Kinds of controllers by resource type; 20 is "other storage", which its subtype names."""
_OTHER_STORAGE, _DISK_DRIVE = 20, 17
_OTHER_CONTROLLERS: Final = {"nvme": "nvme", "ahci": "sata", "sata": "sata", "nvdimm": "nvdimm"}
"""Kinds of controllers by a part of their subtype."""
_NVDIMM: Final = "vmware.nvdimm.device"
"""Subtype of a disk that is persistent memory."""
_MOST_MACHINES: Final = 256
_MOST_DISKS: Final = 1024
_LARGEST_DISK: Final = 1 << 60
"""Largest size of a disk in bytes that is believed."""
_UNIT: Final = re.compile(
    r"\s*byte\s*(?:\*\s*([0-9]{1,3})\s*\^\s*([0-9]{1,3}))?\s*(?:\*\s*([0-9]{1,12}))?\s*", re.IGNORECASE
)
"""Programmatic unit of a capacity (DSP0004, C.1), such as ``byte * 2^30``."""
_DIGEST: Final = re.compile(r"\s*(SHA1|SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*")
_DIGITS: Final = {"sha1": 40, "sha256": 64, "sha512": 128}


def probe(head: bytes) -> bool:
    """Whether a file begins as XML."""
    return looks_like_xml(head)


def parse(data: bytes) -> tuple[Description, ...] | None:
    """Machines that a file describes; None where it is not of this format.

    Raises:
        CorruptImage: It is not well-formed, or it has a document type.
    """
    if not looks_like_xml(data) or b"Envelope" not in data.replace(b"\0", b""):
        return None
    root = parse_xml(data, NAME)
    if root.name != "Envelope":
        return None
    systems = [each for each in root.every() if _is(each, "VirtualSystem", "Content")]
    package = _Package(root)
    found = tuple(package.describe(system) for system in systems[:_MOST_MACHINES])
    if len(systems) > _MOST_MACHINES:
        problem = Problem(NAME, f"machines after the first {_MOST_MACHINES} are left out, of {len(systems)}")
        found = (*found[:-1], replace(found[-1], problems=(*found[-1].problems, problem)))
    return found or (Description(KIND, problems=(Problem(NAME, "it describes no virtual system"),)),)


class _Package:
    """The files and disks that the machines of a description share."""

    def __init__(self, root: Element) -> None:
        self._files = {each.attributes.get("id", ""): each for each in root.all("References", "File")}
        options = _section(root, "DeploymentOptionSection")
        sections = [each for each in root.every() if _is(each, "DiskSection", "Section")]
        self._disks = {each.attributes.get("diskId", ""): each for section in sections for each in section.all("Disk")}
        configurations = [] if options is None else [*options.all("Configuration")]
        default = [each for each in configurations if each.attributes.get("default") in ("true", "1")]
        self._configuration = next((each.attributes.get("id") for each in (*default, *configurations)), None)
        """Configuration that is installed where none is asked for; None where there are none."""

    def describe(self, system: Element) -> Description:
        problems = ProblemList(NAME)
        hardware = _section(system, "VirtualHardwareSection")
        items = [] if hardware is None else self._items(hardware)
        controllers = _controllers(items)
        devices: dict[str, DiskDevice] = {}
        for item in items:
            if not item.is_disk:
                continue
            slot = f"{controllers.get(item.parent or '', 'disk')}:{item.text('AddressOnParent') or len(devices)}"
            if len(devices) == _MOST_DISKS:
                problems.note(NAME, f"disks after the first {_MOST_DISKS} are left out")
                break
            if slot in devices:
                problems.note(NAME, f"line {item.line}: there is another disk {slot!r}")
                slot = distinct_slot(slot, item.line, devices)
            devices[slot] = self._device(slot, item.text("HostResource") or "")
        guest = _section(system, "OperatingSystemSection")
        return Description(
            KIND,
            system.text_of("Name") or system.attributes.get("id"),
            None if guest is None else guest.attributes.get("osType") or guest.text_of("Description"),
            _firmware(hardware),
            sorted_devices([*devices.values()]),
            problems=problems.found,
            identifier=system.attributes.get("id"),
        )

    def _items(self, hardware: Element) -> list[_Item]:
        """Items of the default configuration; one of a configuration replaces the general one with its number."""
        found: dict[str, _Item] = {}
        for each in hardware.children:
            item = _Item(each)
            configurations = each.attributes.get("configuration", "").split()
            if each.name not in ("Item", "StorageItem") or each.attributes.get("bound", "normal") != "normal":
                continue
            if configurations and self._configuration not in configurations:
                continue
            key = item.number or f"line {each.line}"
            if key in found and not configurations:  # two with one number are an error, and both are kept
                key = f"{key} in line {each.line}"
            found[key] = item
        return [*found.values()]

    def _device(self, slot: str, resource: str, above: tuple[str, ...] = ()) -> DiskDevice:
        """The disk of an item that names a resource; `above` are the identifiers of disks that rest on it."""
        path = resource.removeprefix("ovf:").strip("/").partition("/")
        disk = self._disks.get(path[2]) if path[0] == "disk" else None
        reference = path[2] if path[0] == "file" else "" if disk is None else disk.attributes.get("fileRef", "")
        file = self._files.get(reference)
        capacity = None if disk is None else _capacity(disk)
        rests_on = None if disk is None else disk.attributes.get("parentRef")
        chain = (*above, path[2])
        if rests_on and (rests_on not in self._disks or rests_on in chain or len(chain) > MOST_LINKS):
            what = "is not there" if rests_on not in self._disks else "rests on it, or on too many others"
            note: str | None = f"it is the difference to another disk of the package, {rests_on!r}, which {what}"
        elif not resource:
            note = "no file or disk of the package is named for it"
        elif disk is not None and not reference:  # an empty disk has no file
            note = "it is an empty disk, whose size is not known" if capacity is None else None
        elif file is None:
            note = f"the package has nothing at {resource!r}"
        elif "chunkSize" in file.attributes and not _number(file.attributes["chunkSize"]):
            note = f"the size of its parts, {file.attributes['chunkSize']!r}, is not a number of bytes"
        else:
            note = None
        href = None if file is None else file.attributes.get("href")
        if href is not None and "://" in href:
            note = f"its file is at an address of its own, {href!r}, which is not followed"
        kind = None if disk is None else disk.attributes.get("format")
        part, size = (None if file is None else _number(file.attributes.get(name)) for name in ("chunkSize", "size"))
        parent = self._device(slot, f"disk/{rests_on}", chain) if rests_on and note is None else None
        return DiskDevice(slot, href, None, kind, capacity, note, part, size, parent)


@dataclass(frozen=True, slots=True)
class _Item:
    """An item of the hardware."""

    element: Element

    def text(self, name: str) -> str | None:
        return self.element.text_of(name)

    @property
    def line(self) -> int:
        return self.element.line

    @property
    def kind(self) -> int | None:
        return _number(self.text("ResourceType"))

    @property
    def is_disk(self) -> bool:
        return self.kind == _DISK_DRIVE or (self.kind == _OTHER_STORAGE and self.subtype == _NVDIMM)

    @property
    def subtype(self) -> str:
        return (self.text("ResourceSubType") or "").lower()

    @property
    def number(self) -> str | None:
        """Number of the item, which others refer to."""
        return self.text("InstanceID") or self.text("InstanceId")

    @property
    def parent(self) -> str | None:
        return self.text("Parent")


def _is(element: Element, name: str, old: str) -> bool:
    """Whether an element is of a kind, which version 0.9 has as the type of an element `old`."""
    return element.name == name or (
        element.name == old and element.attributes.get("type", "").rpartition(":")[2] == f"{name}_Type"
    )


def _section(element: Element, name: str) -> Element | None:
    """First section of a kind in an element."""
    return next((each for each in element.children if _is(each, name, "Section")), None)


def _controllers(items: list[_Item]) -> dict[str, str]:
    """Name of each controller, such as "scsi0", by the number of its item."""
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for item in items:
        bus = _CONTROLLERS.get(item.kind or 0)
        if item.kind == _OTHER_STORAGE and not item.is_disk:
            bus = next((name for part, name in _OTHER_CONTROLLERS.items() if part in item.subtype), "storage")
        if bus is None:
            continue
        number = _number(item.text("Address") or item.text("BusNumber"))
        name = f"{bus}{counts.get(bus, 0) if number is None else number}"
        if name in found.values():  # some writers give all controllers one address
            name = f"{bus}{counts.get(bus, 0)}"
        counts[bus] = counts.get(bus, 0) + 1
        found[item.number or ""] = name
    return found


def _firmware(hardware: Element | None) -> str | None:
    """Firmware by VMware's setting; None where it is not there."""
    for each in () if hardware is None else hardware.every():
        if each.name == "Config" and each.attributes.get("key") == "firmware":
            return each.attributes.get("value", "").lower() or None
    return None


def _capacity(disk: Element) -> int | None:
    number = _number(disk.attributes.get("capacity"))
    unit = _UNIT.fullmatch(disk.attributes.get("capacityAllocationUnits", "byte"))
    if number is None or unit is None:
        return None
    base, exponent, factor = (int(part or 1) for part in unit.groups())
    found = number * base ** (exponent if unit[1] else 1) * factor if exponent <= 128 else _LARGEST_DISK + 1
    return found if found <= _LARGEST_DISK else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


@dataclass(frozen=True, slots=True)
class Digest:
    """A line of a manifest."""

    name: str
    """Name of the file."""
    algorithm: str
    """Algorithm, as hashlib names it."""
    expected: str
    """Checksum in lower-case hexadecimal."""


def parse_manifest(data: bytes) -> tuple[tuple[Digest, ...], tuple[Problem, ...]]:
    """Checksums of a manifest, and its problems; never raises.

    A line is ``SHA256(name)= digits`` (DSP0243, 5.1), with or without spaces.
    """
    problems = ProblemList(_MANIFEST, 100)
    found: dict[str, Digest] = {}
    if len(data) > LARGEST_MANIFEST:
        problems.note(_MANIFEST, f"only the first {LARGEST_MANIFEST} bytes are read", LARGEST_MANIFEST)
    text = data[:LARGEST_MANIFEST].decode("utf-8", "replace").removeprefix("\ufeff")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip("\0 \t"):
            continue
        match = _DIGEST.fullmatch(line)
        algorithm = "" if match is None else match[1].lower()
        if match is None or len(match[3]) != _DIGITS[algorithm]:
            problems.note(_MANIFEST, f"line {number} is not of the form SHA256(name)= digits")
        elif match[2] in found:
            problems.note(_MANIFEST, f"line {number}: {match[2]!r} is there twice; the first one counts")
        else:
            found[match[2]] = Digest(match[2], algorithm, match[3].lower())
    return tuple(found.values()), problems.found
