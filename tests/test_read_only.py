"""Images are never written to and never closed: every layer, table, volume and archive, on a source that would tell."""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.exercise import documented, exercise_archive, exercise_image
from tests.support import require_tool
from tests.tool_disk import ToolDisk
from vmvisor_image import Image, NotAnArchive, open_archive, open_datastore
from vmvisor_image.streams.sources import FileObjectSource
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_vmfs import VmfsKind
from vmvisor_image.testing.forge_vmfs_files import Content, VmfsFile, vmfs_volume

TARGETS = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "fuzz" / "targets").glob("*.py")
    if not path.stem.startswith("_") and path.stem != "boot_cfg"
)
SEEDS = [
    pytest.param(seed, id=f"{target}-{number}")
    for target in TARGETS
    for number, seed in enumerate(importlib.import_module(f"fuzz.targets.{target}").seeds())
]


class Watched(io.BytesIO):
    """A file object that could be written to, and tells what was done to it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.calls: list[str] = []

    def write(self, data: Any) -> int:
        self.calls.append("write")
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.calls.append("truncate")
        return super().truncate(size)

    def close(self) -> None:
        self.calls.append("close")
        super().close()

    def flush(self) -> None:
        self.calls.append("flush")
        super().flush()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_source_is_read_and_nothing_else(seed: bytes) -> None:
    file = Watched(seed)
    with documented(), Image.open(file) as image:
        exercise_image(image.disk)
    exercise_image(FileObjectSource(file))
    with contextlib.suppress(NotAnArchive):
        exercise_archive(open_archive(FileObjectSource(file)))
    assert file.calls == []
    assert file.getvalue() == seed
    assert not file.closed


class WatchedVolume:
    """A large volume that could be written to, and tells what was done to it."""

    def __init__(self, volume: SparseImage) -> None:
        self.volume = volume
        self.size = volume.size
        self.calls: list[str] = []

    def read_at(self, offset: int, length: int) -> bytes:
        return self.volume.read_at(offset, length)

    def skip_zeros(self, offset: int, end: int) -> int:
        return self.volume.skip_zeros(offset, end)

    def __getattr__(self, name: str) -> Any:
        if any(word in name for word in ("write", "truncate", "close", "flush", "seek")):
            self.calls.append(name)
        raise AttributeError(name)


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs5-l", "vmfs6", "vmfs-l"])
def test_a_datastore_is_read_and_nothing_else(kind: VmfsKind) -> None:
    tree: dict[str, Content] = {"file": b"content", "blocks": VmfsFile(b"x" * 70_000, pointers="file blocks")}
    watched = WatchedVolume(vmfs_volume(tree, kind)[0])
    exercise_image(watched)
    with open_datastore(watched) as datastore:
        assert datastore.files["file"].read_bytes() == b"content"
    assert watched.calls == []


@pytest.mark.parametrize("command", ["info", "extract", "pxe", "ls", "verify"])
def test_every_open_of_the_image_is_read_only(command: str, tool_built_disk: ToolDisk, tmp_path: Path) -> None:
    """Under strace: how the image, and whatever is beside it, is opened."""
    source = tmp_path / "image" / "disk.dd.bz2"
    source.parent.mkdir()
    source.symlink_to(tool_built_disk.bz2)
    arguments = {
        "info": ["info", str(source)],
        "ls": ["ls", str(source)],
        "extract": ["extract", str(source), "Hypervisor1", str(tmp_path / "out")],
        "pxe": ["pxe", str(source), str(tmp_path / "tftp")],
        "verify": ["verify", str(source)],
    }[command]
    log = tmp_path / "log"
    calls = (
        "open,openat,openat2,creat,truncate,ftruncate,unlink,unlinkat,rename,renameat,renameat2,utimensat,chmod,fchmod"
    )
    traced = [require_tool("strace"), "-f", "-y", "-o", str(log), "-e", calls, sys.executable, "-B", "-m"]
    before = tool_built_disk.bz2.stat()
    done = subprocess.run([*traced, "vmvisor_image", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    after = tool_built_disk.bz2.stat()
    assert (before.st_mtime_ns, before.st_size, before.st_mode) == (after.st_mtime_ns, after.st_size, after.st_mode)
    touched = [
        line for line in log.read_text().splitlines() if "disk.dd.bz2" in line or tool_built_disk.bz2.name in line
    ]
    opened = [line for line in touched if "open" in line and "ENOENT" not in line]
    assert opened
    for line in touched:
        assert "O_WRONLY" not in line, line
        assert "O_RDWR" not in line, line
        assert "O_CREAT" not in line, line
        assert "O_TRUNC" not in line, line
        assert "open" in line, line
    assert [item.name for item in source.parent.iterdir()] == ["disk.dd.bz2"]
