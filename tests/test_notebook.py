"""How things look in a notebook, in a browser and in a terminal."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any

import pytest
from PIL import Image as Picture
from rich.console import Console

from tests import notebook_page
from tests.test_purpose import BOOT, DISKS, bank
from vmvisor_image import Hexdump, Image
from vmvisor_image.examine.survey import survey
from vmvisor_image.faces import notebook
from vmvisor_image.faces.shared import ROLE_COLORS
from vmvisor_image.machines.machine import DescribedSnapshot, Description, DiskDevice
from vmvisor_image.machines.virtual_machine import Machine
from vmvisor_image.record import U8, Array, Record, record
from vmvisor_image.schemas.gpt import GptHeader
from vmvisor_image.schemas.partition_types import BASIC_DATA
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import esx35_disk, fat_volume
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk
from vmvisor_image.testing.forge_vmfs import vmfs_headers

HOSTILE = "<script>x</script>'\"&\u202e"


class Checker(HTMLParser):
    """Collects tags and text, and finds tags that are not closed."""

    VOID = frozenset({"br", "meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def check(html: str) -> Checker:
    """Well-formed, self-contained, and without scripts."""
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    for tag, attributes in checker.tags:
        assert tag in {
            *("style", "div", "span", "b", "p", "pre", "br", "ul", "li", "details", "summary"),
            *("table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "text", "title"),
        }
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
    assert "url(" not in html
    assert "@import" not in html
    return checker


def faces(image: Image) -> list[Any]:
    found: list[Any] = [image, image.partitions]
    for partition in image.partitions:
        found += [partition, partition.survey(blocks=16), partition.hexdump(0, 600), *partition.records.values()]
        if partition.volume is not None and partition.kind.startswith("fat"):
            found.append(partition.files)
    return found


@pytest.mark.parametrize("name", DISKS)
def test_every_face_is_self_contained(name: str) -> None:
    with Image.open(DISKS[name][0]) as image:
        for face in faces(image):
            checker = check(face._repr_html_())
            assert checker.text.strip()


def hostile_disk() -> Image:
    volume = fat_volume({"a;b&c'.txt": b"x"}, sectors=2000, label="<B>&'\"")
    disk = gpt_disk(
        [
            GptPartition(1, BASIC_DATA, 64, 2000, HOSTILE),
            GptPartition(2, BASIC_DATA, 2200, 2000, "[red]x[/red]", content=volume),
        ],
        sectors=8192,
    )
    return Image.open(disk)


def test_names_from_the_image_are_text() -> None:
    with hostile_disk() as image:
        for face in faces(image):
            html = face._repr_html_()
            assert "<script" not in html
            assert "\u202e" not in html
            check(html)
        text = check(image._repr_html_()).text
        assert "<script>x</script>'\"&\\u202e" in text
        assert "<B>&'\"" in text


def test_names_from_the_image_are_no_markup_in_a_terminal() -> None:
    with hostile_disk() as image:
        shown = terminal(image)
        assert "<B>&'\"" in shown
        assert "\u202e" not in shown
        assert "[red]x[/red]" in terminal(image.partitions[2])


def test_a_machine_with_its_snapshots_as_a_tree() -> None:
    taken = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    snapshots = tuple(
        DescribedSnapshot(uid, name, HOSTILE if uid == 3 else "", taken, parent)
        for uid, name, parent in ((1, "first", None), (2, "other", 1), (3, "[red]third[/red]", 2), (4, "second", 1))
    )
    disks = (DiskDevice("scsi0:0", "<b>.vmdk", capacity=3 << 20), DiskDevice("sata0:0", None, note="not in a file"))
    description = Description("vmx", HOSTILE, "debian11-64", "efi", disks, snapshots, current=3)
    machine = Machine(description, None, {})
    checker = check(machine._repr_html_())
    assert "<script" not in machine._repr_html_()
    for text in (checker.text, terminal(machine)):
        places = [text.index(each) for each in ("first", "· other", "· · [red]third[/red] (current)", "· second")]
        assert places == sorted(places)
        assert "<script>x</script>'\"&\\u202e (debian11-64, efi)" in text
        assert "\u202e" not in text
        for part in ("3.0 MiB", "<b>.vmdk", "not in a file", "2024-05-06 07:08:09"):
            assert part in text


@pytest.mark.parametrize("count", [0, 500])
def test_a_machine_with_nothing_or_much(count: int) -> None:
    """A loop of snapshots is shown from its first one, and ends."""
    snapshots = tuple(DescribedSnapshot(uid, f"s{uid}", parent=(uid + 1) % count) for uid in range(count))
    machine = Machine(Description("ovf", snapshots=snapshots), None, {})
    assert "virtual machine (guest not named)" in terminal(machine)
    assert ("and 300 more" in check(machine._repr_html_()).text) == bool(count)


def terminal(face: object) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(face)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("name", DISKS)
def test_every_face_has_a_terminal(name: str) -> None:
    with Image.open(DISKS[name][0]) as image:
        for face in faces(image):
            if hasattr(face, "__rich__"):
                assert terminal(face).strip()
        shown = terminal(image.partitions)
        for partition in image.partitions:
            assert partition.role.value in shown


def test_the_map_is_to_scale() -> None:
    with Image.open(DISKS["4.1"][0]) as image:
        html = image._repr_html_()
        svg = ET.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL).group())  # type: ignore[union-attr]
        width = float(svg.attrib["viewBox"].split()[2])
        drawn = {}
        for shape in svg.iter("rect"):
            title = shape.find("title")
            if title is not None and title.text is not None:
                drawn[int(title.text.split(":")[0])] = shape
        assert set(drawn) == {partition.number for partition in image.partitions}
        for partition in image.partitions:
            shape = drawn[partition.number]
            assert float(shape.attrib["x"]) == pytest.approx(partition.start / image.size * width, abs=0.01)
            assert float(shape.attrib["width"]) == pytest.approx(
                max(2.0, partition.size / image.size * width) - (0 if partition.is_container else 1), abs=0.51
            )
            if not partition.is_container:
                assert shape.attrib["fill"] == ROLE_COLORS[partition.role].css


def test_an_image_without_partitions() -> None:
    with Image.open(bytes(4096)) as image:
        assert "neither a partition table" in check(image._repr_html_()).text
        assert terminal(image)


class TestHexdump:
    def test_shows_the_same_bytes_everywhere(self) -> None:
        with Image.open(vmfs_headers("vmfs5")) as image:
            dump = image.partitions[1].hexdump(0x100000, 300)
        text = check(dump._repr_html_()).text
        for line in dump.lines():
            assert str(line) in text
            assert str(line) in terminal(dump)
        assert str(dump).splitlines()[-1] == f"{0x100000 + 300:08x}"

    def test_each_field_is_marked_once_where_it_is(self) -> None:
        with Image.open(vmfs_headers("vmfs5", label="ds")) as image:
            dump = image.partitions[1].hexdump(0x1300000, 0x163)
            descriptor = image.partitions[1].records["VMFS file system descriptor"]
            by_name = {mark.field: mark for mark in dump.marks}
            for field in descriptor.layout():
                mark = by_name[field.name]
                assert (mark.start, mark.end) == (0x1300000 + field.offset, 0x1300000 + field.offset + field.length)
            assert by_name["label"].value == "'ds'"
        marked = sum(text.end - text.start for text in dump.marks)
        assert marked == descriptor.length()

    def test_of_a_record_within_records(self) -> None:
        with Image.open(DISKS["3.5"][0]) as image:
            dump = Hexdump.of(image.partitions.records["master boot record"])
        by_name = {mark.field: mark for mark in dump.marks}
        assert by_name["entries[3].type_code"].start == 446 + 3 * 16 + 4
        assert by_name["entries[3].type_code"].value == "4"
        assert by_name["signature"].value == "55 aa"

    def test_a_partition_counts_from_its_own_start(self) -> None:
        with Image.open(DISKS["3.5"][0]) as image:
            partition = image.partitions[5]
            dump = partition.hexdump(0, 64)
            assert dump.data == partition.read_at(0, 64)
            assert {mark.record for mark in dump.marks} == {"FAT boot sector"}
            assert dump.marks[0].start == 0

    def test_repeated_lines_are_left_out(self) -> None:
        assert str(Hexdump(bytes(64) + b"x", 0x10)).splitlines() == [
            "00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
            "*",
            "00000050  78                                                |x|",
            "00000051",
        ]

    def test_a_record_that_was_made_shows_its_bytes(self) -> None:
        header = GptHeader(b"EFI PART", 1, 92, 0, 0, 1, 2, 3, 4, bytes(16), 5, 6, 128, 7)
        assert "entry_size" in check(header._repr_html_()).text
        assert Hexdump.of(header).data == header.build()


@pytest.fixture(scope="module")
def executed() -> Any:
    """The notebook of the docs, with its outputs."""
    return notebook_page.execute()


class TestTheNotebook:
    def test_runs_and_shows_what_it_tells_of(self, executed: Any) -> None:
        shown = notebook_page.page(executed)
        for part in ("lab-store", "192.0.2.17", "collector for esx-lab-3", "disk_block_size", "Hypervisor1"):
            assert part in shown

    def test_its_picture_in_the_docs_is_of_it(self, executed: Any) -> None:
        with Picture.open(notebook_page.PICTURE) as picture:
            noted = picture.info.get("notebook")
        assert noted == notebook_page.digest(executed), "python -m tests.notebook_page makes the picture anew"
        assert notebook_page.PICTURE.stat().st_size < 64 << 10

    @pytest.mark.parametrize("dark", [False, True])
    def test_in_a_browser(self, executed: Any, tmp_path: Path, dark: bool) -> None:
        """The map's colours are there, and text differs from what is behind it, in light and in dark."""
        page = notebook_page.page(executed, "dark" if dark else "light")
        with Picture.open(io.BytesIO(notebook_page.photograph(page, tmp_path, dark=dark))) as picture:
            assert picture.size == (1000, 1560)
            raw = picture.convert("RGB").tobytes()
        counts = Counter(zip(raw[::3], raw[1::3], raw[2::3], strict=True))
        behind = max(counts, key=lambda color: counts[color])
        assert (sum(behind) < 3 * 64) is dark
        for role in ("#2e7d32", "#c62828", "#00838f"):
            red, green, blue = bytes.fromhex(role[1:])
            assert counts[red, green, blue] > 1000, role
        text = (0xE8, 0xEA, 0xED) if dark else (0x1B, 0x1B, 0x1B)
        assert counts[text] > 1000


