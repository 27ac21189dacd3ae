"""The main job, cold, beside other tools: from a .dd.bz2 to the files a PXE server needs.

Three ways, each in processes of its own, on the same image, in turn:

* ours: `vmvisor-image pxe`;
* `lbzip2 -dc` to a disk image on all cores, then `mcopy` of the same files out of it;
* the same prefix of the disk, up to the last byte that the job needs, read through `indexed_bzip2` on all cores and
  thrown away: the decoding alone, without finding or writing any file.

What is printed: medians, ratios of the medians, and peak resident memory. There are two images in the layout of ESX
3i 3.5: one whose store partition (VMware Tools, the client's installer) is filled as on a shipped image, and one whose
store is empty, so that nearly all that is compressed is needed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from measure import Cost, run

CORES = len(os.sched_getaffinity(0))
FOLDER = Path("build/bench")
SECTOR = 512

READ_PREFIX = """
import sys, indexed_bzip2
path, end, cores = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with indexed_bzip2.open(path, parallelization=cores) as file:
    left = end
    while left:
        left -= len(file.read(min(left, 1 << 20)))
"""


@dataclass(frozen=True)
class Case:
    """One image and where what is needed of it lies."""

    name: str
    path: Path
    needed_end: int
    """The last byte of the disk that the job needs, exclusive."""
    boot_offset: int
    bank_offset: int


def ours(case: Case, scratch: Path) -> Cost:
    return run([([sys.executable, "-m", "vmvisor_image", "pxe", str(case.path), str(scratch / "tftp")], None)])


def lbzip2_and_mcopy(case: Case, scratch: Path) -> Cost:
    disk, dest = scratch / "disk.dd", scratch / "tftp"
    dest.mkdir()
    mcopy = ["mcopy", "-m", "-n"]
    return run(
        [
            (["lbzip2", "-n", str(CORES), "-dc", str(case.path)], disk),
            ([*mcopy, "-i", f"{disk}@@{case.boot_offset}", "::/mboot.c32", str(dest)], None),
            ([*mcopy, "-i", f"{disk}@@{case.bank_offset}", "::/*", str(dest)], None),
        ]
    )


def indexed_bzip2_prefix(case: Case, scratch: Path) -> Cost:
    return run([([sys.executable, "-c", READ_PREFIX, str(case.path), str(case.needed_end), str(CORES)], None)])


WAYS: dict[str, Callable[[Case, Path], Cost]] = {
    "vmvisor-image pxe": ours,
    "lbzip2 -dc + mcopy": lbzip2_and_mcopy,
    "indexed_bzip2, the prefix alone": indexed_bzip2_prefix,
}


def make_case(name: str, store_bytes: int) -> Case:
    """Build an image unless it is there; in a process of its own, see `main`."""
    from vmvisor_image import Image, export_pxe
    from vmvisor_image.testing import forge

    path = FOLDER / f"{name}.dd.bz2"
    if not path.exists():
        print(f"building {path} ...", flush=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        store = forge.esx35_store_files(store_bytes) if store_bytes else {}
        disk = forge.esx35_disk(boot=forge.esx35_boot_files(), bank=forge.esx35_bank_files(), store=store)
        disk.write_bz2(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    scratch = FOLDER / "needed"
    with Image.open(path) as image:
        export_pxe(image, scratch)
        boot, bank = image.partitions["Hypervisor0"], image.partitions["Hypervisor1"]
        files = [boot.files["mboot.c32"], *bank.files.values()]
        needed_end = max(extent.offset + extent.length for file in files for extent in file.extents)
    shutil.rmtree(scratch)
    return Case(name, path, needed_end, boot.start, bank.start)


def measure(case: Case, runs: int) -> dict[str, list[Cost]]:
    """Each way `runs` times, in turn, so that what else the machine does falls on all alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for _ in range(runs):
        for name, way in WAYS.items():
            scratch = FOLDER / "scratch"
            scratch.mkdir()
            costs[name].append(way(case, scratch))
            shutil.rmtree(scratch)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="runs of each way (default: %(default)s)")
    parser.add_argument(
        "--store", type=int, default=110_000_000, help="bytes in the filled store (default: %(default)s)"
    )
    arguments = parser.parse_args()
    for tool in ("lbzip2", "mcopy"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed")
    print(f"{CORES} cores, Python {sys.version.split()[0]}, {arguments.runs} runs\n")
    print("| image | way | median s | our median / its | peak MB |")
    print("|---|---|---:|---:|---:|")
    # What a child process inherits counts as its memory too, so this one stays small: images are built elsewhere.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        cases = list(pool.map(make_case, ("filled-store", "empty-store"), (arguments.store, 0)))
    for case in cases:
        costs = measure(case, arguments.runs)
        mine = statistics.median(cost.seconds for cost in costs["vmvisor-image pxe"])
        size = case.path.stat().st_size / 1e6
        for name, of_way in costs.items():
            median = statistics.median(cost.seconds for cost in of_way)
            peak = max(cost.megabytes for cost in of_way)
            print(f"| {case.name}, {size:.0f} MB | {name} | {median:.2f} | {mine / median:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
