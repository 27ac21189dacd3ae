"""FAT as its boot sector and its names say it: the kind, labels, case, names that are none; judged by mtools."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import require_tool, run
from vmvisor_image import CorruptImage, Directory, Image, PartialExtraction, UnsafeName, verify
from vmvisor_image.base.names import fold_name
from vmvisor_image.faces.cli import main
from vmvisor_image.files.extraction import write_files
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import fat_volume
from vmvisor_image.volumes.fat.volume import FatVolume

SECTOR = 512


def mtools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTOOLS_SKIP_CHECK", "1")
    monkeypatch.setenv("MTOOLSRC", os.devnull)


def made(path: Path, bits: int, files: dict[str, bytes], *, sectors: int, per_cluster: int = 1) -> bytearray:
    """A volume that mkfs.fat and mcopy made."""
    with path.open("wb") as file:
        file.truncate(sectors * SECTOR)
    run("mkfs.fat", "-F", str(bits), "-s", str(per_cluster), path)
    for name, data in files.items():
        source = path.with_suffix(".part")
        source.write_bytes(data)
        run("mcopy", "-i", path, source, f"::{name}")
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("bits", "clusters", "left"),
    [(16, 4200, 4000), (16, 4200, 100), (12, 3000, 700), (32, 66000, 65000), (32, 66000, 9)],
)
def test_the_end_of_a_volume_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, clusters: int, left: int
) -> None:
    """The kind is what the boot sector's count of clusters makes it, not what those that are left would."""
    mtools(monkeypatch)
    path = tmp_path / "volume.img"
    chance = random.Random(left)
    files = {"A.BIN": chance.randbytes(600), "B.BIN": chance.randbytes(1), "C.BIN": chance.randbytes(200 * SECTOR)}
    raw = made(path, bits, files, sectors=clusters + 900)
    with Image.open(bytes(raw)) as image:
        volume = image.partitions[1].volume
        assert isinstance(volume, FatVolume)
        whole = volume.geometry
    cut = whole.data_offset + left * SECTOR
    path.write_bytes(raw[:cut])
    with Image.open(path) as image:
        partition = image.partitions[1]
        assert partition.kind == f"fat{bits}"
        assert list(partition.files) == list(files)
        assert any(problem.message.startswith("total sectors") for problem in image.problems)
        for name, data in files.items():
            if left > 210 or name != "C.BIN":
                assert partition.files[name].read_bytes() == data
                (tmp_path / "got").unlink(missing_ok=True)
                run("mcopy", "-i", path, f"::{name}", tmp_path / "got")
                assert (tmp_path / "got").read_bytes() == data
            else:
                with pytest.raises(CorruptImage, match="behind the partition's end, which is missing"):
                    partition.files[name].read_bytes()
    report = verify(path)
    assert not report.is_sound
    assert [file.path for file in report.partitions[0].files if file.error] == (["C.BIN"] if left <= 210 else [])
    fat = report.partitions[0].fat
    assert fat is not None
    assert fat.clusters == whole.cluster_count
    assert fat.lost_clusters == 0


@pytest.mark.parametrize("missing", range(6))
@pytest.mark.parametrize("bits", [12, 16])
def test_the_last_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, missing: int) -> None:
    """Clusters numbered 0xFF0 to 0xFF5, and 0xFFF0 to 0xFFF5, are clusters as any other."""
    mtools(monkeypatch)
    clusters = {12: 4084, 16: 65524}[bits] - missing
    path = tmp_path / "volume.img"
    sectors = 1 + 2 * -(-(clusters + 2) * bits // 8 // SECTOR) + 32 + clusters
    with path.open("wb") as file:
        file.truncate(sectors * SECTOR)
    run("mkfs.fat", "-F", str(bits), "-s", "1", "-R", "1", "-f", "2", "-r", "512", "-a", path)
    data = random.Random(bits).randbytes(clusters * SECTOR)
    (tmp_path / "file").write_bytes(data)
    run("mcopy", "-i", path, tmp_path / "file", "::BIG.BIN")
    with Image.open(path) as image:
        assert image.partitions[1].kind == f"fat{bits}"
        assert image.partitions[1].files["BIG.BIN"].read_bytes() == data
        assert image.problems == ()
    assert verify(path).is_sound
    assert f"{clusters}/{clusters} clusters" in run("fsck.fat", "-n", path)


def test_labels_as_other_programs_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mtools(monkeypatch)
    path = tmp_path / "volume.img"
    run("mkfs.fat", "-C", "-F", "12", "-n", "ABC", path, "1440")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"ABC        \x08")

    def label() -> tuple[str | None, str]:
        path.write_bytes(raw)
        with Image.open(path) as image:
            said = run("blkid", "-p", "-o", "export", path).splitlines()
            return image.partitions[1].label, next((line[6:] for line in said if line.startswith("LABEL=")), "")

    assert label() == ("ABC", "ABC")
    raw[at] = 0x05  # stands for 0xE5, as in names
    ours, _ = label()
    assert ours == b"\xe5BC".decode("ibm437")
    with Image.open(path) as image:
        assert image.partitions[ours].number == 1
        assert image.partitions[1].label is not None
    raw[at] = 0xE5  # removed: the boot sector's copy is left
    assert label() == (None, "")
    assert run("fatlabel", path).strip() == ""
    assert "has no label" in run("mlabel", "-i", path, "-s", "::")
    with Image.open(path) as image:
        volume = image.partitions[1].volume
        assert isinstance(volume, FatVolume)
        assert volume.boot_sector_label == "ABC"
        assert volume.facts["label in the boot sector"] == "ABC"
    raw[at : at + 12] = b"NEW        \x18"  # a directory is no label
    assert label()[0] is None


