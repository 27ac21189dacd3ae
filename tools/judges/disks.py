"""Virtual disks that qemu-img writes, judged by qemu-img."""

from __future__ import annotations

import functools
import json
import random
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.judges.comparison import Case, Difference, Explanation, Reading, Sample, digest
from tools.judges.programs import make, run
from vmvisor_image import CorruptImage, Image, LimitExceeded, verify
from vmvisor_image.streams.source import ReadAt

_LARGEST: Final = 64 << 20
"""Bytes of a disk that are compared; of a damaged one that claims more, the size is."""
_START: Final = 4 << 20
"""Bytes of such a disk that are read all the same."""
_PIECE: Final = 64 << 10


def write_qcow2(rng: random.Random, folder: Path) -> Sample:
    """Any version, size of cluster, compression and width of reference counts."""
    compat = rng.choice(("0.10", "1.1", "1.1"))
    cluster = rng.choice((512, 4096, 16384, 65536, 65536, 262144))
    options = [f"compat={compat}", f"cluster_size={cluster}"]
    compressed = rng.random() < 0.4
    if compat == "1.1":
        options += [f"refcount_bits={rng.choice((1, 8, 16, 16, 64))}"]
        if rng.random() < 0.2:
            options += ["lazy_refcounts=on"]
        if compressed and rng.random() < 0.5:
            options += ["compression_type=zstd"]
        if cluster >= 16384 and rng.random() < 0.4:
            options += ["extended_l2=on"]
    if not compressed and rng.random() < 0.2:
        options += ["preallocation=metadata"]
    return _write(rng, folder, "qcow2", "disk.qcow2", options, compressed=compressed)


