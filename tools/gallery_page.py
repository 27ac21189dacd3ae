"""Makes docs/gallery.md: what we and other programs say of each case in tests/gallery.py.

Run from the repository's root with a Python that has vmvisor_image; mtools, sleuthkit, p7zip-full and dosfstools must
be there.
"""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, ".")

from tests.doc_tables import gallery_rows
from tests.gallery import GALLERY, Case, shorten
from vmvisor_image import Image
from vmvisor_image.testing.forge import SparseImage

PAGE = Path("docs/gallery.md")
SECONDS, MEMORY, OUTPUT = 10, 2 << 30, 64 << 20
TOOLS = ("mtools", "fls", "7z", "fsck.fat")
COMPLAINT = re.compile(
    r"error|warnings: |bad|corrupt|invalid|loop|cannot|can't|not |differ|unexpected|free cluster|truncat"
    r"|share|beyond|exceed|contains|sector|dangerous|dropping|zero|start",
    re.IGNORECASE,
)
NO_COMPLAINT = re.compile(r"::/|r/r|d/d|ERRORS:$|WARNINGS:$|ERROR: input$")
HEAD = f"""# A gallery of malice

Here you can look up how this library and other programs read {{count}} small inputs, each built to do harm in one
way (`tests/gallery.py`). A test holds that the second column is true, that the healthy parts are read, that extraction
writes nothing outside its destination, and that the reads of each case are few.

The second column is what `Image.open` (or `open_archive`) and reading both ends of every file give. The only outcomes
are results and `CorruptImage`. Files whose names lead outside a folder can be read without harm; `extract` refuses to
write them ([0005](adr/0005-extraction.md)).

The other columns: **mtools** is `mdir -/` and `mcopy -s` of everything, **fls** is `fls -r`, **7z** is `7z x`,
**fsck.fat** is `fsck.fat -n`. Each had {SECONDS} seconds, {MEMORY >> 30} GiB of memory and {OUTPUT >> 20} MiB
for each file that it writes; on disks with partitions it was given the first one. "does not end" means not within that
time, "files outside" that something was written outside the given folder, and "-" that the case is no input for the
program. Where no message is quoted, the program gave none.

Versions: {{versions}}. Made by `python tools/gallery_page.py`.

| case | vmvisor-image | {" | ".join(TOOLS)} |
|---|---|{"---|" * len(TOOLS)}
"""


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))


def verdict(command: list[str], folder: Path) -> str:
    """How a program ended, and the first thing that it complained of."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            preexec_fn=limit,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return "**does not end**"
    if done.returncode == -signal.SIGXFSZ:
        return "**writes past the limit**"
    end = f"**killed by signal {-done.returncode}**" if done.returncode < 0 else f"exit {done.returncode}"
    text = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines()]
    notes = [line for line in lines if COMPLAINT.search(line) and not NO_COMPLAINT.match(line)]
    return f"{end}: {shorten(notes[0])[:100]}" if notes else end


def files_in(folder: Path) -> int:
    """Counted by find: there may be more directories in each other than Python can walk."""
    done = subprocess.run(["find", str(folder), "-type", "f", "-printf", "x"], capture_output=True, check=False)
    return len(done.stdout)


def start_of(case: Case, data: bytes | SparseImage) -> int:
    """First byte of the first partition that holds files."""
    if case.form != "disk":
        return 0
    with Image.open(data) as image:
        return next((p.start for p in image.partitions if p.kind.startswith("fat") and p.start < image.size), 64 * 512)


def extracted(command: list[str], folder: Path) -> str:
    """A verdict on an extraction to the folder "out", and what was written."""
    before = set(folder.iterdir())
    said = verdict(command, folder)
    count = files_in(folder / "out")
    outside = [path for path in folder.iterdir() if path not in before and path.name != "out"]
    return f"{said}; {count} file{'s' * (count != 1)}" + ("; **files outside**" if outside else "")


def others(case: Case) -> list[str]:
    data = case.build()
    said = {}
    is_fat_disk = case.form == "fat" or (case.form == "disk" and case.name[:3] in ("EBR", "MBR", "GPT"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "a", "b")
        folder.mkdir(parents=True)
        path = folder / "input"
        if isinstance(data, SparseImage):
            data.write_to(path)
        else:
            path.write_bytes(data)
        if is_fat_disk:
            start = start_of(case, data)
            drive = f"{path}@@{start}"
            listing = verdict(["mdir", "-/", "-b", "-i", drive, "::"], folder)
            (folder / "out").mkdir()
            copying = extracted(["mcopy", "-s", "-n", "-Q", "-i", drive, "::", "out"], folder)
            said["mtools"] = copying if listing == "exit 0" else f"mdir {listing}; mcopy {copying}"
            subprocess.run(["rm", "-rf", str(folder / "out")], check=True)
            said["fls"] = verdict(["fls", "-r", "-o", str(start // 512), "input"], folder)
            if case.form == "fat":
                said["fsck.fat"] = verdict(["fsck.fat", "-n", "input"], folder)
        elif case.form == "iso":
            said["fls"] = verdict(["fls", "-r", "input"], folder)
        if case.form != "vmfs":
            said["7z"] = extracted(["7z", "x", "-y", "-oout", "input"], folder)
        subprocess.run(["rm", "-rf", str(folder / "out")], check=True)
    return [said.get(tool, "-").replace(name, "").replace("|", "¦") for tool in TOOLS]


def version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    return next((line.strip() for line in text.splitlines() if re.search(r"\d\.\d", line)), "unknown")


def main() -> None:
    rows = []
    counts: Counter[str] = Counter()
    for case, row in zip(GALLERY, gallery_rows(), strict=True):
        said = others(case)
        for tool, text in zip(TOOLS, said, strict=True):
            for word in ("does not end", "killed by signal", "writes past the limit", "files outside"):
                counts[f"{tool}: {word}"] += text.count(f"**{word}") > 0
        rows.append(f"{row} | {' | '.join(said)} |")
        print(rows[-1], flush=True)
    versions = "; ".join(
        shorten(text)
        for text in (
            version("mtools", "--version"),
            version("fls", "-V"),
            version("7z"),
            version("fsck.fat", "-n", "/dev/null"),
        )
    )
    bad = "\n".join(f"- {what}: {count}" for what, count in counts.items() if count) or "- none"
    head = HEAD.format(count=len(GALLERY), versions=versions)
    PAGE.write_text(f"{head}{chr(10).join(rows)}\n\nIn all, of the other programs:\n\n{bad}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
