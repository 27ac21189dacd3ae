"""Disks that rest on each other: chains that qemu-img makes, read as it reads them."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import qcow2 as qcow2_target
from tests.support import Counting, run
from vmvisor_image import CorruptImage, Image, InvalidArgument, MemberNotFound, UnsafeName, inspect
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.disk.convert import convert
from vmvisor_image.faces.cli.main import main
from vmvisor_image.layers.virtual import open_disk
from vmvisor_image.streams.linked import MOST_LINKS
from vmvisor_image.streams.sources import BytesSource, FileSource
from vmvisor_image.testing.damage import damaged
from vmvisor_image.testing.forge_virtual import qcow2_delta, qcow2_disk

KIB = 1 << 10
HISTORIES = 60
QCOW2 = b"QFI\xfb\0\0\0\3"


def qemu_io(path: Path, kind: str, *commands: str) -> None:
    run("qemu-io", "-f", kind, *(word for command in commands for word in ("-c", command)), path)


def read_by_qemu(path: Path, kind: str, *, snapshot: str | None = None) -> bytes:
    out = path.with_name("by-qemu")
    run("qemu-img", "convert", "-f", kind, *(("-l", snapshot) if snapshot else ()), "-O", "raw", path, out)
    return out.read_bytes()


def read_whole(path: Path, **options: object) -> bytes:
    """The disk, in pieces of odd lengths."""
    with Image.open(path, **options) as image:  # type: ignore[arg-type]
        step = 37_000
        whole = image.read_at(0, image.size)
        pieces = [image.read_at(at, min(step, image.size - at)) for at in range(0, image.size, step)]
        assert b"".join(pieces) == whole
        at = 0
        while at < image.size:
            to = image.skip_zeros(at, image.size)
            assert not any(whole[at:to])
            at = to + 4096
        assert image.known_problems == ()
        return whole


def same(ours: bytes, theirs: bytes) -> bool:
    """Whether both are equal; prints the first difference, where pytest would compare them for minutes."""
    if ours == theirs:
        return True
    at = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    print(f"{len(ours)} and {len(theirs)} bytes, the first difference at {at}")
    return False


@dataclass
class History:
    """A chain of random writes, discards and snapshots."""

    folder: Path
    seed: int
    snapshots: list[str] = field(default_factory=list)
    """Snapshots in the last disk."""

    def __post_init__(self) -> None:
        self.chosen = random.Random(self.seed)
        self.depth = self.chosen.randrange(1, 6)

    def operations(self, size: int, cluster: int, *, is_raw: bool = False) -> list[str]:
        found = []
        for _ in range(self.chosen.randrange(1, 7)):
            unit = self.chosen.choice([512, 4096, cluster])
            at = self.chosen.randrange(0, size, unit)
            length = min(unit * self.chosen.choice([1, 1, 2, 5, 17]), size - at)
            ways = [f"write -P {self.chosen.randrange(1, 256)}"] * 4 + ["write -z", "write -z -u", "discard"]
            found.append(f"{self.chosen.choice(ways[:4] if is_raw else ways)} {at} {length}")
        return found

    def make_base(self) -> Path:
        path = self.folder / "0.raw"
        size = 512 * self.chosen.randrange(1, 1500)
        path.write_bytes(bytes(size))
        qemu_io(path, "raw", *self.operations(size, 65_536, is_raw=True))
        return path

    def make_qcow2(self, number: int, below: tuple[Path, str] | None) -> Path:
        path = self.folder / f"{number}.qcow2"
        cluster = self.chosen.choice([512, 1024, 4096, 16_384, 65_536])
        size = 512 * self.chosen.randrange(1, 2000)
        options = [f"cluster_size={cluster}"]
        is_old = has_data_file = False
        if cluster >= 16_384 and self.chosen.random() < 0.5:
            options.append("extended_l2=on")
        elif self.chosen.random() < 0.2:
            options.append("compat=0.10")
            is_old = True
        if not is_old and self.chosen.random() < 0.2:
            options.append(f"data_file={self.folder / f'{number}.data'}")
            has_data_file = True
        under = () if below is None else ("-b", below[0].name, "-F", below[1])
        run("qemu-img", "create", "-f", "qcow2", "-o", ",".join(options), *under, path, str(size))
        self.snapshots = []
        for turn in range(self.chosen.randrange(1, 4)):
            operations = self.operations(size, cluster)
            if not turn and not has_data_file and size > cluster and self.chosen.random() < 0.3:
                at = self.chosen.randrange(0, size - cluster, cluster)
                operations.insert(0, f"write -c -P {self.chosen.randrange(1, 256)} {at} {cluster}")
            qemu_io(path, "qcow2", *operations)
            if not has_data_file and self.chosen.random() < 0.5:
                self.snapshots.append(f"state {turn}")
                run("qemu-img", "snapshot", "-c", self.snapshots[-1], path)
        return path

    def make(self) -> Path:
        """The last disk."""
        below = (self.make_base(), "raw") if self.chosen.random() < 0.5 else None
        for number in range(1, self.depth + 1):
            below = (self.make_qcow2(number, below), "qcow2")
        assert below is not None
        return below[0]


@pytest.mark.parametrize("first", range(0, HISTORIES, 10))
def test_histories_of_qcow2(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        history = History(folder, seed)
        last = history.make()
        assert same(read_whole(last), read_by_qemu(last, "qcow2")), seed
        for name in history.snapshots:
            assert same(read_whole(last, snapshot=name), read_by_qemu(last, "qcow2", snapshot=name)), (seed, name)
        with Image.open(last) as image:
            assert list(image.chain[0].snapshots) == history.snapshots
            assert [link.kind for link in image.chain][: history.depth] == ["qcow2"] * history.depth
            assert all(0 <= link.own_bytes <= link.size for link in image.chain)
        shutil.rmtree(folder)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Three disks, ``c.qcow2`` on ``b.qcow2`` on ``a.raw``, in which a letter says where each KiB comes from."""
    (tmp_path / "a.raw").write_bytes(b"a" * 256 * KIB)
    for name, below, kind in (("b", "a.raw", "raw"), ("c", "b.qcow2", "qcow2")):
        path = tmp_path / f"{name}.qcow2"
        run("qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=4096", "-b", below, "-F", kind, path, "512k")
    qemu_io(tmp_path / "b.qcow2", "qcow2", f"write -P {ord('b')} 64k 64k")
    qemu_io(tmp_path / "c.qcow2", "qcow2", f"write -P {ord('c')} 96k 16k", "write -z 8k 4k")
    return tmp_path / "c.qcow2"