def test_a_compressed_image_is_not_decoded_for_its_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.bz2"
    esx35_disk(boot=BOOT, bank=bank("3.5.0-1")).write_bz2(path)
    with Image.open(path) as image:
        _ = image.partitions
        assert not image.size_is_known
        head = check(image.partitions._repr_html_()).text
        assert "Hypervisor3" in head


@pytest.mark.parametrize("count", [199, 200, 201, 1500])
def test_a_last_row_says_how_many_more_files_there_are(count: int) -> None:
    volume = fat_volume({f"F{n:04}E": b"" for n in range(count)}, sectors=4000, root_entries=2048)
    with Image.open(volume) as image:
        tree = image.partitions[1].files
        shown, text = check(tree._repr_html_()).text, terminal(tree)
    for found in (shown, text):
        assert ("F0199E" in found) == (count > 199)
        assert "F0200E" not in found
        assert re.findall("… and ([0-9,]+) more", found) == ([] if count <= 200 else [f"{count - 200:,}"])


@record
class One(Record):
    """A field."""

    value: U8
    """A number."""


@record
class Full(Record):
    """A structure of as many fields as a table shows."""

    fields: Annotated[tuple[One, ...], Array(200)]
    """Each."""


@record
class Over(Record):
    """A structure of one field more."""

    fields: Annotated[tuple[One, ...], Array(201)]
    """Each."""


