"""What each partition of each generation's disk is for, and which bank the boot loader starts."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Unreadable, run
from vmvisor_image import CorruptImage, Generation, Image, Problem, Role, inspect, verify
from vmvisor_image.disk import partition as of_partition
from vmvisor_image.disk import partition_table
from vmvisor_image.disk.banks import BootState
from vmvisor_image.disk.explanation import PURPOSES, described_generation
from vmvisor_image.reports.inspection import report as report_of
from vmvisor_image.schemas.partition_types import BASIC_DATA, EFI_SYSTEM, MEMORY_TIER, VMKCORE, VSAN
from vmvisor_image.streams.reading import find_data
from vmvisor_image.testing.forge import (
    ESX_35,
    ESX_50_MBR,
    ForgedPartition,
    SparseImage,
    Tree,
    esx35_bank_files,
    esx35_boot_files,
    esx35_disk,
    esx40_disk,
    esx67_boot_partition,
    esx_disk,
    fat_volume,
    mbr_disk,
)
from vmvisor_image.testing.forge_gpt import GptPartition, esx5_disk, esx6_dd_image, esx7_disk, gpt_disk
from vmvisor_image.testing.forge_iso import iso_volume

BOOT: Tree = {"mboot.c32": b"loader", "syslinux.cfg": b"default safeboot.c32\n"}
STORE: Tree = {"packages/tools.iso": b"x", "var/a": b""}


def bank(build: str, updated: object = 1, bootstate: object = 0, extra: str = "") -> Tree:
    text = f"bootstate={bootstate}\nkernel=b.b00\nmodules=k.b00\nbuild={build}\nupdated={updated}\n{extra}"
    return {"boot.cfg": text.encode(), "b.b00": b"kernel"}


@dataclass(frozen=True)
class Expected:
    generation: Generation
    roles: dict[int, Role]


BANKS = {5: Role.BOOTBANK, 6: Role.ALT_BOOTBANK}
MBR_ROLES = {1: Role.CONTAINER, 4: Role.BOOT, **BANKS, 7: Role.COREDUMP, 8: Role.STORE}
GPT_ROLES = {1: Role.BOOT, **BANKS, 7: Role.COREDUMP, 8: Role.STORE}

DISKS: dict[str, tuple[SparseImage, Expected]] = {
    "3.5": (
        esx35_disk(boot=esx35_boot_files(), bank=esx35_bank_files(100_000)),
        Expected(Generation.ESX_3I, MBR_ROLES),
    ),
    "4.1": (
        esx40_disk(boot=BOOT, bank=bank("4.1.0-260247", 2), alternate_bank=bank("4.1.0-1", 1, 3), store=STORE),
        Expected(Generation.ESXI_4, MBR_ROLES),
    ),
    "5.5 dd image, MBR": (
        esx_disk(ESX_50_MBR, boot={"efi/boot/bootx64.efi": b"x"}, bank=bank("5.5.0-1331820"), store=STORE),
        Expected(Generation.ESXI_5_6, MBR_ROLES),
    ),
    "6.7 dd image, GPT": (
        esx6_dd_image(boot=BOOT, bank=bank("6.7.0-8169922")),
        Expected(Generation.ESXI_5_6, GPT_ROLES),
    ),
    "5.5": (
        esx5_disk(boot=BOOT, bank=bank("5.5.0-1331820"), store=STORE),
        Expected(Generation.ESXI_5_6, GPT_ROLES),
    ),
    "6.0 with scratch": (
        esx5_disk(boot=BOOT, bank=bank("6.0.0-2494585"), store=STORE, with_scratch=True),
        Expected(Generation.ESXI_5_6, {**GPT_ROLES, 9: Role.COREDUMP, 2: Role.SCRATCH, 3: Role.DATASTORE}),
    ),
    "7.0": (
        esx7_disk(boot=BOOT, bank=bank("7.0.3-0.0.18644231")),
        Expected(Generation.ESXI_7_8, {1: Role.BOOT, **BANKS, 7: Role.OSDATA}),
    ),
    "8.0, upgraded once": (
        esx7_disk(boot=BOOT, bank=bank("8.0.0-1.0.20513097", 1), alternate_bank=bank("8.0.1-0.0.1", 2)),
        Expected(Generation.ESXI_7_8, {1: Role.BOOT, 5: Role.ALT_BOOTBANK, 6: Role.BOOTBANK, 7: Role.OSDATA}),
    ),
}


@pytest.mark.parametrize("name", DISKS)
def test_roles_of_each_generation(name: str) -> None:
    disk, expected = DISKS[name]
    with Image.open(disk) as image:
        assert {p.number: p.role for p in image.partitions} == expected.roles
        assert image.partitions.generation is expected.generation
        assert image.problems == ()
        for partition in image.partitions:
            text = partition.explain()
            assert expected.generation.value in text
            assert partition.evidence
            if not partition.is_container:
                assert any(f"{item.offset:#x}" in text for item in partition.evidence if item.offset is not None)


@pytest.mark.parametrize("name", ["3.5", "4.1", "5.5 dd image, MBR", "6.7 dd image, GPT", "5.5"])
def test_a_table_alone_is_recognised_by_types_and_places_together(name: str) -> None:
    """As when every volume was wiped: each role that type and place give is told with its reason."""
    disk, expected = DISKS[name]
    with Image.open(disk) as image:
        volumes = [(p.start, p.start + p.size) for p in image.partitions if not p.is_container]
    left = [piece for piece in disk.pieces if not any(start <= piece[0] < end for start, end in volumes)]
    wiped = SparseImage(disk.size, left)
    with Image.open(wiped) as image:
        assert {p.number: p.role for p in image.partitions} == expected.roles
        assert image.partitions.generation is expected.generation
        assert "the table is that of" in image.partitions[5].explain()


def test_the_head_of_a_dd_image_in_mbr_mode_is_sfdisks(tmp_path: Path) -> None:
    """With nothing in any partition, and the type that tells it from the head of 4.x."""
    path = tmp_path / "disk"
    disk = DISKS["5.5 dd image, MBR"][0]
    records = [0, *(at * 512 for at in (8192, 520192, 1032192, 1257472))]
    SparseImage(disk.size, [(at, data) for at, data in disk.pieces if at in records]).write_to(path)
    rows = json.loads(run("sfdisk", "-J", path))["partitiontable"]["partitions"]
    expected = {
        int(row["node"].removeprefix(str(path))): (
            *(int(row["type"], 16), row["start"], row["size"], row.get("bootable", False)),
        )
        for row in rows
    }
    assert expected[1] == (5, 8192, 1835008, False)
    assert expected[4] == (0xEF, 32, 8160, True)
    with Image.open(path) as image:
        assert {p.number: (p.type.code, p.first_lba, p.sectors, p.active) for p in image.partitions} == expected
        assert image.partitions.layout is not None
        assert image.partitions.layout.generation is Generation.ESXI_5_6
        assert {p.number: p.role for p in image.partitions} == MBR_ROLES
        assert image.problems == ()


def test_an_efi_partition_boots_whatever_table_it_is_in() -> None:
    volume = fat_volume({"other.txt": b"x"}, sectors=8160)
    for disk in (
        mbr_disk([ForgedPartition(1, 0xEF, 64, 8160, content=volume)], sectors=10000),
        gpt_disk([GptPartition(1, EFI_SYSTEM, 64, 8160, content=volume)], sectors=10000),
    ):
        with Image.open(disk) as image:
            assert image.partitions[1].role is Role.BOOT


@pytest.mark.parametrize(
    ("guid", "role", "words"),
    [(MEMORY_TIER, Role.MEMORY_TIER, "It is a memory tier"), (VSAN, Role.VSAN, "part of a vSAN datastore")],
)
@pytest.mark.parametrize("is_used", [False, True])
def test_types_that_say_what_a_partition_is_for(guid: UUID, role: Role, words: str, *, is_used: bool) -> None:
    content = SparseImage(512, [(0, b"pages of memory")]) if is_used else None
    with Image.open(gpt_disk([GptPartition(1, guid, 2048, 4096, content=content)], sectors=16384)) as image:
        partition = image.partitions[1]
        assert (partition.role, partition.kind) == (role, "unknown" if is_used else "empty")
        assert words in partition.explain()
        assert str(guid) in partition.explain()


@pytest.mark.parametrize(("sector_size", "kind"), [(512, "fat16"), (4096, "fat12")])
def test_the_boot_partition_of_the_installer_is_what_other_programs_say(
    sector_size: int, kind: str, tmp_path: Path
) -> None:
    """Its marker says FAT16 of both: the count of clusters tells."""
    files = {"mboot.c32": b"m" * 9000, "safeboot.c32": b"s", "efi/boot/bootx64.efi": b"e" * 5000}
    volume, path = esx67_boot_partition(files, sector_size=sector_size), tmp_path / "volume"
    assert volume.size == (4161536 if kind == "fat16" else 1016 * 4096)
    assert volume.read_at(sector_size, 16) == b"VMWARE FAT16    "
    volume.write_to(path)
    said = run("blkid", "-p", "-o", "export", path)
    assert f"VERSION={kind.upper()}\n" in said
    assert "LABEL=ESXi\n" in said
    assert f"{sector_size} bytes per logical sector" in run("fsck.fat", "-n", "-v", path)
    read = {name: run("mtype", "-i", path, f"::{name}").encode() for name in files}
    sectors = 16384
    disk = gpt_disk(
        [GptPartition(1, EFI_SYSTEM, 64, volume.size // sector_size, content=volume)],
        sectors=sectors,
        sector_size=sector_size,
    )
    for source in (volume, disk):
        with Image.open(source) as image:
            partition = image.partitions[1]
            assert (partition.kind, partition.label, partition.role) == (kind, "ESXi", Role.BOOT)
            assert {name: partition.files[name].read_bytes() for name in files} == read == files
            assert partition.records["VMware marker"].source_offset == partition.start + sector_size
            assert image.problems == ()
        assert verify(source).is_sound


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_banks_of_either_sector_size_are_found_by_their_marker(sector_size: int) -> None:
    """FAT12 or FAT16, as the count of clusters makes it; of two the one with the higher number is started."""
    banks = [
        fat_volume(bank("6.7.0-1", number), sectors=2000, bytes_per_sector=sector_size, marker=bytes((number,)) * 16)
        for number in (1, 2)
    ]
    partitions = [
        GptPartition(number, BASIC_DATA, 2500 * number, 2000, content=volume) for number, volume in enumerate(banks, 5)
    ]
    with Image.open(gpt_disk(partitions, sectors=20000, sector_size=sector_size)) as image:
        assert {partition.kind for partition in image.partitions} == {"fat12"}
        assert {partition.number: partition.role for partition in image.partitions} == {
            5: Role.ALT_BOOTBANK,
            6: Role.BOOTBANK,
        }
        assert image.problems == ()


@pytest.mark.parametrize("volume", ["fat", "iso"])
def test_what_a_volume_says_of_itself_shows_no_control_bytes(volume: str) -> None:
    """The label of FAT's boot sector, and a CD's application, with what changes a terminal's title."""
    wild = b"\x1b]0;pwn\x07\x7f "
    if volume == "fat":
        disk = fat_volume({}, sectors=4000, label="FORGED LABL")
        data, at = bytearray(disk.read_at(0, disk.size)), 43
    else:
        data = bytearray(iso_volume({"a.txt": b"x"}))
        at = data.index(b"FORGED".ljust(128))
    data[at : at + len(wild)] = wild
    with Image.open(bytes(data)) as image:
        found = image.partitions[1].volume
        assert found is not None
        assert r"\x1b]0;pwn\x07\x7f" in " ".join(found.facts.values())
        assert all(value.isprintable() for value in found.facts.values())
        assert image.partitions[1].explain().isprintable()


