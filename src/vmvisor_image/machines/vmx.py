"""VMX: the configuration of a virtual machine of VMware's products.

Sources: public files of ESXi, Workstation and Fusion; the behaviour of dissect.hypervisor, run as a program.
"""

from __future__ import annotations

import re
from typing import Final

from vmvisor_image.errors import ProblemList
from vmvisor_image.machines import dictionary
from vmvisor_image.machines.dictionary import Dictionary, parse_dictionary
from vmvisor_image.machines.machine import Description, DiskDevice, sorted_devices

NAME: Final = "VMX"
KIND: Final = "vmx"
SUFFIXES: Final = (".vmx", ".vmtx")
"""Suffixes of a machine's configuration, and of a template's, which has the same format."""
REFERENCES: Final = ("public files of VMware's products",)
LARGEST: Final = dictionary.LARGEST
_DEVICE: Final = re.compile(r"((?:ide|scsi|sata|nvme|nvdimm)[0-9]{1,3}:[0-9]{1,3})\.filename", re.ASCII)
_KEYS: Final = ("config.version", "virtualhw.version", "displayname", "guestos", "encryption.keysafe")
"""Keys by which a dictionary is known to be a VMX."""
_NO_DISK: Final = re.compile(r".*(cdrom|passthru|floppy)", re.IGNORECASE)
"""Values of `deviceType` for what is not a disk: ``cdrom-image``, ``atapi-cdrom``, ``cdrom-raw``, ``scsi-passthru``."""
_MOST_DEVICES: Final = 1024
"""Largest number of disks; four controllers of 64 disks each are the most that a machine has."""
_CONTROLS: Final = bytes(each for each in range(32) if chr(each) not in "\t\n\f\r")
_TEXT_PER_CONTROL: Final = 8
"""Bytes of a text for each control character that damage may have left in it."""


def probe(head: bytes) -> bool:
    """Whether a file is a text by its start; a disk is not, though a VMX may lie among its files."""
    text = head.rstrip(b"\0")
    return bool(text) and (len(text) - len(text.translate(None, _CONTROLS))) * _TEXT_PER_CONTROL <= len(text)


def parse(data: bytes) -> tuple[Description, ...] | None:
    """The machine that a VMX describes; None where it is not one. Its snapshots are in another file."""
    found = parse_dictionary(data, NAME)
    return (describe(found),) if any(key in found.settings for key in _KEYS) else None


def describe(found: Dictionary) -> Description:
    """Description of a machine by its settings."""
    problems = ProblemList(NAME)
    for problem in found.problems:
        problems.add(problem)
    is_encrypted = "encryption.keysafe" in found.settings and "encryption.data" in found.settings
    devices: list[DiskDevice] = []
    for key, value in found.settings.items():
        match = _DEVICE.fullmatch(key)
        if match is None:
            continue
        if len(devices) == _MOST_DEVICES:
            problems.note(NAME, f"disks after the first {_MOST_DEVICES} are left out")
            break
        device = _device(found, match[1], value)
        if device is not None:
            devices.append(device)
    if is_encrypted:
        what = "a part of its settings is encrypted" if devices else "it is encrypted: its disks are not known"
        problems.note(NAME, f"{what} (encryption.data)")
    return Description(
        KIND,
        found.get("displayname"),
        found.get("guestos"),
        # Without the key the firmware is a BIOS, and an encrypted file may have the key in what can't be read.
        (found.get("firmware") or ("bios" if not is_encrypted else "")).lower() or None,
        sorted_devices(devices),
        is_encrypted=is_encrypted,
        settings=found.settings,
        problems=problems.found,
    )


def _device(found: Dictionary, slot: str, file_name: str) -> DiskDevice | None:
    """The disk at a slot; None for one that is not present, and for what is not a disk."""
    kind = found.get(f"{slot}.devicetype")
    if found.flag(f"{slot}.present") is False or not file_name.strip() or _NO_DISK.match(kind or ""):
        return None
    return DiskDevice(slot, file_name, found.get(f"{slot}.mode"), kind, redo=found.get(f"{slot}.redo"))
