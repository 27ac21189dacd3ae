"""VHD and VHDX disks that rest on each other, read as dissect.hypervisor and libvhdi read them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.exercise import documented, exercise_source
from fuzz.targets import vhd as vhd_target
from tests.support import REPOSITORY, Counting, require_oracle, run, unavailable
from tests.test_chains import read_whole, same
from vmvisor_image import CorruptImage, Image, InvalidArgument, MemberNotFound, SeveralImages, UnsafeName, inspect
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.disk.convert import convert
from vmvisor_image.faces.cli.main import main
from vmvisor_image.layers import vhdx as vhdx_layer
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.schemas import vhdx
from vmvisor_image.schemas.vhd import ABSOLUTE_PATH, FILE_URL, FOOTER_MAGIC, RELATIVE_PATH
from vmvisor_image.streams.linked import MOST_LINKS
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.tables import Tables
from vmvisor_image.testing.damage import damaged
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_vhd import sealed, vhd_delta, vhdx_delta, vhdx_log_entry, vhdx_with_log
from vmvisor_image.testing.forge_virtual import vhd_disk

KIB, MIB = 1 << 10, 1 << 20
HISTORIES = 80
IDS = [UUID(int=0x1234_5678_9ABC_DEF0_1111_2222_3333_4440 + number) for number in range(20)]
STATES = {1: "undefined", 2: "zero", 3: "unmapped"}


def store(path: Path, image: SparseImage) -> Path:
    """Write a file with holes where the image has none of its pieces."""
    with path.open("wb") as file:
        file.truncate(image.size)
        for at, data in image.pieces:
            file.seek(at)
            file.write(data)
    return path


def read_by_dissect(*paths: Path) -> dict[str, str]:
    """SHA-256 of each disk by dissect.hypervisor; of a VHD it reads zeros for what is the parent's."""
    found: dict[str, str] = json.loads(run(str(require_oracle()), REPOSITORY / "tests/dissect_vhd.py", *paths))
    return found


def read_by_libvhdi(*paths: Path) -> dict[str, str]:
    """SHA-256 of each disk by libvhdi."""
    if subprocess.run(["/usr/bin/python3", "-c", "import pyvhdi"], capture_output=True, check=False).returncode:
        unavailable("python3-libvhdi is not installed")
    found: dict[str, str] = json.loads(run("/usr/bin/python3", REPOSITORY / "tests/libvhdi_vhd.py", *paths))
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def locator(number: int, name: str) -> dict[str, str]:
    """A parent locator as Hyper-V writes them."""
    return {
        "parent_linkage": f"{{{IDS[number]}}}",
        "parent_linkage2": f"{{{UUID(int=0)}}}",
        "absolute_win32_path": f"C:\\machines\\disks\\{name}",
        "relative_path": f".\\{name}",
        "volume_path": f"\\\\?\\Volume{{{IDS[7]}}}\\machines\\disks\\{name}",
    }


