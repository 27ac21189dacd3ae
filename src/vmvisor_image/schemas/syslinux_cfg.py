"""``isolinux.cfg``, ``syslinux.cfg`` and ``pxelinux.cfg/default``: which kernel is loaded, with what.

Source: SYSLINUX's documentation, doc/syslinux.txt of 3.86: a keyword, spaces, and a value up to the end of the line;
keywords without regard to case; ``#`` begins a comment; what is before the first LABEL counts for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

_OF_ENTRY: Final = frozenset(
    {
        *("kernel", "append", "linux", "com32", "initrd", "ipappend", "sysappend", "boot", "bss", "pxe", "fdimage"),
        *("comboot", "config", "localboot", "text", "endtext", "menu"),
    }
)
"""Keywords that belong to the LABEL above them, as most others do not."""


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


def add_entry(data: bytes, label: str, lines: Sequence[str]) -> bytes:
    """A configuration with one more entry, or with another one in the place of that of the same label.

    All else stays as it is, byte for byte. A configuration without any entry becomes one whose default it is.

    Args:
        data: The configuration; empty for a new one.
        label: Of the entry, without regard to case.
        lines: The entry's settings.
    """
    added = "".join((f"label {label}\n", *(f"  {line}\n" for line in lines))).encode("utf-8", "surrogateescape")
    if not SyslinuxConfig.parse(data).entries:
        return f"default {label}\n".encode() + added
    kept: list[bytes] = []
    place: int | None = None
    is_replaced = False
    for line in data.splitlines(keepends=True):
        keyword, _, value = line.decode("utf-8", "surrogateescape").strip().replace("\t", " ").partition(" ")
        if keyword.casefold() == "label":
            is_replaced = value.strip().casefold() == label.casefold()
            place = len(kept) if is_replaced and place is None else place
        elif is_replaced:  # what is not indented may begin what counts for all
            is_replaced = line[:1].isspace() or keyword.casefold() in _OF_ENTRY
        if not is_replaced:
            kept.append(line)
    place = len(kept) if place is None else place
    if place and not kept[place - 1].endswith((b"\n", b"\r")):
        kept[place - 1] += b"\n"
    return b"".join((*kept[:place], added, *kept[place:]))
