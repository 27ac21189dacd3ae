"""FAT volumes that mkfs.fat and mtools write, judged by fsck.fat and mtools."""

from __future__ import annotations

import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.judges import content
from tools.judges.comparison import Case, Difference, Explanation, Reading, Sample
from tools.judges.programs import Done, make, run
from vmvisor_image import CorruptImage, LimitExceeded, verify

PROGRAMS: Final = ("mkfs.fat", "mcopy", "mdel", "fsck.fat")
JUDGES: Final = ("fsck.fat", "mtools")


def write(rng: random.Random, folder: Path) -> Sample:
    """A volume with a random geometry and tree."""
    bits = rng.choice((12, 12, 12, 12, 12, 16, 16, 32))
    sector = rng.choice((512, 512, 512, 1024, 2048, 4096)) if bits == 12 else 512
    cluster = rng.choice((1, 1, 2, 4)) if bits == 12 else 1
    least, most = {12: (250, 400), 16: (2400, 3000), 32: (33_500, 34_000)}[bits]  # fewer clusters are no FAT16, FAT32
    kib = rng.randrange(least, most) * cluster * sector // 512
    path = folder / "fat.img"
    options = ["-F", str(bits), "-S", str(sector), "-s", str(cluster), "-a", "-i", f"{rng.getrandbits(32):08x}"]
    options += ["-f", rng.choice(("1", "2", "2"))]
    if bits != 32:
        options += ["-r", str(rng.choice((256, 512)))]
    label = rng.choice((None, "LABEL", "BOOTBANK 1", "A-B_C"))
    options += ["-n", label] if label else []
    make("mkfs.fat", "--invariant", *options, "-C", path, str(kib))
    tree = folder / "tree"
    tree.mkdir()
    doomed = [f"DOOMED{number}" for number in range(rng.randrange(7))]  # holes for the others to lie in
    for each in doomed:
        (folder / each).write_bytes(rng.randbytes(rng.randrange(1, 3000)))
        make("mcopy", "-i", path, folder / each, "::")
    early = len(doomed) // 2
    if early:
        make("mdel", "-i", path, *(f"::{each}" for each in doomed[:early]))
    files = content.tree(rng, tree, files=12, most=20_000)
    make("mcopy", "-s", "-m", "-i", path, *sorted(tree.iterdir()), "::")
    if doomed[early:]:
        make("mdel", "-i", path, *(f"::{each}" for each in doomed[early:]))
    shutil.rmtree(tree)
    how = f"mkfs.fat {' '.join(options)} {kib}, {len(files)} files"
    return Sample(path, _places(path.read_bytes()), content.digests(files), how, both_copies)


def _places(data: bytes) -> tuple[tuple[int, int], ...]:
    unit, cluster, reserved, fats, root, _, _, per_fat = struct.unpack_from("<HBHBHHBH", data, 11)
    is_32 = per_fat == 0
    size = (struct.unpack_from("<I", data, 36)[0] if is_32 else per_fat) * unit
    first = reserved * unit
    start = first + fats * size
    found = [(0, 64), (0, 90)]
    for number in range(fats):
        used = len(data[first + number * size : first + (number + 1) * size].rstrip(b"\0"))
        found += [(first + number * size, first + number * size + max(used, 1))] * 2
    if is_32:
        found += [(unit, unit + 8), (unit + 480, unit + 512)]
        start_of_data = start
    else:
        start_of_data = start + root * 32
    entries = len(data[start : start + (root * 32 or unit * cluster)].rstrip(b"\0"))
    found += [(start, start + max(entries, 1))] * 3
    at = data.find(b".          ", start_of_data)
    while at >= 0:
        length = len(data[at : at + unit * cluster].rstrip(b"\0"))
        found.append((at, at + max(length, 32)))
        at = data.find(b".          ", at + 32)
    return tuple(found)


