"""Domain XML of libvirt, as ``virsh dumpxml`` prints it and ``/etc/libvirt/qemu`` holds it.

Source: libvirt, "Domain XML format" (formatdomain), "Hard drives, floppy disks, CDROMs".
"""

from __future__ import annotations

from typing import Final

from vmvisor_image.base import xml_tree
from vmvisor_image.base.xml_tree import Element, looks_like_xml, parse_xml
from vmvisor_image.errors import ProblemList
from vmvisor_image.machines.machine import Description, DiskDevice, distinct_slot

NAME: Final = "libvirt's domain XML"
KIND: Final = "libvirt"
SUFFIXES: Final = (".xml",)
REFERENCES: Final = ("libvirt, Domain XML format",)
LARGEST: Final = xml_tree.LARGEST
_STRUCTURE: Final = "domain XML"
_MOST_DISKS: Final = 1024
_NO_DISKS: Final = ("cdrom", "floppy")
_WRAPPERS: Final = ("domstatus", "domainsnapshot", "domainbackup")
"""Root elements of libvirt's own files that have a domain in them."""
_FILE_SOURCES: Final = {"file": "file", "volume": "volume"}
"""Attribute of ``source`` with the name of a file, by the type of the disk."""
_ELSEWHERE: Final = {"block": "dev", "network": "name", "dir": "dir", "nvme": "namespace", "vhostuser": "path"}
"""Attribute of ``source`` with the name of what is not a file, by the type of the disk."""


def probe(head: bytes) -> bool:
    """Whether a file begins as XML."""
    return looks_like_xml(head)


def parse(data: bytes) -> tuple[Description, ...] | None:
    """The machine that a file describes; None where it is not of this format.

    Raises:
        CorruptImage: It is not well-formed, or it has a document type.
    """
    if not looks_like_xml(data) or b"<dom" not in data.replace(b"\0", b""):
        return None
    root = parse_xml(data, _STRUCTURE)
    domain = root if root.name == "domain" else root.get("domain") if root.name in _WRAPPERS else None
    return None if domain is None else (_describe(domain),)


def _describe(domain: Element) -> Description:
    problems = ProblemList(_STRUCTURE)
    devices: dict[str, DiskDevice] = {}
    for disk in domain.all("devices", "disk"):
        if disk.attributes.get("device", "disk") in _NO_DISKS:
            continue
        target = disk.get("target")
        slot = f"disk{len(devices)}" if target is None else target.attributes.get("dev") or f"disk{len(devices)}"
        if len(devices) == _MOST_DISKS:
            problems.note(_STRUCTURE, f"disks after the first {_MOST_DISKS} are left out")
            break
        if slot in devices:
            problems.note(_STRUCTURE, f"line {disk.line}: there is another disk {slot!r}")
            slot = distinct_slot(slot, disk.line, devices)
        devices[slot] = _device(disk, slot)
    return Description(
        KIND,
        domain.text_of("name"),
        _guest(domain),
        _firmware(domain),
        tuple(devices.values()),  # in libvirt's order, which is that of the targets
        problems=problems.found,
    )


def _device(disk: Element, slot: str) -> DiskDevice:
    kind = disk.attributes.get("type", "file")
    source, driver = disk.get("source"), disk.get("driver")
    attributes = {} if source is None else source.attributes
    image = None if driver is None else driver.attributes.get("type")
    path = attributes.get(_FILE_SOURCES.get(kind, ""))
    note = None
    if path is None:
        there = attributes.get(_ELSEWHERE.get(kind, "")) if kind in _ELSEWHERE else None
        note = f"it is not in a file but of type {kind}" + ("" if there is None else f", {there!r}")
        note = "it has no source" if source is None else note
    elif disk.get("encryption") is not None or (source is not None and source.get("encryption") is not None):
        note = f"its file {path!r} is encrypted"
    transient = "independent-nonpersistent" if disk.get("transient") is not None else None
    return DiskDevice(slot, path, transient, image, note=note)


def _guest(domain: Element) -> str | None:
    """Identifier of the operating system in libosinfo's notes, such as "http://debian.org/debian/12"."""
    found = domain.get("metadata", "libosinfo", "os")
    return None if found is None else found.attributes.get("id")


def _firmware(domain: Element) -> str | None:
    """Firmware; only machines of PCs and the like have one of the two."""
    system = domain.get("os")
    if system is None or system.text_of("type") not in (None, "hvm"):
        return None
    loader = system.get("loader")
    is_efi = system.attributes.get("firmware") == "efi" or (
        loader is not None and loader.attributes.get("type") == "pflash"
    )
    return "efi" if is_efi else system.attributes.get("firmware", "bios")
