"""Values of ISO 9660's descriptors and records: texts, times, and the volume identifier merged from two."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone


def text_of(raw: bytes) -> str:
    """Text of a field, without its padding."""
    return raw.decode("latin-1").strip(" \0")


def whole_label(primary: bytes, joliet: bytes | None) -> str:
    """The volume identifier: Joliet's 16 characters, continued by the primary one where both begin the same."""
    # The standard has capital letters only; xorriso writes UTF-8, and "_" for each byte of it into Joliet's.
    text = primary.decode("latin-1")
    with contextlib.suppress(UnicodeDecodeError):
        text = primary.decode("utf-8")
    if joliet is None:
        return text
    shown = joliet.decode("utf-16-be", "replace")
    merged = _merge(shown, text)
    if merged is None and (merged := _merge(shown, primary.decode("latin-1"))) is not None:
        with contextlib.suppress(UnicodeError):
            merged = merged.encode("latin-1").decode("utf-8")
    return shown if merged is None else merged


def _merge(joliet: str, primary: str) -> str | None:
    """Primary volume identifier with the characters that only Joliet's can express; None where the two differ.

    As in libblkid, each may have "_" for characters that its character set lacks, and the primary one lacks small
    letters. But libblkid compares bytes, so that a primary identifier in UTF-8 always differs.
    """
    found = []
    for one, other in zip(joliet, primary, strict=False):
        if "_" in (one, other):
            found.append(one if other == "_" else other)
        elif one == other or (one.isascii() and one.upper() == other.upper()):
            found.append(one if other.isupper() else other)
        else:
            return None
    return "".join(found) + primary[len(found) :]


def short_time(raw: bytes) -> datetime | None:
    """A time of a directory record (9.1.5)."""
    try:
        return datetime(1900 + raw[0], raw[1], raw[2], raw[3], raw[4], raw[5], tzinfo=_zone(raw[6]))
    except ValueError:
        return None


def long_time(raw: bytes) -> datetime | None:
    """A time of a volume descriptor (8.4.26.1)."""
    try:
        found = datetime.strptime(raw[:14].decode("ascii"), "%Y%m%d%H%M%S")  # noqa: DTZ007  # the zone is behind it
        return found.replace(tzinfo=_zone(raw[16]), microsecond=int(raw[14:16]) * 10_000)
    except ValueError:
        return None


def _zone(raw: int) -> timezone:
    quarters = raw - 256 if raw > 127 else raw
    return timezone(timedelta(minutes=15 * quarters)) if quarters else UTC
