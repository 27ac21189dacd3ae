"""Virtual disks, made by qemu-img and read by us."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Counting, require_tool, run
from vmvisor_image import CorruptImage, Image, UnsafeName
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers.crc32c import crc32c
from vmvisor_image.layers.unwrap import unwrap
from vmvisor_image.layers.vmdk import JoinedExtents, join_extents, parse_descriptor
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_virtual import qcow2_disk, vhd_disk, vmdk_disk

SIZE = 20 << 20
FORMATS: dict[str, tuple[str, ...]] = {
    "qcow2": ("-O", "qcow2"),
    "qcow2 version 2": ("-O", "qcow2", "-o", "compat=0.10"),
    "qcow2 deflated": ("-c", "-O", "qcow2"),
    "qcow2 zstd": ("-c", "-O", "qcow2", "-o", "compression_type=zstd"),
    "qcow2 small clusters": ("-O", "qcow2", "-o", "cluster_size=512"),
    "qcow2 large clusters": ("-c", "-O", "qcow2", "-o", "cluster_size=2M"),
    "qcow2 subclusters": ("-O", "qcow2", "-o", "extended_l2=on"),
    "vmdk": ("-O", "vmdk"),
    "vmdk streamOptimized": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    "vmdk flat": ("-O", "vmdk", "-o", "subformat=monolithicFlat"),
    "vmdk in parts": ("-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
    "vmdk in flat parts": ("-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"),
    "vhd": ("-O", "vpc", "-o", "force_size=on"),
    "vhd fixed": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("-O", "vhdx"),
    "vhdx fixed": ("-O", "vhdx", "-o", "subformat=fixed"),
}
ONE_FILE = [name for name in FORMATS if "flat" not in name and "parts" not in name]
EVERY = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def raw() -> bytes:
    """Noise, text, zeros, and single sectors far apart."""
    noise = random.Random(7)
    disk = bytearray(SIZE)
    for _ in range(12):
        at = noise.randrange(0, 8 << 20, 512)
        disk[at : at + 200_000] = noise.randbytes(200_000)
        disk[at + 200_000 : at + 300_000] = b"this compresses quite well, line by line\n" * 2439 + b"x"
    for _ in range(20):
        at = noise.randrange(8 << 20, 11 << 20, 512)
        disk[at : at + 512] = noise.randbytes(512)
    disk[510:512] = bytes(2)
    return bytes(disk)


@pytest.fixture(scope="module")
def disks(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("disks")
    (folder / "raw").write_bytes(raw)
    found = {}
    for name, options in FORMATS.items():
        kind = name.partition(" ")[0]
        path = folder / f"{name.replace(' ', '-')}.{kind}"
        run("qemu-img", "convert", "-f", "raw", *options, folder / "raw", path)
        found[name] = path
    return found


@EVERY
def test_everything(name: str, raw: bytes, disks: dict[str, Path]) -> None:
    with Image.open(disks[name]) as image:
        assert [layer.kind for layer in image.layers] == [name.partition(" ")[0]]
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == raw
        assert image.problems[1:] == ()  # the first one: this disk has no partition table


@EVERY
@given(data=st.data())
def test_any_range(name: str, raw: bytes, disks: dict[str, Path], data: st.DataObject) -> None:
    with Image.open(disks[name]) as image:
        offset = data.draw(st.integers(0, SIZE))
        length = data.draw(st.integers(0, min(300_000, SIZE - offset)))
        assert image.read_at(offset, length) == raw[offset : offset + length]


@EVERY
def test_what_is_not_stored_is_skipped(name: str, raw: bytes, disks: dict[str, Path]) -> None:
    with Image.open(disks[name]) as image:
        disk = image.disk
        assert isinstance(disk, MappedDisk | JoinedExtents) or "fixed" in name
        at = skipped = 0
        while at < SIZE and hasattr(disk, "skip_zeros"):
            to = disk.skip_zeros(at, SIZE)
            assert not any(raw[at:to])
            skipped += to - at
            at = to + 8192
        if "flat" not in name and "fixed" not in name:
            assert skipped > 3 << 20


@pytest.mark.parametrize("name", ONE_FILE)
def test_a_sector_costs_few_reads(name: str, disks: dict[str, Path]) -> None:
    with Image.open(disks[name]) as whole:
        place = next(at for at in range(8 << 20, SIZE, 512) if any(whole.read_at(at, 512)))
    source = Counting(BytesSource(disks[name].read_bytes()))
    [layer] = unwrap(source, disks[name].name, LayerOptions())
    layer.source.read_at(place, 512)
    assert len(source.reads) <= 16
    assert sum(length for _, length in source.reads) < 3 << 20


@EVERY
def test_threads(name: str, raw: bytes, disks: dict[str, Path]) -> None:
    with Image.open(disks[name]) as image, ThreadPoolExecutor(4) as pool:

        def check(seed: int) -> bool:
            chosen = random.Random(seed)
            places = [chosen.randrange(SIZE - 5000) for _ in range(30)]
            return all(image.read_at(at, 5000) == raw[at : at + 5000] for at in places)

        assert all(pool.map(check, range(4)))


@pytest.mark.parametrize("name", ONE_FILE)
@pytest.mark.parametrize("way", ["cut", "flip"])
def test_damage_is_an_error_or_nothing(name: str, way: str, raw: bytes, disks: dict[str, Path]) -> None:
    """Without checksums wrong bytes can't be told; whatever is read is of the right length, or an error."""
    whole = disks[name].read_bytes()
    chosen = random.Random(name)
    places = [chosen.randrange(min(len(whole), limit)) for limit in (600, 5000, 400_000, len(whole)) for _ in range(12)]
    for place in places:
        damaged = bytearray(whole[:place] if way == "cut" else whole)
        if way == "flip":
            damaged[place] ^= 1 << chosen.randrange(8)
        try:
            layers = unwrap(BytesSource(damaged), disks[name].name, LayerOptions())
        except CorruptImage:
            continue
        for layer in layers:
            for at in (0, 3 << 20, 11 << 20):
                try:
                    assert len(layer.source.read_at(at, 70_000)) == 70_000
                except CorruptImage:
                    continue


