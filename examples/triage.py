"""Incident response: hash every file of every boot bank, or say what differs between two images.

    python examples/triage.py suspect.dd.bz2                # one line for each file
    python examples/triage.py shipped.dd.bz2 suspect.dd.bz2   # "+" added, "-" removed, "!" changed

Nothing is mounted, run or written. Exit status: as diff, 0 no difference, 1 some, 2 trouble.
"""

from __future__ import annotations

import argparse
import sys

from vmvisor_image import CorruptImage, Image, VmvisorImageError


def hash_banks(source: str) -> dict[str, str]:
    """SHA-256 of each file in each boot bank, by ``PARTITION/PATH``; a damaged file has its error in its place."""
    found = {}
    with Image.open(source) as image:
        for problem in image.problems:
            print(f"{source}: {problem}", file=sys.stderr)
        for bank in image.partitions.banks:
            for path, file in image.partitions[bank.number].files.items():
                try:
                    digest = file.sha256()
                except CorruptImage as error:
                    digest = f"unreadable: {error}"
                found[f"{bank.number}/{path}"] = digest
    return found


def compare(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each file that differs, by path."""
    lines = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            lines.append(f"{'+' if old is None else '-' if new is None else '!'} {path}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="Hash every file of every boot bank, or compare two images.")
    parser.add_argument("sources", metavar="IMAGE", nargs="+", help="one image to hash, or two to compare")
    options = parser.parse_args(arguments)
    if len(options.sources) > 2:
        parser.error("one or two images")
    try:
        hashes = [hash_banks(source) for source in options.sources]
    except (VmvisorImageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if len(hashes) == 1:
        for path, digest in hashes[0].items():
            print(f"{digest}  {path!a}")  # names come from the image: no control character reaches the terminal
        return 0
    lines = compare(*hashes)
    for line in lines:
        print(line.encode("unicode_escape").decode())
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
