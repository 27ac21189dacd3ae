"""Disks in containers: installer CDs by xorriso, archives by GNU tar and others, with the names that the media have."""

from __future__ import annotations

import bz2
import gzip
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.media import BANK_35, BOTH, JOLIET, PLAIN, ROCK_RIDGE, Media, iso, module, small_disk, tgz, write_tree
from tests.support import require_tool, run, run_to_file
from vmvisor_image import (
    CorruptImage,
    Image,
    MemberNotFound,
    NoDiskImage,
    Role,
    SeveralImages,
    export_pxe,
    inspect,
    open_archive,
    verify,
)
from vmvisor_image.boot.bootable import find_installer
from vmvisor_image.compressions.sequential import SequentialReader
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing import forge
from vmvisor_image.testing.forge import SparseImage, fat_volume
from vmvisor_image.testing.forge_modules import tar_archive

BANK = {name: module(name) for name in BANK_35}
DISK = small_disk(BANK)
NAMES = pytest.mark.parametrize(
    "names", [ROCK_RIDGE, JOLIET, PLAIN, BOTH], ids=["Rock Ridge", "Joliet", "plain", "both"]
)


def whole(disk: SparseImage) -> bytes:
    return disk.read_at(0, disk.size)


class TestInstallers:
    @NAMES
    @pytest.mark.parametrize("generation", ["3.5", "4.0", "4.1"])
    def test_the_disk_of_a_cd(self, generation: str, names: tuple[str, ...], tmp_path: Path) -> None:
        media = Media(tmp_path, generation, DISK, names)
        with Image.open(media.iso) as image:
            kinds = [layer.kind for layer in image.layers]
            nested = {"3.5": ["gzip", "tar"], "4.0": ["gzip", "tar"], "4.1": []}[generation]
            assert kinds == ["iso9660", *nested, "bzip2"]
            assert image.layers[0].name == media.iso.name
            assert (image.layers[-1].name or "").casefold() == media.disk_name.casefold()
            assert image.read_at(0, image.size) == whole(DISK)
            assert image.partitions["Hypervisor1"].files["vmkernel.gz"].read_bytes() == BANK["vmkernel.gz"]
            assert image.problems == ()
            assert not image.partitions["Hypervisor0"].problems

    def test_the_way_is_told(self, tmp_path: Path) -> None:
        media = Media(tmp_path, "3.5", DISK, ROCK_RIDGE)
        with Image.open(media.iso) as image:
            assert [(layer.kind, layer.name) for layer in image.layers] == [
                ("iso9660", "VMware-VMvisor-3.5.iso"),
                ("gzip", "install.tgz"),
                ("tar", "install.tar"),
                ("bzip2", media.disk_name),
            ]
            assert image.layers[0].files is not None
            assert image.layers[0].files["vmkernel.gz"].read_bytes() == media.read("vmkernel.gz")

    def test_a_checksum_beside_it(self, tmp_path: Path) -> None:
        media = Media(tmp_path, "4.1", DISK, ROCK_RIDGE)
        with Image.open(media.iso) as image:
            [checked] = image.checksums()
            assert checked.is_right
            assert (checked.path, checked.listed_in, checked.algorithm) == ("imagedd.bz2", "imagedd.md5", "md5")
        (media.folder / "imagedd.md5").write_text("0" * 32 + "  another.bz2\n")
        with Image.open(iso(media.folder, tmp_path / "wrong.iso")) as image:
            [checked] = image.checksums()
            assert not checked.is_right
            assert checked.expected == "0" * 32

    @pytest.mark.parametrize("generation", ["3.5", "6.5"])
    def test_other_sources(self, generation: str, tmp_path: Path) -> None:
        media = Media(tmp_path, generation, DISK, ROCK_RIDGE)
        data = media.iso.read_bytes()
        with Image.open(data) as image, media.iso.open("rb") as file, Image.open(file) as other:
            assert [layer.kind for layer in image.layers] == [layer.kind for layer in other.layers]
            assert image.size == other.size
            assert other.layers == () or other.layers[0].name is None

    def test_in_another_process(self, tmp_path: Path) -> None:
        media = Media(tmp_path, "3.5", DISK, ROCK_RIDGE)
        with Image.open(media.iso) as image:
            file = image.partitions["Hypervisor1"].files["oem.tgz"]
            inner = file.open_archive()["etc/shared.conf"]
            copies = pickle.loads(pickle.dumps([image, file, inner]))
        with copies[0]:
            assert copies[0].partitions["Hypervisor0"].label == "Hypervisor0"
            assert copies[1].read_bytes() == BANK["oem.tgz"]
            assert copies[2].read_bytes() == b"by oem.tgz"

    def test_an_index_is_kept_beside_the_cd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        media = Media(tmp_path, "3.5", DISK, ROCK_RIDGE)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with Image.open(media.iso, index="auto") as image:
            assert image.size
        assert not list((tmp_path / "elsewhere").iterdir())
        beside = [path for path in tmp_path.iterdir() if path.name.startswith(media.iso.name + ".")]
        assert len(beside) == 1
        with Image.open(media.iso, index="auto") as image:
            assert image.size_is_known

    def test_esxi_5_and_later_is_the_volume_itself(self, tmp_path: Path) -> None:
        media = Media(tmp_path, "6.5", None, JOLIET)
        with Image.open(media.iso) as image:
            assert image.layers == ()
            assert image.scheme == "none"
            [partition] = image.partitions
            assert (partition.kind, partition.label) == ("iso9660", "ESXI")
            assert partition.files["boot.cfg"].read_bytes() == media.read("boot.cfg")
            assert partition.role is Role.INSTALLER
            assert "its root directory has boot.cfg" in partition.explain()
        assert inspect(media.iso).partitions[0].kind == "iso9660"


