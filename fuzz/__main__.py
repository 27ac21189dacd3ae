"""`python -m fuzz TARGET [libFuzzer's arguments]`."""

from __future__ import annotations

import sys

from fuzz.harness import main, names

if len(sys.argv) < 2 or sys.argv[1] not in names():
    raise SystemExit(f"usage: python -m fuzz TARGET [libFuzzer's arguments]; targets: {' '.join(names())}")
main(sys.argv[1], sys.argv[2:])
