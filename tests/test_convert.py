"""Writing seekable zstd: plain zstd to other programs, quick to read for ours, and resumable."""

from __future__ import annotations

import bz2
import hashlib
import random
import re
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support import require_tool, run, run_to_file
from tests.tool_disk import ToolDisk
from vmvisor_image import CorruptImage, DestinationExists, Image, InvalidArgument, convert
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.compressions.framed import FramedReader
from vmvisor_image.disk import raw
from vmvisor_image.disk.convert import _OTHER_SUFFIXES
from vmvisor_image.faces.cli import main
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.streams.sources import BytesSource

FRAME = 1 << 16
DATA = random.Random(6).randbytes(700_000) + bytes(900_000) + b"text " * 50_000


class Interrupted(Exception):
    pass


def interrupt_at(size: int) -> object:
    def progress(done: int, total: int | None) -> None:
        if done >= size:
            raise Interrupted

    return progress


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, len(DATA)])
def test_zstd_decodes_it_and_we_do(tmp_path: Path, size: int) -> None:
    dest = tmp_path / "data.zst"
    done = convert(BytesSource(DATA[:size]), dest, frame_size=FRAME)
    assert (done.size, done.compressed, done.resumed_at) == (size, dest.stat().st_size, 0)
    assert parts(tmp_path) == []
    run_to_file(tmp_path / "data", "zstd", "-dc", dest)
    assert (tmp_path / "data").read_bytes() == DATA[:size]
    run("zstd", "--test", dest)
    with Image.open(dest) as image:
        assert image.layers[0].kind == "zstd"
        assert image.size == size
        assert image.read_at(0, size) == DATA[:size]
        assert getattr(image.layers[0].source, "problems", None) == ()


