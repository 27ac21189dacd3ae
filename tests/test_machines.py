"""Virtual machines of VMware's products: VMX and VMSD, in folders, datastores, archives and on servers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from fuzz.harness import names
from tests.http_server import Served, http_server
from tests.support import REPOSITORY, require_oracle, run
from tests.terminals import open_terminal, read_terminal
from vmvisor_image import (
    CorruptImage,
    Image,
    InvalidArgument,
    KeyUnavailable,
    LimitExceeded,
    Limits,
    Machine,
    MemberNotFound,
    NotAMachine,
    UnsafeName,
    find_machines,
    open_archive,
    open_datastore,
    open_machine,
)
from vmvisor_image.faces.cli import main
from vmvisor_image.machines import dictionary, place, vmsd, vmx
from vmvisor_image.machines.formats import MACHINES, MachineFormat
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.testing.forge_machines import (
    ForgedSnapshot,
    dictionary_file,
    domain_xml,
    ovf_file,
    vmsd_file,
    vmx_file,
)
from vmvisor_image.testing.forge_vmdk import cowd_extent
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume

TAKEN = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
LATER = datetime(2024, 5, 7, tzinfo=UTC)
SECTOR = 512


def disk(text: bytes, sectors: int = 64) -> bytes:
    """A small disk without a table, which begins with a text."""
    return text.ljust(sectors * SECTOR, b".")


def flat(name: str, content: bytes) -> dict[str, bytes]:
    """Files of a disk in one extent of VMFS, by name."""
    text = (
        '# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\ncreateType="vmfs"\n'
        f'RW {len(content) // SECTOR} VMFS "{name}-flat.vmdk"\n'
    )
    return {f"{name}.vmdk": text.encode(), f"{name}-flat.vmdk": content}


def machine_files(**given: Any) -> dict[str, bytes]:
    """Files of a machine with two disks."""
    disks = {"scsi0:0": "vm.vmdk", "scsi0:1": "data.vmdk"}
    return {**flat("vm", disk(b"system")), **flat("data", disk(b"data")), "vm.vmx": vmx_file(disks, **given)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def datastore(files: dict[str, bytes], label: str = "datastore1") -> SparseImage:
    (volume,) = vmfs_volume(files, label=label)
    return mbr_disk(
        [ForgedPartition(1, 0xFB, 128, volume.size // SECTOR, content=volume)], sectors=128 + volume.size // SECTOR
    )


def check(machine: Machine) -> None:
    assert [*machine.disks] == ["scsi0:0", "scsi0:1"]
    assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"
    assert machine.disks["scsi0:1"].read_at(0, 4) == b"data"
    assert machine.disks["scsi0:1"].size == 64 * SECTOR
    assert machine.problems == ()


class TestPlaces:
    def test_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path, machine_files(name="Web server"))
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert (machine.name, machine.guest, machine.firmware) == ("Web server", "debian11-64", "bios")
            assert machine.kind == "vmx"
            assert not machine.is_encrypted
            assert machine.settings["virtualhw.version"] == "19"
            check(machine)
            assert repr(machine) == "<Machine 'Web server', vmx: scsi0:0, scsi0:1>"

    def test_a_datastore(self) -> None:
        image = Image.open(datastore({f"web/{name}": data for name, data in machine_files().items()}))
        with image, image.partitions["datastore1"].files["web/vm.vmx"].open_machine() as machine:
            assert machine.path == "web/vm.vmx"
            check(machine)

    def test_a_datastore_on_two_devices(self) -> None:
        devices = vmfs_volume({f"web/{name}": data for name, data in machine_files().items()}, devices=2)
        with open_datastore(*devices) as found, open_machine(found.files["web/vm.vmx"]) as machine:
            check(machine)

    def test_an_archive(self, tmp_path: Path) -> None:
        write(tmp_path / "vm", machine_files())
        run("tar", "-czf", tmp_path / "vm.tgz", "-C", tmp_path, "vm")
        with open_archive(tmp_path / "vm.tgz") as archive, archive["vm/vm.vmx"].open_machine() as machine:
            check(machine)

    def test_a_url(self) -> None:
        objects = {f"a b/{name}": Served(BytesSource(data)) for name, data in machine_files().items()}
        objects["a b/vm.vmsd"] = Served(BytesSource(vmsd_file([ForgedSnapshot(1, "x", TAKEN, {"scsi0:0": "vm.vmdk"})])))
        with http_server() as server:
            server.objects.update(objects)
            machine = open_machine(f"{server.url}/a%20b/vm.vmx?token=1")
            check(machine)
            assert machine.name == "vm"
            assert machine.snapshot("x").disks["scsi0:0"].read_at(0, 6) == b"system"
            del server.objects["a b/data.vmdk"]
            assert [str(problem) for problem in machine.problems] == [
                "disk scsi0:1: its file 'data.vmdk' is not there; it was looked for beside the description"
            ]

    def test_a_zip_at_a_url(self, tmp_path: Path) -> None:
        write(tmp_path / "vm", machine_files())
        shutil.make_archive(str(tmp_path / "vms"), "zip", tmp_path, "vm")
        with open_machine(f"zip://vm/vm.vmx::file://{tmp_path}/vms.zip") as machine:
            check(machine)

    def test_bytes_have_no_neighbours(self) -> None:
        with open_machine(vmx_file({"scsi0:0": "vm.vmdk"}, name="alone")) as machine:
            assert machine.name == "alone"
            with pytest.raises(CorruptImage, match="beside the description, whose directory is not known"):
                machine.disks["scsi0:0"]

    def test_images_are_opened_once_and_closed_with_the_machine(self, tmp_path: Path) -> None:
        write(tmp_path, machine_files())
        with open_machine(tmp_path / "vm.vmx", threads=1) as machine:
            image = machine.disks["scsi0:0"]
            assert machine.disks["scsi0:0"] is image
            assert image.read_at(0, 1) == b"s"
        with pytest.raises(ValueError, match="closed"):
            image.read_at(0, 1)

    def test_its_options_are_those_of_its_disks(self, tmp_path: Path) -> None:
        write(tmp_path, machine_files())
        with pytest.raises(TypeError, match="unexpected keyword argument 'salvage'"):
            open_machine(tmp_path / "vm.vmx", salvage=True)  # type: ignore[call-arg]


class TestDevices:
    def read(self, **settings: str) -> Machine:
        return open_machine(dictionary_file({"displayName": "vm", **settings}))

    def test_order_of_controllers(self) -> None:
        slots = ["nvme0:0", "scsi1:0", "scsi0:10", "scsi0:2", "sata0:1", "ide0:0"]
        with open_machine(vmx_file(dict.fromkeys(slots, "x.vmdk"))) as machine:
            assert [*machine.disks] == ["ide0:0", "scsi0:2", "scsi0:10", "scsi1:0", "sata0:1", "nvme0:0"]
            assert repr(machine) == "<Machine 'vm', vmx: ide0:0, scsi0:2, scsi0:10, scsi1:0, …>"

    @pytest.mark.parametrize("kind", ["cdrom-image", "atapi-cdrom", "cdrom-raw", "scsi-passthru"])
    def test_drives_are_no_disks(self, kind: str) -> None:
        machine = self.read(**{"sata0:0.fileName": "x.iso", "sata0:0.deviceType": kind, "sata0:0.present": "TRUE"})
        assert not machine.disks

    def test_presence(self) -> None:
        machine = self.read(
            **{
                "SCSI0:0.FileName": "a.vmdk",
                "scsi0:1.fileName": "b.vmdk",
                "scsi0:1.present": "false",
                "scsi0:2.fileName": "",
                "scsi0:3.present": "TRUE",
            }
        )
        assert [*machine.disks] == ["scsi0:0"]

    def test_independent_disks_and_redo_logs(self) -> None:
        machine = self.read(
            **{"scsi0:0.fileName": "a.vmdk", "scsi0:0.mode": "independent-nonpersistent", "scsi0:0.redo": "a.REDO_x"}
        )
        device = machine.disks.devices["scsi0:0"]
        assert device.is_independent
        assert device.mode == "independent-nonpersistent"
        assert device.redo == "a.REDO_x"
        said = "it is read without the changes in its redo log: its file 'a.REDO_x' is beside the description"
        assert any(said in str(problem) for problem in machine.problems)

    def test_firmware(self) -> None:
        assert self.read(firmware="efi").firmware == "efi"

    def test_a_name_by_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "old.one.vmx").write_bytes(dictionary_file({"config.version": "8"}))
        assert open_machine(tmp_path / "old.one.vmx").name == "old.one"

    def test_a_slot_that_is_not_there(self) -> None:
        with pytest.raises(MemberNotFound, match=r"no disk 'scsi0:1'; there are 'scsi0:0'; did you mean"):
            open_machine(vmx_file({"scsi0:0": "a.vmdk"})).disks["scsi0:1"]
        assert open_machine(vmx_file({"scsi0:0": "a.vmdk"})).disks.get("scsi0:1") is None

    def test_encrypted(self) -> None:
        machine = self.read(**{"encryption.keySafe": "vmware:key/list/(…)", "encryption.data": "…"})
        assert (machine.name, machine.is_encrypted, machine.firmware) == ("vm", True, None)
        assert [str(problem) for problem in machine.problems] == [
            "VMX: it is encrypted: its disks are not known (encryption.data)"
        ]
        with pytest.raises(KeyUnavailable, match="the description of the machine is encrypted"):
            machine.disks["scsi0:0"]

    def test_encrypted_in_part(self, tmp_path: Path) -> None:
        """As with a virtual TPM: the disks are as they were."""
        write(tmp_path, machine_files(settings={"encryption.keySafe": "…", "encryption.data": "…"}))
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"
            assert [problem.message for problem in machine.problems] == [
                "a part of its settings is encrypted (encryption.data)"
            ]


class TestRedoLogs:
    """As ESXi writes them: ``vm.vmdk.REDO_x`` is a descriptor, and its extent a COWD as that of a snapshot."""

    def files(self, kind: str) -> dict[str, bytes]:
        vmx = vmx_file({"scsi0:0": "vm.vmdk"}, settings={"scsi0:0.redo": "./vm.vmdk.REDO_x"})
        forged = cowd_extent({1: b"changed".ljust(SECTOR, b"!")}, 64)
        extent = forged.read_at(0, forged.size)
        text = (
            b'# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID=9ab16ab9\nparentCID=0badcafe\n'
            b'isNativeSnapshot="no"\ncreateType="vmfsSparse"\nparentFileNameHint="vm.vmdk"\n'
            b'RW 64 VMFSSPARSE "vm.vmdk-delta.REDO_x"\n'
        )
        redo = {
            "descriptor": {"vm.vmdk.REDO_x": text, "vm.vmdk-delta.REDO_x": extent},
            "another parent": {"vm.vmdk.REDO_x": text.replace(b"0badcafe", b"1"), "vm.vmdk-delta.REDO_x": extent},
            "extent alone": {"vm.vmdk.REDO_x": extent},
            "no disk": {"vm.vmdk.REDO_x": b"text\n" * 300},
            "a disk that rests on nothing": {"vm.vmdk.REDO_x": flat("vm", b"")["vm.vmdk"]},
            "missing": {},
        }
        return {**flat("vm", disk(b"system")), "vm.vmx": vmx, **redo[kind]}

    @pytest.mark.parametrize("kind", ["descriptor", "extent alone"])
    @pytest.mark.parametrize("in_datastore", [False, True])
    def test_they_are_the_top_of_the_disk(self, tmp_path: Path, kind: str, *, in_datastore: bool) -> None:
        files = self.files(kind)
        with contextlib.ExitStack() as stack:
            if in_datastore:
                store = datastore({f"web/{name}": data for name, data in files.items()})
                image = stack.enter_context(Image.open(store))
                machine = stack.enter_context(image.partitions[1].files["web/vm.vmx"].open_machine())
            else:
                machine = stack.enter_context(open_machine(write(tmp_path, files) / "vm.vmx"))
            found = machine.disks["scsi0:0"]
            assert (found.read_at(0, 6), found.read_at(SECTOR, 8)) == (b"system", b"changed!")
            assert len(found.chain) == 2
            assert machine.problems == ()
            if kind == "descriptor":
                with machine.disks.open("scsi0:0", parent=None) as alone:
                    assert (alone.read_at(0, 6), alone.read_at(SECTOR, 8)) == (bytes(6), b"changed!")

    def test_qemu_reads_the_same(self, tmp_path: Path) -> None:
        write(tmp_path, self.files("descriptor"))
        run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp_path / "vm.vmdk.REDO_x", tmp_path / "raw")
        with open_machine(tmp_path / "vm.vmx") as machine:
            found = machine.disks["scsi0:0"]
            assert found.read_at(0, found.size) == (tmp_path / "raw").read_bytes()

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("missing", "its file 'vm.vmdk.REDO_x' is not there; it was looked for beside the description"),
            ("no disk", "'./vm.vmdk.REDO_x' is not a disk that rests on another one"),
            ("a disk that rests on nothing", "'./vm.vmdk.REDO_x' is not a disk that rests on another one"),
        ],
    )
    def test_the_disk_without_one_is_told(
        self, tmp_path: Path, kind: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write(tmp_path, self.files(kind)) / "vm.vmx"
        with open_machine(path) as machine:
            assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"
            told = [*map(str, machine.problems)]
        assert len(told) == 1
        assert told[0].startswith(f"disk scsi0:0: it is read without the changes in its redo log: {said}")
        assert main(["hexdump", "-n", "6", str(path)]) == 1
        captured = capsys.readouterr()
        assert "|system|" in captured.out.replace(" ", "")
        assert f"what was shown or written may be incomplete: {told[0]}" in captured.err

    def test_one_of_another_content(self, tmp_path: Path) -> None:
        """A disk that never was is an error, as of any chain."""
        path = write(tmp_path, self.files("another parent")) / "vm.vmx"
        with open_machine(path) as machine, pytest.raises(CorruptImage, match="has changed since"):
            machine.disks["scsi0:0"]
        with open_machine(path, allow_cid_mismatch=True) as machine:
            assert machine.disks["scsi0:0"].read_at(SECTOR, 8) == b"changed!"

    def test_only_beside_the_description(self, tmp_path: Path) -> None:
        named = vmx_file({"scsi0:0": "vm.vmdk"}, settings={"scsi0:0.redo": "../secret"})
        files = {**self.files("missing"), "vm.vmx": named}
        (tmp_path / "secret").write_bytes(b"secret")
        with open_machine(write(tmp_path / "vm", files) / "vm.vmx") as machine:
            assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"
            assert "in its redo log: its file 'secret' is not there" in str(machine.problems[0])


class TestWhereDisksAreLookedFor:
    @pytest.mark.parametrize(
        "path",
        ["../secret/vm.vmdk", "/etc/vm.vmdk", "..\\secret\\vm.vmdk", "C:\\secret\\vm.vmdk", "[other] vm/vm.vmdk"],
    )
    def test_only_beside_the_description(self, tmp_path: Path, path: str) -> None:
        write(tmp_path / "secret", flat("vm", disk(b"secret")))
        folder = write(tmp_path / "vm", {"vm.vmx": vmx_file({"scsi0:0": path})})
        with open_machine(folder / "vm.vmx") as machine:
            assert "scsi0:0" in machine.disks
            with pytest.raises(CorruptImage, match=r"'vm\.vmdk' is not there.* of which only the name is used"):
                machine.disks["scsi0:0"]
            [problem] = machine.problems
            assert problem.structure == "disk scsi0:0"
            write(folder, flat("vm", disk(b"own")))
            assert machine.disks["scsi0:0"].read_at(0, 3) == b"own"

    @pytest.mark.parametrize("path", ["..", "a\0b.vmdk", "a\u202eb.vmdk", "vm/", "[datastore1] ", "x\\."])
    def test_names_that_are_none(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "vm.vmx").write_bytes(dictionary_file({"displayName": "x", "scsi0:0.fileName": path}))
        with open_machine(tmp_path / "vm.vmx") as machine, pytest.raises(UnsafeName):
            machine.disks["scsi0:0"]

    def test_colons(self, tmp_path: Path) -> None:
        """VMFS has them in names; they are no protocols here, as they are for QEMU."""
        write(tmp_path, {**flat("nbd:1", disk(b"system")), "vm.vmx": vmx_file({"scsi0:0": "nbd:1.vmdk"})})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"

    def test_a_drive_of_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(place, "Path", PureWindowsPath)
        folder = place.Folder(PureWindowsPath("D:/vm"))  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError):
            folder.find("C:x.vmdk")

    def test_a_disk_of_another_datastore_is_not_taken_for_the_one_here(self, tmp_path: Path) -> None:
        """Folders, and so disks, of one machine have the same name in each datastore."""
        disks = {"scsi0:0": "vm.vmdk", "scsi0:1": "/vmfs/volumes/5d0a-2/vm/vm.vmdk"}
        write(tmp_path, {**flat("vm", disk(b"system")), "vm.vmx": vmx_file(disks)})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"
            with pytest.raises(CorruptImage, match=r"a 'vm\.vmdk' beside the description may be another disk's"):
                machine.disks["scsi0:1"]

    def test_a_path_into_the_same_datastore(self) -> None:
        files = {f"web/{name}": data for name, data in flat("vm", disk(b"system")).items()}
        files |= {f"other/{name}": data for name, data in flat("vm", disk(b"other")).items()}
        uuid = Image.open(datastore(files)).partitions[1].volume.uuid  # type: ignore[union-attr]
        disks = {
            "scsi0:0": "vm.vmdk",
            "scsi0:1": f"/vmfs/volumes/{uuid}/other/vm.vmdk",
            "scsi0:2": "/vmfs/volumes/datastore1/other/vm.vmdk",
            "scsi0:3": "[datastore1] other/vm.vmdk",
            "scsi0:4": "[datastore1] other/none.vmdk",
            "scsi0:5": "/vmfs/volumes/datastore2/other/vm.vmdk",
        }
        image = Image.open(datastore(files | {"web/vm.vmx": vmx_file(disks)}))
        with image, open_machine(image.partitions[1].files["web/vm.vmx"]) as machine:
            assert machine.disks["scsi0:0"].read_at(0, 6) == b"system"
            for number in (1, 2, 3):
                assert machine.disks[f"scsi0:{number}"].read_at(0, 5) == b"other"
            assert {*machine.disks.missing} == {"scsi0:4", "scsi0:5"}
            with pytest.raises(
                CorruptImage, match=re.escape("'[datastore1] other/none.vmdk' is not in this datastore")
            ):
                machine.disks["scsi0:4"]


SNAPSHOTS = (
    ForgedSnapshot(1, "clean", TAKEN, {"scsi0:1": "data.vmdk", "scsi0:0": "vm.vmdk"}, description='as "new"\nhere'),
    ForgedSnapshot(2, "before update", LATER, {"scsi0:0": "vm-000001.vmdk"}, parent=1),
)


STATE = struct.pack("<III", 0xBED2BED2, 8, 1) + b"cpu".ljust(80, b"\0")
"""Start of a .vmsn: magic, an unknown number, the number of groups, and a group's name and place."""


