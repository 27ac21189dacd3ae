"""``PARTITION/PATH``: one spelling for the library, the command line and ``vmvisor://``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from urllib.parse import quote
from uuid import UUID

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Counting
from vmvisor_image import Directory, File, Image, NotAFileSystem, Partition, PartitionNotFound, PathNotFound
from vmvisor_image.disk.paths import path_name, resolve, split_path
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk

FILES = {"boot.cfg": b"kernel=vmkernel.gz\n", "packages/3.5.0/tools.iso": b"tools" * 300}
BASIC_DATA = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
SECTORS = 256


@cache
def volume(label: str | None = None) -> SparseImage:
    return fat_volume(FILES, sectors=SECTORS, label=label)


def named_disk(names: Sequence[str], *, gaps: int = 0) -> bytes:
    """A GPT disk with a partition of each name, numbered from 1 + `gaps`."""
    partitions = [
        GptPartition(number, BASIC_DATA, 64 + SECTORS * place, SECTORS, name, content=volume())
        for place, (number, name) in enumerate(enumerate(names, 1 + gaps))
    ]
    return b"".join(gpt_disk(partitions, sectors=128 + SECTORS * len(names)).chunks())


@pytest.fixture
def image() -> Image:
    """Numbers 1, 2 (extended), 5 and 6; 6 has no file system."""
    return Image.open(b"".join(mbr_disk(PARTITIONS, sectors=2000).chunks()))


PARTITIONS = [
    ForgedPartition(1, 6, 1, SECTORS, content=volume("HYPER 1")),
    ForgedPartition(2, 5, 300, 1500),
    ForgedPartition(5, 6, 332, SECTORS, content=volume("Hypervisor2")),
    ForgedPartition(6, 0xFC, 700, 10),
]


class TestResolve:
    def test_a_partition(self, image: Image) -> None:
        assert resolve(image, "HYPER 1") is resolve(image, "hyper 1") is resolve(image, "1") is image.partitions[1]
        assert resolve(image, "/5") is image.partitions["Hypervisor2"]
        assert isinstance(resolve(image, "2"), Partition)
        assert isinstance(resolve(image, "6"), Partition)

    def test_a_directory(self, image: Image) -> None:
        root = resolve(image, "HYPER 1/")
        assert isinstance(root, Directory)
        assert root is image.partitions[1].files.root
        packages = resolve(image, "5/packages/")
        assert isinstance(packages, Directory)
        assert packages.path == "packages"

    @pytest.mark.parametrize("path", ["5/packages/3.5.0/tools.iso", "Hypervisor2//packages/./3.5.0/TOOLS.iso"])
    def test_a_file(self, image: Image, path: str) -> None:
        found = resolve(image, path)
        assert isinstance(found, File)
        assert found is image.partitions[5].files["packages/3.5.0/tools.iso"]

    @pytest.mark.parametrize("path", ["", "/", "3", "3/boot.cfg", "Hypervisor", "99999999999/boot.cfg", "²"])
    def test_no_partition(self, image: Image, path: str) -> None:
        with pytest.raises(PartitionNotFound):
            resolve(image, path)

    @pytest.mark.parametrize("path", ["1/vmkernel.gz", "1/boot.cfg/x", "1/../5/boot.cfg", "1/packages/boot.cfg"])
    def test_no_file(self, image: Image, path: str) -> None:
        with pytest.raises(PathNotFound):
            resolve(image, path)

    @pytest.mark.parametrize("path", ["6/", "6/boot.cfg", "2/boot.cfg"])
    def test_no_file_system(self, image: Image, path: str) -> None:
        with pytest.raises(NotAFileSystem):
            resolve(image, path)

    def test_reads_no_further_than_the_partition(self) -> None:
        source = Counting(mbr_disk(PARTITIONS, sectors=2000))
        resolve(Image.open(source), "HYPER 1/packages/3.5.0/tools.iso")
        assert max(offset + length for offset, length in source.reads) <= 332 * 512, "nothing of the next one"


class TestDidYouMean:
    def test_a_file(self, image: Image) -> None:
        for path, similar in {
            "5/boot.cgf": "5/boot.cfg",
            "Hypervisor2/tools.iso": "Hypervisor2/packages/3.5.0/tools.iso",
            "/hyper 1/packages/3.5/tools.iso": "/hyper 1/packages/3.5.0/tools.iso",
            "1/package": "1/packages",
        }.items():
            with pytest.raises(PathNotFound) as caught:
                resolve(image, path)
            assert caught.value.similar[0] == similar
            assert str(caught.value).startswith(f"no {path!r} in this image; did you mean '")
            assert resolve(image, similar) is not None

    def test_a_partition(self, image: Image) -> None:
        with pytest.raises(PartitionNotFound, match=r"no partition 'Hypervisor'; there are .*; did you mean 'Hyper"):
            image.partitions["Hypervisor"]
        with pytest.raises(PartitionNotFound, match=r"did you mean 'HYPER 1'\?"):
            resolve(image, "hyper1/boot.cfg")
        with pytest.raises(PartitionNotFound, match=r"no partition 3; there are 1, 2, 5, 6$"):
            image.partitions[3]

    def test_fsspec(self, image: Image) -> None:
        fs = fsspec.filesystem("vmvisor", fo=image)
        with pytest.raises(FileNotFoundError, match=r"did you mean '5/boot.cfg'\?"):
            fs.cat("vmvisor://5/boot.cgf")


class TestNames:
    @pytest.mark.parametrize("name", ["data/store", "a/b/c", "/leading", "50% / full"])
    def test_a_slash_in_a_label(self, name: str) -> None:
        """As it is, with percent escapes, or by number; and a label that continues another one."""
        image = Image.open(named_disk(["other", name, f"{name}/deep"]))
        for spelled in (*([] if name.startswith("/") else [name]), quote(name, safe=""), "2"):
            assert resolve(image, spelled) is image.partitions[2]
            found = resolve(image, f"{spelled}/packages/3.5.0/tools.iso")
            assert found is image.partitions[2].files["packages/3.5.0/tools.iso"]
        assert path_name(image.partitions, image.partitions[2]) == "2"

    def test_a_shorter_label_comes_first(self) -> None:
        image = Image.open(named_disk(["packages/3.5.0", "packages"]))
        assert resolve(image, "packages/boot.cfg") is image.partitions[2].files["boot.cfg"]
        assert resolve(image, "packages%2f3.5.0/boot.cfg") is image.partitions[1].files["boot.cfg"]

    def test_a_label_of_digits(self) -> None:
        image = Image.open(named_disk(["2", "1", "2007"]))
        assert resolve(image, "1") is image.partitions[1]
        assert resolve(image, "2007/boot.cfg") is image.partitions[3].files["boot.cfg"]
        assert [path_name(image.partitions, partition) for partition in image.partitions] == ["1", "2", "3"]

    def test_an_escape_in_a_label_is_literal(self) -> None:
        image = Image.open(named_disk(["a/b", "a%2Fb"]))
        assert resolve(image, "a%2Fb") is image.partitions[2]
        assert resolve(image, "a/b") is image.partitions[1]
        assert resolve(image, "a%252Fb") is image.partitions[2]

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=12), max_size=6))
    def test_a_name_finds_its_partition(self, names: list[str]) -> None:
        image = Image.open(named_disk(names, gaps=2))
        found = [path_name(image.partitions, partition) for partition in image.partitions]
        assert len(set(found)) == len(names)
        for partition, name in zip(image.partitions, found, strict=True):
            assert split_path(image, f"{name}/x/*") == (partition, "x/*")
            assert resolve(image, name) is partition

    def test_fsspec_has_the_same_names(self, image: Image) -> None:
        names = [path_name(image.partitions, partition) for partition in image.partitions if not partition.is_container]
        assert names == ["HYPER 1", "Hypervisor2", "6"]
        assert names == fsspec.filesystem("vmvisor", fo=image).ls("", detail=False)
        odd = fsspec.filesystem("vmvisor", fo=named_disk(["data/store"]))
        assert odd.cat("data%2Fstore/boot.cfg") == odd.cat("1/boot.cfg") == FILES["boot.cfg"]


class TestPartitionTable:
    def test_get(self, image: Image) -> None:
        partitions = image.partitions
        assert partitions.get(5) is partitions.get("hypervisor2") is partitions[5]
        assert partitions.get(3) is partitions.get("x") is None
        assert partitions.get(3, "none") == "none"

    def test_as_a_dictionary(self, image: Image) -> None:
        partitions = image.partitions
        assert partitions.keys() == (1, 2, 5, 6)
        assert partitions.values() == tuple(partitions)
        assert partitions.items() == tuple(zip(partitions.keys(), partitions.values(), strict=True))
        assert dict(partitions) == dict(partitions.items())

    def test_a_number_that_is_not_there_reads_only_the_table(self) -> None:
        source = Counting(BytesSource(named_disk(["one", "two"])))
        image = Image.open(source)
        assert image.partitions.get(3) is None
        assert 3 not in image.partitions
        assert image.partitions.keys() == (1, 2)
        first = 64 * 512
        assert not [offset for offset, _ in source.reads if first <= offset < first + 2 * SECTORS * 512]
