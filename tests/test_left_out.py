"""What is left out of archives and containers is told of, with its number."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.media import PLAIN, iso, small_disk, write_tree
from tests.support import run
from vmvisor_image import Archive, CorruptImage, Image, Limits, NoDiskImage, Problem, SeveralImages, open_archive
from vmvisor_image.archives import iso9660
from vmvisor_image.base.limits import Meter
from vmvisor_image.errors import ProblemList
from vmvisor_image.layers.vmdk import parse_descriptor
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_modules import tar_archive

_SMALL = small_disk({"oem.tgz": b"of a container"})
DISK = _SMALL.read_at(0, _SMALL.size)


def read(data: bytes) -> Archive:
    return open_archive(BytesSource(data))


def problems_of(archive: Archive) -> tuple[Problem, ...]:
    """All of them: its headers are read when a file is asked for."""
    list(archive)
    return archive.problems


def damaged(files: Mapping[str, bytes]) -> bytes:
    """A tar whose first header is whole and whose second is damaged."""
    data = bytearray(tar_archive({"first": b"", **files, "last": b""}))
    data[512 + 20] ^= 1
    return bytes(data)


def nested(data: bytes, times: int) -> bytes:
    for _ in range(times):
        data = tar_archive({"inner.tar": data, "readme": b""})
    return data


class TestContainers:
    @pytest.mark.parametrize("count", [8, 9, 30])
    def test_archives_after_the_eighth(self, count: int) -> None:
        inner = {f"{number:02}.tar": tar_archive({"a": b"", "b": b""}) for number in range(count)}
        whole = tar_archive(inner | {"00.tar": tar_archive({"disk.dd": DISK})})
        with Image.open(whole) as image:
            assert image.read_at(0, image.size) == DISK
            told = [problem.message for problem in image.problems if problem.structure == "container"]
        wanted = [f"archives after the first 8 are not opened: {count - 8}"] if count > 8 else []
        assert told == wanted
        with pytest.raises(NoDiskImage) as caught:
            Image.open(tar_archive(inner))
        assert ("after the first 8 are not opened" in str(caught.value)) == (count > 8)

    def test_the_ninth_can_be_named(self) -> None:
        inner = {f"{number:02}.tar": tar_archive({"a": b"", "b": b""}) for number in range(9)}
        whole = tar_archive(inner | {"09.tar": tar_archive({"disk.dd": DISK})})
        with pytest.raises(NoDiskImage, match=r"first 8 are not opened: 2"):
            Image.open(whole)
        with Image.open(whole, member="09.tar/disk.dd") as image:
            assert image.read_at(0, image.size) == DISK

    def test_too_deep(self) -> None:
        disk = tar_archive({"disk.dd": DISK, "readme": b""})
        with Image.open(nested(disk, 3)) as image:
            assert image.read_at(0, image.size) == DISK
            assert image.problems == ()
        whole = nested(disk, 4)
        with pytest.raises(NoDiskImage, match="more than 3 deep in each other are not opened: 1"):
            Image.open(whole)
        with Image.open(whole, member="inner.tar/inner.tar/inner.tar/inner.tar/disk.dd") as image:
            assert image.read_at(0, image.size) == DISK

    def test_problems_of_archives_in_each_other_are_passed_on(self) -> None:
        lost = damaged({"hurt": b""})
        for whole in (
            tar_archive({"a.tar": lost, "b.tar": tar_archive({"disk.dd": DISK})}),
            tar_archive({"a.tar": tar_archive({"a.tar": lost}), "b.tar": tar_archive({"disk.dd": DISK})}),
        ):
            with Image.open(whole) as image:
                assert image.read_at(0, image.size) == DISK
                [problem] = image.problems
            assert (problem.structure, problem.offset) == ("tar header", 512)
            assert problem.message.startswith("in 'a.tar': ")
        with pytest.raises(NoDiskImage, match=r"in 'a\.tar': in 'a\.tar': its checksum"):
            Image.open(tar_archive({"a.tar": tar_archive({"a.tar": lost, "x": b""}), "y": b""}))

    def test_problems_of_one_on_the_way_are_told_once(self) -> None:
        with Image.open(tar_archive({"a.tar": damaged({"hurt": b"", "disk.dd": DISK})})) as image:
            assert image.read_at(0, image.size) == DISK
            assert [problem.offset for problem in image.problems] == [512]

    def test_an_archive_whose_compression_is_damaged(self) -> None:
        packed = bytearray(gzip.compress(tar_archive({"a": b"", "b": b""})))
        packed[-6] ^= 1
        with Image.open(tar_archive({"a.tgz": bytes(packed), "b.tar": tar_archive({"disk.dd": DISK})})) as image:
            assert image.read_at(0, image.size) == DISK
            assert any(problem.structure == "gzip member" for problem in image.problems)

    def test_several_disks_and_what_was_not_looked_at(self) -> None:
        inner = {f"{number:02}.tar": tar_archive({f"{number}.dd": DISK}) for number in range(10)}
        with pytest.raises(SeveralImages, match=r"first 8 are not opened: 2"):
            Image.open(tar_archive(inner))

    def test_an_error_tells_how_many_more_problems_there_are(self) -> None:
        with pytest.raises(NoDiskImage, match="and 6 more problems"):
            Image.open(tar_archive({f"{number}.tar": b"none" for number in range(8)} | {"x": b"", "9.tar": b"none"}))


class TestProblems:
    @pytest.mark.parametrize("count", [1000, 1001, 1002, 2500])
    def test_of_a_tar(self, count: int) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for number in range(count):
                link = tarfile.TarInfo(f"{number}")
                link.type, link.linkname = tarfile.LNKTYPE, "nowhere"
                archive.addfile(link)
        problems = problems_of(read(made.getvalue()))
        assert len(problems) == min(count, 1002)
        if count > 1001:
            assert problems[-1] == Problem("archive", f"{count - 1001} more problems are left out")

    def test_of_a_zip(self) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for number in range(1500):
                archive.writestr(f"{number:04}", b"")
        data = made.getvalue().replace(b"PK\3\4", b"PK\3\5")
        problems = problems_of(read(b"PK\3\4" + data[4:]))
        assert problems[-1] == Problem("archive", "498 more problems are left out")
        assert len(problems) == 1002

    def test_of_a_cd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(iso9660, "MOST_PROBLEMS", 5)
        write_tree(tmp_path / "cd", {f"{number:02}/file": b"" for number in range(20)})
        data = bytearray(iso(tmp_path / "cd", tmp_path / "a.iso", PLAIN).read_bytes())
        root = int.from_bytes(data[16 * 2048 + 158 : 16 * 2048 + 162], "little")
        at = root * 2048
        while size := data[at]:
            data[at + 2 : at + 6] = root.to_bytes(4, "little")  # each directory is the root again
            at += size
        problems = problems_of(read(bytes(data)))
        assert [problem for problem in problems if "more problems" in problem.message] == [
            Problem("ISO 9660 volume", "15 more problems are left out")
        ]
        with Image.open(bytes(data)) as image:
            for _ in range(3):  # listed again, they are still the same
                list(image.partitions[1].files)
            assert Problem("ISO 9660 volume", "15 more problems are left out") in image.problems

    def test_of_a_virtual_disk(self) -> None:
        problems = ProblemList("qcow2 disk")
        for number in range(1500):
            problems.note("qcow2 L2 table", "an entry", number)
        disk = MappedDisk("qcow2", BytesSource(b""), 0, lambda *_: Run(1), problems)
        assert len(disk.problems) == 1001
        assert disk.problems[-1] == Problem("qcow2 disk", "500 more problems are left out")

    def test_of_a_vmdk_descriptor(self) -> None:
        lines = "".join(f"line {number}\n" for number in range(150))
        found = parse_descriptor(f"# Disk DescriptorFile\nversion=1\n{lines}".encode()).problems
        assert len(found) == 101
        assert re.fullmatch(r"VMDK descriptor: 5[0-9] more problems are left out", str(found[-1]))

    def test_what_ends_the_list_is_never_left_out(self) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for number in range(1500):
                member = tarfile.TarInfo(f"{number}")
                member.type = b"?"
                archive.addfile(member)

        class Broken(BytesSource):
            def read_at(self, offset: int, length: int) -> bytes:
                if offset + length > 1490 * 512:
                    raise CorruptImage("damaged", structure="the source", offset=offset)
                return super().read_at(offset, length)

        problems = problems_of(open_archive(Broken(made.getvalue())))
        assert [problem.structure for problem in problems[-3:]] == ["tar header", "archive", "the source"]
        assert problems[-2].message == "489 more problems are left out"


class TestMembers:
    @pytest.mark.parametrize("most", [1, 9, 10, 11])
    def test_past_a_limit(self, most: int) -> None:
        class Metered(BytesSource):
            meter = Meter(Limits(entries=most))

        archive = open_archive(Metered(tar_archive({f"{number}": b"" for number in range(10)})))
        assert len(archive.members) == min(most, 10)
        wanted = [f"{10 - most} members after the first {most} are left out"] if most < 10 else []
        assert [problem.message for problem in archive.problems] == wanted

    def test_more_than_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vmvisor_image.archives.archive.MOST_MEMBERS", 3)
        monkeypatch.setattr("vmvisor_image.archives.archive._MOST_COUNTED", 4)
        archive = read(tar_archive({f"{number}": b"" for number in range(20)}))
        assert list(archive) == ["0", "1", "2"]
        assert [problem.message for problem in archive.problems] == ["4 or more members after the first 3 are left out"]

    def test_of_a_cd_with_problems(self, tmp_path: Path) -> None:
        """They are told of, though not all of it is read."""
        write_tree(tmp_path / "cd", {f"{number:02}/file": b"" for number in range(20)})
        data = bytearray(iso(tmp_path / "cd", tmp_path / "a.iso", PLAIN).read_bytes())
        root = int.from_bytes(data[16 * 2048 + 158 : 16 * 2048 + 162], "little")
        at = root * 2048 + data[root * 2048]
        at += data[at]
        data[at + 2 : at + 6] = root.to_bytes(4, "little")

        class Metered(BytesSource):
            meter = Meter(Limits(entries=25))

        archive = open_archive(Metered(bytes(data)))
        list(archive)
        assert any("again and is left out" in problem.message for problem in archive.problems)
        assert any(re.match(r"[0-9]+ members after the first 25 ", problem.message) for problem in archive.problems)


class TestAr:
    def test_many_long_names(self, tmp_path: Path) -> None:
        names = [f"{'long' * 20}{number}" for number in range(1200)]
        for name in names:
            (tmp_path / name).write_bytes(name.encode())
        run("ar", "rcS", tmp_path / "a.a", *(tmp_path / name for name in names))
        archive = read((tmp_path / "a.a").read_bytes())
        assert {file.path: file.read_bytes() for file in archive.values()} == {name: name.encode() for name in names}
        assert archive.problems == ()

    def test_a_name_that_is_not_there(self) -> None:
        def member(name: str, data: bytes) -> bytes:
            return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data

        data = (
            b"!<arch>\n" + member("//", b"long/\n") + member("/0", b"ab") + member("/999", b"cd") + member("x/", b"ef")
        )
        archive = read(data)
        assert list(archive) == ["long", "x"]
        assert ["no name" in problem.message for problem in archive.problems] == [True]

    def test_the_end_is_cut_off(self) -> None:
        whole = b"!<arch>\n" + f"{'x/':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{101:<10}`\n".encode() + bytes(101)
        assert problems_of(read(whole)) == ()  # without the byte that makes it even
        archive = read(whole[:-1])
        assert list(archive) == ["x"]
        assert archive.problems == (Problem("ar archive", "it ends within a member", len(whole) - 1),)
