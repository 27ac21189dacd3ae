"""Many images: throughput at 1 and 2 workers, and how memory grows from image 20 to the last.

200 forged ESXi 4.x disks of 900 MB each, compressed with bzip2, each with content of its own. Each run is a process of
its own, after one that reads every image once, so that the files are in the page cache. Memory is the sum of the
resident sets of the process and its workers; for the growth, a line is fitted to one sample after each image.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vmvisor_image.fleet import stream
from vmvisor_image.testing.forge import esx40_disk, incompressible

FOLDER = Path("build/bench/fleet")
WARM = 20
"""Images after which memory is compared."""
PAYLOAD = 400_000
"""Incompressible bytes in each image."""


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over all images."""

    seconds: float
    """By the wall clock."""
    cpu: float
    """Seconds of all processes, workers included."""
    bad: int
    memory: list[int]
    """Bytes resident after each image."""


def forge(count: int) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = FOLDER / f"disk{number:04}.dd.bz2"
        if not path.exists():
            text = f"kernel=b.z\nmodules=k.z\nbuild=4.1.0-{number}\nupdated=1\nbootstate=0\n"
            bank = {"boot.cfg": text.encode(), "b.z": incompressible(f"b{number}", PAYLOAD), "k.z": b"module"}
            esx40_disk(boot={"mboot.c32": b"loader"}, bank=bank).write_bz2(path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)


def resident(process: int) -> int:
    """Bytes in memory of a process and its children."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


def measure(workers: int) -> None:
    """Read all images; print seconds, rows that are no good, and the memory after each image."""
    memory: list[int] = []
    begun = time.perf_counter()
    bad = 0
    for row in stream(str(FOLDER / "*.bz2"), workers=workers):
        bad += not row["ok"]
        memory.append(resident(os.getpid()))
    print(json.dumps(asdict(Run(time.perf_counter() - begun, sum(os.times()[:4]), bad, memory))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, help="what a run of its own measures")
    options = parser.parse_args()
    if options.workers:
        measure(options.workers)
        return
    forge(options.images)
    command = [sys.executable, __file__, "--workers"]
    subprocess.run([*command, "2"], check=True, stdout=subprocess.DEVNULL)
    found: dict[int, list[Run]] = {1: [], 2: []}
    for _ in range(options.runs):
        for workers, runs in found.items():
            runs.append(Run(**json.loads(subprocess.check_output([*command, str(workers)]))))
    print("| workers | images/s | median s | CPU s | MB after 20 | MB after all | peak MB | slope, kB/image |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for workers, runs in found.items():
        assert not any(run.bad for run in runs)
        seconds = statistics.median(run.seconds for run in runs)
        cpu = statistics.median(run.cpu for run in runs)
        memory = [statistics.median(samples) for samples in zip(*(run.memory for run in runs), strict=True)]
        slope = statistics.linear_regression(range(len(memory) - WARM), memory[WARM:]).slope
        peak = max(max(run.memory) for run in runs)
        print(
            f"| {workers} | {options.images / seconds:.2f} | {seconds:.1f} | {cpu:.1f} | {memory[WARM - 1] / 1e6:.1f} "
            f"| {memory[-1] / 1e6:.1f} | {peak / 1e6:.1f} | {slope / 1e3:.1f} |"
        )


if __name__ == "__main__":
    main()
