"""Runs every reader over a folder of real files, and prints one line for each; exit status 1 where any can't be read.

    python tools/check_real.py FOLDER [--summary] [--damaged GLOB]… [--seconds N]

Real files are other people's: what is printed are their paths in the folder, counts, problems and errors, never what is
in them, and nothing is written. The folder may be what ``git archive`` makes of a mirror: symbolic links, pointers to
files that are elsewhere (Git LFS) and empty files are passed over; files as text (``.uu`` of uuencode, ``.xxd`` of xxd)
are decoded in memory.

Each file is tried as an archive, with all that is in it, as a boot module, as a boot configuration, as the description
of a virtual machine, and as a disk image, which is verified. Payloads of a VIB are held against the sums that its
descriptor has of them, packages of a bundle against its metadata, disks of an XML description against those that
ElementTree finds.
"""

from __future__ import annotations

import argparse
import binascii
import contextlib
import fnmatch
import hashlib
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from vmvisor_image import (
    CorruptImage,
    LimitExceeded,
    Limits,
    NotAnArchive,
    ReadAt,
    VmvisorImageError,
    open_bundle,
    open_vib,
    verify,
)
from vmvisor_image.archives.archive import Archive, open_archive
from vmvisor_image.boot.envelope import read_envelope
from vmvisor_image.boot.modules import Module
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.peel import peel
from vmvisor_image.machines import vmsd, vmx
from vmvisor_image.machines.formats import MACHINES
from vmvisor_image.schemas.boot_cfg import BootConfig
from vmvisor_image.schemas.syslinux_cfg import SyslinuxConfig
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.sources import BytesSource, FileSource

READ, TOLD, NAMED, REFUSED, NOTHING = "read", "problems", "named", "refused", "not ours"
FAILED, BROKEN = "FAILED", "BROKEN"
"""How it went: read without a complaint; read with problems told; named and not read; made damaged, and found to be so;
nothing that a reader takes; an error, or no complaint of what was made damaged; an exception that is none of the
library's."""
_POINTER: Final = b"version https://git-lfs.github.com/"
_DEEPEST: Final = 4
_LARGEST_TEXT: Final = 64 << 20
_PIECE: Final = 1 << 20
_MOST_READ: Final = 256 << 20
"""Bytes that are read of one file in an archive, where sparse ones may claim any number."""
_INSIDE: Final = "inside: "
_UNREAD: Final = (" is not read", " are not read", "[Errno 2]")
"""Of errors that name what is not read, and of an extent that the folder lacks."""
_EMPTY: Final = ("sector 0 holds neither", "less than one sector")


@dataclass
class Finding:
    """What came of one file."""

    kind: str = "unknown"
    outcome: str = NOTHING
    counts: Counter[str] = field(default_factory=Counter)
    """What was read, files in archives by their kinds included."""
    complaints: list[str] = field(default_factory=list)

    def fail(self, where: str, error: Exception) -> None:
        """Note an error; one that is none of the library's is worse than any other."""
        if isinstance(error, VmvisorImageError):
            self.complaints.append(f"{where}{error}")
            self.outcome = FAILED if self.outcome != BROKEN else BROKEN
            return
        place = traceback.extract_tb(error.__traceback__)[-1]
        self.complaints.append(f"{where}{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}")
        self.outcome = BROKEN

    def tell(self, problems: Iterator[str]) -> None:
        """Note what a reader complains of."""
        self.complaints += problems
        if self.outcome in (NOTHING, READ):
            self.outcome = TOLD if self.complaints else READ

    def as_damaged(self) -> None:
        """Judge it as a file that was made damaged."""
        if self.outcome in (TOLD, FAILED):
            self.outcome = REFUSED
        elif self.outcome == READ:
            self.complaints.append("it was made damaged, and nothing complains")
            self.outcome = FAILED

    def line(self, path: str) -> str:
        """The finding as one line, whatever is in names and messages."""
        counts = ", ".join(f"{number} {what}" for what, number in sorted(self.counts.items()) if number)
        more = f" (+{len(self.complaints) - 3} more)" if len(self.complaints) > 3 else ""
        parts = [path, self.kind, self.outcome, counts, "; ".join(self.complaints[:3]) + more]
        return "  ".join(part.encode("unicode_escape").decode() for part in parts if part)