def test_the_seek_table_is_as_the_format_has_it(tmp_path: Path) -> None:
    convert(BytesSource(DATA), tmp_path / "x.zst", frame_size=FRAME)
    data = (tmp_path / "x.zst").read_bytes()
    frames, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (frames, descriptor, magic) == (-(-len(DATA) // FRAME), 0, 0x8F92EAB1)
    table = data[-9 - frames * 8 : -9]
    assert struct.unpack("<II", data[-17 - frames * 8 :][:8]) == (0x184D2A5E, len(table) + 9)
    sizes = list(struct.iter_unpack("<II", table))
    assert sum(compressed for compressed, _ in sizes) == len(data) - len(table) - 17
    assert sum(decoded for _, decoded in sizes) == len(DATA)


def test_a_whole_disk_reads_alike(tmp_path: Path, tool_built_disk: ToolDisk) -> None:
    dest = tmp_path / "disk.zst"
    assert main(["convert", str(tool_built_disk.bz2), str(dest)]) == 0
    with Image.open(tool_built_disk.bz2) as image, Image.open(dest) as again:
        expected, found = image.partitions["Hypervisor1"].files, again.partitions["Hypervisor1"].files
        assert {path: file.sha256() for path, file in found.items()} == {
            path: file.sha256() for path, file in expected.items()
        }
        source = again.layers[0].source
        assert isinstance(source, FramedReader)
        with again.open() as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    assert digest == run("sha256sum", tool_built_disk.image).split()[0]


@pytest.mark.parametrize("stop", [1, 5 * FRAME, len(DATA) - 1])
def test_an_interrupted_run_goes_on(tmp_path: Path, stop: int) -> None:
    whole, dest = tmp_path / "whole.zst", tmp_path / "x.zst"
    convert(BytesSource(DATA), whole, frame_size=FRAME)
    with pytest.raises(Interrupted):
        convert(BytesSource(DATA), dest, frame_size=FRAME, progress=interrupt_at(stop))  # type: ignore[arg-type]
    assert not dest.exists()
    assert len(parts(tmp_path)) == 1
    done = convert(BytesSource(DATA), dest, frame_size=FRAME)
    assert 0 < done.resumed_at <= len(DATA)
    assert dest.read_bytes() == whole.read_bytes()
    assert parts(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1, 5, 1000, 70_000, 200_000])
def test_a_part_that_is_damaged_is_used_up_to_the_damage(tmp_path: Path, cut: int) -> None:
    whole, dest = tmp_path / "whole.zst", tmp_path / "x.zst"
    convert(BytesSource(DATA), whole, frame_size=FRAME)
    for filler in (b"", b"\xff"):
        with pytest.raises(Interrupted):
            convert(BytesSource(DATA), dest, frame_size=FRAME, progress=interrupt_at(10 * FRAME))  # type: ignore[arg-type]
        [part] = parts(tmp_path)
        before = part.read_bytes()
        part.write_bytes(before[:cut] + filler + (before[cut + 1 :] if filler else b""))
        done = convert(BytesSource(DATA), dest, frame_size=FRAME)
        assert done.resumed_at <= cut + FRAME
        assert dest.read_bytes() == whole.read_bytes()
        dest.unlink()


def test_the_part_of_another_source_is_not_used(tmp_path: Path) -> None:
    dest = tmp_path / "x.zst"
    with pytest.raises(Interrupted):
        convert(BytesSource(DATA), dest, frame_size=FRAME, progress=interrupt_at(FRAME))  # type: ignore[arg-type]
    other = b"X" + DATA[1:]
    assert convert(BytesSource(other), dest, frame_size=FRAME).resumed_at == 0
    with Image.open(dest) as image:
        assert image.read_at(0, len(other)) == other


def test_a_damaged_source_leaves_no_file(tmp_path: Path) -> None:
    compressed = bytearray(bz2.compress(random.Random(1).randbytes(400_000), 1))
    compressed[300_000] ^= 1
    dest = tmp_path / "x.zst"
    with Image.open(bytes(compressed)) as image, pytest.raises(CorruptImage, match="bzip2 block"):
        convert(image, dest)
    assert not dest.exists()


def test_what_is_there_stays(tmp_path: Path) -> None:
    dest = tmp_path / "x.zst"
    dest.write_bytes(b"mine")
    with pytest.raises(DestinationExists):
        convert(BytesSource(DATA), dest)
    assert dest.read_bytes() == b"mine"
    convert(BytesSource(DATA), dest, overwrite=True)
    assert dest.read_bytes() != b"mine"


@pytest.mark.parametrize("wrong", [{"level": 0}, {"level": 23}, {"frame_size": 100}, {"threads": 0}])
def test_wrong_settings(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        convert(BytesSource(DATA), tmp_path / "x.zst", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = bytes(510) + b"\x55\xaa" + DATA
    (tmp_path / "disk").write_bytes(disk)
    dest = str(tmp_path / "disk.zst")
    assert main(["convert", str(tmp_path / "disk"), dest]) == 0
    assert f"{len(disk)} bytes in {Path(dest).stat().st_size}" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "disk"), dest]) == 2
    assert main(["convert", "--force", str(tmp_path / "disk"), dest]) == 0


