"""A format is one module and one line of a registry: toys are added so, and what each format has to have is asked."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vmvisor_image
from fuzz.harness import names
from tests import test_damage
from tests.support import REPOSITORY
from vmvisor_image import CorruptImage, Image, Role, open_archive, verify
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.disk.tables.find import TABLES
from vmvisor_image.examine.signatures import FOREIGN, Format
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.volumes import plugins
from vmvisor_image.volumes.formats import VOLUMES
from vmvisor_image.volumes.magics import SIGNATURES

FORMATS: tuple[Format, ...] = (*COMPRESSIONS, *ARCHIVES, *VIRTUAL_DISKS, *TABLES, *VOLUMES)
JUDGES = {
    "bzip2": ("bzip2", "test_bzip2_reader.py"),
    "gzip": ("gzip", "test_layers.py"),
    "xz": ("xz", "test_layers.py"),
    "zstd": ("zstd", "test_layers.py"),
    "tar": ("tar", "test_tar.py"),
    "zip": ("zip", "test_zip.py"),
    "ar": ("ar", "test_archives.py"),
    "iso9660": ("xorriso", "test_iso9660.py"),
    "vmdk": ("qemu-img", "test_virtual_disks.py"),
    "sesparse": ("qemu-img", "test_esx_extents.py"),
    "cowd": ("qemu-img", "test_esx_extents.py"),
    "qcow2": ("qemu-img", "test_virtual_disks.py"),
    "vhd": ("qemu-img", "test_virtual_disks.py"),
    "vhdx": ("qemu-img", "test_virtual_disks.py"),
    "mbr": ("sfdisk", "test_partitions.py"),
    "gpt": ("sgdisk", "test_gpt.py"),
    "fat": ("fsck.fat", "test_verification.py"),
    "vmfs": ("debugvmfs", "test_vmfs_files.py"),
}
"""An independent program for each format, and the tests that ask it."""
WITHOUT_JUDGE = {"vmkcore": "its content is opaque: no program but the vmkernel writes it, and none reads it elsewhere"}

COMPRESSION = '''
"""Bytes, each with its bits inverted."""

from vmvisor_image.examine.signatures import Signature
from vmvisor_image.streams import Source

NAME = "toy compression"
KIND = "toyz"
SUFFIXES = (".toyz",)
TAR_SUFFIXES = ()
MAGICS = (Signature("toyz", "toy data", 0, b"TOY-COMPRESSED", content="data"),)
REFERENCES = ("the toy's maker",)
_HEAD = 16


def probe(head):
    return head.startswith(b"TOY-COMPRESSED")


class _Reader(Source):
    def __init__(self, source):
        self._source = source

    @property
    def size(self):
        return self._source.size - _HEAD

    def read_at(self, offset, length):
        return bytes(byte ^ 0xFF for byte in self._source.read_at(offset + _HEAD, length))

    def check_blocks(self):
        return (("toys", 1),)


def open_layer(source, options):
    return _Reader(source)
'''
ARCHIVE = '''
"""One file behind a head of 16 bytes."""

from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.files.file import Extent
from vmvisor_image.examine.signatures import Signature

NAME = "toy archive"
KIND = "toya"
SUFFIXES = (".toya",)
HOLDS_DISKS = True
MAGICS = (Signature("toya", "toy archive", 0, b"TOY-ARCHIVE", content="data"),)
REFERENCES = ("the toy's maker",)


def kind_of(source, head):
    return KIND if head.startswith(b"TOY-ARCHIVE") else None


def read_members(source, report):
    size = source.size - 16
    yield ArchiveMember("inside.dd", "file", size, None, extents=(Extent(16, size),))
'''
VOLUME = '''
"""A volume of one file, 16 bytes of it, which should be all X."""

from vmvisor_image.errors import Problem
from vmvisor_image.files.tree import FileTree
from vmvisor_image.files.file import Directory, Extent, File
from vmvisor_image.examine.signatures import Signature
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.volumes import BaseVolume, Evidence, Role, VolumeCheck, VolumeEvidence

NAME = "toy volume"
KIND = "toyfs"
SUFFIXES = ()
MAGICS = (Signature("toyfs", "toy volume", 0, b"TOY-VOLUME"),)
REFERENCES = ("the toy's maker",)


class ToyVolume(BaseVolume):
    kind = KIND

    def __init__(self, disk, start, home):
        self._disk, self._start, self._home = disk, start, home

    @property
    def files(self):
        root = Directory("", None, lambda: [File(self._home, "toy", 16, None, 16)], fold_case=False)
        return FileTree(root, lambda: (), fold_case=False)

    def locate(self, token):
        return (Extent(self._start + token, 16),)

    def evidence(self, name, /):
        return VolumeEvidence((Evidence("it says TOY-VOLUME", self._start),), Role.SCRATCH)

    def check(self):
        if self._disk.read_at(self._start + 16, 16) == b"X" * 16:
            return VolumeCheck(not_checked=())
        return VolumeCheck((Problem("toy", "it is not all X", self._start + 16),), not_checked=("the box",))


def probe(disk, start, size, hints=None, /):
    return read_up_to(disk, start, 10) == b"TOY-VOLUME"


def open_volume(disk, start, size, home, /):
    return ToyVolume(disk, start, home)
'''
TOYS = {
    "compressions/toy_compression.py": COMPRESSION,
    "archives/toy_archive.py": ARCHIVE,
    "volumes/toy_volume.py": VOLUME,
}
LINES = {
    "compressions/formats.py": ("= (bzip2, gzip, xz, zstd)", "compressions import toy_compression"),
    "archives/formats.py": ("= (tar, zip, ar, iso9660)", "archives import toy_archive"),
    "volumes/formats.py": ("= (fat, iso9660, vmfs, vmkcore)", "volumes import toy_volume"),
}
START = 2048 * 512


def toy_disk(content: bytes = b"X" * 16) -> bytes:
    """A disk with a toy volume."""
    volume = SparseImage(64 * 512, [(0, b"TOY-VOLUME".ljust(16) + content)])
    disk = mbr_disk([ForgedPartition(1, 0x83, START // 512, 64, content=volume)], sectors=4096)
    return disk.read_at(0, disk.size)


def compressed(data: bytes) -> bytes:
    return b"TOY-COMPRESSED".ljust(16) + bytes(byte ^ 0xFF for byte in data)


@pytest.fixture(scope="module")
def with_toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library with a module and a line for each toy."""
    folder = tmp_path_factory.mktemp("toys")
    package = folder / "vmvisor_image"
    shutil.copytree(Path(vmvisor_image.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in TOYS.items():
        (package / path).write_text(text, encoding="utf-8")
    for path, (registry, imported) in LINES.items():
        text = (package / path).read_text(encoding="utf-8")
        assert text.count(registry) == 1, f"{path} has no registry that is one tuple"
        name = imported.rpartition(" ")[2]
        text = text.replace(registry, f"{registry[:-1]}, {name})")
        text = text.replace("from typing", f"from vmvisor_image.{imported}\nfrom typing", 1)
        (package / path).write_text(text, encoding="utf-8")
    return folder


def tell(with_toys: Path, code: str, *arguments: str | Path) -> Any:
    """What a program prints as JSON, run with the copy."""
    environment = {**os.environ, "PYTHONPATH": f"{with_toys}{os.pathsep}{REPOSITORY}"}
    program = f"import json, sys; from vmvisor_image import *\n{code}"
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


SHOW = """
with Image.open(sys.argv[1]) as image:
    partition = image.partitions[1]
    report = verify(sys.argv[1])
    print(json.dumps({
        "layers": [(layer.kind, layer.name) for layer in image.layers],
        "counts": [layer.counts for layer in report.layers],
        "kind": partition.kind,
        "role": partition.role.name,
        "explained": partition.explain(),
        "file": partition.files["toy"].read_bytes().decode(),
        "problems": [str(problem) for problem in report.problems],
        "not checked": report.not_checked,
    }))
"""


class TestByOneLine:
    def test_a_compression_around_an_archive_around_a_volume(self, with_toys: Path, tmp_path: Path) -> None:
        (tmp_path / "disk.toya.toyz").write_bytes(compressed(b"TOY-ARCHIVE".ljust(16) + toy_disk()))
        found = tell(with_toys, SHOW, tmp_path / "disk.toya.toyz")
        assert found["layers"] == [["toyz", "disk.toya.toyz"], ["toya", "disk.toya"]]
        assert found["counts"] == [[["toys", 1]], []]
        assert (found["kind"], found["role"], found["file"]) == ("toyfs", "SCRATCH", "X" * 16)
        assert "it says TOY-VOLUME (at byte 0x100000)" in found["explained"]
        assert found["problems"] == []
        assert found["not checked"] == []

    def test_verify_asks_the_volume(self, with_toys: Path, tmp_path: Path) -> None:
        (tmp_path / "disk.dd").write_bytes(toy_disk(b"broken"))
        found = tell(with_toys, SHOW, tmp_path / "disk.dd")
        assert found["problems"] == ["toy at byte 0x100010: it is not all X"]
        assert found["not checked"] == ["partition 1: the box"]

    def test_containers_know_the_suffixes(self, with_toys: Path, tmp_path: Path) -> None:
        (tmp_path / "a.dd.toyz").write_bytes(compressed(toy_disk()))
        (tmp_path / "b.txt").write_bytes(b"no disk")
        shutil.make_archive(str(tmp_path / "disks"), "zip", tmp_path, "a.dd.toyz")
        shutil.make_archive(str(tmp_path / "two"), "tar", tmp_path, ".")
        assert tell(with_toys, SHOW, tmp_path / "disks.zip")["layers"][-1] == ["toyz", "a.dd.toyz"]
        (tmp_path / "in").mkdir()
        (tmp_path / "in/x.toya").write_bytes(b"TOY-ARCHIVE".ljust(16) + toy_disk())
        (tmp_path / "in/b.txt").write_bytes(b"no disk")
        shutil.make_archive(str(tmp_path / "deep"), "tar", tmp_path / "in")
        assert [kind for kind, _ in tell(with_toys, SHOW, tmp_path / "deep.tar")["layers"]] == ["tar", "toya"]

    def test_a_whole_disk_without_a_table(self, with_toys: Path, tmp_path: Path) -> None:
        (tmp_path / "volume").write_bytes(toy_disk()[START:])
        assert tell(with_toys, SHOW, tmp_path / "volume")["kind"] == "toyfs"

    def test_archives_open(self, with_toys: Path, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"TOY-ARCHIVE".ljust(16) + b"text")
        code = "archive = open_archive(sys.argv[1]); print(json.dumps([archive.kind, *archive]))"
        assert tell(with_toys, code, tmp_path / "x") == ["toya", "inside.dd"]

    def test_help_and_docs(self, with_toys: Path) -> None:
        code = "from vmvisor_image.faces.cli.main import _parser; print(json.dumps(_parser().format_help()))"
        shown = tell(with_toys, code)
        assert ".toyz" in shown
        assert ".toya" in shown
        table = tell(with_toys, "from tests.doc_tables import formats, signatures; print(json.dumps(formats()))")
        assert "| compression | toy compression | `toyz` | `.toyz` | the toy's maker |" in table
        assert "| archive | toy archive | `toya` | `.toya` | the toy's maker |" in table
        assert "| volume | toy volume | `toyfs` |  | the toy's maker |" in table
        magics = tell(with_toys, "from tests.doc_tables import signatures; print(json.dumps(signatures()))")
        assert all(f"`{kind}`" in magics for kind in ("toyz", "toya", "toyfs"))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a module as a plug-in."""

    def install(text: str) -> None:
        (tmp_path / "toy_plugin.py").write_text(text, encoding="utf-8")
        about = tmp_path / "toy-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
        (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\ntoy = toy_plugin\n")
        monkeypatch.syspath_prepend(tmp_path)
        plugins._load.cache_clear()

    yield install
    plugins._load.cache_clear()
    sys.modules.pop("toy_plugin", None)


class TestByAnEntryPoint:
    def test_it_has_a_role_and_a_check(self, plugin: Callable[[str], None]) -> None:
        plugin(VOLUME)
        with Image.open(toy_disk()) as image:
            partition = image.partitions[1]
            assert (partition.kind, partition.role) == ("toyfs", Role.SCRATCH)
            assert "it says TOY-VOLUME (at byte 0x100000)" in map(str, partition.evidence)
        assert verify(toy_disk()).is_sound
        damaged = verify(toy_disk(b"broken"))
        assert [str(problem) for problem in damaged.problems] == ["toy at byte 0x100010: it is not all X"]
        assert damaged.not_checked == ("partition 1: the box",)

    def test_one_that_can_not_be_checked_is_a_problem(self, plugin: Callable[[str], None]) -> None:
        raised = 'raise CorruptImage("no check", structure="toy", offset=7)'
        plugin(VOLUME.replace("if self._disk.read_at(self._start + 16, 16) ==", f"{raised}\n        if b'' ==").replace(
            "import Problem", "import CorruptImage, Problem"
        ))  # fmt: skip
        assert [str(problem) for problem in verify(toy_disk()).problems] == ["toy at byte 0x7: no check"]

    def test_one_without_them_is_as_before(self, plugin: Callable[[str], None]) -> None:
        old = VOLUME.replace("(BaseVolume)", "").replace(
            "    kind = KIND", "    kind, label, problems = KIND, None, ()"
        )
        old = old.replace("    def __init__", "    records, facts = {}, {'toy fact': 'yes'}\n\n    def __init__")
        plugin(old)  # its evidence and check are its own, whatever they are
        with Image.open(toy_disk(b"broken")) as image:
            partition = image.partitions[1]
            assert (partition.kind, partition.role) == ("toyfs", Role.UNKNOWN)
            assert "It says of itself: toy fact yes." in partition.explain()
            assert list(partition.files) == ["toy"]
        report = verify(toy_disk(b"broken"))
        assert report.is_sound
        assert report.not_checked == (
            "partition 1: toyfs has no check sums of what is in files; only gzip ones have",
        )  # fmt: skip


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: f"{each.__name__.rpartition('.')[2]}")
class TestWhatAFormatHasToHave:
    def test_it_declares_itself(self, each: Format) -> None:
        assert each.NAME
        assert re.fullmatch("[a-z0-9]+", each.KIND)
        assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in each.SUFFIXES)
        assert all(magic in SIGNATURES and magic not in FOREIGN for magic in each.MAGICS)
        assert each.REFERENCES

    def test_it_has_a_fuzz_target(self, each: Format) -> None:
        assert each.KIND in names(), f"fuzz/targets/{each.KIND}.py is missing"

    def test_it_has_a_damage_case(self, each: Format) -> None:
        assert any(kind.startswith(each.KIND) for kind in damaged_kinds()), "tests/test_damage.py has no case of it"

    def test_it_has_a_judge(self, each: Format) -> None:
        if each.KIND in WITHOUT_JUDGE:
            assert each.KIND not in JUDGES
            return
        assert each.KIND in JUDGES, "no independent program is named for it"
        program, path = JUDGES[each.KIND]
        assert f'"{program}"' in (REPOSITORY / "tests" / path).read_text(encoding="utf-8"), f"{path}: {program}"


def test_no_kind_is_declared_twice() -> None:
    for registry in (COMPRESSIONS, ARCHIVES, VIRTUAL_DISKS, TABLES, VOLUMES):
        kinds = [each.KIND for each in registry]
        assert len(set(kinds)) == len(kinds)


@functools.cache
def damaged_kinds() -> frozenset[str]:
    """Kinds of everything that the cases of damage are made of."""
    found: set[str] = set()
    for name in test_damage.KINDS:
        source = test_damage.forged(name)
        with Image.open(source, threads=1) as image:
            found |= {*(layer.kind for layer in image.layers), image.scheme}
            found |= {partition.kind for partition in image.partitions}
        with contextlib.suppress(CorruptImage):
            found.add(open_archive(source).kind)
    return frozenset(found)
