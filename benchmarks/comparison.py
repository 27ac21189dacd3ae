"""The jobs of docs/comparison.md, with each tool that can do them; prints that page's tables.

Each way runs in processes of its own, in turn; printed are the medians of time and of CPU time (all processes), and the
peak resident memory of the largest process. Tools that are not installed are left out and named. dissect.target has an
environment of its own: ``python -m venv build/bench/dissect``, then ``build/bench/dissect/bin/pip install
dissect.target dissect.vmfs``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from measure import Cost, Step, run, run_mounted, run_script

FOLDER = Path("build/bench")
IMAGE = FOLDER / "filled-store.dd.bz2"
VOLUME = FOLDER / "datastore6.img"
DISSECT = FOLDER / "dissect" / "bin" / "python"
BANK_LBA, BANK_OFFSET = 8224, 8224 * 512
FILES = 10_000
BLOCKS = 256

DISSECT_BANK = """
import pathlib, shutil, sys
from dissect.target import Target
target = Target.open(sys.argv[1])
(bank,) = [fs for fs in target.filesystems if fs.volume.offset == int(sys.argv[3])]
dest = pathlib.Path(sys.argv[2])
dest.mkdir()
for path in bank.path("/").iterdir():
    if path.is_file():
        with path.open() as source, (dest / path.name).open("wb") as file:
            shutil.copyfileobj(source, file)
"""
DISSECT_LIST = """
import sys
from dissect.vmfs.lvm import LVM
from dissect.vmfs.vmfs import VMFS
with open(sys.argv[1], "rb") as file:
    pending = [VMFS(LVM([file]).volumes[0].open()).get("/")]
    found = []
    while pending:
        for entry in pending.pop().iterdir():
            if entry.name in (".", ".."):
                continue
            descriptor = entry.file_descriptor
            if descriptor.is_dir():
                pending.append(descriptor)
            else:
                found.append((entry.name, descriptor.size, descriptor.mtime))
assert len(found) >= 10_000, len(found)
"""
DISSECT_READ = """
import sys
from dissect.vmfs.lvm import LVM
from dissect.vmfs.vmfs import VMFS
with open(sys.argv[1], "rb") as file:
    at = VMFS(LVM([file]).volumes[0].open()).get("/")
    for name in ("vm", "big.vmdk"):  # by listing: a look-up by name needs hashes, which the forge leaves out
        (at,) = [entry.file_descriptor for entry in at.iterdir() if entry.name == name]
    stream = at.open()
    total = 0
    while data := stream.read(1 << 20):
        total += len(data)
assert total == 256 << 20, total
"""
OURS_LIST = """
import sys
from vmvisor_image import Image
with Image.open(sys.argv[1]) as image:
    found = [(path, file.size, file.timestamp) for path, file in image.partitions[1].files.items()]
assert len(found) >= 10_000, len(found)
"""
OURS_READ = """
import sys
from vmvisor_image import Image
with Image.open(sys.argv[1]) as image:
    total = sum(map(len, image.partitions[1].files["vm/big.vmdk"].chunks(1 << 20)))
assert total == 256 << 20, total
"""
MOUNTED_LIST = """
import os, sys
found = [os.stat(os.path.join(at, name)) for at, _, names in os.walk(sys.argv[1]) for name in names]
assert len(found) >= 10_000, len(found)
"""
MOUNTED_READ = """
import os, sys
total = 0
with open(os.path.join(sys.argv[1], "vm/big.vmdk"), "rb", buffering=0) as file:
    while data := file.read(1 << 20):
        total += len(data)
