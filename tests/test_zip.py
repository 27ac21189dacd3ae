"""Zip archives of all methods, and behind anything, held against zipfile, unzip, 7-Zip and bsdtar."""

from __future__ import annotations

import bz2
import io
import lzma
import pickle
import random
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from tests.media import small_disk
from tests.support import Counting, require_tool, run
from vmvisor_image import (
    Archive,
    CorruptImage,
    Image,
    LimitExceeded,
    Limits,
    NoDiskImage,
    NotAnArchive,
    SourceError,
    TruncatedImage,
    open_archive,
)
from vmvisor_image.archives.zip import _LZMA_MEMORY
from vmvisor_image.base.limits import Meter
from vmvisor_image.compressions.sequential import PIECE
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.streams.views import Slice

NOISE = random.Random(1).randbytes(300_000)
TREE: Mapping[str, bytes] = {
    "noise": NOISE,
    "zeros": bytes(3 * PIECE + 7),
    "folder/text": b"".join(b"line %d\n" % number for number in range(50_000)),
    "one": b"1",
}
DEFLATE, BZIP2, LZMA, OLD_ZSTD, ZSTD, XZ = 8, 12, 14, 20, 93, 95


def read(data: bytes) -> Archive:
    return open_archive(BytesSource(data))


class TestNames:
    def test_with_the_separators_of_dos(self, tmp_path: Path) -> None:
        """As bsdtar reads them."""
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name, attributes in (("folder", 0x10), ("folderXfile", 0x20)):
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 0, attributes
                archive.writestr(info, b"" if attributes & 0x10 else b"data")
        data = made.getvalue().replace(b"folderXfile", b"folder\\file")
        found = read(data)
        assert contents(found) == {"folder/file": b"data"}
        assert [member.kind for member in found.members] == ["directory", "file"]
        (tmp_path / "a.zip").write_bytes(data)
        run("bsdtar", "-xf", tmp_path / "a.zip", "-C", tmp_path)
        assert (tmp_path / "folder" / "file").read_bytes() == b"data"
        own = data.replace(b"PK\1\2\x14\0", b"PK\1\2\x14\3")  # on Unix it is a letter as any other
        assert contents(read(own)) == {"folder": b"", "folder\\file": b"data"}

    def test_a_link_that_names_nothing(self, tmp_path: Path) -> None:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(info, b"")
        found = read((tmp_path / "a.zip").read_bytes())
        assert found.links == {"link": ""}
        assert ["is a symbolic link to nothing" in problem.message for problem in found.problems] == [True]
        command = [require_tool("bsdtar"), "-xf", str(tmp_path / "a.zip"), "-C", str(tmp_path)]
        assert subprocess.run(command, capture_output=True, check=False).returncode

    def test_of_code_page_437(self) -> None:
        info = zipfile.ZipInfo("x")
        info.create_system = 0
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr(info, b"data")
        data = made.getvalue().replace(b"x", b"\x81")
        assert contents(read(data)) == {"ü": b"data"}

    @pytest.mark.parametrize("crc", [zlib.crc32(b"\x81"), 0])
    def test_the_field_is_of_one_name(self, crc: int) -> None:
        """One that an old program left behind when it renamed the member has another CRC (4.6.9)."""
        name = "другое".encode()
        info = zipfile.ZipInfo("x")
        info.create_system = 0
        info.extra = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, crc) + name
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr(info, b"data")
        data = made.getvalue().replace(b"x", b"\x81")
        assert contents(read(data)) == {"другое" if crc else "ü": b"data"}


