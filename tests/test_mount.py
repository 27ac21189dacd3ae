"""`vmvisor-image mount`: what the kernel shows of a mounted image is what the library reads."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_fsspec import FILES, disk
from vmvisor_image import Image
from vmvisor_image.faces.cli import live, main
from vmvisor_image.faces.cli.status import BAD_INPUT, MISUSE
from vmvisor_image.fsspec import VmvisorFileSystem
from vmvisor_image.testing.forge import fat_volume

try:
    from vmvisor_image.fsspec import mount as mounting
except (ImportError, OSError) as error:
    pytest.skip(f"mfusepy can't be used here: {error}", allow_module_level=True)


def _can_mount() -> str | None:
    """Why nothing can be mounted here; None where it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that this user may open"
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["fusermount", "-V"], check=True, capture_output=True)
        return None
    return "there is no fusermount"


CAN_NOT = _can_mount()
needs_fuse = pytest.mark.skipif(CAN_NOT is not None, reason=str(CAN_NOT))


@contextlib.contextmanager
def mounted(source: Path | str, folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command, mounted; it is unmounted at the end where the test has not done so."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "vmvisor_image", "mount", str(source), str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            assert f"is mounted on {folder}, read-only" in said, said or process.communicate()[1]
            yield process
        finally:
            if folder.is_mount():
                subprocess.run(["fusermount", "-u", folder], check=True)
            process.wait(30)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.dd"
    path.write_bytes(disk("Hypervisor1", "Other"))
    return path


@needs_fuse
class TestMounted:
    def test_as_the_library_reads_it(self, image: Path, tmp_path: Path) -> None:
        with Image.open(image) as opened:
            opened.partitions[1].files.extract(tmp_path / "model")
        with mounted(image, tmp_path / "mnt") as process:
            listed = subprocess.check_output(["ls", tmp_path / "mnt"], text=True).split()
            assert listed == ["Hypervisor1", "Other"]
            for name, data in FILES.items():
                subprocess.run(["cmp", tmp_path / "mnt/Hypervisor1" / name, tmp_path / "model" / name], check=True)
                about = (tmp_path / "mnt/Hypervisor1" / name).stat()
                assert about.st_size == len(data)
                assert about.st_mtime == (tmp_path / "model" / name).stat().st_mtime
                assert about.st_mode & 0o777 == 0o444
            same = filecmp.dircmp(tmp_path / "mnt/Hypervisor1/packages", tmp_path / "model/packages")
            assert (same.left_only, same.right_only, same.diff_files) == ([], [], [])
            with pytest.raises(FileNotFoundError):
                (tmp_path / "mnt/Hypervisor1/missing").stat()
            with (tmp_path / "mnt/Other/vmkernel.gz").open("rb") as file:
                assert os.pread(file.fileno(), 1000, 70_001) == FILES["vmkernel.gz"][70_001:71_001]
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        assert list((tmp_path / "mnt").iterdir()) == []

    def test_nothing_is_written(self, image: Path, tmp_path: Path) -> None:
        before = image.read_bytes()
        with mounted(image, tmp_path / "mnt"):
            inside = tmp_path / "mnt/Hypervisor1"
            writes: tuple[Callable[[], object], ...] = (
                (inside / "new").touch,
                lambda: (inside / "boot.cfg").write_bytes(b"x"),
                lambda: (inside / "boot.cfg").open("ab"),
                (inside / "boot.cfg").unlink,
                lambda: (inside / "boot.cfg").chmod(0o600),
                lambda: (inside / "boot.cfg").rename(inside / "x"),
                lambda: os.truncate(inside / "boot.cfg", 1),
                (inside / "new").mkdir,
                (inside / "packages").rmdir,
            )
            for write in writes:
                with pytest.raises(OSError, match="Read-only file system"):
                    write()
        assert image.read_bytes() == before

    def test_in_the_background_until_it_is_unmounted(self, image: Path, tmp_path: Path) -> None:
        (tmp_path / "mnt").mkdir()
        command = [sys.executable, "-m", "vmvisor_image", "mount", image.name, "mnt", "--background"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        try:
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.endswith("to unmount it: fusermount -u mnt\n")
            assert (tmp_path / "mnt/Hypervisor1/boot.cfg").read_bytes() == FILES["boot.cfg"]
        finally:
            subprocess.run(["fusermount", "-u", tmp_path / "mnt"], check=True)

    def test_damage_is_an_error_and_never_zeros(self, tmp_path: Path) -> None:
        data = disk("Hypervisor1", "Other")
        cut = data[: data.index(FILES["vmkernel.gz"], 6001 * 512) + 65_536]
        path = tmp_path / "cut.dd"
        path.write_bytes(cut)
        with mounted(path, tmp_path / "mnt") as process:
            (whole,) = [each for each in (tmp_path / "mnt").iterdir() if each.name == "Hypervisor1"]
            assert (whole / "vmkernel.gz").read_bytes() == FILES["vmkernel.gz"]
            broken = next(each for each in (tmp_path / "mnt").iterdir() if each.name != "Hypervisor1")
            with pytest.raises(OSError, match=r"Input/output error"):
                (broken / "vmkernel.gz").read_bytes()
            assert (broken / "boot.cfg").exists()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        assert process.returncode == BAD_INPUT
        assert "vmkernel.gz: " in told
        assert "what was shown or written may be incomplete" in told

    def test_not_twice(self, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with mounted(image, tmp_path / "mnt"):
            assert main(["mount", str(image), str(tmp_path / "mnt")]) == MISUSE
            assert "something is mounted here already" in capsys.readouterr().err


class TestOperations:
    """Without the kernel."""

    @pytest.fixture
    def operations(self, image: Path) -> Iterator[Any]:
        fs = VmvisorFileSystem(str(image))
        told: list[str] = []
        made = mounting._Operations(fs, lambda: None, told.append)
        made.told = told
        yield made
        fs.close()

    def test_reads(self, operations: Any) -> None:
        assert operations.readdir("/", 0) == [".", "..", "Hypervisor1", "Other"]
        handle = operations.open("/Hypervisor1/boot.cfg", os.O_RDONLY)
        data = FILES["boot.cfg"]
        for offset, size in ((0, 4096), (7, 8), (len(data), 10), (len(data) + 5, 10)):
            assert operations.read("/Hypervisor1/boot.cfg", size, offset, handle) == data[offset : offset + size]
        operations.release("/Hypervisor1/boot.cfg", handle)
        assert operations.statfs("/")["f_namemax"] == 255
        assert operations.getattr("/", None)["st_nlink"] == 2

    @pytest.mark.parametrize(
        ("call", "number"),
        [
            (("getattr", "/missing", None), errno.ENOENT),
            (("getattr", "/Hypervisor1/boot.cfg/x", None), errno.ENOENT),
            (("open", "/Hypervisor1", os.O_RDONLY), errno.EISDIR),
            (("open", "/Hypervisor1/boot.cfg", os.O_RDWR), errno.EROFS),
        ],
    )
    def test_errors(self, operations: Any, call: tuple[Any, ...], number: int) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011  # its number is what is looked at
            getattr(operations, call[0])(*call[1:])
        assert caught.value.errno == number

    def test_a_name_that_is_no_text(self) -> None:
        volume = b"".join(fat_volume({"Ab d": b"1", "good.txt": b"2"}, sectors=4000).chunks())
        wrong = "A\ud800 d".encode("utf-16-le", "surrogatepass")
        told: list[str] = []
        fs = VmvisorFileSystem(volume.replace("Ab d".encode("utf-16-le"), wrong))
        found = mounting._Operations(fs, lambda: None, told.append).readdir("/1", 0)
        assert "good.txt" in found
        assert all(name.encode() for name in found)
        fs.close()


class TestMessages:
    def told(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
        assert main(["mount", *map(str, arguments)]) == MISUSE
        return capsys.readouterr().err

    def test_the_folder(self, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "there is no such folder; make an empty one" in self.told(capsys, image, tmp_path / "none")
        assert "is not a folder" in self.told(capsys, image, image)
        assert "is not empty, and a mount would hide what is in it" in self.told(capsys, image, tmp_path)

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("sys.modules['mfusepy'] = None", "pip install 'vmvisor-image[mount]'"),
            ("sys.modules['fsspec'] = None", "pip install 'vmvisor-image[mount]'"),
            ("import ctypes.util; ctypes.util.find_library = lambda name: None", "libfuse2"),
        ],
    )
    def test_what_is_missing(self, image: Path, tmp_path: Path, code: str, message: str) -> None:
        (tmp_path / "mnt").mkdir()
        program = f"import sys; {code}; from vmvisor_image.faces.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "mount", str(image), str(tmp_path / "mnt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == MISUSE
        assert message in done.stderr
        assert done.stderr.count("\n") == 1

    def test_no_device(
        self, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mnt").mkdir()
        monkeypatch.setattr(live, "_FUSE", tmp_path / "no-device")
        monkeypatch.setattr(sys, "platform", "linux")
        assert "without which nothing can be mounted" in self.told(capsys, image, tmp_path / "mnt")

    @needs_fuse
    def test_no_image(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "mnt").mkdir()
        assert "none.dd" in self.told(capsys, tmp_path / "none.dd", tmp_path / "mnt")