@pytest.mark.parametrize("role", Role)
def test_each_role_is_explained(role: Role) -> None:
    assert role in PURPOSES


def test_place_alone_says_nothing() -> None:
    """The same places and sizes as ESX 3i's, with Linux's type."""
    places = (ESX_35.boot, ESX_35.bank, ESX_35.alternate_bank)
    disk = mbr_disk([ForgedPartition(n, 0x83, *place) for n, place in enumerate(places, 1)], sectors=ESX_35.sectors)
    with Image.open(disk) as image:
        assert {p.role for p in image.partitions} == {Role.UNKNOWN}
        assert image.partitions.generation is None
        assert "Nothing on the disk says" in image.partitions[1].explain()


def test_content_goes_before_the_layout() -> None:
    """The table of 5.x, with a swap space where the bank should be."""
    swap = SparseImage(1 << 20, [(4086, b"SWAPSPACE2")])
    disk = gpt_disk(
        [
            GptPartition(1, EFI_SYSTEM, 64, 8128),
            GptPartition(5, BASIC_DATA, 8224, 511968, content=swap),
            GptPartition(6, BASIC_DATA, 520224, 511968),
            GptPartition(7, VMKCORE, 1032224, 225248),
            GptPartition(8, BASIC_DATA, 1257504, 585696),
        ],
        sectors=2097152,
    )
    with Image.open(disk) as image:
        assert (image.partitions[5].kind, image.partitions[5].role) == ("swap", Role.UNKNOWN)
        assert image.partitions[6].role is Role.ALT_BOOTBANK


