"""``isolinux.cfg``, ``syslinux.cfg`` and ``pxelinux.cfg/default``: which kernel is loaded, with what.

Source: SYSLINUX's documentation, doc/syslinux.txt of 3.86: a keyword, spaces, and a value up to the end of the line;
keywords without regard to case; ``#`` begins a comment; what is before the first LABEL counts for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class BootEntry:
    """What one LABEL stands for."""

    label: str
    kernel: str
    """What SYSLINUX loads."""
    append: str
    """What it passes on, or "" for nothing."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The items of `append`, where a multiboot loader is loaded: file names, each with its arguments."""
        return tuple(filter(None, (item.strip() for item in self.append.split("---"))))


@dataclass(frozen=True, slots=True)
class SyslinuxConfig:
    """The parts of a configuration that say what can be booted; menus and messages are passed over."""

    default: str | None
    """Label, or command, that is booted when nobody chooses."""
    entries: tuple[BootEntry, ...]
    """In the order of the file."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a configuration; what is no setting is passed over."""
        default: str | None = None
        append_for_all = ""
        found: list[dict[str, str]] = []
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            keyword, _, value = line.strip().replace("\t", " ").partition(" ")
            value = value.strip()
            match keyword.casefold():
                case "label":
                    found.append({"label": value, "kernel": value})
                case "default":
                    default = value
                case "kernel" | "com32" | "linux" if found:
                    found[-1]["kernel"] = value
                case "append" if found:
                    found[-1]["append"] = "" if value == "-" else value
                case "append":
                    append_for_all = value
        entries = tuple(BootEntry(e["label"], e["kernel"], e.get("append", append_for_all)) for e in found)
        return cls(default, entries)

    @property
    def default_entry(self) -> BootEntry | None:
        """What is booted when nobody chooses: the default's, else the first that loads anything."""
        wanted = (self.default or "").casefold()
        return next((entry for entry in self.entries if entry.label.casefold() == wanted), None)

    def multiboot_entry(self) -> BootEntry | None:
        """The entry that loads a hypervisor: the default one where it does, else the first that does."""
        ordered = [entry for entry in (self.default_entry, *self.entries) if entry is not None]
        return next((entry for entry in ordered if "mboot" in entry.kernel.casefold() and entry.append), None)
