"""Where the bzip2 reader's time goes, by phase; run `benchmarks/bzip2.py` first, which makes the inputs.

One pass over each input with one thread and with all: wall time, CPU time of the threads within the decoder, of the
search for blocks, of compressing the cache, and of everything else, and how busy the cores were.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmvisor_image.bzip2 import Bzip2Reader, cache, scan, walk
from vmvisor_image.bzip2.choose import make_engine
from vmvisor_image.streams.sources import FileSource

CORES = len(os.sched_getaffinity(0))
FOLDER = Path("build/bench")


class Phases:
    """CPU seconds by phase, of all threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self.seconds[phase] += time.thread_time() - started

        return call


def one_pass(path: Path, threads: int, phases: Phases) -> tuple[float, float]:
    source = FileSource(path)
    opened = Bzip2Reader(source, threads=threads)
    cpu, wall = time.process_time(), time.perf_counter()
    with opened.open() as file:
        while file.read(1 << 20):
            pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    opened.close()
    source.close()
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", default="abcd", help="which inputs (default: %(default)s)")
    arguments = parser.parse_args()
    places = [
        (type(make_engine()), "decode", "decode"),
        (scan.MagicScanner, "_scan_window", "scan"),
        (walk, "find_magic_near", "scan"),
        (cache, "_pack", "cache"),
    ]
    originals = [getattr(owner, name) for owner, name, _ in places]
    print("| input | threads | wall s | decode s | scan s | cache s | rest s | cores busy |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in arguments.inputs:
        for threads in (1, CORES):
            phases = Phases()
            for (owner, attribute, phase), original in zip(places, originals, strict=True):
                setattr(owner, attribute, phases.timed(phase, original))
            wall, cpu = one_pass(FOLDER / f"{name}.bz2", threads, phases)
            decode, scanning, packing = (phases.seconds[phase] for phase in ("decode", "scan", "cache"))
            rest = cpu - decode - scanning - packing
            print(
                f"| {name} | {threads} | {wall:.2f} | {decode:.2f} | {scanning:.2f} | {packing:.2f} | {rest:.2f}"
                f" | {cpu / wall:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
