"""The traps of FAT, each with a volume that springs it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyfatfs.PyFat import PyFat

from tests.support import Unreadable, run
from tests.tool_disk import DELETED, FRAGMENTED, SECTOR, ToolDisk
from vmvisor_image import (
    CorruptImage,
    File,
    FileTree,
    Image,
    InvalidArgument,
    PathNotFound,
    Problem,
    TruncatedImage,
    UsageError,
)
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedFile, SparseImage, fat_volume

# Geometry of `small`: one reserved sector, two FATs of 12 sectors, a root directory of 32, clusters of a sector.
FAT, ROOT, DATA = 1 * SECTOR, 25 * SECTOR, 57 * SECTOR


def small(tree: dict[str, bytes | ForgedFile], label: str | None = None) -> bytearray:
    volume = fat_volume(tree, sectors=4000, label=label)
    return bytearray(volume.read_at(0, volume.size))


def files_of(volume: bytes | bytearray | SparseImage) -> FileTree:
    return Image.open(volume).partitions[1].files


def problems_of(volume: bytes | bytearray) -> tuple[Problem, ...]:
    image = Image.open(volume)
    list(image.partitions[1].files)
    return image.problems


def entry_at(volume: bytearray, name: bytes) -> int:
    """Where the entry with that raw short name is."""
    return volume.index(name.ljust(11), ROOT)


def set_fat12(volume: bytearray, cluster: int, value: int) -> None:
    for copy in (FAT, FAT + 12 * SECTOR):
        at = copy + cluster * 3 // 2
        [pair] = struct.unpack_from("<H", volume, at)
        pair = pair & 0x000F | value << 4 if cluster % 2 else pair & 0xF000 | value
        struct.pack_into("<H", volume, at, pair)


def test_geometry_of_small_volumes() -> None:
    volume = small({"A": b"content"})
    assert volume[ROOT : ROOT + 11] == b"A          "
    assert volume[DATA : DATA + 7] == b"content"


@pytest.mark.parametrize("label", ["Hypervisor0", "Hypervisor1", "Hypervisor2", "Hypervisor3"])
def test_listing_is_that_of_mdir_fls_and_pyfatfs(tool_built_disk: ToolDisk, label: str) -> None:
    volume = tool_built_disk.volumes[label]
    with Image.open(tool_built_disk.image) as image:
        files = image.partitions[label].files
        ours = set(files)
        mdir = run("mdir", "-b", "-/", "-a", "-i", tool_built_disk.mtools_image(label), "::/").splitlines()
        assert ours == {line.removeprefix("::/") for line in mdir if not line.endswith("/")}
        kind = f"fat{volume.fat_bits}"
        listed = run("fls", "-r", "-p", "-F", "-u", "-o", str(volume.first_lba), "-f", kind, tool_built_disk.image)
        names = {line.split("\t")[1] for line in listed.splitlines() if line.startswith("r/r")}
        assert ours == {name for name in names if not name.endswith("(Volume Label Entry)")}
        assert DELETED not in ours
        for path, expected in volume.files.items():
            file = files[path]
            assert (file.size, file.modified) == (len(expected.data), expected.modified)
            assert file.read_bytes() == expected.data
            assert b"".join(image.read_at(e.offset, e.length) for e in file.extents) == expected.data
        oracle = PyFat()
        with tool_built_disk.image.open("rb") as disk:
            disk.seek(volume.first_lba * SECTOR)
            oracle.set_fp(io.BytesIO(disk.read(volume.sectors * SECTOR)))
        assert {e.filesize for e in oracle.root_dir.get_entries()[1]} == {
            f.size for f in files.root if isinstance(f, File)
        }


def test_extents_are_merged(tool_built_disk: ToolDisk) -> None:
    with Image.open(tool_built_disk.image) as image:
        files = image.partitions["Hypervisor1"].files
        volume = tool_built_disk.mtools_image("Hypervisor1")
        for path, file in files.items():
            assert len(file.extents) == run("mshowfat", "-i", volume, f"::/{path}").count("<"), path
        assert len(files[FRAGMENTED].extents) == 3
        assert files["empty.tgz"].extents == ()


def test_names_keep_their_case_and_are_found_in_any() -> None:
    tree: dict[str, bytes | ForgedFile] = {"lower.txt": b"1", "UPPER.TXT": b"2", "half.TXT": b"3", "Mixed Case": b"4"}
    files = files_of(small(tree))
    assert list(files) == list(tree)
    for path, data in tree.items():
        for spelling in (path, path.upper(), path.lower(), f"./{path}"):
            assert files[spelling].read_bytes() == data
            assert spelling in files
    assert "missing" not in files
    with pytest.raises(KeyError) as caught:
        files["missing"]
    assert isinstance(caught.value, FileNotFoundError | PathNotFound)


@pytest.mark.parametrize(
    ("root_label", "boot_label", "expected"),
    [("Hypervisor1", b"OTHER      ", "Hypervisor1"), (None, b"FROM BPB   ", None), (None, b"NO NAME    ", None)],
)
def test_label(root_label: str | None, boot_label: bytes, expected: str | None) -> None:
    volume = small({"a": b""}, root_label)
    volume[43:54] = boot_label
    assert Image.open(volume).partitions[1].label == expected


def test_invalid_dates_are_none_and_not_1980() -> None:
    volume = small({"A": ForgedFile(b"", datetime(1999, 2, 3, 4, 5, 6)), "B": b"", "C": b""})
    at = entry_at(volume, b"B")
    struct.pack_into("<HH", volume, at + 22, 0, 13 << 5 | 1)  # month 13
    at = entry_at(volume, b"C")
    struct.pack_into("<HH", volume, at + 22, 0, 0)
    files = files_of(volume)
    assert [file.modified for file in files.values()] == [datetime(1999, 2, 3, 4, 5, 6), None, None]
    assert any("is not a date" in problem.message for problem in problems_of(volume))


def long_name_parts(volume: bytearray) -> tuple[int, int]:
    """First part and entry of the only long name."""
    entry = next(at for at in range(ROOT, DATA, 32) if volume[at + 11] == 0x20)
    return ROOT, entry


@pytest.mark.parametrize(
    "damage",
    [
        lambda volume, first, entry: volume.__setitem__(first + 13, volume[first + 13] ^ 1),  # checksum
        lambda volume, first, entry: volume.__setitem__(
            slice(first, first + 32), b"\xe5" + bytes(31)
        ),  # last part gone
        lambda volume, first, entry: volume.__setitem__(first + 32, 7),  # out of order
        lambda volume, first, entry: volume.__setitem__(slice(first + 1, first + 3), b"\x00\xd8"),  # lone surrogate
        lambda volume, first, entry: volume.__setitem__(entry, ord("X")),  # another short name
    ],
    ids=["checksum", "incomplete", "order", "surrogate", "short name"],
)
def test_a_damaged_long_name_is_not_used(damage: Callable[[bytearray, int, int], None]) -> None:
    volume = small({"a long name of three parts.txt": b"content"})
    first, entry = long_name_parts(volume)
    damage(volume, first, entry)
    [file] = files_of(volume).values()
    assert file.name.endswith("LONGN~1.TXT")
    assert file.read_bytes() == b"content"
    assert any(problem.structure == "FAT long name" and problem.offset is not None for problem in problems_of(volume))


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"*/:<>?\\|'), min_size=1, max_size=127)
)
@example("\u0131")
def test_any_long_name_is_read(name: str) -> None:
    name = f"x{name}y"
    assert list(files_of(small({name: b"z"}))) == [name]


CHAIN: dict[str, bytes | ForgedFile] = {"LONG": bytes(range(256)) * 10, "OTHER": b"healthy"}  # LONG: clusters 2-6


@pytest.mark.parametrize(
    ("cluster", "value", "message"),
    [
        (3, 3, "loops"),
        (5, 3, "twice"),
        (4, 0, "free"),
        (4, 1, "does not exist"),
        (4, 0xFF7, "marked bad"),
        (4, 0xFE0, "does not exist"),
        (3, 0xFFF, "ends before"),
    ],
)
def test_a_damaged_chain_costs_its_file_only(cluster: int, value: int, message: str) -> None:
    volume = small(CHAIN)
    set_fat12(volume, cluster, value)
    files = files_of(volume)
    assert files["OTHER"].read_bytes() == b"healthy"
    assert files["LONG"].size == 2560
    with pytest.raises(CorruptImage, match=message) as caught:
        files["LONG"].read_bytes()
    assert caught.value.structure == "FAT cluster chain"
    assert caught.value.offset is not None
    assert caught.value.offset >= FAT


@pytest.mark.parametrize(("first", "message"), [(0, "free"), (1, "does not exist"), (0xFFF0, "does not exist")])
def test_a_damaged_first_cluster(first: int, message: str) -> None:
    volume = small(CHAIN)
    at = entry_at(volume, b"LONG")
    struct.pack_into("<H", volume, at + 26, first)
    with pytest.raises(CorruptImage, match=message) as caught:
        files_of(volume)["LONG"].read_bytes()
    assert caught.value.offset == at


def test_a_size_over_the_volume() -> None:
    volume = small(CHAIN)
    at = entry_at(volume, b"LONG")
    struct.pack_into("<I", volume, at + 28, 0xFFFFFFFF)
    with pytest.raises(CorruptImage, match="larger than the volume"):
        files_of(volume)["LONG"].read_at(0, 1)


def test_directories_that_hold_themselves_end() -> None:
    volume = small({"sub/file": b"x", "other/file": b"y"})
    sub, other = entry_at(volume, b"SUB"), entry_at(volume, b"OTHER")
    sub_cluster = struct.unpack_from("<H", volume, sub + 26)[0]
    volume[other + 26 : other + 28] = volume[sub + 26 : sub + 28]  # cross-linked
    inside = DATA + (sub_cluster - 2) * SECTOR + 96
    volume[inside : inside + 32] = volume[sub : sub + 32]  # sub/sub is sub
    assert list(files_of(volume)) == ["sub/file"]
    assert len([problem for problem in problems_of(volume) if "clusters of" in problem.message]) == 2


def test_two_files_with_one_name() -> None:
    volume = small({"A": b"first", "B": b"second"})
    volume[entry_at(volume, b"B")] = ord("A")
    files = files_of(volume)
    assert list(files) == ["A"]
    assert len(files) == 1
    assert [entry.name for entry in files.root] == ["A", "A"]
    assert any("second entry" in problem.message for problem in problems_of(volume))


def test_a_hostile_name_is_a_key_as_it_is() -> None:
    volume = small({"a long name to damage": b"x"})
    first, entry = long_name_parts(volume)
    target = "..\\../../etc/x\0".encode("utf-16-le")
    del first
    for number, at in enumerate(range(entry - 32, ROOT - 32, -32)):
        part = target[number * 26 : number * 26 + 26].ljust(26, b"\xff")
        volume[at + 1 : at + 11], volume[at + 14 : at + 26], volume[at + 28 : at + 32] = (
            part[:10],
            part[10:22],
            part[22:],
        )
    files = files_of(volume)
    [path] = files
    assert path == "..\\../../etc/x"
    assert files[path].read_bytes() == b"x"


class Counter(BytesSource):
    reads = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read_at(offset, length)


def test_directories_are_read_whole() -> None:
    volume = fat_volume({f"many/file{n}.txt": b"" for n in range(5000)}, sectors=20000, sectors_per_cluster=1)
    source = Counter(volume.read_at(0, volume.size))
    assert len(Image.open(source).partitions[1].files) == 5000
    assert source.reads < 20


@pytest.mark.parametrize("cut", range(0, 4000, 97))
def test_a_volume_cut_anywhere(cut: int) -> None:
    volume = small({**CHAIN, "sub/file": b"x" * 5000})
    walk_everything(bytes(volume[: cut * SECTOR]))


FIELDS = [(11, 2), (13, 1), (14, 2), (16, 1), (17, 2), (19, 2), (21, 1), (22, 2), (32, 4), (510, 2)]


@pytest.mark.parametrize(("offset", "size"), FIELDS)
@pytest.mark.parametrize("value", [0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0xFFFF, 0xFFFFFFFF])
def test_a_boot_sector_with_any_field_wrong(offset: int, size: int, value: int) -> None:
    volume = small({**CHAIN, "sub/file": b"x" * 5000})
    volume[offset : offset + size] = (value & (1 << size * 8) - 1).to_bytes(size, "little")
    walk_everything(bytes(volume))


PLAIN = bytes(small({**CHAIN, "sub/dir/a long name.txt": b"x" * 1500, "sub/b": b""}, "LABEL"))
FAT32 = fat_volume({**CHAIN, "sub/dir/a long name.txt": b"x" * 1500}, sectors=4000, fat_bits=32)
VOLUMES = st.sampled_from([PLAIN, FAT32.read_at(0, FAT32.size)])
# Most of a volume is file content, which can't break anything: damage what describes it.
PLACES = (
    st.integers(0, 63) | st.integers(FAT, FAT + 64) | st.integers(ROOT, ROOT + 1024) | st.integers(0, len(PLAIN) - 1)
)


@settings(max_examples=300)
@given(VOLUMES, st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=12))
def test_any_damage_gives_results_or_corrupt_image(volume: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(volume)
    for place, value in damage:
        damaged[place] = value
    walk_everything(bytes(damaged))


def walk_everything(volume: bytes) -> None:
    """Whatever can be asked is answered or raises one of our errors; nothing more than the volume comes out."""
    with Image.open(volume) as image:
        for partition in image.partitions:
            assert partition.explain()
            assert partition.label is None or partition.label
            try:
                files = partition.files
                list(files.glob("**/*.txt"))
                found = list(files.values())
            except (CorruptImage, UsageError):
                continue
            for file in found:
                with contextlib.suppress(CorruptImage):
                    assert len(file.read_bytes()) == file.size <= len(volume)
        assert isinstance(image.problems, tuple)


def test_glob() -> None:
    paths = ("a.tgz", "B.TGZ", "c.gz", "d/e.tgz", "d/f/g.tgz", "d/f/h.txt", "i/j.gz")
    tree: dict[str, bytes | ForgedFile] = dict.fromkeys(paths, b"")
    files = files_of(small(tree))

    def matches(pattern: str) -> set[str]:
        found = [file.path for file in files.glob(pattern)]
        assert len(found) == len(set(found))
        return set(found)

    assert matches("*.tgz") == {"a.tgz", "B.TGZ"}
    assert matches("**/*.tgz") == {"a.tgz", "B.TGZ", "d/e.tgz", "d/f/g.tgz"}
    assert matches("d/*") == {"d/e.tgz"}
    assert matches("d/**") == {"d/e.tgz", "d/f/g.tgz", "d/f/h.txt"}
    assert matches("**") == set(tree)
    assert matches("?/[ef]*") == {"d/e.tgz"}
    assert matches("**/f/**/*.t*") == {"d/f/g.tgz", "d/f/h.txt"}
    assert matches("nothing*") == set()
    with pytest.raises(InvalidArgument):
        files.glob("")


def test_files_are_streams_and_traversables(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("inside.txt", "text")
    data = archive.getvalue() + b""
    files = files_of(small({"sub/x.zip": ForgedFile(data, fragmented=True), "t.txt": "grüße".encode()}))
    file = files["sub/x.zip"]
    with file.open() as stream:
        assert zipfile.ZipFile(stream).read("inside.txt") == b"text"
        stream.seek(-5, io.SEEK_END)
        assert stream.read() == data[-5:]
        stream.seek(0)
        assert hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256() == hashlib.sha256(data).hexdigest()
        with pytest.raises(io.UnsupportedOperation):
            stream.write(b"x")
    with file.open() as stream, (tmp_path / "copy").open("wb") as copy:
        shutil.copyfileobj(stream, copy)
    assert (tmp_path / "copy").read_bytes() == data
    assert files.root.joinpath("sub", "x.zip").is_file()
    assert (files.root / "sub").is_dir()
    assert files["t.txt"].read_text() == "grüße"
    assert [entry.name for entry in files.root] == ["t.txt", "sub"]
    with pytest.raises(InvalidArgument):
        file.open("wb")
    with pytest.raises(TruncatedImage):
        file.read_at(file.size - 1, 2)
    with pytest.raises(PathNotFound, match="directory"):
        files["sub"]


def ranges(size: int) -> Iterator[tuple[int, int]]:
    for offset in (0, 1, 511, 512, 513, 1024, size - 1, size):
        for length in (0, 1, 512, 700, size - offset):
            if offset + length <= size:
                yield offset, length


def test_ranges_across_extents() -> None:
    data = bytes(range(256)) * 9 + b"end"
    file = files_of(small({"f": ForgedFile(data, fragmented=True)}))["f"]
    assert len(file.extents) == 5
    for offset, length in ranges(len(data)):
        assert file.read_at(offset, length) == data[offset : offset + length]


def with_directory(entries: bytes, *, fragmented: bool = False) -> bytearray:
    """A FAT16 volume with clusters of 512 bytes and a directory "D" of these entries behind its dots."""
    dots = b".          \x10" + bytes(20) + b"..         \x10" + bytes(20)
    volume = fat_volume({"D": ForgedFile(dots + entries, fragmented=fragmented), "z": b"z"}, sectors=40000)
    whole = bytearray(volume.read_at(0, volume.size))
    at = whole.index(b"D          \x20")
    whole[at + 11] = 0x10
    whole[at + 28 : at + 32] = bytes(4)
    return whole


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize(("count", "goes_on"), [(65535, False), (65536, False), (65537, True), (65600, True)])
def test_a_directory_is_read_up_to_its_largest_size(
    count: int,
    goes_on: bool,  # a parameter
    fragmented: bool,  # a parameter
    tmp_path: Path,
) -> None:
    """Linux stops at 65,536 entries, too (FAT_MAX_DIR_ENTRIES); the two of dots are among them."""
    entries = b"".join(b"%08X   \x20" % number + bytes(20) for number in range(count - 2))
    volume = with_directory(entries, fragmented=fragmented)
    with Image.open(volume) as image:
        partition = image.partitions[1]
        assert len(partition.files) == min(count, 65536) - 2 + 1
        messages = [problem.message for problem in partition.problems]
        assert messages == (["'D' goes on past 65,536 entries"] if goes_on else [])
        if goes_on:
            [offset] = [problem.offset for problem in partition.problems]
            assert image.read_at(offset or 0, 8) == b"%08X" % (65536 - 2)
    if not goes_on:
        (tmp_path / "volume").write_bytes(volume)
        assert len(run("mdir", "-b", "-i", tmp_path / "volume", "::D").splitlines()) == count - 2


@pytest.mark.parametrize("target", [0, 1, 2, 5])
def test_a_directory_whose_chain_comes_back_is_read_once(target: int) -> None:
    """Into the middle of a run of clusters, too."""
    volume = with_directory(b"".join(b"%08X   \x20" % number + bytes(20) for number in range(6 * 16 - 2)))
    fat, last = 512, 2 + 5
    for copy in (0, 1):
        at = fat + copy * int.from_bytes(volume[22:24], "little") * 512 + 2 * last
        assert volume[at : at + 2] == b"\xff\xff"
        volume[at : at + 2] = (2 + target).to_bytes(2, "little")
    with Image.open(volume) as image:
        assert len(image.partitions[1].files) == 6 * 16 - 2 + 1
        [problem] = image.partitions[1].problems
        assert "the chain loops" in problem.message


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("path", ["", "D/"])
def test_entries_before_what_can_not_be_read_are_there(path: str, count: int) -> None:
    """In the fixed root directory, and in a run of clusters that is read at once."""
    names = [f"F{number:07}" for number in range(60)]
    if path:
        volume = with_directory(b"".join(name.encode() + b"   \x20" + bytes(20) for name in names))
    else:
        made = fat_volume(dict.fromkeys(names, b""), sectors=40000)
        volume = bytearray(made.read_at(0, made.size))
    first = volume.index(names[count].encode())
    with Image.open(Unreadable(BytesSource(bytes(volume)), first, first + 512)) as image:
        files = list(image.partitions[1].files)
        assert [name for name in files if name.startswith(f"{path}F")] == [f"{path}{name}" for name in names[:count]]
        assert ("z" in files) == bool(path)
        assert Problem("test", "it can't be read", first) in image.problems
