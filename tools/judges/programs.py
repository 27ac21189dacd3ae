"""Other programs, run with a bound on their time and output."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECONDS: Final = 20
"""A program that takes longer has no end."""
_PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_ENVIRONMENT: Final = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))},
    "PATH": _PATH,
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "SOURCE_DATE_EPOCH": "1200000000",
    "MTOOLSRC": str(Path(__file__).with_name("mtools.conf")),
    "MTOOLS_SKIP_CHECK": "1",
}


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended."""

    status: int | None
    """Exit status, negative for a signal; None where it had no end."""
    output: bytes
    errors: str

    @property
    def complaint(self) -> str:
        """Why it refuses what it was given; empty where it does not."""
        if self.status is None:
            return "no end"
        if self.status == 0:
            return ""
        text = " | ".join(line.strip() for line in self.errors.splitlines() if line.strip())
        return text[:400] or f"exit status {self.status}"


def missing(names: tuple[str, ...]) -> list[str]:
    """Those of the programs that are not installed."""
    return [name for name in names if shutil.which(name, path=_PATH) is None]


def run(*command: str | Path, folder: Path | None = None, stdin: bytes = b"") -> Done:
    """Run a judge."""
    words = [str(word) for word in command]
    words[0] = shutil.which(words[0], path=_PATH) or words[0]
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, timeout=SECONDS, check=False, env=_ENVIRONMENT, cwd=folder
        )
    except subprocess.TimeoutExpired as expired:
        return Done(None, expired.stdout or b"", "no end")
    return Done(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))


def make(*command: str | Path, folder: Path | None = None, stdin: bytes = b"") -> bytes:
    """Run a writer, which has to succeed; gives its output.

    Raises:
        RuntimeError: It does not.
    """
    done = run(*command, folder=folder, stdin=stdin)
    if done.status != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.status}: {done.errors[-2000:]}")
    return done.output
