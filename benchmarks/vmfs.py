"""A datastore beside vmfs-fuse: list 10,000 files with their sizes and times, and read a sparse disk of 1 GiB.

Each way runs in a process of its own, in turn, on the same volume of VMFS 5, which the forge makes in sparse form; what
is printed are medians, ratios of the medians and peak resident memory. vmfs-fuse is mounted before its time starts, and
again for each run, so that its caches and the kernel's are cold; the volume itself is in the page cache for both.
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
from pathlib import Path

from measure import Cost, run_mounted, run_script

from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
from vmvisor_image.testing.forge_vmfs_files import BLOCK, Content, VmfsFile, vmfs_volume

FOLDER = Path("build/bench")
FILES = 10_000
SPARSE_BLOCKS = 1024
WRITTEN = range(0, SPARSE_BLOCKS, 4)
"""Every fourth block of the sparse disk holds data."""

WALK_OURS = """
import sys
from vmvisor_image import Image
with Image.open(sys.argv[1]) as image:
    found = [(path, file.size, file.timestamp) for path, file in image.partitions[1].files.items()]
assert len(found) >= 10_000, len(found)
"""
READ_OURS = """
import sys
from vmvisor_image import Image
with Image.open(sys.argv[1]) as image:
    total = sum(map(len, image.partitions[1].files["vm/sparse-flat.vmdk"].chunks(1 << 20)))
assert total == 1 << 30, total
"""
WALK_MOUNTED = """
import os, sys
found = []
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        status = os.stat(os.path.join(folder, name))
        found.append((name, status.st_size, status.st_mtime))
assert len(found) >= 10_000, len(found)
"""
READ_MOUNTED = """
import os, sys
total = 0
with open(os.path.join(sys.argv[1], "vm/sparse-flat.vmdk"), "rb", buffering=0) as file:
    while data := file.read(1 << 20):
        total += len(data)
assert total == 1 << 30, total
"""


def make_volume(path: Path) -> None:
    tree: dict[str, Content] = {f"{n // 500:02}/{n:05}.log": b"%d\n" % n * 20 for n in range(FILES)}
    pieces = tuple((block * BLOCK + 512, b"%8d" % block * 64) for block in WRITTEN)
    tree["vm/sparse-flat.vmdk"] = VmfsFile(size=SPARSE_BLOCKS * BLOCK, pieces=pieces, pointers="pointer blocks")
    (volume,) = vmfs_volume(tree, "vmfs5", size=(4 << 28) + DATA_OFFSET)
    volume.write_to(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    if shutil.which("vmfs-fuse") is None:
        sys.exit("vmfs-fuse is not installed (Debian: vmfs-tools)")
    mounted = FOLDER / "mounted"
    mounted.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "datastore.img"
    # Elsewhere, as its memory would count for the processes that are started from here.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(make_volume, path).result()
    jobs: dict[str, tuple[str, str]] = {
        f"list {FILES} files": (WALK_OURS, WALK_MOUNTED),
        "read 1 GiB, three quarters holes": (READ_OURS, READ_MOUNTED),
    }
    for name, (own, theirs) in jobs.items():
        ways: dict[str, Callable[[], Cost | None]] = {
            "ours": lambda own=own: run_script(own, path),  # type: ignore[misc]  # bound at once
            "vmfs-fuse": lambda theirs=theirs: run_mounted("vmfs-fuse", theirs, path, mounted),  # type: ignore[misc]  # bound at once
        }
        found: dict[str, list[Cost]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, run in ways.items():
                cost = run()
                if cost is None:
                    sys.exit(f"{way} does not take the volume")
                found[way].append(cost)
        seconds = {way: statistics.median(cost.seconds for cost in costs) for way, costs in found.items()}
        print(name)
        for way, costs in found.items():
            print(f"  {way:10} {seconds[way]:6.2f} s  {max(cost.megabytes for cost in costs):6.0f} MB")
        print(f"  ratio      {seconds['ours'] / seconds['vmfs-fuse']:6.2f}")


if __name__ == "__main__":
    main()
