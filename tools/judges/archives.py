"""Archives: tar and zip of several writers, judged by bsdtar, and zip by unzip and zipinfo, too."""

from __future__ import annotations

import io
import random
import re
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tools.judges import content
from tools.judges.comparison import LISTED, Case, Difference, Explanation, Reading, Sample
from tools.judges.programs import make, run
from vmvisor_image import CorruptImage, LimitExceeded, open_archive, verify
from vmvisor_image.streams.sources import FileSource

_SPARSE_FORMATS: Final = ("oldgnu", "gnu", "posix")
_ZIP_RECORD: Final = re.compile(rb"PK(\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x07\x08)")
_DISK: Final = "disk.img"
"""A member that `verify` takes for the disk."""


def write_tar(rng: random.Random, folder: Path) -> Sample:
    """GNU tar, bsdtar and tarfile, in each of their formats, with links and sparse files."""
    tree, files = _tree(rng, folder, links=True)
    names = sorted(each.name for each in tree.iterdir())
    path = folder / "archive.tar"
    tool = rng.choice(("tar", "tar", "bsdtar", "tarfile"))
    if tool == "tar":
        form = rng.choice(("v7", "oldgnu", "gnu", "gnu", "ustar", "posix", "posix"))
        options = [f"--format={form}", f"-b{rng.choice((1, 20))}"]
        if form in _SPARSE_FORMATS and rng.random() < 0.5:
            options += ["-S"]
        done = run("tar", "-c", *options, "-f", path, "-C", tree, "--", *names)
        how = f"tar {' '.join(options)}"
    elif tool == "bsdtar":
        options = [f"--format={rng.choice(('ustar', 'pax', 'gnutar', 'v7tar'))}"]
        done = run("bsdtar", "-c", *options, "-f", path, "-C", tree, "--", *names)
        how = f"bsdtar {' '.join(options)}"
    else:
        form_number = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        try:
            with tarfile.open(path, "w", format=form_number) as archive:
                for name in names:
                    archive.add(tree / name, name)
        except ValueError:  # a name is too long for this format
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
                for name in names:
                    archive.add(tree / name, name)
        done, how = None, f"tarfile, format {form_number}"
    if done is not None and done.errors:  # a name is too long for this format, and left out: which ones is not asked
        files = {}
        how += " (names left out)"
    shutil.rmtree(tree)
    return _sample(path, files, how)


def write_zip(rng: random.Random, folder: Path) -> Sample:
    """zip, zipfile, bsdtar and 7z, stored and deflated, with data descriptors and zip64 records."""
    tree, files = _tree(rng, folder, links=False)
    names = sorted(each.name for each in tree.iterdir())
    path = folder / "archive.zip"
    tool = rng.choice(("zip", "zip", "zipfile", "bsdtar", "7z"))
    if tool == "zip":
        options = [f"-{rng.choice((0, 1, 6, 9))}", "-r", "-q"]
        options += rng.choice(([], ["-fd"], ["-fz"], ["-X"], ["-D"]))
        make("zip", *options, path, *(f"./{name}" for name in names), folder=tree)
        how = f"zip {' '.join(options)}"
    elif tool == "zipfile":
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        unseekable = rng.random() < 0.3
        buffer = io.BytesIO()
        target = _Unseekable(buffer) if unseekable else buffer
        with zipfile.ZipFile(target, "w", method) as archive:
            for each in sorted(tree.rglob("*")):
                archive.write(each, each.relative_to(tree))
        path.write_bytes(buffer.getvalue())
        how = f"zipfile, method {method}{', to a pipe' * unseekable}"
    elif tool == "bsdtar":
        option = rng.choice(("zip:compression=store", "zip:compression=deflate", "zip:experimental"))
        make("bsdtar", "-c", "--format=zip", f"--options={option}", "-f", path, "-C", tree, "--", *names)
        how = f"bsdtar {option}"
    else:
        options = [f"-mm={rng.choice(('Copy', 'Deflate'))}", "-mcu=on"]
        make("7z", "a", "-tzip", *options, path, *(f"./{name}" for name in names), folder=tree)
        how = f"7z {' '.join(options)}"
    shutil.rmtree(tree)
    return _sample(path, files, how)