class TestSnapshots:
    @pytest.mark.parametrize("in_datastore", [False, True])
    def test_the_file_with_its_state(self, tmp_path: Path, *, in_datastore: bool) -> None:
        """It is looked for where disks are, and never outside of that."""
        named = [
            *(("vm-Snapshot1.vmsn", "there"), ("vm-Snapshot2.vmsn", "other"), ("gone.vmsn", "its file 'gone.vmsn' is")),
            *(
                (f"{tmp_path}/secret.vmsn", "its file 'secret.vmsn' is not there"),
                ("..", "names no file"),
                ("", "no file"),
            ),
        ]
        text = vmsd_file([ForgedSnapshot(number, f"s{number}", TAKEN) for number in range(1, len(named) + 1)]).decode()
        for number, (path, _) in enumerate(named, 1):
            text = re.sub(rf'(snapshot{number - 1}.filename = )"[^"]*"', lambda match: f'{match[1]}"{path}"', text)  # noqa: B023
        files = {**machine_files(), "vm.vmsd": text.encode()}
        files |= {"vm-Snapshot1.vmsn": STATE, "vm-Snapshot2.vmsn": b"text"}
        (tmp_path / "secret.vmsn").write_bytes(STATE)
        with contextlib.ExitStack() as stack:
            if in_datastore:
                image = stack.enter_context(
                    Image.open(datastore({f"web/{name}": data for name, data in files.items()}))
                )
                machine = stack.enter_context(image.partitions[1].files["web/vm.vmx"].open_machine())
            else:
                machine = stack.enter_context(open_machine(write(tmp_path / "vm", files) / "vm.vmx"))
            for (path, wanted), snapshot in zip(named, machine.snapshots.values(), strict=True):
                assert (snapshot.state or "") == path
                if wanted in ("there", "other"):
                    match = snapshot.recognise_state()
                    assert (match is not None and match.kind == "vmss") == (wanted == "there")
                else:
                    with pytest.raises(CorruptImage, match=wanted):
                        snapshot.recognise_state()

    def test_by_name(self, tmp_path: Path) -> None:
        write(tmp_path, {**machine_files(), "vm.vmsd": vmsd_file(SNAPSHOTS)})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert [*machine.snapshots] == ["clean", "before update"]
            first, second = machine.snapshots.values()
            assert (first.name, first.uid, first.created, first.parent) == ("clean", 1, TAKEN, None)
            assert first.description == 'as "new"\nhere'
            assert (second.created, second.parent, second.is_current) == (LATER, "clean", True)
            assert not first.is_current
            assert [*first.disks] == ["scsi0:0", "scsi0:1"]
            assert machine.snapshot("clean").disks["scsi0:0"].read_at(0, 6) == b"system"
            assert machine.snapshot(2) is machine.snapshot("2") is second
            with pytest.raises(MemberNotFound, match=r"no snapshot 'claen'; there are .*did you mean 'clean'"):
                machine.snapshot("claen")
            with pytest.raises(CorruptImage, match=r"vm-000001\.vmdk' is not there"):
                second.disks["scsi0:0"]
            [problem] = machine.problems
            assert str(problem) == (
                "disk scsi0:0: in snapshot 'before update': its file 'vm-000001.vmdk' is not there;"
                " it was looked for beside the description"
            )

    def test_of_qemu(self, tmp_path: Path) -> None:
        """The disk after a snapshot is the difference to the one before, which the snapshot names."""
        base = random.Random(1).randbytes(1 << 20) + bytes(3 << 20)
        run("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "vm.vmdk", "4M")
        (tmp_path / "vm-flat.vmdk").write_bytes(base)
        run("qemu-img", "create", "-q", "-f", "vmdk", "-b", "vm.vmdk", "-F", "vmdk", tmp_path / "vm-000001.vmdk")
        made = [ForgedSnapshot(1, "before update", TAKEN, {"scsi0:0": "vm.vmdk"})]
        write(tmp_path, {"vm.vmx": vmx_file({"scsi0:0": "vm-000001.vmdk"}), "vm.vmsd": vmsd_file(made)})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert machine.problems == ()
            assert machine.snapshot("before update").disks["scsi0:0"].read_at(0, len(base)) == base
            assert machine.disks["scsi0:0"].read_at(0, len(base)) == base

    def test_of_one_name(self, tmp_path: Path) -> None:
        twins = [ForgedSnapshot(number, "weekly", TAKEN, parent=number - 1 or None) for number in (1, 2)]
        write(tmp_path, {**machine_files(), "vm.vmsd": vmsd_file(twins)})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert [*machine.snapshots] == ["weekly (number 1)", "weekly (number 2)"]
            assert machine.snapshots["weekly (number 2)"].parent == "weekly (number 1)"
            with pytest.raises(InvalidArgument, match="several snapshots are named 'weekly'"):
                machine.snapshot("weekly")
            assert machine.snapshot("weekly (number 2)").uid == machine.snapshot(2).uid == 2

    def test_of_a_name_that_another_one_would_get(self, tmp_path: Path) -> None:
        given = ["a", "a", "a (number 1)", "a (number 1)"]
        made = [ForgedSnapshot(number, name, TAKEN) for number, name in enumerate(given, 1)]
        write(tmp_path, {**machine_files(), "vm.vmsd": vmsd_file(made)})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert [each.uid for each in machine.snapshots.values()] == [1, 2, 3, 4]
            assert all(machine.snapshot(key).key == key for key in machine.snapshots)

    def test_an_empty_file_has_none(self, tmp_path: Path) -> None:
        write(tmp_path, {**machine_files(), "vm.vmsd": b""})
        with open_machine(tmp_path / "vm.vmx") as machine:
            assert machine.snapshots == {}
            assert machine.problems == ()

    @pytest.mark.parametrize(
        ("high", "low", "second"),
        [
            # Of a published VMSD whose vmdk was written at the time, by stat beside it; and of one whose VMSN was
            # written at 10:42:03 three hours behind UTC.
            (310880, -365210110, datetime(2012, 4, 23, 23, 21, 33, tzinfo=UTC)),
            (416404, 1361996416, datetime(2026, 9, 3, 13, 42, 3, tzinfo=UTC)),
        ],
    )
    def test_times_of_published_files(self, high: int, low: int, second: datetime) -> None:
        text = f'snapshot0.uid = "1"\nsnapshot0.createTimeHigh = "{high}"\nsnapshot0.createTimeLow = "{low}"\n'
        (found,), _, _ = vmsd.parse_vmsd(text.encode())
        assert found.created is not None
        assert found.created.tzinfo is UTC
        assert abs((found.created - second).total_seconds()) < 3600

    def test_numbers_of_any_length(self) -> None:
        nodes = ("scsi" + "9" * 5000 + ":0", "scsi0:" + "9" * 5000, "٣:٣", "scsi0:0", ":")
        lines = [
            f'snapshot0.disk{n}.fileName = "{n}"\nsnapshot0.disk{n}.node = "{node}"' for n, node in enumerate(nodes)
        ]
        text = 'snapshot0.uid = "1"\n' + "\n".join(lines)
        (found,), _, _ = vmsd.parse_vmsd(text.encode())
        assert sorted(device.file_name or "" for device in found.devices) == [*"01234"]

    def test_damage(self) -> None:
        text = (
            'snapshot.numSnapshots = "3"\nsnapshot.current = "9"\n'
            'snapshot0.uid = "1"\nsnapshot0.createTimeHigh = "99999999999999999999"\nsnapshot0.createTimeLow = "1"\n'
            'snapshot0.parent = "7"\nsnapshot0.numDisks = "2"\nsnapshot0.disk0.fileName = "a.vmdk"\n'
            'snapshot1.uid = "x"\nsnapshot2.uid = "1"\nsnapshot4.uid = "2"\nsnapshot4.displayName = "kept"\n'
        )
        found, current, problems = vmsd.parse_vmsd(text.encode())
        assert [(each.uid, each.name, each.created) for each in found] == [(1, "Snapshot 1", None), (2, "kept", None)]
        assert current is None
        assert [*(each.message for each in problems.found)] == [
            "it says that there are 3 snapshots, and has 4",
            "snapshot0 says that it has 2 disks, and has 1",
            "the time of snapshot0 is not a date",
            "snapshot1 has no number that can be read, and is left out",
            "two snapshots have the number 1; the second one is left out",
            "the parent of snapshot 'Snapshot 1', number 7, is not there",
        ]


def test_what_is_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmsd, "_MOST_SNAPSHOTS", 2)
    monkeypatch.setattr(vmsd, "_MOST_DISKS", 1)
    monkeypatch.setattr(vmx, "_MOST_DEVICES", 1)
    disks = {"scsi0:0": "a.vmdk", "scsi0:1": "b.vmdk"}
    data = vmsd_file([ForgedSnapshot(number, f"{number}", TAKEN, disks) for number in (1, 2, 3)])
    found, _, problems = vmsd.parse_vmsd(data)
    assert [each.uid for each in found] == [1, 2]
    assert [*(each.message for each in problems.found)] == [
        "snapshots after the first 2 are left out",
        "disks of snapshot0 after the first 1 are left out",
        "disks of snapshot1 after the first 1 are left out",
    ]
    with open_machine(vmx_file(disks)) as machine:
        assert [*machine.disks] == ["scsi0:0"]
        assert "disks after the first 1 are left out" in str(machine.problems[0])


