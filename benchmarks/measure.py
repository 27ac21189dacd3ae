"""What commands cost: time, CPU time and peak memory, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Step = tuple[list[str], Path | None]
"""A command, and the file that its output goes to; None for nowhere."""


class Cost(NamedTuple):
    """What one run took."""

    seconds: float
    cpu: float
    """Seconds of CPU, of all processes."""
    megabytes: float
    """Peak resident memory of the largest process."""


def run(steps: Sequence[Step]) -> Cost:
    """What all steps cost, one after the other."""
    peak = 0
    cpu = 0.0
    started = time.perf_counter()
    for command, output in steps:
        with (output or Path(os.devnull)).open("wb") as file:
            process = subprocess.Popen(command, stdout=file)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{command} ended with {process.returncode}")
        peak = max(peak, usage.ru_maxrss)
        cpu += usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - started, cpu, peak / 1024)


def run_script(script: str, argument: Path) -> Cost:
    """The same of one script of Python, interpreter included."""
    return run([([sys.executable, "-c", script, str(argument)], None)])


def run_mounted(fuse: str, script: str, volume: Path, folder: Path) -> Cost | None:
    """A script on a volume mounted anew by a FUSE program, whose memory it is; None where that does not take it."""
    process = subprocess.Popen([fuse, str(volume), str(folder), "-f"])
    try:
        while not os.path.ismount(folder):  # Path.is_mount stats the parent, too
            if process.poll() is not None:
                return None
            time.sleep(0.01)
        cost = run_script(script, folder)
    finally:
        if process.returncode is None:
            subprocess.run(["umount", str(folder)], check=True)
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
    return Cost(cost.seconds, cost.cpu + usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
