"""`@record`: one annotated dataclass is an on-disk structure's schema, its type and its documentation.

A record is a frozen, slotted dataclass whose fields are annotated with their layout on disk: in order, without
padding, and with little-endian integers unless the class says otherwise::

    @record
    class PartitionEntry(Record):
        boot_flag: U8
        first_chs: Annotated[bytes, Bytes(3)]
        first_lba: U32

From these annotations come a `struct.Struct`, which reads records (fast), and a construct `Struct`
(`Record.schema`), which builds them and names the field at which an input is too short. construct is imported
when it is first needed. A property test checks that both read the same values and that ``parse(build(x)) == x``.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.shown import Shown
from vmvisor_image.errors import CorruptImage, InvalidArgument, TruncatedImage

R = TypeVar("R", bound="Record")
ByteOrder = Literal["little", "big"]
_PREFIXES = {"little": "<", "big": ">"}


@dataclasses.dataclass(frozen=True, slots=True)
class Integer:
    """An unsigned integer in the byte order of its record; `code` is its `struct` format character."""

    code: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bytes:
    """Field of `length` bytes, kept as they are."""

    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """Field of `count` consecutive records of one type; its Python type is ``tuple[ThatRecord, ...]``."""

    count: int


U8 = Annotated[int, Integer("B")]
"""Unsigned 8-bit integer."""
U16 = Annotated[int, Integer("H")]
"""Unsigned 16-bit integer."""
U32 = Annotated[int, Integer("I")]
"""Unsigned 32-bit integer."""
U64 = Annotated[int, Integer("Q")]
"""Unsigned 64-bit integer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """Layout of one field of a record on disk."""

    name: str
    offset: int
    """Bytes from the record's start to the field."""
    layout: Integer | Bytes | Array
    element: type[Record] | None
    """Record type of an array's elements; None for any other field."""

    @property
    def length(self) -> int:
        """Size on disk, in bytes."""
        return struct.calcsize(f"<{self._code}")

    @property
    def _code(self) -> str:
        match self.layout:
            case Integer(code):
                return code
            case Bytes(length):
                return f"{length}s"
            case Array(count):
                assert self.element is not None  # _field made it so
                return f"{count * self.element.length()}s"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Record(Shown):
    """Base of every on-disk structure.

    Attributes:
        source_offset: Bytes to the record from the start of the decoded disk (or from the base that the caller of
            `parse` chose); None for a record that was made rather than read.
        raw: Bytes of the record as they were read; empty for a record that was made.
    """

    source_offset: int | None = dataclasses.field(default=None, compare=False, repr=False)
    raw: bytes = dataclasses.field(default=b"", compare=False, repr=False)
    byte_order: ClassVar[ByteOrder] = "little"
    """Byte order of the record's integers; a class with big-endian integers sets it to "big"."""

    # Written once, where a dataclass would generate them anew for each of 70 types, at each start.
    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._named_values() == other._named_values()

    def __hash__(self) -> int:
        return hash(tuple(self._named_values().values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._named_values().items())
        return f"{type(self).__qualname__}({shown})"

    def _named_values(self) -> dict[str, Any]:
        """Values of the record's fields by their names, in order."""
        names: tuple[str, ...] = self.__match_args__
        return {name: getattr(self, name) for name in names}

    @classmethod
    def length(cls) -> int:
        """Size on disk, in bytes."""
        return cls._plan().struct.size

    @classmethod
    def layout(cls) -> tuple[Field, ...]:
        """Fields of the record, in order and without gaps."""
        return cls._plan().fields

    @classmethod
    def schema(cls) -> Any:
        """Construct `Struct` of this record."""
        return cls._plan().schema

    @classmethod
    def parse(cls, data: bytes | memoryview, offset: int = 0, *, base: int = 0) -> Self:
        """Read one record.

        Args:
            data: Bytes that hold the record.
            offset: Bytes from the start of `data` to the record.
            base: Bytes from the start of the disk to `data`; the record's `source_offset` is ``base + offset``.

        Raises:
            TruncatedImage: `data` ends within the record; the message names the field.
            InvalidArgument: `offset` is negative.
        """
        layout = cls._plan().struct
        if offset < 0:
            raise InvalidArgument(f"offset must not be negative: {offset}")
        if len(data) - offset < layout.size:
            raise _explain_short(cls, bytes(data[offset:]), base + offset)
        raw = bytes(data[offset : offset + layout.size])
        return cls._of(layout.unpack(raw), raw, base + offset)

    @classmethod
    def parse_all(cls, data: bytes | memoryview, *, base: int = 0) -> Iterator[Self]:
        """Read the consecutive records in `data`; a remainder shorter than a record is left out."""
        layout = cls._plan().struct
        whole = bytes(data[: len(data) - len(data) % layout.size])
        for at, values in zip(range(0, len(whole), layout.size), layout.iter_unpack(whole), strict=True):
            yield cls._of(values, whole[at : at + layout.size], base + at)

    @classmethod
    def parse_with_construct(cls, data: bytes) -> Self:
        """Read one record through its construct schema: slower than `parse`, with the same values.

        Raises:
            construct.ConstructError: `data` does not fit the schema.
        """
        return _from_container(cls, cls.schema().parse(data))

    def build(self) -> bytes:
        """Bytes of the record on disk.

        Raises:
            InvalidArgument: A value does not fit its field; the message names it.
        """
        import construct

        try:
            return bytes(self.schema().build(_to_plain(self)))
        except construct.ConstructError as error:
            raise InvalidArgument(f"{type(self).__name__} can't be built: {error}") from error

    @classmethod
    def _plan(cls) -> _Plan:
        plan: _Plan | None = cls.__dict__.get("_plan_of_type")
        if plan is None:
            plan = _Plan(cls)
            setattr(cls, "_plan_of_type", plan)  # noqa: B010  # of the class: its instances are slotted
        return plan

    @classmethod
    def _of(cls, values: tuple[Any, ...], raw: bytes, at: int) -> Self:
        nested = cls._plan().nested
        if nested:
            changed = list(values)
            for index, start, element in nested:
                changed[index] = tuple(element.parse_all(changed[index], base=at + start))
            values = tuple(changed)
        return cls(*values, source_offset=at, raw=raw)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[R]) -> type[R]:
    """Make an annotated subclass of `Record` a frozen, slotted dataclass with a schema."""
    return dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)(cls)


