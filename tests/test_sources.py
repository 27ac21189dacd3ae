"""Every public function takes every kind of source; what it opened for itself is closed, and nothing else."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.http_server import Served, Server
from tests.media import BANK_35, module, small_disk
from tests.support import unavailable
from vmvisor_image import (
    CorruptImage,
    Image,
    InvalidArgument,
    NotAFileSystem,
    NotAnArchive,
    PartitionNotFound,
    PathNotFound,
    RemoteError,
    convert,
    export_pxe,
    find_machines,
    inspect,
    open_archive,
    open_datastore,
    open_machine,
    verify,
)
from vmvisor_image.boot.envelope import decrypt, key_of, read_envelope
from vmvisor_image.boot.modules import Module
from vmvisor_image.boot.state import open_state
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.fleet import scan, scan_one, stream
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import fat_volume
from vmvisor_image.testing.forge_machines import ovf_file, vmx_file
from vmvisor_image.testing.forge_modules import encrypt, encryption_info, kernel_elf, tar_archive


def whole(source: Any) -> bytes:
    data: bytes = source.read_at(0, source.size)
    return data


DISK = whole(small_disk({name: module(name) for name in BANK_35}))
INFO = encryption_info(bytes(16), bytes(16))
LOCAL = gzip.compress(tar_archive({"etc/hosts": b"127.0.0.1"}), mtime=0)
STATE = gzip.compress(tar_archive({"local.tgz": LOCAL}), mtime=0)
ENVELOPE = encrypt(LOCAL, INFO, initial=bytes(12))
SEALED = gzip.compress(tar_archive({"local.tgz.ve": ENVELOPE, "encryption.info": INFO}), mtime=0)
ARCHIVE = tar_archive({"a": b"1"})
KERNEL = gzip.compress(kernel_elf(b"VMware ESXi 4.1.0 build-260247"), mtime=0)
BZIP2 = bz2.compress(bytes(range(256)))
VMX = vmx_file({}, name="web")
OVA = tar_archive({"vm.ovf": ovf_file({}, name="web")})
NO_DATASTORE = "no partition of these images holds VMFS: `vmvisor-image info` shows what they hold"


class Foreign:
    """A `ReadAt` of somebody else's."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.is_closed = False

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        self.is_closed = True


