"""Build the root folder of a TFTP server from disk images and installer CDs, with one menu of them all.

    python examples/tftp_root.py /srv/tftp VMware-VMvisor-big-3.5.0-67921.i386.dd.bz2 VMware-VMvisor-Installer-6.5.0.iso

Every image gets a folder and a label of its own, named after the file. One that can't be exported is told of and left
out. Exit status: 0 done, 1 some image was left out, 2 misuse.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from vmvisor_image import Image, VmvisorImageError, export_pxe

MENU = "pxelinux.cfg/default"


def label_of(path: Path) -> str:
    """The file's name, with a dash for what a label can't have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.split(".dd")[0].removesuffix(".iso")).strip("-._") or "image"


def build(root: Path, sources: list[Path]) -> dict[Path, str]:
    """Export each image below `root` and write the menu; gives what went wrong, by image."""
    entries: dict[str, str] = {}
    failed: dict[Path, str] = {}
    for source in sources:
        label = label_of(source)
        if label in entries:
            failed[source] = f"another image is called {label}"
            continue
        try:
            with Image.open(source) as image:
                # Only the configuration of the export before is there to be replaced: each has its own prefix.
                export = export_pxe(image, root, label=label, prefix=label, overwrite=bool(entries))
        except (VmvisorImageError, OSError) as error:
            failed[source] = str(error)
            continue
        _, entries[label] = (root / MENU).read_text().split("\n", 1)
        print(f"{label}: {len(export.files)} files, {export.mode}")
    if entries:
        (root / MENU).write_text(f"default {next(iter(entries))}\nprompt 1\ntimeout 100\n{''.join(entries.values())}")
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="Build the root folder of a TFTP server from images.")
    parser.add_argument("root", type=Path, help="the folder to make")
    parser.add_argument("sources", type=Path, nargs="+", help="disk images and installer CDs")
    options = parser.parse_args(arguments)
    if options.root.exists():
        parser.error(f"{options.root} is already there")
    failed = build(options.root, options.sources)
    for source, reason in failed.items():
        print(f"{source}: left out: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