assert total == 256 << 20, total
"""


def bank_ways(scratch: Path) -> dict[str, list[Step]]:
    """From the .dd.bz2 to the files of its boot bank, in a folder."""
    disk, dest = scratch / "disk.dd", scratch / "bank"
    decode: Step = (["lbzip2", "-dc", str(IMAGE)], disk)
    make: Step = (["mkdir", str(dest)], None)
    ours = [sys.executable, "-m", "vmvisor_image", "extract", str(IMAGE), "Hypervisor1", str(dest)]
    ways: dict[str, list[Step]] = {
        "vmvisor-image": [(ours, None)],
        "mtools": [decode, make, (["mcopy", "-m", "-i", f"{disk}@@{BANK_OFFSET}", "::/*", str(dest)], None)],
        "sleuthkit": [decode, (["tsk_recover", "-a", "-o", str(BANK_LBA), str(disk), str(dest)], None)],
        "dissect.target": [
            decode,
            ([str(DISSECT), "-c", DISSECT_BANK, str(disk), str(dest), str(BANK_OFFSET)], None),
        ],
        "guestfish": [
            decode,
            make,
            (
                ["guestfish", "--ro", "-a", str(disk), "-m", "/dev/sda5", "copy-out", *bank_names(), str(dest)],
                None,
            ),
        ],
    }
    return {name: steps for name, steps in ways.items() if there(steps)}


def bank_names() -> list[str]:
    return [f"/{name}" for name in ("vmkernel.gz", "binmod.tgz", "environ.tgz", "cim.tgz", "oem.tgz", "license.tgz")]


def there(steps: Sequence[Step]) -> bool:
    missing = [command[0] for command, _ in steps if shutil.which(command[0]) is None]
    if missing:
        print(f"{missing[0]} is not installed", file=sys.stderr)
    return not missing


def make_inputs() -> None:
    from vmvisor_image.testing import forge
    from vmvisor_image.testing.forge_vmfs import DATA_OFFSET
    from vmvisor_image.testing.forge_vmfs_files import BLOCK, Content, VmfsFile, vmfs_volume

    FOLDER.mkdir(parents=True, exist_ok=True)
    if not IMAGE.exists():
        disk = forge.esx35_disk(
            boot=forge.esx35_boot_files(), bank=forge.esx35_bank_files(), store=forge.esx35_store_files()
        )
        disk.write_bz2(IMAGE)
    if not VOLUME.exists():
        tree: dict[str, Content] = {f"{n // 500:02}/{n:05}.log": b"%d\n" % n * 20 for n in range(FILES)}
        pieces = tuple((block * BLOCK, b"%8d" % block * (BLOCK // 8)) for block in range(BLOCKS))
        tree["vm/big.vmdk"] = VmfsFile(size=BLOCKS * BLOCK, pieces=pieces, pointers="pointer blocks")
        (volume,) = vmfs_volume(tree, "vmfs6", size=(8 << 28) + DATA_OFFSET)
        volume.write_to(VOLUME)


def table(title: str, found: dict[str, list[Cost]]) -> None:
    print(f"\n{title}\n\n| with | median s | CPU s | peak MB |\n|---|---:|---:|---:|")
    for name, costs in found.items():
        seconds, cpu = (statistics.median(cost[number] for cost in costs) for number in (0, 1))
        print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {max(cost.megabytes for cost in costs):.0f} |")


def measure_bank(runs: int) -> None:
    found: dict[str, list[Cost]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=FOLDER) as names:
            ways = list(bank_ways(Path(names)))
        for name in ways:
            with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
                found.setdefault(name, []).append(run(bank_ways(Path(scratch))[name]))
    table("The files of a boot bank, from a .dd.bz2", found)


def measure_volume(runs: int, title: str, ours: str, dissect: str, of_mounted: str) -> None:
    found: dict[str, list[Cost]] = {}
    for _ in range(runs):
        found.setdefault("vmvisor-image", []).append(run_script(ours, VOLUME))
        found.setdefault("dissect.vmfs", []).append(run([([str(DISSECT), "-c", dissect, str(VOLUME)], None)]))
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            cost = run_mounted("vmfs6-fuse", of_mounted, VOLUME, Path(folder))
        if cost is not None:
            found.setdefault("vmfs6-fuse", []).append(cost)
    table(title, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each way (default: %(default)s)")
    runs = parser.parse_args().runs
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    # Elsewhere, as its memory would count for the processes that are started from here.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(make_inputs).result()
    measure_bank(runs)
    measure_volume(runs, f"{FILES} files of VMFS 6 with size and time", OURS_LIST, DISSECT_LIST, MOUNTED_LIST)
    measure_volume(runs, "256 MiB of one file of VMFS 6", OURS_READ, DISSECT_READ, MOUNTED_READ)


if __name__ == "__main__":
    main()
