"""Output of the commands at 80 and 120 columns and through a pipe; ``python -m tests.snapshots`` writes it anew.

The texts are in ``tests/snapshots/``, one for each command and width: look at what has changed before you commit it.
"""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Final

from tests.media import module
from tests.terminals import open_terminal, read_terminal
from vmvisor_image.testing.forge import SparseImage, esx40_disk

FOLDER: Final = Path(__file__).with_suffix("")
WIDTHS: Final = (80, 120, None)
"""Columns of the terminal; None for a pipe."""
IMAGE: Final = "VMvisor-4.1.0.dd.bz2"
BROKEN: Final = "old/sticks/broken.dd.bz2"
COMMANDS: Final = {
    "info": ("info", IMAGE),
    "info-broken": ("info", BROKEN),
    "info-partition": ("info", IMAGE, "Hypervisor1"),
    "info-fields": ("info", IMAGE, "Hypervisor1", "--fields"),
    "info-explain": ("info", "--explain", IMAGE),
    "scan": ("scan", "--workers", "1", "**/*.bz2"),
    "system": ("system", IMAGE),
    "verify": ("verify", IMAGE),
    "ls": ("ls", IMAGE),
}
"""Command lines by name."""
_MODULES: Final = ("license.tgz", "oem.tgz", "driver-with-a-long-name.v00")
_ARGUMENTS: Final = "netconsole=192.168.1.17:6666 logLevel=verbose debugLogToSerial=1 com1_baud=115200 noquickboot"


def _stored(data: bytes) -> bytes:
    """gzip of `data` without compression: the same bytes with every Python and zlib."""
    blocks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
    body = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<II", zlib.crc32(data), len(data))


def forge() -> SparseImage:
    """A disk of ESXi 4.1 with modules, a long path, and a second bank that was never written."""
    bank = {name: _stored(gzip.decompress(module(name))) for name in (*_MODULES, "vmkboot.gz")}
    bank["boot.cfg"] = (
        f"kernel=vmkboot.gz\nkernelopt={_ARGUMENTS}\nmodules=license.tgz {_ARGUMENTS} --- oem.tgz ---"
        " driver-with-a-long-name.v00\nbuild=4.1.0-260247\nupdated=1\nbootstate=0\n"
    ).encode()
    store = {
        "packages/4.1.0/client/VMware-viclient-4.1.0-build-258902.exe": b"client",
        "packages/versions.xml": b"<v/>",
    }
    return esx40_disk(boot={"mboot.c32": b"loader", "ldlinux.sys": b"loader"}, bank=bank, store=store)


def write_images(folder: Path) -> None:
    """Write the image, and one that is cut off, to a new folder."""
    folder.mkdir()
    disk = forge()
    packed = bz2.compress(disk.read_at(0, disk.size))
    (folder / IMAGE).write_bytes(packed)
    (folder / BROKEN).parent.mkdir(parents=True)
    (folder / BROKEN).write_bytes(packed[: len(packed) * 2 // 3])


def printed(name: str, columns: int | None, folder: Path, *, keep_columns: bool = False) -> str:
    """What a command prints to standard output in a terminal of `columns` columns, or to a pipe."""
    command = [sys.executable, "-m", "vmvisor_image", *COMMANDS[name]]
    hidden = {"LINES", "NO_COLOR", "FORCE_COLOR"} | (set() if keep_columns else {"COLUMNS"})
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"PYTHONIOENCODING": "utf-8", "TERM": "xterm", "TZ": "UTC"}
    if columns is None:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        return done.stdout.decode()
    controller, terminal = open_terminal(columns)
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=terminal, stderr=subprocess.DEVNULL)
    os.close(terminal)
    shown = read_terminal(controller)
    process.wait()
    return shown.decode().replace("\r\n", "\n")


def path_of(name: str, columns: int | None) -> Path:
    """File of a snapshot."""
    return FOLDER / f"{name}.{'pipe' if columns is None else columns}.txt"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        images = Path(work) / "images"
        write_images(images)
        FOLDER.mkdir(exist_ok=True)
        for each in FOLDER.glob("*.txt"):
            each.unlink()
        for each_name in COMMANDS:
            for each_width in WIDTHS:
                path_of(each_name, each_width).write_text(printed(each_name, each_width, images), encoding="utf-8")
