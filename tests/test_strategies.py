"""The published strategies: what they make is what our reader and other people's tools find."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from tests.support import run
from vmvisor_image import Image
from vmvisor_image.testing.strategies import ForgedVolume, fat_volumes, trees

AT_ALL = settings(phases=[Phase.generate], max_examples=500)
"""For `find`: any example will do, not the smallest."""


@given(fat_volumes())
def test_our_reader_finds_what_a_volume_holds(forged: ForgedVolume) -> None:
    with Image.open(forged.image) as image:
        partition = image.partitions[1]
        assert (partition.kind, partition.label) == (f"fat{forged.bits}", forged.label)
        assert {path: (file.read_bytes(), file.modified) for path, file in partition.files.items()} == {
            path: (file.data, file.modified) for path, file in forged.files.items()
        }
        assert image.problems == ()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forged=fat_volumes())
def test_fsck_finds_no_fault(tmp_path: Path, forged: ForgedVolume) -> None:
    path = tmp_path / "volume"
    forged.image.write_to(path)
    run("fsck.fat", "-n", path)


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_volumes_of_each_kind_are_among_them(bits: int) -> None:
    assert (
        find(fat_volumes(), lambda forged: forged.bits == bits and len(forged.files) > 1, settings=AT_ALL).bits == bits
    )


def test_trees_have_files_in_directories_and_in_pieces() -> None:
    assert find(trees(), lambda tree: any("/" in path for path in tree), settings=AT_ALL)
    assert find(
        trees(), lambda tree: any(file.fragmented and len(file.data) > 1000 for file in tree.values()), settings=AT_ALL
    )