@pytest.mark.parametrize(("kind", "expected"), [(Full, []), (Over, ["1"])])
def test_a_last_row_says_how_many_more_fields_there_are(kind: type[Record], expected: list[str]) -> None:
    found = kind.parse(bytes(range(kind.length())), base=0)
    assert re.findall("… and ([0-9,]+) more", check(notebook.record_html(found)).text) == 2 * expected  # and a legend
    assert re.findall("… and ([0-9,]+) more", check(Hexdump.of(found)._repr_html_()).text) == expected
    assert re.findall("… and ([0-9,]+) more", terminal(found)) == expected


def test_a_strip_of_entropy_says_what_it_is_of() -> None:
    source = BytesSource(bytes(8192) + b"x" * 4096)
    whole, part = survey(source, blocks=1, sample=None), survey(source, blocks=1)
    first = survey(source, blocks=1, exact=False)
    assert "1 blocks of 12,288 bytes, mean" in check(whole._repr_html_()).text
    for found, zeros in ((part, "0% of the blocks are zeros"), (first, "100% of the blocks are zeros, as far as they")):
        assert f"12,288 bytes (4,096 of each), mean 0.00 of 8 bits per byte; {zeros}" in check(found._repr_html_()).text
    assert [found.exact for found in (whole, part, first)] == [True, True, False]
