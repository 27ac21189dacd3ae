"""Archives that other people's tools made, read by us: tar in all its formats, vmtar, zip, ar, ISO 9660."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media import BOTH, JOLIET, PLAIN, ROCK_RIDGE, iso, write_tree
from tests.support import Counting, run
from vmvisor_image import Archive, CorruptImage, Image, NotAnArchive, PathNotFound, Problem, UnsafeName, open_archive
from vmvisor_image.archives import iso9660
from vmvisor_image.base import limits
from vmvisor_image.compressions.sequential import PIECE
from vmvisor_image.faces.cli import main
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_modules import tar_archive, vmtar_archive

LONG = "a-folder-with-a-long-name/" * 6 + "and-a-file-with-a-name-that-is-longer-than-what-a-header-has-room-for" * 2
FILES = {
    "empty": b"",
    "etc/vmware/esx.conf": b"/system/uuid = \"x\"\n",
    "bin/busybox": random.Random(1).randbytes(100_000),
    "etc/one": b"1" * 512,
    "with spaces/and ünïcode": b"x",
    LONG: b"long",
}  # fmt: skip
SHORT_FILES = {path: data for path, data in FILES.items() if path != LONG}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder, FILES)
    (folder / "bin/ls").symlink_to("busybox")
    (folder / "bin/hard").hardlink_to(folder / "bin/busybox")
    (folder / "empty-folder").mkdir()
    (folder / "bin/busybox").chmod(0o4755)
    for path in sorted(folder.rglob("*")):
        os.utime(path, (1_200_000_001, 1_200_000_001), follow_symlinks=False)
    return folder


def contents(archive: Archive) -> dict[str, bytes]:
    return {file.path: file.read_bytes() for file in archive.values()}


def expected(tree: Path) -> dict[str, bytes]:
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class TestTar:
    @pytest.mark.parametrize("kind", ["gnu", "oldgnu", "pax", "ustar", "v7"])
    @pytest.mark.parametrize("way", [".", "*"])
    def test_what_tar_wrote(self, kind: str, way: str, tree: Path, tmp_path: Path) -> None:
        names = sorted(path.name for path in tree.iterdir()) if way == "*" else ["."]
        if kind in ("ustar", "v7"):
            names = ["bin", "etc", "empty", "empty-folder"]
        run("tar", f"--format={kind}", "--sort=name", "-cf", tmp_path / "a.tar", "-C", tree, *names)
        data = (tmp_path / "a.tar").read_bytes()
        archive = open_archive(BytesSource(data))
        wanted = expected(tree)
        if kind in ("ustar", "v7"):
            wanted = {path: content for path, content in wanted.items() if path.split("/")[0] in names}
        assert contents(archive) == wanted
        assert archive.links == {"bin/ls": "busybox"}
        assert archive.problems == ()
        assert {member.path for member in archive.members if member.kind == "directory"} >= {"bin", "empty-folder"}
        busybox = next(member for member in archive.members if member.path == "bin/busybox")
        assert busybox.kind == "file" or archive.members[0].kind == "directory"
        with tarfile.open(tmp_path / "a.tar") as theirs:
            for ours, info in zip(archive.members, [i for i in theirs if i.name != "."], strict=True):
                assert ours.path == info.name.removeprefix("./")
                assert (ours.mode, ours.owner, ours.group) == (info.mode, info.uid, info.gid)
                assert ours.modified is not None
                assert int(ours.modified.timestamp()) == 1_200_000_001

    @pytest.mark.parametrize("kind", ["gnu", "pax"])
    def test_sparse_files(self, kind: str, tmp_path: Path) -> None:
        with (tmp_path / "disk").open("wb") as made:
            for n in range(40):
                made.seek(n * 100_000)
                made.write(b"%03d" % n * 1000)
            made.truncate(5_000_000)
        (tmp_path / "after").write_bytes(b"after it")
        run("tar", f"--format={kind}", "-S", "-cf", tmp_path / "a.tar", "-C", tmp_path, "disk", "after")
        archive = open_archive(BytesSource((tmp_path / "a.tar").read_bytes()))
        assert archive["after"].read_bytes() == b"after it"
        file = archive["disk"]
        data = (tmp_path / "disk").read_bytes()
        assert (file.size, file.read_bytes()) == (5_000_000, data)
        assert file.read_at(99_990, 40) == data[99_990:100_030]
        assert file.skip_zeros(4_500_000, 5_000_000) == 5_000_000
        assert not any(data[4096 * 3 : file.skip_zeros(4096 * 3, 5_000_000)])

    def test_times_and_extraction(self, tree: Path, tmp_path: Path) -> None:
        run("tar", "-czf", tmp_path / "a.tgz", "-C", tree, "etc", "bin")
        archive = open_archive(BytesSource((tmp_path / "a.tgz").read_bytes()))
        assert archive.layers == ("gzip",)
        assert archive["etc/one"].timestamp == 1_200_000_001
        archive.extract(tmp_path / "out")
        assert (tmp_path / "out/etc/one").stat().st_mtime == 1_200_000_001
        assert (tmp_path / "out/bin/hard").read_bytes() == FILES["bin/busybox"]

    def test_of_two_with_one_name_the_later_counts(self, tmp_path: Path) -> None:
        for text in ("first", "second"):
            (tmp_path / "a").write_text(text)
            run("tar", "-rf", tmp_path / "a.tar", "-C", tmp_path, "a")
        archive = open_archive(BytesSource((tmp_path / "a.tar").read_bytes()))
        assert contents(archive) == {"a": b"second"}
        assert len(archive.members) == 2

    def test_a_damaged_header_costs_its_own_file(self) -> None:
        data = bytearray(tar_archive({"a": b"1" * 700, "b": b"2" * 700, "c": b"3" * 700}))
        data[512 * 3 + 20] ^= 1
        archive = open_archive(BytesSource(data))
        assert contents(archive) == {"a": b"1" * 700, "c": b"3" * 700}
        [problem] = archive.problems
        assert problem.offset == 512 * 3

    def test_cut_off(self) -> None:
        data = tar_archive({"a": b"1" * 700, "b": b"2" * 700})
        archive = open_archive(BytesSource(data[:2300]))
        assert list(archive) == ["a", "b"]
        assert archive["a"].read_bytes() == b"1" * 700
        with pytest.raises(CorruptImage):
            archive["b"].read_bytes()
        assert archive.problems == (Problem("tar archive", "it ends within a member", 2300),)

    def test_names_that_lead_elsewhere_are_shown_and_not_written(self, tmp_path: Path) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name in ("../up", "/absolute", "fine", "a/../../b"):
                archive.addfile(tarfile.TarInfo(name))
        ours = open_archive(BytesSource(made.getvalue()))
        assert sorted(ours) == ["../up", "a/../../b", "absolute", "fine"]
        with pytest.raises(UnsafeName):
            ours.extract(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_an_empty_one(self) -> None:
        assert list(open_archive(BytesSource(gzip.compress(bytes(10240))))) == []

    def test_links_in_a_circle(self) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name, target in (("a", "b"), ("b", "a"), ("c", "nowhere")):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.LNKTYPE, target
                archive.addfile(info)
        assert list(open_archive(BytesSource(made.getvalue()))) == []

    def test_sizes_that_make_no_sense(self) -> None:
        for raw in (b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 11 + b"\0", b"99999999999\0"):
            block = bytearray(tar_archive({"a": b""})[:512])
            block[124:136] = raw
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            archive = open_archive(BytesSource(bytes(block) + bytes(1024)))
            assert archive.problems == () or archive.problems[0].offset is not None
            list(archive)
            assert archive.problems


@pytest.mark.parametrize("inline", [False, True], ids=["pages", "inline"])
class TestVmtar:
    def test_everything(self, inline: bool) -> None:
        data = vmtar_archive(SHORT_FILES, links={"bin/ls": "busybox"}, inline=inline)
        archive = open_archive(BytesSource(data))
        assert archive.kind == "vmtar"
        assert contents(archive) == SHORT_FILES
        assert archive.links == {"bin/ls": "busybox"}
        assert archive.problems == ()

    def test_where_the_data_lies(self, inline: bool) -> None:
        archive = open_archive(BytesSource(vmtar_archive(SHORT_FILES, inline=inline)))
        places = [file.extents[0].offset for file in archive.values() if file.size]
        assert all(place % (512 if inline else 4096) == 0 for place in places)

    def test_by_the_magic_alone_it_is_a_tar(self, inline: bool) -> None:
        """The inline variant is a tar but for the magic, so the standard library reads it when that is put back."""
        if not inline:
            return
        data = vmtar_archive(SHORT_FILES, inline=True).replace(b"visor  \0", b"ustar  \0")
        fixed = bytearray(data)
        with tarfile.open(fileobj=io.BytesIO(_with_checksums(fixed))) as theirs:
            found = {i.name: theirs.extractfile(i).read() for i in theirs if i.isfile()}  # type: ignore[union-attr]
        assert found == SHORT_FILES

    def test_long_names(self, inline: bool) -> None:
        path = "usr/lib/vmware/" + "deep/" * 20 + "file"
        assert contents(open_archive(BytesSource(vmtar_archive({path: b"x"}, inline=inline)))) == {path: b"x"}


def _with_checksums(data: bytearray) -> bytes:
    for at in range(0, len(data), 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


@given(
    files=st.dictionaries(
        st.text("abcxyz.", min_size=1, max_size=20).filter(lambda name: name.strip(".")), st.binary(max_size=2000)
    ),
    inline=st.booleans(),
)
def test_what_was_forged_is_read(files: Mapping[str, bytes], inline: bool) -> None:
    for data in (tar_archive(files), vmtar_archive(files, inline=inline)):
        if files:
            assert contents(open_archive(BytesSource(data))) == files
    if files:
        with tarfile.open(fileobj=io.BytesIO(tar_archive(files))) as theirs:
            assert {info.name for info in theirs} == set(files)


class TestZip:
    def test_everything(self, tree: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
            for path in sorted(tree.rglob("*")):
                if not path.is_symlink():
                    made.write(path, path.relative_to(tree))
            link = zipfile.ZipInfo("bin/ls")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            made.writestr(link, "busybox")
        archive = open_archive(BytesSource((tmp_path / "a.zip").read_bytes()))
        assert archive.kind == "zip"
        assert contents(archive) == expected(tree)
        assert archive.links == {"bin/ls": "busybox"}
        copy = pickle.loads(pickle.dumps(archive))
        assert contents(copy) == contents(archive)
        file = pickle.loads(pickle.dumps(archive["bin/busybox"]))
        assert file.read_bytes() == FILES["bin/busybox"]

    @pytest.mark.parametrize("more", [-1, 0, 1, 63, 64, 65, 128, 200, 4096])
    @pytest.mark.parametrize("pieces", [1, 2])
    def test_an_end_that_compresses_well(self, pieces: int, more: int) -> None:
        """The decoder has taken all of the input and still owes output."""
        data = bytes(pieces * PIECE + more)
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("disk.dd", data)
        file = open_archive(BytesSource(made.getvalue()))["disk.dd"]
        assert file.read_at(len(data) - 7, 7) == bytes(7)
        assert file.read_bytes() == data

    @pytest.mark.parametrize("field", [20, 24], ids=["compressed size", "size"])
    @pytest.mark.parametrize("said", [0, 60, 99, 101, 180, 230, 0xFFFFFFF0])
    def test_a_stored_member_of_two_sizes_keeps_to_its_own_bytes(self, said: int, field: int) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("a", b"A" * 100)
            archive.writestr("b", b"B" * 100)
        data = bytearray(made.getvalue())
        struct.pack_into("<I", data, data.index(b"PK\1\2") + field, said)  # its entry in the directory
        read = open_archive(BytesSource(data))
        assert contents(read) == {"a": b"A" * 100, "b": b"B" * 100}
        [problem] = read.problems
        assert (problem.structure, problem.offset) == ("zip directory", 0)
        assert str(said) in problem.message

    def test_a_damaged_link_costs_itself(self) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            link = zipfile.ZipInfo("link")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "target" * 9, zipfile.ZIP_DEFLATED)
            archive.writestr("behind", b"fine")
        data = bytearray(made.getvalue())
        data[34] ^= 0xFF  # the first byte of its data
        read = open_archive(BytesSource(data))
        assert contents(read) == {"behind": b"fine"}
        assert [problem.structure for problem in read.problems] == ["zip member"]

    def test_a_directory_that_claims_very_much_is_not_read(self) -> None:
        class Claims:
            size = 1 << 32

            def read_at(self, offset: int, length: int) -> bytes:
                assert length <= 1 << 20
                end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, self.size - 100, 0, 0)
                whole = {0: b"PK\3\4", self.size - len(end): end}
                found = bytearray(length)
                for at, data in whole.items():
                    for number, byte in enumerate(data, at - offset):
                        if 0 <= number < length:
                            found[number] = byte
                return bytes(found)

        archive = open_archive(Claims())
        assert list(archive) == []
        assert ["is not read" in problem.message for problem in archive.problems] == [True]

    def test_members_together_keep_little_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "_PIECES_BYTES", 1 << 20)
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4):
                archive.writestr(str(number), bytes([number]) * (1 << 20))
        files = list(open_archive(BytesSource(made.getvalue())).values())
        tracemalloc.start()
        for file in files:
            for at in range(0, file.size, 1 << 16):
                assert file.read_at(at, 1 << 16) == bytes([int(file.name)]) * (1 << 16)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 2 << 20
        assert files[0].read_at(0, 9) == bytes(9)

    def test_a_wrong_checksum_is_found(self) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", b"abc" * 1000)
        data = bytearray(made.getvalue())
        at = data.rfind(b"PK\1\2") + 16
        data[at] ^= 1
        file = open_archive(BytesSource(data))["a"]
        assert file.read_at(0, 2999) == (b"abc" * 1000)[:2999]
        with pytest.raises(CorruptImage, match="CRC"):
            file.read_bytes()

    def test_encrypted_and_unknown_methods_cost_themselves(self, tmp_path: Path) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("good", b"fine")
            archive.writestr("squeezed", b"x" * 1000)
        data = bytearray(made.getvalue())
        struct.pack_into("<H", data, data.rindex(b"PK\1\2") + 10, 98)
        ours = open_archive(BytesSource(data))
        assert contents(ours) == {"good": b"fine"}
        assert any("method 98, which is not read" in problem.message for problem in ours.problems)
        write_tree(tmp_path, {"secret": b"x" * 1000, "good": b"fine"})
        run("7z", "a", "-tzip", "-psecret", tmp_path / "a.zip", tmp_path / "secret")
        run("7z", "a", "-tzip", tmp_path / "a.zip", tmp_path / "good")
        ours = open_archive(BytesSource((tmp_path / "a.zip").read_bytes()))
        assert contents(ours) == {"good": b"fine"}
        assert "encrypted" in ours.problems[0].message


def test_a_vib_is_an_ar_archive(tmp_path: Path) -> None:
    """Debian's ar writes what a VIB is."""
    payload = gzip.compress(vmtar_archive({"usr/bin/x": b"payload"}, inline=True))
    files = {"descriptor.xml": b"<vib/>", "sig.pkcs7": b"s", "esx-base-payload-name": payload}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    run("ar", "rcS", tmp_path / "x.vib", *(tmp_path / name for name in files))
    archive = open_archive(BytesSource((tmp_path / "x.vib").read_bytes()))
    assert archive.kind == "ar"
    assert contents(archive) == files
    inner = archive["esx-base-payload-name"].open_archive()
    assert inner["usr/bin/x"].read_bytes() == b"payload"
    assert inner.kind == "vmtar"