class _Unseekable(io.RawIOBase):
    """What zipfile writes data descriptors to."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._buffer.write(data)


def _tree(rng: random.Random, folder: Path, *, links: bool) -> tuple[Path, dict[str, bytes]]:
    tree = folder / "tree"
    tree.mkdir()
    files = content.tree(rng, tree, files=8, most=16_000, longest=rng.choice((40, 90, 160)))
    files[_DISK] = b"-" + content.file_content(rng, 4000)
    (tree / _DISK).write_bytes(files[_DISK])
    if rng.random() < 0.3:
        hole = (tree / "sparse").open("wb")
        with hole:
            for _ in range(rng.randrange(1, 7)):
                hole.seek(rng.randrange(0, 30) * 4096)
                hole.write(rng.randbytes(rng.randrange(1, 5000)))
            hole.truncate(max(hole.tell(), rng.randrange(200_000)))
        files["sparse"] = (tree / "sparse").read_bytes()
    if links:
        if rng.random() < 0.4:
            (tree / "symbolic").symlink_to(rng.choice((_DISK, "nowhere/" * 20, "..")))
        if rng.random() < 0.4:
            (tree / "z-hard").hardlink_to(tree / _DISK)
            files["z-hard"] = files[_DISK]
    return tree, files


def _sample(path: Path, files: Mapping[str, bytes], how: str) -> Sample:
    data = path.read_bytes()
    if path.suffix == ".tar":
        places = [(at, at + 512) for at in range(0, len(data), 512) if _is_header(data[at : at + 512])]
        return Sample(path, tuple(places), content.digests(dict(files)), how, repair_tar)
    places = [(match.start(), match.start() + 46) for match in _ZIP_RECORD.finditer(data)]
    return Sample(path, tuple(places), content.digests(dict(files)), how)


def _is_header(block: bytes) -> bool:
    text = block[148:156].strip(b" \0")
    return bool(re.fullmatch(rb"[0-7]+", text)) and int(text, 8) == sum(block) - sum(block[148:156]) + 256


def repair_tar(data: bytearray) -> None:
    """Put the check sum of each block right that has nearly that of a header."""
    for at in range(0, len(data) - 511, 512):
        block = data[at : at + 512]
        text = bytes(block[148:156]).strip(b" \0")
        value = sum(block) - sum(block[148:156]) + 256
        if re.fullmatch(rb"[0-7]{3,7}", text) and int(text, 8) != value and abs(int(text, 8) - value) < 3000:
            data[at + 148 : at + 156] = f"{value:06o}\0 ".encode()


def judged_tar(path: Path, folder: Path) -> dict[str, Reading]:
    """What bsdtar lists and reads."""
    return {"bsdtar": _bsdtar(path, folder)}


def judged_zip(path: Path, folder: Path) -> dict[str, Reading]:
    """What bsdtar lists and reads, zipinfo lists, and unzip tests."""
    listed = run("zipinfo", "-1", path)
    files = {_clean(each): LISTED for each in listed.output.decode("utf-8", "replace").splitlines() if each[-1:] != "/"}
    tested = run("unzip", "-tqq", path)
    complaint = tested.complaint and " | ".join(
        line for line in (tested.output.decode("utf-8", "replace") + tested.errors).splitlines() if line.strip()
    )
    return {
        "bsdtar": _bsdtar(path, folder),
        "zipinfo": Reading(files, listed.complaint, checks=False),
        "unzip": Reading({}, complaint[:400]),
    }


def _bsdtar(path: Path, folder: Path) -> Reading:
    target = folder / "extracted"
    target.mkdir()
    done = run("bsdtar", "-xf", path, "-C", target)
    files = content.taken_out(target)
    return Reading(files, done.complaint, checks=False)


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def ours(path: Path) -> Reading:
    """The files, and what `verify` says of the container."""
    files: dict[str, str | None] = {}
    found: list[str] = []
    source = FileSource(path)
    try:
        archive = open_archive(source)
        for file in archive.values():
            try:
                files[file.path] = file.sha256()
            except CorruptImage as error:
                files[file.path] = None
                found.append(str(error))
        found += map(str, archive.problems)
    except (CorruptImage, LimitExceeded) as error:
        return Reading({}, f"{type(error).__name__}: {error}")
    finally:
        source.close()
    try:
        report = verify(path, threads=1, member=_DISK)
        found += [str(problem) for layer in report.layers[:1] for problem in layer.problems]
        found += [bad.message for bad in report.bad_ranges]
    except (CorruptImage, LimitExceeded, KeyError) as error:
        found.append(f"{type(error).__name__}: {error}")
    return Reading(files, " | ".join(found))


KINDS: Final = {
    "tar": (("tar", "bsdtar"), ("bsdtar",), write_tar, judged_tar),
    "zip": (("zip", "unzip", "zipinfo", "bsdtar", "7z"), ("bsdtar", "zipinfo", "unzip"), write_zip, judged_zip),
}
_OF_LOCAL_HEADERS: Final = re.compile(
    r'mismatching "local" filename|Inconsistent (CRC32|(un)?compressed size)|ucsize .* <> csize|bad extra.field'
    r"|Extra data overflow|Truncated ZIP file header|bad zipfile offset|overlapped components|bad CRC|bad extra field"
    r"|Damaged Zip archive|wrong size|bsdtar: [(]null[)]|extended time field|Too-small extra|Truncated input file"
    r"|invalid compressed data|Unsupported ZIP compression|unknown compression|Pathname cannot be converted"
)


def _of_local_headers(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    return bool(_OF_LOCAL_HEADERS.search(case.said.complaint))


_OF_DIRECTORY: Final = re.compile(
    "is compressed by method|is encrypted|not what the directory says|its CRC is not|it can't be read [(]"
    "|an extra field of type|is stored and has|has another name|has the CRC|has no bytes|its end record"
    "|its data has no end|its data is damaged|bytes wanted, but|a member has no name|is a symbolic link to nothing"
)


def _of_directory(case: Case, difference: Difference) -> bool:
    """Whether the directory is damaged, and a field of it is told, or that the disk is not found for that."""
    with zipfile.ZipFile(io.BytesIO(case.valid)) as archive:
        start = archive.start_dir
    if case.data[start : len(case.valid)] == case.valid[start:]:
        return False
    is_consequence = difference.detail.startswith("MemberNotFound")
    return bool(_OF_DIRECTORY.search(case.ours.complaint if is_consequence else difference.detail))


_OF_LOCAL_COPIES: Final = re.compile(
    r"zip local header at byte 0x([0-9a-f]+): .* has other values in its local header: "
)
_LOCAL: Final = struct.Struct("<HHxxxxIII")
"""Flags, method, CRC-32 and both sizes, from byte 6 of a local header on."""


def _of_local_copies(case: Case, difference: Difference) -> bool:
    """Whether a local header says otherwise than the directory, as zipfile has it, and just that is told."""
    match = _OF_LOCAL_COPIES.match(difference.detail)
    if match is None:
        return False
    at = int(match[1], 16)
    with zipfile.ZipFile(io.BytesIO(case.data)) as archive:
        entries = [entry for entry in archive.infolist() if entry.header_offset == at]
    flags, *local = _LOCAL.unpack_from(case.data, at + 6)
    return any(
        [entry.compress_type, entry.CRC, entry.compress_size, entry.file_size] != local or (entry.flag_bits ^ flags) & 1
        for entry in entries
    )


def _by_system(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    """Whether the directory says of some entry another system, or a type of file, than in the valid archive."""
    told = []
    for data in (case.data, case.valid):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            told.append([(entry.create_system, entry.external_attr >> 28) for entry in archive.infolist()])
    return told[0] != told[1]


def _as_gnu_tar(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    """Whether GNU tar ends with 0 and names the files that the library does."""
    done = run("tar", "--quoting-style=literal", "-tf", "-", stdin=case.data)
    names = {name.decode("utf-8", "surrogateescape").removeprefix("./") for name in done.output.splitlines()}
    return done.status == 0 and {name for name in names if name and not name.endswith("/")} >= set(case.ours.files)


EXPLANATIONS: Final[dict[str, tuple[Explanation, ...]]] = {
    "tar": (
        Explanation(
            "as GNU tar reads it",
            ("called sound",),
            _as_gnu_tar,
            "GNU tar reads it as the library does, and ends with 0: what follows two blocks of zeros is not in it"
            " (POSIX.1-2017, pax), and the version behind the magic says nothing",
        ),
    ),
    "zip": (
        Explanation(
            "the directory's own copy",
            ("called unsound",),
            _of_directory,
            "unzip takes a size, method or flag from the local header, and passes over extra fields that are damaged in"
            " the directory; the library, for which zipfile reads it, tells of them",
        ),
        Explanation(
            "copies that differ",
            ("called unsound",),
            _of_local_copies,
            "unzip and zipinfo look at one copy of a method, size or CRC; the library tells where the local header has"
            " another one than the directory, which counts (APPNOTE.TXT 4.3.12)",
        ),
        Explanation(
            "names and types by the system that made it",
            ("lost", "extra", "other bytes"),
            _by_system,
            "the system that made the entry, or its type of file, is damaged to one that is none or has no UTF-8: the"
            " judges take the reader's own system, bsdtar writes nothing for a type that is none; the library code"
            " page 437 as the format says (APPNOTE.TXT, appendix D), and the bytes",
        ),
        Explanation(
            "the end record",
            ("called sound",),
            lambda case, _: bool(
                re.search("central.directory|end-of-central|multi-part|extra bytes at|status 51", case.said.complaint)
            ),
            "unzip and zipinfo warn of the end record's numbers of disks and its offset, and go on; all members that it"
            " leads to are there, each with its size and CRC",
        ),
        Explanation(
            "copies in local headers",
            ("called sound", "other bytes"),
            _of_local_headers,
            "the judge takes the local header's copy of a size, CRC or name; by the directory, which counts"
            " (APPNOTE.TXT 4.3.12), each member that is given has its size and CRC",
        ),
    ),
}
