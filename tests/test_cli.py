"""The command line: what it prints, how it ends, and that no traceback or control character gets out."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import pickle
import pty
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.media import BANK_35, ROCK_RIDGE, Media, module, small_disk, tgz
from tests.support import run
from tests.test_purpose import DISKS
from tests.tool_disk import SECTOR, ToolDisk
from vmvisor_image import Image, inspect
from vmvisor_image.faces.cli import main
from vmvisor_image.schemas.vmfs import EXTENT_SIZE
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, esx40_disk, fat_volume, mbr_disk
from vmvisor_image.testing.forge_modules import intel_microcode, kernel_elf, tar_archive, vmtar_archive
from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import Content, VmfsFile, VmfsLink, VmfsRawDevice, vmfs_volume

DONE, BAD_INPUT, MISUSE = 0, 1, 2


@pytest.fixture
def source(tool_built_disk: ToolDisk) -> str:
    return str(tool_built_disk.bz2)


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("vmvisor-image: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_info_shows_what_sfdisk_shows(
    source: str, tool_built_disk: ToolDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", source]) == DONE
    printed = capsys.readouterr().out
    table = json.loads(run("sfdisk", "-J", tool_built_disk.image))["partitiontable"]["partitions"]
    rows = {line.split()[0].rstrip("*"): line for line in printed.splitlines() if line[2:3].isdigit()}
    assert len(rows) == len(table)
    for row in table:
        number = row["node"].removeprefix(str(tool_built_disk.image))
        assert f" {row['start'] * SECTOR:#x} " in rows[number]
        assert f" {int(row['type'], 16):02x} " in rows[number]
    for label in tool_built_disk.volumes:
        assert label in printed
    assert "bzip2 around" in printed
    assert "problem" not in printed


def test_info_explains(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--explain", source]) == DONE
    assert "diagnostic partition" in capsys.readouterr().out


def test_info_json_is_the_report(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", source]) == DONE
    assert json.loads(capsys.readouterr().out) == inspect(source).to_dict()


def test_ls(source: str, tool_built_disk: ToolDisk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", source, "Hypervisor3"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    files = tool_built_disk.volumes["Hypervisor3"].files.values()
    assert sorted(lines) == sorted(f"{len(file.data):>12}  {file.modified}  {file.path}" for file in files)


def test_ls_without_a_partition_lists_all(
    source: str, tool_built_disk: ToolDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", source]) == DONE
    printed = capsys.readouterr().out
    for volume in tool_built_disk.volumes.values():
        assert f"Partition {volume.number} {volume.label} (fat{volume.fat_bits}):\n" in printed
        for path in volume.files:
            assert f"  {path}\n" in printed


@pytest.mark.parametrize("partition", ["5", "Hypervisor1", "hypervisor1"])
def test_cat(source: str, tool_built_disk: ToolDisk, partition: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", source, partition, "VMKERNEL.GZ"]) == DONE
    assert capfdbinary.readouterr().out == tool_built_disk.volumes["Hypervisor1"].files["vmkernel.gz"].data


def test_cat_into_a_closed_pipe_is_no_error(source: str) -> None:
    command = [sys.executable, "-m", "vmvisor_image", "cat", source, "5", "vmkernel.gz"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == DONE


def test_extract(source: str, tool_built_disk: ToolDisk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", source, "Hypervisor3", str(tmp_path)]) == DONE
    files = tool_built_disk.volumes["Hypervisor3"].files
    assert capsys.readouterr().out == f"{len(files)} files written to {tmp_path}\n"
    for path, file in files.items():
        assert (tmp_path / path).read_bytes() == file.data
    assert main(["extract", source, "Hypervisor3", str(tmp_path)]) == MISUSE
    assert "already there" in one_error_line(capsys)
    assert main(["extract", "--force", source, "Hypervisor3", str(tmp_path)]) == DONE


def test_pxe(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pxe", source, str(tmp_path), "--label", "esx"]) == DONE
    printed = capsys.readouterr().out
    assert "18 files written" in printed
    entry = (tmp_path / "pxelinux.cfg/default").read_text()
    assert entry.startswith("default esx\nlabel esx\n")
    assert entry.splitlines()[-1] in printed


def test_hexdump_as_hexdump_prints(source: str, tool_built_disk: ToolDisk, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, skip in (([], 0), (["5"], tool_built_disk.volumes["Hypervisor1"].first_lba * SECTOR)):
        assert main(["hexdump", source, *arguments, "-s", "0x10", "-n", "5000"]) == DONE
        with tool_built_disk.image.open("rb") as disk:
            disk.seek(skip + 0x10)
            data = disk.read(5000)
        shown = b""
        for line in capsys.readouterr().out.splitlines():
            if line == "*":
                continue
            offset = int(line[:8], 16) - 0x10
            shown += shown[-16:] * ((offset - len(shown)) // 16)  # what "*" stands for
            shown += bytes.fromhex(line[8:].partition("|")[0])
        assert shown == data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "{source}", "nope"], "no partition 'nope'"),
        (["ls", "{source}", "7"], "no file system"),
        (["cat", "{source}", "5", "nope"], "no '5/nope' in this image; `vmvisor-image ls "),
        (["cat", "{source}", "5", "boot.cgf"], "no '5/boot.cgf' in this image; did you mean '5/boot.cfg'?"),
        (["cat", "{source}", "8", "packages"], "is a directory"),
        (["info", "/nonexistent/image"], "/nonexistent/image"),
        (["info", "/"], "/"),
        (["info", "{source}", "--threads", "0"], "threads"),
        (["pxe", "{source}", "{dest}", "--label", "a b"], "label"),
    ],
)
def test_misuse(
    source: str, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(source=source, dest=tmp_path) for argument in arguments]) == MISUSE
    assert message in one_error_line(capsys)


@pytest.mark.parametrize("arguments", [[], ["nope"], ["ls"], ["hexdump", "x", "-s", "-1"], ["hexdump", "x", "-n", "y"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == MISUSE
    message = one_error_line(capsys)
    assert "--help" in message
    assert "_number" not in message


def test_an_image_without_partitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.dd"
    empty.touch()
    for command in (["ls"], ["ls", "1"], ["cat", "1", "x"], ["pxe", str(tmp_path / "tftp")], ["system"]):
        assert main([command[0], str(empty), *command[1:]]) == BAD_INPUT
        assert "0 bytes" in one_error_line(capsys)
    assert main(["info", str(empty)]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "0 bytes" in captured.err


@pytest.mark.parametrize("content", [b"This is a text and no disk.\n" * 100, bytes(range(256)) * 400])
def test_info_of_what_is_no_disk(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    assert main(["info", str(path)]) == BAD_INPUT
    one_error_line(capsys)
    assert main(["info", os.devnull]) == BAD_INPUT


@pytest.mark.parametrize("pack", [bytes, bz2.compress], ids=["bare", "bzip2"])
def test_what_is_damaged_is_told_of_and_the_rest_is_listed(
    pack: Callable[[bytes], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = {f"F{number}.BIN": random.Random(number).randbytes(300_000) for number in range(9)}
    parts = [
        ForgedPartition(number, 6, first, 8192, content=fat_volume(tree, sectors=8192, label=f"P{number}"))
        for number, first in ((1, 64), (2, 8320))
    ]
    disk = mbr_disk(parts, sectors=16640)
    data = pack(disk.read_at(0, disk.size))
    path = tmp_path / "disk"
    path.write_bytes(data)
    for command in ("ls", "info"):
        assert main([command, str(path)]) == DONE
        assert capsys.readouterr().err == ""
    path.write_bytes(data[: len(data) * 2 // 5])
    for arguments in (["ls", str(path)], ["info", str(path)]):
        assert main(arguments) == BAD_INPUT
        captured = capsys.readouterr()
        assert "P1" in captured.out
        assert captured.err.startswith("vmvisor-image: ")
    with Image.open(path) as image:
        assert image.known_problems == ()  # nothing was looked at yet
        _ = image.problems
        assert set(image.known_problems) <= set(image.problems)


COMMANDS = {
    "ls": ["ls", "{source}"],
    "ls of one": ["ls", "{source}", "P2"],
    "info": ["info", "{source}"],
    "info --json": ["info", "{source}", "--json"],
    "info --explain": ["info", "{source}", "--explain"],
    "cat": ["cat", "{source}", "P2", "vmkernel.gz"],
    "extract": ["extract", "{source}", "P2", "{out}"],
    "system": ["system", "{source}", "--bank", "P2"],
    "system --json": ["system", "{source}", "--bank", "P2", "--json"],
    "system --files": ["system", "{source}", "--bank", "P2", "--files"],
    "module": ["module", "{source}", "P2", "vmkernel.gz"],
    "pxe": ["pxe", "{source}", "{out}", "--bank", "P2"],
    "convert": ["convert", "{source}", "{out}"],
    "hexdump": ["hexdump", "{source}", "P2", "-n", "0x100000"],
    "hexdump of a file": ["hexdump", "{source}", "P2/vmkernel.gz", "-n", "0x100000"],
    "ls of a directory": ["ls", "-l", "{source}", "P2/"],
    "ls --json": ["ls", "--json", "{source}"],
    "tree": ["tree", "{source}"],
    "find": ["find", "{source}", "*.BIN"],
    "find --json": ["find", "--json", "{source}", "P2/**"],
    "cat of a partition": ["cat", "{source}", "P2"],
    "cat of a path": ["cat", "{source}", "P2/F1.BIN"],
    "sha256": ["sha256", "{source}"],
    "sha256 of one": ["sha256", "{source}", "P2/F1.BIN"],
    "extract of all": ["extract", "{source}", "{out}"],
    "extract of some": ["extract", "{source}", "*/*.BIN", "{out}"],
    "diff": ["diff", "{source}", "{source}"],
    "verify": ["verify", "{source}"],
    "verify --json": ["verify", "{source}", "--json"],
    "scan": ["scan", "{source}"],
}
PACKS: dict[str, Callable[[bytes], bytes]] = {
    "bare": bytes,
    "bzip2": bz2.compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def written(folder: Path) -> dict[str, bytes]:
    """The content of a folder, or of a file in its place."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("pack", PACKS)
