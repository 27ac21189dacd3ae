"""The bzip2 reader beside other tools: whole files, and single reads.

Four inputs, made here the same way each time: (a) a disk of 256 MB with 40 MB of gzip-like payload in 8 runs, (b) 128
MB of text and binaries, (c) 1 GB of zeros but for 4 runs of 2 MB, (d) an ESX 3i 3.5 disk of 750 MiB. Every way runs in
a process of its own, all in turn, so that what else the machine does falls on all alike.

* `whole`: the decoded data in order, thrown away; ratios of the medians of elapsed time, ours with all cores to each
  way's; and of CPU time, ours with one thread to each way's.
* `first`: 512 bytes at the start, the last 64 kB, and 200 reads of 4 kB at random, each cold; then the last two with a
  saved index, and with the decoded data as seekable zstd (`vmvisor-image convert`).
"""

from __future__ import annotations

import argparse
import bz2
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
FOLDER = Path("build/bench")
MEBIBYTE = 1 << 20

READ_ALL = {
    "ours": """
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.streams.sources import FileSource
reader = Bzip2Reader(FileSource(path), threads=threads)
with reader.open() as file:
    while file.read(1 << 20): pass
""",
    "bz2": """
import bz2
with bz2.open(path) as file:
    while file.read(1 << 20): pass
""",
    "indexed_bzip2": """
import indexed_bzip2
with indexed_bzip2.open(path, parallelization=threads) as file:
    while file.read(1 << 20): pass
""",
    "rapidgzip": """
import rapidgzip
with rapidgzip.open(path, parallelization=threads) as file:
    while file.read(1 << 20): pass
""",
}

WITH_LIBBZ2 = "import os; os.environ['VMVISOR_BZIP2_ENGINE'] = 'libbz2'"

OPEN = {
    "ours": """
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.streams.sources import FileSource
file = Bzip2Reader(FileSource(path), index=index or None).open()
""",
    "ours, zstd": """
from vmvisor_image import Image
image = Image.open(path + ".zst")
file = image.open()
""",
    "indexed_bzip2": """
import indexed_bzip2, pickle
file = indexed_bzip2.open(path, parallelization=threads)
if index: file.set_block_offsets(pickle.load(open(index, "rb")))
""",
    "rapidgzip": """
import rapidgzip
file = rapidgzip.open(path, parallelization=threads)
if index: file.import_index(index)
""",
}

READS = {
    "512 bytes at 0": "assert len(file.read(512)) == 512",
    "last 64 kB": "file.seek(size - 65536); assert len(file.read(65536)) == 65536",
    "200 random 4 kB": """
import random
chosen = random.Random(1)
for _ in range(200):
    file.seek(chosen.randrange(size - 4096))
    assert len(file.read(4096)) == 4096
""",
    "the same 200 again": """
import random, time
for again in range(2):
    chosen = random.Random(1)
    started = time.perf_counter()
    for _ in range(200):
        file.seek(chosen.randrange(size - 4096))
        assert len(file.read(4096)) == 4096
seconds = time.perf_counter() - started
""",
}

MAKE_INDEX = {
    "ours": """
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.streams.sources import FileSource
reader = Bzip2Reader(FileSource(path), index=index)
reader.size
reader.close()
""",
    "indexed_bzip2": """
import indexed_bzip2, pickle
file = indexed_bzip2.open(path, parallelization=threads)
pickle.dump(file.block_offsets(), open(index, "wb"))
file.close()
""",
    "rapidgzip": """
import rapidgzip
file = rapidgzip.open(path, parallelization=threads)
file.export_index(index)
file.close()
""",
    "ours, zstd": """
from vmvisor_image import Image, convert
with Image.open(path) as image:
    convert(image, path + ".zst", overwrite=True)
""",
}


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    seconds: float
    cpu_seconds: float
    """Over all threads, in user and system mode."""
    megabytes: float
    """Peak resident memory of the process."""


@dataclass(frozen=True)
class Input:
    name: str
    path: Path
    size: int
    """Decoded bytes."""


def run(command: list[str]) -> Cost:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = b""
        while block := process.stdout.read(MEBIBYTE):
            said = block[-40:]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    if said.startswith(b"seconds "):
        seconds = float(said.split()[1])
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def script(text: str, given: Input, threads: int = CORES, index: str = "") -> list[str]:
    settings = f"path, threads, size, index = {str(given.path)!r}, {threads}, {given.size}, {index!r}\n"
    return [sys.executable, "-c", settings + text]


