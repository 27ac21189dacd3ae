"""Find the supported Pythons of this machine, on PATH and in the folders of pyenv and uv.

Prints a line for each, "VERSION PATH" ("3.11 /usr/bin/python3.11"), oldest first. With an argument prints one path:
that of the version given ("3.12"), of the "oldest" or of the "newest".

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
import bz2, ctypes, lzma, platform, sqlite3, ssl, sys, zlib
print(platform.python_implementation(), sys.version_info.releaselevel, *sys.version_info[:3])
print(sys.executable)
"""
"""What a usable Python can run: one that was compiled without the headers of bz2, lzma, ssl or sqlite lacks those, and
the library or its tests (coverage) need them."""


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
    parser.add_argument("which", nargs="?", help='print only the path of this one: "3.12", "oldest" or "newest"')
    which = parser.parse_args().which

    pythons = usable()
    if not pythons:
        sys.exit(
            f"error: no Python {'.'.join(map(str, OLDEST))} or newer with bz2, ctypes, lzma, sqlite3, ssl and zlib was "
            "found; install one (Debian: apt-get install python3) or put it on PATH"
        )
    versions = list(pythons)
    if which is None:
        for version in versions:
            print(version, pythons[version])
        return
    wanted = {"oldest": versions[0], "newest": versions[-1]}.get(which, which)
    if wanted not in pythons:
        sys.exit(f"error: no usable Python {wanted} was found, only {', '.join(versions)}")
    print(pythons[wanted])


if __name__ == "__main__":
    main()
