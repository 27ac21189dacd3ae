"""What every target does with its input: open, list, read a bounded amount, and let only documented errors pass."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator

from vmvisor_image import Archive, CorruptImage, FileTree, Image, LimitExceeded, NotAFileSystem, ReadAt, inspect
from vmvisor_image.streams.reading import knows_size, read_up_to
from vmvisor_image.streams.sources import BytesSource

MOST_READS = 200_000
"""Requests to the source in one run."""
MOST_BYTES = 1 << 30
"""Bytes read of the source in one run."""
_MOST_FILES = 300
_MOST_READ = 1 << 16
_PLACES = (0, 1, 511, 4096, 65_535, 1 << 20, 1 << 33, (1 << 63) - 1)


class UnboundedError(AssertionError):
    """More was read of the source than any input is worth."""


class Bounded:
    """A source that counts, and ends what reads it without end."""

    def __init__(self, source: bytes | ReadAt) -> None:
        self._source = BytesSource(source) if isinstance(source, bytes) else source
        self.size = self._source.size
        self.reads = self.bytes = 0

    def read_at(self, offset: int, length: int) -> bytes:
        data = self._source.read_at(offset, length)
        self.reads += 1
        self.bytes += length
        if self.reads > MOST_READS or self.bytes > MOST_BYTES:
            raise UnboundedError(f"{self.reads} reads of {self.bytes} bytes in all")
        return data

    def skip_zeros(self, offset: int, end: int) -> int:
        hint = getattr(self._source, "skip_zeros", None)
        return offset if hint is None else int(hint(offset, end))


@contextlib.contextmanager
def documented() -> Iterator[None]:
    """What may come out of a call on bad input, and nothing else."""
    with contextlib.suppress(CorruptImage, LimitExceeded):
        yield


def exercise_source(source: ReadAt, *, to_end: bool = True) -> None:
    """Read some ranges of a decoded source, and find its size where that is cheap or asked for."""
    for at in _PLACES:
        with documented():
            read_up_to(source, at, _MOST_READ)
    if to_end or knows_size(source):
        with documented():
            size = source.size
            assert size >= 0
            for at in {0, size // 2, max(0, size - 4096)}:
                length = min(4096, size - at)
                assert len(source.read_at(at, length)) == length
    assert all(str(problem) for problem in getattr(source, "problems", ()))


def exercise_tree(tree: FileTree) -> None:
    """List the files, look each up, and read both its ends."""
    with documented():
        for file in itertools.islice(tree.values(), _MOST_FILES):
            with documented():
                assert all(extent.length > 0 and extent.offset >= 0 for extent in file.extents)
            for at in (0, max(0, file.size - 4096)):
                with documented():
                    length = min(4096, file.size - at)
                    assert len(file.read_at(at, length)) == length
            assert file.modified is None or file.modified.isoformat()
            with documented():
                assert tree[file.path].path is not None
    assert all(str(problem) for problem in tree.problems)


def exercise_archive(archive: Archive) -> None:
    """List the members, and read the files."""
    with documented():
        assert archive.kind
        assert all(member.path for member in archive.members)
        assert all(isinstance(target, str) for target in archive.links.values())
    exercise_tree(archive)


def exercise_image(source: ReadAt) -> None:
    """Everything that can be asked of an image."""
    exercise_partitions(source)
    exercise_report(source)


def exercise_partitions(source: ReadAt) -> None:
    """What can be asked of an image's partitions and files."""
    with documented(), Image.open(source, threads=1) as image:
        assert image.scheme in ("mbr", "gpt", "none")
        for partition in image.partitions:
            assert partition.explain()
            assert partition.kind
            assert isinstance(partition.role.value, str)
            with contextlib.suppress(NotAFileSystem):
                exercise_tree(partition.files)
            with documented():
                partition.read_at(0, min(partition.size, 4096))
        assert all(str(problem) for problem in image.problems)


def exercise_report(source: ReadAt) -> None:
    """What `inspect` says of an image."""
    with documented():
        assert json.dumps(inspect(source, threads=1).to_dict())