def both_copies(data: bytearray) -> None:
    """Make the second FAT as the first one, so that damage in it is not only a difference."""
    if len(data) < 512:
        return
    unit, _, reserved, fats, _, _, _, per_fat = struct.unpack_from("<HBHBHHBH", data, 11)
    size = (per_fat or struct.unpack_from("<I", data, 36)[0]) * unit
    first = reserved * unit
    if fats == 2 and first + 2 * size <= len(data):
        data[first + size : first + 2 * size] = data[first : first + size]


def ours(path: Path) -> Reading:
    """What `verify` says."""
    try:
        report = verify(path, threads=1)
    except (CorruptImage, LimitExceeded) as error:
        return Reading({}, f"{type(error).__name__}: {error}")
    files: dict[str, str | None] = {}
    for partition in report.partitions:
        for file in partition.files:
            files[file.path] = dict(file.hashes).get("sha256")
    return Reading(files, " | ".join(map(str, report.problems)))


def judged(path: Path, folder: Path) -> dict[str, Reading]:
    """What fsck.fat and mtools say."""
    checked = run("fsck.fat", "-n", path)
    target = folder / "copied"
    target.mkdir()
    copied = run("mcopy", "-s", "-n", "-i", path, "::/*", target)
    files = content.taken_out(target)
    return {"fsck.fat": Reading({}, _fsck(checked)), "mtools": Reading(files, _mtools(copied), checks=False)}


def _mtools(done: Done) -> str:
    return "" if done.errors.startswith("No match for") else done.complaint


def _fsck(done: Done) -> str:
    text = done.output.decode("utf-8", "replace") + done.errors
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not re.match(r"fsck\.fat [0-9.]+ |.*: \d+ files, ", line)]
    return " | ".join(kept) or done.complaint  # it ends with 0 where it tells of what it does not mend


