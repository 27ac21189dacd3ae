"""Images behind a URL: what is requested, what comes, and what happens when it does not. Requests are counted."""

from __future__ import annotations

import os
import pickle
import random
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.http_server import Served, Server
from tests.media import module, small_disk
from tests.support import in_child, run
from tests.tool_disk import ToolDisk
from vmvisor_image import (
    ClosedError,
    CorruptImage,
    DependencyMissing,
    Directory,
    Image,
    InvalidArgument,
    RemoteError,
    SourceChanged,
    TruncatedImage,
    inspect,
)
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.remote import CACHE_BYTES, CHUNK, LARGEST_REQUEST, MOST_AHEAD, RemoteSource
from vmvisor_image.streams.sources import BytesSource

DATA = random.Random("remote").randbytes(40 * CHUNK + 123)
HEAD = 1
"""Requests that tell an object's size."""


@pytest.fixture
def served(server: Server) -> Served:
    return server.serve("data", BytesSource(DATA))


@pytest.fixture
def source(server: Server, served: Served) -> RemoteSource:
    made = RemoteSource(f"{server.url}/data")
    served.reset()
    return made


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)  # nothing must be kept where we are
    return tmp_path / "caches"


class TestCosts:
    def test_of_a_bare_disk(self, server: Server, tool_built_disk: ToolDisk) -> None:
        served = server.serve("disk.dd", tool_built_disk.image)
        with Image.open(f"{server.url}/disk.dd") as image:
            assert {p.label for p in image.partitions} >= set(tool_built_disk.volumes)
            # The disk's first sector; an extended boot record, a boot sector and a root directory for each partition.
            assert len(served.requests) <= HEAD + 12
            assert served.bytes <= 12 * CHUNK
            served.reset()
            files = image.partitions["Hypervisor1"].files
            names = {path for path in tool_built_disk.volumes["Hypervisor1"].files if "/" not in path}
            assert set(files) == names
            assert served.requests == []  # the root directory is known by the label
            expected = tool_built_disk.volumes["Hypervisor1"].files["vmkernel.gz"].data
            assert files["vmkernel.gz"].read_bytes() == expected
            assert served.gets <= 2  # the file allocation table, the file
            assert served.bytes <= len(expected) + 3 * CHUNK

    def test_of_a_compressed_disk(self, server: Server, tool_built_disk: ToolDisk) -> None:
        served = server.serve("disk.dd.bz2", tool_built_disk.bz2)
        expected = tool_built_disk.volumes["Hypervisor0"].files["mboot.c32"].data
        with Image.open(f"{server.url}/disk.dd.bz2") as image:
            assert image.partitions["Hypervisor0"].files["mboot.c32"].read_bytes() == expected
            reader = image.layers[0].source
            assert isinstance(reader, Bzip2Reader)
            assert reader.stats.blocks_known <= 2
            assert len(served.requests) <= HEAD + 3
            assert served.bytes <= 2_000_000
            assert served.bytes < tool_built_disk.bz2.stat().st_size / 2
            list(image.partitions)
            # To the last partition all before it is decoded, and so requested: but once, and in few requests.
            assert len(served.requests) <= HEAD + 12
            assert served.bytes <= tool_built_disk.bz2.stat().st_size

    def test_of_a_directory(self, server: Server, tool_built_disk: ToolDisk) -> None:
        served = server.serve("disk.dd", tool_built_disk.image)
        with Image.open(f"{server.url}/disk.dd") as image:
            root = image.partitions["Hypervisor2"].files.root
            served.reset()
            many = root / "many"
            assert isinstance(many, Directory)
            assert len(list(many)) == 100
            assert served.gets <= 2  # the root directory, the other one
            assert served.bytes <= 6 * CHUNK

    def test_of_reading_in_small_pieces(self, source: RemoteSource, served: Served) -> None:
        stream = open_stream(source)
        found = bytearray()
        while data := stream.read(1000):
            found += data
        assert found == DATA
        assert served.bytes == len(DATA)
        assert served.gets <= 3

    def test_of_going_on_without_a_word(self, source: RemoteSource, served: Served) -> None:
        for offset in range(0, len(DATA) - 512, 512):
            assert source.read_at(offset, 512) == DATA[offset : offset + 512]
        assert served.bytes <= len(DATA)
        assert [(end - start) // CHUNK for _, start, end in served.requests][:4] == [1, 2, 3, 5]
        assert served.gets <= 8

    def test_of_jumping_about(self, source: RemoteSource, served: Served) -> None:
        for number in (30, 10, 20, 5):
            source.read_at(number * CHUNK + 17, 512)
        assert served.bytes == 4 * CHUNK

    def test_nothing_past_what_was_announced(self, source: RemoteSource, served: Served) -> None:
        source.prefetch(2 * CHUNK + 5, 7 * CHUNK)
        for offset in range(2 * CHUNK + 5, 9 * CHUNK + 5, 1000):
            source.read_at(offset, min(1000, 9 * CHUNK + 5 - offset))
        assert [(start, end) for _, start, end in served.requests] == [(2 * CHUNK, 10 * CHUNK)]

    def test_nothing_past_a_file_that_is_read_in_pieces(self, server: Server) -> None:
        end = 3 * MOST_AHEAD + 5
        served = server.serve("zeros", BytesSource(bytes(end + MOST_AHEAD)))
        source = RemoteSource(f"{server.url}/zeros")
        source.prefetch(0, end)
        for offset in range(0, end, 1 << 20):
            source.read_at(offset, min(1 << 20, end - offset))
        assert served.bytes <= end + CHUNK
        assert served.gets <= 4

    def test_a_large_read_is_several_requests(self, server: Server) -> None:
        data = bytes(LARGEST_REQUEST + 3 * CHUNK)
        served = server.serve("zeros", BytesSource(data))
        source = RemoteSource(f"{server.url}/zeros")
        assert source.read_at(0, len(data)) == data
        assert [end - start for method, start, end in served.requests if method == "GET"] == [
            LARGEST_REQUEST,
            3 * CHUNK,
        ]

    def test_what_is_kept_is_bounded(self, server: Server) -> None:
        size = CACHE_BYTES + MOST_AHEAD
        server.serve("zeros", BytesSource(bytes(size)))
        source = RemoteSource(f"{server.url}/zeros")
        for offset in range(0, size, CHUNK):
            source.read_at(offset, 1)
        assert CACHE_BYTES - CHUNK < source._chunks.held <= CACHE_BYTES

    def test_threads_request_nothing_twice(self, source: RemoteSource, served: Served) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: source.read_at(0, len(DATA)), range(8)))
        assert set(found) == {DATA}
        assert served.bytes == len(DATA)


