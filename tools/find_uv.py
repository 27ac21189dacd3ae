"""Write a script that calls uv to the path given: one that is on this machine and new enough, else the pinned one.

pip installs the pinned one into a folder of its own, from requirements/uv.txt and its hashes: which pip that is, and
what else is on the index, makes no difference.

Only the standard library, and nothing newer than Python 3.8: this runs before any environment exists, with
whatever `python3` there is.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINNED = ROOT / "requirements" / "uv.txt"


def oldest_usable() -> tuple[int, ...]:
    """The version of uv from which on this project's lock is read as meant; see [tool.uv] in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^required-version = ">=([\d.]+)"', text, re.MULTILINE)
    if found is None:
        sys.exit("error: pyproject.toml does not say which uv is required")
    return tuple(map(int, found[1].split(".")))


def version(uv: Path) -> tuple[int, ...]:
    """The version of a uv; () when it does not run."""
    try:
        said = subprocess.check_output(
            [str(uv), "--version"], stderr=subprocess.DEVNULL, timeout=60, universal_newlines=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.match(r"uv (\d+(?:\.\d+)*)", said)
    return tuple(map(int, found[1].split("."))) if found else ()


def candidates() -> list[Path]:
    """Paths at which a uv lies: those on PATH, then where its own installers put it."""
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    folders += [Path.home() / ".local/bin", Path.home() / ".cargo/bin"]
    return [folder / "uv" for folder in folders if (folder / "uv").is_file()]


def install(folder: Path) -> Path:
    """The pinned uv, installed by the pip of the Python that runs this, or by that of an environment of it.

    Args:
        folder: Where it is put.

    Returns:
        The program's path.
    """
    python, target = sys.executable, ["--target", str(folder)]
    pip = [python, "-m", "pip", "--version"]
    if subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        if subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=False).returncode:
            sys.exit(
                f"error: {python} has neither pip nor venv (Debian: apt-get install python3-venv), and no uv was found"
            )
        python, target = str(folder / "bin" / "python"), []
    environment = {
        **os.environ,
        "PIP_USER": "0",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    command = [python, "-m", "pip", "install", "--quiet", "--upgrade", "--require-hashes", "--no-deps", *target]
    done = subprocess.run([*command, "--requirement", str(PINNED)], env=environment, check=False)
    if done.returncode:
        sys.exit("error: pip could not install uv, see above; a uv on PATH is used where it is new enough")
    return folder / "bin" / "uv"


def main() -> None:
    """Write the script."""
    script = Path(sys.argv[1])
    script.parent.mkdir(parents=True, exist_ok=True)
    wanted = oldest_usable()
    found = next((uv for uv in candidates() if version(uv) >= wanted), None)
    uv = (found or install(script.with_name("uv-pinned"))).absolute()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(uv))} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    print("Set-up is by uv", ".".join(map(str, version(uv))), "at", uv)


if __name__ == "__main__":
    main()