def test_a_fat_volume_that_is_none_of_ours() -> None:
    with Image.open(fat_volume({"DCIM/1.JPG": b"x"}, sectors=4000, label="CAMERA")) as image:
        assert image.partitions[1].role is Role.UNKNOWN
        assert image.partitions.generation is None


@pytest.mark.parametrize(
    ("tree", "role"),
    [
        ({"log/a": b"", "core/b": b""}, Role.SCRATCH),
        ({"log/a": b""}, Role.UNKNOWN),
        ({"packages/a": b""}, Role.STORE),
        ({"safeboot.c32": b""}, Role.BOOT),
        ({"EFI/BOOT/BOOTx64.EFI": b""}, Role.BOOT),
        ({"boot.cfg": b"kernel=a\nbuild=6.5.0-1\nupdated=1\n"}, Role.BOOTBANK),
    ],
)
def test_by_content_without_a_label(tree: Tree, role: Role) -> None:
    with Image.open(fat_volume(tree, sectors=4000)) as image:
        assert image.partitions[1].role is role


class TestTheQuestionOf2008:
    def test_is_answered(self) -> None:
        with Image.open(DISKS["3.5"][0]) as image:
            text = image.partitions[7].explain()
        for part in ("not VMFS: VMFS has type 0xFB", "0xFC", "scratch", "swap", "all zeros", "VMKCORE", "0x6404000"):
            assert part in text, part

    def test_with_where_the_evidence_is(self) -> None:
        with Image.open(DISKS["3.5"][0]) as image:
            partition = image.partitions[7]
            [kind] = [item for item in partition.evidence if "0xfc" in item.statement]
            assert image.read_at((kind.offset or 0) + 4, 1) == b"\xfc"