class TestArchives:
    @pytest.mark.parametrize(
        ("name", "kinds"),
        [
            ("disk.tgz", ["gzip", "tar"]),
            ("disk.tar", ["tar"]),
            ("disk.tar.xz", ["xz", "tar"]),
            ("disk.tar.zst", ["zstd", "tar"]),
            ("disk.tar.bz2", ["bzip2", "tar"]),
            ("disk.zip", ["zip"]),
            ("stored.zip", ["zip"]),
            ("sparse.tar", ["tar"]),
        ],
    )
    def test_around_a_disk(self, name: str, kinds: list[str], tmp_path: Path) -> None:
        DISK.write_to(tmp_path / "esx.dd")
        path = tmp_path / name
        if name.endswith("zip"):
            method = zipfile.ZIP_STORED if name == "stored.zip" else zipfile.ZIP_DEFLATED
            with zipfile.ZipFile(path, "w", method) as archive:
                archive.write(tmp_path / "esx.dd", "folder/esx.dd")
        elif name == "sparse.tar":
            run("tar", "--sparse", "-cf", path, "-C", tmp_path, "esx.dd")
            assert path.stat().st_size < DISK.size // 2
        else:
            run("tar", "-caf", path, "-C", tmp_path, "./esx.dd")
        with Image.open(path) as image:
            assert [layer.kind for layer in image.layers] == kinds
            assert image.size == DISK.size
            assert image.read_at(0, image.size) == whole(DISK)
            assert image.layers[0].name == name

    @pytest.mark.parametrize("tool", ["gzip", "xz", "zstd", "bzip2"])
    def test_compressed_in_a_zip(self, tool: str, tmp_path: Path) -> None:
        DISK.write_to(tmp_path / "disk")
        run_to_file(tmp_path / "esx.dd", tool, "-c", tmp_path / "disk")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(tmp_path / "esx.dd", "only.bin")
        with Image.open(tmp_path / "a.zip") as image:
            assert [layer.kind for layer in image.layers] == ["zip", tool.replace("zstd", "zstd")]
            assert image.read_at(0, image.size) == whole(DISK)

    def test_several(self, tmp_path: Path) -> None:
        other = small_disk({"vmkernel.gz": b"another"})
        DISK.write_to(tmp_path / "a.dd")
        other.write_to(tmp_path / "b.img")
        path = tgz(tmp_path, tmp_path / "two.tgz", "a.dd", "b.img")
        with pytest.raises(SeveralImages, match=r"'a\.dd', 'b\.img'") as caught:
            Image.open(path)
        assert caught.value.members == ("a.dd", "b.img")
        assert pickle.loads(pickle.dumps(caught.value)).members == caught.value.members
        for member, disk in zip(caught.value.members, (DISK, other), strict=True):
            with Image.open(path, member=member) as image:
                assert image.read_at(0, image.size) == whole(disk)
        with pytest.raises(MemberNotFound, match="'c'"):
            Image.open(path, member="c")
        with pickle.loads(pickle.dumps(Image(path, member="b.img"))) as image:
            assert image.read_at(0, 512) == other.read_at(0, 512)

    def test_several_in_a_nested_archive(self, tmp_path: Path) -> None:
        DISK.write_to(tmp_path / "a.dd")
        DISK.write_to(tmp_path / "b.dd")
        tgz(tmp_path, tmp_path / "inner.tgz", "a.dd", "b.dd")
        path = tgz(tmp_path, tmp_path / "outer.tgz", "inner.tgz")
        with pytest.raises(SeveralImages) as caught:
            Image.open(path)
        assert caught.value.members == ("inner.tgz/a.dd", "inner.tgz/b.dd")
        with Image.open(path, member="inner.tgz/b.dd") as image:
            assert [layer.kind for layer in image.layers] == ["gzip", "tar", "gzip", "tar"]
            assert image.size == DISK.size

    def test_none(self, tmp_path: Path) -> None:
        write_tree(tmp_path, {"readme": b"x", "notes": b"y"})
        with pytest.raises(NoDiskImage, match="readme"):
            Image.open(tgz(tmp_path, tmp_path / "a.tgz", "readme", "notes"))

    def test_a_descriptor_and_its_extent(self, tmp_path: Path) -> None:
        DISK.write_to(tmp_path / "raw")
        run(
            *["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat"],
            tmp_path / "raw",
            tmp_path / "vm.vmdk",
        )
        path = tgz(tmp_path, tmp_path / "vm.tgz", "vm.vmdk", "vm-flat.vmdk")
        with Image.open(path) as image:
            assert [layer.kind for layer in image.layers] == ["gzip", "tar", "vmdk"]
            assert image.read_at(0, image.size) == whole(DISK)
        archive = open_archive(BytesSource(path.read_bytes()))
        with archive["vm.vmdk"].open_image() as image:
            assert image.partitions["Hypervisor1"].files["oem.tgz"].read_bytes() == BANK["oem.tgz"]

    def test_a_disk_in_a_volume(self, tmp_path: Path) -> None:
        inner = fat_volume({"oem.tgz": b"deep inside"}, sectors=400)
        volume = {"vm.dd": inner.read_at(0, inner.size), "vm/disk.vmdk": b'# Disk DescriptorFile\nRW 400 FLAT "f" 0\n'}
        with Image.open(small_disk({**volume, "vm/f": volume["vm.dd"]})) as image:
            files = image.partitions["Hypervisor1"].files
            for path in ("vm.dd", "vm/disk.vmdk"):
                with files[path].open_image() as disk:
                    assert disk.partitions[1].files["oem.tgz"].read_bytes() == b"deep inside"