class TestLocalFields:
    """What a local header says otherwise than the directory is told; the member is read as the directory says."""

    @pytest.mark.parametrize(
        ("place", "field"), [(8, "method"), (6, "encryption"), (14, "CRC"), (18, "compressed size"), (22, "size")]
    )
    def test_of_a_file(self, place: int, field: str, tmp_path: Path) -> None:
        data = bytearray(zipped({"name": NOISE[:5000] * 2}, zipfile.ZIP_DEFLATED))
        assert not read(bytes(data)).problems
        data[place] ^= 1
        path = tmp_path / "a.zip"
        path.write_bytes(data)
        archive = read(bytes(data))
        assert contents(archive) == {"name": NOISE[:5000] * 2}
        [problem] = archive.problems
        assert f"other values in its local header: {field}" in problem.message
        assert problem.offset == 0

    def test_sizes_that_stand_behind_the_data(self) -> None:
        """A writer that could not go back leaves zeros in the local header (4.4.4)."""

        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        made = Pipe()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("name", NOISE[:5000])
        assert contents(read(made.getvalue())) == {"name": NOISE[:5000]}
        assert not read(made.getvalue()).problems


def contents(archive: Archive) -> dict[str, bytes]:
    return {each.path: each.read_bytes() for each in archive.values()}


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.comment = comment
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return made.getvalue()


def packed(
    packed_data: bytes, method: int, data: bytes, flags: int = 0, *, size: int | None = None, crc: int | None = None
) -> bytes:
    """A zip of one member ``name`` whose compressed data is given."""
    fields = struct.pack(
        *("<HHHHHIIIHH", 63, flags, method, 0, 0x21, zlib.crc32(data) if crc is None else crc),
        *(len(packed_data), len(data) if size is None else size, 4, 0),
    )
    local = b"PK\3\4" + fields + b"name" + packed_data
    entry = b"PK\1\2" + struct.pack("<H", 63) + fields + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0) + b"name"
    return local + entry + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)


def lzma_data(data: bytes) -> bytes:
    """The data of a member of method 14, with an end mark, as liblzma writes it (APPNOTE.TXT 6.3.10, 5.8.8)."""
    alone = lzma.compress(data, lzma.FORMAT_ALONE, preset=0)
    return b"\x09\x04\x05\0" + alone[:5] + alone[13:]


PACKERS: Mapping[int, Callable[[bytes], bytes]] = {
    DEFLATE: lambda data: zlib.compress(data)[2:-4],
    BZIP2: bz2.compress,
    LZMA: lzma_data,
    ZSTD: zstandard.ZstdCompressor().compress,
    XZ: lzma.compress,
}
FLAGS = {LZMA: 2}


def of_method(method: int, data: bytes) -> bytes:
    return packed(PACKERS[method](data), method, data, FLAGS.get(method, 0))


methods = pytest.mark.parametrize("method", PACKERS)


