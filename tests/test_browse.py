"""`vmvisor-image browse`, by Textual's own pilot: what the tree and the details show, and what is read for it."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="Textual is not installed")

from rich.console import Console
from textual.widgets import Input, Static, Tree

from tests import browse_page
from tests.test_fsspec import FILES, disk
from tests.tool_disk import ToolDisk
from vmvisor_image import Image
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.faces.browse import Browser
from vmvisor_image.faces.cli import main
from vmvisor_image.faces.cli.status import MISUSE
from vmvisor_image.machines.file_names import kind_by_name
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, mbr_disk

TYPED = "typed:"
"""Prefix of a text that is typed into a field, among keys."""
WIDE, NARROW = (130, 40), (80, 24)


class Shown:
    """The screen after some keys."""

    def __init__(self, app: Browser) -> None:
        main_screen = app.screen_stack[0]
        tree = main_screen.query_one(Tree)
        self.nodes = [str(node.label) for node in _walk(tree.root)]
        console = Console(width=200, file=io.StringIO())
        with console.capture() as captured:
            console.print(main_screen.query_one(Static).content)
        self.details = captured.get()
        self.outcome = None if app.screen is main_screen else str(app.screen.query_one("#outcome", Static).content)
        self.messages = [notification.message for notification in app._notifications]
        self.screen = browse_page.words(app.export_screenshot())


def _walk(node: Any) -> list[Any]:
    return [found for child in node.children for found in (child, *_walk(child))]


def browse(
    source: Any, *keys: str, size: tuple[int, int] = WIDE, then: Callable[[Image], object] | None = None
) -> Shown:
    """What is shown of an image after keys, each pressed when all that the one before asked for is there."""

    async def run() -> Shown:
        with Image.open(source) as image:
            app = Browser(image, "image.dd")
            async with app.run_test(size=size) as pilot:
                await _settle(app, pilot)
                for key in keys:
                    if key.startswith(TYPED):
                        app.screen.query_one(Input).value = key.removeprefix(TYPED)
                    else:
                        await pilot.press(key)
                    await _settle(app, pilot)
                shown = Shown(app)
            if then is not None:
                then(image)
            return shown

    return asyncio.run(run())


async def _settle(app: Browser, pilot: Any) -> None:
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()


class TestTree:
    def test_partitions_and_files(self) -> None:
        shown = browse(disk("Hypervisor1", "Other"))
        assert shown.nodes == ["1 Hypervisor1", "2 Other"]
        shown = browse(disk("Hypervisor1", "Other"), "down", "enter")
        assert sorted(shown.nodes) == sorted(
            ["1 Hypervisor1", "vmkernel.gz", "boot.cfg", "a.tgz", "packages/", "empty.txt", "2 Other"]
        )

    def test_a_directory_is_read_when_it_is_opened(self) -> None:
        with Image.open(disk("V")) as image:
            entries = [entry.name for entry in image.partitions[1].files.root]
        at = entries.index("packages")
        shown = browse(disk("V"), "down", "enter", *["down"] * (at + 1), "enter")
        assert {"tools/", "x.xml"} <= set(shown.nodes)
        assert "linux.iso" not in shown.nodes
        assert "packages" in shown.details

    def test_decodes_no_further_than_what_is_shown(self, tool_built_disk: ToolDisk) -> None:
        read: dict[str, int] = {}

        def count(image: Image) -> None:
            reader = image.layers[0].source
            assert isinstance(reader, Bzip2Reader)
            read["blocks"] = reader.stats.blocks_decoded

        shown = browse(tool_built_disk.bz2, then=count)
        tree_alone = read["blocks"]
        with Image.open(tool_built_disk.bz2) as image:
            _ = [partition.label for partition in image.partitions]
            reader = image.layers[0].source
            assert isinstance(reader, Bzip2Reader)
            labels = reader.stats.blocks_decoded
        assert tree_alone <= labels + 1  # a thread may be ahead of the other
        assert [node for node in shown.nodes if node.endswith("Hypervisor3")] == ["8 Hypervisor3"]

    def test_names_are_no_markup(self) -> None:
        shown = browse(disk("[red]x"))
        assert shown.nodes == ["1 [red]x"]


class TestDetails:
    def test_about(self) -> None:
        assert "a bare disk" in browse(disk("V")).details
        shown = browse(disk("V"), "down")
        for text in ("Label      V", "byte 0x200", "fat16", "3,072,000 bytes"):
            assert text in shown.details, shown.details

    def test_a_file_of_a_machine_by_its_name(self) -> None:
        for name, kind in (("A.NVR", None), ("vm.nvram", "non-volatile memory"), ("VM.VMSN", "state of a snapshot")):
            assert kind_by_name(name) == (None if kind is None else f"{kind} of a virtual machine, by its name")
        data = mbr_disk(
            [ForgedPartition(1, 6, 1, 9000, content=fat_volume({"vm.nvram": b"x"}, sectors=9000))], sectors=9001
        )
        shown = browse(data.read_at(0, data.size), "down", "enter", "down")
        assert "non-volatile memory of a virtual machine" in shown.details, shown.details

    @pytest.mark.parametrize(("size", "width"), [(WIDE, 16), (NARROW, 8)])
    def test_hexdump_with_fields(self, size: tuple[int, int], width: int) -> None:
        data = disk("V")
        shown = browse(data, "down", "h", size=size)
        hexadecimal = data[512 : 512 + width].hex(" ")
        first = shown.details.splitlines()[0]
        assert first.replace("  ", " ").startswith(f"00000000 {hexadecimal} |")
        assert first.endswith("|")
        assert "oem_name" in shown.details or "MSDOS" in shown.details
        assert first.split()[-1] in shown.screen  # nothing of the line is cut off

    def test_hexdump_goes_on_and_back(self) -> None:
        data = disk("V")
        assert browse(data, "h").details.startswith("00000000")
        shown = browse(data, "h", "n", "n")
        assert shown.details.startswith("00000400")
        assert browse(data, "h", "n", "n", "b", "b", "b").details.startswith("00000000")
        assert "The end is before byte" in browse(b"\0" * 512, "h", "n").details

    def test_of_a_file(self) -> None:
        with Image.open(disk("V")) as image:
            entries = [entry.name for entry in image.partitions[1].files.root]
        keys = ["down", "enter", *["down"] * (entries.index("boot.cfg") + 1)]
        assert f"{len(FILES['boot.cfg'])} bytes" in browse(disk("V"), *keys).details
        assert "|kernel=vmkernel.|" in browse(disk("V"), *keys, "h").details
        assert "explanation of each partition" in browse(disk("V"), *keys, "e").details

    def test_explanation(self) -> None:
        with Image.open(disk("V")) as image:
            words = image.partitions[1].explain().split()
        assert browse(disk("V"), "down", "e").details.split() == words


class TestBadImages:
    def test_without_partitions(self) -> None:
        shown = browse(b"\0" * 4096)
        assert shown.nodes[0] == "no partitions; h shows the bytes of the disk"
        assert shown.nodes[1].startswith("! partition table at byte 0x0: ")
        assert browse(b"abc" + b"\0" * 4093, "h").details.startswith("00000000  61 62 63")

    def test_damage_is_where_it_lies(self) -> None:
        data = bytearray(disk("Hypervisor1", "Other"))
        packages = data.index(b"PACKAGES   ", 6001 * 512) + 26
        data[packages : packages + 2] = b"\xff\xee"
        with Image.open(bytes(data)) as image:
            entries = [entry.name for entry in image.partitions[2].files.root]
        shown = browse(bytes(data), "down", "down", "enter", *["down"] * (entries.index("packages") + 1), "enter")
        assert "1 Hypervisor1" in shown.nodes
        wrong = [node for node in shown.nodes if node.startswith("! ")]
        assert wrong, shown.nodes
        assert {"boot.cfg", "packages/", "vmkernel.gz"} <= set(shown.nodes)

    def test_a_disk_that_is_cut(self) -> None:
        data = disk("Hypervisor1", "Other")
        shown = browse(data[: 6000 * 512])
        assert shown.nodes[0] == "1 Hypervisor1"
        assert any(node.startswith("! ") for node in shown.nodes), shown.nodes
        shown = browse(data[: 6000 * 512], "down", "down", "h")
        assert shown.details.strip()


def keys_to(data: bytes, name: str, partition: int = 1) -> list[str]:
    """Keys that lead to an entry of a partition's root."""
    with Image.open(data) as image:
        entries = [entry.name for entry in image.partitions[partition].files.root]
    return [*["down"] * partition, "enter", *["down"] * (entries.index(name) + 1)]


