"""Names beside a file: the last part of a path in an image, and the place of an object beside a URL."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from vmvisor_image import UnsafeName
from vmvisor_image.base.names import last_part
from vmvisor_image.layers.parents import Reference
from vmvisor_image.layers.vmdk import _is_elsewhere
from vmvisor_image.machines.place import file_name_of
from vmvisor_image.streams.urls import neighbour_url, resolve

PATHS = {
    "a.vmdk": "a.vmdk",
    "/vmfs/volumes/x/a.vmdk": "a.vmdk",
    "..\\..\\a b.vmdk": "a b.vmdk",
    "C:\\disks\\a.vhd": "a.vhd",
    "C:a.vhd": "a.vhd",
    "x\\c:d:a.vhd": "a.vhd",
    "1:2.vmdk": "1:2.vmdk",
}
NOTHING = ["", ".", "..", " ", "C:", "a/", "a\\..", "C:..", "a\nb", "a\0b"]


@pytest.mark.parametrize("path", PATHS)
def test_the_last_part_stays_in_a_directory_of_windows_too(path: str) -> None:
    name = last_part(path)
    assert name == PATHS[path]
    below = PureWindowsPath("D:\\machines") / name
    assert below.parent == PureWindowsPath("D:\\machines")
    assert file_name_of(path, "disk") == name
    assert Reference(path, "header").file_name == name
    assert _is_elsewhere(path) == (path != name)  # an extent with a path is refused


@pytest.mark.parametrize("path", NOTHING)
def test_what_names_no_file(path: str) -> None:
    assert last_part(path) is None
    assert _is_elsewhere(path)
    with pytest.raises(UnsafeName):
        file_name_of(path, "disk")
    with pytest.raises(UnsafeName):
        _ = Reference(path, "header").file_name


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/d/a.vmdk?key=/x#/y", "http://127.0.0.1:1/d/a.vmdk", "memory://d/a"]
)
def test_both_ways_to_an_object_beside_a_url_agree(url: str) -> None:
    pytest.importorskip("aiohttp", reason="the extra 'fsspec' is not installed")
    beside = neighbour_url(url, "b #1%.vmdk")
    assert resolve(url, {}, "b #1%.vmdk")[1] == resolve(beside, {}, None)[1]