def test_a_table_that_leads_past_the_end_costs_only_its_own_part(raw: bytes, disks: dict[str, Path]) -> None:
    whole = bytearray(disks["qcow2"].read_bytes())
    table = int.from_bytes(whole[40:48], "big")
    second = int.from_bytes(whole[table : table + 8], "big") & 0x00FFFFFFFFFFFE00
    places = [n for n in range(SIZE >> 16) if any(whole[second + 8 * n : second + 8 * n + 8])]
    whole[second + 8 * places[3] : second + 8 * places[3] + 8] = (0x8000_0FFF_0000_0000).to_bytes(8, "big")
    with Image.open(bytes(whole)) as image:
        for place in places:
            if place == places[3]:
                with pytest.raises(CorruptImage):
                    image.read_at(place << 16, 1 << 16)
            else:
                assert image.read_at(place << 16, 1 << 16) == raw[place << 16 : (place + 1) << 16]


def test_a_header_that_claims_an_exabyte_costs_nothing() -> None:
    header = b"QFI\xfb" + (2).to_bytes(4, "big") + bytes(12) + (21).to_bytes(4, "big") + (1 << 60).to_bytes(8, "big")
    header += bytes(4) + (1 << 22).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + bytes(24)
    with Image.open(header.ljust(512, b"\0")) as image:
        assert image.size == 1 << 60
        with pytest.raises(CorruptImage, match="L1 table"):
            image.read_at(1 << 59, 512)


