"""VHDX disks that were not closed: their logs are replayed in memory as QEMU replays them in the file."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Counting, require_tool, run
from tests.test_chains import same
from vmvisor_image import CorruptImage, Image, TruncatedImage, inspect, verify
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import ProblemList
from vmvisor_image.faces.cli.main import main
from vmvisor_image.faces.shared import summary_of_image
from vmvisor_image.layers import vhdx
from vmvisor_image.layers.crc32c import crc32c
from vmvisor_image.layers.vhdx_log import replay
from vmvisor_image.schemas.vhdx import VhdxHeader
from vmvisor_image.streams.mapped import MappedDisk
from vmvisor_image.streams.source import Source
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge import SparseImage
from vmvisor_image.testing.forge_vhd import vhdx_log_entry, vhdx_with_log
from vmvisor_image.testing.forge_virtual import vhdx_disk

MIB = 1 << 20
PAGE = 4096
LOG = MIB
"""Bytes from the start of a forged file to its log, and bytes in the log."""
TABLE = 2 * MIB
ID = bytes(range(16))
HISTORIES = 40


def replayed_by_qemu(path: Path) -> bytes | None:
    """Bytes of a copy of the file after QEMU has replayed its log; None where it refuses the file.

    It refuses a log in which any entry, however old, has a sound head and damaged descriptors; [MS-VHDX] 2.3.2 has
    such an entry end its sequence.
    """
    copy = path.with_name("copy.vhdx")
    shutil.copy(path, copy)
    # The check that follows the replay may find the disk damaged by what random bytes were written to it.
    command = [require_tool("qemu-img"), "check", "-f", "vhdx", "-T", "unsafe", "-r", "all", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "needs to be replayed" not in done.stderr, done.stderr
    return None if "Could not open" in done.stderr else copy.read_bytes()


def file_of(source: Source | bytes) -> Source:
    """The file of a VHDX as it is read, with its log replayed."""
    disk = vhdx.open_layer(BytesSource(source) if isinstance(source, bytes) else source, LayerOptions())
    assert isinstance(disk, MappedDisk)
    return disk.file


def same_file(ours: bytes, theirs: bytes) -> bool:
    """Whether both are the same but for the headers, which QEMU changes, and for zeros at the end."""
    size = max(len(ours), len(theirs))
    return same(ours[3 * 0x10000 :].ljust(size, b"\0"), theirs[3 * 0x10000 :].ljust(size, b"\0"))


@dataclass
class Log:
    """A log that is written round and round, as the changes in it reach the file."""

    chosen: random.Random
    size: int
    """Bytes of the file."""
    log_id: bytes = ID
    at: int = 0
    number: int = 1
    entries: list[tuple[int, bytes]] = field(default_factory=list)
    open: list[tuple[int, int, dict[int, bytes | int]]] = field(default_factory=list)
    """Place, end and changes of the entries that have not reached the file."""

    def write(self, changes: dict[int, bytes | int], last: int | None = None) -> bool:
        """Append an entry; False where the log is full."""
        tail = self.open[0][0] if self.open else self.at
        size = self.size if last is None else last
        made = vhdx_log_entry(self.log_id, self.number, changes, tail=tail, flushed=self.size, last=size)
        used = (self.at - tail) % LOG if self.open else 0
        if used + len(made) >= LOG:
            return False
        self.entries.append((self.at, made))
        self.open.append((self.at, self.number, changes))
        self.at = (self.at + len(made)) % LOG
        self.number += 1
        return True


def page(chosen: random.Random) -> bytes:
    return chosen.choice([bytes(PAGE), chosen.randbytes(PAGE), chosen.randbytes(1) * PAGE])


@pytest.mark.parametrize("first", range(0, HISTORIES, 20))
def test_histories_of_logs(first: int, tmp_path: Path) -> None:
    judged = 0
    for seed in range(first, first + 20):
        chosen = random.Random(seed)
        content = chosen.randbytes(512 * chosen.randrange(1, 6000))
        disk = vhdx_disk(content)
        model = bytearray(disk.read_at(0, disk.size))
        log = Log(chosen, disk.size, at=chosen.randrange(0, LOG, PAGE), number=chosen.choice([1, 77, (1 << 32) - 3]))
        if chosen.random() < 0.3:  # stale entries of another log
            stale = Log(chosen, disk.size, bytes(16) if chosen.random() < 0.5 else b"other log of it!")
            while stale.write({TABLE: page(chosen)}) and len(stale.entries) < 60:
                pass
            log.entries += stale.entries
        for _ in range(chosen.randrange(1, 40)):
            changes: dict[int, bytes | int] = {}
            for _ in range(chosen.choice([1, 1, 2, 5, 130])):
                at = 4 * MIB + chosen.randrange(0, disk.size - 4 * MIB, PAGE)
                if chosen.random() < 0.3:
                    changes[at] = min(PAGE * chosen.randrange(1, 300), disk.size - at)
                else:
                    changes[at] = page(chosen)
            if any(isinstance(change, int) for change in changes.values()):  # changes of an entry must not overlap
                changes = dict([chosen.choice(sorted(changes.items(), key=lambda each: each[0]))])
            while not log.write(changes) or (log.open[1:] and chosen.random() < 0.3):
                _reach(model, log.open.pop(0)[2])
        raw = bytearray(vhdx_with_log(disk, ID, log.entries).read_at(0, disk.size))
        raw[4 * MIB :] = model[4 * MIB :]
        for _, _, changes in log.open:
            _reach(model, changes)
        path = tmp_path / "disk.vhdx"
        path.write_bytes(raw)
        theirs = replayed_by_qemu(path)
        source = file_of(bytes(raw))
        ours = source.read_at(0, source.size)
        assert same(ours[4 * MIB :], bytes(model[4 * MIB :])), seed
        wraps = log.open[0][0] > log.at  # QEMU then takes the part at the start of the log for all of it
        if theirs is not None and not wraps:
            judged += 1
            assert same_file(ours, theirs), seed
        with Image.open(path) as image:
            assert same(image.read_at(0, image.size), bytes(model[4 * MIB :][: len(content)])), seed
            assert image.chain[0].source.problems == ()
    assert judged >= 13


def _reach(model: bytearray, changes: dict[int, bytes | int]) -> None:
    """Make the changes of an entry."""
    for at, change in changes.items():
        length = change if isinstance(change, int) else PAGE
        model[at : at + length] = bytes(length) if isinstance(change, int) else change


BAT = 2 * MIB
"""Offset of the block allocation table in what `qemu-img` makes, and in what is forged."""


@pytest.mark.parametrize("seed", range(12))
def test_logs_that_qemu_left(seed: int, tmp_path: Path) -> None:
    """QEMU empties its log after each write; here it can't, as writing to the table fails."""
    chosen = random.Random(seed)
    path = tmp_path / "disk.vhdx"
    log_size = chosen.choice(["1M", "2M"])
    run("qemu-img", "create", "-f", "vhdx", "-o", f"block_size=1M,log_size={log_size}", path, "32M")
    for _ in range(chosen.randrange(3)):
        number = chosen.randrange(1, 256)
        run(
            "qemu-io",
            "-f",
            "vhdx",
            "-c",
            f"write -P {number} {chosen.randrange(16)}M {chosen.randrange(1, 2000)}k",
            path,
        )
    table = _table_of(path)
    options = (
        f"driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename={path},"
        f"file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector={table // 512}"
    )
    command = [require_tool("qemu-io"), "-c", "write -P 99 20M 3M", "--image-opts", options]
    assert "Input/output error" in subprocess.run(command, capture_output=True, text=True, check=False).stdout
    theirs = replayed_by_qemu(path)
    before = path.read_bytes()
    source = file_of(before)
    assert theirs is not None
    assert same_file(source.read_at(0, source.size), theirs)
    run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", tmp_path / "copy.vhdx", tmp_path / "raw")
    with Image.open(path) as image:
        assert same(image.read_at(0, image.size), (tmp_path / "raw").read_bytes())
        assert image.read_at(20 * MIB, 1) == b"\x63"
    assert path.read_bytes() == before
    assert inspect(path).layer_facts == (
        (
            "VHDX log",
            "replayed in memory, since the disk was not closed: entries 1 to 1; pages of data: 1, ranges of zeros: 0",
        ),
    )


