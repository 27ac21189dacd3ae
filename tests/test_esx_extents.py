"""Sparse extents of ESX, COWD and seSparse: forged, and read as ``"qemu-img"`` and dissect.hypervisor read them."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import REPOSITORY, Counting, require_oracle, run
from tests.test_chains import qemu_io, read_by_qemu, read_whole, same
from tests.test_vmdk_chains import create, merged, own_by_qemu, setting
from vmvisor_image import CorruptImage, Image
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_vmdk import cowd_extent, sesparse_extent, vmdk_descriptor

HISTORIES = 60
GRAIN = 4096
KINDS = ("sesparse", "cowd")


def write_image(path: Path, image: SparseImage) -> None:
    with path.open("wb") as stream:
        for at, data in image.pieces:
            stream.seek(at)
            stream.write(data)
        stream.truncate(image.size)


@dataclass
class History:
    """A chain of random writes, discards and snapshots on a forged host; `content` is what the guest sees."""

    folder: Path
    seed: int
    content: bytearray = field(default_factory=bytearray)
    changed: dict[int, bool] = field(default_factory=dict)
    """Grains that were changed since the last snapshot, in this order: whether they are known to be zeros."""

    def __post_init__(self) -> None:
        self.chosen = random.Random(self.seed)
        self.content = bytearray(512 * self.chosen.choice([self.chosen.randrange(1, 3000), 16 * self.seed + 16]))

    def work(self, grain: int) -> None:
        """Writes and discards of the guest; a host copies whole grains from below."""
        size = len(self.content)
        self.changed = {}
        for _ in range(self.chosen.randrange(1, 9)):
            at = self.chosen.randrange(0, size, 512)
            length = min(512 * self.chosen.choice([1, 2, 8, 8, 40, 200]), size - at)
            is_discard = self.chosen.random() < 0.25
            if is_discard:
                at = at // grain * grain
                length = min(-(-length // grain) * grain, size - at)
            self.content[at : at + length] = bytes(length) if is_discard else self.chosen.randbytes(length)
            for number in range(at // grain, -(-(at + length) // grain)):
                self.changed.pop(number, None)
                self.changed[number] = is_discard

    def data(self, number: int, grain: int) -> bytes:
        return bytes(self.content[number * grain : (number + 1) * grain])

    def make_base(self) -> Path:
        path = self.folder / "vm.vmdk"
        self.work(512)
        (self.folder / "vm-flat.vmdk").write_bytes(self.content)
        path.write_bytes(vmdk_descriptor([f'RW {len(self.content) // 512} VMFS "vm-flat.vmdk"'], "vmfs"))
        return path

    def make_snapshot(self, number: int, below: Path) -> Path:
        path = self.folder / f"vm-{number:06}.vmdk"
        sectors = len(self.content) // 512
        is_cowd = self.chosen.random() < 0.4
        if is_cowd:
            size = self.chosen.choice([1, 1, 8, 128])
            self.work(512 * size)
            name, kind = f"vm-{number:06}-delta.vmdk", "vmfsSparse"
            grains = {n: self.data(n, 512 * size) for n in self.changed}
            extent = cowd_extent(grains, sectors, grain_sectors=size)
        else:
            self.work(GRAIN)
            name, kind = f"vm-{number:06}-sesparse.vmdk", "seSparse"
            extent = sesparse_extent(
                {n: None if is_zero else self.data(n, GRAIN) for n, is_zero in self.changed.items()}, sectors
            )
        write_image(self.folder / name, extent)
        lines = [f'RW {sectors} {kind.upper()} "{name}"']
        parent = (below.name, int(setting(below, "CID"), 16))
        path.write_bytes(vmdk_descriptor(lines, kind, content_id=0x1000 + number, parent=parent))
        return path

    def make(self) -> tuple[Path, int]:
        last, depth = self.make_base(), self.chosen.randrange(1, 6)
        for number in range(1, depth + 1):
            last = self.make_snapshot(number, last)
        return last, depth


def by_dissect(*paths: Path) -> list[list[object]]:
    found: list[list[object]] = json.loads(run(str(require_oracle()), REPOSITORY / "tests/dissect_vmdk.py", *paths))
    return found


@pytest.mark.parametrize("first", range(0, HISTORIES, 20))
def test_histories(first: int, tmp_path: Path) -> None:
    made: list[tuple[Path, bytes]] = []
    for seed in range(first, first + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        history = History(folder, seed)
        last, depth = history.make()
        content = bytes(history.content)
        assert same(read_whole(last), content), seed
        assert same(read_by_qemu(last, "vmdk"), content), seed
        with Image.open(last) as image:
            assert [link.kind for link in image.chain] == ["vmdk"] * (depth + 1)
            assert isinstance(image.disk, Linked)
            assert merged(image.disk.own_ranges()) == own_by_qemu(last), seed
        made.append((last, content))
    whole = [(path, content) for path, content in made if len(content) % 8192 == 0]  # others dissect can't read
    assert len(whole) >= 8
    expected = [[len(content), hashlib.sha256(content).hexdigest()] for _, content in whole]
    assert by_dissect(*(path for path, _ in whole)) == expected


def on_noise(tmp_path: Path, extent: SparseImage, sectors: int, kind: str = "seSparse") -> tuple[Path, bytes]:
    """A snapshot on a flat disk without zeros, and the bytes of the latter."""
    noise = bytes(1 + at % 255 for at in range(sectors * 512))
    (tmp_path / "base-flat.vmdk").write_bytes(noise)
    (tmp_path / "base.vmdk").write_bytes(vmdk_descriptor([f'RW {sectors} VMFS "base-flat.vmdk"'], "vmfs"))
    write_image(tmp_path / "top-extent.vmdk", extent)
    line = f'RW {sectors} {kind.upper()} "top-extent.vmdk"'
    path = tmp_path / "top.vmdk"
    path.write_bytes(vmdk_descriptor([line], kind, content_id=1, parent=("base.vmdk", 0x1234ABCD)))
    return path, noise


def test_places_of_more_than_12_bits(tmp_path: Path) -> None:
    """The upper bits of a grain's number are below the lower ones; grains in a row pass from one to the other."""
    grains = {number: bytes([number % 251 + 1]) * GRAIN for number in (*range(64), 300, 301)}
    path, noise = on_noise(tmp_path, sesparse_extent(grains, 8 * 400, first_place=0x2FF0), 8 * 400)
    expected = bytearray(noise)
    for number, data in grains.items():
        expected[number * GRAIN : (number + 1) * GRAIN] = data
    assert same(read_whole(path), bytes(expected))
    assert same(read_by_qemu(path, "vmdk"), bytes(expected))
    assert by_dissect(path) == [[len(expected), hashlib.sha256(expected).hexdigest()]]