class TestRefused:
    def test_a_backing_file_whose_name_lies_elsewhere(self, tmp_path: Path) -> None:
        path = tmp_path / "disk.qcow2"
        run("qemu-img", "create", "-f", "qcow2", path, "1M")
        data = bytearray(path.read_bytes())
        data[10] = 0x80
        path.write_bytes(data)
        with pytest.raises(CorruptImage, match="not in the first cluster"):
            Image.open(path)
        done = subprocess.run([require_tool("qemu-img"), "info", path], capture_output=True, text=True, check=False)
        assert "Invalid backing file offset" in done.stderr

    def test_a_backing_file_without_a_name_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "disk.qcow2"
        run("qemu-img", "create", "-f", "qcow2", path, "1M")
        data = bytearray(path.read_bytes())
        data[15] = 0x20
        path.write_bytes(data)
        run("qemu-img", "check", path)
        assert "backing-filename" not in json.loads(run("qemu-img", "info", "--output", "json", path))
        with Image.open(path) as image:
            assert image.read_at(0, image.size) == bytes(1 << 20)

    def test_encryption(self, tmp_path: Path) -> None:
        run("qemu-img", "create", "-f", "qcow2", tmp_path / "disk.qcow2", "1M")
        data = bytearray((tmp_path / "disk.qcow2").read_bytes())
        data[35] = 2  # LUKS; qemu-img itself needs a quiet machine to make one
        with pytest.raises(CorruptImage, match="encrypted"):
            Image.open(bytes(data))

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\\b", ""])
    def test_extents_elsewhere(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "disk.vmdk").write_text(f'# Disk DescriptorFile\nRW 2048 FLAT "{name}" 0\n')
        with pytest.raises(UnsafeName):
            Image.open(tmp_path / "disk.vmdk")

    def test_an_extent_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "disk.vmdk").write_text('# Disk DescriptorFile\nRW 2048 FLAT "disk-flat.vmdk" 0\n')
        with pytest.raises(CorruptImage, match=r"disk-flat\.vmdk"):
            Image.open(tmp_path / "disk.vmdk")
        with pytest.raises(CorruptImage, match="open the descriptor by its path"):
            Image.open((tmp_path / "disk.vmdk").read_bytes())

    @pytest.mark.parametrize("line", ['RW 1 SESPARSE "a"', 'RW 1 VMFSRDM "a"', ""])
    def test_other_extents(self, line: str) -> None:
        with pytest.raises(CorruptImage):
            Image.open(f"# Disk DescriptorFile\n{line}\n".encode())