def letters(data: bytes) -> str:
    """The first letter of each 4 KiB; a dot for zeros."""
    return "".join(chr(byte) if byte else "." for byte in data[:: 4 * KIB])


WHOLE = "aa." + "a" * 13 + "b" * 8 + "c" * 4 + "b" * 4 + "a" * 32 + "." * 64


class TestFoundByItself:
    def test_the_chain(self, chain: Path) -> None:
        with Image.open(chain) as image:
            assert letters(image.read_at(0, image.size)) == WHOLE
            assert [(link.kind, link.name, link.size, link.own_bytes) for link in image.chain] == [
                ("qcow2", "c.qcow2", 512 * KIB, 20 * KIB),
                ("qcow2", "b.qcow2", 512 * KIB, 64 * KIB),
                ("raw", "a.raw", 256 * KIB, 256 * KIB),
            ]
            assert [layer.kind for layer in image.layers] == ["qcow2"]
            assert len(image.sources) == 3

    def test_the_chain_while_its_progress_is_watched(self, chain: Path) -> None:
        """It tells conversions of a disk with different parents apart."""
        with Image.open(chain) as image, Image.open(chain, progress=lambda _, __: None) as watched:
            assert [link.name for link in watched.chain] == [link.name for link in image.chain]
            assert watched.fingerprint == image.fingerprint

    def test_a_raw_disk_is_a_chain_of_one(self, chain: Path) -> None:
        with Image.open(chain.with_name("a.raw")) as image:
            [link] = image.chain
            assert (link.kind, link.name, link.own_bytes, link.snapshots) == ("raw", "a.raw", 256 * KIB, ())

    def test_zeros_are_known_through_the_chain(self, chain: Path) -> None:
        with Image.open(chain) as image:
            assert image.skip_zeros(256 * KIB, image.size) == image.size
            assert image.skip_zeros(8 * KIB, image.size) == 12 * KIB
            assert image.skip_zeros(0, image.size) == 0

    def test_holes_are_not_read_in_the_child(self, chain: Path) -> None:
        sources = {
            name: Counting(BytesSource(chain.with_name(name).read_bytes())) for name in ("c.qcow2", "b.qcow2", "a.raw")
        }
        top = sources["c.qcow2"]
        [layer] = open_disk(top, "c.qcow2", LayerOptions(neighbour=sources.__getitem__), top.read_at(0, 512))
        layer.source.read_at(0, 512)
        for source in sources.values():
            source.reads.clear()
        assert letters(layer.source.read_at(128 * KIB, 64 * KIB)) == "a" * 16
        assert [len(source.reads) for source in sources.values()] == [0, 0, 1]

    def test_a_chain_costs_no_more_reads_than_one_disk(self, tmp_path: Path) -> None:
        """Tables are read once for each link; then data alone, and clusters that lie in a row together."""
        below: tuple[str, ...] = ()
        for number in range(5):
            path = tmp_path / f"{number}.qcow2"
            run("qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=4096", *below, path, "1M")
            qemu_io(path, "qcow2", "write -P 9 0 512k" if not number else f"write -P {number} {number * 4}k 4k")
            below = ("-b", path.name, "-F", "qcow2")
        sources = {path.name: Counting(BytesSource(path.read_bytes())) for path in tmp_path.iterdir()}
        top = sources["4.qcow2"]
        [layer] = open_disk(top, "4.qcow2", LayerOptions(neighbour=sources.__getitem__), top.read_at(0, 512))
        layer.source.read_at(0, 1 << 20)
        for source in sources.values():
            source.reads.clear()
        found = layer.source.read_at(0, 1 << 20)
        assert [found[at] for at in range(0, 28 << 10, 4096)] == [9, 1, 2, 3, 4, 9, 9]
        assert [len(sources[f"{number}.qcow2"].reads) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
        assert len(sources["0.qcow2"].reads) <= 4  # before the others' clusters, and after them up to 64 at once
        for at in range(256 << 10, 260 << 10, 512):
            layer.source.read_at(at, 512)
        assert sum(len(source.reads) for source in sources.values()) <= 8 + 8

    def test_in_a_tar(self, chain: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "disks.tar", "w") as archive:
            for name in ("a.raw", "b.qcow2", "c.qcow2"):
                archive.add(chain.with_name(name), f"vm/{name}")
        with Image.open(tmp_path / "disks.tar", member="vm/c.qcow2") as image:
            assert letters(image.read_at(0, image.size)) == WHOLE
            assert [link.name for link in image.chain] == ["vm/c.qcow2", "b.qcow2", "a.raw"]

    def test_behind_a_url(self, chain: Path) -> None:
        fsspec = pytest.importorskip("fsspec")
        memory = fsspec.filesystem("memory")
        for name in ("a.raw", "b.qcow2", "c.qcow2"):
            memory.pipe_file(f"/chains/{name}", chain.with_name(name).read_bytes())
        with Image.open("memory://chains/c.qcow2") as image:
            assert letters(image.read_at(0, image.size)) == WHOLE

    def test_a_path_in_its_name_is_not_followed(self, chain: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        moved = tmp_path / "elsewhere" / "c.qcow2"
        chain.rename(moved)
        run("qemu-img", "rebase", "-u", "-b", "../b.qcow2", "-F", "qcow2", moved)
        with pytest.raises(CorruptImage, match=r"'b\.qcow2', which was looked for beside it .*'\.\./b\.qcow2'"):
            Image.open(moved)
        with Image.open(moved, parent=chain.with_name("b.qcow2")) as image:
            assert letters(image.read_at(0, image.size)) == WHOLE
        moved.rename(chain)
        assert letters(read_whole(chain)) == WHOLE  # the last part of the path is looked for beside it

    @pytest.mark.parametrize("name", ["json:{}", "nbd:localhost:1", "ssh://host/b.qcow2", "..", "x/"])
    def test_a_name_of_no_file(self, chain: Path, name: str) -> None:
        run("qemu-img", "rebase", "-u", "-b", name, "-F", "qcow2", chain)
        with pytest.raises(UnsafeName, match="does not name a file"):
            Image.open(chain)

    def test_a_parent_that_is_not_there(self, chain: Path) -> None:
        chain.with_name("a.raw").unlink()
        with pytest.raises(CorruptImage, match=r"parent 'b\.qcow2'.*'a\.raw', which was looked for beside it"):
            Image.open(chain)

    def test_bytes_have_no_neighbours(self, chain: Path) -> None:
        with pytest.raises(CorruptImage, match=r"'b\.qcow2', and its own directory is not known"):
            Image.open(chain.read_bytes())

    def test_a_loop(self, chain: Path) -> None:
        run("qemu-img", "rebase", "-u", "-b", "c.qcow2", "-F", "qcow2", chain.with_name("b.qcow2"))
        with pytest.raises(CorruptImage, match=r"loop, 'c\.qcow2' on 'b\.qcow2' on 'c\.qcow2'"):
            Image.open(chain)

    def test_a_loop_of_other_names(self, chain: Path) -> None:
        for number in range(MOST_LINKS + 2):  # what it rests on always has another name
            os.link(chain, chain.with_name(f"{number}.qcow2"))
        names = iter(range(1, 1000))
        source = FileSource(chain)
        head = source.read_at(0, 4096)

        def neighbour(_: str) -> BytesSource:
            return BytesSource(chain.read_bytes().replace(b"b.qcow2", b"%07d" % next(names)))

        with pytest.raises(CorruptImage, match=f"more than {MOST_LINKS} disks rest on each other"):
            open_disk(source, "c.qcow2", LayerOptions(neighbour=neighbour), head)
        source.close()

    def test_as_many_as_are_allowed(self, tmp_path: Path) -> None:
        below: tuple[str, ...] = ()
        for number in range(MOST_LINKS + 1):
            run("qemu-img", "create", "-f", "qcow2", *below, tmp_path / f"{number}.qcow2", *(() if below else ("64k",)))
            below = ("-b", f"{number}.qcow2", "-F", "qcow2")
        qemu_io(tmp_path / "0.qcow2", "qcow2", "write -P 7 0 64k")
        assert read_whole(tmp_path / f"{MOST_LINKS - 1}.qcow2") == b"\7" * 65_536
        with pytest.raises(CorruptImage, match=f"more than {MOST_LINKS}"):
            Image.open(tmp_path / f"{MOST_LINKS}.qcow2")

    def test_a_format_that_is_not_said(self, chain: Path) -> None:
        """QEMU examines the file then, which a guest of a raw disk may have written."""
        run("qemu-img", "rebase", "-u", "-b", "b.qcow2", "-F", "qcow2", chain)
        data = chain.read_bytes().replace(bytes.fromhex("e2792aca"), b"\0\0\0\1")
        chain.write_bytes(data)
        with pytest.raises(CorruptImage, match=r"begins as qcow2, and the disk does not say"):
            Image.open(chain)
        with Image.open(chain, parent=chain.with_name("b.qcow2")) as image:
            assert letters(image.read_at(0, image.size)) == WHOLE

    def test_a_raw_disk_that_begins_as_another_format(self, chain: Path) -> None:
        """A guest can write into its disk what it likes; that does not choose another file of the host's."""
        run("qemu-img", "rebase", "-u", "-b", "b.qcow2", "-F", "raw", chain)
        files = {name: BytesSource(chain.with_name(name).read_bytes()) for name in ("b.qcow2", "c.qcow2")}
        [layer] = open_disk(files["c.qcow2"], "c.qcow2", LayerOptions(neighbour=files.__getitem__), QCOW2)
        assert same(layer.source.read_at(0, layer.source.size), read_by_qemu(chain, "qcow2"))
        with pytest.raises(CorruptImage, match=r"'a\.raw', and its own directory is not known"):
            Image.open(chain)  # what is in the disk is a disk again, as in any nesting
        with Image.open(chain, parent=chain.with_name("b.qcow2")) as image:
            assert letters(image.read_at(0, image.size)) == WHOLE

    def test_another_format_than_it_says(self, chain: Path) -> None:
        run("qemu-img", "rebase", "-u", "-b", "b.qcow2", "-F", "vmdk", chain)
        with pytest.raises(CorruptImage, match="another format"):
            Image.open(chain)
        run("qemu-img", "rebase", "-u", "-b", "b.qcow2", "-F", "qed", chain)
        with pytest.raises(CorruptImage, match="'qed', which is not read"):
            Image.open(chain)


def test_info_prints_the_links(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", str(chain)])
    shown = capsys.readouterr().out
    assert "  resting on qcow2 b.qcow2\n  resting on raw a.raw\n" in shown
    assert inspect(chain).to_dict()["chain"] == [["qcow2", "b.qcow2"], ["raw", "a.raw"]]


class TestGivenOrLeftOut:
    def test_alone(self, chain: Path) -> None:
        with Image.open(chain, parent=None) as image:
            assert letters(image.read_at(0, image.size)) == "." * 24 + "c" * 4 + "." * 100
            [problem] = image.known_problems
            assert "read without its parent, 'b.qcow2'" in str(problem)
            assert [link.name for link in image.chain] == ["c.qcow2"]
        assert Image.open(chain.read_bytes(), parent=None).size == 512 * KIB

    def test_alone_where_nothing_is_below(self, chain: Path) -> None:
        with Image.open(chain.with_name("a.raw"), parent=None) as image:
            assert image.known_problems == ()

    @pytest.mark.parametrize("way", ["path", "bytes", "image"])
    def test_given(self, chain: Path, way: str) -> None:
        below = chain.with_name("b.qcow2")
        with Image.open(below) as image:
            raw = image.read_at(0, image.size)
            parent = {"path": below, "bytes": raw, "image": image}[way]
            with Image.open(chain.read_bytes(), parent=parent) as whole:
                assert letters(whole.read_at(0, whole.size)) == WHOLE
                kinds = ["qcow2", "raw"] if way == "bytes" else ["qcow2", "qcow2", "raw"]
                assert [link.kind for link in whole.chain] == kinds
            assert image.read_at(0, 512) == raw[:512]  # it stays open

    def test_given_to_a_disk_without_any(self, chain: Path) -> None:
        for name in ("a.raw", "alone.qcow2"):
            path = chain.with_name(name)
            if not path.exists():
                run("qemu-img", "create", "-f", "qcow2", path, "1M")
            with pytest.raises(InvalidArgument, match="does not rest on another one"):
                Image.open(path, parent=chain)

    def test_problems_of_the_parent_name_it(self, chain: Path) -> None:
        data = bytearray(chain.with_name("b.qcow2").read_bytes())
        data[79] |= 1  # in use
        chain.with_name("b.qcow2").write_bytes(data)
        with Image.open(chain) as image:
            [problem] = image.known_problems
            assert "in the parent 'b.qcow2': the disk was in use" in str(problem)

    def test_pickled(self, chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(chain.parent)
        with Image.open("c.qcow2", parent="b.qcow2") as image:
            copied = pickle.dumps(image)
        monkeypatch.chdir("/")
        with pickle.loads(copied) as image:
            assert letters(image.read_at(0, image.size)) == WHOLE

    def test_fingerprints_differ(self, chain: Path) -> None:
        with tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as archive:
            for name in ("a.raw", "b.qcow2", "c.qcow2"):
                archive.add(chain.with_name(name), name)
        for source, member in ((chain, None), (made.getvalue(), "c.qcow2")):
            found = set()
            for parent in (None, chain.with_name("a.raw"), chain.with_name("b.qcow2")):
                with Image.open(source, member=member, parent=parent) as image:
                    found.add(image.fingerprint)
            with Image.open(source, member=member) as image:
                assert image.fingerprint not in found or member is None
            assert len(found) == 3

    def test_a_conversion_is_not_continued_with_another_parent(self, chain: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.zst"
        with Image.open(chain) as image, pytest.raises(KeyboardInterrupt):
            convert(image, out, frame_size=4096, progress=_stop)
        with Image.open(chain, parent=None) as image:
            assert convert(image, out, frame_size=4096).resumed_at == 0


def _stop(done: int, _: int | None) -> None:
    if done >= 64 * KIB:
        raise KeyboardInterrupt


class TestSnapshots:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Path:
        path = tmp_path / "disk.qcow2"
        run("qemu-img", "create", "-f", "qcow2", path, "1M")
        for number, name in enumerate(("first", "second", "3", "first"), 1):
            qemu_io(path, "qcow2", f"write -P {number} 0 64k")
            run("qemu-img", "snapshot", "-c", name, path)
            run("qemu-img", "resize", "-f", "qcow2", path, f"{number + 1}M")
        qemu_io(path, "qcow2", "write -P 9 0 64k")
        return path

    def test_by_name_or_number(self, disk: Path) -> None:
        with Image.open(disk) as image:
            assert (image.size, image.read_at(0, 1)) == (5 << 20, b"\t")
            assert image.chain[0].snapshots == ("first", "second", "3", "first")
        for chosen, number in (("second", 2), ("2", 2), ("3", 3), ("1", 1), ("4", 4)):
            with Image.open(disk, snapshot=chosen) as image:
                found = image.read_at(0, image.size)
            copy = disk.with_name("copy.qcow2")
            shutil.copy(disk, copy)
            run("qemu-img", "snapshot", "-a", str(number), copy)
            assert same(found, read_by_qemu(copy, "qcow2"))

    def test_which_are_not_there(self, disk: Path) -> None:
        with pytest.raises(MemberNotFound, match=r"no snapshot 'x'; there are 'first' \(number 1\), 'second'"):
            Image.open(disk, snapshot="x")
        with pytest.raises(MemberNotFound, match="2 snapshots have the name 'first'"):
            Image.open(disk, snapshot="first")
        with pytest.raises(MemberNotFound, match="not a virtual disk"):
            Image.open(bytes(4096), snapshot="x")

    def test_a_conversion_is_not_continued_at_another_one(self, disk: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.zst"
        with Image.open(disk) as image, pytest.raises(KeyboardInterrupt):
            convert(image, out, frame_size=4096, progress=_stop)
        with Image.open(disk, snapshot="second") as image:
            assert convert(image, out, frame_size=4096).resumed_at == 0


class TestDataFiles:
    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "disk.qcow2"
        data = tmp_path / "disk.data"
        run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", path, "1M")
        qemu_io(path, "qcow2", "write -P 5 0 128k")
        assert read_whole(path) == b"\5" * 131_072 + bytes(917_504)
        data.unlink()
        with pytest.raises(CorruptImage, match=r"the data is in another file, 'disk\.data', which was looked for"):
            Image.open(path)


class TestForged:
    @pytest.mark.parametrize("kind", ["raw", "qcow2"])
    def test_the_delta_is_what_qemu_reads(self, kind: str, tmp_path: Path) -> None:
        base, path = tmp_path / "base", tmp_path / "delta"
        noise = random.Random(1).randbytes(6000 if kind == "raw" else 6144)  # QEMU has whole sectors in a qcow2
        base.write_bytes(noise if kind == "raw" else qcow2_disk(noise))
        clusters = {0: b"one", 3: None, 7: b"x" * 512, 63: None, 64: b"y", 129: b"z" * 100}
        path.write_bytes(qcow2_delta(clusters, 130 * 512, "base", kind, snapshot="then"))
        run("qemu-img", "check", "-f", "qcow2", path)
        assert same(read_whole(path), read_by_qemu(path, "qcow2"))
        assert same(read_whole(path, snapshot="then"), read_by_qemu(path, "qcow2", snapshot="then"))

    @settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.data())
    def test_damage_is_an_error_a_problem_or_nothing(self, data: st.DataObject) -> None:
        source = data.draw(damaged(data.draw(st.sampled_from(qcow2_target.seeds()))))
        qcow2_target.one_input(source.read_up_to(0, 1 << 20))

    def test_a_format_that_is_not_said(self, tmp_path: Path) -> None:
        """It is read as raw, as QEMU reads it, where it does not begin as another format."""
        (tmp_path / "base").write_bytes(b"b" * 2048)
        path = tmp_path / "delta"
        path.write_bytes(qcow2_delta({1: b"x" * 512}, 4096, "base", None))
        assert same(read_whole(path), read_by_qemu(path, "qcow2"))

    def test_a_data_file_has_each_cluster_at_its_own_place(self, tmp_path: Path) -> None:
        path, data = tmp_path / "disk.qcow2", tmp_path / "disk.data"
        run("qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size=512,data_file={data}", path, "8k")
        qemu_io(path, "qcow2", "write -P 5 0 4k")
        whole = bytearray(path.read_bytes())
        l1 = int.from_bytes(whole[40:48], "big")
        l2 = int.from_bytes(whole[l1 : l1 + 8], "big") & 0x00FFFFFFFFFFFE00
        whole[l2 + 14] ^= 2  # the second cluster is where the first is
        path.write_bytes(whole)
        with Image.open(path) as image:
            image.read_at(0, 4096)
            assert "cluster 1 is at another place in the data file" in str(image.known_problems[0])