class TestDictionary:
    @pytest.mark.parametrize(
        ("encoding", "codec"),
        [
            ("UTF-8", "utf-8"),
            ("windows-1252", "cp1252"),
            ("GBK", "gbk"),
            ("Shift_JIS", "shift_jis"),
            ("Big5", "big5"),
            ("EUC-KR", "euc-kr"),
            ("windows-1251", "cp1251"),
        ],
    )
    def test_encodings(self, encoding: str, codec: str) -> None:
        # Characters whose second byte is a vertical bar, a quote's neighbour or a backslash in the encoding.
        name = {"cp1252": "Prüfung €", "cp1251": "Сервер", "gbk": "服务器 \u5f38", "shift_jis": "サーバー ソ表ポ"}.get(
            codec
        )
        name = name or {"big5": "伺服器 功許", "euc-kr": "서버"}.get(codec, "サーバー ü 服")
        data = f'.encoding = "{encoding}"\ndisplayName = "{name}"\n'.encode(codec)
        found = dictionary.parse_dictionary(data, "VMX")
        assert found.settings["displayname"] == name
        assert (found.encoding, found.problems) == (codec, ())

    def test_without_a_name(self) -> None:
        found = dictionary.parse_dictionary('displayName = "Prüfung"'.encode(), "VMX")
        assert (found.settings["displayname"], found.problems) == ("Prüfung", ())
        found = dictionary.parse_dictionary('a = "b"\ndisplayName = "Prüfung"'.encode("cp1252"), "VMX")
        assert found.settings["displayname"] == "Prüfung"
        assert [str(each) for each in found.problems] == [
            "VMX at byte 0x19: it names no encoding and is not UTF-8; it is read as windows-1252"
        ]

    @pytest.mark.parametrize("name", ["rot13", "zlib_codec", "idna", "unicode_escape", "made-up", "punycode"])
    def test_no_codec_is_looked_up_by_its_name(self, name: str) -> None:
        found = dictionary.parse_dictionary(f'.encoding = "{name}"\nx = "y"'.encode(), "VMX")
        assert found.settings["x"] == "y"
        assert [each.message for each in found.problems] == [f"its encoding {name!r} is not known; it is read as UTF-8"]

    def test_bytes_that_are_not_of_the_encoding(self) -> None:
        found = dictionary.parse_dictionary(b'.encoding = "UTF-8"\na = "\xff"\nb = "c"\n', "VMX")
        assert found.settings["b"] == "c"
        assert [(each.message, each.offset) for each in found.problems] == [("line 2 has bytes that are not utf-8", 20)]

    def test_forms_of_lines(self) -> None:
        text = b'\xef\xbb\xbf#!/usr/bin/vmware\r\n\r\n  A.b="1"\r\nc = 2 \r\n'
        text += b'\td\t=\t"|22x|7C|23|0A|zz|c3|bc"\r\ne = ""\r\n'
        found = dictionary.parse_dictionary(text, "VMX")
        assert dict(found.settings) == {"a.b": "1", "c": "2", "d": '"x|#\n|zzü', "e": ""}
        assert found.problems == ()

    def test_damaged_lines_and_duplicates(self) -> None:
        text = b'a = "1"\nnonsense\nb = "2\nA = "3"\n= "x"\n' + b"z" * 1000 + b'\nc = "\x1b[31m"\n'
        found = dictionary.parse_dictionary(text, "VMX")
        assert dict(found.settings) == {"a": "3", "c": "\x1b[31m"}
        assert [(each.message, each.offset) for each in found.problems] == [
            ('line 2 is not of the form key = "value": nonsense', 8),
            ('line 3 is not of the form key = "value": b = "2', 17),
            ("line 4: 'A' is also in line 1; the last one counts", 24),
            ('line 5 is not of the form key = "value": = "x"', 32),
            (f'line 6 is not of the form key = "value": {"z" * 60}…', 38),
        ]

    def test_a_large_file_is_read_to_a_limit(self) -> None:
        text = b'displayName = "x"\n' + b"# padding\n" * 200_000 + b'guestOS = "y"\n'
        machine = open_machine(text)
        assert (machine.name, machine.guest) == ("x", None)
        assert [str(each) for each in machine.problems] == [
            "VMX at byte 0x100000: only the first 1048576 bytes are read"
        ]

    def test_many_problems_have_an_end(self) -> None:
        found = dictionary.parse_dictionary(b"x\n" * 5000, "VMX")
        assert len(found.problems) == 101
        assert "4900 more problems" in found.problems[-1].message


