"""The export on banks of every shape."""

from __future__ import annotations

import bz2
import random
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmvisor_image import (
    DestinationExists,
    Image,
    InvalidArgument,
    PartialExtraction,
    PartitionNotFound,
    PathNotFound,
    UnsafeName,
    export_pxe,
)
from vmvisor_image.base.destination import holding_folder
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing import forge
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume

BOOT = {"mboot.c32": b"loader"}
MODULES = {name: name.encode() for name in ("vmkernel.gz", "binmod.tgz", "environ.tgz", "cim.tgz", "oem.tgz")}
BANK = {**MODULES, "license.tgz": b"license"}


def disk(bank: Mapping[str, bytes], boot: Mapping[str, bytes] = BOOT) -> SparseImage:
    """A small disk with two labelled volumes."""
    volumes = [
        fat_volume(tree, sectors=4000, label=label) for tree, label in ((boot, "Hypervisor0"), (bank, "Hypervisor1"))
    ]
    return forge.mbr_disk(
        [ForgedPartition(number, 6, number * 4096, 4000, content=volume) for number, volume in enumerate(volumes, 1)],
        sectors=16000,
    )


def entry(dest: Path) -> str:
    return (dest / "pxelinux.cfg/default").read_text().splitlines()[-1].strip()


def test_without_boot_cfg_the_order_is_that_of_3_5(tmp_path: Path) -> None:
    shuffled = dict(sorted(BANK.items()))
    export = export_pxe(Image.open(disk(shuffled)), tmp_path)
    expected = "vmkernel.gz --- binmod.tgz --- environ.tgz --- cim.tgz --- oem.tgz --- license.tgz"
    assert entry(tmp_path) == f"append {expected}"
    assert export.append == expected
    assert sorted(path.name for path in export.files) == sorted([*BANK, "mboot.c32", "default"])


def test_the_order_of_boot_cfg_with_options_and_arguments(tmp_path: Path) -> None:
    config = b"kernel=/vmkernel.gz\nkernelopt=debug com1\nmodules=oem.tgz --- cim.tgz a=1 b --- binmod.tgz\n"
    export_pxe(Image.open(disk({**BANK, "boot.cfg": config})), tmp_path, label="esx-3.5")
    assert entry(tmp_path) == "append vmkernel.gz debug com1 --- oem.tgz --- cim.tgz a=1 b --- binmod.tgz"
    assert "label esx-3.5\n" in (tmp_path / "pxelinux.cfg/default").read_text()


def test_a_real_boot_cfg_of_4_1_on_its_layout(tmp_path: Path, shared_data: Path) -> None:
    names = ("b.z", "k.z", "s.z", "c.z", "oem.tgz", "license.tgz", "m.z", "state.tgz")
    config = (shared_data / "boot_cfg/esxi-4.1.0.boot.cfg").read_bytes()
    bank = {**{name: name.encode() for name in names}, "boot.cfg": config}
    export_pxe(Image.open(forge.esx40_disk(boot=BOOT, bank=bank)), tmp_path)
    assert entry(tmp_path) == "append " + " --- ".join(names)


def test_names_are_spelled_as_the_volume_shows_them(tmp_path: Path) -> None:
    bank = {name.upper(): data for name, data in BANK.items()}
    export_pxe(Image.open(disk(bank, {"MBOOT.C32": b"loader"})), tmp_path)
    assert entry(tmp_path).startswith("append VMKERNEL.GZ --- BINMOD.TGZ")
    assert (tmp_path / "VMKERNEL.GZ").read_bytes() == MODULES["vmkernel.gz"]


def test_a_missing_module_is_left_out_and_told(tmp_path: Path) -> None:
    config = b"kernel=vmkernel.gz\nmodules=binmod.tgz --- state.tgz\n"
    export = export_pxe(Image.open(disk({**BANK, "boot.cfg": config})), tmp_path)
    assert export.missing == ("state.tgz",)
    assert entry(tmp_path) == "append vmkernel.gz --- binmod.tgz"