class TestUnreadable:
    """A directory that can't be read is not called empty."""

    @staticmethod
    def damaged() -> bytes:
        data = bytearray(disk("V"))
        cluster = data.index(b"PACKAGES   ") + 26
        data[cluster : cluster + 2] = b"\xff\xee"
        return bytes(data)

    def test_its_problem_is_shown(self) -> None:
        data = self.damaged()
        with Image.open(data) as image:
            assert list((image.partitions[1].files.root / "packages").iterdir()) == []
            (problem,) = image.known_problems
        shown = browse(data, *keys_to(data, "packages"), "enter")
        assert f"! {problem}" in shown.nodes
        assert not [node for node in shown.nodes if "empty" in node and "." not in node]

    def test_also_where_it_was_read_before(self) -> None:
        data = self.damaged()

        async def run() -> list[str]:
            with Image.open(data) as image:
                list(image.partitions[1].files)
                app = Browser(image, "image.dd")
                async with app.run_test(size=WIDE) as pilot:
                    for key in (*keys_to(data, "packages"), "enter"):
                        await _settle(app, pilot)
                        await pilot.press(key)
                    await _settle(app, pilot)
                    return Shown(app).nodes

        nodes = asyncio.run(run())
        assert "empty, or damaged: a on the partition shows its damage" in nodes
        assert "empty" not in nodes

    def test_an_empty_one_is_empty(self) -> None:
        data = mbr_disk(
            [ForgedPartition(1, 6, 1, 8192, content=fat_volume({"empty/": b""}, sectors=8192))], sectors=8193
        )
        with Image.open(data) as image:
            (entry,) = image.partitions[1].files.root
        assert entry.name == "empty"
        assert "empty" in browse(data, "down", "enter", "down", "enter").nodes