def test_the_second_look_does_not_inflate_from_the_start(tmp_path: Path) -> None:
    noise = os.urandom(12 << 20)
    (tmp_path / "disk.dd").write_bytes(whole(DISK) + noise)
    with Image.open(tgz(tmp_path, tmp_path / "disk.tgz", "disk.dd")) as image:
        reader = image.layers[0].source
        assert isinstance(reader, SequentialReader)
        decoded = reader.pieces_decoded
        assert image.read_at(DISK.size, len(noise)) == noise
        for at in (DISK.size + (8 << 20), 0, DISK.size + (4 << 20)):
            before = reader.pieces_decoded
            image.read_at(at, 4096)
            assert reader.pieces_decoded - before <= 17
        assert decoded <= image.size // (256 << 10) + 2


@pytest.mark.parametrize("names", [ROCK_RIDGE, JOLIET], ids=["Rock Ridge", "Joliet"])
def test_damage_costs_what_it_hits(names: tuple[str, ...], tmp_path: Path) -> None:
    media = Media(tmp_path, "4.1", DISK, names)
    data = bytearray(media.iso.read_bytes())
    with Image.open(bytes(data)) as image:
        assert image.layers[0].files is not None
        [extent] = image.layers[0].files["sys.vgz"].extents
    data[extent.offset : extent.offset + extent.length] = bytes(extent.length)
    with Image.open(bytes(data)) as image:
        assert image.read_at(0, image.size) == whole(DISK)
        assert image.layers[0].files is not None
        with pytest.raises(CorruptImage):
            image.layers[0].files["sys.vgz"].open_archive()
        assert image.layers[0].files["cim.vgz"].open_archive()["etc/shared.conf"].read_bytes() == b"by cim.vgz"


