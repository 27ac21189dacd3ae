"""Progress: it moves for every sort of source, fits the terminal, and leaves what is printed alone."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from tests.media import ROCK_RIDGE, Media, iso, small_disk, write_tree
from tests.terminals import open_terminal, read_terminal
from vmvisor_image import Image, verify
from vmvisor_image.faces.cli import main, progress
from vmvisor_image.streams.views import Watched
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, fat_volume, incompressible, mbr_disk

FILES = {f"F{number}.BIN": incompressible(str(number), 700_000) for number in range(6)}


def bare_disk() -> SparseImage:
    volume = fat_volume(FILES, sectors=16384, label="Hypervisor3")
    return mbr_disk([ForgedPartition(1, 6, 64, 16384, content=volume)], sectors=40000)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each sort: a bare disk, a CD with a compressed disk on it, and a CD that is the disk."""
    folder = tmp_path_factory.mktemp("sources")
    bare_disk().write_to(folder / "disk.dd")
    bank = {"vmkernel.gz": incompressible("kernel", 900_000), "boot.cfg": b"kernel=vmkernel.gz\nmodules=\nbuild=1\n"}
    media = Media(folder / "media", "4.1", small_disk(bank), ROCK_RIDGE)
    tree = write_tree(folder / "tree", {**FILES, "isolinux.cfg": b"default menu\n"})
    return {"bare": folder / "disk.dd", "cd": media.iso, "cd of files": iso(tree, folder / "files.iso")}


def in_terminal(*arguments: str, columns: int = 80, with_rich: bool = True, piped: bool = True) -> tuple[int, str, str]:
    """Status of a command, what it wrote to a pipe, and what to a terminal, which is standard error at least."""
    names = ("rich", "rich.console", "rich.progress")
    hide = "" if with_rich else f"import sys; sys.modules.update(dict.fromkeys({names!r})); "
    code = f"{hide}from vmvisor_image.faces.cli import main; raise SystemExit(main())"
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "LINES")}
    controller, terminal = open_terminal(columns)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE if piped else terminal,
        stderr=terminal,
        env={**environment, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
    )
    os.close(terminal)
    printed: list[bytes] = []
    stream = process.stdout
    reader = None if stream is None else threading.Thread(target=lambda: printed.append(stream.read()))
    if reader is not None:
        reader.start()
    shown = read_terminal(controller)
    if reader is not None and stream is not None:
        reader.join()
        stream.close()
    return process.wait(), b"".join(printed).decode(), shown.decode()