def test_no_command_shows_or_writes_less_in_silence(
    pack: str, command: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    tree = {f"F{number}.BIN": random.Random(number).randbytes(20_000) for number in range(3)}
    tree["vmkernel.gz"] = gzip.compress(random.Random(8).randbytes(30_000), mtime=0)
    tree["boot.cfg"] = b"kernel=vmkernel.gz\nmodules=\nbuild=4.1.0-260247\nupdated=1\nbootstate=0\n"
    volumes = [fat_volume({"mboot.c32": b"loader"}, sectors=1024, label="Hypervisor0")]
    volumes += [fat_volume(tree, sectors=1024, label=f"P{number}") for number in (2, 3)]
    parts = [ForgedPartition(n, 6, 64 + (n - 1) * 1024, 1024, content=volume) for n, volume in enumerate(volumes, 1)]
    disk = mbr_disk(parts, sectors=64 + 3 * 1024)
    data = PACKS[pack](disk.read_at(0, disk.size))
    source, out = tmp_path / "disk", tmp_path / "out"

    def done(content: bytes) -> tuple[int, bytes, dict[str, bytes], bytes]:
        source.write_bytes(content)
        arguments = [argument.format(source=source, out=out) for argument in COMMANDS[command]]
        status = main(arguments)
        found = capfdbinary.readouterr()
        files = written(out)
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        return status, found.out, files, found.err

    whole = done(data)
    assert whole[0] == DONE, whole
    assert whole[3] == b""
    for part in (0.001, 0.02, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.9999):
        status, shown, files, told = done(data[: int(len(data) * part)])
        if status == DONE:  # all of what was asked for lies before the cut
            assert (shown, files, told) == whole[1:], part
        else:
            assert status == BAD_INPUT, (part, status, told)
            assert told or command in ("verify", "verify --json", "scan"), part  # whose reports are of the damage
            if command != "convert":  # what it has of a bare disk that is cut, it writes
                assert all(whole[2].get(name) == content for name, content in files.items()), (part, [*files])


def test_hexdump_ends_where_the_disk_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk.dd"
    disk.write_bytes(bytes(range(100)))
    assert main(["hexdump", str(disk), "-s", "0x50"]) == DONE
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["00000050", "00000060", "00000064"]


def test_bad_input(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.bz2"
    cut.write_bytes(Path(source).read_bytes()[:100_000])
    assert main(["pxe", str(cut), str(tmp_path / "tftp")]) == BAD_INPUT
    assert "bzip2" in one_error_line(capsys)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"BZh91AY&SY" + bytes(100))
    assert main(["hexdump", str(garbage)]) == BAD_INPUT
    assert "at byte 0x4" in one_error_line(capsys)
    assert main(["hexdump", source, "-s", str(1 << 40)]) == BAD_INPUT


@pytest.mark.parametrize(("closed", "image", "status"), [(1, "{source}", DONE), (2, "missing.dd", MISUSE)])
def test_a_closed_output(source: str, closed: int, image: str, status: int) -> None:
    command = [sys.executable, "-m", "vmvisor_image", "ls", image.format(source=source), "Hypervisor1"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_module_and_version() -> None:
    output = subprocess.check_output([sys.executable, "-m", "vmvisor_image", "--version"], text=True)
    assert output.startswith("vmvisor-image 0.")


@pytest.mark.parametrize("with_rich", [True, False])
def test_progress_on_a_terminal(source: str, with_rich: bool, tmp_path: Path) -> None:
    hide = "" if with_rich else "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None; "
    code = f"{hide}from vmvisor_image.faces.cli import main; raise SystemExit(main())"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "info", source],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:  # the terminal's other side was closed
            break
        shown += piece
        if not piece:
            break
    os.close(controller)
    output, _ = process.communicate()
    assert process.returncode == DONE
    assert b"Hypervisor1" in output
    assert b"decoding" in shown
    assert (b"\x1b[" in shown) == with_rich
    assert b"Traceback" not in shown


def test_info_of_one_partition_and_the_whole_report_of_a_gpt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "esxi7.img"
    DISKS["8.0, upgraded once"][0].write_to(path)
    incomplete = BAD_INPUT  # the forged volume of OSDATA has headers, and no files
    assert main(["info", str(path)]) == incomplete
    printed = capsys.readouterr().out
    assert "layout of ESXi 7 or 8" in printed
    assert "the boot loader starts partition 6" in printed
    [drawn] = [line.strip() for line in printed.splitlines() if line.startswith("  [")]
    assert re.fullmatch(r"\[1+5+6+7+\.*\]", drawn)
    assert len(drawn) == 74
    assert main(["info", str(path), "BOOTBANK2"]) == DONE
    short = capsys.readouterr().out
    assert "info SRC 6 --fields" in short
    assert "oem_name" not in short
    assert len(short.splitlines()) < 40
    assert main(["info", str(path), "--fields"]) == MISUSE
    capsys.readouterr()
    assert main(["info", str(path), "BOOTBANK2", "--fields"]) == DONE
    printed = capsys.readouterr().out
    assert "the boot loader starts this bank" in printed
    assert "VMware marker at byte" in printed
    assert re.search(r"^  0x003  oem_name +'MSDOS5.0'$", printed, re.MULTILINE)
    assert main(["info", str(path), "--json"]) == incomplete
    report = json.loads(capsys.readouterr().out)
    assert (report["generation"], report["active_bank"], report["scheme"]) == ("esxi_7_8", 6, "gpt")
    osdata = report["partitions"][-1]
    assert (osdata["role"], osdata["kind"], osdata["name"]) == ("osdata", "vmfs-l", "OSDATA")
    assert ["label", "OSDATA"] in osdata["facts"]
    assert all(item["statement"] for partition in report["partitions"] for item in partition["evidence"])
    assert main(["info", str(path), "5", "--json"]) == MISUSE


def test_info_of_a_core_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "disk"
    content = SparseImage(8 << 20, [(3 << 20, b"memory " * 10000)])
    mbr_disk([ForgedPartition(1, 0xFC, 2048, 16384, content=content)], sectors=20000).write_to(path)
    assert main(["info", str(path), "--json"]) == DONE
    [partition] = json.loads(capsys.readouterr().out)["partitions"]
    assert partition["core_dump"]["first"] == 3 << 20
    assert partition["core_dump"]["looks_compressed"] is False
    assert pickle.loads(pickle.dumps(inspect(path))).partitions[0].core_dump.used == 131072


class TestMedia:
    @pytest.fixture
    def cd(self, tmp_path: Path) -> Path:
        return Media(tmp_path / "media", "4.1", small_disk({name: module(name) for name in BANK_35}), ROCK_RIDGE).iso

    def test_info_checks_the_checksum(self, cd: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", "--checksums", str(cd)]) == DONE
        assert "imagedd.bz2: md5 of imagedd.md5 is right" in capsys.readouterr().out
        (cd.parent / "cd/imagedd.md5").write_text("0" * 32)
        run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", cd, cd.parent / "cd")
        assert main(["info", "--checksums", str(cd)]) == BAD_INPUT
        assert "WRONG" in capsys.readouterr().out
        assert main(["info", "--checksums", "--member", "imagedd.bz2", str(cd)]) == BAD_INPUT

    def test_system(self, cd: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["system", str(cd)]) == DONE
        printed = capsys.readouterr().out
        assert printed.startswith("VMware ESXi 9.9.9 build 123456\n")
        assert [line.split()[1] for line in printed.splitlines()[1:]] == list(BANK_35)
        assert main(["system", "--json", str(cd)]) == DONE
        found = json.loads(capsys.readouterr().out)
        assert found["modules"][4]["sha256"] == hashlib.sha256(module("oem.tgz")).hexdigest()
        assert main(["system", "--files", str(cd)]) == DONE
        assert "license.tgz     etc/shared.conf" in capsys.readouterr().out

    def test_module(self, cd: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        assert main(["module", str(cd), "Hypervisor1", "oem.tgz"]) == DONE
        printed = capsysbinary.readouterr().out.decode()
        assert printed.startswith("tar in gzip\n")
        assert "etc/vmware/oem.tgz.txt" in printed
        assert main(["module", str(cd), "Hypervisor1", "oem.tgz", "etc/shared.conf"]) == DONE
        assert capsysbinary.readouterr().out == b"by oem.tgz"
        assert main(["module", str(cd), "Hypervisor1", "vmkernel.gz"]) == DONE
        assert b"32-bit x86, Multiboot" in capsysbinary.readouterr().out

    def test_pxe_with_everything(self, cd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "own").mkdir()
        (tmp_path / "own/file").write_bytes(b"mine")
        options = ["--install", "--prefix", "a", "--kernel-option", "x=1", "--ipxe", "--label", "L"]
        overlay = ["--overlay", f"ienviron.vgz={tmp_path / 'own'}", "--overlay", str(tmp_path / "own")]
        assert main(["pxe", *options, *overlay, "--overlay-keep", str(cd), str(tmp_path / "tftp")]) == DONE
        line = (tmp_path / "tftp/pxelinux.cfg/default").read_text().splitlines()[3]
        assert line.startswith("  append a/vmkboot.gz x=1 --- ")
        assert line.endswith(" --- a/oem.tgz")
        assert (tmp_path / "tftp/boot.ipxe").exists()
        assert main(["module", str(cd), "Hypervisor1", "nothing"]) == MISUSE
        assert main(["module", str(cd), "--threads", "1", "Hypervisor1", "--max-seconds", "60", "oem.tgz"]) == DONE
        assert main(["pxe", "--bank", "9", str(cd), str(tmp_path / "other")]) == MISUSE
        capsys.readouterr()

    def test_several_disks(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a.dd", "b.dd"):
            small_disk({}).write_to(tmp_path / name)
        archive = tgz(tmp_path, tmp_path / "two.tgz", "a.dd", "b.dd")
        assert main(["info", str(archive)]) == BAD_INPUT
        assert "'a.dd', 'b.dd'" in one_error_line(capsys)
        assert main(["info", "--member", "b.dd", str(archive)]) == DONE
        assert "tar around two.tar" in capsys.readouterr().out
        assert main(["info", "--member", "c", str(archive)]) == MISUSE

    def test_archive(self, cd: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        assert main(["archive", str(cd)]) == DONE
        assert b" ienviron.vgz\n" in capsysbinary.readouterr().out
        assert main(["archive", str(cd), "ienviron.vgz", "etc/shared.conf"]) == DONE
        assert capsysbinary.readouterr().out == b"by ienviron.vgz"
        assert main(["archive", "--list", str(cd), "ienviron.vgz"]) == DONE
        assert b"etc/vmware/ienviron.vgz.txt" in capsysbinary.readouterr().out
        (tmp_path / "x").write_bytes(b"nothing")
        assert main(["archive", str(tmp_path / "x")]) == BAD_INPUT
        assert main(["archive", str(cd), "none"]) == MISUSE
        capsysbinary.readouterr()


class TestDatastores:
    @pytest.fixture
    def devices(self, tmp_path: Path) -> tuple[str, str]:
        tree: dict[str, Content] = {
            "first.txt": b"first",
            "wide": VmfsFile(
                size=600 << 20, pieces=tuple((n << 20, b"%d" % n) for n in range(600)), pointers="pointer blocks"
            ),
            "last.txt": VmfsFile(b"last", pointers="file blocks"),
            "link": VmfsLink("first.txt"),
            "raw.vmdk": VmfsRawDevice(1 << 30, disk_id="naa.6001405"),
        }
        paths = []
        for number, device in enumerate(vmfs_volume(tree, "vmfs5", size=2 * EXTENT_SIZE + DATA_OFFSET, devices=2)):
            paths.append(tmp_path / f"{number}.img")
            device.write_to(paths[-1])
        return str(paths[0]), str(paths[1])

    def test_ls(self, devices: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        whole = ["ls", devices[1], "datastore1", "--device", devices[0]]
        for arguments, status in ((["ls", devices[0], "1"], BAD_INPUT), (whole, DONE)):  # one device is not all of it
            assert main(arguments) == status
            rows = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
            assert ["5", "2009-04-21", "16:45:56", "first.txt"] in rows
            assert ["link", "link", "->", "first.txt"] in rows
            assert ["1073741824", "raw.vmdk:", "raw", "device mapping, FORGED LUN naa.6001405"] in rows

    def test_cat_and_extract(
        self, devices: tuple[str, str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        assert main(["cat", devices[0], "datastore1", "last.txt", "--device", devices[1]]) == DONE
        assert capfdbinary.readouterr().out == b"last"
        assert main(["cat", devices[0], "1", "last.txt"]) == BAD_INPUT
        assert b"device of the volume that is not there" in capfdbinary.readouterr().err
        assert main(["extract", devices[0], "datastore1", str(tmp_path / "out"), "--device", devices[1]]) == DONE
        assert (tmp_path / "out" / "last.txt").read_bytes() == b"last"

    def test_a_volume_that_is_not_there(self, devices: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ls", devices[0], "other", "--device", devices[1]]) == MISUSE
        assert "'other'" in one_error_line(capsys)


def test_system_with_missing_modules_is_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "kernel=vmkernel.gz\nmodules=gone.tgz\nbuild=4.1.0-260247\nupdated=1\nbootstate=0\n"
    path = tmp_path / "disk"
    esx40_disk(boot={}, bank={"boot.cfg": text.encode(), "vmkernel.gz": b"kernel"}).write_to(path)
    for options in ([], ["--json"], ["--files"]):
        assert main(["system", str(path), *options]) == BAD_INPUT
        assert "'gone.tgz' is not there" in one_error_line(capsys)


def test_an_export_without_what_boot_cfg_names_is_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "kernel=vmkernel.gz\nmodules=gone.tgz\nbuild=4.1.0-260247\nupdated=1\nbootstate=0\n"
    path = tmp_path / "disk"
    esx40_disk(boot={"mboot.c32": b"loader"}, bank={"boot.cfg": text.encode(), "vmkernel.gz": b"kernel"}).write_to(path)
    assert main(["pxe", str(path), str(tmp_path / "out")]) == BAD_INPUT
    assert "boot.cfg names gone.tgz" in one_error_line(capsys)
    assert (tmp_path / "out" / "vmkernel.gz").read_bytes() == b"kernel"


class TestModuleByItself:
    """The command `module` of a file that is one."""

    def test_what_it_is(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        microcode = intel_microcode(0x506E3, 0xC2) + intel_microcode(0x306C3, 0x24)
        said = {
            "k.b00": (kernel_elf(identity=("VMware ESXi", "6.7.0", "8169922")), "VMware ESXi 6.7.0 8169922"),
            "features.gz": (b"", "empty in gzip"),
            "uc_intel.b00": (microcode, "2048 bytes  Intel 0x506e3, revision 0xc2, 2018-01-02"),
            "oem.tgz": (tar_archive({"etc/hosts": b"127.0.0.1"}), "etc/hosts"),
        }
        for name, (data, expected) in said.items():
            (tmp_path / name).write_bytes(gzip.compress(data))
            assert main(["module", str(tmp_path / name)]) == DONE
            captured = capsys.readouterr()
            assert expected in captured.out, name
            assert captured.err == ""

    def test_what_is_no_module(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, data in (("x.b00", gzip.compress(b"?")), ("y.b00", b"?")):
            (tmp_path / name).write_bytes(data)
            assert main(["module", str(tmp_path / name)]) == BAD_INPUT
            said = one_error_line(capsys)
            for kind in ("ELF", "tar", "vmtar", "zip", "ar", "ISO 9660", "encrypted configuration", "microcode"):
                assert kind in said
            assert (" in gzip" in said) == (name == "x.b00")

    def test_a_file_in_it(self, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        (tmp_path / "a.v00").write_bytes(gzip.compress(vmtar_archive({"etc/hosts": b"127.0.0.1"})))
        assert main(["module", str(tmp_path / "a.v00"), "etc/hosts"]) == DONE
        assert capsysbinary.readouterr().out == b"127.0.0.1"
        assert main(["module", str(tmp_path / "a.v00"), "etc/none"]) == MISUSE

    def test_limits_hold(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "k.b00").write_bytes(gzip.compress(kernel_elf(bytes(8 << 20))))
        assert main(["module", str(tmp_path / "k.b00"), "--max-decoded", "1000000"]) == BAD_INPUT
        assert "decoded" in one_error_line(capsys)

    def test_misuse(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["module", str(tmp_path / "none")]) == MISUSE
        (tmp_path / "a.tgz").write_bytes(gzip.compress(tar_archive({})))
        capsys.readouterr()
        assert main(["module", str(tmp_path / "a.tgz"), "--member", "x"]) == MISUSE
        assert "by itself" in one_error_line(capsys)
