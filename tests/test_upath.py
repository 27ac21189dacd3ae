"""universal_pathlib's `UPath` over `vmvisor://`, beside `pathlib.Path` over a folder with the same files."""

from __future__ import annotations

import operator
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.test_fsspec import FILES, disk
from vmvisor_image import Image, PathNotFound, ReadOnly

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
# It says so of links where there are none.
pytestmark = pytest.mark.filterwarnings("ignore:.*follow_symlinks=False")

Call = Callable[[Any], Any]

PLACES = ("", *FILES, "packages", "packages/tools", "missing", "missing/x", "packages/missing")
GLOBS = ("*", "*.cfg", "*/*", "*/tools/*.iso", "**/*.iso", "pack*", "?.tgz", "[a-b]*", "none*", "boot.cfg")


def _globbing(name: str, pattern: str) -> Call:
    return lambda path: sorted(each.relative_to(path).as_posix() for each in getattr(path, name)(pattern))


CALLS: dict[str, Call] = {
    "exists": lambda path: path.exists(),
    "is_dir": lambda path: path.is_dir(),
    "is_file": lambda path: path.is_file(),
    **{
        name: operator.methodcaller(name)
        for name in ("is_absolute", "is_symlink", "is_socket", "is_fifo", "is_block_device", "is_char_device")
    },
    "iterdir": lambda path: sorted(each.name for each in path.iterdir()),
    "iterdir, then is_dir": lambda path: sorted((each.name, each.is_dir()) for each in path.iterdir()),
    **{f"glob({pattern})": _globbing("glob", pattern) for pattern in GLOBS},
    **{f"rglob({pattern})": _globbing("rglob", pattern) for pattern in ("*.iso", "*.*", "tools", "none")},
    "walk": lambda path: [] if path.is_file() else _walked(path),
    "read_bytes": lambda path: path.read_bytes(),
    "read_text": lambda path: path.read_text(encoding="latin-1"),
    "read_text as it can": lambda path: path.read_text(encoding="ascii", errors="replace"),
    "open": lambda path: _first(path.open(encoding="latin-1"), lambda stream: stream.readline()),
    "open rb": lambda path: _first(path.open("rb"), lambda stream: (stream.read(5), stream.seek(1), stream.read())),
    "stat": lambda path: path.stat().st_size if path.is_file() else path.stat().st_mode >> 12,
    "stat, kind": lambda path: path.stat().st_mode >> 12,
    "stat, time": lambda path: path.stat().st_mtime if path.is_file() else path.stat() and None,
    "lstat": lambda path: path.lstat().st_mode >> 12,
    "name": lambda path: (path.name, path.stem, path.suffix, path.suffixes, path.parts[-1]),
    "parent": lambda path: (path.parent.exists(), path.parent / path.name == path, path.parent == path.parents[0]),
    "joinpath": lambda path: (path.joinpath("a", "b").name, path.joinpath("packages", "x.xml").exists()),
    "slash": lambda path: (path / "packages" / "x.xml").exists(),
    "with_name": lambda path: path.with_name("a.tgz").exists(),
    "with_suffix": lambda path: path.with_suffix(".gz").exists(),
    "with_stem": lambda path: path.with_stem("vmkernel").exists(),
    "resolve": lambda path: (path / ".." / "Hypervisor1").resolve().name,
    "relative_to": lambda path: path.relative_to(path.parent).as_posix(),
    "is_relative_to": lambda path: (path.is_relative_to(path.parent), path.is_relative_to(path / "x")),
    "samefile": lambda path: path.samefile(path),
    "equal": lambda path: (path == path.parent / path.name, path == path / "x"),
    "hash": lambda path: len({path, path.parent / path.name}),
    "pickled": lambda path: pickle.loads(pickle.dumps(path)) == path and pickle.loads(pickle.dumps(path)).exists(),
    "touch": lambda path: path.touch(exist_ok=False) if path.exists() else None,
}
CASES = [pytest.param(name, place, id=f"{name} of {place or 'the root'}") for name in CALLS for place in PLACES]


def _walked(path: Any) -> list[Any]:
    found: Any = path.walk() if hasattr(path, "walk") else ((Path(root), *rest) for root, *rest in os.walk(path))
    return sorted((root.relative_to(path).as_posix(), sorted(folders), sorted(files)) for root, folders, files in found)


def _first(stream: Any, read: Call) -> Any:
    with stream:
        return read(stream)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "x.dd"
    path.write_bytes(disk("Hypervisor1", "Other"))
    return path