class TestAnotherReader:
    """dissect.hypervisor, run as a program of its own, on what is forged."""

    def ask(self, path: Path, encoding: str = "utf-8") -> Any:
        return json.loads(run(str(require_oracle()), REPOSITORY / "tests/dissect_machine.py", path, encoding))

    def test_vmx(self, tmp_path: Path) -> None:
        disks = {"scsi0:0": "a b.vmdk", "sata1:2": "/vmfs/volumes/x/c.vmdk", "nvme0:0": "d.vmdk", "ide0:1": "e.vmdk"}
        path = tmp_path / "vm.vmx"
        path.write_bytes(vmx_file(disks, name="Prüfung", encoding="windows-1252"))
        other = self.ask(path, "cp1252")
        machine = open_machine(path)
        assert other["settings"] == dict(machine.settings)
        assert sorted(other["disks"]) == sorted(disks.values())
        assert {device.file_name for device in machine.disks.devices.values()} == {*disks.values()}

    def test_vmsd(self, tmp_path: Path) -> None:
        path = tmp_path / "vm.vmsd"
        path.write_bytes(vmsd_file(SNAPSHOTS[1:]))
        other = self.ask(path)["settings"]
        (found,), current, _ = vmsd.parse_vmsd(path.read_bytes())
        assert (other["snapshot0.displayname"], other["snapshot0.uid"]) == (found.name, str(found.uid))
        assert other["snapshot.current"] == str(current)
        assert other["snapshot0.disk0.filename"] == found.devices[0].file_name

    def test_what_is_encrypted(self, tmp_path: Path) -> None:
        path = tmp_path / "vm.vmx"
        path.write_bytes(vmx_file({}, settings={"encryption.keySafe": "x", "encryption.data": "y"}))
        assert self.ask(path)["encrypted"] is open_machine(path).is_encrypted is True


