"""`@record`, and every record that the schemas declare: reading, building and explaining agree."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import pickle
import pkgutil
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmvisor_image import schemas
from vmvisor_image.errors import InvalidArgument, TruncatedImage
from vmvisor_image.record import U8, U16, U32, U64, Array, Bytes, Integer, Record, record
from vmvisor_image.schemas.mbr import MasterBootRecord, PartitionEntry
from vmvisor_image.testing.strategies import records


@record
class Inner(Record):
    """Two fields, three bytes."""

    kind: U8
    """A number."""
    number: U16
    """Another."""


@record
class Outer(Record):
    """All that a record may hold."""

    magic: Annotated[bytes, Bytes(4)]
    """Bytes."""
    first: Annotated[tuple[Inner, ...], Array(2)]
    """Records, from byte 4."""
    big: U64
    """An integer."""
    second: Annotated[tuple[Inner, ...], Array(1)]
    """Records, from byte 18."""
    small: U32
    """The last."""


@record
class Longer(Inner):
    """A record that goes on where another ends."""

    rest: Annotated[bytes, Bytes(2)]
    """Two bytes."""


WITHOUT_RECORDS = {"boot_cfg", "partition_types", "syslinux_cfg"}
"""Schemas of text, and of numbers that only have names."""
MODULES: list[ModuleType] = [
    importlib.import_module(module.name) for module in pkgutil.walk_packages(schemas.__path__, f"{schemas.__name__}.")
]


def _classes(module: ModuleType) -> list[type]:
    return [item for item in vars(module).values() if inspect.isclass(item) and item.__module__ == module.__name__]


RECORDS: list[type[Record]] = [
    *(Inner, Outer, Longer),
    *(item for module in MODULES for item in _classes(module) if issubclass(item, Record)),
]

every_record = pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)


def layouts(kind: type[Record]) -> dict[str, tuple[Integer | Bytes | Array, Any]]:
    """How each field lies on disk, and its type in Python; read from the annotations, not from the machinery."""
    hints = get_type_hints(kind, include_extras=True)
    own = (field.name for field in dataclasses.fields(kind) if not field.kw_only)
    return {name: (get_args(hints[name])[1], get_args(hints[name])[0]) for name in own}


def boundaries(kind: type[Record], path: str = "", start: int = 0) -> Iterator[tuple[int, str]]:
    """Where each innermost field ends, in bytes from the record's start, and its path; in order."""
    for name, (layout, python_type) in layouts(kind).items():
        match layout:
            case Integer(code):
                start += struct.calcsize(f"<{code}")
                yield start, f"{path}{name}"
            case Bytes(length):
                start += length
                yield start, f"{path}{name}"
            case Array(count):
                for _ in range(count):
                    for end, inner in boundaries(get_args(python_type)[0], f"{path}{name} -> ", start):
                        yield end, inner
                    start = end


class TestEverySchema:
    """What fails when a new schema is out of reach of these tests, or says less than it should."""

    def test_there_are_schemas(self) -> None:
        assert MasterBootRecord in RECORDS

    @pytest.mark.parametrize(
        "module",
        [each for each in MODULES if each.__name__.rpartition(".")[2] not in WITHOUT_RECORDS],
        ids=lambda module: module.__name__.rpartition(".")[2],
    )
    def test_module_declares_records_that_are_tested(self, module: ModuleType) -> None:
        declared = [node.name for node in ast.walk(_tree(module)) if isinstance(node, ast.ClassDef)]
        assert declared
        tested = {kind.__name__ for kind in RECORDS if kind.__module__ == module.__name__}
        assert set(declared) == tested

    @pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
    def test_module_tells_its_sources(self, module: ModuleType) -> None:
        assert "Source" in (module.__doc__ or "")

    @every_record
    def test_is_decorated(self, kind: type[Record]) -> None:
        # Without @record a class inherits its parent's fields and hides its own.
        assert set(inspect.get_annotations(kind)) <= {field.name for field in dataclasses.fields(kind)}

    @every_record
    def test_each_field_says_what_it_means(self, kind: type[Record]) -> None:
        [body] = [
            node.body
            for node in ast.walk(_tree(inspect.getmodule(kind)))
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__
        ]
        fields = [(node, after) for node, after in itertools.pairwise([*body, None]) if isinstance(node, ast.AnnAssign)]
        silent = [ast.unparse(node) for node, after in fields if not _is_text(after)]
        assert not silent

    @every_record
    def test_length_is_that_of_its_fields(self, kind: type[Record]) -> None:
        *_, (end, _) = boundaries(kind)
        assert kind.length() == end == kind.schema().sizeof()


