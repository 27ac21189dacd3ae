"""Each message of the command line that names a next step: it is in the words given, and it works."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.media import module, small_disk
from tests.support import run
from tests.test_destinations import LIMITED, linux
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import InvalidArgument
from vmvisor_image.faces.cli import main
from vmvisor_image.faces.cli.examples import EXAMPLES
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk
from vmvisor_image.testing.forge_modules import tar_archive
from vmvisor_image.testing.forge_vmfs_files import vmfs_volume

DONE, BAD_INPUT, MISUSE = 0, 1, 2
CONFIGURATION = "kernel=vmkernel.gz\nmodules=oem.tgz\nbuild=4.1.0-260247\nupdated={updated}\nbootstate=0\n"
BANK = {
    "vmkernel.gz": module("vmkernel.gz"),
    "oem.tgz": module("oem.tgz"),
    "packages/4.1.0/viclient.exe": b"client",
}
COMMAND = re.compile(r"`(vmvisor-image [^`]+)`")
MEANT = re.compile(r"did you mean '([^']+)'\?")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    bank = {**BANK, "boot.cfg": CONFIGURATION.format(updated=0).encode()}
    small_disk(bank).write_to(folder / "esx.dd")
    missing = {**bank, "boot.cfg": bank["boot.cfg"].replace(b"oem.tgz", b"oem.tgz --- gone.v00")}
    small_disk(missing).write_to(folder / "missing.dd")
    marked = fat_volume(bank, sectors=6000, label="BANK", marker=bytes(range(16)))
    mbr_disk([ForgedPartition(2, 6, 64, 6000, content=marked)], sectors=8192).write_to(folder / "idle.dd")
    plain = fat_volume({"a.txt": b"a"}, sectors=6000, label="DATA")
    mbr_disk([ForgedPartition(1, 0xC, 64, 6000, content=plain)], sectors=8192).write_to(folder / "plain.dd")
    (volume,) = vmfs_volume({"vm/notes.txt": b"of a virtual machine"})
    sectors = volume.size // 512
    mbr_disk([ForgedPartition(1, 0xFB, 128, sectors, content=volume)], sectors=128 + sectors).write_to(
        folder / "store.dd"
    )
    inner = gzip.compress(tar_archive({"etc/hosts": b"127.0.0.1"}), mtime=0)
    (folder / "outer.tar").write_bytes(tar_archive({"local.tgz": inner, "notes.txt": b"notes"}))
    (folder / "notes.txt").write_text("This is a text.\n" * 100)
    run("bzip2", "-k", folder / "esx.dd")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps(message: str) -> list[list[str]]:
    """Commands that a message names, without those that stand for any path."""
    return [shlex.split(found)[1:] for found in COMMAND.findall(message) if "PATH" not in found]


LINES = [
    # what boots
    ("system store.dd", MISUSE, r"a datastore without ESXi, from which nothing boots: partition 1 \(\S+\) holds files"),
    ("pxe store.dd out", MISUSE, r"a datastore without ESXi, .*; `vmvisor-image ls store\.dd 1/` lists"),
    ("system --bank active store.dd", MISUSE, "a datastore without ESXi"),
    ("system plain.dd", MISUSE, r"no boot bank in any partition: there are 1 \(DATA\); `vmvisor-image info plain\.dd`"),
    ("pxe plain.dd out", MISUSE, r"no boot bank in any partition: there are 1 \(DATA\)"),
    (
        "system idle.dd --bank active",
        MISUSE,
        r"starts no bank of this disk \(partition 2 .*: its 'updated' is 0, .*`vmvisor-image system idle\.dd --bank 2`",
    ),
    ("pxe esx.dd out --bank active", MISUSE, r"`vmvisor-image pxe esx\.dd out --bank 1`"),
    ("system esx.dd --bank active", MISUSE, r"partition 1 \(Hypervisor1\): it lacks VMware's marker"),
    (
        "system esx.dd --bank 4",
        MISUSE,
        r"4 \(Hypervisor0\) holds no boot bank.*as the bank: 1 \(Hypervisor1\)",
    ),
    ("system esx.dd --bank 9", MISUSE, r"no partition 9; there are 4, 1; `vmvisor-image info esx\.dd`"),
    # paths
    ("ls esx.dd 9", MISUSE, r"there are 4 \(Hypervisor0\), 1 \(Hypervisor1\); `vmvisor-image info esx\.dd` shows"),
    ("ls esx.dd 1/nosuch", MISUSE, r"no '1/nosuch' in this image; `vmvisor-image ls esx\.dd 1/` lists"),
    ("cat esx.dd 1/packages/nosuch", MISUSE, r"`vmvisor-image ls esx\.dd 1/packages/` lists what is there"),
    ("cat esx.dd 1 nosuch", MISUSE, r"no '1/nosuch' in this image; `vmvisor-image ls esx\.dd 1/` lists"),
    ("cat esx.dd 1 packages", MISUSE, r"'1/packages' is a directory.*`vmvisor-image ls esx\.dd 1/packages/` lists it"),
    ("cat esx.dd 1/", MISUSE, r"'1/' is a directory.*`vmvisor-image ls esx\.dd 1/` lists it"),
    ("hexdump esx.dd 1/packages", MISUSE, r"`vmvisor-image ls esx\.dd 1/packages/` lists it"),
    ("extract esx.dd 1/nosuch out", MISUSE, r"`vmvisor-image ls esx\.dd 1/` lists"),
    ("tree esx.dd Hypervisor1/nosuch", MISUSE, r"`vmvisor-image ls esx\.dd Hypervisor1/` lists"),
    ("sha256 esx.dd 1/nosuch", MISUSE, r"`vmvisor-image ls esx\.dd 1/` lists"),
    ("cat esx.dd 1/boot.cgf", MISUSE, "no '1/boot.cgf' in this image; did you mean '1/boot.cfg'?"),
    # archives and modules
    ("archive outer.tar nosuch", MISUSE, r"no file 'nosuch' in this archive; `vmvisor-image archive outer\.tar` lists"),
    (
        "archive outer.tar local.tgz nosuch",
        MISUSE,
        r"in this archive; `vmvisor-image archive outer\.tar local\.tgz --list` lists",
    ),
    ("archive esx.dd.bz2 1/boot.cfg", BAD_INPUT, r"`vmvisor-image cat esx\.dd\.bz2 1/boot\.cfg` writes that file"),
    (
        "archive esx.dd.bz2 1/oem.tgz etc/shared.conf",
        BAD_INPUT,
        r"`vmvisor-image module esx\.dd\.bz2 1/oem\.tgz etc/shared\.conf` shows that",
    ),
    (
        "module esx.dd 1/boot.cfg",
        BAD_INPUT,
        r"'1/boot\.cfg' is neither .*`vmvisor-image hexdump esx\.dd 1/boot\.cfg`",
    ),
    ("module esx.dd 1 boot.cfg", BAD_INPUT, r"'1/boot\.cfg' is neither a program"),
    ("module esx.dd 1/oem.tgz nosuch", MISUSE, r"in this archive; `vmvisor-image module esx\.dd 1/oem\.tgz` lists"),
    (
        "module esx.dd 1/packages",
        MISUSE,
        r"is a directory, not a file: `vmvisor-image ls esx\.dd 1/packages/` lists it",
    ),
    ("module esx.dd", BAD_INPUT, r"`vmvisor-image module esx\.dd PARTITION/PATH` reads a module of a disk image"),
    ("module esx.dd 1", BAD_INPUT, r"`vmvisor-image module esx\.dd 1/PATH` reads a module of a disk image"),
    # patterns
    ("find esx.dd *.zzz", BAD_INPUT, r"no file matches '\*\.zzz'; `vmvisor-image tree esx\.dd` shows all files"),
    ("find esx.dd 1/*.exe", BAD_INPUT, r"no file matches '1/\*\.exe'; did you mean '1/\*\*/\*\.exe'\?"),
    ("find --json esx.dd 1/*.exe", BAD_INPUT, r"did you mean '1/\*\*/\*\.exe'\?"),
    ("find esx.dd viclient.ex", BAD_INPUT, r"no file matches 'viclient\.ex'; did you mean 'viclient\.exe'\?"),
    ("extract esx.dd 1/*.exe out", MISUSE, r"no file matches '1/\*\.exe'; did you mean '1/\*\*/\*\.exe'\?"),
    ("extract esx.dd *.tgz out", MISUSE, r"no file matches '\*\.tgz'; did you mean '\*\*/\*\.tgz'\?"),
    ("sha256 esx.dd *.tgz", MISUSE, r"no file matches '\*\.tgz'; did you mean '\*\*/\*\.tgz'\?"),
    ("sha256 esx.dd 1/*.zzz", MISUSE, r"no file matches '1/\*\.zzz'; `vmvisor-image tree esx\.dd` shows all files"),
    # what is written, and kept
    (
        "scan plain.dd --out t.csv",
        MISUSE,
        r"t\.csv: rows are written as JSON Lines or Parquet: .*\.jsonl .*\.parquet",
    ),
    ("pxe esx.dd out --prefix ../x", MISUSE, "such as 'esx' or 'images/esx-4.1', not '../x'"),
    ("info esx.dd.bz2 --cache notes.txt", MISUSE, r"notes\.txt is a file, and decoded data is kept in a folder"),
    ("info esx.dd --cache notes.txt/x", MISUSE, r"notes\.txt is a file, and decoded data is kept in a folder"),
]


@pytest.mark.parametrize(("line", "status", "said"), LINES, ids=[line for line, _, _ in LINES])
def test_the_next_step_works(line: str, status: int, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in here.iterdir()}
    assert main(line.split()) == status
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(said, message), message
    assert "SRC" not in message
    assert {path.name for path in here.iterdir()} == before
    for step in steps(message):
        assert main(step) == DONE, step
    for meant in MEANT.findall(message):
        wrong = next(part for part in line.split() if part in message.partition("; did you mean")[0])
        assert main([meant if part == wrong else part for part in line.split()]) == DONE


def test_with_the_options_that_lead_to_the_disk(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step repeats what chose the disk: without it the command would be about something else."""
    with tarfile.open(here / "two.tar", "w") as archive:
        for name in ("plain.dd", "esx.dd"):
            archive.add((here / name).resolve(), name)
    assert main(["cat", "two.tar", "1/nosuch", "--member", "esx.dd"]) == MISUSE
    [step] = steps(capsys.readouterr().err)
    assert step == ["ls", "two.tar", "1/", "--member", "esx.dd"]
    assert main(step) == DONE
    assert "boot.cfg" in capsys.readouterr().out
    assert main(["cat", "store.dd", "datastore1/vm/x", "--device", "plain.dd"]) == MISUSE
    [step] = steps(capsys.readouterr().err)
    assert step == ["ls", "store.dd", "datastore1/vm/", "--device", "plain.dd"]
    assert main(step) == DONE
    assert capsys.readouterr().out == "notes.txt\n"


