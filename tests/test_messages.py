"""What a person reads who gives a command something that it can't use: one line, in words, with the next step."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.http_server import Served, Server
from tests.support import unavailable
from vmvisor_image.faces.cli import main
from vmvisor_image.faces.cli.main import _parser
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, fat_volume, mbr_disk

BAD_INPUT, MISUSE = 1, 2
PAGE = b"<!-- made by a tool -->\n<!DOCTYPE html>\n<html><head><title>Downloads</title></head></html>\n" * 20

COMMANDS = {
    "info": ["info", "SRC"],
    "info of a partition": ["info", "SRC", "5"],
    "info --json": ["info", "SRC", "--json"],
    "ls": ["ls", "SRC"],
    "ls of a partition": ["ls", "SRC", "5"],
    "cat": ["cat", "SRC", "5", "boot.cfg"],
    "extract": ["extract", "SRC", "5", "DEST"],
    "ls of a path": ["ls", "SRC", "5/"],
    "cat of a path": ["cat", "SRC", "5/boot.cfg"],
    "extract of all": ["extract", "SRC", "DEST"],
    "extract of some": ["extract", "SRC", "*/*.tgz", "DEST"],
    "tree": ["tree", "SRC"],
    "find": ["find", "SRC", "*.tgz"],
    "sha256": ["sha256", "SRC"],
    "diff": ["diff", "SRC", "SRC"],
    "pxe": ["pxe", "SRC", "DEST"],
    "system": ["system", "SRC"],
    "system --json": ["system", "SRC", "--json"],
    "host": ["host", "SRC"],
    "host --json": ["host", "SRC", "--json"],
    "provenance": ["provenance", "SRC"],
    "provenance --json": ["provenance", "SRC", "--json"],
    "module": ["module", "SRC"],
    "module of a partition": ["module", "SRC", "5", "oem.tgz"],
    "archive": ["archive", "SRC"],
    "convert": ["convert", "SRC", "DEST"],
    "index": ["index", "SRC"],
    "hexdump": ["hexdump", "SRC"],
    "hexdump --json": ["hexdump", "SRC", "--json"],
    "hexdump of a partition": ["hexdump", "SRC", "5"],
    "machines": ["machines", "SRC"],
    "machines --json": ["machines", "SRC", "--json"],
    "verify": ["verify", "SRC"],
    "scan": ["scan", "SRC"],
}
"""Command lines; SRC is what can't be used, DEST what is not there yet."""
STEP = re.compile(
    r"check |copy or download it again|name |did you mean|write it to a file first|run this as"
    r"|use it as it is|look in it for|open the address|`vmvisor-image "
)
"""What tells a person what to do next."""


