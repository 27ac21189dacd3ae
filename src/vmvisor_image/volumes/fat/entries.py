"""Directory entries of FAT, decoded with pyfatfs, which no other module uses.

Only its decoders are used (`EightDotThree`, `FATLongDirectoryEntry`), and they get bytes, never a handle: pyfatfs
writes to writable handles, closes those that it gets, and follows chains without end. This module adds the checks that
the decoders lack: long names are used only when their parts are complete, in order and have the short name's checksum,
Windows NT's lower-case bits are honoured, an invalid date is None, and names with characters that FAT does not allow
are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vmvisor_image.schemas.fat import DirectoryEntry, LongNameEntry

_END: Final = 0x00
_DELETED: Final = 0xE5
_LABEL: Final = 0x08
_DIRECTORY: Final = 0x10
_LONG_NAME: Final = 0x0F
_ATTRIBUTE_MASK: Final = 0x3F
_LAST_PART: Final = 0x40
_MOST_PARTS: Final = 20
"""Most parts of a long name: 255 characters, 13 in a part."""
_LOWER_BASE: Final = 0x08
_LOWER_EXTENSION: Final = 0x10
_STANDS_FOR_E5: Final = 0x05
_CONTROL: Final = frozenset(range(0x20))
_ILLEGAL: Final = _CONTROL | frozenset(b'"*/:<>?\\|')
"""Characters that are not in long names (fatgen103, "Long Directory Entries", as in Linux and mtools)."""
_ILLEGAL_IN_SHORT: Final = _ILLEGAL | {ord("."), 0x7F}
"""Characters that are not in short names: those of fatgen103's list that fsck.fat refuses; others occur."""
_DOTS: Final = (b".", b"..")

_STRUCTURE_LONG: Final = "FAT long name"

Note = Callable[[int, str, str], None]
"""Function that records a problem: offset on the disk, structure, message."""


@dataclass(frozen=True, slots=True)
class ParsedEntry:
    """An entry of a directory: a file, a directory, a label, or one of the entries "." and ".."."""

    offset: int
    """Bytes from the start of the decoded disk to its 32 bytes."""
    short_name: bytes
    """Short name, eleven bytes."""
    name: str
    """Long name, or else the short one with its case flags; text of a label; empty for a blank one."""
    is_directory: bool
    is_label: bool
    is_dots: bool
    """Whether it is "." or "..", the directory itself or its parent."""
    first_cluster: int
    size: int
    """Size in bytes, as the entry says; 0 in a correct directory."""
    modified: datetime | None