def resummed(data: bytes) -> bytes:
    """The same tar with the right checksum in its first header."""
    head = bytearray(data[:512])
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


class TestHeadersThatMakeNoSense:
    @pytest.mark.parametrize(("at", "text"), [(100, b"rw-r--r"), (108, b"\xff" * 8), (124, b"123456789ab")])
    def test_cost_themselves(self, at: int, text: bytes) -> None:
        data = tar_archive({"first": b"1", "second": b"2"})
        archive = open_archive(BytesSource(resummed(data[:at] + text + data[at + len(text) :])))
        assert contents(archive) == {"second": b"2"}
        assert [problem.structure for problem in archive.problems] == ["tar header"]

    def test_hard_links_that_lead_nowhere_are_told(self) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("file"))
            targets = {"good": "file", "lost": "nothing", "round": "round"}
            targets |= {f"chain{number}": f"chain{number - 1}" for number in range(1, 50)}
            for name, target in targets.items():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.LNKTYPE, target
                archive.addfile(link)
        read = open_archive(BytesSource(made.getvalue()))
        assert sorted(read) == ["file", "good"]
        assert len(read.problems) == len(targets) - 1

    def test_a_path_of_very_many_folders_is_left_out(self, tmp_path: Path) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name in ("a/" * 30_000 + "x", "good"):
                archive.addfile(tarfile.TarInfo(name))
        tracemalloc.start()
        read = open_archive(BytesSource(made.getvalue()))
        assert list(read) == ["good"]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 << 20
        assert len(read.problems) == 1


