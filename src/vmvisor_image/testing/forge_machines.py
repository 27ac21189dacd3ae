"""Deterministic descriptions of virtual machines: VMX and VMSD, OVF with its manifest, domain XML of libvirt.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import new as new_digest
from typing import Final, Literal
from xml.sax.saxutils import escape, quoteattr

_ESCAPED: Final = str.maketrans({character: f"|{ord(character):02X}" for character in '|"#\n\r'})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OVF: Final = "http://schemas.dmtf.org/ovf/envelope/1"
_CIM: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_"
_STREAM_OPTIMIZED: Final = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_CONTROLLERS: Final = {
    "ide": (5, ""),
    "scsi": (6, "lsilogic"),
    "sata": (20, "vmware.sata.ahci"),
    "nvme": (20, "vmware.nvme.controller"),
}
"""Resource type and subtype of each kind of controller."""


@dataclass(frozen=True, slots=True)
class ForgedSnapshot:
    """A snapshot for `vmsd_file`."""

    uid: int
    name: str
    created: datetime
    """Time at which it was taken, aware."""
    disks: Mapping[str, str] = field(default_factory=dict)
    """Path of each disk's file as it stood then, by slot."""
    parent: int | None = None
    """Number of its parent; None for the first one."""
    description: str = ""


def dictionary_file(settings: Mapping[str, str], encoding: str = "UTF-8") -> bytes:
    """Settings as VMware's programs write them, with the name of the encoding in the first line.

    Vouched for by ``dissect_machine.py`` (dissect.hypervisor): ``tests/test_machines.py``.
    """
    lines = [
        f'.encoding = "{encoding}"',
        *(f'{key} = "{value.translate(_ESCAPED)}"' for key, value in settings.items()),
    ]
    return ("\n".join(lines) + "\n").encode(encoding.removeprefix("windows-").replace("1252", "cp1252"))


def vmx_file(
    disks: Mapping[str, str], *, name: str = "vm", encoding: str = "UTF-8", settings: Mapping[str, str] | None = None
) -> bytes:
    """A VMX with a hard disk for each slot and a CD-ROM drive.

    Vouched for by ``dissect_machine.py`` (dissect.hypervisor): ``tests/test_machines.py``.

    Args:
        disks: Path of each disk's file by slot, such as "scsi0:0".
        name: Name of the machine.
        encoding: Encoding, as the file names it.
        settings: Further settings, or others than the usual ones.
    """
    found = {"config.version": "8", "virtualHW.version": "19", "displayName": name, "guestOS": "debian11-64"}
    for slot, path in disks.items():
        found[f"{slot}.deviceType"] = "scsi-hardDisk" if slot.startswith("scsi") else "disk"
        found[f"{slot}.fileName"] = path
        found[f"{slot}.present"] = "TRUE"
    found |= {"ide1:0.deviceType": "atapi-cdrom", "ide1:0.fileName": "auto detect", "ide1:0.present": "TRUE"}
    return dictionary_file(found | dict(settings or {}), encoding)