@pytest.mark.parametrize("way", ["tar", "zip"])
def test_extents_are_found_in_an_archive(way: str, raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(raw)
    (tmp_path / "disk").mkdir()
    run(
        "qemu-img",
        "convert",
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        tmp_path / "raw",
        tmp_path / "disk/d.vmdk",
    )
    path = shutil.make_archive(str(tmp_path / "disk"), way, tmp_path / "disk")
    with Image.open(path) as image:
        assert [layer.kind for layer in image.layers] == [way, "vmdk"]
        assert image.read_at(0, len(raw)) == raw


def test_extents_of_zeros_lie_between_others() -> None:
    descriptor = parse_descriptor(b'# Disk DescriptorFile\nRW 2 FLAT "a" 1\nRW 3 ZERO\nRW 1 FLAT "b" 0\n')
    files = {"a": b"_" * 512 + b"a" * 1024, "b": b"b" * 512}
    disk = join_extents(descriptor, LayerOptions(neighbour=lambda name: BytesSource(files[name])))
    assert disk.read_at(0, disk.size) == b"a" * 1024 + bytes(1536) + b"b" * 512
    assert isinstance(disk, JoinedExtents)
    assert [disk.skip_zeros(at, disk.size) for at in (0, 1024, 1500, 2560)] == [0, 2560, 2560, 2560]


def test_the_second_grain_directory_stands_in(raw: bytes, disks: dict[str, Path]) -> None:
    whole = bytearray(disks["vmdk"].read_bytes())
    directory = int.from_bytes(whole[56:64], "little") * 512
    whole[directory : directory + 4] = b"\xff\xff\xff\x7f"
    with Image.open(bytes(whole)) as image:
        assert image.read_at(0, SIZE) == raw
        assert "second one" in image.problems[-1].message


def test_a_copy_stands_in_for_a_damaged_vhd_footer(raw: bytes, disks: dict[str, Path]) -> None:
    whole = bytearray(disks["vhd"].read_bytes())
    whole[-100] ^= 1
    with Image.open(bytes(whole)) as image:
        assert image.read_at(0, SIZE) == raw
        assert any(problem.message == "its checksum is wrong" for problem in image.problems)


def test_one_vhdx_header_is_enough(raw: bytes, disks: dict[str, Path]) -> None:
    whole = bytearray(disks["vhdx"].read_bytes())
    for place in (0x10010, 0x30010):
        whole[place] ^= 1
    with Image.open(bytes(whole)) as image:
        assert image.read_at(0, SIZE) == raw
        assert [problem.structure for problem in image.problems[-2:]] == ["VHDX header", "VHDX region table"]
    for place in (0x20010, 0x40010):
        whole[place] ^= 1
    with pytest.raises(CorruptImage, match="both"):
        Image.open(bytes(whole))


def _with_entries(disk: bytearray, table: int, count: int) -> bytes:
    """With another number of entries in the region table that begins at `table`, and its check sum."""
    disk[table + 8 : table + 12] = count.to_bytes(4, "little")
    disk[table + 4 : table + 8] = bytes(4)
    disk[table + 4 : table + 8] = crc32c(bytes(disk[table : table + 0x10000])).to_bytes(4, "little")
    return bytes(disk)


def test_vhdx_tables_with_more_entries_than_they_have_room_for(raw: bytes, disks: dict[str, Path]) -> None:
    whole = bytearray(disks["vhdx"].read_bytes())
    with Image.open(_with_entries(whole, 0x30000, 2047)) as image:
        assert image.read_at(0, SIZE) == raw
        assert not [problem for problem in image.problems if problem.structure.startswith("VHDX")]
    with Image.open(_with_entries(whole, 0x30000, 2048)) as image:
        assert image.read_at(0, SIZE) == raw
        assert "2048 entries, and there is room for 2047" in str(image.problems)
    with pytest.raises(CorruptImage, match="both region tables"):
        Image.open(_with_entries(whole, 0x40000, 2048))
    whole = bytearray(disks["vhdx"].read_bytes())
    at = whole.index(b"metadata")
    whole[at + 10 : at + 12] = (2048).to_bytes(2, "little")
    with pytest.raises(CorruptImage, match="2048 entries, and there is room for 2047"):
        Image.open(bytes(whole))


def test_a_first_table_of_qcow2_is_read_up_to_the_most() -> None:
    disk = bytearray(qcow2_disk(b"data" * 4096))
    for entries in (1 << 22, (1 << 22) + 1):
        disk[36:40] = entries.to_bytes(4, "big")
        if entries == 1 << 22:
            with Image.open(bytes(disk)) as image:
                assert image.read_at(0, 8) == b"data" * 2
        else:
            with pytest.raises(CorruptImage, match=f"{entries} entries, more than the {1 << 22} that QEMU allows"):
                Image.open(bytes(disk))


def test_grain_tables_of_vmdk_are_read_up_to_the_most() -> None:
    disk = bytearray(vmdk_disk(b"data" * 4096))
    for sectors in ((1 << 22) * 512 * 8, (1 << 22) * 512 * 8 + 1):
        disk[12:20] = sectors.to_bytes(8, "little")
        if sectors % 2 == 0:
            with Image.open(bytes(disk)) as image:
                assert (image.size, image.read_at(0, 8)) == (sectors * 512, b"data" * 2)
        else:
            with pytest.raises(CorruptImage, match=f"need more than {1 << 22} grain tables"):
                Image.open(bytes(disk))


def test_blocks_of_vhd_are_read_up_to_the_most() -> None:
    whole = vhd_disk(b"data" * 4096)
    for size in ((1 << 22) * 4096, (1 << 22) * 4096 + 512):
        disk = bytearray(whole)
        disk[512 + 28 : 512 + 32] = ((1 << 22) + 1).to_bytes(4, "big")
        header = disk[512:1536]
        header[36:40] = bytes(4)
        disk[512 + 36 : 512 + 40] = (~sum(header) & 0xFFFFFFFF).to_bytes(4, "big")
        for at in (0, len(disk) - 512):
            disk[at + 48 : at + 56] = size.to_bytes(8, "big")
            disk[at + 64 : at + 68] = bytes(4)
            disk[at + 64 : at + 68] = (~sum(disk[at : at + 512]) & 0xFFFFFFFF).to_bytes(4, "big")
        if size == (1 << 22) * 4096:
            with Image.open(bytes(disk)) as image:
                assert (image.size, image.read_at(0, 8)) == (size, b"data" * 2)
        else:
            with pytest.raises(CorruptImage, match=f"{size} bytes are more than {1 << 22} blocks"):
                Image.open(bytes(disk))


def test_crc32c_is_that_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def test_a_compressed_cluster_is_decoded_once(disks: dict[str, Path]) -> None:
    with Image.open(disks["qcow2 zstd"]) as image:
        disk = image.disk
        assert isinstance(disk, MappedDisk)
        stored = [at for at in range(0, SIZE, 1 << 16) if disk.skip_zeros(at, at + 1) == at]
        for first, second in pairwise(stored[:20]):
            disk.read_at(first, 512)
            disk.read_at(second, 1 << 16)
            disk.read_at(first + 1000, 512)
        assert disk.clusters_decoded <= 20


@pytest.mark.parametrize("count", [1, 4096, 4097, 5000])
def test_every_extent_of_a_descriptor_is_part_of_the_disk(count: int, tmp_path: Path) -> None:
    content = b"".join(number.to_bytes(4, "big") * 128 for number in range(count))
    lines = "".join(f'RW 1 FLAT "disk-flat.vmdk" {number}\n' for number in range(count))
    (tmp_path / "disk-flat.vmdk").write_bytes(content)
    (tmp_path / "disk.vmdk").write_text(
        f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="custom"\n{lines}'
    )
    with Image.open(tmp_path / "disk.vmdk") as image:
        assert image.size == len(content)
        assert image.read_at(0, image.size) == content


def test_more_extents_than_are_read_are_an_error() -> None:
    text = "# Disk DescriptorFile\nparentCID=ffffffff\n" + 'RW 1 FLAT "f" 0\n' * ((1 << 16) + 1)
    with pytest.raises(CorruptImage, match="65537 extents"):
        parse_descriptor(text.encode())


def test_as_many_extents_as_are_read() -> None:
    text = "# Disk DescriptorFile\nparentCID=ffffffff\n" + 'RW 1 FLAT "f" 0\n' * (1 << 16)
    assert len(parse_descriptor(text.encode()).extents) == 1 << 16


@pytest.mark.parametrize("behind", ["", "\0" * 512])
def test_a_descriptor_is_read_up_to_its_largest_size(behind: str, tmp_path: Path) -> None:
    """What is behind the first MiB counts, too; one byte more than is read is an error that says so."""
    most = 1 << 24
    (tmp_path / "f").write_bytes(b"1" * 512 + b"2" * 512)
    head, tail = '# Disk DescriptorFile\nRW 1 FLAT "f" 0\n', 'RW 1 FLAT "f" 1\n'
    for size in (1 << 20, most - 1, most):
        text = head + "#" * (size - len(head) - len(tail) - 1) + "\n" + tail
        (tmp_path / "disk.vmdk").write_text(text + behind * (size < most))
        with Image.open(tmp_path / "disk.vmdk") as image:
            assert image.read_at(0, image.size) == b"1" * 512 + b"2" * 512
    (tmp_path / "disk.vmdk").write_text(head + "#" * (most - len(head) - len(tail)) + "\n" + tail + behind)
    with pytest.raises(CorruptImage, match=f"more than the {most} bytes"):
        Image.open(tmp_path / "disk.vmdk")


@pytest.mark.parametrize(
    "line",
    [
        "RW",
        'RW 1 "f" 0',
        'RW x FLAT "f" 0',
        'RW -1 FLAT "f" 0',
        'RW 1 FLAT "f" -1',
        'RW 1 FLAT "f 0',
        'RW 1 FLAT "f" 0 9',
        'rw 1 FLAT "f" 0',
        f'RW {10**18} FLAT "f" 0',
        f'RW 1 FLAT "f" {10**18}',
        "NOACCESS 1",
        "\tRW 1 FLAT f 0",
    ],
)
def test_no_line_about_an_extent_is_passed_over(line: str) -> None:
    descriptor = parse_descriptor(f"# Disk DescriptorFile\nRW 1 ZERO\n{line}\nRW 1 ZERO\n".encode())
    assert descriptor.unread == (line.strip(),)
    with pytest.raises(CorruptImage, match="a line about an extent can't be read"):
        join_extents(descriptor, LayerOptions())


def test_what_is_no_line_about_an_extent_is_passed_over() -> None:
    lines = (
        '# RW 1 FLAT "f" 0',
        "rw = 1",
        "RWX 1",
        "ddb.rw = 2",
        "text",
        'RW 1 FLAT "a\x85\u2028b" 0',
        "NOACCESS 7 ZERO",
    )
    descriptor = parse_descriptor("\r\n".join(("# Disk DescriptorFile", *lines)).encode())
    assert descriptor.unread == ()
    assert [extent.name for extent in descriptor.extents] == ["a\x85\u2028b", None]
    device = parse_descriptor(b'RW 16 FLAT "disk" 63 partitionUUID "one of them"')
    assert [(extent.sectors, extent.offset) for extent in device.extents] == [(16, 63)]


def test_text_behind_a_nul_is_an_error() -> None:
    head = b"# Disk DescriptorFile\nRW 1 ZERO\n"
    with Image.open(head + bytes(600)) as image:
        assert image.size == 512
    with pytest.raises(CorruptImage, match=f"behind a NUL at byte {len(head):#x}"):
        Image.open(head + bytes(600) + b"RW 1 ZERO\n")


def _with_embedded(disk: bytes, text: bytes, claimed: int | None = None) -> bytes:
    """A sparse extent with a descriptor behind its data."""
    at = -(-len(disk) // 512)
    size = -(-len(text) // 512) if claimed is None else claimed
    whole = bytearray(disk.ljust(at * 512, b"\0") + text)
    whole[28:44] = at.to_bytes(8, "little") + size.to_bytes(8, "little")
    return bytes(whole)


def test_what_an_extent_says_of_the_whole_disk() -> None:
    disk, content = vmdk_disk(b"data" * 4096), b"data" * 4096
    for text, claimed, message in (
        (b'RW 32 SPARSE "disk.vmdk"\nRW nonsense\n', None, None),
        (b'RW 32 SPARSE "a.vmdk"\nRW 8 SPARSE "b.vmdk"\n', None, "its 2 extents have 40 sectors, this one 32"),
        (b"#" * (1 << 24), None, None),
        (b"#" * (1 << 24) + b"#", None, f"only the first {1 << 24} bytes of it are read"),
        (b"# \0", 1 << 40, None),
    ):
        with Image.open(_with_embedded(disk, text, claimed)) as image:
            assert image.read_at(0, image.size) == content
            found = [p.message for p in image.problems if p.structure == "VMDK descriptor"]
            of_size = [each for each in found if "extents have" in each or "only the first" in each]
            assert of_size == ([] if message is None else [message])
            assert ("a line that can't be read, 'RW nonsense'" in found) == (b"nonsense" in text)


def test_a_grain_that_decodes_to_more_than_itself_is_an_error() -> None:
    """As QEMU has it, for which that is an input/output error."""
    packed, longer = zlib.compress(b"x" * 4096), zlib.compress(b"x" * 4097)
    disk = bytearray(vmdk_disk(b"x" * 4096, compressed=True))
    at = disk.index(packed)
    disk[at - 4 : at + len(longer)] = len(longer).to_bytes(4, "little") + longer
    with Image.open(bytes(disk)) as image, pytest.raises(CorruptImage, match="more than a grain"):
        image.read_at(0, 512)
    disk[at + len(longer) - 1] ^= 1  # its check sum
    with Image.open(bytes(disk)) as image, pytest.raises(CorruptImage, match="damaged"):
        image.read_at(0, 512)


@pytest.mark.parametrize(
    ("head", "name"), [(b"COWD\1\0\0\0", "COWD"), (0xCAFEBABE.to_bytes(8, "little") + b"\1\0\0\0\2", "seSparse")]
)
def test_sparse_extents_of_esx_are_named(head: bytes, name: str) -> None:
    with pytest.raises(CorruptImage, match=name):
        Image.open(head.ljust(65536, b"\0")).partitions.problems  # noqa: B018  # asked for, not used


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (-512, "the disk has 16384 bytes, of which 15872 are there"),
        (0, None),
        (512, "the disk has 16384 bytes; 512 more are before the footer"),
    ],
)
def test_a_fixed_vhd_says_what_is_not_of_its_size(more: int, told: str | None, tmp_path: Path) -> None:
    content, data = b"data" * 4096, vhd_disk(b"data" * 4096, fixed=True)
    path = tmp_path / "disk.vhd"
    path.write_bytes(data[: 16384 + min(more, 0)] + bytes(max(more, 0)) + data[16384:])
    with Image.open(path) as image:
        assert image.read_at(0, image.size) == content[: image.size]
        found = [problem.message for problem in image.problems if problem.structure == "VHD footer"]
        assert found == ([] if told is None else [told])
