"""XML from anyone: elements, attributes and text, without document types, so without entities.

expat expands entities that a document type declares, in each other (which needs little text for gigabytes) or from
files. None of the formats has a document type, so one is refused before anything of it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from vmvisor_image.errors import CorruptImage

LARGEST: Final = 1 << 24
"""Number of bytes of a file that are read."""
_DEEPEST: Final = 64
"""Largest number of elements in each other."""
_MOST_ELEMENTS: Final = 100_000
_MOST_ATTRIBUTES: Final = 256
"""Largest number of attributes of an element."""


@dataclass(slots=True)
class Element:
    """An element, by its name without its prefix."""

    name: str
    attributes: Mapping[str, str]
    """Attributes by name without prefix; of two with the same name, the first one."""
    line: int
    """Number of its line in the file."""
    children: list[Element] = field(default_factory=list)
    text: str = ""
    """Text directly in it, stripped."""

    def get(self, *names: str) -> Element | None:
        """First element on a path from here; None where there is none."""
        here: Element | None = self
        for name in names:
            here = None if here is None else next((each for each in here.children if each.name == name), None)
        return here

    def all(self, *names: str) -> Iterator[Element]:
        """Every element on a path from here."""
        first, *rest = names
        for each in self.children:
            if each.name == first:
                if rest:
                    yield from each.all(*rest)
                else:
                    yield each

    def text_of(self, *names: str) -> str | None:
        """Text of the first element on a path from here; None where there is none, or an empty one."""
        found = self.get(*names)
        return None if found is None else found.text or None

    def every(self) -> Iterator[Element]:
        """This element and all in it."""
        yield self
        for each in self.children:
            yield from each.every()


def looks_like_xml(data: bytes) -> bool:
    """Whether a file begins as XML, in any encoding that expat knows."""
    head = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    return head.startswith((b"<", b"\xfe\xff\0<", b"\xff\xfe<\0"))


class _Builder:
    """Handlers of expat, which refuse what no description needs."""

    def __init__(self, structure: str) -> None:
        self._structure = structure
        self._parser = expat.ParserCreate()  # without name spaces, as some writers use prefixes that they don't declare
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse_document_type
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._count = 0
        self._root: Element | None = None

    def parse(self, data: bytes) -> Element:
        try:
            self._parser.Parse(data, True)
        except (expat.ExpatError, ValueError, LookupError) as error:  # the others are of encodings that are unknown
            raise self._error(f"it is not well-formed XML: {error}") from error
        if self._root is None:
            raise self._error("it has no elements")
        return self._root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > _MOST_ELEMENTS or len(self._open) >= _DEEPEST or len(attributes) > _MOST_ATTRIBUTES:
            raise self._error("it has more elements or attributes than are read, or they are nested too deeply")
        own: dict[str, str] = {}
        for key, value in attributes.items():
            if not key.startswith("xmlns"):
                own.setdefault(_local(key), value)
        element = Element(_local(name), own, self._parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)
        self._texts.append([])

    def _end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def _text(self, text: str) -> None:
        self._texts[-1].append(text)

    def _refuse_document_type(self, *_: object) -> None:
        raise self._error("it has a document type, which could make it read other files or grow without end")

    def _error(self, message: str) -> CorruptImage:
        return CorruptImage(message, structure=self._structure, offset=max(0, self._parser.CurrentByteIndex))


def parse_xml(data: bytes, structure: str) -> Element:
    """Root element of a file.

    Raises:
        CorruptImage: It is not well-formed, has a document type, or more of anything than is read.
    """
    if len(data) > LARGEST:
        raise CorruptImage(f"it has more than the {LARGEST} bytes that are read", structure=structure, offset=LARGEST)
    return _Builder(structure).parse(data)


def _local(name: str) -> str:
    return name.rpartition(":")[2]
