"""Image profiles: which packages a system is made of, and which file of a boot bank each payload is.

Source: the image database of an installer of ESXi 6.7; vmware/weasel, cache.py, read for the facts.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from vmvisor_image.base.xml_tree import parse_xml
from vmvisor_image.errors import CorruptImage
from vmvisor_image.packages.descriptor import parse_time

STRUCTURE: Final = "image profile"


@dataclass(frozen=True, slots=True)
class ImageProfile:
    """An image profile."""

    name: str
    creator: str | None
    acceptance_level: str | None
    """Lowest acceptance level of a package that it takes."""
    created: datetime | None
    description: str | None
    payload_files: Mapping[str, Mapping[str, str]]
    """Name of the file in a boot bank by the payload's name, by the id of the package."""

    @property
    def vib_ids(self) -> tuple[str, ...]:
        """Ids of its packages."""
        return tuple(self.payload_files)

    def __hash__(self) -> int:
        return hash((self.name, self.vib_ids))


def parse_profile(data: bytes) -> ImageProfile:
    """An image profile by its XML.

    Raises:
        CorruptImage: It is not XML, or not an image profile.
    """
    root = parse_xml(data, STRUCTURE)
    name = root.text_of("name")
    if root.name != "imageprofile" or name is None:
        raise CorruptImage(
            "it is no image profile, or has no name", structure=STRUCTURE, expected="imageprofile", found=root.name
        )
    payloads: dict[str, Mapping[str, str]] = {}
    for vib in root.all("viblist", "vib"):
        if (vib_id := vib.text_of("vib-id")) is not None:
            files = {each.attributes.get("payload-name", ""): each.text for each in vib.all("payloads", "payload")}
            payloads[vib_id] = MappingProxyType(files)
    return ImageProfile(
        name,
        root.text_of("creator"),
        root.text_of("acceptancelevel"),
        parse_time(root.text_of("creationtime")),
        root.text_of("description"),
        MappingProxyType(payloads),
    )


def format_profile(profile: ImageProfile) -> bytes:
    """XML of an image profile, in the order of a profile of ESXi 6.7."""
    fields = {
        "name": profile.name,
        "creator": profile.creator,
        "creationtime": None if profile.created is None else profile.created.isoformat(),
        "description": profile.description,
    }
    lines = ["<imageprofile>"]
    lines += [f"  <{key}>{_escaped(value)}</{key}>" for key, value in fields.items() if value is not None]
    lines.append("  <viblist>")
    for vib_id, files in profile.payload_files.items():
        lines.append(f"    <vib><vib-id>{_escaped(vib_id)}</vib-id><payloads>")
        lines += [
            f'      <payload payload-name="{_attribute(name)}">{_escaped(file)}</payload>'
            for name, file in files.items()
        ]
        lines.append("    </payloads></vib>")
    lines.append("  </viblist>")
    if profile.acceptance_level is not None:
        lines.append(f"  <acceptancelevel>{_escaped(profile.acceptance_level)}</acceptancelevel>")
    return "".join(f"{line}\n" for line in [*lines, "</imageprofile>"]).encode()


def _escaped(text: str) -> str:
    # xml.sax.saxutils has these two functions, and imports all that HTTP needs.
    return html.escape(_legible(text), quote=False)


def _attribute(text: str) -> str:
    return html.escape(_legible(text)).replace("\n", "&#10;").replace("\t", "&#9;")


def _legible(text: str) -> str:
    """Text without characters that XML does not have; it was read from XML, so that there are none."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
