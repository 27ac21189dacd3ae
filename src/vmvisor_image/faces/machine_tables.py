"""Rows of a virtual machine's disks and snapshots, for notebooks and terminals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from vmvisor_image.faces.shared import sized
from vmvisor_image.machines.virtual_machine import Machine, Snapshot

DISKS: Final = ("Disk", "Mode", "Size", "File")
SNAPSHOTS: Final = ("Snapshot", "Taken (UTC)", "Description")
_INDENT: Final = "· "
"""Mark of each level of a tree; HTML joins spaces, and a space that stays is shown by its code."""


def title_of(machine: Machine) -> str:
    """Name of a machine, its guest and its firmware."""
    return f"{machine.name or 'virtual machine'} {facts_of(machine)}"


def facts_of(machine: Machine) -> str:
    """Guest of a machine, its firmware, and whether it is encrypted, in parentheses."""
    facts = [machine.guest or "guest not named", *filter(None, [machine.firmware])]
    facts += ["encrypted"] if machine.is_encrypted else []
    return f"({', '.join(facts)})"


def taken(snapshot: Snapshot) -> str:
    """Time at which a snapshot was taken, UTC."""
    return "-" if snapshot.created is None else snapshot.created.replace(tzinfo=None).isoformat(" ", "seconds")


def disk_rows(machine: Machine) -> list[tuple[str, ...]]:
    """Row of each disk; the size is the one that the description gives, as no disk is opened."""
    return [
        (
            device.slot,
            device.mode or "persistent",
            "-" if device.capacity is None else sized(device.capacity),
            device.file_name or "-",
        )
        for device in machine.disks.devices.values()
    ]


def snapshot_rows(machine: Machine) -> list[tuple[str, ...]]:
    """Row of each snapshot, behind the one that it was taken after and indented below it."""
    return [*_tree(machine.snapshots)]


def _tree(snapshots: Mapping[str, Snapshot]) -> Iterator[tuple[str, ...]]:
    following: dict[str | None, list[str]] = {}
    for key, each in snapshots.items():
        following.setdefault(each.parent, []).append(key)
    todo = [(key, 0) for key in reversed(following.get(None, []))]
    shown: set[str] = set()
    while todo or len(shown) < len(snapshots):
        if not todo:  # a loop, whose first one is shown as without a parent
            todo = [(next(key for key in snapshots if key not in shown), 0)]
        key, depth = todo.pop()
        if key in shown:
            continue
        shown.add(key)
        snapshot = snapshots[key]
        current = " (current)" if snapshot.is_current else ""
        yield f"{_INDENT * depth}{key}{current}", taken(snapshot), snapshot.description
        todo += [(each, depth + 1) for each in reversed(following.get(key, []))]