class _Plan:
    """Fields, `struct.Struct` and schema of a record type, made once from its annotations at its first use."""

    def __init__(self, cls: type[Record]) -> None:
        hints = get_type_hints(cls, include_extras=True)
        own = [field.name for field in dataclasses.fields(cls) if field.name not in ("source_offset", "raw")]
        fields: list[Field] = []
        for name in own:
            offset = fields[-1].offset + fields[-1].length if fields else 0
            fields.append(_field(cls, name, hints[name], offset))
        self.fields = tuple(fields)
        self.struct = struct.Struct(_PREFIXES[cls.byte_order] + "".join(field._code for field in self.fields))
        self.byte_order: ByteOrder = cls.byte_order
        self.nested = tuple(
            (index, field.offset, field.element) for index, field in enumerate(self.fields) if field.element is not None
        )
        """Index, byte offset and record type of each field that holds records."""

    @cached_property
    def schema(self) -> Any:
        """Construct `Struct` of the record type."""
        import construct

        numbers = (construct.Int8ul, construct.Int16ul, construct.Int32ul, construct.Int64ul)
        if self.byte_order == "big":
            numbers = (construct.Int8ub, construct.Int16ub, construct.Int32ub, construct.Int64ub)
        integers = dict(zip("BHIQ", numbers, strict=True))

        def subconstruct(field: Field) -> Any:
            match field.layout:
                case Integer(code):
                    return integers[code]
                case Bytes(length):
                    return construct.Bytes(length)
                case Array(count):
                    assert field.element is not None  # _field made it so
                    return construct.Array(count, field.element.schema())

        return construct.Struct(*(field.name / subconstruct(field) for field in self.fields))


def _field(cls: type[Record], name: str, hint: Any, offset: int) -> Field:
    layout = next((part for part in get_args(hint)[1:] if isinstance(part, Integer | Bytes | Array)), None)
    if get_origin(hint) is not Annotated or layout is None:
        raise TypeError(f"{cls.__name__}.{name} does not say how it lies on disk")
    return Field(name, offset, layout, get_args(get_args(hint)[0])[0] if isinstance(layout, Array) else None)


def _from_container(cls: type[R], container: Any) -> R:
    values = {}
    for field in cls._plan().fields:
        value = container[field.name]
        if field.element is not None:
            value = tuple(_from_container(field.element, item) for item in value)
        values[field.name] = value
    return cls(**values)


def _to_plain(value: Record) -> dict[str, Any]:
    plain = {}
    for field in type(value)._plan().fields:
        item = getattr(value, field.name)
        plain[field.name] = item
        if isinstance(field.layout, Bytes) and isinstance(item, int):  # construct would make big-endian bytes of it
            raise InvalidArgument(f"{type(value).__name__} can't be built: {field.name} must be bytes, not {item}")
        if field.element is not None:
            if not (isinstance(item, tuple) and all(isinstance(part, field.element) for part in item)):
                raise InvalidArgument(
                    f"{type(value).__name__} can't be built: {field.name} must be a tuple of {field.element.__name__}"
                )
            plain[field.name] = [_to_plain(part) for part in item]
    return plain


def _explain_short(cls: type[Record], data: bytes, at: int) -> CorruptImage:
    import construct

    try:
        cls.schema().parse(data)
    except construct.ConstructError as error:
        path = str(error.path or "").removeprefix("(parsing) -> ")
    return TruncatedImage(
        "the data ends within this structure",
        structure=cls.__name__,
        offset=at,
        field=path or None,
        expected=f"{cls.length()} bytes",
        found=f"{len(data)}",
    )
