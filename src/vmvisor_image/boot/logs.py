"""Logs of a host, and their lines by time.

Source: public logs of ESXi 4 to 9: lines begin with the time in UTC, as in RFC 3339.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from vmvisor_image.base.limits import check_deadline
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.peel import peel
from vmvisor_image.errors import CorruptImage, ProblemList
from vmvisor_image.files.file import File
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.reading import meter_of

PATHS: Final = re.compile(
    r"(?:[^/]+/)?(?:var/(?:run/)?log|log)/(?:.*/)?[^/]+\.(?:log|[0-9]+)(?:\.gz)?|.*\.log(?:\.gz)?"
)
"""Paths of logs in what is read."""
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6})\d*)?(?:Z|\+00:00)?(?=\W)", re.ASCII
)
_LONGEST: Final = 1 << 16
"""Bytes of a line that are read; the rest of a longer one is taken for further lines."""
_MOST_TEXT: Final = 1 << 32
"""Bytes of one log that are read, decoded."""


@dataclass(frozen=True, slots=True, order=True)
class LogLine:
    """A line of a log."""

    time: datetime | None = field(compare=False)
    """Time at its start, UTC; that of the line before it for one that continues it, None before the first time."""
    log: str
    """Path of the log."""
    number: int
    """Number of the line in the log, from 1."""
    text: str = field(compare=False)
    """The line without its end."""


def lines_by_time(logs: Mapping[str, File], problems: ProblemList) -> Iterator[LogLine]:
    """Lines of all logs, the earliest first; those of one log stay in their order."""
    return heapq.merge(*(_lines(path, file, problems) for path, file in logs.items()), key=_moment)


_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)


def _moment(line: LogLine) -> tuple[datetime, str]:
    return line.time or _EARLIEST, line.log


def _lines(path: str, file: File, problems: ProblemList) -> Iterator[LogLine]:
    time: datetime | None = None
    number = done = 0
    try:
        layers = peel(file, path, LayerOptions(meter=meter_of(file)))
        with open_stream(layers[-1].source if layers else file) as stream:
            while line := stream.readline(_LONGEST):
                check_deadline()
                number += 1
                done += len(line)
                if done > _MOST_TEXT:
                    problems.note(path, f"only the first {_MOST_TEXT} bytes of it are read")
                    return
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                time = _time(text) or time
                yield LogLine(time, path, number, text)
    except CorruptImage as error:
        problems.note(path, f"it can't be read behind line {number}: {error}")


def _time(text: str) -> datetime | None:
    match = _TIME.match(text)
    if match is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, match.groups()[:6])
        return datetime(year, month, day, hour, minute, second, int((match[7] or "0").ljust(6, "0")), tzinfo=UTC)
    except ValueError:
        return None
