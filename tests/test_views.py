"""What a view passes on of the source that it shows, and how what is not ours is taken."""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

import vmvisor_image
from tests.test_source_conformance import CONTENT
from vmvisor_image import Image, LimitExceeded, Limits, SourceError
from vmvisor_image.archives.archive import Metered
from vmvisor_image.base.limits import Meter
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.bzip2.bridged import BridgedReader
from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files.file import Extent, File
from vmvisor_image.layers.vmdk import JoinedExtents
from vmvisor_image.streams.checked import CheckedSource
from vmvisor_image.streams.opening import open_source
from vmvisor_image.streams.reading import knows_size, meter_of, prefetch, read_up_to, skip_zeros
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.views import KeptBeside, Slice, View, Watched
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_modules import tar_archive
from vmvisor_image.testing.forge_virtual import qcow2_disk, vhd_disk, vmdk_disk

_MEMBERS = {name for name in vars(Source) if not name.startswith("_")}
_IDENTITY = {"problems", "kept_beside", "container", "version", "modified_ns", "changed_ns"}


class Telling:
    """Has all that a `Source` may have, without being one: 100 bytes of which the first 40 are zeros."""

    size_is_known = False
    meter = Meter()
    problems = (Problem("told", "it is damaged", 7),)
    kept_beside = "/somewhere/told"
    container = BytesSource(b"all around it")
    version = "1"
    modified_ns = 2
    changed_ns = 3

    def __init__(self) -> None:
        self.hints: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        raise AssertionError("which is not known")

    def read_at(self, offset: int, length: int) -> bytes:
        return (bytes(40) + b"x" * 60)[offset : offset + length]

    read_up_to = read_at

    def prefetch(self, offset: int, length: int) -> None:
        self.hints.append((offset, length))

    def skip_zeros(self, offset: int, end: int) -> int:
        return max(offset, 40)


