"""Rock Ridge: attributes of a file from the entries of a system use area (P1282)."""

from __future__ import annotations

from datetime import datetime

from vmvisor_image.archives.iso9660_values import long_time, short_time


class RockRidge:
    """Attributes from the entries of one system use area (P1282, section 4.1)."""

    def __init__(self) -> None:
        self._name = b""
        self._target: list[bytes] = []
        self._joins = False
        self.mode = self.owner = self.group = 0
        self.modified: datetime | None = None
        self.child: int | None = None
        """Block to which this directory was relocated."""
        self.is_relocated = False
        self.is_compressed = False
        self.is_cut = False
        """Whether a component of a link's target is cut off."""

    @property
    def name(self) -> str:
        """Name of the file (NM entries); empty where the area has none."""
        return self._name.decode("utf-8", "surrogateescape")

    @property
    def target(self) -> str:
        """Target of a symbolic link (SL entries)."""
        text = b"/".join(self._target).decode("utf-8", "surrogateescape")
        return text or "/"

    def take(self, signature: bytes, data: bytes) -> None:
        """Take one entry; unknown and too short ones are ignored."""
        match signature:
            case b"NM" if data and not data[0] & 0x6:
                self._name += data[1:]
            case b"PX" if len(data) >= 32:
                self.mode, _, self.owner, self.group = (
                    int.from_bytes(data[at : at + 4], "little") for at in (0, 8, 16, 24)
                )
            case b"SL" if data:
                self._take_target(data[1:])
            case b"TF" if data:
                self.modified = _time_stamp(data) or self.modified
            case b"CL" if len(data) >= 4:
                self.child = int.from_bytes(data[:4], "little")
            case b"RE":
                self.is_relocated = True
            case b"ZF":
                self.is_compressed = True

    def _take_target(self, components: bytes) -> None:
        while len(components) >= 2:
            flags, length = components[0], components[1]
            text = components[2 : 2 + length]
            self.is_cut |= len(text) < length
            components = components[2 + length :]
            special = {0x2: b".", 0x4: b"..", 0x8: b""}.get(flags & 0xE)
            part = text if special is None else special
            if self._joins and self._target:
                self._target[-1] += part
            else:
                self._target.append(part)
            self._joins = bool(flags & 0x1)


def _time_stamp(data: bytes) -> datetime | None:
    """Time of the last modification in a TF entry (P1282, 4.1.6); None where the entry has none."""
    flags = data[0]
    if not flags & 0x2:
        return None
    width, parse = (17, long_time) if flags & 0x80 else (7, short_time)
    at = 1 + (width if flags & 0x1 else 0)
    raw = data[at : at + width]
    return parse(raw) if len(raw) == width else None