def with_long_names(names: dict[str, bytes]) -> bytearray:
    """A volume with those names, written under others of their length and patched: short names stay as they are."""
    plain = {"".join("1234567890"[n] for _ in name) + " long name": name for n, name in enumerate(names)}
    volume = fat_volume({key: names[name] for key, name in plain.items()}, sectors=4000)
    raw = bytearray(volume.read_at(0, volume.size))
    places = [at for at in range(0, 100 * SECTOR, 32) if raw[at + 11] == 0x0F and raw[at]]
    for key, name in plain.items():
        for place, (old, new) in enumerate(zip(key, name, strict=False)):
            number, within = divmod(place, 13)
            for at in places:
                units = [*range(at + 1, at + 11, 2), *range(at + 14, at + 26, 2), *range(at + 28, at + 32, 2)]
                if raw[at] & 0x3F == number + 1 and raw[units[within] : units[within] + 2] == old.encode("utf-16-le"):
                    struct.pack_into("<H", raw, units[within], ord(new))
    return raw


NAMES = {
    "straße": b"1",
    "strasse": b"2",
    "aﬁ": b"3",
    "afi": b"4",
    "\u212aelvin": b"5",
    "kelvin": b"6",
    "ſo": b"7",
    "so": b"8",
}


def test_names_that_only_casefold_takes_for_one(tmp_path: Path) -> None:
    raw = with_long_names(NAMES)
    with Image.open(bytes(raw)) as image:
        files = image.partitions[1].files
        assert {path.removesuffix(" long name"): file.read_bytes() for path, file in files.items()} == NAMES
        assert image.problems == ()
        for name, data in NAMES.items():
            path = f"{name} long name"
            entry = files.root.get(path)
            assert files[path].read_bytes() == data
            assert entry is not None
            assert not isinstance(entry, Directory)
            assert entry.read_bytes() == data
            assert [file.read_bytes() for file in files.glob(path)] == [data]
        assert files["STRASSE LONG NAME"].read_bytes() == b"2"
        assert files["STRAßE LONG NAME"].read_bytes() == b"1"
        assert files["KELVIN LONG NAME"].read_bytes() == b"6"
        assert [file.read_bytes() for file in files.glob("K* LONG NAME")] == [b"6"]
        written = files.extract(tmp_path)
        assert {path.name.removesuffix(" long name"): path.read_bytes() for path in written} == NAMES


def test_an_exact_name_wins() -> None:
    volume = fat_volume({"one": b"1", "two": b"2"}, sectors=4000)
    raw = bytearray(volume.read_at(0, volume.size))
    at = raw.index(b"TWO        ")
    raw[at : at + 3], raw[at + 12] = b"ONE", 0  # "ONE" beside "one"
    with Image.open(bytes(raw)) as image:
        files = image.partitions[1].files
        assert {path: file.read_bytes() for path, file in files.items()} == {"one": b"1", "ONE": b"2"}
        assert files["ONE"].read_bytes() == b"2"
        assert files["one"].read_bytes() == files["One"].read_bytes() == b"1"
        assert any("second entry" in problem.message for problem in image.problems)


@given(st.text(max_size=8))
def test_folding_goes_from_one_character_to_one(name: str) -> None:
    folded = fold_name(name)
    assert len(folded) == len(name)
    assert fold_name(folded) == folded
    assert all(a in (b, "ς") or a.lower() == b for a, b in zip(name, folded, strict=True))


def test_folding_of_the_letters_of_code_pages() -> None:
    """All letters of the OEM code pages that have two cases fold as one, the others by themselves."""
    for page in ("cp437", "cp850", "cp852", "cp866", "cp737"):
        for code in range(0x80, 0x100):
            letter = bytes([code]).decode(page)
            if len(letter.upper()) == 1 and letter.upper().lower() == letter:
                assert fold_name(letter.upper()) == fold_name(letter)
            elif letter != "ς":
                assert fold_name(letter) == (letter.lower() if letter.lower().upper() == letter else letter)


def names_patched(short: bytes, long_name: str | None = None) -> bytes:
    """A volume with a healthy file, a folder with one, and one of that name."""
    other = "x" * 18 + ".tmp" if long_name else "QQQ.BIN"
    volume = fat_volume({"GOOD.TXT": b"good", other: b"bad", "DIR/IN.TXT": b"in"}, sectors=4000)
    raw = bytearray(volume.read_at(0, volume.size))
    if long_name is None:
        at = raw.index(b"QQQ     BIN")
        raw[at : at + 11] = short
        return bytes(raw)
    return bytes(raw.replace("xxxx".encode("utf-16-le"), long_name.ljust(4, "x").encode("utf-16-le"), 1))


