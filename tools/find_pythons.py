"""Find the Pythons to build and test with: the oldest supported one on this machine and the newest.

Prints one line for each, "VERSION PATH" ("3.11 /usr/bin/python3.11"), or one line when they are the same.
With a VERSION as argument prints the path of that version alone.

Only the standard library, and nothing newer than Python 3.8: this runs before any environment exists, with
whatever `python3` there is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

OLDEST = (3, 11)
"""The oldest Python the package supports; see requires-python in pyproject.toml."""

PROBE = """
import bz2, ensurepip, lzma, platform, ssl, sys, venv, zlib
print(platform.python_implementation(), sys.version_info.releaselevel, *sys.version_info[:3])
print(sys.executable)
"""
"""What a usable Python can run. Debian's lacks ensurepip without python3-venv; one that was compiled without
the headers of bz2, lzma or ssl lacks those."""


class Interpreter(NamedTuple):
    """A Python that was run."""

    version: tuple[int, ...]
    executable: str


def candidates() -> list[Path]:
    """Files that may be Pythons, without those whose names say that they are too old."""
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    folders += [Path("/usr/local/bin"), Path("/usr/bin")]
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    folders += sorted(pyenv.glob("versions/*/bin")) + sorted(uv.glob("*/bin"))

    found: dict[Path, None] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3*")):
            name = re.fullmatch(r"python3(?:\.(\d+))?", path.name)
            if name and (name.group(1) is None or int(name.group(1)) >= OLDEST[1]):
                found[path.resolve()] = None  # /bin is /usr/bin by another name; python3 is often python3.11
    return list(found)


def probe(python: Path) -> Interpreter | None:
    """What `python` really is; None unless it is a usable, released CPython (a pyenv shim may be unable to run)."""
    try:
        output = subprocess.check_output(
            [python, "-c", PROBE], stderr=subprocess.DEVNULL, timeout=30, universal_newlines=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    kind, executable = output.splitlines()
    implementation, level, *version = kind.split()
    if (implementation, level) != ("CPython", "final"):
        return None
    return Interpreter(tuple(map(int, version)), executable)


def usable() -> dict[str, str]:
    """The path of one Python for each supported minor version, the latest of its releases; oldest first."""
    best: dict[tuple[int, ...], Interpreter] = {}
    for python in candidates():
        found = probe(python)
        if found and found.version >= OLDEST:
            minor = found.version[:2]
            if minor not in best or found.version > best[minor].version:
                best[minor] = found
    return {".".join(map(str, minor)): best[minor].executable for minor in sorted(best)}


def main() -> None:
    """Print what was found; exit status 1 when there is nothing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", nargs="?", help="print only the path of this version, such as 3.11")
    wanted = parser.parse_args().version

    pythons = usable()
    if not pythons:
        sys.exit(
            f"error: no Python {'.'.join(map(str, OLDEST))} or newer with bz2, ensurepip, lzma, ssl, venv and zlib "
            "was found; install one (Debian: apt-get install python3 python3-venv) or put it on PATH"
        )
    if wanted is None:
        versions = list(pythons)
        for version in dict.fromkeys((versions[0], versions[-1])):
            print(version, pythons[version])
    elif wanted in pythons:
        print(pythons[wanted])
    else:
        sys.exit(f"error: no usable Python {wanted} was found, only {', '.join(pythons)}")


if __name__ == "__main__":
    main()
