"""Zip archives."""

from __future__ import annotations

import io
import zipfile

from fuzz.exercise import Bounded, documented, exercise_archive
from fuzz.samples import TREE
from vmvisor_image import open_archive


def seeds() -> list[bytes]:
    made: list[bytes] = []
    for way in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO(b"MZ a stub" if made else b"")
        file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file, "w", way) as archive:
            for name, content in TREE.items():
                archive.writestr(zipfile.ZipInfo(name), content, way)
            link = zipfile.ZipInfo("link")
            link.create_system, link.external_attr = 3, 0o120777 << 16
            archive.writestr(link, "../outside")
        made.append(file.getvalue())
    return made


def one_input(data: bytes) -> None:
    with documented():
        exercise_archive(open_archive(Bounded(data)))