def _tree(module: ModuleType | None) -> ast.Module:
    assert module is not None
    return ast.parse(inspect.getsource(module))


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@every_record
class TestEveryRecord:
    @given(st.data())
    def test_parse_gives_back_what_build_wrote(self, kind: type[Record], data: st.DataObject) -> None:
        made = data.draw(records(kind))
        assert kind.parse(made.build()) == made

    @given(st.data())
    def test_build_gives_back_what_parse_read(self, kind: type[Record], data: st.DataObject) -> None:
        raw = data.draw(st.binary(min_size=kind.length(), max_size=kind.length()))
        read = kind.parse(raw)
        assert read.build() == raw
        assert read.raw == raw

    @given(st.data())
    def test_both_ways_of_reading_agree(self, kind: type[Record], data: st.DataObject) -> None:
        raw = data.draw(st.binary(min_size=kind.length(), max_size=kind.length()))
        assert kind.parse(raw) == kind.parse_with_construct(raw)

    @given(st.data())
    def test_knows_where_it_was_read(self, kind: type[Record], data: st.DataObject) -> None:
        before, after = data.draw(st.binary(max_size=20)), data.draw(st.binary(max_size=20))
        raw = data.draw(st.binary(min_size=kind.length(), max_size=kind.length()))
        base = data.draw(st.integers(0, 1 << 48))
        read = kind.parse(before + raw + after, len(before), base=base)
        assert read == kind.parse(raw)
        assert read.raw == raw
        assert read.source_offset == base + len(before)

    @given(st.data())
    def test_reads_many(self, kind: type[Record], data: st.DataObject) -> None:
        made = data.draw(st.lists(records(kind), max_size=4))
        rest = data.draw(st.binary(max_size=kind.length() - 1))
        read = list(kind.parse_all(b"".join(value.build() for value in made) + rest, base=1000))
        assert read == made
        assert [value.source_offset for value in read] == [1000 + index * kind.length() for index in range(len(made))]

    def test_names_the_field_in_which_the_input_ends(self, kind: type[Record]) -> None:
        start = 0
        for end, path in boundaries(kind):
            for length in {start, end - 1}:
                with pytest.raises(TruncatedImage) as caught:
                    kind.parse(bytes(9 + length), 9, base=0x100)
                error = caught.value
                assert (error.structure, error.field, error.offset) == (kind.__name__, path, 0x109)
                assert (error.expected, error.found) == (f"{kind.length()} bytes", str(length))
            start = end

    def test_refuses_to_build_what_does_not_fit(self, kind: type[Record]) -> None:
        whole = kind.parse(bytes(kind.length()))
        for name, (layout, _) in layouts(kind).items():
            value = getattr(whole, name)
            bad: list[Any] = [None]
            match layout:
                case Integer(code):
                    bad += [-1, 256 ** struct.calcsize(f"<{code}"), "1"]
                case Bytes():
                    bad += [value + b"\0", value[:-1], value.decode(), 5]
                case Array():
                    bad += [(*value, value[0]), value[:-1], 5, "text", (None,) * len(value)]
            for item in bad:
                with pytest.raises(InvalidArgument, match=rf"^{kind.__name__} can't be built: (?s:.)*\b{name}\b"):
                    dataclasses.replace(whole, **{name: item}).build()

    @given(st.data())
    def test_is_a_value(self, kind: type[Record], data: st.DataObject) -> None:
        made = data.draw(records(kind))
        read = kind.parse(made.build(), base=5)
        assert hash(read) == hash(made)
        again = pickle.loads(pickle.dumps(read))
        assert (again, again.source_offset, again.raw) == (read, 5, read.raw)

    def test_tells_its_layout(self, kind: type[Record]) -> None:
        assert [(field.name, field.layout) for field in kind.layout()] == [
            (name, layout) for name, (layout, _) in layouts(kind).items()
        ]
        ends = [field.offset + field.length for field in kind.layout()]
        assert [field.offset for field in kind.layout()] == [0, *ends[:-1]]
        assert ends[-1] == kind.length()

    def test_is_frozen_and_slotted(self, kind: type[Record]) -> None:
        made = kind.parse(bytes(kind.length()))
        assert not hasattr(made, "__dict__")
        for name in (*layouts(kind), "source_offset", "raw"):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(made, name, getattr(made, name))


