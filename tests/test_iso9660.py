"""ISO 9660 volumes: labels against libblkid and xorriso, and what lies on either side of each bound."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support import require_tool, run
from vmvisor_image import Image
from vmvisor_image.schemas.iso9660 import SECTOR
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.volumes.iso9660 import IsoVolume

FIRST = 16 * SECTOR
LABEL = slice(40, 72)
"""In a volume descriptor."""


def xorriso(folder: Path, label: str, *options: str, locale: str = "C.UTF-8") -> bytearray:
    """A volume with one small file."""
    require_tool("xorriso")
    (folder / "tree").mkdir(exist_ok=True)
    (folder / "tree" / "boot.cfg").write_text("title=example\n")
    path = folder / "cd.iso"
    made: tuple[str | Path, ...] = (
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        *options,
        "-V",
        label,
        "-o",
        path,
        folder / "tree",
    )
    run("env", f"LC_ALL={locale}", *made)
    return bytearray(path.read_bytes())


def blkid(data: bytes | bytearray, path: Path) -> str:
    """The label that libblkid finds, byte for byte."""
    path.write_bytes(data)
    for line in run("blkid", "-p", "-o", "udev", path).splitlines():
        if line.startswith("ID_FS_LABEL_ENC="):
            escaped = line.removeprefix("ID_FS_LABEL_ENC=").encode()
            return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match.group(1).decode()), escaped).decode()
    return ""


def opened(data: bytes | bytearray) -> Image:
    return Image.open(BytesSource(bytes(data)))


def label_of(data: bytes | bytearray) -> str:
    with opened(data) as image:
        return image.partitions[1].label or ""


def with_labels(data: bytearray, primary: bytes, joliet: bytes) -> bytearray:
    """With the raw labels of the two descriptors."""
    kinds = {data[at]: at for at in range(FIRST, FIRST + 4 * SECTOR, SECTOR)}
    for kind, label in ((1, primary), (2, joliet)):
        assert len(label) == 32
        data[kinds[kind] + LABEL.start : kinds[kind] + LABEL.stop] = label
    return data


@pytest.mark.parametrize("options", [(), ("-R",), ("-J",), ("-J", "-R")])
@pytest.mark.parametrize(
    "label",
    [
        "ESXI-8.0U2-22380479-STANDARD",
        "SIXTEEN-LETTERS1",
        "SIXTEEN-LETTERS12",
        "FIFTEEN-LETTERS",
        "A",
        "two words and a lot more than 16",
        "MiXeD_CaSe_Of_Label_Longer",
        "sixteen_letters_",
        "   before",
        "behind   ",
        "grüße",
        "日本語ラベル",
        "x" * 32,
    ],
)
def test_the_label_is_the_one_that_libblkid_gives(label: str, options: tuple[str, ...], tmp_path: Path) -> None:
    data = xorriso(tmp_path, label, *options)
    assert label_of(data) == label.rstrip() == blkid(data, tmp_path / "cd.iso")
    with opened(data) as image:
        assert list(image.partitions[label.rstrip()].files) == ["boot.cfg"]
        assert image.problems == ()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("options", [(), ("-J",)])
@pytest.mark.parametrize("label", ["éa-longer-label-with-accent-ü", "grüße", "日本語ラベル"])
def test_a_label_that_is_not_ascii_is_whole(label: str, options: tuple[str, ...], locale: str, tmp_path: Path) -> None:
    """Where libblkid, which compares bytes, gives Joliet's 16 characters, or each byte as a character."""
    assert label_of(xorriso(tmp_path, label, *options, locale=locale)) == label
    assert f"Volume Id    : {label}" in run(
        "env", "LC_ALL=C.UTF-8", "xorriso", "-indev", tmp_path / "cd.iso", "-pvd_info"
    )


