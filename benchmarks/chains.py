"""Chains of five qcow2 and VMDK disks: read beside one disk of the same content, and made raw beside qemu-img.

The disks are made by qemu-img and qemu-io. Reads are in this process, of disks in the page cache, and the best of some
runs counts; each run opens the disk anew. The conversions are processes of their own, in turn.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import run

from vmvisor_image import Image

FOLDER = Path("build/bench/chains")
LINKS = 5
WRITES = 40
"""Writes to each disk but the first, of 64 to 512 KiB."""
RANDOM_READS = 2000
CLUSTER = 1 << 16
TO_RAW = """
import sys
from vmvisor_image import Image
with Image.open(sys.argv[1]) as image, open(sys.argv[2], "wb") as out:
    at = 0
    while (at := image.skip_zeros(at, image.size)) < image.size:
        data = image.read_up_to(at, 1 << 20)
        out.seek(at)
        out.write(data)
        at += len(data)
    out.truncate(image.size)
"""


def make(kind: str, size: int) -> tuple[Path, Path]:
    """One disk, and the last of a chain of the same content."""
    chosen = random.Random(1)
    raw = FOLDER / "raw"
    raw.write_bytes(chosen.randbytes(size))
    below = FOLDER / f"0.{kind}"
    subprocess.run(["qemu-img", "convert", "-O", kind, raw, below], check=True)
    for number in range(1, LINKS):
        path = FOLDER / f"{number}.{kind}"
        under = ["-b", str(below.resolve()), "-F", kind]
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, *under, path], check=True)
        commands: list[str] = []
        for _ in range(WRITES):
            at = chosen.randrange(0, size - 8 * CLUSTER, CLUSTER)
            commands += ["-c", f"write -P {number} {at} {chosen.choice([64, 64, 128, 512])}k"]
        subprocess.run(["qemu-io", "-f", kind, *commands, path], check=True, stdout=subprocess.DEVNULL)
        below = path
    one = FOLDER / f"one.{kind}"
    subprocess.run(["qemu-img", "convert", "-O", kind, below, one], check=True)
    return one, below


def read_all(path: Path, step: int) -> float:
    started = time.perf_counter()
    with Image.open(path) as image:
        for at in range(0, image.size - step + 1, step):
            image.disk.read_at(at, step)
    return time.perf_counter() - started


def read_anywhere(path: Path, length: int) -> float:
    chosen = random.Random(2)
    started = time.perf_counter()
    with Image.open(path) as image:
        for _ in range(RANDOM_READS):
            image.disk.read_at(chosen.randrange(0, image.size - length, 512), length)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=64)
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in ("qcow2", "vmdk"):
        one, five = make(kind, given.megabytes << 20)
        for name, read in (("in a row", read_all), (f"{RANDOM_READS} anywhere", read_anywhere)):
            for length in (4096, CLUSTER, 1 << 20):
                found = [min(read(path, length) for _ in range(given.runs)) for path in (one, five)]
                print(
                    f"{kind:6} reads of {length >> 10:5} KiB {name:15} one {found[0]:6.3f} s, "
                    f"five {found[1]:6.3f} s, ratio {found[1] / found[0]:.2f}"
                )
        out = FOLDER / "out.raw"
        ways = {
            "ours": [sys.executable, "-c", TO_RAW, str(five), str(out)],
            "qemu-img": ["qemu-img", "convert", "-f", kind, "-O", "raw", str(five), str(out)],
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(given.runs):
            for way, command in ways.items():
                out.unlink(missing_ok=True)
                seconds[way].append(run([(command, None)]).seconds)
        ours, theirs = (statistics.median(each) for each in seconds.values())
        print(f"{kind:6} conversion to raw: ours {ours:.2f} s, qemu-img {theirs:.2f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