def frames(shown: str) -> list[str]:
    """What stood in the line of the display, one after the other."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    return [frame for frame in re.split(r"[\r\n]+", plain) if frame.strip()]


@pytest.mark.parametrize("sort", ["bare", "cd", "cd of files"])
def test_of_the_library_it_goes_up_to_the_total(sort: str, sources: dict[str, Path]) -> None:
    seen: list[tuple[int, int | None]] = []
    with Image.open(sources[sort], progress=lambda done, total: seen.append((done, total))) as image:
        for start in range(0, image.size, 1 << 16):
            image.read_at(start, min(1 << 16, image.size - start))
    assert len(seen) > 1
    assert all(before[0] <= after[0] for before, after in pairwise(seen))
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


def test_of_a_bare_disk_it_counts_bytes_of_the_disk_and_zeros_that_are_skipped() -> None:
    disk = bare_disk()
    seen: list[tuple[int, int | None]] = []
    with Image.open(disk, progress=lambda done, total: seen.append((done, total))) as image:
        assert image.partitions[1].files["F3.BIN"].read_bytes() == FILES["F3.BIN"]
        read = seen[-1][0]
        assert len(FILES["F3.BIN"]) <= read < disk.size // 2
        end = image.disk.skip_zeros(disk.size - 4096, disk.size)
        assert end == disk.size
        image.disk.read_into(0, memoryview(bytearray(1 << 20)))
        assert seen[-1][0] >= read + (1 << 20)
    assert {total for _, total in seen} == {disk.size}
    with Image.open(disk) as image:
        assert not isinstance(image.disk, Watched)


@pytest.mark.parametrize("sort", ["bare", "cd", "cd of files"])
def test_of_a_verification_it_has_two_parts_each_up_to_its_total(sort: str, sources: dict[str, Path]) -> None:
    seen: list[tuple[int, int | None]] = []
    hashed: list[tuple[int, int | None]] = []
    report = verify(
        sources[sort],
        progress=lambda done, total: seen.append((done, total)),
        hashing=lambda done, total: hashed.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1]
    assert report.source_size == sources[sort].stat().st_size
    last = [at for at, (before, after) in enumerate(pairwise(hashed)) if after[1] != before[1]]
    if report.layers:
        assert len(hashed) > 3
        assert {hashed[at] for at in (*last, -1)} == {(total, total) for total in {total for _, total in hashed}}
    else:
        assert hashed == []


DOING = {
    "extract": ("bare", ["extract", "{source}", "Hypervisor3", "{out}"], "extracting"),
    "verify": ("bare", ["verify", "{source}"], "verifying"),
    "verify of a CD": ("cd", ["verify", "{source}"], "hashing"),
    "pxe": ("cd", ["pxe", "{source}", "{out}"], "exporting"),
    "info": ("cd", ["info", "{source}"], "decoding"),
    "convert": ("bare", ["convert", "{source}", "{out}"], "converting"),
    "ls of a CD": ("cd of files", ["ls", "{source}"], "decoding"),
    "scan": ("bare", ["scan", "{source}", "--workers", "1"], "scanning"),
}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("with_rich", [True, False])
@pytest.mark.parametrize("name", DOING)
def test_of_a_command_it_says_what_is_done_and_fits(
    name: str, columns: int, with_rich: bool, sources: dict[str, Path], tmp_path: Path
) -> None:
    sort, words, doing = DOING[name]
    arguments = [word.format(source=sources[sort], out=tmp_path / "out") for word in words]
    _, printed, shown = in_terminal(*arguments, columns=columns, with_rich=with_rich)
    lines = frames(shown)
    mine = [line for line in lines if line.startswith(doing)]
    assert mine, lines
    assert any(re.search(r"[1-9]", line.removeprefix(doing)) for line in mine), mine
    assert max(map(len, lines)) <= columns
    assert ("\x1b[" in shown) == with_rich
    assert "Traceback" not in shown
    assert doing not in printed


@pytest.mark.parametrize("with_rich", [True, False])
@pytest.mark.parametrize("command", ["ls", "info", "system", "scan", "hexdump", "verify"])
def test_what_goes_to_a_pipe_is_all_there_while_progress_is_on_the_terminal(
    command: str, with_rich: bool, sources: dict[str, Path]
) -> None:
    source = str(sources["bare" if command != "system" else "cd"])
    command_line = [sys.executable, "-m", "vmvisor_image", command, source]
    expected = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert expected.stdout
    status, printed, _ = in_terminal(command, source, with_rich=with_rich)
    assert (status, printed) == (expected.returncode, expected.stdout)


@pytest.mark.parametrize("with_rich", [True, False])
def test_rows_on_the_same_terminal_are_whole_lines(with_rich: bool, sources: dict[str, Path]) -> None:
    source = str(sources["bare"])
    _, _, shown = in_terminal("ls", source, "1", columns=120, with_rich=with_rich, piped=False)
    lines = frames(shown)
    for path, data in FILES.items():
        [row] = [line for line in lines if path in line]
        assert row.split()[0] == str(len(data))
        assert row.rstrip().endswith(path)


class Clock:
    """A clock that only the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_rich_there_is_a_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(), Terminal()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with progress.showing_progress("extracting") as display:
        assert display is not None
        display(0, 500_000_000)
        clock.now += 10
        display(100_000_000, 500_000_000)
        assert frames(terminal.getvalue())[-1].rstrip() == "extracting 100 of 500 MB, 10.0 MB/s, 0:40 left"
        hashing = display.phase("hashing")
        hashing(0, 80_000_000)
        clock.now += 2
        hashing(40_000_000, 80_000_000)
        assert frames(terminal.getvalue())[-1].rstrip() == "hashing 40 of 80 MB, 20.0 MB/s, 0:02 left"
        clock.now += 1
        display(60_000_000, None)
        assert frames(terminal.getvalue())[-1].rstrip() == "extracting 60 MB, 20.0 MB/s"
        writing = display.phase("writing", for_good=True)
        writing(1_000_000, 2_000_000)
        display(70_000_000, None)
        assert frames(terminal.getvalue())[-1].rstrip() == "writing 1 of 2 MB"


def test_there_is_none_without_a_terminal(sources: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(sources["bare"])]) == 0
    assert capsys.readouterr().err == ""


def test_of_an_extraction_it_counts_the_bytes_to_write(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    shown: list[tuple[str, int, int | None]] = []
    monkeypatch.setattr(progress._Line, "show", lambda _, doing, done, total: shown.append((doing, done, total)))
    assert main(["extract", str(sources["bare"]), "Hypervisor3", str(tmp_path / "out")]) == 0
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert shown[-1] == ("extracting", written, written)
    totals = [total for _, _, total in shown]
    assert set(totals[totals.index(written) :]) == {written}  # not that of the disk again