def test_unmapped_grains_are_zeros_and_it_says_so(tmp_path: Path) -> None:
    """As QEMU reads them; dissect.hypervisor reads the parent there."""
    path, noise = on_noise(tmp_path, sesparse_extent({3: b"x" * GRAIN}, 80, unmapped=[1, 2, 8]), 80)
    with Image.open(path) as image:
        found = image.read_at(0, image.size)
        [problem] = image.known_problems
        assert "a grain was unmapped by the guest" in str(problem)
    assert same(found, read_by_qemu(path, "vmdk"))
    assert found[:GRAIN] + found[4 * GRAIN :][: 4 * GRAIN] == noise[:GRAIN] + noise[4 * GRAIN :][: 4 * GRAIN]
    assert not any(found[GRAIN : 3 * GRAIN] + found[8 * GRAIN : 9 * GRAIN])


def test_a_journal_that_was_not_replayed_is_a_problem(tmp_path: Path) -> None:
    """QEMU refuses the disk."""
    path, noise = on_noise(tmp_path, sesparse_extent({1: b"x" * GRAIN}, 80, replay_journal=1), 80)
    with Image.open(path) as image:
        assert image.read_at(0, image.size) == noise[:GRAIN] + b"x" * GRAIN + noise[2 * GRAIN :]
        assert "journal was to be replayed, which is not done" in str(image.known_problems)
    with pytest.raises(pytest.fail.Exception, match="journal"):
        read_by_qemu(path, "vmdk")