class TestReading:
    def test_any_range(self, source: RemoteSource) -> None:
        rng = random.Random(5)
        for _ in range(150):
            offset = rng.randrange(len(DATA) + 1)
            length = rng.choice([0, 1, 511, CHUNK, rng.randrange(len(DATA))])
            length = min(length, len(DATA) - offset)
            assert source.read_at(offset, length) == DATA[offset : offset + length]

    def test_refuses_what_is_no_range(self, source: RemoteSource) -> None:
        with pytest.raises(TruncatedImage, match="data"):
            source.read_at(len(DATA) - 1, 2)
        with pytest.raises(InvalidArgument):
            source.read_at(-1, 2)

    def test_closing(self, source: RemoteSource) -> None:
        source.close()
        with pytest.raises(ClosedError):
            source.read_at(0, 1)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_survives_a_fork(self, source: RemoteSource) -> None:
        assert source.read_at(0, 10) == DATA[:10]
        assert in_child(lambda: source.read_at(5 * CHUNK, 3 * CHUNK) == DATA[5 * CHUNK : 8 * CHUNK])
        assert source.read_at(0, len(DATA)) == DATA

    def test_pickling(self, source: RemoteSource) -> None:
        again = pickle.loads(pickle.dumps(source))
        assert again.read_at(3, 5000) == DATA[3:5003]


