"""Virtual machines as OVF, OVA and libvirt describe them, and what other programs say of the same files."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY, require_oracle, run
from vmvisor_image import (
    CorruptImage,
    Image,
    MemberNotFound,
    NotAMachine,
    SeveralImages,
    SignatureState,
    find_machines,
    open_certificates,
    open_machine,
)
from vmvisor_image.base.xml_tree import LARGEST, parse_xml
from vmvisor_image.faces.cli import main
from vmvisor_image.machines import libvirt, ovf
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_machines import domain_xml, manifest_file, ovf_file
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume

MIB = 1 << 20
SYSTEM = random.Random(1).randbytes(MIB) + bytes(3 * MIB)
DATA = bytes(MIB) + random.Random(2).randbytes(MIB)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two disks as qemu-img packs them for an OVF, by the names of their files."""
    folder = tmp_path_factory.mktemp("disks")
    found = {}
    for name, data in (("vm-disk1.vmdk", SYSTEM), ("vm-disk2.vmdk", DATA)):
        (folder / "raw").write_bytes(data)
        options = ("-O", "vmdk", "-o", "subformat=streamOptimized")
        run("qemu-img", "convert", "-f", "raw", *options, folder / "raw", folder / name)
        found[name] = (folder / name).read_bytes()
    return found


def package(disks: dict[str, bytes], **given: Any) -> dict[str, bytes]:
    """Files of an OVF by name, the description first."""
    slots = {"sata0:1": ("vm-disk2.vmdk", len(DATA)), "scsi0:0": ("vm-disk1.vmdk", len(SYSTEM))}
    files = {"vm.ovf": ovf_file(slots, **given), **disks}
    return {"vm.ovf": files["vm.ovf"], "vm.mf": manifest_file(files), **disks}


