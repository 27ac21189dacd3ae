"""`python -m fuzz TARGET [libFuzzer's arguments]`, or `python -m fuzz --seconds N [TARGET ...]` for several in turn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fuzz.harness import main, names

KEPT = Path(".fuzz")
"""What each target has found, and what made it fail."""


def in_turn(targets: list[str], seconds: int) -> None:
    """Fuzz each target for a time, in a process of its own; the first that fails ends it, with its exit status."""
    for target in targets:
        corpus = KEPT / target
        corpus.mkdir(parents=True, exist_ok=True)
        limits = [f"-max_total_time={seconds}", "-timeout=25", "-rss_limit_mb=2048"]
        command = [sys.executable, "-m", "fuzz", target, str(corpus), *limits, f"-artifact_prefix={KEPT / target}-"]
        status = subprocess.run([*command, "-print_final_stats=1"], check=False).returncode
        if status:
            sys.exit(status)


several = sys.argv[1:2] == ["--seconds"]
targets = sys.argv[3:] if several else sys.argv[1:2]
if not set(targets) <= set(names()) or not (targets or several) or (several and not sys.argv[2:]):
    raise SystemExit(f"usage: {__doc__}\ntargets: {' '.join(names())}")
if several:
    in_turn(targets or names(), int(sys.argv[2]))
else:
    main(targets[0], sys.argv[2:])
