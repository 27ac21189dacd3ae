"""The registry of the formats in which machines are described."""

from __future__ import annotations

from typing import Final, Protocol

from vmvisor_image.machines import libvirt, ovf, vmx
from vmvisor_image.machines.machine import Description


class MachineFormat(Protocol):
    """Members of the module of a format."""

    @property
    def NAME(self) -> str:  # noqa: N802  # a constant of a module
        """Name in words."""
        ...

    @property
    def KIND(self) -> str:  # noqa: N802
        """`Machine.kind`."""
        ...

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """Suffixes of its files."""
        ...

    @property
    def REFERENCES(self) -> tuple[str, ...]:  # noqa: N802
        """Sources of the facts about it."""
        ...

    @property
    def LARGEST(self) -> int:  # noqa: N802
        """Number of bytes of a file that are read."""
        ...

    def probe(self, head: bytes) -> bool:
        """Whether a file may be of this format, by its first 4096 bytes; a disk is not."""
        ...

    def parse(self, data: bytes) -> tuple[Description, ...] | None:
        """Machines that a file describes; None where it is not of this format.

        Raises:
            CorruptImage: It is of this format, and can't be read.
        """
        ...


MACHINES: Final[tuple[MachineFormat, ...]] = (vmx, ovf, libvirt)
"""Formats in the order in which they are tried."""
