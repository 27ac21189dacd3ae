"""Deterministic small ISO 9660 volumes, plain or with the names of Rock Ridge.

What vouches for what each function makes is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.schemas.iso9660 import (
    DIRECTORY,
    FIRST_DESCRIPTOR,
    MAGIC,
    PRIMARY,
    SECTOR,
    TERMINATOR,
    DirectoryRecord,
    VolumeDescriptor,
)

_WHEN: Final = bytes((108, 1, 15, 12, 0, 0, 0))
_FILE, _FOLDER, _LINK = 0o100644, 0o040755, 0o120777
_STRUCTURE_VERSION: Final = 881
"""Offset in the volume descriptor of the version of the files' structure (8.4.30)."""
_ROCK_RIDGE: Final = b"ER" + bytes((18, 1, 10, 0, 0, 1)) + b"RRIP_1991A"
"""Entry that announces those of Rock Ridge (SUSP, 5.5)."""
_SHARING_PROTOCOL: Final = b"SP\x07\x01\xbe\xef\x00"


@dataclass(slots=True)
class _Node:
    children: dict[str, bytes | str | _Node] = field(default_factory=dict)
    block: int = 0


def iso_volume(
    files: Mapping[str, bytes],
    *,
    links: Mapping[str, str] | None = None,
    rock_ridge: bool = True,
    label: str = "FORGED",
) -> bytes:
    """A volume of files, each directory in one sector.

    Vouched for by ``xorriso``, ``bsdtar`` and ``blkid``: ``tests/test_vouchers.py``.

    Args:
        files: Content by path; a path that ends in a slash is an empty directory.
        links: Targets of symbolic links by path; they need Rock Ridge.
        rock_ridge: Write names as they are, and kinds of files.
        label: The volume identifier.

    Raises:
        InvalidArgument: A directory has more entries than a sector holds, or a link has no Rock Ridge.
    """
    if links and not rock_ridge:
        raise InvalidArgument("links need Rock Ridge")
    root = _Node()
    contents: dict[str, bytes | str] = {**files, **(links or {})}
    for path, content in contents.items():
        parts = [part for part in path.split("/") if part]
        here = root
        for part in parts if path.endswith("/") else parts[:-1]:
            below: bytes | str | _Node = here.children.setdefault(part, _Node())
            if not isinstance(below, _Node):
                raise InvalidArgument(f"{part!r} is a file and a directory")
            here = below
        if not path.endswith("/"):
            here.children[parts[-1]] = content
    return _Writer(rock_ridge=rock_ridge).write(root, label)