SUFFIXES = (
    ".gz",
    ".bz2",
    ".xz",
    ".iso",
    ".vmdk",
    ".qcow2",
    ".vhd",
    ".vhdx",
    ".tgz",
    ".zip",
    ".tar",
)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".tar", ".ova", ".7z", ".VMDK", ".dd.gz", ".zst.bz2"])
def test_a_name_of_another_format(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Another program would open it as what its name says."""
    (tmp_path / "disk").write_bytes(DATA)
    dest = tmp_path / f"copy{suffix}"
    with pytest.raises(InvalidArgument, match=re.escape(f"not what .{suffix.lower().rpartition('.')[2]} stands for")):
        convert(BytesSource(DATA), dest)
    for options in ([], ["--force"]):
        assert main(["convert", str(tmp_path / "disk"), str(dest), *options]) == 2
        said = capsys.readouterr().err
        assert said.startswith("vmvisor-image: ")
        assert said.count("\n") == 1
        assert "choose a name that ends in .zst" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk"]


@pytest.mark.parametrize("name", ["copy.zst", "copy", "copy.dd.zst", "copy.ZST", "copy.of.4.1", "copy.gz.zst"])
def test_other_names_are_taken(tmp_path: Path, name: str) -> None:
    assert convert(BytesSource(DATA), tmp_path / name).size == len(DATA)


def test_every_format_that_is_read_has_its_suffix_refused() -> None:
    formats = (*COMPRESSIONS, *VIRTUAL_DISKS, *(each for each in ARCHIVES if each.HOLDS_DISKS))
    for suffix in (suffix for each in formats for suffix in each.SUFFIXES):
        assert (suffix in _OTHER_SUFFIXES) == (suffix != ".zst")
    assert not set(raw.SUFFIXES) & set(_OTHER_SUFFIXES)


class TestEveryRunHasItsOwn:
    """Kept things are keyed by all that they depend on, and belong to one writer."""

    def test_another_member_of_the_container(self, tmp_path: Path) -> None:
        chance = random.Random(3)
        disks = {name: chance.randbytes(2 << 20) for name in ("a.dd", "b.dd")}
        with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
            for name, data in disks.items():
                archive.writestr(name, data)
        with Image.open(tmp_path / "two.zip", member="a.dd") as image, pytest.raises(Interrupted):
            convert(image, tmp_path / "out.zst", progress=interrupt_at(1 << 20), frame_size=1 << 16)  # type: ignore[arg-type]
        for name in ("b.dd", "a.dd"):
            with Image.open(tmp_path / "two.zip", member=name) as image:
                done = convert(image, tmp_path / "out.zst", overwrite=True, frame_size=1 << 16)
            assert (done.resumed_at > 0) == (name == "a.dd")
            assert run_bytes("zstd", "-dc", tmp_path / "out.zst") == disks[name]

    def test_two_runs_at_once(self, tmp_path: Path) -> None:
        """The second begins while the first is at it, and ends first: both publish a whole file."""
        data = random.Random(4).randbytes(3 << 20)
        second: list[bytes] = []

        def progress(done: int, total: int | None) -> None:
            if not second:
                second.append(b"begun")
                convert(BytesSource(data), tmp_path / "out.zst", frame_size=FRAME, overwrite=True)
                second.append(run_bytes("zstd", "-dc", tmp_path / "out.zst"))
                published = (tmp_path / "out.zst").open("rb")
                kept.append(published.read())
                published.close()
            elif len(kept) == 1 and done >= 2 << 20:
                kept.append((tmp_path / "out.zst").read_bytes())

        kept: list[bytes] = []
        convert(BytesSource(data), tmp_path / "out.zst", frame_size=FRAME, overwrite=True, progress=progress)
        assert second == [b"begun", data]
        assert kept[0] == kept[1], "the first wrote into what the second had published"
        assert run_bytes("zstd", "-dc", tmp_path / "out.zst") == data
        assert parts(tmp_path) == []

    def test_a_second_run_that_ends_early_leaves_nothing(self, tmp_path: Path) -> None:
        data = random.Random(4).randbytes(3 << 20)
        tried: list[bool] = []

        def progress(done: int, total: int | None) -> None:
            before = parts(tmp_path)
            with pytest.raises(Interrupted):
                convert(BytesSource(data), tmp_path / "out.zst", frame_size=FRAME, progress=interrupt_at(FRAME))  # type: ignore[arg-type]
            tried.append(parts(tmp_path) == before)

        convert(BytesSource(data), tmp_path / "out.zst", frame_size=FRAME, progress=progress)
        assert tried
        assert all(tried)


def run_bytes(*command: str | Path) -> bytes:
    """What a program writes."""
    return subprocess.run([require_tool(str(command[0])), *command[1:]], capture_output=True, check=True).stdout