class Wrong:
    """Makes the things that can't be used."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self._server = server

    def pipe(self) -> str:
        os.mkfifo(self.folder / "pipe")
        return str(self.folder / "pipe")

    def socket(self) -> str:
        with socket.socket(socket.AF_UNIX) as opened:
            place = Path.cwd()
            os.chdir(self.folder)  # the path of a socket is short
            opened.bind("socket")
            os.chdir(place)
        return str(self.folder / "socket")

    def a_folder(self) -> str:
        (self.folder / "folder").mkdir()
        return str(self.folder / "folder")

    def empty(self) -> str:
        return self._file("empty.dd", b"")

    def text(self) -> str:
        return self._file("notes.txt", b"This is a text.\n" * 100)

    def picture(self) -> str:
        return self._file("photo.png", b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(6000))

    def noise(self) -> str:
        return self._file("noise", random.Random(2).randbytes(20_000))

    def saved_page(self) -> str:
        return self._file("ESXi-4.1.iso.bz2.html", PAGE)

    def missing(self) -> str:
        return str(self.folder / "missing.dd")

    def below_a_file(self) -> str:
        return f"{self.text()}/disk.dd"

    def circle(self) -> str:
        (self.folder / "circle").symlink_to("circle")
        return str(self.folder / "circle")

    def device(self) -> str:
        if not Path("/dev/zero").exists():
            unavailable("/dev/zero is not there")
        return "/dev/zero"

    def page(self) -> str:
        self._server.objects["page"] = Served(BytesSource(PAGE))
        return f"{self._server.url}/page"

    def no_object(self) -> str:
        return f"{self._server.url}/none"

    def forbidden(self) -> str:
        self._server.objects["secret"] = Served(BytesSource(PAGE), status=HTTPStatus.FORBIDDEN)
        return f"{self._server.url}/secret"

    def no_server(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{free.getsockname()[1]}/disk.dd"

    def _file(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)


KINDS: dict[str, tuple[Callable[[Wrong], str], int, str]] = {
    "a pipe": (Wrong.pipe, BAD_INPUT, r"a pipe or socket can't be read at any position; write it to a file first"),
    "a socket": (Wrong.socket, BAD_INPUT, r"a pipe or socket can't be read at any position; write it to a file first"),
    "a folder": (
        Wrong.a_folder,
        MISUSE,
        r"folder, not a file: name a file in it, or .*`vmvisor-image scan",
    ),
    "an empty file": (Wrong.empty, BAD_INPUT, r"it is empty: copy or download it again"),
    "a text": (Wrong.text, BAD_INPUT, r"most likely text; `vmvisor-image hexdump \S+notes\.txt` shows its first bytes"),
    "a picture": (Wrong.picture, BAD_INPUT, r"most likely PNG picture; `vmvisor-image hexdump "),
    "noise": (
        Wrong.noise,
        BAD_INPUT,
        r"most likely encrypted or compressed data, or noise.*; `vmvisor-image info \S+ --search` looks",
    ),
    "a saved page": (
        Wrong.saved_page,
        BAD_INPUT,
        r"most likely a web page \(HTML\); look in it for the link",
    ),
    "a missing file": (Wrong.missing, MISUSE, r"missing\.dd: there is no such file: check its name and its folder"),
    "a path below a file": (Wrong.below_a_file, MISUSE, r"a part of its path is a file, not a folder: check the path"),
    "links in a circle": (Wrong.circle, BAD_INPUT, r"its symbolic links lead in a circle: name the file itself"),
    "a device": (Wrong.device, BAD_INPUT, r"a character device can't be read at any position; name the block device"),
    "a page": (
        Wrong.page,
        BAD_INPUT,
        r"most likely a web page \(HTML\); open the address in a browser",
    ),
    "a URL of nothing": (Wrong.no_object, MISUSE, r"/none: there is nothing at this address: check the URL"),
    "a URL that is refused": (
        Wrong.forbidden,
        BAD_INPUT,
        r"answered 403.*; check the URL and your credentials",
    ),
    "a server that is not there": (
        Wrong.no_server,
        BAD_INPUT,
        r"can't be opened: .*; check the URL and the connection",
    ),
}
"""What makes it, exit status, and what is said of it."""
READABLE = ("a text", "a picture", "noise", "a saved page", "a page")
"""Kinds whose bytes can be read: they are only no disk."""
OTHERWISE = {
    "archive": (r"neither tar, vmtar, zip, ar nor ISO 9660; `vmvisor-image info \S+` reads a disk image", BAD_INPUT),
    "module": (r"neither a program \(ELF\), an archive .*nor microcode; `vmvisor-image info \S+` says", BAD_INPUT),
    "index": (r"no index was written: \S+ is not compressed, and only bzip2 needs one: use it as it is", BAD_INPUT),
    "hexdump": (None, 0),
    "hexdump --json": (None, 0),
}
"""What commands that need no disk say of what can be read."""


@pytest.fixture
def wrong(tmp_path: Path, server: Server) -> Wrong:
    return Wrong(tmp_path, server)


def run(line: list[str], source: str, dest: Path) -> int:
    return main([source if part == "SRC" else str(dest) if part == "DEST" else part for part in line])


def check_line(text: str) -> None:
    assert text.startswith("vmvisor-image: ")
    assert text.count("\n") == 1
    for word in ("Errno", "Traceback", "Error(", "  "):
        assert word not in text
    assert STEP.search(text)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither pipes nor devices by path")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_is_wrong_and_what_to_do(
    command: str, kind: str, wrong: Wrong, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, status, said = KINDS[kind]
    found = run(COMMANDS[command], make(wrong), tmp_path / "dest.zst")
    captured = capsys.readouterr()
    if command == "scan" and kind == "a folder":  # it stands for the images in it
        assert found == MISUSE
        said, message = "folder: no image is in this folder; name the files", captured.err
    elif command.startswith("machines") and kind == "a folder":  # it stands for the machines in it
        assert found == BAD_INPUT
        said, message = "folder: no virtual machine is in it; check ", captured.err
    elif command == "scan":  # each image has a row, also one that can't be opened
        is_missing = kind in ("a missing file", "a URL of nothing")  # all that was given is not there
        assert (found, captured.err) == (MISUSE if is_missing else BAD_INPUT, "")
        heading, row, message = captured.out.splitlines()
        assert heading.startswith("State")
        assert row.startswith("BAD")
        message = f"vmvisor-image: {message.strip()}\n"
    elif command in OTHERWISE and (kind in READABLE or (command, kind) == ("index", "an empty file")):
        instead, status = OTHERWISE[command]
        assert found == status
        if instead is None:
            assert captured.err == ""
            return
        said, message = instead, captured.err
    else:
        assert found == status
        message = captured.err
    check_line(message)
    assert re.search(said, message), message


def test_every_command_is_in_the_table() -> None:
    [commands] = [action.choices for action in _parser()._actions if isinstance(action.choices, dict)]
    assert {line[0] for line in COMMANDS.values()} | {"browse", "completion", "mount"} == set(commands)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no users of this kind")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_without_permission(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secret.dd"
    path.write_bytes(bytes(512))
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        status = run(COMMANDS[command], str(path), tmp_path / "dest.zst")
    finally:
        if is_root:
            os.seteuid(0)
    captured = capsys.readouterr()
    message = captured.err
    if command == "scan":
        assert status == BAD_INPUT
        message = f"vmvisor-image: {captured.out.splitlines()[-1].strip()}\n"
    else:
        assert status == MISUSE
    check_line(message)
    assert "secret.dd: permission denied: allow yourself to read it, or run this as a user who may" in message


def test_a_name_that_is_nearly_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "imagedd.bz2").write_bytes(b"")
    assert main(["info", str(tmp_path / "imagedd.bz")]) == MISUSE
    assert f"did you mean {str(tmp_path / 'imagedd.bz2')!r}?" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "nowhere" / "imagedd.bz2")]) == MISUSE
    assert f"{str(tmp_path / 'nowhere')!r} is not a folder that can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (
            "ls SRC 2",
            MISUSE,
            "partition 2 .* holds no file system.*; `vmvisor-image info SRC` shows what each partition",
        ),
        ("hexdump SRC 9", MISUSE, "no partition '9'; there are 1"),
        ("extract SRC 1 there", MISUSE, "there/a is already there; nothing was written; --force replaces it"),
        ("extract SRC 1 file", MISUSE, "file is in the way: it is not a directory; choose another folder"),
        ("extract SRC 1 file/x", BAD_INPUT, r"can't be written \(Not a directory\), a part of its path is a file"),
        ("convert SRC out.qcow2", MISUSE, "choose a name that ends in .zst"),
        ("convert SRC there/a", MISUSE, "there/a is already there; --force replaces it"),
        ("convert SRC nowhere/a", BAD_INPUT, r"can't be written \(No such file or directory\), make its folder first"),
        ("convert SRC a --level 99", MISUSE, "level must be 1 to 22, not 99"),
        ("verify SRC --manifest file", MISUSE, "file is already there; --force replaces it"),
        ("info SRC --member x", MISUSE, "no disk 'x' here: --member is a file of a CD or archive, or PARTITION/PATH"),
        ("hexdump SRC -s 999999999", BAD_INPUT, "1 byte wanted, but it ends at byte .*; give a smaller --offset"),
        ("pxe SRC out", MISUSE, r"partition 1 \(Hypervisor1\) holds no boot bank.*; no other partition holds one"),
        ("scan nothing-*", MISUSE, r"no file matches 'nothing-\*'; check the folder and the pattern"),
        ("module SRC", BAD_INPUT, "neither a program"),
        ("module SRC 2 a", MISUSE, "`vmvisor-image info SRC` shows what each partition holds"),
    ],
)
def test_what_is_asked_of_a_healthy_disk(
    line: str,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    volume = fat_volume({"a": b"a"}, sectors=6000, label="Hypervisor1")
    disk = [ForgedPartition(1, 6, 64, 6000, content=volume), ForgedPartition(2, 0xFC, 8000, 100)]
    mbr_disk(disk, sectors=8192).write_to(tmp_path / "SRC")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").touch()
    (tmp_path / "file").touch()
    assert main(line.split()) == status
    message = capsys.readouterr().err
    assert message.startswith("vmvisor-image: ")
    assert message.count("\n") == 1
    assert "Errno" not in message
    assert re.search(said, message), message


def test_standard_input_that_is_no_image() -> None:
    for command in ("convert", "verify", "archive", "scan"):
        line = [sys.executable, "-m", "vmvisor_image", command, "-", *(["/dev/null/x"] if command == "convert" else [])]
        done = subprocess.run(line, input="This is a text.\n", capture_output=True, text=True, check=False)
        assert done.returncode in (BAD_INPUT, MISUSE)
        assert "Errno" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