def sources(folder: Path) -> Iterator[tuple[str, Path]]:
    """The regular files of a folder by their paths in it, in order; not what git keeps for itself."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and ".git" not in relative.parts and path.stat().st_size:
            yield relative.as_posix(), path


def decoded(path: Path) -> bytes | None:
    """What a file holds as text; None where it is no such file."""
    if path.suffix not in (".uu", ".xxd") or path.stat().st_size > _LARGEST_TEXT:
        return None
    lines = path.read_bytes().splitlines()
    try:
        return _from_uuencode(lines) if path.suffix == ".uu" else _from_xxd(lines)
    except (binascii.Error, ValueError):
        return None


def _from_uuencode(lines: list[bytes]) -> bytes:
    start = next((number for number, line in enumerate(lines) if line.startswith(b"begin ")), None)
    if start is None:
        raise ValueError("it has no beginning")
    body = bytearray()
    for line in lines[start + 1 :]:
        if line.strip() in (b"end", b"`", b""):
            break
        try:
            body += binascii.a2b_uu(line)
        except binascii.Error:  # some writers leave padding at a line's end
            length = ((line[0] - 32) & 63) * 4 + 5
            body += binascii.a2b_uu(line[: length // 3])
    return bytes(body)


def _from_xxd(lines: list[bytes]) -> bytes:
    body = bytearray()
    for line in lines:
        place, separator, rest = line.partition(b":")
        if not separator:
            continue
        at = int(place, 16)
        if at > _LARGEST_TEXT:
            raise ValueError("too large")
        data = bytes.fromhex(rest.split(b"  ")[0].decode("ascii"))
        body += bytes(max(0, at - len(body)))
        body[at : at + len(data)] = data
    return bytes(body)


def check(path: Path, seconds: float) -> Finding | None:
    """What comes of one file; None of a pointer to one that is elsewhere."""
    text = decoded(path)
    if text is None and path.read_bytes()[: len(_POINTER)] == _POINTER:
        return None
    finding = Finding()
    name = (path.stem if text is not None else path.name).casefold()
    try:
        with Limits(seconds=seconds).operation():
            if text is None:
                with contextlib.closing(FileSource(path)) as source:
                    _read(finding, source, path, name)
            else:
                _read(finding, BytesSource(text), text, name)
    except LimitExceeded as error:
        finding.complaints.append(str(error))
        finding.outcome = TOLD
    except Exception as error:  # noqa: BLE001  # one that is not the library's is what is looked for
        finding.fail("", error)
    return finding


def _read(finding: Finding, source: ReadAt, given: Path | bytes, name: str) -> None:
    if _read_configuration(finding, source, name) or _read_machine(finding, source, name):
        return
    if _read_packed(finding, source, "", 0):
        return
    try:
        _read_image(finding, given)
    except CorruptImage as error:
        if not any(text in str(error) for text in _UNREAD):
            raise
        finding.kind, finding.outcome = error.structure or "unknown", NAMED
        finding.complaints.append(str(error))


def _read_configuration(finding: Finding, source: ReadAt, name: str) -> bool:
    if name.endswith(("boot.cfg", "b00t.cfg")):
        configuration = BootConfig.parse(source.read_at(0, source.size))
        finding.kind = "boot.cfg"
        finding.counts.update(modules=len(configuration.modules))
        finding.tell(str(problem) for problem in configuration.problems)
    elif name.endswith("isolinux.cfg"):
        finding.kind = "isolinux.cfg"
        finding.counts.update(entries=len(SyslinuxConfig.parse(source.read_at(0, source.size)).entries))
        finding.tell(iter(()))
    else:
        return False
    return True


def _read_machine(finding: Finding, source: ReadAt, name: str) -> bool:
    """Read the description of a virtual machine; disks of XML are held against those that ElementTree gives."""
    if not name.endswith((*(suffix for each in MACHINES for suffix in each.SUFFIXES), vmsd.SUFFIX)):
        return False
    data = read_up_to(source, 0, _MOST_READ)
    if name.endswith(vmsd.SUFFIX):
        snapshots, _, problems = vmsd.parse_vmsd(data)
        finding.kind = vmsd.KIND
        finding.counts.update(snapshots=len(snapshots), disks=sum(len(each.devices) for each in snapshots))
        finding.tell(str(problem) for problem in problems.found)
        return True
    for each in MACHINES:
        found = each.parse(data)
        if found is not None:
            finding.kind = each.KIND
            finding.counts.update(machines=len(found), disks=sum(len(one.devices) for one in found))
            own = sorted(device.file_name for one in found for device in one.devices if device.file_name)
            if each is not vmx and (other := _disks_by_tree(data)) not in (None, own):
                finding.fail("", CorruptImage(f"other disks, by ElementTree {len(other or ())}", structure=each.KIND))
            finding.tell(str(problem) for one in found for problem in one.problems)
            return True
    return False


def _disks_by_tree(data: bytes) -> list[str] | None:
    """Paths of the disks of a description in XML; None where that is beyond so simple a look."""
    try:
        root = ElementTree.fromstring(data)  # of a file that one has chosen
    except ElementTree.ParseError:  # a prefix that is not declared
        return None
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
        each.attrib = {key.rpartition("}")[2]: value for key, value in each.items()}
    found: list[str] = []
    for disk in root.iter("disk"):
        source = disk.find("source")
        if source is not None and disk.get("device") not in ("cdrom", "floppy"):
            key = {"volume": "volume", "file": "file"}.get(disk.get("type", "file"))
            found += [source.get(key) or ""] if key else []
    files = {each.get("id"): each.get("href") or "" for each in root.iter("File")}
    disks = {each.get("diskId"): each.get("fileRef") for each in root.iter("Disk")}
    for item in root.iter("Item"):
        if item.get("configuration"):
            return None
        if item.findtext("ResourceType") == "17" or item.findtext("ResourceSubType") == "vmware.nvdimm.device":
            _, _, key = (item.findtext("HostResource") or "").rpartition("/")
            found.append(files.get(disks.get(key, key), ""))
    return sorted(filter(None, found))


def _read_packed(finding: Finding, source: ReadAt, where: str, depth: int) -> bool:
    """Read an archive or a boot module; False where it is none."""
    try:
        archive = open_archive(source)
    except NotAnArchive:
        return _read_module(finding, source, depth)
    if archive.kind == "tar" and not any(read_up_to(_inner(source), 0, 512)):
        return False  # an empty archive, or a disk that begins with zeros
    module = Module(source)
    kind = "+".join((*archive.layers, archive.kind))
    signed = archive.layers and module.signature is not None
    _count(finding, depth, kind, signed=bool(signed))
    held = _sums(archive)
    for file in archive.values():
        here = f"{where}{file.path}: "
        finding.counts.update(files=1)
        try:
            _read_through(file)
            if file.path in held:
                _hold(finding, file, held[file.path], here)
            if depth < _DEEPEST:
                _read_packed(finding, file, f"{where}{file.path}/", depth + 1)
        except LimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001
            finding.fail(here, error)
    finding.tell(f"{where}{problem}" for problem in archive.problems)
    if held:
        vib = open_vib(source)
        finding.tell(f"{where}{problem}" for problem in vib.problems)
        finding.counts[f"packages {vib.check_signature().state.value}"] += 1
    elif archive.kind == "zip" and "index.xml" in archive:
        finding.tell(f"{where}{problem}" for problem in open_bundle(source).check())
        finding.counts["bundles"] += 1
    return True


def _read_module(finding: Finding, source: ReadAt, depth: int) -> bool:
    module = Module(source)
    if module.kind == "envelope":
        _count(finding, depth, "envelope", signed=False)
        finding.counts.update(attributes=len(read_envelope(source).attributes))
    elif module.kind == "elf" and (module.layers or depth):
        _count(finding, depth, "+".join((*module.layers, "elf")), signed=module.signature is not None)
        kernel = module.kernel
        finding.counts["kernels with a boot header"] += kernel is not None and bool(
            kernel.multiboot or kernel.esx_boot_info
        )
    elif depth and module.layers:
        _count(finding, depth, "+".join(module.layers), signed=module.signature is not None)
    else:
        return False
    if finding.outcome == NOTHING:
        finding.outcome = READ
    return True


def _count(finding: Finding, depth: int, kind: str, *, signed: bool) -> None:
    if depth:
        finding.counts[f"{_INSIDE}{kind}"] += 1
    else:
        finding.kind = kind
    finding.counts["signatures"] += signed


def _read_through(file: ReadAt) -> None:
    for at in range(0, min(file.size, _MOST_READ), _PIECE):
        file.read_at(at, min(_PIECE, file.size - at))


def _sums(archive: Archive) -> dict[str, list[tuple[str, str, str]]]:
    """What a VIB's descriptor says of each payload: hash, what is done before, and the sum."""
    if archive.kind != "ar" or "descriptor.xml" not in archive:
        return {}
    root = ElementTree.fromstring(archive["descriptor.xml"].read_bytes())  # of a file that one has chosen
    return {
        payload.get("name", ""): [
            (sum_.get("checksum-type", ""), sum_.get("verify-process", ""), (sum_.text or "").strip())
            for sum_ in payload.iter("checksum")
        ]
        for payload in root.iter("payload")
    }