@pytest.fixture(scope="module")
def model(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files in a folder, with the same times."""
    folder = tmp_path_factory.mktemp("model") / "Hypervisor1"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        time = upath.UPath(f"vmvisor://Hypervisor1/{name}", fo=str(image)).stat().st_mtime
        os.utime(folder / name, (time, time))
    return folder


@pytest.fixture
def root(image: Path) -> Any:
    return upath.UPath("vmvisor://Hypervisor1", fo=str(image))


def _outcome(path: Any, call: Call) -> Any:
    try:
        return call(path)
    except Exception as error:  # noqa: BLE001  # it is what is compared
        return error


@pytest.mark.parametrize(("name", "place"), CASES)
def test_as_pathlib(root: Any, model: Path, name: str, place: str) -> None:
    ours, expected = (_outcome(path / place if place else path, CALLS[name]) for path in (root, model))
    if isinstance(expected, Exception):
        assert isinstance(ours, type(expected)), (ours, expected)
    else:
        assert ours == expected


def test_places(root: Any) -> None:
    path = root / "packages" / "tools" / "linux.iso"
    assert path.path == "Hypervisor1/packages/tools/linux.iso"
    assert path.parts == ("/", "Hypervisor1", "packages", "tools", "linux.iso")
    assert [parent.path for parent in path.parents] == [
        "Hypervisor1/packages/tools",
        "Hypervisor1/packages",
        "Hypervisor1",
        "",
    ]
    top = path.parents[-1]
    assert top.parent == top
    assert (top.is_dir(), top.is_file()) == (True, False)
    assert [each.name for each in top.iterdir()] == ["Hypervisor1", "Other"]
    assert str(path) == path.as_uri() == "vmvisor://Hypervisor1/packages/tools/linux.iso"


def test_storage_options(root: Any, image: Path) -> None:
    path = root / "boot.cfg"
    assert path.protocol == "vmvisor"
    for each in (path, pickle.loads(pickle.dumps(path)), path.parent, path.with_name("a.tgz")):
        assert dict(each.storage_options) == {"fo": str(image)}
        assert each.exists()
    assert path != upath.UPath("vmvisor://Hypervisor1/boot.cfg", fo=f"{image}.other")
    assert upath.UPath("vmvisor://1/BOOT.CFG", fo=str(image), threads=1).read_bytes() == FILES["boot.cfg"]


def test_chained(image: Path) -> None:
    path = upath.UPath(f"vmvisor://Hypervisor1/packages::file://{image}")
    assert sorted(each.name for each in path.iterdir()) == ["tools", "x.xml"]
    assert pickle.loads(pickle.dumps(path / "x.xml")).read_text() == "<x/>"
    assert path.parent.parent.is_dir()


def test_copied_out(root: Any, tmp_path: Path) -> None:
    (root / "boot.cfg").copy(upath.UPath(tmp_path / "copied"))
    assert (tmp_path / "copied").read_bytes() == FILES["boot.cfg"]
    (root / "packages").copy(upath.UPath(tmp_path / "folder"))
    found = {
        path.relative_to(tmp_path / "folder").as_posix(): path.read_bytes()
        for path in (tmp_path / "folder").rglob("*.*")
    }
    assert {f"packages/{name}": data for name, data in found.items()} == {
        name: data for name, data in FILES.items() if name.startswith("packages/")
    }


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.open("w"),
        lambda path: path.write_bytes(b"x"),
        lambda path: path.write_text("x"),
        lambda path: path.unlink(),
        lambda path: path.parent.rmdir(),
        lambda path: (path.parent / "new").mkdir(),
        lambda path: (path.parent / "new").touch(),
        lambda path: path.touch(),
        lambda path: path.open("ab"),
        lambda path: path.open("x"),
        lambda path: path.open("r+b"),
        lambda path: path.rename("new"),
        lambda path: path.replace("new"),
        lambda path: path.move("/tmp/new"),
        lambda path: path.move_into("/tmp"),
        lambda path: path.chmod(0o600),
        lambda path: path.symlink_to("new"),
        lambda path: path.hardlink_to("new"),
    ],
)
def test_nothing_is_written(root: Any, write: Call) -> None:
    """It is an OSError, as of a medium that can't be written, and the NotImplementedError that `UPath` promises."""
    with pytest.raises(ReadOnly) as caught:
        write(root / "boot.cfg")
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, upath.UnsupportedOperation)
    assert (root / "boot.cfg").read_bytes() == FILES["boot.cfg"]


class TestTheClass:
    def test_is_registered(self, root: Any, image: Path) -> None:
        from vmvisor_image.fsspec.upath import VmvisorPath

        [entry] = metadata.entry_points(group="universal_pathlib.implementations", name="vmvisor")
        assert entry.load() is VmvisorPath
        assert type(root) is type(root / "boot.cfg") is type(root.parent) is VmvisorPath
        assert type(upath.UPath(f"vmvisor://1::file://{image}")) is VmvisorPath

    def test_is_found_before_anything_else_is_imported(self, image: Path) -> None:
        code = (
            f"import upath; path = upath.UPath('vmvisor://1/boot.cfg', fo={str(image)!r});"
            " print(path.read_bytes().decode(), end='')"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=False)
        assert (done.stdout, done.stderr) == (FILES["boot.cfg"], b"")

    def test_opens_the_image_once_for_all_paths(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Any] = []
        original = Image.__init__

        def counted(image: Image, *args: Any, **options: Any) -> None:
            made.append(image)
            original(image, *args, **options)

        monkeypatch.setattr(Image, "__init__", counted)
        top = upath.UPath("vmvisor://Hypervisor1", fo=str(image))
        for path in (
            top / "boot.cfg",
            top.joinpath("a.tgz"),
            *top.rglob("*.iso"),
            top.parent,
        ):
            assert path.exists()
        assert len(made) == 1

    def test_taken_apart_without_an_image(self) -> None:
        path = upath.UPath("vmvisor://Hypervisor1/packages/x.xml")
        assert (path.name, path.parent.name, (path.parent / "y").path) == (
            "x.xml",
            "packages",
            "Hypervisor1/packages/y",
        )

    def test_a_missing_directory_is_named(self, root: Any) -> None:
        with pytest.raises(PathNotFound, match="'Hypervisor1/missing'"):
            (root / "missing").iterdir()