def disk_with(first: Tree, second: Tree, *, marker: bool = True) -> SparseImage:
    disk = esx40_disk(boot=BOOT, bank=first, alternate_bank=second)
    if marker:
        return disk
    return SparseImage(disk.size, [(at, data) for at, data in disk.pieces if not data.startswith(b"VMWARE FAT16")])


def about_configuration(problems: tuple[Problem, ...]) -> list[Problem]:
    return [problem for problem in problems if problem.structure == "boot configuration"]


class TestActiveBank:
    """Rules of esx-boot's safeboot."""

    @pytest.mark.parametrize(
        ("first", "second", "started"),
        [
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2), 6),
            (bank("4.1.0-1", 3), bank("4.1.0-2", 2), 5),
            (bank("4.1.0-1", 2), bank("4.1.0-2", 2), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, 1), 6),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, 2), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, 3), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, "x"), 5),
            (bank("4.1.0-1", 1), bank("", 2), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 0), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", "2a"), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, extra="quickboot=1\n"), 5),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, extra="quickboot=0\n"), 6),
            (bank("4.1.0-1", 1), bank("4.1.0-2", 2, ""), 6),
            (bank("4.1.0-1", 1), {}, 5),
            ({}, bank("4.1.0-2", 1), 6),
            (bank("4.1.0-1", 1, 3), bank("4.1.0-2", 1, 3), None),
        ],
    )
    def test_is_the_loaders_choice(self, first: Tree, second: Tree, started: int | None) -> None:
        with Image.open(disk_with(first, second)) as image:
            chosen = image.partitions.active_bank
            assert (None if chosen is None else chosen.number) == started
            roles = {number: image.partitions[number].role for number in (5, 6)}
            expected = {5: Role.BOOTBANK, 6: Role.ALT_BOOTBANK}
            if started == 6:
                expected = {5: Role.ALT_BOOTBANK, 6: Role.BOOTBANK}
            assert roles == expected

    def test_none_without_the_marker_and_the_label_tells(self) -> None:
        with Image.open(disk_with(bank("4.1.0-1", 1), bank("4.1.0-2", 2), marker=False)) as image:
            assert image.partitions.active_bank is None
            assert [bank.obstacle for bank in image.partitions.banks] == ["it lacks VMware's marker"] * 2
            assert image.partitions[5].role is Role.BOOTBANK
            assert "lacks VMware's marker" in image.partitions[5].explain()

    def test_a_bank_says_all_it_says(self) -> None:
        with Image.open(disk_with(bank("4.1.0-260247", 2, 1), {})) as image:
            [found] = image.partitions.banks
            assert (found.number, found.build, found.updated) == (5, "4.1.0-260247", 2)
            assert found.state is BootState.UPGRADING
            offset = found.configuration_offset
            assert offset is not None
            assert image.read_at(offset, 10) == b"bootstate="
            assert found.uuid == image.partitions[5].records["VMware marker"].raw[16:]

    @pytest.mark.parametrize("size", [65535, 65536, 65537, 1 << 20])
    def test_a_configuration_is_read_up_to_its_largest_size(self, size: int) -> None:
        """A larger one is a problem of its partition, and costs no other bank."""
        length = len(dict(bank("4.1.0-1", 1, extra="#"))["boot.cfg"])  # type: ignore[arg-type]  # a mapping
        disk = disk_with(bank("4.1.0-1", 1, extra="#" * (size - length + 1)), bank("4.1.0-2", 2))
        with Image.open(disk) as image:
            assert image.partitions["Hypervisor1"].files["boot.cfg"].size == size
            banks = {found.number: found.build for found in image.partitions.banks}
            said = about_configuration(image.problems)
            offset = image.partitions[5].files["boot.cfg"].extents[0].offset
        assert said == about_configuration(verify(disk).problems) == about_configuration(inspect(disk).problems)
        if size <= 65536:
            assert (banks, said) == ({5: "4.1.0-1", 6: "4.1.0-2"}, [])
            return
        assert banks == {6: "4.1.0-2"}
        assert [problem.offset for problem in said] == [offset]
        assert f"at most 65536 bytes, found {size}" in said[0].message
        with Image.open(disk) as image:
            assert about_configuration(image.problems) == said  # nothing was read before
            with pytest.raises(CorruptImage, match="at most 65536 bytes"):
                _ = image.system(5).modules
            assert image.system(6).version == "4.1.0"

    def test_a_configuration_that_can_not_be_read_is_a_problem_of_its_partition(self) -> None:
        disk = disk_with(bank("4.1.0-1", 1), bank("4.1.0-2", 2))
        with Image.open(disk) as image:
            place = image.partitions[5].files["boot.cfg"].extents[0].offset
        with Image.open(Unreadable(disk, place, place + 1)) as image:
            assert {found.number: found.build for found in image.partitions.banks} == {6: "4.1.0-2"}
            assert [problem.offset for problem in image.partitions[5].problems] == [place]
            assert image.partitions[6].problems == ()

    @given(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, 4), st.booleans()),
            min_size=1,
            max_size=3,
        )
    )
    def test_is_the_highest_of_those_that_can_start(self, banks: list[tuple[int, int, bool]]) -> None:
        from vmvisor_image.disk.banks import BootBank, active_bank
        from vmvisor_image.schemas.boot_cfg import BootConfig

        made = [
            BootBank(
                number,
                str(number),
                b"u" * 16 if marked else None,
                "1",
                updated,
                BootState(state) if state < 4 else BootState.UNKNOWN,
                BootConfig(),
                None,
            )
            for number, (updated, state, marked) in enumerate(banks, 5)
        ]
        chosen = active_bank(made)
        possible = [b for b in made if b.uuid and b.updated and b.state in (BootState.VALID, BootState.UPGRADING)]
        if not possible:
            assert chosen is None
        else:
            best = max(b.updated or 0 for b in possible)
            assert chosen is next(b for b in possible if b.updated == best)