def _hold(finding: Finding, file: ReadAt, sums: list[tuple[str, str, str]], here: str) -> None:
    for algorithm, process, expected in sums:
        name, _, layers = algorithm.partition("-gunzip")
        if process not in ("", "gunzip"):
            continue
        data = _under(file, int(layers) if layers else None if process else 0)
        if hashlib.new(name.replace("-", ""), data).hexdigest() == expected:
            finding.counts["payload sums right"] += 1
        else:
            finding.complaints.append(f"{here}another sum than the descriptor's ({algorithm} {process})")
            finding.outcome = FAILED


def _inner(source: ReadAt) -> ReadAt:
    """What is under all compressions."""
    layers = peel(source, None, LayerOptions())
    return layers[-1].source if layers else source


def _under(file: ReadAt, count: int | None) -> bytes:
    """What is under so many of a payload's compressions, or all, the signature included."""
    layers = peel(file, None, LayerOptions())
    inner = ([file] + [layer.source for layer in layers])[-1 if count is None else count]
    return inner.read_at(0, inner.size)


def _read_image(finding: Finding, given: Path | bytes) -> None:
    found = verify(given, limits=Limits(decoded_bytes=1 << 36))
    problems = [str(problem) for problem in found.problems]
    known = [partition for partition in found.partitions if partition.kind not in ("unknown", "empty")]
    is_disk = found.scheme != "none" or bool(known)
    kinds = [layer.kind for layer in found.layers]
    if not is_disk:  # that there is no disk is no complaint of a file that never said so
        problems = [problem for problem in problems if not any(text in problem for text in _EMPTY)]
        if not kinds and not problems:
            return
    what = found.scheme if found.scheme != "none" else "".join(partition.kind for partition in known)
    finding.kind = "+".join([*kinds, what] if what else kinds) or "unknown"
    finding.counts.update(
        partitions=len(found.partitions) if found.scheme != "none" else 0,
        files=sum(len(partition.files) for partition in found.partitions),
    )
    finding.counts.update(f"{_INSIDE}{partition.kind}" for partition in known if found.scheme != "none")
    finding.tell(iter(problems))
    if found.bad_ranges or any(layer.problems for layer in found.layers):
        finding.outcome = FAILED