class TestMethods:
    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_what_zipfile_wrote(self, method: int) -> None:
        archive = read(zipped(TREE, method))
        assert contents(archive) == TREE
        assert archive.problems == ()

    @pytest.mark.parametrize("method", ["Copy", "Deflate", "BZip2", "LZMA", "LZMA:eos=on"])
    def test_what_7_zip_wrote(self, method: str, tmp_path: Path) -> None:
        for name, data in TREE.items():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_bytes(data)
        run("7z", "a", "-tzip", f"-mm={method}", tmp_path / "a.zip", f"{tmp_path}/tree/*")
        archive = read((tmp_path / "a.zip").read_bytes())
        assert contents(archive) == TREE
        assert archive.problems == ()

    @pytest.mark.parametrize("method", ["store", "deflate", "bzip2"])
    def test_what_zip_wrote(self, method: str, tmp_path: Path) -> None:
        (tmp_path / "text").write_bytes(TREE["folder/text"])
        run("zip", "-j", "-Z", method, tmp_path / "a.zip", tmp_path / "text")
        assert contents(read((tmp_path / "a.zip").read_bytes())) == {"text": TREE["folder/text"]}

    @methods
    @pytest.mark.parametrize("name", TREE)
    def test_the_forged_ones_are_right(self, method: int, name: str, tmp_path: Path) -> None:
        """As 7-Zip and bsdtar say; the others don't know zstd."""
        path = tmp_path / "a.zip"
        path.write_bytes(of_method(method, TREE[name]))
        run("7z", "t", path)
        run("bsdtar", "-xf", path, "-C", tmp_path)
        assert (tmp_path / "name").read_bytes() == TREE[name]
        assert contents(read(path.read_bytes())) == {"name": TREE[name]}

    def test_zstd_by_its_old_number_and_in_several_frames(self) -> None:
        data = PACKERS[ZSTD](b"one") + zstandard.ZstdCompressor(write_content_size=False).compress(b"two")
        for method in (ZSTD, OLD_ZSTD):
            assert contents(read(packed(data, method, b"onetwo"))) == {"name": b"onetwo"}

    @methods
    @pytest.mark.parametrize("more", [-1, 0, 1, 63, 64, 65, 4096])
    @pytest.mark.parametrize("pieces", [1, 2])
    def test_an_end_that_compresses_well(self, pieces: int, more: int, method: int) -> None:
        """The decoder has taken all of the input and still owes output."""
        data = bytes(pieces * PIECE + more)
        file = read(of_method(method, data))["name"]
        assert file.read_at(len(data) - 7, 7) == bytes(7)
        assert file.read_bytes() == data

    @methods
    def test_an_empty_one(self, method: int) -> None:
        assert contents(read(of_method(method, b""))) == {"name": b""}

    @methods
    def test_any_part_of_it(self, method: int) -> None:
        data = (NOISE + bytes(100_000)) * 3
        file = read(of_method(method, data))["name"]
        chosen = random.Random(method)
        for _ in range(40):
            at = chosen.randrange(len(data))
            length = min(len(data) - at, chosen.randrange(200_000))
            assert file.read_at(at, length) == data[at : at + length]
        with pytest.raises(TruncatedImage):
            file.read_at(len(data), 1)
        assert pickle.loads(pickle.dumps(file)).read_at(7, 9) == data[7:16]

    @methods
    def test_no_more_is_read_than_needed(self, method: int) -> None:
        data = random.Random(2).randbytes(3 << 20)
        source = Counting(BytesSource(of_method(method, data)))
        file = open_archive(source)["name"]
        assert sum(length for _, length in source.reads) < 400_000
        before = len(source.reads)
        assert file.read_at(0, 100) == data[:100]
        assert sum(length for _, length in source.reads[before:]) < 2_000_000

    @methods
    def test_a_wrong_checksum(self, method: int) -> None:
        data = bytes(1000) + NOISE[:1000]
        file = read(packed(PACKERS[method](data), method, data, FLAGS.get(method, 0), crc=7))["name"]
        assert file.read_at(0, 1999) == data[:1999]
        with pytest.raises(CorruptImage, match="CRC"):
            file.read_bytes()

    @methods
    @pytest.mark.parametrize("size", [1, 1999, 2001, 1 << 20])
    def test_a_wrong_size(self, method: int, size: int) -> None:
        data = bytes(1000) + NOISE[:1000]
        file = read(packed(PACKERS[method](data), method, data, FLAGS.get(method, 0), size=size))["name"]
        with pytest.raises(CorruptImage) as caught:
            file.read_bytes()
        assert caught.value.structure == "zip member"

    @methods
    def test_a_size_of_nothing_that_has_a_checksum(self, method: int) -> None:
        archive = read(packed(PACKERS[method](b"data"), method, b"data", FLAGS.get(method, 0), size=0))
        assert list(archive) == []
        assert ["no bytes" in problem.message for problem in archive.problems] == [True]

    @methods
    def test_every_cut_and_many_damages(self, method: int) -> None:
        data = b"some text, " * 20 + NOISE[:300]
        whole = PACKERS[method](data)
        chosen = random.Random(3)
        for length in range(len(whole)):
            damaged = bytearray(whole)
            damaged[length] ^= 1 << chosen.randrange(8)
            for each in (whole[:length], bytes(damaged)):
                file = read(packed(each, method, data, FLAGS.get(method, 0)))["name"]
                error = None
                try:
                    assert file.read_bytes() == data
                except CorruptImage as found:
                    error = found
                if error is None:
                    assert len(each) >= len(whole) - 10, "only what does not matter may be damaged"
                else:
                    assert error.structure == "zip member"
                    assert 34 <= (error.offset or 0) <= 34 + len(whole)

    @methods
    def test_what_is_healthy_before_damage(self, method: int) -> None:
        data = b"".join(b"%09d\n" % number for number in range(300_000))
        whole = bytearray(PACKERS[method](data))
        whole[len(whole) * 3 // 4] ^= 0x10
        file = read(packed(bytes(whole), method, data, FLAGS.get(method, 0)))["name"]
        assert file.read_at(0, 500_000) == data[:500_000]
        with pytest.raises(CorruptImage):
            file.read_bytes()

    @methods
    def test_limits(self, method: int) -> None:
        data = of_method(method, bytes(50 << 20))

        class Metered(BytesSource):
            meter = Meter(Limits(decoded_bytes=1 << 20))

        file = open_archive(Metered(data))["name"]
        assert file.read_at(0, 9) == bytes(9)
        with pytest.raises(LimitExceeded, match="decoded_bytes"):
            file.read_bytes()

    def test_an_lzma_dictionary_that_is_larger_than_the_data_takes_no_memory(self) -> None:
        data = bytearray(lzma_data(b"few bytes"))
        data[5:9] = b"\xff" * 4
        assert contents(read(packed(bytes(data), LZMA, b"few bytes", 2))) == {"name": b"few bytes"}
        claims = packed(bytes(data), LZMA, b"few bytes", 2, size=_LZMA_MEMORY * 2)
        with pytest.raises(CorruptImage, match=r"(?i)memory"):
            read(claims)["name"].read_at(0, 1)

    @pytest.mark.parametrize(
        "damage", [b"", b"\x09\x04\x05\0]", b"\x09\x04\x06\0" + bytes(20), b"\x09\x04\x05\0" + b"\xff" * 20]
    )
    def test_an_lzma_header_that_makes_no_sense(self, damage: bytes) -> None:
        with pytest.raises(CorruptImage):
            read(packed(damage, LZMA, b"few bytes", 2))["name"].read_bytes()


STUBS = {
    "Windows": b"MZ" + bytes(510),
    "Linux": b"\x7fELF" + NOISE[:70_000],
    "a script": b"#!/bin/sh\nexit 0\n",
    "noise": NOISE[:1000],
    "zeros": bytes(5000),
    "one byte": b"x",
    "a mark": b"PK00",
    "the other mark": b"PK\7\x08",
}
SMALL = {"a.txt": b"hello", "folder/b": b"x" * 5000}


class TestSomethingBefore:
    @pytest.mark.parametrize("stub", STUBS)
    @pytest.mark.parametrize("moves", [False, True], ids=["as they were", "moved"])
    @pytest.mark.parametrize("comment", [b"", b"A comment.", b"c" * 65_535], ids=len)
    def test_offsets(self, stub: str, comment: bytes, tmp_path: Path, *, moves: bool) -> None:
        path = tmp_path / "a.exe"
        path.write_bytes(STUBS[stub] + (b"" if moves else zipped(SMALL, zipfile.ZIP_DEFLATED, comment)))
        if moves:
            with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as made:
                made.comment = comment
                for name, data in SMALL.items():
                    made.writestr(name, data)
        archive = read(path.read_bytes())
        assert archive.kind == "zip"
        assert contents(archive) == SMALL
        assert archive.problems == ()
        with zipfile.ZipFile(path) as theirs:
            assert {name: theirs.read(name) for name in theirs.namelist()} == SMALL
        if len(comment) < 1000:  # 7-Zip finds no longer one
            run("7z", "t", path)
        for name, data in SMALL.items():  # unzip warns, with status 1, where offsets are not moved
            command = [require_tool("unzip"), "-qq", "-p", str(path), name]
            done = subprocess.run(command, capture_output=True, check=False)
            assert (done.returncode < 2, done.stdout) == (True, data)

    def test_zip64(self) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as writer:
            for number in range(65_600):
                writer.writestr(zipfile.ZipInfo(str(number)), b"")
        archive = read(b"stub" + made.getvalue())
        assert len(archive.members) == 65_600
        assert archive.problems == ()

    def test_an_empty_archive(self) -> None:
        for stub in (b"", b"x", b"MZ stub", bytes(1024)):
            archive = read(stub + zipped({}))
            assert (archive.kind, list(archive), archive.problems) == ("zip", [], ())

    def test_a_program_that_is_signed(self) -> None:
        """Windows puts a signature behind all else."""
        data = STUBS["Windows"] + zipped(SMALL) + NOISE[:9000]
        assert contents(read(data)) == SMALL

    @pytest.mark.parametrize("prepared", [False, True], ids=["joined", "adjusted by zip"])
    def test_the_self_extractor_of_info_zip(self, prepared: bool, tmp_path: Path) -> None:
        stub = Path(require_tool("unzipsfx")).read_bytes()
        path = tmp_path / "a.exe"
        path.write_bytes(stub + zipped(SMALL, zipfile.ZIP_DEFLATED))
        if prepared:
            run("zip", "-A", path)
        assert contents(read(path.read_bytes())) == SMALL
        DISK.write_to(tmp_path / "esx.dd")
        path.write_bytes(stub + zipped({"esx.dd": (tmp_path / "esx.dd").read_bytes()}, zipfile.ZIP_DEFLATED))
        with Image.open(path) as image:
            assert [layer.kind for layer in image.layers] == ["zip"]
            assert image.read_at(0, image.size) == DISK.read_at(0, DISK.size)

    def test_the_parts_of_a_split_archive(self, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(NOISE)
        (tmp_path / "small").write_bytes(b"in the last part")
        run("zip", "-j", "-s", "64k", "-0", tmp_path / "a.zip", tmp_path / "large", tmp_path / "small")
        last = read((tmp_path / "a.zip").read_bytes())
        assert contents(last) == {"small": b"in the last part"}
        assert ["'large' is in part 1 of 5" in problem.message for problem in last.problems] == [True]
        first = read((tmp_path / "a.z01").read_bytes())
        assert list(first) == []
        assert first.problems
        with pytest.raises(NotAnArchive):
            read((tmp_path / "a.z02").read_bytes())

    def test_a_number_of_a_disk_that_is_damaged_costs_nothing(self) -> None:
        data = bytearray(zipped(SMALL))
        data[data.rindex(b"PK\5\6") + 4] = 7
        archive = read(bytes(data))
        assert contents(archive) == SMALL
        assert ["and all members are here" in problem.message for problem in archive.problems] == [True]

    @pytest.mark.parametrize(
        "data",
        [
            NOISE + b"PK\5\6" + bytes(18),
            NOISE + b"PK\5\6" + bytes(8) + struct.pack("<IIH", 46, 0, 0),
            NOISE + b"PK\5\6" + bytes(8) + struct.pack("<IIH", 1 << 30, 0, 0),
            NOISE + b"PK\5\6",
            NOISE + zipped(SMALL) + b"more",
            NOISE[:4096] + zipped(SMALL) + bytes(512),
        ],
        ids=["no directory", "none there", "one before the start", "cut", "bytes behind it", "on a disk"],
    )
    def test_what_is_none(self, data: bytes) -> None:
        if data.endswith(b"PK\5\6" + bytes(18)):  # an archive without members, behind noise
            assert list(read(data)) == []
            return
        with pytest.raises(NotAnArchive):
            read(data)

    def test_a_source_whose_end_cannot_be_read_is_none(self) -> None:
        class Broken(BytesSource):
            def read_at(self, offset: int, length: int) -> bytes:
                if offset + length > len(NOISE) - 100:
                    raise SourceError("a bad sector")
                return super().read_at(offset, length)

        with pytest.raises(NotAnArchive):
            open_archive(Broken(NOISE))

    @pytest.mark.parametrize("level", [1, 3])
    def test_a_compressed_disk_without_a_table_is_not_decoded_to_its_end(self, level: int) -> None:
        whole = zstandard.ZstdCompressor(level=level).compress(random.Random(4).randbytes(8 << 20))
        with Image.open(Counting(BytesSource(whole))) as image:
            assert image.read_at(0, 512)
            assert image.meter.decoded_bytes < 1 << 20

    def test_a_disk_whose_last_file_is_a_zip_is_a_disk(self) -> None:
        data = bytes(4096) + zipped({"esx.dd": b"1" * 512})
        with Image.open(data + bytes(-len(data) % 512)) as image:
            assert image.layers == ()
        with pytest.raises(NoDiskImage):
            Image.open(zipped({"readme": b"1", "notes": b"2"}))

    def test_behind_a_compression(self) -> None:
        data = STUBS["Windows"] + zipped(SMALL)
        for packed_data in (bz2.compress(data), zlib.compress(data, wbits=31), lzma.compress(data)):
            archive = read(packed_data)
            assert contents(archive) == SMALL

    def test_a_slice(self) -> None:
        data = STUBS["noise"] + zipped(SMALL)
        archive = open_archive(Slice(BytesSource(b"before" + data + b"behind"), 6, len(data)))
        assert contents(archive) == SMALL


DISK = small_disk({"oem.tgz": b"of a zip"})


class TestLocalHeaders:
    def test_another_name_is_told_of(self) -> None:
        data = zipped({"first": b"1", "other": b"2"}).replace(b"first", b"xxxxx", 1)
        archive = read(data)
        assert contents(archive) == {"first": b"1", "other": b"2"}
        [problem] = archive.problems
        assert (problem.structure, problem.offset) == ("zip local header", 0)
        assert "'xxxxx'" in problem.message

    @pytest.mark.parametrize("name", ["plain", "fü", "日本" * 500, "a" * 3000])
    def test_the_same_name_in_any_characters(self, name: str) -> None:
        archive = read(zipped({name: b"1"}))
        assert contents(archive) == {name: b"1"}
        assert archive.problems == ()

    def test_a_name_that_is_none_is_told_of(self) -> None:
        archive = read(zipped({"/": b"", "a": b"1"}))
        assert (contents(archive), archive.problems) == ({"a": b"1"}, ())
        nameless = bytearray(zipped({"x": b"x"}))
        at = nameless.rindex(b"PK\1\2")
        nameless[at + 28 : at + 30] = b"\0\0"
        nameless[at + 30 : at + 32] = b"\1\0"  # the name is extra data now
        archive = read(bytes(nameless))
        assert list(archive) == []
        assert ["no name" in problem.message for problem in archive.problems] == [True]
        archive = read(zipped({"//.": b"x", "a": b"1"}))
        assert contents(archive) == {"a": b"1"}
        assert ["no name" in problem.message for problem in archive.problems] == [True]


class TestExtraFields:
    @pytest.mark.parametrize(
        "field",
        [
            struct.pack("<2H", 0x5455, 13121) + b"\3" * 5,
            struct.pack("<2H", 0x5455, 9) + b"\3" * 8,
            struct.pack("<2H", 0x7875, 0xFFFF),
        ],
        ids=["far too long", "a byte too long", "nothing there"],
    )
    def test_one_that_is_too_long_costs_nothing(self, field: bytes, tmp_path: Path) -> None:
        data = self.with_field(field)
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(data))
        archive = read(data)
        assert contents(archive) == {"before": b"1", "name": b"data", "after": b"22"}
        [problem] = archive.problems
        assert "extra field" in problem.message
        assert problem.offset is not None
        assert data[problem.offset :].startswith(field)
        (tmp_path / "a.zip").write_bytes(data)
        for tool in (["unzip", "-tqq"], ["7z", "t"]):
            done = subprocess.run(
                [require_tool(tool[0]), *tool[1:], tmp_path / "a.zip"], capture_output=True, check=False
            )
            assert done.returncode in (0, 1), "sound, at most with a warning"

    @pytest.mark.parametrize("length", [0, 7])
    def test_one_of_zip64_that_lacks_a_number_costs_its_member_only(self, length: int) -> None:
        data = bytearray(self.with_field(struct.pack("<2H", 1, length) + bytes(length)))
        at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
        data[at + 24 : at + 28] = b"\xff" * 4  # its size, which the field is to have
        archive = read(bytes(data))
        assert {path: archive[path].read_bytes() for path in ("before", "after")} == {"before": b"1", "after": b"22"}
        assert any("extra field" in problem.message for problem in archive.problems)

    @pytest.mark.parametrize("path", [b"", b"\1crc", b"\1crc.\xff\xfe"])
    def test_a_path_that_is_none(self, path: bytes) -> None:
        archive = read(self.with_field(struct.pack("<2H", 0x7075, len(path)) + path))
        assert contents(archive) == {"before": b"1", "name": b"data", "after": b"22"}
        assert any("extra field" in problem.message for problem in archive.problems)

    @staticmethod
    def with_field(field: bytes) -> bytes:
        """An archive of three members; the one in the middle has such a field in the directory."""
        data = bytearray(zipped({"before": b"1", "name": b"data", "after": b"22"}))
        at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
        struct.pack_into("<H", data, at + 30, len(field))
        data[at + 50 : at + 50] = field
        length, place = struct.unpack_from("<2I", data, len(data) - 10)
        struct.pack_into("<2I", data, len(data) - 10, length + len(field), place)
        return bytes(data)


def by_zipfile(data: bytes) -> dict[str, bytes | None] | None:
    """The files as the standard library reads them, None for a damaged one; None where it reads no directory."""
    found: dict[str, bytes | None] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                path = "/".join(part for part in info.filename.split("/") if part not in ("", "."))
                if info.is_dir():
                    continue
                try:
                    found[path] = archive.read(info)
                except Exception:  # noqa: BLE001  # it raises many
                    found[path] = None
    except Exception:  # noqa: BLE001  # as above
        return None
    return found


@pytest.mark.parametrize("seed", range(5))
def test_random_archives_and_damaged_ones(seed: int) -> None:
    """What zipfile reads is read, or is told to be damaged; nothing compressed is read whose CRC is wrong."""
    chosen = random.Random(seed)
    for number in range(200):
        made = io.BytesIO(b"MZ" + bytes(chosen.randrange(40)) if chosen.random() < 0.5 else b"")
        with zipfile.ZipFile(made, "a") as archive:
            for name in range(chosen.randrange(1, 5)):
                content = chosen.choice([b"", b"x" * chosen.randrange(3000), NOISE[: chosen.randrange(400)]])
                path = "d/" * chosen.randrange(3) + str(name)
                archive.writestr(zipfile.ZipInfo(path), content, chosen.choice([0, DEFLATE, BZIP2, LZMA]))
        data = bytearray(b"MZ" + bytes(20) if chosen.random() < 0.3 else b"") + made.getvalue()
        for _ in range(chosen.randrange(3)):
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        theirs = by_zipfile(bytes(data))
        try:
            ours = read(bytes(data))
            members = {member.path: member for member in ours.members}
        except NotAnArchive:
            assert not theirs or bytes(data[:2]) not in (b"MZ", b"PK"), (seed, number)
            continue
        found: dict[str, bytes | None] = {}
        for each in ours.values():
            try:
                found[each.path] = each.read_bytes()
            except CorruptImage:
                found[each.path] = None
        for path, right in (theirs or {}).items():
            told = bool(ours.problems) or (path in found and found[path] is None)
            assert right is None or found.get(path) == right or told, (seed, number, path)
        for path, read_content in found.items():
            if read_content is not None and members[path].content is not None:
                assert zlib.crc32(read_content) == members[path].crc32, (seed, number, path)
