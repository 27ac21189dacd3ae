"""Ours and the standard library's decoder agree on every tricky file; see `tests.tricky_bzip2`."""

from __future__ import annotations

import bz2
import subprocess

import pytest

from tests.support import require_tool
from tests.tricky_bzip2 import TrickyFile, tricky_files
from vmvisor_image import CorruptImage
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.streams.sources import BytesSource

FILES = list(tricky_files())
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def test_there_are_many() -> None:
    assert len({file.name for file in FILES}) == len(FILES) >= 25
    assert {file.is_whole for file in FILES} == {True, False}


@EACH
@pytest.mark.parametrize("threads", [1, 2])
def test_what_we_say(file: TrickyFile, threads: int) -> None:
    if not file.data and not file.is_whole:
        with pytest.raises(CorruptImage):
            _ = Bzip2Reader(BytesSource(file.compressed), threads=threads).size
        return
    reader = Bzip2Reader(BytesSource(file.compressed), threads=threads)
    assert reader.read_at(0, len(file.data)) == file.data
    if file.is_whole:
        assert reader.size == len(file.data)
        assert bool(reader.problems) == ("after the end" in file.name)
    else:
        for _ in range(2):
            with pytest.raises(CorruptImage):
                reader.read_at(0, len(file.data) + 1)
        assert len(reader.problems) == 1
    reader.close()


@EACH
def test_what_the_standard_library_says(file: TrickyFile) -> None:
    """It stops at the first damage without what is before it, and takes no bytes at all for a file without data."""
    try:
        found = bz2.decompress(file.compressed)
    except (OSError, ValueError):
        assert not file.is_whole
    else:
        assert found == file.data
        assert file.is_whole or file.name == "nothing"


@EACH
def test_what_bzip2_says(file: TrickyFile) -> None:
    done = subprocess.run([require_tool("bzip2"), "-dc"], input=file.compressed, capture_output=True, check=False)
    if file.is_whole:
        assert done.stdout == file.data
    assert (done.returncode == 0) == file.is_whole