def test_a_kernel_that_only_boot_cfg_names_is_missed_before_the_configuration_is_written(tmp_path: Path) -> None:
    bank = {**BANK, "boot.cfg": b"kernel=other.gz\nmodules=oem.tgz\n"}
    with pytest.raises(PathNotFound, match=r"other\.gz"):
        export_pxe(Image.open(disk(bank)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted([*bank, "mboot.c32"])
    assert not (tmp_path / "pxelinux.cfg/default").exists()


def test_a_bank_larger_than_the_cache_is_decoded_once(tmp_path: Path) -> None:
    """Its boot.cfg lies behind all of it."""
    noise = random.Random(1)
    bank = {name: noise.randbytes(300_000) for name in BANK} | {"boot.cfg": b"kernel=vmkernel.gz\nmodules=oem.tgz\n"}
    whole = disk(bank, {"mboot.c32": b"loader"})
    compressed = bz2.compress(whole.read_at(0, whole.size), 1)
    reader = Bzip2Reader(BytesSource(compressed), cache_bytes=0, threads=2)
    with Image.open(reader) as image:
        export_pxe(image, tmp_path)
    assert (tmp_path / "license.tgz").read_bytes() == bank["license.tgz"]
    assert reader.stats.blocks_known > 17
    assert reader.stats.blocks_decoded <= reader.stats.blocks_known + 4
    reader.close()


def test_only_files_of_the_root(tmp_path: Path) -> None:
    export_pxe(Image.open(disk({**BANK, "sub/module.tgz": b"x"})), tmp_path)
    assert not (tmp_path / "sub").exists()


@pytest.mark.parametrize(
    ("bank", "boot", "error"),
    [
        ({"oem.tgz": b""}, BOOT, PathNotFound),
        (BANK, {"other.c32": b""}, PathNotFound),
        ({**BANK, "mboot.c32": b"another"}, BOOT, UnsafeName),
        ({**BANK, "aux.tgz": b""}, BOOT, UnsafeName),
    ],
    ids=["no kernel", "no loader", "two loaders", "device name"],
)
def test_refused_before_anything_is_written(
    tmp_path: Path, bank: Mapping[str, bytes], boot: Mapping[str, bytes], error: type[Exception]
) -> None:
    with pytest.raises(error):
        export_pxe(Image.open(disk(bank, boot)), tmp_path / "tftp")
    assert not (tmp_path / "tftp").exists()


def test_no_such_partition(tmp_path: Path) -> None:
    with pytest.raises(PartitionNotFound, match="no boot bank"):
        export_pxe(Image.open(fat_volume(BANK, sectors=4000)), tmp_path)


def test_an_existing_file_stays_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "pxelinux.cfg").mkdir()
    (tmp_path / "pxelinux.cfg/default").write_text("mine")
    image = Image.open(disk(BANK))
    with pytest.raises(DestinationExists):
        export_pxe(image, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["default"]
    assert (tmp_path / "pxelinux.cfg/default").read_text() == "mine"
    export_pxe(image, tmp_path, overwrite=True)
    assert "mboot.c32" in (tmp_path / "pxelinux.cfg/default").read_text()


def test_a_damaged_file_costs_itself_and_the_configuration(tmp_path: Path) -> None:
    whole = disk({**BANK, "cim.tgz": bytes(range(256)) * 40})
    with Image.open(whole) as image:
        bank = image.partitions["Hypervisor1"]
        assert bank.kind == "fat12"
        clusters = [extent.offset for extent in bank.files["cim.tgz"].extents]
        first = (clusters[0] - bank.start) // 512
    damaged = bytearray(whole.read_at(0, whole.size))
    # Free every cluster of the FAT's second half: of the files only the long one reaches into it.
    start = bank.start + 512
    data_start = first - (1 + 2 * 12 + 32) + 2
    for cluster in range(data_start + 1, data_start + 20):
        at = start + cluster * 3 // 2
        damaged[at : at + 2] = b"\0\0"
    with Image.open(bytes(damaged)) as image, pytest.raises(PartialExtraction) as caught:
        export_pxe(image, tmp_path)
    failed = [path for path, _ in caught.value.failed]
    assert "cim.tgz" in failed
    assert sorted(path.name for path in caught.value.written) == sorted(
        path.name for path in tmp_path.rglob("*") if path.is_file()
    )
    assert {path.name for path in caught.value.written} | set(failed) == {*BANK, "mboot.c32"}
    assert not (tmp_path / "pxelinux.cfg").exists()


@pytest.mark.parametrize("label", ["", "a b", "-x", "x\ny", "ä"])
def test_labels(tmp_path: Path, label: str) -> None:
    with pytest.raises(InvalidArgument):
        export_pxe(Image.open(disk(BANK)), tmp_path, label=label)


def test_a_missing_loader_is_told_with_its_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk(BANK, {"readme.txt": b"no loader"}).write_to(tmp_path / "disk.dd")
    with Image.open(tmp_path / "disk.dd") as image, pytest.raises(PathNotFound, match=r"mboot\.c32") as caught:
        export_pxe(image, tmp_path / "out")
    said = str(caught.value)
    assert "the boot partition 1 (Hypervisor0) has no mboot.c32" in said
    assert said.endswith("export from the installer CD of the same version, which has it")
    assert main(["pxe", str(tmp_path / "disk.dd"), str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class TestTwoExportsIntoOneFolder:
    """One of them is refused, or both are right."""

    def test_the_second_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        disk(BANK).write_to(tmp_path / "disk.dd")
        line = ["pxe", str(tmp_path / "disk.dd"), str(tmp_path / "out")]
        with holding_folder(tmp_path / "out"):
            assert main(line) == 2
            assert "out is being written by another run; wait for it" in capsys.readouterr().err
            assert list((tmp_path / "out").iterdir()) == []
        assert main(line) == 0

    def test_each_entry_has_its_files(self, tmp_path: Path) -> None:
        whole = disk(BANK)
        labels = [f"run{number}" for number in range(6)]
        start = threading.Barrier(len(labels))

        def export(label: str) -> bool:
            start.wait()
            try:
                with Image.open(whole) as image:
                    export_pxe(image, tmp_path / "out", label=label, prefix=label)
            except DestinationExists:
                return False
            return True

        with ThreadPoolExecutor(len(labels)) as pool:
            done = [label for label, is_done in zip(labels, pool.map(export, labels), strict=True) if is_done]
        assert done
        text = (tmp_path / "out/pxelinux.cfg/default").read_text()
        assert sorted(line.split()[1] for line in text.splitlines() if line.startswith("label ")) == done
        for label in labels:
            folder = tmp_path / "out" / label
            assert folder.exists() == (label in done)
            if label in done:
                assert {path.name: path.read_bytes() for path in folder.iterdir()} == {**BANK, **BOOT}

    def test_a_folder_that_was_made_for_nothing_is_removed(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), holding_folder(tmp_path / "a/b/c"):
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "a").mkdir()
        (tmp_path / "a/kept").touch()
        with pytest.raises(RuntimeError), holding_folder(tmp_path / "a/b/c"):
            raise RuntimeError
        assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]
