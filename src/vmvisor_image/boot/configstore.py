"""The configuration store of ESXi 7 and later: an SQLite database whose values are JSON.

Source: what dissect.target reads of one; the names of columns are those of the table ``Config``. VMware has published
no description. The database is read from a copy in memory, by the SQLite of Python, which is told to trust nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vmvisor_image.errors import CorruptImage, ProblemList

STRUCTURE: Final = "configuration store"
PATHS: Final = ("var/lib/vmware/configstore/backup/current-store-1", "etc/vmware/configstore/current-store-1")
LARGEST: Final = 1 << 26
"""Bytes of the largest one that is read; they are held in memory."""
_MAGIC: Final = b"SQLite format 3\0"
_VERSIONS: Final = slice(18, 20)
"""Versions of writing and reading (SQLite, "Database File Format", 1.3): 2 asks for a log beside the file."""
_MOST_ROWS: Final = 50_000
_LARGEST_VALUE: Final = 1 << 22
_STEP: Final = 100_000
_MOST_STEPS: Final = 2_000
"""Calls of the progress handler, one each `_STEP` instructions: a damaged tree may lead in circles."""
_QUERY: Final = "SELECT Component, ConfigGroup, Name, Identifier, AutoConfValue, UserValue, VitalValue FROM Config"


@dataclass(frozen=True, slots=True)
class StoredSetting:
    """One row of the configuration store."""

    component: str
    group: str
    name: str
    identifier: str
    """Identifier of one of several of that name; empty for a name that exists once."""
    value: Any
    """Value, of types that JSON has: what the user set, over what was set automatically; None without one."""

    def __hash__(self) -> int:
        return hash((self.component, self.group, self.name, self.identifier))


def read_configstore(data: bytes, problems: ProblemList) -> tuple[StoredSetting, ...]:
    """Settings of a configuration store, as far as they can be read.

    Raises:
        CorruptImage: It is no database, or has no table of settings.
    """
    if not data.startswith(_MAGIC):
        raise CorruptImage("it is no SQLite database", structure=STRUCTURE, offset=0)
    whole = bytearray(data)
    whole[_VERSIONS] = b"\1\1"  # the log, if any, is not in this file
    if data[_VERSIONS] != b"\1\1":
        problems.note(STRUCTURE, "it was in use: what its log (-wal) has is not in it")
    found: list[StoredSetting] = []
    try:
        database = sqlite3.connect(":memory:")
        try:
            database.deserialize(bytes(whole))
            _distrust(database)
            for row in _rows(database):
                if len(found) >= _MOST_ROWS:
                    problems.note(STRUCTURE, f"rows after the first {_MOST_ROWS} are left out")
                    break
                found.append(_setting(row, problems))
        finally:
            database.close()
    except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        if not found:
            raise CorruptImage(f"it can't be read: {error}", structure=STRUCTURE) from error
        problems.note(STRUCTURE, f"only {len(found)} of its rows can be read: {error}")
    return tuple(found)


def _distrust(database: sqlite3.Connection) -> None:
    steps = iter(range(_MOST_STEPS))
    database.set_progress_handler(lambda: next(steps, None) is None, _STEP)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
    for setting in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
        database.execute(f"PRAGMA {setting}")
    database.text_factory = lambda data: data.decode("utf-8", "replace")


def _rows(database: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    # A view or virtual table of that name would run what the file says.
    declared = database.execute("SELECT type, sql FROM sqlite_master WHERE name = 'Config'").fetchone()
    if declared is None or declared[0] != "table" or not str(declared[1]).upper().startswith("CREATE TABLE"):
        raise CorruptImage("it has no table 'Config'", structure=STRUCTURE)
    yield from database.execute(_QUERY)


def _setting(row: tuple[Any, ...], problems: ProblemList) -> StoredSetting:
    component, group, name, identifier = ("" if each is None else str(each) for each in row[:4])
    automatic, user, vital = row[4:]
    value: Any = None
    for text in (automatic, vital, user):
        if text in (None, "", b""):
            continue
        try:
            part = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            problems.note(STRUCTURE, f"a value of {component}/{group}/{name} is not JSON: {error}")
            continue
        value = {**value, **part} if isinstance(value, dict) and isinstance(part, dict) else part
    return StoredSetting(component, group, name, identifier, value)
