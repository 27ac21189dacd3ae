"""VMX and VMSD, and where a machine's disks are looked for."""

from __future__ import annotations

from datetime import UTC, datetime

from fuzz.exercise import documented
from vmvisor_image.machines.opening import open_machine
from vmvisor_image.machines.vmsd import parse_vmsd
from vmvisor_image.testing.forge_machines import ForgedSnapshot, vmsd_file, vmx_file

_TAKEN = datetime(2024, 5, 6, tzinfo=UTC)


def seeds() -> list[bytes]:
    disks = {"scsi0:0": "a|b.vmdk", "ide0:1": "/vmfs/volumes/x/c.vmdk", "nvme0:0": "[x] d/e.vmdk"}
    snapshots = [ForgedSnapshot(1, "a", _TAKEN, disks), ForgedSnapshot(2, "a", _TAKEN, {"scsi0:0": "x"}, parent=1)]
    return [
        vmx_file(disks, name="Prüfung"),
        vmx_file(disks, encoding="windows-1252", settings={"scsi0:0.redo": "./x", "scsi0:0.mode": "independent-x"}),
        vmx_file({}, settings={"encryption.keySafe": "x", "encryption.data": "y"}),
        vmsd_file(snapshots),
    ]


def one_input(data: bytes) -> None:
    snapshots, current, problems = parse_vmsd(data)
    assert current is None or current in {each.uid for each in snapshots}
    assert all(str(problem) for problem in problems.found)
    with documented(), open_machine(data) as machine:
        assert repr(machine)
        assert all(str(problem) for problem in machine.problems)
        for slot in machine.disks:
            with documented():
                machine.disks[slot]