def write_vmdk(rng: random.Random, folder: Path) -> Sample:
    """Each subformat; of those in several files, damage lies in the descriptor or in one extent."""
    subformat = rng.choice(
        [*["monolithicSparse", "streamOptimized"] * 2, "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
    )
    options = [f"subformat={subformat}"]
    if subformat == "monolithicSparse" and rng.random() < 0.3:
        options += ["zeroed_grain=on"]
    return _write(rng, folder, "vmdk", "disk.vmdk", options, compressed=subformat == "streamOptimized")


def write_vhd(rng: random.Random, folder: Path) -> Sample:
    """Dynamic and fixed."""
    options = [f"subformat={rng.choice(('dynamic', 'dynamic', 'fixed'))}"]
    if rng.random() < 0.7:
        options += ["force_size=on"]
    return _write(rng, folder, "vpc", "disk.vhd", options, repair=repair_vhd)


def write_vhdx(rng: random.Random, folder: Path) -> Sample:
    """Dynamic and fixed, with any size of block."""
    options = [f"subformat={rng.choice(('dynamic', 'dynamic', 'fixed'))}", f"block_size={rng.choice((1, 2, 8))}M"]
    if rng.random() < 0.3:
        options += ["block_state_zero=off"]
    return _write(rng, folder, "vhdx", "disk.vhdx", [*options, "log_size=1M"], repair=repair_vhdx)


def _write(
    rng: random.Random,
    folder: Path,
    form: str,
    name: str,
    options: list[str],
    *,
    compressed: bool = False,
    repair: Callable[[bytearray], None] | None = None,
) -> Sample:
    raw = _raw(rng)
    (folder / "raw").write_bytes(raw)
    path = folder / name
    command = ["qemu-img", "convert", "-f", "raw", "-O", form, *(["-c"] if compressed else [])]
    make(*command, "-o", ",".join(options), folder / "raw", path)
    (folder / "raw").unlink()
    data = path.read_bytes()
    if form == "vpc":  # without force_size the disk grows to a whole number of cylinders
        raw = raw.ljust(int.from_bytes(data[-512 + 48 : -512 + 56], "big"), b"\0")
    how = f"qemu-img -O {form} -o {','.join(options)}{' -c' * compressed}, {len(raw)} bytes"
    return Sample(path, _PLACES[form](data), {"": digest(raw)}, how, repair)


def _raw(rng: random.Random) -> bytes:
    """Noise and zeros, in sectors, which begin as nothing that is known."""
    found = bytearray(b"-" * 512)
    sectors = rng.choice((8, rng.randrange(1, 64), rng.randrange(1, 600), 2048, rng.randrange(1, 4096)))
    while len(found) < sectors * 512:
        count = rng.choice((1, 3, 8, 64, 128, 300))
        found += rng.choice((bytes(512 * count), rng.randbytes(512 * count), bytes([rng.randrange(256)]) * 512 * count))
    return bytes(found[: sectors * 512])


def _places_qcow2(data: bytes) -> tuple[tuple[int, int], ...]:
    cluster = 1 << int.from_bytes(data[20:24], "big")
    l1_entries = int.from_bytes(data[36:40], "big")
    l1 = int.from_bytes(data[40:48], "big")
    found = [(0, 112), (0, 112), (l1, l1 + 8 * min(l1_entries, 8))]
    for number in range(min(l1_entries, 8)):
        table = int.from_bytes(data[l1 + 8 * number : l1 + 8 * number + 8], "big") & 0x00FF_FFFF_FFFF_FE00
        if table:
            used = len(data[table : table + cluster].rstrip(b"\0"))
            found += [(table, table + max(used, 8))] * 2
    return tuple(found)


def _places_vmdk(data: bytes) -> tuple[tuple[int, int], ...]:
    if data[:4] != b"KDMV":
        return ((0, len(data)),)
    _, _, _, _, _, descriptor, length, _, second, first = struct.unpack_from("<4sIIQQQQIQQ", data)
    found = [(0, 80), (0, 80), (descriptor * 512, descriptor * 512 + 400)]
    if first >= 1 << 60:
        return (*found, (len(data) - 1024, len(data) - 512), (length, len(data)))
    for directory in (first, second):
        found.append((directory * 512, directory * 512 + 4))
        table = int.from_bytes(data[directory * 512 : directory * 512 + 4], "little") * 512
        found.append((table, table + len(data[table : table + 2048].rstrip(b"\0")) + 4))
    return tuple(found)


def _places_vpc(data: bytes) -> tuple[tuple[int, int], ...]:
    size = len(data)
    if data[:8] != b"conectix":
        return ((size - 512, size - 425),)
    return ((0, 86), (512, 570), (512, 570), (1536, 1536 + 16), (2048, 2048 + 512), (size - 512, size - 425))


def _places_vhdx(data: bytes) -> tuple[tuple[int, int], ...]:
    found = [(0, 8), (0x10000, 0x10050), (0x20000, 0x20050), (0x30000, 0x30050), (0x40000, 0x40050)]
    for at in (0x30010, 0x30030):
        start = int.from_bytes(data[at + 16 : at + 24], "little")
        found += [(start, start + 128), (start + 0x10000, start + 0x10030)]
    return tuple(place for place in found if place[1] <= len(data))


_PLACES: Final = {"qcow2": _places_qcow2, "vmdk": _places_vmdk, "vpc": _places_vpc, "vhdx": _places_vhdx}


def repair_vhd(data: bytearray) -> None:
    """Put the check sums of the footer, its copy, and the header right."""
    for at, length, field in ((0, 512, 64), (512, 1024, 36), (len(data) - 512, 512, 64)):
        if at >= 0 and bytes(data[at : at + 8]) in (b"conectix", b"cxsparse"):
            data[at + field : at + field + 4] = bytes(4)
            value = ~sum(data[at : at + length]) & 0xFFFFFFFF
            data[at + field : at + field + 4] = value.to_bytes(4, "big")


def repair_vhdx(data: bytearray) -> None:
    """Put the check sums of the headers and region tables right."""
    for at, length in ((0x10000, 4096), (0x20000, 4096), (0x30000, 65536), (0x40000, 65536)):
        if len(data) >= at + length:
            data[at + 4 : at + 8] = bytes(4)
            data[at + 4 : at + 8] = _crc32c(bytes(data[at : at + length])).to_bytes(4, "little")


@functools.cache
def _table() -> tuple[int, ...]:
    found = []
    for first in range(256):
        value = first
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


def _crc32c(data: bytes) -> int:
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def judged(form: str, path: Path, folder: Path) -> dict[str, Reading]:
    """What qemu-img converts, and finds wrong."""
    target = folder / "converted"
    done = run("qemu-img", "convert", "-f", form, "-O", "raw", path, target)
    complaint = done.complaint
    files: dict[str, str | None] = {}
    if "File too large" in complaint:  # of the disk that it would write: then its size is compared
        told = run("qemu-img", "info", "-f", form, "--output=json", path)
        if not told.complaint:
            files[""] = f"{json.loads(told.output)['virtual-size']} bytes"
            complaint = ""
    elif not complaint:
        size = target.stat().st_size
        files[""] = digest(target.read_bytes()) if size <= _LARGEST else f"{size} bytes"
    target.unlink(missing_ok=True)
    if files and form != "vpc":  # which it does not check
        checked = run("qemu-img", "check", "-f", form, path)
        if checked.status not in (0, 63):
            text = checked.output.decode("utf-8", "replace") + checked.errors
            complaint = "check: " + " | ".join(line.strip() for line in text.splitlines() if line.strip())
    return {"qemu-img": Reading(files, complaint, checks=form != "vpc")}


def ours(path: Path) -> Reading:
    """The disk, and what `verify` says of its layers."""
    try:
        with Image.open(path, threads=1) as image:
            if not image.layers:
                return Reading({}, "it is not recognised")
            layer = image.layers[0].source
            if layer.size > _LARGEST:
                layer.read_at(0, _START)
                return Reading({"": f"{layer.size} bytes"}, " | ".join(map(str, getattr(layer, "problems", ()))))
            whole = _read(layer)
        report = verify(path, threads=1)
    except (CorruptImage, LimitExceeded) as error:
        return Reading({}, f"{type(error).__name__}: {error}")
    found = [str(problem) for each in report.layers for problem in each.problems]
    found += [bad.message for bad in report.bad_ranges]
    return Reading({"": None if whole is None else digest(whole)}, " | ".join(found))


def _read(source: ReadAt) -> bytes | None:
    try:
        return b"".join(source.read_at(at, min(_PIECE, source.size - at)) for at in range(0, source.size, _PIECE))
    except CorruptImage:
        return None


KINDS: Final = {
    "qcow2": (write_qcow2, functools.partial(judged, "qcow2"), ours),
    "vmdk": (write_vmdk, functools.partial(judged, "vmdk"), ours),
    "vhd": (write_vhd, functools.partial(judged, "vpc"), ours),
    "vhdx": (write_vhdx, functools.partial(judged, "vhdx"), ours),
}


def _told(pattern: str) -> Callable[[Case, Difference], bool]:
    """Whether the problem that the library tells of is one of these."""

    def applies(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
        return bool(re.search(pattern, difference.detail))

    return applies


_OF_COUNTS: Final = re.compile(
    r"^(check: )?(\d+ errors were|\d+ leaked clusters|\d+ internal errors|\d+/\d+ = |This means waste|Data may be)"
    r"|^(check: )?(Image end offset|Leaked cluster|ERROR (cluster|refcount|OFLAG_COPIED)|Use qemu-img amend)"
    r"|^(check: )?ERROR: (counting reference|overflow cluster|coffset=\w+: copied flag)"
    r"|^(check: )?ERROR (found l[12] entry with reserved bits|offset=\w+: (Data|Preallocated) cluster is not properly)"
    r"|^(check: )?ERROR: Unallocated cluster has non-zero subcluster"
    r"|^(check: )?ERROR (snapshot|compressed cluster)|^Can't get refcount|^No errors were found"
    r"|Image is corrupt: Refblock|Check failed$"
    r"|Could not open .*: (Reference count|Image does not contain a reference|Snapshot table|Too much extra metadata)"
    r"|Could not open .*: (Too many snapshots|Header extension too large|data-file-raw requires|Snapshots? )"
    r"|You can force-remove this"
)


def _of_counts(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    return all(_OF_COUNTS.search(each) for each in case.said.complaint.split(" | "))


def _by_geometry(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    """Whether the creator or the geometry in the last footer, or the first, are others than in the valid disk."""
    spans = [slice(at + first, at + last) for at in (-512, 0) for first, last in ((28, 32), (56, 60))]
    return any(case.data[span] != case.valid[span] for span in spans)


def _by_sector_bitmap(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    """Whether the library reads what qemu-img does when all sectors are marked as written."""
    data = bytearray(case.data)
    at = int.from_bytes(data[-512 + 16 : -512 + 24], "big")
    if at + 1024 > len(data):
        return False
    table, _, count, size = struct.unpack_from(">QIII", data, at + 16)
    for number in range(min(count, 64)):
        block = int.from_bytes(data[table + 4 * number : table + 4 * number + 4], "big")
        if block != 0xFFFFFFFF:
            bitmap = max(size // 4096, 512)
            data[block * 512 : block * 512 + bitmap] = b"\xff" * len(data[block * 512 : block * 512 + bitmap])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "disk.vhd")
        path.write_bytes(data)
        return ours(path).files == case.said.files


_PAST_THE_END: Final = Explanation(
    "past the end of the file",
    ("called unsound",),
    _told(r"bytes wanted, but it ends at|it lies past the end of the source|it decodes to"),
    "qemu-img takes what its tables place past the end of the file for zeros; the library tells that it is missing",
)
_BY_FORCE: Final = Explanation(
    "without its magic",
    ("called unsound",),
    _told("^it is not recognised"),
    "qemu-img is told the format; to the library the file is a disk without a layer, and none that it knows",
)

EXPLANATIONS: Final[dict[str, tuple[Explanation, ...]]] = {
    "qcow2": (
        Explanation(
            "reference counts and snapshots",
            ("called sound",),
            _of_counts,
            "they, and bits that repeat them, tell a writer what is free; nothing that is read depends on them, or on"
            " the entries of tables behind the disk's end; `verify` says that it does not check them",
        ),
        _PAST_THE_END,
        Explanation(
            "part of a sector",
            ("other bytes",),
            lambda case, _: int.from_bytes(case.data[24:32], "big") % 512 != 0,
            "the size in the header is not a number of sectors; qemu-img makes it one, the library takes it as it is",
        ),
    ),
    "vmdk": (
        Explanation(
            "one of two grain directories",
            ("called unsound",),
            _told("second copy of table|first grain directory leads nowhere|the disk was in use|lies past the end"),
            "qemu-img reads one copy, and not the mark of a disk in use; the library holds both against each other",
        ),
        Explanation(
            "grains of one of two tables",
            ("called unsound",),
            lambda case, each: (
                each.detail.startswith("VMDK grain at")
                and ("second copy of table" in case.ours.complaint or "second one is used" in case.ours.complaint)
            ),
            "the two tables differ, which the library tells of; qemu-img reads another grain by the other one",
        ),
        Explanation(
            "lines of a descriptor",
            ("called unsound",),
            _told("^(CorruptImage: )?VMDK descriptor"),
            "qemu-img passes over lines that it does not know, and compares no sizes; the library tells of them",
        ),
        Explanation(
            "room for a descriptor",
            ("called sound",),
            lambda case, _: "Invalid argument" in case.said.complaint and not any(case.data[512:1024]),
            "an extent of several has empty room in the place of a descriptor, and can be read without one",
        ),
        Explanation(
            "fields of a header that depend on each other",
            ("called unsound",),
            _told("^CorruptImage: VMDK extent header, (compression|grain_size)|not 512$|before the first one$"),
            "qemu-img looks at fewer of them, and does not allow for what the format says of them",
        ),
        _PAST_THE_END,
        _BY_FORCE,
    ),
    "vhd": (
        Explanation(
            "sectors that were never written",
            ("other bytes",),
            _by_sector_bitmap,
            "qemu-img does not look at a block's sector bitmap; by it such sectors are zeros (Virtual Hard Disk Image"
            " Format 1.0, on dynamic disks), and VirtualBox and the library take them so",
        ),
        Explanation(
            "the size by the geometry",
            ("other bytes",),
            _by_geometry,
            "for creators that it does not know qemu-img takes the size that cylinders, heads and sectors make;"
            " the library takes the field of the size",
        ),
        Explanation(
            "entries for blocks that the disk does not have",
            ("called sound",),
            lambda case, _: "free_data_block_offset points after the end" in case.said.complaint,
            "qemu-img looks at all entries of the table to find where new blocks go; the library at those of the disk",
        ),
    ),
    "vhdx": (
        Explanation(
            "regions and sizes",
            ("called unsound",),
            _told(
                "VHDX (region|metadata) at byte .*(it overlaps another one|no whole sectors|larger than any may be"
                "|bits of an item|an item has [0-9]+ bytes, not)"
            ),
            "qemu-img takes any size of the disk, whose blocks it counts in 32 bits, and the log's place only where the"
            " log is not empty",
        ),
        Explanation(
            "one of two headers",
            ("called unsound",),
            _told("^VHDX (header|region table) at byte \\w+: (it is damaged|both have|versions|it was not closed)"),
            "qemu-img takes the other copy without a word, and not versions into account",
        ),
        _PAST_THE_END,
    ),
}