class _Writer:
    def __init__(self, *, rock_ridge: bool) -> None:
        self._rock_ridge = rock_ridge
        self._blocks: list[bytes] = []
        self._path_tables = (0, b"")
        """Bytes of one path table, and the places of the two tables."""

    def write(self, root: _Node, label: str) -> bytes:
        self._blocks = [bytes(SECTOR)] * (FIRST_DESCRIPTOR + 2)
        self._place(root, root)
        tables = [self._path_table(root, order) for order in ("little", "big")]
        places = [self._take(table) for table in tables]
        self._path_tables = len(tables[0]), places[0].to_bytes(4, "little") + bytes(4) + places[1].to_bytes(4, "big")
        self._blocks[FIRST_DESCRIPTOR] = self._descriptor(root, label)
        self._blocks[FIRST_DESCRIPTOR + 1] = (bytes((TERMINATOR,)) + MAGIC + b"\1").ljust(SECTOR, b"\0")
        return b"".join(self._blocks)

    def _take(self, data: bytes) -> int:
        """Number of the block at which `data` was placed."""
        at = len(self._blocks)
        self._blocks += [data[start : start + SECTOR].ljust(SECTOR, b"\0") for start in range(0, len(data), SECTOR)]
        return at

    def _place(self, node: _Node, parent: _Node) -> None:
        node.block = self._take(bytes(SECTOR))
        is_marked = self._rock_ridge and node is parent
        marker, extension = (_SHARING_PROTOCOL, _ROCK_RIDGE) if is_marked else (b"", b"")
        records = [
            self._record(b"\0", node.block, SECTOR, DIRECTORY, marker + self._mode(_FOLDER) + extension),
            self._record(b"\1", parent.block, SECTOR, DIRECTORY, self._mode(_FOLDER)),
        ]
        for name, content in node.children.items():
            if isinstance(content, _Node):
                self._place(content, node)
                records.append(self._named(name, content.block, SECTOR, DIRECTORY, _FOLDER))
            elif isinstance(content, bytes):
                records.append(self._named(name, self._take(content), len(content), 0, _FILE))
            else:
                records.append(self._named(name, 0, 0, 0, _LINK, _link(content)))
        data = b"".join(records)
        if len(data) > SECTOR:
            raise InvalidArgument(f"a directory has {len(data)} bytes of entries, and one sector has {SECTOR}")
        self._blocks[node.block] = data.ljust(SECTOR, b"\0")

    def _path_table(self, root: _Node, order: Literal["little", "big"]) -> bytes:
        """All directories, level by level, each with the number of the one above it (ECMA-119, 9.4)."""
        found, pending = b"", [(b"\0", root, 1)]
        for number, (name, node, above) in enumerate(pending, 1):
            head = bytes((len(name), 0)) + node.block.to_bytes(4, order) + above.to_bytes(2, order)
            found += head + name + bytes(len(name) % 2)
            below = ((key, child) for key, child in node.children.items() if isinstance(child, _Node))
            pending += [(self._plain_name(key, child), child, number) for key, child in below]
        return found

    def _plain_name(self, name: str, node: _Node) -> bytes:
        """Name in the record itself, which Rock Ridge hides."""
        return b"%X" % node.block if self._rock_ridge else name.encode("utf-8", "surrogateescape")

    def _named(self, name: str, block: int, length: int, flags: int, mode: int, more: bytes = b"") -> bytes:
        raw = name.encode("utf-8", "surrogateescape")
        if not self._rock_ridge:
            return self._record(raw if flags else raw + b";1", block, length, flags, b"")
        use = b"NM" + bytes((5 + len(raw), 1, 0)) + raw + self._mode(mode) + more
        return self._record(b"%X" % block, block, length, flags, use)

    def _mode(self, mode: int) -> bytes:
        """A PX entry: mode, links, owner and group, each in both byte orders."""
        if not self._rock_ridge:
            return b""
        numbers = b"".join(number.to_bytes(4, "little") + number.to_bytes(4, "big") for number in (mode, 1, 0, 0))
        return b"PX" + bytes((36, 1)) + numbers

    @staticmethod
    def _record(name: bytes, block: int, length: int, flags: int, use: bytes) -> bytes:
        body = name + bytes(1 - len(name) % 2) + use
        size = DirectoryRecord.length() + len(body)
        size += size % 2
        if size > 255:
            raise InvalidArgument(f"the record of {name!r} has {size} bytes, at most 255 are possible")
        head = DirectoryRecord(
            record_length=size,
            attribute_length=0,
            extent=block,
            extent_big=block.to_bytes(4, "big"),
            data_length=length,
            data_length_big=length.to_bytes(4, "big"),
            recorded=_WHEN,
            flags=flags,
            unit_size=0,
            gap_size=0,
            sequence_number=1,
            sequence_number_big=b"\0\1",
            name_length=len(name),
        )
        return (head.build() + body).ljust(size, b"\0")

    def _descriptor(self, root: _Node, label: str) -> bytes:
        count = len(self._blocks)
        descriptor = VolumeDescriptor(
            type_code=PRIMARY,
            magic=MAGIC,
            version=1,
            flags=0,
            system_identifier=b" " * 32,
            volume_identifier=label.encode("ascii").ljust(32),
            unused=bytes(8),
            block_count=count,
            block_count_big=count.to_bytes(4, "big"),
            escape_sequences=bytes(32),
            set_size=1,
            set_size_big=b"\0\1",
            sequence_number=1,
            sequence_number_big=b"\0\1",
            block_size=SECTOR,
            block_size_big=SECTOR.to_bytes(2, "big"),
            path_table_size=self._path_tables[0],
            path_table_size_big=self._path_tables[0].to_bytes(4, "big"),
            path_tables=self._path_tables[1] + bytes(4),
            root_directory=self._record(b"\0", root.block, SECTOR, DIRECTORY, b""),
            volume_set_identifier=b" " * 128,
            publisher=b" " * 128,
            preparer=b" " * 128,
            application=b"FORGED".ljust(128),
            identifier_files=b" " * 111,
            created=b"2008011512000000\0",
        )
        return (descriptor.build().ljust(_STRUCTURE_VERSION, b"\0") + b"\1").ljust(SECTOR, b"\0")


def _link(target: str) -> bytes:
    """An SL entry of one component for each part of the target."""
    components = b""
    for part in target.split("/"):
        flags = {"": 0x8, ".": 0x2, "..": 0x4}.get(part, 0)
        raw = b"" if flags else part.encode("utf-8", "surrogateescape")
        components += bytes((flags, len(raw))) + raw
    return b"SL" + bytes((5 + len(components), 1, 0)) + components