def text_and_binaries(size: int) -> bytes:
    """Source text and machine code of the running Python, as far as it goes, then again in another order."""
    roots = [Path(sys.base_prefix) / "lib", Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/share/doc")]
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    random.Random(2).shuffle(files)
    found = bytearray()
    while len(found) < size:
        for path in files:
            found += path.read_bytes()[:2_000_000]
            if len(found) >= size:
                break
    return bytes(found[:size])


def scattered(size: int, payload: int, pieces: int) -> bytes:
    """A disk of zeros with runs of incompressible bytes."""
    chosen = random.Random(3)
    disk = bytearray(size)
    for number in range(pieces):
        at = size // pieces * number
        disk[at : at + payload // pieces] = chosen.randbytes(payload // pieces)
    return bytes(disk)


def esx_disk() -> bytes:
    from vmvisor_image.testing import forge

    disk = forge.esx35_disk(boot=forge.esx35_boot_files(), bank=forge.esx35_bank_files())
    return disk.read_at(0, disk.size)


INPUTS: dict[str, Callable[[], bytes]] = {
    "a": lambda: scattered(256 * MEBIBYTE, 40_000_000, 8),
    "b": lambda: text_and_binaries(128 * MEBIBYTE),
    "c": lambda: scattered(1 << 30, 8_000_000, 4),
    "d": esx_disk,
}


def make_input(name: str) -> Input:
    path = FOLDER / f"{name}.bz2"
    size_path = path.with_suffix(".size")
    if not size_path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        data = INPUTS[name]()
        compressor = bz2.BZ2Compressor()
        with path.open("wb") as file:
            for at in range(0, len(data), MEBIBYTE):
                file.write(compressor.compress(data[at : at + MEBIBYTE]))
            file.write(compressor.flush())
        size_path.write_text(str(len(data)))
    return Input(name, path, int(size_path.read_text()))


def whole(given: Input, runs: int) -> None:
    ways = {"ours": script(READ_ALL["ours"], given)}
    ways["ours, 1 thread"] = script(READ_ALL["ours"], given, 1)
    ways["ours, libbz2"] = script(WITH_LIBBZ2 + READ_ALL["ours"], given)
    for cores in (CORES, 1):
        ways[f"lbzip2 -n{cores}"] = ["lbzip2", f"-n{cores}", "-dc", str(given.path)]
    ways["bzip2"] = ["bzip2", "-dc", str(given.path)]
    for peer in ("indexed_bzip2", "rapidgzip"):
        ways[peer] = script(READ_ALL[peer], given)
        ways[f"{peer}, 1 thread"] = script(READ_ALL[peer], given, 1)
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, command in ways.items():
            costs[name].append(run(command))
    mine = statistics.median(cost.seconds for cost in costs["ours"])
    mine_alone = statistics.median(cost.cpu_seconds for cost in costs["ours, 1 thread"])
    compressed = given.path.stat().st_size / 1e6
    for name, found in costs.items():
        median = statistics.median(cost.seconds for cost in found)
        cpu = statistics.median(cost.cpu_seconds for cost in found)
        peak = max(cost.megabytes for cost in found)
        label = f"{given.name}: {given.size / 1e6:.0f} MB, {compressed:.1f} compressed"
        figures = f"{median:.2f} | {mine / median:.2f} | {cpu:.2f} | {mine_alone / cpu:.2f} | {peak:.0f}"
        print(f"| {label} | {name} | {figures} |", flush=True)


def first(given: Input, runs: int) -> None:
    for peer, opening in OPEN.items():
        index = str(FOLDER / f"{given.name}.{peer.split(',')[0]}.index")
        Path(index).unlink(missing_ok=True)
        making = run(script(MAKE_INDEX[peer], given, index=index))
        kept = Path(f"{given.path}.zst" if "zstd" in peer else index).stat().st_size
        for state in ("", index):
            if "zstd" in peer and not state:
                continue
            for name, read in READS.items():
                report = '\nfile.close()\nif "seconds" in globals(): print("seconds", seconds)'
                costs = [run(script(opening + read + report, given, index=state)) for _ in range(runs)]
                median = statistics.median(cost.seconds for cost in costs)
                peak = max(cost.megabytes for cost in costs)
                how = "cold" if not state else f"made in {making.seconds:.1f} s, {kept / 1e3:.1f} kB"
                print(f"| {given.name} | {name} | {peer} | {how} | {median:.3f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each way (default: %(default)s)")
    parser.add_argument("--inputs", default="abcd", help="which inputs (default: %(default)s)")
    parser.add_argument("--tables", default="whole,first", help="which tables (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"{CORES} cores, Python {sys.version.split()[0]}, {arguments.runs} runs\n")
    # What a process holds counts for its children too: the inputs are made in one of its own.
    if not os.environ.get("MADE"):
        subprocess.run([sys.executable, *sys.argv, "--tables", ""], env={**os.environ, "MADE": "1"}, check=True)
    inputs = [make_input(name) for name in arguments.inputs]
    if "whole" in arguments.tables:
        print("| input | way | median s | ours / its | CPU s | our one thread's / its | peak MB |")
        print("|---|---|---:|---:|---:|---:|---:|")
        for given in inputs:
            whole(given, arguments.runs)
    if "first" in arguments.tables:
        print("\n| input | read | way | index | median s | peak MB |\n|---|---|---|---|---:|---:|")
        for given in inputs:
            first(given, arguments.runs)


if __name__ == "__main__":
    main()