class TestIso:
    @pytest.mark.parametrize("names", [ROCK_RIDGE, JOLIET, PLAIN, BOTH])
    def test_what_xorriso_wrote(self, names: tuple[str, ...], tree: Path, tmp_path: Path) -> None:
        archive = open_archive(BytesSource(iso(tree, tmp_path / "a.iso", names).read_bytes()))
        ours = {path: hashlib.sha256(data).hexdigest() for path, data in contents(archive).items()}
        if ROCK_RIDGE[0] in names:
            wanted = expected(tree)
            assert archive.links == {"bin/ls": "busybox"}
            modes = {member.path: member.mode for member in archive.members}
            assert modes["bin/busybox"] == 0o4755
            assert archive["etc/one"].timestamp == 1_200_000_001
        else:
            joliet = "on" if names == JOLIET else "off"
            run("xorriso", "-joliet", joliet, "-rockridge", "off", "-indev", tmp_path / "a.iso",
                "-osirrox", "on", "-extract", "/", tmp_path / "theirs")  # fmt: skip
            (tmp_path / "theirs").chmod(0o755)
            wanted = expected(tmp_path / "theirs")
        if names == JOLIET:  # xorriso shows ISO's own names when it is to read Joliet without Rock Ridge
            assert {path for path in ours if len(path) < 60} == {path for path in expected(tree) if len(path) < 60}
            return
        hashes = {path: hashlib.sha256(data).hexdigest() for path, data in wanted.items()}
        if names == PLAIN:
            assert {path.casefold().removesuffix(".") for path in ours} == {_iso_name(path) for path in hashes}
            assert sorted(ours.values()) == sorted(hashes.values())
        else:
            assert ours == hashes
        assert archive.problems == ()

    def test_what_zisofs_compressed_is_left_out_and_told(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "cd", {"zeros": bytes(100_000), "short": b"1"})
        run("xorriso", "-outdev", tmp_path / "a.iso", "-zisofs", "version_2=off", "-map", tmp_path / "cd", "/",
            "-set_filter_r", "--zisofs", "/", "--")  # fmt: skip
        archive = open_archive(BytesSource((tmp_path / "a.iso").read_bytes()))
        assert list(archive) == ["short"]
        assert ["zisofs" in problem.message for problem in archive.problems] == [True]

    def test_files_that_are_large_or_many(self, tmp_path: Path) -> None:
        folder = tmp_path / "many"
        folder.mkdir()
        for n in range(500):
            (folder / f"file-number-{n:04}.txt").write_text(str(n))
        archive = open_archive(BytesSource(iso(folder, tmp_path / "a.iso").read_bytes()))
        assert contents(archive) == expected(folder)

    def test_deep_folders_are_in_their_place(self, tmp_path: Path) -> None:
        folder = tmp_path / "deep"
        place = folder / "/".join("abcdefghijklmno")
        place.mkdir(parents=True)
        (place / "file").write_bytes(b"deep")
        archive = open_archive(BytesSource(iso(folder, tmp_path / "a.iso").read_bytes()))
        assert contents(archive) == {"a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/file": b"deep"}

    def test_entries_past_the_most_are_left_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(iso9660, "MOST_MEMBERS", 3)
        write_tree(tmp_path / "cd", dict.fromkeys("abcde", b"1"))
        with Image.open(iso(tmp_path / "cd", tmp_path / "a.iso")) as image:
            assert sorted(image.partitions[1].files) == ["a", "b", "c"]
            assert any("the rest is left out" in problem.message for problem in image.problems)

    def test_directories_that_lie_over_each_other_are_not_read_again_and_again(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "cd", {f"{n:02}/{m}": b"" for n in range(40) for m in range(3)})
        data = bytearray(iso(tmp_path / "cd", tmp_path / "a.iso", PLAIN).read_bytes())
        root = struct.unpack_from("<I", data, 16 * 2048 + 158)[0] * 2048
        at = root
        while data[at]:
            struct.pack_into("<I", data, at + 10, len(data) - root)  # up to the end of the volume
            at += data[at]
        source = Counting(BytesSource(data))
        archive = open_archive(source)
        assert len(archive.members) > 40
        assert any("the rest is left out" in problem.message for problem in archive.problems)
        assert sum(length for _, length in source.reads) < 3 * len(data)

    def test_folders_past_the_longest_path_are_left_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(iso9660, "LONGEST_PATH", 7)
        write_tree(tmp_path / "cd", {"a/b/c/d/e/file": b"deep", "a/file": b"here"})
        archive = open_archive(BytesSource(iso(tmp_path / "cd", tmp_path / "a.iso").read_bytes()))
        assert contents(archive) == {"a/file": b"here"}
        assert ["left out" in problem.message for problem in archive.problems] == [True]

    def test_a_directory_that_holds_itself(self, tree: Path, tmp_path: Path) -> None:
        data = bytearray(iso(tree, tmp_path / "a.iso", ROCK_RIDGE).read_bytes())
        root = struct.unpack_from("<I", data, 16 * 2048 + 156 + 2)[0]
        at = root * 2048
        while data[at + 33 : at + 36] != b"ETC":
            at += data[at]
        struct.pack_into("<I", data, at + 2, root)
        archive = open_archive(BytesSource(data))
        assert "bin/busybox" in archive
        assert "etc/one" not in archive
        assert any("again" in problem.message for problem in archive.problems)

    def test_any_damage_to_the_directories(self, tree: Path, tmp_path: Path) -> None:
        whole = iso(tree, tmp_path / "a.iso", ROCK_RIDGE).read_bytes()
        chosen = random.Random(3)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(3):
                data[chosen.randrange(16 * 2048, 60 * 2048)] = chosen.randrange(256)
            try:
                archive = open_archive(BytesSource(data))
                for file in archive.values():
                    file.read_at(0, min(file.size, 10))
            except CorruptImage:
                continue


