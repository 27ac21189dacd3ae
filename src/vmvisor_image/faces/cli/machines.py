"""The command ``machines``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any, Final, Literal

from vmvisor_image.errors import CorruptImage, DependencyMissing, NotAMachine, Problem
from vmvisor_image.faces.cli.layout import table_lines, table_width, wrapped
from vmvisor_image.faces.cli.opening import check_partitions, limits_of, open_options, opened_image
from vmvisor_image.faces.cli.progress import doing, showing_progress
from vmvisor_image.faces.cli.status import DONE
from vmvisor_image.faces.machine_tables import facts_of, taken
from vmvisor_image.faces.shared import GAP, Column, sized
from vmvisor_image.machines.opening import FoundMachines, find_machines
from vmvisor_image.machines.virtual_machine import Machine, Snapshot
from vmvisor_image.packages.signatures import SignatureCheck, SignatureState
from vmvisor_image.streams.urls import is_url

_DISKS: Final = (Column("Disk"), Column("Size", is_number=True), Column("Mode", 2), Column("File", 1, shortest=20))
_SNAPSHOTS: Final = (
    Column("Snapshot"),
    Column("Taken (UTC)", 2),
    Column("After", 1, shortest=12),
    Column("State", 3),
)
_PERSISTENT: Final = "persistent"
_STATE: Final = "vmss"
"""Kind of a file with the state of a machine."""
_State = Literal["there", "missing", "not recognised"]


def run_machines(options: argparse.Namespace) -> int:
    """Print each virtual machine with its disks and snapshots; what is missing becomes problems of the command."""
    with (
        showing_progress(doing(options.run)) as progress,
        limits_of(options).operation(),
        find_machines(options.source, *options.device, **open_options(options, progress)) as found,
    ):
        if not found:
            raise _none(options, found)
        described = [_Described(machine, with_checksums=options.checksums) for machine in found]
        options.problems += found.problems
        for each in described:
            name = each.machine.name or each.machine.path or "machine"
            options.problems += [Problem(f"{name}: {p.structure}", p.message, p.offset) for p in each.problems]
        if options.json:
            shown = {"machines": [each.to_dict() for each in described], "problems": [*map(_of, found.problems)]}
            print(json.dumps(shown, indent=2))
        else:
            for number, each in enumerate(described):
                if number:
                    print()
                each.print()
    return DONE


def _none(options: argparse.Namespace, found: FoundMachines) -> CorruptImage:
    """Error for a source without any machine; the reasons why there is none are raised instead where they are known."""
    is_folder = not is_url(options.source) and os.path.isdir(options.source)  # noqa: PTH112  # as it was given
    options.problems += found.problems
    if not is_folder and not options.device:
        with opened_image(options) as image:
            check_partitions(image, options)
    step = "check the folder" if is_folder else f"`vmvisor-image ls {options.source}` lists its files"
    return NotAMachine(f"no virtual machine is in it; {step}", structure=options.source)


class _Described:
    """What is shown of a machine."""

    def __init__(self, machine: Machine, *, with_checksums: bool) -> None:
        self.machine = machine
        self.checked = machine.checksums() if with_checksums else ()
        self.signature = _signature_of(machine) if self.checked else None
        missing = machine.disks.missing
        self._sizes: dict[str, int | Problem | None] = {}
        """Size of each disk in bytes, the reason why it can't be opened, or None where its file is missing."""
        self._sizes = {slot: None if slot in missing else self._size(machine, slot) for slot in machine.disks}
        errors = [error for error in self._sizes.values() if isinstance(error, Problem)]
        self.problems = tuple(dict.fromkeys([*machine.problems, *errors]))

    @staticmethod
    def _size(machine: Machine, slot: str) -> int | Problem:
        """Bytes of a disk, or the reason why it can't be opened."""
        try:
            return machine.disks[slot].size
        except (CorruptImage, OSError) as error:
            return Problem(f"disk {slot}", str(error))

    def print(self) -> None:
        """Print the machine: a heading, a table of its disks, and one of its snapshots."""
        machine, width = self.machine, table_width()
        print("\n".join(wrapped(f"{machine.name or '-'} {facts_of(machine)}", hanging=GAP, width=width)))
        print("\n".join(wrapped(machine.path or "-", GAP, width=width)))
        rows = [self._disk_row(slot) for slot in machine.disks]
        for line in table_lines(_DISKS, rows, width) if rows else ():
            print(line)
        rows = [_snapshot_row(snapshot) for snapshot in machine.snapshots.values()]
        for line in table_lines(_SNAPSHOTS, rows, width) if rows else ():
            print(line)
        for each in self.checked:
            result = "right" if each.is_right else "WRONG"
            print("\n".join(wrapped(f"{each.algorithm} of {each.path}: {result}", GAP, width=width)))
        if self.signature is not None:
            text = f"signature of the manifest: {self.signature.state.value}; {self.signature.message}"
            print("\n".join(wrapped(text, GAP, width=width)))

    def _disk_row(self, slot: str) -> tuple[str, ...]:
        size, device = self._sizes[slot], self.machine.disks.devices[slot]
        shown = "missing" if size is None else sized(size) if isinstance(size, int) else "unreadable"
        return (slot, shown, device.mode or _PERSISTENT, device.file_name or "-")

    def to_dict(self) -> dict[str, Any]:
        """The machine, of values that JSON has."""
        machine = self.machine
        disks = []
        for slot, device in machine.disks.devices.items():
            size = self._sizes[slot]
            disks.append(
                {
                    "slot": slot,
                    "file": device.file_name,
                    "mode": device.mode or _PERSISTENT,
                    "size": size if isinstance(size, int) else None,
                    "is_missing": size is None,
                }
            )
        return {
            "name": machine.name,
            "path": machine.path,
            "kind": machine.kind,
            "guest": machine.guest,
            "firmware": machine.firmware,
            "is_encrypted": machine.is_encrypted,
            "disks": disks,
            "snapshots": [*self._snapshots()],
            "checksums": [
                {"path": each.path, "algorithm": each.algorithm, "is_right": each.is_right} for each in self.checked
            ],
            "signature": None
            if self.signature is None
            else {"state": self.signature.state.value, "message": self.signature.message},
            "problems": [*map(_of, self.problems)],
        }

    def _snapshots(self) -> Iterator[dict[str, Any]]:
        for snapshot in self.machine.snapshots.values():
            yield {
                "name": snapshot.name,
                "number": snapshot.uid,
                "description": snapshot.description,
                "created": None if snapshot.created is None else snapshot.created.isoformat(),
                "parent": snapshot.parent,
                "is_current": snapshot.is_current,
                "state": {"file": snapshot.state, "found": _state(snapshot)},
                "disks": {slot: device.file_name for slot, device in snapshot.disks.devices.items()},
            }


def _signature_of(machine: Machine) -> SignatureCheck | None:
    """Check of the signature of a machine's manifest; None where it has none, or can't be checked here."""
    with contextlib.suppress(DependencyMissing):  # which is a problem of the machine
        check = machine.check_signature()
        return None if check.state is SignatureState.UNSIGNED else check
    return None


def _snapshot_row(snapshot: Snapshot) -> tuple[str, ...]:
    name = f"{snapshot.key} (current)" if snapshot.is_current else snapshot.key
    return (name, taken(snapshot), snapshot.parent or "-", _state(snapshot) or "-")


def _state(snapshot: Snapshot) -> _State | None:
    """What there is of the file with a snapshot's state; None where it names none."""
    if snapshot.state is None:
        return None
    try:
        match = snapshot.recognise_state()
    except (CorruptImage, OSError):  # the disks can be read without it
        return "missing"
    return "there" if match is not None and match.kind == _STATE else "not recognised"


def _of(problem: Problem) -> dict[str, Any]:
    return {"structure": problem.structure, "message": problem.message, "offset": problem.offset}
