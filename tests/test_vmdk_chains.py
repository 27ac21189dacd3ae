"""VMDKs that rest on each other: chains that qemu-img makes, read as it reads them."""

from __future__ import annotations

import json
import random
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import Counting, run
from tests.test_chains import letters, qemu_io, read_by_qemu, read_whole, same
from vmvisor_image import CorruptImage, Image, InvalidArgument, MemberNotFound, UnsafeName
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import Content, vmfs_volume

KIB = 1 << 10
GRAIN = 64 * KIB
HISTORIES = 60
FLAT = ("monolithicFlat", "twoGbMaxExtentFlat")
SPARSE = ("monolithicSparse", "twoGbMaxExtentSparse")


def create(path: Path, subformat: str, size: int, *, below: str | None = None, zeroed_grain: bool = False) -> None:
    """Make a VMDK whose parent, if any, lies beside it and need not be named with a path."""
    options = f"subformat={subformat}" + (",zeroed_grain=on" if zeroed_grain else "")
    under = () if below is None else ("-b", path.with_name(below), "-F", "vmdk")
    run("qemu-img", "create", "-f", "vmdk", "-o", options, *under, path, str(size))


def setting(path: Path, name: str) -> str:
    """A word of the descriptor; QEMU writes content ids without leading zeros."""
    match = re.search(rb"^%b=(\w+)" % name.encode(), path.read_bytes(), re.MULTILINE)
    assert match is not None
    return match.group(1).decode()


def change(path: Path, old: str, new: str) -> None:
    """Change text in a descriptor, also in one within a sparse extent, where zeros after it fill its sectors."""
    data = path.read_bytes()
    assert data.count(old.encode()) == 1
    changed = data.replace(old.encode(), new.encode())
    if data.startswith(b"KDMV"):
        longer = len(new) - len(old)
        at = changed.index(b"\0", changed.index(b"# Disk DescriptorFile"))
        assert not any(changed[at : at + max(longer, 0)])
        changed = changed[:at] + bytes(max(-longer, 0)) + changed[at + max(longer, 0) :]
    path.write_bytes(changed)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begin, length in ranges:
        if found and sum(found[-1]) == begin:
            begin, length = found[-1][0], found.pop()[1] + length  # noqa: PLW2901  # joined with the one before
        found.append((begin, length))
    return found


def own_by_qemu(path: Path) -> list[tuple[int, int]]:
    rows = json.loads(run("qemu-img", "map", "-f", "vmdk", "--output", "json", path))
    return merged((row["start"], row["length"]) for row in rows if not row["depth"] and row["present"])


