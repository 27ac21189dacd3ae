"""Domain XML of libvirt."""

from __future__ import annotations

from fuzz.exercise import documented
from vmvisor_image.machines.libvirt import parse
from vmvisor_image.machines.opening import open_machine
from vmvisor_image.testing.forge_machines import domain_xml


def seeds() -> list[bytes]:
    disks = {"vda": ("/srv/a.qcow2", "qcow2"), "sda": ("b.img", "raw")}
    domain = domain_xml(disks, firmware="efi", system="http://debian.org/debian/12")
    entity = b'<!DOCTYPE domain [<!ENTITY a "b"><!ENTITY c SYSTEM "file:///etc/passwd">]>\n<domain>&a;&c;</domain>'
    chain = b"<backingStore type='file'><format type='raw'/><source file='c'/><backingStore/></backingStore></disk>"
    taken = b"<domainsnapshot><name>x</name><creationTime>1</creationTime><disks><disk name='vda' snapshot='internal'/>"
    return [
        domain.replace(b"</disk>", chain),
        taken + b"</disks>" + domain_xml(disks) + b"</domainsnapshot>",
        entity,
    ]


def one_input(data: bytes) -> None:
    with documented():
        for each in parse(data) or ():
            assert len({device.slot for device in each.devices}) == len(each.devices)
    with documented(), open_machine(data) as machine:
        for disks in (machine.disks, *(snapshot.disks for snapshot in machine.snapshots.values())):
            for slot in disks:
                with documented():
                    disks[slot]
        assert all(str(problem) for problem in machine.problems)