def _table_of(path: Path) -> int:
    """Offset of the block allocation table."""
    data = path.read_bytes()[:MIB]
    at = data.index(bytes.fromhex("6677c22d23f600429d64115e9bfd4a08"))
    return int.from_bytes(data[at + 16 : at + 24], "little")


def not_closed(
    changes: list[dict[int, bytes | int]], *, last: int | None = None, tail: int | None = None, **more: int
) -> bytearray:
    """A VHDX of 1 MiB of "a", with a log of these changes."""
    disk = vhdx_disk(b"a" * MIB)
    log = Log(random.Random(0), disk.size + more.get("flushed", 0))
    for each in changes:
        assert log.write(each, last)
    if tail is not None:
        log.entries = [(at, _with(entry, 12, tail.to_bytes(4, "little"))) for at, entry in log.entries]
    return bytearray(vhdx_with_log(disk, ID, log.entries).read_at(0, disk.size))


def _with(entry: bytes, at: int, value: bytes) -> bytes:
    """An entry with other bytes, and the right checksum."""
    plain = bytearray(entry)
    plain[at : at + len(value)] = value
    plain[4:8] = bytes(4)
    plain[4:8] = crc32c(bytes(plain)).to_bytes(4, "little")
    return bytes(plain)


B = b"b" * PAGE
C = b"c" * PAGE