def test_what_says_so_survives_pickling() -> None:
    with Image.open(DISKS["5.5"][0]) as image:
        evidence = image.partitions[5].evidence
    assert pickle.loads(pickle.dumps(evidence)) == evidence


@pytest.mark.parametrize(
    "build", ["3.5.0-67921", "4.1.0-260247", "5.5.0-1331820", "6.7.0-8169922", "8.0.0-1.0.20513097"]
)
@pytest.mark.parametrize("make", [esx35_disk, esx40_disk, esx5_disk, esx7_disk])
def test_no_explanation_contradicts_the_table(make: Callable[..., SparseImage], build: str) -> None:
    with Image.open(make(boot={}, bank=bank(build))) as image:
        layout = image.partitions.layout
        assert layout is not None
        told = image.partitions.generation
        for partition in image.partitions:
            text = partition.explain()
            others = [each for each in Generation if each is not layout.generation]
            assert f"layout of {layout.generation.value}" in text
            assert not [each for each in others if f"layout of {each.value}" in text]
            assert ("disagree" in text) == (told is not layout.generation)
            assert f"build={build}" in text
            assert image.scheme == "mbr" or not re.search(r"type 0x[0-9A-F]{2}\b", text)


def contradictions(image: Image) -> list[str]:
    """What the explanations of an image say that its table, its banks or its bytes say otherwise."""
    table = image.partitions
    layout = None if table.layout is None else table.layout.generation
    wrong = []
    for partition in table:
        text = partition.explain()
        is_zero = find_data(image.disk, partition.start, partition.start + partition.size) is None
        facts = {
            **{f"layout of {each.value}": each is layout for each in Generation},
            **{f"disk of {each.value} by this": layout is not each is table.generation for each in Generation},
            "The two disagree": layout is not None and table.generation not in (None, layout),
            "this one has 0xFC": partition.type.code == 0xFC,
            "its entry has type VMware VMKCORE (0xFC)": partition.type.code == 0xFC,
            "there is no partition table": image.scheme == "none",
            "It is all zeros, so no dump": partition.role is Role.COREDUMP and is_zero,
            "It is used:": partition.role is Role.COREDUMP and not is_zero,
            "it is all zeros": partition.kind == "empty",
            "the boot loader starts this bank": table.active_bank is not None
            and table.active_bank.number == partition.number,
            "finds no bank to start": table.active_bank is None
            and partition.role in BANKS.values()
            and not any(bank.is_chosen_by_label for bank in table.banks),
            "it has no boot.cfg that can be read": partition.role in BANKS.values()
            and partition.number not in [bank.number for bank in table.banks],
            "Nothing on the disk says what it is for": partition.role is Role.UNKNOWN,
        }
        wrong += [f"{partition.number}: {words}" for words, right in facts.items() if (words in text) > right]
        always = ("The two disagree", "the boot loader starts this bank", "Nothing on the disk says what it is for")
        wrong += [f"{partition.number}, not: {words}" for words in always if facts[words] and words not in text]
        for number, build in re.findall(r"boot\.cfg of partition (\d+) has build=(\S+)", text):
            wrong += [] if build in [b.build for b in table.banks if b.number == int(number)] else [build]
    return wrong


