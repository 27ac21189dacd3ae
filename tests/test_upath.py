"""universal_pathlib's `UPath` over `vmvisor://`, beside `pathlib.Path` over a folder with the same files.

What stays different is in `DIFFERENT`, with the reason.
"""

from __future__ import annotations

import operator
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.test_fsspec import FILES, disk
from vmvisor_image import ReadOnly

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
pytestmark = [
    # It says so of every file system that it has no class of its own for, and of links where there are none.
    pytest.mark.filterwarnings("ignore:UPath 'vmvisor' filesystem not explicitly implemented"),
    pytest.mark.filterwarnings("ignore:.*follow_symlinks=False"),
]

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
_NOTHING_THERE = "`UPath.iterdir` says NotADirectoryError of what is not there"
DIFFERENT = {
    (name, place): _NOTHING_THERE
    for name in ("iterdir", "iterdir, then is_dir")
    for place in ("missing", "missing/x", "packages/missing")
}
CASES = [
    pytest.param(
        name,
        place,
        marks=pytest.mark.xfail(reason=DIFFERENT[name, place], strict=True) if (name, place) in DIFFERENT else (),
        id=f"{name} of {place or 'the root'}",
    )
    for name in CALLS
    for place in PLACES
]


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
    ],
    ids=["open", "write_bytes", "write_text", "unlink", "rmdir", "mkdir", "touch"],
)
def test_nothing_is_written(root: Any, write: Call) -> None:
    """It is an OSError, as of a medium that can't be written, where `UPath` has a NotImplementedError."""
    with pytest.raises(ReadOnly):
        write(root / "boot.cfg")
    assert (root / "boot.cfg").read_bytes() == FILES["boot.cfg"]


def test_touching_a_file_that_is_there_does_nothing(root: Any) -> None:
    """`UPath.touch` passes over what a file system refuses there."""
    before = (root / "boot.cfg").stat().st_mtime
    (root / "boot.cfg").touch()
    assert (root / "boot.cfg").stat().st_mtime == before