def test_memory_while_extracting(tmp_path: Path) -> None:
    """A disk of its real size, with as much in its boot bank as a real one has."""
    bank = forge.esx35_bank_files()
    forge.esx35_disk(boot=forge.esx35_boot_files(), bank=bank).write_to(tmp_path / "disk")
    run("lbzip2", "-k", tmp_path / "disk")
    (tmp_path / "disk").unlink()
    media = Media(tmp_path / "media", "3.5", tmp_path / "disk.bz2", ROCK_RIDGE)
    program = (
        "import re, sys\n"
        "from vmvisor_image import Image, export_pxe\n"
        "with Image.open(sys.argv[1]) as image:\n"
        "    export_pxe(image, sys.argv[2])\n"
        "    image.partitions['Hypervisor1'].files.extract(sys.argv[3])\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read()).group(1))\n"
    )
    places = [str(media.iso), str(tmp_path / "tftp"), str(tmp_path / "bank")]
    done = subprocess.run([sys.executable, "-c", program, *places], capture_output=True, text=True, check=True)
    for name, file in bank.items():
        assert (tmp_path / "bank" / name).read_bytes() == file.data
    assert int(done.stdout) < 150_000, "kB"


def test_nothing_is_written_outside_the_destination(tmp_path: Path) -> None:
    media = Media(tmp_path / "media", "3.5", DISK, ROCK_RIDGE)
    log = tmp_path / "log"
    dest = tmp_path / "dest"
    calls = "trace=openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,truncate"
    command = [require_tool("strace"), "-f", "-y", "-o", str(log), "-e", calls, sys.executable, "-B", "-m"]
    command += ["vmvisor_image", "pxe", str(media.iso), str(dest)]
    subprocess.run(command, check=True, capture_output=True)
    writes = []
    for line in log.read_text().splitlines():
        opens = " open(" in line or " openat(" in line or " creat(" in line
        if opens and not any(flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "creat(")):
            continue
        if "resumed" not in line and "exited" not in line and "SIG" not in line:
            writes.append(line)
    assert writes
    assert [line for line in writes if str(dest) not in line and "/dev/null" not in line] == []
    assert sorted(path.name for path in dest.iterdir()) == sorted([*BANK_35, "mboot.c32", "pxelinux.cfg"])


