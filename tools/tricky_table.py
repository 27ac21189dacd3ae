"""What other programs say of the files in tests/tricky_bzip2.py, as a table for docs/bzip2-trust.md.

Run from the repository's root with a Python that has vmvisor_image, indexed_bzip2 and rapidgzip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, ".")

from tests.tricky_bzip2 import TrickyFile, tricky_files

READ = """
import sys
def copy(file):
    while block := file.read(1 << 20):
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
path = sys.argv[1]
"""
WAYS: dict[str, list[str]] = {
    "bzip2": ["bzip2", "-dc"],
    "lbzip2": ["lbzip2", "-n2", "-dc"],
    "bz2": [sys.executable, "-c", READ + "import bz2\nwith bz2.open(path) as f: copy(f)"],
    "indexed_bzip2": [
        sys.executable,
        "-c",
        READ + "import indexed_bzip2 as i\nwith i.open(path, parallelization=2) as f: copy(f)",
    ],
    "rapidgzip": [
        sys.executable,
        "-c",
        READ + "import rapidgzip as r\nwith r.open(path, parallelization=2) as f: copy(f)",
    ],
    "ours": [
        sys.executable,
        "-c",
        READ
        + "from vmvisor_image.bzip2 import Bzip2Reader as B; from vmvisor_image.streams.source import FileSource as F\n"
        + "copy(B(F(path), threads=2).open())",
    ],
}


def verdict(command: list[str], path: Path, file: TrickyFile) -> str:
    try:
        done = subprocess.run([*command, str(path)], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "**hangs**"
    if done.returncode < 0:
        return f"**killed by signal {-done.returncode}**"
    if done.returncode == 0:
        if done.stdout != file.data:
            return "**accepts, wrong data**" if done.stdout else "**accepts, no data**"
        return "reads" if file.is_whole else "**accepts**"
    if file.is_whole:
        return "**refuses**"
    return "refuses" if file.data.startswith(done.stdout) else "**refuses after wrong data**"


def main() -> None:
    wrong: Counter[str] = Counter()
    print("| file | right | " + " | ".join(WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.bz2"
        for file in tricky_files():
            path.write_bytes(file.compressed)
            said = {name: verdict(command, path, file) for name, command in WAYS.items()}
            wrong.update(name for name, each in said.items() if "**" in each)
            right = "read" if file.is_whole else "refuse"
            print(f"| {file.name} | {right} | " + " | ".join(said.values()) + " |", flush=True)
    print("| **wrong** | | " + " | ".join(str(wrong[name]) for name in WAYS) + " |")


if __name__ == "__main__":
    main()