def letters(data: bytes | bytearray) -> str:
    """Letters of the first three pages of the disk; a dot for zeros."""
    with Image.open(bytes(data)) as image:
        return "".join(chr(byte) if byte else "." for byte in image.read_at(0, 3 * PAGE)[::PAGE])


def test_what_is_shown_of_a_replay(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    path.write_bytes(not_closed([{4 * MIB: B}, {4 * MIB + PAGE: PAGE}]))
    assert letters(path.read_bytes()) == "b.a"
    words = "entries 1 to 2; pages of data: 1, ranges of zeros: 1"
    main(["info", str(path)])
    assert words in capsys.readouterr().out
    report = verify(path)
    assert any(words in line for line in report.lines())
    [layer] = report.layers
    assert layer.problems == ()
    with Image.open(path) as image:
        assert words in str(summary_of_image(image).lines)
        assert all(problem.structure == "partition table" for problem in image.problems)


def test_a_log_that_is_empty_by_its_header_is_not_replayed() -> None:
    data = not_closed([{4 * MIB: B}])
    for at in (0x10000, 0x20000):
        header = data[at : at + PAGE]
        header[48:64] = header[4:8] = bytes(16)
        data[at + 48 : at + 64] = bytes(16)
        data[at + 4 : at + 8] = bytes(4)
        data[at + 4 : at + 8] = crc32c(bytes(data[at : at + PAGE])).to_bytes(4, "little")
    assert letters(data) == "aaa"
    assert inspect(bytes(data)).layer_facts == ()


@pytest.mark.parametrize("at", [8, 20, 24, 30, 64, 70, 80, 88, PAGE, PAGE + 5, PAGE + 100, 2 * PAGE - 1])
def test_an_entry_that_was_not_written_whole_is_left_out(at: int, tmp_path: Path) -> None:
    """The entries before it count; so it does for QEMU, where that does not refuse the file."""
    data = not_closed([{4 * MIB: B}, {4 * MIB: C}])
    data[LOG + 2 * PAGE + at] ^= 0xFF
    assert letters(data) == "baa"
    (tmp_path / "disk.vhdx").write_bytes(data)
    theirs = replayed_by_qemu(tmp_path / "disk.vhdx")
    assert theirs is None or theirs[4 * MIB : 4 * MIB + 1] == b"b"
    assert (theirs is None) == (at in (20, 24, 64, 80, 88))


def test_an_entry_with_data_of_another_one_is_left_out() -> None:
    """Its checksum may be right, where a program computes it over what is there."""
    for at, value in (
        (64 + 24, b"\7"),
        (PAGE + 4, b"\1"),
        (2 * PAGE - 4, b"\7"),
        (24, b"\2"),
        (24, b"\xff" * 4),
        (8, b"\0" * 4),
    ):
        data = not_closed([{4 * MIB: B}, {4 * MIB: C}])
        second = LOG + 2 * PAGE
        data[second : second + 2 * PAGE] = _with(bytes(data[second : second + 2 * PAGE]), at, value)
        assert letters(data) == "baa", at


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data.__setitem__(slice(LOG, LOG + MIB), bytes(MIB)), "256 sectors .*none begins as an entry"),
        (lambda data: data.__setitem__(LOG + 40, 0xEE), r"\(1 of another log\)"),
        (lambda data: data.__setitem__(LOG + 4, data[LOG + 4] ^ 1), r"\(1 with a wrong checksum\)"),
        (lambda data: data.__setitem__(LOG + PAGE + 4, 9), r"\(1 not complete\)"),
    ],
)
def test_a_log_without_a_valid_entry(damage: Callable[[bytearray], None], message: str) -> None:
    data = not_closed([{4 * MIB: B}])
    damage(data)
    with pytest.raises(CorruptImage, match=message) as caught:
        Image.open(bytes(data))
    assert (caught.value.structure, caught.value.offset) == ("VHDX log", LOG)