def test_labels_of_any_two_descriptors_are_those_of_libblkid(tmp_path: Path) -> None:
    """Equal, of other case, with underscores for what a character set lacks, and quite different ones."""
    data = xorriso(tmp_path, "LABEL", "-J")
    noise = random.Random(16)
    chosen: Callable[[str, Sequence[int]], str] = lambda alphabet, lengths: "".join(  # noqa: E731  # as it is used below
        noise.choices(alphabet, k=noise.choice(lengths))
    )
    merged = 0
    for _ in range(300):
        alphabet = noise.choice(["AB_", "Aa_ ", "abAB ", " A", "A\0b_", "A-Z.9"])
        primary = chosen(alphabet, (0, 1, 5, 15, 16, 17, 20, 31, 32))
        joliet = "".join(c if noise.random() < 0.95 else noise.choice(("_", c.swapcase(), "é")) for c in primary)[:16]
        if noise.random() < 0.2:
            joliet = chosen(alphabet, (0, 1, 5, 15, 16))
        for was in ("é", "ß", "日", "\N{OHM SIGN}"):
            if noise.random() < 0.3:
                joliet = joliet.replace("_", was, 1)
        padding = noise.choice(" \0")
        raw = joliet.ljust(16, padding).encode("utf-16-be")
        with_labels(data, primary.encode().ljust(32), raw)
        found = label_of(data)
        assert found == blkid(data, tmp_path / "cd.iso"), (primary, joliet, padding)
        merged += len(found) > 16
    assert merged > 30


def problems_of(data: bytes | bytearray | SparseImage) -> dict[str, int | None]:
    """What is said of a volume when all its directories are listed, and where."""
    with Image.open(data if isinstance(data, SparseImage) else BytesSource(bytes(data))) as image:
        list(image.partitions[1].files)
        return {problem.message: problem.offset for problem in image.partitions[1].problems}


def both_orders(number: int) -> bytes:
    return number.to_bytes(4, "little") + number.to_bytes(4, "big")


def with_descriptors(count: int) -> bytearray:
    """A volume with a file "a" and so many descriptors before the one that is to be the last."""
    whole = iso_volume({"a": b"first"})
    primary, rest = whole[FIRST : FIRST + SECTOR], whole[FIRST + SECTOR :]
    another = (b"\0CD001\1" + b"ANOTHER SYSTEM").ljust(SECTOR, b"\0")
    data = bytearray(whole[:FIRST] + primary + another * (count - 1) + rest)

    def move(at: int) -> int:
        block = int.from_bytes(data[at + 2 : at + 6], "little") + count - 1
        data[at + 2 : at + 10] = both_orders(block)
        return block

    at = move(FIRST + 156) * SECTOR
    while data[at]:
        move(at)
        at += data[at]
    return data


@pytest.mark.parametrize(("count", "is_cut"), [(1, False), (63, False), (64, True), (65, True)])
def test_descriptors_are_read_up_to_the_most(count: int, is_cut: bool) -> None:
    data = with_descriptors(count)
    message = "there is no last one among the first 64, and no more are read"
    assert problems_of(data) == ({message: FIRST + 64 * SECTOR} if is_cut else {})
    with opened(data) as image:
        assert image.partitions[1].files["a"].read_bytes() == b"first"