@pytest.mark.parametrize(
    ("short", "long_name"),
    [
        (b"           ", None),
        (b"        BIN", None),
        (b"A/B     BIN", None),
        (b"A\x07B     BIN", None),
        (b"A:B     BIN", None),
        (b"A.B     BIN", None),
        (b"A\x7fB     BIN", None),
        (b"", "a/b"),
        (b"", "a\nb"),
        (b"", "a\x01b"),
        (b"", "a|b"),
    ],
)
def test_a_name_that_is_none_costs_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], short: bytes, long_name: str | None
) -> None:
    path = tmp_path / "volume.img"
    path.write_bytes(names_patched(short, long_name))
    with Image.open(path) as image:
        files = image.partitions[1].files
        assert files["GOOD.TXT"].read_bytes() == b"good"
        assert files["DIR/IN.TXT"].read_bytes() == b"in"
        assert "" not in list(files)
        assert any(word in problem.message for problem in image.problems for word in ("no name has", "blank"))
        assert any(word in problem.message for problem in files.problems for word in ("no name has", "blank"))
    assert not verify(path).is_sound
    if long_name is None:
        assert b"Bad short file name" in _fsck(path)
    out = tmp_path / "out"
    done = main(["extract", str(path), "1", str(out)])
    assert (out / "GOOD.TXT").read_bytes() == b"good"
    assert (out / "DIR" / "IN.TXT").read_bytes() == b"in"
    if "/" in (long_name or "") or (short.strip() and short[:1] != b" " and long_name is None and b"." not in short):
        assert done == 1
        assert not (out / "a").exists()
        assert not (out / "A").exists()
    capsys.readouterr()


def _fsck(path: Path) -> bytes:
    import subprocess

    return subprocess.run([require_tool("fsck.fat"), "-n", path], capture_output=True, check=False).stdout


def test_a_folder_with_a_slash_in_its_name_costs_what_is_in_it(tmp_path: Path) -> None:
    volume = fat_volume({"GOOD.TXT": b"good", "QQQ/IN.TXT": b"in"}, sectors=4000)
    raw = bytearray(volume.read_at(0, volume.size))
    at = raw.index(b"QQQ        ")
    raw[at : at + 3] = b"Q/Q"
    with Image.open(bytes(raw)) as image, pytest.raises(PartialExtraction) as caught:
        image.partitions[1].files.extract(tmp_path)
    assert [path for path, _ in caught.value.failed] == ["Q/Q/IN.TXT"]
    assert all(isinstance(error, UnsafeName) for _, error in caught.value.failed)
    assert caught.value.written == (tmp_path / "GOOD.TXT",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["GOOD.TXT"]


def test_the_second_of_two_names_costs_only_itself(tmp_path: Path) -> None:
    volume = fat_volume({"A.TXT": b"1", "B.TXT": b"2", "C.TXT": b"3"}, sectors=4000)
    raw = bytearray(volume.read_at(0, volume.size))
    raw[raw.index(b"B       TXT")] = ord("A")
    with Image.open(bytes(raw)) as image, pytest.raises(PartialExtraction) as caught:
        image.partitions[1].files.extract(tmp_path)
    assert caught.value.written == (tmp_path / "A.TXT", tmp_path / "C.TXT")
    assert (tmp_path / "A.TXT").read_bytes() == b"1"


def test_unsafe_names_may_cost_only_themselves(tmp_path: Path) -> None:
    class Content(BytesSource):
        timestamp = None
        extents = ()

        def chunks(self):  # type: ignore[no-untyped-def]
            yield self.read_at(0, self.size)

    files = [(name, Content(name.encode())) for name in ("good", "../up", "con", "GOOD", "x/y")]
    with pytest.raises(PartialExtraction) as caught:
        write_files(files, tmp_path / "out", skip_unsafe=True)
    assert [path for path, _ in caught.value.failed] == ["../up", "con", "GOOD"]
    assert caught.value.written == (tmp_path / "out" / "good", tmp_path / "out" / "x" / "y")
    with pytest.raises(UnsafeName, match="nothing was written"):
        write_files(files[1:3], tmp_path / "other", skip_unsafe=True)
    assert not (tmp_path / "other").exists()


def test_names_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    path = tmp_path / "volume.img"
    path.write_bytes(with_long_names(NAMES))
    system = fsspec.filesystem("vmvisor", fo=str(path))
    found = system.find("")
    assert {each.rpartition("/")[2].removesuffix(" long name"): system.cat_file(each) for each in found} == NAMES
    (folder,) = {each.rpartition("/")[0] for each in found}
    for name, data in NAMES.items():
        assert system.cat_file(f"{folder}/{name} long name") == data
        assert [system.cat_file(each) for each in system.glob(f"{folder}/{name} long name")] == [data]