def table(findings: list[Finding]) -> str:
    """The summary by kind as a table of Markdown, without any name."""
    rows: dict[str, Counter[str]] = {}
    for finding in findings:
        row = rows.setdefault(finding.kind, Counter())
        row[finding.outcome] += 1
        row["files"] += finding.counts["files"]
        for what, number in finding.counts.items():
            if what.startswith(_INSIDE):
                rows.setdefault(what.removeprefix(_INSIDE), Counter())["inside"] += number
    columns = (READ, TOLD, NAMED, REFUSED, FAILED, BROKEN, "inside", "files")
    lines = [f"| kind | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for kind, row in sorted(rows.items()):
        if any(row[column] for column in columns):
            lines.append(
                f"| {kind} | {' | '.join(str(row[column] or '') for column in columns)} |".replace("  |", " |")
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Read what the command line says; the exit status."""
    parser = argparse.ArgumentParser(description="run every reader over a folder of real files")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--summary", action="store_true", help="a table by kind (Markdown) instead of the lines")
    parser.add_argument(
        "--damaged",
        action="append",
        default=[],
        metavar="GLOB",
        help="paths of files that were made damaged: they are to be complained of; may be given more than once",
    )
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="give a file up after (default: 60)")
    options = parser.parse_args(arguments)
    findings: list[Finding] = []
    pointers = 0
    for name, path in sources(options.folder):
        finding = check(path, options.seconds)
        if finding is None:
            pointers += 1
            continue
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.damaged):
            finding.as_damaged()
        findings.append(finding)
        if not options.summary and finding.outcome != NOTHING:
            print(finding.line(name), flush=True)
    if options.summary:
        print(table(findings))
    outcomes = Counter(finding.outcome for finding in findings)
    told = ", ".join(
        f"{outcomes[outcome]} {outcome}" for outcome in (READ, TOLD, NAMED, REFUSED, FAILED, BROKEN, NOTHING)
    )
    print(f"\n{len(findings)} files: {told}; {pointers} pointers to files that are elsewhere")
    return 1 if outcomes[FAILED] or outcomes[BROKEN] else 0


if __name__ == "__main__":
    sys.exit(main())
