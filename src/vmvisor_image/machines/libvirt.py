"""Domain XML of libvirt, as ``virsh dumpxml`` prints it and ``/etc/libvirt/qemu`` holds it, and its snapshots.

Sources: libvirt, "Domain XML format" (formatdomain), "Hard drives, floppy disks, CDROMs"; "Snapshot XML format"
(formatsnapshot), as ``virsh snapshot-dumpxml`` prints it; "Disk image chains" (kbase/backing_chains).
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from vmvisor_image.base import xml_tree
from vmvisor_image.base.xml_tree import Element, looks_like_xml, parse_xml
from vmvisor_image.errors import ProblemList
from vmvisor_image.machines.machine import Backing, DescribedSnapshot, Description, DiskDevice, distinct_slot
from vmvisor_image.streams.linked import MOST_LINKS

NAME: Final = "libvirt's domain XML"
KIND: Final = "libvirt"
SUFFIXES: Final = (".xml",)
REFERENCES: Final = ("libvirt, Domain XML format and Snapshot XML format",)
LARGEST: Final = xml_tree.LARGEST
_STRUCTURE: Final = "domain XML"
_MOST_DISKS: Final = 1024
_NO_DISKS: Final = ("cdrom", "floppy")
_SNAPSHOT: Final = "domainsnapshot"
_INTERNAL, _EXTERNAL = "internal", "external"
_NUMBER: Final = 1
"""Number of the one snapshot of a file: libvirt's have none."""
_WRAPPERS: Final = ("domstatus", "domainbackup")
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
    if root.name == _SNAPSHOT:
        return (_describe_snapshot(root),)
    domain = root if root.name == "domain" else root.get("domain") if root.name in _WRAPPERS else None
    return None if domain is None else (_describe(domain),)


def _describe_snapshot(root: Element) -> Description:
    """The machine of a snapshot's description, which says nothing of the disks as they are now.

    The domain in it is that of the time of the snapshot: of a disk with an external snapshot it names the file that was
    written to until then, and not since; an internal one is a snapshot of the same name inside the disk's file.
    """
    domain, name = root.get("domain"), root.text_of("name") or "snapshot"
    problems = ProblemList(_STRUCTURE)
    if domain is None:
        problems.note(_STRUCTURE, f"the files of the disks at snapshot {name!r} are not known: it has no domain")
        machine = Description(KIND)
    else:
        machine = _describe(domain)
        for problem in machine.problems:
            problems.add(problem)
    kinds = {each.attributes.get("name"): each.attributes.get("snapshot") for each in root.all("disks", "disk")}
    devices: list[DiskDevice] = []
    for each in machine.devices:
        # Before libvirt 0.9.5 there was no list of disks, and all snapshots were internal.
        kind = kinds.get(each.slot) if kinds else _INTERNAL
        if kind in (_INTERNAL, _EXTERNAL):  # any other disk is left out of the snapshot
            devices.append(replace(each, snapshot=name) if kind == _INTERNAL and each.note is None else each)
    seconds = root.text_of("creationTime") or ""
    snapshot = DescribedSnapshot(
        _NUMBER,
        name,
        root.text_of("description") or "",
        datetime.fromtimestamp(int(seconds), UTC) if re.fullmatch(r"[0-9]{1,11}", seconds, re.ASCII) else None,
        parent_name=root.text_of("parent", "name"),
        devices=tuple(devices),
    )
    current = _NUMBER if root.text_of("active") == "1" else None
    return replace(machine, devices=(), snapshots=(snapshot,), current=current, problems=problems.found)


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
    return DiskDevice(slot, path, transient, image, note=note, backing=_backing(disk))


def _backing(disk: Element) -> Backing | None:
    """Chain that a description gives for a disk; None where it gives none, as of machines that do not run."""
    links: list[tuple[str | None, str | None]] = []
    here = disk.get("backingStore")
    if here is None:
        return None
    while here is not None and here.children and len(links) < MOST_LINKS:
        source, form = here.get("source"), here.get("format")
        name = _FILE_SOURCES.get(here.attributes.get("type", "file"), "")
        path = None if source is None else source.attributes.get(name)
        links.append((path, None if form is None else form.attributes.get("type")))
        here = here.get("backingStore")
    return Backing(tuple(links), is_whole=here is not None and not here.children)


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
