"""XML that nobody vouches for: elements and their text, without document types, entities or anything outside it."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from vmvisor_image.errors import CorruptImage

LARGEST_DOCUMENT: Final = 16 << 20
"""Most bytes of a document that is parsed; a package's description has a few kB."""
_DEEPEST: Final = 64
_MOST_ELEMENTS: Final = 500_000


def parse_xml(data: bytes, structure: str) -> Element:
    """Root element of a document.

    A document type is refused, and with it every entity except the five of XML itself: so nothing expands, and nothing
    outside the document is read. A namespace stands before a name as ``namespace}name``.

    Args:
        data: The document.
        structure: Name of what is parsed, for messages.

    Raises:
        CorruptImage: It is not XML, is cut off, declares a document type, or is too large; with the byte's offset.
    """
    if len(data) > LARGEST_DOCUMENT:
        raise CorruptImage(
            "it is too large for XML that is parsed in memory",
            structure=structure,
            expected=f"at most {LARGEST_DOCUMENT} bytes",
            found=len(data),
        )
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = count = 0

    def refuse(message: str) -> CorruptImage:
        return CorruptImage(message, structure=structure, offset=parser.CurrentByteIndex)

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEEPEST or count > _MOST_ELEMENTS:
            raise refuse(f"more than {_DEEPEST} elements in each other, or {_MOST_ELEMENTS} in all")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def document_type(*_given: object) -> None:
        raise refuse("it declares a document type, which could name entities and other files: it is refused")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise CorruptImage(f"it is not XML: {error}", structure=structure, offset=parser.ErrorByteIndex) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise CorruptImage(f"it can't be decoded: {error}", structure=structure, offset=0) from error
    return builder.close()


def text_of(parent: Element, name: str) -> str | None:
    """Text of the first child with that name, without white space around it; None for none or an empty one."""
    found = parent.find(name)
    text = "" if found is None else (found.text or "").strip()
    return text or None