def test_a_sequence_whose_first_entry_is_lost() -> None:
    data = not_closed([{4 * MIB: B}, {4 * MIB: C}])
    data[LOG + 100] ^= 1
    with pytest.raises(CorruptImage, match=r"1 with a wrong checksum, 1 the last of a sequence whose first is missing"):
        Image.open(bytes(data))


def test_the_sequence_with_the_highest_number_counts() -> None:
    """Not the one that is longer, or comes first."""
    disk = vhdx_disk(b"a" * MIB)
    for order in ((0, 64 * PAGE), (64 * PAGE, 0)):
        old = [(order[0] + 2 * PAGE * number, number + 5, b"b") for number in range(3)]
        entries = []
        for at, number, letter in [*old, (order[1], 100, b"c")]:
            tail = order[0] if letter == b"b" else at
            changes: dict[int, bytes | int] = {4 * MIB: letter * PAGE}
            made = vhdx_log_entry(ID, number, changes, tail=tail, flushed=disk.size, last=disk.size)
            entries.append((at, made))
        data = vhdx_with_log(disk, ID, entries).read_at(0, disk.size)
        assert letters(data) == "caa"


def test_a_file_that_was_cut() -> None:
    data = not_closed([{4 * MIB: B}], flushed=1)
    with pytest.raises(TruncatedImage, match=f"at least {5 * MIB + 1} bytes.* found {5 * MIB}"):
        Image.open(bytes(data))


def test_a_file_that_grows_by_the_replay(tmp_path: Path) -> None:
    """The block is put behind the end of the file, whose last bytes were not written."""
    entry = (5 << 20 | 6).to_bytes(8, "little")
    changes: list[dict[int, bytes | int]] = [{BAT: entry.ljust(PAGE, b"\0"), 5 * MIB + PAGE: B}]
    data = not_closed(changes, last=6 * MIB - PAGE)  # rounded up, as by QEMU
    assert letters(data) == ".b."
    assert file_of(bytes(data)).size == 6 * MIB
    path = tmp_path / "disk.vhdx"
    path.write_bytes(data)
    theirs = replayed_by_qemu(path)
    assert theirs is not None
    assert len(theirs) == 6 * MIB
    assert same_file(file_of(bytes(data)).read_at(0, 6 * MIB), theirs)