class Given:
    """Makes sources of every kind from bytes, and knows whether one of the caller's was closed."""

    def __init__(self, folder: Path, server: Server, stack: contextlib.ExitStack) -> None:
        self._folder, self._server, self._stack = folder, server, stack
        self.is_closed: Callable[[], bool] = lambda: False

    def make(self, kind: str, data: bytes) -> Any:  # noqa: PLR0911  # one for each kind
        path = self._folder / "source"
        path.write_bytes(data)
        match kind:
            case "path":
                return str(path)
            case "PathLike":
                return path
            case "file URL":
                return path.as_uri()
            case "http URL":
                self._server.objects["source"] = Served(BytesSource(data))
                return f"{self._server.url}/source"
            case "bytes":
                return data
            case "bytearray":
                return bytearray(data)
            case "memoryview":
                return memoryview(data)
            case "BytesIO" | "open file":
                file = io.BytesIO(data) if kind == "BytesIO" else self._stack.enter_context(path.open("rb"))
                self.is_closed = lambda: file.closed
                return file
            case "fsspec file":
                remote = self._stack.enter_context(fsspec.open(path.as_uri()).open())
                self.is_closed = lambda: remote.closed
                return remote
            case "BytesSource":
                return BytesSource(data)
            case "ReadAt":
                foreign = Foreign(data)
                self.is_closed = lambda: foreign.is_closed
                return foreign
        image = self._stack.enter_context(Image.open(fat_volume({"source": data}, sectors=len(data) // 512 + 8000)))
        return image.partitions[1].files["source"]


KINDS = [
    *("path", "PathLike", "file URL", "http URL", "bytes", "bytearray", "memoryview"),
    *("BytesIO", "open file", "fsspec file", "BytesSource", "ReadAt", "File"),
]


def opened(source: Any, **options: Any) -> int:
    with Image.open(source, **options) as image:
        return len(image.partitions)


def converted(source: Any, folder: Path, **options: Any) -> bytes:
    convert(source, folder / "a.zst", overwrite=True, **options)
    with Image.open(folder / "a.zst") as image:
        return image.read_at(0, image.size)


def content(archive: Any, path: str) -> bytes:
    with archive:
        data: bytes = archive[path].read_bytes()
        return data


def datastore(source: Any, **options: Any) -> str:
    """What is said of a disk that was opened and has no datastore, which is at least 1 GiB."""
    with pytest.raises(NotAFileSystem) as found:
        open_datastore(source, **options)
    return str(found.value)


def archive(source: Any) -> bytes:
    with open_archive(source) as found:
        again = pickle.loads(pickle.dumps(found)) if isinstance(source, str) else found
        with again:
            return again["a"].read_bytes()


def machine(source: Any, **options: Any) -> tuple[str | None, int]:
    """The name of the machine that a file describes, and how many there are by a search."""
    with open_machine(source, **options) as found, find_machines(source, **options) as all_of_them:
        return found.name, len(all_of_them)


def searched(source: Any, **options: Any) -> int:
    with find_machines(source, **options) as found:
        return len(found)


def state(source: Any) -> bytes:
    with open_state(source) as found:
        return found["etc/hosts"].read_bytes()


def version(source: Any) -> object:
    with Module(source) as found:
        return found.version


def decoded(source: Any) -> bytes:
    with contextlib.closing(Bzip2Reader(source)) as reader:
        return reader.read_at(0, reader.size)


FUNCTIONS: dict[str, tuple[bytes, Callable[[Any, Path], Any], Any]] = {
    "Image.open": (DISK, lambda source, _: opened(source), 2),
    "inspect": (DISK, lambda source, _: len(inspect(source).partitions), 2),
    "verify": (DISK, lambda source, _: len(verify(source).partitions), 2),
    "scan_one": (DISK, lambda source, _: scan_one(source)["partitions"], 2),
    "stream": (DISK, lambda source, _: [row["partitions"] for row in stream(source, workers=1)], [2]),
    "convert": (DISK, converted, DISK),
    "export_pxe": (DISK, lambda source, folder: export_pxe(source, folder / "tftp", overwrite=True).label, "3i"),
    "open_datastore": (DISK, lambda source, _: datastore(source), NO_DATASTORE),
    "open_machine": (VMX, lambda source, _: machine(source), ("web", 1)),
    "open_machine, OVA": (OVA, lambda source, _: machine(source), ("web", 1)),
    "find_machines": (DISK, lambda source, _: searched(source), 0),
    "open_archive": (ARCHIVE, lambda source, _: archive(source), b"1"),
    "open_state": (STATE, lambda source, _: state(source), b"127.0.0.1"),
    "open_state, encrypted": (SEALED, lambda source, _: state(source), b"127.0.0.1"),
    "Module": (KERNEL, lambda source, _: version(source), ("VMware ESXi", "4.1.0", "260247")),
    "Bzip2Reader": (BZIP2, lambda source, _: decoded(source), bytes(range(256))),
    "read_envelope": (ENVELOPE, lambda source, _: read_envelope(source).cipher, "AES-256-GCM"),
    "decrypt": (ENVELOPE, lambda source, _: decrypt(source, key_of(INFO)), LOCAL),
}


@pytest.fixture
def given(tmp_path: Path, server: Server) -> Iterator[Given]:
    with contextlib.ExitStack() as stack:
        yield Given(tmp_path, server, stack)


def descriptors(path: Path) -> int:
    """How many descriptors this process has of a file."""
    if sys.platform != "linux":
        unavailable("descriptors are listed on Linux only")
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += link.readlink() == path
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_takes_every_kind(function: str, kind: str, given: Given, tmp_path: Path) -> None:
    data, call, expected = FUNCTIONS[function]
    source = given.make(kind, data)
    before = descriptors(tmp_path / "source")
    assert call(source, tmp_path) == expected
    assert not given.is_closed()
    assert descriptors(tmp_path / "source") == before
    assert call(source, tmp_path) == expected  # what is the caller's can be used again


SECRET: dict[str, Any] = {"headers": {"Authorization": "secret"}}
WITH_OPTIONS: dict[str, tuple[bytes, Callable[[str, Path], Any], Any]] = {
    "Image.open": (DISK, lambda url, _: opened(url, storage_options=SECRET), 2),
    "inspect": (DISK, lambda url, _: len(inspect(url, storage_options=SECRET).partitions), 2),
    "verify": (DISK, lambda url, _: len(verify(url, storage_options=SECRET).partitions), 2),
    "scan_one": (DISK, lambda url, _: scan_one(url, storage_options=SECRET)["partitions"], 2),
    "scan": (DISK, lambda url, _: [row["partitions"] for row in scan(url, storage_options=SECRET)], [2]),
    "stream": (DISK, lambda url, _: [row["partitions"] for row in stream(url, workers=1, storage_options=SECRET)], [2]),
    "convert": (DISK, lambda url, folder: converted(url, folder, storage_options=SECRET), DISK),
    "export_pxe": (DISK, lambda url, folder: export_pxe(url, folder / "tftp", storage_options=SECRET).label, "3i"),
    "open_datastore": (DISK, lambda url, _: datastore(url, storage_options=SECRET), NO_DATASTORE),
    "open_machine": (VMX, lambda url, _: machine(url, storage_options=SECRET), ("web", 1)),
    "find_machines": (DISK, lambda url, _: searched(url, storage_options=SECRET), 0),
    "open_archive": (ARCHIVE, lambda url, _: content(open_archive(url, storage_options=SECRET), "a"), b"1"),
    "open_state": (STATE, lambda url, _: content(open_state(url, storage_options=SECRET), "etc/hosts"), b"127.0.0.1"),
    "Module": (KERNEL, lambda url, _: Module(url, storage_options=SECRET).kind, "elf"),
}


@pytest.mark.parametrize("function", WITH_OPTIONS)
def test_every_function_takes_credentials(function: str, server: Server, tmp_path: Path) -> None:
    data, call, expected = WITH_OPTIONS[function]
    server.objects["source"] = Served(BytesSource(data), password="secret")
    assert call(f"{server.url}/source", tmp_path) == expected
    if function in FUNCTIONS and function not in ("scan_one", "stream"):
        with pytest.raises(RemoteError, match="401"):
            FUNCTIONS[function][1](f"{server.url}/source", tmp_path / "without")


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "stream"])
def test_what_is_no_source_is_refused(function: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="a path, a URL, bytes"):
        FUNCTIONS[function][1](3, tmp_path)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_file_that_is_not_there(function: str, tmp_path: Path) -> None:
    call = FUNCTIONS[function][1]
    if function in ("scan_one", "stream"):
        assert scan_one(tmp_path / "none")["error"] == "FileNotFoundError"
        return
    with pytest.raises(FileNotFoundError):
        call(tmp_path / "none", tmp_path)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_stays_open_where_it_fails(function: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"\x1f\x8b\x08no gzip, and nothing else")
    with contextlib.suppress(CorruptImage, NotAnArchive, NotAFileSystem, PathNotFound, PartitionNotFound):
        FUNCTIONS[function][1](tmp_path / "source", tmp_path)
    assert descriptors(tmp_path / "source") == 0


def test_a_state_that_holds_nothing_is_closed(tmp_path: Path) -> None:
    (tmp_path / "state.tgz").write_bytes(ARCHIVE)
    with pytest.raises(PathNotFound, match=r"state\.tgz' holds neither"):
        open_state(tmp_path / "state.tgz")
    assert descriptors(tmp_path / "state.tgz") == 0


def test_files_are_read_while_their_archive_is_open(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(ARCHIVE)
    with open_archive(tmp_path / "a.tar") as found:
        file = found["a"]
        assert file.read_bytes() == b"1"
    with pytest.raises(ValueError, match="close"):
        file.read_bytes()


def test_convert_writes_the_disk_in_a_path_and_the_bytes_of_a_reader(tmp_path: Path) -> None:
    (tmp_path / "a.bz2").write_bytes(bz2.compress(DISK))
    assert converted(tmp_path / "a.bz2", tmp_path) == DISK
    convert(BytesSource(ARCHIVE), tmp_path / "raw.zst")
    with open_archive(tmp_path / "raw.zst") as found:
        assert found["a"].read_bytes() == b"1"
