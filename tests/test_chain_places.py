"""The places of a chain's bytes, which are found once and kept for all disks together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from vmvisor_image import CorruptImage
from vmvisor_image.streams.linked import Parent
from vmvisor_image.streams.mapped import MappedDisk, Run
from vmvisor_image.streams.sources import BytesSource

UNIT = 1 << 16
SIZE = 8 * UNIT


@dataclass
class Link:
    """A disk in clusters of 4 KiB that holds some of them, all of one byte, and counts how often it is asked."""

    letter: bytes
    held: frozenset[int]
    damaged: frozenset[int] = frozenset()
    asked: list[int] = field(default_factory=list)

    def locate(self, offset: int, _: int) -> Run:
        self.asked.append(offset)
        number, within = divmod(offset, 4096)
        if number in self.damaged:
            raise CorruptImage("damaged", structure="table", offset=number)
        if number in self.held:
            return Run(4096 - within, offset)
        count = 1
        while number + count not in self.held | self.damaged and count < SIZE // 4096:
            count += 1
        return Run(4096 * count - within, is_hole=True)

    def disk(self, below: MappedDisk | None) -> MappedDisk:
        parent = None if below is None else Parent("test", None, below)
        return MappedDisk("test", BytesSource(self.letter * SIZE), SIZE, self.locate, parent=parent)


def chain(*links: Link) -> tuple[MappedDisk, Callable[[], int]]:
    disk = None
    for link in links:
        disk = link.disk(disk)
    assert disk is not None

    def asked() -> int:
        found = sum(len(link.asked) for link in links)
        for link in links:
            link.asked.clear()
        return found

    return disk, asked


def five(damaged: frozenset[int] = frozenset()) -> list[Link]:
    held = [frozenset(range(SIZE // 4096)), *(frozenset({n, 16 + n, 100 + n}) for n in range(4))]
    return [Link(b"abcde"[n : n + 1], each, damaged if n == 4 else frozenset()) for n, each in enumerate(held)]


def test_a_place_is_found_once_for_the_whole_chain() -> None:
    disk, asked = chain(*five())
    assert asked() == 0
    for _ in range(2):
        found = b"".join(disk.read_at(at, UNIT) for at in range(0, SIZE, UNIT))
    assert found[::4096][:6] == b"bcdeaa"
    asked()
    whole = disk.read_at(5 * UNIT, 3 * UNIT)
    for at in (5 * UNIT + 17, 7 * UNIT, 6 * UNIT + 4095, 5 * UNIT + 512):
        asked()
        assert disk.read_at(at, 100) == whole[at - 5 * UNIT :][:100]
        disk.read_at(0, 1)
        asked()
        assert disk.read_at(at, 100) == whole[at - 5 * UNIT :][:100]
        assert asked() == 0


def test_reads_in_a_row_ask_a_link_once_for_each_of_its_holes() -> None:
    links = five()
    disk, _ = chain(*links)
    for at in range(0, SIZE, 4096):
        disk.read_at(at, 4096)
    # Three clusters, and the holes around them: one fewer where the disk begins with a cluster.
    assert [len(link.asked) for link in links[1:]] == [6, 7, 7, 7]


@pytest.mark.parametrize("first", [True, False])
def test_what_is_damaged_before_it_costs_nothing(*, first: bool) -> None:
    disk, _ = chain(*five(damaged=frozenset({32})))
    if first:
        with pytest.raises(CorruptImage, match="damaged"):
            disk.read_at(2 * UNIT, 1)
    assert disk.read_at(2 * UNIT + 4096, 8192) == b"a" * 8192
    assert disk.read_at(2 * UNIT + 8191, 1) == b"a"
    with pytest.raises(CorruptImage, match="damaged"):
        disk.read_at(2 * UNIT + 4095, 1)


def test_places_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmvisor_image.streams.mapped._MOST_PLACES", 3)
    disk, _ = chain(*five())
    for at in range(0, SIZE, 3000):
        disk.read_at(at, 1)
        assert len(disk._places) <= 3