@dataclass
class Link:
    """What one disk of a chain holds itself."""

    size: int
    block: int
    sector: int
    blocks: dict[int, int | dict[int, bytes]] = field(default_factory=dict)
    """State of a block without data, or its sectors."""

    def write(self, first: int, count: int, byte: int) -> None:
        per_block = self.block // self.sector
        for each in range(first, first + count):
            number, sector = divmod(each, per_block)
            there = self.blocks.get(number)
            if there is None:
                there = self.blocks[number] = {}
            elif isinstance(there, int):  # zeros that were the disk's own stay its own
                last = min(per_block, self.size // self.sector - number * per_block)
                there = self.blocks[number] = {at: bytes(self.sector) for at in range(last)}
            there[sector] = bytes([byte, each % 256]) * (self.sector // 2)

    def discard(self, number: int, state: int) -> None:
        self.blocks[number] = state

    def on(self, below: bytes) -> bytes:
        """The disk, resting on another one."""
        whole = bytearray(below[: self.size].ljust(self.size, b"\0"))
        for number, block in self.blocks.items():
            start = number * self.block
            if isinstance(block, int):
                whole[start : start + self.block] = bytes(min(self.block, self.size - start))
            else:
                for at, data in block.items():
                    whole[start + at * self.sector : start + (at + 1) * self.sector] = data
        return bytes(whole)

    def whole_blocks(self) -> dict[int, bytes | int | Mapping[int, bytes]]:
        """Blocks for a forge, those with all sectors as such."""
        found: dict[int, bytes | int | Mapping[int, bytes]] = {}
        for number, block in self.blocks.items():
            found[number] = block
            if not isinstance(block, int) and len(block) == self.block // self.sector:
                found[number] = b"".join(block[at] for at in sorted(block))
        return found


def random_link(  # of a test
    chosen: random.Random, size: int, block: int, sector: int, *, states: bool = False, even: str = ""
) -> Link:
    """A link of random writes and discards.

    Args:
        chosen: Source of chance.
        size: Bytes of the disk.
        block: Bytes in a block.
        sector: Bytes in a sector.
        states: Whether blocks are discarded.
        even: Whether all writes end at a multiple of eight sectors ("ends"), or begin there also ("both").
    """
    link = Link(size, block, sector)
    sectors = size // sector
    for _ in range(chosen.randrange(1, 9)):
        first = chosen.randrange(sectors)
        count = chosen.choice([1, 2, 7, 8, 9, 64, 500, block // sector])
        if chosen.random() < 0.2:
            first = first // (block // sector) * (block // sector)
        if even == "both":
            first = first // 8 * 8
        end = min(first + count, sectors)
        if even:
            end = min(-(-end // 8) * 8, sectors)
        if states and chosen.random() < 0.25:
            link.discard(first * sector // block, chosen.choice(list(STATES)))
        else:
            link.write(first, end - first, chosen.randrange(1, 256))
    return link


@pytest.mark.parametrize("first", range(0, HISTORIES, 20))
def test_histories_of_vhdx(first: int, tmp_path: Path) -> None:
    """dissect judges chains with discards, which are zeros ([MS-VHDX] 2.5.1.1); libvhdi takes them for the parent's.

    libvhdi judges chains of any writes. dissect loses sectors where it reads a part of a parent's block that is there
    in part from another than each eighth sector on, or where block sizes change: it gets no such chains.
    """
    for_dissect: dict[str, str] = {}
    for_libvhdi: dict[str, str] = {}
    for seed in range(first, first + 20):
        chosen = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        sector = chosen.choice([512, 512, 4096])
        size = 8 * sector * chosen.randrange(1, 6400 * 512 // 8 // sector)
        has_discards = seed % 2 == 0
        block_size = chosen.choice([MIB, MIB, 2 * MIB])
        whole, name = bytes(size), ""
        depth = chosen.randrange(2, 6)
        for number in range(depth):
            if not has_discards:
                block_size = chosen.choice([MIB, 2 * MIB])
            even = "both" if has_discards and depth > 2 else ""
            link = random_link(chosen, size, block_size, sector, states=has_discards, even=even)
            blocks = link.whole_blocks()
            if not number:  # a base has whole blocks
                for each, block in link.blocks.items():
                    if not isinstance(block, int):
                        blocks[each] = b"".join(block.get(at, bytes(sector)) for at in range(block_size // sector))
            paths = locator(number - 1, name) if number else None
            made = vhdx_delta(
                blocks, size, paths, block_size=block_size, sector=sector, data_write_id=IDS[number].bytes_le
            )
            name = f"{number}.avhdx" if number else "0.vhdx"
            path = store(folder / name, made)
            whole = link.on(whole)
        assert same(read_whole(path), whole), seed
        with Image.open(path) as image:
            assert [each.kind for each in image.chain] == ["vhdx"] * depth
            assert all(0 <= each.own_bytes <= each.size for each in image.chain)
        (for_dissect if has_discards else for_libvhdi)[str(path)] = sha256(whole)
    assert read_by_dissect(*map(Path, for_dissect)) == for_dissect
    assert read_by_libvhdi(*map(Path, for_libvhdi)) == for_libvhdi


@pytest.mark.parametrize("first", range(0, HISTORIES, 20))
def test_histories_of_vhd(first: int, tmp_path: Path) -> None:
    """dissect judges each disk alone, as it knows no parents of VHD; libvhdi chains of the usual block size.

    It also takes all bits behind a set one of a byte for set, so that it judges the chains that have them so.
    """
    alone: dict[str, str] = {}
    for_libvhdi: dict[str, str] = {}
    for seed in range(first, first + 20):
        chosen = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        size = 4096 * chosen.randrange(1, 800)
        whole, name = bytes(size), ""
        even = seed % 4 != 0
        for number in range(chosen.randrange(2, 6)):
            block = 1 << 21 if even else chosen.choice([1 << 16, 1 << 19, 1 << 21])
            link = random_link(chosen, size, block, 512, even="ends" if even else "")
            blocks: dict[int, bytes | Mapping[int, bytes]] = {
                each: data for each, data in link.whole_blocks().items() if not isinstance(data, int)
            }
            paths = None
            if number:
                paths = {
                    RELATIVE_PATH: f".\\{name}",
                    ABSOLUTE_PATH: f"D:\\disks\\{name}",
                    FILE_URL: f"file:///x/{name}",
                }
            made = vhd_delta(
                blocks,
                size,
                paths,
                block_size=block,
                unique_id=IDS[number].bytes,
                parent_id=IDS[number - 1].bytes if number else bytes(16),
                parent_name=name,
            )
            name = f"{number}.avhd" if number else "0.vhd"
            path = store(folder / name, made)
            alone[str(path)] = sha256(link.on(bytes(size)))
            with Image.open(path, parent=None) as image:
                assert sha256(image.read_at(0, image.size)) == alone[str(path)]
            whole = link.on(whole)
        assert same(read_whole(path), whole), seed
        with Image.open(path) as image:
            assert [link.kind for link in image.chain] == ["vhd"] * (number + 1)
            assert all(0 <= each.own_bytes <= each.size for each in image.chain)
        if even:
            for_libvhdi[str(path)] = sha256(whole)
    assert read_by_dissect(*map(Path, alone)) == alone
    assert len(for_libvhdi) == 15
    assert read_by_libvhdi(*map(Path, for_libvhdi)) == for_libvhdi


SIZE = 4 * MIB
BLOCK = MIB
KINDS = pytest.mark.parametrize("kind", ["vhd", "vhdx"])
Blocks = dict[int, bytes | dict[int, bytes]]


def forged(kind: str, number: int, blocks: Blocks, parent: str | None = None, **more: Any) -> SparseImage:
    """A disk with the identifier of its number, on that with the one before it."""
    size = more.pop("size", SIZE)
    options: dict[str, Any]
    paths: Any
    if kind == "vhd":
        options = {
            "block_size": BLOCK,
            "unique_id": IDS[number].bytes,
            "parent_id": IDS[number - 1].bytes if number else bytes(16),
            "parent_name": parent or "",
        }
        options |= more
        paths = None if parent is None else {RELATIVE_PATH: f".\\{parent}", ABSOLUTE_PATH: f"C:\\disks\\{parent}"}
        return vhd_delta(blocks, size, options.pop("paths", paths), **options)
    options = {"data_write_id": IDS[number].bytes_le, **more}
    paths = None if parent is None else locator(number - 1, parent)
    return vhdx_delta(blocks, size, options.pop("paths", paths), **options)


A: Blocks = {0: b"a" * BLOCK, 1: b"a" * BLOCK, 2: b"a" * BLOCK}
B: Blocks = {1: dict.fromkeys(range(512), b"b" * 512)}
C: Blocks = {1: dict.fromkeys(range(256, 768), b"c" * 512)}


def letters(data: bytes) -> str:
    """The first letter of each quarter of a MiB; a dot for zeros."""
    return "".join(chr(byte) if byte else "." for byte in data[:: 256 * KIB])


def chain_of(kind: str, folder: Path) -> Path:
    """Three disks, ``c`` on ``b`` on ``a``."""
    store(folder / f"a.{kind}", forged(kind, 0, A))
    store(folder / f"b.a{kind}", forged(kind, 1, B, f"a.{kind}"))
    return store(folder / f"c.a{kind}", forged(kind, 2, C, f"b.a{kind}"))


def whole() -> str:
    """Letters of the chain."""
    disk = bytearray(b"a" * 3 * MIB + bytes(MIB))
    disk[MIB : MIB + 256 * KIB] = b"b" * 256 * KIB
    disk[MIB + 128 * KIB : MIB + 384 * KIB] = b"c" * 256 * KIB
    return letters(bytes(disk))


@KINDS
class TestFoundByItself:
    def test_the_chain(self, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = chain_of(kind, tmp_path)
        with Image.open(path) as image:
            assert letters(image.read_at(0, image.size)) == whole()
            assert image.read_at(MIB + 127 * KIB, 2 * KIB) == b"b" * KIB + b"c" * KIB
            assert [(link.kind, link.name, link.size, link.own_bytes) for link in image.chain] == [
                (kind, f"c.a{kind}", SIZE, 256 * KIB),
                (kind, f"b.a{kind}", SIZE, 256 * KIB),
                (kind, f"a.{kind}", SIZE, 3 * MIB),
            ]
            assert image.known_problems == ()
            assert len(image.sources) == 3
        main(["info", str(path)])
        assert f"resting on {kind} b.a{kind}\n  resting on {kind} a.{kind}\n" in capsys.readouterr().out

    def test_holes_are_not_read_in_the_child(self, kind: str, tmp_path: Path) -> None:
        chain_of(kind, tmp_path)
        sources = {path.name: Counting(BytesSource(path.read_bytes())) for path in sorted(tmp_path.iterdir())}
        top = sources[f"c.a{kind}"]
        options = LayerOptions(neighbour=sources.__getitem__)
        [layer] = open_disk(top, f"c.a{kind}", options, top.read_at(0, 512))
        layer.source.read_at(0, 512)
        layer.source.read_at(MIB, MIB)
        for source in sources.values():
            source.reads.clear()
        assert layer.source.read_at(KIB, MIB - KIB) == b"a" * (MIB - KIB)
        assert [len(sources[name].reads) for name in sorted(sources)] == [1, 0, 0]
        for source in sources.values():
            source.reads.clear()
        assert layer.source.read_at(MIB + 384 * KIB, KIB) == b"a" * KIB
        assert layer.source.read_at(MIB + 130 * KIB, KIB) == b"c" * KIB
        assert [len(sources[name].reads) for name in sorted(sources)] == [1, 0, 1]

    def test_zeros_are_known_through_the_chain(self, kind: str, tmp_path: Path) -> None:
        with Image.open(chain_of(kind, tmp_path)) as image:
            assert image.skip_zeros(3 * MIB, SIZE) == SIZE
            assert image.skip_zeros(0, SIZE) == 0

    def test_in_a_tar(self, kind: str, tmp_path: Path) -> None:
        path = chain_of(kind, tmp_path)
        with tarfile.open(tmp_path / "disks.tar", "w") as archive:
            for each in sorted(tmp_path.glob("*vhd*")):
                archive.add(each, f"vm/{each.name}")
        with Image.open(tmp_path / "disks.tar", member=f"vm/{path.name}") as image:
            assert letters(image.read_at(0, image.size)) == whole()
        with pytest.raises(SeveralImages, match=rf"vm/a\.{kind}.*vm/b\.a{kind}.*vm/c\.a{kind}"):
            Image.open(tmp_path / "disks.tar")

    def test_behind_a_url(self, kind: str, tmp_path: Path) -> None:
        fsspec = pytest.importorskip("fsspec")
        path = chain_of(kind, tmp_path)
        for each in sorted(tmp_path.iterdir()):
            fsspec.filesystem("memory").pipe_file(f"/{kind}-chains/{each.name}", each.read_bytes())
        with Image.open(f"memory://{kind}-chains/{path.name}") as image:
            assert letters(image.read_at(0, image.size)) == whole()

    def test_converted(self, kind: str, tmp_path: Path) -> None:
        with Image.open(chain_of(kind, tmp_path)) as image:
            convert(image, tmp_path / "disk.zst")
        with Image.open(tmp_path / "disk.zst") as image:
            assert letters(image.read_at(0, image.size)) == whole()

    def test_a_parent_that_is_not_there(self, kind: str, tmp_path: Path) -> None:
        path = chain_of(kind, tmp_path)
        (tmp_path / f"a.{kind}").unlink()
        with pytest.raises(CorruptImage, match=rf"'a\.{kind}', which was looked for beside it"):
            Image.open(path)

    def test_bytes_have_no_neighbours(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(CorruptImage, match="its own directory is not known"):
            Image.open(chain_of(kind, tmp_path).read_bytes())

    def test_a_loop(self, kind: str, tmp_path: Path) -> None:
        for name, number, below in (("b", 1, "c"), ("c", 2, "b")):
            store(tmp_path / f"{name}.a{kind}", forged(kind, number, B, f"{below}.a{kind}"))
        with pytest.raises(CorruptImage, match=rf"loop, 'c\.a{kind}' on 'b\.a{kind}' on 'c\.a{kind}'"):
            Image.open(tmp_path / f"c.a{kind}")

    def test_a_chain_without_an_end(self, kind: str, tmp_path: Path) -> None:
        data = chain_of(kind, tmp_path).read_bytes()
        names = iter(range(1000))
        place = f"b.a{kind}"
        wide = [place.encode("utf-16-le"), place.encode("utf-16-be")]

        def neighbour(_: str) -> BytesSource:
            name = f"{next(names):0{len(place)}d}"
            found = data
            for old, coding in zip(wide, ("utf-16-le", "utf-16-be"), strict=True):
                found = found.replace(old, name.encode(coding))
            if kind == "vhd":  # the name is in a header with a checksum
                head = bytearray(found)
                head[548:552] = bytes(4)
                head[548:552] = (~sum(head[512:1536]) & 0xFFFFFFFF).to_bytes(4, "big")
                found = bytes(head)
            return BytesSource(found)

        top = neighbour("")
        with pytest.raises(CorruptImage, match=f"more than {MOST_LINKS} disks rest on each other"):
            open_disk(top, "top", LayerOptions(neighbour=neighbour), top.read_at(0, 512))

    def test_another_parent(self, kind: str, tmp_path: Path) -> None:
        path = chain_of(kind, tmp_path)
        store(tmp_path / f"b.a{kind}", forged(kind, 1, B, f"a.{kind}", **_identified(kind, 9)))
        ids = f"{IDS[9]}.*and the disk was made for .*{IDS[1]}"
        with pytest.raises(CorruptImage, match=f"another disk or has changed since.*{ids}.*allow_cid_mismatch"):
            Image.open(path)
        with Image.open(path, allow_cid_mismatch=True) as image:
            assert letters(image.read_at(0, image.size)) == whole()
            [problem] = image.known_problems
            assert str(IDS[9]) in str(problem)
            assert str(IDS[1]) in str(problem)

    def test_a_parent_of_another_size(self, kind: str, tmp_path: Path) -> None:
        for size in (2 * MIB, SIZE, 8 * MIB):
            blocks: Blocks = {at: data for at, data in A.items() if at * MIB < size}
            store(tmp_path / f"a.{kind}", forged(kind, 0, blocks, size=size))
            path = store(tmp_path / f"b.a{kind}", forged(kind, 1, B, f"a.{kind}"))
            with Image.open(path) as image:
                found = letters(image.read_at(0, image.size))
                assert found == "aaaa" + "baaa" + ("aaaa" if size > 2 * MIB else "....") + "...."
                problems = str(image.known_problems)
                assert (f"{size} bytes, and the disk {SIZE}" in problems) == (size != SIZE)


def _identified(kind: str, number: int) -> dict[str, Any]:
    return {"unique_id": IDS[number].bytes} if kind == "vhd" else {"data_write_id": IDS[number].bytes_le}


@KINDS
class TestGivenOrLeftOut:
    def test_alone(self, kind: str, tmp_path: Path) -> None:
        path = chain_of(kind, tmp_path)
        for source in (path, path.read_bytes()):
            with Image.open(source, parent=None) as image:
                data = image.read_at(0, image.size)
                assert data.count(b"c") == 256 * KIB == SIZE - data.count(b"\0")
                [problem] = image.known_problems
                assert "read without its parent" in str(problem)
                assert len(image.chain) == 1

    def test_given(self, kind: str, tmp_path: Path) -> None:
        path = chain_of(kind, tmp_path)
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        path = path.rename(moved / path.name)
        with pytest.raises(CorruptImage, match="which was looked for beside it"):
            Image.open(path)
        with Image.open(path, parent=tmp_path / f"b.a{kind}") as image:
            assert letters(image.read_at(0, image.size)) == whole()
        with pytest.raises(CorruptImage, match="another disk or has changed since"):
            Image.open(path, parent=tmp_path / f"a.{kind}")
        with Image.open(tmp_path / f"b.a{kind}") as image:
            raw = image.read_at(0, image.size)
        with Image.open(path, parent=raw) as image:
            assert letters(image.read_at(0, image.size)) == whole()
            assert [link.kind for link in image.chain] == [kind, "raw"]

    def test_given_to_a_disk_without_any(self, kind: str, tmp_path: Path) -> None:
        chain_of(kind, tmp_path)
        with pytest.raises(InvalidArgument, match="does not rest on another one"):
            Image.open(tmp_path / f"a.{kind}", parent=tmp_path / f"b.a{kind}")

    def test_a_snapshot(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(MemberNotFound, match="no snapshot 'x'"):
            Image.open(chain_of(kind, tmp_path), snapshot="x")


@KINDS
def test_any_of_its_names_is_looked_for(kind: str, tmp_path: Path) -> None:
    """In the order of the format; the directories in them are not followed."""
    paths: Any
    if kind == "vhd":
        paths = {RELATIVE_PATH: "..\\x\\1", ABSOLUTE_PATH: "D:\\x\\2", FILE_URL: "file://localhost/x/3%20b"}
        names = ["1", "2", "3 b", "4"]
        image = forged(kind, 1, B, "4", paths=paths)
    else:
        paths = locator(0, "x")
        paths |= {"relative_path": "..\\x\\1", "volume_path": "\\\\?\\Volume{}\\2", "absolute_win32_path": "C:\\y\\3 b"}
        names = ["1", "2", "3 b"]
        image = forged(kind, 1, B, "", paths=paths)
    path = store(tmp_path / "top", image)
    listed = ", ".join(map(repr, names))
    with pytest.raises(CorruptImage, match=f"looked for beside it as {listed}: none"):
        Image.open(path)
    for name in reversed(names):
        store(tmp_path / name, forged(kind, 0, A))
        with Image.open(path) as opened:
            assert opened.chain[1].name == name


@KINDS
@pytest.mark.parametrize("name", ["..", "a/", "nbd:host", "\1"])
def test_a_name_of_no_file(kind: str, name: str, tmp_path: Path) -> None:
    paths: dict[object, str] = {RELATIVE_PATH: name} if kind == "vhd" else {"relative_path": name}
    path = store(tmp_path / "top", forged(kind, 1, B, "", paths=paths))
    with pytest.raises(UnsafeName, match="does not name a file"):
        Image.open(path)


class TestVhd:
    def test_on_a_fixed_disk(self, tmp_path: Path) -> None:
        base = bytearray(vhd_disk(b"a" * SIZE, fixed=True))
        footer = base[-512:]
        footer[68:84] = IDS[0].bytes
        footer[64:68] = bytes(4)
        footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
        (tmp_path / "a.vhd").write_bytes(base[:-512] + footer)
        path = store(tmp_path / "b.avhd", forged("vhd", 1, B, "a.vhd"))
        with Image.open(path) as image:
            assert letters(image.read_at(0, image.size)) == "aaaabaaa" + "a" * 8
            assert [(link.kind, link.own_bytes) for link in image.chain] == [("vhd", 256 * KIB), ("vhd", SIZE)]
            assert image.known_problems == ()
        assert read_by_libvhdi(path)[str(path)] == sha256(read_whole(path))
        path = store(tmp_path / "c.avhd", forged("vhd", 1, B, "a.vhd", parent_id=IDS[5].bytes))
        with pytest.raises(CorruptImage, match=str(IDS[5])):
            Image.open(path)

    def test_when_the_parent_was_written(self, tmp_path: Path) -> None:
        base = store(tmp_path / "a.vhd", forged("vhd", 0, A))
        then = 1_000_000_000
        os.utime(base, (then, then))
        recorded = then - 946_684_800
        for time, is_told in ((recorded, False), (recorded - 1, False), (recorded - 200, True), (0, False)):
            path = store(tmp_path / "b.avhd", forged("vhd", 1, B, "a.vhd", parent_time=time))
            with Image.open(path) as image:
                told = "written at another time" in str(image.known_problems)
                assert told == is_told
                assert letters(image.read_at(0, 4)) == "a"
                if is_told:
                    assert "2001-09-09 01:46:40 UTC and not 2001-09-09 01:43:20 UTC" in str(image.known_problems)

    def test_without_an_identifier_of_the_parent(self, tmp_path: Path) -> None:
        store(tmp_path / "a.vhd", forged("vhd", 0, A))
        path = store(tmp_path / "b.avhd", forged("vhd", 1, B, "a.vhd", parent_id=bytes(16)))
        with Image.open(path) as image:
            assert "no identifier of the parent" in str(image.known_problems)

    def test_a_path_that_is_longer_than_its_space(self, tmp_path: Path) -> None:
        """Its length counts; of the space it is not sure whether it is in sectors or in bytes."""
        store(tmp_path / "a.vhd", forged("vhd", 0, A))
        data = bytearray(store(tmp_path / "b.avhd", forged("vhd", 1, B, "a.vhd")).read_bytes())
        for space, is_told in ((512, False), (0, True)):
            at = 512 + 576
            data[at + 4 : at + 8] = space.to_bytes(4, "big")
            data[548:552] = bytes(4)
            data[548:552] = (~sum(data[512:1536]) & 0xFFFFFFFF).to_bytes(4, "big")
            (tmp_path / "b.avhd").write_bytes(data)
            with Image.open(tmp_path / "b.avhd") as image:
                assert ("longer than its space" in str(image.known_problems)) == is_told
                assert len(image.chain) == 2

    def test_of_an_unknown_type(self) -> None:
        data = bytearray(vhd_disk(b"a" * 4096))
        for at in (0, len(data) - 512):
            data[at + 63] = 5
            data[at + 64 : at + 68] = bytes(4)
            data[at + 64 : at + 68] = (~sum(data[at : at + 512]) & 0xFFFFFFFF).to_bytes(4, "big")
        assert data[:8] == FOOTER_MAGIC
        with pytest.raises(CorruptImage, match="disks of type 5 are not known"):
            Image.open(bytes(data))


class TestVhdx:
    def test_while_the_parent_is_merged(self, tmp_path: Path) -> None:
        """Either identifier is good then."""
        store(tmp_path / "a.vhdx", forged("vhdx", 0, A))
        paths = locator(5, "a.vhdx") | {"parent_linkage2": f"{{{str(IDS[0]).upper()}}}"}
        path = store(tmp_path / "b.avhdx", forged("vhdx", 1, B, "", paths=paths))
        with Image.open(path) as image:
            assert image.known_problems == ()
        paths["parent_linkage2"] = f"{{{IDS[6]}}}"
        store(path, forged("vhdx", 1, B, "", paths=paths))
        with pytest.raises(CorruptImage, match=f"{IDS[5]}}} or {{{IDS[6]}"):
            Image.open(path)

    def test_without_an_identifier_of_the_parent(self, tmp_path: Path) -> None:
        store(tmp_path / "a.vhdx", forged("vhdx", 0, A))
        path = store(tmp_path / "b.avhdx", forged("vhdx", 1, B, "", paths={"relative_path": "a.vhdx"}))
        with Image.open(path) as image:
            assert "no parent_linkage" in str(image.known_problems)

    def test_a_parent_of_another_disk(self, tmp_path: Path) -> None:
        store(tmp_path / "a.vhdx", forged("vhdx", 0, A, disk_id=bytes(15) + b"1", sector=4096))
        path = store(tmp_path / "b.avhdx", forged("vhdx", 1, B, "a.vhdx"))
        with Image.open(path) as image:
            assert letters(image.read_at(0, image.size)) == "aaaabaaaaaaa...."
            told = str(image.known_problems)
            assert "its sectors have 4096 bytes, and those of the disk 512" in told
            assert "it is of the disk {00000000-0000-0000-0000-000000000031}" in told

    @pytest.mark.parametrize("way", ["missing", "of another type", "cut", "of no path"])
    def test_a_damaged_locator(self, way: str, tmp_path: Path) -> None:
        base = store(tmp_path / "a.vhdx", forged("vhdx", 0, A))
        paths = {"parent_linkage": f"{{{IDS[0]}}}"} if way == "of no path" else locator(0, "a.vhdx")
        data = bytearray(store(tmp_path / "b.avhdx", forged("vhdx", 1, B, "", paths=paths)).read_bytes())
        at = data.index(vhdx.VHDX_LOCATOR)
        item = data.index(vhdx.PARENT_LOCATOR)
        if way == "missing":
            data[item : item + 32] = bytes(32)
        elif way == "of another type":
            data[at] ^= 1
        elif way == "cut":
            data[item + 20 : item + 24] = (60).to_bytes(4, "little")
        path = tmp_path / "b.avhdx"
        path.write_bytes(data)
        message = {"missing": "it is missing", "of another type": "not known", "cut": "passes its end"}
        with pytest.raises(CorruptImage, match=message.get(way, "has no path of the parent")):
            Image.open(path)
        with Image.open(path, parent=base) as image:
            assert letters(image.read_at(0, image.size)) == "aaaabaaaaaaa...."
        with Image.open(path, parent=None) as image:
            assert letters(image.read_at(0, image.size)) == "....b..........."

    def test_a_locator_of_a_disk_without_a_parent(self, tmp_path: Path) -> None:
        data = bytearray(store(tmp_path / "b.vhdx", forged("vhdx", 1, {}, "a.vhdx")).read_bytes())
        place = data.index((MIB).to_bytes(4, "little") + b"\2\0\0\0")
        data[place + 4] = 0
        with Image.open(bytes(data)) as image:
            assert "its parameters say that it has no parent" in str(image.known_problems)

    def test_blocks_that_are_there_in_part(self, tmp_path: Path) -> None:
        store(tmp_path / "a.vhdx", forged("vhdx", 0, A))
        path = store(tmp_path / "b.avhdx", forged("vhdx", 1, B, "a.vhdx"))
        data = bytearray(path.read_bytes())
        table, ratio = 3 * MIB, 4096
        data[table + 8 * ratio] ^= 6  # the state of the bitmap
        path.write_bytes(data)
        with Image.open(path) as image:
            assert image.read_at(0, 512) == b"a" * 512
            with pytest.raises(CorruptImage, match="bitmap of a block that is there in part has the state 0"):
                image.read_at(MIB, 512)
        data = bytearray(store(path, forged("vhdx", 0, A)).read_bytes())
        data[table] |= 7
        with Image.open(bytes(data)) as image, pytest.raises(CorruptImage, match="in the parent, and it has none"):
            image.read_at(0, 512)

    def test_a_disk_of_several_chunks(self, tmp_path: Path) -> None:
        """Each has a bitmap block of its own; with sectors of 512 bytes a chunk has 4 GiB."""
        size = 10 << 30
        low: Blocks = {0: b"a" * MIB, 4096: b"a" * MIB, 8192: b"a" * MIB}
        store(tmp_path / "a.vhdx", forged("vhdx", 0, low, size=size))
        high: Blocks = {number: {7: b"b" * 512, 2047: b"c" * 512} for number in (0, 4095, 4096, 8192)}
        path = store(tmp_path / "b.avhdx", forged("vhdx", 1, high, "a.vhdx", size=size))
        with Image.open(path) as image:
            for number in high:
                here = (b"\0" if number == 4095 else b"a") * MIB
                expected = here[: 7 * 512] + b"b" * 512 + here[8 * 512 : 2047 * 512] + b"c" * 512
                assert image.read_at(number * MIB, MIB) == expected
            assert image.skip_zeros(MIB, size) == 4095 * MIB + 7 * 512
            assert image.chain[0].own_bytes == 8 * 512
            assert image.chain[1].own_bytes == 3 * MIB

    def test_a_log_in_a_parent(self, tmp_path: Path) -> None:
        base = vhdx_delta(A, SIZE, data_write_id=IDS[0].bytes_le)
        first = next(at for at, data in base.pieces if data == A[0])
        changes: dict[int, bytes | int] = {first: b"l" * 4096}
        entry = vhdx_log_entry(bytes(range(16)), 5, changes, tail=0, flushed=base.size, last=base.size)
        store(tmp_path / "a.vhdx", vhdx_with_log(base, bytes(range(16)), [(0, entry)]))
        path = store(tmp_path / "b.avhdx", forged("vhdx", 1, B, "a.vhdx"))
        with Image.open(path) as image:
            assert letters(image.read_at(0, image.size)) == "laaabaaaaaaa...."
        [(name, text)] = inspect(path).layer_facts
        assert name == "VHDX log"
        assert text.startswith("in the parent 'a.vhdx': replayed in memory")

    def test_structures_are_sealed_as_before(self) -> None:
        header = vhdx.VhdxHeader.parse(vhdx_delta({}, MIB).read_at(0x10000, 4096))
        again = sealed(replace(header, checksum=7).build(), 4096)
        assert again == vhdx_delta({}, MIB).read_at(0x10000, 4096)


@given(st.binary(min_size=1, max_size=700), st.integers(0, 7), st.integers(1, 6000), st.booleans())
def test_equal_bits_are_counted(data: bytes, bit: int, most: int, high_first: bool) -> None:  # drawn
    bits = [byte >> (7 - at if high_first else at) & 1 for byte in data for at in range(8)][bit:]
    expected = next((at for at, each in enumerate(bits) if each != bits[0]), len(bits))
    found, count = Tables("x", BytesSource(data), "big").same_bits(0, bit, most, "x", high_first=high_first)
    assert found == bool(bits[0])
    assert count == min(expected, most, 512 * 8 - bit)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_damage_to_a_vhd_is_an_error_a_problem_or_nothing(data: st.DataObject) -> None:
    source = data.draw(damaged(data.draw(st.sampled_from(vhd_target.seeds()))))
    vhd_target.one_input(source.read_up_to(0, 1 << 20))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_damage_to_a_vhdx_is_an_error_a_problem_or_nothing(data: st.DataObject) -> None:
    made = forged("vhdx", 1, B, "a")
    with documented():
        source = data.draw(damaged(made))
        disk = vhdx_layer.open_layer(source, LayerOptions(neighbour=lambda _: forged("vhdx", 0, A)))
        exercise_source(disk)
        assert sum(length for _, length in disk.own_ranges()) <= disk.size