def test_partitions_that_have_files_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = fat_volume({"a": b"a"}, sectors=6000)
    disk = [ForgedPartition(1, 6, 64, 6000, content=volume), ForgedPartition(2, 0xFC, 8000, 100)]
    mbr_disk(disk, sectors=8192).write_to(here / "two.dd")
    mbr_disk(disk[1:], sectors=8192).write_to(here / "none.dd")
    for source, said in (
        ("two.dd", "there are 1, 2, with files in 1;"),
        ("none.dd", "there are 2, without files that"),
    ):
        assert main(["ls", source, "9"]) == MISUSE
        assert said in capsys.readouterr().err


def test_system_says_of_each_bank_whether_it_starts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["system", "idle.dd"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "  boot bank in partition 2: 4.1.0-260247, does not start: its 'updated' is 0, and has to be above 0",
        "  the boot loader starts no bank; these are the modules of partition 2:",
    ]


@pytest.mark.parametrize("shape", [[], ["--json"], ["--files"]])
def test_system_with_a_missing_module(shape: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["system", "missing.dd", *shape]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.err == (
        "vmvisor-image: what was shown or written may be incomplete: boot module: 'gone.v00' is not there\n"
    )
    if shape == ["--json"]:
        assert [module["size"] for module in json.loads(captured.out)["modules"]][2] is None


@pytest.mark.parametrize(
    "line",
    ["convert notes.txt out.zst", "extract notes.txt out", "pxe notes.txt out", "verify notes.txt --manifest out"],
)
def test_nothing_is_written_of_what_is_no_disk(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in here.iterdir()}
    assert main(line.split()) == BAD_INPUT
    assert "it is most likely text; `vmvisor-image hexdump notes.txt` shows its first bytes" in capsys.readouterr().err
    assert {path.name for path in here.iterdir()} == before


def test_convert_of_a_pipe_that_is_no_disk(here: Path) -> None:
    command = [sys.executable, "-m", "vmvisor_image", "convert", "-", "out.zst"]
    done = subprocess.run(command, input=b"This is a text.\n" * 100, capture_output=True, check=False)
    assert done.returncode == BAD_INPUT
    assert b"most likely text" in done.stderr
    assert not (here / "out.zst").exists()


def test_nothing_is_written_to_standard_output_by_its_usual_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in here.iterdir()}
    for line in (
        "convert esx.dd -",
        "extract esx.dd -",
        "pxe esx.dd -",
        "scan esx.dd --out -",
        "verify esx.dd --manifest -",
    ):
        with pytest.raises(SystemExit) as stopped:
            main(line.split())
        assert stopped.value.code == MISUSE
        assert "standard output can't be written to: name a file" in capsys.readouterr().err
    assert {path.name for path in here.iterdir()} == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("extrct esx.dd", "there is no command 'extrct'; did you mean 'extract'? See vmvisor-image --help"),
        ("zzzzzz esx.dd", "there is no command 'zzzzzz'; choose from info, ls, "),
        ("ls esx.dd --jsn", "unknown argument: --jsn; did you mean '--json'? See vmvisor-image ls --help"),
        ("ls --mamber=x esx.dd", "unknown argument: --mamber=x; did you mean '--member'?"),
        ("ls esx.dd 1 2 3", "unknown arguments: 2 3; see vmvisor-image ls --help"),
        ("verify esx.dd --hash sha", "there is no --hash 'sha'; did you mean 'sha1'?"),
        ("completion bsh", "there is no shell 'bsh'; did you mean 'bash'?"),
    ],
)
def test_a_word_that_is_nearly_right(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == MISUSE
    message = capsys.readouterr().err
    assert message.startswith(f"vmvisor-image: {said}")
    assert message.count("\n") == 1


@pytest.mark.parametrize("command", EXAMPLES)
def test_each_command_is_found_with_a_letter_left_out(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = command[:-1]
    if len(command) < 4 or wrong in EXAMPLES:  # too short to be like one only
        return
    with pytest.raises(SystemExit):
        main([wrong])
    assert f"did you mean {command!r}?" in capsys.readouterr().err


def test_find_says_nothing_more_where_something_matches(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", "esx.dd", "*.tgz"]) == DONE
    assert capsys.readouterr() == ("Hypervisor1/oem.tgz\n", "")
    assert main(["find", "--json", "esx.dd", "*.zzz"]) == BAD_INPUT  # a document all the same, for scripts
    assert json.loads(capsys.readouterr().out) == {"entries": [], "partitions": [], "problems": []}


class TestDevice:
    """``--device`` of the commands that list or show."""

    @pytest.mark.parametrize("pattern", ["notes.txt", "datastore1/vm/*", "*/**/notes.*", "DATASTORE*/vm/notes.txt"])
    def test_find(self, pattern: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = ["find", "store.dd", pattern, "--device", "plain.dd"]
        assert main(line) == DONE
        assert capsys.readouterr().out == "datastore1/vm/notes.txt\n"
        assert main([*line, "--json"]) == DONE
        found = json.loads(capsys.readouterr().out)
        assert [entry["path"] for entry in found["entries"]] == ["datastore1/vm/notes.txt"]
        assert [part["name"] for part in found["partitions"]] == ["datastore1"]

    def test_find_without_a_match(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["find", "store.dd", "datastore1/*.txt", "--device", "plain.dd"]) == BAD_INPUT
        assert "did you mean 'datastore1/**/*.txt'?" in capsys.readouterr().err
        assert main(["find", "store.dd", "other*/**", "--device", "plain.dd"]) == BAD_INPUT
        assert main(["find", "store.dd", "nosuch/**", "--device", "plain.dd"]) == MISUSE

    def test_tree(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["tree", "store.dd"]) == DONE
        without = capsys.readouterr().out
        assert main(["tree", "store.dd", "--device", "plain.dd"]) == DONE
        assert capsys.readouterr().out == without
        assert main(["tree", "store.dd", "datastore1/vm", "--device", "plain.dd", "--json"]) == DONE
        assert [each["path"] for each in json.loads(capsys.readouterr().out)["entries"]] == ["datastore1/vm/notes.txt"]

    def test_hexdump(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["hexdump", "store.dd", "datastore1/vm/notes.txt", "--device", "plain.dd"]) == DONE
        assert "|of a virtual mac|" in capsys.readouterr().out
        assert main(["hexdump", "store.dd", "--device", "plain.dd"]) == MISUSE
        assert "'datastore1' is a datastore: give the path of a file in it" in capsys.readouterr().err


def test_hexdump_as_json_has_the_bytes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hexdump", "esx.dd", "-s", "500", "-n", "77", "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    data = b"".join(bytes.fromhex(line["hex"]) for line in found["lines"])
    assert data == (here / "esx.dd").read_bytes()[500:577]
    assert (found["offset"], found["length"]) == (500, 77)
    assert [line["offset"] for line in found["lines"]] == [*range(500, 577, 16)]
    assert main(["hexdump", "plain.dd", "-s", "999999999", "--json"]) == BAD_INPUT
    assert "give a smaller --offset" in capsys.readouterr().err


def test_rows_of_a_scan_are_in_the_order_of_the_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The large ones first, with two processes: they are done last."""
    (here / "folder").mkdir()
    for number in (3, 1, 2):
        (here / "folder" / f"{number}.dd").symlink_to((here / "plain.dd").resolve())
    names = ["store.dd", "esx.dd.bz2", "plain.dd", "missing.dd"]
    below = [f"folder/{number}.dd" for number in (1, 2, 3)]
    assert main(["scan", *names, "folder", "plain.dd", "--workers", "3"]) == DONE
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.rpartition("  ")[2] for line in lines] == [*names, *below, "plain.dd"]
    assert main(["scan", *names, "folder", "--workers", "3", "--out", "rows.jsonl"]) == DONE
    rows = [json.loads(line)["path"] for line in (here / "rows.jsonl").read_text().splitlines()]
    assert rows == [str(here / name) for name in (*names, *below)]


def test_extract_counts_the_directories_that_could_not_be_listed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = {"a.txt": b"a", "sub/x.txt": b"x", "other/deep/y.txt": b"y"}
    disk = mbr_disk([ForgedPartition(1, 6, 64, 6000, content=fat_volume(tree, sectors=6000))], sectors=8192)
    data = bytearray(disk.read_at(0, disk.size))
    entry = data.index(b"OTHER      \x10")
    data[entry + 26 : entry + 28] = b"\xf0\xff"  # its first cluster: there is none of that number
    (here / "cut.dd").write_bytes(data)
    assert main(["extract", "cut.dd", "out"]) == BAD_INPUT
    captured = capsys.readouterr()
    assert "2 files of 1 partition written to out" in captured.out
    assert (
        "1 directory could not be listed whole, and what damage hides there was not written: 1/other\n" in captured.err
    )
    assert main(["extract", "cut.dd", "1/sub", "sub"]) == DONE  # that one is healthy, and nothing else is read
    assert capsys.readouterr().err == ""
    with Image.open(here / "cut.dd") as image:
        root = image.partitions[1].files.root
        assert [*root.partial()] == []
        assert [file.path for file in root.glob("**")] == ["a.txt", "sub/x.txt"]
        assert [directory.path for directory in root.partial()] == ["other"]


def test_a_cache_that_is_a_file(here: Path) -> None:
    for cache in (here / "notes.txt", here / "notes.txt" / "below"):
        with pytest.raises(InvalidArgument, match="decoded data is kept in a folder"):
            Image.open(here / "esx.dd.bz2", cache=cache)
        with pytest.raises(InvalidArgument, match="decoded data is kept in a folder"):
            Bzip2Reader(here / "esx.dd.bz2", cache=cache)
    with Image.open(here / "esx.dd.bz2", cache=here / "new" / "folder") as image:
        assert image.read_at(0, 512)


class TestDiskInADisk:
    """``--member PARTITION/PATH``: the disk in a file of a partition, as a machine's in a datastore."""

    @pytest.fixture
    def host(self, here: Path) -> str:
        guest = (here / "esx.dd").read_bytes()
        volume = fat_volume({"vm/guest.dd": guest}, sectors=20_000, label="STORE")
        mbr_disk([ForgedPartition(1, 6, 64, 20_000, content=volume)], sectors=20_100).write_to(here / "host.dd")
        return "host.dd"

    @pytest.mark.parametrize("member", ["1/vm/guest.dd", "STORE/vm/guest.dd"])
    @pytest.mark.parametrize(
        "line", ["ls SRC", "info SRC", "tree SRC", "find SRC *.tgz", "cat SRC 1/boot.cfg", "sha256 SRC"]
    )
    def test_shows_the_same(self, line: str, member: str, host: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert main(line.replace("SRC", "esx.dd").split()) == DONE
        alone = capfdbinary.readouterr().out
        assert main([*line.replace("SRC", host).split(), "--member", member]) == DONE
        within = capfdbinary.readouterr().out
        if line.startswith("info"):  # the first line is the path of the image
            alone, within = alone.partition(b"\n")[2], within.partition(b"\n")[2]
        assert within == alone

    def test_writes_the_same(self, host: str, here: Path) -> None:
        assert main(["extract", host, "1", "out", "--member", "1/vm/guest.dd"]) == DONE
        assert (here / "out" / "oem.tgz").read_bytes() == BANK["oem.tgz"]
        assert main(["convert", host, "guest.zst", "--member", "1/vm/guest.dd"]) == DONE
        assert subprocess.check_output(["zstd", "-dc", "guest.zst"]) == (here / "esx.dd").read_bytes()

    @pytest.mark.parametrize(
        ("member", "said"),
        [
            ("vm/guest.dd", "no disk 'vm/guest.dd' here: --member is .*; did you mean 'STORE/vm/guest.dd'?"),
            ("1/vm/guest.dx", "no disk '1/vm/guest.dx' here: --member is .*; did you mean '1/vm/guest.dd'?"),
            ("9/vm/guest.dd", "no disk '9/vm/guest.dd' here: --member is .* or PARTITION/PATH of a disk in this one"),
            ("1", "no container that could hold '1', only a disk: leave the member out"),
            ("1/vm", "no container that could hold '1/vm', only a disk: leave the member out"),
        ],
    )
    def test_a_path_of_none(self, member: str, said: str, host: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ls", host, "--member", member]) == MISUSE
        assert re.search(said, capsys.readouterr().err)

    def test_a_member_of_a_container_comes_first(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with tarfile.open(here / "two.tar", "w") as archive:
            for name in ("plain.dd", "esx.dd"):
                archive.add((here / name).resolve(), name)
        assert main(["ls", "two.tar", "--member", "plian.dd"]) == MISUSE
        assert "no file 'plian.dd' in it; there are 'plain.dd', 'esx.dd'; did you mean 'plain.dd'?" in (
            capsys.readouterr().err
        )


@linux
class TestFull:
    """Files of a few bytes at most, as on a disk that is full."""

    def test_a_pipe_that_is_kept(self, here: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, "4096", "convert", "-", "out.zst"],
            input=(here / "plain.dd").read_bytes(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == BAD_INPUT
        assert done.stderr.startswith(b"vmvisor-image: no room in ")
        assert done.stderr.count(b"\n") == 1
        assert not (here / "out.zst").exists()

    def test_rows_of_several_processes(self, here: Path) -> None:
        line = ["scan", "esx.dd", "plain.dd", "idle.dd", "--workers", "2", "--detail", "--out", "rows.jsonl"]
        done = subprocess.run([sys.executable, "-c", LIMITED, "64", *line], capture_output=True, text=True, check=False)
        assert done.returncode == BAD_INPUT
        assert done.stderr == "vmvisor-image: rows.jsonl: there is no room left (File too large)\n"

    @pytest.mark.parametrize(
        ("limit", "said"),
        [(1, "nothing was written"), (5, "the file written before is whole")],
        ids=["first", "second"],
    )
    def test_what_was_written_before(self, limit: int, said: str, here: Path) -> None:
        small = fat_volume({"a": b"a", "long.txt": b"longer than five"}, sectors=6000)
        if limit == 1:
            small = fat_volume({"long.txt": b"longer than five"}, sectors=6000)
        mbr_disk([ForgedPartition(1, 6, 64, 6000, content=small)], sectors=8192).write_to(here / "small.dd")
        line = ["extract", "small.dd", "1", "out"]
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(limit), *line], capture_output=True, text=True, check=False
        )
        assert done.stderr.endswith(f"out/long.txt: there is no room left (File too large); {said}\n")
