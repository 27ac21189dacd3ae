"""`make demo`: build a realistic ESX 3i image, or take the user's own, and export it for a PXE server."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from vmvisor_image import Image, VmvisorImageError, export_pxe
from vmvisor_image.bzip2 import Bzip2Reader
from vmvisor_image.testing import forge

BUILD = Path("build/demo")
DECODERS = {"rust": "the Rust core", "libbz2": "libbz2"}
NAME = "VMware-VMvisor-big-3.5.0-67921.i386.dd.bz2"


def build_image(path: Path) -> None:
    """A 750 MiB disk in the layout of ESX 3i 3.5, with stand-ins for VMware's files, compressed with bzip2."""
    print(f"Building {path}: 750 MiB, of it 45 MB of modules and 110 MB of tools (takes half a minute) ...", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    disk = forge.esx35_disk(
        boot=forge.esx35_boot_files(), bank=forge.esx35_bank_files(), store=forge.esx35_store_files()
    )
    unfinished = path.with_suffix(".part")
    disk.write_bz2(unfinished)
    unfinished.rename(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="a disk image of your own")
    parser.add_argument("--dest", type=Path, help="the folder to export to")
    arguments = parser.parse_args()
    path: Path = arguments.image or BUILD / NAME
    dest: Path = arguments.dest or BUILD / "tftp"
    if arguments.image is None and not path.exists():
        build_image(path)
    try:
        show(path, dest, overwrite=arguments.dest is None)
    except (VmvisorImageError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def show(path: Path, dest: Path, *, overwrite: bool) -> None:
    print(f"Opening {path} ({path.stat().st_size / 1e6:.1f} MB)")
    started = time.perf_counter()
    with Image.open(path) as image:
        export = export_pxe(image, dest, overwrite=overwrite)
        seconds = time.perf_counter() - started
        written = sum(file.stat().st_size for file in export.files)
        print(f"Exported {len(export.files)} files, {written / 1e6:.1f} MB, to {dest} in {seconds:.2f} s:")
        for file in export.files:
            print(f"  {file.stat().st_size:>10}  {file.relative_to(dest)}")
        for layer in image.layers:
            if isinstance(layer.source, Bzip2Reader):
                stats = layer.source.stats
                total = layer.source.count_blocks()
                who = DECODERS[layer.source.engine]
                print(f"Decoded {stats.blocks_decoded} of the image's {total} bzip2 blocks, by {who}.")
        print(f"{dest / 'pxelinux.cfg/default'}:")
        print("  " + (dest / "pxelinux.cfg/default").read_text().replace("\n", "\n  ").rstrip())
        print("What is on the disk, and what is the small partition of the 2008 recipe for?")
        for partition in image.partitions:
            print(f"  {partition.number}: {partition.label or '-':12} {partition.kind:9} {partition.role.value}")
            if partition.type.code == 0xFC:
                print(f"     {partition.explain()}")


if __name__ == "__main__":
    sys.exit(main())