def _ignore(done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


def _whole_views(source: ReadAt) -> list[Source]:
    return [
        CheckedSource(source),
        View(source),
        KeptBeside(source, "kept"),
        Watched(source, _ignore),
        Metered(source, Meter()),
    ]


def _told(source: Any) -> dict[str, Any]:
    return {name: getattr(source, name) for name in _IDENTITY | {"meter", "size_is_known"}}


def test_a_view_passes_on_every_member() -> None:
    """Those that `Source` gets later, too; `close` leaves what is shown open, and a checked one copies into buffers."""
    assert _MEMBERS - set(vars(View)) == {"close"}
    assert _MEMBERS - set(vars(CheckedSource)) == {"close", "copy_range", "read_into"}


@pytest.mark.parametrize("number", range(5))
def test_a_view_of_the_whole_passes_all_on(number: int) -> None:
    given = Telling()
    view = _whole_views(given)[number]
    expected = _told(given)
    if isinstance(view, KeptBeside):  # which is told by what it is in
        expected |= {"kept_beside": "kept", "container": None, "version": None, "modified_ns": None, "changed_ns": None}
    if isinstance(view, Metered):
        expected["meter"] = view.meter
        assert view.meter is not given.meter
    assert _told(view) == expected
    prefetch(view, 5, 6)
    assert given.hints == [(5, 6)]
    assert skip_zeros(view, 10, 100) == 40
    assert read_up_to(view, 90, 100) == b"x" * 10  # for which the size is not asked


def test_a_part_passes_on_what_is_of_its_bytes() -> None:
    given = Telling()
    part = Slice(Slice(given, 10, 80), 10, 30)
    assert (part.size, part.size_is_known) == (30, True)
    assert part.meter is given.meter
    assert {name: getattr(part, name) for name in _IDENTITY} == dict.fromkeys(_IDENTITY) | {"problems": ()}
    prefetch(part, 5, 1000)
    assert given.hints == [(25, 25)]
    assert skip_zeros(part, 1, 1000) == 20
    assert read_up_to(part, 25, 100) == b"x" * 5


def test_a_part_that_is_not_all_there_has_no_early_end() -> None:
    """A partition of an image that is cut off: its end is an error, and never the end of a file."""
    part = Slice(BytesSource(bytes(100)), 50, 100)
    assert read_up_to(part, 0, 50) == bytes(50)
    with pytest.raises(CorruptImage):
        read_up_to(part, 0, 51)


class TestDoor:
    def test_what_is_ours_is_told_by_its_class(self) -> None:
        """And by no name: a module may be called as it likes, and be moved."""

        class OfTheUser(BytesSource):
            pass

        class Foreign(Telling):
            size = 100

        Foreign.__module__ = "vmvisor_image.testing.forge"
        own = OfTheUser(b"own")
        assert open_source(own).source is own
        assert isinstance(open_source(Foreign()).source, CheckedSource)

    @pytest.mark.parametrize("answer", [bytes(11), None, bytearray(5)])
    def test_more_than_was_asked_for(self, answer: object) -> None:
        class Generous(Telling):
            def read_up_to(self, offset: int, length: int) -> bytes:
                return answer  # type: ignore[return-value]  # what is wrong with it

        with pytest.raises(SourceError, match="were asked for"):
            read_up_to(open_source(Generous()).source, 0, 10)

    def test_what_a_home_gives_as_content(self) -> None:
        """Such as a plug-in's volume."""

        class Short:
            size = 10

            def read_at(self, offset: int, length: int) -> bytes:
                return b"short"

        class Home:
            disk = BytesSource(bytes(100))

            def locate(self, token: object) -> tuple[Extent, ...]:
                raise AssertionError("its content has no extents")

            def open_content(self, token: object) -> ReadAt:
                return Short()

        with pytest.raises(SourceError, match="5 bytes came"):
            File(Home(), "name", 10, None, None).read_bytes()

    def test_a_meter_of_something_else(self) -> None:
        for given in ("a path", b"bytes", io.BytesIO(), 7):
            assert meter_of(given).limits == Limits()
        assert meter_of(Telling()) is Telling.meter

    def test_nothing_of_source_is_asked_by_name(self) -> None:
        """`CheckedSource` looks for what a source has; behind it every source has all of it."""
        asked = []
        for path in Path(vmvisor_image.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                    of, name = ast.unparse(node.args[0]), ast.unparse(node.args[1]).strip("'")
                    if name in _MEMBERS - {"size", "read_at"} and of not in ("home", "self._home"):
                        asked.append(f"{path.name}:{node.lineno}: {of}.{name}")
        assert asked == []


def _sparse(data: bytes, unit: int = 512) -> SparseImage:
    """`data` in a source that knows where its zeros are."""
    blocks = ((at, data[at : at + unit]) for at in range(0, len(data), unit))
    return SparseImage(len(data), [(at, block) for at, block in blocks if any(block)])


_DISK = b"begin".ljust(1024, b"\1") + bytes(60 << 10) + b"end".ljust(1024, b"\2")
_ZEROS = (1024, 61 << 10)


class TestZeros:
    """What a source knows to be zeros is known through all that lies around and in it."""

    def test_through_an_image(self) -> None:
        with Image.open(_sparse(_DISK)) as image:
            assert skip_zeros(image, *_ZEROS) == _ZEROS[1]
            with Image.open(image) as again:
                assert skip_zeros(again.disk, *_ZEROS) == _ZEROS[1]

    @pytest.mark.parametrize("make", [qcow2_disk, vmdk_disk, vhd_disk])
    def test_through_a_virtual_disk(self, make: Any) -> None:
        """Clusters that are allocated, and hold zeros."""
        with Image.open(_sparse(make(_DISK))) as image:
            assert len(image.layers) == 1
            assert skip_zeros(image.disk, *_ZEROS) == _ZEROS[1]
            assert skip_zeros(image.disk, 0, len(_DISK)) == 0

    def test_through_a_fixed_disk_in_an_archive(self) -> None:
        with Image.open(_sparse(tar_archive({"disk.vhd": vhd_disk(_DISK, fixed=True)}))) as image:
            assert [layer.kind for layer in image.layers] == ["tar", "vhd"]
            assert skip_zeros(image.disk, *_ZEROS) == _ZEROS[1]

    def test_before_damage(self) -> None:
        content = bytes(20_000_000) + CONTENT
        packed = bytearray(bz2.compress(content, 1))
        packed[-100_000] ^= 0xFF
        reader = Bzip2Reader(bytes(packed))
        bridged = BridgedReader(reader, reader.source, len(content))
        assert bridged.lost[0] >= 10_000_000
        assert skip_zeros(bridged, 0, len(content)) == skip_zeros(reader, 0, bridged.lost[0]) > 4_000_000


def test_all_extents_of_a_range_are_announced() -> None:
    first, second = Telling(), Telling()
    disk = JoinedExtents(((100, first, 0), (50, None, 0), (100, second, 1000)))
    prefetch(disk, 90, 100)
    assert (first.hints, second.hints) == ([(90, 10)], [(1000, 40)])


def test_an_archive_in_an_archive_counts_for_the_image() -> None:
    """A tar with one file, which is a zip with one file, and no disk by its name."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", bytes(10 << 20))
    with Image.open(
        gzip.compress(tar_archive({"outer": made.getvalue()})), limits=Limits(decoded_bytes=1 << 20)
    ) as image:
        assert [layer.kind for layer in image.layers] == ["gzip", "tar", "zip"]
        with pytest.raises(LimitExceeded):
            image.read_at(0, 10 << 20)


def test_a_wrapped_source_s_size_is_as_known_as_its_own() -> None:
    for number in range(4):
        view = _whole_views(Image.open(gzip.compress(CONTENT)).disk)[number]
        assert not knows_size(view)
        assert view.size == len(CONTENT)
        assert knows_size(view)


def test_damage_that_loses_no_byte() -> None:
    """Between two blocks: what is on both sides is read at once."""
    packed = bytearray(bz2.compress(CONTENT, 1))
    before = Bzip2Reader(bytes(packed))
    _ = before.size
    at = before._walk.index[1].start_bit
    packed[at // 8 + 7] ^= 0xFF  # the CRC of a block, which is lost then
    damaged = Bzip2Reader(bytes(packed))
    behind = b"".join(block.data for block in damaged.salvage())
    content = CONTENT[: damaged.healthy_size] + behind
    bridged = BridgedReader(damaged, damaged.source, len(content))
    assert bridged.lost[0] == bridged.lost[1]
    assert bridged.read_at(0, len(content)) == content
    assert bridged.problems == damaged.problems
