"""The examples of the README and the docs: found in the pages, and run against forged images.

What a page says beside an example, in comments that no reader sees, and only before the example that it is about:

* ``<!-- not run: why -->``: it is not run, for this reason.
* ``<!-- before this: code -->``: Python that is run first, such as what opens the image that the example goes on with.

A page's examples are run in order, in a new folder, with the names of the ones before. Images of the names in `IMAGES`
lie in that folder where the page mentions them; ``/srv`` is a folder in it, empty before each example and each command.
"""

from __future__ import annotations

import contextlib
import doctest
import gc
import gzip
import io
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests import media
from tests.support import HANGS, REPOSITORY, build_once, run
from vmvisor_image.faces.cli import main
from vmvisor_image.testing import forge_modules
from vmvisor_image.testing.forge import (
    ForgedPartition,
    SparseImage,
    esx35_bank_files,
    esx35_boot_files,
    esx35_disk,
    fat_volume,
    mbr_disk,
)
from vmvisor_image.testing.forge_gpt import esx5_disk
from vmvisor_image.testing.forge_machines import ForgedSnapshot, vmsd_file, vmx_file
from vmvisor_image.testing.forge_vmfs_files import VmfsFile, vmfs_volume

LANGUAGES: Final = ("python", "pycon", "console")
UNKNOWN: Final = ("bash", "shell", "sh", "py", "python3", "ipython", "shell-session")
"""Other names for what is run: a page that used one would escape."""
_FENCE: Final = re.compile(r"^(`{3,})\s*([\w{}-]*)\s*$")
_COMMENT: Final = re.compile(r"^<!-- (not run|before this): (.+) -->$")
_MADE: Final = re.compile(r"write_\w+\(Path\(\"([^\"]+)\"")
_OPTIONS: Final = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Example:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str
    before: str = ""
    """Python to run first."""
    not_run: str = ""
    """Why it can't be run."""


def pages() -> list[str]:
    """Every page, as its path in the repository."""
    return [
        "README.md",
        *sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md")),
    ]


def examples(page: str) -> list[Example]:
    """The examples of a page, and what is said about them."""
    return list(_examples(page, (REPOSITORY / page).read_text(encoding="utf-8").splitlines()))


def _examples(page: str, lines: list[str]) -> Iterator[Example]:
    said: dict[str, str] = {}
    inside: tuple[str, str, int] | None = None
    block: list[str] = []
    for number, line in enumerate(lines, 1):
        if inside is not None:
            if line.strip() == inside[0]:
                if inside[1] in (*LANGUAGES, *UNKNOWN):
                    text = "\n".join(block) + "\n"
                    yield Example(
                        page, inside[2], inside[1], text, said.get("before this", ""), said.get("not run", "")
                    )
                inside, said, block = None, {}, []
            else:
                block.append(line)
        elif fence := _FENCE.match(line):
            inside = (fence[1], fence[2], number)
        elif comment := _COMMENT.match(line):
            said[comment[1]] = comment[2]
        elif line.strip():
            said = {}


class Runner:
    """Runs the examples of one page in the current folder."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, example: Example) -> None:
        """Run one; raises what it raises, and an AssertionError where what it shows is not what the page says."""
        _new_srv()
        text = example.text.replace("/srv/", f"{Path.cwd()}/srv/")
        if example.before:
            exec(compile(example.before, example.page, "exec"), self.names)
        match example.language:
            case "python":
                # Lines as in the page, so that a traceback leads there.
                exec(compile("\n" * example.line + text, str(REPOSITORY / example.page), "exec"), self.names)
            case "pycon":
                self._doctest(example, text)
            case "console":
                for command, shown in commands(text):
                    _new_srv()
                    arguments = _own(command)
                    _compare(command, shown, self._shell(command) if arguments is None else self._main(arguments))

    def close(self) -> None:
        """Let go of what the examples left open."""
        self.names.clear()
        gc.collect()

    def _doctest(self, example: Example, text: str) -> None:
        parsed = doctest.DocTestParser().get_doctest(
            text.replace("…", "..."), self.names, self.page, None, example.line
        )
        parsed.globs = self.names  # get_doctest copies them
        said: list[str] = []
        failed = doctest.DocTestRunner(optionflags=_OPTIONS).run(parsed, out=said.append, clear_globs=False).failed
        assert failed == 0, "".join(said)

    @staticmethod
    def _main(arguments: list[str]) -> str:
        """What the program prints, without a process of its own."""
        errors = io.StringIO()
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out, pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", "UTC")
            patch.setenv("COLUMNS", "120")
            time.tzset()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                status = main(arguments)
            out.seek(0)
            printed = out.read()
        time.tzset()
        assert status == 0, f"{arguments} ended with {status}:\n{printed}{errors.getvalue()}"
        return printed

    @staticmethod
    def _shell(command: str) -> str:
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "TZ": "UTC",
            "COLUMNS": "120",
        }
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False, timeout=HANGS
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout


def _own(command: str) -> list[str] | None:
    """The arguments of a command that is this project's program alone; None for what takes a shell."""
    command = command.replace("\\\n", " ")
    outside = re.sub(r"'[^']*'", "", command)
    if not outside.startswith("vmvisor-image ") or re.search(r"""[|&;<>()$`\\"*?\[\]#~{}!\n]""", outside):
        return None
    return shlex.split(command)[1:]