def with_use(use: bytes, areas: Sequence[bytes] = ()) -> bytearray:
    """A volume with a file "a" whose record has this system use area, and sectors of others behind it."""
    data = bytearray(iso_volume({"a": b"first"}))
    root = int.from_bytes(data[FIRST + 158 : FIRST + 162], "little") * SECTOR
    at = root + data[root]
    at += data[at]
    record = bytearray(data[at : at + 33] + b"A;1" + use)
    record[32], record[0] = 3, len(record) + len(record) % 2
    data[at : root + SECTOR] = record.ljust(root + SECTOR - at, b"\0")
    for area in areas:
        data += area.ljust(-(-len(area) // SECTOR) * SECTOR, b"\0")
    return data


def goes_on(block: int, length: int) -> bytes:
    return b"CE\x1c\1" + both_orders(block) + both_orders(0) + both_orders(length)


NAME = b"NM\x09\1\0name"
AREAS = len(iso_volume({"a": b"first"})) // SECTOR
"""Block of the first sector behind the volume."""


@pytest.mark.parametrize(
    ("count", "is_cut"), [(0, False), (1, False), (31, False), (32, False), (33, True), (50, True)]
)
def test_a_system_use_area_goes_on_as_often_as_is_read(count: int, is_cut: bool) -> None:
    areas = [goes_on(AREAS + number, len(goes_on(0, 0))) for number in range(1, count)] + [NAME]
    data = with_use(goes_on(AREAS, 28), areas) if count else with_use(NAME)
    assert list(problems_of(data)) == (["it has more continuation areas than 32"] if is_cut else [])
    with opened(data) as image:
        assert [file.read_bytes() for file in image.partitions[1].files.values()] == [b"first"]
        assert list(image.partitions[1].files) == ["A" if is_cut else "name"]


@pytest.mark.parametrize("length", [9, 2047, 2048, 2049, 1 << 31])
def test_a_system_use_area_is_read_up_to_the_most(length: int) -> None:
    area = NAME + b"PD\xff\1".ljust(255, b"p") * 7
    area += b"PD" + bytes((2048 - len(area), 1)) + bytes(2044 - len(area))
    data = with_use(goes_on(AREAS, length), [area[:length], bytes(SECTOR)])
    cut = {f"it goes on with {length} bytes, of which 2048 are read"} if length > 2048 else set()
    broken = {"an entry's length is not valid"} if length == 2047 else set()
    assert set(problems_of(data)) == cut | broken
    with opened(data) as image:
        assert list(image.partitions[1].files) == ["name"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (NAME + bytes(6), None),
        (NAME + b"\1\2\3", None),
        (NAME + b"NM\x0a\1\0more", "an entry's length is not valid"),
        (NAME + b"NM\3\1", "an entry's length is not valid"),
        (NAME + b"SL\x0b\1\0\0\4link", None),
        (NAME + b"SL\x0b\1\0\0\5link", "a part of the link's target is longer than the entry"),
    ],
)
def test_entries_of_a_system_use_area_that_are_cut(use: bytes, message: str | None) -> None:
    data = with_use(use)
    assert list(problems_of(data)) == ([] if message is None else [message])
    with opened(data) as image:
        assert list(image.partitions[1].files) == ["name"]


def with_root(sectors: dict[int, bytes], length: int) -> SparseImage:
    """A volume whose root directory lies behind it and has these sectors of so many bytes."""
    data = bytearray(iso_volume({"a": b"first"}, rock_ridge=False))
    root = int.from_bytes(data[FIRST + 158 : FIRST + 162], "little")
    old = bytes(data[root * SECTOR : (root + 1) * SECTOR])
    behind = len(data)
    data[FIRST + 158 : FIRST + 174] = both_orders(behind // SECTOR) + both_orders(length)
    pieces = [(behind + number * SECTOR, sector or old) for number, sector in sectors.items()]
    return SparseImage(behind + -(-length // SECTOR) * SECTOR + SECTOR, [(0, bytes(data)), *pieces])


MOST = 64 << 20


@pytest.mark.parametrize("length", [MOST - SECTOR, MOST, MOST + 1, MOST + SECTOR])
def test_a_directory_is_read_up_to_its_largest_size(length: int) -> None:
    """What lies in the last sector that is read is found."""
    data = with_root({min(length, MOST) // SECTOR - 1: b""}, length)
    found = f"'/' has {length} bytes: only the first {MOST} are read"
    assert list(problems_of(data)) == ([found] if length > MOST else [])
    with Image.open(data) as image:
        assert image.partitions[1].files["a"].read_bytes() == b"first"


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 1100])
def test_problems_are_listed_up_to_the_most(count: int) -> None:
    data = with_root({0: b"", **dict.fromkeys(range(1, count + 1), b"\xff" * SECTOR)}, (count + 1) * SECTOR)
    with Image.open(data) as image:
        assert list(image.partitions[1].files) == ["a"]
        found = image.partitions[1].problems
    assert len(found) == min(count, 1001)
    rest = [problem.message for problem in found if "left out" in problem.message]
    assert rest == ([f"{count - 1000} more problems are left out"] if count > 1000 else [])


def test_a_path_table_is_read_up_to_its_largest_size() -> None:
    data = bytearray(iso_volume({"a": b"first", "d/b": b"second"}))
    for size, wanted in ((MOST, "bytes wanted"), (MOST + 1, f"at most {MOST}, found {MOST + 1}")):
        data[FIRST + 132 : FIRST + 140] = both_orders(size)
        with opened(data) as image:
            volume = image.partitions[1].volume
            assert isinstance(volume, IsoVolume)
            [problem] = volume.check().problems
            assert wanted in problem.message


def test_a_file_whose_last_extent_is_missing_is_told_of() -> None:
    data = bytearray(iso_volume({"a": b"first", "b": b"second"}, rock_ridge=False))
    root = int.from_bytes(data[FIRST + 158 : FIRST + 162], "little") * SECTOR
    at = root
    while data[at + 33 : at + 36] != b"b;1":
        at += data[at]
    data[at + 25] |= 0x80  # more extents follow
    assert list(problems_of(data)) == ["'/' ends before its last file does"]
    with opened(data) as image:
        assert list(image.partitions[1].files) == ["a"]