class TestSearch:
    """`find_machines`."""

    def test_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path / "b" / "deep", machine_files(name="second"))
        write(tmp_path / "a", {"x.vmtx": vmx_file({}, name="first"), "notes.xml": b"<notes/>", "bad.vmx": b"text"})
        (tmp_path / "a" / "folder.vmx").mkdir()
        (tmp_path / "loop").symlink_to(tmp_path)
        with find_machines(tmp_path) as found:
            assert [machine.name for machine in found] == ["first", "second"]
            assert found[1].disks["scsi0:0"].read_at(0, 6) == b"system"
            [problem] = found.problems
            assert problem.structure == str(tmp_path / "a" / "bad.vmx")

    def test_every_partition(self) -> None:
        volumes = [vmfs_volume({f"m{n}/{n}.vmx": vmx_file({}, name=f"vm {n}")}, label=f"store{n}")[0] for n in (1, 2)]
        sectors = volumes[0].size // SECTOR
        places = [ForgedPartition(n, 0xFB, 128 + (n - 1) * sectors, sectors, content=volumes[n - 1]) for n in (1, 2)]
        places.append(ForgedPartition(3, 0xFC, 128 + 2 * sectors, 64))
        with find_machines(mbr_disk(places, sectors=256 + 2 * sectors)) as found:
            assert [(machine.name, machine.path) for machine in found] == [
                ("vm 1", "store1/m1/1.vmx"),
                ("vm 2", "store2/m2/2.vmx"),
            ]

    def test_an_image_that_stays_open(self) -> None:
        with Image.open(datastore({f"web/{name}": data for name, data in machine_files().items()})) as image:
            with find_machines(image) as found:
                [machine] = found
                check(machine)
            assert image.partitions[1].label == "datastore1"
            assert "find_machines(image)" in image.partitions[1].explain()

    def test_several_devices(self) -> None:
        devices = vmfs_volume({f"web/{name}": data for name, data in machine_files().items()}, devices=2)
        with find_machines(*devices) as found:
            [machine] = found
            assert machine.path == "datastore1/web/vm.vmx"
            check(machine)

    @pytest.mark.parametrize("kind", ["zip", "gztar"])
    def test_an_archive(self, tmp_path: Path, kind: str) -> None:
        write(tmp_path / "in" / "vm", machine_files())
        path = shutil.make_archive(str(tmp_path / "vms"), kind, tmp_path / "in")
        with find_machines(path) as found:
            [machine] = found
            assert machine.path == "vm/vm.vmx"
            check(machine)

    def test_an_archive_with_a_datastore_in_it(self, tmp_path: Path) -> None:
        image = datastore({f"web/{name}": data for name, data in machine_files().items()})
        (tmp_path / "in").mkdir()
        image.write_to(tmp_path / "in" / "datastore.img")
        with find_machines(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")) as found:
            [machine] = found
            check(machine)

    def test_one_file(self, tmp_path: Path) -> None:
        write(tmp_path, machine_files())
        with find_machines(tmp_path / "vm.vmx") as found:
            check(found[0])
            assert len(found) == 1
            assert found[:1] == (found[0],)

    def test_nothing(self, tmp_path: Path) -> None:
        with find_machines(tmp_path) as found:
            assert (len(found), found.problems) == (0, ())
        with find_machines(datastore({})) as found:
            assert len(found) == 0

    def test_a_limit(self, tmp_path: Path) -> None:
        for number in range(5):
            (tmp_path / f"{number}.txt").touch()
        with pytest.raises(LimitExceeded):
            find_machines(tmp_path, limits=Limits(entries=4))


class TestCommand:
    def files(self) -> dict[str, bytes]:
        return {
            **machine_files(name="Web server with a long name that goes on"),
            "vm.vmsd": vmsd_file(SNAPSHOTS),
            "vm-Snapshot1.vmsn": STATE,
            "other.vmx": vmx_file({"scsi0:0": "gone.vmdk", "sata0:0": "cut.vmdk"}, name="other"),
            "cut.vmdk": b"# Disk DescriptorFile\nversion=1\n",
        }

    def test_list(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        datastore({f"web/{name}": data for name, data in self.files().items()}).write_to(tmp_path / "x.img")
        assert main(["machines", str(tmp_path / "x.img")]) == 1
        shown = capsys.readouterr()
        assert shown.out == (
            "Web server with a long name that goes on (debian11-64, bios)\n"
            "  datastore1/web/vm.vmx\n"
            "  Disk         Size  Mode        File\n"
            "  scsi0:0  32.0 KiB  persistent  vm.vmdk\n"
            "  scsi0:1  32.0 KiB  persistent  data.vmdk\n"
            "  Snapshot                 Taken (UTC)          After  State\n"
            "  clean                    2024-05-06 07:08:09  -      there\n"
            "  before update (current)  2024-05-07 00:00:00  clean  missing\n"
            "\n"
            "other (debian11-64, bios)\n"
            "  datastore1/web/other.vmx\n"
            "  Disk           Size  Mode        File\n"
            "  scsi0:0     missing  persistent  gone.vmdk\n"
            "  sata0:0  unreadable  persistent  cut.vmdk\n"
        )
        lines = shown.err.splitlines()
        assert len(lines) == 3
        for line, words in zip(
            lines,
            (
                "snapshot 'before update': its file 'vm-000001.vmdk'",
                "scsi0:0: its file 'gone.vmdk'",
                "names no extents",
            ),
            strict=True,
        ):
            assert words in line

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(tmp_path, self.files())
        assert main(["machines", "--json", str(tmp_path)]) == 1
        other, web = json.loads(capsys.readouterr().out)["machines"]
        assert [(disk["slot"], disk["size"], disk["is_missing"]) for disk in other["disks"]] == [
            ("scsi0:0", None, True),
            ("sata0:0", None, False),
        ]
        assert [disk["size"] for disk in web["disks"]] == [32768, 32768]
        assert [snapshot["created"] for snapshot in web["snapshots"]] == [TAKEN.isoformat(), LATER.isoformat()]
        states = [{"file": "vm-Snapshot1.vmsn", "found": "there"}, {"file": "vm-Snapshot2.vmsn", "found": "missing"}]
        assert [snapshot["state"] for snapshot in web["snapshots"]] == states
        assert web["snapshots"][1]["disks"] == {"scsi0:0": "vm-000001.vmdk"}
        assert web["path"] == str(tmp_path / "vm.vmx")

    def test_a_healthy_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(tmp_path, machine_files())
        assert main(["machines", str(tmp_path / "vm.vmx")]) == 0
        assert capsys.readouterr().err == ""

    def test_it_fits_a_narrow_terminal(self, tmp_path: Path) -> None:
        write(tmp_path, self.files())
        command = [sys.executable, "-m", "vmvisor_image", "machines", str(tmp_path)]
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        environment |= {"PYTHONIOENCODING": "utf-8"}
        controller, terminal = open_terminal(44)
        process = subprocess.Popen(command, env=environment, stdout=terminal, stderr=subprocess.DEVNULL)
        os.close(terminal)
        lines = read_terminal(controller).decode().split("\r\n")
        process.wait()
        paths = [line for line in lines if str(tmp_path) in line]
        assert max(len(line) for line in lines if line not in paths) <= 44
        assert paths == [f"  {tmp_path / name}" for name in ("other.vmx", "vm.vmx")]  # to be typed: never cut

    def test_devices(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        devices = vmfs_volume({f"web/{name}": data for name, data in machine_files().items()}, devices=2)
        for number, device in enumerate(devices):
            device.write_to(tmp_path / f"{number}.img")
        assert main(["machines", str(tmp_path / "1.img"), "--device", str(tmp_path / "0.img")]) == 0
        assert "scsi0:1" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "data",
        [
            vmx_file({"scsi0:0": "a.vmdk"}),
            ovf_file({}),
            ovf_file({}).replace(b"Envelope", b"ovf:Envelope").replace(b"?>", b"?>\n<!-- made by a tool -->"),
            domain_xml({}),
            b"<!--\nDO NOT EDIT\n-->\n\n" + domain_xml({}),
        ],
        ids=["VMX", "OVF", "OVF with a prefix", "domain XML", "domain XML with a comment"],
    )
    def test_other_commands_name_it(self, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "x").write_bytes(data)
        assert main(["verify", str(tmp_path / "x")]) == 1
        assert "of a virtual machine (" in (said := capsys.readouterr().err)
        assert "`vmvisor-image machines` lists " in said
        with open_machine(tmp_path / "x") as machine:
            assert machine.name == "vm"

    def test_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        datastore({"a.vmx": b"no machine"}).write_to(tmp_path / "x.img")
        assert main(["machines", str(tmp_path / "x.img")]) == 1
        assert "no virtual machine is in it" in capsys.readouterr().err


def test_a_disk_is_not_the_machine_whose_vmx_is_among_its_first_files(tmp_path: Path) -> None:
    """Its lines are in the bytes that would be read of a description."""
    path = tmp_path / "x.img"
    path.write_bytes(bytes(2 << 20))
    write(tmp_path / "vm", machine_files())
    run("mformat", "-i", path, "-T", str((2 << 20) // SECTOR), "-h", "64", "-s", "32", "::")
    run("mcopy", "-i", path, *sorted((tmp_path / "vm").iterdir()), "::")
    assert b"displayName" in path.read_bytes()[: 1 << 20]
    with pytest.raises(NotAMachine):
        open_machine(path)
    with find_machines(path) as found:
        assert [machine.path for machine in found] == ["1/vm.vmx"]
        check(found[0])


def test_standard_input_has_no_directory(tmp_path: Path) -> None:
    """Beside /dev/stdin are the devices of the system, which a file must not choose from."""
    path = write(tmp_path, {"vm.vmx": vmx_file({"scsi0:0": "null"})}) / "vm.vmx"
    command = [sys.executable, "-m", "vmvisor_image", "ls", "-"]
    with path.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'null' is beside the description, whose directory is not known" in done.stderr


@pytest.mark.parametrize("each", MACHINES, ids=lambda each: each.KIND)
def test_each_format_declares_itself_and_has_a_fuzz_target(each: MachineFormat) -> None:
    assert each.NAME
    assert each.REFERENCES
    assert all(re.fullmatch(r"\.[a-z]+", suffix) for suffix in each.SUFFIXES)
    assert each.KIND in names(), f"fuzz/targets/{each.KIND}.py is missing"


@pytest.mark.parametrize(
    "data", [b"", b"text\n" * 10, bytes(5000), b"# Disk DescriptorFile\nversion=1\nCID=1\n", b"\x7fELF", b'x = "y"\n']
)
def test_what_is_no_machine(data: bytes) -> None:
    with pytest.raises(NotAMachine, match="not the description of a virtual machine"):
        open_machine(data)


def test_the_parser_gives_none_for_others() -> None:
    assert vmx.parse(b'x = "y"') is None