def _new_srv() -> None:
    shutil.rmtree("srv", ignore_errors=True)
    Path("srv").mkdir()


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console, each with what it shows."""
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:].split("  # ")[0].rstrip()], []))
        elif found[-1][0][-1].endswith("\\"):
            found[-1][0].append(line)
        else:
            found[-1][1].append(line)
    return [("\n".join(command), "\n".join(shown)) for command, shown in found]


def _compare(command: str, shown: str, printed: str) -> None:
    """What a page shows of a command, "…" for anything; lines may be broken elsewhere, and nothing need be shown."""
    if not shown.strip():
        return
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("…"))
    pattern = pattern.replace(r"\ ", r"\s*").replace(".*", r"(?s:.*)")
    text = " ".join(printed.split())
    assert re.fullmatch(pattern.replace(r"(?s:.*)", r"\s*(?s:.*)\s*"), text), (
        f"{command} prints\n{printed}\nnot\n{shown}"
    )


def _bank() -> dict[str, bytes]:
    """A boot bank of modules that can be opened."""
    files = {
        "etc/passwd": b"root:x:0:0::/:/bin/ash\n",
        "etc/hosts": b"127.0.0.1 localhost\n",
        "etc/vmware/esx.conf": b'/system/uuid = "forged"\n',
        "etc/vmware/hostd/config.xml": b"<config/>\n",
    }
    names = [*media.BANK_35, "k.b00"]
    bank = {name: media.module(name) for name in names}
    bank["binmod.tgz"] = gzip.compress(forge_modules.tar_archive(files), mtime=0)
    lines = f"kernel=vmkernel.gz\nkernelopt=\nmodules={' --- '.join(names[1:])}\nbuild=3.5.0-67921\nupdated=1\n"
    return bank | {"boot.cfg": f"{lines}bootstate=0\n".encode()}


def _hypervisor(path: Path) -> None:
    bank: dict[str, Any] = dict(esx35_bank_files(1_000_000))
    bank["binmod.tgz"] = _bank()["binmod.tgz"]
    esx35_disk(boot=esx35_boot_files(), bank=bank).write_bz2(path)


def _modules(path: Path) -> None:
    media.small_disk(_bank()).write_to(path)


def _guest() -> dict[str, Any]:
    disk = mbr_disk(
        [ForgedPartition(1, 6, 63, 8192, active=True, content=fat_volume({"a.txt": b"a"}, sectors=8192))], sectors=8255
    )
    descriptor = (
        "# Disk DescriptorFile\nversion=1\nCID=dab8f8df\nparentCID=ffffffff\n"
        f'createType="vmfs"\n\nRW {disk.size // 512} VMFS "vm-flat.vmdk"\n'
    )
    return {
        "vm/vm.vmdk": descriptor.encode(),
        "vm/vm-flat.vmdk": VmfsFile(size=disk.size, pieces=disk.pieces),
    }


def linux_disk(folder: Path) -> SparseImage:
    """The disk of a machine with Linux, of an ext4 file system by mke2fs; `folder` is for what that needs."""
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("lab-guest\n")
    (tree / "etc/os-release").write_text("NAME=Lab\n")
    (tree / "etc/localtime").symlink_to("../usr/share/zoneinfo/UTC")
    volume = folder / "ext4"
    with volume.open("wb") as file:
        file.truncate(4 << 20)
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, volume)
    content = SparseImage(4 << 20, [(0, volume.read_bytes())])
    return mbr_disk([ForgedPartition(1, 0x83, 2048, 8192, content=content)], sectors=10240)


def _linux(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        linux_disk(Path(folder)).write_to(path)


def _linux_machine() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        disk = linux_disk(Path(folder))
    return {"linux/linux-flat.vmdk": VmfsFile(size=disk.size, pieces=disk.pieces)}


def _datastore(path: Path) -> None:
    (volume,) = vmfs_volume(_guest() | _linux_machine())
    mbr_disk(
        [ForgedPartition(1, 0xFB, 128, volume.size // 512, content=volume)], sectors=128 + volume.size // 512
    ).write_to(path)


def _machines(path: Path) -> None:
    """A datastore with two virtual machines; the disks after a snapshot are whole ones, as a clone has them."""
    disk = _guest()
    data = fat_volume({"b.txt": b"b"}, sectors=4096)
    files = {
        "web/web.vmx": vmx_file(
            {"scsi0:0": "web-000001.vmdk", "scsi0:1": "data.vmdk"}, name="web", settings={"firmware": "efi"}
        ),
        "web/web.vmsd": vmsd_file(
            [ForgedSnapshot(1, "before update", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), {"scsi0:0": "web.vmdk"})]
        ),
        "web/vm-Snapshot1.vmsn": b"\xd2\xbe\xd2\xbe\x08\0\0\0\0\0\0\0",
        "build server/build server.vmx": vmx_file({"nvme0:0": "build server.vmdk"}, name="build server"),
        "web/data.vmdk": disk["vm/vm.vmdk"].replace(b"vm-flat", b"data-flat").replace(b"8255", b"4096"),
        "web/data-flat.vmdk": VmfsFile(size=data.size, pieces=data.pieces),
    }
    for name in ("web/web", "web/web-000001", "build server/build server"):
        flat = f"{name.rpartition('/')[2]}-flat".encode()
        files[f"{name}.vmdk"] = disk["vm/vm.vmdk"].replace(b"vm-flat", flat)
        files[f"{name}-flat.vmdk"] = disk["vm/vm-flat.vmdk"]
    (volume,) = vmfs_volume(files)
    mbr_disk(
        [ForgedPartition(1, 0xFB, 128, volume.size // 512, content=volume)], sectors=128 + volume.size // 512
    ).write_to(path)


def _encrypted(image: SparseImage, size: int) -> SparseImage:
    """The image with random bytes in the place of its first `size`."""
    rest = [(max(at, size), data[max(0, size - at) :]) for at, data in image.pieces if at + len(data) > size]
    return SparseImage(image.size, [(0, random.Random(1).randbytes(size)), *rest])


def _attacked(path: Path) -> None:
    """A datastore whose first 16 MiB are encrypted, with a virtual disk whose first MiB is."""
    volume = fat_volume({"a.txt": b"a"}, sectors=8192)
    guest = _encrypted(mbr_disk([ForgedPartition(1, 6, 2048, 8192, content=volume)], sectors=10240), 1 << 20)
    (datastore,) = vmfs_volume({"vm/vm-flat.vmdk": VmfsFile(size=guest.size, pieces=guest.pieces)})
    sectors = datastore.size // 512
    disk = mbr_disk([ForgedPartition(1, 0xFB, 2048, sectors, content=datastore)], sectors=2048 + sectors)
    _encrypted(disk, 16 << 20).write_to(path)


def _device(number: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        vmfs_volume(_guest(), devices=2)[number].write_to(path)

    return make


def _stick(path: Path) -> None:
    bank = {name: media.module(name) for name in media.BANK_6} | {"boot.cfg": media.BOOT_CFG_6.encode()}
    esx5_disk(boot={"syslinux.cfg": b"default\n"}, bank=bank).write_to(path)


def _two(path: Path) -> None:
    folder = path.with_suffix(".d")
    (folder / "folder").mkdir(parents=True)
    for name in ("a", "b"):
        media.small_disk({"boot.cfg": b"kernel=b\n"}).write_to(folder / "folder" / f"{name}.dd")
    media.tgz(folder, path, "folder")


def _cd(generation: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        disk = None if generation == "6.5" else media.small_disk(_bank())
        made = media.Media(path.with_suffix(".d"), generation, disk, media.ROCK_RIDGE)
        made.iso.rename(path)

    return make


def _drivers(path: Path) -> None:
    (path / "etc").mkdir(parents=True)
    (path / "etc/driver.txt").write_text("a driver")


def _several(path: Path) -> None:
    path.mkdir()
    (path / "one.dd.bz2").hardlink_to(build_once(path.parent / "hypervisor.bz2", _hypervisor))


IMAGES: Final[Mapping[str, Callable[[Path], None]]] = {
    "VMware-VMvisor-big-3.5.0-67921.i386.dd.bz2": _hypervisor,
    "image.dd.bz2": _hypervisor,
    "VMware-VMvisor-InstallerCD-3.5.0.iso": _cd("3.5"),
    "VMware-VMvisor-Installer-4.1.0.x86_64.iso": _cd("4.1"),
    "VMware-VMvisor-Installer-8.0.iso": _cd("6.5"),
    "cd.iso": _cd("3.5"),
    "attacked.img": _attacked,
    "bank.img": _modules,
    "datastore.img": _datastore,
    "esxi-disk.img": _datastore,
    "machines.img": _machines,
    "linux.img": _linux,
    "lun0.img": _device(0),
    "lun1.img": _device(1),
    "usb-stick.img": _stick,
    "two.tgz": _two,
    "my-drivers": _drivers,
    "images": _several,
}
"""What is forged for a name that a page mentions."""


def provide(page: str, made: Path) -> None:
    """Put the images that a page mentions, and does not make itself, into the current folder; `made` keeps them."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    own = set(_MADE.findall(text))
    for name, make in IMAGES.items():
        if name in own or not re.search(rf"(?<![\w/.-]){re.escape(name)}(?!\w)", text):
            continue
        kept = build_once(made / ("hypervisor.bz2" if make is _hypervisor else name), make)
        Path(name).symlink_to(kept)