def ova(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class TestOvf:
    def check(self, source: Any) -> None:
        with open_machine(source) as machine:
            assert (machine.kind, machine.name, machine.guest) == ("ovf", "vm", "debian11_64Guest")
            assert [*machine.disks] == ["scsi0:0", "sata0:1"]
            assert machine.disks["scsi0:0"].read_at(0, len(SYSTEM)) == SYSTEM
            assert machine.disks["sata0:1"].read_at(0, len(DATA)) == DATA
            assert machine.disks.devices["scsi0:0"].capacity == len(SYSTEM)
            assert machine.problems == ()
            checked = machine.checksums()
            assert [each.path for each in checked] == ["vm.ovf", "vm-disk1.vmdk", "vm-disk2.vmdk"]
            assert all(each.is_right for each in checked)
            assert machine.problems == ()
            assert machine.snapshots == {}

    def test_a_folder(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        self.check(write(tmp_path, package(disks)) / "vm.ovf")

    def test_an_ova(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        path = ova(package(disks), tmp_path / "vm.ova")
        self.check(path)
        self.check(path.read_bytes())
        with find_machines(path) as found:
            assert [machine.name for machine in found] == ["vm"]

    def test_an_ova_in_a_datastore(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        (volume,) = vmfs_volume({"export/vm.ova": ova(package(disks), tmp_path / "vm.ova").read_bytes()})
        with Image.open(volume) as image:
            self.check(image.partitions[1].files["export/vm.ova"])
            with find_machines(volume) as found:
                assert [machine.path for machine in found] == ["datastore1/export/vm.ova"]
                assert found[0].disks["scsi0:0"].read_at(0, 512) == SYSTEM[:512]

    def test_firmware_and_names_that_are_quoted(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        described = ovf_file({"scsi0:0": ("my%20disk.vmdk", 512)}, firmware="efi")
        write(tmp_path, {"vm.ovf": described, "my disk.vmdk": disks["vm-disk1.vmdk"]})
        with open_machine(tmp_path / "vm.ovf") as machine:
            assert machine.firmware == "efi"
            assert machine.disks["scsi0:0"].size == len(SYSTEM)
            (tmp_path / "my disk.vmdk").rename(tmp_path / "my%20disk.vmdk")
            assert machine.problems == ()

    def test_several_machines(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        path = write(tmp_path, package(disks, name="web", names=("database",))) / "vm.ovf"
        with pytest.raises(SeveralImages, match="several machines, name one as member: 'web', 'database'") as caught:
            open_machine(path)
        assert caught.value.members == ("web", "database")
        for member in ("database", "vm-2"):
            with open_machine(path, member=member) as machine:
                assert machine.name == "database"
        with pytest.raises(MemberNotFound, match="did you mean 'web'"):
            open_machine(path, member="wep")
        with find_machines(path) as found:
            assert [machine.name for machine in found] == ["web", "database"]

    @pytest.mark.parametrize("href", ["../secret.vmdk", "/etc/secret.vmdk", "%2e%2e%2fsecret.vmdk", "sub/secret.vmdk"])
    def test_only_beside_the_description(self, tmp_path: Path, href: str) -> None:
        write(tmp_path, {"secret.vmdk": b"secret".ljust(512)})
        path = write(tmp_path / "vm", {"vm.ovf": ovf_file({"scsi0:0": (href, 512)})}) / "vm.ovf"
        with open_machine(path) as machine:
            with pytest.raises(CorruptImage, match="is not there"):
                machine.disks["scsi0:0"]
            assert len(machine.problems) == 1

    def test_addresses_are_not_followed(self, tmp_path: Path) -> None:
        path = write(tmp_path, {"vm.ovf": ovf_file({"scsi0:0": ("http://host/x.vmdk", 512)})}) / "vm.ovf"
        with open_machine(path) as machine, pytest.raises(CorruptImage, match="which is not followed"):
            machine.disks["scsi0:0"]

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            (b' ovf:fileRef="file1" ovf:capacity="1"', b' ovf:capacity="${x}"', "whose size is not known"),
            (b"ovf:/disk/vmdisk1", b"ovf:/disk/none", "the package has nothing at 'ovf:/disk/none'"),
            (
                b"<rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>",
                b"",
                "no file or disk of the package is named",
            ),
            (
                b'ovf:diskId="vmdisk1"',
                b'ovf:diskId="vmdisk1" ovf:parentRef="vmdisk2"',
                "to another disk of the package, 'vmdisk2', which is not there",
            ),
            (
                b'ovf:diskId="vmdisk1"',
                b'ovf:diskId="vmdisk1" ovf:parentRef="vmdisk1"',
                "'vmdisk1', which rests on it, or on too many others",
            ),
            (b'ovf:href="a.vmdk"', b'ovf:href="a.vmdk" ovf:chunkSize="x"', "'x', is not a number of bytes"),
            (b'ovf:href="a.vmdk" ovf:size="1"', b'ovf:href="a" ovf:chunkSize="1" ovf:size="501"', "in 501 parts"),
        ],
    )
    def test_disks_without_a_file(self, old: bytes, new: bytes, said: str) -> None:
        data = ovf_file({"scsi0:0": ("a.vmdk", 512)})
        assert old in data
        with open_machine(data.replace(old, new)) as machine:
            assert [*machine.disks] == ["scsi0:0"]
            assert said in str(machine.problems[0])

    @pytest.fixture
    def difference(self, tmp_path: Path) -> dict[str, bytes]:
        """A package with a disk that QEMU made on another one, whose file has another name since."""
        run("qemu-img", "create", "-q", "-f", "vmdk", tmp_path / "b.vmdk", "4M")
        run("qemu-io", "-f", "vmdk", "-c", "write -P 2 0 128k", tmp_path / "b.vmdk")
        run("qemu-img", "create", "-q", "-f", "vmdk", "-b", tmp_path / "b.vmdk", "-F", "vmdk", tmp_path / "c.vmdk")
        run("qemu-io", "-f", "vmdk", "-c", "write -P 3 64k 64k", tmp_path / "c.vmdk")
        run("qemu-img", "convert", "-O", "raw", tmp_path / "c.vmdk", tmp_path / "c.raw")
        described = ovf_file({"scsi0:0": ("below.vmdk", 4 * MIB), "scsi0:1": ("c.vmdk", 4 * MIB)})
        described = described.replace(b'ovf:diskId="vmdisk2"', b'ovf:diskId="vmdisk2" ovf:parentRef="vmdisk1"')
        (tmp_path / "b.vmdk").rename(tmp_path / "below.vmdk")
        return {"vm.ovf": described, **{name: (tmp_path / name).read_bytes() for name in ("below.vmdk", "c.vmdk")}}

    @pytest.mark.parametrize("is_ova", [False, True])
    def test_a_difference_to_another_disk(self, tmp_path: Path, difference: dict[str, bytes], *, is_ova: bool) -> None:
        """DSP0243, 9.1: the parent is the one that the description names, whatever name the disk has for it."""
        source = ova(difference, tmp_path / "vm.ova") if is_ova else write(tmp_path / "vm", difference) / "vm.ovf"
        with open_machine(source) as machine:
            assert machine.problems == ()
            assert machine.disks["scsi0:1"].read_at(0, 4 * MIB) == (tmp_path / "c.raw").read_bytes()
            assert machine.disks["scsi0:0"].read_at(64 << 10, 2) == b"\2\2"

    def test_a_difference_that_is_none_or_alone(self, tmp_path: Path, difference: dict[str, bytes]) -> None:
        """What rests on nothing has zeros where its parent's bytes belong, so it is refused."""
        path = write(tmp_path / "vm", difference) / "vm.ovf"
        (tmp_path / "vm" / "c.vmdk").write_bytes(difference["below.vmdk"])
        wrong = pytest.raises(CorruptImage, match=r"difference to 'below.vmdk', and its file 'c.vmdk' does not rest on")
        with open_machine(path) as machine, wrong:
            machine.disks["scsi0:1"]
        (tmp_path / "vm" / "below.vmdk").unlink()
        with open_machine(path) as machine:
            said = [str(problem) for problem in machine.problems]
        reason = "its file 'below.vmdk' is not there; it was looked for beside the description"
        assert said == [f"disk scsi0:0: {reason}", f"disk scsi0:1: {reason}"]

    @pytest.mark.parametrize("is_size_known", [True, False])
    @pytest.mark.parametrize("kind", ["plain", "gzip"])
    def test_a_disk_in_parts(self, kind: str, is_size_known: bool, tmp_path: Path, disks: dict[str, bytes]) -> None:
        """DSP0243, 7: a number of nine digits behind the name, as ``split`` writes it; gzip is around all parts."""
        write(tmp_path, {"vm.vmdk": disks["vm-disk1.vmdk"]})
        if kind == "gzip":
            (tmp_path / "vm.vmdk").write_bytes(gzip.compress(disks["vm-disk1.vmdk"], mtime=0))
        size = (tmp_path / "vm.vmdk").stat().st_size
        run("split", "-b", "100000", "-d", "-a", "9", tmp_path / "vm.vmdk", tmp_path / "vm.vmdk.")
        (tmp_path / "vm.vmdk").unlink()
        attributes = f'ovf:chunkSize="100000" ovf:compression="{kind.replace("plain", "identity")}"'
        attributes += f' ovf:size="{size}"' if is_size_known else ""
        described = ovf_file({"scsi0:0": ("vm.vmdk", len(SYSTEM))}).replace(b'ovf:size="1"', attributes.encode())
        write(tmp_path, {"vm.ovf": described})
        with open_machine(tmp_path / "vm.ovf") as machine:
            assert machine.problems == ()
            assert machine.disks["scsi0:0"].read_at(0, len(SYSTEM)) == SYSTEM
        files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
        with open_machine(ova({"vm.ovf": described, **files}, tmp_path / "vm.ova")) as machine:
            assert machine.disks["scsi0:0"].read_at(0, len(SYSTEM)) == SYSTEM

        second = tmp_path / "vm.vmdk.000000001"
        second.write_bytes(second.read_bytes()[:-1])
        wrong = pytest.raises(CorruptImage, match="part 1 of its file has the wrong size")
        with open_machine(tmp_path / "vm.ovf") as machine, wrong:
            machine.disks["scsi0:0"].read_at(0, 1)
        second.unlink()
        with open_machine(tmp_path / "vm.ovf") as machine:
            if is_size_known:
                assert "'vm.vmdk.000000001' is not there" in str(machine.problems[0])

    def test_a_disk_that_is_compressed(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        """DSP0243, 7: gzip around the file."""
        described = ovf_file({"scsi0:0": ("a.vmdk", len(SYSTEM))}).replace(b"<File ", b'<File ovf:compression="gzip" ')
        write(tmp_path, {"vm.ovf": described, "a.vmdk": gzip.compress(disks["vm-disk1.vmdk"], mtime=0)})
        with open_machine(tmp_path / "vm.ovf") as machine:
            assert machine.disks["scsi0:0"].read_at(0, len(SYSTEM)) == SYSTEM

    def test_a_disk_named_by_its_file(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        described = ovf_file({"scsi0:0": ("vm-disk1.vmdk", 512)}).replace(b"ovf:/disk/vmdisk1", b"/file/file1")
        write(tmp_path, {"vm.ovf": described, **disks})
        with open_machine(tmp_path / "vm.ovf") as machine:
            assert machine.disks["scsi0:0"].size == len(SYSTEM)

    @pytest.mark.parametrize(
        ("unit", "factor"), [(b"byte", 1), (b"byte * 2^30", 1 << 30), (b"byte * 1024", 1024), (b"Gigabytes", None)]
    )
    def test_units(self, unit: bytes, factor: int | None) -> None:
        data = ovf_file({"scsi0:0": ("a.vmdk", 8 * 512)}).replace(b"byte * 512", unit)
        with open_machine(data) as machine:
            assert machine.disks.devices["scsi0:0"].capacity == (None if factor is None else 8 * factor)

    def test_machines_that_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ovf, "_MOST_MACHINES", 2)
        first, second = ovf.parse(ovf_file({}, names=("b", "c"))) or ()
        assert (first.name, first.problems, second.name) == ("vm", (), "b")
        assert [problem.message for problem in second.problems] == ["machines after the first 2 are left out, of 3"]

    def test_an_empty_disk(self) -> None:
        """It has a size and no file, and is made when the machine is."""
        with open_machine(ovf_file({"scsi0:0": ("a.vmdk", MIB)}).replace(b' ovf:fileRef="file1"', b"")) as machine:
            assert machine.problems == ()
            assert machine.disks["scsi0:0"].size == MIB
            assert machine.disks["scsi0:0"].read_at(MIB - 512, 512) == bytes(512)

    def test_configurations(self) -> None:
        """Without one that is asked for, the default is installed, or else the first one (DSP0243, 9.8)."""
        data = ovf_file({"scsi0:0": ("a.vmdk", 512), "scsi0:1": ("b.vmdk", 512), "scsi0:2": ("c.vmdk", 512)})
        options = b'<DeploymentOptionSection><Configuration ovf:id="small"/><Configuration ovf:id="large"'
        first, second, third = (b"<Item><rasd:AddressOnParent>%d<" % number for number in range(3))
        data = data.replace(second, second.replace(b"<Item>", b'<Item ovf:configuration="small medium">'))
        data = data.replace(third, b'<Item ovf:configuration="large"><rasd:AddressOnParent>1<')
        assert first in data
        for default, name in ((b"", "b.vmdk"), (b' ovf:default="true"', "c.vmdk")):
            whole = data.replace(b"<References>", options + default + b"/></DeploymentOptionSection><References>")
            with open_machine(whole) as machine:
                found = [(device.slot, device.file_name) for device in machine.disks.devices.values()]
                assert found == [("scsi0:0", "a.vmdk"), ("scsi0:1", name)]
                assert not machine.description.problems

    def test_an_item_of_a_configuration_replaces_the_general_one(self) -> None:
        data = ovf_file({"scsi0:0": ("a.vmdk", 512), "scsi0:1": ("b.vmdk", 512)})
        options = b'<DeploymentOptionSection><Configuration ovf:id="only"/></DeploymentOptionSection><References>'
        data = data.replace(b"<References>", options)
        data = data.replace(b"<rasd:InstanceID>102<", b"<rasd:InstanceID>101<")
        data = data.replace(
            b"<Item><rasd:AddressOnParent>1<", b'<Item ovf:configuration="only"><rasd:AddressOnParent>0<'
        )
        with open_machine(data) as machine:
            assert [device.file_name for device in machine.disks.devices.values()] == ["b.vmdk"]

    def test_persistent_memory(self) -> None:
        data = ovf_file({"nvme0:0": ("a.vmdk", 512), "scsi0:0": ("b.vmdk", 512)})
        data = data.replace(b"vmware.nvme.controller", b"vmware.nvdimm.controller")
        kind, device = b"<rasd:ResourceType>17<", b"<rasd:ResourceSubType>vmware.nvdimm.device</rasd:ResourceSubType>"
        data = data.replace(kind, device + b"<rasd:ResourceType>20<", 1)
        with open_machine(data) as machine:
            assert [*machine.disks] == ["scsi0:0", "nvdimm0:0"]
            assert machine.disks.devices["nvdimm0:0"].file_name == "a.vmdk"

    def test_version_0_9(self) -> None:
        """Sections and machines are elements of a type there, and numbers of items are spelled otherwise."""
        text = """<ovf:Envelope xmlns:x="http://www.w3.org/2001/XMLSchema-instance"
            xmlns:ovf="http://www.vmware.com/schema/ovf/1/envelope" xmlns:r="urn:r" ovf:version="0.9">
          <References><File ovf:id="file1" ovf:href="a.vmdk"/></References>
          <Section x:type="ovf:DiskSection_Type">
            <Disk ovf:diskId="d1" ovf:fileRef="file1" ovf:capacity="512"/></Section>
          <Content x:type="ovf:VirtualSystem_Type" ovf:id="old">
            <Section x:type="ovf:OperatingSystemSection_Type" ovf:id="36"><Description>Other</Description></Section>
            <Section x:type="ovf:VirtualHardwareSection_Type">
              <Item><r:InstanceId>6</r:InstanceId><r:ResourceType>17</r:ResourceType>
                <r:HostResource>/disk/d1</r:HostResource><r:Parent>8</r:Parent><r:AddressOnParent>3</r:AddressOnParent></Item>
              <Item><r:InstanceId>8</r:InstanceId><r:ResourceType>6</r:ResourceType><r:BusNumber>1</r:BusNumber></Item>
            </Section>
          </Content></ovf:Envelope>"""
        with open_machine(text.encode()) as machine:
            assert (machine.name, machine.guest) == ("old", "Other")
            [device] = machine.disks.devices.values()
            assert (device.slot, device.file_name, device.capacity) == ("scsi1:3", "a.vmdk", 512)

    def test_prefixes_that_are_not_declared(self) -> None:
        """Some of VMware's own descriptions have them."""
        data = ovf_file({"scsi0:0": ("a.vmdk", 512)}, firmware="efi").replace(
            b' xmlns:vmw="http://www.vmware.com/', b' x="'
        )
        with open_machine(data) as machine:
            assert (machine.firmware, [*machine.disks]) == ("efi", ["scsi0:0"])

    def test_two_disks_at_one_place(self) -> None:
        data = ovf_file({"scsi0:0": ("a.vmdk", 512), "scsi0:1": ("b.vmdk", 512)})
        data = data.replace(b"<Item><rasd:AddressOnParent>1<", b"\n<Item><rasd:AddressOnParent>0<")
        with open_machine(data) as machine:
            first, second = machine.disks.devices.values()
            assert (first.slot, first.file_name, second.file_name) == ("scsi0:0", "a.vmdk", "b.vmdk")
            assert second.slot.startswith("scsi0:0 (line ")
            assert "there is another disk 'scsi0:0'" in str(machine.problems[0])

    @pytest.mark.parametrize("number", [b"9" * 5000, b"-1", "٣".encode(), b"", b"0x1"])
    def test_numbers_of_any_length(self, number: bytes) -> None:
        data = ovf_file({"scsi0:0": ("a.vmdk", 512)})
        for name in (b"AddressOnParent", b"Address", b"InstanceID", b"Parent"):
            changed = data.replace(b"<rasd:%s>0<" % name, b"<rasd:%s>%s<" % (name, number))
            with open_machine(changed) as machine:
                assert [device.file_name for device in machine.disks.devices.values()] == ["a.vmdk"]
        huge = data.replace(b"byte * 512", b"byte * 999^128").replace(b' ovf:fileRef="file1"', b"")
        with open_machine(huge) as machine:
            assert "whose size is not known" in str(machine.problems[0])

    def test_two_controllers_with_one_address(self) -> None:
        data = ovf_file({"scsi0:0": ("a.vmdk", 512), "scsi1:0": ("b.vmdk", 512)})
        with open_machine(data.replace(b"<rasd:Address>1<", b"<rasd:Address>0<")) as machine:
            assert [*machine.disks] == ["scsi0:0", "scsi1:0"]

    def test_a_tar_of_anything_else(self, tmp_path: Path) -> None:
        with pytest.raises(NotAMachine):
            open_machine(ova({"a.txt": b"a", "vm.ovf": ovf_file({})}, tmp_path / "x.ova"))


class TestManifest:
    def test_a_file_that_was_changed(self, tmp_path: Path, disks: dict[str, bytes]) -> None:
        files = package(disks)
        files["vm-disk2.vmdk"] = disks["vm-disk2.vmdk"][:-1] + b"x"
        with open_machine(ova(files, tmp_path / "vm.ova")) as machine:
            assert not machine.problems
            assert [each.is_right for each in machine.checksums()] == [True, True, False]
            [problem] = machine.problems
            assert str(problem).startswith("manifest: 'vm-disk2.vmdk' has the sha256 ")

    @pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
    def test_sums_of_coreutils(self, tmp_path: Path, algorithm: str, disks: dict[str, bytes]) -> None:
        write(tmp_path, package(disks))
        names = ("vm.ovf", "vm-disk1.vmdk")
        sums = [run(f"{algorithm}sum", "--tag", tmp_path / name).replace(f"{tmp_path}/", "") for name in names]
        (tmp_path / "vm.mf").write_text("".join(sums))
        with open_machine(tmp_path / "vm.ovf") as machine:
            assert [(each.path, each.algorithm, each.is_right) for each in machine.checksums()] == [
                (name, algorithm, True) for name in names
            ]

    def test_coreutils_read_the_forged_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write(tmp_path, {"a b.vmdk": b"a", "c(1).vmdk": b"c"}))
        files = {name: (tmp_path / name).read_bytes() for name in ("a b.vmdk", "c(1).vmdk")}
        for spaces in (False, True):
            (tmp_path / "x.mf").write_bytes(manifest_file(files, spaces=spaces))
            assert run("sha256sum", "-c", tmp_path / "x.mf") == "a b.vmdk: OK\nc(1).vmdk: OK\n"
            found, problems = ovf.parse_manifest((tmp_path / "x.mf").read_bytes())
            assert ([each.name for each in found], problems) == ([*files], ())

    def test_damage(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"secret")
        lines = b"SHA256(vm.ovf)= 12\nMD5(x)= 00\n\nSHA1(../secret)= " + b"0" * 40 + b"\nSHA1(none)= " + b"0" * 40
        lines += b"\nSHA1(none)= " + b"1" * 40 + b"\n"
        path = write(tmp_path / "vm", {"vm.ovf": ovf_file({}), "vm.mf": lines}) / "vm.ovf"
        with open_machine(path) as machine:
            assert machine.checksums() == ()
            assert [problem.message for problem in machine.problems] == [
                "line 1 is not of the form SHA256(name)= digits",
                "line 2 is not of the form SHA256(name)= digits",
                "line 6: 'none' is there twice; the first one counts",
                "'../secret' can't be checked: manifest: it would lie in another directory",
                "'none' can't be checked: it is not there, or can't be read",
            ]

    def test_the_command(self, tmp_path: Path, disks: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
        path = write(tmp_path, package(disks)) / "vm.ovf"
        assert main(["machines", "--checksums", str(path)]) == 0
        assert "sha256 of vm-disk1.vmdk: right" in capsys.readouterr().out
        with (tmp_path / "vm-disk1.vmdk").open("ab") as file:
            file.write(b"x")
        assert main(["machines", "--checksums", "--json", str(path)]) == 1
        captured = capsys.readouterr()
        [machine] = json.loads(captured.out)["machines"]
        assert [each["is_right"] for each in machine["checksums"]] == [True, False, True]
        assert "vm: manifest: 'vm-disk1.vmdk' has the sha256" in captured.err


def signed(manifest: bytes, folder: Path, algorithm: str = "sha256") -> bytes:
    """A signature of a manifest as VMware's manual has it made by ``openssl``, and the signer's certificate."""
    key, pem = folder / "key.pem", folder / "signer.pem"
    subject = ("-subj", "/CN=maker", "-days", "30")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", pem, *subject)
    (folder / "manifest").write_bytes(manifest)
    run("openssl", "dgst", f"-{algorithm}", "-sign", key, "-out", folder / "value", folder / "manifest")
    value = (folder / "value").read_bytes().hex()
    return f"{algorithm.upper()}(vm.mf)= {value}\n".encode() + pem.read_bytes()


class TestSignature:
    @pytest.mark.parametrize("is_ova", [False, True])
    def test_one_that_is_right(self, tmp_path: Path, disks: dict[str, bytes], *, is_ova: bool) -> None:
        files = package(disks)
        files["vm.cert"] = signed(files["vm.mf"], tmp_path)
        source = ova(files, tmp_path / "vm.ova") if is_ova else write(tmp_path / "vm", files) / "vm.ovf"
        with open_machine(source) as machine:
            check = machine.check_signature()
            assert (check.state, str(check.signer).partition(" ")[0]) == (SignatureState.UNKNOWN_SIGNER, "CN=maker")
            check = machine.check_signature(open_certificates(tmp_path / "signer.pem"))
            assert check.is_verified
            assert all(each.is_right for each in machine.checksums())
            assert machine.problems == ()

    @pytest.mark.parametrize(
        ("change", "state", "said"),
        [
            (lambda cert, _: cert, SignatureState.WRONG, "the key did not make this signature"),
            (lambda _, folder: signed(b"", folder, "sha1"), SignatureState.NOT_CHECKED, "RSA with SHA1"),
            (lambda cert, _: cert[:600], SignatureState.NOT_CHECKED, "no certificate that can be read"),
            (lambda cert, _: b"x" + cert, SignatureState.NOT_CHECKED, "it does not begin with a line"),
            (lambda cert, _: cert.replace(b"\n", b"0\n", 1), SignatureState.NOT_CHECKED, "it does not begin"),
            (
                lambda cert, _: cert.replace(b"CERTIFICATE", b"OTHER"),
                SignatureState.NOT_CHECKED,
                "no certificate that can be read",
            ),
        ],
    )
    def test_one_that_is_not(self, tmp_path: Path, change: Any, state: SignatureState, said: str) -> None:
        """The manifest was changed since, or the signature is none that can be checked: a problem of the checksums."""
        described = ovf_file({})
        manifest = manifest_file({"vm.ovf": described})
        files = {
            "vm.ovf": described,
            "vm.mf": manifest,
            "vm.cert": change(signed(manifest + b"\n", tmp_path), tmp_path),
        }
        with open_machine(write(tmp_path / "vm", files) / "vm.ovf") as machine:
            check = machine.check_signature()
            assert check.state is state
            assert said in check.message
            assert machine.problems == ()
            machine.checksums()
            told = [*map(str, machine.problems)]
            assert told == [f"signature of the manifest: {state.value}: {check.message}"]

    def test_none(self, tmp_path: Path) -> None:
        files = {"vm.ovf": ovf_file({}), "vm.cert": b"x"}
        with open_machine(write(tmp_path, files) / "vm.ovf") as machine:
            assert "no manifest" in machine.check_signature().message
        (tmp_path / "vm.cert").unlink()
        with open_machine(tmp_path / "vm.ovf") as machine:
            assert machine.check_signature().state is SignatureState.UNSIGNED
        with open_machine(domain_xml({})) as machine:
            assert machine.check_signature().state is SignatureState.UNSIGNED

    def test_the_command(self, tmp_path: Path, disks: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
        files = package(disks)
        files["vm.cert"] = signed(files["vm.mf"], tmp_path)
        path = write(tmp_path / "vm", files) / "vm.ovf"
        assert main(["machines", "--checksums", str(path)]) == 0
        assert "signature of the manifest: signed by an unknown key; signed by CN=maker" in capsys.readouterr().out
        (tmp_path / "vm" / "vm.mf").write_bytes(files["vm.mf"] + b"\n")
        assert main(["machines", "--checksums", "--json", str(path)]) == 1
        captured = capsys.readouterr()
        assert json.loads(captured.out)["machines"][0]["signature"]["state"] == "wrong"
        assert "signature of the manifest: wrong: it is not a signature of these bytes by CN=maker" in captured.err


class TestLibvirt:
    def test_disks(self, tmp_path: Path) -> None:
        (tmp_path / "raw").write_bytes(SYSTEM)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "a.qcow2")
        (tmp_path / "b.img").write_bytes(DATA)
        described = domain_xml(
            {"vdb": ("/var/lib/libvirt/images/a.qcow2", "qcow2"), "vda": ("b.img", "raw")},
            name="web & co",
            firmware="efi",
            system="http://debian.org/debian/12",
        )
        (tmp_path / "vm.xml").write_bytes(described)
        with open_machine(tmp_path / "vm.xml") as machine:
            assert (machine.kind, machine.name, machine.firmware) == ("libvirt", "web & co", "efi")
            assert machine.guest == "http://debian.org/debian/12"
            assert [*machine.disks] == ["vdb", "vda"]
            assert machine.disks["vdb"].read_at(0, len(SYSTEM)) == SYSTEM
            assert machine.disks["vda"].read_at(0, len(DATA)) == DATA
            assert machine.problems == ()
        with find_machines(tmp_path) as found:
            assert [machine.name for machine in found] == ["web & co"]

    def test_a_raw_disk_that_begins_as_another_format(self, tmp_path: Path) -> None:
        """As a guest can make it, to choose what is read for it."""
        (tmp_path / "secret.img").write_bytes(b"secret".ljust(MIB))
        backing = ("-b", "secret.img", "-F", "raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", *backing, tmp_path / "disk.img")
        (tmp_path / "vm.xml").write_bytes(domain_xml({"vda": ("disk.img", "raw")}))
        machine = open_machine(tmp_path / "vm.xml")
        with pytest.raises(CorruptImage, match=r"another format than described.*expected raw, found qcow2"):
            machine.disks["vda"]

    @pytest.mark.parametrize(
        ("disk", "said"),
        [
            (
                "<disk type='block' device='disk'><source dev='/dev/sdb'/>",
                "of type block, '/dev/sdb'",
            ),
            (
                "<disk type='network'><source protocol='rbd' name='p/x'/>",
                "of type network, 'p/x'",
            ),
            ("<disk type='file'>", "it has no source"),
            (
                "<disk><source file='x'><encryption format='luks'/></source>",
                "'x' is encrypted",
            ),
        ],
    )
    def test_disks_that_are_in_no_file(self, disk: str, said: str) -> None:
        text = f"<domain><name>x</name><devices>{disk}<target dev='vda'/></disk></devices></domain>"
        with open_machine(text.encode()) as machine:
            assert [*machine.disks] == ["vda"]
            assert said in str(machine.problems[0])

    def test_files_of_libvirt_with_a_domain_in_them(self) -> None:
        inner = domain_xml({"vda": ("a.img", "raw")}, name="inner").decode()
        for root in ("domstatus", "domainbackup"):
            (machine,) = libvirt.parse(f"<!-- notes --><{root}><x/>{inner}</{root}>".encode()) or ()
            assert (machine.name, machine.firmware) == ("inner", "bios")

    @pytest.fixture
    def chained(self, tmp_path: Path) -> Path:
        """Directory of three disks that QEMU made on each other: c on b on a, which is raw."""
        (tmp_path / "a.img").write_bytes(DATA)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.img", "-F", "raw", tmp_path / "b.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", tmp_path / "c.qcow2")
        return tmp_path

    @pytest.mark.parametrize(
        ("chain", "said"),
        [
            ((("/x/b.qcow2", "qcow2"), ("/x/a.img", "raw")), None),
            ((("/x/b.qcow2", "qcow2"),), "says 'b.qcow2' (qcow2): "),
            ((), "says nothing: "),
            ((("/x/old.qcow2", "qcow2"), ("/x/a.img", "raw")), "says 'old.qcow2' (qcow2) on 'a.img' (raw): "),
            ((("/x/b.qcow2", "raw"), ("/x/a.img", "raw")), "says 'b.qcow2' (raw) on 'a.img' (raw): "),
            ((("/x/b.qcow2", "vpc"), ("/x/a.img", "raw")), None),
        ],
    )
    @pytest.mark.parametrize("is_whole", [True, False])
    def test_a_chain_that_the_description_gives(
        self, chained: Path, chain: tuple[tuple[str, str], ...], said: str | None, *, is_whole: bool
    ) -> None:
        """As of machines that run; what the disks themselves say is read, and a difference is a problem."""
        described = "<backingStore/>" if is_whole else ""
        for path, kind in reversed(chain):
            described = (
                f"<backingStore type='file'><format type='{kind}'/><source file='{path}'/>{described}</backingStore>"
            )
        whole = domain_xml({"vda": ("c.qcow2", "qcow2")}).replace(b"</disk>", described.encode() + b"</disk>", 1)
        (chained / "vm.xml").write_bytes(whole)
        with open_machine(chained / "vm.xml") as machine:
            assert machine.problems == ()
            assert machine.disks["vda"].read_at(0, len(DATA)) == DATA
            told = [*map(str, machine.problems)]
            if said is None or (not is_whole and chain in ((), (("/x/b.qcow2", "qcow2"),))):
                assert told == []
            else:
                own = "disk vda: it rests on 'b.qcow2' (qcow2) on 'a.img' (raw), and its description "
                assert told == [f"{own}{said}the former is read"]

    def test_a_chain_whose_disk_is_missing(self, chained: Path) -> None:
        """That is the error of the disk, as without a description of its chain."""
        whole = domain_xml({"vda": ("c.qcow2", "qcow2")}).replace(b"</disk>", b"<backingStore/></disk>", 1)
        (chained / "vm.xml").write_bytes(whole)
        (chained / "a.img").unlink()
        with open_machine(chained / "vm.xml") as machine, pytest.raises(CorruptImage, match="can't be opened"):
            machine.disks["vda"].read_at(0, 1)

    @pytest.fixture
    def snapshot(self, tmp_path: Path) -> Path:
        """A snapshot's description: vda has it inside, vdb on another file since, and vdc is left out."""
        inside, before, since = (tmp_path / name for name in ("a.qcow2", "b.qcow2", "b.before"))
        for path in (inside, before):
            run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
            run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", path)
        run("qemu-img", "snapshot", "-c", "before & after", inside)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", before, "-F", "qcow2", since)
        for path in (inside, since):
            run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", path)
        names = {"vda": "a.qcow2", "vdb": "b.qcow2", "vdc": "c.qcow2"}
        then = domain_xml({slot: (f"/x/{name}", "qcow2") for slot, name in names.items()}, name="web").decode()
        (tmp_path / "vm.xml").write_text(
            "<domainsnapshot><name>before &amp; after</name><description>why</description><state>shutoff</state>"
            "<parent><name>first</name></parent><creationTime>1714979289</creationTime><memory snapshot='no'/><disks>"
            "<disk name='vda' snapshot='internal'/><disk name='vdb' snapshot='external' type='file'>"
            f"<driver type='qcow2'/><source file='/x/b.before'/></disk><disk name='vdc' snapshot='no'/></disks>{then}"
            "<active>1</active></domainsnapshot>"
        )
        return tmp_path / "vm.xml"

    def test_a_snapshot(self, snapshot: Path) -> None:
        """Its disks are as they stood then; of those now the file says nothing."""
        with open_machine(snapshot) as machine:
            assert (machine.name, [*machine.disks], [*machine.snapshots]) == ("web", [], ["before & after"])
            found = machine.snapshot("before & after")
            assert (found.created, found.description) == (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), "why")
            assert (found.parent, found.is_current) == ("first", True)
            assert {slot: found.disks[slot].read_at(0, 1) for slot in ("vda", "vdb")} == {"vda": b"\1", "vdb": b"\1"}
            assert [*found.disks] == ["vda", "vdb"]
            assert machine.problems == ()

    def test_a_snapshot_of_old_versions_or_without_its_domain(self) -> None:
        inner = domain_xml({"vda": ("a.qcow2", "qcow2")}).decode()
        (old,) = libvirt.parse(f"<domainsnapshot><name>x</name>{inner}</domainsnapshot>".encode()) or ()
        assert [each.snapshot for each in old.snapshots[0].devices] == ["x"]
        assert old.snapshots[0].created is None
        bare = "<domainsnapshot><name>x</name><creationTime>-1</creationTime></domainsnapshot>"
        with open_machine(bare.encode()) as machine:
            assert [*machine.snapshot("x").disks] == []
            [problem] = [*map(str, machine.problems)]
            assert "the files of the disks at snapshot 'x' are not known" in problem

    def test_commands_with_a_snapshot(self, snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["hexdump", str(snapshot)]) == 1
        assert (
            "has no disks but those of a snapshot, which --snapshot names: 'before & after'" in capsys.readouterr().err
        )
        command = ["hexdump", "-n", "1", str(snapshot), "--snapshot", "before & after", "--disk", "vda"]
        assert main(command) == 0
        assert capsys.readouterr().out.startswith("00000000  01 ")
        assert main(["machines", str(snapshot)]) == 0
        assert "before & after (current)  2024-05-06 07:08:09  first" in capsys.readouterr().out
        assert main(["verify", str(snapshot)]) == 1
        assert "the description of a virtual machine's snapshot (libvirt's XML)" in capsys.readouterr().err

    def test_names_twice(self) -> None:
        disks = "<disk><source file='a'/><target dev='vda'/></disk>\n<disk><source file='b'/><target dev='vda'/></disk>"
        with open_machine(f"<domain>\n<devices>{disks}</devices></domain>".encode()) as machine:
            assert {slot: device.file_name for slot, device in machine.disks.devices.items()} == {
                "vda": "a",
                "vda (line 3)": "b",
            }
            assert "line 3: there is another disk 'vda'" in str(machine.problems[0])


LAUGHS = (
    "<!DOCTYPE domain [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{number} '{f'&a{number - 1};' * 10}'>" for number in range(1, 12))
    + "]><domain><name>&a11;</name></domain>"
)


class TestXml:
    @pytest.mark.parametrize(
        "text",
        [
            LAUGHS,
            "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
            "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>",
            "<!DOCTYPE domain [<!ENTITY % x SYSTEM 'file:///etc/passwd'> %x;]><domain/>",
            "<!DOCTYPE Envelope [<!ATTLIST Envelope a CDATA 'x'>]><Envelope/>",
        ],
        ids=["billion laughs", "external entity", "external subset", "parameter entity", "default attribute"],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_document_types_are_refused(self, text: str, encoding: str) -> None:
        data = text.encode(encoding)
        with pytest.raises(CorruptImage, match="it has a document type"):
            open_machine(data)

    def test_an_entity_that_is_not_declared(self) -> None:
        with pytest.raises(CorruptImage, match="not well-formed XML: undefined entity"):
            open_machine(b"<domain><name>&x;</name></domain>")
        assert parse_xml(b"<domain><name>&lt;&#65;</name></domain>", "x").text_of("name") == "<A"

    @pytest.mark.parametrize(
        "data",
        [
            b"<domain>" + b"<a>" * 100,
            b"<domain>" + b"<a/>" * 200_000 + b"</domain>",
            b"<domain " + b" ".join(b'a%d="1"' % number for number in range(1000)) + b"/>",
            b"<domain>" + b" " * LARGEST + b"</domain>",
        ],
        ids=["deep", "wide", "attributes", "long"],
    )
    def test_limits(self, data: bytes) -> None:
        with pytest.raises(CorruptImage):
            open_machine(data)

    @pytest.mark.parametrize(
        "data", [b"<domain>", b"<domain></x>", b"<domain/><domain/>", b'<?xml encoding="x"?><domain/>']
    )
    def test_damage_has_its_place(self, data: bytes) -> None:
        with pytest.raises(CorruptImage) as caught:
            open_machine(data)
        assert caught.value.offset is not None

    @pytest.mark.parametrize("data", [b"<html/>", b"<vendorList/>", b"<x><domain/></x>", b"<Envelopes/>", b"<"])
    def test_others(self, data: bytes) -> None:
        with pytest.raises(CorruptImage):
            open_machine(data)


class TestOtherReaders:
    def test_ovf(self, tmp_path: Path) -> None:
        path = tmp_path / "vm.ovf"
        path.write_bytes(
            ovf_file({"scsi0:0": ("a b.vmdk", 512), "ide1:0": ("c.vmdk", 512), "nvme0:0": ("d.vmdk", 512)})
        )
        run("xmllint", "--noout", path)
        told = json.loads(run(str(require_oracle()), REPOSITORY / "tests/dissect_machine.py", path))
        with open_machine(path) as machine:
            assert sorted(told["disks"]) == sorted(device.file_name or "" for device in machine.disks.devices.values())

    def test_domain_xml(self, tmp_path: Path) -> None:
        path = tmp_path / "vm.xml"
        path.write_bytes(domain_xml({"vda": ("/srv/a&b.qcow2", "qcow2"), "vdb": ("c.img", "raw")}, name="<web>"))
        (machine,) = libvirt.parse(path.read_bytes()) or ()

        def ask(query: str) -> str:
            return run("xmllint", "--xpath", f"string({query})", path).rstrip("\n")

        assert ask("/domain/name") == machine.name
        for number, device in enumerate(machine.devices, 1):
            disk = f"/domain/devices/disk[@device='disk'][{number}]"
            assert (ask(f"{disk}/target/@dev"), ask(f"{disk}/source/@file")) == (device.slot, device.file_name)
            assert ask(f"{disk}/driver/@type") == device.kind


def test_a_limit_on_what_is_read() -> None:
    """A large file that is no description costs little."""
    read = []

    class Large(SparseImage):
        def read_at(self, offset: int, length: int) -> bytes:
            read.append(length)
            return super().read_at(offset, length)

    with pytest.raises(NotAMachine):
        open_machine(Large(1 << 40, [(0, b"x")]))
    assert sum(read) < 2 * LARGEST