class EntryReader:
    """Decoder of directories' entries."""

    def __init__(self, *, fat32: bool, encoding: str = "ibm437") -> None:
        """A decoder for a FAT32 volume or for others; `encoding` is the OEM code page of short names."""
        # Not at the module's head: importing pyfatfs takes 6 ms, which only FAT needs.
        from pyfatfs.EightDotThree import EightDotThree
        from pyfatfs.FATDirectoryEntry import FATLongDirectoryEntry

        self._new_short_name, self._new_long_name = EightDotThree, FATLongDirectoryEntry
        self._fat32 = fat32
        self._encoding = encoding

    def read(self, parts: Iterable[tuple[int, bytes]], note: Note, note_oddity: Note) -> Iterator[ParsedEntry]:
        """Entries of one directory.

        Args:
            parts: Disk offset and bytes of each contiguous part of the directory, in order.
            note: Called for damaged long names and dates.
            note_oddity: Called for faults that hide no file: parts of long names without an entry, and nonzero
                fields in them that have to be 0.
        """
        long_name: list[LongNameEntry] = []
        for base, data in parts:
            for raw in DirectoryEntry.parse_all(data, base=base):
                at = base if raw.source_offset is None else raw.source_offset
                if raw.short_name[0] in (_END, _DELETED):
                    self._check_orphans(long_name, note_oddity)
                    long_name = []
                    if raw.short_name[0] == _END:
                        if any(first not in (_END, _DELETED) for first in data[at - base :: DirectoryEntry.length()]):
                            note_oddity(at, "FAT directory", "entries follow its end mark")
                        return
                elif raw.attributes & _ATTRIBUTE_MASK == _LONG_NAME:
                    part = LongNameEntry.parse(raw.raw, base=at)
                    if part.kind or part.first_cluster_low or part.attributes != _LONG_NAME:
                        note_oddity(at, _STRUCTURE_LONG, "fields of a part that must be 0 are not 0")
                    long_name.append(part)
                else:
                    entry = self._entry(raw, at, long_name, note)
                    if entry.is_label or entry.is_dots:
                        self._check_orphans(long_name, note_oddity)
                    elif long_name and _goes_on(long_name):
                        note_oddity(long_name[0].source_offset or 0, _STRUCTURE_LONG, "characters follow its end")
                    if raw.attributes & _LABEL and raw.attributes & _DIRECTORY:
                        note_oddity(at, "FAT directory entry", "it is a label and a directory at once, and passed over")
                    yield entry
                    long_name = []
        self._check_orphans(long_name, note_oddity)

    @staticmethod
    def _check_orphans(parts: list[LongNameEntry], note_oddity: Note) -> None:
        """Report parts of a long name that no entry follows."""
        if parts:
            at = parts[0].source_offset or 0
            note_oddity(at, _STRUCTURE_LONG, f"{len(parts)} parts belong to no entry")

    def decode(self, raw: bytes) -> str:
        """Text from bytes in the OEM code page; bytes without a character there become U+FFFD."""
        return raw.decode(self._encoding, "replace")

    def _entry(self, raw: DirectoryEntry, at: int, parts: list[LongNameEntry], note: Note) -> ParsedEntry:
        if raw.attributes & _LABEL:
            # A label is eleven characters, not a name and an extension.
            label = "" if raw.attributes & _DIRECTORY else self.decode(_real(raw.short_name)).rstrip(" ")
            return ParsedEntry(
                at, raw.short_name, label, False, True, False, raw.first_cluster_low, raw.file_size, None
            )
        short = self._new_short_name(encoding=self._encoding)
        short.set_byte_name(raw.short_name)
        is_dots = raw.short_name.rstrip(b" ") in _DOTS
        long_name = self._long_name(parts, short.checksum(), at, note) if parts and not is_dots else None
        name = self._short_name(raw) if long_name is None else long_name
        modified = dos_datetime(raw.modified_date, raw.modified_time)
        if modified is None and raw.modified_date and not is_dots:
            note(
                at, "FAT directory entry", f"modified: {raw.modified_date:#06x} {raw.modified_time:#06x} is not a date"
            )
        if not is_dots:
            self._check_name(raw.short_name, long_name, at, note)
        return ParsedEntry(
            offset=at,
            short_name=raw.short_name,
            name=name,
            is_directory=bool(raw.attributes & _DIRECTORY),
            is_label=False,
            is_dots=is_dots,
            first_cluster=raw.first_cluster_low | (raw.first_cluster_high << 16 if self._fat32 else 0),
            size=raw.file_size,
            modified=modified,
        )

    @staticmethod
    def _check_name(short: bytes, long_name: str | None, at: int, note: Note) -> None:
        """Report a name that is blank or has characters that FAT does not allow in names."""
        if short.isspace():
            note(at, "FAT directory entry", "its short name is blank" + ("" if long_name else "; it is left out"))
        elif short[0] == ord(" ") or set(_real(short)) & _ILLEGAL_IN_SHORT:
            note(at, "FAT directory entry", f"its short name {short!r} has characters that no name has")
        if long_name in (".", "..") or any(ord(character) in _ILLEGAL for character in long_name or ""):
            note(at, "FAT long name", f"{long_name!r} has characters that no name has")

    def _short_name(self, raw: DirectoryEntry) -> str:
        name = _real(raw.short_name)
        base, extension = self.decode(name[:8]).rstrip(" "), self.decode(name[8:]).rstrip(" ")
        if raw.case_flags & _LOWER_BASE:
            base = base.lower()
        if raw.case_flags & _LOWER_EXTENSION:
            extension = extension.lower()
        return f"{base}.{extension}" if extension else base

    def _long_name(self, parts: list[LongNameEntry], checksum: int, at: int, note: Note) -> str | None:
        """Long name in `parts`, or None when they are not a long name of the entry at `at`."""
        # fatgen103: "the long entries must immediately precede and be physically contiguous with" the short one,
        # the last part first, each with the short name's checksum. Parts before the last one's are orphans.
        starts = [index for index, part in enumerate(parts) if part.ordinal & _LAST_PART]
        parts = parts[starts[-1] :] if starts else parts
        count = parts[0].ordinal & ~_LAST_PART
        in_order = [part.ordinal & ~_LAST_PART for part in parts] == list(range(count, 0, -1))
        if not starts or not in_order or count > _MOST_PARTS or any(part.checksum != checksum for part in parts):
            note(at, "FAT long name", "its parts are incomplete, out of order or foreign; the short name is used")
            return None
        decoder = self._new_long_name()
        for part in parts:
            decoder.add_lfn_entry(
                part.ordinal,
                part.characters_1,
                _LONG_NAME,
                part.kind,
                part.checksum,
                part.characters_2,
                0,
                part.characters_3,
            )
        try:
            name = str(decoder)
        except UnicodeDecodeError:
            note(at, "FAT long name", "it is not valid UTF-16; the short name is used")
            return None
        return name.partition("\0")[0] or None


def _goes_on(parts: list[LongNameEntry]) -> bool:
    """Whether characters follow the end of a long name, whose rest is FFFF, or 0000 by some writers."""
    units = b"".join(part.characters_1 + part.characters_2 + part.characters_3 for part in reversed(parts))
    pairs = [units[at : at + 2] for at in range(0, len(units), 2)]
    end = pairs.index(b"\0\0") if b"\0\0" in pairs else len(pairs)
    return any(pair not in (b"\0\0", b"\xff\xff") for pair in pairs[end:])


def _real(name: bytes) -> bytes:
    """Short name or label with its real first byte: 05 stands for E5, which marks deleted entries."""
    return bytes([_DELETED]) + name[1:] if name[0] == _STANDS_FOR_E5 else name


def dos_datetime(date: int, time: int) -> datetime | None:
    """Time of a directory entry's date and time fields, to two seconds; None where they are not valid."""
    try:
        return datetime(  # noqa: DTZ001  # FAT has no time zone
            1980 + (date >> 9), date >> 5 & 0x0F, date & 0x1F, time >> 11, time >> 5 & 0x3F, (time & 0x1F) * 2
        )
    except ValueError:
        return None