def test_integers_are_little_endian_and_unpadded() -> None:
    raw = b"MAGI" + b"\x01\x02\x01" + b"\x03\x04\x03" + bytes(range(1, 9)) + b"\x05\x06\x05" + b"\xff\0\0\x80"
    assert Outer.parse(raw) == Outer(
        magic=b"MAGI",
        first=(Inner(kind=1, number=0x0102), Inner(kind=3, number=0x0304)),
        big=0x0807060504030201,
        second=(Inner(kind=5, number=0x0506),),
        small=0x800000FF,
    )


def test_nested_records_know_where_they_were_read() -> None:
    raw = bytes(range(Outer.length()))
    outer = Outer.parse(b"??" + raw, 2, base=1000)
    assert outer.source_offset == 1002
    assert [inner.source_offset for inner in outer.first] == [1006, 1009]
    assert [inner.source_offset for inner in outer.second] == [1020]
    assert [inner.raw for inner in (*outer.first, *outer.second)] == [raw[4:7], raw[7:10], raw[18:21]]


def test_partition_entries_know_where_they_were_read() -> None:
    table = MasterBootRecord.parse(bytes(512), base=0x10000)
    assert [entry.source_offset for entry in table.entries] == [0x10000 + at for at in (446, 462, 478, 494)]


def test_a_made_record_has_no_place() -> None:
    made = Inner(kind=1, number=2)
    assert (made.source_offset, made.raw) == (None, b"")


def test_place_and_bytes_do_not_count_in_comparisons() -> None:
    made = Inner(kind=1, number=2)
    read = Inner.parse(made.build(), base=99)
    assert read == made
    assert repr(read) == repr(made) == "Inner(kind=1, number=2)"


def test_fields_of_the_parent_come_first() -> None:
    assert Longer.parse(b"\1\2\3\4\5") == Longer(kind=1, number=0x0302, rest=b"\4\5")


def test_parse_reads_a_memoryview() -> None:
    read = Inner.parse(memoryview(b"\0\1\2\3"), 1)
    assert read == Inner(kind=1, number=0x0302)
    assert type(read.raw) is bytes


def test_parse_all_of_a_memoryview() -> None:
    assert [inner.kind for inner in Inner.parse_all(memoryview(b"\1\0\0\2\0\0\3"))] == [1, 2]


def test_parse_past_the_end_finds_nothing() -> None:
    with pytest.raises(TruncatedImage) as caught:
        Inner.parse(b"\1\2\3", 3)
    assert (caught.value.field, caught.value.found) == ("kind", "0")


def test_parse_refuses_a_negative_offset() -> None:
    with pytest.raises(InvalidArgument, match="negative"):
        Inner.parse(bytes(10), -3)


def test_building_names_the_field_of_a_nested_record() -> None:
    table = MasterBootRecord.parse(bytes(512))
    bad = dataclasses.replace(table.entries[0], first_lba=1 << 32)
    with pytest.raises(InvalidArgument, match="entries -> first_lba"):
        dataclasses.replace(table, entries=(*table.entries[:3], bad)).build()


@pytest.mark.parametrize("annotation", [int, Annotated[int, "in words"]])
def test_a_field_must_say_how_it_lies_on_disk(annotation: Any) -> None:
    plain: type[Record] = record(type("Plain", (Record,), {"__annotations__": {"value": annotation}}))
    with pytest.raises(TypeError, match=r"Plain\.value does not say how it lies on disk"):
        plain.length()


def test_a_real_entry() -> None:
    """The boot partition of a real ESXi 4 disk, as its fdisk printed it: active, type 04, sectors 32 to 8191."""
    entry = PartitionEntry.parse(bytes.fromhex("80 01 01 00 04 3f 20 03 20 00 00 00 e0 1f 00 00"))
    assert (entry.boot_flag, entry.type_code, entry.first_lba, entry.sectors) == (0x80, 0x04, 32, 8160)
