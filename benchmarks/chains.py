"""Chains of five qcow2 and VMDK disks: read beside one disk of the same content, and made raw beside qemu-img.

The disks are made by qemu-img and qemu-io. Reads are in this process, of disks in the page cache, and the best of some
runs counts; each run opens the disk anew, which is timed by itself. What a chain costs depends on how often a read has
to go on in another file: the number of these runs is printed. The conversions are processes of their own, in turn.
Last, a thin disk of 2 TB is opened and its last sector read, in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import mmap
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import run

from vmvisor_image import Image
from vmvisor_image.streams.mapped import MappedDisk

FOLDER = Path("build/bench/chains")
LINKS = 5
RANDOM_READS = 2000
CLUSTER = 1 << 16
OPEN_THIN = """
import re, sys, time
from pathlib import Path
from vmvisor_image import Image

def most():
    return int(re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().replace("\\t", " "))[1]) >> 10

before = most()
started = time.perf_counter()
with Image.open(sys.argv[1]) as image:
    image.read_at(image.size - 512, 512)
seconds = time.perf_counter() - started
print(f"{seconds * 1000:.1f} ms, {most()} MiB at most, of which {before} MiB before it was opened")
"""


def make(kind: str, size: int, writes: int) -> tuple[Path, Path]:
    """One disk, and the last of a chain of the same content: `writes` of 64 to 512 KiB to each disk but the first."""
    chosen = random.Random(1)
    raw = FOLDER / "raw"
    with raw.open("wb") as file:
        for _ in range(0, size, 1 << 20):
            file.write(chosen.randbytes(1 << 20))
        file.seek(0)
        file.write(bytes(510) + b"\x55\xaa")  # an empty partition table
    below = FOLDER / f"0.{kind}"
    subprocess.run(["qemu-img", "convert", "-O", kind, raw, below], check=True)
    for number in range(1, LINKS):
        path = FOLDER / f"{number}.{kind}"
        under = ["-b", str(below.resolve()), "-F", kind]
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, *under, path], check=True)
        commands: list[str] = []
        for _ in range(writes):
            at = chosen.randrange(0, size - 8 * CLUSTER, CLUSTER)
            commands += ["-c", f"write -P {number} {at} {chosen.choice([64, 64, 128, 512])}k"]
        subprocess.run(["qemu-io", "-f", kind, *commands, path], check=True, stdout=subprocess.DEVNULL)
        below = path
    one = FOLDER / f"one.{kind}"
    subprocess.run(["qemu-img", "convert", "-O", kind, below, one], check=True)
    return one, below


def read_all(path: Path, step: int) -> float:
    buffer = memoryview(mmap.mmap(-1, step))  # where bytearrays begin, some processors copy four times as slowly
    with Image.open(path) as image:
        started = time.perf_counter()
        for at in range(0, image.size - step + 1, step):
            image.disk.read_into(at, buffer)
        return time.perf_counter() - started


def read_anywhere(path: Path, length: int) -> float:
    chosen = random.Random(2)
    with Image.open(path) as image:
        places = [chosen.randrange(0, image.size - length, 512) for _ in range(RANDOM_READS)]
        started = time.perf_counter()
        for at in places:
            image.disk.read_at(at, length)
        return time.perf_counter() - started


def open_only(path: Path) -> float:
    started = time.perf_counter()
    with Image.open(path):
        return time.perf_counter() - started


def runs_of(path: Path) -> int:
    """Number of runs in the files of a chain that its bytes lie in."""
    with Image.open(path) as image:
        disk = image.layers[-1].source
        assert isinstance(disk, MappedDisk)
        found, at = 0, 0
        while at < disk.size:
            at = disk.locate_through(at, disk.size).end
            found += 1
    return found


def convert_beside_qemu(kind: str, path: Path, runs: int) -> None:
    out = FOLDER / "out.raw"
    ways = {
        "ours": [sys.executable, "-m", "vmvisor_image", "convert", "--force", str(path), str(out)],
        "qemu-img": ["qemu-img", "convert", "-f", kind, "-O", "raw", str(path), str(out)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, command in ways.items():
            out.unlink(missing_ok=True)
            seconds[way].append(run([(command, None)]).seconds)
    out.unlink()
    ours, theirs = (statistics.median(each) for each in seconds.values())
    print(f"{kind:6} conversion to raw: ours {ours:.2f} s, qemu-img {theirs:.2f} s, ratio {ours / theirs:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--writes", type=int, nargs="+", default=[40, 640], help="writes to each disk but the first")
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind, writes in itertools.product(("qcow2", "vmdk"), given.writes):
        one, five = make(kind, given.megabytes << 20, writes)
        print(f"{kind:6} {given.megabytes} MiB: one disk in {runs_of(one)} runs, five disks in {runs_of(five)}")
        found = [min(open_only(path) for _ in range(4 * given.runs)) * 1000 for path in (one, five)]
        print(f"{kind:6} opened: one {found[0]:.1f} ms, five {found[1]:.1f} ms")
        for name, read in (("in a row", read_all), (f"{RANDOM_READS} anywhere", read_anywhere)):
            for length in (4096, CLUSTER, 1 << 20):
                found = [min(read(path, length) for _ in range(given.runs)) for path in (one, five)]
                print(
                    f"{kind:6} reads of {length >> 10:5} KiB {name:15} one {found[0]:6.3f} s, "
                    f"five {found[1]:6.3f} s, ratio {found[1] / found[0]:.2f}"
                )
        convert_beside_qemu(kind, five, given.runs)
    for kind in ("qcow2", "vmdk"):
        thin = FOLDER / f"thin.{kind}"
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, thin, "2000G"], check=True)
        said = subprocess.run([sys.executable, "-c", OPEN_THIN, thin], check=True, capture_output=True, text=True)
        print(f"{kind:6} thin disk of 2 TB: {said.stdout.strip()}")


if __name__ == "__main__":
    main()
