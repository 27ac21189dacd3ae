"""``boot.cfg``: what a boot bank loads, in which order.

Source of the rules: vmware/esx-boot, mboot/config.c and safeboot/config.c, read for the facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self


@dataclass(frozen=True, slots=True)
class BootModule:
    """A file that the boot loader loads."""

    name: str
    """File name, as the configuration spells it."""
    arguments: str = ""
    """What follows the name."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The first word of `text` is the name, the rest are arguments."""
        name, _, arguments = text.strip().partition(" ")
        return cls(name, arguments.strip())


@dataclass(frozen=True, slots=True)
class BootConfig:
    """The settings of a ``boot.cfg``."""

    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Every setting, keys in lower case; of a key that is there twice, the last one."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a configuration; lines that are no setting are passed over, as the boot loader does."""
        values: dict[str, str] = {}
        for line in data.decode("utf-8", "replace").replace("\0", "").splitlines():
            key, separator, value = line.partition("=")
            if separator and not line.lstrip().startswith("#"):
                values[key.strip().casefold()] = value.strip()
        return cls(MappingProxyType(values))

    @property
    def kernel(self) -> BootModule | None:
        """The kernel with its options, or None where none is named."""
        name = self.values.get("kernel", "")
        return BootModule(name, self.values.get("kernelopt", "")) if name else None

    @property
    def modules(self) -> tuple[BootModule, ...]:
        """The modules in load order."""
        items = (item.strip() for item in self.values.get("modules", "").split("---"))
        return tuple(BootModule.parse(item) for item in items if item)

    @property
    def build(self) -> str | None:
        """Version and build, such as "4.1.0-260247", or None."""
        return self.values.get("build") or None