def test_a_file_of_any_size_costs_nothing() -> None:
    data = not_closed([{4 * MIB: B}], last=1 << 62)
    assert letters(data) == "baa"
    with pytest.raises(CorruptImage, match="more than 4611686018427387904"):
        Image.open(bytes(not_closed([{4 * MIB: B}], last=(1 << 62) + 1)))
    with pytest.raises(CorruptImage, match="the file would have"):
        Image.open(bytes(not_closed([{(1 << 64) - PAGE: B}])))
    assert letters(not_closed([{4 * MIB: B}, {4 * MIB + PAGE: (1 << 64) - PAGE}])) == "b.."


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0x1000, "in its headers or its log"),
        (LOG + 10 * PAGE, "in its headers or its log"),
        (4 * MIB + 7, "whole pages"),
    ],
)
def test_changes_that_no_log_should_have(at: int, message: str) -> None:
    with Image.open(bytes(not_closed([{at: B}]))) as image:
        assert message in str(image.known_problems)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (64, b"\1\0", "its version is 1, and only 0 can be replayed"),
        (68, (64 * MIB).to_bytes(4, "little"), "logs of 4096 to 33554432 bytes are replayed"),
        (68, bytes(4), "logs of 4096 to 33554432 bytes are replayed"),
        (72, (1 << 40).to_bytes(8, "little"), "the 0 sectors of its log"),
    ],
)
def test_logs_that_are_not_replayed(at: int, value: bytes, message: str) -> None:
    data = not_closed([{4 * MIB: B}])
    for start in (0x10000, 0x20000):
        data[start : start + PAGE] = _with(bytes(data[start : start + PAGE]), at, value)
    with pytest.raises(CorruptImage, match=message):
        Image.open(bytes(data))


def test_more_changes_than_are_made() -> None:
    most = 1 << 16
    for count in (most, most + 1):
        changes: dict[int, bytes | int] = {4 * MIB + PAGE * at: PAGE for at in range(count)}
        entry = vhdx_log_entry(ID, 1, changes, tail=0, flushed=0, last=0)
        disk = vhdx_disk(b"a" * MIB)
        header = bytearray(disk.read_at(0x10000, PAGE))
        header[68:80] = (4 * MIB).to_bytes(4, "little") + (8 * MIB).to_bytes(8, "little")
        header[48:64] = ID
        sealed = _with(bytes(header), 0, b"")
        kept = [piece for piece in disk.pieces if piece[0] not in (0x10000, 0x20000)]
        large = SparseImage(12 * MIB, [*kept, (0x10000, sealed), (0x20000, sealed), (8 * MIB, entry)])
        if count == most:
            assert not any(file_of(large).read_at(4 * MIB, MIB))
        else:
            with pytest.raises(CorruptImage, match=f"more than {most} changes"):
                file_of(large)


def test_each_sector_of_a_log_is_checked_once() -> None:
    """Entries that claim the whole log, each from another sector, would cost its square."""
    disk = vhdx_disk(b"a" * MIB)
    one = vhdx_log_entry(ID, 1, {4 * MIB: PAGE}, tail=0, flushed=0, last=0)
    for length in (PAGE, MIB):
        entry = _with(one, 8, length.to_bytes(4, "little"))[:PAGE]
        data = vhdx_with_log(disk, ID, [(at, entry) for at in range(0, MIB, PAGE)]).read_at(0, disk.size)
        checked: list[int] = []

        def count(structure: bytes, checked: list[int] = checked) -> bool:
            checked.append(len(structure))
            return True

        source = BytesSource(data)
        header = VhdxHeader.parse(data, 0x10000)
        try:
            replay(source, header, count, ProblemList("disk"))
        except CorruptImage:
            assert length == MIB
        assert sum(checked) == (MIB if length == PAGE else 0)


def test_a_range_costs_no_more_reads_than_it_has_pieces() -> None:
    data = bytes(not_closed([{4 * MIB + PAGE: B}, {4 * MIB + 10 * PAGE: 100 * PAGE}]))
    source = Counting(BytesSource(data))
    disk = vhdx.open_layer(source, LayerOptions())
    disk.read_at(0, 1)
    source.reads.clear()
    found = disk.read_at(0, MIB)
    assert [offset for offset, _ in source.reads] == [4 * MIB, 4 * MIB + 2 * PAGE, 4 * MIB + 110 * PAGE]
    assert found == b"a" * PAGE + B + b"a" * 8 * PAGE + bytes(100 * PAGE) + b"a" * (MIB - 110 * PAGE)
    assert disk.skip_zeros(10 * PAGE, MIB) == 110 * PAGE


@given(st.binary(max_size=3000))
def test_crc32c_is_what_a_loop_over_the_bits_gives(data: bytes) -> None:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    assert crc32c(data) == value ^ 0xFFFFFFFF