@pytest.mark.parametrize("kind", KINDS)
def test_an_extent_of_several(kind: str, tmp_path: Path) -> None:
    """Each has its own part of the parent below it, and the extents may be of different kinds."""
    for part in range(2):
        make = sesparse_extent if (kind == "sesparse") == (not part) else cowd_extent
        write_image(tmp_path / f"x{part}", make({part + 1: bytes([65 + part]) * 512}, 8 * 128))
    lines = ['RW 1024 SESPARSE "x0"', 'RW 1024 VMFSSPARSE "x1"']
    if kind == "cowd":
        lines = ['RW 1024 VMFSSPARSE "x0"', 'RW 1024 SESPARSE "x1"']
    create(tmp_path / "base.vmdk", "monolithicSparse", 2048 * 512)
    qemu_io(tmp_path / "base.vmdk", "vmdk", "write -P 3 0 1M")
    parent = ("base.vmdk", int(setting(tmp_path / "base.vmdk", "CID"), 16))
    (tmp_path / "top.vmdk").write_bytes(vmdk_descriptor(lines, "seSparse", parent=parent))
    whole = read_whole(tmp_path / "top.vmdk")
    assert same(whole, read_by_qemu(tmp_path / "top.vmdk", "vmdk"))
    assert {b"A" * 512, b"B" * 512, b"\3" * 512} <= {whole[at : at + 512] for at in range(0, len(whole), 512)}


def test_another_kind_than_the_descriptor_says(tmp_path: Path) -> None:
    path, _ = on_noise(tmp_path, cowd_extent({1: b"x"}, 80), 80)
    with Image.open(path) as image:
        assert image.read_at(512, 1) == b"x"
        assert "'top-extent.vmdk' is SESPARSE by it, and VMFSSPARSE by its own header" in str(image.known_problems)


class TestWithoutItsDescriptor:
    @pytest.mark.parametrize("kind", KINDS)
    def test_its_holes_are_zeros_and_it_says_so(self, kind: str, tmp_path: Path) -> None:
        make = sesparse_extent if kind == "sesparse" else cowd_extent
        extent = make({1: b"x" * 512}, 80)
        write_image(tmp_path / "vm-000001-delta.vmdk", extent)
        size = GRAIN if kind == "sesparse" else 512
        with Image.open(tmp_path / "vm-000001-delta.vmdk") as image:
            assert image.read_at(0, image.size) == (bytes(size) + b"x" * 512).ljust(80 * 512, b"\0")
            assert [layer.kind for layer in image.layers] == [kind]
            [problem] = image.known_problems
            assert "read without its descriptor" in str(problem)
        with Image.open(tmp_path / "vm-000001-delta.vmdk", parent=b"p" * 80 * 512) as image:
            assert image.read_at(0, size + 512) == b"p" * size + b"x" * 512
            assert image.known_problems == ()

    def test_of_a_hosted_product(self, tmp_path: Path) -> None:
        create(tmp_path / "a.vmdk", "twoGbMaxExtentSparse", 65_536)
        with Image.open(tmp_path / "a-s001.vmdk") as image:
            assert "read without its descriptor" in str(image.known_problems)