BUILDS = (None, "3.5.0-67921", "4.1.0-260247", "5.5.0-1331820", "6.7.0-8169922", "8.0.0-1.0.20513097", "9.0.0-1", "x")


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0x04, 0x06, 0x0B, 0x83, 0xFB, 0xFC)),
            st.sampled_from((None, "Hypervisor0", "Hypervisor1", "Hypervisor2", "Hypervisor3", "BOOTBANK1", "OSDATA")),
            st.sampled_from((*BUILDS, b"noise", bytes(512))),
            st.integers(0, 2),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_no_explanation_contradicts_what_a_disk_holds(
    chosen: list[tuple[int, str | None, str | bytes | None, int, bool]],
) -> None:
    """Any types, labels, builds and contents together, not only those that belong together."""
    parts = []
    for number, (kind, label, content, updated, is_marked) in enumerate(chosen, 1):
        volume = SparseImage(1024 * 512, [(0, content)]) if isinstance(content, bytes) else None
        if volume is None:
            tree = {} if content is None else bank(str(content), updated)
            marker = bytes(range(16)) if is_marked else None
            volume = fat_volume(tree, sectors=1024, label=label, marker=marker)
        parts.append(ForgedPartition(number, kind, 64 + 1024 * (number - 1), 1024, content=volume))
    with Image.open(mbr_disk(parts, sectors=64 + 1024 * len(parts))) as image:
        assert contradictions(image) == []


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("make", [esx35_disk, esx40_disk, esx5_disk, esx7_disk])
def test_no_explanation_nor_heading_contradicts_a_layout(make: Callable[..., SparseImage], build: str | None) -> None:
    content = {} if build is None else bank(build)
    for banks in ({"bank": content}, {"bank": {}, "alternate_bank": content}, {"bank": content, "alternate_bank": {}}):
        with Image.open(make(boot={}, **banks)) as image:
            assert contradictions(image) == []
            layout, generation = image.partitions.layout, image.partitions.generation
            assert layout is not None
            described = described_generation(layout.generation, generation)
            assert described is not None
            assert described.startswith(f"layout of {layout.generation.value}")
            assert ("but disk of" in described) == (generation not in (None, layout.generation))
            assert described in image.partitions._repr_html_()
            assert inspect(image.source).layout is layout.generation


