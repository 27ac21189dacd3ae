"""``PARTITION/PATH`` on the command line: what each command that takes it shows, writes and says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support import run
from vmvisor_image import Image, InvalidArgument, Partition, PartitionNotFound
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import Content, VmfsFile, VmfsLink, vmfs_volume

DONE, BAD_INPUT, MISUSE, INTERRUPTED = 0, 1, 2, 130
BANK = {
    "boot.cfg": b"kernel=vmkernel.gz\nmodules=\nbuild=4.1.0-260247\nupdated=1\nbootstate=0\n",
    "vmkernel.gz": bytes(range(256)) * 40,
    "packages/tools.tgz": b"tools" * 300,
    "packages/3.5.0/readme.txt": b"read me",
    "packages/odd [1].txt": b"brackets",
}
SPACED = {"a file.txt": b"with a space", "boot.cfg": b"not one"}
TREES: Mapping[int, Mapping[str, bytes]] = {1: BANK, 2: SPACED, 4: {"other.txt": b"second of that label"}}
NAMES = {1: "Hypervisor1", 2: "MY DISK", 4: "4"}
"""First part of the paths; the label of partition 4 is that of partition 1."""
SECTORS = 1024


def start(number: int) -> int:
    return 64 + (number - 1) * SECTORS


def disk(trees: Mapping[int, Mapping[str, bytes]] = TREES, core: bytes = b"") -> bytes:
    labels = {1: "Hypervisor1", 2: "MY DISK", 4: "HYPERVISOR1"}
    parts = [
        ForgedPartition(
            number, 6, start(number), SECTORS, content=fat_volume(dict(tree), sectors=SECTORS, label=labels[number])
        )
        for number, tree in trees.items()
    ]
    made = mbr_disk([*parts, ForgedPartition(3, 0xFC, start(3), SECTORS)], sectors=start(5))
    whole = bytearray(made.read_at(0, made.size))
    whole[start(3) * 512 :][: len(core)] = core
    whole[start(3) * 512 : start(3) * 512 + len(core)] = core
    return bytes(whole[: made.size])


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "esx.dd"
    path.write_bytes(disk())
    return str(path)


Shown = Callable[..., str]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """What a command prints to standard output, where it does what it should and says nothing else."""

    def show(*arguments: str, status: int = DONE, said: str = "") -> str:
        assert main(arguments) == status
        captured = capsys.readouterr()
        assert said in captured.err
        assert bool(said) == bool(captured.err)
        return captured.out

    return show


def test_ls_of_a_directory(source: str, shown: Shown) -> None:
    assert shown("ls", source, "Hypervisor1/").splitlines() == ["boot.cfg", "vmkernel.gz", "packages/"]
    assert shown("ls", source, "1/packages/") == shown("ls", source, "hypervisor1/PACKAGES")
    assert shown("ls", source, "2/").splitlines() == shown("ls", source, "MY DISK/").splitlines()
    assert shown("ls", source, "4/").splitlines() == ["other.txt"]
    assert shown("ls", "-l", source, "1/packages").splitlines() == [
        "        1500  2008-01-15 12:00:00  tools.tgz",
        "           8  2008-01-15 12:00:00  odd [1].txt",
        "         dir  2008-01-15 12:00:00  3.5.0/",
    ]
    assert shown("ls", source, "1/packages", "-R").splitlines() == [
        *("tools.tgz", "odd [1].txt", "3.5.0/"),
        "3.5.0/readme.txt",
    ]
    assert shown("ls", source, "1/boot.cfg") == "boot.cfg\n"


def test_ls_of_today(source: str, shown: Shown) -> None:
    one = shown("ls", source, "Hypervisor1")
    assert {line[35:] for line in one.splitlines()} == set(BANK)
    every = shown("ls", source)
    assert one in every
    assert "Partition 3  (vmkcore): no files that can be read\n" in every


def test_json_has_the_same_facts(source: str, shown: Shown) -> None:
    every = json.loads(shown("ls", source, "--json"))
    assert every["problems"] == []
    assert [part["number"] for part in every["partitions"]] == [1, 2, 3, 4]
    assert [part["has_files"] for part in every["partitions"]] == [True, True, False, True]
    sizes = {f"{NAMES[n]}/{path}": len(data) for n, tree in TREES.items() for path, data in tree.items()}
    assert {entry["path"]: entry["size"] for entry in every["entries"]} == sizes
    for path, size in sizes.items():  # each path is one that a command takes
        assert json.loads(shown("ls", "--json", source, path))["entries"][0]["size"] == size
    of_tree = json.loads(shown("tree", "--json", source))
    files = [entry for entry in of_tree["entries"] if entry["type"] == "file"]
    assert {entry["path"]: entry["size"] for entry in files} == sizes
    assert {entry["path"] for entry in of_tree["entries"] if entry["type"] == "directory"} == {
        "Hypervisor1/packages",
        "Hypervisor1/packages/3.5.0",
    }
    assert of_tree["partitions"] == every["partitions"]
    one = json.loads(shown("ls", "--json", source, "2"))
    assert [entry["path"] for entry in one["entries"]] == ["MY DISK/a file.txt", "MY DISK/boot.cfg"]
    found = json.loads(shown("find", "--json", source, "boot.cfg"))
    assert [entry["path"] for entry in found["entries"]] == shown("find", source, "boot.cfg").splitlines()


def test_tree(source: str, shown: Shown) -> None:
    assert shown("tree", source, "1").splitlines() == [
        "Hypervisor1",
        "├── boot.cfg",
        "├── vmkernel.gz",
        "└── packages/",
        "    ├── tools.tgz",
        "    ├── odd [1].txt",
        "    └── 3.5.0/",
        "        └── readme.txt",
        "2 directories, 5 files",
    ]
    every = shown("tree", source)
    assert "3 (vmkcore) has no files that can be read\n" in every
    assert "MY DISK\n├── a file.txt\n└── boot.cfg\n0 directories, 2 files\n" in every
    assert shown("tree", source, "2/boot.cfg") == "MY DISK/boot.cfg\n"
    plain = subprocess.check_output(
        [sys.executable, "-m", "vmvisor_image", "tree", source, "1/packages"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert plain.splitlines()[1:3] == [b"|-- tools.tgz", b"|-- odd [1].txt"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("boot.cfg", ["Hypervisor1/boot.cfg", "MY DISK/boot.cfg"]),
        ("*.TXT", ["Hypervisor1/packages/3.5.0/readme.txt", "Hypervisor1/packages/odd [1].txt"]),
        ("Hypervisor1/packages/*", ["Hypervisor1/packages/tools.tgz", "Hypervisor1/packages/odd [1].txt"]),
        ("*/a file.txt", ["MY DISK/a file.txt"]),
        ("4/**", ["4/other.txt"]),
    ],
)
def test_find(source: str, pattern: str, found: list[str], shown: Shown) -> None:
    lines = shown("find", source, pattern).splitlines()
    more = ["MY DISK/a file.txt", "4/other.txt"] if pattern == "*.TXT" else []
    assert sorted(lines) == sorted(found + more)
    assert [line[35:] for line in shown("find", "-l", source, pattern).splitlines()] == lines


@pytest.mark.parametrize(
    "path", ["1/vmkernel.gz", "Hypervisor1/VMKERNEL.GZ", "MY DISK/a file.txt", "MY%20DISK/a file.txt"]
)
def test_cat_gives_what_mtools_gives(source: str, path: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", source, path]) == DONE
    number = 1 if "vmkernel" in path.lower() else 2
    inside = path.partition("/")[2]
    image = f"{source}@@{start(number) * 512}"
    expected = subprocess.check_output(
        ["mtype", "-i", image, f"::{inside}"], env={**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    )
    assert capfdbinary.readouterr().out == expected


def test_cat_of_a_partition_gives_its_bytes(source: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for number in (1, 3):
        assert main(["cat", source, str(number)]) == DONE
        at = start(number) * 512
        assert capfdbinary.readouterr().out == Path(source).read_bytes()[at : at + SECTORS * 512]


def test_hexdump_of_a_file(source: str, shown: Shown) -> None:
    lines = shown("hexdump", source, "MY DISK/a file.txt").splitlines()
    assert lines == ["00000000  77 69 74 68 20 61 20 73  70 61 63 65              |with a space|", "0000000c"]


def test_extract_of_all_is_what_the_manifests_say(source: str, tmp_path: Path, shown: Shown) -> None:
    out = tmp_path / "out"
    printed = shown("extract", source, str(out))
    assert printed.startswith(f"8 files of 3 partitions written to {out}:\n")
    assert f"  {out / '2'}: 2 files of partition 2, MY DISK\n" in printed
    assert "  partition 3 (vmkcore) has no files that can be read\n" in printed
    for number, tree in TREES.items():
        for path, data in tree.items():
            assert (out / str(number) / path).read_bytes() == data
    lists = {"ours": shown("sha256", source).encode()}
    shown("verify", source, "--manifest", str(tmp_path / "manifest"))
    lists["verify"] = (tmp_path / "manifest").read_bytes()
    for name, text in lists.items():
        checked = subprocess.run(
            ["sha256sum", "-c", "--strict", "-"], input=text, cwd=out, capture_output=True, check=True
        )
        assert checked.stdout.count(b": OK\n") == 8, name


@pytest.mark.parametrize(
    ("targets", "files"),
    [
        (["Hypervisor1"], {*BANK}),
        (["1/"], {*BANK}),
        (["1/packages"], {path for path in BANK if path.startswith("packages/")}),
        (["Hypervisor1/packages/*"], {"packages/tools.tgz", "packages/odd [1].txt"}),
        (["1/packages/odd [1].txt"], {"packages/odd [1].txt"}),
        (["1/boot.cfg", "Hypervisor1/*.gz"], {"boot.cfg", "vmkernel.gz"}),
        (["1/boot.cfg", "2"], {"1/boot.cfg", "2/boot.cfg", "2/a file.txt"}),
        (["*/boot.cfg"], {"1/boot.cfg", "2/boot.cfg"}),
        (["**/readme.txt"], {"1/packages/3.5.0/readme.txt"}),
        (["MY DISK/a file.txt"], {"a file.txt"}),
    ],
)
def test_extract_and_sha256_of_some(
    source: str, targets: list[str], files: set[str], tmp_path: Path, shown: Shown
) -> None:
    out = tmp_path / "out"
    shown("extract", source, *targets, str(out))
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == files
    text = shown("sha256", source, *targets)
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict"], input=text.encode(), cwd=out, capture_output=True, check=True
    )
    assert checked.stdout.count(b": OK\n") == len(files)
    assert {line[66:] for line in text.splitlines()} == files
    told = json.loads(shown("sha256", "--json", source, *targets))["entries"]
    assert sorted(entry["sha256"] for entry in told) == sorted(line[:64] for line in text.splitlines())


def test_a_forgotten_destination(source: str, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for dest in ("Hypervisor1", "1/packages/**", "MY DISK"):
        shown("extract", source, dest, status=MISUSE, said="no folder to write to follows it")
    assert [path.name for path in tmp_path.iterdir()] == ["esx.dd"]
    shown("extract", source, "./Hypervisor1")
    assert (tmp_path / "Hypervisor1/1/boot.cfg").read_bytes() == BANK["boot.cfg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cat", "1/boot.cgf"], "no '1/boot.cgf' in this image; did you mean '1/boot.cfg'?"),
        (["cat", "1/packages"], "'1/packages' is a directory"),
        (["cat", "Hypervisor2/boot.cfg"], "did you mean 'Hypervisor1'?"),
        (["ls", "3/"], "no file system"),
        (["ls", "1/packages/gone"], "no '1/packages/gone'"),
        (["tree", "3"], "no file system"),
        (["hexdump", "1/packages"], "is a directory"),
        (["sha256", "1/*.none"], "no file matches '1/*.none'"),
        (["sha256", "*/none"], "no file matches '*/none'"),
        (["extract", "1/nothing", "{out}"], "no '1/nothing'"),
        (["find", "none/*"], "no partition 'none'"),
    ],
)
def test_misuse(source: str, tmp_path: Path, arguments: list[str], said: str, shown: Shown) -> None:
    name, *rest = arguments
    shown(name, source, *(each.format(out=tmp_path / "out") for each in rest), status=MISUSE, said=said)
    assert not (tmp_path / "out").exists()


def test_files_that_could_not_be_written_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"boot.cfg": BANK["boot.cfg"], "a.gz": BANK["vmkernel.gz"], "b.tgz": BANK["packages/tools.tgz"]}
    data = disk({1: tree})
    (tmp_path / "cut.dd").write_bytes(data[: data.index(tree["a.gz"][:512]) + 4096])
    out = tmp_path / "out"
    assert main(["extract", str(tmp_path / "cut.dd"), "1", str(out)]) == BAD_INPUT
    said = capsys.readouterr().err.splitlines()
    assert [path.name for path in out.iterdir()] == ["boot.cfg"]
    for name in ("a.gz", "b.tgz"):
        assert sum(line.startswith(f"vmvisor-image: {name} was not written: ") for line in said) == 1
    assert main(["sha256", str(tmp_path / "cut.dd"), "1"]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == f"{hashlib.sha256(tree['boot.cfg']).hexdigest()}  boot.cfg\n"
    assert "vmvisor-image: Hypervisor1/a.gz has no hash: " in captured.err
    assert "vmvisor-image: Hypervisor1/b.tgz has no hash: " in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "{source}", "1", "{out}"], "extract --resume {source} 1 {out}"),
        (["extract", "--resume", "{source}", "{out}"], "extract --resume {source} {out}"),
        (["convert", "{source}", "{out}"], "convert {source} {out}"),
        (["pxe", "{source}", "{out}"], "pxe --force {source} {out}"),
        (["index", "{source}"], "index {source}"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(
    source: str,
    tmp_path: Path,
    arguments: Sequence[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt  # Ctrl-C itself is ignored where the tests were started by a shell's &

    for name in ("paths.extract_all", "convert.convert", "pxe.export_pxe", "convert.opened_image"):
        if name == "convert.opened_image" and arguments[0] != "index":
            continue
        monkeypatch.setattr(f"vmvisor_image.faces.cli.{name}", interrupt)
    names = {"source": source, "out": str(tmp_path / "out")}
    assert main([argument.format(**names) for argument in arguments]) == INTERRUPTED
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vmvisor-image: interrupted; ")
    assert line.endswith(f"; go on with: vmvisor-image {said.format(**names)}")


@pytest.mark.parametrize(
    ("arguments", "left", "said"),
    [
        (["verify", "{source}"], "nothing is left behind", "verify {source}"),
        (["scan", "{source}"], "the rows shown are whole", "scan {source}"),
        (
            ["scan", "{source}", "--out", "{out}"],
            "the rows written to {out} so far are whole",
            "scan --force {source} --out {out}",
        ),
    ],
)
def test_an_interrupted_command_that_can_only_begin_again_says_so(
    source: str,
    tmp_path: Path,
    arguments: Sequence[str],
    left: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vmvisor_image.faces.cli.verify.verify", interrupt)
    monkeypatch.setattr("vmvisor_image.fleet.scan_one", interrupt)
    names = {"source": source, "out": str(tmp_path / "{rows}.jsonl")}
    assert main([argument.format(**names) for argument in arguments]) == INTERRUPTED
    [line] = capsys.readouterr().err.splitlines()
    step = f"begin again with: vmvisor-image {shlex.join(word.format(**names) for word in said.split())}"
    assert line == f"vmvisor-image: interrupted; {left.format(**names)}; {step}"


def test_what_an_interrupted_extraction_says_goes_on(source: str, tmp_path: Path) -> None:
    """A program that is stopped by a real signal, and the command that it prints."""
    script = (
        "import os, signal, sys\n"
        "from vmvisor_image.faces.cli import main\n"
        "from vmvisor_image.files.folder_writer import DestinationFolder\n"
        "write = DestinationFolder.write\n"
        "def one(self, path, *rest):\n"
        "    write(self, path, *rest)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "DestinationFolder.write = one\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & has it ignored
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", script, "extract", source, str(tmp_path / "my files")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == INTERRUPTED
    assert sum(path.is_file() for path in (tmp_path / "my files").rglob("*")) == 1
    program, *again = done.stderr.rpartition("go on with: ")[2].split(maxsplit=1)
    assert program == "vmvisor-image"
    run("bash", "-c", f"{sys.executable} -m vmvisor_image {again[0]}")
    assert sum(path.is_file() for path in (tmp_path / "my files").rglob("*")) == 8


class TestDiff:
    def test_what_differs(self, source: str, tmp_path: Path, shown: Shown) -> None:
        bank = {**BANK, "boot.cfg": BANK["boot.cfg"].replace(b"4.1.0-260247", b"4.1.0-348481"), "new.txt": b"new"}
        bank["vmkernel.gz"] = BANK["vmkernel.gz"][:5000] + b"X" + BANK["vmkernel.gz"][5001:]
        bank["packages/tools.tgz"] += b"more"
        del bank["packages/3.5.0/readme.txt"]
        other = tmp_path / "other.dd"
        other.write_bytes(disk({1: bank, 2: SPACED}, core=bytes(1000) + b"core"))
        lines = shown("diff", source, str(other), status=BAD_INPUT).splitlines()
        assert f"~ 1/boot.cfg: other content, from byte {BANK['boot.cfg'].index(b'260247'):#x}" in lines
        assert f"~ 1/vmkernel.gz: other content, from byte {5000:#x}" in lines
        assert "~ 1/packages/tools.tgz: size 1500 -> 1504" in lines
        assert "- 1/packages/3.5.0/readme.txt: only in the first image" in lines
        assert "+ 1/new.txt: only in the second image" in lines
        assert "- partition 4: only in the first image" in lines
        assert f"~ partition 3: other content, from byte {1000:#x}" in lines
        assert "~ system: build '260247' -> '348481'" in lines
        told = json.loads(shown("diff", "--json", source, str(other), status=BAD_INPUT))
        assert len(told["differences"]) == len(lines)
        assert (told["first"], told["second"], told["is_same"]) == (source, str(other), False)

    def test_the_same_in_other_wrapping(self, source: str, tmp_path: Path, shown: Shown) -> None:
        with (tmp_path / "esx.dd.gz").open("wb") as output:
            subprocess.run(["gzip", "-c", source], stdout=output, check=True)
        assert (
            shown("diff", source, str(tmp_path / "esx.dd.gz")) == "no difference: 4 partitions and 8 files compared\n"
        )
        assert json.loads(shown("diff", "--json", source, source))["differences"] == []

    def test_damage_and_misuse(self, source: str, tmp_path: Path, shown: Shown) -> None:
        cut = tmp_path / "cut.dd"
        cut.write_bytes(Path(source).read_bytes()[: (start(4) + 100) * 512])
        assert "size" in shown("diff", source, str(cut), status=BAD_INPUT, said="incomplete")
        shown("diff", source, str(tmp_path / "none.dd"), status=MISUSE, said="none.dd")
        shown("diff", source, source, "--index", str(tmp_path / "x"), status=MISUSE, said="--index auto")
        (tmp_path / "text").write_text("no disk")
        shown("diff", source, str(tmp_path / "text"), status=BAD_INPUT, said="vmvisor-image: ")


class TestDatastores:
    """A datastore on two disks, and the links in it."""

    @pytest.fixture
    def devices(self, tmp_path: Path) -> list[str]:
        wide = VmfsFile(
            size=600 << 20, pieces=tuple((n << 20, b"%d" % n) for n in range(600)), pointers="pointer blocks"
        )
        tree: dict[str, Content] = {"vm/first.txt": b"first", "wide": wide, "vm/link": VmfsLink("first.txt")}
        paths = []
        for number, device in enumerate(vmfs_volume(tree, "vmfs5", size=2 * EXTENT_SIZE + DATA_OFFSET, devices=2)):
            paths.append(tmp_path / f"{number}.img")
            device.write_to(paths[-1])
        return [str(paths[0]), "--device", str(paths[1])]

    def test_each_command(self, devices: list[str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        def shown_bytes(*arguments: str) -> bytes:
            assert main(arguments) == DONE
            return capfdbinary.readouterr().out

        assert shown_bytes("cat", *devices, "datastore1/vm/first.txt") == b"first"
        assert shown_bytes("ls", *devices, "datastore1/vm").split(b"\n")[:2] == [b"first.txt", b"link -> first.txt"]
        listed = json.loads(shown_bytes("ls", "--json", *devices, "datastore1/vm/"))["entries"]
        assert [(entry["path"], entry["type"]) for entry in listed] == [
            ("datastore1/vm/first.txt", "file"),
            ("datastore1/vm/link", "link"),
        ]
        out = tmp_path / "out"
        shown_bytes("extract", *devices, "datastore1/vm/*", str(out))
        assert (out / "vm/first.txt").read_bytes() == b"first"
        assert shown_bytes("sha256", *devices, "datastore1/vm")[66:] == b"vm/first.txt\n"
        assert main(["cat", *devices, "datastore1"]) == MISUSE
        assert main(["cat", *devices, "other/vm/first.txt"]) == MISUSE


def test_module_by_its_path(tmp_path: Path, source: str, shown: Shown) -> None:
    for place in (["1/boot.cfg"], ["1", "boot.cfg"]):
        said = f"`vmvisor-image hexdump {source} 1/boot.cfg` shows"
        assert shown("module", source, *place, status=BAD_INPUT, said=said) == ""
    shown("module", source, "1/packages", status=MISUSE, said="is a directory, not a file")


class TestDamageElsewhere:
    @pytest.fixture
    def cut(self, tmp_path: Path) -> str:
        """A disk whose first partition ends past its end, by the table."""
        parts = [
            ForgedPartition(number, 6, start(number), size, content=fat_volume(dict(TREES[number]), sectors=SECTORS))
            for number, size in ((1, 4 * SECTORS), (2, SECTORS))
        ]
        made = mbr_disk(parts, sectors=start(3))
        path = tmp_path / "cut.dd"
        path.write_bytes(made.read_at(0, start(3) * 512))
        return str(path)

    def test_what_was_shown_or_written_is_whole(self, cut: str, tmp_path: Path, shown: Shown) -> None:
        said = (
            "vmvisor-image: what was shown or written is whole; the image is damaged elsewhere: partition 1 at byte"
            f" {start(1) * 512:#x}: it ends at byte {start(5) * 512:#x}, past the end of the disk at"
            f" {start(3) * 512:#x}\n"
        )
        assert shown("cat", cut, "2/boot.cfg", status=BAD_INPUT, said=said) == "not one"
        assert shown("ls", cut, "2/", status=BAD_INPUT, said=said).splitlines() == list(SPACED)
        shown("extract", cut, "2", str(tmp_path / "out"), status=BAD_INPUT, said=said)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == SPACED
        shown("sha256", cut, "2", status=BAD_INPUT, said=said)
        shown("info", cut, "2", status=BAD_INPUT, said=said)

    def test_damage_in_what_was_read(self, cut: str, tmp_path: Path, shown: Shown) -> None:
        said = "vmvisor-image: what was shown or written may be incomplete: partition 1 at byte"
        for line in (["ls", cut, "1/"], ["ls", cut], ["info", cut], ["extract", cut, "[12]/boot.cfg", str(tmp_path)]):
            shown(*line, status=BAD_INPUT, said=said)


def test_a_whole_partition_is_not_written_to_a_terminal(
    source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["cat", source, "1"]) == MISUSE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"`vmvisor-image ls {source} 1` lists its files" in captured.err


def test_digits_in_quotes_are_a_label(source: str) -> None:
    with Image.open(source) as image, pytest.raises(PartitionNotFound, match="1 without quotes is a number"):
        image.partitions["1"]


def test_info_of_what_is_no_disk_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no disk")
    assert main(["info", str(path)]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("it is most likely text") == 1
    assert main(["info", str(path), "--json"]) == BAD_INPUT
    captured = capsys.readouterr()
    [problem] = json.loads(captured.out)["problems"]
    assert problem["message"].endswith("it is most likely text")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("pattern", ["*", "**", "1", "Hyper*/", "MY DISK"])
def test_a_pattern_for_partitions_alone_names_one_for_their_files(source: str, pattern: str) -> None:
    with Image.open(source) as image:
        if pattern != "**":
            with pytest.raises(InvalidArgument, match="matches all their files") as caught:
                image.glob(pattern)
            [_, named] = re.findall("'([^']*)'", str(caught.value))
        else:
            named = pattern
        found = [(file.home.number, file.path) for file in image.glob(named) if isinstance(file.home, Partition)]
        numbers = {"*": TREES, "**": TREES, "1": {1}, "Hyper*/": {1, 4}, "MY DISK": {2}}[pattern]
        assert sorted(found) == sorted((number, path) for number in numbers for path in TREES[number])


class TestListsAsJson:
    def test_of_an_archive(self, tmp_path: Path, shown: Shown) -> None:
        (tmp_path / "a.txt").write_bytes(b"first")
        (tmp_path / "link").symlink_to("a.txt")
        run("tar", "-C", tmp_path, "-cf", tmp_path / "x.tar", "a.txt", "link")
        archive = str(tmp_path / "x.tar")
        found = json.loads(shown("archive", archive, "--json"))
        assert [(each["path"], each["type"]) for each in found["entries"]] == [("a.txt", "file"), ("link", "link")]
        assert (found["entries"][0]["size"], found["entries"][1]["target"], found["problems"]) == (5, "a.txt", [])
        assert shown("archive", archive, "a.txt") == "first"
        shown("archive", archive, "a.txt", "--json", status=MISUSE, said="--json is for a list")

    def test_of_a_scan(self, source: str, tmp_path: Path, shown: Shown) -> None:
        (tmp_path / "broken.dd.gz").write_bytes(b"\x1f\x8b no gzip")
        out = tmp_path / "rows.jsonl"
        shown("scan", source, str(tmp_path / "broken.dd.gz"), "--out", str(out), "--workers", "1", status=BAD_INPUT)
        lines = shown("scan", source, str(tmp_path / "broken.dd.gz"), "--json", "--workers", "1", status=BAD_INPUT)
        rows = [[json.loads(line) for line in text.splitlines()] for text in (lines, out.read_text())]
        for row in (*rows[0], *rows[1]):
            row.pop("seconds")
        assert rows[0] == rows[1]
        assert [row["ok"] for row in rows[0]] == [True, False]
        shown(
            "scan", source, "--json", "--out", str(out), "--force", status=MISUSE, said="--json is for standard output"
        )
