"""Checks an installed core without any test package: `python tools/check_core.py`, as for each wheel of a release."""

from __future__ import annotations

import bz2
import os
import random
import sys

from vmvisor_image.bzip2 import Bzip2Reader, engine


def samples() -> list[bytes]:
    """Data of every kind that a block may hold."""
    chance = random.Random(1)
    words = [chance.randbytes(chance.randrange(1, 9)) for _ in range(300)]
    return [
        chance.randbytes(1_500_000),
        b"".join(chance.choices(words, k=500_000)),
        bytes(30_000_000),
        b"\xff" * 30_000_000 + b"end",
        b"".join(bytes([chance.randrange(3)]) * chance.randrange(1, 300) for _ in range(20_000)),
        bytes(range(256)) * 4000,
        b"a",
    ]


def main() -> int:
    os.environ.pop("VMVISOR_BZIP2_ENGINE", None)
    if engine() != "rust":
        print("the core is not there", file=sys.stderr)
        return 1
    for level in (1, 9):
        data = b"".join(samples())
        compressed = b"".join(bz2.compress(sample, level) for sample in samples())
        reader = Bzip2Reader(compressed)
        if reader.read_at(0, len(data)) != data or reader.size != len(data) or reader.problems:
            print(f"the core does not give what was compressed at level {level}", file=sys.stderr)
            return 1
    print("the core gives what was compressed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