def _iso_name(path: str) -> str:
    return path.casefold().removesuffix(".")


@pytest.mark.parametrize("make", [tar_archive, vmtar_archive], ids=["tar", "vmtar"])
def test_any_damage_to_headers(make: object) -> None:
    whole = make(SHORT_FILES, links={"l": "x"})  # type: ignore[operator]
    chosen = random.Random(4)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(3):
            at = chosen.randrange(0, 4096)
            data[at] = chosen.randrange(256)
            block = at // 512 * 512
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        try:
            for file in open_archive(BytesSource(data)).values():
                file.read_at(0, min(file.size, 10))
        except CorruptImage:
            continue


@pytest.mark.parametrize("data", [b"", b"x" * 2000, b"\x7fELF" + bytes(2000), b"PK\3\4" + bytes(50), b"!<arch>\nxx"])
def test_what_is_none(data: bytes) -> None:
    try:
        archive = open_archive(BytesSource(data))
    except NotAnArchive:
        return
    assert list(archive) == []
    assert archive.problems


def test_paths_that_are_not_there() -> None:
    archive = open_archive(BytesSource(tar_archive({"a/b": b""})))
    for path in ("a", "c", "a/b/c", ""):
        with pytest.raises(PathNotFound):
            archive[path]


class TestAr:
    """Numbers are read as binutils reads them: the digits that a field begins with."""

    MEMBERS: Mapping[str, bytes] = {"descriptor.xml": b"<vib/>", "sig.pkcs7": b"", "payload": b"odd"}

    def made(self, *, mode: str = "100644", date: str = "0", size: str = "{}") -> bytes:
        data = b"!<arch>\n"
        for name, content in self.MEMBERS.items():
            data += f"{name:<16}{date:<12}{0:<6}{0:<6}{mode:<8}{size.format(len(content)):<10}`\n".encode()
            data += content + b"\n" * (len(content) % 2)
        return data

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"mode": "0o0"},
            {"mode": "0o100644"},
            {"mode": ""},
            {"date": ""},
            {"date": "-1"},
            {"size": "{} B"},
            {"size": "0{}"},
        ],
        ids=str,
    )
    def test_as_ar_reads_it(self, fields: dict[str, str], tmp_path: Path) -> None:
        path = tmp_path / "a.vib"
        path.write_bytes(self.made(**fields))
        archive = open_archive(BytesSource(path.read_bytes()))
        assert contents(archive) == dict(self.MEMBERS)
        assert archive.problems == ()
        assert run("ar", "t", path).splitlines() == list(archive)
        for name, content in self.MEMBERS.items():
            assert run("ar", "p", path, name).encode() == content

    @pytest.mark.parametrize("fields", [{"mode": "rw-r--r-"}, {"mode": "9"}, {"date": "now"}], ids=str)
    def test_what_ar_lists_and_cannot_write(self, fields: dict[str, str], tmp_path: Path) -> None:
        path = tmp_path / "a.vib"
        path.write_bytes(self.made(**fields))
        assert run("ar", "t", path).splitlines() == list(self.MEMBERS)
        assert contents(open_archive(BytesSource(path.read_bytes()))) == dict(self.MEMBERS)

    @pytest.mark.parametrize("size", ["x{}", "", "-1", "0x3"])
    def test_a_size_that_is_none_is_named(self, size: str, tmp_path: Path) -> None:
        data = self.made(size=size)
        archive = open_archive(BytesSource(data))
        listed = contents(archive)
        if size in ("", "0x3"):  # no size is a size of 0, and what follows is taken for a header
            assert set(listed) == {"descriptor.xml"}
        else:
            assert listed == {}
        [problem] = archive.problems
        assert problem.structure == "ar header"
        path = tmp_path / "a.vib"
        path.write_bytes(data)
        assert main(["archive", str(path)]) == 1
