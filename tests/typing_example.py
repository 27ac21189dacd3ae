"""A downstream program whose types both mypy and pyright know, by the installed package's py.typed; it is not run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

from vmvisor_image import (
    Directory,
    Evidence,
    Extent,
    File,
    FileTree,
    Generation,
    Image,
    ImageReport,
    Layer,
    Partition,
    PartitionReport,
    PartitionTable,
    PartitionType,
    Problem,
    PxeExport,
    ReadAt,
    Role,
    export_pxe,
    fleet,
    inspect,
)
from vmvisor_image.base.open_options import OpenOptions


def read(source: ReadAt) -> bytes:
    return source.read_at(0, 512)


with Image.open("disk.dd.bz2", threads=2) as image:
    assert_type(image, Image)
    assert_type(image.size, int)
    assert_type(image.layers, tuple[Layer, ...])
    assert_type(image.open(), io.BufferedReader)
    assert_type(image.problems, tuple[Problem, ...])
    assert_type(image.partitions, PartitionTable)
    assert_type(image.partitions.generation, Generation | None)
    partition = image.partitions["Hypervisor1"]
    assert_type(partition, Partition)
    assert_type([each.number for each in image.partitions], list[int])
    assert_type(partition.label, str | None)
    assert_type(partition.type, PartitionType)
    assert_type(partition.role, Role)
    assert_type(partition.evidence, tuple[Evidence, ...])
    assert_type(partition.files, FileTree)
    file = partition.files["vmkernel.gz"]
    assert_type(file, File)
    assert_type(file.extents, tuple[Extent, ...])
    assert_type(file.modified, datetime | None)
    assert_type(file.read_bytes(), bytes)
    assert_type(partition.files.glob("*.tgz"), Iterator[File])
    assert_type(partition.files.extract("some", "*.tgz", overwrite=True), tuple[Path, ...])
    assert_type(partition.files.root.glob("*.tgz"), Iterator[File])
    assert_type(partition.files.root.extract("bank", "*.tgz"), tuple[Path, ...])
    for directory, directories, files in partition.files.root.walk():
        assert_type((directory, directories, files), tuple[Directory, list[Directory], list[File]])
    assert_type(image.glob("Hypervisor1/*.tgz"), Iterator[File])
    assert_type(image.partitions.get(5), Partition | None)
    assert_type(image.partitions.get(5, "none"), Partition | str)
    assert_type(dict(image.partitions), dict[int, Partition])
    assert_type(dict(image.partitions.items()), dict[int, Partition])
    assert_type([each.size for each in partition.files.values()], list[int])
    assert_type({path: each.modified for path, each in partition.files.items()}, dict[str, datetime | None])
    assert_type("vmkernel.gz" in partition.files.root, bool)
    assert_type(partition.files.extract("bank"), tuple[Path, ...])
    assert_type([read(each) for each in (image, partition, file)], list[bytes])
    assert_type(export_pxe(image, "tftp"), PxeExport)


class Mine(Image):
    """An image of somebody's own."""


assert_type(Mine.open(b""), Mine)
assert_type(Mine.open(b"").open(), io.BufferedReader)
assert_type(file.open_image(member="disk.img"), Image)
options: OpenOptions = {"threads": 1, "salvage": True}
assert_type(Mine("disk.dd", **options), Mine)
assert_type(inspect("disk.dd", **options), ImageReport)

report = inspect(b"")
assert_type(report, ImageReport)
assert_type(report.partitions, tuple[PartitionReport, ...])
assert_type(report.to_dict(), dict[str, Any])

with ThreadPoolExecutor() as pool:
    for row in fleet.stream(["a.dd", Path("b.dd")], pool, workers=4):
        assert_type(row, fleet.Row)
        assert_type(row["size"], int | None)
