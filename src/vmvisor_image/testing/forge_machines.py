"""Deterministic descriptions of virtual machines: VMX and VMSD.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

_ESCAPED: Final = str.maketrans({character: f"|{ord(character):02X}" for character in '|"#\n\r'})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
