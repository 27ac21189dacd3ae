"""Tar archives as their writers made them, held against GNU tar, bsdtar and the standard library."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Counting, require_tool, run
from vmvisor_image import Archive, CorruptImage, NotAnArchive, TruncatedImage, open_archive
from vmvisor_image.archives import tar_sparse
from vmvisor_image.archives.tar import _LARGEST_EXTRA
from vmvisor_image.boot.overlay import build_module
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_modules import tar_archive, vmtar_archive

END = bytes(1024)
V7, USTAR, GNU = bytes(8), b"ustar\x0000", b"ustar  \0"


def header(
    name: bytes,
    size: int | bytes,
    kind: bytes = b"0",
    magic: bytes = USTAR,
    target: bytes = b"",
    modified: bytes = b"0",
) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[136:148] = modified.ljust(12, b"\0")
    block[156:157], block[157 : 157 + len(target)], block[257:265] = kind, target, magic
    return summed(block)


def summed(block: bytes | bytearray) -> bytes:
    """The header with the right checksum."""
    made = bytearray(block)
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes, kind: bytes = b"0", magic: bytes = USTAR) -> bytes:
    return header(name, len(data), kind, magic) + padded(data)


def record(key: str, value: str | bytes) -> bytes:
    body = b" " + key.encode() + b"=" + (value if isinstance(value, bytes) else value.encode()) + b"\n"
    length = 0
    while len(text := b"%d" % length + body) != length:
        length = len(text)
    return text


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    return file(b"PaxHeaders/x", b"".join(records), kind)


def read(data: bytes) -> Archive:
    return open_archive(BytesSource(data))


def contents(archive: Archive) -> dict[str, bytes]:
    return {each.path: each.read_bytes() for each in archive.values()}


def directories(archive: Archive) -> set[str]:
    return {member.path for member in archive.members if member.kind == "directory"}


def by_tarfile(data: bytes) -> dict[str, bytes]:
    """Files and hard links as the standard library reads them."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            if info.isfile() or info.islnk():
                stream = archive.extractfile(info)
                assert stream is not None
                found[info.name] = stream.read()
    return found