@dataclass
class History:
    """A chain of random writes to VMDKs."""

    folder: Path
    seed: int

    def __post_init__(self) -> None:
        self.chosen = random.Random(self.seed)

    def write(self, path: Path, size: int) -> None:
        found = []
        for _ in range(self.chosen.randrange(1, 7)):
            unit = self.chosen.choice([512, 4096, GRAIN, GRAIN])
            at = self.chosen.randrange(0, size, unit)
            length = min(unit * self.chosen.choice([1, 1, 2, 3, 9]), size - at)
            ways = [f"write -P {self.chosen.randrange(1, 256)}"] * 4 + ["write -z", "write -z -u", "discard"]
            found.append(f"{self.chosen.choice(ways)} {at} {length}")
        qemu_io(path, "vmdk", *found)

    def make_link(self, number: int, below: Path | None) -> Path:
        path = self.folder / f"{number}.vmdk"
        size = 512 * self.chosen.randrange(1, 3000)
        way = self.chosen.random()
        zeroed = self.chosen.random() < 0.6
        if below is None and way < 0.2:
            raw = self.folder / "raw"
            raw.write_bytes(self.chosen.randbytes(size // 3).ljust(size, b"\0"))
            run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
            return path
        if way < 0.4:
            self.join(path, below, zeroed_grain=zeroed)
            size = sum(512 * int(sectors) for sectors in re.findall(r"RW (\d+)", path.read_text()))
        else:
            formats = SPARSE if below is not None or way < 0.7 else FLAT
            create(
                path,
                self.chosen.choice(formats),
                size,
                below=None if below is None else below.name,
                zeroed_grain=zeroed and formats is SPARSE,
            )
        self.write(path, size)
        return path

    def join(self, path: Path, below: Path | None, *, zeroed_grain: bool) -> None:
        """A disk of several extents, of which some may be flat; QEMU itself makes these for 2 GB and more only.

        All but the last have whole grains: where one ends within a grain, QEMU reads the rest of that grain instead of
        the next extent.
        """
        lines = []
        parts = self.chosen.randrange(2, 5)
        for part in range(parts):
            name = f"{path.stem}-x{part}"
            sectors = self.chosen.choice([128, 256, 384, 1024]) - self.chosen.choice([0, 1, 27]) * (part == parts - 1)
            if self.chosen.random() < 0.3:
                (self.folder / name).write_bytes(bytes(512 * sectors + 1024))
                lines.append(f'RW {sectors} FLAT "{name}" 2')
                continue
            create(self.folder / f"{name}.vmdk", "twoGbMaxExtentSparse", 512 * sectors, zeroed_grain=zeroed_grain)
            lines.append(f'RW {sectors} SPARSE "{name}-s001.vmdk"')
        path.write_text(descriptor(lines, below))

    def make(self) -> tuple[Path, int]:
        """The last disk, and the number of disks."""
        below = None
        depth = self.chosen.randrange(1, 6)
        for number in range(depth):
            below = self.make_link(number, below)
        assert below is not None
        return below, depth


def descriptor(extents: list[str], below: Path | None, create_type: str = "twoGbMaxExtentSparse") -> str:
    """A descriptor without empty lines, behind which QEMU finds an extent twice."""
    lines = ["# Disk DescriptorFile", "version=1", "CID=1234abcd"]
    lines.append(f"parentCID={'ffffffff' if below is None else setting(below, 'CID')}")
    lines.append(f'createType="{create_type}"')
    if below is not None:
        lines.append(f'parentFileNameHint="{below}"')
    return "\n".join((*lines, "# Extents", *extents, 'ddb.adapterType = "ide"', ""))


@pytest.mark.parametrize("first", range(0, HISTORIES, 10))
def test_histories(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        last, depth = History(folder, seed).make()
        assert same(read_whole(last), read_by_qemu(last, "vmdk")), seed
        with Image.open(last) as image:
            assert [(link.kind, link.name) for link in image.chain] == [
                ("vmdk", f"{number}.vmdk") for number in reversed(range(depth))
            ]
            assert isinstance(image.disk, Linked)
            assert merged(image.disk.own_ranges()) == own_by_qemu(last), seed
        shutil.rmtree(folder)


@pytest.fixture(params=["monolithicSparse", "twoGbMaxExtentSparse", "mixed"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Three disks, ``c.vmdk`` on ``b.vmdk`` on ``a.vmdk``, in which a letter says where each grain comes from."""
    base, delta = ("monolithicFlat", "monolithicSparse") if request.param == "mixed" else (request.param,) * 2
    create(tmp_path / "a.vmdk", base, 6 * GRAIN)
    qemu_io(tmp_path / "a.vmdk", "vmdk", f"write -P {ord('a')} 0 256k")
    create(tmp_path / "b.vmdk", delta, 6 * GRAIN, below="a.vmdk")
    qemu_io(tmp_path / "b.vmdk", "vmdk", f"write -P {ord('b')} 64k 128k")
    create(tmp_path / "c.vmdk", delta, 8 * GRAIN, below="b.vmdk", zeroed_grain=True)
    qemu_io(tmp_path / "c.vmdk", "vmdk", f"write -P {ord('c')} 128k 64k", "write -z -u 0 64k")
    return tmp_path / "c.vmdk"


WHOLE = ".bca...."


def grains(data: bytes) -> str:
    return letters(data)[::16]


def read(path: Path, **options: object) -> str:
    with Image.open(path, **options) as image:  # type: ignore[arg-type]
        return grains(image.read_at(0, image.size))


class TestFoundByItself:
    def test_the_chain(self, chain: Path) -> None:
        with Image.open(chain) as image:
            assert grains(image.read_at(0, image.size)) == WHOLE
            assert image.known_problems == ()
            assert [(link.kind, link.name, link.size) for link in image.chain] == [
                ("vmdk", "c.vmdk", 8 * GRAIN),
                ("vmdk", "b.vmdk", 6 * GRAIN),
                ("vmdk", "a.vmdk", 6 * GRAIN),
            ]
            assert [link.own_bytes // GRAIN for link in image.chain][:2] == [2, 2]
            assert image.skip_zeros(0, image.size) == GRAIN
            assert image.skip_zeros(6 * GRAIN, image.size) == image.size

    def test_a_hole_is_read_in_its_own_disk_alone(self, chain: Path) -> None:
        sources = {path.name: Counting(BytesSource(path.read_bytes())) for path in chain.parent.iterdir()}
        top = sources["c.vmdk"]
        [layer] = open_disk(top, "c.vmdk", LayerOptions(neighbour=sources.__getitem__), top.read_at(0, 512))
        layer.source.read_at(0, 8 * GRAIN)
        for at, letter in enumerate("cba"):
            for source in sources.values():
                source.reads.clear()
            assert grains(layer.source.read_at((2, 1, 3)[at] * GRAIN, GRAIN)) == letter
            assert {name[0]: source.reads for name, source in sources.items() if source.reads}.keys() == {letter}
            assert sum(len(source.reads) for source in sources.values()) == 1
        for source in sources.values():
            source.reads.clear()
        assert not any(layer.source.read_at(0, GRAIN) + layer.source.read_at(6 * GRAIN, 2 * GRAIN))
        assert not any(source.reads for source in sources.values())

    def test_in_an_archive(self, chain: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "disks.tar", "w") as archive:
            for path in sorted(tmp_path.glob("*.vmdk")):
                archive.add(path, f"vm/{path.name}")
        with Image.open(tmp_path / "disks.tar", member="vm/c.vmdk") as image:
            assert grains(image.read_at(0, image.size)) == WHOLE
            assert [link.name for link in image.chain] == ["vm/c.vmdk", "b.vmdk", "a.vmdk"]

    def test_in_a_datastore(self, chain: Path) -> None:
        tree: dict[str, Content] = {f"vm/{path.name}": path.read_bytes() for path in chain.parent.glob("*.vmdk")}
        (volume,) = vmfs_volume(tree, "vmfs5", size=EXTENT_SIZE + DATA_OFFSET)
        with Image.open(volume) as host, host.partitions[1].files["vm/c.vmdk"].open_image() as image:
            assert grains(image.read_at(0, image.size)) == WHOLE
            assert [link.name for link in image.chain][1:] == ["b.vmdk", "a.vmdk"]

    def test_behind_a_url(self, chain: Path) -> None:
        memory = pytest.importorskip("fsspec").filesystem("memory")
        for path in chain.parent.glob("*.vmdk"):
            memory.pipe_file(f"/vmdk-chains/{path.name}", path.read_bytes())
        assert read("memory://vmdk-chains/c.vmdk") == WHOLE  # type: ignore[arg-type]

    def test_a_name_of_another_directory(self, chain: Path, tmp_path: Path) -> None:
        """Each disk has the whole path of its parent; only the last part of it counts."""
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        for path in tmp_path.glob("*.vmdk"):
            path.rename(moved / path.name)
        assert read(moved / "c.vmdk") == WHOLE
        (moved / "b.vmdk").rename(tmp_path / "b.vmdk")
        with pytest.raises(CorruptImage, match=r"'b\.vmdk', which was looked for beside it .*its path is '/"):
            Image.open(moved / "c.vmdk")

    def test_a_loop(self, chain: Path) -> None:
        change(chain.with_name("b.vmdk"), str(chain.with_name("a.vmdk")), str(chain))
        with pytest.raises(CorruptImage, match=r"loop, 'c\.vmdk' on 'b\.vmdk' on 'c\.vmdk'"):
            Image.open(chain)

    @pytest.mark.parametrize("name", ["..", "x/", "nbd:b"])
    def test_a_name_of_no_file(self, chain: Path, name: str) -> None:
        change(chain, str(chain.with_name("b.vmdk")), name)
        with pytest.raises(UnsafeName, match="does not name a file"):
            Image.open(chain)

    def test_a_parent_of_another_format(self, chain: Path) -> None:
        chain.with_name("b.vmdk").write_bytes(bytes(GRAIN))
        with pytest.raises(CorruptImage, match="of another format"):
            Image.open(chain)
        with Image.open(chain, parent=chain.with_name("b.vmdk")) as image:
            assert grains(image.read_at(0, image.size)) == "..c....."


@pytest.mark.parametrize(
    ("encoding", "codec", "name"),
    [
        ("windows-1252", "cp1252", "Gerät"),
        ("Big5", "big5", "機器"),
        ("GBK", "gbk", "机器"),
        ("Shift_JIS", "shift_jis", "表"),  # its last byte is that of a backslash
        ("UTF-8", "utf-8", "Gerät 機"),
        ("unknown", "utf-8", "é"),
    ],
)
def test_names_are_in_the_encoding_of_the_descriptor(encoding: str, codec: str, name: str, tmp_path: Path) -> None:
    for path, extent in ((f"{name}.vmdk", f"{name}-flat.vmdk"), ("top.vmdk", "top-flat.vmdk")):
        text = descriptor([f'RW 1 FLAT "{extent}" 0'], None).replace("version=1", f'version=1\nencoding="{encoding}"')
        if path == "top.vmdk":
            hint = f'parentCID=1234abcd\nparentFileNameHint="{name}.vmdk"'
            text = text.replace("parentCID=ffffffff", hint)
        (tmp_path / path).write_bytes(text.encode(codec))
        (tmp_path / extent).write_bytes(path.encode().ljust(512))
    with Image.open(tmp_path / "top.vmdk") as image:
        assert [link.name for link in image.chain] == ["top.vmdk", f"{name}.vmdk"]
        assert image.chain[1].source.read_at(0, 512) == f"{name}.vmdk".encode().ljust(512)
        assert image.known_problems == ()


class TestContentIds:
    def test_a_parent_that_was_written_since(self, chain: Path) -> None:
        """QEMU refuses to read what the child does not hold."""
        below = chain.with_name("b.vmdk")
        wanted = setting(below, "CID")
        qemu_io(below, "vmdk", "write -P 120 320k 64k")
        there = setting(below, "CID")
        with pytest.raises(CorruptImage, match=f"(?s)(?=.*{wanted})(?=.*{there})") as caught:
            Image.open(chain)
        assert "allow_cid_mismatch" in str(caught.value)
        with Image.open(chain, allow_cid_mismatch=True) as image:
            assert grains(image.read_at(0, image.size)) == ".bca.x.."
            [problem] = image.known_problems
            assert wanted in problem.message
            assert there in problem.message
        with pytest.raises(CorruptImage):
            Image.open(chain, parent=below)
        assert read(chain, parent=below, allow_cid_mismatch=True) == ".bca.x.."

    def test_case_and_leading_zeros_do_not_matter(self, chain: Path) -> None:
        below = chain.with_name("b.vmdk")
        old, wanted = setting(below, "CID"), setting(chain, "parentCID")
        change(below, f"\nCID={old}", "\nCID=bc0")
        change(chain, f"parentCID={wanted}", "parentCID=00BC0")
        assert read(chain) == WHOLE

    def test_a_parent_without_a_name(self, chain: Path) -> None:
        cid = setting(chain, "parentCID")
        change(chain, f'parentFileNameHint="{chain.with_name("b.vmdk")}"\n', "")
        with pytest.raises(CorruptImage, match=f"CID is {int(cid, 16):08x}, and does not name its file"):
            Image.open(chain)
        assert read(chain, parent=chain.with_name("b.vmdk")) == WHOLE
        assert read(chain, parent=None) == "..c....."
        with pytest.raises(CorruptImage, match=cid):
            Image.open(chain, parent=chain.with_name("a.vmdk"))

    def test_a_name_and_no_parent(self, chain: Path) -> None:
        change(chain, f"parentCID={setting(chain, 'parentCID')}", "parentCID=ffffffff")
        with Image.open(chain) as image:
            assert grains(image.read_at(0, image.size)) == "..c....."
            assert "parentCID says that it has none" in str(image.known_problems)
            assert len(image.chain) == 1

    def test_a_name_and_no_content_id(self, chain: Path) -> None:
        change(chain, f"parentCID={setting(chain, 'parentCID')}\n", "")
        with Image.open(chain) as image:
            assert grains(image.read_at(0, image.size)) == WHOLE
            assert "it has no parentCID" in str(image.known_problems)


class TestGivenOrLeftOut:
    def test_alone(self, chain: Path) -> None:
        with Image.open(chain, parent=None) as image:
            assert grains(image.read_at(0, image.size)) == "..c....."
            [problem] = image.known_problems
            assert "read without its parent" in str(problem)
            assert len(image.chain) == 1

    def test_given(self, chain: Path) -> None:
        with Image.open(chain.with_name("b.vmdk")) as image:
            raw = image.read_at(0, image.size)
        assert read(chain, parent=raw) == WHOLE
        assert read(chain, parent=chain.with_name("b.vmdk")) == WHOLE

    def test_given_to_a_disk_without_any(self, chain: Path) -> None:
        with pytest.raises(InvalidArgument, match="does not rest on another one"):
            Image.open(chain.with_name("a.vmdk"), parent=chain)

    def test_no_snapshot_is_in_a_file(self, chain: Path) -> None:
        with pytest.raises(MemberNotFound, match="VMDK has none inside a file"):
            Image.open(chain, snapshot="x")

    def test_problems_of_the_parent_name_it(self, chain: Path) -> None:
        below = chain.with_name("b.vmdk")
        change(below, "version=1", "qersion=1")
        with Image.open(chain) as image:
            assert "in the parent 'b.vmdk': " in str(image.known_problems[0])


def test_a_qcow2_may_rest_on_a_chain(chain: Path) -> None:
    top = chain.with_name("d.qcow2")
    run("qemu-img", "create", "-f", "qcow2", "-b", "c.vmdk", "-F", "vmdk", top)
    assert same(read_whole(top), read_by_qemu(top, "qcow2"))
    with Image.open(top) as image:
        assert [link.kind for link in image.chain] == ["qcow2", "vmdk", "vmdk", "vmdk"]


def test_extents_may_end_within_a_grain(tmp_path: Path) -> None:
    """Each is what QEMU reads of it alone."""
    chosen = random.Random(5)
    base = tmp_path / "base.vmdk"
    create(base, "monolithicFlat", 8 * GRAIN)
    qemu_io(base, "vmdk", "write -P 98 0 512k")
    lines, expected = [], b""
    for part, sectors in enumerate((200, 1, 130, 300)):
        path = tmp_path / f"x{part}.vmdk"
        create(path, "twoGbMaxExtentSparse", 512 * sectors)
        qemu_io(path, "vmdk", f"write -P {part + 1} {512 * chosen.randrange(sectors)} 512")
        lines.append(f'RW {sectors} SPARSE "x{part}-s001.vmdk"')
        own = read_by_qemu(path, "vmdk")
        with Image.open(path.with_name(f"x{part}-s001.vmdk")) as image:
            assert isinstance(image.disk, Linked)
            pieces = [bytearray(b"b" * len(own))]
            for at, length in image.disk.own_ranges():
                pieces[0][at : at + length] = own[at : at + length]
            expected += pieces[0]
    (tmp_path / "top.vmdk").write_text(descriptor(lines, base))
    assert same(read_whole(tmp_path / "top.vmdk"), expected)


def test_a_chain_costs_no_more_reads_than_one_disk(tmp_path: Path) -> None:
    below = None
    for number in range(5):
        path = tmp_path / f"{number}.vmdk"
        create(path, "monolithicSparse", 32 * GRAIN, below=below)
        qemu_io(path, "vmdk", "write -P 9 0 1M" if below is None else f"write -P {number} {number * 64}k 64k")
        below = path.name
    sources = {path.name: Counting(BytesSource(path.read_bytes())) for path in tmp_path.iterdir()}
    top = sources["4.vmdk"]
    [layer] = open_disk(top, "4.vmdk", LayerOptions(neighbour=sources.__getitem__), top.read_at(0, 512))
    layer.source.read_at(0, 2 << 20)
    for source in sources.values():
        source.reads.clear()
    found = layer.source.read_at(0, 2 << 20)
    assert [found[at] for at in range(0, 7 * GRAIN, GRAIN)] == [9, 1, 2, 3, 4, 9, 9]
    assert [len(sources[f"{number}.vmdk"].reads) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert len(sources["0.vmdk"].reads) == 2  # the grain before the others, and all behind them at once


@pytest.mark.parametrize(
    ("line", "create_type", "message"),
    [
        ('RW 64 VMFSRDM "vm-rdm.vmdk"', "vmfsRawDeviceMap", r"'vm-rdm\.vmdk' is a raw device mapping, in virtual mode"),
        ('RW 64 VMFSRDMP "vm-rdmp.vmdk"', "vmfsPassthroughRawDeviceMap", "raw device mapping, in physical mode"),
        ('RW 64 VMFSRAW "vml.0200"', "vmfsRaw", "is a whole device"),
        ('RW 64 FLAT "/dev/sda" 0', "fullDevice", r"'/dev/sda' is a device of the host \(FLAT, fullDevice\)"),
        (r'RW 64 FLAT "\\.\PhysicalDrive0" 0', "partitionedDevice", "is a device of the host"),
    ],
)
def test_devices_are_named(line: str, create_type: str, message: str) -> None:
    with pytest.raises(CorruptImage, match=f"{message}.*not in the image"):
        Image.open(descriptor([line], None, create_type).encode())


def test_a_flat_extent_is_a_raw_disk(tmp_path: Path) -> None:
    create(tmp_path / "a.vmdk", "monolithicFlat", GRAIN)
    qemu_io(tmp_path / "a.vmdk", "vmdk", "write -P 7 0 64k")
    with Image.open(tmp_path / "a-flat.vmdk") as image:
        assert image.layers == ()
        assert image.read_at(0, image.size) == b"\7" * GRAIN