def test_the_export_is_that_of_the_disk(tmp_path: Path) -> None:
    media = Media(tmp_path, "4.0", DISK, ROCK_RIDGE)
    with Image.open(media.iso) as image, Image.open(DISK) as bare:
        from_cd, from_disk = export_pxe(image, tmp_path / "a"), export_pxe(bare, tmp_path / "b")
    assert from_cd.append == from_disk.append == " --- ".join(BANK_35)
    for path in from_disk.files:
        assert (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", [lambda data: os.urandom(len(data)), lambda data: data[:600]])
def test_a_damaged_archive_of_the_installer_is_told(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    media = Media(tmp_path, "3.5", DISK, ROCK_RIDGE)
    (media.folder / "install.tgz").write_bytes(damage(media.read("install.tgz")))
    with Image.open(iso(media.folder, tmp_path / "damaged.iso")) as image:
        assert image.problems
        if image.layers == ():  # what is in it is not known: the CD is the disk
            assert image.partitions[1].files["oem.tgz"].read_bytes() == media.read("oem.tgz")
            with pytest.raises(CorruptImage, match=r"'install.tgz' .*only its installer exported"):
                export_pxe(image, tmp_path / "tftp")
            assert not (tmp_path / "tftp").exists()


def test_a_member_of_what_is_no_container() -> None:
    for data in (whole(DISK), bz2.compress(whole(DISK))):
        with pytest.raises(MemberNotFound, match="no container"):
            Image.open(data, member="a.dd")


def test_an_archive_without_a_disk_says_that_it_is_damaged() -> None:
    with pytest.raises(NoDiskImage, match=r"damaged: gzip member"):
        Image.open(gzip.compress(b"".join(map(tarred, ("a", "b", "c"))))[:1100])


def tarred(name: str) -> bytes:
    """A member of a tar, which hardly compresses."""
    return tar_archive({name: random.Random(name).randbytes(512)})[:1024]


def test_a_checksum_file_without_a_checksum(tmp_path: Path) -> None:
    media = Media(tmp_path, "4.1", DISK, ROCK_RIDGE)
    (media.folder / "imagedd.md5").write_bytes(b"?" + media.read("imagedd.md5"))
    with (
        Image.open(iso(media.folder, tmp_path / "a.iso")) as image,
        pytest.raises(CorruptImage, match=r"'imagedd\.md5' holds no md5"),
    ):
        image.checksums()


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_checksum_file_is_read_up_to_its_largest_size(size: int, tmp_path: Path) -> None:
    """Its last line counts; of a larger one `verify` tells, and of all else."""
    media = Media(tmp_path, "4.1", DISK, ROCK_RIDGE)
    line = media.read("imagedd.md5").split()[0] + b"  imagedd.bz2\n"
    others = b"0" * 32 + b"  another.bz2\n"
    text = others + b"#" * (size - len(others) - len(line) - 1) + b"\n" + line
    (media.folder / "imagedd.md5").write_bytes(text)
    assert len(text) == size
    path = iso(media.folder, tmp_path / "a.iso")
    with Image.open(path) as image:
        if size <= 1 << 20:
            assert [checked.is_right for checked in image.checksums()] == [True]
        else:
            with pytest.raises(CorruptImage, match=f"'imagedd.md5' is too large .expected at most {1 << 20} bytes"):
                image.checksums()
    report = verify(path)
    assert [problem.message for problem in report.problems if problem.structure == "checksum file"] == (
        [] if size <= 1 << 20 else [f"'imagedd.md5' is too large (expected at most {1 << 20} bytes, found {size})"]
    )
    assert report.partitions


@pytest.mark.parametrize("size", [65536, 65537])
def test_the_configuration_of_a_cd_is_read_up_to_its_largest_size(size: int, tmp_path: Path) -> None:
    media = Media(tmp_path, "4.1", DISK, ROCK_RIDGE)
    text = media.read("isolinux.cfg")
    (media.folder / "isolinux.cfg").write_bytes(b"#" * (size - len(text) - 1) + b"\n" + text)
    with Image.open(iso(media.folder, tmp_path / "a.iso")) as image:
        installer = find_installer(image)
        assert installer is not None
        if size <= 65536:
            assert [module.name for module in installer.order][:2] == ["vmkboot.gz", "vmkernel.gz"]
        else:
            with pytest.raises(CorruptImage, match=r"'isolinux\.cfg' is larger .* at most 65536 bytes, found 65537"):
                _ = installer.order


def test_a_cut_cd_still_says_what_it_can(tmp_path: Path) -> None:
    media = Media(tmp_path, "3.5", DISK, ROCK_RIDGE)
    data = media.iso.read_bytes()
    for length in range(0, len(data), len(data) // 40):
        try:
            report = inspect(data[:length])
        except CorruptImage:
            continue
        assert report.partitions or report.problems