class TestDamage:
    @pytest.mark.parametrize(
        ("at", "value", "message"),
        [
            (8, 0x2_0000_0002, "version 2.2 is not known"),
            (16, 1 << 40, "more than the directory has"),
            (24, 16, "16 sectors, not 8"),
            (32, 8, "8 sectors, not 64"),
            (40, 1, "0x1, which are not known"),
            (144, 0, "the grain tables would begin in the header"),
        ],
    )
    def test_of_an_sesparse_header(self, at: int, value: int, message: str) -> None:
        data = _changed(sesparse_extent({1: b"x"}, 80), at, value.to_bytes(8, "little"))
        with pytest.raises(CorruptImage, match=message):
            Image.open(data)

    @pytest.mark.parametrize(
        ("at", "value", "message"),
        [
            (4, 2, "version 2 is not known"),
            (12, 1 << 31, "1, which are too few for 2147483648"),
            (16, 0, "0 sectors are not a valid grain size"),
            (16, (1 << 14) + 1, "16385 sectors are not"),
        ],
    )
    def test_of_a_cowd_header(self, at: int, value: int, message: str) -> None:
        data = _changed(cowd_extent({1: b"x"}, 80), at, value.to_bytes(4, "little"))
        with pytest.raises(CorruptImage, match=message):
            Image.open(data)

    @pytest.mark.parametrize("entry", [0x2000_0000 << 32, 0x1000_0000 << 32 | 1, 5])
    def test_of_a_directory_entry(self, entry: int) -> None:
        data = _changed(sesparse_extent({1: b"x"}, 80), 8 * 512, entry.to_bytes(8, "little"))
        with (
            Image.open(data) as image,
            pytest.raises(CorruptImage, match=r"grain directory.*not an entry"),
        ):
            image.read_at(0, 1)

    @pytest.mark.parametrize("entry", [4 << 60, 15 << 60, 7])
    def test_of_a_table_entry_costs_its_own_grain(self, entry: int) -> None:
        made = sesparse_extent({0: b"a" * GRAIN, 1: b"b" * GRAIN, 2: b"c" * GRAIN}, 80)
        data = _changed(made, 9 * 512 + 8, entry.to_bytes(8, "little"))
        with Image.open(data) as image:
            with pytest.raises(CorruptImage, match=f"grain table.*{entry:#x}"):
                image.read_at(GRAIN, 1)
            assert image.read_at(0, GRAIN) + image.read_at(2 * GRAIN, GRAIN) == b"a" * GRAIN + b"c" * GRAIN

    def test_a_volatile_header_that_is_not_there(self) -> None:
        with Image.open(_changed(sesparse_extent({1: b"x"}, 80), 512, bytes(8))) as image:
            assert "whether the journal is needed is unknown" in str(image.known_problems)

    def test_a_cowd_in_use(self) -> None:
        with Image.open(_changed(cowd_extent({1: b"x"}, 80), 1648, b"\1")) as image:
            assert "the disk was in use" in str(image.known_problems)


def _changed(image: SparseImage, at: int, value: bytes) -> bytes:
    data = bytearray(image.read_at(0, image.size))
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_two_terabytes_cost_what_is_read_of_them(kind: str) -> None:
    """Tables are read where they are needed, and holes of any size are passed over by the directory."""
    sectors = (2 << 40) // 512 - 8
    make = sesparse_extent if kind == "sesparse" else cowd_extent
    size = GRAIN if kind == "sesparse" else 512
    last = sectors * 512 // size - 1
    top = Counting(make({0: b"a" * size, last: b"z" * size}, sectors))
    [layer] = open_disk(top, "x", LayerOptions(), top.read_at(0, 512))
    assert sum(length for _, length in top.reads) <= 8192
    disk = layer.source
    assert disk.read_at(disk.size - size, size) == b"z" * size
    assert disk.read_at(1 << 40, 1 << 20) == bytes(1 << 20)
    assert sum(length for _, length in top.reads) < 256 << 10
    assert disk.skip_zeros(size, disk.size) == last * size
    assert isinstance(disk, Linked)
    assert merged(disk.own_ranges()) == [(0, size), (last * size, size)]
    assert sum(length for _, length in top.reads) < 16 << 20  # the directory, at most twice


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_read_in_the_parent_alone(kind: str, tmp_path: Path) -> None:
    make = sesparse_extent if kind == "sesparse" else cowd_extent
    name = "seSparse" if kind == "sesparse" else "vmfsSparse"
    path, noise = on_noise(tmp_path, make({1: b"x"}, 8 * 200), 8 * 200, name)
    sources = {each.name: Counting(BytesSource(each.read_bytes())) for each in tmp_path.iterdir()}
    [layer] = open_disk(sources["top.vmdk"], "top.vmdk", LayerOptions(neighbour=sources.__getitem__), path.read_bytes())
    layer.source.read_at(0, 512)
    for source in sources.values():
        source.reads.clear()
    assert layer.source.read_at(40 * GRAIN, 20 * GRAIN) == noise[40 * GRAIN : 60 * GRAIN]
    assert {name: len(source.reads) for name, source in sources.items() if source.reads} == {"base-flat.vmdk": 1}