def vmsd_file(snapshots: Sequence[ForgedSnapshot], *, current: int | None = None) -> bytes:
    """A VMSD; the machine's state goes on from the last snapshot, or from `current`.

    Vouched for by ``dissect_machine.py`` (dissect.hypervisor, as it is a dictionary): ``tests/test_machines.py``, where
    times are compared with those of published files.
    """
    if not snapshots:
        return b""
    last = snapshots[-1].uid
    found = {"snapshot.lastUID": str(max(each.uid for each in snapshots)), "snapshot.current": str(current or last)}
    for number, each in enumerate(snapshots):
        prefix = f"snapshot{number}"
        high, low = divmod((each.created - _EPOCH) // timedelta(microseconds=1), 1 << 32)
        found |= {f"{prefix}.uid": str(each.uid), f"{prefix}.filename": f"vm-Snapshot{each.uid}.vmsn"}
        if each.parent is not None:
            found[f"{prefix}.parent"] = str(each.parent)
        found |= {f"{prefix}.displayName": each.name, f"{prefix}.description": each.description}
        found |= {f"{prefix}.createTimeHigh": str(high), f"{prefix}.createTimeLow": str(low - ((low >> 31) << 32))}
        found[f"{prefix}.numDisks"] = str(len(each.disks))
        for at, (slot, path) in enumerate(each.disks.items()):
            found |= {f"{prefix}.disk{at}.fileName": path, f"{prefix}.disk{at}.node": slot}
    found["snapshot.numSnapshots"] = str(len(snapshots))
    return dictionary_file(found)


def ovf_file(
    disks: Mapping[str, tuple[str, int]],
    *,
    name: str = "vm",
    firmware: str | None = None,
    guest: str = "debian11_64Guest",
    names: Sequence[str] = (),
) -> bytes:
    """An OVF 1.1 of one machine, or of several with the same disks.

    Vouched for by ``xmllint`` and ``dissect_machine.py`` (dissect.hypervisor): ``tests/test_machine_packages.py``.

    Args:
        disks: Name of the file and size of the disk in bytes, by slot such as "scsi0:0".
        name: Name of the machine.
        firmware: Firmware, as VMware's setting has it; None to leave that out.
        guest: Operating system, in VMware's words.
        names: Names of further machines; with any, all of them are in a collection.
    """
    files, described = [], []
    for number, (path, size) in enumerate(disks.values(), 1):
        files.append(f'<File ovf:id="file{number}" ovf:href={quoteattr(path)} ovf:size="1"/>')
        described.append(
            f'<Disk ovf:diskId="vmdisk{number}" ovf:fileRef="file{number}" ovf:capacity="{size // 512}"'
            f' ovf:capacityAllocationUnits="byte * 512" ovf:format="{_STREAM_OPTIMIZED}"/>'
        )
    items: list[str] = []
    controllers = list(dict.fromkeys(slot.partition(":")[0] for slot in disks))
    for number, controller in enumerate(controllers, 1):
        bus = controller.rstrip("0123456789")
        kind, subtype = _CONTROLLERS[bus]
        items.append(
            f"<Item><rasd:Address>{controller[len(bus) :]}</rasd:Address><rasd:ElementName>{controller}"
            f"</rasd:ElementName><rasd:InstanceID>{number}</rasd:InstanceID><rasd:ResourceSubType>{subtype}"
            f"</rasd:ResourceSubType><rasd:ResourceType>{kind}</rasd:ResourceType></Item>"
        )
    for number, slot in enumerate(disks, 1):
        controller, _, unit = slot.partition(":")
        items.append(
            f"<Item><rasd:AddressOnParent>{unit}</rasd:AddressOnParent><rasd:ElementName>disk{number}"
            f"</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk{number}</rasd:HostResource><rasd:InstanceID>"
            f"{100 + number}</rasd:InstanceID><rasd:Parent>{controllers.index(controller) + 1}</rasd:Parent>"
            "<rasd:ResourceType>17</rasd:ResourceType></Item>"
        )
    setting = (
        "" if firmware is None else f'<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{firmware}"/>'
    )
    systems = [
        f'<VirtualSystem ovf:id="vm-{number}"><Info>A virtual machine</Info><Name>{escape(each)}</Name>'
        f'<OperatingSystemSection ovf:id="96" vmw:osType="{guest}"><Info>Guest</Info><Description>Debian 11'
        "</Description></OperatingSystemSection><VirtualHardwareSection><Info>Hardware</Info>"
        f"{''.join(items)}{setting}</VirtualHardwareSection></VirtualSystem>"
        for number, each in enumerate((name, *names), 1)
    ]
    content = "\n".join(systems)
    if names:
        content = f'<VirtualSystemCollection ovf:id="all"><Info>All</Info>{content}</VirtualSystemCollection>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Envelope xmlns="{_OVF}" xmlns:ovf="{_OVF}"'
        f' xmlns:rasd="{_CIM}ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">\n'
        f"<References>{''.join(files)}</References>\n<DiskSection><Info>Disks</Info>{''.join(described)}</DiskSection>\n"
        f"{content}\n</Envelope>\n"
    ).encode()


def manifest_file(
    files: Mapping[str, bytes], algorithm: Literal["sha1", "sha256", "sha512"] = "sha256", *, spaces: bool = False
) -> bytes:
    """The manifest of an OVF, with the checksum of each file.

    Vouched for by ``sha256sum``: ``tests/test_machine_packages.py``.

    Args:
        files: Content of each file by name.
        algorithm: Algorithm of the checksums.
        spaces: Whether to write spaces round the name, as BSD's programs do.
    """
    gap = " " if spaces else ""
    lines = []
    for name, data in files.items():
        digest = new_digest(algorithm, data, usedforsecurity=False).hexdigest()
        lines.append(f"{algorithm.upper()}{gap}({name}){gap}= {digest}\n")
    return "".join(lines).encode()


def domain_xml(
    disks: Mapping[str, tuple[str, str]], *, name: str = "vm", firmware: str | None = None, system: str | None = None
) -> bytes:
    """A domain of libvirt's for QEMU, with a CD-ROM drive.

    Vouched for by ``xmllint``: ``tests/test_machine_packages.py``.

    Args:
        disks: Path and QEMU's name for the format of each disk's file, by name in the guest, such as "vda".
        name: Name of the machine.
        firmware: "efi" or "bios"; None to leave that out.
        system: Identifier of the guest in libosinfo's notes; None to leave that out.
    """
    described = "".join(
        f'<disk type="file" device="disk"><driver name="qemu" type="{kind}"/><source file={quoteattr(path)}/>'
        f'<target dev="{slot}" bus="virtio"/></disk>\n'
        for slot, (path, kind) in disks.items()
    )
    notes = (
        ""
        if system is None
        else (
            '<metadata><libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">'
            f'<libosinfo:os id="{system}"/></libosinfo:libosinfo></metadata>'
        )
    )
    chosen = "" if firmware is None else f' firmware="{firmware}"'
    return (
        f'<domain type="kvm"><name>{escape(name)}</name>{notes}<os{chosen}><type arch="x86_64">hvm</type></os>\n'
        f'<devices>\n{described}<disk type="file" device="cdrom"><source file="/x.iso"/><target dev="sda"/></disk>\n'
        "</devices></domain>\n"
    ).encode()