def extracted(tool: str, data: bytes, folder: Path) -> dict[str, bytes]:
    """Files as a program writes them."""
    folder.mkdir()
    (folder.parent / f"{folder.name}.tar").write_bytes(data)
    run(tool, "-xf", folder.parent / f"{folder.name}.tar", "-C", folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def check_all(data: bytes, wanted: Mapping[str, bytes], folder: Path, *tools: str) -> None:
    """Ours, the standard library and programs agree."""
    archive = read(data)
    assert contents(archive) == wanted
    assert archive.problems == ()
    assert by_tarfile(data) == wanted
    for tool in tools or ("tar", "bsdtar"):
        assert extracted(tool, data, folder / tool) == wanted


class TestV7:
    @pytest.mark.parametrize("format_name", ["v7tar", "ustar", "pax", "gnutar"])
    def test_what_bsdtar_wrote(self, format_name: str, tmp_path: Path) -> None:
        (tmp_path / "tree/folder").mkdir(parents=True)
        (tmp_path / "tree/folder/file").write_bytes(b"here" * 300)
        (tmp_path / "tree/link").symlink_to("folder/file")
        run("bsdtar", f"--format={format_name}", "-cf", tmp_path / "a.tar", "-C", tmp_path / "tree", ".")
        archive = read((tmp_path / "a.tar").read_bytes())
        assert contents(archive) == {"folder/file": b"here" * 300}
        assert directories(archive) == {"folder"}
        assert archive.links == {"link": "folder/file"}
        assert archive.problems == ()

    def test_a_slash_at_its_end_makes_a_directory(self, tmp_path: Path) -> None:
        data = file(b"old.txt", b"abc", b"\0", V7) + header(b"dir/", 0, b"\0", V7) + file(b"dir/x", b"1", b"\0", V7)
        check_all(data + END, {"old.txt": b"abc", "dir/x": b"1"}, tmp_path)
        assert directories(read(data + END)) == {"dir"}

    def test_no_more_than_one_header(self) -> None:
        assert contents(read(header(b"empty", 0, b"\0", V7))) == {"empty": b""}

    @pytest.mark.parametrize("width", [b"%06o\0 ", b"%07o\0", b"%6o\0 ", b"%07o ", b"\0%6o "])
    def test_checksums_as_they_are_written(self, width: bytes) -> None:
        block = bytearray(header(b"file", 3, b"\0", V7))
        block[148:156] = width % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
        assert contents(read(bytes(block) + padded(b"abc") + END)) == {"file": b"abc"}

    def test_noise_is_none(self) -> None:
        chosen = random.Random(1)
        for _ in range(300):
            digits = bytes(chosen.choices(b"01234567", k=2048))
            for data in (chosen.randbytes(2048), digits, bytes(chosen.choices(b"0123 \0", k=2048))):
                with pytest.raises(NotAnArchive):
                    read(data)

    @pytest.mark.parametrize(
        "block",
        [
            summed(bytes(512)),
            summed(b"\0name" + header(b"", 3, b"\0", V7)[5:]),
            summed(b"name".ljust(100, b"\0") + b"rw-r--r-" + bytes(404)),
            summed(b"name".ljust(512, b"\0")),
            summed(header(b"name", b"\xff" * 12, b"\0", V7)),
        ],
        ids=["nothing else", "no name", "a mode of letters", "no numbers", "a size below zero"],
    )
    def test_a_checksum_alone_makes_none(self, block: bytes) -> None:
        with pytest.raises(NotAnArchive):
            read(block + bytes(512) + b"x" * 512)

    def test_a_name_in_two_parts_needs_a_magic(self, tmp_path: Path) -> None:
        for magic, wanted in ((USTAR, "up/file"), (b"ustar\0\0\0", "up/file"), (GNU, "file"), (V7, "file")):
            block = bytearray(header(b"file", 3, b"0", magic))
            block[345:347] = b"up"
            data = summed(block) + padded(b"abc") + END
            assert contents(read(data)) == {wanted: b"abc"}
            folder = tmp_path / magic.hex()
            folder.mkdir()
            assert extracted("tar", data, folder / "out") == {wanted: b"abc"}


class TestBehindTheEndMark:
    def test_an_appended_archive_is_told_of(self, tmp_path: Path) -> None:
        first, second = file(b"a", b"first") + END, file(b"b", b"second") + END
        archive = read(first + bytes(8192) + second)
        assert contents(archive) == {"a": b"first"} == extracted("tar", first + bytes(8192) + second, tmp_path / "tar")
        [problem] = archive.problems
        assert "a member follows the end mark at byte 0x400" in problem.message
        assert problem.offset == len(first) + 8192

    def test_a_header_that_was_zeroed_costs_no_member_in_silence(self) -> None:
        whole = file(b"a", b"1" * 700) + file(b"b", b"2" * 9000) + file(b"c", b"3" * 700) + END
        damaged = bytearray(whole)
        at = len(file(b"a", b"1" * 700))
        damaged[at : at + 4096] = bytes(4096)
        archive = read(bytes(damaged))
        assert contents(archive) == {"a": b"1" * 700}
        assert [problem.offset for problem in archive.problems] == [whole.index(b"c\0\0\0")]

    @pytest.mark.parametrize("rest", [b"", bytes(100_000), b"no header", bytes(513) + b"\x01" * 512])
    def test_what_writers_leave_there_is_none(self, rest: bytes) -> None:
        archive = read(file(b"a", b"x") + END + rest)
        assert contents(archive) == {"a": b"x"}
        assert not archive.problems


class TestExtendedHeaders:
    def test_those_of_solaris(self, tmp_path: Path) -> None:
        data = pax(record("path", "long/name.txt"), kind=b"X") + file(b"short", b"abc")
        check_all(data + END, {"long/name.txt": b"abc"}, tmp_path)

    @pytest.mark.parametrize("size", ["999", "0999", "0" * 21 + "999", "0" * 5000 + "999"])
    def test_a_size_with_zeros_in_front(self, size: str, tmp_path: Path) -> None:
        data = pax(record("size", size)) + header(b"f", 0) + padded(b"z" * 999) + file(b"g", b"abc") + END
        wanted = {"f": b"z" * 999, "g": b"abc"}
        assert contents(read(data)) == wanted
        if len(size) < 4300:  # Python's longest number
            check_all(data, wanted, tmp_path)

    @pytest.mark.parametrize("size", ["9" * 19, "9" * 400, "-5", "0x10", "many", "\uff15", "1.0"])
    def test_a_size_that_makes_no_sense_is_told(self, size: str) -> None:
        archive = read(pax(record("size", size)) + file(b"f", b"abc") + END)
        list(archive)
        assert archive.problems
        if size != "9" * 19:  # which is no file's size, but a number that a file's size can have
            assert contents(archive) == {"f": b"abc"}
            assert [problem.structure for problem in archive.problems] == ["pax header"]

    @pytest.mark.parametrize("first", ["path", "size", "mtime"])
    def test_of_several_values_the_last_one_counts(self, first: str, tmp_path: Path) -> None:
        records = [record("path", "wrong"), record("size", "1"), record("mtime", "5")]
        records += [record("path", "right"), record("size", "600"), record("mtime", "1200000000.5")]
        data = pax(record(first, "7"), *records) + header(b"f", 0) + padded(b"z" * 600) + file(b"g", b"abc") + END
        check_all(data, {"right": b"z" * 600, "g": b"abc"}, tmp_path)
        assert read(data)["right"].timestamp == 1_200_000_000.5

    def test_an_empty_value_takes_back_an_earlier_one(self, tmp_path: Path) -> None:
        """Source: IEEE Std 1003.1-2017, pax, "pax Extended Header"."""
        everywhere = pax(record("path", "of all"), record("mtime", "5"), kind=b"g")
        data = everywhere + pax(record("path", ""), record("mtime", "")) + file(b"own", b"abc") + END
        archive = read(data)
        assert contents(archive) == {"own": b"abc"} == extracted("bsdtar", data, tmp_path / "out")
        assert archive["own"].timestamp == 0

    def test_owners_that_a_header_has_no_room_for(self) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("f")
            info.uid, info.gid = 3_000_000, 0xFFFFFFFE
            archive.addfile(info)
        [member] = read(made.getvalue()).members
        assert (member.owner, member.group) == (3_000_000, 0xFFFFFFFE)

    @pytest.mark.parametrize("size", [1 << 16, (1 << 16) + 1, 300_000])
    @pytest.mark.parametrize("what", ["attribute", "comment"])
    def test_large_ones(self, size: int, what: str, tmp_path: Path) -> None:
        key = {"attribute": "SCHILY.xattr.user.x", "comment": "comment"}[what]
        data = pax(record(key, b"\0\n=" * (size // 3)), record("path", "name")) + file(b"f", b"abc") + END
        check_all(data, {"name": b"abc"}, tmp_path, "tar")

    @pytest.mark.parametrize("kind", [b"x", b"X", b"L", b"K"])
    def test_too_large_a_one_costs_its_own_member(self, kind: bytes) -> None:
        large = file(b"PaxHeaders/x", b"a" * (_LARGEST_EXTRA + 1), kind)
        archive = read(file(b"a", b"1") + large + file(b"cut", b"2") + file(b"b", b"3") + END)
        assert contents(archive) == {"a": b"1", "b": b"3"}
        [problem] = archive.problems
        assert (problem.structure, problem.offset) == ("tar header", 1024)
        assert str(_LARGEST_EXTRA + 1) in problem.message

    @pytest.mark.parametrize(
        "damaged",
        [b"99 path=cut\n", b"x path=y\n", b"0 path=y\n", b"2 \n", b"9 path=ab", b"10 nothing\n", b" 11 path=y\n"],
    )
    def test_a_damaged_one_is_told(self, damaged: bytes) -> None:
        archive = read(pax(record("mtime", "7"), damaged) + file(b"f", b"abc") + END)
        assert contents(archive) == {"f": b"abc"}
        assert archive["f"].timestamp == 7
        [problem] = archive.problems
        assert (problem.structure, problem.offset) == ("pax header", 512 + len(record("mtime", "7")))

    @pytest.mark.parametrize("mtime", ["soon", "nan", "inf", "1e30", ""])
    def test_a_time_that_makes_no_sense_leaves_that_of_the_header(self, mtime: str) -> None:
        archive = read(pax(record("mtime", mtime)) + header(b"f", 0, modified=b"17") + END)
        assert archive["f"].timestamp == 0o17

    def test_a_time_before_1970(self) -> None:
        for format_number in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w", format=format_number) as archive:
                info = tarfile.TarInfo("f")
                info.mtime = -86_400
                archive.addfile(info)
            assert read(made.getvalue())["f"].timestamp == -86_400


class TestOtherTypes:
    @pytest.mark.parametrize("format_name", ["gnu", "oldgnu", "posix"])
    def test_a_dumpdir_is_a_directory(self, format_name: str, tmp_path: Path) -> None:
        (tmp_path / "tree/d/empty").mkdir(parents=True)
        (tmp_path / "tree/d/f").write_bytes(b"abc")
        (tmp_path / f"tree/{'long' * 20}").write_bytes(b"")
        path = tmp_path / "a.tar"
        run("tar", f"--format={format_name}", f"--listed-incremental={tmp_path}/snar", "-cf", path,
            "-C", tmp_path / "tree", ".")  # fmt: skip
        archive = read(path.read_bytes())
        assert contents(archive) == {"d/f": b"abc", "long" * 20: b""}
        assert directories(archive) == {"d", "d/empty"}
        assert archive.problems == ()
        listed = {line.removeprefix("./").rstrip("/") for line in run("tar", "-tf", path).splitlines()}
        assert listed - {""} == {member.path for member in archive.members}

    def test_a_dumpdir_whose_data_looks_like_a_header(self, tmp_path: Path) -> None:
        data = file(b"d/", file(b"inside", b"x"), b"D", GNU) + file(b"d/f", b"abc", magic=GNU) + END
        archive = read(data)
        assert contents(archive) == {"d/f": b"abc"} == extracted("tar", data, tmp_path / "out")
        assert directories(archive) == {"d"}

    def test_a_label_is_no_member(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"abc")
        for format_name in ("gnu", "posix"):
            run("tar", f"--format={format_name}", "-V", "A label", "-cf", tmp_path / "a.tar", "-C", tmp_path, "f")
            archive = read((tmp_path / "a.tar").read_bytes())
            assert [member.path for member in archive.members] == ["f"]
            assert archive.problems == ()

    def test_the_second_volume_begins_within_a_file(self, tmp_path: Path) -> None:
        for name in "ab":
            (tmp_path / name).write_bytes(name.encode() * 10_000)
        run("tar", "--format=gnu", "-M", "-L", "15", "-cf", tmp_path / "1", "-f", tmp_path / "2",
            "-C", tmp_path, "a", "b")  # fmt: skip
        first, second = (read((tmp_path / name).read_bytes()) for name in "12")
        assert list(first) == ["a", "b"]
        with pytest.raises(CorruptImage):
            first["b"].read_bytes()
        assert [problem.message for problem in first.problems] == ["it ends within a member"]
        assert list(second) == []
        assert ["another volume" in problem.message for problem in second.problems] == [True]

    def test_access_control_lists_of_solaris_are_no_members(self) -> None:
        data = file(b"f", b"1000007\0user::rwx", b"A") + file(b"f", b"abc") + END
        archive = read(data)
        assert contents(archive) == {"f": b"abc"}
        assert len(archive.members) == 1
        assert archive.problems == ()

    def test_names_that_were_shortened_are_told_of(self) -> None:
        archive = read(file(b"././@LongLink", b"Rename @1 to long\n", b"N", GNU) + file(b"@1", b"abc") + END)
        assert contents(archive) == {"@1": b"abc"}
        assert ["shortened" in problem.message for problem in archive.problems] == [True]

    def test_an_unknown_type_is_a_file_and_told_of(self, tmp_path: Path) -> None:
        data = file(b"f", b"abc", b"?") + file(b"g", b"1") + END
        archive = read(data)
        assert contents(archive) == {"f": b"abc", "g": b"1"} == extracted("tar", data, tmp_path / "out")
        assert ["unknown type" in problem.message for problem in archive.problems] == [True]


class TestHardLinks:
    def test_a_file_that_is_named_twice(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"hello")
        for format_name in ("gnu", "posix", "v7", "ustar"):
            run("tar", f"--format={format_name}", "-cf", tmp_path / "x.tar", "-C", tmp_path, "a", "./a", "a")
            data = (tmp_path / "x.tar").read_bytes()
            archive = read(data)
            assert contents(archive) == {"a": b"hello"}
            assert archive.problems == ()
            assert archive["a"].extents
            assert [member.kind for member in archive.members] == ["file", "hardlink", "hardlink"]

    def test_to_a_symbolic_link(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/one").symlink_to("nowhere")
        os.link(tmp_path / "tree/one", tmp_path / "tree/two", follow_symlinks=False)
        run("tar", "-cf", tmp_path / "x.tar", "-C", tmp_path / "tree", "one", "two")
        archive = read((tmp_path / "x.tar").read_bytes())
        assert [member.kind for member in archive.members] == ["symlink", "hardlink"]
        assert archive.links == {"one": "nowhere", "two": "nowhere"}
        assert archive.problems == ()

    @pytest.mark.parametrize("data", [b"first", b""])
    def test_what_comes_later_at_its_target_is_not_its_own(self, data: bytes, tmp_path: Path) -> None:
        members = file(b"a", data) + header(b"b", 0, b"1", target=b"a") + header(b"c", 0, b"1", target=b"b")
        whole = members + file(b"a", b"second") + END
        check_all(whole, {"a": b"second", "b": data, "c": data}, tmp_path)
        (tmp_path / "own").mkdir()
        kept = read(b"".join(build_module(tmp_path / "own", "oem.tgz", base=read(whole))))
        assert contents(kept) == {"a": b"second", "b": data, "c": data}

    def test_of_a_module_whose_target_is_replaced(self, tmp_path: Path) -> None:
        base = read(file(b"a", b"of the module") + header(b"b", 0, b"1", target=b"a") + END)
        (tmp_path / "a").write_bytes(b"own")
        kept = read(b"".join(build_module(tmp_path, "oem.tgz", base=base)))
        assert contents(kept) == {"a": b"own", "b": b"of the module"}

    def test_to_a_sparse_file_that_is_replaced(self) -> None:
        sparse = record("GNU.sparse.size", "1000") + record("GNU.sparse.map", "500,3")
        members = pax(sparse) + file(b"a", b"abc") + header(b"b", 0, b"1", target=b"a") + file(b"a", b"second")
        found = contents(read(members + END))
        assert found == {"a": b"second", "b": bytes(500) + b"abc" + bytes(497)}

    def test_to_what_comes_later_is_told(self) -> None:
        """Others refuse it: when they come to the link there is nothing to link to."""
        data = header(b"b", 0, b"1", target=b"a") + file(b"a", b"later") + END
        archive = read(data)
        assert contents(archive) == {"b": b"later", "a": b"later"}
        assert ["behind it" in problem.message for problem in archive.problems] == [True]
        with pytest.raises(KeyError):
            by_tarfile(data)

    def test_to_a_directory_is_told(self) -> None:
        archive = read(header(b"d/", 0, b"5") + header(b"b", 0, b"1", target=b"d") + END)
        assert list(archive) == []
        assert ["leads to a directory" in problem.message for problem in archive.problems] == [True]


def sparse_file(path: Path) -> bytes:
    with path.open("wb") as made:
        for number in range(40):
            made.seek(number * 100_000)
            made.write(b"%03d" % number * 1000)
        made.truncate(5_000_000)
    return path.read_bytes()


SPARSE_WRITERS = {
    "gnu": ("tar", "--format=gnu", "-S"),
    "oldgnu": ("tar", "--format=oldgnu", "-S"),
    "0.0": ("tar", "--format=posix", "--sparse-version=0.0", "-S"),
    "0.1": ("tar", "--format=posix", "--sparse-version=0.1", "-S"),
    "1.0": ("tar", "--format=posix", "--sparse-version=1.0", "-S"),
    "bsdtar": ("bsdtar", "--format=pax", "--read-sparse"),
}


class TestSparseFiles:
    @pytest.mark.parametrize("writer", SPARSE_WRITERS)
    def test_what_was_written(self, writer: str, tmp_path: Path) -> None:
        data = sparse_file(tmp_path / "disk")
        (tmp_path / "holes").write_bytes(b"")
        os.truncate(tmp_path / "holes", 3_000_000)
        (tmp_path / "after").write_bytes(b"after it")
        names = ["disk", "holes", "after"]
        run(*SPARSE_WRITERS[writer], "-cf", tmp_path / "a.tar", "-C", tmp_path, *names)
        packed = (tmp_path / "a.tar").read_bytes()
        assert len(packed) < 400_000
        archive = read(packed)
        assert archive.problems == ()
        assert list(archive) == names
        assert archive["after"].read_bytes() == b"after it"
        assert archive["holes"].read_bytes() == bytes(3_000_000)
        disk = archive["disk"]
        assert (disk.size, disk.read_bytes()) == (len(data), data)
        assert disk.skip_zeros(4_500_000, 5_000_000) == 5_000_000
        assert not any(data[4096 * 3 : disk.skip_zeros(4096 * 3, 5_000_000)])
        chosen = random.Random(2)
        for _ in range(200):
            at = chosen.randrange(len(data))
            length = min(chosen.randrange(20_000), len(data) - at)
            assert disk.read_at(at, length) == data[at : at + length]
            data_or_end = disk.skip_zeros(at, at + length)
            assert at <= data_or_end <= at + length
            assert not any(data[at:data_or_end])
        with pytest.raises(TruncatedImage):
            disk.read_at(4_999_999, 2)
        assert pickle.loads(pickle.dumps(disk)).read_at(0, 9) == data[:9]

    def test_holes_are_not_read(self, tmp_path: Path) -> None:
        data = sparse_file(tmp_path / "disk")
        run("tar", "--format=posix", "-S", "-cf", tmp_path / "a.tar", "-C", tmp_path, "disk")
        source = Counting(BytesSource((tmp_path / "a.tar").read_bytes()))
        disk = open_archive(source)["disk"]
        assert sum(length for _, length in source.reads) < 80_000
        before = len(source.reads)
        assert disk.read_at(20_000, 60_000) == bytes(60_000)
        assert len(source.reads) == before
        assert disk.read_at(300_000, 10) == data[300_000:300_010]
        assert source.reads[before:] == [(source.reads[-1][0], 10)]

    def test_extraction_keeps_holes(self, tmp_path: Path) -> None:
        size = 50 << 20
        table = [(0, 3), (20 << 20, 3), (size, 0)]
        read(sparse_archive("1.0", table, b"abcdef", size) + END).extract(tmp_path)
        assert (tmp_path / "name").read_bytes() == b"abc".ljust(20 << 20, b"\0") + b"def".ljust(30 << 20, b"\0")
        assert (tmp_path / "name").stat().st_blocks * 512 < 4 << 20

    @settings(max_examples=60, deadline=None)
    @given(
        pieces=st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=900)), max_size=60),
        after=st.integers(0, 3000),
        version=st.sampled_from(["0.0", "0.1", "1.0"]),
    )
    def test_as_the_standard_library_reads_them(
        self, pieces: list[tuple[int, bytes]], after: int, version: str
    ) -> None:
        table, stored, whole = [], b"", b""
        for gap, content in pieces:
            whole += bytes(gap)
            table.append((len(whole), len(content)))
            whole, stored = whole + content, stored + content
        whole += bytes(after)
        table.append((len(whole), 0))
        data = sparse_archive(version, table, stored, len(whole)) + file(b"after", b"abc") + END
        archive = read(data)
        assert contents(archive) == {"name": whole, "after": b"abc"}
        assert archive.problems == ()
        if version != "0.0":  # of which the standard library gives the name in the header
            assert by_tarfile(data) == {"name": whole, "after": b"abc"}

    @pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
    @pytest.mark.parametrize(
        ("table", "size"),
        [
            ([(100, 10), (50, 10)], 1000),
            ([(0, 10), (9, 10)], 1000),
            ([(0, 20)], 19),
            ([(990, 20)], 1000),
            ([(0, 21)], 1000),
            ([(0, 19)], 1000),
            ([(0, 19), ((1 << 64) - 1, 1)], (1 << 63) - 1),
            ([(10**25, 20)], 1000),
        ],
        ids=[
            "backwards",
            "overlapping",
            "longer",
            "past the end",
            "more than stored",
            "less than stored",
            "2^64",
            "not a number",
        ],
    )
    def test_tables_that_make_no_sense_cost_their_file(
        self, version: str, table: list[tuple[int, int]], size: int
    ) -> None:
        data = sparse_archive(version, table, b"0123456789" * 2, size) + file(b"after", b"abc") + END
        archive = read(data)
        assert contents(archive) == {"after": b"abc"}
        assert ["sparse file" in problem.message for problem in archive.problems] == [True]

    def test_headers_that_disagree_cost_their_file(self) -> None:
        for records in (
            record("GNU.sparse.map", "0,3"),
            record("GNU.sparse.size", "9") + record("GNU.sparse.map", "0,3,5"),
            record("GNU.sparse.size", "9") + record("GNU.sparse.numblocks", "2") + record("GNU.sparse.map", "0,3"),
            record("GNU.sparse.size", "9") + record("GNU.sparse.numbytes", "3"),
            record("GNU.sparse.size", "9") + record("GNU.sparse.offset", "3"),
            record("GNU.sparse.major", "2") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", "9"),
            record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", "9"),
            record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", "x"),
        ):
            archive = read(pax(records) + file(b"name", b"abc") + file(b"after", b"1") + END)
            assert contents(archive) == {"after": b"1"}
            assert archive.problems

    def test_tables_are_bounded_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vmvisor_image.archives.tar.MOST_ENTRIES", 7)
        table = [(0, 1), (10, 1), (20, 1)]
        made = b"".join(sparse_archive(version, table, b"abc", 30) for version in ("0.0", "0.1", "1.0"))
        archive = read(made + file(b"after", b"1") + END)
        assert len(archive.members) == 3
        assert [str(tar_sparse.MOST_ENTRIES) in problem.message for problem in archive.problems] == [True]

    def test_more_than_8_gb(self) -> None:
        """The sizes lie in the pax header only."""
        size = 20 << 30
        table = [(0, 1), (size - 1, 1), (size, 0)]
        archive = read(sparse_archive("1.0", table, b"ab", size) + END)
        disk = archive["name"]
        assert disk.size == size
        assert disk.read_at(size - 3, 3) == b"\0\0b"
        assert disk.skip_zeros(1, size) == size - 1


def sparse_archive(version: str, table: list[tuple[int, int]], stored: bytes, size: int) -> bytes:
    """The member ``name`` as GNU tar writes it in a version of its pax format."""
    numbers = [str(number) for piece in table for number in piece]
    if version == "1.0":
        records = [record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.name", "name")]
        inside = "".join(f"{number}\n" for number in (len(table), *numbers)).encode()
        return pax(*records, record("GNU.sparse.realsize", str(size))) + file(b"x", padded(inside) + stored)
    records = [record("GNU.sparse.size", str(size)), record("GNU.sparse.numblocks", str(len(table)))]
    if version == "0.1":
        records += [record("GNU.sparse.name", "name"), record("GNU.sparse.map", ",".join(numbers))]
        return pax(*records) + file(b"x", stored)
    for offset, length in table:
        records += [record("GNU.sparse.offset", str(offset)), record("GNU.sparse.numbytes", str(length))]
    return pax(*records) + file(b"name", stored)


class TestVmtarHeaders:
    FILES: Mapping[str, bytes] = {"a": b"1" * 700, "b": b"2" * 700, "c": b"3" * 700}

    @pytest.mark.parametrize("inline", [False, True], ids=["pages", "inline"])
    @pytest.mark.parametrize("at", [20, 150, 257], ids=["name", "checksum", "magic"])
    def test_a_damaged_one_costs_its_own_file(self, at: int, inline: bool) -> None:
        data = bytearray(vmtar_archive(self.FILES, inline=inline))
        place = 512 * 3 if inline else 512
        data[place + at] ^= 0x40
        archive = read(bytes(data))
        assert contents(archive) == {"a": b"1" * 700, "c": b"3" * 700}
        assert [(problem.structure, problem.offset) for problem in archive.problems] == [("tar header", place)]

    def test_data_right_behind_the_headers(self) -> None:
        data = bytearray(vmtar_archive(dict.fromkeys("abcdefg", b"x")))
        assert not any(data[7 * 512 : 4096])
        data[7 * 512 : 8 * 512] = data[6 * 512 : 7 * 512]
        data[7 * 512] = ord("h")
        data[7 * 512 : 8 * 512] = summed(data[7 * 512 : 8 * 512])
        archive = read(bytes(data))
        assert list(archive) == list("abcdefgh")
        assert archive.problems == ()


def test_a_tar_in_memory_of_many_members() -> None:
    files = {f"{number:05}": b"" for number in range(2000)}
    assert contents(read(tar_archive(files))) == files


NAMES = (b"a", b"b", b"c", b"d/x", b"d/y", b"./a", b"e/f/g")


def some_member(chosen: random.Random, letter: bytes) -> bytes:
    """One member of any kind, with the headers before it, as other writers make them."""
    name, target = chosen.choice(NAMES), chosen.choice(NAMES)
    data = letter * chosen.choice([0, 1, 511, 512, 513, 2000])
    sized = [record("size", "0" * chosen.randrange(5) + str(len(data)))] if chosen.random() < 0.5 else []
    named = [record("path", chosen.choice([name.decode(), "long/" + name.decode()])), record("comment", "x" * 700)]
    piece, hole = data or b"z", chosen.randrange(50)
    table = [(100, len(piece)), (100 + len(piece) + hole, 0)]
    return chosen.choice(
        [
            file(name, data),
            file(name, data, b"\0", V7),
            file(name, data, b"0", GNU),
            pax(*sized, *named) + header(name, chosen.choice([0, len(data)]) if sized else len(data)) + padded(data),
            pax(*named, kind=b"X") + file(name, data),
            header(name, 0, b"1", target=target),
            header(name, 0, b"2", target=target),
            header(name + b"d/", 0, b"5"),
            header(name + b"s/", 0, b"0"),
            file(name + b"D/", b"Yf\0\0", b"D", GNU),
            sparse_archive(chosen.choice(["0.0", "0.1", "1.0"]), table, piece, 100 + len(piece) + hole),
            file(b"././@LongLink", b"lo" + name + b"\0", b"L", GNU) + file(name, data, b"0", GNU),
            file(name, data) + header(name, 0, b"1", target=name),
            pax(record("comment", "all"), kind=b"g"),
        ]
    )


@pytest.mark.parametrize("seed", range(6))
def test_random_archives_are_what_gnu_tar_makes_of_them(seed: int, tmp_path: Path) -> None:
    chosen = random.Random(seed)
    for number in range(40):
        letters = b"ABCDEF"[: chosen.randrange(1, 7)]
        data = b"".join(some_member(chosen, bytes((letter,))) for letter in letters) + END
        folder, path = tmp_path / str(number), tmp_path / f"{number}.tar"
        folder.mkdir()
        path.write_bytes(data)
        done = subprocess.run(
            [require_tool("tar"), "-xf", str(path), "-C", str(folder)], capture_output=True, text=True, check=False
        )
        below = sorted(folder.rglob("*"))
        archive = read(data)
        files, links = contents(archive), dict(archive.links)
        if archive.problems:
            assert done.returncode, (seed, number, archive.problems)
            continue  # else the same, also where GNU tar complains of what a later member has replaced
        links_there = {
            each.relative_to(folder).as_posix(): os.readlink(each)  # noqa: PTH115  # as it is written
            for each in below
            if each.is_symlink()
        }
        assert links == links_there, (seed, number)
        there = [each for each in below if each.is_file() and not each.is_symlink()]
        assert files == {each.relative_to(folder).as_posix(): each.read_bytes() for each in there}, (seed, number)
