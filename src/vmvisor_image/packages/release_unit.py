"""Base images and add-ons of ESXi 7 and later: collections of components, described in JSON.

The format is not documented, and no depot with such documents was at hand: names of folders and keys are those that
are known by word of mouth, and each may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from vmvisor_image.errors import CorruptImage
from vmvisor_image.packages.descriptor import parse_time

Kind = Literal["base image", "add-on"]
FOLDERS: Final[Mapping[str, Kind]] = MappingProxyType({"baseimages": "base image", "addons": "add-on"})
"""Kind of the documents in each folder of a bundle's metadata."""


@dataclass(frozen=True, slots=True)
class ReleaseUnit:
    """A base image, which is a release of ESXi, or an add-on, which is what a vendor of hosts adds to one."""

    kind: Kind
    id: str
    """Id, by which it is found; its name and version, or the name of its document, where it has none."""
    name: str | None
    version: str | None
    title: str | None
    """Name and version for people."""
    vendor: str | None
    released: datetime | None
    components: Mapping[str, str]
    """Version of each component by its name; see `Bundle.components`."""
    removed: tuple[str, ...]
    """Names of the components of the base image that an add-on removes."""

    def __hash__(self) -> int:
        return hash((self.kind, self.id))


def parse_release_unit(data: bytes, kind: Kind, name: str) -> ReleaseUnit:
    """A base image or add-on by its JSON.

    Args:
        data: Content of the document.
        kind: Kind that it is.
        name: Name of the document, without its suffix.

    Raises:
        CorruptImage: It is not JSON, or no object with components.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptImage(f"it is not JSON: {error}", structure=kind) from error
    if not isinstance(document, dict) or "components" not in document:
        raise CorruptImage("it has no list of components", structure=kind, field="components")
    own_name, version = _first(document, "name"), _first(document, "version")
    named = " ".join(filter(None, (own_name, version)))
    return ReleaseUnit(
        kind,
        _text(document.get("releaseID")) or named or name,
        own_name,
        version,
        _first(document, "uiString"),
        _text(document.get("vendor")),
        parse_time(_text(document.get("releaseDate"))),
        MappingProxyType(dict(_components(document["components"]))),
        tuple(name for name, _ in _components(document.get("removedComponents"))),
    )


def _first(document: Mapping[str, Any], key: str) -> str | None:
    """Text of a key of the document itself, or else of the first specification in it (``…Spec``) that has the key."""
    specifications = [each for name, each in document.items() if name.endswith("Spec") and isinstance(each, dict)]
    return next(filter(None, (_text(each.get(key)) for each in (document, *specifications))), None)


def _components(found: object) -> Iterator[tuple[str, str]]:
    """Name and version of each component: of an object, or of a list of names or objects."""
    if isinstance(found, dict):
        yield from ((name, _text(version) or "") for name, version in found.items())
    elif isinstance(found, list):
        for each in found:
            if isinstance(each, str):
                yield each, ""
            elif isinstance(each, dict) and (name := _text(each.get("name"))) is not None:
                yield name, _text(each.get("version")) or ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
