"""Every source passes the same tests, those that plug-ins inherit: each reader of the package has a class here."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import io
import lzma
import pkgutil
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import zstandard

import vmvisor_image
from vmvisor_image import Image
from vmvisor_image.archives.archive import Metered, open_archive
from vmvisor_image.archives.tar_sparse import SparseMember, SparseTable
from vmvisor_image.archives.zip import DecompressedMember
from vmvisor_image.base.limits import Meter
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.bridged import BridgedReader, ZeroFilled
from vmvisor_image.compressions.framed import FramedReader
from vmvisor_image.compressions.sequential import SequentialReader
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import InvalidArgument, ProblemList, TruncatedImage
from vmvisor_image.files.file import File
from vmvisor_image.layers.vhd import FixedDisk, VhdDisk
from vmvisor_image.layers.vhdx import VhdxDisk
from vmvisor_image.layers.vhdx_log import Replayed, replay
from vmvisor_image.layers.vmdk import JoinedExtents
from vmvisor_image.packages.package_file import PackageFile, PayloadFile
from vmvisor_image.packages.payload_pass import _Tap
from vmvisor_image.schemas.vhd import RELATIVE_PATH
from vmvisor_image.schemas.vhdx import HEADERS, VhdxHeader
from vmvisor_image.streams.checked import CheckedSource
from vmvisor_image.streams.linked import Linked
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.pipes import PipeSource
from vmvisor_image.streams.remote import CachedSource, RemoteSource, open_url
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.sources import BytesSource, FileObjectSource, FileSource
from vmvisor_image.streams.views import KeptBeside, Overlaid, Pieced, Slice, View, Watched
from vmvisor_image.testing.damage import Change, DamagedSource
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_modules import tar_archive
from vmvisor_image.testing.forge_packages import ForgedPayload, descriptor, vib
from vmvisor_image.testing.forge_vhd import vhd_delta, vhdx_log_entry, vhdx_with_log
from vmvisor_image.testing.forge_virtual import qcow2_delta, qcow2_disk, vhd_disk, vhdx_disk, vmdk_disk
from vmvisor_image.testing.forge_vmfs_files import VmfsFile, vmfs_volume
from vmvisor_image.testing.source_tests import SourceTests
from vmvisor_image.volumes.guests.process import GuestProcess, ProcessContent
from vmvisor_image.volumes.guests.volume import GuestContent, _Place
from vmvisor_image.volumes.vmfs.lvm import LogicalVolume, Segment

_NOISE = random.Random(1).randbytes(150_000)
CONTENT = (_NOISE[:100_001] + bytes(200_000) + b"text" * 5000 + bytes(70_000) + _NOISE).ljust(550_000, b"\0")[:548_864]
"""Data and zeros, and 1072 sectors, so that any disk may have it."""


def _disk_in(data: ReadAt | bytes, name: str | None = None) -> Source:
    image = Image.open(data)
    assert image.layers
    return image.disk


class TestBytesSource(SourceTests):
    reader = BytesSource

    def open_source(self) -> tuple[ReadAt, bytes]:
        return BytesSource(CONTENT), CONTENT


class _WithPath(SourceTests):
    @pytest.fixture(autouse=True)
    def _make(self, tmp_path: Path) -> None:
        self.path = tmp_path / "content"
        self.path.write_bytes(CONTENT)


class TestFileSource(_WithPath):
    reader = FileSource
    after_close = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        return FileSource(self.path), CONTENT


class TestSparseFile(_WithPath):
    reader = FileSource
    after_close = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        with self.path.open("wb") as file:
            file.write(_NOISE[:5000])
            file.seek(400_000)
            file.write(_NOISE[:5000])
            file.truncate(800_000)
        return FileSource(self.path), self.path.read_bytes()


class TestFileObjectSource(_WithPath):
    reader = FileObjectSource
    in_child = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        return FileObjectSource(self.cleanup.enter_context(self.path.open("rb"))), CONTENT


class TestFileObjectWithoutDescriptor(SourceTests):
    reader = FileObjectSource

    def open_source(self) -> tuple[ReadAt, bytes]:
        return FileObjectSource(io.BytesIO(CONTENT)), CONTENT


class TestPipeSource(SourceTests):
    reader = PipeSource
    after_close = "refuses"
    in_child = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        return PipeSource(io.BytesIO(CONTENT)), CONTENT


class TestRemoteSource(SourceTests):
    reader = RemoteSource
    after_close = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").pipe_file("/conformance", CONTENT)
        return RemoteSource("memory://conformance"), CONTENT


class TestCachedSource(SourceTests):
    reader = CachedSource
    after_close = "refuses"

    @pytest.fixture(autouse=True)
    def _make(self, tmp_path: Path) -> None:
        self.options = {"simplecache": {"cache_storage": str(tmp_path)}}

    def open_source(self) -> tuple[ReadAt, bytes]:
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").pipe_file("/conformance", CONTENT)
        return open_url("simplecache::memory://conformance", self.options)[0], CONTENT


class _Two:
    """The two members of a `ReadAt`, and no more."""

    size = len(CONTENT)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise InvalidArgument("negative")
        if offset + length > self.size:
            raise TruncatedImage("past the end", structure="two")
        return CONTENT[offset : offset + length]


class TestTwoMembers(SourceTests):
    """What plug-ins and users give."""

    reader = _Two

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _Two(), CONTENT


class TestCheckedSource(SourceTests):
    reader = CheckedSource

    def open_source(self) -> tuple[ReadAt, bytes]:
        return CheckedSource(_Two()), CONTENT


class TestView(SourceTests):
    reader = View

    def open_source(self) -> tuple[ReadAt, bytes]:
        return View(_decoded("gzip")), CONTENT


class TestPart(SourceTests):
    reader = View

    def open_source(self) -> tuple[ReadAt, bytes]:
        return View(_decoded("bzip2"), 99_000, 250_000), CONTENT[99_000:349_000]


class TestSlice(SourceTests):
    reader = Slice

    def open_source(self) -> tuple[ReadAt, bytes]:
        return Slice(SparseImage(1 << 50, [(7, CONTENT)]), 3, len(CONTENT) + 10), bytes(4) + CONTENT + bytes(6)


class TestWatched(SourceTests):
    reader = Watched

    def open_source(self) -> tuple[ReadAt, bytes]:
        return Watched(_decoded("xz"), lambda done, total: None), CONTENT


class TestOverlaid(SourceTests):
    reader = Overlaid

    def open_source(self) -> tuple[ReadAt, bytes]:
        changed = bytes(100) + CONTENT[100:5000] + b"copy" + CONTENT[5004:]
        return Overlaid(
            BytesSource(changed), [(0, 100, BytesSource(CONTENT), 0), (5000, 4, _decoded("xz"), 5000)]
        ), CONTENT


class TestTap(SourceTests):
    reader = _Tap

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _Tap(BytesSource(CONTENT), [hashlib.sha256()]), CONTENT


class TestPayloadFile(SourceTests):
    reader = PayloadFile

    def open_source(self) -> tuple[ReadAt, bytes]:
        payload = ForgedPayload("driver", CONTENT, CONTENT, "boot")
        package = PackageFile(BytesSource(vib(descriptor("driver", [payload]), [payload])))
        return package.payload(package.descriptor.payloads[0], "driver.v00", 0), CONTENT


class TestKeptBeside(SourceTests):
    reader = KeptBeside

    def open_source(self) -> tuple[ReadAt, bytes]:
        return KeptBeside(_decoded("xz"), "somewhere"), CONTENT


class TestMetered(SourceTests):
    reader = Metered

    def open_source(self) -> tuple[ReadAt, bytes]:
        return Metered(_decoded("zstd"), Meter()), CONTENT


def _decoded(kind: str, *, frame: int | None = None) -> Source:
    """What decodes `CONTENT`; with `frame` in frames of that many bytes."""
    if kind == "bzip2":
        return Bzip2Reader(bz2.compress(CONTENT, 1), threads=2)
    parts = [CONTENT[at : at + (frame or len(CONTENT))] for at in range(0, len(CONTENT), frame or len(CONTENT))]
    if kind == "gzip":
        return _disk_in(b"".join(gzip.compress(part, 1) for part in parts))
    if kind == "xz":
        return _disk_in(b"".join(lzma.compress(part, preset=0) for part in parts))
    if frame is not None:
        return _disk_in(b"".join(zstandard.compress(part) for part in parts))
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()  # so that its size is not known
    return _disk_in(packer.compress(CONTENT) + packer.flush())


class TestBzip2Reader(SourceTests):
    reader = Bzip2Reader
    after_close = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _decoded("bzip2"), CONTENT


class TestBridgedReader(SourceTests):
    reader = BridgedReader
    after_close = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        """What is lost has no bytes here, so that all can be read: of what is lost, see `test_salvage`."""
        packed = bytearray(bz2.compress(CONTENT, 1))
        packed[len(packed) // 2] ^= 0xFF
        before = Bzip2Reader(bytes(packed))
        behind = b"".join(block.data for block in before.salvage())
        healthy = CONTENT[: before.healthy_size]
        assert healthy
        assert behind
        content = healthy + behind
        source = BytesSource(bytes(packed))
        return BridgedReader(Bzip2Reader(source), source, len(content)), content


class TestZeroFilled(SourceTests):
    reader = ZeroFilled

    def open_source(self) -> tuple[ReadAt, bytes]:
        bridged, content = TestBridgedReader().open_source()
        assert isinstance(bridged, BridgedReader)
        lost = 1000
        source = bridged._source
        return (
            ZeroFilled(BridgedReader(Bzip2Reader(source), source, len(content) + lost)),
            content[: bridged.lost[0]] + bytes(lost) + content[bridged.lost[1] :],
        )


class TestGuestContent(SourceTests):
    reader = GuestContent

    def open_source(self) -> tuple[ReadAt, bytes]:
        half = len(CONTENT) // 2
        runs = ((0, half, len(CONTENT) - half), (len(CONTENT) - half, None, 10), (len(CONTENT) - half + 10, 0, half))
        place = _Place(len(CONTENT) + 15, runs, is_decoded=False)
        return GuestContent(place, BytesSource(CONTENT), "file"), CONTENT[half:] + bytes(10) + CONTENT[:half] + bytes(5)


class _Answering:
    """Stands in for the process of a guest."""

    def ask(self, _what: str, *given: int) -> tuple[None, bytes]:
        *_, at, count = given
        return None, CONTENT[at : at + count]


class TestProcessContent(SourceTests):
    reader = ProcessContent

    def open_source(self) -> tuple[ReadAt, bytes]:
        return ProcessContent(cast("GuestProcess", _Answering()), (1, 2, 3), len(CONTENT)), CONTENT


class TestGzip(SourceTests):
    reader = SequentialReader

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _decoded("gzip", frame=200_000), CONTENT


class TestXz(SourceTests):
    reader = FramedReader

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _decoded("xz"), CONTENT


class TestXzFrames(SourceTests):
    reader = FramedReader

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _decoded("xz", frame=100_000), CONTENT


class TestZstd(SourceTests):
    reader = SequentialReader

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _decoded("zstd"), CONTENT


class TestZstdFrames(SourceTests):
    reader = FramedReader

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _decoded("zstd", frame=100_000), CONTENT


class TestQcow2(SourceTests):
    reader = MappedDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _disk_in(qcow2_disk(CONTENT)), CONTENT


class TestChain(SourceTests):
    reader = MappedDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        clusters: dict[int, bytes | None] = {
            at: CONTENT[512 * at : 512 * at + 512] for at in (0, 1, 5, 200, 201, 900, 1071)
        }
        clusters |= {at: None for at in (202, 300, 590) if not any(CONTENT[512 * at : 512 * at + 512])}
        base = bytearray(CONTENT)
        for at in clusters:
            base[512 * at : 512 * at + 512] = b"?" * 512
        delta = qcow2_delta(clusters, len(CONTENT), "base", "qcow2")
        image = Image.open(delta, parent=qcow2_disk(bytes(base)))
        return image.disk, CONTENT


class TestVhdChain(SourceTests):
    reader = VhdDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        size = len(CONTENT) // 512 * 512
        sectors = {at: CONTENT[512 * at : 512 * at + 512] for at in (0, 1, 5, 200, 201, 900, 1071)}
        base = bytearray(CONTENT[:size])
        for at in sectors:
            base[512 * at : 512 * at + 512] = b"?" * 512
        delta = vhd_delta({0: sectors}, size, {RELATIVE_PATH: "base"})
        return Image.open(delta, parent=vhd_disk(bytes(base))).disk, CONTENT[:size]


class TestVmdk(SourceTests):
    reader = MappedDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _disk_in(vmdk_disk(CONTENT)), CONTENT


class TestStreamOptimizedVmdk(SourceTests):
    reader = MappedDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _disk_in(vmdk_disk(CONTENT, compressed=True)), CONTENT


class TestVhd(SourceTests):
    reader = VhdDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _disk_in(vhd_disk(CONTENT)), CONTENT


class TestVhdx(SourceTests):
    reader = VhdxDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        return _disk_in(vhdx_disk(CONTENT)), CONTENT


class TestReplayedVhdx(SourceTests):
    reader = Replayed

    def open_source(self) -> tuple[ReadAt, bytes]:
        disk = vhdx_disk(CONTENT)
        first, second = (4 << 20) + 4096, (4 << 20) + 6 * 4096
        changes: dict[int, bytes | int] = {first: CONTENT[:4096], second: 2 * 4096}
        log_id = bytes(range(16))
        entry = vhdx_log_entry(log_id, 1, changes, tail=0, flushed=disk.size, last=disk.size + (1 << 20))
        made = vhdx_with_log(disk, log_id, [(0, entry)])
        content = bytearray(made.read_at(0, made.size) + bytes(1 << 20))
        content[first : first + 4096] = CONTENT[:4096]
        content[second : second + 2 * 4096] = bytes(2 * 4096)
        header = VhdxHeader.parse(made.read_at(HEADERS[0], 4096))
        return replay(made, header, lambda _: True, ProblemList("disk")), bytes(content)


class TestFixedVhd(_WithPath):
    reader = FixedDisk

    def open_source(self) -> tuple[ReadAt, bytes]:
        path = self.path.with_suffix(".vhd")
        path.write_bytes(vhd_disk(CONTENT, fixed=True))
        return self.cleanup.enter_context(Image.open(path)).disk, CONTENT


class TestJoinedExtents(SourceTests):
    reader = JoinedExtents

    def open_source(self) -> tuple[ReadAt, bytes]:
        middle = SparseImage(60_000, [(1000, b"middle")])
        parts = (
            (100_000, BytesSource(CONTENT), 512),
            (0, BytesSource(CONTENT), 0),
            (50_000, None, 0),
            (60_000, middle, 0),
        )
        content = CONTENT[512:100_512] + bytes(50_000) + middle.read_at(0, 60_000)
        return JoinedExtents(parts), content


class TestSparseMember(SourceTests):
    reader = SparseMember

    def open_source(self) -> tuple[ReadAt, bytes]:
        table = SparseTable(300_000, [(100, 5000), (5100, 512), (200_000, 50_000)], most=10)
        content = bytearray(300_000)
        content[100:5612] = CONTENT[512:6024]
        content[200_000:250_000] = CONTENT[6024:56_024]
        return SparseMember(BytesSource(CONTENT), 512, table), bytes(content)


class TestDecompressedMember(SourceTests):
    reader = DecompressedMember

    def open_source(self) -> tuple[ReadAt, bytes]:
        archive = open_archive(_zip(zipfile.ZIP_DEFLATED))
        [member] = archive.members
        assert member.content is not None
        return member.content, CONTENT


def _zip(method: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("disk.img", CONTENT)
    return made.getvalue()


class TestLogicalVolume(SourceTests):
    reader = LogicalVolume

    def open_source(self) -> tuple[ReadAt, bytes]:
        first, second = BytesSource(CONTENT), SparseImage(200_000, [(4096, CONTENT[:100_000])])
        segments = [Segment(100_000, 150_000, second, 1000), Segment(0, 100_000, first, 5000)]
        return LogicalVolume(250_000, segments), CONTENT[5000:105_000] + second.read_at(1000, 150_000)


class TestImage(SourceTests):
    reader = Image
    after_close = "refuses"

    def open_source(self) -> tuple[ReadAt, bytes]:
        return Image.open(bz2.compress(CONTENT, 1), threads=2), CONTENT


class TestPartition(SourceTests):
    reader = Partition

    def open_source(self) -> tuple[ReadAt, bytes]:
        content = SparseImage(len(CONTENT), [(0, CONTENT)])
        disk = mbr_disk([ForgedPartition(1, 0x83, 2048, len(CONTENT) // 512, content=content)], sectors=8192)
        [partition] = Image.open(disk).partitions
        assert partition.size == len(CONTENT)
        return partition, CONTENT


class TestFatFile(SourceTests):
    reader = File

    def open_source(self) -> tuple[ReadAt, bytes]:
        image = Image.open(fat_volume({"before": b"x" * 5000, "content": CONTENT}, sectors=4096))
        return image.partitions[1].files["content"], CONTENT


class TestIsoFile(SourceTests):
    reader = File

    def open_source(self) -> tuple[ReadAt, bytes]:
        return open_archive(iso_volume({"CONTENT.BIN": CONTENT}))["CONTENT.BIN"], CONTENT


class TestTarFile(SourceTests):
    reader = File

    def open_source(self) -> tuple[ReadAt, bytes]:
        return open_archive(gzip.compress(tar_archive({"content": CONTENT})))["content"], CONTENT


class TestStoredFile(SourceTests):
    reader = File

    def open_source(self) -> tuple[ReadAt, bytes]:
        return open_archive(_zip(zipfile.ZIP_STORED))["disk.img"], CONTENT


class TestDeflatedFile(SourceTests):
    reader = File

    def open_source(self) -> tuple[ReadAt, bytes]:
        return open_archive(_zip(zipfile.ZIP_DEFLATED))["disk.img"], CONTENT


class TestVmfsFile(SourceTests):
    reader = File
    given: ClassVar[VmfsFile] = VmfsFile(CONTENT)

    def open_source(self) -> tuple[ReadAt, bytes]:
        given = self.given
        content = bytearray(given.data or given.length)
        for at, piece in given.pieces:
            content[at : at + len(piece)] = piece
        return Image.open(vmfs_volume({"content": given})[0]).partitions[1].files["content"], bytes(content)


class TestVmfsFileWithHoles(TestVmfsFile):
    given = VmfsFile(pieces=((5000, _NOISE[:7000]), ((3 << 20) + 17, b"behind two holes")), size=(4 << 20) + 100)


class TestSparseImage(SourceTests):
    reader = SparseImage

    def open_source(self) -> tuple[ReadAt, bytes]:
        content = bytes(1000) + CONTENT[:5000] + bytes(20_000) + CONTENT[:100] + bytes(900)
        return SparseImage(27_000, [(1000, CONTENT[:5000]), (26_000, CONTENT[:100])]), content


class TestDamagedSource(SourceTests):
    reader = DamagedSource

    def open_source(self) -> tuple[ReadAt, bytes]:
        source = SparseImage(300_000, [(1000, CONTENT[:5000])])
        content = bytearray(source.read_at(0, 250_000))
        changes = [Change(512, b"changed"), Change(200_000, b"in a hole"), Change(249_999, b"\xff\xff")]
        for change in changes:
            content[change.offset : change.offset + len(change.data)] = change.data
        return DamagedSource(source, changes, 250_000), bytes(content[:250_000])


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def test_no_reader_is_without_tests() -> None:
    """Of the whole package: a reader that is added needs a class above."""
    for module in pkgutil.walk_packages(vmvisor_image.__path__, "vmvisor_image."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    own = {each for each in _subclasses(Source) if each.__module__.split(".")[0] == "vmvisor_image"}
    tested = {each.reader for each in vars(sys.modules[__name__]).values() if _is_tests(each)}
    assert {each.__qualname__ for each in own - {Pieced, Linked} - tested} == set()


def _is_tests(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, SourceTests)
