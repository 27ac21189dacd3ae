"""VMSD: the snapshots of a virtual machine of VMware's products.

Sources: public files of ESXi and Workstation. The time is in microseconds since 1970, high half first; the low half is
written as a number with a sign.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from vmvisor_image.errors import ProblemList
from vmvisor_image.machines.dictionary import Dictionary, parse_dictionary
from vmvisor_image.machines.machine import DescribedSnapshot, DiskDevice, sorted_devices

NAME: Final = "VMSD"
KIND: Final = "vmsd"
SUFFIX: Final = ".vmsd"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_SNAPSHOTS: Final = 1024
"""Largest number of snapshots; ESXi makes 32 in a chain (VMware KB 1025279), in several chains more."""
_MOST_DISKS: Final = 1024
_SNAPSHOT: Final = re.compile(r"snapshot(0|[1-9][0-9]{0,8})\.uid")
_DISK: Final = re.compile(r"snapshot(0|[1-9][0-9]{0,8})\.disk(0|[1-9][0-9]{0,8})\.filename")


def parse_vmsd(data: bytes) -> tuple[tuple[DescribedSnapshot, ...], int | None, ProblemList]:
    """Snapshots in the order of the file, the number of the current one, and the problems; never raises.

    An empty file has none.
    """
    found = parse_dictionary(data, NAME)
    problems = ProblemList(NAME)
    for problem in found.problems:
        problems.add(problem)
    snapshots: dict[int, DescribedSnapshot] = {}
    count = found.number("snapshot.numsnapshots")
    numbers, disks = _numbers(found)
    if count is not None and count != len(numbers):
        problems.note(NAME, f"it says that there are {count} snapshots, and has {len(numbers)}")
    if len(numbers) > _MOST_SNAPSHOTS:
        problems.note(NAME, f"snapshots after the first {_MOST_SNAPSHOTS} are left out")
    for number in numbers[:_MOST_SNAPSHOTS]:
        made = _snapshot(found, number, disks.get(number, []), problems)
        if made is None:
            continue
        if made.uid in snapshots:
            problems.note(NAME, f"two snapshots have the number {made.uid}; the second one is left out")
            continue
        snapshots[made.uid] = made
    for made in snapshots.values():
        if made.parent is not None and made.parent not in snapshots:
            problems.note(NAME, f"the parent of snapshot {made.name!r}, number {made.parent}, is not there")
    current = found.number("snapshot.current")
    return tuple(snapshots.values()), current if current in snapshots else None, problems


def _numbers(found: Dictionary) -> tuple[list[int], dict[int, list[int]]]:
    """Numbers of the snapshots in the file, and of the disks of each, in order."""
    snapshots: list[int] = []
    disks: dict[int, list[int]] = {}
    for key in found.settings:
        if match := _SNAPSHOT.fullmatch(key):
            snapshots.append(int(match[1]))
        elif match := _DISK.fullmatch(key):
            disks.setdefault(int(match[1]), []).append(int(match[2]))
    return sorted(snapshots), {number: sorted(places) for number, places in disks.items()}


def _snapshot(found: Dictionary, number: int, places: list[int], problems: ProblemList) -> DescribedSnapshot | None:
    prefix = f"snapshot{number}"
    uid = found.number(f"{prefix}.uid")
    if uid is None or uid < 0:
        problems.note(NAME, f"{prefix} has no number that can be read, and is left out")
        return None
    devices: list[DiskDevice] = []
    disks = found.number(f"{prefix}.numdisks")
    if disks is not None and disks != len(places):
        problems.note(NAME, f"{prefix} says that it has {disks} disks, and has {len(places)}")
    if len(places) > _MOST_DISKS:
        problems.note(NAME, f"disks of {prefix} after the first {_MOST_DISKS} are left out")
    for at in places[:_MOST_DISKS]:
        slot = (found.get(f"{prefix}.disk{at}.node") or f"disk{at}").lower()
        if any(each.slot == slot for each in devices):
            problems.note(NAME, f"{prefix} has another disk {slot!r}")
            slot = f"{slot} (disk{at})"
        devices.append(DiskDevice(slot, found.settings[f"{prefix}.disk{at}.filename"]))
    name = found.get(f"{prefix}.displayname") or f"Snapshot {uid}"
    parent = found.number(f"{prefix}.parent")
    return DescribedSnapshot(
        uid,
        name,
        found.get(f"{prefix}.description") or "",
        _created(found, prefix, problems),
        parent or None,  # numbers begin with 1
        sorted_devices(devices),
        found.get(f"{prefix}.filename") or None,
    )


def _created(found: Dictionary, prefix: str, problems: ProblemList) -> datetime | None:
    high, low = found.number(f"{prefix}.createtimehigh"), found.number(f"{prefix}.createtimelow")
    if not high or low is None:  # both are 0 where the writer had no time
        return None
    try:
        return _EPOCH + timedelta(microseconds=(high << 32) + (low & 0xFFFF_FFFF))
    except OverflowError:
        problems.note(NAME, f"the time of {prefix} is not a date")
        return None