class TestFailures:
    @pytest.mark.parametrize("ranges", ["ignored", "none"])
    def test_a_server_without_ranges(self, server: Server, tool_built_disk: ToolDisk, ranges: Any) -> None:
        served = server.serve("disk.dd.bz2", tool_built_disk.bz2)
        served.ranges = ranges
        url = f"{server.url}/disk.dd.bz2"
        with (
            pytest.raises(RemoteError, match=f"the server does not serve byte ranges; simplecache::{url}") as caught,
            Image.open(url) as image,
        ):
            list(image.partitions)
        assert caught.type is RemoteError  # a row of the fleet names it
        with Image.open(f"simplecache::{url}") as image:  # as the message says
            assert image.partitions["Hypervisor1"].files["boot.cfg"].read_bytes()

    def test_a_server_without_ranges_is_left_early(self, server: Server) -> None:
        served = server.serve("zeros", BytesSource(bytes(64 << 20)))
        served.ranges = "ignored"
        source = RemoteSource(f"{server.url}/zeros")
        assert source.read_at(0, 512) == bytes(512)
        with pytest.raises(RemoteError, match="ranges"):
            source.read_at(32 << 20, 512)

    def test_no_size(self, server: Server, served: Served) -> None:
        served.tells_size = False
        with pytest.raises(RemoteError, match="does not report its size"):
            RemoteSource(f"{server.url}/data")

    def test_an_answer_that_is_too_short(self, source: RemoteSource, served: Served) -> None:
        served.short_by = 7
        with pytest.raises(RemoteError, match=r"/data: bytes 0 to 65536 \(exclusive\) .* 65529 bytes came"):
            source.read_at(0, 100)
        served.short_by = 0
        assert source.read_at(0, 100) == DATA[:100]

    @pytest.mark.parametrize(
        ("status", "tries"), [(HTTPStatus.SERVICE_UNAVAILABLE, 3), (HTTPStatus.NOT_FOUND, 1), (HTTPStatus.FORBIDDEN, 1)]
    )
    def test_what_may_pass_is_asked_for_again(
        self, source: RemoteSource, served: Served, status: HTTPStatus, tries: int
    ) -> None:
        served.status, served.failures = status, 5
        with pytest.raises(RemoteError, match=r"bytes 0 to 65536 \(exclusive\) could not be read"):
            source.read_at(0, 100)
        assert served.failures == 5 - tries
        served.status, served.failures = HTTPStatus.SERVICE_UNAVAILABLE, 2
        assert source.read_at(0, 100) == DATA[:100]

    @pytest.mark.parametrize("status", [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN])
    def test_a_server_that_fails(self, source: RemoteSource, served: Served, status: HTTPStatus) -> None:
        served.status = status
        with pytest.raises(RemoteError, match=f"/data: bytes 131072 to 196608 .*{status.value}"):
            source.read_at(2 * CHUNK, 100)

    @pytest.mark.parametrize(
        "change",
        [
            lambda served: setattr(served, "etag", '"2"'),
            lambda served: setattr(served, "source", BytesSource(DATA[: 3 * CHUNK])),
        ],
    )
    @pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
    def test_an_object_that_changes(
        self, server: Server, served: Served, change: Callable[[Served], None], etag: str | None
    ) -> None:
        served.etag = etag
        source = RemoteSource(f"{server.url}/data")
        assert source.read_at(0, 100) == DATA[:100]
        change(served)
        with pytest.raises(SourceChanged, match="/data"):
            source.read_at(2 * CHUNK, 2 * CHUNK)

    def test_without_an_etag_the_time_tells(self, server: Server, served: Served) -> None:
        served.etag, served.modified = None, "Tue, 15 Jan 2008 12:00:00 GMT"
        source = RemoteSource(f"{server.url}/data")
        assert source.read_at(0, 100) == DATA[:100]
        served.modified = "Tue, 15 Jan 2008 12:00:01 GMT"
        with pytest.raises(SourceChanged):
            source.read_at(2 * CHUNK, 100)

    def test_of_another_file_system(self) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe("/remote/data", DATA)
        source = RemoteSource("memory://remote/data")
        assert source.read_at(5, 100) == DATA[5:105]
        memory.pipe("/remote/data", DATA[:-1])
        with pytest.raises(SourceChanged):
            source.read_at(2 * CHUNK, 100)
        memory.rm("/remote", recursive=True)
        with pytest.raises(RemoteError):
            source.read_at(5 * CHUNK, 100)

    def test_what_is_not_there(self, server: Server) -> None:
        with pytest.raises(FileNotFoundError, match="/missing") as caught:
            Image.open(f"{server.url}/missing")
        assert caught.value.filename == f"{server.url}/missing"
        with pytest.raises(FileNotFoundError):
            Image.open(f"simplecache::{server.url}/missing")
        with pytest.raises(FileNotFoundError):
            Image.open("memory://missing")
        with pytest.raises(FileNotFoundError):
            Image.open("file:///missing/disk.dd")

    def test_nobody_listens(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/x.dd"
            with pytest.raises(RemoteError, match=url):
                Image.open(url)

    def test_a_password(self, server: Server, served: Served) -> None:
        served.source = small_disk({"a": b"data"})
        served.password = "secret"
        for link in ("", "simplecache::"):
            with pytest.raises(RemoteError, match="the server answered 401 Unauthorized"):
                Image.open(f"{link}{server.url}/data")
        with Image.open(f"{server.url}/data", storage_options={"headers": {"Authorization": "secret"}}) as image:
            assert image.partitions["Hypervisor1"].files["a"].read_bytes() == b"data"
            with pickle.loads(pickle.dumps(image)) as again:
                assert again.partitions["Hypervisor1"].files["a"].read_bytes() == b"data"

    def test_an_unknown_protocol(self) -> None:
        with pytest.raises(InvalidArgument, match="no-such-protocol"):
            Image.open("no-such-protocol://x.dd")

    def test_without_fsspec(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(DependencyMissing, match=r"pip install 'vmvisor-image\[fsspec\]'"):
            Image.open("https://example.invalid/x.dd.bz2")

    def test_without_what_fsspec_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(DependencyMissing, match="s3fs") as caught:
            Image.open("s3://bucket/x.dd.bz2")
        assert "vmvisor-image[fsspec]" not in str(caught.value)  # which does not bring it
        script = """
import sys
from vmvisor_image import DependencyMissing, Image
sys.modules["aiohttp"] = None
try:
    Image.open("https://example.invalid/x.dd.bz2")
except DependencyMissing as error:
    print(error)
"""
        assert "aiohttp" in (told := run(sys.executable, "-c", script))
        assert "pip install 'vmvisor-image[fsspec]'" in told


class TestImages:
    def test_is_what_the_file_is(self, server: Server, tool_built_disk: ToolDisk) -> None:
        server.serve("disk.dd", tool_built_disk.image)
        url = f"{server.url}/disk.dd"
        remote, local = inspect(url), inspect(tool_built_disk.image)
        assert remote.name == url
        assert {**remote.to_dict(), "name": None} == {**local.to_dict(), "name": None}

    @pytest.mark.parametrize("link", ["", "simplecache::", "filecache::"])
    def test_names_and_pickles(self, server: Server, tool_built_disk: ToolDisk, link: str) -> None:
        server.serve("disk.dd.bz2", tool_built_disk.bz2)
        url = f"{link}{server.url}/disk.dd.bz2"
        expected = tool_built_disk.volumes["Hypervisor0"].files["mboot.c32"].data
        with Image.open(url) as image:
            assert image.path == url
            assert [(layer.kind, layer.name) for layer in image.layers] == [("bzip2", "disk.dd.bz2")]
            partition = image.partitions["Hypervisor0"]
            file = partition.files["mboot.c32"]
            pickled = pickle.dumps((image, partition, file))
        again, partition, file = pickle.loads(pickled)
        assert again.path == url
        assert partition.label == "Hypervisor0"
        assert file.read_bytes() == expected
        again.close()

    def test_a_local_url_is_a_file(self, tool_built_disk: ToolDisk, tmp_path: Path) -> None:
        link = tmp_path / "x.dd.bz2"
        link.symlink_to(tool_built_disk.bz2)
        with Image.open(f"file://{link}", index="auto") as image:
            assert image.partitions["Hypervisor0"].label == "Hypervisor0"
        assert (tmp_path / "x.dd.bz2.vmvisor-index").exists()  # beside it, as for a path

    @pytest.mark.parametrize("link", ["", "simplecache::"])
    def test_an_index_is_kept_in_the_cache_folder(
        self, server: Server, tool_built_disk: ToolDisk, cache_home: Path, link: str
    ) -> None:
        server.serve("disk.dd.bz2", tool_built_disk.bz2)
        url = f"{link}{server.url}/disk.dd.bz2"

        def blocks() -> int:
            with Image.open(url, index="auto", cache=True) as image:
                assert image.partitions["Hypervisor2"].label == "Hypervisor2"
                reader = image.layers[0].source
                assert isinstance(reader, Bzip2Reader)
                assert reader.index_rejection is None
                return reader.stats.blocks_decoded

        assert blocks() > 0
        assert blocks() == 0
        assert sorted(path.suffix for path in (cache_home / "vmvisor-image").iterdir()) == [
            ".vmvisor-cache",
            ".vmvisor-index",
        ]
        assert [path.name for path in Path().iterdir()] == ["caches"]

    def test_an_index_of_another_version_is_not_used(
        self, server: Server, tool_built_disk: ToolDisk, cache_home: Path
    ) -> None:
        served = server.serve("disk.dd.bz2", tool_built_disk.bz2)
        for etag, is_rejected in (('"1"', False), ('"1"', False), ('"2"', True)):
            served.etag = etag
            with Image.open(f"{server.url}/disk.dd.bz2", index="auto") as image:
                _ = image.partitions["Hypervisor0"].label
                reader = image.layers[0].source
                assert isinstance(reader, Bzip2Reader)
                assert (reader.index_rejection is not None) == is_rejected

    def test_a_virtual_disk_in_parts(self, server: Server, tmp_path: Path) -> None:
        disk = tmp_path / "raw.dd"
        small_disk({"a": b"data"}).write_to(disk)
        vmdk = tmp_path / "a disk #1?.vmdk"
        run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", disk, vmdk)
        for path in tmp_path.glob("*.vmdk"):
            server.serve(path.name, path)
        for link in ("", "simplecache::"):
            with Image.open(f"{link}{server.url}/a%20disk%20%231%3F.vmdk") as image:
                assert [layer.kind for layer in image.layers] == ["vmdk"]
                assert image.partitions["Hypervisor1"].files["a"].read_bytes() == b"data"
        memory = fsspec.filesystem("memory")
        for path in tmp_path.glob("*.vmdk"):
            memory.pipe(f"/{path.name}", path.read_bytes())
        with Image.open("memory://a disk #1?.vmdk") as image:
            assert image.partitions["Hypervisor1"].files["a"].read_bytes() == b"data"

    def test_a_virtual_disk_whose_part_is_a_link_elsewhere(self, server: Server, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(512))
        for name in ("x::file:..secret", "zip:", "data?secret"):
            text = f'# Disk DescriptorFile\nversion=1\nRW 1 FLAT "{name}" 0\n'
            server.serve("disk.vmdk", BytesSource(text.encode()))
            with pytest.raises(CorruptImage, match="extent"):
                Image.open(f"{server.url}/disk.vmdk")

    def test_the_command_line(self, server: Server, tmp_path: Path, capsysbinary: Any) -> None:
        server.serve("small disk.dd", small_disk({"m.tgz": module("m.tgz")}))
        server.serve("m.tgz", BytesSource(module("m.tgz")))
        url = f"{server.url}/small disk.dd"
        assert main(["ls", url, "Hypervisor1"]) == 0
        assert b"m.tgz" in capsysbinary.readouterr().out
        assert main(["cat", url, "Hypervisor1", "m.tgz"]) == 0
        assert capsysbinary.readouterr().out == module("m.tgz")
        assert main(["archive", f"{server.url}/m.tgz", "etc/vmware/m.tgz.txt"]) == 0
        assert capsysbinary.readouterr().out == b"from m.tgz"
        assert main(["extract", url, "Hypervisor1", str(tmp_path)]) == 0
        assert (tmp_path / "m.tgz").read_bytes() == module("m.tgz")
        for wrong, status in ((f"{server.url}/missing", 2), ("no-such-protocol://x", 2), ("http://127.0.0.1:1/x", 1)):
            capsysbinary.readouterr()
            assert main(["info", wrong]) == status
            assert len(capsysbinary.readouterr().err.splitlines()) == 1
