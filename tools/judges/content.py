"""Random files and trees for other programs to write."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tools.judges.comparison import digest
from tools.judges.programs import make

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_FOREIGN = "äöüßéñåçΩжд日本語한글"
"""Letters for which mtools writes no others that look like them."""
_DEVICES = frozenset(
    ("con", "nul", "prn", "aux", "clock$", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789"))
)
"""Names that DOS, and mtools, take for devices."""


def file_content(rng: random.Random, most: int) -> bytes:
    """Noise, text, zeros, or runs of each."""
    length = rng.choice((0, 1, rng.randrange(600), rng.randrange(max(most // 8, 1)), rng.randrange(max(most, 1))))
    found = bytearray()
    while len(found) < length:
        count = rng.choice((1, 100, 512, 3000, 20000))
        word = f"line {rng.randrange(1000)}\n".encode()
        found += rng.choice((rng.randbytes(count), bytes(count), word * (count // len(word) + 1)))
    return bytes(found[:length])


def name(rng: random.Random, longest: int = 100) -> str:
    """A file name that every format here can hold."""
    letters = _LETTERS + (_FOREIGN if rng.random() < 0.2 else "") + ("-_ .+" if rng.random() < 0.5 else "")
    length = rng.choice((1, 3, 8, 8, 12, 20, rng.randrange(1, longest)))
    text = "".join(rng.choice(letters) for _ in range(length)).strip(" .-+")
    while len(text.encode()) > longest:
        text = text[:-1].strip(" .-+")
    return "x" if not text or text.casefold().partition(".")[0] in _DEVICES else text


def tree(rng: random.Random, folder: Path, *, files: int, most: int, longest: int = 100) -> dict[str, bytes]:
    """Write files and folders, no two of which differ by case only; gives the files by path."""
    taken: set[str] = set()
    folders = [""]
    found: dict[str, bytes] = {}
    for _ in range(rng.randrange(1, files + 1)):
        above = rng.choice(folders)
        path = f"{above}{name(rng, longest)}"
        if path.casefold().upper() in taken or len(path.encode()) > 240:
            continue
        taken.add(path.casefold().upper())
        if rng.random() < 0.25:
            (folder / path).mkdir()
            folders.append(f"{path}/")
            continue
        found[path] = file_content(rng, most)
        (folder / path).write_bytes(found[path])
    for each in sorted(folder.rglob("*"), key=lambda each: (-len(each.parts), each)):
        moment = 1_000_000_000 + rng.randrange(0, 600_000_000, 2)
        os.utime(each, (moment, moment))
    return found


def taken_out(folder: Path) -> dict[str, str]:
    """SHA-256 of the files below a folder that a judge wrote, by path, and the folder's end; no link is followed.

    Of a directory that holds itself mtools writes as many as fit into a path: only the first of them are looked at.
    """
    found: dict[str, str] = {}
    for each in make("find", ".", "-maxdepth", "30", "-type", "f", "-print0", folder=folder).split(b"\0")[:-1]:
        path = os.fsdecode(each)[2:]
        found[path] = digest((folder / path).read_bytes())
    make("rm", "-rf", folder)
    return found


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of each."""
    return {path: digest(data) for path, data in files.items()}