@pytest.mark.parametrize("count", [3, 1023])
def test_the_disk_is_assessed_once_for_heading_rows_and_explanations(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        called = getattr(module, name)

        def call(*given: object) -> object:
            calls[name] += 1
            return called(*given)

        monkeypatch.setattr(module, name, call)

    for name in ("find_layout", "find_generation"):
        counted(partition_table, name)
    counted(of_partition, "assess")
    logical = [ForgedPartition(5 + number, 6, 64 + number * 80, 40) for number in range(count)]
    disk = mbr_disk([ForgedPartition(1, 5, 32, count * 80 + 64), *logical], sectors=count * 80 + 200)
    with Image.open(disk) as image:
        report = report_of(image)
        assert [each.explained for each in image.partitions] == [each.explained for each in report.partitions]
    assert len(report.partitions) == count + 1
    assert calls == {"find_layout": 1, "find_generation": 1, "assess": count + 1}


def test_nothing_is_advised_for_an_empty_bank() -> None:
    full = bank("4.1.0-260247", 2)
    empty = {"boot.cfg": b"bootstate=3\nbuild=\nupdated=0\nkernel=\n"}
    for alternate, is_bootable in ((bank("4.1.0-1", 1), True), (empty, False), ({}, False)):
        with Image.open(esx40_disk(boot=BOOT, bank=full, alternate_bank=alternate, store=STORE)) as image:
            for number, boots in ((5, True), (6, is_bootable)):
                partition = image.partitions[number]
                assert partition.role in (Role.BOOTBANK, Role.ALT_BOOTBANK)
                commands = " ".join(step.command or "" for step in partition.explained.next_steps)
                assert ("vmvisor-image system" in commands, "vmvisor-image pxe" in commands) == (boots, boots)
                assert "vmvisor-image ls" in commands