class TestSave:
    @staticmethod
    def path(path: Path) -> list[str]:
        """Keys that write a path in place of the name that is suggested."""
        return ["s", f"{TYPED}{path}"]

    def test_a_file(self, tmp_path: Path) -> None:
        data = disk("V")
        shown = browse(data, *keys_to(data, "boot.cfg"), *self.path(tmp_path / "x.cfg"), "enter")
        assert shown.outcome == f"1 file written to {tmp_path / 'x.cfg'}; enter closes this"
        assert (tmp_path / "x.cfg").read_bytes() == FILES["boot.cfg"]
        again = browse(data, *keys_to(data, "boot.cfg"), *self.path(tmp_path / "y.cfg"), "enter", "enter")
        assert again.outcome is None

    def test_the_name_is_suggested(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        data = disk("V")
        shown = browse(data, *keys_to(data, "boot.cfg"), "s", "enter")
        assert shown.outcome == "1 file written to boot.cfg; enter closes this"
        assert [path.name for path in tmp_path.iterdir()] == ["boot.cfg"]

    def test_into_a_directory_that_is_there(self, tmp_path: Path) -> None:
        data = disk("V")
        browse(data, *keys_to(data, "boot.cfg"), *self.path(tmp_path), "enter")
        assert (tmp_path / "boot.cfg").read_bytes() == FILES["boot.cfg"]

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_what_is_there_is_replaced_only_when_confirmed(self, tmp_path: Path, number: int) -> None:
        (tmp_path / "x.cfg").write_bytes(b"mine")
        data = disk("V")
        shown = browse(data, *keys_to(data, "boot.cfg"), *self.path(tmp_path / "x.cfg"), *["enter"] * number)
        if number == 1:
            assert shown.outcome is not None
            assert "x.cfg is already there" in shown.outcome
            assert "enter again: replace" in shown.outcome
            assert (tmp_path / "x.cfg").read_bytes() == b"mine"
        else:
            assert (tmp_path / "x.cfg").read_bytes() == FILES["boot.cfg"]
            assert (shown.outcome is None) is (number == 3)

    def test_another_path_has_to_be_confirmed_anew(self, tmp_path: Path) -> None:
        for name in ("x", "xy"):
            (tmp_path / name).write_bytes(b"mine")
        data = disk("V")
        shown = browse(
            data, *keys_to(data, "boot.cfg"), *self.path(tmp_path / "x"), "enter", f"{TYPED}{tmp_path / 'xy'}", "enter"
        )
        assert shown.outcome is not None
        assert "xy is already there" in shown.outcome
        assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"mine"}

    @pytest.mark.parametrize("keys", [["escape"], ["s", "escape"]])
    def test_escape_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        data = disk("V")
        shown = browse(data, *keys_to(data, "boot.cfg"), *keys)
        assert shown.outcome is None
        assert list(tmp_path.iterdir()) == []

    def test_a_directory_and_a_partition(self, tmp_path: Path) -> None:
        data = disk("V")
        shown = browse(data, *keys_to(data, "packages"), *self.path(tmp_path / "p"), "enter")
        below = {path.removeprefix("packages/") for path in FILES if path.startswith("packages/")}
        assert shown.outcome == f"{len(below)} files written to {tmp_path / 'p'}; enter closes this"
        assert {path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*.*")} == below
        browse(data, "down", *self.path(tmp_path / "all"), "enter")
        for path, content in FILES.items():
            assert (tmp_path / "all" / path).read_bytes() == content

    def test_a_partition_without_files(self, tmp_path: Path) -> None:
        content = SparseImage(512 * 64, [(100, b"dump")])
        data = mbr_disk([ForgedPartition(1, 0xFC, 1, 64, content=content)], sectors=65)
        shown = browse(data, "down", *self.path(tmp_path / "dump.img"), "enter")
        assert shown.outcome == f"1 file written to {tmp_path / 'dump.img'}; enter closes this"
        with Image.open(data) as image:
            assert (tmp_path / "dump.img").read_bytes() == image.partitions[1].read_at(0, 512 * 64)
        cut = data.read_at(0, 512 * 40)
        shown = browse(cut, "down", *self.path(tmp_path / "cut.img"), "enter")
        assert shown.outcome is not None
        assert shown.outcome.startswith("0 files written; damaged, and not written:\n! cut.img: ")
        assert [path.name for path in tmp_path.iterdir()] == ["dump.img"]

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        data = bytearray(disk("V"))
        entry = data.index(b"VMKERNELGZ ") + 26
        data[entry : entry + 2] = b"\xff\xee"
        shown = browse(bytes(data), "down", *self.path(tmp_path / "all"), "enter")
        assert shown.outcome is not None
        assert shown.outcome.startswith(
            f"{len(FILES) - 1} files written; damaged, and not written:\n! vmkernel.gz: FAT"
        )
        assert (tmp_path / "all/boot.cfg").read_bytes() == FILES["boot.cfg"]
        assert not (tmp_path / "all/vmkernel.gz").exists()

    def test_a_place_that_can_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        data = disk("V")
        shown = browse(data, *keys_to(data, "boot.cfg"), *self.path(tmp_path / "file/x"), "enter")
        assert shown.outcome is not None
        assert shown.outcome.startswith("! ")
        assert "it is not a directory" in shown.outcome

    def test_the_image_is_never_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "x.dd"
        data = disk("V")
        path.write_bytes(data)
        shown = browse(path, *keys_to(data, "boot.cfg"), *self.path(path), "enter", "enter")
        assert shown.outcome is not None
        assert "is the image itself" in shown.outcome
        assert path.read_bytes() == data

    def test_the_dialogue_names_its_keys(self) -> None:
        words = " ".join(browse(disk("V"), "down", "s", size=NARROW).screen)
        assert "Save the files of partition 1 in the directory:" in words
        assert "⏎ Save" in words
        assert "esc Close" in words

    def test_not_of_the_whole_image(self) -> None:
        shown = browse(disk("V"), "s")
        assert shown.outcome is None
        assert shown.messages == ["Go to a partition, a directory or a file to save it."]


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_keys_are_at_the_bottom(size: tuple[int, int]) -> None:
    words = " ".join(browse(disk("V"), "down", size=size).screen)
    assert "⏎ Open a About h Hexdump n Next b Back e Explain s Save q Quit" in words


class TestCommand:
    def test_needs_a_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["browse", str(tmp_path / "x.dd")]) == MISUSE
        assert "browse needs a terminal" in capsys.readouterr().err

    @pytest.mark.parametrize("missing", [False, True])
    def test_in_a_terminal(self, tmp_path: Path, missing: bool) -> None:
        (tmp_path / "x.dd").write_bytes(disk("Hypervisor1"))
        hidden = "sys.modules['textual'] = None;" if missing else ""
        program = f"import sys; {hidden} from vmvisor_image.faces.cli import main; sys.exit(main())"
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", program, "browse", str(tmp_path / "x.dd")]
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            seen, pressed = b"", False
            while select.select([ours], [], [], 60)[0]:
                try:
                    seen += os.read(ours, 1 << 16)
                except OSError:  # the other end is closed
                    break
                if b"Hypervisor1" in seen and not pressed:
                    os.write(ours, b"q")
                    pressed = True
        os.close(ours)
        assert process.returncode == (MISUSE if missing else 0), seen
        assert (b"pip install 'vmvisor-image[browse]'" in seen) is missing


def test_the_picture_is_of_what_is_shown() -> None:
    drawn = browse_page.PICTURE.read_text(encoding="utf-8")
    assert "://" not in drawn.replace("http://www.w3.org", "")
    old, new = browse_page.words(drawn), browse_page.words(browse_page.draw())
    assert old == new, "python -m tests.browse_page"
