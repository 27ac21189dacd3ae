"""Parts shared by the faces: the map of a disk in cells, the colours of roles, a partition's row, the end of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from vmvisor_image.disk.partition import Partition
from vmvisor_image.volumes.role import Role

MAP_CELLS: Final = 72
"""Characters in a map, or in a strip of entropy, as text."""
MOST_ENTRIES: Final = 200
"""Most files or fields in a table."""
PARTITION_COLUMNS: Final = ("#", "Label", "Start", "Size", "Type", "Kind", "Role")
"""Headings of the cells of `partition_row`."""


class RoleColor(NamedTuple):
    """The colour of a role."""

    css: str
    terminal: str | None
    """Name of the colour in rich; None for the colour of other text."""


ROLE_COLORS: Final = MappingProxyType(
    {
        Role.BOOT: RoleColor("#3b6ea5", "blue"),
        Role.BOOTBANK: RoleColor("#2e7d32", "green"),
        Role.ALT_BOOTBANK: RoleColor("#558b57", "bright_green"),
        Role.COREDUMP: RoleColor("#c62828", "red"),
        Role.STORE: RoleColor("#8e5a8a", "magenta"),
        Role.SCRATCH: RoleColor("#a86400", "yellow"),
        Role.DATASTORE: RoleColor("#00838f", "cyan"),
        Role.INSTALLER: RoleColor("#3949ab", "blue"),
        Role.OSDATA: RoleColor("#0b5c66", "bright_cyan"),
        Role.VSAN: RoleColor("#00695c", "cyan"),
        Role.MEMORY_TIER: RoleColor("#6d4c41", "bright_yellow"),
        Role.UNKNOWN: RoleColor("#757575", None),
    }
)
"""Colour of each role whose partitions are drawn."""


class Drawn(Protocol):
    """A partition, or the report of one."""

    @property
    def number(self) -> int:
        """Number of the partition."""
        ...

    @property
    def start(self) -> int:
        """First byte, from the start of the disk."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    @property
    def role(self) -> Role:
        """Purpose of the partition."""
        ...


D = TypeVar("D", bound=Drawn)


@dataclass(frozen=True, slots=True)
class Cell(Generic[D]):
    """A cell of the map that a partition occupies."""

    partition: D
    is_first: bool
    """Whether it is the partition's first cell."""


def map_end(partitions: Sequence[Drawn], disk_size: int | None) -> int:
    """Bytes from the start of the disk to the end of its map; 0 where there is nothing to draw."""
    return max([disk_size or 0, *(partition.start + partition.size for partition in partitions)])


def map_cells(partitions: Sequence[D], disk_size: int | None = None) -> list[Cell[D] | None]:
    """Cells of the disk from left to right, to scale, at least one for each partition; None outside of partitions."""
    end = max(1, map_end(partitions, disk_size))
    cells: list[Cell[D] | None] = [None] * MAP_CELLS
    drawn = [partition for partition in partitions if partition.role is not Role.CONTAINER]
    # The large ones first, so that small ones with a single cell stay visible.
    for partition in sorted(drawn, key=lambda partition: -partition.size):
        first = min(partition.start * MAP_CELLS // end, MAP_CELLS - 1)
        last = max(first + 1, (partition.start + partition.size) * MAP_CELLS // end)
        cells[first:last] = [Cell(partition, at == first) for at in range(first, last)]
    return cells


def partition_row(partition: Partition, size: str) -> tuple[str, ...]:
    """Cells of a partition's row, its size as the face writes it."""
    return (
        f"{partition.number}{'*' if partition.active else ''}",
        partition.label or "",
        f"{partition.start:#x}",
        size,
        str(partition.type),
        partition.kind,
        partition.role.value,
    )


def more(rows: Sequence[object]) -> str:
    """Text in place of the rows that a table leaves out; empty where it has all."""
    return f"… and {len(rows) - MOST_ENTRIES:,} more" if len(rows) > MOST_ENTRIES else ""
