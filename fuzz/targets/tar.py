"""Tar archives, POSIX, GNU and pax; a checksum that was right before is made right again after each mutation."""

from __future__ import annotations

import io
import tarfile

from fuzz.exercise import Bounded, documented, exercise_archive
from fuzz.samples import TREE, summed
from vmvisor_image import open_archive
from vmvisor_image.testing.forge_modules import tar_archive


def seeds() -> list[bytes]:
    made = [tar_archive(TREE, links={"link": "../outside", "folder/link": "/etc/passwd"})]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for name in ("a" * 120 + "/" + "b" * 120, "fü", "x"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 5, 1.5
                archive.addfile(info, io.BytesIO(b"12345"))
            for flag in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
                info = tarfile.TarInfo(f"of type {flag.decode()}")
                info.type, info.linkname = flag, "x"
                archive.addfile(info)
        made.append(file.getvalue())
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for version in ("0", "1"):
            info = tarfile.TarInfo("sparse")
            info.pax_headers = {"GNU.sparse.major": version, "GNU.sparse.minor": "0", "GNU.sparse.size": "99"}
            info.pax_headers |= {} if version == "1" else {"GNU.sparse.map": "3,5,50,0"}
            content = b"2\n3\n5\n50\n0\n".ljust(512, b"\0") + b"12345" if version == "1" else b"12345"
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    made.append(file.getvalue())
    return made


def one_input(data: bytes) -> None:
    for each in (data, summed(data)):
        with documented():
            exercise_archive(open_archive(Bounded(each)))
