"""Addresses of VMFS, bit by bit, and the generations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass

import pytest

from vmvisor_image.volumes.vmfs.addresses import (
    DESCRIPTOR,
    FBB,
    FDC,
    FILE_BLOCK,
    LARGE_BLOCK,
    PB2,
    PBC,
    POINTER_BLOCK,
    ROOT,
    SBC,
    SECONDARY_POINTER_BLOCK,
    SUB_BLOCK,
    Address,
    BlockAddress,
    ResourceAddress,
    kind_of,
    parse_descriptor,
    parse_pointer_5,
    parse_pointer_6,
)
from vmvisor_image.volumes.vmfs.geometry import by_file_system, by_volume_manager, read_as

Bits = dict[str, range]
"""Bits of each field, the lowest first."""

RESOURCE_5: Bits = {"dense": range(3, 5), "cluster": range(6, 28), "resource": range(28, 32)}
RESOURCE_6: Bits = {"cluster": range(6, 42), "resource": range(56, 64)}
BLOCK_6: Bits = {"to_zero": range(7, 15), "number": range(15, 46)}


@pytest.mark.parametrize(
    ("parse", "kind", "width", "bits"),
    [
        (parse_descriptor, DESCRIPTOR, 32, {"cluster": range(6, 22), "resource": range(22, 32)}),
        (parse_pointer_5, FILE_BLOCK, 32, {"to_zero": range(5, 6), "number": range(6, 32)}),
        (parse_pointer_5, SUB_BLOCK, 32, RESOURCE_5),
        (parse_pointer_5, POINTER_BLOCK, 32, RESOURCE_5),
        (parse_pointer_5, SECONDARY_POINTER_BLOCK, 32, RESOURCE_5),
        (parse_pointer_6, FILE_BLOCK, 64, {**BLOCK_6, "resource": range(51, 64)}),
        (parse_pointer_6, LARGE_BLOCK, 64, BLOCK_6),
        (parse_pointer_6, SUB_BLOCK, 64, RESOURCE_6),
        (parse_pointer_6, POINTER_BLOCK, 64, RESOURCE_6),
        (parse_pointer_6, SECONDARY_POINTER_BLOCK, 64, RESOURCE_6),
    ],
)
def test_each_bit_belongs_to_one_field(parse: Callable[[int], Address], kind: int, width: int, bits: Bits) -> None:
    none = parse(kind)
    assert is_dataclass(none)
    assert kind_of(kind) == kind
    assert [getattr(none, name) for name in bits] == [0] * len(bits)
    for bit in range(3, width):
        found = parse(kind | 1 << bit)
        changed = {
            field.name: getattr(found, field.name)
            for field in fields(none)
            if getattr(found, field.name) != getattr(none, field.name)
        }
        assert changed == {name: 1 << bit - place.start for name, place in bits.items() if bit in place}


def test_what_an_address_leads_to() -> None:
    assert parse_pointer_5(FILE_BLOCK) == BlockAddress(0, 0, 0, is_large=False)
    assert parse_pointer_6(LARGE_BLOCK) == BlockAddress(0, 0, 0, is_large=True)
    assert parse_pointer_5(LARGE_BLOCK) == ResourceAddress(LARGE_BLOCK, 0, 0, 0), "VMFS 3 and 5 know none"
    for parse in (parse_pointer_5, parse_pointer_6):
        for kind in (0, SUB_BLOCK, POINTER_BLOCK, DESCRIPTOR, SECONDARY_POINTER_BLOCK, 6):
            found = parse(kind)
            assert isinstance(found, ResourceAddress)
            assert found.kind == kind


def test_the_system_files_are_the_first_of_the_first_cluster() -> None:
    """Their places are those that ``debugvmfs`` shows, but for that of the secondary pointer blocks."""
    places = [parse_descriptor(address) for address in (ROOT, FBB, FDC, PBC, SBC, PB2)]
    assert places == [ResourceAddress(DESCRIPTOR, 0, number, 0) for number in (0, 1, 2, 3, 4, 6)]


def test_a_version_that_is_not_known_is_read_as_the_one_before() -> None:
    assert [read_as(version).number for version in (0, 4, 13, 14, 23, 24, 99)] == [3, 3, 3, 5, 5, 6, 6]
    known = {version: found.kind for version in range(100) if (found := by_file_system(version)) is not None}
    assert known == {4: "vmfs3", 14: "vmfs5", 24: "vmfs6"}
    known = {version: found.kind for version in range(100) if (found := by_volume_manager(version)) is not None}
    assert known == {3: "vmfs3", 5: "vmfs5", 6: "vmfs6"}