def _only(told: str) -> Callable[[Case, Difference], bool]:
    """Whether the problem that the library tells of is one of these."""

    def applies(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
        return bool(re.search(told, difference.detail))

    return applies


_BESIDE: Final = (
    *("Auto-", "Not auto", "Leaving filesystem", "This is mostly harmless", "Created backup", ","),
    *("Not automatically", *(f"{number}:" for number in range(512))),
)
"""How lines of fsck.fat begin that tell what it does, or go on with the one before."""


def _judge_tells_only(*told: str) -> Callable[[Case, Difference], bool]:
    """Whether all that fsck.fat tells of begins so."""

    def applies(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
        return all(each.startswith((*told, *_BESIDE)) for each in case.said.complaint.split(" | "))

    return applies


def _names_no_volume(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    boot = case.data[:512]
    is_named = b"FAT" in (boot[54:57], boot[82:85])
    return not case.ours.files and boot[510:] == b"\x55\xaa" and not any(boot[446:510]) and not is_named


def _named_otherwise(is_same: Callable[[str, str], bool]) -> Callable[[Case, Difference], bool]:
    """Whether both have a file of the same bytes, and each part of its path is the same by `is_same` (ours, theirs)."""

    def applies(case: Case, difference: Difference) -> bool:
        mine, theirs = case.ours.files, case.said.files
        value = theirs.get(difference.path) if difference.rule == "lost" else mine.get(difference.path)
        ours = [path for path, each in mine.items() if each == value]
        others = [path for path, each in theirs.items() if each == value]
        pairs = [(one.split("/"), other.split("/")) for one in ours for other in others]
        return any(
            len(one) == len(other) and all(a == b or is_same(a, b) for a, b in zip(one, other, strict=True))
            for one, other in pairs
            if difference.path in ("/".join(one), "/".join(other))
        )

    return applies


EXPLANATIONS: Final[tuple[Explanation, ...]] = (
    Explanation(
        "another label in the boot sector",
        ("called sound",),
        _judge_tells_only(
            "Volume label '", "Label in boot sector is '", "Label '", "There are differences between boot"
        ),
        "the label is that of the root directory (docs/partitions.md); what the boot sector and its backup say else is"
        " told as a fact, not as a problem: nothing that is read depends on it (docs/verify.md)",
    ),
    Explanation(
        "FAT32 without FSInfo or a backup",
        ("called sound",),
        _judge_tells_only("There is no backup boot sector", "No FSINFO sector", "There are differences between boot"),
        "both are hints and may be left out (fatgen103, BPB_FSInfo and BPB_BkBootSec); nothing that is read needs them",
    ),
    Explanation(
        "no volume any more",
        ("called sound", "lost"),
        _names_no_volume,
        "the first sector has neither parameters of FAT nor its name, and 55 AA at its end: it is a disk without"
        " partitions, whose bytes that are not zero `verify` counts",
    ),
    Explanation(
        "entries behind a directory's end",
        ("called unsound",),
        _only(r"^FAT at byte \w+: \d+ lost clusters|^FAT FSInfo at byte|entries follow its end mark$"),
        "fsck.fat passes over the mark that ends a directory and counts what lies behind it; Linux, mtools and the"
        " library end there, and the clusters of what is behind are lost to each of them",
    ),
    Explanation(
        "characters of long names",
        ("called unsound",),
        _only(r"^FAT long name at byte \w+: ('.*' has characters that|it is not valid UTF-16|characters follow)"),
        "fsck.fat does not look at them; Windows refuses such names (docs/verify.md)",
    ),
    Explanation(
        "case flags of dots",
        ("called sound",),
        lambda case, _: (
            case.said.complaint.count("Is a dot with no 8.3 name flag set") == case.said.complaint.count("/.")
        ),
        "a dot has no case that Windows NT's flags could tell of, and nothing reads them",
    ),
    Explanation(
        "the boot sector's last two bytes",
        ("called unsound",),
        _only(r"^FAT boot sector at byte \w+: signature: 55 AA is missing"),
        "fsck.fat does not look at them; fatgen103 asks for them, and firmware does",
    ),
    Explanation(
        "labels that hide a file",
        ("called unsound",),
        _only(
            r"a label (in|besides)|the label .* has a size|parts belong to no entry$|lost clusters|^FAT FSInfo at byte"
        ),
        "fsck.fat takes a second entry with a label's attribute for one, with its clusters and the parts of its name",
    ),
    Explanation(
        "labels that are directories",
        ("called unsound",),
        _only(r"it is a label and a directory at once, and passed over$|lost clusters|^FAT FSInfo at byte"),
        "fsck.fat takes an entry with both attributes for a label; no such file may be (fatgen103, DIR_Attr), and the"
        " library tells that it passes over one",
    ),
    Explanation(
        "dates that are none",
        ("called unsound",),
        _only(r"^FAT directory entry at byte \w+: modified: .* is not a date"),
        "fsck.fat does not look at dates; the file's is None",
    ),
    Explanation(
        "no boot sector by its jump or media",
        ("called unsound",),
        _only(r"^FAT boot sector at byte \w+: its parameters make no sense"),
        "fsck.fat looks at neither the jump nor the media byte, for which fatgen103 allows few values; the library"
        " needs both to tell a boot sector from other sectors, and says that this one names itself FAT and is none",
    ),
    Explanation(
        "capitals outside ASCII",
        ("lost", "extra"),
        _named_otherwise(lambda ours, theirs: ours.upper() == theirs.upper()),
        "where Windows NT's flag says lower case, mtools makes only A to Z small, Linux and the library all letters",
    ),
    Explanation(
        "spaces in short names",
        ("lost", "extra"),
        _named_otherwise(lambda ours, theirs: theirs in (re.sub(r" +[^.]*", "", ours).rstrip("."), ours.split(" ")[0])),
        "mtools ends the two parts of a short name at the first space, which is an allowed character (fatgen103); Linux"
        " and the library at the spaces before its end",
    ),
    Explanation(
        "padding of long names",
        ("lost", "extra"),
        _named_otherwise(lambda ours, theirs: theirs.startswith(ours) and set(theirs[len(ours) :]) <= {"\uffff"}),
        "where a long name ends before its last part, mtools shows the FFFF that pad it",
    ),
)
