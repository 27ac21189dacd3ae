"""The system view: what boots, and the files as the hypervisor would see them."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.media import BANK_6, BANK_35, BANK_41, JOLIET, Media, module, small_disk
from tests.support import run
from vmvisor_image import CorruptImage, Image, PartitionNotFound, PathNotFound
from vmvisor_image.faces.cli import main
from vmvisor_image.testing import forge
from vmvisor_image.testing.forge_gpt import esx5_disk, esx7_disk
from vmvisor_image.testing.forge_modules import kernel_elf, tar_archive, vmtar_archive


def packed(files: Mapping[str, bytes], links: Mapping[str, str] | None = None, *, vmtar: bool = False) -> bytes:
    return gzip.compress((vmtar_archive if vmtar else tar_archive)(files, links=links), mtime=0)


OVERLAID = {
    "vmkernel.gz": module("vmkernel.gz"),
    "binmod.tgz": packed({"bin/busybox": b"first", "etc/hosts": b"old", "etc/only": b"here"}, {"bin/ls": "busybox"}),
    "environ.tgz": packed({"etc/hosts": b"newer"}, vmtar=True),
    "cim.tgz": packed({"etc/sub/file": b"x"}),
    "oem.tgz": packed({"etc/hosts": b"newest", "bin/ls/program": b"no link any more"}),
    "license.tgz": gzip.compress(bytes(10240)),
}


class TestMergedFiles:
    def test_later_modules_win(self) -> None:
        with Image.open(small_disk(OVERLAID)) as image:
            files = image.system().files
            assert {file.path: file.read_bytes() for file in files.values()} == {
                "bin/busybox": b"first",
                "bin/ls/program": b"no link any more",
                "etc/hosts": b"newest",
                "etc/only": b"here",
                "etc/sub/file": b"x",
            }
            assert files.links == {}
            assert files.origin("etc/hosts") == "oem.tgz"
            assert files.origin("etc/only") == "binmod.tgz"
            assert files.overlaid("etc/hosts") == ("binmod.tgz", "environ.tgz", "oem.tgz")
            assert files.problems == ()
            with pytest.raises(PathNotFound):
                files.origin("bin/ls")

    def test_as_tar_extracts_them(self, tmp_path: Path) -> None:
        """Each archive extracted over those before it."""
        (tmp_path / "root").mkdir()
        names = [name for name in BANK_35 if name.endswith("tgz")]
        for name in names:
            (tmp_path / name).write_bytes(module(name))
            run("tar", "-xzf", tmp_path / name, "-C", tmp_path / "root")
        with Image.open(small_disk({name: module(name) for name in BANK_35})) as image:
            ours = {file.path: file.read_bytes() for file in image.system().files.values()}
        root = tmp_path / "root"
        assert ours == {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def test_one_file_opens_no_module_before_its_own(self) -> None:
        """Modules are looked through from the last one on; the first ones are damaged and stay unseen."""
        bank = {**OVERLAID, "binmod.tgz": b"\x1f\x8b\x08\0" + bytes(6) + b"no deflate"}
        with Image.open(small_disk(bank)) as image:
            files = image.system().files
            assert files["etc/hosts"].read_bytes() == b"newest"
            assert not files.problems
            assert sorted(files) == ["bin/ls/program", "etc/hosts", "etc/sub/file"]
            assert any("gzip" in str(problem) for problem in files.problems)

    def test_the_state_is_a_part_of_it(self) -> None:
        config = b"kernel=b.z\nmodules=k.z --- s.z --- c.z --- oem.tgz --- license.tgz --- m.z --- state.tgz\n"
        bank = {name: module(name) for name in BANK_41} | {"boot.cfg": config + b"build=4.1.0-260247\n"}
        with Image.open(small_disk(bank)) as image:
            system = image.system()
            assert system.files["etc/hosts"].read_bytes() == b"127.0.0.1 esx"
            assert system.files["etc/shared.conf"].read_bytes() == b"by the state"
            assert system.files.origin("etc/hosts") == "state.tgz"
            assert (system.product, system.version, system.build) == ("VMware ESXi", "4.1.0", "260247")

    def test_links(self) -> None:
        bank = {**OVERLAID, "oem.tgz": packed({})}
        with Image.open(small_disk(bank)) as image:
            files = image.system().files
            assert files.links == {"bin/ls": "busybox"}
            assert files.origin("bin/ls") == "binmod.tgz"
            with pytest.raises(PathNotFound):
                files["bin/ls"]

    def test_extraction(self, tmp_path: Path) -> None:
        with Image.open(small_disk(OVERLAID)) as image:
            image.system().files.extract(tmp_path / "out")
        assert (tmp_path / "out/etc/hosts").read_bytes() == b"newest"


class TestIdentity:
    def test_by_the_kernel_where_nothing_else_says_it(self) -> None:
        with Image.open(small_disk({name: module(name) for name in BANK_35})) as image:
            system = image.system()
            assert (system.product, system.version, system.build) == ("VMware ESXi", "9.9.9", "123456")

    def test_the_kernel_of_6_7_comes_fifth(self) -> None:
        """What starts it, and three empty modules, are before it; this boot.cfg does not say the build."""
        kernel = kernel_elf(identity=("VMware ESXi", "6.7.0", "8169922"))
        bank = {
            "b.b00": gzip.compress(kernel_elf(b"Releasebuild-8169922")),
            **{name: gzip.compress(b"") for name in ("jumpstrt.gz", "useropts.gz", "features.gz")},
            "k.b00": gzip.compress(kernel),
        }
        config = f"kernel=b.b00\nmodules={' --- '.join([*bank][1:])}\n".encode()
        with Image.open(small_disk({**bank, "boot.cfg": config})) as image:
            system = image.system()
            assert system.identity == ("VMware ESXi", "6.7.0", "8169922")
            assert [module.open().kind for module in system.modules] == ["elf", "empty", "empty", "empty", "elf"]
            assert list(system.files) == []
            assert system.files.problems == ()

    def test_nothing_says_it(self) -> None:
        with Image.open(small_disk({"vmkernel.gz": gzip.compress(b"?")})) as image:
            assert image.system().identity == (None, None, None)

    @pytest.mark.parametrize(
        ("build", "version", "number"),
        [
            ("8.0.0-1.0.20513097", "8.0.0", "20513097"),
            ("3.5.0-67921", "3.5.0", "67921"),
            ("nonsense", "9.9.9", "123456"),
        ],
    )
    def test_builds(self, build: str, version: str, number: str) -> None:
        bank = {"vmkernel.gz": module("vmkernel.gz"), "boot.cfg": f"kernel=vmkernel.gz\nbuild={build}\n".encode()}
        with Image.open(small_disk(bank)) as image:
            assert image.system().identity[1:] == (version, number)

    def test_a_cd(self, tmp_path: Path) -> None:
        media = Media(tmp_path, "6.5", None, JOLIET)
        with Image.open(media.iso) as image:
            system = image.system()
            assert (system.product, system.version, system.build) == ("VMware ESXi", "6.5.0", "4564106")
            assert [module.name.lstrip("/") for module in system.modules] == list(BANK_6)
            assert system.modules[0].arguments == "runweasel cdromBoot"
            assert system.banks == ()
            assert system.active_bank is None
            assert sorted(system.files)[:2] == ["etc/hosts", "etc/shared.conf"]


class TestModules:
    def test_sizes_and_hashes(self) -> None:
        with Image.open(small_disk(OVERLAID)) as image:
            modules = image.system().modules
            assert [module.name for module in modules] == list(BANK_35)
            assert [module.size for module in modules] == [len(data) for data in OVERLAID.values()]
            assert modules[1].sha256() == hashlib.sha256(OVERLAID["binmod.tgz"]).hexdigest()

    def test_a_missing_one(self) -> None:
        config = b"kernel=vmkernel.gz\nmodules=oem.tgz --- gone.tgz\n"
        with Image.open(small_disk({**OVERLAID, "boot.cfg": config})) as image:
            system = image.system()
            gone = system.modules[2]
            assert (gone.name, gone.size, gone.sha256(), gone.file) == ("gone.tgz", None, None, None)
            with pytest.raises(PathNotFound, match=r"gone\.tgz"):
                gone.open()
            list(system.files)
            assert any("gone.tgz" in problem.message for problem in system.files.problems)

    def test_as_json(self) -> None:
        with Image.open(small_disk(OVERLAID)) as image:
            found = json.loads(json.dumps(image.system().to_dict(hashes=True)))
        assert found["modules"][1]["sha256"] == hashlib.sha256(OVERLAID["binmod.tgz"]).hexdigest()
        assert found["build"] == "123456"


class TestWhichBank:
    @staticmethod
    def bank(build: str, updated: int, state: int = 0) -> dict[str, bytes]:
        config = f"bootstate={state}\nkernel=b.b00\nmodules=s.v00\nbuild={build}\nupdated={updated}\n"
        return {"boot.cfg": config.encode(), "b.b00": module("b.b00"), "s.v00": module("s.v00")}

    def test_the_active_one_of_a_gpt(self) -> None:
        disk = esx5_disk(boot={}, bank=self.bank("5.1.0-1", 1), alternate_bank=self.bank("5.5.0-2", 2))
        with Image.open(disk) as image:
            system = image.system()
            assert (system.partition, system.version) == (6, "5.5.0")
            assert [bank.build for bank in system.banks] == ["5.1.0-1", "5.5.0-2"]
            assert system.active_bank is not None
            assert system.active_bank.number == 6
            assert image.system(5).version == "5.1.0"

    def test_esxi_7(self) -> None:
        disk = esx7_disk(
            boot={}, bank=self.bank("7.0.3-0.35.19482537", 3), alternate_bank=self.bank("7.0.1-1.2.3", 4, state=3)
        )
        with Image.open(disk) as image:
            assert (image.system().partition, image.system().version) == (5, "7.0.3")

    def test_the_first_one_of_an_mbr_unless_asked(self) -> None:
        four = {"boot.cfg": b"kernel=b.z\nmodules=k.z\nbuild=4.1.0-1\nupdated=1\nbootstate=0\n", "b.z": b"", "k.z": b""}
        other = {**four, "boot.cfg": four["boot.cfg"].replace(b"4.1.0-1\nupdated=1", b"4.1.0-2\nupdated=2")}
        with Image.open(forge.esx40_disk(boot={"mboot.c32": b""}, bank=four, alternate_bank=other)) as image:
            assert image.system().build == "1"
            assert image.system("Hypervisor2").build == "2"
            assert image.system("active").build in ("1", "2")

    def test_none(self) -> None:
        with Image.open(forge.mbr_disk([], sectors=4096)) as image, pytest.raises(PartitionNotFound):
            image.system()

    @pytest.mark.parametrize(
        "content",
        [{}, {"boot.cfg": b"bootstate=3\nkernel=\nmodules=\nbuild=\nupdated=0\n"}, {"notes.txt": b"a file"}],
    )
    def test_an_empty_one_is_none_and_no_other_is_shown(
        self, content: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        disk = esx5_disk(boot={}, bank=self.bank("5.1.0-1", 1), alternate_bank=content)
        path = tmp_path / "disk"
        disk.write_to(path)
        with Image.open(path) as image, pytest.raises(PartitionNotFound, match="partition 6 holds no boot bank"):
            image.system(6)
        assert main(["system", str(path), "--bank", "6"]) == 2
        assert capsys.readouterr().out == ""
        assert main(["system", str(path), "--bank", "5"]) == 0
        assert "build 1" in capsys.readouterr().out

    def test_that_of_3_5_by_its_label(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bank = {name: module(name) for name in BANK_35}
        config = b"kernel=vmkernel.gz\nmodules=binmod.tgz\nbuild=3.5.0-67921\nupdated=1\nbootstate=0\n"
        disk = forge.esx35_disk(boot={}, bank={**bank, "boot.cfg": config})
        with Image.open(disk) as image:
            [found] = image.partitions.banks
            assert (found.uuid, found.obstacle, found.is_chosen_by_label) == (None, None, True)
            assert image.partitions.active_bank is None
            assert image.system("active").partition == 5
            assert image.system().to_dict()["banks"][0]["chosen_by_label"]
            assert "no marker: the label says" in image.partitions[5].explain()
        path = tmp_path / "disk"
        disk.write_to(path)
        assert main(["system", str(path)]) == 0
        assert "partition 5: 3.5.0-67921, is chosen by its label\n" in capsys.readouterr().out


def test_damage_in_a_module_is_told_and_costs_only_itself() -> None:
    cut = OVERLAID["binmod.tgz"][:60]
    with Image.open(small_disk({**OVERLAID, "binmod.tgz": cut})) as image:
        files = image.system().files
        assert files["etc/sub/file"].read_bytes() == b"x"
        assert "etc/sub/file" in list(files)
        assert files.problems
        with pytest.raises((CorruptImage, PathNotFound)):
            files["bin/busybox"].read_bytes()


def test_the_forged_archives_are_what_tar_takes_them_for(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(OVERLAID["binmod.tgz"])
    with tarfile.open(tmp_path / "a.tgz") as theirs:
        assert [info.name for info in theirs] == ["bin", "bin/busybox", "etc", "etc/hosts", "etc/only", "bin/ls"]
