"""ar archives, as VIBs are."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented, exercise_archive
from vmvisor_image import open_archive


def _header(name: bytes, size: int) -> bytes:
    return name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8) + b"%-10d`\n" % size


def seeds() -> list[bytes]:
    gnu = b"!<arch>\n" + _header(b"//", 20) + b"a rather long name/\n" + _header(b"/0", 4) + b"data"
    bsd = b"!<arch>\n" + _header(b"#1/8", 12) + b"longnamedata" + _header(b"x/", 1) + b"y\n"
    return [gnu, bsd, b"!<arch>\n"]


def one_input(data: bytes) -> None:
    with documented():
        exercise_archive(open_archive(Bounded(data)))
