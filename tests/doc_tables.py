"""Tables in the docs that are made from the code; ``python -m tests.doc_tables`` makes them anew, a test compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.gallery import GALLERY, said
from tests.malformed_tables import CASES
from tests.support import REPOSITORY
from vmvisor_image import PARTITION_TYPES, Image
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.disk.purpose import LAYOUTS, ROLE_BY_TYPE
from vmvisor_image.disk.tables.find import TABLES
from vmvisor_image.examine.signatures import Format
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.schemas.partition_types import partition_type
from vmvisor_image.volumes.formats import VOLUMES
from vmvisor_image.volumes.magics import SIGNATURES

_BEGIN, _END = "<!-- made by tests/doc_tables.py -->", "<!-- end -->"


def malformed_tables() -> str:
    """What is said of each damaged table."""
    rows = ["| damage | partitions that stay | what the library says |", "|---|---|---|"]
    for case in CASES:
        with Image.open(case.build()) as image:
            said = "<br>".join(str(problem).replace("|", "\\|") for problem in image.problems)
        rows.append(f"| {case.name} | {', '.join(map(str, case.readable)) or 'none'} | {said} |")
    return "\n".join(rows)


def partition_types() -> str:
    """Every type that has a name."""
    rows = ["| type | name | role |", "|---|---|---|"]
    for key, name in PARTITION_TYPES.items():
        role = ROLE_BY_TYPE.get(key)
        rows.append(
            f"| `{key if not isinstance(key, int) else f'{key:#04x}'}` | {name} | {role.value if role else ''} |"
        )
    return "\n".join(rows)


def layouts() -> str:
    """Every layout that is recognised."""
    rows = ["| generation | partition | type | first sector | role |", "|---|---:|---|---|---|"]
    for layout in LAYOUTS:
        for number, (key, places) in sorted(layout.required.items()):
            role = layout.roles.get(number) or ROLE_BY_TYPE[key]
            places_text = " or ".join(map(str, places))
            rows.append(
                f"| {layout.generation.value} | {number} | {partition_type(key)} | {places_text} | {role.value} |"
            )
    return "\n".join(rows)


def signatures() -> str:
    """Every magic that is looked for."""
    rows = ["| kind | what it is | offset | magic |", "|---|---|---|---|"]
    rows += [
        f"| `{signature.kind}` | {signature.name} | {signature.offset:#x} | `{signature.magic.hex(' ')}` |"
        for signature in SIGNATURES
    ]
    return "\n".join(rows)


def formats() -> str:
    """Every format that is read, and the source of what is known of it."""
    rooms: tuple[tuple[str, Sequence[Format]], ...] = (
        ("compression", COMPRESSIONS),
        ("archive", ARCHIVES),
        ("virtual disk", VIRTUAL_DISKS),
        ("partition table", TABLES),
        ("volume", VOLUMES),
    )
    rows = ["| what | format | `kind` | suffixes | sources |", "|---|---|---|---|---|"]
    for room, found in rooms:
        for each in found:
            suffixes = ", ".join(f"`{suffix}`" for suffix in each.SUFFIXES)
            rows.append(f"| {room} | {each.NAME} | `{each.KIND}` | {suffixes} | {'; '.join(each.REFERENCES)} |")
    return "\n".join(rows)


def gallery_rows() -> list[str]:
    """The case and what we say of it, for each case of the gallery; tools/gallery_page.py adds what others say."""
    return [f"| {case.name} | {said(case).text()}" for case in GALLERY]


PAGES: Final[Mapping[str, tuple[Callable[[], str], ...]]] = {
    "docs/media.md": (formats,),
    "docs/malformed-tables.md": (malformed_tables,),
    "docs/partitions.md": (layouts, partition_types, signatures),
}


def with_tables(text: str, tables: tuple[Callable[[], str], ...]) -> str:
    """A page with its tables made anew."""
    parts = text.split(_BEGIN)
    assert len(parts) == len(tables) + 1, "a page has a place for each of its tables"
    out = [parts[0]]
    for part, table in zip(parts[1:], tables, strict=True):
        _, end, rest = part.partition(_END)
        assert end, "a table's place has an end"
        out.append(f"{_BEGIN}\n\n{table()}\n\n{_END}{rest}")
    return "".join(out)


if __name__ == "__main__":
    for name, tables in PAGES.items():
        path = REPOSITORY / name
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
