"""OVF, its manifest, and OVA."""

from __future__ import annotations

from fuzz.exercise import documented
from vmvisor_image.machines.opening import machines_of
from vmvisor_image.machines.ovf import parse, parse_manifest
from vmvisor_image.testing.forge_machines import manifest_file, ovf_file
from vmvisor_image.testing.forge_modules import tar_archive


def seeds() -> list[bytes]:
    disks = {"scsi0:0": ("a%20b.vmdk", 1 << 30), "sata0:1": ("c.vmdk", 512)}
    one = ovf_file(disks, firmware="efi")
    manifest = manifest_file({"vm.ovf": one, "a b.vmdk": b"x"})
    package = {"vm.ovf": one, "vm.mf": manifest, "a b.vmdk": b"x"}
    return [one, ovf_file(disks, names=("second",)), manifest, tar_archive(package)]


def one_input(data: bytes) -> None:
    digests, problems = parse_manifest(data)
    assert len({each.name for each in digests}) == len(digests)
    assert all(str(problem) for problem in problems)
    with documented():
        for each in parse(data) or ():
            assert len({device.slot for device in each.devices}) == len(each.devices)
    with documented():
        for machine in machines_of(data, {}):
            for slot in machine.disks:
                with documented():
                    machine.disks[slot]
            machine.checksums()
            assert all(str(problem) for problem in machine.problems)
            machine.close()
